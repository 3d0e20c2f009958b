"""Databases as storages: real servers, killed and started again; passwords that stay hidden."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.trial import TrialState, create_trial

from helpers import ROOT, servers
from helpers.children import ended, start
from helpers.command_line import run
from sqzexplore.errors import UserError
from sqzexplore.results.folder import load_results
from sqzexplore.sweep.storage import open as storages
from sqzexplore.sweep.storage import retrying
from sqzexplore.sweep.storage.open import hide_password, open_database, open_storage
from sqzexplore.sweep.storage.retrying import DatabaseLost, PatientStorage, is_lost

COSTS = "name: costs\nspace: {squeeze_ratio: [0.25, 0.5]}\n"
SECRETS = (servers.PASSWORD, servers.ENCODED)


def hides(text: str) -> bool:
    """Whether `text` shows no password, nor a piece of one."""
    return not any(secret in text for secret in (*SECRETS, "p@ss", "p%40ss", "rd%", "w{o}"))


def test_nothing_needs_a_driver_before_a_server_is_asked_for() -> None:
    """Else no test at all is collected where there is none."""
    code = "import sys; sys.modules['psycopg'] = None; import conftest"
    folder = ROOT / "tests"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def proxy(database: str) -> Iterator[servers.Proxy]:
    """A gRPC proxy in front of `database`, in a process of its own."""
    server = servers.Proxy(database)
    server.start()
    yield server
    server.kill()


@pytest.fixture(params=["sqlite", "postgresql", "grpc"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty storage of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'study.db'}"
    if request.param == "postgresql":
        return request.getfixturevalue("database")
    return request.getfixturevalue("proxy").url


def claim_and_tell(url: str, folder: Path, owner: str, number: int) -> None:
    """What a worker does: trials made running by a template, told at the end."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = open_storage(folder, url)
    study = optuna.create_study(study_name="s", storage=storage, load_if_exists=True)
    for i in range(number):
        template = create_trial(state=TrialState.RUNNING, user_attrs={"owner": owner})
        trial_id = storage.create_new_trial(study._study_id, template)
        storage.set_trial_user_attr(trial_id, "row", {"i": i})
        storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [float(i)])


def test_workers_share_a_study(url: str, tmp_path: Path) -> None:
    """Processes that meet an empty database at once: each makes its tables, none fails."""
    ended(*[start(claim_and_tell, url, tmp_path, f"worker-{n}", 5) for n in range(4)])
    trials = optuna.load_study(study_name="s", storage=open_storage(tmp_path, url)).trials
    assert [trial.number for trial in trials] == list(range(20))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert sorted((t.user_attrs["owner"], t.user_attrs["row"]["i"], t.value) for t in trials) == [
        (f"worker-{n}", i, float(i)) for n in range(4) for i in range(5)
    ]


def test_what_is_stored_is_optunas(database: str, tmp_path: Path) -> None:
    claim_and_tell(database, tmp_path, "me", 3)
    engine = sqlalchemy.create_engine(database)
    with engine.connect() as connection:
        assert connection.execute(sqlalchemy.text("SELECT study_name FROM studies")).all() == [
            ("s",)
        ]
    own = optuna.storages.RDBStorage(database)
    assert [t.value for t in optuna.load_study(study_name="s", storage=own).trials] == [0, 1, 2]


def test_a_file_whose_path_has_braces(tmp_path: Path) -> None:
    """Optuna fills a number in for what stands in braces."""
    folder = tmp_path / "{SCHEMA_VERSION}"
    folder.mkdir()
    claim_and_tell(f"sqlite:///{folder / 'study.db'}", folder, "me", 1)
    with sqlite3.connect(folder / "study.db") as file:
        assert file.execute("SELECT study_name FROM studies").fetchall() == [("s",)]


def test_every_method_of_a_storage_is_patient(tmp_path: Path) -> None:
    """As Optuna's own calls: a method that it gains later must not fall through to the base."""
    storage = open_database(f"sqlite:///{tmp_path / 'study.db'}")
    base = vars(optuna.storages.BaseStorage)
    public = {name for name in base if not name.startswith("_")}
    assert public <= set(vars(PatientStorage))
    study = optuna.create_study(storage=storage)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    assert study.best_trial.params == {"x": study.best_value}
    assert storage.get_n_trials(study._study_id) == 3
    with pytest.raises(DuplicatedStudyError):
        optuna.create_study(storage=storage, study_name=study.study_name)
    with pytest.raises(KeyError):
        optuna.load_study(storage=storage, study_name="another")
    with pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_user_attr(study.trials[0]._trial_id, "late", 1)


