"""Procedural birds with the 15 parts of CUB-200-2011, drawn with numpy alone.

A bird is one skin swept along its spine from the tail to the beak, through fourteen sections that mean the same
in every species (:data:`_S`): so a hummingbird and a heron differ by numbers, and cap, eye stripe, bib and breast
are painted by section and by angle round the body. Wings lie on the skin or are spread; tail, beak, eyes, crest and
legs are surfaces of their own. The frame of the body: x to the bird's left, y up, z forward, one unit about the body's
length; yaw 0 faces the viewer, -90 the image's left.

Landmarks are places on those same surfaces. A part that the bird itself, a leaf or the water hides keeps its place and
is not ``visible`` (CUB gives hidden parts no place at all).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from ulm.datasets import rendering as r
from ulm.datasets import shapes
from ulm.datasets.base import Info, Sample
from ulm.datasets.rendering import Array, Camera, smoothstep, value_noise
from ulm.datasets.shapes import Paint, Surface

F32 = np.float32
RGB = tuple[float, float, float]
Palette = dict[str, RGB]

LANDMARK_NAMES = (
    "back", "beak", "belly", "breast", "crown", "forehead", "left eye", "left leg", "left wing", "nape", "right eye",
    "right leg", "right wing", "tail", "throat",
)  # fmt: skip
FLIP_PAIRS = ((6, 10), (7, 11), (8, 12))
SKELETON = (
    (1, 5), (5, 4), (4, 9), (9, 0), (0, 13), (13, 2), (2, 3), (3, 14), (14, 1), (5, 6), (5, 10), (2, 7), (2, 11),
    (0, 8), (0, 12),
)  # fmt: skip
SCENES = ("birds", "birds-aligned", "birds-001", "birds-002", "birds-003")
"""The scenes of this module; the last three hold one species each, see :data:`SUBSETS`."""
SUBSETS = {
    "birds-001": "dark albatross",
    "birds-002": "white albatross",
    "birds-003": "sooty albatross",
}

# ---------------------------------------------------------------------------------------------- species


@dataclass(frozen=True)
class Kind:
    """What sets a species apart. Lengths in body lengths, angles in degrees.

    Attributes:
        name: The species.
        palettes: Colours of its zones, one dict a plumage; what is not named looks like its neighbour.
        depth: Half the body's height.
        width: Half the body's width.
        posture: Least and greatest slope of the body when it stands.
        neck: Length, slope and half thickness.
        bend: How much of an S the neck makes.
        head: Radius, and length over height.
        beak: Length, half height, half width, and droop of the tip in beak lengths.
        tail: Length, half width at base and at tip, fork (negative: rounded), slope against the body.
        wing: How far the folded wing reaches beyond the rump, and its angle round the body at its lower edge.
        spread: Half span, chord, and how pointed the spread wing is (0 round to 1 pointed).
        leg: Length and half thickness.
        eye: Radius and angle from the crown; owls look ahead.
        crest: Height of the crest.
        places: Odds of branch, ground, water, flight and trunk.
        marks: Patterns: breast "streaks", "spots", "bars" on the back, "disc" round the eyes, "scales" on the wing.
    """

    name: str
    palettes: tuple[Palette, ...]
    depth: float = 0.27
    width: float = 0.25
    posture: tuple[float, float] = (20, 48)
    neck: tuple[float, float, float] = (0.13, 55, 0.19)
    bend: float = 0.0
    head: tuple[float, float] = (0.215, 1.0)
    beak: tuple[float, float, float, float] = (0.17, 0.065, 0.055, 0.05)
    tail: tuple[float, float, float, float, float] = (0.6, 0.07, 0.12, 0.1, -4)
    wing: tuple[float, float] = (0.18, 112)
    spread: tuple[float, float, float] = (1.15, 0.55, 0.4)
    leg: tuple[float, float] = (0.42, 0.02)
    eye: tuple[float, float] = (0.05, 70)
    crest: float = 0.0
    places: tuple[float, float, float, float, float] = (0.7, 0.2, 0.0, 0.1, 0.0)
    marks: tuple[str, ...] = ()


_BLACK, _WHITE, _YELLOW, _ORANGE = (0.05, 0.05, 0.06), (0.95, 0.94, 0.92), (0.95, 0.78, 0.1), (0.95, 0.5, 0.1)
_GULL: Palette = {
    "head": _WHITE, "belly": (0.96, 0.95, 0.94), "back": (0.62, 0.66, 0.7), "flight": (0.5, 0.54, 0.58),
    "tip": _BLACK, "tail": _WHITE, "beak": _YELLOW, "leg": (0.9, 0.6, 0.5), "iris": (0.9, 0.85, 0.4),
}  # fmt: skip
_ALBATROSS: dict[str, Any] = {
    "depth": 0.25, "width": 0.26, "posture": (4, 16), "neck": (0.24, 48, 0.16), "head": (0.185, 1.15),
    "beak": (0.36, 0.06, 0.05, 0.1), "tail": (0.28, 0.1, 0.15, -0.2, 2), "wing": (0.36, 100),
    "spread": (2.3, 0.36, 0.9), "leg": (0.34, 0.026), "eye": (0.036, 70), "places": (0, 0.3, 0.35, 0.35, 0),
}  # fmt: skip

KINDS = (
    Kind(
        "sparrow",
        (
            {"cap": (0.5, 0.3, 0.17), "head": (0.62, 0.6, 0.56), "stripe": (0.2, 0.13, 0.09),
             "brow": (0.85, 0.8, 0.7), "back": (0.5, 0.36, 0.23), "belly": (0.84, 0.8, 0.73),
             "breast": (0.74, 0.69, 0.6), "bar": _WHITE, "wing": (0.55, 0.36, 0.2), "flight": (0.3, 0.22, 0.16),
             "beak": (0.35, 0.3, 0.27), "leg": (0.7, 0.5, 0.42), "mark": (0.3, 0.2, 0.12)},
            {"cap": (0.45, 0.45, 0.47), "head": (0.5, 0.27, 0.15), "cheek": (0.85, 0.83, 0.8), "bib": _BLACK,
             "back": (0.52, 0.33, 0.2), "belly": (0.72, 0.7, 0.67), "bar": _WHITE, "flight": (0.28, 0.2, 0.15),
             "wing": (0.56, 0.31, 0.17), "beak": (0.15, 0.14, 0.14), "leg": (0.72, 0.5, 0.42)},
            {"cap": _BLACK, "head": (0.75, 0.74, 0.72), "brow": _WHITE, "stripe": _BLACK,
             "back": (0.45, 0.36, 0.28), "belly": (0.78, 0.77, 0.75), "bar": _WHITE, "wing": (0.48, 0.34, 0.22),
             "beak": (0.9, 0.65, 0.35), "leg": (0.75, 0.55, 0.45)},
        ),
        marks=("streaks", "scales"), depth=0.29, width=0.27,
    ),
    Kind(
        "crow",
        (
            {"head": (0.05, 0.05, 0.07), "belly": (0.06, 0.06, 0.08), "back": (0.07, 0.07, 0.1), "leg": _BLACK,
             "beak": _BLACK},
            {"head": _BLACK, "belly": (0.62, 0.61, 0.6), "back": (0.6, 0.59, 0.58), "wing": _BLACK, "tail": _BLACK,
             "throat": _BLACK, "leg": _BLACK, "beak": _BLACK},
        ),
        depth=0.26, posture=(15, 42), neck=(0.16, 48, 0.17), head=(0.2, 1.12), beak=(0.3, 0.075, 0.06, 0.12),
        tail=(0.58, 0.1, 0.15, -0.15, 0), wing=(0.32, 105), spread=(1.45, 0.62, 0.15), leg=(0.5, 0.03),
        eye=(0.035, 68), places=(0.4, 0.4, 0, 0.2, 0),
    ),
    Kind(
        "gull",
        (
            _GULL,
            {**_GULL, "head": (0.2, 0.16, 0.15), "throat": (0.2, 0.16, 0.15), "nape": _WHITE,
             "beak": (0.7, 0.15, 0.12), "leg": (0.75, 0.2, 0.15), "iris": _BLACK},
        ),
        depth=0.25, posture=(4, 16), neck=(0.19, 52, 0.16), head=(0.19, 1.1), beak=(0.27, 0.055, 0.04, 0.14),
        tail=(0.38, 0.1, 0.14, -0.1, 0), wing=(0.46, 98), spread=(1.75, 0.45, 0.75), leg=(0.44, 0.024),
        eye=(0.036, 68), places=(0.05, 0.4, 0.25, 0.3, 0),
    ),
    Kind(
        "duck",
        (
            {"head": (0.05, 0.36, 0.2), "throat": (0.05, 0.32, 0.2), "collar": _WHITE, "breast": (0.36, 0.2, 0.14),
             "belly": (0.74, 0.72, 0.7), "back": (0.55, 0.5, 0.46), "wing": (0.6, 0.56, 0.52),
             "bar": (0.15, 0.25, 0.65), "rump": _BLACK, "tail": (0.85, 0.84, 0.82), "beak": (0.88, 0.75, 0.15),
             "leg": _ORANGE},
            {"head": (0.6, 0.48, 0.34), "cap": (0.35, 0.26, 0.18), "stripe": (0.28, 0.2, 0.14),
             "belly": (0.62, 0.5, 0.37), "back": (0.42, 0.32, 0.23), "bar": (0.2, 0.3, 0.65),
             "beak": (0.8, 0.5, 0.2), "leg": _ORANGE, "mark": (0.28, 0.2, 0.14)},
            {"head": (0.96, 0.95, 0.93), "belly": (0.96, 0.95, 0.93), "back": (0.94, 0.93, 0.91), "beak": _ORANGE,
             "leg": _ORANGE},
        ),
        depth=0.26, width=0.29, posture=(2, 10), neck=(0.3, 66, 0.125), bend=0.05, head=(0.19, 1.15),
        beak=(0.29, 0.04, 0.075, -0.05), tail=(0.3, 0.1, 0.08, -0.2, 14), wing=(0.08, 86), spread=(1.25, 0.45, 0.6),
        leg=(0.34, 0.03), eye=(0.035, 66), places=(0, 0.25, 0.62, 0.13, 0), marks=("scales",),
    ),
    Kind(
        "heron",
        (
            {"head": _WHITE, "stripe": _BLACK, "belly": (0.86, 0.86, 0.88), "back": (0.5, 0.56, 0.64),
             "throat": (0.88, 0.87, 0.85), "nape": (0.75, 0.76, 0.78), "flight": (0.2, 0.22, 0.27),
             "beak": (0.9, 0.65, 0.2), "leg": (0.5, 0.42, 0.25), "iris": _YELLOW},
            {"head": _WHITE, "belly": _WHITE, "back": (0.93, 0.93, 0.92), "beak": _YELLOW, "leg": (0.1, 0.1, 0.1),
             "iris": _YELLOW},
        ),
        depth=0.21, width=0.2, posture=(25, 50), neck=(0.95, 74, 0.072), bend=0.13, head=(0.11, 1.6),
        beak=(0.42, 0.04, 0.032, 0), tail=(0.25, 0.07, 0.1, 0, -8), wing=(0.12, 110), spread=(1.5, 0.6, 0.1),
        leg=(1.1, 0.024), eye=(0.028, 66), crest=0.0, places=(0.1, 0.75, 0, 0.15, 0),
    ),
    Kind(
        "woodpecker",
        (
            {"cap": (0.8, 0.1, 0.08), "head": (0.92, 0.9, 0.87), "stripe": _BLACK, "belly": (0.88, 0.84, 0.78),
             "back": _BLACK, "wing": _BLACK, "flight": _BLACK, "mark": _WHITE, "tail": _BLACK,
             "beak": (0.3, 0.3, 0.32), "leg": (0.4, 0.4, 0.4)},
            {"cap": (0.75, 0.12, 0.1), "head": (0.78, 0.66, 0.52), "nape": (0.8, 0.15, 0.1),
             "belly": (0.8, 0.7, 0.56), "back": _BLACK, "wing": _BLACK, "mark": (0.93, 0.92, 0.88), "tail": _BLACK,
             "beak": _BLACK, "leg": (0.4, 0.4, 0.4)},
        ),
        depth=0.22, width=0.22, posture=(66, 84), neck=(0.16, 78, 0.16), head=(0.2, 1.1),
        beak=(0.34, 0.055, 0.045, 0), tail=(0.5, 0.07, 0.06, 0.1, 8), wing=(0.12, 105), leg=(0.3, 0.024),
        places=(0.12, 0, 0, 0.08, 0.8), marks=("bars",),
    ),
    Kind(
        "hummingbird",
        (
            {"head": (0.15, 0.5, 0.25), "throat": (0.8, 0.06, 0.2), "belly": (0.86, 0.85, 0.8),
             "breast": (0.85, 0.84, 0.8), "back": (0.2, 0.55, 0.28), "wing": (0.3, 0.28, 0.3),
             "flight": (0.25, 0.23, 0.26), "beak": _BLACK, "leg": _BLACK},
            {"head": (0.1, 0.4, 0.55), "throat": (0.5, 0.15, 0.7), "belly": (0.4, 0.6, 0.5),
             "back": (0.15, 0.5, 0.42), "wing": (0.28, 0.27, 0.3), "tail": (0.1, 0.2, 0.4), "beak": _BLACK,
             "leg": _BLACK},
            {"head": (0.7, 0.4, 0.2), "throat": (0.95, 0.35, 0.1), "belly": (0.85, 0.65, 0.45),
             "back": (0.6, 0.42, 0.2), "wing": (0.3, 0.26, 0.24), "beak": _BLACK, "leg": _BLACK},
        ),
        depth=0.21, width=0.2, posture=(42, 66), neck=(0.12, 64, 0.15), head=(0.18, 1.1),
        beak=(0.62, 0.022, 0.02, 0.06), tail=(0.42, 0.05, 0.13, 0.15, -8), wing=(0.32, 100),
        spread=(0.98, 0.3, 0.8), leg=(0.2, 0.012), eye=(0.042, 68), places=(0.45, 0, 0, 0.55, 0),
    ),
    Kind(
        "finch",
        (
            {"cap": _BLACK, "head": (0.95, 0.8, 0.1), "belly": (0.95, 0.82, 0.15), "back": (0.92, 0.76, 0.1),
             "wing": _BLACK, "flight": _BLACK, "bar": _WHITE, "tail": _BLACK, "rump": _WHITE,
             "beak": (0.95, 0.6, 0.35), "leg": (0.7, 0.5, 0.4)},
            {"head": (0.75, 0.22, 0.25), "breast": (0.75, 0.28, 0.3), "belly": (0.85, 0.78, 0.74),
             "back": (0.5, 0.32, 0.28), "wing": (0.4, 0.28, 0.24), "bar": (0.85, 0.7, 0.65),
             "beak": (0.5, 0.42, 0.38), "leg": (0.55, 0.4, 0.35), "mark": (0.5, 0.28, 0.25)},
            {"head": (0.4, 0.52, 0.68), "cheek": (0.78, 0.45, 0.35), "belly": (0.8, 0.5, 0.4),
             "back": (0.5, 0.32, 0.24), "wing": _BLACK, "bar": _WHITE, "tail": (0.15, 0.15, 0.18),
             "beak": (0.5, 0.55, 0.62), "leg": (0.5, 0.38, 0.33)},
            {"head": (0.12, 0.2, 0.6), "belly": (0.15, 0.3, 0.72), "back": (0.13, 0.28, 0.66),
             "wing": (0.12, 0.15, 0.3), "beak": (0.55, 0.55, 0.6), "leg": _BLACK},
        ),
        depth=0.29, width=0.27, head=(0.225, 0.95), beak=(0.15, 0.085, 0.075, 0.06),
        tail=(0.5, 0.07, 0.11, 0.25, -4), marks=("streaks",),
    ),
    Kind(
        "cardinal",
        (
            {"head": (0.82, 0.1, 0.08), "bib": _BLACK, "belly": (0.84, 0.14, 0.1), "back": (0.68, 0.13, 0.12),
             "wing": (0.62, 0.13, 0.12), "flight": (0.45, 0.12, 0.12), "tail": (0.7, 0.12, 0.1),
             "beak": (0.95, 0.42, 0.15), "leg": (0.45, 0.3, 0.28)},
            {"head": (0.66, 0.52, 0.42), "crest": (0.75, 0.25, 0.18), "bib": (0.25, 0.22, 0.2),
             "belly": (0.78, 0.64, 0.5), "back": (0.55, 0.45, 0.38), "wing": (0.62, 0.32, 0.25),
             "tail": (0.65, 0.3, 0.24), "beak": (0.95, 0.45, 0.2), "leg": (0.45, 0.3, 0.28)},
        ),
        depth=0.28, crest=0.3, beak=(0.17, 0.095, 0.08, 0.12), tail=(0.82, 0.08, 0.13, -0.1, -6), posture=(32, 58),
        wing=(0.08, 110),
    ),
    Kind(
        "owl",
        (
            {"head": (0.55, 0.42, 0.28), "disc": (0.8, 0.7, 0.55), "belly": (0.82, 0.74, 0.6),
             "back": (0.45, 0.33, 0.22), "mark": (0.3, 0.2, 0.12), "beak": (0.2, 0.19, 0.18),
             "leg": (0.75, 0.66, 0.52), "iris": (0.98, 0.8, 0.1)},
            {"head": (0.9, 0.9, 0.9), "disc": (0.96, 0.96, 0.95), "belly": (0.95, 0.95, 0.94),
             "back": (0.88, 0.88, 0.88), "mark": (0.35, 0.33, 0.32), "beak": _BLACK, "leg": _WHITE,
             "iris": (0.98, 0.82, 0.15)},
            {"head": (0.5, 0.48, 0.46), "disc": (0.72, 0.7, 0.68), "belly": (0.78, 0.76, 0.73),
             "back": (0.42, 0.4, 0.38), "mark": (0.24, 0.22, 0.2), "beak": (0.8, 0.7, 0.35),
             "leg": (0.7, 0.66, 0.6), "iris": (0.15, 0.1, 0.08)},
        ),
        depth=0.3, width=0.31, posture=(68, 82), neck=(0.07, 85, 0.28), head=(0.3, 0.82),
        beak=(0.12, 0.06, 0.045, 0.7), tail=(0.34, 0.1, 0.13, -0.1, 8), wing=(0.14, 98), spread=(1.35, 0.68, 0.0),
        leg=(0.34, 0.045), eye=(0.088, 52), places=(0.75, 0.05, 0, 0.2, 0), marks=("streaks", "disc", "scales"),
    ),
    Kind(
        "jay",
        (
            {"head": (0.25, 0.42, 0.75), "cheek": (0.9, 0.9, 0.92), "throat": (0.9, 0.9, 0.92), "collar": _BLACK,
             "belly": (0.85, 0.85, 0.87), "back": (0.35, 0.45, 0.72), "wing": (0.15, 0.35, 0.75),
             "flight": (0.12, 0.3, 0.72), "bar": _WHITE, "tail": (0.15, 0.35, 0.78), "tailtip": _WHITE,
             "beak": _BLACK, "leg": _BLACK, "mark": _BLACK},
            {"head": _BLACK, "breast": (0.12, 0.16, 0.3), "belly": (0.1, 0.28, 0.6), "back": (0.12, 0.14, 0.22),
             "wing": (0.08, 0.26, 0.62), "tail": (0.08, 0.26, 0.62), "beak": _BLACK, "leg": _BLACK, "mark": _BLACK},
        ),
        crest=0.24, head=(0.215, 1.05), beak=(0.24, 0.06, 0.05, 0.08), tail=(0.85, 0.08, 0.15, -0.2, -5),
        wing=(0.08, 108), posture=(22, 48), leg=(0.46, 0.024), marks=("bars",),
    ),
    Kind(
        "swallow",
        (
            {"head": (0.1, 0.16, 0.42), "cap": (0.1, 0.15, 0.4), "throat": (0.7, 0.25, 0.12),
             "bib": (0.7, 0.25, 0.12), "belly": (0.9, 0.72, 0.56), "breast": (0.88, 0.66, 0.5),
             "back": (0.1, 0.16, 0.45), "flight": (0.1, 0.1, 0.16), "tail": (0.08, 0.1, 0.2), "beak": _BLACK,
             "leg": _BLACK},
            {"head": (0.1, 0.35, 0.45), "throat": _WHITE, "bib": _WHITE, "belly": _WHITE, "back": (0.08, 0.35, 0.5),
             "flight": (0.12, 0.12, 0.14), "beak": _BLACK, "leg": _BLACK},
        ),
        depth=0.21, width=0.22, neck=(0.08, 45, 0.18), head=(0.195, 1.05), beak=(0.085, 0.035, 0.06, 0.05),
        tail=(0.95, 0.06, 0.16, 0.72, 0), wing=(0.55, 96), spread=(1.45, 0.38, 0.95), leg=(0.2, 0.014),
        places=(0.5, 0, 0, 0.5, 0), posture=(18, 42),
    ),
    Kind(
        "parrot",
        (
            {"head": (0.82, 0.12, 0.1), "cheek": (0.95, 0.93, 0.9), "belly": (0.82, 0.12, 0.1),
             "back": (0.8, 0.12, 0.1), "wing": (0.92, 0.7, 0.1), "flight": (0.1, 0.25, 0.7),
             "tail": (0.75, 0.12, 0.12), "beak": (0.93, 0.88, 0.78), "leg": (0.35, 0.33, 0.33), "iris": _YELLOW},
            {"head": (0.3, 0.68, 0.16), "cap": _YELLOW, "belly": (0.4, 0.74, 0.22), "back": (0.2, 0.56, 0.14),
             "flight": (0.12, 0.35, 0.4), "tail": (0.2, 0.5, 0.16), "beak": (0.25, 0.22, 0.2),
             "leg": (0.5, 0.45, 0.42), "iris": _ORANGE},
            {"head": (0.1, 0.4, 0.75), "cheek": (0.93, 0.93, 0.9), "belly": (0.95, 0.72, 0.1),
             "breast": (0.95, 0.7, 0.08), "back": (0.1, 0.4, 0.78), "bib": _BLACK, "wing": (0.1, 0.38, 0.76),
             "tail": (0.08, 0.32, 0.7), "beak": _BLACK, "leg": (0.2, 0.2, 0.2), "iris": (0.9, 0.88, 0.6)},
            {"head": (0.62, 0.63, 0.64), "belly": (0.68, 0.69, 0.7), "back": (0.5, 0.51, 0.53),
             "tail": (0.8, 0.1, 0.08), "beak": _BLACK, "leg": (0.3, 0.3, 0.3), "iris": (0.9, 0.88, 0.6)},
        ),
        depth=0.25, width=0.24, posture=(50, 72), neck=(0.16, 74, 0.2), head=(0.235, 1.0),
        beak=(0.21, 0.13, 0.07, 0.75), tail=(0.95, 0.09, 0.06, -0.5, 0), wing=(0.28, 100), leg=(0.3, 0.035),
        eye=(0.04, 68), places=(0.88, 0, 0, 0.12, 0), marks=("scales",),
    ),
    Kind(
        "robin",
        (
            {"head": (0.2, 0.19, 0.2), "belly": (0.82, 0.38, 0.16), "breast": (0.82, 0.36, 0.14),
             "throat": (0.25, 0.24, 0.25), "back": (0.4, 0.39, 0.38), "flight": (0.25, 0.24, 0.24),
             "tail": (0.2, 0.2, 0.2), "beak": _YELLOW, "leg": (0.45, 0.35, 0.25)},
            {"head": (0.45, 0.4, 0.3), "cheek": (0.88, 0.46, 0.2), "throat": (0.88, 0.46, 0.2),
             "bib": (0.88, 0.46, 0.2), "breast": (0.88, 0.46, 0.2), "belly": (0.9, 0.87, 0.83),
             "back": (0.45, 0.4, 0.3), "beak": (0.2, 0.18, 0.17), "leg": (0.55, 0.4, 0.3)},
            {"head": (0.52, 0.38, 0.26), "belly": (0.94, 0.92, 0.87), "back": (0.52, 0.36, 0.23),
             "mark": (0.25, 0.17, 0.12), "beak": (0.5, 0.42, 0.36), "leg": (0.85, 0.65, 0.55)},
        ),
        depth=0.28, width=0.26, leg=(0.52, 0.02), beak=(0.19, 0.045, 0.042, 0.06), places=(0.45, 0.47, 0, 0.08, 0),
        marks=("spots",),
    ),
    Kind(
        "kingfisher",
        (
            {"head": (0.08, 0.45, 0.68), "cheek": (0.85, 0.48, 0.18), "throat": (0.93, 0.9, 0.85),
             "bib": (0.93, 0.9, 0.85), "belly": (0.88, 0.48, 0.16), "back": (0.1, 0.55, 0.78),
             "wing": (0.06, 0.42, 0.58), "beak": _BLACK, "leg": (0.85, 0.25, 0.12)},
            {"head": (0.38, 0.46, 0.58), "throat": _WHITE, "bib": _WHITE, "collar": _WHITE,
             "breast": (0.38, 0.46, 0.58), "belly": _WHITE, "back": (0.38, 0.46, 0.58), "beak": (0.15, 0.15, 0.16),
             "leg": (0.2, 0.2, 0.2)},
        ),
        depth=0.25, neck=(0.1, 65, 0.2), head=(0.25, 1.1), beak=(0.5, 0.06, 0.045, 0.02),
        tail=(0.28, 0.07, 0.09, -0.1, 0), posture=(45, 68), leg=(0.2, 0.02), crest=0.1, wing=(0.06, 108),
        places=(0.88, 0, 0, 0.12, 0),
    ),
    Kind(
        "dark albatross",
        (
            {"head": (0.27, 0.23, 0.21), "ring": (0.8, 0.78, 0.75), "face": (0.8, 0.77, 0.73),
             "belly": (0.4, 0.35, 0.32), "back": (0.24, 0.2, 0.18), "flight": (0.17, 0.14, 0.13),
             "beak": (0.2, 0.17, 0.16), "leg": (0.1, 0.1, 0.1)},
        ),
        **_ALBATROSS,
    ),
    Kind(
        "white albatross",
        (
            {"head": _WHITE, "stripe": (0.35, 0.34, 0.35), "belly": _WHITE, "back": (0.22, 0.21, 0.21),
             "nape": _WHITE, "wing": (0.2, 0.19, 0.19), "flight": (0.13, 0.12, 0.12), "rump": _WHITE,
             "tail": (0.3, 0.29, 0.29), "beak": (0.92, 0.74, 0.6), "leg": (0.85, 0.65, 0.6)},
        ),
        **_ALBATROSS,
    ),
    Kind(
        "sooty albatross",
        (
            {"head": (0.19, 0.19, 0.21), "ring": _WHITE, "belly": (0.42, 0.42, 0.44), "back": (0.46, 0.46, 0.48),
             "nape": (0.4, 0.4, 0.42), "wing": (0.33, 0.33, 0.35), "flight": (0.2, 0.2, 0.22),
             "beak": (0.06, 0.06, 0.06), "leg": (0.5, 0.46, 0.46)},
        ),
        **{**_ALBATROSS, "tail": (0.5, 0.1, 0.07, -0.6, 2)},
    ),
)  # fmt: skip
_COMMON = tuple(kind for kind in KINDS if kind.name not in SUBSETS.values())


def _resolve(palette: Palette, rng: np.random.Generator) -> dict[str, Array | None]:
    """All zones of one bird: those its species does not name fall back to their neighbours; each bird differs."""
    shift, bright = rng.normal(0, 0.02, 3), float(np.exp(rng.normal(0, 0.07)))
    zones: dict[str, Array | None] = {
        name: np.clip((np.array(colour) + shift * (0.2 + np.mean(colour))) * bright, 0.02, 0.98)
        for name, colour in palette.items()
    }
    fallback = (
        ("cap", "head"), ("cheek", "head"), ("nape", "head"), ("breast", "belly"), ("throat", "breast"), ("bib",
        "throat"),
        ("wing", "back"), ("rump", "back"), ("crest", "cap"), ("disc", "head"),
    )  # fmt: skip
    for name, other in fallback:
        zones.setdefault(name, zones[other])
    wing = zones["wing"]
    zones.setdefault("flight", None if wing is None else 0.68 * wing)
    zones.setdefault("tail", zones["flight"])
    zones.setdefault("tip", zones["flight"])
    zones.setdefault("iris", np.array([0.13, 0.07, 0.04]))
    return zones


# ---------------------------------------------------------------------------------------------- the skin

_S = {
    "rump": 1.2,
    "belly": 3.3,
    "back": 3.4,
    "breast": 4.6,
    "throat": 8.4,
    "nape": 8.3,
    "crown": 10.0,
    "forehead": 11.5,
}
"""Where the parts are along the sections: 0 is the tail's root, 1 to 4 the body, 5 to 8 the neck, 9 to 13 the head."""
_EYE_S = 10.7
_ROWS = 53
_COLUMNS = 29


