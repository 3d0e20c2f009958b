"""The command line, with tasks that misbehave: `python faulty.py sweep SPEC ...`.

FAULTS is JSON: squeeze ratio -> what happens to its tasks. FAULTS_MACHINE is the name of another
machine, whose lock files cannot be seen and whose heartbeats are old after two seconds. Worker
processes import this file too.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from datetime import timedelta
from pathlib import Path

from sqzexplore.evaluation import bench
from sqzexplore.sweep import leases

_real = bench.Bench.perform


def faulty(bench, task, *rest):
    """`perform`, unless the architecture's squeeze ratio has a fault."""
    architecture = task.architecture
    what = json.loads(os.environ["FAULTS"]).get(str(architecture.squeeze_ratio), "")
    log = Path(os.environ["FAULTS_LOG"])
    with log.open("a") as file:
        file.write(f"{architecture.squeeze_ratio} {os.getpid()}\n")
    first = log.read_text().count(f"{architecture.squeeze_ratio} ") == 1
    match what.split():
        case ["hang"]:
            time.sleep(3600)
        case ["hang", "once"] if first:
            time.sleep(3600)
        case ["slow", seconds]:
            time.sleep(float(seconds))
        case ["until", path]:
            while not Path(path).exists():
                time.sleep(0.02)
        case ["die"]:
            os.kill(os.getpid(), signal.SIGKILL)
        case ["die", "once"] if first:
            os.kill(os.getpid(), signal.SIGKILL)
        case ["exit"]:
            os._exit(7)
        case ["raise"]:
            raise ArithmeticError("no good")
        case ["memory"]:
            bytearray(1 << 50)
        case ["eat"]:
            eat()
    yield from _real(bench, task, *rest)


def eat():
    """Take memory until the system gives no more, which is after 300 MB more than now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 300_000_000, hard))
    eaten = []
    try:
        while True:
            eaten.append(b"x" * 10_000_000)
    finally:
        eaten.clear()
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


bench.Bench.perform = faulty
if machine := os.environ.get("FAULTS_MACHINE"):
    leases._machine = lambda: machine
    leases.STALE, leases.HEARTBEAT_S = timedelta(seconds=2), 0.3

if __name__ == "__main__":
    from sqzexplore.cli.app import main

    main()
