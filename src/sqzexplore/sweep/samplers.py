"""How a search chooses: Optuna's sampler and pruner for what a spec asks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler

from ..analysis.ending import OutOfReach, first_epoch
from ..network.architecture import Architecture
from ..network.cost import cost
from ..spec.models import Spec

#: Draws in a row of known architectures, after which one at random is drawn.
_PATIENCE = 10


def sampler_of(spec: Spec, number: int, misses: int) -> BaseSampler:
    """Optuna's sampler for trial `number`, after `misses` trials in a row that were nothing new.

    A sampler that is sure of its best proposes it for ever.
    """
    name, seed = spec.search.sampler, (spec.search.seed * 1_000_003 + number) % 2**32
    if misses >= _PATIENCE:
        name = "random"
    samplers = optuna.samplers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match name:
            case "qmc":  # one low-discrepancy sequence, whose position is kept in the study
                return samplers.QMCSampler(
                    scramble=True,
                    seed=spec.search.seed,
                    independent_sampler=samplers.RandomSampler(seed),
                    warn_independent_sampling=False,
                )
            case "tpe":
                # Where axes are conditional, those that exist together are modelled together.
                conditional = any(axis.when for axis in spec.design_space.axes)
                return samplers.TPESampler(
                    seed=seed, multivariate=True if conditional else None, group=conditional
                )
            case "nsga2":
                return samplers.NSGAIISampler(seed=seed)
            case "nsga3":
                return samplers.NSGAIIISampler(seed=seed)
            case "gp":
                return samplers.GPSampler(seed=seed, warn_independent_sampling=False)
            case _:  # a grid's trials are fixed; nothing is drawn
                return samplers.RandomSampler(seed=seed)


def pruner_of(spec: Spec) -> BasePruner:
    """Optuna's pruner over the epochs of a trial's first seed: a third goes on at each rung."""
    epochs = spec.measure.accuracy.budgets[-1] if spec.measure.accuracy else 1
    first = first_epoch(epochs)
    match spec.search.pruner:
        case "halving":
            return SuccessiveHalvingPruner(min_resource=first, reduction_factor=3)
        case "hyperband":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                return HyperbandPruner(min_resource=first, max_resource=epochs, reduction_factor=3)
        case _:
            return NopPruner()


class FrontPruner:
    """Ends trainings that can no longer reach the front, by the search's exact costs; Optuna has no
    pruning for several objectives.

    Args:
        spec: with the pruner `front`.
    """

    def __init__(self, spec: Spec) -> None:
        assert spec.measure.accuracy is not None
        self._size = spec.input_size
        self._signs = {
            name: 1.0 if goal == "minimize" else -1.0
            for name, goal in spec.objectives.items()
            if name != "top1"
        }
        self._ends = OutOfReach(spec.search.risk, first_epoch(spec.measure.accuracy.budgets[-1]))

    def add(self, row: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> None:
        """Take a trial; of one that was trained to the end the first seed's accuracies."""
        if row["state"] == "complete":
            costs = [sign * row[name] for name, sign in self._signs.items()]
            self._ends.add(costs, [each["val_top1"] for each in history if each["seed"] == 0])

    def ends(self, architecture: Architecture, epoch: int, accuracy: float) -> bool:
        """Whether to end the training of an architecture after an epoch."""
        costs = cost(architecture, self._size).totals()
        own = [sign * costs[name] for name, sign in self._signs.items()]
        return self._ends(own, epoch, accuracy)


def front_pruner_of(spec: Spec) -> FrontPruner | None:
    """The pruner `front`, where the spec has it."""
    return FrontPruner(spec) if spec.search.pruner == "front" else None