@dataclass(frozen=True)
class Bird:
    """One bird in one pose: who it is, what it wears and how it holds itself. Angles in degrees."""

    kind: Kind
    zones: dict[str, Array | None]
    noise: Array
    place: str = "branch"
    posture: float = 30.0
    head_yaw: float = 0.0
    head_pitch: float = 0.0
    flap: tuple[float, float] = (20.0, 10.0)
    lifted: bool = False
    stride: float = 0.0
    tail_fan: float = 1.0
    tail_slope: float = 0.0
    sections: Array = field(default_factory=lambda: np.zeros((14, 5)))

    @property
    def open_wings(self) -> bool:
        """Whether the wings are spread."""
        return self.place == "flight" or self.lifted

    @property
    def axis(self) -> Array:
        """Direction of the body from tail to breast, ``(3,)``."""
        a = np.radians(self.posture)
        return np.array([0.0, np.sin(a), np.cos(a)])

    @property
    def dorsal(self) -> Array:
        """Direction out of the body's back, ``(3,)``."""
        a = np.radians(self.posture)
        return np.array([0.0, np.cos(a), -np.sin(a)])


def _direction(degrees: float) -> Array:
    """Unit vector (y, z) in the body's plane of symmetry, rising forward by ``degrees``."""
    return np.array([np.sin(np.radians(degrees)), np.cos(np.radians(degrees))])


