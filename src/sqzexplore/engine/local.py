"""Trials in several processes of this machine, each on its GPU or on its share of the cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.resource_tracker import ensure_running
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from ..evaluate import attempt, load_data
from ..spec import Spec
from ..training import Epoch
from .base import Job, Listener, Task

#: Workers in a row, of each place, that may die before they can take a trial.
_MOST_STILLBORN = 5
#: Of processes that the kernel can end when memory runs out, a worker is its first choice.
_OOM_SCORE = 500


@dataclass(frozen=True)
class Place:
    """Where one worker runs: its device, and the cores that it keeps to."""

    device: str
    cores: tuple[int, ...]


def places(workers: int, device: torch.device) -> list[Place]:
    """Devices and cores of so many workers: GPUs by turns, cores in equal shares.

    A device without an index stands for all of its kind.
    """
    devices = [str(device)]
    if device.type == "cuda" and device.index is None:
        devices = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    cores = sorted(_cores())
    found = []
    for number in range(workers):
        mine = cores[number * len(cores) // workers : (number + 1) * len(cores) // workers]
        mine = mine or [cores[number % len(cores)]]
        found.append(Place(devices[number % len(devices)], tuple(mine)))
    return found


def _cores() -> Iterable[int]:
    """Those that this process may use; not every system can say which."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return range(os.cpu_count() or 1)


class Local:
    """Worker processes. A worker starts when it has something to do; one that dies, or is killed
    because its trial takes too long, is replaced by another.

    Args:
        job: what the trials have in common.
        listener: hears of them.
        at: where each worker runs.
    """

    def __init__(self, job: Job, listener: Listener, at: Sequence[Place]) -> None:
        self._job, self._listener = job, listener
        self._idle = [_Worker(job, place) for place in at]
        self._busy: list[_Worker] = []
        self._stillborn = 0
        self.slots = len(at)

    def free(self) -> bool:
        """Whether a worker has nothing to do."""
        return bool(self._idle)

    def submit(self, task: Task) -> None:
        """Give a trial to a worker."""
        worker = self._idle.pop(0)
        self._busy.append(worker)
        worker.give(task)

    def wait(self, seconds: float) -> None:
        """Tell the listener what happens, until something did or `seconds` passed.

        Raises:
            OSError: a worker's disk is full or damaged.
            UserError: a worker cannot begin.
        """
        until = time.monotonic() + seconds
        ends = [worker.deadline for worker in self._busy]
        left = min([until, *ends]) - time.monotonic()
        if not self._busy:
            time.sleep(seconds)
            return
        ready = wait([worker.pipe for worker in self._busy], max(0.0, left))
        for worker in list(self._busy):
            if worker.pipe in ready:
                self._hear(worker)
            elif time.monotonic() > worker.deadline:
                took = f"took longer than search.trial_timeout, {self._job.trial_timeout:g} s"
                self._lose(worker, took)

    def close(self) -> None:
        """End the workers. They keep their state on disk after each epoch."""
        for worker in [*self._idle, *self._busy]:
            worker.kill()

    def _hear(self, worker: _Worker) -> None:
        """Take one message from a worker."""
        task = worker.task
        assert task is not None
        try:
            kind, *content = worker.pipe.recv()
        except (EOFError, OSError):
            return self._lose(worker, worker.death())
        match kind:
            case "begun":
                self._stillborn = 0
                worker.begin()
            case "progress":
                self._listener.progress(task.trial, *content)
            case "epoch":
                with suppress(OSError):  # its end is heard of next
                    worker.pipe.send(self._listener.prune(task.trial, *content))
            case "ended":
                self._busy.remove(worker)
                self._idle.append(worker)
                worker.task = None
                self._listener.ended(task.trial, *content)
            case _:
                raise content[0]

    def _lose(self, worker: _Worker, reason: str) -> None:
        """A worker is gone, or is to go: another one takes its place."""
        task, begun = worker.task, worker.begun
        assert task is not None
        worker.kill()
        self._busy.remove(worker)
        self._idle.append(_Worker(self._job, worker.place))
        if not begun:
            self._stillborn += 1
            if self._stillborn >= _MOST_STILLBORN * self.slots:
                raise UserError(f"--workers: {self._stillborn} in a row could not begin: {reason}")
        self._listener.lost(task.trial, reason if begun else "")


class _Worker:
    """A process, and this end of its pipe."""

    def __init__(self, job: Job, place: Place) -> None:
        self.job, self.place = job, place
        self.task: Task | None = None
        self.begun = False
        self.deadline = float("inf")
        self.pipe: Connection
        self.process: BaseProcess | None = None

    def give(self, task: Task) -> None:
        """Hand it a trial; it is started for its first."""
        self.task, self.begun, self.deadline = task, False, float("inf")
        if self.process is None:
            context = multiprocessing.get_context("spawn")
            self.pipe, theirs = context.Pipe()
            self.process = context.Process(
                target=_work, args=(self.job, self.place, theirs), name="worker", daemon=True
            )
            with _blocked(signal.SIGINT):
                self.process.start()
            theirs.close()
        with suppress(OSError):  # it has died; its end is heard of next
            self.pipe.send(task)

    def begin(self) -> None:
        """Its trial begins now."""
        self.begun = True
        if self.job.trial_timeout is not None:
            self.deadline = time.monotonic() + self.job.trial_timeout

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
                self.process.kill()
                self.process.join()
            self.pipe.close()


@contextmanager
def _blocked(number: signal.Signals) -> Iterator[None]:
    """A process that is made meanwhile inherits it: the signal waits until it says what to do."""
    ensure_running()  # the first process would start it, which unblocks all
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(job: Job, place: Place, pipe: Connection) -> None:
    """The life of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent acts
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _keep_to(place)
    try:
        spec = Spec.parse(job.spec)
        device = torch.device(place.device)
        data = load_data(spec, device)
        while True:
            task = pipe.recv()
            pipe.send(("begun",))
            evaluation = attempt(
                task.architecture,
                spec,
                data,
                device,
                job.scratch,
                lambda share, what: pipe.send(("progress", share, what)),
                lambda epoch: _asked(pipe, epoch),
            )
            pipe.send(("ended", evaluation))
    except (EOFError, BrokenPipeError):
        return  # the parent has no more work
    except OSError as error:
        pipe.send(("stopped", error))
    except Exception as error:
        text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        pipe.send(("stopped", UserError(text)))


def _asked(pipe: Connection, epoch: Epoch) -> bool:
    pipe.send(("epoch", epoch))
    return bool(pipe.recv())


def _end_with_parent() -> None:
    """A worker whose sweep was killed would train on for nobody."""
    parent: Any = multiprocessing.parent_process()
    parent.join()
    os._exit(1)


def _keep_to(place: Place) -> None:
    with suppress(OSError, AttributeError):
        os.sched_setaffinity(0, place.cores)
    torch.set_num_threads(min(torch.get_num_threads(), len(place.cores)))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))
