"""The axes of a spec: lists, ranges, subsets and conditions, checked value by value."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
from pydantic import ValidationError

from ..errors import CostOverflow, UserError, field_problem, nearest, shown
from ..network.architecture import KEYS, Architecture
from ..network.frames import format_value
from ..network.overrides import MAX_FIRES, OVERRIDES
from ..network.presets import PRESETS
from ..space.axis import Axis
from ..space.space import Space
from .pydantic_errors import from_pydantic, unexpected
from .yaml_text import KeyPath, Problem

#: More values than this on one axis is a slip of the pen.
MAX_AXIS_VALUES = 100_000
#: Combinations that are searched for one that meets the constraints: a few seconds.
_MOST_CHECKED = 10_000_000


def check_field(name: Any, path: KeyPath) -> None:
    """Refuse what is no key of an Architecture."""
    if name not in KEYS:
        raise Problem(
            path,
            "unknown key, expected a field of Architecture, or of a Fire such as "
            f"fire5.squeeze_ratio{nearest(name, KEYS)}",
        )


def base_of(value: str | dict[str, Any]) -> Architecture:
    """The base Architecture: a preset, or fields of which the others are at their defaults."""
    if isinstance(value, str):
        if value not in PRESETS:
            raise Problem(
                ("base",),
                f"found {shown(value)}, expected {', '.join(PRESETS)} or a mapping of "
                f"architecture fields{nearest(value, PRESETS)}",
            )
        return PRESETS[value]
    return architecture_of(Architecture(), value, ("base",))


def architecture_of(base: Architecture, changes: Mapping[str, Any], path: KeyPath) -> Architecture:
    """`base` with the `changes` that stand at `path`."""
    for name in changes:
        check_field(name, (*path, name))
    try:
        return base.replace(**changes)
    except ValidationError as error:
        raise from_pydantic(error, Architecture, changes, path) from None


def axis_of(name: str, value: Any, path: KeyPath) -> Axis:
    """An axis as a spec writes it; `check_conditions` checks what its condition speaks of."""
    if isinstance(value, dict) and "when" in value:
        when = _condition(value["when"], (*path, "when"))
        rest = {key: inner for key, inner in value.items() if key != "when"}
        if "values" in rest:
            _only_keys(rest, ("values",), path)
            return replace(_axis(name, rest["values"], (*path, "values")), when=when)
        return replace(_axis(name, rest, path), when=when)
    return _axis(name, value, path)


def architectures_of(base: Architecture, rows: list[dict[str, Any]]) -> tuple[Architecture, ...]:
    """The architectures of a list, each `base` with changes of its own."""
    found: dict[Architecture, int] = {}
    for number, changes in enumerate(rows):
        architecture = architecture_of(base, changes, ("space", number))
        if architecture in found:
            first = found[architecture]
            raise Problem(
                ("space", number), f"found the architecture of space[{first}], expected it once"
            )
        found[architecture] = number
    return tuple(found)


def axes_of(listed: Sequence[Architecture], rows: list[dict[str, Any]]) -> tuple[Axis, ...]:
    """What varies in a list of architectures: every field that one of them changes."""
    names = dict.fromkeys(str(name) for changes in rows for name in changes)
    return tuple(Axis(name, tuple(dict.fromkeys(a.get(name) for a in listed))) for name in names)


def check_listed(space: Space) -> None:
    """Refuse architectures of a list that no image of the sweep's sizes fits."""
    unconstrained = replace(space, constraints=())
    for number, architecture in enumerate(space.listed):
        if not unconstrained.accepts(architecture):
            raise Problem(("space", number), _why_infeasible(space, architecture))
    if not space.count():
        raise Problem(("constraints",), f"found that they exclude all {space.size} architectures")


def _condition(value: Any, path: KeyPath) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    """`{bypass: complex, fires: [8, 9]}` as an axis holds it."""
    if not isinstance(value, dict) or not value:
        raise Problem(path, f"found {shown(value)}, expected a mapping such as {{bypass: complex}}")
    when = []
    for name, requested in value.items():
        check_field(name, (*path, name))
        many = isinstance(requested, list) and (
            name != "pool_after" or any(isinstance(v, list | str) for v in requested)
        )
        if requested == [] and name != "pool_after":
            raise Problem((*path, name), "found an empty list, expected at least one value")
        values = [
            field_value(name, v, (*path, name, *((i,) if many else ())))
            for i, v in enumerate(requested if many else [requested])
        ]
        when.append((str(name), tuple(values)))
    return tuple(when)


def check_conditions(space: Space) -> None:
    """Refuse conditions on what does not vary, on values that it never has, and in a circle."""
    axes = {axis.field: axis for axis in space.axes}
    for axis in space.axes:
        for name, values in axis.when:
            path: KeyPath = ("space", axis.field, "when", name)
            if name not in axes:
                raise Problem(
                    path,
                    f"found {name}, which does not vary, expected an axis of the space"
                    f"{nearest(name, axes)}",
                )
            other = axes[name]
            if other.continuous:
                raise Problem(path, f"found {name}, a continuous axis, expected one with values")
            base = [space.base.get(name)] if other.when else []
            possible = list(dict.fromkeys([*other.values, *base]))
            for value in values:
                if value not in possible:
                    raise Problem(
                        path,
                        f"found {shown(value)}, which {name} never has, expected one of "
                        f"{', '.join(map(format_value, possible[:10]))}"
                        f"{nearest(value, map(format_value, possible))}",
                    )
    try:
        _ = space.ordered_axes
    except UserError as error:
        raise Problem((), str(error)) from None


