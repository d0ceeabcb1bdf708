"""Tinted pictures: the parts that captions name have the colours that they say, and all else is the scene below."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ulm.datasets import procedural, tinted
from ulm.diffusion import captions as c

SCENES = tuple(tinted.TINTINGS)


@pytest.mark.parametrize("scene", SCENES)
def test_items_keep_the_contract_and_repeat(scene):
    data = procedural.load(scene, "test", 48)
    base = procedural.load(tinted.TINTINGS[scene].base, "test", 48)
    assert data.info.landmark_names == base.info.landmark_names
    assert data.info.name == f"procedural:{scene}"
    for i in range(3):
        item, again = data[i], data[i]
        assert item["image"].shape == (3, 48, 48)
        assert item["image"].dtype == torch.float32
        assert 0 <= item["image"].min() < item["image"].max() <= 1
        assert item["landmarks"].shape == (len(data.info.landmark_names), 2)
        assert item["visible"].dtype == item["mask"].dtype == torch.bool
        assert all(torch.equal(v, again[k]) for k, v in item.items() if isinstance(v, torch.Tensor))


@pytest.mark.parametrize("scene", SCENES)
def test_size_changes_the_resolution_alone(scene):
    small, large = procedural.load(scene, "train", 32), procedural.load(scene, "train", 96)
    for i in range(4):
        one, other = small[i], large[i]
        assert torch.allclose(3 * one["landmarks"], other["landmarks"], atol=1e-3)
        shrunk = torch.nn.functional.avg_pool2d(other["image"], 3)
        assert (shrunk - one["image"]).abs().mean() < 0.06


@pytest.mark.parametrize("scene", SCENES)
def test_captions_name_what_is_tinted_in_words_of_the_vocabulary(scene):
    tinting = tinted.TINTINGS[scene]
    glazed, all_parts = 0, 0
    for i in range(100):
        text = c.caption(scene, "train", i)
        tokens = c.words(text)
        assert len(tokens) <= c.MOST_WORDS
        assert set(tokens) <= set(c.VOCABULARY)
        parts = [p.split(" ", 1)[1] for p in text.split(", ")[1:]]
        assert len(set(parts)) == len(parts)
        assert parts
        assert set(parts) <= set(tinting.names)
        assert parts != ["background"]
        all_parts += set(parts) | {"background"} == set(tinting.names)
        glazed += text.endswith("background")
    assert 2 < glazed < 25
    assert 35 < all_parts < 65


def hue(colour) -> np.ndarray:
    """Which way a colour is from grey of its own lightness."""
    colour = np.asarray(colour, float)
    return colour - colour.mean()


@pytest.mark.parametrize("scene", SCENES)
def test_parts_have_the_colours_that_the_caption_names(scene):
    data, tinting = procedural.load(scene, "train", 64), tinted.TINTINGS[scene]
    agree, seen = 0, 0
    for i in range(24):
        item = data[i]
        names = tinted.sample_tint(procedural.generator(scene, "train", i), scene)
        where = tinted.regions(item, tinting)
        for part, name in names.items():
            pixels = item["image"].permute(1, 2, 0).numpy()[where == tinting.names.index(part)]
            wanted = hue(tinted.PAINTS[name])
            if len(pixels) < 4 or np.linalg.norm(wanted) < 0.2:
                continue
            found = hue(pixels.mean(0))
            seen += 1
            agree += float(found @ wanted) > 0.7 * np.linalg.norm(found) * np.linalg.norm(wanted)
    assert seen > 20
    assert agree > 0.9 * seen


def test_left_and_right_are_those_of_the_image():
    data, tinting = procedural.load("tinted-faces", "train", 96), tinted.TINTINGS["tinted-faces"]
    for i in range(8):
        where = tinted.regions(data[i], tinting)
        columns = [np.nonzero(where == tinting.names.index(f"{side} eye"))[1] for side in ("left", "right")]
        if min(map(len, columns)):
            assert columns[0].mean() < columns[1].mean()


def test_hidden_parts_have_no_pixels_and_outside_is_background():
    item, tinting = procedural.load("tinted-birds", "train", 64)[0], tinted.TINTINGS["tinted-birds"]
    where = tinted.regions(item, tinting)
    assert (where[~item["mask"].numpy()] == len(tinting.names) - 1).all()
    hidden = {**item, "visible": item["visible"].clone()}
    hidden["visible"][list(tinting.parts["tail"])] = False
    assert not (tinted.regions(hidden, tinting) == tinting.names.index("tail")).any()


def test_windows_hold_the_subject_and_landmarks_move_with_the_picture():
    base = procedural.load("faces-wild", "train", 96)
    for i in range(6):
        item = base[i]
        cut = tinted.window(item, np.array([0.5, 0.3, 0.8]), 48)
        marks, before = cut["landmarks"].numpy(), item["landmarks"].numpy()
        inside = ((before > 0) & (before < 96)).all(1)
        assert ((marks[inside] > -0.01) & (marks[inside] < 48.01)).all()
        assert np.ptp(marks, 0).max() >= np.ptp(before, 0).max() / 2 - 1e-4
        # What is under a landmark stays under it.
        x, y = np.floor(marks[30]).astype(int).clip(1, 46)
        u, v = np.floor(before[30]).astype(int).clip(3, 92)
        near = item["image"][:, v - 3 : v + 4, u - 3 : u + 4].mean((1, 2))
        assert (cut["image"][:, y - 1 : y + 2, x - 1 : x + 2].mean((1, 2)) - near).abs().max() < 0.2
