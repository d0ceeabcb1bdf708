"""Pictures that a diffusion model draws."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Polygon, Rectangle

from ulm.figures.base import (
    _BOXES,
    COLOURS,
    DARK,
    PALE,
    WIDTH,
    Values,
    _frame,
    _legend_below,
    _levels,
    _plot,
    as_images,
    diagram_box,
    drawing,
    one_axis,
    show_image,
)
from ulm.figures.base import label_row as _label_row

_LINE, _LETTER = 0.15, 0.068  # inches: height of a line, width of a letter, at 8 points


@drawing
def captioned_images(images: Values, texts: Sequence[str], columns: int = 4, largest: float = 1.9) -> Figure:
    """Pictures with words below each, broken into lines.

    Args:
        images: ``(B, 3, H, W)``.
        texts: One a picture.
        columns: Pictures in a row, at most.
        largest: Side of a picture at most, in inches.
    """
    pictures = as_images(images)
    columns = min(columns, len(pictures))
    cell = min(largest, WIDTH / columns)
    broken = [textwrap.wrap(text, max(8, int(0.94 * cell / _LETTER))) for text in texts]
    return _captioned([pictures[i : i + columns] for i in range(0, len(pictures), columns)], broken, columns, cell)


@drawing
def captioned_rows(rows: Mapping[str, Values], bold: Sequence[str] = (), largest: float = 1.3) -> Figure:
    """Rows of pictures of one caption each, which stands below its row.

    Args:
        rows: Caption to ``(B, 3, H, W)``; all of the same B.
        bold: For each row some words of its caption, which are set in bold.
        largest: Side of a picture at most, in inches.
    """
    pictures = [as_images(images) for images in rows.values()]
    columns = len(pictures[0])
    cell = min(largest, WIDTH / columns)
    width = max(16, int(columns * cell / _LETTER))
    texts = [textwrap.wrap(text, width) for text in rows]
    for lines, words in zip(texts, bold, strict=False):
        found = [index for index, line in enumerate(lines) if words in line]
        if found:
            lines[found[0]] = _bold(lines[found[0]], words)
    return _captioned(pictures, texts, columns, cell, one_a_row=True)


def _bold(text: str, words: str) -> str:
    return text.replace(words, rf"$\mathbf{{{words.replace(' ', chr(92) + ' ')}}}$", 1)


def _captioned(
    rows: Sequence[Any], texts: Sequence[Sequence[str]], columns: int, cell: float, one_a_row: bool = False
) -> Figure:
    """Square cells, with the lines of ``texts`` below each picture, or below each row."""
    owned = [texts[i : i + 1] if one_a_row else texts[i * columns : (i + 1) * columns] for i in range(len(rows))]
    below = [_LINE * max(map(len, lines)) + 0.09 for lines in owned]
    width, height = columns * cell, len(rows) * cell + sum(below)
    figure, top = plt.figure(figsize=(width, height)), height
    for images, lines, space in zip(rows, owned, below, strict=True):
        bottom = top - cell
        for column, image in enumerate(images):
            place = ((column + 0.02) * cell, bottom, 0.96 * cell, 0.98 * cell)
            axis = figure.add_axes(tuple(v / s for v, s in zip(place, (width, height, width, height), strict=True)))
            show_image(axis, image)
        for index, text in enumerate(lines):
            middle = 0.5 if one_a_row else (index + 0.5) * cell / width
            figure.text(middle, (bottom - 0.04) / height, "\n".join(text), ha="center", va="top", fontsize=8,
                        linespacing=1.15)  # fmt: skip
        top = bottom - space
    return figure


@drawing
def redrawn_images(images: Values, redrawn: Values, labels: Sequence[str], names: Sequence[str] = ()) -> Figure:
    """Pictures above, what an autoencoder makes of them below, and words under each pair.

    Args:
        images: ``(B, 3, H, W)``.
        redrawn: The same.
        labels: One a pair, such as its PSNR.
        names: Words at the left of the two rows.
    """
    rows = [as_images(images), as_images(redrawn)]
    columns, left = len(rows[0]), 0.15 + _LETTER * max(map(len, names or ("",)))
    cell = min(1.3, (WIDTH - left) / columns)
    size = (left + columns * cell, 2 * cell + 0.25)
    figure, axes = plt.subplots(2, columns, figsize=size, squeeze=False)
    figure.subplots_adjust(left / size[0], 0.25 / size[1], 1, 1, wspace=0.04, hspace=0.04)
    for line, pictures in zip(axes, rows, strict=True):
        for axis, image in zip(line, pictures, strict=True):
            show_image(axis, image)
    for axis, words in zip(axes[1], labels, strict=True):
        axis.text(0.5, -0.05, words, transform=axis.transAxes, ha="center", va="top", fontsize=8)
    for axis, words in zip(axes[:, 0], names, strict=False):
        _label_row(axis, words)
    return figure


@drawing
def loss_curves(
    curves: Mapping[str, Sequence[Mapping[str, float]]],
    key: str,
    ylabel: str,
    levels: Mapping[str, float] | None = None,
    log: bool = True,
) -> Figure:
    """A loss against training steps.

    Args:
        curves: Name to a ``history_``; entries without ``key`` are left out.
        key: What is drawn.
        ylabel: Words at the axis.
        levels: Name to a level, drawn as a dashed line.
        log: Logarithmic axes.
    """
    figure, axis = one_axis()
    shown = {name: [entry for entry in history if key in entry] for name, history in curves.items()}
    for index, (name, history) in enumerate((name, history) for name, history in shown.items() if history):
        few = {} if len(history) <= 30 else {"marker": ""}
        _plot(axis, index, [e["step"] for e in history], [e[key] for e in history], name, **few)
    axis.set(xlabel="step", ylabel=ylabel)
    if log:
        axis.set(xscale="log", yscale="log")
        _log_ticks(axis, levels or {})
    else:
        axis.set_ylim(0, 1.05 * max([axis.get_ylim()[1], *(levels or {}).values()]))
    _levels(axis, levels or {})
    _legend_below(axis, len(shown))
    return figure


def _log_ticks(axis: Axes, levels: Mapping[str, float]) -> None:
    """Ticks at 1, 2, 5 of each decade; levels are inside the axis."""
    low, high = axis.get_ylim()
    low, high = min([low, *levels.values()]) / 1.05, max([high, *levels.values()]) * 1.12
    every = [digit * 10.0**power for power in range(-6, 7) for digit in (1, 2, 5)]
    ticks = [tick for tick in every if low <= tick <= high]
    axis.set_ylim(low, high)
    axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.yaxis.set_minor_locator(plt.NullLocator())


# --- diagrams -------------------------------------------------------------------------------------------------------


@drawing
def latent_diffusion(
    pictures: Mapping[str, Values] | None = None, caption: str = "a caption", target: str = "noise"
) -> Figure:
    """Latent diffusion as a diagram: above the training, at the right what sampling adds.

    Args:
        pictures: Images to put in, ``(3, H, W)``: ``image``, ``latent``, ``noisy``, ``predicted``, ``redrawn``. What is
            not given is an empty frame.
        caption: The text that goes into the text encoder.
        target: What the U-Net predicts, ``noise``, ``velocity`` or ``latents``, the clean ones.
    """
    # The sign, and what stands below it.
    sign, below = {"noise": (r"\epsilon", ""), "velocity": ("v", ""), "latents": ("z", "_0")}[target]
    figure = plt.figure(figsize=(WIDTH, 0.4 * WIDTH))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, 100), ylim=(0, 40))
    axis.set_axis_off()
    given, side = pictures or {}, 12.0
    frames = {
        "image": (1, 23, r"picture $\mathbf{x}$", True),
        "latent": (28, 23, r"latents $\mathbf{z}_0$", True),
        "noisy": (48, 23, r"noisy latents $\mathbf{z}_t$", True),
        "predicted": (84, 23, rf"predicted {target} $\hat{{\mathbf{{{sign}}}}}{below}$", True),
        "redrawn": (1, 4, r"redrawn $\hat{\mathbf{x}}$", False),
    }
    for name, (left, bottom, words, above) in frames.items():
        _frame(figure, axis, (left, bottom, side), words, given.get(name), above=above)
    for left, right, middle, words, grow in (
        (15.5, 25.5, 29, "encoder", False), (15.5, 25.5, 10, "decoder", False),
        (62.5, 71.5, 29, "", False), (71.5, 80.5, 29, "", True),
    ):  # fmt: skip
        near, far = (3.0, 5.5) if grow else (5.5, 3.0)
        corners = [(left, middle - near), (left, middle + near), (right, middle + far), (right, middle - far)]
        axis.add_patch(Polygon(corners, facecolor=_BOXES["network"], edgecolor=DARK, linewidth=1))
        axis.text((left + right) / 2, middle, words, ha="center", va="center", fontsize=8)
    # The joint of the two halves is no edge.
    axis.plot([71.5, 71.5], [26.2, 31.8], color=_BOXES["network"], linewidth=2)
    axis.text(71.5, 29, "U-Net", ha="center", va="center", fontsize=9)
    diagram_box(axis, (62, 11.5, 19, 5), "text encoder", "network")
    axis.text(71.5, 7, textwrap.fill(f"“{caption}”", 42), ha="center", va="center", fontsize=8, style="italic")
    diagram_box(axis, (84, 11.5, 15, 5), rf"loss $\Vert {sign}{below} - \hat{{{sign}}}{below}\,\Vert^2$", "loss")
    axis.text(44, 30.2, "+ noise", ha="center", va="bottom", fontsize=8)
    for start, end, words in (
        ((13, 29), (15.5, 29), ""), ((25.5, 29), (28, 29), ""), ((40, 29), (48, 29), ""), ((60, 29), (62.5, 29), ""),
        ((80.5, 29), (84, 29), ""), ((90, 23), (90, 16.5), ""), ((71.5, 9.2), (71.5, 11.5), ""),
        ((71.5, 16.5), (71.5, 25.9), "keys,\nvalues"), ((15.5, 10), (13, 10), ""),
    ):  # fmt: skip
        _straight(axis, start, end)
        if words:
            axis.text(start[0] + 1, (start[1] + end[1]) / 2, words, fontsize=8, va="center")
    axis.plot([34, 34], [23, 10], color=DARK, linewidth=1.2)
    _straight(axis, (34, 10), (25.5, 10))
    return figure


def _straight(axis: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    style = {"arrowstyle": "-|>", "mutation_scale": 10, "color": DARK, "linewidth": 1.2}
    axis.add_patch(FancyArrowPatch(start, end, shrinkA=0, shrinkB=0, **style))


@drawing
def unet_layout(attentions: Sequence[tuple[str, int]], taps: Sequence[int] = ()) -> Figure:
    """Where the cross-attentions of a U-Net of Stable Diffusion's layout are, numbered as they run.

    Args:
        attentions: For each, in the order in which they run, the name of its module and the side of its grid.
        taps: Numbers of those that stand out.
    """
    figure = plt.figure(figsize=(0.8 * WIDTH, 0.46 * WIDTH))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, 80), ylim=(0, 46))
    axis.set_axis_off()
    members: dict[str, list[int]] = {f"down_blocks.{i}": [] for i in range(4)}
    members |= {"mid_block": []} | {f"up_blocks.{i}": [] for i in range(4)}
    for index, (name, _) in enumerate(attentions):
        members[next(block for block in members if name.startswith(block))].append(index)
    sides = {block: attentions[found[0]][1] for block, found in members.items() if found}
    height, places = 6.4, {}
    for level in range(4):
        places[f"down_blocks.{level}"] = (3 + 4 * level, 37.5 - 9.2 * level)
        places[f"up_blocks.{3 - level}"] = (53 - 4 * level, 37.5 - 9.2 * level)
    places["mid_block"] = (30, 1)
    for block, (left, bottom) in places.items():
        width = 20.0 if block == "mid_block" else 24.0
        axis.add_patch(Rectangle((left, bottom), width, height, facecolor=_BOXES["network"], edgecolor=DARK))
        grid = f"{sides[block]} × {sides[block]}" if block in sides else "no cross-attention"
        axis.text(left + 1, bottom + height - 0.7, f"{block}, {grid}", fontsize=7.5, va="top")
        for place, index in enumerate(members[block]):
            chosen = index in taps
            box = Rectangle((left + 1 + 5 * place, bottom + 0.7), 4.2, 3.1, edgecolor=DARK, linewidth=0.9)
            box.set_facecolor(COLOURS[4] if chosen else "white")
            axis.add_patch(box)
            axis.text(left + 3.1 + 5 * place, bottom + 2.2, str(index), ha="center", va="center", fontsize=8,
                      fontweight="bold" if chosen else "normal")  # fmt: skip
    for level in range(4):
        left, bottom = places[f"down_blocks.{level}"]
        right, _ = places[f"up_blocks.{3 - level}"]
        middle = bottom + height / 2
        axis.plot([left + 24, right], [middle, middle], color=PALE, linestyle=(0, (4, 2)), linewidth=1.1, zorder=0)
        if level < 3:
            _straight(axis, (left + 14, bottom), (left + 14, bottom - 9.2 + height))
            _straight(axis, (right + 10, bottom - 9.2 + height), (right + 10, bottom))
    deep, shallow = places["down_blocks.3"], places["up_blocks.0"]
    _straight(axis, (deep[0] + 17, deep[1]), (deep[0] + 17, 1 + height))
    _straight(axis, (shallow[0] + 7, 1 + height), (shallow[0] + 7, shallow[1]))
    axis.text(40, 37.5 + height / 2 + 0.3, "copied features", ha="center", va="bottom", fontsize=8, color="#5A5A5A")
    return figure
