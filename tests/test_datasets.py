"""Reading images, COCO folders and plain folders; caches; every kind of bad input."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ulm import datasets
from ulm.datasets import cache, coco, folder, images
from ulm.datasets.base import Dataset, Info
from ulm.errors import InputError

NAMES = ["left eye", "right eye", "nose"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ULM_CACHE", str(tmp_path / "cache"))


def gradient(width: int, height: int) -> np.ndarray:
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([x, y, np.full_like(x, 128)], -1).astype(np.uint8)


def coco_content(count: int = 6, side: int = 40) -> dict[str, Any]:
    return {
        "images": [
            {
                "id": i,
                "file_name": f"{i}.png",
                "width": side,
                "height": side,
                "subject": f"s{i // 2}",
                "video": f"v{i // 2}",
                "frame": i % 2,
            }
            for i in range(count)
        ],
        "annotations": [
            {
                "id": i,
                "image_id": i,
                "category_id": 1,
                "keypoints": [10, 20 + i, 2, 30, 20, 1, 0, 0, 0],
                "bbox": [5, 5, 30, 30],
            }
            for i in range(count)
        ],
        "categories": [{"id": 1, "name": "face", "keypoints": NAMES, "skeleton": [[1, 2]]}],
    }


def write_coco(root: Path, content: dict[str, Any] | None = None, side: int = 40) -> Path:
    content = coco_content() if content is None else content
    (root / "images").mkdir(parents=True, exist_ok=True)
    for image in content["images"]:
        Image.fromarray(gradient(image.get("width", side), image.get("height", side))).save(
            root / "images" / image["file_name"]
        )
    (root / "keypoints.json").write_text(json.dumps(content))
    return root


def png16(path: Path, values: np.ndarray) -> None:
    """Write a 16-bit PNG, grey or RGB; Pillow cannot write the latter."""
    height, width = values.shape[:2]
    kind = 2 if values.ndim == 3 else 0
    rows = b"".join(b"\0" + values[y].astype(">u2").tobytes() for y in range(height))
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    body = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


# --- images -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif"])
def test_every_common_mode_is_read_as_rgb(tmp_path: Path, mode: str, suffix: str) -> None:
    original = Image.fromarray(gradient(24, 16)).convert(mode)
    path = tmp_path / f"image.{suffix}"
    try:
        original.save(path)
    except (OSError, ValueError):
        pytest.skip(f"{suffix} holds no {mode}")
    found = images.read_image(path)
    assert found.shape == (16, 24, 3)
    assert found.dtype == np.uint8
    if mode not in ("1", "P"):
        expected = np.asarray(original.convert("RGB")).astype(int)
        assert np.abs(found.astype(int) - expected).mean() < 6


def test_transparent_pixels_are_laid_over_white(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:2, :, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = images.read_image(tmp_path / "a.png")
    assert found[:2].max() == 0
    assert found[2:].min() == 255


def test_a_palette_with_a_transparent_colour(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30] * 256)
    image.save(tmp_path / "a.png", transparency=0)
    assert images.read_image(tmp_path / "a.png").min() == 255


@pytest.mark.parametrize("colour", [False, True])
def test_sixteen_bits_are_scaled_not_cut_off(tmp_path: Path, colour: bool) -> None:
    values = np.linspace(0, 65535, 64).round().astype(np.uint16).reshape(8, 8)
    png16(tmp_path / "a.png", np.stack([values] * 3, -1) if colour else values)
    found = images.read_image(tmp_path / "a.png").astype(float)
    assert np.abs(found - values[..., None] / 257).max() <= 1


def test_floating_point_images_are_taken_as_zero_to_one_or_refused(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0.0, 1.0]], np.float32)).save(tmp_path / "a.tif")
    assert images.read_image(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 255]
    Image.fromarray(np.array([[0.0, 3.0]], np.float32)).save(tmp_path / "b.tif")
    with pytest.raises(InputError, match=r"b\.tif: found grey values from 0 to 3"):
        images.read_image(tmp_path / "b.tif")


def test_the_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.fromarray(gradient(20, 10))
    exif = image.getexif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    image.save(tmp_path / "a.png", exif=exif)
    found = images.read_image(tmp_path / "a.png")
    assert np.array_equal(found, np.rot90(gradient(20, 10), -1))
    assert images.image_size(tmp_path / "a.png") == (20, 10)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "bmp"])
def test_a_truncated_file_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut.{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=rf"cut\.{suffix}: found a damaged file"):
        images.read_image(path)


@pytest.mark.parametrize("content", [b"", b"no image at all", b"\xff\xd8\xff", b"GIF89a"])
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "note.jpg").write_bytes(content)
    with pytest.raises(InputError, match=r"note\.jpg: found a damaged file or no image"):
        images.read_image(tmp_path / "note.jpg")


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found no image file"):
        images.read_image(tmp_path / "nowhere.jpg")


def test_shrinking_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = images.resize(stripes, (8, 8)).astype(int)
    assert np.abs(small - 127).max() < 20


def test_a_square_outside_the_image_repeats_its_edge() -> None:
    found = images.cut(gradient(10, 4), images.whole(10, 4), 10)
    assert np.array_equal(found[3:7], gradient(10, 4))
    assert np.array_equal(found[0], gradient(10, 4)[0])
    assert np.array_equal(found[9], gradient(10, 4)[3])


@pytest.mark.parametrize(("width", "height"), [(100, 60), (61, 100), (50, 50), (7, 3)])
def test_points_go_to_the_square_and_back(width: int, height: int) -> None:
    square = images.whole(width, height)
    points = np.array([[0.0, 0.0], [width, height], [3.25, 1.5]])
    inside = square.to_square(points, 128)
    assert inside.min() >= 0
    assert inside.max() <= 128
    np.testing.assert_allclose(square.to_image(inside, 128), points, atol=1e-9)


def test_a_drawn_point_stays_under_its_landmark() -> None:
    # A white 4 x 4 block round (70, 30) of a wide image must be found round the mapped point.
    image = np.zeros((60, 100, 3), np.uint8)
    image[28:32, 68:72] = 255
    square = images.whole(100, 60)
    small = images.cut(image, square, 64)[..., 0].astype(float)
    rows, columns = np.meshgrid(np.arange(64) + 0.5, np.arange(64) + 0.5, indexing="ij")
    centre = [(small * columns).sum() / small.sum(), (small * rows).sum() / small.sum()]
    np.testing.assert_allclose(square.to_square(np.array([70.0, 30.0]), 64), centre, atol=0.1)


# --- load -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["faces", "imagenet:here", "coco:", "", "folder"])
def test_an_unknown_specification_lists_the_known(spec: str) -> None:
    with pytest.raises(InputError, match="expected one of procedural:SCENE, coco:FOLDER, folder:IMAGES"):
        datasets.load(spec)


def test_bad_sizes_splits_and_limits(tmp_path: Path) -> None:
    write_coco(tmp_path)
    with pytest.raises(InputError, match="image size"):
        datasets.load(f"coco:{tmp_path}", size=0)
    with pytest.raises(InputError, match="split 'training'"):
        datasets.load(f"coco:{tmp_path}", split="training")
    with pytest.raises(InputError, match="limit 0"):
        datasets.load(f"coco:{tmp_path}", limit=0)


def test_listing_names_what_can_be_loaded(tmp_path: Path) -> None:
    write_coco(tmp_path / "mine")
    rows = datasets.listing(tmp_path)
    assert {"name", "kind", "landmarks", "what", "licence", "access", "stand_in", "present"} == set(rows[0])
    found = {row["name"]: row["landmarks"] for row in rows}
    assert found["procedural:faces"] == 68
    assert found[f"coco:{tmp_path / 'mine'}"] == 3
    assert {"coco:FOLDER", "folder:IMAGES"} <= set(found)
    by_name = {row["name"]: row for row in rows}
    assert by_name["mafl:ROOT"]["present"] is False
    stand_ins = {row["stand_in"] for row in rows if row["kind"] == "paper"}
    assert stand_ins <= set(found), "every stand-in is a scene"


# --- COCO -------------------------------------------------------------------------------------------------------------


def test_a_coco_item_keeps_the_contract(tmp_path: Path) -> None:
    data = datasets.load(f"coco:{write_coco(tmp_path)}", split="all", size=80)
    item = data[1]
    assert len(data) == 6
    assert item["image"].shape == (3, 80, 80)
    assert item["image"].dtype == torch.float32
    assert 0 <= item["image"].min() <= item["image"].max() <= 1
    assert item["landmarks"].dtype == torch.float32
    assert item["landmarks"][:2].tolist() == [[20, 42], [60, 40]]
    assert item["landmarks"][2].isnan().all()
    assert item["visible"].tolist() == [True, False, False]
    assert item["box"].tolist() == [10, 10, 70, 70]
    assert (item["subject"], item["video"], item["frame"]) == ("s0", "v0", 1)
    assert data.info.flip_pairs == ((0, 1),)
    assert data.info.skeleton == ((0, 1),)
    assert data.info.normaliser == "pupils"
    assert data.info.normaliser_points == ((1,), (0,))
    with pytest.raises(IndexError):
        data[6]


def test_splits_keep_subjects_apart_and_cover_everything(tmp_path: Path) -> None:
    content = coco_content(200, 8)
    root = write_coco(tmp_path, content)
    parts = {s: datasets.load(f"coco:{root}", split=s, size=8) for s in ("train", "val", "test")}
    subjects = {s: {p.images[i]["subject"] for i in range(len(p))} for s, p in parts.items()}
    assert sum(len(p) for p in parts.values()) == 200
    assert not subjects["train"] & subjects["test"]
    assert not subjects["val"] & (subjects["train"] | subjects["test"])
    assert 0.55 < len(parts["train"]) / 200 < 0.85
    assert len({p.fingerprint for p in parts.values()}) == 3


def test_limit_spreads_over_the_split(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    assert datasets.load(f"coco:{root}", "all", limit=3).images == [coco_content()["images"][i] for i in (0, 2, 4)]
    assert len(datasets.load(f"coco:{root}", "all", limit=99)) == 6


def test_an_empty_split_says_so(tmp_path: Path) -> None:
    content = coco_content(1)
    missing = next(s for s in ("train", "val", "test") if s != folder.split_of("s0"))
    with pytest.raises(InputError, match=f"no items in split '{missing}'"):
        datasets.load(f"coco:{write_coco(tmp_path, content)}", split=missing)


def test_images_that_are_not_square(tmp_path: Path) -> None:
    content = coco_content(2)
    content["images"][0] |= {"width": 100, "height": 50}
    content["images"][1] |= {"width": 100, "height": 50}
    content["annotations"][0]["bbox"] = [40, 10, 20, 16]
    del content["annotations"][1]["bbox"]
    data = datasets.load(f"coco:{write_coco(tmp_path, content)}", split="all", size=50)
    # A square of 1.25 x 20 pixels round the centre (50, 18) of the box, twice as large in the item.
    np.testing.assert_allclose(data[0]["landmarks"][0].numpy(), [(10 - 38) * 2, (20 - 6) * 2], atol=1e-4)
    # No box: the image in the middle of a square of 100 pixels, half as large in the item.
    np.testing.assert_allclose(data[1]["landmarks"][0].numpy(), [5, (21 + 25) / 2], atol=1e-4)
    assert "box" not in data[1]


def test_two_annotations_of_one_image_are_two_items(tmp_path: Path) -> None:
    content = coco_content(1)
    content["annotations"].append(content["annotations"][0] | {"id": 9, "bbox": [20, 20, 8, 8]})
    data = datasets.load(f"coco:{write_coco(tmp_path, content)}", split="all", size=40)
    assert len(data) == 2
    assert not torch.equal(data[0]["image"], data[1]["image"])


def test_crowds_unlabelled_and_other_categories_are_left_out(tmp_path: Path) -> None:
    content = coco_content(4)
    content["annotations"][0]["iscrowd"] = 1
    content["annotations"][1]["keypoints"] = [0] * 9
    content["categories"].append({"id": 2, "name": "plain box"})
    content["annotations"][2] |= {"category_id": 2, "keypoints": []}
    data = datasets.load(f"coco:{write_coco(tmp_path, content)}", split="all")
    assert [image["file_name"] for image in data.images] == ["3.png"]


def test_other_layouts_of_coco(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    (root / "annotations").mkdir()
    (root / "keypoints.json").rename(root / "annotations" / "person_keypoints.json")
    (root / "images").rename(root / "val2017")
    assert len(datasets.load(f"coco:{root}", "all")) == 6
    assert len(datasets.load(f"coco:{root}/annotations/person_keypoints.json", "all")) == 6
    (root / "annotations" / "other.json").write_text("{}")
    with pytest.raises(InputError, match="found 2 JSON files"):
        datasets.load(f"coco:{root}", "all")


def test_ibug_names_bring_their_scheme(tmp_path: Path) -> None:
    content = coco_content(1)
    content["categories"][0] = {"id": 1, "keypoints": [f"ibug-{i:02d}" for i in range(1, 69)]}
    content["annotations"][0]["keypoints"] = [10, 10, 2] * 68
    info = datasets.load(f"coco:{write_coco(tmp_path, content)}", "all").info
    assert info.normaliser == "outer-eye-corners"
    assert info.normaliser_points == ((36,), (45,))
    assert len(info.flip_pairs) == 29
    assert dict(info.subsets)["mafl-5"][2:] == ((30,), (48,), (54,))


def test_the_ibug_flip_is_an_involution_that_leaves_the_midline() -> None:
    swapped = list(range(68))
    for left, right in coco.IBUG_FLIP_PAIRS:
        swapped[left], swapped[right] = right, left
    assert [swapped[i] for i in swapped] == list(range(68))
    assert [i for i in range(68) if swapped[i] == i] == [8, 27, 28, 29, 30, 33, 51, 57, 62, 66]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][2]["keypoints"].__setitem__(3, float("nan")), "found nan for landmark 'right eye'"),
        (lambda c: c["annotations"][2]["keypoints"].__setitem__(0, None), "found None for landmark 'left eye'"),
        (lambda c: c["annotations"][2]["keypoints"].__setitem__(0, "ten"), "found 'ten'"),
        (lambda c: c["annotations"][2]["keypoints"].__setitem__(0, float("inf")), "found inf"),
        (lambda c: c["annotations"][2]["keypoints"].__setitem__(2, 5), "found visibility 5"),
        (lambda c: c["annotations"][2]["keypoints"].pop(), r"annotation 2 of 2\.png: found 8 numbers.*expected 9"),
        (lambda c: c["annotations"][2].__setitem__("keypoints", [1, 2, 2] * 4), "found 12 numbers"),
        (lambda c: c["annotations"][2].pop("keypoints"), "found 0 numbers"),
        (lambda c: c["annotations"][2].__setitem__("image_id", 77), r"1 annotations without an entry.*77"),
        (lambda c: c["annotations"][2].__setitem__("bbox", [1, 2]), "found bbox"),
        (lambda c: c["annotations"][2].pop("image_id"), r"annotations\[2\] has no 'image_id'"),
        (lambda c: c.pop("categories"), "found no list 'categories'"),
        (lambda c: c["categories"][0].pop("keypoints"), "no category with keypoints"),
        (lambda c: c["annotations"].clear(), "found no annotation of category 'face'"),
        (lambda c: [a.__setitem__("keypoints", [0] * 9) for a in c["annotations"]], "no labelled keypoint"),
        (lambda c: c["images"][2].__setitem__("width", 41), r"2\.png: found 40 x 40 pixels, expected 41 x 40"),
    ],
)
def test_bad_labels_are_named(tmp_path: Path, change: Any, message: str) -> None:
    content = coco_content()
    root = write_coco(tmp_path, content)
    change(content)
    (root / "keypoints.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        list(datasets.load(f"coco:{root}", split="all"))


def test_several_categories_with_keypoints_are_refused(tmp_path: Path) -> None:
    content = coco_content()
    content["categories"].append({"id": 2, "name": "cat", "keypoints": NAMES})
    assert len(datasets.load(f"coco:{write_coco(tmp_path, content)}", "all")) == 6
    content["annotations"][0]["category_id"] = 2
    with pytest.raises(InputError, match=r"2 categories \('face', 'cat'\)"):
        datasets.load(f"coco:{write_coco(tmp_path, content)}", "all")


def test_annotations_without_their_image(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    for name in ("0.png", "1.png", "3.png", "5.png"):
        (root / "images" / name).unlink()
    with pytest.raises(InputError, match=r"4 of 6 files are missing \(0\.png, 1\.png, 3\.png, \.\.\.\)"):
        datasets.load(f"coco:{root}")


def test_missing_empty_and_broken_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found no folder"):
        datasets.load(f"coco:{tmp_path / 'nowhere'}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="found an empty folder"):
        datasets.load(f"coco:{tmp_path / 'empty'}")
    (tmp_path / "empty" / "readme.txt").write_text("")
    with pytest.raises(InputError, match="found no JSON file"):
        datasets.load(f"coco:{tmp_path / 'empty'}")
    (tmp_path / "empty" / "keypoints.json").write_text('{"images": [')
    with pytest.raises(InputError, match="found broken JSON"):
        datasets.load(f"coco:{tmp_path / 'empty'}")
    (tmp_path / "empty" / "keypoints.json").write_text("[]")
    with pytest.raises(InputError, match="found no list 'images'"):
        datasets.load(f"coco:{tmp_path / 'empty'}")


def test_the_fingerprint_follows_the_contents_not_the_place(tmp_path: Path) -> None:
    first = datasets.load(f"coco:{write_coco(tmp_path / 'a')}", "all").fingerprint
    assert datasets.load(f"coco:{write_coco(tmp_path / 'b')}", "all").fingerprint == first
    Image.fromarray(gradient(40, 40)[::-1]).save(tmp_path / "b" / "images" / "0.png")
    assert datasets.load(f"coco:{tmp_path / 'b'}", "all").fingerprint != first
    assert len(first) == 12


def test_predictions_are_written_as_coco_and_read_again(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    points = [np.array([[1.5, 2.25], [np.nan, np.nan]])] * 6
    names = [f"{i}.png" for i in range(6)]
    content = coco.predictions_to_coco(["a", "b"], points, names, [(40, 40)] * 6)
    (root / "keypoints.json").write_text(json.dumps(content))
    item = datasets.load(f"coco:{root}", "all", size=40)[0]
    assert item["landmarks"][0].tolist() == [1.5, 2.25]
    assert item["landmarks"][1].isnan().all()


# --- folders ----------------------------------------------------------------------------------------------------------


def test_a_folder_of_mixed_images(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    Image.fromarray(gradient(30, 20)).convert("CMYK").save(tmp_path / "b.jpg")
    Image.fromarray(gradient(30, 20)).convert("L").save(tmp_path / "a.PNG")
    png16(tmp_path / "sub" / "c.png", np.full((9, 9), 65535, np.uint16))
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("")
    data = datasets.load(f"folder:{tmp_path}", split="all", size=16)
    assert [item["name"] for item in data] == ["a.PNG", "b.jpg", "sub/c.png"]
    assert data[0]["image"].shape == (3, 16, 16)
    assert data[0]["landmarks"].shape == (0, 2)
    assert data[2]["image"].min() == 1
    batch = datasets.cached(data, progress=False).batch([0, 2])
    assert batch["image"].shape == (2, 3, 16, 16)
    assert batch["landmarks"].shape == (2, 0, 2)


def test_folders_without_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found no folder"):
        datasets.load(f"folder:{tmp_path / 'nowhere'}")
    (tmp_path / "a.heic").write_bytes(b"x")
    with pytest.raises(InputError, match=r"found no images in .* \(1 other files\)"):
        datasets.load(f"folder:{tmp_path}")


# --- caches -----------------------------------------------------------------------------------------------------------


class Drawn(Dataset):
    """Forty items with every kind of value; counts how often it draws."""

    def __init__(self) -> None:
        self.info, self.split, self.size, self.drawn = Info("procedural:test", ("a", "b")), "train", 8, 0

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> dict[str, Any]:
        self.drawn += 1
        return {
            "image": torch.full((3, 8, 8), index / 255),
            "landmarks": torch.tensor([[index, 1.0], [float("nan")] * 2]),
            "visible": torch.tensor([True, False]),
            "mask": torch.ones(8, 8, dtype=torch.bool),
            "yaw": float(index),
            "video": f"v{index // 4}" if index < 39 else None,
        }

    @property
    def fingerprint(self) -> str:
        return "0123456789ab"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_cached_item_is_the_item(workers: int) -> None:
    data = Drawn()
    copy = datasets.cached(data, workers=workers, progress=False)
    assert len(copy) == 40
    assert copy.fingerprint == data.fingerprint
    for index in (0, 33, 39):
        item, expected = copy[index], data[index]
        assert list(item) == [*(k for k, v in expected.items() if isinstance(v, torch.Tensor)), "yaw", "video"]
        for key, value in expected.items():
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(item[key], value, equal_nan=True)
            else:
                assert item[key] == value
    batch = copy.batch(torch.tensor([3, 3, 7]))
    assert batch["yaw"] == [3.0, 3.0, 7.0]
    assert copy.images_uint8([3, 7])[:, 0, 0, 0].tolist() == [3, 7]
    assert copy.images.shape == (40, 3, 8, 8)
    assert copy.landmarks.shape == (40, 2, 2)
    assert copy.visible.shape == (40, 2)
    assert copy.column("video")[4] == "v1"
    assert copy.column("nothing") is None


def test_a_cache_is_used_again_and_mended_when_damaged() -> None:
    data = Drawn()
    place = datasets.cached(data, workers=0, progress=False).folder
    drawn = data.drawn
    datasets.cached(data, workers=0, progress=False)
    assert data.drawn == drawn
    for damage in ("image.npy", "index.json", "lists.json"):
        (place / damage).write_bytes((place / damage).read_bytes()[:-5])
        assert datasets.cached(data, workers=0, progress=False)[3]["yaw"] == 3.0
        assert data.drawn > drawn
        drawn = data.drawn
    assert [p.name for p in place.parent.iterdir()] == [place.name]


class Lineal(Drawn):
    """The first of a row of items."""

    lineage = "row"

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    def __len__(self) -> int:
        return self.length

    @property
    def fingerprint(self) -> str:
        return f"row{self.length}"


def test_a_cache_takes_over_what_another_of_its_lineage_has() -> None:
    short, long, shorter = Lineal(20), Lineal(40), Lineal(7)
    datasets.cached(short, workers=0, progress=False)
    copy = datasets.cached(long, workers=0, progress=False)
    # One look at the first item, for its shapes, and the twenty that were missing.
    assert long.drawn == 21
    fresh = datasets.cached(Drawn(), workers=0, progress=False)
    for key, values in fresh.arrays.items():
        np.testing.assert_array_equal(copy.arrays[key], values)
    assert copy.column("yaw") == fresh.column("yaw")
    assert copy.column("video") == fresh.column("video")
    assert datasets.cached(shorter, workers=0, progress=False).column("yaw") == [float(i) for i in range(7)]
    assert shorter.drawn == 1
    # A damaged one is not believed.
    place = copy.folder
    (place / "image.npy").write_bytes((place / "image.npy").read_bytes()[:-5])
    other = Lineal(30)
    assert datasets.cached(other, workers=0, progress=False)[29]["yaw"] == 29.0
    assert other.drawn == 11


def test_scenes_of_one_lineage_begin_alike() -> None:
    short, long = (datasets.load("procedural:toys", "train", 16, n) for n in (2, 3))
    assert short.lineage == long.lineage
    assert short.fingerprint != long.fingerprint
    assert torch.equal(short[1]["image"], long[1]["image"])
    assert datasets.load("procedural:toys", "all", 16, 3).lineage is None
    assert datasets.load("procedural:toys", "train", 32, 3).lineage != long.lineage
    assert datasets.load("procedural:toys", "val", 16, 3).lineage != long.lineage


def test_a_failure_leaves_no_cache_and_names_the_file(tmp_path: Path) -> None:
    for i in range(70):
        Image.fromarray(gradient(16, 16)).save(tmp_path / f"{i:02d}.jpg")
    (tmp_path / "66.jpg").write_bytes((tmp_path / "66.jpg").read_bytes()[:300])
    data = datasets.load(f"folder:{tmp_path}", "all", size=8)
    with pytest.raises(InputError, match=r"66\.jpg: found a damaged file"):
        datasets.cached(data, folder=tmp_path / "caches", progress=False)
    assert not list((tmp_path / "caches").iterdir())


def test_what_killed_processes_left_is_swept_away(tmp_path: Path) -> None:
    place = datasets.cached(Drawn(), workers=0, progress=False).folder
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = place.with_name(f"{place.name}.{cache.socket.gethostname()}.{dead.pid}.00000000.tmp")
    left.mkdir()
    alive = place.with_name(f"{place.name}.{cache.socket.gethostname()}.{os.getppid()}.00000000.tmp")
    alive.mkdir()
    (place / "index.json").unlink()
    datasets.cached(Drawn(), workers=0, progress=False)
    assert not left.exists()
    assert alive.exists()


def test_partners_are_other_frames_of_the_same_video() -> None:
    copy = datasets.cached(Drawn(), workers=0, progress=False)
    indices = torch.arange(40).repeat(20)
    found = copy.partners(indices, torch.Generator().manual_seed(0))
    assert torch.equal(found, copy.partners(indices, torch.Generator().manual_seed(0)))
    several = indices < 39
    assert (found[several] // 4 == indices[several] // 4).all()
    assert (found[several] != indices[several]).all()
    assert (found[~several] == 39).all()
    assert set(found[indices == 8].tolist()) == {9, 10, 11}


def test_partners_need_videos(tmp_path: Path) -> None:
    Image.fromarray(gradient(16, 16)).save(tmp_path / "a.png")
    copy = datasets.cached(datasets.load(f"folder:{tmp_path}", "all"), progress=False)
    with pytest.raises(InputError, match="has no videos"):
        copy.partners([0], torch.Generator())
