"""Pydantic's errors in a spec's words: the key's path, what was found, what was expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from ..errors import field_problem, nearest, shown
from .yaml_text import KeyPath, Problem


def from_pydantic(
    error: ValidationError, model: type[BaseModel], data: Any, at: KeyPath = ()
) -> Problem:
    """The first of pydantic's errors, in our words; unknown keys first, they explain the rest."""

    def steps_of(one: Any) -> KeyPath:
        return tuple(step for step in one["loc"] if _in_data(step, one["loc"], data))

    errors = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    first, steps = errors[0], steps_of(errors[0])
    if first["type"] != "extra_forbidden":  # a list that may be one number: what is wrong in it
        same = (one for one in errors if steps_of(one)[: len(steps)] == steps)
        first = max(same, key=lambda one: len(steps_of(one)))
        steps = steps_of(first)
    path = (*at, *steps)
    if first["type"] == "extra_forbidden":
        valid = _keys_at(model, steps[:-1])
        return Problem(
            path, f"unknown key, expected one of {', '.join(valid)}{nearest(steps[-1], valid)}"
        )
    if first["type"] == "missing":
        return Problem((*at, *first["loc"]), field_problem(first))
    if first["type"] == "string_pattern_mismatch":
        expected = "expected letters, digits, '_', '-' and '.', at most 64, a letter or digit first"
        return Problem(path, f"found {shown(first['input'])}, {expected}")
    if not first["loc"]:  # fields that do not fit together; the message names them
        return Problem(path, field_problem(first))
    if steps == ("base",) and first["type"] == "string_type":
        return Problem(path, f"found {shown(data['base'])}, expected a preset or a mapping")
    return Problem(path, unexpected(first["input"], field_problem(first)))


def unexpected(value: Any, expected: str) -> str:
    """`found VALUE, EXPECTED`, with a hint where quotes make text of a number."""
    hint = ""
    if isinstance(value, str):
        try:
            float(value)
            hint = " (text, as it stands in quotes: write the number without them)"
        except ValueError:
            pass
    return f"found {shown(value)}, {expected}{hint}"


def _in_data(step: str | int, loc: tuple[str | int, ...], data: Any) -> bool:
    """Pydantic's locations also name the member of a union; those are no keys of the file."""
    for part in loc:
        inside = (isinstance(data, Mapping) and part in data) or (
            isinstance(data, Sequence)
            and not isinstance(data, str)
            and isinstance(part, int)
            and part < len(data)
        )
        if part == step:
            return inside
        if inside:
            data = data[part]
    return False


def _keys_at(model: type[BaseModel], path: KeyPath) -> list[str]:
    for step in path:
        field = model.model_fields.get(str(step))
        if field is not None:
            inner = [a for a in _flatten(field.annotation) if isinstance(a, type)]
            models = [a for a in inner if issubclass(a, BaseModel)]
            model = models[0] if models else model
    return list(model.model_fields)


def _flatten(annotation: Any) -> list[Any]:
    inner = getattr(annotation, "__args__", ())
    return [annotation] + [leaf for a in inner for leaf in _flatten(a)]
