"""What is known of a sweep's architectures: the tables, as they grow, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from .. import provenance
from ..files import write_json
from ..results.folder import ResultFolder
from ..results.tables import IDENTITY, TABLES

#: Of what state a trial's throughput is measured once all trainings are over.
_MEASURED = ("complete", "diverged", "dead")
_SPEED = "throughput:"


def speed_key(trial: int) -> str:
    """The attribute of the study that holds a trial's throughput, where that was measured after
    the trial had ended."""
    return f"{_SPEED}{trial}"


@dataclass
class Outcome:
    """How a sweep ended: its architectures by state, and the errors of those that failed."""

    complete: int = 0
    diverged: int = 0
    dead: int = 0
    pruned: int = 0
    failures: list[str] = field(default_factory=list)

    def count(self, row: Mapping[str, Any]) -> None:
        """Take one row of `trials` into account."""
        if row["state"] == "failed":
            self.failures.append(f"trial {row['trial']} ({row['arch_id']}): {row['error']}")
        else:
            setattr(self, row["state"], getattr(self, row["state"]) + 1)


class Record:
    """The rows of a sweep, one an architecture."""

    def __init__(self, sweep: str) -> None:
        self.outcome = Outcome()
        #: Numbers of the trials that have no throughput.
        self.unmeasured: set[int] = set()
        self._sweep = sweep
        self._tables: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}

    def take(self, trial: FrozenTrial) -> Mapping[str, Any]:
        """Take a finished trial with a row into the tables, the only one of its architecture.

        Returns:
            Its new row of `trials`.
        """
        attributes = trial.user_attrs
        row = attributes["row"]
        identity = {
            "sweep": self._sweep,
            "trial": trial.number,
            "state": row["state"],
            "arch_id": row["arch_id"],
            "net_id": row.get("net_id"),  # what an older version measured has no such key
        }
        self._tables["trials"].append(identity | row)
        for name in TABLES:
            rows = attributes.get(name, ())  # one that is not there is empty
            self._tables[name] += [identity | dict(entry) for entry in rows]
        if not attributes.get("throughput") and row["state"] in _MEASURED:
            self.unmeasured.add(trial.number)
        self.outcome.count(identity | row)
        return self._tables["trials"][-1]

    def take_speeds(self, attributes: Mapping[str, Any]) -> None:
        """Complete rows by the throughput that stands in the attributes of the study."""
        for number in sorted(self.unmeasured):
            if (content := attributes.get(speed_key(number))) is None:
                continue
            self.unmeasured.remove(number)
            row = next(row for row in self._tables["trials"] if row["trial"] == number)
            row |= content["row"]
            devices = [row["device_name"], *(each["device_name"] for each in content["throughput"])]
            row["device_name"] = provenance.together(devices)
            identity = {name: row[name] for name in IDENTITY}
            self._tables["throughput"] += [identity | each for each in content["throughput"]]
            if "error" in content["row"]:
                text = f"trial {number} ({row['arch_id']}): {row['error']}"
                self.outcome.failures.append(text)

    def write(self, folder: Path, origin: Mapping[str, Any]) -> None:
        """Write the tables as they stand, and `origin` as their provenance."""
        for rows in self._tables.values():
            rows.sort(key=lambda row: row["trial"])
        results = ResultFolder(folder)
        results.write(self._tables)
        write_json(results.provenance, origin)


def drop_unfinished(folder: Path) -> None:
    """Remove the halves of tables that a killed process left; `exclusive` is held."""
    results = ResultFolder(folder)
    single = (results.provenance.name, results.spec_file.name)
    for name in (*(f"{table}.*" for table in TABLES), *single):
        for half in folder.glob(f".{name}.*"):
            with suppress(OSError):
                half.unlink()
