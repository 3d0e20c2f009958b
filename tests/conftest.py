"""What several tests share: running the command line as a user does, and small specs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from hypothesis import settings

from helpers import Run, children, command_line, garbage, onnx_registry, servers
from helpers.processes import Sweeps
from helpers.sweeps import SMALL
from sqzexplore import Architecture
from sqzexplore.executors.processes import usable_cores
from sqzexplore.measure import reference
from sqzexplore.network.presets import PRESETS

# A submission is judged by the same examples each time; at a desk every run looks elsewhere.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

# One thread a process: the tests run several at once, and two threads each on two cores crawl.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # those that ask for two share a core
torch.set_num_threads(1)
onnx_registry.keep()


def pytest_configure() -> None:
    """What tests fork from, which imports what they need while they are collected."""
    children.begin()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long begins first, or the end waits for it; `gpu` needs a CUDA device."""

    def short(item: pytest.Item) -> bool:
        return item.path.name != "test_docs.py" and item.get_closest_marker("slow") is None

    items.sort(key=short)
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def pytest_collection_finish() -> None:
    """What is imported by now stays: no collection need look at it."""
    garbage.spare_collections()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: many tests wait for processes, servers and timeouts."""
    return len(usable_cores()) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Say how a process of a test run ended that died, and what memory was left: xdist does not."""
    if error is not None:
        free_gb = psutil.virtual_memory().available / 1e9
        status = node.gateway._io.wait()  # negative: the signal
        print(f"\n[{node.gateway.id}] exit status {status}, {free_gb:.1f} GB of memory left")


@pytest.fixture
def sqz() -> Run:
    """`python -m sqzexplore` in a real process."""
    return command_line.run


@pytest.fixture
def small_spec(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


@pytest.fixture
def small_reference(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Throughput beside a smaller network than v1.1, which takes seconds to write as ONNX."""
    small = Architecture(
        width_multiplier=0.1, num_classes=10, fires=3, pool_after=(1, 3), squeeze_ratio=0.5
    )
    monkeypatch.setitem(PRESETS, reference.REFERENCE, small)
    yield
    reference.references.clear()
    reference.history.clear()


@pytest.fixture(scope="session")
def postgres() -> Iterator[servers.Postgres]:
    """A real PostgreSQL server; each process of a test run that asks has its own."""
    servers.need_postgres()
    with servers.postgres() as server:
        yield server


@pytest.fixture
def database(postgres: servers.Postgres) -> str:
    """The URL of a new, empty database, password included."""
    return postgres.new_database()


@pytest.fixture
def sweeps(tmp_path: Path) -> Iterator[Sweeps]:
    """Sweeps in a folder of their own."""
    running = Sweeps(tmp_path)
    yield running
    running.end()
