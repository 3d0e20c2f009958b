"""One Architecture, one recipe, one seed -> accuracy and how it came about.

Nothing is chosen on the test split: it is evaluated once, after the last epoch.

A training is a sequence of turns, a step of the optimiser each, so that several of them can go by
turns on one device. Each has generators of its own for all that is random: what trains beside it
changes none of its numbers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import provenance
from ..data.feed import Feed
from ..data.images import ImageData, Split
from ..data.stream import StreamedSplit
from ..errors import UserError
from ..malloc import keep_freed_memory
from ..network.architecture import Architecture
from ..network.module import Dropout, SqueezeNet, build
from . import distributed, recipe
from .accuracy import Guesses, Normalisation, by_chance, cudnn_as, guesses_on_device, packed
from .checkpoint import Unfinished
from .cuda_graph import CapturedStep
from .optimisation import initialise, optimizer
from .pointwise import as_convolutions, as_products
from .recipe import Recipe, rate

#: Seconds between two writes of a training's state on a GPU, where an epoch may take less.
_KEEP_S = 30.0


@dataclass(frozen=True)
class Epoch:
    """One pass over the training split. Accuracy in percent; `train_loss` is the mean, in nats."""

    epoch: int
    train_loss: float
    val_top1: float


@dataclass(frozen=True)
class Run:
    """One training. Accuracies, in percent after the last epoch, are NaN if it diverged.

    `top1` and `top5` are of the test split; `top5` is NaN where there are fewer than 6 classes.
    A run that was `stopped` early has neither: its test split was not looked at. `dead`: the
    accuracy cannot be told from that of always saying the most frequent class. `right`: for
    each split, which of its images were classified rightly (`packed`). `confusion`: how many test
    images of a class were taken for which; `balanced_top1`: the mean over the classes.
    """

    seed: int
    epochs: int
    diverged: bool
    dead: bool
    stopped: bool
    top1: float
    top5: float
    val_top1: float
    duration_s: float
    history: tuple[Epoch, ...]
    right: Mapping[str, str]
    balanced_top1: float
    confusion: Sequence[tuple[str, str, int]]


class Limits(Protocol):
    """What a fine-tuning keeps of a network as it is: which weights are zero, or which are equal.

    A GPU replays both calls as kernels: nothing in them may wait for it.
    """

    @property
    def weights(self) -> Sequence[nn.Parameter]:
        """What the optimiser changes."""

    def take_gradients(self) -> None:
        """After each backward pass: the gradients of `weights` from those of the network."""

    def apply(self) -> None:
        """After each update of `weights`: the network's from them."""


