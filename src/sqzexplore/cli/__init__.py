"""The command line: `python -m sqzexplore VERB`."""

# Each adds its verbs; `--help` shows them in this order.
from . import sweeps  # noqa: F401

# isort: split
from . import single, spaces  # noqa: F401
from .base import app, main

__all__ = ["app", "main"]
