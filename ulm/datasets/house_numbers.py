"""Procedural house numbers: one to four digits in many typefaces, painted, of metal or on tiles, on walls and doors.

A sign lies in a plane whose unit is the height of a digit. One projective map brings the plane to the picture: the
outlines of the digits go through it and are filled, and the pixels go back through it to read the wall's pattern.
Outlines come from the typefaces that matplotlib ships, so nothing is fetched and every machine draws the same.

There are no landmarks. What pairs need comes as *videos* of two frames, to which smoothness does not apply:

- ``house-numbers``: a video is one number, its two frames are two unrelated signs of it (the same digits, another
  typeface, wall, light and view).
- ``house-digits``: a video is one sign, its two frames are crops of two different digits of it (the same style, another
  shape). This is how Jakab et al. (2018, section 4.5) pair digits of SVHN: "pairs of digits sampled from the same house
  number instance, sharing a common style".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from ulm.datasets.base import Info, Sample
from ulm.datasets.rendering import Array, smoothstep, value_noise

F32 = np.float32
SCENES = ("house-numbers", "house-digits")
FRAMES = 2
FACES = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSerif", "DejaVuSerif-Bold",
    "DejaVuSerif-BoldItalic", "STIXGeneral", "STIXGeneralBol", "STIXGeneralBolIta", "cmr10", "cmb10", "cmss10",
    "cmtt10",
)  # fmt: skip
"""Typefaces that matplotlib ships, by their files' names."""
_OVERSAMPLING = 3
RGB = tuple[float, float, float]


# ---------------------------------------------------------------------------------------------- typefaces


@lru_cache(maxsize=256)
def outline(face: str, digit: str) -> tuple[Array, ...]:
    """Closed outlines of a digit, outer ones first, holes after them.

    Args:
        face: A name in :data:`FACES`.
        digit: ``0`` to ``9``.

    Returns:
        Polygons ``(N, 2)``, x to the right from 0, y downwards; the face's zero reaches from -0.5 to 0.5.
    """
    zero = np.concatenate(_polygons(face, "0"))
    low, height = zero[:, 1].min(), np.ptp(zero[:, 1])
    shapes = [(p * [1, -1] + [0, low + height / 2]) / height for p in _polygons(face, digit)]
    left = min(p[:, 0].min() for p in shapes)
    shapes = [p - [left, 0] for p in shapes]
    areas = [_area(p) for p in shapes]
    outer = np.sign(areas[int(np.argmax(np.abs(areas)))])
    return tuple(p for a, p in sorted(zip(areas, shapes, strict=True), key=lambda item: -item[0] * outer))


def _polygons(face: str, digit: str) -> list[Array]:
    font = FontProperties(fname=str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{face}.ttf"))
    # Curves become polygons at the path's own scale, so a large size keeps them round.
    return [np.asarray(p) for p in TextPath((0, 0), digit, size=300, prop=font).to_polygons() if len(p) > 3]


def _area(polygon: Array) -> float:
    x, y = polygon[:, 0], polygon[:, 1]
    return float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)) / 2)


# ---------------------------------------------------------------------------------------------- style

