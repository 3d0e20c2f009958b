"""What is said of the committed tables, computed from them.

    python results/pages.py            # claims.csv, curves.csv, and the tables of the pages
    python results/pages.py --check    # exit code 1 where a page says something else

A table of a page stands between `<!-- table: NAME -->` and `<!-- end -->`; NAME is a function here.
The claims of all sweeps on one data set are corrected together (Holm).
"""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

import sqzexplore as sqz
from sqzexplore import analysis
from sqzexplore.analysis.verdicts import ALPHA
from sqzexplore.network.architecture import Architecture
from sqzexplore.predict.verdict import against_baselines, coverage
from sqzexplore.published import published
from sqzexplore.results.folder import ResultFolder
from sqzexplore.results.smaller import drops_of, setting_text
from sqzexplore.spec.load import load_spec
from sqzexplore.train.recipe import METHODS

HERE = Path(__file__).parent
ROOT = HERE.parent
PAGES = (
    HERE / "README.md",
    ROOT / "README.md",
    ROOT / "docs" / "reproducibility.md",
    ROOT / "docs" / "compression.md",
    ROOT / "docs" / "training.md",
)
CURVES = {"sr": "figure 3a", "fraction_3x3": "figure 3b", "bypass": "table 3"}
#: What varies in the sweep on compression.
SMALLER = ["squeeze_ratio", "fraction_3x3", "bypass"]
FIELDS = {"sr": "squeeze_ratio", "fraction_3x3": "fraction_3x3", "bypass": "bypass"}


def claims() -> pd.DataFrame:
    """The claims of every committed sweep, with the verdicts that hold for all of a data set's."""
    folders = sorted(file.parent for file in HERE.glob("*/claims.csv"))
    found = pd.concat([sqz.load_results(folder, "claims") for folder in folders])
    found["p_holm"] = found.groupby("data_sha256")["p_value"].transform(
        lambda p: analysis.holm(p.to_numpy(dtype=float))
    )
    found.loc[found["p_holm"] >= ALPHA, "verdict"] = "undecided"
    return found.sort_values(["data", "sweep"], kind="stable", ignore_index=True)


def curves() -> pd.DataFrame:
    """The rank correlation of each curve of the paper with the same architectures here."""
    rows = []
    for prefix in ("", "cifar10-"):
        for sweep, figure in CURVES.items():
            folder, field = HERE / (prefix + sweep), FIELDS[sweep]
            if not (folder / "trials.csv").exists():
                continue
            trials, theirs = sqz.load_results(folder), published(figure)
            theirs = theirs[theirs["network"] == "SqueezeNet"].set_index(field)
            ours = trials.set_index(field)["top1"].astype(float)
            both = ours.index.intersection(theirs.index)
            column = "top1" if figure == "table 3" else "top5"
            spearman = ours[both].corr(theirs.loc[both, column], method="spearman")
            points = {"curve": figure, "data": trials["data"].iloc[0], "points": len(both)}
            rows.append(points | {"spearman": round(spearman, 2)})
    return pd.DataFrame(rows)


# --- the tables of the pages ---------------------------------------------------------------------


def squeeze_ratios() -> str:
    """README's table of the paper's figure 3a."""
    trials = sqz.load_results(HERE / "sr").sort_values("squeeze_ratio")
    alexnet = published("weights").set_index("network").loc["AlexNet", "params"]
    rows = [
        [
            f"{row.squeeze_ratio:g}",
            f"{row.params:,}",
            f"{alexnet / row.params:.1f}x smaller",
            f"{row.macs / 1e6:,.0f}M",
            f"{row.train_size_mb:.3f}",
            f"{row.top1:.2f}",
            f"{row.top1_ci_low:.2f} to {row.top1_ci_high:.2f}",
        ]
        for row in trials.itertuples()
    ]
    head = ["squeeze ratio", "params at 224x224", "vs AlexNet", "MACs", "trained size (MB)"]
    return _table([*head, "top-1 (%)", "95% interval"], rows)


