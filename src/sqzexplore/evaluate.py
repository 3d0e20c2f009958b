"""One architecture of a spec, evaluated: cost, then throughput, then accuracy over the seeds.

What is measured is kept in a file of its own until the trial is told to the study, and a training
keeps its state after every epoch, so that an interrupted trial goes on from there.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

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
from .prepare import Settings
from .recipe import Recipe
from .spec import AccuracySpec, Spec
from .throughput import Throughput, measure, over_batches
from .training import Epoch, Run, train

#: Called with the share of a trial's work that is newly done, and what was done.
OnProgress = Callable[[float, str], None]
#: Called with an epoch of the first seed's training; whether the trial is not worth going on.
Prune = Callable[[Epoch], bool]


@dataclass
class Evaluation:
    """What a trial measured: its row of `trials`, and its rows of the long tables."""

    row: dict[str, Any]
    seeds: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    throughput: list[dict[str, Any]] = field(default_factory=list)


def evaluate(
    architecture: Architecture,
    spec: Spec,
    data: ImageData | None,
    device: torch.device,
    scratch: Path,
    on_progress: OnProgress = lambda share, what: None,
    prune: Prune = lambda epoch: False,
) -> Evaluation:
    """Measure everything that `spec` asks of `architecture`.

    Args:
        architecture: a feasible architecture of the spec's space.
        spec: what to measure, and how.
        data: the images on `device`, where the spec measures accuracy.
        device: where to measure it.
        scratch: folder for what is measured before the trial ends.
        on_progress: called as work is done.
        prune: asked after every epoch of the first seed, where the spec has a pruner; if it says
            so, the trial ends there as `pruned`, with the validation accuracy so far and no test
            accuracy.
    """
    kept = _Kept(scratch / f"{architecture.arch_id}-{device.type}.json")
    started_at, started = datetime.now(UTC), time.perf_counter()
    evaluation = Evaluation(describe_row(architecture, spec, data) | {"state": "complete"})
    if spec.measure.throughput:
        evaluation.throughput = _throughput(architecture, spec, device, kept, on_progress)
        evaluation.row |= _of_trial(evaluation.throughput, spec)
    if spec.measure.accuracy:
        assert data is not None
        _accuracy(architecture, spec, data, kept, evaluation, on_progress, prune)
    if distances := violations(architecture, evaluation.row, spec):
        evaluation.row["feasible"] = max(distances.values()) <= 0
    evaluation.row |= {"device": str(device)}
    spent = time.perf_counter() - started + kept.content["duration_s"]
    evaluation.row |= provenance.of_trial(str(device), started_at, spent)
    return evaluation


def attempt(
    architecture: Architecture,
    spec: Spec,
    data: ImageData | None,
    device: torch.device,
    scratch: Path,
    on_progress: OnProgress,
    prune: Prune,
) -> Evaluation:
    """`evaluate`, or what failed.

    Raises:
        OSError: the disk's trouble is not the architecture's; the trial can go on later.
    """
    try:
        return evaluate(architecture, spec, data, device, scratch, on_progress, prune)
    except OSError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
        return failed(architecture, spec, data, reason)


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
        trained = cost(_trained(architecture, spec, data), accuracy.image_size)
        row |= {f"train_{name}": value for name, value in trained.totals().items()}
        row |= {
            "train_input_size": accuracy.image_size,
            "data": data.name,
            "data_sha256": data.sha256,
            "recipe": accuracy.recipe,
            "precision": accuracy.precision,
            "epochs": accuracy.epochs,
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
    return cost(_trained(architecture, spec, data), spec.measure.accuracy.image_size).macs


def work_units(architecture: Architecture, spec: Spec, data: ImageData | None) -> float:
    """How long a trial takes, in units that only compare trials of one sweep."""
    units = 0.0
    if (accuracy := spec.measure.accuracy) and data:
        macs = training_macs(architecture, spec, data)
        # A step has an overhead that small networks feel, about that of 2 million MACs an image.
        units += accuracy.seeds * accuracy.epochs * (macs + 2e6)
    return units or 1.0


def _trained(architecture: Architecture, spec: Spec, data: ImageData | Source) -> Architecture:
    return spec.trained(architecture, data.channels, len(data.classes))


class _Kept:
    """The measurements of an unfinished trial, on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content: dict[str, Any] = {"seeds": {}, "throughput": {}, "duration_s": 0.0}
        self._since = time.perf_counter()
        if path.exists():
            self.content = json.loads(path.read_text())

    def get(self, kind: str, key: str, measure: Callable[[], Run | Throughput]) -> dict[str, Any]:
        """The kept measurement `key`, or a new one that is kept from now on."""
        if key not in self.content[kind]:
            self.content[kind][key] = asdict(measure())
            spent = self.content["duration_s"] + time.perf_counter() - self._since
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, self.content | {"duration_s": spent})
        return self.content[kind][key]


