"""Errors from arrays: normalisers, NME, accuracy, matching, curves, and whether landmarks say anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from ulm.datasets.base import Info
from ulm.errors import InputError
from ulm.evaluation.arrays import Array, Groups, Points, Size, known_mean, to_array

YAW_RANGES = (-90, -60, -30, 30, 60, 90)
"""Degrees between which D-ULD tells faces apart (section 5)."""


def _eye_distance(truth: Array, groups: Groups, size: tuple[int, int]) -> Array:
    # A pupil is the mean of its points; it is known only where all of them are.
    left, right = (truth[:, list(group)].mean(1) for group in groups)
    return np.linalg.norm(left - right, axis=-1)


def _box_side(truth: Array, groups: Groups, size: tuple[int, int]) -> Array:
    low, high = np.where(np.isnan(truth), np.inf, truth).min(1), np.where(np.isnan(truth), -np.inf, truth).max(1)
    sides = high - low
    return np.sqrt(np.where((sides > 0).all(-1), sides.clip(0).prod(-1), np.nan))


def _image_side(truth: Array, groups: Groups, size: tuple[int, int]) -> Array:
    return np.full(len(truth), np.sqrt(size[0] * size[1]))


NORMALISERS: dict[str, Callable[[Array, Groups, tuple[int, int]], Array]] = {
    "outer-eye-corners": _eye_distance,
    "pupils": _eye_distance,
    "lower-lids": _eye_distance,
    "points": _eye_distance,
    "box": _box_side,
    "image": _image_side,
}
"""Lengths that errors are divided by. ``points`` is the distance of the data set's own ``normaliser_points``; ``box``
the root of the area of the box round the annotated points; ``lower-lids`` (points 41 and 46) is Mallis's on MAFL."""

_POINTS: dict[int, dict[str, Groups]] = {
    5: {"pupils": ((0,), (1,))},
    68: {
        "outer-eye-corners": ((36,), (45,)),
        "pupils": (tuple(range(36, 42)), tuple(range(42, 48))),
        "lower-lids": ((41,), (46,)),
    },
}
"""Which points the eyes are, by the number of points: MAFL's and AFLW's five, iBUG's 68."""


def normalising_lengths(truth: Points, info: Info, size: Size = 128, name: str | None = None) -> Array:
    """What the error of each image is divided by.

    Args:
        truth: ``(n, L, 2)`` in pixels, all points of the data set.
        info: The data set's; its normaliser and ``normaliser_points`` are the default.
        size: (height, width) of the images.
        name: A key of ``NORMALISERS``.

    Returns:
        ``(n,)`` in pixels; NaN where it is zero or its points are missing: such an image is left out and counted.

    Raises:
        InputError: An unknown name, or one that this annotation has no points for.
    """
    truth, name = to_array(truth), name or info.normaliser
    if name not in NORMALISERS:
        raise InputError(f"found normaliser {name!r}, expected one of {', '.join(NORMALISERS)}")
    groups: Groups = ()
    if name not in ("box", "image"):
        groups = info.normaliser_points if name in ("points", info.normaliser) else ()
        if not groups:
            groups = _POINTS.get(truth.shape[1], {}).get(name, ())
        if len(groups) != 2:
            raise InputError(f"found normaliser {name!r} but no points for it in {info.name}; use box or image")
    lengths = NORMALISERS[name](truth, groups, (size, size) if isinstance(size, int) else size)
    return np.where(lengths > 0, lengths, np.nan)


def select_points(truth: Points, groups: Groups) -> Array:
    """``(n, L, 2)`` to ``(n, len(groups), 2)``: each group of landmarks averaged to one point."""
    truth = to_array(truth)
    return np.stack([truth[:, list(group)].mean(1) for group in groups], axis=1)


def errors(predicted: Points, truth: Points, norm: Points, visible: Points | None = None) -> Array:
    """Distances in percent of ``norm``.

    Args:
        predicted: ``(n, L, 2)`` pixels.
        truth: The same; NaN where unknown.
        norm: ``(n,)`` pixels, see :func:`normalising_lengths`.
        visible: ``(n, L)``; where it is false the point is left out.

    Returns:
        ``(n, L)``; NaN for what is left out: unknown or hidden points, and images whose ``norm`` is zero or NaN.
    """
    lengths = np.where(to_array(norm) > 0, to_array(norm), np.nan)
    distances = 100 * np.linalg.norm(to_array(predicted) - to_array(truth), axis=-1) / lengths[:, None]
    return distances if visible is None else np.where(to_array(visible) > 0, distances, np.nan)


