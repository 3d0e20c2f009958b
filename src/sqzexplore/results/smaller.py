"""Which compressed or quantised network a sweep's tables speak for."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from .. import analysis
from ..analysis.smaller import SETTINGS
from ..errors import UserError
from ..network.frames import architecture_name
from ..spec.models import Spec
from .folder import ResultFolder
from .selection import MARGIN
from .shown import ShownColumn, axis_columns, interval_column, named

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
    axes = spec.design_space.axis_names
    for form, rows in drops.items():
        said = (
            f"smallest {form} network shown to be at most {MARGIN:g} point below its float32 self "
            f"(validation, 95% over all {len(rows)})"
        )
        try:
            row = analysis.smallest_kept(rows, form, MARGIN)
        except UserError:
            lines.append(f"{said}: none")
            continue
        its = trials[trials["trial"] == row["trial"]].iloc[0]
        how = setting_text(form, row)
        lines.append(
            f"{said}: trial {row['trial']}, {architecture_name(its, axes)}, "
            f"{how}: {row[f'{form}_mb']:.3f} MB, test top-1 {row[f'{form}_top1']:.2f}% "
            f"({row[f'{form}_drop']:.2f} below)"
        )
    return lines


def smaller_columns(
    spec: Spec, trials: pd.DataFrame, form: str, drops: pd.DataFrame
) -> list[ShownColumn]:
    """What people read of `drops`: a row a network and setting.

    Args:
        spec: of the sweep.
        trials: its rows.
        form: `compressed` or `int8`.
        drops: as `drops_of` gives them.
    """
    known = trials.set_index("trial")

    def of_trial(column: ShownColumn) -> ShownColumn:
        return replace(column, cell=lambda row: column.cell(known.loc[row["trial"]]))

    settings = [name for name in SETTINGS[form] if drops[name].nunique() > 1 or form == "int8"]
    return [
        *(of_trial(column) for column in axis_columns(spec.design_space.axis_names)),
        *(named(name, name, words=True) for name in settings),
        named("MB", f"{form}_mb", "{:.4f}"),
        named("float32 top-1 (%)", "top1", "{:.2f}"),
        named("top-1 (%)", f"{form}_top1", "{:.2f}"),
        named("lost (points)", f"{form}_drop", "{:.2f}"),
        interval_column(
            "95% interval", f"{form}_drop_ci_low", f"{form}_drop_ci_high", "{:.2f}", "one seed"
        ),
    ]


def setting_text(form: str, row: pd.Series) -> str:
    """How a network was made smaller, in words."""
    if form == "int8":
        return str(row["scheme"]).replace("_", " ")
    return f"density {row['density']:g}, {row['bits']} bits"
