"""Compressed networks: codes against entropy and a tree, files against what was put in."""

from __future__ import annotations

import heapq
import math
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.cluster import KMeans
from typer.testing import CliRunner

import sqzexplore as sqz
from sqzexplore.cli.app import app
from sqzexplore.compress import huffman
from sqzexplore.compress.codebook import shared, surviving
from sqzexplore.compress.file import LONGEST, MAGIC, Layer, from_bytes, to_bytes
from sqzexplore.errors import UserError
from sqzexplore.train.checkpoint import notes, save

ARCHITECTURE = sqz.Architecture(
    num_classes=5, fires=3, pool_after=(1, 3), width_multiplier=0.25, batch_norm=True
)


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = sqz.build(ARCHITECTURE)
    with torch.no_grad():
        net(torch.rand(4, 3, 64, 64))  # so that BatchNorm has seen something
    return net.eval()


def shortest(counts: list[int]) -> int:
    """Bits of the best prefix code of all symbols together: what Huffman's merges cost."""
    heap = [count for count in counts if count]
    if len(heap) == 1:
        return heap[0]
    heapq.heapify(heap)
    total = 0
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        total += merged
        heapq.heappush(heap, merged)
    return total


@given(st.lists(st.integers(0, 40), min_size=1, max_size=300))
def test_words_decode_to_the_symbols_and_no_prefix_code_is_shorter(symbols):
    counts = np.bincount(symbols, minlength=41)
    lengths = huffman.code_lengths(counts)
    content = huffman.encode(np.array(symbols), lengths)
    assert huffman.decode(content, len(symbols), lengths).tolist() == symbols
    bits = int((counts * lengths).sum())
    assert bits == shortest(counts.tolist())
    assert len(content) == math.ceil(bits / 8)
    share = counts[counts > 0] / len(symbols)
    assert bits >= -len(symbols) * (share * np.log2(share)).sum() - 1e-6


def test_long_words():
    """Fibonacci's numbers as counts give the longest words there are."""
    counts = [1, 1]
    while len(counts) < 24:
        counts.append(counts[-1] + counts[-2])
    lengths = huffman.code_lengths(counts)
    assert lengths.max() == 23
    symbols = np.repeat(np.arange(24), np.minimum(counts, 50))
    np.random.default_rng(0).shuffle(symbols)
    found = huffman.decode(huffman.encode(symbols, lengths), len(symbols), lengths)
    assert (found == symbols).all()


def test_a_stream_that_ends_early_is_refused():
    lengths = huffman.code_lengths([5, 3, 2, 1])
    content = huffman.encode(np.array([3, 2, 1, 0, 3, 3, 3]), lengths)
    with pytest.raises(ValueError, match="too early"):
        huffman.decode(content[:1], 7, lengths)


@settings(deadline=None, max_examples=50)
@given(
    arrays.arrays(np.float32, st.integers(1, 900), elements=st.floats(-4, 4, width=32)),
    st.floats(0.001, 1.0),
)
def test_the_largest_survive(weights, density):
    mask = surviving(weights, density)
    assert mask.sum() == max(1, round(density * weights.size))
    if not mask.all():
        assert np.abs(weights[mask]).min() >= np.abs(weights[~mask]).max()


@settings(deadline=None, max_examples=30)
@given(
    arrays.arrays(np.bool_, st.tuples(st.integers(1, 4), st.integers(1, 900))),
    st.integers(0, 2**32 - 1),
)
def test_a_layer_comes_back_bit_for_bit(mask, seed):
    mask[0, 0] = True
    generator = np.random.default_rng(seed)
    layer = Layer(
        generator.normal(size=7).astype(np.float32), generator.integers(0, 7, mask.sum()), mask
    )
    bias = generator.normal(size=(3, 2)).astype(np.float32)
    content, sizes = to_bytes({"a": layer, "b": layer}, {"bias": bias}, {"x": 1})
    layers, others, header = from_bytes(content)
    for found in layers.values():
        assert (found.weights() == layer.weights()).all()
    assert (others["bias"] == bias).all()
    assert header == {"x": 1}
    assert sizes["a"] == sizes["b"]


def test_gaps_longer_than_a_symbol():
    mask, skip = np.zeros(4000, dtype=bool), LONGEST + 1
    mask[[0, skip, 2 * skip, 1000, 1001, 1001 + skip + 1, 3999]] = True
    layer = Layer(np.array([1.5], dtype=np.float32), np.zeros(7, dtype=np.int64), mask)
    layers, _, _ = from_bytes(to_bytes({"a": layer}, {}, {})[0])
    assert (layers["a"].mask == mask).all()