# --- servers that go away ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("through", "killed", "lines"),
    [
        ("", "database", 2),
        ("proxy", "proxy", 2),
        ("proxy", "database", 0),  # the proxy waits; the client's call takes longer, that is all
        ("stock proxy", "database", 2),
    ],
)
def test_a_server_killed_under_a_loop_of_writes(
    through: str,
    killed: str,
    lines: int,
    postgres: servers.Postgres,
    database: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    proxy = servers.Proxy(database, stock=through == "stock proxy")
    if through:
        proxy.start()
        request.addfinalizer(proxy.kill)
    said: list[str] = []
    storage = open_storage(tmp_path, proxy.url if through else database, tell=said.append)
    study = optuna.create_study(study_name="s", storage=storage)
    server = proxy if killed == "proxy" else postgres

    def outage() -> None:
        time.sleep(0.5)
        server.kill()
        deadline = time.monotonic() + (60 if lines else 3)
        while not said and time.monotonic() < deadline:
            time.sleep(0.1)
        server.start()

    thread = threading.Thread(target=outage)
    request.addfinalizer(thread.join)
    thread.start()
    told: dict[int, float] = {}
    more = 20
    while more:
        more -= not thread.is_alive()
        template = create_trial(state=TrialState.RUNNING, user_attrs={"owner": "me"})
        trial_id = storage.create_new_trial(study._study_id, template)
        value = float(len(told))
        try:
            storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [value])
        except UpdateFinishedTrialError:  # a try that got no answer had reached it
            assert storage.get_trial(trial_id).values == [value]
        told[trial_id] = value
    assert len(said) == lines
    assert all(hides(line) for line in said)
    kept = {trial._trial_id: trial for trial in study.get_trials()}
    assert {number: kept[number].value for number in told} == told
    left = [kept[number] for number in kept.keys() - told.keys()]
    assert len(left) <= 1, "more than the one of the outage"
    assert all(t.state is TrialState.RUNNING and t.user_attrs == {"owner": "me"} for t in left)


@pytest.mark.parametrize("kind", ["postgresql", "grpc"])
def test_patience_has_an_end(
    kind: str,
    postgres: servers.Postgres,
    proxy: servers.Proxy,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retrying, "_SILENT_S", 0.0)
    url = database if kind == "postgresql" else proxy.url
    backend = open_database(url)._backend
    said: list[str] = []
    storage = PatientStorage(backend, hide_password(url), said.append, patience_s=1)
    study = optuna.create_study(study_name="s", storage=storage)
    server = postgres if kind == "postgresql" else proxy
    server.kill()
    try:
        with pytest.raises(DatabaseLost) as lost:
            study.set_user_attr("a", 1)
    finally:
        server.start()
    message = str(lost.value)
    assert message.startswith(f"{hide_password(url)}: the database has not answered for 1 s")
    assert "Nothing is lost" in message
    assert "Run the same command again" in message
    assert "\n" not in message
    assert hides(message)
    assert said == [f"{hide_password(url)}: the database does not answer; trying again for 1 s"]
    assert open_database(url).get_study_user_attrs(study._study_id) == {}


def test_without_a_callback_an_outage_is_logged(
    postgres: servers.Postgres,
    database: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retrying, "_SILENT_S", 0.0)
    storage = PatientStorage(open_database(database)._backend, "the place", patience_s=1)
    postgres.kill()
    try:
        with pytest.raises(DatabaseLost):
            storage.get_all_studies()
    finally:
        postgres.start()
    assert "the place: the database does not answer" in caplog.text
    assert hides(caplog.text)


