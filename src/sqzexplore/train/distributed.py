"""Data-parallel training: what the processes that torchrun starts say to each other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

#: The others wait while the first process measures throughput or writes its tables.
_PATIENCE = timedelta(hours=2)


def launched() -> bool:
    """Whether torchrun started this process, with others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def rank_of_launch() -> int:
    """This process's number among those that torchrun started, before and after they joined."""
    return int(os.environ.get("RANK", "0")) if launched() else 0


def rank() -> int:
    """This process's number."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def group(device: torch.device) -> Iterator[torch.device]:
    """Join the other processes, if there are any; the device that this one should use."""
    if not launched():
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield device
    finally:
        dist.destroy_process_group()


def parallel(net: nn.Module) -> nn.Module:
    """`net`, averaging its gradients over the processes."""
    if world() == 1:
        return net
    device = next(net.parameters()).device
    return DistributedDataParallel(net, [device] if device.type == "cuda" else None)


def share(images: int, batch_size: int) -> tuple[int, int]:
    """How many of `images` are this process's, and how many of them make its part of a batch,
    which divides by the processes.

    All processes get equally many: the first images stand in for those that lack at the end.
    """
    count = world()
    return -(-images // count), batch_size // count


def mine(order: Tensor) -> Tensor:
    """This process's images of `order`."""
    count = world()
    order = torch.cat([order, order[: -len(order) % count]])
    return order[rank() :: count]


def total(values: Tensor) -> Tensor:
    """The sum over the processes."""
    if world() > 1:
        dist.all_reduce(values)
    return values


def share_buffers(net: nn.Module) -> None:
    """The first process's buffers in all of them: what BatchNorm saw of its own images is else
    another in each, and what they evaluate together of no network."""
    if world() > 1:
        for buffer in net.buffers():
            dist.broadcast(buffer, 0)


def broadcast(value: Any) -> Any:
    """The first process's `value`, in all of them."""
    if world() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]
