"""Cat heads with the nine landmarks of the CAT data set, drawn by ``ulm``; stands in for CatHeads.

A cat is a skull with a muzzle, two ear shells, a neck and shoulders, whiskers and fringes of fur. Eyes, nose, mouth
and coat are painted. The unit of length is half the width of a middling head; x right, y up, z to the viewer. "Left"
is the image's left, as in CAT.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from ulm.datasets import rendering as r
from ulm.datasets import shapes
from ulm.datasets.base import Info, Sample
from ulm.datasets.rendering import Array, bump, smoothstep
from ulm.datasets.shapes import F32, Surface

LANDMARK_NAMES = (
    "left-eye",
    "right-eye",
    "mouth",
    "left-ear-1",
    "left-ear-2",
    "left-ear-3",
    "right-ear-1",
    "right-ear-2",
    "right-ear-3",
)
"""The order of CAT's ``.cat`` files, left and right as the image shows them. Both ears are numbered from the image's
left to its right: ear 1 to 3 are outer base, tip, inner base of the left ear, but inner base, tip, outer base of the
right one."""
FLIP_PAIRS = ((0, 1), (3, 8), (4, 7), (5, 6))
SKELETON = ((0, 1), (0, 2), (1, 2), (3, 4), (4, 5), (5, 6), (6, 7), (7, 8))
SEVEN = ((0,), (1,), (2,), (3,), (5,), (6,), (8,))
"""The points that are evaluated: all but the two tips of the ears."""

HEAD, BODY, OCCLUDER = 0, 1, 2
REACH = np.array([0.06, 0.06, 0.06, *(0.25, 0.06, 0.15), *(0.15, 0.06, 0.25)])
"""How far below what is seen a landmark may lie: the ears' bases are sunk in fur."""
PIVOT = np.array([0.0, -0.5, -0.35])
EYE_Y, NOSE_Y, LIP_Y = 0.05, -0.26, -0.43


# ---------------------------------------------------------------------------------------------- what a cat is


@dataclass(frozen=True)
class Shape:
    """Proportions, in half head widths.

    Attributes:
        width: Of the head.
        cheek: How far the cheeks stand out.
        muzzle: How far the muzzle does.
        jaw: How much the head narrows downwards.
        eye_x: Half the distance between the eyes.
        eye_size: Half width of an eye.
        ear_height: From the middle of the base to the tip.
        ear_angle: Direction of the outer and the inner base, in degrees from straight up.
        ear_lean: How far the tip leans outwards.
        fold: By how many degrees the ears bend forwards.
        fur: Length of the fringes.
    """

    width: float = 1.0
    cheek: float = 0.06
    muzzle: float = 0.24
    jaw: float = 0.25
    eye_x: float = 0.42
    eye_size: float = 0.2
    ear_height: float = 0.75
    ear_angle: tuple[float, float] = (62.0, 20.0)
    ear_lean: float = 0.2
    fold: float = 0.0
    fur: float = 0.1


@dataclass(frozen=True)
class Coat:
    """Colours in display values, and what is painted with them.

    Attributes:
        pattern: ``solid``, ``tabby``, ``tuxedo``, ``calico``, ``points`` or ``patched``.
        base: The main colour.
        dark: Of stripes, points and one kind of patch.
        light: Of the muzzle, the chin and white patches.
        other: Of a second kind of patch.
        iris: Of the eyes.
        nose: Of the nose.
        inner: Of the skin inside the ears.
        contrast: Of single hairs.
        spread: How much of the cat is white, about 0.
        seed: Of the patches and hairs.
    """

    pattern: str = "solid"
    base: Array = field(default_factory=lambda: np.array([0.5, 0.48, 0.45]))
    dark: Array = field(default_factory=lambda: np.array([0.12, 0.1, 0.09]))
    light: Array = field(default_factory=lambda: np.array([0.92, 0.9, 0.87]))
    other: Array = field(default_factory=lambda: np.array([0.8, 0.5, 0.25]))
    iris: Array = field(default_factory=lambda: np.array([0.6, 0.7, 0.25]))
    nose: Array = field(default_factory=lambda: np.array([0.8, 0.5, 0.48]))
    inner: Array = field(default_factory=lambda: np.array([0.85, 0.6, 0.57]))
    contrast: float = 0.16
    spread: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Mood:
    """What changes from moment to moment.

    Attributes:
        lids: How far each eye is open (image left, right), 1 is wide.
        pupil: Width of the pupils, 0.12 a slit, 0.8 nearly round.
        gaze: Where the eyes look, in parts of an eye.
        mouth: How far the mouth is open, 0 to 1.
    """

    lids: tuple[float, float] = (1.0, 1.0)
    pupil: float = 0.3
    gaze: tuple[float, float] = (0.0, 0.0)
    mouth: float = 0.0


@dataclass(frozen=True)
class Cat:
    """One cat, as it is now.

    Attributes:
        shape: Proportions.
        coat: Colours and patterns.
        mood: Eyes and mouth.
        turn: Head yaw (positive: to the image's right), pitch (positive: looks up) and roll (positive: clockwise).
        body_turn: Yaw of the shoulders.
        lean: Where the body goes, sideways.
        collar: Colour of a collar; None: there is none.
        whiskers: Colour of the whiskers.
    """

    shape: Shape = field(default_factory=Shape)
    coat: Coat = field(default_factory=Coat)
    mood: Mood = field(default_factory=Mood)
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0)
    body_turn: float = 0.0
    lean: float = 0.0
    collar: tuple[float, float, float] | None = None
    whiskers: tuple[float, float, float] = (0.95, 0.95, 0.93)


