"""Tasks done in this process, trainings by turns."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from .. import provenance
from ..data.images import ImageData
from ..device_errors import is_lost
from ..files import write_json
from ..measure.apart import Processes, default_processes
from ..measure.devices import DeviceLost
from ..measure.reference import forget_references
from ..measure.settings import Settings
from ..measure.throughput import Throughput, over_batches
from ..network.module import SqueezeNet
from ..spec.models import Spec, ThroughputSpec
from ..train.finetune import deep_compression
from ..train.int8 import int8_runs
from ..train.loop import Epoch, identity, lead
from ..train.recipe import Recipe
from .cache import MeasurementCache, throughput_file, training_file
from .smaller import holds_all
from .tasks import (
    Measured,
    OnProgress,
    Prune,
    Task,
    compressions_of,
    epochs_of,
    quantisations_of,
)
from .workload import recipe_of, trained_of

# --- a task, done ------------------------------------------------------------------------------


class Bench:
    """Does tasks in this process: trainings by turns, anything else at once.

    Args:
        spec: what to measure, and how.
        data: the images on `device`, where the spec measures accuracy.
        device: where to measure.
        scratch: folder for what is measured before the trial is in the study.
    """

    def __init__(
        self, spec: Spec, data: ImageData | None, device: torch.device, scratch: Path
    ) -> None:
        self.spec, self.data, self.device, self.scratch = spec, data, device, scratch
        self._threads = torch.get_num_threads()
        self._apart: Processes | None = None
        self._running: dict[Task, Iterator[Measured | None]] = {}
        provenance.git_commit()  # it is kept: of the code that is loaded now, not of a later commit

    def __len__(self) -> int:
        return len(self._running)

    def add(
        self,
        task: Task,
        on_progress: OnProgress = lambda share, what: None,
        prune: Prune = lambda epoch: False,
    ) -> None:
        """Take a task.

        Args:
            task: what to measure.
            on_progress: called as work is done.
            prune: asked after every epoch of the first seed, where the spec has a pruner; if it
                says so, the training ends there.
        """
        self._running[task] = self.perform(task, on_progress, prune)

    def turn(self) -> Iterator[tuple[Task, Measured]]:
        """A turn of each task; those that ended.

        Raises:
            OSError: the disk's trouble is not the architecture's; the trial can go on later.
            DeviceLost: the GPU is of no more use to this process; later tasks would fail too.
        """
        for task, turns in list(self._running.items()):
            try:
                measured = next(turns)
            except OSError:
                raise
            except Exception as error:
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
                if isinstance(error, DeviceLost) or is_lost(self.device):
                    raise DeviceLost(f"{self.device}: {reason}") from error
                measured = Measured(error=reason)
            if measured is not None:
                del self._running[task]
                yield task, measured

    def perform(
        self, task: Task, on_progress: OnProgress, prune: Prune
    ) -> Iterator[Measured | None]:
        """A task, a turn at a time; what it found, last."""
        match task.kind:
            case "training":
                yield from self._train(task, on_progress, prune)
            case "throughput":
                yield self._throughput(task, on_progress)
            case _:
                yield Measured(self._origin(datetime.now(UTC), 0.0))

    def _train(
        self, task: Task, on_progress: OnProgress, prune: Prune
    ) -> Iterator[Measured | None]:
        spec, data = self.spec, self.data
        accuracy = spec.measure.accuracy
        assert accuracy is not None
        assert data is not None
        if self.device.type == "cuda":
            forget_references()  # networks kept ready would take memory that the training needs
        torch.set_num_threads(accuracy.threads)
        recipe = recipe_of(accuracy, task.epochs)
        trained = trained_of(task.architecture, spec, data)
        arch_id = task.architecture.arch_id
        finished = training_file(self.scratch, arch_id, task.epochs, task.seed)
        if finished.exists():
            stored = json.loads(finished.read_text())
            same = identity(recipe, data, task.seed).items() <= stored["identity"].items()
            if same and holds_all(stored["run"], task, spec):
                on_progress(1.0, str(task))
                yield Measured(stored["origin"], stored["run"])
                return
        epochs = epochs_of(task, spec)
        done, of = 0, f" of {task.epochs}" if len(accuracy.budgets) > 1 else ""
        # Who is asked may be another process, which has other things to do.
        prunes = spec.search.pruner is not None and task.seed == 0

        def on_epoch(epoch: Epoch) -> bool:
            nonlocal done
            done += 1
            on_progress(1 / epochs, f"{task}{of}, epoch {epoch.epoch}/{task.epochs}")
            return prunes and prune(epoch)

        started_at = datetime.now(UTC)
        unfinished = finished.with_suffix(".safetensors")
        training = lead(trained, data, recipe, task.seed, on_epoch, unfinished)
        while training.turn():
            yield None
        run = asdict(training.run())
        if not (run["diverged"] or run["dead"] or run["stopped"]):
            run |= yield from self._made_smaller(task, training.net, recipe, on_progress)
            done += epochs - task.epochs
        made = [*run.get("compression", ()), *run.get("int8", ())]
        spent = run["duration_s"] + sum(each["duration_s"] for each in made)
        origin = self._origin(started_at, spent) | {"device_name": training.device_name}
        stored = {"identity": identity(recipe, data, task.seed), "origin": origin, "run": run}
        finished.parent.mkdir(parents=True, exist_ok=True)
        write_json(finished, stored)
        unfinished.unlink(missing_ok=True)
        on_progress(1 - done / epochs, str(task))
        yield Measured(origin, run)

    def _made_smaller(
        self, task: Task, net: SqueezeNet, recipe: Recipe, on_progress: OnProgress
    ) -> Generator[None, None, dict[str, Any]]:
        """What a trained network is compressed and quantised to, by the names of the tables."""
        assert self.data is not None
        compressed, epochs = [], epochs_of(task, self.spec)
        for setting in compressions_of(task, self.spec):
            found = yield from deep_compression(net, self.data, recipe, task.seed, setting)
            compressed.append(asdict(found.run))
            on_progress(setting.epochs / epochs, f"{task}, compressed to {setting}")
        settings = quantisations_of(task, self.spec)
        runs = int8_runs(net, self.data, settings) if settings else ()
        return {"compression": compressed, "int8": [asdict(each) for each in runs]}

    def _throughput(self, task: Task, on_progress: OnProgress) -> Measured:
        requested = self.spec.measure.throughput
        assert requested is not None
        torch.set_num_threads(self._threads)
        architecture, device = task.architecture, str(self.device)
        cache = MeasurementCache(
            throughput_file(self.scratch, architecture.arch_id, self.device.type)
        )
        started_at, started = datetime.now(UTC), time.perf_counter()
        rows: list[Mapping[str, Any]] = []
        for settings in requested.settings(device, self.spec.input_size):

            def at(batch: int, settings: Settings = settings) -> dict[str, Any]:
                this = replace(settings, batch=batch)
                on_progress(0.0, f"throughput, {this}")
                folder = self.scratch.parent  # the roofline's two numbers serve every trial

                def once() -> dict[str, Any]:
                    measure = self._measure(requested)
                    row = measure(architecture, this, requested.seconds, folder)
                    return asdict(row) | self._measured_by()

                return cache.get(str(this), once)

            rows += over_batches(requested.batch, at)
        spent = time.perf_counter() - started + cache.duration_s
        devices = provenance.together(row["device_name"] for row in rows)
        origin = self._origin(started_at, spent) | {"device_name": devices}
        return Measured(origin, throughput=tuple(rows))

    def _measure(self, requested: ThroughputSpec) -> Callable[..., Throughput]:
        """Measures in the processes that the spec asks for, which stay for the next trial."""
        count = requested.processes or default_processes(str(self.device))
        if self._apart is None:
            self._apart = Processes(count, self._threads)
        return self._apart.measure

    def _measured_by(self) -> dict[str, str]:
        """What a speed is kept with: another process, elsewhere, may finish the trial."""
        return {
            "device_name": provenance.device_name(str(self.device)),
            "torch_version": str(torch.__version__),
            "git_commit": provenance.git_commit(),
        }

    def _origin(self, started_at: datetime, spent: float) -> dict[str, Any]:
        device = str(self.device)
        return {"device": device} | provenance.of_trial(device, started_at, spent)
