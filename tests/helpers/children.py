"""Real processes that run a test's functions, without a second's import each."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing import forkserver, resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path

from . import ROOT

# Each is forked from a process that has imported all this and done nothing else.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        *("hypothesis", "psycopg", "pytest", "sqzexplore.sweep.storage.open"),
        *(f"sqzexplore.{name}" for name in ("cli", "sweep.run", "figures.draw_all")),
        *(f"sqzexplore.{name}" for name in ("census.census", "executors.processes")),
        *("torch._dynamo", "sklearn.datasets", "sklearn.model_selection"),  # the first training
        *("pyarrow.dataset", "fontTools.subset", "matplotlib.backends.backend_pdf"),  # its tables
        *("rich.progress", "rich.live", "typer.rich_utils", "tabulate", "grpc"),
        *("alembic.context", "optuna.storages._rdb.models"),
        *("sqlalchemy.dialects.postgresql", "sqlalchemy.dialects.sqlite"),
        "helpers.warm",  # last: what is imported by then is left alone by collections
    ]
)


#: Where the processes of a test run find what they all fork from.
ADDRESS = "SQZEXPLORE_TESTS_FORK_FROM"


def begin() -> None:
    """Start what they are forked from, or find what the first process of this test run started.

    Before a sweep in this process would start it for its workers, with less, and Ctrl-C blocked.
    """
    server = forkserver._forkserver
    if "PYTEST_XDIST_WORKER" not in os.environ:
        with contextlib.chdir(ROOT / "tests"):  # or Python 3.11 finds no `helpers`, without a word
            server.ensure_running()
        os.environ[ADDRESS] = server._forkserver_address
        return
    server._forkserver_address = os.environ[ADDRESS]
    server._forkserver_alive_fd = os.open(os.devnull, os.O_RDONLY)  # the first process keeps it
    server.ensure_running = resource_tracker.ensure_running


def start(function: Callable[..., None], *arguments: object) -> BaseProcess:
    """`function`, of a module's top level, in a process of its own."""
    process = CONTEXT.Process(target=function, args=arguments, daemon=True)
    process.start()
    return process


def ended(*processes: BaseProcess) -> None:
    """Wait for them; each must have ended well."""
    for process in processes:
        process.join(timeout=120)
        assert process.exitcode == 0, f"{process.name} ended with {process.exitcode}"


def wait_for(path: Path) -> None:
    """Until there is something in `path`."""
    deadline = time.monotonic() + 60
    while not path.exists() or not path.stat().st_size:
        assert time.monotonic() < deadline, f"{path}: not written"
        time.sleep(0.01)
