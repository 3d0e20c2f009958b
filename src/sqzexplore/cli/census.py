"""The verb that counts a whole space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UserError
from .app import SpecFile, app, err, fail, out

if TYPE_CHECKING:
    from ..census.query import Query
    from ..census.suggest import Suggestions
    from ..predict.fit import Model
    from ..spec.models import Spec

#: What is predicted where enough of it was measured.
_PREDICTED = ("top1", "latency_ms_p50")


@app.command()
def census(
    spec_file: SpecFile,
    where: Annotated[
        str | None, typer.Option(help="Condition that rows must meet: 'params < 5e5'.")
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, help="Show and write the first N only.")] = None,
    sort: Annotated[
        str | None,
        typer.Option(help="Columns to sort by, commas; -macs: descending [default: macs]."),
    ] = None,
    minimize: Annotated[
        str | None,
        typer.Option(
            help="Columns of the Pareto front [default: the spec's, or params against macs, "
            "with --predict against what is predicted]."
        ),
    ] = None,
    maximize: Annotated[str | None, typer.Option(help="The same, the other way round.")] = None,
    sample: Annotated[
        int | None, typer.Option(help="Draw N architectures instead of looking at all.")
    ] = None,
    spellings: Annotated[
        bool, typer.Option("--spellings", help="Keep also what is the same network as another.")
    ] = False,
    predict: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR|FILE.json",
            help="Predict accuracy and latency from the measured networks of this folder, or "
            "latency from a device's profile: top1, top1_low, top1_high, latency_ms_p50, ... for "
            "--where, --sort and the front. May stand several times; what two of them can predict "
            "is from the last.",
        ),
    ] = None,
    suggest: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1000,
            help="With --predict: the N networks most worth training next, into --to.",
        ),
    ] = None,
    to: Annotated[
        Path | None, typer.Option(metavar="FILE.yaml", help="The sweep that trains them.")
    ] = None,
    out_file: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.parquet|.csv", help="Write the rows kept.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Write the front, a summary and figures into this folder.")
    ] = None,
) -> None:
    """Count the exact cost of every network of a spec: filter, rank, Pareto front."""
    from ..census.census import take_census
    from ..census.files import write_census
    from ..spec.load import load_spec
    from .progress import RowsDisplay
    from .tables import print_census

    spec = load_spec(spec_file)
    if sort is not None and top is None and out_file is None:
        top = 10  # an order is for looking at its beginning
    if sort is None and top is not None:
        sort = "macs"
    chosen = _predictions(predict or [])
    predictions = tuple(model for _, model in chosen)
    query = _query(spec, where, sort, top, minimize, maximize, sample, spellings, predictions)
    _check_places(out_file, folder)
    wanted = _Suggested.requested(spec, query, [source for source, _ in chosen], suggest, to)
    try:
        with RowsDisplay(err) as display:
            also = [wanted.suggestions] if wanted else []
            taken = take_census(spec.design_space, query, out_file, display, also)
        files = [out_file] if out_file else []
        if folder:
            files += write_census(taken, spec, folder)
            from ..figures.census import census_figures
            from ..figures.writer import write_figures

            files += write_figures(census_figures(taken, spec.name), folder)[0]
        suggested = wanted.write() if wanted else 0
        if wanted and suggested:
            files.append(wanted.to)
    except OSError as error:
        fail(f"{error.strerror or error}; no file was left half-written", 1)
    print_census(out, taken, f"{spec.name}: {spec.question}")
    for source, model in chosen:
        out.print(f"predicted {model.target}: from {source}", highlight=False, soft_wrap=True)
    for line in query.remarks():
        out.print(line, highlight=False, soft_wrap=True)
    for file in files:
        out.print(f"written: {file}", highlight=False, soft_wrap=True)
    if wanted and suggested < wanted.count:
        fail(
            f"--suggest: found {suggested} networks that are expected to gain anything, expected "
            f"{wanted.count}; ask for fewer, or for more of the space",
            1,
        )


def _query(
    spec: Spec,
    where: str | None,
    sort: str | None,
    top: int | None,
    minimize: str | None,
    maximize: str | None,
    sample: int | None,
    spellings: bool,
    predictions: tuple[Model, ...],
) -> Query:
    """The options of `census`; without any of its own, the front is that of the spec."""
    from ..census.query import Query
    from ..space.constraints import Expression

    try:
        named = tuple(name for model in predictions for name in model.names)
        condition = Expression(where, predicted=named) if where is not None else None
    except UserError as error:
        raise error.at("--where") from None
    least, most = _names(minimize), _names(maximize)
    if not least and not most:
        goals = _goals(spec, [model.target for model in predictions])
        least = tuple(name for name, goal in goals.items() if goal == "minimize")
        most = tuple(name for name, goal in goals.items() if goal == "maximize")
    return Query(
        *(condition, _names(sort), top, least, most, sample, spec.search.seed, spellings),
        predictions,
    )


def _goals(spec: Spec, predicted: Sequence[str]) -> Mapping[str, str]:
    """The objectives of the front where none are given: the spec's, if all are known; else
    parameters against what is predicted first, or against MACs."""
    from ..network.cost import COST_COLUMNS
    from ..schema import goal

    if spec.search.objectives and {*spec.search.objectives} <= {*COST_COLUMNS, *predicted}:
        return spec.search.objectives
    against = predicted[0] if predicted else "macs"
    return {"params": "minimize", against: goal(against) or "minimize"}


def _predictions(sources: list[Path]) -> list[tuple[Path, Model]]:
    """The predictions of accuracy and latency that measurements suffice for, each with its source:
    the last of those that can."""
    found = {}
    for source in sources:
        for model in _models(source):
            found[model.target] = (source, model)
    return [found[target] for target in _PREDICTED if target in found]


def _models(source: Path) -> list[Model]:
    """What one folder, or one profile, suffices for."""
    from ..predict.fit import fit
    from ..predict.profile import TARGET, load_profile
    from ..predict.trained import load_trained

    profile = load_profile(source) if source.is_file() or source.suffix == ".json" else None
    models, errors = [], []
    for target in _PREDICTED if profile is None else (TARGET,):
        try:
            rows = load_trained(source, target) if profile is None else profile
            models.append(fit(rows, target))
        except UserError as error:
            errors.append(str(error))
    if not models:
        raise UserError(f"--predict {source}: {'; '.join(errors)}")
    return models


@dataclass(frozen=True)
class _Suggested:
    """The networks most worth training next, and the sweep file that will train them."""

    spec: Spec
    trained: Spec
    suggestions: Suggestions
    count: int
    source: Path
    to: Path

    @classmethod
    def requested(
        cls, spec: Spec, query: Query, sources: Sequence[Path], count: int | None, to: Path | None
    ) -> _Suggested | None:
        """What the options ask for; raises `UserError` before anything is counted."""
        from ..census.suggest import TARGET, Suggestions
        from ..files import check_new, home
        from ..predict.fit import fit
        from ..predict.trained import load_trained
        from ..results.folder import ResultFolder

        if count is None or to is None:
            if count is not None or to is not None:
                raise UserError("--suggest N and --to FILE.yaml: found one, expected both or none")
            return None
        to = home(to)
        check_new(to, "--to")
        folders = [source for source in sources if source.is_dir()]
        if not folders:
            raise UserError("--suggest: found no --predict DIR, expected the folder of a sweep")
        source, trained = folders[-1], ResultFolder(folders[-1]).spec()
        if trained.input_size != spec.input_size:
            raise UserError(
                f"--suggest: found input_size {spec.input_size} in the spec and "
                f"{trained.input_size} in {source}, expected the same: costs are compared"
            )
        rows = load_trained(source, TARGET)
        suggestions = Suggestions(fit(rows, TARGET), _cost_of(query), rows)
        return cls(spec, trained, suggestions, count, source, to)

    def write(self) -> int:
        """Write the sweep file, which is one that `sweep` takes; how many networks it has. Where
        none is expected to gain anything there is no file."""
        from ..census.suggest import suggested_spec
        from ..files import write_atomically
        from ..spec.load import parse_spec

        chosen = self.suggestions.chosen(self.count)
        if chosen is None:
            return 0
        text = suggested_spec(self.spec, self.trained, chosen, self.suggestions, str(self.source))
        parse_spec(text)
        self.to.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.to, text.encode())
        return chosen.rows


def _cost_of(query: Query) -> str:
    """The cost that a suggestion trades accuracy against: the first that the front minimizes."""
    from ..network.cost import COST_COLUMNS

    costs = [name for name in query.minimize if name in COST_COLUMNS]
    if not costs:
        raise UserError(
            f"--suggest: found the objectives {', '.join((*query.minimize, *query.maximize))}, "
            "expected a cost to minimize, such as --minimize macs --maximize top1"
        )
    return costs[0]


def _check_places(out_file: Path | None, folder: Path | None) -> None:
    """Refuse, before anything is counted, what could not be written or would be overwritten."""
    from ..census.files import WRITERS
    from ..files import check_writable
    from ..results.folder import ResultFolder

    if out_file:
        if out_file.is_dir():
            raise UserError(f"--out {out_file}: found a folder, expected a file")
        if out_file.suffix not in WRITERS:
            found = out_file.suffix or "no ending"
            raise UserError(f"--out {out_file}: found {found}, expected {' or '.join(WRITERS)}")
        if not out_file.parent.is_dir():
            raise UserError(f"--out {out_file}: there is no folder {out_file.parent}")
        check_writable(out_file.parent, "--out")
    if folder:
        check_writable(folder, "--folder")
        held = ResultFolder(folder)
        if held.journal.exists() or held.has("trials"):
            raise UserError(f"--folder {folder}: holds the results of a sweep, choose another")


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",")) if text is not None else ()
