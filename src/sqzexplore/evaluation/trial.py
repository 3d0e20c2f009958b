"""One architecture of a spec, measured: cost, accuracy at each budget under each seed, throughput.

A trial is a set of tasks, a training or a measurement of speed each, which processes can do side by
side. What a task found stays in a file of its own until the trial is in the study, and a training
keeps its state between epochs, so that an interrupted trial goes on from there.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..data.images import ImageData
from ..network.architecture import Architecture
from ..spec.models import Spec
from .rows import describe_row, of_trial, origin_of_trainings, summarise_runs, take_run, violations
from .tasks import Evaluation, Measured, Task


def assembled(
    architecture: Architecture,
    spec: Spec,
    data: ImageData | None,
    found: Mapping[Task, Measured],
) -> Evaluation:
    """A trial of which all tasks are done, or one ended it.

    Args:
        architecture: the trial's.
        spec: what was asked for.
        data: the images that it was trained on.
        found: what its tasks found.
    """
    evaluation = Evaluation(describe_row(architecture, spec, data) | {"state": "complete"})
    if error := next((one.error for one in found.values() if one.error), ""):
        evaluation.row |= {"state": "failed", "error": error}
        return evaluation
    for task, measured in sorted(found.items(), key=lambda item: (item[0].epochs, item[0].seed)):
        if measured.run is not None:
            take_run(evaluation, task, measured.run)
        evaluation.throughput += [dict(row) for row in measured.throughput]
    if spec.measure.accuracy:
        summarise_runs(evaluation, spec)
    evaluation.row |= origin_of_trainings([one.origin for one in found.values()])
    if evaluation.throughput:
        evaluation.row |= of_trial(evaluation.throughput, spec)
    if distances := violations(architecture, evaluation.row, spec):
        evaluation.row["feasible"] = max(distances.values()) <= 0
    return evaluation
