"""Where a number comes from, also in a copy that is neither installed nor a git checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import sqzexplore as sqz
from helpers import ROOT
from helpers.processes import QUICK
from helpers.sweeps import Quiet
from sqzexplore import provenance
from sqzexplore.results.folder import load_results
from sqzexplore.spec.load import parse_spec
from sqzexplore.sweep.run import run_sweep

#: Says version and commit where no metadata knows the package.
SAID = """
import importlib.metadata
known = importlib.metadata.version
def version(name):
    if name == "sqzexplore":
        raise importlib.metadata.PackageNotFoundError(name)
    return known(name)
importlib.metadata.version = version
from sqzexplore import provenance
print(provenance.version(), provenance.git_commit() or "none")
"""


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    provenance.git_commit.cache_clear()
    yield
    provenance.git_commit.cache_clear()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package alone, as it travels to another machine."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src" / "sqzexplore", tmp_path / "src" / "sqzexplore", ignore=ignored)
    return tmp_path


def said(copy: Path, **variables: str) -> list[str]:
    """Version and commit as the copy knows them."""
    environment = os.environ | {"PYTHONPATH": str(copy / "src")} | variables
    done = subprocess.run(
        [sys.executable, "-c", SAID],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        cwd=copy,
    )
    return done.stdout.split()


def test_a_copy_is_told_its_commit(copy: Path) -> None:
    assert said(copy, SQZEXPLORE_COMMIT="") == [sqz.__version__, "none"]
    assert said(copy, SQZEXPLORE_COMMIT="abc123") == [sqz.__version__, "abc123"]


def test_a_checkout_knows_better(copy: Path) -> None:
    def git(*arguments: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        command = ["git", "-C", copy, *who, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "all")
    commit = git("rev-parse", "HEAD")
    assert said(copy, SQZEXPLORE_COMMIT="abc123") == [sqz.__version__, commit]
    with (copy / "src" / "sqzexplore" / "provenance.py").open("a") as file:
        file.write("\n")
    assert said(copy, SQZEXPLORE_COMMIT="abc123")[1] == f"{commit}-dirty"


def test_a_commit_made_meanwhile_is_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs is the code that was loaded when the sweep began."""
    commit = ["loaded"]
    monkeypatch.setattr(provenance, "_commit_of", lambda package: commit[-1])

    class Meanwhile(Quiet):
        def start(self, *planned: float) -> None:
            commit.append("later")

    run_sweep(parse_spec(QUICK), tmp_path, torch.device("cpu"), Meanwhile())
    assert commit == ["loaded", "later"]
    assert set(load_results(tmp_path)["git_commit"]) == {"loaded"}
    assert json.loads((tmp_path / "provenance.json").read_text())["git_commit"] == "loaded"


def test_the_version_stands_in_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert "version" not in project["project"]
    place = ROOT / project["tool"]["hatch"]["version"]["path"]
    assert f'__version__ = "{sqz.__version__}"' in place.read_text()


def test_a_cpu_has_no_gpus_state() -> None:
    assert not any(name.startswith("gpu_") for name in provenance.of_sweep("cpu"))