class Training:
    """A training between two turns.

    The same seed on the same processor, with the same number of threads and version of torch,
    gives the same numbers, interrupted or not, alone or by turns with others. A loss that is not
    finite ends it as diverged. Under torchrun all processes make it alike and share every batch.

    Args:
        architecture: what to train; its channels and classes are the data's.
        data: the images, on the device to train on.
        recipe: how.
        seed: initial weights, order of the images, augmentation and dropout follow from it.
        on_epoch: called after every epoch; the training ends when it returns True.
        unfinished: file that keeps the state between epochs, and that the training goes on from if
            it is there, on whatever device: `device_name` names all that had a part.
        on_batch: called after every step with the number of images it took.
        net: to go on from, on the device of the images; it is trained itself.
        limits: what stays as it is in `net`.

    Raises:
        FeatureMapVanishes: the images are too small for the architecture.
        UserError: an image is damaged, or `unfinished` is of another training.
    """

    def __init__(
        self,
        architecture: Architecture,
        data: ImageData,
        recipe: Recipe,
        seed: int,
        on_epoch: Callable[[Epoch], bool | None] = lambda epoch: None,
        unfinished: Path | None = None,
        on_batch: Callable[[int], None] = lambda images: None,
        net: SqueezeNet | None = None,
        limits: Limits | None = None,
    ) -> None:
        architecture.check_input_size(data.image_size)
        self._started = self._kept_at = time.perf_counter()
        self._on_epoch, self._on_batch = on_epoch, on_batch
        self.data, self.recipe, self.seed = data, recipe, seed
        self.device = data.mean.device
        cuda = self.device.type == "cuda"
        self._stream = torch.cuda.Stream(self.device) if cuda else None
        if not cuda:
            keep_freed_memory()
        self.history: list[Epoch] = []
        self._stopped, self._spent_before = False, 0.0
        #: The processor or GPU; all of them, where it went on on another.
        self.device_name = provenance.device_name(str(self.device))
        with self._settings():
            self.net = net or self._initial(architecture)
            self._limits = limits
            self._weights = list(limits.weights if limits else self.net.parameters())
            self._optimizer = optimizer(self._weights, recipe)
            self._unfinished = _kept(architecture, data, recipe, seed, unfinished)
            if self._unfinished and (notes := self._unfinished.restore(self.net, self._optimizer)):
                self.history = [Epoch(**entry) for entry in notes["history"]]
                self._spent_before = notes["duration_s"]
                before = notes.get("device_name", self.device_name)
                self.device_name = provenance.together([before, self.device_name])
            self._prepare()
        self._turns = self._epochs()

    def turn(self) -> bool:
        """One step, or the work between two epochs; False once the training has ended."""
        with self._settings():
            return next(self._turns, None) is not None

    def to_the_end(self) -> Run:
        """All turns that are left; how it went."""
        while self.turn():
            pass
        return self.run()

    def run(self) -> Run:
        """How it went, once it has ended."""
        as_convolutions(self.net)
        diverged = self._diverged
        top1 = top5 = val_top1 = math.nan
        right, dead = {}, False
        balanced, confusion = math.nan, list[tuple[str, str, int]]()
        if self._stopped:
            val_top1 = self.history[-1].val_top1
        elif not diverged:
            with self._settings():
                test, validation = (
                    Guesses.of(guesses_on_device(self.net, self.data, split), self.data)
                    for split in (self.data.test, self.data.validation)
                )
            top1, top5 = test.top1, test.top5
            val_top1 = validation.top1
            right = {"test": packed(test.right), "validation": packed(validation.right)}
            balanced, confusion = test.balanced, test.confusion(self.data.classes)
            dead = by_chance(validation.right, self.data.validation.labelled()[1])
        return Run(
            seed=self.seed,
            epochs=self.recipe.epochs,
            diverged=diverged,
            dead=dead,
            stopped=self._stopped,
            top1=top1,
            top5=top5,
            val_top1=val_top1,
            duration_s=self._spent(),
            history=tuple(self.history),
            right=right,
            balanced_top1=balanced,
            confusion=confusion,
        )

    # --- before the first step -------------------------------------------------------------------

    def _initial(self, architecture: Architecture) -> SqueezeNet:
        with torch.random.fork_rng(devices=[self.device] if self._stream else []):
            torch.manual_seed(self.seed)
            net = build(architecture).to(self.device)
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        initialise(net, self.recipe)
        return net

    def _prepare(self) -> None:
        """What a step reads, where it stays."""
        data, device = self.data, self.device
        images, share = distributed.share(len(data.train), self.recipe.batch_size)
        #: BatchNorm has no variance of one image: a last batch of one is left out.
        if self.net.architecture.batch_norm and images > share and images % share == 1:
            images -= 1
        self._images, self._share = images, share
        self._steps = math.ceil(images / self._share)
        self._feed = None
        if isinstance(data.train, Split):
            self._feed = Feed(data.train, images, self._share, data.augmentation)
        self._rates = torch.zeros(self._steps, device=device)
        self._at = torch.zeros(1, dtype=torch.int64, device=device)
        self._loss = torch.zeros((), device=device)
        self._normal = Normalisation(data)
        self._masks = torch.Generator(device)
        for module in self.net.modules():
            if isinstance(module, Dropout):
                module.generator = self._masks
        if self._stream:
            as_products(self.net)
        self._parallel = distributed.parallel(self.net)
        self._lr = self._optimizer.param_groups[0]["lr"]
        self._captured: CapturedStep | None = None

    # --- the training, a turn at a time ----------------------------------------------------------

    def _epochs(self) -> Iterator[bool]:
        for epoch in range(len(self.history) + 1, self.recipe.epochs + 1):
            if self._stopped or self._diverged:
                break
            for _ in self._epoch(epoch):
                yield True
            self._keep(last=epoch == self.recipe.epochs)
            wanted = distributed.broadcast(self._on_epoch(self.history[-1]))
            self._stopped = bool(wanted) and epoch < self.recipe.epochs

    @property
    def _diverged(self) -> bool:
        """Whether the last epoch's loss was not finite."""
        return bool(self.history) and not math.isfinite(self.history[-1].train_loss)

    def _epoch(self, epoch: int) -> Iterator[None]:
        """One pass over the training split, and its validation accuracy."""
        generator = self._reseed(epoch)
        order = torch.randperm(len(self.data.train), generator=generator)
        order = distributed.mine(order)[: self._images]
        first = (epoch - 1) * self._steps
        steps = self.recipe.epochs * self._steps
        shares = [rate(self.recipe, first + step, steps) for step in range(self._steps)]
        self._rates.copy_(self.recipe.peak_rate * torch.tensor(shares, dtype=torch.float64))
        self._at.zero_()
        self._loss.zero_()
        self.net.train()
        for images in self._passes(order, generator):
            self._on_batch(images * distributed.world())
            yield
        distributed.share_buffers(self.net)
        guessed = guesses_on_device(self.net, self.data, self.data.validation)
        yield from self._until_done()
        loss = distributed.total(self._loss) / (self._images * distributed.world())
        mean = loss.item()
        val_top1 = math.nan
        if math.isfinite(mean):
            val_top1 = Guesses.of(guessed, self.data).top1
        self.history.append(Epoch(epoch, mean, val_top1))

    def _reseed(self, epoch: int) -> torch.Generator:
        """All that is random in an epoch follows from its number, so that any can go first."""
        mixed = (self.seed * 1_000_003 + epoch) % 2**63
        self._masks.manual_seed((mixed + distributed.rank() * 7_368_787) % 2**63)
        return torch.Generator().manual_seed(mixed)

    def _passes(self, order: Tensor, generator: torch.Generator) -> Iterator[int]:
        """The steps of an epoch; the images of each."""
        if isinstance(train := self.data.train, StreamedSplit):
            batches = train.batches(order, self._share, self.data.augmentation, generator)
            for images, labels in batches:
                self._step(images, labels)
                yield len(labels)
            return
        assert self._feed is not None
        self._feed.draw(order, generator)
        for _ in range(self._feed.steps):
            self._whole_step()
            yield self._share
        if self._feed.rest:
            self._step(*self._feed.last())
            yield self._feed.rest

    def _whole_step(self) -> None:
        """A step on the next whole batch; on a GPU a replay of the first one's kernels."""
        assert self._feed is not None
        feed = self._feed
        if self._stream is None or distributed.world() > 1:
            return self._step(*feed.whole(self._at))
        if self._captured is None:
            self._captured = CapturedStep(
                lambda: self._step(*feed.whole(self._at)), self._state, self._masks, self._stream
            )
        self._captured.replay()

    def _state(self) -> list[Tensor]:
        """All that a step changes."""
        state = [
            value
            for entry in self._optimizer.state.values()
            for value in entry.values()
            if isinstance(value, Tensor)
        ]
        weights = {*self.net.parameters(), *self._weights}
        return [*weights, *self.net.buffers(), *state, self._at, self._loss, self._lr]

    def _step(self, images: Tensor, labels: Tensor) -> None:
        """One update of the weights."""
        with _autocast(self.recipe, images.device):
            logits = self._parallel(self._normal(images))
        smoothing = self.recipe.label_smoothing
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=smoothing)
        self.net.zero_grad()
        loss.backward()
        if self._limits:
            self._limits.take_gradients()
        if self.recipe.method.clip:
            nn.utils.clip_grad_norm_(self._weights, self.recipe.method.clip)
        self._lr.copy_(self._rates.index_select(0, self._at)[0])
        self._optimizer.step()
        if self._limits:
            self._limits.apply()
        self._loss += loss.detach() * len(labels)
        self._at += 1

    def _until_done(self) -> Iterator[None]:
        """Turns for others until the device has done what it was given."""
        if self._stream is not None:
            done = self._stream.record_event()
            while not done.query():
                yield

    def _keep(self, last: bool) -> None:
        """Write the state to disk, where that is asked for."""
        if self._unfinished is None or distributed.rank() != 0:
            return
        if self._stream and not last and time.perf_counter() - self._kept_at < _KEEP_S:
            return
        history = [asdict(epoch) for epoch in self.history]
        notes = {"history": history, "duration_s": self._spent(), "device_name": self.device_name}
        self._unfinished.keep(self.net, self._optimizer, notes)
        self._kept_at = time.perf_counter()

    def _spent(self) -> float:
        return self._spent_before + time.perf_counter() - self._started

    @contextmanager
    def _settings(self) -> Iterator[None]:
        """On a GPU, meanwhile: a stream of its own, and cuDNN restricted to deterministic
        algorithms and to the recipe's precision."""
        if self._stream is None:
            yield
            return
        with cudnn_as(self.recipe.precision == "tf32"), torch.cuda.stream(self._stream):
            yield


