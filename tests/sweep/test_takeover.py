"""A process that is held for dead, and was not; what a process that ends leaves for the next."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import filelock
import optuna
import psutil
import pytest
import torch
from optuna.trial import TrialState

from helpers import servers
from helpers.processes import QUICK, RATIOS, Program, Sweeps, gone, until, until_done, whole
from helpers.sweeps import Quiet
from sqzexplore.files import write_atomically
from sqzexplore.results.folder import load_results
from sqzexplore.spec.load import parse_spec
from sqzexplore.sweep import proposals
from sqzexplore.sweep.leases import Leases
from sqzexplore.sweep.proposals import Proposals
from sqzexplore.sweep.run import run_sweep
from sqzexplore.sweep.status import status
from sqzexplore.sweep.storage.open import open_database, open_storage

LIMITED = QUICK.replace("retries: 1", "retries: 1, trial_timeout: 4s")
FIRST, SECOND = "one/machine", "another/machine"


def ended_well(process: Program) -> None:
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


def began(sweeps: Sweeps, *ratios: float) -> None:
    until(lambda: set(ratios) <= {ratio for ratio, _ in sweeps.begun()})


def pause(sweeps: Sweeps, process: Program) -> None:
    """SIGSTOP, but not in the midst of a write, for which all others would wait."""
    while True:
        os.kill(process.pid, signal.SIGSTOP)
        try:
            for name in (".lock", ".journal.lock"):
                with filelock.FileLock(sweeps.out / name, timeout=0.1):
                    pass
            return
        except filelock.Timeout:
            os.kill(process.pid, signal.SIGCONT)
            time.sleep(0.05)


def one_row_each(sweeps: Sweeps) -> None:
    rows = load_results(sweeps.out)
    assert whole(rows)
    assert rows["trial"].is_unique
    assert set(rows["state"]) == {"complete"}


def test_stopped_while_another_took_its_trials(sweeps: Sweeps) -> None:
    """It comes back when one of them has its row and the other is being evaluated."""
    here, there = sweeps.folder / "here", sweeps.folder / "there"
    faults = dict.fromkeys((0.1, 0.2), f"until {here}")
    first = sweeps.start(faults, "--workers", 3, machine=FIRST)
    began(sweeps, 0.1, 0.2)
    pause(sweeps, first)
    second = sweeps.start({0.2: f"until {there}"}, "--workers", 2, machine=SECOND)
    until_done(sweeps, 5)
    os.kill(first.pid, signal.SIGCONT)
    time.sleep(2)  # it looks what happened
    here.touch()
    time.sleep(1)
    there.touch()
    ended_well(first)
    ended_well(second)
    one_row_each(sweeps)


@pytest.mark.parametrize("done", [True, False])
def test_stopped_for_longer_than_a_trial_may_take(sweeps: Sweeps, done: bool) -> None:
    """When it comes back its own trial is late, and another process has it, or its result."""
    first = sweeps.start({0.1: "hang"}, "--workers", 2, text=LIMITED, machine=FIRST)
    began(sweeps, 0.1)
    pause(sweeps, first)
    second = sweeps.start({} if done else {0.1: "slow 3"}, text=LIMITED, machine=SECOND)
    until(lambda: sum(ratio == 0.1 for ratio, _ in sweeps.begun()) == 2)
    if done:
        ended_well(second)
    os.kill(first.pid, signal.SIGCONT)
    ended_well(first)
    ended_well(second)
    one_row_each(sweeps)
    assert sum(ratio == 0.1 for ratio, _ in sweeps.begun()) == 2


def test_stopped_by_a_full_disk(sweeps: Sweeps) -> None:
    """It cannot even say that it lets go of its trial; the next process knows at once."""
    first = sweeps.start({0.1: "hang"}, "--workers", 2)
    began(sweeps, 0.1)
    until_done(sweeps, 5)
    resource.prlimit(first.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    first.send_signal(signal.SIGINT)
    _, errors = first.communicate(timeout=60)
    assert first.returncode == 130, errors
    assert "run the same command again to resume" in errors
    assert [one.running for one in status(sweeps.out).unfinished] == [False]


def test_the_last_one_leaves_what_another_needs_to_know(sweeps: Sweeps) -> None:
    """A process that is interrupted beside one that was killed does not wipe its traces."""
    faults = {0.1: "hang", 0.2: "hang"}
    first = sweeps.start(faults, "--workers", 2)
    began(sweeps, 0.1, 0.2)
    second = sweeps.start(faults)
    until_done(sweeps, 4)
    second.send_signal(signal.SIGSTOP)
    first.kill()
    first.wait()
    second.send_signal(signal.SIGINT)
    second.send_signal(signal.SIGCONT)
    second.communicate(timeout=60)
    assert [one.running for one in status(sweeps.out).unfinished] == [False, False]


def test_what_a_killed_process_kept_goes(tmp_path: Path) -> None:
    """It was killed between telling the study and removing what the trial had kept."""
    spec = parse_spec(QUICK)
    run_sweep(spec, tmp_path, torch.device("cpu"), Quiet())
    known = load_results(tmp_path)["arch_id"].iloc[0]
    partial = tmp_path / "partial"
    partial.mkdir()
    for name in (f"{known}-cpu.json", f".{known}-cpu-seed0.safetensors.x1y2"):
        (partial / name).touch()
    run_sweep(spec, tmp_path, torch.device("cpu"), Quiet())
    assert not partial.exists()


def test_the_tables_are_read_while_they_are_written(tmp_path: Path) -> None:
    """A file that another takes the place of is read to its end."""
    run_sweep(parse_spec(QUICK), tmp_path, torch.device("cpu"), Quiet())
    rows = load_results(tmp_path)
    one, many = (rows.head(1).to_parquet(index=False), rows.to_parquet(index=False))
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            for content in (one, many):
                write_atomically(tmp_path / "trials.parquet", content)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert {len(load_results(tmp_path)) for _ in range(60)} == {1, len(RATIOS)}
    finally:
        over.set()
        writer.join()


def test_interrupted_while_a_worker_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(process: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ForkServerProcess, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(parse_spec(QUICK), tmp_path, torch.device("cpu"), Quiet(), workers=2)


def test_ctrl_c_while_a_worker_starts(sweeps: Sweeps) -> None:
    """A terminal sends it to the workers too, which may not yet know that it is not for them."""
    process = sweeps.start({0.1: "hang"}, "--workers", 1, text=LIMITED, interpreter=True)
    workers: list[psutil.Process] = []

    def started() -> bool:
        workers[:] = [
            child
            for child in psutil.Process(process.pid).children(recursive=True)
            if "forkserver" in " ".join(child.cmdline())
        ]
        return bool(workers)

    until(started)
    time.sleep(0.3)  # it imports
    for each in (*workers, process):
        each.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "run the same command again to resume" in errors
    assert all(gone(worker.pid) for worker in workers)  # if not yet reaped by init


@pytest.mark.parametrize("when", ["drawn", "claimed"])
def test_ended_while_it_is_asked_for(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that was away for long leaves a trial without an owner, that another process ends
    as that of a dead one. Every architecture is drawn all the same."""
    place, name = (proposals, "ask") if when == "drawn" else (Leases, "mark")
    real, ended = getattr(place, name), list[int]()

    def interrupted(self: object, *arguments: object) -> object:
        answer = real(self, *arguments)
        if not ended:
            study = optuna.load_study(study_name="quick", storage=open_storage(tmp_path, None))
            ended.append(study.trials[-1].number)
            study.tell(ended[0], state=TrialState.PRUNED)
        return answer

    monkeypatch.setattr(place, name, interrupted)
    run_sweep(parse_spec(QUICK), tmp_path, torch.device("cpu"), Quiet())
    assert ended
    rows = load_results(tmp_path)
    assert whole(rows)
    assert not set(ended) & set(rows["trial"])


