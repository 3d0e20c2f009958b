"""Architectures as rows of a pandas table, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import ValidationError

from ..errors import UserError, field_problem, shown
from .architecture import FIELDS, KEYS, Architecture
from .columns import Columns, decode, encode
from .overrides import BYPASSES, MAX_FIRES, OVERRIDES, is_missing, parse_overrides


def frame_of_columns(columns: Columns, rows: int) -> pd.DataFrame:
    """Columns as a table that people and `columns_of_frame` read: a column a field, in order.

    `pool_after` ("1,4,8") and `bypass` are categories: text held once a distinct value.
    """
    frame: dict[str, Any] = {}
    for name, kind in FIELDS.items():
        values = np.broadcast_to(np.asarray(columns[name]), rows)
        if kind in (str, tuple):
            codes, distinct = pd.factorize(values)
            names = [format_value(decode(name, value)) for value in distinct]
            frame[name] = pd.Categorical.from_codes(codes, categories=pd.Index(names, dtype=object))
        else:
            frame[name] = values.astype(kind)
    for name in OVERRIDES if len(columns) > len(FIELDS) else ():
        if name in columns:
            frame[name] = _override_frame(name, np.broadcast_to(np.asarray(columns[name]), rows))
    return pd.DataFrame(frame)


def _override_frame(name: str, values: NDArray[Any]) -> Any:
    """An override's column for a table: missing where there is none."""
    if KEYS[name] is float:
        return values
    if KEYS[name] is int:
        return pd.array(values, dtype="Int64")
    codes = np.where(np.isnan(values), -1, values).astype(int)
    return pd.Categorical.from_codes(codes, categories=pd.Index(BYPASSES, dtype=object))


def format_value(value: Any) -> str:
    """A field's value as tables show it; the layers of `pool_after` as "1,4,8"."""
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def value_text(value: Any) -> str:
    """A metaparameter's value: 0.125, simple, 1,4,8; a dash where a Fire overrides nothing."""
    if is_missing(value):
        return "-"
    return f"{value:g}" if isinstance(value, float) else format_value(value)


def architecture_name(row: Mapping[str, Any] | pd.Series, axes: Iterable[str]) -> str:
    """An architecture by what varies in its sweep: "squeeze_ratio 0.125, bypass simple"."""
    return ", ".join(f"{axis} {value_text(row.get(axis))}" for axis in axes)


def with_overrides(frame: pd.DataFrame) -> pd.DataFrame:
    """A table of trials with a column for each override that any of its rows has."""
    if "overrides" not in frame or frame["overrides"].isna().all():
        return frame
    rows = _parsed(frame["overrides"])
    keys = [key for key in OVERRIDES if any(key in row for row in rows)]
    own = {key: pd.Series([row.get(key) for row in rows], index=frame.index) for key in keys}
    return frame.assign(**own)


def columns_of_frame(frame: pd.DataFrame) -> dict[str, Any]:
    """The architecture fields of a table as columns; a missing field is at its default.

    Other columns of the table are ignored. `pool_after` is text ("1,4,8"), tuples, lists, or the
    integer that a CSV reader makes of a single layer. Overrides are in columns of their own
    (`fire5.squeeze_ratio`, missing where there is none), or together in the column `overrides`.

    Raises:
        UserError: a value that the field does not take.
    """
    default = Architecture()
    columns: dict[str, Any] = {}
    for name, kind in FIELDS.items():
        if name not in frame:
            columns[name] = encode(name, [getattr(default, name)])[0]
        elif name == "pool_after" or kind is str:
            columns[name] = _categories(frame[name], name)
        else:
            columns[name] = _numbers(frame[name], name, kind)
    if "overrides" in frame:
        columns |= _overrides(frame["overrides"])
    for name in map(str, frame):
        if name in OVERRIDES:
            columns[name] = _override(frame[name], name)
    return columns


def _parsed(series: pd.Series) -> list[dict[str, Any]]:
    """The column `overrides`, row by row.

    Raises:
        UserError: what is no text, mapping or pairs of overrides.
    """
    try:
        return [parse_overrides(value) for value in series]
    except ValueError as error:
        raise UserError(f"column 'overrides': {error}") from None


def _overrides(series: pd.Series) -> dict[str, NDArray[Any]]:
    """The column `overrides` (text, mappings or pairs) as a column each."""
    given = _parsed(series)
    keys = {key for row in given for key in row}
    return {
        key: _override(pd.Series([row.get(key) for row in given], dtype=object), key)
        for key in OVERRIDES
        if key in keys
    }


def _override(series: pd.Series, name: str) -> NDArray[Any]:
    """A column of what one Fire overrides."""
    codes, values = _distinct(series)
    if KEYS[name] is int:  # pandas holds integers with gaps as floats
        floats = float | np.floating
        values = [int(v) if isinstance(v, floats) and v.is_integer() else v for v in values]
    checked = [None if is_missing(v) else _check(name, v, fires=MAX_FIRES) for v in values]
    return encode(name, checked)[codes]


def _categories(series: pd.Series, name: str) -> NDArray[Any]:
    """A column of few distinct values: each is checked and encoded once."""
    codes, values = _distinct(series)
    checked = [_check(name, value, fires=MAX_FIRES) for value in values]
    return encode(name, checked)[codes]


def _distinct(series: pd.Series) -> tuple[NDArray[np.intp], list[Any]]:
    """The number of each row's value among the distinct ones, and these."""
    try:
        codes, distinct = pd.factorize(series, use_na_sentinel=False)
    except TypeError:  # lists cannot be hashed
        series = series.map(lambda v: tuple(v) if isinstance(v, list | np.ndarray) else v)
        codes, distinct = pd.factorize(series, use_na_sentinel=False)
    return codes, list(distinct)


def _numbers(series: pd.Series, name: str, kind: type) -> NDArray[np.float64]:
    """A column of numbers, whose extremes the field must take."""
    values = series.to_numpy()
    allowed = {float: "iuf", int: "iu", bool: "b"}[kind]
    if values.dtype.kind not in allowed or (values.dtype.kind == "f" and np.isnan(values).any()):
        raise UserError(f"column {name!r}: found {series.dtype}, expected {kind.__name__}, no gaps")
    if len(values):
        _check(name, values.min())
        _check(name, values.max())
    return values.astype(np.float64)


def _check(name: str, value: Any, **others: Any) -> Any:
    try:
        return Architecture(**{"pool_after": (), **others, name: value}).get(name)
    except ValidationError as error:
        raise UserError(
            f"column {name!r}: found {shown(value)}, {field_problem(error.errors()[0])}"
        ) from None
