"""What of a captured step a CPU can check: that warm-up and capture leave nothing behind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import sqzexplore as sqz
from sqzexplore.data.images import load
from sqzexplore.data.open import open_data
from sqzexplore.train import cuda_graph
from sqzexplore.train.loop import Training, fit
from sqzexplore.train.recipe import Recipe

NET = sqz.Architecture(width_multiplier=0.1, fires=3, pool_after=(1, 3)).replace(
    in_channels=1, num_classes=10
)


class Event:
    """Done at the third look."""

    def __init__(self) -> None:
        self.looks = 0

    def query(self) -> bool:
        self.looks += 1
        return self.looks > 2


class Stream:
    def synchronize(self) -> None: ...

    def record_event(self) -> Event:
        return Event()


class Graph:
    """Stands for torch's: what is called within `torch.cuda.graph` has no effect, until replays."""

    def __init__(self) -> None:
        self.generators: list[torch.Generator] = []

    def register_generator_state(self, generator: torch.Generator) -> None:
        self.generators.append(generator)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("recipe", ["default", "paper"])
def test_a_captured_training_gives_the_numbers_of_one_that_is_not(
    norm: bool, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real training with its real steps, on a device that only claims to capture them."""
    graphs: list[Graph] = []
    steps: list[Any] = []

    class Recorded(cuda_graph.CapturedStep):
        def __init__(self, step, state, generator, stream) -> None:
            @contextlib.contextmanager
            def capture(graph: Graph, **options: object) -> Iterator[None]:
                graphs.append(graph)
                assert options["stream"] is stream
                before = [tensor.detach().clone() for tensor in state()]
                masks = generator.get_state()
                yield
                with torch.no_grad():
                    for tensor, value in zip(state(), before, strict=True):
                        tensor.copy_(value)
                generator.set_state(masks)

            monkeypatch.setattr(torch.cuda, "graph", capture)
            monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
            monkeypatch.setattr(Graph, "replay", lambda graph: step(), raising=False)
            super().__init__(step, state, generator, stream)
            steps.append(self)

    monkeypatch.setattr("sqzexplore.train.loop.CapturedStep", Recorded)
    monkeypatch.setattr(Training, "_settings", lambda self: contextlib.nullcontext())
    data = load(open_data("digits"), 32)
    how, net = Recipe(recipe=recipe, epochs=2, batch_size=100), NET.replace(batch_norm=norm)
    expected, run = fit(net, data, how, 4)
    assert not graphs
    one = Training(net, data, how, 4)
    one._stream = Stream()
    turns = 0
    while one.turn():
        turns += 1
    assert len(graphs) == len(steps) == 1, "one graph serves all epochs"
    assert graphs[0].generators == [one._masks]
    assert turns == 2 * (10 + 1 + 2), "ten whole batches, a smaller one, and two looks"
    assert one.history == list(run.history)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(one.net.state_dict()[name], tensor), name
