"""benchmarks/chaos.py, briefly: what is killed leaves no trace in the tables."""

from __future__ import annotations

import csv
import signal
from pathlib import Path

import pytest

from helpers import ROOT, command_line, servers

pytestmark = pytest.mark.slow

CHAOS = ROOT / "benchmarks" / "chaos.py"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test leaves the undisturbed sweep for the second."""
    return tmp_path_factory.mktemp("chaos") / "undisturbed"


@pytest.mark.parametrize(
    "options",
    [
        ["--storage", "journal", "--kills", "6"],
        ["--storage", "postgres", "--kills", "2", "--server-kills", "1", "--sampler", "random"],
    ],
    ids=["journal", "postgres"],
)
def test_a_sweep_under_a_monkey(options: list[str], undisturbed: Path, tmp_path: Path) -> None:
    if "postgres" in options:
        servers.need_postgres()
    out = tmp_path / "chaos.csv"
    sizes = ["--architectures", "6", "--epochs", "6", "--workers", "2", "--timeout", "10"]
    command = [*options, *sizes, "--every", "0.2", "--limit", "240", "--out", out]
    command += ["--undisturbed", undisturbed]
    chaos = command_line.Started(*command, program=CHAOS)
    try:
        printed = "".join(chaos.communicate(timeout=280))
    finally:
        chaos.send_signal(signal.SIGTERM)  # it cleans up
        chaos.wait(60)
    assert chaos.returncode == 0, printed
    (row,) = csv.DictReader(out.open())
    assert int(row["kills"]) >= int(options[3])
    zero = ("rows_lost", "rows_doubled", "rows_different", "files_left_over", "processes_left")
    assert {name: row[name] for name in zero} == dict.fromkeys(zero, "0")
