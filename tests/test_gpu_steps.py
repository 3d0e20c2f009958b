"""`make gpu`: its steps, run on a CPU with small settings; what is written, skipped and resumed."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import torch

from helpers import ROOT
from sqzexplore import provenance
from sqzexplore.cli import measuring

SCRIPT = ROOT / "benchmarks" / "gpu.py"
SMALL = ("--dtype", "float32", "--mode", "eager", "--seconds", "0.02", "--input-size", "40")


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    place = importlib.util.spec_from_file_location("gpu_steps", SCRIPT)
    module = importlib.util.module_from_spec(place)
    sys.modules["gpu_steps"] = module
    place.loader.exec_module(module)
    return module


def invoke(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "CIFAR10"}
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=environment,
    )


def test_the_list_says_what_is_done_within_8_15_and_25_minutes(gpu: ModuleType) -> None:
    done = invoke("--list")
    assert done.returncode == 0
    names = [line.split()[0] for line in done.stdout.splitlines()[1:]]
    assert names == [step.name for step in gpu.STEPS]
    sums, total = {}, 0
    for step in gpu.STEPS:
        total += step.budget_s
        sums[step.name] = total / 60
    assert sums["throughput"] <= 8
    assert sums["late"] <= 15
    assert sums["throughput-compiled"] <= 25


def test_every_step_names_files_that_exist(gpu: ModuleType) -> None:
    for step in gpu.STEPS:
        for word in step.command.split():
            if word.endswith((".py", ".yaml")):
                assert (ROOT / word).is_file(), step.name
        needs = any(word in step.command for word in ("CIFAR10", "sweeps/cifar10", "training.py"))
        assert needs == step.cifar10
    assert {"tests/measure/test_throughput.py", "tests/network/test_inference.py"} <= set(
        gpu.tests()
    )


def test_every_setting_is_one_that_a_gpu_can_be_measured_at(gpu: ModuleType) -> None:
    asked = 0
    for step in gpu.STEPS:
        words = step.command.split()
        pairs = {
            a.removeprefix("--"): b for a, b in itertools.pairwise(words) if a.startswith("--")
        }
        lists = {name: pairs[name] for name in ("batch", "dtype", "form", "mode") if name in pairs}
        if lists and "seconds" in pairs:  # of throughput
            measuring.parse(lists, float(pairs["seconds"]), torch.device("cuda", 0))
            asked += 1
    assert asked == 10


@pytest.fixture
def run(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """The command in this process: its exit code, standard output and error."""
    monkeypatch.setattr(gpu.signal, "signal", lambda *handler: None)
    monkeypatch.delenv("CIFAR10", raising=False)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gpu.py", *map(str, arguments)])
        return gpu.main(), *capsys.readouterr()

    return run


def test_a_step_writes_is_skipped_and_goes_on(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    only = ("--device", "cpu", "--out", tmp_path, "--only", "throughput", "--minutes", 4)
    one = ("--", *SMALL, "--network", "squeezenet1_1")
    code, done, errors = run(*only, *one, "--batch", "1")
    assert (code, errors) == (0, "")
    assert "done after" in done
    first = pd.read_csv(tmp_path / "benchmark.csv")
    assert f"benchmark.csv: {len(first) + 1:+} lines" in done
    assert set(first["batch"]) == {1}
    # The baseline stands first and last, and both speeds beside it.
    assert first["again"].tolist() == [False] * (len(first) - 1) + [True]
    assert first["definition"].iloc[0] == first["definition"].iloc[-1]
    assert (first["sustained_images_per_s"] > 0).all()
    assert (first["sustained_vs_baseline"] > 0).all()
    assert set(first["git_commit"]) == {provenance.git_commit()}
    assert json.loads((tmp_path / "steps.json").read_text())["throughput"]["git_commit"]

    assert run(*only, *one, "--batch", "1") == (0, "throughput: there already\n", "")

    # Another command: it goes on where the table is.
    code, _, errors = run(*only, *one, "--batch", "1,2")
    assert (code, errors) == (0, "")
    log = (tmp_path / "log" / "throughput.txt").read_text()
    assert "squeezenet1_1, batch 1: there already" in log
    assert "squeezenet1_1, batch 2: done" in log
    both = pd.read_csv(tmp_path / "benchmark.csv")
    pd.testing.assert_frame_equal(both[both["batch"] == 1], first)
    assert (both["batch"] == 2).sum() == len(first)


def test_a_step_that_fails_is_named_and_the_others_run(
    gpu: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "import sys; print('said'); sys.exit({code})"
    steps = [
        gpu.Step("bad", 20, f'-c "{said.format(code=3)}"', "{out}/none.csv"),
        gpu.Step("needy", 20, "-c pass", "{out}/none.csv", cifar10=True),
        gpu.Step("good", 20, "-c pass", "{out}/none.csv"),
    ]
    os.environ.pop("CIFAR10", None)
    runs = gpu.Runs(options(gpu, tmp_path))
    assert runs.all(steps) == ["bad"]
    shown = capsys.readouterr().out
    assert "| said" in shown
    assert "exit code 3" in shown
    assert "needy: skipped, CIFAR10 is not set" in shown
    assert list(runs.record.done) == ["good"]


def test_what_is_unfinished_has_the_time_that_is_left(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that goes on: 2 s of work of which its budget allows 1; then the rest, to the end."""
    work = "import time\nn = open('{out}/n', 'a')\n"
    work += "while n.tell() < 20: time.sleep(0.1); n.write('.'); n.flush()"
    steps = [
        gpu.Step("long", 1, f'-c "{work}"', "{out}/n"),
        gpu.Step("short", 20, "-c pass", "{out}/n"),
    ]
    order: list[str] = []
    runs = gpu.Runs(options(gpu, tmp_path))
    one = runs.one
    monkeypatch.setattr(runs, "one", lambda step, s: order.append(step.name) or one(step, s))
    assert runs.all(steps) == []
    assert order == ["long", "short", "long"]
    assert set(runs.record.done) == {"long", "short"}
    assert (tmp_path / "n").read_text() == "." * 20
    # Done at one commit, the second is to be done at another too.
    monkeypatch.setattr(gpu.provenance, "git_commit", lambda: "another")
    steps = [steps[0], dataclasses.replace(steps[1], each_commit=True)]
    assert [step.name for step in steps if gpu.Runs(options(gpu, tmp_path)).is_wanted(step)] == [
        "short"
    ]
    # Of a new call whose time is over nothing is begun.
    late = gpu.Runs(options(gpu, tmp_path / "late", minutes=0.01))
    assert late.all(steps) == []
    assert not late.record.done


