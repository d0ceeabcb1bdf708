"""The scene of cats: determinism, sizes, annotation, variety, and that landmarks lie on what they name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ulm.datasets import cats, rendering, shapes
from ulm.datasets.cats import Cat, CatScene, Coat, Mood, Shape
from ulm.evaluation import NORMALISERS, normalising_lengths

SCENE = CatScene("cats")
LEFT_RIGHT = np.array([1, 0, 2, 8, 7, 6, 5, 4, 3])


def sample(index: int, size: int = 64) -> dict:
    return SCENE.draw(np.random.default_rng(index), size)


def test_the_sample_keeps_the_contract() -> None:
    item = sample(1, 48)
    assert item["image"].shape == (3, 48, 48)
    assert item["image"].dtype == torch.float32
    assert 0 <= item["image"].min() < item["image"].max() <= 1
    assert item["landmarks"].shape == (9, 2)
    assert item["landmarks"].dtype == torch.float32
    assert item["visible"].dtype == torch.bool
    assert item["mask"].dtype == torch.bool
    assert item["mask"].shape == (48, 48)
    assert item["box"].shape == (4,)
    assert isinstance(item["yaw"], float)
    assert "parts" not in item


def test_the_same_generator_gives_the_same_cat() -> None:
    first, again, other = sample(3), sample(3), sample(4)
    assert torch.equal(first["image"], again["image"])
    assert torch.equal(first["landmarks"], again["landmarks"])
    assert not torch.equal(first["image"], other["image"])


@pytest.mark.parametrize("index", [0, 5, 8, 12])
def test_size_changes_the_resolution_only(index: int) -> None:
    small, large = sample(index, 48), sample(index, 96)
    assert torch.allclose(large["landmarks"], 2 * small["landmarks"], atol=1e-3)
    assert torch.equal(small["visible"], large["visible"])
    assert torch.allclose(large["box"], 2 * small["box"], atol=1e-3)
    assert (torch.nn.functional.avg_pool2d(large["image"], 2) - small["image"]).abs().mean() < 0.03


def test_visible_landmarks_lie_on_the_cat() -> None:
    for index in range(12):
        item = sample(index)
        near = torch.nn.functional.max_pool2d(item["mask"][None].float(), 7, 1, 3)[0] > 0
        x, y = item["landmarks"][item["visible"]].long().T
        assert near[y, x].all()
        low, high = item["box"][:2] - 0.01, item["box"][2:] + 0.01
        points = item["landmarks"][item["visible"]]
        assert ((points >= low) & (points <= high)).all()


def test_places_vary() -> None:
    points = np.stack([sample(i, 16)["landmarks"].numpy() / 16 for i in range(40)])
    error = np.linalg.norm(points - points.mean(0), axis=-1).mean()
    assert error > 0.09
    assert points.std(0).min() > 0.04


def test_info_follows_the_protocol() -> None:
    info = SCENE.info
    assert info.normaliser in NORMALISERS
    assert info.landmark_names[:3] == ("left-eye", "right-eye", "mouth")
    seven = [group[0] for group in dict(info.subsets)["cat-7"]]
    assert [info.landmark_names[i] for i in range(9) if i not in seven] == ["left-ear-2", "right-ear-2"]
    for a, b in info.flip_pairs:
        assert info.landmark_names[a].startswith("left")
        assert info.landmark_names[b].startswith("right")
    points = sample(2)["landmarks"].numpy()
    apart = normalising_lengths(points[None], info, 64)
    assert apart[0] == pytest.approx(np.linalg.norm(points[0] - points[1]))


def test_flip_pairs_mirror_a_cat_that_looks_ahead() -> None:
    order = np.arange(9)
    for a, b in cats.FLIP_PAIRS:
        order[a], order[b] = b, a
    assert (order == LEFT_RIGHT).all()
    _, points = cats.build_cat(Cat(), np.array([0, 0, 1.0]))
    assert np.abs(points[order] * [-1, 1, 1] - points).max() < 1e-6


def test_ears_are_numbered_from_left_to_right() -> None:
    points = cats.draw_cat(Cat(), 128)["landmarks"].numpy()
    x, y = points.T
    assert x[0] < x[2] < x[1]
    assert x[3] < x[5] < x[6] < x[8]
    assert y[4] < y[[3, 5]].min()
    assert y[7] < y[[6, 8]].min()
    assert y[2] > y[[0, 1]].max()


def test_positive_yaw_turns_to_the_right_and_positive_pitch_up() -> None:
    for yaw in (-35.0, 35.0):
        item = cats.draw_cat(Cat(turn=(yaw, 0, 0)), 128)
        mouth, eyes = item["landmarks"][2], item["landmarks"][:2].mean(0)
        assert np.sign(float(mouth[0] - eyes[0])) == np.sign(yaw)
        assert item["yaw"] == yaw
    up, level = (cats.draw_cat(Cat(turn=(0, pitch, 0)), 128)["landmarks"] for pitch in (18.0, 0.0))
    assert up[2, 1] < level[2, 1]


def test_the_eye_landmarks_lie_on_the_pupils() -> None:
    bright = Coat(iris=np.array([0.9, 0.8, 0.2]), base=np.array([0.6, 0.6, 0.6]))
    camera = rendering.Camera(0.36, (0.5, 0.56), 9.0)
    for yaw in (-25.0, 0.0, 25.0):
        item = cats.draw_cat(Cat(coat=bright, mood=Mood(pupil=0.6), turn=(yaw, 0, 0)), 192, camera)
        for x, y in item["landmarks"][:2].long().tolist():
            pupil = item["image"][:, y - 1 : y + 2, x - 1 : x + 2].mean()
            around = item["image"][:, y - 9 : y + 10, x - 9 : x + 10].mean()
            assert pupil < 0.6 * around


def test_an_open_mouth_is_red_below_its_landmark() -> None:
    camera = rendering.Camera(0.36, (0.5, 0.56), 9.0)
    redness = []
    for opened in (0.0, 1.0):
        item = cats.draw_cat(Cat(mood=Mood(mouth=opened)), 192, camera)
        x, y = item["landmarks"][2].long().tolist()
        patch = item["image"][:, y + 4 : y + 12, x - 3 : x + 4].mean((1, 2))
        redness.append(float(patch[0] - patch[1]))
    assert redness[1] > redness[0] + 0.1


def test_folded_ears_bring_their_tips_down() -> None:
    plain = cats.draw_cat(Cat(), 64)["landmarks"]
    folded = cats.draw_cat(Cat(shape=replace(Shape(), fold=125.0)), 64)["landmarks"]
    assert (folded[[4, 7], 1] > plain[[4, 7], 1] + 4).all()
    assert torch.allclose(folded[[0, 1, 2, 3, 8]], plain[[0, 1, 2, 3, 8]])


def test_something_in_front_hides_landmarks_and_leaves_the_mask() -> None:
    # A wall before the image's right half of the head.
    cat, light = Cat(), shapes.Light(shadows=False)
    surfaces, points = cats.build_cat(cat, light.direction)
    wall = shapes.ellipsoid((1.2, 0, 1.6), (1.0, 2.5, 0.2))
    surfaces.append(shapes.Surface(wall, (0.1, 0.2, 0.8), part=cats.OCCLUDER, wrap=True))
    camera, grey = rendering.Camera(0.3, (0.5, 0.56), 12.0), np.full((64, 64, 3), 0.4, np.float32)
    item = cats._finish(cat, surfaces, points, camera, light, grey)
    assert item["visible"][[0, 3, 4]].all()
    assert not item["visible"][[1, 7, 8]].any()
    x, y = item["landmarks"][1].long().tolist()
    assert not item["mask"][y, x]


@pytest.mark.parametrize("pattern", ["solid", "tabby", "tuxedo", "calico", "points", "patched"])
def test_every_pattern_draws(pattern: str) -> None:
    image = cats.draw_cat(Cat(coat=Coat(pattern=pattern)), 32)["image"]
    assert torch.isfinite(image).all()
    assert image.std() > 0.05
