"""The audit: a prediction held against networks that it has not seen, beside simpler ones.

All that a fit does, its choice of a model included, is done again without each tenth of the
networks, so that what is reported of a held-out network used nothing of it (nested
cross-validation: Varma and Simon, BMC Bioinformatics 7, 2006).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..analysis.ranking import kendall
from ..results.tables import AUDIT_CURVE
from ..schema import TRIAL
from .features import FLOOR, NAMES
from .fit import Model, fit_trained, natural, transformed
from .intervals import networks_needed
from .models import folds_of, scaler
from .trained import LEAST, Trained, trained_of

Array = NDArray[Any]
FOLDS = 10
#: Draws of each size of the learning curve.
REPETITIONS = 3
_SEED = 1  # another than that of the fit's own folds
#: What a prediction is held against, with the column of `audit` that it stands in.
BASELINES = {
    "median of the others": "by_middle",
    "parameters alone": "by_params",
    "MACs alone": "by_macs",
    "nearest neighbour": "by_neighbour",
    "roofline alone": "by_roofline",
}


@dataclass(frozen=True, eq=False)
class Audit:
    """What an audit found.

    Args:
        target: the predicted column.
        rows: a row a network, held out (`results.tables.AUDIT`).
        curve: how it goes with the number of networks (`results.tables.AUDIT_CURVE`).
    """

    target: str
    rows: pd.DataFrame
    curve: pd.DataFrame


def audit(
    trials: pd.DataFrame,
    target: str = "top1",
    level: float = 0.9,
    sampler: str | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Audit:
    """Hold out each tenth of the measured networks, and draw the learning curve.

    Args:
        trials, target, level, sampler: as for `fit`.
        progress: how many fits are done, of how many.

    Raises:
        UserError: as `fit` does.
    """
    trained = trained_of(trials, target, sampler)
    trained.require("audit")
    draws = [*_draws(trained, max(LEAST, networks_needed(level)))]
    total = FOLDS + len(draws)
    held_out = []
    for tested in hold_out(trained, level, _SEED):
        held_out.append(tested)
        progress(len(held_out), total)
    curve = []
    for i, (repetition, drawn) in enumerate(draws):
        curve.append(_point(trained, drawn, level) | {"repetition": repetition})
        progress(FOLDS + 1 + i, total)
    rows = pd.concat(held_out, ignore_index=True).sort_values("row", ignore_index=True)
    names = trials.reindex(columns=[*TRIAL]).iloc[rows.pop("row")].reset_index(drop=True)
    rows = pd.concat([names, rows.assign(target=target, level=level)], axis=1)
    points = [point | {"target": target, "level": level} for point in curve]
    return Audit(target, rows, pd.DataFrame(points, columns=[*AUDIT_CURVE]))


def hold_out(trained: Trained, level: float, seed: int) -> Iterator[pd.DataFrame]:
    """Each tenth of the networks, as what was fitted to the others predicts it: as the table
    `audit`, `row` in the place of what the network is.

    Args:
        trained: measured networks.
        level: of the intervals.
        seed: of the division into tenths.
    """
    parts = folds_of(trained.networks, FOLDS, seed)
    for fold in range(int(parts.max()) + 1):
        fitted, others = trained.take(parts != fold), trained.take(parts == fold)
        tested = _tested(fit_trained(fitted, level), fitted, others)
        yield tested.assign(fold=fold, row=others.rows)


def _draws(trained: Trained, size: int) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """The networks of each point of the learning curve: `size`, twice, four times ... as many of
    those that learned, as long as a fifth is held out, each drawn several times; the repetition and
    which rows."""
    learned = np.unique(trained.learned.networks)
    while size <= 0.8 * len(learned):
        for repetition in range(REPETITIONS):
            order = np.random.default_rng([size, repetition]).permutation(learned)
            yield repetition, np.isin(trained.networks, order[:size])
        size *= 2


def _point(trained: Trained, drawn: NDArray[np.bool_], level: float) -> dict[str, Any]:
    """A point of the learning curve."""
    fitted, others = trained.take(drawn).learned, trained.take(~drawn).learned
    said = _said(fit_trained(fitted, level), others.features)
    inside = (said["low"] <= others.one) & (others.one <= said["high"])
    return {
        "networks": len(np.unique(fitted.networks)),
        "held_out": len(others),
        "coverage": float(inside.mean()),
        "width": float((said["high"] - said["low"]).mean()),
        "error": float(np.abs(said["predicted"] - others.values).mean()),
        "kendall": kendall(said["predicted"], others.values),
    }


def _said(model: Model, features: Array) -> dict[str, Array]:
    """What a model says of rows whose features are known."""
    said = model.of_features(features)
    ends = {"predicted": model.target, "low": f"{model.target}_low", "high": f"{model.target}_high"}
    return {name: said[column] for name, column in ends.items()} | {
        "dead_probability": said.get("dead_probability", np.full(len(features), np.nan)),
        "extrapolated": said["extrapolated"],
    }


def _tested(model: Model, fitted: Trained, others: Trained) -> pd.DataFrame:
    """A row a held-out network: what it is, what the model says, what simpler ones say."""
    return pd.DataFrame(
        {
            "model": model.name,
            "sampler": others.sampler or None,
            "measured": others.values,
            "one_training": others.one,
            **_said(model, others.features),
            **_baselines(fitted.learned, others.features),
            "dead_share": others.dead / others.trainings,
            "log_macs": others.features[:, NAMES.index("log_macs")],
            "mean_log_side": others.features[:, NAMES.index("mean_log_side")],
        }
    )


def _baselines(fitted: Trained, features: Array) -> dict[str, Array]:
    """What simpler predictions say of other rows."""
    from scipy.spatial import cKDTree

    target, names = fitted.view.target, fitted.view.names
    aims = transformed(target, fitted.values)
    mean, spread = scaler(fitted.features)
    tree = cKDTree((fitted.features - mean) / spread)
    _, nearest = tree.query((features - mean) / spread)

    def of(name: str) -> Array:
        if name not in names:
            return np.full(len(features), np.nan)
        x = fitted.features[:, names.index(name)]
        degree = min(2, len(np.unique(x)) - 1)
        fit = np.polynomial.Polynomial.fit(x, aims, degree, domain=[x.min(), x.max() + 1e-9])
        # Beyond the others a parabola may turn: it is held at its ends.
        return natural(target, fit(np.clip(features[:, names.index(name)], x.min(), x.max())))

    return {
        "by_middle": np.full(len(features), np.median(fitted.values)),
        "by_params": of("log_params"),
        "by_macs": of("log_macs"),
        "by_neighbour": fitted.values[nearest],
        "by_roofline": of(FLOOR),
    }
