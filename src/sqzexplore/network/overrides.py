"""Metaparameters of single Fires, and lists of layers, as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import InitErrorDetails

from ..errors import nearest, shown

Bypass = Literal["none", "simple", "complex"]
BYPASSES: tuple[str, ...] = get_args(Bypass)

#: `pool_after` is a bit mask in column arithmetic; 60 Fires keep it inside a signed 64-bit integer.
MAX_FIRES = 60

Width = Annotated[int, Field(ge=1, le=1_000_000)]


class FireOverride(BaseModel):
    """What a single Fire may have in the place of what the metaparameters give it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    squeeze_ratio: float | None = Field(
        None, gt=0, le=1, description="squeeze filters / expand filters of this Fire"
    )
    fraction_3x3: float | None = Field(
        None, ge=0, le=1, description="share of this Fire's expand filters that are 3x3"
    )
    expand_filters: Width | None = Field(
        None, description="e_i of this Fire, before the width multiplier"
    )
    bypass: Bypass | None = Field(None, description="bypass around this Fire")


#: What a single Fire may override, with the type of its plain value.
OVERRIDABLE: dict[str, type] = {
    "squeeze_ratio": float,
    "fraction_3x3": float,
    "expand_filters": int,
    "bypass": str,
}
#: `fire5.squeeze_ratio` and all others, each with what it overrides: (layer, name).
OVERRIDES: dict[str, tuple[int, str]] = {
    f"fire{layer}.{name}": (layer, name)
    for layer in range(2, MAX_FIRES + 2)
    for name in OVERRIDABLE
}


def layer_name(layer: int) -> str:
    """The paper's name of layer `layer` of the trunk: conv1, fire2, fire3, ..."""
    return "conv1" if layer == 1 else f"fire{layer}"


def is_missing(value: Any) -> bool:
    """Whether a cell of a table holds nothing: None, NaN, or pandas' NA, told by its name, since
    this module is no reason to import pandas."""
    if isinstance(value, float):
        return value != value
    return value is None or type(value).__name__ == "NAType"


def parse_layers(value: Any) -> Any:
    """Layers of `pool_after` sorted, from any sequence of integers or text such as `"1,4,8"`.

    As a reader of CSV gives them, too: a number is one layer, a missing value none. What is no such
    thing is returned as it came, for the field's type check to refuse.

    Raises:
        ValueError: a layer is given twice.
    """
    if value is not None and is_missing(value):
        return ()
    if isinstance(value, int | float) and not isinstance(value, bool) and float(value).is_integer():
        return (int(value),)
    if isinstance(value, str):
        parts = [part.strip() for part in value.strip("[]() ").split(",") if part.strip()]
        if not all(part.isdecimal() for part in parts):
            return value
        layers = [int(part) for part in parts]
    elif isinstance(value, Iterable) and not isinstance(value, Mapping | bytes):
        layers = [v.item() if isinstance(v, np.generic) else v for v in value]
    else:
        return value
    if any(type(layer) is not int for layer in layers):
        return tuple(layers)
    if len(set(layers)) < len(layers):
        raise ValueError(f"a layer stands twice in {layers}")
    return tuple(sorted(layers))


def parse_overrides(value: Any) -> dict[str, Any]:
    """Overrides as a mapping, from one, from pairs, or from text (`format_overrides`); a missing
    value of a table is none.

    Raises:
        ValueError: it is no such thing, or names no Fire's key.
    """
    if is_missing(value):
        return {}
    if isinstance(value, str):
        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        overrides = {key.strip(): _scalar(text.strip()) for key, _, text in pairs}
    else:
        try:
            overrides = dict(value)
        except (TypeError, ValueError):
            raise ValueError(
                f"found {shown(value)}, expected overrides such as fire5.squeeze_ratio=0.5"
            ) from None
    for key in overrides:
        if key not in OVERRIDES:
            raise ValueError(
                f"found {shown(key)}, expected a key such as fire5.squeeze_ratio"
                f"{nearest(key, OVERRIDES)}"
            )
    return overrides


def format_overrides(overrides: Iterable[tuple[str, Any]]) -> str | None:
    """Overrides as tables show them: `fire5.squeeze_ratio=0.5,fire7.bypass=none`; None if none."""
    return ",".join(f"{key}={value}" for key, value in overrides) or None


def _scalar(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def checked_overrides(given: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Overrides in order of the layers, each as its field holds it; None is none."""
    checked = []
    for key in sorted(given, key=[*OVERRIDES].index):
        value = given[key].item() if isinstance(given[key], np.generic) else given[key]
        name = OVERRIDES[key][1]
        try:
            held = getattr(FireOverride(**{name: value}), name)
        except ValidationError as error:
            first = error.errors()[0]
            details = InitErrorDetails(
                type=first["type"], loc=(key,), input=value, ctx=first.get("ctx", {})
            )
            raise ValidationError.from_exception_data("Architecture", [details]) from None
        if held is not None:
            checked.append((key, held))
    return tuple(checked)