def budgets(sweep: str, field: str) -> str:
    """Test top-1 of each architecture at each budget, the largest with its interval."""
    trials = sqz.load_results(HERE / sweep)
    seeds = sqz.load_results(HERE / sweep, "seeds")
    means = seeds.groupby(["trial", "epochs"])["top1"].mean().unstack("epochs")
    rows = [
        [
            str(row[field]),
            f"{row['train_params']:,}",
            f"{row['train_macs'] / 1e6:.2f}M",
            *(f"{value:.1f}" for value in means.loc[row["trial"]].iloc[:-1]),
            f"{row['top1']:.1f} ({row['top1_ci_low']:.1f} to {row['top1_ci_high']:.1f})",
            "yes" if row["still_learning"] else "no",
        ]
        for row in trials.to_dict("records")
    ]
    epochs = [f"{epochs} epochs (%)" for epochs in means]
    return _table([field, "trained params", "MACs", *epochs, "still learning"], rows)


def what_stays() -> str:
    """What each change of the sweep on budgets gains after as many epochs."""
    folder = HERE / "cifar10-budget"
    runs = sqz.load_results(folder, "seeds")
    space = load_spec(folder / "spec.yaml").design_space
    base, *others = sorted(
        (space.architecture(index) for index in space.indices()),
        key=lambda arch: (arch.squeeze_ratio, arch.bypass != "none", arch.pool_after),
    )
    top1 = {key: own["top1"] for key, own in runs.groupby(["arch_id", "epochs"])}
    budgets = sorted(runs["epochs"].unique())
    level = [f"{top1[base.arch_id, epochs].mean():.1f}" for epochs in budgets]
    rows = [["the base, top-1 (%)", *level]]
    for arch in others:
        changes = {name: getattr(arch, name) for name in ("bypass", "squeeze_ratio", "pool_after")}
        changed = [f"{n} {value}" for n, value in changes.items() if getattr(base, n) != value]
        rows.append([", ".join(changed)])
        for epochs in budgets:
            one, two = top1[arch.arch_id, epochs], top1[base.arch_id, epochs]
            low, high = stats.ttest_ind(one, two, equal_var=False).confidence_interval()
            rows[-1].append(f"{one.mean() - two.mean():+.1f} ({low:+.1f} to {high:+.1f})")
    return _table(["change", *(f"{epochs} epochs" for epochs in budgets)], rows)


def verdicts(of_paper: bool) -> str:
    """The claims with their verdicts: the paper's, or those formed by looking at the data."""
    found = claims()
    found = found[found["source"].fillna("").ne("") == of_paper]
    rows = [
        [
            row.claim + (f" ({row.source})" if of_paper else ""),
            f"[{row.sweep}]({row.sweep})",
            str(row.epochs),
            f"{row.first_top1:.1f} to {row.second_top1:.1f}",
            f"{row.difference:+.1f} ({row.ci_low:+.1f} to {row.ci_high:+.1f})",
            (f"within {row.margin:g}" if row.expect == "same" else row.expect),
            f"**{row.verdict}**",
            f"{row.p_holm:.2g}",
            f"{row.detectable:.1f}",
        ]
        for row in found.itertuples()
    ]
    head = ["claim", "sweep", "epochs", "top-1 (%)", "difference, points (95%)", "expected"]
    return _table([*head, "verdict", "p (Holm)", "seen with 80%, points"], rows)


def at_equal_macs() -> str:
    """What the MACs of the CIFAR-10 proxy buy: the dearest pools and filters, the bypass."""
    frames = [sqz.load_results(HERE / f"cifar10-{s}") for s in ("sr", "pooling", "bypass")]
    trials = pd.concat(frames).drop_duplicates("net_id").sort_values("train_macs")
    names = ["squeeze_ratio", "pool_after", "bypass"]
    rows = [
        [
            *(str(row[name]) for name in names),
            f"{row['train_macs'] / 1e6:.2f}M",
            f"{row['train_params']:,}",
            f"{row['top1']:.1f}",
        ]
        for row in trials.to_dict("records")
    ]
    return _table([*names, "MACs", "trained params", "top-1 (%)"], rows)


