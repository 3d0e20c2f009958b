"""What Optuna's public interface does not give: the storage of a study, the numbers by which it
knows studies and trials, and what a trial that waits is to try. Pinned to optuna<6; a test looks
whether they are there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial

if TYPE_CHECKING:
    from optuna.study._frozen import FrozenStudy


def storage_of(study: Study) -> BaseStorage:
    """The storage of a study."""
    return study._storage


def study_id(study: Study | FrozenStudy) -> int:
    """The number of a study in its storage."""
    return study._study_id


def trial_id(trial: Trial | FrozenTrial) -> int:
    """The number of a trial in its storage."""
    return trial._trial_id


def requested_params(trial: FrozenTrial) -> dict[str, Any]:
    """The parameters that a trial was enqueued with, if with any."""
    return dict(trial.system_attrs.get("fixed_params", {}))
