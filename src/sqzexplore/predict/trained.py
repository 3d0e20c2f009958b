"""The measured networks that a prediction learns from, and what a row of a table means to it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..analysis.validation import (
    largest_budget,
    numbers,
    require_alike,
    require_columns,
    require_rows,
)
from ..errors import UserError, nearest, shown
from ..measure.settings import ITEM_BYTES
from ..network.architecture import KEYS, Architecture
from ..network.columns import take_rows
from ..network.frames import columns_of_frame
from ..network.identity import network_keys
from ..network.overrides import MAX_FIRES, OVERRIDES
from ..results.folder import ResultFolder, load_results
from ..results.tables import shared_value
from ..schema import measured
from ..space.space import Variant
from ..spec.models import AT_RANDOM, SAMPLERS
from .features import Machine, features, names_of

#: Networks that a fit needs: below, the ten models that are compared have nothing to learn from.
LEAST = 20
#: Accuracy is that of the data's images and classes, whatever the network is deployed for.
_AS_THE_DATA_HAS_IT = {"in_channels": 3, "num_classes": 10}
#: A large processor's core; where a table does not say, only the features' unit depends on it.
_ANY_MACHINE = {"macs_per_s": 5e10, "bytes_per_s": 1e10}


@dataclass(frozen=True)
class View:
    """How architectures are looked at before they are predicted: as what was measured of them.

    Args:
        target: the predicted column.
        seen_as: the side of the images, and the proxy: fields that the trained networks had.
        machine: of a speed, what the roofline floor is of.
    """

    target: str
    seen_as: Variant
    machine: Machine | None = None

    @property
    def of_accuracy(self) -> bool:
        """Whether the target is an accuracy, of a network that may be dead."""
        return self.machine is None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the features."""
        return names_of(self.machine)

    def features(self, columns: Mapping[str, Any], rows: int) -> NDArray[np.float64]:
        """Their features, rows x names; NaN where the measured network cannot be built."""
        seen = self.seen_as
        return features(seen.columns(columns), rows, seen.input_size, self.machine)

    def networks(self, columns: Mapping[str, Any], rows: int) -> NDArray[np.uint64]:
        """Which network each is, as it was measured: a number that equal ones share."""
        return network_keys(_rowwise(self.seen_as.columns(columns), rows), rows)


@dataclass(frozen=True)
class Trained:
    """Measured networks.

    Args:
        view: how they are looked at.
        features: rows x names.
        values: the target, mean over the trainings; NaN of a network that is dead.
        one: that of one training, drawn where there were several: what an interval is for.
        dead: trainings that did not learn.
        trainings: all of them.
        networks: a number that two rows share where they are one network as measured.
        sampler: who chose the rows; empty if that is not known.
        rows: the numbers of the table's rows.
    """

    view: View
    features: NDArray[np.float64]
    values: NDArray[np.float64]
    one: NDArray[np.float64]
    dead: NDArray[np.float64]
    trainings: NDArray[np.float64]
    networks: NDArray[Any]
    sampler: str
    rows: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.values)

    def take(self, index: Any) -> Trained:
        """Some of the rows."""
        names = ("features", "values", "one", "dead", "trainings", "networks", "rows")
        return Trained(
            view=self.view, sampler=self.sampler, **{n: getattr(self, n)[index] for n in names}
        )

    @property
    def learned(self) -> Trained:
        """The networks that have the target."""
        return self.take(~np.isnan(self.values))

    def require(self, caller: str) -> None:
        """Raise `UserError` if there are too few networks to learn from."""
        found = len(np.unique(self.learned.networks))
        require_rows(caller, found, LEAST, f"different networks with {self.view.target}")


