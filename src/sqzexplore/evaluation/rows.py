"""The columns of a trial, from what its tasks measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special

from .. import provenance
from ..analysis.accuracy import Trainings, accuracy_interval
from ..data.images import ImageData
from ..network.architecture import Architecture
from ..network.columns import columns_of
from ..network.cost import COST_COLUMNS, cost
from ..results.tables import architecture_row
from ..space.constraints import MEASURED
from ..spec.checks import OF_TEST_ALONE
from ..spec.models import Spec
from .smaller import compression_row, int8_row, summarise_smaller
from .tasks import Evaluation, Task
from .workload import trained_of


def origin_of_trainings(origins: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Of a trial: where and when its first task began, all devices, and the time of all."""
    in_order = sorted(origins, key=lambda origin: origin["started_at"])
    devices = provenance.together(each["device_name"] or "unknown" for each in in_order)
    spent = sum(origin["duration_s"] for origin in origins)
    return {**in_order[0], "device_name": devices, "duration_s": round(spent, 3)}


def take_run(evaluation: Evaluation, task: Task, run: Mapping[str, Any]) -> None:
    """The rows of one training."""
    which = {"seed": task.seed, "epochs": task.epochs}
    evaluation.history += [which | epoch for epoch in run["history"]]
    evaluation.images += [
        which | {"split": split, "right": right} for split, right in run["right"].items()
    ]
    names = ("label", "predicted", "images")
    evaluation.confusion += [
        which | dict(zip(names, entry, strict=True)) for entry in run.get("confusion", ())
    ]
    evaluation.compression += [
        which | compression_row(run, entry) for entry in run.get("compression", ())
    ]
    evaluation.int8 += [which | int8_row(run, entry) for entry in run.get("int8", ())]
    rest = {
        k: math.nan if v is None else v  # JSON has no NaN
        for k, v in run.items()
        if k not in ("history", "right", "confusion", "compression", "int8")
    }
    evaluation.seeds.append(rest | which)


def summarise_runs(evaluation: Evaluation, spec: Spec) -> None:
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
    right = {
        image["seed"]: image["right"]
        for image in evaluation.images
        if image["epochs"] == budgets[-1] and image["split"] == "test"
    }
    row |= summarise(largest, [right.get(run["seed"]) for run in largest])
    row |= summarise_smaller(evaluation, largest, right, spec)
    row |= {"epochs": budgets[-1], "still_learning": still_learning(evaluation, budgets)}
    if row["diverged_seeds"]:
        row["state"] = "diverged"
    elif row["dead_seeds"]:
        row["state"] = "dead"


def summarise(runs: list[dict[str, Any]], right: Sequence[str | None]) -> dict[str, Any]:
    """The accuracy columns of a trial from its runs: mean, sd and 95% interval of the mean.

    The interval speaks of other seeds (initial weights, order, dropout) and of other test images
    (`analysis.accuracy_interval`), with one training split of one data set. A diverged run has no
    accuracy and a dead one none worth the name, and then neither has the mean: leaving it out would
    flatter the architecture. With one seed there is no interval.

    Args:
        runs: the trainings of one budget.
        right: which test images each had right, packed.
    """
    top1 = np.array([run["top1"] for run in runs], dtype=float)
    dead = sum(run["dead"] for run in runs)
    row = {
        "seeds": len(runs),
        "diverged_seeds": sum(run["diverged"] for run in runs),
        "dead_seeds": dead,
        "top1": math.nan if dead else float(top1.mean()),
        "top5": math.nan if dead else float(np.mean([run["top5"] for run in runs])),
        "balanced_top1": math.nan if dead else float(np.mean([_balanced(run) for run in runs])),
        "val_top1": math.nan if dead else float(np.mean([run["val_top1"] for run in runs])),
        "top1_sd": math.nan,
        "top1_ci_low": math.nan,
        "top1_ci_high": math.nan,
    }
    if len(runs) > 1 and np.isfinite(top1).all() and not dead:
        row["top1_sd"] = float(top1.std(ddof=1))
        trained = Trainings.of_packed([run["seed"] for run in runs], top1, right)
        row["top1_ci_low"], row["top1_ci_high"] = accuracy_interval(trained)
    return row