_WALLS = ("brick", "planks", "stucco", "paint", "stone", "door")
_WALL_COLOURS: dict[str, tuple[RGB, ...]] = {
    "brick": ((0.6, 0.3, 0.23), (0.5, 0.26, 0.2), (0.72, 0.52, 0.4), (0.55, 0.5, 0.47), (0.85, 0.82, 0.78)),
    "planks": ((0.45, 0.3, 0.18), (0.62, 0.45, 0.28), (0.3, 0.2, 0.13), (0.86, 0.85, 0.82), (0.45, 0.52, 0.56)),
    "stucco": ((0.87, 0.82, 0.72), (0.8, 0.7, 0.55), (0.9, 0.9, 0.88), (0.68, 0.66, 0.62), (0.85, 0.65, 0.5)),
    "paint": ((0.92, 0.91, 0.88), (0.25, 0.35, 0.5), (0.5, 0.12, 0.13), (0.2, 0.36, 0.26), (0.15, 0.15, 0.17)),
    "stone": ((0.6, 0.58, 0.54), (0.5, 0.5, 0.5), (0.7, 0.64, 0.54), (0.38, 0.37, 0.36)),
    "door": (
        (0.12, 0.25, 0.2), (0.4, 0.1, 0.1), (0.12, 0.18, 0.35), (0.4, 0.24, 0.13), (0.9, 0.9, 0.88), (0.1, 0.1, 0.11),
    ),
}  # fmt: skip
_PLATES = ("none", "box", "oval", "tiles")
_PLATE_COLOURS: tuple[RGB, ...] = (
    (0.1, 0.2, 0.5), (0.95, 0.94, 0.9), (0.08, 0.08, 0.09), (0.1, 0.3, 0.2), (0.72, 0.6, 0.3), (0.55, 0.56, 0.58),
    (0.92, 0.88, 0.74),
)  # fmt: skip
_INKS: tuple[RGB, ...] = (
    (0.05, 0.05, 0.06), (0.96, 0.95, 0.93), (0.85, 0.7, 0.35), (0.7, 0.71, 0.73), (0.1, 0.2, 0.5), (0.65, 0.12, 0.1),
    (0.35, 0.22, 0.14), (0.12, 0.35, 0.2),
)  # fmt: skip
_METALS = (2, 3)


@dataclass(frozen=True)
class Style:
    """How one sign looks; lengths in digit heights, colours display RGB.

    Attributes:
        face: Typeface.
        wall: Pattern of the wall.
        wall_colours: Its colour, and that of its joints.
        wall_scale: Factor on the pattern's size.
        plate: What the digits sit on: nothing, a box, an oval, or a tile each.
        plate_colour: Its colour.
        border: Whether a line runs along its edge.
        ink: Colour of the digits.
        metal: Whether they are of brushed metal.
        rim: Width of the outline round the digits, 0 for none.
        raised: How far the digits stand out; it sets their shadow and their edges.
        weight: Threshold that thickens (below 0.5) or thins the strokes, and how round their corners get.
        gap: Room between digits.
        stretch: Width over height, against the typeface's own.
        slant: Shear of the digits, as of italics.
        layout: "row", "stairs" or "column".
        wear: How much paint has come off.
        light: Direction to the light in the picture, (x, y).
        exposure: Factor on the picture, and its colour cast.
        shade: Edge of a shadow over the scene: direction, place, strength; no shadow where the strength is 0.
        glare: Place and strength of a reflection.
        blur: Standard deviation of the lens's blur, and of a move of the hand, in picture sides.
        noise: Strength of the sensor's noise.
        grid: Random values behind all textures, ``(32, 32)``.
    """

    face: str
    wall: str
    wall_colours: tuple[Array, Array]
    wall_scale: float
    plate: str
    plate_colour: Array
    border: bool
    ink: Array
    metal: bool
    rim: float
    raised: float
    weight: tuple[float, float]
    gap: float
    stretch: float
    slant: float
    layout: str
    wear: float
    light: tuple[float, float]
    exposure: Array
    shade: tuple[float, float, float]
    glare: tuple[float, float, float]
    blur: tuple[float, float, float]
    noise: float
    grid: Array


def _tint(rng: np.random.Generator, colours: tuple[RGB, ...], spread: float = 0.04) -> Array:
    change = rng.normal(0, 1.3 * spread) + rng.normal(0, 0.5 * spread, 3)
    return np.clip(np.array(colours[rng.integers(len(colours))]) + change, 0.03, 0.97)


def _contrast(first: Array, second: Array) -> float:
    return float(np.abs(first - second) @ [0.3, 0.5, 0.2])


def _seldom(rng: np.random.Generator, odds: float, low: float, high: float) -> float:
    """A value from ``low`` to ``high`` with some odds, else 0."""
    value = float(rng.uniform(low, high))
    return value if rng.random() < odds else 0.0


