"""Optuna's private attributes stand in one file, and are there."""

from __future__ import annotations

import re

import optuna

from helpers import ROOT
from sqzexplore.sweep.optuna_private import requested_params, storage_of, study_id, trial_id

PRIVATE = re.compile(r"\._(storage|study_id|trial_id)\b")


def test_they_stand_in_one_file() -> None:
    holding = {
        file.name
        for file in (ROOT / "src").rglob("*.py")
        if PRIVATE.search(file.read_text(encoding="utf-8"))
    }
    assert holding == {"optuna_private.py"}


def test_they_are_there() -> None:
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, study_name="a")
    trial = study.ask()
    (frozen,) = storage.get_all_studies()
    assert storage_of(study).get_all_studies() == storage.get_all_studies()
    assert study_id(study) == storage.get_study_id_from_name("a")
    assert trial_id(trial) == trial_id(study.get_trials()[0])
    assert storage.get_trial(trial_id(trial)).number == trial.number
    assert study_id(frozen) == study_id(study)
    study.enqueue_trial({"x": 1})
    assert [requested_params(each) for each in study.get_trials()] == [{}, {"x": 1}]
