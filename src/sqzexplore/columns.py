"""Architectures as columns: one array a metaparameter, for arithmetic over millions of them.

Numbers are float64 (exact for every integer a field takes), `pool_after` is a bit mask in int64
(bit `layer` is set), `bypass` an index into `BYPASSES`, `batch_norm` 0 or 1. A scalar stands for
a field that is the same in every row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import ValidationError

from .architecture import BYPASSES, FIELDS, MAX_FIRES, Architecture
from .errors import UserError, field_problem, shown

Columns = Mapping[str, Any]


def encode(field: str, values: Iterable[Any]) -> NDArray[Any]:
    """Valid values of one field as a column."""
    if field == "pool_after":
        return np.array([sum(1 << layer for layer in v) for v in values], dtype=np.int64)
    if field == "bypass":
        return np.array([BYPASSES.index(v) for v in values], dtype=np.float64)
    return np.array(list(values), dtype=np.float64)


def decode(field: str, value: Any) -> Any:
    """One number of a column as the value that the field holds."""
    if field == "pool_after":
        return tuple(layer for layer in range(1, MAX_FIRES + 2) if int(value) >> layer & 1)
    if field == "bypass":
        return BYPASSES[int(value)]
    return FIELDS[field](value)


def columns_of(architectures: list[Architecture]) -> dict[str, NDArray[Any]]:
    """Architectures as columns."""
    return {name: encode(name, [getattr(a, name) for a in architectures]) for name in FIELDS}


def architecture_at(columns: Columns, row: int) -> Architecture:
    """The Architecture of one row of columns."""
    return Architecture(
        **{k: decode(k, v if np.ndim(v) == 0 else v[row]) for k, v in columns.items()}
    )


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
    return pd.DataFrame(frame)


def format_value(value: Any) -> str:
    """A field's value as tables show it; the layers of `pool_after` as "1,4,8"."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def columns_of_frame(frame: pd.DataFrame) -> dict[str, Any]:
    """The architecture fields of a table as columns; a missing field is at its default.

    Other columns of the table are ignored. `pool_after` is text ("1,4,8"), tuples or lists.

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
    return columns


def _categories(series: pd.Series, name: str) -> NDArray[Any]:
    """A column of few distinct values: each is checked and encoded once."""
    try:
        codes, values = pd.factorize(series, use_na_sentinel=False)
    except TypeError:  # lists cannot be hashed
        series = series.map(lambda v: tuple(v) if isinstance(v, list | np.ndarray) else v)
        codes, values = pd.factorize(series, use_na_sentinel=False)
    checked = [_check(name, value, fires=MAX_FIRES) for value in values]
    return encode(name, checked)[codes]


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
        return getattr(Architecture(**{"pool_after": (), **others, name: value}), name)
    except ValidationError as error:
        raise UserError(
            f"column {name!r}: found {shown(value)}, {field_problem(error.errors()[0])}"
        ) from None
