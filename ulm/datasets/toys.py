"""Grey plastic toys on a turntable, drawn by ``ulm``; stands in for smallNORB.

Five categories of ten toys each, seen from 9 elevations and 18 azimuths in 6 lights: 48,600 pictures, each a function
of its five factors alone. A toy faces +z at azimuth 0 and stands on the plane y = 0; x right, y up, z to the viewer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, map_coordinates

from ulm.datasets import rendering as r
from ulm.datasets import shapes
from ulm.datasets.base import Info, Sample
from ulm.datasets.rendering import Array, smoothstep
from ulm.datasets.shapes import F32, Surface, ellipsoid, loft, tube
from ulm.errors import InputError

CATEGORIES = ("four-legged animal", "human figure", "airplane", "truck", "car")
"""In the order of smallNORB's labels 0 to 4."""
INSTANCES = 10
ELEVATIONS = tuple(range(30, 75, 5))
"""Degrees above the table, by index."""
AZIMUTHS = tuple(range(0, 360, 20))
"""Degrees of the turntable, by index (smallNORB stores twice the index: 0, 2, ... 34)."""
LIGHTS = 6
SPLIT_INSTANCES = {"train": (4, 6, 7, 8, 9), "val": (4, 6, 7, 8, 9), "test": (0, 1, 2, 3, 5)}
"""The split of smallNORB; ``val`` holds views of the training toys that ``train`` leaves out."""
VALIDATION = 2_300
"""Views of the training toys that are kept for ``val``."""

TYRE, GLASS, PALE = 0.13, 0.2, 0.85

Outline = Sequence[tuple[float, float]] | Array
Place = Sequence[float] | Array


# ---------------------------------------------------------------------------------------------- building blocks


def _off(place: Place, x: float, y: float, z: float) -> Array:
    return np.asarray(place, float) + np.array([x, y, z])


def _grey(value: float) -> tuple[float, float, float]:
    return (value, value, value)


def _plastic(grid: Array, grey: float) -> Surface:
    return Surface(grid, _grey(grey), 0.5, two_sided=True)


def _prism(outline: Outline, low: float, high: float, top: Outline | None = None) -> Array:
    """A block with sharp edges: ``outline`` (x, z) at height ``low``, ``top`` (default: the same) at ``high``."""
    base = np.asarray(outline, float)
    upper = base if top is None else np.asarray(top, float)
    x, z = base.T
    if (x * np.roll(z, -1) - z * np.roll(x, -1)).sum() > 0:
        base, upper = base[::-1], upper[::-1]
    # Every corner and every edge twice: normals then do not run over them.
    corners = [np.concatenate([np.repeat(o, 2, 0)[1:], o[:1]]) for o in (base, upper)]
    rows = []
    for points, y in zip(corners, (low, high), strict=True):
        ring = np.stack([points[:, 0], np.full(len(points), y), points[:, 1]], 1)
        hub = np.broadcast_to(ring[:-1].mean(0), ring.shape)
        rows += [hub, ring, ring] if y == low else [ring, ring, hub]
    return np.stack(rows)


def _block(centre: Place, half: Place, taper: float = 1.0) -> Array:
    """A box whose upper face is ``taper`` times its lower one."""
    (x, y, z), (a, b, c) = centre, half
    square = np.array([(-a, -c), (a, -c), (a, c), (-a, c)])
    return _prism(square, -b, b, square * taper) + np.array([x, y, z])


# Rotations that lay the y axis along x and along -z.
_TO_X = np.array([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]])
_TO_Z = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])


def _side(profile: Outline, half: float, x: float = 0.0) -> Array:
    """A plate with the side view ``profile`` (z, y), from x - half to x + half."""
    return _prism(profile, -half, half) @ _TO_X.T + np.array([x, 0, 0])


def _lathe(heights: Sequence[float], radii: Sequence[float], columns: int = 19) -> Array:
    """A turned body round the y axis; equal neighbouring rows make sharp edges."""
    wide = np.asarray(radii, float)
    return loft(np.asarray(heights, float), np.stack([0 * wide, 0 * wide, wide, wide], 1), columns)


def _drum(radius: float, half: float, columns: int = 19) -> Array:
    return _lathe([-half, -half, -half, half, half, half], [0, radius, radius, radius, radius, 0], columns)


def _wheel(x: float, y: float, z: float, radius: float, half: float = 0.07) -> Surface:
    """A dark tyre with a pale hub; its axle is along x."""

    def paint(p: Array, u: Array, v: Array) -> Array:
        far = np.sqrt(p[:, 0] ** 2 + p[:, 2] ** 2) / radius
        return np.repeat((TYRE + 0.45 * smoothstep(0.6, 0.52, far) * smoothstep(0.1, 0.16, far))[:, None], 3, 1)

    bulge = [0, 0.55, 0.6, 0.95, 1.0, 1.0, 0.95, 0.6, 0.55, 0]
    at = [-0.8, -0.8, -1.0, -1.0, -0.7, 0.7, 1.0, 1.0, 0.8, 0.8]
    grid = _lathe([half * a for a in at], [radius * b for b in bulge])
    return Surface(grid, paint, 0.3, wrap=True).moved(_TO_X, (x, y, z))


def _wheels(width: float, radius: float, places: Sequence[float], half: float = 0.07) -> list[Surface]:
    return [_wheel(side * width, radius, z, radius, half) for z in places for side in (-1, 1)]


def _hull(stations: Array, paint: shapes.Paint | float, columns: int = 25, gloss: float = 0.7) -> Surface:
    """A body along z through rounded boxes, from front to back.

    Args:
        stations: ``(M, 5)``: z (falling), half width, bottom, top, squareness.
        paint: A grey or a paint.
        columns: Points round a section.
        gloss: Of the surface.
    """
    s = np.asarray(stations, float)
    closed = np.concatenate([s[[0, 0]], s, s[[-1, -1]]])
    closed[[0, -1], 1] = 0
    closed[[0, -1], 2] = closed[[0, -1], 3] = closed[[0, -1], 2:4].mean(1)
    z, wide, low, high, square = closed.T
    grid = loft(-z, np.stack([0 * z, (low + high) / 2, wide, (high - low) / 2], 1), columns, square) @ _TO_Z.T
    return Surface(grid, paint if callable(paint) else _grey(paint), gloss, wrap=True)


def _limb(points: Sequence[Place], radii: Sequence[float] | float, grey: float) -> Surface:
    """A smooth limb through a few places."""
    knots = np.asarray(points, float)
    t = np.linspace(0, len(knots) - 1, 4 * (len(knots) - 1) + 1)
    path = r.spline(knots, t).T
    size = np.broadcast_to(np.asarray(radii, float), (len(knots),))
    return Surface(tube(path, np.interp(t, np.arange(len(knots)), size), 13), _grey(grey), 0.5, wrap=True)


def _rod(start: Place, end: Place, radius: float, grey: float) -> Surface:
    return Surface(tube(np.array([start, end], float), radius, 9), _grey(grey), 0.5, wrap=True)


def _ball(centre: Place, radii: Place, grey: float) -> Surface:
    return Surface(ellipsoid(np.asarray(centre, float), np.asarray(radii, float), 11, 17), _grey(grey), 0.5, wrap=True)


def _pair(make: Callable[[float], Surface]) -> list[Surface]:
    return [make(-1.0), make(1.0)]


# ---------------------------------------------------------------------------------------------- animals


@dataclass(frozen=True)
class _Beast:
    """Proportions of a four-legged animal; lengths in units of its trunk, half widths and radii alike."""

    grey: float = 0.6
    chest: float = 0.26
    rump: float = 0.24
    belly: float = 0.25
    leg: float = 0.55
    foot: float = 0.06
    thigh: float = 0.12
    neck: tuple[float, float] = (0.45, 0.45)
    throat: float = 0.15
    head: float = 0.42
    skull: float = 0.14
    snout: float = 0.08
    droop: float = 0.45
    ears: str = "up"
    horns: str = ""
    tail: tuple[float, float, float] = (0.5, 0.035, -0.9)
    mane: float = 0.0
    humps: int = 0
    trunk: bool = False
    stride: float = 0.08
    spots: float = 0.0


