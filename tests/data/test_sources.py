"""Data sets on disk: what is read, how it is split and cached, and what is refused."""

from __future__ import annotations

import io
import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from sqzexplore.data import images as images_module
from sqzexplore.data import stream
from sqzexplore.data.images import load
from sqzexplore.data.open import open_data
from sqzexplore.errors import UserError

CLASSES = ("cat", "dog", "eel")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sqzexplore" / "images"


def picture(number: int, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Image.Image:
    """An image whose every pixel tells its number."""
    return Image.new(mode, size, number if mode == "L" else (number, 255 - number, 7))


def encoded(number: int, **kwargs) -> bytes:
    buffer = io.BytesIO()
    picture(number, **kwargs).save(buffer, "png")
    return buffer.getvalue()


def write_parquet(
    file: Path,
    numbers: list[int],
    names: tuple[str, ...] = CLASSES,
    columns: tuple[str, str] = ("img", "label"),
    labels: list[int] | None = None,
    contents: list[bytes | None] | None = None,
    **kwargs,
) -> None:
    """Image `n` has the label n % 3."""
    contents = contents or [encoded(n, **kwargs) for n in numbers]
    labels = labels if labels is not None else [n % 3 for n in numbers]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": c, "path": None} for c in contents], kind)
    table = pa.table({columns[0]: images, columns[1]: pa.array(labels, pa.int64())})
    if names:
        feature = {columns[1]: {"names": list(names), "_type": "ClassLabel"}}
        described = json.dumps({"info": {"features": feature}})
        table = table.replace_schema_metadata({"huggingface": described})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file)


def write_folder(root: Path, numbers: list[int], **kwargs) -> None:
    for n in numbers:
        file = root / CLASSES[n % 3] / f"{n:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture(n, **kwargs).save(file)


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    write_parquet(tmp_path / "pets" / "train.parquet", list(range(60)))
    write_parquet(tmp_path / "pets" / "test.parquet", list(range(60, 90)))
    return tmp_path / "pets"


def numbers(split) -> list[int]:
    return split.images[:, 0, 0, 0].tolist()


def test_parquet_is_read_as_it_was_written(parquet: Path) -> None:
    source = open_data(str(parquet))
    assert (source.name, source.classes, source.channels) == ("pets", CLASSES, 3)
    data = load(source, 8)
    assert (data.image_size, data.channels, data.augmentation) == (8, 3, "shift_flip")
    assert numbers(data.test) == list(range(60, 90))
    assert sorted(numbers(data.train) + numbers(data.validation)) == list(range(60))
    assert len(data.validation) == 6
    for split in (data.train, data.validation, data.test):
        assert split.labels.tolist() == [n % 3 for n in numbers(split)]
        assert (split.images[..., 1] == 255 - split.images[..., 0]).all()
    assert np.bincount(data.validation.labels).tolist() == [2, 2, 2]
    pixels = data.train.images.double()
    assert torch.allclose(data.mean.double(), pixels.mean((0, 1, 2)), atol=1e-3)
    expected = pixels.std((0, 1, 2), correction=0).clamp(min=1)
    assert torch.allclose(data.std.double(), expected, atol=1e-3)


def test_parquet_shards_and_a_split_for_validation(tmp_path: Path) -> None:
    root = tmp_path / "shards"
    for shard in range(2):
        ids = list(range(30 * shard, 30 * shard + 30))
        write_parquet(root / f"train-{shard:05}-of-00002.parquet", ids, columns=("image", "label"))
    write_parquet(root / "validation.parquet", list(range(60, 70)), columns=("image", "label"))
    write_parquet(root / "test.parquet", list(range(70, 90)), columns=("image", "label"))
    data = load(open_data(str(root)), 8)
    assert numbers(data.train) == list(range(60))
    assert numbers(data.validation) == list(range(60, 70))
    assert numbers(data.test) == list(range(70, 90))


