"""Images of the size that a spec says, where a verb is not told another."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from sqzexplore.cli.app import app

SPEC = """\
name: small
base: {width_multiplier: 0.1, num_classes: 10, fires: 3, pool_after: [1, 3]}
input_size: 40
space: {squeeze_ratio: [0.5]}
"""


def test_bench_and_probe_take_the_specs_size(tmp_path: Path, small_reference: None) -> None:
    spec = tmp_path / "small.yaml"
    spec.write_text(SPEC)
    quick = ["--batch", "1", "--seconds", "0.02", "--processes", "1", "--json"]
    for more, size in (([], 40), (["--input-size", "48"], 48)):
        done = CliRunner().invoke(app, ["bench", str(spec), *quick, *more])
        assert done.exit_code == 0, done.output
        assert [row["input_size"] for row in json.loads(done.stdout)] == [size]
        to = tmp_path / f"probe{size}"
        done = CliRunner().invoke(
            app, ["probe", str(spec), "--to", str(to), "--dtype", "float32", *more]
        )
        assert done.exit_code == 0, done.output
        shapes = {
            tuple(model["shape"])
            for model in json.loads((to / "models.json").read_text())["models"]
        }
        assert shapes == {(1, 3, size, size)}
