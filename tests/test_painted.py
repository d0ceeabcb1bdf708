"""Painted faces and birds: the colours that captions name are in the picture, at the parts that they name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ulm.datasets import painted, procedural
from ulm.diffusion import captions as c

SCENES = ("painted-faces", "painted-birds")
EYES = {"left eye": slice(36, 42), "right eye": slice(42, 48)}


def name_of(colour) -> str:
    return c.colour_name(colour, tuple(painted.PAINTS.items()))


@pytest.mark.parametrize("scene", SCENES)
def test_items_keep_the_contract_and_repeat(scene):
    data = procedural.load(scene, "test", 48)
    for i in range(4):
        item, again = data[i], data[i]
        assert item["image"].shape == (3, 48, 48)
        assert item["image"].dtype == torch.float32
        assert 0 <= item["image"].min() < item["image"].max() <= 1
        assert item["landmarks"].shape == (len(data.info.landmark_names), 2)
        assert item["visible"].dtype == item["mask"].dtype == torch.bool
        assert item["landmarks"].min() >= 0
        assert item["landmarks"].max() <= 48
        assert 0.03 < item["mask"].float().mean() < 0.9
        assert all(torch.equal(v, again[k]) for k, v in item.items() if isinstance(v, torch.Tensor))


@pytest.mark.parametrize("scene", SCENES)
def test_size_changes_the_resolution_alone(scene):
    small, large = procedural.load(scene, "train", 32), procedural.load(scene, "train", 96)
    for i in range(6):
        one, other = small[i], large[i]
        assert torch.allclose(3 * one["landmarks"], other["landmarks"], atol=1e-3)
        assert torch.equal(one["visible"], other["visible"])
        shrunk = torch.nn.functional.avg_pool2d(other["image"], 3)
        assert (shrunk - one["image"]).abs().mean() < 0.04


@pytest.mark.parametrize("scene", SCENES)
def test_captions_are_short_and_of_known_words(scene):
    for i in range(150):
        tokens = c.words(c.caption(scene, "train", i))
        assert len(tokens) <= c.MOST_WORDS
        assert set(tokens) <= set(c.VOCABULARY)


def test_face_parts_have_the_colours_that_the_caption_names():
    data = procedural.load("painted-faces", "train", 128)
    for i in range(25):
        item, text = data[i], c.caption("painted-faces", "train", i)
        marks = item["landmarks"].numpy()
        places = {part: marks[at].mean(0) for part, at in EYES.items()}
        places |= {"mouth": marks[[51, 57]].mean(0), "nose": marks[[30, 33]].mean(0)}
        for part, (x, y) in places.items():
            assert f", {name_of(item['image'][:, int(y), int(x)])} {part}," in text


def test_every_part_of_a_face_that_is_named_is_drawn():
    data = procedural.load("painted-faces", "train", 96)
    for i in range(30):
        face = painted.sample_painted_face(procedural.generator("painted-faces", "train", i))
        image = data[i]["image"].numpy().reshape(3, -1).T
        for part, colour in face.colours.items():
            assert (np.abs(image - colour).max(1) < 0.004).sum() >= 3, (i, part)


def test_wings_and_background_of_birds_are_drawn():
    data = procedural.load("painted-birds", "train", 64)
    for i in range(12):
        bird = painted.sample_painted_bird(procedural.generator("painted-birds", "train", i))
        seen = {name_of(p) for p in data[i]["image"].numpy().reshape(3, -1).T[::3]}
        assert {bird.names[part] for part in ("wings", "background") if part in bird.names} <= seen


def test_left_and_right_are_coloured_by_themselves():
    names = [painted.sample_painted_face(np.random.default_rng(i)).names for i in range(300)]
    for part in ("eye", "brow"):
        same = np.mean([n[f"left {part}"] == n[f"right {part}"] for n in names])
        assert 0.03 < same < 0.2
    assert 0.6 < np.mean(["background" in n for n in names]) < 0.8
    assert all(n["skin"] != n[part] for n in names for part in n if part != "skin")


def test_the_far_ear_is_not_named():
    for i in range(60):
        face = painted.sample_painted_face(np.random.default_rng(i))
        assert ("left ear" in face.names) == (face.pose.yaw >= -12)
        assert ("right ear" in face.names) == (face.pose.yaw <= 12)


@pytest.mark.parametrize("parts", [painted.FACE_PARTS, painted.BIRD_PARTS])
def test_neighbours_differ_and_colours_keep_their_names(parts):
    rng = np.random.default_rng(3)
    for _ in range(40):
        names = painted._paint(rng, parts)
        assert all(names[part] != names[other] for part, others in parts.items() for other in others)
        for part, colour in painted._mixed(rng, names).items():
            assert c.colour_name(colour) == name_of(colour) == names[part]


def test_bird_captions_name_the_zones_of_the_bird():
    for i in range(20):
        bird = painted.sample_painted_bird(procedural.generator("painted-birds", "train", i))
        text = c.caption("painted-birds", "train", i)
        assert (
            f"a painted bird, {name_of(bird.bird.zones['head'])} head, {name_of(bird.bird.zones['cap'])} crown" in text
        )
        assert bird.bird.place != "water"
        assert ("legs" in text) == (bird.bird.place != "flight")
    kinds = {painted.sample_painted_bird(np.random.default_rng(i)).bird.kind.name for i in range(60)}
    assert len(kinds) > 8


def test_parts_are_painted_in_an_order_that_knows_its_neighbours():
    for parts in (painted.FACE_PARTS, painted.BIRD_PARTS):
        order = list(parts)
        assert all(order.index(other) < order.index(part) for part, others in parts.items() for other in others)
