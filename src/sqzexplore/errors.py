"""What a user can get wrong, as exceptions, and the wording that all of them share."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any


class UserError(ValueError):
    """The user's input is wrong. The command line prints the message alone and exits with 2."""

    def at(self, place: object) -> UserError:
        """The same error, with the option, key or file that it is about in front."""
        return UserError(f"{place}: {self}")


class FeatureMapVanishes(UserError):
    """An architecture downsamples its input to nothing; the message names the layer."""


class CostOverflow(UserError, OverflowError):
    """A count is too large to be exact; nothing wraps around or is rounded."""


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 60
_short.maxlevel = 2


def shown(value: object) -> str:
    """`value` as a message quotes it: one line, never longer than a line."""
    value = getattr(value, "item", lambda: value)()  # a NumPy scalar as Python's
    text = " ".join(_short.repr(value).split())
    return text if len(text) <= 120 else f"{text[:117]}..."


def field_problem(error: Mapping[str, Any]) -> str:
    """What pydantic says of a field, as `expected ...`."""
    context = error.get("ctx", {})
    bounds = {
        "greater_than": "expected a number > {gt}",
        "greater_than_equal": "expected a number >= {ge}",
        "less_than": "expected a number < {lt}",
        "less_than_equal": "expected a number <= {le}",
        "literal_error": "expected {expected}",
        "enum": "expected {expected}",
        "too_short": "expected at least {min_length} of them",
        "too_long": "expected at most {max_length} of them",
    }
    kinds = {
        "int_type": "expected an integer",
        "int_from_float": "expected an integer",
        "float_type": "expected a number",
        "finite_number": "expected a finite number",
        "bool_type": "expected true or false",
        "string_type": "expected text",
        "list_type": "expected a list",
        "tuple_type": "expected a list",
        "dict_type": "expected a mapping of keys to values",
        "model_type": "expected a mapping of keys to values",
        "model_attributes_type": "expected a mapping of keys to values",
        "missing": "expected a value, the key is missing",
    }
    kind = error["type"]
    if kind in bounds:
        return bounds[kind].format(**context)
    if kind == "value_error":
        return str(context["error"])
    return kinds.get(kind, error["msg"])


def nearest(word: object, valid: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the valid word nearest to `word`, or an empty string."""
    matches = difflib.get_close_matches(str(word), list(valid), n=1, cutoff=0.6)
    return f"; did you mean {matches[0]!r}?" if matches else ""
