"""Trials one after the other, in this process."""

from __future__ import annotations

import time

import torch

from ..data import ImageData
from ..evaluate import attempt
from ..spec import Spec
from .base import Job, Listener, Task


class Inline:
    """Evaluates a trial when it is submitted.

    Args:
        job: what the trials have in common.
        listener: hears of them.
        device: where to measure.
        data: the images on `device`, where accuracy is measured.
    """

    slots = 1

    def __init__(
        self, job: Job, listener: Listener, device: torch.device, data: ImageData | None
    ) -> None:
        self._job, self._listener, self._device, self._data = job, listener, device, data
        self._spec = Spec.parse(job.spec)

    def free(self) -> bool:
        """Whether a trial would begin at once: always, between two trials."""
        return True

    def submit(self, task: Task) -> None:
        """Evaluate a trial, to its end."""
        listener, trial = self._listener, task.trial
        evaluation = attempt(
            task.architecture,
            self._spec,
            self._data,
            self._device,
            self._job.scratch,
            lambda share, what: listener.progress(trial, share, what),
            lambda epoch: listener.prune(trial, epoch),
        )
        listener.ended(trial, evaluation)

    def wait(self, seconds: float) -> None:
        """Nothing runs between two submissions."""
        time.sleep(seconds)

    def close(self) -> None:
        """Nothing runs between two submissions."""
