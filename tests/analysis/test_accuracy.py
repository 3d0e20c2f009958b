"""Intervals of accuracies and verdicts: against scipy, closed forms, and simulation."""

from __future__ import annotations

import base64
import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sqzexplore.analysis.accuracy import (
    Estimate,
    Trainings,
    accuracy_interval,
    contrast,
    difference,
    mean_accuracy,
    trainings,
)
from sqzexplore.analysis.verdicts import holm, verdicts


def answers(
    rng: np.random.Generator, seeds: int, images: int, shift: float = 0.0, spread: float = 0.2
) -> np.ndarray:
    """Right answers of a population in which seeds, images and single answers all vary."""
    number = rng.normal(0, spread, (seeds, 1)) + rng.normal(0, 1, images)
    return number + rng.normal(0, 1, (seeds, images)) < 1.0 + shift


def of(right: np.ndarray) -> Trainings:
    return Trainings(tuple(range(len(right))), 100 * right.mean(axis=1), right)


def without_images(values: list[float]) -> Trainings:
    return Trainings(tuple(range(len(values))), np.array(values))


@pytest.mark.parametrize("seed", range(20))
def test_over_seeds_alone_it_is_scipys_welch(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = (rng.normal(0, rng.uniform(0.1, 3), rng.integers(2, 9)) for _ in range(2))
    ours = difference(without_images(first), without_images(second))
    theirs = stats.ttest_ind(first, second, equal_var=False)
    interval = theirs.confidence_interval(0.95)
    assert ours.interval() == pytest.approx((interval.low, interval.high), rel=1e-9)
    for side, bound in (("greater", 0.7), ("less", 0.7)):
        test = stats.ttest_ind(first - bound, second, equal_var=False, alternative=side)
        p = ours.p_above(bound) if side == "greater" else ours.p_below(bound)
        assert p == pytest.approx(test.pvalue, rel=1e-9)


def test_paired_seeds_are_scipys_paired_test() -> None:
    a, b = [10.0, 20.0, 31.0, 5.0], [9.0, 18.0, 29.0, 7.0]
    ours = difference(without_images(a), without_images(b), paired=True)
    interval = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert ours.interval() == pytest.approx((interval.low, interval.high))
    assert ours.method == "seeds, paired"


@pytest.mark.parametrize("paired", [False, True])
def test_the_variance_is_that_of_the_difference(paired: bool) -> None:
    """Of a population drawn again and again, other seeds and other images each time."""
    rng = np.random.default_rng(1)
    values, claimed = [], []
    for _ in range(1500):
        images = rng.normal(0, 1, 300)
        common = rng.normal(0, 0.3, (4, 1)) if paired else 0.0
        sides = []
        for _ in range(2):  # each network is of its own mind of some images, under some seeds
            own = rng.normal(0, 0.3, (4, 1)) + rng.normal(0, 0.5, 300)
            sides.append(common + own + images + rng.normal(0, 1, (4, 300)) < 1.0)
        found = difference(of(sides[0]), of(sides[1]), paired=paired)
        values.append(found.value)
        claimed.append(found.error**2)
    assert np.mean(claimed) == pytest.approx(np.var(values), rel=0.12)


def test_the_interval_of_a_mean_holds_the_truth() -> None:
    """And the one over seeds alone does not: the images are a part of it."""
    rng = np.random.default_rng(2)
    truth = 100 * stats.norm.cdf(1.0 / np.sqrt(0.05**2 + 2))
    hits, narrow = 0, 0
    for _ in range(600):
        right = answers(rng, 5, 400, spread=0.05)
        low, high = accuracy_interval(of(right))
        hits += low <= truth <= high
        low, high = accuracy_interval(without_images((100 * right.mean(axis=1)).tolist()))
        narrow += low <= truth <= high
    assert 0.92 < hits / 600 < 0.98
    assert narrow / 600 < 0.9


def test_equal_networks_give_wilsons_interval() -> None:
    """Where seeds do not vary, N images are what there is."""
    right = np.zeros(2000, dtype=bool)
    right[:1900] = True
    found = accuracy_interval(of(np.stack([right] * 3)))
    wilson = stats.binomtest(1900, 2000).proportion_ci(method="wilson")
    assert found == pytest.approx((100 * wilson.low, 100 * wilson.high), abs=0.005)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_no_interval_is_a_point(share: float) -> None:
    right = np.full((3, 450), bool(share))
    low, high = accuracy_interval(of(right))
    assert 0 <= low < high <= 100
    assert 100 * share in (low, high)
    assert high - low == pytest.approx(100 * 3.84 / (450 + 3.84), rel=0.02)  # Wilson's at the end
    found = difference(of(right), of(right))
    low, high = found.interval()
    assert low < 0 < high
    assert found.p_above(0) == pytest.approx(0.5)


def test_one_seed_says_nothing_of_seeds() -> None:
    one = of(np.ones((1, 10), dtype=bool))
    assert np.isnan(accuracy_interval(one)).all()
    assert np.isnan(difference(one, one).interval()).all()
    for few in (2, 3):  # of three the variance is 1e-28, by rounding
        same = without_images([50.08] * few)
        assert np.isnan(accuracy_interval(same)).all()
        assert np.isnan(difference(same, without_images([91.0] * few)).error)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0.001, 0.5), min_size=2, max_size=4),
    st.integers(2, 5),
    st.integers(0, 10**6),
)
def test_a_contrast_is_linear(weights: list[float], seeds: int, seed: int) -> None:
    """Scaled weights scale value and error; the order of the terms changes nothing."""
    rng = np.random.default_rng(seed)
    terms = [(of(answers(rng, seeds, 60)), weight) for weight in weights]
    found, doubled = contrast(terms), contrast([(runs, 2 * w) for runs, w in terms])
    assert doubled.value == pytest.approx(2 * found.value)
    assert doubled.error == pytest.approx(2 * found.error)
    mirrored = contrast(terms[::-1])
    assert (mirrored.value, mirrored.error) == pytest.approx((found.value, found.error))