_BREEDS = {
    # width, cheek, muzzle, jaw, eye_x, eye_size, ear_height, outer angle, inner angle, lean, fold, fur
    "domestic": (1.0, 0.05, 0.24, 0.26, 0.42, 0.2, 0.74, 62, 21, 0.2, 0, 0.10),
    "tom": (1.07, 0.16, 0.24, 0.14, 0.43, 0.19, 0.64, 64, 24, 0.26, 0, 0.11),
    "longhair": (1.02, 0.1, 0.27, 0.2, 0.42, 0.2, 0.82, 60, 21, 0.17, 0, 0.25),
    "persian": (1.06, 0.16, 0.08, 0.12, 0.45, 0.22, 0.5, 66, 30, 0.3, 0, 0.27),
    "slender": (0.9, 0.0, 0.38, 0.36, 0.4, 0.2, 0.92, 68, 20, 0.34, 0, 0.05),
    "folded": (1.05, 0.13, 0.17, 0.14, 0.44, 0.22, 0.6, 62, 24, 0.15, 125, 0.12),
    "kitten": (0.98, 0.03, 0.16, 0.28, 0.43, 0.23, 0.82, 64, 22, 0.28, 0, 0.12),
}
_BREED_ODDS = (0.36, 0.12, 0.15, 0.08, 0.13, 0.06, 0.10)

_FUR = {
    "black": (0.085, 0.08, 0.085),
    "blue": (0.42, 0.44, 0.48),
    "orange": (0.83, 0.53, 0.27),
    "cream": (0.9, 0.79, 0.63),
    "brown": (0.5, 0.4, 0.3),
    "silver": (0.68, 0.68, 0.67),
    "chocolate": (0.27, 0.18, 0.14),
    "white": (0.94, 0.93, 0.91),
}
_IRIS = {
    "green": (0.5, 0.72, 0.3),
    "yellow": (0.86, 0.78, 0.28),
    "amber": (0.9, 0.6, 0.18),
    "copper": (0.78, 0.42, 0.13),
    "blue": (0.42, 0.66, 0.92),
}


def _tone(rng: np.random.Generator, colour: tuple[float, float, float], jitter: float = 0.025) -> Array:
    return np.clip(np.array(colour) * np.exp(rng.normal(0, 0.08)) + rng.normal(0, jitter, 3) * 0.5, 0.03, 0.97)


def sample_shape(rng: np.random.Generator) -> Shape:
    """Proportions of a cat of some breed."""
    means = np.array(_BREEDS[str(rng.choice(list(_BREEDS), p=_BREED_ODDS))], float)
    spread = np.array([0.035, 0.035, 0.045, 0.05, 0.018, 0.013, 0.07, 4.0, 4.0, 0.07, 0, 0.03])
    v = means + spread * np.clip(rng.normal(0, 1, len(means)), -2, 2)
    fold = v[10] * rng.uniform(0.8, 1.2)
    width, cheek, muzzle, jaw, eye_x, eye_size, height, outer, inner, lean, _, fur = (float(a) for a in v)
    ear = (outer, inner)
    return Shape(width, cheek, muzzle, jaw, eye_x, eye_size, height, ear, lean, float(fold), max(fur, 0.03))


def sample_coat(rng: np.random.Generator) -> Coat:
    """Colours and pattern of a coat."""
    pattern = str(
        rng.choice(["solid", "tabby", "tuxedo", "calico", "points", "patched"], p=[0.2, 0.34, 0.12, 0.1, 0.1, 0.14])
    )
    names = {
        "solid": ["black", "blue", "orange", "cream", "white", "chocolate", "silver"],
        "tabby": ["brown", "silver", "orange", "brown", "blue"],
        "tuxedo": ["black", "black", "blue"],
        "calico": ["white"],
        "points": ["cream"],
        "patched": ["white"],
    }[pattern]
    base = str(rng.choice(names))
    dark = {"orange": (0.58, 0.27, 0.1), "silver": (0.17, 0.17, 0.18), "blue": (0.22, 0.23, 0.27)}.get(
        base, (0.13, 0.1, 0.08)
    )
    if pattern == "points":
        dark = (0.2, 0.15, 0.12) if rng.random() < 0.7 else (0.4, 0.4, 0.44)
    if pattern == "patched":
        dark = _FUR[str(rng.choice(["black", "blue", "orange", "brown"]))]
    pale = base in ("white", "cream", "orange") or pattern in ("tuxedo", "calico", "patched")
    pink = rng.random() < (0.8 if pale else 0.35)
    eyes = ["blue"] if pattern == "points" else ["green", "yellow", "amber", "copper"]
    if base == "white":
        eyes = [*eyes, "blue"]
    return Coat(
        pattern,
        _tone(rng, _FUR[base]),
        _tone(rng, dark, 0.02),
        _tone(rng, _FUR["white"], 0.03),
        _tone(rng, _FUR["orange"]),
        _tone(rng, _IRIS[str(rng.choice(eyes))], 0.06),
        _tone(rng, (0.83, 0.52, 0.5) if pink else (0.16, 0.12, 0.12)),
        _tone(rng, (0.86, 0.62, 0.58) if pale or rng.random() < 0.6 else (0.5, 0.38, 0.36)),
        float(rng.uniform(0.1, 0.22)),
        float(rng.uniform(-0.25, 0.3)),
        int(rng.integers(2**31)),
    )


