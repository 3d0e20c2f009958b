"""Spaces beyond the paper's formula: single Fires, conditions, constraints on measurements."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path

import optuna
import pytest
import torch
from scipy import stats
from typer.testing import CliRunner

import sqzexplore as sqz
from helpers import ROOT
from helpers.sweeps import Quiet
from sqzexplore.cli.app import app
from sqzexplore.errors import UserError
from sqzexplore.network.columns import architecture_at
from sqzexplore.spec.load import parse_spec
from sqzexplore.spec.models import Spec
from sqzexplore.sweep.optuna_params import from_params, to_params
from sqzexplore.sweep.run import run_sweep

CONDITIONAL = """
name: conditional
base: {width_multiplier: 0.25, num_classes: 10}
space:
  bypass: [none, simple, complex]
  squeeze_ratio: {when: {bypass: [simple, complex]}, values: [0.25, 0.5, 1.0]}
  fraction_3x3: {when: {squeeze_ratio: [0.5, 1.0]}, min: 0.25, max: 0.75, step: 0.25}
  fire5.squeeze_ratio: {when: {bypass: complex}, values: [null, 0.75]}
  fires: [4, 8]
"""


def by_hand() -> set[sqz.Architecture]:
    """Every combination that the conditions allow; what does not exist has the base's value."""
    base = sqz.Architecture(width_multiplier=0.25, num_classes=10)
    found = set()
    for bypass, sr, share, own, fires in itertools.product(
        ["none", "simple", "complex"],
        [0.25, 0.5, 1.0],
        [0.25, 0.5, 0.75],
        [None, 0.75],
        [4, 8],
    ):
        sr = sr if bypass in ("simple", "complex") else base.squeeze_ratio
        share = share if sr in (0.5, 1.0) else base.fraction_3x3
        own = own if bypass == "complex" else None
        pools = {"pool_after": (1, 4)} if fires == 4 else {}
        changes = {"bypass": bypass, "squeeze_ratio": sr, "fraction_3x3": share, "fires": fires}
        found.add(base.replace(**changes, **pools, **{"fire5.squeeze_ratio": own}))
    return found


def conditional() -> Spec:
    return parse_spec(CONDITIONAL.replace("num_classes: 10", "num_classes: 10, pool_after: [1, 4]"))


def test_a_conditional_space_has_each_architecture_once() -> None:
    space = conditional().design_space
    expected = {a.replace(pool_after=(1, 4)) for a in by_hand()}
    listed = [space.architecture(i) for i in range(space.size)]
    assert len(listed) == len(set(listed)) == len(expected) == space.count()
    assert set(listed) == expected
    assert len({a.arch_id for a in listed}) == len(listed)
    for architecture in listed:
        assert from_params(space, to_params(space, architecture)) == architecture


POOLED = """
name: pooled
base: {width_multiplier: 0.25, num_classes: 10}
space:
  pool_after: [[1], [1, 4], [4]]
  batch_norm: {when: {pool_after: [[1, 4], [4]]}, values: [true, false]}
search: {sampler: %s}
measure: {throughput: {processes: 1, batch: [1], seconds: 0.01}}
input_size: 48
"""


@pytest.mark.parametrize("search", ["grid", "random, trials: 5", "tpe, trials: 5"])
def test_a_condition_on_pools_holds_in_the_study_too(search: str, tmp_path: Path) -> None:
    """Optuna knows `pool_after` as text; measured, so that each trial passes through Optuna."""
    spec = parse_spec(POOLED % search)
    base = sqz.Architecture(width_multiplier=0.25, num_classes=10)
    expected = {base.replace(pool_after=(1,))} | {
        base.replace(pool_after=pools, batch_norm=norm)
        for pools in ((1, 4), (4,))
        for norm in (True, False)
    }
    space = spec.design_space
    for architecture in expected:
        assert from_params(space, to_params(space, architecture)) == architecture
    outcome = run_sweep(spec, tmp_path, torch.device("cpu"), Quiet())
    assert outcome.failures == []
    rows = sqz.load_results(tmp_path)
    assert sorted(rows["arch_id"]) == sorted(a.arch_id for a in expected)


def test_a_sample_draws_every_architecture_alike() -> None:
    space = conditional().design_space
    expected = {a.replace(pool_after=(1, 4)) for a in by_hand()}
    columns = space.sample(2000, seed=1)
    drawn = Counter(architecture_at(columns, i) for i in range(2000))
    assert set(drawn) == expected
    assert stats.chisquare([drawn[each] for each in expected]).pvalue > 1e-4


