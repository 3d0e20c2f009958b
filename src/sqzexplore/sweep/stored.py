"""What the study stores of a trial that was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import Trial, TrialState

from ..evaluation.rows import violations
from ..evaluation.tasks import Evaluation
from ..files import without_nan
from ..network.architecture import Architecture
from ..spec.models import Spec


def objective_values(row: Mapping[str, Any], spec: Spec) -> list[float]:
    """The objective values of a complete trial: for top1 the validation split's accuracy, never
    the test's."""
    return [float(row["val_top1" if name == "top1" else name]) for name in spec.objectives]


def store(
    study: optuna.Study,
    trial: Trial,
    architecture: Architecture,
    evaluation: Evaluation,
    spec: Spec,
) -> None:
    """Write what was measured of an architecture into its trial, and end that.

    Raises:
        UpdateFinishedTrialError: another process has ended it.
    """
    row = evaluation.row
    for name, value in vars(evaluation).items():
        trial.set_user_attr(name, without_nan(value))  # the study is JSON
    values = None
    if row["state"] == "complete":
        values = objective_values(row, spec)
        for name, distance in violations(architecture, row, spec, of_search=True).items():
            trial.set_constraint(name, distance)
    otherwise = TrialState.PRUNED if row["state"] == "pruned" else TrialState.FAIL
    study.tell(trial, values, state=None if values else otherwise, skip_if_finished=True)
