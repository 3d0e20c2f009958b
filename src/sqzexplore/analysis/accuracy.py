"""Accuracies and their differences, with intervals that hold seeds and images.

A mean accuracy varies for two reasons: other seeds would have given other networks, and other
images would have been met. Seeds and images are crossed (every network sees every image), so that
both variances are estimated from one table of right and wrong answers, networks x images.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from ..errors import UserError, shown
from .validation import largest_budget, require_columns

#: The columns of a training that are accuracies, and the split whose images each is of.
SPLITS = {"top1": "test", "val_top1": "validation"}
#: Columns of `trials` that are means over the trainings in `seeds`.
SEEDED = ("top1", "top5", "val_top1")
#: Points of accuracy, far below one image of any split: a standard error that is less is none.
ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class Trainings:
    """The trainings of one architecture at one budget.

    Args:
        seeds: of the trainings (S).
        values: S accuracies, %.
        right: S x N, whether each image was classified rightly; None where that is not known.
    """

    seeds: tuple[int, ...]
    values: NDArray[np.float64]
    right: NDArray[np.bool_] | None = None

    @classmethod
    def of_packed(
        cls, seeds: Sequence[int], values: NDArray[np.float64], packed: Sequence[str | None]
    ) -> Trainings:
        """From answers as the table `images` holds them; without them unless every training has
        its own, of as many images."""
        return cls(tuple(seeds), values, _unpacked(packed, values))

    @property
    def mean(self) -> float:
        """The mean accuracy, %."""
        return float(self.values.mean())

    def of(self, seeds: Sequence[int]) -> Trainings:
        """Those of these seeds, in their order."""
        places = [self.seeds.index(seed) for seed in seeds]
        right = None if self.right is None else self.right[places]
        return Trainings(tuple(seeds), self.values[places], right)


@dataclass(frozen=True)
class Estimate:
    """A mean or a difference of accuracies, its standard error, and the degrees of freedom of that.

    `method` says what varies in the error: `seeds and images`, or `seeds` alone where it is not
    known which images were right; `paired` where seeds are compared one by one.
    """

    value: float
    error: float
    freedom: float
    method: str

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The two-sided interval of Student's t."""
        half = float(special.stdtrit(self.freedom, (1 + level) / 2)) * self.error
        return self.value - half, self.value + half

    def p_above(self, bound: float) -> float:
        """The one-sided p-value against the true value being at most `bound`."""
        return self._tail(self.value - bound)

    def p_below(self, bound: float) -> float:
        """The one-sided p-value against the true value being at least `bound`."""
        return self._tail(bound - self.value)

    def detectable(self, level: float = 0.95, power: float = 0.8) -> float:
        """How far beyond a bound the true value must lie for a one-sided test at `level` to see it
        with probability `power`: (t_level + t_power) standard errors."""
        quantiles = special.stdtrit(self.freedom, [level, power])
        return float(quantiles.sum()) * self.error

    def _tail(self, distance: float) -> float:
        if math.isnan(self.error):
            return math.nan
        if self.error == 0:
            return 0.5 if distance == 0 else float(distance < 0)
        return float(special.stdtr(self.freedom, -distance / self.error))


def trainings(
    seeds: pd.DataFrame, images: pd.DataFrame | None = None, column: str = "top1"
) -> dict[tuple[str, int], Trainings]:
    """The trainings of each trial, by sweep and trial, at each one's largest budget.

    Args:
        seeds: the table `seeds`; those without a value are left out.
        images: the table `images` of the same.
        column: `top1`, `val_top1` or `top5`.

    Raises:
        UserError: an unknown column, or one that is no accuracy.
    """
    if column not in SEEDED:
        raise UserError(f"found {shown(column)}, expected an accuracy: {', '.join(SEEDED)}")
    require_columns("trainings", seeds, ["sweep", "trial", "seed", column])
    rows = largest_budget(seeds).dropna(subset=[column]).sort_values("seed")
    answers = _answers(images, SPLITS[column]) if images is not None and column in SPLITS else {}
    found = {}
    for key, group in rows.groupby(["sweep", "trial"]):
        sweep, trial = (str(key[0]), int(key[1]))  # type: ignore[call-overload]
        values = group[column].to_numpy(dtype=float)
        keys = [(sweep, trial, s, e) for s, e in _keys(group)]
        packed = [answers.get(key) for key in keys]
        own = [int(seed) for seed in group["seed"]]
        found[sweep, trial] = Trainings.of_packed(own, values, packed)
    return found


