"""Searches replayed: against closed forms, and made-up folders whose accuracies are known."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import sqzexplore as sqz
from sqzexplore.errors import UserError
from sqzexplore.figures.simulated import regret_curves
from sqzexplore.network.architecture import FIELDS, Architecture
from sqzexplore.network.frames import format_value
from sqzexplore.results.folder import ResultFolder
from sqzexplore.space.axis import Axis
from sqzexplore.space.distance import axis_distances
from sqzexplore.spec.load import parse_spec

mpl.use("agg")

SPEC = """\
name: made_up
base: {width_multiplier: 0.25, fires: 3, pool_after: [1, 3]}
input_size: 32
space:
  squeeze_ratio: {min: 0.05, max: 1.0, step: 0.05}
  base_expand: {min: 16, max: 320, step: 16}
  bypass: {values: [none, complex], when: {squeeze_ratio: [0.5, 0.75, 1.0]}}
search: {sampler: random, trials: 40}
measure: {accuracy: {data: digits, epochs: 3}}
"""


def hill(arch: Architecture) -> float:
    """Best at squeeze_ratio 0.7 and base_expand 80."""
    aside = (arch.squeeze_ratio - 0.7) ** 2 + ((arch.base_expand - 80) / 320) ** 2
    return 90 - 60 * aside


def write(folder: Path, networks: int, spec: str = SPEC, value: Callable = hill) -> Path:
    """A folder of networks drawn at random, two trainings each, and one that died."""
    folder.mkdir(exist_ok=True)
    (folder / "spec.yaml").write_text(spec)
    generator, space = np.random.default_rng(0), parse_spec(spec).design_space
    if space.enumerable:
        drawn = generator.permutation(len(space))
        found = {a.net_id: a for a in map(space.architecture, drawn.tolist())}
    else:
        found = {"": space.base}
    trials, seeds, history = [], [], []
    for trial, arch in enumerate([*found.values()][: networks + 1]):
        fields = {name: format_value(arch.get(name)) for name in ("pool_after",)}
        own = {name: fields.get(name, arch.get(name)) for name in FIELDS}
        names = {"sweep": "made_up", "trial": trial, "arch_id": arch.arch_id}
        names |= {"net_id": arch.net_id}
        known = {"val_top1": value(arch), "top1": value(arch) - generator.uniform(0, 1)}
        state = {"state": "complete", **known} if trial < networks else {"state": "dead"}
        costs = {"input_size": 32, "params": sqz.cost(arch, 32).params}
        trials.append(names | own | costs | {"epochs": 3, "seeds": 2} | state)
        for seed in (0, 1):
            took = {"seed": seed, "epochs": 3, "duration_s": 10.0 + trial + 4 * seed}
            seeds.append(names | took | known)
            epoch = {"epoch": 3, "epochs": 3, "seed": seed, "val_top1": value(arch)}
            history.append(names | epoch)
    ResultFolder(folder).write({"trials": trials, "seeds": seeds, "history": history})
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("simulated") / "made_up", 40)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("simulated") / "large", 160)


def of(folder: Path) -> pd.DataFrame:
    return sqz.firebench(folder).set_index("net_id")


@pytest.fixture(scope="module")
def took(folder: Path) -> dict[str, float]:
    """Of each network, the mean of its two trainings, as they were made up."""
    table = sqz.firebench(folder)
    return dict(zip(table["net_id"], (12.0 + table["trial"]).tolist(), strict=True))


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe", "nsga2", "nsga3", "gp"])
def test_what_a_search_sees(folder: Path, took: dict[str, float], sampler: str) -> None:
    """Every row against the tables, of searches that go through the whole of it."""
    table = of(folder)
    rows = sqz.simulate(sampler, trainings=1000, repetitions=2, folder=folder)
    assert list(rows) == [
        *("sampler", "repetition", "training", "spent_s", "net_id", "val_top1", "regret", "top1")
    ]
    assert set(rows["sampler"]) == {sampler}
    for repetition, own in rows.groupby("repetition"):
        assert sorted(own["net_id"]) == sorted(table.index), repetition  # each once
        assert [*own["training"]] == [*range(1, 41)]
        spent, best = 0.0, None
        for row in own.itertuples():
            spent += took[row.net_id]
            assert row.spent_s == pytest.approx(spent)
            assert row.val_top1 == table.loc[row.net_id, "val_top1"]
            if best is None or row.val_top1 > table.loc[best, "val_top1"]:
                best = row.net_id
            assert row.top1 == table.loc[best, "top1"]
            lost = table["val_top1"].max() - table.loc[best, "val_top1"]
            assert row.regret == pytest.approx(lost)
    assert rows["net_id"].iloc[:40].tolist() != rows["net_id"].iloc[40:].tolist()


def test_random_has_the_regret_of_draws_without_replacement(folder: Path) -> None:
    """The best of k of n is the one of rank r, from the worst, in C(r - 1, k - 1) of C(n, k)."""
    values = np.sort(of(folder)["val_top1"].to_numpy(dtype=float))
    rows = sqz.simulate("random", trainings=40, repetitions=1000, folder=folder)
    for k in (1, 3, 10, 39):
        shares = [math.comb(r, k - 1) / math.comb(40, k) for r in range(40)]
        expected = values[-1] - np.dot(shares, values)
        found = rows.loc[rows["training"] == k, "regret"]
        assert sum(shares) == pytest.approx(1)
        assert found.mean() == pytest.approx(expected, abs=4.5 * found.sem())
        assert found.sem() < 0.5


def test_the_same_seed_gives_the_same_and_more_repetitions_begin_with_it(folder: Path) -> None:
    names = ["random", "tpe"]
    rows = sqz.simulate(names, trainings=15, repetitions=3, seed=7, folder=folder)
    again = sqz.simulate(names, trainings=15, repetitions=3, seed=7, folder=folder)
    pd.testing.assert_frame_equal(rows, again)
    more = sqz.simulate(names, trainings=20, repetitions=4, seed=7, folder=folder)
    first = more[(more["repetition"] < 3) & (more["training"] <= 15)]
    pd.testing.assert_frame_equal(rows, first.reset_index(drop=True))
    other = sqz.simulate(names, trainings=15, repetitions=3, seed=8, folder=folder)
    assert not rows.equals(other)


def test_a_model_finds_the_top_of_a_hill_before_random_does(large: Path) -> None:
    rows = sqz.simulate(["random", "tpe"], trainings=40, repetitions=40, folder=large)
    found = sqz.regret(rows, at=[10, 40]).set_index(["sampler", "training"])
    # The first ten are drawn; those told after them decide.
    assert abs(found.loc[("tpe", 10), "vs_random"]) < 3
    assert found.loc[("tpe", 40), "regret"] < 0.3 * found.loc[("random", 40), "regret"]
    assert found.loc[("tpe", 40), "vs_random_high"] < 0


def test_a_population_evolves(large: Path) -> None:
    """NSGA-II's first generation is 50 drawn at random; the next begins with the best of these."""
    rows = sqz.simulate("nsga2", trainings=100, repetitions=10, folder=large)
    first, second = (
        rows.loc[rows["training"].between(*ends), "val_top1"].mean()
        for ends in ((1, 50), (51, 100))
    )
    assert second > first + 2


