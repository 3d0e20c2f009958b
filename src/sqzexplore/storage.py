"""Where a study is kept: a journal file in the result folder, or a database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import filelock
import sqlalchemy.exc
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from .errors import UserError

JOURNAL = "study.journal"
_JOURNAL_LOCK = ".journal.lock"


def open_storage(folder: Path, url: str | None, create: bool = False) -> BaseStorage:
    """The storage that a sweep's study is in: the database at `url`, or the folder's own file.

    Args:
        folder: the sweep's result folder.
        url: of a database, instead of the journal file in the folder.
        create: make the file if there is none.

    Raises:
        UserError: there is none, or it is damaged.
    """
    if url:
        return _open_database(url)
    path = folder / JOURNAL
    if create:
        _drop_torn_line(path)
    elif not path.is_file():
        raise UserError(f"{folder}: found no {JOURNAL}, expected the sweep's study, or --storage")
    return _open_journal(path)


def _open_journal(path: Path) -> BaseStorage:
    # The kernel lets go of it when its holder is killed. Optuna's own is a link that stays, and is
    # waited for without end where the journal's path is relative. Of a lock Optuna calls `acquire`
    # and `release` alone.
    lock: Any = filelock.FileLock(path.with_name(_JOURNAL_LOCK))
    try:
        storage = JournalStorage(JournalFileBackend(str(path), lock))
        storage.get_all_studies()
    except (ValueError, KeyError, AssertionError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: damaged, the study in it cannot be read ({type(error).__name__}); "
            "restore it from a copy, or choose another folder with --out"
        ) from None
    return storage


def _open_database(url: str) -> BaseStorage:
    """The database at `url`; the message does not repeat it, for it may hold a password."""
    try:
        return RDBStorage(url)
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, ValueError) as error:
        raise UserError(
            f"--storage: the database cannot be opened ({type(error).__name__})"
        ) from None


def _drop_torn_line(path: Path) -> None:
    """A full disk can leave half a line at the journal's end; Optuna would never read past it."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