def sample_cat(rng: np.random.Generator) -> Cat:
    """A cat that looks somewhere."""
    shape, coat = sample_shape(rng), sample_coat(rng)
    lids = float(np.clip(rng.normal(0.93, 0.13), 0.5, 1.1))
    both = np.clip(lids + rng.normal(0, 0.03, 2), 0.45, 1.1)
    opened = float(rng.uniform(0.3, 1.0)) if rng.random() < 0.16 else 0.0
    mood = Mood(
        (float(both[0]), float(both[1])),
        float(rng.uniform(0.14, 0.78)),
        (float(rng.normal(0, 0.07)), float(rng.normal(0, 0.05))),
        opened,
    )
    yaw = float(rng.uniform(-45, 45) if rng.random() < 0.5 else np.clip(rng.normal(0, 16), -45, 45))
    pitch, roll = float(np.clip(rng.normal(0, 9), -20, 20)), float(np.clip(rng.normal(0, 11), -25, 25))
    colours = rng.uniform(0.1, 0.9, 3)
    whiskers = (0.96, 0.96, 0.94) if rng.random() < 0.85 else (0.12, 0.11, 0.1)
    collar = (float(colours[0]), float(colours[1] * 0.7), float(colours[2])) if rng.random() < 0.25 else None
    body_turn = yaw * float(rng.uniform(-0.3, 0.9)) + float(rng.normal(0, 12))
    return Cat(shape, coat, mood, (yaw, pitch, roll), body_turn, float(rng.normal(0, 0.5)), collar, whiskers)


# ---------------------------------------------------------------------------------------------- skull and ears


def _levels() -> Array:
    """Latitudes of the rows of the skull in radians: close together where the mouth and the eyes are."""
    y = [np.linspace(-1, -0.8, 6)[:-1], np.linspace(-0.8, -0.2, 25)[:-1], np.linspace(-0.2, 0.4, 14)[:-1]]
    return np.arcsin(np.concatenate([*y, np.sin(np.linspace(np.arcsin(0.4), np.pi / 2, 11))]))


def _columns() -> Array:
    """Longitudes of the columns of the skull in radians: close together in front."""
    s = np.linspace(-1, 1, 51)
    return np.pi * (0.5 * s + 0.5 * s**3)


def _skull(shape: Shape, longitude: Array, latitude: Array) -> Array:
    """Places ``(..., 3)`` on the head, without ears and with the mouth closed."""
    c = np.cos(latitude)
    x, y, z = c * np.sin(longitude), np.sin(latitude), c * np.cos(longitude)
    front = smoothstep(0.0, 0.5, z)
    low = smoothstep(0.1, -0.9, y)
    side = np.abs(x)
    x = x * shape.width * (1 - shape.jaw * low) + np.sign(x) * shape.cheek * bump((y + 0.32) / 0.3) * side**2
    z = z * np.where(z > 0, 0.78 - 0.1 * smoothstep(0.2, 0.9, y), 0.8)
    y = y * np.where(y > 0, 0.82, 0.78)
    return np.stack([x, y, z + front * _relief(shape, x, y)], -1)


def _relief(shape: Shape, x: Array, y: Array) -> Array:
    """How far the face stands out of the round head at (x, y)."""
    a, m = np.abs(x), shape.muzzle
    dx, dy = a - shape.eye_x, y - EYE_Y
    out = (0.08 + m) * bump(x / 0.37, (y + 0.37) / 0.3)
    out = out + 0.07 * bump((a - 0.14) / 0.12, (y + 0.41) / 0.11) + 0.05 * bump(x / 0.12, (y + 0.62) / 0.1)
    out = out + (0.05 + 0.25 * m) * bump(x / 0.14, (y + 0.14) / 0.22) + 0.06 * bump(x / 0.09, (y - NOSE_Y) / 0.06)
    out = out - 0.08 * bump(dx / 0.24, (dy + 0.02) / 0.2) + 0.05 * bump(dx / shape.eye_size, dy / shape.eye_size)
    crease = bump((y - _lip(x)) / 0.03) * smoothstep(0.36, 0.2, a)
    philtrum = bump(x / 0.025) * smoothstep(LIP_Y - 0.03, LIP_Y, y) * smoothstep(NOSE_Y + 0.03, NOSE_Y - 0.03, y)
    return out - 0.05 * crease - 0.03 * philtrum


def _lip(x: Array) -> Array:
    """Height of the edge of the upper lip: two arcs that meet in the middle."""
    a = np.clip(np.abs(x), 0, 0.3)
    return LIP_Y - 0.075 * np.sin(np.pi * a / 0.34) + 0.13 * smoothstep(0.14, 0.3, a) * a


def _opened(mood: Mood, points: Array) -> Array:
    """Drop the jaw."""
    if not mood.mouth:
        return points
    x, y, z = np.moveaxis(points, -1, 0)
    below = smoothstep(_lip(x) - 0.005, _lip(x) - 0.075, y) * smoothstep(0.0, 0.3, z)
    fall = mood.mouth * below * (0.06 + 0.24 * bump(x / 0.26))
    return np.stack([x, y - fall, z - 0.5 * fall], -1)


def _on_face(head: Array, places: Array) -> Array:
    """Points ``(N, 3)`` on the front of a grid at (x, y) ``(N, 2)``: on planes through their neighbours."""
    points = head.reshape(-1, 3)
    points = points[points[:, 2] > 0.2]
    far = ((points[None, :, :2] - places[:, None]) ** 2).sum(-1)
    near = points[np.argpartition(far, 7, axis=1)[:, :7]]
    system = np.concatenate([np.ones((*near.shape[:2], 1)), near[..., :2] - places[:, None]], -1)
    depth = (np.linalg.pinv(system) @ near[..., 2:])[:, 0]
    return np.concatenate([places, depth], 1)


