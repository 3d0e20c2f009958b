"""A spec that asks for more: the sweep goes on, and nothing is measured twice."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import optuna
import pandas as pd
import pytest
from typer.testing import CliRunner

import sqzexplore as sqz
from helpers.once import once
from helpers.sweeps import run
from sqzexplore import provenance
from sqzexplore.cli.app import app
from sqzexplore.errors import UserError
from sqzexplore.results.folder import load_results
from sqzexplore.sweep import run as sweep
from sqzexplore.sweep.leases import Leases
from sqzexplore.sweep.storage.open import open_storage

SWEEP = """\
name: more
base: {width_multiplier: 0.1, fires: 3, pool_after: [1, 3], bypass: complex}
space: {squeeze_ratio: [0.25, 1.0]}
input_size: 32
measure:
  accuracy: {data: digits, epochs: [1], batch_size: 32, learning_rate: 0.01, seeds: 2}
"""
THROUGHPUT = "  throughput: {processes: 1, batch: [1], seconds: 0.02}"
#: Of what has been measured: when, and for how long, tells one training from another.
KEYS = ["arch_id", "seed", "epochs"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SWEEP, run to its end."""
    return once(tmp_path_factory, "finished", partial(run, SWEEP))


@pytest.fixture
def grown(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, to go on from."""
    return Path(shutil.copytree(finished, tmp_path / "grown"))


def spent(folder: Path) -> pd.Series:
    return load_results(folder, "seeds").set_index(KEYS)["duration_s"]


def test_trained_on_one_device_and_measured_on_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No speed stands under the name of a device that it was not measured on."""
    with monkeypatch.context() as patch:
        patch.setattr(provenance, "device_name", lambda device: "a rented GPU")
        run(SWEEP, tmp_path)
    here = provenance.device_name("cpu")
    faster = SWEEP.replace("  accuracy:", f"{THROUGHPUT}\n  accuracy:")
    run(faster, tmp_path)
    rows = load_results(tmp_path)
    assert set(rows["device_name"]) == {f"a rented GPU + {here}"}
    assert set(rows["throughput_device_name"]) == {here}
    assert set(rows["device"]) == {"cpu"}
    assert set(load_results(tmp_path, "throughput")["device_name"]) == {here}
    said = CliRunner().invoke(app, ["results", str(tmp_path)]).output
    assert f"images/s: cpu ({here})" in " ".join(said.split())
    # Another trained elsewhere is compared with these by where it was measured.
    other = rows.assign(device_name="a board")
    sqz.pareto_front(pd.concat([rows, other]), maximize=["images_per_s"], minimize=["params"])
    other["throughput_device_name"] = "a board"
    with pytest.raises(UserError, match="different throughput_device_name"):
        sqz.pareto_front(pd.concat([rows, other]), maximize=["images_per_s"], minimize=["params"])


@pytest.mark.parametrize(
    ("change", "trainings"),
    [
        (("seeds: 2", "seeds: 3"), 2 * 3),
        (("[0.25, 1.0]", "[0.125, 0.25, 1.0]"), 3 * 2),
        (("epochs: [1]", "epochs: [1, 2]"), 2 * 2 * 2),
        (("space: {", "space: {pool_after: [[1, 3], [2, 3]], "), 4 * 2),
        (
            ("  accuracy:", f"{THROUGHPUT}\n  accuracy:"),
            2 * 2,
        ),
    ],
    ids=["seeds", "values", "budgets", "axis", "measurement"],
)
def test_it_goes_on_from_what_is_there(
    change: tuple[str, str], trainings: int, grown: Path, tmp_path: Path
) -> None:
    more = SWEEP.replace(*change)
    assert more != SWEEP
    before = spent(grown)
    run(more, grown)
    after = spent(grown)
    assert len(after) == trainings
    assert after[before.index].tolist() == before.tolist()  # the same trainings
    # And what a sweep that began so gives, but for the times.
    run(more, tmp_path / "whole")
    for table in ("trials", "seeds", "history", "images", "confusion"):
        ours, whole = (load_results(folder, table) for folder in (grown, tmp_path / "whole"))
        order = [n for n in (*KEYS, "epoch", "split", "label", "predicted") if n in whole]
        columns = [
            name
            for name in whole
            if name not in ("trial", "duration_s", "started_at")
            and not (table == "trials" and ("latency" in name or "images_per_s" in name))
            and name not in ("relative_to_reference", "roofline_share", "bound", "repetitions")
        ]
        pd.testing.assert_frame_equal(
            ours.sort_values(order, ignore_index=True)[columns],
            whole.sort_values(order, ignore_index=True)[columns],
        )
    assert not list(grown.glob("partial/*"))
    assert (grown / "study.1.journal").is_file()  # what it was before


def test_more_architectures_of_a_list(tmp_path: Path) -> None:
    listed = SWEEP.replace(
        "{squeeze_ratio: [0.25, 1.0]}", "[{squeeze_ratio: 0.25}, {bypass: none, fires: 4}]"
    )
    run(listed, tmp_path)
    assert load_results(tmp_path)["fires"].tolist() == [3, 4]
    before = spent(tmp_path)
    run(listed.replace("[{squ", "[{fires: 5}, {squ"), tmp_path)
    table = load_results(tmp_path)
    assert sorted(zip(table["fires"], table["bypass"], table["squeeze_ratio"], strict=True)) == [
        (3, "complex", 0.25),
        (4, "none", 0.125),
        (5, "complex", 0.125),
    ]
    assert spent(tmp_path)[before.index].tolist() == before.tolist()
    with pytest.raises(UserError, match=r"space: .*'squeeze_ratio': 0.25.* -> .*0.5"):
        run(listed.replace("0.25", "0.5"), tmp_path)


def test_more_trials_go_on_in_the_same_study(tmp_path: Path) -> None:
    searched = SWEEP + "search: {sampler: random, trials: 1, seed: 3}\n"
    searched = searched.replace("[0.25, 1.0]", "[0.125, 0.25, 0.5, 1.0]")
    run(searched, tmp_path)
    before = spent(tmp_path)
    run(searched.replace("trials: 1", "trials: 3"), tmp_path)
    assert len(load_results(tmp_path)) == 3
    assert spent(tmp_path)[before.index].tolist() == before.tolist()
    assert not (tmp_path / "study.1.journal").exists()


def test_a_search_tries_first_what_it_tried(tmp_path: Path) -> None:
    searched = SWEEP + "search: {sampler: random, trials: 2, seed: 3}\n"
    searched = searched.replace("[0.25, 1.0]", "[0.125, 0.25, 0.5, 1.0]")
    run(searched, tmp_path)
    before = spent(tmp_path)
    more = searched.replace("seeds: 2", "seeds: 3")
    storage = open_storage(tmp_path, None)
    works = pytest.raises(UserError, match="another process works on this sweep")
    with Leases(tmp_path, storage, "cpu"), works:  # on no trial, as one that measures throughput
        run(more, tmp_path)
    (tmp_path / "study.2.journal").touch()  # whoever removed the first
    run(more, tmp_path)
    assert (tmp_path / "study.1.journal").stat().st_size
    assert len(load_results(tmp_path)) == 2
    assert spent(tmp_path)[before.index].tolist() == before.tolist()


@pytest.mark.parametrize("when", ["before the table", "half way", "before the spec"])
def test_killed_while_it_goes_on(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a search tried is in its study, and comes first whenever a process was killed."""
    costs = "name: costs\nspace: {squeeze_ratio: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}\n"
    costs += "search: {sampler: random, trials: 4, seed: 3}\n"
    more = costs.replace("0.6]", "0.6, 0.7, 0.8, 0.9, 1.0]")
    run(costs, tmp_path)
    before = load_results(tmp_path)["squeeze_ratio"].tolist()
    for file in tmp_path.glob("trials.*"):
        file.unlink()
    if when != "before the table":
        place, name = {
            "half way": (optuna.Study, "enqueue_trial"),
            "before the spec": (sweep, "write_atomically"),
        }[when]
        real, calls = getattr(place, name), []

        def killed(*arguments: object) -> None:
            calls.append(arguments)
            if len(calls) == 2 or when == "before the spec":
                raise KeyboardInterrupt
            real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(place, name, killed)
            with pytest.raises(KeyboardInterrupt):
                run(more, tmp_path)
    run(more, tmp_path)
    assert load_results(tmp_path)["squeeze_ratio"].tolist() == before
    assert not (tmp_path / ".study.anew").exists()


def test_a_study_that_was_not_begun(tmp_path: Path) -> None:
    """The first process was killed when it had made the file, and nothing in it."""
    costs = "name: costs\nspace: {squeeze_ratio: [0.25]}\n"
    (tmp_path / "spec.yaml").write_text(costs)
    (tmp_path / "study.journal").touch()
    run(costs.replace("[0.25]", "[0.25, 0.5]"), tmp_path)
    assert load_results(tmp_path)["squeeze_ratio"].tolist() == [0.25, 0.5]


def test_what_is_measured_of_speed_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the name of the machine, torch and commit that it was measured by."""
    timed = SWEEP.replace("  accuracy:", f"{THROUGHPUT}\n  accuracy:")
    with monkeypatch.context() as patch:
        patch.setattr(provenance, "device_name", lambda device: "elsewhere")
        patch.setattr(provenance, "git_commit", lambda: "before")
        run(timed, tmp_path)
    before = load_results(tmp_path, "throughput").set_index(["arch_id", "batch"])
    run(timed.replace("batch: [1]", "batch: [1, 2]"), tmp_path)
    after = load_results(tmp_path, "throughput").set_index(["arch_id", "batch"])
    assert len(after) == 4
    same = ["latency_ms_p50", "measured_at", "device_name", "git_commit"]
    pd.testing.assert_frame_equal(after.loc[before.index, same], before[same])
    assert set(before["device_name"]) == {"elsewhere"}
    assert set(after.drop(before.index)["device_name"]) == {provenance.device_name("cpu")}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("seeds: 2", "seeds: 1"), "measure.accuracy.seeds: 2 -> 1"),
        (("[0.25, 1.0]", "[0.25, 0.5]"), "space.squeeze_ratio"),
        (("batch_size: 32", "batch_size: 64"), "measure.accuracy.batch_size"),
        (("epochs: [1]", "epochs: [2]"), "measure.accuracy.epochs"),
        (("fires: 3", "fires: 4"), "base.fires"),
        (("space: {", "space: {stem_kernel: [3, 5], "), "space.stem_kernel"),
    ],
)
def test_what_would_mix_things_is_refused(change: tuple[str, str], named: str, grown: Path) -> None:
    before = {p: p.read_bytes() for p in grown.iterdir() if p.is_file()}
    with pytest.raises(UserError, match=named):
        run(SWEEP.replace(*change), grown)
    assert {p: p.read_bytes() for p in grown.iterdir() if p.is_file()} == before