def compute() -> str:
    """What each sweep's trainings took, and on what."""
    rows = []
    for folder in sorted(file.parent for file in HERE.glob("*/seeds.csv")):
        trials, seeds = sqz.load_results(folder), sqz.load_results(folder, "seeds")
        later = [ResultFolder(folder).table(name) for name in ("compression", "int8")]
        spent = [seeds, *(table for table in later if table is not None)]
        on_gpu = trials[trials["device"].str.startswith("cuda").fillna(False)]
        one_by_one = [table[~table["trial"].isin(on_gpu["trial"])] for table in spent]
        hours = sum(table["duration_s"].sum() for table in one_by_one) / 3600
        took = f"{hours:.1f}"
        if len(on_gpu):  # side by side on one device: its time is spent once
            took = f"{hours + _hours_of_any(on_gpu, seeds):.1f}"
            took += f" ({sum(table['duration_s'].sum() for table in spent) / 3600:.1f})"
        machine = [
            ", ".join(map(str, trials[name].dropna().unique())) or "not kept"
            for name in ("device_name", "cpu_capability", "torch_version")
        ]
        threads = json.loads((folder / "provenance.json").read_text())["threads"]
        counts = [str(len(seeds)), took]
        link = f"[{folder.name}](../results/{folder.name})"
        rows.append([link, *counts, *machine[:2], str(threads), machine[2]])
    head = [
        "sweep",
        "trainings",
        "hours of them, summed; on a GPU, in which some ran (summed)",
        "processor",
        "instructions",
    ]
    return _table([*head, "threads a training", "torch"], rows)


def _hours_of_any(trials: pd.DataFrame, seeds: pd.DataFrame) -> float:
    """The hours in which some training ran, where those of a trial ran side by side."""
    begun = pd.to_datetime(trials["started_at"])
    longest = trials["trial"].map(seeds.groupby("trial")["duration_s"].max())
    ends = begun + pd.to_timedelta(longest, unit="s")
    total, until = pd.Timedelta(0), pd.Timestamp.min.tz_localize("UTC")
    for start, end in sorted(zip(begun, ends, strict=True)):
        total += max(end - max(start, until), pd.Timedelta(0))
        until = max(until, end)
    return total / pd.Timedelta(hours=1)


def on_cpu() -> str:
    """Our fastest mode, by images a second, beside torchvision's definition."""
    rows = []
    table = pd.read_csv(HERE / "throughput-cpu" / "benchmark.csv")
    for (network, batch), group in table.groupby(["network", "batch"]):
        baseline = group[group["vs_baseline"] == 1].iloc[0]
        ours = group[group["definition"].str.startswith("ours")]
        best = ours.loc[ours["images_per_s"].idxmax()]
        dtype = best["autocast"] if isinstance(best["autocast"], str) else best["dtype"]
        mode = f"{best['definition'].removeprefix('ours, ')}, {dtype}, {best['mode']}"
        same = ours["vs_same_mode"]
        rows.append([f"{network}, {batch}", f"{baseline['images_per_s']:.1f}"])
        rows[-1] += [f"{mode}: {best['images_per_s']:.1f}", _ratio(best, "vs_baseline")]
        rows[-1].append(f"{same.min():.2f}x, {same.max():.2f}x")
    head = ["network, batch", "baseline, images/s", "our fastest mode, images/s"]
    head += ["against the baseline", "ours in the same modes as its definition: least, greatest"]
    return _table(head, rows)


def on_gpu() -> str:
    """In CUDA graphs, float16, beside torchvision's network."""
    rows = []
    table = pd.read_csv(HERE / "throughput-gpu" / "benchmark-printed.csv")
    for (network, batch), group in table.groupby(["network", "batch"]):
        graphs = group[group["mode"] == "cuda_graph"].set_index("definition")
        fast, plain = graphs.loc["ours, inference"], graphs.loc["ours, module"]
        rows.append([f"{network}, {batch}", f"{group['images_per_s'].iloc[0]:,.0f}"])
        rows[-1] += [f"{fast['images_per_s']:,.0f}", _ratio(fast, "vs_baseline")]
        rows[-1] += [_ratio(row, "vs_same_mode") for row in (fast, plain)]
    head = ["network, batch", "baseline, images/s", "ours, inference form"]
    head += ["against the baseline", "against torchvision's in the same mode"]
    return _table([*head, "our module against torchvision's in the same mode"], rows)


def _ratio(row: pd.Series, name: str) -> str:
    return _within(row, name, ".2f", "x")