_BEASTS = (
    _Beast(0.55, neck=(0.42, 0.55), throat=0.14, mane=0.12, tail=(0.6, 0.07, -1.0), leg=0.66),
    _Beast(0.68, 0.29, 0.29, 0.31, 0.45, horns="cow", neck=(0.3, 0.22), ears="side", spots=0.4, snout=0.11),
    _Beast(0.5, 0.36, 0.34, 0.38, 0.42, 0.14, 0.17, (0.2, 0.16), 0.26, 0.36, 0.24, 0.16, 0.7, "fan", "tusks",
           (0.35, 0.03, -0.9), trunk=True),
    _Beast(0.62, 0.27, 0.22, 0.23, 0.45, 0.08, neck=(0.28, 0.22), throat=0.2, head=0.34, skull=0.19, snout=0.12,
           droop=0.2, ears="round", mane=0.36, tail=(0.62, 0.035, -0.5)),
    _Beast(0.58, 0.24, 0.2, 0.2, 0.62, 0.05, 0.1, (0.25, 0.5), 0.1, 0.34, 0.11, 0.06, 0.3, horns="antlers",
           tail=(0.14, 0.05, 0.2)),
    _Beast(0.5, 0.22, 0.18, 0.18, 0.42, 0.055, 0.1, (0.2, 0.28), 0.13, 0.36, 0.14, 0.075, 0.15, "flop",
           tail=(0.42, 0.04, 0.7), stride=0.16),
    _Beast(0.48, 0.33, 0.31, 0.33, 0.36, 0.11, 0.16, (0.3, 0.02), 0.24, 0.5, 0.2, 0.13, 0.35, "up", "rhino",
           (0.3, 0.03, -0.9)),
    _Beast(0.64, 0.21, 0.2, 0.21, 0.74, 0.06, 0.11, (0.38, 1.15), 0.12, 0.34, 0.11, 0.07, 0.35, "up", "stubs",
           (0.5, 0.03, -0.9), spots=0.3),
    _Beast(0.7, 0.27, 0.24, 0.27, 0.66, 0.07, 0.12, (0.5, 0.42), 0.12, 0.36, 0.12, 0.08, 0.25, "up",
           tail=(0.4, 0.03, -0.9), humps=2),
    _Beast(0.72, 0.29, 0.29, 0.32, 0.26, 0.07, 0.12, (0.2, 0.04), 0.22, 0.36, 0.19, 0.1, 0.3, "flop",
           tail=(0.2, 0.025, 0.6)),
)  # fmt: skip


def _animal(instance: int) -> list[Surface]:
    b = _BEASTS[instance]
    y, rng = b.leg + b.belly, np.random.default_rng(instance)
    spine = np.array([[0, y + 0.02, -0.56], [0, y + 0.02, -0.4], [0, y, -0.1], [0, y, 0.2], [0, y + 0.03, 0.46]])
    t = np.linspace(0, 4, 17)
    girth = np.interp(t, range(5), [0.8 * b.rump, b.rump, b.belly, b.belly, b.chest * 0.85])
    grid = rng.uniform(-1, 1, (16, 16)).astype(F32)

    def hide(p: Array, u: Array, v: Array) -> Array:
        mark = smoothstep(0.15, 0.25, r.value_noise(grid, 5 * p[:, 2] + 3 * p[:, 0], 5 * p[:, 1]))
        return np.repeat((b.grey - b.spots * mark)[:, None], 3, 1)

    path = r.spline(spine, t).T
    body = tube(path, np.stack([0.88 * girth, girth], 1), 21, (0, 1, 0))
    skin: shapes.Paint | tuple[float, float, float] = hide if b.spots else _grey(b.grey)
    toy = [Surface(body, skin, 0.5, wrap=True)]
    for side in (-1, 1):
        for z, lean in ((0.36, b.stride * side), (-0.46, -b.stride * side)):
            x = side * 0.52 * b.belly
            hoof, shank = (x, 0.05, z + lean), (x, 0.25 * b.leg, z + 0.6 * lean)
            joints = [(0.8 * x, y, z), (x, 0.55 * y, z + 0.3 * lean), shank, hoof]
            toy.append(_limb(joints, [b.thigh, b.thigh * 0.85, b.foot, b.foot * 1.15], b.grey))
    toy += _animal_head(b, y, skin)
    reach, thick, rise = b.tail
    root = np.array([0, y + 0.6 * b.rump, -0.5 - 0.6 * b.rump])
    way = np.array([0, rise, -0.45 if rise < 0 else -0.8])
    mid = root + 0.45 * reach * (0.5 * way + np.array([0, 0.1, -0.4]))
    toy.append(_limb([root, mid, root + reach * way / np.hypot(*way[1:])], [thick, thick, thick * 0.9], b.grey - 0.1))
    for k in range(b.humps):
        toy.append(_ball((0, y + 0.85 * b.belly, 0.22 - 0.42 * k), (0.14, 0.24, 0.16), b.grey))
    return toy


def _animal_head(b: _Beast, y: float, skin: Any) -> list[Surface]:
    root = np.array([0, y + 0.25 * b.chest, 0.42])
    poll = root + np.array([0, b.neck[1], b.neck[0]])
    bend = root + np.array([0, 0.45 * b.neck[1], 0.6 * b.neck[0]])
    # The neck grows out of the middle of the chest, so that no ring shows where they meet.
    neck = _limb([root - [0, 0.3 * b.chest, 0.3], bend, poll], [b.chest * 0.6, b.throat * 1.2, b.throat], 0)
    parts = [replace(neck, paint=skin)]
    way = np.array([0, -np.sin(b.droop), np.cos(b.droop)])
    up = np.array([0, np.cos(b.droop), np.sin(b.droop)])
    back, nose = poll - 0.2 * b.head * way, poll + 0.8 * b.head * way
    radii = [b.skull * 0.8, b.skull, (b.skull + b.snout) / 2.1, b.snout, b.snout]
    line = [back, back + 0.3 * b.head * way, back + 0.6 * b.head * way, back + 0.85 * b.head * way, nose]
    parts.append(_limb(line, radii, b.grey))
    eye = back + 0.38 * b.head * way + 0.35 * b.skull * up
    parts += _pair(lambda s: _ball(_off(eye, s * 0.84 * b.skull, 0, 0.0), (0.03, 0.03, 0.03), 0.08))
    crown = back + 0.15 * b.head * way + 0.7 * b.skull * up
    if b.mane > 0.2:
        ring = poll - 0.12 * way
        parts.append(_ball(ring, (b.mane, b.mane * 1.05, 0.2), b.grey - 0.22))
        parts.append(_ball(_off(root, 0, 0.02, 0.02), (0.24, 0.32, 0.24), b.grey - 0.22))
    elif b.mane:
        crest = [_off(root, 0, 0.14, -0.14), _off(bend, 0, 0.12, -0.12), _off(poll, 0, 0.12, -0.08), crown + 0.08 * way]
        parts.append(_limb(crest, [0.05, b.mane * 0.6, b.mane * 0.55, 0.04], b.grey - 0.25))
    return parts + _ears(b, crown, way) + _horns(b, crown, nose, way, up)


def _ears(b: _Beast, crown: Array, way: Array) -> list[Surface]:
    s = b.skull
    if b.ears == "fan":
        return _pair(lambda k: _ball(_off(crown, k * 0.34, -0.16, -0.12), (0.24, 0.3, 0.045), b.grey - 0.06))
    if b.ears == "flop":
        return _pair(lambda k: _ball(_off(crown, k * s * 0.95, -0.07, -0.02), (0.045, 0.13, 0.08), b.grey - 0.15))
    if b.ears == "side":
        return _pair(lambda k: _ball(_off(crown, k * (s + 0.07), -0.05, -0.02), (0.12, 0.04, 0.06), b.grey - 0.1))
    if b.ears == "round":
        return _pair(lambda k: _ball(_off(crown, k * s * 0.8, 0.02, 0.03), (0.07, 0.08, 0.04), b.grey))
    feet = [_off(crown, k * 0.6 * s, -0.03, 0) for k in (-1, 1)]
    return [_limb([foot, _off(foot, np.sign(foot[0]) * 0.2 * s, 0.19, -0.03)], [0.05, 0.012], b.grey) for foot in feet]


def _horns(b: _Beast, crown: Array, nose: Array, way: Array, up: Array) -> list[Surface]:
    s, parts = b.skull, []
    if b.horns == "cow":
        for k in (-1, 1):
            horn = [(k * 0.5 * s, 0, 0), (k * 0.26, 0.04, 0.02), (k * 0.3, 0.2, 0.06)]
            parts.append(_limb([_off(crown, *place) for place in horn], [0.05, 0.04, 0.012], PALE))
    if b.horns == "stubs":
        parts += _pair(lambda k: _rod(_off(crown, k * 0.05, 0, 0), _off(crown, k * 0.06, 0.16, 0), 0.03, 0.4))
    if b.horns == "antlers":
        for k in (-1, 1):
            stem = [_off(crown, k * 0.05, -0.02, 0), _off(crown, k * 0.2, 0.2, -0.1), _off(crown, k * 0.24, 0.45, 0.0)]
            parts.append(_limb(stem, [0.035, 0.03, 0.02], PALE))
            parts.append(_rod(stem[1], _off(stem[1], k * 0.02, 0.16, 0.16), 0.025, PALE))
            parts.append(_rod((stem[1] + stem[2]) / 2, _off(stem[1], k * 0.2, 0.22, 0.0), 0.025, PALE))
    if b.horns == "rhino":
        for at, long in ((0.0, 0.3), (0.16, 0.16)):
            root = nose - at * way + 0.6 * b.snout * up - 0.06 * way
            parts.append(_limb([root, root + long * (0.9 * up + 0.4 * way)], [0.075, 0.015], PALE))
    if b.trunk:
        drop = [nose - 0.08 * way, _off(nose, 0, -0.2, 0.12), _off(nose, 0, -0.45, 0.1), _off(nose, 0, -0.55, 0.25)]
        parts.append(_limb(drop, [0.15, 0.11, 0.08, 0.06], b.grey))
    if b.horns == "tusks":
        for k in (-1, 1):
            tusk = [(k * 0.13, 0, -0.05), (k * 0.16, -0.12, 0.12), (k * 0.15, -0.06, 0.32)]
            low = nose - 0.6 * b.snout * up
            parts.append(_limb([_off(low, *place) for place in tusk], [0.045, 0.04, 0.015], 0.92))
    return parts


