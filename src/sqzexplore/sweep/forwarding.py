"""What an executor reports goes to the phase of the sweep that is going on."""

from __future__ import annotations

from collections.abc import Sequence

from ..evaluation.tasks import Measured, Task
from ..executors.base import Listener
from ..train.loop import Epoch


class Forwarding:
    """The listener of an executor that outlasts a phase.

    Args:
        phase: which hears of all tasks, until another is set.
    """

    def __init__(self, phase: Listener) -> None:
        self.phase = phase

    def progress(self, task: Task, share: float, what: str) -> None:
        """A share of the task's work was done."""
        self.phase.progress(task, share, what)

    def prune(self, task: Task, epoch: Epoch) -> bool:
        """Whether a training is not worth going on."""
        return self.phase.prune(task, epoch)

    def ended(self, task: Task, measured: Measured) -> None:
        """The task is done, well or not."""
        self.phase.ended(task, measured)

    def lost(self, tasks: Sequence[Task], reason: str) -> None:
        """Nothing does the tasks any longer."""
        self.phase.lost(tasks, reason)
