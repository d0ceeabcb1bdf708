"""Procedural birds: determinism, sizes, annotation, variety, and the protocol scenes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from ulm.datasets import birds
from ulm.datasets.birds import FLIP_PAIRS, KINDS, LANDMARK_NAMES, SCENES, SUBSETS, BirdScene
from ulm.datasets.procedural import generator


def draw(scene: str, index: int, size: int = 64) -> dict:
    return BirdScene(scene).draw(generator(scene, "test", index), size)


def standing(kind: str, **changes: object) -> birds.Bird:
    """A bird of a species that looks straight ahead."""
    chosen = next(k for k in KINDS if k.name == kind)
    rng = np.random.default_rng(0)
    zones, noise = birds._resolve(chosen.palettes[0], rng), np.zeros((32, 32), np.float32)
    return birds.Bird(chosen, zones, noise, sections=birds._sections(chosen, 30.0, 0.0), **changes)


@pytest.mark.parametrize("scene", SCENES)
def test_item_keeps_the_contract(scene: str) -> None:
    item, again = draw(scene, 1, 48), draw(scene, 1, 48)
    assert item["image"].shape == (3, 48, 48)
    assert item["image"].dtype == torch.float32
    assert 0 <= item["image"].min() < item["image"].max() <= 1
    assert item["landmarks"].shape == (15, 2)
    assert item["landmarks"].dtype == torch.float32
    assert torch.isfinite(item["landmarks"]).all()
    assert item["visible"].shape == (15,)
    assert item["visible"].dtype == torch.bool
    assert item["mask"].shape == (48, 48)
    assert item["mask"].dtype == torch.bool
    assert item["mask"].any()
    assert item["box"].shape == (4,)
    assert -180 <= item["yaw"] < 180
    assert item["species"] in {kind.name for kind in KINDS}
    for key, value in item.items():
        assert torch.equal(value, again[key]) if isinstance(value, torch.Tensor) else value == again[key]


def test_the_names_are_those_of_cub() -> None:
    info = BirdScene("birds").info
    assert info.landmark_names == LANDMARK_NAMES
    assert tuple(sorted(LANDMARK_NAMES)) == LANDMARK_NAMES
    assert len(LANDMARK_NAMES) == 15
    assert info.normaliser == "image"
    assert info.name == "procedural:birds"
    for left, right in FLIP_PAIRS:
        assert LANDMARK_NAMES[left].replace("left", "right") == LANDMARK_NAMES[right]
    assert len({kind.name for kind in KINDS}) == len(KINDS) >= 15


@pytest.mark.parametrize("index", range(6))
def test_size_changes_the_resolution_only(index: int) -> None:
    small, large = draw("birds", index, 48), draw("birds", index, 96)
    assert torch.allclose(large["landmarks"], 2 * small["landmarks"], atol=1e-3)
    assert torch.equal(small["visible"], large["visible"])
    assert (torch.nn.functional.avg_pool2d(large["image"], 2) - small["image"]).abs().mean() < 0.03
    covered = torch.nn.functional.avg_pool2d(large["mask"][None].float(), 2)[0] > 0.5
    assert (covered ^ small["mask"]).float().mean() < 0.03


@pytest.mark.parametrize("scene", ["birds", "birds-aligned", "birds-002"])
def test_visible_parts_lie_on_the_bird(scene: str) -> None:
    inside = []
    for index in range(10):
        item = draw(scene, index)
        wide = torch.nn.functional.max_pool2d(item["mask"][None].float(), 5, 1, 2)[0]
        places = item["landmarks"][item["visible"]].long()
        inside += wide[places[:, 1], places[:, 0]].tolist()
    # Beaks of hummingbirds and wings seen along their plane are thinner than half a pixel here.
    assert np.mean(inside) > 0.96


@pytest.mark.parametrize("kind", ["sparrow", "heron", "owl", "swallow"])
@pytest.mark.parametrize("place", ["branch", "flight"])
def test_flip_pairs_mirror_a_bird_that_looks_ahead(kind: str, place: str) -> None:
    order = np.arange(15)
    for a, b in FLIP_PAIRS:
        order[a], order[b] = b, a
    points = birds.landmarks(standing(kind, place=place))
    assert np.abs(points[order] * [-1, 1, 1] - points).max() < 1e-9
    left = [LANDMARK_NAMES.index(f"left {part}") for part in ("eye", "leg", "wing")]
    assert (points[left, 0] > 0).all()


def test_a_side_view_hides_the_far_eye_and_wing() -> None:
    seen = torch.stack([draw("birds-aligned", index)["visible"] for index in range(12)]).float().mean(0)
    near, far = ([LANDMARK_NAMES.index(f"{side} {part}") for part in ("eye", "wing")] for side in ("left", "right"))
    assert (seen[near] > 0.85).all()
    assert (seen[far] < 0.15).all()


def test_swimming_hides_the_legs_only() -> None:
    items = [draw("birds-001", index) for index in range(24)]
    swimming = [i for i in items if not i["visible"][[7, 11]].any() and i["visible"][[1, 4]].all()]
    assert len(swimming) >= 4


def test_aligned_birds_face_left_and_others_every_way() -> None:
    aligned = [draw("birds-aligned", index, 32) for index in range(8)]
    assert all(-111 < item["yaw"] < -69 for item in aligned)
    beak, tail = LANDMARK_NAMES.index("beak"), LANDMARK_NAMES.index("tail")
    assert all(item["landmarks"][beak, 0] < item["landmarks"][tail, 0] for item in aligned)
    yaws = np.array([draw("birds", index, 16)["yaw"] for index in range(24)])
    assert (yaws > 45).mean() > 0.2
    assert (yaws < -45).mean() > 0.2


@pytest.mark.parametrize("scene", sorted(SUBSETS))
def test_a_subset_is_one_species(scene: str) -> None:
    assert {draw(scene, index, 32)["species"] for index in range(4)} == {SUBSETS[scene]}


def test_scenes_hold_many_species() -> None:
    scene = BirdScene("birds")
    counts = Counter(scene._kind(generator("birds", "test", index)).name for index in range(300))
    assert set(counts) == {kind.name for kind in KINDS}
    assert min(counts[kind.name] for kind in KINDS if kind.name not in SUBSETS.values()) >= 6


@pytest.mark.parametrize(("scene", "bound"), [("birds", 13.0), ("birds-aligned", 7.0), ("birds-003", 13.0)])
def test_mean_shape_is_a_poor_guess(scene: str, bound: float) -> None:
    places = torch.stack([draw(scene, index, 16)["landmarks"] / 16 for index in range(24)])
    assert 100 * (places - places.mean(0)).norm(dim=-1).mean() > bound