def test_interrupted_between_a_claim_and_its_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial names this process, which has not begun it: it lets go of it all the same."""

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Proposals, "_held", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_sweep(parse_spec(QUICK), tmp_path, torch.device("cpu"), Quiet())
    assert [one.running for one in status(tmp_path).unfinished] == [False]


def test_ctrl_c_while_the_database_is_away(
    sweeps: Sweeps, postgres: servers.Postgres, database: str
) -> None:
    """Sweep, heartbeat and leases would each wait for it for ten minutes."""
    first = sweeps.start({0.1: "hang"}, "--storage", database, "--workers", 2, machine=FIRST)
    began(sweeps, 0.1)
    postgres.kill()
    try:
        time.sleep(2)  # each has met it
        first.send_signal(signal.SIGINT)
        _, errors = first.communicate(timeout=30)
    finally:
        postgres.start()
    assert first.returncode == 130, errors
    assert "Traceback" not in errors
    assert "run the same command again to resume" in errors


def test_a_full_disk_under_sqlite_is_waited_for(tmp_path: Path) -> None:
    """As a full disk under PostgreSQL is, and not a traceback."""
    said: list[str] = []
    storage = open_database(f"sqlite:///{tmp_path / 'study.db'}", said.append)
    study = optuna.create_study(storage=storage)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    room = threading.Timer(1.5, resource.setrlimit, [resource.RLIMIT_FSIZE, before])
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    room.start()
    try:
        study.set_user_attr("a", "x" * 100_000)
    finally:
        room.join()
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert study.user_attrs == {"a": "x" * 100_000}
