"""Analyses against closed forms, published values, brute force and simulation."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import sqzexplore as sqz
from sqzexplore import analysis
from sqzexplore.analysis import ranking
from sqzexplore.analysis.accuracy import Trainings
from sqzexplore.analysis.front import not_worse
from sqzexplore.analysis.verdicts import ALPHA
from sqzexplore.errors import UserError
from sqzexplore.results.completeness import completeness
from sqzexplore.results.folder import ResultFolder


def trials(params: list[float], top1: list[float]) -> pd.DataFrame:
    names = [f"a{i}" for i in range(len(params))]
    return pd.DataFrame(
        {"sweep": "s", "trial": range(len(params)), "arch_id": names, "params": params}
    ).assign(top1=top1)


def runs(values: list[list[float]]) -> pd.DataFrame:
    rows = [
        {"sweep": "s", "trial": i, "arch_id": f"a{i}", "seed": seed, "top1": value}
        for i, ours in enumerate(values)
        for seed, value in enumerate(ours)
    ]
    return pd.DataFrame(rows)


def table_of(values: list[list[float]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    means = [float(np.mean(ours)) for ours in values]
    return trials([float(i + 1) for i in range(len(values))], means), runs(values)


# --- the front -------------------------------------------------------------------------------


def test_the_probability_of_the_front_is_students() -> None:
    """Of two, the larger is on the front where its mean is the higher: two draws of Student's t,
    integrated by quadrature. Three seeds never say 0% or 100% of what is close."""
    small, large = [90.0, 92.0, 97.0], [91.0, 94.0, 96.5]
    table, seeds = table_of([small, large])
    errors = [np.std(ours, ddof=1) / np.sqrt(3) for ours in (small, large)]
    x = np.linspace(-60, 60, 200_001)
    density = stats.t.pdf(x / errors[0], 2)
    above = stats.t.sf((np.mean(small) + x - np.mean(large)) / errors[1], 2)
    exact = np.trapezoid(density / errors[0] * above, x)
    found = analysis.front_probability(table, seeds, ["params"], ["top1"], resamples=40_000)
    assert found["front_probability"].tolist() == [1.0, pytest.approx(exact, abs=0.01)]
    assert found["on_front"].tolist() == [True, True]


def test_paired_seeds_make_the_front_surer() -> None:
    """Two networks with the same weights, of which one is better under every seed."""
    table, seeds = table_of([[80.0, 85.0, 90.0], [80.9, 86.1, 91.0]])
    fields = pd.DataFrame([sqz.Architecture().model_dump()] * 2).drop(columns="overrides")
    fields["pool_after"] = ["1,4,8", "6,8,9"]
    paired = pd.concat([table, fields], axis=1)
    alone, both = (
        analysis.front_probability(t, seeds, ["params"], ["top1"])["front_probability"].iloc[1]
        for t in (table, paired)
    )
    assert alone < 0.75
    assert both > 0.99


def test_the_draws_have_the_variance_of_a_mean() -> None:
    """The probability that one of two is the better, against a t of about as many degrees."""
    generator = np.random.default_rng(1)
    calibrated = []
    for _ in range(60):
        values = generator.normal([[0.0], [0.3]], 1.0, (2, 5))
        table, seeds = table_of(values.tolist())
        found = analysis.front_probability(table, seeds, ["params"], ["top1"], resamples=500)
        change = values[1].mean() - values[0].mean()
        spread = np.sqrt((values.var(axis=1, ddof=1) / 5).sum())
        calibrated.append(found["front_probability"].iloc[1] - stats.t.cdf(change / spread, 6))
    assert abs(np.mean(calibrated)) < 0.02
    assert np.std(calibrated) < 0.04


def test_the_front_needs_several_trainings() -> None:
    table, seeds = table_of([[90.0, 91.0], [92.0]])
    with pytest.raises(UserError, match="trial 1 of s: found 1 trainings"):
        analysis.front_probability(table, seeds, ["params"], ["top1"])


def test_a_missing_accuracy_is_left_out() -> None:
    table, seeds = table_of([[90.0, 91.0], [92.0, 93.0]])
    table.loc[0, "top1"] = np.nan
    found = analysis.front_probability(table, seeds, ["params"], ["top1"])
    assert found["arch_id"].tolist() == ["a1"]


def test_hypervolume_by_hand() -> None:
    table = trials([3, 1, 2, 4], [50, 10, 30, np.nan])
    curve = analysis.hypervolume_curve(table, ["params"], ["top1"], reference=[4, 0])
    # (4-3)*50; + (3-1)*10; then 1..2 at 10, 2..3 at 30, 3..4 at 50.
    assert curve["hypervolume"].tolist() == [50, 70, 90, 90]
    assert curve["share"].tolist()[-1] == 1
    assert curve.attrs["reference"] == {"params": 4, "top1": 0}
    worst = analysis.hypervolume_curve(table, ["params"], ["top1"])
    assert worst.attrs["reference"] == {"params": 3, "top1": 10}
    assert worst["hypervolume"].tolist() == [0, 0, 20, 20]
    with pytest.raises(UserError, match="found a reference of 1 numbers, expected 2"):
        analysis.hypervolume_curve(table, ["params"], ["top1"], reference=[4])
    with pytest.raises(UserError, match="hypervolume_curve: no column 'trial'"):
        analysis.hypervolume_curve(table.drop(columns="trial"), ["params"], ["top1"])


def test_hypervolume_against_counted_points() -> None:
    generator = np.random.default_rng(0)
    points = generator.random((30, 2))
    table = trials(points[:, 0].tolist(), points[:, 1].tolist())
    curve = analysis.hypervolume_curve(table, ["params", "top1"], reference=[1, 1])
    probes = generator.random((200_000, 2))
    for k in (1, 5, 30):
        inside = (points[:k, None] <= probes).all(axis=2).any(axis=0).mean()
        assert curve["hypervolume"][k - 1] == pytest.approx(inside, abs=0.006)


def knee_of(cost: np.ndarray, loss: np.ndarray) -> int:
    """By the definition: farthest from the line between the ends."""
    points = np.stack([cost - cost[0], loss - loss[-1]], axis=1)
    points /= [cost[-1] - cost[0], loss[0] - loss[-1]]
    return int((1 - points.sum(axis=1)).argmax())


def test_the_knee_of_a_hyperbola_and_of_a_line() -> None:
    x = np.linspace(1, 9, 17)
    table = trials(x.tolist(), (-9 / x).tolist())
    assert analysis.knee(table, ["params"], ["top1"])["params"] == 3  # x = y, by symmetry
    wide = trials((x**2).tolist(), (-9 / x).tolist())  # an axis over a decade is in logarithms
    linear, log = knee_of(x**2, 9 / x), knee_of(np.log(x**2), 9 / x)
    assert linear != log
    assert analysis.knee(wide, ["params"], ["top1"], log=[])["params"] == wide["params"][linear]
    assert analysis.knee(wide, ["params"], ["top1"])["params"] == wide["params"][log]
    straight = trials([1, 2, 3], [1, 2, 3])
    with pytest.raises(UserError, match="no point of the front beyond the line"):
        analysis.knee(straight, ["params"], ["top1"])
    with pytest.raises(UserError, match="found 2 points on the Pareto front"):
        analysis.knee(straight.iloc[:2], ["params"], ["top1"])
    with pytest.raises(UserError, match="found 1 objectives, expected 2"):
        analysis.knee(straight, ["params"])


def test_the_smallest_within_a_percent() -> None:
    table = trials([1, 2, 3, 4], [70, 79.2, 79.9, 80])
    assert analysis.smallest_within(table, "params")["params"] == 2
    assert analysis.smallest_within(table, "params", percent=0)["params"] == 4
    assert analysis.smallest_within(table, "params", percent=50)["params"] == 1
    with pytest.raises(UserError, match="did you mean 'params'"):
        analysis.smallest_within(table, "parms")
    with pytest.raises(UserError, match="expected 0 to 100"):
        analysis.smallest_within(table, "params", percent=-1)


def test_the_smallest_that_is_at_most_a_point_worse() -> None:
    """The one-sided bound of the best's lead, against scipy's test; few seeds choose no smaller."""
    values = [[70.0, 70.5, 71.0], [90.35, 90.45, 90.4], [91.0, 91.2, 91.1]]
    table, seeds = table_of(values)
    test = stats.ttest_ind(np.array(values[2]) - 1, values[1], equal_var=False, alternative="less")
    assert 2 * test.pvalue < 0.05  # of three, two may be worse
    assert analysis.smallest_not_worse(table, seeds, "params")["arch_id"] == "a1"
    assert analysis.smallest_not_worse(table, seeds, "params", points=0.5)["arch_id"] == "a2"
    noisy, runs_ = table_of([[85.0, 90.0, 80.0], [84.0, 91.0, 79.0]])
    with pytest.raises(UserError, match="of none of 2 architectures it is shown"):
        analysis.smallest_not_worse(noisy, runs_, "params")
    with pytest.raises(UserError, match="quality: found params"):
        analysis.smallest_not_worse(table, seeds, "params", "params")
    with pytest.raises(UserError, match="points: found 0, expected above 0"):
        analysis.smallest_not_worse(table, seeds, "params", points=0)


def test_who_is_a_point_worse_is_rarely_chosen_however_many_they_are() -> None:
    """Eight of 89% beside one of 90%, in 200 simulated sweeps, against the exact binomial bound."""
    wrong = 0
    for number in range(200):
        drawn = np.random.default_rng(number).normal([89] * 8 + [90], 0.7, (10, 9))
        runs = [Trainings(tuple(range(10)), values) for values in drawn.T]
        wrong += bool((not_worse(runs, range(9), 1.0)[:8] < ALPHA).any())
    assert wrong <= stats.binom.ppf(0.9995, 200, ALPHA)


def test_of_two_one_alone_can_be_wrong() -> None:
    """Which takes no correction; of three two can."""
    seeds, values = (0, 1, 2), np.array([[90, 90.2, 90.1], [90.2, 90.5, 90.1], [70, 70.2, 70.1]])
    runs = [Trainings(seeds, each) for each in values]
    alone = [
        stats.ttest_ind(other - 1, own, equal_var=False, alternative="less").pvalue
        for own, other in (values[:2], values[1::-1])
    ]
    assert max(alone) < 0.05
    assert not_worse(runs[:2], [0, 1], 1.0) == pytest.approx(alone)
    assert not_worse(runs, [0, 1, 2], 1.0)[:2] == pytest.approx(2 * np.array(alone))
    assert not_worse(runs[:1], [0], 1.0) == 0


@pytest.mark.parametrize(
    ("column", "values"),
    [("data_sha256", ["x", "y"]), ("epochs", [6, 18]), ("proxy", ["none", "width_multiplier=0.5"])],
)
def test_like_is_compared_with_like(column: str, values: list[object]) -> None:
    table = trials([1.0, 2.0, 3.0, 4.0], [50.0, 49.0, 60.0, 55.0])
    mixed = table.assign(**{column: values * 2})
    for compare in (
        lambda: analysis.pareto_front(mixed, ["params"], ["top1"]),
        lambda: analysis.knee(mixed, ["params"], ["top1"]),
        lambda: analysis.smallest_within(mixed, "params"),
        lambda: analysis.correlation(mixed, "params", "top1"),
        lambda: analysis.hypervolume_curve(mixed, ["params"], ["top1"]),
    ):
        with pytest.raises(UserError, match=f"rows of different {column}"):
            compare()
    found = analysis.pareto_front(mixed, ["params"], ["top1"], by=[column])
    assert found["params"].tolist() == [1, 2, 3, 4]
    assert len(analysis.pareto_front(mixed, ["params"])) == 1  # nothing that was trained
    made = mixed.rename(columns={"top1": "compressed_top1"}).assign(int8_top1=mixed["top1"])
    for name in ("compressed_top1", "int8_top1"):
        with pytest.raises(UserError, match=f"{name}: found rows of different {column}"):
            analysis.pareto_front(made, ["params"], [name])
    with pytest.raises(UserError, match="no column 'datta'"):
        analysis.pareto_front(mixed, ["params"], ["top1"], by=["datta"])


def test_the_same_images_in_a_folder_of_another_name_are_alike() -> None:
    table = trials([1.0, 2.0, 3.0, 4.0], [50.0, 49.0, 60.0, 55.0])
    moved = table.assign(data=["cifar", "cifar10"] * 2, data_sha256="x")
    assert analysis.pareto_front(moved, ["params"], ["top1"])["params"].tolist() == [1, 3]
    for sums in (["x", None] * 2, None):
        with pytest.raises(UserError, match="rows of different data "):
            analysis.pareto_front(moved.assign(data_sha256=sums), ["params"], ["top1"])


@pytest.mark.parametrize(
    ("column", "values"),
    [
        *(("device_name", ["a", "b"]), ("device", ["cpu", "cuda:0"]), ("threads", [1, 2])),
        *(("dtype", ["float32", "float16"]), ("input_size", [64, 224]), ("batch", [1, 16])),
    ],
)
def test_speeds_of_two_devices_are_not_ranked_together(column: str, values: list) -> None:
    table = trials([1.0, 2.0], [50.0, 49.0]).assign(images_per_s=[10.0, 9.0], **{column: values})
    said = rf"rows of different {column} \({values[0]!r}, {values[1]!r}\)"
    with pytest.raises(UserError, match=said):
        analysis.pareto_front(table, ["params"], ["images_per_s"])


# --- two architectures -----------------------------------------------------------------------


def test_welchs_interval_by_hand_and_without_spread() -> None:
    a, b = [27.5, 21.0, 19.0, 23.6], [27.1, 22.0, 20.8]
    found = analysis.compare(runs([a, b]), "a0", "a1")
    variances = [np.var(v, ddof=1) / len(v) for v in (a, b)]
    freedom = sum(variances) ** 2 / (variances[0] ** 2 / 3 + variances[1] ** 2 / 2)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(sum(variances))
    assert found.difference == pytest.approx(np.mean(a) - np.mean(b))
    assert (found.low, found.high) == pytest.approx(
        (found.difference - half, found.difference + half)
    )
    assert (found.method, found.first, found.second) == ("seeds", 4, 3)
    flat = analysis.compare(runs([[1.0, 1.0], [2.0, 2.0]]), "a1", "a0")
    assert flat.difference == 1
    assert np.isnan([flat.low, flat.high, flat.p_value]).all()  # two seeds each are no certainty


def test_pairing_uses_the_seeds_that_both_have() -> None:
    a, b = [10.0, 20.0, 30.0], [9.0, 18.0, 29.0]
    table = runs([a, [*b, 500.0]])
    found = analysis.compare(table, "a0", "a1", paired=True)
    assert found.difference == pytest.approx(4 / 3)
    half = stats.t.ppf(0.975, 2) * np.std([1, 2, 1], ddof=1) / np.sqrt(3)
    assert found.high - found.low == pytest.approx(2 * half)
    with pytest.raises(UserError, match="no architecture 'a9'"):
        analysis.compare(table, "a0", "a9")
    with pytest.raises(UserError, match="found it in 2 trials"):
        analysis.compare(pd.concat([table, table.assign(trial=7)]), "a0", "a1")
    with pytest.raises(UserError, match="found 1 trainings of a1"):
        analysis.compare(runs([a, [1.0]]), "a0", "a1")
    budgets = pd.concat([table.assign(epochs=6), table.query("arch_id == 'a1'").assign(epochs=18)])
    with pytest.raises(UserError, match=r"rows of different epochs \(6, 18\)"):
        analysis.compare(budgets, "a0", "a1")


# --- populations -----------------------------------------------------------------------------


def test_the_band_is_kolmogorovs() -> None:
    # Miller, JASA 51 (1956), table 1: the 5% points for n = 10 and 20.
    for count, published in ((10, 0.40925), (20, 0.29408)):
        band = analysis.edf(np.arange(count))
        middle = band.iloc[count // 2 - 1]
        assert middle["high"] - middle["edf"] == pytest.approx(published, abs=6e-6)
        assert middle["high"] - middle["edf"] < np.sqrt(np.log(2 / 0.05) / (2 * count))  # Massart
    assert band["edf"].tolist() == pytest.approx([(i + 1) / 20 for i in range(20)])
    assert band["low"].min() == 0
    assert band["high"].max() == 1


def test_the_band_holds_the_whole_distribution() -> None:
    generator = np.random.default_rng(0)
    hits, half = 0, stats.kstwo.ppf(0.95, 15)
    for _ in range(1000):
        band = analysis.edf(generator.random(15))
        truth, before = band["value"], np.r_[0, band["edf"][:-1]]  # the step's two sides
        inside = (band["low"] <= truth) & (truth <= band["high"]) & (truth <= before + half)
        hits += inside.all()
    assert 0.93 < hits / 1000 < 0.97


def test_ties_missing_values_and_too_few() -> None:
    band = analysis.edf(pd.array([2.0, None, 1.0, 2.0], dtype="Float64"))
    assert band["value"].tolist() == [1, 2]
    assert band["edf"].tolist() == pytest.approx([1 / 3, 1])
    with pytest.raises(UserError, match="edf: found 1 values"):
        analysis.edf([1.0, np.nan])
    with pytest.raises(UserError, match="confidence"):
        analysis.edf([1.0, 2.0], confidence=95)


def test_two_populations_by_brute_force() -> None:
    a, b = [1.0, 4.0, 6.0, 6.0], [0.0, 4.0, 5.0]
    found = analysis.compare_populations(a, b)
    wins = [1.0 if x > y else 0.5 if x == y else 0.0 for x in a for y in b]
    assert found.superiority == pytest.approx(np.mean(wins))
    steps = [abs(np.mean(np.array(a) <= x) - np.mean(np.array(b) <= x)) for x in a + b]
    assert found.ks_distance == pytest.approx(max(steps))
    # Nothing overlaps: of C(6, 3) = 20 orders two are as extreme.
    apart = analysis.compare_populations([4.0, 5.0, 6.0], [1.0, 2.0, 3.0])
    assert (apart.superiority, apart.mann_whitney_p, apart.ks_p) == pytest.approx((1, 0.1, 0.1))


# --- effects ---------------------------------------------------------------------------------


def grid(noise: float = 0.0) -> pd.DataFrame:
    """top1 = 10 * squeeze_ratio + {none: 0, simple: 5}, over a whole grid."""
    ratios, forms, fires = [0.25, 0.5, 0.75, 1.0], ["none", "simple"], [6, 7, 8]
    rows = pd.DataFrame(
        list(itertools.product(ratios, forms, fires)),
        columns=["squeeze_ratio", "bypass", "fires"],
    )
    rows["top1"] = 10 * rows["squeeze_ratio"] + 5 * (rows["bypass"] == "simple")
    return rows.assign(top1=rows["top1"] + np.random.default_rng(0).normal(0, noise, len(rows)))


def test_main_effects_of_a_grid_are_its_means() -> None:
    effects = analysis.main_effects(grid(), "top1").set_index(["axis", "value"])
    means = effects["mean"]
    assert means["bypass", "simple"] - means["bypass", "none"] == pytest.approx(5)
    assert effects.loc[("squeeze_ratio", 0.25), "mean"] == pytest.approx(5)
    assert effects.loc["fires", "mean"].nunique() == 1
    ours = grid().query("bypass == 'none'")["top1"]
    interval = stats.ttest_1samp(ours, 0).confidence_interval(0.95)
    assert effects.loc[("bypass", "none"), ["low", "high"]].tolist() == pytest.approx(
        [interval.low, interval.high]
    )


def test_interactions_of_a_sum_and_of_a_product() -> None:
    assert np.abs(analysis.interaction(grid(), "top1", "squeeze_ratio", "bypass")).max().max() < (
        1e-12
    )
    product = grid()
    product["top1"] = (product["squeeze_ratio"] - 0.625) * (product["fires"] - 7)
    found = analysis.interaction(product, "top1", "squeeze_ratio", "fires")
    assert found.loc[1.0, 8] == pytest.approx(0.375)
    holed = product.query("not (squeeze_ratio == 1 and bypass == 'none')")
    with pytest.raises(UserError, match="1 of 8 combinations"):
        analysis.interaction(holed, "top1", "squeeze_ratio", "bypass")
    for first, rows in (("bypass", grid()), ("fires", grid().query("fires == 7"))):
        with pytest.raises(UserError, match="expected two metaparameters that vary"):
            analysis.interaction(rows, "top1", first, "bypass")


@pytest.mark.parametrize("method", ["fanova", "ped_anova"])
def test_the_axis_that_matters_is_found(method: str) -> None:
    table = pd.concat([grid(0.1)] * 3, ignore_index=True)
    table["top1"] = 10 * table["squeeze_ratio"] + np.random.default_rng(0).normal(0, 0.1, 72)
    found = analysis.importance(table, "top1", method=method)
    assert found["axis"].iloc[0] == "squeeze_ratio"
    assert found["importance"].iloc[0] > 0.8
    assert found["importance"].sum() == pytest.approx(1)


def test_fanova_gives_the_shares_of_the_variance() -> None:
    found = analysis.importance(grid(), "top1").set_index("axis")["importance"]
    # Of 10 * squeeze_ratio over four values, and of 5 * (simple or not).
    variances = np.var([2.5, 5, 7.5, 10]), np.var([0, 5])
    assert found["squeeze_ratio"] == pytest.approx(variances[0] / sum(variances), abs=0.1)
    assert found["fires"] < 0.02


def test_the_bootstrap_of_an_importance_is_as_wide_as_the_noise() -> None:
    """Every draw of the table would give other shares; the interval is of them."""
    found = {}
    for noise in (0.1, 20.0):
        table = pd.concat([grid(0.1)] * 2, ignore_index=True)
        table["top1"] += np.random.default_rng(0).normal(0, noise, len(table))
        rows = analysis.importance(table, "top1", resamples=8).set_index("axis")
        assert (rows["ci_low"] <= rows["ci_high"]).all()
        found[noise] = (rows["ci_high"] - rows["ci_low"])["squeeze_ratio"]
    assert 0 < 2 * found[0.1] < found[20.0]
    assert analysis.importance(grid(), "top1")["ci_low"].isna().all()


def test_partial_dependence_undoes_a_confounder() -> None:
    """Large ratios come with `simple` more often; the mean by value shows both, the forest one."""
    table = pd.concat([grid(0.2)] * 4, ignore_index=True)
    skewed = table[
        ~((table["squeeze_ratio"] > 0.6) & (table["bypass"] == "none")) | (table.index % 4 == 0)
    ]
    found = analysis.partial_dependence(skewed, "top1")
    assert found.attrs["r2"] > 0.9
    curve = found.set_index(["axis", "value"])["mean"]
    assert curve["squeeze_ratio", 1.0] - curve["squeeze_ratio", 0.25] == pytest.approx(7.5, abs=1.2)
    assert curve["bypass", "simple"] - curve["bypass", "none"] == pytest.approx(5, abs=1)
    assert curve["fires"].max() - curve["fires"].min() < 0.3
    means = analysis.main_effects(skewed, "top1").set_index(["axis", "value"])["mean"]
    assert means["squeeze_ratio", 1.0] - means["squeeze_ratio", 0.25] > 8.5


def test_too_little_for_an_importance() -> None:
    with pytest.raises(UserError, match="found 5 trials with top1, expected at least 10"):
        analysis.importance(grid()[:5], "top1")
    with pytest.raises(UserError, match="found 24 trials with top1, expected at least 50"):
        analysis.importance(grid(), "top1", method="ped_anova")
    one = grid()[["squeeze_ratio", "top1"]]
    with pytest.raises(UserError, match="found 1 metaparameters that vary"):
        analysis.importance(one, "top1")
    with pytest.raises(UserError, match="bypass': found 'none', expected numbers"):
        analysis.importance(grid(), "bypass")
    with pytest.raises(UserError, match="top1: found one value only, expected several"):
        analysis.importance(grid().assign(top1=1.0), "top1", resamples=1)
    # Every row is alone in one of its values, so that hardly a resample has all of them.
    names = ["stem_width", "stem_kernel", "stem_stride", "base_expand", "in_channels", "fires"]
    names += ["squeeze_ratio", "fraction_3x3", "width_multiplier", "dropout"]
    alone = pd.DataFrame(np.eye(10), columns=names).assign(top1=np.arange(10.0))
    with pytest.raises(UserError, match="found 0 resamples with two values of every axis, expec"):
        analysis.importance(alone, "top1", resamples=1)


def test_correlation_of_columns() -> None:
    table = grid(0.5)
    table.loc[0, "top1"] = np.nan
    found = analysis.correlation(table, "squeeze_ratio", "top1")
    known = table.dropna()
    assert found.spearman == pytest.approx(
        stats.spearmanr(known["squeeze_ratio"], known["top1"])[0]
    )
    assert found.rows == 23
    twice = pd.concat([table, table.iloc[:5]]).assign(net_id=lambda t: t.index.astype(str))
    assert analysis.correlation(twice, "squeeze_ratio", "top1").rows == 23
    with pytest.raises(UserError, match="one value only"):
        analysis.correlation(table.assign(top1=1.0), "squeeze_ratio", "top1")


def test_a_perfect_order_of_five_is_no_certainty() -> None:
    x = np.arange(5.0)
    found = ranking.rank_correlation(x, -x)
    assert found is not None
    assert found.spearman == -1
    assert np.isnan([found.low, found.high]).all()
    assert found.p_value == pytest.approx(2 / 120)  # one order of 120, and its mirror
    assert str(found) == "-1.00 (p = 0.017), n = 5"


@pytest.mark.parametrize("x", [[1, 2, 3, 4, 5, 6], [1, 1, 2, 3, 4, 5], [1, 1, 2, 3, 4, 4]])
def test_a_perfect_order_of_many_has_its_exact_p_value(
    x: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In closed form as over all orders, with ties and without."""
    values = np.array(x, dtype=float)
    counted = ranking.rank_correlation(values, 2 * values, resamples=10)
    monkeypatch.setattr(ranking, "_MOST_PERMUTED", 5)
    found = ranking.rank_correlation(values, 2 * values, resamples=10)
    assert found is not None
    assert counted is not None
    assert found.p_value == pytest.approx(counted.p_value)


