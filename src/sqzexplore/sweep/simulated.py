"""A search replayed against networks that are trained already, in simulated time.

What such a replay is for: Ying et al., "NAS-Bench-101: Towards reproducible neural architecture
search", ICML 2019. There the table has every architecture; here it has few of many, and a proposal
stands for the nearest of them.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import optuna
import pandas as pd
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from ..errors import UserError, nearest, shown
from ..network.architecture import Architecture
from ..network.columns import architecture_at
from ..network.frames import columns_of_frame
from ..results.firebench import firebench, folder_of, training_seconds
from ..space.axis import Axis
from ..space.constraints import Expression
from ..space.distance import axis_distances
from ..space.space import Space
from ..spec.models import Search, Spec
from .optuna_params import ask, distribution, position, to_params
from .samplers import sampler_of

#: A grid chooses nothing: in the order of the table it is no search.
SAMPLERS: tuple[str, ...] = tuple(
    name for name in get_args(Search.model_fields["sampler"].annotation) if name != "grid"
)


def simulate(
    sampler: str | Iterable[str],
    budget_s: float | None = None,
    *,
    trainings: int | None = None,
    repetitions: int = 100,
    seed: int = 0,
    folder: str | Path | None = None,
    under: str | None = None,
) -> pd.DataFrame:
    """Searches replayed against FireBench, in simulated time: no network is trained.

    A search aims at `val_top1`. Its sampler, made as `sweep` makes it, proposes an architecture of
    the folder's space; the search trains the nearest network of the table that it has not trained
    yet (`space.distance`: Gower's distance over the axes; one of several as near is drawn), and the
    sampler is told that network's own parameters, not the proposal's, with its `val_top1`: what
    the sampler learns is true of the space. `random` draws from the table itself, each network as
    likely; the nearest to a random architecture would be a lonely one more often.

    Args:
        sampler: one of random, qmc, tpe, nsga2, nsga3, gp; or several, each searches on its own.
        budget_s: simulated seconds of training, after which no training begins; one that runs is
            finished, as with `search.timeout`.
        trainings: how many, instead of `budget_s`.
        repetitions: searches of each sampler, each of its own seed; more begin with the same.
        seed: of them all.
        folder: as of `firebench`; its space has lists of values.
        under: a condition that networks meet to be in the table, over metaparameters and costs:
            `params < 3e5`.

    Returns:
        A row a training: `sampler`; `repetition`, from 0; `training` of this search, from 1;
        `spent_s` at its end, the sum of the trainings so far, each the mean `duration_s` over the
        network's seeds, missing where the table's trainings ran on several devices; `net_id`; its
        `val_top1` in percent; `regret`, the best `val_top1` of the table minus the best so far,
        points; `top1`, on test, of the best so far by `val_top1`. A search that has trained the
        whole table ends.

    Raises:
        UserError: an unknown sampler; no budget, or both, or one below the cheapest training; a
            condition that no network meets; a folder without results, or of a continuous axis; a
            budget in seconds of trainings on several devices.

    Example:
        >>> sqz.simulate(["random", "tpe"], trainings=50)  # doctest: +SKIP
    """
    names = [sampler] if isinstance(sampler, str) else list(dict.fromkeys(sampler))
    _check_samplers(names)
    _check_numbers(budget_s, trainings, repetitions, seed)
    spec = folder_of(folder).spec()
    pool = _pool(spec.design_space, folder, under)
    if budget_s is not None and np.isnan(pool.seconds).any():
        devices = ", ".join(map(str, pool.networks["device_name"].dropna().unique()))
        raise UserError(
            f"simulate: budget_s: found trainings on several devices ({devices}), whose seconds do "
            "not add up, expected those of one: say trainings=, or under= for fewer networks"
        )
    if budget_s is not None and budget_s < (least := pool.seconds.min()):
        raise UserError(
            f"simulate: budget_s: found {budget_s:g}, expected at least {math.ceil(least)}: "
            f"the cheapest training took {least:.1f} s"
        )
    seeds = np.random.SeedSequence(seed).generate_state(repetitions)
    searches: list[tuple[str, int, dict[str, NDArray[Any]]]] = []
    for name in names:
        for repetition, own in enumerate(seeds.tolist()):
            chosen = spec.search.model_copy(update={"sampler": name, "seed": own})
            order = _order(pool, spec.model_copy(update={"search": chosen}))
            seen = pool.seen(_within(order, pool.seconds, budget_s, trainings))
            searches.append((name, repetition, seen))
    lengths = [len(seen["training"]) for *_, seen in searches]
    columns = {column: [seen[column] for *_, seen in searches] for column in searches[0][2]}
    return pd.DataFrame(
        {
            "sampler": np.repeat([name for name, *_ in searches], lengths),
            "repetition": np.repeat([number for _, number, _ in searches], lengths),
            **{column: np.concatenate(parts) for column, parts in columns.items()},
        }
    )


def _check_samplers(names: list[str]) -> None:
    if not names:
        raise UserError(f"simulate: found no sampler, expected some of {', '.join(SAMPLERS)}")
    for name in names:
        if name not in SAMPLERS:
            raise UserError(
                f"simulate: found the sampler {shown(name)}, expected one of "
                f"{', '.join(SAMPLERS)}{nearest(name, SAMPLERS)}"
            )


def _check_numbers(
    budget_s: float | None, trainings: int | None, repetitions: int, seed: int
) -> None:
    if (budget_s is None) == (trainings is None):
        found = "neither" if budget_s is None else "both"
        raise UserError(f"simulate: found {found} of budget_s and trainings, expected one of them")
    for name, value, least in (
        ("trainings", trainings, 1),
        ("repetitions", repetitions, 1),
        ("seed", seed, 0),
    ):
        if value is not None and value < least:
            raise UserError(f"simulate: {name}: found {shown(value)}, expected at least {least}")


@dataclass(frozen=True)
class _Pool:
    """The networks that a search can train, in the table's order.

    Args:
        space: what samplers propose from.
        networks: their table.
        seconds: of a training of each; NaN where they are of several devices.
        templates: each as a finished trial.
        apart: of each axis, how far each of its values is from each network: (values + 1) x
            networks; the last row is of proposals in which the axis does not exist.
    """

    space: Space
    networks: pd.DataFrame
    seconds: NDArray[np.float64]
    templates: list[FrozenTrial]
    apart: Mapping[str, NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.networks)

    def nearest(
        self, params: Mapping[str, Any], left: NDArray[np.bool_], generator: np.random.Generator
    ) -> int:
        """The number of the network nearest to a proposal, among those left; drawn among several
        that are as near."""
        distance = np.zeros(len(self))
        for axis in self.space.axes:
            distance += self.apart[axis.field][_place(axis, params)]
        distance = np.where(left, distance, np.inf)
        # Sums of thirds and the like differ by a rounding where they are equal.
        return int(generator.choice(np.flatnonzero(distance <= distance.min() + 1e-9)))

    def seen(self, order: Iterable[int]) -> dict[str, NDArray[Any]]:
        """What a search sees, by column, that trains the networks of these numbers in turn."""
        taken = np.fromiter(order, dtype=np.intp)
        values = self.networks["val_top1"].to_numpy(dtype=float)[taken]
        best = np.maximum.accumulate(values)
        steps = np.flatnonzero(np.diff(best, prepend=-np.inf) > 0)  # where a new best was found
        holder = steps[np.searchsorted(steps, np.arange(len(best)), side="right") - 1]
        return {
            "training": np.arange(1, len(taken) + 1),
            "spent_s": self.seconds[taken].cumsum(),
            "net_id": self.networks["net_id"].to_numpy(dtype=object)[taken],
            "val_top1": values,
            "regret": float(self.networks["val_top1"].max()) - best,
            "top1": self.networks["top1"].to_numpy(dtype=float)[taken][holder],
        }


def _pool(space: Space, folder: str | Path | None, under: str | None) -> _Pool:
    """The finished networks of a folder that meet a condition."""
    if axis := next((axis for axis in space.axes if axis.continuous), None):
        raise UserError(
            f"simulate: {folder_of(folder).path}: found space.{axis.field} continuous "
            f"({axis.low:g} to {axis.high:g}), expected a list of values, or a step"
        )
    networks = firebench(folder)
    if under is not None:
        networks = networks[_meets(networks, space, under)].reset_index(drop=True)
    columns = columns_of_frame(networks)
    templates = [
        _finished(space, architecture_at(columns, row), float(value))
        for row, value in enumerate(networks["val_top1"])
    ]
    apart = {axis.field: _apart(axis, templates) for axis in space.axes}
    seconds = training_seconds(networks, folder)
    if "device_name" in networks and networks["device_name"].nunique() > 1:
        seconds[:] = np.nan
    return _Pool(space, networks, seconds, templates, apart)


def _meets(networks: pd.DataFrame, space: Space, under: str) -> NDArray[np.bool_]:
    """Which networks meet a condition; some do."""
    columns, rows = columns_of_frame(networks), len(networks)
    try:
        held = Expression(under)({**columns, **space.costs(columns, rows)[0]})
    except UserError as error:
        raise error.at("simulate: under") from None
    kept = np.broadcast_to(held, rows)
    if not kept.any():
        raise UserError(
            f"simulate: under: found none of the {rows} networks with {shown(under)}, "
            "expected at least one"
        )
    return kept


def _finished(space: Space, architecture: Architecture, value: float) -> FrozenTrial:
    """A trial that trained one Architecture."""
    axes = [axis for axis in space.axes if axis.active(architecture.get)]
    return optuna.trial.create_trial(
        value=value,
        params=to_params(space, architecture),
        distributions={axis.field: distribution(axis) for axis in axes},
    )


def _apart(axis: Axis, networks: list[FrozenTrial]) -> NDArray[np.float64]:
    """How far each value of an axis, and last its absence, is from each network."""
    distances = np.pad(axis_distances(axis), (0, 1), constant_values=1.0)
    distances[-1, -1] = 0.0
    return distances[:, [_place(axis, trial.params) for trial in networks]]


def _place(axis: Axis, params: Mapping[str, Any]) -> int:
    """Which of an axis's values some parameters have; -1 where it does not exist."""
    return position(axis, params[axis.field]) if axis.field in params else -1


def _order(pool: _Pool, spec: Spec) -> Iterator[int]:
    """The numbers of the networks as a search trains them, each once."""
    generator = np.random.default_rng(spec.search.seed)
    if spec.search.sampler == "random":
        yield from generator.permutation(len(pool)).tolist()
        return
    study = _new_study()
    left = np.ones(len(pool), dtype=bool)
    for number in range(len(pool)):
        study.sampler = sampler_of(spec, number, 0)
        proposed = ask(study, pool.space)
        taken = pool.nearest(proposed.params, left, generator)
        left[taken] = False
        # What was proposed was not trained; what was takes its place, with its marks (of the
        # generation, by NSGA-II). No sampler learns from a trial that failed.
        ended = study.tell(proposed, state=TrialState.FAIL)
        trained = copy.copy(pool.templates[taken])
        trained.system_attrs = ended.system_attrs
        study.add_trial(trained)
        yield taken


def _new_study() -> optuna.Study:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # that it is created is no news to users
    study = optuna.create_study(direction="maximize")
    optuna.logging.set_verbosity(verbosity)
    return study


def _within(
    order: Iterator[int],
    seconds: NDArray[np.float64],
    budget_s: float | None,
    trainings: int | None,
) -> Iterator[int]:
    """As many of the first networks as a budget is for."""
    spent = 0.0
    for number in itertools.islice(order, trainings):
        yield number
        spent += seconds[number]
        if budget_s is not None and spent >= budget_s:
            return
