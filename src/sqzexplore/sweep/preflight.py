"""What a sweep refuses before it begins, so that nothing is mixed up or measured wrongly."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import optuna

from ..data.images import ImageData
from ..errors import UserError, shown
from ..results.folder import ResultFolder
from ..spec.load import load_spec
from ..spec.models import Spec
from ..train import distributed

#: Combinations of a grid that a sweep goes through.
MAX_GRID = 1_000_000
#: Architectures drawn to see whether a search can meet its constraints.
_DRAWN = 100_000


def refuse_another_spec(spec: Spec, folder: Path) -> None:
    """A changed spec in the same folder would mix two experiments in one table.

    Raises:
        UserError: with a diff of what changed.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder}: found a file, expected a folder")
    stored = ResultFolder(folder).spec_file
    if not stored.exists():
        return
    before, after = _flat(load_spec(stored).recipe()), _flat(spec.recipe())
    changes = [
        f"  {key}: {shown(before.get(key, 'absent'))} -> {shown(after.get(key, 'absent'))}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]
    if changes:
        raise UserError(
            f"{folder} holds the results of another spec; what changed:\n"
            + "\n".join(changes)
            + "\nTake the change back, or choose another folder with --out."
        )


def refuse_other_data(study: optuna.Study, data: ImageData | None, folder: Path) -> None:
    """The spec names a place; what lies there may have changed since the sweep began.

    Raises:
        UserError: it has.
    """
    if data is None:
        return
    before = study.user_attrs.get("data", {"name": data.name, "sha256": data.sha256})
    if before["sha256"] != data.sha256:
        raise UserError(
            f"{folder} holds the results of other images: {before['name']} with checksum "
            f"{before['sha256']}, found {data.name} with {data.sha256}. "
            "Take the change back, or choose another folder with --out."
        )
    if "data" not in study.user_attrs:
        study.set_user_attr("data", before)


def refuse_endless(spec: Spec) -> None:
    """A grid beyond all patience, or a search whose constraints nothing seems to meet.

    Raises:
        UserError: the spec asks for one.
    """
    space = spec.design_space
    if spec.search.sampler == "grid":
        if space.size > MAX_GRID:
            raise UserError(
                f"{spec.name}: found {space.size:,} combinations, expected at most {MAX_GRID:,} "
                "for the sampler grid; a census goes through more, another sampler draws trials"
            )
    elif space.constraints and not space.feasible(space.sample(_DRAWN, 0), _DRAWN).any():
        raise UserError(
            f"{spec.name}: constraints: none of {_DRAWN:,} architectures drawn at random meets them"
        )


def refuse_neighbours(workers: int, pack: int) -> None:
    """Each training of torchrun's processes wants all of them."""
    for option, count in (("--workers", workers), ("--pack", pack)):
        if count > 1 and distributed.launched():
            raise UserError(
                f"{option}: found {count}, expected 1: torchrun's processes train one at a time"
            )


@contextmanager
def measuring_alone(spec: Spec, folder: Path) -> Iterator[None]:
    """A search that has to know how fast an architecture is measures throughput beside trainings of
    other processes of this machine, unless it has the folder for itself.

    Raises:
        UserError: another process works in it.
    """
    waits = spec.measure.accuracy is not None and not spec.speed_decides
    if spec.measure.throughput is None or waits:
        yield
        return
    try:
        with filelock.FileLock(_measuring(folder), timeout=0):
            yield
    except filelock.Timeout:
        raise UserError(
            f"{folder}: another process measures throughput for this sweep on this machine, "
            "which this one would disturb"
        ) from None


@contextmanager
def measures_alone(folder: Path) -> Iterator[None]:
    """The processes of this machine that share a folder measure throughput one after the other."""
    with filelock.FileLock(_measuring(folder)).acquire(poll_interval=1.0):
        yield


def _measuring(folder: Path) -> Path:
    return folder / f".measuring-{socket.gethostname()}"


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    if not isinstance(value, dict):
        return {path: value}
    return {
        key: leaf
        for name, inner in value.items()
        for key, leaf in _flat(inner, f"{path}.{name}" if path else str(name)).items()
    }
