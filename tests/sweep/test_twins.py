"""Architectures that are one network: trained once, a row each."""

from __future__ import annotations

from pathlib import Path

import pytest

import sqzexplore as sqz
from helpers.sweeps import run
from sqzexplore.evaluation import bench
from sqzexplore.results.folder import load_results

#: Without an increment, how often it comes means nothing; where no channels agree, a simple bypass
#: is none. Four networks in twelve spellings.
TWINS = """\
name: twins
base: {width_multiplier: 0.1, fires: 3, pool_after: [1, 3]}
space:
  expand_increment: [0, 128]
  increment_every: [1, 2, 3]
  bypass: [none, complex]
input_size: 32
measure:
  accuracy: {data: digits, epochs: 1, batch_size: 32, learning_rate: 0.01, seeds: 2}
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_network_is_trained_once(tmp_path: Path, workers: int) -> None:
    run(TWINS, tmp_path, workers=workers)
    trials, seeds = load_results(tmp_path), load_results(tmp_path, "seeds")
    assert len(trials) == trials["arch_id"].nunique() == 12
    assert trials["net_id"].nunique() < 12
    for _, group in trials.groupby("net_id"):
        first = group["trial"].min()
        assert group.loc[group["trial"] == first, "reused_from"].isna().all()
        others = group[group["trial"] != first]
        assert (others["reused_from"] == f"twins/{first}").all()
        assert group["top1"].nunique(dropna=False) == group["started_at"].nunique() == 1
        # The time that a training took is never twice the same.
        assert seeds[seeds["trial"].isin(group["trial"])]["duration_s"].nunique() == 2
    costs = sqz.cost_table(trials, 32)  # each row is of its own metaparameters
    assert costs["params"].tolist() == trials["params"].tolist()
    assert trials.groupby("net_id")["params"].nunique().max() == 1


def test_going_on_finds_them_again(tmp_path: Path) -> None:
    """A sweep that is interrupted between twins trains none again."""
    some = TWINS + "search: {sampler: random, trials: 3, seed: 0}\n"
    run(some, tmp_path)
    run(some.replace("trials: 3", "trials: 12"), tmp_path)
    trials = load_results(tmp_path)
    assert len(trials) == 12
    later = trials.iloc[3:]
    again = later[later["net_id"].isin(trials.head(3)["net_id"])]
    assert len(again)
    assert again["reused_from"].notna().all()
    assert trials["reused_from"].notna().sum() == 12 - trials["net_id"].nunique()


def test_a_network_whose_trial_failed_is_tried_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a failed trial found is of no use to another of the same network."""
    real, failed = bench.lead, []

    def failing(*arguments: object) -> object:
        if not failed:
            failed.append(arguments)
            raise RuntimeError("once")
        return real(*arguments)

    monkeypatch.setattr(bench, "lead", failing)
    outcome, _ = run(TWINS, tmp_path)
    assert len(failed) == 1
    assert len(outcome.failures) == 1
    trials = load_results(tmp_path)
    first = trials.loc[trials["state"] == "failed"].iloc[0]
    twins = trials[(trials["net_id"] == first["net_id"]) & (trials["trial"] != first["trial"])]
    assert len(twins) > 1
    assert (twins["state"] != "failed").all()
    assert twins["reused_from"].isna().sum() == 1  # one trained, the others have it from there
