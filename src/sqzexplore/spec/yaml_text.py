"""YAML in, plain values out; whatever is wrong with the text is one `Problem` that says where."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from ..errors import UserError, nearest, shown

KeyPath = tuple[str | int, ...]

_MAX_BYTES = 1_000_000
_MAX_INTEGER = 2**63
#: Characters that a terminal or a file would not show as they are; line breaks and tabs apart.
_UNSHOWABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
#: What PyYAML's constructors raise on text that is tagged or looks like a number or a date.
_CONSTRUCTION = (ValueError, KeyError, AttributeError, TypeError, OverflowError)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core schema (yaml.org/spec/1.2.2, section 10.3.2): 1e-3 is a number, 010 is ten,
    1:2, yes and 2024-01-02 are text. PyYAML's own reads YAML 1.1."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - as PyYAML has it


_SCALARS = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    "merge": (r"<<", ["<"]),
}
for _kind, (_pattern, _first) in _SCALARS.items():
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_kind}", re.compile(rf"^(?:{_pattern})$"), _first
    )


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


class _Dumper(yaml.SafeDumper):
    """Quotes the text that `_Loader` would take for something else, and no other."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


class Problem(UserError):
    """A problem at one key of a YAML text."""

    def __init__(self, path: KeyPath, message: str, line: int | None = None) -> None:
        super().__init__(f"{dotted(path)}{': ' if path else ''}{message}")
        self.path, self.message, self.line = path, message, line

    def in_file(self, file: Path, text: str) -> UserError:
        """The same problem as a user reads it: file, line, key."""
        line = self.line
        if line is None and self.path:
            line = _line_of(text, self.path)
        return UserError(f"{file}:{line}: {self}" if line else f"{file}: {self}")


def read(path: Path) -> str:
    """The text of a YAML file.

    Raises:
        UserError: it cannot be read, is no file, no UTF-8, or larger than 1 MB.
    """
    try:
        if not path.exists():
            siblings = path.parent.glob("*.y*ml") if path.parent.is_dir() else ()
            hint = nearest(path.name, [sibling.name for sibling in siblings])
            raise UserError(f"{path}: no such file{hint}")
        if not path.is_file():
            kind = "a folder" if path.is_dir() else "no regular file"
            raise UserError(f"{path}: found {kind}, expected a YAML file")
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    if len(content) > _MAX_BYTES:
        raise UserError(f"{path}: found more than {_MAX_BYTES} bytes, expected a YAML file")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path}: found bytes that are no UTF-8, expected YAML text") from None


def load(text: str) -> Any:
    """The plain values of a YAML 1.2 text, if every key is text and stands once.

    Raises:
        Problem: it is no such YAML.
    """
    try:
        _check_keys(yaml.compose(text, Loader=_Loader))
        value = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or "syntax error"
        if "'\\t'" in problem:
            problem = "found a tab, expected spaces"
        raise Problem((), f"no valid YAML: {problem}", mark.line + 1 if mark else None) from None
    except Problem:
        raise
    except (yaml.YAMLError, *_CONSTRUCTION) as error:
        reason = " ".join(str(error).split())[:200]
        raise Problem((), f"no valid YAML: {reason}") from None
    except RecursionError:
        raise Problem((), "no valid YAML: nested too deeply") from None
    _check_values(value)
    return value


def dump(value: Any, **options: Any) -> str:
    """The YAML text that `load` reads as `value`; `options` as PyYAML's `dump` takes them."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, **options)


def dotted(path: KeyPath) -> str:
    """A path of keys as messages show it: `measure.accuracy.seeds`, `figures[0].x`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")


def _check_keys(root: yaml.Node | None) -> None:
    """PyYAML keeps the last of two equal keys in silence."""
    todo: list[tuple[KeyPath, yaml.Node | None]] = [((), root)]
    seen: set[int] = set()
    while todo:
        path, node = todo.pop()
        if node is None or id(node) in seen:  # an alias, perhaps to a node around it
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            todo += [((*path, i), child) for i, child in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key, child in node.value:
                line = key.start_mark.line + 1
                merge = key.tag == "tag:yaml.org,2002:merge"
                if key.tag != "tag:yaml.org,2002:str" and not merge:
                    found = shown(key.value) if isinstance(key, yaml.ScalarNode) else "a collection"
                    kind = key.tag.rpartition(":")[2]
                    raise Problem(path, f"found {found} ({kind}) as a key, expected text", line)
                if key.value in keys:
                    raise Problem((*path, key.value), "found the key twice, expected it once", line)
                keys.add(key.value)
                todo.append(((*path, key.value), child))


def _check_values(root: Any) -> None:
    """Text that can be shown, integers that fit 64 bits: nothing of a sweep needs others."""
    todo: list[tuple[KeyPath, Any]] = [((), root)]
    seen: set[int] = set()
    while todo:
        path, value = todo.pop()
        if isinstance(value, dict | list):
            if id(value) in seen:
                continue
            seen.add(id(value))
            pairs = value.items() if isinstance(value, dict) else enumerate(value)
            todo += [((*path, key), child) for key, child in pairs]
        elif isinstance(value, int) and abs(value) >= _MAX_INTEGER:
            raise Problem(path, f"found an integer of {value.bit_length()} bits, expected 63")
        elif isinstance(value, str) and (bad := _UNSHOWABLE.search(value)):
            raise Problem(path, f"found the character U+{ord(bad.group()):04X}, expected text")


def _line_of(text: str, path: KeyPath) -> int | None:
    """The line of the key that `path` leads to, or of the nearest one above it."""
    node = yaml.compose(text, Loader=_Loader)
    line = None
    for step in path:
        if isinstance(node, yaml.MappingNode):
            pairs = {
                key.value: (key, child) for key, child in node.value if isinstance(key.value, str)
            }
            if step not in pairs:
                break
            key, node = pairs[step]
            line = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            if step >= len(node.value):
                break
            node = node.value[step]
            line = node.start_mark.line + 1
        else:
            break
    return line


def flow(value: Any) -> str:
    """A mapping in a line, without the outer braces."""
    text = dump(value, default_flow_style=True, width=10_000).strip()
    return text.removeprefix("{").removesuffix("}")
