"""What a sweep shows on the terminal: its progress, and its table at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from ..analysis.smaller import SETTINGS
from ..census.accumulators import MAX_FRONT
from ..census.blocks import MAY_BE_FRONT
from ..census.query import Census, Query
from ..network.frames import format_value
from ..network.overrides import is_missing
from ..published import alexnet_params, published
from ..results.remarks import training_remarks
from ..schema import FLAGS, PREDICTED
from ..spec.models import Spec
from .progress import against

_SETTINGS = ("device", "runtime", "dtype", "input_size", "memory_format", "form", "mode")
#: What `table` shows of a measurement, and `bound by` after it.
_COLUMNS = ("images/s", "sustained", "p50 (ms)", "95% interval", "p99 (ms)", "vs v1.1", "roofline")


def layers_table(rows: list[dict[str, Any]]) -> Table:
    """The layers, with what they wait for."""
    made, differing = _titled(rows, (*_SETTINGS, "batch"))
    made.add_column("layer", no_wrap=True)
    for heading in ("p50 (ms)", "floor (ms)", "roofline", "MMACs", "MB"):
        made.add_column(heading, justify="right")
    made.add_column("bound by")
    for row in rows:
        made.add_row(
            row["architecture"],
            *(str(row[name]) for name in differing),
            row["layer"],
            f"{row['latency_ms_p50']:,.3f}",
            f"{row['floor_ms']:,.3f}",
            f"{row['roofline_share']:.0%}",
            f"{row['macs'] * row['batch'] / 1e6:,.1f}",
            f"{row['bytes'] / 1e6:,.2f}",
            row["bound"],
            end_section=row["layer"].startswith("avgpool"),
        )
    made.caption = "each layer alone on its input; MMACs and MB: of one pass of the batch"
    return made


def table(rows: list[dict[str, Any]]) -> Table:
    """What all rows share goes into the title, the rest into the columns."""
    made, differing = _titled(rows, (*_SETTINGS, "threads", "processes"))
    made.add_column("batch", justify="right")
    for heading in _COLUMNS:
        made.add_column(heading, justify="right")
    made.add_column("bound by")
    for row in rows:
        made.add_row(
            row["architecture"],
            *(str(row[name]) for name in differing),
            str(row["batch"]),
            *_cells(row),
        )
    made.caption = (
        "images/s: batch / median latency; sustained: of passes without a pause; vs v1.1: speed / "
        "that of squeezenet1_1 at the same settings, in the same rounds; roofline: least time / "
        "median latency; the interval is over the processes, of one over its rounds"
    )
    return made


def _titled(rows: list[dict[str, Any]], settings: Sequence[str]) -> tuple[Table, list[str]]:
    """A table whose title says the settings that all rows share, with a column for each other."""
    shared = [name for name in settings if len({row[name] for row in rows}) == 1]
    differing = [name for name in settings if name not in shared]
    title = ", ".join(f"{name} {rows[0][name]}" for name in shared)
    made = Table(title=title, title_justify="left")
    made.add_column("architecture", no_wrap=True)
    for name in differing:
        made.add_column(name, justify="right")
    return made, differing


def reasons(rows: list[dict[str, Any]]) -> list[str]:
    """A line for each row without numbers: what it is of, and why."""
    return [
        f"{row['architecture']}, batch {row['batch']}, {row['dtype']}, {row['form']}, "
        f"{row['mode']}: {row['outcome']}: {row['reason']}"
        for row in rows
        if row["outcome"] != "measured"
    ]


def _cells(row: Mapping[str, Any]) -> list[str]:
    if row["outcome"] != "measured":
        return [row["outcome"], *[""] * len(_COLUMNS)]
    return [
        f"{row['images_per_s']:,.1f}",
        _shown(row["sustained_images_per_s"], "{:,.1f}"),
        f"{row['latency_ms_p50']:,.2f}",
        _interval(row),
        f"{row['latency_ms_p99']:,.2f}",
        _shown(row["relative_to_reference"], "{:.2f}x"),
        _shown(row["roofline_share"], "{:.0%}"),
        row["bound"] or "",
    ]


def _interval(row: Mapping[str, Any]) -> str:
    """Half the width of the latency's interval, and whether that is more than was aimed at."""
    short = row["precise"] is not None and not row["precise"]
    parts = _shown(row["precision"], "+-{:.1%}"), "not precise" if short else ""
    return ", ".join(filter(None, parts))


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


#: Trials of a sweep that the terminal shows.
MOST_ROWS = 100


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
    params = alexnet_params()
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
            against(params / row["params"]),
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