@pytest.mark.parametrize("sampler", ["grid", "random", "qmc", "tpe", "nsga2", "nsga3", "gp"])
def test_every_sampler_stays_in_a_conditional_space(sampler: str, tmp_path: Path) -> None:
    text = conditional().source + f"search: {{sampler: {sampler}"
    text += "}\n" if sampler == "grid" else ", trials: 12}\n"
    spec = parse_spec(text)
    outcome = run_sweep(spec, tmp_path, torch.device("cpu"), Quiet())
    rows = sqz.load_results(tmp_path)
    expected = {a.replace(pool_after=(1, 4)).arch_id for a in by_hand()}
    assert outcome.failures == []
    assert len(rows) == (len(expected) if sampler == "grid" else 12)
    assert rows["arch_id"].is_unique
    assert set(rows["arch_id"]) <= expected


CONSTRAINED = """
name: constrained
base: {width_multiplier: 0.1, num_classes: 10}
space: {squeeze_ratio: [0.25, 0.5, 1.0]}
constraints: ["%s"]
search: {sampler: %s, trials: 3, objectives: {params: minimize}}
input_size: 48
measure: {throughput: {processes: 1, batch: [1], seconds: 0.01}}
"""


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2", "gp"])
@pytest.mark.parametrize(("bound", "met"), [("> 1e-9", True), ("> 1e12", False)])
def test_a_constraint_on_a_measurement_reaches_optuna(
    sampler: str, bound: str, met: bool, tmp_path: Path
) -> None:
    spec = parse_spec(CONSTRAINED % (f"images_per_s {bound}", sampler))
    run_sweep(spec, tmp_path, torch.device("cpu"), Quiet())
    rows = sqz.load_results(tmp_path)
    assert list(rows["feasible"]) == [met] * 3
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.journal"))
    )
    study = optuna.load_study(study_name="constrained", storage=storage)
    for trial in study.trials:
        (value,) = trial.constraints.values()
        assert (value <= 0) == met


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("{bypass: complex}", "{bypas: complex}", ["when.bypas", "bypass"]),
        ("{bypass: complex}", "{bypass: complete}", ["when.bypass", "'complete'"]),
        ("{bypass: complex}", "{dropout: 0.5}", ["when.dropout", "does not vary"]),
        ("{squeeze_ratio: [0.5, 1.0]}", "{squeeze_ratio: 0.3}", ["0.3", "never has"]),
        ("bypass: [none, simple, complex]",
         "bypass: {when: {squeeze_ratio: 0.5}, values: [none, simple, complex]}", ["circle"]),
        ("fire5.squeeze_ratio:", "fire5.squeeze:", ["fire5.squeeze", "fire5.squeeze_ratio"]),
        ("[null, 0.75]", "[null, 7.5]", ["fire5.squeeze_ratio", "7.5"]),
        ("fires: [4, 8]", "dropout: [0.1, 0.1]", ["twice"]),
        ("fires: [4, 8]", "fires: [3]", ["fire5", "fire4"]),
        ("fires: [4, 8]", "fire9.squeeze_ratio: {min: null, max: 0.5}",
         ["fire9.squeeze_ratio.min", "found None", "a number"]),
        ("fires: [4, 8]", "fire12.squeeze_ratio: {min: 0.1, max: 0.5}",
         ["space.fire12.squeeze_ratio", "found fire12", "fire2 to fire9"]),
    ],
)  # fmt: skip
def test_a_wrong_condition_or_override_is_named(old: str, new: str, words: list[str]) -> None:
    assert old in CONDITIONAL
    with pytest.raises(UserError) as error:
        parse_spec(conditional().source.replace(old, new))
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90.0), ("90min", 5400.0), ("1h30min", 5400.0), ("1d", 86400.0)]
)
def test_a_timeout_is_a_duration(text: str, seconds: float) -> None:
    spec = parse_spec(
        CONSTRAINED.replace("trials: 3", f"timeout: {text}") % ("params < 1e9", "tpe")
    )
    assert spec.search.timeout == seconds


@pytest.mark.parametrize("text", ["2 weeks", "-1", "0", "true", "1e9"])
def test_a_wrong_timeout_is_refused(text: str) -> None:
    timed = CONSTRAINED.replace("trials: 3", f"timeout: {text}")
    with pytest.raises(UserError, match=r"search.timeout.*found .*expected seconds"):
        parse_spec(timed % ("params < 1e9", "tpe"))


