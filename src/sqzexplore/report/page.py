"""The page: the template filled, with the plotting library and the data inside the one file."""

from __future__ import annotations

import base64
import hashlib
import shlex
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import check_writable, write_atomically
from ..provenance import version
from ..results.folder import ResultFolder
from .content import Content, gather
from .wording import number, with_unit

_MISSING = 'a report needs Bokeh and Jinja2: pip install "sqzexplore[report]"'


def write_report(folder: str | Path, out: str | Path | None = None) -> Path:
    """Write the report of a sweep, finished or not, as one HTML file that needs no network.

    Args:
        folder: a result folder.
        out: the file to write; `folder`/report.html if None.

    Returns:
        The file.

    Raises:
        UserError: the folder holds no sweep, the file cannot be written, or the extra `report` is
            not installed.
    """
    folder = Path(folder)
    target = ResultFolder(folder).report if out is None else Path(out)
    if target.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out {target}: found {target.suffix or 'no ending'}, expected .html")
    if target.is_dir():
        raise UserError(f"--out {target}: found a folder, expected a file")
    page = render(gather(folder))
    if not target.parent.is_dir():
        raise UserError(f"--out {target}: there is no folder {target.parent}")
    check_writable(target.parent, "--out")
    write_atomically(target, page.encode())
    return target


def render(content: Content) -> str:
    """The page of a sweep. Text of the spec and of errors cannot act in it: it is escaped, and the
    page's policy runs the scripts of known checksum only.

    Raises:
        UserError: the extra `report` is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError:
        raise UserError(_MISSING) from None
    scripts = [*_bokeh(), files(__package__).joinpath("page.js").read_text()]
    environment = Environment(
        loader=PackageLoader(__package__, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "with_unit": with_unit}
    return environment.get_template("page.html").render(
        content=content,
        spec=content.spec,
        scripts=[Script(Markup(text), _checksum(text)) for text in scripts],
        style=Markup(files(__package__).joinpath("page.css").read_text()),
        commands=_commands(content),
        version=version(),
    )


@dataclass(frozen=True)
class Script:
    """A script of our own or of Bokeh's, and its checksum as a content security policy names it."""

    text: Any
    checksum: str


@lru_cache(maxsize=1)
def _bokeh() -> list[str]:
    """BokehJS: the core, its WebGL markers, and its plotting interface."""
    try:
        from bokeh.resources import Resources
    except ImportError:
        raise UserError(_MISSING) from None
    parts: list[Any] = ["bokeh", "bokeh-gl", "bokeh-api"]
    return list(Resources(mode="inline", components=parts, log_level="error").js_raw)


def _checksum(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _commands(content: Content) -> list[str]:
    """The commands that make the sweep and this page again, from the folder's copy of the spec."""
    folder = shlex.quote(str(content.folder))
    spec = shlex.quote(f"{content.spec.name}.yaml")
    commands = []
    commit = str(content.provenance.get("git_commit", "")).removesuffix("-dirty")
    if commit:
        commands.append(f"git checkout {commit}")
    return [
        *commands,
        f"cp {shlex.quote(str(content.folder / 'spec.yaml'))} {spec}",
        f"python -m sqzexplore sweep {spec} --out {shlex.quote(f'again/{content.spec.name}')}",
        f"python -m sqzexplore report {folder}",
    ]
