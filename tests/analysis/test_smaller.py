"""What compression costs: against counts by hand and a simulation of paired answers."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sqzexplore import analysis
from sqzexplore.errors import UserError
from sqzexplore.results.selection import chosen_by
from sqzexplore.train.accuracy import packed

IMAGES = 400


def tables(
    generator: np.random.Generator, lost: dict[float, float], seeds: int = 3
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """`compression`, `seeds` and `images` of one architecture: of the images that were right, the
    share `lost` is wrong at each density."""
    skill = generator.beta(8, 2, IMAGES)
    rows, runs, answers = [], [], []
    for seed in range(seeds):
        which = {"sweep": "s", "trial": 4, "seed": seed, "epochs": 9}
        right = generator.random(IMAGES) < skill
        top1 = 100 * right.mean()
        runs.append(which | {"top1": top1, "val_top1": top1 + 1})
        answers.append(which | {"split": "test", "right": packed(right)})
        for density, share in lost.items():
            after = right & (generator.random(IMAGES) >= share)
            row = {"density": density, "bits": 6, "finetune_epochs": 2, "right": packed(after)}
            row |= {"compressed_top1": 100 * after.mean(), "compressed_mb": density}
            row["compressed_val_top1"] = top1 + 1 - 10 * (1 - density) - seed / 10
            rows.append(which | row)
    return pd.DataFrame(rows), pd.DataFrame(runs), pd.DataFrame(answers)


def test_a_row_a_setting_paired_by_seed() -> None:
    smaller, seeds, images = tables(np.random.default_rng(0), {1.0: 0.0, 0.5: 0.02, 0.3: 0.2})
    shuffled = smaller.sample(frac=1, random_state=1)
    found = analysis.drops(shuffled, seeds, images).set_index("density")
    assert found.index.nunique() == 3
    for density, group in smaller.groupby("density"):
        row = found.loc[density]
        drop = seeds["top1"].to_numpy() - group["compressed_top1"].to_numpy()
        assert row["compressed_drop"] == pytest.approx(drop.mean())
        assert row["compressed_drop_ci_low"] < drop.mean() < row["compressed_drop_ci_high"]
        lost = seeds["val_top1"].to_numpy() - group["compressed_val_top1"].to_numpy()
        assert row["val_drop"] == pytest.approx(lost.mean())
        assert row["val_drop_se"] == pytest.approx(stats.sem(lost))
        assert 0 <= row["compressed_top1_ci_low"] < row["compressed_top1_ci_high"] <= 100
    # Nothing is lost where every answer is the same, and that is no certainty.
    assert found.loc[1.0, "compressed_drop"] == 0
    assert found.loc[1.0, "compressed_drop_ci_high"] > 0
    # On the validation split 0.1 on average at density 1, then 5.1 and 7.1.
    assert analysis.smallest_kept(found.reset_index(), "compressed", 1)["density"] == 1.0
    assert analysis.smallest_kept(found.reset_index(), "compressed", 6)["density"] == 0.5
    with pytest.raises(UserError, match=r"none is shown to be at most 0\.1 points below"):
        analysis.smallest_kept(found, "compressed", 0.1)


def test_the_smallest_is_chosen_by_corrected_tests() -> None:
    """At a margin of 1 point, by scipy's test; beside others that are worse it takes more."""
    table = {"compressed_mb": [1.0, 2.0], "trial": 0, "seeds": 3, "val_drop": [0.5, 5.0]}
    rows = pd.DataFrame(table | {"val_drop_se": 0.15})
    drop = 0.5 + 0.15 * np.sqrt(3) * np.array([-1, 0, 1])
    assert stats.sem(drop) == pytest.approx(0.15)
    p_value = stats.ttest_1samp(drop, 1.0, alternative="less").pvalue
    assert 0.025 < p_value < 0.05
    assert analysis.smallest_kept(rows[:1], "compressed", 1)["val_drop"] == 0.5
    # All three seeds agree, which is no certainty; beside it the other takes more as well.
    right = np.array([259, 261, 262]) / 270
    agree = float(stats.sem(100 * right - 100 * (right - 2 / 270)))
    assert 0 < agree < 1e-12
    two = pd.concat([rows[:1], rows[:1].assign(val_drop_se=agree)])
    for more in (rows, two[1:], two):
        with pytest.raises(UserError, match="none is shown"):
            analysis.smallest_kept(more, "compressed", 1)


def test_the_interval_of_what_is_lost_holds_it() -> None:
    """Of 300 simulated sweeps, against the exact binomial bounds of 95%."""
    share = 0.05
    sweeps = [
        [
            table.assign(trial=number)
            for table in tables(np.random.default_rng(number), {0.5: share})
        ]
        for number in range(300)
    ]
    rows = analysis.drops(*(pd.concat(each) for each in zip(*sweeps, strict=True)))
    truth = 100 * share * 8 / 10  # of the images that are right in the mean
    held = (rows["compressed_drop_ci_low"] <= truth) & (truth <= rows["compressed_drop_ci_high"])
    low, high = stats.binom.ppf([0.0005, 0.9995], 300, 0.95)
    assert low <= held.sum() <= high


def test_one_seed_has_no_interval_and_is_no_proof() -> None:
    smaller, seeds, images = tables(np.random.default_rng(0), {0.5: 0.0}, seeds=1)
    row = analysis.drops(smaller, seeds, images).iloc[0]
    assert math.isnan(row["compressed_drop_ci_low"])
    with pytest.raises(UserError, match="none is shown to be at most 50 points"):
        analysis.smallest_kept(pd.DataFrame([row]), "compressed", 50)


def test_what_is_missing_is_named() -> None:
    smaller, seeds, _ = tables(np.random.default_rng(0), {0.5: 0.0})
    with pytest.raises(UserError, match="found 'int4', expected one of compressed, int8"):
        analysis.drops(smaller, seeds, form="int4")
    for some in (seeds.iloc[:2], seeds.assign(trial=5)):
        with pytest.raises(UserError, match=r"trial 4 of s: found no training of seed [02] in"):
            analysis.drops(smaller, some)
    with pytest.raises(UserError, match="scheme"):
        analysis.drops(smaller, seeds, form="int8")


def test_choices_look_at_the_validation_split() -> None:
    assert chosen_by("compressed_top1") == "compressed_val_top1"
    assert chosen_by("int8_top1") == "int8_val_top1"
    assert chosen_by("compressed_mb") == "compressed_mb"
