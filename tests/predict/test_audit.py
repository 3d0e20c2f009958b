"""The audit: that nothing of a held-out network is used, and what its rows are made into."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from typer.testing import CliRunner

from helpers import Run, truth
from sqzexplore.cli.app import app
from sqzexplore.errors import UserError
from sqzexplore.figures.audit import coverage_by_region, intervals, learning_curve
from sqzexplore.figures.draw_all import draw_all
from sqzexplore.network.frames import columns_of_frame
from sqzexplore.predict import fit as fit_
from sqzexplore.predict.audit import Audit, audit
from sqzexplore.predict.models import MODELS
from sqzexplore.predict.trained import coverage_text, trained_of
from sqzexplore.predict.verdict import (
    against_baselines,
    audit_lines,
    coverage,
    dying_remark,
    support,
    verdict,
)
from sqzexplore.report.content import gather
from sqzexplore.results.folder import load_results

mpl.use("agg")
pytestmark = pytest.mark.usefixtures("fast")


@pytest.fixture(scope="module")
def trials() -> pd.DataFrame:
    return truth.trained(50, 0)


@pytest.fixture(scope="module")
def found(trials: pd.DataFrame) -> Iterator[Audit]:
    only = {"gaussian process": MODELS["gaussian process"]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit_, "MODELS", only)
        yield audit(trials)


def test_each_network_is_held_out_once(trials: pd.DataFrame, found: Audit) -> None:
    assert found.rows["trial"].tolist() == trials["trial"].tolist()
    expected = trials["top1"].where(trials["state"] == "complete").to_numpy()
    assert np.array_equal(found.rows["measured"].to_numpy(), expected, equal_nan=True)
    assert found.rows["fold"].nunique() == 10
    assert found.rows["dead_share"].tolist() == trials["dead_seeds"].tolist()


def test_nothing_of_a_held_out_network_is_used(trials: pd.DataFrame, found: Audit) -> None:
    """Whatever its accuracy, what is said of it, and of its fold, stays; the others' changes."""
    row = 7
    assert trials["state"][row] == "complete"
    changed = trials.copy()
    changed.loc[row, "top1"] = 5.0
    again = audit(changed).rows
    fold = found.rows["fold"] == found.rows["fold"][row]
    said = [n for n in found.rows if n.startswith("by_") or n in ("predicted", "low", "high")]
    pd.testing.assert_frame_equal(again.loc[fold, said], found.rows.loc[fold, said])
    assert (again.loc[~fold, "predicted"] != found.rows.loc[~fold, "predicted"]).all()


def test_the_baselines_are_what_they_say(trials: pd.DataFrame, found: Audit) -> None:
    own = trained_of(trials, "top1")
    for row in range(0, 50, 7):
        others = (found.rows["fold"] != found.rows["fold"][row]).to_numpy() & ~np.isnan(own.values)
        known, values = own.features[others], own.values[others]
        assert found.rows["by_middle"][row] == pytest.approx(np.median(values))
        spread = known.std(axis=0)
        spread[spread < 1e-9] = 1.0
        distances = (((known - own.features[row]) / spread) ** 2).sum(axis=1)
        assert found.rows["by_neighbour"][row] == values[distances.argmin()]
        x, aims = np.log2(trials["params"][others]), np.log(values / (100 - values))
        at = np.clip(np.log2(trials["params"][row]), x.min(), x.max())
        expected = 100 / (1 + np.exp(-np.polyval(np.polyfit(x, aims, 2), at)))
        assert found.rows["by_params"][row] == pytest.approx(expected)
    assert found.rows["by_roofline"].isna().all()


def test_a_speed_is_held_against_its_roofline(trials: pd.DataFrame) -> None:
    """Where the floor is all there is to latency, no model beats it by much."""
    fields = {"device": "cpu", "batch": 1, "dtype": "float32"}
    exact = trials.assign(latency_ms_p50=1.0, **fields)
    machine = trained_of(exact, "latency_ms_p50").view
    floors = machine.features(columns_of_frame(exact), 50)[:, machine.names.index("log_floor")]
    timed = exact.assign(latency_ms_p50=2.0**floors * 1e3)
    table = against_baselines(audit(timed, "latency_ms_p50").rows).set_index("predictor")
    assert table.loc["roofline alone", "kendall"] > 0.99
    assert table.loc["roofline alone", "error"] < 0.2 * table.loc["parameters alone", "error"]