def _throughput(
    architecture: Architecture,
    spec: Spec,
    device: torch.device,
    kept: _Kept,
    on_progress: OnProgress,
) -> list[dict[str, Any]]:
    asked = spec.measure.throughput
    assert asked is not None
    rows: list[dict[str, Any]] = []
    for settings in asked.settings(str(device), spec.input_size):

        def at(batch: int, settings: Settings = settings) -> dict[str, Any]:
            this = replace(settings, batch=batch)
            on_progress(0.0, f"throughput, {this}")
            folder = kept.path.parent.parent  # the roofline's two numbers serve every trial
            return kept.get(
                "throughput",
                str(this),
                partial(measure, architecture, this, asked.seconds, folder),
            )

        rows += over_batches(asked.batch, at)
    origin = {
        "device_name": provenance.device_name(str(device)),
        "torch_version": torch.__version__,
    }
    return [row | origin for row in rows]


#: What the row of `trials` shows of a measurement.
_OF_TRIAL = (
    *("batch", "dtype", "memory_format", "form", "mode", "outcome", "images_per_s"),
    *("latency_ms_p50", "latency_ms_p99", "latency_ms_sd", "repetitions"),
    *("relative_to_reference", "roofline_share", "bound"),
)


def _of_trial(rows: list[dict[str, Any]], spec: Spec) -> dict[str, Any]:
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
    needed = {*spec.objectives, *(name for c in spec.result_constraints for name in c.measured)}
    speeds = {name for name in needed if MEASURED.get(name) == "throughput"}
    if row["outcome"] != "measured" and speeds:
        shown |= {"state": "failed", "error": f"throughput: {row['outcome']}: {row['reason']}"}
    return shown


def _accuracy(
    architecture: Architecture,
    spec: Spec,
    data: ImageData,
    kept: _Kept,
    evaluation: Evaluation,
    on_progress: OnProgress,
    prune: Prune,
) -> None:
    accuracy = spec.measure.accuracy
    assert accuracy is not None
    recipe = recipe_of(accuracy)
    trained = _trained(architecture, spec, data)
    share = 1.0 / (accuracy.seeds * accuracy.epochs)
    # Who is asked may be another process, which has other things to do.
    prunes = spec.search.pruner is not None
    for seed in range(accuracy.seeds):
        done = 0

        def on_epoch(epoch: Epoch, seed: int = seed) -> bool:
            nonlocal done
            done += 1
            on_progress(share, f"seed {seed}, epoch {epoch.epoch}/{accuracy.epochs}")
            return prunes and seed == 0 and prune(epoch)

        unfinished = kept.path.with_name(f"{kept.path.stem}-seed{seed}.safetensors")
        once = partial(train, trained, data, recipe, seed, on_epoch, unfinished)
        run = kept.get("seeds", str(seed), once)
        unfinished.unlink(missing_ok=True)
        on_progress(share * (accuracy.epochs - done), f"seed {seed}")
        history = [dict(epoch, seed=seed) for epoch in run["history"]]
        evaluation.history += history
        if run.get("stopped"):  # what an older version kept has no such key
            last = run["history"][-1]
            evaluation.row |= {"state": "pruned", "val_top1": last["val_top1"], "seeds": 0}
            evaluation.row |= {"epochs": last["epoch"]}
            return
        evaluation.seeds.append({k: v for k, v in run.items() if k not in ("history", "stopped")})
    evaluation.row |= summarise(evaluation.seeds)
    if evaluation.row["diverged_seeds"]:
        evaluation.row["state"] = "diverged"


def summarise(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """The accuracy columns of a trial from its runs: mean, sd and 95% t-interval of the mean.

    The interval speaks of the randomness of training alone (initial weights, order, dropout), on
    one split of one data set. A diverged run has no accuracy, and then neither has the mean:
    leaving it out would flatter the architecture. With one seed there is no interval.
    """
    top1 = np.array([run["top1"] for run in seeds], dtype=float)
    row = {
        "seeds": len(seeds),
        "diverged_seeds": sum(run["diverged"] for run in seeds),
        "top1": float(top1.mean()),
        "top5": float(np.mean([run["top5"] for run in seeds])),
        "val_top1": float(np.mean([run["val_top1"] for run in seeds])),
        "top1_sd": math.nan,
        "top1_ci_low": math.nan,
        "top1_ci_high": math.nan,
    }
    if len(seeds) > 1 and np.isfinite(top1).all():
        row["top1_sd"] = float(top1.std(ddof=1))
        half = float(stats.t.ppf(0.975, len(seeds) - 1)) * row["top1_sd"] / math.sqrt(len(seeds))
        row["top1_ci_low"] = max(0.0, row["top1"] - half)
        row["top1_ci_high"] = min(100.0, row["top1"] + half)
    return row


def recipe_of(accuracy: AccuracySpec) -> Recipe:
    """The recipe that a spec asks for."""
    return Recipe(
        recipe=accuracy.recipe,
        epochs=accuracy.epochs,
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
