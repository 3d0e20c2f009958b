"""What trained networks are made into, compressed files and 8-bit integers: rows and columns."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import astuple, fields
from typing import Any

import numpy as np

from ..analysis.accuracy import Trainings, difference
from ..compress.settings import Compression
from ..published import alexnet_params
from ..schema import COMPRESSED, QUANTISED
from ..spec.models import Spec
from .tasks import Evaluation, Task, compressions_of, quantisations_of

Row = Mapping[str, Any]


def compression_row(run: Row, found: Row) -> dict[str, Any]:
    """A row of the table `compression`: what a training's network lost by it."""
    size = found["compressed_mb"]
    return {
        **found,
        **_against(run, found, "compressed"),
        "float32_ratio": found["float32_mb"] / size,
        "alexnet_ratio": 4 * alexnet_params() / 1e6 / size,
    }


def int8_row(run: Row, found: Row) -> dict[str, Any]:
    """A row of the table `int8`."""
    return {**found, **_against(run, found, "int8")}


def _against(run: Row, found: Row, form: str) -> dict[str, Any]:
    """What the test images say, one by one."""
    before, after = (
        np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8)).astype(bool)
        for text in (run["right"]["test"], found["right"])
    )
    return {
        f"{form}_drop": run["top1"] - found[f"{form}_top1"],
        "lost": int((before & ~after).sum()),
        "gained": int((after & ~before).sum()),
    }


def holds_all(run: Row, task: Task, spec: Spec) -> bool:
    """Whether a training that is kept was made into everything that is asked for now; a sweep does
    not go on with another number of calibration images."""
    if run["diverged"] or run["dead"] or run["stopped"]:
        return True

    names = [field.name for field in fields(Compression)]
    compressed = {tuple(found[name] for name in names) for found in run.get("compression", ())}
    schemes = {found["scheme"] for found in run.get("int8", ())}
    settings = {astuple(setting) for setting in compressions_of(task, spec)}
    requested = {setting.scheme for setting in quantisations_of(task, spec)}
    return compressed == settings and schemes == requested


def summarise_smaller(
    evaluation: Evaluation, runs: Sequence[Row], right: Mapping[int, str], spec: Spec
) -> dict[str, Any]:
    """The columns of a trial that speak of its compressed networks, at the last setting, and of
    its quantised ones, at the first.

    Missing where a seed has none, which diverged or died: the others would flatter.

    Args:
        evaluation: with its rows of `compression` and `int8`.
        runs: the trainings of the largest budget.
        right: which test images each had right, packed, by seed.
        spec: whose settings they are.
    """
    found: dict[str, Any] = {}
    if spec.compressions:
        last = spec.compressions[-1]
        rows = [r for r in evaluation.compression if _is_of(r, last)]
        found |= _summary(rows, runs, right, [*COMPRESSED], "compressed")
    if spec.quantisations:
        rows = [r for r in evaluation.int8 if r["scheme"] == spec.quantisations[0].scheme]
        found |= _summary(rows, runs, right, [*QUANTISED], "int8")
    return found


def _is_of(row: Row, setting: Compression) -> bool:
    return (row["density"], row["bits"]) == (setting.density, setting.bits)


def _summary(
    rows: Sequence[Row],
    runs: Sequence[Row],
    right: Mapping[int, str],
    names: Sequence[str],
    form: str,
) -> dict[str, Any]:
    """Means over the seeds, and the interval of the drop over seeds and images, both paired."""
    seeds = [run["seed"] for run in runs]
    if [row["seed"] for row in rows] != seeds:
        return {}
    columns = {name: np.array([row[name] for row in rows], dtype=float) for name in names}
    found: dict[str, Any] = {name: float(values.mean()) for name, values in columns.items()}
    if len(rows) > 1:
        top1 = np.array([run["top1"] for run in runs], dtype=float)
        before = Trainings.of_packed(seeds, top1, [right.get(seed) for seed in seeds])
        answers = [row["right"] for row in rows]
        after = Trainings.of_packed(seeds, columns[f"{form}_top1"], answers)
        low, high = difference(before, after, paired=True).interval()
        found |= {f"{form}_drop_ci_low": low, f"{form}_drop_ci_high": high}
    return found