def genuine() -> str:
    """The authors' own weights of v1.1, compressed as a whole."""
    found = pd.read_csv(HERE / "benchmarks" / "genuine_compression.csv")
    rows = [
        [
            f"{row.density:g}",
            str(row.bits),
            f"{row.compressed_bytes / 1e6:.3f}",
            f"{row.agreement:.0f} ({row.ci_low:.0f} to {row.ci_high:.0f})",
        ]
        for row in found[found["layer"] == "all"].itertuples()
    ]
    images = found["images"].iloc[0]
    head = [
        "density",
        "bits",
        "file (MB)",
        f"agreement with the float network, % of {images} images",
    ]
    return _table(head, rows)


def smaller() -> str:
    """What each network of the sweep on compression lost, a column a setting."""
    folder = ResultFolder(HERE / "compression")
    trials, drops = sqz.load_results(folder.path), drops_of(folder)
    named = {
        (form, setting_text(form, row)): None
        for form, rows in drops.items()
        for _, row in rows.iterrows()
    }
    rows = []
    for trial in trials.sort_values(SMALLER).itertuples():
        cells = [str(getattr(trial, name)) for name in SMALLER]
        cells += [f"{trial.train_size_mb:.3f}", f"{trial.top1:.1f}"]
        for form, setting in named:
            own = drops[form][drops[form]["trial"] == trial.trial]
            row = next(row for _, row in own.iterrows() if setting_text(form, row) == setting)
            lost, low, high = (row[f"{form}_drop{end}"] for end in ("", "_ci_low", "_ci_high"))
            cells.append(f"{row[f'{form}_mb']:.3f}: {lost:+.1f} ({low:+.1f} to {high:+.1f})")
        rows.append(cells)
    heads = [("int8, " if form == "int8" else "") + setting for form, setting in named]
    head = [*SMALLER, "float32 (MB)", "top-1 (%)"]
    return _table([*head, *(f"{name}: MB, points lost" for name in heads)], rows)


def smaller_by_value() -> str:
    """What a metaparameter's last value costs less than its first, in architectures that are alike
    otherwise."""
    trials = sqz.load_results(HERE / "compression")
    rows = []
    for name in SMALLER:
        first, *_, last = sorted(trials[name].unique())
        others = [other for other in SMALLER if other != name]
        cells = [name, f"{first} to {last}"]
        for column in ("compressed_drop", "int8_drop"):
            wide = trials.pivot_table(index=others, columns=name, values=column)
            change = (wide[last] - wide[first]).to_numpy(dtype=float)
            half = stats.t.ppf(0.975, len(change) - 1) * stats.sem(change)
            mean = change.mean()
            cells.append(f"{mean:+.2f} ({mean - half:+.2f} to {mean + half:+.2f})")
        rows.append([*cells, str(len(change))])
    head = ["metaparameter", "from, to", "change of points lost, compressed", "the same, int8"]
    return _table([*head, "pairs"], rows)


def runtimes() -> str:
    """Median latency of each network in each runtime, and the fastest."""
    table = sqz.load_results(HERE / "runtimes", "throughput")
    trials = sqz.load_results(HERE / "runtimes").set_index("trial")
    table["way"] = table["runtime"] + " " + table["dtype"]
    rows = []
    for trial, group in table.groupby("trial"):
        cells = [f"{trials.loc[trial, name]:g}" for name in ("squeeze_ratio", "fraction_3x3")]
        cells.append(f"{trials.loc[trial, 'macs'] / 1e6:,.0f}M")
        for row in group.itertuples():
            if row.outcome != "measured":
                cells.append(row.outcome)
                continue
            low, high = row.latency_ms_p50_low, row.latency_ms_p50_high
            cells.append(f"{row.latency_ms_p50:.1f} ({low:.1f} to {high:.1f})")
        best = group.loc[group["latency_ms_p50"].idxmin(), "way"]
        rows.append([*cells, f"**{best}**"])
    head = [
        "squeeze_ratio",
        "fraction_3x3",
        "MACs",
        *(f"{way}, ms" for way in table["way"].unique()),
    ]
    return _table([*head, "fastest"], rows)


