"""What the terminal shows while something runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ..network.cost import cost
from ..network.overrides import OVERRIDES, parse_overrides

if TYPE_CHECKING:
    from rich.console import Console

    from ..data.images import ImageData
    from ..spec.models import Spec
    from ..train.loop import Epoch
    from ..train.session import TrainingPlan


class Live:
    """A line an epoch, and on a terminal a bar with images a second and the time left."""

    def __init__(self, console: Console, plan: TrainingPlan, data: ImageData) -> None:
        self.epochs = plan.recipe.epochs
        self.console, self.total = console, self.epochs * len(data.train)
        params = cost(plan.architecture, data.image_size).params
        self.title = f"{params:,} parameters on {data.description}, seed {plan.seed}"
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(show_speed=True),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("training", total=self.total)

    def __enter__(self) -> Live:
        self.console.print(self.title, highlight=False)
        self.bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.bar.stop()

    def batch(self, images: int) -> None:
        """A step is done."""
        self.bar.advance(self.task, images)

    def epoch(self, epoch: Epoch) -> None:
        """An epoch is done."""
        self.bar.update(self.task, completed=self.total * epoch.epoch / self.epochs)
        self.console.print(
            f"epoch {epoch.epoch}/{self.epochs}: loss {epoch.train_loss:.3f}, "
            f"validation top-1 {epoch.val_top1:.1f}%",
            highlight=False,
        )


_COLUMNS = (
    BarColumn(),
    TextColumn("{task.percentage:>3.0f}%", markup=False),
    TimeElapsedColumn(),
    TextColumn("ETA"),
    TimeRemainingColumn(),
    TextColumn("{task.description}", markup=False),
)


class RowsDisplay:
    """Progress of a pass over many rows, or of steps: a bar with its ETA, on a terminal."""

    def __init__(self, console: Console) -> None:
        self._bar = Progress(*_COLUMNS, console=console, disable=not console.is_terminal)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def start(self, what: str, rows: int, unit: str = "architectures") -> None:
        """Show that a pass begins."""
        for task in self._bar.task_ids:
            self._bar.remove_task(task)
        self._task = self._bar.add_task(f"{what} {rows:,} {unit}", total=rows)

    def advance(self, rows: int) -> None:
        """Show that `rows` more were looked at."""
        self._bar.advance(self._task, rows)


class SweepDisplay:
    """Progress of a sweep: a bar with its ETA on a terminal, a line a trial anywhere."""

    def __init__(self, spec: Spec, console: Console, quiet: bool) -> None:
        self.spec, self.console, self.quiet = spec, console, quiet
        self._bar = Progress(
            TextColumn("{task.fields[trials]}", markup=False),
            *_COLUMNS,
            console=console,
            disable=quiet or not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None, trials="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def start(self, trials: int, units: float, done_units: float) -> None:
        """Show what there is to do."""
        self._bar.update(self._task, total=units, trials=f"0/{trials}")
        self._bar.advance(self._task, done_units)
        if not self.quiet and self.spec.question:
            self.console.print(f"{self.spec.name}: {self.spec.question}", highlight=False)

    def advance(self, units: float, what: str) -> None:
        """Show what is going on."""
        self._bar.update(self._task, advance=units, description=what)

    def trial(self, row: Mapping[str, Any], number: int, trials: int) -> None:
        """Show a trial's outcome."""
        self._bar.update(self._task, trials=f"{number}/{trials}")
        if self.quiet:
            return
        overrides = parse_overrides(row.get("overrides") or "")
        names = self.spec.design_space.axis_names
        axes = ", ".join(
            f"{name} {overrides.get(name) if name in OVERRIDES else row[name]}" for name in names
        )
        parts = [f"[{number}/{trials}] {axes}: {row['state']}", f"{row['params']:,} params"]
        if row["state"] == "complete" and self.spec.measure.accuracy:
            parts.append(f"top-1 {row['top1']:.2f}%")
        if row["state"] == "complete" and "outcome" in row:  # else it is measured later
            speed = row["images_per_s"]
            parts.append(
                f"{row['outcome']} on {row['device']}"
                if speed is None
                else f"{speed:,.1f} images/s on {row['device']}"
            )
        self.console.print(", ".join(parts), markup=False, highlight=False)


def against(ratio: float) -> str:
    """How a size compares with another that is `ratio` times as large."""
    return f"{ratio:.1f}x smaller" if ratio >= 1 else f"{1 / ratio:.1f}x larger"
