"""Sweeps that share a database: one sweep from several folders, several sweeps with one result."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import Mock

import optuna
import pytest
import torch
from optuna.distributions import CategoricalDistribution
from optuna.trial import create_trial

from helpers import servers
from helpers.processes import RATIOS, Sweeps, until, whole
from helpers.sweeps import Quiet
from sqzexplore import provenance
from sqzexplore.evaluation.bench import Bench
from sqzexplore.evaluation.rows import describe_row
from sqzexplore.evaluation.tasks import Evaluation, Measured
from sqzexplore.results.folder import load_results
from sqzexplore.spec.load import parse_spec
from sqzexplore.spec.models import Spec
from sqzexplore.sweep import leases, proposals
from sqzexplore.sweep.leases import OWNER, Leases, alive
from sqzexplore.sweep.mirror import Mirror
from sqzexplore.sweep.proposals import Candidate, Proposals
from sqzexplore.sweep.reuse import Reuse
from sqzexplore.sweep.run import run_sweep
from sqzexplore.sweep.speeds import Speeds
from sqzexplore.sweep.storage.open import open_storage
from sqzexplore.sweep.trial_tables import Record, speed_key

TRAINED = """\
name: NAME
base: {width_multiplier: 0.1, num_classes: 10, fires: 3, pool_after: [1, 3], bypass: complex}
space: {squeeze_ratio: RATIOS}
input_size: 48
constraints: CONSTRAINTS
measure:
  accuracy: {data: digits, epochs: 1, seeds: 2, batch_size: 32, learning_rate: 0.01}
"""


def trained(name: str, ratios: list[float], constraints: str = "[]") -> Spec:
    text = TRAINED.replace("NAME", name).replace("RATIOS", str(ratios))
    return parse_spec(text.replace("CONSTRAINTS", constraints))


@pytest.fixture(params=["postgresql", "grpc"])
def shared_url(request: pytest.FixtureRequest, database: str) -> Iterator[str]:
    """An empty database, by itself and behind Optuna's proxy."""
    if request.param == "postgresql":
        yield database
        return
    proxy = servers.Proxy(database)
    proxy.start()
    yield proxy.url
    proxy.kill()


def test_processes_share_a_database(shared_url: str, tmp_path: Path) -> None:
    """As on two machines: folders of their own. One is killed; its trial is not lost."""
    environment = {"SQZEXPLORE_STORAGE": shared_url}
    everyone = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        everyone.append(Sweeps(tmp_path / name, environment))
    first, second = everyone
    try:
        killed = first.start({0.1: "hang"}, "--workers", 2)
        until(lambda: len(first.begun()) == 6)
        other = second.start({})
        until(lambda: second.out.joinpath("trials.csv").exists())
        killed.kill()
        _, errors = other.communicate(timeout=90)
        assert other.returncode == 0, errors
        assert whole(load_results(second.out))
        evaluated = Counter(ratio for s in everyone for ratio, _ in s.begun())
        assert evaluated == dict.fromkeys(RATIOS, 1) | {0.1: 2}
        written = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
        assert servers.PASSWORD.encode() not in written
        assert servers.ENCODED.encode() not in written
        assert servers.PASSWORD not in errors
        assert servers.ENCODED not in errors
    finally:
        for running in everyone:
            running.end()


