"""What a spec trains and measures, and how long that takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..data.open import open_data
from ..data.source import Source
from ..errors import UserError
from ..network.architecture import Architecture
from ..network.cost import cost
from ..spec.models import AccuracySpec, Spec
from ..train.recipe import Recipe

if TYPE_CHECKING:
    import torch

    from ..data.images import ImageData


def training_macs(architecture: Architecture, spec: Spec, data: ImageData | Source) -> int:
    """MACs of one image through the network that is trained in the place of `architecture`."""
    assert spec.measure.accuracy is not None
    return cost(trained_of(architecture, spec, data), spec.measure.accuracy.image_size).macs


def work_units(architecture: Architecture, spec: Spec, data: ImageData | None) -> float:
    """How long a trial takes, in units that only compare trials of one sweep."""
    units = 0.0
    if (accuracy := spec.measure.accuracy) and data:
        macs = training_macs(architecture, spec, data)
        # A step has an overhead that small networks feel, about that of 2 million MACs an image.
        epochs = sum(accuracy.budgets) + sum(setting.epochs for setting in spec.compressions)
        units += accuracy.seeds * epochs * (macs + 2e6)
    return units or 1.0


def trained_of(architecture: Architecture, spec: Spec, data: ImageData | Source) -> Architecture:
    """What is trained in the place of `architecture`."""
    return spec.trained(architecture, data.channels, len(data.classes))


def recipe_of(accuracy: AccuracySpec, epochs: int | None = None) -> Recipe:
    """The recipe that a spec asks for, at its largest budget or at `epochs`."""
    return Recipe(
        recipe=accuracy.recipe,
        epochs=epochs or accuracy.budgets[-1],
        batch_size=accuracy.batch_size,
        learning_rate=accuracy.learning_rate,
        label_smoothing=accuracy.label_smoothing,
        augmentation=accuracy.augmentation,
        precision=accuracy.precision,
    )


def load_data(spec: Spec, device: torch.device) -> ImageData | None:
    """The images that the spec trains on, on `device`; None if it trains on none.

    Raises:
        UserError: there are no such images, or one is damaged.
    """
    if not (accuracy := spec.measure.accuracy):
        return None
    from ..data.images import load

    source = open_requested(accuracy)
    return load(source, accuracy.image_size, accuracy.augmentation).to(device)


def open_requested(accuracy: AccuracySpec) -> Source:
    """The data set that a spec names; a `UserError` names the key too."""
    try:
        return open_data(accuracy.data)
    except UserError as error:
        raise error.at("measure.accuracy.data") from None
