"""Where tasks are done: in this process, in several of this machine, on a Ray cluster."""

from .base import Engine, Job, Listener
from .inline import Inline
from .local import Local, places, usable_cores

__all__ = ["Engine", "Inline", "Job", "Listener", "Local", "places", "usable_cores"]
