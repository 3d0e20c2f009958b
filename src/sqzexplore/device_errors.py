"""What an error says about a device: that its memory is out, or that it is lost."""

from __future__ import annotations

import torch

#: How the libraries below torch say it, where torch has no exception of its own for that.
_OUT = (
    "DefaultCPUAllocator",
    "CUDA out of memory",
    "CUDA error: out of memory",  # a graph that is instantiated
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
#: cuDNN says this where no workspace fits, and where it has no algorithm for the shape and type.
_NO_ENGINE = "unable to find an engine"
_FULL = 0.95


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a GPU's or the machine's memory is out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error) if isinstance(error, RuntimeError) else ""
    return any(words in text for words in _OUT) or (_NO_ENGINE in text and _is_full())


def is_lost(device: torch.device) -> bool:
    """Whether an error has left a GPU unusable for this process.

    After an illegal access or a failed launch every call of CUDA fails until the process ends.
    """
    if device.type != "cuda":
        return False
    try:
        torch.cuda.synchronize(device)
        torch.zeros(1, device=device).add_(1).item()
    except RuntimeError as error:
        return not is_out_of_memory(error)
    return False


def _is_full() -> bool:
    """Whether tensors, of this process or another, hold nearly all of the current GPU's memory."""
    free, total = torch.cuda.mem_get_info()
    cached = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return free + cached < (1 - _FULL) * total
