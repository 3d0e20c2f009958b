"""Expressions and the enumeration of a space, against Python's own evaluation."""

from __future__ import annotations

import itertools
import math
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sqzexplore as sqz
from sqzexplore.errors import UserError
from sqzexplore.network.columns import architecture_at, columns_of
from sqzexplore.network.cost import COST_COLUMNS, cost_columns
from sqzexplore.space.axis import Axis
from sqzexplore.space.constraints import Expression
from sqzexplore.space.space import Space, Variant
from sqzexplore.spec.load import parse_spec
from sqzexplore.sweep.optuna_params import distribution as distribution_of
from sqzexplore.sweep.optuna_params import from_params, to_params

AXES = (
    Axis("squeeze_ratio", (0.125, 0.5, 1.0)),
    Axis("pool_after", ((1,), (1, 4), (1, 4, 8))),
    Axis("bypass", ("none", "complex")),
    Axis("batch_norm", (False, True)),
    Axis("fires", (6, 8)),
)
SPACE = Space(sqz.Architecture(num_classes=10), AXES)

NUMBERS = st.sampled_from(
    ["params", "macs", "fires", "squeeze_ratio", "1e6", "3", "len(pool_after)"]
)
TRUTHS = st.sampled_from(
    ["batch_norm", "True", "4 in pool_after", "8 not in pool_after", "bypass == 'none'"]
)
ARITHMETIC = st.recursive(
    NUMBERS,
    lambda inner: (
        st.builds("({} {} {})".format, inner, st.sampled_from("+-*"), inner)
        | st.builds("-{}".format, inner)
    ),
    max_leaves=4,
)
COMPARISONS = st.builds(
    "{} {} {}".format, ARITHMETIC, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), ARITHMETIC
) | st.builds("{} < {} <= {}".format, ARITHMETIC, ARITHMETIC, ARITHMETIC)
CONDITIONS = st.recursive(
    COMPARISONS | TRUTHS,
    lambda inner: (
        st.builds("({} {} {})".format, inner, st.sampled_from(["and", "or"]), inner)
        | st.builds("(not {})".format, inner)
    ),
    max_leaves=5,
)


@cache
def taken_apart() -> tuple[dict[str, Any], dict[int, dict[str, Any]]]:
    """Fields and costs of the space as columns, and of each architecture by itself."""
    columns = SPACE.columns()
    costs, feasible = cost_columns(columns, len(SPACE), 224)
    assert feasible.sum() == len(SPACE) - 12  # no layer 8 to pool after with 6 Fires
    rows = {}
    for i in np.flatnonzero(feasible).tolist():
        architecture = SPACE.architecture(i)
        names = architecture.model_dump() | sqz.cost(architecture).totals()
        rows[i] = {k: float(v) if type(v) is int else v for k, v in names.items()}
    return {**columns, **costs}, rows


@settings(max_examples=200, deadline=None)
@given(CONDITIONS)
def test_conditions_mean_what_they_mean_in_python(text: str) -> None:
    if len(text) > 500:
        return
    columns, rows = taken_apart()
    got = np.broadcast_to(Expression(text)(columns), len(SPACE))
    code = compile(text, "<drawn>", "eval")  # our own text
    for i, doubles in rows.items():
        assert bool(got[i]) == bool(eval(code, {"len": len}, doubles)), text


def test_a_product_of_counts_does_not_wrap_around() -> None:
    costs, _ = cost_columns(SPACE.columns(), len(SPACE), 224)
    assert (costs["macs"].astype(object) ** 2 > 2**63).any()
    assert np.all(Expression("params < macs * macs")({**SPACE.columns(), **costs}))


@pytest.mark.parametrize(
    ("text", "distance"),
    [
        ("top1 > 75 and top5 > 90", math.inf),
        ("top5 > 90 and top1 > 75", math.inf),
        ("top5 == 90", math.inf),
        ("top5 > 90 or top1 > 90", 10.0),
        ("top1 > 90 or top5 > 90", 10.0),
        ("top5 > 90 or top1 > 75", -5.0),
        ("not (top5 > 90)", -math.inf),
        ("not (top1 < 75 or top5 > 90)", -5.0),
        ("top5 != 3", -math.inf),
        ("not (top5 != 3)", math.inf),
    ],
)
def test_a_missing_value_compares_with_nothing(text: str, distance: float) -> None:
    row = {"top1": 80.0, "top5": math.nan}
    condition = Expression(text, of_results=True)
    assert condition.violation(row) == distance
    assert bool(condition(row)) == (distance <= 0)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "().__class__",
        "params.__class__ == 1",
        "[x for x in (1,)] == 1",
        "(lambda: 1)() < 2",
        "params ** 2 < 9",
        "9 ** 9 ** 9 > 1",
        "len(params) > 1",
        "open('x') == 1",
        "params < 'a'",
        "bypass < 'none'",
        "bypass == 'other'",
        "squeeze_ratio == 'none'",
        "pool_after == 4",
        "0 in pool_after",
        "'a' in pool_after",
        "params is 3",
        "params",
        "params + 1",
        "not params",
        "params and macs",
        "batch_norm < 1",
        "1 if params else 2",
        "x := 3",
        "",
        " ",
        "params <",
        "(" * 300 + "params" + ")" * 300,
        "not " * 120 + "batch_norm",
        "params < 1\nmacs < 2",
        "params < 1; macs < 2",
        "f'{params}' == 'a'",
        "params < 1j",
        "params < 1" + " and params < 1" * 60,
    ],
)
def test_what_is_no_condition_is_refused(text: str) -> None:
    if text.startswith("not not"):
        Expression(text)  # odd, but a condition
        return
    with pytest.raises(UserError, match="expected"):
        Expression(text)


