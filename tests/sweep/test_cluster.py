"""What docs/cluster.md says to type: the proxy, SLURM's script, the dashboard."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import optuna
import pytest

from helpers import ROOT, servers
from sqzexplore.errors import UserError
from sqzexplore.results.folder import load_results
from sqzexplore.sweep.storage.open import open_database, open_storage

pytestmark = pytest.mark.slow

SCRIPT = ROOT / "sweeps" / "slurm.sh"
COSTS = "name: costs\nspace: {squeeze_ratio: [0.25, 0.5]}\nfigures: []\n"
LONG = f"{COSTS}measure: {{throughput: {{processes: 1, batch: [1], seconds: 300}}}}\n"


def without_password(url: str) -> str:
    return url.replace(f":{servers.ENCODED}@", "@")


@pytest.mark.parametrize("way", ["PGPASSWORD", "PGPASSFILE"])
def test_the_password_outside_the_url(
    way: str, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = without_password(database)
    with pytest.raises(UserError, match="no password supplied"):
        open_database(url)
    secret = servers.PASSWORD
    if way == "PGPASSFILE":  # where the file is, if not at ~/.pgpass
        passwords = tmp_path / "pgpass"
        passwords.write_text(f"127.0.0.1:*:*:{servers.USER}:{secret}\n")
        passwords.chmod(0o600)
        secret = str(passwords)
    monkeypatch.setenv(way, secret)
    assert open_database(url).get_all_studies() == []


def test_the_documented_command_starts_a_proxy(database: str, tmp_path: Path) -> None:
    lines = (ROOT / "docs" / "cluster.md").read_text().splitlines()
    [line] = [line.strip() for line in lines if "run_grpc_proxy_server" in line]
    port = servers.free_port()
    line = line.replace("postgresql+psycopg://sqz@db.example.org/sqz", without_password(database))
    line = line.replace("13000", str(port)).replace("0.0.0.0", "127.0.0.1")
    command = shlex.split(line)
    assert command[0] == "python"
    environment = os.environ | {"PGPASSWORD": servers.PASSWORD}
    proxy = servers.guarded([sys.executable, *command[1:]], tmp_path / "log", env=environment)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                storage = open_database(f"grpc://127.0.0.1:{port}")
                break
            except UserError:
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()
        optuna.create_study(study_name="s", storage=storage)
    finally:
        servers.stop(proxy)
    assert [study.study_name for study in open_database(database).get_all_studies()] == ["s"]


# --- SLURM -------------------------------------------------------------------------------------


def task(tmp_path: Path, text: str) -> subprocess.Popen[str]:
    """One task of SLURM's array; of `scontrol` there is one that notes what it is asked."""
    spec = tmp_path / "spec.yaml"
    spec.write_text(text)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" >>{shlex.quote(str(tmp_path))}/asked\n')
    (tools / "scontrol").chmod(0o755)
    slurm = {"SLURM_JOB_ID": "4242", "SLURM_ARRAY_TASK_ID": "1", "SLURM_CPUS_PER_TASK": "1"}
    environment = os.environ | slurm | {"PYTHON": sys.executable}
    environment["PATH"] = f"{tools}:{os.environ['PATH']}"
    command = ["bash", SCRIPT, spec, "--out", tmp_path / "out", "--device", "cpu"]
    return subprocess.Popen(
        list(map(str, command)),
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_task_of_slurm_runs_the_sweep(tmp_path: Path) -> None:
    assert subprocess.run(["bash", "-n", SCRIPT], check=False).returncode == 0
    process = task(tmp_path, COSTS)
    _, message = process.communicate(timeout=120)
    assert process.returncode == 0, message
    assert len(load_results(tmp_path / "out")) == 2
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize(
    ("number", "asked"), [(signal.SIGUSR1, "requeue 4242\n"), (signal.SIGTERM, "")]
)
def test_a_task_of_slurm_whose_time_is_up(number: int, asked: str, tmp_path: Path) -> None:
    """USR1: the time is up, it wants to go on. TERM: it was cancelled."""
    process = task(tmp_path, LONG)
    deadline = time.monotonic() + 60
    while not (tmp_path / "out" / "study.journal").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(number)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 130, message
    assert "run the same command again to resume" in message
    noted = tmp_path / "asked"
    assert (noted.read_text() if noted.exists() else "") == asked


# --- the dashboard -----------------------------------------------------------------------------


def asked_of(address: str) -> Any:
    """What the dashboard says, once it answers."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                return json.load(answer)
        except urllib.error.URLError:
            assert time.monotonic() < deadline, "the dashboard does not answer"
            time.sleep(0.1)


@pytest.mark.parametrize("kind", ["journal", "postgresql"])
def test_the_dashboard_shows_the_study(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if importlib.util.find_spec("optuna_dashboard") is None:
        pytest.skip("optuna-dashboard is not installed")
    url = request.getfixturevalue("database") if kind == "postgresql" else None
    storage = open_storage(tmp_path, url, create=True)
    study = optuna.create_study(study_name="sr", storage=storage, directions=["maximize"])
    study.add_trials([optuna.trial.create_trial(value=value) for value in (0.5, 0.75)])
    place = without_password(url) if url else tmp_path / "study.journal"
    port = servers.free_port()
    command = [Path(sys.executable).parent / "optuna-dashboard", place, "--port", port]
    environment = os.environ | {"PGPASSWORD": servers.PASSWORD}
    dashboard = servers.guarded(command, tmp_path / "log", env=environment)
    address = f"http://127.0.0.1:{port}/api/studies"
    try:
        [listed] = asked_of(address)["study_summaries"]
        trials = asked_of(f"{address}/{listed['study_id']}?after=0")["trials"]
    finally:
        servers.stop(dashboard)
    assert listed["study_name"] == "sr"
    assert [trial["values"] for trial in trials] == [[0.5], [0.75]]
