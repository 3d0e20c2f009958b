"""Every figure that the tables of a folder give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from ..results.folder import ResultFolder, load_results
from ..results.tables import TABLES
from .analyses import analysis_figures
from .audit import audit_figures
from .smaller import smaller_figures
from .throughput import throughput_figures
from .tradeoff import tradeoff_figures
from .writer import write_figures


def draw_all(folder: Path) -> tuple[list[Path], list[str]]:
    """Write the figures of what the folder holds: a sweep's trials, throughput, an audit.

    Returns:
        The files, and what was left out with why.
    """
    figures: dict[str, Callable[[], Figure]] = {}
    results = ResultFolder(folder)
    throughput = results.table("throughput")
    if results.has("trials") or throughput is None:
        trials, spec = load_results(folder), results.spec()
        seeds, images = results.table("seeds"), results.table("images")
        figures |= tradeoff_figures(spec, trials)
        figures |= analysis_figures(spec, trials, seeds, images)
        figures |= smaller_figures(spec, trials, folder)
    if throughput is not None:
        figures |= throughput_figures(throughput)
    audit, curve = results.table("audit"), results.table("audit_curve")
    if audit is not None:
        empty = pd.DataFrame(columns=[*TABLES["audit_curve"]])
        figures |= audit_figures(audit, empty if curve is None else curve)
    return write_figures(figures, folder)
