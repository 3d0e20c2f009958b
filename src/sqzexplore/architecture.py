"""The Architecture: the metaparameters of SqueezeNet's design space, and the stages they give.

Section 5 of the paper (Iandola et al., arXiv:1602.07360) generates a whole network from a few
metaparameters. `Architecture` holds them; the functions below are the rules that turn them into
widths and sizes. The rules are written as NumPy arithmetic, so that one network (`model`) and a
million rows (`cost`) follow the same lines of code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, get_args

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails

from .errors import FeatureMapVanishes, UserError, nearest, shown

Bypass = Literal["none", "simple", "complex"]
BYPASSES: tuple[str, ...] = get_args(Bypass)

#: `pool_after` is a bit mask in column arithmetic; 60 Fires keep it inside a signed 64-bit integer.
MAX_FIRES = 60

Width = Annotated[int, Field(ge=1, le=1_000_000)]
Step = Annotated[int, Field(ge=1, le=10_000)]


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


class Architecture(BaseModel):
    """One point of the design space; the defaults are SqueezeNet v1.0 (paper, table 1).

    Frozen and hashable. Unknown fields, wrong types (an integer is a valid float, a bool is
    neither) and values out of range raise `pydantic.ValidationError`, a `ValueError`.

    A single Fire is set apart by keys such as `fire5.squeeze_ratio` (see `OVERRIDES`), given like
    fields; None takes an override back.

    Example:
        >>> Architecture(squeeze_ratio=0.5, bypass="simple").fires
        8
        >>> Architecture(**{"fire5.squeeze_ratio": 0.5}).overrides
        (('fire5.squeeze_ratio', 0.5),)
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    squeeze_ratio: float = Field(
        0.125, gt=0, le=1, description="SR: squeeze filters / expand filters of a Fire"
    )
    fraction_3x3: float = Field(
        0.5, ge=0, le=1, description="pct_3x3: share of the expand filters that are 3x3"
    )
    base_expand: Width = Field(128, description="base_e: expand filters of the first Fire")
    expand_increment: int = Field(
        128, ge=0, le=1_000_000, description="incr_e: expand filters added every freq Fires"
    )
    increment_every: Step = Field(2, description="freq: Fires between two increments")
    fires: int = Field(8, ge=1, le=MAX_FIRES, description="number of Fire modules")
    pool_after: tuple[int, ...] = Field(
        (1, 4, 8),
        description="layers followed by 3x3/2 max pooling; 1 is conv1, 2 the first Fire",
    )
    bypass: Bypass = Field(
        "none", description="none; simple: identity where channels agree; complex: 1x1 elsewhere"
    )
    stem_width: Width = Field(96, description="filters of conv1")
    stem_kernel: Step = Field(7, description="kernel size of conv1, pixels")
    stem_stride: Step = Field(2, description="stride of conv1, pixels")
    stem_padding: int = Field(0, ge=0, le=10_000, description="zero padding of conv1, pixels")
    width_multiplier: float = Field(
        1.0, gt=0, le=1000, description="scales stem_width and the expand filters of every Fire"
    )
    batch_norm: bool = Field(
        False, description="BatchNorm after every convolution but the last, which lose their bias"
    )
    dropout: float = Field(0.5, ge=0, lt=1, description="dropout before the last convolution")
    in_channels: Width = Field(3, description="channels of the input image")
    num_classes: Width = Field(1000, description="classes, filters of the last convolution")
    overrides: tuple[tuple[str, float | int | str], ...] = Field(
        (), description="what single Fires have instead, such as fire5.squeeze_ratio=0.5"
    )

    @model_validator(mode="before")
    @classmethod
    def _plain_scalars(cls, values: Any) -> Any:
        """Rows of a table hold NumPy scalars; strict fields want Python's. Keys of single Fires
        go into `overrides`."""
        if not isinstance(values, Mapping):
            return values
        plain = {k: v.item() if isinstance(v, np.generic) else v for k, v in values.items()}
        given = {key: plain.pop(key) for key in [*plain] if key in OVERRIDES}
        if given or "overrides" in plain:
            plain["overrides"] = _checked_overrides(
                parse_overrides(plain.get("overrides", ())) | given
            )
        return plain

    @field_validator("pool_after", mode="before")
    @classmethod
    def _parse_pool_after(cls, value: Any) -> Any:
        return parse_layers(value)

    @model_validator(mode="after")
    def _pools_stand_after_layers(self) -> Self:
        wrong = [layer for layer in self.pool_after if not 1 <= layer <= self.fires + 1]
        if wrong:
            raise ValueError(
                f"pool_after {list(self.pool_after)}: there is no layer {wrong[0]}; "
                f"with {self.fires} Fires the layers are 1 (conv1) to {self.fires + 1}"
            )
        for key, _ in self.overrides:
            if (layer := OVERRIDES[key][0]) > self.fires + 1:
                raise ValueError(
                    f"{key}: there is no fire{layer}; with {self.fires} Fires they are fire2 "
                    f"to fire{self.fires + 1}"
                )
        return self

    @field_serializer("overrides")
    def _overrides_as_mapping(self, overrides: Any) -> dict[str, float | int | str]:
        return dict(overrides)

    @property
    def arch_id(self) -> str:
        """Twelve hexadecimal digits that name these metaparameters, the same on every machine."""
        fields = self.model_dump(mode="json")
        if not self.overrides:  # the names of architectures that overrides did not change
            del fields["overrides"]
        text = json.dumps(fields, sort_keys=True)
        return _digest(text)

    @property
    def net_id(self) -> str:
        """Twelve hexadecimal digits that name the network which these metaparameters give.

        Other metaparameters that build the same modules, after all rounding, have the same: where
        `expand_increment` is 0, `increment_every` means nothing.
        """
        network = {
            "in_channels": self.in_channels,
            "stem": [
                int(scaled_width(self.stem_width, self.width_multiplier)),
                *(self.stem_kernel, self.stem_stride, self.stem_padding),
            ],
            "fires": [
                [fire.squeeze, fire.expand1x1, fire.expand3x3, fire.bypass]
                for fire in self.fire_stages()
            ],
            "pool_after": self.pool_after,
            "batch_norm": self.batch_norm,
            "dropout": self.dropout,
            "num_classes": self.num_classes,
        }
        return _digest(json.dumps(network, sort_keys=True))

    def replace(self, **changes: Any) -> Architecture:
        """A copy with `changes`, validated as a new Architecture is."""
        return Architecture(**{**self.model_dump(), **changes})

    def changes(self, since: Architecture) -> dict[str, Any]:
        """What differs from `since`, with the values here: `since.replace(**changes)` is this."""
        keys = [*FIELDS, *(key for key, _ in (*since.overrides, *self.overrides))]
        return {key: self.get(key) for key in keys if self.get(key) != since.get(key)}

    def get(self, key: str) -> Any:
        """The value of a field, or of a key such as `fire5.squeeze_ratio`; None where this Fire
        is as the metaparameters say."""
        return dict(self.overrides).get(key) if key in OVERRIDES else getattr(self, key)

    def fire_stages(self) -> list[FireStage]:
        """The Fires in order, with the filter counts that the metaparameters give them."""
        overrides = dict(self.overrides)
        stages = []
        in_channels = int(scaled_width(self.stem_width, self.width_multiplier))
        for index in range(self.fires):
            fire = f"fire{index + 2}"
            formula = expand_filters(
                index, self.base_expand, self.expand_increment, self.increment_every
            )
            widest = overrides.get(f"{fire}.expand_filters", formula)
            expand = scaled_width(widest, self.width_multiplier)
            fraction = overrides.get(f"{fire}.fraction_3x3", self.fraction_3x3)
            ratio = overrides.get(f"{fire}.squeeze_ratio", self.squeeze_ratio)
            bypass = overrides.get(f"{fire}.bypass", self.bypass)
            expand3x3 = int(expand3x3_filters(expand, fraction))
            stage = FireStage(
                layer=index + 2,
                in_channels=in_channels,
                squeeze=int(squeeze_filters(expand, ratio)),
                expand1x1=int(expand) - expand3x3,
                expand3x3=expand3x3,
                bypass=_bypass_of(bypass, in_channels, int(expand)),
            )
            stages.append(stage)
            in_channels = stage.out_channels
        return stages

    def check_input_size(self, input_size: int) -> None:
        """Raise `FeatureMapVanishes`, naming the layer, if `input_size` pixels are too few."""
        size = int(
            stem_output_size(input_size, self.stem_kernel, self.stem_stride, self.stem_padding)
        )
        if size < 1:
            raise FeatureMapVanishes(
                f"the feature map vanishes at conv1: its {self.stem_kernel}x{self.stem_kernel} "
                f"kernel does not fit an input of {input_size}x{input_size} pixels"
            )
        for layer in self.pool_after:
            if size < 2:
                raise FeatureMapVanishes(
                    f"the feature map vanishes at maxpool{layer} (after {layer_name(layer)}): "
                    f"an input of {input_size}x{input_size} pixels is down to 1x1 there, "
                    f"too small to pool (pool_after {list(self.pool_after)})"
                )
            size = int(pooled_size(size))


