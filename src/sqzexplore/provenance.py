"""Where a number comes from: versions, commit, machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import torch

from .sensors import Sensors

#: The one place: pyproject.toml reads it here.
__version__ = "0.1.0"
#: Names the commit of a copy that carries no `.git` along.
COMMIT_VARIABLE = "SQZEXPLORE_COMMIT"
PACKAGES = ("torch", "numpy", "pandas", "optuna", "scikit-learn", "matplotlib", "pillow")


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
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
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
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def of_trial(device: str, started_at: datetime, duration_s: float) -> dict[str, str | float | int]:
    """The provenance columns of one trial."""
    return {
        "sqzexplore_version": version(),
        "git_commit": git_commit(),
        "torch_version": torch.__version__,
        "device_name": device_name(device),
        "threads": torch.get_num_threads(),
        "started_at": started_at.astimezone(UTC).isoformat(timespec="seconds"),
        "duration_s": round(duration_s, 3),
    }


def of_sweep(device: str) -> dict[str, object]:
    """What `provenance.json` says of a sweep's latest run.

    Of a GPU also its driver, power limit and clock, as far as NVML says.
    """
    return {
        "sqzexplore_version": version(),
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "device": device,
        "device_name": device_name(device),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if device.startswith("cuda") else None,
        "cudnn": torch.backends.cudnn.version() if device.startswith("cuda") else None,
        **Sensors(torch.device(device)).state(),
    }