def runtime_ranks() -> str:
    """Whether the architectures rank alike in each pair of runtimes."""
    ranking = analysis.runtime_ranking(sqz.load_results(HERE / "runtimes", "throughput"))
    rows = [
        [
            *(row["first"], row["second"], str(row["architectures"]), f"{row['kendall']:.2f}"),
            "the same order"
            if pd.isna(row["ci_low"])
            else f"{row['ci_low']:.2f} to {row['ci_high']:.2f}",
        ]
        for row in ranking.to_dict("records")
    ]
    return _table(["in", "and in", "architectures", "Kendall's tau", "95% interval"], rows)


def repeats() -> str:
    """The same bench several times: how far apart, and how wide its intervals say that it is."""
    found = pd.read_csv(HERE / "benchmarks" / "repeats.csv")
    rows = []
    for (count, batch), group in found.groupby(["processes", "batch"]):
        for name in ("latency_ms_p50", "relative_to_reference"):
            ends = [*zip(group[f"{name}_low"], group[f"{name}_high"], strict=True)]
            pairs = [*itertools.combinations(ends, 2)]
            touching = sum(a[0] <= b[1] and b[0] <= a[1] for a, b in pairs)
            width = ((group[f"{name}_high"] - group[f"{name}_low"]) / group[name]).mean()
            apart = group[name].max() / group[name].min() - 1
            rows.append([str(count), str(batch), name, f"{apart:.1%}", f"{width:.1%}"])
            rows[-1].append(f"{touching} of {len(pairs)}")
    head = ["processes", "batch", "number", "apart", "width of its interval"]
    return _table([*head, "pairs of intervals that touch"], rows)


def macs_and_throughput() -> str:
    """How MACs rank throughput over the distinct networks of the paper's four questions; times
    by relative_to_reference."""
    table = _speeds()
    rows = []
    for batch, group in table.drop_duplicates(["net_id", "batch"]).groupby("batch"):
        rows.append([str(batch), str(len(group))])
        for name in ("images_per_s", "relative_to_reference"):
            rows[-1].append(f"{stats.spearmanr(group['macs'], group[name]).statistic:.2f}")
        early, late = (
            group[group["arch_id"] == Architecture(pool_after=pools).arch_id].iloc[0]
            for pools in ((1, 4, 8), (6, 8, 9))
        )
        rows[-1].append(f"{late['macs'] / early['macs']:.1f}x")
        slower = early["relative_to_reference"] / late["relative_to_reference"]
        rows[-1].append(f"{slower:.1f}x")
        of_a_mac = 1 / (group["relative_to_reference"] * group["macs"])
        rows[-1].append(f"{of_a_mac.max() / of_a_mac.min():.1f}x")
    head = ["batch", "networks", "Spearman of MACs and images/s", "and relative_to_reference"]
    head += ["MACs of pools 6,8,9 against 1,4,8", "their time"]
    head += ["time of a MAC, most against least"]
    return _table(head, rows)


def of_the_reference() -> str:
    """v1.0 in several sweeps on one machine: images a second, and relative to the reference."""
    table = _speeds()
    table = table[table["arch_id"] == Architecture().arch_id]
    rows = []
    for batch, group in table.groupby("batch"):
        rows.append([str(batch)])
        for name, form in (("images_per_s", ".1f"), ("relative_to_reference", ".3f")):
            values = group[name].astype(float)
            rows[-1].append(", ".join(f"{value:{form}}" for value in values))
            rows[-1].append(f"{values.max() / values.min() - 1:.0%}")
    return _table(["batch", "images/s", "apart", "relative_to_reference", "apart"], rows)


def _speeds() -> pd.DataFrame:
    """The throughput of the paper's four questions."""
    sweeps = ("sr", "fraction_3x3", "pooling", "bypass")
    folders = [HERE / "throughput-cpu" / sweep for sweep in sweeps]
    return pd.concat([sqz.load_results(folder, "throughput") for folder in folders])


def training_speed() -> str:
    """Images a second of each way to train, the median of its rounds, beside a plain loop."""
    rows = []
    table = pd.read_csv(HERE / "benchmarks" / "training.csv")
    for network, group in table.groupby("network", sort=False):
        rates = group.pivot(index="round", columns="way", values="images_per_s")
        plain = rates.columns[rates.columns.str.startswith("plain loop")][0]
        for way in group["way"].unique():
            ratio = rates[way] / rates[plain]
            ends = f"{ratio.median():.1f}x ({ratio.min():.1f} to {ratio.max():.1f})"
            rows.append([network.split(" (")[0], way, f"{rates[way].median():,.0f}"])
            rows[-1].append("1" if way == plain else ends)
    head = ["network", "way", "images/s", "against the plain loop (least to greatest)"]
    return _table(head, rows)


