"""Networks and unfinished trainings on disk: safetensors, with the architecture as JSON inside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from ..compress.network import decompress, is_compressed, notes_of
from ..errors import UserError, shown
from ..files import home, write_atomically
from ..network.architecture import Architecture
from ..network.module import SqueezeNet, build

#: The file that `load` looks for in a folder.
MODEL_FILE = "model.safetensors"
#: Files that torch wrote.
TORCH_SUFFIXES = (".pth", ".pt", ".bin")
_WEIGHTS, _STATE = "model.", "optimizer."


def save(net: SqueezeNet, path: Path, notes: Mapping[str, Any]) -> None:
    """Write the weights of `net`, its architecture and `notes`, whole or not at all."""
    metadata = {"architecture": net.architecture.model_dump(mode="json"), **notes}
    weights = {name: tensor.contiguous() for name, tensor in net.state_dict().items()}
    write_atomically(path, to_bytes(weights, _as_text(metadata)))


def load(path: str | Path, architecture: Architecture | None = None) -> SqueezeNet:
    """The trained network in a file, on the CPU, ready to classify.

    Of a file that `train` or `compress` wrote, the `architecture` is that of the training, and
    images go in normalised by `mean` and `std` of `notes(path)`. A file of torch (`.pth`, `.pt`,
    `.bin`) holds weights alone, a torchvision `state_dict` say: its architecture is to be given.

    Args:
        path: the file, or the folder that holds it.
        architecture: of a file that does not say it.

    Raises:
        UserError: there is no such file, it holds no network, or one of another architecture.

    Example:
        >>> net = load("checkpoints/squeezenet_cifar")  # doctest: +SKIP
        >>> net = load("squeezenet1_1-b8a52dc0.pth", sqz.preset("squeezenet1_1"))  # doctest: +SKIP
    """
    path = _file(path)
    if not is_own(path):
        return _of_others(path, architecture)
    tensors, metadata = _read(path)
    try:
        known = Architecture(**metadata["architecture"])
        net = build(known)
        net.load_state_dict(tensors)
    except (KeyError, TypeError, ValidationError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: holds no network of sqzexplore ({reason})") from None
    if architecture is not None and architecture.net_id != known.net_id:
        raise UserError(
            f"{path}: found network {known.net_id}, expected {architecture.net_id}, which was "
            "asked for"
        )
    return net.eval()


def _of_others(path: Path, architecture: Architecture | None) -> SqueezeNet:
    """A `state_dict` as torch saves it; nothing but tensors is unpickled."""
    if architecture is None:
        raise UserError(
            f"{path}: holds weights alone, expected an architecture with them: "
            "load(path, preset('squeezenet1_1')), or --preset on the command line"
        )
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling raises many kinds
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: no readable file of weights ({reason})") from None
    for name in ("state_dict", "model"):  # as training scripts nest it
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path}: found {type(content).__name__}, expected a state_dict")
    weights = {str(name).removeprefix("module."): value for name, value in content.items()}
    net = build(architecture)
    try:
        net.load_state_dict(weights)
    except (RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{path}: does not fit the architecture ({reason})") from None
    return net.eval()


def is_own(path: Path) -> bool:
    """Whether a file is one of ours, in which notes stand beside the weights."""
    return path.suffix not in TORCH_SUFFIXES or is_compressed(path)


def notes(path: str | Path) -> dict[str, Any]:
    """What stands beside the weights: architecture, classes, mean and std, recipe, accuracies."""
    path = _file(path)
    return notes_of(path) if is_compressed(path) else _read(path)[1]


class Unfinished:
    """A training that can go on from its last whole epoch: weights, optimiser, notes.

    Everything random in an epoch follows from its number, so that this is all there is to keep.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path, self.identity = path, json.loads(json.dumps(identity))

    def restore(self, net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
        """Load what is kept into `net` and `optimizer`; its notes, or None if there is none.

        Raises:
            UserError: what is kept is of another training; the message says what differs.
        """
        if not self.path.exists():
            return None
        tensors, metadata = _read(self.path)
        if other := self._other(metadata):
            raise UserError(
                f"{self.path}: holds another training: {other}. "
                "Take the change back, or choose another folder."
            )
        net.load_state_dict(_with_prefix(tensors, _WEIGHTS))
        weights = [p for group in optimizer.param_groups for p in group["params"]]
        for name, tensor in _with_prefix(tensors, _STATE).items():
            number, key = name.split(".")
            weight = weights[int(number)]
            if tensor.shape == weight.shape:  # in the weight's memory format, as kernels expect
                tensor = torch.empty_like(weight).copy_(tensor)
            else:  # a count of steps, which a GPU's kernels read there
                tensor = tensor.to(weight.device)
            optimizer.state[weight][key] = tensor
        return metadata["notes"]

    def forget_another(self) -> None:
        """Remove what is kept, where that is of another training."""
        if self.path.exists() and self._other(_read(self.path)[1]):
            self.path.unlink()

    def _other(self, metadata: Mapping[str, Any]) -> str:
        """What differs in the training that is kept, if anything does."""
        before = metadata.get("identity", {})
        for key, value in self.identity.items():
            if before.get(key) != value:
                return f"{key} {shown(before.get(key, 'absent'))} there, {shown(value)} here"
        return ""

    def keep(
        self, net: nn.Module, optimizer: torch.optim.Optimizer, notes: Mapping[str, Any]
    ) -> None:
        """Write the state after an epoch, whole or not at all."""
        tensors = {_WEIGHTS + name: tensor for name, tensor in net.state_dict().items()}
        for number, state in optimizer.state_dict()["state"].items():
            tensors |= {f"{_STATE}{number}.{key}": value for key, value in state.items()}
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"identity": self.identity, "notes": notes}
        write_atomically(self.path, to_bytes(tensors, _as_text(metadata)))


def _file(path: str | Path) -> Path:
    path = home(path)
    return path / MODEL_FILE if path.is_dir() else path


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if is_compressed(path):
        return decompress(path)
    try:
        with safe_open(path, "pt") as file:
            metadata = {key: json.loads(text) for key, text in (file.metadata() or {}).items()}
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{path}: no such file, expected one that `train` wrote") from None
    except (SafetensorError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: no readable checkpoint ({reason})") from None


def _as_text(metadata: Mapping[str, Any]) -> dict[str, str]:
    return {key: json.dumps(value) for key, value in metadata.items()}


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