def test_another_sweep_of_the_storage_is_reused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same architecture, recipe, images and device: its result, held to new constraints."""
    url, cpu = f"sqlite:///{tmp_path / 'study.db'}", torch.device("cpu")
    run_sweep(trained("one", [0.25, 0.5]), tmp_path / "one", cpu, Quiet(), url)
    measured: list[float] = []
    real = Bench.perform

    def counted(bench, task, *rest):
        measured.append(task.architecture.squeeze_ratio)
        yield from real(bench, task, *rest)

    monkeypatch.setattr(Bench, "perform", counted)
    two = trained("two", [0.5, 0.75], '["top1 > 99.9"]')
    run_sweep(two, tmp_path / "two", cpu, Quiet(), url)
    assert measured == [0.75, 0.75], "a training a seed"
    first, second = (
        load_results(tmp_path / name).set_index("squeeze_ratio") for name in ("one", "two")
    )
    assert list(second["reused_from"].fillna("")) == ["one/1", ""]
    assert second.loc[0.5, "top1"] == first.loc[0.5, "top1"]
    assert first["feasible"].isna().all()
    assert not second.loc[0.5, "feasible"]
    seeds = [
        load_results(tmp_path / name, "seeds").query("arch_id == @arch_id")["top1"].tolist()
        for name, arch_id in (("one", first["arch_id"][0.5]), ("two", second["arch_id"][0.5]))
    ]
    assert seeds[0] == seeds[1]
    third = trained("three", [0.5]).source.replace("epochs: 1", "epochs: 2")
    run_sweep(parse_spec(third), tmp_path / "three", cpu, Quiet(), url)
    assert measured == [0.75, 0.75, 0.5, 0.5], "another recipe is another measurement"


FAILED = {"row": {"outcome": "failed", "error": "throughput: no"}, "throughput": []}
FAST = {"row": {"outcome": "measured", "images_per_s": 9.0}, "throughput": [{"batch": 1}]}


@pytest.mark.parametrize(
    ("late", "decides", "version", "speed"),
    [
        (FAST, False, "", 9.0),
        (FAST, True, "", 9.0),
        (FAILED, False, "", None),  # trained, and to be measured here
        (FAILED, True, "", "nothing"),
        ({"row": {}, "throughput": []}, True, "", "nothing"),
        (FAST, False, "another", "nothing"),
    ],
)
def test_speeds_of_another_sweep_are_reused_if_there_are_any(
    late: dict, decides: bool, version: str, speed: object
) -> None:
    text = trained("one", [0.5]).source + "  throughput: {batch: [1]}\n"
    if decides:
        text += "search: {objectives: {images_per_s: maximize}}\n"
    spec, storage = parse_spec(text), optuna.storages.InMemoryStorage()
    one, two = (optuna.create_study(study_name=n, storage=storage) for n in ("one", "two"))
    architecture = spec.design_space.architecture(0)
    row = {
        **{"state": "complete", "net_id": architecture.net_id, "top1": 50.0},
        "sqzexplore_version": version or provenance.version(),
        "device_name": provenance.device_name("cpu"),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
    Reuse(spec, one, torch.device("cpu"), None)
    one.add_trial(optuna.trial.create_trial(value=1.0, user_attrs={"row": row}))
    one.set_user_attr(speed_key(0), late)
    found = Reuse(spec, two, torch.device("cpu"), None).get(architecture)
    if speed == "nothing":
        assert found is None
    else:
        assert found.row["top1"] == 50.0
        assert found.row.get("images_per_s") == speed
        assert found.throughput == late["throughput"]
        assert found.row.get("outcome") != "failed"
    one.set_user_attr("measurement", "of another version")  # it began so, and was gone on with
    own = Reuse(spec, one, torch.device("cpu"), None).get(architecture)
    assert (own is None) == (found is None)


@pytest.mark.parametrize("alone", [True, False])
def test_a_speed_is_measured_by_one_machine(
    alone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another has measured by then, or meanwhile, is what the table says."""
    spec = trained("one", [0.25, 0.5, 0.75])
    study = optuna.create_study()
    row = {"state": "complete", "arch_id": "", "device_name": "here"}
    record = Record("one")
    for ratio in (0.25, 0.5, 0.75):
        params = {"squeeze_ratio": ratio}
        known = {"squeeze_ratio": CategoricalDistribution([0.25, 0.5, 0.75])}
        study.add_trial(create_trial(value=1.0, params=params, distributions=known,
                                     user_attrs={"row": row}))  # fmt: skip
        record.take(study.trials[-1])
    books = Mock(record=record, take_speeds=record.take_speeds)
    books.mirror.study, books.mirror.alone = study, lambda: alone
    speeds, asked = Speeds(spec, tmp_path, books, Mock()), list[int]()

    def wait(seconds: float) -> None:
        """Another machine measures this trial too, and is done with trial 1 before."""
        (task,), _ = engine.submit.call_args
        asked.append(task.trial)
        for number in {1, task.trial} if not alone else ():
            study.set_user_attr(speed_key(number), content)
        speeds.ended(task, Measured(error="too late"))

    content = {"row": {"images_per_s": 9.0}, "throughput": [{"device_name": "there"}]}
    engine = Mock(wait=wait)
    monkeypatch.setattr(random.Random, "shuffle", lambda self, numbers: numbers.reverse())
    speeds.measure(engine)
    assert asked == ([0, 1, 2] if alone else [2, 0])
    assert not record.unmeasured
    assert len(record.outcome.failures) == (3 if alone else 0)
    found = [study.user_attrs[speed_key(number)]["row"] for number in range(3)]
    assert [each.get("images_per_s") for each in found] == [None if alone else 9.0] * 3


class Process:
    """One process's view of a study: what it holds, without an engine."""

    def __init__(self, folder: Path, url: str, spec: Spec) -> None:
        storage = open_storage(folder, url)
        self.study = optuna.create_study(
            study_name="s", storage=storage, directions=["minimize"], load_if_exists=True
        )
        self.leases = Leases(folder, self.study._storage, "cpu")
        self.leases.__enter__()
        self.spec = spec
        self.mirror = Mirror(self.study, self.leases, in_database=True)
        self.proposals = Proposals(spec, self.mirror)
        self.mirror.sync()

    def next(self) -> Candidate | None:
        """A trial that it holds from now on, or None while there is none."""
        self.mirror.sync()
        return self.proposals.next()

    def tell(self, candidate: Candidate) -> None:
        """Finish a trial with its costs."""
        row = describe_row(candidate.architecture, self.spec, None) | {"state": "complete"}
        for name, value in vars(Evaluation(row)).items():
            candidate.trial.set_user_attr(name, value)
        self.study.tell(candidate.trial, row["params"])
        self.mirror.let_go(candidate.trial)
        self.mirror.sync()


