"""The style of all figures, the pictures of faces and landmarks, and the curves that every method shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from itertools import pairwise
from typing import Any, ParamSpec

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ulm import geometry
from ulm.datasets.base import Info
from ulm.errors import InputError

Array = NDArray[np.float64]
Values = ArrayLike | Tensor
P = ParamSpec("P")

WIDTH = 8.0
"""Width of a full figure in inches."""

# Okabe and Ito's seven, indigo, wine and pale grey. Two that are alike in some colour blindness have other shapes.
COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#332288", "#E69F00",
    "#F0E442", "#56B4E9", "#DDDDDD", "#CC79A7", "#882255",
)  # fmt: skip
MARKERS = ("o", "s", "^", "X", "d")
DARK, PALE = "#222222", "#8A8A8A"
STYLE: dict[str, Any] = {
    **sns.axes_style("ticks"),
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.dpi": 130,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.titlesize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "image.interpolation": "bilinear",
}


def drawing(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw in the book's style, and close: a notebook would else show the figure twice."""

    @wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with plt.rc_context(STYLE):
            figure = draw(*args, **kwargs)
        plt.close(figure)
        return figure

    return styled


def landmark_style(index: int) -> tuple[str, str]:
    """Colour and marker of landmark ``index``; the first fifty differ."""
    n = len(COLOURS)
    return COLOURS[index % n], MARKERS[(index + index // n) % len(MARKERS)]


# --- parts --------------------------------------------------------------------------------------------------------


def as_array(values: Values) -> Array:
    """Any array or tensor as float64."""
    return (values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)).astype(np.float64)


def as_images(images: Values) -> Array:
    """``(B, 3, H, W)``, or grey ``(B, H, W)``, of any kind, to ``(B, H, W, 3)`` in [0, 1]."""
    raw = images.detach().cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
    array = raw.astype(np.float64) / (255 if raw.dtype == np.uint8 else 1)
    if array.ndim == 3:
        array = array[:, None]
    if array.ndim != 4 or array.shape[1] not in (1, 3):
        raise InputError(f"found images of shape {raw.shape}, expected (B, 3, H, W)")
    return np.repeat(array, 3 // array.shape[1], axis=1).transpose(0, 2, 3, 1).clip(0, 1)


def picture_grid(
    rows: int, columns: int, aspect: float = 1.0, largest: float = 1.6, left: float = 0.0
) -> tuple[Figure, Any]:
    """A tight grid of square cells; ``left`` inches are kept for the rows' labels."""
    cell = min(largest, (WIDTH - left) / columns)
    size = (cell * columns + left, cell * aspect * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    figure.subplots_adjust(left=left / size[0], right=1, top=1, bottom=0, wspace=0.04, hspace=0.04)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure, axes


def show_image(axis: Axes, image: Array, **options: Any) -> None:
    """An image in the book's coordinates: pixel edges at whole numbers."""
    height, width = image.shape[:2]
    axis.imshow(image, extent=(0, width, height, 0), **options)
    axis.set(xlim=(0, width), ylim=(height, 0))
    axis.set_axis_off()


def label_row(axis: Axes, text: str) -> None:
    """Words at the left of a row."""
    axis.text(-0.06, 0.5, text, transform=axis.transAxes, ha="right", va="center", fontsize=8)


def label_top(axis: Axes, text: str) -> None:
    """Words above a column."""
    axis.text(0.5, 1.03, text, transform=axis.transAxes, ha="center", va="bottom", fontsize=8)


def mark_discovered(axis: Axes, points: Array, size: float = 26, which: Sequence[int] | None = None) -> None:
    """Discovered landmarks ``(K, 2)``, each in its colour and shape; ``which``: some of them."""
    for index in range(len(points)) if which is None else which:
        colour, marker = landmark_style(index)
        place = points[index : index + 1].T
        axis.scatter(*place, s=1.9 * size, c=DARK, marker=marker, linewidths=0, alpha=0.55, zorder=3)
        axis.scatter(*place, s=size, c=colour, marker=marker, edgecolors="white", linewidths=0.6, zorder=4)


def mark_truth(axis: Axes, points: Array, size: float = 26) -> None:
    """Annotated points ``(L, 2)``: empty circles."""
    thick = 1.3 if size > 40 else 0.9
    halo = [patheffects.withStroke(linewidth=2 * thick, foreground=DARK)]
    style = {"facecolors": "none", "edgecolors": "white", "linewidths": thick, "zorder": 5}
    axis.scatter(*points.T, s=size, marker="o", path_effects=halo, **style)


def mark_predicted(axis: Axes, points: Array, size: float = 20) -> None:
    """Regressed points ``(L, 2)``: dark crosses."""
    thick = 1.2 if size > 20 else 0.8
    halo = [patheffects.withStroke(linewidth=2 * thick, foreground="white")]
    axis.scatter(*points.T, s=size, marker="x", c=DARK, linewidths=thick, path_effects=halo, zorder=6)


def _marker_size(columns: int) -> float:
    return float(np.clip(230 / columns, 12, 60))


# --- images and points ----------------------------------------------------------------------------------------------


@drawing
def image_rows(
    rows: Mapping[str, Values], landmarks: Mapping[str, Values] | None = None, largest: float = 1.6
) -> Figure:
    """Rows of images with their names at the left.

    Args:
        rows: Name to ``(B, 3, H, W)``; all of the same B.
        landmarks: Name of a row to ``(B, K, 2)``, drawn on that row.
        largest: Side of a cell at most, in inches.
    """
    pictures = {name: as_images(images) for name, images in rows.items()}
    columns = max(map(len, pictures.values()))
    figure, axes = picture_grid(len(rows), columns, largest=largest, left=0.15 + 0.068 * max(map(len, rows)))
    for line, (name, images) in zip(axes, pictures.items(), strict=True):
        label_row(line[0], name)
        points = as_array(landmarks[name]) if landmarks and name in landmarks else None
        for index, image in enumerate(images):
            show_image(line[index], image)
            if points is not None:
                mark_discovered(line[index], points[index], _marker_size(columns))
    return figure


@drawing
def landmarks_on_images(images: Values, landmarks: Values, columns: int = 8, labels: Sequence[str] = ()) -> Figure:
    """Discovered landmarks: the same colour and shape is the same landmark on every image.

    Args:
        images: ``(B, 3, H, W)``.
        landmarks: ``(B, K, 2)`` pixels.
        columns: Images in a row.
        labels: Words above the images.
    """
    pictures, points = as_images(images), as_array(landmarks)
    columns = min(columns, len(pictures))
    figure, axes = picture_grid(-(-len(pictures) // columns), columns, aspect=1.12 if labels else 1.0, largest=2.2)
    for index, (axis, image) in enumerate(zip(axes.flat, pictures, strict=False)):
        show_image(axis, image)
        mark_discovered(axis, points[index], _marker_size(columns) * (1 if points.shape[1] <= 20 else 0.6))
        if labels:
            label_top(axis, labels[index])
    return figure


@drawing
def annotated_images(
    images: Values,
    landmarks: Values,
    visible: Values | None = None,
    skeleton: Sequence[tuple[int, int]] = (),
    columns: int = 8,
    labels: Sequence[str] = (),
) -> Figure:
    """Ground truth: joined by the skeleton where both ends are seen; hidden points are small hollow squares.

    Args:
        images: ``(B, 3, H, W)``.
        landmarks: ``(B, L, 2)`` pixels.
        visible: ``(B, L)``; without it all are drawn as visible.
        skeleton: Pairs of indices.
        columns: Images in a row.
        labels: Words above the images.
    """
    pictures, points = as_images(images), as_array(landmarks)
    seen = np.ones(points.shape[:2], bool) if visible is None else as_array(visible) > 0
    columns = min(columns, len(pictures))
    figure, axes = picture_grid(-(-len(pictures) // columns), columns, aspect=1.12 if labels else 1.0, largest=2.2)
    size = _marker_size(columns) / 6
    halo = [patheffects.withStroke(linewidth=2.2, foreground=DARK)]
    for index, (axis, image) in enumerate(zip(axes.flat, pictures, strict=False)):
        show_image(axis, image)
        place, shown = points[index], seen[index]
        for start, end in skeleton:
            if shown[start] and shown[end]:
                axis.plot(*place[[start, end]].T, color="white", linewidth=0.9, path_effects=halo)
        axis.scatter(*place[shown].T, s=size, c=COLOURS[6], edgecolors=DARK, linewidths=0.4, zorder=4)
        axis.scatter(*place[~shown].T, s=1.4 * size, marker="s", facecolors="none", edgecolors=COLOURS[1],
                     linewidths=0.7, zorder=4)  # fmt: skip
        if labels:
            label_top(axis, labels[index])
    return figure


@drawing
def quadruplets(source: Values, target: Values, reconstruction: Values, landmarks: Values) -> Figure:
    """IMM, Figure 2 left: a column each of source, target, redrawn target, and the target's landmarks on it."""
    pictures = [as_images(images) for images in (source, target, reconstruction, target)]
    names = ("source $x$", "target $x'$", r"redrawn $\hat{x}'$", r"landmarks $\Phi(x')$")
    columns, points = len(pictures[0]), as_array(landmarks)
    figure, axes = picture_grid(4, columns, left=1.0)
    for line, name, images in zip(axes, names, pictures, strict=True):
        label_row(line[0], name)
        for axis, image in zip(line, images, strict=True):
            show_image(axis, image)
    for axis, place in zip(axes[3], points, strict=True):
        mark_discovered(axis, place, _marker_size(columns))
    return figure


@drawing
def score_maps(
    images: Values, maps: Values, landmarks: Values, form: str = "mean", which: Sequence[int] | None = None
) -> Figure:
    """IMM, Figure 2 right: score maps, the marginals that the softmax makes of them on top and at the left.

    Args:
        images: ``(B, 3, H, W)``.
        maps: ``(B, K, h, w)`` before the softmax; bright is high.
        landmarks: ``(B, K, 2)`` pixels of the images.
        form: Softmax, see :func:`ulm.geometry.axis_marginals`.
        which: Landmarks to show; the first eight by default.
    """
    pictures, points, scores = as_images(images), as_array(landmarks), as_array(maps)
    shown = list(which) if which is not None else list(range(min(8, scores.shape[1])))
    if not isinstance(maps, Tensor):
        raise InputError("found score maps that are no tensor, expected a tensor (B, K, h, w)")
    along_x, along_y = (as_array(values) for values in geometry.axis_marginals(maps.detach().cpu(), form))
    lines = 2 if len(shown) > 4 else 1
    across = -(-len(shown) // lines)
    unit = WIDTH / (across + lines)
    figure = plt.figure(figsize=(WIDTH, unit * lines * len(pictures)))
    outer = GridSpec(len(pictures) * lines, lines + across, figure, 0, 0, 1, 1, wspace=0.06, hspace=0.08)
    for row, image in enumerate(pictures):
        axis = figure.add_subplot(outer[row * lines : (row + 1) * lines, :lines])
        show_image(axis, image)
        mark_discovered(axis, points[row], 70, shown)
        for place, k in enumerate(shown):
            cell = outer[row * lines + place // across, lines + place % across]
            _map_with_marginals(figure, cell, k, scores[row, k], along_x[row, k], along_y[row, k])
    return figure


def _map_with_marginals(figure: Figure, cell: Any, k: int, scores: Array, along_x: Array, along_y: Array) -> None:
    inner = cell.subgridspec(2, 2, width_ratios=(1, 4), height_ratios=(1, 4), wspace=0.05, hspace=0.05)
    colour, marker = landmark_style(k)
    axis = figure.add_subplot(inner[1, 1])
    show_image(axis, scores, cmap="viridis", interpolation="nearest")
    places = [values @ (np.arange(len(values)) + 0.5) for values in (along_x, along_y)]
    axis.scatter(*places, s=46, c=colour, marker=marker, edgecolors="white", linewidths=0.8, zorder=4)
    for spot, values, upright in ((inner[0, 1], along_x, True), (inner[1, 0], along_y, False)):
        side = figure.add_subplot(spot)
        bars = (side.bar, {"width": 1.0}) if upright else (side.barh, {"height": 1.0})
        bars[0](np.arange(len(values)) + 0.5, values, color=DARK, **bars[1])
        side.set(**({"xlim": (0, len(values))} if upright else {"ylim": (len(values), 0)}))
        if not upright:
            side.invert_xaxis()
        side.set_axis_off()


@drawing
def heatmaps(maps: Values, labels: Sequence[str] = (), columns: int = 10, shared: bool = True) -> Figure:
    """Maps ``(N, h, w)`` side by side; with ``shared`` on one scale, which is drawn at the right."""
    values = as_array(maps)
    columns = min(columns, len(values))
    limits = {"vmin": values.min(), "vmax": values.max()} if shared else {}
    figure, axes = picture_grid(-(-len(values) // columns), columns, aspect=1.14 if labels else 1.0)
    for index, (axis, map_) in enumerate(zip(axes.flat, values, strict=False)):
        show_image(axis, map_, cmap="viridis", interpolation="nearest", **limits)
        if labels:
            label_top(axis, labels[index])
    if shared:
        figure.colorbar(axes.flat[0].images[0], ax=axes.ravel().tolist(), fraction=0.03, pad=0.02)
    return figure


@drawing
def discovered_and_regressed(images: Values, found: Values, predicted: Values, truth: Values) -> Figure:
    """IMM, Figure 3 left: above discovered landmarks; below regressed ones (crosses) and the truth (circles)."""
    pictures = as_images(images)
    columns = len(pictures)
    points, guesses, wanted = as_array(found), as_array(predicted), as_array(truth)
    figure, axes = picture_grid(2, columns, left=0.85)
    size = _marker_size(columns)
    for index, image in enumerate(pictures):
        for line in range(2):
            show_image(axes[line, index], image)
        mark_discovered(axes[0, index], points[index], size)
        mark_truth(axes[1, index], wanted[index], size)
        mark_predicted(axes[1, index], guesses[index], 0.5 * size)
    label_row(axes[0, 0], "discovered")
    label_row(axes[1, 0], "regressed")
    return figure


# --- curves ---------------------------------------------------------------------------------------------------------

LINES = (COLOURS[0], COLOURS[1], COLOURS[2], COLOURS[3], COLOURS[8], COLOURS[4])
DASHES = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)), (0, (7, 2)))


def _plot(axis: Axes, index: int, x: Values, y: Values, name: str, **options: Any) -> None:
    """One line of several: colour, dash and marker differ."""
    style = {"marker": MARKERS[index % len(MARKERS)], "markersize": 4.5, "markeredgecolor": "white", **options}
    axis.plot(as_array(x), as_array(y), color=LINES[index % len(LINES)], linestyle=DASHES[index % len(DASHES)],
              label=name, **style)  # fmt: skip


def one_axis(height: float = 3.2, width: float = 6.2) -> tuple[Figure, Axes]:
    """A figure with one set of axes; inches."""
    figure, axis = plt.subplots(figsize=(width, height))
    return figure, axis


def _levels(axis: Axes, levels: Mapping[str, float]) -> None:
    """Dashed lines with their names; a name goes below its line where another line is close above."""
    known = sorted(levels.items(), key=lambda pair: pair[1])
    low, high = axis.get_ylim()
    for index, (name, value) in enumerate(known):
        axis.axhline(value, color=PALE, linewidth=1.2, linestyle=(0, (4, 2)), zorder=1)
        crowded = index + 1 < len(known) and known[index + 1][1] - value < 0.07 * (high - low)
        axis.annotate(
            name,
            (1, value),
            xycoords=("axes fraction", "data"),
            xytext=(-3, -2 if crowded else 2),
            textcoords="offset points",
            ha="right",
            va="top" if crowded else "bottom",
            fontsize=8,
            color="#5A5A5A",
        )


@drawing
def sample_efficiency(
    table: pd.DataFrame, paper: Mapping[int, tuple[float, float | None]] | None = None, name: str = "this run"
) -> Figure:
    """IMM, Figure 3 right: error against the number of labelled images, on logarithmic axes.

    Args:
        table: From :func:`ulm.evaluation.sample_efficiency`: ``labels``, ``nme``, ``std``, ``mean_shape``.
        paper: Number of labels to (error, deviation or None); a stand-in's error is no match for it.
        name: What the table's line is called.
    """
    figure, axis = one_axis()
    deviation = table["std"].fillna(0)
    _plot(axis, 0, table["labels"], table["nme"], name)
    # A band may not reach zero on a logarithmic axis.
    low = np.maximum(table["nme"] - deviation, 0.2 * table["nme"])
    axis.fill_between(table["labels"], low, table["nme"] + deviation, color=LINES[0], alpha=0.18, linewidth=0)
    _plot(axis, 2, table["labels"], table["mean_shape"], "mean shape of the same labels", linewidth=1.2)
    if paper:
        n, values = list(paper), [value for value, _ in paper.values()]
        spreads = [spread or 0 for _, spread in paper.values()]
        _plot(axis, 1, n, values, "paper, on MAFL")
        axis.errorbar(n, values, spreads, fmt="none", ecolor=LINES[1], capsize=3, linewidth=1)
    axis.set(xscale="log", yscale="log", xlabel="labelled images $n$", ylabel="forward NME (%)")
    _plain_ticks(axis)
    axis.legend()
    return figure


def _plain_ticks(axis: Axes) -> None:
    """Whole numbers instead of powers on a logarithmic axis of errors."""
    low, high = axis.get_ylim()
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 500) if low <= t <= high]
    axis.set_yticks(ticks, [f"{t:g}" for t in ticks])
    axis.yaxis.set_minor_locator(plt.NullLocator())


@drawing
def learning_curves(
    histories: Mapping[str, Sequence[Mapping[str, float]]],
    baselines: Mapping[str, float] | None = None,
    key: str = "forward_nme",
    ylabel: str = "forward NME (%)",
    log: bool = True,
) -> Figure:
    """Error against images seen, beside levels such as the mean shape and the untrained network.

    Args:
        histories: Name to a detector's ``history_``; entries without ``key`` are left out.
        baselines: Name to a level.
        key: What is drawn.
        ylabel: Words at the axis.
        log: Logarithmic number of images.
    """
    figure, axis = one_axis()
    for index, (name, history) in enumerate(histories.items()):
        known = [entry for entry in history if key in entry]
        _plot(axis, index, [entry["images_seen"] for entry in known], [entry[key] for entry in known], name)
    top = max([*(baselines or {}).values(), axis.get_ylim()[1]]) * 1.04
    axis.set(xlabel="images seen", ylabel=ylabel, ylim=(0, top))
    _levels(axis, baselines or {})
    if log:
        axis.set_xscale("log")
    _legend_below(axis, len(histories))
    return figure


def _legend_below(axis: Axes, entries: int) -> None:
    if entries > 1:
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=min(4, entries))


@drawing
def lines(
    x: Values,
    curves: Mapping[str, Values],
    xlabel: str,
    ylabel: str,
    xlog: bool = False,
    ylog: bool = False,
    levels: Mapping[str, float] | None = None,
) -> Figure:
    """Several curves over one axis, told apart by colour, dash and marker."""
    figure, axis = one_axis()
    few = len(as_array(x)) <= 30
    for index, (name, y) in enumerate(curves.items()):
        _plot(axis, index, x, y, name, **({} if few else {"marker": ""}))
    _levels(axis, levels or {})
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.set(**({"xscale": "log"} if xlog else {}), **({"yscale": "log"} if ylog else {}))
    _legend_below(axis, len(curves))
    return figure


@drawing
def cumulative_curve(curves: Mapping[str, Values], ylabel: str = "mean NME of the best (%)") -> Figure:
    """Mean error of the best 1, 2, ..., L landmarks (:func:`ulm.evaluation.cumulative_curve`), one line a name."""
    figure, axis = one_axis()
    for index, (name, values) in enumerate(curves.items()):
        y = as_array(values)
        _plot(axis, index, np.arange(1, len(y) + 1), y, name, markevery=max(1, len(y) // 10))
    axis.set(xlabel="number of landmarks", ylabel=ylabel, ylim=(0, None))
    axis.legend()
    return figure


@drawing
def errors_by_range(
    edges: Sequence[float],
    values: Mapping[str, Values],
    xlabel: str = "yaw (degrees)",
    ylabel: str = "forward NME (%)",
) -> Figure:
    """Bars of mean errors by range of yaw (:func:`ulm.evaluation.by_range`), hatched so that they differ in print."""
    figure, axis = one_axis()
    width, ticks = 0.8 / len(values), np.arange(len(edges) - 1)
    for index, (name, bars) in enumerate(values.items()):
        axis.bar(ticks + (index + 0.5) * width - 0.4, as_array(bars), width, label=name, color=LINES[index],
                 edgecolor="white", hatch=("", "//", "..", "xx")[index % 4])  # fmt: skip
    axis.set_xticks(ticks, [f"{low:g} to {high:g}" for low, high in pairwise(edges)])
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.grid(axis="x", visible=False)
    _legend_below(axis, len(values))
    return figure


# --- protocol -------------------------------------------------------------------------------------------------------


@drawing
def normaliser(images: Values, landmarks: Values, infos: Sequence[tuple[Info, str]]) -> Figure:
    """What an error is divided by, drawn on faces.

    Args:
        images: ``(B, 3, H, W)``.
        landmarks: ``(B, L, 2)`` pixels.
        infos: For each image whose points these are, and the normaliser to draw: ``box``, ``image``, or one of two
            groups of points.
    """
    from ulm.evaluation import normalising_lengths

    pictures, points = as_images(images), as_array(landmarks)
    figure, axes = picture_grid(1, len(pictures), aspect=1.2, largest=2.6)
    for axis, image, place, (info, name) in zip(axes[0], pictures, points, infos, strict=True):
        show_image(axis, image)
        size = (image.shape[0], image.shape[1])
        length = float(normalising_lengths(place[None], info, size, name)[0])
        axis.scatter(*place.T, s=5, c="white", edgecolors=DARK, linewidths=0.4, zorder=3)
        halo = [patheffects.withStroke(linewidth=3.4, foreground="white")]
        if name in ("box", "image"):
            low, high = (np.nanmin(place, 0), np.nanmax(place, 0)) if name == "box" else (np.zeros(2), size[::-1])
            axis.add_patch(Rectangle(low, *(np.asarray(high) - low), fill=False, color=COLOURS[1], linewidth=2.2,
                                     path_effects=halo))  # fmt: skip
        else:
            ends = np.stack([place[list(group)].mean(0) for group in _groups(info, name)])
            axis.plot(*ends.T, color=COLOURS[1], linewidth=2.2, marker="|", markersize=11, path_effects=halo, zorder=5)
        label_top(axis, f"{name}\n{length:.1f} pixels of {size[1]}")
    return figure


def _groups(info: Info, name: str) -> Sequence[Sequence[int]]:
    if info.normaliser == name and info.normaliser_points:
        return info.normaliser_points
    eyes = {"outer-eye-corners": ((36,), (45,)), "lower-lids": ((41,), (46,))}
    return eyes.get(name, (range(36, 42), range(42, 48)))


@drawing
def forward_backward(
    found: Values, truth: Values, predicted_truth: Values, predicted_found: Values, image: Values | None = None
) -> Figure:
    """The two errors on one image: segments join each prediction (cross) with what it should be.

    Args:
        found: ``(K, 2)`` discovered landmarks.
        truth: ``(L, 2)`` annotated points.
        predicted_truth: ``(L, 2)``: forward, from the discovered ones.
        predicted_found: ``(K, 2)``: backward, from the annotated ones.
        image: ``(3, H, W)`` to draw them on.
    """
    here, there, guess, back = (as_array(points) for points in (found, truth, predicted_truth, predicted_found))
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 0.53 * WIDTH))
    figure.subplots_adjust(left=0.02, right=0.98, top=0.92, bottom=0.02, wspace=0.06)
    picture = None if image is None else as_images(as_array(image)[None])[0]
    every = np.concatenate([here, there, guess, back])
    for axis, wanted, predicted in ((axes[0], there, guess), (axes[1], here, back)):
        if picture is not None:
            show_image(axis, picture, alpha=0.55)
        else:
            low, high = every.min(0) - 0.6, every.max(0) + 0.6
            axis.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]), aspect="equal", xticks=[], yticks=[])
        for start, end in zip(wanted, predicted, strict=True):
            axis.plot(*np.stack([start, end]).T, color=COLOURS[1], linewidth=2, zorder=2)
    sizes = [90 if len(points) <= 20 else 26 for points in (there, here)]
    mark_discovered(axes[1], here, sizes[1])
    mark_truth(axes[0], there, sizes[0])
    for axis, points, size in zip(axes, (guess, back), sizes, strict=True):
        mark_predicted(axis, points, 0.5 * size)
    label_top(axes[0], "forward: truth (circle), predicted from the discovered (cross)")
    label_top(axes[1], "backward: discovered (coloured), predicted from the truth (cross)")
    return figure


@drawing
def warps(images: Mapping[str, Values], landmarks: Mapping[str, Values] | None = None) -> Figure:
    """Images side by side, one column a name, a row a pair. See :func:`with_grid` for lines that bend with the warp.

    Args:
        images: Name to ``(B, 3, H, W)``.
        landmarks: Name to ``(B, K, 2)`` pixels.
    """
    pictures = {name: as_images(values) for name, values in images.items()}
    rows = len(next(iter(pictures.values())))
    figure, axes = picture_grid(rows, len(pictures), largest=1.9)
    for column, (name, values) in enumerate(pictures.items()):
        label_top(axes[0, column], name)
        for row, image in enumerate(values):
            show_image(axes[row, column], image)
            if landmarks and name in landmarks:
                mark_discovered(axes[row, column], as_array(landmarks[name])[row], 40)
    return figure


def with_grid(images: Tensor, lines: int = 8, strength: float = 0.75) -> Tensor:
    """``(B, 3, H, W)`` with straight lines painted in; warp the result, and the lines show how it is bent."""
    painted = images.clone()
    for axis, length in ((2, images.shape[2]), (3, images.shape[3])):
        places = np.linspace(0, length - 1, lines + 1).round().astype(int)
        index: list[Any] = [slice(None)] * 4
        index[axis] = places
        painted[tuple(index)] = (1 - strength) * painted[tuple(index)] + strength
    return painted


# --- networks -------------------------------------------------------------------------------------------------------


@drawing
def perceptual_layers(images: Values, taps: Sequence[Values], names: Sequence[str]) -> Figure:
    """What a perceptual network compares: the image, then for each layer the mean activation at each place.

    Args:
        images: ``(B, 3, H, W)``.
        taps: One ``(B, C, h, w)`` a layer.
        names: Of the layers.
    """
    pictures = as_images(images)
    figure, axes = picture_grid(len(pictures), len(taps) + 1)
    for line, image in zip(axes, pictures, strict=True):
        show_image(line[0], image)
    label_top(axes[0, 0], "input")
    for column, (tap, name) in enumerate(zip(taps, names, strict=True), start=1):
        values = as_array(tap)
        label_top(axes[0, column], f"{name}\n{values.shape[1]} × {values.shape[2]} × {values.shape[3]}")
        for axis, means in zip(axes[:, column], values.mean(1), strict=True):
            show_image(axis, means, cmap="magma", interpolation="nearest")
    return figure


_BOXES = {"network": "#DCE9F5", "points": "#FBE8D3", "loss": "#E9E4F2"}


@drawing
def architecture(pictures: Mapping[str, Values] | None = None) -> Figure:
    """IMM's architecture (our drawing of Figure 1).

    Args:
        pictures: Images to put in: ``source``, ``target``, ``redrawn`` ``(3, H, W)``; ``scores``, ``maps`` ``(h, w)``.
            What is not given is an empty frame.
    """
    figure = plt.figure(figsize=(WIDTH, 0.44 * WIDTH))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, 100), ylim=(0, 44))
    axis.set_axis_off()
    given, side = pictures or {}, 11.0
    frames = {
        "target": (0.5, 28, "target $x'$", "target"),
        "source": (0.5, 4, "source $x$", "source"),
        "scores": (29, 28, "score maps $S$\n16 × 16 × $K$", "scores"),
        "maps": (54, 28, "Gaussian maps $y'$\n16 × 16 × $K$", "maps"),
        "redrawn": (88, 4, r"redrawn $\hat{x}'$", "redrawn"),
        "wanted": (88, 28, "target $x'$", "target"),
    }
    for left, bottom, words, name in frames.values():
        _frame(figure, axis, (left, bottom, side), words, given.get(name), above=bottom > 20)
    _narrowing(axis, 13.5, 33.5, 27, r"pose encoder $\Phi$", grow=False)
    _narrowing(axis, 13.5, 9.5, 27, "image encoder", grow=False)
    _narrowing(axis, 70, 9.5, 85, r"generator $\Psi$", grow=True)
    diagram_box(axis, (42, 30, 10, 7), "soft-argmax\n$u^*_k$, eq. 1", "points")
    diagram_box(axis, (29, 6, 11, 7), "features $z$\n16 × 16 × 256", "points")
    diagram_box(axis, (54, 6, 11, 7), "stacked", "points")
    diagram_box(axis, (80, 18, 19.5, 6.5), "loss $\\mathcal{L}(x', \\hat{x}')$", "loss")
    for start, end in (
        ((11.5, 33.5), (13.5, 33.5)), ((27, 33.5), (29, 33.5)), ((40, 33.5), (42, 33.5)), ((52, 33.5), (54, 33.5)),
        ((11.5, 9.5), (13.5, 9.5)), ((27, 9.5), (29, 9.5)), ((40, 9.5), (54, 9.5)), ((59.5, 28), (59.5, 13)),
        ((65, 9.5), (70, 9.5)), ((85, 9.5), (88, 9.5)), ((93.5, 15), (93.5, 18)), ((93.5, 28), (93.5, 24.5)),
    ):  # fmt: skip
        style = {"arrowstyle": "-|>", "mutation_scale": 10, "color": DARK, "linewidth": 1.2}
        axis.add_patch(FancyArrowPatch(start, end, shrinkA=0, shrinkB=0, **style))
    return figure


