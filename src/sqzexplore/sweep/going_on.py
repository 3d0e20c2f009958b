"""A sweep whose spec asks for more than before: it goes on from what is there.

A finished trial of the study stays as it is, so that one with more seeds is another trial. The
study begins anew, and what was measured goes back to where a trial's measurements lie until it is
in the study: no training is done twice.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from ..data.images import ImageData
from ..errors import UserError, shown
from ..evaluation.cache import throughput_file, training_file
from ..evaluation.workload import recipe_of
from ..files import write_atomically, write_json
from ..measure.settings import Settings
from ..results.folder import ResultFolder
from ..space.axis import Axis
from ..spec.load import load_spec
from ..spec.models import Spec
from ..train.finetune import CompressedRun
from ..train.int8 import Int8Run
from ..train.loop import identity
from .leases import OWNER, alive, works_in
from .optuna_params import from_params, to_params
from .optuna_private import requested_params
from .reuse import fingerprint, recorded_fingerprint
from .storage.open import open_journal, open_storage
from .trial_tables import speed_key

#: Lists of which more values are more work of the same kind.
_GROWING = (
    *(f"measure.throughput.{name}" for name in ("batch", "dtype", "memory_format", "form", "mode")),
    "measure.throughput.runtime",
    "measure.throughput.input_size",
    "measure.accuracy.epochs",
)
#: The attribute of the study that says of each claim when it was written down.
CLAIMS = "claims"
#: How the line begins that says of a search that it shall try more: its study itself goes on.
MORE_TRIALS = "search.trials:"
#: A new study while it is made; it then takes the place of the journal.
_ANEW = ".study.anew"
_WHOLE = ("measure.throughput", "measure.accuracy", "measure.compression", "measure.int8")


def changes(before: Spec, after: Spec) -> tuple[list[str], list[str]]:
    """What of the recipe of a sweep changed: what only adds work, and what would mix things.

    More trials, more architectures of a list, more values of an axis, or a new axis that has what
    the base had, more seeds, more budgets, another measurement, or more of its settings add work.
    """
    old, new = _flat(before.recipe()), _flat(after.recipe())
    more: list[str] = []
    other: list[str] = []
    for key in sorted(old.keys() | new.keys()):
        was, is_ = old.get(key), new.get(key)
        if was == is_:
            continue
        line = f"{key}: {shown('absent' if was is None else was)} -> "
        line += shown("absent" if is_ is None else is_)
        (more if _adds(key, was, is_, before, after) else other).append(line)
    return more, other


def _adds(key: str, was: Any, is_: Any, before: Spec, after: Spec) -> bool:
    if key in ("search.trials", "measure.accuracy.seeds"):
        return was is not None and is_ is not None and is_ > was
    section = next((name for name in _WHOLE if key.startswith(f"{name}.")), None)
    if section is not None and getattr(before.measure, section.partition(".")[2]) is None:
        return True
    if key in _GROWING:
        lists = [value if isinstance(value, list) else [value] for value in (was, is_)]
        return None not in (was, is_) and "auto" not in (was, is_) and _holds(lists[1], lists[0])
    if key in _WHOLE:
        return was is None
    if key == "space":
        listed = [spec.design_space.listed for spec in (before, after)]
        return () not in listed and _holds(listed[1], listed[0])
    if not key.startswith("space."):
        return False
    name = key.split(".", 1)[1]
    old, new = (_axis(spec, name) for spec in (before, after))
    while new is None and old is None and "." in name:  # a range's min or max
        name = name.rpartition(".")[0]
        old, new = (_axis(spec, name) for spec in (before, after))
    if new is None or new.continuous or new.when or (old and (old.continuous or old.when)):
        return False
    known = old.values if old else (before.design_space.base.get(name),)
    return _holds(new.values, known)


def _holds(larger: Any, smaller: Any) -> bool:
    return all(value in larger for value in smaller)


def _axis(spec: Spec, name: str) -> Axis | None:
    return next((axis for axis in spec.design_space.axes if axis.field == name), None)


def news(spec: Spec, folder: Path) -> list[str]:
    """What the spec adds to the sweep that is in the folder, a line each.

    Raises:
        UserError: the folder holds the results of another spec; with what changed.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder}: found a file, expected a folder")
    stored = ResultFolder(folder).spec_file
    if not stored.exists():
        return []
    more, other = changes(load_spec(stored), spec)
    if other:
        lines = [f"  {line}" for line in (*other, *more)]
        raise UserError(
            f"{folder} holds the results of another spec; what changed:\n"
            + "\n".join(sorted(lines))
            + "\nTake the change back, or choose another folder with --out."
        )
    return more


