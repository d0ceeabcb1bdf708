"""Measures of human poses: sums, standard sides, left or right."""

from __future__ import annotations

import numpy as np
import pytest

from ulm import evaluation
from ulm.datasets.real.human36m import FLIP_PAIRS, PUBLISHED_SWAPS
from ulm.errors import InputError
from ulm.evaluation import poses

PAIRS = ((0, 1), (2, 3))


@pytest.fixture
def random():
    return np.random.default_rng(0)


def test_distances_are_pixels_of_a_standard_side():
    truth, predicted = np.zeros((1, 2, 2)), np.array([[[3.0, 4.0], [0.0, 2.0]]])
    assert poses.distances(predicted, truth, 64, 128).tolist() == [[10.0, 4.0]]
    # (height, width): x is stretched by 128 / 32, y by 128 / 64.
    assert poses.distances(predicted, truth, (64, 32), 128)[0].tolist() == pytest.approx([np.hypot(12, 8), 4.0])


def test_hidden_joints_add_nothing():
    truth = np.zeros((3, 3, 2))
    truth[1, 2] = truth[2] = np.nan
    predicted = np.broadcast_to([3.0, 4.0], (3, 3, 2))
    sums = poses.sum_of_distances(predicted, truth, 256, 256)
    assert sums[:2].tolist() == [15.0, 10.0]
    assert np.isnan(sums[2])


def test_absolutes_are_averaged_over_the_images_that_show_a_joint():
    truth = np.zeros((2, 2, 2))
    truth[1, 1] = np.nan
    predicted = np.array([[[1.0, 2.0], [3.0, 5.0]], [[3.0, 2.0], [9.0, 9.0]]])
    # Joint 0: (2, 2) over two images; joint 1: (3, 5) of the first alone; at 256 px four times as much.
    assert poses.sum_of_absolutes(predicted, truth, 64, 256) == 4 * (2 + 2 + 3 + 5)
    assert poses.sum_of_absolutes(predicted, truth, 64, 255) == 255 / 64 * (2 + 2 + 3 + 5)


def test_the_two_scores_of_tai_chi_are_not_on_one_scale(random):
    truth, noise = random.uniform(0, 256, (40, 18, 2)), random.normal(0, 5, (40, 18, 2))
    joint = poses.sum_of_distances(truth + noise, truth, 256).mean()
    absolute = poses.sum_of_absolutes(truth + noise, truth, 256)
    # |x| + |y| lies between the distance and sqrt(2) times it; for a normal error 4 / pi of it in the mean.
    assert joint < absolute < np.sqrt(2) * joint
    assert absolute / joint == pytest.approx(4 / np.pi, rel=0.03)


def test_exchange(random):
    points = random.normal(size=(5, 5, 2))
    other = poses.exchanged(points, PAIRS)
    assert (other[:, [1, 0, 3, 2, 4]] == points).all()
    assert (poses.exchanged(other, PAIRS) == points).all()


def test_the_published_pairs_are_no_permutation(random):
    points = random.normal(size=(1, 32, 2))
    right, published = (poses.exchanged(points, pairs) for pairs in (FLIP_PAIRS, PUBLISHED_SWAPS))
    assert len(np.unique(right[0, :, 0])) == 32
    # Joint 28 goes to 20 and to 21, joint 20 is lost, and 29 stays.
    assert (published[0, [20, 21]] == points[0, 28]).all()
    assert (published[0, 29] == points[0, 29]).all()
    assert not (published == points[0, 20]).all(-1).any()
    differs = np.flatnonzero((right != published).any((0, 2)))
    # The collars, 16 and 24, are missing there as well; they lie on one place.
    assert differs.tolist() == [16, 21, 24, 28, 29]


def test_nearer_takes_the_better_of_both(random):
    truth = random.uniform(0, 64, (6, 5, 2))
    predicted = truth.copy()
    predicted[3:] = poses.exchanged(truth[3:], PAIRS)
    chosen, swapped = poses.nearer(predicted, truth, PAIRS)
    assert swapped.tolist() == [False] * 3 + [True] * 3
    assert np.allclose(chosen, predicted)
    truth[0] = np.nan
    assert not poses.nearer(predicted, truth, PAIRS)[1][0]


def test_a_fit_either_way_forgives_exchanged_sides(random):
    # Landmarks that cannot tell left from right: the sides of a third of the annotation are exchanged.
    n, size = 400, 128
    found = random.uniform(20, 108, (n, 4, 2))
    truth = found + random.normal(0, 0.5, found.shape)
    truth[::3] = poses.exchanged(truth[::3], PAIRS)
    least_squares = evaluation.LeastSquares("centre")
    plain = least_squares.fit(found, truth, size)
    either = poses.fit_either_way(found, truth, PAIRS, least_squares, size)

    def error(model):
        predicted = model.predict(found)
        return np.nanmean(poses.distances(predicted, poses.nearer(predicted, truth, PAIRS)[0], size))

    assert error(either) < 1.0 < 3 * error(either) < error(plain)
    once = poses.fit_either_way(found, truth, PAIRS, least_squares, size, rounds=1)
    assert np.array_equal(once.weight, plain.weight)
    with pytest.raises(InputError, match="rounds"):
        poses.fit_either_way(found, truth, PAIRS, least_squares, size, rounds=0)
