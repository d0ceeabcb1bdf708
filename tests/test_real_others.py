"""The loaders of bodies, birds, toys and house numbers, on miniatures of the official layouts."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas
import pytest
import scipy.io
from PIL import Image
from test_real_formats import digit_struct

from ulm.datasets.real import SOURCES, bbcpose, catalogue_others, cub, deepfashion, human36m, mpii, svhn, taichi
from ulm.datasets.real.base import RealDataset
from ulm.errors import InputError


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ULM_CACHE", str(tmp_path_factory.mktemp("cache")))


def picture(path: Path, width: int, height: int, marks: Any = (), dot: int = 2) -> Path:
    """A dark picture with white squares of ``2 dot + 1`` pixels about the pixels ``marks`` (x, y), counted from 0."""
    pixels = np.full((height, width, 3), 30, np.uint8)
    for x, y in np.asarray(marks, int).reshape(-1, 2):
        pixels[max(0, y - dot) : y + dot + 1, max(0, x - dot) : x + dot + 1] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=97)
    return path


def brightest(image: Any, near: Any, reach: float) -> np.ndarray:
    """The middle of the bright pixels round a place, (x, y), first pixel's centre at 0.5."""
    grey = image.mean(0).numpy()
    y, x = np.mgrid[: grey.shape[0], : grey.shape[1]] + 0.5
    weight = np.clip(grey - 0.35, 0, None) * (np.hypot(x - near[0], y - near[1]) <= reach)
    assert weight.sum() > 0, f"no mark near {near}"
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


def check_marks(data: RealDataset, reach: float = 7) -> None:
    """Every visible landmark lies on its mark, within a pixel."""
    for item in data:
        assert item["image"].shape == (3, data.size, data.size)
        assert item["visible"].any()
        for point in item["landmarks"][item["visible"]].numpy():
            if (point > reach).all() and (point < data.size - reach).all():
                found = brightest(item["image"], point, reach)
                assert np.hypot(*(found - point)) < 1, f"{item['name']}: {found} for {point}"


def names(data: RealDataset) -> set[str]:
    return {record.name for record in data.records}


def check_splits_disjoint(load: Callable[..., RealDataset], root: Path | str, splits: tuple[str, ...]) -> None:
    found = [names(load(str(root), split, 32)) for split in splits]
    for i, one in enumerate(found):
        assert one
        assert not any(one & other for other in found[i + 1 :])
    assert names(load(str(root), "all", 32)) == set().union(*found)


def spread_points(count: int, width: int, height: int, seed: int = 0) -> np.ndarray:
    """Whole places far from one another and from the edges."""
    rng, points = np.random.default_rng(seed), []
    while len(points) < count:
        point = rng.integers((20, 20), (width - 20, height - 20))
        if all(np.hypot(*(point - other)) > 26 for other in points):
            points.append(point)
    return np.array(points)


def test_catalogue_is_whole() -> None:
    for source in catalogue_others.SOURCES:
        assert SOURCES[source.name] is source
        assert source.title
        with pytest.raises(InputError, match="found no folder"):
            source.load("/none/such")
        assert source.check("/none/such")[0].kind == "error"


@pytest.mark.parametrize("source", catalogue_others.SOURCES, ids=lambda s: s.name)
def test_empty_folder_gives_one_error(source: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"found an empty folder.*expected") as caught:
        source.load(tmp_path)
    assert source.site in str(caught.value)