def _sections(kind: Kind, posture: float, head_pitch: float) -> Array:
    """Fourteen sections ``(14, 5)``: centre y and z, half width, half height to the back and to the belly."""
    along, up = _direction(posture), _direction(posture + 90)
    length, slope, thick = kind.neck
    slope = slope + 0.35 * (posture - np.mean(kind.posture))
    neck, look, crown = _direction(slope), _direction(head_pitch), _direction(head_pitch + 90)
    d, w, (radius, long) = kind.depth, kind.width, kind.head
    rows = []
    for at, wide, high, low in (
        (-0.58, 0.10, 0.10, 0.10),
        (-0.44, 0.42, 0.36, 0.42),
        (-0.22, 0.82, 0.78, 0.86),
        (0.04, 1.00, 0.96, 1.06),
        (0.29, 0.95, 0.90, 1.0),
    ):
        rows.append([*(at * along), wide * w, high * d, low * d])
    root = 0.43 * along + 0.16 * d * up
    ahead = _direction(slope - 90)
    for p, body in ((0.0, 0.62), (0.33, 0.26), (0.67, 0.05), (1.0, 0.0)):
        centre = root + p * length * neck + kind.bend * length * np.sin(2 * np.pi * p) * ahead
        side = thick + max(body * 1.25 * (min(d, w) - thick), 0)
        rows.append([*centre, side, side * 1.02, side * 1.04])
    middle = root + length * neck + radius * (0.62 * neck + 0.3 * look)
    behind = 0.62 * look + 0.78 * neck
    rows.append([*(middle - 0.52 * radius * behind / np.linalg.norm(behind)), *(radius * np.array([0.88, 0.9, 0.92]))])
    rows.append([*middle, *(radius * np.array([0.94, 1.0, 0.92]))])
    for forward, down, wide, high, low in ((0.5, 0.04, 0.8, 0.82, 0.74), (0.86, 0.12, 0.46, 0.5, 0.42)):
        centre = middle + radius * (forward * long * look - down * crown)
        rows.append([*centre, *(radius * np.array([wide, high, low]))])
    rows.append([*(middle + radius * (1.03 * long * look - 0.16 * crown)), *(radius * np.array([0.05, 0.05, 0.05]))])
    return np.array(rows)


