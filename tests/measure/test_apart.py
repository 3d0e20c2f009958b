"""A row measured in several processes: by turns, over them, and when one of them ends."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import optuna
import psutil
import pytest
import torch
from scipy import stats
from typer.testing import CliRunner

import sqzexplore as sqz
from helpers import ROOT
from helpers.children import start, wait_for
from sqzexplore.cli.app import app
from sqzexplore.errors import FeatureMapVanishes, UserError
from sqzexplore.evaluation import bench, tasks, trial
from sqzexplore.measure import apart, statistics
from sqzexplore.measure.apart import Processes, combined, default_processes
from sqzexplore.measure.settings import Settings
from sqzexplore.measure.throughput import Throughput, blank
from sqzexplore.results.folder import load_results
from sqzexplore.results.tables import THROUGHPUT, to_frame
from sqzexplore.spec.load import load_spec, parse_spec
from sqzexplore.sweep import going_on
from sqzexplore.sweep.reuse import fingerprint, recorded_fingerprint
from sqzexplore.sweep.storage.open import open_storage

TINY = sqz.Architecture(width_multiplier=0.1, num_classes=10)
SMALL = Settings("cpu", 1, input_size=40)


def found(at: Settings, latency_ms: float, **changes: object) -> Throughput:
    numbers = {"latency_ms_p50": latency_ms, "images_per_s": 1e3 * at.batch / latency_ms}
    numbers |= {"latency_ms_p99": latency_ms, "warm": True}
    return Throughput(**(asdict(blank(at)) | numbers | changes))


# --- over processes ----------------------------------------------------------------------------


@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_interval_over_processes_is_students_and_covers_as_often_as_it_says(n: int) -> None:
    """Processes 8% apart; the typical one takes 3 ms."""
    generator, hits = np.random.default_rng(n), 0
    for _ in range(1500):
        numbers = 3.0 * np.exp(0.08 * generator.standard_normal(n))
        over = statistics.over_processes(numbers.tolist())
        hits += over.low <= 3.0 <= over.high
    assert abs(hits / 1500 - 0.95) < 0.02  # three and a half standard errors
    low, high = stats.t.interval(0.95, n - 1, np.log(numbers).mean(), stats.sem(np.log(numbers)))
    assert (over.low, over.high) == pytest.approx((math.exp(low), math.exp(high)))
    assert over.value == pytest.approx(stats.gmean(numbers))


def test_the_interval_within_one_process_does_not_speak_of_the_next() -> None:
    """Why there are several: rounds 1% apart in processes 8% apart."""
    generator, within, over = np.random.default_rng(0), 0, 0
    for _ in range(300):
        centres = 3.0 * np.exp(0.08 * generator.standard_normal(5))
        rounds = centres[:, None] * np.exp(0.01 * generator.standard_normal((5, 12)))
        one = statistics.median(rounds[0].tolist())
        all_five = statistics.over_processes(np.median(rounds, axis=1).tolist())
        within += one.low <= 3.0 <= one.high
        over += all_five.low <= 3.0 <= all_five.high
    assert within < 60
    assert over > 270


def test_one_process_has_no_interval_over_processes() -> None:
    one = statistics.over_processes([2.0])
    assert one.value == pytest.approx(2.0)
    assert math.isnan(one.low)
    assert math.isnan(one.high)


def test_the_row_of_several_processes() -> None:
    at = replace(SMALL, batch=8)
    latencies = [2.0, 2.1, 1.9, 2.4, 2.0]
    rows = [
        found(
            at,
            latency,
            warm=number != 3,
            rounds=4,
            expand="split" if number == 2 else "embedded",
            relative_to_reference=1 / latency,
            sustained_images_per_s=8e3 / latency,
        )
        for number, latency in enumerate(latencies)
    ]
    row = combined(rows)
    typical = stats.gmean(latencies)
    assert row.latency_ms_p50 == pytest.approx(typical)
    assert row.images_per_s == pytest.approx(8e3 / typical)
    over = statistics.over_processes(latencies)
    assert (row.latency_ms_p50_low, row.latency_ms_p50_high) == (over.low, over.high)
    assert row.relative_to_reference == pytest.approx(1 / typical)
    assert row.relative_to_reference_low == pytest.approx(1 / over.high)
    assert row.sustained_images_per_s_high == pytest.approx(8e3 / over.low)
    assert row.precision == pytest.approx((over.high - over.low) / 2 / typical)
    assert row.precise is False
    assert (row.processes, row.rounds, row.warm) == (5, 20, False)
    assert [float(each) for each in str(row.process_latency_ms).split()] == latencies
    assert row.expand == "embedded split"
    assert to_frame([asdict(row)], THROUGHPUT)["processes"].tolist() == [5]
    assert combined([found(at, latency) for latency in (2.0, 2.001, 1.999)]).precise is True


# --- by turns ----------------------------------------------------------------------------------


class Fakes:
    """Starts children that measure nothing, and notes what each was asked, in order."""

    def __init__(self, answer: Callable[[int, Settings], Throughput | float]) -> None:
        self.answer = answer
        self.asked: list[tuple[int, int, float]] = []
        self.open: list[int] = []

    def start(self, threads: int) -> SimpleNamespace:
        number = len(self.open) + 1
        self.open.append(number)

        def measure(architecture: sqz.Architecture, at: Settings, seconds: float) -> Throughput:
            self.asked.append((number, at.batch, seconds))
            answer = self.answer(number, at)
            return answer if isinstance(answer, Throughput) else found(at, answer)

        return SimpleNamespace(measure=measure, close=lambda: self.open.remove(number))


@pytest.fixture(autouse=True)
def no_roof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "beside_roof", lambda row, architecture, folder: row)


def test_processes_measure_a_row_by_turns_and_share_its_time() -> None:
    fakes = Fakes(lambda number, at: float(number * at.batch))
    with closing(Processes(3, 1, fakes.start)) as processes:
        rows = [processes.measure(TINY, replace(SMALL, batch=b), 3.0) for b in (1, 2)]
        assert fakes.open == [1, 2, 3]  # those of the first row measure the second too
    assert fakes.open == []
    assert fakes.asked == [(n, b, 1.0) for b in (1, 2) for n in (1, 2, 3)]
    assert [row.process_latency_ms for row in rows] == ["1 2 3", "2 4 6"]
    assert [row.processes for row in rows] == [3, 3]


def test_a_process_that_measures_alone_needs_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(apart, "_Process", lambda threads, files: fakes.start(threads))
    fakes = Fakes(lambda number, at: 1.0)
    monkeypatch.setattr(apart, "measure", lambda *asked: found(SMALL, 1.0))
    for count, folders in ((1, 0), (2, 1)):
        with closing(Processes(count, 1)) as processes:
            processes.measure(TINY, SMALL, 1.0)
            assert len([*tmp_path.iterdir()]) == folders
    assert not [*tmp_path.iterdir()]


def test_what_one_process_cannot_measure_says_which_and_why() -> None:
    def answer(number: int, at: Settings) -> Throughput | float:
        if number == 2 and at.batch == 2:
            return replace(blank(at), outcome="failed", reason="it ended (SIGKILL)")
        return 1.0

    fakes = Fakes(answer)
    with closing(Processes(3, 1, fakes.start)) as processes:
        rows = [processes.measure(TINY, replace(SMALL, batch=b), 3.0) for b in (1, 2, 4)]
    assert [row.outcome for row in rows] == ["measured", "failed", "measured"]
    assert rows[1].reason == "process 2 of 3: it ended (SIGKILL)"
    assert rows[1].images_per_s is None
    assert (3, 2) not in [(number, batch) for number, batch, _ in fakes.asked]


def test_whoever_forgets_to_end_them_leaves_no_process_behind() -> None:
    fakes = Fakes(lambda number, at: 1.0)
    processes = Processes(2, 1, fakes.start)
    processes.measure(TINY, SMALL, 1.0)
    assert fakes.open == [1, 2]
    del processes
    assert fakes.open == []


def test_several_on_a_cpu_and_one_on_a_gpu() -> None:
    assert [default_processes(name) for name in ("cpu", "cuda:0", "cuda:1")] == [5, 1, 1]


# --- interrupted -------------------------------------------------------------------------------


def test_bench_keeps_the_rows_that_were_measured_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted in the second row; of two processes each."""

    def answer(number: int, at: Settings) -> float:
        if len(fakes.asked) == 4:
            raise KeyboardInterrupt
        return 1.0 + 0.1 * number

    fakes = Fakes(answer)
    monkeypatch.setattr(apart, "_Process", lambda threads, files: fakes.start(threads))
    out = str(tmp_path / "out")
    command = ["bench", "squeezenet1_1", "--device", "cpu", "--batch", "1,2", "--input-size", "64"]
    command += ["--processes", "2", "--out", out]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 130
    assert fakes.open == []
    assert load_results(out, "throughput")["batch"].tolist() == [1]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0
    assert "2 measurements, 1 were there already" in done.output
    assert [batch for _, batch, _ in fakes.asked] == [1, 1, 2, 2, 2, 2]
    assert "not precise" in done.output
    rows = load_results(out, "throughput")
    assert rows["processes"].tolist() == [2, 2]
    assert rows["precise"].tolist() == [False, False]


