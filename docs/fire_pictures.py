"""The two pictures of docs/fire.md, from closed-form costs."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

import sqzexplore as sqz
from sqzexplore.figures.style import BLUE, GREEN, ORANGE


def squeeze(axes: Axes) -> Axes:
    """Parameters of each Fire of v1.0, and of the same expand filters over its whole input."""
    layers = sqz.cost(sqz.preset("squeezenet1_0")).layers
    fires = [layer for layer in layers if layer.name.startswith("fire")]
    inputs = [96, *(fire.output_shape[0] for fire in fires[:-1])]
    plain = [
        channels * (fire.output_shape[0] // 2) * 10 + fire.output_shape[0]
        for channels, fire in zip(inputs, fires, strict=True)
    ]
    places = np.arange(len(fires))
    axes.bar(places - 0.2, plain, 0.4, color=ORANGE, label="expand filters over the whole input")
    axes.bar(places + 0.2, [f.params for f in fires], 0.4, color=BLUE, label="Fire, SR 0.125")
    axes.set_xticks(places, [fire.name for fire in fires], rotation=45)
    axes.set_yscale("log")
    axes.set_ylabel("parameters")
    axes.legend(loc="upper left")
    return axes


def pooling(axes: Axes) -> Axes:
    """Elements of each layer's output, one image of 224x224, for three choices of pooling."""
    choices = {(1, 2, 3): (BLUE, "-"), (1, 4, 8): (ORANGE, "--"), (6, 8, 9): (GREEN, ":")}
    for pools, (colour, dash) in choices.items():
        architecture = sqz.preset("squeezenet1_0").replace(pool_after=pools)
        layers = [layer for layer in sqz.cost(architecture).layers if layer.params]
        sizes = [np.prod(layer.output_shape) / 1e6 for layer in layers]
        label = f"pools after {', '.join(map(str, pools))}"
        axes.plot(range(len(layers)), sizes, dash, marker="o", color=colour, label=label)
    axes.set_xticks(range(len(layers)), [layer.name for layer in layers], rotation=45)
    axes.set_yscale("log")
    axes.set_ylabel("elements of the output (millions)")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=1, borderaxespad=0.2)
    return axes