def average(values: Array, over: str = "image") -> float:
    """One number from errors ``(n, L)``. The three ways differ only where points are missing.

    Args:
        values: See :func:`errors`.
        over: ``image``: first over the points of each image (StableKeypoints); ``point``: over all points alike
            (AutoLink); ``landmark``: first over the images of each landmark (Mallis, backward).
    """
    axis = {"image": 1, "point": None, "landmark": 0}
    if over not in axis:
        raise InputError(f"found average over {over!r}, expected one of {', '.join(axis)}")
    return float(known_mean(values if over == "point" else known_mean(values, axis[over])))


def nme(predicted: Points, truth: Points, norm: Points, visible: Points | None = None, over: str = "image") -> float:
    """Normalised mean error in percent: the mean distance over the normaliser (the papers call it MSE)."""
    return average(errors(predicted, truth, norm, visible), over)


def cumulative_curve(per_landmark: Points) -> Array:
    """Mean error of the best 1, 2, ..., L landmarks (D-ULD, Figure 5): ``(L,)``, never falling."""
    ordered = np.sort(to_array(per_landmark))
    ordered = ordered[~np.isnan(ordered)]
    return np.cumsum(ordered) / np.arange(1, len(ordered) + 1)


def accuracy_curve(
    predicted: Points,
    truth: Points,
    distances: Points,
    norm: Points | None = None,
    scale: float = 1.0,
    strict: bool = False,
) -> Array:
    """Percentage of points within each distance of the truth, point by point.

    Args:
        predicted: ``(n, L, 2)`` pixels; a missing prediction is a miss.
        truth: The same; a missing truth is left out.
        distances: ``(D,)``: pixels after ``scale``, or fractions of ``norm``.
        norm: ``(n,)`` lengths, such as the distance of the eyes.
        scale: Factor on all coordinates. BBC-Pose's toolkit halves them, so its 6 pixels are ``scale=0.5`` in the
            frame of the annotation: 12 pixels there, and something else again in a resized crop.
        strict: ``<`` instead of ``<=`` (the released DeepFashion scores).

    Returns:
        ``(D, L)`` in percent; NaN for a landmark that is never annotated.
    """
    predicted, truth = to_array(predicted), to_array(truth)
    gaps = scale * np.linalg.norm(predicted - truth, axis=-1)
    if norm is not None:
        gaps = gaps / to_array(norm)[:, None]
    known = ~np.isnan(truth).any(-1) & (True if norm is None else (to_array(norm) > 0)[:, None])
    gaps = np.where(np.isnan(gaps), np.inf, gaps)[None]
    bounds = np.atleast_1d(to_array(distances))[:, None, None]
    hits = gaps < bounds if strict else gaps <= bounds
    return 100 * known_mean(np.where(known, hits, np.nan), 1)


def pck(predicted: Points, truth: Points, threshold: float, norm: Points | None = None, strict: bool = False) -> float:
    """Percentage of correct keypoints: within ``threshold`` pixels, or times ``norm``; all points alike."""
    flat = [to_array(points).reshape(1, -1, 2) for points in (predicted, truth)]
    if norm is not None:
        wide = np.repeat(to_array(norm), to_array(truth).shape[1])[None, :, None]
        flat = [points / np.where(wide > 0, wide, np.nan) for points in flat]
    return float(known_mean(accuracy_curve(flat[0], flat[1], [threshold], strict=strict)))


def match(found: Points, truth: Points, norm: Points | None = None, one_to_one: bool = True) -> NDArray[np.int64]:
    """Which discovered landmark stands for each annotated one, by the mean distance over images.

    Args:
        found: ``(n, K, 2)``, of images that accuracy is not measured on.
        truth: ``(n, L, 2)``.
        norm: ``(n,)``; distances are divided by it.
        one_to_one: Hungarian assignment; with K < L some points stay without (-1). Otherwise the nearest, used freely.

    Returns:
        ``(L,)`` indices of discovered landmarks.
    """
    found, truth = to_array(found), to_array(truth)
    lengths = np.ones(len(found)) if norm is None else to_array(norm)
    gaps = [errors(found, truth[:, [index]], lengths) for index in range(truth.shape[1])]
    cost = np.stack([known_mean(gap, 0, empty=np.inf) for gap in gaps], axis=1)
    if not one_to_one:
        return np.where(np.isfinite(cost).any(0), cost.argmin(0), -1)
    worst = cost[np.isfinite(cost)].max(initial=0)
    rows, columns = linear_sum_assignment(np.where(np.isfinite(cost), cost, 1e3 * (worst + 1)))
    matched = np.full(truth.shape[1], -1)
    matched[columns] = np.where(np.isfinite(cost[rows, columns]), rows, -1)
    return matched


