"""A process that keeps the memory it frees.

glibc gives large blocks back to the system when they are freed and gets new ones, page by page,
when they are wanted again. A training step frees and wants the same blocks each time, and spends a
third of its time on that.
"""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache

#: mallopt(3): blocks from this size on are mapped by themselves; free memory from this size on at
#: the heap's end is given back.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_GIB = 2**30
#: The largest threshold that an older glibc takes.
_OLDER = 2**25


@lru_cache(maxsize=1)
def keep_freed_memory() -> bool:
    """Ask the C library for it; whether it does."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    mapped = mallopt(_M_MMAP_THRESHOLD, _GIB) or mallopt(_M_MMAP_THRESHOLD, _OLDER)
    return bool(mapped and mallopt(_M_TRIM_THRESHOLD, _GIB))
