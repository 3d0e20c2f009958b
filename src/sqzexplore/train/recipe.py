"""How a network is trained: the named methods in one table, each number with its reason.

The paper's network has no BatchNorm and a ReLU after its last convolution, and both make it easy
to kill. `default` is made for such networks; `paper` is what the authors published for ImageNet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..data.names import Augmentation

RecipeName = Literal["default", "paper"]
#: tf32: float32, multiplied as TF32, which only GPUs have.
Precision = Literal["float32", "tf32", "bfloat16"]

#: Changes whenever the same recipe, seed and images would give other numbers.
VERSION = 2


@dataclass(frozen=True)
class Method:
    """The numbers of a named recipe.

    `rate` is the highest learning rate, for `rate_batch` images a step and in proportion to the
    batch; without a `rate_batch`, for all. `betas` are AdamW's, the first one SGD's momentum.
    `weight_decay` acts on the weights of convolutions, with
    `decays_vectors` on biases and BatchNorm too. `warmup` is the share of the steps over which the
    rate rises from 0, before it falls to 0, both in a line. `clip` is the largest norm that a
    gradient keeps. `logit_bias` is where the bias of the last convolution starts.
    """

    optimizer: Literal["adamw", "sgd"]
    rate: float
    rate_batch: int | None
    betas: tuple[float, float]
    nesterov: bool
    weight_decay: float
    decays_vectors: bool
    warmup: float
    clip: float | None
    logit_bias: float
    scales_bypass: bool


METHODS: dict[RecipeName, Method] = {
    "default": Method(
        # Its steps do not depend on the scale of the gradients, which without BatchNorm differs by
        # orders of magnitude between layers and between architectures: one rate serves them all.
        optimizer="adamw",
        # Networks of 8 Fires learn more at 0.006 than at 0.003 or 0.01, those of 16 less, and at
        # 0.01 most of these die.
        rate=0.005,
        # Adam's steps hardly grow with the batch.
        rate_batch=None,
        # A second moment over 100 steps, since a sweep's training may have only some hundred.
        betas=(0.9, 0.99),
        nesterov=False,
        weight_decay=0.05,
        # A decayed last bias would undo `logit_bias`, which no gradient restores.
        decays_vectors=False,
        # Without BatchNorm the first steps at the full rate kill whole layers.
        warmup=0.2,
        # ... and may be wild even at a low one.
        clip=1.0,
        # The softmax does not see a shift of all logits, but the ReLU before it does: from 0 about
        # half of each class's positions start behind it, and a class with all of them behind it
        # never learns again.
        logit_bias=4.0,
        # A sum of two branches of the variance of its input doubles or triples it from Fire to
        # Fire, and the complex bypass dies in the first epoch.
        scales_bypass=True,
    ),
    # The solver that the authors published: SGD with momentum, a linear decay from 0.04 at 512
    # images a step, weight decay on everything, nothing against divergence.
    "paper": Method(
        optimizer="sgd",
        rate=0.04,
        rate_batch=512,
        betas=(0.9, 0.0),
        nesterov=False,
        weight_decay=2e-4,
        decays_vectors=True,
        warmup=0.0,
        clip=None,
        logit_bias=0.0,
        scales_bypass=False,
    ),
}


@dataclass(frozen=True)
class Recipe:
    """What the user sets of a training; its `method` says the rest.

    `learning_rate` is the peak of the schedule; None is the method's own. `augmentation` None is
    what suits the data. `precision` is that of the convolutions in training; weights, losses and
    updates are always float32, and so are evaluations, but for those of a training in `tf32`, whose
    convolutions multiply in it too.
    """

    recipe: RecipeName = "default"
    epochs: int = 20
    batch_size: int = 64
    learning_rate: float | None = None
    label_smoothing: float = 0.0
    augmentation: Augmentation | None = None
    precision: Precision = "float32"

    @property
    def method(self) -> Method:
        """The numbers of the named recipe."""
        return METHODS[self.recipe]

    @property
    def peak_rate(self) -> float:
        """The highest learning rate."""
        if self.learning_rate is not None:
            return self.learning_rate
        batch = self.method.rate_batch
        return self.method.rate * (self.batch_size / batch if batch else 1.0)


def rate(recipe: Recipe, step: int, steps: int) -> float:
    """Share of the peak learning rate at `step` of `steps`."""
    warmup = max(1.0, recipe.method.warmup * steps)
    return min((step + 1) / warmup, (steps - step) / max(1.0, steps - warmup))
