"""How much of a sweep is in: what its tables hold beside what its spec asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..spec.models import Spec
from .folder import ResultFolder

#: Spaces up to this size are counted: a search of more trials than architectures ends with these.
COUNTED = 1_000_000


@dataclass(frozen=True)
class Completeness:
    """How many trials of a sweep are in, of how many.

    `done` counts those that ended, well or not; `states` says how (`results.TRIALS["state"]`);
    `planned` is None where the number of trials does not follow from the spec.
    """

    done: int
    planned: int | None
    states: Mapping[str, int] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether nothing is missing; False where it cannot be known."""
        return self.planned is not None and self.done >= self.planned

    def __str__(self) -> str:
        of = f" of {self.planned:,}" if self.planned is not None else ""
        text = f"{self.done:,}{of} trial{'s' * ((self.planned or self.done) != 1)}"
        others = [f"{n:,} {state}" for state, n in self.states.items() if state != "complete"]
        return text + (f" ({', '.join(others)})" if others else "")


def completeness(folder: str | Path) -> Completeness:
    """How much of the sweep in `folder` is in, while it runs, after an interrupt or at its end.

    Args:
        folder: result folder of one sweep.

    Raises:
        UserError: the folder holds no spec, or a damaged one, or damaged tables.

    Example:
        >>> str(completeness("results/sr"))  # doctest: +SKIP
        '5 of 5 trials'
    """
    results = ResultFolder(folder)
    total = planned(results.spec())
    if (trials := results.table("trials")) is None:
        return Completeness(0, total)
    states = trials["state"].value_counts()
    return Completeness(int(states.sum()), total, {str(k): int(n) for k, n in states.items()})


def planned(spec: Spec) -> int | None:
    """How many architectures a sweep evaluates: those asked for, or all that there are."""
    space = spec.design_space
    if spec.search.sampler == "grid":
        return space.count()
    trials = spec.search.trials
    if space.enumerable and space.size <= COUNTED:
        return space.count() if trials is None else min(trials, space.count())
    return trials
