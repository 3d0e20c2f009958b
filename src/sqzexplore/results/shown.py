"""Tables for the eyes: what a column shows of a row, the same on a terminal and on a page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..network.frames import value_text
from ..network.overrides import is_missing


@dataclass(frozen=True)
class ShownColumn:
    """A column of a table that people read.

    Args:
        heading: with the unit, if there is one.
        cell: the text of a row.
        words: whether it holds words, which stand to the left; numbers stand to the right.
        when: whether the table has this column at all.
    """

    heading: str
    cell: Callable[[Any], str]
    words: bool = False
    when: bool = True


def shown_columns(columns: Iterable[ShownColumn]) -> list[ShownColumn]:
    """Those of `columns` that the table has."""
    return [column for column in columns if column.when]


def shown_rows(columns: Sequence[ShownColumn], rows: Iterable[Any]) -> list[list[str]]:
    """The cells of `rows`."""
    return [[column.cell(row) for column in columns] for row in rows]


def named(heading: str, name: str, form: str = "{}", words: bool = False) -> ShownColumn:
    """A column that shows the value `name` of each row as `form` says, or nothing."""

    def cell(row: Any) -> str:
        value = row[name]
        return "" if is_missing(value) else form.format(value)

    return ShownColumn(heading, cell, words)


def axis_columns(axes: Iterable[str]) -> list[ShownColumn]:
    """A column a metaparameter that varies; empty where a Fire overrides nothing."""

    def column(axis: str) -> ShownColumn:
        def cell(row: Any) -> str:
            value = row.get(axis)
            return "" if is_missing(value) else value_text(value)

        return ShownColumn(axis, cell, words=True)

    return [column(axis) for axis in axes]


def interval_column(
    heading: str, low: str, high: str, form: str = "{:.4g}", otherwise: str = ""
) -> ShownColumn:
    """A column of the interval between two others; `otherwise` where there is none."""

    def cell(row: Any) -> str:
        if is_missing(row[low]) or is_missing(row[high]):
            return otherwise
        return f"{form.format(row[low])} to {form.format(row[high])}"

    return ShownColumn(heading, cell)


def threads_text(count: int) -> str:
    """A number of CPU threads in words."""
    return "1 thread" if count == 1 else f"{count} threads"
