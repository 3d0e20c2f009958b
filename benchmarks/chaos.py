"""A sweep under a monkey that kills it, against the same sweep undisturbed.

    python benchmarks/chaos.py --kills 50 --storage journal --out results/benchmarks/chaos.csv
    python benchmarks/chaos.py --kills 20 --server-kills 3 --storage postgres

Two processes of `--workers` workers in all share the sweep. At random moments the monkey sends
SIGKILL to a worker, to a process, to both processes at once, or to both while they write their
tables; it stops one for some seconds, interrupts one as Ctrl-C does, fills the disk, and kills the
database server. Whoever ended is started again by the same command, as a batch system would. One
architecture raises, one eats memory, one hangs once, one kills its worker once.

In a journal or SQLite the two processes work in one folder of one machine. In PostgreSQL they have
a folder each, and take each other for another machine, with a heartbeat that is old after two
seconds: each outage of the server makes them take over each other's trials.

At the end nothing may be left but the tables, and they must be those of the undisturbed sweep.
Linux; the disk is a small tmpfs where mounting is allowed, otherwise the size of files is limited.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import optuna
import pandas as pd
import psutil
import torch
from rich.console import Console
from rich.table import Table

from sqzexplore import provenance
from sqzexplore.results.folder import load_results
from sqzexplore.sweep.storage.open import open_storage

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path.insert(0, str(TESTS))

# Real servers, processes and misbehaving trials are shared with the tests.
from helpers import servers  # noqa: E402
from helpers.command_line import Started  # noqa: E402
from helpers.processes import FAULTY  # noqa: E402

SPEC = """\
name: chaos
base: {{width_multiplier: 0.25}}
space: {{squeeze_ratio: {ratios}}}
search: {{{search}, retries: 1000, trial_timeout: {timeout}}}
measure:
  accuracy:
    {{data: digits, epochs: {epochs}, seeds: 2, proxy: {{width_multiplier: 0.1}}}}
