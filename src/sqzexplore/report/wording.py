"""How the report writes values: the same in its sentences, tables and axes."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ..results.tables import TRIALS

ACCURACY = ("top1", "top5", "val_top1")
SPEED = ("images_per_s", "latency_ms_p50", "latency_ms_p99")


def number(column: str, value: Any) -> str:
    """A number of `column` for the eyes: counts in full, percentages to 0.01, others to 4 digits;
    empty where it is missing."""
    if value is None or pd.isna(value):
        return ""
    known = TRIALS.get(column)
    if known is not None and known.type == "Int64":
        return f"{int(value):,}"
    if known is not None and known.unit == "%":
        return f"{value:.2f}"
    if isinstance(value, str | bool):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def with_unit(text: str, unit: str) -> str:
    """`text` and its unit: 4.8 MB, 90.1%."""
    return f"{text}{unit}" if unit == "%" else f"{text} {unit}".strip()


def heading(column: str) -> str:
    """A column's name and unit."""
    unit = TRIALS[column].unit if column in TRIALS else ""
    return f"{column} ({unit})" if unit else column


def remark(column: str, trials: pd.DataFrame) -> str:
    """What a column's numbers must not be taken for: proxy accuracy, one device, which network."""
    if column.startswith(ACCURACY) or column.endswith("_top1"):
        names = ", ".join(map(str, trials["data"].dropna().unique()))
        epochs = ", ".join(map(str, trials["epochs"].dropna().unique()))
        return f"proxy: {names}, {epochs} epochs" if names else "proxy"
    if column.startswith("train_"):
        return "of the trained network"
    if column in SPEED:
        parts = []
        for name in ("throughput_device_name", "batch", "dtype"):
            values = trials.loc[trials["images_per_s"].notna(), name].dropna().unique()
            if len(values) == 1:
                parts.append(f"batch {values[0]}" if name == "batch" else str(values[0]))
        return ", ".join(parts)
    return ""
