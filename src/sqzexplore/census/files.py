"""A census on disk."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from .. import provenance
from ..files import write_atomically, write_json
from ..network.frames import format_value
from ..spec.models import Spec
from .blocks import Block, joined
from .query import Census


def write_census(census: Census, spec: Spec, folder: Path) -> list[Path]:
    """Write what is worth keeping of the census of `spec` into `folder`; returns the files.

    `front`, what may be on it, and `pools` as CSV and Parquet, `census.json` (counts, ranges,
    shares, what was asked, provenance) and the spec.
    """
    folder.mkdir(parents=True, exist_ok=True)
    frames = {"front": census.front, "pools": census.pools}
    if census.possible is not None:
        frames["possible_front"] = census.possible
    for name, frame in frames.items():
        write_atomically(folder / f"{name}.csv", frame.to_csv(index=False).encode())
        write_atomically(folder / f"{name}.parquet", frame.to_parquet(index=False))
    write_json(folder / "census.json", _summary(census, spec))
    write_atomically(folder / "spec.yaml", spec.source.encode())
    return [folder / name for name in (*(f"{name}.csv" for name in frames), "census.json")]


def _summary(census: Census, spec: Spec) -> dict[str, object]:
    query = census.query
    return {
        "name": spec.name,
        "question": spec.question,
        "input_size": census.input_size,
        "combinations": census.combinations,
        "drawn_at_random": query.sample is not None,
        "feasible": census.feasible,
        "where": query.where.text if query.where else None,
        "spelled": census.spelled,
        "kept": census.kept,
        "ranges": {
            name: {end: float(v) if name == "size_mb" else int(v) for end, v in row.items()}
            for name, row in census.ranges.iterrows()
            if census.kept
        },
        "shares": {
            name: {format_value(value): n for value, n in counts.items()}
            for name, counts in census.shares.items()
        },
        "front": {
            "minimize": query.minimize,
            "maximize": query.maximize,
            "size": len(census.front),
            "possible": None if census.possible is None else len(census.possible),
        },
        "predictions": query.remarks(),
        "provenance": provenance.of_sweep("cpu"),
    }


class Writer:
    """Rows into a file, many at a time."""

    _GROUP = 2**18

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._waiting: list[Block] = []

    def add(self, block: Block) -> None:
        """Take the next rows."""
        self._waiting.append(block)
        if sum(block.rows for block in self._waiting) >= self._GROUP:
            self._write()

    def finish(self, empty: Block) -> None:
        """Write what is waiting, and the file's end; `empty` gives the columns of an empty file."""
        self._waiting.append(empty)
        self._write()
        self._close()

    def _write(self) -> None:
        frame = joined(self._waiting).frame()
        self._waiting.clear()
        self._append(frame)

    def _append(self, frame: pd.DataFrame) -> None:
        raise NotImplementedError

    def _close(self) -> None:
        """The file's end."""


class CsvWriter(Writer):
    """Rows as CSV."""

    _begun = False

    def _append(self, frame: pd.DataFrame) -> None:
        self._file.write(frame.to_csv(index=False, header=not self._begun).encode())
        self._begun = True


class ParquetWriter(Writer):
    """Rows as Parquet, a large row group at a time."""

    _writer: pq.ParquetWriter | None = None

    def _close(self) -> None:
        assert self._writer is not None
        self._writer.close()

    def _append(self, frame: pd.DataFrame) -> None:
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._file, _schema(frame), compression="zstd")
        self._writer.write_table(
            pa.Table.from_pandas(frame, schema=self._writer.schema, preserve_index=False)
        )


#: By the file's ending.
WRITERS: dict[str, type[Writer]] = {".parquet": ParquetWriter, ".csv": CsvWriter}


def _schema(frame: pd.DataFrame) -> pa.Schema:
    """Categories as dictionaries of text, whatever categories a block happens to have."""
    plain = pa.Schema.from_pandas(frame, preserve_index=False)
    text = pa.dictionary(pa.int32(), pa.string())
    fields = [
        pa.field(f.name, text) if isinstance(frame[f.name].dtype, pd.CategoricalDtype) else f
        for f in plain
    ]
    return pa.schema(fields)
