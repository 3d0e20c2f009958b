"""Python's garbage collector, which takes one second of twenty of a test run as it comes."""

from __future__ import annotations

import gc


def spare_collections() -> None:
    """Collect less often, and never look at what there is by now."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
