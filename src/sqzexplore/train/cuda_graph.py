"""A training step as a CUDA graph: its kernels launched at once, without the host in between."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_WARM_UP = 3


class CapturedStep:
    """`step`, captured once, replayed as often as asked.

    It runs a few times before it is captured, as torch asks for; everything that it changes is put
    back afterwards, so that neither the warm-up nor the capture leaves a trace in any number.

    Args:
        step: reads and writes tensors that stay where they are, of fixed shapes, and never waits
            for the device.
        state: lists what a step changes, state that its first run makes included.
        generator: its random numbers.
        stream: where it runs, the current one.
    """

    def __init__(
        self,
        step: Callable[[], None],
        state: Callable[[], list[Tensor]],
        generator: torch.Generator,
        stream: torch.cuda.Stream,
    ) -> None:
        before = {id(tensor): tensor.detach().clone() for tensor in state()}
        seeded = generator.get_state()
        for _ in range(_WARM_UP):
            step()
        with torch.no_grad():
            for tensor in state():
                if (saved := before.get(id(tensor))) is None:
                    tensor.zero_()  # an optimiser's state, which begins at 0
                else:
                    tensor.copy_(saved)
        generator.set_state(seeded)
        stream.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        self._graph.register_generator_state(generator)
        # Other trainings may use the device from this thread meanwhile, in no way that matters.
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            step()

    def replay(self) -> None:
        """One step."""
        self._graph.replay()
