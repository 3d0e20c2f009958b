"""Real processes that run a test's functions, without a second's import each."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

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
