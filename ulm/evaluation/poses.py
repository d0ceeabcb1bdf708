"""What tables of human poses measure: sums over joints, pixels of an image of a standard side, left or right.

Hedlin et al. (2024), Table 3, as their released code measures it; the quoted rows of that table are measured as
AutoLink (He et al., 2022) does, which :func:`sum_of_absolutes` is. Points are ``(n, L, 2)`` in pixels, NaN where
unknown. ``size`` is (height, width) of their images, or the side; ``side`` that of the images that the result is in
pixels of, whatever their shape was.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ulm.errors import InputError
from ulm.evaluation.arrays import Array, Points, Size, known_mean, to_array
from ulm.evaluation.regressors import LinearMap, Regressor

Pairs = Sequence[tuple[int, int]]


def _scale(size: Size, side: float) -> Array:
    height, width = (size, size) if isinstance(size, int) else size
    return side / np.array([width, height], np.float64)


def distances(predicted: Points, truth: Points, size: Size, side: float = 128) -> Array:
    """Distances of points in pixels of an image that was resized to ``side`` x ``side``.

    Args:
        predicted: ``(n, L, 2)`` pixels.
        truth: The same; NaN where unknown.
        size: Of the images that the points belong to.
        side: Of the images that the distances are pixels of: 128 (Human3.6M, relative), 256 (Tai-Chi-HD, DeepFashion).

    Returns:
        ``(n, L)`` pixels, NaN where either point is unknown.
    """
    return np.linalg.norm((to_array(predicted) - to_array(truth)) * _scale(size, side), axis=-1)


def sum_of_distances(predicted: Points, truth: Points, size: Size, side: float = 256) -> Array:
    """Tai-Chi-HD as StableKeypoints measures it: the sum of the distances of the joints that are known.

    A joint that is unknown (or was made so because it is hidden) adds nothing: an image with fewer joints has a
    smaller sum.

    Args:
        predicted: ``(n, L, 2)`` pixels.
        truth: The same; NaN where unknown or hidden.
        size: Of the images that the points belong to.
        side: See :func:`distances`.

    Returns:
        ``(n,)`` pixels; NaN for an image without a known joint. The table gives the mean over images.
    """
    gaps = distances(predicted, truth, size, side)
    return np.where(np.isnan(gaps).all(-1), np.nan, np.nansum(gaps, -1))


def sum_of_absolutes(predicted: Points, truth: Points, size: Size, side: float = 256) -> float:
    """Tai-Chi-HD as AutoLink and those before it measure it: the mean absolute error of a coordinate, summed.

    Args:
        predicted: ``(n, L, 2)`` pixels.
        truth: The same; NaN where unknown.
        size: Of the images that the points belong to.
        side: See :func:`distances`; AutoLink multiplies coordinates from 0 to 1 by 255.

    Returns:
        Sum over the 2 L coordinates of the mean over the images that show the joint, in pixels.
    """
    gaps = np.abs(to_array(predicted) - to_array(truth)) * _scale(size, side)
    return float(np.nansum(known_mean(gaps, 0)))


def exchanged(points: Points, pairs: Pairs) -> Array:
    """Points with left and right exchanged.

    Args:
        points: ``(..., L, 2)``.
        pairs: Indices to exchange, such as ``Info.flip_pairs``. A pair that names an index again overwrites what the
            first one put there; so does the table of pairs that the published errors on Human3.6M were made with,
            ``ulm.datasets.real.human36m.PUBLISHED_SWAPS``.
    """
    points = to_array(points)
    order = np.arange(points.shape[-2])
    for left, right in pairs:
        order[left], order[right] = right, left
    return points[..., order, :]


def nearer(predicted: Points, truth: Points, pairs: Pairs, size: Size = 1, side: float = 1) -> tuple[Array, Array]:
    """Of the annotation and the annotation with sides exchanged, the one nearer to a prediction, image by image.

    Args:
        predicted: ``(n, L, 2)`` pixels.
        truth: The same; NaN where unknown.
        pairs: See :func:`exchanged`.
        size: Of the images that the points belong to.
        side: See :func:`distances`.

    Returns:
        ``(n, L, 2)`` the nearer annotation, in mean distance; ``(n,)`` bool, whether it is the exchanged one.
    """
    truth = to_array(truth)
    other = exchanged(truth, pairs)
    gaps = [known_mean(distances(predicted, points, size, side), 1, np.inf) for points in (truth, other)]
    better = gaps[1] < gaps[0]
    return np.where(better[:, None, None], other, truth), better


def fit_either_way(
    found: Points,
    truth: Points,
    pairs: Pairs,
    regressor: Regressor,
    size: Size,
    stop: int = 10,
    rounds: int = 50,
) -> LinearMap:
    """Fit a regressor that may take left for right: the rule "orientation_invariant" for Human3.6M.

    A body seen from behind looks much like one seen from the front. So, after a fit, each image's annotation is
    exchanged for its mirror (:func:`exchanged`) where that is nearer to the prediction, and the regressor is fitted
    again, until a round exchanges at most ``stop`` images.

    Args:
        found: ``(n, K, 2)`` discovered landmarks, pixels.
        truth: ``(n, L, 2)``; NaN where unknown.
        pairs: See :func:`exchanged`.
        regressor: How to fit.
        size: Of the images.
        stop: Exchanges of one round that end it (10 in the released code).
        rounds: Fits at most; the released code has no bound.

    Returns:
        The last fit.

    Raises:
        InputError: ``rounds`` is not at least 1.
    """
    if rounds < 1:
        raise InputError(f"found rounds={rounds}, expected at least 1")
    target = to_array(truth)
    model = regressor.fit(found, target, size)
    for _ in range(rounds - 1):
        target, better = nearer(model.predict(found), target, pairs, size)
        if better.sum() <= stop:
            break
        model = regressor.fit(found, target, size)
    return model
