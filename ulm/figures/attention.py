"""Attention maps of a diffusion model: where tokens look in an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Polygon

from ulm.figures.base import (
    _BOXES,
    COLOURS,
    DARK,
    MARKERS,
    PALE,
    WIDTH,
    Array,
    Values,
    _frame,
    _levels,
    _marker_size,
    _plot,
    as_array,
    as_images,
    diagram_box,
    drawing,
    label_row,
    label_top,
    mark_discovered,
    one_axis,
    picture_grid,
    show_image,
)


@drawing
def token_rows(
    images: Values, maps: Values, names: Sequence[str] = (), styles: Sequence[int] | None = None, marked: bool = True
) -> Figure:
    """Images, and below them a row a token: its map laid over the image, its maximum marked.

    Args:
        images: ``(B, 3, H, W)``.
        maps: ``(B, P, s, s)``; each is drawn from its own minimum to its own maximum.
        names: Words at the left of the P rows.
        styles: Index of the landmark whose colour and shape marks each row; 0 to P - 1 by default.
        marked: Mark the maxima.
    """
    pictures, values = as_images(images), as_array(maps)
    tokens = values.shape[1]
    left = 0.15 + 0.068 * max(map(len, names)) if names else 0.0
    figure, axes = picture_grid(tokens + 1, len(pictures), largest=1.3, left=left)
    for column, image in enumerate(pictures):
        show_image(axes[0, column], image)
        for row in range(tokens):
            axis, map_ = axes[row + 1, column], values[column, row]
            _overlay(axis, image, map_)
            if marked:
                place = np.full((tokens + 1 + max(styles or [0]), 2), np.nan)
                index = row if styles is None else styles[row]
                place[index] = _maximum(map_, image.shape)
                mark_discovered(axis, place, _marker_size(len(pictures)), [index])
    for row, name in enumerate(names):
        label_row(axes[row + 1, 0], name)
    return figure


@drawing
def word_maps(image: Values, maps: Values, words: Sequence[str]) -> Figure:
    """An image, and beside it the maps of some words laid over it.

    Args:
        image: ``(3, H, W)``.
        maps: ``(P, s, s)``; each is drawn from its own minimum to its own maximum.
        words: P words, written above.
    """
    picture, values = as_images(as_array(image)[None])[0], as_array(maps)
    figure, axes = picture_grid(1, len(values) + 1, aspect=1.12, largest=1.6)
    show_image(axes[0, 0], picture)
    for axis, map_, word in zip(axes[0, 1:], values, words, strict=True):
        _overlay(axis, picture, map_)
        label_top(axis, word)
    return figure


def _overlay(axis: Axes, image: Array, map_: Array) -> None:
    """A map, purple to yellow, over the image in grey; where the map is low the image shows."""
    grey = np.repeat(image.mean(-1, keepdims=True), 3, axis=-1)
    show_image(axis, 0.15 + 0.85 * grey)
    height, width = image.shape[:2]
    low, high = float(map_.min()), float(map_.max())
    share = (map_ - low) / max(high - low, 1e-12)
    axis.imshow(share, extent=(0, width, height, 0), cmap="plasma", vmin=0, vmax=1, alpha=0.25 + 0.6 * share)
    axis.set(xlim=(0, width), ylim=(height, 0))


def _maximum(map_: Array, shape: Sequence[int]) -> Array:
    """Place of a map's largest cell in pixels of an image of ``shape`` (height, width, ...)."""
    row, column = np.unravel_index(int(map_.argmax()), map_.shape)
    cells = (np.array([column, row]) + 0.5) / np.array(map_.shape[::-1])
    return np.asarray(cells * np.array([shape[1], shape[0]]))


@drawing
def map_rows(rows: Mapping[str, Values], labels: Sequence[str] = (), marked: bool = False) -> Figure:
    """Rows of maps with their names at the left, cell by cell; the maps of a column share one scale.

    Args:
        rows: Name to ``(P, h, w)``; all of the same P, each row of its own size.
        labels: Words above the P columns.
        marked: A cross at each map's largest cell.
    """
    values = {name: as_array(maps) for name, maps in rows.items()}
    columns = len(next(iter(values.values())))
    left = 0.15 + 0.068 * max(map(len, values))
    figure, axes = picture_grid(len(values), columns, largest=1.5, left=left)
    for column in range(columns):
        top = max(float(maps[column].max()) for maps in values.values())
        for line, maps in zip(axes, values.values(), strict=True):
            map_ = maps[column]
            show_image(line[column], map_, cmap="viridis", vmin=0, vmax=top, interpolation="nearest")
            if marked:
                line[column].plot(*_maximum(map_, map_.shape), "+", color=COLOURS[1], markersize=9, markeredgewidth=1.6)
    for line, name in zip(axes, values, strict=True):
        label_row(line[0], name)
    for axis, words in zip(axes[0], labels, strict=False):
        label_top(axis, words)
    return figure