def _ear(shape: Shape) -> tuple[Array, Array, Array]:
    """The image's right ear: its hollow front and its back as grids, and its landmarks inner base, tip, outer base."""
    bases = []
    for angle, forward in zip(shape.ear_angle, (8.0, 14.0), strict=True):
        a, f = np.radians([angle, forward])
        way = np.array([np.sin(a) * np.cos(f), np.cos(a) * np.cos(f), np.sin(f)])
        bases.append(_skull(shape, np.arctan2(way[0], way[2]), np.arcsin(way[1])))
    outer, inner = bases
    middle = (outer + inner) / 2
    up = r.unit(np.array([0.35 + shape.ear_lean, 1.0, -0.05]))
    tip = middle + up * shape.ear_height
    v, u = np.meshgrid(np.linspace(-0.12, 1, 15), np.linspace(0, 1, 13), indexing="ij")
    u, v = u[..., None], v[..., None]
    swell = np.sin(np.pi * np.clip(v, 0, 1) ** 0.8)
    left = inner + (tip - inner) * v + swell * np.array([-0.05, 0.03, 0.0])
    right = outer + (tip - outer) * v + swell * np.array([0.09, 0.0, 0.0])
    hollow = np.sin(np.pi * u) * np.array([0.06, 0.0, -0.3]) * (1 - np.clip(v, 0, 1)) ** 0.7
    flare = np.cos(np.pi * u) * np.array([0, 0, 0.05]) * np.clip(1 - v, 0, 1)
    front = _bent(shape, left + (right - left) * u + hollow + flare, middle, up)
    shell = np.sin(np.pi * u) ** 0.5 * np.array([0.01, 0.0, -0.06]) * (1 - np.clip(v, 0, 1) ** 3)
    back = _bent(shape, left + (right - left) * u + hollow + flare + shell, middle, up)
    marks = np.stack([inner, _bent(shape, tip, middle, up), outer])
    return front, back[:, ::-1], marks


def _bent(shape: Shape, points: Array, middle: Array, up: Array) -> Array:
    """Fold an ear forwards over a roll at a third of its height."""
    if shape.fold <= 0:
        return points
    ahead = r.unit(np.array([0.1, 0.0, 1.0]) - up * (0.1 * up[0] + up[2]))
    along = (points - middle) @ up
    over, radius = np.clip(along - 0.36 * shape.ear_height, 0, None), 0.09
    turn = np.minimum(over / radius, np.radians(shape.fold))
    rest = over - turn * radius
    rise = radius * np.sin(turn) + rest * np.cos(turn) - over
    return points + rise[..., None] * up + (radius * (1 - np.cos(turn)) + rest * np.sin(turn))[..., None] * ahead


def _mirror(grid: Array) -> Array:
    return grid[:, ::-1] * np.array([-1.0, 1, 1])


# ---------------------------------------------------------------------------------------------- fur


def _mix(colour: Array, other: Array, amount: Array) -> Array:
    return colour + (np.asarray(other, F32) - colour) * amount[:, None].astype(F32)


