"""FireBench: random networks of the Fire space, each trained, as a table that can be asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import UserError
from ..network.architecture import Architecture
from ..network.cost import cost
from .folder import ResultFolder

#: Where a checkout has it, src/ beside it, and where the package does.
_FOLDERS = (
    Path(__file__).parents[3] / "results" / "firebench",
    Path(__file__).parents[1] / "published" / "firebench",
)


def firebench(folder: str | Path | None = None) -> pd.DataFrame:
    """FireBench: a row a network, drawn at random, stratified by log MACs, and trained.

    Args:
        folder: of a sweep such as `sweeps/firebench.yaml`, finished or not; None: the checkout's
            results/firebench.

    Returns:
        The complete trials, one a `net_id`, with every column of `trials`: fields, costs, `top1`
        and `val_top1` in percent, of which none is missing, `epochs`, `seeds`, provenance. What
        the networks are trained as is a proxy (columns `proxy`, `train_...`). And where the folder
        beside it, of the same name with `_latency` at the end, has a table `throughput` of these
        networks (`sweeps/firebench_latency.yaml`): for each runtime its median latency on that
        CPU, of one image in float32, in ms, with its 95% interval over the processes, such as
        `onnxruntime_latency_ms_p50`, `..._low` and `..._high`.

    Raises:
        UserError: there is no such folder, or nothing in it is finished.

    Example:
        >>> sqz.firebench().sort_values("val_top1")[["net_id", "top1"]]  # doctest: +SKIP
    """
    results = folder_of(folder)
    trials = results.table("trials")
    if trials is None:
        raise UserError(f"{results.path}: found no table trials, expected a sweep's folder")
    known = trials[(trials["state"] == "complete") & trials["top1"].notna()]
    if known.empty:
        raise UserError(f"{results.path}: found no finished network, expected a sweep's results")
    known = known.drop_duplicates("net_id").sort_values("trial", ignore_index=True)
    return known.merge(_latencies(results.path), "left", on="net_id")


def _latencies(folder: Path) -> pd.DataFrame:
    """By `net_id`, the latencies in the folder beside `folder`; no column where there are none."""
    rows = ResultFolder(folder.with_name(f"{folder.name}_latency")).table("throughput")
    if rows is None:
        return pd.DataFrame({"net_id": pd.Series(dtype="string")})
    rows = rows[(rows["batch"] == 1) & (rows["dtype"] == "float32")]
    columns = ["latency_ms_p50", "latency_ms_p50_low", "latency_ms_p50_high"]
    found = [
        rows[rows["runtime"] == runtime].set_index("net_id")[columns].add_prefix(f"{runtime}_")
        for runtime in rows["runtime"].unique()
    ]
    return pd.concat(found, axis=1).reset_index()


def query(
    arch: Architecture,
    epoch: int | None = None,
    seed: int | None = None,
    folder: str | Path | None = None,
) -> dict[str, Any]:
    """What FireBench knows of a network, instead of training it.

    Args:
        arch: the network; other metaparameters that give the same (`net_id`) are the same.
        epoch: after which, from 1; None: the last.
        seed: of one training; None: the mean over the seeds.
        folder: as of `firebench`.

    Returns:
        `net_id`, `epoch`, `epochs`, `seeds` (how many), `val_top1` in percent; `top1`, which is
        measured once, after the last epoch, and None before; `duration_s` of a whole training.

    Raises:
        UserError: the network is not in the table (the message names the nearest in parameters and
            MACs), or it has no such epoch or seed.
    """
    table = firebench(folder)
    found = table[table["net_id"] == arch.net_id]
    if found.empty:
        raise UserError(
            f"query: found network {arch.net_id}, expected one of the {len(table)} in the table; "
            f"{_nearest(arch, table)}"
        )
    row = found.iloc[0]
    results = folder_of(folder)
    runs, history = results.table("seeds"), results.table("history")
    assert runs is not None
    assert history is not None
    own = runs[(runs["trial"] == row["trial"]) & (runs["epochs"] == row["epochs"])]
    if seed is not None and seed not in own["seed"].tolist():
        raise UserError(f"query: found seed {seed}, expected one of {own['seed'].tolist()}")
    own = own if seed is None else own[own["seed"] == seed]
    epochs = int(row["epochs"])
    at = epochs if epoch is None else epoch
    if not 1 <= at <= epochs:
        raise UserError(f"query: found epoch {at}, expected 1 to {epochs}")
    curve = history[
        (history["trial"] == row["trial"])
        & (history["epochs"] == epochs)
        & (history["epoch"] == at)
        & history["seed"].isin(own["seed"])
    ]
    return {
        "net_id": arch.net_id,
        "epoch": at,
        "epochs": epochs,
        "seeds": len(own),
        "val_top1": float(curve["val_top1"].mean()),
        "top1": float(own["top1"].mean()) if at == epochs else None,
        "duration_s": float(own["duration_s"].mean()),
    }


def training_seconds(table: pd.DataFrame, folder: str | Path | None = None) -> NDArray[np.float64]:
    """How long a training of each network took, the mean over its seeds.

    Args:
        table: as `firebench` gives it.
        folder: the same.

    Raises:
        UserError: of some network it is not known.
    """
    results = folder_of(folder)
    runs = results.table("seeds")
    if runs is None:
        raise UserError(f"{results.path}: found no table seeds, expected a sweep's folder")
    keys = ["trial", "epochs"]
    means = runs.groupby(keys)["duration_s"].mean()
    seconds = means.reindex(pd.MultiIndex.from_frame(table[keys]))
    if (unknown := seconds.isna().to_numpy()).any():
        raise UserError(
            f"{results.path}: found no duration_s of a training of network "
            f"{table['net_id'].to_numpy()[unknown][0]}, expected one of each"
        )
    return seconds.to_numpy(dtype=np.float64)


def folder_of(folder: str | Path | None) -> ResultFolder:
    """The result folder that the functions here read; None: the checkout's, else the package's.

    Raises:
        UserError: None, and there is neither.
    """
    if folder is not None:
        return ResultFolder(folder)
    held = next((each for each in _FOLDERS if (each / "trials.csv").is_file()), None)
    if held is None:
        raise UserError(
            f"firebench: found neither {' nor '.join(map(str, _FOLDERS))}, expected a folder of "
            "sweeps/firebench.yaml"
        )
    return ResultFolder(held)


def _nearest(arch: Architecture, table: pd.DataFrame) -> str:
    """The network of the table that differs least in the logarithms of parameters and MACs, at the
    table's size."""
    mine = cost(arch, int(table["input_size"].iloc[0]))
    params, macs = (table[name].to_numpy(dtype=float) for name in ("params", "macs"))
    apart = np.abs(np.log(params / mine.params)) + np.abs(np.log(macs / mine.macs))
    row = table.iloc[int(apart.argmin())]
    return (
        f"the nearest in size is {row['net_id']} ({row['params']:,} parameters, {row['macs']:,} "
        f"MACs, where this one has {mine.params:,} and {mine.macs:,})"
    )
