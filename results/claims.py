"""The paper's claims beside what the committed tables say of them.

    python results/claims.py        # prints the table, writes claims.csv beside this file

A claim is a difference of mean test accuracies between two architectures of one sweep, with its
95% Welch interval over the seeds; it `holds` where that lies on its side of 0, `no` where it
lies on the other, and is `not seen` where it holds 0. A plateau is claimed the other way round, as
no difference: it holds where the interval holds 0. The intervals speak of the randomness of
training alone, on one split of one small data set, and are not corrected for being many. A curve is
the rank correlation of the mean accuracies with the paper's, over the points that both have.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from scipy import stats

import sqzexplore as sqz
from sqzexplore import analysis
from sqzexplore.published import published

HERE = Path(__file__).parent
DATA = {"fashion": "", "CIFAR-10": "cifar10-"}


@dataclass(frozen=True)
class Claim:
    """From architecture `low` to `high` of a sweep, accuracy rises; or, on a plateau, does not."""

    text: str
    source: str
    sweep: str
    low: object
    high: object
    plateau: bool = False

    @property
    def field(self) -> str:
        """The metaparameter that the sweep varies."""
        return FIELDS[self.sweep]


FIELDS = {
    "sr": "squeeze_ratio",
    "fraction_3x3": "fraction_3x3",
    "pooling": "pool_after",
    "bypass": "bypass",
}
CLAIMS = (
    Claim("more squeeze filters are more accurate", "5.2, figure 3a", "sr", 0.125, 1.0),
    Claim("accuracy flattens from SR 0.75 on", "5.2, figure 3a", "sr", 0.75, 1.0, True),
    Claim("accuracy flattens from SR 0.5 on (earlier than claimed)", "-", "sr", 0.5, 1.0, True),
    Claim("more 3x3 filters are more accurate", "5.3, figure 3b", "fraction_3x3", 0.01, 0.5),
    Claim("accuracy flattens from 50% on", "5.3, figure 3b", "fraction_3x3", 0.5, 0.99, True),
    Claim("accuracy flattens from 25% on (earlier)", "-", "fraction_3x3", 0.25, 0.5, True),
    Claim("a first quarter of 3x3 filters counts", "-", "fraction_3x3", 0.01, 0.25),
    Claim("late downsampling is more accurate", "3.1, strategy 3", "pooling", "1,4,8", "6,8,9"),
    Claim("early downsampling is less accurate", "3.1, strategy 3", "pooling", "1,2,3", "1,4,8"),
    Claim("simple bypass is more accurate", "6, table 3", "bypass", "none", "simple"),
    Claim("complex bypass is more accurate", "6, table 3", "bypass", "none", "complex"),
    Claim("simple bypass beats complex", "6, table 3", "bypass", "complex", "simple"),
)
CURVES = {"sr": "figure 3a", "fraction_3x3": "figure 3b", "bypass": "table 3"}


def runs(sweep: str) -> pd.DataFrame:
    """A row a training: its test top-1, and the architecture's metaparameters."""
    folder = HERE / sweep
    trials = sqz.load_results(folder)[["trial", "data", *FIELDS.values()]]
    return analysis.largest_budget(sqz.load_results(folder, "seeds")).merge(trials, on="trial")


def effects() -> pd.DataFrame:
    """A row for each claim and data set."""
    rows = []
    for name, prefix in DATA.items():
        for claim in CLAIMS:
            if not (HERE / (prefix + claim.sweep) / "trials.csv").exists():
                continue  # the sweep has no result yet
            all_ = runs(prefix + claim.sweep)
            low, high = (
                all_.loc[all_[claim.field] == value, "top1"].astype(float)
                for value in (claim.low, claim.high)
            )
            found = analysis.welch(high.to_numpy(), low.to_numpy())
            rows.append(
                {
                    "claim": claim.text,
                    "paper": claim.source,
                    "data": name,
                    "from": f"{claim.low}: {low.mean():.1f}",
                    "to": f"{claim.high}: {high.mean():.1f}",
                    "seeds": f"{len(low)}, {len(high)}",
                    "points": round(found.difference, 1),
                    "ci_low": round(found.low, 1),
                    "ci_high": round(found.high, 1),
                    "holds": verdict(found.low, found.high, claim.plateau),
                }
            )
    return pd.DataFrame(rows)


def verdict(low: float, high: float, plateau: bool) -> str:
    """What an interval says of a claim."""
    if plateau:
        return "yes" if low <= 0 <= high else "no"
    return "yes" if low > 0 else "no" if high < 0 else "not seen"


def curves() -> pd.DataFrame:
    """The rank correlation of each curve of the paper with the same architectures here."""
    rows = []
    for name, prefix in DATA.items():
        for sweep, figure in CURVES.items():
            if not (HERE / (prefix + sweep) / "trials.csv").exists():
                continue
            reference = published(figure)
            reference = reference[reference["network"] == "SqueezeNet"]
            field = FIELDS[sweep]
            means = runs(prefix + sweep).groupby(field)["top1"].mean()
            theirs = reference.groupby(field)["top5" if figure != "table 3" else "top1"].mean()
            both = means.index.intersection(theirs.index)
            rho = stats.spearmanr(means[both].astype(float), theirs[both].astype(float)).statistic
            rows.append(
                {"curve": figure, "data": name, "points": len(both), "spearman": round(rho, 2)}
            )
    return pd.DataFrame(rows)


if __name__ == "__main__":
    table, correlations = effects(), curves()
    table.to_csv(HERE / "claims.csv", index=False)
    correlations.to_csv(HERE / "curves.csv", index=False)
    print(table.to_string(index=False))
    print(correlations.to_string(index=False))