def _balanced(run: Mapping[str, Any]) -> float:
    """Missing in what an older version left of an unfinished trial."""
    return float(run.get("balanced_top1", math.nan))


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
    low = gains.mean() - float(special.stdtrit(len(gains) - 1, 0.95)) * error
    return bool(low > LEARNING_POINTS)


def failed(
    architecture: Architecture, spec: Spec, data: ImageData | None, reason: str
) -> Evaluation:
    """A trial of which nothing was measured."""
    row = describe_row(architecture, spec, data)
    return Evaluation(row | {"state": "failed", "error": reason})


def describe_row(architecture: Architecture, spec: Spec, data: ImageData | None) -> dict[str, Any]:
    """What is known of an architecture before anything is measured."""
    row = architecture_row(architecture, spec.input_size)
    if (accuracy := spec.measure.accuracy) and data:
        trained = cost(trained_of(architecture, spec, data), accuracy.image_size)
        row |= {f"train_{name}": value for name, value in trained.totals().items()}
        row |= {
            "train_input_size": accuracy.image_size,
            "data": data.name,
            "data_sha256": data.sha256,
            "recipe": accuracy.recipe,
            "precision": accuracy.precision,
            "proxy": accuracy.proxy_text,
            "epochs": accuracy.budgets[-1],
        }
    return row


def _as_search_knows(row: Mapping[str, Any], name: str) -> Any:
    """A measured column, with the validation split's accuracies in the place of the test's."""
    if name.endswith("_drop"):
        before, after = row.get("val_top1"), row.get(name.replace("_drop", "_val_top1"))
        return None if before is None or after is None else before - after
    return row.get(name if "val_top1" in name else name.replace("top1", "val_top1"))


def violations(
    architecture: Architecture, row: Mapping[str, Any], spec: Spec, of_search: bool = False
) -> dict[str, float]:
    """How far a complete trial is from each constraint on measured columns, by its text.

    Args:
        architecture: the trial's.
        row: its row of `trials`.
        spec: whose constraints they are.
        of_search: as a search may know it: by the validation split's accuracy, not the test's;
            without the constraints on what the test split alone has.

    Returns:
        At most 0 where the constraint is met (`Expression.violation`); nothing of a trial that is
        not complete.
    """
    if row["state"] != "complete":
        return {}
    values = {name: column[0] for name, column in columns_of([architecture]).items()}
    values |= {name: row[name] for name in COST_COLUMNS}
    for name in MEASURED:
        value = _as_search_knows(row, name) if of_search else row.get(name)
        values[name] = math.nan if value is None else float(value)
    known = [
        constraint
        for constraint in spec.result_constraints
        if not (of_search and {*OF_TEST_ALONE}.intersection(constraint.measured))
    ]
    return {constraint.text: constraint.violation(values) for constraint in known}


#: What the row of `trials` shows of a measurement.
_OF_TRIAL = (
    *("device", "batch", "dtype", "memory_format", "form", "mode", "runtime"),
    *("outcome", "images_per_s"),
    *("latency_ms_p50", "latency_ms_p99", "latency_ms_sd", "repetitions"),
    *("relative_to_reference", "roofline_share", "bound", "threads"),
    "caching_allocator",
)


def of_trial(rows: list[dict[str, Any]], spec: Spec) -> dict[str, Any]:
    """The throughput columns of a trial: of its first settings, the largest batch.

    The same settings in every trial: what has no value there (out of memory) has none, rather
    than that of another batch. `auto` has the largest batch that was measured.
    """
    assert spec.measure.throughput is not None
    first = ("dtype", "memory_format", "form", "mode", "runtime")
    same = [row for row in rows if all(row[name] == rows[0][name] for name in first)]
    same = [row for row in same if row["input_size"] == spec.input_size]
    if spec.measure.throughput.batch == "auto":
        same = [row for row in same if row["outcome"] == "measured"] or same
    row = max(same, key=lambda row: row["batch"])
    shown = {name: row[name] for name in _OF_TRIAL}
    shown["throughput_device_name"] = row["device_name"]
    if row["outcome"] != "measured" and spec.speed_decides:
        shown |= {"state": "failed", "error": f"throughput: {row['outcome']}: {row['reason']}"}
    return shown
