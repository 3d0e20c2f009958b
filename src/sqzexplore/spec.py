"""The sweep file: YAML in, a checked `Spec` out, and errors that point at the key."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator

from . import yamltext
from .architecture import FIELDS, MAX_FIRES, PRESETS, Architecture
from .augment import Augmentation
from .data import check_data_name
from .errors import CostOverflow, UserError, field_problem, nearest, shown
from .expressions import Expression
from .prepare import Dtype, Form, MemoryFormat, Mode, Settings
from .recipe import Precision, RecipeName
from .space import Axis, Space, Variant
from .throughput import MAX_BATCH
from .yamltext import KeyPath, Problem

#: More values than this on one axis is a slip of the pen.
MAX_AXIS_VALUES = 100_000
#: Combinations that are searched for one that meets the constraints: a few seconds.
_MOST_CHECKED = 10_000_000

#: Columns that a search can aim at, and what each needs to be measured.
OBJECTIVES = {
    "top1": "accuracy",
    "params": "cost",
    "macs": "cost",
    "flops": "cost",
    "size_mb": "cost",
    "activations": "cost",
    "peak_activation_bytes": "cost",
    "images_per_s": "throughput",
    "latency_ms_p50": "throughput",
}


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
    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of the sampler")
    objectives: dict[str, Literal["minimize", "maximize"]] = Field(
        default_factory=dict, description="columns that the study optimises, with directions"
    )
    pruner: Literal["halving", "hyperband"] | None = Field(
        None,
        description="ends trainings that fall behind after a few epochs (Optuna's successive "
        "halving or Hyperband, factor 3); for the one objective top1",
    )


class Throughput(_Model):
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
        default=["eager"], min_length=1, description="how torch runs it; cuda_graph needs a GPU"
    )
    input_size: list[Annotated[int, Field(ge=1, le=65536)]] | None = Field(
        None, min_length=1, description="sides of the images, pixels [default: the spec's]"
    )
    seconds: float = Field(
        1.0, gt=0, le=600, description="most time spent on the rounds of one measurement, s"
    )

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


class Accuracy(_Model):
    """How accuracy is measured."""

    data: str = Field(
        "digits",
        description="digits; a folder of images, where ${NAME} is an environment variable; "
        "or the owner/name of a Hugging Face data set",
    )
    image_size: int = Field(32, ge=8, le=1024, description="side of the training images, pixels")
    epochs: int = Field(20, ge=1, le=10_000, description="passes over the training split")
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
        None, description="left out, shift for digits and shift_flip for photographs"
    )
    precision: Precision = Field("float32", description="of the convolutions in training")
    proxy: dict[str, Any] = Field(
        default_factory=dict,
        description="architecture fields replaced in the trained network, to make it cheaper",
    )


class Measure(_Model):
    """What is measured of each architecture; its cost always is."""

    throughput: Throughput | None = None
    accuracy: Accuracy | None = None


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
        default_factory=list, description="conditions over fields and cost columns"
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
            raise _from_pydantic(error, cls, data) from None
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

    def trained(self, architecture: Architecture, channels: int, classes: int) -> Architecture:
        """What is trained to measure the accuracy of `architecture`: the proxy, on such images."""
        if self.measure.accuracy is None:
            raise ValueError(f"{self.name} measures no accuracy")
        changes = self.measure.accuracy.proxy
        return architecture.replace(**changes, in_channels=channels, num_classes=classes)

    def recipe(self) -> dict[str, Any]:
        """Everything that decides what is evaluated, and how; not how it is shown."""
        return self.model_dump(mode="json", exclude={"question", "figures"})


# --- checking ----------------------------------------------------------------------------------


def _from_pydantic(
    error: ValidationError, model: type[BaseModel], data: Any, at: KeyPath = ()
) -> Problem:
    """The first of pydantic's errors, in our words; unknown keys first, they explain the rest."""
    errors = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    first = errors[0]
    steps = tuple(step for step in first["loc"] if _in_data(step, first["loc"], data))
    path = (*at, *steps)
    if first["type"] == "extra_forbidden":
        valid = _keys_at(model, steps[:-1])
        return Problem(
            path, f"unknown key, expected one of {', '.join(valid)}{nearest(steps[-1], valid)}"
        )
    if first["type"] == "missing":
        return Problem((*at, *first["loc"]), field_problem(first))
    if first["type"] == "string_pattern_mismatch":
        expected = "expected letters, digits, '_', '-' and '.', at most 64, a letter or digit first"
        return Problem(path, f"found {shown(first['input'])}, {expected}")
    if not first["loc"]:  # fields that do not fit together; the message names them
        return Problem(path, field_problem(first))
    if steps == ("base",) and first["type"] == "string_type":
        return Problem(path, f"found {shown(data['base'])}, expected a preset or a mapping")
    return Problem(path, _found(first["input"], field_problem(first)))