@pytest.mark.parametrize("name", ["taichi", "human36m", "cub", "smallnorb", "svhn"])
def test_unknown_option(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'nonsense'"):
        SOURCES[name].load(f"{tmp_path}#nonsense")


# --- BBC-Pose ---


def bbc(root: Path) -> Path:
    structs, tests = [], []
    for video in range(1, 21):
        frames = [3 * video, 3 * video + 1][: 1 if video == 2 else 2]
        joints = np.stack([spread_points(7, 240, 240, 100 * video + f) + np.array((150, 10)) for f in frames])
        for frame, points in zip(frames, joints, strict=True):
            picture(root / str(video) / f"{frame}.jpg", 400, 280, points)
        mat = joints.transpose(2, 1, 0) + 1.0  # counted from 1
        structs.append(("x.avi", "train", 1.0, np.array([frames], float), mat))
        if video > 15:
            tests += [(mat[..., i], f, video) for i, f in enumerate(frames)]
    fields = [("a", "O"), ("b", "O"), ("c", "O"), ("frames", "O"), ("joints", "O")]
    (root / "code").mkdir()
    scipy.io.savemat(root / "code" / "bbcpose.mat", {"bbcpose": np.array([structs], dtype=fields)})
    results = {
        "gt": np.stack([t[0] for t in tests], axis=2),
        "frame": np.array([[t[1] for t in tests]]),
        "video": np.array([[t[2] for t in tests]]),
    }
    scipy.io.savemat(root / "code" / "results.mat", {"results": results})
    return root


def test_bbcpose(tmp_path: Path) -> None:
    root = bbc(tmp_path)
    for split, count in (("train", 19), ("val", 10), ("test", 10)):
        data = bbcpose.bbcpose(str(root), split, 128)
        assert len(data) == count
        check_marks(data)
    check_splits_disjoint(bbcpose.bbcpose, root, ("train", "val", "test"))
    item = bbcpose.bbcpose(str(root), "test", 96, 3)[0]
    assert (item["video"], item["frame"]) == ("16", 48)
    # Training: 60 pixels round the joints, cut off at the frame's edge.
    record = bbcpose.bbcpose(str(root), "train", 128).records[0]
    window = record.crop.on(400, 280)
    low, high = record.landmarks.min(0) - 60, record.landmarks.max(0) + 60
    assert window.x0 == max(0, low[0])
    assert window.y1 == min(280, high[1])
    assert "1,000" in SOURCES["bbcpose"].check(root)[0].text
    (root / "17" / "51.jpg").unlink()
    with pytest.raises(InputError, match=r"17/51\.jpg"):
        bbcpose.bbcpose(str(root), "test")
    scipy.io.savemat(root / "code" / "results.mat", {"results": {"gt": np.zeros((2, 5, 3)), "f": [1], "v": [1]}})
    with pytest.raises(InputError, match="2 x 7 x 1"):
        bbcpose.bbcpose(str(root), "test")


# --- Human3.6M ---


def simplified(root: Path) -> Path:
    subjects = [s for those in human36m.SUBJECTS.values() for s in those]
    for seed, subject in enumerate(subjects):
        for action in ("Posing", "Waiting 1", "Walking", "WalkingDog", "Eating"):
            folder = f"{action}.5413{seed % 4}"
            for frame in (1, 2, 10):
                points = spread_points(3, 128, 128, 1000 * seed + frame)
                place = root / "human_images" / subject
                picture(place / "WithBackground" / folder / f"{frame}.jpg", 128, 128, points)
                mask = np.zeros((128, 128), np.uint8)
                mask[10:118, 10:118] = 1
                (place / "BackgroudMask" / folder).mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(place / "BackgroudMask" / folder / f"{frame}.png")
                (place / "Landmarks" / folder).mkdir(parents=True, exist_ok=True)
                rows = (np.resize(points, (32, 2))[:, ::-1] + 0.5) / 128
                scipy.io.savemat(place / "Landmarks" / folder / f"{frame}.mat", {"keypoints_2d": rows})
    return root


def test_human36m_simplified(tmp_path: Path) -> None:
    root = simplified(tmp_path)
    data = human36m.human36m(str(root), "test", 128)
    assert len(data) == 3 * 3
    assert {item["action"] for item in data} == {"posing", "waiting", "walking"}
    assert [item["frame"] for item in data][:3] == [1, 2, 10]
    assert {item["subject"] for item in data} == {"S11"}
    check_marks(data)
    item = data[0]
    assert item["mask"].float().mean() == pytest.approx((108 / 128) ** 2, abs=0.01)
    assert item["image"][:, ~item["mask"]].max() < 0.1
    background = human36m.human36m(f"{root}#background", "test", 128)
    assert background[0]["image"][:, 3, 3].max() > 0.1
    assert background.fingerprint != data.fingerprint
    # From the cache the landmarks are the same.
    again = human36m.human36m(str(root), "test", 128)
    assert np.array_equal(again.records[4].landmarks, data.records[4].landmarks)
    assert len(human36m.human36m(str(root), "train", 64, 4)) == 4
    found = [names(human36m.human36m(str(root), split, 32)) for split in ("train", "test")]
    assert not found[0] & found[1]
    problems = SOURCES["human36m"].check(root)
    assert ["796,648" in problems[0].text, "87,975" in problems[1].text] == [True, True]


def test_human36m_val_is_whole_sequences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = simplified(tmp_path)
    monkeypatch.setattr(human36m, "is_val", lambda key: key.endswith("Posing"))
    check_splits_disjoint(human36m.human36m, root, ("train", "val", "test"))
    data = human36m.human36m(str(root), "val", 32)
    assert {record.extra["action"] for record in data.records} == {"posing"}


def test_human36m_damaged(tmp_path: Path) -> None:
    root = simplified(tmp_path)
    place = root / "human_images" / "S11"
    (place / "Landmarks" / "Posing.54132" / "2.mat").unlink()
    with pytest.raises(InputError, match=r"no 2\.mat"):
        human36m.human36m(str(root), "test")
    (place / "Landmarks" / "Posing.54132" / "2.mat").write_bytes(b"MATLAB 5.0")
    with pytest.raises(InputError, match=r"2\.mat"):
        human36m.human36m(str(root), "test")
    (place / "BackgroudMask").rename(place / "BackgroundMask")
    with pytest.raises(InputError, match="not S11/BackgroudMask"):
        human36m.human36m(str(root), "test")


def fetched(root: Path) -> Path:
    for seed, subject in enumerate(s for those in human36m.SUBJECTS.values() for s in those):
        for action in ("Directions-1", "Walking-2", "Sitting-1"):
            place = root / subject / action
            frames = [(cam, frame) for cam in (54138969, 60457274) for frame in (1, 6)]
            poses = [spread_points(4, 300, 400, 10 * seed + i) + np.array((200, 100)) for i in range(len(frames))]
            for (camera, frame), pose in zip(frames, poses, strict=True):
                picture(place / "imageSequence" / str(camera) / f"img_{frame:06d}.jpg", 700, 700, pose, dot=5)
            with h5py.File(place / "annot.h5", "w") as file:
                file["camera"], file["frame"] = zip(*frames, strict=True)
                file["pose/2d"] = np.stack([np.resize(pose, (32, 2)) + 0.5 for pose in poses])
    return root


def test_human36m_fetch(tmp_path: Path) -> None:
    root = fetched(tmp_path)
    data = human36m.human36m(str(root), "test", 128)
    assert len(data) == 2 * 4
    assert data[0]["video"] == "S11/Directions-1/54138969"
    check_marks(data, 4)
    assert "17,615" in SOURCES["human36m"].check(root)[1].text
    (root / "S11" / "Walking-2" / "annot.h5").write_bytes(b"no")
    with pytest.raises(InputError, match=r"annot\.h5"):
        human36m.human36m(str(root), "test")


def test_human36m_pairs() -> None:
    flat = [i for pair in human36m.FLIP_PAIRS for i in pair]
    assert len(set(flat)) == len(flat) == 26
    for left, right in human36m.FLIP_PAIRS:
        assert "R" + human36m.LANDMARK_NAMES[left][1:] == human36m.LANDMARK_NAMES[right]
    assert len(human36m.LANDMARK_NAMES) == 32


# --- Tai-Chi-HD ---


def taichi_folder(root: Path) -> Path:
    for part, count in (("train", 60), ("test", 4)):
        rows = []
        for i in range(count):
            points = spread_points(18, 256, 256, i + 100 * (part == "test"))
            name = f"{part}video{i // 2:04d}#000#100.mp4#{i}.png"
            picture(root / "eval_images" / "taichi-256" / part / name, 256, 256, points)
            value = points.astype(float)
            value[3], value[4] = -1, (0, value[4, 1])
            rows.append((name, value))
            picture(root / "train" / f"clip{i // 10}.mp4" / f"{i % 10:07d}.png", 40, 40)
        frame = pandas.DataFrame({"file_name": [r[0] for r in rows], "value": [r[1] for r in rows]})
        (root / "landmark").mkdir(exist_ok=True)
        frame.to_pickle(root / "landmark" / f"taichi_{part}_gt.pkl", protocol=4)
    return root


def test_taichi(tmp_path: Path) -> None:
    root = taichi_folder(tmp_path)
    data = taichi.taichi(str(root), "test", 256)
    assert len(data) == 4
    check_marks(data)
    item = data[0]
    assert np.isnan(item["landmarks"][3]).all()
    assert np.isfinite(item["landmarks"][4]).all()
    assert item["visible"].tolist() == [i not in (3, 4) for i in range(18)]
    check_marks(taichi.taichi(str(root), "train", 128, 5), 4)
    check_splits_disjoint(taichi.taichi, root, ("train", "val", "test"))
    frames = taichi.taichi(f"{root}#frames", "train", 32)
    assert np.isnan(frames[0]["landmarks"]).all()
    assert frames.records[0].video == "clip0.mp4"
    assert "5,000" in SOURCES["taichi"].check(root)[0].text
    for pair in taichi.FLIP_PAIRS:
        assert taichi.LANDMARK_NAMES[pair[0]].replace("left", "right") == taichi.LANDMARK_NAMES[pair[1]]


def test_taichi_damaged(tmp_path: Path) -> None:
    root = taichi_folder(tmp_path)
    path = root / "landmark" / "taichi_test_gt.pkl"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"taichi_test_gt\.pkl"):
        taichi.taichi(str(root), "test")
    pandas.DataFrame({"file_name": ["a.png"], "value": [np.zeros((17, 2))]}).to_pickle(path)
    picture(root / "eval_images" / "taichi-256" / "test" / "a.png", 8, 8)
    with pytest.raises(InputError, match="18 x 2"):
        taichi.taichi(str(root), "test")
    next((root / "eval_images" / "taichi-256" / "train").iterdir()).unlink()
    with pytest.raises(InputError, match="59 of the 60 images"):
        taichi.taichi(str(root), "train")