class _Fur:
    """The coat of one cat as paint for all its surfaces."""

    def __init__(self, cat: Cat, light: Array):
        self.cat = cat
        self.glint = (0.32 * float(light[0]), 0.22 + 0.18 * float(light[1]))
        rng = np.random.default_rng(cat.coat.seed)
        self.hairs = rng.normal(0, 1, (64, 64)).astype(F32)
        self.patches = rng.uniform(-1, 1, (16, 16)).astype(F32)
        # Python's numbers: NumPy's own would turn every float32 array that they meet into float64.
        self.shift: list[float] = rng.uniform(0, 16, 4).tolist()
        self.tilt = float(rng.uniform(-0.5, 0.5))

    def coat(self, p: Array, ear: float = 0.0) -> Array:
        """Colour of the fur at rest positions ``(N, 3)``; ``ear``: 1 on the ears."""
        c = self.cat.coat
        x, y, z = np.ascontiguousarray(p.T)
        colour = np.broadcast_to(c.base.astype(F32), (len(x), 3))
        broad = r.value_noise(self.patches, 1.5 * x + z + self.shift[0], 1.5 * y - 0.7 * z + self.shift[1])
        if c.pattern == "tabby":
            colour = _mix(colour, c.dark, 0.85 * self._stripes(x, y, z, broad))
            colour = _mix(colour, c.light, self._pale(x, y, z))
        elif c.pattern == "tuxedo":
            colour = _mix(colour, c.light, self._bib(x, y, z, broad))
        elif c.pattern == "calico":
            second = r.value_noise(self.patches, 1.2 * x - z + self.shift[2], 1.4 * y + self.shift[3])
            high = 0.5 * smoothstep(-0.4, 0.5, y) + 0.4 * ear - 0.3 - c.spread
            colour = _mix(colour, c.other, smoothstep(0.0, 0.08, second + high + 0.4 * x * np.sign(self.tilt)))
            colour = _mix(colour, c.dark, smoothstep(0.0, 0.08, broad + high - 0.1))
        elif c.pattern == "points":
            mask = bump(x / 0.62, (y + 0.16) / 0.52) * smoothstep(-0.1, 0.5, z)
            colour = _mix(colour, c.dark, np.clip(1.15 * mask + ear, 0, 1) * 0.93)
        elif c.pattern == "patched":
            cap = 1.5 * (y - 0.12 - 0.35 * c.spread) + 1.3 * np.abs(x - 0.25 * self.tilt) - 0.45 + 0.5 * broad + ear
            cap = np.where(y < -0.7, broad - 0.15, cap)
            colour = _mix(colour, c.dark, smoothstep(0.0, 0.07, cap))
        if c.pattern in ("solid", "points"):
            colour = colour * (1 + 0.08 * broad)[:, None].astype(F32)
        # Hairs run away from the nose.
        turn, far = np.arctan2(y - NOSE_Y, x), np.sqrt(x * x + (y - NOSE_Y) ** 2 + z * z)
        hair = r.value_noise(self.hairs, turn * (64 / (2 * np.pi)) * 1.0, far * 5 + 3 * broad)
        hair = hair + 0.7 * r.value_noise(self.hairs, turn * (64 / np.pi), far * 9)
        floor = 0.02 * np.clip(hair, 0, 2)
        return np.clip(colour * (1 + 0.55 * c.contrast * hair)[:, None] + floor[:, None], 0.02, 0.98).astype(F32)

    def _stripes(self, x: Array, y: Array, z: Array, wobble: Array) -> Array:
        """Tabby marks: the M on the forehead, lines from the eyes over the cheeks, rings on the body."""
        a, w = np.abs(x), 0.03 * wobble
        high = smoothstep(0.24, 0.34, y)
        lines = bump((a - 0.06 - 0.1 * (y - 0.25) + w) / 0.035) + bump((a - 0.25 - 0.22 * (y - 0.3) + w) / 0.045)
        lines = lines + bump((a - 0.47 - 0.3 * (y - 0.35) + w) / 0.05) * smoothstep(0.3, 0.4, y)
        valley = bump((y - 0.27 - 0.55 * np.abs(a - 0.155) + w) / 0.035) * (a < 0.3)
        forehead = (np.clip(lines, 0, 1) * high + valley) * (y > 0.1)
        sweep = np.sin(2 * np.pi * (2.6 * (y + 0.55 * (a - 0.6)) + 0.35 * wobble + 0.1))
        cheeks = smoothstep(0.25, 0.6, sweep) * smoothstep(0.5, 0.64, a - 0.25 * (z < 0.2)) * smoothstep(0.25, 0.1, y)
        rings = smoothstep(0.1, 0.5, np.sin(2 * np.pi * (1.9 * y + 0.4 * a + 0.5 * wobble)))
        return np.clip(forehead + cheeks * (y > -0.8) + rings * smoothstep(-0.75, -0.9, y), 0, 1)

    def _pale(self, x: Array, y: Array, z: Array) -> Array:
        """Where a tabby is pale: muzzle, chin, round the eyes."""
        front, a, s = smoothstep(0.1, 0.4, z), np.abs(x), self.cat.shape
        muzzle = bump(x / 0.27, (y + 0.5) / 0.17)
        eyes = bump((a - s.eye_x) / (1.5 * s.eye_size), (y - EYE_Y) / (1.35 * s.eye_size))
        return np.clip(0.85 * muzzle + 0.5 * eyes, 0, 0.9) * front

    def _bib(self, x: Array, y: Array, z: Array, wobble: Array) -> Array:
        """Where a tuxedo is white: muzzle, blaze, chin and chest."""
        s = self.cat.coat.spread
        wide = 0.06 + 0.09 * (s + 0.25) + 0.42 * smoothstep(-0.12, -0.42, y) + 0.35 * smoothstep(-0.8, -1.4, y)
        top = smoothstep(0.15 + 1.2 * s, 0.1 + 1.2 * s, y)
        return smoothstep(0.03, -0.03, np.abs(x + 0.05 * self.tilt) + 0.12 * wobble - wide) * top * (z > -0.1)

    # ---- paints, see :data:`ulm.datasets.shapes.Paint`

    def plain(self, p: Array, u: Array, v: Array) -> Array:
        """The coat alone."""
        return self.coat(p)

    def ear_back(self, p: Array, u: Array, v: Array) -> Array:
        """The coat of the ears, darker at the tip."""
        colour = self.coat(p, 1.0)
        return colour * (1 - 0.25 * smoothstep(0.75, 1, v))[:, None].astype(F32)

    def ear_front(self, p: Array, u: Array, v: Array) -> Array:
        """Skin, tufts from the inner edge, and a rim of fur."""
        rim = np.clip(smoothstep(0.16, 0.04, u) + smoothstep(0.86, 0.97, u) + smoothstep(0.84, 0.96, v), 0, 1)
        inner = self.cat.coat.inner.astype(F32) * (0.62 + 0.38 * np.abs(2 * u - 1))[:, None]
        inward = np.where(p[:, 0] > 0, u, 1 - u)
        tuft = r.value_noise(self.hairs, 30 * v + 14 * inward, 3 * inward + 0.5)
        tuft = smoothstep(0.0, 0.9, tuft + 1.1 - 2.4 * inward - 0.6 * v)
        coat = self.cat.coat
        second = coat.dark if coat.pattern == "points" else coat.light
        pale = 0.55 * second + 0.45 * coat.base
        return _mix(_mix(inner.astype(F32), pale, 0.8 * tuft), self.coat(p, 1.0), rim)

    def face(self, p: Array, u: Array, v: Array) -> Array:
        """Coat, mouth, nose and eyes."""
        colour = self.coat(p)
        at = np.flatnonzero((p[:, 2] > 0.2) & (p[:, 1] < 0.5) & (np.abs(p[:, 0]) < 0.75))
        x, y = p[at, 0], p[at, 1]
        part = self._mouth(colour[at], x, y)
        part = self._nose(part, x, y)
        colour[at] = self._eyes(part, x, y)
        return colour

    def _mouth(self, colour: Array, x: Array, y: Array) -> Array:
        opened, a, lip = self.cat.mood.mouth, np.abs(x), _lip(x)
        rows = np.sin(40 * (y + 0.1 * a)) * np.sin(46 * (a - 0.02 * np.sin(40 * y)))
        dots = smoothstep(0.55, 0.8, rows) * bump((a - 0.19) / 0.09, (y + 0.4) / 0.05)
        colour = colour * (1 - 0.5 * dots)[:, None]
        line = bump((y - lip) / 0.016) * smoothstep(0.31, 0.22, a)
        split = bump(x / 0.013) * smoothstep(LIP_Y - 0.02, LIP_Y, y) * smoothstep(NOSE_Y, NOSE_Y - 0.05, y)
        colour = colour * (1 - 0.75 * np.clip(line + split, 0, 1))[:, None]
        if opened:
            depth = (lip - y) / 0.075
            inside = smoothstep(0.0, 0.1, depth) * smoothstep(1.0, 0.85, depth) * smoothstep(0.24, 0.2, a)
            tongue = bump(x / 0.1, (depth - 0.78) / 0.3)
            flesh = _mix(np.tile(np.array([0.3, 0.09, 0.09], F32), (len(x), 1)), [0.88, 0.48, 0.48], tongue)
            fang = smoothstep(0.03, 0.015, np.abs(a - 0.12) + 0.035 * depth) * (depth < 0.6)
            colour = _mix(colour, _mix(flesh, [0.97, 0.95, 0.88], fang), inside)
        return colour

    def _nose(self, colour: Array, x: Array, y: Array) -> Array:
        a, t = np.abs(x), (y - NOSE_Y) / 0.075
        wide = np.interp(t, [-1, -0.6, 0.2, 0.7, 1.0], [0.0, 0.045, 0.1, 0.095, 0.06])
        nose = smoothstep(0.018, -0.012, a - wide) * smoothstep(1.12, 0.95, np.abs(t))
        tone = self.cat.coat.nose.astype(F32) * (0.9 + 0.16 * t)[:, None]
        nostril = bump((a - 0.055) / 0.022, (t + 0.15 - 3 * (a - 0.055)) / 0.26)
        edge = bump((a - wide) / 0.012) * smoothstep(1.1, 0.9, np.abs(t))
        tone = tone * (1 - 0.8 * nostril)[:, None] * (1 - 0.35 * edge)[:, None]
        return _mix(colour, tone, nose)

    def _eyes(self, colour: Array, x: Array, y: Array) -> Array:
        s, mood, coat = self.cat.shape, self.cat.mood, self.cat.coat
        a, right = np.abs(x), x > 0
        half = s.eye_size
        c, t = 0.974, 0.225  # Cosine and sine of 13 degrees: the outer corner lies higher.
        dx, dy = a - s.eye_x, y - EYE_Y
        u, w = (dx * c + dy * t) / half, (dy * c - dx * t) / half
        lids = np.where(right, mood.lids[1], mood.lids[0])
        upper = (0.92 * lids - 0.12) * (1 - np.clip(np.abs(u), 0, 1.3) ** 2.3) + 0.02
        lower = -(0.62 + 0.16 * lids) * (1 - np.clip(np.abs(u), 0, 1.3) ** 2.0)
        inset = np.minimum(upper - w, w - lower)
        duct = bump((u + 1.08 + 0.25 * (w + 0.2)) / 0.13) * smoothstep(-0.75, -0.35, w) * smoothstep(0.25, 0.05, w)
        liner = smoothstep(-0.16, -0.05, inset) * (np.abs(u) < 1.25)
        colour = _mix(colour, [0.05, 0.04, 0.04], np.clip(0.92 * liner + 0.7 * duct, 0, 1))
        eye = smoothstep(-0.04, 0.05, inset)
        gx, gy = dx / half - mood.gaze[0] * np.where(right, 1, -1), dy / half - mood.gaze[1]
        radius = np.sqrt(gx * gx + gy * gy)
        ring = coat.iris.astype(F32) * (1.12 - 0.55 * smoothstep(0.5, 1.0, radius))[:, None]
        ray = 1 + 0.1 * np.sin(np.arctan2(gy, gx) * 23)
        iris = _mix(ring * ray[:, None], coat.iris * [0.75, 0.95, 0.7], 0.5 * smoothstep(0.55, 0.2, radius))
        slit = mood.pupil * np.sqrt(np.clip(1 - (gy / 0.8) ** 2, 0, 1)) ** (2 - mood.pupil)
        iris = _mix(iris, [0.02, 0.02, 0.025], smoothstep(0.05, -0.05, np.abs(gx) - slit) * (np.abs(gy) < 0.8))
        iris = iris * (1 - 0.45 * smoothstep(0.28, 0.02, upper - w))[:, None]
        sx = np.where(right, 1, -1) * dx / half
        shine = smoothstep(0.2, 0.12, np.sqrt((sx - self.glint[0]) ** 2 + (dy / half - self.glint[1]) ** 2))
        shine = shine + 0.35 * smoothstep(0.12, 0.05, np.sqrt((sx + self.glint[0]) ** 2 + (dy / half + 0.35) ** 2))
        iris = _mix(iris, [1.0, 1.0, 1.0], np.clip(shine, 0, 1))
        return _mix(colour, iris, eye)