def test_the_tables_give_the_trainings() -> None:
    rng = np.random.default_rng(0)
    right = answers(rng, 3, 77)
    seeds = pd.DataFrame(
        {"sweep": "s", "trial": 4, "seed": [2, 0, 1], "epochs": 9, "top1": 100 * right.mean(axis=1)}
    )
    images = seeds.assign(
        split="test",
        right=[base64.b64encode(np.packbits(row).tobytes()).decode() for row in right],
    )
    (found,) = trainings(seeds, images).values()
    assert found.seeds == (0, 1, 2)
    assert found.right is not None
    assert np.array_equal(found.right, right[[1, 2, 0]])
    (alone,) = trainings(seeds, images.iloc[1:]).values()  # one has no answers: none has
    assert alone.right is None
    assert mean_accuracy(found).value == pytest.approx(100 * right.mean())


# --- verdicts --------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_the_closed_test_of_bonferroni(p_values: list[float]) -> None:
    """By its definition: a claim is decided where every family that holds it is."""
    count = len(p_values)
    families = [
        family
        for size in range(1, count + 1)
        for family in itertools.combinations(range(count), size)
    ]
    expected = [
        min(1.0, max(len(f) * min(p_values[j] for j in f) for f in families if i in f))
        for i in range(count)
    ]
    assert holm(np.array(p_values)).tolist() == pytest.approx(expected)


def test_what_is_missing_counts_for_no_test() -> None:
    assert holm(np.array([0.01, np.nan, 0.04]))[[0, 2]] == pytest.approx([0.02, 0.04])


def estimate(value: float, error: float = 0.3) -> Estimate:
    return Estimate(value, error, 20.0, "seeds")


@pytest.mark.parametrize(
    ("value", "expect", "margin", "verdict"),
    [
        (1.5, "higher", 0.0, "holds"),
        (1.5, "higher", 1.3, "undecided"),
        (-1.5, "higher", 0.0, "fails"),
        (-1.5, "lower", 0.0, "holds"),
        (1.5, "lower", 0.0, "fails"),
        (0.1, "same", 1.0, "holds"),
        (0.1, "same", 0.5, "undecided"),  # that it holds 0 is no proof
        (2.5, "same", 1.0, "fails"),
        (-2.5, "same", 1.0, "fails"),
        (0.1, "higher", 0.0, "undecided"),
    ],
)
def test_three_verdicts(value: float, expect: str, margin: float, verdict: str) -> None:
    (found,) = verdicts([(estimate(value), expect, margin)])
    assert found.verdict == verdict


def test_the_detectable_difference_is_seen_four_times_of_five() -> None:
    rng = np.random.default_rng(0)
    seen = 0
    design = estimate(0.0)
    least = design.detectable()
    for _ in range(4000):
        error = 0.3 * np.sqrt(rng.chisquare(20) / 20)
        found = Estimate(rng.normal(least, 0.3), error, 20.0, "seeds")
        seen += verdicts([(found, "higher", 0.0)])[0].verdict == "holds"
    assert seen / 4000 == pytest.approx(0.8, abs=0.025)


@pytest.mark.parametrize(("expect", "truth"), [("higher", 0.0), ("same", 1.0), ("lower", 0.0)])
def test_at_its_margin_a_claim_is_wrongly_decided_one_time_of_twenty(
    expect: str, truth: float
) -> None:
    rng = np.random.default_rng(3)
    wrong = 0
    for _ in range(4000):
        error = 0.3 * np.sqrt(rng.chisquare(8) / 8)
        found = Estimate(rng.normal(truth, 0.3), error, 8.0, "seeds")
        wrong += verdicts([(found, expect, 1.0 if expect == "same" else 0.0)])[0].verdict == "holds"
    assert wrong / 4000 == pytest.approx(0.05, abs=0.012)


def test_a_family_of_claims_is_wrong_one_time_of_twenty() -> None:
    rng = np.random.default_rng(4)
    wrong = 0
    for _ in range(2000):
        errors = 0.3 * np.sqrt(rng.chisquare(8, 5) / 8)
        claims = [
            (Estimate(rng.normal(0, 0.3), float(e), 8.0, "seeds"), "higher", 0.0) for e in errors
        ]
        wrong += any(v.verdict == "holds" for v in verdicts(claims))
    assert wrong / 2000 < 0.065
