"""Networks that this sweep, or another of the same storage, has measured in the same way."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState

from .. import provenance
from ..data.images import ImageData
from ..evaluation.rows import describe_row, violations
from ..evaluation.tasks import Evaluation
from ..network.architecture import Architecture
from ..spec.models import Spec
from ..train import recipe
from .optuna_private import storage_of, study_id
from .trial_tables import speed_key

_RECIPE = "measurement"
_FINAL = (TrialState.COMPLETE, TrialState.FAIL)


class Reuse:
    """Results to be reused: of the same network, measurement recipe, images and device.

    Args:
        spec: of the sweep that asks.
        study: its study, which is searched as the others of the same storage are.
        device: where it would measure.
        data: the images that it trains on.
    """

    def __init__(
        self, spec: Spec, study: optuna.Study, device: torch.device, data: ImageData | None
    ) -> None:
        self._spec, self._data = spec, data
        self._device_name = provenance.device_name(str(device))
        self._capability = torch.backends.cpu.get_cpu_capability()
        self._database, self._studies = storage_of(study), dict[str, int]()
        #: Finished trials by `net_id`: name and number of the study, and the trial.
        self._index: dict[str, list[tuple[str, int, FrozenTrial]]] = {}
        self._read: dict[int, set[int]] = {}
        if spec.measure.accuracy is None and spec.measure.throughput is None:
            return
        requested = fingerprint(spec, data)
        if recorded_fingerprint(study) is None:  # what another version measured stays so
            study.set_user_attr(_RECIPE, requested)
        for other in self._database.get_all_studies():
            if other.user_attrs.get(_RECIPE) == requested:
                self._studies[other.study_name] = study_id(other)
        self._studies[study.study_name] = study_id(study)  # `_serves` judges its rows one by one

    def get(self, architecture: Architecture) -> Evaluation | None:
        """What was measured of the network that the architecture gives, with this sweep's
        constraints."""
        self._index_new()
        for name, study, trial in self._index.get(architecture.net_id, ()):
            if not self._serves(trial.user_attrs["row"]):
                continue
            content = self._with_speed(study, trial)
            row = content["row"]
            if row.get("images_per_s") is not None or not self._spec.speed_decides:
                origin = row.get("reused_from") or f"{name}/{trial.number}"
                return self._as_own(architecture, content, origin)
        return None

    def _with_speed(self, study: int, trial: FrozenTrial) -> dict[str, Any]:
        """A trial's attributes, with the throughput that was measured after it had ended; one that
        failed is of no use to others."""
        content = dict(trial.user_attrs)
        speed = self._database.get_study_user_attrs(study).get(speed_key(trial.number))
        if speed and speed["throughput"]:
            content |= speed | {"row": content["row"] | speed["row"]}
        return content

    def _index_new(self) -> None:
        """Read the trials that have finished since the last time."""
        for name, study in self._studies.items():
            read = self._read.setdefault(study, set())
            trials = self._database.get_all_trials(study, deepcopy=False, states=_FINAL)
            if len(trials) == len(read):
                continue
            for trial in trials:
                row = trial.user_attrs.get("row", {})
                if trial.number not in read and "net_id" in row:  # an older version had none
                    self._index.setdefault(row["net_id"], []).append((name, study, trial))
                read.add(trial.number)

    def _serves(self, row: dict[str, Any]) -> bool:
        measured = row["state"] in ("complete", "diverged", "dead")
        # A study may have been gone on with by another version than it began with.
        measured = measured and row.get("sqzexplore_version") == provenance.version()
        # Processors of one name may compute with other instructions, which gives other numbers.
        same = row.get("device_name") == self._device_name
        return measured and same and row.get("cpu_capability") == self._capability

    def _as_own(
        self, architecture: Architecture, attributes: dict[str, Any], origin: str
    ) -> Evaluation:
        names = [field.name for field in dataclasses.fields(Evaluation) if field.name != "row"]
        lists = {name: attributes.get(name, []) for name in names}  # an older version had fewer
        row = {key: value for key, value in attributes["row"].items() if key != "feasible"}
        row |= describe_row(architecture, self._spec, self._data)  # of other metaparameters
        if distances := violations(architecture, row, self._spec):
            row["feasible"] = max(distances.values()) <= 0
        return Evaluation(row | {"reused_from": origin}, **lists)


def recorded_fingerprint(study: optuna.Study) -> str | None:
    """What `fingerprint` gave when the study began, if it measures anything."""
    return study.user_attrs.get(_RECIPE)


def fingerprint(spec: Spec, data: ImageData | None) -> str:
    """What decides a measurement beside the architecture: where the images lie does not."""
    measure = spec.measure.model_dump(mode="json")
    for section in ("compression", "int8"):  # an older version had none
        if measure[section] is None:
            del measure[section]
    if throughput := measure["throughput"]:
        for key, default in (("processes", None), ("runtime", ["torch"])):
            if throughput[key] == default:
                del throughput[key]
    if data is not None:
        measure["accuracy"]["data"] = data.sha256
    decides: dict[str, Any] = {"measure": measure, "input_size": spec.input_size}
    decides |= {"version": provenance.version(), "recipe_version": recipe.VERSION}
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
