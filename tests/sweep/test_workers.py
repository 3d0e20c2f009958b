"""Several workers and several processes on one sweep, real ones, some of which are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from unittest.mock import Mock

import psutil
import pytest
import torch

from helpers.processes import QUICK, RATIOS, Sweeps, gone, until, until_done, whole
from sqzexplore import Architecture
from sqzexplore.evaluation.tasks import Task
from sqzexplore.executors import processes
from sqzexplore.executors.base import Job
from sqzexplore.executors.processes import Local, places
from sqzexplore.measure.roofline import Roofs
from sqzexplore.results.folder import load_results
from sqzexplore.sweep.status import status


def test_a_trial_that_kills_its_worker(sweeps: Sweeps) -> None:
    """It is tried again as often as `retries` says, and the others do not suffer."""
    faults = {0.1: "die", 0.2: "die once", 0.3: "raise", 0.4: "exit", 0.5: "memory"}
    code, errors = sweeps.run(faults, "--workers", 2)
    assert code == 1, errors
    rows = load_results(sweeps.out).set_index("squeeze_ratio")
    assert whole(rows.reset_index())
    assert dict(rows["state"]) == {
        0.1: "failed", 0.2: "complete", 0.3: "failed", 0.4: "failed", 0.5: "failed", 0.6: "complete"
    }  # fmt: skip
    assert dict(rows["attempts"]) == {0.1: 2, 0.2: 2, 0.3: 1, 0.4: 2, 0.5: 1, 0.6: 1}
    assert rows["error"][0.1] == "its worker was killed by SIGKILL, 2 times"
    assert rows["error"][0.3] == "ArithmeticError: no good"
    assert rows["error"][0.4] == "its worker ended with exit code 7, 2 times"
    assert rows["error"][0.5].startswith("MemoryError")
    assert Counter(ratio for ratio, _ in sweeps.begun()) == dict(rows["attempts"])
    assert all(gone(pid) for _, pid in sweeps.begun())
    assert not list(sweeps.out.glob("partial/*"))
    assert "failed: trial" in errors


def test_a_trial_that_hangs(sweeps: Sweeps) -> None:
    text = QUICK.replace("retries: 1", "retries: 0, trial_timeout: 2s")
    assert sweeps.run({0.3: "hang"}, text=text)[0] == 1
    rows = load_results(sweeps.out).set_index("squeeze_ratio")
    assert rows["error"][0.3] == "took longer than search.trial_timeout, 2 s"
    assert set(rows["state"].drop(0.3)) == {"complete"}
    assert all(gone(pid) for _, pid in sweeps.begun())


def test_interrupted_with_workers(sweeps: Sweeps) -> None:
    """The workers end, what ran is taken up by the next process with nothing counted against it."""
    process = sweeps.start({0.1: "hang", 0.2: "hang"}, "--workers", 2)
    until(lambda: {0.1, 0.2} <= {ratio for ratio, _ in sweeps.begun()})
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "run the same command again to resume" in errors
    assert all(gone(pid) for _, pid in sweeps.begun())
    assert [one.running for one in status(sweeps.out).unfinished] == [False, False]
    assert sweeps.run({}, "--workers", 2)[0] == 0
    rows = load_results(sweeps.out)
    assert whole(rows)
    assert set(rows["attempts"]) == {1}


def test_interrupted_twice(sweeps: Sweeps) -> None:
    """Stopped while it stops: at once."""
    process = sweeps.start({0.1: "hang"}, "--workers", 2)
    until(lambda: 0.1 in {ratio for ratio, _ in sweeps.begun()})
    for _ in range(20):
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            time.sleep(0.01)
    assert process.wait(10) == 130
    until(lambda: all(gone(pid) for _, pid in sweeps.begun()), 10)
    assert sweeps.run({})[0] == 0
    assert whole(load_results(sweeps.out))


def test_killed_with_workers(sweeps: Sweeps) -> None:
    """SIGKILL of the sweep ends its workers too; the next process begins at once."""
    process = sweeps.start({0.1: "hang", 0.2: "hang"}, "--workers", 2)
    until(lambda: {0.1, 0.2} <= {ratio for ratio, _ in sweeps.begun()})
    assert [one.running for one in status(sweeps.out).unfinished] == [True, True]
    process.kill()
    process.wait()
    until(lambda: all(gone(pid) for _, pid in sweeps.begun()), 10)
    assert [one.running for one in status(sweeps.out).unfinished] == [False, False]
    assert sweeps.run({})[0] == 0
    rows = load_results(sweeps.out)
    assert whole(rows)
    assert set(rows["attempts"]) == {1}, "the second process did not see the first one die"
    assert not list(sweeps.out.glob(".processes/*"))


def test_what_the_workers_are_forked_from_is_killed(sweeps: Sweeps) -> None:
    """They end with it, or nobody could end them; their trials go to others."""
    process = sweeps.start({0.1: "hang once", 0.2: "hang once"}, "--workers", 2)
    until(lambda: {0.1, 0.2} <= {ratio for ratio, _ in sweeps.begun()})
    (forked_from,) = {psutil.Process(pid).ppid() for _, pid in sweeps.begun()}
    assert forked_from != process.pid
    os.kill(forked_from, signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    rows = load_results(sweeps.out).set_index("squeeze_ratio")
    assert set(rows["state"]) == {"complete"}
    assert dict(rows["attempts"]) == dict.fromkeys(RATIOS, 1) | {0.1: 2, 0.2: 2}
    assert all(gone(pid) for _, pid in sweeps.begun())


@pytest.mark.parametrize("sampler", ["sampler: random, trials: 6", "sampler: grid"])
def test_processes_share_a_folder(sweeps: Sweeps, sampler: str) -> None:
    """Each architecture is evaluated once; one process is killed, another takes up its trial."""
    text = QUICK.replace("sampler: random, trials: 6", sampler)
    if "grid" in sampler:  # a grid of which nothing is measured needs no engine
        text += "base: {width_multiplier: 0.1, num_classes: 10, fires: 3, pool_after: [1, 3]}\n"
        text += "measure: {accuracy: {data: digits, epochs: 1, seeds: 1}}\n"
    first = sweeps.start({0.1: "hang"}, "--workers", 2, text=text)
    until(lambda: 0.1 in {ratio for ratio, _ in sweeps.begun()})
    others = [sweeps.start({}, text=text) for _ in range(2)]
    until(lambda: len(list(sweeps.out.glob(".processes/*"))) == 3)
    until_done(sweeps, 5)
    time.sleep(2)  # all have seen the living owner of what is left
    assert all(process.poll() is None for process in others), "they wait for the one that hangs"
    first.kill()
    for process in others:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    rows = load_results(sweeps.out)
    assert whole(rows)
    assert rows["trial"].is_unique
    attempts = dict(zip(rows["squeeze_ratio"], rows["attempts"], strict=True))
    assert attempts == dict.fromkeys(RATIOS, 1) | {0.1: 2}
    assert Counter(ratio for ratio, _ in sweeps.begun()) == attempts


def test_processes_share_the_measuring(sweeps: Sweeps) -> None:
    """Both train; what is measured when all trainings are over is measured once, by either."""
    text = QUICK.replace("sampler: random, trials: 6", "sampler: grid")
    text += """\
