"""Tasks in this process, one after the other or a few trainings by turns."""

from __future__ import annotations

import time

import torch

from ..data.images import ImageData
from ..evaluation.bench import Bench
from ..evaluation.tasks import Measured, Task
from ..measure.devices import DeviceLost
from ..spec.load import parse_spec
from .base import Job, Listener


class Inline:
    """Does tasks while it is waited for.

    Args:
        job: what the tasks have in common.
        listener: hears of them.
        device: where to measure.
        data: the images on `device`, where accuracy is measured.
        pack: tasks at once.
    """

    def __init__(
        self,
        job: Job,
        listener: Listener,
        device: torch.device,
        data: ImageData | None,
        pack: int = 1,
    ) -> None:
        self._listener, self.slots = listener, pack
        self._spec = parse_spec(job.spec)
        self._bench = Bench(self._spec, data, device, job.scratch)

    def free(self) -> bool:
        """Whether a task would begin at once."""
        return len(self._bench) < self.slots

    def submit(self, task: Task) -> None:
        """Take a task; it is done in `wait`."""
        listener = self._listener
        self._bench.add(
            task,
            lambda share, what: listener.progress(task, share, what),
            lambda epoch: listener.prune(task, epoch),
        )

    def wait(self, seconds: float) -> None:
        """Work until a task ended or `seconds` passed.

        Raises:
            OSError: the disk is full or damaged, or the GPU was lost to this process.
        """
        if not len(self._bench):
            time.sleep(seconds)
            return
        until = time.monotonic() + seconds
        ended: list[tuple[Task, Measured]] = []
        try:
            while not ended and time.monotonic() < until:
                ended = list(self._bench.turn())
        except DeviceLost as error:
            raise OSError(str(error)) from error
        for task, measured in ended:
            self._listener.ended(task, measured)

    def close(self) -> None:
        """Nothing runs while nobody waits."""
