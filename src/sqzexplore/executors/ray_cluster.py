"""Tasks of a Ray cluster, which places them by the CPUs and GPUs that they declare.

The cluster's nodes need this package, and the images under the same name. A result folder that all
of them share lets a trial go on where a lost node left it; otherwise it begins anew.
"""

from __future__ import annotations

import logging
import pickle
import re
import socket
import time
from functools import lru_cache
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError, TaskCancelledError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ..data.images import ImageData
from ..errors import UserError
from ..evaluation.bench import Bench
from ..evaluation.tasks import Measured, Task
from ..evaluation.workload import load_data
from ..spec.load import parse_spec
from ..spec.models import Spec
from ..train.loop import Epoch
from .base import Job, Listener
from .mailbox import Mailbox

#: Seconds in which a cluster's head must take a connection.
_ANSWERS_S = 10.0


class OnRay:
    """The Ray cluster that `connect` found.

    Args:
        job: what the trials have in common.
        listener: hears of them.
        cpus: what a task declares, CPUs.
        gpus: what it declares, GPUs or a share of one; 0 evaluates on CPUs.
        slots: tasks handed to the cluster at once.
    """

    def __init__(self, job: Job, listener: Listener, cpus: float, gpus: float, slots: int) -> None:
        self._job, self._listener, self.slots = job, listener, slots
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._mailbox: Any = (
            ray.remote(Mailbox).options(num_cpus=0, scheduling_strategy=here).remote()
        )
        declared = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": 0}
        self._evaluate: Any = ray.remote(_evaluate).options(**declared)
        self._threads, self._device = max(1, int(cpus)), "cuda:0" if gpus else "cpu"
        self._tasks: dict[Any, Task] = {}
        self._begun: dict[Task, float] = {}

    def free(self) -> bool:
        """Whether the cluster may be given one more."""
        return len(self._tasks) < self.slots

    def submit(self, task: Task) -> None:
        """Give a task to the cluster."""
        if task.kind == "throughput" and self._tasks:
            self._abandon()
        given = (self._job, task, self._device, self._threads, self._mailbox)
        self._tasks[self._evaluate.remote(*given)] = task

    def wait(self, seconds: float) -> None:
        """Tell the listener what happens, until something did or `seconds` passed.

        Raises:
            OSError: a node's disk is full or damaged.
            UserError: a node cannot evaluate, for want of its images for example.
        """
        if not self._tasks:
            time.sleep(seconds)
            return
        done, _ = ray.wait(list(self._tasks), timeout=seconds)
        self._read_mail()
        for reference in done:
            self._finish(reference)
        limit = self._job.trial_timeout
        for reference, task in list(self._tasks.items()):
            if limit and time.monotonic() - self._begun.get(task, time.monotonic()) > limit:
                ray.cancel(reference, force=True)

    def close(self) -> None:
        """Leave the cluster; tasks that run are cancelled."""
        self._abandon()
        ray.shutdown()

    def _abandon(self) -> None:
        """Cancel all tasks, of which nothing is heard from then on."""
        abandoned = list(self._tasks)
        for reference in abandoned:
            ray.cancel(reference, force=True)
        self._tasks.clear()
        self._begun.clear()

    def _read_mail(self) -> None:
        for number, letter in ray.get(self._mailbox.take.remote()):
            task, kind, *content = pickle.loads(letter)
            if kind == "begun":
                self._begun[task] = time.monotonic()
            elif kind == "progress":
                self._listener.progress(task, *content)
            else:
                self._mailbox.answer.remote(number, self._listener.prune(task, *content))

    def _finish(self, reference: Any) -> None:
        task = self._tasks.pop(reference)
        begun = self._begun.pop(task, None)
        try:
            measured = ray.get(reference)
        except TaskCancelledError:
            took = f"took longer than search.trial_timeout, {self._job.trial_timeout:g} s"
            self._listener.lost([task], took)
        except RayTaskError as error:
            cause = error.cause
            raise cause if isinstance(cause, OSError) else UserError(str(cause)) from None
        except RayError as error:
            reason = f"its Ray worker was lost ({type(error).__name__})"
            self._listener.lost([task], reason if begun is not None else "")
        else:
            self._listener.ended(task, measured)


def _evaluate(job: Job, task: Task, device: str, threads: int, mailbox: Any) -> Measured:
    """One task of the cluster."""
    torch.set_num_threads(threads)
    spec, data = _prepared(job.spec, device)
    ray.get(mailbox.post.remote(pickle.dumps((task, "begun"))))

    def on_progress(share: float, what: str) -> None:
        mailbox.post.remote(pickle.dumps((task, "progress", share, what)))

    def prune(epoch: Epoch) -> bool:
        return bool(ray.get(mailbox.ask.remote(pickle.dumps((task, "epoch", epoch)))))

    bench = Bench(spec, data, torch.device(device), job.scratch)
    bench.add(task, on_progress, prune)
    while not (ended := list(bench.turn())):
        pass
    return ended[0][1]


@lru_cache(maxsize=1)
def _prepared(text: str, device: str) -> tuple[Spec, ImageData | None]:
    """What serves all tasks of a Ray worker."""
    spec = parse_spec(text)
    return spec, load_data(spec, torch.device(device))


def connect(address: str | None, cpus: float, gpus: float) -> int:
    """Join a cluster.

    Args:
        address: as `ray.init` takes it; None: a cluster of this machine, for this process alone.
        cpus: what a task declares, CPUs.
        gpus: what it declares, GPUs.

    Returns:
        How many tasks it has room for at once.

    Raises:
        UserError: there is no such cluster, or it has no room for a single trial.
    """
    try:
        if address and (place := re.fullmatch(r"([^/:]+):(\d+)", address)):
            # Ray itself waits for minutes.
            socket.create_connection((place[1], int(place[2])), _ANSWERS_S).close()
        ray.init(
            address=address,
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"--address {address}: no Ray cluster answers ({reason})") from None
    there = ray.cluster_resources()
    needed = {"CPU": cpus, "GPU": gpus}
    room = min(there.get(name, 0.0) // each for name, each in needed.items() if each)
    if room < 1:
        ray.shutdown()
        raise UserError(
            f"--engine ray: a trial needs {cpus:g} CPUs and {gpus:g} GPUs, the cluster has "
            f"{there.get('CPU', 0):g} and {there.get('GPU', 0):g} in all"
        )
    return int(room)
