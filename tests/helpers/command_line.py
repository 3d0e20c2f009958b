"""`python -m sqzexplore` as real processes, without the seconds that each import of torch takes.

Each is forked from one process that has imported what a verb may need, and done nothing else. What
is asked of an interpreter before that (encodings, start-up) needs a process made by `subprocess`.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from multiprocessing import forkserver, util
from multiprocessing.connection import Connection
from pathlib import Path

from .children import CONTEXT


class Started:
    """A running program, with what tests use of `subprocess.Popen`.

    Args:
        arguments: of the command line.
        program: a file to run in the place of the package.
        cwd: where it runs.
        environment: its variables; as those of this process if missing.
    """

    def __init__(
        self,
        *arguments: object,
        program: Path | None = None,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        words = [str(program or "sqzexplore"), *map(str, arguments)]
        environment = dict(os.environ if environment is None else environment)
        ends, theirs = zip(*(CONTEXT.Pipe(duplex=False) for _ in range(2)), strict=True)
        where = (str(cwd or Path.cwd()), environment, theirs)
        self._process = CONTEXT.Process(target=_run, args=(words, program is not None, *where))
        self._process.start()
        self.pid = self._process.pid
        for end in theirs:
            end.close()
        self._written = [[], []]
        self._readers = [
            threading.Thread(target=_read, args=stream, daemon=True)
            for stream in zip(ends, self._written, strict=True)
        ]
        for reader in self._readers:
            reader.start()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("sqzexplore", timeout or 0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it wrote to standard output and to standard error, when it has ended."""
        self.wait(timeout)
        for reader in self._readers:
            reader.join(timeout)
        out, errors = (b"".join(parts).decode() for parts in self._written)
        return out, errors

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended since
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(*arguments: object, timeout: float = 240, **options) -> subprocess.CompletedProcess[str]:
    """Run it to its end, for so many seconds at most; see `Started` for the other options."""
    started = Started(*arguments, **options)
    try:
        out, errors = started.communicate(timeout)
    finally:
        started.kill()
    return subprocess.CompletedProcess(arguments, started.wait(), out, errors)


def _read(end: Connection, written: list[bytes]) -> None:
    while part := os.read(end.fileno(), 65536):
        written.append(part)
    end.close()


def _begin_workers_server() -> None:
    """What its own workers are forked from is a process of its own too, and forked like this one.

    multiprocessing would start it as an interpreter, which imports everything once more.
    """

    def forked(path: str, arguments: list[str], kept: list[int]) -> int:
        if child := os.fork():
            return child
        try:
            for low, high in itertools.pairwise([2, *sorted(kept), 65536]):
                os.closerange(low + 1, high)
            forkserver._forkserver.__init__()  # with a lock that nobody holds
            exec(arguments[-1], {})
        finally:
            os._exit(0)

    os.close(forkserver._forkserver._forkserver_alive_fd)
    forkserver._forkserver.__init__()
    forkserver.set_forkserver_preload([])
    real, util.spawnv_passfds = util.spawnv_passfds, forked
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # as when a worker starts
    try:
        forkserver.ensure_running()
    finally:
        util.spawnv_passfds = real
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)


def _run(
    words: list[str],
    is_file: bool,
    cwd: str,
    environment: dict[str, str],
    streams: list[Connection],
) -> None:
    """In the new process: what a new interpreter would find, and then the program."""
    assert "helpers.warm" in sys.modules, "what this is forked from has not imported what it should"
    for number, stream in enumerate(streams, 1):
        os.dup2(stream.fileno(), number)
        stream.close()
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    _begin_workers_server()
    sys.argv = words
    try:
        if is_file:
            runpy.run_path(words[0], run_name="__main__")
        else:
            runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()
