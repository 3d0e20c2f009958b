"""What a sweep shows on the terminal: its progress, and its table at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from .architecture import OVERRIDES, parse_overrides
from .census import Census
from .columns import format_value, is_missing
from .reference import published
from .remarks import training_remarks
from .spec import Spec

_COLUMNS = (
    BarColumn(),
    TextColumn("{task.percentage:>3.0f}%", markup=False),
    TimeElapsedColumn(),
    TextColumn("ETA"),
    TimeRemainingColumn(),
    TextColumn("{task.description}", markup=False),
)


#: Trials of a sweep that the terminal shows.
MOST_ROWS = 100


class RowsDisplay:
    """Progress of a pass over many rows: a bar with its ETA, on a terminal."""

    def __init__(self, console: Console) -> None:
        self._bar = Progress(*_COLUMNS, console=console, disable=not console.is_terminal)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def start(self, what: str, rows: int) -> None:
        """Show that a pass begins."""
        for task in self._bar.task_ids:
            self._bar.remove_task(task)
        self._task = self._bar.add_task(f"{what} {rows:,} architectures", total=rows)

    def advance(self, rows: int) -> None:
        """Show that `rows` more were looked at."""
        self._bar.advance(self._task, rows)


class SweepDisplay:
    """Progress of a sweep: a bar with its ETA on a terminal, a line a trial anywhere."""

    def __init__(self, spec: Spec, console: Console, quiet: bool) -> None:
        self.spec, self.console, self.quiet = spec, console, quiet
        self._bar = Progress(
            TextColumn("{task.fields[trials]}", markup=False),
            *_COLUMNS,
            console=console,
            disable=quiet or not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None, trials="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def start(self, trials: int, units: float, done_units: float) -> None:
        """Show what there is to do."""
        self._bar.update(self._task, total=units, trials=f"0/{trials}")
        self._bar.advance(self._task, done_units)
        if not self.quiet and self.spec.question:
            self.console.print(f"{self.spec.name}: {self.spec.question}", highlight=False)

    def advance(self, units: float, what: str) -> None:
        """Show what is going on."""
        self._bar.update(self._task, advance=units, description=what)

    def trial(self, row: Mapping[str, Any], number: int, trials: int) -> None:
        """Show a trial's outcome."""
        self._bar.update(self._task, trials=f"{number}/{trials}")
        if self.quiet:
            return
        overrides = parse_overrides(row.get("overrides") or "")
        names = [axis.field for axis in self.spec.design_space.axes]
        axes = ", ".join(
            f"{name} {overrides.get(name) if name in OVERRIDES else row[name]}" for name in names
        )
        parts = [f"[{number}/{trials}] {axes}: {row['state']}", f"{row['params']:,} params"]
        if row["state"] == "complete" and self.spec.measure.accuracy:
            parts.append(f"top-1 {row['top1']:.2f}%")
        if row["state"] == "complete" and "outcome" in row:  # else it is measured later
            speed = row["images_per_s"]
            parts.append(
                f"{row['outcome']} on {row['device']}"
                if speed is None
                else f"{speed:,.1f} images/s on {row['device']}"
            )
        self.console.print(", ".join(parts), markup=False, highlight=False)


