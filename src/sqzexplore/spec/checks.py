"""What a spec must fulfil beyond the type of each key: axes, constraints, search, figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..data.names import check_data_name
from ..errors import UserError, nearest, shown
from ..network.architecture import FIELDS, Architecture
from ..network.cost import COST_COLUMNS
from ..network.frames import value_text
from ..space.axis import Axis
from ..space.constraints import MEASURED, Expression
from ..space.space import Space, Variant
from .axes import (
    architectures_of,
    axes_of,
    axis_of,
    base_of,
    check_conditions,
    check_field,
    check_listed,
    check_shapes,
    field_value,
)
from .models import AT_RANDOM, OBJECTIVES, AccuracySpec, Spec
from .yaml_text import KeyPath, Problem

#: Measured columns that the test split alone has: a search, which may not know it, knows none.
OF_TEST_ALONE = ("top5", "balanced_top1")

# --- checking ----------------------------------------------------------------------------------


def space_of(spec: Spec) -> Space:
    """The design space that a spec speaks of."""
    base = base_of(spec.base)
    if not spec.space:
        raise Problem(("space",), "found no axis, expected at least one")
    listed: tuple[Architecture, ...] = ()
    if isinstance(spec.space, list):
        listed = architectures_of(base, spec.space)
        axes = axes_of(listed, spec.space)
    else:
        for name in spec.space:
            check_field(name, ("space", name))
        axes = tuple(axis_of(name, value, ("space", name)) for name, value in spec.space.items())
    constraints = []
    for number, text in enumerate(spec.constraints):
        try:
            constraint = Expression(text, of_results=True)
        except UserError as error:
            raise Problem(("constraints", number), str(error)) from None
        for name in constraint.measured:
            if getattr(spec.measure, MEASURED[name]) is None:
                raise Problem(
                    ("constraints", number),
                    f"found {name}, expected measure.{MEASURED[name]}, which is not asked for",
                )
            if name in OF_TEST_ALONE and spec.search.sampler not in AT_RANDOM:
                raise Problem(
                    ("constraints", number),
                    f"found {name} with the sampler {spec.search.sampler}, expected top1 or "
                    "val_top1: a search knows the accuracy on the validation split alone",
                )
        constraints.append(constraint)
    variants = [Variant(spec.input_size)]
    if spec.measure.throughput and (sizes := spec.measure.throughput.input_size):
        if spec.input_size not in sizes:
            raise Problem(
                ("measure", "throughput", "input_size"),
                f"found {shown(sizes)}, expected the spec's input_size, {spec.input_size}, "
                "among them: it is what the table of trials shows",
            )
        variants += [Variant(size) for size in sizes if size != spec.input_size]
    if spec.measure.accuracy:
        variants.append(_training_variant(spec.measure.accuracy))
        _check_trainings_differ(spec.measure.accuracy, axes)
    hard = tuple(constraint for constraint in constraints if not constraint.measured)
    space = Space(base, axes, hard, tuple(variants), listed)
    check_conditions(space)
    if listed:
        check_listed(space)
    else:
        check_shapes(space)
    _check_batch(spec, space)
    return space


def _check_batch(spec: Spec, space: Space) -> None:
    """BatchNorm has no variance of one image."""
    accuracy = spec.measure.accuracy
    if accuracy is None or accuracy.batch_size > 1:
        return
    varied = next((axis.values for axis in space.axes if axis.field == "batch_norm"), ())
    if accuracy.proxy.get("batch_norm", space.base.batch_norm or True in varied):
        raise Problem(
            ("measure", "accuracy", "batch_size"),
            "found 1 with batch_norm: true, expected 2 or more: one image has no variance",
        )


def _check_trainings_differ(accuracy: AccuracySpec, axes: Sequence[Axis]) -> None:
    """An axis of which all trainings have one value says nothing."""
    for axis in axes:
        if axis.field in ("in_channels", "num_classes", *accuracy.proxy):
            decides = "measure.accuracy.proxy" if axis.field in accuracy.proxy else "the data set"
            raise Problem(
                ("space", axis.field),
                f"found an axis on which all trainings are alike, as {decides} decides it; "
                "expected it in one of the two places",
            )


def _training_variant(accuracy: AccuracySpec) -> Variant:
    path: KeyPath = ("measure", "accuracy")
    try:
        check_data_name(accuracy.data)
    except UserError as error:
        raise Problem((*path, "data"), str(error)) from None
    proxy = {
        name: _proxy_value(name, value, (*path, "proxy", name))
        for name, value in accuracy.proxy.items()
    }
    return Variant(accuracy.image_size, proxy)


def _proxy_value(name: str, value: Any, path: KeyPath) -> Any:
    check_field(name, path)
    if name in ("in_channels", "num_classes"):
        raise Problem(path, "expected no such key: the data set decides it")
    return field_value(name, value, path)


def check_search(spec: Spec) -> None:
    """Refuse a search that cannot run on the space."""
    search, space = spec.search, spec.design_space
    if space.listed and search.sampler != "grid":
        raise Problem(
            ("search", "sampler"),
            f"found {search.sampler}, expected grid: a list of architectures is evaluated whole",
        )
    if search.sampler == "grid":
        if search.trials is not None:
            raise Problem(
                ("search", "trials"),
                f"found {search.trials}, expected no such key: a grid has as many trials as "
                "architectures",
            )
        for axis in space.axes:
            if axis.continuous:
                raise Problem(
                    ("space", axis.field),
                    "found a continuous axis, expected a list or a step for the sampler grid",
                )
    elif search.trials is None and search.timeout is None:
        raise Problem(
            ("search", "trials"),
            f"expected a number of trials, or search.timeout, for the sampler {search.sampler}",
        )
    if search.stratify is not None:
        if search.sampler != "random":
            raise Problem(
                ("search", "stratify"),
                f"found it with the sampler {search.sampler}, expected the sampler random",
            )
        if search.stratify not in COST_COLUMNS:
            raise Problem(
                ("search", "stratify"),
                f"found {search.stratify}, expected one of {', '.join(COST_COLUMNS)}"
                f"{nearest(search.stratify, COST_COLUMNS)}",
            )
    if search.pruner == "front":
        _check_front_pruner(spec)
    elif search.pruner and list(spec.objectives) != ["top1"]:
        raise Problem(
            ("search", "pruner"),
            f"found {search.pruner} with the objectives {', '.join(spec.objectives)}, expected "
            "objectives: {top1: maximize} alone: only accuracy is known before a training ends",
        )
    if search.pruner and spec.measure.accuracy and len(spec.measure.accuracy.budgets) > 1:
        raise Problem(
            ("search", "pruner"),
            f"found {search.pruner} with several budgets, expected one number of "
            "measure.accuracy.epochs: a pruner compares trainings epoch by epoch",
        )
    for name in search.objectives:
        if name not in OBJECTIVES:
            raise Problem(
                ("search", "objectives", name),
                f"unknown objective, expected one of {', '.join(OBJECTIVES)}"
                f"{nearest(name, OBJECTIVES)}",
            )
        need = OBJECTIVES[name]
        if need != "cost" and getattr(spec.measure, need) is None:
            raise Problem(
                ("search", "objectives", name), f"expected measure.{need}, which is not asked for"
            )


def check_figures(spec: Spec) -> None:
    """Refuse a figure of a column that the sweep does not fill."""
    valid = figure_columns(spec)
    for number, figure in enumerate(spec.figures or ()):
        for key in ("x", "y", "label"):
            name = getattr(figure, key)
            known = [*valid, *FIELDS] if key == "label" else valid
            if name is not None and name not in known:
                raise Problem(
                    ("figures", number, key),
                    f"found {shown(name)}, expected a measured column: {', '.join(valid)}"
                    f"{nearest(name, known)}",
                )


def _check_front_pruner(spec: Spec) -> None:
    """It knows the costs of a network beforehand, and bounds its accuracy; nothing else."""
    others = [name for name in spec.objectives if name != "top1"]
    if spec.objectives.get("top1") != "maximize" or not {*others} & {*COST_COLUMNS}:
        raise Problem(
            ("search", "pruner"),
            f"found front with the objectives {', '.join(spec.objectives)}, expected top1: "
            "maximize and at least one cost",
        )
    if unknown := [name for name in others if name not in COST_COLUMNS]:
        raise Problem(
            ("search", "pruner"),
            f"found front with the objective {unknown[0]}, which is known once it is measured; "
            "expected top1 and costs alone",
        )


def check_smaller(spec: Spec) -> None:
    """Refuse settings that are no pairs, or of no training."""
    for section in ("compression", "int8"):
        if getattr(spec.measure, section) and spec.measure.accuracy is None:
            raise Problem(
                ("measure", section), "expected measure.accuracy beside it, which is not asked for"
            )
    if (compression := spec.measure.compression) is None:
        return
    path: KeyPath = ("measure", "compression")
    densities, bits = compression.density, compression.bits
    if len(densities) != len(bits):
        raise Problem(
            (*path, "bits"),
            f"found {len(bits)} values, expected {len(densities)}, one for each of density: they "
            "are paired by position",
        )
    pairs = [*zip(densities, bits, strict=True)]
    for number, pair in enumerate(pairs):
        if pair in pairs[:number]:
            raise Problem(
                (*path, "density", number),
                f"found {pair[0]:g} with {pair[1]} bits twice, expected each setting once",
            )


def check_claims(spec: Spec) -> None:
    """Refuse a claim that the sweep cannot judge."""
    axes = {axis.field: axis for axis in spec.design_space.axes}
    for number, claim in enumerate(spec.claims):
        path: KeyPath = ("claims", number)
        if spec.measure.accuracy is None:
            raise Problem(path, "found a claim, expected measure.accuracy, which is not asked for")
        wrong, right = ("by", "within") if claim.expect == "same" else ("within", "by")
        if getattr(claim, wrong) is not None:
            raise Problem(
                (*path, wrong), f"expected no such key with expect: {claim.expect}, but {right}"
            )
        if claim.expect == "same" and claim.within is None:
            raise Problem((*path, "within"), "expected a margin in points, the key is missing")
        for name, values in claim.compare.items():
            here = (*path, "compare", name)
            if len(values) != 2:
                raise Problem(here, f"found {len(values)} values, expected two: first and second")
            for place, value in enumerate(values):
                _check_level(spec, axes, name, value, here, place)
        if all(values[0] == values[1] for values in claim.compare.values()):
            raise Problem((*path, "compare"), "found the same twice, expected two that differ")
        for name, value in claim.where.items():
            _check_level(spec, axes, name, value, (*path, "where", name))
        if both := [name for name in claim.where if name in claim.compare]:
            raise Problem((*path, "where", both[0]), "found it under compare too, expected once")


def _check_level(
    spec: Spec,
    axes: dict[str, Axis],
    name: str,
    value: Any,
    path: KeyPath,
    place: int | None = None,
) -> None:
    """Refuse a value that no architecture of the sweep has."""
    if name not in axes:
        raise Problem(
            path, f"expected an axis of the space: {', '.join(axes)}{nearest(name, axes)}"
        )
    here = path if place is None else (*path, place)
    typed, axis = field_value(name, value, here), axes[name]
    if axis.continuous or typed in axis.values or typed == spec.design_space.base.get(name):
        return
    known = ", ".join(value_text(each) for each in axis.values[:12])
    raise Problem(here, f"found {shown(value)}, expected a value of the axis: {known}")


def figure_columns(spec: Spec) -> list[str]:
    """The numeric columns that a sweep of this spec fills."""
    columns = [*COST_COLUMNS]
    if spec.measure.accuracy:
        columns += [f"train_{name}" for name in COST_COLUMNS]
    columns += [name for name, section in MEASURED.items() if getattr(spec.measure, section)]
    columns += [name for name, kind in FIELDS.items() if kind in (int, float)]
    return columns
