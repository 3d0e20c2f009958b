"""Throughput once all trainings are over: one trial at a time, while nothing else runs."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..evaluation.rows import of_trial
from ..evaluation.tasks import Measured, Task
from ..executors.base import Engine
from ..files import without_nan
from ..network.architecture import Architecture
from ..spec.models import Spec
from ..train.loop import Epoch
from .bookkeeping import Books, speeds_wait
from .mirror import POLL_S
from .optuna_params import from_params
from .preflight import measures_alone
from .scratch import Scratch
from .trial_tables import speed_key


class Speeds:
    """Completes the rows of trials that ended; hears of the measurements that it has done.

    Args:
        spec: of the sweep.
        folder: its result folder.
        books: of the sweep.
        scratch: what measurements leave on disk.
    """

    def __init__(self, spec: Spec, folder: Path, books: Books, scratch: Scratch) -> None:
        self._spec, self._folder, self._study = spec, folder, books.mirror.study
        self._books, self._account, self._scratch = books, books.account, scratch
        self._task: Task | None = None
        self._deaths = 0

    def due(self) -> bool:
        """Whether there may be some to measure, and no process evaluates a trial."""
        return speeds_wait(self._spec) and not self._books.mirror.others

    def measure(self, engine: Engine) -> None:
        """Measure what no process has measured, one process of a machine at a time."""
        unmeasured = self._books.record.unmeasured
        with measures_alone(self._folder):
            for number, architecture in self._left():
                self._deaths = 0
                while number in unmeasured:
                    self._task = Task(number, architecture, "throughput")
                    engine.submit(self._task)
                    while self._task is not None:
                        engine.wait(POLL_S)
                self._scratch.clean(architecture, self._books.awaits_speed(architecture))
                self._books.write_if_due()
            self._books.write()

    def _left(self) -> Iterator[tuple[int, Architecture]]:
        """The trials whose throughput no process has measured by then. Machines that share the
        study go in orders of their own, or each would measure what another is about to."""
        trials, unmeasured = self._study.get_trials(deepcopy=False), self._books.record.unmeasured
        numbers = sorted(unmeasured)
        if not self._books.mirror.alone():
            random.Random().shuffle(numbers)
        for number in numbers:
            self._books.take_speeds(self._study.user_attrs)
            if number in unmeasured:
                yield number, from_params(self._spec.design_space, trials[number].params)

    def _take(self, task: Task, measured: Measured) -> None:
        """Write a throughput into the study, unless another process has done so meanwhile."""
        self._books.take_speeds(self._study.user_attrs)
        if task.trial not in self._books.record.unmeasured:
            return
        rows = [dict(row) for row in measured.throughput]
        row = of_trial(rows, self._spec) if rows else {"outcome": "failed"}
        if measured.error:
            row["error"] = f"throughput: {measured.error}"
        content = without_nan({"row": row, "throughput": rows})
        self._study.set_user_attr(speed_key(task.trial), content)
        self._books.take_speeds({speed_key(task.trial): content})

    # --- what the executor reports; tasks of before may still end ---------------------------------

    def progress(self, task: Task, share: float, what: str) -> None:
        """A share of the measurement was done."""
        if task == self._task:
            self._account.note_after(task.trial, what)

    def prune(self, task: Task, epoch: Epoch) -> bool:
        """Whether a training is not worth going on: it is another process's by now."""
        return True

    def ended(self, task: Task, measured: Measured) -> None:
        """Take what was measured."""
        if task == self._task:
            self._task = None
            self._take(task, measured)

    def lost(self, tasks: Sequence[Task], reason: str) -> None:
        """Measure again, unless too many processes died of it."""
        if (task := self._task) is None or task not in tasks:
            return
        self._task = None
        self._deaths += bool(reason)
        if self._deaths > self._spec.search.retries:
            self._take(task, Measured(error=reason))