def test_a_timeout_ends_a_search_that_nothing_else_ends(tmp_path: Path) -> None:
    text = CONSTRAINED.replace("trials: 3", "timeout: 0.1") % ("images_per_s > 1", "random")
    spec = parse_spec(text.replace("[0.25, 0.5, 1.0]", "{min: 0.1, max: 1.0}"))
    run_sweep(spec, tmp_path, torch.device("cpu"), Quiet())
    assert 1 <= len(sqz.load_results(tmp_path)) < 100


def test_describe_and_tables_know_single_fires(tmp_path: Path) -> None:
    change = ["--set", "fire5.squeeze_ratio=0.5", "--set", "fire9.bypass=simple"]
    shown = CliRunner().invoke(app, ["describe", "squeezenet1_0", *change, "--json"])
    found = json.loads(shown.stdout)
    arch = sqz.Architecture(**{"fire5.squeeze_ratio": 0.5, "fire9.bypass": "simple"})
    assert found["arch_id"] == arch.arch_id
    assert found["params"] == sum(p.numel() for p in sqz.build(arch).parameters())
    # fire5 (256 expand filters, 256 channels in): 128 squeeze filters instead of 32.
    more = (128 - 32) * (256 + 1) + (128 - 32) * 128 * (1 + 9)
    assert found["params"] - sqz.cost(sqz.Architecture()).params == more

    spec = parse_spec(
        "name: single\nspace: {fire5.squeeze_ratio: [null, 0.5], fire9.bypass: [null, simple]}\n"
    )
    run_sweep(spec, tmp_path, torch.device("cpu"), Quiet())
    rows = sqz.load_results(tmp_path)
    printed = CliRunner().invoke(app, ["results", str(tmp_path)])
    assert printed.exception is None
    assert "fire5.squeeze_ratio -, fire9.bypass -" in printed.stdout
    assert rows["overrides"].isna().sum() == 1
    assert arch.arch_id in set(rows["arch_id"])
    counted = sqz.cost_table(rows)
    assert counted["params"].tolist() == rows["params"].tolist()
    wrong = CliRunner().invoke(app, ["describe", "--set", "fire5.squeeze=0.5"])
    assert isinstance(wrong.exception, UserError)
    assert "fire5.squeeze_ratio" in str(wrong.exception)


def test_the_names_of_architectures_without_overrides_stand() -> None:
    """As committed results have them."""
    root = ROOT
    rows = sqz.load_results(root / "results" / "sr")
    for _, row in rows.iterrows():
        assert sqz.Architecture(squeeze_ratio=row["squeeze_ratio"]).arch_id == row["arch_id"]


LARGE = """
name: large
space:
  squeeze_ratio: {min: 0.1, max: 1.0, step: 0.1}
  fraction_3x3: {min: 0.0, max: 1.0, step: 0.25}
  bypass: [none, complex]
  fires: [8, 9]
constraints: ["params < 1e7"]
"""


@pytest.mark.parametrize("url", [None, "sqlite:///{}/study.db"])
def test_a_grid_of_costs_is_whole_resumable_and_open_to_optuna(
    url: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = parse_spec(LARGE)
    storage = url and url.format(tmp_path)
    real, calls = optuna.Study.add_trials, []

    def stop_at_the_second(self: optuna.Study, trials: list[object]) -> None:
        calls.append(len(trials))
        real(self, trials[:7] if len(calls) == 2 else trials)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("sqzexplore.sweep.cost_grid._BLOCK", 50)
    monkeypatch.setattr(optuna.Study, "add_trials", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(spec, tmp_path / "out", torch.device("cpu"), Quiet(), storage)
    monkeypatch.setattr(optuna.Study, "add_trials", real)
    outcome = run_sweep(spec, tmp_path / "out", torch.device("cpu"), Quiet(), storage)
    rows = sqz.load_results(tmp_path / "out")
    space = spec.design_space
    expected = sqz.cost_table(space)
    kept = expected["params"] < 1e7
    assert outcome.complete == len(rows) == int(kept.sum()) > 150
    assert rows["trial"].tolist() == list(range(len(rows)))
    assert rows["arch_id"].is_unique
    for name in ("params", "macs", "peak_activation_bytes"):
        assert rows[name].tolist() == expected.loc[kept, name].tolist()
    opened = (
        optuna.storages.RDBStorage(storage)
        if storage
        else optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(tmp_path / "out" / "study.journal"))
        )
    )
    study = optuna.load_study(study_name="large", storage=opened)
    assert [t.values for t in study.trials] == rows[["macs", "params"]].to_numpy(float).tolist()
    assert [t.params["squeeze_ratio"] for t in study.trials] == rows["squeeze_ratio"].tolist()