def raw_accuracy(
    found: Points,
    truth: Points,
    matched: ArrayLike,
    threshold: float = 0.2,
    norm: Points | None = None,
    scale: float = 1.0,
) -> Array:
    """Accuracy of each annotated point by its matched landmark, without a regressor: ``(L,)`` in percent.

    IMM, Figure 4 top (6 pixels at ``scale`` 0.5) and D-ULD, Figure 4 (0.2 of the distance of the eyes). Points
    without a match are NaN. Arguments as in :func:`match` and :func:`accuracy_curve`.
    """
    matched = np.asarray(matched)
    accuracy = accuracy_curve(to_array(found)[:, matched], truth, [threshold], norm, scale)[0]
    return np.where(matched >= 0, accuracy, np.nan)


def by_range(values: Points, keys: Points, edges: Sequence[float] = YAW_RANGES) -> Array:
    """Mean of ``values`` ``(n,)`` by range of ``keys``: errors by yaw (D-ULD, Figure 3); the last edge counts."""
    values, keys = to_array(values), to_array(keys)
    which = np.digitize(keys, edges) - 1
    which = np.where(keys == edges[-1], len(edges) - 2, which)
    return np.array([known_mean(values[which == index]) for index in range(len(edges) - 1)])


@dataclass(frozen=True)
class Collapse:
    """Landmarks that say nothing. It is true if there are any.

    Attributes:
        duplicates: Pairs that lie on one place in the mean.
        frozen: Landmarks that do not move from image to image.
        messages: The same in words.
    """

    duplicates: list[tuple[int, int]]
    frozen: list[int]
    messages: list[str]

    def __bool__(self) -> bool:
        return bool(self.messages)


def spread(found: Points, size: Size = 128) -> dict[str, Array]:
    """How far landmarks lie from one another and how far they move, in fractions of the image's side.

    Args:
        found: ``(n, K, 2)`` pixels.
        size: Of the images.

    Returns:
        ``apart`` ``(K, K)``: mean distance of each pair (NaN on the diagonal); ``motion`` ``(K,)``: root mean square
        distance of each landmark from its own mean over the images.
    """
    places = _fractions(found, size)
    apart = np.stack([known_mean(np.linalg.norm(places - places[:, [k]], axis=-1), 0) for k in range(places.shape[1])])
    np.fill_diagonal(apart, np.nan)
    return {"apart": apart, "motion": _motion(places)}


def _fractions(found: Points, size: Size) -> Array:
    height, width = (size, size) if isinstance(size, int) else size
    return to_array(found) / np.array([width, height])


def _motion(places: Array) -> Array:
    moved: Array = np.sqrt(known_mean(((places - known_mean(places, 0)) ** 2).sum(-1), 0))
    return moved


def collapse(found: Points, truth: Points | None = None, size: Size = 128) -> Collapse:
    """Look for landmarks that lie on each other or stand still.

    Two landmarks closer than 2 % of the image's side in the mean are one. A landmark is frozen if it moves less than
    a quarter as much as the annotated points do in the median, or, without annotation, less than 0.5 % of the side.
    One image cannot show that a landmark is frozen.
    """
    looks = spread(found, size)
    pairs = [(int(i), int(j)) for i, j in np.argwhere(np.triu(looks["apart"] < 0.02))]
    bound = 0.005 if truth is None else 0.25 * np.nanmedian(_motion(_fractions(truth, size)))
    frozen = np.flatnonzero(looks["motion"] < bound).tolist() if len(to_array(found)) > 1 else []
    messages = []
    if pairs:
        shown = ", ".join(f"{i} and {j}" for i, j in pairs[:5]) + (", ..." if len(pairs) > 5 else "")
        messages.append(f"landmarks collapse: {shown} lie on one place")
    if frozen:
        messages.append(f"landmarks freeze: {', '.join(map(str, frozen))} hardly move from image to image")
    return Collapse(pairs, frozen, messages)


def collapsed(found: Points, truth: Points | None = None, size: Size = 128) -> bool:
    """Whether :func:`collapse` finds anything."""
    return bool(collapse(found, truth, size))