def test_a_locked_sqlite_file_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than SQLite itself waits, here by the URL: a twentieth of a second."""
    monkeypatch.setattr(retrying, "_SILENT_S", 0.0)
    path = tmp_path / "study.db"
    said: list[str] = []
    storage = open_database(f"sqlite:///{path}?timeout=0.05", said.append)
    study = optuna.create_study(storage=storage)
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    held = threading.Timer(1.5, other.execute, ["ROLLBACK"])
    held.start()
    study.set_user_attr("a", 1)
    held.join()
    other.close()
    assert len(said) == 2, "it was not told that the database was away, and back"
    assert study.user_attrs == {"a": 1}


def test_what_is_wrong_for_good_is_not_tried_again(tmp_path: Path) -> None:
    said: list[str] = []
    storage = open_database(f"sqlite:///{tmp_path / 'study.db'}", said.append)
    with sqlite3.connect(tmp_path / "study.db") as other:
        other.execute("DROP TABLE study_user_attributes")
    with pytest.raises(optuna.exceptions.StorageInternalError) as error:
        storage.get_all_studies()
    assert not is_lost(error.value)
    assert not is_lost(KeyError("x"))
    assert not is_lost(None)
    assert said == []


# --- URLs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda url: url.replace(servers.ENCODED, "p%40sswrong"), "authentication failed"),
        (lambda url: url.replace("127.0.0.1", "nowhere.invalid"), "nowhere.invalid"),
        (lambda url: url.rsplit(":", 1)[0] + f":{servers.free_port()}/x", "refused"),
        (lambda url: url.rsplit("/", 1)[0] + "/nosuch", 'database "nosuch" does not exist'),
        (lambda url: url.replace("postgresql+psycopg", "mysql"), "found no package MySQLdb"),
        (lambda url: url.replace("postgresql+psycopg", "postgres"), "mean 'postgresql+psycopg'"),
        (lambda url: url.replace(servers.ENCODED, servers.PASSWORD), "found more than one @"),
        (lambda url: url.replace(servers.ENCODED, "p@ssword"), "found more than one @"),
        (lambda url: url.replace("@127", "127").replace("://", ":/"), "found a malformed URL"),
        (lambda url: f"{url.replace('127.0.0.1:', '127.0.0.1:x')}", "found a malformed URL"),
        (lambda url: f"{url}?sslmode=p&password={servers.ENCODED}", "invalid sslmode value"),
        (lambda url: f"{url}?sslmode=require", "SSL"),
        (lambda url: f"{url}?nosuch=1", "nosuch"),
        (lambda url: "sqlite:////no/such/folder/study.db", "unable to open database file"),
        (lambda url: "sqlite:////etc/hostname", "file is not a database"),
        (lambda url: "sqlite:///study.db?timeout=abc", "could not convert string to float: 'abc'"),
        (lambda url: "study.db", "found a malformed URL"),
        (lambda url: "grpc://somewhere", "expected grpc://HOST:PORT"),
        (lambda url: "grpc://somewhere:x", "expected grpc://HOST:PORT"),
        (lambda url: "grpc://me:p@ss@somewhere:1", "expected grpc://HOST:PORT"),
        (lambda url: f"grpc://127.0.0.1:{servers.free_port()}", "nothing answers"),
    ],
)
def test_a_url_that_does_not_open(
    change: Callable[[str], str],
    expected: str,
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(storages, "_CONNECT_S", 1)
    url = change(database)
    with pytest.raises(UserError, match=r"^--storage") as error:
        open_storage(tmp_path / "none", url)
    message = str(error.value)
    assert expected in message
    assert hides(message.replace('sslmode value: "p"', ""))
    assert "\n" not in message
    shown = "".join(traceback.format_exception(error.value))
    assert "another exception" not in shown  # a cause, whose text nobody has looked through
    assert "direct cause" not in shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql+psycopg://me:secret@host/db", "postgresql+psycopg://me:***@host/db"),
        ("postgresql://host/db?password=secret&u=me", "postgresql://host/db?password=***&u=me"),
        ("mysql://me@host/db?ssl_password=secret", "mysql://me@host/db?ssl_password=***"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
        ("grpc://host:1", "grpc://host:1"),
        ("postgresql://me:se@cret@host/db", "postgresql://..."),
        ("me:secret@host", "...://..."),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert hide_password(url) == shown


@pytest.mark.parametrize(
    ("package", "url", "extra"),
    [
        ("psycopg", "postgresql+psycopg://me@host/db", "sqzexplore[postgres]"),
        ("grpc", "grpc://host:1", "sqzexplore[grpc]"),
        ("google.protobuf", "grpc://host:1", "sqzexplore[grpc]"),
    ],
)
def test_a_package_that_is_not_installed(
    package: str, url: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as Python marks what cannot be imported
    with pytest.raises(UserError, match="found no package") as error:
        open_database(url)
    assert extra in str(error.value)


# --- sweeps ------------------------------------------------------------------------------------


def sweep(spec: Path, folder: Path, url: str) -> subprocess.CompletedProcess[str]:
    command = ["sweep", spec, "--out", folder, "--storage", url, "--device", "cpu"]
    return run(*command, timeout=120)


def test_a_sweep_in_a_database_shows_no_password(database: str, tmp_path: Path) -> None:
    spec, folder = tmp_path / "costs.yaml", tmp_path / "out"
    spec.write_text(COSTS)
    done = sweep(spec, folder, database.replace(servers.ENCODED, "p%40sswrong"))
    assert done.returncode == 2
    assert "authentication failed" in done.stderr
    assert "Traceback" not in done.stderr
    assert hides(done.stdout + done.stderr)
    assert not folder.exists()
    done = sweep(spec, folder, database)
    assert done.returncode == 0, done.stderr
    assert len(load_results(folder)) == 2
    assert len(optuna.load_study(study_name="costs", storage=open_database(database)).trials) == 2
    assert hides(done.stdout + done.stderr)
    for path in folder.rglob("*"):
        if path.is_file():
            assert hides(path.read_bytes().decode("latin-1")), path
