"""A trial as tasks: its trainings and its measurements, each done by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..compress.settings import Compression, Int8
from ..network.architecture import Architecture
from ..spec.models import Spec
from ..train.loop import Epoch

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
    confusion: list[dict[str, Any]] = field(default_factory=list)
    compression: list[dict[str, Any]] = field(default_factory=list)
    int8: list[dict[str, Any]] = field(default_factory=list)
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
    whole = accuracy.seeds * (sum(accuracy.budgets) + sum(c.epochs for c in spec.compressions))
    return epochs_of(task, spec) / whole


def epochs_of(task: Task, spec: Spec) -> int:
    """Passes over the training split of a training, those of its compressions included."""
    return task.epochs + sum(setting.epochs for setting in compressions_of(task, spec))


def compressions_of(task: Task, spec: Spec) -> tuple[Compression, ...]:
    """How the network of a training is compressed: at the largest budget alone."""
    return spec.compressions if _is_last(task, spec) else ()


def quantisations_of(task: Task, spec: Spec) -> tuple[Int8, ...]:
    """How the network of a training is quantised: at the largest budget alone."""
    return spec.quantisations if _is_last(task, spec) else ()


def _is_last(task: Task, spec: Spec) -> bool:
    accuracy = spec.measure.accuracy
    assert accuracy is not None
    return task.epochs == accuracy.budgets[-1]
