"""Tables on the terminal: the one place that makes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from ..results.shown import ShownColumn, shown_columns, shown_rows


def terminal_table(
    title: str,
    columns: Iterable[ShownColumn],
    rows: Iterable[Any],
    caption: str | None = None,
    totals: Iterable[Sequence[str]] = (),
    ends_section: Callable[[Any], bool] | None = None,
    tight: bool = False,
) -> Table:
    """A table for `Console.print`.

    Args:
        title: above it.
        columns: what it shows of a row; the headings are left out if all are empty.
        rows: of any kind that the columns take.
        caption: below it.
        totals: cells of rows below a line, from the left.
        ends_section: whether a line follows a row.
        tight: whether columns stand close and a narrow terminal folds headings, never numbers.
    """
    shown = shown_columns(columns)
    rows = list(rows)
    cells = shown_rows(shown, rows)
    table = Table(
        title=escape(title) or None,
        title_justify="left",
        caption=caption,
        show_header=any(column.heading for column in shown),
        padding=(0, 0) if tight else (0, 1),
        pad_edge=not tight,
    )
    for number, column in enumerate(shown):
        widest = max((len(texts[number]) for texts in cells), default=0)
        table.add_column(
            escape(column.heading.replace("_", "\n") if tight else column.heading),
            justify="left" if column.words else "right",
            min_width=widest if tight else None,
            overflow="fold",
        )
    for row, own in zip(rows, cells, strict=True):
        ends = ends_section is not None and ends_section(row)
        table.add_row(*map(escape, own), end_section=ends)
    table.add_section()
    for below in totals:
        table.add_row(*map(escape, below))
    return table
