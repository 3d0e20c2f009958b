"""Measure the ONNX files beside this script, on a board that has numpy and onnxruntime alone.

    python3 probe.py [--name "Raspberry Pi 5"] [--threads 4] [--processes 5] [--seconds 2]

Writes probe.json, which `sqzexplore bench --import probe.json` reads. Each file is checked by its
checksum and by its outputs before it is timed. Several fresh processes go by turns, each through
all files in rounds: what one process finds in memory where, another finds elsewhere.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
FORMAT = 1
#: Rounds at least, passes of a warm-up, and how long a block of passes lasts, s.
LEAST_ROUNDS, WARM_UP, BLOCK_S = 6, 8, 0.02
#: Largest difference of outputs, as a share of the largest expected, by dtype.
TOLERANCE = {"float32": 1e-3, "int8": 0.1}


def images(shape):  # type: ignore[no-untyped-def]
    """Numbers in [-2, 2) that are the same on every machine: integers, scaled by a power of two."""
    import numpy as np

    count = int(np.prod(shape))
    mixed = (np.arange(count, dtype=np.uint64) * np.uint64(2654435761)) % np.uint64(2**16)
    return (mixed.astype(np.float32) / np.float32(2**14) - np.float32(2)).reshape(shape)


def processor() -> str:
    """What the machine calls itself."""
    for file in ("/proc/device-tree/model", "/sys/devices/virtual/dmi/id/product_name"):
        try:
            name = Path(file).read_text().strip("\0\n ")
        except OSError:
            continue
        if name:
            return name
    return platform.processor() or platform.machine()


class Model:
    """A file, ready to run, compared with what it should give."""

    def __init__(self, known: dict, threads: int) -> None:
        import numpy as np
        import onnxruntime

        self.known = known
        content = (HERE / known["file"]).read_bytes()
        if hashlib.sha256(content).hexdigest() != known["sha256"]:
            raise SystemExit(f"{known['file']}: the checksum differs; copy the folder again")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(content, options, providers=providers)
        self.given = {"images": images(known["shape"])}
        expected = np.array(known["expected"], dtype=np.float32)
        found = self.session.run(None, self.given)[0][0]
        self.difference = float(np.abs(found - expected).max() / np.abs(expected).max())
        if not self.difference <= TOLERANCE[known["dtype"]]:
            raise SystemExit(
                f"{known['file']}: outputs differ from PyTorch's by {self.difference:.2g} of the "
                f"largest, expected at most {TOLERANCE[known['dtype']]:g}; nothing was measured"
            )
        for _ in range(WARM_UP):
            took = self.timed()
        self.block = min(50, max(1, round(BLOCK_S / took)))
        self.passes: list = []
        self.medians: list = []

    def timed(self) -> float:
        """Seconds of a pass."""
        started = time.perf_counter()
        self.session.run(None, self.given)
        return time.perf_counter() - started

    def round(self) -> None:
        """A block of passes."""
        took = [1e3 * self.timed() for _ in range(self.block)]
        self.passes += took
        self.medians.append(statistics.median(took))


def one_process(threads: int, seconds: float) -> list:
    """All files in rounds, each in another order; what was found of each."""
    known = json.loads((HERE / "models.json").read_text())["models"]
    models = [Model(each, threads) for each in known]
    started, done = time.perf_counter(), 0
    while done < LEAST_ROUNDS or time.perf_counter() - started < seconds * len(models):
        for model in random.Random(done).sample(models, len(models)):
            model.round()
        done += 1
    return [
        {
            "file": model.known["file"],
            "largest_difference": model.difference,
            "latency_ms_p50": statistics.median(model.medians),
            "latency_ms_p99": sorted(model.passes)[int(0.99 * (len(model.passes) - 1))],
            "latency_ms_sd": statistics.stdev(model.passes),
            "repetitions": len(model.passes),
            "rounds": len(model.medians),
        }
        for model in models
    ]


def main() -> None:
    """Measure, and write probe.json."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--name", default=None, help="the device's name in the tables")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each file and process")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(one_process(asked.threads, asked.seconds)))
        return
    import numpy as np
    import onnxruntime

    processes = []
    for number in range(asked.processes):
        print(f"process {number + 1} of {asked.processes}", flush=True)
        command = [sys.executable, __file__, "--one", "--threads", str(asked.threads)]
        command += ["--seconds", str(asked.seconds)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            sys.exit(done.returncode)
        processes.append(json.loads(done.stdout.splitlines()[-1]))
    found = {
        "format": FORMAT,
        "device_name": asked.name or processor(),
        "machine": platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": onnxruntime.__version__,
        "threads": asked.threads,
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
        "models": json.loads((HERE / "models.json").read_text()),
        "processes": processes,
    }
    (HERE / "probe.json").write_text(json.dumps(found, indent=1) + "\n")
    print(f"written: {HERE / 'probe.json'}")


if __name__ == "__main__":
    main()