def _found(value: Any, expected: str) -> str:
    hint = ""
    if isinstance(value, str):
        try:
            float(value)
            hint = " (YAML 1.1 reads this as text; write it without quotes, with a point: 1.0e+6)"
        except ValueError:
            pass
    return f"found {shown(value)}, {expected}{hint}"


def _in_data(step: str | int, loc: tuple[str | int, ...], data: Any) -> bool:
    """Pydantic's locations also name the member of a union; those are no keys of the file."""
    for part in loc:
        inside = (isinstance(data, Mapping) and part in data) or (
            isinstance(data, Sequence)
            and not isinstance(data, str)
            and isinstance(part, int)
            and part < len(data)
        )
        if part == step:
            return inside
        if inside:
            data = data[part]
    return False


def _keys_at(model: type[BaseModel], path: KeyPath) -> list[str]:
    for step in path:
        field = model.model_fields.get(str(step))
        if field is not None:
            inner = [a for a in _flatten(field.annotation) if isinstance(a, type)]
            models = [a for a in inner if issubclass(a, BaseModel)]
            model = models[0] if models else model
    return list(model.model_fields)


def _flatten(annotation: Any) -> list[Any]:
    inner = getattr(annotation, "__args__", ())
    return [annotation] + [leaf for a in inner for leaf in _flatten(a)]


def _space(spec: Spec) -> Space:
    base = _base(spec.base)
    if not spec.space:
        raise Problem(("space",), "found no axis, expected at least one")
    for name in spec.space:
        _check_field(name, ("space", name))
    axes = tuple(_axis(name, value, ("space", name)) for name, value in spec.space.items())
    constraints = []
    for number, text in enumerate(spec.constraints):
        try:
            constraints.append(Expression(text))
        except UserError as error:
            raise Problem(("constraints", number), str(error)) from None
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
    space = Space(base, axes, tuple(constraints), tuple(variants))
    _check_shapes(spec, space)
    return space


def _check_field(name: Any, path: KeyPath) -> None:
    if name not in FIELDS:
        raise Problem(path, f"unknown key, expected a field of Architecture{nearest(name, FIELDS)}")


def _base(value: str | dict[str, Any]) -> Architecture:
    """The base Architecture: a preset, or fields of which the others are at their defaults."""
    if isinstance(value, str):
        if value not in PRESETS:
            raise Problem(
                ("base",),
                f"found {shown(value)}, expected {', '.join(PRESETS)} or a mapping of "
                f"architecture fields{nearest(value, PRESETS)}",
            )
        return PRESETS[value]
    return _architecture(Architecture(), value, ("base",))


def _architecture(base: Architecture, changes: Mapping[str, Any], path: KeyPath) -> Architecture:
    for name in changes:
        _check_field(name, (*path, name))
    try:
        return base.replace(**changes)
    except ValidationError as error:
        raise _from_pydantic(error, Architecture, changes, path) from None


