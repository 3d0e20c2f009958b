"""What a sweep refuses before it begins, so that nothing is mixed up or measured wrongly."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
import optuna
from optuna.storages import BaseStorage

from ..data.images import ImageData
from ..errors import UserError
from ..network.onnx import require_onnx
from ..results.folder import ResultFolder
from ..spec.load import parse_spec
from ..spec.models import Spec
from ..train import distributed
from .going_on import MORE_TRIALS, changes
from .optuna_private import study_id
from .storage.open import open_storage

#: Combinations of a grid that a sweep goes through.
MAX_GRID = 1_000_000
#: Architectures drawn to see whether a search can meet its constraints.
_DRAWN = 100_000
#: The attribute of the study that holds the spec that it began with.
SPEC = "spec"


def refuse_other_study(spec: Spec, folder: Path, database: BaseStorage | None) -> None:
    """The tables are written from the study: another one, or a new one, would empty them.

    Args:
        spec: of the sweep.
        folder: its result folder.
        database: where the study is, if not in the folder.

    Raises:
        UserError: the study from which the tables in the folder were written is not there.
    """
    results = ResultFolder(folder)
    try:
        table = results.table("trials")
    except UserError:
        return  # damaged; it is written anew
    if table is None or table.empty:
        return
    if database is None:
        is_here = results.journal.is_file() and results.journal.stat().st_size > 0
    else:
        rows = set(zip(table["trial"], table["arch_id"], strict=True))
        is_here = rows <= _rows_of(spec, database)
    if not is_here:
        began = "the --storage that it began with"
        if database is not None and results.journal.is_file():
            began = f"no --storage, for {results.journal.name} is in the folder"
        raise UserError(
            f"{folder}: holds {len(table):,} trials of a study that is not here; expected {began}, "
            "or another folder with --out"
        )


def refuse_other_spec(spec: Spec, folder: Path, database: BaseStorage | None) -> None:
    """A study goes by its sweep's name alone, which another sweep of the same database may have.

    Raises:
        UserError: the study of that name was begun by a spec that differs in more than its trials.
    """
    if (before := _spec_of_study(spec, folder, database)) is None:
        return
    more, other = changes(parse_spec(before), spec)
    lines = [*other, *(line for line in more if not line.startswith(MORE_TRIALS))]
    if lines:
        place = "--storage" if database is not None else ResultFolder(folder).journal
        raise UserError(
            f"{place}: holds a study {spec.name} of another spec; what changed:\n"
            + "\n".join(f"  {line}" for line in sorted(lines))
            + "\nTake the change back, or give this sweep another name."
        )


def _spec_of_study(spec: Spec, folder: Path, database: BaseStorage | None) -> str | None:
    """The spec that the study of this name began with, in a database, or in a journal beside which
    no spec lies any more; `news` compares one that does."""
    results, where = ResultFolder(folder), database
    if where is None and results.journal.is_file() and not results.spec_file.exists():
        where = open_storage(folder, None)
    studies = where.get_all_studies() if where else []
    known = (one.user_attrs.get(SPEC) for one in studies if one.study_name == spec.name)
    return next(known, None)


def _rows_of(spec: Spec, database: BaseStorage) -> set[tuple[int, str]]:
    """The trials of the sweep's study that have a row: number, and name of the architecture."""
    studies = (one for one in database.get_all_studies() if one.study_name == spec.name)
    return {
        (trial.number, trial.user_attrs["row"]["arch_id"])
        for study in studies
        for trial in database.get_all_trials(study_id(study), deepcopy=False)
        if trial.user_attrs.get("row")
    }


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
