"""Class folders of image files, as torchvision's ImageFolder reads them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ..errors import UserError, nearest
from .decode import channels_of
from .source import Part, Source, assemble

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".gif", ".tif", ".tiff")
_SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}


class FileImages:
    """Image files below `root`."""

    def __init__(self, root: Path, files: list[Path]) -> None:
        self.root, self.files = root, files

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> bytes:
        """The bytes of the file."""
        try:
            return self.files[index].read_bytes()
        except OSError as error:
            raise UserError(f"{self.files[index]}: cannot be read ({error.strerror})") from None

    def where(self, index: int) -> str:
        """The path of the file."""
        return str(self.files[index])

    def fingerprint(self, contents: bool) -> Iterable[bytes]:
        """Names of the files, and their bytes or sizes."""
        for index, file in enumerate(self.files):
            yield file.relative_to(self.root).as_posix().encode() + b"\0"
            yield self.read(index) if contents else str(file.stat().st_size).encode()


def open_image_folder(folder: Path) -> Source:
    """The set below `folder`: train/, val/, test/ with a folder a class in each, or the classes.

    Raises:
        UserError: no image, one class only, or a class of one split that another does not have.
    """
    splits = {
        split: folder / name for name, split in _SPLITS.items() if (folder / name).is_dir()
    } or {"all": folder}
    first = "all" if "all" in splits else "train"
    if first not in splits:
        raise UserError(
            f"{folder}: found {', '.join(sorted(p.name for p in splits.values()))}, expected train"
        )
    classes = [entry.name for entry in sorted(splits[first].iterdir()) if _is_class(entry)]
    if not classes:
        raise UserError(
            f"{splits[first]}: found no folder, expected parquet files, or a folder of images "
            "for each class"
        )
    parts, size = {}, 0
    for split, root in splits.items():
        files, labels = _files(root, classes)
        size += sum(file.stat().st_size for file in files)
        parts[split] = Part(FileImages(folder, files), np.arange(len(files)), np.array(labels, int))
    return assemble(folder.resolve().name, classes, channels_of, parts, size, folder)


def _files(root: Path, classes: list[str]) -> tuple[list[Path], list[int]]:
    """Every image below `root` in order, and its label."""
    files: list[Path] = []
    labels: list[int] = []
    for entry in sorted(root.iterdir()):
        if not _is_class(entry):
            continue
        if entry.name not in classes:
            raise UserError(
                f"{entry}: found a class that train does not have, expected one of its "
                f"{len(classes)}{nearest(entry.name, classes)}"
            )
        found = sorted(f for f in entry.rglob("*") if f.suffix.lower() in _SUFFIXES)
        if not found:
            raise UserError(f"{entry}: found no image, expected at least one")
        files += found
        labels += [classes.index(entry.name)] * len(found)
    return files, labels


def _is_class(entry: Path) -> bool:
    return entry.is_dir() and not entry.name.startswith(".")
