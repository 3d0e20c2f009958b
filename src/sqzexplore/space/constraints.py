"""Constraints and filters as text (`params < 8e6 and bypass != "none"`), evaluated over columns.

The text is parsed, never evaluated as Python: comparisons, and/or/not, + - * / and the names of
metaparameters and cost columns are all there is, and arithmetic is that of doubles. `8 in
pool_after` and `len(pool_after)` ask for pools; `bypass` is compared with text.
`fire5.squeeze_ratio` is what Fire 5 has, overridden or not, and no number where there is no such
Fire.
"""

from __future__ import annotations

import ast
import math
import operator
import warnings
from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, Literal

import numpy as np

from ..errors import UserError, nearest, shown
from ..network.architecture import FIELDS, KEYS
from ..network.columns import Columns, of_fire
from ..network.cost import COST_COLUMNS
from ..network.overrides import BYPASSES, MAX_FIRES, OVERRIDES
from ..schema import FLAGS, PREDICTED, measured

NAMES: tuple[str, ...] = (*COST_COLUMNS, *FIELDS)
#: Columns that are known only when an architecture was measured, and the section that measures.
MEASURED = measured()

_MAX_LENGTH = 500  # keeps the parse tree shallow enough for the interpreter's stack
_EXAMPLE = "such as 'params < 8e6'"

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
#: Counts are integer columns, whose products would wrap around; doubles do not.
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: partial(np.add, dtype=np.float64),
    ast.Sub: partial(np.subtract, dtype=np.float64),
    ast.Mult: partial(np.multiply, dtype=np.float64),
    ast.Div: partial(np.true_divide, dtype=np.float64),
}

_Kind = Literal["number", "truth", "text", "layers"]


@dataclass(frozen=True)
class _Term:
    """A parsed sub-expression: what it gives, and how to compute it from columns."""

    kind: _Kind
    value: Callable[[Columns], Any]


