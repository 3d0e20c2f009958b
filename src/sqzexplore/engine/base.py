"""What an engine is given, and who hears of its work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..architecture import Architecture
from ..evaluate import Evaluation
from ..training import Epoch


@dataclass(frozen=True)
class Job:
    """What is the same for all trials of a sweep: its spec's text, the folder in which an
    unfinished trial keeps what it measured, and the most seconds that one may take."""

    spec: str
    scratch: Path
    trial_timeout: float | None


@dataclass(frozen=True)
class Task:
    """One trial to evaluate."""

    trial: int
    architecture: Architecture


class Listener(Protocol):
    """Who hears of the trials; called from within an engine's `submit` and `wait`."""

    def progress(self, trial: int, share: float, what: str) -> None:
        """A share of the trial's work was done; `what` is going on."""

    def prune(self, trial: int, epoch: Epoch) -> bool:
        """An epoch of the trial's first seed ended; whether it is not worth going on."""

    def ended(self, trial: int, evaluation: Evaluation) -> None:
        """The trial was evaluated, well or not."""

    def lost(self, trial: int, reason: str) -> None:
        """Whoever was to evaluate the trial died, or took too long; `reason` is empty where it had
        not begun. Nothing runs it now."""


class Engine(Protocol):
    """Evaluates trials. What a disk does to a trial is raised as `OSError` by `wait`."""

    #: Trials at once.
    slots: int

    def free(self) -> bool:
        """Whether a trial would begin at once."""

    def submit(self, task: Task) -> None:
        """Evaluate a trial."""

    def wait(self, seconds: float) -> None:
        """Tell the listener what happens, until something did or `seconds` passed."""

    def close(self) -> None:
        """Stop; trials that run are abandoned, but keep what they have measured."""
