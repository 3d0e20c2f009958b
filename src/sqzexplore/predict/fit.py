"""`fit`: from a table of measured networks to a model that predicts any other, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..analysis.ranking import kendall
from ..errors import UserError
from ..network.columns import take_rows
from ..network.frames import columns_of_frame
from ..schema import FLAGS, MEASURED_COLUMNS, predicted_names
from .dead import Dying, fit_dying
from .features import FLOOR
from .intervals import Conformal, Scale, fit_scale
from .models import MODELS, Ensemble, around, folds_of
from .trained import Trained, View, coverage_text, level_text, trained_of

Array = NDArray[Any]
#: Models that share the rows; each is fitted on all but a tenth.
FOLDS = 10
#: Of a speed: a Gaussian process around a line through the roofline's least time.
ROOFLINE = "gaussian process around the roofline"
_BLOCK = 8192  # rows predicted at a time: CV+ compares each with every measured row
#: How far beyond the measured rows, in shares of their range, a feature still counts as within.
_BEYOND = 0.05


@dataclass(frozen=True, eq=False)
class Model:
    """A fitted prediction of one column (`fit` makes it).

    Args:
        view: how architectures are looked at: the proxy, the images' side.
        level: of the intervals.
        name: of the chosen model.
        comparison: a row a model, by cross-validation: `model`, `chosen`, `mae` (mean absolute
            error), `mae_se` (its standard error), `kendall`.
        networks: how many different networks it was fitted to.
        sampler: who chose them; empty if that is not known.
    """

    view: View
    level: float
    name: str
    comparison: pd.DataFrame
    networks: int
    sampler: str
    _ensemble: Ensemble
    _scale: Scale
    _conformal: Conformal
    _dying: Dying | None
    _range: tuple[Array, Array]

    @property
    def target(self) -> str:
        """The column that is predicted."""
        return self.view.target

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that a prediction has, in order."""
        return predicted_names(self.target)

    @property
    def coverage(self) -> str:
        """What may be said of the intervals' coverage, in a few words."""
        return coverage_text(self.sampler, self.level)

    def predict(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The target of architectures, and an interval for what one training, or one measurement,
        would give.

        Args:
            frame: a column a field that is not at its default, as for `cost_table`.

        Returns:
            With the index of `frame`: the target, its `_low` and `_high` end in the target's unit;
            of an accuracy `dead_probability`, that a training does not learn (accuracy and interval
            are those of one that does); `extrapolated`, whether a feature is outside the range of
            the measured networks, where an interval means little; `coverage`, what may be said of
            the intervals. NaN, and `extrapolated`, where the measured network cannot be built.

        Raises:
            UserError: a value that no Architecture takes.
        """
        table = pd.DataFrame(self.columns(columns_of_frame(frame), len(frame)), index=frame.index)
        return table.assign(
            coverage=pd.Categorical.from_codes(
                np.zeros(len(frame), np.int8), categories=pd.Index([self.coverage], dtype=object)
            )
        )

    def columns(self, columns: Mapping[str, Any], rows: int) -> dict[str, NDArray[Any]]:
        """The same but for `coverage`, of `rows` architectures as columns (`network.columns`)."""
        made = {name: np.empty(rows, bool if name in FLAGS else float) for name in self.names}
        for start in range(0, rows, _BLOCK):
            part = slice(start, min(start + _BLOCK, rows))
            seen = self.view.features(take_rows(columns, part), part.stop - start)
            for name, values in self.of_features(seen).items():
                made[name][part] = values
        return made

    def of_features(self, seen: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
        """The same of rows whose features (rows x names of the view) are known."""
        each = self._ensemble.each(np.where(np.isnan(seen), self._range[0], seen))
        low, high = self._conformal.ends(each, self._scale.each(seen, each))
        unknown = np.isnan(seen[:, 0])
        made = [
            np.where(unknown, np.nan, natural(self.target, z)) for z in (each.mean(1), low, high)
        ]
        outside = (seen < self._range[0]) | (seen > self._range[1])
        found = dict(zip(self.names, made, strict=False))
        if self._dying:
            found["dead_probability"] = self._dying.probability(seen)
        return found | {"extrapolated": unknown | outside.any(axis=1)}

    def remarks(self) -> list[str]:
        """What must be said beside every prediction, a sentence each."""
        said = (
            f"{self.target}: {self.name} fitted to {self.networks} networks; "
            f"{level_text(self.level)} intervals; coverage {self.coverage}"
        )
        return [said]


def fit(
    trials: pd.DataFrame, target: str = "top1", level: float = 0.9, sampler: str | None = None
) -> Model:
    """A prediction of `target` for any architecture, from measured ones.

    Gaussian process (of a speed: around the roofline's least time, and without), gradient boosting
    and forest are compared by ten-fold cross-validation, in which rows that are one network share a
    fold. Another than the first is taken if its error (of a speed, as a share of it) is lower by
    more than the standard error of the difference. Intervals are
    CV+ with scaled residuals (`predict.intervals`), for the next training: of a network of several
    seeds one training is drawn, by the column of the target's standard deviation (`top1_sd`). Dead
    networks have no accuracy; how likely they are is a prediction of its own.

    Args:
        trials: measured networks, as `load_results` gives them: at least 20 different ones, of one
            data set, budget and proxy, or of one device and setting.
        target: an accuracy, or a speed such as `latency_ms_p50`.
        level: of the intervals, above 0 and below 1.
        sampler: who chose the rows; None: as their column `sampler` says, if there is one. Other
            than grid, random and qmc, the model says that no coverage is supported.

    Raises:
        UserError: too few networks, or rows that cannot be compared.

    Example:
        >>> model = fit(load_results("results/random"))  # doctest: +SKIP
        >>> model.predict(frame)[["top1_low", "top1", "top1_high"]]  # doctest: +SKIP
    """
    trained = trained_of(trials, target, sampler)
    trained.require("fit")
    return fit_trained(trained, level)


def fit_trained(trained: Trained, level: float) -> Model:
    """`fit` of a table that was looked at already."""
    from threadpoolctl import threadpool_limits

    # On tables this small threads gain nothing, and beside a busy process they wait for each other:
    # sixty times as long was seen.
    with threadpool_limits(limits=1):
        return _fitted(trained, level)


def _fitted(trained: Trained, level: float) -> Model:
    learned = trained.learned
    folds = folds_of(learned.networks, FOLDS, seed=0)
    aims = transformed(trained.view.target, learned.values)
    models = MODELS
    if FLOOR in learned.view.names:
        models = {ROOFLINE: around(learned.view.names.index(FLOOR))} | MODELS
    ensembles = {name: model(learned.features, aims, folds) for name, model in models.items()}
    unseen = {
        name: ensemble.each(learned.features)[np.arange(len(folds)), folds]
        for name, ensemble in ensembles.items()
    }
    chosen, comparison = _compared(trained.view.target, unseen, learned)
    residuals = transformed(trained.view.target, learned.one) - unseen[chosen]
    scale = fit_scale(learned.features, unseen[chosen], residuals, folds)
    each = ensembles[chosen].each(learned.features)
    scales = scale.each(learned.features, each)[np.arange(len(folds)), folds]
    dying = None
    if trained.view.of_accuracy:
        parts = folds_of(trained.networks, FOLDS, seed=0)
        dying = fit_dying(trained.features, trained.dead, trained.trainings, parts)
    return Model(
        view=trained.view,
        level=level,
        name=chosen,
        comparison=comparison,
        networks=len(np.unique(learned.networks)),
        sampler=trained.sampler,
        _ensemble=ensembles[chosen],
        _scale=scale,
        _conformal=Conformal((np.abs(residuals) / scales).astype(np.float32), folds, level),
        _dying=dying,
        _range=_widened(learned.features),
    )


def _compared(
    target: str, unseen: Mapping[str, Array], learned: Trained
) -> tuple[str, pd.DataFrame]:
    """The model to take, and how each did in the rows that it had not seen."""
    errors, rows = {}, []
    for name, aims in unseen.items():
        said = natural(target, aims)
        apart = np.abs(said - learned.values)
        # Of a speed shares of it count: else the slowest networks alone would decide.
        errors[name] = apart if learned.view.of_accuracy else apart / learned.values
        rows.append(
            {
                "model": name,
                "mae": apart.mean(),
                "mae_se": _standard_error(apart),
                "kendall": kendall(said, learned.values),
            }
        )
    first = chosen = next(iter(errors))
    for name in sorted(errors, key=lambda name: float(errors[name].mean())):
        gain = errors[first] - errors[name]
        if gain.mean() > _standard_error(gain):
            chosen = name
            break
    table = pd.DataFrame(rows)
    table.insert(1, "chosen", table["model"] == chosen)
    return chosen, table


def _standard_error(values: Array) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def _widened(features: Array) -> tuple[Array, Array]:
    least, greatest = features.min(axis=0), features.max(axis=0)
    margin = _BEYOND * (greatest - least) + 1e-9
    return least - margin, greatest + margin


def transformed(target: str, values: Array) -> Array:
    """The target on the scale that it is modelled on: shares in log odds, so that no interval
    leaves 0 to 100%; times and rates, which differ by factors, in the logarithm."""
    if MEASURED_COLUMNS[target].unit == "%":
        kept = np.clip(values, 0.01, 99.99) / 100
        return np.log(kept / (1 - kept))
    if not (values[~np.isnan(values)] > 0).all():
        raise UserError(f"fit: {target}: found {np.nanmin(values):g}, expected numbers above 0")
    return np.log(values)


def natural(target: str, aims: Array) -> Array:
    """From the scale that it is modelled on back to the target."""
    if MEASURED_COLUMNS[target].unit == "%":
        return 100 / (1 + np.exp(-aims))
    return np.exp(aims)
