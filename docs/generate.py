"""The reference, written from the code: what the directive `generated` of docs/conf.py puts in.

    python docs/generate.py spec    # or tables, cli, python: the Markdown of a reference page

Nothing here is committed as text, so that nothing can go stale.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

from pydantic import BaseModel

import sqzexplore
from sqzexplore import analysis
from sqzexplore.network.architecture import Architecture
from sqzexplore.network.overrides import FireOverride
from sqzexplore.network.presets import PRESETS
from sqzexplore.results.tables import TABLES
from sqzexplore.space.constraints import MEASURED, NAMES
from sqzexplore.spec.models import OBJECTIVES, Spec

_HEADINGS = ("key", "meaning", "default", "type", "bounds")
PROGRAM = "python -m sqzexplore"
_BOUNDS = {
    "minimum": "at least {:,}",
    "exclusiveMinimum": "above {:,}",
    "maximum": "at most {:,}",
    "exclusiveMaximum": "below {:,}",
    "minItems": "at least {} value",
    "pattern": "matches `{}`",
}
_TYPES = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false"}


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    lines = [[*headings], *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code(value: object) -> str:
    """A value as YAML writes it."""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list | tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{value}`" if value != "" else "empty"


# --- keys of the sweep file --------------------------------------------------------------------


def spec() -> str:
    """Every key of a sweep file, and what its names may be."""
    schema = Spec.model_json_schema()
    parts = []
    for prefix, model in _sections(schema, schema):
        title = f"`{prefix[:-1]}`" if prefix else "The file"
        parts += [f"## {title}", model["description"], _keys(prefix, model, schema)]
    parts += [
        "## Metaparameters",
        "Keys of `base`, `space`, `proxy` and `--set`; the defaults are those of SqueezeNet v1.0.",
        _fields(Architecture, ""),
        "What the presets have instead:",
        table(["preset", "differs in"], ([f"`{name}`", _changes(name)] for name in PRESETS)),
        "## Keys of a single Fire",
        "`fireN.KEY`, N from 2 on; left out or `null`, as the metaparameters say.",
        _fields(FireOverride, "fireN."),
        "## Names in conditions and objectives",
        table(
            ["name", "in conditions", "in `search.objectives`", "needs"],
            (
                [
                    f"`{name}`",
                    "yes" if name in NAMES or name in MEASURED else "",
                    "yes" if name in OBJECTIVES else "",
                    f"`measure.{need}`" if (need := _need(name)) else "",
                ]
                for name in dict.fromkeys([*NAMES, *MEASURED, *OBJECTIVES])
            ),
        ),
    ]
    return "\n\n".join(parts)


def _need(name: str) -> str:
    need = MEASURED.get(name) or OBJECTIVES.get(name, "cost")
    return "" if need == "cost" else need


def _changes(name: str) -> str:
    plain, changed = (PRESETS[key].model_dump() for key in ("squeezenet1_0", name))
    differing = [f"`{k}: {code(v)[1:-1]}`" for k, v in changed.items() if v != plain[k]]
    return ", ".join(differing) or "nothing"


def _sections(
    schema: dict[str, Any], model: dict[str, Any], prefix: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each mapping in the file: what its keys' paths begin with, and its schema."""
    yield prefix, model
    for name, value in model["properties"].items():
        if reference := _reference(value):
            each = "[]" if "items" in _alternatives(value)[0] else ""
            yield from _sections(schema, schema["$defs"][reference], f"{prefix}{name}{each}.")


def _alternatives(value: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in value.get("anyOf", [value]) if one.get("type") != "null"]


def _reference(value: dict[str, Any]) -> str:
    """The name of the mapping that a key holds, or holds a list of."""
    one = _alternatives(value)[0]
    return str(one.get("$ref") or one.get("items", {}).get("$ref", "")).rpartition("/")[2]


