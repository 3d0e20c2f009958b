"""A sweep on a real Ray cluster of several nodes on this machine, one of which is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sqzexplore.results import load_results
from test_workers import QUICK, RATIOS, Sweeps, until, whole

ray = pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[object]:
    """A head without CPUs of its own, and two nodes with one each."""
    log = tmp_path / "log"
    log.touch()
    monkeypatch.setenv("FAULTS", '{"0.1": "hang once"}')
    monkeypatch.setenv("FAULTS_LOG", str(log))
    monkeypatch.setenv("RAY_health_check_failure_threshold", "2")
    monkeypatch.setenv("RAY_health_check_period_ms", "500")
    made = cluster_utils.Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    yield made
    made.shutdown()


def test_a_node_is_killed(cluster, tmp_path: Path) -> None:
    """Its trial is given to another node; nothing is lost, nothing done twice."""
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    sweeps = Sweeps(tmp_path)
    options = ("--engine", "ray", "--address", cluster.address)
    process = sweeps.start({0.1: "hang once"}, *options)
