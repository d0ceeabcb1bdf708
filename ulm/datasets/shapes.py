"""Solid bodies for procedural scenes: surfaces with paint, one lit picture, landmarks with exact visibility.

A category builds a list of :class:`Surface` (tubes for limbs, ellipsoids, lofts through sections, sheets for wings and
ears) in a frame of its own, x right, y up, z to the viewer, in any unit of length, and hands them to :func:`picture`
with the 3-D places of its landmarks. Nothing here depends on the picture's size except its resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from ulm.datasets import rendering as r
from ulm.datasets.base import Sample
from ulm.datasets.rendering import Array, Camera

F32 = np.float32
SUPERSAMPLING = 2

Paint = Callable[[Array, Array, Array], Array]
"""Albedo in display values ``(N, 3)`` of places: rest positions ``(N, 3)``, u ``(N,)`` along columns, v along rows."""


# ---------------------------------------------------------------------------------------------- surfaces


@dataclass(frozen=True)
class Surface:
    """A grid of points with paint.

    Attributes:
        points: ``(R, C, 3)``; seen from outside, columns run to the right and rows run upwards.
        paint: One display colour, or a function of place; see :data:`Paint`.
        gloss: Strength of highlights: 0 cloth, 0.4 skin, 2 glass.
        part: A number of the category's own, such as a limb; :func:`picture` returns a map of parts.
        wrap: Whether the last column repeats the first.
        two_sided: Whether the back shows too (wings, ears, cloth).
        rest: Positions that ``paint`` is given, where they differ from ``points`` (before posing), ``(R, C, 3)``.
    """

    points: Array
    paint: Paint | tuple[float, float, float]
    gloss: float = 0.2
    part: int = 0
    wrap: bool = False
    two_sided: bool = False
    rest: Array | None = None

    def moved(self, matrix: Array, offset: Array | tuple[float, float, float] = (0, 0, 0)) -> Surface:
        """The surface at ``matrix @ p + offset``; its paint stays where it is."""
        rest = self.points if self.rest is None else self.rest
        return replace(self, points=self.points @ np.asarray(matrix).T + np.asarray(offset), rest=rest)


def ellipsoid(
    centre: Array | tuple[float, float, float],
    radii: Array | tuple[float, float, float],
    rows: int = 13,
    columns: int = 21,
) -> Array:
    """Grid ``(rows, columns, 3)`` of an ellipsoid with its poles at -y and +y, the seam at its back (-z)."""
    v, u = np.meshgrid(np.linspace(-np.pi / 2, np.pi / 2, rows), np.linspace(-np.pi, np.pi, columns), indexing="ij")
    unit = np.stack([np.cos(v) * np.sin(u), np.sin(v), np.cos(v) * np.cos(u)], -1)
    return unit * np.asarray(radii, float) + np.asarray(centre, float)


def tube(
    path: Array,
    radii: Array | float,
    columns: int = 15,
    front: Array | tuple[float, float, float] = (0, 0, 1),
    caps: tuple[bool, bool] = (True, True),
) -> Array:
    """Grid round a path: limbs, necks, tails, bodies.

    Args:
        path: ``(M, 3)``, at least two places.
        radii: One radius; ``(M,)``; or ``(M, 2)``: across (to the right of ``front``) and along ``front``.
        columns: Points round the path.
        front: The direction of column 0's opposite, roughly; the seam is at the back.
        caps: Whether the first and last ends are rounded (else open).

    Returns:
        ``(M + 6, columns, 3)`` with both caps, 3 rows fewer for each that is missing.
    """
    path = np.asarray(path, float)
    size = np.broadcast_to(np.asarray(radii, float).reshape(-1, 1 if np.ndim(radii) < 2 else 2), (len(path), 2))
    along = np.gradient(path, axis=0)
    along = along / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    # Carry the front along the path, so that the tube does not twist.
    ahead, fronts = np.asarray(front, float), []
    for t in along:
        ahead = ahead - (ahead @ t) * t
        length = np.linalg.norm(ahead)
        if length < 1e-6:
            ahead = np.array([t[1], -t[0], 0.0]) if abs(t[2]) < 0.9 else np.array([1.0, 0, 0])
            ahead, length = ahead - (ahead @ t) * t, np.linalg.norm(ahead - (ahead @ t) * t)
        ahead = ahead / length
        fronts.append(ahead)
    forward = np.array(fronts)
    right = np.cross(along, forward)
    bend = np.radians([75.0, 50.0, 25.0])
    for end, wanted in ((0, caps[0]), (-1, caps[1])):
        if not wanted:
            continue
        turn = bend if end == 0 else bend[::-1]
        sign = -1 if end == 0 else 1
        reach = size[end].mean() * np.sin(turn)[:, None] * along[end] * sign
        extra = [path[end] + reach, size[end] * np.cos(turn)[:, None]]
        extra += [np.repeat(w[[end]], 3, 0) for w in (right, forward)]
        joined = [
            np.concatenate((e, a) if end == 0 else (a, e))
            for e, a in zip(extra, (path, size, right, forward), strict=True)
        ]
        path, size, right, forward = joined
        along = np.concatenate((along[[0] * 3], along) if end == 0 else (along, along[[-1] * 3]))
    angle = np.linspace(-np.pi, np.pi, columns)
    across = np.sin(angle)[None, :, None] * (size[:, :1] * right)[:, None]
    return path[:, None] + across + np.cos(angle)[None, :, None] * (size[:, 1:] * forward)[:, None]


def loft(heights: Array, sections: Array, columns: int = 25, squareness: Array | float = 0.0) -> Array:
    """Grid through elliptic sections stacked along y: torsos, skirts, heads, vases.

    Args:
        heights: ``(M,)``, y of each section, rising.
        sections: ``(M, 4)``: centre x, centre z, half width, half depth.
        columns: Points round a section.
        squareness: 0 is an ellipse, 1 nearly a box; one number or ``(M,)``.
    """
    angle = np.linspace(-np.pi, np.pi, columns)
    power = 1 - 0.6 * np.broadcast_to(np.asarray(squareness, float), (len(heights),))[:, None]
    s, c = np.sin(angle)[None], np.cos(angle)[None]
    x = sections[:, :1] + sections[:, 2:3] * np.sign(s) * np.abs(s) ** power
    z = sections[:, 1:2] + sections[:, 3:4] * np.sign(c) * np.abs(c) ** power
    return np.stack([x, np.broadcast_to(np.asarray(heights, float)[:, None], x.shape), z], -1)


def box(centre: Array | tuple[float, float, float], half: Array | tuple[float, float, float]) -> list[Array]:
    """Six flat grids ``(2, 2, 3)`` of a box: front, back, right, left, top, bottom."""
    x, y, z = np.asarray(half, float)
    corners = {
        "front": [(-x, -y, z), (x, -y, z), (-x, y, z), (x, y, z)],
        "back": [(x, -y, -z), (-x, -y, -z), (x, y, -z), (-x, y, -z)],
        "right": [(x, -y, z), (x, -y, -z), (x, y, z), (x, y, -z)],
        "left": [(-x, -y, -z), (-x, -y, z), (-x, y, -z), (-x, y, z)],
        "top": [(-x, y, z), (x, y, z), (-x, y, -z), (x, y, -z)],
        "bottom": [(-x, -y, -z), (x, -y, -z), (-x, -y, z), (x, -y, z)],
    }
    return [np.array(c).reshape(2, 2, 3) + np.asarray(centre, float) for c in corners.values()]


# ---------------------------------------------------------------------------------------------- light and camera


@dataclass(frozen=True)
class Light:
    """Light of a scene.

    Attributes:
        direction: To the key light, unit ``(3,)``.
        key: Strength of the key light.
        ambient: Strength of the light from everywhere.
        colour: Of the key light, linear.
        exposure: Factor on the picture.
        shadows: Whether surfaces shadow each other.
    """

    direction: Array = field(default_factory=lambda: np.array([0.4, 0.6, 0.7]) / 1.005)
    key: float = 0.9
    ambient: float = 0.4
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)
    exposure: float = 1.0
    shadows: bool = True


def sample_light(rng: np.random.Generator) -> Light:
    """Light from some side, warm or cool, soft or hard."""
    azimuth, elevation = np.radians(rng.uniform(-75, 75)), np.radians(rng.uniform(5, 70))
    direction = np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])
    warm = rng.uniform(-1, 1)
    colour = (1 + 0.10 * warm, 1.0, 1 - 0.12 * warm)
    hard = rng.uniform(0.3, 1.0)
    return Light(direction, 0.55 + 0.55 * hard, 0.62 - 0.34 * hard, colour, float(np.exp(rng.normal(0, 0.12))))


def frame(
    points: Array,
    rng: np.random.Generator,
    fill: tuple[float, float] = (0.6, 0.8),
    shift: float = 0.05,
    distance: float = 6.0,
) -> Camera:
    """A camera in which ``points`` fill part of the picture.

    Args:
        points: ``(N, 3)`` in the scene's unit.
        rng: Source of scale and place.
        fill: Least and most of the picture's side that the longer side of the projected box takes.
        shift: Standard deviation of the box's centre from the middle, in picture sides, cut at two of them.
        distance: Of the eye, in units of the points' extent; small is strong perspective.
    """
    extent = float(np.ptp(points, 0).max())
    away = distance * extent + float(points[:, 2].max())
    flat = Camera(1.0, (0.0, 0.0), away).project(points, 1.0)
    low, high = flat.min(0), flat.max(0)
    scale = float(rng.uniform(*fill) / (high - low).max())
    centre = 0.5 + shift * np.clip(rng.normal(0, 1, 2), -2, 2) - scale * (low + high) / 2
    return Camera(scale, (float(centre[0]), float(centre[1])), away)


# ---------------------------------------------------------------------------------------------- the picture


def picture(
    surfaces: Sequence[Surface],
    camera: Camera,
    light: Light,
    backdrop: Array,
    landmarks: Array | None = None,
    reach: Array | float = 0.0,
) -> Sample:
    """Draw surfaces before a backdrop and annotate them.

    Args:
        surfaces: What to draw.
        camera: Where it falls; see :func:`frame`.
        light: How it is lit.
        backdrop: Linear light ``(S, S, 3)``, such as :func:`ulm.datasets.rendering.background` draws.
        landmarks: Places ``(L, 3)`` in the scene's frame.
        reach: How far below the visible surface a landmark may lie and still count as visible: 0 on the skin, a
            limb's radius for a joint inside it; a number or ``(L,)``. Two hundredths of the body's extent are added.

    Returns:
        ``image`` float32 ``(3, S, S)`` in [0, 1]; ``landmarks`` float32 ``(L, 2)`` in pixels; ``visible`` bool
        ``(L,)``: in the picture and not hidden; ``box`` of the drawn body, float32 ``(4,)``; ``mask`` bool ``(S, S)``;
        ``parts`` int64 ``(S, S)``, the part seen, -1 where there is none.
    """
    size = backdrop.shape[0]
    wide = size * SUPERSAMPLING
    mesh = _Mesh.of(surfaces)
    found = mesh.rasterise(camera, wide)
    colour = mesh.shade(found, light)
    layer = np.zeros((wide * wide, 4), F32)
    layer[found.pixel, :3], layer[found.pixel, 3] = colour, 1
    small = r.box_down(layer.reshape(wide, wide, 4), SUPERSAMPLING)
    drawn = r.encode((small[..., :3] + backdrop * (1 - small[..., 3:])) * F32(light.exposure))
    parts = np.full(wide * wide, -1, np.int64)
    parts[found.pixel] = mesh.part[mesh.owner[found.face]]
    mask = small[..., 3] > 0.5
    sample: dict[str, Any] = {
        "image": torch.from_numpy(np.ascontiguousarray(drawn.transpose(2, 0, 1), F32)),
        "mask": torch.from_numpy(mask),
        "parts": torch.from_numpy(parts.reshape(wide, wide)[::SUPERSAMPLING, ::SUPERSAMPLING].copy()),
        "box": torch.from_numpy(_box(mesh, camera, size)),
    }
    if landmarks is not None:
        places = camera.project(landmarks, size)
        inside = np.all((places >= 0) & (places < size), 1)
        sample["landmarks"] = torch.from_numpy(places.astype(F32))
        sample["visible"] = torch.from_numpy(inside & mesh.sees(camera, landmarks, reach))
    return sample


def _box(mesh: _Mesh, camera: Camera, size: int) -> Array:
    flat = np.clip(camera.project(mesh.points, size), 0, size)
    return np.concatenate([flat.min(0), flat.max(0)]).astype(F32)


@dataclass(frozen=True)
class _Mesh:
    """All surfaces as one list of triangles."""

    surfaces: tuple[Surface, ...]
    points: Array
    faces: Array
    owner: Array
    both: Array
    part: Array

    @classmethod
    def of(cls, surfaces: Sequence[Surface]) -> _Mesh:
        counts = [s.points.shape[0] * s.points.shape[1] for s in surfaces]
        grids = [r.grid_faces(*s.points.shape[:2]) for s in surfaces]
        offsets = np.cumsum([0, *counts[:-1]])
        owner = np.repeat(np.arange(len(surfaces)), [len(g) for g in grids])
        both = np.array([s.two_sided for s in surfaces])[owner]
        points = np.concatenate([s.points.reshape(-1, 3) for s in surfaces])
        faces = np.concatenate([g + o for g, o in zip(grids, offsets, strict=True)])
        return cls(tuple(surfaces), points, faces, owner, both, np.array([s.part for s in surfaces]))

    def rasterise(self, camera: Camera, side: int) -> r.Fragments:
        return r.rasterise(camera.project(self.points, side), self.points[:, 2], self.faces, (side, side), self.both)

    def attributes(self) -> Array:
        """Position, normal, rest position, u and v of every point, ``(V, 11)``."""
        rows = []
        for s in self.surfaces:
            n, m = s.points.shape[:2]
            v, u = np.meshgrid(np.linspace(0, 1, n), np.linspace(0, 1, m), indexing="ij")
            rest = s.points if s.rest is None else s.rest
            every = [s.points, r.grid_normals(s.points, s.wrap), rest, u[..., None], v[..., None]]
            rows.append(np.concatenate(every, -1).reshape(-1, 11))
        return np.concatenate(rows).astype(F32)

    def shade(self, found: r.Fragments, light: Light) -> Array:
        """Linear light of each fragment: wrapped key with shadows, light from above, a rim, highlights."""
        attributes, corners = self.attributes(), self.faces[found.face]
        values = sum(attributes[corners[:, k]] * found.weights[:, k, None] for k in range(3))
        position, normal = values[:, :3], r.unit(values[:, 3:6])
        normal = np.where(normal[:, 2:] < -0.02, -normal, normal)
        owner = self.owner[found.face]
        albedo, gloss = np.empty((len(owner), 3), F32), np.empty(len(owner), F32)
        for k, surface in enumerate(self.surfaces):
            at = np.flatnonzero(owner == k)
            if len(at):
                paint = surface.paint
                colour = paint(values[at, 6:9], values[at, 9], values[at, 10]) if callable(paint) else np.array([paint])
                albedo[at], gloss[at] = r.decode(colour), surface.gloss
        towards = light.direction.astype(F32)
        lit = self._lit(position, light) if light.shadows else np.ones(len(owner), F32)
        diffuse = np.clip((normal @ towards + 0.15) / 1.15, 0, 1) * lit
        sky = light.ambient * (0.72 + 0.28 * normal[:, 1])
        rim = 0.15 * np.clip(1 - normal[:, 2], 0, 1) ** 3
        shine = np.clip(normal @ r.unit(towards + np.array([0, 0, 1], F32)), 0, 1)
        shine = gloss * lit * light.key * (0.05 * shine**10 + 0.18 * shine**50)
        key = light.key * np.array(light.colour, F32)
        return albedo * (diffuse[:, None] * key + (sky + rim)[:, None]) + shine[:, None]

    def _lit(self, position: Array, light: Light) -> Array:
        """How much of the key light reaches positions ``(N, 3)``: a shadow map, read softly."""
        side = 96
        up = np.array([0.0, 1.0, 0.0]) if abs(light.direction[1]) < 0.95 else np.array([1.0, 0.0, 0.0])
        across = r.unit(np.cross(up, light.direction))
        axes = np.stack([across, np.cross(light.direction, across), light.direction])
        turned = self.points @ axes.T
        low, extent = turned.min(0), float(np.ptp(turned[:, :2], 0).max())
        scale = (side - 4) / max(extent, 1e-9)
        xy = np.stack([(turned[:, 0] - low[0]) * scale + 2, side - 2 - (turned[:, 1] - low[1]) * scale], 1)
        found = r.rasterise(xy, turned[:, 2], self.faces, (side, side), self.both)
        depth = np.full(side * side, -1e9, F32)
        depth[found.pixel] = found.depth
        here = position @ axes.T.astype(F32)
        px, py = (here[:, 0] - low[0]) * scale + 2, side - 2 - (here[:, 1] - low[1]) * scale
        soft, total = F32(2.5 / scale), np.zeros(len(position), F32)
        for dx, dy in ((-0.9, -0.4), (0.4, -0.9), (0.9, 0.4), (-0.4, 0.9)):
            i = np.clip(py + dy, 0, side - 1).astype(np.int32)
            j = np.clip(px + dx, 0, side - 1).astype(np.int32)
            total += np.clip((here[:, 2] - depth[i * side + j] + 2 * soft) / soft, 0, 1).astype(F32)
        return total / 4

    def sees(self, camera: Camera, landmarks: Array, reach: Array | float) -> Array:
        """Which places ``(L, 3)`` no surface hides; on a depth map of fixed size, whatever the picture's."""
        side = 128
        found = self.rasterise(camera, side)
        depth = np.full(side * side, -1e9)
        depth[found.pixel] = found.depth
        xy = np.clip(camera.project(landmarks, side), 1, side - 2)
        column, row = xy[:, 0].astype(int), xy[:, 1].astype(int)
        around = np.stack([depth[(row + i) * side + column + j] for i in (-1, 0, 1) for j in (-1, 0, 1)])
        slack = 0.02 * np.ptp(self.points, 0).max() + np.asarray(reach)
        # The third nearest of nine: a silhouette that only grazes the landmark does not hide it.
        return landmarks[:, 2] > np.sort(around, 0)[6] - slack
