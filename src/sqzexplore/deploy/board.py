"""Measure the ONNX files beside this script, on a board that has numpy and onnxruntime alone.

    python3 probe.py [--name "Raspberry Pi 5"] [--threads 4] [--processes 5] [--seconds 2]

Writes probe.json, which `sqzexplore bench --import probe.json` reads. All files are checked first,
by their checksums and outputs. Then several fresh processes, one after the other, each go through
all files: what one process finds in memory where, another finds elsewhere. A file is measured in
rounds with the reference network, a block of passes of each, so that what happens to the board
happens to both.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MODELS, RESULT, FORMAT = HERE / "models.json", HERE / "probe.json", 1
#: Rounds at least, passes of a warm-up, passes of a block at most, and how long it lasts, s.
LEAST_ROUNDS, WARM_UP, MOST_PASSES, BLOCK_S = 6, 8, 50, 0.02
#: Input buffers, used by turns: more than a processor's last-level cache.
BUFFER_BYTES, MOST_BUFFERS = 2**26, 16
#: Largest difference of outputs, as a share of the largest expected, by dtype.
TOLERANCE = {"float32": 1e-3, "int8": 0.1}
_NAMES = (Path("/proc/device-tree/model"), Path("/sys/firmware/devicetree/base/model"))
_TEMPERATURE = Path("/sys/class/thermal/thermal_zone0/temp")
_CLOCK = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")


def images(shape: tuple[int, ...] | list[int]) -> Any:
    """Numbers in [-2, 2) that are the same on every machine: integers, scaled by a power of two."""
    import numpy as np

    count = int(np.prod(shape))
    mixed = (np.arange(count, dtype=np.uint64) * np.uint64(2654435761)) % np.uint64(2**16)
    return (mixed.astype(np.float32) / np.float32(2**14) - np.float32(2)).reshape(shape)


# --- the board -----------------------------------------------------------------------------------


def said(file: Path) -> str:
    """What a file of the system says; nothing where there is none."""
    try:
        return file.read_text(errors="replace").strip("\0\n ")
    except OSError:
        return ""


def processor() -> str:
    """The processor's own name; of an ARM one, which has none, who made it and which part it is."""
    pairs = (line.partition(":") for line in said(Path("/proc/cpuinfo")).splitlines())
    found = {key.strip(): value.strip() for key, _, value in pairs}
    parts = [f"{key} {found[key]}" for key in ("CPU implementer", "CPU part") if key in found]
    plain = platform.processor() or platform.machine()
    return found.get("model name") or ", ".join([platform.machine(), *parts] if parts else [plain])


def thousandth(file: Path) -> float | None:
    """A sensor's number in units of 1000; None where there is no such sensor."""
    text = said(file)
    return int(text) / 1e3 if text.lstrip("-").isdigit() else None


def sensors(when: str) -> dict[str, float | None]:
    """Clock and temperature: a board that is too hot is slow."""
    return {
        f"clock_mhz_{when}": thousandth(_CLOCK),
        f"temperature_c_{when}": thousandth(_TEMPERATURE),
    }


# --- a measurement -------------------------------------------------------------------------------


