"""Coordinates, maps and warps against hand-worked values."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ulm import geometry


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_edges_of_the_image_are_minus_one_and_one():
    points = torch.tensor([[0.0, 0.0], [6.0, 4.0], [3.0, 2.0]])
    assert torch.equal(geometry.to_normalised(points, (4, 6)), torch.tensor([[-1.0, -1], [1, 1], [0, 0]]))
    # The first pixel's centre is at (0.5, 0.5).
    assert geometry.to_normalised(torch.tensor([0.5, 0.5]), 4)[0] == geometry.cell_coordinates(4)[0] == -0.75


@given(st.floats(-3, 3), st.floats(-3, 3), st.integers(1, 500), st.integers(1, 500))
def test_pixels_and_back(x, y, height, width):
    point = torch.tensor([x, y], dtype=torch.float64)
    back = geometry.to_normalised(geometry.to_pixels(point, (height, width)), (height, width))
    assert torch.allclose(back, point, atol=1e-9)


@pytest.mark.parametrize("form", ["mean", "sum", "joint"])
def test_uniform_logits_give_the_centre(form):
    assert torch.allclose(geometry.soft_argmax(torch.zeros(2, 3, 16, 16), form), torch.zeros(2, 3, 2), atol=1e-6)


@pytest.mark.parametrize("form", ["mean", "sum", "joint"])
@pytest.mark.parametrize(("align_corners", "x", "y"), [(True, 1 / 3, -1.0), (False, 0.25, -0.75)])
def test_a_sharp_peak_gives_its_cell(form, align_corners, x, y):
    logits = torch.zeros(1, 1, 4, 4)
    logits[0, 0, 0, 2] = 1e4
    assert torch.allclose(geometry.soft_argmax(logits, form, align_corners), torch.tensor([[[x, y]]]), atol=1e-5)


def test_separable_softmax_by_hand():
    # Columns add up to 1 and 3, rows to 2 and 2; the mean halves them.
    logits = torch.tensor([[[[0.0, 2.0], [1.0, 1.0]]]])
    across, down = geometry.axis_marginals(logits, "sum")
    assert across[0, 0].tolist() == pytest.approx([1 / (1 + math.e**2), math.e**2 / (1 + math.e**2)])
    assert down[0, 0].tolist() == pytest.approx([0.5, 0.5])
    across, _ = geometry.axis_marginals(logits, "mean")
    assert across[0, 0, 1] == pytest.approx(math.e / (1 + math.e))


def test_gaussian_one_cell_away():
    # Values of the notes: 0.1690 in the authors' code, 0.4111 in the paper's equation 2, at 16 x 16 and sigma 0.1.
    centre = geometry.cell_coordinates(16, align_corners=True)[8].expand(1, 1, 2)
    for halved, value in ((False, 0.1690), (True, 0.4111)):
        maps = geometry.gaussian_maps(centre, 16, 0.1, halved, align_corners=True)
        assert maps[0, 0, 8, 8] == pytest.approx(1)
        assert maps[0, 0, 8, 9] == pytest.approx(value, abs=1e-4)
        assert maps[0, 0, 9, 8] == pytest.approx(value, abs=1e-4)


def test_gaussian_axes_are_x_and_y():
    maps = geometry.gaussian_maps(torch.tensor([[[0.75, -0.75]]]), 4)
    row, column = divmod(int(maps[0, 0].argmax()), 4)
    assert (row, column) == (0, 3)


def test_border_mask_means():
    mask = geometry.border_mask(128)
    assert mask[0, 0, 64].mean() == pytest.approx(0.6875, abs=1e-6)
    assert mask.mean() == pytest.approx(0.47266, abs=1e-5)
    assert geometry.border_mask(64).shape == (1, 1, 64, 64)


def test_a_warp_without_deviation_is_the_identity():
    warp = geometry.draw_warps(2, geometry.WarpScale(), generator())
    images = torch.rand(2, 3, 8, 8)
    for align_corners in (False, True):
        assert torch.allclose(
            warp.grid(8, align_corners), geometry.pixel_grid(8, align_corners).expand(2, -1, -1, -1), atol=1e-6
        )
        assert torch.allclose(warp.sample(images, align_corners), images, atol=1e-5)


def test_points_and_grid_agree():
    warp = geometry.draw_warps(3, geometry.RELEASE_SOURCE, generator(1))
    points = geometry.pixel_grid(6).reshape(1, -1, 2).expand(3, -1, -1)
    assert torch.allclose(warp(points).view(3, 6, 6, 2), warp.grid(6), atol=1e-5)


def test_translation_and_rotation_by_hand():
    coefficients = torch.zeros(1, 103, 2)
    coefficients[0, -3:] = torch.tensor([[0.0, 1.0], [-1.0, 0.0], [0.5, 0.0]])
    # x_in = -y_out + 0.5, y_in = x_out.
    assert torch.allclose(geometry.Warp(coefficients)(torch.tensor([[[1.0, 0.25]]])), torch.tensor([[[0.25, 1.0]]]))


def test_displacements_are_those_of_the_authors_code():
    # Notes: without the affine part, one axis, 128 px: target 1.0 px at the centre, mean 5.0; source 1.9, mean 9.7.
    for scale, centre, mean in ((geometry.RELEASE_TARGET, 1.0, 5.0), (geometry.RELEASE_SOURCE, 1.9, 9.7)):
        bending = geometry.WarpScale(bending=scale.bending, bending_half=scale.bending_half)
        moved = geometry.draw_warps(2000, bending, generator(2)).grid(17, align_corners=True)
        deviation = (moved - geometry.pixel_grid(17, align_corners=True)).square().mean((0, 3)).sqrt() * 64
        assert deviation[8, 8] == pytest.approx(centre, rel=0.1)
        assert deviation.mean() == pytest.approx(mean, rel=0.1)


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_what_is_at_a_warped_point_is_what_the_input_has_there(seed):
    # An image whose value is its own x coordinate: sampled at u it must read g(u).x wherever g(u) is inside.
    warp = geometry.draw_warps(1, geometry.RELEASE_SOURCE, generator(seed))
    ramp = geometry.pixel_grid(64)[..., 0].expand(1, 1, 64, 64)
    warped = warp.sample(ramp.contiguous())[0, 0]
    expected = warp.grid(64)[0]
    inside = (expected.abs() < 0.95).all(-1)
    assert torch.allclose(warped[inside], expected[..., 0][inside], atol=1e-4)
