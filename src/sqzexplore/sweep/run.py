"""A sweep: Optuna asks, the engine evaluates, Optuna is told, the tables are written.

The Optuna study is the record of the sweep: every trial's parameters, values and measurements
stand in it (the rows as user attributes), and the tables are written from it. Several processes
may share it (`leases`, `scheduler`): a trial whose process died is taken up by another under its
own number, so that each architecture has exactly one row.

A trial is a set of tasks (`evaluate.Task`), which the engine does side by side. Throughput is
measured while nothing else runs: in a phase of its own once all trainings are over, or after each
trial's trainings where the search has to know it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import filelock
import joblib
import optuna
import torch
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from .. import provenance
from ..data.images import ImageData
from ..evaluation.rows import describe_row, failed, of_trial, violations
from ..evaluation.tasks import Evaluation, Measured, Task, share_of, tasks_of
from ..evaluation.trial import assembled
from ..evaluation.workload import load_data, recipe_of, work_units
from ..executors.base import Engine, Job, Listener
from ..executors.inline import Inline
from ..executors.processes import Local, places
from ..files import check_writable, exclusive, without_nan, write_atomically
from ..network.architecture import Architecture
from ..results.claims import judged
from ..results.completeness import planned
from ..results.folder import ResultFolder
from ..spec.models import Spec
from ..train import distributed
from ..train.loop import Epoch, check_precision
from .going_on import CLAIMS, carry_over, news, put_away
from .leases import Leases
from .optuna_params import from_params
from .optuna_private import storage_of
from .preflight import (
    measures_alone,
    measuring_alone,
    refuse_endless,
    refuse_neighbours,
    refuse_other_data,
    refuse_smaller,
)
from .reuse import Reuse
from .samplers import FrontPruner, pruner_of
from .scheduler import Candidates
from .storage.open import open_storage
from .storage.retrying import PatientStorage
from .trial_tables import Outcome, Record, drop_unfinished, speed_key

_COUNTING = ".counting.lock"
#: Architectures whose costs are counted and stored at a time.
_BLOCK = 1000
#: Up to so many trials each of those has a line of its own on the terminal.
_FEW = 100
#: Trials that a search without an end shows as its total.
_MOST_TRIALS = 1_000_000
#: Seconds after which a sweep looks what other processes did.
_POLL_S = 1.0

#: Makes the engine that a sweep evaluates with.
MakeEngine = Callable[[Job, Listener], Engine]


class Progress(Protocol):
    """Who is told how a sweep goes."""

    def start(self, trials: int, units: float, done_units: float) -> None:
        """`trials` in all; `units` of work in all, of which `done_units` were done before."""

    def advance(self, units: float, what: str) -> None:
        """`units` of work were done; `what` is going on."""

    def trial(self, row: Mapping[str, Any], number: int, trials: int) -> None:
        """The trial of `row` ended, as number `number` of `trials`."""


def run_sweep(
    spec: Spec,
    folder: Path,
    device: torch.device,
    progress: Progress,
    storage_url: str | None = None,
    workers: int = 1,
    make_engine: MakeEngine | None = None,
    pack: int = 1,
) -> Outcome:
    """Run the sweep of `spec`, or what is left of it, and write its tables into `folder`.

    Args:
        spec: what to evaluate.
        folder: result folder; made if there is none. Several processes may work in it at once.
        device: where to measure; without an index, all devices of its kind.
        progress: told of every step.
        storage_url: a database for the study, instead of a journal file in the folder.
        workers: processes that train, if there are several, or if a task may take only so long;
            else this one does.
        make_engine: where to evaluate, if not on this machine.
        pack: trainings by turns in each.

    Raises:
        UserError: the folder holds another sweep, or this one cannot run so.
    """
    news(spec, folder)
    refuse_endless(spec)
    if make_engine is None:
        refuse_neighbours(workers, pack)
        if spec.measure.accuracy:
            check_precision(recipe_of(spec.measure.accuracy), device)
    refuse_smaller(spec)
    check_writable(folder, "--out")
    here = make_engine is None and workers == 1 and spec.search.trial_timeout is None
    data = load_data(spec, device if here else torch.device("cpu"))
    database = open_storage(folder, storage_url) if storage_url else None
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder):
        carry_over(spec, folder, data, database is not None)
        drop_unfinished(folder)
        write_atomically(ResultFolder(folder).spec_file, spec.source.encode())
    storage = database or open_storage(folder, None, create=True)
    study = _open_study(spec, storage)
    refuse_other_data(study, data, folder)
    _declare(spec, study, folder)
    with measuring_alone(spec, folder), Leases(folder, storage, str(device)) as leases:
        sweep = _Sweep(spec, folder, data, device, progress, study, leases, bool(storage_url))
        job = Job(spec.source, ResultFolder(folder.absolute()).scratch, spec.search.trial_timeout)
        if make_engine is not None:
            sweep.run(make_engine(job, sweep))
        elif here:
            sweep.run(Inline(job, sweep, device, data, pack))
        else:
            sweep.run(Local(job, sweep, places(workers, device), pack))
        _judge(spec, ResultFolder(folder), study)
        return sweep.record.outcome


def _declare(spec: Spec, study: optuna.Study, folder: Path) -> None:
    """Note of each claim that the study does not know yet whether anything had been tried."""
    known = study.user_attrs.get(CLAIMS, {})
    when = "after" if study.get_trials(deepcopy=False) or put_away(folder) else "before"
    new = {claim.key: when for claim in spec.claims if claim.key not in known}
    if new:
        study.set_user_attr(CLAIMS, known | new)


def _judge(spec: Spec, folder: ResultFolder, study: optuna.Study) -> None:
    """Write the verdicts on the claims; those of a claim that the spec dropped go with it."""
    if not spec.claims:
        folder.drop("claims")
        return
    trials = folder.table("trials")
    assert trials is not None
    seeds, images = folder.table("seeds"), folder.table("images")
    declared = study.user_attrs.get(CLAIMS, {})
    folder.write({"claims": judged(spec, trials, seeds, images, declared)})


def workers_for(spec: Spec, device: torch.device) -> int:
    """Processes that use the whole machine: a training a core, or for each of its threads; one a
    GPU; no more than there are trainings.

    Args:
        spec: what they train; one process is enough for anything else.
        device: where; without an index, all devices of its kind.
    """
    accuracy = spec.measure.accuracy
    if accuracy is None or distributed.launched():
        return 1
    if device.type == "cuda":
        return 1 if device.index is not None else torch.cuda.device_count()
    trainings = (planned(spec) or _MOST_TRIALS) * accuracy.seeds * len(accuracy.budgets)
    return max(1, min(trainings, joblib.cpu_count() // accuracy.threads))


@dataclass
class _Running:
    """A trial of this process: of what, how much work it is, how often its process died, which
    share of the work is done; which of its tasks wait, may have to wait for those, are being done,
    and what the others found."""

    trial: Trial
    architecture: Architecture
    units: float
    deaths: int
    told: float = 0.0
    waiting: list[Task] = field(default_factory=list)
    later: list[Task] = field(default_factory=list)
    out: set[Task] = field(default_factory=set)
    found: dict[Task, Measured] = field(default_factory=dict)

    @property
    def busy(self) -> bool:
        """Whether it has tasks; without any it waits for a trial of the same network."""
        return bool(self.waiting or self.later or self.out or self.found)


class _Sweep:
    """One process's work on a sweep; it hears of the trials that its engine evaluates."""

    def __init__(
        self,
        spec: Spec,
        folder: Path,
        data: ImageData | None,
        device: torch.device,
        progress: Progress,
        study: optuna.Study,
        leases: Leases,
        in_database: bool,
    ) -> None:
        self.spec, self.folder, self.data, self.device = spec, folder, data, device
        self._progress, self.study, self.leases = progress, study, leases
        self.record = Record(spec.name)
        self._slots = 1
        self._running: dict[int, _Running] = {}
        self._speed: Task | None = None
        self._speed_deaths = 0
        self._total, self._done_units, self._shown, self._unwritten = 0, 0.0, False, False
        self._began = time.perf_counter()
        self._write_took = self._written_at = self._looked_at = 0.0
        self._front_pruner = FrontPruner(spec) if spec.search.pruner == "front" else None
        self._reuse = Reuse(spec, study, device, data)
        self._candidates = Candidates(spec, study, leases, self.record, in_database, self._on_row)
        if self._speed_waits:
            self.record.take_speeds(study.user_attrs)

    def run(self, engine: Engine) -> None:
        """Evaluate until nothing is left, here and in the processes that share the study."""
        self._slots = engine.slots
        try:
            self._total, units = self._plan()
            self._progress.start(self._total, units, min(units, self._done_units))
            self._shown = True
            if self._costs_only:
                self._count()
            while True:
                self._hand_out(engine)
                if not self._running and (not self._candidates.others or self._late()):
                    break
                engine.wait(_POLL_S)
                self._write_if_due()
            self.write()
            if self._speed_waits and not self._candidates.others:
                self._measure_speeds(engine)
            if not self._candidates.others and not self._running:
                self._tidy()
        except BaseException:
            if isinstance(storage := storage_of(self.study), PatientStorage):
                storage.hurry()
            with suppress(OSError):
                self.write(sync=False)
            raise
        finally:
            engine.close()

    def write(self, sync: bool = True) -> None:
        """Write the tables as they stand; `sync`: with what other processes did."""
        started = time.perf_counter()
        with exclusive(self.folder):
            drop_unfinished(self.folder)
            if sync:
                self._candidates.sync()
            origin = provenance.of_sweep(str(self.device))
            origin |= {"processes": distributed.world(), "workers": self._slots}
            origin |= {"data": self.data.provenance} if self.data else {}
            self.record.write(self.folder, origin)
        self._unwritten = False
        self._written_at = time.perf_counter()
        self._write_took = self._written_at - started

    def _write_if_due(self) -> None:
        """Write what is new: at once where trials are slow, else 1/20 of the time."""
        if self._unwritten and time.perf_counter() - self._written_at > 20 * self._write_took:
            self.write()

    # --- what the engine says --------------------------------------------------------------------

    def progress(self, task: Task, share: float, what: str) -> None:
        """A share of the task's work was done."""
        if (running := self._running.get(task.trial)) is None:
            if task == self._speed:
                self._progress.advance(0.0, f"trial {task.trial}: {what}")
            return  # or another process held this one for dead, and ended the trial
        share *= share_of(task, self.spec)
        running.told += share
        self._progress.advance(share * running.units, self._named(task.trial, what))

    def prune(self, task: Task, epoch: Epoch) -> bool:
        """Whether a training falls behind the others, or cannot reach the front."""
        if (running := self._running.get(task.trial)) is None:
            return True
        if self._front_pruner:
            return self._front_pruner.ends(running.architecture, epoch.epoch, epoch.val_top1)
        try:
            running.trial.report(epoch.val_top1, epoch.epoch)
        except UpdateFinishedTrialError:  # by another process, just now
            return True
        return running.trial.should_prune()

    def ended(self, task: Task, measured: Measured) -> None:
        """Take what a task found; with its last one a trial ends."""
        if task == self._speed:
            self._speed = None
            if task.trial not in self._running:
                return self._take_speed(task, measured)
        if (running := self._running.get(task.trial)) is None:
            return
        running.out.discard(task)
        running.found[task] = measured
        stopped = measured.run is not None and measured.run["stopped"]
        if not (measured.error or stopped):
            running.waiting += running.later
            running.later = []
            if running.waiting or running.out:
                return
        evaluation = assembled(running.architecture, self.spec, self.data, running.found)
        self._finish(task.trial, evaluation)

    def lost(self, tasks: Sequence[Task], reason: str) -> None:
        """Give the tasks to another worker, unless too many died of their trial."""
        if self._speed in tasks:
            self._speed = None
            if tasks[0].trial not in self._running:
                self._speed_deaths += bool(reason)
                if self._speed_deaths > self.spec.search.retries:
                    self._take_speed(tasks[0], Measured(error=reason))
                return
        for number in dict.fromkeys(task.trial for task in tasks):
            mine = [task for task in tasks if task.trial == number]
            if (running := self._running.get(number)) is not None:
                self._lost_of(running, mine, reason)

    def _lost_of(self, running: _Running, tasks: Sequence[Task], reason: str) -> None:
        """The same, of one trial."""
        number = running.trial.number
        running.deaths += bool(reason)
        if running.deaths > self.spec.search.retries:
            times = f", {running.deaths} times" if running.deaths > 1 else ""
            self._fail(number, f"{reason}{times}")
            return
        if not self._candidates.repeat(running.trial, running.deaths):
            self._running.pop(number)
            self._candidates.done(running.trial)
            return
        self._progress.advance(0.0, self._named(number, f"{reason}; tried again"))
        running.out.difference_update(tasks)
        running.waiting[:0] = tasks

    # --- its own steps ---------------------------------------------------------------------------

    def _hand_out(self, engine: Engine) -> None:
        """Give the engine what it has room for."""
        while engine.free() and (task := self._next_task()) is not None:
            self._running[task.trial].out.add(task)
            engine.submit(task)

    def _next_task(self) -> Task | None:
        """What can be done now: throughput while nothing else runs, and nothing beside it."""
        if self._speed is not None:
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
                self._speed = speeds[0]
                self._running[self._speed.trial].waiting.remove(self._speed)
                return self._speed
            if not self._begin():
                return None

    def _begin(self) -> bool:
        """Hold a trial more from now on; whether there was one."""
        if self._late() or (time.perf_counter() - self._looked_at < _POLL_S and self._running):
            return False  # time is over, or nothing was left a moment ago
        if (candidate := self._candidates.next()) is None:
            self._looked_at = time.perf_counter()
            return False
        trial, architecture, deaths = candidate.trial, candidate.architecture, candidate.deaths
        units = work_units(architecture, self.spec, self.data)
        running = _Running(trial, architecture, units, deaths)
        self._running[trial.number] = running
        if deaths > self.spec.search.retries:
            self._fail(trial.number, f"{deaths} processes died of it")
        elif known := self._reuse.get(architecture):
            self._finish(trial.number, known)
        elif not self._twins(running):
            self._set_up(running)
        return True

    def _set_up(self, running: _Running) -> None:
        """Put the tasks of a trial into its queue."""
        tasks = tasks_of(running.trial.number, running.architecture, self.spec)
        first = 1 if self.spec.search.pruner else len(tasks)  # a pruner watches one training
        running.waiting, running.later = tasks[:first], tasks[first:]

    def _twins(self, running: _Running) -> list[_Running]:
        """The trials of this process whose architecture gives the same network."""
        if self._costs_only:
            return []
        name = running.architecture.net_id
        others = (each for each in self._running.values() if each is not running)
        return [each for each in others if each.architecture.net_id == name]

    def _wake_twins(self) -> None:
        """Go on with the trials that waited for another of the same network, once no such runs: by
        what it found, or, if that is of no use, by themselves."""
        for running in list(self._running.values()):
            if running.busy or any(twin.busy for twin in self._twins(running)):
                continue
            if known := self._reuse.get(running.architecture):
                self._finish(running.trial.number, known)
            elif running.trial.number in self._running:
                self._set_up(running)

    def _finish(self, trial: int, evaluation: Evaluation) -> None:
        """Take a trial's rows into the study, tell it the values."""
        running = self._running[trial]
        evaluation.row["attempts"] = running.deaths + 1
        with suppress(UpdateFinishedTrialError):  # by another process, just now
            if self._candidates.holds(running.trial):
                self._tell(running, evaluation)
        self._candidates.done(running.trial)
        self._running.pop(trial, None)
        self._clean(running.architecture)
        self._write_if_due()

    def _fail(self, trial: int, reason: str) -> None:
        architecture = self._running[trial].architecture
        self._running[trial].deaths -= 1  # the last was the last attempt
        self._finish(trial, failed(architecture, self.spec, self.data, reason))

    # --- throughput, once nothing trains ---------------------------------------------------------

    @property
    def _speed_waits(self) -> bool:
        """Whether throughput is measured when all trainings are over."""
        measure = self.spec.measure
        return bool(measure.throughput and measure.accuracy and not self.spec.speed_decides)

    def _measure_speeds(self, engine: Engine) -> None:
        """Complete the rows, one trial at a time, one process of a machine at a time."""
        with measures_alone(self.folder):
            for number, architecture in self._unmeasured():
                self._speed_deaths = 0
                while number in self.record.unmeasured:
                    self._speed = Task(number, architecture, "throughput")
                    engine.submit(self._speed)
                    while self._speed is not None:
                        engine.wait(_POLL_S)
                self._clean(architecture)
                self._write_if_due()
            self.write()

    def _unmeasured(self) -> Iterator[tuple[int, Architecture]]:
        """The trials whose throughput no process has measured."""
        self.record.take_speeds(self.study.user_attrs)
        trials = self.study.get_trials(deepcopy=False)
        for number in sorted(self.record.unmeasured):
            yield number, from_params(self.spec.design_space, trials[number].params)

    def _take_speed(self, task: Task, measured: Measured) -> None:
        """Write the throughput of a trial that has ended into the study, unless another process
        has done so meanwhile."""
        if task.trial not in self.record.unmeasured:
            return
        rows = [dict(row) for row in measured.throughput]
        row = of_trial(rows, self.spec) if rows else {"outcome": "failed"}
        if measured.error:
            row["error"] = f"throughput: {measured.error}"
        content = without_nan({"row": row, "throughput": rows})
        self.study.set_user_attr(speed_key(task.trial), content)
        self.record.take_speeds({speed_key(task.trial): content})
        self._unwritten = True

    def _late(self) -> bool:
        timeout = self.spec.search.timeout
        return timeout is not None and time.perf_counter() - self._began > timeout

    def _named(self, trial: int, what: str) -> str:
        return f"trial {trial}: {what}" if self._slots > 1 else what

    def _tell(self, running: _Running, evaluation: Evaluation) -> None:
        """Write what was measured into the study."""
        trial, row = running.trial, evaluation.row
        if known := self.record.known.get(running.architecture.arch_id):
            self._candidates.same(trial, known)
            return
        for name, value in vars(evaluation).items():
            trial.set_user_attr(name, without_nan(value))  # the study is JSON
        values = None
        if row["state"] == "complete":
            values = [_told(row, name) for name in self.spec.objectives]
            distances = violations(running.architecture, row, self.spec, of_search=True)
            for name, distance in distances.items():
                trial.set_constraint(name, distance)
        otherwise = TrialState.PRUNED if row["state"] == "pruned" else TrialState.FAIL
        state = None if values else otherwise
        self.study.tell(trial, values, state=state, skip_if_finished=True)

    def _on_row(self, trial: FrozenTrial, row: Mapping[str, Any]) -> None:
        """A trial of this process, or of another, has its row."""
        self._unwritten = True
        if self._front_pruner:
            self._front_pruner.add(row, trial.user_attrs["history"])
        if running := self._running.pop(trial.number, None):
            units = (1 - running.told) * running.units
        else:
            units = self._units_of(trial.params)
        if not self._shown:
            self._done_units += units
            return
        self._progress.advance(units, "")
        known = len(self.record.known)
        if (
            not self._costs_only
            or self._total <= _FEW
            or known % _BLOCK == 0
            or known == self._total
        ):
            self._progress.trial(row, known, self._total)

    def _clean(self, architecture: Architecture) -> None:
        """Remove what an unfinished trial keeps, and what a killed one was writing; but for a
        throughput that is still to be measured."""
        known = self.record.known.get(architecture.arch_id)
        waits = self._speed_waits and known and known.number in self.record.unmeasured
        for pattern in (f"{architecture.arch_id}-*", f".{architecture.arch_id}-*"):
            for kept in ResultFolder(self.folder).scratch.glob(pattern):
                if not (waits and kept.stem.endswith("-throughput")):
                    kept.unlink(missing_ok=True)

    def _tidy(self) -> None:
        """Nothing is left to do: remove what killed processes left. Not before, for a worker may
        be about to write into the folder."""
        scratch = ResultFolder(self.folder).scratch
        for kept in scratch.glob("*"):
            if kept.name.lstrip(".").partition("-")[0] in self.record.known:
                kept.unlink(missing_ok=True)
        with suppress(OSError):
            scratch.rmdir()
        self.leases.nothing_left()

    def _plan(self) -> tuple[int, float]:
        """Architectures in all, and their work."""
        space = self.spec.design_space
        if self.spec.search.sampler != "grid" or self.spec.measure.accuracy is None:
            trials = planned(self.spec) or _MOST_TRIALS
            return trials, trials * self._units(space.base)
        units = [self._units(space.architecture(i)) for i in space.indices()]
        return len(units), sum(units)

    def _units(self, architecture: Architecture) -> float:
        return work_units(architecture, self.spec, self.data)

    def _units_of(self, params: Mapping[str, Any]) -> float:
        if self.spec.measure.accuracy is None:
            return 1.0
        return self._units(from_params(self.spec.design_space, params))

    @property
    def _costs_only(self) -> bool:
        """Whether the sweep is a grid of which nothing is measured."""
        measure = self.spec.measure
        none = measure.accuracy is None and measure.throughput is None
        return none and self.spec.search.sampler == "grid"

    def _count(self) -> None:
        """The costs of all that is not known, a block at a time: each is a finished trial, which
        a storage takes in one step. It takes seconds, for which another process waits."""
        with filelock.FileLock(self.folder / _COUNTING):
            self._candidates.sync()
            while block := self._candidates.block(_BLOCK):
                self.study.add_trials(self._counted(block))
                self._candidates.sync()

    def _counted(self, block: list[Architecture]) -> list[FrozenTrial]:
        """Finished trials of architectures whose costs are all that is asked for."""
        started_at, started = datetime.now(UTC), time.perf_counter()
        rows = [describe_row(each, self.spec, None) | {"state": "complete"} for each in block]
        spent = (time.perf_counter() - started) / len(block)
        origin = provenance.of_trial(str(self.device), started_at, spent)
        finished = []
        for architecture, row in zip(block, rows, strict=True):
            row |= {"device": str(self.device)} | origin
            values = [_told(row, name) for name in self.spec.objectives]
            attributes = vars(Evaluation(row))
            finished.append(
                self._candidates.template(architecture, TrialState.COMPLETE, values, attributes)
            )
        return finished


def _told(row: Mapping[str, Any], objective: str) -> float:
    """The value that a search may know of an objective: of accuracy, the validation split's."""
    return float(row["val_top1" if objective == "top1" else objective])


def _open_study(spec: Spec, storage: BaseStorage) -> optuna.Study:
    return optuna.create_study(
        study_name=spec.name,
        storage=storage,
        directions=list(spec.objectives.values()),
        pruner=pruner_of(spec),
        load_if_exists=True,
    )
