"""Do the intervals hold, and are the verdicts right? By simulation of trainings whose truth is known.

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
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from sqzexplore.analysis.accuracy import Trainings, accuracy_interval, difference
from sqzexplore.analysis.front import draws_of, seen_as_front, smallest_not_worse_of
from sqzexplore.analysis.ranking import rank_correlation
from sqzexplore.analysis.verdicts import verdicts


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
    "CIFAR-10 (10,000 images, seeds 0.6 points)": World(10_000, 0.04),
    "fashion (4,000 images, seeds 0.5 points)": World(4_000, 0.04),
    "fashion, seeds 2 points": World(4_000, 0.15),
    "digits (450 images, seeds 0.5 points)": World(450, 0.04),
}