def _skin(bird: Bird, s: Array | float, angle: Array | float, swell: Array | float = 1.0, turned: bool = True) -> Array:
    """Places ``(..., 3)`` on the skin at section ``s`` and ``angle`` in degrees: 0 the back, +90 the left flank."""
    s, angle, swell = np.broadcast_arrays(*(np.asarray(value, float) for value in (s, angle, swell)))
    table, step = bird.sections, 0.25
    # Here, a little ahead and a little behind: the difference is the direction of the spine.
    three = r.spline(table, np.stack([s, np.minimum(s + step, 13.0), np.maximum(s - step, 0.0)]))
    y, z, wide, high, low = three[:, 0]
    ty, tz = three[:2, 1] - three[:2, 2]
    length = np.maximum(np.hypot(ty, tz), 1e-9)
    sine, cosine = np.sin(np.radians(angle)), np.cos(np.radians(angle))
    out = swell * np.where(cosine > 0, high, low) * cosine
    points = np.stack([swell * wide * sine, y + out * tz / length, z - out * ty / length], -1)
    return _turn_head(bird, points, smoothstep(5.0, 9.0, s)) if turned else points


def _turn_head(bird: Bird, points: Array, share: Array | float = 1.0) -> Array:
    """Turn points about the upright line through the neck by a share of the head's yaw."""
    angle = np.radians(bird.head_yaw) * np.asarray(share)
    centre = bird.sections[8, 1]
    sine, cosine, z = np.sin(angle), np.cos(angle), points[..., 2] - centre
    return np.stack(
        [points[..., 0] * cosine + z * sine, points[..., 1], centre + z * cosine - points[..., 0] * sine], -1
    )


def _mix(low: Array, high: Array | None, share: Array) -> Array:
    return low if high is None else low + (high - low) * share[:, None]


def _band(low: float, high: float, value: Array, soft: float) -> Array:
    """1 between ``low`` and ``high``, 0 outside, with edges ``soft`` wide."""
    return smoothstep(low - soft, low + soft, value) * smoothstep(high + soft, high - soft, value)


def _plumage(bird: Bird, eyes: Array) -> Paint:
    """Paint of the skin; ``eyes`` are the places of both eyes before the head turns, ``(2, 3)``."""
    zones, noise, marks = bird.zones, bird.noise, bird.kind.marks

    def paint(rest: Array, u: Array, v: Array) -> Array:
        s, phi = 13 * v, np.abs(360 * u - 180)
        ragged = value_noise(noise, 28 * v, 24 * u)
        phi, along = phi + 7 * ragged, s + 0.18 * ragged
        colour = _mix(np.broadcast_to(zones["back"], rest.shape), zones["rump"], smoothstep(2.1, 1.6, along))
        below = smoothstep(84, 100, phi)
        colour = _mix(colour, zones["belly"], below)
        colour = _mix(colour, zones["breast"], _band(3.4, 6.5, along, 0.3) * smoothstep(80, 95, phi))
        colour = _mark_breast(bird, colour, along, phi)
        head = smoothstep(7.3, 8.0, along)
        colour = _mix(colour, zones["nape"], smoothstep(5.8, 6.5, along) * smoothstep(110, 95, phi))
        colour = _mix(colour, zones["throat"], smoothstep(6.2, 7.0, along) * smoothstep(98, 112, phi))
        colour = _mix(colour, zones["head"], head * smoothstep(135, 120, phi))
        colour = _mix(colour, zones["cheek"], _band(8.7, 11.2, along, 0.3) * _band(74, 124, phi, 7))
        colour = _mix(colour, zones["cap"], smoothstep(8.2, 8.7, along) * smoothstep(52, 44, phi))
        colour = _mix(colour, zones.get("brow"), _band(8.6, 12.3, along, 0.2) * _band(44, 58, phi, 4))
        colour = _mix(colour, zones.get("stripe"), _band(8.4, 12.2, along, 0.2) * _band(64, 79, phi, 4))
        colour = _mix(colour, zones["bib"], smoothstep(7.6, 8.4, along) * smoothstep(116, 128, phi))
        colour = _mix(colour, zones.get("face"), smoothstep(11.6, 12.1, along))
        colour = _mix(colour, zones.get("collar"), _band(6.6, 7.5, along, 0.15))
        away = np.sqrt(((rest[:, None] - eyes[None]) ** 2).sum(-1)).min(1) / bird.kind.eye[0]
        if "disc" in marks:
            colour = _mix(colour, zones["disc"], smoothstep(2.9, 2.6, away))
            colour = _mix(
                colour, zones.get("mark"), 0.8 * _band(2.6, 3.0, away, 0.15) + 0.5 * smoothstep(1.5, 1.1, away)
            )
        colour = _mix(colour, zones.get("ring"), smoothstep(1.5, 1.25, away))
        barbs = value_noise(noise, 70 * v, 90 * u) + 0.6 * value_noise(noise, 30 * v, 40 * u)
        return np.clip(colour * (1 + 0.07 * barbs[:, None]), 0, 1)

    return paint


def _mark_breast(bird: Bird, colour: Array, along: Array, phi: Array) -> Array:
    """Streaks, spots or bars of the species, in its colour ``mark``."""
    mark, marks = bird.zones.get("mark"), bird.kind.marks
    if mark is None:
        return colour
    front = _band(1.9, 6.6, along, 0.4) * smoothstep(92, 106, phi)
    if "streaks" in marks:
        lines = np.sin(np.radians(phi) * 17 + 1.3 * np.sin(5 * along)) * np.sin(8.0 * along + 3 * np.floor(phi / 10.6))
        colour = _mix(colour, mark, 0.75 * front * smoothstep(0.25, 0.6, lines))
    if "spots" in marks:
        shift = np.pi * (np.floor(along * 2.4) % 2)
        dots = np.sin(np.radians(phi) * 16 + shift) * np.sin(2 * np.pi * along * 1.2)
        colour = _mix(colour, mark, 0.85 * front * smoothstep(0.3, 0.55, np.abs(dots)))
    if "bars" in marks:
        rows = np.sin(2 * np.pi * along * 2.2)
        colour = _mix(colour, mark, _band(1.4, 5.4, along, 0.3) * smoothstep(70, 60, phi) * smoothstep(0.1, 0.4, rows))
    return colour


# ---------------------------------------------------------------------------------------------- the parts


def _eye_places(bird: Bird, turned: bool) -> Array:
    """Centres of the left and the right eye on the skin, ``(2, 3)``."""
    angle = bird.kind.eye[1]
    s = _EYE_S + (0.35 if angle < 60 else 0.0)
    return _skin(bird, np.array([s, s]), np.array([angle, -angle]), turned=turned)


def _eyes(bird: Bird) -> list[Surface]:
    size, iris = bird.kind.eye[0], bird.zones["iris"]
    middle = np.array([0.0, *bird.sections[10, :2]])
    surfaces = []
    for k, place in enumerate(_eye_places(bird, turned=False)):
        out = (place - middle) / np.linalg.norm(place - middle)
        centre = place - 0.5 * size * out

        def paint(rest: Array, u: Array, v: Array, c: Array = centre, out: Array = out, k: int = k) -> Array:
            n = (rest - c) / size
            facing = n @ out
            glint = np.array([0.35 if k == 0 else -0.35, 0.62, 0.3]) + 0.55 * out
            colour = np.broadcast_to(iris, rest.shape) * smoothstep(0.4, 0.62, facing)[:, None]
            colour = _mix(colour, np.full(3, 0.02), smoothstep(0.8, 0.86, facing))
            return _mix(colour, np.ones(3), smoothstep(0.86, 0.92, n @ (glint / np.linalg.norm(glint))))

        points = shapes.ellipsoid(centre, (size, size, size), 9, 13)
        surfaces.append(Surface(_turn_head(bird, points), paint, 1.5, wrap=True, rest=points))
    return surfaces


def _beak_path(bird: Bird, t: Array) -> Array:
    """Centres ``(N, 3)`` of the beak from its root (0) to its tip (1), before the head turns."""
    length, high, _, droop = bird.kind.beak
    y, z = bird.sections[12, :2]
    look, crown = _direction(bird.head_pitch), _direction(bird.head_pitch + 90)
    bent = droop * length * np.maximum(t, 0) ** 2.2
    forward = length * (t - 0.35 * max(droop - 0.3, 0) * t**3)
    flat = forward[:, None] * look - (bent + 0.1 * high)[:, None] * crown
    return np.stack([0 * t, y + flat[:, 0], z + flat[:, 1]], -1)


def _beak(bird: Bird) -> Surface:
    _, high, wide, _ = bird.kind.beak
    t = np.array([-0.25, 0.0, 0.2, 0.4, 0.6, 0.8, 0.93, 1.0])
    taper = np.interp(t, [-0.25, 0, 0.5, 0.85, 1], [0.9, 1, 0.66, 0.3, 0.07])
    if bird.kind.name == "duck":
        taper = np.interp(t, [-0.25, 0, 0.4, 0.85, 1], [0.9, 1.0, 0.72, 0.75, 0.3])
    broad = np.where(t > 0.5, 1.25, 1.0) if bird.kind.name == "duck" else 1.0
    points = shapes.tube(
        _beak_path(bird, t), np.stack([wide * taper * broad, high * taper], -1), 13, (0, 1, 0), (False, True)
    )
    colour, kind = bird.zones["beak"], bird.kind.name

    def paint(rest: Array, u: Array, v: Array) -> Array:
        phi = np.abs(360 * u - 180)
        mixed = np.broadcast_to(colour, rest.shape) * (0.82 + 0.18 * smoothstep(130, 60, phi))[:, None]
        mixed = _mix(mixed, 0.35 * colour, _band(97, 107, phi, 4) * smoothstep(0.05, 0.15, v))
        if kind == "gull":
            mixed = _mix(mixed, np.array([0.75, 0.12, 0.08]), _band(0.55, 0.72, v, 0.04) * smoothstep(105, 120, phi))
        return mixed

    return Surface(_turn_head(bird, points), paint, 0.8, wrap=True, rest=points)