def test_seconds_end_a_search_as_a_timeout_does(folder: Path, took: dict[str, float]) -> None:
    for budget in (12.0, 100.0, 333.0):
        rows = sqz.simulate("random", budget, repetitions=50, folder=folder)
        spent = rows.groupby("repetition")["spent_s"]
        assert (spent.max() >= budget).all()
        assert (rows["spent_s"] - rows["net_id"].map(took) < budget).all()
        assert set(rows["repetition"]) == set(range(50))
    whole = sqz.simulate("random", 1e9, repetitions=1, folder=folder)
    assert whole["spent_s"].iloc[-1] == pytest.approx(sum(12 + trial for trial in range(40)))


def test_seconds_of_several_devices_do_not_add_up(folder: Path, tmp_path: Path) -> None:
    """They are no budget; a number of trainings is one, whose searches go the same way."""
    other = tmp_path / "two_devices"
    shutil.copytree(folder, other)
    trials = ResultFolder(other).table("trials")
    assert trials is not None
    devices = ["a CPU", "a GPU"] * len(trials)
    trials["device_name"] = devices[: len(trials)]
    ResultFolder(other).write({"trials": trials.to_dict("records")})
    with pytest.raises(UserError, match=r"on several devices \(a CPU, a GPU\), .*say trainings="):
        sqz.simulate("random", 100.0, folder=other)
    rows = sqz.simulate("random", trainings=5, repetitions=3, folder=other)
    alone = sqz.simulate("random", trainings=5, repetitions=3, folder=folder)
    assert rows["spent_s"].isna().all()
    assert rows["net_id"].equals(alone["net_id"])


