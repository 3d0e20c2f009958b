"""The census against brute force: every architecture built by itself, filtered by Python."""

from __future__ import annotations

import itertools
import math
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import matplotlib as mpl
import numpy as np
import pandas as pd
import polars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from typer.testing import CliRunner

import sqzexplore as sqz
from helpers.command_line import Started
from helpers.strategies import spellings
from helpers.sweeps import run
from sqzexplore.census import accumulators, blocks, networks
from sqzexplore.census.census import take_census
from sqzexplore.census.query import Census, Query
from sqzexplore.cli.app import app
from sqzexplore.errors import FeatureMapVanishes, UserError
from sqzexplore.figures import census as figures_census
from sqzexplore.network.architecture import FIELDS
from sqzexplore.network.columns import columns_of
from sqzexplore.network.cost import COST_COLUMNS
from sqzexplore.network.identity import network_keys
from sqzexplore.results.folder import load_results
from sqzexplore.space.axis import Axis
from sqzexplore.space.constraints import Expression
from sqzexplore.space.space import Space
from sqzexplore.spec.load import parse_spec

mpl.use("agg")

SPEC = """\
name: few
question: What does it cost?
base: {num_classes: 10}
space:
  squeeze_ratio: [0.125, 0.5, 1.0]
  pool_after: {subsets_of: [1, 2, 4, 8], size: [1, 2]}
  bypass: [none, complex]
  fires: [6, 8]
  dropout: [0.0, 0.5]
constraints: ["params < 4e6"]
input_size: 96
search: {objectives: {params: minimize, macs: minimize, activations: maximize}}
"""
#: About a minute of work: long enough to be interrupted.
LONG = """\
name: long
space:
  base_expand: {min: 1, max: 1000}
  stem_width: {min: 1, max: 1000}
  squeeze_ratio: {min: 0.01, max: 1.0, step: 0.01}
"""


def brute_force(space: Space, size: int) -> pd.DataFrame:
    """Every architecture of the space as a row of plain Python values, infeasible ones left out."""
    rows = []
    for i in range(space.size):
        try:
            architecture = space.architecture(i)
            cost = sqz.cost(architecture, size)
        except (ValueError, FeatureMapVanishes):
            continue
        layers = ",".join(map(str, architecture.pool_after))
        rows.append(architecture.model_dump() | {"pool_after": layers} | cost.totals())
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def everything() -> pd.DataFrame:
    frame = brute_force(parse_spec(SPEC).design_space, 96)
    return frame[frame["params"] < 4e6].reset_index(drop=True)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_BLOCK", 7)


def plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Categories as text, for comparison."""
    return frame.astype({"pool_after": object, "bypass": object}).reset_index(drop=True)


def same(got: pd.DataFrame, expected: pd.DataFrame) -> None:
    expected = expected.reset_index(drop=True)
    assert list(got) == [*FIELDS, *COST_COLUMNS, "spellings"]
    assert (got["spellings"] == 1).all()
    columns = [*FIELDS, *COST_COLUMNS]
    assert plain(got)[columns].to_dict("records") == expected[columns].to_dict("records")


def test_it_counts_what_there_is(everything: pd.DataFrame) -> None:
    taken = take_census(parse_spec(SPEC).design_space, Query())
    assert (taken.combinations, taken.feasible, taken.kept) == (
        3 * 10 * 2 * 2 * 2,
        *[len(everything)] * 2,
    )
    for name in COST_COLUMNS:
        expected = everything[name].min(), everything[name].max()
        assert tuple(taken.ranges.loc[name]) == expected
    for axis in ("squeeze_ratio", "fires", "bypass", "dropout"):
        counts = everything[axis].value_counts().to_dict()
        assert {k: n for k, n in taken.shares[axis].items() if n} == counts
    assert sum(taken.shares["pool_after"].values()) == len(everything)
    assert taken.density.sum() == len(everything)
    at = [
        (everything[name].map(math.log10) * accumulators.CELLS_PER_DECADE).astype(int)
        for name in ("params", "macs")
    ]
    expected = np.zeros_like(taken.density)
    np.add.at(expected, tuple(at), 1)
    assert (taken.density == expected).all()


COPIES = """\
name: copies
space:
  expand_increment: [0, 32]
  bypass: [none, simple, complex]
  increment_every: [1, 2, 8]
  pool_after: [[1, 3], [1, 4]]
  width_multiplier: [0.5, 0.5001, 1.0]