# --- DeepFashion ---


def fashion(root: Path, joints: int = 17, flat: bool = False) -> Path:
    for part, count in (("train", 80), ("test", 3)):
        rows, entries = [], []
        for i in range(count):
            points = spread_points(joints, 256, 256, i)
            name = f"WOMEN/Dresses/id_{part}{i // 2:05d}/{i:02d}_1_front.jpg"
            picture(root / "img" / name, 256, 256, points)
            rows.append(f"{i},{name}")
            values = [[*map(float, p), 0.9] for p in points] if flat else points.astype(float).tolist()
            entries.append({"keypoints": np.ravel(values).tolist() if flat else values})
        (root / f"data_{part}.csv").write_text("\n".join([",filename", *rows]) + "\n")
        (root / f"data_{part}.json").write_text(json.dumps(entries))
    return root


@pytest.mark.parametrize(("joints", "flat"), [(17, False), (17, True), (16, False)])
def test_deepfashion(tmp_path: Path, joints: int, flat: bool) -> None:
    root = fashion(tmp_path, joints, flat)
    data = deepfashion.deepfashion(str(root), "test", 128)
    assert len(data.info.landmark_names) == joints
    check_marks(data, 4)
    assert data[0]["visible"].all()
    assert data[0]["subject"] == "WOMEN/Dresses/id_test00000"
    check_splits_disjoint(deepfashion.deepfashion, root, ("train", "val", "test"))


