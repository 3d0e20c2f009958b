"""Terminals and habits: encodings, narrow windows, home folders, endings of files."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

import sqzexplore as sqz
from helpers import ROOT, command_line
from sqzexplore.cli.tables import print_results
from sqzexplore.cli.terminal import terminal_table
from sqzexplore.results.folder import ResultFolder
from sqzexplore.results.shown import ShownColumn


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return command_line.run(*arguments, environment=os.environ | environment)


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    file = tmp_path / "root.yaml"
    text = "name: root\nquestion: What is √2?\nspace: {squeeze_ratio: [0.25, 0.5]}\n"
    file.write_text(text, encoding="utf-8")
    return file


BOTH = """
import runpy, sys
spec, folder = sys.argv[1:]
for words in (["sweep", spec, "--out", folder], ["results", folder]):
    sys.argv[1:] = words
    try:
        runpy.run_module("sqzexplore", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        assert not end.code, end.code
    print("--- ended", flush=True)
"""


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_a_terminal_that_cannot_show_it(spec: Path, tmp_path: Path, encoding: str) -> None:
    done = subprocess.run(  # an interpreter of its own: encodings are chosen when it starts
        [sys.executable, "-c", BOTH, str(spec), str(tmp_path / "out")],
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    swept, shown, _ = done.stdout.split(b"--- ended")
    assert b"What is ?2?" in swept
    assert b"What is ?2?" in shown


def test_exact_counts_are_never_cut(tmp_path: Path) -> None:
    done = run("results", ROOT / "results" / "sr", COLUMNS="40")
    assert done.returncode == 0
    for count in ("1,248,424", "61,100,840", "4,772M"):
        assert count in done.stdout
    assert "…" not in done.stdout
    assert re.search(r"^│ 0.125 +│  1,248,424 │ .* │ 80.78 to 84.42 │", done.stdout, re.MULTILINE)
    done = run("describe", "squeezenet1_0", COLUMNS="30")
    assert "818,924,576" in done.stdout


def test_ten_metaparameters_stand_whole_beside_their_costs() -> None:
    shown = run("results", ROOT / "results" / "firebench").stdout
    assert "…" not in shown
    for _, row in sqz.load_results(ROOT / "results" / "firebench").head(100).iterrows():
        assert f"{row['params']:,}│" in shown.replace(" ", "")


def test_a_network_without_an_accuracy_has_no_interval() -> None:
    """Of FireBench one died: its state stands where others have their accuracy."""
    folder = ROOT / "results" / "firebench"
    trials, spec = sqz.load_results(folder), ResultFolder(folder).spec()
    console = Console(width=160, file=io.StringIO(), force_terminal=False)
    print_results(console, trials[trials["top1"].isna()], spec, None)
    (line,) = [each for each in console.file.getvalue().splitlines() if "dead│" in each]
    assert "one seed" not in line


def test_brackets_are_no_markup() -> None:
    column = ShownColumn("name [bold]", str, words=True)
    console = Console(width=80, file=io.StringIO(), force_terminal=False)
    console.print(terminal_table("[red] or [/]", [column], ["[link=x] and [1, 4, 8]"]))
    shown = console.file.getvalue()
    for text in ("[red] or [/]", "name [bold]", "[link=x] and [1, 4, 8]"):
        assert text in shown


def test_status_says_counts_in_full(spec: Path, tmp_path: Path) -> None:
    run("sweep", spec, "--out", tmp_path / "out", "--quiet")
    assert "best params: 1,967,080 (trial 0)" in run("status", tmp_path / "out").stdout


def test_the_home_folder_wherever_a_path_is_taken(spec: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    done = run("sweep", spec, "--out=~/mine", "--quiet", HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert (home / "mine" / "trials.csv").exists()
    code = "from sqzexplore import load_results as l; print(len(l('~/mine')), len(l('~/*')))"
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert loaded.stdout.split() == ["2", "2"]
    done = run(
        "sweep",
        spec,
        "--out",
        tmp_path / "other",
        "--storage=sqlite:///~/study.db",
        "--quiet",
        HOME=str(home),
    )
    assert done.returncode == 0, done.stderr
    assert (home / "study.db").exists()


def test_the_ending_decides_the_kind_of_file(spec: Path, tmp_path: Path) -> None:
    csv, parquet = tmp_path / "rows.csv", tmp_path / "rows.parquet"
    for file in (csv, parquet):
        done = run("census", spec, "--out", file)
        assert done.returncode == 0, done.stderr
    rows = pd.read_parquet(parquet)
    again = pd.read_csv(csv, dtype={"pool_after": "string", "overrides": "string"})
    assert again["params"].tolist() == rows["params"].tolist() == [1967080, 3404392]
    counted = sqz.cost_table(again, 224)
    assert counted["macs"].tolist() == rows["macs"].tolist()
    done = run("census", spec, "--out", tmp_path / "rows.xlsx")
    assert done.returncode == 2
    assert "found .xlsx, expected .parquet or .csv" in done.stderr
    run("sweep", spec, "--out", tmp_path / "out", "--quiet")
    done = run("report", tmp_path / "out", "--out", tmp_path / "r.pdf")
    assert done.returncode == 2
    assert "found .pdf, expected .html" in done.stderr
    assert not (tmp_path / "r.pdf").exists()


@pytest.mark.parametrize("seed", [2**32, 2**64, -1])
def test_a_seed_that_is_none(seed: int) -> None:
    done = run("train", f"--seed={seed}")
    assert done.returncode == 2
    assert "--seed" in done.stderr
    assert "Traceback" not in done.stderr
