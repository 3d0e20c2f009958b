"""IDX files and the built-in subset of Fashion-MNIST, beside an IDX reader of the test's own."""

from __future__ import annotations

import gzip
import hashlib
import math
import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from helpers import ROOT
from sqzexplore.cli.app import app
from sqzexplore.data import images as images_module
from sqzexplore.data.fashion import CLASSES, FOLDER, PACKED, fashion_in, fashion_source
from sqzexplore.data.fashion.make import draw, idx, packed
from sqzexplore.data.idx import read_idx
from sqzexplore.data.images import load
from sqzexplore.data.open import open_data
from sqzexplore.errors import UserError
from sqzexplore.train.session import natural_size

#: Where Debian's package dataset-fashion-mnist puts the whole set.
ORIGINALS = Path("/usr/share/datasets/fashion-mnist")
CARD = (FOLDER / "README.md").read_text()
in_the_same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sqzexplore" / "images"


def read(file: Path) -> list[bytes]:
    """The rows of a packed IDX file of unsigned bytes, one an image or a label, by the standard
    library alone.
    """
    content = gzip.decompress(file.read_bytes())
    zero, kind, dimensions = struct.unpack_from(">HBB", content)
    assert (zero, kind) == (0, 8)
    count, *sides = struct.unpack_from(f">{dimensions}I", content, 4)
    size, start = math.prod(sides), 4 + 4 * dimensions
    assert len(content) == start + count * size
    return [content[start + i * size : start + (i + 1) * size] for i in range(count)]


def write(file: Path, array: np.ndarray, kind: int = 8) -> None:
    """Packed where the name says so."""
    content = struct.pack(">HBB", 0, kind, array.ndim)
    content += struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)


def pictures(numbers: list[int], shape: tuple[int, ...] = (8, 6)) -> np.ndarray:
    """Images whose every pixel is their number."""
    return np.broadcast_to(
        np.array(numbers, np.uint8).reshape(-1, *(1 for _ in shape)), (len(numbers), *shape)
    ).copy()


def write_set(
    root: Path,
    name: str = "{split}-{what}-idx{dimensions}-ubyte.gz",
    test: str = "t10k",
    shape: tuple[int, ...] = (8, 6),
    first: int = 0,
) -> None:
    """Images 0 to 59 to train, 60 to 89 to test; image `n` has the label `first` + n % 3."""
    for split, numbers in (("train", list(range(60))), (test, list(range(60, 90)))):
        images = pictures(numbers, shape)
        labels = np.array([first + n % 3 for n in numbers], np.uint8)
        write(root / name.format(split=split, what="images", dimensions=images.ndim), images)
        write(root / name.format(split=split, what="labels", dimensions=1), labels)


@pytest.mark.parametrize("test", ["t10k", "test"])
@pytest.mark.parametrize(
    "name",
    [
        "{split}-{what}-idx{dimensions}-ubyte.gz",
        "{split}-{what}-idx{dimensions}-ubyte",
        "{split}-{what}.idx{dimensions}-ubyte",
        "emnist-letters-{split}-{what}-idx{dimensions}-ubyte.gz",
        "My_{split}_{what}.idx{dimensions}-ubyte.gz",
    ],
)
def test_a_folder_of_idx_files_is_a_data_set(name: str, test: str, tmp_path: Path) -> None:
    write_set(tmp_path / "signs", name, test)
    source = open_data(str(tmp_path / "signs"))
    assert (source.name, source.classes, source.channels) == ("signs", ("0", "1", "2"), 1)
    data = load(source, 6)
    assert (data.augmentation, natural_size(source)) == ("shift", 6)
    seen = [split.images[:, 0, 0, 0].tolist() for split in (data.train, data.validation, data.test)]
    assert seen[2] == list(range(60, 90))
    assert sorted(seen[0] + seen[1]) == list(range(60))
    assert np.bincount(data.validation.labels).tolist() == [2, 2, 2]
    for split, numbers in zip((data.train, data.validation, data.test), seen, strict=True):
        assert split.labels.tolist() == [n % 3 for n in numbers]


