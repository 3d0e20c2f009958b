"""A sweep: Optuna asks, the evaluators answer, Optuna is told, the tables are written.

The Optuna study is the record of the sweep: every trial's parameters, values and measurements
stand in it (the rows as user attributes), and the tables are written from it. A grid is
enumerated by the space and handed to Optuna as fixed trials; a trial that an earlier process left
running is taken up again under its own number, so that each architecture has exactly one trial.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import filelock
import optuna
import torch
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from pydantic import ValidationError

from . import distributed, provenance
from .architecture import Architecture
from .completeness import SPEC_FILE, planned
from .data import ImageData, Source, load, open_data
from .errors import UserError, shown
from .evaluate import Evaluation, describe_row, evaluate, violations, work_units
from .files import check_writable, write_atomically, write_json
from .results import TABLES, write_tables
from .samplers import pruner_of, sampler_of
from .spec import AccuracySpec, Spec
from .storage import open_storage
from .training import Epoch

_SCRATCH = "partial"
_LOCK = ".lock"
#: Draws in a row that hit no feasible, new architecture before a search gives up.
_MOST_MISSES = 10_000
#: Architectures whose costs are counted and stored at a time.
_BLOCK = 1000
#: Up to so many trials each of those has a line of its own on the terminal.
_FEW = 100
#: Architectures of a search that only its timeout ends.
_MOST_TRIALS = 1_000_000
#: Combinations of a grid that a sweep goes through.
MAX_GRID = 1_000_000
#: Architectures drawn to see whether a search can meet its constraints.
_DRAWN = 100_000


class Progress(Protocol):
    """Who is told how a sweep goes."""

    def start(self, trials: int, units: float, done_units: float) -> None:
        """`trials` in all; `units` of work in all, of which `done_units` were done before."""

    def advance(self, units: float, what: str) -> None:
        """`units` of work were done; `what` is going on."""

    def trial(self, row: Mapping[str, Any], number: int, trials: int) -> None:
        """The trial of `row` ended, as number `number` of `trials`."""


@dataclass
class Outcome:
    """How a sweep ended: its architectures by state, and the errors of those that failed."""

    complete: int = 0
    diverged: int = 0
    pruned: int = 0
    failures: list[str] = field(default_factory=list)

    def count(self, row: Mapping[str, Any]) -> None:
        """Take one row of `trials` into account."""
        if row["state"] == "complete":
            self.complete += 1
        elif row["state"] == "diverged":
            self.diverged += 1
        elif row["state"] == "pruned":
            self.pruned += 1
        else:
            self.failures.append(f"trial {row['trial']} ({row['arch_id']}): {row['error']}")


def run_sweep(
    spec: Spec,
    folder: Path,
    device: torch.device,
    progress: Progress,
    storage_url: str | None = None,
) -> Outcome:
    """Run the sweep of `spec`, or what is left of it, and write its tables into `folder`.

    Args:
        spec: what to evaluate.
        folder: result folder; made if there is none.
        device: where to measure.
        progress: told of every step.
        storage_url: a database for the study, instead of a journal file in the folder.

    Raises:
        UserError: the folder holds another sweep, or another process runs this one.
    """
    _refuse_another_spec(spec, folder)
    _refuse_endless(spec)
    check_writable(folder, "--out")
    data = load_data(spec, device)
    database = open_storage(folder, storage_url) if storage_url else None
    folder.mkdir(parents=True, exist_ok=True)
    with _only_process(folder):
        _refuse_another_spec(spec, folder)
        storage = database or open_storage(folder, None, create=True)
        write_atomically(folder / SPEC_FILE, spec.source.encode())
        study = _open_study(spec, storage)
        _refuse_other_data(study, data, folder)
        sweep = _Sweep(spec, folder, data, device, progress, study)
        try:
            sweep.run()
        finally:
            sweep.write()
        return sweep.outcome


@dataclass(frozen=True)
class _Known:
    """An architecture that has its trial: its number, and what Optuna was told, if complete."""

    number: int
    values: list[float] | None
    constraints: Mapping[str, float]


class _Sweep:
    """One process's work on a sweep."""

    def __init__(
        self,
        spec: Spec,
        folder: Path,
        data: ImageData | None,
        device: torch.device,
        progress: Progress,
        study: optuna.Study,
    ) -> None:
        self.spec, self.folder, self.data, self.device = spec, folder, data, device
        self.progress, self.study = progress, study
        self.space = spec.design_space
        self.outcome = Outcome()
        self.known: dict[str, _Known] = {}
        self._tables: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
        self._write_took = self._written_at = 0.0
        self._done_units = 0.0
        self._asked = self._misses = 0
        self._distributions = {axis.field: axis.distribution() for axis in self.space.axes}
        for trial in study.get_trials(deepcopy=False):
            self._asked += 1
            if trial.state.is_finished() and "row" in trial.user_attrs:
                self._record(trial.number, trial.user_attrs, trial.values, trial.constraints)
                self._done_units += self._units_of(trial.params)

    def run(self) -> None:
        """Evaluate until nothing is left."""
        started = time.perf_counter()
        total, units = self._plan()
        self.progress.start(total, units, min(units, self._done_units))
        if self._costs_only:
            self._count(total)
        timeout = self.spec.search.timeout
        for trial, architecture in self._trials():
            self._evaluate(trial, architecture)
            self.progress.trial(self._tables["trials"][-1], len(self.known), total)
            # At once where trials are slow; of thousands of quick ones, 1/20 of the time.
            if time.perf_counter() - self._written_at > 20 * self._write_took:
                self.write()
            if timeout is not None and time.perf_counter() - started > timeout:
                break

    def write(self) -> None:
        """Write the tables as they stand."""
        started = time.perf_counter()
        for rows in self._tables.values():
            rows.sort(key=lambda row: row["trial"])
        write_tables(self.folder, self._tables)
        origin = provenance.of_sweep(str(self.device)) | {"processes": distributed.world()}
        write_json(self.folder / "provenance.json", origin)
        self._written_at = time.perf_counter()
        self._write_took = self._written_at - started

    def _plan(self) -> tuple[int, float]:
        """Architectures in all, and their work."""
        if self.spec.search.sampler != "grid" or self.spec.measure.accuracy is None:
            trials = self._wanted()
            return trials, trials * self._units(self.space.base)
        units = [self._units(self.space.architecture(i)) for i in self.space.indices()]
        return len(units), sum(units)

    @property
    def _costs_only(self) -> bool:
        """Whether the sweep is a grid of which nothing is measured."""
        measure = self.spec.measure
        none = measure.accuracy is None and measure.throughput is None
        return none and self.spec.search.sampler == "grid"

    def _count(self, total: int) -> None:
        """The costs of all that is not known, a block at a time: each is a finished trial, which
        a storage takes in one step."""
        left = (self.space.architecture(index) for index in self.space.indices())
        new = (architecture for architecture in left if architecture.arch_id not in self.known)
        while block := list(itertools.islice(new, _BLOCK)):
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
                    self._template(architecture, TrialState.COMPLETE, values, attributes)
                )
                self._record(self._asked, attributes, values, {})
                self._asked += 1
                if total <= _FEW:
                    self.progress.trial(self._tables["trials"][-1], len(self.known), total)
            self.study.add_trials(finished)
            self.progress.advance(len(block), "")
            if total > _FEW:
                self.progress.trial(self._tables["trials"][-1], len(self.known), total)

    def _template(
        self,
        architecture: Architecture,
        state: TrialState,
        values: list[float] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> FrozenTrial:
        """A trial of one Architecture as Optuna's storages take it."""
        axes = [axis for axis in self.space.axes if axis.active(architecture.get)]
        return optuna.trial.create_trial(
            state=state,
            values=values,
            params=self.space.to_params(architecture),
            distributions={axis.field: self._distributions[axis.field] for axis in axes},
            user_attrs=dict(attributes or {}),
        )

    def _fixed(self, architecture: Architecture) -> Trial:
        """A new trial that evaluates one Architecture. It is handed to the storage as it is, in
        constant time: an enqueued trial would be looked for among all that there are."""
        self.study.sampler = sampler_of(self.spec, self._asked, 0)
        self._asked += 1
        template = self._template(architecture, TrialState.RUNNING)
        number = self.study._storage.create_new_trial(self.study._study_id, template)
        return Trial(self.study, number)

    def _units_of(self, params: Mapping[str, Any]) -> float:
        if self.spec.measure.accuracy is None:
            return 1.0
        return self._units(self.space.from_params(params))

    def _units(self, architecture: Architecture) -> float:
        return work_units(architecture, self.spec, self.data)

    def _wanted(self) -> int:
        """Architectures that a search evaluates: those asked for, or all that there are."""
        return planned(self.spec) or _MOST_TRIALS

    def _trials(self) -> Iterator[tuple[Trial, Architecture]]:
        """What is left to evaluate: first what an earlier process left, then what is new."""
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            # Optuna goes on with a trial of an earlier process by its storage id alone.
            yield from self._checked(Trial(self.study, frozen._trial_id))
        for _ in self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            yield from self._checked(self._ask())
        if self._costs_only:
            return
        if self.spec.search.sampler == "grid":
            for index in self.space.indices():
                architecture = self.space.architecture(index)
                if architecture.arch_id not in self.known:
                    yield self._fixed(architecture), architecture
            return
        wanted = self._wanted()
        while len(self.known) < wanted and self._misses < _MOST_MISSES:
            before = len(self.known)
            yield from self._checked(self._ask())
            self._misses = 0 if len(self.known) > before else self._misses + 1

    def _ask(self) -> Trial:
        """The study's next trial. A sampler of its own seed for each makes a resumed search draw
        what an uninterrupted one draws."""
        self.study.sampler = sampler_of(self.spec, self._asked, self._misses)
        self._asked += 1
        return self.space.ask(self.study)

    def _checked(self, trial: Trial) -> Iterator[tuple[Trial, Architecture]]:
        """The trial and its architecture, unless that is infeasible or has a trial already."""
        try:
            architecture = self.space.from_params(trial.params)
        except (ValidationError, KeyError):
            architecture = None
        if architecture is None or not self.space.accepts(architecture):
            self.study.tell(trial, state=TrialState.PRUNED)
        elif known := self.known.get(architecture.arch_id):
            trial.set_user_attr("same_as", known.number)
            for name, distance in known.constraints.items():
                trial.set_constraint(name, distance)
            self._tell(trial, known.values)
        else:
            yield trial, architecture

    def _evaluate(self, trial: Trial, architecture: Architecture) -> None:
        """Evaluate, take the rows into the study and the tables, tell the study."""
        units = self._units(architecture)
        told = 0.0

        def on_progress(share: float, what: str) -> None:
            nonlocal told
            told += share
            self.progress.advance(share * units, what)

        def prune(epoch: Epoch) -> bool:
            if self.spec.search.pruner is None:
                return False
            trial.report(epoch.val_top1, epoch.epoch)
            return trial.should_prune()

        scratch = self.folder / _SCRATCH
        try:
            evaluation = evaluate(
                architecture, self.spec, self.data, self.device, scratch, on_progress, prune
            )
        except OSError:  # the disk's trouble, not the architecture's: stop here, resume later
            raise
        except Exception as error:
            row = describe_row(architecture, self.spec, self.data)
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
            evaluation = Evaluation(row | {"state": "failed", "error": reason})
        self.progress.advance((1 - told) * units, "")
        attributes = vars(evaluation)
        for name, value in attributes.items():
            trial.set_user_attr(name, value)
        values, distances = None, dict[str, float]()
        if evaluation.row["state"] == "complete":
            values = [_told(evaluation.row, name) for name in self.spec.objectives]
            distances = violations(architecture, evaluation.row, self.spec, of_search=True)
            for name, distance in distances.items():
                trial.set_constraint(name, distance)
        pruned = evaluation.row["state"] == "pruned"
        self._tell(trial, values, TrialState.PRUNED if pruned else TrialState.FAIL)
        self._record(trial.number, attributes, values, distances)
        for kept in scratch.glob(f"{architecture.arch_id}-*"):
            kept.unlink()
        with suppress(OSError):  # still in use
            scratch.rmdir()

    def _tell(
        self, trial: Trial, values: list[float] | None, otherwise: TrialState = TrialState.FAIL
    ) -> None:
        self.study.tell(trial, values, state=None if values else otherwise)

    def _record(
        self,
        number: int,
        attributes: Mapping[str, Any],
        values: list[float] | None,
        constraints: Mapping[str, float],
    ) -> None:
        """Take a finished trial into the tables."""
        row = attributes["row"]
        self.known[row["arch_id"]] = _Known(number, values, constraints)
        identity = {
            "sweep": self.spec.name,
            "trial": number,
            "state": row["state"],
            "arch_id": row["arch_id"],
        }
        self._tables["trials"].append(identity | row)
        for name in ("seeds", "history", "throughput"):
            self._tables[name] += [identity | dict(entry) for entry in attributes[name]]
        self.outcome.count(identity | row)


def _told(row: Mapping[str, Any], objective: str) -> float:
    """The value that a search may know of an objective: of accuracy, the validation split's."""
    return float(row["val_top1" if objective == "top1" else objective])


# --- the folder and the study in it ------------------------------------------------------------


def _refuse_another_spec(spec: Spec, folder: Path) -> None:
    """A changed spec in the same folder would mix two experiments in one table."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder}: found a file, expected a folder")
    stored = folder / SPEC_FILE
    if not stored.exists():
        return
    before, after = _flat(Spec.load(stored).recipe()), _flat(spec.recipe())
    changes = [
        f"  {key}: {shown(before.get(key, 'absent'))} -> {shown(after.get(key, 'absent'))}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]
    if changes:
        raise UserError(
            f"{folder} holds the results of another spec; what changed:\n"
            + "\n".join(changes)
            + "\nTake the change back, or choose another folder with --out."
        )


def load_data(spec: Spec, device: torch.device) -> ImageData | None:
    """The images that the spec trains on, on `device`; None if it trains on none.

    Raises:
        UserError: there are no such images, or one is damaged.
    """
    if not (accuracy := spec.measure.accuracy):
        return None
    source = open_asked(accuracy)
    return load(source, accuracy.image_size, accuracy.augmentation).to(device)


def open_asked(accuracy: AccuracySpec) -> Source:
    """The data set that a spec names; a `UserError` names the key too."""
    try:
        return open_data(accuracy.data)
    except UserError as error:
        raise UserError(f"measure.accuracy.data: {error}") from None


def _refuse_other_data(study: optuna.Study, data: ImageData | None, folder: Path) -> None:
    """The spec names a place; what lies there may have changed since the sweep began."""
    if data is None:
        return
    before = study.user_attrs.get("data", {"name": data.name, "sha256": data.sha256})
    if before["sha256"] != data.sha256:
        raise UserError(
            f"{folder} holds the results of other images: {before['name']} with checksum "
            f"{before['sha256']}, found {data.name} with {data.sha256}. "
            "Take the change back, or choose another folder with --out."
        )
    if "data" not in study.user_attrs:
        study.set_user_attr("data", before)


def _refuse_endless(spec: Spec) -> None:
    """A grid beyond all patience, or a search whose constraints nothing seems to meet."""
    space = spec.design_space
    if spec.search.sampler == "grid":
        if space.size > MAX_GRID:
            raise UserError(
                f"{spec.name}: found {space.size:,} combinations, expected at most {MAX_GRID:,} "
                "for the sampler grid; a census goes through more, another sampler draws trials"
            )
    elif space.constraints and not space.feasible(space.sample(_DRAWN, 0), _DRAWN).any():
        raise UserError(
            f"{spec.name}: constraints: none of {_DRAWN:,} architectures drawn at random meets them"
        )


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    if not isinstance(value, dict):
        return {path: value}
    return {
        key: leaf
        for name, inner in value.items()
        for key, leaf in _flat(inner, f"{path}.{name}" if path else str(name)).items()
    }


@contextmanager
def _only_process(folder: Path) -> Iterator[None]:
    try:
        with filelock.FileLock(folder / _LOCK, timeout=0):
            yield
    except filelock.Timeout:
        raise UserError(f"{folder}: another process is running this sweep") from None


def _open_study(spec: Spec, storage: BaseStorage) -> optuna.Study:
    return optuna.create_study(
        study_name=spec.name,
        storage=storage,
        directions=list(spec.objectives.values()),
        pruner=pruner_of(spec),
        load_if_exists=True,
    )
