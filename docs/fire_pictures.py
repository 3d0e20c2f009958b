"""The two pictures of docs/fire.md, from closed-form costs."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

import sqzexplore as sqz
from sqzexplore.figures.style import BLUE, GREEN, GREY, ORANGE


def squeeze(axes: Axes) -> Axes:
    """Weights of each Fire of v1.0, and of the same expand filters over its whole input; beside the
    line between them, how many times as many these are."""
    fires = sqz.preset("squeezenet1_0").fire_stages()
    numbers = [fire.layer for fire in fires]
    per_channel = np.array([fire.expand1x1 + 9 * fire.expand3x3 for fire in fires])
    inputs = np.array([fire.in_channels for fire in fires])
    squeezed = np.array([fire.squeeze for fire in fires])
    plain, ours = per_channel * inputs, (per_channel + inputs) * squeezed
    axes.vlines(numbers, ours, plain, color=GREY, linewidth=1)
    axes.plot(numbers, plain, "s", color=ORANGE, label="expand filters over the whole input")
    axes.plot(numbers, ours, "o", color=BLUE, label="Fire, squeeze ratio 0.125")
    for number, fewer, more in zip(numbers, ours, plain, strict=True):
        middle = (number + 0.1, np.sqrt(fewer * more))
        axes.annotate(f"{more / fewer:.1f}x", middle, fontsize=6, va="center")
    axes.set_yscale("log")
    axes.set_xlabel("number of the Fire")
    axes.set_ylabel("weights, without biases")
    axes.legend(loc="upper left")
    axes.set_xticks(numbers)
    axes.set_xlim(1.6, 9.8)
    axes.set_ylim(top=4e6)
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
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("convolution or Fire, from image to classes")
    axes.set_ylabel("elements of its output (millions)")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=1, borderaxespad=0.2)
    return axes
