"""One architecture of a spec, measured: cost, accuracy at each budget under each seed, throughput.

A trial is a set of tasks, a training or a measurement of speed each, which processes can do side by
side. What a task found stays in a file of its own until the trial is in the study, and a training
keeps its state between epochs, so that an interrupted trial goes on from there.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from scipy import stats

from . import provenance
from .architecture import Architecture, format_overrides
from .columns import columns_of, format_value
from .cost import COST_COLUMNS, cost
from .data import ImageData, Source, load, open_data
from .errors import UserError
from .expressions import MEASURED
from .files import write_json
from .memory import is_lost
from .prepare import Settings
from .recipe import Recipe
from .spec import AccuracySpec, Spec
from .throughput import DeviceLost, forget_references, measure, over_batches
from .training import Epoch, identity, lead

#: Called with the share of a task's work that is newly done, and what was done.
OnProgress = Callable[[float, str], None]
#: Called with an epoch of the first seed's training; whether the trial is not worth going on.
Prune = Callable[[Epoch], bool]


@dataclass(frozen=True)
class Task:
    """A part of a trial that one process does: a training (of `seed`, for `epochs`), the
    measurement of throughput, or nothing but the cost."""

    trial: int
    architecture: Architecture
    kind: Literal["training", "throughput", "cost"]
    seed: int = 0
    epochs: int = 0

    def __str__(self) -> str:
        return f"seed {self.seed}" if self.kind == "training" else self.kind


@dataclass(frozen=True)
class Measured:
    """What a task found: how a training went (`Run` as a mapping), or rows of `throughput`; where
    and when; or why it failed."""

    origin: Mapping[str, Any] = field(default_factory=dict)
    run: Mapping[str, Any] | None = None
    throughput: tuple[Mapping[str, Any], ...] = ()
    error: str = ""


@dataclass
class Evaluation:
    """What a trial measured: its row of `trials`, and its rows of the long tables."""

    row: dict[str, Any]
    seeds: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    images: list[dict[str, Any]] = field(default_factory=list)
    throughput: list[dict[str, Any]] = field(default_factory=list)


# --- a trial as tasks --------------------------------------------------------------------------


def tasks_of(trial: int, architecture: Architecture, spec: Spec) -> list[Task]:
    """All that is to be measured of a trial but a throughput that can wait, in order: the cheapest
    budget first."""
    if (accuracy := spec.measure.accuracy) is None:
        kind: Any = "throughput" if spec.measure.throughput else "cost"
        return [Task(trial, architecture, kind)]
    trainings = [
        Task(trial, architecture, "training", seed, epochs)
        for epochs in accuracy.budgets
        for seed in range(accuracy.seeds)
    ]
    alone = [Task(trial, architecture, "throughput")] if spec.speed_decides else []
    return trainings + alone


def share_of(task: Task, spec: Spec) -> float:
    """The share of its trial's work that a task is."""
    accuracy = spec.measure.accuracy
    if accuracy is None:
        return 1.0
    return task.epochs / (accuracy.seeds * sum(accuracy.budgets))


def assembled(
    architecture: Architecture,
    spec: Spec,
    data: ImageData | None,
    found: Mapping[Task, Measured],
) -> Evaluation:
    """A trial of which all tasks are done, or one ended it.

    Args:
        architecture: the trial's.
        spec: what was asked for.
        data: the images that it was trained on.
        found: what its tasks found.
    """
    evaluation = Evaluation(describe_row(architecture, spec, data) | {"state": "complete"})
    if error := next((one.error for one in found.values() if one.error), ""):
        evaluation.row |= {"state": "failed", "error": error}
        return evaluation
    for task, measured in sorted(found.items(), key=lambda item: (item[0].epochs, item[0].seed)):
        if measured.run is not None:
            _take_run(evaluation, task, measured.run)
        evaluation.throughput += [dict(row) for row in measured.throughput]
    if spec.measure.accuracy:
        _summarise_runs(evaluation, spec)
    if evaluation.throughput:
        evaluation.row |= of_trial(evaluation.throughput, spec)
    if distances := violations(architecture, evaluation.row, spec):
        evaluation.row["feasible"] = max(distances.values()) <= 0
    evaluation.row |= _origin([one.origin for one in found.values()])
    return evaluation