def test_the_enumeration_is_the_product_of_the_axes() -> None:
    names = [axis.field for axis in AXES]
    expected = []
    for values in itertools.product(*(axis.values for axis in AXES)):
        try:
            expected.append(SPACE.base.replace(**dict(zip(names, values, strict=True))))
        except ValueError:
            expected.append(None)
    for i, architecture in enumerate(expected):
        if architecture is not None:
            assert SPACE.architecture(i) == architecture
    assert list(SPACE.indices()) == [i for i, a in enumerate(expected) if a is not None]
    assert SPACE.count() == sum(a is not None for a in expected)
    assert SPACE.size == len(SPACE) == len(expected) == 72


def test_listed_architectures_are_the_space() -> None:
    spec = parse_spec(
        "name: listed\nbase: squeezenet1_1\nspace:\n  - {squeeze_ratio: 0.5}\n"
        "  - {fire9.squeeze_ratio: 0.25, pool_after: [1, 4, 8]}\n  - {fires: 6}\n"
        "constraints: [fires > 6]\n"
    )
    expected = [
        sqz.preset("squeezenet1_1", squeeze_ratio=0.5),
        sqz.preset("squeezenet1_1", pool_after=(1, 4, 8), **{"fire9.squeeze_ratio": 0.25}),
        sqz.preset("squeezenet1_1", fires=6),
    ]
    space = spec.design_space
    assert [space.architecture(number) for number in range(space.size)] == expected
    assert [*space.indices()] == [0, 1]
    assert [from_params(space, to_params(space, each)) for each in expected] == expected
    drawn = space.sample(600, seed=0)
    found = [expected.index(architecture_at(drawn, row)) for row in range(600)]
    assert min(np.bincount(found, minlength=3)) > 150
    with pytest.raises(UserError, match=r"search.sampler: found tpe, expected grid"):
        parse_spec(spec.source + "search: {sampler: tpe, trials: 2}\n")


def test_a_part_of_the_enumeration_is_that_part() -> None:
    whole, part = SPACE.columns(), SPACE.columns(10, 20)
    for field, values in whole.items():
        if np.ndim(values):
            assert (values[10:20] == part[field]).all()


def test_columns_of_architectures_and_back() -> None:
    chosen = [SPACE.architecture(i) for i in SPACE.indices()]
    columns = columns_of(chosen)
    assert [architecture_at(columns, row) for row in range(len(chosen))] == chosen


def test_trials_parameters_and_back() -> None:
    for i in SPACE.indices():
        architecture = SPACE.architecture(i)
        assert from_params(SPACE, to_params(SPACE, architecture)) == architecture


def test_variants_and_constraints_narrow_the_space() -> None:
    small = Space(SPACE.base, AXES, (), (Variant(224), Variant(18, {"in_channels": 1})))
    for i in range(small.size):
        try:
            architecture = SPACE.architecture(i)
            sqz.cost(architecture, 18)
        except ValueError:
            expected = False
        else:
            expected = True
        assert (i in set(small.indices())) == expected
    assert 0 < small.count() < SPACE.count()
    limited = Space(SPACE.base, AXES, (Expression("params < 1e6"),))
    for i in limited.indices():
        assert sqz.cost(limited.architecture(i)).params < 1e6
    assert 0 < limited.count() < SPACE.count()


def test_a_continuous_axis_is_named() -> None:
    space = Space(sqz.Architecture(), (Axis("squeeze_ratio", low=0.1, high=0.9, listed=False),))
    assert not space.enumerable
    with pytest.raises(UserError, match=r"space\.squeeze_ratio is continuous"):
        len(space)


def test_a_space_has_a_cost_table() -> None:
    space = Space(sqz.Architecture(), (Axis("squeeze_ratio", (0.125, 0.5)),))
    table = sqz.cost_table(space)
    assert list(table) == list(COST_COLUMNS)
    assert table["params"].tolist() == [1_248_424, 3_404_392]


def test_optuna_draws_the_last_step_too(recwarn: pytest.WarningsRecorder) -> None:
    space = parse_spec(
        "name: s\nspace: {squeeze_ratio: {min: 0.1, max: 0.9, step: 0.01}}\n"
    ).design_space
    distribution = distribution_of(space.axes[0])
    assert (distribution.high, distribution.step) == (0.9, 0.01)
    assert not recwarn.list