@drawing
def scatter(
    x: Values, y: Values, xlabel: str, ylabel: str, marked: Values | None = None, names: Sequence[str] = ("", "")
) -> Figure:
    """Points in the plane; those that ``marked`` ``(n,)`` says are filled, the others hollow.

    Args:
        x: ``(n,)``.
        y: ``(n,)``.
        xlabel: Words below.
        ylabel: Words at the left.
        marked: Truth values; None: all.
        names: What marked and other points are called.
    """
    figure, axis = one_axis()
    across, up = as_array(x), as_array(y)
    chosen = np.ones(len(across), bool) if marked is None else as_array(marked) > 0
    axis.scatter(across[~chosen], up[~chosen], s=22, facecolors="none", edgecolors=PALE, label=names[1] or None)
    axis.scatter(
        across[chosen], up[chosen], s=26, c=COLOURS[0], edgecolors="white", linewidths=0.5, label=names[0] or None
    )
    axis.set(xlabel=xlabel, ylabel=ylabel)
    if any(names):
        axis.legend()
    return figure


@drawing
def candidates(images: Values, places: Values, chosen: Values) -> Figure:
    """Furthest points: the places of all candidates as small dots, those that were chosen as landmarks.

    Args:
        images: ``(B, 3, H, W)``.
        places: ``(B, P, 2)`` pixels, of the candidates.
        chosen: ``(B, K, 2)`` pixels.
    """
    pictures, every, taken = as_images(images), as_array(places), as_array(chosen)
    figure, axes = picture_grid(1, len(pictures), largest=2.2)
    for index, (axis, image) in enumerate(zip(axes[0], pictures, strict=True)):
        show_image(axis, image)
        mark_discovered(axis, taken[index], _marker_size(len(pictures)))
        axis.scatter(*every[index].T, s=7, c="white", edgecolors=DARK, linewidths=0.6, zorder=5)
    return figure


# --- the method -----------------------------------------------------------------------------------------------------


@drawing
def token_overview(pictures: Mapping[str, Values] | None = None) -> Figure:
    """StableKeypoints as a diagram (our drawing of Figure 3).

    Args:
        pictures: Images to put in: ``image``, ``warped`` ``(3, H, W)``; ``maps``, ``warped maps``, ``returned maps``
            and ``target`` ``(h, w)``. What is not given is an empty frame.
    """
    figure = plt.figure(figsize=(WIDTH, 0.47 * WIDTH))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, 100), ylim=(0, 47))
    axis.set_axis_off()
    given, side = pictures or {}, 12.0
    frames = {
        "image": (1, 29, "image $X$"),
        "warped": (1, 10.5, "view $T(X)$"),
        "maps": (45.5, 29, r"map $\tilde{M}_n(X)$"),
        "target": (63.5, 29, "Gaussian $G_n$ at\nits maximum, eq. 8"),
        "warped maps": (45.5, 10.5, r"map $\tilde{M}_n(T(X))$"),
        "returned maps": (63.5, 10.5, "turned back by $T^{-1}$"),
    }
    for name, (left, bottom, words) in frames.items():
        _frame(figure, axis, (left, bottom, side), words, given.get(name), above=bottom > 20)
    diagram_box(axis, (15.5, 32, 8.5, 6), "encoder", "network")
    diagram_box(axis, (15.5, 13.5, 8.5, 6), "encoder", "network")
    corners = [(27, 11), (27, 40.5), (42, 37), (42, 14.5)]
    axis.add_patch(Polygon(corners, facecolor=_BOXES["network"], edgecolor=DARK, linewidth=1))
    axis.text(34.5, 25.7, "U-Net, frozen:\ncross-attentions\n7 to 10,\neqs. 2, 3", ha="center", va="center", fontsize=8)
    diagram_box(axis, (23.5, 1.5, 22, 5.5), "tokens $e_1 \\ldots e_N$: learned", "points")
    diagram_box(axis, (81, 32, 18, 6), r"$\mathcal{L}_\mathrm{localize}$, eq. 6", "loss")
    diagram_box(axis, (81, 13.5, 14.5, 6), r"$\mathcal{L}_\mathrm{equiv}$, eq. 5", "loss")
    straight = (
        ((13, 35), (15.5, 35)), ((13, 16.5), (15.5, 16.5)), ((24, 35), (27, 35)), ((24, 16.5), (27, 16.5)),
        ((7, 29), (7, 22.5)), ((34.5, 7), (34.5, 12.6)), ((42, 35), (45.5, 35)), ((42, 16.5), (45.5, 16.5)),
        ((57.5, 35), (63.5, 35)), ((57.5, 16.5), (63.5, 16.5)), ((75.5, 35), (81, 35)), ((75.5, 16.5), (81, 16.5)),
    )  # fmt: skip
    for start, end in straight:
        _arrow(axis, [start, end])
    axis.text(8, 25.7, "$T$", fontsize=9, va="center")
    _arrow(axis, [(48.5, 29), (48.5, 25.7), (91, 25.7), (91, 19.5)])
    _arrow(axis, [(60.3, 35), (60.3, 27.6), (86, 27.6), (86, 32)])
    _arrow(axis, [(88, 13.5), (88, 4.2), (45.5, 4.2)], dashed=True)
    _arrow(axis, [(97.5, 32), (97.5, 4.2), (88, 4.2)], dashed=True, head=False)
    axis.text(68, 5, "gradient", ha="center", va="bottom", fontsize=8)
    return figure