def sample_style(rng: np.random.Generator) -> Style:
    """Draw a style; digits are kept legible against what they sit on."""
    wall = str(rng.choice(_WALLS, p=(0.22, 0.17, 0.18, 0.16, 0.12, 0.15)))
    first = _tint(rng, _WALL_COLOURS[wall])
    second = np.clip(first * rng.uniform(0.6, 1.1) + rng.normal(0, 0.03, 3), 0.02, 0.97)
    if wall == "brick":
        second = np.clip(np.full(3, rng.uniform(0.45, 0.85)) + rng.normal(0, 0.02, 3), 0, 1)
    plate = str(rng.choice(_PLATES, p=(0.46, 0.3, 0.1, 0.14)))
    plate_colour = _tint(rng, _PLATE_COLOURS)
    under = first if plate == "none" else plate_colour
    # The most legible of a few inks, so that the choice stays wide.
    inks = [int(k) for k in rng.choice(len(_INKS), 3, replace=False)]
    choice = max(inks, key=lambda k: _contrast(np.array(_INKS[k]), under))
    ink = np.array(_INKS[choice])
    if _contrast(ink, under) < 0.25:
        choice, ink = -1, np.array(_INKS[0] if under.mean() > 0.45 else _INKS[1])
    relief = rng.random() < (0.6 if plate == "none" else 0.3)
    warm, angle = rng.normal(0, 0.06), rng.uniform(0, 2 * np.pi)
    return Style(
        face=str(rng.choice(FACES)),
        wall=wall,
        wall_colours=(first, second),
        wall_scale=float(np.exp(rng.uniform(-0.5, 0.5))),
        plate=plate,
        plate_colour=plate_colour,
        border=bool(rng.random() < 0.5),
        ink=np.clip(ink + rng.normal(0, 0.03, 3), 0.02, 0.98),
        metal=choice in _METALS and bool(rng.random() < 0.8),
        rim=float(rng.uniform(0.03, 0.06)) if rng.random() < 0.12 else 0.0,
        raised=float(rng.uniform(0.03, 0.12)) if relief else 0.0,
        weight=(float(rng.uniform(0.3, 0.58)), float(rng.uniform(0.006, 0.03))),
        gap=float(rng.uniform(0.07, 0.28) + (0.2 if plate == "tiles" else 0)),
        stretch=float(np.exp(rng.uniform(-0.3, 0.25))),
        slant=float(np.clip(rng.normal(0, 0.07), -0.2, 0.2)),
        layout=str(rng.choice(("row", "stairs", "column"), p=(0.9, 0.06, 0.04))),
        wear=float(max(rng.normal(-0.15, 0.35), 0)),
        light=(float(np.cos(angle)), float(-abs(np.sin(angle)) - 0.3)),
        exposure=np.exp(np.clip(rng.normal(-0.05, 0.2), -0.45, 0.2)) * np.array([1 + warm, 1.0, 1 - warm]),
        shade=(float(rng.uniform(0, 2 * np.pi)), float(rng.normal(0, 0.25)), _seldom(rng, 0.3, 0.25, 0.6)),
        glare=(float(rng.uniform(0, 1)), float(rng.uniform(0, 1)), _seldom(rng, 0.15, 0.2, 0.7)),
        blur=(float(rng.uniform(0.003, 0.02)), float(max(rng.normal(-0.004, 0.012), 0)), float(rng.uniform(0, 3.14))),
        noise=float(rng.uniform(0.0, 0.045)),
        grid=rng.uniform(-1, 1, (32, 32)).astype(F32),
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- geometry


@dataclass(frozen=True)
class Sign:
    """A number laid out in its plane.

    Attributes:
        polygons: Outlines ``(N, 2)``, and whether each is a hole.
        boxes: x0, y0, x1, y1 of each digit, ``(n, 4)``.
    """

    polygons: tuple[tuple[Array, bool], ...]
    boxes: Array


def lay_out(number: str, style: Style) -> Sign:
    """Set the digits of a number beside, below or stepwise beside each other, about the origin."""
    shapes = [[p * [style.stretch, 1] for p in outline(style.face, digit)] for digit in number]
    widths = [max(p[:, 0].max() for p in group) for group in shapes]
    room = 0.55 * float(np.mean(widths))
    step = [max(w, room) + style.gap for w in widths]
    starts = np.cumsum([0.0, *step[:-1]]) + (np.array(step) - widths) / 2
    rise = {"row": 0.0, "stairs": 0.28, "column": 1.1 + style.gap}[style.layout]
    polygons, boxes = [], []
    for k, (group, width) in enumerate(zip(shapes, widths, strict=True)):
        x = -width / 2 if style.layout == "column" else starts[k] - sum(step) / 2
        y = rise * (k - (len(number) - 1) / 2)
        placed = [p + np.array([x, y]) - np.array([style.slant, 0]) * p[:, 1:] for p in group]
        outer = np.sign(_area(placed[0]))
        polygons += [(p, bool(np.sign(_area(p)) != outer)) for p in placed]
        every = np.concatenate(placed)
        boxes.append([*every.min(0), *every.max(0)])
    return Sign(tuple(polygons), np.array(boxes))


def _project(matrix: Array, points: Array) -> Array:
    """Map points ``(..., 2)`` by a projective map ``(3, 3)``."""
    x, y = points[..., 0], points[..., 1]
    rows = matrix[:, 0, None] * x.ravel() + matrix[:, 1, None] * y.ravel() + matrix[:, 2, None]
    return np.stack([(rows[0] / rows[2]).reshape(x.shape), (rows[1] / rows[2]).reshape(x.shape)], -1)


def _corners(box: Array) -> Array:
    x0, y0, x1, y1 = box
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def _view(rng: np.random.Generator, box: Array, fill: tuple[float, float], shift: float) -> Array:
    """A projective map ``(3, 3)`` from the plane to picture sides that shows ``box`` from some side.

    Args:
        rng: Source.
        box: x0, y0, x1, y1 in the plane.
        fill: Least and most of the picture's side that the longer side of the box takes.
        shift: Standard deviation of its centre from the picture's middle.
    """
    angle, shear, squeeze = np.clip(rng.normal(0, 1, 3), -2.2, 2.2) * [0.09, 0.08, 0.1]
    tilt = np.clip(rng.normal(0, 0.07, 2), -0.16, 0.16)
    c, s = np.cos(angle), np.sin(angle)
    linear = np.array([[c, -s], [s, c]]) @ np.array([[1, 0], [shear, 1]]) @ np.diag([np.exp(squeeze), np.exp(-squeeze)])
    middle = np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
    lean = np.eye(3)
    lean[:2, :2], lean[2, :2] = linear, tilt / max(np.ptp(box[[0, 2]]), np.ptp(box[[1, 3]]), 1)
    centred = lean @ np.array([[1, 0, -middle[0]], [0, 1, -middle[1]], [0, 0, 1.0]])
    flat = _project(centred, _corners(box))
    low, high = flat.min(0), flat.max(0)
    scale = rng.uniform(*fill) / (high - low).max()
    place = 0.5 + shift * np.clip(rng.normal(0, 1, 2), -2, 2) - scale * (low + high) / 2
    return np.array([[scale, 0, place[0]], [0, scale, place[1]], [0, 0, 1.0]]) @ centred


# ---------------------------------------------------------------------------------------------- the picture


def _mixed(low: Array, high: Array, share: Array) -> Array:
    return low + (high - low) * share[..., None]


def _wall(style: Style, x: Array, y: Array) -> Array:
    """Display colours of the wall at places of the plane."""
    grid, u, v = style.grid, x / style.wall_scale, y / style.wall_scale
    rough = value_noise(grid, 9 * u + 3, 9 * v + 5) + 0.6 * value_noise(grid, 23 * u, 23 * v)
    if style.wall in _PATTERNS:
        return _PATTERNS[style.wall](style, u, v, rough)
    strength = 0.11 if style.wall == "stucco" else 0.02
    blotch = value_noise(grid, 0.9 * u + 7, 0.9 * v + 1)
    return style.wall_colours[0] * (1 + strength * rough + 0.08 * blotch)[..., None]


def _brick(style: Style, u: Array, v: Array, rough: Array) -> Array:
    brick, mortar = style.wall_colours
    row = np.floor(v / 0.42)
    along = u / 1.1 + 0.5 * (row % 2)
    in_x, in_y = along % 1, (v / 0.42) % 1
    each = value_noise(style.grid, 5.3 * np.floor(along) + 0.5, 3.7 * row + 0.5)
    edge = np.minimum(np.minimum(in_x, 1 - in_x) * 1.1, np.minimum(in_y, 1 - in_y) * 0.42)
    faces, joints = brick * (1 + 0.22 * each + 0.1 * rough)[..., None], mortar * (1 + 0.1 * rough)[..., None]
    return _mixed(joints, faces, smoothstep(0.02, 0.045, edge + 0.006 * rough))


def _planks(style: Style, u: Array, v: Array, rough: Array) -> Array:
    grid, board, inside = style.grid, np.floor(v / 0.75), (v / 0.75) % 1
    grain = value_noise(grid, 1.3 * u + 3 * board, 26 * v) + 0.6 * value_noise(grid, 4 * u + board, 60 * v)
    dark = 1 - 0.55 * smoothstep(0.05, 0.0, np.minimum(inside, 1 - inside)) + 0.1 * (0.5 - inside)
    each = value_noise(grid, 0 * u + 0.5, 3.1 * board + 0.5)
    return style.wall_colours[0] * (dark * (1 + 0.16 * grain + 0.1 * each))[..., None]


def _stone(style: Style, u: Array, v: Array, rough: Array) -> Array:
    warp = 0.25 * value_noise(style.grid, 1.4 * u, 1.4 * v)
    along = 0.8 * u + warp
    up = 1.15 * v + warp + 0.5 * np.floor(along)
    in_x, in_y = along % 1, up % 1
    edge = np.minimum(np.minimum(in_x, 1 - in_x), np.minimum(in_y, 1 - in_y))
    each = value_noise(style.grid, 7.7 * np.floor(along), 5.9 * np.floor(up))
    faces = style.wall_colours[0] * (1 + 0.2 * each + 0.16 * rough)[..., None]
    return _mixed(0.55 * style.wall_colours[1] + 0 * faces, faces, smoothstep(0.01, 0.07, edge))


def _door(style: Style, u: Array, v: Array, rough: Array) -> Array:
    panel = np.maximum(np.abs(u) - 2.1, np.abs(v) - 1.25)
    step = np.exp(-((panel / 0.07) ** 2)) * np.where(u + v > 0, -0.35, 0.3)
    return style.wall_colours[0] * (1 + step + 0.03 * rough)[..., None]


_PATTERNS: dict[str, Callable[[Style, Array, Array, Array], Array]] = {
    "brick": _brick,
    "planks": _planks,
    "stone": _stone,
    "door": _door,
}


def _plate_distance(style: Style, sign: Sign, x: Array, y: Array) -> Array:
    """Signed distance to the plate's edge in the plane, negative inside; an estimate for ovals."""
    whole = np.concatenate([sign.boxes[:, :2].min(0), sign.boxes[:, 2:].max(0)])
    pad, corner = 0.18 + 0.4 * style.weight[1] / 0.03, 0.08
    if style.plate == "oval":
        a, b = (whole[2] - whole[0]) * 0.62 + pad, (whole[3] - whole[1]) * 0.62 + pad
        far = np.hypot((x - (whole[0] + whole[2]) / 2) / a, (y - (whole[1] + whole[3]) / 2) / b)
        return (far - 1) * min(a, b)
    boxes = sign.boxes if style.plate == "tiles" else whole[None]
    if style.plate == "tiles":
        # Tiles share one height and width, as they are bought.
        middles = (boxes[:, :2] + boxes[:, 2:]) / 2
        half = np.array([np.ptp(boxes[:, [0, 2]], 1).max(), 1.0]) / 2
        boxes, pad = np.concatenate([middles - half, middles + half], 1), min(0.5 * style.gap - 0.02, 0.2)
    found = np.full(x.shape, 1e3, F32)
    for x0, y0, x1, y1 in boxes:
        dx = np.abs(x - (x0 + x1) / 2) - (x1 - x0) / 2 - pad + corner
        dy = np.abs(y - (y0 + y1) / 2) - (y1 - y0) / 2 - pad + corner
        outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0)
        found = np.minimum(found, outside - corner)
    return found