def test_deepfashion_damaged(tmp_path: Path) -> None:
    root = fashion(tmp_path)
    text = (root / "data_test.json").read_text()
    (root / "data_test.json").write_text(json.dumps(json.loads(text)[1:]))
    with pytest.raises(InputError, match="2 entries for the 3 pictures"):
        deepfashion.deepfashion(str(root), "test")
    (root / "data_test.json").write_text(text[:-9])
    with pytest.raises(InputError, match=r"data_test\.json"):
        deepfashion.deepfashion(str(root), "test")
    (root / "data_test.json").write_text(text)
    picture(root / "img" / "WOMEN/Dresses/id_test00000/00_1_front.jpg", 75, 110)
    with pytest.raises(InputError, match="75 x 110"):
        deepfashion.deepfashion(str(root), "test")


# --- CUB ---

BIRDS = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "200.Common_Yellowthroat")


def birds(root: Path, cleaned: bool = False) -> Path:
    lines: dict[str, list[str]] = {key: [] for key in ("images", "boxes", "splits", "parts")}
    structs: dict[str, list[Any]] = {"train": [], "val": [], "test": []}
    for i in range(1, 91):
        folder = BIRDS[i % 3]
        name, width, height = f"{folder}/bird_{i}.jpg", 331, 250
        points = spread_points(15, 190, 190, i) + np.array((40, 30))
        picture(root / "images" / name, width, height, points)
        x, y, w, h = 41.0, 31.0, 190.0, 170.0 + i % 7  # counted from 1
        train = i % 2
        parts = np.c_[points + 1.0, np.ones(15)]
        parts[3] = 0
        lines["images"].append(f"{i} {name}")
        lines["boxes"].append(f"{i} {x} {y} {w} {h}")
        lines["splits"].append(f"{i} {train}")
        lines["parts"] += [f"{i} {j + 1} {px} {py} {int(v)}" for j, (px, py, v) in enumerate(parts)]
        box = {"x1": x, "y1": y, "x2": x + w - 1, "y2": y + h - 1}
        split = "train" if train else ("val", "test")[i % 4 == 0]
        structs[split].append((name, box, parts.T, width, height, np.ones((height, width), np.uint8)))
    (root / "parts").mkdir()
    places = ("images.txt", "bounding_boxes.txt", "train_test_split.txt", "parts/part_locs.txt")
    for place, text in zip(places, lines.values(), strict=True):
        (root / place).write_text("\n".join(text) + "\n")
    if cleaned:
        mats = root / "cachedir" / "cub" / "data"
        mats.mkdir(parents=True)
        fields = [(f, "O") for f in ("rel_path", "bbox", "parts", "width", "height", "mask")]
        for split, rows in structs.items():
            images = np.array([rows], dtype=fields)
            scipy.io.savemat(mats / f"{split}_cub_cleaned.mat", {"images": images}, do_compression=True)
    return root