def test_kmeans_is_no_worse_than_even_steps_and_exact_where_there_are_few_values():
    values = np.random.default_rng(1).normal(size=3000).astype(np.float32)
    for bits in (2, 4, 8):
        centroids, index = shared(values, bits)
        assert len(centroids) <= 2**bits
        # Each has its nearest centroid, by comparison with all.
        assert (index == np.abs(values[:, None] - centroids).argmin(1)).all()
        even = np.linspace(values.min(), values.max(), 2**bits)
        of_even = np.square(values - even[np.abs(values[:, None] - even).argmin(1)]).sum()
        own = np.square(values - centroids[index]).sum()
        assert own < of_even
        # An independent k-means from the same start stops no better than a hundredth below.
        means = KMeans(2**bits, init=even[:, None], n_init=1, max_iter=300).fit(values[:, None])
        assert own < 1.01 * means.inertia_
    few = np.array([0.5, -1, 0.5, 2], dtype=np.float32)
    centroids, index = shared(few, 2)
    assert (centroids[index] == few).all()


def test_a_file_holds_the_network_that_is_evaluated(net, tmp_path):
    done = sqz.compress(net, 0.4, 4, {"mean": [0.1], "other": 1})
    file = tmp_path / "small.bin"  # an ending that torch's files have, too
    file.write_bytes(done.content)
    loaded, state = sqz.load(file), net.state_dict()
    kernels = {f"{layer.name}.weight" for layer in done.layers}
    assert len(kernels) == 1 + 3 * 3 + 1
    for name, tensor in loaded.state_dict().items():
        if name not in kernels:
            assert torch.equal(tensor, state[name])
            continue
        kept = tensor != 0
        assert kept.sum() <= round(0.4 * tensor.numel())
        assert len(tensor.unique()) <= 16 + 1
        assert (tensor - state[name])[kept].abs().max() < state[name].abs().max()
    again = sqz.compress(loaded, 0.4, 4)
    assert [layer.survivors for layer in again.layers] == [layer.survivors for layer in done.layers]
    images = torch.rand(2, 3, 64, 64)
    (tmp_path / "again").write_bytes(again.content)
    assert torch.equal(sqz.load(tmp_path / "again")(images), loaded(images))
    assert notes(file) == {
        "mean": [0.1], "density": 0.4, "bits": 4, "finetune_epochs": 0,
        "architecture": ARCHITECTURE.model_dump(mode="json"),
    }  # fmt: skip
    assert done.float32_bytes == 4 * sqz.cost(ARCHITECTURE, 64).params
    assert done.compressed_mb == file.stat().st_size / 1e6


def test_all_weights_and_enough_centroids_lose_nothing(net, tmp_path):
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_((parameter * 20).round().clamp(-60, 60) / 64)
    (tmp_path / "file").write_bytes(sqz.compress(net, 1.0, 8).content)
    loaded = sqz.load(tmp_path / "file").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in net.state_dict().items())


def test_damage_is_one_message(net, tmp_path):
    whole = sqz.compress(net, 0.3, 3).content
    file = tmp_path / "file"
    generator = np.random.default_rng(0)
    cases = [whole[:size] for size in (5, 12, 60, len(whole) // 2, len(whole) - 1)]
    cases += [
        whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :]
        for place in generator.integers(4, len(whole), 40).tolist()
    ]
    for content in cases:
        file.write_bytes(content)
        with pytest.raises(UserError, match=str(file)):
            sqz.load(file)
    file.write_bytes(whole[:4] + b"\x07" + whole[5:])
    with pytest.raises(UserError, match="found version 7 of the format, expected 1"):
        sqz.load(file)
    header = zlib.compress(b'{"kernels": {}, "plain": {}, "architecture": {"fires": -1}}')
    content = MAGIC + struct.pack("<BI", 1, len(header)) + header
    file.write_bytes(content + struct.pack("<I", zlib.crc32(content)))
    with pytest.raises(UserError, match="holds no network of sqzexplore"):
        sqz.load(file)


@pytest.mark.parametrize(
    ("density", "bits", "message"),
    [(0, 4, "density: found 0"), (1.2, 4, "density"), (math.nan, 4, "density"), (0.5, 9, "bits")],
)
def test_out_of_range(net, density, bits, message):
    with pytest.raises(UserError, match=message):
        sqz.compress(net, density, bits)


def test_a_network_that_diverged_is_refused(net):
    with torch.no_grad():
        next(net.parameters())[0] = math.inf
    with pytest.raises(UserError, match="not finite"):
        sqz.compress(net, 0.5, 4)


def test_the_verb(net, tmp_path):
    save(net, tmp_path / "model.safetensors", {"mean": [0.5] * 3, "std": [0.2] * 3})
    to = tmp_path / "small.sqz"
    asked = ["compress", str(tmp_path), "--density", "0.5", "--bits", "5", "--to", str(to)]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert "without retraining" in done.output
    assert notes(to)["std"] == [0.2] * 3
    assert sqz.load(to).architecture == ARCHITECTURE
    before = to.read_bytes()
    for wrong, message in (
        (["--bits", "12"], "bits: found 12"),
        # Before the network that would be trained on is looked at.
        (["--density", "0", "--data", "./no/images"], "density: found 0"),
        (["--to", str(tmp_path)], "found a folder"),
        (["--to", str(tmp_path / "no" / "file")], "no folder"),
    ):
        refused = CliRunner().invoke(app, [*asked, *wrong])
        assert refused.exit_code != 0
        assert message in str(refused.exception or refused.output).replace("\n", " ")
    assert to.read_bytes() == before
