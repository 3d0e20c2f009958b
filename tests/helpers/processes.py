"""Real processes that sweep, some of which misbehave (`faulty`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from sqzexplore.sweep.status import status

from .command_line import Started

RATIOS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
#: Trials that cost nothing, drawn at random so that each goes through an engine.
QUICK = f"""\
name: quick
space: {{squeeze_ratio: {RATIOS}}}
search: {{sampler: random, trials: 6, retries: 1, seed: 3}}
figures: []
"""
#: A sweep that runs, forked or in an interpreter of its own.
Program = Started | subprocess.Popen[str]
FAULTY = Path(__file__).with_name("faulty.py")


class Sweeps:
    """Processes that sweep QUICK in one folder."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self.folder, self.out, self.log = folder, folder / "out", folder / "log"
        self.environment = environment or {}
        self.log.touch()
        self._started: list[Program] = []

    def start(
        self,
        faults: dict[float, str],
        *options: object,
        text: str = QUICK,
        machine: str = "",
        interpreter: bool = False,
    ) -> Program:
        """Begin a sweep with these faults, on this machine or as if on another, forked or in a
        new interpreter."""
        spec = self.folder / "quick.yaml"
        spec.write_text(text)
        known = {str(ratio): fault for ratio, fault in faults.items()}
        arguments = ["sweep", spec, "--out", self.out, "--device", "cpu", *options]
        environment = os.environ | self.environment | {"FAULTS_MACHINE": machine}
        environment |= {"FAULTS": json.dumps(known), "FAULTS_LOG": str(self.log)}
        process: Program
        if interpreter:
            command = [sys.executable, FAULTY, *map(str, arguments)]
            pipe = subprocess.PIPE
            process = subprocess.Popen(
                command, env=environment, stdout=pipe, stderr=pipe, text=True
            )
        else:
            process = Started(*arguments, program=FAULTY, environment=environment)
        self._started.append(process)
        return process

    def run(self, faults: dict[float, str], *options: object, text: str = QUICK) -> tuple[int, str]:
        """A sweep to its end: exit code and standard error."""
        process = self.start(faults, *options, text=text)
        _, errors = process.communicate(timeout=120)
        return process.returncode, errors

    def begun(self) -> list[tuple[float, int]]:
        """The trials that began: squeeze ratio and process."""
        lines = (line.split() for line in self.log.read_text().splitlines())
        return [(float(ratio), int(pid)) for ratio, pid in lines]

    def end(self) -> None:
        """Leave no process behind."""
        for process in self._started:
            process.kill()
            process.wait()


def until(condition: Callable[[], bool], seconds: float = 60, every: float = 0.02) -> None:
    """Wait for a condition, which is looked at every so many seconds, but not for ever."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(every)


def gone(pid: int) -> bool:
    """Whether no such process runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def until_done(sweeps: Sweeps, trials: int) -> None:
    """Wait for so many trials to be whole; to look takes a while."""
    until(lambda: status(sweeps.out).complete.done == trials, every=0.25)


def whole(rows: pd.DataFrame) -> bool:
    """Whether each architecture has one row."""
    return sorted(rows["squeeze_ratio"]) == RATIOS
