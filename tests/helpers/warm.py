"""What nearly every forked program would do first, done once in what it is forked from."""

from __future__ import annotations

from PIL import Image

from sqzexplore.data.images import load
from sqzexplore.data.open import open_data

from . import onnx_registry
from .garbage import spare_collections

load(open_data("digits"), 32)  # what most sweeps train on
Image.init()
onnx_registry.keep()
spare_collections()  # or the first of each would touch, and so copy, all of it
