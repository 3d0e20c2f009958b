"""Memory that a training step or a pass frees and wants again stays with the process."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="the settings are glibc's"
)

#: Page faults of ten times 36 MB, each written and freed: some 9,000 pages of 4 KiB.
FAULTS = """
import resource, sys
if sys.argv[1] == "kept":
    from sqzexplore.malloc import keep_freed_memory
    assert keep_freed_memory()

def step():
    bytearray(36_000_000).replace(b"x", b"y")

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

for _ in range(3):
    step()
before = faults()
for _ in range(10):
    step()
print(faults() - before)
"""


def test_kept_memory_is_not_faulted_in_again() -> None:
    def faults(how: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    assert faults("kept") < 1000 < faults("default")


#: conv1 of 32 images gives 49 MB, 11,900 pages, more than glibc ever keeps by itself.
MEASURED = """
import json, resource, torch
from sqzexplore import Architecture
from sqzexplore.measure.reference import REFERENCE
from sqzexplore.measure.settings import Settings
from sqzexplore.measure.throughput import timed
from sqzexplore.network.presets import PRESETS

torch.set_num_threads(1)
architecture = Architecture(
    width_multiplier=0.25, stem_kernel=3, stem_stride=1, fires=2, pool_after=(1, 2), num_classes=10
)
PRESETS[REFERENCE] = architecture  # v1.1's passes take four times as long
settings = Settings(device="cpu", batch=32, input_size=128)
timed(architecture, settings, 0.01)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
row = timed(architecture, settings, 0.2)
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(json.dumps([row.repetitions, faults, row.caching_allocator]))
"""


def test_a_pass_that_is_measured_is_not_one_of_page_faults() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True
    )
    passes, faults, caching = json.loads(done.stdout)
    assert caching is True
    assert passes >= 6
    assert faults < 4 * 11_900  # of all passes, the reference's and the warm-up's too