def _origin(origins: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Of a trial: where and when its first task began, and the time of all."""
    first = dict(min(origins, key=lambda origin: origin["started_at"]))
    spent = sum(origin["duration_s"] for origin in origins)
    return first | {"duration_s": round(spent, 3)}


def _take_run(evaluation: Evaluation, task: Task, run: Mapping[str, Any]) -> None:
    """The rows of one training."""
    which = {"seed": task.seed, "epochs": task.epochs}
    evaluation.history += [which | epoch for epoch in run["history"]]
    evaluation.images += [
        which | {"split": split, "right": right} for split, right in run["right"].items()
    ]
    rest = {k: v for k, v in run.items() if k not in ("history", "right")}
    evaluation.seeds.append(rest | which)


def _summarise_runs(evaluation: Evaluation, spec: Spec) -> None:
    """The accuracy columns of a trial: of its largest budget."""
    assert spec.measure.accuracy is not None
    budgets = spec.measure.accuracy.budgets
    row, runs = evaluation.row, evaluation.seeds
    row["train_threads"] = spec.measure.accuracy.threads
    if any(run["stopped"] for run in runs):
        last = evaluation.history[-1]
        row |= {"state": "pruned", "val_top1": last["val_top1"], "seeds": 0}
        row |= {"epochs": last["epoch"]}
        evaluation.seeds = []
        return
    for run in runs:
        del run["stopped"]
    largest = [run for run in runs if run["epochs"] == budgets[-1]]
    row |= summarise(largest)
    row |= {"epochs": budgets[-1], "still_learning": still_learning(evaluation, budgets)}
    if row["diverged_seeds"]:
        row["state"] = "diverged"
    elif row["dead_seeds"]:
        row["state"] = "dead"


def summarise(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The accuracy columns of a trial from its runs: mean, sd and 95% t-interval of the mean.

    The interval speaks of the randomness of training alone (initial weights, order, dropout), on
    one split of one data set. A diverged run has no accuracy and a dead one none worth the name,
    and then neither has the mean: leaving it out would flatter the architecture. With one seed
    there is no interval.
    """
    top1 = np.array([run["top1"] for run in runs], dtype=float)
    dead = sum(run["dead"] for run in runs)
    row = {
        "seeds": len(runs),
        "diverged_seeds": sum(run["diverged"] for run in runs),
        "dead_seeds": dead,
        "top1": math.nan if dead else float(top1.mean()),
        "top5": math.nan if dead else float(np.mean([run["top5"] for run in runs])),
        "val_top1": math.nan if dead else float(np.mean([run["val_top1"] for run in runs])),
        "top1_sd": math.nan,
        "top1_ci_low": math.nan,
        "top1_ci_high": math.nan,
    }
    if len(runs) > 1 and np.isfinite(top1).all() and not dead:
        row["top1_sd"] = float(top1.std(ddof=1))
        half = float(stats.t.ppf(0.975, len(runs) - 1)) * row["top1_sd"] / math.sqrt(len(runs))
        row["top1_ci_low"] = max(0.0, row["top1"] - half)
        row["top1_ci_high"] = min(100.0, row["top1"] + half)
    return row


#: Gain in validation top-1, points, above which a network is held to be still learning.
LEARNING_POINTS = 1.0


def still_learning(evaluation: Evaluation, budgets: tuple[int, ...]) -> bool | None:
    """Whether more training would have helped, as far as its own past tells.

    The gain in validation top-1 of each seed, from the last budget but one to the last, or with one
    budget over the last third of the training: its one-sided 95% lower bound over the seeds is
    above one point. None where that cannot be known: with one seed, one epoch, or a run that
    diverged.
    """
    last = budgets[-1]
    before, at = (budgets[-2],) * 2 if len(budgets) > 1 else (last, last - max(1, last // 3))
    curves = {
        (entry["epochs"], entry["seed"], entry["epoch"]): entry["val_top1"]
        for entry in evaluation.history
    }
    seeds = sorted({seed for _, seed, _ in curves})
    gains = np.array(
        [
            curves.get((last, seed, last), math.nan) - curves.get((before, seed, at), math.nan)
            for seed in seeds
        ]
    )
    if len(gains) < 2 or not np.isfinite(gains).all():
        return None
    error = gains.std(ddof=1) / math.sqrt(len(gains))
    low = gains.mean() - float(stats.t.ppf(0.95, len(gains) - 1)) * error
    return bool(low > LEARNING_POINTS)


def failed(
    architecture: Architecture, spec: Spec, data: ImageData | None, reason: str
) -> Evaluation:
    """A trial of which nothing was measured."""
    row = describe_row(architecture, spec, data)
    return Evaluation(row | {"state": "failed", "error": reason})


def describe_row(architecture: Architecture, spec: Spec, data: ImageData | None) -> dict[str, Any]:
    """What is known of an architecture before anything is measured."""
    row: dict[str, Any] = {
        "arch_id": architecture.arch_id,
        "net_id": architecture.net_id,
        **architecture.model_dump(),
        "pool_after": format_value(architecture.pool_after),
        "overrides": format_overrides(architecture.overrides),
        "input_size": spec.input_size,
        **cost(architecture, spec.input_size).totals(),
    }
    if (accuracy := spec.measure.accuracy) and data:
        trained = cost(trained_of(architecture, spec, data), accuracy.image_size)
        row |= {f"train_{name}": value for name, value in trained.totals().items()}
        row |= {
            "train_input_size": accuracy.image_size,
            "data": data.name,
            "data_sha256": data.sha256,
            "recipe": accuracy.recipe,
            "precision": accuracy.precision,
            "epochs": accuracy.budgets[-1],
        }
    return row


def violations(
    architecture: Architecture, row: Mapping[str, Any], spec: Spec, of_search: bool = False
) -> dict[str, float]:
    """How far a complete trial is from each constraint on measured columns, by its text.

    Args:
        architecture: the trial's.
        row: its row of `trials`.
        spec: whose constraints they are.
        of_search: as a search may know it: by the validation split's accuracy, not the test's.

    Returns:
        At most 0 where the constraint is met (`Expression.violation`); nothing of a trial that is
        not complete.
    """
    if row["state"] != "complete":
        return {}
    values = {name: column[0] for name, column in columns_of([architecture]).items()}
    values |= {name: row[name] for name in COST_COLUMNS}
    for name in MEASURED:
        value = row.get("val_top1" if of_search and name == "top1" else name)
        values[name] = math.nan if value is None else float(value)
    return {c.text: c.violation(values) for c in spec.result_constraints}


def training_macs(architecture: Architecture, spec: Spec, data: ImageData | Source) -> int:
    """MACs of one image through the network that is trained in the place of `architecture`."""
    assert spec.measure.accuracy is not None
    return cost(trained_of(architecture, spec, data), spec.measure.accuracy.image_size).macs


def work_units(architecture: Architecture, spec: Spec, data: ImageData | None) -> float:
    """How long a trial takes, in units that only compare trials of one sweep."""
    units = 0.0
    if (accuracy := spec.measure.accuracy) and data:
        macs = training_macs(architecture, spec, data)
        # A step has an overhead that small networks feel, about that of 2 million MACs an image.
        units += accuracy.seeds * sum(accuracy.budgets) * (macs + 2e6)
    return units or 1.0


def trained_of(architecture: Architecture, spec: Spec, data: ImageData | Source) -> Architecture:
    """What is trained in the place of `architecture`."""
    return spec.trained(architecture, data.channels, len(data.classes))


#: What the row of `trials` shows of a measurement.
_OF_TRIAL = (
    *("batch", "dtype", "memory_format", "form", "mode", "outcome", "images_per_s"),
    *("latency_ms_p50", "latency_ms_p99", "latency_ms_sd", "repetitions"),
    *("relative_to_reference", "roofline_share", "bound", "threads"),
)


def of_trial(rows: list[dict[str, Any]], spec: Spec) -> dict[str, Any]:
    """The throughput columns of a trial: of its first settings, the largest batch.

    The same settings in every trial: what has no value there (out of memory) has none, rather
    than that of another batch. `auto` has the largest batch that was measured.
    """
    assert spec.measure.throughput is not None
    first = ("dtype", "memory_format", "form", "mode")
    same = [row for row in rows if all(row[name] == rows[0][name] for name in first)]
    same = [row for row in same if row["input_size"] == spec.input_size]
    if spec.measure.throughput.batch == "auto":
        same = [row for row in same if row["outcome"] == "measured"] or same
    row = max(same, key=lambda row: row["batch"])
    shown = {name: row[name] for name in _OF_TRIAL}
    if row["outcome"] != "measured" and spec.speed_decides:
        shown |= {"state": "failed", "error": f"throughput: {row['outcome']}: {row['reason']}"}
    return shown


# --- a task, done ------------------------------------------------------------------------------


class Bench:
    """Does tasks in this process: trainings by turns, anything else at once.

    Args:
        spec: what to measure, and how.
        data: the images on `device`, where the spec measures accuracy.
        device: where to measure.
        scratch: folder for what is measured before the trial is in the study.
    """

    def __init__(
        self, spec: Spec, data: ImageData | None, device: torch.device, scratch: Path
    ) -> None:
        self.spec, self.data, self.device, self.scratch = spec, data, device, scratch
        self._threads = torch.get_num_threads()
        self._running: dict[Task, Iterator[Measured | None]] = {}

    def __len__(self) -> int:
        return len(self._running)

    def add(
        self,
        task: Task,
        on_progress: OnProgress = lambda share, what: None,
        prune: Prune = lambda epoch: False,
    ) -> None:
        """Take a task.

        Args:
            task: what to measure.
            on_progress: called as work is done.
            prune: asked after every epoch of the first seed, where the spec has a pruner; if it
                says so, the training ends there.
        """
        self._running[task] = self.perform(task, on_progress, prune)

    def turn(self) -> Iterator[tuple[Task, Measured]]:
        """A turn of each task; those that ended.

        Raises:
            OSError: the disk's trouble is not the architecture's; the trial can go on later.
            DeviceLost: the GPU is of no more use to this process; later tasks would fail too.
        """
        for task, turns in list(self._running.items()):
            try:
                measured = next(turns)
            except OSError:
                raise
            except Exception as error:
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
                if isinstance(error, DeviceLost) or is_lost(self.device):
                    raise DeviceLost(f"{self.device}: {reason}") from error
                measured = Measured(error=reason)
            if measured is not None:
                del self._running[task]
                yield task, measured

    def perform(
        self, task: Task, on_progress: OnProgress, prune: Prune
    ) -> Iterator[Measured | None]:
        """A task, a turn at a time; what it found, last."""
        match task.kind:
            case "training":
                yield from self._train(task, on_progress, prune)
            case "throughput":
                yield self._throughput(task, on_progress)
            case _:
                yield Measured(self._origin(datetime.now(UTC), 0.0))

    def _train(
        self, task: Task, on_progress: OnProgress, prune: Prune
    ) -> Iterator[Measured | None]:
        spec, data = self.spec, self.data
        accuracy = spec.measure.accuracy
        assert accuracy is not None
        assert data is not None
        if self.device.type == "cuda":
            forget_references()  # networks kept ready would take memory that the training needs
        torch.set_num_threads(accuracy.threads)
        recipe = recipe_of(accuracy, task.epochs)
        trained = trained_of(task.architecture, spec, data)
        stem = f"{task.architecture.arch_id}-{self.device.type}-epochs{task.epochs}"
        kept = self.scratch / f"{stem}-seed{task.seed}.json"
        if kept.exists():
            stored = json.loads(kept.read_text())
            if stored["identity"] == identity(recipe, data, task.seed):
                on_progress(1.0, str(task))
                yield Measured(stored["origin"], stored["run"])
                return
        done, of = 0, f" of {task.epochs}" if len(accuracy.budgets) > 1 else ""
        # Who is asked may be another process, which has other things to do.
        prunes = spec.search.pruner is not None and task.seed == 0

        def on_epoch(epoch: Epoch) -> bool:
            nonlocal done
            done += 1
            on_progress(1 / task.epochs, f"{task}{of}, epoch {epoch.epoch}/{task.epochs}")
            return prunes and prune(epoch)

        started_at = datetime.now(UTC)
        unfinished = kept.with_suffix(".safetensors")
        training = lead(trained, data, recipe, task.seed, on_epoch, unfinished)
        while training.turn():
            yield None
        run = asdict(training.run())
        origin = self._origin(started_at, run["duration_s"])
        stored = {"identity": identity(recipe, data, task.seed), "origin": origin, "run": run}
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_json(kept, stored)
        unfinished.unlink(missing_ok=True)
        on_progress(1 - done / task.epochs, str(task))
        yield Measured(origin, run)

    def _throughput(self, task: Task, on_progress: OnProgress) -> Measured:
        asked = self.spec.measure.throughput
        assert asked is not None
        torch.set_num_threads(self._threads)
        architecture, device = task.architecture, str(self.device)
        kept = _Kept(self.scratch / f"{architecture.arch_id}-{self.device.type}-throughput.json")
        started_at, started = datetime.now(UTC), time.perf_counter()
        rows: list[Mapping[str, Any]] = []
        for settings in asked.settings(device, self.spec.input_size):

            def at(batch: int, settings: Settings = settings) -> dict[str, Any]:
                this = replace(settings, batch=batch)
                on_progress(0.0, f"throughput, {this}")
                folder = self.scratch.parent  # the roofline's two numbers serve every trial
                once = partial(measure, architecture, this, asked.seconds, folder)
                return kept.get(str(this), once)

            rows += over_batches(asked.batch, at)
        spent = time.perf_counter() - started + kept.duration_s
        origin = self._origin(started_at, spent)
        own = {name: origin[name] for name in ("device_name", "torch_version", "git_commit")}
        return Measured(origin, throughput=tuple({**row, **own} for row in rows))

    def _origin(self, started_at: datetime, spent: float) -> dict[str, Any]:
        device = str(self.device)
        return {"device": device} | provenance.of_trial(device, started_at, spent)


class _Kept:
    """The measurements of an unfinished trial's throughput, on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, Any] = {}
        self.duration_s = 0.0
        self._since = time.perf_counter()
        if path.exists():
            content = json.loads(path.read_text())
            self.rows, self.duration_s = content["rows"], content["duration_s"]

    def get(self, key: str, measure: Callable[[], Any]) -> dict[str, Any]:
        """The kept measurement `key`, or a new one that is kept from now on."""
        if key not in self.rows:
            self.rows[key] = asdict(measure())
            spent = self.duration_s + time.perf_counter() - self._since
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, {"rows": self.rows, "duration_s": spent})
        return self.rows[key]


def recipe_of(accuracy: AccuracySpec, epochs: int | None = None) -> Recipe:
    """The recipe that a spec asks for, at its largest budget or at `epochs`."""
    return Recipe(
        recipe=accuracy.recipe,
        epochs=epochs or accuracy.budgets[-1],
        batch_size=accuracy.batch_size,
        learning_rate=accuracy.learning_rate,
        label_smoothing=accuracy.label_smoothing,
        augmentation=accuracy.augmentation,
        precision=accuracy.precision,
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