def _frame(
    figure: Figure, axis: Axes, place: tuple[float, float, float], words: str, picture: Values | None, above: bool
) -> None:
    left, bottom, side = place
    width, height = axis.get_xlim()[1], axis.get_ylim()[1]
    spot = figure.add_axes((left / width, bottom / height, side / width, side / height))
    if picture is not None:
        values = as_array(picture)
        if values.ndim == 2:
            show_image(spot, values, cmap="viridis", interpolation="nearest")
        else:
            show_image(spot, as_images(values[None])[0])
    else:
        spot.text(0.5, 0.5, "?", ha="center", va="center", fontsize=14, color=PALE)
    spot.set_axis_off()
    axis.add_patch(Rectangle((left, bottom), side, side, fill=picture is None, facecolor="#F2F2F2", edgecolor=DARK))
    middle = left + side / 2
    if above:
        axis.text(middle, bottom + side + 0.7, words, ha="center", va="bottom", fontsize=8)
    else:
        axis.text(middle, bottom - 0.7, words, ha="center", va="top", fontsize=8)


def _narrowing(axis: Axes, left: float, middle: float, right: float, words: str, grow: bool) -> None:
    near, far = (2.6, 5.5) if grow else (5.5, 2.6)
    corners = [(left, middle - near), (left, middle + near), (right, middle + far), (right, middle - far)]
    axis.add_patch(Polygon(corners, facecolor=_BOXES["network"], edgecolor=DARK, linewidth=1))
    axis.text((left + right) / 2, middle, words, ha="center", va="center", fontsize=8)


def diagram_box(axis: Axes, place: tuple[float, float, float, float], words: str, kind: str) -> None:
    """A box of a diagram, (left, bottom, width, height), with words; ``kind`` decides its colour."""
    left, bottom, width, height = place
    box = FancyBboxPatch((left, bottom), width, height, boxstyle="round,pad=0,rounding_size=1")
    box.set(facecolor=_BOXES[kind], edgecolor=DARK, linewidth=1)
    axis.add_patch(box)
    axis.text(left + width / 2, bottom + height / 2, words, ha="center", va="center", fontsize=8)
