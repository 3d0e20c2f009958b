"""Image sets as people have them: every kind of picture, every layout; none lost in silence."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.sweeps import run
from sqzexplore.data.decode import open_image
from sqzexplore.data.images import load
from sqzexplore.data.open import open_data
from sqzexplore.data.source import SPLIT_NAMES
from sqzexplore.errors import UserError
from sqzexplore.results.folder import load_results


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def picture(number: int, mode: str = "RGB", size: int = 8) -> Image.Image:
    pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def folder(root: Path, count: int = 20, ending: str = "png", first: int = 0) -> Path:
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for number in range(count):
            picture(first + number + 1000 * (name == "dog")).save(
                root / name / f"{number}.{ending}"
            )
    return root


def as_bytes(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


# --- one picture ---------------------------------------------------------------------------------


def decoded(content: bytes, channels: int) -> np.ndarray:
    return np.asarray(open_image(content, "x", channels))


def test_sixteen_bits_are_scaled_by_their_range() -> None:
    levels = np.array([[0, 257, 32896, 65535]] * 4, np.uint16)
    for kind in ("PNG", "TIFF", "PPM"):
        found = decoded(as_bytes(Image.fromarray(levels), kind), 1)
        assert found.tolist() == [[0, 1, 128, 255]] * 4, kind


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_a_type_without_a_range_is_refused(kind: type) -> None:
    content = as_bytes(Image.fromarray(np.full((8, 8), 7, kind)), "TIFF")
    with pytest.raises(UserError, match=r"x: found pixels that are .* expected 8 or 16 bits"):
        open_image(content, "x", 1)


@pytest.mark.parametrize("tag", range(1, 9))
def test_upright_as_a_person_sees_it(tag: int) -> None:
    """EXIF's orientation (CIPA DC-008, table 6), undone with NumPy by its definition."""
    upright = np.asarray(picture(1))
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[tag]
    exif = Image.Exif()
    exif[0x0112] = tag
    content = as_bytes(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)
    assert np.array_equal(decoded(content, 3), upright)


def test_what_is_transparent_shows_white() -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:2] = (10, 20, 30, 255)
    pixels[2] = (10, 20, 30, 0)
    pixels[3] = (0, 0, 0, 127)
    found = decoded(as_bytes(Image.fromarray(pixels)), 3)
    assert found[:2].tolist() == [[[10, 20, 30]] * 4] * 2
    assert found[2].tolist() == [[255] * 3] * 4
    assert abs(found[3].astype(int) - 128).max() <= 1


