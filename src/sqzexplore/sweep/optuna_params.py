"""A design space as Optuna sees it: distributions, parameters, and Architectures made from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import Study
from optuna.trial import Trial

from ..network.architecture import KEYS, Architecture
from ..network.frames import format_value
from ..network.overrides import parse_layers
from ..space.axis import Axis
from ..space.space import Space


def ask(study: Study, space: Space) -> Trial:
    """A new trial of the study, with a parameter for each axis that exists there."""
    trial = study.ask()
    drawn: dict[str, Any] = {}
    for axis in space.ordered_axes:
        if axis.active(lambda name: drawn.get(name, space.base.get(name))):
            drawn[axis.field] = _value(axis, _suggest(axis, trial))
    return trial


def from_params(space: Space, params: Mapping[str, Any]) -> Architecture:
    """The Architecture of a trial's parameters.

    Raises:
        KeyError: an axis that exists there has no parameter.
        pydantic.ValidationError: this combination is no Architecture.
    """
    changes: dict[str, Any] = {}
    for axis in space.ordered_axes:
        if axis.active(lambda name: changes.get(name, space.base.get(name))):
            changes[axis.field] = _value(axis, params[axis.field])
    return space.base.replace(**changes)


def to_params(space: Space, architecture: Architecture) -> dict[str, Any]:
    """The parameters of the trial that evaluates one Architecture of the space."""
    return {
        axis.field: _param(axis, architecture.get(axis.field))
        for axis in space.axes
        if axis.active(architecture.get)
    }


def distribution(axis: Axis) -> BaseDistribution:
    """The axis as Optuna draws from it."""
    if axis.continuous:
        return FloatDistribution(axis.low, axis.high, log=axis.log)
    if axis.listed or len(axis.values) == 1 or KEYS[axis.field] not in (int, float):
        return CategoricalDistribution([_param(axis, value) for value in axis.values])
    step = axis.values[1] - axis.values[0]
    if KEYS[axis.field] is int:
        return IntDistribution(axis.values[0], axis.values[-1], log=axis.log, step=step)
    # 0.11 - 0.1 is a little less than 0.01, by which Optuna finds the range not divisible.
    return FloatDistribution(axis.values[0], axis.values[-1], step=round(step, 12))


def position(axis: Axis, param: Any) -> int:
    """Which of the axis's values a parameter is, from 0."""
    match distribution(axis):
        case CategoricalDistribution() as d:
            return int(d.to_internal_repr(param))
    return int(np.abs(axis.codes() - param).argmin())  # Optuna steps floats with rounding errors


def _suggest(axis: Axis, trial: Trial) -> Any:
    """The axis's parameter in a running trial, which Optuna draws."""
    match distribution(axis):
        case CategoricalDistribution() as d:
            return trial.suggest_categorical(axis.field, d.choices)
        case IntDistribution() as d:
            return trial.suggest_int(axis.field, d.low, d.high, step=d.step, log=d.log)
        case FloatDistribution() as d:
            return trial.suggest_float(axis.field, d.low, d.high, step=d.step, log=d.log)
    raise TypeError(f"{axis.field}: Optuna draws no such distribution")


def _param(axis: Axis, value: Any) -> Any:
    """A value as Optuna stores it: the layers of `pool_after` as text."""
    return format_value(value) if axis.field == "pool_after" else value


def _value(axis: Axis, param: Any) -> Any:
    """The value of a parameter drawn by Optuna, which steps floats with rounding errors and holds
    layers as text."""
    if axis.field == "pool_after":
        return parse_layers(param)
    if KEYS[axis.field] is float and not axis.continuous and not axis.listed:
        return min(axis.values, key=lambda value: abs(value - param))
    return param
