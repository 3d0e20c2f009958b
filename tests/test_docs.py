"""What the pages show is run: every Python block, every command, every sweep file.

The examples of a page run in order, in one Python namespace and one folder, which holds copies of
the checkout's results and sweeps. A `text` block right below a Python block is what that prints.
A block that a test cannot run stands after an HTML comment that says why,
`<!-- skip: next "reason" -->`.
"""

from __future__ import annotations

import copy
import csv
import html
import io
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, get_args
from unittest import SkipTest

import matplotlib as mpl
import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest
import torch
import typer
from markdown_it import MarkdownIt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from nbclient import NotebookClient
from pydantic import BaseModel
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser
from typer.testing import CliRunner

import sqzexplore
from helpers import ROOT, command_line
from sqzexplore.cli.app import app
from sqzexplore.network.architecture import FIELDS
from sqzexplore.network.module import Fire
from sqzexplore.network.overrides import FireOverride
from sqzexplore.results.tables import TABLES
from sqzexplore.spec.load import load_spec, parse_spec
from sqzexplore.spec.models import ClaimSpec, FigureSpec, Spec

sys.path.insert(0, str(ROOT / "docs"))
import fire_pictures
import generate

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "results" / "README.md"])
#: Languages of the blocks: run, or shown (`text`: what is printed; the last: see docs/conf.py).
RUN, SHOWN = {"python", "sh", "yaml"}, {"text", "diff", "{generated}"}
VERB = "python -m sqzexplore "


#: A line that sets a variable for those after it.
EXPORT = re.compile(r'export \w+="[^"`]*"')


def run_verb(line: str, environment: dict[str, str] | None) -> None:
    """`python -m sqzexplore ...`: it must end with 0."""
    done = command_line.run(*shlex.split(line, comments=True)[3:], environment=environment)
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


