"""Claims: written into a spec, judged when the sweep ends."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import sqzexplore as sqz
from helpers.once import once
from helpers.sweeps import run
from sqzexplore.cli.app import app
from sqzexplore.errors import UserError
from sqzexplore.results.folder import load_results
from sqzexplore.spec.load import parse_spec

SWEEP = """\
name: claimed
base: {width_multiplier: 0.1, fires: 3, pool_after: [1, 3], bypass: complex}
space: {squeeze_ratio: [0.25, 1.0], pool_after: [[1, 3], [2, 3]]}
input_size: 32
measure:
  accuracy: {data: digits, epochs: 2, batch_size: 32, learning_rate: 0.01, seeds: 3}
"""
CLAIMS = """\
claims:
  - {say: more is more, compare: {squeeze_ratio: [0.25, 1.0]}, expect: higher}
  - {say: late is better, compare: {pool_after: [[1, 3], [2, 3]]}, where: {squeeze_ratio: 1.0},
     expect: higher, by: 99, source: "section 3.1, strategy 3"}
  - {say: all the same, compare: {squeeze_ratio: [1.0, 0.25], pool_after: [[1, 3], [2, 3]]},
     expect: same, within: 99}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return once(tmp_path_factory, "claimed", partial(run, SWEEP + CLAIMS))


def test_each_claim_has_its_verdict(folder: Path) -> None:
    claims = load_results(folder, "claims").set_index("claim")
    seeds = load_results(folder, "seeds").merge(
        load_results(folder)[["trial", "squeeze_ratio", "pool_after"]], on="trial"
    )
    top1 = seeds.groupby(["squeeze_ratio", "pool_after"])["top1"].apply(np.array)
    first, second = (
        np.mean([top1[ratio, p].mean() for p in ("1,3", "2,3")]) for ratio in (0.25, 1)
    )
    more = claims.loc["more is more"]
    assert more["pairs"] == 2
    assert more["difference"] == pytest.approx(second - first)
    assert (more["first_top1"], more["second_top1"]) == pytest.approx((first, second))
    assert more["ci_low"] < more["difference"] < more["ci_high"]
    late = claims.loc["late is better"]
    assert (late["pairs"], late["verdict"], late["margin"]) == (1, "fails", 99)
    assert late["method"] == "seeds and images, paired"  # the same weights, other pools
    same = claims.loc["all the same"]
    assert (same["pairs"], same["verdict"]) == (1, "holds")
    assert same["method"] == "seeds and images"
    assert same["difference"] == pytest.approx(top1[0.25, "2,3"].mean() - top1[1.0, "1,3"].mean())
    assert claims["declared"].tolist() == ["before"] * 3
    # By Holm's definition, of three.
    order = claims["p_value"].rank().astype(int)
    smallest = claims["p_value"].idxmin()
    assert order[smallest] == 1
    assert claims.loc[smallest, "p_holm"] == pytest.approx(min(1, 3 * claims["p_value"].min()))


def test_a_claim_of_afterwards_says_so_and_blocks_nothing(folder: Path) -> None:
    before = load_results(folder)
    wider = CLAIMS.replace("within: 99", "within: 98") + (
        "  - {say: new, compare: {squeeze_ratio: [0.25, 1.0]}, expect: lower}\n"
    )
    run(SWEEP + wider, folder)
    claims = load_results(folder, "claims").set_index("claim")
    assert claims["declared"].to_dict() == {
        **{"more is more": "before", "late is better": "before"},
        **{"all the same": "after", "new": "after"},  # another margin is another claim
    }
    assert load_results(folder)["started_at"].tolist() == before["started_at"].tolist()
    said = CliRunner().invoke(app, ["results", str(folder)]).output
    flat = " ".join(said.split())
    assert "claim (of the spec, written after the first trial): new:" in flat
    paper = flat.index("claim (section 3.1, strategy 3): late is better: fails")
    assert paper < flat.index("claim (of the spec): more is more")
    run(SWEEP, folder)  # and they can be dropped
    with pytest.raises(UserError, match="found no table claims"):
        load_results(folder, "claims")
    run(SWEEP + CLAIMS, folder)


def test_what_has_not_been_trained_is_undecided(tmp_path: Path) -> None:
    some = SWEEP.replace("seeds: 3", "seeds: 1").replace("[0.25, 1.0]", "[0.25]")
    run(
        some
        + CLAIMS.split("  - {say: all")[0]
        .replace("[0.25, 1.0]", "[0.125, 0.25]")
        .replace("squeeze_ratio: 1.0", "squeeze_ratio: 0.25"),
        tmp_path,
    )
    claims = load_results(tmp_path, "claims").set_index("claim")
    assert claims.loc["more is more", "pairs"] == 0
    assert claims["verdict"].tolist() == ["undecided"] * 2  # the second: one seed alone
    said = " ".join(CliRunner().invoke(app, ["results", str(tmp_path)]).output.split())
    assert "more is more: undecided (no pair of trained architectures yet)" in said
    assert "no interval" in said


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        (
            "{say: x, compare: {squeze_ratio: [0.25, 1.0]}, expect: higher}",
            r"claims\[0\].compare.squeze_ratio: expected an axis .* did you mean 'squeeze_ratio'",
        ),
        (
            "{say: x, compare: {squeeze_ratio: [0.25, 0.3]}, expect: higher}",
            r"claims\[0\].compare.squeeze_ratio\[1\]: found 0.3, expected a value of the axis",
        ),
        (
            "{say: x, compare: {squeeze_ratio: [0.25]}, expect: higher}",
            "found 1 values, expected two",
        ),
        ("{say: x, compare: {squeeze_ratio: [1.0, 1.0]}, expect: higher}", "found the same twice"),
        (
            "{say: x, compare: {squeeze_ratio: [0.25, 1.0]}, expect: same}",
            r"claims\[0\].within: expected a margin",
        ),
        (
            "{say: x, compare: {squeeze_ratio: [0.25, 1.0]}, expect: higher, within: 1}",
            r"claims\[0\].within: expected no such key",
        ),
        (
            "{say: x, compare: {squeeze_ratio: [0.25, 1.0]}, where: {squeeze_ratio: 1.0}, "
            "expect: lower}",
            "found it under compare too",
        ),
        ("{say: x, compare: {squeeze_ratio: [0.25, 1.0]}, expect: more}", r"claims\[0\].expect: "),
    ],
)
def test_a_claim_that_cannot_be_judged_is_refused(claim: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_spec(SWEEP + f"claims:\n  - {claim}\n")


def test_without_accuracy_there_is_nothing_to_claim() -> None:
    text = SWEEP.partition("measure:")[0] + CLAIMS
    with pytest.raises(UserError, match=r"expected measure\.accuracy"):
        parse_spec(text)


def test_the_committed_claims_are_of_trainings(tmp_path: Path) -> None:
    """Read back as any table."""
    claims = sqz.load_results(Path(__file__).parents[2] / "results" / "*", "claims")
    assert set(claims["verdict"]) <= {"holds", "fails", "undecided"}
    assert (claims["pairs"] > 0).all()