# ---------------------------------------------------------------------------------------------- people


@dataclass(frozen=True)
class _Figure:
    """A figure: elbow and hand of each arm from the shoulder, knee and foot of each leg from the hip; -x first."""

    arms: tuple[tuple[tuple[float, float, float], tuple[float, float, float]], ...]
    legs: tuple[tuple[tuple[float, float, float], tuple[float, float, float]], ...]
    hat: str = ""
    holds: str = ""
    skirt: str = ""
    grey: float = 0.6
    bulk: float = 1.0


_STAND = (((-0.03, -0.45, 0.03), (-0.06, -0.88, 0.0)), ((0.03, -0.45, 0.03), (0.06, -0.88, 0.0)))
_APART = (((-0.12, -0.43, 0.05), (-0.2, -0.88, 0.0)), ((0.12, -0.43, 0.05), (0.2, -0.88, 0.0)))
_WALK = (((-0.01, -0.42, 0.2), (-0.02, -0.87, 0.24)), ((0.01, -0.44, -0.06), (0.02, -0.8, -0.36)))
_RUN = (((-0.01, -0.3, 0.36), (-0.02, -0.7, 0.22)), ((0.01, -0.42, -0.16), (0.02, -0.56, -0.6)))
_DOWN_LEFT, _DOWN_RIGHT = ((-0.12, -0.3, 0.0), (-0.17, -0.6, 0.08)), ((0.12, -0.3, 0.0), (0.17, -0.6, 0.08))
_FIGURES = (
    _Figure((((-0.16, -0.28, 0.08), (0.06, -0.3, 0.3)), ((0.16, -0.26, 0.1), (0.1, -0.02, 0.32))), _APART, "helmet",
            "rifle-across", grey=0.5),
    _Figure((((-0.28, -0.22, -0.06), (-0.02, -0.46, 0.08)), ((0.28, -0.22, -0.06), (0.02, -0.46, 0.08))), _APART,
            "stetson", grey=0.62),
    _Figure((((-0.2, -0.25, 0.02), (-0.4, -0.42, 0.16)), ((0.2, -0.25, 0.02), (0.4, -0.42, 0.16))), _STAND, "hair", "",
            "dress", 0.72, 0.85),
    _Figure((((-0.1, -0.24, -0.2), (-0.06, -0.42, 0.06)), ((0.1, -0.26, 0.16), (0.02, -0.1, 0.4))), _RUN,
            grey=0.66),
    _Figure((((-0.04, -0.16, 0.28), (0.16, -0.04, 0.5)), ((0.24, -0.12, 0.06), (0.0, -0.04, 0.26))), _WALK, "helmet",
            "rifle-ahead", grey=0.47),
    _Figure((((-0.16, -0.22, 0.14), (-0.12, -0.26, 0.38)), ((0.22, -0.06, 0.1), (0.34, 0.3, 0.12))), _APART, "crest",
            "sword", grey=0.68, bulk=1.15),
    _Figure((((-0.2, 0.2, 0.04), (-0.32, 0.56, 0.05)), ((0.2, 0.2, 0.04), (0.32, 0.56, 0.05))), _APART, "cap",
            grey=0.58),
    _Figure((_DOWN_LEFT, ((0.22, -0.16, 0.14), (0.34, -0.12, 0.38))), _STAND, "cone", "staff", "robe", 0.44, 1.05),
    _Figure((((-0.1, -0.28, -0.1), (-0.14, -0.58, -0.16)), ((0.1, -0.28, 0.1), (0.12, -0.55, 0.24))), _WALK, "bowler",
            "case", "coat", 0.5),
    _Figure((((-0.1, -0.2, 0.2), (0.16, -0.06, 0.34)), ((0.24, -0.16, 0.1), (-0.04, 0.02, 0.28))), _APART, "cap", "bat",
            grey=0.7, bulk=1.05),
)  # fmt: skip


def _human(instance: int) -> list[Surface]:
    f = _FIGURES[instance]
    w, hip, shoulder = f.bulk, 0.95, 1.46
    skin, cloth, dark = f.grey + 0.14, f.grey, f.grey - 0.2
    toy = [_plastic(_drum(0.44, 0.035, 29) + np.array([0, 0.035, 0]), f.grey - 0.12)]
    heights = np.array([0.86, 0.95, 1.06, 1.2, 1.36, 1.46, 1.52, 1.56])
    wide = np.array([0.12, 0.2, 0.175, 0.2, 0.245, 0.235, 0.12, 0.06]) * w
    deep = np.array([0.08, 0.135, 0.12, 0.135, 0.15, 0.12, 0.08, 0.06]) * w
    toy.append(Surface(loft(heights, np.stack([0 * wide, 0 * wide, wide, deep], 1), 21, 0.25), _grey(cloth), 0.5,
                       wrap=True))  # fmt: skip
    belt = _lathe([0.98, 0.98, 1.04, 1.04], [0.05, 0.2, 0.195, 0.05]) * np.array([w, 1, 0.72 * w])
    toy.append(_plastic(belt, dark))
    hands = []
    for side, (knee, foot), (elbow, hand) in zip((-1, 1), f.legs, f.arms, strict=True):
        at = np.array([side * 0.1 * w, hip, 0])
        end = at + _off(foot, 0, 0.07, 0)
        toy.append(_limb([at, at + knee, end], [0.115 * w, 0.095 * w, 0.07 * w], cloth if f.skirt else cloth - 0.1))
        toy.append(_limb([_off(end, 0, -0.02, -0.04), _off(end, 0, -0.04, 0.15)], [0.075, 0.065], dark))
        top = np.array([side * 0.23 * w, shoulder - 0.03, 0])
        toy.append(_limb([top, top + elbow, top + hand], [0.085 * w, 0.07 * w, 0.055 * w], cloth))
        toy.append(_ball(top + hand, (0.065, 0.065, 0.065), skin))
        hands.append(top + hand)
    toy.append(_rod((0, 1.5, 0), (0, 1.64, 0.01), 0.065, skin))
    toy.append(_ball((0, 1.74, 0.02), (0.135, 0.165, 0.15), skin))
    toy.append(_ball((0, 1.73, 0.17), (0.025, 0.04, 0.03), skin))
    toy += _pair(lambda s: _ball((s * 0.05, 1.77, 0.15), (0.022, 0.022, 0.02), 0.12))
    return toy + _hat(f) + _held(f, hands) + _skirt(f)


def _skirt(f: _Figure) -> list[Surface]:
    low = {"dress": 0.38, "robe": 0.08, "coat": 0.52}.get(f.skirt)
    if low is None:
        return []
    flare = {"dress": 0.38, "robe": 0.34, "coat": 0.27}[f.skirt]
    heights = [low, low, 0.8, 1.0, 1.08]
    radii = [0.1, flare, (flare + 0.2) / 2 + 0.02, 0.215, 0.2]
    return [_plastic(_lathe(heights, radii, 23) * np.array([1, 1, 0.85]), f.grey - (0.06 if f.skirt == "coat" else 0))]


