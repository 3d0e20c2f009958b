"""Several budgets, networks that still learn, dead ones, and which images were right."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import sqzexplore as sqz
from helpers.sweeps import run
from sqzexplore.analysis.accuracy import trainings
from sqzexplore.analysis.front import front_probability
from sqzexplore.analysis.ranking import budget_ranking
from sqzexplore.analysis.validation import largest_budget
from sqzexplore.data.images import load
from sqzexplore.data.open import open_data
from sqzexplore.errors import UserError
from sqzexplore.evaluation import rows, tasks
from sqzexplore.results.folder import load_results
from sqzexplore.results.remarks import training_remarks
from sqzexplore.spec.load import parse_spec
from sqzexplore.train import accuracy, loop

TWO = """\
name: budgets
base: {width_multiplier: 0.1, fires: 3, pool_after: [1, 3], bypass: complex}
space: {squeeze_ratio: [0.25, 1.0]}
input_size: 32
measure:
  accuracy:
    {data: digits, epochs: [2, 1], batch_size: 32, learning_rate: 0.01, seeds: 2}
"""


@pytest.fixture(scope="module")
def one_epoch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smaller budget alone, run to its end."""
    folder = tmp_path_factory.mktemp("one_epoch")
    run(TWO.replace("[2, 1]", "1"), folder)
    return folder


