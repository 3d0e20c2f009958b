"""The report: what it says against the tables, and how it behaves in a real browser."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

import sqzexplore as sqz
from helpers import ROOT
from helpers.sweeps import Quiet
from sqzexplore.cli.app import app
from sqzexplore.errors import UserError
from sqzexplore.network.frames import architecture_name
from sqzexplore.report.content import gather
from sqzexplore.report.findings import answer
from sqzexplore.report.page import write_report
from sqzexplore.spec.load import load_spec, parse_spec
from sqzexplore.sweep.run import run_sweep

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
#: No seeds, images, or throughput.
_NO_TABLES = (pd.DataFrame(), None, pd.DataFrame())
#: Where the scatter has drawn the point of a row, in pixels of the window.
PLACE = """(row) => {
    const drawn = (view) => view.model.renderers?.some((r) => r.data_source.data.row);
    const view = [...Bokeh.index].find(drawn);
    const source = view.model.renderers.map((r) => r.data_source).find((s) => s.data.row);
    const at = [...source.data.row].indexOf(row);
    const box = view.el.getBoundingClientRect();
    return [
        box.left + view.frame.x_scale.compute(source.data.x[at]),
        box.top + view.frame.y_scale.compute(source.data.y[at]),
    ];
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("needs a browser: Debian's chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def sr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(ROOT / "results" / "sr", tmp_path_factory.mktemp("report") / "a page.html")


@pytest.fixture
def page(browser: Any, sr: Path) -> Iterator[Any]:
    opened = browser.new_page(viewport={"width": 1280, "height": 1000})
    said: list[str] = []
    opened.on("console", lambda m: said.append(m.text) if m.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda r: said.append(r.url) if r.url.startswith("http") else None)
    opened.goto(sr.as_uri())
    opened.wait_for_selector("#plot .bk-Figure")
    opened.wait_for_timeout(300)
    yield opened
    assert said == []
    opened.close()


def in_window(page: Any, row: int) -> tuple[float, float]:
    page.locator("#plot").scroll_into_view_if_needed()
    x, y = page.evaluate(PLACE, row)
    return x, y


def test_hovering_shows_the_architecture_and_clicking_pins_its_layers(page: Any) -> None:
    trials = sqz.load_results(ROOT / "results" / "sr")
    x, y = in_window(page, 2)
    page.mouse.move(x, y)
    page.wait_for_timeout(300)
    tooltip = page.locator(".bk-Tooltip")
    assert tooltip.get_by_text(f"trial 2, squeeze_ratio {trials['squeeze_ratio'][2]}").is_visible()
    assert tooltip.get_by_text(f"{trials['top1'][2]:.2f}").is_visible()

    page.mouse.click(x, y)
    page.wait_for_selector("#pins .pin")
    foot = page.locator("#pins .pin tfoot td").all_inner_texts()
    counted = sqz.cost(sqz.Architecture(squeeze_ratio=0.5))
    assert foot[-3:] == [f"{n:,}" for n in (counted.params, counted.macs, counted.activations)]


def test_a_box_over_the_scatter_filters_the_table(page: Any) -> None:
    assert page.locator("#count").inner_text() == "5 of 5 trials"
    (x, y), (x2, y2) = in_window(page, 3), in_window(page, 4)
    page.mouse.move(min(x, x2) - 25, min(y, y2) - 25)
    page.mouse.down()
    page.mouse.move(max(x, x2) + 15, max(y, y2) + 25, steps=5)
    page.mouse.up()
    page.wait_for_timeout(200)
    assert page.locator("#count").inner_text() == "2 of 5 trials"
    rows = page.locator("#trials tbody tr").all_inner_texts()
    assert ["0.75" in rows[0], "6,279,016" in rows[1]] == [True, True]
    page.get_by_role("button", name="Show all").click()
    assert page.locator("#count").inner_text() == "5 of 5 trials"


def test_the_keyboard_reaches_sorting_filters_and_pins(page: Any) -> None:
    heading = page.get_by_role("button", name=re.compile("^params"))
    heading.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert "6,279,016" in page.locator("#trials tbody tr").first.inner_text()
    page.locator("#trials tbody tr button").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("#pins .pin").count() == 1
    assert page.locator("#trials tbody tr button").first.get_attribute("aria-pressed") == "true"
    page.locator("#x").select_option("params")
    page.locator("#x-high").fill("3e6")
    page.keyboard.press("Tab")
    assert page.locator("#count").inner_text() == "2 of 5 trials"


def test_a_phone_needs_no_sideways_scrolling(page: Any) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_what_it_says_is_in_the_tables(sr: Path) -> None:
    text = re.sub(r"\s+", " ", sr.read_text())
    assert sr.stat().st_size < 5e6
    assert "From squeeze_ratio 0.125 to 1, top1 rises by 4.94 points (95% CI 3.03 to 6.85" in text
    words = ["6,279,016", "proxy", "87.62", "AMD EPYC", "Ranking at 64 epochs against 96"]
    for word in (*words, "squeeze_ratio: [0.125, 0.25"):
        assert word in text


def test_the_smallest_is_that_of_a_size_which_varies(tmp_path: Path) -> None:
    """Where to pool changes no parameter: all six are the smallest by params."""
    rows = sqz.load_results(ROOT / "results" / "cifar10-pooling")
    assert rows["params"].nunique() == 1
    text = write_report(ROOT / "results" / "cifar10-pooling", tmp_path / "r.html").read_text()
    small = rows.loc[rows["macs"].idxmin()]
    best = rows.loc[rows["top1"].astype(float).idxmax()]
    assert f"fewest macs (pool_after {small['pool_after']}) to the best in top1" in text
    assert f"macs go from {small['macs']:,} to {best['macs']:,}" in text
    assert f"rises by {best['top1'] - small['top1']:.2f} points" in text


def test_what_breaks_a_constraint_is_not_the_best() -> None:
    folder = ROOT / "results" / "cifar10-joint"
    spec, trials = load_spec(folder / "spec.yaml"), sqz.load_results(folder)
    best, second = trials["val_top1"].astype(float).nlargest(2).index
    axes = spec.design_space.axis_names
    names = [architecture_name(trials.loc[row], axes) for row in (best, second)]
    said = answer(spec, trials.assign(feasible=trials.index != best), *_NO_TABLES)
    assert f"to the best in top1 ({names[1]})" in said[0]
    assert said[1].startswith("The best of 19 was chosen by")
    assert said[2] == "Of the 20 architectures, 19 meet the constraints."
    (one,) = answer(spec, trials.assign(feasible=trials.index == best), *_NO_TABLES)
    assert one.startswith(f"One trial that meets the constraints has a value of top1: {names[0]}")
    none = answer(spec, trials.assign(feasible=False), *_NO_TABLES)
    assert none == ["No trial that meets the constraints has a value of top1 yet."]


def test_a_speed_beside_the_reference_has_its_interval() -> None:
    folder = ROOT / "results" / "sr"
    trials, throughput = sqz.load_results(folder), sqz.load_results(folder, "throughput")
    spec = parse_spec(
        "name: sr\nspace: {squeeze_ratio: [0.125, 0.25, 0.5, 0.75, 1.0]}\n"
        "measure: {throughput: {batch: [1, 16]}}\n"
        "search: {objectives: {relative_to_reference: maximize}}\n"
    )
    said = answer(spec, trials, pd.DataFrame(), None, throughput)[0]
    for trial in (0, 4):
        row = throughput.query(f"trial == {trial} and batch == {trials['batch'][0]}").iloc[0]
        low, value, high = (row[f"relative_to_reference{end}"] for end in ("_low", "", "_high"))
        assert f"{value:.4g} (95% CI {low:.4g} to {high:.4g})" in said


def test_the_provenance_of_speeds_tells_runtimes_apart() -> None:
    table = gather(ROOT / "results" / "runtimes").origins[-1].table
    known = [dict(zip(table.headings, row, strict=True)) for row in table.rows]
    assert {row["runtime"] for row in known} == {"torch", "onnxruntime", "openvino"}
    assert all((row["runtime"] == "torch") == (row["runtime_version"] == "") for row in known)
    assert {row["processes"] for row in known} == {"5"}


@pytest.mark.parametrize("which", ["pooling", "bypass", "joint", "level"])
def test_every_committed_sweep_has_a_report(which: str, tmp_path: Path) -> None:
    name = f"cifar10-{which}"
    page = write_report(ROOT / "results" / name, tmp_path / "r.html").read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL).group(1))
    assert data["trials"] == len(sqz.load_results(ROOT / "results" / name))


