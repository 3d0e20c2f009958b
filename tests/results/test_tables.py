"""Tables that older versions wrote."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

import sqzexplore as sqz
from helpers import ROOT
from sqzexplore.network.architecture import FIELDS
from sqzexplore.results.folder import ResultFolder
from sqzexplore.results.tables import TABLES

FOLDERS = sorted(file.parent for file in (ROOT / "results").glob("*/trials.csv"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_committed_tables_load_as_they_are_and_name_their_networks(folder: Path) -> None:
    networks = {}
    for row in sqz.load_results(folder).to_dict("records"):
        architecture = sqz.Architecture(**{name: row[name] for name in FIELDS})
        assert architecture.arch_id == row["arch_id"]
        networks[row["arch_id"]] = architecture.net_id
    for table in TABLES:
        if not (folder / f"{table}.csv").exists():
            continue
        loaded = sqz.load_results(folder, table)
        types = {name: column.type for name, column in TABLES[table].items()}
        same = pd.read_csv(folder / f"{table}.csv", dtype=types)
        pd.testing.assert_frame_equal(loaded[[*same]], same)
        assert loaded["net_id"].tolist() == [networks[name] for name in loaded["arch_id"]]


def test_a_long_table_alone_does_not_know_its_networks(tmp_path: Path) -> None:
    shutil.copy(ROOT / "results" / "cifar10-sr" / "seeds.csv", tmp_path)
    seeds = sqz.load_results(tmp_path, "seeds")
    assert seeds["net_id"].isna().all()
    assert seeds["net_id"].dtype == "string"


@pytest.mark.parametrize("table", ["trials", "seeds", "history", "throughput"])
def test_a_csv_alone_gives_what_the_parquet_gives(table: str, tmp_path: Path) -> None:
    """The registry knows the types: the tables are equal to the last digit."""
    rows = sqz.load_results(ROOT / "results" / "sr", table)
    known = [name for name in rows if name in TABLES[table]]
    folder = ResultFolder(tmp_path)
    folder.write(
        {table: rows[known].astype(object).where(rows[known].notna(), None).to_dict("records")}
    )
    both = folder.table(table)
    (tmp_path / f"{table}.parquet").unlink()
    alone = folder.table(table)
    pd.testing.assert_frame_equal(both, alone, check_exact=True)
    pd.testing.assert_frame_equal(alone[known], rows[known], check_exact=True)
