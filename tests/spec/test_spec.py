"""Bad specs end in one message and exit code 2; good ones give the space they say."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from helpers import ROOT
from sqzexplore.cli.app import app
from sqzexplore.errors import UserError
from sqzexplore.spec.load import load_spec, parse_spec

GOOD = """\
name: good
question: Which?
base: squeezenet1_0
space:
  squeeze_ratio: [0.125, 0.5, 1.0]
  bypass: [none, simple]
constraints: ["params < 8e6"]
search: {sampler: grid}
measure:
  throughput: {batch: [1, 2], dtype: [float32]}
  accuracy: {data: digits, epochs: 1, seeds: 2, proxy: {width_multiplier: 0.25}}
"""

AXIS = "squeeze_ratio: [0.125, 0.5, 1.0]"

#: What is replaced in GOOD, by what, and what the message must say (where, found, expected).
BAD = {
    "unknown top-level key": ("search:", "serch:", ["serch", "unknown key", "did you mean"]),
    "unknown field": (
        AXIS,
        "squeze_ratio: [0.5]",
        ["space.squeze_ratio", "did you mean 'squeeze_ratio'?"],
    ),
    "unknown measure key": ("epochs: 1", "epoch: 1", ["measure.accuracy.epoch", "'epochs'"]),
    "unknown base field": (
        "base: squeezenet1_0",
        "base: {firs: 8}",
        ["base.firs", "did you mean 'fires'?"],
    ),
    "unknown preset": ("squeezenet1_0", "squeezenet1_2", ["base", "squeezenet1_1"]),
    "wrong type of base": ("base: squeezenet1_0", "base: 3", ["base", "found 3", "preset"]),
    "text for a number": ("seeds: 2", "seeds: two", ["accuracy.seeds", "'two'", "an integer"]),
    "float for an integer": ("seeds: 2", "seeds: 2.5", ["accuracy.seeds", "an integer"]),
    "bool for an integer": ("seeds: 2", "seeds: true", ["accuracy.seeds", "True"]),
    "a number in quotes": (
        "0.125, 0.5",
        "'1e-1', 0.5",
        ["space.squeeze_ratio[0]", "1e-1", "without"],
    ),
    "ratio 0": ("0.125, 0.5", "0, 0.5", ["space.squeeze_ratio[0]", "found 0", "> 0"]),
    "ratio 1.5": ("0.5, 1.0", "1.5", ["space.squeeze_ratio[1]", "found 1.5", "<= 1"]),
    "NaN": ("0.125, 0.5", ".nan, 0.5", ["space.squeeze_ratio[0]", "nan", "finite"]),
    "infinity": ("0.125, 0.5", ".inf, 0.5", ["space.squeeze_ratio[0]", "inf"]),
    "null": ("0.125, 0.5", "null, 0.5", ["space.squeeze_ratio[0]", "None", "a number"]),
    "a key that YAML reads as a boolean": (
        "search:",
        "true: 1\nsearch:",
        ["key", "'true'", "text"],
    ),
    "a number as a key": (AXIS, "1.5: [0.5]", ["space", "'1.5'", "as a key, expected text"]),
    "a tag that is no such value": ("Which?", "!!bool maybe", ["no valid YAML"]),
    "a tag that is no date": ("Which?", "!!timestamp x", ["no valid YAML"]),
    "a date that is none": ("seeds: 2", "seeds: 2001-13-45", ["seeds", "'2001-13-45'"]),
    "an integer beyond 64 bits": ("Which?", "0x" + "f" * 5000, ["question", "20000 bits"]),
    "a step beyond 64 bits": (
        AXIS,
        f"base_expand: {{min: 16, max: 64, step: 1{'0' * 4000}}}",
        ["space.base_expand.step", "bits"],
    ),
    "a step too fine": (
        AXIS,
        "squeeze_ratio: {min: 0.1, max: 1.0, step: 1.0e-300}",
        ["space.squeeze_ratio", "about 9e+299 values"],
    ),
    "text that cannot be shown": ("Which?", '"a\\ud800b"', ["question", "U+D800"]),
    "a control character": ("Which?", '"a\\e[31mb"', ["question", "U+001B"]),
    "a constraint beyond doubles": ("params < 8e6", f"params < 1{'0' * 400}", ["constraints[0]"]),
    "a constraint nested too deeply": ("params < 8e6", "-" * 490 + "1 < 2", ["constraints[0]"]),
    "empty axis": (AXIS, "squeeze_ratio: []", ["space.squeeze_ratio", "empty list"]),
    "scalar axis": (AXIS, "squeeze_ratio: 0.5", ["space.squeeze_ratio", "a list of values"]),
    "value twice": ("0.125, 0.5", "0.5, 0.5", ["space.squeeze_ratio[1]", "twice"]),
    "architectures that are no mappings": (
        f"  {AXIS}\n  bypass: [none, simple]",
        "  - 0.5",
        ["space", "a list of mappings of fields"],
    ),
    "an unknown field of an architecture": (
        f"  {AXIS}\n  bypass: [none, simple]",
        "  - {squeeze_ratio: 0.5}\n  - {squeeze: 1}",
        ["space[1].squeeze", "unknown key", "squeeze_ratio"],
    ),
    "a value that an architecture cannot have": (
        f"  {AXIS}\n  bypass: [none, simple]",
        "  - {squeeze_ratio: 1.5}",
        ["space[0].squeeze_ratio", "found 1.5", "<= 1"],
    ),
    "an architecture twice": (
        f"  {AXIS}\n  bypass: [none, simple]",
        "  - {bypass: simple}\n  - {bypass: none}\n  - {squeeze_ratio: 0.125}",
        ["space[2]", "the architecture of space[1]"],
    ),
    "an architecture without a feature map": (
        f"  {AXIS}\n  bypass: [none, simple]",
        "  - {bypass: simple}\n  - {pool_after: [1, 2, 3, 4, 5, 6, 7, 8]}",
        ["space[1]", "maxpool7"],
    ),
    "no axis": (f"  {AXIS}\n  bypass: [none, simple]", "  {}", ["space", "no axis"]),
    "unknown bypass": ("[none, simple]", "[none, simpel]", ["space.bypass[1]", "'simple'"]),
    "pool after no layer": (AXIS, "pool_after: [[1, 18]]", ["space.pool_after[0]", "layer 18"]),
    "pool after a layer twice": (AXIS, "pool_after: [[1, 1]]", ["space.pool_after[0]", "twice"]),
    "pools shrink the map to nothing": (
        AXIS,
        "pool_after: [[1, 4, 8], [1, 2, 3, 4, 5, 6, 7, 8]]",
        ["space.pool_after[1]", "maxpool7", "fire7"],
    ),
    "pools shrink the training map to nothing": (
        AXIS,
        "pool_after: [[1, 4, 8], [1, 2, 3, 4]]",
        ["space.pool_after[1]", "32x32", "maxpool4"],
    ),
    "base pools beyond its Fires": (
        "base: squeezenet1_0",
        "base: {fires: 2}",
        ["base", "there is no layer 4"],
    ),
    "range without max": (
        AXIS,
        "squeeze_ratio: {min: 0.1}",
        ["space.squeeze_ratio.max", "missing"],
    ),
    "range upside down": (
        AXIS,
        "squeeze_ratio: {min: 0.9, max: 0.1, step: 0.1}",
        ["min 0.9 above"],
    ),
    "range with a typo": (
        AXIS,
        "squeeze_ratio: {min: 0.1, max: 0.9, stp: 0.1}",
        ["space.squeeze_ratio.stp", "did you mean 'step'?"],
    ),
    "range of step 0": (AXIS, "squeeze_ratio: {min: 0.1, max: 0.9, step: 0}", ["step", "> 0"]),
    "range of text": (AXIS, "squeeze_ratio: {min: low, max: 0.9, step: 0.1}", ["'low'", "number"]),
    "huge range": (
        AXIS,
        "base_expand: {min: 1, max: 1000000}",
        ["1,000,000 values", "at most 100,000"],
    ),
    "log range from 0": (AXIS, "expand_increment: {min: 0, max: 9, log: true}", ["min", "> 0"]),
    "continuous axis in a grid": (AXIS, "squeeze_ratio: {min: 0.1, max: 0.9}", ["continuous"]),
    "range of a text field": (AXIS, "batch_norm: {min: 0, max: 1}", ["batch_norm is no number"]),
    "subsets of a number": (AXIS, "fires: {subsets_of: [1, 2], size: 1}", ["pool_after only"]),
    "subset too large": (AXIS, "pool_after: {subsets_of: [1, 2], size: 3}", ["size", "found 3"]),
    "constraint with an unknown name": (
        "params < 8e6",
        "parms < 8e6",
        ["constraints[0]", "'parms'", "did you mean 'params'?"],
    ),
    "constraint that is code": (
        "params < 8e6",
        "__import__('os').system('touch pwned')",
        ["constraints[0]"],
    ),
    "constraint with an attribute": ("params < 8e6", "params.real < 1", ["constraints[0]"]),
    "constraint that is no condition": ("params < 8e6", "params + 1", ["constraints[0]"]),
    "constraint that is no expression": ("params < 8e6", "params <", ["constraints[0]"]),
    "constraints that exclude all": ("params < 8e6", "params < 8", ["constraints", "all 6"]),
    "a search constrained by the test split": (
        'params < 8e6"]\nsearch: {sampler: grid}',
        'top5 > 90"]\nsearch: {sampler: tpe, trials: 3}',
        ["constraints[0]: found top5 with the sampler tpe", "top1 or val_top1"],
    ),
    "an axis that the proxy decides": (
        "{width_multiplier: 0.25}",
        "{squeeze_ratio: 0.25}",
        ["space.squeeze_ratio", "as measure.accuracy.proxy decides it"],
    ),
    "unknown sampler": ("sampler: grid", "sampler: gird", ["search.sampler", "'gird'"]),
    "trials of a grid": ("sampler: grid", "sampler: grid, trials: 3", ["search.trials"]),
    "search without trials": ("sampler: grid", "sampler: tpe", ["search.trials", "tpe"]),
    "unknown objective": (
        "sampler: grid",
        "sampler: grid, objectives: {top2: maximize}",
        ["search.objectives.top2", "did you mean 'top1'?"],
    ),
    "objective without a direction": (
        "sampler: grid",
        "sampler: grid, objectives: {top1: up}",
        ["search.objectives.top1", "'up'", "'maximize'"],
    ),
    "batch 0": ("batch: [1, 2]", "batch: [0]", ["measure.throughput.batch[0]", "found 0"]),
    "batch of a word": (
        "batch: [1, 2]",
        "batch: aut",
        ["measure.throughput.batch: found 'aut', expected auto, or a list"],
    ),
    "no process": (
        "batch: [1, 2]",
        "batch: [1, 2], processes: 0",
        ["measure.throughput.processes: found 0, expected", "1"],
    ),
    "processes in words": (
        "batch: [1, 2]",
        "batch: [1, 2], processes: five",
        ["measure.throughput.processes: found 'five', expected"],
    ),
    "unknown mode": ("batch: [1, 2]", "mode: [eagr]", ["throughput.mode[0]", "'eagr'", "'eager'"]),
    "input sizes without the spec's": (
        "batch: [1, 2]",
        "input_size: [128]",
        ["measure.throughput.input_size: found [128]", "224"],
    ),
    "unknown dtype": ("[float32]", "[float8]", ["throughput.dtype[0]", "'float8'", "bfloat16"]),
    "unknown data": ("data: digits", "data: digit", ["accuracy.data", "did you mean 'digits'?"]),
    "unknown proxy field": ("width_multiplier", "width", ["measure.accuracy.proxy.width"]),
    "proxy of the data's classes": (
        "width_multiplier: 0.25",
        "num_classes: 5",
        ["proxy.num_classes", "the data set decides"],
    ),
    "unknown figure column": (
        "search:",
        "figures: [{x: parms, y: top1}]\nsearch:",
        ["figures[0].x", "did you mean 'params'?"],
    ),
    "name with a slash": ("name: good", "name: ../evil", ["name", "'../evil'", "letters"]),
    "no name": ("name: good\n", "", ["name", "missing"]),
    "duplicate key": ("question: Which?", "name: again", ["name", "twice"]),
    "duplicate nested key": ("epochs: 1", "epochs: 1, epochs: 2", ["accuracy.epochs", "twice"]),
    "a tab": ("question: Which?", "question:\n\t- a", ["tab"]),
    "unclosed bracket": ("[none, simple]", "[none, simple", ["YAML"]),
    "a tag that would run code": (
        "question: Which?",
        "question: !!python/object/apply:os.system ['touch pwned']",
        ["YAML", "tag"],
    ),
    "alias to itself": ("[none, simple]", "&a [*a]", ["space.bypass[0]"]),
}


def _message(tmp_path: Path, content: bytes, name: str = "bad.yaml") -> str:
    """Run the sweep of a bad spec; check how it ends; return what it says."""
    spec = tmp_path / name
    spec.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_spec(spec)
    message = str(caught.value)
    assert message.startswith(f"{spec}")
    assert len(message) < 800
    assert list(tmp_path.iterdir()) == [spec]
    return message


@pytest.mark.parametrize("kind", BAD)
def test_bad_specs_point_at_the_key(kind: str, tmp_path: Path) -> None:
    old, new, expected = BAD[kind]
    assert old in GOOD
    message = _message(tmp_path, GOOD.replace(old, new, 1).encode())
    for part in expected:
        assert part in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "expected a mapping"),
        (b"- a\n- b\n", "expected a mapping"),
        (b"just text", "expected a mapping"),
        (b"\x00\xff\xfe\x80\x81", "UTF-8"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "UTF-8"),
        (b"a: \x01", "YAML"),
        (b"[" * 5000, "YAML"),
        (b"x: " + b"1" * 2_000_000, "bytes"),
    ],
)
def test_what_is_no_spec_at_all(content: bytes, expected: str, tmp_path: Path) -> None:
    assert expected in _message(tmp_path, content)


def test_alias_bomb_ends_quickly(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    _message(tmp_path, "\n".join(lines).encode())


def test_messages_name_the_line(tmp_path: Path) -> None:
    message = _message(tmp_path, GOOD.replace("0.125, 0.5", "0.125, 7").encode())
    assert message.startswith(f"{tmp_path / 'bad.yaml'}:5: space.squeeze_ratio[1]: found 7")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    (tmp_path / "sr.yaml").write_text(GOOD)
    with pytest.raises(UserError, match=r"no such file; did you mean 'sr.yaml'\?"):
        load_spec(tmp_path / "sq.yaml")
    with pytest.raises(UserError, match="found a folder"):
        load_spec(tmp_path)


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(UserError, match="found no regular file"):
        load_spec(tmp_path / "pipe.yaml")
    with pytest.raises(UserError, match="found no regular file"):
        load_spec("/dev/zero")


@pytest.mark.parametrize("verb", ["sweep", "validate"])
@pytest.mark.parametrize("kind", ["ratio 1.5", "duplicate key", "constraint that is code"])
def test_the_command_line_exits_with_2_and_writes_nothing(
    verb: str, kind: str, tmp_path: Path, sqz
) -> None:
    old, new, expected = BAD[kind]
    spec = tmp_path / "bad.yaml"
    spec.write_text(GOOD.replace(old, new, 1))
    done = sqz(verb, spec, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1
    assert expected[0] in done.stderr
    assert list(tmp_path.iterdir()) == [spec]


def test_axes() -> None:
    spec = parse_spec(
        """
