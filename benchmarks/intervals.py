"""Do the intervals hold, and are the verdicts right? By trainings whose truth is known.

    python benchmarks/intervals.py --out results/benchmarks/intervals.csv

A network of an architecture with seed s is right on image i where a normal number is below a
threshold: the number is a sum of the seed's effect, the image's difficulty (the same for all
architectures), the architecture's own difficulty with the image, and noise of the answer. The
threshold decides the true accuracy over all seeds and images; the scales are those that are seen
on CIFAR-10 and Fashion-MNIST. Each row: how often an interval held the truth, or a verdict or
choice was wrong, with Wilson's 95% interval over the repetitions.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from tqdm import tqdm

from sqzexplore import provenance
from sqzexplore.analysis.accuracy import Trainings, accuracy_interval, difference
from sqzexplore.analysis.front import draw_means, not_worse
from sqzexplore.analysis.ranking import rank_correlation
from sqzexplore.analysis.verdicts import ALPHA, verdicts


@dataclass(frozen=True)
class World:
    """Standard deviations of what an answer is made of; the answer's noise has 1."""

    images: int
    seed: float
    difficulty: float = 1.5
    own: float = 0.3
    paired: float = 0.0

    @property
    def scale(self) -> float:
        """The standard deviation of an answer's number."""
        return float(np.sqrt(self.seed**2 + self.difficulty**2 + self.own**2 + 1))

    def draw(self, rng: np.random.Generator, truths: list[float], seeds: int) -> list[Trainings]:
        """Trainings of architectures whose true accuracies, %, are `truths`."""
        difficulty = rng.normal(0, self.difficulty, self.images)
        common = rng.normal(0, 1, (seeds, 1))
        found = []
        for truth in truths:
            threshold = stats.norm.ppf(truth / 100) * self.scale
            own = np.sqrt(1 - self.paired) * rng.normal(0, 1, (seeds, 1))
            shift = self.seed * (np.sqrt(self.paired) * common + own)
            number = shift + difficulty + rng.normal(0, self.own, self.images)
            right = number + rng.normal(0, 1, (seeds, self.images)) < threshold
            values = 100 * right.mean(axis=1)
            found.append(Trainings(tuple(range(seeds)), values, right))
        return found


#: The name of each world and what it stands for.
WORLDS = {
    "10,000 images, seeds 0.5 points apart": World(10_000, 0.04),
    "4,000 images, seeds 0.6 points apart": World(4_000, 0.04),
    "4,000 images, seeds 2 points apart": World(4_000, 0.15),
    "450 images, seeds 1.3 points apart": World(450, 0.04),
}
SEEDS = (3, 5, 10)
#: True accuracies, %, of a network alone, and of pairs: equal and unequal.
ALONE, EQUAL, UNEQUAL = (60.0, 85.0, 98.5), (85.0, 85.0), (84.0, 85.0)
_MARGIN = 1.0

Trial = Callable[[np.random.Generator], bool]


def cases() -> Iterator[tuple[dict[str, object], float, Trial]]:
    """What is looked at, how often it should happen, and one repetition."""
    for world_name, world in WORLDS.items():
        for seeds in SEEDS:
            where = {"world": world_name, "seeds": seeds}
            for truth in ALONE:
                what = {"what": "interval of an accuracy holds it", "truth": f"{truth:g}%"}
                yield where | what, 0.95, partial(_holds_mean, world, seeds, truth)
            for pair in (EQUAL, UNEQUAL):
                truth_ = f"{pair[0]:g}% and {pair[1]:g}%"
                for paired in (False, True):
                    what = {"what": f"interval of a difference holds it{', paired' * paired}"}
                    own = World(world.images, world.seed, paired=0.7 if paired else 0.0)
                    trial = partial(_holds_difference, own, seeds, pair, paired)
                    yield where | what | {"truth": truth_}, 0.95, trial
            for name, pair, trial in (
                ("'higher' said to hold", EQUAL, _wrong_higher),
                ("'same within 1' said to hold", UNEQUAL, _wrong_same),
                ("a family of five 'higher', any said to hold", EQUAL, _wrong_family),
                ("'at most 1 point worse' said of one that is 1 worse", UNEQUAL, _wrong_smallest),
                ("the same of eight, said of any", UNEQUAL, _wrong_of_eight),
            ):
                what = {"what": name, "truth": f"{pair[0]:g}% and {pair[1]:g}%"}
                yield where | what, 0.05, partial(trial, world, seeds)
            what = {"what": "front probability below 5% or above 95%", "truth": "85% and 85%"}
            yield where | what, 0.10, partial(_sure_of_equals, world, seeds)
    for rows in (5, 8, 15, 40):
        for rho in (0.0, 0.8):
            what = {"what": f"interval of a rank correlation of {rows} holds it", "truth": rho}
            yield what | {"world": "normal", "seeds": None}, 0.95, partial(_holds_rank, rows, rho)