input_size: 64
"""


@pytest.mark.parametrize(
    "where", [None, "increment_every > 1", "bypass == 'simple' or 3 in pool_after", "macs < 1e8"]
)
@pytest.mark.parametrize("sort", [(), ("macs",), ("-increment_every", "params")])
def test_a_network_of_many_spellings_is_one(
    where: str | None, sort: tuple[str, ...], tmp_path: Path
) -> None:
    """Against one architecture after the other: the first that meets the filter stands for all."""
    space = parse_spec(COPIES).design_space
    spelled: dict[str, list[dict[str, object]]] = {}
    for number in range(space.size):
        architecture = space.architecture(number)
        totals = sqz.cost(architecture, 64).totals()
        row = architecture.model_dump() | totals
        if where is None or eval(where, {}, row):
            row["pool_after"] = ",".join(map(str, architecture.pool_after))
            spelled.setdefault(architecture.net_id, []).append(row)
    first = pd.DataFrame([rows[0] | {"spellings": len(rows)} for rows in spelled.values()])
    assert first["spellings"].max() >= 4
    if sort:
        names = [name.removeprefix("-") for name in sort]
        ascending = [not name.startswith("-") for name in sort]
        first = first.sort_values(names, ascending=ascending, kind="stable")
    condition = None if where is None else Expression(where)
    out = tmp_path / "rows.parquet"
    taken = take_census(space, Query(condition, sort, top=4), out)
    assert (taken.kept, taken.spelled) == (len(first), first["spellings"].sum())
    expected = first[list(taken.top)].to_dict("records")
    assert plain(taken.top).to_dict("records") == expected[:4]
    take_census(space, Query(condition, sort), out)
    assert plain(pd.read_parquet(out)).to_dict("records") == expected
    assert sum(taken.shares["bypass"].values()) == taken.density.sum() == len(first)
    all_ = take_census(space, Query(condition, sort, spellings=True), out)
    assert all_.kept == all_.spelled == taken.spelled == len(pd.read_parquet(out))


@settings(max_examples=150, deadline=None)
@given(spellings())
def test_the_keys_of_columns_tell_networks_apart_as_their_names_do(
    architectures: list[sqz.Architecture],
) -> None:
    keys = network_keys(columns_of(architectures), len(architectures)).tolist()
    names = [architecture.net_id for architecture in architectures]
    for one, other in itertools.combinations(range(len(names)), 2):
        assert (keys[one] == keys[other]) == (names[one] == names[other])


def test_more_networks_than_a_first_table_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of keys grows; each network is counted once, whatever the block it comes in."""
    monkeypatch.setattr(networks, "_FIRST_SIZE", 4)
    space = parse_spec(COPIES).design_space
    names = {space.architecture(number).net_id for number in range(space.size)}
    assert take_census(space, Query()).kept == len(names)
    monkeypatch.setattr(networks, "MAX_NETWORKS", len(names) - 1)
    with pytest.raises(UserError, match="too many to tell which are the same"):
        take_census(space, Query())


def test_what_pools_cost(everything: pd.DataFrame) -> None:
    pools = take_census(parse_spec(SPEC).design_space, Query()).pools.set_index("pool_after")
    for layers, rows in everything.groupby("pool_after"):
        found = pools.loc[layers]
        assert found["architectures"] == len(rows)
        assert found["pools"] == len(layers.split(","))
        assert found["mean_pool_layer"] == np.mean([int(n) for n in layers.split(",")])
        for name in ("macs", "activations"):
            assert found[f"{name}_least"] == rows[name].min()
            assert found[f"{name}_greatest"] == rows[name].max()
            assert found[f"{name}_mean"] == pytest.approx(stats.gmean(rows[name]))
    assert len(pools) == everything["pool_after"].nunique()


