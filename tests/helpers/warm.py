"""What nearly every forked program would do first, done once: costly imports and first calls."""

from __future__ import annotations

import gc

import alembic.context
import grpc
import optuna.storages._rdb.models
import sqlalchemy.dialects.postgresql
import sqlalchemy.dialects.sqlite
import tabulate
import typer.rich_utils
from PIL import Image
from sklearn.model_selection import train_test_split

from . import onnx_registry

__all__ = ["alembic", "grpc", "optuna", "sqlalchemy", "tabulate", "typer"]

train_test_split([0, 1, 2, 3])  # looks for plugins through all that is installed
Image.init()
onnx_registry.keep()
gc.freeze()  # or the first collection of each would touch, and so copy, all of it