def test_a_condition_leaves_a_smaller_table(folder: Path) -> None:
    table = of(folder)
    few = table[table["params"] < table["params"].median()]
    under = f"params < {table['params'].median()} and squeeze_ratio <= 1"
    rows = sqz.simulate("tpe", trainings=40, repetitions=2, folder=folder, under=under)
    assert set(rows["net_id"]) == set(few.index)
    assert len(rows) == 2 * len(few) < 80
    assert rows["val_top1"].max() == few["val_top1"].max()
    assert rows.groupby("repetition")["regret"].last().eq(0).all()


def test_what_is_wrong_is_one_message(folder: Path, tmp_path: Path) -> None:
    def refused(said: str, sampler: object = "random", **options: object) -> None:
        options = {"trainings": 3, "folder": folder} | options
        with pytest.raises(UserError, match=said):
            sqz.simulate(sampler, **options)  # type: ignore[arg-type]

    refused("found the sampler 'tpes', expected one of random, .*; did you mean 'tpe'", "tpes")
    refused("found the sampler 'grid'", ["random", "grid"])
    refused("found no sampler, expected some of random", [])
    refused("found neither of budget_s and trainings", trainings=None)
    refused("found both of budget_s and trainings", budget_s=100.0)
    refused(
        r"budget_s: found 11\.9, expected at least 12: the cheapest .* 12\.0 s",
        budget_s=11.9,
        trainings=None,
    )
    refused("trainings: found 0, expected at least 1", trainings=0)
    refused("repetitions: found 0, expected at least 1", repetitions=0)
    refused("seed: found -1, expected at least 0", seed=-1)
    refused("under: found the name 'parms'|under: found 'parms'", under="parms < 3")
    refused("under: found none of the 40 networks with 'params < 3'", under="params < 3")
    refused("found no spec.yaml", folder=tmp_path)
    (tmp_path / "spec.yaml").write_text(SPEC)
    refused("found no table trials", folder=tmp_path)
    continuous = SPEC.replace(", step: 0.05", "").split("  bypass")[0] + (
        "search: {sampler: random, trials: 40}\nmeasure: {accuracy: {data: digits, epochs: 3}}\n"
    )
    write(tmp_path / "continuous", 1, continuous)
    refused(
        r"space\.squeeze_ratio continuous \(0\.05 to 1\)",
        folder=tmp_path / "continuous",
    )


def test_a_proposal_is_as_far_as_its_axes_say() -> None:
    numbers = axis_distances(Axis("squeeze_ratio", (1.0, 0.125, 0.25)))
    assert numbers.tolist() == [[0, 1, 0.5], [1, 0, 0.5], [0.5, 0.5, 0]]
    pools = axis_distances(Axis("pool_after", ((), (1, 2), (2, 3), (1, 2, 3))))
    expected = [[0, 1, 1, 1], [1, 0, 2 / 3, 1 / 3], [1, 2 / 3, 0, 1 / 3], [1, 1 / 3, 1 / 3, 0]]
    assert pools == pytest.approx(np.array(expected))
    texts = axis_distances(Axis("bypass", ("none", "simple", "complex")))
    assert texts.tolist() == [[0, 1, 1], [1, 0, 1], [1, 1, 0]]
    perhaps = axis_distances(Axis("fire3.squeeze_ratio", (None, 0.125, 0.25)))
    assert perhaps.tolist() == texts.tolist()
    assert axis_distances(Axis("fires", (6,))).tolist() == [[0]]