"""
#: Of each architecture, what two runs may differ in.
_OWN = ("trial", "started_at", "duration_s", "attempts")
_KEYS = {
    "trials": ["arch_id"],
    "seeds": ["arch_id", "seed"],
    "history": ["arch_id", "seed", "epoch"],
}
#: What the monkey does, in any order, and how often before it begins anew.
_KINDS = {
    "worker": 13,
    "process": 4,
    "both processes": 1,
    "while writing": 2,
    "stop": 2,
    "interrupt": 2,
    "full disk": 1,
}
_TMPFS_MB = 64


class Process:
    """A process of the sweep, started again until it says that nothing is left."""

    def __init__(self, name: str, start: Callable[[], Started]):
        self.name, self._start = name, start
        self.done, self.disk_full = False, False
        self.starts, self.ends = 0, Counter[str]()
        self.start()

    def start(self) -> None:
        self.starts += 1
        self._process = self._start()

    def look(self) -> None:
        """Start it again if it ended before the sweep did."""
        if self.done or (code := self._process.poll()) is None:
            return
        _, text = self._process.communicate(timeout=1)  # its workers may hold the pipe for longer
        if code in (0, 1) and "to resume" not in text and "Traceback" not in text:
            self.done = True
            return
        expected = code in (-signal.SIGKILL, 130) or (self.disk_full and code in (1, 2))
        # A database is waited for once it was there; at the start it must be.
        expected |= code == 2 and "the database cannot be opened" in text
        if "Traceback" in text or not expected:
            self.ends["crash"] += 1
            print(f"{self.name}, start {self.starts}: exit {code}\n{text}", file=sys.stderr)
        self.ends[str(code)] += 1
        self.start()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def workers(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            children = psutil.Process(self._process.pid).children(recursive=True)
            return [child for child in children if _is_worker(child)]
        return []

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def _is_worker(process: psutil.Process) -> bool:
    """Or the process that the workers are forked from."""
    with suppress(psutil.NoSuchProcess):
        return any("forkserver" in part for part in process.cmdline())
    return False


class Monkey:
    """Does harm at random moments, of which `done` keeps count."""

    def __init__(
        self,
        seed: int,
        processes: list[Process],
        folders: list[Path],
        server: servers.Postgres | None,
        fill: Callable[[list[Process]], None],
        log: Path,
    ) -> None:
        self._log = log
        self._random, self._processes, self._folders = random.Random(seed), processes, folders
        self._server, self._fill = server, fill
        self.done: Counter[str] = Counter()
        self._plan: list[str] = []

    @property
    def kills(self) -> int:
        """SIGKILLs of workers and processes."""
        return self.done["worker"] + self.done["process"]

    def pause(self, mean: float) -> None:
        """Until the next harm; meanwhile processes that ended are started again."""
        until = time.monotonic() + self._random.uniform(0.1, 2 * mean)
        while time.monotonic() < until and not all(each.done for each in self._processes):
            self.look()
            time.sleep(0.05)

    def look(self) -> None:
        for process in self._processes:
            process.look()

    def harm(self, server_kills: int) -> None:
        """One of all that it does; the server's deaths are spread over the others."""
        if self._server and self._random.random() < 0.2 and self.done["server"] < server_kills:
            self._server.kill()
            time.sleep(self._random.uniform(0.0, 4.0))
            self._server.start()
            self.done["server"] += 1
            return
        if not self._plan:
            self._plan = [kind for kind, times in _KINDS.items() for _ in range(times)]
            self._random.shuffle(self._plan)
        kind = self._plan.pop()
        running = [each for each in self._processes if not each.done]
        process = self._random.choice(running)
        match kind:
            case "worker":
                self._kill_worker(running)
            case "process":
                self._kill(process)
            case "both processes":
                self._kill(*running)
            case "while writing":
                self._kill_while_writing(running)
            case "stop":
                process.signal(signal.SIGSTOP)
                time.sleep(self._random.uniform(1, 6))
                process.signal(signal.SIGCONT)
                self.done["stop"] += 1
            case "interrupt":
                self._interrupt(process)
            case "full disk":
                self._fill(running)
                self.done["full disk"] += 1

    def _kill_worker(self, running: list[Process]) -> None:
        """Mostly one that has begun to evaluate: of its life it spends a good part starting."""
        until = time.monotonic() + (15 if self._random.random() < 0.8 else 0)
        while True:
            workers = [worker for process in running for worker in process.workers()]
            begun = {int(line.split()[1]) for line in self._log.read_text().splitlines()}
            at_work = [worker for worker in workers if worker.pid in begun]
            if at_work or time.monotonic() > until:
                break
            self.look()
            time.sleep(0.05)
        time.sleep(self._random.uniform(0, 0.5))
        if workers:
            with suppress(psutil.NoSuchProcess):
                self._random.choice(at_work or workers).kill()
                self.done["worker"] += 1

    def _interrupt(self, process: Process) -> None:
        """Past its own beginning, when Python itself would answer."""
        until = time.monotonic() + 20
        while not process.workers() and not process.done and time.monotonic() < until:
            self.look()
            time.sleep(0.05)
        if process.workers():
            process.signal(signal.SIGINT)
            self.done["interrupt"] += 1

    def _kill(self, *processes: Process) -> None:
        for process in processes:
            process.signal(signal.SIGKILL)
            self.done["process"] += 1

    def _kill_while_writing(self, running: list[Process]) -> None:
        until = time.monotonic() + 10
        while time.monotonic() < until:
            if any(True for folder in self._folders for _ in folder.glob(".*.*.*")):
                self._kill(*running)
                self.done["while writing"] += 1
                return


# --- the disk ------------------------------------------------------------------------------------


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A small disk at `folder`, if it may be mounted."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={_TMPFS_MB}m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill_disk(folder: Path, running: list[Process]) -> None:
    """No room is left for some seconds."""
    ballast = folder / "ballast"
    for process in running:
        process.disk_full = True
    try:
        until = time.monotonic() + 6
        with ballast.open("wb", buffering=0) as file:
            while time.monotonic() < until:
                try:
                    file.write(b"x" * 65536)
                except OSError:
                    time.sleep(0.005)  # full: what is freed is taken at once
                for process in running:
                    process.look()
    finally:
        with suppress(OSError):
            ballast.unlink()
    _settle(running)


