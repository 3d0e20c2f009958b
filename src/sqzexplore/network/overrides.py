"""Metaparameters of single Fires, and lists of layers, as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
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


class FireOverrides(Mapping[int, FireOverride]):
    """What single Fires have in the place of what the metaparameters give them: by their layer,
    2 for the first Fire, in order. Immutable and hashable.

    Example:
        >>> FireOverrides({5: FireOverride(squeeze_ratio=0.5)}).flat()
        {'fire5.squeeze_ratio': 0.5}
    """

    def __init__(self, overrides: Mapping[int, FireOverride] | None = None) -> None:
        """Keep those of the Fires that override anything."""
        given = sorted((overrides or {}).items())
        self._fires = {layer: own for layer, own in given if own != FireOverride()}

    def __getitem__(self, layer: int) -> FireOverride:
        return self._fires[layer]

    def __iter__(self) -> Iterator[int]:
        return iter(self._fires)

    def __len__(self) -> int:
        return len(self._fires)

    def __hash__(self) -> int:
        return hash(tuple(self._fires.items()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._fires})"

    def flat(self) -> dict[str, float | int | str]:
        """The same as text has it, a key each of `OVERRIDES`: `{"fire5.squeeze_ratio": 0.5}`."""
        return {
            f"fire{layer}.{name}": value
            for layer, own in self.items()
            for name, value in own
            if value is not None
        }


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
    """Overrides by their keys (`fire5.squeeze_ratio`): from a mapping of these or of layers
    (`{5: {"squeeze_ratio": 0.5}}`), from pairs, or from text (`format_overrides`); a missing value
    of a table is none.

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
            overrides = {}
            for key, held in dict(value).items():
                overrides |= {key: held} if isinstance(key, str) else _of_layer(key, held)
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


def _of_layer(layer: int, held: Any) -> dict[str, Any]:
    """What one Fire overrides, by the keys of text."""
    return {f"fire{layer}.{name}": value for name, value in dict(held).items()}


def format_overrides(overrides: FireOverrides) -> str | None:
    """Overrides as tables show them: `fire5.squeeze_ratio=0.5,fire7.bypass=none`; None if none."""
    return ",".join(f"{key}={value}" for key, value in overrides.flat().items()) or None


def _scalar(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def checked_overrides(given: Mapping[str, Any]) -> FireOverrides:
    """Overrides from values by key, each as its field holds it; None is none.

    Raises:
        ValidationError: a value that the field does not take; its location is the key.
    """
    fires: dict[int, dict[str, Any]] = {}
    for key, value in given.items():
        layer, name = OVERRIDES[key]
        plain = value.item() if isinstance(value, np.generic) else value
        try:
            held = getattr(FireOverride(**{name: plain}), name)
        except ValidationError as error:
            first = error.errors()[0]
            details = InitErrorDetails(
                type=first["type"], loc=(key,), input=plain, ctx=first.get("ctx", {})
            )
            raise ValidationError.from_exception_data("Architecture", [details]) from None
        fires.setdefault(layer, {})[name] = held
    return FireOverrides({layer: FireOverride(**own) for layer, own in fires.items()})