@pytest.mark.parametrize("rows", [5, 6, 12])
def test_the_p_value_of_a_rank_correlation_is_scipys(rows: int) -> None:
    rng = np.random.default_rng(rows)
    x, y = rng.normal(size=(2, rows))
    found = ranking.rank_correlation(x, y)
    assert found is not None
    if rows > 8:
        assert found.p_value == pytest.approx(stats.spearmanr(x, y).pvalue)
        return
    exact = stats.permutation_test(
        (x,),
        lambda x: stats.spearmanr(x, y).statistic,
        permutation_type="pairings",
        n_resamples=np.inf,
    )
    assert found.p_value == pytest.approx(exact.pvalue)


# --- how much is in --------------------------------------------------------------------------

SPEC = "name: s\nspace: {squeeze_ratio: [0.125, 0.25, 0.5]}\n"


def test_how_much_is_in(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"found no spec\.yaml"):
        completeness(tmp_path)
    (tmp_path / "spec.yaml").write_text(SPEC)
    assert str(completeness(tmp_path)) == "0 of 3 trials"
    rows = [
        {"sweep": "s", "trial": n, "state": state, "arch_id": f"a{n}"}
        for n, state in enumerate(["complete", "failed"])
    ]
    ResultFolder(tmp_path).write({"trials": rows})
    found = completeness(tmp_path)
    assert (found.done, found.planned, found.whole) == (2, 3, False)
    assert str(found) == "2 of 3 trials (1 failed)"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("search: {sampler: random, trials: 2}", 2),
        ("search: {sampler: random, trials: 70}", 3),
        ("constraints: ['squeeze_ratio < 0.5']", 2),
    ],
)
def test_the_planned_number_follows_from_the_spec(tmp_path: Path, more: str, expected: int) -> None:
    (tmp_path / "spec.yaml").write_text(SPEC + more + "\n")
    assert completeness(tmp_path).planned == expected


@pytest.mark.parametrize("seed", range(20))
def test_kendalls_tau_is_scipys(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 6, (2, 12)).astype(float)  # with ties
    assert ranking.kendall(a, b) == pytest.approx(stats.kendalltau(a, b).statistic)
    assert np.isnan(ranking.kendall(np.ones(4), a[:4]))
    samples = rng.integers(0, 12, (5, 12))
    expected = [stats.kendalltau(a[rows], b[rows]).statistic for rows in samples]
    assert ranking.resampled_kendall(a, b, samples) == pytest.approx(expected)
