"""The sweep file: YAML in, a checked `Spec` out, and errors that point at the key."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
)

from . import yamltext
from .architecture import FIELDS, Architecture
from .augment import Augmentation
from .cost import COST_COLUMNS
from .data import check_data_name
from .errors import UserError, nearest, shown
from .expressions import MEASURED, Expression
from .prepare import Dtype, Form, MemoryFormat, Mode, Settings
from .recipe import Precision, RecipeName
from .space import Space, Variant
from .spec_problems import from_pydantic
from .spec_space import axis_of, base_of, check_conditions, check_field, check_shapes, field_value
from .throughput import MAX_BATCH
from .yamltext import KeyPath, Problem

#: Columns that a search can aim at, and what each needs to be measured.
OBJECTIVES = {
    "top1": "accuracy",
    **dict.fromkeys(COST_COLUMNS, "cost"),
    "images_per_s": "throughput",
    "latency_ms_p50": "throughput",
}


_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
_MOST_SECONDS = 366 * 86400.0


def _seconds(value: Any) -> float:
    """A duration in seconds, from a number of them or text such as `1h30min`.

    Raises:
        ValueError: it is no duration, or not above 0 and at most a year.
    """
    seconds = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and re.fullmatch(r"(\s*\d+(\.\d+)?\s*(s|min|h|d))+\s*", value):
        parts = re.findall(r"(\d+(?:\.\d+)?)\s*(s|min|h|d)", value)
        seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not 0 < seconds <= _MOST_SECONDS:
        raise ValueError("expected seconds, or text such as 45s, 90min, 2h or 1d, at most a year")
    return seconds


Duration = Annotated[float, BeforeValidator(_seconds)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Search(_Model):
    """How architectures are chosen."""

    sampler: Literal["grid", "random", "qmc", "tpe", "nsga2", "nsga3", "gp"] = Field(
        "grid", description="grid: every feasible architecture; the others are Optuna's samplers"
    )
    trials: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        None, description="architectures to evaluate (every sampler but grid)"
    )
    timeout: Duration | None = Field(
        None,
        description="most time the search takes, with trials or instead of them: seconds, or text "
        "such as 2h or 90min; running trials are finished",
    )
    retries: int = Field(
        2, ge=0, description="how often a trial whose process died is given to another"
    )
    trial_timeout: Duration | None = Field(
        None,
        description="most time a training or a measurement of a trial may take, as timeout is "
        "written; its process is then ended, and it is retried as after any death",
    )
    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of the sampler")
    objectives: dict[str, Literal["minimize", "maximize"]] = Field(
        default_factory=dict, description="columns that the study optimises, with directions"
    )
    pruner: Literal["halving", "hyperband"] | None = Field(
        None,
        description="ends trainings that fall behind after a few epochs (Optuna's successive "
        "halving or Hyperband, factor 3); for the one objective top1",
    )


class ThroughputSpec(_Model):
    """How throughput is measured: every combination of the values."""

    batch: list[Annotated[int, Field(ge=1, le=MAX_BATCH)]] | Literal["auto"] = Field(
        default=[1, 64],
        min_length=1,
        description="images in one forward pass; auto: doubled until throughput is flat",
    )
    dtype: list[Dtype] = Field(
        default=["float32"], min_length=1, description="type of weights and images"
    )
    memory_format: list[MemoryFormat] = Field(
        default=["channels_last"], min_length=1, description="order of the elements in memory"
    )
    form: list[Form] = Field(
        default=["module"], min_length=1, description="the module, or its fast inference form"
    )
    mode: list[Mode] = Field(
        default=["eager"], min_length=1, description="how torch runs it; the graphs need a GPU"
    )
    input_size: list[Annotated[int, Field(ge=1, le=65536)]] | None = Field(
        None, min_length=1, description="sides of the images, pixels [default: the spec's]"
    )
    seconds: float = Field(
        1.0, gt=0, le=600, description="most time spent on the rounds of one measurement, s"
    )

    @field_validator("batch", "dtype", "memory_format", "form", "mode", "input_size")
    @classmethod
    def _each_once(cls, value: Any) -> Any:
        for given in value if isinstance(value, list) else ():
            if value.count(given) > 1:
                raise ValueError(f"expected each value once, {shown(given)} stands twice")
        return value

    @field_validator("batch", mode="before")
    @classmethod
    def _auto_is_the_only_word(cls, value: Any) -> Any:
        if isinstance(value, str) and value != "auto":
            raise ValueError("expected auto, or a list such as [1, 64]")
        return value

    def settings(self, device: str, input_size: int) -> list[Settings]:
        """Every combination, at batch 1; `over_batches` goes over the batches of each."""
        axes = (self.dtype, self.memory_format, self.form, self.mode)
        return [
            Settings(device, 1, dtype, size, memory_format, form, mode)
            for size in self.input_size or [input_size]
            for dtype, memory_format, form, mode in itertools.product(*axes)
        ]


Epochs = Annotated[int, Field(ge=1, le=10_000)]


class AccuracySpec(_Model):
    """How accuracy is measured."""

    data: str = Field(
        "digits",
        description="digits; fashion; a folder of images, where ${NAME} is an environment "
        "variable; or the owner/name of a Hugging Face data set",
    )
    image_size: int = Field(32, ge=8, le=1024, description="side of the training images, pixels")
    epochs: Epochs | list[Epochs] = Field(
        20,
        description="passes over the training split; a list such as [6, 18, 54] is a training "
        "for each, and the largest makes the row of trials",
    )
    seeds: int = Field(3, ge=1, le=1000, description="runs of each architecture, seeds 0, 1, ...")
    batch_size: int = Field(64, ge=1, le=65536, description="images a training step")
    recipe: RecipeName = Field("default", description="how: default, or paper (its ImageNet one)")
    learning_rate: float | None = Field(
        None, gt=0, le=100, description="peak of the schedule; left out, the recipe's"
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="probability given to all classes alike"
    )
    augmentation: Augmentation | None = Field(
        None,
        description="left out, shift for digits and IDX files, shift_flip for fashion and "
        "photographs",
    )
    precision: Precision = Field("float32", description="of the convolutions in training")
    threads: int = Field(
        1, ge=1, le=1024, description="CPU threads of a training; more than 1 for large images"
    )
    proxy: dict[str, Any] = Field(
        default_factory=dict,
        description="architecture fields replaced in the trained network, to make it cheaper",
    )

    @field_validator("epochs", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | list) or value == []:
            raise ValueError("expected a number of epochs, or a list such as [6, 18, 54]")
        if isinstance(value, list) and len({*map(repr, value)}) < len(value):
            raise ValueError("expected each number of epochs once")
        return value

    @property
    def budgets(self) -> tuple[int, ...]:
        """The numbers of epochs, the smallest first."""
        return tuple(sorted(self.epochs)) if isinstance(self.epochs, list) else (self.epochs,)


class Measure(_Model):
    """What is measured of each architecture; its cost always is."""

    throughput: ThroughputSpec | None = None
    accuracy: AccuracySpec | None = None


class FigureSpec(_Model):
    """One scatter of two columns."""

    x: str = Field(description="column of the horizontal axis")
    y: str = Field(description="column of the vertical axis")
    label: str | None = Field(None, description="column written beside each point")
    reference: Literal["figure 3a", "figure 3b", "table 2", "table 3"] | None = Field(
        None, description="published points of the paper, drawn in a panel of their own"
    )


class Spec(_Model):
    """A sweep file, checked. `Spec.load` reads one."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$", description="the sweep's name")
    question: str = Field("", description="what the sweep asks, shown with its figures")
    base: str | dict[str, Any] = Field(
        "squeezenet1_0", description="a preset, or a mapping of architecture fields"
    )
    space: dict[str, Any] = Field(description="an axis for each field that varies")
    constraints: list[str] = Field(
        default_factory=list,
        description="conditions; over fields and cost columns: nothing else is evaluated; over "
        "measured columns too: the search prefers what meets them, and rows say whether they do",
    )
    input_size: int = Field(
        224, ge=1, le=65536, description="side of the deployment input, pixels: costs, throughput"
    )
    search: Search = Field(default_factory=Search)
    measure: Measure = Field(default_factory=Measure)
    figures: list[FigureSpec] | None = None

    _space: Space = PrivateAttr()
    _source: str = PrivateAttr("")

    @classmethod
    def load(cls, path: str | Path) -> Spec:
        """The spec in a YAML file.

        Raises:
            UserError: the file cannot be read, or is no valid spec; one message names the file,
                the line, the key's path, what was found and what was expected.
        """
        path = Path(path)
        text = yamltext.read(path)
        try:
            return cls.parse(text)
        except Problem as problem:
            raise problem.at(path, text) from None

    @classmethod
    def parse(cls, text: str) -> Spec:
        """The spec in YAML text; raises `UserError`, without the file's name."""
        data = yamltext.load(text)
        if not isinstance(data, dict):
            raise Problem((), f"found {shown(data)}, expected a mapping of keys to values")
        try:
            spec = cls.model_validate(data)
        except ValidationError as error:
            raise from_pydantic(error, cls, data) from None
        spec._source = text
        spec._space = _space(spec)
        _check_search(spec)
        _check_figures(spec)
        return spec

    @property
    def design_space(self) -> Space:
        """The architectures that the spec speaks of."""
        return self._space

    @property
    def result_constraints(self) -> tuple[Expression, ...]:
        """The constraints that speak of measured columns."""
        asked = (Expression(text, of_results=True) for text in self.constraints)
        return tuple(constraint for constraint in asked if constraint.measured)

    @property
    def source(self) -> str:
        """The YAML text as it was written."""
        return self._source

    @property
    def objectives(self) -> dict[str, Literal["minimize", "maximize"]]:
        """The study's objectives: the spec's, or accuracy (else speed, else MACs) and params."""
        if self.search.objectives:
            return dict(self.search.objectives)
        if self.measure.accuracy:
            return {"top1": "maximize", "params": "minimize"}
        if self.measure.throughput:
            return {"images_per_s": "maximize", "params": "minimize"}
        return {"macs": "minimize", "params": "minimize"}

    @property
    def speed_decides(self) -> bool:
        """Whether a trial's outcome depends on how fast its architecture is."""
        needed = {*self.objectives, *(n for c in self.result_constraints for n in c.measured)}
        return any(MEASURED.get(name) == "throughput" for name in needed)

    def trained(self, architecture: Architecture, channels: int, classes: int) -> Architecture:
        """What is trained to measure the accuracy of `architecture`: the proxy, on such images."""
        if self.measure.accuracy is None:
            raise ValueError(f"{self.name} measures no accuracy")
        changes = self.measure.accuracy.proxy
        return architecture.replace(**changes, in_channels=channels, num_classes=classes)

    def recipe(self) -> dict[str, Any]:
        """Everything that decides what is evaluated, and how; not how it is shown, nor for how
        long it may take."""
        exclude: Any = {
            "question": True,
            "figures": True,
            "search": {"timeout", "retries", "trial_timeout"},
        }
        return self.model_dump(mode="json", exclude=exclude)


