"""The authors' own v1.1, compressed: size of the file, and how often it agrees with the float one.

    python benchmarks/genuine_compression.py FOLDER [--images 500]

FOLDER holds photographs that `data:` reads; images of its test split, spread evenly, are scaled to
227x227. The weights come from the extra `genuine`, by the code of docs/weights.md. Nothing is
retrained, and ImageNet's accuracy is not measured: agreement is of the best class of the
compressed network with that of the float network. Writes
`results/benchmarks/genuine_compression.csv`: rows of the whole network at three densities and 8, 6
and 5 bits, and of each layer compressed alone (33%, 6 bits).
"""

from __future__ import annotations

import argparse
import copy
import itertools
import re
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from scipy import stats
from torch import Tensor

import sqzexplore as sqz
from sqzexplore import provenance
from sqzexplore.data.images import load
from sqzexplore.data.open import open_data
from sqzexplore.network.module import SqueezeNet

ROOT = Path(__file__).parents[1]
OUT = ROOT / "results" / "benchmarks" / "genuine_compression.csv"
DENSITIES, BITS = (1.0, 0.5, 0.33), (8, 6, 5)
#: Of the rows in which one layer alone is compressed.
ALONE = (0.33, 6)
#: What Caffe's network subtracts, of blue, green and red.
MEANS = torch.tensor([104.006, 116.669, 122.679]).reshape(3, 1, 1)


def genuine() -> SqueezeNet:
    """v1.1 with the weights of the paper's authors, as docs/weights.md loads them."""
    page = (ROOT / "docs" / "weights.md").read_text()
    names: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[1], names)
    net: SqueezeNet = names["net"]
    return net.eval()


def photographs(folder: str, count: int) -> tuple[Tensor, str, str]:
    """N x 3 x 227 x 227 images as the network wants them; name and digest of the set."""
    source = open_data(folder)
    data = load(source, 32, "none")
    pixels = data.test.images
    chosen = torch.linspace(0, len(pixels) - 1, count).long()
    small = pixels[chosen].permute(0, 3, 1, 2).float()
    large = torch.nn.functional.interpolate(small, 227, mode="bilinear", align_corners=False)
    return large.flip(1) - MEANS, source.name, source.sha256


@torch.inference_mode()
def best(net: SqueezeNet, images: Tensor) -> Tensor:
    """The class of each image."""
    return torch.cat([net(part).argmax(1) for part in images.split(25)])


def alone(net: SqueezeNet, compressed: SqueezeNet, layer: str) -> SqueezeNet:
    """`net` with one layer's kernel compressed."""
    one = copy.deepcopy(net)
    one.get_submodule(layer).weight.data = compressed.get_submodule(layer).weight.data
    return one


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--images", type=int, default=500)
    asked = parser.parse_args()
    net = genuine()
    images, data, digest = photographs(asked.folder, asked.images)
    expected = best(net, images)
    rows: list[dict[str, Any]] = []

    def record(layer: str, density: float, bits: int, size: int, other: SqueezeNet) -> None:
        same = int((best(other, images) == expected).sum())
        ends = stats.binomtest(same, len(images)).proportion_ci(method="wilson")
        low, high = (100 * float(end) for end in ends)
        row = {"layer": layer, "density": density, "bits": bits, "compressed_bytes": size}
        row |= {"agreement": 100 * same / len(images), "ci_low": low, "ci_high": high}
        rows.append(row | {"images": len(images), "classes_seen": len(expected.unique())})
        print(rows[-1])

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "v1.1"
        decoded, layers = {}, {}
        for setting in itertools.product(DENSITIES, BITS):
            done = sqz.compress(net, *setting)
            file.write_bytes(done.content)
            decoded[setting], layers[setting] = sqz.load(file), done.layers
            record("all", *setting, len(done.content), decoded[setting])
    for layer in layers[ALONE]:
        record(layer.name, *ALONE, layer.bytes, alone(net, decoded[ALONE], layer.name))
    frame = pd.DataFrame(rows).assign(
        network="squeezenet1_1, the authors' weights",
        data=data,
        data_sha256=digest,
        device="cpu",
        dtype="float32",
        torch=torch.__version__,
        git_commit=provenance.git_commit(),
    )
    frame.to_csv(OUT, index=False)
    print(f"written: {OUT}")


if __name__ == "__main__":
    main()
