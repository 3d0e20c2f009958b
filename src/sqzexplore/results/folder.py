"""A result folder: the one place that knows how its files are named, written and read."""

from __future__ import annotations

import glob
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import UserError
from ..files import home, write_atomically
from ..network.architecture import FIELDS
from ..network.columns import architecture_at
from ..network.frames import columns_of_frame, with_overrides
from ..spec.load import load_spec
from ..spec.models import Spec
from .tables import DEFAULTS, IDENTITY, TABLES, to_frame


class ResultFolder:
    """What a sweep, or a bench, leaves in a folder."""

    def __init__(self, path: str | Path) -> None:
        self.path = home(path)
        self.spec_file = self.path / "spec.yaml"
        self.journal = self.path / "study.journal"
        self.provenance = self.path / "provenance.json"
        #: What is measured and not yet in a table.
        self.scratch = self.path / "partial"
        self.figures = self.path / "figures"
        self.report = self.path / "report.html"

    def spec(self) -> Spec:
        """The sweep's spec.

        Raises:
            UserError: there is none, or it is damaged.
        """
        if not self.spec_file.is_file():
            raise UserError(f"{self.path}: found no spec.yaml, expected the folder of a sweep")
        return load_spec(self.spec_file)

    def has(self, table: str) -> bool:
        """Whether there is such a table."""
        return self._file(table) is not None

    def table(self, name: str) -> pd.DataFrame | None:
        """A table of the folder; None if it made none.

        Raises:
            UserError: it cannot be read.
        """
        file = self._file(name)
        return None if file is None else with_overrides(self._read(file, name))

    def write(self, tables: Mapping[str, list[dict[str, Any]]]) -> None:
        """Write tables as CSV and Parquet; a reader never sees half a file."""
        for name, rows in tables.items():
            if not rows and name != "trials":
                continue
            frame = to_frame(rows, TABLES[name])
            write_atomically(self.path / f"{name}.csv", frame.to_csv(index=False).encode())
            write_atomically(self.path / f"{name}.parquet", frame.to_parquet(index=False))

    def drop(self, table: str) -> None:
        """Remove a table, if there is one."""
        for suffix in _SUFFIXES:
            (self.path / f"{table}{suffix}").unlink(missing_ok=True)

    def files(self) -> list[Path]:
        """Spec, provenance, study and tables, as far as there are any."""
        names = [self.spec_file, self.provenance, self.journal]
        tables = [self.path / f"{name}{suffix}" for name in TABLES for suffix in _SUFFIXES]
        return [file for file in [*names, *tables] if file.is_file()]

    def _file(self, table: str) -> Path | None:
        """What a table is read from: Parquet, which knows the types, or else the CSV."""
        files = (self.path / f"{table}{suffix}" for suffix in _SUFFIXES)
        return next((file for file in files if file.is_file()), None)

    def _read(self, file: Path, table: str) -> pd.DataFrame:
        types = {name: column.type for name, column in TABLES[table].items()}
        try:
            # From one opening: between two, a running sweep can put another file in its place.
            frame = _parsed(file.read_bytes(), file.suffix, types)
            needed = [name for name in IDENTITY if name in types and name != "net_id"]
            missing = [name for name in needed if name not in frame]
            if missing:
                raise ValueError(f"it has no column {missing[0]}")
            # What an older version did not measure is missing; a metaparameter that it did not
            # have was at what is now its default.
            absent = {n: DEFAULTS[n] for n in types if n in FIELDS and n not in frame}
            frame = frame.assign(**absent).reindex(columns=[*types])
            kinds = zip(types.items(), frame.dtypes, strict=True)
            wrong = {name: kind for (name, kind), found in kinds if found != kind}
            frame = frame.astype(wrong) if wrong else frame  # which takes a while for nothing
            if "runtime" in frame:  # an older version had but one
                of_torch = frame["runtime"].isna() & frame["outcome"].notna()
                frame.loc[of_torch, "runtime"] = "torch"
            if table == "trials":  # an older version measured all of a trial on one device
                name = "throughput_device_name"
                frame[name] = frame[name].fillna(
                    frame["device_name"].where(frame["images_per_s"].notna())
                )
            if "net_id" in frame and (unnamed := frame["net_id"].isna()).any():
                frame.loc[unnamed, "net_id"] = self._net_ids(frame[unnamed], table)
            if table == "trials" and frame["proxy"].isna().all() and frame["data"].notna().any():
                frame.loc[frame["data"].notna(), "proxy"] = self._proxy()
            return frame
        except (OSError, ValueError, TypeError) as error:  # pyarrow's errors are ValueErrors
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{file}: cannot be read as the table {table} ({reason}); the same sweep run "
                "again writes it anew from its study"
            ) from None

    def _proxy(self) -> Any:
        """That of the folder's spec, for a table that an older version wrote without."""
        try:
            accuracy = self.spec().measure.accuracy
        except UserError:  # tables alone
            return pd.NA
        return accuracy.proxy_text if accuracy else pd.NA

    def _net_ids(self, rows: pd.DataFrame, table: str) -> Any:
        """`net_id` of rows that an older version wrote without: by their fields, or, where a table
        has none, by the table of trials beside it, if there is one."""
        if table == "trials":
            rows = rows.dropna(subset=[*FIELDS])
            columns = columns_of_frame(rows)
            ids = [architecture_at(columns, row).net_id for row in range(len(rows))]
            return pd.Series(ids, index=rows.index, dtype="string")
        trials = self.table("trials")
        if trials is None:
            return pd.NA
        return rows["arch_id"].map(dict(zip(trials["arch_id"], trials["net_id"], strict=True)))


_SUFFIXES = (".parquet", ".csv")


def _parsed(content: bytes, suffix: str, types: Mapping[str, str]) -> pd.DataFrame:
    """A file's table; of a CSV, an empty cell is missing, and nothing else is."""
    if suffix == ".parquet":
        return pd.read_parquet(io.BytesIO(content))
    return pd.read_csv(
        io.BytesIO(content), dtype=dict(types), keep_default_na=False, na_values=[""]
    )


def load_results(path: str | Path, table: str = "trials") -> pd.DataFrame:
    """A table of one sweep, or of all sweeps that a pattern such as `results/*` matches.

    Args:
        path: a result folder, or a pattern; folders without the table are passed over.
        table: trials, seeds, history, images or throughput.

    Returns:
        The rows of all sweeps, typed as `results.tables.TABLES` says; column `sweep` tells them
        apart. What any row overrides for a single Fire has a column too, such as
        `fire5.squeeze_ratio`.

    Raises:
        UserError: no folder with such a table.

    Example:
        >>> load_results("results/*").groupby("sweep")["top1"].max()  # doctest: +SKIP
    """
    if table not in TABLES:
        raise UserError(f"no table {table!r}; the tables are {', '.join(TABLES)}")
    path = home(path)
    folders = [path]
    if not folders[0].is_dir():  # a folder's name may hold the characters of a pattern
        folders = [Path(match) for match in sorted(glob.glob(str(path)))]
    read = [ResultFolder(folder).table(table) for folder in folders if folder.is_dir()]
    frames = [frame for frame in read if frame is not None]
    if not frames:
        raise UserError(f"{path}: found no table {table}, expected the folder of a sweep")
    return with_overrides(pd.concat(frames, ignore_index=True))