# --- checking ----------------------------------------------------------------------------------


def _space(spec: Spec) -> Space:
    base = base_of(spec.base)
    if not spec.space:
        raise Problem(("space",), "found no axis, expected at least one")
    for name in spec.space:
        check_field(name, ("space", name))
    axes = tuple(axis_of(name, value, ("space", name)) for name, value in spec.space.items())
    constraints = []
    for number, text in enumerate(spec.constraints):
        try:
            constraint = Expression(text, of_results=True)
        except UserError as error:
            raise Problem(("constraints", number), str(error)) from None
        for name in constraint.measured:
            if getattr(spec.measure, MEASURED[name]) is None:
                raise Problem(
                    ("constraints", number),
                    f"found {name}, expected measure.{MEASURED[name]}, which is not asked for",
                )
        constraints.append(constraint)
    variants = [Variant(spec.input_size)]
    if spec.measure.throughput and (sizes := spec.measure.throughput.input_size):
        if spec.input_size not in sizes:
            raise Problem(
                ("measure", "throughput", "input_size"),
                f"found {shown(sizes)}, expected the spec's input_size, {spec.input_size}, "
                "among them: it is what the table of trials shows",
            )
        variants += [Variant(size) for size in sizes if size != spec.input_size]
    if spec.measure.accuracy:
        variants.append(_training_variant(spec.measure.accuracy))
    hard = tuple(constraint for constraint in constraints if not constraint.measured)
    space = Space(base, axes, hard, tuple(variants))
    check_conditions(space)
    check_shapes(space)
    return space