KINDS = [
    ("RGB", "PNG"),
    ("L", "PNG"),
    ("1", "PNG"),
    ("P", "GIF"),
    ("P", "PNG"),
    ("RGB", "BMP"),
    ("RGB", "WEBP"),
    ("CMYK", "TIFF"),
    ("L", "TIFF"),
    ("RGB", "PPM"),
    ("YCbCr", "TIFF"),
    ("LAB", "TIFF"),
]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_kind_in_any_layout(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The tensors are those of an independent decoding, whatever the files are and how they lie."""
    root = tmp_path_factory.mktemp("set") / "pets"
    names = data.draw(
        st.sampled_from([("", ""), ("train", "test"), ("Training", "TEST"), ("train", "eval")])
    )
    kinds = data.draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=4))
    expected: dict[bytes, str] = {}
    colour = any(mode not in ("L", "1") for mode, _ in kinds)
    number = 0
    for split in dict.fromkeys(names):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for _ in range(15):
                mode, kind = kinds[number % len(kinds)]
                image = picture(number, mode)
                lossless = {"lossless": True} if kind == "WEBP" else {}
                ending = {"PPM": "pgm" if mode == "L" else "ppm"}.get(kind, kind.lower())
                content = as_bytes(image, kind, **lossless)
                (root / split / name / f"{number}.{ending}").write_bytes(content)
                pixels = Image.open(io.BytesIO(content)).convert("RGB" if colour else "L")
                expected[np.asarray(pixels).tobytes()] = name
                number += 1
    found = load(open_data(str(root)), 8)
    assert found.channels == (3 if colour else 1)
    seen = {}
    for part in (found.train, found.validation, found.test):
        for image, label in zip(part.images, part.labels, strict=True):
            seen[image.numpy().tobytes()] = found.classes[int(label)]
    assert seen == expected


# --- a set ---------------------------------------------------------------------------------------


def test_names_that_are_no_utf8_reach_the_tables(tmp_path: Path) -> None:
    """Latin-1 folders, trained on, in every table and in the provenance."""
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9s"))
    for number, name in enumerate((b"caf\xe9", b"th\xe9")):
        folder_ = Path(os.fsdecode(os.fsencode(root) + b"/" + name))
        folder_.mkdir(parents=True)
        for index in range(15):
            picture(100 * number + index).save(folder_ / f"{index}.png")
    link = tmp_path / "link"  # YAML is UTF-8
    link.symlink_to(root)
    text = f"""
name: latin
base: {{width_multiplier: 0.1, fires: 2, pool_after: [1, 3]}}
space: {{squeeze_ratio: [0.5]}}
input_size: 32
measure: {{accuracy: {{data: {link}, epochs: 1, seeds: 1, batch_size: 8}}}}
"""
    run(text, tmp_path / "out")
    confusion = load_results(tmp_path / "out", "confusion")
    assert set(confusion["label"]) == {r"caf\udce9", r"th\udce9"}
    assert load_results(tmp_path / "out")["data"].tolist() == [r"caf\udce9s"]


def test_colour_is_decided_by_the_set(tmp_path: Path) -> None:
    root = folder(tmp_path / "pets")
    for number in range(6):
        picture(number, "L").save(root / "cat" / f"{number}.png")
    assert open_data(str(root)).channels == 3


def test_colour_is_decided_by_every_split(tmp_path: Path) -> None:
    for split, mode in (("train", "L"), ("test", "RGB")):
        for name in ("cat", "dog"):
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            for number in range(12):
                image = picture(number + len(split), mode)
                image.save(tmp_path / "pets" / split / name / f"{number}.png")
    assert open_data(str(tmp_path / "pets")).channels == 3


def test_an_image_too_large_to_open_is_said_with_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 32)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(12):
            picture(number, "L", 5).save(tmp_path / "pets" / name / f"{number}.png")
    picture(0, "L", 9).save(tmp_path / "pets" / "dog" / "9.png")
    with pytest.raises(UserError, match=r"dog/9.png: .*no whole image \(Image size"):
        load(open_data(str(tmp_path / "pets")), 5)


MEANT = {"train": "train", "training": "train", "test": "test", "testing": "test", "eval": "test"}
MEANT |= dict.fromkeys(("val", "valid", "validation", "dev"), "validation")


@pytest.mark.parametrize("name", [*MEANT, "Valid", "TESTING"])
def test_every_name_of_a_split_is_understood(name: str, tmp_path: Path) -> None:
    assert SPLIT_NAMES.keys() == MEANT.keys()
    meant = MEANT[name.lower()]
    root = tmp_path / "pets"
    if meant != "train":
        folder(root / "train")
    folder(root / name, 30, first=500)
    sizes = dict(zip(("train", "validation", "test"), open_data(str(root)).sizes, strict=True))
    assert sizes[meant] == (60 if meant != "train" else 60 - sizes["validation"] - sizes["test"])


def test_three_splits_are_taken_as_they_are(tmp_path: Path) -> None:
    for number, name in enumerate(("train", "dev", "eval")):
        folder(tmp_path / "pets" / name, 5 + number, first=100 * number)
    assert open_data(str(tmp_path / "pets")).sizes == (10, 12, 14)


def test_a_class_may_bear_a_splits_name(tmp_path: Path) -> None:
    root = folder(tmp_path / "traffic")
    (root / "train").mkdir()
    for number in range(20):
        picture(5000 + number).save(root / "train" / f"{number}.png")
    assert open_data(str(root)).classes == ("cat", "dog", "train")


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda r: folder(r / "extra"), "extra is no split"),
        (lambda r: folder(r / "Train2"), "Train2 is no split"),
        (lambda r: folder(r / "training"), "expected one for train"),
        (lambda r: (r / "test").mkdir(), "found no class folders"),
        (lambda r: (r / "train/cat/x.png").symlink_to(r / "nothing"), "found a link to nothing"),
    ],
)
def test_what_is_not_understood_is_said(make, expected: str, tmp_path: Path) -> None:
    folder(tmp_path / "pets" / "train")
    make(tmp_path / "pets")
    with pytest.raises(UserError, match=expected):
        open_data(str(tmp_path / "pets"))


def test_links_are_followed_and_circles_end(tmp_path: Path) -> None:
    root, more = folder(tmp_path / "pets"), folder(tmp_path / "more", 10, first=300)
    (root / "cat" / "more").symlink_to(more / "cat")
    (root / "cat" / "round").symlink_to(root / "cat")
    assert sum(open_data(str(root)).sizes) == 50


def test_what_is_passed_over_is_counted(tmp_path: Path) -> None:
    root = folder(tmp_path / "pets", 10, "jfif")
    for name in ("notes.txt", "a.xcf", "b.xcf"):
        (root / "cat" / name).write_text("x")
    (root / "cat" / "._0.png").write_text("x")
    (root / "__MACOSX").mkdir()
    source = open_data(str(root))
    assert sum(source.sizes) == 20
    assert "3 files passed over, which are no images: 2 .xcf, 1 .txt" in source.description


def test_images_that_are_all_alike_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for number in range(20):
            picture(1).save(root / name / f"{number}.png")
    with pytest.raises(UserError, match="pets: found 28 training images that are all alike"):
        load(open_data(str(root)), 8)


def test_a_small_photograph_among_large_ones_is_enlarged_and_said(tmp_path: Path) -> None:
    root = folder(tmp_path / "pets")
    picture(1, size=5).save(root / "cat" / "3.png")
    with pytest.warns(UserWarning, match=r"1 of 40 images have a side below 8 .*cat/3.png"):
        assert load(open_data(str(root)), 8).train.images.shape[1:] == (8, 8, 3)


@pytest.mark.skipif(os.name == "nt", reason="names there are Unicode")
def test_names_that_are_no_utf_8(tmp_path: Path) -> None:
    root = folder(tmp_path / "pets")
    os.rename(root / "cat" / "1.png", os.path.join(os.fsencode(root / "cat"), b"k\xe4tzchen.png"))
    source = open_data(str(root))
    assert sum(source.sizes) == 40
    assert len(source.sha256) == 16


# --- parquet -------------------------------------------------------------------------------------


def table(numbers: range, names: tuple[str, ...]) -> pa.Table:
    """Even numbers are cats; `names` is the order in which the file numbers its classes."""
    rows = [{"bytes": as_bytes(picture(n)), "path": None} for n in numbers]
    labels = [names.index("dog" if n % 2 else "cat") for n in numbers]
    made = pa.table({"image": rows, "label": labels})
    feature = f'{{"names": ["{names[0]}", "{names[1]}"], "_type": "ClassLabel"}}'
    described = '{"info": {"features": {"label": ' + feature + "}}}"
    return made.replace_schema_metadata({"huggingface": described})


def test_classes_are_matched_by_name_across_files(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    root.mkdir()
    pq.write_table(table(range(60), ("cat", "dog")), root / "train.parquet")
    pq.write_table(table(range(60, 80), ("dog", "cat")), root / "test.parquet")
    data = load(open_data(str(root)), 8)
    assert data.classes == ("cat", "dog")
    pixels = {np.asarray(picture(n)).tobytes(): n % 2 for n in range(80)}
    for part in (data.train, data.validation, data.test):
        for image, label in zip(part.images, part.labels, strict=True):
            assert pixels[image.numpy().tobytes()] == int(label)
    swapped = table(range(60, 80), ("dog", "cat"))
    renamed = swapped.rename_columns(["img", "label"])
    renamed = renamed.replace_schema_metadata(swapped.schema.metadata)
    pq.write_table(renamed, root / "test.parquet")
    assert load(open_data(str(root)), 8).test.labels.tolist() == data.test.labels.tolist()
    other = table(range(60, 80), ("dog", "cat")).replace_schema_metadata(
        {"huggingface": '{"info": {"features": {"label": {"names": ["dog", "fox"]}}}}'}
    )
    pq.write_table(other, root / "test.parquet")
    with pytest.raises(UserError, match=r"found other classes.*\(cat, fox\)"):
        open_data(str(root))


def test_a_clone_of_a_hub_repository(tmp_path: Path) -> None:
    root = tmp_path / "clone"
    (root / "data").mkdir(parents=True)
    (root / ".git").mkdir()
    (root / "README.md").write_text("x")
    for shard, numbers in enumerate((range(30), range(30, 60))):
        name = f"train-{shard:05}-of-00002.parquet"
        pq.write_table(table(numbers, ("cat", "dog")), root / "data" / name)
    pq.write_table(table(range(60, 80), ("cat", "dog")), root / "data" / "test-0.parquet")
    assert open_data(str(root)).sizes == (54, 6, 20)


def test_splits_in_the_folder_and_below_it(tmp_path: Path) -> None:
    """Their row groups are not joined, as Arrow holds no more than 2 GiB in one piece."""
    root = tmp_path / "pets"
    (root / "test").mkdir(parents=True)
    pq.write_table(table(range(60), ("cat", "dog")), root / "train.parquet", row_group_size=25)
    pq.write_table(table(range(60, 80), ("cat", "dog")), root / "test" / "0.parquet")
    source = open_data(str(root))
    assert source.sizes == (54, 6, 20)
    train = source.train.stored
    assert [len(chunk) for chunk in train.chunks] == [25, 25, 10]
    for number in (0, 24, 25, 59):
        assert train.read(number) == as_bytes(picture(number))
        assert train.where(number) == f"{root / 'train.parquet'}, row {number}"


def test_a_damaged_page_is_said_with_its_file(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    root.mkdir()
    pq.write_table(table(range(60), ("cat", "dog")), root / "train.parquet", compression="none")
    content = bytearray((root / "train.parquet").read_bytes())
    content[4:40] = b"\xff" * 36
    (root / "train.parquet").write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"train.parquet: no readable parquet file"):
        load(open_data(str(root)), 8)