def test_rows_without_a_label_are_left_out_and_counted(tmp_path: Path) -> None:
    """-1 stands for none: in a test split that has none, and among others."""
    root = tmp_path / "unlabelled"
    write_parquet(root / "train.parquet", list(range(60)), columns=("image", "label"))
    write_parquet(root / "test.parquet", list(range(60, 80)), columns=("image", "label"))
    table = pq.read_table(root / "test.parquet").to_pandas()
    pq.write_table(pa.Table.from_pandas(table.assign(label=-1)), root / "test.parquet")
    source = open_data(str(root))
    assert "test: 20 images without a label (-1) are left out" in source.description
    assert source.sizes == (43, 5, 12)
    some = table.assign(label=[-1] * 5 + table["label"].tolist()[5:])
    pq.write_table(pa.Table.from_pandas(some), root / "test.parquet")
    source = open_data(str(root))
    assert "test: 5 images without a label (-1) are left out" in source.description
    assert sorted(numbers(load(source, 8).test)) == list(range(65, 80))


def test_class_folders_with_and_without_splits(tmp_path: Path) -> None:
    write_folder(tmp_path / "one", list(range(60)))
    data = load(open_data(str(tmp_path / "one")), 8)
    parts = [numbers(split) for split in (data.train, data.validation, data.test)]
    assert [len(part) for part in parts] == [43, 5, 12]
    assert sorted(n for part in parts for n in part) == list(range(60))
    write_folder(tmp_path / "imagenet" / "train", list(range(60)))
    write_folder(tmp_path / "imagenet" / "val", list(range(60, 90)))
    source = open_data(str(tmp_path / "imagenet"))
    data = load(source, 8)
    assert sorted(numbers(data.validation)) == list(range(60, 90)), "it is called so"
    assert len(data.test) == 12
    assert "test: 20% of the training images, by class, as the set has none" in source.description
    for split in (data.train, data.validation, data.test):
        assert split.labels.tolist() == [n % 3 for n in numbers(split)]


def test_grey_images_have_one_channel(tmp_path: Path) -> None:
    write_folder(tmp_path / "grey", list(range(30)), mode="L")
    data = load(open_data(str(tmp_path / "grey")), 8)
    assert data.train.images.shape[1:] == (8, 8, 1)


def test_large_images_are_resized_and_cropped_at_the_centre(tmp_path: Path) -> None:
    """A 40x20 image, left half dark, right half light: the crop has the edge in its middle."""
    for n in range(40):
        file = tmp_path / "wide" / CLASSES[n % 2] / f"{n}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.zeros((20, 40, 3), np.uint8)
        pixels[:, 20:] = 200 + n
        Image.fromarray(pixels).save(file)
    data = load(open_data(str(tmp_path / "wide")), 10)
    row = data.train.images[0, 5, :, 0].tolist()
    assert row[:4] == [0] * 4
    assert row[6:] == [row[-1]] * 4
    assert row[-1] >= 200