def recipes() -> str:
    """Validation top-1 of each rate and decay: the mean over the networks; what it is above the
    default's, with its interval over the seeds; and the most that a network loses to its own best.
    A budget is in it when all of its trainings are."""
    default = METHODS["default"]
    ours = f"AdamW {default.rate:g}, decay {default.weight_decay:g}"
    table = pd.read_csv(HERE / "benchmarks" / "recipes-fashion.csv")
    cells, sizes = defaultdict(list), table.groupby("epochs").size()
    for (epochs, _), group in table.groupby(["epochs", "batch_norm"]):
        if sizes[epochs] < sizes.max():
            continue
        seeds = group.pivot_table(index="seed", columns="recipe", values="val_top1")
        networks = group.pivot_table(
            index=["architecture", "width"], columns="recipe", values="val_top1"
        )
        lost = networks.rsub(networks.max(axis=1), axis=0).max()
        for recipe in group["recipe"].unique():
            said = "the default"
            if recipe != ours:
                above = stats.ttest_rel(seeds[recipe], seeds[ours]).confidence_interval()
                said = f"{(seeds[recipe] - seeds[ours]).mean():+.1f}"
                said += f" ({above.low:+.1f} to {above.high:+.1f})"
            cells[epochs, recipe] += [f"{seeds[recipe].mean():.1f}", said, f"{lost[recipe]:.1f}"]
    head = ["epochs", "recipe"]
    for kind in ("without BatchNorm", "with BatchNorm"):
        head += [kind, "above the default (95%)", "most lost"]
    return _table(head, [[str(epochs), recipe, *row] for (epochs, recipe), row in cells.items()])


def trainings_an_hour() -> str:
    """Trials an hour by how the machine is used, the mean of its rounds, alone and beside a busy
    process."""
    rows = []
    table = pd.read_csv(HERE / "benchmarks" / "workers.csv")
    rates = table.pivot_table(index="way", columns="neighbour", values="trials_per_h", sort=False)
    for way, row in rates.iterrows():
        rows.append([str(way), f"{row[False]:,.0f}", f"{row[False] / rates[False].iloc[0]:.2f}x"])
        beside = row[True]
        share = f"{beside:,.0f} ({beside / row[False]:.0%})" if pd.notna(beside) else "not done"
        rows[-1].append(share)
    head = ["way", "alone", "against the first", "beside a busy process (share kept)"]
    return _table(head, rows)


def audited(folder: str, unit: str, form: str = ".1f") -> str:
    """How often the intervals of what is predicted from a folder held networks held out."""
    rows = []
    for region in coverage(sqz.load_results(HERE / folder, "audit")).to_dict("records"):
        rows.append([str(region["region"]), f"{region['held']} of {region['networks']}"])
        ends = f"{region['coverage_low']:.0%} to {region['coverage_high']:.0%}"
        rows[-1] += [f"{region['coverage']:.0%} ({ends})", f"{region['width']:{form}}"]
        rows[-1] += [f"{region['error']:{form}}", f"{region['kendall']:.2f}"]
    head = ["networks held out", "in their 90% intervals", "share", f"mean width, {unit}"]
    return _table([*head, f"mean error, {unit}", "Kendall's tau"], rows)


def beside_simpler(folder: str, unit: str, form: str = ".1f") -> str:
    """What is predicted from a folder beside simpler predictions."""
    rows = []
    table = against_baselines(sqz.load_results(HERE / folder, "audit"))
    for row in table.to_dict("records"):
        rows.append([str(row["predictor"]), _within(row, "error", form)])
        rows[-1].append(_within(row, "kendall", ".2f") if pd.notna(row["kendall"]) else "-")
    return _table(["predictor", f"mean error, {unit}", "Kendall's tau"], rows)