@pytest.mark.parametrize(
    "where", ["params < 1e6 and bypass == 'none'", "4 in pool_after", "params < 0", "macs > 1"]
)
@pytest.mark.parametrize(
    ("sort", "by", "ascending"),
    [
        ((), [], []),
        (("macs",), ["macs"], [True]),
        (("-params", "macs"), ["params", "macs"], [False, True]),
    ],
)
def test_filter_sort_and_top(
    everything: pd.DataFrame, where: str, sort: tuple, by: list, ascending: list, tmp_path: Path
) -> None:
    rows = [
        eval(where, {}, row | {"pool_after": [int(n) for n in row["pool_after"].split(",")]})
        for row in everything.to_dict("records")
    ]
    expected = everything[pd.Series(rows)]
    if by:
        expected = expected.sort_values(by, ascending=ascending, kind="stable")
    space, out = parse_spec(SPEC).design_space, tmp_path / "rows.parquet"
    taken = take_census(space, Query(Expression(where), sort, top=5), out)
    assert taken.kept == sum(rows)
    same(taken.top, expected.head(5))
    same(pd.read_parquet(out), expected.head(5))
    take_census(space, Query(Expression(where), sort), out)
    same(pd.read_parquet(out), expected)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(COST_COLUMNS), min_size=1, max_size=4, unique=True),
    st.integers(0, 15),
)
def test_the_front_of_blocks_is_the_front_of_all(
    everything: pd.DataFrame, names: list[str], directions: int
) -> None:
    """Against every pair of rows; equal rows (dropout costs nothing) are all on it or all off."""
    minimize = tuple(name for i, name in enumerate(names) if directions >> i & 1)
    maximize = tuple(name for name in names if name not in minimize)
    space = parse_spec(SPEC).design_space
    front = take_census(space, Query(minimize=minimize, maximize=maximize)).front
    rows = everything[list(COST_COLUMNS)]
    signed = rows[[*minimize, *maximize]] * ([1] * len(minimize) + [-1] * len(maximize))
    values = signed.to_numpy()
    dominated = [
        bool(((values <= row).all(axis=1) & (values < row).any(axis=1)).any()) for row in values
    ]
    expected = sorted(map(tuple, rows[~np.array(dominated)].to_numpy().tolist()))
    assert sorted(map(tuple, front[list(COST_COLUMNS)].to_numpy().tolist())) == expected


def test_parquet_opens_everywhere(everything: pd.DataFrame, tmp_path: Path) -> None:
    out = tmp_path / "rows.parquet"
    take_census(parse_spec(SPEC).design_space, Query(), out)
    columns = ["squeeze_ratio", "pool_after", "bypass", "batch_norm", "params", "macs"]
    expected = everything[columns].to_dict("records")
    assert plain(pd.read_parquet(out))[columns].to_dict("records") == expected
    assert polars.read_parquet(out).select(columns).to_dicts() == expected
    rows = duckdb.sql(f"select {', '.join(columns)} from '{out}'").fetchall()
    assert [dict(zip(columns, row, strict=True)) for row in rows] == expected
    again = sqz.cost_table(pd.read_parquet(out), 96)
    assert again.to_dict("records") == everything[list(COST_COLUMNS)].to_dict("records")


def test_a_sweep_evaluates_exactly_what_the_census_keeps(tmp_path: Path) -> None:
    """A real sweep of costs alone: the same architectures, and the same counts."""
    run(SPEC, tmp_path / "sweep")
    take_census(parse_spec(SPEC).design_space, Query(), tmp_path / "rows.parquet")
    kept = sqz.cost_table(pd.read_parquet(tmp_path / "rows.parquet"), 96)
    swept = load_results(tmp_path / "sweep")
    assert (swept["state"] == "complete").all()
    assert len(swept) == len(kept) > 10
    columns = ["params", "macs", "activations"]
    assert sorted(swept[columns].itertuples(index=False, name=None)) == sorted(
        kept[columns].itertuples(index=False, name=None)
    )


@pytest.mark.parametrize("log", [False, True])
def test_a_sample_is_drawn_from_the_whole_space(
    log: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "_BLOCK", 512)  # eight, the last of which is not full
    space = Space(
        sqz.Architecture(),
        (
            Axis("squeeze_ratio", low=0.01, high=1.0, log=log, listed=False),
            Axis("bypass", ("none", "simple")),
            Axis("base_expand", tuple(range(16, 257)), log=log, listed=False),
        ),
    )
    out = tmp_path / "rows.parquet"
    taken = take_census(space, Query(sort=("macs",), sample=4000, seed=3, spellings=True), out)
    rows = pd.read_parquet(out)
    assert taken.combinations == taken.kept == len(rows) == 4000
    assert rows["macs"].is_monotonic_increasing
    assert rows["squeeze_ratio"].between(0.01, 1.0).all()
    assert rows["bypass"].value_counts().between(1800, 2200).all()
    for name, low, high in (("squeeze_ratio", 0.01, 1.0), ("base_expand", 15.5, 256.5)):
        shape = stats.loguniform(low, high) if log else stats.uniform(low, high - low)
        assert stats.kstest(rows[name] + 0.0, shape.cdf).statistic < 0.035
    take_census(
        space,
        Query(sort=("macs",), sample=4000, seed=3, spellings=True),
        tmp_path / "again.parquet",
    )
    pd.testing.assert_frame_equal(rows, pd.read_parquet(tmp_path / "again.parquet"))
    other = take_census(space, Query(sample=4000, seed=4, spellings=True))
    assert other.ranges.loc["macs", "least"] != taken.ranges.loc["macs", "least"]


