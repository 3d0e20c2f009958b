"""A study as one process sees it: what is known, what it holds, what others evaluate.

Several processes may share the study. Which of them holds an unfinished trial is decided by its
lease (`leases`); what the process read of the study is brought up to date by `sync`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from .leases import OWNER, Leases, alive
from .optuna_private import storage_of, trial_id

#: Seconds after which a process looks what was done meanwhile, by its executor and elsewhere.
POLL_S = 1.0


@dataclass(frozen=True)
class Known:
    """An architecture that has its trial: its number, and its objective values, if complete."""

    number: int
    values: list[float] | None
    constraints: Mapping[str, float]


class Mirror:
    """The trials of a study; nothing is read before the first `sync`.

    Args:
        study: of the sweep.
        leases: which trials are this process's.
        in_database: whether processes that do not work in this folder may share the study.
    """

    def __init__(self, study: optuna.Study, leases: Leases, in_database: bool) -> None:
        self.study, self.leases, self._in_database = study, leases, in_database
        #: Finished trials with a row, by `arch_id`; of several the one that was read first.
        self.known: dict[str, Known] = {}
        #: Unfinished trials of other processes, living and dead.
        self.others: dict[int, FrozenTrial] = {}
        #: Numbers of the trials that this process holds, and the `arch_id` of each.
        self.mine: dict[int, str] = {}
        #: Trials that the study has, as far as is known.
        self.size = 0
        #: Whether an architecture was proposed, but its trial was lost to this process.
        self.lost = False
        #: Whether other processes worked on the study when it was read first.
        self.company = False
        #: What was left behind before this process began is no fault of the architecture.
        self._left_behind: set[int] | None = None
        self._read, self._unfinished = 0, list[int]()
        self._finished: list[FrozenTrial] = []

    def sync(self) -> list[FrozenTrial]:
        """Read what changed in the study.

        Returns:
            The trials with a row that finished since the last call, here or elsewhere, one an
            architecture.
        """
        self.update()
        finished, self._finished = self._finished, []
        return finished

    def update(self) -> None:
        """Read what changed, and leave what finished to the next `sync`."""
        trials = self.study.get_trials(deepcopy=False)
        unread = [*(trials[number] for number in self._unfinished), *trials[self._read :]]
        self._unfinished = [trial.number for trial in unread if not trial.state.is_finished()]
        self._read = self.size = len(trials)
        for trial in unread:
            self.others.pop(trial.number, None)
            if trial.state.is_finished():
                self._take(trial)
            elif trial.state == TrialState.RUNNING and not self.leases.owns(trial):
                self.others[trial.number] = trial
            elif trial.state == TrialState.RUNNING and trial.number not in self.mine:
                # A lost database made it twice, the answer to the first time being lost.
                self.end(trial.number, TrialState.FAIL)
                self.lost = True
        if self._left_behind is None:
            self._left_behind = {n for n, trial in self.others.items() if not self.lives(trial)}
            # A trial without an owner may be that of a process that died while it asked for it.
            self.company = not self.leases.alone() or any(
                OWNER in trial.user_attrs and number not in self._left_behind
                for number, trial in self.others.items()
            )

    def _take(self, trial: FrozenTrial) -> None:
        """Take a finished trial; if it was held, another process may have finished it."""
        self.let_go(trial)
        row = trial.user_attrs.get("row")
        if row and row["arch_id"] not in self.known:
            self.known[row["arch_id"]] = Known(trial.number, trial.values, trial.constraints)
            self._finished.append(trial)

    # --- whose a trial is ------------------------------------------------------------------------

    def alone(self) -> bool:
        """Whether no other process works on the study."""
        return not self._in_database and self.leases.alone()

    def lives(self, trial: FrozenTrial) -> bool:
        """Whether the process that holds an unfinished trial lives, as far as is known."""
        if OWNER not in trial.user_attrs and self.alone():
            return False
        return alive(trial)

    def deaths(self, trial: FrozenTrial) -> int:
        """The processes that died of an unfinished trial whose process is dead or let go of it."""
        owner = trial.user_attrs.get(OWNER) or {"process": None, "attempts": 0}
        left_behind = self._left_behind or ()
        killed = owner["process"] is not None and trial.number not in left_behind
        return int(owner["attempts"]) + killed

    def taken(self, arch_id: str) -> bool:
        """Whether an architecture is known, or in an unfinished trial."""
        if arch_id in self.known or arch_id in self.mine.values():
            return True
        owners = (trial.user_attrs.get(OWNER) for trial in self.others.values())
        return any(owner and owner["arch_id"] == arch_id for owner in owners)

    def hold(self, trial: Trial, mark: Mapping[str, Any]) -> None:
        """From now on the trial is this process's; `mark` is its lease."""
        self.mine[trial.number] = mark["arch_id"]
        self.leases.hold(trial_id(trial), mark)

    def let_go(self, trial: Trial | FrozenTrial) -> None:
        """The trial is finished in the study, or another process's by now."""
        self.leases.forget(trial_id(trial))
        self.mine.pop(trial.number, None)

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
        mark = self.leases.mark(self.mine[trial.number], deaths)
        with suppress(UpdateFinishedTrialError):
            if self.holds(trial):
                trial.set_user_attr(OWNER, mark)
                self.leases.hold(trial_id(trial), mark)
                return True
        return False

    # --- trials without a row --------------------------------------------------------------------

    def same(self, trial: Trial, known: Known) -> None:
        """End a trial whose architecture has a row already."""
        try:
            trial.set_user_attr("same_as", known.number)
            for name, distance in known.constraints.items():
                trial.set_constraint(name, distance)
        except UpdateFinishedTrialError:
            return
        self.end(trial.number, None if known.values else TrialState.FAIL, known.values)

    def end(self, number: int, state: TrialState | None, values: list[float] | None = None) -> None:
        """Finish a trial that has no row; another process may have done so before."""
        with suppress(UpdateFinishedTrialError):
            self.study.tell(number, values, state=state, skip_if_finished=True)
