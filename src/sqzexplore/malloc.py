"""A process that keeps the memory it frees.

glibc gives large blocks back to the system when they are freed and gets new ones, page by page,
when they are wanted again. A training step, or a pass of a batch, frees and wants the same blocks
each time, and spends up to a third of its time on that.
"""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache

#: mallopt(3): how many blocks may be mapped by themselves; free memory from this size on at the
#: heap's end is given back.
_M_MMAP_MAX, _M_TRIM_THRESHOLD = -4, -1
_GIB = 2**30


@lru_cache(maxsize=1)
def keep_freed_memory() -> bool:
    """Ask the C library for it, for what the main thread allocates; whether it does."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return False
    return all([mallopt(_M_MMAP_MAX, 0), mallopt(_M_TRIM_THRESHOLD, _GIB)])