def _fringe(roots: Array, way: Array, length: Array) -> Array:
    """Tufts of fur along a line ``(2 n + 1, 3)``: a strip whose every second point is pulled out."""
    ends = roots + way * np.where(np.arange(len(roots)) % 2 == 1, length, 0.0)[:, None]
    return np.stack([roots, ends])


def _fringes(cat: Cat, rng: np.random.Generator) -> Array:
    """Fringes of the head as one grid: cheeks and jaw on both sides, and the crown.

    A fringe begins and ends without height, so that what joins it to the next has no area.
    """
    grids, s = [], cat.shape
    for longitude, reach, count in ((62.0, 0.75, 33), (82.0, 1.0, 37), (100.0, 0.9, 33)):
        for side in (-1, 1):
            latitude = np.radians(np.linspace(24, -80, count))
            at = np.full(count, np.radians(longitude) * side)
            roots = _skull(s, at, latitude)
            # Half along the skin and backwards, so that from the side the tufts lie flat and are lit like the head.
            way = r.unit(r.unit(roots * [1, 0.6, 0.2]) * 0.75 + np.array([0, -0.35, -0.6]))
            cheek = 0.45 + 0.9 * bump((np.degrees(latitude) + 32) / 30)
            grid = _fringe(roots, way, s.fur * reach * cheek * rng.uniform(0.35, 1.2, count))
            grids.append(grid if side < 0 else grid[:, ::-1])
    count = 25
    roots = _skull(s, np.radians(np.linspace(-88, 88, count)), np.full(count, np.radians(62)))
    grids.append(_fringe(roots, r.unit(roots + np.array([0, 0.6, -0.3])), 0.35 * s.fur * rng.uniform(0.4, 1.2, count)))
    return np.concatenate(grids, 1)