def test_a_sweep_keeps_the_rows_that_were_measured_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(number: int, at: Settings) -> float:
        if len(fakes.asked) == 4:
            raise KeyboardInterrupt
        return 1.0

    fakes = Fakes(answer)
    monkeypatch.setattr(apart, "_Process", lambda threads, files: fakes.start(threads))
    spec = parse_spec(
        "name: s\nbase: {width_multiplier: 0.1}\nspace: {squeeze_ratio: [0.5]}\ninput_size: 40\n"
        "measure: {throughput: {batch: [1, 2], processes: 3}}\n"
    )
    architecture = next(iter(map(spec.design_space.architecture, spec.design_space.indices())))
    task = tasks.Task(0, architecture, "throughput")

    def measured_by_a_new_process() -> tasks.Evaluation:
        at_work = bench.Bench(spec, None, torch.device("cpu"), tmp_path / "partial")
        at_work.add(task)
        return trial.assembled(architecture, spec, None, dict(at_work.turn()))

    with pytest.raises(KeyboardInterrupt):
        measured_by_a_new_process()
    done = measured_by_a_new_process()
    assert [batch for _, batch, _ in fakes.asked] == [1, 1, 1, 2, 2, 2, 2]
    assert [row["processes"] for row in done.throughput] == [3, 3]


