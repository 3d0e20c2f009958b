"""What a sweep evaluates next: what a dead process left, what was enqueued, of a grid or a sampler.

Several processes may share the study. A trial of a grid is made with its lease in it, so that its
number decides between two processes that want the same architecture; a sampler's trial is leased
once its architecture is known, and the earlier lease decides.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState
from pydantic import ValidationError

from ..network.architecture import Architecture
from ..results.completeness import planned
from ..space.strata import stratified
from ..spec.models import Spec
from .leases import OWNER, leased_before
from .mirror import Mirror
from .optuna_params import ask, distribution, from_params, to_params
from .optuna_private import storage_of, study_id, trial_id
from .samplers import sampler_of

#: Architectures of a search that only its timeout ends.
MOST_TRIALS = 1_000_000
#: Draws in a row that hit no feasible, new architecture before a search gives up.
_MOST_MISSES = 10_000
#: Of those, so many before the sweep may hear its workers again.
_MISSES_AT_ONCE = 100
#: Seconds in which two processes that take up the same trial must see each other.
_SETTLE_S = 1.0


@dataclass(frozen=True)
class Candidate:
    """A trial that this process is to evaluate; `deaths` counts the processes that died of it."""

    trial: Trial
    architecture: Architecture
    deaths: int = 0


class Proposals:
    """The trials that a process takes, one after the other.

    Args:
        spec: what to evaluate.
        mirror: of the study; read at least once before anything is proposed.
    """

    def __init__(self, spec: Spec, mirror: Mirror) -> None:
        self.spec, self.mirror, self.space = spec, mirror, spec.design_space
        self._study, self._leases = mirror.study, mirror.leases
        self._distributions = {axis.field: distribution(axis) for axis in self.space.axes}
        self._misses = 0
        self._users = self._enqueued()
        self._list = self._untaken()

    def next(self) -> Candidate | None:
        """A trial that this process holds from now on, or None while there is none: by what the
        mirror knows since its last `sync`."""
        for trial in list(self.mirror.others.values()):
            if not self.mirror.lives(trial) and (candidate := self._take_up(trial)):
                return candidate
        if candidate := next(self._users, None):
            return candidate
        listed = self.spec.search.sampler == "grid" or self.spec.search.stratify
        return self._of_list() if listed else self._of_sampler()

    def block(self, size: int) -> list[Architecture]:
        """The grid's next architectures, which the caller evaluates without trials of their own."""
        return list(itertools.islice(self._list, size))

    def template(
        self,
        architecture: Architecture,
        state: TrialState,
        values: list[float] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> FrozenTrial:
        """A trial of one Architecture as Optuna's storages take it."""
        axes = [axis for axis in self.space.axes if axis.active(architecture.get)]
        return optuna.trial.create_trial(
            state=state,
            values=values,
            params=to_params(self.space, architecture),
            distributions={axis.field: self._distributions[axis.field] for axis in axes},
            user_attrs=dict(attributes or {}),
        )

    # --- where candidates come from --------------------------------------------------------------

    @cached_property
    def _salt(self) -> int:
        """Processes that work together must not all draw the same."""
        return random.SystemRandom().randrange(1, 2**20) if self.mirror.company else 0

    def _take_up(self, trial: FrozenTrial) -> Candidate | None:
        """Go on with a trial whose process died or let go of it."""
        # Optuna goes on with a trial of an earlier process by its storage id alone.
        live = Trial(self._study, trial_id(trial))
        return self._checked(live, self.mirror.deaths(trial), settle=not self.mirror.alone())

    def _enqueued(self) -> Iterator[Candidate]:
        """The trials that users enqueued before this process began."""
        for _ in self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            if candidate := self._drawn():
                yield candidate

    def _of_list(self) -> Candidate | None:
        """The list's next. An architecture whose trial was lost comes again in another pass."""
        mirror = self.mirror
        while True:
            for architecture in self._list:
                if candidate := self._created(architecture):
                    return candidate
            if not mirror.lost or mirror.mine or mirror.others:
                return None
            self._list, mirror.lost = self._untaken(), False

    def _untaken(self) -> Iterator[Architecture]:
        """The architectures of the grid, or of the strata, that no process has."""
        for architecture in self._listed():
            if not self.mirror.taken(architecture.arch_id):
                yield architecture

    def _listed(self) -> Iterator[Architecture]:
        """All that the sweep evaluates, where that is known beforehand: a grid, or strata."""
        if column := self.spec.search.stratify:
            drawn = stratified(self.space, column, self.spec.search.seed)
            return itertools.islice(drawn, self._wanted)
        if not self._salt:
            return map(self.space.architecture, self.space.indices())
        indices = list(self.space.indices())
        random.Random(self._salt).shuffle(indices)
        return map(self.space.architecture, indices)

    @cached_property
    def _wanted(self) -> int:
        """Architectures in all; to count a large space takes a while."""
        return planned(self.spec) or MOST_TRIALS

    def _of_sampler(self) -> Candidate | None:
        wanted, mirror = self._wanted, self.mirror
        for _ in range(_MISSES_AT_ONCE if mirror.mine or mirror.others else _MOST_MISSES):
            held = len(mirror.mine) + len(mirror.others)
            if len(mirror.known) + held >= wanted or self._misses >= _MOST_MISSES:
                return None
            self._misses += 1
            if candidate := self._drawn():
                self._misses = 0
                return candidate
        return None

    # --- a trial, and its lease ------------------------------------------------------------------

    def _drawn(self) -> Candidate | None:
        """The study's next trial. A sampler of its own seed for each makes a resumed search draw
        what an uninterrupted one draws."""
        self._study.sampler = sampler_of(self.spec, self.mirror.size + self._salt, self._misses)
        self.mirror.size += 1
        try:
            return self._checked(ask(self._study, self.space))
        except UpdateFinishedTrialError:  # it took so long that another process held it for dead
            return None

    def _created(self, architecture: Architecture) -> Candidate | None:
        """A new trial of one Architecture. It is handed to the storage as it is, in constant time:
        an enqueued trial would be looked for among all that there are."""
        self._study.sampler = sampler_of(self.spec, self.mirror.size, 0)
        mark = self._leases.mark(architecture.arch_id, created=True)
        template = self.template(architecture, TrialState.RUNNING, attributes={OWNER: mark})
        storage = storage_of(self._study)
        trial = Trial(self._study, storage.create_new_trial(study_id(self._study), template))
        self.mirror.hold(trial, mark)
        return self._held(trial, architecture, mark)

    def _checked(self, trial: Trial, deaths: int = 0, settle: bool = False) -> Candidate | None:
        """Lease the trial, unless its architecture is infeasible or another trial has it."""
        try:
            architecture = from_params(self.space, trial.params)
        except (ValidationError, KeyError):
            architecture = None
        if architecture is None or not self.space.accepts(architecture):
            self.mirror.end(trial.number, TrialState.PRUNED)
            return None
        if known := self.mirror.known.get(architecture.arch_id):
            self.mirror.same(trial, known)
            return None
        mark = self._leases.mark(architecture.arch_id, deaths)
        self.mirror.hold(trial, mark)
        try:
            trial.set_user_attr(OWNER, mark)
        except UpdateFinishedTrialError:  # by another process, just now
            self.mirror.let_go(trial)
            return None
        if settle:
            time.sleep(_SETTLE_S)
        return self._held(trial, architecture, mark)

    def _held(
        self, trial: Trial, architecture: Architecture, mark: Mapping[str, Any]
    ) -> Candidate | None:
        """The trial, if it is this process's and the first of its architecture."""
        mirror, arch_id = self.mirror, architecture.arch_id
        mirror.update()
        if trial.number in mirror.others:  # another process took it up too, and wrote last
            mirror.let_go(trial)
        if trial.number not in mirror.mine:  # or has ended it
            return None
        known = mirror.known.get(arch_id)
        first = leased_before(trial.number, mark, mirror.others.values())
        mine = any(a == arch_id and n != trial.number for n, a in mirror.mine.items())
        if not (known or first or mine):
            return Candidate(trial, architecture, mark["attempts"])
        mirror.let_go(trial)
        if known:
            mirror.same(trial, known)
        else:
            mirror.end(trial.number, TrialState.FAIL)
            mirror.lost = True
        return None
