"""Which compressed or quantised network a sweep's tables speak for."""

from __future__ import annotations

import pandas as pd

from .. import analysis
from ..errors import UserError
from ..network.frames import architecture_name
from ..spec.models import Spec
from .folder import ResultFolder
from .selection import MARGIN

#: The table of each form that trained networks are made into.
FORM_TABLES = {"compressed": "compression", "int8": "int8"}


def drops_of(folder: ResultFolder) -> dict[str, pd.DataFrame]:
    """`analysis.drops` of each form that the folder has a table of."""
    seeds, images = folder.table("seeds"), folder.table("images")
    found = {}
    for form, table in FORM_TABLES.items():
        rows = folder.table(table)
        if rows is not None and seeds is not None:
            found[form] = analysis.drops(rows, seeds, images, form)
    return found


def smaller_lines(spec: Spec, trials: pd.DataFrame, drops: dict[str, pd.DataFrame]) -> list[str]:
    """A line a form: the smallest network that is shown to be hardly worse than its float32 self.

    Args:
        spec: of the sweep.
        trials: its rows.
        drops: as `drops_of` gives them.
    """
    lines = []
    axes = [axis.field for axis in spec.design_space.axes]
    for form, rows in drops.items():
        said = (
            f"smallest {form} network shown to be at most {MARGIN:g} point below its float32 self"
        )
        try:
            row = analysis.smallest_kept(rows, form, MARGIN)
        except UserError:
            lines.append(f"{said} (validation, 95%): none")
            continue
        its = trials[trials["trial"] == row["trial"]].iloc[0]
        how = setting_text(form, row)
        lines.append(
            f"{said} (validation, 95%): trial {row['trial']}, {architecture_name(its, axes)}, "
            f"{how}: {row[f'{form}_mb']:.3f} MB, test top-1 {row[f'{form}_top1']:.2f}% "
            f"({row[f'{form}_drop']:.2f} below)"
        )
    return lines


def setting_text(form: str, row: pd.Series) -> str:
    """How a network was made smaller, in words."""
    if form == "int8":
        return str(row["scheme"]).replace("_", " ")
    return f"density {row['density']:g}, {row['bits']} bits"