def _keys(rows: pd.DataFrame) -> list[tuple[int, int]]:
    epochs = rows["epochs"] if "epochs" in rows else pd.Series(-1, index=rows.index)
    return [(int(s), int(e)) for s, e in zip(rows["seed"], epochs.fillna(-1), strict=True)]


def _answers(images: pd.DataFrame, split: str) -> dict[tuple[str, int, int, int], str]:
    """The packed answers of a split, by sweep, trial, seed and epochs."""
    rows = images[images["split"] == split].dropna(subset=["right"])
    keys = zip(rows["sweep"], rows["trial"], _keys(rows), strict=True)
    return {
        (str(w), int(t), *key): right
        for (w, t, key), right in zip(keys, rows["right"], strict=True)
    }


def _unpacked(
    packed: Sequence[str | None], values: NDArray[np.float64]
) -> NDArray[np.bool_] | None:
    """S x N right answers; the number of images follows from how many were right and their share.

    None unless every training has its answers, of as many images, and its accuracy agrees.
    """
    rows = []
    for text, value in zip(packed, values, strict=True):
        if text is None or not value > 0:
            return None
        bits = np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8)).astype(bool)
        count = round(100 * int(bits.sum()) / value)
        if not len(bits) - 8 < count <= len(bits):
            return None
        rows.append(bits[:count])
    return np.stack(rows) if len({len(row) for row in rows}) == 1 else None


def mean_accuracy(runs: Trainings) -> Estimate:
    """The mean accuracy of an architecture over seeds and images."""
    return _combined([(runs, 1.0)], paired=False)


def accuracy_interval(runs: Trainings, level: float = 0.95) -> tuple[float, float]:
    """The interval of a mean accuracy, %, within 0 to 100 and never of no width.

    Wilson's interval of a share (JASA 22, 1927) at the effective number of images, the number that
    independent answers with the same variance would have, with Student's t at the degrees of
    freedom of that variance (after Korn and Graubard, Survey Methodology 24, 1998). Where it is not
    known which images were right: Student's t over the seeds.

    Args:
        runs: the trainings; of one alone nothing can be said of seeds, and the interval is missing.
        level: of confidence.
    """
    estimate = mean_accuracy(runs)
    if math.isnan(estimate.error):
        return math.nan, math.nan
    if runs.right is None:
        low, high = estimate.interval(level)
        return max(0.0, low), min(100.0, high)
    share, images = estimate.value / 100, runs.right.shape[1]
    # The variance holds the images' floor, so that the effective number never exceeds S x N.
    variance = (estimate.error / 100) ** 2
    effective = share * (1 - share) / variance if 0 < share < 1 else float(images)
    square = float(special.stdtrit(estimate.freedom, (1 + level) / 2)) ** 2
    centre = (share + square / (2 * effective)) / (1 + square / effective)
    inner = share * (1 - share) / effective + square / (4 * effective**2)
    half = math.sqrt(square * inner) / (1 + square / effective)
    # In exact arithmetic the interval holds the share, and ends at 0 and 1 with it.
    low, high = min(share, centre - half), max(share, centre + half)
    return 100 * max(0.0, low), 100 * min(1.0, high)


def difference(first: Trainings, second: Trainings, paired: bool = False) -> Estimate:
    """Mean of the first less mean of the second, %; images that both answered are compared one by
    one.

    Args:
        first: trainings of one architecture.
        second: of another, on the same images.
        paired: seeds one by one as well. Right where one seed gives both the same initial weights,
            as it does where the shapes of all weights agree (`network.sharing`): the order of
            pooling, no bypass against a simple one. Elsewhere it costs half the degrees of freedom
            and gains nothing.
    """
    return contrast([(first, 1.0), (second, -1.0)], paired)


def contrast(terms: Sequence[tuple[Trainings, float]], paired: bool = False) -> Estimate:
    """A weighted sum of mean accuracies, %: of several architectures' trainings, each with its
    weight. With `paired` only the seeds that all have count.

    The variance of the seeds is Welch's (Biometrika 34, 1947), or that of the sums seed by seed;
    that of the images is of the sums image by image, with the addition of Agresti and Min (Stat.
    Med. 24, 2005) that gives two networks which agree on every image a width. What of the single
    answers is in both counts once (two-way analysis of variance).
    """
    if paired:
        common = set(terms[0][0].seeds).intersection(*(runs.seeds for runs, _ in terms))
        terms = [(runs.of(sorted(common)), weight) for runs, weight in terms]
    return _combined(terms, paired)


