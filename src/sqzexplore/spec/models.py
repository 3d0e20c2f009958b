"""The sweep file: YAML in, a checked `Spec` out, and errors that point at the key."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator

from ..compress.settings import MOST_BITS, Compression, Int8, Scheme
from ..data.names import Augmentation
from ..errors import shown
from ..measure.settings import (
    MAX_BATCH,
    RUNTIME_DTYPES,
    Dtype,
    Form,
    MemoryFormat,
    Mode,
    Runtime,
    Settings,
)
from ..network.architecture import Architecture
from ..network.frames import format_value
from ..schema import objectives
from ..space.constraints import MEASURED, Expression
from ..space.space import Space
from ..train.recipe import Precision, RecipeName
from .durations import Duration

#: Columns that a search can aim at, and what each needs to be measured.
OBJECTIVES = objectives()


#: Samplers whose architectures do not depend on what was measured.
AT_RANDOM = ("grid", "random", "qmc")
Sampler = Literal["grid", "random", "qmc", "tpe", "nsga2", "nsga3", "gp"]
SAMPLERS: tuple[str, ...] = get_args(Sampler)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _without_repeats(value: Any) -> Any:
    for given in value if isinstance(value, list) else ():
        if value.count(given) > 1:
            raise ValueError(f"expected each value once, {shown(given)} stands twice")
    return value


class Search(_Model):
    """How architectures are chosen."""

    sampler: Sampler = Field(
        "grid", description="grid: every feasible architecture; the others are Optuna's samplers"
    )
    trials: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        None, description="architectures to evaluate (every sampler but grid)"
    )
    stratify: str | None = Field(
        None,
        description="a cost such as macs, for the sampler random: each tenth of its range, in the "
        "logarithm, gives as many networks, no network twice",
    )
    timeout: Duration | None = Field(
        None,
        description="most time the search takes, with trials or instead of them: seconds, or text "
        "such as 2h or 90min; running trials are finished",
    )
    retries: int = Field(
        2, ge=0, description="how often a trial whose process died is given to another"
    )
    trial_timeout: Duration | None = Field(
        None,
        description="most time a training or a measurement of a trial may take, as timeout is "
        "written; its process is then ended, and it is retried as after any death",
    )
    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of the sampler")
    objectives: dict[str, Literal["minimize", "maximize"]] = Field(
        default_factory=dict, description="columns that the study optimises, with directions"
    )
    pruner: Literal["halving", "hyperband", "front"] | None = Field(
        None,
        description="ends trainings: that fall behind after a few epochs (Optuna's successive "
        "halving or Hyperband, factor 3), for the one objective top1; or, of top1 and costs, that "
        "can no longer reach the front (front)",
    )
    risk: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="of the pruner front: that it ends a training which would have been on the "
        "front; none is ended before 1 / risk - 1 are finished",
    )


class ThroughputSpec(_Model):
    """How throughput is measured: every combination of the values."""

    batch: list[Annotated[int, Field(ge=1, le=MAX_BATCH)]] | Literal["auto"] = Field(
        default=[1, 64],
        min_length=1,
        description="images in one forward pass; auto: doubled until throughput is flat",
    )
    dtype: list[Dtype] = Field(
        default=["float32"], min_length=1, description="type of weights and images"
    )
    memory_format: list[MemoryFormat] = Field(
        default=["channels_last"], min_length=1, description="order of the elements in memory"
    )
    form: list[Form] = Field(
        default=["module"], min_length=1, description="the module, or its fast inference form"
    )
    mode: list[Mode] = Field(
        default=["eager"], min_length=1, description="how torch runs it; the graphs need a GPU"
    )
    runtime: list[Runtime] = Field(
        default=["torch"],
        min_length=1,
        description="what runs it; the others, on a CPU, in the dtypes that they have: onnxruntime "
        "float32 and int8, openvino bfloat16 too; memory_format, form and mode are torch's",
    )
    input_size: list[Annotated[int, Field(ge=1, le=65536)]] | None = Field(
        None, min_length=1, description="sides of the images, pixels [default: the spec's]"
    )
    seconds: float = Field(
        1.0,
        gt=0,
        le=600,
        description="most time spent on the rounds of a measurement by all its processes, s",
    )
    processes: Annotated[int, Field(ge=1, le=100)] | None = Field(
        None,
        description="fresh processes that measure each row by turns [default: 5 on a CPU, 1 on a "
        "GPU]; its interval is over them",
    )

    @field_validator("batch", "dtype", "memory_format", "form", "mode", "runtime", "input_size")
    @classmethod
    def _each_once(cls, value: Any) -> Any:
        return _without_repeats(value)

    @field_validator("batch", mode="before")
    @classmethod
    def _auto_is_the_only_word(cls, value: Any) -> Any:
        if isinstance(value, str) and value != "auto":
            raise ValueError("expected auto, or a list such as [1, 64]")
        return value

    def settings(self, device: str, input_size: int) -> list[Settings]:
        """Every combination that the runtimes have, at batch 1; `over_batches` begins there."""
        found = []
        for size, runtime in itertools.product(self.input_size or [input_size], self.runtime):
            own = [dtype for dtype in self.dtype if dtype in RUNTIME_DTYPES[runtime]]
            axes: tuple[Sequence[str], ...] = (own, self.memory_format, self.form, self.mode)
            if runtime != "torch":
                axes = (own, ["contiguous"], ["module"], ["eager"])
            for dtype, memory_format, form, mode in itertools.product(*axes):
                at = Settings(device, 1, dtype, size, memory_format, form, mode, runtime)
                found.append(at)
        return found


Epochs = Annotated[int, Field(ge=1, le=10_000)]


class AccuracySpec(_Model):
    """How accuracy is measured."""

    data: str = Field(
        "digits",
        description="digits; fashion; a folder of images, where ${NAME} is an environment "
        "variable; or the owner/name of a Hugging Face data set",
    )
    image_size: int = Field(32, ge=8, le=1024, description="side of the training images, pixels")
    epochs: Epochs | list[Epochs] = Field(
        20,
        description="passes over the training split; a list such as [6, 18, 54] is a training "
        "for each, and the largest makes the row of trials",
    )
    seeds: int = Field(3, ge=1, le=1000, description="runs of each architecture, seeds 0, 1, ...")
    batch_size: int = Field(64, ge=1, le=65536, description="images a training step")
    recipe: RecipeName = Field("default", description="how: default, or paper (its ImageNet one)")
    learning_rate: float | None = Field(
        None, gt=0, le=100, description="peak of the schedule; left out, the recipe's"
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="probability given to all classes alike"
    )
    augmentation: Augmentation | None = Field(
        None,
        description="left out, shift for digits and IDX files, shift_flip for fashion and "
        "photographs",
    )
    precision: Precision = Field("float32", description="of the convolutions in training")
    threads: int = Field(
        1, ge=1, le=1024, description="CPU threads of a training; more than 1 for large images"
    )
    proxy: dict[str, Any] = Field(
        default_factory=dict,
        description="architecture fields replaced in the trained network, to make it cheaper",
    )

    @field_validator("epochs", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | list) or value == []:
            raise ValueError("expected a number of epochs, or a list such as [6, 18, 54]")
        if isinstance(value, list) and len({*map(repr, value)}) < len(value):
            raise ValueError("expected each number of epochs once")
        return value

    @property
    def budgets(self) -> tuple[int, ...]:
        """The numbers of epochs, the smallest first."""
        return tuple(sorted(self.epochs)) if isinstance(self.epochs, list) else (self.epochs,)

    @property
    def proxy_text(self) -> str:
        """The proxy as tables show it: width_multiplier=0.125 stem_kernel=3, or none."""
        return " ".join(f"{k}={format_value(v)}" for k, v in self.proxy.items()) or "none"


class CompressionSpec(_Model):
    """How far each trained network is compressed (Deep Compression): one setting a position."""

    density: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        default=[1.0, 0.5, 0.33],
        min_length=1,
        description="share of each layer's weights that survives",
    )
    bits: list[Annotated[int, Field(ge=1, le=MOST_BITS)]] = Field(
        default=[8, 6, 5], min_length=1, description="of an index into a layer's codebook"
    )
    finetune_epochs: int = Field(
        4,
        ge=0,
        le=10_000,
        description="passes over the training split after pruning, and as many after sharing",
    )

    @property
    def settings(self) -> tuple[Compression, ...]:
        """One a position."""
        pairs = zip(self.density, self.bits, strict=True)
        return tuple(Compression(d, b, self.finetune_epochs) for d, b in pairs)


class Int8Spec(_Model):
    """How each trained network is quantised to 8-bit integers, by ONNX Runtime, on the CPU."""

    scheme: list[Scheme] = Field(
        default=["per_channel", "per_tensor"],
        min_length=1,
        description="a scale of the weights a filter, or a layer; trials shows the first",
    )
    calibration_images: int = Field(
        256, ge=1, le=100_000, description="of the training split, for the ranges of activations"
    )

    @field_validator("scheme")
    @classmethod
    def _each_once(cls, value: Any) -> Any:
        return _without_repeats(value)


class Measure(_Model):
    """What is measured of each architecture; its cost always is."""

    throughput: ThroughputSpec | None = None
    accuracy: AccuracySpec | None = None
    compression: CompressionSpec | None = None
    int8: Int8Spec | None = None


class ClaimSpec(_Model):
    """What is claimed of accuracy, written down before it is tested."""

    say: str = Field(min_length=1, description="the claim in words")
    compare: dict[str, list[Any]] = Field(
        min_length=1,
        description="axes, each with two values: the first architectures' and the second's",
    )
    expect: Literal["higher", "lower", "same"] = Field(
        description="the second's accuracy, against the first's"
    )
    by: float | None = Field(
        None, ge=0, le=100, description="higher, lower: by more than so many points [default: 0]"
    )
    within: float | None = Field(
        None, gt=0, le=100, description="same: at most so many points apart"
    )
    where: dict[str, Any] = Field(
        default_factory=dict, description="what both have: other axes' values"
    )
    source: str = Field("", description="who claims it: section 5.2, figure 3a")

    @property
    def margin(self) -> float:
        """The margin, in points."""
        return float((self.within if self.expect == "same" else self.by) or 0.0)

    @property
    def key(self) -> str:
        """All that is claimed, as one text: a claim with another margin is another claim."""
        return json.dumps(self.model_dump(exclude={"say", "source"}, mode="json"), sort_keys=True)


class FigureSpec(_Model):
    """One scatter of two columns."""

    x: str = Field(description="column of the horizontal axis")
    y: str = Field(description="column of the vertical axis")
    label: str | None = Field(None, description="column written beside each point")
    reference: Literal["figure 3a", "figure 3b", "table 2", "table 3"] | None = Field(
        None, description="published points of the paper, drawn in a panel of their own"
    )


class Spec(_Model):
    """A sweep file, checked; `load.load_spec` reads one."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$", description="the sweep's name")
    question: str = Field("", description="what the sweep asks, shown with its figures")
    base: str | dict[str, Any] = Field(
        "squeezenet1_0", description="a preset, or a mapping of architecture fields"
    )
    space: dict[str, Any] | list[dict[str, Any]] = Field(
        description="an axis for each field that varies; or a list of architectures, each the "
        "fields in which it differs from the base"
    )
    constraints: list[str] = Field(
        default_factory=list,
        description="conditions; over fields and cost columns: nothing else is evaluated; over "
        "measured columns too: the search prefers what meets them, and rows say whether they do",
    )
    input_size: int = Field(
        224, ge=1, le=65536, description="side of the deployment input, pixels: costs, throughput"
    )
    search: Search = Field(default_factory=Search)
    measure: Measure = Field(default_factory=Measure)
    claims: list[ClaimSpec] = Field(
        default_factory=list, description="what is claimed of accuracy; judged at the sweep's end"
    )
    figures: list[FigureSpec] | None = None

    @field_validator("space", mode="before")
    @classmethod
    def _axes_or_architectures(cls, value: Any) -> Any:
        rows = value if isinstance(value, list) else [value]
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError("expected a mapping of axes, or a list of mappings of fields")
        return value

    _space: Space = PrivateAttr()
    _source: str = PrivateAttr("")

    def completed(self, space: Space, source: str) -> Spec:
        """With the design space that it speaks of, and the text that it was read from."""
        self._space, self._source = space, source
        return self

    @property
    def design_space(self) -> Space:
        """The architectures that the spec speaks of."""
        return self._space

    @property
    def result_constraints(self) -> tuple[Expression, ...]:
        """The constraints that speak of measured columns."""
        requested = (Expression(text, of_results=True) for text in self.constraints)
        return tuple(constraint for constraint in requested if constraint.measured)

    @property
    def source(self) -> str:
        """The YAML text as it was written."""
        return self._source

    @property
    def objectives(self) -> dict[str, Literal["minimize", "maximize"]]:
        """The study's objectives: the spec's, or accuracy (else speed, else MACs) and params."""
        if self.search.objectives:
            return dict(self.search.objectives)
        if self.measure.accuracy:
            return {"top1": "maximize", "params": "minimize"}
        if self.measure.throughput:
            return {"images_per_s": "maximize", "params": "minimize"}
        return {"macs": "minimize", "params": "minimize"}

    @property
    def compressions(self) -> tuple[Compression, ...]:
        """How each trained network is compressed; none if that is not asked for."""
        return self.measure.compression.settings if self.measure.compression else ()

    @property
    def quantisations(self) -> tuple[Int8, ...]:
        """How each trained network is quantised; none if that is not asked for."""
        requested = self.measure.int8
        return (
            tuple(Int8(s, requested.calibration_images) for s in requested.scheme)
            if requested
            else ()
        )

    @property
    def speed_decides(self) -> bool:
        """Whether a trial's outcome depends on how fast its architecture is."""
        needed = {*self.objectives, *(n for c in self.result_constraints for n in c.measured)}
        return any(MEASURED.get(name) == "throughput" for name in needed)

    def trained(self, architecture: Architecture, channels: int, classes: int) -> Architecture:
        """What is trained to measure the accuracy of `architecture`: the proxy, on such images."""
        if self.measure.accuracy is None:
            raise ValueError(f"{self.name} measures no accuracy")
        changes = self.measure.accuracy.proxy
        return architecture.replace(**changes, in_channels=channels, num_classes=classes)

    def recipe(self) -> dict[str, Any]:
        """Everything that decides what is evaluated, and how; not how it is shown, nor for how
        long it may take."""
        exclude: Any = {
            "question": True,
            "figures": True,
            "claims": True,
            "search": {"timeout", "retries", "trial_timeout"},
        }
        return self.model_dump(mode="json", exclude=exclude)