def _crest(bird: Bird) -> list[Surface]:
    """A pointed tuft from the crown upwards and back."""
    if bird.kind.crest <= 0:
        return []
    radius, height = bird.kind.head[0], bird.kind.crest
    y, z = bird.sections[10, :2]
    up, back = _direction(bird.head_pitch + 90), _direction(bird.head_pitch + 180)
    t = np.linspace(0, 1, 7)[:, None]
    flat = (0.55 * radius + (height + 0.35 * radius) * t) * up + (
        0.85 * (height + 0.3 * radius) * t**1.6 - 0.25 * radius
    ) * back
    path = np.concatenate([0 * t, flat + np.array([y, z])], 1)
    taper = np.array([1, 0.95, 0.8, 0.6, 0.4, 0.2, 0.05])
    points = shapes.tube(path, np.stack([0.4 * radius * taper, 0.62 * radius * taper], -1), 13, (0, 0, 1))
    colour, noise = bird.zones["crest"], bird.noise

    def paint(rest: Array, u: Array, v: Array) -> Array:
        return np.clip(colour * (1 + 0.12 * value_noise(noise, 40 * u, 6 * v)[:, None]), 0, 1)

    return [Surface(_turn_head(bird, points), paint, 0.1, wrap=True, rest=points)]


def _tail_point(bird: Bird, along: Array, across: Array) -> Array:
    """Places ``(..., 3)`` on the tail: ``along`` 0 to 1, ``across`` -1 (right) to 1 (left)."""
    length, base, tip, fork, _ = bird.kind.tail
    slope = bird.posture + 180 - bird.tail_slope
    back, up = _direction(slope), _direction(slope - 90)
    root = bird.sections[1, :2] + 0.04 * up
    a = np.abs(across)
    reach = length * (1 - fork * (1 - a**1.3) if fork > 0 else 1 + fork * a**2) * along
    wide = (base + (tip * bird.tail_fan - base) * along) * across
    roof = -0.5 * np.abs(wide) + 0.05 * along * (1 - along)
    flat = root + reach[..., None] * back + roof[..., None] * up
    return np.concatenate([wide[..., None], flat], -1)


def _tail(bird: Bird) -> Surface:
    along, across = np.meshgrid(np.linspace(0, 1, 15), np.linspace(-1, 1, 21), indexing="ij")
    zones, noise = bird.zones, bird.noise
    bars = "bars" in bird.kind.marks and bird.kind.name == "jay"

    def paint(rest: Array, u: Array, v: Array) -> Array:
        feathers = np.abs(np.sin(6 * np.pi * (u - 0.5)))
        colour = np.broadcast_to(zones["tail"], rest.shape) * (0.72 + 0.34 * smoothstep(0.0, 0.35, feathers))[:, None]
        colour = _mix(colour, zones.get("tailtip"), smoothstep(0.86, 0.92, v))
        if bars:
            colour = _mix(colour, np.full(3, 0.05), 0.8 * smoothstep(0.55, 0.8, np.sin(70 * v)))
        return np.clip(colour * (1 + 0.1 * value_noise(noise, 30 * u, 5 * v)[:, None]), 0, 1)

    return Surface(_tail_point(bird, along, across), paint, 0.1, two_sided=True)


def _folded_point(bird: Bird, side: int, t: Array, b: Array) -> Array:
    """Places on a folded wing: ``t`` from shoulder (0) to tip (1), ``b`` from the upper (0) to the lower edge (1)."""
    reach, lower = bird.kind.wing
    wide = np.sqrt(np.clip(t / 0.3, 0, 1)) * (1 - 0.25 * smoothstep(0.4, 1.0, t))
    top, bottom = 72 - 54 * wide, 72 + (lower - 72) * wide
    angle = top + (bottom - top) * b
    bulge = 1.075 + 0.05 * np.sin(np.pi * b) * np.sin(np.pi * np.clip(t, 0, 1)) - 0.03 * b**4
    on_body = _skin(bird, 4.75 - 4.1 * np.minimum(t / 0.9, 1), side * angle, bulge, turned=False)
    back = _direction(bird.posture + 180 - 0.6 * bird.tail_slope)
    end = bird.sections[1, :2] + reach * back
    chord = (0.5 - b) * 0.1 * np.sqrt(np.clip(1 - t, 0, 1))
    up = _direction(bird.posture + 90)
    flat = end + 0.05 * up + chord[..., None] * up
    tip = np.concatenate([np.broadcast_to(side * 0.07, t.shape)[..., None], flat], -1)
    return on_body + (tip - on_body) * (smoothstep(0.35, 1.12, t) ** 1.15 / smoothstep(0.35, 1.12, 1.0))[..., None]


def _folded(bird: Bird, side: int) -> Surface:
    t, b = np.meshgrid(
        np.concatenate([[0, 0.015, 0.05], np.linspace(0.1, 1, 18)]), np.linspace(0, 1, 13), indexing="ij"
    )
    points = _folded_point(bird, side, t, b)
    rest = np.stack([t, b, 0 * t], -1)
    zones, noise, marks = bird.zones, bird.noise, bird.kind.marks

    def paint(at: Array, u: Array, v: Array) -> Array:
        t, b = at[:, 0], at[:, 1]
        ragged = 0.02 * value_noise(noise, 9 * b, 9 * t)
        front = t + ragged - 0.1 * b
        colour = np.broadcast_to(zones["wing"], at.shape)
        scale = np.sin(60 * t + np.pi * np.floor(9 * b)) * np.sin(9 * np.pi * b)
        if "scales" in marks:
            dark = zones.get("mark")
            colour = _mix(
                colour,
                0.5 * colour if dark is None else dark,
                0.6 * smoothstep(0.1, 0.6, scale) * smoothstep(0.5, 0.4, front),
            )
        colour = colour * (1 + 0.07 * np.clip(2 * scale, -1, 1) * smoothstep(0.5, 0.4, front))[:, None]
        flying = smoothstep(0.38, 0.42, front)
        vane = (b * 8 + 1.4 * t) % 1
        feather = np.broadcast_to(zones["flight"], at.shape) * (0.78 + 0.3 * smoothstep(0.0, 0.25, vane))[:, None]
        edge = smoothstep(0.86, 0.94, vane)
        feather = _mix(feather, 0.45 * zones["flight"] + 0.5 * zones["wing"], 0.8 * edge)
        feather = _mix(feather, zones["tip"], smoothstep(0.72, 0.8, t))
        colour = _mix(colour, feather, flying)
        if "bars" in marks and zones.get("mark") is not None:
            spots = np.sin(2 * np.pi * t * 9 + 2.4 * np.floor(8 * b)) * smoothstep(0.2, 0.3, t)
            colour = _mix(colour, zones["mark"], 0.95 * smoothstep(0.35, 0.6, spots))
        for place in (0.24, 0.4):
            colour = _mix(
                colour,
                zones.get("bar"),
                0.9 * _band(place - 0.022, place + 0.022, front, 0.008) * smoothstep(0.22, 0.35, b),
            )
        colour = colour * (1 - 0.3 * smoothstep(0.9, 1.0, b))[:, None]
        return np.clip(colour * (1 + 0.06 * value_noise(noise, 60 * b, 20 * t)[:, None]), 0, 1)

    return Surface(points, paint, 0.15, two_sided=True, rest=rest)


def _spread_point(bird: Bird, side: int, p: Array, q: Array) -> Array:
    """Places on a spread wing: ``p`` from the body (0) to the tip (1), ``q`` from the front (0) to the rear edge."""
    span, chord, point = bird.kind.spread
    inner, outer = np.radians(bird.flap)
    hand = np.maximum(p - 0.42, 0)
    arm = np.minimum(p, 0.42)
    out = span * (arm * np.cos(inner) + hand * np.cos(outer))
    up = span * (arm * np.sin(inner) + hand * np.sin(outer))
    lead = (
        0.13 * span * np.sin(np.pi / 2 * np.clip(arm / 0.42, 0, 1))
        - span * (0.16 + 0.24 * point) * (hand / 0.58) ** 1.6 * 0.58
    )
    shape = (1 - np.clip(hand / 0.58, 0, 1) ** (2.6 - 1.5 * point)) ** (0.45 + 0.45 * point)
    fingers = 1 + (0.03 + 0.1 * (1 - point) * smoothstep(0.55, 0.9, p)) * np.abs(np.sin(np.pi * 15 * p)) * q
    wide = chord * (1 - 0.12 * np.sin(np.pi * np.clip(p / 0.42, 0, 1))) * np.maximum(shape, 0.02) * fingers
    camber = 0.09 * chord * np.sin(np.pi * np.sqrt(q)) * shape
    root = _skin(bird, 4.5, side * 52.0, 0.92, turned=False)
    along, dorsal = bird.axis, bird.dorsal
    flat = (lead - q * wide)[..., None] * along + (up + camber)[..., None] * dorsal
    return root + flat + side * out[..., None] * np.array([1.0, 0, 0])


def _spread(bird: Bird, side: int) -> Surface:
    p, q = np.meshgrid(np.linspace(0, 1, 61), np.linspace(0, 1, 9), indexing="ij")
    zones, noise = bird.zones, bird.noise

    def paint(at: Array, u: Array, v: Array) -> Array:
        p, q = at[:, 0], at[:, 1]
        colour = np.broadcast_to(zones["wing"], at.shape) * (1 + 0.08 * np.sin(40 * p) * np.sin(30 * q))[:, None]
        vane = (15 * p - 0.5 * q) % 1
        feather = np.broadcast_to(zones["flight"], at.shape) * (0.75 + 0.35 * smoothstep(0.0, 0.3, vane))[:, None]
        feather = _mix(feather, zones["tip"], smoothstep(0.76, 0.82, p))
        split = 0.36 - 0.2 * p
        colour = _mix(colour, feather, smoothstep(split - 0.02, split + 0.03, q))
        bar = zones.get("bar")
        colour = _mix(colour, bar, 0.9 * _band(0.33, 0.39, q + 0.2 * p, 0.012) * smoothstep(0.85, 0.75, p))
        return np.clip(colour * (1 + 0.06 * value_noise(noise, 50 * p, 12 * q)[:, None]), 0, 1)

    return Surface(_spread_point(bird, side, p, q), paint, 0.1, two_sided=True, rest=np.stack([p, q, 0 * p], -1))


@dataclass(frozen=True)
class Leg:
    """Joints of one leg, each ``(3,)``."""

    hip: Array
    heel: Array
    foot: Array
    toes: Array


def _leg(bird: Bird, side: int) -> Leg:
    """Where a leg is: under the body when standing, forward against a trunk, trailing or tucked in flight."""
    length = bird.kind.leg[0]
    hip = _skin(bird, 2.75, side * 150.0, 0.8, turned=False)
    x = np.array([side * 1.0, 0, 0])
    if bird.place == "flight":
        along, dorsal = bird.axis, bird.dorsal
        low = _skin(bird, 2.3, side * 160.0, 1.02, turned=False)
        heel = low - 0.25 * length * along - 0.03 * dorsal
        foot = heel - 0.62 * length * along + 0.06 * length * dorsal
        return Leg(hip, heel, foot, -along + 0.15 * dorsal)
    step = side * bird.stride * length
    hip_y, hip_z = hip[1], hip[2]
    if bird.place == "trunk":
        front = _skin(bird, 3.6, 180.0, 1.0)[2] + 0.1
        foot = np.array([side * 0.2, hip_y + 0.18 + 0.3 * step, front])
        return Leg(hip, (hip + foot) / 2 + [side * 0.06, -0.12, 0.0], foot, np.array([0, 1.0, 0.1]))
    drop = length * (0.96 - 0.1 * abs(bird.stride))
    foot = np.array([side * 0.6 * abs(hip[0]), hip_y - 0.1 - drop, 0.05 + step]) + 0.15 * length * x * 0.3
    heel = np.array([hip[0], hip_y - 0.1 - 0.34 * drop, min(hip_z, foot[2]) - 0.14 * length])
    return Leg(hip, heel, foot, np.array([0.0, 0.0, 1.0]))


