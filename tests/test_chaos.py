"""benchmarks/chaos.py, briefly: what is killed leaves no trace in the tables."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

CHAOS = Path(__file__).resolve().parent.parent / "benchmarks" / "chaos.py"


@pytest.mark.parametrize(
    "options",
    [
        ["--storage", "journal", "--kills", "6"],
        ["--storage", "postgres", "--kills", "2", "--server-kills", "1", "--sampler", "random"],
    ],
    ids=["journal", "postgres"],
)
def test_a_sweep_under_a_monkey(options: list[str], tmp_path: Path) -> None:
    out = tmp_path / "chaos.csv"
    sizes = ["--architectures", "6", "--epochs", "1", "--workers", "2", "--timeout", "10"]
    done = subprocess.run(
        [sys.executable, CHAOS, *options, *sizes, "--every", "1.5", "--limit", "240", "--out", out],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = csv.DictReader(out.open())
    assert int(row["kills"]) >= int(options[3])
    zero = ("rows_lost", "rows_doubled", "rows_different", "files_left_over", "processes_left")
    assert {name: row[name] for name in zero} == dict.fromkeys(zero, "0")
