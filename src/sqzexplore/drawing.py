"""Every figure that the tables of a folder give."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from .completeness import SPEC_FILE
from .figures import write_figures
from .figures_analysis import write_analysis_figures
from .figures_throughput import write_throughput_figures
from .results import load_results
from .spec import Spec


def draw_all(folder: Path) -> tuple[list[Path], list[str]]:
    """The figures of what the folder holds, a sweep's trials and throughput; what was left out."""
    files: list[Path] = []
    left_out: list[str] = []
    if (folder / "trials.parquet").exists() or not (folder / "throughput.parquet").exists():
        trials, spec = load_results(folder), Spec.load(folder / SPEC_FILE)
        files += write_figures(spec, trials, folder)
        drawn, left_out = write_analysis_figures(spec, trials, seeds_of(folder), folder)
        files += drawn
    if (folder / "throughput.parquet").exists():
        files += write_throughput_figures(load_results(folder, "throughput"), folder)
    return files, left_out


def seeds_of(folder: Path) -> pd.DataFrame | None:
    """The trainings of a sweep, of all budgets; None if it made none."""
    return load_results(folder, "seeds") if (folder / "seeds.parquet").exists() else None
