"""Where trials are evaluated: in this process, in several of this machine, on a Ray cluster."""

from .base import Engine, Job, Listener, Task
from .inline import Inline
from .local import Local, places

__all__ = ["Engine", "Inline", "Job", "Listener", "Local", "Task", "places"]
