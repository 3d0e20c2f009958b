"""A YAML file -> a checked `Spec`."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from ..errors import shown
from . import yaml_text
from .checks import check_figures, check_search, space_of
from .models import Spec
from .pydantic_errors import from_pydantic
from .yaml_text import Problem


def load_spec(path: str | Path) -> Spec:
    """The spec in a YAML file.

    Raises:
        UserError: the file cannot be read, or is no valid spec; one message names the file, the
            line, the key's path, what was found and what was expected.
    """
    path = Path(path)
    text = yaml_text.read(path)
    try:
        return parse_spec(text)
    except Problem as problem:
        raise problem.at(path, text) from None


def parse_spec(text: str) -> Spec:
    """The spec in YAML text; raises `UserError`, without the file's name."""
    data = yaml_text.load(text)
    if not isinstance(data, dict):
        raise Problem((), f"found {shown(data)}, expected a mapping of keys to values")
    try:
        spec = Spec.model_validate(data)
    except ValidationError as error:
        raise from_pydantic(error, Spec, data) from None
    spec = spec.completed(space_of(spec), text)
    check_search(spec)
    check_figures(spec)
    return spec
