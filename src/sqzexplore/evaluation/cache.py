"""Measurements of an unfinished trial, kept on disk until all are there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..files import write_json


class Kept:
    """The measurements of an unfinished trial's throughput, on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, Any] = {}
        self.duration_s = 0.0
        self._since = time.perf_counter()
        if path.exists():
            content = json.loads(path.read_text())
            self.rows, self.duration_s = content["rows"], content["duration_s"]

    def get(self, key: str, measure: Callable[[], Any]) -> dict[str, Any]:
        """The kept measurement `key`, or a new one that is kept from now on."""
        if key not in self.rows:
            self.rows[key] = asdict(measure())
            spent = self.duration_s + time.perf_counter() - self._since
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, {"rows": self.rows, "duration_s": spent})
        return self.rows[key]