# --- the command -------------------------------------------------------------------------------


def invoke(tmp_path: Path, text: str, *options: object):
    spec = tmp_path / "spec.yaml"
    spec.write_text(text)
    return CliRunner().invoke(app, ["census", str(spec), *map(str, options)])


def test_the_command_says_what_it_found(everything: pd.DataFrame, tmp_path: Path) -> None:
    out, folder = tmp_path / "rows.parquet", tmp_path / "few"
    where = "params < 1e6 and macs < 4e8"
    done = invoke(tmp_path, SPEC, "--where", where, "--top", 3, "--out", out, "--folder", folder)
    assert done.exit_code == 0, done.output
    kept = everything.query("params < 1e6 and macs < 4e8")
    assert f"240 combinations, {len(everything)} feasible, {len(kept)} kept" in done.output
    assert f"{len(kept)} distinct networks" in done.output
    assert "most activations" in done.output
    same(pd.read_parquet(out), kept.sort_values("macs", kind="stable").head(3))
    front = pd.read_parquet(folder / "front.parquet")
    expected = sqz.pareto_front(kept, minimize=["params", "macs"], maximize=["activations"])
    assert len(front) == len(expected)
    summary = pd.read_json(folder / "census.json", typ="series")
    assert (summary["kept"], summary["where"]) == (len(kept), where)
    for name in ("density", "late_downsampling"):
        for suffix in ("png", "pdf"):
            assert (folder / "figures" / f"{name}.{suffix}").stat().st_size > 5000


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--where", "parms < 1"], "--where: .*did you mean 'params'"),
        (["--where", "params"], "--where: .*expected a comparison"),
        (["--top", "3", "--sort", "mac"], "--sort: found 'mac'.*did you mean 'macs'"),
        (["--sort", "bypass"], "--sort: found 'bypass'"),
        (["--minimize", "top1"], "--minimize: found 'top1'"),
        (["--minimize", "params", "--maximize", "params"], "found params twice"),
        (["--sample", "0"], "--sample: found 0, expected 1 to"),
        (["--out", "nowhere/x.parquet"], "there is no folder nowhere"),
        (["--top", "500001"], "--top: found 500001"),
        (["--sort", ""], "--sort: found .."),
        (["--folder", "/proc/x"], "--folder /proc/x: cannot be written to"),
        (["--where", "params < 1" + "0" * 400], "--where: .*expected a condition"),
        (["--where", "-" * 490 + "1 < 2"], "--where: .*expected a condition"),
        (["--out", "."], "found a folder, expected a file"),
    ],
)
def test_bad_options(options: list[str], expected: str, tmp_path: Path) -> None:
    done = invoke(tmp_path, SPEC, *options)
    assert isinstance(done.exception, UserError)
    with pytest.raises(UserError, match=expected):
        raise done.exception
    assert sorted(p.name for p in tmp_path.iterdir()) == ["spec.yaml"]


def test_the_folder_of_a_sweep_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "study.journal").write_text("")
    done = invoke(tmp_path, SPEC, "--folder", tmp_path / "sweep")
    assert "holds the results of a sweep" in str(done.exception)
    assert len(list((tmp_path / "sweep").iterdir())) == 1


def test_a_census_of_nothing(tmp_path: Path) -> None:
    folder, out = tmp_path / "none", tmp_path / "none.parquet"
    done = invoke(tmp_path, SPEC, "--where", "params < 0", "--folder", folder, "--out", out)
    assert done.exit_code == 0, done.output
    assert "0 kept" in done.output
    assert len(pd.read_parquet(out)) == len(pd.read_parquet(folder / "front.parquet")) == 0


def test_a_front_of_ties_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accumulators, "MAX_FRONT", 50)
    done = invoke(tmp_path, SPEC, "--minimize", "in_channels")
    assert "in_channels do not tell them apart" in str(done.exception)


def test_an_order_shows_its_beginning(tmp_path: Path) -> None:
    assert "the first 10 by -macs" in invoke(tmp_path, SPEC, "--sort", "-macs").output


def test_a_continuous_axis_is_named_and_may_be_sampled(tmp_path: Path) -> None:
    text = "name: x\nspace: {squeeze_ratio: {min: 0.1, max: 0.5}}\n"
    text += "search: {sampler: random, trials: 1}\n"
    done = invoke(tmp_path, text)
    assert "space.squeeze_ratio is continuous" in str(done.exception)
    assert "--sample N" in str(done.exception)
    assert invoke(tmp_path, text, "--sample", 100).exit_code == 0