@dataclass(frozen=True)
class FireStage:
    """Filter counts of one Fire module (paper, section 3.2). A branch of 0 filters is absent."""

    layer: int
    in_channels: int
    squeeze: int
    expand1x1: int
    expand3x3: int
    bypass: Literal["none", "identity", "conv1x1"]

    @property
    def out_channels(self) -> int:
        """Channels of the concatenated expand filters."""
        return self.expand1x1 + self.expand3x3


def layer_name(layer: int) -> str:
    """The paper's name of layer `layer` of the trunk: conv1, fire2, fire3, ..."""
    return "conv1" if layer == 1 else f"fire{layer}"


def parse_layers(value: Any) -> Any:
    """Layers of `pool_after` sorted, from any sequence of integers or text such as `"1,4,8"`.

    What is no such thing is returned as it came, for the field's type check to refuse.

    Raises:
        ValueError: a layer is given twice.
    """
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
    """Overrides as a mapping, from one, from pairs, or from text (`format_overrides`).

    Raises:
        ValueError: it is no such thing, or names no Fire's key.
    """
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


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _scalar(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _checked_overrides(given: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
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


def _bypass_of(
    bypass: Any, in_channels: int, out_channels: int
) -> Literal["none", "identity", "conv1x1"]:
    if bypass == "none":
        return "none"
    if in_channels == out_channels:
        return "identity"
    return "conv1x1" if bypass == "complex" else "none"


#: Every metaparameter with the type of its plain value, in table order.
FIELDS: dict[str, type] = {
    name: type(field.default)
    for name, field in Architecture.model_fields.items()
    if name != "overrides"
}
#: Every key that sets something of an Architecture, the overrides of single Fires included.
KEYS: dict[str, type] = FIELDS | {key: OVERRIDABLE[name] for key, (_, name) in OVERRIDES.items()}


# --- the rules, over numbers or arrays alike; integers in float64, exact below 2**53 -----------


def _round_half_up(x: Any) -> Any:
    return np.floor(x + 0.5)


def scaled_width(width: Any, width_multiplier: Any) -> Any:
    """Filters after the width multiplier: rounded half up, at least 1."""
    return np.maximum(1.0, _round_half_up(width * width_multiplier))


def expand_filters(
    index: Any, base_expand: Any, expand_increment: Any, increment_every: Any
) -> Any:
    """e_i = base_e + incr_e * floor(i / freq) of Fire `index`, counted from 0 (section 5.1)."""
    return base_expand + expand_increment * np.floor(index / increment_every)


def expand3x3_filters(expand: Any, fraction_3x3: Any) -> Any:
    """The 3x3 filters among `expand`; the rest are 1x1 (section 5.1)."""
    return _round_half_up(expand * fraction_3x3)


def squeeze_filters(expand: Any, squeeze_ratio: Any) -> Any:
    """s_i = SR * e_i, at least 1 (section 5.1)."""
    return np.maximum(1.0, _round_half_up(expand * squeeze_ratio))


def stem_output_size(input_size: Any, kernel: Any, stride: Any, padding: Any) -> Any:
    """Side of conv1's feature map in pixels; below 1 when the kernel does not fit."""
    return np.floor((input_size + 2 * padding - kernel) / stride) + 1


def pooled_size(size: Any) -> Any:
    """Side after 3x3/2 max pooling in ceil mode: ceil((size - 3) / 2) + 1, which is size // 2.

    A side of 1 gives 0: torch refuses to pool it.
    """
    return np.floor(size * 0.5)


PRESETS: dict[str, Architecture] = {
    "squeezenet1_0": Architecture(),
    "squeezenet1_1": Architecture(stem_width=64, stem_kernel=3, pool_after=(1, 3, 5)),
    # For 32x32 images: v1.1's Fires at full resolution first, BatchNorm and bypass to train well.
    "squeezenet_cifar": Architecture(
        stem_width=64,
        stem_kernel=3,
        stem_stride=1,
        stem_padding=1,
        pool_after=(1, 3, 5),
        bypass="simple",
        batch_norm=True,
        num_classes=10,
    ),
}


def preset(name: str, **changes: Any) -> Architecture:
    """The Architecture known as `name`, with `changes`.

    Raises:
        UserError: there is no such preset.
        pydantic.ValidationError: a change is no valid field or value.
    """
    if name not in PRESETS:
        raise UserError(
            f"no preset {shown(name)}; the presets are {', '.join(PRESETS)}{nearest(name, PRESETS)}"
        )
    return PRESETS[name].replace(**changes)
