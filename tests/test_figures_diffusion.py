"""Drawings of the diffusion chapters."""

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from test_figures import check_drawing, pixels

from ulm import figures, geometry

B, K, S = 2, 4, 32


@pytest.fixture(scope="module")
def images():
    return torch.rand(B, 3, S, S, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def maps():
    places = 1.6 * torch.rand(B, K, 2, generator=torch.Generator().manual_seed(1)) - 0.8
    return geometry.gaussian_maps(places, 16, 0.2)


# By name of the function, of x (B, 3, S, S) and m (B, K, 16, 16).
DRAWINGS = {
    "token_rows": lambda x, m: figures.token_rows(x, m, list("abcd"), styles=[3, 3, 12, 0]),
    "word_maps": lambda x, m: figures.word_maps(x[0], m[0], list("abcd")),
    "map_rows": lambda x, m: figures.map_rows({"fine": m[0], "coarse": m[0, :, ::4, ::4]}, list("abcd"), marked=True),
    "scatter": lambda x, m: figures.scatter(range(9), range(9), "x", "y", [1, 0, 1] * 3, ("these", "those")),
    "candidates": lambda x, m: figures.candidates(x, S * torch.rand(B, 9, 2), S * torch.rand(B, K, 2)),
    "token_overview": lambda x, m: figures.token_overview({"image": x[0], "maps": m[0, 0], "target": m[0, 1]}),
    "captioned_images": lambda x, m: figures.captioned_images(x, ["a face", "a bird"], columns=2),
    "captioned_rows": lambda x, m: figures.captioned_rows({"a face": x}),
    "redrawn_images": lambda x, m: figures.redrawn_images(x, x, ["20 dB", "22 dB"]),
    "loss_curves": lambda x, m: figures.loss_curves(
        {"run": [{"step": s, "noise": 1 / s} for s in (1, 2)]}, "noise", "y"
    ),
    "latent_diffusion": lambda x, m: figures.latent_diffusion({"image": x[0]}),
    "unet_layout": lambda x, m: figures.unet_layout([("down_blocks.0.attentions.0", 8)], taps=(0,)),
    "dot_rows": lambda x, m: figures.dot_rows({"one": {"learned": 20.0}, "two": {"learned": 30.0}}, "error"),
    "duld_overview": lambda x, m: figures.duld_overview({"image": x[0], "heatmap": m[0, 0], "target": m[0, 1]}),
    "shares": lambda x, m: figures.shares([[3, 1], [0, 0]], ["a", "b"], ["left", "right"], "yaw", "cluster"),
    "error_plane": lambda x, m: figures.error_plane({"one": (5.0, 7.0), "two": (4.0, 9.0)}, 12.0),
    "bars_by_region": lambda x, m: figures.bars_by_region([50.0, np.nan, 20.0], {"a": [0, 1], "b": [2]}, "found (%)"),
    "error_by_images": lambda x, m: figures.error_by_images({"learned": {30: 9.0, 100: 6.0}}, "n", "error"),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_figures_are_closed_opaque_and_not_empty(images, maps, name):
    check_drawing(lambda: DRAWINGS[name](images, maps))


def test_a_map_lies_where_the_image_has_its_place():
    black, peak = torch.zeros(1, 3, S, S), torch.zeros(1, 1, 8, 8)
    peak[0, 0, 1, 6] = 1  # centre at 3/16 from the top, 13/16 from the left
    figure = figures.token_rows(black, peak)
    upper, lower = figure.axes
    assert not upper.collections
    assert {tuple(places.get_offsets()[0]) for places in lower.collections} == {(26.0, 6.0)}
    overlay = lower.images[-1]
    assert overlay.get_extent() == [0, S, S, 0]
    assert np.unravel_index(int(overlay.get_array().argmax()), (8, 8)) == (1, 6)
    assert not figures.token_rows(black, peak, marked=False).axes[1].collections


def test_the_mark_is_that_of_the_landmark(images, maps):
    one, two = (pixels(figures.token_rows(images, maps[:, :1], styles=[k])) for k in (0, 1))
    assert not np.array_equal(one, two)
    assert np.array_equal(one, pixels(figures.token_rows(images, maps[:, :1])))


def test_maps_of_a_column_share_a_scale():
    high, low = torch.full((1, 4, 4), 1.0), torch.full((1, 4, 4), 0.5)
    drawn = pixels(figures.map_rows({"a": high, "b": low}))
    right = drawn[:, int(0.8 * drawn.shape[1]), :3].astype(int)
    assert np.abs(right[len(right) // 4] - right[3 * len(right) // 4]).max() > 60
    both = pixels(figures.map_rows({"a": high, "b": high}))
    right = both[:, int(0.8 * both.shape[1]), :3].astype(int)
    assert np.array_equal(right[len(right) // 4], right[3 * len(right) // 4])


def test_unmarked_points_are_hollow():
    axis = figures.scatter([0, 1], [0, 1], "x", "y", marked=[True, False]).axes[0]
    hollow, filled = axis.collections
    assert len(hollow.get_facecolor()) == 0
    assert len(filled.get_facecolor()) == 1
    assert filled.get_offsets().tolist() == [[0, 0]]


# ------------------------------------------------------------------------------------------- generation


def written_in(figure):
    """All that is written in a figure and its axes."""
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_captions_stand_below_their_pictures(images):
    figure = figures.captioned_images(
        torch.cat([images, images])[:3], ["a face with red hair", "a bird", "a cat"], columns=2
    )
    assert len(figure.axes) == 3
    captions = [text for text in figure.texts if "cat" in text.get_text() or "bird" in text.get_text()]
    bird, cat = sorted(captions, key=lambda text: -text.get_position()[1])
    assert bird.get_position()[1] < figure.axes[1].get_position().y0
    assert cat.get_position()[1] < figure.axes[2].get_position().y0 < bird.get_position()[1]


def test_long_captions_are_broken_not_cut(images):
    long = "a face with short brown hair, sunglasses, a brown goatee, tan skin, brown lips, a grey shirt, smiling"
    figure = figures.captioned_images(images, [long] * B, columns=B)
    assert {" ".join(text.get_text().split()) for text in figure.texts} == {long}
    assert all("\n" in text.get_text() for text in figure.texts)


def test_rows_share_a_caption_with_the_changed_word_in_bold(images):
    rows = {f"a face with {colour} hair": images for colour in ("red", "blue")}
    figure = figures.captioned_rows(rows, ["red hair", "blue hair"], largest=2.0)
    assert len(figure.axes) == 2 * len(images)
    assert [text.get_text() for text in figure.texts] == [
        rf"a face with $\mathbf{{{colour}\ hair}}$" for colour in ("red", "blue")
    ]
    narrow = figures.captioned_rows({"a face with red hair " * 4: images[:1]}, ["red hair"]).texts[0].get_text()
    assert "\n" in narrow
    assert narrow.count("$") == 2


def test_pairs_of_pictures_have_one_label(images):
    figure = figures.redrawn_images(images, images, ["20.0 dB", "22.0 dB"], ("picture", "redrawn"))
    assert len(figure.axes) == 2 * len(images)
    assert {"20.0 dB", "22.0 dB", "picture", "redrawn"} <= set(written_in(figure))


@pytest.mark.parametrize("log", [True, False])
def test_loss_leaves_out_entries_of_other_stages(log):
    history = [{"step": 1, "pixels": 0.2}, {"step": 10, "noise": 0.9}, {"step": 20, "noise": 0.4}]
    curves = {"run": history, "empty": [{"step": 1, "pixels": 0.2}]}
    figure = figures.loss_curves(curves, "noise", "error", {"zero": 1.0}, log)
    axis = figure.axes[0]
    drawn = [line for line in axis.lines if line.get_label() == "run"]
    assert drawn[0].get_xdata().tolist() == [10, 20]
    assert "empty" not in [line.get_label() for line in axis.lines]
    low, high = axis.get_ylim()
    assert low < 0.4 < 1.0 < high


def test_layout_numbers_all_cross_attentions():
    blocks = (
        [("down_blocks", i, 2) for i in range(3)] + [("mid_block", None, 1)] + [("up_blocks", i, 3) for i in (1, 2, 3)]
    )
    names = [
        f"{block}.attentions.{a}" if i is None else f"{block}.{i}.attentions.{a}"
        for block, i, n in blocks
        for a in range(n)
    ]
    sides = [32, 32, 16, 16, 8, 8, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32]
    figure = figures.unet_layout(list(zip(names, sides, strict=True)), taps=(7, 8, 9, 10))
    written = written_in(figure)
    assert {str(i) for i in range(16)} <= set(written)
    assert "up_blocks.2, 16 × 16" in written
    assert sum("no cross-attention" in text for text in written) == 2
    bold = {text.get_text() for text in figure.axes[0].texts if text.get_fontweight() == "bold"}
    assert bold == {"7", "8", "9", "10"}


def test_plan_of_latent_diffusion_draws_with_and_without_pictures(images):
    empty = figures.latent_diffusion()
    assert written_in(empty).count("?") == 5
    pictures = dict.fromkeys(("image", "latent", "noisy", "predicted", "redrawn"), images[0])
    full = figures.latent_diffusion(pictures, "red hair", "velocity")
    assert "?" not in written_in(full)
    assert any("red hair" in text for text in written_in(full))


@pytest.mark.parametrize(("target", "sign"), [("noise", r"\epsilon"), ("velocity", "v"), ("latents", "z")])
def test_plan_of_latent_diffusion_says_what_is_predicted(target, sign):
    figure = figures.latent_diffusion(target=target)
    assert [text.split(" $")[0] for text in written_in(figure) if "predicted" in text] == [f"predicted {target}"]
    (loss,) = (text for text in written_in(figure) if text.startswith("loss"))
    below = "_0" if target == "latents" else ""
    assert loss == rf"loss $\Vert {sign}{below} - \hat{{{sign}}}{below}\,\Vert^2$"
    assert np.ptp(pixels(figure)[..., :3]) > 100


# ------------------------------------------------------------------------------------------- StableKeypoints: results


def test_rows_of_dots_have_a_marker_for_each_name_that_is_there():
    rows = {"one ruler": {"learned": 20.0, "random": 60.0}, "another": {"learned": 30.0, "IMM": 40.0}}
    figure = figures.dot_rows(rows, "error (%)", level=100)
    assert (pixels(figure)[..., 3] == 255).all()
    axis = figure.axes[0]
    places = {dots.get_label(): dots.get_offsets().tolist() for dots in axis.collections}
    assert places == {"learned": [[20.0, 0.0], [30.0, 1.0]], "random": [[60.0, 0.0]], "IMM": [[40.0, 1.0]]}
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["one ruler", "another"]
    assert axis.get_ylim()[0] > axis.get_ylim()[1], "the first row is on top"
    assert axis.get_xlim()[0] == 0 < 100 < axis.get_xlim()[1]


def test_error_by_images_has_its_numbers_as_ticks():
    curves, levels = {"learned": {30: 9.0, 100: 6.0, 4000: 5.0}}, {"mean shape": 40.0}
    axis = figures.error_by_images(curves, "training pictures", "error (%)", levels).axes[0]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["30", "100", "4,000"]
    assert axis.get_xscale() == "log"
    assert axis.get_ylim()[0] == 0 < 40 < axis.get_ylim()[1]
    empty = figures.error_by_images({"learned": {}}, "training pictures", "error (%)", levels).axes[0]
    assert empty.get_ylim()[1] > 40


def test_shares_are_of_a_row_and_the_counts_are_written():
    figure = figures.shares([[30, 10], [0, 0]], ["a", "b"], ["left", "right"], "yaw", "cluster")
    axis = figure.axes[0]
    assert [text.get_text() for text in axis.texts] == ["30", "10", "0", "0"]
    assert axis.images[0].get_array().tolist() == [[0.75, 0.25], [0.0, 0.0]]


def test_a_region_counts_points_without_a_landmark_as_not_found():
    axis = figures.bars_by_region([50.0, np.nan, 20.0], {"a": [0, 1], "b": [2]}, "found (%)").axes[0]
    means = [line.get_segments()[0][0][1] for line in axis.collections]
    assert means == [25.0, 20.0]


def test_the_plane_has_a_marker_for_each_method_and_the_mean_shape():
    axis = figures.error_plane({"one": (5.0, 7.0), "two": (4.0, 9.0)}, 12.0).axes[0]
    assert [tuple(points.get_offsets()[0]) for points in axis.collections] == [(5.0, 7.0), (4.0, 9.0)]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["one", "two", "mean shape"]
