"""Landmarks follow the picture through cuts, resizing, flips and warps: blobs are drawn at landmarks and found again.

A blob is a Gaussian; its place is its centre of mass under a smooth window centred on itself. What limits how well that
is known, and so the tolerance of 0.01 pixels (of the coarser of the two pictures):

- 8-bit values. Rounding by up to half a step of 200 moves the centre by 0.0014 pixels (one standard deviation, whatever
  the blob's width), before and after resizing; three channels of different heights average that.
- The Lanczos filter does not read a ramp as a ramp: it is off by up to 0.020 pixels to either side, depending on where
  between two pixels it reads (the first moment of its normalised weights). A blob that spans many such phases does not
  feel it. Only at factors near one do the phases change so slowly that it does, so these have a test of their own,
  which averages over all phases. Reading bilinearly in a warp does the same, more weakly.

A half-pixel error or a rounded coordinate would show as 0.1 to 0.5 pixels.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ulm import geometry
from ulm.datasets import images, procedural
from ulm.datasets.base import Info
from ulm.datasets.transforms import flip
from ulm.errors import InputError

TOLERANCE = 0.01
SIGMA = 6.0
GROUND, HEIGHTS = 40.0, (200.0, 173.0, 149.0)
quick = settings(max_examples=10, deadline=None)
fraction = st.floats(0, 1)
pair = st.tuples(fraction, fraction)


def blobs(places: np.ndarray, size: tuple[int, int], sigma: float) -> np.ndarray:
    """Light ``(H, W)`` in [0, 1] of Gaussian blobs at pixel places ``(N, 2)``, first pixel's centre at (0.5, 0.5)."""
    y, x = np.arange(size[0])[:, None] + 0.5, np.arange(size[1])[None] + 0.5
    return sum(np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * sigma**2)) for px, py in places)


def photograph(places: np.ndarray, size: tuple[int, int], sigma: float) -> np.ndarray:
    """The same as an 8-bit image ``(H, W, 3)``; the grey ground leaves room for a filter's undershoot."""
    light = GROUND + blobs(places, size, sigma)[..., None] * HEIGHTS
    return np.round(light).astype(np.uint8)


def find(light: np.ndarray, near: np.ndarray, sigma: float | np.ndarray) -> np.ndarray:
    """Where the blobs near places ``(N, 2)`` are in light ``(H, W)``, whose standard deviation is known, ``(N, 2)``."""
    wide = 1.5 * np.broadcast_to(np.asarray(sigma, float), (2,))
    x, y = np.arange(light.shape[1]) + 0.5, np.arange(light.shape[0])[:, None] + 0.5
    for _ in range(12):
        moved = []
        for px, py in near:
            weight = light * np.exp(-(((x - px) / wide[0]) ** 2 + ((y - py) / wide[1]) ** 2) / 2)
            moved.append([(weight * x).sum() / weight.sum(), (weight * y).sum() / weight.sum()])
        near = np.array(moved)
    return near


def find_in(image: np.ndarray, near: np.ndarray, sigma: float | np.ndarray) -> np.ndarray:
    """The same in an 8-bit image ``(H, W, 3)``: the mean of what its channels say."""
    return np.mean([find(image[..., c] - GROUND, near, sigma) for c in range(3)], 0)


# ---------------------------------------------------------------------------------------------- cut and resize


# Not near one: see above.
factor = st.floats(0.35, 0.88) | st.just(1.0) | st.floats(1.15, 2.1)
PHOTO = (200, 180)


@quick
@given(pair, factor, factor)
def test_resizing_keeps_places(one, down, across):
    place = np.array([[70 + 40 * one[0], 80 + 40 * one[1]]])
    size = (round(down * PHOTO[0]), round(across * PHOTO[1]))
    resized = images.resize(photograph(place, PHOTO, SIGMA), size)
    assert resized.shape == (*size, 3)
    scale = np.array([size[1] / PHOTO[1], size[0] / PHOTO[0]])
    error = find_in(resized, place * scale, SIGMA * scale) - place * scale
    assert (np.abs(error) < TOLERANCE * np.maximum(scale, 1)).all()


@pytest.mark.parametrize("size", [196, 204])
def test_resizing_by_nearly_one_keeps_places_on_the_average(size):
    # The phase of the filter comes round once in 50 pixels; a step of 10 / 3 meets every part of it equally.
    steps = 60 + 50 * np.arange(15) / 15
    scale, errors = size / 200, []
    for step in steps:
        place = np.array([[step, 110.0]])
        errors.append(find_in(images.resize(photograph(place, (200, 200), SIGMA), (size, size)), place * scale, SIGMA))
    errors = np.array(errors)[:, 0, 0] - steps * scale
    assert np.abs(errors).max() < 0.02
    assert abs(errors.mean()) < TOLERANCE / 2


