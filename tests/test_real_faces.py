"""The loaders of CelebA, MAFL, AFLW, LS3D-W, CAT and VoxCeleb, on miniatures in the official formats."""

from __future__ import annotations

import os
import struct
import warnings
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from ulm.datasets import cached
from ulm.datasets.base import Dataset, Info
from ulm.datasets.images import Square
from ulm.datasets.real import SOURCES, base, catalogue_faces, cats, celeba, ls3d
from ulm.datasets.real.base import Centre, Clipped, RealDataset, Record, Window
from ulm.datasets.real.torch7 import read_torch7
from ulm.errors import InputError
from ulm.evaluation import NORMALISERS
from ulm.evaluation.metrics import normalising_lengths

RNG = np.random.default_rng(0)
NAMES = [source.name for source in catalogue_faces.SOURCES]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ULM_CACHE", str(tmp_path / "cache"))
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state  # alike in any order of the tests


def load(name: str, root: Path | str, split: str = "train", size: int = 128, limit: int | None = None) -> Dataset:
    return SOURCES[name].load(root, split, size, limit)


def names_of(data: Dataset) -> set[str]:
    return {record.name for record in data.records}


def draw(path: Path, width: int, height: int, points: np.ndarray) -> None:
    """A dark image with a bright spot at each point (places from the corner of the image)."""
    x, y = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5
    spots = [np.exp(-((x - px) ** 2) / 8) * np.exp(-((y - py) ** 2) / 8) for px, py in points]
    image = np.clip(sum(spots, np.zeros((height, width))) * 255, 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).convert("RGB").save(path, "PNG" if path.suffix == ".png" else "JPEG", quality=95)


def assert_spots(item: dict, reach: float = 5, within: float = 0.7) -> None:
    """Each known landmark lies on the centre of its bright spot."""
    image, size = item["image"][0].double().numpy(), item["image"].shape[-1]
    x, y = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    known = item["landmarks"][item["visible"]].double().numpy()
    assert len(known)
    for place in known:
        near = image * (np.hypot(x - place[0], y - place[1]) <= reach)
        assert near.sum() > 1, "no spot near the landmark"
        centre = np.array([(near * x).sum(), (near * y).sum()]) / near.sum()
        assert np.abs(centre - place).max() < within


def scattered(count: int, low: tuple[float, float], high: tuple[float, float], gap: float = 26) -> np.ndarray:
    """Whole-numbered points that keep a distance from one another."""
    points: list[np.ndarray] = []
    while len(points) < count:
        point = np.round(RNG.uniform(low, high))
        if all(np.abs(point - other).max() >= gap for other in points):
            points.append(point)
    return np.array(points)


# --- crops, records, helpers ------------------------------------------------------------------------------------------


def test_a_window_is_what_resizing_and_cutting_gives() -> None:
    y, x = np.mgrid[:218, :178]
    image = np.stack([x * 255 / 177, y * 255 / 217, 127 + 120 * np.sin(x / 9) * np.cos(y / 7)], -1).astype(np.uint8)
    expected = Image.fromarray(image).resize((160, 160), Image.Resampling.LANCZOS).crop((16, 16, 144, 144))
    window = Centre(0.8).on(178, 218)
    assert (window.x0, window.y0) == pytest.approx((17.8, 21.8))
    assert (window.x1, window.y1) == pytest.approx((160.2, 196.2))
    found = base.cut_window(image, window, 128)
    assert np.abs(found.astype(int) - np.asarray(expected).astype(int)).max() <= 2


def test_windows_go_to_the_square_and_back() -> None:
    window = Window(-3.25, 10.5, 40, 99.75)
    points = np.array([[0.5, 20.0], [33.0, 80.0]])
    assert np.allclose(window.to_image(window.to_square(points, 64), 64), points)
    assert np.allclose(window.to_square(np.array([[-3.25, 10.5], [40, 99.75]]), 64), [[0, 0], [64, 64]])


def test_outside_the_image_edges_repeat_or_are_filled() -> None:
    image = np.full((40, 40, 3), 200, np.uint8)
    assert (base.cut_window(image, Window(-20, -20, 60, 60), 32) == 200).all()
    filled = base.cut_window(image, Window(-20, -20, 60, 60, fill=0), 32)
    assert filled[0, 0, 0] == 0
    assert filled[16, 16, 0] == 200
    assert Clipped(-20, 5, 60, 30).on(40, 40) == Window(0, 5, 40, 30)


@pytest.mark.parametrize("window", [Window(5, 5, 5, 9), Window(0, 0, 1e6, 1e6), Window(0, 0, float("nan"), 4)])
def test_an_impossible_window_is_refused(window: Window) -> None:
    with pytest.raises(InputError, match="crop"):
        base.cut_window(np.zeros((20, 20, 3), np.uint8), window, 16)


def records(root: Path, count: int = 5) -> list[Record]:
    made = []
    for i in range(count):
        points = scattered(3, (12, 12), (68, 48), 18)
        draw(root / f"{i}.jpg", 80, 60, points)
        made.append(Record(str(root / f"{i}.jpg"), f"{i}.jpg", points, subject=f"s{i}", extra={"azimuth": 3 * i}))
    return made


INFO = Info("mini:ROOT", landmark_names=("a", "b", "c"))


def test_records_keep_the_contract(tmp_path: Path) -> None:
    made = records(tmp_path)
    data = RealDataset(INFO, made, "train", 64, 3)
    assert [r.name for r in data.records] == ["0.jpg", "1.jpg", "3.jpg"]
    item = data[-1]
    assert item["image"].shape == (3, 64, 64)
    assert item["image"].dtype == item["landmarks"].dtype == torch.float32
    assert item["visible"].dtype == torch.bool
    assert (item["subject"], item["azimuth"]) == ("s3", 9)
    assert_spots(item)
    batch = cached(data, workers=0, progress=False).batch([0, 1, 2])
    assert batch["image"].shape == (3, 3, 64, 64)
    assert batch["azimuth"] == [0, 3, 9]


