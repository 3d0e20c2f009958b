"""Durations as a spec writes them: seconds, or text such as `1h30min`."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import BeforeValidator

_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
_MOST_SECONDS = 366 * 86400.0


def _seconds(value: Any) -> float:
    """A duration in seconds, from a number of them or text such as `1h30min`.

    Raises:
        ValueError: it is no duration, or not above 0 and at most a year.
    """
    seconds = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and re.fullmatch(r"(\s*\d+(\.\d+)?\s*(s|min|h|d))+\s*", value):
        parts = re.findall(r"(\d+(?:\.\d+)?)\s*(s|min|h|d)", value)
        seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not 0 < seconds <= _MOST_SECONDS:
        raise ValueError("expected seconds, or text such as 45s, 90min, 2h or 1d, at most a year")
    return seconds


Duration = Annotated[float, BeforeValidator(_seconds, json_schema_input_type=float | str)]
