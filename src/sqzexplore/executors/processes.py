"""Tasks in several processes of this machine, each on its GPU or on its share of the cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.resource_tracker import ensure_running
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from ..evaluation.bench import Bench
from ..evaluation.tasks import Task
from ..evaluation.workload import load_data
from ..measure.devices import DeviceLost
from ..spec.load import parse_spec
from ..train.loop import Epoch
from .base import WORKER, Job, Listener

#: Workers in a row, of each place, that may die before they can take a trial.
_MOST_STILLBORN = 5
#: Of processes that the kernel can end when memory runs out, a worker is its first choice.
_OOM_SCORE = 500


@dataclass(frozen=True)
class Place:
    """Where one worker runs: its device, and the cores that it keeps to."""

    device: str
    cores: tuple[int, ...]


def usable_cores() -> list[int]:
    """Those that this process may use; not every system can say which."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def places(workers: int, device: torch.device) -> list[Place]:
    """Devices and cores of so many workers: GPUs by turns, cores in equal shares.

    A device without an index stands for all of its kind.
    """
    devices = [str(device)]
    if device.type == "cuda" and device.index is None:
        devices = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    cores = usable_cores()
    found = []
    for number in range(workers):
        mine = cores[number * len(cores) // workers : (number + 1) * len(cores) // workers]
        mine = mine or [cores[number % len(cores)]]
        found.append(Place(devices[number % len(devices)], tuple(mine)))
    return found


class Local:
    """Worker processes. A worker starts when it has something to do; one that dies, or is killed
    because a task takes too long, is replaced by another. Throughput is measured by a worker that
    has all cores, and lives as long as nothing else is asked for.

    Args:
        job: what the tasks have in common.
        listener: hears of them.
        at: where each worker runs.
        pack: tasks at once in each.
    """

    def __init__(self, job: Job, listener: Listener, at: Sequence[Place], pack: int = 1) -> None:
        self._job, self._listener, self._pack = job, listener, pack
        self._workers = [_Worker(job, place) for place in at]
        self._alone: _Worker | None = None
        self._stillborn = 0
        self.slots = len(at) * pack

    def free(self) -> bool:
        """Whether a worker has room."""
        return any(len(worker.tasks) < self._pack for worker in self._workers)

    def submit(self, task: Task) -> None:
        """Give a task to the worker that has least to do."""
        if task.kind == "throughput":
            for worker in [each for each in self._workers if each.tasks]:
                self._replace(worker)
            device = self._workers[0].place.device
            everywhere = Place(device, tuple(usable_cores()))
            self._alone = self._alone or _Worker(self._job, everywhere, trains=False)
            self._alone.give(task)
            return
        if self._alone is not None:
            self._alone.kill()
            self._alone = None
        min(self._workers, key=lambda worker: len(worker.tasks)).give(task)

    def wait(self, seconds: float) -> None:
        """Tell the listener what happens, until something did or `seconds` passed.

        Raises:
            OSError: a worker's disk is full or damaged.
            UserError: a worker cannot begin.
        """
        until = time.monotonic() + seconds
        busy = [worker for worker in self._all() if worker.tasks]
        if not busy:
            time.sleep(seconds)
            return
        left = min([until, *(worker.deadline for worker in busy)]) - time.monotonic()
        ready = wait([worker.pipe for worker in busy], max(0.0, left))
        for worker in busy:
            if worker.pipe in ready:
                self._hear(worker)
            elif time.monotonic() > worker.deadline:
                took = f"took longer than search.trial_timeout, {self._job.trial_timeout:g} s"
                self._lose(worker, took)

    def close(self) -> None:
        """End the workers. They keep their state on disk after each epoch."""
        for worker in self._all():
            worker.kill()

    def _all(self) -> list[_Worker]:
        return [*self._workers, *([self._alone] if self._alone else [])]

    def _hear(self, worker: _Worker) -> None:
        """Take one message from a worker."""
        try:
            kind, task, *content = worker.pipe.recv()
        except (EOFError, OSError):
            return self._lose(worker, worker.death())
        match kind:
            case "begun":
                self._stillborn = 0
                worker.begin(task)
            case "progress":
                self._listener.progress(task, *content)
            case "epoch":
                with suppress(OSError):  # its end is heard of next
                    worker.pipe.send(self._listener.prune(task, *content))
            case "ended":
                del worker.tasks[task]
                self._listener.ended(task, *content)
            case _:
                raise content[0]

    def _lose(self, worker: _Worker, reason: str) -> None:
        """A worker is gone, or is to go: another one takes its place."""
        tasks, begun = list(worker.tasks), worker.begun
        self._replace(worker)
        if not begun:
            self._stillborn += 1
            if self._stillborn >= _MOST_STILLBORN * len(self._workers):
                raise UserError(f"--workers: {self._stillborn} in a row could not begin: {reason}")
        self._listener.lost(tasks, reason if begun else "")

    def _replace(self, worker: _Worker) -> None:
        """End a worker, and put another into its place."""
        worker.kill()
        fresh = _Worker(self._job, worker.place, worker.trains)
        if worker is self._alone:
            self._alone = fresh
        else:
            self._workers[self._workers.index(worker)] = fresh


class _Worker:
    """A process, and this end of its pipe."""

    def __init__(self, job: Job, place: Place, trains: bool = True) -> None:
        self.job, self.place, self.trains = job, place, trains
        #: What it does, and until when each may take.
        self.tasks: dict[Task, float] = {}
        self.begun = False
        self.pipe: Connection
        self.process: BaseProcess | None = None

    @property
    def deadline(self) -> float:
        """When the first of its tasks has taken too long."""
        return min(self.tasks.values(), default=float("inf"))

    def give(self, task: Task) -> None:
        """Hand it a task; it is started for its first."""
        if not self.tasks:
            self.begun = False
        self.tasks[task] = float("inf")
        if self.process is None:
            context = _context(self.job, self.place.device)
            self.pipe, theirs = context.Pipe()
            self.process = context.Process(
                target=_work,
                args=(self.job, self.place, self.trains, theirs),
                name=WORKER,
                daemon=True,
            )
            with _blocked(signal.SIGINT):
                self.process.start()
            theirs.close()
        with suppress(OSError):  # it has died; its end is heard of next
            self.pipe.send(task)

    def begin(self, task: Task) -> None:
        """A task begins now."""
        self.begun = True
        if self.job.trial_timeout is not None:
            self.tasks[task] = time.monotonic() + self.job.trial_timeout

    def death(self) -> str:
        """How it ended."""
        assert self.process is not None
        self.process.join(10)
        code = self.process.exitcode
        if code is not None and code < 0:
            return f"its worker was killed by {signal.Signals(-code).name}"
        return f"its worker ended with exit code {code}"

    def kill(self) -> None:
        """End it."""
        if self.process is not None:
            if self.process.pid is not None:  # else it was interrupted while it started
                if self.process.is_alive():  # or another process may have its number by now
                    self.process.kill()
                self.process.join()
            self.pipe.close()


@cache
def _context(job: Job, device: str) -> Any:
    """How a worker starts: forked from a process that has imported torch and done nothing else.

    Workers begin at once, and share the memory of what is imported. Where an import may start
    threads or open the GPU, neither of which outlives a fork, each worker imports for itself.
    """
    if sys.platform != "linux" or device != "cpu":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    trains = parse_spec(job.spec).measure.accuracy is not None
    # The first optimizer imports the second, for longer than a small network trains. The last is
    # for them alone: imported here it would change what this process forks.
    optimizers = ["torch._dynamo"] if trains else []
    context.set_forkserver_preload([__name__, *optimizers, f"{__package__}.forked"])
    return context


@contextmanager
def _blocked(number: signal.Signals) -> Iterator[None]:
    """A process that is made meanwhile inherits it: the signal waits until it says what to do."""
    ensure_running()  # the first process would start it, which unblocks all
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(job: Job, place: Place, trains: bool, pipe: Connection) -> None:
    """The life of a worker, which needs no images where it trains nothing."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent acts
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _keep_to(place)
    try:
        spec, device = parse_spec(job.spec), torch.device(place.device)
        data = load_data(spec, device) if trains else None
        _work_on(Bench(spec, data, device, job.scratch), pipe)
    except (EOFError, BrokenPipeError):
        return  # the parent has no more work
    except OSError as error:
        pipe.send(("stopped", None, error))
    except Exception as error:
        if isinstance(error, DeviceLost):
            raise  # for this process; the next worker has a GPU that works
        text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        pipe.send(("stopped", None, UserError(text)))


def _work_on(bench: Bench, pipe: Connection) -> None:
    """Do what comes through the pipe, until its other end is closed."""
    waiting: list[Task] = []

    def progress(task: Task, share: float, what: str) -> None:
        pipe.send(("progress", task, share, what))

    def requested(task: Task, epoch: Epoch) -> bool:
        pipe.send(("epoch", task, epoch))
        while not isinstance(answer := pipe.recv(), bool):
            waiting.append(answer)  # a task, sent before the question arrived
        return answer

    while True:
        while waiting or not len(bench) or pipe.poll():
            task: Task = waiting.pop(0) if waiting else pipe.recv()
            pipe.send(("begun", task))
            bench.add(task, partial(progress, task), partial(requested, task))
        for task, measured in bench.turn():
            pipe.send(("ended", task, measured))


def _end_with_parent() -> None:
    """A worker whose sweep was killed would train on for nobody.

    One that outlives the process that it was forked from could no longer be ended by the sweep.
    """
    parent: Any = multiprocessing.parent_process()
    forked_from = os.getppid()
    while parent.is_alive() and os.getppid() == forked_from:
        parent.join(1.0)
    os._exit(1)


def _keep_to(place: Place) -> None:
    with suppress(OSError, AttributeError):
        os.sched_setaffinity(0, place.cores)
    if place.device.startswith("cuda"):
        torch.cuda.set_device(place.device)  # else it would hold memory on the first one too
    # A data set that is read while training starts processes of its own; `_end_with_parent` sees
    # to it that none outlives the sweep.
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))