def _axis(name: str, value: Any, path: KeyPath) -> Axis:
    if isinstance(value, list):
        if not value:
            raise Problem(path, "found an empty list, expected at least one value")
        values = [field_value(name, v, (*path, i)) for i, v in enumerate(value)]
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
        unexpected(
            value,
            "expected a list of values, {min, max, step}, {min, max, log: true} "
            "or {subsets_of: [...], size: N}, each with when: {...} where it is conditional "
            "({when: {...}, values: [...]})",
        ),
    )


def field_value(name: str, value: Any, path: KeyPath) -> Any:
    """`value` as the field holds it; null for no override. What depends on other fields is
    checked later."""
    roomy = {"fires": MAX_FIRES, "pool_after": ()}  # every pool position is valid here
    if value is None and name in OVERRIDES:
        return None
    try:
        return Architecture(**{**roomy, name: value}).get(name)
    except ValidationError as error:
        first = error.errors()[0]
        inner = tuple(step for step in first["loc"][1:] if isinstance(step, int))
        found = first["input"] if first["loc"] else value
        raise Problem((*path, *inner), unexpected(found, field_problem(first))) from None


def _range(name: str, value: dict[str, Any], path: KeyPath) -> Axis:
    kind = KEYS[name]
    if kind not in (int, float):
        raise Problem(path, f"found a range, expected a list: {name} is no number")
    _only_keys(value, ("min", "max", "step", "log"), path)
    for key in ("min", "max"):
        if key not in value:
            raise Problem((*path, key), "expected a value, the key is missing")
        if value[key] is None:  # a value of a list, but no end of a range
            raise Problem((*path, key), "found None, expected a number")
    low, high = (field_value(name, value[key], (*path, key)) for key in ("min", "max"))
    if low > high:
        raise Problem(path, f"found min {low} above max {high}, expected min <= max")
    log = value.get("log", False)
    if not isinstance(log, bool):
        raise Problem((*path, "log"), unexpected(log, "expected true or false"))
    if log and "step" in value:
        raise Problem(path, "found step and log, expected one of them")
    if log and low <= 0:
        raise Problem((*path, "min"), f"found {low}, expected a number > 0 on a log axis")
    if kind is float and "step" not in value:
        return Axis(name, low=low, high=high, log=log, listed=False)
    step = value.get("step", 1)
    if isinstance(step, bool) or not isinstance(step, int if kind is int else int | float):
        raise Problem(
            (*path, "step"),
            unexpected(step, f"expected {'an integer' if kind is int else 'a number'}"),
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
    layers = field_value(name, members, (*path, "subsets_of"))
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


def check_shapes(space: Space) -> None:
    """Refuse listed values that stand in no architecture, and constraints that exclude all.

    Whether a feature map survives is decided by a few fields, so a small space of their axes
    tells it for the whole.
    """
    _check_fires(space)
    axes = _shape_axes(space)
    small = Space(space.base, axes, (), space.variants)
    try:
        shapes = small.size
    except UserError as error:
        raise Problem((), str(error)) from None
    if shapes > 10_000_000:
        raise Problem(("space",), f"found {shapes} shapes, expected at most 10000000")
    columns, seen = small.columns(), np.zeros(small.size, dtype=bool)
    for start, keep in small.blocks():
        seen[start : start + len(keep)] = keep
    if not axes and not seen.any():
        raise Problem(("base",), _why_infeasible(space, space.base))
    for axis, codes in zip(axes, small._values, strict=True):
        alive = set(np.unique(columns[axis.field][seen]).tolist())
        dead = [i for i, code in enumerate(codes.tolist()) if code == code and code not in alive]
        if dead and (axis.listed or not alive):
            first = int(np.argmax(columns[axis.field] == codes[dead[0]]))
            inner: KeyPath = ()
            if axis.listed:
                written = next(a for a in space.axes if a.field == axis.field).values
                inner = (*(("values",) if axis.when else ()), written.index(axis.values[dead[0]]))
            raise Problem(
                ("space", axis.field, *inner),
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


def _check_fires(space: Space) -> None:
    """Refuse an axis of a Fire that no architecture of the space has."""
    axis = next((axis for axis in space.axes if axis.field == "fires"), None)
    numbers = list(axis.values) if axis else []
    if axis is None or axis.when:
        numbers.append(space.base.fires)
    for name in (axis.field for axis in space.axes if axis.field in OVERRIDES):
        if (layer := OVERRIDES[name][0]) > max(numbers) + 1:
            raise Problem(
                ("space", name),
                f"found fire{layer}, which no architecture of the space has: with at most "
                f"{max(numbers)} Fires they are fire2 to fire{max(numbers) + 1}",
            )


def _shape_axes(space: Space) -> tuple[Axis, ...]:
    """The axes that decide whether there is a feature map: those of the shape, of single Fires
    (one value, and none), and what their conditions speak of."""
    shape = {"fires", "pool_after", "stem_kernel", "stem_stride", "stem_padding"}
    by_name = {axis.field: axis for axis in space.axes}
    wanted = {name for name in by_name if name in shape or name in OVERRIDES}
    requested: set[str] = set()
    while new := {n for field in wanted for n, _ in by_name[field].when} - requested:
        requested |= new
        wanted |= new
    return tuple(
        _one_value(axis) if axis.field in OVERRIDES and axis.field not in requested else axis
        for axis in space.axes
        if axis.field in wanted
    )


def _one_value(axis: Axis) -> Axis:
    if axis.continuous:
        return replace(axis, values=(axis.low,), listed=False)
    some = next((value for value in axis.values if value is not None), None)
    return replace(axis, values=tuple(v for v in (None, some) if v in axis.values))


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
