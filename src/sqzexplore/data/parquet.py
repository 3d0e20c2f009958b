"""Image parquet files in the Hugging Face convention: a struct of bytes and path, and a label."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import UserError
from .decode import channels_of
from .source import IMAGES, LABELS, SPLIT_NAMES, Source, assemble, labelled_part, split_named

_SUBSTRUCTURE = "image: {bytes, path} (or img) and label: int64 (or fine_label)"
#: Parquet cannot be read an image at a time; larger sets come as class folders, or by name.
_LARGEST = 8 * 2**30


class ParquetImages:
    """The images of some parquet files, in memory as they are encoded."""

    def __init__(self, files: list[Path], root: Path, columns: list[str]) -> None:
        self.files = files
        self.names = [str(file.relative_to(root)) for file in files]
        #: As Arrow read them, which cannot hold more than 2 GiB in one piece; where each begins
        #: among all images, and in which row of which file.
        self.chunks: list[Any] = []
        self.starts, self._from = [0], list[tuple[Path, int]]()
        for file, column in zip(files, columns, strict=True):
            first = self.starts[-1]
            for images in _column(file, column).chunks:
                self.chunks.append(images.field("bytes"))
                self._from.append((file, self.starts[-1] - first))
                self.starts.append(self.starts[-1] + len(images))

    def __len__(self) -> int:
        return self.starts[-1]

    def read(self, index: int) -> bytes:
        """The encoded image; a row without bytes is an error."""
        number, row = self._place(index)
        value = self.chunks[number][row].as_py()
        if value is None:
            raise UserError(f"{self.where(index)}: found no bytes, expected an encoded image")
        return value

    def where(self, index: int) -> str:
        """File and row, counted from 0."""
        number, row = self._place(index)
        file, first = self._from[number]
        return f"{file}, row {first + row}"

    def fingerprint(self, contents: bool) -> Iterable[bytes]:
        """Names of the files, and their bytes or sizes."""
        for file, name in zip(self.files, self.names, strict=True):
            yield name.encode()
            yield file.read_bytes() if contents else str(file.stat().st_size).encode()

    def _place(self, index: int) -> tuple[int, int]:
        number = int(np.searchsorted(self.starts, index, side="right")) - 1
        return number, index - self.starts[number]


def parquet_files(folder: Path) -> list[Path]:
    """The parquet files of a set: in the folder, and below it, as in a clone from the hub."""
    here = sorted(folder.glob("*.parquet"))
    below = sorted(folder.glob("*/*.parquet")) + sorted(folder.glob("*/*/*.parquet"))
    return here + [
        f for f in below if not any(p.startswith(".") for p in f.relative_to(folder).parts)
    ]


def open_parquet(folder: Path) -> Source:
    """The set of the parquet files in `folder`; their names begin with the split's.

    Raises:
        UserError: a file is no image parquet, or a label stands for no class.
    """
    files = parquet_files(folder)
    size = sum(file.stat().st_size for file in files)
    if size > _LARGEST:
        raise UserError(
            f"{folder}: found {size / 2**30:.0f} GiB of parquet, expected at most "
            f"{_LARGEST / 2**30:.0f}; unpack larger sets into class folders"
        )
    schemas = {file: _schema(file) for file in files}
    first = sorted(schemas, key=lambda file: _split_of(file, folder) != "train")  # its order counts
    classes = next((schemas[file][2] for file in first if schemas[file][2]), ())
    renumbered = {file: _renumbered(file, own, classes) for file, (_, _, own) in schemas.items()}
    parts, most, remarks = {}, -1, list[str]()
    for split, members in _by_split(files, folder).items():
        labels = [_labels(file, schemas[file][1]) for file in members]
        for file, values in zip(members, labels, strict=True):
            _check_labels(file, values, classes)
            most = max(most, int(values.max(initial=-1)))
        stored = ParquetImages(members, folder, [schemas[file][0] for file in members])
        known = [renumbered[file](values) for file, values in zip(members, labels, strict=True)]
        part, said = labelled_part(stored, np.concatenate(known), split)
        remarks += said
        if part is not None:
            parts[split] = part
    classes = classes or tuple(map(str, range(most + 1)))
    return assemble(folder.resolve().name, classes, channels_of, parts, size, folder, remarks)


def _by_split(files: list[Path], folder: Path) -> dict[str, list[Path]]:
    """The files of each split: `train.parquet`, `test-00000-of-00001.parquet`, ..."""
    if len(files) == 1 and _split_of(files[0], folder) in (None, "train"):
        return {"all": files}
    splits: dict[str, list[Path]] = {}
    for file in files:
        split = _split_of(file, folder)
        if split is None:
            raise UserError(
                f"{file}: found a name of no split, expected it, or its folder's, to begin with "
                f"{', '.join(SPLIT_NAMES)}"
            )
        splits.setdefault(split, []).append(file)
    return splits


def _split_of(file: Path, folder: Path) -> str | None:
    """By the beginning of the file's name, or by the name of a folder above it."""
    names = [re.split(r"[-_.]", file.name)[0], *reversed(file.relative_to(folder).parts[:-1])]
    return next((split for name in names if (split := split_named(name))), None)


def _renumbered(
    file: Path, own: tuple[str, ...], classes: tuple[str, ...]
) -> Callable[[np.ndarray], np.ndarray]:
    """Labels of a file whose classes stand in another order, matched by their names."""
    if not own or own == classes:
        return lambda values: values
    if sorted(own) != sorted(classes):
        strange = sorted({*own} ^ {*classes})
        raise UserError(
            f"{file}: found other classes than in the first file ({', '.join(strange[:5])}), "
            "expected the same names"
        )
    order = np.array([classes.index(name) for name in own])
    return lambda values: np.where(values < 0, values, order[values])


def _schema(file: Path) -> tuple[str, str, tuple[str, ...]]:
    """Names of the image and label columns, and the classes where the file knows them."""
    try:
        schema = pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file}: no readable parquet file ({_first_line(error)})") from None
    image = next((name for name in IMAGES if name in schema.names), None)
    label = next((name for name in LABELS if name in schema.names), None)
    if image is None or label is None or not _is_image(schema.field(image).type):
        found = ", ".join(f"{field.name}: {field.type}" for field in schema)
        raise UserError(f"{file}: found the columns {found}, expected {_SUBSTRUCTURE}")
    if not pa.types.is_integer(schema.field(label).type):
        raise UserError(
            f"{file}: found {label}: {schema.field(label).type}, expected integers from 0"
        )
    try:
        described = json.loads((schema.metadata or {})[b"huggingface"])
        names = described["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError):
        names = ()
    return image, label, tuple(names)


def _is_image(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0


def _column(file: Path, column: str) -> Any:
    try:
        return pq.read_table(file, columns=[column])[column]
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file}: no readable parquet file ({_first_line(error)})") from None


def _labels(file: Path, column: str) -> np.ndarray:
    values = _column(file, column)
    if values.null_count:
        raise UserError(f"{file}: found {values.null_count} rows without a {column}")
    return values.to_numpy().astype(np.int64)


def _check_labels(file: Path, values: np.ndarray, classes: tuple[str, ...]) -> None:
    wrong = np.flatnonzero((values < -1) | (values >= (len(classes) or np.inf)))
    if len(wrong):
        expected = f"0 to {len(classes) - 1}" if classes else "integers from 0"
        raise UserError(
            f"{file}, row {wrong[0]}: found the label {values[wrong[0]]}, expected {expected}"
            + (f": the file names {len(classes)} classes" if classes else "")
        )


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