@quick
@given(pair, st.integers(-12, 30), st.integers(-12, 30), st.integers(150, 200), factor)
def test_a_cut_keeps_places(one, x0, y0, side, scale):
    place = np.array([[70 + 30 * one[0], 70 + 30 * one[1]]])
    # The square reaches over the edges of the image; there its edge pixels, plain ground, are repeated.
    square, size = images.Square(x0, y0, side), round(side * scale)
    expected = square.to_square(place, size)
    error = find_in(images.cut(photograph(place, PHOTO, SIGMA), square, size), expected, SIGMA * scale) - expected
    assert np.abs(error).max() < TOLERANCE * max(scale, 1)
    assert np.allclose(square.to_image(expected, size), place, atol=1e-9)


@quick
@given(pair, st.floats(30, 45), st.floats(30, 45), st.floats(-10, 10), factor)
def test_squares_of_boxes_and_whole_images_keep_places(one, wide, high, off, scale):
    place = np.array([[70 + 30 * one[0], 80 + 30 * one[1]]])
    photo = photograph(place, PHOTO, SIGMA)
    centre = place[0] + off * np.array([0.7, -0.3])
    half = np.array([wide, high])
    box = np.concatenate([centre - half, centre + half])
    for square in (images.whole(*PHOTO[::-1]), images.around(box, *PHOTO[::-1])):
        size = round(square.side * scale)
        expected = square.to_square(place, size)
        error = find_in(images.cut(photo, square, size), expected, SIGMA * size / square.side) - expected
        assert np.abs(error).max() < TOLERANCE * max(scale, 1)


# ---------------------------------------------------------------------------------------------- flip

PAIRED = Info("test:paired", ("left", "right", "middle"), ((0, 1),))


def sample_of(places: np.ndarray, size: tuple[int, int]) -> dict:
    light = torch.tensor(blobs(places, size, 3.0), dtype=torch.float32)
    return {
        "image": light.expand(3, -1, -1),
        "landmarks": torch.tensor(places, dtype=torch.float32),
        "visible": torch.tensor([True, False, True]),
        "box": torch.tensor([*places.min(0), *places.max(0)], dtype=torch.float32),
        "mask": light > 0.5,
        "yaw": 12.0,
        "subject": "7",
    }


@quick
@given(pair, pair, pair, st.integers(100, 131), st.integers(70, 101))
def test_a_flip_takes_the_landmarks_along(one, two, three, width, height):
    corners = np.array([[20, 20], [60, 20], [40, 50]])
    places = corners + 10 * np.array([one, two, three])
    sample = sample_of(places, (height, width))
    mirrored = flip(sample, PAIRED)
    marks = mirrored["landmarks"].double().numpy()
    assert np.abs(find(mirrored["image"][0].double().numpy(), marks, 3.0) - marks).max() < TOLERANCE
    # The left one was the right one.
    assert marks[0, 0] == pytest.approx(width - places[1, 0], abs=1e-4)
    assert mirrored["visible"].tolist() == [False, True, True]
    low, high = mirrored["box"].view(2, 2)
    assert torch.allclose(low, mirrored["landmarks"].min(0).values, atol=1e-4)
    assert torch.allclose(high, mirrored["landmarks"].max(0).values, atol=1e-4)
    rows, columns = marks[:, 1].astype(int), marks[:, 0].astype(int)
    assert mirrored["mask"][rows, columns].all()
    assert (mirrored["yaw"], mirrored["subject"]) == (-12.0, "7")
    again = flip(mirrored, PAIRED)
    assert torch.equal(again["image"], sample["image"])
    assert torch.allclose(again["landmarks"], sample["landmarks"], atol=1e-4)
    assert torch.equal(again["visible"], sample["visible"])


def test_a_flip_takes_what_there_is_and_keeps_what_is_missing():
    image = torch.rand(3, 4, 6)
    assert set(flip({"image": image}, Info("test:none"))) == {"image"}
    marks = torch.tensor([[1.0, 2.0], [float("nan")] * 2, [3.0, 1.0]])
    mirrored = flip({"image": image, "landmarks": marks}, PAIRED)["landmarks"]
    assert mirrored[0].isnan().all()
    assert mirrored[1:].tolist() == [[5.0, 2.0], [3.0, 1.0]]
    assert marks[0].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("pairs", [((0, 5),), ((0, 1), (1, 2)), ((-1, 0),)])
def test_wrong_flip_pairs_are_named(pairs):
    with pytest.raises(InputError, match="flip pairs"):
        flip({"image": torch.zeros(3, 4, 4), "landmarks": torch.zeros(3, 2)}, Info("test:wrong", (), pairs))