def identity(recipe_: Recipe, data: ImageData, seed: int) -> dict[str, Any]:
    """What makes a training of an architecture the same: run again, it gives the same network."""
    return {
        **asdict(recipe_),
        "recipe_version": recipe.VERSION,
        "augmentation": data.augmentation,
        "seed": seed,
        "data_sha256": data.sha256,
        "image_size": data.image_size,
    }


def _kept(
    architecture: Architecture, data: ImageData, recipe: Recipe, seed: int, file: Path | None
) -> Unfinished | None:
    """The training between two epochs, where a file keeps it."""
    if file is None:
        return None
    which = {
        "architecture": architecture.model_dump(mode="json"),
        **identity(recipe, data, seed),
        "processes": distributed.world(),
    }
    return Unfinished(file, which)


def check_recipe(recipe_: Recipe, device: torch.device) -> None:
    """Raise `UserError` where `device` cannot multiply in the recipe's precision, or the processes
    that train together cannot share its batches equally, two images each at least."""
    if recipe_.precision == "tf32" and device.type != "cuda":
        raise UserError(f"precision: found 'tf32', which needs a CUDA device; {device} has none")
    size, count = recipe_.batch_size, distributed.world()
    if count > 1 and (size % count or size < 2 * count):
        raise UserError(
            f"batch_size: found {size}, expected a multiple of the {count} processes that share "
            f"it, {2 * count} or more"
        )