def one_training_to_the_next() -> str:
    """How much FireBench's first networks vary with the seed; those that died are counted apart."""
    folder = HERE / "firebench_seeds"
    normed = sqz.load_results(folder).set_index("trial")["batch_norm"]
    seeds = sqz.load_results(folder, "seeds").join(normed, on="trial")
    rows = []
    for name, own in {
        "all": seeds,
        "without BatchNorm": seeds[~seeds["batch_norm"]],
        "with BatchNorm": seeds[seeds["batch_norm"]],
    }.items():
        groups = own[~own["dead"]].groupby("trial")["top1"]
        within, freedom = groups.std(), groups.size() - 1
        drawn = stats.bootstrap(
            (within, freedom), _pooled, paired=True, method="percentile", rng=0
        ).confidence_interval
        size = groups.transform("size")
        away = (own["top1"] - groups.transform("mean")).abs()  # of a mean that it is part of
        away *= np.sqrt(size / (size - 1))
        rows.append([name, str(own["trial"].nunique()), f"{own['dead'].sum()} of {len(own)}"])
        deviation = _pooled(within, freedom, axis=0)
        rows[-1].append(f"{deviation:.2f} ({drawn.low:.2f} to {drawn.high:.2f})")
        rows[-1] += [f"{within.median():.2f}", f"{within.max():.1f}"]
        rows[-1].append(f"{away.mean():.2f}")
    head = ["networks", "number", "trainings that died", "standard deviation, points"]
    head += ["its median over networks", "the greatest", "mean error that chance leaves, points"]
    return _table(head, rows)


def _pooled(within: Any, freedom: Any, axis: int) -> Any:
    """The standard deviation within groups, from that of each."""
    return np.sqrt((within**2 * freedom).sum(axis=axis) / freedom.sum(axis=axis))


def divisions() -> str:
    """How many of FireBench's networks the intervals held, divided into other tenths each time."""
    rows = []
    for target, own in pd.read_csv(HERE / "benchmarks" / "audits.csv").groupby("target"):
        held = own["held"]
        rows.append([str(target), f"{held.iloc[0]} of {own['networks'].iloc[0]}"])
        rows[-1] += [f"{held.min()} to {held.max()}", f"{held.mean():.1f}"]
        rows[-1].append(f"{own['coverage'].mean():.1%}")
    head = ["predicted", "held in the division of the audit", f"in {len(own)} divisions", "mean"]
    return _table([*head, "mean share"], rows)


def latencies() -> str:
    """How long FireBench's networks take in each runtime, and what ranks them alike."""
    table = sqz.load_results(HERE / "firebench_latency", "throughput")
    wide = table.pivot(index="trial", columns="runtime", values="latency_ms_p50").astype(float)
    costs = sqz.load_results(HERE / "firebench_latency").set_index("trial")
    rows = []
    for runtime in wide:
        own = wide[runtime]
        rows.append([str(runtime), f"{own.min():.3f}, {own.median():.3f}, {own.max():.3f}"])
        for other in (costs["macs"], costs["params"], wide.drop(columns=runtime).iloc[:, 0]):
            rows[-1].append(f"{own.corr(other.astype(float), method='spearman'):.2f}")
    head = ["runtime", "latency, ms: least, median, greatest", "Spearman with MACs"]
    return _table([*head, "with parameters", "with the other runtime"], rows)


def profiled() -> str:
    """What the audit of the committed profile found."""
    lines = json.loads((HERE / "profiles" / "epyc-onnxruntime.json").read_text())["audit"]
    return "\n".join(f"- {line}" for line in lines)


def searched() -> str:
    """Regret of the searches replayed against FireBench."""
    rows = []
    for row in pd.read_csv(HERE / "benchmarks" / "searches.csv").to_dict("records"):
        regret = _within(row, "regret", ".2f")
        if row["regret"] == 0:  # a mean of equal numbers has no interval
            regret = f"0, in all {row['repetitions']}"
        rows.append([row["sampler"], str(row["training"]), regret])
        beside = _within(row, "vs_random", "+.2f") if pd.notna(row["vs_random"]) else "-"
        rows[-1].append(beside)
    return _table(["sampler", "trainings", "regret, points", "less that of random"], rows)


