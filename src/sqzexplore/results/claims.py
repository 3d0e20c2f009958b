"""The claims of a spec, judged by the sweep's trainings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from ..analysis.accuracy import Estimate, Trainings, contrast, trainings
from ..analysis.front import sharing_groups
from ..analysis.verdicts import verdicts
from ..network.frames import architecture_name, format_value
from ..spec.models import ClaimSpec, Spec
from .tables import shared_value


def judged(
    spec: Spec,
    trials: pd.DataFrame,
    seeds: pd.DataFrame | None,
    images: pd.DataFrame | None,
    declared: Mapping[str, str],
) -> list[dict[str, Any]]:
    """A row of the table `claims` for each claim of the spec, on the test split.

    A claim speaks of two sides; each architecture of the first is compared with the one of the
    second that differs in nothing else, and the claim with the mean of these differences. A claim
    of which a side has no training yet is undecided, and says so in `pairs`.

    Args:
        spec: of the sweep.
        trials: its rows so far.
        seeds: its trainings so far; None if there is no such table.
        images: which images those had right; None if there is no such table.
        declared: by the claim's key, whether it was written `before` or `after` the first trial.
    """
    runs = {} if seeds is None else trainings(seeds, images)
    found = []
    for claim in spec.claims:
        pairs = list(_pairs(claim, spec, trials, runs))
        found.append((claim, pairs, _estimate(pairs, trials, runs)))
    opinions = verdicts([(e, claim.expect, claim.margin) for claim, _, e in found])
    rows = []
    for (claim, pairs, estimate), opinion in zip(found, opinions, strict=True):
        low, high = estimate.interval()
        rows.append(
            {
                "sweep": spec.name,
                "claim": claim.say,
                "source": claim.source or None,
                "declared": declared.get(claim.key, "after"),
                "data": shared_value(trials, "data"),
                "data_sha256": shared_value(trials, "data_sha256"),
                "epochs": shared_value(trials, "epochs"),
                "first": architecture_name(_side(claim, 0), claim.compare),
                "second": architecture_name(_side(claim, 1), claim.compare),
                "pairs": len(pairs),
                "first_top1": _mean([runs[first] for first, _ in pairs]),
                "second_top1": _mean([runs[second] for _, second in pairs]),
                "difference": estimate.value,
                "ci_low": low,
                "ci_high": high,
                "expect": claim.expect,
                "margin": claim.margin,
                "method": estimate.method,
                "p_value": opinion.p_value,
                "p_holm": opinion.p_holm,
                "verdict": opinion.verdict,
                "detectable": opinion.detectable,
            }
        )
    return rows


_Key = tuple[str, int]


def _pairs(
    claim: ClaimSpec, spec: Spec, trials: pd.DataFrame, runs: Mapping[_Key, Trainings]
) -> Iterator[tuple[_Key, _Key]]:
    """The trials of the first side and of the second that agree in all that is not compared."""
    others = [a.field for a in spec.design_space.axes if a.field not in claim.compare]
    sides: list[dict[tuple[str, ...], _Key]] = [{}, {}]
    for row in trials[trials["state"] == "complete"].to_dict("records"):
        key = row["sweep"], int(row["trial"])
        if key not in runs or not _matches(row, claim.where):
            continue
        for number, side in enumerate(sides):
            if _matches(row, _side(claim, number)):
                side[tuple(_text(row.get(name)) for name in others)] = key
    for rest, first in sides[0].items():
        if rest in sides[1]:
            yield first, sides[1][rest]


def _side(claim: ClaimSpec, number: int) -> dict[str, Any]:
    return {name: values[number] for name, values in claim.compare.items()}


def _matches(row: Mapping[Any, Any], values: Mapping[str, Any]) -> bool:
    return all(_text(row.get(name)) == _text(value) for name, value in values.items())


def _text(value: Any) -> str:
    """A metaparameter's value as one text, whatever type its table gave it."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{float(value):.9g}" if number else format_value(value)


def _estimate(
    pairs: list[tuple[_Key, _Key]], trials: pd.DataFrame, runs: Mapping[_Key, Trainings]
) -> Estimate:
    """The mean over the pairs of second less first; seeds are paired where all pairs share their
    initial weights."""
    if not pairs:
        return Estimate(float("nan"), float("nan"), float("nan"), "no pair of trials")
    named = trials.set_index(["sweep", "trial"], drop=False)
    shared = []
    for pair in pairs:
        first, second = sharing_groups(named.loc[list(pair)])
        shared.append(first == second)
    weight = 1 / len(pairs)
    terms = [
        (runs[key], sign * weight)
        for pair in pairs
        for key, sign in zip(pair, (-1, 1), strict=True)
    ]
    return contrast(terms, paired=all(shared))


def _mean(runs: list[Trainings]) -> float:
    return sum(one.mean for one in runs) / len(runs) if runs else float("nan")


def claim_lines(claims: pd.DataFrame) -> list[str]:
    """A line a claim: the paper's first, then those of the spec alone."""
    ordered = claims.sort_values(
        "source", key=lambda source: source.fillna("").eq(""), kind="stable"
    )
    return [_line(row) for row in ordered.to_dict("records")]


def _line(row: Mapping[Any, Any]) -> str:
    origin = row["source"] if isinstance(row["source"], str) and row["source"] else "of the spec"
    if row["declared"] == "after":
        origin += ", written after the first trial"
    head = f"claim ({origin}): {row['claim']}: {row['verdict']}"
    if not row["pairs"]:
        return f"{head} (no pair of trained architectures yet)"
    if pd.isna(row["ci_low"]):
        return f"{head} ({row['difference']:+.2f} points, {row['method']}: no interval)"
    bound = "within" if row["expect"] == "same" else f"{row['expect']} by more than"
    text = (
        f"{head} ({row['difference']:+.2f} points, 95% {row['ci_low']:+.2f} to "
        f"{row['ci_high']:+.2f} over {row['method']}; expected {bound} {row['margin']:g}; "
        f"Holm's p {row['p_holm']:.2g}"
    )
    if row["verdict"] == "undecided":
        least = f"{row['detectable']:.1f} points"
        if row["expect"] == "same":
            text += f"; equal ones would be seen within {least}"
        else:
            text += f"; seen with probability 80%: {least} beyond that"
    return f"{text})"