def test_a_sweep_of_another_version_is_not_added_to(grown: Path) -> None:
    journal = grown / "study.journal"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for line in lines:
        if "measurement" in line.get("user_attr", {}):
            line["user_attr"]["measurement"] = "of another version"
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for _ in range(2):
        with pytest.raises(UserError, match="another version of sqzexplore"):
            run(SWEEP.replace("seeds: 2", "seeds: 3"), grown)
        run(SWEEP, grown)  # what is whole stays whole, and of the version that it is of


def test_claims_keep_when_they_were_written(tmp_path: Path) -> None:
    """A claim that comes with more seeds may have been formed on the first ones."""
    claim = "{{say: {0}, compare: {{squeeze_ratio: [0.25, 1.0]}}, expect: {1}}}"
    old, new = claim.format("old", "higher"), claim.format("new", "lower")
    run(SWEEP + f"claims: [{old}]\n", tmp_path)
    run(SWEEP.replace("seeds: 2", "seeds: 3") + f"claims: [{old}, {new}]\n", tmp_path)
    claims = load_results(tmp_path, "claims").set_index("claim")["declared"]
    assert claims.to_dict() == {"old": "before", "new": "after"}


def test_the_command_says_what_is_new(tmp_path: Path) -> None:
    spec, out = tmp_path / "spec.yaml", tmp_path / "out"
    spec.write_text("name: costs\nspace: {squeeze_ratio: [0.25]}\n")
    CliRunner().invoke(app, ["sweep", str(spec), "--out", str(out)])
    spec.write_text("name: costs\nspace: {squeeze_ratio: [0.25, 0.5]}\n")
    said = CliRunner().invoke(app, ["sweep", str(spec), "--out", str(out)]).output
    assert "new: space.squeeze_ratio: [0.25] -> [0.25, 0.5]" in " ".join(said.split())
    assert load_results(out)["squeeze_ratio"].tolist() == [0.25, 0.5]
