"""Drawings of IMM beyond still faces."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from test_figures import check_drawing, pixels

from ulm import figures

B, K, S = 4, 6, 32
GRID = {"rows": ["30°", "50°"], "tops": ["0°", "20°"]}


@pytest.fixture(scope="module")
def images():
    return torch.rand(B, 3, S, S, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def points():
    return S * torch.rand(B, K, 2, generator=torch.Generator().manual_seed(1))


def panels(names=("raw", "regressed")):
    distances = np.arange(20)
    curves = {name: (distances, (place + 1) * distances) for place, name in enumerate(names)}
    return {"head": curves, "wrists": curves, "labels": {"raw": ([5, 50, 450], [10, 20, 30])}}


# By name of the function, of x (B, 3, S, S) and p (B, K, 2).
DRAWINGS = {
    "matched_and_regressed": lambda x, p: figures.matched_and_regressed(x, p, p + 2, p - 2),
    "small_curves": lambda x, p: figures.small_curves(panels(), "accuracy (%)", ["d", "d", "n"], 6, ("labels",), 2),
    "view_grid": lambda x, p: figures.view_grid(x, p, 2, [0, 5], **GRID),
    "residuals": lambda x, p: figures.residuals([20, 80], {"all": [2, 9], "five": [1, 3]}, "x", "y", 80, "±80°"),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_figures_are_closed_opaque_and_not_empty(images, points, name):
    check_drawing(lambda: DRAWINGS[name](images, points), titles=name == "small_curves")


def test_missing_points_are_not_drawn(images, points):
    gone = torch.full_like(points, float("nan"))
    assert isinstance(figures.matched_and_regressed(images, gone, gone, gone), Figure)
    empty = figures.view_grid(images, gone, 2)
    assert not np.array_equal(pixels(empty), pixels(figures.view_grid(images, points, 2)))


def test_only_chosen_landmarks_are_drawn(images, points):
    all_of_them, one = (figures.view_grid(images, points, 2, which) for which in (None, [0]))
    assert sum(len(axis.collections) for axis in one.axes) == 2 * B
    assert sum(len(axis.collections) for axis in all_of_them.axes) == 2 * B * K


def test_small_curves_share_one_legend_and_mark_linear_axes_only(images):
    figure = figures.small_curves(panels(), "accuracy (%)", ["d", "d", "n"], 6, ("labels",), 2)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["raw", "regressed"]
    upright = [[line for line in axis.get_lines() if list(line.get_xdata()) == [6, 6]] for axis in figure.axes]
    assert [len(found) for found in upright] == [1, 1, 0, 0]
    assert figure.axes[2].get_xscale() == "log"
    # A name keeps its colour where another one is missing.
    first, last = (figure.axes[place].get_lines()[0] for place in (0, 2))
    assert first.get_color() == last.get_color()


def test_counts_on_a_logarithmic_axis_are_plain_and_few(images):
    many = {"labels": {"raw": ([5, 50, 5000], [10, 20, 30])}}
    axis = figures.small_curves(many, "y", ["n"], log=("labels",)).axes[0]
    labels = [text.get_text() for text in axis.get_xticklabels()]
    assert labels
    assert len(labels) <= 6
    assert all(label.isdigit() for label in labels)