def predicted_best() -> str:
    """The networks that were predicted to be the best under three pairs of bounds, trained."""
    said = pd.read_csv(HERE / "benchmarks" / "firebench_top-predicted.csv")
    trained = sqz.load_results(HERE / "firebench_top")
    both = said.merge(trained[["net_id", "top1", "val_top1"]], on="net_id", suffixes=("_said", ""))
    known = sqz.firebench(HERE / "firebench")
    first = known[known["trial"] < 72]  # those that the prediction rests on
    rows = []
    for (macs, params), group in both.groupby(["max_macs", "max_params"]):
        held = group["top1"].between(group["top1_low"], group["top1_high"]).sum()
        within, all_within = (
            f[(f["macs"] <= macs) & (f["params"] <= params)] for f in (first, known)
        )
        before, of_all, best = (
            f.loc[f["val_top1"].astype(float).idxmax()] for f in (within, all_within, group)
        )
        rows.append([f"{macs:,} MACs, {params:,} parameters", f"{held} of {len(group)}"])
        rows[-1] += [f"{group['top1_said'].mean():.1f}", f"{group['top1'].mean():.1f}"]
        rows[-1].append(f"{before['top1']:.1f} (of {len(within)})")
        rows[-1].append(f"{of_all['top1']:.1f} (of {len(all_within)})")
        rows[-1] += [f"{best['top1']:.1f}", f"{best['top1'] - before['top1']:+.1f}"]
    head = ["at most", "in their 90% intervals", "predicted, mean", "measured, mean"]
    head += ["best of the first 72", "best of all 150", "the best of these"]
    head += ["points more than of the first 72"]
    return _table(head, rows)


def _within(row: Mapping[str, Any] | pd.Series, name: str, form: str, unit: str = "") -> str:
    """A number with the ends of its interval."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return f"{row[name]:{form}}{unit} ({low:{form}} to {high:{form}})"


TABLES = {
    "MACs and throughput": macs_and_throughput,
    "the reference": of_the_reference,
    "recipes": recipes,
    "training speed": training_speed,
    "trainings an hour": trainings_an_hour,
    "FireBench predicted": lambda: audited("firebench", "points"),
    "FireBench predicted, beside simpler": lambda: beside_simpler("firebench", "points"),
    "FireBench's latency": latencies,
    "FireBench's latency predicted": lambda: audited("firebench_latency", "ms", ".3f"),
    "FireBench's latency predicted, beside simpler": lambda: beside_simpler(
        "firebench_latency", "ms", ".3f"
    ),
    "one training to the next": one_training_to_the_next,
    "audits": divisions,
    "a profile": profiled,
    "searches": searched,
    "the best predicted": predicted_best,
    "smaller": smaller,
    "smaller by value": smaller_by_value,
    "runtimes": runtimes,
    "ranks in runtimes": runtime_ranks,
    "repeats": repeats,
    "the authors' v1.1 compressed": genuine,
    "on a CPU": on_cpu,
    "on a GPU": on_gpu,
    "squeeze ratios": squeeze_ratios,
    "sr by budget": lambda: budgets("sr", "squeeze_ratio"),
    "fraction_3x3 by budget": lambda: budgets("fraction_3x3", "fraction_3x3"),
    "bypass by budget": lambda: budgets("bypass", "bypass"),
    "pooling by budget": lambda: budgets("pooling", "pool_after"),
    "the paper's claims": lambda: verdicts(of_paper=True),
    "other claims": lambda: verdicts(of_paper=False),
    "at equal MACs": at_equal_macs,
    "what stays": what_stays,
    "compute": compute,
}


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def written(text: str) -> str:
    """A page with its tables as they are computed."""
    pattern = re.compile(r"(<!-- table: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
    return pattern.sub(lambda m: f"{m[1]}{TABLES[m[2]]()}\n{m[3]}", text)


def main(check: bool) -> int:
    """Write everything, or say what differs."""
    wanted = {page: written(page.read_text()) for page in PAGES}
    wanted[HERE / "claims.csv"] = claims().round(6).to_csv(index=False)
    wanted[HERE / "curves.csv"] = curves().to_csv(index=False)
    wrong = [page for page, text in wanted.items() if page.read_text() != text]
    for page in wrong:
        print(f"{page}: {'is not what the tables say' if check else 'written'}")
        if not check:
            page.write_text(wanted[page])
    return int(check and bool(wrong))


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
