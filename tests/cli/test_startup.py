"""What a verb imports: whoever asks for help does not wait for torch."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec

from helpers import ROOT

#: Imported only by what trains, measures, draws or searches.
HEAVY = {"torch", "matplotlib", "sklearn", "scipy.stats"}
CODE = """
import json, sys
sys.argv[0] = "sqzexplore"
from sqzexplore.cli import main
for words in RUNS:
    sys.argv[1:] = words
    try:
        main()
    except SystemExit as end:
        assert not end.code, (words, end.code)
    found = [name for name in MODULES if name in sys.modules]
    print("imported", json.dumps(found), file=sys.stderr)
"""
LIGHT = [
    ["validate", "sweeps/sr.yaml"],
    ["describe", "squeezenet1_1", "--json"],
    ["status", "results/sr"],
    ["results", "results/sr"],
    ["census", "sweeps/sr.yaml"],
]


def test_what_only_reads_and_counts_is_light_and_help_is_lighter() -> None:
    """One after the other in one interpreter."""
    runs = [["--help"], *LIGHT]
    among = sorted(HEAVY | {"pandas", "optuna", "scipy", "pyarrow"})
    assert all(find_spec(name) for name in among)
    code = CODE.replace("RUNS", repr(runs)).replace("MODULES", repr(among))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("imported ")]
    imported = [set(json.loads(line.removeprefix("imported "))) for line in lines]
    assert len(imported) == len(runs)
    assert imported[0] == set()
    for words, found in zip(LIGHT, imported[1:], strict=True):
        assert not found & HEAVY, words
    assert "pandas" in imported[-1], "what is imported is seen"


def test_a_worker_imports_no_verbs() -> None:
    """A spawned process imports what its function's module imports."""
    code = (
        "import sys, sqzexplore.executors.processes; print([m for m in sys.modules if '.cli' in m])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "sqzexplore.cli" not in done.stdout
