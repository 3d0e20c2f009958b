"""The running trials of a process: their tasks are handed out, what they find ends the trial."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import Trial

from ..data.images import ImageData
from ..evaluation.rows import failed
from ..evaluation.tasks import Evaluation, Measured, Task, tasks_of
from ..evaluation.trial import assembled
from ..executors.base import Engine
from ..network.architecture import Architecture
from ..spec.models import Spec
from ..train.loop import Epoch
from .bookkeeping import Books
from .mirror import POLL_S
from .proposals import Candidate, Proposals
from .reuse import Reuse
from .scratch import Scratch
from .stored import store


@dataclass
class _Running:
    """A trial of this process: of what, how often its process died; which of its tasks wait, may
    have to wait for those, are being done, and what the others found."""

    trial: Trial
    architecture: Architecture
    deaths: int
    waiting: list[Task] = field(default_factory=list)
    later: list[Task] = field(default_factory=list)
    out: set[Task] = field(default_factory=set)
    found: dict[Task, Measured] = field(default_factory=dict)

    @property
    def busy(self) -> bool:
        """Whether it has tasks; without any it waits for a trial of the same network."""
        return bool(self.waiting or self.later or self.out or self.found)


class RunningTrials:
    """Takes trials, hands out their tasks, and hears of them from the executor.

    Args:
        spec: of the sweep.
        data: the images that it trains on.
        proposals: what to evaluate next.
        reuse: what need not be evaluated.
        books: of the sweep.
        scratch: what trials leave on disk.
    """

    def __init__(
        self,
        spec: Spec,
        data: ImageData | None,
        proposals: Proposals,
        reuse: Reuse,
        books: Books,
        scratch: Scratch,
    ) -> None:
        self._spec, self._data, self._front = spec, data, books.front
        self._proposals, self._mirror, self._reuse = proposals, proposals.mirror, reuse
        self._books, self._account, self._scratch = books, books.account, scratch
        self._running: dict[int, _Running] = {}
        #: A measurement of throughput that is being done, beside which nothing may run.
        self._alone: Task | None = None
        self._looked_at = 0.0

    def __len__(self) -> int:
        return len(self._running)

    def hand_out(self, engine: Engine) -> None:
        """Give the executor what it has room for."""
        self._forget_lost()
        while engine.free() and (task := self._next_task()) is not None:
            self._running[task.trial].out.add(task)
            engine.submit(task)

    # --- what the executor reports ---------------------------------------------------------------

    def progress(self, task: Task, share: float, what: str) -> None:
        """A share of the task's work was done."""
        if self._held(task.trial):
            self._account.advance(task, share, what)
        elif task == self._alone:  # another process held this one for dead, and ended the trial
            self._account.note_after(task.trial, what)

    def prune(self, task: Task, epoch: Epoch) -> bool:
        """Whether a training falls behind the others, or cannot reach the front."""
        if (running := self._held(task.trial)) is None:
            return True
        if self._front:
            return self._front.ends(running.architecture, epoch.epoch, epoch.val_top1)
        try:
            running.trial.report(epoch.val_top1, epoch.epoch)
        except UpdateFinishedTrialError:  # by another process, just now
            return True
        return running.trial.should_prune()

    def ended(self, task: Task, measured: Measured) -> None:
        """Take what a task found; with its last one a trial ends."""
        if task == self._alone:
            self._alone = None
        if (running := self._held(task.trial)) is None:
            return
        running.out.discard(task)
        running.found[task] = measured
        stopped = measured.run is not None and measured.run["stopped"]
        if not (measured.error or stopped):
            running.waiting += running.later
            running.later = []
            if running.waiting or running.out:
                return
        self._finish(
            running, assembled(running.architecture, self._spec, self._data, running.found)
        )

    def lost(self, tasks: Sequence[Task], reason: str) -> None:
        """Give the tasks to another worker, unless too many died of their trial."""
        if self._alone in tasks:
            self._alone = None
        for number in dict.fromkeys(task.trial for task in tasks):
            mine = [task for task in tasks if task.trial == number]
            if (running := self._held(number)) is not None:
                self._lost_of(running, mine, reason)

    def _lost_of(self, running: _Running, tasks: Sequence[Task], reason: str) -> None:
        """The same, of one trial."""
        running.deaths += bool(reason)
        if running.deaths > self._spec.search.retries:
            times = f", {running.deaths} times" if running.deaths > 1 else ""
            self._fail(running, f"{reason}{times}")
            return
        if not self._mirror.repeat(running.trial, running.deaths):
            self._end(running)
            return
        self._account.note(running.trial.number, f"{reason}; tried again")
        running.out.difference_update(tasks)
        running.waiting[:0] = tasks

    # --- what is done next -----------------------------------------------------------------------

    def _next_task(self) -> Task | None:
        """What can be done now: throughput while nothing else runs, and nothing beside it."""
        if self._alone is not None:
            return None
        self._wake_twins()
        while True:
            speeds = []
            for running in self._running.values():
                for task in running.waiting:
                    if task.kind != "throughput":
                        running.waiting.remove(task)
                        return task
                    speeds.append(task)
            if speeds:
                if any(running.out for running in self._running.values()):
                    return None
                self._alone = speeds[0]
                self._running[self._alone.trial].waiting.remove(self._alone)
                return self._alone
            if not self._begin_next():
                return None

    def _begin_next(self) -> bool:
        """Hold a trial more from now on; whether there was one."""
        just_looked = time.perf_counter() - self._looked_at < POLL_S
        if self._account.late() or (just_looked and self._running):
            return False  # time is over, or nothing was left a moment ago
        self._books.sync()
        self._forget_lost()
        if (candidate := self._proposals.next()) is None:
            self._looked_at = time.perf_counter()
            return False
        self._begin(candidate)
        return True

    def _begin(self, candidate: Candidate) -> None:
        """Evaluate a trial, unless that is of no use, or has been done."""
        running = _Running(candidate.trial, candidate.architecture, candidate.deaths)
        self._running[running.trial.number] = running
        self._account.begin(running.trial.number, running.architecture)
        if running.deaths > self._spec.search.retries:
            self._fail(running, f"{running.deaths} processes died of it")
        elif known := self._reuse.get(running.architecture):
            self._finish(running, known)
        elif not self._twins(running):
            self._set_up(running)

    def _set_up(self, running: _Running) -> None:
        """Put the tasks of a trial into its queue."""
        tasks = tasks_of(running.trial.number, running.architecture, self._spec)
        first = 1 if self._spec.search.pruner else len(tasks)  # a pruner watches one training
        running.waiting, running.later = tasks[:first], tasks[first:]

    def _twins(self, running: _Running) -> list[_Running]:
        """The trials of this process whose architecture gives the same network."""
        name = running.architecture.net_id
        others = (each for each in self._running.values() if each is not running)
        return [each for each in others if each.architecture.net_id == name]

    def _wake_twins(self) -> None:
        """Go on with the trials that waited for another of the same network, once no such runs: by
        what it found, or, if that is of no use, by themselves."""
        for running in list(self._running.values()):
            if running.busy or any(twin.busy for twin in self._twins(running)):
                continue
            if running.trial.number not in self._running:  # another process ended it just now
                continue
            if known := self._reuse.get(running.architecture):
                self._finish(running, known)
            else:
                self._set_up(running)

    # --- a trial ends ----------------------------------------------------------------------------

    def _finish(self, running: _Running, evaluation: Evaluation) -> None:
        """Take a trial's rows into the study, with its objective values."""
        evaluation.row["attempts"] = running.deaths + 1
        with suppress(UpdateFinishedTrialError):  # by another process, just now
            if self._mirror.holds(running.trial):
                self._store(running, evaluation)
        self._end(running)
        self._scratch.clean(
            running.architecture, but_throughput=self._books.awaits_speed(running.architecture)
        )
        self._books.write_if_due()

    def _store(self, running: _Running, evaluation: Evaluation) -> None:
        """Write what was measured into the study, unless another trial has done so."""
        if known := self._mirror.known.get(running.architecture.arch_id):
            self._mirror.same(running.trial, known)
            return
        study, architecture = self._mirror.study, running.architecture
        store(study, running.trial, architecture, evaluation, self._spec)

    def _fail(self, running: _Running, reason: str) -> None:
        running.deaths -= 1  # the last was the last attempt
        self._finish(running, failed(running.architecture, self._spec, self._data, reason))

    def _end(self, running: _Running) -> None:
        """The trial is finished in the study, or another process's by now."""
        self._mirror.let_go(running.trial)
        self._books.sync()
        self._forget_lost()

    # --- trials that another process, which held this one for dead, has ended --------------------

    def _held(self, trial: int) -> _Running | None:
        """A running trial, unless another process has ended it."""
        return self._running.get(trial) if trial in self._mirror.mine else None

    def _forget_lost(self) -> None:
        """Drop the trials that this process does not hold any longer."""
        for number in self._running.keys() - self._mirror.mine.keys():
            self._account.drop(number)
            del self._running[number]
