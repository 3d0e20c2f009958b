"""Published numbers, each row with its source; what they mean stands in README.md beside them."""

from __future__ import annotations

from importlib.resources import files

import pandas as pd


def published(where: str | None = None) -> pd.DataFrame:
    """The published numbers, or those of one place, such as "figure 3a"."""
    rows = _read("published.csv")
    return rows if where is None else rows[rows["where"] == where].reset_index(drop=True)


def alexnet_params() -> int:
    """Parameters of AlexNet as torchvision builds it: what SqueezeNet's sizes are compared with."""
    rows = published().query("network == 'AlexNet' and params.notna()")
    return int(rows["params"].iloc[0])


def table1() -> pd.DataFrame:
    """SqueezeNet v1.0 stage by stage as table 1 of arXiv:1602.07360 prints it; a cell that is empty
    there is missing."""
    return _read("table1.csv").convert_dtypes()


def _read(name: str) -> pd.DataFrame:
    with files(__package__).joinpath(name).open() as file:
        return pd.read_csv(file)
