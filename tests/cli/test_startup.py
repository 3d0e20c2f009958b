"""What a verb imports: whoever asks for help does not wait for torch."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from helpers import ROOT

#: Imported only by what trains, measures, draws or searches.
HEAVY = {"torch", "matplotlib", "sklearn", "scipy.stats"}
CODE = """
import json, sys
sys.argv[0] = "sqzexplore"
from sqzexplore.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
finally:
    print(json.dumps([name for name in MODULES if name in sys.modules]), file=sys.stderr)
"""


def imported(*arguments: str, among: set[str]) -> set[str]:
    code = CODE.replace("MODULES", repr(sorted(among)))
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    "arguments",
    [
        ["validate", "sweeps/sr.yaml"],
        ["describe", "squeezenet1_1", "--json"],
        ["status", "results/sr"],
        ["results", "results/sr"],
        ["census", "sweeps/sr.yaml"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_only_reads_and_counts_is_light(arguments: list[str]) -> None:
    assert imported(*arguments, among=HEAVY) == set()


def test_help_imports_nothing_heavy() -> None:
    assert imported("--help", among=HEAVY | {"pandas", "optuna", "scipy", "pyarrow"}) == set()


def test_what_trains_imports_torch() -> None:
    """So that the others' silence means something."""
    options = ("--seconds", "0.01", "--batch", "1", "--processes", "1")
    assert imported("bench", *options, among={"torch"}) == {"torch"}


def test_a_worker_imports_no_verbs() -> None:
    """A spawned process imports what its function's module imports."""
    code = (
        "import sys, sqzexplore.executors.processes; print([m for m in sys.modules if '.cli' in m])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "sqzexplore.cli" not in done.stdout
