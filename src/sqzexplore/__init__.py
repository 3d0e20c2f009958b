"""Design-space exploration of small convolutional networks, starting from SqueezeNet's Fire."""

from .architecture import Architecture, preset
from .cost import cost, cost_table
from .model import build

__all__ = ["Architecture", "build", "cost", "cost_table", "preset"]