def carry_over(spec: Spec, folder: Path, data: ImageData | None, in_database: bool) -> None:
    """Make the folder ready to go on with a spec that adds work to the one in it.

    Args:
        spec: what is to be done now.
        folder: of the sweep; its lock is held.
        data: the images, as `spec` trains on them.
        in_database: whether the study lies there instead of in the folder.

    Raises:
        UserError: it cannot go on: other images, another version, a study in a database.
    """
    more = news(spec, folder)
    if not more or all(line.startswith(MORE_TRIALS) for line in more):
        return  # the study itself goes on
    if in_database:
        raise UserError(
            f"{folder} holds the results of another spec, whose study is in a database: what is "
            "added begins under another name, in another folder with --out; trainings of the same "
            "storage are reused"
        )
    before = load_spec(ResultFolder(folder).spec_file)
    if (study := _begun(before, folder)) is None:
        return
    trials = study.get_trials(deepcopy=False)
    # One that measures throughput after all trainings has no running trial.
    running = any(trial.state == TrialState.RUNNING and alive(trial) for trial in trials)
    if running or works_in(folder):
        raise UserError(
            f"{folder}: another process works on this sweep; wait for it, or end it, before the "
            "spec asks for more"
        )
    if any(trial.user_attrs.get("row") for trial in trials):
        _check_same(study, before, data, folder)
        _put_back(trials, study.user_attrs, spec, folder, data)
    _begin_anew(study, before, spec, folder)


def _begun(spec: Spec, folder: Path) -> optuna.Study | None:
    """The study in the folder; None where a process was killed before it began one."""
    if not ResultFolder(folder).journal.is_file():
        return None
    storage = open_storage(folder, None)
    if spec.name not in {each.study_name for each in storage.get_all_studies()}:
        return None
    return optuna.load_study(study_name=spec.name, storage=storage)


def _begin_anew(study: optuna.Study, before: Spec, spec: Spec, folder: Path) -> None:
    """Put a new study in the place of the one before, which is kept beside it. Until it is whole
    the one before stays, for a process may be killed at any moment."""
    path, journal = folder / _ANEW, ResultFolder(folder).journal
    path.unlink(missing_ok=True)
    anew = optuna.create_study(
        study_name=spec.name,
        storage=open_journal(path),
        directions=list(spec.objectives.values()),
    )
    anew.set_user_attr(CLAIMS, study.user_attrs.get(CLAIMS, {}))
    if spec.search.sampler != "grid":
        _enqueue(anew, study.get_trials(deepcopy=False), before, spec)
    names = (folder / f"study.{number}.journal" for number in itertools.count(1))
    write_atomically(next(each for each in names if not each.exists()), journal.read_bytes())
    path.replace(journal)


def put_away(folder: Path) -> list[Path]:
    """The studies that the sweep in a folder had before its spec asked for more."""
    return sorted(folder.glob("study.*.journal"))


def _check_same(study: optuna.Study, before: Spec, data: ImageData | None, folder: Path) -> None:
    """A training is the same only by the same version on the same images."""
    recorded = recorded_fingerprint(study)
    if recorded is not None and recorded != fingerprint(before, data):
        raise UserError(
            f"{folder} holds the results of other images, or of another version of sqzexplore, "
            "which cannot be added to; choose another folder with --out"
        )


