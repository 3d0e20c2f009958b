"""A sweep on a real Ray cluster of several nodes on this machine, one of which is killed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from helpers.command_line import Started
from helpers.processes import until
from helpers.sweeps import run
from sqzexplore.cli.app import app
from sqzexplore.executors.mailbox import Mailbox
from sqzexplore.results.folder import load_results
from sqzexplore.sweep.status import status

pytestmark = pytest.mark.slow

cluster_utils = pytest.importorskip("ray.cluster_utils")

SPEC = """\
name: far
base: {width_multiplier: 0.25}
space: {squeeze_ratio: [0.25, 0.5, 1.0]}
measure:
  accuracy: {data: digits, epochs: 12, seeds: 1, proxy: {width_multiplier: 0.1}}
"""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[cluster_utils.Cluster]:
    """A head without CPUs of its own, which soon sees that a node is gone; workers are not nice."""
    monkeypatch.setenv("RAY_worker_niceness", "0")
    monkeypatch.setenv("RAY_health_check_failure_threshold", "2")
    monkeypatch.setenv("RAY_health_check_period_ms", "500")
    monkeypatch.setenv("RAY_raylet_death_check_interval_milliseconds", "100")  # by its workers
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    head = {"num_cpus": 0, "include_dashboard": False, "include_log_monitor": False}
    made = cluster_utils.Cluster(initialize_head=True, head_node_args=head | {"no_monitor": True})
    yield made
    made.shutdown()


def sweep(folder: Path, *options: object) -> Started:
    spec = folder.parent / "far.yaml"
    spec.write_text(SPEC)
    return Started("sweep", spec, "--out", folder, "--device", "cpu", "--quiet", *options)


def test_a_node_is_killed(cluster: cluster_utils.Cluster, tmp_path: Path) -> None:
    """Its trial is given to another node; the table is that of an undisturbed sweep."""
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    far = sweep(tmp_path / "far", "--engine", "ray", "--address", cluster.address)
    until(lambda: len(list((tmp_path / "far/partial").glob("*.safetensors"))) == 2, 120)
    assert [one.running for one in status(tmp_path / "far").unfinished] == [True, True]
    cluster.remove_node(nodes[0], allow_graceful=False)
    run(SPEC, tmp_path / "here")  # undisturbed, meanwhile
    _, errors = far.communicate(timeout=120)
    assert far.returncode == 0, errors
    rows, undisturbed = load_results(tmp_path / "far"), load_results(tmp_path / "here")
    pd.testing.assert_frame_equal(
        *(table.set_index("squeeze_ratio")[["params", "top1", "state"]].sort_index()
          for table in (rows, undisturbed))
    )  # fmt: skip
    assert sorted(rows["attempts"]) == [1, 1, 2]
    assert not list((tmp_path / "far/partial").glob("*"))


def test_the_mailbox_answers_each_question() -> None:
    async def correspondence() -> tuple[list[bool], list[tuple[int, bytes]]]:
        box = Mailbox()
        await box.post(b"begun")
        waiting = [asyncio.create_task(box.ask(letter)) for letter in (b"one", b"two")]
        await asyncio.sleep(0)
        assert await box.take() == [(0, b"begun"), (1, b"one"), (2, b"two")]
        await box.answer(2, True)
        await box.answer(1, False)
        return [await answer for answer in waiting], await box.take()

    assert asyncio.run(correspondence()) == ([False, True], [])


def test_the_mailboxs_process_needs_no_torch() -> None:
    code = "import sys, sqzexplore.executors.mailbox; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "slurm"], "--engine: found 'slurm', expected local or ray"),
        (["--address", "x:1"], "--address: expected no such option without --engine ray"),
        (["--engine", "ray", "--address", "127.0.0.1:9"], "--address 127.0.0.1:9: no Ray cluster"),
        (["--engine", "ray", "--trial-cpus", "4096"], "a trial needs 4096 CPUs and 0 GPUs, the"),
    ],
)
def test_wrong_options(
    options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_prestart_worker_first_driver", "0")  # none is given work
    spec = tmp_path / "far.yaml"
    spec.write_text(SPEC)
    done = CliRunner().invoke(app, ["sweep", str(spec), "--out", str(tmp_path / "out"), *options])
    assert message in str(done.exception) + done.output
    assert list(tmp_path.iterdir()) == [spec]
