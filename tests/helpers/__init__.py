"""What several tests share."""

import subprocess
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

#: `python -m sqzexplore` with arguments, in a real process (the fixture `sqz`).
Run = Callable[..., subprocess.CompletedProcess[str]]
