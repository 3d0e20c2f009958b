"""Where a number comes from: versions, commit, machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from .nvml import Sensors

#: The one place: pyproject.toml reads it here.
__version__ = "0.1.0"
#: Names the commit of a copy that carries no `.git` along.
COMMIT_VARIABLE = "SQZEXPLORE_COMMIT"
PACKAGES = ("torch", "numpy", "pandas", "optuna", "scikit-learn", "matplotlib", "pillow")

_CPUINFO = Path("/proc/cpuinfo")
_NUMBERS = {"family": "cpu family", "model": "model", "stepping": "stepping"}
#: Instructions that multiply bfloat16, as Linux names them: two of x86, one of ARM.
_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


@lru_cache(maxsize=1)
def git_commit() -> str:
    """The commit of the checkout this package runs from, `-dirty` if its code was changed.

    Where the package does not run from a git checkout of its own, what the environment variable
    `SQZEXPLORE_COMMIT` says; else nothing.
    """
    return _commit_of(Path(__file__).resolve().parent) or os.environ.get(COMMIT_VARIABLE, "")


def _commit_of(package: Path) -> str:
    try:
        root = _git(package, "rev-parse", "--show-toplevel")
        if Path(root) / "src" / "sqzexplore" != package:
            return ""
        dirty = _git(package, "status", "--porcelain", "--", str(package))
        return _git(package, "rev-parse", "HEAD") + ("-dirty" if dirty else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(  # it only looks: no lock that its end, or another git, may find
        ["git", "--no-optional-locks", "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    return done.stdout.strip()


def version() -> str:
    """This package's version, also where it is not installed."""
    return __version__


@lru_cache(maxsize=8)
def device_name(device: str) -> str:
    """The processor's or GPU's own name."""
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return str(processor()["name"])


def together(names: Iterable[str]) -> str:
    """One `device_name` of all devices that had a part in something, in their order."""
    return " + ".join(dict.fromkeys(one for name in names for one in name.split(" + ")))


def processor() -> dict[str, str | int | None]:
    """Vendor, family, model and stepping, that tell processors of one name apart, and the name.

    As Linux's `/proc/cpuinfo` says; what that does not know is None, and the name then the
    platform's own.
    """
    said = _cpuinfo()
    numbers = {key: said.get(name, "") for key, name in _NUMBERS.items()}
    return {
        "vendor": said.get("vendor_id"),
        **{key: int(text) if text.isdecimal() else None for key, text in numbers.items()},
        "name": said.get("model name") or platform.processor() or platform.machine(),
    }


def native_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself, and oneDNN lets it.

    By AVX512-BF16, AMX or ARM's BF16; elsewhere torch emulates it, by float32 and conversions.
    Where nothing lists the instructions (no Linux), oneDNN's word is taken for it.
    """
    import torch

    if not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    said = _cpuinfo()
    instructions = said.get("flags", said.get("Features"))  # x86, ARM
    return instructions is None or not _BFLOAT16.isdisjoint(instructions.split())


def _cpuinfo() -> dict[str, str]:
    """What Linux says of the first processor; nothing elsewhere."""
    try:
        first = _CPUINFO.read_text().strip().partition("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def of_trial(device: str, started_at: datetime, duration_s: float) -> dict[str, str | float | int]:
    """The provenance columns of one trial."""
    import torch

    return {
        "sqzexplore_version": version(),
        "git_commit": git_commit(),
        "torch_version": torch.__version__,
        "device_name": device_name(device),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "started_at": started_at.astimezone(UTC).isoformat(timespec="seconds"),
        "duration_s": round(duration_s, 3),
    }


def of_sweep(device: str) -> dict[str, object]:
    """What `provenance.json` says of a sweep's latest run.

    Of a GPU also its driver, power limit and clock, as far as NVML says.
    """
    import torch

    return {
        "sqzexplore_version": version(),
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "device": device,
        "device_name": device_name(device),
        "processor": processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if device.startswith("cuda") else None,
        "cudnn": torch.backends.cudnn.version() if device.startswith("cuda") else None,
        **Sensors(torch.device(device)).state(),
    }
