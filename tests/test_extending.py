"""docs/extending.md: each of its diffs, applied to a copy of the package, does what it says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import ROOT

DIFFS = re.findall(r"```diff\n(.*?)```", (ROOT / "docs" / "extending.md").read_text(), re.DOTALL)
METAPARAMETER = """
import pandas as pd
import torch
import sqzexplore as sqz
from sqzexplore.spec.load import parse_spec

plain, wide = sqz.preset("squeezenet1_1"), sqz.preset("squeezenet1_1", squeeze_least=24)
assert plain.arch_id == "66b1cfbcb337" != wide.arch_id
assert wide.fire_stages()[0].squeeze == 24
net = sqz.build(wide)
assert sqz.cost(wide).params == sum(p.numel() for p in net.parameters()) > sqz.cost(plain).params
net(torch.randn(2, 3, 64, 64)).logsumexp(1).mean().backward()
assert all(p.grad is not None for p in net.parameters())
rows = sqz.cost_table(pd.DataFrame({"squeeze_least": [1, 24]}))
each = [sqz.cost(sqz.Architecture(squeeze_least=n)).params for n in (1, 24)]
assert rows["params"].tolist() == each
assert parse_spec("{name: a, space: {squeeze_least: [1, 24]}}").design_space.count() == 2
assert (sqz.load_results(RESULTS)["squeeze_least"] == 1).all()
"""
MEASUREMENT = """
from pathlib import Path
import torch
import sqzexplore as sqz
from helpers.sweeps import Quiet
from sqzexplore.figures.tradeoff import tradeoff_figures
from sqzexplore.spec.load import parse_spec
from sqzexplore.sweep.run import run_sweep

spec = parse_spec('''
name: a
space: {fires: [4, 8]}
base: {width_multiplier: 0.1, pool_after: [1]}
constraints: ["build_ms < 60000"]
search: {sampler: random, trials: 2, objectives: {build_ms: minimize}}
measure: {loading: {repetitions: 2}}
figures: [{x: params, y: build_ms}]
''')
run_sweep(spec, Path(OUT), torch.device("cpu"), Quiet())
rows = sqz.load_results(OUT)
assert rows["build_ms"].gt(0).all() and len(rows) == 2 and rows["feasible"].all()
assert [*tradeoff_figures(spec, rows)] == ["build_ms-params"]
"""
FIGURE = """
from pathlib import Path
from sqzexplore.figures.analyses import analysis_figures
from sqzexplore.figures.writer import write_figures
from sqzexplore.results.folder import ResultFolder

folder, out = ResultFolder(RESULTS), Path(OUT)
tables = [folder.table(name) for name in ("trials", "seeds", "images")]
write_figures(analysis_figures(folder.spec(), *tables), out)
assert (out / "figures" / "spread.png").stat().st_size > 1000
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"),
    list(enumerate((METAPARAMETER, MEASUREMENT, FIGURE))),
    ids=["metaparameter", "measurement", "figure"],
)
def test_the_page_extends_the_package(number: int, code: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    patch = tmp_path / "page.diff"
    patch.write_text(DIFFS[number])
    applied = subprocess.run(
        ["git", "apply", str(patch)],
        cwd=tmp_path,
        env=os.environ | {"GIT_CEILING_DIRECTORIES": str(tmp_path.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert applied.returncode == 0, applied.stderr
    names = f"RESULTS, OUT = {str(ROOT / 'results' / 'sr')!r}, {str(tmp_path / 'out')!r}\n"
    path = os.pathsep.join([str(tmp_path / "src"), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", names + code],
        env=os.environ | {"PYTHONPATH": path, "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_there_are_as_many_diffs_as_tests() -> None:
    assert len(DIFFS) == 3