def print_results(
    console: Console, trials: pd.DataFrame, spec: Spec, seeds: pd.DataFrame | None
) -> None:
    """The table of a sweep, AlexNet as the baseline below it, and how it was measured.

    Args:
        console: where to.
        trials: its rows.
        spec: of the sweep.
        seeds: its trainings, of all budgets; None if there is no such table.
    """
    alexnet = published("table 2").query("network == 'AlexNet'").iloc[0]
    params = int(published().query("network == 'AlexNet' and params.notna()")["params"].iloc[0])
    axes = [axis.field for axis in spec.design_space.axes]
    table = Table(title=f"{spec.name}: {spec.question}", title_justify="left")
    for name in axes:
        table.add_column(name)
    headings = ["params", "size (MB)", "vs AlexNet", "MACs"]
    accuracy, throughput = spec.measure.accuracy, spec.measure.throughput
    if accuracy:
        headings += ["trained size (MB)", "top-1 (%)", "95% interval"]
    if throughput:
        headings += ["images/s"]
    if spec.result_constraints:
        headings += ["feasible"]
    for heading in headings:
        table.add_column(heading, justify="right")
    for _, row in trials.head(MOST_ROWS).iterrows():
        cells = [
            f"{row['params']:,}",
            f"{row['size_mb']:.2f}",
            _against(params / row["params"]),
            f"{row['macs'] / 1e6:,.0f}M",
        ]
        if accuracy:
            cells += [f"{row['train_size_mb']:.3f}", *_accuracy_cells(row)]
        if throughput:
            cells.append("" if pd.isna(row["images_per_s"]) else f"{row['images_per_s']:,.1f}")
        if spec.result_constraints:
            known = not pd.isna(row["feasible"])
            cells.append(("yes" if row["feasible"] else "no") if known else "")
        table.add_row(*(_axis_value(row.get(name)) for name in axes), *cells)
    table.add_section()
    blank = [""] * (len(headings) - 4)
    table.add_row(
        "AlexNet",
        *[""] * (len(axes) - 1),
        f"{params:,}",
        f"{params * 4 / 1e6:.2f}",
        "",
        "",
        *blank,
    )
    console.print(table)
    if len(trials) > MOST_ROWS:
        console.print(
            f"the first {MOST_ROWS} of {len(trials):,} trials; the table's file holds all",
            highlight=False,
        )
    lines = _footnotes(trials, spec, float(alexnet["size_mb"]))
    for line in [*lines, *training_remarks(trials, seeds)]:
        console.print(line, highlight=False, markup=False)


def _against(ratio: float) -> str:
    return f"{ratio:.1f}x smaller" if ratio >= 1 else f"{1 / ratio:.1f}x larger"


def _accuracy_cells(row: pd.Series) -> tuple[str, str]:
    if pd.isna(row["top1"]):
        return str(row["state"]), ""
    if pd.isna(row["top1_ci_low"]):
        return f"{row['top1']:.2f}", "one seed"
    learning = not pd.isna(row["still_learning"]) and row["still_learning"]
    top1 = f"{row['top1']:.2f}{' (still learning)' if learning else ''}"
    return top1, f"{row['top1_ci_low']:.2f} to {row['top1_ci_high']:.2f}"


def _footnotes(trials: pd.DataFrame, spec: Spec, alexnet_mb: float) -> list[str]:
    """How each number was obtained."""
    size = spec.input_size
    lines = [
        f"params, size, MACs: exact, {size}x{size} input; AlexNet as torchvision builds it "
        f"(the paper prints {alexnet_mb:g} MB)"
    ]
    names = trials["data"].dropna().unique()
    if (accuracy := spec.measure.accuracy) and len(names):
        proxy = ", ".join(f"{name}={value}" for name, value in accuracy.proxy.items())
        lines.append(
            f"top-1: a proxy, not ImageNet: {', '.join(names)} at "
            f"{accuracy.image_size}x{accuracy.image_size}, test split, "
            f"{accuracy.budgets[-1]} epochs, mean of {accuracy.seeds} seeds, t-interval over seeds"
            + (f"; trained with {proxy}" if proxy else "")
        )
    measured = trials.dropna(subset=["images_per_s"])
    columns = ["device", "device_name", "batch", "dtype", "threads", "torch_version"]
    for _, row in measured[columns].drop_duplicates().iterrows():
        lines.append(
            f"images/s: {row['device']} ({row['device_name']}), batch {row['batch']}, "
            f"{row['dtype']}, {row['threads']} threads, torch {row['torch_version']}"
        )
    if spec.result_constraints:
        asked = " and ".join(constraint.text for constraint in spec.result_constraints)
        lines.append(
            f"feasible: {asked}; {int((trials['feasible'] == False).sum())} of {len(trials)} "  # noqa: E712
            "do not meet it, and stand on no Pareto front"
        )
    return lines


