"""A grid of which nothing is measured: costs are counted in this process, a block at a time."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import filelock
import torch
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from .. import provenance
from ..evaluation.rows import describe_row
from ..evaluation.tasks import Evaluation
from ..network.architecture import Architecture
from ..spec.models import Spec
from .bookkeeping import Books
from .mirror import POLL_S
from .proposals import Proposals
from .stored import objective_values, store

_COUNTING = ".counting.lock"
#: Architectures whose costs are counted and stored at a time.
_BLOCK = 1000


def costs_only(spec: Spec) -> bool:
    """Whether the sweep is a grid of which nothing is measured."""
    none = spec.measure.accuracy is None and spec.measure.throughput is None
    return none and spec.search.sampler == "grid"


class CostGrid:
    """The costs of all architectures of a grid.

    Args:
        spec: with nothing to measure.
        folder: result folder.
        device: named in the rows.
        proposals: of the grid.
        books: which take the rows.
    """

    def __init__(
        self,
        spec: Spec,
        folder: Path,
        device: torch.device,
        proposals: Proposals,
        books: Books,
    ) -> None:
        self._spec, self._folder, self._device = spec, folder, str(device)
        self._proposals, self._books, self._account = proposals, books, books.account
        self._mirror = proposals.mirror

    def run(self) -> None:
        """Count until nothing is left, here and in the processes that share the study."""
        self._books.open(every=_BLOCK)
        self._count()
        while True:
            self._end_open_trials()
            if not self._mirror.others or self._account.late():
                break
            time.sleep(POLL_S)
            self._books.write_if_due()
        self._books.write()

    def _count(self) -> None:
        """The costs of all that is not known: each is a finished trial, which a storage takes in
        one step. It takes seconds, for which another process waits."""
        with filelock.FileLock(self._folder / _COUNTING):
            self._books.sync()
            while block := self._proposals.block(_BLOCK):
                self._mirror.study.add_trials(self._finished(block))
                self._books.sync()

    def _end_open_trials(self) -> None:
        """End the trials that users enqueued, or that a process left: of architectures that have
        their rows, but for one of whose row the storage knows nothing."""
        self._books.sync()
        while not self._account.late() and (candidate := self._proposals.next()):
            trial, architecture = candidate.trial, candidate.architecture
            evaluation = self._counted([architecture])[0]
            with suppress(UpdateFinishedTrialError):  # by another process, just now
                store(self._mirror.study, trial, architecture, evaluation, self._spec)
            self._mirror.let_go(trial)
            self._books.sync()

    def _finished(self, block: list[Architecture]) -> list[FrozenTrial]:
        """The same architectures as finished trials."""
        evaluations = self._counted(block)
        return [
            self._proposals.template(
                architecture,
                TrialState.COMPLETE,
                objective_values(evaluation.row, self._spec),
                {name: held for name, held in vars(evaluation).items() if held},
            )
            for architecture, evaluation in zip(block, evaluations, strict=True)
        ]

    def _counted(self, block: list[Architecture]) -> list[Evaluation]:
        """The costs of some architectures."""
        started_at, started = datetime.now(UTC), time.perf_counter()
        rows = [describe_row(each, self._spec, None) | {"state": "complete"} for each in block]
        spent = (time.perf_counter() - started) / len(block)
        origin = provenance.of_trial(self._device, started_at, spent)
        return [Evaluation(row | {"device": self._device} | origin) for row in rows]
