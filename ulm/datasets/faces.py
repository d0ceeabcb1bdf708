"""Procedural faces: three-dimensional heads with the 68 landmarks of iBUG, drawn with numpy alone.

A head is a grid of points. Its base is a stack of tilted cross-sections (chin and throat at the front of the low ones,
the nape at their back), its features are smooth displacements, and brows, eyes, lips and nostrils are painted as
functions of the *base coordinates*: frontal millimetres with the eyes at y = 0, x to the image's right, y up and z to
the viewer. Landmarks are points of those same curves, lifted by the same displacements, so they are exact.

The jaw landmarks 1-17 are fixed points of the head (before the ear, down the ramus, along the jaw to the chin), not
points of the silhouette: at large yaw those of the far side are hidden, and ``visible`` says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from ulm.datasets import rendering as r
from ulm.datasets.base import Info, Sample
from ulm.datasets.rendering import Array, Camera, bump, smoothstep

F32 = np.float32
SUPERSAMPLING = 2

# ---------------------------------------------------------------------------------------------- annotation

LANDMARK_NAMES = tuple(f"ibug-{i:02d}" for i in range(1, 69))
FLIP_PAIRS = (
    *((i, 16 - i) for i in range(8)),
    *((17 + i, 26 - i) for i in range(5)),
    (31, 35), (32, 34),
    (36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46),
    (48, 54), (49, 53), (50, 52), (59, 55), (58, 56),
    (60, 64), (61, 63), (67, 65),
)  # fmt: skip
_CHAINS = (
    (*range(0, 17),), (*range(17, 22),), (*range(22, 27),), (*range(27, 31),), (*range(31, 36),),
    (*range(36, 42), 36), (*range(42, 48), 42), (*range(48, 60), 48), (*range(60, 68), 60),
)  # fmt: skip
SKELETON = tuple((a, b) for chain in _CHAINS for a, b in pairwise(chain))
MAFL_5 = (tuple(range(36, 42)), tuple(range(42, 48)), (30,), (48,), (54,))


# ---------------------------------------------------------------------------------------------- parameters


@dataclass(frozen=True)
class Shape:
    """Who it is: lengths in millimetres, factors about 1. Read :func:`sample_shape` for the ranges."""

    width: float = 1.0
    depth: float = 1.0
    lower: float = 1.0
    jaw: float = 1.0
    chin: float = 0.0
    chin_width: float = 1.0
    cheekbone: float = 4.0
    fullness: float = 0.0
    forehead: float = 0.0
    brow_ridge: float = 3.0
    eye_x: float = 32.0
    eye_half: float = 15.0
    eye_up: float = 6.4
    eye_down: float = 4.2
    eye_tilt: float = 1.0
    eye_depth: float = 6.0
    brow_y: float = 22.0
    brow_arch: float = 4.0
    brow_thick: float = 4.0
    brow_tilt: float = 0.0
    nose_length: float = 48.0
    nose_width: float = 17.0
    nose_bridge: float = 1.0
    nose_tip: float = 1.0
    nose_droop: float = 0.0
    mouth_y: float = -69.0
    mouth_half: float = 25.0
    lip_up: float = 6.0
    lip_down: float = 8.0
    ear: float = 1.0
    ear_out: float = 24.0
    neck: float = 1.0


@dataclass(frozen=True)
class Expression:
    """What the face does: ``gap`` between the lips and ``gaze`` in millimetres, the rest about 0 or 1."""

    gap: float = 0.0
    smile: float = 0.0
    eye_left: float = 1.0
    eye_right: float = 1.0
    brow_left: float = 0.0
    brow_right: float = 0.0
    frown: float = 0.0
    gaze: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Look:
    """Colours and what is worn. Colours are display RGB in [0, 1]."""

    skin: tuple[float, float, float] = (0.8, 0.6, 0.48)
    lip: tuple[float, float, float] = (0.7, 0.38, 0.35)
    iris: tuple[float, float, float] = (0.3, 0.2, 0.12)
    hair: tuple[float, float, float] = (0.18, 0.12, 0.08)
    brow: tuple[float, float, float] = (0.15, 0.1, 0.07)
    style: str = "short"
    volume: float = 9.0
    length: float = 120.0
    fringe: float = 0.0
    part: str = "radial"
    recede: float = 0.0
    beard: float = 0.0
    beard_shape: str = "none"
    glasses: str = "none"
    frame: tuple[float, float, float] = (0.1, 0.1, 0.1)
    frame_size: tuple[float, float, float] = (25.0, 19.0, 2.6)
    frame_radius: float = 1.5
    lens: tuple[float, float, float] = (0.1, 0.1, 0.12)
    cloth: tuple[float, float, float] = (0.3, 0.35, 0.5)
    cloth2: tuple[float, float, float] = (0.8, 0.8, 0.8)
    pattern: int = 0
    neckline: float = 0.0
    age: float = 0.2
    freckles: float = 0.0
    blush: float = 0.3
    shadow: float = 0.0
    gloss: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Light:
    """A key light (azimuth and elevation in degrees), its strength and colour, and light from all around."""

    azimuth: float = -30.0
    elevation: float = 35.0
    key: float = 1.0
    colour: tuple[float, float, float] = (1.0, 0.97, 0.92)
    ambient: float = 0.45
    rim: float = 0.0
    exposure: float = 1.0


@dataclass(frozen=True)
class Pose:
    """Angles in degrees (see :func:`ulm.datasets.rendering.rotation`); ``body`` is the yaw of the shoulders."""

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    body: float = 0.0


@dataclass(frozen=True)
class Face:
    """Everything about one face except where the camera stands."""

    shape: Shape = field(default_factory=Shape)
    expression: Expression = field(default_factory=Expression)
    look: Look = field(default_factory=Look)
    light: Light = field(default_factory=Light)


def _clipped(rng: np.random.Generator, mean: float, spread: float, limit: float = 2.2) -> float:
    return float(mean + spread * np.clip(rng.normal(), -limit, limit))


def _colour(rng: np.random.Generator, stops: list[tuple[float, float, float]], jitter: float = 0.03) -> Any:
    """A colour between two neighbours of a list, slightly changed."""
    at = rng.uniform(0, len(stops) - 1)
    i = min(int(at), len(stops) - 2)
    base = np.array(stops[i]) + (at - i) * (np.array(stops[i + 1]) - np.array(stops[i]))
    return tuple(float(v) for v in np.clip(base + rng.normal(0, jitter, 3), 0.02, 0.98))


SKINS = [
    (0.93, 0.77, 0.69), (0.91, 0.73, 0.62), (0.87, 0.67, 0.54), (0.80, 0.59, 0.45),
    (0.70, 0.49, 0.36), (0.57, 0.38, 0.27), (0.45, 0.29, 0.20), (0.34, 0.22, 0.16),
]  # fmt: skip
HAIRS = [
    (0.07, 0.06, 0.06),
    (0.12, 0.08, 0.06),
    (0.24, 0.15, 0.09),
    (0.40, 0.26, 0.15),
    (0.62, 0.46, 0.27),
    (0.86, 0.72, 0.48),
]
IRISES = [(0.22, 0.13, 0.07), (0.30, 0.19, 0.09), (0.42, 0.33, 0.16), (0.33, 0.45, 0.30), (0.35, 0.50, 0.62)]


def sample_shape(rng: np.random.Generator, male: float, skin: float) -> Shape:
    """Draw a head shape.

    Args:
        rng: Source.
        male: -1 to 1, shifts jaw, brows, nose and lips.
        skin: 0 (light) to 1 (dark), shifts a few means; the spread within is far larger.
    """
    n = lambda mean, spread: _clipped(rng, mean, spread)  # noqa: E731
    return Shape(
        width=n(1.0, 0.04), depth=n(1.0, 0.03), lower=n(1.0 + 0.015 * male, 0.045), jaw=n(1.0 + 0.05 * male, 0.055),
        chin=n(0.8 * male, 2.2), chin_width=n(1.0 + 0.1 * male, 0.12), cheekbone=n(4.2 - 0.6 * male, 1.6),
        fullness=n(0.0, 2.6), forehead=n(-1.5 * male, 2.5), brow_ridge=n(2.8 + 1.6 * male, 1.2), eye_x=n(32.0, 1.5),
        eye_half=n(15.0 - 0.2 * male, 0.8), eye_up=n(6.5 - 0.5 * male, 1.0), eye_down=n(4.3 - 0.2 * male, 0.6),
        eye_tilt=n(1.0 - 0.3 * male, 1.1), eye_depth=n(6.0, 1.8), brow_y=n(22.5 - 1.6 * male, 1.9),
        brow_arch=n(4.0 - 1.0 * male, 1.5), brow_thick=n(4.2 + 1.0 * male, 1.0), brow_tilt=n(0.0, 1.3),
        nose_length=n(48.0 + 1.0 * male, 3.0), nose_width=n(16.6 + 0.8 * male + 2.0 * skin, 1.7),
        nose_bridge=n(1.0 - 0.15 * skin, 0.16), nose_tip=n(1.0, 0.11), nose_droop=n(0.0, 1.8),
        mouth_y=n(-69.0, 2.0), mouth_half=n(25.0 + 0.7 * male, 2.0), lip_up=n(5.8 - 0.7 * male + 1.2 * skin, 1.2),
        lip_down=n(7.8 - 0.6 * male + 1.4 * skin, 1.4), ear=n(1.0 + 0.03 * male, 0.08), ear_out=n(24.0, 7.0),
        neck=n(1.0 + 0.07 * male, 0.05),
    )  # fmt: skip


def sample_expression(rng: np.random.Generator) -> Expression:
    """Draw an expression: neutral, smiling, talking, laughing, surprised, frowning, at times a closed eye."""
    smile = float(np.clip(rng.normal(0.3, 0.42), -0.45, 1))
    gap = float(rng.choice([0.0, rng.uniform(0.5, 6), rng.uniform(6, 20)], p=[0.5, 0.35, 0.15]))
    raised = _clipped(rng, 0.1, 0.35)
    opened = float(np.clip(rng.normal(1.0 + 0.15 * max(raised, 0) - 0.2 * max(smile - 0.4, 0), 0.14), 0.45, 1.25))
    if rng.random() < 0.04:
        opened = float(rng.uniform(0.0, 0.3))
    gaze = (float(np.clip(rng.normal(0, 2.2), -5.5, 5.5)), float(np.clip(rng.normal(0, 0.9), -2, 2)))
    skew = rng.normal(0, 0.04, 2)
    return Expression(
        gap, smile, float(max(opened + skew[0], 0.0)), float(max(opened - skew[0], 0.0)),
        float(raised + 4 * skew[1]), float(raised - 4 * skew[1]), float(max(rng.normal(-0.2, 0.5), 0)), gaze,
    )  # fmt: skip


STYLES = ("bald", "buzz", "short", "quiff", "bob", "long", "bun", "curly", "afro", "beanie", "scarf")
_STYLE_ODDS = {
    "male": (0.09, 0.12, 0.38, 0.17, 0.02, 0.05, 0.02, 0.07, 0.02, 0.06, 0.0),
    "female": (0.015, 0.02, 0.10, 0.05, 0.22, 0.32, 0.10, 0.06, 0.04, 0.035, 0.04),
    "dark skin": (1, 1.5, 0.8, 0.6, 0.8, 0.7, 1.2, 2, 3, 1, 1),
}
_VOLUMES = {"curly": 20, "afro": 34, "quiff": 15, "beanie": 9, "scarf": 7}
_FRAMES = [(0.05, 0.05, 0.06), (0.25, 0.13, 0.07), (0.5, 0.1, 0.12), (0.1, 0.15, 0.4), (0.7, 0.6, 0.35)]
_CLOTHS = [
    (0.08, 0.08, 0.1),
    (0.2, 0.25, 0.45),
    (0.6, 0.15, 0.15),
    (0.9, 0.9, 0.88),
    (0.3, 0.5, 0.35),
    (0.85, 0.7, 0.3),
]
_PRINTS = [(0.9, 0.9, 0.9), (0.1, 0.1, 0.15), (0.7, 0.3, 0.3), (0.3, 0.5, 0.7)]


def _triple(colour: Array) -> Any:
    return tuple(float(v) for v in np.clip(colour, 0.02, 0.98))


def _skin_tone(rng: np.random.Generator, skin: float) -> Array:
    at = skin * (len(SKINS) - 1)
    i = min(int(at), len(SKINS) - 2)
    tone = np.array(SKINS[i]) + (at - i) * (np.array(SKINS[i + 1]) - np.array(SKINS[i]))
    return np.clip(tone + rng.normal(0, 0.012, 3), 0.08, 0.99)


def _hair_colours(rng: np.random.Generator, age: float, dark: float) -> tuple[Array, Array]:
    """Colours of hair and brows: natural, seldom red or dyed, grey with age."""
    hair = np.array(_colour(rng, HAIRS[: max(2, round(len(HAIRS) * dark))], 0.008))
    odd = rng.random()
    if odd < 0.05:
        hair = np.array([0.50, 0.20, 0.09]) + rng.normal(0, 0.02, 3)
    elif odd < 0.08:
        hair = np.array(_colour(rng, [(0.6, 0.2, 0.4), (0.2, 0.35, 0.6), (0.25, 0.5, 0.4)]))
    grey = float(np.clip((age - 0.55) * 3 + rng.normal(0, 0.2), 0, 1)) if age > 0.5 else 0.0
    brow = 0.75 * hair + 0.02
    hair = hair + grey * (np.array([0.72, 0.71, 0.70]) - hair)
    return hair, brow + 0.6 * grey * (np.array([0.5, 0.49, 0.47]) - brow)


def _sample_hair(rng: np.random.Generator, male: float, skin: float, age: float) -> dict[str, Any]:
    odds = np.array(_STYLE_ODDS["male" if male > 0 else "female"])
    if skin > 0.65:
        odds = odds * np.array(_STYLE_ODDS["dark skin"])
    style = str(rng.choice(STYLES, p=odds / odds.sum()))
    fringed = style in ("short", "bob", "long", "curly") and rng.random() < 0.4
    return {
        "style": style,
        "volume": float(_VOLUMES.get(style, 10) * rng.uniform(0.7, 1.3)),
        "length": float(rng.uniform(20, 60) if style == "bob" else rng.uniform(70, 190)),
        "fringe": float(rng.uniform(8, 34)) if fringed else 0.0,
        "part": str(rng.choice(["radial", "side", "back"])),
        "recede": float(max(rng.normal(0, 5), -4) + 14 * age * (male > 0) * rng.random()),
    }


def _sample_beard(rng: np.random.Generator, male: float) -> dict[str, Any]:
    if male <= 0 or rng.random() > 0.45:
        return {}
    shape = str(rng.choice(["full", "moustache", "goatee", "stubble"], p=[0.4, 0.15, 0.2, 0.25]))
    return {"beard": float(rng.uniform(0.25, 1)), "beard_shape": shape}


def _sample_glasses(rng: np.random.Generator) -> dict[str, Any]:
    metal, half = rng.random() < 0.4, rng.uniform(21.5, 27.5)
    return {
        "glasses": str(rng.choice(["none", "clear", "sun"], p=[0.8, 0.155, 0.045])),
        "frame": (0.6, 0.58, 0.55) if metal else _colour(rng, _FRAMES),
        "frame_size": (float(half), float(half * rng.uniform(0.66, 0.95)), float(rng.uniform(2, 4.5))),
        "frame_radius": float(rng.uniform(0.8, 1.1) if metal else rng.uniform(1.3, 2.4)),
        "lens": _colour(rng, _FRAMES),
    }


def sample_look(rng: np.random.Generator, male: float, skin: float) -> Look:
    """Draw colours, hair, beard, glasses and clothes.

    Args:
        rng: Source.
        male: -1 to 1, shifts the odds of hair styles, beards and make-up.
        skin: 0 (light) to 1 (dark), sets the tone and the range of hair and eye colours.
    """
    tone, age = _skin_tone(rng, skin), float(rng.beta(1.3, 2.0))
    dark = 0.35 + 0.65 * (1 - skin) ** 0.7
    hair, brow = _hair_colours(rng, age, dark)
    lip = np.array([0.41, 0.23, 0.22]) + tone * np.array([0.41, 0.25, 0.25])
    lip = lip * (1 - 0.35 * skin)
    if male < 0 and rng.random() < 0.4:
        lip = np.array(_colour(rng, [(0.72, 0.12, 0.16), (0.80, 0.32, 0.38), (0.55, 0.15, 0.25)])) * (1 - 0.2 * skin)
    return Look(
        skin=_triple(tone),
        lip=_triple(lip),
        iris=_colour(rng, IRISES[: max(2, round(len(IRISES) * dark))], 0.02),
        hair=_triple(hair),
        brow=_triple(brow),
        **_sample_hair(rng, male, skin, age),
        **_sample_beard(rng, male),
        **_sample_glasses(rng),
        cloth=_colour(rng, _CLOTHS, 0.06),
        cloth2=_colour(rng, _PRINTS, 0.06),
        pattern=int(rng.choice(5, p=[0.45, 0.15, 0.1, 0.15, 0.15])),
        neckline=float(rng.choice([0.0, rng.uniform(10, 60)])),
        age=age,
        freckles=float(max(rng.normal(-0.3, 0.5), 0)) * (1 - skin),
        blush=float(rng.uniform(0.1, 0.7)),
        shadow=float(rng.uniform(0.3, 1)) if male < 0 and rng.random() < 0.3 else 0.0,
        gloss=float(rng.uniform(0.5, 1.4)),
        seed=int(rng.integers(2**31)),
    )


def sample_light(rng: np.random.Generator) -> Light:
    """Draw a light: mostly from above and before, at times from the side, warm or cool."""
    warm = rng.normal(0, 0.07)
    return Light(
        azimuth=_clipped(rng, 0, 38), elevation=float(np.clip(rng.normal(30, 18), -12, 70)),
        key=float(rng.uniform(0.6, 1.15)), colour=(1 + float(warm), 1.0, 1 - float(warm)),
        ambient=float(rng.uniform(0.28, 0.6)), rim=float(max(rng.normal(0, 0.35), 0)),
        exposure=float(np.exp(_clipped(rng, 0, 0.16))),
    )  # fmt: skip


def sample_face(rng: np.random.Generator) -> Face:
    """Draw identity, expression, look and light."""
    male = float(np.clip(rng.choice([-1, 1]) * rng.normal(0.7, 0.3), -1, 1))
    skin = float(rng.beta(0.9, 1.1))
    return Face(sample_shape(rng, male, skin), sample_expression(rng), sample_look(rng, male, skin), sample_light(rng))


# ---------------------------------------------------------------------------------------------- geometry

# Cross-sections from the base of the neck to the crown. Columns: front y and z; side x, y and z; back y and z; how
# square the front is (exponent of a superellipse).
_SECTIONS = np.array(
    [
        (-205, 28, 64, -196, -34, -175, -92, 2.0),
        (-168, 28, 57, -148, -34, -142, -86, 2.0),
        (-140, 34, 52, -112, -28, -108, -84, 2.0),
        (-126, 54, 51.5, -93, -14, -92, -85, 2.0),
        (-119.5, 77, 56, -81, 2, -80, -86, 2.0),
        (-113, 91, 56.5, -71, 9, -68, -88, 2.05),
        (-102, 97, 61, -57, 9, -56, -91, 2.1),
        (-88, 95, 64.5, -45, 8, -44, -94, 2.15),
        (-77, 97, 66.5, -34, 7, -33, -97, 2.15),
        (-68, 98.5, 68, -25, 6, -22, -99, 2.15),
        (-48, 97, 70, -11, 5, -6, -102, 2.2),
        (-25, 93, 71.5, 5, 4, 12, -104, 2.25),
        (0, 91, 73.5, 21, 2, 31, -104, 2.35),
        (22, 96, 75, 38, -2, 48, -101, 2.4),
        (48, 96, 74.5, 57, -6, 66, -94, 2.4),
        (75, 86, 69, 77, -9, 83, -81, 2.3),
        (95, 66, 57.5, 94, -11, 97, -62, 2.2),
        (107, 42, 40, 106, -12, 108, -40, 2.1),
        (113, 14, 21, 112.5, -12, 113, -24, 2.0),
        (114.5, -12, 0, 114.5, -12, 114.5, -12, 2.0),
    ],
    float,
)
CROWN = len(_SECTIONS) - 1
# Half-widths as seen from behind, where no jaw stands out from the neck.
_BACK = np.array([64, 57, 53.5, 54.5, 56.5, 58.5, 60.5, 63, 65, 67, *_SECTIONS[10:, 2]])


def _sections(shape: Shape, jaw_drop: float) -> Array:
    """The table of cross-sections of this head."""
    t = np.column_stack([_SECTIONS, _BACK])
    t[:6, 2] *= shape.neck
    t[:6, 8] *= shape.neck
    rows = np.arange(len(t))
    low = smoothstep(10, 6, rows) * smoothstep(1, 4, rows)
    t[:, 2] *= shape.width * (1 + (shape.jaw - 1) * low)
    t[:, 8] *= shape.width
    t[:, [1, 4, 6]] *= shape.depth
    below = np.minimum(t[:, 0], 0)
    t[:, 0] += (shape.lower - 1) * np.maximum(below, -115)
    t[:, 3] += (shape.lower - 1) * np.clip(t[:, 3], -80, 0) * 0.7
    t[:, 1] += shape.chin * np.interp(rows, [3, 5, 6, 8], [0, 1, 1, 0])
    t[:, 1] += shape.forehead * np.interp(rows, [13, 14.5, 16, 18], [0, 1, 1, 0])
    # The jaw turns about the ears: the chin falls and goes back a little.
    t[:, 0] -= jaw_drop * np.interp(rows, [2, 4, 7, 8, 9], [0, 0.9, 1, 0.9, 0.35])
    t[:, 1] -= 0.28 * jaw_drop * np.interp(rows, [2, 4, 7, 9], [0, 1, 0.8, 0])
    t[:, 3] -= 0.25 * jaw_drop * np.interp(rows, [2, 4, 7, 9], [0, 1, 0.6, 0])
    return t


def _surface(table: Array, row: Array, theta: Array) -> Array:
    """Base points ``(..., 3)`` at real rows of the table and angles (0: front, positive: the image's right)."""
    fy, fz, sx, sy, sz, by, bz, square, bx = r.spline(table, row)
    sine, cosine = np.sin(theta), np.cos(theta)
    front = cosine > 0
    power = np.where(front, square, 2.15)
    k = np.power(np.power(np.abs(sine), power) + np.power(np.abs(cosine), power), -1 / power)
    weight = cosine * cosine
    x = np.maximum(sx + (bx - sx) * smoothstep(0.15, -0.5, cosine), 0) * sine * k
    y = sy + np.where(front, fy - sy, by - sy) * weight
    z = sz + np.where(front, fz - sz, sz - bz) * cosine * k
    return np.stack(np.broadcast_arrays(x, y, z), -1)


def _slopes(table: Array, row: Array, theta: Array) -> tuple[Array, Array, Array]:
    """Base points ``(N, 3)`` and how they move with the row and with the angle."""
    step = 1e-4
    here = _surface(table, np.stack([row, row + step, row]), np.stack([theta, theta, theta + step]))
    return here[0], (here[1] - here[0]) / step, (here[2] - here[0]) / step


@lru_cache(maxsize=1)
def _lattice() -> tuple[Array, Array, slice, slice]:
    """Rows and angles of the head's grid, dense in the face, and the block of the grid that holds the face."""
    rows = np.concatenate(
        [
            np.linspace(0, 3.4, 7)[:-1],
            np.linspace(3.4, 5.2, 9)[:-1],
            np.linspace(5.2, 13.6, 68)[:-1],
            np.linspace(13.6, CROWN, 17),
        ]
    )
    front = np.radians(np.linspace(0, 82, 48))
    side = np.radians(np.linspace(82, 180, 15))[1:]
    half = np.concatenate([front, side])
    theta = np.concatenate([-half[:0:-1], half])
    block = slice(int(np.searchsorted(rows, 3.4)), int(np.searchsorted(rows, 15.5)))
    return rows, theta, block, slice(len(side), len(theta) - len(side))


class Curves:
    """The feature curves of one face, in base coordinates; painting, displacement and landmarks all read them."""

    def __init__(self, shape: Shape, expression: Expression):
        s, e = shape, expression
        self.shape, self.expression = s, e
        self.gap_up, self.gap_down = 0.22 * e.gap, 0.78 * e.gap
        self.jaw_drop = 0.85 * self.gap_down
        self.nose_y = -s.nose_length
        self.mouth_y = s.mouth_y * s.lower - 0.35 * (s.nose_length - 48)
        self.mouth_half = s.mouth_half * (1 + 0.17 * max(e.smile, 0) - 0.012 * max(e.gap - 6, 0))
        self.table = _sections(s, self.jaw_drop)
        self.tip = (0.0, self.nose_y + 11.0 - s.nose_droop)

    def lids(self, u: Array, right: bool) -> tuple[Array, Array]:
        """Upper and lower lid at ``u`` in [-1, 1], from the inner corner to the outer one."""
        s = self.shape
        opened = self.expression.eye_right if right else self.expression.eye_left
        arc = np.power(np.clip(1 - u * u, 0, 1), 0.8)
        line = s.eye_tilt * u
        low = line - s.eye_down * arc * (1 + 0.18 * u) * (1 - 0.18 * max(self.expression.smile, 0))
        high = line + s.eye_up * arc * (1 - 0.14 * u)
        return low + (high - low) * opened, low

    def brow(self, t: Array, right: bool) -> tuple[Array, Array, Array]:
        """Centre |x|, y and half-thickness of a brow at ``t`` in [0, 1], from its inner to its outer end."""
        s, e = self.shape, self.expression
        lift = 4.5 * (e.brow_right if right else e.brow_left)
        x = s.eye_x + (t - 0.46) * 37.0 - 2.0 * e.frown * (1 - t)
        y = s.brow_y - 2.5 + lift + s.brow_arch * np.sin(np.pi * np.clip(t, 0, 1) ** 1.35) + s.brow_tilt * (t - 0.5)
        y = y - 3.0 * np.maximum(t - 0.62, 0) ** 2 * 9 + e.frown * (-4.0 * (1 - t) ** 2)
        thick = s.brow_thick * np.clip(0.62 + 1.1 * t - 1.55 * t * t, 0.15, 1)
        return x, y, thick

    def lips(self, u: Array) -> tuple[Array, Array, Array, Array]:
        """Outer upper, inner upper, inner lower and outer lower lip at ``u`` in [-1, 1] along the mouth's width."""
        s, e = self.shape, self.expression
        a = np.abs(u)
        line = self.mouth_y + (5.0 * e.smile) * a**1.8 - 0.5 * e.smile
        inside = np.clip(1 - (a / 0.88) ** 2, 0, 1)
        swell = np.clip(1 - a, 0, 1)
        high_in, low_in = line + self.gap_up * inside**0.8, line - self.gap_down * inside**0.7
        bow = (1 - a**1.7) * (1 - 0.22 * np.exp(-((u / 0.13) ** 2)))
        thin = 1 - 0.25 * max(e.smile, 0)
        high = line + self.gap_up * (1 - a * a) + s.lip_up * thin * bow
        low = line - self.gap_down * (1 - a * a) ** 0.8 - s.lip_down * thin * (1 - a**2.3) * (0.9 + 0.1 * swell)
        return high, high_in, low_in, low

    def displace(self, x: Array, y: Array, z: Array) -> Array:
        """Displacement ``(..., 3)`` of base points of the front of the head."""
        s, e = self.shape, self.expression
        a = np.abs(x)
        facing = smoothstep(8, 40, z)
        out = s.cheekbone * bump((a - 47) / 19, (y + 20) / 17)
        out += (s.fullness + 1.0) * bump((a - 44) / 20, (y + 52) / 22) - 2.0 * bump((a - 62) / 14, (y - 24) / 18)
        out += s.brow_ridge * bump((a - 24) / 22, (y - 17) / 9)
        out += 2.6 * max(e.smile, 0) * bump((a - 42) / 14, (y + 36) / 13)
        dz = 4.0 * bump(x / 30, (y - self.mouth_y) / 20)
        chin_y = -101 * s.lower - self.jaw_drop
        dz += (4.5 + s.chin) * bump(x / (17 * s.chin_width), (y - chin_y) / 10)
        dz -= 3.0 * bump(x / 19, (y - (chin_y + 15)) / 5)
        dz -= (
            1.6
            * bump(
                (a - (s.nose_width + 3 + (a > 0) * 0.55 * np.maximum(self.nose_y - y, 0))) / 4.0,
                (y - self.nose_y + 6) / 15,
            )
            * (1 + 1.2 * max(e.smile, 0))
        )
        dz -= s.eye_depth * bump((a - 30) / 19, (y - 3) / 13)
        dz += self._nose(x, a, y)
        dz = self._mouth(x, a, y, dz)
        dz = self._eyes(x, a, y, z, dz)
        tilt = x / 78.0
        return np.stack([out * tilt * 0.8 * facing, 0.0 * out, (dz + out * (1 - 0.5 * tilt * tilt)) * facing], -1)

    def _nose(self, x: Array, a: Array, y: Array) -> Array:
        s = self.shape
        bridge, tip = s.nose_bridge, s.nose_tip
        # The nose's underside rises to the sides of its tip.
        below = y - 0.016 * np.minimum(a, 16) ** 2 * smoothstep(self.nose_y + 24, self.nose_y + 8, y)
        profile = np.array(
            [
                (0.0, 9.0),
                (4.0 * bridge, 8.5),
                (6.5 * bridge, 7.4),
                (10.5 * bridge + 0.5, 7.4),
                (14.0 * bridge + 1.5 * tip, 7.9),
                (12.5 * bridge + 6.5 * tip, 8.6),
                (8.0 * bridge + 15.0 * tip, 9.6),
                (24.5 * tip, 10.4),
                (19.5 * tip, 10.4),
                (4.0, 10.0),
                (0.0, 10.0),
                (0.0, 10.0),
            ]
        )
        # Rows of the profile from above the nasion (+16 mm) to just below the nose's base.
        share = (16.0 - below) / (16.0 - self.nose_y)
        at = 9.0 * share + 0.42 * np.clip(share, 0, 1) ** 6
        height, half = r.spline(profile, np.clip(at, 0, 11))
        half = half * (0.75 + 0.25 * s.nose_width / 17)
        ridge = height * np.exp(-((a / half) ** 2))
        wing_x, wing_y = s.nose_width * 0.66, self.nose_y + 7.5
        wing = 10.0 * bump((a - wing_x) / 5.4, (y - wing_y) / 5.6)
        groove = -2.2 * bump((np.sqrt((a - wing_x) ** 2 + (y - wing_y) ** 2) - 8.6) / 2.2) * (a > wing_x)
        hole = -2.5 * bump((a - 0.42 * s.nose_width) / 3.6, (y - self.nose_y - 2.2) / 2.4)
        philtrum = -1.2 * bump(x / 3.0, (y - 0.5 * (self.nose_y + self.mouth_y + self.shape.lip_up)) / 6)
        return ridge + wing + groove + hole + philtrum

    def _mouth(self, x: Array, a: Array, y: Array, dz: Array) -> Array:
        near = (a < self.mouth_half + 4) & (np.abs(y - self.mouth_y + 5) < 36)
        x, y = x[near], y[near]
        u = np.clip(x / self.mouth_half, -1, 1)
        high, high_in, low_in, low = self.lips(u)
        edge = smoothstep(1.06, 0.85, np.abs(x) / self.mouth_half)
        up = np.clip((y - high_in) / np.maximum(high - high_in, 0.6), -1, 2.2)
        down = np.clip((low_in - y) / np.maximum(low_in - low, 0.6), -1, 2.2)
        swell = 4.4 * bump((up - 0.42) / 0.62) + 5.0 * bump((down - 0.48) / 0.62)
        hollow = smoothstep(0.0, 3.0, np.minimum(high_in - y, y - low_in)) * 9.0
        crease = 2.0 * bump((y - 0.5 * (high_in + low_in)) / 1.5) * (self.expression.gap < 2)
        corner = 1.6 * bump((np.abs(x) - self.mouth_half) / 3.0, (y - high_in) / 4)
        dz = dz.copy()
        dz[near] += (swell - hollow - crease) * edge - corner
        return dz

    def _eyes(self, x: Array, a: Array, y: Array, z: Array, dz: Array) -> Array:
        s = self.shape
        near = (np.abs(a - s.eye_x) < 26) & (np.abs(y) < 17)
        x, a, y, z = x[near], a[near], y[near], z[near]
        dx = a - s.eye_x
        # The eyeball, a little flatter than a ball, sits behind the plane of brow and cheek.
        ball = self._eye_depth() - (dx * dx + y * y) / 29.0 - 0.17 * dx
        u = dx / s.eye_half
        upper, lower = self.lids(u, False)
        upper2, lower2 = self.lids(u, True)
        upper, lower = np.where(x > 0, upper2, upper), np.where(x > 0, lower2, lower)
        inside = smoothstep(-0.9, 0.9, np.minimum(upper - y, y - lower)) * (np.abs(u) < 1.02)
        lid = 1.7 + 0.7 * bump((y - upper - 1.2) / 1.6) * (np.abs(u) < 1.15)
        weight = np.exp(-((np.square(dx / 18.5) + np.square((y - 0.5) / 12.0)) ** 2))
        dz = dz.copy()
        dz[near] += weight * (ball + lid - inside * 1.9 - z - dz[near])
        return dz

    def _eye_depth(self) -> float:
        return 85.5 * self.shape.depth - 0.75 * self.shape.eye_depth

    def find(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Row and angle of the front of the head at base coordinates, by Newton's method."""
        row = np.interp(y, self.table[3:, 0], np.arange(3.0, len(self.table)))
        theta = np.arcsin(np.clip(x / 74.0, -0.95, 0.95))
        for _ in range(7):
            here, down, across = _slopes(self.table, row, theta)
            ex, ey = x - here[:, 0], y - here[:, 1]
            det = down[:, 0] * across[:, 1] - across[:, 0] * down[:, 1]
            det = np.where(np.abs(det) < 1e-3, 1e-3, det)
            row = np.clip(row + np.clip((ex * across[:, 1] - ey * across[:, 0]) / det, -1.5, 1.5), 3.2, 16)
            theta = np.clip(theta + np.clip((ey * down[:, 0] - ex * down[:, 1]) / det, -0.4, 0.4), -1.5, 1.5)
        return row, theta

    def landmarks(self) -> tuple[Array, Array]:
        """The 68 landmarks, float64 ``(68, 3)``, millimetres in the head's frame, and normals of the base there."""
        s = self.shape
        half = np.linspace(0, 1, 9)
        row = np.interp(half, [0, 0.25, 0.5, 0.75, 1], [11.6, 8.8, 5.9, 5.05, 5.0])
        angle = np.radians(np.interp(half, [0, 0.25, 0.5, 0.75, 1], [85, 83, 76, 47, 0]))
        row, angle = np.concatenate([row, row[-2::-1]]), np.concatenate([-angle, angle[-2::-1]])
        points: list[tuple[float, float]] = []
        t = np.linspace(0.97, 0.03, 5)
        x, y, _ = self.brow(t, False)
        points += list(zip(-x, y, strict=True))
        x, y, _ = self.brow(t[::-1], True)
        points += list(zip(x, y, strict=True))
        points += [(0.0, v) for v in np.linspace(2.0, self.tip[1], 4)]
        wing = s.nose_width * 0.86
        points += [(-wing, self.nose_y + 4), (-0.45 * s.nose_width, self.nose_y + 0.8), (0.0, self.nose_y),
                   (0.45 * s.nose_width, self.nose_y + 0.8), (wing, self.nose_y + 4)]  # fmt: skip
        outer = np.array([1.0, 0.36, -0.36, -1.0, -0.36, 0.36])
        for right in (False, True):
            u = -outer if right else outer
            upper, lower = self.lids(u, right)
            v = np.where([True, True, True, True, False, False], upper, lower)
            ex = s.eye_x + u * s.eye_half
            points += list(zip(ex if right else -ex, v, strict=True))
        u = np.array([-1, -0.6, -0.22, 0, 0.22, 0.6, 1, 0.6, 0.25, 0, -0.25, -0.6])
        high, _, _, low = self.lips(u)
        points += list(zip(u * self.mouth_half, np.where(np.arange(12) < 7, high, low), strict=True))
        u = np.array([-0.86, -0.4, 0, 0.4, 0.86, 0.4, 0, -0.4])
        _, high, low, _ = self.lips(u)
        points += list(zip(u * self.mouth_half, np.where(np.arange(8) < 5, high, low), strict=True))
        flat = np.array(points, float)
        found = self.find(flat[:, 0], flat[:, 1])
        row, angle = np.concatenate([row, found[0]]), np.concatenate([angle, found[1]])
        base, down, across = _slopes(self.table, row, angle)
        return base + self.displace(*base.T), r.unit(r.cross(across, down))


# ---------------------------------------------------------------------------------------------- parts

HEAD, EAR, HAIR, BODY, FRAME = range(5)
_PIVOT = np.array([0.0, -70.0, -25.0])


@dataclass
class Part:
    """A grid of points ``(R, C, 3)`` in the head's frame, what it is, and how it hangs between head and body.

    ``u`` and ``v`` are read when it is painted; ``bind`` is 1 where a point follows the head, 0 where the body.
    """

    kind: int
    points: Array
    base: Array
    u: Array
    v: Array
    bind: Array
    wrap: bool = False
    two_sided: bool = False


def _part(
    kind: int,
    points: Array,
    u: float | Array,
    v: float | Array,
    bind: float | Array = 1.0,
    base: Array | None = None,
    **flags: bool,
) -> Part:
    shape = points.shape[:2]
    u, v, bind = (np.broadcast_to(a, shape) for a in (u, v, np.asarray(bind, float)))
    return Part(kind, points, points if base is None else base, u, v, bind, **flags)


def _head(curves: Curves, look: Look) -> Part:
    rows, theta, face_rows, face_columns = _lattice()
    base = _surface(curves.table, rows[:, None], theta[None, :])
    points = base.copy()
    block = base[face_rows, face_columns]
    points[face_rows, face_columns] += curves.displace(block[..., 0], block[..., 1], block[..., 2])
    if look.beard_shape == "full" and look.beard > 0.5:
        normal = r.grid_normals(base[face_rows, face_columns])
        cover = _beard(curves, look, block[..., 0], block[..., 1], block[..., 2], rows[face_rows, None])
        points[face_rows, face_columns] += normal * (cover * 6.0 * (look.beard - 0.4))[..., None]
    bind = smoothstep(0.2, 3.6, rows)[:, None]
    return _part(HEAD, points, theta[None, :], rows[:, None], bind, base, wrap=True)


def _ear(curves: Curves, side: int) -> Part:
    s = curves.shape
    radius, phi = np.linspace(0.02, 1, 12)[:, None], np.linspace(0, 2 * np.pi, 30)[None, :]
    c, d = np.cos(phi), np.sin(phi)
    narrow = 1 + 0.2 * d - 0.12 * np.maximum(-d, 0)
    a, b = radius * c * 0.5 * narrow, radius * d * 0.5
    back = smoothstep(-0.75, 0.1, c + 0.75 * np.maximum(d, 0))
    height = 5.5 * bump((radius - 0.9) / 0.11) * back - 7.0 * bump((a + 0.10) / 0.2, (b + 0.04) / 0.24)
    height = (
        height
        + 3.5 * bump((radius - 0.55) / 0.13) * smoothstep(-0.2, 0.5, c)
        + 3 * bump((a + 0.40) / 0.09, (b + 0.06) / 0.1)
    )
    height = height - 7 * smoothstep(0.93, 1, radius) * (0.4 + back) + 2.0 * bump(a / 0.2, (b + 0.42) / 0.12)
    # The plane is bent: its upper part stands out, both ends lean to the head.
    height = height - 16 * b * b + 6 * b
    swing = np.radians(s.ear_out)
    lean = np.radians(12)
    # Local axes: backwards and outwards, upwards and leaning back, out of the ear's plane.
    backward = np.array([np.sin(swing), 0, -np.cos(swing)])
    upward = r.unit(np.array([0.05, np.cos(lean), -np.sin(lean)]))
    outward = r.unit(r.cross(upward, backward))
    outward = outward * np.sign(outward[0])
    root = _surface(curves.table, np.array([10.4]), np.array([np.radians(91)]))[0] + np.array([1.0, 0, 0])
    middle = root + backward * 14 * s.ear
    points = middle + s.ear * (
        (a * 35)[..., None] * backward
        + (b * 63)[..., None] * upward
        + (np.broadcast_to(height, a.shape))[..., None] * outward
    )
    points = points * np.array([side, 1, 1])
    return _part(EAR, points, height, b, two_sided=True)


def _body(curves: Curves, look: Look) -> Part:
    k = curves.shape.neck * curves.shape.width
    table = np.array(
        [
            (-186 - look.neckline, 34 + 0.45 * look.neckline, 62 * k, -158, -34, -148, -92, 2.0),
            (-192 - look.neckline, 42 + 0.45 * look.neckline, 72 * k, -166, -34, -154, -98, 2.0),
            (-206 - look.neckline, 50 + 0.4 * look.neckline, 108, -180, -36, -168, -106, 2.1),
            (-226 - 0.8 * look.neckline, 62 + 0.3 * look.neckline, 158, -198, -38, -190, -114, 2.2),
            (-264, 82, 206, -234, -38, -240, -122, 2.3),
            (-350, 104, 240, -330, -36, -340, -126, 2.3),
            (-1100, 112, 250, -1100, -36, -1100, -120, 2.3),
        ],
        float,
    )
    table = np.column_stack([table, table[:, 2]])
    rows = np.linspace(0, 6, 22)[:, None]
    theta = np.linspace(-np.pi, np.pi, 49)[None, :]
    points = _surface(table, rows, theta)
    # Rows must run upwards for the outside to be the front.
    return _part(BODY, points[::-1], theta, rows[::-1], 0.12 * smoothstep(2, 0, rows[::-1]), two_sided=True)


def _tube(path: Array, radius: float, closed: bool) -> Array:
    """A pipe of six sides about a polyline ``(N, 3)``: a grid ``(N, 7, 3)``."""
    step = np.roll(path, -1, 0) - np.roll(path, 1, 0) if closed else np.gradient(path, axis=0)
    along = r.unit(step)
    across = r.unit(r.cross(along, np.array([0.31, 0.23, 0.92])))
    other = r.cross(along, across)
    turn = np.linspace(0, 2 * np.pi, 7)
    return path[:, None] + radius * (np.cos(turn)[:, None] * across[:, None] + np.sin(turn)[:, None] * other[:, None])


def _glasses(curves: Curves, look: Look) -> tuple[list[Part], list[Part]]:
    """Frames (solid) and lenses (blended)."""
    s = curves.shape
    half, tall, square = look.frame_size
    bend = lambda x: 103.0 + 5 * (s.nose_bridge - 1) - 0.0042 * x * x  # noqa: E731
    turn = np.linspace(0, 2 * np.pi, 27)
    c, d = np.cos(turn), np.sin(turn)
    k = np.power(np.abs(c) ** square + np.abs(d) ** square, -1 / square)
    gap = max(s.eye_x + 1.0, half + 7)
    frames, lenses = [], []
    for side in (-1, 1):
        x, y = gap + half * c * k, -3 + tall * d * k - 0.06 * half * (1 - c)
        rim = np.stack([side * x, y, bend(x)], 1)
        frames.append(_tube(rim, look.frame_radius, False))
        spokes = np.array([0.02, 0.35, 0.7, 1.0])[:, None, None]
        middle = rim.mean(0)
        lens = middle + spokes * (rim[None] - middle) + (1 - spokes**2) * np.array([0, 0, 2.0])
        lenses.append(_part(FRAME, lens, spokes[..., 0], (lens[..., 1] + 3) / tall, two_sided=True))
        hinge = np.array([side * (gap + half), 4.0, bend(gap + half)])
        tip = np.array([side * (75 * s.width), 15.0, -8.0])
        t = np.linspace(0, 1, 8)[:, None]
        arm = hinge + t * (tip - hinge) + np.array([side, 0, 0]) * (7 * np.sin(np.pi * t) * 0.6)
        frames.append(_tube(arm, look.frame_radius * 1.1, False))
    x = np.linspace(-(gap - half), gap - half, 7)
    arch = 1.5 + 3.0 * (1 - (x / (gap - half)) ** 2)
    frames.append(_tube(np.stack([x, arch, bend(x)], 1), look.frame_radius, False))
    return [_part(FRAME, p, 0.0, 0.0, two_sided=True) for p in frames], lenses


# Where hair ends, as a row of the table of sections, by |angle| in degrees.
_ANGLES = np.array([0, 25, 42, 55, 65, 73, 80, 92, 106, 118, 135, 180])
_ENDS = {
    "short": [14.75, 14.75, 14.5, 13.9, 13.0, 11.6, 11.6, 12.7, 12.5, 9.6, 7.6, 6.8],
    "cover": [14.75, 14.75, 14.5, 13.8, 12.9, 12.3, 12.0, 12.0, 12.0, 11.0, 10.0, 10.0],
    "curly": [14.75, 14.75, 14.4, 13.7, 12.8, 11.4, 11.0, 10.8, 10.0, 8.6, 7.0, 6.6],
    "beanie": [13.9, 13.85, 13.75, 13.5, 13.2, 12.9, 12.75, 12.4, 11.6, 11.0, 10.5, 10.2],
    "scarf": [14.8, 14.7, 14.3, 13.6, 12.6, 11.0, 9.6, 8.4, 7.0, 6.0, 5.0, 4.0],
}
_ENDS["bun"] = _ENDS["quiff"] = _ENDS["buzz"] = _ENDS["short"]
_ENDS["bob"] = _ENDS["long"] = _ENDS["cover"]
_ENDS["afro"] = _ENDS["curly"]


def _hairline(look: Look, theta: Array) -> Array:
    """The row of the table of sections at which the scalp's hair ends."""
    angle = np.degrees(np.abs(theta))
    end = np.interp(angle, _ANGLES, _ENDS.get(look.style, _ENDS["short"]))
    if look.style in ("beanie", "scarf"):
        return end
    return end + look.recede / 22 * np.exp(-(((angle - 30) / 26) ** 2))


def _hair(curves: Curves, look: Look) -> list[Part]:
    """The hair, one strand a column of the grid, from the crown to its end; a bun is a ball of its own."""
    style = look.style
    if style in ("bald", "buzz"):
        return []
    rng = np.random.default_rng(look.seed)
    columns, lean = 109, float(rng.uniform(-1, 1))
    theta = np.linspace(-np.pi, np.pi, columns)
    rough = rng.normal(0, 1, columns - 1)
    wobble = 0.5 * rough + 0.35 * np.roll(rough, 1) + 0.35 * np.roll(rough, -1)
    wobble = np.append(wobble, wobble[0])
    falls = style in ("bob", "long")
    # Hair that falls frames the face: more of it on the side to which it is combed.
    frame = rng.uniform(44, 66) + 8 * lean * np.sign(theta)
    falling = smoothstep(frame, frame + 14, np.degrees(np.abs(theta))) * float(falls)
    t = np.linspace(0, 1, 20)[:, None]
    points = _scalp(curves, look, rng, theta, t, wobble, lean, falling)
    u, v = np.broadcast_to(theta, points.shape[:2]), np.broadcast_to(t, points.shape[:2])
    if falls:
        hang = _hang(look, rng, points[-1], wobble, falling)
        points = np.concatenate([points, hang])
        u = np.concatenate([u, np.broadcast_to(theta, hang.shape[:2])])
        v = np.concatenate([v, np.broadcast_to(1 + _TAU, hang.shape[:2])])
    bind = 0.35 + 0.65 * smoothstep(-190, -70, points[..., 1])
    # Rows from the tips up to the crown, as the head's own.
    parts = [_part(HAIR, points[::-1], u[::-1], v[::-1], bind[::-1], wrap=True, two_sided=falls)]
    if style == "bun":
        lat, lon = np.linspace(-np.pi / 2, np.pi / 2, 14)[:, None], np.linspace(-np.pi, np.pi, 22)[None, :]
        ball = np.stack(np.broadcast_arrays(np.cos(lat) * np.sin(lon), np.sin(lat), np.cos(lat) * np.cos(lon)), -1)
        place = np.array([0, 118, -45]) if rng.random() < 0.5 else np.array([0, 62, -118])
        parts.append(_part(HAIR, place + ball * rng.uniform(24, 36), lon, lat, wrap=True))
    return parts


def _scalp(
    curves: Curves,
    look: Look,
    rng: np.random.Generator,
    theta: Array,
    t: Array,
    wobble: Array,
    lean: float,
    falling: Array,
) -> Array:
    """Strands over the skull at ``t`` in [0, 1] from the crown to the hairline, stood off by the hair's volume."""
    style, angle = look.style, np.degrees(np.abs(theta))
    end = _hairline(look, theta) + 0.07 * wobble * (style not in ("beanie", "scarf"))
    front = np.exp(-((angle / 52) ** 4))
    sweep = 1 + 0.7 * lean * np.degrees(theta) / 45
    end = end - front * np.clip(look.fringe * sweep, 0, 40) / 24 * (1 + 0.12 * wobble)
    row = CROWN - (CROWN - end) * t**0.85
    base = _surface(curves.table, row, theta[None, :])
    outward = r.unit(base - np.array([0, 12, -14]))
    volume, sharp = np.asarray(look.volume), np.asarray(_SHARP.get(style, 0.6))
    if style == "quiff":
        volume = volume * (0.55 + 0.75 * np.exp(-(((theta - 0.4 * lean) / 0.7) ** 2)) * t**0.7)
    elif style == "bun":
        volume = volume * 0.45
    elif style in ("curly", "afro"):
        grid = rng.normal(0, 1, (16, 16)).astype(F32)
        curls = r.value_noise(grid, (theta + np.pi) / (2 * np.pi) * 16 + 0 * row, 6.0 * t + 0 * row)
        volume = volume * (1 + (0.28 if style == "curly" else 0.1) * np.clip(curls, -1.5, 1.5))
    elif style in ("short", "bob", "long"):
        # Full above the forehead, close to the skin at the sides and the nape.
        sharp = 0.6 + 0.27 * np.exp(-((angle / 55) ** 4))
        volume = volume * (1 + 0.3 * lean * np.sin(theta))
    taper = 1 - smoothstep(sharp, 1.0, t)
    rest = front * 5.0 * (look.fringe > 0) + falling * look.volume * 0.9
    if style == "beanie":
        rest = np.full_like(theta, 3.5)
    # Ends without a fringe or a fall sink into the skin.
    offset = volume * taper + (1 - taper) * rest - 1.5 * smoothstep(0.9, 1.0, t) * (rest < 1)
    points = base + outward * offset[..., None]
    if style == "beanie":
        points[..., 1] += 12 * smoothstep(0.45, 0.0, t)
    return points


_SHARP = {"curly": 0.8, "afro": 0.82, "beanie": 0.93, "scarf": 0.9, "quiff": 0.88}
_TAU = np.linspace(0, 1, 11)[1:, None]


def _hang(look: Look, rng: np.random.Generator, start: Array, wobble: Array, falling: Array) -> Array:
    """Strands that fall from ``start`` ``(C, 3)``: a grid ``(10, C, 3)``."""
    long = look.style == "long"
    drop = look.length * falling * (1 + 0.03 * wobble) * _TAU
    wave = rng.uniform(0, 5) * np.sin(drop / rng.uniform(9, 22) + rng.uniform(0, 6))
    bulge = (5 if long else 9) * np.sin(np.pi * np.minimum(_TAU * 1.1, 1)) - (2 if long else 8) * _TAU**2
    radial = r.unit(start * np.array([1, 0, 1]))
    return start[None] + radial * ((bulge + wave) * falling)[..., None] - drop[..., None] * np.array([0, 1, 0])


def _beard(curves: Curves, look: Look, x: Array, y: Array, z: Array, row: Array) -> Array:
    """How much beard grows at base points in rows of the table of sections, 0 to 1."""
    a, s = np.abs(x), curves.shape
    mouth, half = curves.mouth_y, curves.mouth_half
    _, _, _, low = curves.lips(np.clip(x / half, -1, 1))
    moustache = (
        smoothstep(half + 6, half - 3, a)
        * smoothstep(mouth + 1, mouth + 4, y)
        * smoothstep(curves.nose_y + 0.5, curves.nose_y - 3.5, y + 0.12 * a)
        * (0.75 + 0.25 * smoothstep(1, 5, a))
    )
    # The upper border runs from the sideburn down to the corner of the mouth.
    border = np.interp(
        a, [0, half * 0.8, half + 5, half + 16, 58, 70], [mouth - 12, mouth - 6, mouth + 3, mouth + 10, -32, 20]
    )
    cheeks = smoothstep(border + 4, border - 5, y) * smoothstep(16, 30, z) * smoothstep(4.0, 4.8, row)
    chin = (
        bump(x / 21, (y + 100 * s.lower + curves.jaw_drop) / 15) + bump((a - half - 3) / 7, (y - mouth + 14) / 22) * 0.9
    )
    below = smoothstep(-7, -1, y - low) * (a < half)
    shape = look.beard_shape
    if shape == "moustache":
        return moustache
    if shape == "goatee":
        return np.clip(np.maximum(moustache, np.clip(1.4 * chin, 0, 1) * cheeks) * (1 - below), 0, 1)
    return np.clip(np.maximum(moustache, cheeks) * (1 - below), 0, 1)


# ---------------------------------------------------------------------------------------------- paint


@dataclass
class Paint:
    """Linear albedo ``(N, 3)``, strength of highlights ``(N,)`` and openness to the light around ``(N,)``."""

    albedo: Array
    gloss: Array
    open: Array


def _mix(albedo: Array, colour: Array, amount: Array) -> Array:
    return albedo + (colour - albedo) * amount[:, None]


def _paint_skin(face: Face, curves: Curves, base: Array, u: Array, v: Array, light: Array) -> Paint:
    """Skin, brows, eyes, lips, stubble of the head's grid at base points ``(N, 3)``; ``u`` angle, ``v`` row."""
    look = face.look
    rng = np.random.default_rng(look.seed + 1)
    grid = rng.normal(0, 1, (32, 32)).astype(F32)
    x, y, z = base.T
    tone = r.decode(look.skin)
    # Arc lengths, so that the mottling does not stretch on the head's sides.
    arc, up = u * 72, y
    mottle = 0.04 * r.value_noise(grid, arc / 7, up / 7) + 0.03 * r.value_noise(grid, arc / 2.1, up / 2.1)
    albedo = tone * (1 + mottle[:, None])
    gloss = np.full(len(x), 0.7 * look.gloss, F32)
    openness = 1 - 0.5 * smoothstep(5.0, 2.6, v) * smoothstep(-0.4, 0.6, np.cos(u))
    openness *= 1 - 0.35 * bump((np.abs(u) - 1.75) / 0.2, (v - 9.8) / 1.6)
    if look.style == "scarf":
        cloth = np.maximum(smoothstep(4.75, 4.55, v), smoothstep(1.28, 1.34, np.abs(u)))
        fold = 0.85 + 0.2 * np.sin(u * 9 + v * 2.5 + 2 * r.value_noise(grid, u * 2, v))
        albedo = _mix(albedo, r.decode(look.cloth2) * fold[:, None], cloth)
        gloss *= 1 - cloth
    elif look.style not in ("bald", "beanie"):
        line = _hairline(look, u) + 0.16 * r.line_noise(grid[0], u * 40)
        density = smoothstep(line - 0.25, line + 0.35, v) * (0.8 if look.style == "buzz" else 0.9)
        speckle = 0.75 + 0.25 * r.value_noise(grid, u * 60, v * 12)
        albedo = _mix(albedo, r.decode(look.hair), density * np.clip(speckle, 0, 1))
        gloss *= 1 - 0.7 * density
    front = np.flatnonzero((v > 3.3) & (v < 15.6) & (np.abs(u) < 1.44))
    sub = Paint(albedo[front], gloss[front], openness[front].astype(F32))
    _paint_face(face, curves, sub, x[front], y[front], z[front], v[front], grid, light)
    albedo[front], gloss[front], openness[front] = sub.albedo, sub.gloss, sub.open
    return Paint(albedo, gloss, openness)


def _paint_face(
    face: Face, curves: Curves, p: Paint, x: Array, y: Array, z: Array, v: Array, grid: Array, light: Array
) -> None:
    """Paint the front of the head, in place."""
    look, s, e = face.look, face.shape, face.expression
    a = np.abs(x)
    tone = r.decode(look.skin)
    red = (
        look.blush * bump((a - 40) / 15, (y + 30) / 13)
        + 0.45 * bump(x / 11, (y - curves.tip[1]) / 9)
        + 0.2 * bump(x / 16, (y + 102) / 9)
    )
    p.albedo *= 1 + red[:, None] * np.array([0.06, -0.17, -0.13], F32)
    p.gloss *= 1 + 0.7 * bump(x / 22, (y - 45) / 22) + 0.7 * bump(x / 7, (y + 25) / 22)
    # Hollows that little light reaches.
    corner = bump((a - 17) / 7, (y - 3) / 8)
    socket = bump((a - s.eye_x) / 17, (y - 9) / 5)
    bag = bump((a - s.eye_x + 3) / 12, (y + 10) / 3.0)
    nose = bump(x / 13, (y - curves.nose_y + 1) / 4.5)
    wing = (
        bump((np.sqrt((a - 0.66 * s.nose_width) ** 2 + (y - curves.nose_y - 7) ** 2) - 8.4) / 1.8)
        * (a > 0.7 * s.nose_width)
        * (y < curves.nose_y + 14)
    )
    _, _, _, low = curves.lips(np.clip(x / curves.mouth_half, -1, 1))
    chin = bump(x / 15, (y - low + 4) / 3.5)
    p.open *= 1 - 0.32 * corner - 0.22 * socket - (0.08 + 0.14 * look.age) * bag - 0.28 * nose - 0.3 * wing - 0.3 * chin
    fold_x = s.nose_width + 2 + 0.5 * np.maximum(curves.nose_y + 6 - y, 0)
    fold = (
        bump((a - fold_x) / 2.2)
        * smoothstep(curves.nose_y + 10, curves.nose_y, y)
        * smoothstep(curves.mouth_y - 10, curves.mouth_y, y)
    )
    p.open *= 1 - (0.08 + 0.3 * look.age + 0.28 * max(e.smile, 0)) * fold
    if look.age > 0.35:
        lines = np.clip(np.sin((y + 0.004 * x * x) * 0.75 + r.value_noise(grid, x / 14, y / 30)), 0.4, 1) - 0.4
        p.open *= 1 - 0.45 * (look.age - 0.35) * lines * bump(x / 32, (y - 50) / 15)
        feet = np.clip(np.cos(np.arctan2(y, a - s.eye_x - 6) * 9), 0, 1) * bump((a - s.eye_x - 21) / 5, y / 8)
        p.open *= 1 - 0.45 * (look.age - 0.2) * feet
    if look.freckles:
        spots = smoothstep(0.7, 1.4, r.value_noise(grid, x / 1.7, y / 1.7)) * bump(x / 45, (y + 22) / 16)
        p.albedo *= 1 - look.freckles * 0.6 * spots[:, None] * np.array([0.5, 0.8, 0.9], F32)
    if look.beard:
        _paint_beard(curves, look, p, x, y, z, v, grid)
    _paint_lips(face, curves, p, x, y, grid)
    hole = (
        bump((a - 0.42 * s.nose_width) / (0.2 * s.nose_width), (y - curves.nose_y - 1.8 - 0.12 * (a - 6)) / 1.7) ** 0.7
    )
    p.albedo *= 1 - 0.9 * np.clip(1.3 * hole, 0, 1)[:, None]
    for right in (False, True):
        _paint_brow(curves, look, p, x, y, grid, right)
        _paint_eye(face, curves, p, x, y, tone, light, right)


def _paint_beard(curves: Curves, look: Look, p: Paint, x: Array, y: Array, z: Array, v: Array, grid: Array) -> None:
    cover = _beard(curves, look, x, y, z, v).astype(F32)
    arc = 80 * np.arctan2(x, z)
    edge = r.value_noise(grid, arc / 4, y / 4)
    cover = np.clip(cover + 0.18 * edge * (cover > 0.05), 0, 1)
    hairs = 0.5 + 0.5 * np.clip(r.value_noise(grid, arc / 1.3 + 0.2 * y, y / 4.0), -1, 1)
    stubble = look.beard_shape == "stubble"
    density = look.beard * 0.42 if stubble else min(1.0, 1.25 * look.beard)
    colour = r.decode(look.brow)[None] * (0.7 + 0.6 * hairs[:, None])
    p.albedo[:] = _mix(p.albedo, colour, np.clip(cover * density * (0.75 + 0.4 * hairs), 0, 0.95))
    p.gloss *= 1 - 0.8 * cover * density


def _paint_brow(curves: Curves, look: Look, p: Paint, x: Array, y: Array, grid: Array, right: bool) -> None:
    s = curves.shape
    near = np.flatnonzero((x * (1 if right else -1) > 4) & (y > 2) & (y < 48))
    a, y = np.abs(x[near]), y[near]
    t = (a - s.eye_x) / 37.0 + 0.46 + (2.0 * curves.expression.frown / 37.0) * 0.6
    _, centre, thick = curves.brow(np.clip(t, -0.05, 1.05), right)
    inside = smoothstep(-0.04, 0.05, t) * smoothstep(1.03, 0.93, t)
    hairs = r.value_noise(grid, (a - 0.7 * (y - centre)) / 1.5, y / 7.0)
    d = np.abs(y - centre) / thick
    cover = smoothstep(1.25, 0.55, d + 0.2 * hairs) * inside * (0.72 + 0.25 * np.clip(hairs, -1, 1))
    p.albedo[near] = _mix(p.albedo[near], r.decode(look.brow), np.clip(cover, 0, 0.95))
    p.gloss[near] *= 1 - 0.8 * cover


def _paint_lips(face: Face, curves: Curves, p: Paint, x: Array, y: Array, grid: Array) -> None:
    near = np.flatnonzero((np.abs(x) < curves.mouth_half + 5) & (np.abs(y - curves.mouth_y + 6) < 36))
    if not len(near):
        return
    x, y, look = x[near], y[near], face.look
    u = x / curves.mouth_half
    high, high_in, low_in, low = curves.lips(np.clip(u, -1, 1))
    across = smoothstep(1.03, 0.97, np.abs(u))
    lips = smoothstep(-0.7, 0.7, high - y) * smoothstep(-0.7, 0.7, y - low) * across
    albedo, gloss, openness = p.albedo[near], p.gloss[near], p.open[near]
    streak = 1 + 0.07 * r.value_noise(grid, x / 1.2, y / 6)
    upper = 1 - 0.14 * (y > 0.5 * (high_in + low_in))
    albedo = _mix(albedo, r.decode(look.lip) * (streak * upper)[:, None], 0.9 * lips)
    gloss = gloss * (1 + 0.9 * lips)
    inside = smoothstep(-0.4, 0.5, high_in - y) * smoothstep(-0.4, 0.5, y - low_in) * smoothstep(0.9, 0.86, np.abs(u))
    inside = inside * smoothstep(0.3, 1.5, face.expression.gap)
    gap = np.maximum(high_in - low_in, 0.1)
    cavity = np.array([0.045, 0.012, 0.012], F32) * np.ones((len(x), 1), F32)
    tongue = bump(x / 13, (y - low_in + 1) / 5) * smoothstep(5, 10, gap)
    cavity = _mix(cavity, np.array([0.35, 0.10, 0.10], F32), 0.8 * tongue)
    teeth = smoothstep(-7.5, -6.5, y - high_in - 0.0) * smoothstep(0.86, 0.6, np.abs(u)) * smoothstep(0.6, 2.5, gap)
    teeth = teeth * (0.25 + 0.75 * float(np.clip(face.expression.smile * 2, 0, 1)))
    lines = 1 - 0.22 * np.exp(-((np.abs((x + 100) % 7.6 - 3.8) / 0.5) ** 2))
    cavity = _mix(cavity, np.array([0.86, 0.82, 0.74], F32) * (lines * (1 - 0.45 * np.abs(u)))[:, None], teeth)
    albedo = _mix(albedo, cavity, inside)
    gloss = gloss * (1 - 0.7 * inside)
    seam = bump((y - 0.5 * (high_in + low_in)) / 0.95) * smoothstep(1.04, 0.9, np.abs(u)) * smoothstep(3.0, 0.5, gap)
    albedo = albedo * (1 - 0.72 * seam[:, None] * np.array([0.85, 1, 1], F32))
    openness = openness * (1 - 0.35 * bump((np.abs(u) - 1.0) * curves.mouth_half / 2.2, (y - high_in) / 2.2))
    p.albedo[near], p.gloss[near], p.open[near] = albedo, gloss, openness * (1 - 0.25 * inside)


def _paint_eye(
    face: Face, curves: Curves, p: Paint, x: Array, y: Array, tone: Array, light: Array, right: bool
) -> None:
    s, e, look = face.shape, face.expression, face.look
    side = 1 if right else -1
    near = np.flatnonzero((np.abs(x * side - s.eye_x) < 23) & (np.abs(y) < 17))
    if not len(near):
        return
    x, y = x[near], y[near]
    dx = x * side - s.eye_x
    u = dx / s.eye_half
    upper, lower = curves.lids(np.clip(u, -1, 1), right)
    albedo, gloss, openness = p.albedo[near], p.gloss[near], p.open[near]
    opened = e.eye_right if right else e.eye_left
    within = smoothstep(1.14, 0.98, np.abs(u))
    # Lid: make-up, the crease above it, the fold below.
    crease_y = upper + 3.4 + 1.5 * (1 - opened)
    crease = bump((y - crease_y) / 0.9) * smoothstep(1.25, 0.7, np.abs(u))
    openness = openness * (1 - 0.42 * crease)
    lid = smoothstep(upper - 0.5, upper + 0.5, y) * smoothstep(crease_y + 4, crease_y, y) * within
    albedo = _mix(albedo, r.decode(look.lens) * 0.5 + tone * 0.2, 0.6 * look.shadow * lid)
    openness = openness * (1 - 0.18 * bump((y - lower + 2.6) / 1.0) * within)
    eye = smoothstep(-0.55, 0.55, upper - y) * smoothstep(-0.55, 0.55, y - lower) * (np.abs(u) < 1)
    white = (
        np.array([0.80, 0.76, 0.73], F32) * (1 - 0.3 * np.abs(u) ** 3 - 0.42 * smoothstep(3.2, 0, upper - y))[:, None]
    )
    white = _mix(white, np.array([0.6, 0.25, 0.22], F32), 0.8 * smoothstep(-0.8, -0.97, u))
    gx, gy = x - side * s.eye_x - e.gaze[0], y - 0.6 - e.gaze[1]
    radius = np.sqrt(gx * gx + gy * gy)
    ray = 0.9 + 0.22 * np.sin(np.arctan2(gy, gx) * 17)
    iris = r.decode(look.iris)[None] * (ray * (1.35 - 0.75 * smoothstep(3.6, 6.2, radius)))[:, None]
    white = _mix(white, iris, smoothstep(6.9, 6.0, radius))
    white = _mix(white, np.array([0.006, 0.006, 0.007], F32), smoothstep(3.0, 2.3, radius))
    glint_x, glint_y = e.gaze[0] + 2.3 * light[0], 0.6 + e.gaze[1] + 2.0 * light[1] + 0.5
    glint = smoothstep(2.2, 1.0, np.sqrt((x - side * s.eye_x - glint_x) ** 2 + (y - glint_y) ** 2))
    white = white + 1.5 * glint[:, None]
    albedo = _mix(albedo, white, eye)
    gloss = gloss * (1 - 0.6 * eye)
    openness = openness + (1.0 - openness) * 0.6 * eye
    lash = (
        bump((y - upper - 0.1) / (0.75 + 0.45 * (look.shadow > 0)))
        * smoothstep(1.12, 0.98, u)
        * smoothstep(-1.03, -0.7, u)
    )
    albedo = albedo * (1 - 0.88 * lash[:, None])
    rim = bump((y - lower + 0.2) / 0.6) * smoothstep(1.05, 0.95, np.abs(u)) * smoothstep(-1.0, 0.6, u)
    albedo = albedo * (1 - 0.4 * rim[:, None])
    p.albedo[near], p.gloss[near], p.open[near] = albedo, gloss, openness


def _paint_hair(face: Face, base: Array, u: Array, v: Array) -> Paint:
    look = face.look
    rng = np.random.default_rng(look.seed + 2)
    x, y, z = base.T
    if look.style in ("beanie", "scarf"):
        colour = r.decode(look.cloth2)
        if look.style == "beanie":
            knit = 0.8 + 0.2 * np.sin(u * 60) * (0.6 + 0.4 * np.sin(v * 70))
            knit = knit * np.where(v > 0.8, 0.85, 1.0)
        else:
            knit = 0.9 + 0.14 * np.sin(u * 7 + v * 9)
        return Paint(colour[None] * knit[:, None], np.zeros(len(u), F32), np.ones(len(u), F32))
    table = rng.normal(0, 1, 512).astype(F32)
    along = {"radial": u * 24, "side": 0.32 * z + 0.1 * y + 40, "back": 0.32 * x + 40}[look.part]
    along = np.where(v > 1, u * 24, along) if look.style in ("bob", "long") else along
    contrast = 0.42
    strand = 0.6 * r.line_noise(table, along) + 0.4 * r.line_noise(table, along * 3.1 + v)
    if look.style in ("curly", "afro"):
        grid = rng.normal(0, 1, (32, 32)).astype(F32)
        contrast = 0.26
        strand = r.value_noise(grid, x / 6 + z / 9, y / 6) + 0.5 * r.value_noise(grid, x / 3, y / 3 + z / 3)
    albedo = r.decode(look.hair)[None] * np.clip(1 + contrast * strand, 0.3, 2.2)[:, None]
    openness = 0.75 + 0.25 * smoothstep(0, 0.3, v) - 0.25 * smoothstep(0.75, 1.0, v) * (v < 1.001)
    return Paint(albedo, np.clip(0.9 + 0.8 * strand, 0.1, 2.2), openness)


def _paint_body(face: Face, base: Array, u: Array, v: Array) -> Paint:
    look = face.look
    x, y = base[:, 0], base[:, 1]
    first, second = r.decode(look.cloth), r.decode(look.cloth2)
    pattern = (
        np.zeros_like(x),
        smoothstep(-0.2, 0.2, np.sin(y / 3.6)),
        smoothstep(-0.2, 0.2, np.sin(x / 4.5)),
        0.5 * smoothstep(-0.2, 0.2, np.sin(x / 7)) + 0.5 * smoothstep(-0.2, 0.2, np.sin(y / 7)),
        smoothstep(0.75, 0.6, v),
    )[look.pattern]
    albedo = first + (second - first) * pattern[:, None]
    fold = 0.9 + 0.1 * np.sin(x / 17 + y / 23)
    edge = 1 - 0.35 * bump((v - 0.55) / 0.12)
    return Paint(albedo * (fold * edge)[:, None], np.zeros(len(x), F32), np.full(len(x), 0.85, F32))


# ---------------------------------------------------------------------------------------------- picture


@dataclass(frozen=True)
class Posed:
    """A face in its pose, in camera millimetres, before the camera is placed."""

    parts: list[Part]
    points: list[Array]
    normals: list[Array]
    lenses: list[Array]
    lens_parts: list[Part]
    curves: Curves
    landmarks: Array
    outward: Array


def pose_face(face: Face, pose: Pose) -> Posed:
    """Build the head of ``face`` and turn it; nothing here depends on the picture's size."""
    curves = Curves(face.shape, face.expression)
    parts = [_head(curves, face.look), _body(curves, face.look), *_hair(curves, face.look)]
    covered = face.look.style in ("bob", "long") and face.look.seed % 2
    if face.look.style != "scarf" and not covered:
        parts += [_ear(curves, -1), _ear(curves, 1)]
    lenses: list[Part] = []
    if face.look.glasses != "none":
        frames, lenses = _glasses(curves, face.look)
        parts += frames
    head = r.rotation(pose.yaw, pose.pitch, pose.roll)
    body = r.rotation(pose.body, 0.15 * pose.pitch, 0.4 * pose.roll)

    def place(part: Part) -> Array:
        turned = (part.points - _PIVOT) @ head.T
        if np.all(part.bind == 1):
            return turned
        still = (part.points - _PIVOT) @ body.T
        return still + (turned - still) * part.bind[..., None]

    points = [place(p) for p in parts]
    normals = [r.grid_normals(q, p.wrap) for p, q in zip(parts, points, strict=True)]
    for p, n in zip(parts, normals, strict=True):
        if p.kind == EAR and p.points[0, 0, 0] > 0:
            n *= -1
    marks, outward = curves.landmarks()
    marks, outward = (marks - _PIVOT) @ head.T, outward @ head.T
    return Posed(parts, points, normals, [place(p) for p in lenses], lenses, curves, marks, outward)


def _visible(posed: Posed, camera: Camera) -> Array:
    """Which landmarks the head itself does not hide; measured on a depth map of fixed size, whatever the picture's."""
    side = 112
    head = posed.points[0][::2, ::2]
    flat = head.reshape(-1, 3)
    faces = r.grid_faces(*head.shape[:2])
    scale = Camera(1 / 330.0, (0.5, 0.5), camera.distance)
    found = r.rasterise(scale.project(flat, side), flat[:, 2], faces, (side, side))
    depth = np.full(side * side, -1e9)
    depth[found.pixel] = found.depth
    # Moved a little out of the surface, so that points on a silhouette are not hidden by the coarse map's own edge.
    probes = posed.landmarks + 3.0 * posed.outward
    xy = np.clip(scale.project(probes, side), 1, side - 2)
    column, row = xy[:, 0].astype(int), xy[:, 1].astype(int)
    around = np.stack([depth[(row + i) * side + column + j] for i in (-1, 0, 1) for j in (-1, 0, 1)])
    return (probes[:, 2] > np.sort(around, 0)[2] - 3.0) & (posed.outward[:, 2] > -0.15)


def _shadow(posed: Posed, light: Array, position: Array) -> Array:
    """How much of the key light reaches positions ``(N, 3)``: a shadow map, read softly."""
    side, reach = 96, 175.0
    across = r.unit(r.cross(np.array([0.0, 1.0, 0.0]), light))
    axes = np.stack([across, r.cross(light, across), light])
    meshes = [
        (q[::2, ::2], p.two_sided) for p, q in zip(posed.parts, posed.points, strict=True) if p.kind in (HEAD, HAIR)
    ]
    depth = np.full(side * side, -1e9, F32)
    scale = side / (2 * reach)
    for mesh, both in meshes:
        flat = mesh.reshape(-1, 3) @ axes.T
        xy = np.stack([flat[:, 0] * scale + side / 2, side / 2 - (flat[:, 1] - 50) * scale], 1)
        faces = r.grid_faces(*mesh.shape[:2])
        found = r.rasterise(xy, flat[:, 2], faces, (side, side), np.full(len(faces), both))
        depth[found.pixel] = np.maximum(depth[found.pixel], found.depth)
    axes = axes.astype(F32)
    turned = position @ axes.T
    px, py = turned[:, 0] * F32(scale) + F32(side / 2), F32(side / 2) - (turned[:, 1] - 50) * F32(scale)
    total = np.zeros(len(position), F32)
    for dx, dy in ((-0.9, -0.4), (0.4, -0.9), (0.9, 0.4), (-0.4, 0.9), (0.0, 0.0)):
        i = np.clip(py + F32(dy), 0, side - 1).astype(np.int32)
        j = np.clip(px + F32(dx), 0, side - 1).astype(np.int32)
        total += np.clip((turned[:, 2] - depth[i * side + j] + 11) / 5, 0, 1)
    # Nothing is known outside the map, so its border is lit.
    return np.where((px < 1) | (px > side - 2) | (py < 1) | (py > side - 2), F32(1), total / 5)


def render(face: Face, posed: Posed, camera: Camera, backdrop: Array) -> tuple[Array, Array]:
    """Draw a posed face before a backdrop.

    Args:
        face: What to draw.
        posed: The same face, posed.
        camera: Where it falls in the picture.
        backdrop: Linear light, ``(size, size, 3)``.

    Returns:
        The picture in display values, float32 ``(size, size, 3)``, and how much of each pixel is head (face, ears,
        hair, glasses; not neck, not body), float32 ``(size, size)``.
    """
    size = backdrop.shape[0]
    wide = size * SUPERSAMPLING
    vertices = np.concatenate([q.reshape(-1, 3) for q in posed.points])
    offsets = np.cumsum([0, *(q.shape[0] * q.shape[1] for q in posed.points)])
    faces = np.concatenate([r.grid_faces(*q.shape[:2]) + o for q, o in zip(posed.points, offsets[:-1], strict=True)])
    counts = [len(r.grid_faces(*q.shape[:2])) for q in posed.points]
    owner = np.repeat(np.arange(len(posed.parts)), counts)
    both = np.array([p.two_sided for p in posed.parts])[owner]
    found = r.rasterise(camera.project(vertices, wide), vertices[:, 2], faces, (wide, wide), both)

    attributes = np.concatenate(
        [
            np.concatenate([q, n, p.base, p.u[..., None], p.v[..., None]], -1).reshape(-1, 11)
            for p, q, n in zip(posed.parts, posed.points, posed.normals, strict=True)
        ]
    ).astype(F32)
    corners = faces[found.face]
    values = sum(attributes[corners[:, k]] * found.weights[:, k, None] for k in range(3))
    position, normal, base, u, v = values[:, :3], r.unit(values[:, 3:6]), values[:, 6:9], values[:, 9], values[:, 10]
    normal = np.where(normal[:, 2:] < -0.05, -normal, normal)
    kind = np.array([p.kind for p in posed.parts])[owner[found.face]]

    light = _direction(face.light)
    albedo = np.empty((len(kind), 3), F32)
    gloss, openness = np.empty(len(kind), F32), np.empty(len(kind), F32)
    for k in range(5):
        at = np.flatnonzero(kind == k)
        if len(at):
            paint = _paint(k, face, posed.curves, base[at], u[at], v[at], light)
            albedo[at], gloss[at], openness[at] = paint.albedo, paint.gloss, paint.open
    lit = _shadow(posed, light, position)
    lit = np.where(kind == BODY, 0.6 + 0.4 * lit, lit)
    colour = _shade(face, kind, albedo, gloss, openness, normal, lit, light)

    layer = np.zeros((wide * wide, 5), F32)
    layer[found.pixel, :3] = colour
    layer[found.pixel, 3] = 1
    layer[found.pixel, 4] = np.where(kind == HEAD, v > 4.9, kind != BODY)
    if posed.lenses:
        depth = np.full(wide * wide, -1e9, F32)
        depth[found.pixel] = found.depth
        _blend_lenses(face, posed, camera, layer, depth, wide)
    small = r.box_down(layer.reshape(wide, wide, 5), SUPERSAMPLING)
    picture = small[..., :3] + backdrop * (1 - small[..., 3:4])
    return r.encode(picture * F32(face.light.exposure)), small[..., 4]


def _direction(light: Light) -> Array:
    a, b = np.radians([light.azimuth, light.elevation])
    return np.array([np.sin(a) * np.cos(b), np.sin(b), np.cos(a) * np.cos(b)])


def _paint(kind: int, face: Face, curves: Curves, base: Array, u: Array, v: Array, light: Array) -> Paint:
    if kind == HEAD:
        return _paint_skin(face, curves, base, u, v, light)
    if kind == HAIR:
        return _paint_hair(face, base, u, v)
    if kind == BODY:
        return _paint_body(face, base, u, v)
    n = len(u)
    if kind == EAR:
        depth = smoothstep(-6, 3, u)
        albedo = r.decode(face.look.skin) * np.array([1.03, 0.9, 0.9], F32) * np.ones((n, 1), F32)
        return Paint(albedo, np.full(n, 0.5, F32), 0.35 + 0.65 * depth)
    return Paint(r.decode(face.look.frame) * np.ones((n, 1), F32), np.full(n, 2.0, F32), np.ones(n, F32))


def _shade(
    face: Face, kind: Array, albedo: Array, gloss: Array, openness: Array, normal: Array, lit: Array, light: Array
) -> Array:
    """Linear light: a wrapped key that reddens where it fades on skin, hemisphere light, a rim and highlights."""
    lamp = face.light
    light = light.astype(F32)
    facing = normal @ light
    skin = ((kind == HEAD) | (kind == EAR))[:, None]
    wrap = np.where(skin, np.array([0.32, 0.18, 0.13], F32), F32(0.12))
    lit = lit * (0.6 + 0.4 * openness)
    diffuse = np.clip((facing[:, None] + wrap) / (1 + wrap), 0, 1) * lit[:, None]
    sky = (0.72 + 0.28 * normal[:, 1]) * openness
    rim = (
        lamp.rim * np.clip(1 - normal[:, 2], 0, 1) ** 3 * np.clip(-normal[:, 0] * np.sign(light[0] + 1e-6) + 0.3, 0, 1)
    )
    key = F32(1.0 * lamp.key) * np.array(lamp.colour, F32)
    colour = albedo * (key * diffuse + (lamp.ambient * sky)[:, None] * np.array([0.95, 1.0, 1.06], F32) + rim[:, None])
    half = r.unit(light + np.array([0, 0, 1], F32))
    mirror = np.clip(normal @ half, 0, 1)
    shine = gloss * lit * (0.045 * mirror**12 + 0.10 * mirror**48) * np.where(kind == HAIR, F32(0.7), F32(1))
    return colour + (shine * lamp.key)[:, None] * np.array([1.0, 0.98, 0.95], F32)


def _blend_lenses(face: Face, posed: Posed, camera: Camera, layer: Array, depth: Array, wide: int) -> None:
    dark = face.look.glasses == "sun"
    for part, points in zip(posed.lens_parts, posed.lenses, strict=True):
        flat = points.reshape(-1, 3)
        faces = r.grid_faces(*points.shape[:2])
        found = r.rasterise(camera.project(flat, wide), flat[:, 2], faces, (wide, wide), np.ones(len(faces), bool))
        seen = found.depth > depth[found.pixel] - 1
        pixel, corners, weights = found.pixel[seen], faces[found.face[seen]], found.weights[seen]
        v = (part.v.ravel()[corners] * weights).sum(1)
        glare = bump((v - 0.35) / 0.22) * (0.10 if dark else 0.05)
        cover = np.full(len(v), 0.88 if dark else 0.06, F32)
        tint = r.decode(face.look.lens) * (0.25 if dark else 0.9)
        layer[pixel, :3] = _mix(layer[pixel, :3], tint[None], cover) + glare[:, None]
        layer[pixel, 3] = layer[pixel, 3] + (1 - layer[pixel, 3]) * cover
        layer[pixel, 4] = 1


# ---------------------------------------------------------------------------------------------- scenes


def draw_face(face: Face, pose: Pose, size: int, camera: Camera | None = None, backdrop: Array | None = None) -> Sample:
    """Draw one face and annotate it.

    Args:
        face: Identity, expression, look and light.
        pose: Head and body angles.
        size: Side of the picture in pixels.
        camera: Where the face falls; None: the whole head in the middle.
        backdrop: Linear light ``(size, size, 3)``; None: a plain grey.

    Returns:
        ``image``, ``landmarks``, ``visible`` (in the picture and not hidden by the head itself; hair and glasses do not
        count), ``box`` of the landmarks, ``mask`` of the head and ``yaw``, as :class:`ulm.datasets.base.Dataset` says.
    """
    posed = pose_face(face, pose)
    camera = camera or Camera(1 / 300.0, (0.5, 0.62), 1200.0)
    return _finish(face, pose, posed, camera, np.full((size, size, 3), 0.35, F32) if backdrop is None else backdrop)


def _finish(face: Face, pose: Pose, posed: Posed, camera: Camera, backdrop: Array) -> Sample:
    size = backdrop.shape[0]
    picture, head = render(face, posed, camera, backdrop)
    landmarks = camera.project(posed.landmarks, size)
    inside = np.all((landmarks >= 0) & (landmarks < size), 1)
    box = np.concatenate([landmarks.min(0), landmarks.max(0)])
    return {
        "image": torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1), F32)),
        "landmarks": torch.from_numpy(landmarks.astype(F32)),
        "visible": torch.from_numpy(_visible(posed, camera) & inside),
        "box": torch.from_numpy(box.astype(F32)),
        "mask": torch.from_numpy(head > 0.5),
        "yaw": float(pose.yaw),
    }