def print_census(console: Console, census: Census, title: str) -> None:
    """What a census found: how many rows, their costs, their axes, the best and the front."""
    query, axes = census.query, [axis.field for axis in census.space.axes]
    looked_at = "drawn at random" if query.sample else "combinations"
    kept = f", {census.kept:,} kept by {query.where.text!r}" if query.where else ""
    counts = f"{census.combinations:,} {looked_at}, {census.feasible:,} feasible{kept}"
    console.print(f"{title.rstrip(': ')}\n{counts}", highlight=False, markup=False)
    if not census.kept:
        return
    size = census.input_size
    ranges = Table(title=f"their costs, input {size}x{size}", title_justify="left")
    for heading in ("", "least", "greatest"):
        ranges.add_column(heading, justify="right" if heading else "left")
    for name, row in census.ranges.iterrows():
        ranges.add_row(str(name), *(_count(str(name), row[end]) for end in ("least", "greatest")))
    console.print(ranges)
    shares = Table(title="their axes", title_justify="left", show_header=False)
    for axis, values in census.shares.items():
        shares.add_row(axis, _shares(values, census.kept))
    console.print(shares)
    if len(census.top):
        console.print(_rows(census.top, axes, f"the first {len(census.top):,}{_by(query.sort)}"))
    goals = [f"least {name}" for name in query.minimize]
    goals += [f"most {name}" for name in query.maximize]
    heading = f"Pareto front ({', '.join(goals)}): {len(census.front):,} architectures"
    few = census.front.iloc[_spread(len(census.front), 10)]
    if len(few) < len(census.front):
        heading += f", {len(few)} of them"
    console.print(_rows(few, axes, heading))


def _by(sort: tuple[str, ...]) -> str:
    return f" by {', '.join(sort)}" if sort else ""


def _count(name: str, value: float) -> str:
    return f"{value:,.3f}" if name == "size_mb" else f"{int(value):,}"


def _shares(counts: Mapping[Any, int], total: int) -> str:
    """The values of an axis by how often they are kept, the most frequent first."""
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    shown = [f"{format_value(value)} {100 * n / total:.0f}%" for value, n in ranked[:8] if n]
    others = sum(n > 0 for _, n in ranked[8:])
    return ", ".join(shown) + (f", {others} others" if others else "")


def _spread(rows: int, most: int) -> list[int]:
    """Up to `most` row numbers, evenly from the first to the last."""
    if rows <= most:
        return list(range(rows))
    return [round(i * (rows - 1) / (most - 1)) for i in range(most)]


def _rows(rows: pd.DataFrame, axes: list[str], title: str) -> Table:
    """Rows of a census: what varies, and the costs, rounded (the files hold them exactly)."""
    cells = {name: [_axis_value(value) for value in rows[name]] for name in axes}
    cells["params"] = [f"{n:,}" for n in rows["params"]]
    cells["MACs"] = [f"{n / 1e6:,.1f}M" for n in rows["macs"]]
    cells["activations"] = [f"{n / 1e6:,.2f}M" for n in rows["activations"]]
    cells["peak_memory"] = [f"{n / 1e6:,.2f} MB" for n in rows["peak_activation_bytes"]]
    table = Table(title=title, title_justify="left", padding=(0, 0), pad_edge=False)
    for name, texts in cells.items():
        justify: Any = "left" if name in ("pool_after", "bypass") else "right"
        width = max(map(len, texts), default=0)  # a narrow terminal folds headings, not numbers
        table.add_column(name.replace("_", "\n"), justify=justify, min_width=width, overflow="fold")
    for row in zip(*cells.values(), strict=True):
        table.add_row(*row)
    return table


def _axis_value(value: Any) -> str:
    if is_missing(value):
        return ""  # a Fire that overrides nothing
    return f"{value:.4g}" if isinstance(value, float) else str(value)
