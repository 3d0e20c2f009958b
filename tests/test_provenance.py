"""What a table says of the machine, and what the machine says of bfloat16."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import sqzexplore as sqz
from helpers.sweeps import SMALL, Quiet
from sqzexplore import provenance
from sqzexplore.cli.app import app
from sqzexplore.spec.load import parse_spec
from sqzexplore.sweep.run import run_sweep

#: As Linux writes them: two processors of one name, and one that is not x86.
MILAN = """\
processor	: 0
vendor_id	: AuthenticAMD
cpu family	: 25
model		: 1
model name	: AMD EPYC
stepping	: 1
flags		: fpu vme sse2 fma avx avx2

processor	: 1
cpu family	: 99
"""
TURIN = """\
processor	: 0
vendor_id	: AuthenticAMD
cpu family	: 26
model		: 2
model name	: AMD EPYC
stepping	: unknown
flags		: fpu vme sse2 fma avx avx2 avx512f avx512bw avx512vl avx512dq avx512_bf16
"""
GRAVITON = """\
processor	: 0
BogoMIPS	: 2100.00
Features	: fp asimd aes bf16 i8mm
CPU implementer	: 0x41
"""
#: With AVX-512, without its bfloat16.
SKYLAKE = TURIN.replace(" avx512_bf16", "")


def say(text: str | None, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put `text` in the place of /proc/cpuinfo, or nothing at all."""
    file = folder / "cpuinfo"
    if text is not None:
        file.write_text(text)
    monkeypatch.setattr(provenance, "_CPUINFO", file)


def onednn_says(answer: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: answer)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MILAN, ("AuthenticAMD", 25, 1, 1, "AMD EPYC")),
        (TURIN, ("AuthenticAMD", 26, 2, None, "AMD EPYC")),
        (GRAVITON, (None, None, None, None, "a machine")),
        ("", (None, None, None, None, "a machine")),
        (None, (None, None, None, None, "a machine")),
    ],
)
def test_the_processor_as_linux_describes_it(
    text: str | None, expected: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(text, tmp_path, monkeypatch)
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "a machine")
    keys = ("vendor", "family", "model", "stepping", "name")
    assert provenance.processor() == dict(zip(keys, expected, strict=True))


@pytest.mark.skipif(
    platform.machine() != "x86_64" or not shutil.which("lscpu"), reason="needs lscpu, on x86-64"
)
def test_the_processor_is_the_one_that_lscpu_sees() -> None:
    environment = os.environ | {"LC_ALL": "C"}
    printed = subprocess.run(["lscpu"], env=environment, capture_output=True, text=True, check=True)
    pairs = (line.partition(":") for line in printed.stdout.splitlines())
    said = {key.strip(): value.strip() for key, _, value in pairs}
    ours = provenance.processor()
    named = {"vendor": "Vendor ID", "family": "CPU family", "model": "Model", "name": "Model name"}
    assert {key: str(ours[key]) for key in named} == {key: said[n] for key, n in named.items()}
    assert provenance.device_name("cpu") == said["Model name"]


@pytest.mark.parametrize(
    ("text", "onednn", "expected"),
    [
        (TURIN, True, True),
        (TURIN.replace("avx512_bf16", "amx_bf16"), True, True),
        (GRAVITON, True, True),
        (SKYLAKE, True, False),  # oneDNN has it there, in terms of float32
        (MILAN, False, False),
        (TURIN, False, False),  # a limit such as ONEDNN_MAX_CPU_ISA
        (None, True, True),
        (None, False, False),
    ],
)
def test_who_multiplies_bfloat16(
    text: str | None,
    onednn: bool,
    expected: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    say(text, tmp_path, monkeypatch)
    onednn_says(onednn, monkeypatch)
    assert provenance.native_bfloat16() is expected


@pytest.mark.skipif(
    platform.machine() != "x86_64" or not hasattr(torch.cpu, "_is_avx512_bf16_supported"),
    reason="needs a torch that looks, on x86-64",
)
def test_torchs_own_look_at_the_processor_agrees() -> None:
    cpu = torch.cpu
    has = cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported()
    usable = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert provenance.native_bfloat16() == (has and usable)


def test_a_sweep_records_its_processor(tmp_path: Path) -> None:
    spec = parse_spec("name: costs\nspace: {squeeze_ratio: [0.125, 0.5]}\n")
    run_sweep(spec, tmp_path, torch.device("cpu"), Quiet())
    level = torch.backends.cpu.get_cpu_capability()
    assert sqz.load_results(tmp_path)["cpu_capability"].tolist() == [level, level]
    written = json.loads((tmp_path / "provenance.json").read_text())
    assert written["cpu_capability"] == level
    assert written["processor"] == provenance.processor()


def test_the_instructions_are_those_that_torch_uses() -> None:
    code = "from sqzexplore.provenance import of_sweep; print(of_sweep('cpu')['cpu_capability'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"ATEN_CPU_CAPABILITY": "default"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "DEFAULT"


@pytest.mark.parametrize(
    ("text", "precision", "lines"),
    [(MILAN, "bfloat16", 1), (MILAN, "float32", 0), (TURIN, "bfloat16", 0)],
)
def test_who_asks_for_bfloat16_where_it_is_emulated_is_warned(
    text: str,
    precision: str,
    lines: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    say(text, tmp_path, monkeypatch)
    onednn_says(text == TURIN, monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    spec, out = tmp_path / "small.yaml", tmp_path / "out"
    spec.write_text(SMALL.replace("data: digits", f"data: digits, precision: {precision}"))
    train = ["train", "--set", "width_multiplier=0.1", "--epochs", "1", "--precision", precision]
    for arguments in (["validate", str(spec)], [*train, "--device", "cpu", "--out", str(out)]):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        assert done.stderr.count("bfloat16 is emulated on this processor") == lines
        assert sum("bfloat16" in line for line in done.stderr.splitlines()) == lines
