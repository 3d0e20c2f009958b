"""The journal file under several processes, kills and full disks, read back by Optuna's own."""

from __future__ import annotations

import json
import os
import resource
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.storages.journal import JournalFileBackend

from helpers.children import ended, start, wait_for
from sqzexplore.sweep.storage.journal import Journal
from sqzexplore.sweep.storage.open import open_storage

UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


def writer(folder: Path, told: str) -> Callable[..., None]:
    """What adds a trial to the journal in `folder`, and then says so in the file `told`."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = open_storage(folder, None, create=True)
    study = optuna.create_study(study_name="s", storage=storage, load_if_exists=True)

    def write(token: str, size: int = 0) -> None:
        attributes = {"token": token, "filling": "x" * size}
        study.add_trial(optuna.trial.create_trial(value=1.0, user_attrs=attributes))
        with (folder / told).open("a") as file:
            file.write(f"{token}\n")

    return write


def told(folder: Path) -> list[str]:
    """What the writers said."""
    return [token for path in folder.glob("told-*") for token in path.read_text().split()]


def tokens(folder: Path) -> list[str]:
    """What is in the journal, as Optuna's own backend reads it."""
    own = optuna.storages.JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    study = optuna.load_study(study_name="s", storage=own)
    return [trial.user_attrs["token"] for trial in study.trials]


def limit(folder: Path, more: int) -> None:
    """Let no file of this process grow beyond `more` bytes above the journal's size."""
    size = (folder / "study.journal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + more, resource.RLIM_INFINITY))


def write_many(folder: Path, name: str, number: int, size: int = 0) -> None:
    write = writer(folder, f"told-{name}")
    for i in range(number):
        write(f"{name}-{i}", size)


def write_when_asked(folder: Path) -> None:
    write = writer(folder, "told-beside")
    (folder / "ready").write_text("opened")
    wait_for(folder / "go")
    write("beside")


def tear_and_die(folder: Path) -> None:
    write = writer(folder, "told-torn")
    write("before")
    limit(folder, 3000)
    os.truncate = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    write("torn", 10_000)


def fill_the_disk(folder: Path) -> None:
    write = writer(folder, "told-full")
    write("before")
    whole = (folder / "study.journal").read_bytes()
    limit(folder, 3000)
    with pytest.raises(OSError):
        write("torn", 10_000)
    assert (folder / "study.journal").read_bytes() == whole
    write("small")  # there is room for that
    resource.setrlimit(resource.RLIMIT_FSIZE, UNLIMITED)
    write("after", 10_000)


def look_as_another_user(folder: Path) -> None:
    if os.geteuid() == 0:
        os.setuid(65534)
    with pytest.raises(PermissionError):
        (folder / "mine").touch()
    assert len(open_storage(folder, None).get_all_trials(0)) == 1


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    ended(*[start(write_many, tmp_path, str(number), 200) for number in range(4)])
    assert sorted(tokens(tmp_path)) == sorted(f"{n}-{i}" for n in range(4) for i in range(200))


def test_processes_killed_while_they_write_lose_nothing(tmp_path: Path) -> None:
    """Records of megabytes, so that SIGKILL meets a write under way more often than not."""
    beside = start(write_many, tmp_path, "beside", 100, 10_000)
    for number in range(5):
        process = start(write_many, tmp_path, str(number), 10**6, 2_000_000)
        wait_for(tmp_path / f"told-{number}")
        time.sleep(0.037 * number)
        process.kill()
        process.join()
    ended(beside, start(write_many, tmp_path, "after", 1))
    kept = tokens(tmp_path)
    assert set(told(tmp_path)) <= set(kept)
    assert len(kept) == len(set(kept))


def test_whoever_writes_next_drops_a_torn_line(tmp_path: Path) -> None:
    """The kernel takes half a record, then the process is killed: nobody tidies up."""
    beside = start(write_when_asked, tmp_path)
    wait_for(tmp_path / "ready")
    torn = start(tear_and_die, tmp_path)
    torn.join()
    assert torn.exitcode == -signal.SIGKILL
    assert not (tmp_path / "study.journal").read_bytes().endswith(b"\n"), "nothing is torn here"
    reader = open_storage(tmp_path, None)
    assert len(reader.get_all_trials(0)) == 1
    (tmp_path / "go").write_text("go")
    ended(beside)
    assert tokens(tmp_path) == ["before", "beside"]
    assert len(reader.get_all_trials(0)) == 2


def test_a_full_disk_takes_back_what_it_half_wrote(tmp_path: Path) -> None:
    ended(start(fill_the_disk, tmp_path))
    assert tokens(tmp_path) == told(tmp_path) == ["before", "small", "after"]


@given(
    whole=st.lists(st.integers(0, 5000), max_size=3),
    torn=st.binary(max_size=9000).filter(lambda tail: b"\n" not in tail)
    | st.sampled_from([1, 4095, 4096, 4097, 8192]).map(lambda size: b"x" * size),
)
def test_only_what_is_torn_is_dropped(tmp_path_factory, whole: list[int], torn: bytes) -> None:
    path = tmp_path_factory.mktemp("journal") / "study.journal"
    lines = b"".join(json.dumps({"x": "y" * size}).encode() + b"\n" for size in whole)
    path.write_bytes(lines + torn)
    journal = Journal(path, path.with_name("lock"))
    assert [len(record["x"]) for record in journal.read_logs(0)] == whole
    journal.append_logs([{"x": ""}])
    assert path.read_bytes() == lines + b'{"x":""}\n'


def test_a_folder_that_may_only_be_read() -> None:
    """As `status` does in a colleague's folder; pytest's own nobody else may enter."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_many(folder, "one", 1)
        (folder / ".journal.lock").unlink()
        folder.chmod(0o555)
        try:
            ended(start(look_as_another_user, folder))
            assert not (folder / ".journal.lock").exists()
        finally:
            folder.chmod(0o755)


def test_a_line_that_is_no_record(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    path.write_bytes(b'{"a": 1}\r\nnonsense\n')
    records = Journal(path, tmp_path / "lock").read_logs(0)
    assert next(records) == {"a": 1}
    with pytest.raises(ValueError):
        next(records)