def _lay_plate(style: Style, sign: Sign, picture: Array, x: Array, y: Array) -> Array:
    """The wall with its plate: a shadow below it, its face, border and edge."""
    distance = _plate_distance(style, sign, x, y)
    below = _plate_distance(style, sign, x + 0.06 * style.light[0], y + 0.06 * style.light[1])
    picture = picture * (1 - 0.4 * smoothstep(0.08, -0.04, below))[..., None]
    fine = value_noise(style.grid, 3 * x + 9, 3 * y)
    face = style.plate_colour * (1 + 0.05 * fine)[..., None]
    if style.border:
        face = _mixed(face, style.ink + 0 * face, np.exp(-(((distance + 0.09) / 0.022) ** 2)))
    lit = 0.28 * np.exp(-((distance / 0.03) ** 2)) * np.sign(-style.light[1] * y + style.light[0] * x)
    return _mixed(picture, np.clip(face + lit[..., None], 0, 1), smoothstep(0.012, -0.012, distance))


def _fill(sign: Sign, matrix: Array, size: int) -> Array:
    """How much of each pixel digits cover, float32 ``(S, S)``, before strokes are thickened."""
    wide = size * _OVERSAMPLING
    canvas = Image.new("L", (wide, wide))
    pen = ImageDraw.Draw(canvas)
    for polygon, hole in sign.polygons:
        # Pillow's pixel k has its centre at k, ours at k + 0.5.
        pen.polygon([tuple(p) for p in _project(matrix, polygon) * wide - 0.5], fill=0 if hole else 255)
    blocks = np.asarray(canvas, F32).reshape(size, _OVERSAMPLING, size, _OVERSAMPLING)
    return blocks.mean((1, 3)) / 255


