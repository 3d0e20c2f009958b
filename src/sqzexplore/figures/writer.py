"""Figures as files: vector PDF and PNG."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from ..errors import UserError
from ..results.folder import ResultFolder
from .style import STYLE

#: How each figure is drawn, by the name of its file; the call raises UserError where it cannot be.
Figures = Mapping[str, Callable[[], Figure]]


def write_figures(figures: Figures, folder: Path) -> tuple[list[Path], list[str]]:
    """Draw figures and write each under `folder`/figures.

    Returns:
        The files, and of the figures that cannot be drawn their names and why, a line a reason.
    """
    target = ResultFolder(folder).figures
    files: list[Path] = []
    left_out: dict[str, list[str]] = {}
    for name, draw in figures.items():
        with plt.rc_context(STYLE):
            try:
                figure = draw()
            except UserError as error:
                left_out.setdefault(str(error).split(": ", 1)[-1], []).append(name)
                continue
            target.mkdir(parents=True, exist_ok=True)
            files += save(figure, target / name)
    return files, [f"{', '.join(names)}: {reason}" for reason, names in left_out.items()]


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write `stem`.pdf, undated so that a figure redrawn is the same, and `stem`.png."""
    files = []
    for suffix, metadata in ((".pdf", {"CreationDate": None}), (".png", {})):
        files.append(stem.with_name(stem.name + suffix))
        figure.savefig(files[-1], metadata=metadata)
    return files