def test_a_step_whose_time_is_over_ends_with_what_it_started(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not listen to an interrupt, and neither does its child."""
    monkeypatch.setattr(gpu, "GRACE_S", 0.5)
    deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    child = f"{deaf} print('child', flush=True); time.sleep(100)"
    parent = f"import os, subprocess, sys; {deaf}"
    parent += f"p = subprocess.Popen([sys.executable, '-c', {child!r}]); "
    parent += f"open({str(tmp_path / 'pid')!r}, 'w').write(str(p.pid)); time.sleep(100)"
    assert gpu.run([sys.executable, "-c", parent], tmp_path / "log", 3.0) is None
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 20
    while is_running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def options(gpu: ModuleType, out: Path, minutes: float | None = None) -> object:
    class Options:
        device, sweeps, more = "cpu", out, ()

    Options.out, Options.minutes = out, minutes
    return Options


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--only", "level"], "--only: found 'level', expected one of checks"),
        (["--device", "cpu", "--minutes", "-1"], "--minutes: found -1.0"),
        (["--device", "cpu", "--", "--batch", "1"], "expected one step as --only"),
        (["--device", "tpu"], "--device: found 'tpu'"),
    ],
)
def test_a_wrong_command_is_one_message(
    arguments: list[str],
    expected: str,
    run: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
) -> None:
    code, out, errors = run("--out", tmp_path / "out", *arguments)
    assert (code, out) == (2, "")
    assert expected in errors
    assert len(errors.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    done = invoke("--out", tmp_path / "out")
    assert done.returncode == 2
    assert "no CUDA device here" in done.stderr


def test_make_runs_in_an_environment_that_is_there() -> None:
    """Without a virtual environment, its interpreter, or an installation of this package."""
    environment = {"PY": "python3", "PYTHONPATH": "/elsewhere"}

    def make(*arguments: str) -> str:
        command, variables = ["make", *arguments], os.environ | environment
        for name in ("MAKELEVEL", "MAKEFLAGS", "MFLAGS"):  # of the make that runs the tests
            variables.pop(name, None)
        return subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=ROOT, env=variables
        ).stdout

    assert make("-n", "gpu", "MINUTES=8") == "python3 benchmarks/gpu.py --minutes 8\n"
    database = make("-pn", "gpu")
    assert f"PYTHONPATH := {ROOT}/src:/elsewhere" in database
