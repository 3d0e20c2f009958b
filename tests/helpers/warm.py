"""What nearly every forked program would do first, done once in what it is forked from."""

from __future__ import annotations

import gc

from PIL import Image
from sklearn.model_selection import train_test_split

from . import onnx_registry

train_test_split([0, 1, 2, 3])  # looks for plugins through all that is installed
Image.init()
onnx_registry.keep()
gc.freeze()  # or the first collection of each would touch, and so copy, all of it