def _info(scene: str) -> Info:
    posed = scene == "faces-posed"
    return Info(
        name=f"procedural:{scene}",
        landmark_names=LANDMARK_NAMES,
        flip_pairs=FLIP_PAIRS,
        skeleton=SKELETON,
        normaliser="box" if posed else "outer-eye-corners",
        normaliser_points=() if posed else ((36,), (45,)),
        licence="CC0 (drawn by ulm)",
        citation="Drawn by ulm; the 68-point scheme is that of Sagonas et al., 300 Faces in-the-Wild (2013).",
        subsets=(("mafl-5", MAFL_5),),
    )


class FaceScene:
    """One of the scenes ``faces``, ``faces-posed`` and ``faces-wild`` (see :mod:`ulm.datasets.procedural`)."""

    def __init__(self, scene: str):
        self.name = scene
        self.info = _info(scene)

    def draw(self, rng: np.random.Generator, size: int) -> Sample:
        """Draw one sample; the same generator gives the same scene at every size."""
        face = sample_face(rng)
        pose = self._pose(rng)
        posed = pose_face(face, pose)
        camera = self._camera(rng, posed.landmarks)
        return _finish(face, pose, posed, camera, r.background(rng, size))

    def _pose(self, rng: np.random.Generator) -> Pose:
        if self.name == "faces-posed":
            yaw = float(rng.uniform(-90, 90) if rng.random() < 0.6 else np.clip(rng.normal(0, 35), -90, 90))
            pitch, roll = np.clip(rng.normal(0, 13), -30, 30), np.clip(rng.normal(0, 8), -20, 20)
        elif self.name == "faces-wild":
            yaw = float(np.clip(rng.normal(0, 22), -45, 45))
            pitch, roll = np.clip(rng.normal(0, 9), -22, 22), np.clip(rng.normal(0, 10), -30, 30)
        else:
            yaw = float(np.clip(rng.normal(0, 18), -45, 45))
            pitch, roll = np.clip(rng.normal(0, 6), -15, 15), np.clip(rng.normal(0, 5), -15, 15)
        body = yaw - float(np.clip(yaw * rng.uniform(0.0, 0.8), -55, 55))
        return Pose(yaw, float(pitch), float(roll), body)

    def _camera(self, rng: np.random.Generator, landmarks: Array) -> Camera:
        distance = float(np.exp(rng.uniform(np.log(700), np.log(2500))))
        flat = Camera(1.0, (0.0, 0.0), distance).project(landmarks, 1.0)
        low, high = flat.min(0), flat.max(0)
        jitter = np.clip(rng.normal(0, 1, 3), -2, 2)
        if self.name == "faces":
            five = np.stack([flat[list(group)].mean(0) for group in MAFL_5])
            scale = 0.0037 * np.exp(0.07 * jitter[0])
            centre = np.array([0.5, 0.545]) + 0.028 * jitter[1:] - scale * five.mean(0)
        elif self.name == "faces-posed":
            scale = 0.66 / (high - low).max() * np.exp(0.09 * jitter[0])
            centre = np.array([0.5, 0.56]) + 0.035 * jitter[1:] - scale * (low + high) / 2
        else:
            # The head is about half as tall again as the box of the landmarks.
            part = rng.uniform(0.25, 0.8)
            scale = part / (1.35 * (high - low).max())
            room = np.maximum(1 - scale * (high - low) - 0.04, 0)
            centre = 0.02 + room * rng.random(2) - scale * low
        return Camera(float(scale), (float(centre[0]), float(centre[1])), distance)