def _holds_mean(world: World, seeds: int, truth: float, rng: np.random.Generator) -> bool:
    low, high = accuracy_interval(world.draw(rng, [truth], seeds)[0])
    return low <= truth <= high


def _holds_difference(
    world: World, seeds: int, pair: tuple[float, float], paired: bool, rng: np.random.Generator
) -> bool:
    first, second = world.draw(rng, list(pair), seeds)
    low, high = difference(second, first, paired).interval()
    return low <= pair[1] - pair[0] <= high


def _wrong_higher(world: World, seeds: int, rng: np.random.Generator) -> bool:
    first, second = world.draw(rng, list(EQUAL), seeds)
    return verdicts([(difference(second, first), "higher", 0.0)])[0].verdict == "holds"


def _wrong_same(world: World, seeds: int, rng: np.random.Generator) -> bool:
    first, second = world.draw(rng, list(UNEQUAL), seeds)
    return verdicts([(difference(second, first), "same", _MARGIN)])[0].verdict == "holds"


def _wrong_family(world: World, seeds: int, rng: np.random.Generator) -> bool:
    runs = world.draw(rng, [85.0] * 6, seeds)
    claims = [(difference(runs[i + 1], runs[0]), "higher", 0.0) for i in range(5)]
    return any(found.verdict == "holds" for found in verdicts(claims))


def _wrong_smallest(world: World, seeds: int, rng: np.random.Generator) -> bool:
    return _said_wrongly(world, [UNEQUAL[0]], seeds, rng)


def _wrong_of_eight(world: World, seeds: int, rng: np.random.Generator) -> bool:
    return _said_wrongly(world, 8 * [UNEQUAL[0]], seeds, rng)


def _said_wrongly(world: World, worse: list[float], seeds: int, rng: np.random.Generator) -> bool:
    runs = world.draw(rng, [*worse, UNEQUAL[1]], seeds)
    return bool((not_worse(runs, range(len(runs)), _MARGIN)[:-1] < ALPHA).any())


def _sure_of_equals(world: World, seeds: int, rng: np.random.Generator) -> bool:
    drawn = draw_means(world.draw(rng, list(EQUAL), seeds), [0, 1], 1000, rng)
    share = float((drawn[:, 1] > drawn[:, 0]).mean())
    return share < 0.05 or share > 0.95


def _holds_rank(rows: int, rho: float, rng: np.random.Generator) -> bool:
    """Of a bivariate normal distribution (Pearson's 2 sin(pi rho / 6) gives Spearman's rho); a
    perfect order, which has no interval, is left to its p-value and counts as held."""
    pearson = 2 * np.sin(np.pi * rho / 6)
    x, y = rng.multivariate_normal([0, 0], [[1, pearson], [pearson, 1]], rows).T
    found = rank_correlation(x, y, resamples=500)
    assert found is not None
    return bool(np.isnan(found.low)) or found.low <= rho <= found.high


def simulated(repetitions: int) -> pd.DataFrame:
    """A row a case."""
    rows = []
    for case, nominal, trial in tqdm(list(cases()), unit="case"):
        rng = np.random.default_rng(0)
        hits = sum(trial(rng) for _ in range(repetitions))
        interval = stats.binomtest(hits, repetitions).proportion_ci(method="wilson")
        rows.append(
            case
            | {"nominal": nominal, "found": hits / repetitions}
            | {"low": interval.low, "high": interval.high, "repetitions": repetitions}
        )
    frame = pd.DataFrame(rows)[
        [*("what", "world", "truth", "seeds", "nominal", "found"), *("low", "high", "repetitions")]
    ]
    return frame.round(4).assign(git_commit=provenance.git_commit())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/intervals.csv"))
    parser.add_argument("--repetitions", type=int, default=600)
    asked = parser.parse_args()
    table = simulated(asked.repetitions)
    table.to_csv(asked.out, index=False)
    print(table.groupby(["what", "seeds"], dropna=False)[["nominal", "found"]].mean())