def _training_variant(accuracy: AccuracySpec) -> Variant:
    path: KeyPath = ("measure", "accuracy")
    try:
        check_data_name(accuracy.data)
    except UserError as error:
        raise Problem((*path, "data"), str(error)) from None
    proxy = {
        name: _proxy_value(name, value, (*path, "proxy", name))
        for name, value in accuracy.proxy.items()
    }
    return Variant(accuracy.image_size, proxy)


def _proxy_value(name: str, value: Any, path: KeyPath) -> Any:
    check_field(name, path)
    if name in ("in_channels", "num_classes"):
        raise Problem(path, "expected no such key: the data set decides it")
    return field_value(name, value, path)


def _check_search(spec: Spec) -> None:
    search, space = spec.search, spec.design_space
    if search.sampler == "grid":
        if search.trials is not None:
            raise Problem(
                ("search", "trials"),
                f"found {search.trials}, expected no such key: a grid has as many trials as "
                "architectures",
            )
        for axis in space.axes:
            if axis.continuous:
                raise Problem(
                    ("space", axis.field),
                    "found a continuous axis, expected a list or a step for the sampler grid",
                )
    elif search.trials is None and search.timeout is None:
        raise Problem(
            ("search", "trials"),
            f"expected a number of trials, or search.timeout, for the sampler {search.sampler}",
        )
    if search.pruner and list(spec.objectives) != ["top1"]:
        raise Problem(
            ("search", "pruner"),
            f"found {search.pruner} with the objectives {', '.join(spec.objectives)}, expected "
            "objectives: {top1: maximize} alone: only accuracy is known before a training ends",
        )
    if search.pruner and spec.measure.accuracy and len(spec.measure.accuracy.budgets) > 1:
        raise Problem(
            ("search", "pruner"),
            f"found {search.pruner} with several budgets, expected one number of "
            "measure.accuracy.epochs: a pruner compares trainings epoch by epoch",
        )
    for name in search.objectives:
        if name not in OBJECTIVES:
            raise Problem(
                ("search", "objectives", name),
                f"unknown objective, expected one of {', '.join(OBJECTIVES)}"
                f"{nearest(name, OBJECTIVES)}",
            )
        need = OBJECTIVES[name]
        if need != "cost" and getattr(spec.measure, need) is None:
            raise Problem(
                ("search", "objectives", name), f"expected measure.{need}, which is not asked for"
            )


def _check_figures(spec: Spec) -> None:
    valid = figure_columns(spec)
    for number, figure in enumerate(spec.figures or ()):
        for key in ("x", "y", "label"):
            name = getattr(figure, key)
            known = [*valid, *FIELDS] if key == "label" else valid
            if name is not None and name not in known:
                raise Problem(
                    ("figures", number, key),
                    f"found {shown(name)}, expected a measured column: {', '.join(valid)}"
                    f"{nearest(name, known)}",
                )


def figure_columns(spec: Spec) -> list[str]:
    """The numeric columns that a sweep of this spec fills."""
    columns = [*COST_COLUMNS]
    if spec.measure.accuracy:
        columns += ["top1", *(f"train_{name}" for name in columns)]
    if spec.measure.throughput:
        columns += ["images_per_s", "latency_ms_p50", "latency_ms_p99"]
    columns += [name for name, kind in FIELDS.items() if kind in (int, float)]
    return columns
