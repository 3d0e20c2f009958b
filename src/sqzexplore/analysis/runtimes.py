"""Which runtime runs which architecture fastest, and whether the ranking depends on it."""

from __future__ import annotations

import itertools
from typing import Any, cast

import numpy as np
import pandas as pd

from ..errors import UserError
from .ranking import bootstrapped_kendall
from .validation import require_columns, require_rows

#: What two measurements must share to be compared across runtimes.
_PLACE = ("sweep", "device_name", "threads", "input_size", "batch")
_LATENCY = "latency_ms_p50"


def fastest_runtime(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each architecture at each batch, the runtime and dtype with the least median latency.

    Args:
        rows: of the table `throughput`; those without a latency are left out, and of a runtime and
            dtype all but the fastest memory format.

    Returns:
        A row an architecture, batch, image size, device and number of threads that several runtimes
        have: `runtime`, `dtype`, `latency_ms_p50`; `next_runtime`, `next_dtype`,
        `next_latency_ms_p50` of the second; and
        `told_apart`: whether its 95% interval ends below that of every other (missing where one
        has no interval), which is stricter than a test at 5%.

    Raises:
        UserError: one runtime only, or no architecture with a latency in two.
    """
    known = _measured("fastest_runtime", rows)
    found = []
    for key, group in known.groupby(["arch_id", *_PLACE], dropna=False, sort=False):
        ordered = group.sort_values(_LATENCY).drop_duplicates(["runtime", "dtype"])
        if ordered["runtime"].nunique() < 2:
            continue
        first, second = (row for _, row in ordered.head(2).iterrows())
        ends = [first[f"{_LATENCY}_high"], *ordered[f"{_LATENCY}_low"][1:]]
        found.append(
            dict(zip(["arch_id", *_PLACE], cast(tuple[Any, ...], key), strict=True))
            | {name: first[name] for name in ("runtime", "dtype", _LATENCY)}
            | {f"next_{name}": second[name] for name in ("runtime", "dtype", _LATENCY)}
            | {"told_apart": None if any(map(pd.isna, ends)) else bool(ends[0] < min(ends[1:]))}
        )
    require_rows("fastest_runtime", len(found), 1, "architectures in several runtimes")
    return pd.DataFrame(found)


def runtime_ranking(rows: pd.DataFrame, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Whether architectures rank alike in each pair of runtimes (Kendall's tau-b of the latencies).

    Args:
        rows: of the table `throughput`.
        resamples: of the architectures, with replacement.
        seed: of the resampling.

    Returns:
        A row a pair of runtime and dtype, batch, image size, device and number of threads:
        `first`, `second` (such as `onnxruntime int8`), `architectures`, `kendall`, and its 95%
        percentile bootstrap interval `ci_low`, `ci_high`, without the resamples in which one side
        is constant; missing where the order is the same, since there every resample says so.

    Raises:
        UserError: one runtime only, or fewer than 4 architectures in two of them.
    """
    known = _measured("runtime_ranking", rows)
    known = known.assign(way=known["runtime"] + " " + known["dtype"])
    generator, found, most = np.random.default_rng(seed), [], 0
    for key, group in known.groupby([*_PLACE], dropna=False, sort=False):
        fastest = group.groupby(["net_id", "way", "arch_id"], sort=False)[_LATENCY].min()
        table = fastest.groupby(["net_id", "way"], sort=False).mean().unstack("way")
        for first, second in itertools.combinations(table, 2):
            both = table[[first, second]].dropna().to_numpy(dtype=float)
            most = max(most, len(both))
            if len(both) < 4:
                continue
            tau, low, high = bootstrapped_kendall(both, resamples, generator)
            found.append(
                dict(zip(_PLACE, cast(tuple[Any, ...], key), strict=True))
                | {"first": first, "second": second, "architectures": len(both)}
                | {"kendall": tau, "ci_low": low, "ci_high": high}
            )
    if not found:
        require_rows("runtime_ranking", most, 4, "architectures in two runtimes")
    return pd.DataFrame(found)


def _measured(caller: str, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with a latency, of torch its plain module in eager mode alone."""
    require_columns(caller, rows, ["arch_id", "net_id", "runtime", "dtype", _LATENCY, *_PLACE])
    known = rows.dropna(subset=[_LATENCY])
    plain = (known["form"] == "module") & (known["mode"] == "eager")
    known = known[(known["runtime"] != "torch") | plain]
    if known["runtime"].nunique() < 2:
        raise UserError(f"{caller}: found one runtime only, expected several")
    return known
