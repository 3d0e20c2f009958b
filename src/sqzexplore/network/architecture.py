"""The Architecture: the metaparameters of SqueezeNet's design space, and the stages they give.

Section 5 of the paper (Iandola et al., arXiv:1602.07360) generates a whole network from a few
metaparameters. `Architecture` holds them; the functions of `rules` turn them into widths and sizes.
These are written as NumPy arithmetic, so that one network (`module`) and a million rows (`cost`)
follow the same lines of code.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_serializer,
    field_validator,
    model_validator,
)

from ..errors import FeatureMapVanishes
from .overrides import (
    MAX_FIRES,
    OVERRIDABLE,
    OVERRIDES,
    Bypass,
    FireOverride,
    FireOverrides,
    Width,
    checked_overrides,
    layer_name,
    parse_layers,
    parse_overrides,
)
from .rules import (
    expand3x3_filters,
    expand_filters,
    pooled_size,
    scaled_width,
    squeeze_filters,
    stem_output_size,
)

Step = Annotated[int, Field(ge=1, le=10_000)]


_NO_OVERRIDE = FireOverride()


class Architecture(BaseModel):
    """One point of the design space; the defaults are SqueezeNet v1.0 (paper, table 1).

    Frozen and hashable. Unknown fields, wrong types (an integer is a valid float, a bool is
    neither) and values out of range raise `pydantic.ValidationError`, a `ValueError`.

    A single Fire is set apart by keys such as `fire5.squeeze_ratio` (see `OVERRIDES`), given like
    fields; None takes an override back. `overrides` holds them by layer.

    Example:
        >>> Architecture(squeeze_ratio=0.5, bypass="simple").fires
        8
        >>> Architecture(**{"fire5.squeeze_ratio": 0.5}).fire(5).squeeze_ratio
        0.5
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        arbitrary_types_allowed=True,
    )

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
    overrides: Annotated[FireOverrides, WithJsonSchema({"type": "object"})] = Field(
        default_factory=FireOverrides, description="what single Fires have instead, by layer"
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
            plain["overrides"] = checked_overrides(
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
        for key in self.overrides.flat():
            if (layer := OVERRIDES[key][0]) > self.fires + 1:
                raise ValueError(
                    f"{key}: there is no fire{layer}; with {self.fires} Fires they are fire2 "
                    f"to fire{self.fires + 1}"
                )
        return self

    @field_serializer("overrides")
    def _overrides_as_text_has_them(self, overrides: Any) -> dict[str, float | int | str]:
        return overrides.flat()

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
        keys = [*FIELDS, *since.overrides.flat(), *self.overrides.flat()]
        return {key: self.get(key) for key in keys if self.get(key) != since.get(key)}

    def get(self, key: str) -> Any:
        """The value of a field, or of a key such as `fire5.squeeze_ratio`; None where this Fire
        is as the metaparameters say."""
        if key not in OVERRIDES:
            return getattr(self, key)
        layer, name = OVERRIDES[key]
        return getattr(self.fire(layer), name)

    def fire(self, layer: int) -> FireOverride:
        """What Fire `layer` (2 for the first) has in the place of what the metaparameters say;
        each field is None where it is as they say."""
        return self.overrides.get(layer, _NO_OVERRIDE)

    def fire_stages(self) -> list[FireStage]:
        """The Fires in order, with the filter counts that the metaparameters give them."""
        stages = []
        in_channels = int(scaled_width(self.stem_width, self.width_multiplier))
        for index in range(self.fires):
            own = self.fire(index + 2)
            formula = expand_filters(
                index, self.base_expand, self.expand_increment, self.increment_every
            )
            widest = _or(own.expand_filters, formula)
            expand = scaled_width(widest, self.width_multiplier)
            fraction = _or(own.fraction_3x3, self.fraction_3x3)
            ratio = _or(own.squeeze_ratio, self.squeeze_ratio)
            expand3x3 = int(expand3x3_filters(expand, fraction))
            stage = FireStage(
                layer=index + 2,
                in_channels=in_channels,
                squeeze=int(squeeze_filters(expand, ratio)),
                expand1x1=int(expand) - expand3x3,
                expand3x3=expand3x3,
                bypass=_bypass_of(own.bypass or self.bypass, in_channels, int(expand)),
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


def _digest(text: str) -> str:
    """Twelve hexadecimal digits of a hash; of the next one where a reader of CSV would take them
    for a number (448737568419, 12e456789012), as it does with one in 250."""
    digits = hashlib.sha256(text.encode()).hexdigest()[:12]
    while re.fullmatch(r"\d+(e\d+)?", digits):
        digits = hashlib.sha256(digits.encode()).hexdigest()[:12]
    return digits


def _or(own: Any, otherwise: Any) -> Any:
    """What a Fire overrides, if it does."""
    return otherwise if own is None else own


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
