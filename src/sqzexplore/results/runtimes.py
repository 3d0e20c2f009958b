"""What several runtimes say of a sweep's architectures."""

from __future__ import annotations

from typing import Any

import pandas as pd

from .. import analysis
from ..errors import UserError
from .remarks import tau_text


def runtime_lines(throughput: pd.DataFrame | None) -> list[str]:
    """A line a batch and size of image on which runtime is fastest, and one a pair on whether they
    rank alike; none where one runtime was measured.

    Args:
        throughput: the table of that name, if there is one.
    """
    lines: list[str] = []
    if throughput is None:
        return lines
    try:
        fastest = analysis.fastest_runtime(throughput)
    except UserError:  # one runtime
        return lines
    several = fastest["input_size"].nunique() > 1
    for _, rows in fastest.groupby(["batch", "input_size"]):
        ways = (rows["runtime"] + " " + rows["dtype"]).value_counts()
        said = ", ".join(f"{way} of {count}" for way, count in ways.items())
        apart = int(rows["told_apart"].fillna(False).astype(bool).sum())
        lines.append(
            f"fastest runtime at {_place(rows.iloc[0], several)}: {said} of {len(rows)} "
            f"architectures; {apart} of them told from every other by intervals that do not touch"
        )
    try:
        ranking = analysis.runtime_ranking(throughput)
    except UserError:  # too few architectures
        return lines
    return lines + [
        f"ranking by latency, {row['first']} against {row['second']}, {_place(row, several)}: "
        f"{tau_text(row)}"
        for row in ranking.to_dict("records")
    ]


def _place(row: Any, several: bool) -> str:
    """The batch of a row, and its size of image where there are several."""
    side = row["input_size"]
    return f"batch {row['batch']}" + (f", {side}x{side}" if several else "")
