"""Passes of networks by turns: warm-up, rounds in a changing order, and what they say.

A round is a block of passes of each network; ratios are paired by round, so that what disturbs a
moment disturbs both sides.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median as middle
from statistics import stdev
from typing import Any

import numpy as np

from . import statistics

#: A block of passes lasts about so long, ms, or this share of the time budget if that is less.
BLOCK_MS, _OF_BUDGET = statistics.LONG_MS, 0.2
#: Passes of a warm-up that are made however long they take: twice what says that they are stable.
_WARMUP, _MOST_PASSES = 8, 50


@dataclass(frozen=True)
class Rounds:
    """Latencies in ms by network: of all its passes, and the medians of its blocks."""

    latencies: list[list[float]]
    medians: list[list[float]]


def warm_up(latency_ms: Callable[[], float], seconds: float, least_s: float = 0.0) -> bool:
    """Make passes until they are stable, and for `least_s` at least.

    Args:
        latency_ms: makes a pass and returns its latency in ms.
        seconds: time budget, of which at least `least_s` is spent.
        least_s: what the device needs to reach its clock, s.

    Returns:
        Whether they were stable before the time was over, or then showed no trend that can be told
        from their scatter.
    """
    latencies: list[float] = []
    started = time.perf_counter()
    while True:
        latencies.append(latency_ms())
        spent = time.perf_counter() - started
        if spent >= least_s and statistics.is_warm(latencies):
            return True
        if spent >= max(seconds, least_s) and len(latencies) >= _WARMUP:
            return statistics.is_level(latencies[-_WARMUP:])


def alternate(
    networks: Sequence[Callable[[], float]],
    seconds: float,
    least: int = statistics.LEAST_ROUNDS,
) -> Rounds:
    """Blocks of passes of each network in rounds, until the median of each is known well enough.

    Each round goes through the networks in another order (of a fixed seed), so that none of them
    always finds the caches, the clock and the memory as the same other one left them.

    A block lasts about 20 ms, or a fifth of the time budget if that is less: then its first pass,
    which finds another network's data in the caches, is made but not counted. A pass that takes
    longer is a block of its own.

    Args:
        networks: each makes a pass and returns its latency in ms; warm already.
        seconds: time budget.
        least: rounds that are made however long they take.
    """
    block_ms = min(BLOCK_MS, 1e3 * seconds * _OF_BUDGET)
    blocks = [_Block(network, block_ms) for network in networks]
    rounds = Rounds([[] for _ in blocks], [[] for _ in blocks])
    order, shuffle = list(range(len(blocks))), random.Random(0).shuffle
    started = time.perf_counter()
    while len(rounds.medians[0]) < least or (
        time.perf_counter() - started < seconds
        and not all(map(statistics.is_enough, rounds.medians))
    ):
        shuffle(order)
        for number in order:
            latencies = blocks[number].run()
            rounds.latencies[number].extend(latencies)
            rounds.medians[number].append(middle(latencies))
    return rounds


class _Block:
    def __init__(self, latency_ms: Callable[[], float], block_ms: float) -> None:
        self._latency_ms = latency_ms
        self._passes = min(_MOST_PASSES, max(1, math.ceil(block_ms / latency_ms())))

    def run(self) -> list[float]:
        if self._passes > 1:
            self._latency_ms()
        return [self._latency_ms() for _ in range(self._passes)]


def summary(rounds: Rounds, batch: int) -> dict[str, Any]:
    """The statistics of the first network, by field of `Throughput`; the second, if there is one,
    is the reference."""
    latencies, medians = rounds.latencies[0], rounds.medians[0]
    median = statistics.median(medians)
    row: dict[str, Any] = {
        "latency_ms_p50": median.value,
        "latency_ms_p50_low": _number(median.low),
        "latency_ms_p50_high": _number(median.high),
        "latency_ms_p99": float(np.percentile(latencies, 99)),
        "latency_ms_sd": stdev(latencies),
        "precision": _number(median.precision),
        "repetitions": len(latencies),
        "rounds": len(medians),
    }
    if len(rounds.medians) > 1:
        ratio = statistics.ratio(rounds.medians[1], medians)
        row["relative_to_reference"] = ratio.value
        row["relative_to_reference_low"] = _number(ratio.low)
        row["relative_to_reference_high"] = _number(ratio.high)
        row["reference_images_per_s"] = batch / middle(rounds.medians[1]) * 1e3
    return row


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
