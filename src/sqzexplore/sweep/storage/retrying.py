"""A database that goes away for a while must not end a sweep of days."""

from __future__ import annotations

import abc
import logging
import sqlite3
import sys
from collections.abc import Callable
from typing import Any

import sqlalchemy.exc
import tenacity
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage

#: How long a database that does not answer is asked again, seconds.
PATIENCE_S = 600.0
#: A shorter trouble, such as two writers at once, is not worth a message; seconds.
_SILENT_S = 1.0
#: The longest wait between two tries, seconds.
_LONGEST_WAIT_S = 30.0
#: What SQLite says of another writer, and of a disk without room.
_SQLITE_WAITS = ("locked", "disk is full", "disk I/O error")

_logger = logging.getLogger(__name__)


class DatabaseLost(ConnectionError):
    """The database stayed away for longer than the patience. The sweep can be resumed."""


def _patient_methods(cls: type) -> type:
    """Give `cls` every public method of a storage, each of which goes through `cls._call`."""
    for name, method in vars(BaseStorage).items():
        if callable(method) and not name.startswith("_"):
            setattr(cls, name, _patient(name))
    return abc.update_abstractmethods(cls)


def _patient(name: str) -> Callable[..., Any]:
    def call(self: PatientStorage, *arguments: Any, **named: Any) -> Any:
        return self._call(name, *arguments, **named)

    call.__name__, call.__doc__ = name, getattr(BaseStorage, name).__doc__
    return call


@_patient_methods
class PatientStorage(BaseStorage):
    """A storage of Optuna's that tries again while its database does not answer.

    Between the tries it waits longer and longer. A try that got no answer may have reached the
    database all the same, so that what is tried again can be done twice:

    - `create_new_trial` can leave a second trial, equal to the one that it returns (of the same
      owner, where the template names one);
    - `set_trial_state_values` of a finished state can raise Optuna's `UpdateFinishedTrialError`
      although it was this call that finished the trial; of `RUNNING` it can return False although
      it was this call that took the trial;
    - `create_new_study` can raise `DuplicatedStudyError` for the study that it made;
      `optuna.create_study(load_if_exists=True)` then loads it.

    Any other method does the same twice as once.

    Args:
        backend: the storage behind it.
        place: how messages name the database; without a password.
        tell: called with one line when the database has not answered for a moment, and with one
            when it answers again; left out, the lines are logged as warnings.
        patience_s: how long to try, seconds.

    Raises:
        DatabaseLost: from any method: the database stayed away for `patience_s`.
    """

    def __init__(
        self,
        backend: BaseStorage,
        place: str,
        tell: Callable[[str], None] | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._backend, self._place, self._patience_s = backend, place, patience_s
        self._tell = tell or _logger.warning
        self._warned = False
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(is_lost),
            # The random half second keeps many workers from all coming back at once.
            wait=tenacity.wait_exponential(multiplier=0.1, max=_LONGEST_WAIT_S)
            + tenacity.wait_random(0, 0.5),
            stop=tenacity.stop_after_delay(patience_s),
            before_sleep=self._before_sleep,
        )

    def hurry(self) -> None:
        """From now on try once: whoever ends does not wait."""
        self._retrying = self._retrying.copy(stop=tenacity.stop_after_attempt(1))

    def _call(self, name: str, *arguments: Any, **named: Any) -> Any:
        try:
            answer = self._retrying(getattr(self._backend, name), *arguments, **named)
        except tenacity.RetryError as last:
            self.hurry()
            raise DatabaseLost(
                f"{self._place}: the database has not answered for {_span(self._patience_s)} "
                f"({reason(last.last_attempt.exception())}). Nothing is lost: what it was told "
                "stands in it. Run the same command again when it answers"
            ) from None
        if self._warned:
            self._warned = False
            self._tell(f"{self._place}: the database answers again")
        return answer

    def _before_sleep(self, state: tenacity.RetryCallState) -> None:
        if not self._warned and (state.seconds_since_start or 0) > _SILENT_S:
            self._warned = True
            self._tell(
                f"{self._place}: the database does not answer; "
                f"trying again for {_span(self._patience_s)}"
            )


def is_lost(error: BaseException | None) -> bool:
    """Whether `error` says that the database did not answer, so that to try again may help."""
    # Optuna wraps what SQLAlchemy raises, and asks on after some of it.
    while isinstance(error, StorageInternalError | sqlalchemy.exc.SQLAlchemyError):
        if isinstance(error, sqlalchemy.exc.DBAPIError):
            return _is_lost_connection(error)
        error = error.__cause__ or error.__context__
    return _is_lost_proxy(error)


def _is_lost_connection(error: sqlalchemy.exc.DBAPIError) -> bool:
    if isinstance(error.orig, sqlite3.Error):
        return any(part in str(error.orig) for part in _SQLITE_WAITS)
    kinds = sqlalchemy.exc.OperationalError | sqlalchemy.exc.InterfaceError
    return error.connection_invalidated or isinstance(error, kinds)


def _is_lost_proxy(error: BaseException | None) -> bool:
    """Whether a gRPC proxy does not answer, or says that the database behind it does not."""
    grpc = sys.modules.get("grpc")
    if grpc is None or not isinstance(error, grpc.RpcError):
        return False
    details = str(error.details())
    behind = ("OperationalError", "InterfaceError", "raised during the commit", "not answered for")
    return error.code() is grpc.StatusCode.UNAVAILABLE or (
        error.code() is grpc.StatusCode.UNKNOWN and any(part in details for part in behind)
    )


def reason(error: BaseException | None) -> str:
    """The innermost cause of a storage's error, in one line."""
    while isinstance(error, StorageInternalError | sqlalchemy.exc.SQLAlchemyError):
        inner = error.__cause__ or error.__context__
        if inner is None:
            break
        error = inner
    details = getattr(error, "details", None)
    text = " ".join(str(details() if callable(details) else error).split())
    return text[:300] or type(error).__name__


def _span(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} s"
