"""What a throughput depends on beside the architecture and the machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Dtype = Literal["float32", "tf32", "float16", "bfloat16", "int8"]
Runtime = Literal["torch", "onnxruntime", "openvino"]
MemoryFormat = Literal["channels_last", "contiguous"]
Form = Literal["module", "inference"]
Mode = Literal["eager", "cuda_graph", "compile", "compile_graph"]
#: The axes of a measurement that have names for values, with those values.
CHOICES: dict[str, tuple[str, ...]] = {
    "dtype": get_args(Dtype),
    "memory_format": get_args(MemoryFormat),
    "form": get_args(Form),
    "mode": get_args(Mode),
    "runtime": get_args(Runtime),
}
#: The dtypes that each runtime computes in.
RUNTIME_DTYPES: dict[str, tuple[str, ...]] = {
    "torch": ("float32", "tf32", "float16", "bfloat16"),
    "onnxruntime": ("float32", "int8"),
    "openvino": ("float32", "bfloat16", "int8"),
}
#: Bytes of an element of an image, by dtype.
ITEM_BYTES = {"float32": 4, "tf32": 4, "float16": 2, "bfloat16": 2, "int8": 4}

#: Modes that replay a CUDA graph, and those that compile the network.
GRAPHED = ("cuda_graph", "compile_graph")
COMPILED = ("compile", "compile_graph")


@dataclass(frozen=True)
class Settings:
    """Everything that a throughput depends on beside the architecture and the machine."""

    device: str
    batch: int
    dtype: str = "float32"
    input_size: int = 224
    memory_format: str = "channels_last"
    form: str = "module"
    mode: str = "eager"
    runtime: str = "torch"

    def __str__(self) -> str:
        parts: tuple[str, ...] = (self.dtype, self.memory_format, self.form, self.mode)
        if self.runtime != "torch":
            parts = (self.dtype, self.runtime)
        return f"batch {self.batch}, {self.input_size}x{self.input_size}, {', '.join(parts)}"


MAX_BATCH = 65536
