"""Procedural faces: determinism, sizes, annotation, and that landmarks lie on what they name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ulm.datasets import faces, procedural, rendering
from ulm.datasets.faces import Camera, Expression, Face, Light, Look, Pose, Shape
from ulm.errors import InputError

SCENES = ("faces", "faces-posed", "faces-wild")
CLOSE_UP = Camera(1 / 190.0, (0.5, 0.72), 1500.0)
SOFT = Light(azimuth=0, elevation=20, key=0.6, ambient=0.6)


def plain(**expression: object) -> Face:
    """A symmetric face without hair or glasses in soft light."""
    look = Look(style="bald", skin=(0.85, 0.66, 0.55), brow=(0.1, 0.07, 0.05))
    return Face(Shape(), Expression(**expression), look, SOFT)


def grey(sample: dict, x: float, y: float) -> float:
    return float(sample["image"][:, int(y), int(x)].mean())


@pytest.mark.parametrize("scene", SCENES)
def test_item_keeps_the_contract(scene: str) -> None:
    data = procedural.load(scene, "val", 48, length=3)
    item = data[1]
    assert len(data) == 3
    assert item["image"].shape == (3, 48, 48)
    assert item["image"].dtype == torch.float32
    assert 0 <= item["image"].min() < item["image"].max() <= 1
    assert item["landmarks"].shape == (68, 2)
    assert item["visible"].shape == (68,)
    assert item["visible"].dtype == torch.bool
    assert item["mask"].shape == (48, 48)
    assert item["mask"].any()
    assert item["box"].shape == (4,)
    assert torch.allclose(item["box"][:2], item["landmarks"].min(0).values)
    assert -90 <= item["yaw"] <= 90
    assert isinstance(item["subject"], str)


def test_items_depend_on_scene_split_and_index_alone() -> None:
    data = procedural.load("faces", "train", 32)
    first = [data[i]["image"] for i in (5, 2, 5)]
    again = procedural.load("faces", "train", 32, length=7)[5]["image"]
    assert torch.equal(first[0], first[2])
    assert torch.equal(first[0], again)
    assert not torch.equal(first[0], first[1])
    others = [procedural.load("faces", s, 32)[5] for s in ("val", "test")]
    others.append(procedural.load("faces-wild", "train", 32)[5])
    assert all(not torch.equal(first[0], other["image"]) for other in others)


def test_all_is_the_splits_in_a_row() -> None:
    data = procedural.load("faces", "all", 16)
    assert len(data) == 24_000
    assert torch.equal(data[20_003]["image"], procedural.load("faces", "val", 16)[3]["image"])
    assert torch.equal(data[-1]["image"], procedural.load("faces", "test", 16)[1999]["image"])
    subjects = [data[i]["subject"] for i in (0, 1, 20_000, 22_000)]
    assert len(set(subjects)) == 4
    with pytest.raises(IndexError):
        data[24_000]


@pytest.mark.parametrize("scene", SCENES)
def test_size_changes_the_resolution_only(scene: str) -> None:
    for index in (0, 3):
        small, large = (procedural.load(scene, "test", size)[index] for size in (48, 96))
        assert torch.allclose(large["landmarks"], 2 * small["landmarks"], atol=1e-3)
        assert torch.equal(small["visible"], large["visible"])
        assert (torch.nn.functional.avg_pool2d(large["image"], 2) - small["image"]).abs().mean() < 0.02
        covered = torch.nn.functional.avg_pool2d(large["mask"][None].float(), 2)[0] > 0.5
        assert (covered ^ small["mask"]).float().mean() < 0.02


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="faces-posed"):
        procedural.load("cows")
    with pytest.raises(InputError, match="16"):
        procedural.load("faces", size=15)
    with pytest.raises(InputError, match="split"):
        procedural.load("faces", "training")
    with pytest.raises(InputError, match="length"):
        procedural.load("faces", length=0)


def test_fingerprint_tells_contents_apart() -> None:
    loads = [("faces", "train", 64), ("faces", "val", 64), ("faces", "train", 32), ("faces-wild", "train", 64)]
    prints = {procedural.load(*args).fingerprint for args in loads}
    prints.add(procedural.load("faces", "train", 64, length=9).fingerprint)
    assert len(prints) == 5
    assert procedural.load(*loads[0]).fingerprint in prints


def test_flip_pairs_mirror_a_symmetric_face() -> None:
    pairs = faces.FLIP_PAIRS
    assert len(pairs) == 29
    order = np.arange(68)
    for a, b in pairs:
        order[a], order[b] = b, a
    points = faces.pose_face(plain(), Pose()).landmarks
    assert np.abs(points[order] * [-1, 1, 1] - points).max() < 1e-6


def test_all_points_are_visible_from_the_front() -> None:
    sample = faces.draw_face(plain(smile=0.4, gap=8.0), Pose(), 64)
    assert sample["visible"].all()


@pytest.mark.parametrize("side", [-1, 1])
def test_a_profile_hides_the_far_side(side: int) -> None:
    visible = faces.draw_face(plain(), Pose(yaw=80.0 * side), 64)["visible"].numpy()
    left, right = np.r_[0:6, 17:20, 36:40], np.r_[11:17, 24:27, 42:46]
    near, far = (left, right) if side > 0 else (right, left)
    assert visible[near].mean() > 0.85
    assert visible[far].mean() < 0.25
    assert visible[[8, 27, 29, 30, 33]].all()


def test_positive_yaw_turns_to_the_right_of_the_image() -> None:
    for yaw in (-60.0, 60.0):
        points = faces.draw_face(plain(), Pose(yaw=yaw), 64)["landmarks"]
        assert torch.sign(points[30, 0] - points[[0, 16], 0].mean()) == np.sign(yaw)
    up = faces.draw_face(plain(), Pose(pitch=20.0), 64)["landmarks"]
    level = faces.draw_face(plain(), Pose(), 64)["landmarks"]
    assert up[30, 1] < level[30, 1]
    rolled = faces.draw_face(plain(), Pose(roll=15.0), 64)["landmarks"]
    assert rolled[45, 1] > rolled[36, 1]


@pytest.mark.parametrize("scene", SCENES)
def test_the_mask_holds_the_visible_points(scene: str) -> None:
    data = procedural.load(scene, "test", 64)
    inside = []
    for item in (data[i] for i in range(4)):
        x, y = item["landmarks"][item["visible"]].long().T
        inside.append(item["mask"][y, x].float().mean())
    assert np.mean(inside) > 0.9


@pytest.mark.parametrize("yaw", [0.0, 30.0, -50.0])
def test_eye_points_frame_the_eye(yaw: float) -> None:
    sample = faces.draw_face(plain(eye_left=1.2, eye_right=1.2), Pose(yaw=yaw), 256, CLOSE_UP)
    points = sample["landmarks"].numpy()
    eye = points[36:42] if yaw >= 0 else points[42:48]
    # The pupil is in the middle and dark; half-way to either corner there is white; below the lid there is skin.
    centre, corners = eye.mean(0), (eye[0], eye[3])
    pupil = min(grey(sample, centre[0] + i, centre[1] + j) for i in (-2, -1, 0, 1, 2) for j in (-2, -1, 0, 1, 2))
    whites = max(grey(sample, *(centre + 0.62 * (corner - centre))) for corner in corners)
    assert pupil < 0.3
    assert whites > pupil + 0.25


@pytest.mark.parametrize("yaw", [0.0, 35.0])
def test_brow_mouth_and_nose_points_lie_on_theirs(yaw: float) -> None:
    closed = faces.draw_face(plain(), Pose(yaw=yaw), 256, CLOSE_UP)
    points = closed["landmarks"].numpy()
    for x, y in points[18:21]:
        assert grey(closed, x, y) < grey(closed, x, y - 9) - 0.1
    opened = faces.draw_face(plain(gap=16.0), Pose(yaw=yaw), 256, CLOSE_UP)
    inner = opened["landmarks"].numpy()[[62, 66]]
    hole = grey(opened, *inner.mean(0))
    assert hole < grey(opened, *(inner[1] + [0, 5])) - 0.08
    assert hole < 0.35
    # The lip is redder than the skin below it.
    image, (x, y) = closed["image"], points[57].astype(int)
    redness = image[0] / image[1]
    assert redness[y - 4, x] > redness[y + 6, x] * 1.1


def test_points_lie_on_the_drawn_surface() -> None:
    face = replace(plain(smile=0.6, gap=6.0), shape=replace(Shape(), nose_width=20.0, jaw=1.1, lower=1.05))
    posed = faces.pose_face(face, Pose())
    head = posed.points[0].reshape(-1, 3)
    distance = np.sqrt(((posed.landmarks[:, None] - head[None]) ** 2).sum(-1)).min(1)
    # Vertices are about two millimetres apart in the face and seven at the ears, so a point on it has one near.
    assert np.delete(distance, [0, 1, 15, 16]).max() < 2.6
    assert distance.max() < 6


def test_splits_have_honest_variety() -> None:
    data = procedural.load("faces", "test", 16)
    points = torch.stack([data[i]["landmarks"] for i in range(40)])
    error = (points - points.mean(0)).norm(dim=-1).mean(1) / (points[:, 36] - points[:, 45]).norm(dim=-1)
    assert 0.11 < error.mean() < 0.21


def test_rasteriser_fills_without_gaps_and_interpolates() -> None:
    rows, columns = np.meshgrid(np.linspace(11.3, 1.2, 6), np.linspace(0.7, 13.9, 7), indexing="ij")
    xy = np.stack([columns, rows], -1).reshape(-1, 2)
    found = rendering.rasterise(xy, xy[:, 0] * 2.0, rendering.grid_faces(6, 7), (12, 15))
    x, y = found.pixel % 15 + 0.5, found.pixel // 15 + 0.5
    expected = sum(0.7 < i + 0.5 < 13.9 and 1.2 < j + 0.5 < 11.3 for i in range(15) for j in range(12))
    assert len(found.pixel) == expected
    corners = xy[rendering.grid_faces(6, 7)[found.face]]
    assert np.abs((corners * found.weights[..., None]).sum(1) - np.stack([x, y], 1)).max() < 1e-3
    assert np.abs(found.depth - 2 * x).max() < 1e-2


def test_rasteriser_keeps_the_nearest_and_culls_backs() -> None:
    xy = np.array([[0, 8], [8, 8], [0, 0], [8, 0]], float)
    square = rendering.grid_faces(2, 2)
    both = np.concatenate([xy, xy])
    depth = np.repeat([1.0, 2.0], 4)
    found = rendering.rasterise(both, depth, np.concatenate([square, square + 4]), (8, 8))
    assert len(found.pixel) == 64
    assert (found.face >= 2).all()
    assert len(rendering.rasterise(xy[:, ::-1], depth[:4], square, (8, 8)).pixel) == 0


def test_wild_heads_are_anywhere_but_not_small():
    data = procedural.load("faces-wild", "train", 32)
    marks = torch.stack([data[i]["landmarks"] for i in range(40)]) / 32
    low, high = marks.amin(1), marks.amax(1)
    shares = ((high - low) * torch.tensor([1.1, 1.35])).prod(-1)
    assert shares.min() >= 0.3
    # Several sizes, and centres all over the picture.
    assert shares.max() > 1.3 * shares.min()
    assert (((low + high) / 2).std(0) > 0.08).all()