def _keys(prefix: str, model: dict[str, Any], schema: dict[str, Any]) -> str:
    rows = []
    for name, value in model["properties"].items():
        meaning = value.get("description", "")
        if reference := _reference(value):
            meaning = schema["$defs"][reference]["description"]
        if name in model.get("required", ()):
            default = "required"
        else:
            default = code(value["default"]) if value.get("default") is not None else "left out"
            if "default" not in value:  # made by a factory, and empty
                default = "empty"
        rows.append([f"`{prefix}{name}`", meaning, default, _type(value), _bounds(value)])
    return table(_HEADINGS, rows)


def _fields(model: type[BaseModel], prefix: str) -> str:
    properties = model.model_json_schema()["properties"]
    properties.pop("overrides", None)
    rows = []
    for name, value in properties.items():
        default = code(value["default"]) if value["default"] is not None else "left out"
        meaning = value["description"]
        rows.append([f"`{prefix}{name}`", meaning, default, _type(value), _bounds(value)])
    return table(_HEADINGS, rows)


def _type(value: dict[str, Any]) -> str:
    return " or ".join(map(_plain_type, _alternatives(value)))


def _plain_type(value: dict[str, Any]) -> str:
    if "enum" in value:
        return ", ".join(code(one) for one in value["enum"])
    if "const" in value:
        return code(value["const"])
    if value.get("type") == "array":
        return f"list of {_plain_type(value['items'])}"
    return _TYPES.get(value.get("type", ""), "mapping")


def _bounds(value: dict[str, Any]) -> str:
    """The bounds of a key's value; of a list, those of its elements too."""
    parts = []
    for one in _alternatives(value):
        for inner, each in ((one, ""), (one.get("items", {}), "each ")):
            held = [text.format(inner[key]) for key, text in _BOUNDS.items() if key in inner]
            parts += [each + ", ".join(held)] if held else []
    return "; ".join(parts)


# --- columns, command line, Python -------------------------------------------------------------


def tables() -> str:
    """Every column of every table of a sweep."""
    parts = []
    for name, columns in TABLES.items():
        rows = ([f"`{key}`", c.meaning, c.unit, c.type] for key, c in columns.items())
        parts += [f"## `{name}`", table(["column", "meaning", "unit", "type"], rows)]
    return "\n\n".join(parts)


def cli() -> str:
    """Every verb, with its arguments and options, as typer writes them."""
    command = ["typer", "sqzexplore.cli", "utils", "docs", "--name", PROGRAM]
    done = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, check=True
    )
    return done.stdout[done.stdout.index(f"## `{PROGRAM} ") :]


def public(module: ModuleType) -> list[str]:
    """The functions and classes that a module offers."""
    return [name for name in module.__all__ if callable(getattr(module, name))]


def python() -> str:
    """Every public name, with its signature and its docstring."""
    parts = ["## `sqzexplore`", *(_autodoc(sqzexplore, name) for name in public(sqzexplore))]
    parts += ["## What `cost` returns"]
    parts += [
        _directive("autoclass", f"sqzexplore.network.cost.{name}") for name in ("Cost", "LayerCost")
    ]
    parts += ["## What `fit` returns", _directive("autoclass", "sqzexplore.predict.fit.Model")]
    parts += ["## `sqzexplore.analysis`"]
    parts += [_autodoc(analysis, name) for name in public(analysis)]
    return "\n\n".join(parts)


def _autodoc(module: Any, name: str) -> str:
    given = getattr(module, name)
    target = f"{module.__name__}.{name}"
    if not isinstance(given, type):
        return _directive("autofunction", target)
    if issubclass(given, BaseModel):  # types and bounds would drown the names: spec() has them
        fields = given.model_fields.items()
        target += f"(*, {', '.join(f'{key}={field.default!r}' for key, field in fields)})"
    return _directive("autoclass", target)


def _directive(kind: str, target: str) -> str:
    options = ["   :members:", "   :exclude-members: model_config"] if kind == "autoclass" else []
    return "\n".join(["```{eval-rst}", f".. {kind}:: {target}", *options, "```"])


PAGES: dict[str, Callable[[], str]] = {"spec": spec, "tables": tables, "cli": cli, "python": python}

if __name__ == "__main__":
    print(PAGES[sys.argv[1]]())
