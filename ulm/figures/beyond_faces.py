"""Drawings of IMM beyond still faces: joints by matched and by regressed landmarks, small curves, grids of views."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ulm.figures.base import (
    DARK,
    PALE,
    WIDTH,
    Array,
    Values,
    _marker_size,
    _plain_ticks,
    _plot,
    as_array,
    as_images,
    drawing,
    label_row,
    label_top,
    mark_discovered,
    mark_predicted,
    mark_truth,
    picture_grid,
    show_image,
)


@drawing
def matched_and_regressed(images: Values, matched: Values, regressed: Values, truth: Values) -> Figure:
    """IMM, Figure 4: above the landmark that stands for each joint, below what a regressor predicts.

    Both are tied by a line to the truth, an empty circle; regressed points are crosses.

    Args:
        images: ``(B, 3, H, W)``.
        matched: ``(B, L, 2)`` pixels, one discovered landmark a joint.
        regressed: ``(B, L, 2)``.
        truth: ``(B, L, 2)``.
    """
    pictures, wanted = as_images(images), as_array(truth)
    columns = len(pictures)
    figure, axes = picture_grid(2, columns, left=0.85)
    size = _marker_size(columns)
    for line, name, values in zip(axes, ("raw", "regressed"), (matched, regressed), strict=True):
        points = as_array(values)
        label_row(line[0], name)
        for axis, image, place, goal in zip(line, pictures, points, wanted, strict=True):
            show_image(axis, image)
            _ties(axis, place, goal)
            mark_truth(axis, goal, size)
            if name == "raw":
                mark_discovered(axis, place, 0.6 * size)
            else:
                mark_predicted(axis, place, 0.5 * size)
    return figure


def _ties(axis: Axes, points: Array, truth: Array) -> None:
    """Thin lines between points and where they should be."""
    halo = [patheffects.withStroke(linewidth=2.4, foreground=DARK)]
    for start, end in zip(points, truth, strict=True):
        axis.plot(*np.stack([start, end]).T, color="white", linewidth=1.0, path_effects=halo, zorder=3)


@drawing
def small_curves(
    panels: Mapping[str, Mapping[str, tuple[Values, Values]]],
    ylabel: str,
    xlabels: Sequence[str],
    level: float | None = None,
    log: Collection[str] = (),
    columns: int = 3,
) -> Figure:
    """Several small plots with one vertical axis; a name has one colour, dash and marker in all of them.

    Args:
        panels: Title to name to (x, y).
        ylabel: Words at the left.
        xlabels: Words below each plot, or one for all.
        level: Where to draw an upright line in the plots whose horizontal axis is linear.
        log: Titles of plots whose horizontal axis is logarithmic.
        columns: Plots in a row.
    """
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, 2.35 * rows + 0.35), squeeze=False, sharey=True)
    for place, (axis, (title, curves)) in enumerate(zip(axes.flat, panels.items(), strict=False)):
        for name, (x, y) in curves.items():
            few = {} if len(as_array(x)) <= 12 else {"marker": ""}
            _plot(axis, names.index(name), x, y, name, **few)
        axis.set_title(title)
        axis.set_xlabel(xlabels[place % len(xlabels)])
        if title in log:
            axis.set_xscale("log")
            _log_counts(axis)
        elif level is not None:
            axis.axvline(level, color=PALE, linewidth=1.2, linestyle=(0, (4, 2)), zorder=1)
        if place % columns == 0:
            axis.set_ylabel(ylabel)
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_axis_off()
    handles = {h.get_label(): h for axis in axes.flat for h in axis.get_lines() if h.get_label() in names}
    figure.tight_layout(rect=(0, 0.3 / (2.35 * rows + 0.35), 1, 1))
    figure.legend([handles[name] for name in names], names, loc="lower center", ncols=min(4, len(names)))
    return figure


def _log_counts(axis: Axes) -> None:
    """Whole numbers 1, 2, 5, 10, ... instead of powers on a logarithmic horizontal axis, at most six of them."""
    low, high = axis.get_xlim()
    ticks = [digit * 10**power for power in range(7) for digit in (1, 2, 5) if low <= digit * 10**power <= high]
    ticks = ticks if len(ticks) <= 6 else [tick for tick in ticks if str(tick)[0] == "1"]
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.xaxis.set_minor_locator(plt.NullLocator())


@drawing
def view_grid(
    images: Values,
    landmarks: Values,
    columns: int,
    which: Sequence[int] | None = None,
    rows: Sequence[str] = (),
    tops: Sequence[str] = (),
) -> Figure:
    """IMM, Figure 6: chosen landmarks over a grid of two factors, such as elevation (down) and azimuth (across).

    Args:
        images: ``(R * C, 3, H, W)``, row by row.
        landmarks: ``(R * C, K, 2)`` pixels.
        columns: C.
        which: Landmarks to show; all by default.
        rows: Words at the left of the rows.
        tops: Words above the columns.
    """
    pictures, points = as_images(images), as_array(landmarks)
    left = 0.15 + 0.068 * max(map(len, rows)) if rows else 0.0
    lines = -(-len(pictures) // columns)
    figure, axes = picture_grid(lines, columns, largest=1.3, left=left)
    for index, (axis, image) in enumerate(zip(axes.flat, pictures, strict=False)):
        show_image(axis, image)
        mark_discovered(axis, points[index], 0.8 * _marker_size(columns), which)
    for axis, words in zip(axes[:, 0], rows, strict=False):
        label_row(axis, words)
    for axis, words in zip(axes[0], tops, strict=False):
        label_top(axis, words)
    return figure


@drawing
def residuals(
    x: Values, curves: Mapping[str, Values], xlabel: str, ylabel: str, level: float | None = None, words: str = ""
) -> Figure:
    """Curves on a logarithmic vertical axis, with an upright line that has a name.

    Args:
        x: ``(n,)``.
        curves: Name to ``(n,)``.
        xlabel: Words below.
        ylabel: Words at the left.
        level: Where the upright line stands.
        words: Its name.
    """
    figure, axis = plt.subplots(figsize=(6.2, 3.2))
    for index, (name, y) in enumerate(curves.items()):
        _plot(axis, index, x, y, name)
    axis.set(xlabel=xlabel, ylabel=ylabel, yscale="log")
    _plain_ticks(axis)
    if level is not None:
        axis.axvline(level, color=PALE, linewidth=1.2, linestyle=(0, (4, 2)), zorder=1)
        axis.annotate(words, (level, 1), xycoords=("data", "axes fraction"), xytext=(3, -3),
                      textcoords="offset points", va="top", fontsize=8, color="#5A5A5A")  # fmt: skip
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=min(3, len(curves)))
    return figure