def test_an_environment_variable_says_where(parquet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PETS", str(parquet))
    assert open_data("${PETS}").sha256 == open_data(str(parquet)).sha256
    monkeypatch.setenv("ROOT", str(parquet.parent))
    assert open_data("${ROOT}/pets").name == "pets"
    monkeypatch.delenv("PETS")
    with pytest.raises(UserError, match="environment variable PETS is not set"):
        open_data("${PETS}")


def test_the_checksum_follows_contents_not_places(tmp_path: Path) -> None:
    ids = list(range(30))
    for name in ("a/pets", "b/pets"):
        write_parquet(tmp_path / name / "train.parquet", ids)
    first = open_data(str(tmp_path / "a/pets")).sha256
    assert open_data(str(tmp_path / "b/pets")).sha256 == first
    contents = [encoded(n) for n in ids]
    contents[7] = encoded(8)
    write_parquet(tmp_path / "b/pets/train.parquet", ids, contents=contents)
    assert open_data(str(tmp_path / "b/pets")).sha256 != first


def test_the_cache_is_used_and_a_damaged_one_rebuilt(
    parquet: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    real = images_module._decode
    monkeypatch.setattr(images_module, "_decode", lambda *a: decoded.append(a) or real(*a))
    first = load(open_data(str(parquet)), 8)
    assert len(decoded) == 1
    (file,) = cache.glob("*.safetensors")
    whole = file.read_bytes()
    for damage in (whole[:-1], whole[:-5] + b"wrong", b"", b"x" * 100):
        count = len(decoded)
        assert torch.equal(load(open_data(str(parquet)), 8).train.images, first.train.images)
        assert len(decoded) == count, "a whole cache is read"
        file.write_bytes(damage)
        assert torch.equal(load(open_data(str(parquet)), 8).train.images, first.train.images)
        assert len(decoded) == count + 1, "a damaged cache is decoded again"
        assert file.read_bytes() == whole
    load(open_data(str(parquet)), 10)
    assert len(list(cache.glob("*.safetensors"))) == 2


def _load_in_a_process(folder: str, start, results) -> None:
    start.wait()
    results.put(load(open_data(folder), 8).train.images.sum().item())


def test_two_processes_build_the_cache_at_once(parquet: Path, cache: Path) -> None:
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(3), context.Queue()
    workers = [
        context.Process(target=_load_in_a_process, args=(str(parquet), start, results))
        for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    sums = {results.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join()
    assert sums == {load(open_data(str(parquet)), 8).train.images.sum().item()}
    assert len(list(cache.glob("*.safetensors"))) == 1
    assert not [f for f in cache.iterdir() if f.name.startswith(".")]


def test_a_cache_that_cannot_be_written_is_a_warning(
    parquet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="not kept"):
        assert len(load(open_data(str(parquet)), 8).train) == 54


def test_streamed_images_are_those_in_memory(
    parquet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resident = load(open_data(str(parquet)), 8)
    monkeypatch.setattr(images_module, "RESIDENT_BYTES", 1000)
    streamed = load(open_data(str(parquet)), 8)
    assert streamed.augmentation == "crop_flip"
    order = torch.tensor([5, 3, 50, 0, 7])
    for split in ("train", "test"):
        order = order % len(getattr(resident, split))
        seen = list(getattr(streamed, split).batches(order, 2))
        assert [len(labels) for _, labels in seen] == [2, 2, 1]
        expected = list(getattr(resident, split).batches(order, 2))
        for (a, b), (c, d) in zip(seen, expected, strict=True):
            assert torch.equal(a, c)
            assert torch.equal(b, d)


@pytest.mark.parametrize(
    ("device", "threads", "cores", "expected"),
    [("cpu", 1, 8, 0), ("cpu", 4, 8, 4), ("cpu", 8, 2, 2), ("cuda", 1, 8, 8), ("cuda", 8, 64, 16)],
)
def test_a_stream_takes_no_more_processes_than_its_training_has_cores(
    device: str, threads: int, cores: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(joblib, "cpu_count", lambda: cores)
    assert stream._workers(torch.device(device)) == expected


def test_a_stream_gives_the_same_with_and_without_worker_processes(
    parquet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, seen = load(open_data(str(parquet)), 8, "crop_flip"), []
    for workers in (0, 1, 2):
        monkeypatch.setattr(stream, "_workers", lambda device, workers=workers: workers)
        generator = torch.Generator().manual_seed(0)
        batches = list(data.train.batches(torch.arange(54), 10, "crop_flip", generator))
        seen.append([torch.cat(part) for part in zip(*batches, strict=True)])
    for images, labels in seen[1:]:
        assert torch.equal(images, seen[0][0])
        assert torch.equal(labels, seen[0][1])


def _stream_in_a_process(folder: str, results) -> None:
    torch.set_num_threads(1)
    data = load(open_data(folder), 8, "crop_flip")
    results.put([labels.tolist() for _, labels in data.test.batches(torch.arange(4), 2)])


def test_a_stream_in_a_process_that_may_have_no_children(parquet: Path) -> None:
    """As a training on one thread may be: a daemonic process, which may not start others."""
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    worker = context.Process(target=_stream_in_a_process, args=(str(parquet), results), daemon=True)
    worker.start()
    assert results.get(timeout=60) == [[0, 1], [2, 0]]
    worker.join()


def test_random_crops_are_parts_of_the_image_and_repeatable(tmp_path: Path) -> None:
    """Red rises to the right and green to the bottom, so that a crop tells where it was cut."""
    ramp = np.zeros((64, 64, 3), np.uint8)
    ramp[..., 0] = np.arange(64) * 4
    ramp[..., 1] = np.arange(64)[:, None] * 4
    for n in range(40):
        file = tmp_path / "ramps" / CLASSES[n % 2] / f"{n}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(ramp).save(file)
    data = load(open_data(str(tmp_path / "ramps")), 16, "crop_flip")

    def crops(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        batches = data.train.batches(torch.arange(8).repeat(8), 8, "crop_flip", generator)
        return torch.cat([images for images, _ in batches]).int()

    cut = crops(0)
    assert torch.equal(cut, crops(0))
    assert not torch.equal(cut, crops(1))
    across = cut[:, 8, -1, 0] - cut[:, 8, 0, 0]
    down = cut[:, -1, 8, 1] - cut[:, 0, 8, 1]
    assert (down > 0).all()
    assert (across > 0).any()
    assert (across < 0).any()
    share = (across.abs() * down / (252.0 * 252)).sqrt()
    assert share.min() < 0.6 < 0.8 < share.max()


Broken = Callable[[Path], None]


def _corrupt_jpeg(root: Path) -> None:
    write_folder(root, list(range(30)))
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(
        buffer, "jpeg"
    )
    (root / "cat" / "003.jpg").write_bytes(buffer.getvalue()[:1000])


BROKEN: dict[str, tuple[Broken, list[str]]] = {
    "truncated image": (_corrupt_jpeg, ["cat/003.jpg", "no whole image"]),
    "text for an image": (
        lambda r: (write_folder(r, list(range(30))), (r / "eel/002.png").write_text("hello")),
        ["eel/002.png", "5 bytes", "unknown format"],
    ),
    "empty image": (
        lambda r: (write_folder(r, list(range(30))), (r / "dog/001.png").write_bytes(b"")),
        ["dog/001.png", "0 bytes"],
    ),
    "a tiny image": (
        lambda r: (write_folder(r, list(range(30))), picture(1, size=(1, 1)).save(r / "cat/x.png")),
        ["cat/x.png", "1x1 pixels"],
    ),
    "one class": (lambda r: write_folder(r, [0, 3, 6]), ["found 1 class (cat)", "at least 2"]),
    "no class": (lambda r: r.mkdir(), ["found no folder"]),
    "an empty class": (
        lambda r: (write_folder(r, list(range(30))), (r / "fox").mkdir()),
        ["fox", "found no image"],
    ),
    "a class of test that train lacks": (
        lambda r: (
            write_folder(r / "train", list(range(30))),
            write_folder(r / "test", list(range(30))),
            (r / "test/cat").rename(r / "test/cats"),
        ),
        ["test/cats", "did you mean 'cat'?"],
    ),
    "no train": (lambda r: write_folder(r / "test", list(range(30))), ["found test", "train"]),
    "too few of a class to split twice": (
        lambda r: write_parquet(
            r / "all.parquet", list(range(32)), labels=[2 if n > 29 else n % 2 for n in range(32)]
        ),
        ["too few to carve"],
    ),
    "too few to split": (lambda r: write_folder(r, [0, 1, 2]), ["too few to carve"]),
    "a label too many": (
        lambda r: write_parquet(r / "train.parquet", [0, 1, 2, 3], labels=[0, 1, 2, 3]),
        ["train.parquet, row 3", "label 3", "0 to 2", "names 3 classes"],
    ),
    "a negative label": (
        lambda r: write_parquet(r / "train.parquet", [0, 1], labels=[0, -2], names=()),
        ["train.parquet, row 1", "label -2"],
    ),
    "no bytes": (
        lambda r: write_parquet(
            r / "train.parquet",
            list(range(30)),
            contents=[encoded(n) if n != 4 else None for n in range(30)],
        ),
        ["train.parquet, row 4", "no bytes"],
    ),
    "a corrupt row": (
        lambda r: write_parquet(
            r / "train.parquet",
            list(range(30)),
            contents=[encoded(n) if n != 4 else b"\x89PNG no" for n in range(30)],
        ),
        ["train.parquet, row 4", "no whole image"],
    ),
    "other columns": (
        lambda r: write_parquet(r / "train.parquet", [0, 1], columns=("photo", "label")),
        ["train.parquet", "photo", "label: int64", "expected image"],
    ),
    "no parquet": (
        lambda r: (r.mkdir(), (r / "train.parquet").write_text("no")),
        ["train.parquet", "no readable parquet"],
    ),
    "a file of no split": (
        lambda r: (
            write_parquet(r / "train.parquet", [0, 1, 2]),
            write_parquet(r / "other.parquet", [0, 1, 2]),
        ),
        ["other.parquet", "name of no split"],
    ),
    "an empty split": (
        lambda r: (
            write_parquet(r / "train.parquet", list(range(30))),
            write_parquet(r / "test.parquet", []),
        ),
        ["found no image in test"],
    ),
    "a class without training images": (
        lambda r: (
            write_parquet(r / "train.parquet", list(range(30)), labels=[n % 2 for n in range(30)]),
            write_parquet(r / "test.parquet", list(range(30))),
        ),
        ["no training image of 1 of the 3 classes (eel)"],
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_wrong_with_a_data_set_is_said_with_its_file(case: str, tmp_path: Path) -> None:
    make, expected = BROKEN[case]
    make(tmp_path / "set")
    with pytest.raises(UserError) as raised:
        load(open_data(str(tmp_path / "set")), 8)
    message = str(raised.value)
    assert str(tmp_path / "set") in message
    assert "\n" not in message
    for part in expected:
        assert part in message


def test_a_damaged_image_in_a_stream_is_said_with_its_file(tmp_path: Path) -> None:
    _corrupt_jpeg(tmp_path / "set")
    (tmp_path / "set/cat/003.jpg").rename(tmp_path / "set/cat/099.jpg")

    def read_all() -> None:
        data = load(open_data(str(tmp_path / "set")), 8, "crop_flip")
        for split in (data.train, data.validation, data.test):
            list(split.batches(torch.arange(len(split)), 4))

    with pytest.raises(UserError, match=r"^[^\n]*cat/099\.jpg: found 1000 bytes that are no whole"):
        read_all()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("digit", "did you mean 'digits'"),
        ("fashion-mnist", "expected digits, fashion, a folder .* did you mean 'fashion'"),
        ("/nonexistent", "no such folder"),
        ("~nosuchuser/x", "no such folder"),
        ("./nonexistent", "no such folder"),
        (__file__, "found a file, expected the folder"),
    ],
)
def test_names_of_no_data_set(name: str, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        open_data(name)


def test_hugging_face_data_sets(parquet: Path, tmp_path: Path) -> None:
    """The library's own reading of the same files gives the same images."""
    datasets = pytest.importorskip("datasets")
    from sqzexplore.data.hub import from_splits

    files = {"train": str(parquet / "train.parquet"), "test": str(parquet / "test.parquet")}
    loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "hf"))
    data, expected = load(from_splits(loaded, "someone/pets"), 8), load(open_data(str(parquet)), 8)
    assert data.name == "someone--pets"
    assert data.classes == expected.classes
    for split in ("train", "validation", "test"):
        assert torch.equal(getattr(data, split).images, getattr(expected, split).images)
        assert torch.equal(getattr(data, split).labels, getattr(expected, split).labels)


def test_hugging_face_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install \"sqzexplore\[hf\]\""):
        open_data("someone/pets")
