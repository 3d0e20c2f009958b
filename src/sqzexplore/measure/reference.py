"""The reference network, measured in the same rounds as every other."""

from __future__ import annotations

import gc
from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

import torch

from ..device_errors import is_out_of_memory
from ..errors import FeatureMapVanishes
from ..network.presets import PRESETS
from .runner import Passes
from .runtimes import runner_for
from .settings import Settings

REFERENCE = "squeezenet1_1"


Outcome = Literal["measured", "out_of_memory", "compile_failed", "failed"]


_KEPT_REFERENCES = 64  # a sweep goes through all its settings for each architecture


# --- one measurement ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Failed:
    """Why a measurement has no number."""

    outcome: Outcome
    reason: str


# --- the reference -----------------------------------------------------------------------------

references: dict[Settings, Passes] = {}
#: Medians of the reference in each half of each measurement since the process began, ms.
history: defaultdict[Settings, list[float]] = defaultdict(list)


def reference(settings: Settings) -> Passes | None:
    """The reference network at these settings; None where it does not fit images or memory."""
    if settings not in references:
        while len(references) >= _KEPT_REFERENCES:
            del references[next(iter(references))]
        try:
            PRESETS[REFERENCE].check_input_size(settings.input_size)
            references[settings] = runner_for(PRESETS[REFERENCE], settings)
        except FeatureMapVanishes:
            return None
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                return None
            raise
    return references[settings]


def forget_references() -> None:
    """Let go of the reference networks that are kept ready, and of their memory."""
    references.clear()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