def _hat(f: _Figure) -> list[Surface]:
    tone, at = f.grey - 0.22, np.array([0, 1.8, 0.0])
    turned = {
        "helmet": ([0, 0, 0.03, 0.1, 0.15, 0.17], [0.1, 0.19, 0.18, 0.15, 0.08, 0]),
        "stetson": ([0.04, 0.02, 0.03, 0.05, 0.2, 0.22], [0.3, 0.28, 0.15, 0.145, 0.11, 0]),
        "hair": ([-0.1, 0.0, 0.08, 0.13, 0.15], [0.15, 0.17, 0.15, 0.08, 0]),
        "crest": ([-0.04, 0.0, 0.08, 0.14, 0.17], [0.16, 0.165, 0.15, 0.09, 0]),
        "cap": ([0, 0, 0.07, 0.11, 0.12], [0.05, 0.15, 0.14, 0.08, 0]),
        "cone": ([0, 0, 0.02, 0.25, 0.5], [0.1, 0.28, 0.16, 0.08, 0.0]),
        "bowler": ([0, 0, 0.02, 0.12, 0.16, 0.17], [0.1, 0.22, 0.15, 0.14, 0.08, 0]),
    }.get(f.hat)
    if turned is None:
        return [_ball((0, 1.79, -0.02), (0.145, 0.14, 0.145), tone)]
    offset = at + np.array([0, 0.0, -0.045 if f.hat == "hair" else 0.01])
    parts = [_plastic(_lathe(*turned, 21) + offset, tone)]
    if f.hat == "cap":
        parts.append(_ball((0, 1.81, 0.17), (0.11, 0.02, 0.12), tone))
    if f.hat == "crest":
        parts.append(_limb([(0, 1.9, 0.12), (0, 2.02, 0), (0, 1.84, -0.18)], [0.03, 0.05, 0.03], f.grey - 0.35))
    if f.hat == "hair":
        parts.append(_limb([(0, 1.86, -0.1), (0, 1.7, -0.17), (0, 1.5, -0.15)], [0.1, 0.13, 0.07], tone))
    return parts


def _held(f: _Figure, hands: list[Array]) -> list[Surface]:
    left, right = hands
    steel = 0.25
    if f.holds in ("rifle-across", "rifle-ahead", "bat"):
        way = r.unit(left - right)
        if f.holds == "bat":
            top = right + np.array([0.2, 0.62, -0.28])
            return [_limb([left, right, top], [0.03, 0.035, 0.075], PALE)]
        butt, muzzle = right - 0.28 * way, left + 0.42 * way
        return [_limb([butt, right, left], [0.06, 0.04, 0.035], steel), _rod(left, muzzle, 0.022, steel)]
    if f.holds == "sword":
        blade = _rod(right, right + np.array([0.06, 0.62, 0.12]), 0.03, PALE)
        guard = _rod(_off(right, -0.1, 0.08, 0), _off(right, 0.12, 0.06, 0.02), 0.025, steel)
        shield = _prism([(-0.17, -0.2), (0.17, -0.2), (0.17, 0.06), (0.0, 0.3), (-0.17, 0.06)], -0.025, 0.025)
        shield = shield @ np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]).T
        return [blade, guard, _plastic(shield + _off(left, 0, 0, 0.06), f.grey - 0.25)]
    if f.holds == "staff":
        foot = right * [1, 0, 1] + [0.03, 0.05, 0.03]
        knob = _ball(_off(right, -0.01, 0.66, 0), (0.08, 0.08, 0.08), PALE)
        return [_rod(foot, _off(right, -0.01, 0.6, -0.01), 0.028, 0.3), knob]
    if f.holds == "case":
        return [_plastic(_block(_off(right, 0, -0.19, 0), (0.06, 0.13, 0.19)), 0.25)]
    return []


# ---------------------------------------------------------------------------------------------- airplanes


@dataclass(frozen=True)
class _Plane:
    """An airplane: the fuselage is two long; wings are given by root and tip chord and by where their middles are."""

    grey: float = 0.65
    girth: float = 0.13
    nose: float = 0.5
    span: float = 0.95
    root: float = 0.4
    tip: float = 0.16
    wing: float = 0.1
    sweep: float = 0.35
    height: float = -0.3
    dihedral: float = 0.06
    tail: float = 0.36
    fin: float = 0.32
    high_tail: bool = False
    twin: bool = False
    second: bool = False
    pods: tuple[float, ...] = ()
    props: tuple[float, ...] = ()
    rear: bool = False
    canopy: bool = False
    floats: bool = False


_PLANES = (
    _Plane(0.72, pods=(0.34,)),
    _Plane(
        0.6, 0.12, 0.25, 0.85, 0.26, 0.24, 0.36, 0.0, -0.7, 0.03, 0.32, 0.28, second=True, props=(0.0,), canopy=True
    ),
    _Plane(0.52, 0.11, 0.9, 0.62, 1.0, 0.08, -0.25, 0.62, -0.15, 0.0, 0.0, 0.36, rear=True, canopy=True),
    _Plane(0.66, 0.14, 0.3, 1.0, 0.3, 0.2, 0.32, 0.02, 0.95, 0.04, 0.38, 0.34, props=(0.0,), canopy=True),
    _Plane(0.68, 0.14, pods=(0.3, 0.58), span=1.05, root=0.42, sweep=0.42),
    _Plane(0.55, 0.13, 0.35, 0.92, 0.4, 0.16, 0.28, 0.06, -0.5, 0.1, 0.36, 0.27, props=(0.0,), canopy=True),
    _Plane(0.5, 0.12, 0.9, 0.66, 0.55, 0.18, -0.05, 0.36, 0.1, -0.02, 0.36, 0.34, twin=True, rear=True, canopy=True),
    _Plane(0.7, 0.12, 0.6, 0.8, 0.32, 0.14, 0.02, 0.22, -0.6, 0.08, 0.32, 0.36, high_tail=True, pods=(-0.2,)),
    _Plane(0.58, 0.13, 0.4, 1.1, 0.36, 0.16, 0.22, 0.06, 0.2, 0.04, 0.42, 0.32, props=(0.32, 0.62)),
    _Plane(0.64, 0.13, 0.25, 0.9, 0.3, 0.28, 0.34, 0.0, -0.75, 0.03, 0.34, 0.3, second=True, props=(0.0,), floats=True),
)


def _airplane(instance: int) -> list[Surface]:
    p = _PLANES[instance]
    y = 0.42 if p.floats else 0.3
    z = np.array([1.0, 0.96, 0.88, 0.75, 0.55, 0.3, 0.0, -0.35, -0.7, -0.92, -1.0])
    blunt = 0.3 * (1 - p.nose)
    full = np.array([0.05 + blunt, 0.3 + blunt, 0.6 + 0.6 * blunt, 0.82, 0.96, 1, 1, 0.92, 0.62, 0.34, 0.2])
    if p.rear:
        full[-3:] = (0.9, 0.8, 0.7)
    centre = y + p.girth * np.array([-0.1, -0.08, -0.03, 0, 0, 0, 0, 0.05, 0.2, 0.35, 0.4]) * (not p.rear)
    size = p.girth * full
    stations = np.stack([z, size, centre - size, centre + size, np.zeros(len(z))], 1)

    def skin(q: Array, u: Array, v: Array) -> Array:
        tone = np.full(len(q), p.grey)
        along, up = -q[:, 1], (q[:, 2] - y) / p.girth
        if not p.canopy:
            pane = (np.abs(up - 0.25) < 0.13) & (np.abs(along) < 0.66) & (np.sin(52 * along) > -0.1)
            tone = np.where(pane | ((along > 0.82) & (up > 0.1) & (up < 0.5)), GLASS, tone)
        return np.repeat(tone[:, None], 3, 1)

    hull = _hull(stations, skin)
    toy = [replace(hull, rest=hull.points @ _TO_Z)]
    toy += _wings(p, y)
    toy += _tail(p, y)
    if p.canopy:
        toy.append(_ball((0, y + 0.85 * p.girth, 0.28 if p.rear else 0.02), (0.075, 0.09, 0.24), GLASS))
    for x in p.props:
        toy += [e for s in ((-1, 1) if x else (1,)) for e in _propeller(p, s * x, y)]
    for x in p.pods:
        toy += [e for s in (-1, 1) for e in _pod(p, s * x, y)]
    return toy + _gear(p, y)


def _wings(p: _Plane, y: float) -> list[Surface]:
    levels = [p.height, 1.9] if p.second else [p.height]
    parts = []
    for level in levels:
        for s in (-1, 1):
            a, b, t = p.root / 2, p.tip / 2, p.wing - p.sweep
            corners = [(0, p.wing + a), (0, p.wing - a), (s * p.span, t - b), (s * p.span, t + b)]
            plate = _prism(corners, -0.018, 0.018)
            plate[..., 1] += y + level * p.girth + p.dihedral * np.abs(plate[..., 0])
            parts.append(_plastic(plate, p.grey - 0.06))
            if p.second and level > 0:
                for x, z in ((0.5, 0.08), (0.5, -0.08), (0.12, 0.06)):
                    low, high = y + p.height * p.girth, y + level * p.girth + 0.5 * p.dihedral
                    parts.append(_rod((s * x, low, p.wing + z), (s * x, high, p.wing + z), 0.014, 0.3))
    return parts