def _legs(bird: Bird) -> list[Surface]:
    thick, colour = bird.kind.leg[1], np.asarray(bird.zones["leg"])
    tint = (float(colour[0]), float(colour[1]), float(colour[2]))
    feather = np.asarray(bird.zones["belly"])
    thigh = (float(feather[0] * 0.92), float(feather[1] * 0.92), float(feather[2] * 0.92))
    surfaces = []
    for side in (1, -1):
        leg = _leg(bird, side)
        upper = np.linspace(leg.hip, leg.heel, 5)
        fat = np.array([0.1, 0.085, 0.055, 0.025, 0.0]) * (bird.kind.depth / 0.27) + thick
        surfaces.append(Surface(shapes.tube(upper, fat, 11, caps=(False, False)), thigh, 0.05, wrap=True))
        ends = _toe_ends(bird, leg)
        behind = leg.foot - 0.55 * (ends[1] - leg.foot)
        rods = _rods(np.stack([leg.heel, *[leg.foot] * 4]), np.stack([leg.foot, *ends, behind]), thick)
        surfaces += [Surface(points, tint, 0.3, wrap=True, two_sided=True) for points in rods]
        if bird.kind.name in ("duck", "gull") or "albatross" in bird.kind.name:
            surfaces.append(Surface(_web(bird, leg), tint, 0.3, two_sided=True))
    return surfaces


def _toe_ends(bird: Bird, leg: Leg) -> list[Array]:
    size = 0.1 + 2 * bird.kind.leg[1]
    if bird.place == "flight":
        size *= 0.6
    across, down = np.array([1.0, 0, 0]), np.array([0, -0.25, 0]) if bird.place == "branch" else np.zeros(3)
    return [leg.foot + size * (leg.toes + slant * across + down) for slant in (-0.5, 0.0, 0.5)]


def _rods(starts: Array, ends: Array, thick: float) -> Array:
    """Straight thin tubes ``(N, 4, 7, 3)`` between places ``(N, 3)``; far cheaper than one bent tube each."""
    along = r.unit(ends - starts)
    across = r.unit(r.cross(along, np.where(np.abs(along[:, :1]) < 0.8, [[1.0, 0, 0]], [[0, 1.0, 0]])))
    third = r.cross(along, across)
    angle = np.linspace(-np.pi, np.pi, 7)[None, :, None]
    ring = thick * (np.cos(angle) * across[:, None] + np.sin(angle) * third[:, None])
    share, width = np.array([-0.02, 0.3, 0.9, 1.03]), np.array([0.9, 0.95, 0.85, 0.1])
    path = starts[:, None] + share[None, :, None] * (ends - starts)[:, None]
    return path[:, :, None] + width[None, :, None, None] * ring[:, None]


def _web(bird: Bird, leg: Leg) -> Array:
    ends = np.array(_toe_ends(bird, leg))
    return np.stack([np.broadcast_to(leg.foot, (3, 3)), 0.92 * ends + 0.08 * leg.foot])


def _body(bird: Bird) -> Surface:
    s, angle = np.meshgrid(np.linspace(0, 13, _ROWS), np.linspace(-180, 180, _COLUMNS), indexing="ij")
    rest = _skin(bird, s, -angle, turned=False)
    turned = _turn_head(bird, rest, smoothstep(5.0, 9.0, s))
    return Surface(turned, _plumage(bird, _eye_places(bird, turned=False)), 0.12, wrap=True, rest=rest)


def surfaces(bird: Bird) -> list[Surface]:
    """All surfaces of a bird in its own frame; a swimming bird has no legs to show."""
    parts = [_body(bird), _tail(bird), _beak(bird), *_eyes(bird), *_crest(bird)]
    make = _spread if bird.open_wings else _folded
    parts += [make(bird, 1), make(bird, -1)]
    return parts if bird.place == "water" else parts + _legs(bird)


def landmarks(bird: Bird) -> Array:
    """Places ``(15, 3)`` of the parts in the bird's own frame, in the order of :data:`LANDMARK_NAMES`."""
    angle = [180.0 if name in ("belly", "breast", "throat") else 0.0 for name in _S]
    on_skin = dict(zip(_S, _skin(bird, np.array(list(_S.values())), np.array(angle)), strict=True))
    eyes = _eye_places(bird, turned=True)
    legs = [_leg(bird, side) for side in (1, -1)]
    point, where = (_spread_point, (0.36, 0.42)) if bird.open_wings else (_folded_point, (0.42, 0.5))
    wings = [point(bird, side, np.array([where[0]]), np.array([where[1]]))[0] for side in (1, -1)]
    places = on_skin | {
        "beak": _turn_head(bird, _beak_path(bird, np.array([0.6])))[0],
        "left eye": eyes[0], "right eye": eyes[1],
        "left leg": legs[0].heel + 0.4 * (legs[0].foot - legs[0].heel),
        "right leg": legs[1].heel + 0.4 * (legs[1].foot - legs[1].heel),
        "left wing": wings[0], "right wing": wings[1],
        "tail": _tail_point(bird, np.array([0.62]), np.array([0.0]))[0],
    }  # fmt: skip
    return np.stack([places[name] for name in LANDMARK_NAMES])


def _reach(bird: Bird) -> Array:
    """How deep below the visible surface each part may lie and still be seen, ``(15,)``.

    Back, belly and the like lie on the outline in a side view, where the flank rises steeply before them; they
    count as visible there. Whether the annotators of CUB do the same was not checked.
    """
    kind = bird.kind
    deep = dict.fromkeys(("back", "belly", "breast"), 0.6 * kind.width) | {"throat": 0.6 * kind.neck[2]}
    deep |= dict.fromkeys(("crown", "forehead", "nape"), 0.6 * kind.head[0])
    deep |= {"beak": kind.beak[1], "left eye": kind.eye[0], "right eye": kind.eye[0]}
    deep |= {"tail": 0.5 * kind.tail[1], "left leg": kind.leg[1], "right leg": kind.leg[1]}
    # A spread wing seen along its plane is as steep as a flank.
    deep |= dict.fromkeys(("left wing", "right wing"), 0.14 if bird.open_wings else 0.03)
    return np.array([deep[name] for name in LANDMARK_NAMES])


# ---------------------------------------------------------------------------------------------- surroundings

_LEAVES = ((0.24, 0.42, 0.12), (0.36, 0.5, 0.16), (0.16, 0.3, 0.12), (0.55, 0.56, 0.22), (0.6, 0.38, 0.14))
_BARKS = ((0.36, 0.27, 0.2), (0.45, 0.42, 0.38), (0.28, 0.22, 0.18), (0.55, 0.46, 0.36))


@dataclass(frozen=True)
class Canvas:
    """A picture in display values ``(S, S, 3)`` with normalised coordinates; or a row of places ``(1, N, 3)``."""

    image: Array
    x: Array
    y: Array

    @classmethod
    def of(cls, size: int) -> Canvas:
        """An empty canvas."""
        axis = ((np.arange(size) + 0.5) / size).astype(F32)
        y, x = np.meshgrid(axis, axis, indexing="ij")
        return cls(np.zeros((size, size, 3), F32), x, y)

    def window(self, x: float, y: float, reach: float) -> tuple[slice, slice]:
        """The pixels within ``reach`` of a place, as slices; of a row of places all."""
        size = len(self.image)
        if size != self.image.shape[1]:
            return slice(None), slice(None)
        low = [int(np.clip(np.floor((c - reach) * size), 0, size)) for c in (y, x)]
        high = [int(np.clip(np.ceil((c + reach) * size), 0, size)) for c in (y, x)]
        return slice(low[0], high[0]), slice(low[1], high[1])


def _pick(rng: np.random.Generator, colours: tuple[RGB, ...], spread: float = 0.05) -> Array:
    """One of the colours, brighter or darker by ``spread`` and with less of a change in hue."""
    change = rng.normal(0, 1.3 * spread) + rng.normal(0, 0.4 * spread, 3)
    return np.clip(np.array(colours[rng.integers(len(colours))]) + change, 0.03, 0.97)


def _sky(rng: np.random.Generator, canvas: Canvas) -> None:
    tops = (
        (0.35, 0.55, 0.82),
        (0.55, 0.7, 0.88),
        (0.75, 0.77, 0.8),
        (0.6, 0.62, 0.66),
        (0.25, 0.42, 0.7),
        (0.85, 0.75, 0.65),
    )
    top, bottom = _pick(rng, tops), np.clip(_pick(rng, tops) + 0.14, 0, 0.97)
    canvas.image[:] = top + (bottom - top) * canvas.y[..., None]
    grid, frequency, amount = rng.uniform(-1, 1, (16, 16)).astype(F32), rng.uniform(1.5, 4), rng.uniform(0, 0.8)
    cloud = value_noise(grid, frequency * canvas.x, 2 * frequency * canvas.y)
    cloud = cloud + 0.5 * value_noise(grid, 2.3 * frequency * canvas.x, 4.1 * frequency * canvas.y)
    canvas.image[:] += (0.95 - canvas.image) * (amount * smoothstep(0.05, 0.9, cloud))[..., None]


def _foliage(rng: np.random.Generator, canvas: Canvas) -> None:
    """Out-of-focus leaves and light between them."""
    first, second = _pick(rng, _LEAVES), _pick(rng, (*_LEAVES, *_BARKS, (0.1, 0.14, 0.08), (0.75, 0.8, 0.7)))
    grid, frequency = rng.uniform(-1, 1, (16, 16)).astype(F32), rng.uniform(2, 7)
    blend = 0.5 + 0.5 * value_noise(grid, frequency * canvas.x + 3, frequency * canvas.y)
    canvas.image[:] = first + (second - first) * blend[..., None]
    bright = 0.2 + 0.8 * rng.random()
    for _ in range(int(rng.integers(0, 22))):
        x, y, reach = *rng.uniform(-0.05, 1.05, 2), rng.uniform(0.03, 0.15)
        colour = _pick(rng, (*_LEAVES, (0.85, 0.88, 0.75), (0.12, 0.16, 0.09)), 0.08)
        soft, cover = rng.uniform(0.15, 0.6), bright * rng.uniform(0.25, 0.7)
        at = canvas.window(x, y, reach)
        far = np.sqrt((canvas.x[at] - x) ** 2 + (canvas.y[at] - y) ** 2) / reach
        canvas.image[at] += (colour - canvas.image[at]) * (cover * smoothstep(1.0, 1.0 - soft, far))[..., None]


