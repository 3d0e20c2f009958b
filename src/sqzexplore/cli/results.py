"""`results`, `status`, `report`, `figures`: what a folder holds."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from .app import Folder, Json, Storage, app, err, out, silence_optuna


@app.command()
def results(folder: Folder, as_json: Json = False) -> None:
    """Print the table of a sweep."""
    from ..results.claims import claim_lines
    from ..results.completeness import completeness
    from ..results.folder import ResultFolder, load_results
    from ..results.runtimes import runtime_lines
    from ..results.selection import choices
    from ..results.smaller import drops_of, smaller_lines
    from .tables import print_results, smaller_table

    rows = load_results(folder)
    if as_json:
        print(rows.to_json(orient="records", indent=2))
        return
    spec = ResultFolder(folder).spec()
    seeds, images = (ResultFolder(folder).table(name) for name in ("seeds", "images"))
    print_results(out, rows, spec, seeds)
    claims = ResultFolder(folder).table("claims")
    said = [] if claims is None else claim_lines(claims)
    drops = drops_of(ResultFolder(folder))
    said += smaller_lines(spec, rows, drops)
    said += runtime_lines(ResultFolder(folder).table("throughput"))
    said += [*choices(spec, rows, seeds, images), f"in the table: {completeness(folder)}"]
    for form, rows_ in drops.items():
        out.print(smaller_table(form, rows_, rows, spec))
    for line in said:
        out.print(line, highlight=False, markup=False)
    print_files(folder, sorted(ResultFolder(folder).figures.glob("*.p*")))


@app.command()
def status(
    folder: Folder,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Say how a sweep stands, while it runs or after: done, failed, rate, what is left, best."""
    from ..sweep import status as status_

    silence_optuna()
    now = status_.status(folder, storage)
    if as_json:
        print(json.dumps(asdict(now), indent=2, default=str))
        return
    out.print(f"{now.complete} are in", highlight=False)
    for one in now.unfinished:
        params = ", ".join(f"{name} {value}" for name, value in one.params.items())
        since = one.started_at.isoformat(sep=" ", timespec="seconds")
        state = f"running on {one.host}" if one.running else "interrupted"
        out.print(f"{state}: trial {one.trial} ({params}), since {since}", highlight=False)
    if now.last_ended is not None:
        ended = now.last_ended.isoformat(sep=" ", timespec="seconds")
        rate = f", {now.rate:,.1f} trials an hour of late" if now.rate else ""
        out.print(f"last trial ended {ended}{rate}", highlight=False)
    if now.left_s:
        left = timedelta(seconds=round(now.left_s))
        out.print(f"left: about {left} at that rate", highlight=False)
    for name, (trial, value) in now.best.items():
        exact = f"{value:,.0f}" if float(value).is_integer() else f"{value:,.6g}"
        out.print(f"best {name}: {exact} (trial {trial})", highlight=False)
    for trial, error in now.failures.items():
        out.print(f"failed: trial {trial}: {error}", highlight=False)


@app.command()
def report(
    folder: Folder,
    out_file: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE.html", help="The file [default: DIR/report.html]."),
    ] = None,
) -> None:
    """Write one HTML file that answers the sweep's question: it needs no network."""
    from ..report.page import write_report

    out.print(f"written: {write_report(folder, out_file)}", highlight=False, soft_wrap=True)


@app.command()
def figures(folder: Folder) -> None:
    """Draw the figures of a sweep, or of a bench, again from its tables."""
    from ..figures.draw_all import draw_all

    files, left_out = draw_all(folder)
    for file in files:
        out.print(str(file), highlight=False, soft_wrap=True)
    for reason in left_out:
        err.print(f"left out: {reason}", highlight=False, markup=False, soft_wrap=True)


def print_files(folder: Path, files: list[Path]) -> None:
    """Say where the tables and figures lie."""
    out.print(f"tables:  {folder}/trials.csv (and .parquet)", highlight=False, soft_wrap=True)
    for file in files:
        if file.suffix == ".png":
            out.print(f"figure:  {file} (and .pdf)", highlight=False, soft_wrap=True)