@pytest.mark.parametrize("cleaned", [False, True])
def test_cub(tmp_path: Path, cleaned: bool) -> None:
    root = birds(tmp_path, cleaned)
    for option in ("", "#all", "#aligned", "#001"):
        data = cub.cub(f"{root}{option}", "test", 128, 6)
        check_marks(data, 4)
        assert not data[0]["visible"][3]
        assert np.isnan(data[0]["landmarks"][3]).all()
    assert {r.extra["category"] for r in cub.cub(f"{root}#001", "train").records} == {BIRDS[0]}
    check_splits_disjoint(cub.cub, root, ("train", "val", "test"))
    assert len(cub.cub(str(root), "test", 32)) == (22 if cleaned else 45)
    box = cub.cub(str(root), "test", 100)[0]["box"].numpy()
    assert (box[2] - box[0]) == pytest.approx(100 / 1.1, abs=1)
    problems = SOURCES["cub"].check(root)
    assert len(problems) == (8 if cleaned else 2)
    assert ("5,964" if cleaned else "5,994") in problems[0].text


def test_cub_crops() -> None:
    # Box 11..20 x 21..40, both ends in it: 10 x 20 pixels; padded by round(0.5) = 0 and 1 on each side: 22 high.
    window = cub.PaddedSquare(11, 21, 20, 40).on(100, 100)
    assert window.x1 - window.x0 == window.y1 - window.y0 == 22
    assert (window.y0, window.fill) == (19, 1)
    assert abs((window.x0 + window.x1) / 2 - 15) <= 1
    # 100 = 96 + 4: two pixels go on the left, the square round the box reaches over the left edge.
    window = cub.AlignedSquare(0, 20, 10, 60).on(100, 96)
    assert (window.x0, window.x1, window.y0, window.y1) == (2, 27, 20, 60)


def test_cub_damaged(tmp_path: Path) -> None:
    root = birds(tmp_path)
    path = root / "parts" / "part_locs.txt"
    text = path.read_text()
    path.write_text(text.replace("3 15 ", "3 16 ", 1))
    with pytest.raises(InputError, match=r"part_locs\.txt, line \d+: found part 16"):
        cub.cub(str(root), "train")
    path.write_text(text[:2000].rsplit("\n", 1)[0])
    with pytest.raises(InputError, match="not in every other file"):
        cub.cub(str(root), "train")
    path.write_text(text)
    (root / "images" / BIRDS[1] / "bird_1.jpg").unlink()
    with pytest.raises(InputError, match=r"bird_1\.jpg"):
        cub.cub(str(root), "train")
    (root / "bounding_boxes.txt").unlink()
    with pytest.raises(InputError, match=r"not bounding_boxes\.txt"):
        cub.cub(str(root), "train")


# --- smallNORB ---


