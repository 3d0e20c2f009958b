"""The books of a sweep: what finished, here or elsewhere, and the tables, written when due."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .. import provenance
from ..data.images import ImageData
from ..files import exclusive
from ..network.architecture import Architecture
from ..spec.models import Spec
from ..train import distributed
from .account import Account
from .mirror import Mirror
from .samplers import FrontPruner
from .trial_tables import Record, drop_unfinished


def speeds_wait(spec: Spec) -> bool:
    """Whether throughput is measured when all trainings are over."""
    measure = spec.measure
    return bool(measure.throughput and measure.accuracy and not spec.speed_decides)


class Books:
    """Takes each trial that finished into the tables, the account and the pruner.

    Args:
        spec: of the sweep.
        folder: its result folder.
        mirror: of its study.
        account: of its work.
        front: the pruner, if it is `front`.
        data: the images that it trains on.
        device: where this process measures.
    """

    def __init__(
        self,
        spec: Spec,
        folder: Path,
        mirror: Mirror,
        account: Account,
        front: FrontPruner | None,
        data: ImageData | None,
        device: torch.device,
    ) -> None:
        self.record = Record(spec.name)
        self._spec, self._folder, self._data, self._device = spec, folder, data, device
        self.mirror, self.account, self.front = mirror, account, front
        #: Whether all is taken that the study had when this process began.
        self.is_open = False
        self._workers, self._unwritten = 1, False
        self._write_took = self._written_at = 0.0
        provenance.git_commit()  # it is kept: of the code that is loaded now, not of a later commit

    def open(self, workers: int = 1, every: int = 1) -> None:
        """Take what the study has, and show what is left.

        Args:
            workers: tasks that this process has done at once.
            every: of a long sweep, each such trial is shown.
        """
        self._workers = workers
        self.sync()
        if speeds_wait(self._spec):
            self.record.take_speeds(self.mirror.study.user_attrs)
        self.account.open(workers, every)
        self.is_open = True

    def sync(self) -> None:
        """Take the trials that finished since the last time."""
        for trial in self.mirror.sync():
            self._unwritten = True
            row = self.record.take(trial)
            if self.front:
                self.front.add(row, trial.user_attrs["history"])
            self.account.finish(trial, row)

    def take_speeds(self, attributes: Mapping[str, Any]) -> None:
        """Complete rows by the throughput that stands in the attributes of the study."""
        self.record.take_speeds(attributes)
        self._unwritten = True

    def awaits_speed(self, architecture: Architecture) -> bool:
        """Whether an architecture's throughput is still to be measured, its trial having ended."""
        known = self.mirror.known.get(architecture.arch_id)
        waits = known is not None and known.number in self.record.unmeasured
        return waits and speeds_wait(self._spec)

    def write(self, sync: bool = True) -> None:
        """Write the tables as they stand; `sync`: with what other processes did.

        Raises:
            OSError: the disk is full, or does not let this process write.
        """
        started = time.perf_counter()
        with exclusive(self._folder):
            drop_unfinished(self._folder)
            if sync:
                self.sync()
            origin = provenance.of_sweep(str(self._device))
            origin |= {"processes": distributed.world(), "workers": self._workers}
            origin |= {"data": self._data.provenance} if self._data else {}
            self.record.write(self._folder, origin)
        self._unwritten = False
        self._written_at = time.perf_counter()
        self._write_took = self._written_at - started

    def write_if_due(self) -> None:
        """Write what is new: at once where trials are slow, else 1/20 of the time."""
        if self._unwritten and time.perf_counter() - self._written_at > 20 * self._write_took:
            self.write()