def _put_back(
    trials: list[FrozenTrial],
    of_study: Mapping[str, Any],
    after: Spec,
    folder: Path,
    data: ImageData | None,
) -> None:
    """Write what was measured as an unfinished trial has it."""
    scratch = ResultFolder(folder).scratch
    scratch.mkdir(exist_ok=True)
    for trial in trials:
        content = dict(trial.user_attrs)
        row = content.get("row")
        if not row:
            continue
        late = of_study.get(speed_key(trial.number))
        if late:
            content["throughput"] = late["throughput"]
        arch_id = row["arch_id"]
        if after.measure.accuracy is not None and data is not None:
            for seed in content.get("seeds", ()):
                path = training_file(scratch, arch_id, seed["epochs"], seed["seed"])
                write_json(path, _training(seed, content, row, after, data))
        if after.measure.throughput is not None and content.get("throughput"):
            rows = {_settings_of(each): each for each in content["throughput"]}
            device_type = content["throughput"][0]["device"].partition(":")[0]
            content = {"rows": rows, "duration_s": 0.0}
            write_json(throughput_file(scratch, arch_id, device_type), content)


def _training(
    seed: Mapping[str, Any],
    content: Mapping[str, Any],
    row: Mapping[str, Any],
    spec: Spec,
    data: ImageData,
) -> dict[str, Any]:
    """A training as `evaluation.bench` keeps it."""
    assert spec.measure.accuracy is not None
    which = {"seed": seed["seed"], "epochs": seed["epochs"]}

    def own(table: str) -> list[dict[str, Any]]:
        rows = (r for r in content.get(table, ()) if {k: r[k] for k in which} == which)
        return [{k: v for k, v in each.items() if k not in which} for each in rows]

    run = dict(seed) | {"stopped": False}
    run["history"] = own("history")
    run["right"] = {each["split"]: each["right"] for each in own("images")}
    names = ("label", "predicted", "images")
    for table, kind in (("compression", CompressedRun), ("int8", Int8Run)):
        known = {field.name for field in fields(kind)}
        run[table] = [{k: v for k, v in each.items() if k in known} for each in own(table)]
    run["confusion"] = [[each[name] for name in names] for each in own("confusion")]
    origin = {
        name: row[name] for name in ("device", "sqzexplore_version", "git_commit", "torch_version")
    } | {name: row.get(name) for name in ("device_name", "cpu_capability", "started_at")}
    recipe = recipe_of(spec.measure.accuracy, seed["epochs"])
    return {
        "identity": identity(recipe, data, seed["seed"]),
        "origin": origin | {"duration_s": seed["duration_s"]},
        "run": run,
    }


def _settings_of(row: Mapping[str, Any]) -> str:
    known = {field.name for field in fields(Settings)}
    return str(Settings(**{name: value for name, value in row.items() if name in known}))


def _enqueue(anew: optuna.Study, trials: list[FrozenTrial], before: Spec, after: Spec) -> None:
    """The architectures that a search tried, or was to try, come first in the new study, in their
    order."""
    seen: set[str] = set()
    for trial in trials:
        if trial.state == TrialState.WAITING:
            anew.enqueue_trial(requested_params(trial))
        elif trial.user_attrs.get("row") or OWNER in trial.user_attrs:
            architecture = from_params(before.design_space, trial.params)
            if architecture.arch_id not in seen:
                seen.add(architecture.arch_id)
                anew.enqueue_trial(to_params(after.design_space, architecture))


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    if not isinstance(value, dict):
        return {path: value}
    return {
        key: leaf
        for name, inner in value.items()
        for key, leaf in _flat(inner, f"{path}.{name}" if path else str(name)).items()
    }
