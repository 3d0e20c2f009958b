"""The device that a name means, and what it can do."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..errors import UserError, shown
from .settings import CHOICES, GRAPHED

_CUDA_ONLY = {"dtype": ("tf32",), "mode": GRAPHED}


def resolve_device(name: str) -> torch.device:
    """The device that `auto`, `cpu`, `cuda` or `cuda:N` means on this machine.

    Raises:
        UserError: no such device.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda") or name.startswith("cpu:"):
        raise UserError(f"--device: found {name!r}, expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            there = f"only {count} here" if count else "no CUDA device here"
            raise UserError(f"--device: found {name!r}, but torch sees {there}")
        return torch.device("cuda", device.index or 0)
    return device


def check_choices(
    dtypes: Sequence[str], modes: Sequence[str], device: torch.device, key_path: str
) -> None:
    """Refuse what `device` cannot do; `key_path` stands before the key's name in the message.

    Raises:
        UserError: a dtype or mode that needs a CUDA device, on another.
    """
    if device.type == "cuda":
        return
    for key, values in (("dtype", dtypes), ("mode", modes)):
        valid = [choice for choice in CHOICES[key] if choice not in _CUDA_ONLY[key]]
        for value in values:
            if value in _CUDA_ONLY[key]:
                raise UserError(
                    f"{key_path}{key}: found {shown(value)}, which needs a CUDA device; "
                    f"expected {', '.join(valid)} on {device}"
                )


class DeviceLost(RuntimeError):
    """A GPU's error that makes every later call fail, until the process ends."""
