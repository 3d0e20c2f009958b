"""The inference form against the module it is made from, over the whole space."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

import sqzexplore as sqz
from helpers.strategies import architectures, fits
from sqzexplore.measure.runner import network_for
from sqzexplore.measure.settings import Settings
from sqzexplore.network import kernels
from sqzexplore.network.inference import EXPANDS, InferenceForm, fastest_form
from sqzexplore.network.kernels import kernels_for, onednn, plain

CPU = torch.device("cpu")
LAYOUTS = [torch.channels_last, torch.contiguous_format]


def trained(architecture: sqz.Architecture) -> nn.Module:
    """A network whose BatchNorms and biases are not those of a fresh one."""
    torch.manual_seed(0)
    net = sqz.build(architecture).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, -1.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.2, 4.0)
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.normal_(module.bias, std=0.5)
    return net


@settings(max_examples=120, deadline=None)
@given(
    architectures(max_fires=6),
    st.sampled_from(EXPANDS),
    st.booleans(),
    st.sampled_from(LAYOUTS),
    st.integers(1, 3),
)
def test_the_inference_form_computes_what_the_module_does(
    architecture: sqz.Architecture,
    expand: str,
    fused: bool,
    layout: torch.memory_format,
    batch: int,
) -> None:
    assume(fits(architecture, 40))
    net = trained(architecture)
    images = torch.randn(batch, architecture.in_channels, 40, 40).to(memory_format=layout)
    kept = images.clone(), {name: value.clone() for name, value in net.state_dict().items()}
    with torch.inference_mode():
        expected = net(images)
        kernel = kernels_for(CPU, torch.float32)[0] if fused else plain
        form = InferenceForm(net, expand, kernel, layout)
        logits = form(images)
        assert torch.equal(form(images), logits)  # nothing is kept from one pass to the next
    scale = max(1.0, expected.abs().max().item())
    torch.testing.assert_close(logits / scale, expected / scale, atol=1e-4, rtol=1e-4)
    assert torch.equal(images, kept[0])
    assert all(torch.equal(value, kept[1][name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("bypass", ["none", "simple", "complex"])
@pytest.mark.parametrize("name", ["squeezenet1_0", "squeezenet1_1"])
def test_the_presets_in_half_precision(name: str, bypass: str) -> None:
    """bfloat16 rounds to 8 bits: a fiftieth of the largest logit covers 26 layers of it."""
    net = trained(sqz.preset(name, bypass=bypass)).bfloat16()
    images = torch.randn(2, 3, 96, 96).to(torch.bfloat16, memory_format=torch.channels_last)
    with torch.inference_mode():
        expected = net(images).float()
        kernel = kernels_for(CPU, torch.bfloat16)[0]
        for expand in EXPANDS:
            logits = InferenceForm(net, expand, kernel)(images).float()
            assert (logits - expected).abs().max() < 0.02 * expected.abs().max()


@pytest.mark.parametrize(
    ("dtype", "question"),
    [
        (torch.bfloat16, "_is_mkldnn_bf16_supported"),
        (torch.float16, "_is_mkldnn_fp16_supported"),
    ],
)
@pytest.mark.parametrize("bypass", ["simple", "complex"])
def test_a_processor_without_instructions_for_a_type(
    dtype: torch.dtype, question: str, bypass: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As bfloat16 without AVX-512: torch says so if asked, and raises if not. Nothing is fused."""

    def refused(*arguments: object) -> None:
        raise AssertionError(f"a fused convolution of {arguments[0].dtype}")

    operations = torch.ops.mkldnn
    monkeypatch.setattr(operations, question, lambda: False)
    monkeypatch.setattr(operations, "_convolution_pointwise", refused)
    monkeypatch.setattr(operations, "_convolution_pointwise_", SimpleNamespace(binary=refused))
    assert kernels_for(CPU, dtype) == (plain,)
    assert (onednn in kernels_for(CPU, torch.float32)) == torch.backends.mkldnn.is_available()

    architecture = sqz.Architecture(width_multiplier=0.25, bypass=bypass, batch_norm=True)
    net = trained(architecture).to(dtype)
    images = torch.randn(2, 3, 64, 64).to(dtype, memory_format=torch.channels_last)
    in_float32 = copy.deepcopy(net).float()
    at = Settings("cpu", 2, str(dtype).removeprefix("torch."), 64, form="inference", mode="compile")
    with torch.inference_mode():
        expected = in_float32(images.float())
        forms = [InferenceForm(net, expand, kernels_for(CPU, dtype)[0]) for expand in EXPANDS]
        forms.append(fastest_form(net, images, torch.channels_last, lambda form: 1.0))
        forms.append(network_for(net, at, images))
        for form in forms:
            assert form.kernel is plain
            logits = form(images)
            assert logits.dtype == dtype
            assert (logits.float() - expected).abs().max() < 0.05 * expected.abs().max()


