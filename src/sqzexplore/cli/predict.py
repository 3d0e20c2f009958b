"""`predict`: how well a folder's measurements predict networks that were not measured."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .app import Folder, Json, app, err, fail, out

if TYPE_CHECKING:
    import pandas as pd

    from ..predict.audit import Audit
    from ..results.shown import ShownColumn


@app.command()
def predict(
    folder: Folder,
    target: Annotated[
        str, typer.Option(help="What is predicted: an accuracy, or a speed such as latency_ms_p50.")
    ] = "top1",
    level: Annotated[float, typer.Option(help="Share that the intervals are to hold.")] = 0.9,
    sampler: Annotated[
        str | None,
        typer.Option(help="Who chose the networks [default: as the folder's spec says]."),
    ] = None,
    audited: Annotated[
        bool,
        typer.Option(
            "--audit",
            help="Hold out each tenth of the networks: coverage, width, errors beside baselines, "
            "learning curve; written into DIR as tables and a figure.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare the models that predict accuracy or speed, and audit their intervals.

    `census SPEC --predict DIR` then predicts a whole space.
    """
    from ..predict.fit import fit
    from ..predict.trained import load_trained

    trials = load_trained(folder, target)
    if not audited:
        model = fit(trials, target, level, sampler)
        _print({"comparison": model.comparison}, model.remarks(), as_json)
        return
    from ..files import check_writable
    from ..predict.verdict import audit_lines

    check_writable(folder, "DIR")
    found = audit_with_status(trials, target, level, sampler)
    print_audit(found, audit_lines(found.rows), as_json)
    for file in _written(folder, found):
        err.print(f"written: {file}", highlight=False, soft_wrap=True)


def audit_with_status(
    trials: pd.DataFrame, target: str, level: float = 0.9, sampler: str | None = None
) -> Audit:
    """Audit a table; a terminal shows how far it is."""
    from ..predict.audit import audit

    with err.status("") as status:  # nothing, where there is no terminal

        def progress(done: int, of: int) -> None:
            status.update(f"audit: {done} of {of} fits")

        return audit(trials, target, level, sampler, progress)


def _written(folder: Path, found: Audit) -> list[Path]:
    """Write the audit beside those of other targets, and draw it."""
    from ..figures.audit import audit_figures
    from ..figures.writer import write_figures
    from ..results.folder import ResultFolder

    results = ResultFolder(folder)
    tables: dict[str, list[dict[Any, Any]]] = {}
    for name, frame in {"audit": found.rows, "audit_curve": found.curve}.items():
        held = results.table(name)
        rows: list[dict[Any, Any]] = []
        if held is not None:
            rows = held[held["target"] != found.target].to_dict("records")
        tables[name] = rows + frame.to_dict("records")
        if not tables[name]:
            results.drop(name)
    try:
        results.write(tables)
        drawn, _ = write_figures(audit_figures(found.rows, found.curve), folder)
        return [folder / "audit.csv", *drawn]
    except OSError as error:
        fail(f"{error.strerror or error}; no file was left half-written", 1)


def print_audit(found: Audit, said: list[str], as_json: bool = False) -> None:
    """Print what an audit found, and what is said of it."""
    from ..predict.verdict import against_baselines, coverage

    tables = {"coverage": coverage(found.rows), "baselines": against_baselines(found.rows)}
    if len(found.curve):
        tables["curve"] = found.curve.drop(columns=["target", "level"])
    _print(tables, said, as_json)


def _print(tables: dict[str, pd.DataFrame], said: list[str], as_json: bool) -> None:
    if as_json:
        held = {name: json.loads(table.to_json(orient="records")) for name, table in tables.items()}
        print(json.dumps(held | {"remarks": said}, indent=2))
        return
    from .terminal import terminal_table

    for name, table in tables.items():
        out.print(terminal_table(_TITLES[name], _columns(table), table.to_dict("records")))
    for line in said:
        out.print(line, highlight=False, soft_wrap=True)


_TITLES = {
    "comparison": "models, by cross-validation in the measured networks",
    "coverage": "intervals, in networks held out",
    "baselines": "errors, in networks held out",
    "curve": "learning curve: all other networks are held out",
}
#: Headings; each number with the interval of the columns `_low` and `_high`.
_HEADINGS = {
    "mae": "mean error",
    "mae_se": "its standard error",
    "error": "mean error",
    "kendall": "Kendall's tau",
    "error_more": "more error than it",
    "kendall_less": "less tau than it",
    "width": "mean width",
    "held_out": "held out",
}


def _columns(table: pd.DataFrame) -> list[ShownColumn]:
    """What the terminal shows of a table: a number and its interval in one column."""
    from ..results.shown import ShownColumn

    return [
        ShownColumn(
            _HEADINGS.get(name, name),
            partial(_cell, name),
            words=name in ("model", "region", "predictor"),
        )
        for name in map(str, table)
        if not name.endswith(("_low", "_high"))
    ]


def _cell(name: str, row: dict[Any, Any]) -> str:
    value = row[name]
    if isinstance(value, bool):
        return "yes" if value else ""
    if not isinstance(value, float):
        return str(value)
    if math.isnan(value):
        return "-"
    from ..predict.verdict import digits

    text = "{:.1%}".format if name == "coverage" else digits
    if f"{name}_low" in row:
        low, high = row[f"{name}_low"], row[f"{name}_high"]
        return f"{text(value)} ({text(low)} to {text(high)})"
    return text(value)
