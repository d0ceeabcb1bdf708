"""Pictures of the exchange between subjects: the plan of Inter-Intra."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from ulm.figures.attention import _arrow
from ulm.figures.base import _BOXES, DARK, WIDTH, Values, _frame, diagram_box, drawing

__all__ = ["subject_paths"]


@drawing
def subject_paths(pictures: Mapping[str, Values] | None = None) -> Figure:
    """Inter-Intra as a diagram (our drawing of Figure 1): above the way from x to x', below the way back.

    Args:
        pictures: Images to put in: ``source``, ``target``, ``auxiliary``, ``there`` and ``back`` (the drawings in the
            geometry of the auxiliary subject), ``redrawn target`` and ``redrawn source``, ``(3, H, W)``; ``source
            maps``, ``target maps`` and ``auxiliary maps`` ``(h, w)``. What is not given is an empty frame.
    """
    figure = plt.figure(figsize=(WIDTH, 0.54 * WIDTH))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, 100), ylim=(0, 54))
    axis.set_axis_off()
    given, side = pictures or {}, 11.0
    frames = {
        "source": (0.5, 39, "source $x$"),
        "there": (37, 39, "$I_a$: no loss"),
        "redrawn target": (74, 39, "$I_{x'}$"),
        "auxiliary": (0.5, 21.5, ""),
        "auxiliary maps": (20, 21.5, ""),
        "target maps": (52, 21.5, ""),
        "source maps": (66, 21.5, ""),
        "target": (0.5, 4, "target $x'$"),
        "back": (37, 4, "$I'_a$: no loss"),
        "redrawn source": (74, 4, "$I_x$"),
    }
    for name, (left, bottom, words) in frames.items():
        _frame(figure, axis, (left, bottom, side), words, given.get(name), above=bottom > 20)
    for left, bottom, words in ((15, 39, "eq. 3"), (52, 39, "eq. 4"), (15, 4, "eq. 3"), (52, 4, "eq. 4")):
        # Narrow where the picture is small: Phi_E halves it twice, Psi enlarges it again.
        middle, right, waist = bottom + side / 2, left + 19, left + 9.5
        corners = [
            (left, middle - 5.5), (left, middle + 5.5), (waist, middle + 2.8), (right, middle + 5.5),
            (right, middle - 5.5), (waist, middle - 2.8),
        ]  # fmt: skip
        axis.add_patch(Polygon(corners, facecolor=_BOXES["network"], edgecolor=DARK, linewidth=1))
        axis.text(left + 4.3, middle, r"$\Phi_E$", ha="center", va="center", fontsize=9)
        axis.text(left + 14.6, middle, rf"$\Psi$, {words}", ha="center", va="center", fontsize=8)
    diagram_box(axis, (12.8, 24.2, 5.4, 5.6), r"$\Phi_H$", "network")
    axis.text(6, 20.8, "auxiliary $x_a$", ha="center", va="top", fontsize=8)
    axis.text(31.8, 27, "$\\Phi_H(x_a)$:\nmaps of the\nlandmarks,\neqs. 1, 2", ha="left", va="center", fontsize=8)
    axis.text(57.5, 20.8, r"$\Phi_H(x')$", ha="center", va="top", fontsize=8)
    axis.text(71.5, 33.2, r"$\Phi_H(x)$", ha="center", va="bottom", fontsize=8)
    diagram_box(axis, (87, 41.5, 12.5, 6), r"loss: $x'$", "loss")
    diagram_box(axis, (87, 6.5, 12.5, 6), "loss: $x$", "loss")
    for middle in (44.5, 9.5):
        for start, end in ((11.5, 15), (34, 37), (48, 52), (71, 74), (85, 87)):
            _arrow(axis, [(start, middle), (end, middle)])
    _arrow(axis, [(11.5, 27), (12.8, 27)])
    _arrow(axis, [(18.2, 27), (20, 27)])
    # The narrow waists: there the maps join the features.
    _arrow(axis, [(25.5, 32.5), (25.5, 41.4)])
    _arrow(axis, [(25.5, 21.5), (25.5, 12.6)])
    _arrow(axis, [(57.5, 32.5), (57.5, 40.6)])
    _arrow(axis, [(71.5, 21.5), (71.5, 17.3), (61.5, 17.3), (61.5, 12.3)])
    return figure
