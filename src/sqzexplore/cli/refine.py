"""`refine`: a narrower space, from what a sweep found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .app import Folder, app, out


@app.command()
def refine(
    folder: Folder,
    to: Annotated[Path, typer.Option(metavar="FILE.yaml", help="The sweep file to write.")],
    share: Annotated[float, typer.Option(help="Of the architectures, in each draw.")] = 0.25,
) -> None:
    """Write a sweep of a narrower space: the ranges that likely hold the best architecture."""
    from ..analysis.ranges import best_ranges
    from ..files import check_new, home, write_atomically
    from ..results.folder import ResultFolder, load_results
    from ..results.selection import goals
    from ..results.tables import meeting_constraints
    from ..spec.load import parse_spec
    from ..spec.models import AT_RANDOM
    from ..spec.narrowed import narrowed

    to = home(to)
    check_new(to, "--to")
    spec, trials = ResultFolder(folder).spec(), load_results(folder)
    least, most = goals(spec, trials)
    column, maximize = (most[0], True) if most else (least[0], False)
    known = meeting_constraints(trials[trials["state"] == "complete"])
    ranges = best_ranges(known, column, maximize, share)
    evidence = [
        f"From {len(known)} architectures of the sweep {spec.name}: the values that held the best "
        f"{column} in 10,000 draws of {share:.0%} of them",
        "(empirical bootstrap, arXiv:2003.13678; numbers: the middle 95%, others: 5% or more).",
    ]
    if spec.search.sampler not in AT_RANDOM:
        evidence.append(
            f"{spec.search.sampler} chose these architectures by what it had found: the shares say "
            "what it tried, too."
        )
    text = narrowed(spec, ranges, evidence)
    parse_spec(text)
    to.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(to, text.encode())
    for line in text.splitlines():
        if line.startswith(("#", "space:", "  ")) and "#" in line:
            out.print(line, highlight=False, markup=False, soft_wrap=True)
    out.print(f"written: {to}", highlight=False, soft_wrap=True)
