"""What a sweep evaluates next: of a grid, of a sampler, or what a dead process left.

Several processes may share the study. A trial of a grid is made with its claim in it, so that its
number decides between two processes that want the same architecture; a sampler's trial is claimed
once its architecture is known, and the earlier claim decides.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState
from pydantic import ValidationError

from ..network.architecture import Architecture
from ..results.completeness import planned
from ..space.strata import stratified
from ..spec.models import Spec
from .leases import OWNER, Leases, alive, leased_before
from .optuna_params import ask, distribution, from_params, to_params
from .optuna_private import storage_of, study_id, trial_id
from .samplers import sampler_of
from .trial_tables import Known, Record

#: Draws in a row that hit no feasible, new architecture before a search gives up.
_MOST_MISSES = 10_000
#: Of those, so many before the sweep may hear its workers again.
_MISSES_AT_ONCE = 100
#: Architectures of a search that only its timeout ends.
_MOST_TRIALS = 1_000_000
#: Seconds in which two processes that take up the same trial must see each other.
_SETTLE_S = 1.0


@dataclass(frozen=True)
class Candidate:
    """A trial that this process is to evaluate; `deaths` counts the processes that died of it."""

    trial: Trial
    architecture: Architecture
    deaths: int = 0


class Candidates:
    """The trials of a study, as one process sees them.

    Args:
        spec: what to evaluate.
        study: of the sweep.
        leases: which trials are this process's.
        record: takes every finished trial.
        in_database: whether processes that do not work in this folder may share the study.
        on_row: called with a trial that finished, here or elsewhere, and its row of `trials`.
    """

    def __init__(
        self,
        spec: Spec,
        study: optuna.Study,
        leases: Leases,
        record: Record,
        in_database: bool,
        on_row: Callable[[FrozenTrial, Mapping[str, Any]], None],
    ) -> None:
        self.spec, self.study, self.leases, self.record = spec, study, leases, record
        self.space = spec.design_space
        #: Unfinished trials of other processes, living and dead.
        self.others: dict[int, FrozenTrial] = {}
        self._mine: dict[int, str] = {}
        self._in_database, self._on_row = in_database, on_row
        self._open: list[int] = []
        self._read = self._asked = self._misses = 0
        self._distributions = {axis.field: distribution(axis) for axis in self.space.axes}
        self.sync()
        #: What was left behind before this process began is no fault of the architecture.
        self._left_behind = {n for n, trial in self.others.items() if not self._lives(trial)}
        #: Processes that work together must not all draw the same.
        company = not leases.alone() or len(self._left_behind) < len(self.others)
        self._salt = random.SystemRandom().randrange(1, 2**20) if company else 0
        waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        self._enqueued = len(waiting)
        self._grid, self._lost = self._new(), False

    def sync(self) -> None:
        """Read what changed in the study."""
        trials = self.study.get_trials(deepcopy=False)
        unread = [*(trials[number] for number in self._open), *trials[self._read :]]
        self._open = [trial.number for trial in unread if not trial.state.is_finished()]
        self._read = self._asked = len(trials)
        for trial in unread:
            self.others.pop(trial.number, None)
            if trial.state.is_finished():
                self._let_go(trial)  # if it was held: another process may have finished it
                if row := self.record.take(trial):
                    self._on_row(trial, row)
            elif trial.state == TrialState.RUNNING and not self.leases.owns(trial):
                self.others[trial.number] = trial
            elif trial.state == TrialState.RUNNING and trial.number not in self._mine:
                # A lost database made it twice, the answer to the first time being lost.
                self._end(trial.number, TrialState.FAIL)
                self._lost = True

    def next(self) -> Candidate | None:
        """A trial that this process holds from now on, or None while there is none."""
        self.sync()
        for trial in list(self.others.values()):
            if not self._lives(trial) and (candidate := self._take_up(trial)):
                return candidate
        while self._enqueued:
            self._enqueued -= 1
            if candidate := self._drawn():
                return candidate
        listed = self.spec.search.sampler == "grid" or self.spec.search.stratify
        return self._of_list() if listed else self._of_sampler()

    def done(self, trial: Trial) -> None:
        """The trial is finished in the study, or another process's by now."""
        self._let_go(trial)
        self.sync()

    def holds(self, trial: Trial) -> bool:
        """Whether the trial is unfinished and still this process's: another one may have held this
        one for dead."""
        stored = storage_of(self.study).get_trial(trial_id(trial))
        return self.leases.owns(stored) and not stored.state.is_finished()

    def repeat(self, trial: Trial, deaths: int) -> bool:
        """Keep a trial after a death: the next process to take it up must know of it.

        Returns:
            Whether it is still this process's.
        """
        mark = self.leases.mark(self._mine[trial.number], deaths)
        with suppress(UpdateFinishedTrialError):
            if self.holds(trial):
                trial.set_user_attr(OWNER, mark)
                self.leases.hold(trial_id(trial), mark)
                return True
        return False

    def same(self, trial: Trial, known: Known) -> None:
        """End a trial whose architecture has a row already."""
        try:
            trial.set_user_attr("same_as", known.number)
            for name, distance in known.constraints.items():
                trial.set_constraint(name, distance)
        except UpdateFinishedTrialError:
            return
        self._end(trial.number, None if known.values else TrialState.FAIL, known.values)

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

    def block(self, size: int) -> list[Architecture]:
        """The grid's next architectures, which the caller evaluates without trials of their own."""
        return list(itertools.islice(self._grid, size))

    def _new(self) -> Iterator[Architecture]:
        """The architectures of the grid, or of the strata, that no process has."""
        for architecture in self._listed():
            if not self._taken(architecture.arch_id):
                yield architecture

    def _hold(self, trial: Trial, mark: Mapping[str, Any]) -> None:
        self._mine[trial.number] = mark["arch_id"]
        self.leases.hold(trial_id(trial), mark)

    def _let_go(self, trial: Trial | FrozenTrial) -> None:
        self.leases.forget(trial_id(trial))
        self._mine.pop(trial.number, None)

    # --- where candidates come from --------------------------------------------------------------

    def _of_list(self) -> Candidate | None:
        """The list's next. An architecture whose claim was lost comes again in another pass."""
        while True:
            for architecture in self._grid:
                if candidate := self._created(architecture):
                    return candidate
            if not self._lost or self._mine or self.others:
                return None
            self._grid, self._lost = self._new(), False

    def _listed(self) -> Iterator[Architecture]:
        """All that the sweep evaluates, where that is known beforehand: a grid, or strata."""
        if column := self.spec.search.stratify:
            drawn = stratified(self.space, column, self.spec.search.seed)
            return itertools.islice(drawn, planned(self.spec) or _MOST_TRIALS)
        if not self._salt:
            return map(self.space.architecture, self.space.indices())
        indices = list(self.space.indices())
        random.Random(self._salt).shuffle(indices)
        return map(self.space.architecture, indices)

    def _of_sampler(self) -> Candidate | None:
        wanted = planned(self.spec) or _MOST_TRIALS
        for _ in range(_MISSES_AT_ONCE if self._mine or self.others else _MOST_MISSES):
            held = len(self._mine) + len(self.others)
            if len(self.record.known) + held >= wanted or self._misses >= _MOST_MISSES:
                return None
            self._misses += 1
            if candidate := self._drawn():
                self._misses = 0
                return candidate
        return None

    def _take_up(self, trial: FrozenTrial) -> Candidate | None:
        """Go on with a trial whose process died or let go of it."""
        owner = trial.user_attrs.get(OWNER) or {"process": None, "attempts": 0}
        killed = owner["process"] is not None and trial.number not in self._left_behind
        deaths = owner["attempts"] + killed
        # Optuna goes on with a trial of an earlier process by its storage id alone.
        live = Trial(self.study, trial_id(trial))
        return self._checked(live, deaths, settle=not self._alone())

    # --- leases ----------------------------------------------------------------------------------

    def _drawn(self) -> Candidate | None:
        """The study's next trial. A sampler of its own seed for each makes a resumed search draw
        what an uninterrupted one draws."""
        self.study.sampler = sampler_of(self.spec, self._asked + self._salt, self._misses)
        self._asked += 1
        try:
            return self._checked(ask(self.study, self.space))
        except UpdateFinishedTrialError:  # it took so long that another process held it for dead
            return None

    def _created(self, architecture: Architecture) -> Candidate | None:
        """A new trial of one Architecture. It is handed to the storage as it is, in constant time:
        an enqueued trial would be looked for among all that there are."""
        self.study.sampler = sampler_of(self.spec, self._asked, 0)
        mark = self.leases.mark(architecture.arch_id, created=True)
        template = self.template(architecture, TrialState.RUNNING, attributes={OWNER: mark})
        storage = storage_of(self.study)
        trial = Trial(self.study, storage.create_new_trial(study_id(self.study), template))
        self._hold(trial, mark)
        return self._held(trial, architecture, mark)

    def _checked(self, trial: Trial, deaths: int = 0, settle: bool = False) -> Candidate | None:
        """Claim the trial, unless its architecture is infeasible or another trial has it."""
        try:
            architecture = from_params(self.space, trial.params)
        except (ValidationError, KeyError):
            architecture = None
        if architecture is None or not self.space.accepts(architecture):
            self._end(trial.number, TrialState.PRUNED)
            return None
        if known := self.record.known.get(architecture.arch_id):
            self.same(trial, known)
            return None
        mark = self.leases.mark(architecture.arch_id, deaths)
        self._hold(trial, mark)
        try:
            trial.set_user_attr(OWNER, mark)
        except UpdateFinishedTrialError:  # by another process, just now
            self._let_go(trial)
            return None
        if settle:
            time.sleep(_SETTLE_S)
        return self._held(trial, architecture, mark)

    def _held(
        self, trial: Trial, architecture: Architecture, mark: Mapping[str, Any]
    ) -> Candidate | None:
        """The trial, if it is this process's and the first of its architecture."""
        self.sync()
        if trial.number in self.others:  # another process took it up too, and wrote last
            self._let_go(trial)
        if trial.number not in self._mine:  # or has ended it
            return None
        known = self.record.known.get(architecture.arch_id)
        first = leased_before(trial.number, mark, self.others.values())
        mine = [n for n, a in self._mine.items() if a == architecture.arch_id and n != trial.number]
        if known or first or mine:
            self._let_go(trial)
            if known:
                self.same(trial, known)
            else:
                self._end(trial.number, TrialState.FAIL)
                self._lost = True
            return None
        return Candidate(trial, architecture, mark["attempts"])

    def _end(
        self, number: int, state: TrialState | None, values: list[float] | None = None
    ) -> None:
        """Finish a trial that has no row; another process may have done so before."""
        with suppress(UpdateFinishedTrialError):
            self.study.tell(number, values, state=state, skip_if_finished=True)

    def _lives(self, trial: FrozenTrial) -> bool:
        if OWNER not in trial.user_attrs and self._alone():
            return False
        return alive(trial)

    def _alone(self) -> bool:
        return not self._in_database and self.leases.alone()

    def _taken(self, arch_id: str) -> bool:
        if arch_id in self.record.known or arch_id in self._mine.values():
            return True
        owners = (trial.user_attrs.get(OWNER) for trial in self.others.values())
        return any(owner and owner["arch_id"] == arch_id for owner in owners)