name: axes
space:
  squeeze_ratio: {min: 0.1, max: 0.7, step: 0.2}
  base_expand: {min: 32, max: 64, step: 16}
  stem_width: {min: 3, max: 6, log: true}
  pool_after: {subsets_of: [1, 2, 3, 4], size: [2, 3]}
"""
    )
    values = {axis.field: axis.values for axis in spec.design_space.axes}
    assert values == {
        "squeeze_ratio": (0.1, 0.3, 0.5, 0.7),
        "base_expand": (32, 48, 64),
        "stem_width": (3, 4, 5, 6),
        "pool_after": (
            *((1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)),
            *((1, 2, 3), (1, 2, 4), (1, 3, 4), (2, 3, 4)),
        ),
    }
    assert spec.design_space.size == math.prod(map(len, values.values())) == 480


def test_infeasible_combinations_are_counted_out() -> None:
    """A pool after fire6 needs five Fires; the grid's other combinations stay."""
    spec = parse_spec(
        "name: x\nbase: {pool_after: [1]}\nspace:\n  fires: [3, 6]\n  pool_after: [[1], [6]]\n"
    )
    space = spec.design_space
    assert space.size == 4
    chosen = [space.architecture(i) for i in space.indices()]
    assert [(a.fires, a.pool_after) for a in chosen] == [(3, (1,)), (6, (1,)), (6, (6,))]
    assert space.count() == 3


def test_validate_tells_the_number_and_the_work(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(GOOD)
    done = CliRunner().invoke(app, ["validate", str(tmp_path / "good.yaml")])
    assert done.exit_code == 0
    assert "6, of which 6 are feasible" in done.output
    assert "12, of 1 epochs each" in done.output


@pytest.mark.parametrize("file", sorted((ROOT / "sweeps").rglob("*.yaml")), ids=lambda f: f.stem)
def test_the_committed_specs_are_valid_and_name_no_path(file: Path) -> None:
    """Without the data at hand; where it lies is the user's to say."""
    spec = load_spec(file)
    if spec.measure.accuracy:
        assert spec.measure.accuracy.data in ("digits", "fashion", "${CIFAR10}")
