"""Deep Compression of a trained network on its images (Han et al., arXiv:1510.00149).

Each layer is pruned by magnitude and what survives is trained on; then each layer's survivors share
a codebook, whose centroids are trained on; then everything is coded. What is evaluated is the
network that the file's bytes decode to.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..compress.codebook import surviving
from ..compress.file import Layer
from ..compress.network import Compressed, coded, decoded, kernels_of, layers_of
from ..compress.settings import Compression
from ..data.images import ImageData
from ..network.module import SqueezeNet, build
from .accuracy import guesses, packed
from .loop import Limits, Training
from .recipe import Recipe

#: Peak of the schedule, as a share of the training's own. On two networks of 47 and 182 thousand
#: parameters (fashion, 4 epochs, a seed each) 0.6 and 1.0 had the same validation accuracy, and 1
#: to 4 points more than 0.1 and 0.3 where a third of the weights survive.
RATE = 0.6


@dataclass(frozen=True)
class CompressedRun:
    """A network compressed. Accuracies in percent; `right`: which test images were classified
    rightly (`packed`). Sizes in MB of 10**6 bytes: of the whole file, and of all parameters in
    float32."""

    density: float
    bits: int
    finetune_epochs: int
    compressed_mb: float
    float32_mb: float
    compressed_top1: float
    compressed_val_top1: float
    right: str
    duration_s: float


@dataclass(frozen=True)
class Outcome:
    """What became of a network: its file, the network that this decodes to, and its accuracy."""

    compressed: Compressed
    net: SqueezeNet
    run: CompressedRun


class Pruned:
    """Weights that are zero stay zero.

    Args:
        net: is pruned at once.
        density: share of each convolution's weights that survives, in (0, 1].
    """

    def __init__(self, net: SqueezeNet, density: float) -> None:
        self.weights = list(net.parameters())
        self._masks = []
        for kernel in kernels_of(net).values():
            mask = torch.from_numpy(surviving(kernel.detach().cpu().numpy(), density))
            held = mask.to(kernel.device, kernel.dtype)
            self._masks.append((kernel, torch.empty_like(kernel).copy_(held)))
        self.apply()

    def take_gradients(self) -> None:
        """What is pruned has none."""
        for kernel, mask in self._masks:
            assert kernel.grad is not None
            kernel.grad *= mask

    @torch.no_grad()
    def apply(self) -> None:
        """Weight decay and momentum act on what survives alone."""
        for kernel, mask in self._masks:
            kernel *= mask


class Shared:
    """Weights of a layer that share a centroid stay equal, and pruned ones zero; the gradient of a
    centroid is the sum over its weights (Han et al., section 3.3).

    Args:
        net: takes the codebooks' weights at once.
        layers: its kernels.
    """

    def __init__(self, net: SqueezeNet, layers: Mapping[str, Layer]) -> None:
        kernels, device = kernels_of(net), next(net.parameters()).device
        self._layers = [_Codebook(kernels[name], layer) for name, layer in layers.items()]
        self._names = list(layers)
        of_kernels = {id(kernel) for kernel in kernels.values()}
        self.weights = [codebook.centroids for codebook in self._layers]
        self.weights += [w for w in net.parameters() if id(w) not in of_kernels]
        assert all(weight.device == device for weight in self.weights)
        self.apply()

    def take_gradients(self) -> None:
        """Those of the centroids."""
        for codebook in self._layers:
            codebook.take_gradient()

    def apply(self) -> None:
        """Write every weight from its centroid."""
        for codebook in self._layers:
            codebook.apply()

    def layers(self, before: Mapping[str, Layer]) -> dict[str, Layer]:
        """The layers with the centroids as they are now."""
        now = [codebook.centroids.detach().cpu().numpy() for codebook in self._layers]
        return {
            name: Layer(centroids, before[name].index, before[name].mask)
            for name, centroids in zip(self._names, now, strict=True)
        }


class _Codebook:
    """One layer's centroids, and where in the kernel each stands."""

    def __init__(self, kernel: Tensor, layer: Layer) -> None:
        self._kernel, device = kernel, kernel.device
        self.centroids = nn.Parameter(torch.from_numpy(layer.centroids).clone().to(device))
        index = torch.from_numpy(layer.index)
        places = torch.from_numpy(layer.mask).flatten().nonzero().flatten()
        # The sum over a centroid's weights is one over a stretch of them in this order: the same
        # every time, which adding by index on a GPU is not.
        order = index.argsort(stable=True)
        self._places = places[order].to(device)
        self._lengths = torch.bincount(index, minlength=len(layer.centroids)).to(device)
        self._index = index[order].to(device)

    def take_gradient(self) -> None:
        gradient = self._kernel.grad
        assert gradient is not None
        in_order = gradient.reshape(-1)[self._places]
        # unsafe: without the check of the lengths, for which a GPU would have to be waited for.
        self.centroids.grad = torch.segment_reduce(
            in_order, "sum", lengths=self._lengths, unsafe=True
        )

    @torch.no_grad()
    def apply(self) -> None:
        flat = torch.zeros(self._kernel.numel(), device=self._kernel.device)
        flat[self._places] = self.centroids[self._index]
        self._kernel.copy_(flat.view(self._kernel.shape))