def _whiskers(cat: Cat, head: Array, rng: np.random.Generator) -> Array:
    """Five thin tubes on each pad and two above each eye, as one grid; see :func:`_fringes`."""
    k, brow = np.arange(5), np.arange(2)
    root = np.stack([0.15 + 0.03 * (k % 3), -0.36 - 0.028 * k], 1)
    lash = np.stack([cat.shape.eye_x + 0.06 * brow, np.full(2, EYE_Y + 1.25 * cat.shape.eye_size)], 1)
    roots = np.concatenate([root, root * [-1, 1], lash, lash * [-1, 1]])
    places, t, rows = _on_face(head, roots), np.linspace(0, 1, 7)[:, None], []
    noise, reach = rng.normal(0, 1, (14, 2)), rng.random(14)
    for i, place in enumerate(places):
        side, j = np.sign(place[0]), i % 5 if i < 10 else (i - 10) % 2
        if i < 10:
            way = r.unit(np.array([side, 0.22 - 0.14 * j + 0.05 * noise[i, 0], 0.25]))
            bend, length = np.array([side * 0.05, -0.22 + 0.06 * noise[i, 1], -0.3]), 0.55 + 0.5 * reach[i]
        else:
            way = r.unit(np.array([side * (0.35 + 0.25 * j), 1.0, 0.25]))
            bend, length = np.array([side * 0.35, -0.2, -0.2]), 0.35 + 0.15 * reach[i]
        path = place + length * (t * way + t**2 * bend)
        grid = shapes.tube(path, (0.0075 if i < 10 else 0.006) * np.linspace(1, 0.35, 7), 5, caps=(False, False))
        rows += [np.repeat(path[None, :1], 5, 1), grid, np.repeat(path[None, -1:], 5, 1)]
    return np.concatenate(rows)


# ---------------------------------------------------------------------------------------------- the whole cat


def _body(cat: Cat) -> Array:
    """Neck, chest and shoulders of a sitting cat."""
    f = cat.shape.fur
    heights = np.array([-3.6, -2.9, -2.3, -1.8, -1.4, -1.1, -0.85, -0.6, -0.3])
    wide = np.array([1.28, 1.3, 1.2, 1.02, 0.84, 0.72, 0.66, 0.62, 0.55]) + 0.8 * f * (heights < -0.5)
    deep = np.array([1.2, 1.2, 1.08, 0.92, 0.76, 0.64, 0.58, 0.54, 0.5]) + 0.8 * f * (heights < -0.5)
    drop = np.clip(-0.6 - heights, 0, None)
    sections = np.stack([cat.lean * 0.16 * drop**1.5, -0.32 - 0.1 * drop, wide, deep], 1)
    return shapes.loft(heights, sections, 29)


def _body_fringes(cat: Cat, body: Array, rng: np.random.Generator) -> Array:
    """Fur that stands out of the chest and the shoulders, as one grid; see :func:`_fringes`."""
    grids = []
    for row in (3, 4, 5, 6):
        roots = body[row, 3:-3]
        fine = np.repeat(roots, 2, 0)[:-1].copy()
        fine[1::2] = (roots[1:] + roots[:-1]) / 2
        out = r.unit((fine - body[row].mean(0)) * [1, 0, 1] + [0, -0.5, 0])
        grids.append(_fringe(fine, out, 0.9 * cat.shape.fur * rng.uniform(0.4, 1.3, len(fine)))[::-1])
    return np.concatenate(grids, 1)


