"""A spec with a narrower space, and why, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ..errors import UserError
from ..network.frames import format_value
from ..space.axis import Axis
from . import yaml_text
from .models import Spec
from .yaml_text import flow


def narrowed(spec: Spec, ranges: pd.DataFrame, evidence: Sequence[str]) -> str:
    """The text of a sweep file whose axes are within the ranges that hold the best.

    Args:
        spec: of the sweep that was evaluated.
        ranges: as `analysis.best_ranges` gives them.
        evidence: what they rest on, a comment line each.

    Raises:
        UserError: no axis becomes narrower.
    """
    if spec.design_space.listed:
        raise UserError(f"{spec.name}: found a list of architectures, expected a space of axes")
    content: dict[str, Any] = yaml_text.load(spec.source)
    records: list[dict[str, Any]] = ranges.to_dict("records")  # type: ignore[assignment]
    known = {str(row["axis"]): row for row in records}
    axes = {axis.field: axis for axis in spec.design_space.axes}
    needed = {name for axis in axes.values() for name, _ in axis.when}
    lines, changed = ["space:"], 0
    for name, value in content["space"].items():
        axis = axes[str(name)]
        if axis.field in needed:
            new, why = value, "as it was: another axis exists at some of its values alone"
        else:
            new, why = _narrower(axis, value, known.get(axis.field))
        changed += new != value
        lines.append(f"  {flow({name: new})}  # {why}")
    if not changed:
        raise UserError(
            f"{spec.name}: no axis becomes narrower: the best may have any value that was tried"
        )
    content["name"] = f"{spec.name[:56]}-refined"
    parts = [*(f"# {line}" for line in evidence)]
    for key, value in content.items():
        if key == "space":
            parts += lines
        elif key == "claims":  # of other values, which may have gone
            parts.append("# the claims of the wider space are left out")
        else:
            parts.append(yaml_text.dump({key: value}, width=100).rstrip())
    return "\n".join(parts) + "\n"


def _narrower(axis: Axis, value: Any, row: Mapping[str, Any] | None) -> tuple[Any, str]:
    """What stands for an axis from now on, and why."""
    if axis.when or (isinstance(value, dict) and "subsets_of" in value):
        return value, "as it was: conditions and subsets are not narrowed"
    if row is None:
        return value, "as it was: it did not vary among the architectures"
    shares = dict(zip(map(format_value, row["values"]), row["share_of"], strict=True))
    if isinstance(value, list):
        kept = [one for one in value if _holds(row, one, shares)]
        text = ", ".join(
            f"{format_value(one)} {shares.get(format_value(one), 0):.0%}" for one in kept
        )
        if len(kept) == len(value) or not kept:
            return value, f"as it was; held the best: {text}"
        return kept, f"of {len(value)} values; held the best: {text}"
    if isinstance(value, dict) and not pd.isna(row.get("low")):
        low, high = _typed(row["low"], value), _typed(row["high"], value)
        if low == high or (low <= value["min"] and high >= value["max"]):
            return value, "as it was: the middle 95% of the best reach as far, or are one value"
        new = {**value, "min": max(low, value["min"]), "max": min(high, value["max"])}
        return new, f"was {value['min']} to {value['max']}: the middle 95% of the best"
    return value, "as it was"


def _holds(row: Mapping[str, Any], value: Any, shares: Mapping[str, float]) -> bool:
    """Whether a listed value stays: within the range of numbers, or often enough the best."""
    if not pd.isna(row.get("low")):
        return bool(row["low"] <= value <= row["high"])
    return format_value(value) in shares


def _typed(number: float, value: Mapping[str, Any]) -> Any:
    """A bound of the kind that the file has."""
    whole = isinstance(value["min"], int) and isinstance(value["max"], int)
    return int(number) if whole and float(number).is_integer() else float(number)
