"""The JSON Schema of a spec, for editors that complete and check YAML."""

from __future__ import annotations

from typing import Any

from ..network.architecture import Architecture
from ..network.overrides import FireOverride
from ..network.presets import PRESETS
from .models import Spec


def json_schema() -> dict[str, Any]:
    """A JSON Schema (draft 2020-12) that every valid spec fulfils.

    It knows the keys, their types and bounds; what needs more (whether an axis fits its field's
    bounds, conditions, data sets) is `validate`'s.
    """
    schema = Spec.model_json_schema()
    fields = _fields(Architecture)
    single = _fields(FireOverride)
    single = {name: kind for name, kind in single.items() if name in fields}
    pattern = r"^fire[0-9]+\."
    keys = schema["properties"]
    keys["base"] = {
        "description": keys["base"]["description"],
        "anyOf": [
            {"enum": [*PRESETS]},
            {
                "type": "object",
                "properties": fields,
                "patternProperties": {pattern + f"{name}$": {} for name in single},
                "additionalProperties": False,
            },
        ],
    }
    axes = {
        "type": "object",
        "minProperties": 1,
        "properties": {name: _axis(name) for name in fields},
        "patternProperties": {pattern + f"{name}$": _axis(name) for name in single},
        "additionalProperties": False,
    }
    listed = {"type": "array", "minItems": 1, "items": keys["base"]["anyOf"][1]}
    keys["space"] = {
        "description": keys["space"]["description"],
        "anyOf": [axes, listed],
    }
    keys["extends"] = {"type": "string", "description": "a spec that this one goes on from"}
    schema["patternProperties"] = {"^x-": {}}
    del schema["required"]  # what another spec may bring
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _fields(model: Any) -> dict[str, Any]:
    schema = model.model_json_schema()
    return {
        name: {key: kind[key] for key in ("description", "default") if key in kind}
        for name, kind in schema["properties"].items()
        if name != "overrides"
    }


def _axis(name: str) -> dict[str, Any]:
    """A list of values, or a range."""
    number = {"type": "number"}
    description = Architecture.model_fields[name].description or ""
    subsets = {
        "type": "object",
        "properties": {
            "subsets_of": {"type": "array", "items": {"type": "integer"}},
            "size": {"anyOf": [{"type": "integer"}, {"type": "array"}]},
        },
        "required": ["subsets_of"],
    }
    span = {
        "type": "object",
        "properties": {"min": number, "max": number, "step": number, "log": {"type": "boolean"}},
        "required": ["min", "max"],
    }
    conditional = {
        "type": "object",
        "properties": {"when": {"type": "object"}},
        "required": ["when"],
    }
    forms = [{"type": "array", "minItems": 1}, span, conditional]
    return {"description": description, "anyOf": [*forms, *([subsets] * (name == "pool_after"))]}