def limit_files(running: list[Process]) -> None:
    """No file may grow, for the processes that run now."""
    for process in running:
        process.disk_full = True
        for each in (process._process, *process.workers()):
            with suppress(ProcessLookupError):
                resource.prlimit(each.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    _settle(running)


def _settle(running: list[Process]) -> None:
    """Those that met the full disk have ended, or go on."""
    until = time.monotonic() + 6
    while time.monotonic() < until:
        for process in running:
            process.look()
        time.sleep(0.5)  # each try to begin again ends at once
    for process in running:
        process.disk_full = False


# --- the comparison ------------------------------------------------------------------------------


def compare(undisturbed: Path, folder: Path) -> dict[str, int]:
    """Rows that are missing, that are there twice, and that differ."""
    found = Counter[str](rows_lost=0, rows_doubled=0, rows_different=0)
    for table, keys in _KEYS.items():
        before, after = (load_results(each, table) for each in (undisturbed, folder))
        own = [name for name in _OWN if name in before]
        before, after = (t.drop(columns=own).set_index(keys).sort_index() for t in (before, after))
        found["rows_doubled"] += int(after.index.duplicated().sum())
        after = after[~after.index.duplicated()]
        found["rows_lost"] += len(before.index.difference(after.index))
        found["rows_different"] += len(after.index.difference(before.index))
        both = before.index.intersection(after.index)
        one, other = before.loc[both], after.loc[both]
        same = (one == other) | (one.isna() & other.isna())
        found["rows_different"] += int((~same.fillna(False).all(axis=1)).sum())
    return dict(found)


def left_over(undisturbed: Path, folder: Path) -> list[str]:
    """Files that an undisturbed sweep does not leave."""
    files = (
        {str(path.relative_to(each)) for path in each.rglob("*")} for each in (undisturbed, folder)
    )
    before, after = files
    return sorted(after - before - {".journal.lock", "study.journal"})


def study_of(folder: Path, url: str | None) -> dict[str, int]:
    """What stands in the study: trials without an end, and architectures with two rows."""
    trials = optuna.load_study(study_name="chaos", storage=open_storage(folder, url)).trials
    rows = Counter(t.user_attrs["row"]["arch_id"] for t in trials if "row" in t.user_attrs)
    return {
        "trials_unfinished": sum(not trial.state.is_finished() for trial in trials),
        "rows_doubled_in_study": sum(count - 1 for count in rows.values()),
    }


def alive(place: Path) -> int:
    """Processes of the sweep, which work in `place`, that still run after a while."""
    until = time.monotonic() + 20
    while True:
        running = 0
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                here = process.cwd() == str(place)
                running += here and process.status() != psutil.STATUS_ZOMBIE
        if not running or time.monotonic() > until:
            return running
        time.sleep(0.2)


# --- the two sweeps ------------------------------------------------------------------------------


def started(
    spec: Path, out: Path, workers: int, url: str | None, environment: dict[str, str]
) -> Started:
    """The sweep, in the folder of its file."""
    stored = ["--storage", url] if url else []
    arguments = ["sweep", spec, "--out", out, "--workers", workers, "--device", "cpu", *stored]
    return Started(*arguments, program=FAULTY, cwd=spec.parent, environment=environment)


def environment(faults: dict[float, str], log: Path, machine: str = "") -> dict[str, str]:
    log.touch()
    known = json.dumps({str(ratio): fault for ratio, fault in faults.items()})
    own = {"FAULTS": known, "FAULTS_LOG": str(log), "FAULTS_MACHINE": machine}
    return os.environ | own | {"OMP_NUM_THREADS": "1"}


def run(asked: argparse.Namespace, place: Path) -> dict[str, object]:
    """Both sweeps in `place`, compared."""
    count = asked.architectures
    ratios = [round(0.05 + 0.9 * i / (count - 1), 4) for i in range(count)]
    spec = place / "chaos.yaml"
    sizes = {"ratios": ratios, "timeout": asked.timeout, "epochs": asked.epochs}
    drawn = f", trials: {count}"  # all that there are
    own = f"sampler: {asked.sampler}{'' if asked.sampler == 'grid' else drawn}"
    spec.write_text(SPEC.format(search=own, **sizes))
    always = {ratios[1]: "raise", ratios[2]: "eat"}
    faults = always | {ratios[3]: "hang once", ratios[4]: "die once"}

    began = time.monotonic()
    undisturbed, log = asked.undisturbed or place / "undisturbed", place / "begun-undisturbed"
    if not (undisturbed / "trials.csv").exists():
        calm = place / "undisturbed.yaml"  # at random: a grid has the same rows, and fewer figures
        calm.write_text(SPEC.format(search=f"sampler: random{drawn}", **sizes))
        started(calm, undisturbed, asked.workers, None, environment(always, log)).wait()
    quiet_s = time.monotonic() - began

    with ExitStack() as stack:
        disk = place / "disk"
        disk.mkdir()
        mounted = stack.enter_context(small_disk(disk))
        server = stack.enter_context(servers.postgres()) if asked.storage == "postgres" else None
        url = server.new_database() if server else None
        if asked.storage == "sqlite":
            url = f"sqlite:///{disk}/study.db"
        folders = [disk / "one", disk / ("two" if server else "one")]
        log = place / "begun"
        processes = []
        for number, folder in enumerate(folders):
            own = environment(faults, log, f"machine {number}" if server else "")
            start = partial(started, spec, folder, max(1, asked.workers // 2), url, own)
            processes.append(Process(f"process {number}", start))
        for process in processes:
            stack.callback(process.kill)
        monkey = Monkey(
            asked.seed,
            processes,
            folders,
            server,
            (lambda running: fill_disk(disk, running)) if mounted else limit_files,
            log,
        )
        began = time.monotonic()
        while not all(process.done for process in processes):
            monkey.pause(asked.every)
            more = monkey.kills < asked.kills or monkey.done["server"] < asked.server_kills
            if more and not all(process.done for process in processes):
                monkey.harm(asked.server_kills)
            if time.monotonic() - began > asked.limit:
                raise TimeoutError(f"the sweep has not ended in {asked.limit:g} s")
        chaos_s = time.monotonic() - began
        orphans = alive(place)
        different = [compare(undisturbed, folder) for folder in folders]
        leftovers = {name for folder in folders for name in left_over(undisturbed, folder)}
        if leftovers:
            print("left over:", *sorted(leftovers), sep="\n  ", file=sys.stderr)
        ends = sum((process.ends for process in processes), Counter[str]())
        return {
            "storage": asked.storage,
            "sampler": asked.sampler,
            "seed": asked.seed,
            "workers": asked.workers,
            "architectures": count,
            "kills": monkey.kills,
            **{f"kills_{kind}": monkey.done[kind] for kind in ("worker", "process", "server")},
            "kills_while_writing": monkey.done["while writing"],
            "interrupts": monkey.done["interrupt"],
            "stops": monkey.done["stop"],
            "full_disks": monkey.done["full disk"],
            "restarts": sum(process.starts - 1 for process in processes),
            "evaluations_begun": len(log.read_text().splitlines()),
            **{name: max(each[name] for each in different) for name in different[0]},
            **study_of(folders[0], url),
            "files_left_over": len(leftovers),
            "processes_left": orphans,
            "crashes": ends["crash"],
            "undisturbed_s": round(quiet_s, 1),
            "chaos_s": round(chaos_s, 1),
            "sqzexplore": provenance.version(),
            "git_commit": provenance.git_commit(),
            "optuna": optuna.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "device_name": provenance.device_name("cpu"),
            "cores": len(os.sched_getaffinity(0)),
        }


#: What must be 0.
_ZERO = re.compile("rows_|trials_unfinished|files_left|processes_left|crashes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="SIGKILLs of workers and processes")
    parser.add_argument("--server-kills", type=int, default=0, help="of PostgreSQL")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--storage", choices=["journal", "sqlite", "postgres"], default="journal")
    parser.add_argument("--sampler", choices=["grid", "random", "tpe"], default="grid")
    parser.add_argument("--architectures", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--every", type=float, default=3.0, help="seconds between harms, mean")
    parser.add_argument("--timeout", type=float, default=60.0, help="search.trial_timeout, s")
    parser.add_argument("--limit", type=float, default=3600.0, help="most seconds in all")
    parser.add_argument("--seed", type=int, default=0, help="of the monkey")
    parser.add_argument("--undisturbed", type=Path, help="folder of that sweep, kept for the next")
    parser.add_argument("--out", type=Path, help="CSV file; a row is added")
    asked = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # processes and disk go all the same
    with tempfile.TemporaryDirectory(prefix="sqzexplore-chaos-") as place:
        row = run(asked, Path(place))
    table = Table("figure", "value", title=f"a sweep under a monkey, {asked.storage}")
    for name, value in row.items():
        table.add_row(name, str(value))
    Console().print(table)
    if asked.out:
        frame = pd.DataFrame([row])
        if asked.out.exists():
            frame = pd.concat([pd.read_csv(asked.out), frame])
        frame.to_csv(asked.out, index=False)
    wrong = [name for name, value in row.items() if _ZERO.match(name) and value]
    if row["kills"] < asked.kills or row["kills_server"] < asked.server_kills:
        wrong.append("kills")
    sys.exit(f"not as it should be: {', '.join(wrong)}" if wrong else 0)


if __name__ == "__main__":
    main()