def _strokes(style: Style, cover: Array, scale: float) -> Array:
    """Coverage with thicker or thinner strokes and rounder corners; ``scale`` is pixels a digit height."""
    threshold, radius = style.weight
    soft = gaussian_filter(cover, max(radius * scale, 0.35))
    edge = min(0.5 / max(radius * scale, 1.0), 0.28)
    return smoothstep(threshold - edge, threshold + edge, soft).astype(F32)


def _moved(picture: Array, dx: float, dy: float) -> Array:
    """``picture`` ``(S, S)`` moved by fractions of a pixel, edges repeated."""
    for axis, step in ((1, dx), (0, dy)):
        whole = int(np.floor(step))
        index = np.clip(np.arange(picture.shape[axis]) - whole, 0, picture.shape[axis] - 1)
        near, far = np.take(picture, index, axis), np.take(picture, np.maximum(index - 1, 0), axis)
        picture = near + (far - near) * (step - whole)
    return picture


def _ink(style: Style, x: Array, y: Array) -> Array:
    """Display colours of the digits at places of the plane."""
    if style.metal:
        brushed = value_noise(style.grid, 2 * x, 70 * y)
        sheen = 0.25 * np.cos(3.1 * y + 1.3 * x + 4 * style.grid[0, 0])
        return style.ink * (1 + sheen + 0.08 * brushed)[..., None]
    return style.ink * (1 + 0.06 * value_noise(style.grid, 6 * x, 6 * y))[..., None]


