"""Where a study is kept: a journal file in the result folder, or a database."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy.exc
import tenacity
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, GrpcStorageProxy, JournalStorage, RDBStorage, get_storage
from sqlalchemy.engine import URL, make_url

from ...errors import UserError, nearest
from ...files import home
from ...results.folder import ResultFolder
from .journal import Journal
from .retrying import PatientStorage, reason

_JOURNAL_LOCK = ".journal.lock"

_EXPECTED = "expected postgresql+psycopg://USER@HOST/DATABASE, sqlite:///FILE or grpc://HOST:PORT"
#: Packages that a URL needs, and the extra that brings each.
_EXTRAS = {"psycopg": "postgres", "grpc": "grpc", "google": "grpc"}
#: How long to wait for a server when a storage is opened, seconds.
_CONNECT_S = 10
#: Of libpq: a network that went away without a word is noticed in a minute instead of hours.
_LIBPQ = {
    "connect_timeout": _CONNECT_S,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
#: How long SQLite waits for another writer, seconds.
_SQLITE = {"timeout": 60}

Tell = Callable[[str], None]


def open_storage(
    folder: Path, url: str | None, create: bool = False, tell: Tell | None = None
) -> BaseStorage:
    """The storage that a sweep's study is in: the database at `url`, or the folder's own file.

    A storage is for the process that opened it: a forked one opens its own.

    Args:
        folder: the sweep's result folder.
        url: of a database, instead of the journal file in the folder.
        create: make the file if there is none.
        tell: see `open_database`.

    Raises:
        UserError: there is none, it cannot be opened, or it is damaged.
    """
    if url:
        return open_database(url, tell)
    path = ResultFolder(folder).journal
    if not create and not path.is_file():
        raise UserError(f"{folder}: found no {path.name}, expected the sweep's study, or --storage")
    return open_journal(path)


def open_database(url: str, tell: Tell | None = None) -> PatientStorage:
    """The database at `url`, or a gRPC proxy in front of one.

    It is asked at once: a URL that is wrong is told here. Once open, a database that goes away is
    waited for, see `PatientStorage`.

    Args:
        url: `postgresql+psycopg://USER@HOST/DATABASE` or another that SQLAlchemy takes;
            `sqlite:///FILE`; `grpc://HOST:PORT` of Optuna's gRPC storage proxy.
        tell: called with a line when the database goes away, and when it is back; left out, the
            lines are logged.

    Raises:
        UserError: the URL is malformed, its driver is not installed, or nothing there answers as
            it should. No message shows a password.
    """
    backend = _open_proxy(url) if url.startswith("grpc:") else _open_rdb(_parsed(url))
    # mypy does not see the methods that the class is given.
    return PatientStorage(backend, hide_password(url), tell)  # type: ignore[abstract]


def hide_password(url: str) -> str:
    """A storage's URL as a message may show it: `***` for each password.

    Of a URL that cannot be taken apart only what stands before `://` is left.
    """
    try:
        parsed = _parsed(url)
    except UserError:
        return f"{_scheme(url)}://..."
    shown = {key: "***" if "password" in key else value for key, value in parsed.query.items()}
    text = parsed.set(query=shown).render_as_string(hide_password=True)
    return text.replace("%2A%2A%2A", "***")


def _scheme(url: str) -> str:
    found = re.match(r"[A-Za-z][\w+.-]*(?=://)", url)
    return found.group() if found else "..."


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise UserError(f"--storage: found a malformed URL, {_EXPECTED}") from None
    if parsed.username is not None and "@" in f"{parsed.host}{parsed.database}":
        raise UserError(
            f"--storage {_scheme(url)}://...: found more than one @, expected special characters "
            "of a password as %40 (@), %2F (/), %3A (:)"
        )
    if parsed.database and parsed.database.startswith("~"):
        parsed = parsed.set(database=str(home(parsed.database)))
    return parsed


# --- kinds of storages -------------------------------------------------------------------------


def open_journal(path: Path) -> BaseStorage:
    """The journal file at `path`, made if there is none.

    Raises:
        UserError: it is damaged.
    """
    try:
        storage = JournalStorage(Journal(path, path.with_name(_JOURNAL_LOCK)))
        storage.get_all_studies()
    except (ValueError, KeyError, AssertionError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: damaged, the study in it cannot be read ({type(error).__name__}); "
            "restore it from a copy, or choose another folder with --out"
        ) from None
    return storage


def _open_rdb(url: URL) -> BaseStorage:
    """A database behind Optuna's cache."""
    place = f"--storage {hide_password(url.render_as_string(hide_password=False))}"
    try:
        url.get_dialect().import_dbapi()
    except sqlalchemy.exc.NoSuchModuleError:
        near = nearest(url.drivername, ("postgresql+psycopg", "sqlite", "grpc"))
        raise UserError(f"{place}: no such kind of database, {_EXPECTED}{near}") from None
    except ImportError as error:
        raise _missing(place, error) from None
    # Optuna fills in what stands in braces.
    text = re.sub(r"([{}])", r"\1\1", url.render_as_string(hide_password=False))
    # Processes that open an empty database at once all make its tables: one of them does.
    opening = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_race),
        wait=tenacity.wait_random(0.05, 0.5),
        stop=tenacity.stop_after_attempt(20),
        reraise=True,
    )
    try:
        return get_storage(opening(RDBStorage, text, _engine_options(url)))
    # A driver reads what stands behind the `?` by itself: `timeout=abc` is a ValueError.
    except (
        sqlalchemy.exc.SQLAlchemyError,
        StorageInternalError,
        RuntimeError,
        ValueError,
    ) as error:
        raise UserError(f"{place}: the database cannot be opened: {reason(error)}") from None


def _engine_options(url: URL) -> dict[str, Any]:
    drivers = {"psycopg": _LIBPQ, "psycopg2": _LIBPQ, "pysqlite": _SQLITE}
    known = drivers.get(url.get_driver_name(), {})
    # What the URL itself says stays.
    requested = {key: value for key, value in known.items() if key not in url.query}
    return {"pool_pre_ping": True, "connect_args": requested}


def _is_race(error: BaseException) -> bool:
    """Whether another process made the same table, or the same first row, at the same time."""
    if isinstance(error, sqlalchemy.exc.IntegrityError):
        return True
    return isinstance(error, sqlalchemy.exc.DBAPIError) and (
        "already exists" in str(error.orig) or "database is locked" in str(error.orig)
    )


def _open_proxy(url: str) -> BaseStorage:
    """Optuna's gRPC proxy at `url`."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or url != f"grpc://{parts.netloc}" or "@" in parts.netloc:
        raise UserError("--storage: found a malformed URL, expected grpc://HOST:PORT")
    place = f"--storage {url}"
    try:
        import google.protobuf  # noqa: F401  # Optuna imports both only when it connects
        import grpc
    except ImportError as error:
        raise _missing(place, error) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        proxy = GrpcStorageProxy(host=host, port=port)
    try:
        proxy.wait_server_ready(timeout=_CONNECT_S)
        proxy.get_all_studies()
    except (ConnectionError, grpc.RpcError) as error:
        said = "nothing answers" if isinstance(error, ConnectionError) else reason(error)
        raise UserError(f"{place}: {said}, expected Optuna's gRPC storage proxy") from None
    return proxy


def _missing(place: str, error: ImportError) -> UserError:
    package = (error.name or str(error)).split(".")[0]
    extra = _EXTRAS.get(package)
    how = f': pip install "sqzexplore[{extra}]"' if extra else ""
    return UserError(f"{place}: found no package {package}, expected the URL's driver{how}")
