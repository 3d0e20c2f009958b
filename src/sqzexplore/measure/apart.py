"""A measurement in several fresh processes by turns: what one process cannot know of itself.

Where a process finds its weights and buffers in memory is decided once, when it starts, and makes
its network a few percent faster or slower than the next process finds it. An interval over the
rounds of one process speaks of that process alone; one over processes speaks of the next run.
"""

from __future__ import annotations

import json
import math
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from ..network.architecture import Architecture
from .devices import DeviceLost
from .reference import forget_references
from .runtimes import keep_files_in
from .settings import Settings
from .statistics import PRECISION, over_processes
from .throughput import Throughput, beside_roof, blank, check, measure, timed

#: Processes of a row on a CPU; a GPU's kernels find the same memory in each.
ON_CPU, ON_GPU = 5, 1
#: Seconds that a process has to end after its input has.
_ENDING_S = 5.0


class Child(Protocol):
    """A process that measures, one row after the other."""

    def measure(self, architecture: Architecture, settings: Settings, seconds: float) -> Throughput:
        """A row without its share of the roofline; one that it died of says so."""

    def close(self) -> None:
        """End it."""


class Processes:
    """Several processes that measure by turns, each for as long as this lives.

    Args:
        count: how many; one is the process that calls.
        threads: CPU threads of each.
        start: starts one.
    """

    def __init__(
        self, count: int, threads: int, start: Callable[[int], Child] | None = None
    ) -> None:
        self.count, self._threads = count, threads
        files: list[tempfile.TemporaryDirectory[str]] = []
        self._start = start or partial(_started, files)
        self._children: list[Child] = []
        # Whoever forgets to close it leaves no process behind.
        self._end = weakref.finalize(self, _close, self._children, files)

    def measure(
        self,
        architecture: Architecture,
        settings: Settings,
        seconds: float = 1.0,
        folder: Path | None = None,
    ) -> Throughput:
        """As `throughput.measure`, over the processes: each has its share of the time budget.

        Latency, ratio and sustained rate are geometric means over the processes, with the interval
        of `over_processes`; passes and rounds are summed. A row that one process could not measure
        says why.
        """
        if self.count == 1:
            return measure(architecture, settings, seconds, folder)
        check(architecture, settings)
        while len(self._children) < self.count:
            self._children.append(self._start(self._threads))
        started = blank(settings)
        rows = []
        for number, child in enumerate(self._children, 1):
            rows.append(child.measure(architecture, settings, seconds / self.count))
            if rows[-1].outcome != "measured":
                reason = f"process {number} of {self.count}: {rows[-1].reason}"
                return replace(started, outcome=rows[-1].outcome, reason=reason)
        whole = combined(rows)
        whole = replace(whole, measured_at=started.measured_at)
        return beside_roof(whole, architecture, folder)

    def close(self) -> None:
        """End the processes."""
        self._end()


def _started(files: list[tempfile.TemporaryDirectory[str]], threads: int) -> Child:
    """A process; the first makes the folder that all of them keep their files in."""
    if not files:
        files.append(tempfile.TemporaryDirectory(prefix="sqzexplore-"))
    return _Process(threads, Path(files[0].name))


def _close(children: list[Child], files: list[tempfile.TemporaryDirectory[str]]) -> None:
    while children:
        children.pop().close()
    while files:
        files.pop().cleanup()


def combined(rows: Sequence[Throughput]) -> Throughput:
    """One row from those of several processes at the same settings, without the roofline's."""
    latency = over_processes(_values(rows, "latency_ms_p50"))
    return replace(
        rows[0],
        **_over(rows, "latency_ms_p50"),
        **_over(rows, "relative_to_reference"),
        **_over(rows, "sustained_images_per_s"),
        processes=len(rows),
        process_latency_ms=" ".join(f"{row.latency_ms_p50:.6g}" for row in rows),
        images_per_s=rows[0].batch / latency.value * 1e3,
        precision=latency.precision,
        precise=latency.precision <= PRECISION,
        latency_ms_p99=_mean(rows, "latency_ms_p99"),
        latency_ms_sd=_mean(rows, "latency_ms_sd"),
        repetitions=sum(row.repetitions or 0 for row in rows),
        rounds=sum(row.rounds or 0 for row in rows),
        warm=all(row.warm for row in rows),
        reference_images_per_s=_mean(rows, "reference_images_per_s"),
        reference_drift=_most(rows, "reference_drift"),
        peak_memory_bytes=_most(rows, "peak_memory_bytes"),
        largest_difference=_most(rows, "largest_difference"),
        expand=" ".join(dict.fromkeys(row.expand for row in rows if row.expand)) or None,
    )


