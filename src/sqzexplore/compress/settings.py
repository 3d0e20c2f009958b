"""How far a network is compressed, and how it is quantised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..errors import UserError

MOST_BITS = 8
Scheme = Literal["per_channel", "per_tensor"]


@dataclass(frozen=True)
class Compression:
    """`density`: share of each layer's weights that survives; `bits` of an index into its codebook;
    `finetune_epochs`: passes over the training split after pruning, and as many after sharing.

    Raises:
        UserError: density or bits are out of range.
    """

    density: float
    bits: int
    finetune_epochs: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.density <= 1:
            raise UserError(
                f"density: found {self.density:g}, expected a share above 0 and at most 1"
            )
        if not 1 <= self.bits <= MOST_BITS:
            raise UserError(f"bits: found {self.bits}, expected 1 to {MOST_BITS}")

    def __str__(self) -> str:
        return f"{self.density:g}, {self.bits} bits"

    @property
    def epochs(self) -> int:
        """Passes over the training split in all: where all weights survive, after sharing alone."""
        return self.finetune_epochs * (2 if self.density < 1 else 1)


@dataclass(frozen=True)
class Int8:
    """How a network is quantised: a weight scale a filter (`per_channel`) or a layer
    (`per_tensor`), and how many training images decide the activations' ranges."""

    scheme: Scheme
    calibration_images: int
