"""Everything that a GPU is wanted for, in the order of its value: `make gpu`.

    CIFAR10=FOLDER python benchmarks/gpu.py [--minutes 8] [--only checks,level-gpu] [--list]
        [--device cuda:0] [--out results/throughput-gpu] [--sweeps results/gpu] [-- MORE ...]

Each step is a process of its own, which writes as it goes, and goes on where it was when it is run
again. First every step has its budget; then, while time is left, what is unfinished has the rest,
in the same order. What a step prints is in OUT/log; OUT/steps.json says which are done, and those
are skipped. With one step as `--only`, what stands after `--` is added to its command.

Exit codes: 0, also where the time was over; 1, a step failed (the others were run all the same);
2, the command is wrong; 130, interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Literal

from sqzexplore import provenance
from sqzexplore.errors import UserError, nearest
from sqzexplore.files import check_writable, write_json
from sqzexplore.measure.devices import resolve_device

ROOT = Path(__file__).resolve().parent.parent
LEAST_S = 10.0  # with less time left no step is begun
GRACE_S = 30.0  # what a step has to end in order when its time is over

Outcome = Literal["done", "unfinished", "failed"]


@dataclass(frozen=True)
class Step:
    """One process: the arguments of python, and the table or log that it writes.

    In both, {device}, {out} and {sweeps} are the options'; {tests} are the files with tests for a
    GPU, arguments of their own.
    """

    name: str
    budget_s: int
    command: str
    writes: str
    cifar10: bool = False  # it needs the data set
    each_commit: bool = False  # done at one commit, it is to be done at another


def sweep(name: str, budget_s: int) -> Step:
    """A spec of `sweeps/cifar10`."""
    folder = f"{{sweeps}}/cifar10-{name}"
    command = f"-m sqzexplore sweep sweeps/cifar10/{name}.yaml --device {{device}} --out {folder}"
    return Step(name, budget_s, command, f"{folder}/trials.csv", cifar10=True)


def speeds(kind: str, spec: str, budget_s: int, settings: str) -> Step:
    """The throughput of the architectures of one of the paper's sweeps."""
    folder = f"{{out}}/{spec}"
    command = f"-m sqzexplore bench sweeps/{spec}.yaml --device {{device}} --out {folder} "
    return Step(f"{kind}-{spec}", budget_s, command + settings, f"{folder}/throughput.csv")


def against_peer(name: str, budget_s: int, folder: str, settings: str) -> Step:
    """Our networks beside torchvision's."""
    command = f"benchmarks/throughput.py --device {{device}} --out {folder} {settings}"
    return Step(name, budget_s, command, f"{folder}/benchmark.csv")


FEW = "--batch 1,256 --dtype float16 --form inference --mode cuda_graph --seconds 1"
ALL = (
    "--batch 1,64,256 --dtype float32,tf32,float16,bfloat16 --form module,inference "
    "--mode eager,cuda_graph --seconds 3"
)
CHECKS = "-m pytest -m gpu -q {tests}"
TRAINING = "benchmarks/training.py --device {device} --out {out}/training.csv"
WORKERS = (
    "benchmarks/workers.py --device {device} --data ${{CIFAR10}} --epochs 2 --batch 512 "
    "--trials 48 --rounds 2 --out {out}/workers.csv"
)
STEPS = (
    # 8 minutes
    Step("checks", 100, CHECKS, "{out}/log/checks.txt", each_commit=True),
    Step("training", 90, TRAINING, "{out}/training.csv", cifar10=True),
    sweep("level-gpu", 180),
    against_peer(
        *("throughput", 110, "{out}"),
        "--batch 1,256 --dtype float16 --mode eager,cuda_graph --seconds 10",
    ),
    # 15 minutes
    sweep("budget", 120),
    sweep("table3", 120),
    sweep("plateaus", 120),
    sweep("late", 60),
    # 25 minutes
    speeds("few", "sr", 90, FEW),
    speeds("few", "fraction_3x3", 90, FEW),
    speeds("few", "pooling", 110, FEW),
    speeds("few", "bypass", 60, FEW),
    Step("workers", 120, WORKERS, "{out}/workers.csv", cifar10=True),
    against_peer(
        *("throughput-compiled", 130, "{out}/compiled"),
        "--network squeezenet1_1 --batch 1 --dtype float16 --mode compile_graph --seconds 10",
    ),
    # and what takes hours
    against_peer("throughput-all", 1200, "{out}", ""),
    speeds("all", "sr", 600, ALL),
    speeds("all", "fraction_3x3", 600, ALL),
    speeds("all", "pooling", 600, ALL),
    speeds("all", "bypass", 600, ALL),
)


class Record:
    """Which steps are done, in a file: the command, when, how long, of which commit."""

    def __init__(self, out: Path) -> None:
        self._file = out / "steps.json"
        self.done: dict[str, dict[str, object]] = {}
        if self._file.exists():
            self.done = json.loads(self._file.read_text())

    def holds(self, step: Step, command: Sequence[str]) -> bool:
        done = self.done.get(step.name, {})
        same_commit = done.get("git_commit") == provenance.git_commit()
        return done.get("command") == shlex.join(command) and (same_commit or not step.each_commit)

    def add(self, step: Step, command: Sequence[str], took_s: float) -> None:
        self.done[step.name] = {
            "command": shlex.join(command),
            "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "last_run_s": round(took_s, 1),
            "git_commit": provenance.git_commit(),
        }
        write_json(self._file, self.done)