def _tail(p: _Plane, y: float) -> list[Surface]:
    parts = []
    top = y + (p.fin + 0.1 if p.high_tail else 0.3 * p.girth * (not p.rear))
    for s in (-1, 1):
        if p.tail:
            corners = [(0, -0.7), (0, -0.95), (s * p.tail, -1.02), (s * p.tail, -0.88)]
            parts.append(_plastic(_prism(corners, -0.015, 0.015) + np.array([0, top, 0]), p.grey - 0.06))
    profile = [
        (-0.62, y + 0.5 * p.girth),
        (-0.98, y + 0.4 * p.girth),
        (-1.06, y + 0.1 + p.fin),
        (-0.88, y + 0.1 + p.fin),
    ]
    if p.twin:
        return parts + _pair(lambda s: _plastic(_side(profile, 0.014, s * 0.13), p.grey - 0.1))
    return [*parts, _plastic(_side(profile, 0.016), p.grey - 0.1)]


def _propeller(p: _Plane, x: float, y: float) -> list[Surface]:
    z = 1.02 if x == 0 else p.wing - p.sweep * abs(x) / p.span + 0.5 * p.root * 0.8
    at = np.array([x, y + (0 if x == 0 else p.height * p.girth + p.dihedral * abs(x)), z])
    parts = [_ball(_off(at, 0, 0, 0.03), (0.04, 0.04, 0.07), 0.3)]
    for turn in (20.0, 140.0, 260.0):
        c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
        reach = 0.26 if x == 0 else 0.17
        blade = np.array([[0.0, -0.03, 0], [reach, -0.035, 0], [reach, 0.035, 0], [0, 0.03, 0]])
        corners = np.stack([blade[:, 0] * c - blade[:, 1] * s, blade[:, 0] * s + blade[:, 1] * c, 0 * blade[:, 0]], 1)
        parts.append(_plastic(corners[[0, 1, 3, 2]].reshape(2, 2, 3) + at, 0.22))
    if x:
        parts.append(_limb([at, at - [0, 0, 0.35]], [0.075, 0.04], p.grey - 0.05))
    return parts


def _pod(p: _Plane, x: float, y: float) -> list[Surface]:
    if x < 0.25 and p.high_tail:
        at = np.array([np.sign(x) * (p.girth + 0.08), y + 0.35 * p.girth, -0.52])
    else:
        z = p.wing - p.sweep * abs(x) / p.span + 0.22
        at = np.array([x, y + p.height * p.girth + p.dihedral * abs(x) - 0.09, z])
    shell = _lathe([-0.17, -0.17, -0.1, 0.1, 0.16, 0.16, 0.1], [0, 0.04, 0.065, 0.075, 0.062, 0.05, 0])
    return [_plastic(shell[:, ::-1] @ np.array([[1.0, 0, 0], [0, 0, 1], [0, 1, 0]]).T + at, p.grey - 0.18)]


def _gear(p: _Plane, y: float) -> list[Surface]:
    if p.floats:
        parts = []
        for s in (-1, 1):
            keel = [(s * 0.25, 0.1, 0.85), (s * 0.25, 0.07, 0.3), (s * 0.25, 0.12, -0.45)]
            parts.append(_limb(keel, [0.05, 0.08, 0.03], p.grey - 0.15))
            parts += [_rod((s * 0.25, 0.12, z), (s * 0.1, y - 0.05, z), 0.016, 0.3) for z in (0.15, 0.5)]
        return parts
    taildragger = bool(p.props) and len(p.props) == 1
    mains, third = (0.32, -0.85) if taildragger else (-0.05, 0.72)
    parts = [_wheel(s * 0.17, 0.06, mains, 0.06, 0.025) for s in (-1, 1)]
    parts += [_rod((s * 0.17, 0.06, mains), (s * 0.1, y - 0.04, mains), 0.016, 0.3) for s in (-1, 1)]
    return [*parts, _wheel(0, 0.05, third, 0.05, 0.02), _rod((0, 0.05, third), (0, y - 0.02, third), 0.016, 0.3)]


# ---------------------------------------------------------------------------------------------- trucks


@dataclass(frozen=True)
class _Lorry:
    """A truck: what it carries, the kind of its cab, its length and its axles (z of each, front first)."""

    load: str
    nose: bool = False
    grey: float = 0.6
    rear: float = -1.0
    axles: tuple[float, ...] = (0.68, -0.6)
    wheel: float = 0.17
    load_grey: float = 0.7


_LORRIES = (
    _Lorry("box", False, 0.5, -1.05, (0.7, -0.65), load_grey=0.78),
    _Lorry("dump", True, 0.64, -0.95, (0.72, -0.35, -0.75), 0.2, 0.55),
    _Lorry("tank", False, 0.58, -1.1, (0.7, -0.45, -0.85), 0.17, 0.74),
    _Lorry("ladder", False, 0.48, -1.15, (0.66, -0.75), 0.18, 0.5),
    _Lorry("logs", True, 0.62, -1.1, (0.72, -0.5, -0.9), 0.17, 0.5),
    _Lorry("canvas", True, 0.46, -1.0, (0.72, -0.4, -0.78), 0.19, 0.6),
    _Lorry("mixer", False, 0.6, -1.0, (0.7, -0.3, -0.7), 0.18, 0.75),
    _Lorry("trailer", True, 0.55, -1.7, (0.75, 0.08, -1.2, -1.5), 0.16, 0.76),
    _Lorry("pickup", True, 0.66, -0.85, (0.62, -0.5), 0.18, 0.66),
    _Lorry("crane", False, 0.62, -1.1, (0.7, -0.45, -0.85), 0.18, 0.66),
)


def _truck(instance: int) -> list[Surface]:
    t, w = _LORRIES[instance], 0.4
    cab, back = _cab(t, w)
    pickup = t.load == "pickup"
    deck = _Deck(w, 0.37, -0.02 if pickup else back - 0.06, t.rear, t.load_grey)
    toy = [_plastic(_block((0, 0.25, (1.0 + t.rear) / 2), (0.26, 0.06, (1.0 - t.rear) / 2)), 0.25), *cab]
    toy += _wheels(w - 0.05, t.wheel, t.axles, 0.08)
    if not pickup:
        toy.append(_plastic(_block((0, 0.34, deck.middle), (w, 0.03, deck.half)), 0.35))
    return toy + _LOADS[t.load](deck)


def _cab(t: _Lorry, w: float) -> tuple[list[Surface], float]:
    """The cab, and where it ends."""
    low, parts = 0.22, []
    if t.nose:
        roof, front, back, belt = (0.72, 0.42, -0.02, 0.46) if t.load == "pickup" else (0.92, 0.52, 0.14, 0.58)
        hood = _block((0, (low + belt) / 2, (1.02 + front) / 2), (w * 0.84, (belt - low) / 2, 0.27), 0.94)
        arch = (0.1, 0.07, t.wheel * 1.2)
        parts += [_plastic(hood, t.grey), _plastic(_block((0, 0.38, 1.035), (w * 0.62, 0.1, 0.02)), 0.2)]
        parts += _pair(lambda s: _plastic(_block((s * (w - 0.06), 0.33, t.axles[0]), arch, 0.8), t.grey - 0.08))
        profile = [(front, low), (front, belt), (front - 0.12, roof), (back, roof), (back, low)]
    else:
        roof, front, back, belt = 0.98, 1.04, 0.46, 0.56
        profile = [(front, low), (front, belt), (front - 0.08, roof), (back, roof), (back, low)]
        parts.append(_plastic(_block((0, 0.42, front + 0.01), (w * 0.7, 0.06, 0.02)), 0.2))
    parts.append(Surface(_side(profile, w), _cab_paint(t, w, front, back, roof, belt), 0.6))
    parts.append(_plastic(_block((0, 0.2, 1.06), (w, 0.05, 0.03)), 0.4))
    return parts + _pair(lambda s: _ball((s * w * 0.75, 0.36, 1.05), (0.05, 0.05, 0.03), 0.95)), back


def _cab_paint(t: _Lorry, w: float, front: float, back: float, roof: float, belt: float) -> shapes.Paint:
    def paint(p: Array, u: Array, v: Array) -> Array:
        x, y, z = p.T
        level = (y > belt + 0.03) & (y < roof - 0.07)
        screen = level & (z > front - 0.115) & (np.abs(x) < w - 0.05)
        door = level & (np.abs(x) > w - 0.01) & (z < front - 0.14) & (z > back + 0.07)
        rear = level & (z < back + 0.01) & (np.abs(x) < w - 0.1)
        return np.repeat(np.where(screen | door | rear, GLASS, t.grey)[:, None], 3, 1)

    return paint


@dataclass(frozen=True)
class _Deck:
    """Where a load goes: half width, height, front and rear end; and its grey."""

    wide: float
    high: float
    front: float
    rear: float
    grey: float

    @property
    def middle(self) -> float:
        return (self.front + self.rear) / 2

    @property
    def half(self) -> float:
        return (self.front - self.rear) / 2


def _box_load(d: _Deck) -> list[Surface]:
    return [_plastic(_block((0, d.high + 0.42, d.middle), (d.wide, 0.42, d.half)), d.grey)]