def _collar(cat: Cat, body: Array) -> list[Surface]:
    """A band round the neck and a bell."""
    if cat.collar is None:
        return []
    ring = (body[5] * 0.5 + body[6] * 0.5) * [1.04, 1, 1] + [0, 0, 0.02]
    low, high = ring + np.array([0, -0.07, 0.03]), ring + np.array([0, 0.07, 0.0])
    band = np.stack([low, (low + high) / 2 + r.unit((ring - ring.mean(0)) * [1, 0, 1]) * 0.04, high])
    bell = shapes.ellipsoid(ring[len(ring) // 2] + [0, -0.13, 0.08], (0.1, 0.1, 0.1), 9, 13)
    return [
        Surface(band, cat.collar, 0.5, BODY, True),
        Surface(bell, (0.85, 0.68, 0.25), 2.0, BODY, True),
    ]


def build_cat(cat: Cat, light: Array) -> tuple[list[Surface], Array]:
    """Surfaces of a cat and its nine landmarks ``(9, 3)``.

    Args:
        cat: Which cat.
        light: Unit direction ``(3,)`` to the key light, for the glints in the eyes.
    """
    fur, rng = _Fur(cat, light), np.random.default_rng(cat.coat.seed + 1)
    latitude, longitude = np.meshgrid(_levels(), _columns(), indexing="ij")
    rest = _skull(cat.shape, longitude, latitude)
    front, back, marks = _ear(cat.shape)
    head = [Surface(_opened(cat.mood, rest), fur.face, 0.25, HEAD, True, rest=rest)]
    for flip in (False, True):
        head.append(Surface(_mirror(front) if flip else front, fur.ear_front, 0.05, HEAD))
        head.append(Surface(_mirror(back) if flip else back, fur.ear_back, 0.1, HEAD))
    head.append(Surface(_fringes(cat, rng), fur.plain, 0.0, HEAD, two_sided=True))
    head.append(Surface(_whiskers(cat, rest, rng), cat.whiskers, 0.3, HEAD, True))
    turn = r.rotation(*cat.turn)
    head = [s.moved(turn, PIVOT - turn @ PIVOT) for s in head]
    inner = np.array([[-cat.shape.eye_x, EYE_Y], [cat.shape.eye_x, EYE_Y], [0.0, LIP_Y]])
    points = np.concatenate([_on_face(rest, inner), marks[::-1] * [-1, 1, 1], marks])
    points = (points - PIVOT) @ turn.T + PIVOT
    body = _body(cat)
    shoulders = [Surface(body, fur.plain, 0.1, BODY, True), *_collar(cat, body)]
    shoulders.append(Surface(_body_fringes(cat, body, rng), fur.plain, 0.0, BODY, two_sided=True))
    swing = r.rotation(cat.body_turn, 0, 0.25 * cat.turn[2])
    return head + [s.moved(swing, PIVOT - swing @ PIVOT) for s in shoulders], points


def _occluder(rng: np.random.Generator, points: Array) -> list[Surface]:
    """At times something in front: a cushion's edge below or beside the face, or a twig across it."""
    if rng.random() > 0.22:
        return []
    low, high = points.min(0), points.max(0)
    colour = tuple(float(c) for c in rng.uniform(0.08, 0.9, 3) * rng.uniform(0.4, 1) + 0.05)
    kind, side, u = rng.integers(3), (-1 if rng.random() < 0.5 else 1), rng.random(4)
    if kind == 0:
        centre = np.array([(low[0] + high[0]) / 2 + u[0] - 0.5, low[1] - 1.15 + 0.6 * u[1], 1.1])
        return [Surface(shapes.ellipsoid(centre, (2.2, 0.9, 0.3)), colour, 0.1, OCCLUDER, True)]  # type: ignore[arg-type]
    if kind == 1:
        centre = np.array([(high if side > 0 else low)[0] + side * (0.5 + 0.5 * u[0]), low[1] + 0.4 * u[1], 1.1])
        return [Surface(shapes.ellipsoid(centre, (0.75, 2.4, 0.3)), colour, 0.1, OCCLUDER, True)]  # type: ignore[arg-type]
    y = low[1] + (high[1] - low[1]) * u[:2]
    path = np.linspace([-2.3, y[0], 1.15], [2.3, y[1], 1.15], 9)
    path[:, 1] += 0.08 * np.sin(np.linspace(0, 5, 9) + 6 * u[2])
    bark = (0.3 + 0.15 * u[3], 0.24 + 0.1 * u[3], 0.14)
    return [Surface(shapes.tube(path, np.linspace(0.05, 0.03, 9), 9), bark, 0.1, OCCLUDER, True)]


def draw_cat(cat: Cat, size: int, camera: r.Camera | None = None, light: shapes.Light | None = None) -> Sample:
    """Draw one cat before plain grey.

    Args:
        cat: Which cat.
        size: Side of the picture in pixels.
        camera: Where it falls; None: the head in the middle.
        light: How it is lit; None: softly from above.

    Returns:
        As :meth:`CatScene.draw`.
    """
    light = light or shapes.Light(shadows=False)
    surfaces, points = build_cat(cat, light.direction)
    camera = camera or r.Camera(0.32, (0.5, 0.56), 9.0)
    return _finish(cat, surfaces, points, camera, light, np.full((size, size, 3), 0.4, F32))


def _finish(
    cat: Cat, surfaces: list[Surface], points: Array, camera: r.Camera, light: shapes.Light, backdrop: Array
) -> Sample:
    sample = shapes.picture(surfaces, camera, light, backdrop, points, REACH)
    parts = sample.pop("parts")
    sample["mask"] = sample["mask"] & (parts != OCCLUDER)
    flat = np.clip(camera.project(_solid(surfaces), backdrop.shape[0]), 0, backdrop.shape[0])
    sample["box"] = torch.from_numpy(np.concatenate([flat.min(0), flat.max(0)]).astype(F32))
    sample["yaw"] = float(cat.turn[0])
    return sample


def _solid(surfaces: list[Surface]) -> Array:
    """Points ``(N, 3)`` of skull and ears, without fur and whiskers."""
    return np.concatenate([s.points.reshape(-1, 3) for s in surfaces[:5]])


class CatScene:
    """The scene ``cats`` (see :mod:`ulm.datasets.procedural`)."""

    name = "cats"
    info = Info(
        name="procedural:cats",
        landmark_names=LANDMARK_NAMES,
        flip_pairs=FLIP_PAIRS,
        skeleton=SKELETON,
        normaliser="points",
        normaliser_points=((0,), (1,)),
        licence="CC0 (drawn by ulm)",
        citation="Drawn by ulm; the nine points are those of Zhang, Sun and Tang, Cat Head Detection (ECCV 2008).",
        subsets=(("cat-7", SEVEN),),
    )

    def __init__(self, scene: str = "cats"):
        self.name = scene

    def draw(self, rng: np.random.Generator, size: int) -> Sample:
        """Draw one cat; the same generator gives the same scene at every size.

        Returns:
            ``image``, ``landmarks`` (eyes: middle of the opening; mouth: where the upper lip meets below the nose),
            ``visible`` (in the picture, and hidden neither by the cat nor by something in front), ``box`` of head and
            ears, ``mask`` of the whole cat, and the head's ``yaw``.
        """
        cat, light = sample_cat(rng), shapes.sample_light(rng)
        surfaces, points = build_cat(cat, light.direction)
        distance = float(rng.uniform(3.0, 8.0))
        camera = shapes.frame(_solid(surfaces), rng, (0.5, 0.95), 0.07, distance)
        surfaces = surfaces + _occluder(rng, points)
        return _finish(cat, surfaces, points, camera, light, r.background(rng, size))
