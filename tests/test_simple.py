"""Simple pictures: few flat parts whose colours the captions name, at places that the landmarks say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ulm.datasets import painted, procedural, simple
from ulm.diffusion import captions as c

SCENES = tuple(simple.SUBJECTS)


def name_of(colour) -> str:
    return c.colour_name(colour, tuple(painted.PAINTS.items()))


@pytest.mark.parametrize("scene", SCENES)
def test_items_keep_the_contract_and_repeat(scene):
    data = procedural.load(scene, "test", 48)
    assert data.info.name == f"procedural:{scene}"
    for i in range(5):
        item, again = data[i], data[i]
        assert item["image"].shape == (3, 48, 48)
        assert item["image"].dtype == torch.float32
        assert 0 <= item["image"].min() < item["image"].max() <= 1
        assert item["landmarks"].shape == (len(data.info.landmark_names), 2)
        assert (item["landmarks"] > 0).all()
        assert (item["landmarks"] < 48).all()
        assert item["visible"].dtype == item["mask"].dtype == torch.bool
        assert 0.02 < item["mask"].float().mean() < 0.8
        assert all(torch.equal(v, again[k]) for k, v in item.items() if isinstance(v, torch.Tensor))


@pytest.mark.parametrize("scene", SCENES)
def test_size_changes_the_resolution_alone(scene):
    small, large = procedural.load(scene, "train", 32), procedural.load(scene, "train", 96)
    for i in range(4):
        one, other = small[i], large[i]
        assert torch.allclose(3 * one["landmarks"], other["landmarks"], atol=1e-3)
        shrunk = torch.nn.functional.avg_pool2d(other["image"], 3)
        assert (shrunk - one["image"]).abs().mean() < 0.02


@pytest.mark.parametrize("scene", SCENES)
def test_captions_name_all_colours_which_differ(scene):
    for i in range(100):
        tokens = c.words(text := c.caption(scene, "train", i))
        assert len(tokens) <= c.MOST_WORDS
        assert set(tokens) <= set(c.VOCABULARY)
        what, *parts, looking = text.split(", ")
        assert what == f"a {scene.replace('-', ' ').removesuffix('s')}"
        assert looking in ("looking left", "looking right", "looking ahead")
        colours = [part.split(" ", 1)[0] for part in parts]
        assert len(set(colours)) == len(colours) == 7


@pytest.mark.parametrize(
    ("scene", "parts"),
    [("simple-faces", {"left eye": 0, "right eye": 1, "mouth": 3}), ("simple-birds", {"eye": 1, "wing": 6})],
)
def test_parts_have_the_colours_that_captions_say(scene, parts):
    data = procedural.load(scene, "train", 128)
    for i in range(30):
        item, text = data[i], c.caption(scene, "train", i)
        for part, mark in parts.items():
            x, y = item["landmarks"][mark].long().tolist()
            assert f"{name_of(item['image'][:, y, x].numpy())} {part}" in text
        assert f"{name_of(item['image'][:, 0, 0].numpy())} background" in text


def test_left_is_left_of_right_and_birds_look_where_their_beak_is():
    faces, birds = (procedural.load(scene, "train", 64) for scene in SCENES)
    assert faces.info.flip_pairs == ((0, 1), (6, 7))
    for i in range(40):
        left, right = faces[i]["landmarks"][:2]
        assert left[0] < right[0]
        beak, *_, tail = birds[i]["landmarks"]
        assert c.caption("simple-birds", "train", i).endswith("right" if beak[0] > tail[0] else "left")


def test_subjects_have_any_place_and_size():
    for scene in SCENES:
        marks = torch.stack([procedural.load(scene, "train", 32)[i]["landmarks"] for i in range(200)]) / 32
        sides = (marks.amax(1) - marks.amin(1)).amax(1)
        assert np.ptp(sides) > 0.3
        assert marks.mean(1).std(0).min() > 0.05