def _trailer_load(d: _Deck) -> list[Surface]:
    box = _plastic(_block((0, d.high + 0.42, d.middle - 0.05), (d.wide, 0.42, d.half - 0.05)), d.grey)
    return [box, *_pair(lambda s: _rod((s * 0.36, 0.5, 0.08), (s * 0.36, 1.15, 0.08), 0.035, PALE))]


def _dump_load(d: _Deck) -> list[Surface]:
    y = d.high
    tray = [(d.front + 0.06, y + 0.08), (d.front, y + 0.5), (d.rear, y + 0.36), (d.rear + 0.1, y + 0.04)]
    canopy = _block((0, y + 0.56, d.front + 0.2), (d.wide, 0.03, 0.22))
    heap = _ball((0, y + 0.4, d.middle), (d.wide * 0.8, 0.2, d.half * 0.75), d.grey - 0.25)
    return [_plastic(_side(tray, d.wide), d.grey), _plastic(canopy, d.grey), heap]


def _tank_load(d: _Deck) -> list[Surface]:
    h = d.half
    grid = _lathe([-h, -h, -h * 0.92, h * 0.92, h, h], [0, 0.27, 0.35, 0.35, 0.27, 0], 25)
    tank = _plastic(grid @ _TO_Z.T + np.array([0, d.high + 0.33, d.middle]), d.grey)
    lids = [_plastic(_drum(0.09, 0.05) + np.array([0, d.high + 0.7, d.middle + k * h * 0.5]), 0.35) for k in (-1, 0, 1)]
    return [tank, *lids]


def _ladder_load(d: _Deck) -> list[Surface]:
    body = _plastic(_block((0, d.high + 0.22, d.middle), (d.wide, 0.22, d.half)), d.grey)
    start, end = np.array([0, d.high + 0.5, d.rear + 0.1]), np.array([0, d.high + 0.72, 1.05])
    rails = _pair(lambda s: _rod(_off(start, s * 0.13, 0, 0), _off(end, s * 0.13, 0, 0), 0.03, PALE))
    rungs = [_rod(_off(m, -0.13, 0, 0), _off(m, 0.13, 0, 0), 0.022, PALE) for m in np.linspace(start, end, 12)]
    turret = _plastic(_drum(0.2, 0.06) + np.array([0, d.high + 0.48, d.rear + 0.25]), 0.35)
    return [body, *rails, *rungs, turret, _plastic(_block((0, 1.01, 0.75), (0.3, 0.04, 0.06)), 0.25)]


def _log_load(d: _Deck) -> list[Surface]:
    parts, long = [], (d.front - d.rear - 0.07) / 2
    for k, (x, y) in enumerate([(-0.24, 0.13), (0, 0.13), (0.24, 0.13), (-0.12, 0.33), (0.12, 0.33), (0, 0.52)]):
        log = _drum(0.12, long) @ _TO_Z.T + np.array([x, d.high + y, d.middle - 0.015])
        parts.append(_plastic(log, 0.5 + 0.05 * (k % 3)))
    ends = [(s * 0.38, z) for s in (-1, 1) for z in (0.0, -0.9)]
    return parts + [_rod((x, d.high, z), (x, d.high + 0.42, z), 0.03, 0.25) for x, z in ends]


def _canvas_load(d: _Deck) -> list[Surface]:
    arch = np.linspace(0, np.pi, 13)
    roof = np.stack([d.wide * np.cos(arch), d.high + 0.32 + 0.42 * np.sin(arch) ** 0.7], 1)
    outline = np.concatenate([[(d.wide, d.high)], roof, [(-d.wide, d.high)]])
    # The outline (x, y) is a ground plan to the prism, which is then stood up.
    grid = _prism(outline, -d.half, d.half) @ _TO_Z.T + np.array([0, 0, d.middle])

    def ribs(p: Array, u: Array, v: Array) -> Array:
        return np.repeat((d.grey - 0.1 * (np.sin(26 * p[:, 2]) > 0.85))[:, None], 3, 1)

    return [Surface(grid, ribs, 0.1, two_sided=True)]


def _mixer_load(d: _Deck) -> list[Surface]:
    def spiral(p: Array, u: Array, v: Array) -> Array:
        return np.repeat((d.grey - 0.25 * (np.sin(2 * np.pi * u + 14 * p[:, 1]) > 0.8))[:, None], 3, 1)

    grid = _lathe([-0.52, -0.52, -0.3, 0.05, 0.5, 0.72, 0.72], [0, 0.2, 0.33, 0.37, 0.24, 0.14, 0], 25)
    drum = Surface(grid, spiral, 0.5, two_sided=True)
    drum = drum.moved(r.rotation(0, 78.0, 0), (0, d.high + 0.44, d.middle + 0.08))
    return [drum, _plastic(_block((0, d.high + 0.2, d.rear + 0.2), (0.2, 0.24, 0.06)), 0.3)]


def _crane_load(d: _Deck) -> list[Surface]:
    cabin = _plastic(_block((0, d.high + 0.25, d.middle - 0.1), (0.3, 0.25, 0.3)), d.grey)
    boom = np.array([[0.14, d.high + 0.45, d.middle - 0.25], [0.14, d.high + 0.95, 1.25]])
    arm = Surface(tube(boom, np.array([0.09, 0.06]), 5), _grey(PALE), 0.5, wrap=True)
    line = _rod(boom[1], boom[1] - [0, 0.5, 0], 0.018, 0.2)
    hook = _ball(boom[1] - [0, 0.55, 0], (0.07, 0.09, 0.07), 0.25)
    return [cabin, arm, line, hook, _plastic(_drum(0.28, 0.04) + np.array([0, d.high + 0.02, d.middle - 0.1]), 0.3)]


def _pickup_load(d: _Deck) -> list[Surface]:
    walls = _pair(lambda s: _plastic(_block((s * (d.wide - 0.04), 0.36, d.middle), (0.04, 0.14, d.half)), d.grey))
    gate = _plastic(_block((0, 0.36, d.rear + 0.03), (d.wide, 0.14, 0.03)), d.grey)
    return [*walls, gate, _plastic(_block((0, 0.32, d.middle), (d.wide - 0.04, 0.045, d.half)), 0.3)]


_LOADS: dict[str, Callable[[_Deck], list[Surface]]] = {
    "box": _box_load,
    "trailer": _trailer_load,
    "dump": _dump_load,
    "tank": _tank_load,
    "ladder": _ladder_load,
    "logs": _log_load,
    "canvas": _canvas_load,
    "mixer": _mixer_load,
    "crane": _crane_load,
    "pickup": _pickup_load,
}


# ---------------------------------------------------------------------------------------------- cars


@dataclass(frozen=True)
class _Auto:
    """A car: lower body as (z, half width, top) from front to back, and the glasshouse as (z, top) likewise."""

    body: tuple[tuple[float, float, float], ...]
    roof: tuple[tuple[float, float], ...]
    grey: float = 0.62
    square: float = 0.6
    pillars: tuple[float, ...] = (-0.12,)
    axles: tuple[float, float] = (0.62, -0.6)
    wheel: float = 0.17
    floor: float = 0.12
    extra: str = ""


