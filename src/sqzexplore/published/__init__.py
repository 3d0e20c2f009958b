"""Published numbers, each row with its source; what they mean stands in README.md beside them."""

from __future__ import annotations

from importlib.resources import files

import pandas as pd


def published(where: str | None = None) -> pd.DataFrame:
    """The published numbers, or those of one place, such as "figure 3a"."""
    with files(__package__).joinpath("published.csv").open() as file:
        rows = pd.read_csv(file)
    return rows if where is None else rows[rows["where"] == where].reset_index(drop=True)
