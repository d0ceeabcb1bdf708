"""A small software renderer in numpy, shared by every procedural category.

Triangles are filled by spans with a depth buffer (no loop over pixels or triangles), surfaces are grids of points,
noise is value noise on wrapped grids, and backgrounds are clutter in normalised coordinates, so that one scene looks
the same at every image size. Colours are linear RGB until :func:`encode`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Ints = NDArray[np.int64]


# ---------------------------------------------------------------------------------------------- triangles


@dataclass(frozen=True)
class Fragments:
    """The nearest surface in each covered pixel.

    Attributes:
        pixel: Flat pixel index ``row * width + column``, int64 ``(N,)``, each at most once.
        face: Index of the triangle seen there, int64 ``(N,)``.
        weights: Barycentric weights of its three corners, float32 ``(N, 3)``.
        depth: Depth there, larger is nearer, float32 ``(N,)``.
    """

    pixel: Ints
    face: Ints
    weights: Array
    depth: Array


def rasterise(
    xy: Array, depth: Array, faces: Ints, shape: tuple[int, int], two_sided: Array | None = None
) -> Fragments:
    """Fill triangles with a depth buffer.

    A pixel belongs to the triangle that holds its centre; neighbours share edges without gaps or overlaps.

    Args:
        xy: Corner positions in pixels, origin at the top-left corner of the picture, ``(V, 2)``.
        depth: Corner depths, larger is nearer, ``(V,)``.
        faces: Corner indices of the triangles, ``(F, 3)``; counter-clockwise as seen is the front.
        shape: Height and width of the picture.
        two_sided: Which triangles also show their backs, bool ``(F,)``; None: none of them.

    Returns:
        One fragment a covered pixel.
    """
    height, width = shape
    x, y, z = (values.astype(np.float32)[faces.T] for values in (xy[:, 0], xy[:, 1], depth))
    area = (x[2] - x[0]) * (y[1] - y[0]) - (x[1] - x[0]) * (y[2] - y[0])
    front = area > 1e-9
    if two_sided is not None:
        front |= two_sided & (area < -1e-9)
    chosen = np.flatnonzero(front)
    x, y, z, area = x[:, chosen], y[:, chosen], z[:, chosen], area[chosen]
    # Rows whose centres a triangle may hold; empty ranges drop out by themselves.
    first = np.ceil(np.minimum(np.minimum(y[0], y[1]), y[2]) - 0.5)
    last = np.floor(np.maximum(np.maximum(y[0], y[1]), y[2]) - 0.5)
    first, last = np.clip(first, 0, height).astype(np.int64), np.clip(last, -1, height - 1).astype(np.int64)

    triangle, row = _runs(first, np.maximum(last - first + 1, 0))
    centre = row.astype(np.float32) + np.float32(0.5)
    left, right = np.full(len(row), np.inf, np.float32), np.full(len(row), -np.inf, np.float32)
    for a, b in ((0, 1), (1, 2), (2, 0)):
        # Lower end first, so that both neighbours of an edge compute the very same crossing.
        swap = y[a] > y[b]
        x0, y0 = np.where(swap, x[b], x[a]), np.where(swap, y[b], y[a])
        x1, y1 = np.where(swap, x[a], x[b]), np.where(swap, y[a], y[b])
        slope = (x1 - x0) / np.where(y1 > y0, y1 - y0, 1.0)
        start = y0[triangle]
        crosses = (start <= centre) & (centre < y1[triangle])
        crossing = x0[triangle] + (centre - start) * slope[triangle]
        left = np.where(crosses, np.minimum(left, crossing), left)
        right = np.where(crosses, np.maximum(right, crossing), right)
    begin = np.clip(np.ceil(left - 0.5), 0, width)
    end = np.clip(np.ceil(right - 0.5), 0, width)
    count = np.maximum(end - begin, 0).astype(np.int64)
    span, column = _runs(begin.astype(np.int64), count)
    triangle, row = triangle[span], row[span]

    x, y, z = x[:, triangle], y[:, triangle], z[:, triangle]
    half = np.float32(0.5)
    dx, dy, inverse = column.astype(np.float32) + half - x[0], row.astype(np.float32) + half - y[0], 1 / area[triangle]
    w1 = (dy * (x[2] - x[0]) - dx * (y[2] - y[0])) * inverse
    w2 = (dx * (y[1] - y[0]) - dy * (x[1] - x[0])) * inverse
    here = z[0] + w1 * (z[1] - z[0]) + w2 * (z[2] - z[0])

    pixel = row * width + column
    low = here.min() if len(here) else 0.0
    scale = (2**30) / max(float(here.max() - low), 1e-9) if len(here) else 1.0
    # Depth in the high bits, candidate in the low ones: one maximum finds the nearest and says which it is.
    key = (((here - low) * np.float32(scale)).astype(np.int64) << 32) | np.arange(len(here))
    buffer = np.full(height * width, -1, np.int64)
    np.maximum.at(buffer, pixel, key)
    covered = np.flatnonzero(buffer >= 0)
    won = buffer[covered] & 0xFFFFFFFF
    w1, w2 = w1[won], w2[won]
    weights = np.stack([1 - w1 - w2, w1, w2], 1).astype(np.float32)
    return Fragments(covered, chosen[triangle[won]], weights, here[won].astype(np.float32))


def _runs(first: Ints, count: Ints) -> tuple[Ints, Ints]:
    """Owner and value of the concatenated ranges ``first[i], first[i] + 1, ...`` of ``count[i]`` numbers."""
    owner = np.repeat(np.arange(len(first)), count)
    offset = np.cumsum(count) - count
    return owner, np.arange(len(owner)) - offset[owner] + first[owner]


@lru_cache(maxsize=64)
def grid_faces(rows: int, columns: int) -> Ints:
    """Triangles of a grid of points, ``(2 (rows-1) (columns-1), 3)``.

    The front is the side from which columns run to the right and rows run upwards.
    """
    r, c = np.meshgrid(np.arange(rows - 1), np.arange(columns - 1), indexing="ij")
    a = (r * columns + c).ravel()
    b, d, e = a + 1, a + columns, a + columns + 1
    faces = np.concatenate([np.stack([a, b, d], 1), np.stack([b, e, d], 1)])
    faces.setflags(write=False)
    return faces


def grid_normals(points: Array, wrap: bool = False) -> Array:
    """Unit normals of a grid of points ``(R, C, 3)``, on its front (see :func:`grid_faces`).

    Args:
        points: The grid.
        wrap: Whether the last column repeats the first.
    """
    du = np.empty_like(points)
    du[:, 1:-1] = points[:, 2:] - points[:, :-2]
    du[:, 0], du[:, -1] = points[:, 1] - points[:, 0], points[:, -1] - points[:, -2]
    if wrap:
        du[:, 0] = du[:, -1] = points[:, 1] - points[:, -2]
    dv = np.empty_like(points)
    dv[1:-1] = points[2:] - points[:-2]
    dv[0], dv[-1] = points[1] - points[0], points[-1] - points[-2]
    normal = cross(du, dv)
    return normal / np.maximum(np.sqrt((normal * normal).sum(-1, keepdims=True)), 1e-12)


def cross(a: Array, b: Array) -> Array:
    """Cross product over the last axis."""
    return np.stack(
        [
            a[..., 1] * b[..., 2] - a[..., 2] * b[..., 1],
            a[..., 2] * b[..., 0] - a[..., 0] * b[..., 2],
            a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0],
        ],
        -1,
    )


def unit(a: Array) -> Array:
    """Scale vectors (last axis) to length one."""
    return a / np.maximum(np.sqrt((a * a).sum(-1, keepdims=True)), 1e-9)


def rotation(yaw: float, pitch: float, roll: float) -> Array:
    """Rotation matrix ``(3, 3)`` for column vectors (x right, y up, z to the viewer), angles in degrees.

    The head nods first (pitch, positive: looks up), then turns (yaw, positive: to the image's right), then tilts in
    the picture (roll, positive: clockwise).
    """
    a, b, c = np.radians([yaw, pitch, -roll])
    turn = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    nod = np.array([[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]])
    tilt = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return tilt @ turn @ nod


@dataclass(frozen=True)
class Camera:
    """A camera that looks along -z with slight perspective.

    Attributes:
        scale: Image sides a millimetre at depth 0 (the picture's side is 1).
        centre: Where the point (0, 0, 0) falls, in image sides from the top-left corner.
        distance: Distance of the eye from depth 0, in millimetres.
    """

    scale: float
    centre: tuple[float, float]
    distance: float

    def project(self, points: Array, size: float) -> Array:
        """Pixels ``(..., 2)`` of points ``(..., 3)`` in millimetres, for a square picture of ``size`` pixels."""
        shrink = self.scale * size * self.distance / (self.distance - points[..., 2])
        return np.stack(
            [self.centre[0] * size + points[..., 0] * shrink, self.centre[1] * size - points[..., 1] * shrink], -1
        )


# ---------------------------------------------------------------------------------------------- fields


def smoothstep(low: float | Array, high: float | Array, value: float | Array) -> Array:
    """0 below ``low``, 1 above ``high``, a smooth cubic between."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def bump(*terms: Array) -> Array:
    """``exp(-(a^2 + b^2 + ...))``."""
    total = terms[0] * terms[0]
    for term in terms[1:]:
        total = total + term * term
    return np.exp(-total)


def value_noise(grid: Array, x: Array, y: Array) -> Array:
    """Smooth noise: a wrapped grid of values ``(R, C)`` read between its points at ``x`` (columns) and ``y`` (rows)."""
    rows, columns = grid.shape
    i, j = np.floor(y), np.floor(x)
    v, u = y - i, x - j
    v, u = v * v * (3 - 2 * v), u * u * (3 - 2 * u)
    i, j = i.astype(np.int32) % rows, j.astype(np.int32) % columns
    flat = grid.ravel()
    below, right = ((i + 1) % rows) * columns, (j + 1) % columns
    i = i * columns
    top = flat[i + j] * (1 - u) + flat[i + right] * u
    return top + (flat[below + j] * (1 - u) + flat[below + right] * u - top) * v


def line_noise(table: Array, x: Array) -> Array:
    """Linear noise: a wrapped table of values ``(N,)`` read between its points at ``x``."""
    i = np.floor(x)
    u = x - i
    i = i.astype(np.int32) % len(table)
    return table[i] * (1 - u) + table[(i + 1) % len(table)] * u


def spline(table: Array, at: Array) -> Array:
    """Catmull-Rom curve through the rows of ``table`` ``(N, F)`` at real row numbers: ``(F, *at.shape)``."""
    last = len(table) - 1
    i = np.clip(np.floor(at).astype(np.int64), 0, last - 1)
    t = np.clip(at - i, 0, 1)
    columns = table.T
    p0, p1 = columns[:, np.maximum(i - 1, 0)], columns[:, i]
    p2, p3 = columns[:, i + 1], columns[:, np.minimum(i + 2, last)]
    return p1 + 0.5 * t * (p2 - p0 + t * (2 * p0 - 5 * p1 + 4 * p2 - p3 + t * (3 * (p1 - p2) + p3 - p0)))


def box_down(picture: Array, factor: int) -> Array:
    """Average blocks of ``factor x factor`` pixels of ``(H, W, ...)``."""
    if factor == 1:
        return picture
    # Adding slices is several times faster than a mean over two short axes.
    rows = picture[::factor].copy()
    for k in range(1, factor):
        rows += picture[k::factor]
    total = rows[:, ::factor].copy()
    for k in range(1, factor):
        total += rows[:, k::factor]
    return total / np.float32(factor * factor)


def decode(colour: Array | tuple[float, ...]) -> Array:
    """Display values to linear light."""
    return np.power(np.clip(np.asarray(colour, np.float32), 0, 1), np.float32(2.2))


def encode(light: Array) -> Array:
    """Linear light to display values in [0, 1], with a soft shoulder above 0.8."""
    shoulder = np.where(light > 0.8, 0.8 + 0.2 * np.tanh((light - 0.8) * 2.5), light)
    return np.power(np.clip(shoulder, 0, 1), np.float32(1 / 2.2))


# ---------------------------------------------------------------------------------------------- backgrounds


def _random_colour(rng: np.random.Generator) -> Array:
    """A display colour; often dull, at times skin-like, so that colour alone betrays nothing."""
    if rng.random() < 0.2:
        return np.array([0.35, 0.2, 0.12]) + rng.random() * np.array([0.6, 0.55, 0.52])
    grey = rng.random()
    return np.clip(grey + rng.uniform(0.05, 0.55) * (rng.random(3) - 0.5), 0.02, 0.98)


def _texture(rng: np.random.Generator, x: Array, y: Array) -> Array:
    """One pattern, about zero and within 1, at normalised coordinates."""
    kind = rng.integers(6)
    angle, frequency = rng.uniform(0, np.pi), np.exp(rng.uniform(np.log(3), np.log(28)))
    u = x * np.cos(angle) + y * np.sin(angle)
    v = y * np.cos(angle) - x * np.sin(angle)
    grid = rng.uniform(-1, 1, (16, 16)).astype(np.float32)
    offset = rng.uniform(0, 16, 2)
    if kind == 0:
        return np.clip(3 * np.sin(2 * np.pi * frequency * u + 2 * value_noise(grid, 4 * x, 4 * y)), -1, 1)
    if kind == 1:
        return np.clip(4 * np.sin(np.pi * frequency * u) * np.sin(np.pi * frequency * v), -1, 1)
    if kind == 2:
        return value_noise(grid, frequency * u + offset[0], frequency * v * rng.uniform(0.1, 1) + offset[1])
    if kind == 3:
        return 2 * u - 1
    if kind == 4:
        spots = value_noise(grid, frequency * u + offset[0], frequency * v + offset[1])
        return np.clip(6 * (spots - 0.15), -1, 1)
    return 0.6 * value_noise(grid, 5 * u, 5 * v) + 0.4 * value_noise(grid, 1.3 * frequency * u, 1.3 * frequency * v)


def background(rng: np.random.Generator, size: int) -> Array:
    """Clutter: gradients, noise of several frequencies, polygons, discs, bars and blobs with patterns on them.

    Args:
        rng: Source of everything.
        size: Side of the picture in pixels; the same generator gives the same picture at every size.

    Returns:
        Linear light, float32 ``(size, size, 3)``.
    """
    axis = ((np.arange(size) + 0.5) / size).astype(np.float32)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    angle = rng.uniform(0, 2 * np.pi)
    ramp = np.clip(0.5 + (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle), 0, 1)[..., None]
    first, second = _random_colour(rng), _random_colour(rng)
    picture = first + (second - first) * ramp
    picture = (picture + rng.uniform(0, 0.25) * _texture(rng, x, y)[..., None] * (0.5 + rng.random(3))).astype(
        np.float32
    )
    picture, flat_x, flat_y = picture.reshape(-1, 3), x.ravel(), y.ravel()
    # Some backgrounds are studio-plain, most are not.
    shapes = 0 if rng.random() < 0.12 else int(rng.integers(3, 14))
    for _ in range(shapes):
        at, cover = _shape(rng, flat_x, flat_y)
        cover = (cover * rng.uniform(0.6, 1)).astype(np.float32)[:, None]
        colour = _random_colour(rng).astype(np.float32)
        pattern = _texture(rng, flat_x[at], flat_y[at])[:, None] * (rng.uniform(0, 0.4) * (0.5 + rng.random(3)))
        picture[at] += (colour + pattern.astype(np.float32) - picture[at]) * cover
    picture = picture.reshape(size, size, 3)
    grid = rng.normal(0, 1, (64, 64)).astype(np.float32)
    grain = value_noise(grid, 60 * x, 60 * y)
    picture = picture + rng.uniform(0, 0.035) * grain[..., None]
    return decode(np.clip(picture, 0.01, 0.99)).astype(np.float32)


def _shape(rng: np.random.Generator, x: Array, y: Array) -> tuple[Ints, Array]:
    """Pixels that one random polygon, disc or bar touches, and how much; its edge is sharp or blurred."""
    cx, cy = rng.uniform(-0.1, 1.1, 2)
    reach, stretch, angle = rng.uniform(0.06, 0.42), float(np.exp(rng.uniform(-0.9, 0.9))), rng.uniform(0, np.pi)
    soft = 0.008 if rng.random() < 0.65 else rng.uniform(0.02, 0.12)
    c, s = float(np.cos(angle)), float(np.sin(angle))
    bar, round_, regular = rng.random(3) < (0.25, 0.35, 0.35)
    thin, corners = rng.uniform(0.1, 0.6), 24 if round_ else int(rng.integers(3, 9))
    radius = rng.uniform(0.45, 1, corners) if not (round_ or regular) else np.ones(corners)
    u = ((x - cx) * c + (y - cy) * s) * stretch
    v = ((y - cy) * c - (x - cx) * s) / stretch
    at = np.flatnonzero(u * u + v * v < ((1.45 if bar else 1.0) * reach + soft) ** 2)
    u, v = u[at], v[at]
    if bar:
        distance = np.maximum(np.abs(u) - reach, np.abs(v) - reach * thin)
    else:
        radius = (reach * radius).astype(np.float32)
        turn = (np.arctan2(v, u) * np.float32(corners / (2 * np.pi))) % corners
        # Straight sides: the radius of a chord seen from the centre.
        k = np.floor(turn).astype(np.int32)
        a, b, wide = radius[k % corners], radius[(k + 1) % corners], 2 * np.pi / corners
        t = (turn - k) * np.float32(wide)
        chord = a * b * np.float32(np.sin(wide)) / np.maximum(a * np.sin(t) + b * np.sin(np.float32(wide) - t), 1e-6)
        distance = np.sqrt(u * u + v * v) - chord
    return at, smoothstep(soft, -soft, distance)