def test_every_kind_of_crop_moves_the_landmarks_along(tmp_path: Path) -> None:
    made = records(tmp_path, 1)[0]
    for crop in (None, Square(8, 2, 60), Window(3.5, 1.25, 74.75, 58.5), Centre(0.9), Clipped(-9, -9, 72, 70)):
        record = Record(made.image, "x", made.landmarks, crop=crop, box=(10, 10, 50, 40))
        item = RealDataset(INFO, [record], "all", 96)[0]
        assert_spots(item, reach=6)
        assert item["box"].shape == (4,)


def test_missing_and_hidden_landmarks(tmp_path: Path) -> None:
    made = records(tmp_path, 1)[0]
    points = made.landmarks.copy()
    points[0, 0] = np.nan
    record = Record(made.image, "x", points, visible=np.array([True, True, False]))
    item = RealDataset(INFO, [record], "all", 64)[0]
    assert item["landmarks"].isnan().all(-1).tolist() == [True, False, False]
    assert item["visible"].tolist() == [False, True, False]


def test_pictures_and_masks_may_come_from_functions() -> None:
    mask = np.zeros((30, 30), bool)
    mask[10:20, 10:20] = True
    picture = np.repeat(mask[..., None], 3, 2).astype(np.uint8) * 255
    record = Record(lambda: picture, "x", np.zeros((0, 2)), mask=lambda: mask, crop=Window(-15, -15, 45, 45, fill=0))
    item = RealDataset(INFO, [record], "all", 60)[0]
    assert torch.equal(item["mask"], item["image"][0] > 0.5)
    assert item["mask"].sum() == 100
    wrong = RealDataset(INFO, [Record(lambda: picture[..., 0], "bad one", np.zeros((0, 2)))], "all", 60)
    with pytest.raises(InputError, match="bad one: found a picture of uint8"):
        wrong[0]


def test_the_fingerprint_follows_labels_and_files_not_the_place(tmp_path: Path) -> None:
    made = records(tmp_path / "a")
    first = RealDataset(INFO, made, "train", 64).fingerprint
    os.rename(tmp_path / "a", tmp_path / "b")
    moved = [Record(str(tmp_path / "b" / r.name), r.name, r.landmarks, subject=r.subject, extra=r.extra) for r in made]
    assert RealDataset(INFO, moved, "train", 64).fingerprint == first
    assert RealDataset(INFO, moved, "train", 64, 2).fingerprint != first
    moved[2].landmarks[0, 0] += 1
    assert RealDataset(INFO, moved, "train", 64).fingerprint != first
    moved[2].landmarks[0, 0] -= 1
    with open(tmp_path / "b" / "4.jpg", "ab") as file:
        file.write(b"more")
    assert RealDataset(INFO, moved, "train", 64).fingerprint != first


