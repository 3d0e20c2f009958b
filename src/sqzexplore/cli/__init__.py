"""The command line: `python -m sqzexplore VERB`."""

# Each adds its verbs; `--help` shows them in this order.
# isort: off
from . import sweep  # noqa: F401
from . import validate  # noqa: F401
from . import results  # noqa: F401
from . import refine  # noqa: F401
from . import export  # noqa: F401
from . import compress  # noqa: F401
from . import describe  # noqa: F401
from . import bench  # noqa: F401
from . import probe  # noqa: F401
from . import train  # noqa: F401
from . import evaluate  # noqa: F401
from . import census  # noqa: F401
from . import predict  # noqa: F401
from . import profile  # noqa: F401

# isort: on
from .app import app, main

__all__ = ["app", "main"]