_SEDAN = (
    (1.0, 0.36, 0.3), (0.9, 0.41, 0.35), (0.4, 0.43, 0.4), (-0.6, 0.43, 0.42), (-0.92, 0.4, 0.4), (-1.0, 0.36, 0.34)
)  # fmt: skip
_WEDGE = (
    (1.0, 0.28, 0.22), (0.85, 0.4, 0.27), (0.35, 0.44, 0.34), (-0.5, 0.45, 0.38), (-0.9, 0.42, 0.4), (-1.0, 0.38, 0.36)
)  # fmt: skip
_BEETLE = (
    (0.95, 0.26, 0.3), (0.8, 0.36, 0.4), (0.45, 0.4, 0.46), (-0.3, 0.42, 0.46), (-0.7, 0.38, 0.42), (-0.95, 0.24, 0.3)
)  # fmt: skip
_JEEP = ((0.9, 0.4, 0.42), (0.85, 0.42, 0.5), (0.4, 0.43, 0.53), (-0.8, 0.43, 0.54), (-0.88, 0.42, 0.5))
_ROADSTER = (
    (1.0, 0.34, 0.3), (0.88, 0.41, 0.36), (0.3, 0.43, 0.4), (-0.6, 0.43, 0.4), (-0.9, 0.4, 0.38), (-1.0, 0.34, 0.32)
)  # fmt: skip
_RACER = (
    (1.12, 0.06, 0.17), (0.7, 0.11, 0.25), (0.3, 0.16, 0.34), (-0.1, 0.26, 0.36), (-0.6, 0.22, 0.38), (-1.0, 0.12, 0.3)
)  # fmt: skip
_HATCHBACK = ((0.82, 0.38, 0.34), (0.76, 0.41, 0.4), (0.42, 0.42, 0.44), (-0.7, 0.42, 0.45), (-0.8, 0.4, 0.4))
_LIMOUSINE = (
    (1.25, 0.38, 0.33), (1.15, 0.42, 0.38), (0.6, 0.43, 0.4), (-0.9, 0.43, 0.41), (-1.2, 0.4, 0.39), (-1.28, 0.37, 0.34)
)  # fmt: skip
_FINNED = (
    (1.05, 0.38, 0.34), (0.95, 0.42, 0.4), (0.4, 0.43, 0.42), (-0.5, 0.43, 0.42), (-1.0, 0.41, 0.42), (-1.1, 0.37, 0.38)
)  # fmt: skip
_AUTOS = (
    _Auto(_SEDAN, ((0.42, 0.38), (0.14, 0.64), (-0.35, 0.66), (-0.68, 0.4)), 0.6),
    _Auto(_WEDGE, ((0.36, 0.32), (-0.02, 0.52), (-0.35, 0.53), (-0.85, 0.38)), 0.5, 0.5, (-0.3,), extra="spoiler"),
    _Auto(_BEETLE, ((0.42, 0.44), (0.22, 0.7), (-0.15, 0.74), (-0.5, 0.62), (-0.82, 0.36)), 0.7, 0.25, (-0.1,),
          extra="fenders"),
    _Auto(_JEEP, ((0.4, 0.52), (0.26, 0.84), (-0.75, 0.85), (-0.86, 0.52)), 0.52, 0.9, (-0.08, -0.48), (0.56, -0.54),
          0.21, 0.18, "spare"),
    _Auto(_SEDAN, ((0.42, 0.38), (0.16, 0.64), (-0.86, 0.64), (-0.97, 0.42)), 0.66, 0.65, (-0.12, -0.55)),
    _Auto(_ROADSTER, (), 0.58, 0.6, extra="open"),
    _Auto(_RACER, (), 0.6, 0.5, (), (0.68, -0.68), 0.19, 0.08, "formula"),
    _Auto(_HATCHBACK, ((0.46, 0.42), (0.22, 0.73), (-0.5, 0.74), (-0.76, 0.44)), 0.72, 0.6, (-0.14,),
          (0.52, -0.5), 0.16),
    _Auto(_LIMOUSINE, ((0.62, 0.38), (0.36, 0.64), (-0.6, 0.65), (-0.88, 0.4)), 0.42, 0.65, (0.05, -0.3),
          (0.82, -0.82)),
    _Auto(_FINNED, ((0.36, 0.4), (0.12, 0.65), (-0.3, 0.66), (-0.66, 0.42)), 0.64, 0.6, (-0.1,), (0.66, -0.64), 0.17,
          extra="fins"),
)  # fmt: skip


def _car(instance: int) -> list[Surface]:
    c = _AUTOS[instance]
    body = np.array([(z, wide, c.floor, top, c.square) for z, wide, top in c.body])
    toy = [_hull(_finer(body), c.grey)]
    if c.roof:
        toy.append(_glasshouse(c))
    width = 0.37 if c.extra == "formula" else max(w for _, w, _ in c.body) - 0.04
    toy += _wheels(width, c.wheel, c.axles, 0.1 if c.extra == "formula" else 0.07)
    front, back = c.body[0][0], c.body[-1][0]
    if c.extra != "formula":
        high = 0.6 * c.body[0][2] + 0.4 * c.floor
        toy += _pair(lambda s: _ball((s * 0.27, high + 0.04, front - 0.02), (0.06, 0.045, 0.05), 0.95))
        toy += _pair(lambda s: _ball((s * 0.29, high + 0.08, back + 0.02), (0.06, 0.035, 0.04), 0.2))
        for z in (front, back):
            toy.append(_plastic(_block((0, c.floor + 0.06, z), (0.38, 0.035, 0.04)), 0.35))
        toy.append(_plastic(_block((0, high, front), (0.15, 0.035, 0.03)), 0.2))
    return toy + _extras(c, back)


def _finer(stations: Array) -> Array:
    """More stations, on a smooth curve through the given ones."""
    at = np.linspace(0, len(stations) - 1, 4 * len(stations) - 3)
    return r.spline(stations, at).T


def _glasshouse(c: _Auto) -> Surface:
    z, top = np.array(c.roof).T
    belt = float(np.interp(0.0, [p[0] for p in c.body[::-1]], [p[2] for p in c.body[::-1]]))
    rise = (top - belt) / max(top.max() - belt, 1e-9)
    wide = 0.4 - 0.07 * np.clip(rise, 0, 1)
    stations = np.stack([z, wide, np.full(len(z), belt - 0.12), top, np.full(len(z), 0.75)], 1)
    fine = np.stack([np.interp(np.linspace(0, len(z) - 1, 25), range(len(z)), col) for col in stations.T], 1)
    # Where the roof is flat enough, it is a roof; below it and on the slopes there is glass.
    slope = np.abs(np.gradient(fine[:, 3], fine[:, 0]))
    cover = smoothstep(0.5, 0.25, slope)

    def paint(p: Array, u: Array, v: Array) -> Array:
        along = -p[:, 1]
        roof = np.interp(along, fine[::-1, 0], fine[::-1, 3])
        flat = np.interp(along, fine[::-1, 0], cover[::-1])
        half = np.interp(along, fine[::-1, 0], fine[::-1, 1])
        glass = (p[:, 2] > belt + 0.015) & ((p[:, 2] < roof - 0.05) | (flat < 0.5)) & (p[:, 2] > belt)
        for at in c.pillars:
            glass &= (np.abs(along - at) > 0.03) | (flat < 0.5)
        corner = (flat < 0.5) & (np.abs(p[:, 0]) > half - 0.07) & (p[:, 2] > roof - 0.06)
        return np.repeat(np.where(glass & ~corner, GLASS, c.grey)[:, None], 3, 1)

    hull = _hull(fine, paint, 33)
    return replace(hull, rest=hull.points @ _TO_Z)


def _extras(c: _Auto, back: float) -> list[Surface]:
    if c.extra == "spoiler":
        posts = _pair(lambda s: _rod((s * 0.3, 0.36, back + 0.12), (s * 0.3, 0.5, back + 0.06), 0.02, c.grey))
        return [_plastic(_block((0, 0.51, back + 0.05), (0.42, 0.018, 0.09)), c.grey - 0.1), *posts]
    if c.extra == "fenders":
        return [_ball((s * 0.36, 0.22, z), (0.12, 0.2, 0.28), c.grey - 0.08) for s in (-1, 1) for z in c.axles]
    if c.extra == "spare":
        grid = _wheel(0, 0, 0, 0.18, 0.06)
        turn = r.rotation(90, 0, 0)
        rails = _pair(lambda s: _rod((s * 0.2, 0.87, 0.2), (s * 0.2, 0.87, -0.7), 0.02, 0.3))
        return [replace(grid, points=grid.points @ turn.T + np.array([0, 0.45, back - 0.04])), *rails]
    if c.extra == "fins":
        fin = [(-0.5, 0.4), (-1.08, 0.36), (-1.12, 0.58), (-0.95, 0.52)]
        return _pair(lambda s: _plastic(_side(fin, 0.03, s * 0.36), c.grey - 0.1))
    if c.extra == "open":
        return _cockpit(c)
    return _racer(c) if c.extra == "formula" else []


def _cockpit(c: _Auto) -> list[Surface]:
    tub = _plastic(_block((0, 0.4, -0.18), (0.33, 0.03, 0.36)), 0.15)
    screen = np.array([[-0.36, 0.39, 0.2], [0.36, 0.39, 0.2], [-0.3, 0.6, 0.06], [0.3, 0.6, 0.06]]).reshape(2, 2, 3)
    frame = [_rod(screen[0, k], screen[1, k], 0.02, 0.8) for k in (0, 1)] + [
        _rod(screen[1, 0], screen[1, 1], 0.02, 0.8)
    ]
    parts = [tub, _plastic(screen, 0.3), *frame]
    for s in (-1, 1):
        parts.append(_plastic(_block((s * 0.17, 0.5, -0.26), (0.12, 0.11, 0.05), 0.8), 0.75))
        parts.append(_plastic(_block((s * 0.17, 0.43, -0.12), (0.12, 0.03, 0.12)), 0.75))
    return [*parts, _plastic(_block((0, 0.44, -0.46), (0.33, 0.06, 0.1), 0.9), 0.4)]


