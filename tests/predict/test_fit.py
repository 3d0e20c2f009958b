"""A fit against a truth that is known, and what it refuses and says."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import sqzexplore as sqz
from helpers import ROOT, truth
from sqzexplore.errors import UserError
from sqzexplore.predict import fit as fit_
from sqzexplore.predict.fit import fit
from sqzexplore.predict.trained import load_trained, parse_proxy, trained_of
from sqzexplore.spec.models import AccuracySpec


def held(said: pd.DataFrame, measured: pd.Series) -> pd.Series:
    """In which rows an interval holds what was measured."""
    return (said["top1_low"] <= measured) & (measured <= said["top1_high"])


def learned(trials: pd.DataFrame) -> pd.DataFrame:
    return trials[trials["state"] == "complete"]


@pytest.mark.usefixtures("fast")
def test_intervals_hold_their_share_of_new_networks_and_are_wide_where_seeds_scatter() -> None:
    """Over ten drawn tables: networks without BatchNorm scatter four times as much."""
    shares, ratios, taus = [], [], []
    for seed in range(10):
        new = learned(truth.trained(500, 100 + seed))
        said = fit(truth.trained(70, seed)).predict(new)
        shares.append(held(said, new["top1"]).mean())
        width = said["top1_high"] - said["top1_low"]
        norm = new["batch_norm"].astype(bool)
        ratios.append(width[~norm].median() / width[norm].median())
        taus.append(stats.kendalltau(said["top1"], new["top1"]).statistic)
        assert (said["top1_low"] <= said["top1_high"]).all()
        assert ((said["top1_low"] > 0) & (said["top1_high"] < 100)).all()
    assert 0.87 < np.mean(shares) < 0.97
    assert np.mean(ratios) > 1.3
    assert np.mean(taus) > 0.8


def test_the_models_are_compared_and_the_best_is_taken() -> None:
    trials = truth.trained(60, 0)
    model = sqz.fit(trials, level=0.8)
    table = model.comparison.set_index("model")
    assert [*table.index] == ["gaussian process", "gradient boosting", "forest"]
    assert table["chosen"].sum() == 1
    assert table["chosen"][model.name]
    # The truth is smooth: trees need more than 60 networks.
    assert model.name == "gaussian process"
    assert table["mae"].idxmin() == "gaussian process"
    narrow, wide = (m.predict(trials) for m in (model, sqz.fit(trials, level=0.95)))
    assert (
        (wide["top1_high"] - wide["top1_low"]) > (narrow["top1_high"] - narrow["top1_low"])
    ).all()


@pytest.mark.usefixtures("fast")
def test_dying_is_a_prediction_of_its_own() -> None:
    new = truth.drawn(2000, 7)
    said = fit(truth.trained(150, 1)).predict(new)["dead_probability"]
    share = truth.dead_share(new)
    assert said[share == 0.35].mean() > 3 * said[share == 0].mean()
    assert said.mean() == pytest.approx(share.mean(), abs=0.04)


@pytest.mark.usefixtures("fast")
def test_seeds_noise_is_in_the_interval_where_rows_are_means_of_seeds() -> None:
    """Means of four trainings that scatter widely: the next one is held all the same."""
    shares = []
    for seed in range(6):
        trials = truth.trained(80, seed, noisy=0, dying=False)
        draw = np.random.default_rng(seed)
        runs = trials["top1"].to_numpy()[:, None] + 6 * draw.standard_normal((80, 4))
        trials = trials.assign(top1=runs.mean(1), top1_sd=runs.std(1, ddof=1), seeds=4)
        new = truth.trained(500, 50 + seed, noisy=0, dying=False)
        one = new["top1"] + 6 * draw.standard_normal(500)
        shares.append(held(fit(trials).predict(new), one).mean())
    assert np.mean(shares) > 0.85  # of half the noise, two thirds would be held


def test_of_two_trainings_one_is_drawn() -> None:
    trials = truth.trained(40, 0, dying=False).assign(seeds=2)
    first, second = trials["top1"] + 3.0, trials["top1"] - 3.0
    sd = np.stack([first, second]).std(axis=0, ddof=1)
    found = trained_of(trials.assign(top1_sd=sd), "top1")
    assert (np.isclose(found.one, first) | np.isclose(found.one, second)).all()
    assert 5 < np.isclose(found.one, first).sum() < 35
    assert found.values == pytest.approx(trials["top1"].to_numpy())


@pytest.mark.parametrize("target", ["val_top1", "top5"])
def test_a_folder_s_seeds_say_how_any_accuracy_varies(target: str) -> None:
    folder = ROOT / "results" / "cifar10-budget"  # of the largest of three budgets
    loaded = load_trained(folder, target)
    assert loaded["trial"].tolist() == sqz.load_results(folder)["trial"].tolist()
    seeds = sqz.load_results(folder, "seeds").query("epochs == 48")
    for row in loaded.to_dict("records"):
        own = seeds.loc[seeds["trial"] == row["trial"], target].to_numpy(float)
        assert len(own) == row["seeds"] > 1
        assert row[f"{target}_sd"] == pytest.approx(own.std(ddof=1))


def test_trainings_that_a_search_ended_are_left_out() -> None:
    """Their accuracy, and their number of epochs, is that of a part of the training."""
    trials = truth.trained(30, 0, dying=False).assign(epochs=8, val_top1=lambda t: t["top1"])
    ended = trials.tail(5).assign(state="pruned", epochs=2, top1=math.nan, val_top1=11.0)
    found = trained_of(pd.concat([trials, ended], ignore_index=True), "val_top1")
    assert found.values.tolist() == trials["val_top1"].tolist()


@pytest.mark.usefixtures("fast")
def test_the_proxy_is_applied_before_anything_is_predicted() -> None:
    trials = truth.trained(40, 0).assign(proxy="width_multiplier=0.25 stem_kernel=3")
    model = fit(trials)
    new = truth.drawn(5, 1)
    first, second = (
        model.predict(new.assign(width_multiplier=w, stem_kernel=k, num_classes=c))
        for w, k, c in ((1.0, 7, 1000), (0.5, 3, 10))
    )
    pd.testing.assert_frame_equal(first, second)
    assert not model.predict(new.assign(fires=9)).equals(first)


@pytest.mark.usefixtures("fast")
def test_what_is_outside_the_measured_range_is_marked() -> None:
    trials = truth.trained(60, 0)
    assert not fit(trials).predict(learned(trials))["extrapolated"].any()
    changed = trials.head(3).assign(base_expand=[2000, 128, 128], dropout=[0.5, 0.1, 0.5])
    assert fit(trials).predict(changed)["extrapolated"].tolist()[:2] == [True, True]


@pytest.mark.usefixtures("fast")
def test_what_cannot_be_built_is_not_predicted() -> None:
    new = pd.DataFrame({"pool_after": ["1,2,3,4,5,6", "1,4"], "stem_kernel": 3}, index=["a", "b"])
    said = fit(truth.trained(40, 0)).predict(new)
    assert said.index.tolist() == ["a", "b"]
    assert said.loc["a", ["top1", "top1_low", "top1_high", "dead_probability"]].isna().all()
    assert said.loc["a", "extrapolated"]
    assert said.loc["b", ["top1", "top1_low", "top1_high"]].notna().all()


@pytest.mark.usefixtures("fast")
def test_many_blocks_are_one_table(monkeypatch: pytest.MonkeyPatch) -> None:
    model, new = fit(truth.trained(40, 0)), truth.drawn(50, 2)
    whole = model.predict(new)
    monkeypatch.setattr("sqzexplore.predict.fit._BLOCK", 7)
    pd.testing.assert_frame_equal(model.predict(new), whole, rtol=1e-4)


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize(
    ("sampler", "said"),
    [
        ("random", "90%"),
        ("grid", "90%"),
        ("tpe", "not supported: tpe chose the measured networks by their results"),
        (None, "not supported: it is not known who chose the measured networks"),
    ],
)
def test_it_says_whether_coverage_is_supported(sampler: str | None, said: str) -> None:
    trials = truth.trained(30, 0).assign(sampler=sampler)
    model = fit(trials)
    assert model.coverage == said
    assert (model.predict(trials)["coverage"] == said).all()
    assert said in model.remarks()[0]
    assert fit(trials, sampler="qmc").coverage == "90%"
    with pytest.raises(UserError, match=r"--sampler: found 'Random', .*did you mean 'random'"):
        fit(trials, sampler="Random")
    mixed = trials.assign(sampler=np.where(trials.index < 5, "tpe", "random"))
    assert "not supported: random, tpe" in fit(mixed).coverage
    assert trained_of(trials.assign(sampler=["random"] * 29 + [None]), "top1").sampler == ""


@pytest.mark.parametrize(("folder", "sampler"), [("firebench_top", ""), ("firebench", "random")])
def test_a_list_does_not_say_who_chose_it(folder: str, sampler: str) -> None:
    """Predictions chose the networks of firebench_top."""
    found = trained_of(load_trained(ROOT / "results" / folder, "top1"), "top1")
    assert found.sampler == sampler


@pytest.mark.usefixtures("fast")
def test_the_committed_search_is_predicted_but_not_vouched_for() -> None:
    trials = load_trained(ROOT / "results" / "cifar10-joint", "top1")
    model = fit(trials)
    assert model.networks == 20
    assert "tpe" in model.coverage
    said = model.predict(trials)
    assert (said["top1"] - trials["top1"]).abs().mean() < 4


def test_too_few_networks() -> None:
    with pytest.raises(UserError, match=r"fit: found 5 rows with top1, expected at least 20"):
        fit(sqz.load_results(ROOT / "results" / "sr"))
    same = pd.concat([truth.trained(19, 0, dying=False)] * 2, ignore_index=True)
    with pytest.raises(UserError, match="found 19 different networks with top1, expected at least"):
        fit(same)
    dead = truth.trained(30, 0).assign(state="dead")
    with pytest.raises(UserError, match="found 0 different networks with top1"):
        fit(dead)


def test_rows_that_cannot_be_compared() -> None:
    with pytest.raises(UserError, match="found rows of different data"):
        fit(sqz.load_results(ROOT / "results" / "*"))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("top_1", "target: found 'top_1', expected a measured column.*did you mean 'top1'"),
        ("params", "target: found 'params', expected a measured column"),
        ("val_top1", "fit: no column 'val_top1'"),
        ("compressed_top1", "target: found 'compressed_top1', expected a measured column: top1, "),
    ],
)
def test_a_target_that_is_none(target: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        fit(truth.trained(30, 0), target)


def latency(trials: pd.DataFrame) -> pd.DataFrame:
    """Trials with a latency: what the work takes, an overhead an operation, 3% of noise."""
    draw = np.random.default_rng(0)
    own = trials["macs"] / 2e10 + 2e-5 * (1 + 3 * trials["fires"])
    noisy = 1e3 * own * np.exp(0.03 * draw.standard_normal(len(trials)))
    settings = {"device": "cpu", "batch": 1, "dtype": "float32", "device_name": "a", "threads": 1}
    return trials.assign(
        latency_ms_p50=noisy, memory_format="contiguous", form="module", **settings
    )


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize(("name", "most"), [("gaussian process", 0.06), (fit_.ROOFLINE, 0.08)])
def test_latency_is_predicted_at_the_deployed_size(
    name: str, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name != fit_.ROOFLINE:
        monkeypatch.setattr(fit_, "FLOOR", "no such feature")
    model = fit(latency(truth.trained(100, 0)), "latency_ms_p50")
    assert model.name == name
    new = latency(truth.trained(500, 1))
    said = model.predict(new)
    assert [*said] == [
        *("latency_ms_p50", "latency_ms_p50_low", "latency_ms_p50_high"),
        *("extrapolated", "coverage"),
    ]
    inside = new["latency_ms_p50"].between(said["latency_ms_p50_low"], said["latency_ms_p50_high"])
    assert 0.8 < inside.mean() < 0.99
    assert (said["latency_ms_p50"] / new["latency_ms_p50"] - 1).abs().mean() < most


def test_the_machine_of_a_speed_is_the_table_s() -> None:
    rates = {"matrix_macs_per_s": 1e12, "copy_bytes_per_s": 3e10}
    trials = latency(truth.trained(30, 0)).assign(batch=16, dtype="float16", **rates)
    machine = trained_of(trials, "latency_ms_p50").view.machine
    assert machine is not None
    assert (machine.macs_per_s, machine.bytes_per_s) == (1e12, 3e10)
    assert (machine.batch, machine.item_bytes) == (16, 2)


def test_a_folder_s_machine_is_that_of_its_measurements() -> None:
    folder = ROOT / "results" / "sr"
    trials, speeds = sqz.load_results(folder), sqz.load_results(folder, "throughput")
    loaded = load_trained(folder, "latency_ms_p50")
    assert loaded["trial"].tolist() == trials["trial"].tolist()
    assert (loaded["sampler"] == "grid").all()
    for _, row in loaded.iterrows():
        own = speeds.query("trial == @row.trial and batch == @row.batch")
        assert row["copy_bytes_per_s"] == own["copy_bytes_per_s"].item()
        assert row["matrix_macs_per_s"] == own["matrix_macs_per_s"].item()


def test_a_machine_has_its_rates_where_another_runtime_was_measured_first(tmp_path: Path) -> None:
    """Rows of another runtime than torch have none, and other settings."""
    folder = tmp_path / "sr"
    shutil.copytree(ROOT / "results" / "sr", folder)
    speeds = sqz.load_results(folder, "throughput")
    none = dict.fromkeys(["matrix_macs_per_s", "copy_bytes_per_s"], pd.NA)
    other = speeds.assign(runtime="onnxruntime", memory_format="contiguous", **none)
    both = pd.concat([other.astype(speeds.dtypes), speeds])
    both.to_parquet(folder / "throughput.parquet", index=False)
    trials = sqz.load_results(folder)
    trials = trials.assign(runtime="onnxruntime", memory_format="contiguous")
    trials.to_parquet(folder / "trials.parquet", index=False)
    loaded = load_trained(folder, "latency_ms_p50")
    assert len(loaded) == len(trials)
    assert set(loaded["copy_bytes_per_s"]) == set(speeds["copy_bytes_per_s"])
    assert set(loaded["matrix_macs_per_s"]) == set(speeds["matrix_macs_per_s"])


def test_a_latency_that_is_none() -> None:
    trials = latency(truth.trained(30, 0))
    trials.loc[3, "latency_ms_p50"] = 0.0
    with pytest.raises(UserError, match="latency_ms_p50: found 0, expected numbers above 0"):
        fit(trials, "latency_ms_p50")


@pytest.mark.parametrize(
    "proxy",
    [
        {},
        {"width_multiplier": 0.125, "stem_kernel": 3},
        {"pool_after": [1, 3, 5], "batch_norm": True, "bypass": "complex"},
        {"pool_after": [4], "dropout": 0.0, "fires": 3},
        {"pool_after": [1, 5, 11]},
        {"fire9.squeeze_ratio": None, "fire12.bypass": "simple"},
    ],
)
def test_a_proxy_is_read_as_tables_show_it(proxy: dict) -> None:
    text = AccuracySpec(data="digits", epochs=1, proxy=proxy).proxy_text
    expected = {k: tuple(v) if isinstance(v, list) else v for k, v in proxy.items()}
    assert parse_proxy(text) == expected


@pytest.mark.parametrize("text", ["width=3", "fires", "fires=none", "fires=0", "batch_norm=maybe"])
def test_a_proxy_that_is_none(text: str) -> None:
    with pytest.raises(UserError, match="column 'proxy': found"):
        parse_proxy(text)


@pytest.mark.usefixtures("fast")
def test_networks_with_the_same_trained_form_share_a_fold() -> None:
    """Copies under another width, which the proxy undoes: a copy must not tell its twin's value."""
    trials = truth.trained(30, 0, dying=False).assign(proxy="width_multiplier=1.0")
    twins = pd.concat([trials, trials.assign(width_multiplier=0.5)], ignore_index=True)
    found = trained_of(twins, "top1")
    assert (found.networks[:30] == found.networks[30:]).all()
    assert fit(twins).networks == 30
    alone, doubled = (fit(t).comparison["mae"].iloc[0] for t in (trials, twins))
    assert doubled > 0.6 * alone
    assert math.isfinite(alone)