def deep_compression(
    net: SqueezeNet, data: ImageData, recipe: Recipe, seed: int, setting: Compression
) -> Generator[None, None, Outcome]:
    """Prune, retrain, share, fine-tune and code a trained network, a step at a time.

    Args:
        net: on the device of the images, in float32; it is left as it is.
        data: what it was trained on.
        recipe: how it was trained; the fine-tuning has `RATE` of its learning rate, and its own
            number of epochs.
        seed: order of the images, augmentation and dropout follow from it.
        setting: how far.

    Returns:
        The file, the network that it decodes to, and how that does.
    """
    started = time.perf_counter()
    tuned = copy.deepcopy(net)
    limits: Limits
    if setting.density < 1:
        limits = Pruned(tuned, setting.density)
        yield from _fine_tuned(tuned, limits, data, recipe, seed, setting)
    layers = layers_of(tuned, setting)
    shared = Shared(tuned, layers)
    yield from _fine_tuned(tuned, shared, data, recipe, seed, setting)
    notes = {
        "classes": list(data.classes),
        "mean": data.mean.tolist(),
        "std": data.std.tolist(),
        "image_size": data.image_size,
        "data": data.name,
    }
    compressed = coded(tuned, shared.layers(layers), setting, notes)
    again = build(net.architecture)
    again.load_state_dict(decoded(compressed.content)[0])
    again = again.to(data.mean.device)
    test, validation = (guesses(again, data, split) for split in (data.test, data.validation))
    run = CompressedRun(
        density=setting.density,
        bits=setting.bits,
        finetune_epochs=setting.finetune_epochs,
        compressed_mb=compressed.compressed_mb,
        float32_mb=compressed.float32_bytes / 1e6,
        compressed_top1=test.top1,
        compressed_val_top1=validation.top1,
        right=packed(test.right),
        duration_s=time.perf_counter() - started,
    )
    return Outcome(compressed, again, run)


def finished(
    work: Generator[None, None, Outcome], on_step: Callable[[], object] = lambda: None
) -> Outcome:
    """What `deep_compression` returns, once all its steps are done; `on_step` hears of each."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value
        on_step()


def _fine_tuned(
    net: SqueezeNet,
    limits: Limits,
    data: ImageData,
    recipe: Recipe,
    seed: int,
    setting: Compression,
) -> Generator[None, None, None]:
    """Train `net` on within its limits."""
    if setting.finetune_epochs == 0:
        return
    rate = RATE * recipe.peak_rate
    slower = replace(recipe, epochs=setting.finetune_epochs, learning_rate=rate)
    training = Training(net.architecture, data, slower, seed, net=net, limits=limits)
    while training.turn():
        yield