def _paint(style: Style, sign: Sign, cover: Array, x: Array, y: Array, scale: float) -> Array:
    """The sign in even light, display colours ``(S, S, 3)``."""
    picture = _wall(style, x, y)
    if style.plate != "none":
        picture = _lay_plate(style, sign, picture, x, y)
    lx, ly = style.light
    if style.raised > 0:
        reach = style.raised * scale
        cast = gaussian_filter(_moved(cover, -lx * reach, -ly * reach), 0.35 * reach)
        picture = picture * (1 - 0.6 * cast)[..., None]
    if style.rim > 0:
        wide = smoothstep(0.08, 0.3, gaussian_filter(cover, style.rim * scale))
        picture = _mixed(picture, np.full(3, 0.95 if style.ink.mean() < 0.5 else 0.06) + 0 * picture, wide)
    flaw = value_noise(style.grid, 5 * x + 11, 5 * y) + 0.5 * value_noise(style.grid, 17 * x, 17 * y)
    worn = cover * (1 - 0.9 * smoothstep(0.0, 0.15, flaw - 1.1 + style.wear))
    colour = _ink(style, x, y)
    if style.raised > 0:
        soft = gaussian_filter(cover, max(0.25 * style.raised * scale, 0.5))
        slope = lx * np.gradient(soft, axis=1) + ly * np.gradient(soft, axis=0)
        colour = colour * (1 - np.clip(0.55 * style.raised * scale * slope, -0.5, 0.5))[..., None]
        colour = colour + np.clip(-0.3 * style.raised * scale * slope, 0, 0.3)[..., None]
    return np.clip(_mixed(picture, np.clip(colour, 0, 1), worn), 0, 1)


