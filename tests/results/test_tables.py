"""Tables that older versions wrote."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings

import sqzexplore as sqz
from helpers import ROOT
from helpers.strategies import architectures
from sqzexplore.errors import UserError
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
        if "arch_id" in loaded:
            assert loaded["net_id"].tolist() == [networks[name] for name in loaded["arch_id"]]


@pytest.mark.parametrize("folder", FOLDERS[:2], ids=lambda folder: folder.name)
def test_a_row_that_plain_pandas_read_is_an_architecture(folder: Path) -> None:
    """Our own CSV, without any word on its types: as a table, and row by row."""
    plain, typed = pd.read_csv(folder / "trials.csv"), sqz.load_results(folder)
    assert plain["arch_id"].tolist() == typed["arch_id"].tolist()
    (size,) = typed["input_size"].unique()
    for rows in (plain, typed):
        assert sqz.cost_table(rows, int(size))["macs"].tolist() == typed["macs"].tolist()
        for _, row in rows.iterrows():
            fields = row[[name for name in (*FIELDS, "overrides") if name in row]].to_dict()
            assert sqz.Architecture(**fields).arch_id == row["arch_id"]


def test_no_pools_and_one_come_back_from_csv(tmp_path: Path) -> None:
    """pandas makes 4.0 of "4" beside an empty cell."""
    several = [sqz.Architecture(pool_after=pools) for pools in ((), (4,))]
    layers = [",".join(map(str, each.pool_after)) for each in several]
    frame = pd.DataFrame([each.model_dump() for each in several]).assign(pool_after=layers)
    frame.drop(columns="overrides").to_csv(tmp_path / "t.csv", index=False)
    read = pd.read_csv(tmp_path / "t.csv")
    assert read["pool_after"].dtype == float
    assert sqz.cost_table(read)["macs"].tolist() == sqz.cost_table(several)["macs"].tolist()
    assert [sqz.Architecture(**row) for row in read.to_dict("records")] == several


def test_overrides_that_are_none_are_named(tmp_path: Path) -> None:
    trials = sqz.load_results(ROOT / "results" / "sr").assign(overrides="fire5.squeeze=0.5")
    trials.to_csv(tmp_path / "trials.csv", index=False)
    with pytest.raises(UserError, match=r"column 'overrides': .*did you mean 'fire5.squeeze_ratio"):
        sqz.load_results(tmp_path)


@settings(max_examples=300, deadline=None)
@given(architectures(max_fires=3))
def test_no_name_is_a_number_to_a_reader_of_csv(architecture: sqz.Architecture) -> None:
    for name in (architecture.arch_id, architecture.net_id):
        assert len(name) == 12
        (back,) = pd.read_csv(io.StringIO(f"x\n{name}\n"))["x"]
        assert back == name


def test_a_name_of_digits_alone_becomes_another() -> None:
    """One architecture in 250 has a hash that a reader of CSV would take for a number; all others
    keep their names."""
    numbers = 0
    for width in range(1, 1500):
        architecture = sqz.Architecture(stem_width=width)
        fields = architecture.model_dump(mode="json")
        del fields["overrides"]
        digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]
        if re.fullmatch(r"\d+(e\d+)?", digest):
            numbers += 1
            assert not re.fullmatch(r"\d+(e\d+)?", architecture.arch_id)
        else:
            assert architecture.arch_id == digest
    assert numbers >= 2


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