def smaller_table(form: str, drops: pd.DataFrame, trials: pd.DataFrame, spec: Spec) -> Table:
    """What compressed or quantised networks lost of their accuracy.

    Args:
        form: `compressed` or `int8`.
        drops: as `analysis.drops` gives them.
        trials: the rows of the same sweep.
        spec: of the sweep.
    """
    axes = [axis.field for axis in spec.design_space.axes]
    settings = [name for name in SETTINGS[form] if drops[name].nunique() > 1 or form == "int8"]
    made = Table(title=_FORM_TITLES[form], title_justify="left")
    headings = ("MB", "float32 top-1 (%)", "top-1 (%)", "lost (points)", "95% interval")
    for name in (*axes, *settings):
        made.add_column(name)
    for heading in headings:
        made.add_column(heading, justify="right")
    known = trials.set_index("trial")
    for _, row in drops.head(MOST_ROWS).iterrows():
        low, high = row[f"{form}_drop_ci_low"], row[f"{form}_drop_ci_high"]
        made.add_row(
            *(_axis_value(known.loc[row["trial"]].get(name)) for name in axes),
            *(str(row[name]) for name in settings),
            f"{row[f'{form}_mb']:.4f}",
            f"{row['top1']:.2f}",
            f"{row[f'{form}_top1']:.2f}",
            f"{row[f'{form}_drop']:.2f}",
            "one seed" if pd.isna(low) else f"{low:.2f} to {high:.2f}",
        )
    made.caption = _FORM_CAPTIONS[form]
    return made


_FORM_TITLES = {
    "compressed": "compressed (Deep Compression): the trained networks",
    "int8": "in 8-bit integers (ONNX Runtime, CPU): the trained networks",
}
_FORM_CAPTIONS = {
    "compressed": "MB: the whole file; top-1 of what it decodes to, test split, mean over the "
    "seeds; the interval is over seeds and images, both paired. Storage, not speed",
    "int8": "MB: the ONNX file; top-1 on the test split, mean over the seeds, not retrained; the "
    "interval is over seeds and images, both paired",
}


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
            f"{accuracy.budgets[-1]} epochs, mean of {accuracy.seeds} seeds, "
            "95% interval over seeds and test images" + (f"; trained with {proxy}" if proxy else "")
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
    kept = f", {census.spelled:,} kept by {query.where.text!r}" if query.where else ""
    counts = f"{census.combinations:,} {looked_at}, {census.feasible:,} feasible{kept}"
    if not query.spellings:
        counts += f": {census.kept:,} distinct networks"
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
        first = f"the first {len(census.top):,}{_by(query.sort)}"
        console.print(_rows(census.top, axes, query, first))
    goals = [f"least {name}" for name in query.minimize]
    goals += [f"most {name}" for name in query.maximize]
    heading = f"Pareto front ({', '.join(goals)}): {len(census.front):,} {query.counts}"
    few = census.front.iloc[_spread(len(census.front), 10)]
    if len(few) < len(census.front):
        heading += f", {len(few)} of them"
    console.print(_rows(few, axes, query, heading))
    if query.front_is_predicted:
        found = census.possible
        many = f"more than {MAX_FRONT // 2:,}" if found is None else f"{len(found):,}"
        console.print(f"by the intervals {many} {query.counts} may be on the front (may_be_front)")


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


def _rows(rows: pd.DataFrame, axes: list[str], query: Query, title: str) -> Table:
    """Rows of a census: what varies, and the costs, rounded (the files hold them exactly); int8's
    where the order or the front is of them."""
    cells = {name: [_axis_value(value) for value in rows[name]] for name in axes}
    cells["params"] = [f"{n:,}" for n in rows["params"]]
    cells["MACs"] = [f"{n / 1e6:,.1f}M" for n in rows["macs"]]
    cells["activations"] = [f"{n / 1e6:,.2f}M" for n in rows["activations"]]
    cells["peak_memory"] = [f"{n / 1e6:,.2f} MB" for n in rows["peak_activation_bytes"]]
    ranked = {*query.minimize, *query.maximize, *(name.removeprefix("-") for name in query.sort)}
    for name in sorted(ranked & {"int8_peak_bytes", "int8_flash_bytes"}):
        cells[name] = [f"{n:,}" for n in rows[name]]
    for name in (name for name in PREDICTED if name in rows):
        cells[name] = [_predicted_value(name, value) for value in rows[name]]
    if MAY_BE_FRONT in rows:
        cells[MAY_BE_FRONT] = ["yes" if value else "" for value in rows[MAY_BE_FRONT]]
    if "spellings" in rows:
        cells["spellings"] = [f"{n:,}" for n in rows["spellings"]]
    table = Table(title=title, title_justify="left", padding=(0, 0), pad_edge=False)
    for name, texts in cells.items():
        justify: Any = "left" if name in ("pool_after", "bypass") else "right"
        width = max(map(len, texts), default=0)  # a narrow terminal folds headings, not numbers
        table.add_column(name.replace("_", "\n"), justify=justify, min_width=width, overflow="fold")
    for row in zip(*cells.values(), strict=True):
        table.add_row(*row)
    return table


def _predicted_value(name: str, value: Any) -> str:
    if name in FLAGS:
        return "yes" if value else ""
    return f"{value:,.2f}"


def _axis_value(value: Any) -> str:
    if is_missing(value):
        return ""  # a Fire that overrides nothing
    return f"{value:.4g}" if isinstance(value, float) else str(value)