def test_a_truncated_picture_is_named(tmp_path: Path) -> None:
    made = records(tmp_path, 2)
    whole = (tmp_path / "1.jpg").read_bytes()
    (tmp_path / "1.jpg").write_bytes(whole[: len(whole) // 2])
    data = RealDataset(INFO, made, "train", 64)
    assert_spots(data[0])
    with pytest.raises(InputError, match=r"1\.jpg: found a damaged file") as caught:
        data[1]
    assert str(caught.value).count("1.jpg") == 1


def test_bad_splits_and_limits(tmp_path: Path) -> None:
    made = records(tmp_path, 1)
    for arguments, message in (
        ((made, "training", 64), "split 'training'"),
        (([], "val", 64), "no items"),
        ((made, "val", 64, 0), "limit"),
    ):
        with pytest.raises(InputError, match=message):
            RealDataset(INFO, *arguments)


def test_what_is_needed_is_said_in_one_message(tmp_path: Path) -> None:
    patterns = ("list.txt or Anno/list.txt", "images")
    with pytest.raises(InputError, match="found no folder"):
        base.need(tmp_path / "none", patterns, "Set", "the page")
    root = tmp_path / "set"
    (root / "images").mkdir(parents=True)
    (root / "images.zip").touch()
    with pytest.raises(InputError) as caught:
        base.need(root, patterns, "Set", "the page")
    for part in (str(root), "images.zip", "but not list.txt", "expected Set", "unpack images.zip", "get", "the page"):
        assert part in str(caught.value)
    (root / "Anno").mkdir()
    (root / "Anno" / "list.txt").touch()
    (root / "images" / "1.jpg").touch()
    assert base.need(root, patterns, "Set", "the page") == [root / "Anno" / "list.txt", root / "images"]
    with pytest.raises(InputError, match=f"give {root} instead"):
        base.need(tmp_path, patterns, "Set", "the page")


def test_labels_are_remembered_until_a_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "label"
    path.write_text("1")
    calls = []

    def read() -> np.ndarray:
        calls.append(1)
        return np.array([float(path.read_text())])

    assert [base.remembered([path], "x", read).item() for _ in range(3)] == [1, 1, 1]
    path.write_text("20")
    assert base.remembered([path], "x", read).item() == 20
    assert len(calls) == 2


# --- the catalogue ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", catalogue_faces.SOURCES, ids=NAMES)
def test_the_catalogue_is_complete(source: base.Source, tmp_path: Path) -> None:
    assert SOURCES[source.name] is source
    assert source.spec == f"{source.name}:ROOT"
    assert source.standin.startswith("procedural:")
    assert source.normaliser in NORMALISERS
    for text in (source.title, source.licence, source.access, source.site, source.splits, source.citation):
        assert text.strip()
    for module, function in (source.loader, source.checker):
        assert callable(getattr(import_module(module), function))
    with pytest.raises(InputError) as caught:
        source.load(tmp_path / "nowhere")
    assert source.site in str(caught.value)
    problems = source.check(tmp_path / "nowhere")
    assert [p.kind for p in problems] == ["error"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="an empty folder"):
        source.load(tmp_path / "empty")
    with pytest.raises(InputError, match="split"):
        source.load(tmp_path, "validation")


# --- CelebA, MAFL -----------------------------------------------------------------------------------------------------

MAFL_TEST = (16, 3, 21)
MAFL_TRAIN = (22, 5, 1, 17, 2, 4)
PART = {i: 0 if i < 15 else 1 if i < 20 else 2 for i in range(1, 25)}


def jpg(number: int) -> str:
    return f"{number:06d}.jpg"


def rows(values: dict[int, np.ndarray], columns: str) -> str:
    lines = [f"{jpg(i)}  {'  '.join(f'{v:g}' for v in np.ravel(value))}" for i, value in values.items()]
    return "\n".join([str(len(lines)), columns, *lines]) + "\n"


@pytest.fixture
def celeba_root(tmp_path: Path) -> Path:
    """24 images: aligned ones of 178 x 218, and original ones, of which some faces are small."""
    root = tmp_path / "CelebA"
    aligned, wild, boxes = {}, {}, {}
    for i in PART:
        aligned[i] = scattered(5, (35, 40), (143, 178))
        draw(root / "Img" / "img_align_celeba" / jpg(i), 178, 218, aligned[i])
        width, height = 150 + 10 * (i % 3), 200
        wild[i] = scattered(5, (20, 20), (width - 20, 180))
        draw(root / "Img" / "img_celeba" / jpg(i), width, height, wild[i])
        # Every fourth face covers less than 30 % of its photograph; number 2 has no box.
        boxes[i] = np.array([10, 20, 40, 40] if i % 4 == 0 else [10, 20, width - 20, 150] if i != 2 else [9, 9, 0, 0])
    for name, text in (
        ("Anno/list_landmarks_align_celeba.txt", rows(aligned, "lefteye_x lefteye_y righteye_x")),
        ("Anno/list_landmarks_celeba.txt", rows(wild, "lefteye_x lefteye_y righteye_x")),
        ("Anno/list_bbox_celeba.txt", rows(boxes, "image_id x_1 y_1 width height")),
        ("Anno/identity_CelebA.txt", "".join(f"{jpg(i)} {i // 2}\n" for i in PART)),
        ("Eval/list_eval_partition.txt", "".join(f"{jpg(i)} {part}\n" for i, part in PART.items())),
        ("MAFL/training.txt", "\n".join(jpg(i) for i in MAFL_TRAIN)),  # no line break at the end, as in the original
        ("MAFL/testing.txt", "\n".join(jpg(i) for i in MAFL_TEST)),
    ):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    return root


def test_celeba_follows_its_partition_without_mafls_test(celeba_root: Path) -> None:
    parts = {split: names_of(load("celeba", celeba_root, split)) for split in ("train", "val", "test", "all")}
    tests = {jpg(i) for i in MAFL_TEST}
    for number, split in enumerate(("train", "val", "test")):
        assert parts[split] == {jpg(i) for i, part in PART.items() if part == number} - tests
    assert parts["all"] == parts["train"] | parts["val"] | parts["test"]
    assert not parts["all"] & tests


def test_mafl_follows_its_lists(celeba_root: Path) -> None:
    train, val, test = (load("mafl", celeba_root, split) for split in ("train", "val", "test"))
    assert [r.name for r in train.records] == [jpg(i) for i in MAFL_TRAIN]
    assert [r.name for r in test.records] == [jpg(i) for i in MAFL_TEST]
    assert names_of(val) == {jpg(i) for i in (15, 18, 19)}
    assert len(load("mafl", celeba_root, "all")) == 9
    assert not names_of(test) & (names_of(train) | names_of(val))


def test_mafls_test_images_are_in_no_training_split(celeba_root: Path) -> None:
    tests = names_of(load("mafl", celeba_root, "test"))
    for name in ("celeba", "mafl", "celeba-wild"):
        for split in ("train", "val"):
            assert not names_of(load(name, celeba_root, split)) & tests


@pytest.mark.parametrize("name", ["celeba", "mafl"])
@pytest.mark.parametrize("crop", ["", "#whole", "#dve", "#landmarks"])
@pytest.mark.parametrize("size", [128, 100])
def test_aligned_landmarks_lie_on_their_spots(celeba_root: Path, name: str, crop: str, size: int) -> None:
    data = load(name, f"{celeba_root}{crop}", "train", size, 3)
    assert data.info.name == f"{name}:{celeba_root}{crop}"
    for item in (data[i] for i in range(3)):
        inside = ((item["landmarks"] > 8) & (item["landmarks"] < size - 8)).all(-1)
        assert inside.sum() >= (3 if crop == "#dve" else 5)
        assert_spots(item | {"visible": inside})


def test_the_crop_is_that_of_imm(celeba_root: Path) -> None:
    data = load("mafl", celeba_root, "test")
    record = data.records[0]
    assert np.allclose(data[0]["landmarks"], record.landmarks * (160 / 178, 160 / 218) - 16, atol=1e-4)


def test_celeba_says_what_it_is(celeba_root: Path) -> None:
    data = load("mafl", celeba_root, "train")
    info = data.info
    assert info.landmark_names == ("left-eye", "right-eye", "nose", "left-mouth", "right-mouth")
    assert [(info.landmark_names[a], info.landmark_names[b]) for a, b in info.flip_pairs] == [
        ("left-eye", "right-eye"),
        ("left-mouth", "right-mouth"),
    ]
    item = data[0]
    assert item["subject"] == "11"
    points = item["landmarks"].numpy()[None]
    assert normalising_lengths(points, info)[0] == pytest.approx(np.linalg.norm(points[0, 0] - points[0, 1]))


def test_other_layouts_of_celeba(celeba_root: Path) -> None:
    expected = load("mafl", celeba_root, "test").fingerprint
    images = celeba_root / "Img" / "img_align_celeba"
    nested = images / "img_align_celeba"
    images.rename(celeba_root / "moved")
    images.mkdir()
    (celeba_root / "moved").rename(nested)
    assert load("mafl", celeba_root, "test").fingerprint == expected
    for path in (*celeba_root.glob("Anno/*"), *celeba_root.glob("Eval/*"), *celeba_root.glob("Img/*")):
        path.rename(celeba_root / path.name)
    assert load("mafl", celeba_root, "test").fingerprint == expected
    for folder in ("Anno", "Eval", "Img"):
        (celeba_root / folder).rmdir()
    png = celeba_root / "img_align_celeba_png"
    png.mkdir()
    for file in (celeba_root / "img_align_celeba" / "img_align_celeba").iterdir():
        Image.open(file).save(png / f"{file.stem}.png")
        file.unlink()
    (celeba_root / "img_align_celeba" / "img_align_celeba").rmdir()
    data = load("mafl", celeba_root, "test")
    assert names_of(data) == {jpg(i) for i in MAFL_TEST}
    assert_spots(data[0])


def test_the_three_images_that_vggs_archive_lacks(celeba_root: Path) -> None:
    path = celeba_root / "MAFL" / "training.txt"
    path.write_text("\n".join([path.read_text(), *celeba.ABSENT_FROM_VGG]))
    assert len(load("mafl", celeba_root, "train")) == len(MAFL_TRAIN)


def test_celeba_wild_keeps_large_faces(celeba_root: Path) -> None:
    train, test, val = (load("celeba-wild", celeba_root, split, 96) for split in ("train", "test", "val"))
    assert names_of(train) == {jpg(i) for i in MAFL_TRAIN if i % 4 and i != 2}
    assert names_of(test) == {jpg(i) for i in MAFL_TEST if i % 4}
    assert not (names_of(train) | names_of(test)) & names_of(val)
    for data in (train, test, val):
        item = data[0]
        assert_spots(item, reach=6)
        x0, _, x1, _ = item["box"].tolist()
        assert 0 < x0 < x1 < 96


def test_official_counts_are_compared(celeba_root: Path) -> None:
    problems = SOURCES["mafl"].check(celeba_root)
    assert {p.kind for p in problems} == {"warning"}
    assert "found 6 items in split train, expected 19,000" in problems[0].text
    assert celeba.COUNTS == {"train": 162_770 - 808, "val": 19_867 - 96, "test": 19_962 - 96}
    assert sum(celeba.COUNTS.values()) == 201_599
    assert len(SOURCES["celeba"].check(celeba_root)) == 3
    assert len(SOURCES["celeba-wild"].check(celeba_root)) == 2


@pytest.mark.parametrize(
    ("name", "path", "change", "message"),
    [
        ("mafl", "MAFL/testing.txt", None, "but not MAFL/testing.txt"),
        ("mafl", "Anno/list_landmarks_align_celeba.txt", None, "but not Anno/list_landmarks_align_celeba.txt"),
        ("celeba-wild", "Anno/list_bbox_celeba.txt", None, "but not Anno/list_bbox_celeba.txt"),
        ("celeba", "Eval/list_eval_partition.txt", None, "but not Eval/list_eval_partition.txt"),
        ("celeba", "Img/img_align_celeba/000007.jpg", None, r"found 12 of the 13 images .* 000007\.jpg"),
        ("mafl", "Anno/list_landmarks_align_celeba.txt", ("24\n", "202599\n"), "found 24 images, expected 202599"),
        ("mafl", "Anno/list_landmarks_align_celeba.txt", ("24\n", "lefteye\n"), "no number of images in line 1"),
        ("mafl", "Anno/list_landmarks_align_celeba.txt", ("000005.jpg", "000099.jpg"), r"no line for 000005\.jpg"),
        ("mafl", "Anno/list_landmarks_align_celeba.txt", ("000005.jpg ", "000005.jpg x"), "line 7"),
        ("celeba-wild", "Anno/list_bbox_celeba.txt", ("000005.jpg ", "000005.jpg 1"), "found 5 numbers, expected 4"),
        ("celeba", "Eval/list_eval_partition.txt", ("000005.jpg 0", "000005.jpg"), "line 5"),
        ("mafl", "MAFL/testing.txt", ("000016.jpg", "000022.jpg"), "disjoint"),
        ("mafl", "MAFL/training.txt", ("000022.jpg", "<html>"), "no list of different image names"),
    ],
)
def test_a_damaged_celeba_is_one_clear_error(
    celeba_root: Path, name: str, path: str, change: tuple[str, str] | None, message: str
) -> None:
    file = celeba_root / path
    if change is None:
        file.unlink()
    else:
        assert change[0] in file.read_text()
        file.write_text(file.read_text().replace(*change, 1))
    with pytest.raises(InputError, match=message) as caught:
        load(name, celeba_root, "train")
    assert str(celeba_root) in str(caught.value)


def test_crops_that_do_not_exist(celeba_root: Path) -> None:
    with pytest.raises(InputError, match="option 'square'"):
        load("mafl", f"{celeba_root}#square")
    with pytest.raises(InputError, match="expected one"):
        load("mafl", f"{celeba_root}#whole,dve")


def test_a_truncated_and_a_missing_landmark_in_celeba(celeba_root: Path) -> None:
    file = celeba_root / "Anno" / "list_landmarks_align_celeba.txt"
    lines = file.read_text().splitlines()
    words = lines[2 + MAFL_TEST[0] - 1].split()
    lines[2 + MAFL_TEST[0] - 1] = " ".join([words[0], "nan", "nan", *words[3:]])
    file.write_text("\n".join(lines))
    item = load("mafl", celeba_root, "test")[0]
    assert item["landmarks"].isnan().all(-1).tolist() == [True, False, False, False, False]
    assert_spots(item)


# --- AFLW -------------------------------------------------------------------------------------------------------------


def recrop(root: Path, train: int = 20, test: int = 6) -> None:
    """The recrop release: crops of any size, lists, and (row, column) in MATLAB files."""
    for part, count in (("train", train), ("test", test)):
        names, points, sizes = [], [], []
        for i in range(count):
            width, height = 140 + 3 * i, 170 - 2 * i
            name = f"{(0, 2, 3)[i % 3]}/image{i:05d}_{part == 'test':d}{i:04d}.jpg"
            xy = scattered(5, (15, 15), (width - 15, height - 15), 24)
            draw(root / "output" / name, width, height, xy)
            names.append(name)
            points.append(xy[:, ::-1])
            sizes.append((height, width))
        (root / f"aflw_{part}_images.txt").write_text("\n".join(names) + "\n")
        scipy.io.savemat(root / f"aflw_{part}_keypoints.mat", {"gt": np.array(points), "hw": np.array(sizes)})


def test_the_recrop_release_of_aflw(tmp_path: Path) -> None:
    root = tmp_path / "aflw_release-2"
    recrop(root)
    train, val, test = (load("aflw", root, split) for split in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (18, 2, 6)
    assert [r.name for r in val.records] == (root / "aflw_train_images.txt").read_text().split()[-2:]
    assert not names_of(train) & names_of(val)
    assert not (names_of(train) | names_of(val)) & names_of(test)
    assert len(load("aflw", root, "all")) == 26
    for item in (train[0], train[-1], val[0], test[3]):
        assert_spots(item, reach=6)
    full = load("aflw", f"{root}#full", "train")
    assert len(full) == 20
    with pytest.raises(InputError, match="no items in split 'val'"):
        load("aflw", f"{root}#full", "val")
    problems = SOURCES["aflw"].check(root)
    assert [p.kind for p in problems] == ["warning"] * 2
    assert "expected 10,122" in problems[0].text


def test_faces_of_aflw_that_are_there_twice_are_kept_and_said(tmp_path: Path) -> None:
    recrop(tmp_path, 3, 2)
    listed = tmp_path / "aflw_test_images.txt"
    listed.write_text("\n".join([listed.read_text().split()[0]] * 2))
    assert len(load("aflw", tmp_path, "test")) == 2
    assert "1 test faces are there twice" in SOURCES["aflw"].check(tmp_path)[-1].text
    listed.write_text("\n".join((tmp_path / "aflw_train_images.txt").read_text().split()[:2]))
    assert SOURCES["aflw"].check(tmp_path)[-1].kind == "error"


def test_one_face_of_aflw_and_names_with_their_folder(tmp_path: Path) -> None:
    recrop(tmp_path, 1, 1)
    listed = tmp_path / "aflw_test_images.txt"
    listed.write_text(f"output/{listed.read_text()}")
    assert_spots(load("aflw", tmp_path, "test")[0], reach=6)


def mtfl(root: Path) -> None:
    """MTFL's test crops with all x, then all y; the training crops of Thewlis et al.; pixels counted from 1."""
    lines = []
    for i in range(4):
        xy = scattered(5, (15, 15), (135, 135))
        draw(root / "MTFL" / "AFLW" / f"000{i}-image{i}.jpg", 150, 150, xy - 0.5)
        numbers = " ".join(f"{v:.3f}" for v in xy.T.ravel())
        lines.append(f" AFLW\\000{i}-image{i}.jpg {numbers} 1 2 1 {1 + i}\n")
    (root / "MTFL" / "testing.txt").write_text("".join(lines) + " \n")
    table = ["image_file,crop_file,set,faceid," + ",".join(f"lm{k}" for k in range(10))]
    for i in range(12):
        xy = scattered(5, (15, 15), (135, 135))
        draw(root / "aflw_cropped" / "cropped" / f"{40000 + i}.jpg", 150, 150, xy - 0.5)
        values = ",".join(f"{v:g}" for v in xy.ravel())
        table.append(f"image{i}.jpg,cropped/{40000 + i}.jpg,{1 + (i > 9)},{i},{values}")
    (root / "aflw_cropped" / "facedata_cropped.csv").write_text("\n".join(table) + "\n")


def test_the_form_of_mtfl(tmp_path: Path) -> None:
    mtfl(tmp_path)
    train, val, test = (load("aflw", tmp_path, split, 120) for split in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (9, 1, 4)
    for item in (train[0], val[0], test[2]):
        assert_spots(item, within=0.3)
    assert test[3]["head_pose"] == 4
    assert len(SOURCES["aflw"].check(tmp_path)) == 2


def test_a_damaged_aflw_is_one_clear_error(tmp_path: Path) -> None:
    recrop(tmp_path, 4, 2)
    mat = tmp_path / "aflw_train_keypoints.mat"
    whole = mat.read_bytes()
    mat.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"aflw_train_keypoints\.mat"):
        load("aflw", tmp_path)
    scipy.io.savemat(mat, {"gt": np.zeros((3, 5, 2)), "hw": np.zeros((3, 2))})
    with pytest.raises(InputError, match=r"found gt \(3, 5, 2\) .* expected \(4, 5, 2\)"):
        load("aflw", tmp_path)
    mat.write_bytes(whole)
    next((tmp_path / "output").rglob("image00001_00001.jpg")).unlink()
    with pytest.raises(InputError, match=r"found 3 of the 4 images that aflw_train_images\.txt names"):
        load("aflw", tmp_path)
    (tmp_path / "aflw_test_keypoints.mat").unlink()
    with pytest.raises(InputError, match=r"but not aflw_test_keypoints\.mat"):
        load("aflw", tmp_path, "test")


# --- torch7 -----------------------------------------------------------------------------------------------------------


def t7_binary(values: np.ndarray, offset: int = 0, transposed: bool = False) -> bytes:
    """A DoubleTensor as torch7 writes it, with ``offset`` unused numbers before it in its storage."""

    def text(word: str) -> bytes:
        return struct.pack("<i", len(word)) + word.encode()

    strides = [step // 8 for step in values.strides] if transposed else [values.shape[1], 1]
    stored = np.concatenate([np.full(offset, 99.0), (values.T if transposed else values).ravel()])
    out = struct.pack("<ii", 4, 1) + text("V 1") + text("torch.DoubleTensor")
    out += struct.pack("<iqqqqq", 2, *values.shape, *strides, offset + 1)
    out += struct.pack("<ii", 4, 2) + text("V 1") + text("torch.DoubleStorage")
    return out + struct.pack("<q", len(stored)) + stored.astype("<f8").tobytes()


def t7_ascii(values: np.ndarray) -> bytes:
    """The same in torch7's ASCII format, as a FloatTensor."""
    numbers = " ".join(repr(float(v)) for v in values.ravel())
    rows, columns = values.shape
    return (
        f"4\n1\n3\nV 1\n17\ntorch.FloatTensor\n2\n{rows} {columns}\n{columns} 1\n1\n"
        f"4\n2\n3\nV 1\n18\ntorch.FloatStorage\n{values.size}\n{numbers}\n"
    ).encode()


def test_torch7_tensors_are_read(tmp_path: Path) -> None:
    path, values = tmp_path / "a.t7", RNG.normal(size=(68, 2))
    for data in (t7_binary(values), t7_binary(values, 5), t7_binary(np.asfortranarray(values), 0, True)):
        path.write_bytes(data)
        assert np.array_equal(read_torch7(path), values)
    path.write_bytes(t7_ascii(values))
    assert np.allclose(read_torch7(path), values, atol=1e-6)
    values[3] = np.nan
    path.write_bytes(t7_ascii(values))
    assert np.isnan(read_torch7(path)[3]).all()


def test_torch7_tables_and_shared_objects(tmp_path: Path) -> None:
    string = struct.pack("<ii", 2, 3) + b"pts"
    number = struct.pack("<id", 1, 2.0)
    true = struct.pack("<ii", 5, 1)
    tensor = t7_binary(np.ones((2, 2))).replace(struct.pack("<ii", 4, 1), struct.pack("<ii", 4, 7), 1)
    tensor = tensor.replace(struct.pack("<ii", 4, 2), struct.pack("<ii", 4, 8), 1)
    again = struct.pack("<ii", 4, 7)
    path = tmp_path / "a.t7"
    path.write_bytes(struct.pack("<iii", 3, 1, 3) + string + tensor + number + true + true + again)
    table = read_torch7(path)
    assert table[b"pts"] is table[True]
    assert table[2.0] is True


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        t7_binary(np.ones((68, 2)))[:-8],
        t7_binary(np.ones((68, 2)))[:30],
        t7_ascii(np.ones((68, 2)))[:-20],
        t7_binary(np.ones((3, 2))).replace(struct.pack("<qq", 3, 2), struct.pack("<qq", 300, 2), 1),
        t7_binary(np.ones((3, 2))).replace(struct.pack("<q", 6), struct.pack("<q", 2**40), 1),
        struct.pack("<ii", 6, 1) + b"function",
        struct.pack("<iii", 4, 1, 9) + b"nn.Linear" + bytes(20),
        struct.pack("<iii", 3, 1, 1) * 200,
    ],
)
def test_other_torch7_files_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "bad.t7"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"bad\.t7: found no whole torch7 file"):
        read_torch7(path)
    with pytest.raises(InputError, match="check the path"):
        read_torch7(tmp_path / "none.t7")


# --- LS3D-W and 300W-LP -----------------------------------------------------------------------------------------------


def face(turn: float = 0.0) -> np.ndarray:
    """68 points on a grid with the jaw's ends at its sides and the nose's tip in its middle, moved by ``turn``."""
    grid = np.array([(60 + 14 * (i % 9), 70 + 16 * (i // 9)) for i in range(68)], float)
    grid[[0, 16]], grid[[1, 8]] = [[60, 102], [172, 102]], grid[[0, 16]]
    grid[30] = [116 + turn, 202]
    return grid


@pytest.fixture
def ls3d_root(tmp_path: Path) -> Path:
    root = tmp_path / "ls3d"
    for i in range(40):
        points = face()
        stem = f"AFW_{i // 4}_{i % 4}"
        draw(root / "300W_LP" / "AFW" / f"{stem}.jpg", 240, 260, points[[0, 16, 30]])
        mat = root / "300W_LP" / "landmarks" / "AFW" / f"{stem}_pts.mat"
        mat.parent.mkdir(parents=True, exist_ok=True)
        scipy.io.savemat(mat, {"pts_2d": points + 9, "pts_3d": points})
    (root / "300W_LP" / "AFW_Flip").mkdir()
    draw(root / "300W_LP" / "AFW_Flip" / "AFW_Flip_0_0.jpg", 240, 260, face()[:3])
    folder = root / "LS3D-W-balanced-20-03-2017" / "new_dataset"
    for i in range(1, 13):
        away = {1: 3.0, 2: 14.0, 0: 30.0}[i % 3] * (-1) ** i
        points = face(away)
        draw(folder / f"{i}.jpg", 240, 260, points[[0, 16, 30]])
        (folder / f"{i}.t7").write_bytes(t7_binary(points) if i % 2 else t7_ascii(points))
    return root


def test_ls3d_splits_keep_photographs_together(ls3d_root: Path) -> None:
    train, val, test = (load("ls3d", ls3d_root, split) for split in ("train", "val", "test"))
    assert len(train) + len(val) == 40
    assert len(test) == 12
    photographs = [{r.name.rpartition("_")[0] for r in data.records} for data in (train, val)]
    assert not photographs[0] & photographs[1]
    assert [r.name for r in test.records][-1] == "LS3D-W/12.jpg"
    assert len(load("ls3d", ls3d_root, "all")) == 52
    assert len(load("ls3d", ls3d_root, "train", limit=3)) == 3


def test_ls3d_landmarks_lie_on_their_spots(ls3d_root: Path) -> None:
    for data in (load("ls3d", ls3d_root, "train", 160, 2), load("ls3d", ls3d_root, "test", 160, 2)):
        item = data[1]
        assert item["landmarks"].shape == (68, 2)
        assert item["visible"].all()
        drawn = torch.zeros(68, dtype=torch.bool)
        drawn[[0, 16, 30]] = True
        assert_spots(item | {"visible": drawn}, reach=6)
    points = item["landmarks"].numpy()[None]
    sides = np.ptp(points[0], axis=0)
    assert normalising_lengths(points, data.info)[0] == pytest.approx(np.sqrt(sides.prod()))


def test_the_crop_of_mallis() -> None:
    box = ls3d.face_box(np.array([[100.7, 120.2], [200.9, 240.5]]))
    # int(box) = 100, 120, 200, 240; top 80; (1.2 x 200 - 100 + 480 - 80) / 4 = 135; margin int(10.8)
    assert (box.x0, box.y0, box.x1, box.y1) == (90, 70, 210, 250)
    assert ls3d.face_box(np.array([[1.0, 2.0], [9.0, 8.0]])).x1 == 17


def test_the_five_yaw_ranges(ls3d_root: Path) -> None:
    data = load("ls3d", ls3d_root, "test", 32)
    found = {r.name: (data[i]["yaw"], data[i]["yaw_range"]) for i, r in enumerate(data.records)}
    assert found["LS3D-W/1.jpg"] == (0, "-30..30")
    assert found["LS3D-W/2.jpg"] == (45, "30..60")
    assert found["LS3D-W/5.jpg"] == (-45, "-60..-30")
    assert found["LS3D-W/6.jpg"] == (75, "60..90")
    assert found["LS3D-W/3.jpg"] == (-75, "-90..-60")
    assert "yaw" not in load("ls3d", ls3d_root, "train", 32)[0]
    problems = SOURCES["ls3d"].check(ls3d_root)
    assert len(problems) == 2
    assert "61,225" in problems[0].text
    folder = ls3d_root / "LS3D-W-balanced-20-03-2017" / "new_dataset"
    for i in (1, 4, 7, 10):
        (folder / f"{i}.t7").write_bytes(t7_binary(face(60)))
    assert "do not turn further" in SOURCES["ls3d"].check(ls3d_root)[-1].text


def test_a_damaged_ls3d_is_one_clear_error(ls3d_root: Path) -> None:
    folder = ls3d_root / "LS3D-W-balanced-20-03-2017" / "new_dataset"
    (folder / "3.t7").write_bytes(t7_binary(np.ones((67, 2))))
    with pytest.raises(InputError, match=r"3\.t7: found \(67, 2\), expected a tensor \(68, 2\)"):
        load("ls3d", ls3d_root, "test")
    (folder / "3.t7").write_bytes(t7_binary(np.full((68, 2), np.nan)))
    with pytest.raises(InputError, match=r"3\.t7: found no finite landmark"):
        load("ls3d", ls3d_root, "test")
    (folder / "3.t7").unlink()
    with pytest.raises(InputError, match=r"1 of them \(3\.jpg\) without the file \.t7"):
        load("ls3d", ls3d_root, "test")
    assert len(load("ls3d", ls3d_root, "train")) > 30
    (ls3d_root / "300W_LP").rename(ls3d_root / "elsewhere")
    with pytest.raises(InputError, match="but not 300W_LP/landmarks"):
        load("ls3d", ls3d_root, "train")


# --- CAT --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def cats_root(tmp_path: Path) -> Path:
    root = tmp_path / "cats"
    for i in range(60):
        points = scattered(9, (60, 50), (240, 220), 30)
        path = root / f"CAT_0{i % 7}" / f"0000000{i % 7}_{i:03d}.jpg"
        draw(path, 320, 280, points + 0.5)
        path.with_name(f"{path.name}.cat").write_text("9 " + " ".join(f"{v:g}" for v in points.ravel()) + " ")
    return root


def test_cats_are_split_by_their_names(cats_root: Path) -> None:
    parts = [names_of(load("cats", cats_root, split)) for split in ("train", "val", "test")]
    assert len(set.union(*parts)) == sum(map(len, parts)) == len(load("cats", cats_root, "all")) == 60
    assert 0.1 < len(parts[2]) / 60 < 0.4
    assert "expected 9,997" in SOURCES["cats"].check(cats_root)[0].text


def test_cats_landmarks_lie_on_their_spots(cats_root: Path) -> None:
    data = load("cats", cats_root, "all", 200, 4)
    for i in range(4):
        item = data[i]
        assert_spots(item, reach=8)
        x0, y0, x1, y1 = item["box"].tolist()
        assert max(x1 - x0, y1 - y0) == pytest.approx(200 / cats.MARGIN, abs=1.5)
    assert len(data.info.landmark_names) == SOURCES["cats"].landmarks
    assert data.info.subsets[0][0] == "cat-7"
    assert len(data.info.subsets[0][1]) == 7
    points = item["landmarks"].numpy()[None]
    eyes = np.linalg.norm(points[0, 0] - points[0, 1])
    assert normalising_lengths(points, data.info, 200, "points")[0] == pytest.approx(eyes)


def test_the_crops_of_zhang(tmp_path: Path) -> None:
    for part, count in (("train", 40), ("test", 5)):
        names, points = [f"{part}_{i}.jpg" for i in range(count)], []
        for name in names:
            xy = scattered(9, (14, 14), (86, 86), 14)
            draw(tmp_path / "cat_images" / name, 100, 100, xy)
            points.append(xy[:, ::-1])
        (tmp_path / "cat_data").mkdir(exist_ok=True)
        (tmp_path / "cat_data" / f"cat_{part}_images.txt").write_text("\n".join(names))
        mat = {"gt": np.array(points), "hw": np.full((count, 2), 100)}
        scipy.io.savemat(tmp_path / "cat_data" / f"cat_{part}_keypoints.mat", mat)
    train, val, test = (load("cats", tmp_path, split, 160) for split in ("train", "val", "test"))
    assert len(train) + len(val) == 40
    assert len(val) > 0
    assert len(test) == 5
    item = test[0]
    inside = ((item["landmarks"] > 8) & (item["landmarks"] < 152)).all(-1)
    assert_spots(item | {"visible": inside}, reach=7)
    assert np.allclose(item["landmarks"], (test.records[0].landmarks - 10) * 2, atol=1e-3)
    assert len(SOURCES["cats"].check(tmp_path)) == 2
    (tmp_path / "cat_data" / "cat_test_keypoints.mat").unlink()
    with pytest.raises(InputError, match=r"but not cat_test_keypoints\.mat"):
        load("cats", tmp_path, "train")


def test_damaged_cats_are_one_clear_error(cats_root: Path) -> None:
    label = cats_root / "CAT_01" / "00000001_008.jpg.cat"
    text = label.read_text()
    label.write_text(text.replace("9 ", "8 ", 1))
    with pytest.raises(InputError, match=r"00000001_008\.jpg\.cat: found 8 as the number of points, expected 9"):
        load("cats", cats_root)
    label.write_text(text[: len(text) // 2])
    with pytest.raises(InputError, match=r"00000001_008\.jpg\.cat, line 1: found \d+ numbers, expected 18"):
        load("cats", cats_root)
    label.write_text("9 nan nan " + " ".join(text.split()[3:]))
    data = load("cats", cats_root, "all", 64)
    [place] = [i for i, r in enumerate(data.records) if r.name == "CAT_01/00000001_008.jpg"]
    assert data[place]["visible"].tolist() == [False] + [True] * 8
    label.unlink()  # the archive has such an image
    assert len(load("cats", cats_root, "all")) == 59
    for path in (cats_root / "CAT_03").glob("*.jpg"):
        path.unlink()
    with pytest.raises(InputError, match="label files, of which 50 belong together"):
        load("cats", cats_root)


# --- VoxCeleb ---------------------------------------------------------------------------------------------------------

SPEAKERS = [*(f"id{10001 + i}" for i in range(60)), "id10270", "id10309", "id10310"]


def tracks(folder: Path, speakers: list[str], below: str = "{video}/{utterance}") -> None:
    """One picture, linked to many names: two videos a speaker, two utterances a video, three frames an utterance."""
    picture = folder / "picture.jpg"
    draw(picture, 32, 32, np.array([[16.0, 16.0]]))
    for speaker in speakers:
        for video in ("aB-3_x", "zz9"):
            for utterance in ("00001", "00002"):
                place = folder / speaker / below.format(video=video, utterance=utterance)
                place.mkdir(parents=True, exist_ok=True)
                for frame in (25, 50, 125):
                    (place / f"{utterance[-1]}{frame:06d}.jpg").hardlink_to(picture)
    picture.unlink()


def test_voxceleb_speakers_are_kept_apart(tmp_path: Path) -> None:
    root = tmp_path / "vox"
    tracks(root, SPEAKERS)
    train, val, test = (load("voxceleb", root, split, 16) for split in ("train", "val", "test"))
    people = [{r.subject for r in data.records} for data in (train, val, test)]
    assert people[2] == {"id10270", "id10309"}
    assert people[1]
    assert sum(map(len, people)) == len(set.union(*people)) == len(SPEAKERS)
    item = test[0]
    assert item["landmarks"].shape == (0, 2)
    assert (item["video"], item["frame"], item["subject"]) == ("id10270/aB-3_x/00001", 1000025, "id10270")
    assert len({r.video for r in test.records}) == 8
    assert len(load("voxceleb", root, "all", 16)) == 12 * len(SPEAKERS)
    assert "found 61 speakers of train and val, expected 1,211" in SOURCES["voxceleb"].check(root)[0].text


def test_voxceleb_video_pairs(tmp_path: Path) -> None:
    tracks(tmp_path / "vox", SPEAKERS[:4])
    data = cached(load("voxceleb", tmp_path / "vox", "train", 16), workers=0, progress=False)
    partners = data.partners(range(len(data)), torch.Generator().manual_seed(0))
    videos = data.column("video")
    assert all(videos[i] == videos[p] and i != p for i, p in enumerate(partners.tolist()))


def test_voxceleb_as_vggs_archives_unpack(tmp_path: Path) -> None:
    people = ["Aamir_Khan", "A.J._Buckley", "Eartha_Kitt"]
    dense, sparse = tmp_path / "dense", tmp_path / "sparse"
    tracks(dense / "unzippedIntervalFaces" / "data", people, "1.6/{video}/{utterance}")
    tracks(sparse / "unzippedFaces", people, "1.6/{video}")
    for root, count in ((dense, 4), (sparse, 2)):
        test = load("voxceleb", root, "test", 16)
        assert {r.subject for r in test.records} == {"Eartha_Kitt"}
        assert len({r.video for r in test.records}) == count
        assert test.records[0].video.startswith("Eartha_Kitt/aB-3_x")
    meta = "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\nid10001\tA.J._Buckley\tm\tIreland\ttest\n"
    (dense / "vox1_meta.csv").write_text(meta)
    assert {r.subject for r in load("voxceleb", dense, "test", 16).records} == {"A.J._Buckley"}
    (dense / "exclude.txt").write_text("Aamir_Khan\n")
    assert {r.subject for r in load("voxceleb", dense, "all", 16).records} == {"A.J._Buckley", "Eartha_Kitt"}


def test_voxceleb_without_frames(tmp_path: Path) -> None:
    (tmp_path / "id10001" / "video").mkdir(parents=True)
    (tmp_path / "vox1_frames.zip").touch()
    with pytest.raises(InputError, match=r"unpack vox1_frames\.zip"):
        load("voxceleb", tmp_path)


def test_nothing_warns(celeba_root: Path, cats_root: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load("mafl", celeba_root)[0]["image"].shape == (3, 128, 128)
        assert load("cats", cats_root)[0]["image"].shape == (3, 128, 128)