@pytest.mark.parametrize(("last", "channels"), [(1, 1), (3, 3)])
def test_images_of_four_dimensions_are_grey_or_colour(
    last: int, channels: int, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (60, 8, 8, last), np.uint8)
    write(tmp_path / "set/train-images-idx4-ubyte", pixels)
    write(tmp_path / "set/train-labels-idx1-ubyte", np.arange(60, dtype=np.uint8) % 3)
    source = open_data(str(tmp_path / "set"))
    data = load(source, 8)
    assert data.channels == channels
    for part, split in ((source.train, data.train), (source.test, data.test)):
        assert np.array_equal(split.images.numpy(), pixels[part.index])
        assert split.labels.tolist() == [n % 3 for n in part.index]
    assert [len(split.labels) for split in (data.train, data.validation, data.test)] == [43, 5, 12]


def test_labels_may_count_from_one_as_emnists_letters(tmp_path: Path) -> None:
    write_set(tmp_path / "letters", first=1)
    source = open_data(str(tmp_path / "letters"))
    assert source.classes == ("1", "2", "3")
    assert source.test.labels.tolist() == [n % 3 for n in range(30)]


def test_packed_or_not_is_the_same_set_and_both_may_lie_there(tmp_path: Path) -> None:
    write_set(tmp_path / "packed/set")
    write_set(tmp_path / "plain/set", "{split}-{what}-idx{dimensions}-ubyte")
    checksum = open_data(str(tmp_path / "packed/set")).sha256
    assert open_data(str(tmp_path / "plain/set")).sha256 == checksum
    for file in (tmp_path / "packed/set").iterdir():
        shutil.copy(file, tmp_path / "plain/set")
    assert open_data(str(tmp_path / "plain/set")).sha256 == checksum
    write(tmp_path / "plain/set/t10k-images-idx3-ubyte", pictures([*range(60, 89), 0]))
    assert open_data(str(tmp_path / "plain/set")).sha256 != checksum


def test_a_name_that_a_browser_left_on_an_unpacked_file(tmp_path: Path) -> None:
    write_set(tmp_path / "set")
    file = tmp_path / "set/train-images-idx3-ubyte.gz"
    expected = b"".join(read(file))
    file.write_bytes(gzip.decompress(file.read_bytes()))
    assert read_idx(file).tobytes() == expected


def test_a_large_set_of_signs_is_not_mirrored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_set(tmp_path / "set")
    monkeypatch.setattr(images_module, "RESIDENT_BYTES", 1000)
    data = load(open_data(str(tmp_path / "set")), 8)
    assert data.augmentation == "shift"
    ((images, labels),) = data.test.batches(torch.tensor([3, 4]), 2)
    assert (images[:, 0, 0, 0].tolist(), labels.tolist()) == ([63, 64], [0, 1])


shapes = st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple)


@in_the_same_folder
@given(shape=shapes, pack=st.booleans(), data=st.data())
def test_every_array_is_read_as_it_was_written(
    tmp_path: Path, shape: tuple[int, ...], pack: bool, data: st.DataObject
) -> None:
    count = int(np.prod(shape))
    content = data.draw(st.binary(min_size=count, max_size=count))
    file = tmp_path / ("array.gz" if pack else "array")
    write(file, np.frombuffer(content, np.uint8).reshape(shape))
    array = read_idx(file)
    assert (array.shape, array.tobytes()) == (shape, content)


@in_the_same_folder
@given(pack=st.booleans(), end=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_one_message(tmp_path: Path, pack: bool, end: float) -> None:
    file = tmp_path / ("set.gz" if pack else "set")
    write(file, np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8))
    whole = file.read_bytes()
    file.write_bytes(whole[: int(end * len(whole))])
    with pytest.raises(UserError, match=rf"^{re.escape(str(file))}: found [^\n]+$"):
        read_idx(file)


