"""Measurements of an unfinished trial, kept on disk until all are there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..files import write_json


def training_file(scratch: Path, arch_id: str, epochs: int, seed: int) -> Path:
    """Where a training is kept once it is done, on whatever device."""
    return scratch / f"{arch_id}-epochs{epochs}-seed{seed}.json"


def throughput_file(scratch: Path, arch_id: str, device_type: str) -> Path:
    """Where the speeds of an architecture on a kind of device are kept."""
    return scratch / f"{arch_id}-{device_type}-speeds.json"


class MeasurementCache:
    """The measurements of an unfinished trial's throughput, on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, Any] = {}
        self.duration_s = 0.0
        self._since = time.perf_counter()
        if path.exists():
            content = json.loads(path.read_text())
            self.rows, self.duration_s = content["rows"], content["duration_s"]

    def get(self, key: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The kept measurement `key`, or a new one that is kept from now on."""
        if key not in self.rows:
            self.rows[key] = measure()
            spent = self.duration_s + time.perf_counter() - self._since
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, {"rows": self.rows, "duration_s": spent})
        return self.rows[key]