def _ground(rng: np.random.Generator, canvas: Canvas, horizon: float) -> None:
    """Grass, sand, rock or snow below ``horizon``, something blurred above it."""
    (_sky if rng.random() < 0.35 else _foliage)(rng, canvas)
    lands = (
        (0.4, 0.48, 0.2),
        (0.72, 0.62, 0.45),
        (0.5, 0.46, 0.42),
        (0.88, 0.89, 0.92),
        (0.42, 0.32, 0.22),
        (0.55, 0.58, 0.3),
    )
    near = _pick(rng, lands)
    far = np.clip(near * rng.uniform(0.75, 1.15) + rng.normal(0, 0.04, 3), 0, 1)
    depth = np.clip((canvas.y - horizon) / max(1.05 - horizon, 0.1), 0, 1)
    grid, fine, amount = rng.uniform(-1, 1, (32, 32)).astype(F32), rng.uniform(0.5, 1.6), rng.uniform(0.03, 0.14)
    scale = 1 / (0.25 + depth)
    texture = value_noise(grid, 7 * fine * canvas.x * scale, 16 * fine * scale + 0 * canvas.x)
    texture = texture + 0.8 * depth * value_noise(grid, 34 * fine * canvas.x, 30 * fine * canvas.y)
    land = far + (near - far) * depth[..., None] + amount * texture[..., None]
    edge = horizon + 0.015 * value_noise(grid, 9 * canvas.x, 0 * canvas.x)
    soft = rng.uniform(0.005, 0.06)
    canvas.image[:] += (land - canvas.image) * smoothstep(-soft, soft, canvas.y - edge)[..., None]


def _water(rng: np.random.Generator, canvas: Canvas, horizon: float) -> None:
    waters = (
        (0.25, 0.38, 0.5),
        (0.4, 0.5, 0.55),
        (0.2, 0.3, 0.3),
        (0.5, 0.58, 0.66),
        (0.35, 0.38, 0.28),
        (0.12, 0.2, 0.3),
    )
    if horizon > 0:
        (_sky if rng.random() < 0.5 else _foliage)(rng, canvas)
    near = _pick(rng, waters)
    far = np.clip(near + rng.uniform(-0.1, 0.25), 0.05, 0.95)
    depth = np.clip((canvas.y - horizon) / max(1.05 - horizon, 0.1), 0, 1)
    grid, amount, waves = rng.uniform(-1, 1, (32, 32)).astype(F32), rng.uniform(0.02, 0.13), rng.uniform(0.6, 1.5)
    rows = waves * 30 * np.sqrt(depth + 0.02)
    ripple = value_noise(grid, waves * 5 * canvas.x / (0.3 + depth), rows) + 0.6 * value_noise(
        grid, 14 * canvas.x, 2.2 * rows
    )
    water = far + (near - far) * depth[..., None] + amount * ripple[..., None]
    canvas.image[:] += (water - canvas.image) * smoothstep(-0.006, 0.006, canvas.y - horizon)[..., None]