@in_the_same_folder
@given(place=st.integers(0, 15), other=st.integers(1, 255))
def test_a_header_with_another_byte_is_one_message(tmp_path: Path, place: int, other: int) -> None:
    file = tmp_path / "set"
    write(file, np.zeros((5, 4, 3), np.uint8))
    content = bytearray(file.read_bytes())
    content[place] ^= other
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"^[^\n]*set: found [^\n]+, expected [^\n]+$"):
        read_idx(file)


@in_the_same_folder
@given(place=st.floats(0, 1, exclude_max=True), other=st.integers(1, 255))
def test_a_packed_file_with_another_byte_never_gives_other_pixels(
    tmp_path: Path, place: float, other: int
) -> None:
    file = tmp_path / "set.gz"
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)
    write(file, pixels)
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= other
    file.write_bytes(content)
    try:
        found = read_idx(file)
    except UserError as error:
        said = str(error)
    else:  # of the file's time, or its system's name
        assert np.array_equal(found, pixels)
        return
    assert re.fullmatch(rf"{re.escape(str(file))}: found [^\n]+", said)


TRAIN = "train-images-idx3-ubyte.gz"
LABELS = "train-labels-idx1-ubyte.gz"
THREES = np.arange(60, dtype=np.uint8) % 3
BROKEN: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "labels alone": (lambda r: (r / TRAIN).unlink(), [LABELS, "no images", TRAIN[:-3]]),
    "images alone": (lambda r: (r / LABELS).unlink(), [TRAIN, "no labels", LABELS[:-3]]),
    "no train": (
        lambda r: ((r / TRAIN).unlink(), (r / LABELS).unlink()),
        ["found the splits test, expected train"],
    ),
    "two sets": (
        lambda r: write(r / "emnist-digits-train-images-idx3-ubyte", pictures([0])),
        ["2 sets", "''", "'emnist-digits-'", "a folder of its own"],
    ),
    "a label too few": (
        lambda r: write(r / LABELS, THREES[:-1]),
        [LABELS, "array of 59", "expected 60 labels", TRAIN],
    ),
    "labels in a square": (
        lambda r: write(r / LABELS, THREES.reshape(60, 1)),
        [LABELS, "array of 60x1", "expected 60 labels"],
    ),
    "images in a row": (
        lambda r: write(r / TRAIN, THREES),
        [TRAIN, "array of 60, expected images: N x height x width"],
    ),
    "images of two channels": (
        lambda r: write(r / TRAIN, pictures(list(range(60)), (8, 8, 2))),
        [TRAIN, "array of 60x8x8x2"],
    ),
    "floats": (
        lambda r: write(r / TRAIN, np.zeros((60, 8, 6), ">f4"), 0x0D),
        [TRAIN, "0x0d (float32)", "expected 0x08 (unsigned bytes)"],
    ),
    "no IDX": (
        lambda r: (r / TRAIN).write_bytes(b"\x89PNG and more"),
        [TRAIN, "89 50 4e 47", "expected 00 00 08"],
    ),
    "nothing": (lambda r: (r / TRAIN).write_bytes(b""), [TRAIN, "found nothing"]),
    "a folder": (
        lambda r: ((r / TRAIN).unlink(), (r / TRAIN).mkdir()),
        [TRAIN, "cannot be read (Is a directory)"],
    ),
    "no image": (
        lambda r: (
            write(r / TRAIN, np.zeros((0, 8, 6), np.uint8)),
            write(r / LABELS, np.zeros(0, np.uint8)),
        ),
        [TRAIN, "an array of 0x8x6, expected images"],
    ),
    "no dimension": (
        lambda r: (r / TRAIN).write_bytes(b"\0\0\x08\0\x07"),
        [TRAIN, "0 dimensions in 5 bytes, expected 1 to 4"],
    ),
    "a hundred dimensions": (
        lambda r: (r / TRAIN).write_bytes(b"\0\0\x08\x64" + bytes(400)),
        [TRAIN, "100 dimensions in 404 bytes"],
    ),
    "a huge array of nothing": (
        lambda r: (r / TRAIN).write_bytes(b"\0\0\x08\x04" + b"\xff" * 12 + bytes(4)),
        [TRAIN, "array of 4294967295x4294967295x4294967295x0"],
    ),
    "two spellings": (
        lambda r: shutil.copy(r / "t10k-images-idx3-ubyte.gz", r / "test-images.idx3-ubyte"),
        ["test-images.idx3-ubyte and t10k-images-idx3-ubyte.gz, expected one"],
    ),
    "a label left out": (
        lambda r: write(r / LABELS, np.where(THREES == 2, np.uint8(200), THREES)),
        [LABELS, "3 labels from 0 to 200 and none that is 2", "consecutive"],
    ),
    "labels from two": (
        lambda r: write(r / LABELS, THREES + np.uint8(2)),
        [LABELS, "3 labels from 2 to 4 and none that is 1"],
    ),
    "one class": (
        lambda r: (
            write(r / LABELS, THREES * np.uint8(0)),
            write(r / "t10k-labels-idx1-ubyte.gz", THREES[:30] * np.uint8(0)),
        ),
        ["found 1 class (0)", "at least 2"],
    ),
    "a label that train lacks": (
        lambda r: write(r / "t10k-labels-idx1-ubyte.gz", np.arange(30, dtype=np.uint8) % 4),
        ["t10k-labels-idx1-ubyte.gz, row 3", "label 3, expected 0 to 2 as in train"],
    ),
    "test images of another size": (
        lambda r: write(r / "t10k-images-idx3-ubyte.gz", pictures(list(range(30)), (9, 6))),
        ["t10k-images-idx3-ubyte.gz", "images of 9x6, expected 8x6", TRAIN],
    ),
    "tiny images": (
        lambda r: (
            write(r / TRAIN, pictures(list(range(60)), (3, 8))),
            write(r / "t10k-images-idx3-ubyte.gz", pictures(list(range(30)), (3, 8))),
        ),
        [f"{TRAIN}, image 0", "8x3 pixels"],
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_wrong_with_idx_files_is_said_with_the_file(case: str, tmp_path: Path) -> None:
    damage, expected = BROKEN[case]
    write_set(tmp_path / "set")
    load(open_data(str(tmp_path / "set")), 8)
    damage(tmp_path / "set")
    with pytest.raises(UserError) as raised:
        load(open_data(str(tmp_path / "set")), 8)
    message = str(raised.value)
    assert str(tmp_path / "set") in message
    assert "\n" not in message
    for part in expected:
        assert part in message


def test_a_folder_is_not_a_built_in_set_by_its_name(tmp_path: Path, cache: Path) -> None:
    for name in ("digits", "fashion"):
        write_set(tmp_path / name)
        source = open_data(str(tmp_path / name))
        assert natural_size(source) == 6
        assert load(source, 8).augmentation == "shift"
        assert len(list(cache.glob(f"{name}-*.safetensors"))) == 1


def test_fashion_is_what_its_files_say(cache: Path) -> None:
    source = open_data("fashion")
    assert (source.name, source.classes, source.channels) == ("fashion", CLASSES, 1)
    assert (len(CLASSES), natural_size(source)) == (10, 28)
    data = load(source, 28)
    assert (data.augmentation, data.channels, data.image_size) == ("shift_flip", 1, 28)
    assert not cache.exists(), "what the package holds is not kept a second time"
    again = load(open_data("fashion"), 28)
    assert again.train.images is data.train.images, "nor decoded, in one process"
    files = {name: read(FOLDER / name) for name in PACKED}
    for split, name, of_each in (
        ("train", "train", 720),
        ("validation", "train", 80),
        ("test", "t10k", 400),
    ):
        index = getattr(source, split).index
        images = b"".join(files[f"{name}-images-idx3-ubyte.gz"][i] for i in index)
        assert getattr(data, split).images.numpy().tobytes() == images
        labels = b"".join(files[f"{name}-labels-idx1-ubyte.gz"][i] for i in index)
        assert getattr(data, split).labels.tolist() == list(labels)
        assert [labels.count(label) for label in range(10)] == [of_each] * 10
    assert load(source, 32).train.images.shape == (7200, 32, 32, 1)


def test_no_image_of_fashion_is_in_two_splits() -> None:
    source = open_data("fashion")
    parts = [source.train, source.validation, source.test]
    images = [{part.read(n).tobytes() for n in range(len(part))} for part in parts]
    assert [len(split) for split in images] == [7200, 800, 4000]
    assert len(set.union(*images)) == 12_000


def test_the_card_of_fashion_has_its_checksums() -> None:
    for name, expected in PACKED.items():
        content = (FOLDER / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == expected
        unpacked = hashlib.sha256(gzip.decompress(content)).hexdigest()
        assert f"| `{name}` | `{expected}` | `{unpacked}` |" in CARD
    assert f"`{open_data('fashion').sha256}`" in CARD
    for label, name in enumerate(CLASSES):
        assert f"| {label} | {name} |" in CARD


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("damage", ["a byte", "the end", "the file"])
def test_a_damaged_fashion_is_one_message(name: str, damage: str, tmp_path: Path) -> None:
    for each in PACKED:
        shutil.copy(FOLDER / each, tmp_path)
    assert fashion_in(tmp_path).sha256 == fashion_source().sha256
    file = tmp_path / name
    content = bytearray(file.read_bytes())
    content[4] ^= 1  # of the header's time: gzip would not mind
    file.write_bytes(content if damage == "a byte" else content[:-1])
    if damage == "the file":
        file.unlink()
    with pytest.raises(
        UserError, match=rf"^{re.escape(str(file))}: [^\n]*install sqzexplore again"
    ):
        fashion_in(tmp_path)


@pytest.mark.skipif(
    not ORIGINALS.exists(), reason=f"{ORIGINALS} is absent: apt-get install dataset-fashion-mnist"
)
def test_fashion_is_drawn_from_the_originals_again() -> None:
    for name, array in draw(ORIGINALS).items():
        content = (FOLDER / name).read_bytes()
        assert idx(array) == gzip.decompress(content), name
        if zlib.ZLIB_RUNTIME_VERSION in ("1.2.13", "1.3.1"):
            assert packed(idx(array)) == content, name
    for split in ("train", "t10k"):
        images, labels = f"{split}-images-idx3-ubyte.gz", f"{split}-labels-idx1-ubyte.gz"
        places = {image: place for place, image in enumerate(read(ORIGINALS / images))}
        order = [places[image] for image in read(FOLDER / images)]
        assert order == sorted(order)
        originals = read(ORIGINALS / labels)
        assert [originals[place] for place in order] == read(FOLDER / labels)


def test_what_make_packs_holds_no_time() -> None:
    contents = [packed(b"anything"), *((FOLDER / name).read_bytes() for name in PACKED)]
    assert {content[:10] for content in contents} == {b"\x1f\x8b\x08\0\0\0\0\0\x02\xff"}


def test_the_wheel_holds_fashion(tmp_path: Path) -> None:
    hatchling = pytest.importorskip("hatchling.builders.wheel")
    (wheel,) = hatchling.WheelBuilder(str(ROOT)).build(directory=str(tmp_path))
    with zipfile.ZipFile(wheel) as file:
        for name, expected in PACKED.items():
            content = file.read(f"sqzexplore/data/fashion/{name}")
            assert hashlib.sha256(content).hexdigest() == expected
        assert (
            "Copyright (c) 2017 Zalando SE"
            in file.read("sqzexplore/data/fashion/README.md").decode()
        )


def test_validate_says_which_images(tmp_path: Path) -> None:
    spec = tmp_path / "clothes.yaml"
    text = "name: clothes\nspace: {{squeeze_ratio: [0.5]}}\nmeasure: {{accuracy: {{data: {}}}}}\n"
    spec.write_text(text.format("fashion"))
    shown = CliRunner().invoke(app, ["validate", str(spec)], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    assert "fashion (7,200/800/4,000 images to train/validate/test)" in shown.output
    spec.write_text(text.format("fashon"))
    shown = CliRunner().invoke(app, ["validate", str(spec)], env={"COLUMNS": "200"})
    assert isinstance(shown.exception, UserError)
    assert "expected digits, fashion, a folder" in str(shown.exception)
