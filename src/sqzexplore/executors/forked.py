"""Imported last by what workers are forked from, which `processes` starts with Ctrl-C blocked.

A program that sweeps may fork processes of its own from it: those hear Ctrl-C as ever. A worker
does once it has said what to do.
"""

from __future__ import annotations

import signal
from multiprocessing import current_process, util

from ..provenance import git_commit
from .base import WORKER


def _unblock(_: object) -> None:
    if current_process().name != WORKER:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


util.register_after_fork(_unblock, _unblock)
git_commit()  # of the code that is loaded now, and that all workers run
