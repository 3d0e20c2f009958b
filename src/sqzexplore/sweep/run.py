"""A sweep: Optuna proposes, an executor evaluates, Optuna gets the objective values, the tables
are written.

The Optuna study is the record of the sweep: every trial's parameters, values and measurements
stand in it (the rows as user attributes), and the tables are written from it. Several processes
may share it (`leases`, `mirror`, `proposals`): a trial whose process died is taken up by another
under its own number, so that each architecture has exactly one row.

A trial is a set of tasks (`evaluation.tasks`), which the executor does side by side (`running`).
Throughput is measured while nothing else runs: in a phase of its own once all trainings are over
(`speeds`), or after each trial's trainings where the search has to know it. A grid of costs needs
no executor (`cost_grid`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

import joblib
import optuna
import torch
from optuna.storages import BaseStorage

from ..data.images import ImageData
from ..evaluation.workload import load_data, recipe_of
from ..executors.base import Engine, Job, Listener
from ..executors.inline import Inline
from ..executors.processes import Local, places
from ..files import check_writable, exclusive, write_atomically
from ..results.claims import judged
from ..results.completeness import planned
from ..results.folder import ResultFolder
from ..spec.models import Spec
from ..train import distributed
from ..train.loop import check_recipe
from .account import Account, Progress
from .bookkeeping import Books
from .cost_grid import CostGrid, costs_only
from .forwarding import Forwarding
from .going_on import CLAIMS, carry_over, news, put_away
from .leases import Leases
from .mirror import POLL_S, Mirror
from .preflight import (
    SPEC,
    measuring_alone,
    refuse_endless,
    refuse_neighbours,
    refuse_other_data,
    refuse_other_spec,
    refuse_other_study,
    refuse_smaller,
)
from .proposals import MOST_TRIALS, Proposals
from .reuse import Reuse
from .running import RunningTrials
from .samplers import front_pruner_of, pruner_of
from .scratch import Scratch
from .speeds import Speeds
from .storage.open import open_storage
from .storage.retrying import PatientStorage
from .trial_tables import Outcome, drop_unfinished

#: Makes the engine that a sweep evaluates with.
MakeEngine = Callable[[Job, Listener], Engine]


def run_sweep(
    spec: Spec,
    folder: Path,
    device: torch.device,
    progress: Progress,
    storage_url: str | None = None,
    workers: int = 1,
    make_engine: MakeEngine | None = None,
    pack: int = 1,
) -> Outcome:
    """Run the sweep of `spec`, or what is left of it, and write its tables into `folder`.

    Args:
        spec: what to evaluate.
        folder: result folder; made if there is none. Several processes may work in it at once.
        device: where to measure; without an index, all devices of its kind.
        progress: told of every step.
        storage_url: a database for the study, instead of a journal file in the folder.
        workers: processes that train, if there are several, or if a task may take only so long;
            else this one does.
        make_engine: where to evaluate, if not on this machine.
        pack: trainings by turns in each.

    Raises:
        UserError: the folder holds another sweep, or this one cannot run so.
    """
    news(spec, folder)
    refuse_endless(spec)
    if make_engine is None:
        refuse_neighbours(workers, pack)
        if spec.measure.accuracy:
            check_recipe(recipe_of(spec.measure.accuracy), device)
    refuse_smaller(spec)
    check_writable(folder, "--out")
    here = make_engine is None and workers == 1 and spec.search.trial_timeout is None
    data = load_data(spec, device if here else torch.device("cpu"))
    storage, study = _opened(spec, folder, data, storage_url)
    if make_engine is None:
        make_engine = _on_this_machine(device, workers, pack, data, here)
    with measuring_alone(spec, folder), Leases(folder, storage, str(device)) as leases:
        mirror = Mirror(study, leases, in_database=bool(storage_url))
        account, front = Account(spec, data, progress), front_pruner_of(spec)
        books = Books(spec, folder, mirror, account, front, data, device)
        proposals, scratch = Proposals(spec, mirror), Scratch(ResultFolder(folder).scratch)
        if costs_only(spec):
            with _written_in_any_case(books, storage):
                CostGrid(spec, folder, device, proposals, books).run()
        else:
            reuse = Reuse(spec, study, device, data)
            trials = RunningTrials(spec, data, proposals, reuse, books, scratch)
            speeds = Speeds(spec, folder, books, scratch)
            job = Job(spec.source, scratch.folder.absolute(), spec.search.trial_timeout)
            _evaluate(partial(make_engine, job), trials, speeds, books, storage)
        if not mirror.others:
            scratch.tidy(mirror.known)
            leases.nothing_left()
        _judge(spec, ResultFolder(folder), study)
        return books.record.outcome


def _evaluate(
    make_engine: Callable[[Listener], Engine],
    trials: RunningTrials,
    speeds: Speeds,
    books: Books,
    storage: BaseStorage,
) -> None:
    """Evaluate until nothing is left, here and in the processes that share the study."""
    listener = Forwarding(trials)
    with closing(make_engine(listener)) as engine, _written_in_any_case(books, storage):
        books.open(workers=engine.slots)
        while True:
            trials.hand_out(engine)
            if not trials and (not books.mirror.others or books.account.late()):
                break
            engine.wait(POLL_S)
            books.write_if_due()
        books.write()
        if speeds.due():
            listener.phase = speeds
            speeds.measure(engine)


@contextmanager
def _written_in_any_case(books: Books, storage: BaseStorage) -> Iterator[None]:
    """The tables hold what was done when an error or an interrupt ends the sweep.

    Before the study is read they stay as they are: they hold more.
    """
    try:
        yield
    except BaseException:
        if isinstance(storage, PatientStorage):
            storage.hurry()
        if books.is_open:
            with suppress(OSError):
                books.write(sync=False)
        raise


def _on_this_machine(
    device: torch.device, workers: int, pack: int, data: ImageData | None, here: bool
) -> MakeEngine:
    """What makes the engine of this machine: this process, with the images, or workers."""
    if here:
        return lambda job, listener: Inline(job, listener, device, data, pack)
    return lambda job, listener: Local(job, listener, places(workers, device), pack)


def _opened(
    spec: Spec, folder: Path, data: ImageData | None, storage_url: str | None
) -> tuple[BaseStorage, optuna.Study]:
    """The study of the sweep, which the folder then belongs to.

    Raises:
        UserError: the folder holds another sweep, or tables of another study.
    """
    database = open_storage(folder, storage_url) if storage_url else None
    refuse_other_study(spec, folder, database)
    refuse_other_spec(spec, folder, database)
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder):
        carry_over(spec, folder, data, database is not None)
        drop_unfinished(folder)
        write_atomically(ResultFolder(folder).spec_file, spec.source.encode())
    storage = database or open_storage(folder, None, create=True)
    study = _open_study(spec, storage)
    if SPEC not in study.user_attrs:
        study.set_user_attr(SPEC, spec.source)
    refuse_other_data(study, data, folder)
    _declare(spec, study, folder)
    return storage, study


def _declare(spec: Spec, study: optuna.Study, folder: Path) -> None:
    """Note of each claim that the study does not know yet whether anything had been tried."""
    known = study.user_attrs.get(CLAIMS, {})
    when = "after" if study.get_trials(deepcopy=False) or put_away(folder) else "before"
    new = {claim.key: when for claim in spec.claims if claim.key not in known}
    if new:
        study.set_user_attr(CLAIMS, known | new)


def _judge(spec: Spec, folder: ResultFolder, study: optuna.Study) -> None:
    """Write the verdicts on the claims; those of a claim that the spec dropped go with it."""
    if not spec.claims:
        folder.drop("claims")
        return
    trials = folder.table("trials")
    assert trials is not None
    seeds, images = folder.table("seeds"), folder.table("images")
    declared = study.user_attrs.get(CLAIMS, {})
    folder.write({"claims": judged(spec, trials, seeds, images, declared)})


def workers_for(spec: Spec, device: torch.device) -> int:
    """Processes that use the whole machine: a training a core, or for each of its threads; one a
    GPU; no more than there are trainings.

    Args:
        spec: what they train; one process is enough for anything else.
        device: where; without an index, all devices of its kind.
    """
    accuracy = spec.measure.accuracy
    if accuracy is None or distributed.launched():
        return 1
    if device.type == "cuda":
        return 1 if device.index is not None else torch.cuda.device_count()
    trainings = (planned(spec) or MOST_TRIALS) * accuracy.seeds * len(accuracy.budgets)
    return max(1, min(trainings, joblib.cpu_count() // accuracy.threads))


def _open_study(spec: Spec, storage: BaseStorage) -> optuna.Study:
    return optuna.create_study(
        study_name=spec.name,
        storage=storage,
        directions=list(spec.objectives.values()),
        pruner=pruner_of(spec),
        load_if_exists=True,
    )
