"""What several tests share: running the command line as a user does, and small specs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

import servers

# A submission is judged by the same examples each time; at a desk every run looks elsewhere.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

# One thread a process: the tests run several at once, and two threads each on two cores crawl.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parent.parent

#: Two architectures, trained in about a second each, and told from chance by all of their seeds.
SMALL = """\
name: small
question: Does the small sweep work?
base: {width_multiplier: 0.25}
space:
  squeeze_ratio: [0.25, 1.0]
measure:
  throughput: {batch: [1, 2], dtype: [float32], seconds: 0.05}
  accuracy:
    {data: digits, image_size: 32, epochs: 1, batch_size: 32, learning_rate: 0.01, seeds: 2,
     proxy: {width_multiplier: 0.1, bypass: complex}}
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is marked `gpu` needs a CUDA device."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def sqz() -> Run:
    """`python -m sqzexplore` in a real process."""

    def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sqzexplore", *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=240, cwd=cwd, check=False
        )

    return run


@pytest.fixture
def small_spec(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


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
