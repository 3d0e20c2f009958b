"""Design-space exploration of small convolutional networks, starting from SqueezeNet's Fire."""

from .analysis import pareto_front
from .architecture import Architecture, preset
from .checkpoint import load
from .cost import cost, cost_table
from .export import export
from .model import build
from .provenance import __version__ as __version__
from .results import load_results

__all__ = [
    "Architecture",
    "build",
    "cost",
    "cost_table",
    "export",
    "load",
    "load_results",
    "pareto_front",
    "preset",
]
