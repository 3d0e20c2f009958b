"""What an engine is given, and who hears of its work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..evaluation.tasks import Measured, Task
from ..train.loop import Epoch

#: The name of each process that works for a sweep.
WORKER = "sqzexplore worker"


@dataclass(frozen=True)
class Job:
    """What is the same for all tasks of a sweep: its spec's text, the folder in which unfinished
    trials keep what they measured, and the most seconds that one task may take."""

    spec: str
    scratch: Path
    trial_timeout: float | None


class Listener(Protocol):
    """Who hears of the tasks; called from within an engine's `submit` and `wait`."""

    def progress(self, task: Task, share: float, what: str) -> None:
        """A share of the task's work was done; `what` is going on."""

    def prune(self, task: Task, epoch: Epoch) -> bool:
        """An epoch of the trial's first seed ended; whether it is not worth going on."""

    def ended(self, task: Task, measured: Measured) -> None:
        """The task is done, well or not."""

    def lost(self, tasks: Sequence[Task], reason: str) -> None:
        """Whoever was to do the tasks died, or took too long; `reason` is empty where it had not
        begun. Nothing runs them now."""


class Engine(Protocol):
    """Does tasks. What a disk does to a trial is raised as `OSError` by `wait`."""

    #: Tasks at once.
    slots: int

    def free(self) -> bool:
        """Whether a task would begin at once."""

    def submit(self, task: Task) -> None:
        """Do a task. When a measurement of throughput is given, what still runs is of trials that
        have ended, and may not run beside it."""

    def wait(self, seconds: float) -> None:
        """Tell the listener what happens, until something did or `seconds` passed."""

    def close(self) -> None:
        """Stop; tasks that run are abandoned, but keep what they have measured."""