def _combined(terms: Sequence[tuple[Trainings, float]], paired: bool) -> Estimate:
    value = math.fsum(weight * runs.mean for runs, weight in terms)
    seeds, freedoms = _variance_of_seeds(terms, paired)
    suffix = ", paired" if paired else ""
    known = [runs.right for runs, _ in terms if runs.right is not None]
    if any(math.isnan(part) for part in seeds):
        return Estimate(value, math.nan, math.nan, "one seed")
    sizes = {right.shape[1] for right in known}
    if len(known) < len(terms) or len(sizes) != 1:
        error, freedom = _satterthwaite(seeds, freedoms, sum(seeds))
        # Equal accuracies of few seeds are no certainty; without the images nothing else is known.
        return Estimate(value, error or math.nan, freedom, f"seeds{suffix}")
    images = sizes.pop()
    sums = np.zeros(images)
    for (_, weight), right in zip(terms, known, strict=True):
        sums += weight * right.mean(axis=0)
    # Two networks that agree on every image of a split need not agree on all.
    added = 1.0 if abs(math.fsum(weight for _, weight in terms)) < 1e-9 else 0.0
    of_images = _variance_of_images(sums, added)
    shared = _variance_of_answers(terms, paired)
    total = max(sum(seeds) + of_images - shared, sum(seeds), of_images)
    error, freedom = _satterthwaite([*seeds, of_images], [*freedoms, images - 1], total)
    if not any(seeds):  # the images are all that there is to judge by
        freedom = images - 1
    return Estimate(value, error, freedom, f"seeds and images{suffix}")


def _variance_of_seeds(
    terms: Sequence[tuple[Trainings, float]], paired: bool
) -> tuple[list[float], list[int]]:
    """The variance of the sum from each source of seeds, %^2, and its degrees of freedom."""
    if paired:
        sums = np.sum([weight * runs.values for runs, weight in terms], axis=0)
        return [_of_mean(sums)], [len(sums) - 1]
    parts = [weight**2 * _of_mean(runs.values) for runs, weight in terms]
    return parts, [len(runs.values) - 1 for runs, _ in terms]


def _of_mean(values: NDArray[np.float64]) -> float:
    if len(values) < 2:
        return math.nan
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    return error**2 if error > ROUNDING else 0.0


def _variance_of_images(sums: NDArray[np.float64], added: float) -> float:
    """The variance of the mean of N sums of answers, %^2, with `added` more disagreements."""
    count = len(sums) + 2 * added
    square = float((sums**2).sum()) + added - float(sums.sum()) ** 2 / count
    return 1e4 * square / count**2


def _variance_of_answers(terms: Sequence[tuple[Trainings, float]], paired: bool) -> float:
    """What of the mean's variance comes from single answers of one network to one image, %^2: the
    residual of the two-way table of networks and images, which is in both other variances."""
    if paired:
        answers: NDArray[np.float64] = np.zeros(terms[0][0].right.shape)  # type: ignore[union-attr]
        for runs, weight in terms:
            answers += weight * np.asarray(runs.right, dtype=float)
        return 1e4 * answers_variance(answers)
    tables = (weight * np.asarray(runs.right, dtype=float) for runs, weight in terms)
    return 1e4 * math.fsum(answers_variance(table) for table in tables)


def answers_variance(table: NDArray[Any]) -> float:
    """What single answers add to the variance of the mean of a table of answers, networks x
    images: the mean square of the interaction of rows and columns, over the cells' number."""
    rows, columns = table.shape
    if rows < 2:
        return 0.0
    rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    return float((rest**2).sum()) / ((rows - 1) * (columns - 1)) / (rows * columns)


def _satterthwaite(
    parts: Sequence[float], freedoms: Sequence[float], total: float
) -> tuple[float, float]:
    """The standard error of a sum of variances, and its degrees of freedom (Satterthwaite,
    Biometrics Bulletin 2, 1946)."""
    spread = sum(part**2 / freedom for part, freedom in zip(parts, freedoms, strict=True))
    freedom = total**2 / spread if spread else min(freedoms)
    return math.sqrt(total), freedom
