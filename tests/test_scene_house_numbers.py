"""Procedural house numbers: determinism, sizes, pairs, and that digits are where the mask says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ulm.datasets.base import Dataset
from ulm.datasets.house_numbers import FACES, SCENES, HouseNumberScene, lay_out, outline, sample_number, sample_style
from ulm.datasets.procedural import generator


def draw(scene: str, index: int, size: int = 64) -> dict:
    made = HouseNumberScene(scene)
    return made.draw_frame(generator(scene, "test", index // made.frames), index % made.frames, size)


@pytest.mark.parametrize("scene", SCENES)
def test_item_keeps_the_contract(scene: str) -> None:
    item, again = draw(scene, 3, 48), draw(scene, 3, 48)
    assert item["image"].shape == (3, 48, 48)
    assert item["image"].dtype == torch.float32
    assert 0 <= item["image"].min() < item["image"].max() <= 1
    assert item["landmarks"].shape == (0, 2)
    assert item["visible"].shape == (0,)
    assert item["visible"].dtype == torch.bool
    assert item["mask"].shape == (48, 48)
    assert item["mask"].any()
    assert item["box"].shape == (4,)
    assert item["number"].isdigit()
    for key, value in item.items():
        assert torch.equal(value, again[key]) if isinstance(value, torch.Tensor) else value == again[key]


@pytest.mark.parametrize("scene", SCENES)
def test_items_stack(scene: str) -> None:
    class Few(Dataset):
        def __getitem__(self, index: int) -> dict:
            return draw(scene, index, 32)

    batch = Few().batch(range(4))
    assert batch["image"].shape == (4, 3, 32, 32)
    assert batch["landmarks"].shape == (4, 0, 2)
    assert batch["number"][0] == batch["number"][1]


def test_a_pair_of_house_numbers_shares_the_number_alone() -> None:
    for index in range(0, 12, 2):
        first, second = draw("house-numbers", index, 32), draw("house-numbers", index + 1, 32)
        assert first["number"] == second["number"]
        assert not torch.equal(first["image"], second["image"])
    assert len({draw("house-numbers", index, 16)["number"] for index in range(0, 40, 2)}) > 15


def test_a_pair_of_house_digits_shares_the_style_and_not_the_digit() -> None:
    far, near = [], []
    colours = []
    for index in range(0, 24, 2):
        first, second = draw("house-digits", index, 32), draw("house-digits", index + 1, 32)
        assert first["number"] == second["number"]
        assert first["digit"] != second["digit"]
        assert {first["digit"], second["digit"]} <= set(first["number"])
        colours.append([item["image"].mean((1, 2)) for item in (first, second)])
    for k, (first, second) in enumerate(colours):
        near.append((first - second).abs().mean())
        far.append((first - colours[k - 1][1]).abs().mean())
    assert np.mean(near) < 0.4 * np.mean(far)


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("index", range(4))
def test_size_changes_the_resolution_only(scene: str, index: int) -> None:
    small, large = draw(scene, index, 48), draw(scene, index, 96)
    assert small["number"] == large["number"]
    assert torch.allclose(large["box"], 2 * small["box"], atol=1e-2)
    assert (torch.nn.functional.avg_pool2d(large["image"], 2) - small["image"]).abs().mean() < 0.03
    covered = torch.nn.functional.avg_pool2d(large["mask"][None].float(), 2)[0] > 0.5
    assert (covered ^ small["mask"]).float().mean() < 0.04


def test_digits_lie_in_the_box_and_fill_it() -> None:
    for index in range(12):
        item = draw("house-numbers", index, 64)
        rows, columns = torch.nonzero(item["mask"], as_tuple=True)
        x0, y0, x1, y1 = item["box"].tolist()
        assert columns.min() > x0 - 3
        assert columns.max() < x1 + 3
        assert rows.min() > y0 - 3
        assert rows.max() < y1 + 3
        assert columns.max() - columns.min() > 0.75 * (x1 - x0) - 2


@pytest.mark.parametrize("face", FACES)
def test_outlines_have_the_holes_of_digits(face: str) -> None:
    holes = {digit: len(outline(face, digit)) - 1 for digit in "0123456789"}
    # Mono faces put a dot or a stroke inside the zero.
    assert all(holes[digit] == 0 for digit in "12357")
    assert holes["8"] == 2
    assert holes["6"] == holes["9"] == 1
    assert holes["0"] >= 1
    assert abs(np.ptp(outline(face, "0")[0][:, 1]) - 1) < 1e-6


def test_layouts_keep_digits_apart_and_in_order() -> None:
    style = sample_style(np.random.default_rng(1))
    for layout, axis in (("row", 0), ("stairs", 0), ("column", 1)):
        boxes = lay_out("2078", replace(style, layout=layout)).boxes
        assert (np.diff(boxes[:, axis]) > 0).all()
        assert (boxes[1:, axis] > boxes[:-1, axis + 2] - 0.15).all()


def test_numbers_have_one_to_four_digits() -> None:
    rng = np.random.default_rng(0)
    numbers = [sample_number(rng) for _ in range(300)]
    assert {len(n) for n in numbers} == {1, 2, 3, 4}
    assert not any(n.startswith("0") for n in numbers)
    assert all(len(set(sample_number(rng, 2, alike=False))) > 1 for _ in range(100))
