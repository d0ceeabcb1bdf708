"""The scene of toys: the grid of views, the splits of smallNORB, and pictures that depend on the factors alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ulm.datasets import toys
from ulm.datasets.toys import ToyScene, draw_toy
from ulm.errors import InputError

SCENE = ToyScene("toys")
FACTORS = ("category", "instance", "elevation", "azimuth", "lighting")


def factors(item: dict) -> tuple[int, ...]:
    return tuple(item[name] for name in FACTORS)


def test_the_sample_keeps_the_contract() -> None:
    item = draw_toy(4, 6, 2, 5, 1, 48)
    assert item["image"].shape == (3, 48, 48)
    assert item["image"].dtype == torch.float32
    assert 0 <= item["image"].min() < item["image"].max() <= 1
    assert torch.equal(item["image"][0], item["image"][2])
    assert item["landmarks"].shape == (0, 2)
    assert item["visible"].shape == (0,)
    assert item["visible"].dtype == torch.bool
    assert item["mask"].any()
    assert item["box"].shape == (4,)
    assert factors(item) == (4, 6, 2, 5, 1)
    assert item["subject"] == "4-6"
    assert SCENE.info.landmark_names == ()


def test_pictures_depend_on_the_factors_alone() -> None:
    first = draw_toy(0, 3, 4, 7, 2, 32)
    draw_toy(1, 3, 4, 7, 2, 32)
    assert torch.equal(first["image"], draw_toy(0, 3, 4, 7, 2, 32)["image"])
    for other in ((1, 3, 4, 7, 2), (0, 4, 4, 7, 2), (0, 3, 5, 7, 2), (0, 3, 4, 8, 2), (0, 3, 4, 7, 3)):
        assert (draw_toy(*other, 32)["image"] - first["image"]).abs().mean() > 0.005


@pytest.mark.parametrize("category", range(5))
def test_size_changes_the_resolution_only(category: int) -> None:
    small, large = (draw_toy(category, 2, 3, 4, 0, size) for size in (48, 96))
    assert torch.allclose(large["box"], 2 * small["box"], atol=1e-3)
    assert (torch.nn.functional.avg_pool2d(large["image"], 2) - small["image"]).abs().mean() < 0.02


def test_every_toy_stands_whole_in_the_picture() -> None:
    for category in range(5):
        for instance in range(10):
            item = draw_toy(category, instance, 0, 2, 4, 32)
            low, high = item["box"][:2], item["box"][2:]
            assert (low > 0.2).all()
            assert (high < 31.8).all()
            assert ((low + high) / 2 - 16).abs().max() < 4
            assert 0.03 < item["mask"].float().mean() < 0.5


def test_toys_differ_from_each_other() -> None:
    pictures = torch.stack([draw_toy(c, i, 2, 3, 0, 24)["mask"].float().flatten() for c in range(5) for i in range(10)])
    apart = torch.cdist(pictures, pictures) + 99 * torch.eye(50)
    assert apart.min() > 2


def test_the_azimuth_turns_the_toy_to_the_right() -> None:
    # The boom of the crane, the brightest part of that truck, points ahead.
    column = torch.arange(64) + 0.5
    for azimuth, side in ((4, 1), (13, -1)):
        item = draw_toy(3, 9, 2, azimuth, 4, 64)
        boom = item["mask"] & (item["image"][0] > item["image"][0][item["mask"]].quantile(0.85))
        at = (boom.sum(0) * column).sum() / boom.sum()
        assert side * (at - 32) > 2


def test_shadows_fall_away_from_the_lamp() -> None:
    lit = {lighting: draw_toy(1, 6, 2, 0, lighting, 64) for lighting in (2, 3)}
    ground = ~(lit[2]["mask"] | lit[3]["mask"])
    difference = (lit[3]["image"][0] - lit[2]["image"][0]) * ground
    # Lamp 2 stands on the left, so its shadow is on the right; lamp 3 the other way round.
    assert difference[:, 40:56].max() > 0.1
    assert difference[:, 8:24].min() < -0.1


def test_the_splits_are_those_of_smallnorb() -> None:
    rows = {split: toys._order(split) for split in ("train", "val", "test")}
    assert {split: len(r) for split, r in rows.items()} == SCENE.counts
    assert SCENE.counts["train"] + SCENE.counts["val"] == SCENE.counts["test"] == 24_300
    assert set(rows["train"][:, 1]) == set(rows["val"][:, 1]) == {4, 6, 7, 8, 9}
    assert set(rows["test"][:, 1]) == {0, 1, 2, 3, 5}
    every = np.concatenate(list(rows.values()))
    assert len(np.unique(every, axis=0)) == 48_600
    assert (every.max(0) == [4, 9, 8, 17, 5]).all()
    assert (every.min(0) == 0).all()


def test_items_follow_the_order_of_their_split() -> None:
    for split in ("train", "val", "test"):
        item = SCENE.draw_item(split, 11, 16)
        assert factors(item) == tuple(toys._order(split)[11])
        assert torch.equal(item["image"], draw_toy(*factors(item), 16)["image"])


def test_draw_takes_everything_from_the_generator() -> None:
    first, again = (SCENE.draw(np.random.default_rng(5), 16) for _ in range(2))
    assert factors(first) == factors(again)
    assert torch.equal(first["image"], again["image"])
    assert len({factors(SCENE.draw(np.random.default_rng(i), 16)) for i in range(8)}) == 8


def test_bad_factors_are_named() -> None:
    with pytest.raises(InputError, match="azimuth 18"):
        draw_toy(0, 0, 0, 18, 0, 32)
    with pytest.raises(InputError, match="category -1"):
        draw_toy(-1, 0, 0, 0, 0, 32)
    with pytest.raises(InputError, match="split 'all'"):
        SCENE.draw_item("all", 0, 32)
    with pytest.raises(InputError, match="index 2300"):
        SCENE.draw_item("val", 2300, 32)
