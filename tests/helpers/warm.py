"""What nearly every forked program would do first, done once in what it is forked from."""

from __future__ import annotations

import gc

from PIL import Image

from sqzexplore.data.images import load
from sqzexplore.data.open import open_data

from . import onnx_registry

load(open_data("digits"), 32)  # what most sweeps train on
Image.init()
onnx_registry.keep()
gc.freeze()  # or the first collection of each would touch, and so copy, all of it