def fit(
    architecture: Architecture,
    data: ImageData,
    recipe: Recipe,
    seed: int,
    on_epoch: Callable[[Epoch], bool | None] = lambda epoch: None,
    unfinished: Path | None = None,
    on_batch: Callable[[int], None] = lambda images: None,
) -> tuple[SqueezeNet, Run]:
    """A `Training` from its first turn to its last: the network, and how it went."""
    training = Training(architecture, data, recipe, seed, on_epoch, unfinished, on_batch)
    run = training.to_the_end()
    return training.net, run


def follow(data: ImageData) -> None:
    """Take part in the trainings that the first process leads, until it has no more."""
    while (job := distributed.broadcast(None)) is not None:
        architecture, recipe, seed, unfinished = job
        fit(architecture, data, recipe, seed, unfinished=unfinished)


def lead(
    architecture: Architecture,
    data: ImageData,
    recipe: Recipe,
    seed: int,
    on_epoch: Callable[[Epoch], bool | None] = lambda epoch: None,
    unfinished: Path | None = None,
) -> Training:
    """A `Training`, together with the processes that `follow` if there are any. It begins anew
    where `unfinished` is of another one, as it does where a finished one is."""
    if kept := _kept(architecture, data, recipe, seed, unfinished):
        kept.forget_another()
    distributed.broadcast((architecture, recipe, seed, unfinished))
    return Training(architecture, data, recipe, seed, on_epoch, unfinished)


def _autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16")
