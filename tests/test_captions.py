"""Captions say what is in the picture, in a closed vocabulary."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ulm import datasets
from ulm.datasets import birds, procedural
from ulm.datasets.base import Subset
from ulm.diffusion import captions as c
from ulm.errors import InputError

SIDES = {"left": -1, "right": 1}


def items(scene: str, n: int, size: int = 16, split: str = "test"):
    data = procedural.load(scene, split, size)
    return [(data[i], c.caption(scene, split, i)) for i in range(n)]


@pytest.mark.parametrize("scene", procedural.SCENES)
def test_every_scene_is_described_in_few_known_words(scene):
    texts = [c.caption(scene, "train", 7 * i) for i in range(12)]
    assert texts == [c.caption(scene, "train", 7 * i) for i in range(12)]
    assert len(set(texts)) > 3
    for text in texts:
        tokens = c.words(text)
        assert set(tokens) <= set(c.VOCABULARY)
        assert 5 <= len(tokens) <= c.MOST_WORDS
        assert "  " not in text
        assert text == text.strip()


@pytest.mark.parametrize("scene", ["faces-posed", "cats"])
def test_heads_look_where_the_caption_says(scene):
    seen = 0
    for item, text in items(scene, 12):
        side = [s for s in SIDES if s in text.split(", looking ")[1].split()]
        assert len(side) == (abs(item["yaw"]) > 10)
        for s in side:
            seen += 1
            assert np.sign(item["yaw"]) == SIDES[s]
    assert seen > 3


@pytest.mark.parametrize("scene", ["birds", "exercise", "people"])
def test_bodies_face_where_the_caption_says(scene):
    for item, text in items(scene, 8):
        yaw = item["yaw"]
        if "seen from the front" in text:
            assert abs(yaw) < 30
        elif "seen from behind" in text:
            assert abs(yaw) > 145
        else:
            assert np.sign(yaw) == SIDES[text.split("facing ")[1].split(",")[0]]


@pytest.mark.parametrize("scene", ["people", "birds", "fashion"])
def test_what_is_seen_from_behind_has_no_front(scene):
    texts = [c.caption(scene, "train", 5 * i) for i in range(90)]
    behind = [t for t in texts if "from behind" in t]
    assert len(behind) > 2
    assert not any(word in t for t in behind for word in ("beard", "glasses", "belly", "throat"))


def test_talking_faces_follow_the_frame():
    for item, text in items("talking-faces", 4):
        if abs(item["yaw"]) > 10:
            assert f"looking {'right' if item['yaw'] > 0 else 'left'}" in text


def test_birds_are_of_their_species_and_colour():
    for item, text in items("birds", 12):
        assert f" {item['species']} with" in text
        assert "crown" in text
        assert "wings" in text
    assert all("dark albatross" in text for _, text in items("birds-001", 2))


def test_numbers_and_toys():
    for item, text in items("house-numbers", 4):
        assert text.startswith(f"the house number {item['number']} with")
    for item, text in items("house-digits", 4):
        assert text.startswith(f"the digit {item['digit']} with")
    categories = ("animal", "human", "airplane", "truck", "car")
    for item, text in items("toys", 6):
        assert text.startswith(f"a grey toy {categories[item['category']]}, ")
        assert item["azimuth"] != 0 or "facing ahead" in text


def test_colours_are_those_of_the_picture():
    # The brightness of cats' masks follows the named coat.
    shades = {"white": [], "black": []}
    for i in range(120):
        coat = c.caption("cats", "train", i).split(" cat", 1)[0].split()
        if len(coat) == 2 and coat[1] in shades and len(shades[coat[1]]) < 4:
            item = procedural.load("cats", "train", 24)[i]
            shades[coat[1]].append(float(item["image"][:, item["mask"]].mean()))
    assert min(shades["white"]) > np.mean(shades["black"])
    assert np.mean(shades["white"]) > 1.5 * np.mean(shades["black"])


def test_nearest_colour_by_perception():
    assert [c.colour_name(rgb) for rgb in ((1, 0, 0), (0, 0, 1), (0, 0, 0), (1, 1, 1), (1, 0.85, 0))] == [
        "red", "blue", "black", "white", "yellow",
    ]  # fmt: skip
    assert c.colour_name((0.5, 0.2, 0.09), c.HAIRS) == "red"
    # OKLab of white and of pure red, from its author's table.
    assert np.allclose(c.perceptual((1, 1, 1)), (1, 0, 0), atol=1e-3)
    assert np.allclose(c.perceptual((1, 0, 0)), (0.628, 0.225, 0.126), atol=1e-3)


def test_toy_names_fit_the_toys():
    from ulm.datasets import toys

    for name, lorry in zip(c._TOYS[3], toys._LORRIES, strict=True):
        assert name.split()[0].rstrip("s") == lorry.load.rstrip("s")
    named = dict(zip(c._TOYS[4], toys._AUTOS, strict=True))
    assert (named["racing car"].extra, named["jeep"].extra, named["roadster"].extra) == ("formula", "spare", "open")
    beasts = dict(zip(c._TOYS[0], toys._BEASTS, strict=True))
    assert beasts["elephant"].trunk
    assert beasts["camel"].humps == 2
    assert beasts["deer"].horns == "antlers"


def test_birds_zones_have_names_for_all_species():
    rng = np.random.default_rng(0)
    for kind in birds.KINDS:
        zones = birds.sample_bird(rng, kind).zones
        assert all(zones[z] is not None for z in ("cap", "bib", "breast", "belly", "wing", "tail", "beak", "leg"))


def test_captions_of_data_sets(tmp_path, monkeypatch):
    monkeypatch.setenv("ULM_CACHE", str(tmp_path / "cache"))
    data = procedural.load("house-digits", "test", 16, 6)
    texts = c.captions(data)
    assert texts == [c.caption("house-digits", "test", i) for i in range(6)]
    assert c.captions(data) == texts
    assert len(list((tmp_path / "cache" / "captions").glob("*.json"))) == 1
    assert c.captions(Subset(data, [4, 1])) == [texts[4], texts[1]]
    assert c.captions(datasets.cached(data, workers=0, progress=False)) == texts
    part = datasets.cached(Subset(data, [4, 1]), workers=0, progress=False)
    with pytest.raises(InputError, match="cached part"):
        c.captions(part)


def test_captions_beside_images(tmp_path):
    for name in ("a", "b"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "a.txt").write_text("My  red\ncat")
    data = datasets.load(f"folder:{tmp_path}", "all", 16)
    assert c.captions(data) == ["My red cat", ""]
    assert c.captions(datasets.cached(data, tmp_path / "cache", 0, False)) == ["My red cat", ""]
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(InputError, match="UTF-8"):
        c.captions(data)


def test_unlabelled_data_have_empty_captions():
    class Plain(datasets.Dataset):
        info, split, size = datasets.Info("plain"), "all", 8

        def __len__(self):
            return 2

        def __getitem__(self, index):
            return {"image": torch.zeros(3, 8, 8)}

    assert c.captions(Plain()) == ["", ""]


@pytest.mark.parametrize(("arguments", "word"), [(("cows", "test", 0), "scene"), (("cats", "all", 0), "split"),
                                                (("cats", "test", -1), "index")])  # fmt: skip
def test_errors(arguments, word):
    with pytest.raises(InputError, match=word):
        c.caption(*arguments)