def test_a_training_for_each_budget(one_epoch: Path, tmp_path: Path) -> None:
    """The row is the largest one's; a smaller budget is a training of its own, not a part of it."""
    _, progress = run(TWO, tmp_path)
    trials, seeds = load_results(tmp_path), load_results(tmp_path, "seeds")
    history = load_results(tmp_path, "history")
    assert trials["epochs"].tolist() == [2, 2]
    assert trials["seeds"].tolist() == [2, 2]
    assert seeds.groupby(["trial", "epochs"]).size().tolist() == [2, 2, 2, 2]
    assert history.groupby(["trial", "epochs", "seed"]).size().tolist() == [1, 1, 2, 2] * 2
    largest = largest_budget(seeds)
    assert largest["epochs"].tolist() == [2] * 4
    means = largest.groupby("trial")["top1"].mean()
    assert means.tolist() == pytest.approx(trials["top1"].tolist())
    goals = (["train_params"], ["top1"])
    both, one = (front_probability(trials, table, *goals) for table in (seeds, largest))
    pd.testing.assert_frame_equal(both, one)
    first = history[history["epoch"] == 1].pivot_table("train_loss", ["trial", "seed"], "epochs")
    assert (first[1] != first[2]).all(), "another schedule from the first step on"
    assert progress.units == pytest.approx(progress.total)
    assert (
        seeds[seeds["epochs"] == 1]["top1"].tolist()
        == load_results(one_epoch, "seeds")["top1"].tolist()
    )


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        ("[]", "expected a number of epochs, or a list such as [6, 18, 54]"),
        ("few", "expected a number of epochs, or a list such as [6, 18, 54]"),
        ("[2, 2]", "expected each number of epochs once"),
        ("[0, 2]", "measure.accuracy.epochs[0]: found 0, expected"),
        ("true", "expected a number of epochs"),
    ],
)
def test_budgets_that_are_none(epochs: str, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_spec(TWO.replace("[2, 1]", epochs))
    assert "measure.accuracy.epochs" in str(caught.value)
    assert expected in str(caught.value)


def test_a_pruner_wants_one_budget() -> None:
    text = TWO + "search: {pruner: halving, objectives: {top1: maximize}}\n"
    with pytest.raises(UserError, match=r"search.pruner: found halving with several budgets"):
        parse_spec(text)


def test_a_search_judges_by_nothing_that_the_test_split_alone_says() -> None:
    constraints = ["top5 >= 90", "balanced_top1 >= 90", "top1 >= 60"]
    spec = parse_spec(TWO + f"constraints: {constraints}\nsearch: {{sampler: random, trials: 2}}\n")
    architecture = sqz.Architecture()
    row = rows.describe_row(architecture, spec, None) | {"state": "complete"}
    row |= {"top1": 50.0, "val_top1": 70.0, "top5": 80.0, "balanced_top1": 50.0}
    known = rows.violations(architecture, row, spec, of_search=True)
    assert known == {"top1 >= 60": -10.0}
    assert [*rows.violations(architecture, row, spec).values()] == [10.0, 40.0, 10.0]


def evaluation(curves: dict[tuple[int, int], list[float]]) -> tasks.Evaluation:
    """A trial whose trainings, by (epochs, seed), have these validation accuracies."""
    history = [
        {"epochs": epochs, "seed": seed, "epoch": number, "val_top1": value}
        for (epochs, seed), values in curves.items()
        for number, value in enumerate(values, 1)
    ]
    return tasks.Evaluation({}, history=history)


def test_still_learning_by_the_last_budget_but_one() -> None:
    """Gains of 3, 4 and 5 points: mean 4, standard error 0.577, t(0.95, 2) = 2.920, so 2.31."""
    one = {(2, seed): [10.0, 60.0] for seed in range(3)}
    two = {(4, seed): [0.0, 0.0, 0.0, 63.0 + seed] for seed in range(3)}
    assert rows.still_learning(evaluation(one | two), (2, 4)) is True
    near = {(4, seed): [0.0, 0.0, 0.0, 61.5 + seed] for seed in range(3)}  # 2.5 - 1.69 = 0.81
    assert rows.still_learning(evaluation(one | near), (2, 4)) is False
    assert rows.still_learning(evaluation({**one, (4, 0): two[4, 0]}), (2, 4)) is None


def test_still_learning_over_the_last_third() -> None:
    """Of six epochs, from the fourth to the sixth."""
    gains = {(6, seed): [0.0, 0.0, 0.0, 50.0, 0.0, 52.0 + seed / 10] for seed in range(2)}
    assert rows.still_learning(evaluation(gains), (6,)) is True
    level = {(6, seed): [0.0, 0.0, 0.0, 50.0, 99.0, 50.5] for seed in range(2)}
    assert rows.still_learning(evaluation(level), (6,)) is False
    assert rows.still_learning(evaluation({(6, 0): gains[6, 0]}), (6,)) is None
    assert rows.still_learning(evaluation({(1, s): [50.0] for s in range(2)}), (1,)) is None
    diverged = gains | {(6, 1): [0.0, math.nan]}
    assert rows.still_learning(evaluation(diverged), (6,)) is None


def test_dead_is_an_accuracy_that_chance_gives() -> None:
    """Against the binomial distribution summed by hand, at both sides of its 5% point."""
    counts = np.array([30, 20, 50])

    def tail(right: int) -> float:
        return sum(math.comb(100, k) * 0.5**k * 0.5 ** (100 - k) for k in range(right, 101))

    last = next(right for right in range(50, 100) if tail(right) <= 0.05)
    assert last == 59
    for right, expected in ((0, True), (50, True), (last - 1, True), (last, False), (100, False)):
        assert accuracy.by_chance(np.arange(100) < right, counts) is expected


def test_a_dead_network_is_a_state_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One seed starts with a last bias from which no class comes back."""
    real = loop.initialise
    killed: list[int] = []

    def killing(net: torch.nn.Module, recipe: object) -> None:
        real(net, recipe)
        if net.architecture.squeeze_ratio == 1.0 and torch.initial_seed() == 1:
            killed.append(1)
            torch.nn.init.constant_(net.classifier[1].bias, -1000.0)

    class Seeded(loop.Training):
        def _initial(self, architecture):
            torch.manual_seed(self.seed)
            return super()._initial(architecture)

    monkeypatch.setattr(loop, "initialise", killing)
    monkeypatch.setattr(loop, "Training", Seeded)
    outcome, _ = run(TWO.replace("[2, 1]", "2"), tmp_path)
    assert killed, "the fault did not happen"
    assert (outcome.complete, outcome.dead, outcome.failures) == (1, 1, [])
    trials, seeds = load_results(tmp_path), load_results(tmp_path, "seeds")
    assert trials["state"].tolist() == ["complete", "dead"]
    assert trials["dead_seeds"].tolist() == [0, 1]
    assert trials["top1"].isna().tolist() == [False, True]
    assert seeds["dead"].tolist() == [False, False, False, True]
    assert seeds["top1"].notna().all(), "its seeds keep theirs"
    remark = next(text for text in training_remarks(trials, seeds) if text.startswith("dead"))
    low, high = wilson(1, 4)
    assert f"dead: 1 of 4 trainings (Wilson's 95% interval {low:.1%} to {high:.1%})" in remark
    assert run(TWO.replace("[2, 1]", "2"), tmp_path)[0].dead == 1, "it is not trained again"


def wilson(k: int, n: int) -> tuple[float, float]:
    """Wilson's interval by its formula (1927)."""
    z = stats.norm.ppf(0.975)
    centre = (k + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * math.sqrt(k * (n - k) / n + z**2 / 4)
    return centre - half, centre + half


def test_which_images_were_right(one_epoch: Path) -> None:
    """The bits are those of the network that the seed trains."""
    images, seeds = load_results(one_epoch, "images"), load_results(one_epoch, "seeds")
    assert images["split"].tolist() == ["test", "validation"] * 4
    data = load(open_data("digits"), 32)
    for trial, ratio in ((0, 0.25), (1, 1.0)):
        architecture = sqz.Architecture(
            squeeze_ratio=ratio,
            width_multiplier=0.1,
            fires=3,
            pool_after=(1, 3),
            bypass="complex",
        ).replace(in_channels=1, num_classes=10)
        how = loop.Recipe(epochs=1, batch_size=32, learning_rate=0.01)
        net, _ = loop.fit(architecture, data, how, 1)
        for split in ("test", "validation"):
            part = getattr(data, split)
            pixels = ((part.images.float() - data.mean) / data.std).permute(0, 3, 1, 2)
            with torch.no_grad():
                expected = (net.eval()(pixels).argmax(1) == part.labels).numpy()
            column = "top1" if split == "test" else "val_top1"
            once = seeds[seeds["epochs"] == 1]
            runs = trainings(once, images, column)[once["sweep"].iloc[0], trial]
            assert np.array_equal(runs.of([1]).right, expected[None])
            top1 = seeds.query(f"trial == {trial} and seed == 1")[column].item()
            assert 100 * expected.mean() == pytest.approx(top1)


def test_the_ranking_at_another_budget() -> None:
    """Kendall's tau of a small example: 5 pairs of 6 agree, so (5 - 1) / 6."""
    rows = [
        {"sweep": "s", "arch_id": name, "epochs": epochs, "seed": seed, "val_top1": value + seed}
        for name, values in zip("abcd", [(1, 10), (2, 30), (3, 20), (4, 40)], strict=True)
        for epochs, value in zip((6, 54), values, strict=True)
        for seed in range(2)
    ]
    seeds = pd.DataFrame(rows)
    found = budget_ranking(seeds).iloc[0]
    assert (found["epochs"], found["against"], found["architectures"]) == (6, 54, 4)
    assert found["kendall"] == pytest.approx(4 / 6)
    assert found["ci_low"] <= found["kendall"] <= found["ci_high"]
    with pytest.raises(UserError, match="found 1 numbers of epochs"):
        budget_ranking(seeds[seeds["epochs"] == 6])
    few = seeds[seeds["arch_id"].isin(["a", "b"])]
    with pytest.raises(UserError, match="found 2 architectures with both budgets"):
        budget_ranking(few)
    none = pd.DataFrame(columns=["still_learning", "dead_seeds", "seeds"])
    (said,) = training_remarks(none, seeds)
    assert re.fullmatch(r".* tau 0\.67 \(.* to .*, bootstrap over 4 architectures\)", said)
    for sign, order in ((1, "the same order"), (-1, "the opposite order")):
        later = seeds["val_top1"].where(seeds["epochs"] == 54)
        perfect = seeds.assign(val_top1=later.fillna(sign * later.shift(-2)))
        assert budget_ranking(perfect)[["ci_low", "ci_high"]].isna().all(axis=None)
        (said,) = training_remarks(none, perfect)
        assert said.endswith(f"against 54: Kendall's tau {sign:.2f} ({order} of 4 architectures)")
    (said,) = training_remarks(none, seeds.assign(val_top1=50.0))
    assert said.endswith("against 54: no order, 4 architectures with one value")
    with pytest.raises(UserError, match="budget_ranking: no column 'epochs'"):
        budget_ranking(seeds.drop(columns="epochs"))
