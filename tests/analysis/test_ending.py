"""Ending trainings by exact costs: the risk by simulation, the rule by brute force."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

import sqzexplore as sqz
from sqzexplore.analysis.ending import OutOfReach
from sqzexplore.errors import UserError

EPOCHS = 12


def curves(count: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Validation accuracies that grow at rates of their own, with noise."""
    final = generator.uniform(40, 90, (count, 1))
    rate = generator.uniform(0.15, 0.6, (count, 1))
    epochs = np.arange(1, EPOCHS + 1)
    noise = generator.normal(0, 1.0, (count, EPOCHS))
    return final * (1 - np.exp(-rate * epochs)) / (1 - np.exp(-rate * EPOCHS)) + noise


@pytest.mark.parametrize("risk", [0.05, 0.2])
def test_the_bound_holds_for_its_share_of_trainings(risk: float) -> None:
    """One network of no cost would be ended by any other, were it not for what it may reach."""
    generator = np.random.default_rng(0)
    beyond, repeats = 0, 1500
    for _ in range(repeats):
        drawn = curves(41, generator)
        ends = OutOfReach(risk)
        for one in drawn[:40]:
            ends.add([1.0], [*one])
        bounds = drawn[40, :-1] + ends._gains()[:-1]
        beyond += bool((drawn[40, -1] > bounds).any())
    # Four standard errors above the nominal risk; conformal bounds are not far below it either.
    error = 4 * np.sqrt(risk * (1 - risk) / repeats)
    assert risk / 4 < beyond / repeats < risk + 0.01 + error


def test_what_is_ended_is_dominated_at_its_bound() -> None:
    generator = np.random.default_rng(1)
    known, prices = curves(60, generator), generator.integers(1, 30, (60, 2)).astype(float)
    ends = OutOfReach(0.1, first=2)
    for curve, price in zip(known, prices, strict=True):
        ends.add([*price], [*curve])
    gains = ends._gains()
    found = []
    for curve, price in zip(curves(40, generator), generator.integers(1, 30, (40, 2)), strict=True):
        for epoch in range(1, EPOCHS):
            bound = curve[epoch - 1] + gains[epoch - 1]
            dominated = any(
                (other <= price).all() and end >= bound and ((other < price).any() or end > bound)
                for other, end in zip(prices, known[:, -1], strict=True)
            )
            got = ends([*price], epoch, float(curve[epoch - 1]))
            assert got == (dominated and epoch >= 2)
            found.append(got)
    assert 0.1 < np.mean(found) < 0.9


def test_none_is_ended_before_there_is_enough_to_go_by() -> None:
    ends = OutOfReach(0.05)
    assert ends.least == 19
    for number, curve in enumerate(curves(19, np.random.default_rng(0))):
        assert not ends([1e9], 6, 0.0), number
        ends.add([1.0], [*curve])
    assert ends([1e9], 6, 0.0)
    assert not ends([0.5], 6, 0.0), "cheaper than all: nothing dominates it"


def sweep(count: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    generator = np.random.default_rng(2)
    values = curves(count, generator)
    trials = pd.DataFrame(
        {
            "sweep": "made",
            "trial": range(count),
            "state": "complete",
            "macs": generator.integers(10, 10**6, count),
        }
    )
    history = pd.DataFrame(
        [
            {
                "sweep": "made",
                "trial": t,
                "seed": 0,
                "epochs": EPOCHS,
                "epoch": e + 1,
                "val_top1": values[t, e],
            }
            for t in range(count)
            for e in range(EPOCHS)
        ]
    )
    return trials, history


def test_a_replay_saves_and_seldom_loses() -> None:
    trials, history = sweep(120)
    replayed = sqz.replay_ending(trials, history, costs=["macs"], risk=0.1, orders=40)
    assert len(replayed) == 40
    assert (replayed["saved"] > 0.1).all()
    assert replayed["front"].nunique() == 1
    assert replayed["lost"].sum() <= 0.2 * replayed["front"].sum()
    again = sqz.replay_ending(trials, history, costs=["macs"], risk=0.1, orders=40)
    pd.testing.assert_frame_equal(replayed, again)
    # Little may be ended where little risk is taken.
    careful = sqz.replay_ending(trials, history, costs=["macs"], risk=0.01, orders=10)
    assert careful["saved"].mean() < replayed["saved"].mean()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"risk": 1.5}, "found risk 1.5"),
        ({"costs": []}, "0 costs"),
        ({"costs": ["mac"]}, "mac"),
        ({"risk": 0.01}, "networks trained to the end"),
    ],
)
def test_what_cannot_be_replayed(change: dict[str, object], message: str) -> None:
    trials, history = sweep(30)
    with pytest.raises(UserError, match=message):
        sqz.replay_ending(trials, history, **change)  # type: ignore[arg-type]