def norb(root: Path) -> Path:
    root.mkdir(exist_ok=True)
    for part, instances in (("training", (4, 6, 7, 8, 9)), ("testing", (0, 1))):
        toys = [
            (c, i, e, a, light)
            for c in range(5)
            for i in instances
            for e in (0, 8)
            for a in (0, 34)
            for light in (1, 5)
        ]
        pictures = np.zeros((len(toys), 2, 96, 96), np.uint8)
        pictures[:, 0, 10:20, 30:40] = 200
        pictures[:, 1, 50:60, 30:40] = 100
        matrices = {
            "dat": (0x1E3D4C55, pictures),
            "cat": (0x1E3D4C54, np.array([t[0] for t in toys], "<i4")),
            "info": (0x1E3D4C54, np.array([t[1:] for t in toys], "<i4")),
        }
        for kind, (magic, values) in matrices.items():
            shape = (*values.shape, *[1] * max(0, 3 - values.ndim))
            head = struct.pack(f"<Ii{len(shape)}i", magic, values.ndim, *shape)
            name = f"smallnorb-5x46789x9x18x6x2x96x96-{part}-{kind}.mat"
            (root / name).write_bytes(head + values.tobytes())
    return root


def test_smallnorb(tmp_path: Path) -> None:
    root = norb(tmp_path)
    load = SOURCES["smallnorb"].load
    data = load(root, "test", 96)
    assert len(data) == 5 * 2 * 8
    item = data[-1]
    assert (item["category"], item["instance"], item["elevation"], item["azimuth"]) == ("cars", 1, 70, 340)
    assert (item["frame"], item["video"], item["lighting"]) == (18 * 8 + 17, "cars-1-light-5", 5)
    assert item["landmarks"].shape == (0, 2)
    assert item["image"][:, 15, 35].tolist() == pytest.approx([200 / 255] * 3)
    right = load(f"{root}#cars,right", "test", 96)
    assert len(right) == 2 * 8
    assert right[0]["image"][0, 55, 35] == pytest.approx(100 / 255)
    assert right.fingerprint != load(f"{root}#cars", "test", 96).fingerprint
    check_splits_disjoint(load, root, ("train", "val", "test"))
    assert "24,300" in SOURCES["smallnorb"].check(root)[0].text
    path = next(root.glob("*testing*dat.mat"))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InputError, match=r"testing-dat\.mat.*bytes"):
        load(root, "test")
    path.unlink()
    with pytest.raises(InputError, match="testing"):
        load(root, "train")


# --- SVHN ---


def house_numbers(root: Path, extra: bool = True) -> Path:
    for part, count in (("train", 120), ("test", 3), ("extra", 2))[: 3 if extra else 2]:
        rows = []
        for i in range(1, count + 1):
            left = [30.0, 62.0][: 1 + i % 2]
            corners = [(x + w, y) for x in left for w in (0, 19) for y in (25, 64)]
            picture(root / part / f"{i}.png", 140, 90, corners, dot=1)
            digits = len(left)
            columns = {
                "left": left,
                "top": [25.0] * digits,
                "width": [20.0] * digits,
                "height": [40.0] * digits,
                "label": [10.0, 7.0][:digits],
            }
            rows.append((f"{i}.png", columns))
        digit_struct(root / part / "digitStruct.mat", rows)
    return root


def test_svhn(tmp_path: Path) -> None:
    root = house_numbers(tmp_path)
    data = svhn.svhn(str(root), "test", 128)
    assert [item["number"] for item in data] == ["07", "0", "07"]
    item = data[0]
    # The box is 52 x 40 pixels, the crop 65: its corners are marked.
    assert (item["box"][2] - item["box"][0]).item() == pytest.approx(128 * 52 / 65)
    x0, y0, x1, y1 = item["box"].tolist()
    for corner in ((x0 + 1, y0 + 1), (x1 - 1, y1 - 1)):
        assert np.hypot(*(brightest(item["image"], corner, 6) - corner)) < 1
    digits = svhn.svhn(f"{root}#digits", "test", 64)
    assert [(d["digit"], d["video"], d["frame"]) for d in digits][:3] == [
        (0, "test/1.png", 0),
        (7, "test/1.png", 1),
        (0, "test/2.png", 0),
    ]
    again = svhn.svhn(str(root), "test", 128)  # from the cache
    assert again.fingerprint == data.fingerprint
    check_splits_disjoint(svhn.svhn, root, ("train", "val", "test"))
    check_splits_disjoint(svhn.svhn, f"{root}#digits,extra", ("train", "val", "test"))
    more = names(svhn.svhn(f"{root}#extra", "train")) - names(svhn.svhn(str(root), "train"))
    assert more == {"extra/1.png", "extra/2.png"}
    assert len(SOURCES["svhn"].check(root)) == 3