class Runs:
    """The steps of one call of this program."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.values = {
            "device": str(resolve_device(options.device)),
            "out": str(options.out),
            "sweeps": str(options.sweeps),
        }
        self.out, self.more = options.out, options.more
        self.record = Record(options.out)
        seconds = 60 * options.minutes if options.minutes else float("inf")
        self.until = time.monotonic() + seconds

    def all(self, steps: Sequence[Step]) -> list[str]:
        """Run what is not done: each for its budget, then for what time there is; the failed."""
        pending, failed = [step for step in steps if self.is_wanted(step)], list[str]()
        first = True
        while pending and self.left() >= LEAST_S:
            unfinished = []
            for step in pending:
                if self.left() < LEAST_S:
                    unfinished.append(step)
                    continue
                outcome = self.one(step, step.budget_s if first else float("inf"))
                if outcome == "unfinished":
                    unfinished.append(step)
                elif outcome == "failed":
                    failed.append(step.name)
            pending, first = unfinished, False
        if pending:
            names = ", ".join(step.name for step in pending)
            print(f"the time is over, not finished: {names}; run the same command again to go on")
        return failed

    def left(self) -> float:
        return self.until - time.monotonic()

    def command(self, step: Step) -> list[str]:
        """What is run: a part of a step's command is an argument, whatever a folder is named."""
        arguments: list[str] = []
        for part in shlex.split(step.command):
            arguments += tests() if part == "{tests}" else [part.format(**self.values)]
        return [sys.executable, *arguments, *self.more]

    def is_wanted(self, step: Step) -> bool:
        """Whether it is to be run; says why not."""
        if self.record.holds(step, self.command(step)):
            print(f"{step.name}: there already")
            return False
        if step.cifar10 and not os.environ.get("CIFAR10"):
            print(f"{step.name}: skipped, CIFAR10 is not set (a folder with the data set)")
            return False
        return True

    def one(self, step: Step, budget_s: float) -> Outcome:
        """Run one step for some time at most, and say what it wrote."""
        command, log = self.command(step), self.out / "log" / f"{step.name}.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        written = ROOT / step.writes.format(**self.values)
        before, started = lines(written), time.monotonic()
        limit_s = min(budget_s, self.left())
        print(f"{step.name}: {shlex.join(command[1:])}")
        code = run(command, log, None if limit_s == float("inf") else limit_s)
        took_s = time.monotonic() - started
        outcome: Outcome = "unfinished" if code is None else "failed" if code else "done"
        if outcome == "done":
            self.record.add(step, command, took_s)
        print(f"  {outcome} after {took_s:.0f} s; {written}: {lines(written) - before:+} lines")
        if outcome == "failed":
            print("\n".join(f"  | {line}" for line in log.read_text().splitlines()[-15:]))
            print(f"  exit code {code}; all that it printed is in {log}")
        return outcome


def run(command: Sequence[str], log: Path, limit_s: float | None) -> int | None:
    """The exit code of a process; None if it was ended because its time was over."""
    with log.open("ab") as out:
        # A process group of its own: it is ended together with the processes that it started.
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT, process_group=0
        )
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """In order, as after Ctrl-C; what is there after a while, at once."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def tests() -> list[str]:
    """The files with tests for a GPU; the others may import what a GPU's machine does not have."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(file.relative_to(ROOT)) for file in files if "mark.gpu" in file.read_text()]


def lines(file: Path) -> int:
    return len(file.read_bytes().splitlines()) if file.exists() else 0


def chosen(only: str | None, more: Sequence[str]) -> list[Step]:
    """The steps that are asked for, in their order."""
    names = only.split(",") if only else [step.name for step in STEPS]
    known = [step.name for step in STEPS]
    for name in names:
        if name not in known:
            expected = f"expected one of {', '.join(known)}{nearest(name, known)}"
            raise UserError(f"--only: found {name!r}, {expected}")
    if more and len(names) != 1:
        raise UserError(f"found {more[0]!r} after --, expected one step as --only with that")
    return [step for step in STEPS if step.name in names]


def show(steps: Sequence[Step]) -> None:
    """Each step, its budget, the sum of the budgets until its end, and what it writes."""
    total_s = 0
    print(f"{'step':20}{'budget':>8}{'sum':>8}  writes")
    for step in steps:
        total_s += step.budget_s
        needs = "  (CIFAR10)" if step.cifar10 else ""
        print(f"{step.name:20}{step.budget_s:6} s{total_s / 60:6.1f} m  {step.writes}{needs}")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--minutes", type=float, help="for all steps together [default: no limit]")
    parser.add_argument("--only", help="steps, with commas")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "throughput-gpu")
    parser.add_argument(
        "--sweeps", type=Path, default=ROOT / "results" / "gpu", help="folder of folders"
    )
    parser.add_argument("--list", action="store_true", help="say what the steps are, and end")
    parser.add_argument("more", nargs="*", help="after --: more arguments of the one step")
    options = parser.parse_args()
    options.out, options.sweeps = options.out.absolute(), options.sweeps.absolute()
    return options


def interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    options = parsed()
    signal.signal(signal.SIGTERM, interrupt)
    sys.stdout.reconfigure(line_buffering=True)  # also into a file
    try:
        steps = chosen(options.only, options.more)
        if options.list:
            show(steps)
            return 0
        check_writable(options.out, "--out")
        check_writable(options.sweeps, "--sweeps")
        if options.minutes is not None and options.minutes <= 0:
            raise UserError(f"--minutes: found {options.minutes}, expected a number > 0")
        failed = Runs(options).all(steps)
    except UserError as error:
        print(f"gpu.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("gpu.py: interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