def test_a_trial_that_was_only_asked_for_is_no_company(tmp_path: Path) -> None:
    """Its process may have been killed: a search that goes on draws what it would have drawn."""
    search = "{sampler: random, trials: 12}"
    spec = parse_spec(f"name: s\nspace: {{squeeze_ratio: [0.25, 0.5]}}\nsearch: {search}\n")
    url = f"sqlite:///{tmp_path / 'study.db'}"
    optuna.create_study(study_name="s", storage=url, directions=["minimize"]).ask()
    process = Process(tmp_path / "a", url, spec)
    assert process.mirror.others.keys() == {0}
    assert not process.mirror.company
    process.leases.__exit__()


@pytest.mark.parametrize("sampler", ["grid", "random"])
def test_processes_by_turns(sampler: str, tmp_path: Path) -> None:
    """Three processes that take and finish by turns get each architecture once."""
    search = {"grid": "{sampler: grid}", "random": "{sampler: random, trials: 20}"}[sampler]
    spec = parse_spec(f"name: s\nspace: {{squeeze_ratio: {{min: 0.05, max: 1.0, step: 0.05}}}}\n"
                      f"search: {search}\n")  # fmt: skip
    url = f"sqlite:///{tmp_path / 'study.db'}"
    everyone = [Process(tmp_path / str(n), url, spec) for n in range(3)]
    taken: list[str] = []
    held: list[tuple[Process, object]] = []
    while True:
        found = [(process, process.next()) for process in everyone]
        held += [(process, candidate) for process, candidate in found if candidate]
        if not held:
            break
        process, candidate = held.pop(len(taken) % len(held))
        taken.append(candidate.architecture.arch_id)
        process.tell(candidate)
    assert len(taken) == len(set(taken)) == 20
    for process in everyone:
        process.mirror.sync()
        assert set(process.mirror.known) == set(taken)
        process.leases.__exit__()


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_many_at_once_draw_what_one_draws(sampler: str, tmp_path: Path) -> None:
    """Trials that are held beside each other, and end in another order, change no draw."""
    spec = parse_spec(
        "name: s\nspace: {squeeze_ratio: {min: 0.05, max: 1.0, step: 0.05}}\n"
        f"search: {{sampler: {sampler}, trials: 12}}\n"
    )
    drawn = []
    for at_once in (1, 4):
        process = Process(tmp_path / str(at_once), f"sqlite:///{tmp_path / str(at_once)}.db", spec)
        held, taken = [], set()
        while (candidate := process.next()) or held:
            if candidate:
                held.append(candidate)
                taken.add(candidate.architecture.arch_id)
            if len(held) == at_once or not candidate:
                process.tell(held.pop())
        drawn.append(taken)
        process.leases.__exit__()
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 12


def test_a_search_counts_its_space_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Mock(return_value=3)
    monkeypatch.setattr(proposals, "planned", counted)
    search = "{sampler: random, trials: 3}"
    spec = parse_spec(f"name: s\nspace: {{squeeze_ratio: [0.2, 0.4, 0.6]}}\nsearch: {search}\n")
    process = Process(tmp_path, f"sqlite:///{tmp_path / 'study.db'}", spec)
    while candidate := process.next():
        process.tell(candidate)
    counted.assert_called_once()
    process.leases.__exit__()


def test_an_owner_of_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lives while its heartbeat is young; a trial that it held for too long is another's."""
    spec = parse_spec("name: s\nspace: {squeeze_ratio: [0.5]}\n")
    url = f"sqlite:///{tmp_path / 'study.db'}"
    far, near = (Process(tmp_path / name, url, spec) for name in ("far", "near"))
    far.leases._who |= {"machine": "another"}
    candidate = far.next()
    assert candidate is not None
    trial = near.study.get_trials()[0]
    assert alive(trial)
    assert near.next() is None
    old = datetime.now(UTC) - leases.STALE - timedelta(seconds=1)
    owner = trial.user_attrs[OWNER] | {"at": old.isoformat()}
    near.study._storage.set_trial_user_attr(trial._trial_id, OWNER, owner)
    taken = near.next()
    assert taken is not None
    assert taken.trial.number == candidate.trial.number
    assert taken.deaths == 1
    far.mirror.sync()
    assert not far.leases.owns(far.study.get_trials()[0]), "it wakes, and sees that it lost it"
    near.tell(taken)
    assert far.next() is None
    for process in (far, near):
        process.leases.__exit__()


def test_a_heartbeat_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT_S", 0.05)
    spec = parse_spec("name: s\nspace: {squeeze_ratio: [0.5]}\n")
    process = Process(tmp_path, f"sqlite:///{tmp_path / 'study.db'}", spec)
    assert process.next() is not None
    before = process.study.get_trials()[0].user_attrs[OWNER]["at"]
    until(lambda: process.study.get_trials()[0].user_attrs[OWNER]["at"] > before, 10)
    process.leases.__exit__()
    assert process.study.get_trials()[0].user_attrs[OWNER]["process"] is None
