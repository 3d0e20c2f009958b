"""A YAML file -> a checked `Spec`."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..errors import UserError, shown
from ..files import home
from ..network.overrides import OVERRIDES
from . import yaml_text
from .checks import check_claims, check_figures, check_search, check_smaller, space_of
from .models import Spec
from .pydantic_errors import from_pydantic
from .yaml_text import KeyPath, Problem, dotted

#: A spec may go on from another; so many in a row.
_MOST_EXTENDED = 10


def load_spec(path: str | Path, changes: Sequence[str] = ()) -> Spec:
    """The spec in a YAML file.

    A spec that `extends` another, or is changed, has as its `source` what they give together.

    Args:
        path: of the file.
        changes: `KEY=VALUE` each, as `--set` takes them: `search.trials=50`.

    Raises:
        UserError: a file cannot be read, or it is no valid spec; one message names the file, the
            line, the key's path, what was found and what was expected.
    """
    path = home(path)
    text = yaml_text.read(path)
    requested = [_change(change) for change in changes]
    layers: list[tuple[Path, str, dict[str, Any]]] = [(path, text, {})]
    try:
        data = _mapping(text)
        layers = [(path, text, data)]
        if "extends" not in data and not requested:
            return _checked(data, text)
        layers += _extended(path, data)
        whole: dict[str, Any] = {}
        for _, _, layer in reversed(layers):
            whole = _merged(whole, {k: v for k, v in layer.items() if k != "extends"})
        for keys, value in requested:
            _put(whole, keys, value)
        return _checked(whole, _written(path, whole, changes))
    except Problem as problem:
        for keys, value in requested:
            common = min(len(keys), len(problem.path))
            if problem.path[:common] == keys[:common]:
                raise UserError(f"--set {dotted(keys)}={shown(value)}: {problem}") from None
        depths = [_depth(content, problem.path) for _, _, content in layers]
        file, text, _ = layers[depths.index(max(depths))]
        raise problem.in_file(file, text) from None


def parse_spec(text: str) -> Spec:
    """The spec in YAML text; raises `UserError`, without the file's name."""
    data = _mapping(text)
    if "extends" in data:
        raise Problem(("extends",), "expected no such key: this text is no file beside another")
    return _checked(data, text)


def _mapping(text: str) -> dict[str, Any]:
    data = yaml_text.load(text)
    if not isinstance(data, dict):
        raise Problem((), f"found {shown(data)}, expected a mapping of keys to values")
    if not isinstance(name := data.get("extends", ""), str):
        raise Problem(("extends",), f"found {shown(name)}, expected the path of a spec")
    return data


def _checked(data: dict[str, Any], source: str) -> Spec:
    """What stands under `x-...` is the user's own: a place for anchors."""
    data = {key: value for key, value in data.items() if not key.startswith("x-")}
    try:
        spec = Spec.model_validate(data)
    except ValidationError as error:
        raise from_pydantic(error, Spec, data) from None
    spec = spec.completed(space_of(spec), source)
    check_search(spec)
    check_smaller(spec)
    check_claims(spec)
    check_figures(spec)
    return spec


def _extended(path: Path, data: dict[str, Any]) -> list[tuple[Path, str, dict[str, Any]]]:
    """What `data`, of the file at `path`, extends: file, text and content, the nearest first."""
    layers: list[tuple[Path, str, dict[str, Any]]] = []
    here, layer = path, data
    while "extends" in layer:
        if len(layers) >= _MOST_EXTENDED:
            raise Problem(("extends",), f"found {_MOST_EXTENDED} specs in a row, expected fewer")
        below = here.parent / home(layer["extends"])
        try:
            text = yaml_text.read(below)
        except UserError as error:
            raise UserError(f"{here}: extends: {error}") from None
        here = below
        try:
            layer = _mapping(text)
        except Problem as problem:
            raise problem.in_file(here, text) from None
        layers.append((here, text, layer))
    return layers


def _depth(data: Any, path: KeyPath) -> int:
    """How many steps of a path lead into `data`."""
    for depth, step in enumerate(path):
        inside = (
            step in data
            if isinstance(data, dict)
            else (isinstance(data, list) and isinstance(step, int) and step < len(data))
        )
        if not inside:
            return depth
        data = data[step]
    return len(path)


def _merged(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else copy.deepcopy(value)
    return merged


def _change(text: str) -> tuple[KeyPath, Any]:
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise UserError(f"--set: found {shown(text)}, expected KEY=VALUE, as search.trials=50")
    try:
        return _steps(key), yaml_text.load(value)
    except UserError:
        raise UserError(f"--set {key}: found {shown(value)}, expected a value") from None


def _steps(key: str) -> KeyPath:
    """A dotted path; the axes of single Fires have a dot of their own: `space.fire5.bypass`."""
    steps: list[str] = []
    for part in key.split("."):
        if steps and f"{steps[-1]}.{part}" in OVERRIDES:
            steps[-1] += f".{part}"
        else:
            steps.append(part)
    return tuple(steps)


def _put(data: dict[str, Any], keys: KeyPath, value: Any) -> None:
    """Set what `keys` lead to.

    Raises:
        UserError: on the way stands something that has no keys; it would be lost.
    """
    for depth, key in enumerate(keys[:-1], 1):
        if data.get(str(key)) is None:
            data[str(key)] = {}
        if not isinstance(found := data[str(key)], dict):
            raise UserError(
                f"--set {dotted(keys)}: found {shown(found)} at {dotted(keys[:depth])}, expected a "
                f"mapping; set {dotted(keys[:depth])} as a whole"
            )
        data = found
    data[str(keys[-1])] = value


def _written(path: Path, data: dict[str, Any], changes: Sequence[str]) -> str:
    """What the result folder keeps as its spec."""
    came = path.name + "".join(f" --set {change}" for change in changes)
    in_a_line = " ".join(came.split())  # the comment ends with it
    return f"# {in_a_line}\n{yaml_text.dump(data, allow_unicode=True)}"
