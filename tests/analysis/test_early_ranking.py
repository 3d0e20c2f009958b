"""How early the ranking of architectures is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sqzexplore.analysis.ranking import early_ranking
from sqzexplore.errors import UserError


def tables(seed: int = 0, count: int = 12) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Accuracies that come nearer to the final ones with each of 4 epochs, 2 seeds each."""
    random = np.random.default_rng(seed)
    final = random.normal(60, 5, count)
    trials = pd.DataFrame(
        {"sweep": "s", "arch_id": [f"a{i}" for i in range(count)], "state": "complete"}
    ).assign(top1=final)
    history = [
        {
            "sweep": "s",
            "arch_id": f"a{i}",
            "seed": run,
            "epoch": epoch,
            "val_top1": final[i] + random.normal(0, 4 * (4 - epoch)),
        }
        for i in range(count)
        for run in range(2)
        for epoch in range(1, 5)
    ]
    return pd.DataFrame(history), trials


def test_rank_correlation_is_scipys() -> None:
    history, trials = tables()
    ranking = early_ranking(history, trials)
    assert ranking["epoch"].tolist() == [1, 2, 3, 4]
    assert ranking["share"].tolist() == [0.25, 0.5, 0.75, 1.0]
    means = history.groupby(["arch_id", "epoch"])["val_top1"].mean()
    for _, row in ranking.iterrows():
        early = [means[(name, row["epoch"])] for name in trials["arch_id"]]
        assert row["spearman"] == pytest.approx(stats.spearmanr(early, trials["top1"]).statistic)
        if row["spearman"] < 1:  # a perfect order has no interval
            assert row["ci_low"] <= row["spearman"] <= row["ci_high"]
        best = trials["top1"].to_numpy().argmax()
        assert row["best_rank"] == stats.rankdata([-value for value in early])[best]
    last = ranking.iloc[-1]
    assert last["spearman"] == pytest.approx(1)
    assert last["best_rank"] == 1


def test_only_what_was_trained_to_the_end_counts() -> None:
    history, trials = tables()
    pruned = trials.assign(state=["pruned"] * 4 + ["complete"] * 8)
    pruned.loc[:3, "top1"] = np.nan
    short = history[~(history["arch_id"].isin(["a0", "a1", "a2", "a3"]) & (history["epoch"] > 1))]
    ranking = early_ranking(short, pruned)
    assert set(ranking["architectures"]) == {8}
    pd.testing.assert_frame_equal(ranking, early_ranking(history, pruned))
    with pytest.raises(UserError, match="found 2 complete"):
        early_ranking(history, trials.assign(state=["complete"] * 2 + ["failed"] * 10))
    without = early_ranking(history[~history["arch_id"].isin(["a0", "a1", "a2", "a3"])], trials)
    pd.testing.assert_frame_equal(without, ranking)


def test_other_budgets_and_columns_that_are_missing_are_refused() -> None:
    history, trials = tables()
    with pytest.raises(UserError, match=r"rows of different epochs \(4, 8\)"):
        early_ranking(history, trials.assign(epochs=[4, 8] * 6))
    with pytest.raises(UserError, match="early_ranking: no column 'top1'"):
        early_ranking(history, trials.drop(columns="top1"))
    with pytest.raises(UserError, match="early_ranking: no column 'val_top1'"):
        early_ranking(history.drop(columns="val_top1"), trials)