def _racer(c: _Auto) -> list[Surface]:
    wings = [
        _plastic(_block((0, 0.12, 1.08), (0.42, 0.015, 0.11)), c.grey - 0.2),
        _plastic(_block((0, 0.52, -1.02), (0.36, 0.02, 0.12)), c.grey - 0.2),
    ]
    wings += _pair(
        lambda s: _plastic(_side([(-0.88, 0.3), (-1.16, 0.3), (-1.16, 0.58), (-0.88, 0.58)], 0.015, s * 0.36), 0.35)
    )
    axles = [_rod((-0.36, 0.19, z), (0.36, 0.19, z), 0.03, 0.25) for z in c.axles]
    pods = _pair(lambda s: _plastic(_block((s * 0.24, 0.2, -0.16), (0.12, 0.1, 0.34), 0.85), c.grey))
    hoop = _ball((0, 0.42, -0.3), (0.09, 0.14, 0.16), c.grey - 0.1)
    driver = _ball((0, 0.42, 0.02), (0.085, 0.095, 0.09), PALE)
    return [*wings, *axles, *pods, hoop, driver, _ball((0, 0.34, 0.06), (0.12, 0.035, 0.2), 0.12)]


# ---------------------------------------------------------------------------------------------- pictures

_BUILDERS: tuple[Callable[[int], list[Surface]], ...] = (_animal, _human, _airplane, _truck, _car)

# Azimuth and elevation in degrees, strength of the lamp and of the light from everywhere, brightness of the table.
_LAMPS = (
    (-45.0, 45.0, 0.85, 0.42, 0.62),
    (45.0, 45.0, 0.85, 0.42, 0.62),
    (-80.0, 32.0, 1.0, 0.3, 0.5),
    (80.0, 32.0, 1.0, 0.3, 0.5),
    (10.0, 78.0, 0.95, 0.4, 0.74),
    (150.0, 50.0, 0.6, 0.5, 0.42),
)


@cache
def build_toy(category: int, instance: int) -> tuple[Surface, ...]:
    """The surfaces of one toy, in a sphere of radius 1 round the origin, upright, facing +z."""
    toy = _BUILDERS[category](instance)
    points = np.concatenate([s.points.reshape(-1, 3) for s in toy])
    middle = (points.min(0) + points.max(0)) / 2
    radius = np.linalg.norm(points - middle, axis=1).max()
    return tuple(s.moved(np.eye(3) / radius, -middle / radius) for s in toy)


def draw_toy(category: int, instance: int, elevation: int, azimuth: int, lighting: int, size: int) -> Sample:
    """Draw one toy from one side in one light.

    Args:
        category: 0 to 4, see :data:`CATEGORIES`.
        instance: 0 to 9.
        elevation: 0 to 8, index into :data:`ELEVATIONS`.
        azimuth: 0 to 17, index into :data:`AZIMUTHS`; the toy turns anti-clockwise as seen from above.
        lighting: 0 to 5. Lamps stay where they are when the toy turns.
        size: Side of the picture in pixels.

    Returns:
        ``image`` float32 ``(3, size, size)``, three equal channels; ``landmarks`` and ``visible``, both empty
        (``(0, 2)`` and ``(0,)``); ``box`` and ``mask`` of the toy; ``category``, ``instance``, ``elevation``,
        ``azimuth`` and ``lighting``, int, as given; ``subject``, category and instance.

    Raises:
        InputError: A factor is out of its range.
    """
    given = {"category": category, "instance": instance, "elevation": elevation, "azimuth": azimuth}
    given["lighting"] = lighting
    for (name, value), count in zip(given.items(), _COUNTS, strict=True):
        if not 0 <= value < count:
            raise InputError(f"found {name} {value}, expected 0 to {count - 1}")
    toy = build_toy(category, instance)
    tilt = r.rotation(0, -ELEVATIONS[elevation], 0)
    turn = tilt @ r.rotation(AZIMUTHS[azimuth], 0, 0)
    around, height, key, ambient, table = _LAMPS[lighting]
    a, h = np.radians([around, height])
    lamp = np.array([np.sin(a) * np.cos(h), np.sin(h), np.cos(a) * np.cos(h)])
    camera = r.Camera(0.45, (0.5, 0.5), 7.0)
    posed = [s.moved(turn) for s in toy]
    floor = min(float(s.points[..., 1].min()) for s in toy)
    backdrop = _table(posed, tilt, lamp, floor, camera, table, size)
    light = shapes.Light(tilt @ lamp, key, ambient)
    sample = shapes.picture(posed, camera, light, backdrop)
    del sample["parts"]
    grey = sample["image"].mean(0, keepdim=True).expand(3, -1, -1).contiguous()
    empty = {"landmarks": torch.zeros(0, 2), "visible": torch.zeros(0, dtype=torch.bool)}
    return {**sample, "image": grey, **empty, **given, "subject": f"{category}-{instance}"}


_COUNTS = (len(CATEGORIES), INSTANCES, len(ELEVATIONS), len(AZIMUTHS), LIGHTS)


def _table(
    posed: list[Surface], tilt: Array, lamp: Array, floor: float, camera: r.Camera, brightness: float, size: int
) -> Array:
    """The light table with the toy's soft shadow, linear light ``(size, size, 3)``."""
    side = 96
    points = np.concatenate([s.points.reshape(-1, 3) for s in posed]) @ tilt
    counts = np.cumsum([0, *(s.points.shape[0] * s.points.shape[1] for s in posed)])
    grids = [r.grid_faces(*s.points.shape[:2]) for s in posed]
    faces = np.concatenate([g + o for g, o in zip(grids, counts[:-1], strict=True)])
    dark = np.zeros((side, side), F32)
    # The lamp's shadow, and the dimmer, blurred one of the light from above.
    for way, blur, depth in ((lamp, 1.6, 0.62), (np.array([0.0, 1, 0]), 3.5, 0.3)):
        fallen = points - (points[:, 1:2] - floor) * way / way[1]
        flat = camera.project(fallen @ tilt.T, side)
        found = r.rasterise(flat, np.zeros(len(flat)), faces, (side, side), np.ones(len(faces), bool))
        cover = np.zeros(side * side, F32)
        cover[found.pixel] = 1
        dark = 1 - (1 - dark) * (1 - depth * gaussian_filter(cover.reshape(side, side), blur, mode="nearest"))
    axis = (np.arange(size) + 0.5) / size
    row, column = np.meshgrid(axis, axis, indexing="ij")
    shade = map_coordinates(dark, [row * side - 0.5, column * side - 0.5], order=1, mode="nearest")
    fall = 1 + 0.16 * ((column - 0.5) * lamp[0] - (row - 0.5) * lamp[2])
    light = (brightness * fall * (1 - shade)).astype(F32)
    return np.repeat(light[..., None], 3, 2)


# ---------------------------------------------------------------------------------------------- the scene


@cache
def _order(split: str) -> Array:
    """The views of a split's toys in a fixed random order: ``(n, 5)`` factors."""
    instances = SPLIT_INSTANCES[split]
    counts = (_COUNTS[0], len(instances), *_COUNTS[2:])
    seed = 20 if split == "test" else 10
    rows = np.stack(np.unravel_index(np.random.default_rng(seed).permutation(int(np.prod(counts))), counts), 1)
    rows[:, 1] = np.array(instances)[rows[:, 1]]
    rows.setflags(write=False)
    return {"train": rows[:-VALIDATION], "val": rows[-VALIDATION:], "test": rows}[split]


class ToyScene:
    """The scene ``toys`` (see :mod:`ulm.datasets.procedural`).

    A view occurs once in a split. As in smallNORB, the test split shows toys that training never saw; ``val`` shows
    views of the training toys that ``train`` leaves out.

    Attributes:
        counts: Views of each split: 22,000, 2,300 and 24,300.
    """

    name = "toys"
    info = Info(
        name="procedural:toys",
        normaliser="image",
        licence="CC0 (drawn by ulm)",
        citation="Drawn by ulm; views and split as in LeCun, Huang and Bottou, smallNORB (2004).",
    )
    counts: ClassVar[dict[str, int]] = {"train": 24_300 - VALIDATION, "val": VALIDATION, "test": 24_300}

    def __init__(self, scene: str = "toys"):
        self.name = scene

    def draw_item(self, split: str, index: int, size: int) -> Sample:
        """Draw item ``index`` of ``train``, ``val`` or ``test``; see :func:`draw_toy`.

        Raises:
            InputError: Another split, or an index beyond its ``counts``.
        """
        if split not in self.counts:
            raise InputError(f"found split {split!r}, expected one of {', '.join(self.counts)}")
        if not 0 <= index < self.counts[split]:
            raise InputError(f"found index {index}, expected 0 to {self.counts[split] - 1} in the split {split}")
        category, instance, elevation, azimuth, lighting = (int(factor) for factor in _order(split)[index])
        return draw_toy(category, instance, elevation, azimuth, lighting, size)

    def draw(self, rng: np.random.Generator, size: int) -> Sample:
        """Draw any toy of the fifty in any view and light; it knows no split, see :meth:`draw_item`."""
        category, instance, elevation, azimuth, lighting = (int(rng.integers(count)) for count in _COUNTS)
        return draw_toy(category, instance, elevation, azimuth, lighting, size)
