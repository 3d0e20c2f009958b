"""What several runtimes say of a sweep's architectures."""

from __future__ import annotations

import math

import pandas as pd

from .. import analysis
from ..errors import UserError


def runtime_lines(throughput: pd.DataFrame | None) -> list[str]:
    """A line a batch on which runtime is fastest, and one a pair on whether they rank alike; none
    where one runtime was measured.

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
    for batch, rows in fastest.groupby("batch"):
        ways = (rows["runtime"] + " " + rows["dtype"]).value_counts()
        said = ", ".join(f"{way} of {count}" for way, count in ways.items())
        apart = int(rows["told_apart"].fillna(False).astype(bool).sum())
        lines.append(
            f"fastest runtime at batch {batch}: {said} of {len(rows)} architectures; "
            f"{apart} of them told from every other by intervals that do not touch"
        )
    try:
        ranking = analysis.runtime_ranking(throughput)
    except UserError:  # too few architectures
        return lines
    for row in ranking.to_dict("records"):
        low, high = row["ci_low"], row["ci_high"]
        sure = "the same order" if math.isnan(low) else f"{low:.2f} to {high:.2f}"
        lines.append(
            f"ranking by latency, {row['first']} against {row['second']}, batch {row['batch']}: "
            f"Kendall's tau {row['kendall']:.2f} ({sure}, {row['architectures']} architectures)"
        )
    return lines