@pytest.mark.parametrize("name", ["bypass", "sr"])
def test_a_committed_sweep_that_measured_in_one_process_goes_on(name: str, tmp_path: Path) -> None:
    """It knows no `processes`: left out, that is no other spec, and no other measurement."""
    folder = tmp_path / name
    folder.mkdir()
    for file in ("spec.yaml", "study.journal"):
        shutil.copy(ROOT / "results" / name / file, folder / file)
    spec = load_spec(ROOT / "sweeps" / f"{name}.yaml")
    assert spec.measure.throughput.processes is None
    assert going_on.news(spec, folder) == []
    study = optuna.load_study(study_name=name, storage=open_storage(folder, None))
    data = SimpleNamespace(sha256=study.user_attrs["data"]["sha256"])
    assert fingerprint(spec, data) == recorded_fingerprint(study) is not None
    asked = parse_spec(spec.source.replace("batch: [1, 16]", "batch: [1, 16], processes: 3"))
    assert fingerprint(asked, data) != fingerprint(spec, data)
    with pytest.raises(UserError, match=r"throughput\.processes: 'absent' -> 3"):
        going_on.news(asked, folder)


# --- real processes ----------------------------------------------------------------------------


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


def test_a_process_that_is_killed_fails_its_row_and_not_the_next(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    before = children()
    with closing(Processes(2, torch.get_num_threads())) as processes:
        row = processes.measure(TINY, SMALL, 0.04)
        assert (row.outcome, row.processes, row.threads) == ("measured", 2, torch.get_num_threads())
        assert row.latency_ms_p50_low < row.latency_ms_p50 < row.latency_ms_p50_high
        first, second = sorted(children() - before)
        with pytest.raises(FeatureMapVanishes):
            processes.measure(TINY, replace(SMALL, input_size=20))
        # Nor does an error: a layout that torch has no name for, which no check can know of.
        with monkeypatch.context() as patch:
            patch.setattr(apart, "check", lambda architecture, settings: None)
            row = processes.measure(TINY, replace(SMALL, memory_format="nosuch"), 0.04)
        assert row.outcome == "failed"
        assert row.reason == "process 1 of 2: KeyError: 'nosuch'"
        threading.Timer(0.5, os.kill, (first, signal.SIGKILL)).start()
        row = processes.measure(TINY, SMALL, 1200.0)  # never precise so soon
        assert (row.outcome, row.images_per_s) == ("failed", None)
        assert row.reason == "process 1 of 2: it ended (SIGKILL)"
        assert processes.measure(TINY, SMALL, 0.04).outcome == "measured"
        assert second in children()
    assert children() == before
    assert "Traceback" not in capfd.readouterr().err


def test_the_references_of_one_combination_at_a_time(tmp_path: Path) -> None:
    """In each process, or those of all combinations would fill the memory."""
    text = (
        "import sys\nfrom sqzexplore.measure import apart, reference\nreal = apart.timed\n"
        "def timed(*given):\n    row = real(*given)\n"
        "    print(len(reference.references), file=sys.stderr)\n    return row\n"
        "apart.timed = timed\napart.serve(1, sys.argv[1])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", text, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for at in (SMALL, replace(SMALL, batch=2), replace(SMALL, memory_format="contiguous")):
        asked = {"settings": asdict(at), "architecture": TINY.model_dump(mode="json")}
        print(json.dumps(asked | {"seconds": 0.01}), file=process.stdin, flush=True)
        assert json.loads(process.stdout.readline())["batch"] == at.batch
    said = process.communicate()[1]
    assert process.returncode == 0
    assert said.split() == ["1", "2", "1"]


def measuring(folder: Path) -> None:
    """Its process has measured once, and is then in the midst of ten minutes."""
    (folder / "files").mkdir()
    process = apart._Process(1, folder / "files")
    for seconds in (0.01, 600.0):
        process.measure(TINY, SMALL, seconds)
        (folder / "pid").write_text(str(process._process.pid))


def test_a_process_ends_with_its_parent(tmp_path: Path) -> None:
    """In the midst of a measurement, and with a parent that is killed and can close nothing."""
    parent = start(measuring, tmp_path)
    wait_for(tmp_path / "pid")
    child = psutil.Process(int((tmp_path / "pid").read_text()))
    parent.kill()
    parent.join()
    until = time.monotonic() + 60
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert not (tmp_path / "files").exists(), "what its parent can no longer remove"
