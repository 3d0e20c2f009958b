"""How a sweep stands, read from its study and its tables, neither of which it writes to; a journal
is locked for moments, by the lock file beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from ..errors import UserError
from ..results.completeness import Completeness, completeness
from ..results.folder import ResultFolder
from ..results.tables import meeting_constraints
from .leases import OWNER, alive
from .storage.open import open_storage

#: The rate is that of the last so many trials.
_RECENT = 50


@dataclass(frozen=True)
class Unfinished:
    """A trial that began and has not ended: it is `running`, on `host`, or was interrupted and
    waits to go on."""

    trial: int
    params: Mapping[str, Any]
    started_at: datetime
    running: bool
    host: str | None


@dataclass(frozen=True)
class Status:
    """How a sweep stands. `rate` is trials an hour over the last 50, `left_s` what is left at that
    rate, both None before two trials ended; `best` the best complete trial by each objective, of
    those that meet the constraints."""

    complete: Completeness
    unfinished: Sequence[Unfinished]
    failures: Mapping[int, str]
    last_ended: datetime | None
    rate: float | None
    left_s: float | None
    best: Mapping[str, tuple[int, float]]


def status(folder: str | Path, storage_url: str | None = None) -> Status:
    """How the sweep in `folder` stands.

    Args:
        folder: its result folder, or a copy.
        storage_url: the database of its study, where it is not in the folder.

    Raises:
        UserError: there is no sweep, or its study cannot be read.
    """
    folder = Path(folder)
    done = completeness(folder)
    spec = ResultFolder(folder).spec()
    try:
        storage = open_storage(folder, storage_url)
        trials = optuna.load_study(study_name=spec.name, storage=storage).get_trials(deepcopy=False)
    except KeyError:
        raise UserError(f"{folder}: its study has no trials of {spec.name}") from None
    ended = sorted(
        t.datetime_complete for t in trials if t.datetime_complete and "row" in t.user_attrs
    )
    rate = _rate(ended)
    left = max(0, done.planned - done.done) if done.planned is not None else None
    rows = ResultFolder(folder).table("trials")
    best: dict[str, tuple[int, float]] = {}
    failures: dict[int, str] = {}
    if rows is not None:
        failed = rows[rows["state"] == "failed"]
        failures = {int(n): str(e) for n, e in zip(failed["trial"], failed["error"], strict=True)}
        complete = meeting_constraints(rows[rows["state"] == "complete"])
        for name, direction in spec.objectives.items():
            known = complete.dropna(subset=[name])
            values = known[name].to_numpy(dtype=float)
            if len(values):
                at = values.argmin() if direction == "minimize" else values.argmax()
                best[name] = (int(known["trial"].iloc[at]), float(values[at]))
    return Status(
        complete=done,
        unfinished=[_unfinished(t) for t in trials if t.state == TrialState.RUNNING],
        failures=failures,
        last_ended=ended[-1] if ended else None,
        rate=rate,
        left_s=left / rate * 3600 if rate and left is not None else None,
        best=best,
    )


def _rate(ended: Sequence[datetime]) -> float | None:
    """Trials an hour over the last of them."""
    recent = ended[-_RECENT - 1 :]
    # A grid of costs is told all at once: its times say nothing of a rate.
    if len(recent) < 2 or (recent[-1] - recent[0]) / len(recent) < timedelta(milliseconds=1):
        return None
    return (len(recent) - 1) / ((recent[-1] - recent[0]) / timedelta(hours=1))


def _unfinished(trial: FrozenTrial) -> Unfinished:
    assert trial.datetime_start is not None
    host = (trial.user_attrs.get(OWNER) or {}).get("host")
    return Unfinished(trial.number, trial.params, trial.datetime_start, alive(trial), host)
