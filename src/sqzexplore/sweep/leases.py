"""Which process evaluates which trial, and whether it still lives.

Every unfinished trial carries its owner as a user attribute, with a heartbeat. A process of the
same machine is known to be dead as soon as the kernel lets go of its lock file; one of another
machine when its heartbeat is old, so that the machines' clocks must agree within a minute.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import filelock
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from ..files import exclusive

#: The user attribute of a trial that names its owner.
OWNER = "owner"
#: Seconds between two heartbeats of a process.
HEARTBEAT_S = 30.0
#: The age of a heartbeat after which its process is held for dead.
STALE = timedelta(seconds=120)
_FOLDER = ".processes"


class Leases:
    """The trials of this process, and what it knows of the others that share their study.

    Args:
        folder: the sweep's result folder; the process's lock file is in it while it runs.
        storage: of the study.
        device: where this process evaluates.
    """

    def __init__(self, folder: Path, storage: BaseStorage, device: str) -> None:
        self._folder, self._database = folder, storage
        self._locks = (folder / _FOLDER).absolute()
        self.process = secrets.token_hex(8)
        self._lock = filelock.FileLock(self._locks / self.process)
        self._who = {
            "process": self.process,
            "machine": _machine(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "lock": str(self._locks / self.process),
            "device": device,
        }
        self._mine: dict[int, dict[str, Any]] = {}
        self._guard, self._over = threading.Lock(), threading.Event()
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        with exclusive(self._folder):  # another one may be removing the empty folder
            self._locks.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        self._heart.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._heart.join(1.0)  # it may be waiting for a lost database
        kept = [trial_id for trial_id in list(self._mine) if not self._release(trial_id)]
        self._lock.release()
        if kept:
            return  # the file says, as that of a killed process, that this one is gone
        with suppress(OSError), exclusive(self._folder):
            (self._locks / self.process).unlink()
            self._locks.rmdir()  # the last one does

    def nothing_left(self) -> None:
        """No trial is unfinished: what killed processes left here is of no use."""
        with exclusive(self._folder):
            for path in self._locks.glob("*"):
                if path.name != self.process and not _held(path):
                    path.unlink()

    def alone(self) -> bool:
        """Whether no other process works in this folder. Those that only share its database
        are not seen."""
        others = (path for path in self._locks.glob("*") if path.name != self.process)
        return not any(_held(path) for path in others)

    def mark(self, arch_id: str, attempts: int = 0, created: bool = False) -> dict[str, Any]:
        """The attribute that makes a trial this process's.

        Args:
            arch_id: of the trial's architecture.
            attempts: evaluations of it that ended with the death of their process.
            created: the trial is made with this attribute; its number then says which of two
                leases was first, otherwise the clock does.
        """
        now = _now().isoformat()
        claim = {"arch_id": arch_id, "attempts": attempts, "claimed": "" if created else now}
        return self._who | claim | {"at": now}

    def hold(self, trial_id: int, owner: Mapping[str, Any]) -> None:
        """From now on the trial's heartbeat is kept; `owner` is its `mark`."""
        with self._guard:
            self._mine[trial_id] = dict(owner)

    def forget(self, trial_id: int) -> None:
        """The trial ended."""
        with self._guard:
            self._mine.pop(trial_id, None)

    def _release(self, trial_id: int) -> bool:
        """Leave the trial unfinished, for any process to take up at once; whether the storage,
        which may be full or gone, knows of it."""
        with self._guard:
            owner = self._mine.pop(trial_id)
        try:
            if self.owns(self._database.get_trial(trial_id)):
                self._database.set_trial_user_attr(trial_id, OWNER, owner | {"process": None})
        except UpdateFinishedTrialError:
            return True
        except Exception:
            return False
        return True

    def owns(self, trial: FrozenTrial) -> bool:
        """Whether the trial is this process's, as its storage has it."""
        return (trial.user_attrs.get(OWNER) or {}).get("process") == self.process

    def _beat(self) -> None:
        while not self._over.wait(HEARTBEAT_S):
            with self._guard:
                for owner in self._mine.values():
                    owner["at"] = _now().isoformat()
                mine = dict(self._mine)
            for trial_id, owner in mine.items():
                # It may have ended meanwhile; a lost database is heard of where it matters.
                with suppress(Exception):
                    if self.owns(self._database.get_trial(trial_id)):  # and no one took it over
                        self._database.set_trial_user_attr(trial_id, OWNER, owner)


def alive(trial: FrozenTrial) -> bool:
    """Whether the process that evaluates an unfinished trial lives, as far as is known here.

    A trial without an owner is being asked for right now, or was when its process died.
    """
    owner = trial.user_attrs.get(OWNER)
    if owner is None:
        assert trial.datetime_start is not None
        return datetime.now() - trial.datetime_start < STALE
    if owner["process"] is None:
        return False
    if owner["machine"] == _machine() and (lock := Path(owner["lock"])).exists():
        return _held(lock)
    return _now() - datetime.fromisoformat(owner["at"]) < STALE


def works_in(folder: Path) -> bool:
    """Whether a process of this machine works in a result folder, on a trial or on none."""
    return any(map(_held, (folder / _FOLDER).glob("*")))


def leased_before(
    number: int, mark: Mapping[str, Any], others: Iterable[FrozenTrial]
) -> FrozenTrial | None:
    """The one of `others` that claimed the architecture before trial `number` with its `mark`."""
    for trial in others:
        owner = trial.user_attrs.get(OWNER)
        if not owner or owner["arch_id"] != mark["arch_id"] or not alive(trial):
            continue
        if (owner["claimed"], trial.number) < (mark["claimed"], number):
            return trial
    return None


def _held(path: Path) -> bool:
    """Whether a living process holds this lock."""
    probe = filelock.FileLock(path)
    try:
        probe.acquire(timeout=0)
    except (filelock.Timeout, OSError):
        return True
    probe.release()
    return False


@lru_cache(maxsize=1)
def _machine() -> str:
    """This machine since it booted: locks of before are nobody's."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    return f"{socket.gethostname()}/{boot}"


def _now() -> datetime:
    return datetime.now(UTC)