def _values(rows: Sequence[Throughput], name: str) -> list[Any]:
    return [value for row in rows if (value := getattr(row, name)) is not None]


def _over(rows: Sequence[Throughput], name: str) -> dict[str, Any]:
    """A field over the processes with the ends of its interval, where they have it."""
    if not (values := _values(rows, name)):
        return {}
    found = over_processes(values)
    ends = (None if math.isnan(end) else end for end in (found.low, found.high))
    return {name: found.value} | dict(zip((f"{name}_low", f"{name}_high"), ends, strict=True))


def _mean(rows: Sequence[Throughput], name: str) -> float | None:
    values = _values(rows, name)
    return sum(values) / len(values) if values else None


def _most(rows: Sequence[Throughput], name: str) -> Any:
    return max(_values(rows, name), default=None)


# --- a process ---------------------------------------------------------------------------------


class _Process:
    """A Python of its own that measures what it reads, a line of JSON each."""

    def __init__(self, threads: int, files: Path) -> None:
        self._threads, self._files = threads, files
        self._process = self._begin()

    def _begin(self) -> subprocess.Popen[str]:
        code = f"from {__name__} import serve; serve({self._threads}, {str(self._files)!r})"
        # What this process can import, wherever it found it.
        paths = os.pathsep.join(filter(None, sys.path))
        return subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": paths},
            process_group=0,  # Ctrl-C is for the parent, from the first import on
        )

    def measure(self, architecture: Architecture, settings: Settings, seconds: float) -> Throughput:
        if self._process.poll() is not None:
            self._process = self._begin()
        pipe = self._process
        assert pipe.stdin is not None
        assert pipe.stdout is not None
        requested: dict[str, Any] = {"settings": asdict(settings), "seconds": seconds}
        requested["architecture"] = architecture.model_dump(mode="json")
        answer = ""
        with suppress(BrokenPipeError):
            print(json.dumps(requested), file=pipe.stdin, flush=True)
            answer = pipe.stdout.readline()
        if not answer.endswith("\n"):
            reason = f"it ended ({_ending(pipe.wait())})"
            return replace(blank(settings), outcome="failed", reason=reason)
        return Throughput(**json.loads(answer))

    def close(self) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_ENDING_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    return signal.Signals(-code).name


def serve(threads: int, files: str) -> None:
    """Measure what comes through the standard input, a line each, and end with it: what a process
    of `Processes` does. The folder `files`, which it shares with the others, ends with it too."""
    torch.set_num_threads(threads)
    keep_files_in(Path(files))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(lines, files), daemon=True).start()
    before = None
    while True:
        requested: Mapping[str, Any] = json.loads(lines.get())
        settings = Settings(**requested["settings"])
        if before not in (None, replace(settings, batch=1)):
            forget_references()  # of each process, or those of all combinations fill the memory
        before = replace(settings, batch=1)
        try:
            row = timed(Architecture(**requested["architecture"]), settings, requested["seconds"])
        except DeviceLost as error:
            row = replace(blank(settings), outcome="failed", reason=str(error))
            print(json.dumps(asdict(row)), file=answers, flush=True)
            return  # the next row is for a process that has a GPU
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            row = replace(blank(settings), outcome="failed", reason=reason)
        print(json.dumps(asdict(row)), file=answers, flush=True)


def _read(lines: queue.SimpleQueue[str], files: str) -> None:
    """Take what is asked for. When the input ends nobody waits for an answer any more, also where
    the parent was killed, and can remove nothing: a measurement that went on would disturb whoever
    comes next."""
    for line in sys.stdin:
        lines.put(line)
    shutil.rmtree(files, ignore_errors=True)
    os._exit(0)


def default_processes(device: str) -> int:
    """Processes of a row where nobody says how many."""
    return ON_CPU if torch.device(device).type == "cpu" else ON_GPU