def trained_of(
    trials: pd.DataFrame, target: str, sampler: str | None = None, seed: int = 0
) -> Trained:
    """The measured networks of a table of trials.

    Args:
        trials: as `load_results` gives it; rows that failed are passed over, and for an accuracy
            those that a search ended early.
        target: an accuracy of the trained network, or a speed (`schema.measured`).
        sampler: who chose the rows; None: what their column `sampler` says, if there is one.
        seed: of the training that is drawn to stand for a network's several.

    Raises:
        UserError: an unknown target, rows that cannot be compared, or no numbers.
    """
    # What a network is made into after its training depends on more than is looked at here.
    kinds = {n: by for n, by in measured().items() if by not in ("compression", "int8")}
    if target not in kinds:
        raise UserError(
            f"fit: target: found {shown(target)}, expected a measured column: "
            f"{', '.join(kinds)}{nearest(target, kinds)}"
        )
    require_columns("fit", trials, [target])
    of_accuracy = kinds[target] == "accuracy"
    failed = failed_to_learn(trials) if of_accuracy else np.zeros(len(trials), bool)
    blank = failed | ended_early(trials) if of_accuracy else failed
    values = np.where(blank, np.nan, numbers("fit", trials, target))
    kept = np.flatnonzero(~np.isnan(values) | failed)
    require_rows("fit", len(kept), LEAST, f"rows with {target}")
    frame = trials.iloc[kept]
    require_alike("fit", frame, [target])
    view = _view(frame, target, of_accuracy)
    columns = columns_of_frame(frame)
    made = view.features(columns, len(frame))
    if np.isnan(made).any():
        row = kept[int(np.flatnonzero(np.isnan(made).any(axis=1))[0])]
        size = view.seen_as.input_size
        raise UserError(f"fit: row {row}: this network has no feature map at {size}")
    trainings = np.maximum(_counts(frame, "seeds", 1.0), 1.0)
    dead = _counts(frame, "dead_seeds", 0.0) + _counts(frame, "diverged_seeds", 0.0)
    dead = np.where(failed[kept], np.maximum(dead, 1.0), dead if of_accuracy else 0.0)
    return Trained(
        view=view,
        features=made,
        values=values[kept],
        one=_one_training(frame, values[kept], target, trainings, seed),
        dead=np.minimum(dead, trainings),
        trainings=trainings,
        networks=view.networks(columns, len(frame)),
        sampler=_sampler(frame, sampler),
        rows=kept,
    )


def failed_to_learn(trials: pd.DataFrame) -> NDArray[np.bool_]:
    """Rows whose accuracy says that there was none: dead, or diverged."""
    return _in_state(trials, "dead", "diverged")


def ended_early(trials: pd.DataFrame) -> NDArray[np.bool_]:
    """Rows whose accuracy is that of a part of the training, which a search ended."""
    return _in_state(trials, "pruned")


def _in_state(trials: pd.DataFrame, *states: str) -> NDArray[np.bool_]:
    if "state" not in trials:
        return np.zeros(len(trials), bool)
    return trials["state"].isin(states).to_numpy(dtype=bool)


def _counts(frame: pd.DataFrame, name: str, otherwise: float) -> NDArray[np.float64]:
    if name not in frame:
        return np.full(len(frame), otherwise)
    return frame[name].to_numpy(dtype=np.float64, na_value=otherwise)


def _one_training(
    frame: pd.DataFrame,
    means: NDArray[np.float64],
    target: str,
    trainings: NDArray[np.float64],
    seed: int,
) -> NDArray[np.float64]:
    """One training's accuracy a row: an interval for the next training must hold its seed's noise,
    of which a mean over k seeds has lost a part.

    Of k trainings with mean m and standard deviation s, m - d or m + d with d = s sqrt(1 - 1/k),
    drawn: of two trainings these are the two, of more they have their mean and their variance.
    """
    if f"{target}_sd" not in frame:
        return means
    spread = np.nan_to_num(_counts(frame, f"{target}_sd", 0.0)) * np.sqrt(1 - 1 / trainings)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], len(frame))
    return means + signs * spread


def _view(frame: pd.DataFrame, target: str, of_accuracy: bool) -> View:
    """What was measured of the rows: the trained network, or the deployed one on its machine."""
    if not of_accuracy:
        return View(target, Variant(shared_value(frame, "input_size", 224)), _machine(frame))
    size = shared_value(frame, "train_input_size", shared_value(frame, "input_size", 224))
    proxy = shared_value(frame, "proxy", "none")
    return View(target, Variant(size, {**parse_proxy(proxy), **_AS_THE_DATA_HAS_IT}))


def _machine(frame: pd.DataFrame) -> Machine:
    rates = {"macs_per_s": "matrix_macs_per_s", "bytes_per_s": "copy_bytes_per_s"}
    known = {
        name: float(frame[column].median())
        for name, column in rates.items()
        if column in frame and frame[column].notna().any()
    }
    batch, dtype = int(shared_value(frame, "batch", 1)), shared_value(frame, "dtype", "float32")
    return Machine(**(_ANY_MACHINE | known), batch=batch, item_bytes=ITEM_BYTES[dtype])