def test_what_is_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = invoke(tmp_path, LONG + "  num_classes: {min: 1, max: 100000}\n")
    assert "expected at most" in str(done.exception)
    assert "--sample N" in str(done.exception)
    monkeypatch.setattr(accumulators, "MAX_SORTED", 100)
    out = tmp_path / "x.parquet"
    assert "--where or --top" in str(
        invoke(tmp_path, SPEC, "--sort", "macs", "--out", out).exception
    )
    assert not out.exists()
    assert invoke(tmp_path, SPEC, "--out", out).exit_code == 0  # in the order that it has
    assert len(pd.read_parquet(out)) > 100
    wide = "name: x\nspace: {base_expand: [1, 1000000]}\nbase: {width_multiplier: 1000.0}\n"
    assert "beyond 2**53" in str(invoke(tmp_path, wide).exception)


def _census(tmp_path: Path, *options: str) -> Started:
    spec = tmp_path / "long.yaml"
    spec.write_text(LONG)
    return Started("census", spec, "--spellings", *options)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupt_leaves_no_half_file(number: int, tmp_path: Path) -> None:
    out = tmp_path / "rows.parquet"
    process = _census(tmp_path, "--out", str(out))
    deadline = time.monotonic() + 60
    while not any(p.stat().st_size > 100_000 for p in tmp_path.glob(".rows.parquet.*")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    _, message = process.communicate(timeout=60)
    assert not out.exists()
    if number != signal.SIGKILL:
        assert process.returncode == 130
        assert message.strip() == "sqzexplore: interrupted"
        assert [p.name for p in tmp_path.iterdir()] == ["long.yaml"]


def test_a_full_disk_leaves_no_half_file(tmp_path: Path) -> None:
    out = tmp_path / "rows.parquet"
    out.write_bytes(b"what stood there before")
    process = _census(tmp_path, "--out", str(out))
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (200_000, 200_000))
    _, message = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Traceback" not in message
    assert "File too large" in message
    assert out.read_bytes() == b"what stood there before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["long.yaml", "rows.parquet"]


def test_memory_is_bounded(tmp_path: Path) -> None:
    """A million architectures, all of them in a file, and a front: less than all rows take."""
    (tmp_path / "million.yaml").write_text(LONG.replace("max: 1000", "max: 100"))
    # Not getrusage, whose maximum a process inherits from the one that started it.
    code = (
        "from pathlib import Path; from sqzexplore.cli import main\n"
        "try: main()\n"
        "except SystemExit:\n"
        "    status = Path('/proc/self/status').read_text()\n"
        "    print(int(status.partition('VmHWM:')[2].split()[0]) // 1024)"
    )
    options = [
        "census",
        str(tmp_path / "million.yaml"),
        "--out",
        str(tmp_path / "x.parquet"),
    ]
    done = subprocess.run(
        [sys.executable, "-c", code, *options], capture_output=True, text=True, check=True
    )
    assert "1,000,000 combinations" in done.stdout
    assert int(done.stdout.splitlines()[-1]) < 470


# --- the figures -------------------------------------------------------------------------------


@pytest.fixture
def taken() -> Census:
    space = parse_spec(SPEC.replace("num_classes: 10", "num_classes: 1000")).design_space
    return take_census(space, Query(minimize=("params", "macs"), maximize=("activations",)))


def test_the_density_shows_every_architecture_and_the_marks(taken: Census) -> None:
    axes = figures_census.density(taken)
    (mesh,) = axes.collections
    assert np.nansum(mesh.get_array()) == taken.kept
    front, papers, presets = axes.lines
    assert front.get_xdata().tolist() == taken.front["params"].tolist()
    assert set(presets.get_xdata()) == {1_248_424, 1_235_496}
    assert {1_248_424, 3_404_392, 6_279_016, 1_478_248, 5_330_536, 1_589_672} <= set(
        papers.get_xdata()
    )
    coordinates = mesh.get_coordinates()
    assert coordinates[..., 0].min() <= taken.ranges.loc["params", "least"]
    assert coordinates[..., 0].max() > taken.ranges.loc["params", "greatest"]
    assert axes.get_ylabel() == "MACs, 96x96"


def test_late_downsampling_shows_every_pool_set(taken: Census) -> None:
    axes = figures_census.late_downsampling(taken, "macs")
    shown = sum(len(container.lines[0].get_xdata()) for container in axes.containers)
    assert shown == len(taken.pools) == 10
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["1 pool", "2 pools"]
