"""The journal file of a study, for several processes at once, any of which may be killed."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO

import filelock
from optuna.storages.journal import JournalFileBackend

#: Bytes looked at, at a time, for the end of the last whole line.
_BLOCK = 4096


class Journal(JournalFileBackend):
    """Optuna's journal file, of which a writer may leave half a line behind at any moment.

    A full disk or SIGKILL tears the last line. Optuna would append to it, and never read past it
    again; here whoever appends next drops it first. A record is in the file as a whole or not at
    all, and what was whole once stays as it is.

    Args:
        path: the file; made if there is none.
        lock_path: a file beside it that processes lock by turns. The kernel lets go of a lock when
            its holder is killed; Optuna's own is a link that stays.
    """

    def __init__(self, path: Path, lock_path: Path) -> None:
        self._turn = filelock.FileLock(lock_path, poll_interval=0.002)
        # Of a lock Optuna calls `acquire` and `release` alone.
        lock: Any = self._turn
        super().__init__(str(path), lock)
        self._starts = {0: 0}

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append records.

        Raises:
            OSError: they cannot be written, as on a full disk; the file is as it was.
        """
        with self._turn:  # Optuna takes it again, which its holder may
            with open(self._file_path, "rb+") as file:
                whole = _end_of_whole_lines(file)
                if file.seek(0, os.SEEK_END) > whole:
                    file.truncate(whole)
            try:
                super().append_logs(logs)
            except OSError:
                os.truncate(self._file_path, whole)
                raise

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """The records from number `log_number_from` on.

        Args:
            log_number_from: 0, or up to one more than that of the last record read.

        Raises:
            ValueError: a line is no record.
        """
        start = self._starts[log_number_from]
        *lines, _ = self._read(start).split(b"\n")  # what follows the last is torn
        for number, line in enumerate(lines, log_number_from + 1):
            start += len(line) + 1
            self._starts[number] = start
            yield json.loads(line)

    def _read(self, start: int) -> bytes:
        """The file from byte `start` on, not while a torn line makes way for another."""
        with ExitStack() as stack:
            with suppress(OSError):  # in a folder that this process may only read
                stack.enter_context(self._turn)
            file = stack.enter_context(open(self._file_path, "rb"))
            file.seek(start)
            return file.read()


def _end_of_whole_lines(file: BinaryIO) -> int:
    """Where the last whole line ends; looks at the file's end only."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _BLOCK)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
