"""Memory that a training step frees and wants again stays with the process."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

#: Page faults of ten times 36 MB, each written and freed: some 9,000 pages of 4 KiB.
FAULTS = """
import resource, sys
if sys.argv[1] == "kept":
    from sqzexplore.train.malloc import keep_freed_memory
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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
def test_kept_memory_is_not_faulted_in_again() -> None:
    def faults(how: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    assert faults("kept") < 1000 < faults("default")
