"""Every figure that the tables of a folder give."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ..results.folder import ResultFolder, load_results
from ..results.tables import TABLES
from .analyses import write_analysis_figures
from .audit import write_audit_figures
from .smaller import write_smaller_figures
from .throughput import write_throughput_figures
from .tradeoff import write_figures


def draw_all(folder: Path) -> tuple[list[Path], list[str]]:
    """The figures of what the folder holds, a sweep's trials and throughput, an audit; what was
    left out."""
    files: list[Path] = []
    left_out: list[str] = []
    results = ResultFolder(folder)
    throughput = results.table("throughput")
    if results.has("trials") or throughput is None:
        trials, spec = load_results(folder), results.spec()
        files += write_figures(spec, trials, folder)
        seeds, images = results.table("seeds"), results.table("images")
        drawn, left_out = write_analysis_figures(spec, trials, seeds, images, folder)
        files += [*drawn, *write_smaller_figures(spec, trials, folder)]
    if throughput is not None:
        files += write_throughput_figures(throughput, folder)
    audit, curve = results.table("audit"), results.table("audit_curve")
    if audit is not None:
        empty = pd.DataFrame(columns=[*TABLES["audit_curve"]])
        files += write_audit_figures(audit, empty if curve is None else curve, folder)
    return files, left_out
