"""The pruner `front` in a sweep, with accuracies made up."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from helpers.sweeps import run
from sqzexplore.errors import UserError
from sqzexplore.evaluation import bench
from sqzexplore.results.folder import load_results
from sqzexplore.spec.load import parse_spec
from sqzexplore.train import loop

EPOCHS = 9
SWEEP = """
name: ended
base: {{width_multiplier: 0.1}}
space:
  squeeze_ratio: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
  fraction_3x3: [0.25, 0.5, 0.75, 1.0]
search: {{{search}, pruner: front, risk: 0.1, objectives: {{top1: maximize, macs: minimize}}}}
measure:
  accuracy: {{data: digits, epochs: 9, seeds: 2}}
"""


class MadeUp:
    """Less 3x3 is better, and costs less; each gains as much an epoch."""

    net, device_name = None, "a made up device"

    def __init__(self, architecture, data, recipe, seed, on_epoch, unfinished):
        self.level = 40 + 30 * architecture.squeeze_ratio - 20 * architecture.fraction_3x3
        self.seed, self.on_epoch = seed, on_epoch
        self.history, self.stopped = [], False

    def turn(self) -> bool:
        if self.stopped or len(self.history) == EPOCHS:
            return False
        epoch = len(self.history) + 1
        self.history.append(loop.Epoch(epoch, 1.0, self.level + epoch))
        self.stopped = self.on_epoch(self.history[-1])
        return True

    def run(self) -> loop.Run:
        last = self.history[-1].val_top1
        top1 = math.nan if self.stopped else last
        tops = (top1, top1, last)
        states = (False, False, self.stopped)
        return loop.Run(self.seed, EPOCHS, *states, *tops, 0.1, tuple(self.history), {}, top1, [])


@pytest.mark.parametrize(
    "search", ["sampler: grid", "sampler: tpe, trials: 25", "sampler: nsga2, trials: 25"]
)
def test_trainings_that_cannot_reach_the_front_are_ended(
    search: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "lead", MadeUp)
    outcome, _ = run(SWEEP.format(search=search), tmp_path)
    table = load_results(tmp_path)
    pruned = table[table["state"] == "pruned"]
    finished = table[table["state"] == "complete"]
    assert len(pruned) == outcome.pruned
    assert len(finished) >= 9, "1 / risk - 1"
    assert len(table) == (32 if "grid" in search else 25)
    if "grid" in search:
        assert len(pruned) > 10
    assert (pruned["epochs"] == 1).all()
    assert pruned["top1"].isna().all(), "no test split was looked at"
    for _, row in pruned.iterrows():
        best = row["val_top1"] + EPOCHS - 1
        better = (finished["macs"] <= row["macs"]) & (finished["val_top1"] >= best)
        assert better.any()


@pytest.mark.parametrize(
    ("objectives", "message"),
    [
        ("{top1: maximize}", "expected top1: maximize and at least one cost"),
        ("{macs: minimize, params: minimize}", "expected top1: maximize and at least one cost"),
        ("{top1: maximize, macs: minimize, top5: maximize}", "the objective top5"),
    ],
)
def test_objectives_that_it_cannot_judge(objectives: str, message: str) -> None:
    text = SWEEP.format(search="sampler: grid")
    with pytest.raises(UserError, match=message):
        parse_spec(text.replace("{top1: maximize, macs: minimize}", objectives))