def test_a_spec_cannot_act_in_the_page(tmp_path: Path, browser: Any) -> None:
    attack = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>"
    text = f"name: x\nquestion: {json.dumps(attack)}\n"
    spec = parse_spec(text + "space: {fire5.squeeze_ratio: [null, 0.5], fires: [8, 9]}\n")
    run_sweep(spec, tmp_path, torch.device("cpu"), Quiet())
    file = write_report(tmp_path)
    opened = browser.new_page()
    opened.goto(file.as_uri())
    opened.wait_for_timeout(500)
    assert opened.title() == "x: sweep report"
    assert opened.locator(".question").inner_text() == attack
    assert opened.locator("#trials tbody tr").count() == 4
    opened.close()


def test_a_folder_that_is_no_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"found a census \(census.json\), expected the folder"):
        write_report(ROOT / "results" / "census", tmp_path / "r.html")
    run = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert isinstance(run.exception, UserError)
    assert not (tmp_path / "report.html").exists()


def test_smaller_networks_have_a_section(tmp_path: Path) -> None:
    text = write_report(ROOT / "results" / "compression", tmp_path / "page.html").read_text()
    for form in ("compressed", "in 8-bit integers"):
        assert f"Networks {form} against their float32 selves (proxy: fashion, 32 epochs)" in text
    rows = sqz.load_results(ROOT / "results" / "compression", "compression")
    first = rows[(rows["trial"] == 0) & (rows["density"] == 0.33)]
    assert f"<td>{first['compressed_drop'].mean():.2f}</td>" in text
    plain = write_report(ROOT / "results" / "sr", tmp_path / "plain.html").read_text()
    assert 'id="smaller"' not in plain
