"""Files that are whole or not there."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import filelock

from .errors import UserError, shown

_LOCK = ".lock"


def home(path: str | Path) -> Path:
    """`path`, in which `~` and `~user` stand for home folders; as it is where there is no such
    user, as in a shell."""
    return Path(os.path.expanduser(path))


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with replacing(path) as file:
        file.write(content)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all; NaN and infinity, which JSON does not
    have, are null."""
    text = json.dumps(without_nan(value), indent=2, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


def read_json(path: Path, number: int, what: str) -> dict[str, Any]:
    """The object in a JSON file that says its own format.

    Args:
        path: of the file.
        number: what its `format` has to be.
        what: the file should be, for messages.

    Raises:
        UserError: it cannot be read, is something else, or of another format.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = content["format"]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: expected {what}") from None
    if found != number:
        raise UserError(f"{path}: found format {shown(found)}, expected {number}")
    return dict(content)


def without_nan(value: Any) -> Any:
    """Mappings, lists and scalars with None where a number is not finite."""
    if isinstance(value, Mapping):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_writable(folder: Path, option: str) -> None:
    """Refuse a folder in which no file can be made, or that cannot be made itself.

    Raises:
        UserError: the message begins with `option`, which named the folder.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{option} {folder}: found a file, expected a folder")
    nearest_folder = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest_folder):
            pass
    except OSError as error:
        raise UserError(f"{option} {folder}: cannot be written to ({error.strerror})") from None


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """One process at a time writes the tables and figures of a folder; the others wait."""
    with filelock.FileLock(folder / _LOCK):
        yield


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file of another name in the same folder, which takes the place of `path` at the end."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path`, which takes its place at the end with all that it then holds.

    What `path` held before is gone then, and untouched if the block fails.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    old = Path(f"{temporary}.old")
    try:
        yield temporary
        for file in temporary.iterdir():
            file.chmod(0o644)
            with file.open("rb") as written:
                os.fsync(written.fileno())
        temporary.chmod(0o755)
        if path.exists():  # a folder takes the place of an empty one only
            os.replace(path, old)
        os.replace(temporary, path)
    except BaseException:
        if old.exists() and not path.exists():
            os.replace(old, path)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)


def check_new(path: Path, option: str) -> None:
    """Raise `UserError` where a file is there already, or cannot be written."""
    if path.exists():
        raise UserError(f"{option} {path}: there is such a file, expected a new one")
    check_writable(path.parent, option)
