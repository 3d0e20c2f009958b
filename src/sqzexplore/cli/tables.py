"""The tables of measurements, of a sweep and of a census on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..census.accumulators import MAX_FRONT
from ..census.blocks import MAY_BE_FRONT
from ..census.query import Census, Query
from ..network.frames import format_value
from ..published import alexnet_params, published
from ..results.remarks import training_remarks
from ..results.shown import ShownColumn, axis_columns, named, threads_text
from ..results.smaller import smaller_columns
from ..schema import FLAGS, PREDICTED
from ..spec.models import Spec
from .progress import against
from .terminal import terminal_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_SETTINGS = ("device", "runtime", "dtype", "input_size", "memory_format", "form", "mode")


def layers_table(rows: list[dict[str, Any]]) -> Table:
    """The layers, with what they wait for."""
    title, settings = _shared_and_own(rows, (*_SETTINGS, "batch"))
    columns = [
        *settings,
        named("layer", "layer", words=True),
        named("p50 (ms)", "latency_ms_p50", "{:,.3f}"),
        named("floor (ms)", "floor_ms", "{:,.3f}"),
        named("roofline", "roofline_share", "{:.0%}"),
        ShownColumn("MMACs", lambda row: f"{row['macs'] * row['batch'] / 1e6:,.1f}"),
        ShownColumn("MB", lambda row: f"{row['bytes'] / 1e6:,.2f}"),
        named("bound by", "bound", words=True),
    ]
    return terminal_table(
        title,
        columns,
        rows,
        caption="each layer alone on its input; MMACs and MB: of one pass of the batch",
        ends_section=lambda row: row["layer"].startswith("avgpool"),
    )


def throughput_table(rows: list[dict[str, Any]]) -> Table:
    """What all rows share goes into the title, the rest into the columns."""
    title, settings = _shared_and_own(rows, (*_SETTINGS, "threads", "processes"))
    columns = [
        *settings,
        named("batch", "batch"),
        ShownColumn("images/s", _speed),
        named("sustained", "sustained_images_per_s", "{:,.1f}"),
        named("p50 (ms)", "latency_ms_p50", "{:,.2f}"),
        ShownColumn("95% interval", _interval),
        named("p99 (ms)", "latency_ms_p99", "{:,.2f}"),
        named("vs v1.1", "relative_to_reference", "{:.2f}x"),
        named("roofline", "roofline_share", "{:.0%}"),
        named("bound by", "bound", words=True),
    ]
    caption = (
        "images/s: batch / median latency; sustained: of passes without a pause; vs v1.1: speed / "
        "that of squeezenet1_1 at the same settings, in the same rounds; roofline: least time / "
        "median latency; the interval is over the processes, of one over its rounds"
    )
    return terminal_table(title, columns, rows, caption)


def _shared_and_own(
    rows: list[dict[str, Any]], settings: Sequence[str]
) -> tuple[str, list[ShownColumn]]:
    """The settings that all rows share, as a title, and a column for each other, after the
    architecture's."""
    shared = [name for name in settings if len({row[name] for row in rows}) == 1]
    own = [named(name, name) for name in settings if name not in shared]
    title = ", ".join(f"{name} {rows[0][name]}" for name in shared)
    return title, [named("architecture", "architecture", words=True), *own]


def reasons(rows: list[dict[str, Any]]) -> list[str]:
    """A line for each row without numbers: what it is of, and why."""
    return [
        f"{row['architecture']}, batch {row['batch']}, {row['dtype']}, {row['form']}, "
        f"{row['mode']}: {row['outcome']}: {row['reason']}"
        for row in rows
        if row["outcome"] != "measured"
    ]


def _speed(row: Mapping[str, Any]) -> str:
    return f"{row['images_per_s']:,.1f}" if row["outcome"] == "measured" else str(row["outcome"])


def _interval(row: Mapping[str, Any]) -> str:
    """Half the width of the latency's interval, and whether that is more than was aimed at."""
    if row["precision"] is None:
        return ""
    short = row["precise"] is not None and not row["precise"]
    return f"+-{row['precision']:.1%}" + (", not precise" if short else "")


#: Trials of a sweep that the terminal shows.
MOST_ROWS = 100
#: Axes that stand beside the costs with room between them.
_MOST_WIDE_AXES = 4


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
    accuracy, axes = bool(spec.measure.accuracy), axis_columns(spec.design_space.axis_names)
    columns = [
        *axes,
        named("params", "params", "{:,}"),
        named("size (MB)", "size_mb", "{:.2f}"),
        ShownColumn("vs AlexNet", lambda row: against(params / row["params"])),
        ShownColumn("MACs", lambda row: _millions(row["macs"])),
        replace(named("trained size (MB)", "train_size_mb", "{:.3f}"), when=accuracy),
        ShownColumn("top-1 (%)", _accuracy, when=accuracy),
        ShownColumn("95% interval", _accuracy_interval, when=accuracy),
        replace(named("images/s", "images_per_s", "{:,.1f}"), when=bool(spec.measure.throughput)),
        ShownColumn("feasible", _feasible, when=bool(spec.result_constraints)),
    ]
    shown = [row for _, row in trials.head(MOST_ROWS).iterrows()]
    baseline = ["AlexNet", *[""] * (len(axes) - 1), f"{params:,}", f"{params * 4 / 1e6:.2f}"]
    title, tight = f"{spec.name}: {spec.question}", len(axes) > _MOST_WIDE_AXES
    console.print(terminal_table(title, columns, shown, totals=[baseline], tight=tight))
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
    rows = [row for _, row in drops.head(MOST_ROWS).iterrows()]
    columns = smaller_columns(spec, trials, form, drops)
    return terminal_table(_FORM_TITLES[form], columns, rows, _FORM_CAPTIONS[form])


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