@dataclass(frozen=True)
class Expression:
    """A condition on architectures.

    Args:
        text: the condition as the user wrote it.
        of_results: whether it may speak of `MEASURED` too.
        predicted: names of `PREDICTED` that it may speak of.

    Raises:
        UserError: the text is no condition over `NAMES` and the keys of single Fires.
    """

    text: str
    of_results: bool = False
    predicted: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._parse()
        for name in self._found(PREDICTED):
            if name not in self.predicted and not (self.of_results and name in MEASURED):
                known = f", or one of {', '.join(self.predicted)}" if self.predicted else ""
                nothing = "nothing else" if self.predicted else "nothing"
                what = "measured yet" if name in MEASURED else "predicted"
                raise UserError(
                    f"found the name {shown(name)}, expected a metaparameter or a cost "
                    f"column{known}: {nothing} is {what}"
                )

    @property
    def measured(self) -> tuple[str, ...]:
        """The names of `MEASURED` in it, in order of appearance."""
        return self._found(MEASURED)

    def _found(self, among: Container[str]) -> tuple[str, ...]:
        names = [node.id for node in ast.walk(self._tree()) if isinstance(node, ast.Name)]
        return tuple(dict.fromkeys(name for name in names if name in among))

    def violation(self, row: Columns) -> float:
        """How far one row is from meeting the condition: at most 0 where it does, else above.

        `a < b` is violated by a - b; `and` by the worse of two violations, `or` by the lesser;
        what is no comparison of numbers by 1. A missing value violates a comparison without bound,
        as it compares with nothing; so it meets `!=`, and `not` of what it violates.

        Args:
            row: fields, cost columns and the measured ones as scalars.
        """
        distance = _violation(self._tree().body)(row)
        return min(distance, 0.0) if self(row) else max(distance, math.ulp(0.0))

    def __call__(self, columns: Columns) -> Any:
        """True for the rows where the condition holds; `columns` has fields and cost columns."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._parse().value(columns)

    def _tree(self) -> ast.Expression:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # the text is not Python's to judge
            return ast.parse(self.text.strip(), mode="eval")

    def _parse(self) -> _Term:
        if len(self.text) > _MAX_LENGTH:
            raise UserError(f"found {len(self.text)} characters, expected at most {_MAX_LENGTH}")
        try:
            term = _term(self._tree().body)
        except UserError:
            raise
        except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
            raise UserError(f"found {shown(self.text)}, expected a condition {_EXAMPLE}") from None
        if term.kind != "truth":
            raise UserError(f"found {shown(self.text)}, expected a comparison {_EXAMPLE}")
        return term


def _term(node: ast.expr) -> _Term:
    match node:
        case ast.Name(id=name):
            return _name(name)
        case ast.Attribute(value=ast.Name(id=fire), attr=attribute):
            return _name(f"{fire}.{attribute}")
        case ast.Constant(value=bool() as value):
            return _Term("truth", lambda c: np.bool_(value))
        case ast.Constant(value=int() | float() as value):
            number = float(value)
            return _Term("number", lambda c: number)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            inner = _typed(operand, "truth")
            return _Term("truth", lambda c: np.logical_not(inner(c)))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = _typed(operand, "number")
            return _Term("number", lambda c: -inner(c))
        case ast.BoolOp(op=op, values=values):
            terms = [_typed(value, "truth") for value in values]
            join = np.logical_and if isinstance(op, ast.And) else np.logical_or
            return _Term("truth", lambda c: reduce(join, [term(c) for term in terms]))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            apply = _ARITHMETIC[type(op)]
            first, second = _typed(left, "number"), _typed(right, "number")
            return _Term("number", lambda c: apply(first(c), second(c)))
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            operands = [left, *comparators]
            pairs = [
                _comparison(a, op, b) for a, op, b in zip(operands, ops, operands[1:], strict=False)
            ]
            return _Term("truth", lambda c: reduce(np.logical_and, [pair(c) for pair in pairs]))
        case ast.Call(func=ast.Name(id="len"), args=[ast.Name(id="pool_after")], keywords=[]):
            return _Term("number", lambda c: np.bitwise_count(c["pool_after"]).astype(float))
    raise UserError(
        f"found {shown(ast.unparse(node))}, expected numbers, column names, + - * /, comparisons, "
        "and, or, not"
    )


def _name(name: str) -> _Term:
    if name in FLAGS:
        return _Term("truth", lambda c: c[name])
    if name in PREDICTED:
        return _Term("number", lambda c: c[name])
    if name in OVERRIDES:
        layer, what = OVERRIDES[name]
        kind: _Kind = "text" if KEYS[name] is str else "number"
        return _Term(
            kind, lambda c: np.where(layer <= c["fires"] + 1, of_fire(c, layer, what), np.nan)
        )
    if name not in NAMES:
        raise UserError(
            f"found the name {shown(name)}, expected a metaparameter or a cost column"
            f"{nearest(name, [*NAMES, *OVERRIDES])}"
        )
    if name == "pool_after":
        return _Term("layers", lambda c: c[name])
    if FIELDS.get(name) is str:
        return _Term("text", lambda c: c[name])
    if FIELDS.get(name) is bool:
        return _Term("truth", lambda c: np.asarray(c[name]) > 0)
    return _Term("number", lambda c: c[name])


def _typed(node: ast.expr, kind: _Kind) -> Callable[[Columns], Any]:
    term = _term(node)
    if term.kind != kind:
        expected = {"truth": "a comparison", "number": "a number"}[kind]
        raise UserError(f"found {shown(ast.unparse(node))}, expected {expected} there")
    return term.value


def _comparison(left: ast.expr, op: ast.cmpop, right: ast.expr) -> Callable[[Columns], Any]:
    """One `left op right`; text and layers have comparisons of their own."""
    match left, op, right:
        case ast.Constant(value=int() as layer), ast.In() | ast.NotIn(), ast.Name(id="pool_after"):
            if isinstance(layer, bool) or not 1 <= layer <= MAX_FIRES + 1:
                raise UserError(f"found layer {layer}, expected 1 to {MAX_FIRES + 1}")
            wanted = isinstance(op, ast.In)
            return lambda c: (np.asarray(c["pool_after"]) >> layer & 1 == 1) == wanted
        case (
            (ast.Name() | ast.Attribute()) as named,
            ast.Eq() | ast.NotEq(),
            ast.Constant(value=str() as text),
        ):
            return _bypass_comparison(named, op, text)
        case (
            ast.Constant(value=str() as text),
            ast.Eq() | ast.NotEq(),
            (ast.Name() | ast.Attribute()) as named,
        ):
            return _bypass_comparison(named, op, text)
    kinds = (_term(left).kind, _term(right).kind)
    same = kinds == ("number", "number") or (
        kinds == ("truth", "truth") and isinstance(op, ast.Eq | ast.NotEq)
    )
    if not same or type(op) not in _COMPARE:
        raise UserError(
            f"found {shown(ast.unparse(ast.Compare(left, [op], [right])))}, "
            "expected numbers compared by < <= > >= == !=, or a layer in pool_after, "
            "such as 8 in pool_after"
        )
    compare = _COMPARE[type(op)]
    first, second = _term(left).value, _term(right).value
    return lambda c: compare(first(c), second(c))


def _violation(node: ast.expr) -> Callable[[Columns], float]:
    """How far a condition is from holding in one row; see `Expression.violation`."""
    match node:
        case ast.BoolOp(op=op, values=values):
            parts = [_violation(value) for value in values]
            join = max if isinstance(op, ast.And) else min
            return lambda row: join(part(row) for part in parts)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            inner = _violation(operand)
            return lambda row: -inner(row)
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            operands = [left, *comparators]
            pairs = [
                _distance(a, op, b) for a, op, b in zip(operands, ops, operands[1:], strict=False)
            ]
            return lambda row: max(pair(row) for pair in pairs)
    holds = _term(node).value
    return lambda row: -1.0 if holds(row) else 1.0


def _distance(left: ast.expr, op: ast.cmpop, right: ast.expr) -> Callable[[Columns], float]:
    if isinstance(op, ast.In | ast.NotIn) or _term(left).kind != "number":
        holds = _comparison(left, op, right)
        return lambda row: -1.0 if holds(row) else 1.0
    first, second = _term(left).value, _term(right).value

    def distance(row: Columns) -> float:
        with np.errstate(divide="ignore", invalid="ignore"):
            gap = float(first(row)) - float(second(row))
        if math.isnan(gap):
            return -math.inf if isinstance(op, ast.NotEq) else math.inf
        match op:
            case ast.Gt() | ast.GtE():
                return -gap
            case ast.Eq():
                return abs(gap)
            case ast.NotEq():
                return -abs(gap)
        return gap

    return distance


def _bypass_comparison(
    named: ast.Name | ast.Attribute, op: ast.cmpop, text: str
) -> Callable[[Columns], Any]:
    term, name = _term(named), ast.unparse(named)
    if term.kind != "text":
        raise UserError(f"found {name} compared with the text {shown(text)}, expected a number")
    if text not in BYPASSES:
        raise UserError(
            f"found {name} compared with {shown(text)}, expected one of {', '.join(BYPASSES)}"
            f"{nearest(text, BYPASSES)}"
        )
    compare = _COMPARE[type(op)]
    return lambda c: compare(term.value(c), BYPASSES.index(text))
