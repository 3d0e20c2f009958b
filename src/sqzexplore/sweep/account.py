"""The account of a sweep's work: units planned and done, of which its progress is told."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from optuna.trial import FrozenTrial

from ..data.images import ImageData
from ..evaluation.tasks import Task, share_of
from ..evaluation.workload import work_units
from ..network.architecture import Architecture
from ..results.completeness import planned
from ..spec.models import Spec
from .optuna_params import from_params
from .proposals import MOST_TRIALS

#: Up to so many trials each of those has a line of its own on the terminal.
_FEW = 100


class Progress(Protocol):
    """Who is told how a sweep goes."""

    def start(self, trials: int, units: float, done_units: float) -> None:
        """`trials` in all; `units` of work in all, of which `done_units` were done before."""

    def advance(self, units: float, what: str) -> None:
        """`units` of work were done; `what` is going on."""

    def trial(self, row: Mapping[str, Any], number: int, trials: int) -> None:
        """The trial of `row` ended, as number `number` of `trials`."""


@dataclass
class _Work:
    """A running trial's units, and the share of them that was reported as done."""

    units: float
    reported: float = 0.0


class Account:
    """Work done and planned, in `work_units`, and the time that is left for it.

    Args:
        spec: of the sweep.
        data: the images that it trains on.
        progress: told of every step, once the account is open.
    """

    def __init__(self, spec: Spec, data: ImageData | None, progress: Progress) -> None:
        self._spec, self._data, self._progress = spec, data, progress
        self._running: dict[int, _Work] = {}
        self._open, self._named, self._every = False, False, 1
        self._trials = self._finished = 0
        self._done_units = 0.0
        self._began = time.perf_counter()

    def open(self, slots: int, every: int) -> None:
        """Show what is planned, and what was finished before.

        Args:
            slots: tasks at once; with several, each message names its trial.
            every: of a long sweep, each such trial has a line of its own.
        """
        self._trials, units = self._plan()
        self._named, self._every = slots > 1, every if self._trials > _FEW else 1
        self._progress.start(self._trials, units, min(units, self._done_units))
        self._open = True

    def begin(self, trial: int, architecture: Architecture) -> None:
        """This process evaluates a trial from now on."""
        self._running[trial] = _Work(self._units(architecture))

    def advance(self, task: Task, share: float, what: str) -> None:
        """A share of a running trial's task was done."""
        work, share = self._running[task.trial], share * share_of(task, self._spec)
        work.reported += share
        self._progress.advance(share * work.units, self._of_trial(task.trial, what))

    def note(self, trial: int, what: str) -> None:
        """Something happened to a running trial that is no work."""
        self._progress.advance(0.0, self._of_trial(trial, what))

    def note_after(self, trial: int, what: str) -> None:
        """The same, of a trial that has ended."""
        self._progress.advance(0.0, f"trial {trial}: {what}")

    def drop(self, trial: int) -> None:
        """This process does not evaluate a trial any longer."""
        self._running.pop(trial, None)

    def finish(self, trial: FrozenTrial, row: Mapping[str, Any]) -> None:
        """A trial of this process, or of another, has its `row` of `trials`."""
        self._finished += 1
        if work := self._running.pop(trial.number, None):
            units = (1 - work.reported) * work.units
        else:
            units = self._units_of(trial.params)
        if not self._open:
            self._done_units += units
            return
        self._progress.advance(units, "")
        if self._finished % self._every == 0 or self._finished == self._trials:
            self._progress.trial(row, self._finished, self._trials)

    def late(self) -> bool:
        """Whether the search's time is over."""
        timeout = self._spec.search.timeout
        return timeout is not None and time.perf_counter() - self._began > timeout

    def _plan(self) -> tuple[int, float]:
        """Architectures in all, and their work."""
        space = self._spec.design_space
        if self._spec.search.sampler != "grid" or self._spec.measure.accuracy is None:
            trials = planned(self._spec) or MOST_TRIALS
            return trials, trials * self._units(space.base)
        units = [self._units(space.architecture(i)) for i in space.indices()]
        return len(units), sum(units)

    def _units(self, architecture: Architecture) -> float:
        return work_units(architecture, self._spec, self._data)

    def _units_of(self, params: Mapping[str, Any]) -> float:
        if self._spec.measure.accuracy is None:
            return 1.0
        return self._units(from_params(self._spec.design_space, params))

    def _of_trial(self, trial: int, what: str) -> str:
        return f"trial {trial}: {what}" if self._named else what