def _photograph(style: Style, picture: Array, x: Array, y: Array) -> Array:
    """What a cheap camera makes of it: shadow, glare, exposure, blur and noise; ``x`` and ``y`` in picture sides."""
    angle, place, strength = style.shade
    ragged = 0.06 * value_noise(style.grid, 5 * x, 5 * y)
    across = (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle) - place + ragged
    picture = picture * (1 - strength * smoothstep(-0.03, 0.05, across))[..., None]
    gx, gy, bright = style.glare
    picture = picture + (bright * np.exp(-(((x - gx) / 0.22) ** 2) - ((y - gy) / 0.16) ** 2))[..., None]
    picture = picture * style.exposure
    size, (lens, hand, way) = len(picture), style.blur
    picture = gaussian_filter(picture, (lens * size, lens * size, 0))
    if hand > 0:
        picture = _smear(picture, hand * size, way)
    grain = [value_noise(style.grid, 41 * x + 7 * k, 41 * y + 3 * k) for k in range(3)]
    return np.clip(picture + style.noise * np.stack(grain, -1), 0, 1)


def _smear(picture: Array, reach: float, way: float) -> Array:
    """Average over a straight move of the camera, ``reach`` pixels to either side."""
    moves = np.linspace(-reach, reach, 5)
    moved = [_moved(picture, float(m * np.cos(way)), float(m * np.sin(way))) for m in moves]
    return sum(moved[1:], moved[0]) / len(moved)


def draw_sign(style: Style, sign: Sign, matrix: Array, size: int, box: Array) -> Sample:
    """Draw a sign.

    Args:
        style: How it looks.
        sign: Its digits.
        matrix: Projective map ``(3, 3)`` from its plane to picture sides.
        size: Side of the picture in pixels.
        box: What the sample's box holds, x0, y0, x1, y1 in the plane.

    Returns:
        ``image`` float32 ``(3, S, S)``; ``landmarks`` float32 ``(0, 2)`` and ``visible`` bool ``(0,)``: there are none;
        ``box`` in pixels, float32 ``(4,)``; ``mask`` of all digits, bool ``(S, S)``.
    """
    axis = ((np.arange(size) + 0.5) / size).astype(F32)
    v, u = np.meshgrid(axis, axis, indexing="ij")
    plane = _project(np.linalg.inv(matrix), np.stack([u, v], -1)).astype(F32)
    ends = _project(matrix, np.array([[0.0, -0.5], [0.0, 0.5]]))
    scale = float(size * np.linalg.norm(ends[1] - ends[0]))
    cover = _strokes(style, _fill(sign, matrix, size), scale)
    picture = _paint(style, sign, cover, plane[..., 0], plane[..., 1], scale)
    picture = _photograph(style, picture, u, v).astype(F32)
    corners = np.clip(_project(matrix, _corners(box)) * size, 0, size)
    return {
        "image": torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1), F32)),
        "landmarks": torch.zeros(0, 2),
        "visible": torch.zeros(0, dtype=torch.bool),
        "box": torch.from_numpy(np.concatenate([corners.min(0), corners.max(0)]).astype(F32)),
        "mask": torch.from_numpy(cover > 0.5),
    }


