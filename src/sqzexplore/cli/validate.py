"""`validate`: what a spec asks, and what its run will cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from operator import itemgetter
from typing import TYPE_CHECKING

from ..errors import shown
from .app import Changes, SpecFile, app, err, out, warn_of_emulation

if TYPE_CHECKING:
    from ..data.source import Source
    from ..network.columns import Columns
    from ..space.space import Space
    from ..spec.models import Spec

#: Combinations that `validate` goes through: less than a minute.
_MOST_COUNTED = 10**8
#: Architectures that it draws of a larger or a continuous space.
_DRAWN = 100_000


@app.command()
def validate(spec_file: SpecFile, changes: Changes = None) -> None:
    """Check a spec; say how many architectures it has and what its run will cost."""
    from ..evaluation.workload import open_requested
    from ..network.frames import format_value
    from ..results.shown import ShownColumn
    from ..spec.load import load_spec
    from .terminal import terminal_table

    spec = load_spec(spec_file, changes or ())
    space = spec.design_space
    source = open_requested(spec.measure.accuracy) if spec.measure.accuracy else None
    feasible, warnings = _look_at(spec, source)
    lines = [("sweep", spec.name)]
    for axis in space.axes:
        text = f"{axis.low} to {axis.high}, continuous"
        if not axis.continuous:
            few = ", ".join(shown(value) for value in axis.values[:6])
            text = f"{len(axis.values)} values: {few}{', ...' if len(axis.values) > 6 else ''}"
        for name, values in axis.when:
            text += f"; where {name} is {' or '.join(map(format_value, values))}"
        lines.append((f"axis {axis.field}", text))
    trials = spec.search.trials
    lines += [("constraint on results", constraint.text) for constraint in spec.result_constraints]
    if space.enumerable:
        known = f"{feasible:,}" if feasible is not None else "an unknown number (too many to count)"
        lines.append(("architectures", f"{space.size:,}, of which {known} are feasible"))
        if feasible is not None:
            trials = feasible if trials is None else min(trials, feasible)
    if timeout := spec.search.timeout:
        lines.append(("timeout", f"{timeout:,.0f} s"))
    if trials is not None:
        by = f", stratified by {spec.search.stratify}" if spec.search.stratify else ""
        lines.append(("trials", f"{trials:,} ({spec.search.sampler}{by})"))
        lines += _expected_cost(spec, trials, source).items()
    columns = [ShownColumn("", itemgetter(column), words=True) for column in (0, 1)]
    out.print(terminal_table(f"{spec_file}: valid", columns, lines))
    if spec.measure.accuracy and spec.measure.accuracy.precision == "bfloat16":
        from ..measure.devices import resolve_device

        warn_of_emulation("bfloat16", resolve_device("auto"))
    for warning in warnings:
        err.print(f"warning: {warning}", highlight=False, soft_wrap=True)


def _look_at(spec: Spec, source: Source | None) -> tuple[int | None, list[str]]:
    """How many architectures are feasible, exactly, and what to warn of in them.

    Where counting would take minutes or never end, the number is None, and the warnings are of some
    that are drawn.
    """
    from ..space.small_maps import SmallMaps

    space = spec.design_space
    looks = {"deployed": SmallMaps(space.variants[0])}
    if source:
        proxy = space.variants[-1]
        data = {"in_channels": source.channels, "num_classes": len(source.classes)}
        looks["trained"] = SmallMaps(replace(proxy, changes={**proxy.changes, **data}))
    feasible, whole = 0, space.enumerable and space.size <= _MOST_COUNTED
    for columns, rows in _feasible(space) if whole else _drawn(space):
        feasible += rows
        for look in looks.values():
            look.add(columns, rows)
    axes = space.axis_names
    texts = {
        f"{name} at {look.input_size}x{look.input_size} pixels": look.text(axes, drawn=not whole)
        for name, look in looks.items()
    }
    warnings = [f"{network}: {text}" for network, text in texts.items() if text]
    return feasible if whole else None, warnings


def _feasible(space: Space) -> Iterator[tuple[Columns, int]]:
    """The feasible architectures of a space as columns, block by block."""
    import numpy as np

    from .progress import RowsDisplay

    with RowsDisplay(err) as display:
        display.start("counting", space.size)
        for start, keep in space.blocks():
            numbers = start + np.flatnonzero(keep)
            yield space.columns_at(numbers), len(numbers)
            display.advance(len(keep))


def _drawn(space: Space) -> Iterator[tuple[Columns, int]]:
    """Those that are feasible of some drawn at random."""
    import numpy as np

    from ..network.columns import take_rows

    columns = space.sample(_DRAWN, seed=0)
    numbers = np.flatnonzero(space.feasible(columns, _DRAWN))
    yield take_rows(columns, numbers), len(numbers)


def _expected_cost(spec: Spec, trials: int, source: Source | None) -> dict[str, str]:
    """What a run will do: trainings, their arithmetic, measurements."""
    from ..evaluation.workload import training_macs

    expected = {}
    space = spec.design_space
    if accuracy := spec.measure.accuracy:
        budgets = accuracy.budgets
        count = trials * accuracy.seeds * len(budgets)
        each = " or ".join(map(str, budgets))
        expected["trainings"] = f"{count:,}, of {each} epochs{' each' * (len(budgets) == 1)}"
        assert source is not None
        expected["data"] = source.description
        if spec.search.sampler == "grid" and trials <= 10_000:
            images = source.sizes[0] * sum(budgets) * accuracy.seeds
            macs = sum(training_macs(space.architecture(i), spec, source) for i in space.indices())
            # Forward, gradient of the inputs, gradient of the weights: three times the forward.
            expected["training arithmetic"] = f"{6 * macs * images / 1e12:,.1f} TFLOPs"
    if throughput := spec.measure.throughput:
        count = trials * len(throughput.settings("cpu", spec.input_size))
        auto = throughput.batch == "auto"
        count *= 1 if auto else len(throughput.batch)
        expected["throughput measurements"] = (
            f"{count:,}{' times the batches that auto takes' if auto else ''}, "
            f"in {throughput.processes or '5 (on a GPU 1)'} processes, "
            f"at most about {throughput.seconds * 1.5:g} s each where a pass is short"
        )
    expected["objectives"] = ", ".join(f"{k}: {v}" for k, v in spec.objectives.items())
    return expected


@app.command()
def schema() -> None:
    """Print the JSON Schema of a spec, by which editors complete and check it."""
    import json

    from ..spec.schema import json_schema

    print(json.dumps(json_schema(), indent=2))