@pytest.mark.parametrize("scene", procedural.SCENES)
def test_scenes_can_be_mirrored(scene):
    data = procedural.load(scene, "test", 16, length=1)
    sample, mirrored = data[0], flip(data[0], data.info)
    for left, right in data.info.flip_pairs:
        assert mirrored["landmarks"][left, 0] == pytest.approx(16 - float(sample["landmarks"][right, 0]), abs=1e-4)
        assert mirrored["visible"][left] == sample["visible"][right]
    assert torch.allclose(flip(mirrored, data.info)["landmarks"], sample["landmarks"], atol=1e-4)
    assert mirrored["box"][0] < mirrored["box"][2]


# ---------------------------------------------------------------------------------------------- warps

SIZE = 192


def to_pixels(points: torch.Tensor, align_corners: bool) -> torch.Tensor:
    """Normalised points to pixels in either convention of :mod:`ulm.geometry`."""
    # With align_corners, -1 and 1 are the centres of the outer pixels, half a pixel inside the edges.
    return (points + 1) / 2 * (SIZE - 1) + 0.5 if align_corners else geometry.to_pixels(points, SIZE)


def warped_blob(warp: geometry.Warp, point: torch.Tensor, align_corners: bool) -> tuple[np.ndarray, np.ndarray]:
    """A blob at the input place that the output ``point`` shows: that place, and the warped light ``(H, W)``."""
    place = to_pixels(warp(point), align_corners)[0].double().numpy()
    light = torch.tensor(blobs(place, (SIZE, SIZE), SIGMA), dtype=torch.float32)[None, None]
    return place, warp.sample(light, align_corners)[0, 0].double().numpy()


middle = st.tuples(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3))


@quick
@given(middle, st.integers(0, 1000), st.booleans())
def test_an_affine_warp_takes_landmarks_along(point, seed, align_corners):
    # Bilinear reading and an affine map keep the symmetry of the blob, so its centre is the landmark.
    scale = geometry.WarpScale(rotation=10, scale=0.1, translation=0.1)
    warp = geometry.draw_warps(1, scale, torch.Generator().manual_seed(seed))
    point = torch.tensor([[point]], dtype=torch.float32)
    _, light = warped_blob(warp, point, align_corners)
    expected = to_pixels(point, align_corners)[0].double().numpy()
    assert np.abs(find(light, expected, SIGMA) - expected).max() < TOLERANCE


@quick
@given(middle, st.integers(0, 1000), st.booleans(), st.sampled_from(["release", "local"]))
def test_a_bending_warp_takes_landmarks_along(point, seed, align_corners, name):
    # A bending warp skews the blob, and with it the centre of mass in the output. Seen from the input, nothing is
    # skewed: light times area, summed over the output's pixels at the places they read, has its centre at the landmark.
    # Where the warp folds, a place is read three times, once mirrored: areas have a sign, so that it counts once.
    warp = geometry.draw_warps(1, geometry.WARPS[name][0], torch.Generator().manual_seed(seed))
    point = torch.tensor([[point]], dtype=torch.float32)
    place, light = warped_blob(warp, point, align_corners)
    pixels = geometry.pixel_grid(SIZE, align_corners).reshape(1, -1, 2)
    read = to_pixels(warp(pixels), align_corners)[0].double().numpy().reshape(SIZE, SIZE, 2)
    (ax, ay), (bx, by) = (np.moveaxis(np.gradient(read, axis=axis), -1, 0) for axis in (1, 0))
    weight = light * (ax * by - ay * bx) * (np.linalg.norm(read - place[0], axis=-1) < 5 * SIGMA)
    centre = (weight[..., None] * read).sum((0, 1)) / weight.sum()
    assert np.abs(centre - place[0]).max() < TOLERANCE


@pytest.mark.parametrize("align_corners", [False, True])
def test_a_mixed_up_convention_would_be_seen(align_corners):
    # Off the middle of a warp that zooms, the two conventions disagree by more than these tests let pass.
    coefficients = torch.zeros(1, 103, 2)
    coefficients[0, -3:-1] = 0.8 * torch.eye(2)
    point = torch.tensor([[[-0.3, 0.3]]])
    warp = geometry.Warp(coefficients)
    _, light = warped_blob(warp, point, align_corners)
    right, wrong = (to_pixels(point, which)[0].double().numpy() for which in (align_corners, not align_corners))
    assert np.abs(find(light, right, SIGMA) - right).max() < TOLERANCE
    assert np.abs(find(light, wrong, SIGMA) - wrong).max() > 10 * TOLERANCE
