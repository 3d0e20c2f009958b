"""The application, what its verbs share, and the exit codes.

0 done; 1 finished, but not all that was asked for is there; 2 the user's input is wrong; 130
interrupted.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from typer.core import TyperGroup

from ..errors import UserError
from ..measure.settings import CHOICES
from ..network.presets import PRESETS
from ..provenance import __version__, native_bfloat16

if TYPE_CHECKING:
    import torch


#: Columns of a table that is as wide as it wants to be.
_WIDEST = 10_000


class _Terminal(Console):
    """rich ends the process with 1 when its reader has gone; `_Verbs` knows better."""

    def on_broken_pipe(self) -> None:
        """Leave it to `_Verbs`."""
        raise BrokenPipeError(errno.EPIPE, "the reader of the output has gone")

    def print(self, *objects: Any, **options: Any) -> None:
        """A table is never cut: where the terminal is too narrow its lines go on in the next."""
        from rich.measure import Measurement
        from rich.table import Table

        for table in (each for each in objects if isinstance(each, Table)):
            free = self.options.update(width=_WIDEST, max_width=_WIDEST)
            needed = Measurement.get(self, free, table).maximum
            if needed > self.width:
                return self._print_wide(needed, *objects, **options)
        super().print(*objects, **options)

    def _print_wide(self, columns: int, *objects: Any, **options: Any) -> None:
        """As if the terminal had so many columns; rich takes no width beyond the terminal's."""
        before, self._width = self._width, columns
        try:
            super().print(*objects, **options | {"crop": False, "soft_wrap": True})
        finally:
            self._width = before


class _Verbs(TyperGroup):
    """Typer swallows an interrupt in silence, and a reader that leaves is an error to it."""

    def invoke(self, ctx: Any) -> Any:
        """Run a verb."""
        try:
            done = super().invoke(ctx)
            sys.stdout.flush()
            return done
        except KeyboardInterrupt:
            fail("interrupted", 130)
        except BrokenPipeError:  # as `| head` leaves
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)


app = typer.Typer(
    name="sqzexplore",
    cls=_Verbs,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
# Text is shown as it is: a question or a path may hold brackets that rich would take for markup.
out = _Terminal(width=None if sys.stdout.isatty() else 130, markup=False, emoji=False)
err = _Terminal(stderr=True, markup=False, emoji=False)

Preset = Annotated[str, typer.Argument(help=f"One of {', '.join(PRESETS)}.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a metaparameter.")
]
InputSize = Annotated[int, typer.Option(help="Side of the input image, pixels.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]


ByTurns = Annotated[
    int | None,
    typer.Option(
        min=1, max=100, help="Processes that measure each by turns [default: 5, on a GPU 1]."
    ),
]


def listed(key: str) -> Any:
    """An option whose help lists what a measurement may be made with."""
    return typer.Option(help=f"{key}: {', '.join(CHOICES[key])}.")


Storage = Annotated[
    str | None,
    typer.Option(
        envvar="SQZEXPLORE_STORAGE",
        show_envvar=False,
        help="Database URL of the study [default: a file in the result folder]; it is also read "
        "from SQZEXPLORE_STORAGE, where no list of processes shows it.",
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key, such as search.trials=50."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SpecFile = Annotated[Path, typer.Argument(metavar="SPEC", help="The sweep's YAML file.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The result folder of a sweep.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"sqzexplore {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Design-space exploration of small convolutional networks."""


def main() -> None:
    """Run the command line; a user's error is one message and exit code 2."""
    # CUDA runs as many streams side by side; its default is 8. It reads this when it starts.
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "32")
    for stream in (sys.stdout, sys.stderr):  # what a terminal cannot show it shows as a mark
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    sys.argv[1:] = map(_with_home, sys.argv[1:])
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    try:
        app()
    except UserError as error:
        fail(str(error), 2)
    except OSError as error:
        fail(str(error), 1)


def _with_home(argument: str) -> str:
    """`--out=~/x` as `--out ~/x`, which a shell expands."""
    option, equals, value = argument.partition("=")
    if option.startswith("--") and equals and value.startswith("~"):
        return f"{option}={os.path.expanduser(value)}"
    return os.path.expanduser(argument) if argument.startswith("~/") else argument


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """The first one ends the verb in order; the second, of either kind, ends the process."""
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, _stop)
    raise KeyboardInterrupt


def _stop(signum: int, frame: FrameType | None) -> None:
    os._exit(130)


def silence_optuna() -> None:
    """Optuna tells of every trial; so do the verbs."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)


def fail(message: str, code: int) -> NoReturn:
    """End with one message and an exit code."""
    print(f"sqzexplore: {message}", file=sys.stderr)
    sys.exit(code)


def warn_of_emulation(precision: str, device: torch.device) -> None:
    """Say in a line where trainings in this precision will be slow."""
    if precision == "bfloat16" and device.type == "cpu" and not native_bfloat16():
        err.print(
            "warning: bfloat16 is emulated on this processor, expect a tenth to a fifth of the "
            "speed of float32, or about three quarters with AVX-512",
            highlight=False,
            soft_wrap=True,
        )


@contextmanager
def resumable(folder: Path) -> Iterator[None]:
    """Say how to go on after an interrupt, or when the disk gives out."""
    again = f"what was measured is kept in {folder}; run the same command again to resume"
    try:
        yield
    except KeyboardInterrupt:
        fail(f"interrupted; {again}", 130)
    except OSError as error:
        fail(f"{error}; {again}", 1)