def level_text(level: float) -> str:
    """A level as text: 90%, 97.5%."""
    return f"{100 * level:g}%"


def coverage_text(sampler: str, level: float) -> str:
    """What may be said of the coverage of intervals, by who chose the measured networks: the level
    where it did not look at their results; else that, or why, it is not supported.

    Intervals hold their share of networks that were drawn as the measured ones were.
    """
    if not sampler:
        return "not supported: it is not known who chose the measured networks"
    if set(sampler.split(", ")) <= set(AT_RANDOM):
        return level_text(level)
    return f"not supported: {sampler} chose the measured networks by their results"


def parse_proxy(text: str) -> dict[str, Any]:
    """What tables show as `width_multiplier=0.125 pool_after=1,3,5`, as valid fields.

    Raises:
        UserError: it is no such text.
    """
    if text == "none":
        return {}
    found = {}
    for part in text.split():
        name, _, value = part.partition("=")
        if name not in KEYS or not re.fullmatch(r"[\w.,+-]*", value):
            raise UserError(f"column 'proxy': found {shown(text)}, expected none or key=value ...")
        found[name] = _value(name, value)
    try:
        # How many Fires the base has is not known here: of so many no layer is missing.
        Architecture(**{"pool_after": (), "fires": MAX_FIRES, **found})
    except ValueError:
        raise UserError(f"column 'proxy': found {shown(text)}, expected valid fields") from None
    return found


def _value(name: str, text: str) -> Any:
    kind = KEYS[name]
    if name in OVERRIDES and text == "None":  # it takes back what the base overrides
        return None
    if kind is bool:
        return {"True": True, "False": False}.get(text, text)
    if kind is tuple:
        return tuple(int(layer) for layer in text.split(",") if layer)
    try:
        return kind(text)
    except ValueError:
        return text  # refused as a field of the wrong type


def _rowwise(columns: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """Columns of as many rows, scalars drawn out."""
    return take_rows({k: np.broadcast_to(v, rows) for k, v in columns.items()}, slice(None))


def _sampler(frame: pd.DataFrame, given: str | None) -> str:
    if given is not None:
        if given not in SAMPLERS:
            raise UserError(
                f"--sampler: found {shown(given)}, expected one of {', '.join(SAMPLERS)}"
                f"{nearest(given.lower(), SAMPLERS)}"
            )
        return given
    if "sampler" not in frame or frame["sampler"].isna().any():
        return ""
    return ", ".join(sorted(map(str, frame["sampler"].unique())))


def load_trained(folder: Path, target: str) -> pd.DataFrame:
    """The trials of a result folder with all that a fit can use: `sampler` as its spec has it; for
    an accuracy, its standard deviation over the seeds; for a speed, the machine's rates.

    A spec that lists its networks does not say who chose them: it may have been a prediction.

    Raises:
        UserError: there is no such folder.
    """
    trials = load_results(folder)
    results = ResultFolder(folder)
    if results.spec_file.is_file() and not (spec := results.spec()).design_space.listed:
        trials = trials.assign(sampler=spec.search.sampler)
    section = measured().get(target)
    if section == "accuracy":
        return _with_spread(trials, results.table("seeds"), target)
    if section == "throughput":
        return _with_rates(trials, results.table("throughput"))
    return trials


def _with_spread(trials: pd.DataFrame, seeds: pd.DataFrame | None, target: str) -> pd.DataFrame:
    """With the standard deviation of `target` over the trainings of each trial."""
    name = f"{target}_sd"
    if name in trials or seeds is None or target not in seeds:
        return trials
    each = largest_budget(seeds).groupby(["sweep", "trial"])[target]
    return trials.merge(each.std().rename(name).reset_index(), on=["sweep", "trial"], how="left")


def _with_rates(trials: pd.DataFrame, speeds: pd.DataFrame | None) -> pd.DataFrame:
    """With the rates of the machine that measured each trial."""
    if speeds is None:
        return trials
    rates = ["matrix_macs_per_s", "copy_bytes_per_s"]
    # The machine's, whatever ran on it: a row of another runtime than torch has none of its own.
    keys = ["sweep", "trial", "device", "dtype"]
    known = speeds.dropna(subset=rates)[[*keys, *rates]].drop_duplicates(keys)
    return trials.merge(known, on=keys, how="left")
