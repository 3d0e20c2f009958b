"""Training on a GPU: graphs, packed trainings, resumed ones. Each needs a CUDA device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import sqzexplore as sqz
from helpers import ROOT
from helpers.sweeps import SPEC, Quiet, same
from sqzexplore.data.images import ImageData, load
from sqzexplore.data.open import open_data
from sqzexplore.results.folder import load_results
from sqzexplore.spec.load import parse_spec
from sqzexplore.sweep.run import run_sweep
from sqzexplore.train import cuda_graph, loop
from sqzexplore.train.loop import Epoch, Training, fit
from sqzexplore.train.recipe import Recipe

pytestmark = pytest.mark.gpu

NETS = [
    sqz.Architecture(width_multiplier=0.1, fires=3, pool_after=(1, 3)),
    sqz.Architecture(width_multiplier=0.15, bypass="complex"),
    sqz.Architecture(width_multiplier=0.1, batch_norm=True),
]
NETS = [net.replace(in_channels=1, num_classes=10) for net in NETS]
RECIPES = [
    Recipe(epochs=3, batch_size=48),  # with a smaller last batch
    Recipe(epochs=2, batch_size=64, precision="bfloat16", label_smoothing=0.1),
    Recipe(epochs=2, batch_size=64, precision="tf32"),
    Recipe(recipe="paper", epochs=2, batch_size=64),
]


@pytest.fixture(scope="module")
def data() -> ImageData:
    return load(open_data("digits"), 32).to(torch.device("cuda:0"))


def weights(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.cpu() for name, tensor in net.state_dict().items()}


def equal(a: torch.nn.Module, b: torch.nn.Module) -> None:
    ours, theirs = weights(a), weights(b)
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: f"{r.recipe}-{r.precision}")
@pytest.mark.parametrize("net", NETS, ids=["plain", "complex", "BatchNorm"])
def test_a_graph_does_the_steps_of_eager_kernels(
    net: sqz.Architecture, recipe: Recipe, data: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither warm-up nor capture leaves a trace; masks and rates change from step to step."""
    replays: list[int] = []
    real = cuda_graph.CapturedStep.replay

    def counted(step: cuda_graph.CapturedStep) -> None:
        replays.append(1)
        real(step)

    monkeypatch.setattr(cuda_graph.CapturedStep, "replay", counted)
    graph, run = fit(net, data, recipe, 3)
    assert len(replays) == recipe.epochs * (len(data.train) // recipe.batch_size)

    class Eager:
        def __init__(self, step, *rest: object) -> None:
            self.replay = step

    monkeypatch.setattr(loop, "CapturedStep", Eager)
    eager, expected = fit(net, data, recipe, 3)
    assert run.history == expected.history
    assert (run.top1, run.right) == (expected.top1, expected.right)
    equal(graph, eager)


def test_the_same_seed_gives_the_same_numbers(data: ImageData) -> None:
    first, second = (fit(NETS[0], data, RECIPES[0], 5) for _ in range(2))
    assert first[1].history == second[1].history
    equal(first[0], second[0])


def test_packed_trainings_are_those_alone(data: ImageData) -> None:
    alone = [fit(net, data, RECIPES[0], seed) for seed, net in enumerate(NETS)]
    together = [Training(net, data, RECIPES[0], seed) for seed, net in enumerate(NETS)]
    running = list(together)
    while running:
        running = [one for one in running if one.turn()]
    for one, (net, run) in zip(together, alone, strict=True):
        assert one.run().history == run.history
        equal(one.net, net)


@pytest.mark.parametrize("recipe", [RECIPES[0], RECIPES[3]], ids=["default", "paper"])
def test_interrupted_and_resumed(
    recipe: Recipe, data: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The optimiser's count of steps goes back to the device too."""
    monkeypatch.setattr(loop, "_KEEP_S", 0.0)

    class Stop(Exception):
        pass

    def stop(epoch: Epoch) -> None:
        raise Stop

    whole, expected = fit(NETS[1], data, recipe, 2)
    file = tmp_path / "state"
    with pytest.raises(Stop):
        fit(NETS[1], data, recipe, 2, stop, file)
    net, run = fit(NETS[1], data, recipe, 2, unfinished=file)
    assert run.history == expected.history
    equal(net, whole)


def test_float32_is_not_multiplied_as_tf32(data: ImageData) -> None:
    """And another training's precision does not leak into it."""
    before = torch.backends.cudnn.allow_tf32
    exact, rounded = (fit(NETS[1], data, Recipe(epochs=1, precision=p), 0)[1]
                      for p in ("float32", "tf32"))  # fmt: skip
    assert exact.history != rounded.history
    assert torch.backends.cudnn.allow_tf32 == before


def test_a_sweep_packs_its_trainings(tmp_path: Path) -> None:
    spec, cuda = parse_spec(SPEC.format(sampler="grid")), torch.device("cuda:0")
    run_sweep(spec, tmp_path / "packed", cuda, Quiet(), pack=8)
    run_sweep(spec, tmp_path / "alone", cuda, Quiet())
    run_sweep(spec, tmp_path / "worker", cuda, Quiet(), workers=2, pack=2)
    same(tmp_path / "packed", tmp_path / "alone")
    same(tmp_path / "worker", tmp_path / "alone")
    assert set(load_results(tmp_path / "packed")["device"]) == {"cuda:0"}


def test_a_lost_worker_does_not_fail_the_sweep(tmp_path: Path) -> None:
    """An illegal access leaves a process without its GPU; another one goes on."""
    text = SPEC.format(sampler="grid").replace("seeds: 2", "seeds: 1")
    code = f"""
import torch
from pathlib import Path
from sqzexplore.evaluation import bench
from sqzexplore.spec.load import parse_spec
from sqzexplore.sweep.run import run_sweep
from helpers.sweeps import Quiet

real, once = bench.Bench.perform, Path({str(tmp_path / "once")!r})

def broken(bench, task, *rest):
    if not once.exists():
        once.touch()
        torch.zeros(1, device="cuda")[torch.tensor([10**9], device="cuda")].item()
    yield from real(bench, task, *rest)

bench.Bench.perform = broken
if __name__ == "__main__":
    spec = parse_spec({text!r})
    run_sweep(spec, Path({str(tmp_path / "out")!r}), torch.device("cuda:0"), Quiet(), workers=2)
"""
    import os
    import subprocess
    import sys

    script = tmp_path / "script.py"
    script.write_text(code)
    path = os.pathsep.join([str(ROOT / "tests"), *sys.path])
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run([sys.executable, script], env=environment, check=False, timeout=300)
    assert done.returncode == 0
    assert (tmp_path / "once").exists(), "the fault did not happen"
    rows = load_results(tmp_path / "out")
    assert set(rows["state"]) == {"complete"}
    assert rows["attempts"].max() == 2
