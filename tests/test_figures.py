import itertools
from types import FunctionType

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from ulm import evaluation, figures, geometry
from ulm.datasets.base import Info
from ulm.errors import InputError

B, K, S = 3, 12, 32


@pytest.fixture(scope="module")
def images():
    return torch.rand(B, 3, S, S, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def points():
    return S * torch.rand(B, K, 2, generator=torch.Generator().manual_seed(1))


def pixels(figure):
    """RGBA (H, W, 4), 0..255, drawn with Agg."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


# ------------------------------------------------------------------------------------------- the palette

# Machado, Oliveira, Fernandes 2009, full severity, on linear RGB.
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def lab(colour, kind):
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.asarray(BLINDNESS[kind]) @ linear, 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    x, y, z = (np.cbrt(v) if v > (6 / 29) ** 3 else v / (3 * (6 / 29) ** 2) + 4 / 29 for v in xyz / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_fifty_landmarks_differ():
    assert len({figures.landmark_style(k) for k in range(50)}) == 50


@pytest.mark.parametrize("kind", BLINDNESS)
def test_landmarks_of_one_shape_differ_in_any_colour_vision(kind):
    for first, second in itertools.combinations(range(50), 2):
        (one, shape), (other, same) = figures.landmark_style(first), figures.landmark_style(second)
        if shape == same:
            assert np.linalg.norm(lab(one, kind) - lab(other, kind)) > 15


def test_ten_landmarks_of_one_shape_differ_even_more():
    """With K = 10 each shape is used twice."""
    for first, second in itertools.combinations(range(10), 2):
        (one, shape), (other, same) = figures.landmark_style(first), figures.landmark_style(second)
        if shape == same:
            assert min(np.linalg.norm(lab(one, kind) - lab(other, kind)) for kind in BLINDNESS) > 30


# -------------------------------------------------------------------------------------------- every figure


def efficiency():
    random = np.random.default_rng(0)
    found, truth = random.uniform(0, S, (20, 3, 2)), random.uniform(0, S, (20, 2, 2))
    return evaluation.sample_efficiency(found, truth, found, truth, np.full(20, 10.0), ns=(1, 5, None), repeats=2)


HISTORY = [{"images_seen": 32, "forward_nme": 20.0}, {"images_seen": 640, "forward_nme": 9.0}, {"images_seen": 700}]
INFO = Info("procedural:faces", normaliser="outer-eye-corners", normaliser_points=((36,), (45,)))
DRAWINGS = {
    "image_rows": lambda x, p: figures.image_rows({"grey": x.mean(1), "colour": x}, {"colour": p}),
    "landmarks_on_images": lambda x, p: figures.landmarks_on_images(x, p, labels=["a", "b", "c"]),
    "annotated_images": lambda x, p: figures.annotated_images(x, p, torch.rand(B, K) > 0.5, [(0, 1), (1, 2)]),
    "quadruplets": lambda x, p: figures.quadruplets(x, x, x, p),
    "score_maps": lambda x, p: figures.score_maps(x, torch.randn(B, K, 16, 16), p),
    "score_maps_few": lambda x, p: figures.score_maps(x[:1], torch.randn(1, K, 16, 16), p[:1], "sum", [3, 5]),
    "heatmaps": lambda x, p: figures.heatmaps(torch.rand(4, 8, 8), list("abcd"), columns=2),
    "discovered_and_regressed": lambda x, p: figures.discovered_and_regressed(x, p, p[:, :5] + 1, p[:, :5]),
    "sample_efficiency": lambda x, p: figures.sample_efficiency(efficiency(), {1: (12.9, 3.2), 10: (7.2, None)}),
    "learning_curves": lambda x, p: figures.learning_curves({"a": HISTORY, "b": HISTORY}, {"mean shape": 19.0}),
    "no_learning_curve": lambda x, p: figures.learning_curves({}, {"mean shape": 19.0}),
    "lines": lambda x, p: figures.lines(range(1, 50), {"a": np.arange(1, 50), "b": np.ones(49)}, "x", "y", True, True),
    "cumulative_curve": lambda x, p: figures.cumulative_curve({"a": np.arange(68), "b": np.arange(10)}),
    "errors_by_range": lambda x, p: figures.errors_by_range((-90, 0, 90), {"a": [1, 2], "b": [3, np.nan]}),
    "normaliser": lambda x, p: figures.normaliser(
        x, S * torch.rand(B, 68, 2), [(INFO, name) for name in ("outer-eye-corners", "pupils", "box")]
    ),
    "forward_backward": lambda x, p: figures.forward_backward(p[0], p[1, :5], p[1, :5] + 1, p[0] - 1, x[0]),
    "forward_backward_toy": lambda x, p: figures.forward_backward(p[0], p[1], p[1] + 1, p[0] - 1),
    "warps": lambda x, p: figures.warps({"source": x, "target": figures.with_grid(x)}, {"source": p}),
    "perceptual_layers": lambda x, p: figures.perceptual_layers(x, [torch.rand(B, 4, 8, 8)] * 2, ["a", "b"]),
    "architecture": lambda x, p: figures.architecture(),
    "architecture_with_pictures": lambda x, p: figures.architecture(
        {"source": x[0], "target": x[1], "redrawn": x[2], "scores": torch.rand(16, 16), "maps": torch.rand(16, 16)}
    ),
    "subject_paths": lambda x, p: figures.subject_paths({"source": x[0], "auxiliary maps": torch.rand(16, 16)}),
}


def check_drawing(draw, titles=False):
    """What every drawing of the book must be; small multiples alone have titles."""
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    figure = draw()
    assert isinstance(figure, Figure)
    assert plt.get_fignums() == before
    assert figure.get_figwidth() <= figures.WIDTH + 0.01
    drawn = pixels(figure)
    assert (drawn[..., 3] == 255).all()
    assert np.ptp(drawn[..., :3]) > 100
    assert not figure.get_suptitle()
    assert any(axis.get_title() for axis in figure.axes) == titles


@pytest.mark.parametrize("name", DRAWINGS)
def test_figures_are_closed_opaque_and_not_empty(images, points, name):
    check_drawing(lambda: DRAWINGS[name](images, points))


def test_every_public_drawing_is_tested():
    # Imported here: those files take their helpers from this one.
    from test_figures_beyond import DRAWINGS as BEYOND
    from test_figures_diffusion import DRAWINGS as MORE

    public = {name for name, value in vars(figures).items() if isinstance(value, FunctionType)}
    drawings = {name for name in public if getattr(figures, name).__annotations__.get("return") == "Figure"}
    assert {name for name in drawings if not name.startswith("_")} <= {*DRAWINGS, *MORE, *BEYOND}


def test_the_same_figure_twice_is_the_same_picture(images, points):
    one, two = (pixels(figures.landmarks_on_images(images, points)) for _ in range(2))
    assert np.array_equal(one, two)


# ---------------------------------------------------------------------------------------------- the places


def test_a_landmark_is_drawn_where_it_is():
    black = torch.zeros(1, 3, S, S)
    point = torch.tensor([[[24.0, 8.0]]])  # right of the middle, above it
    changed = pixels(figures.landmarks_on_images(black, point))[..., :3].sum(-1) > 60
    rows, columns = np.nonzero(changed)
    height, width = changed.shape
    assert rows.mean() / height == pytest.approx(8 / S, abs=0.02)
    assert columns.mean() / width == pytest.approx(24 / S, abs=0.02)


def test_truth_and_prediction_differ_in_shape_too():
    grey, far = torch.full((1, 3, S, S), 0.5), torch.full((1, 1, 2), float("nan"))
    point = torch.full((1, 1, 2), S / 2)
    blank = pixels(figures.discovered_and_regressed(grey, far, far, far)).astype(int)
    middle = {}
    for name, predicted, truth in (("circle", far, point), ("cross", point, far)):
        drawn = pixels(figures.discovered_and_regressed(grey, far, predicted, truth)).astype(int)
        rows, columns = np.nonzero(np.abs(drawn - blank).max(-1) > 20)
        middle[name] = drawn[round(rows.mean()), round(columns.mean()), :3]
    assert np.abs(middle["circle"] - 128).max() < 10  # empty: the picture shows through
    assert middle["cross"].max() < 90  # dark


def test_missing_points_are_left_out(images, points):
    some = points.clone()
    some[0, 3] = float("nan")
    assert not np.array_equal(
        pixels(figures.landmarks_on_images(images, some)), pixels(figures.landmarks_on_images(images, points))
    )


def test_grid_lines_bend_with_the_warp(images):
    painted = figures.with_grid(torch.zeros(1, 3, 64, 64), lines=4, strength=1.0)
    assert painted[0, 0, 0].min() == 1
    assert painted[0, 0, :, 63].min() == 1
    assert painted[0, 0, 3, 3] == 0
    assert painted.mean() == pytest.approx(1 - (59 / 64) ** 2)
    warp = geometry.draw_warps(1, geometry.RELEASE_SOURCE, torch.Generator().manual_seed(0))
    assert not torch.equal(warp.sample(painted), painted)


def test_histories_without_the_key_are_left_out():
    figure = figures.learning_curves({"a": HISTORY})
    (line,) = figure.axes[0].lines
    assert list(line.get_xdata()) == [32, 640]


def test_eight_bits_and_unit_range_are_the_same(points):
    eight = torch.randint(0, 256, (B, 3, S, S), dtype=torch.uint8)
    one, two = (pixels(figures.landmarks_on_images(x, points)) for x in (eight, eight.float() / 255))
    assert np.abs(one.astype(int) - two).max() <= 1


def test_bad_shapes(points):
    with pytest.raises(InputError, match="expected \\(B, 3, H, W\\)"):
        figures.landmarks_on_images(torch.rand(B, 5, S, S), points)
    with pytest.raises(InputError, match="no tensor"):
        figures.score_maps(torch.rand(B, 3, S, S), np.zeros((B, K, 16, 16)), points)


def test_efficiency_without_a_deviation():
    table = pd.DataFrame({"labels": [10], "nme": [5.0], "std": [np.nan], "mean_shape": [15.0]})
    assert len(figures.sample_efficiency(table).axes[0].lines) == 2


def test_plan_of_the_paths_has_a_frame_for_every_picture(images):
    def unknown(figure):
        return sum(text.get_text() == "?" for axis in figure.axes for text in axis.texts)

    pictures = ("source", "target", "auxiliary", "there", "back", "redrawn source", "redrawn target")
    maps = ("source maps", "target maps", "auxiliary maps")
    assert unknown(figures.subject_paths()) == len(pictures) + len(maps)
    given = dict.fromkeys(pictures, images[0]) | dict.fromkeys(maps, torch.rand(16, 16))
    for name in given:
        assert unknown(figures.subject_paths({name: given[name]})) == len(given) - 1
    assert unknown(figures.subject_paths(given)) == 0
