"""What a sweep refuses before it begins, so that nothing is mixed up or measured wrongly."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
import optuna

from ..data.images import ImageData
from ..errors import UserError
from ..network.onnx import require_onnx
from ..spec.models import Spec
from ..train import distributed

#: Combinations of a grid that a sweep goes through.
MAX_GRID = 1_000_000
#: Architectures drawn to see whether a search can meet its constraints.
_DRAWN = 100_000


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


def refuse_smaller(spec: Spec) -> None:
    """Trained networks are compressed and quantised by the process that trained them, with ONNX.

    Raises:
        UserError: several processes share each training, or a package is missing.
    """
    for section in ("compression", "int8"):
        if getattr(spec.measure, section) and distributed.launched():
            raise UserError(
                f"measure.{section}: expected a sweep without torchrun, whose processes share "
                "every training; sqzexplore sweep --workers uses several by itself"
            )
    if spec.measure.int8:
        require_onnx("measure.int8")


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