def test_the_learning_curve_holds_out_all_others(trials: pd.DataFrame, found: Audit) -> None:
    learned = (trials["state"] == "complete").sum()
    assert found.curve["networks"].unique().tolist() == [20]
    assert (found.curve["held_out"] == learned - 20).all()
    assert found.curve["repetition"].tolist() == [0, 1, 2]
    assert found.curve["error"].nunique() == 3


def test_the_learning_curve_begins_where_intervals_have_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nothing = pd.DataFrame({"row": [0]})
    monkeypatch.setattr("sqzexplore.predict.audit.hold_out", lambda *_: iter([nothing]))
    networks = truth.trained(50, 0, dying=False)
    assert audit(networks, level=0.975).curve["networks"].tolist() == [39] * 3
    for level in (0.0, 1.0):
        with pytest.raises(UserError, match=f"level: found {level}, expected a share"):
            audit(networks, level=level)


def rows(count: int, seed: int = 0) -> pd.DataFrame:
    """An audit's rows made up."""
    draw = np.random.default_rng(seed)
    measured = draw.uniform(20, 90, count)
    predicted = measured + draw.normal(size=count)
    return pd.DataFrame(
        {
            "target": "top1",
            "level": 0.9,
            "sampler": "random",
            "model": "forest",
            "fold": np.arange(count) % 10,
            "measured": measured,
            "one_training": measured + 0.1,
            "predicted": predicted,
            "low": predicted - 1.5,
            "high": predicted + 1.5,
            "by_middle": 50.0,
            "by_params": measured + 5 * draw.normal(size=count),
            "by_macs": measured + draw.normal(size=count),
            "by_neighbour": measured[::-1],
            "by_roofline": np.nan,
            "dead_share": 0.0,
            "dead_probability": 0.1,
            "extrapolated": False,
            "log_macs": np.arange(count),
            "mean_log_side": draw.uniform(size=count),
        }
    )


def test_coverage_has_the_interval_of_clopper_and_pearson() -> None:
    """Against its definition: at its ends so many or more, so few or fewer, have 2.5%."""
    given = rows(60)
    table = coverage(given).set_index("region")
    assert [*table["networks"]] == [60, 20, 20, 20]
    whole = table.loc["all"]
    held = sum(
        low <= one <= high
        for low, one, high in zip(given["low"], given["one_training"], given["high"], strict=True)
    )
    assert whole["held"] == held
    assert 0 < held < 60
    assert stats.binom.sf(held - 1, 60, whole["coverage_low"]) == pytest.approx(0.025)
    assert stats.binom.cdf(held, 60, whole["coverage_high"]) == pytest.approx(0.025)
    assert whole["width"] == pytest.approx(3.0)
    small = given.nsmallest(20, "log_macs")
    error = (small["predicted"] - small["measured"]).abs().mean()
    assert table.loc["small (third with fewest MACs)", "error"] == pytest.approx(error)


def kendall(x: pd.Series, y: pd.Series) -> float:
    """Concordant less discordant pairs, of pairs without ties."""
    pairs = [*itertools.combinations(zip(x, y, strict=True), 2)]
    return float(np.mean([np.sign((a - c) * (b - d)) for (a, b), (c, d) in pairs]))


def test_errors_stand_beside_the_baselines() -> None:
    given = rows(60)
    table = against_baselines(given).set_index("predictor")
    assert [*table.index] == [
        *("prediction", "median of the others", "parameters alone"),
        *("MACs alone", "nearest neighbour"),
    ]
    error = (given["predicted"] - given["measured"]).abs().mean()
    assert table.loc["prediction", "error"] == pytest.approx(error)
    found = table.loc["parameters alone", "kendall"]
    assert found == pytest.approx(kendall(given["by_params"], given["measured"]))
    assert np.isnan(table.loc["median of the others", "kendall"])
    more = (given["by_params"] - given["measured"]).abs().mean() - error
    assert table.loc["parameters alone", "error_more"] == pytest.approx(more)
    assert (table["error_low"] < table["error"]).all()
    assert (table["error"] < table["error_high"]).all()


def test_the_verdict_names_what_was_not_beaten() -> None:
    narrow = rows(200).assign(low=lambda r: r["predicted"] - 1.2)
    said = verdict(narrow)
    assert "200 held-out networks were in their 90% intervals" in said[0]
    assert "which is too low" in said[0]  # from -1.2 to 1.5 standard deviations: 82%
    assert said[1:] == ["top1: not shown to beat in both error and tau: MACs alone"]
    assert "which holds" in verdict(rows(200))[0]
    wide = rows(200).assign(
        low=lambda r: r["predicted"] - 1.75, high=lambda r: r["predicted"] + 1.75
    )
    assert verdict(wide.assign(by_macs=30.0))[1:] == [
        "top1: lower error and higher tau than every baseline"
    ]