base: {width_multiplier: 0.1, num_classes: 10, bypass: complex}
input_size: 48
measure:
  accuracy: {data: digits, epochs: 1, seeds: 1, batch_size: 32, learning_rate: 0.01}
  throughput: {processes: 1, batch: [1], seconds: 0.05}
"""
    Roofs(sweeps.out).of(torch.device("cpu"), "float32")  # once a process of the tests
    both = [sweeps.start({}, "--workers", 1, text=text) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
    rows, speeds = load_results(sweeps.out), load_results(sweeps.out, "throughput")
    assert whole(rows)
    assert rows["images_per_s"].notna().all()
    assert sorted(speeds["trial"]) == sorted(rows["trial"]), "each was measured once"
    begun = Counter(ratio for ratio, _ in sweeps.begun())
    assert begun == dict.fromkeys(RATIOS, 2), "a training and a measurement each"
    assert len({pid for _, pid in sweeps.begun()}) == 2, "one process did it all"
    assert not list(sweeps.out.glob("partial/*"))


def test_nothing_trains_beside_a_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a training would whose trial has ended, for another of its trainings failed."""

    class Made:
        def __init__(self, job: Job, place: processes.Place, trains: bool = True) -> None:
            self.tasks, self.place, self.trains = [], place, trains
            made.append(self)

        def give(self, task: Task) -> None:
            self.tasks.append(task)

        def kill(self) -> None:
            made.remove(self)

    made: list[Made] = []
    monkeypatch.setattr(processes, "_Worker", Made)
    engine = Local(Job("", tmp_path, None), Mock(), places(2, torch.device("cpu")))
    training, speed = (Task(0, Architecture(), kind) for kind in ("training", "throughput"))
    engine.submit(training)
    engine.submit(speed)
    assert sorted(each.tasks for each in made) == [[], [], [speed]]
    assert engine.free()
    engine.submit(training)
    assert sorted(each.tasks for each in made) == [[], [training]]


#: A worker's fork server is the program's own: who of its children hears Ctrl-C?
FORKS = """
import multiprocessing, signal, sys
from pathlib import Path
from unittest.mock import Mock

def hears(pipe):
    pipe.send(signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, []))

if __name__ == "__main__":
    import torch
    from sqzexplore import Architecture
    from sqzexplore.evaluation.tasks import Task
    from sqzexplore.executors.base import WORKER, Job
    from sqzexplore.executors.processes import Local, places

    spec = "name: s\\nspace: {squeeze_ratio: [0.5]}\\nmeasure: {throughput: {batch: [1]}}\\n"
    engine = Local(Job(spec, Path(sys.argv[1]), None), Mock(), places(1, torch.device("cpu")))
    engine.submit(Task(0, Architecture(), "throughput"))
    for name in (WORKER, "of the program"):
        here, there = multiprocessing.Pipe()
        context = multiprocessing.get_context("forkserver")
        context.Process(target=hears, args=(there,), name=name).start()
        print(here.recv())
    engine.close()
"""


def test_only_a_worker_is_forked_with_ctrl_c_blocked(tmp_path: Path) -> None:
    (tmp_path / "forks.py").write_text(FORKS)
    command = [sys.executable, str(tmp_path / "forks.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.split() == ["False", "True"], done.stderr


def test_cores_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {4, 5, 6, 7, 8})
    assert [place.cores for place in places(2, torch.device("cpu"))] == [(4, 5), (6, 7, 8)]
    assert [len(place.cores) for place in places(7, torch.device("cpu"))] == [1] * 7
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [p.device for p in places(3, torch.device("cuda"))] == ["cuda:0", "cuda:1", "cuda:0"]
    assert {p.device for p in places(3, torch.device("cuda:1"))} == {"cuda:1"}