def exported(lines: list[str]) -> dict[str, str]:
    """The environment that a shell has after these lines."""
    command = ["bash", "-euo", "pipefail", "-c", "\n".join([*lines, "env -0"])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(entry.split("=", 1) for entry in done.stdout.split("\0") if entry)


def run_shell(example: Example) -> None:
    """A block of commands, each of which must end with 0."""
    lines = [line for line in example.parsed.splitlines() if line]
    exports = list(itertools.takewhile(EXPORT.fullmatch, lines))
    verbs = lines[len(exports) :]
    if all(line.startswith(VERB) and not re.search(r"[|>&$\\]", line) for line in verbs):
        environment = exported(exports) if exports else None
        for line in verbs:
            run_verb(line, environment)
        return
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", example.parsed],
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{example.parsed}\n{done.stdout}{done.stderr}"


def write_spec(example: Example) -> None:
    """A sweep file: checked, and written to where the commands of the page look for it."""
    name = re.search(r"^name: (\S+)$", example.parsed, re.MULTILINE)
    assert name
    file = Path("sweeps") / f"{name[1]}.yaml"
    file.write_text(example.parsed)
    assert load_spec(file).name == name[1]


def shown(example: Example) -> None:
    """Output, which `run_page` compares."""


SYBIL = Sybil(
    [
        SkipParser(),
        PythonCodeBlockParser(),
        CodeBlockParser("sh", run_shell),
        CodeBlockParser("yaml", write_spec),
        CodeBlockParser("text", shown),
    ]
)


def run_page(page: Path) -> None:
    """All examples in order; what stands right below a Python block must be what that printed."""
    printed, end = "", None
    for example in SYBIL.parse(page):
        is_output = example.region.evaluator is shown
        if is_output and end and not example.document.text[end : example.start].strip("`\n"):
            text = example.parsed.rstrip("\n")
            assert text == printed, f"{page}:{example.line}: the block above prints\n{printed}"
        end = None
        try:
            with redirect_stdout(io.StringIO()) as output:
                example.evaluate()
        except SkipTest as skipped:
            print(f"{page}:{example.line}: not run: {skipped}")
            continue
        if example.region.lexemes.get("arguments") == "python":
            lines = [line.rstrip() for line in output.getvalue().splitlines()]
            printed, end = "\n".join(lines), example.end


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with copies of the results and the sweeps, to work in."""
    for name in ("results", "sweeps"):
        shutil.copytree(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    mpl.use("agg")
    with mpl.rc_context():
        yield tmp_path
        plt.close("all")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def has_examples(page: Path) -> bool:
    return any(token.info in RUN for token in MarkdownIt().parse(page.read_text()))


#: As few, short trainings and measurements as a page takes: what it shows, and what runs instead.
SHORTER = {
    "README.md": {
        " --top 10": " --top 10 --sample 20000",  # docs/census.md takes the whole of it
        " --processes 3": " --processes 1 --seconds 0.1",
        "--batch 1 --layers ": "--batch 1 --layers --seconds 0.1",
        "--data fashion --epochs 2": "--data fashion --epochs 1 --image-size 24",
    },
    "docs/tutorial.md": {"epochs: 4, seeds: 3": "image_size: 16, epochs: 2, seeds: 2"},
    "docs/choosing.md": {
        "trials: 40": "trials: 24",
        "data: fashion, epochs: 6": "data: digits, epochs: 1, batch_size: 32",
        "--suggest 5": "--suggest 2",
        "epochs=18": "epochs=1",
        " --seconds 0.5": " --seconds 0.02 --processes 1",
    },
}


@pytest.mark.parametrize("page", [page for page in PAGES if has_examples(page)], ids=name_of)
def test_what_a_page_shows_runs(page: Path, desk: Path) -> None:
    text = page.read_text()
    for long, short in SHORTER.get(name_of(page), {}).items():
        assert text.count(long) == 1, long
        text = text.replace(long, short)
    (desk / page.name).write_text(text)
    run_page(desk / page.name)
    if page.name == "choosing.md":
        for table in ("mine/audit.csv", "mine-next/trials.csv"):
            assert (desk / "results" / table).exists()
        assert {file.suffix for file in (desk / "build" / "mine").iterdir()} >= {".onnx", ".md"}


def test_output_that_is_not_what_the_block_above_prints_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    block = "```python\nprint(1 + 1)\nprint(3)\n```\n"
    page.write_text(f"{block}\n```text\n2\n3\n```\n\nWords.\n\n```text\nno output\n```\n")
    run_page(page)
    page.write_text(f"{block}\n```text\n2\n4\n```\n")
    with pytest.raises(AssertionError, match=r"page\.md:6: the block above prints\s+2\s+3\s"):
        run_page(page)


def _drawn(picture: Callable[[Axes], Axes]) -> list[Line2D]:
    return picture(Figure().subplots()).get_lines()


def test_the_picture_of_squeezing_shows_the_weights_of_convolutions() -> None:
    net = sqzexplore.build(sqzexplore.preset("squeezenet1_0"))
    fires = [module for module in net.features if isinstance(module, Fire)]
    plain, ours = (line.get_ydata() for line in _drawn(fire_pictures.squeeze))
    for fire, more, fewer in zip(fires, plain, ours, strict=True):
        branches = (fire.expand1x1, fire.expand3x3)
        over = fire.squeeze.in_channels
        wide = [torch.nn.Conv2d(over, b.out_channels, b.kernel_size) for b in branches]
        assert more == sum(convolution.weight.numel() for convolution in wide)
        assert fewer == sum(c.weight.numel() for c in (fire.squeeze, *branches))


def _output_sizes(architecture: sqzexplore.Architecture) -> list[int]:
    """Elements that conv1, the Fires and conv10 put out for one image of 224x224."""
    net, sizes = sqzexplore.build(architecture).eval(), []
    inner = [module for module in net.features if isinstance(module, Fire | torch.nn.Conv2d)]
    for module in [*inner, net.classifier[1]]:
        module.register_forward_hook(lambda _module, _given, output: sizes.append(output.numel()))
    with torch.inference_mode():
        net(torch.zeros(1, 3, 224, 224))
    return sizes


def test_the_picture_of_pooling_shows_the_sizes_of_outputs() -> None:
    lines = _drawn(fire_pictures.pooling)
    for line, pools in zip(lines, [(1, 2, 3), (1, 4, 8), (6, 8, 9)], strict=True):
        sizes = _output_sizes(sqzexplore.Architecture(pool_after=pools))
        assert [round(1e6 * size) for size in line.get_ydata()] == sizes, pools


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_is_of_a_language_that_is_run_or_known_to_be_shown(page: Path) -> None:
    for token in MarkdownIt().parse(page.read_text()):
        assert token.type != "code_block", f"{page}:{token.map}: indented, nothing runs it"
        if token.type == "fence":
            assert token.info.split(" ")[0] in RUN | SHOWN, f"{page}:{token.map}: {token.info!r}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_is_not_run_says_why(page: Path) -> None:
    for marker in re.findall(r"<!--.*?-->", page.read_text(), re.DOTALL):
        made = re.fullmatch(r"<!-- (table: .+|end) -->", marker)  # by results/pages.py
        skipped = re.fullmatch(r'<!-- skip: next "[^"\n]{10,}" -->', marker)
        assert made or skipped, f"{page}: {marker}"


def numbers(outputs: list[Any]) -> list[float]:
    """Every number in the text that the cells of a notebook print."""
    texts = [str(output.get("data", {}).get("text/plain", "")) for output in outputs]
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", "\n".join(texts))]


def test_the_notebook_runs_and_says_what_is_committed() -> None:
    """In a fresh kernel: no error, and the same numbers, which are those of the tables."""
    notebook = nbformat.read(ROOT / "results" / "analysis.ipynb", as_version=4)
    committed = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    there = {"metadata": {"path": str(ROOT / "results")}}
    ran = NotebookClient(copy.deepcopy(notebook), timeout=120, resources=there).execute()
    outputs = [output for cell in ran.cells for output in cell.get("outputs", ())]
    assert not [o for o in committed + outputs if o.output_type in ("error", "stream")]
    assert sum("image/png" in output.get("data", {}) for output in committed) == 1
    assert numbers(committed) == pytest.approx(numbers(outputs), abs=1e-3)
    for folder in ("sr", "fraction_3x3", "cifar10-sr", "cifar10-fraction_3x3"):
        with (ROOT / "results" / folder / "trials.csv").open() as file:
            for row in csv.DictReader(file):
                assert round(float(row["top1"]), 3) in numbers(committed), folder


def test_the_pages_say_what_the_tables_say() -> None:
    """The tables of the pages, claims.csv and curves.csv, computed again."""
    done = command_line.run("--check", program=ROOT / "results" / "pages.py")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    """As `make docs` builds it; every reference table has a row for each thing there is."""
    site = tmp_path / "site"
    command = ["-W", "--keep-going", "-q", "-c", "docs", "-d", str(tmp_path / "doctrees"), "."]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *command, str(site)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    page = {name: (site / f"docs/reference/{name}.html").read_text() for name in generate.PAGES}
    for columns in TABLES.values():
        for name, column in columns.items():
            assert f">{name}<" in page["tables"], name
            assert html.escape(column.meaning, quote=False) in page["tables"], name
    for verb in typer.main.get_command(app).commands:
        assert f'id="python-m-sqzexplore-{verb}"' in page["cli"], verb
    for public in (sqzexplore, sqzexplore.analysis):
        for name in generate.public(public):
            assert f'id="{public.__name__}.{name}"' in page["python"], name
    for sweep in (ROOT / "results").glob("*/trials.csv"):
        assert (site / "results" / sweep.parent.name / "report.html").exists()


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The keys of a sweep file, from the models' own annotations."""
    for name, field in model.model_fields.items():
        yield prefix + name
        for inner in [field.annotation, *get_args(field.annotation)]:
            for one in [inner, *get_args(inner)]:
                if isinstance(one, type) and issubclass(one, BaseModel):
                    listed = one in (ClaimSpec, FigureSpec)
                    yield from _keys(one, f"{prefix}{name}{'[]' if listed else ''}.")


def test_the_reference_has_every_key_with_what_it_means() -> None:
    rows = [line[2:-2].split(" | ") for line in generate.spec().splitlines() if line[:3] == "| `"]
    by_key = {row[0].strip("`"): row for row in rows if len(row) == 5}
    keys = {*_keys(Spec), *FIELDS, *(f"fireN.{name}" for name in FireOverride.model_fields)}
    assert keys <= by_key.keys()
    assert [key for key in keys if not by_key[key][1]] == []
    bounds = "at least 1, at most 10,000; each at least 1, at most 10,000"
    assert by_key["search.seed"][3] == "integer"
    assert by_key["measure.accuracy.epochs"][2:] == ["`20`", "integer or list of integer", bounds]
    assert by_key["dropout"][2:] == ["`0.5`", "number", "at least 0, below 1"]
    assert by_key["name"][2:4] == ["required", "text"]


def test_help_shows_the_defaults_that_it_describes() -> None:
    """rich takes brackets for markup where typer lets it."""
    printed = CliRunner().invoke(app, ["report", "--help"], env={"COLUMNS": "200"}).stdout
    assert "[default: DIR/report.html]" in printed


def test_the_specs_of_spaces_have_as_many_architectures_as_they_should() -> None:
    page = SYBIL.parse(ROOT / "docs" / "spaces.md")
    specs = [parse_spec(e.parsed) for e in page if e.region.evaluator is write_spec]
    assert [spec.design_space.count() for spec in specs] == [9, 7, 3, 12]
    assert load_spec(ROOT / "sweeps" / "beyond.yaml").design_space.count() > 10


def test_the_readme_shows_what_the_committed_table_says() -> None:
    text = (ROOT / "README.md").read_text()
    shown = re.search(r"\| squeeze ratio .*?\n\n", text, re.DOTALL)
    assert shown
    for row in sqzexplore.load_results(ROOT / "results" / "sr").to_dict("records"):
        cells = (
            f"{row['squeeze_ratio']:g}",
            f"{row['params']:,}",
            f"{61_100_840 / row['params']:.1f}x smaller",
            f"{row['macs'] / 1e6:,.0f}M",
            f"{row['train_size_mb']:.3f}",
            f"{row['top1']:.2f}",
            f"{row['top1_ci_low']:.2f} to {row['top1_ci_high']:.2f}",
        )
        assert f"| {' | '.join(cells)} |" in shown[0]
    speed = pd.read_csv(ROOT / "results" / "throughput-gpu" / "benchmark-printed.csv")
    best = speed.query(
        "network == 'squeezenet1_0' and batch == 1 and definition == 'ours, inference' "
        "and mode == 'cuda_graph'"
    ).iloc[0]
    assert f"{best['images_per_s']:,.0f} images/s at batch 1 in float16" in text
    assert f"{best['vs_same_mode']:.2f} times torchvision's" in text.replace("\n", " ")