def test_svhn_damaged(tmp_path: Path) -> None:
    root = house_numbers(tmp_path, extra=False)
    with pytest.raises(InputError, match="not extra/digitStruct"):
        svhn.svhn(f"{root}#extra", "train")
    (root / "test" / "2.png").unlink()
    with pytest.raises(InputError, match=r"2 of the 3 images.*2\.png"):
        svhn.svhn(str(root), "test")
    path = root / "test" / "digitStruct.mat"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"digitStruct\.mat"):
        svhn.svhn(str(root), "test")


# --- MPII ---


def release(root: Path, pictures: int = 60) -> Path:
    entries, flags = [], []
    for i in range(pictures):
        points = spread_points(16, 300, 300, i) + np.array((40, 40))
        picture(root / "images" / f"{i:09d}.jpg", 500, 400, points)
        visible: list[Any] = [1, "1", 0, "0", np.zeros((0, 0))]
        joints = [
            {"x": float(x + 1), "y": float(y + 1), "id": k, "is_visible": visible[k % 5]}
            for k, (x, y) in enumerate(points)
        ]
        train = i % 3 > 0
        person = {"scale": 1.4, "objpos": {"x": 191.0, "y": 170.0}}
        annotated = {"x1": 100.0, "y1": 50.0, "x2": 130.0, "y2": 90.0, "annopoints": {"point": structs(joints[1:])}}
        people = [{**annotated, **person}] if train else [person]
        if i == 1:
            people = [people[0], {**annotated, **person, "annopoints": np.zeros((0, 0))}]
        entries.append({"image": {"name": f"{i:09d}.jpg"}, "annorect": structs(people), "vididx": i // 2})
        flags.append(int(train))
    content = {"annolist": structs(entries), "img_train": np.array([flags]), "version": "12"}
    scipy.io.savemat(root / "mpii_human_pose_v1_u12_2.mat", {"RELEASE": content})
    return root


def structs(rows: list[dict[str, Any]]) -> np.ndarray:
    array = np.empty((1, len(rows)), dtype=[(key, "O") for key in rows[0]])
    for i, row in enumerate(rows):
        array[0, i] = tuple(row.values())
    return array


def test_mpii(tmp_path: Path) -> None:
    root = release(tmp_path)
    data = mpii.mpii(str(root), "all", 128)
    assert len(data) == 40
    check_marks(mpii.mpii(str(root), "train", 128, 8), 4)
    item = data[0]
    assert np.isnan(item["landmarks"][0]).all()  # not annotated
    assert not item["visible"][2]
    assert np.isfinite(item["landmarks"][2]).all()  # hidden
    assert item["visible"][[1, 4, 5, 6]].all()
    # PCKh: 0.6 of the diagonal of the head box, at 128 of 350 pixels.
    assert item["head_size"] == pytest.approx(0.6 * 50 * 128 / 350)
    assert item["subject"] == "video 0"
    check_splits_disjoint(mpii.mpii, root, ("train", "val"))
    with pytest.raises(InputError, match="not public"):
        mpii.mpii(str(root), "test")
    assert "24,984" in SOURCES["mpii"].check(root)[0].text


def test_mpii_damaged(tmp_path: Path) -> None:
    root = release(tmp_path, 6)
    (root / "images" / "000000001.jpg").unlink()
    with pytest.raises(InputError, match=r"000000001\.jpg"):
        mpii.mpii(str(root), "all")
    path = root / "mpii_human_pose_v1_u12_2.mat"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="mpii_human"):
        mpii.mpii(str(root), "all")
    scipy.io.savemat(path, {"RELEASE": {"annolist": 3}})
    with pytest.raises(InputError, match="img_train"):
        mpii.mpii(str(root), "all")
    path.unlink()
    with pytest.raises(InputError, match="mpii_human_pose"):
        mpii.mpii(str(root), "all")