def _axis(name: str, value: Any, path: KeyPath) -> Axis:
    if isinstance(value, list):
        if not value:
            raise Problem(path, "found an empty list, expected at least one value")
        values = [_field_value(name, v, (*path, i)) for i, v in enumerate(value)]
        seen: set[Any] = set()
        for i, v in enumerate(values):
            if v in seen:
                raise Problem((*path, i), f"found {shown(value[i])} twice, expected it once")
            seen.add(v)
        return Axis(name, tuple(values))
    if isinstance(value, dict) and "subsets_of" in value:
        return _subsets(name, value, path)
    if isinstance(value, dict) and ("min" in value or "max" in value):
        return _range(name, value, path)
    raise Problem(
        path,
        _found(
            value,
            "expected a list of values, {min, max, step}, {min, max, log: true} "
            "or {subsets_of: [...], size: N}",
        ),
    )


def _field_value(name: str, value: Any, path: KeyPath) -> Any:
    """`value` as the field holds it. What depends on other fields is checked later."""
    roomy = {"fires": MAX_FIRES, "pool_after": ()}  # every pool position is valid here
    try:
        return getattr(Architecture(**{**roomy, name: value}), name)
    except ValidationError as error:
        first = error.errors()[0]
        inner = tuple(step for step in first["loc"][1:] if isinstance(step, int))
        found = first["input"] if first["loc"] else value
        raise Problem((*path, *inner), _found(found, field_problem(first))) from None


def _range(name: str, value: dict[str, Any], path: KeyPath) -> Axis:
    kind = FIELDS[name]
    if kind not in (int, float):
        raise Problem(path, f"found a range, expected a list: {name} is no number")
    _only_keys(value, ("min", "max", "step", "log"), path)
    for key in ("min", "max"):
        if key not in value:
            raise Problem((*path, key), "expected a value, the key is missing")
    low, high = (_field_value(name, value[key], (*path, key)) for key in ("min", "max"))
    if low > high:
        raise Problem(path, f"found min {low} above max {high}, expected min <= max")
    log = value.get("log", False)
    if not isinstance(log, bool):
        raise Problem((*path, "log"), _found(log, "expected true or false"))
    if log and "step" in value:
        raise Problem(path, "found step and log, expected one of them")
    if log and low <= 0:
        raise Problem((*path, "min"), f"found {low}, expected a number > 0 on a log axis")
    if kind is float and "step" not in value:
        return Axis(name, low=low, high=high, log=log, listed=False)
    step = value.get("step", 1)
    if isinstance(step, bool) or not isinstance(step, int if kind is int else int | float):
        raise Problem(
            (*path, "step"), _found(step, f"expected {'an integer' if kind is int else 'a number'}")
        )
    if not (math.isfinite(step) and step > 0):
        raise Problem((*path, "step"), f"found {step}, expected a number > 0")
    count = int((Decimal(str(high)) - Decimal(str(low))) / Decimal(str(step))) + 1
    if count > MAX_AXIS_VALUES:
        found = f"{count:,}" if count < 10**12 else f"about {float(count):.0e}"
        raise Problem(path, f"found {found} values, expected at most {MAX_AXIS_VALUES:,}")
    values = (Decimal(str(low)) + i * Decimal(str(step)) for i in range(count))
    return Axis(name, tuple(kind(v) for v in values), log=log, listed=False)


def _subsets(name: str, value: dict[str, Any], path: KeyPath) -> Axis:
    if name != "pool_after":
        raise Problem(path, f"found subsets_of, expected it for pool_after only, not {name}")
    _only_keys(value, ("subsets_of", "size"), path)
    members = value["subsets_of"]
    if not isinstance(members, list) or not members:
        raise Problem((*path, "subsets_of"), f"found {shown(members)}, expected a list of layers")
    layers = _field_value(name, members, (*path, "subsets_of"))
    sizes = value.get("size")
    sizes = [sizes] if not isinstance(sizes, list) else sizes
    for size in sizes:
        if type(size) is not int or not 0 <= size <= len(layers):
            raise Problem(
                (*path, "size"),
                f"found {shown(value.get('size'))}, expected 0 to {len(layers)}, or a list of such",
            )
    count = sum(math.comb(len(layers), size) for size in set(sizes))
    if not 0 < count <= MAX_AXIS_VALUES:
        raise Problem(path, f"found {count} subsets, expected 1 to {MAX_AXIS_VALUES}")
    subsets = [c for size in sorted(set(sizes)) for c in itertools.combinations(layers, size)]
    return Axis(name, tuple(subsets), listed=False)


