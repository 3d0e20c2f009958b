"""What every analysis asks of its table, and what it says where that is missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import UserError, nearest, shown
from ..network.architecture import KEYS
from ..schema import COMPRESSED, COST, QUANTISED, RUN, SIZELESS, SPEED


def require_columns(caller: str, frame: pd.DataFrame, names: Iterable[str]) -> None:
    """Raise `UserError` at the first of `names` that is no column."""
    for name in names:
        if name not in frame:
            raise UserError(
                f"{caller}: no column {shown(name)}{nearest(name, map(str, frame.columns))}"
            )


def require_rows(caller: str, found: int, least: int, what: str) -> None:
    """Raise `UserError` below `least` rows; `what` they are, in the plural."""
    if found < least:
        raise UserError(f"{caller}: found {found} {what}, expected at least {least}")


def largest_budget(rows: pd.DataFrame) -> pd.DataFrame:
    """Of a table of trainings, those of each trial's largest number of epochs: of which `trials`
    speaks."""
    if "epochs" not in rows or rows["epochs"].isna().all():
        return rows  # of a version that knew one
    largest = rows.groupby(["sweep", "trial"])["epochs"].transform("max")
    return rows[rows["epochs"].isna() | (rows["epochs"] == largest)]


#: What must be equal where two accuracies are compared, and where two speeds or costs are.
_OF_ACCURACY = (
    *("data", "data_sha256", "epochs", "recipe", "precision"),
    *("proxy", "train_input_size"),
)
_OF_SPEED = (
    *(name for name, column in SPEED.items() if column.is_setting),
    *("input_size", "threads", "caching_allocator"),
)


def require_alike(caller: str, rows: pd.DataFrame, names: Iterable[str]) -> None:
    """Raise `UserError` where the numbers of `names` in `rows` cannot be compared: accuracies on
    other data or of another budget or proxy, speeds of another device or setting, costs at another
    size of image."""
    settings: dict[str, None] = {}
    for name in names:
        if name in RUN or name in COMPRESSED or name in QUANTISED:
            settings |= dict.fromkeys(_OF_ACCURACY)
        elif name in SPEED:
            own = "throughput_device_name"  # of a trial, which may have been trained elsewhere
            settings |= dict.fromkeys((*_OF_SPEED, own if own in rows else "device_name"))
        elif name in COST and name not in SIZELESS:
            settings["input_size"] = None
        elif (of := name.removeprefix("train_")) in COST and of not in SIZELESS:
            settings["train_input_size"] = None
    sums = rows["data_sha256"].unique().tolist() if "data_sha256" in rows else []
    if len(sums) == 1 and pd.notna(sums[0]):
        settings.pop("data", None)  # the same images in a folder of another name
    for setting in settings:
        values = rows[setting].dropna().unique().tolist() if setting in rows else []
        if len(values) > 1:
            raise UserError(
                f"{caller}: {', '.join(names)}: found rows of different {setting} "
                f"({', '.join(map(shown, values[:3]))}{', ...' if len(values) > 3 else ''}), "
                f"expected those of one: choose rows, or say by=[{setting!r}] where it is taken"
            )


def objectives(
    caller: str,
    frame: pd.DataFrame,
    minimize: Sequence[str],
    maximize: Sequence[str],
    alike: bool = True,
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The numbers of the rows that have every objective, and these (rows x objectives), of which
    less is always better.

    Raises:
        UserError: no objective, one that is no column or no number, or, with `alike`, rows that
            cannot be compared (`require_alike`).
    """
    names = [*minimize, *maximize]
    if not names:
        raise UserError(f"{caller}: found no column, expected some to minimize or maximize")
    require_columns(caller, frame, names)
    values = np.stack([numbers(caller, frame, name) for name in names], axis=1)
    known = np.flatnonzero(~np.isnan(values).any(axis=1))
    if alike:
        require_alike(caller, frame.iloc[known], names)
    return known, values[known] * signs(minimize, maximize)


def signs(minimize: Sequence[str], maximize: Sequence[str]) -> NDArray[np.float64]:
    """What turns each objective into one of which less is better."""
    return np.array([1.0] * len(minimize) + [-1.0] * len(maximize))


def numbers(caller: str, frame: pd.DataFrame, name: str) -> NDArray[np.float64]:
    """A column as numbers; what is missing is NaN.

    Raises:
        UserError: there is no such column, or it holds something else.
    """
    require_columns(caller, frame, [name])
    try:
        return frame[name].to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        raise UserError(
            f"{caller}: column {shown(name)}: found {shown(frame[name].iloc[0])}, expected numbers"
        ) from None


def varying(frame: pd.DataFrame) -> list[str]:
    """The metaparameters, those of single Fires included, that every row has and that differ."""
    known = [name for name in KEYS if name in frame and frame[name].notna().all()]
    return [name for name in known if frame[name].nunique() > 1]
