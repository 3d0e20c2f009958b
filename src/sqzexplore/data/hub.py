"""Data sets of the Hugging Face hub, through the `datasets` library (extra `hf`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..errors import UserError
from .decode import channels_of
from .source import IMAGES, LABELS, Source, assemble, labelled_part, split_named


class HubImages:
    """The encoded images of one split, in the library's memory-mapped files."""

    def __init__(self, rows: Any, column: str, where: str) -> None:
        self.rows, self.column, self.place = rows, column, where

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> bytes:
        """The encoded image."""
        image = self.rows[index][self.column]
        if image["bytes"] is None:
            raise UserError(f"{self.where(index)}: found no bytes, expected an encoded image")
        return image["bytes"]

    def where(self, index: int) -> str:
        """Name of the set, split and row."""
        return f"{self.place}, row {index}"

    def fingerprint(self, contents: bool) -> Iterable[bytes]:
        """The images, or the library's own fingerprint of the split."""
        if not contents:
            yield self.rows._fingerprint.encode()
            return
        for index in range(len(self)):
            yield self.read(index)


def open_hub(name: str) -> Source:
    """The set `owner/name`, or `owner/name:configuration`, of the hub.

    Raises:
        UserError: the library is not installed, there is no such set, or it holds no images.
    """
    try:
        import datasets
    except ImportError:
        raise UserError(
            f"{name}: no such folder; a Hugging Face data set needs the extra hf: "
            'pip install "sqzexplore[hf]"'
        ) from None
    repository, _, configuration = name.partition(":")
    try:
        loaded = datasets.load_dataset(repository, configuration or None)
    except Exception as error:  # the library raises many kinds, of the network and of the files
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{name}: no such folder, and the Hugging Face data set cannot be loaded ({reason})"
        ) from None
    return from_splits(loaded, name)


def from_splits(loaded: Any, name: str) -> Source:
    """The Source of a `datasets.DatasetDict`; raises as `open_hub` does."""
    import datasets

    first = next(iter(loaded.values()))
    image = next((key for key in IMAGES if key in first.features), None)
    label = next((key for key in LABELS if key in first.features), None)
    classes = getattr(first.features.get(label), "names", None)
    if image is None or label is None or classes is None:
        raise UserError(
            f"{name}: found the features {', '.join(first.features)}, expected image (or img), "
            "and label with the names of the classes"
        )
    parts, size, remarks = {}, 0, list[str]()
    for split, rows in loaded.items():
        if (meant := split_named(split)) is None or meant in parts:
            raise UserError(
                f"{name}: found the splits {', '.join(loaded)}, expected one each of train, "
                f"validation and test: {split} is not understood"
            )
        encoded = rows.select_columns([image]).cast_column(image, datasets.Image(decode=False))
        labels = np.asarray(rows.select_columns([label]).with_format("numpy")[label][:], np.int64)
        wrong = np.flatnonzero((labels < -1) | (labels >= len(classes)))
        if len(wrong):
            raise UserError(
                f"{name}, {split}, row {wrong[0]}: found the label {labels[wrong[0]]}, expected "
                f"0 to {len(classes) - 1}"
            )
        stored = HubImages(encoded, image, f"{name}, {split}")
        part, said = labelled_part(stored, labels, meant)
        remarks += said
        if part is not None:
            parts[meant] = part
            size += rows.size_in_bytes or 0
    return assemble(repository_name(name), classes, channels_of, parts, size, name, remarks)


def repository_name(name: str) -> str:
    """`owner/name:configuration` in characters that a file's name may hold."""
    return name.replace("/", "--").replace(":", "--")
