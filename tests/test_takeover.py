"""A process that is held for dead, and was not; what a process that ends leaves for the next."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import filelock
import pytest

from sqzexplore.results import load_results
from sqzexplore.status import status
from test_workers import QUICK, Sweeps, sweeps, until, whole

__all__ = ["sweeps"]

FIRST, SECOND = "one/machine", "another/machine"


def ended_well(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


def began(sweeps: Sweeps, *ratios: float) -> None:
    until(lambda: set(ratios) <= {ratio for ratio, _ in sweeps.begun()})


def pause(sweeps: Sweeps, process: subprocess.Popen[str]) -> None:
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
    until(lambda: status(sweeps.out).complete.done == 5)
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
    text = QUICK.replace("retries: 1", "retries: 1, trial_timeout: 4s")
    first = sweeps.start({0.1: "hang"}, "--workers", 2, text=text, machine=FIRST)
    began(sweeps, 0.1)
    pause(sweeps, first)
    second = sweeps.start({} if done else {0.1: "slow 3"}, text=text, machine=SECOND)
    until(lambda: sum(ratio == 0.1 for ratio, _ in sweeps.begun()) == 2)
    if done:
        ended_well(second)
    os.kill(first.pid, signal.SIGCONT)
    ended_well(first)
    ended_well(second)
    one_row_each(sweeps)
    assert sum(ratio == 0.1 for ratio, _ in sweeps.begun()) == 2