def test_a_level_is_said_as_it_is() -> None:
    given = rows(60).assign(level=0.975)
    assert "in their 97.5% intervals" in verdict(given)[0]
    assert support(given) == []
    assert intervals(given).get_xlabel() == "predicted, 97.5% interval"
    assert coverage_text("random", 0.975) == "97.5%"


@pytest.mark.parametrize(
    ("sampler", "said"),
    [("random", []), ("tpe", ["top1: coverage of other networks not supported: tpe chose"])],
)
def test_a_search_s_own_networks_vouch_for_no_others(sampler: str, said: list[str]) -> None:
    found = support(rows(30).assign(sampler=sampler))
    assert [line[: len(start)] for line, start in zip(found, said, strict=True)] == said


def test_the_area_under_the_curve_counts_pairs() -> None:
    given = rows(4).assign(dead_share=[1, 0, 0, 1], dead_probability=[0.5, 0.1, 0.5, 0.4])
    # Of the four pairs two are in order, one is a tie, one is not: 0.5 > 0.1, 0.5 = 0.5, ...
    assert "area under the ROC curve 0.62" in dying_remark(given)[0]
    assert dying_remark(rows(4).assign(dead_probability=np.nan)) == []


def test_too_few_networks() -> None:
    with pytest.raises(UserError, match=r"audit: found 15 different networks with top1"):
        audit(pd.concat([truth.trained(15, 0, dying=False)] * 2, ignore_index=True))


def test_the_verb_writes_tables_and_a_figure(trials: pd.DataFrame, tmp_path: Path) -> None:
    folder = truth.write_folder(tmp_path / "bench", trials)
    done = CliRunner().invoke(app, ["predict", str(folder), "--audit", "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    held = load_results(folder, "audit")
    assert len(held) == 50
    assert held["sampler"].unique().tolist() == ["random"]
    assert said["coverage"][0]["networks"] == held["measured"].notna().sum()
    assert said["remarks"] == audit_lines(held) == [*verdict(held), *dying_remark(held)]
    answer = gather(folder).answer
    assert [line[1:-1] for line in answer[-3:]] == [line[1:] for line in audit_lines(held)]
    assert len(load_results(folder, "audit_curve")) == 3
    picture = folder / "figures" / "audit_top1.png"
    first = picture.read_bytes()
    picture.unlink()
    files, _ = draw_all(folder)
    assert picture in files
    assert picture.read_bytes() == first
    again = CliRunner().invoke(app, ["predict", str(folder), "--audit"])
    assert again.exit_code == 0, again.output
    assert len(load_results(folder, "audit")) == 50
    assert "late pooling" in again.output


def test_the_verb_without_an_audit_writes_nothing(trials: pd.DataFrame, tmp_path: Path) -> None:
    folder = truth.write_folder(tmp_path / "bench", trials, sampler="tpe")
    before = sorted(folder.iterdir())
    done = CliRunner().invoke(app, ["predict", str(folder)])
    assert done.exit_code == 0, done.output
    assert "gaussian process" in done.output
    assert "not supported: tpe" in " ".join(done.output.split())
    assert sorted(folder.iterdir()) == before


def test_a_folder_with_too_few_is_one_message(sqz: Run) -> None:
    done = sqz("predict", "results/sr", cwd=Path(__file__).parents[2])
    assert done.returncode == 2
    assert done.stderr == "sqzexplore: fit: found 5 rows with top1, expected at least 20\n"


def test_the_pictures_show_what_the_tables_hold(found: Audit) -> None:
    axes = intervals(found.rows)
    known = found.rows.dropna(subset=["measured"])
    held = known["one_training"].between(known["low"], known["high"])
    drawn = [line for line in axes.lines if line.get_marker() == "o"]
    assert sum(len(line.get_xdata()) for line in drawn) == len(known)
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == [f"held: {held.sum()}", f"missed: {(~held).sum()}"]
    regions = coverage_by_region(found.rows)
    shares = coverage(found.rows)["coverage"].tolist()
    assert sorted(regions.lines[0].get_xdata()) == pytest.approx(sorted(shares))
    curve = learning_curve(found.rows, found.curve)
    (means,) = (line for line in curve.lines if line.get_label() == "prediction")
    assert means.get_ydata()[0] == pytest.approx(found.curve["error"].mean())