# ---------------------------------------------------------------------------------------------- scenes


def sample_number(rng: np.random.Generator, least: int = 1, alike: bool = True) -> str:
    """A number of ``least`` to four digits without a leading zero; two and three digits are the most frequent.

    Args:
        rng: Source.
        least: Fewest digits.
        alike: Whether all its digits may be the same.
    """
    odds = np.array([0.08, 0.37, 0.4, 0.15])[least - 1 :]
    while True:
        digits = int(rng.choice(np.arange(least, 5), p=odds / odds.sum()))
        number = str(rng.integers(10 ** (digits - 1), 10**digits))
        if alike or len(set(number)) > 1:
            return number


class HouseNumberScene:
    """One of the scenes ``house-numbers`` and ``house-digits``, by its name: pairs of pictures without landmarks.

    They stand in for SVHN. Here a "video" is a pair and does not move smoothly: see the module's text for what its two
    frames share. Neighbouring items ``2 i`` and ``2 i + 1`` are a pair.

    Args:
        scene: A name in :data:`SCENES`.
    """

    frames = FRAMES

    def __init__(self, scene: str):
        self.name = scene
        self.info = Info(
            name=f"procedural:{scene}",
            normaliser="image",
            licence="CC0 (drawn by ulm)",
            citation="Drawn by ulm after Netzer et al., Reading Digits in Natural Images (2011); "
            "typefaces: DejaVu, STIX and Computer Modern, as matplotlib ships them.",
        )

    def draw_frame(self, rng: np.random.Generator, frame: int, size: int) -> Sample:
        """Draw one picture of a pair; the same generator gives the same pair at every size.

        Returns:
            What :func:`draw_sign` says, with ``number`` (str, the whole number) and, in ``house-digits``, ``digit``
            (str, the one in the middle of the crop).
        """
        if self.name == "house-digits":
            return self._digit(rng, frame, size)
        number = sample_number(rng)
        # A generator for each frame: the two pictures share the number and nothing else.
        own = np.random.default_rng(rng.integers(2**63, size=self.frames)[frame])
        style = sample_style(own)
        sign = lay_out(number, style)
        box = np.concatenate([sign.boxes[:, :2].min(0), sign.boxes[:, 2:].max(0)])
        longest = (0.35, 0.7) if len(number) == 1 else (0.6, 0.9)
        matrix = _view(own, box, longest, 0.045)
        return {**draw_sign(style, sign, matrix, size, box), "number": number}

    def _digit(self, rng: np.random.Generator, frame: int, size: int) -> Sample:
        number, style = sample_number(rng, least=2, alike=False), sample_style(rng)
        sign = lay_out(number, style)
        first, *others = (int(k) for k in rng.permutation(len(number)))
        which = first if frame == 0 else next(k for k in others if number[k] != number[first])
        x0, y0, x1, y1 = sign.boxes[which]
        # A window of one size and one view for both: one photograph, cut twice.
        window = np.array([(x0 + x1) / 2 - 0.35, (y0 + y1) / 2 - 0.5, (x0 + x1) / 2 + 0.35, (y0 + y1) / 2 + 0.5])
        matrix = _view(rng, window, (0.68, 0.84), 0.02)
        return {**draw_sign(style, sign, matrix, size, sign.boxes[which]), "number": number, "digit": number[which]}
