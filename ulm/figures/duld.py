"""D-ULD++: its plan, and which poses its clusters of images hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ulm.figures.attention import _arrow
from ulm.figures.base import (
    COLOURS,
    DARK,
    MARKERS,
    PALE,
    WIDTH,
    Values,
    _frame,
    as_array,
    diagram_box,
    drawing,
    one_axis,
)


@drawing
def duld_overview(pictures: Mapping[str, Values] | None = None) -> Figure:
    """D-ULD++ as a diagram (our drawing of Figure 2).

    Args:
        pictures: Images to put in: ``image`` ``(3, H, W)``; ``heatmap`` and ``target`` ``(h, w)``. What is not given is
            an empty frame.
    """
    figure = plt.figure(figsize=(WIDTH, 0.5 * WIDTH))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, 100), ylim=(0, 50))
    axis.set_axis_off()
    given, side = pictures or {}, 10.0
    frames = {
        "image": (0.7, 31, "image $x_j$"),
        "heatmap": (56.5, 36, "heatmap $H_j$"),
        "target": (89, 36, "target $G_j$"),
    }
    for name, (left, bottom, words) in frames.items():
        _frame(figure, axis, (left, bottom, side), words, given.get(name), above=True)
    boxes = (
        ((13, 32, 11.5, 8), "diffusion\nmodel, frozen", "network"),
        ((27, 32, 12.5, 8), "aggregation\n$\\Psi_b$, eq. 2", "network"),
        ((42, 38, 12.5, 6), "detector $\\Psi_d$", "network"),
        ((42, 28, 12.5, 6), "descriptor $\\Psi_f$", "network"),
        ((68.3, 38, 7, 6), "encoder", "network"),
        ((76.6, 38, 3.2, 6), r"$\varphi_j$", "points"),
        ((81, 38, 7, 6), "decoder", "network"),
        ((64, 25, 26, 6), "stage 1: $Q$ clusters of codes $\\varphi$", "points"),
        ((58, 13.5, 38, 6), "stage 2: $K$ clusters of descriptors in each", "points"),
        ((58, 3, 38, 6), "exemplars: pseudo-labels $c_i^j$, landmarks", "points"),
    )
    for place, words, kind in boxes:
        diagram_box(axis, place, words, kind)
    straight = (
        ((10.7, 36), (13, 36)), ((24.5, 36), (27, 36)), ((39.5, 38.8), (42, 41)), ((39.5, 33.2), (42, 31)),
        ((54.5, 41), (56.5, 41)), ((66.5, 41), (68.3, 41)), ((75.3, 41), (76.6, 41)), ((79.8, 41), (81, 41)),
        ((88, 41), (89, 41)), ((78.2, 38), (78.2, 31)), ((78.2, 25), (78.2, 19.5)), ((78.2, 13.5), (78.2, 9)),
    )  # fmt: skip
    for start, end in straight:
        _arrow(axis, [start, end])
    _arrow(axis, [(48.2, 28), (48.2, 16.5), (58, 16.5)])
    axis.text(48.8, 22, "at keypoints", fontsize=8, va="center")
    _arrow(axis, [(96, 6), (98, 6), (98, 36)])
    _arrow(axis, [(58, 6), (33.2, 6), (33.2, 32)], dashed=True)
    axis.text(45.5, 6.6, "self-training: squared error,\ncontrastive loss", ha="center", va="bottom", fontsize=8)
    _arrow(axis, [(71.8, 31), (71.8, 38)], dashed=True)
    axis.text(71, 34.5, "eq. 3", ha="right", va="center", fontsize=8)
    axis.text(84.5, 45, "ELBO", ha="center", va="bottom", fontsize=8)
    return figure


@drawing
def shares(counts: Values, rows: Sequence[str], columns: Sequence[str], xlabel: str, ylabel: str) -> Figure:
    """A table of counts, each cell coloured by its share of its row, such as pose clusters against ranges of yaw.

    Args:
        counts: ``(R, C)``.
        rows: R names.
        columns: C names.
        xlabel: Words below.
        ylabel: Words at the left.
    """
    values = as_array(counts)
    figure, axis = plt.subplots(figsize=(min(WIDTH, 1.6 + 1.0 * len(columns)), 0.9 + 0.42 * len(rows)))
    part = values / values.sum(1, keepdims=True).clip(1)
    axis.imshow(part, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    for row, line in enumerate(values):
        for column, count in enumerate(line):
            colour = "white" if part[row, column] > 0.6 else DARK
            axis.text(column, row, f"{count:.0f}", ha="center", va="center", fontsize=8, color=colour)
    axis.set_xticks(range(len(columns)), list(columns))
    axis.set_yticks(range(len(rows)), list(rows))
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.grid(visible=False)
    return figure


@drawing
def error_plane(errors: Mapping[str, Sequence[float]], level: float | None = None) -> Figure:
    """Methods in the plane of their forward and backward error (our drawing of Figure 1).

    Args:
        errors: Name to (forward, backward), in percent.
        level: Forward error of the mean shape, an upright line; it has no backward error.
    """
    figure, axis = one_axis()
    for index, (name, (forward, backward)) in enumerate(errors.items()):
        style = {"s": 52, "edgecolors": "white", "linewidths": 0.7, "zorder": 3}
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        axis.scatter(forward, backward, c=colour, marker=marker, label=name, **style)
    if level is not None:
        axis.axvline(level, color=PALE, linewidth=1, linestyle="--", label="mean shape")
    axis.margins(0.1)
    axis.set(xlabel="forward NME (%)", ylabel="backward NME (%)", xlim=(0, None), ylim=(0, None))
    axis.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure


@drawing
def bars_by_region(values: Values, regions: Mapping[str, Sequence[int]], ylabel: str) -> Figure:
    """One bar a landmark, coloured by its region, with the region's mean as a line (Figure 4).

    Args:
        values: ``(L,)``; NaN for a landmark without a value, which has no bar and counts as 0 in the mean.
        regions: Name to the indices of its landmarks.
        ylabel: Words at the left.
    """
    heights = as_array(values)
    figure, axis = plt.subplots(figsize=(WIDTH, 2.6))
    for index, (name, members) in enumerate(regions.items()):
        places, colour = np.asarray(list(members)), COLOURS[index % len(COLOURS)]
        axis.bar(places, heights[places], 0.8, color=colour, label=name)
        mean = np.nan_to_num(heights[places]).mean()
        axis.hlines(mean, places.min() - 0.4, places.max() + 0.4, color=DARK, linewidth=1)
    axis.set(xlabel="landmark", ylabel=ylabel, ylim=(0, 100), xlim=(-1, len(heights)))
    axis.grid(visible=False, axis="x")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=len(regions))
    return figure
