"""The sweep: resumed after a kill, repeatable, alone in its folder, honest about failures."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import optuna
import pandas as pd
import pytest
import torch

import sqzexplore as sqz
from helpers import Run
from helpers.command_line import Started
from helpers.sweeps import SMALL, SMALL_BASE, UNTIMED, Quiet, run
from sqzexplore.data import images
from sqzexplore.errors import UserError
from sqzexplore.evaluation import bench, rows, tasks, workload
from sqzexplore.evaluation.bench import Bench
from sqzexplore.executors.processes import usable_cores
from sqzexplore.results.folder import load_results
from sqzexplore.results.tables import TABLES
from sqzexplore.spec.load import parse_spec
from sqzexplore.sweep.run import run_sweep
from sqzexplore.sweep.trial_tables import Record
from sqzexplore.train import loop
from sqzexplore.train.recipe import Recipe

#: A measurement of speed takes longer than a training, and few tests look at one.
ONE_BATCH = SMALL.replace("batch: [1, 2]", "batch: [1]")
CLAIMED = SMALL + "claims: [{say: x, compare: {squeeze_ratio: [0.25, 1.0]}, expect: higher}]\n"
RATIOS = ("[0.25, 1.0]", "[0.25, 0.5, 0.75, 1.0]")
FOUR = ONE_BATCH.replace(*RATIOS)
#: The command line where no file grows beyond 6 kB; worker processes import this file too.
LIMITED = """\
import resource
import signal

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
if __name__ == "__main__":
    from sqzexplore.cli.app import main

    main()
"""
COST_ONLY = """\
name: costs
space:
  squeeze_ratio: [0.25, 0.5, 1.0]
  bypass: [none, simple, complex]
constraints: ["params < 2e6 or bypass == 'none'"]
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Quiet]:
    """A finished sweep, to be looked at or copied, and what its progress was told."""
    folder = tmp_path_factory.mktemp("small")
    return folder, run(CLAIMED, folder)[1]


def stored(folder: Path) -> optuna.Study:
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "study.journal"))
    journal = optuna.storages.JournalStorage(backend)
    return optuna.load_study(study_name=None, storage=journal)