def _only_keys(value: dict[str, Any], valid: tuple[str, ...], path: KeyPath) -> None:
    for key in value:
        if key not in valid:
            raise Problem(
                (*path, key), f"unknown key, expected {', '.join(valid)}{nearest(key, valid)}"
            )


def _training_variant(accuracy: Accuracy) -> Variant:
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
    _check_field(name, path)
    if name in ("in_channels", "num_classes"):
        raise Problem(path, "expected no such key: the data set decides it")
    return _field_value(name, value, path)


def _check_shapes(spec: Spec, space: Space) -> None:
    """Refuse listed values that stand in no architecture, and constraints that exclude all.

    Whether a feature map survives is decided by a few fields, so a small space of their axes
    tells it for the whole.
    """
    shape = ("fires", "pool_after", "stem_kernel", "stem_stride", "stem_padding")
    axes = tuple(axis for axis in space.axes if axis.field in shape)
    small = Space(space.base, axes, (), space.variants)
    if small.size > 10_000_000:
        raise Problem(("space",), f"found {small.size} shapes, expected at most 10000000")
    columns, seen = small.columns(), np.zeros(small.size, dtype=bool)
    for start, keep in small.blocks():
        seen[start : start + len(keep)] = keep
    if not axes and not seen.any():
        raise Problem(("base",), _why_infeasible(space, space.base))
    for axis, codes in zip(axes, small._values, strict=True):
        alive = set(np.unique(columns[axis.field][seen]).tolist())
        dead = [position for position, code in enumerate(codes.tolist()) if code not in alive]
        if dead and (axis.listed or not alive):
            first = int(np.argmax(columns[axis.field] == codes[dead[0]]))
            raise Problem(
                ("space", axis.field, *((dead[0],) if axis.listed else ())),
                f"found {shown(axis.values[dead[0]])}, which no architecture of the space "
                f"can have: {_reason_at(small, first)}",
            )
    if space.constraints and space.enumerable and space.size <= _MOST_CHECKED:
        try:
            some = any(keep.any() for _, keep in space.blocks())
        except CostOverflow as error:
            raise Problem(("space",), str(error)) from None
        if not some:
            raise Problem(
                ("constraints",), f"found that they exclude all {space.size} architectures"
            )


def _reason_at(space: Space, index: int) -> str:
    try:
        return _why_infeasible(space, space.architecture(index))
    except ValidationError as error:
        return field_problem(error.errors()[0])


def _why_infeasible(space: Space, architecture: Architecture) -> str:
    for variant in space.variants:
        try:
            architecture.replace(**variant.changes).check_input_size(variant.input_size)
        except ValidationError as error:
            return field_problem(error.errors()[0])
        except UserError as error:
            return str(error)
    return "its feature map vanishes"


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
    elif search.trials is None:
        raise Problem(
            ("search", "trials"), f"expected a number of trials for the sampler {search.sampler}"
        )
    if search.pruner and list(spec.objectives) != ["top1"]:
        raise Problem(
            ("search", "pruner"),
            f"found {search.pruner} with the objectives {', '.join(spec.objectives)}, expected "
            "objectives: {top1: maximize} alone: only accuracy is known before a training ends",
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
    columns = ["params", "macs", "flops", "size_mb", "activations", "peak_activation_bytes"]
    if spec.measure.accuracy:
        columns += ["top1", *(f"train_{name}" for name in columns)]
    if spec.measure.throughput:
        columns += ["images_per_s", "latency_ms_p50", "latency_ms_p99"]
    columns += [name for name, kind in FIELDS.items() if kind in (int, float)]
    return columns
