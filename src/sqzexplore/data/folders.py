"""Class folders of image files, as torchvision's ImageFolder reads them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ..errors import UserError, nearest
from .decode import channels_of, suffixes
from .source import Part, Source, assemble, split_named

#: What an archive's program leaves beside the files.
_NO_CLASS = ("__MACOSX",)
_HOW = (
    "; a folder that is named as a split holds a folder for each class, a class with such a name "
    "stands below a split: train/train/"
)


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
            yield os.fsencode(file.relative_to(self.root).as_posix()) + b"\0"
            yield self.read(index) if contents else str(file.stat().st_size).encode()


def open_image_folder(folder: Path) -> Source:
    """The set below `folder`: a folder a split (`train`, `val`, `test` and the like) with a folder
    a class in each, or the classes. Links are followed; what is no image is passed over, counted.

    Raises:
        UserError: no image, one class only, a class of one split that another does not have, or a
            folder that may be a split or a class.
    """
    splits = _splits(folder)
    first = "all" if "all" in splits else "train"
    if first not in splits:
        raise UserError(
            f"{folder}: found {', '.join(sorted(p.name for p in splits.values()))}, expected train"
        )
    classes = [entry.name for entry in _folders(splits[first])]
    if not classes:
        raise UserError(
            f"{splits[first]}: found no folder in it, expected parquet files, or a folder of "
            "images for each class"
        )
    parts, size, passed = {}, 0, Counter[str]()
    for split, root in splits.items():
        files, labels = _files(root, classes, passed)
        size += sum(_size(file) for file in files)
        parts[split] = Part(FileImages(folder, files), np.arange(len(files)), np.array(labels, int))
    name, remarks = folder.resolve().name, _remarks(passed)
    return assemble(name, classes, channels_of, parts, size, folder, remarks)


def _splits(folder: Path) -> dict[str, Path]:
    """The folder of each split; `all` where the classes are not split."""
    there = _folders(folder)
    named = {entry: split for entry in there if (split := split_named(entry.name))}
    # A folder of images alone is a class, whatever its name.
    holding = [entry for entry in named if _folders(entry)]
    others = [entry for entry in there if entry not in named]
    if not holding and (others or not named):
        return {"all": folder}
    names = ", ".join(entry.name for entry in there)
    if others:
        raise UserError(
            f"{folder}: found the folders {names}, expected splits alone or classes alone: "
            f"{others[0].name} is no split{_HOW}"
        )
    splits: dict[str, Path] = {}
    for entry, split in named.items():
        if split in splits:
            raise UserError(f"{folder}: found the folders {names}, expected one for {split}")
        splits[split] = entry
    return splits


def _files(root: Path, classes: list[str], passed: Counter[str]) -> tuple[list[Path], list[int]]:
    """Every image below `root` in order, and its label; `passed` counts other files by ending."""
    files: list[Path] = []
    labels: list[int] = []
    endings = suffixes()
    entries = _folders(root)
    if not entries:
        raise UserError(
            f"{root}: found no class folders, expected one for each class: images without labels "
            "cannot be evaluated; sort them into class folders, or move the folder away"
        )
    for entry in entries:
        if entry.name not in classes:
            raise UserError(
                f"{entry}: found a class that train does not have, expected one of its "
                f"{len(classes)}{nearest(entry.name, classes)}"
            )
        below = [(file, file.suffix.lower()) for file in sorted(_below(entry))]
        found = [file for file, ending in below if ending in endings]
        passed.update(ending or "no ending" for _, ending in below if ending not in endings)
        if not found:
            raise UserError(f"{entry}: found no image, expected at least one")
        files += found
        labels += [classes.index(entry.name)] * len(found)
    return files, labels


def _below(folder: Path) -> Iterator[Path]:
    """The files below a folder; links are followed, each folder once."""
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if _is_shown(name)]
        yield from (Path(place, name) for name in names if _is_shown(name))


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as error:
        what = "a link to nothing" if file.is_symlink() else f"a file that {error.strerror}"
        raise UserError(f"{file}: found {what}, expected an image") from None


def _folders(folder: Path) -> list[Path]:
    return [entry for entry in sorted(folder.iterdir()) if entry.is_dir() and _is_shown(entry.name)]


def _is_shown(name: str) -> bool:
    return not name.startswith(".") and name not in _NO_CLASS


def _remarks(passed: Counter[str]) -> list[str]:
    if not passed:
        return []
    kinds = ", ".join(f"{count:,} {ending}" for ending, count in passed.most_common(5))
    return [f"{passed.total():,} files passed over, which are no images: {kinds}"]