def _millions(count: float) -> str:
    return f"{count / 1e6:,.0f}M" if count >= 1e7 else f"{count / 1e6:.2f}M"


def _accuracy(row: pd.Series) -> str:
    if pd.isna(row["top1"]):
        return str(row["state"])
    learning = not pd.isna(row["still_learning"]) and row["still_learning"]
    return f"{row['top1']:.2f}{' (still learning)' if learning else ''}"


def _accuracy_interval(row: pd.Series) -> str:
    if pd.isna(row["top1"]):
        return ""
    if pd.isna(row["top1_ci_low"]):
        return "one seed"
    return f"{row['top1_ci_low']:.2f} to {row['top1_ci_high']:.2f}"


def _feasible(row: pd.Series) -> str:
    return "" if pd.isna(row["feasible"]) else _yes(row["feasible"], "no")


def _yes(value: Any, otherwise: str = "") -> str:
    return "yes" if value else otherwise


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
    columns = ["device", "throughput_device_name", "batch", "dtype", "threads", "torch_version"]
    for _, row in measured[columns].drop_duplicates().iterrows():
        lines.append(
            f"images/s: {row['device']} ({row['throughput_device_name']}), batch {row['batch']}, "
            f"{row['dtype']}, {threads_text(row['threads'])}, torch {row['torch_version']}"
        )
    if spec.result_constraints:
        requested = " and ".join(constraint.text for constraint in spec.result_constraints)
        lines.append(
            f"feasible: {requested}; {int((trials['feasible'] == False).sum())} of {len(trials)} "  # noqa: E712
            "do not meet it, and stand on no Pareto front"
        )
    return lines


def print_census(console: Console, census: Census, title: str) -> None:
    """What a census found: how many rows, their costs, their axes, the best and the front."""
    query, axes = census.query, census.space.axis_names
    looked_at = "drawn at random" if query.sample else "combinations"
    kept = f", {census.spelled:,} kept by {query.where.text!r}" if query.where else ""
    counts = f"{census.combinations:,} {looked_at}, {census.feasible:,} feasible{kept}"
    if not query.spellings:
        counts += f": {census.kept:,} distinct networks"
    console.print(f"{title.rstrip(': ')}\n{counts}", highlight=False, markup=False)
    if not census.kept:
        return
    size = census.input_size
    ends = [ShownColumn(end, partial(_range_end, end)) for end in ("least", "greatest")]
    name = ShownColumn("", lambda item: str(item[0]), words=True)
    title = f"their costs, input {size}x{size}"
    console.print(terminal_table(title, [name, *ends], census.ranges.iterrows()))
    shares = ShownColumn("", lambda item: _shares(item[1], census.kept), words=True)
    console.print(terminal_table("their axes", [name, shares], census.shares.items()))
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


def _range_end(end: str, item: tuple[str, pd.Series]) -> str:
    """The `least` or the `greatest` of a column of costs."""
    name, ends = item
    return f"{ends[end]:,.3f}" if name == "size_mb" else f"{int(ends[end]):,}"


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
    words = ("pool_after", "bypass")
    columns = [
        *(replace(column, words=column.heading in words) for column in axis_columns(axes)),
        named("params", "params", "{:,}"),
        ShownColumn("MACs", lambda row: f"{row['macs'] / 1e6:,.1f}M"),
        ShownColumn("activations", lambda row: f"{row['activations'] / 1e6:,.2f}M"),
        ShownColumn("peak_memory", lambda row: f"{row['peak_activation_bytes'] / 1e6:,.2f} MB"),
        *(
            named(name, name, "{:,}")
            for name in sorted(query.ranked & {"int8_peak_bytes", "int8_flash_bytes"})
        ),
        *(_predicted(name) for name in PREDICTED if name in rows),
        ShownColumn(MAY_BE_FRONT, lambda row: _yes(row[MAY_BE_FRONT]), when=MAY_BE_FRONT in rows),
        replace(named("spellings", "spellings", "{:,}"), when="spellings" in rows),
    ]
    return terminal_table(title, columns, rows.to_dict("records"), tight=True)


def _predicted(name: str) -> ShownColumn:
    if name in FLAGS:
        return ShownColumn(name, lambda row: _yes(row[name]))
    return ShownColumn(name, lambda row: f"{row[name]:,.2f}")