def test_a_sweep_from_the_command_line(small_spec: Path, tmp_path: Path, sqz) -> None:
    done = sqz("sweep", small_spec, "--device", "cpu", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "small"
    ends = re.findall(r"\[([12])/2\] squeeze_ratio (.*): complete", done.stdout)
    assert [number for number, _ in ends] == ["1", "2"]
    assert {ratio for _, ratio in ends} == {"0.25", "1.0"}  # whichever of two workers is first
    assert "AlexNet" in done.stdout
    assert "61,100,840" in done.stdout
    assert "a proxy, not ImageNet: digits" in done.stdout
    for name in ("top1-train_size_mb", "top1-train_macs", "images_per_s-macs"):
        assert (folder / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert (folder / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    table = load_results(folder)
    assert table["state"].tolist() == ["complete", "complete"]
    assert table["trial"].tolist() == [0, 1]
    assert table["seeds"].tolist() == [2, 2]
    assert table["batch"].tolist() == [2, 2]
    assert set(table["device"]) == {"cpu"}
    assert table["latency_ms_p50"].le(table["latency_ms_p99"]).all()
    speed = load_results(folder, "throughput")
    assert speed["batch"].tolist() == [1, 2, 1, 2]
    assert table["train_threads"].tolist() == [1, 1]
    assert json.loads((folder / "provenance.json").read_text())["workers"] == len(usable_cores())
    expected = speed["batch"] / speed["latency_ms_p50"] * 1e3
    assert (speed["images_per_s"] - expected).abs().max() < 1e-6
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["packages"]["torch"] == torch.__version__
    assert not (folder / "partial").exists()
    again = sqz("results", folder, "--json")
    assert [row["arch_id"] for row in json.loads(again.stdout)] == table["arch_id"].tolist()


def test_costs_in_the_table_are_of_the_networks_they_name(tmp_path: Path) -> None:
    text = re.sub(r"(base|input_size): .*\n", "", UNTIMED)
    run(text.replace("seeds: 2", "seeds: 1"), tmp_path)
    row = load_results(tmp_path).iloc[1]
    deployed = sqz.Architecture(squeeze_ratio=1.0)
    assert row["params"] == sum(p.numel() for p in sqz.build(deployed).parameters())
    trained = deployed.replace(
        width_multiplier=0.1, bypass="complex", in_channels=1, num_classes=10
    )
    assert row["train_params"] == sum(p.numel() for p in sqz.build(trained).parameters())
    assert row["train_macs"] == sqz.cost(trained, 32).macs
    assert row["arch_id"] == deployed.arch_id
    assert row["live_params"] == row["params"]  # at 224 pixels no tap meets padding alone
    dead = sum(8 * f.squeeze * f.expand3x3 for f in trained.fire_stages() if f.layer == 9)
    assert row["train_live_params"] == row["train_params"] - dead < row["train_params"]


def test_the_same_seeds_give_the_same_numbers(small: tuple[Path, Quiet], tmp_path: Path) -> None:
    run(UNTIMED, tmp_path)
    for table in ("seeds", "history", "images"):
        a, b = (load_results(folder, table) for folder in (small[0], tmp_path))
        columns = [name for name in a if name != "duration_s"]
        pd.testing.assert_frame_equal(a[columns], b[columns])
    seeds = load_results(tmp_path, "history")
    assert seeds.groupby("arch_id")["train_loss"].nunique().tolist() == [2, 2]


def test_killed_half_way_and_run_again(tmp_path: Path) -> None:
    """SIGKILL at two moments; in the end every architecture once, as if undisturbed."""
    spec, folder = tmp_path / "four.yaml", tmp_path / "out"
    spec.write_text(FOUR)
    for kept in (1, 4):
        process = Started("sweep", spec, "--out", folder)
        deadline = time.monotonic() + 120
        while len(before := _runs(folder)) < kept:
            assert time.monotonic() < deadline, "it trains nothing"
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert 4 <= len(before) < 8, "it was not half way"
    assert len(_runs(folder)) < 8, "it was not half way"
    run(FOUR, folder)
    table = load_results(folder)
    assert sorted(table["squeeze_ratio"]) == [0.25, 0.5, 0.75, 1.0]
    assert table["arch_id"].is_unique
    assert table["trial"].tolist() == [0, 1, 2, 3]
    trials = stored(folder).trials
    assert [t.state for t in trials] == [optuna.trial.TrialState.COMPLETE] * 4
    run(UNTIMED.replace(*RATIOS), tmp_path / "undisturbed")
    seeds, expected = load_results(folder, "seeds"), load_results(tmp_path / "undisturbed", "seeds")
    assert seeds["top1"].tolist() == expected["top1"].tolist()
    merged = before.merge(seeds, on=RUN)
    assert len(merged) == len(before), "what was measured before the kill was measured again"


#: What tells one training from another of the same.
RUN = ["arch_id", "seed", "duration_s"]


def _runs(folder: Path) -> pd.DataFrame:
    """The trainings that are safe on disk: of whole trials, and of others."""
    rows = []
    if (folder / "seeds.parquet").exists():
        rows = pd.read_parquet(folder / "seeds.parquet")[RUN].to_dict("records")
    for file in folder.glob("partial/*.json"):
        try:
            run = json.loads(file.read_text())["run"]
        except (FileNotFoundError, json.JSONDecodeError, KeyError):
            continue
        rows.append({"arch_id": file.name.split("-")[0], **{name: run[name] for name in RUN[1:]}})
    return pd.DataFrame(rows, columns=RUN).drop_duplicates(ignore_index=True)


def test_killed_while_it_writes_to_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sqz: Run
) -> None:
    """SIGKILL with the journal's lock held; the default folder is a relative path."""
    monkeypatch.chdir(tmp_path)
    folder = Path("results") / "costs"
    folder.mkdir(parents=True)
    (folder / "study.journal.lock").symlink_to(folder / "study.journal")  # what Optuna's leaves
    killed = f"""
import os, signal
from pathlib import Path
from sqzexplore.sweep.storage.open import open_storage
open_storage(Path({str(folder)!r}), None, create=True)._backend._lock.acquire()
os.kill(os.getpid(), signal.SIGKILL)
"""
    process = subprocess.run([sys.executable, "-c", killed], check=False, timeout=60)
    assert process.returncode == -signal.SIGKILL
    Path("costs.yaml").write_text(COST_ONLY)
    done = sqz("sweep", "costs.yaml", "--device", "cpu", timeout=60)
    assert done.returncode == 0, done.stderr
    assert "acquire the lock" not in done.stderr, "it waited"
    assert len(load_results(folder)) == 4


def test_an_interrupt_says_how_to_resume(tmp_path: Path, sqz) -> None:
    spec, folder = tmp_path / "four.yaml", tmp_path / "out"
    spec.write_text(FOUR)
    process = Started("sweep", spec, "--out", folder)
    while _runs(folder).empty:
        assert process.poll() is None, "it ended before it trained"
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command again to resume" in message
    assert "Traceback" not in message
    assert sqz("results", folder).returncode == 0


@pytest.mark.parametrize("search", ["", "search: {sampler: random, trials: 4}\n"])
def test_an_interrupt_while_the_study_is_read_takes_no_row(
    search: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(COST_ONLY + search, tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.glob("trials.*")}
    real, taken = Record.take, []

    def interrupted(record: Record, trial: optuna.trial.FrozenTrial) -> object:
        if len(taken) == 2:
            raise KeyboardInterrupt
        taken.append(trial)
        return real(record, trial)

    monkeypatch.setattr(Record, "take", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(COST_ONLY + search, tmp_path)
    assert {p: p.read_bytes() for p in tmp_path.glob("trials.*")} == before


def test_two_processes_at_once(tmp_path: Path, sqz) -> None:
    spec, folder = tmp_path / "long.yaml", tmp_path / "out"
    text = FOUR + "search: {objectives: {images_per_s: maximize}}\n"
    spec.write_text(text.replace("epochs: 1", "epochs: 1000"))
    first = Started("sweep", spec, "--out", folder)
    while not (folder / "study.journal").exists():
        time.sleep(0.02)
    second = sqz("sweep", spec, "--out", folder)
    still_running = first.poll() is None
    first.kill()
    first.wait()
    assert still_running
    assert second.returncode == 2
    assert "another process measures throughput for this sweep on this machine" in second.stderr


def test_a_changed_spec_is_refused_with_what_changed(tmp_path: Path) -> None:
    run(COST_ONLY, tmp_path)
    before = sorted((p, p.stat().st_mtime_ns) for p in tmp_path.iterdir())
    changed = COST_ONLY.replace("[0.25, 0.5, 1.0]", "[0.25, 0.5, 0.75]") + "input_size: 128\n"
    with pytest.raises(UserError) as caught:
        run(changed, tmp_path)
    message = str(caught.value)
    assert "input_size: 224 -> 128" in message
    assert "space.squeeze_ratio: [0.25, 0.5, 1.0] -> [0.25, 0.5, 0.75]" in message
    with pytest.raises(UserError, match=r"squeeze_ratio: .*1\.0\] -> \[0\.25, 0\.5, 0\.75\]"):
        run(COST_ONLY.replace("[0.25, 0.5, 1.0]", "[0.25, 0.5, 0.75]"), tmp_path)
    assert sorted((p, p.stat().st_mtime_ns) for p in tmp_path.iterdir()) == before
    run(COST_ONLY + "question: Only the words change?\n", tmp_path)


def test_a_grid_is_the_feasible_combinations(tmp_path: Path) -> None:
    outcome, progress = run(COST_ONLY, tmp_path)
    assert outcome.complete == len(progress.rows) == progress.trials
    expected = {
        (ratio, bypass)
        for ratio in (0.25, 0.5, 1.0)
        for bypass in ("none", "simple", "complex")
        if bypass == "none"
        or sum(
            p.numel()
            for p in sqz.build(sqz.Architecture(squeeze_ratio=ratio, bypass=bypass)).parameters()
        )
        < 2e6
    }
    table = load_results(tmp_path)
    assert set(zip(table["squeeze_ratio"], table["bypass"], strict=True)) == expected
    study_ = stored(tmp_path)
    assert [t.params["squeeze_ratio"] for t in study_.trials] == table["squeeze_ratio"].tolist()
    assert [t.values[1] for t in study_.trials] == table["params"].tolist()


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe", "nsga2", "nsga3", "gp"])
def test_a_search_evaluates_nothing_twice_and_nothing_infeasible(
    sampler: str, tmp_path: Path
) -> None:
    text = f"""
name: search
space:
  squeeze_ratio: {{min: 0.1, max: 1.0}}
  base_expand: {{min: 32, max: 64, step: 32}}
  fraction_3x3: {{min: 0.1, max: 0.3, step: 0.1}}
  bypass: [none, complex]
constraints: ["params < 4e6"]
search:
  sampler: {sampler}
  trials: 12
  seed: 3
  objectives: {{macs: minimize, params: maximize}}
"""
    run(text, tmp_path / "whole")
    table = load_results(tmp_path / "whole")
    assert len(table) == 12
    assert table["arch_id"].is_unique
    assert (table["params"] < 4e6).all()
    assert set(table["fraction_3x3"]) <= {0.1, 0.2, 0.3}

    spec = parse_spec(text)
    told = iter(range(5))

    class Stop(Quiet):
        def trial(self, row: dict, number: int, trials: int) -> None:
            if next(told, None) is None:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(spec, tmp_path / "parts", torch.device("cpu"), Stop())
    run(text, tmp_path / "parts")
    resumed = load_results(tmp_path / "parts")
    assert resumed["arch_id"].tolist() == table["arch_id"].tolist()


def test_a_search_of_a_small_space_ends(tmp_path: Path) -> None:
    text = COST_ONLY + "search: {sampler: random, trials: 50}\n"
    run(text, tmp_path)
    assert len(load_results(tmp_path)) == 4


def test_a_diverged_run_is_recorded_as_diverged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, real = ONE_BATCH, loop.Training

    def poisoned(architecture, data, recipe, seed, *rest):
        mean = data.mean * (math.nan if seed == 1 else 1.0)
        return real(architecture, replace(data, mean=mean), recipe, seed, *rest)

    monkeypatch.setattr(loop, "Training", poisoned)
    outcome, _ = run(text, tmp_path)
    assert (outcome.complete, outcome.diverged) == (0, 2)
    table, seeds = load_results(tmp_path), load_results(tmp_path, "seeds")
    assert table["state"].tolist() == ["diverged", "diverged"]
    assert table["diverged_seeds"].tolist() == [1, 1]
    assert table["top1"].isna().all()
    assert seeds["diverged"].tolist() == [False, True, False, True]
    assert seeds["top1"].isna().tolist() == [False, True, False, True]
    assert run(text, tmp_path)[0].diverged == 2

    def no_json(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    for line in (tmp_path / "study.journal").read_text().splitlines():
        json.loads(line, parse_constant=no_json)


def test_a_failing_trial_does_not_stop_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(architecture, *rest):
        if architecture.squeeze_ratio == 0.25:
            raise torch.OutOfMemoryError("no room\nfor it")
        return real(architecture, *rest)

    real = bench.lead
    monkeypatch.setattr(bench, "lead", failing)
    spec = tmp_path / "small.yaml"
    spec.write_text(ONE_BATCH)
    outcome, _ = run(ONE_BATCH, tmp_path / "out")
    table = load_results(tmp_path / "out")
    assert table["state"].tolist() == ["failed", "complete"]
    assert table["error"][0] == "OutOfMemoryError: no room for it"
    assert table["params"].notna().all()
    assert outcome.complete == 1
    assert "no room" in outcome.failures[0]

    from typer.testing import CliRunner

    from sqzexplore.cli.app import app

    done = CliRunner().invoke(app, ["sweep", str(spec), "--out", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert "no room for it" in done.output


def test_a_full_disk_loses_nothing(tmp_path: Path, sqz: Run) -> None:
    """The process may write files of 6 kB at most; then the limit is lifted."""
    spec, program, folder = (tmp_path / name for name in ("four.yaml", "limited.py", "out"))
    text = UNTIMED.replace(*RATIOS)
    spec.write_text(text)
    program.write_text(LIMITED)
    done = sqz("sweep", spec, "--out", folder, program=program, timeout=120)
    assert done.returncode == 1
    assert "run the same command again to resume" in done.stderr
    assert "Traceback" not in done.stderr
    hidden = {p.name for p in folder.rglob("*") if p.name.startswith(".")}
    assert hidden <= {".lock", ".journal.lock", f".measuring-{socket.gethostname()}"}
    run(text, folder)
    table = load_results(folder)
    assert sorted(table["squeeze_ratio"]) == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--device", "gpu"], "expected auto, cpu, cuda or cuda:N"),
        (["--device", "cpu:3"], "expected auto, cpu, cuda or cuda:N"),
        (["--device", "cuda:99"], "no CUDA device here"),
        (["--workers", "0"], "--workers"),
        (["--storage", "nosuchdb://x"], "--storage"),
    ],
)
def test_bad_options_write_nothing(arguments, expected, small_spec, tmp_path, sqz) -> None:
    done = sqz("sweep", small_spec, *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [small_spec]


def test_data_that_is_not_there_writes_nothing(tmp_path: Path, sqz) -> None:
    spec = tmp_path / "small.yaml"
    spec.write_text(SMALL.replace("data: digits", 'data: "${NO_SUCH_VARIABLE}"'))
    for verb in ("sweep", "validate"):
        done = sqz(verb, spec, cwd=tmp_path)
        assert done.returncode == 2
        assert "measure.accuracy.data: ${NO_SUCH_VARIABLE}: the environment" in done.stderr
    assert list(tmp_path.iterdir()) == [spec]


def test_other_images_in_the_same_folder_are_refused(
    small: tuple[Path, Quiet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(small[0], tmp_path, dirs_exist_ok=True)
    before = (tmp_path / "trials.csv").read_bytes()
    real = images.load

    def other(source, *rest):
        return replace(real(source, *rest), sha256="0" * 16)

    monkeypatch.setattr(images, "load", other)
    with pytest.raises(UserError, match="holds the results of other images: digits"):
        run(CLAIMED, tmp_path)
    assert (tmp_path / "trials.csv").read_bytes() == before


def test_out_that_is_a_file(small_spec: Path, tmp_path: Path, sqz) -> None:
    done = sqz("sweep", small_spec, "--out", small_spec)
    assert done.returncode == 2
    assert "found a file, expected a folder" in done.stderr
    if os.geteuid() != 0:
        tmp_path.chmod(0o500)
        assert sqz("sweep", small_spec, "--out", tmp_path / "x").returncode == 2


def test_a_database_holds_the_study(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    spec = parse_spec(COST_ONLY)
    run_sweep(spec, tmp_path / "out", torch.device("cpu"), Quiet(), url)
    loaded = optuna.load_study(study_name="costs", storage=url)
    table = load_results(tmp_path / "out")
    assert [t.user_attrs["row"]["arch_id"] for t in loaded.trials] == table["arch_id"].tolist()
    assert not (tmp_path / "out" / "study.journal").exists()


@pytest.mark.parametrize("began", ["database", "journal"])
def test_tables_of_a_study_that_is_not_here_are_kept(began: str, tmp_path: Path) -> None:
    """As with a forgotten `--storage`: a new study would write its own few rows over them."""
    urls = {"database": f"sqlite:///{tmp_path / 'study.db'}", "journal": None}
    asked = {"database": "the --storage that it began with", "journal": "no --storage, for study"}
    expected = f"holds 4 trials of a study that is not here; expected {asked[began]}"
    spec, folder, cpu = parse_spec(COST_ONLY), tmp_path / "out", torch.device("cpu")
    run_sweep(spec, folder, cpu, Quiet(), urls[began])
    before = {p: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    for url in {*urls.values(), f"sqlite:///{tmp_path / 'empty.db'}"} - {urls[began]}:
        with pytest.raises(UserError, match=expected):
            run_sweep(spec, folder, cpu, Quiet(), url)
    assert {p: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before
    run_sweep(spec, folder, cpu, Quiet(), urls[began])
    assert len(load_results(folder)) == 4


def test_a_study_of_the_same_name_and_another_spec_is_not_joined(tmp_path: Path) -> None:
    url, cpu = f"sqlite:///{tmp_path / 'study.db'}", torch.device("cpu")
    run_sweep(parse_spec(COST_ONLY), tmp_path / "a", cpu, Quiet(), url)
    other = parse_spec(COST_ONLY.replace("2e6", "3e6"))
    with pytest.raises(UserError, match=r"--storage: holds a study costs of another spec.*\n.*3e6"):
        run_sweep(other, tmp_path / "b", cpu, Quiet(), url)
    assert not (tmp_path / "b").exists()
    run_sweep(parse_spec(COST_ONLY), tmp_path / "c", cpu, Quiet(), url)
    assert len(load_results(tmp_path / "c")) == 4
    run_sweep(parse_spec(COST_ONLY), tmp_path / "d", cpu, Quiet())
    (tmp_path / "d" / "spec.yaml").unlink()
    with pytest.raises(UserError, match=r"study.journal: holds a study .* of another spec"):
        run_sweep(other, tmp_path / "d", cpu, Quiet())


def test_every_column_is_documented_and_fixed_ones_are_there(small: tuple[Path, Quiet]) -> None:
    folder, _ = small
    two = [SMALL_BASE.replace(squeeze_ratio=ratio) for ratio in (0.25, 1.0)]
    networks = {architecture.arch_id: architecture.net_id for architecture in two}
    for name, columns in TABLES.items():
        assert all(column.meaning for column in columns.values())
        # Of a prediction, or what not every sweep asks for: tests of their own look at these.
        if name in ("audit", "audit_curve", "compression", "int8"):
            continue
        frame = load_results(folder, name)
        assert list(frame) == list(columns)
        assert {str(dtype) for dtype in frame.dtypes} <= {"Int64", "Float64", "string", "boolean"}
        text = pd.read_csv(folder / f"{name}.csv", dtype={"pool_after": "string"})
        assert list(text) == list(columns)
        assert len(text) == len(frame)
        if name != "claims":
            assert list(text["net_id"]) == [networks[name] for name in text["arch_id"]]
    fixed = [
        "sweep",
        "trial",
        "state",
        "arch_id",
        "net_id",
        "params",
        "live_params",
        "train_live_params",
        "macs",
        "flops",
        "size_mb",
        "activations",
        "top1",
        "top1_sd",
        "top1_ci_low",
        "top1_ci_high",
        "seeds",
        "epochs",
        "data",
        "device",
        "batch",
        "dtype",
        "images_per_s",
        "latency_ms_p50",
        "latency_ms_p99",
        "sqzexplore_version",
        "git_commit",
        "torch_version",
        "device_name",
        "started_at",
        "duration_s",
    ]
    assert set(fixed) | set(sqz.Architecture.model_fields) <= set(TABLES["trials"])


def test_several_sweeps_in_one_frame(tmp_path: Path) -> None:
    run(COST_ONLY, tmp_path / "a")
    run(COST_ONLY.replace("name: costs", "name: others"), tmp_path / "b")
    (tmp_path / "notes").mkdir()
    frame = sqz.load_results(tmp_path / "*")
    assert frame.groupby("sweep").size().to_dict() == {"costs": 4, "others": 4}
    with pytest.raises(UserError, match="expected the folder of a sweep"):
        sqz.load_results(tmp_path / "notes")


def test_the_progress_adds_up(small: tuple[Path, Quiet]) -> None:
    _, progress = small
    assert progress.units == pytest.approx(progress.total)


def test_summary_statistics() -> None:
    """Against a worked example: n = 4, t(0.975, 3) = 3.182446."""
    runs = [
        {"seed": i, "top1": v, "top5": v, "val_top1": v, "diverged": False, "dead": False}
        for i, v in enumerate([90.0, 92.0, 94.0, 92.0])
    ]
    row = rows.summarise(runs, [None] * 4)
    assert row["top1"] == 92.0
    assert row["top1_sd"] == pytest.approx(1.632993, abs=1e-6)
    assert row["top1_ci_low"] == pytest.approx(92 - 3.182446 * 1.632993 / 2, abs=1e-5)
    assert row["top1_ci_high"] == pytest.approx(92 + 3.182446 * 1.632993 / 2, abs=1e-5)
    alone = rows.summarise(runs[:1], [None])
    assert math.isnan(alone["top1_sd"])
    assert math.isnan(alone["top1_ci_low"])


def test_the_sampler_is_told_the_validation_accuracy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class MadeUp:
        net, device_name = None, "made up"  # there is nothing to make smaller

        def __init__(self, architecture, data, recipe, seed, *rest):
            self.seed, self.validation = seed, 40 + 10 * architecture.squeeze_ratio

        def turn(self) -> bool:
            return False

        def run(self) -> loop.Run:
            test, history = 80.0 + self.seed, (loop.Epoch(1, 1.0, self.validation),)
            states = (False, False, False)
            tops = (test, test, self.validation)
            return loop.Run(self.seed, 1, *states, *tops, 0.1, history, {}, test, [])

    monkeypatch.setattr(bench, "lead", MadeUp)
    run(UNTIMED, tmp_path)
    table = load_results(tmp_path)
    assert [t.values[0] for t in stored(tmp_path).trials] == [42.5, 50.0]
    assert table["val_top1"].tolist() == [42.5, 50.0]
    assert table["top1"].tolist() == [80.5, 80.5]


def test_nobody_is_asked_without_a_pruner(tmp_path: Path) -> None:
    """The answer may be another process's, which waits for a lost database."""
    spec = parse_spec(SMALL.replace("seeds: 2", "seeds: 1"))
    data = workload.load_data(spec, torch.device("cpu"))
    asked: list[object] = []
    at_work = Bench(spec, data, torch.device("cpu"), tmp_path)
    task = tasks.Task(0, spec.design_space.architecture(0), "training", 0, 1)
    at_work.add(task, prune=lambda epoch: bool(asked.append(epoch)))
    while not (ended := list(at_work.turn())):
        pass
    ((done, found),) = ended
    assert done == task
    assert found.run["top1"] > 0
    assert asked == []


@pytest.mark.parametrize("pruner", ["halving", "hyperband"])
def test_a_pruner_ends_trainings_that_fall_behind(
    pruner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accuracies made up: architecture i is at 10 * i after every epoch, the best goes first."""
    text = f"""
name: pruned
base: {{width_multiplier: 0.1}}
space: {{squeeze_ratio: [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]}}
search: {{pruner: {pruner}, objectives: {{top1: maximize}}}}
measure:
  accuracy: {{data: digits, epochs: 9, seeds: 2}}
"""
    epochs_run: dict[float, int] = {}

    class MadeUp:
        net, device_name = None, "made up"  # there is nothing to make smaller

        def __init__(self, architecture, data, recipe, seed, on_epoch, unfinished):
            self.ratio, self.seed, self.on_epoch = architecture.squeeze_ratio, seed, on_epoch
            self.history, self.stopped = [], False

        def turn(self) -> bool:
            if self.stopped or len(self.history) == 9:
                return False
            self.history.append(loop.Epoch(len(self.history) + 1, 1.0, 100 * self.ratio))
            epochs_run[self.ratio] = epochs_run.get(self.ratio, 0) + 1
            self.stopped = self.on_epoch(self.history[-1])
            return True

        def run(self) -> loop.Run:
            top1, val_top1 = math.nan if self.stopped else 100 * self.ratio, 100 * self.ratio
            states = (False, False, self.stopped)
            history = tuple(self.history)
            tops = (top1, top1, val_top1)
            return loop.Run(self.seed, 9, *states, *tops, 0.1, history, {}, top1, [])

    monkeypatch.setattr(bench, "lead", MadeUp)
    outcome, progress = run(text, tmp_path)
    table = load_results(tmp_path)
    assert table["state"].value_counts()["pruned"] == outcome.pruned >= 3
    assert table["state"][0] == "complete", "the best"
    pruned = table[table["state"] == "pruned"]
    assert pruned["top1"].isna().all(), "no test split was looked at"
    assert (pruned["val_top1"] == 100 * pruned["squeeze_ratio"]).all()
    assert pruned["epochs"].tolist() == [epochs_run[r] for r in pruned["squeeze_ratio"]]
    assert sum(epochs_run.values()) < 0.7 * 10 * 2 * 9
    assert progress.units == pytest.approx(progress.total)
    history = load_results(tmp_path, "history")
    counted = history.groupby("trial").size()
    assert counted[pruned["trial"]].tolist() == pruned["epochs"].tolist()
    states = [trial.state.name for trial in stored(tmp_path).trials]
    assert states.count("PRUNED") == len(pruned)
    assert run(text, tmp_path)[0].pruned == outcome.pruned


def test_recipe_reaches_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = bench.lead

    def spy(architecture, data, recipe, seed, *rest):
        seen.append((recipe, seed, data.train.images.shape[1]))
        return real(architecture, data, replace(recipe, epochs=1), seed, *rest)

    monkeypatch.setattr(bench, "lead", spy)
    changed = "image_size: 40, epochs: 3, batch_size: 99"
    text = UNTIMED.replace("image_size: 32, epochs: 1, batch_size: 32", changed)
    run(text, tmp_path)
    assert seen[0] == (Recipe(epochs=3, batch_size=99, learning_rate=0.01), 0, 40)
    assert [seed for _, seed, _ in seen] == [0, 1, 0, 1]


def test_damaged_tables_are_named_and_written_anew(tmp_path: Path, sqz) -> None:
    folder = tmp_path / "out"
    run(COST_ONLY, folder)
    for content in (b"", b"garbage", (folder / "trials.parquet").read_bytes()[:500]):
        (folder / "trials.parquet").write_bytes(content)
        with pytest.raises(UserError, match=r"trials.parquet: cannot be read as the table trials"):
            load_results(folder)
    pd.DataFrame({"a": [1]}).to_parquet(folder / "trials.parquet")
    done = sqz("figures", folder)
    assert done.returncode == 2
    assert "it has no column sweep" in done.stderr
    run(COST_ONLY, folder)
    assert len(load_results(folder)) == 4


@pytest.mark.parametrize(
    "content", [b"garbage\n", b"\x00\x01\xff\n", b'{"op_code": 99}\n', b"[1]\n"]
)
def test_a_damaged_study_is_named(content: bytes, tmp_path: Path) -> None:
    run(COST_ONLY, tmp_path)
    journal = tmp_path / "study.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:2], content, *lines[2:]]))
    with pytest.raises(UserError, match=r"study.journal: damaged"):
        run(COST_ONLY, tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "space: {base_expand: {min: 1, max: 99999}, fires: {min: 1, max: 60}}\n",
            "expected at most 1,000,000 for the sampler grid",
        ),
        (
            "space: {squeeze_ratio: {min: 0.1, max: 1.0}}\nconstraints: ['params < 0']\n"
            "search: {sampler: random, trials: 5}\n",
            "none of 100,000 architectures drawn",
        ),
    ],
)
def test_what_would_never_end_is_refused(text: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=expected):
        run("name: endless\n" + text, tmp_path / "out")
    assert not (tmp_path / "out").exists()