class Model:
    """A file, ready to run, compared with what it should give."""

    def __init__(self, known: dict[str, Any], threads: int) -> None:
        import numpy as np
        import onnxruntime

        content = (HERE / known["file"]).read_bytes()
        if hashlib.sha256(content).hexdigest() != known["sha256"]:
            raise SystemExit(f"{known['file']}: the checksum differs; copy the folder again")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_free_dimension_override_by_name("batch", known["shape"][0])
        providers = ["CPUExecutionProvider"]
        given = images(known["shape"])
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=providers)
            found = self._session.run(None, {"images": given})[0][0]
        except Exception as error:  # each of its errors is a class of its own
            reason = " ".join(str(error).split())[:300]
            raise SystemExit(
                f"{known['file']}: onnxruntime {onnxruntime.__version__} cannot run it ({reason})"
            ) from None
        expected = np.array(known["expected"], dtype=np.float32)
        apart, largest = (float(np.abs(values).max()) for values in (found - expected, expected))
        # Random weights may let nothing through: all is 0 then, and should be.
        self.difference = 0.0 if apart == 0 else apart / largest if largest else float("inf")
        if not self.difference <= TOLERANCE[known["dtype"]]:
            raise SystemExit(
                f"{known['file']}: outputs differ from what they should be by "
                f"{self.difference:.2g} of the largest, expected at most "
                f"{TOLERANCE[known['dtype']]:g}; nothing was measured. A probe without "
                f"{known['dtype']} (--dtype) measures the rest"
            )
        count = min(MOST_BUFFERS, max(2, -(-BUFFER_BYTES // given.nbytes)))
        self._buffers = [given.copy() for _ in range(count)]
        self._passes = self._next = 0

    def timed(self) -> float:
        """A pass of the next buffer, ms."""
        given = {"images": self._buffers[self._next]}
        self._next = (self._next + 1) % len(self._buffers)
        started = time.perf_counter()
        self._session.run(None, given)
        return 1e3 * (time.perf_counter() - started)

    def warm_up(self) -> None:
        """Make passes, and see how many a block has."""
        took = [self.timed() for _ in range(WARM_UP)]
        self._passes = min(MOST_PASSES, max(1, round(1e3 * BLOCK_S / took[-1])))

    def block(self) -> list[float]:
        """A block of passes, ms; of several the first, which finds the other network's data in the
        caches, is not counted."""
        if self._passes > 1:
            self.timed()
        return [self.timed() for _ in range(self._passes)]


def measured(model: Model, reference: Model, known: dict[str, Any], seconds: float) -> Any:
    """What the rounds of a file and the reference say; the reference may be the file itself."""
    import numpy as np

    both = [model] if model is reference else [model, reference]
    row = {"file": known["file"], **sensors("before")}
    for each in both:
        each.warm_up()
    passes: list[float] = []
    medians: list[list[float]] = [[] for _ in both]
    order = list(range(len(both)))
    started = time.perf_counter()
    while len(medians[0]) < LEAST_ROUNDS or time.perf_counter() - started < seconds:
        order.reverse()
        for number in order:
            block = both[number].block()
            medians[number].append(statistics.median(block))
            passes += block if number == 0 else []
    return {
        **row,
        **sensors("after"),
        "largest_difference": model.difference,
        "latency_ms_p50": statistics.median(medians[0]),
        "latency_ms_p99": float(np.percentile(passes, 99)),
        "latency_ms_sd": statistics.stdev(passes),
        "reference_latency_ms_p50": statistics.median(medians[-1]),
        "relative_to_reference": statistics.median(
            theirs / own
            for own, theirs in zip(medians[0], medians[-1])  # noqa: B905 (Python 3.10)
        ),
        "repetitions": len(passes),
        "rounds": len(medians[0]),
        "buffers": len(model._buffers),
    }


def one_process(content: dict[str, Any], threads: int, seconds: float) -> list[dict[str, Any]]:
    """All files one after the other; what was found of each."""
    found, beside = [], None
    for known in content["models"]:  # those of one dtype and batch stand together
        key = [known["dtype"], known["shape"]]
        if beside is None or key != beside[0]:
            same = [m for m in content["models"] if [m["dtype"], m["shape"]] == key]
            theirs = next(m for m in same if m["name"] == content["reference"])
            beside = (key, theirs["name"], Model(theirs, threads))
        model = beside[2] if known["name"] == beside[1] else Model(known, threads)
        found.append(measured(model, beside[2], known, seconds))
    return found


# --- the command ---------------------------------------------------------------------------------


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    try:
        here = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        here = os.cpu_count() or 1
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--name", default="", help="the device's name in the tables")
    parser.add_argument("--threads", type=int, default=here)
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each file and process")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    requested = parser.parse_args()
    for name in ("threads", "processes", "seconds"):
        if not 0 < getattr(requested, name) < float("inf"):
            parser.error(f"--{name}: found {getattr(requested, name)}, expected a number > 0")
    return requested


def content_here() -> dict[str, Any]:
    """What the folder holds, by its list of models."""
    try:
        content: dict[str, Any] = json.loads(MODELS.read_text())
    except (OSError, ValueError):
        raise SystemExit(f"{MODELS}: cannot be read; copy the folder again") from None
    for known in content["models"]:
        if not (HERE / known["file"]).is_file():
            raise SystemExit(f"{known['file']}: is missing; copy the folder again")
    return content


def run_one(requested: argparse.Namespace) -> list[dict[str, Any]]:
    """What a fresh process finds."""
    command = [sys.executable, __file__, "--one", "--threads", str(requested.threads)]
    command += ["--seconds", str(requested.seconds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode < 0:
        raise SystemExit(f"a process was ended by signal {-done.returncode}; is memory short?")
    if done.returncode:
        raise SystemExit(done.returncode)  # it has said why
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def write(found: dict[str, Any]) -> None:
    """Write probe.json, whole or not at all."""
    fresh = RESULT.with_suffix(".part")
    try:
        fresh.write_text(json.dumps(found, indent=1) + "\n")
        os.replace(fresh, RESULT)
    except OSError as error:
        raise SystemExit(f"{RESULT}: cannot be written ({error.strerror})") from None


def main() -> None:
    """Measure, and write probe.json."""
    requested = arguments()
    try:
        import numpy as np
        import onnxruntime
    except ImportError as error:
        raise SystemExit(f"{error}: python3 -m pip install numpy onnxruntime") from None
    content = content_here()
    if requested.one:
        print(json.dumps(one_process(content, requested.threads, requested.seconds)))
        return
    if not os.access(HERE, os.W_OK):
        raise SystemExit(f"{HERE}: cannot be written to")
    for known in content["models"]:
        Model(known, requested.threads)
    models = len(content["models"])
    least_s = models * requested.processes * requested.seconds
    print(f"{models} models give what they should; measuring for {least_s / 60:.1f} min or more")
    found = {
        "format": FORMAT,
        "device_name": requested.name or next(filter(None, map(said, _NAMES)), "") or processor(),
        "processor": processor(),
        "machine": platform.machine(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": onnxruntime.__version__,
        "threads": requested.threads,
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
        "models": content,
    }
    processes: list[list[dict[str, Any]]] = []
    for number in range(requested.processes):
        print(f"process {number + 1} of {requested.processes}", flush=True)
        processes.append(run_one(requested))
        write({**found, "processes": processes})  # whoever stops it keeps what is done
    print(f"written: {RESULT}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
