"""What unfinished trials keep on disk: the state of trainings, and what tasks measured."""

from __future__ import annotations

from collections.abc import Container
from contextlib import suppress
from pathlib import Path

from ..network.architecture import Architecture


class Scratch:
    """The files of unfinished trials; each begins with its architecture's `arch_id`.

    Args:
        folder: which holds nothing else.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def clean(self, architecture: Architecture, but_throughput: bool) -> None:
        """Remove what a trial left, and what a killed process was writing of it.

        Args:
            architecture: the trial's.
            but_throughput: its throughput is still to be measured, and what was measured stays.
        """
        for pattern in (f"{architecture.arch_id}-*", f".{architecture.arch_id}-*"):
            for file in self.folder.glob(pattern):
                if not (but_throughput and file.stem.endswith("-speeds")):
                    file.unlink(missing_ok=True)

    def tidy(self, known: Container[str]) -> None:
        """Nothing is left to do: remove what killed processes left. Not before, for a worker may
        be about to write into the folder.

        Args:
            known: every `arch_id` that has its row.
        """
        for file in self.folder.glob("*"):
            if file.name.lstrip(".").partition("-")[0] in known:
                file.unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()