def _arrow(axis: Axes, corners: Sequence[tuple[float, float]], dashed: bool = False, head: bool = True) -> None:
    """An arrow along straight pieces; dashed ones are for gradients."""
    style: dict[str, Any] = {"color": COLOURS[1] if dashed else DARK, "linewidth": 1.2}
    style["linestyle"] = (0, (3, 2)) if dashed else "-"
    last = -1 if head else len(corners)
    axis.plot(*np.array(corners[:last] if head else corners).T, **style, solid_capstyle="butt")
    if head:
        patch = FancyArrowPatch(
            corners[-2], corners[-1], arrowstyle="-|>", mutation_scale=10, shrinkA=0, shrinkB=0, **style
        )
        axis.add_patch(patch)


# --- results ----------------------------------------------------------------------------------------------------------


@drawing
def dot_rows(rows: Mapping[str, Mapping[str, float]], xlabel: str, level: float | None = None) -> Figure:
    """A line a row, and on it a marker for each name at its number: who is before whom, row by row.

    Args:
        rows: Row to name to number; a name may be missing from some rows.
        xlabel: Words below.
        level: Where to draw an upright line.
    """
    names = list(dict.fromkeys(name for line in rows.values() for name in line))
    left = 0.3 + 0.072 * max(map(len, rows))
    height = 0.3 * len(rows) + 0.95
    figure = plt.figure(figsize=(WIDTH, height))
    axis = figure.add_axes((left / WIDTH, 0.8 / height, 1 - (left + 0.15) / WIDTH, 1 - 0.9 / height))
    for index, name in enumerate(names):
        places = [(line[name], row) for row, line in enumerate(rows.values()) if name in line]
        marker = MARKERS[index % len(MARKERS)]
        style = {"s": 52, "c": COLOURS[index % len(COLOURS)], "edgecolors": "white", "linewidths": 0.7, "zorder": 3}
        axis.scatter(*np.array(places).T, marker=marker, label=name, **style)
    if level is not None:
        axis.axvline(level, color=PALE, linewidth=1, linestyle="--")
    axis.set(xlabel=xlabel, ylim=(len(rows) - 0.5, -0.5), yticks=range(len(rows)), yticklabels=list(rows))
    axis.set_xlim(0, None)
    axis.grid(visible=False, axis="x")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.42 / (height - 0.9)), ncols=max(1, min(5, len(names))))
    return figure


@drawing
def error_by_images(
    curves: Mapping[str, Mapping[int, float]], xlabel: str, ylabel: str, levels: Mapping[str, float] | None = None
) -> Figure:
    """Error against a number of images, on a logarithmic axis whose ticks are those numbers.

    Args:
        curves: Name to number of images to error; an empty curve leaves the levels alone.
        xlabel: Words below.
        ylabel: Words at the left.
        levels: Name to error, such as baselines: dashed lines.
    """
    figure, axis = one_axis()
    for index, (name, curve) in enumerate(curves.items()):
        if curve:
            _plot(axis, index, list(curve), list(curve.values()), name)
    counts = sorted({count for curve in curves.values() for count in curve}) or [1]
    every = [value for curve in curves.values() for value in curve.values()] + list((levels or {}).values())
    axis.set(xscale="log", xlabel=xlabel, ylabel=ylabel, ylim=(0, 1.12 * max(every, default=1.0)))
    axis.set_xticks(counts, [f"{count:,}" for count in counts])
    axis.xaxis.set_minor_locator(plt.NullLocator())
    _levels(axis, levels or {})
    if len(curves) > 1:
        axis.legend()
    return figure
