"""A profile of a device: random networks measured there, in one file that predicts any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import UserError, shown
from ..files import check_writable, home, read_json, write_json
from ..network.architecture import Architecture
from ..network.frames import columns_of_frame, with_overrides
from ..provenance import version
from ..results.tables import THROUGHPUT, TRIALS, architecture_row, to_frame

FORMAT = 1
#: What a profile predicts.
TARGET = "latency_ms_p50"
_COLUMNS = {**TRIALS, **THROUGHPUT}
_NEEDED = ("arch_id", "net_id", "device_name", "input_size", "batch", "dtype", "runtime", TARGET)


class Profile:
    """The file of a profile, which is written after every network.

    Args:
        path: a JSON file; what it holds already is kept.
        settings: what all its rows share, by name: device, runtime, batch, ...
        provenance: what is known of the machine besides.

    Raises:
        UserError: `path` cannot be written, or holds anything but a profile of these settings.
    """

    def __init__(
        self, path: Path, settings: Mapping[str, Any], provenance: Mapping[str, Any]
    ) -> None:
        self.path, self.rows, self.audit = path, list[dict[str, Any]](), list[str]()
        self._settings, self._provenance = settings, provenance
        if path.suffix != ".json" or path.is_dir():
            raise UserError(f"--to {path}: expected a file whose name ends in .json")
        check_writable(path.parent, "--to")
        if path.exists():
            content = _content(path)
            self._require_same(content["settings"])
            self.rows = content["rows"]

    def _require_same(self, held: Mapping[str, Any]) -> None:
        for name, value in self._settings.items():
            if held.get(name) != value:
                raise UserError(
                    f"--to {self.path}: found a profile with {name} {shown(held.get(name))}, "
                    f"expected {shown(value)}, as asked for; choose another file, or remove it"
                )

    def require_drawn(self, drawn: Sequence[Architecture]) -> None:
        """Raise `UserError` where the rows are not of the networks that are drawn first."""
        held = [row["net_id"] for row in self.rows]
        if held != [architecture.net_id for architecture in drawn[: len(held)]]:
            raise UserError(
                f"--to {self.path}: found networks of another space, expected those of this spec; "
                "choose another file, or remove it"
            )

    def write(self) -> None:
        """Write all that is known, whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "format": FORMAT,
            "sqzexplore_version": version(),
            "settings": self._settings,
            "audit": self.audit,
            "provenance": self._provenance,
            "rows": self.rows,
        }
        write_json(self.path, content)


def profile_row(
    architecture: Architecture, measured: Mapping[str, Any], sampler: str
) -> dict[str, Any]:
    """A row of a profile: the architecture's fields and costs, and what was measured of it.

    Args:
        architecture: what was measured.
        measured: columns of the table `throughput`.
        sampler: who chose it; empty if that is not known.
    """
    known = architecture_row(architecture, measured["input_size"])
    return known | dict(measured) | {"sampler": sampler or None}


def load_profile(path: str | Path) -> pd.DataFrame:
    """The networks of a device's profile, as `fit` takes them.

    Args:
        path: a file that `sqzexplore profile` wrote, finished or not.

    Returns:
        A row a network: its fields and costs, and the columns of `throughput`, latencies in ms,
        with device, runtime and versions; `sampler` is who chose it.

    Raises:
        UserError: it cannot be read, is damaged, or of another format.

    Example:
        >>> fit(load_profile("devices/pi5.json"), target="latency_ms_p50")  # doctest: +SKIP
    """
    path = home(path)
    return _frame(_content(path)["rows"])


def _content(path: Path) -> dict[str, Any]:
    """What the file holds, checked."""
    content = read_json(path, FORMAT, "the profile of a device, as `sqzexplore profile` writes it")
    try:
        dict(content["settings"])
        columns_of_frame(_frame(content["rows"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: is damaged ({type(error).__name__}: {reason})") from None
    return content


def _frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a typed table.

    Raises:
        KeyError, TypeError, ValueError: they are none of a profile.
    """
    for name in _NEEDED:
        if not rows or any(name not in row for row in rows):
            raise KeyError(f"no {name}")
    known = [{k: v for k, v in row.items() if k != "sampler"} for row in rows]
    present = {name for row in known for name in row}
    frame = to_frame(known, {n: c for n, c in _COLUMNS.items() if n in present})
    samplers = pd.Series([row.get("sampler") for row in rows], dtype="string")
    return with_overrides(frame).assign(sampler=samplers)
