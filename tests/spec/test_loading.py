"""What a spec may be written as: YAML 1.2's numbers, other specs to go on from, `--set`."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from helpers import ROOT
from sqzexplore.cli.app import app
from sqzexplore.errors import UserError
from sqzexplore.spec import yaml_text
from sqzexplore.spec.load import load_spec, parse_spec
from sqzexplore.spec.schema import json_schema

SPEC = "name: a\nspace: {squeeze_ratio: [0.25, 0.5]}\nsearch: {sampler: random, trials: 3}\n"


def invoke(*arguments: object):
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("+3", 3),
        (".5", 0.5),
        ("1:2", "1:2"),
        ("1_000", "1_000"),
        ("yes", "yes"),
        ("on", "on"),
        ("2024-01-02", "2024-01-02"),
        ("True", True),
        ("~", None),
        ("", None),
        ("0b1", "0b1"),
        ("'8'", "8"),
    ],
)
def test_scalars_of_yaml_1_2(text: str, value: object) -> None:
    """yaml.org/spec/1.2.2, section 10.3.2; in a file, and in `--set`."""
    found = yaml_text.load(f"a: {text}")["a"]
    assert (type(found), found) == (type(value), value)


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**62), 2**62))
def test_every_number_that_python_and_json_write_is_read(number: float) -> None:
    for text in (repr(number), json.dumps(number)):
        found = yaml_text.load(f"a: {text}")["a"]
        assert (type(found), found) == (type(number), number)


SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["C"]))
    | st.sampled_from(["1e5", "08", "1e-1", "yes", "1:2", "2024-01-02", "~", "<<", ".inf", "0o7"])
)  # fmt: skip


@given(
    st.dictionaries(
        st.text(st.characters(categories=["L"]), min_size=1) | st.sampled_from(["1e5", "08"]),
        st.recursive(SCALARS, st.lists, max_leaves=5),
    )
)
def test_what_is_written_is_read_as_it_was(value: dict) -> None:
    for options in ({}, {"allow_unicode": True}, {"width": 100}):
        assert yaml_text.load(yaml_text.dump(value, **options)) == value
    assert yaml_text.load(f"{{{yaml_text.flow(value)}}}") == value


def test_a_number_in_quotes_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("name: a\nspace: {fires: ['8']}\n")
    with pytest.raises(UserError, match=r"a.yaml:2: space.fires\[0\]: found '8'.*without them"):
        load_spec(file)


def test_a_spec_goes_on_from_another(tmp_path: Path) -> None:
    (tmp_path / "below.yaml").write_text(SPEC)
    (tmp_path / "mine").mkdir()
    file = tmp_path / "mine" / "b.yaml"
    file.write_text("extends: ../below.yaml\nname: b\nsearch: {trials: 5}\n")
    spec = load_spec(file)
    assert (spec.name, spec.search.trials, spec.search.sampler) == ("b", 5, "random")
    assert spec.space == {"squeeze_ratio": [0.25, 0.5]}
    again = parse_spec(spec.source)  # what the result folder keeps stands by itself
    assert again.recipe() == spec.recipe()
    assert spec.source.startswith("# b.yaml\n")


def test_what_cannot_be_gone_on_from(tmp_path: Path) -> None:
    file = tmp_path / "b.yaml"
    file.write_text("extends: none.yaml\nname: b\n")
    with pytest.raises(UserError, match=r"none.yaml: no such file"):
        load_spec(file)
    file.write_text("extends: b.yaml\nname: b\n")
    with pytest.raises(UserError, match=r"b.yaml:1: extends: found 10 specs in a row"):
        load_spec(file)
    file.write_text("extends: 3\nname: b\n")
    with pytest.raises(UserError, match=r"b.yaml:1: extends: found 3, expected the path"):
        load_spec(file)
    below = tmp_path / "below.yaml"
    file.write_text("extends: below.yaml\nname: b\n")
    for text, expected in (
        ("name: a\nname: c\n", "below.yaml:2: name: found the key twice"),
        (
            "name: x\nspace: {bypass: [none]}\nsearch: {samplr: grid}\n",
            r"below.yaml:3: search.samplr: ",
        ),
        ("# as it is\n\nextends: [a]\n", r"below.yaml:3: extends: found \['a'\]"),
        ("- a\n", r"below.yaml: found \['a'\], expected a mapping"),
    ):
        below.write_text(text)
        with pytest.raises(UserError, match=expected):
            load_spec(file)


def test_keys_of_ones_own_hold_anchors() -> None:
    spec = parse_spec("x-ratios: &r [0.25, 0.5]\nname: a\nspace: {squeeze_ratio: *r}\n")
    assert [axis.values for axis in spec.design_space.axes] == [(0.25, 0.5)]
    with pytest.raises(UserError, match="unknown key"):
        parse_spec("name: a\nspace: {fires: [8]}\nsearch: {x-mine: 3}\n")


def test_a_sweep_with_other_keys_keeps_them(tmp_path: Path) -> None:
    file, folder = tmp_path / "a.yaml", tmp_path / "out"
    file.write_text(SPEC)
    options = ("--set", "search.trials=2", "--set", "space.squeeze_ratio=[0.5, 1e-1]")
    done = invoke("sweep", file, "--out", folder, "--quiet", *options)
    assert done.exit_code == 0, done.output
    kept = load_spec(folder / "spec.yaml")
    assert (kept.search.trials, kept.space["squeeze_ratio"]) == (2, [0.5, 0.1])
    again = invoke("sweep", file, "--out", folder, "--quiet", *options)
    assert again.exit_code == 0
    assert "3 -> 2" not in again.output
    other = invoke("sweep", file, "--out", folder, "--quiet")
    assert isinstance(other.exception, UserError)
    assert "search.trials: 2 -> 3" in str(other.exception)


def test_a_change_keeps_what_it_does_not_speak_of(tmp_path: Path) -> None:
    """Text that looks like a number stays text, whatever it takes to write so."""
    file = tmp_path / "a.yaml"
    file.write_text(SPEC.replace("name: a", "name: '1e5'\nquestion: '08'\nmeasure:"))
    changes = ('constraints=\n- "params < 8e6"', "measure.accuracy=\n  {data: digits}")
    spec = parse_spec(load_spec(file, changes).source)
    assert (spec.name, spec.question) == ("1e5", "08")
    assert spec.constraints == ["params < 8e6"]
    assert spec.measure.accuracy.data == "digits"


def test_a_change_reaches_every_key(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(SPEC.replace("[0.25, 0.5]", "{min: 0.25, max: 1.0}"))
    fires = "fire5.squeeze_ratio=0.5"
    changes = ("space.squeeze_ratio.max=0.5", f"measure.accuracy.proxy.{fires}", f"base.{fires}")
    spec = load_spec(file, changes)
    assert spec.space["squeeze_ratio"] == {"min": 0.25, "max": 0.5}
    assert spec.measure.accuracy.proxy == spec.base == {"fire5.squeeze_ratio": 0.5}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("search.trials=0", "--set search.trials=0: search.trials: found 0"),
        ("search.trails=5", "--set search.trails=5: search.trails: unknown key"),
        ("trials", "--set: found 'trials', expected KEY=VALUE"),
        ("search..trials=5", "--set: found 'search..trials=5', expected KEY=VALUE"),
        ("space.fires=[8", "--set space.fires: found '[8', expected a value"),
        ("space.fire5.bypass=[none, some]", "space.fire5.bypass"),
        (
            "base.dropout=0",
            "--set base.dropout: found 'squeezenet1_1' at base, expected a mapping; set base as a",
        ),
        (
            "constraints.params=1",
            "--set constraints.params: found ['params < 8e6'] at constraints, expected a mapping",
        ),
    ],
)
def test_a_change_that_is_none(change: str, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(SPEC + "base: squeezenet1_1\nconstraints: ['params < 8e6']\n")
    done = invoke("validate", file, "--set", change)
    assert isinstance(done.exception, UserError)
    assert expected in str(done.exception)


def test_the_schema_takes_every_sweep_and_refuses_what_validate_refuses() -> None:
    done = invoke("schema")
    schema = json.loads(done.output)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    files = sorted((ROOT / "sweeps").rglob("*.yaml"))
    assert len(files) > 10
    for file in files:
        assert list(validator.iter_errors(yaml_text.load(file.read_text()))) == [], file
    good = yaml_text.load(SPEC)
    timed = good | {"search": good["search"] | {"timeout": "2h", "trial_timeout": 90}}
    assert validator.is_valid(timed)
    assert parse_spec(json.dumps(timed)).search.timeout == 7200
    for bad in (
        {"trials": 3},
        {"space": {"squeeze": [1]}},
        {"space": {}},
        {"space": {"squeeze_ratio": 0.5}},
        {"search": {"sampler": "best"}},
        {"measure": {"accuracy": {"seeds": 0}}},
        {"base": "resnet"},
        {"base": {"squeze_ratio": 0.5}},
    ):
        assert not validator.is_valid(good | bad), bad
        with pytest.raises(UserError):
            parse_spec(json.dumps(good | bad))
    assert json_schema()["properties"]["space"]["anyOf"][0]["properties"]["fires"]["description"]