def test_the_split_form_never_concatenates(monkeypatch: pytest.MonkeyPatch) -> None:
    net = trained(sqz.preset("squeezenet1_1", bypass="complex"))
    forms = {expand: InferenceForm(net, expand) for expand in EXPANDS}
    calls: list[int] = []
    real = torch.cat
    monkeypatch.setattr(torch, "cat", lambda *a, **k: calls.append(1) or real(*a, **k))
    counts = {}
    for expand, form in forms.items():
        calls.clear()
        with torch.inference_mode():
            form(torch.randn(1, 3, 64, 64))
        counts[expand] = len(calls)
    assert counts == {"concatenated": 8, "embedded": 0, "split": 0}


def test_the_fastest_form_is_chosen_by_measurement() -> None:
    """Times are given here; the form that they favour is taken, whichever it is."""
    net = trained(sqz.Architecture(width_multiplier=0.1))
    images = torch.randn(2, 3, 40, 40)
    for favourite in EXPANDS:
        with torch.inference_mode():
            form = fastest_form(
                net,
                images,
                torch.channels_last,
                lambda form, best=favourite: 1.0 if form.expand == best else 2.0,
            )
        assert form.expand == favourite


def test_a_form_that_fails_or_is_wrong_is_no_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    net = trained(sqz.Architecture(width_multiplier=0.1))
    images = torch.randn(2, 3, 40, 40)
    real = InferenceForm.forward

    def forward(self: InferenceForm, x: torch.Tensor) -> torch.Tensor:
        if self.expand == "split":
            raise RuntimeError("no engine")
        return real(self, x) + (5.0 if self.expand == "embedded" else 0.0)

    monkeypatch.setattr(InferenceForm, "forward", forward)
    with torch.inference_mode():
        form = fastest_form(net, images, torch.channels_last, lambda form: 1.0)
    assert form.expand == "concatenated"

    def out_of_memory(form: nn.Module) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with torch.inference_mode(), pytest.raises(torch.OutOfMemoryError):
        fastest_form(net, images, torch.channels_last, out_of_memory)


def test_a_fused_convolution_that_reads_its_output_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stand-ins for cuDNN's, one of which multiplies what its output's memory held by 0."""

    def right(x, weight, bias, stride, padding, dilation, groups) -> torch.Tensor:
        return torch.conv2d(x, weight, bias, stride, padding).relu()

    def reading(x, weight, *rest) -> torch.Tensor:
        out = right(x, weight, *rest)
        held = torch.full_like(out, float("nan"))
        return out if weight.shape[2] == 1 else out + 0 * held

    def refusing(*arguments) -> torch.Tensor:
        raise RuntimeError("no engine")

    for fused, expected in (
        (right, True),
        (reading, False),
        (lambda *a: reading(*a).nan_to_num(0.0), False),  # ReLU may make 0 of NaN
        (refusing, True),
    ):
        kernels._ignores_old_output.cache_clear()
        monkeypatch.setattr(torch, "cudnn_convolution_relu", fused)
        for dtype in (torch.float32, torch.bfloat16):
            assert kernels._ignores_old_output(CPU, dtype, False) == expected
    kernels._ignores_old_output.cache_clear()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_is_fused_on_a_gpu_ignores_what_its_memory_held(dtype: torch.dtype) -> None:
    """The chosen form, in memory full of NaN, gives the module's logits."""
    device = torch.device("cuda:0")
    net = trained(sqz.Architecture(width_multiplier=0.25, bypass="simple")).to(device, dtype)
    net = net.to(memory_format=torch.channels_last)
    images = torch.randn(4, 3, 64, 64, device=device).to(dtype, memory_format=torch.channels_last)
    with torch.inference_mode():
        expected = net(images).float()
        for expand in EXPANDS:
            form = InferenceForm(net, expand, kernels_for(device, dtype)[0])
            for _ in range(5):
                torch.cuda.empty_cache()
                nans = [torch.full((2**n,), float("nan"), device=device) for n in range(10, 24)]
                del nans
                error = (form(images).float() - expected).abs().max()
                assert error < 0.02 * expected.abs().max()


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_without_a_second_branch_there_is_one_form(fraction: float) -> None:
    net = trained(sqz.Architecture(width_multiplier=0.1, fraction_3x3=fraction))
    seen: list[str] = []
    with torch.inference_mode():
        fastest_form(
            net,
            torch.randn(1, 3, 40, 40),
            torch.contiguous_format,
            lambda form: float(len(seen)) if seen.append(form.expand) is None else 0.0,
        )
    assert set(seen) == {"concatenated"}