@dataclass(frozen=True)
class Stick:
    """A branch or trunk: a place on its axis, direction, bend and half thickness; picture sides, radians."""

    x: float
    y: float
    angle: float
    bend: float
    half: float
    colour: Array
    grid: Array

    def cover(self, canvas: Canvas) -> tuple[Array, Array]:
        """How much of each pixel it covers ``(S, S)``, and its colours ``(S, S, 3)``."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        t = (canvas.x - self.x) * c + (canvas.y - self.y) * s
        n = (canvas.y - self.y) * c - (canvas.x - self.x) * s - self.bend * t * t
        half = self.half * (1 + 0.1 * value_noise(self.grid, 7 * t + 9, 0 * t)) * np.clip(1 - 0.25 * t, 0.6, 1.4)
        q = np.clip(n / half, -1, 1)
        bark = value_noise(self.grid, 22 * t, 60 * n + 5) + 0.7 * value_noise(self.grid, 60 * t, 140 * n)
        light = (0.38 + 0.5 * np.sqrt(1 - q * q) - 0.28 * q) * (1 + 0.22 * bark)
        return smoothstep(0.006, -0.002, np.abs(n) - half), np.clip(self.colour * light[..., None], 0, 1)

    def draw(self, canvas: Canvas) -> Array:
        """Paint it on the canvas; returns how much of each pixel it covers ``(S, S)``."""
        cover, colour = self.cover(canvas)
        canvas.image[:] += (colour - canvas.image) * cover[..., None]
        return cover


def _stick(rng: np.random.Generator, place: Array, angle: float, half: float) -> Stick:
    grid = rng.uniform(-1, 1, (32, 32)).astype(F32)
    return Stick(
        float(place[0]), float(place[1]), angle, float(rng.uniform(-0.25, 0.25)), half, _pick(rng, _BARKS), grid
    )


def _leaf(rng: np.random.Generator, canvas: Canvas, x: float, y: float, colour: Array, soft: float) -> Array:
    """Paint one leaf; returns how much it covers ``(S, S)``."""
    angle, long, wide = rng.uniform(0, 2 * np.pi), rng.uniform(0.08, 0.2), rng.uniform(0.22, 0.45)
    tone, cover = np.clip(colour + rng.normal(0, 0.05, 3), 0.03, 0.97), np.zeros_like(canvas.x)
    at = canvas.window(x, y, long + 0.03)
    dx, dy = canvas.x[at] - x, canvas.y[at] - y
    t = (dx * np.cos(angle) + dy * np.sin(angle)) / long + 0.5
    n = (dy * np.cos(angle) - dx * np.sin(angle)) / long
    outline = wide * np.sin(np.pi * np.clip(t, 0, 1)) ** 0.8 * (1 - 0.3 * t)
    share = smoothstep(soft, -soft, (np.abs(n) - outline) * long) * ((t > 0) & (t < 1))
    light = 0.85 + 0.5 * n - 0.35 * smoothstep(0.03, 0.0, np.abs(n)) + 0.1 * np.sin(50 * (t - np.abs(n)))
    canvas.image[at] += (np.clip(tone * light[..., None], 0, 1) - canvas.image[at]) * share[..., None]
    cover[at] = share
    return cover


def _spray(rng: np.random.Generator, canvas: Canvas, place: Array, count: int) -> Array:
    """Paint a spray of leaves about a place; returns how much it covers ``(S, S)``."""
    colour, soft, cover = _pick(rng, _LEAVES), rng.uniform(0.004, 0.02), np.zeros_like(canvas.x)
    for _ in range(count):
        x, y = place + rng.normal(0, 0.09, 2)
        cover = np.maximum(cover, _leaf(rng, canvas, float(x), float(y), colour, soft))
    return cover


# ---------------------------------------------------------------------------------------------- scenes

_PLACES = ("branch", "ground", "water", "flight", "trunk")


def _vary(kind: Kind, rng: np.random.Generator) -> Kind:
    """The same species, another bird: plumper or slimmer, longer or shorter here and there."""
    f = np.exp(np.clip(rng.normal(0, 0.07, 8), -0.16, 0.16))
    crest = kind.crest * float(np.clip(rng.normal(0.9, 0.35), 0.25, 1.3))
    return replace(
        kind, depth=kind.depth * f[0], width=kind.width * f[0] * f[1] ** 0.5, crest=crest,
        neck=(kind.neck[0] * f[2] ** 2, kind.neck[1], kind.neck[2] * f[0] ** 0.5), head=(kind.head[0] * f[3] ** 0.6,
        kind.head[1]),
        beak=(kind.beak[0] * f[4], *kind.beak[1:]), tail=(kind.tail[0] * f[5], *kind.tail[1:]),
        leg=(kind.leg[0] * f[6], kind.leg[1]),
        bend=kind.bend * float(rng.uniform(0.4, 1.5)),
    )  # fmt: skip


def sample_bird(rng: np.random.Generator, kind: Kind, aligned: bool = False) -> Bird:
    """Draw a bird of a species: its build, plumage, place and pose.

    Args:
        rng: Source.
        kind: The species.
        aligned: Whether it sits or stands with folded wings and looks about where it faces.
    """
    palette = kind.palettes[rng.integers(len(kind.palettes))]
    odds = np.array(kind.places) * (np.array([1, 1, 1, 0, 1]) if aligned else 1)
    place = _PLACES[rng.choice(5, p=odds / odds.sum())]
    kind, zones, noise = _vary(kind, rng), _resolve(palette, rng), rng.uniform(-1, 1, (32, 32)).astype(F32)
    if place == "flight":
        kind = _flying(kind)
    posture, pitch = _posture(rng, kind, place), float(np.clip(rng.normal(1, 9), -24, 24))
    up = float(rng.uniform(-14, 34) if kind.spread[0] > 1.7 else rng.uniform(-25, 62))
    return Bird(
        kind, zones, noise, place, posture,
        head_yaw=_glance(rng, place, aligned),
        head_pitch=pitch,
        flap=(up, up * float(rng.uniform(0.1, 1.0)) - float(rng.uniform(-8, 12))),
        lifted=bool(not aligned and place in ("branch", "ground", "water") and rng.random() < 0.06),
        stride=float(np.clip(rng.normal(0, 0.2), -0.45, 0.45)),
        tail_fan=float(rng.uniform(1.3, 2.6) if place == "flight" else rng.uniform(0.75, 1.35)),
        tail_slope=kind.tail[4] + float(rng.normal(0, 6)),
        sections=_sections(kind, posture, pitch),
    )  # fmt: skip


def _flying(kind: Kind) -> Kind:
    """The species with its neck as it flies: stretched ahead, or folded as herons do."""
    length, slope, thick = kind.neck
    if kind.name == "heron":
        return replace(kind, neck=(0.5, 30, 1.1 * thick), bend=0.3)
    return replace(kind, neck=(length, 0.5 * slope, thick))


def _posture(rng: np.random.Generator, kind: Kind, place: str) -> float:
    """Slope of the body: level in flight and on the water, upright on a trunk."""
    if place == "flight":
        return float(rng.uniform(35, 60) if kind.name == "hummingbird" else rng.normal(5, 10))
    if kind.name == "woodpecker" and place == "branch":
        return float(rng.uniform(40, 65))
    low, high = {"trunk": (64.0, 84.0), "water": (0.0, 6.0)}.get(place, kind.posture)
    return float(rng.uniform(low, high))


def _glance(rng: np.random.Generator, place: str, aligned: bool) -> float:
    """Yaw of the head against the body; at times it looks back."""
    if place == "flight":
        return float(np.clip(rng.normal(0, 6.5), -17, 17))
    if not aligned and rng.random() < 0.12:
        return float(rng.choice([-1, 1]) * rng.uniform(60, 120))
    return float(np.clip(rng.normal(0, 12 if aligned else 26), -70, 70))


def _heading(rng: np.random.Generator, bird: Bird, aligned: bool) -> Array:
    """Yaw, elevation of the camera above the bird, and roll, in degrees."""
    if aligned:
        return np.array(
            [
                -90 + np.clip(rng.normal(0, 9), -20, 20),
                np.clip(rng.normal(4, 4), -4, 12),
                np.clip(rng.normal(0, 3), -6, 6),
            ]
        )
    side = rng.choice([-90.0, 90.0])
    sideways = 0.4 if bird.place == "flight" else 0.7
    yaw = side + np.clip(rng.normal(0, 24), -50, 50) if rng.random() < sideways else rng.uniform(-180, 180)
    if bird.place == "trunk" and abs(yaw) < 60:
        yaw = np.sign(yaw) * (120 - abs(yaw))
    flying = bird.place == "flight"
    elevation = np.clip(rng.normal(-5, 22), -50, 40) if flying else np.clip(rng.normal(6, 7), -12, 26)
    roll = np.clip(rng.normal(0, 16 if flying else 4), -40, 40)
    return np.array([(yaw + 180) % 360 - 180, elevation, roll])


def _posing(yaw: float, elevation: float, roll: float) -> Array:
    """Rotation ``(3, 3)`` that banks the bird, turns it and tilts it to the camera."""
    e = np.radians(elevation)
    tilt = np.array([[1, 0, 0], [0, np.cos(e), -np.sin(e)], [0, np.sin(e), np.cos(e)]])
    return tilt @ r.rotation(yaw, 0, 0) @ r.rotation(0, 0, roll)


def _surroundings(rng: np.random.Generator, bird: Bird, size: int, feet: Array, low: float, yaw: float) -> Canvas:
    """What lies behind the bird; ``feet`` is where it stands and ``low`` the height of its belly, in picture sides."""
    canvas = Canvas.of(size)
    if bird.place == "water":
        _water(rng, canvas, float(rng.choice([-0.3, low - rng.uniform(0.1, 0.45)])))
        return canvas
    if bird.place == "ground":
        _ground(rng, canvas, float(np.clip(feet[1] - rng.uniform(0.04, 0.35), -0.2, 0.97)))
        shade = r.bump((canvas.x - feet[0]) / 0.2, (canvas.y - feet[1] - 0.005) / 0.022)
        canvas.image[:] *= (1 - 0.42 * shade)[..., None]
        return canvas
    kind = rng.random()
    if kind < (0.5 if bird.place == "flight" else 0.2):
        _sky(rng, canvas)
    elif kind < 0.88:
        _foliage(rng, canvas)
    else:
        # Clutter, far behind and out of focus: drawn small and enlarged, whatever the picture's size.
        clutter = torch.from_numpy(r.encode(r.background(rng, 40)).transpose(2, 0, 1))[None]
        large = torch.nn.functional.interpolate(clutter, (size, size), mode="bilinear", antialias=True)
        canvas.image[:] = large[0].numpy().transpose(1, 2, 0)
    if bird.place == "flight":
        return canvas
    for _ in range(int(rng.integers(0, 3))):
        _stick(rng, rng.uniform(0, 1, 2), rng.uniform(0, np.pi), rng.uniform(0.006, 0.02)).draw(canvas)
    if rng.random() < 0.4:
        _spray(rng, canvas, rng.uniform(0, 1, 2), int(rng.integers(3, 9)))
    if bird.place == "trunk":
        half = rng.uniform(0.09, 0.2)
        beside = np.array([half * np.sin(np.radians(yaw)) * 0.96, 0.0])
        _stick(rng, feet + beside, np.pi / 2 + rng.normal(0, 0.08), half).draw(canvas)
    else:
        half, angle = rng.uniform(0.014, 0.05), np.clip(rng.normal(0, 0.28), -0.7, 0.7)
        _stick(rng, feet + np.array([0.0, 0.85 * half]), angle, half).draw(canvas)
    return canvas


def _wet(rng: np.random.Generator, sample: Sample, behind: Array, line: float) -> None:
    """Let the water, ``behind`` in display values ``(S, S, 3)``, rise to ``line`` and mirror what is above it."""
    image, size = sample["image"].numpy().transpose(1, 2, 0), behind.shape[0]
    canvas = Canvas.of(size)
    grid, strength = rng.uniform(-1, 1, (32, 32)).astype(F32), rng.uniform(0.15, 0.5)
    shake = value_noise(grid, 10 * canvas.x, 60 * canvas.y)
    row = np.clip(((2 * line - canvas.y + 0.012 * shake) * size).astype(int), 0, size - 1)
    column = np.clip(((canvas.x + 0.012 * shake) * size).astype(int), 0, size - 1)
    mirrored = sample["mask"].numpy()[row, column][..., None] * strength
    below = behind + (0.7 * image[row, column] - behind) * mirrored
    edge = line + 0.006 * value_noise(grid, 22 * canvas.x, 0 * canvas.x)
    cover = smoothstep(-0.004, 0.004, canvas.y - edge)
    mixed = image + (below - image) * cover[..., None]
    rim = r.bump((canvas.y - edge) / 0.006) * 0.25
    mixed = np.clip(mixed + rim[..., None] * sample["mask"].numpy()[..., None], 0, 1)
    hidden = sample["landmarks"].numpy()[:, 1] > size * (line + 0.012)
    hidden[[7, 11]] = True
    _cover(sample, mixed, cover, hidden)


def _cover(sample: Sample, image: Array, cover: Array, hidden: Array) -> None:
    """Put ``image`` in place, take from the mask what ``cover`` ``(S, S)`` hides, and from the parts the ``hidden``."""
    sample["image"] = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1), F32))
    sample["visible"] = sample["visible"] & torch.from_numpy(~hidden)
    sample["mask"] = sample["mask"] & torch.from_numpy(cover < 0.5)


def _thicket(rng: np.random.Generator, canvas: Canvas, feet: Array, perched: bool) -> Array:
    """Paint leaves, and at times a twig, before the bird; returns how much they cover ``(S, S)``."""
    middle = feet if perched and rng.random() < 0.5 else rng.uniform(0.1, 0.9, 2)
    cover = _spray(rng, canvas, middle, int(rng.integers(1, 5)))
    if rng.random() < 0.4:
        twig = _stick(rng, rng.uniform(0.1, 0.9, 2), rng.uniform(0, np.pi), rng.uniform(0.005, 0.012))
        cover = np.maximum(cover, twig.draw(canvas))
    return cover


def _foreground(rng: np.random.Generator, sample: Sample, feet: Array, perched: bool) -> None:
    size, seed = sample["image"].shape[-1], int(rng.integers(2**31))
    canvas = replace(Canvas.of(size), image=sample["image"].numpy().transpose(1, 2, 0).copy())
    cover = _thicket(np.random.default_rng(seed), canvas, feet, perched)
    # The same leaves once more at the landmarks alone, so that visibility does not depend on the picture's size.
    places = sample["landmarks"].numpy().T[:, None] / size
    points = Canvas(np.zeros((*places[0].shape, 3), F32), *places)
    hidden = _thicket(np.random.default_rng(seed), points, feet, perched)[0] > 0.5
    _cover(sample, canvas.image, cover, hidden)


def _info(scene: str) -> Info:
    return Info(
        name=f"procedural:{scene}",
        landmark_names=LANDMARK_NAMES,
        flip_pairs=FLIP_PAIRS,
        skeleton=SKELETON,
        normaliser="image",
        licence="CC0 (drawn by ulm)",
        citation="Drawn by ulm; the 15 parts are those of Wah et al., The Caltech-UCSD Birds-200-2011 Dataset (2011).",
    )


class BirdScene:
    """One of the scenes ``birds``, ``birds-aligned`` and ``birds-001`` to ``birds-003``, by its name.

    ``birds`` stands in for CUB-200-2011 as StableKeypoints and AutoLink use it ("all"), ``birds-aligned`` for its
    aligned subset (every bird faces left and fills the picture), ``birds-001`` to ``birds-003`` for the first three
    classes, which in CUB are albatrosses too. Errors are fractions of the image's side over visible parts (normaliser
    ``image``).

    Args:
        scene: A name in :data:`SCENES`.
    """

    def __init__(self, scene: str):
        self.name = scene
        self.info = _info(scene)

    def draw(self, rng: np.random.Generator, size: int) -> Sample:
        """Draw one sample; the same generator gives the same scene at every size.

        Returns:
            A sample as :class:`ulm.datasets.base.Dataset` says, with ``yaw`` (0: towards the viewer, -90: to the
            image's left, within [-180, 180)) and ``species`` (a name in :data:`KINDS`).
        """
        aligned = self.name == "birds-aligned"
        bird = sample_bird(rng, self._kind(rng), aligned)
        yaw, elevation, roll = _heading(rng, bird, aligned)
        matrix = _posing(yaw, elevation, roll)
        parts = [part.moved(matrix) for part in surfaces(bird)]
        marks = landmarks(bird) @ matrix.T
        light = shapes.sample_light(rng)
        camera = self._camera(rng, np.concatenate([part.points.reshape(-1, 3) for part in parts]))
        feet = np.stack([_leg(bird, side).foot for side in (1, -1)]).mean(0) @ matrix.T
        feet = camera.project(feet, 1.0)
        low = float(camera.project(_skin(bird, 2.9, 180.0, 0.55) @ matrix.T, 1.0)[1])
        behind = r.decode(np.clip(_surroundings(rng, bird, size, feet, low, yaw).image, 0.01, 0.99))
        sample = shapes.picture(parts, camera, light, behind, marks, _reach(bird))
        del sample["parts"]
        if bird.place == "water":
            _wet(rng, sample, r.encode(behind * F32(light.exposure)), low)
        elif rng.random() < (0.08 if aligned or bird.place == "flight" else 0.3):
            _foreground(rng, sample, feet, bird.place == "branch")
        return {**sample, "yaw": float(yaw), "species": bird.kind.name}

    def _kind(self, rng: np.random.Generator) -> Kind:
        """The species; the three sub-sets have one each, the others all, the albatrosses seldom."""
        if self.name in SUBSETS:
            return next(kind for kind in KINDS if kind.name == SUBSETS[self.name])
        odds = np.array([1.0 if kind in _COMMON else 0.35 for kind in KINDS])
        return KINDS[rng.choice(len(KINDS), p=odds / odds.sum())]

    def _camera(self, rng: np.random.Generator, points: Array) -> Camera:
        if self.name == "birds-aligned":
            return shapes.frame(points, rng, (0.84, 0.94), 0.015)
        return shapes.frame(points, rng, (0.48, 0.92), 0.055)
