"""Tables that older versions wrote."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

import sqzexplore as sqz
from helpers import ROOT
from sqzexplore.network.architecture import FIELDS
from sqzexplore.results.tables import TABLES

FOLDERS = sorted(file.parent for file in (ROOT / "results").glob("*/trials.parquet"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_committed_tables_load_as_they_are_and_name_their_networks(folder: Path) -> None:
    networks = {}
    for row in sqz.load_results(folder).to_dict("records"):
        architecture = sqz.Architecture(**{name: row[name] for name in FIELDS})
        assert architecture.arch_id == row["arch_id"]
        networks[row["arch_id"]] = architecture.net_id
    for table in TABLES:
        if not (folder / f"{table}.parquet").exists():
            continue
        loaded = sqz.load_results(folder, table)
        stored = pd.read_parquet(folder / f"{table}.parquet")
        same = stored.astype({name: loaded[name].dtype for name in stored})
        pd.testing.assert_frame_equal(loaded[[*stored]], same)
        assert loaded["net_id"].tolist() == [networks[name] for name in loaded["arch_id"]]


def test_a_long_table_alone_does_not_know_its_networks(tmp_path: Path) -> None:
    shutil.copy(ROOT / "results" / "cifar10-sr" / "seeds.parquet", tmp_path)
    seeds = sqz.load_results(tmp_path, "seeds")
    assert seeds["net_id"].isna().all()
    assert seeds["net_id"].dtype == "string"