#: Three searches of each sampler: regret after one training, and after two.
REGRETS = {"tpe": ([5, 1], [3, 0], [4, 4]), "random": ([5, 3], [6, 2], [4, 4])}


def made_up_searches() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"sampler": name, "repetition": r, "training": k + 1, "spent_s": 10.0 * (k + 1 + r)}
            | {"regret": float(regret)}
            for name, searches in REGRETS.items()
            for r, search in enumerate(searches)
            for k, regret in enumerate(search)
        ]
    )


def test_regret_with_its_interval() -> None:
    found = sqz.regret(made_up_searches(), at=[1, 2])
    assert [*found["sampler"]] == ["tpe", "tpe", "random", "random"]
    for row in found.to_dict("records"):
        own, random = (
            np.array(REGRETS[name])[:, row["training"] - 1] for name in (row["sampler"], "random")
        )
        cases = [("regret", own)] + [("vs_random", own - random)] * (row["sampler"] == "tpe")
        for name, values in cases:
            interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
            low = max(interval.low, 0) if name == "regret" else interval.low
            assert row[name] == pytest.approx(values.mean())
            assert row[f"{name}_low"] == pytest.approx(low)
            assert row[f"{name}_high"] == pytest.approx(interval.high)
        assert row["repetitions"] == 3
    assert found.loc[found["sampler"] == "random", "vs_random"].isna().all()
    assert sqz.regret(made_up_searches())["training"].tolist() == [2, 2]


def test_each_sampler_counts_its_own_repetitions() -> None:
    searches = made_up_searches()
    fewer = searches[(searches["sampler"] == "tpe") | (searches["repetition"] < 2)]
    found = sqz.regret(fewer, [2]).set_index("sampler")
    whole = sqz.regret(searches[searches["repetition"] < 2], [2]).set_index("sampler")
    assert found["repetitions"].to_dict() == {"tpe": 3, "random": 2}
    pd.testing.assert_series_equal(found.loc["random"], whole.loc["random"])
    compared = ["vs_random", "vs_random_low", "vs_random_high"]  # by the two that both have
    assert found.loc["tpe", compared].tolist() == whole.loc["tpe", compared].tolist()


def test_regret_where_every_search_has_one() -> None:
    searches = made_up_searches()  # in seconds: from 30, the third's first, to 20, the first's end
    with pytest.raises(UserError, match="found no spent_s at which every search has a regret"):
        sqz.regret(searches, by="spent_s")
    two = searches[searches["repetition"] < 2]
    assert sqz.regret(two, [20], "spent_s")["regret"].tolist() == [2.0, 4.5]  # 1 and 3; 3 and 6
    with pytest.raises(UserError, match="at: found 3, expected 1 to 2, where every search"):
        sqz.regret(searches, [3])
    with pytest.raises(UserError, match="no column 'regret'"):
        sqz.regret(searches.drop(columns="regret"))


@pytest.mark.parametrize("by", ["training", "spent_s"])
def test_the_picture_has_a_line_a_sampler(folder: Path, by: str) -> None:
    rows = sqz.simulate(["random", "qmc"], trainings=12, repetitions=4, folder=folder)
    axes = regret_curves(rows, by)  # type: ignore[arg-type]
    lines = axes.get_lines()
    assert [line.get_label() for line in lines] == ["random, n = 4", "qmc, n = 4"]
    assert len(axes.collections) == 2
    end = rows.groupby(["sampler", "repetition"])[by].max().min()
    means = sqz.regret(rows, [end], by).set_index("sampler")["regret"]  # type: ignore[arg-type]
    for line, name in zip(lines, ("random", "qmc"), strict=True):
        assert line.get_xdata()[-1] == pytest.approx(end / (1 if by == "training" else 3600))
        assert line.get_ydata()[-1] == pytest.approx(means[name])
    assert axes.get_xlabel() == ("trainings" if by == "training" else "simulated time (h)")
    assert "(points)" in axes.get_ylabel()
