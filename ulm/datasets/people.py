"""Procedural people: stand-ins for Human3.6M and MPII, Tai-Chi-HD and DeepFashion.

``people`` and ``people-shifted`` are short videos of one person who does one of the six actions of Zhang's protocol on
Human3.6M, annotated with the 32 joints of that data set (the second: shifted crops of varying scale, as the unaligned
Human3.6M of StableKeypoints); ``exercise`` is a video of slow, tai-chi-like exercise with
18 joints; ``fashion`` is one picture of a standing, dressed person before a plain backdrop with 17 key points.
The bodies are those of :mod:`ulm.datasets.bodies`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ulm.datasets import rendering as r
from ulm.datasets import shapes
from ulm.datasets.base import Info, Sample
from ulm.datasets.bodies import (
    TALL,
    Arm,
    Body,
    Cloth,
    Colour,
    Leg,
    Pose,
    Posed,
    blend,
    measures,
    plant_leg,
    pose_body,
    pose_joints,
    reach_arm,
    rotate,
    sample_body,
)
from ulm.datasets.rendering import Array, Camera, bump, smoothstep

FRAMES = 16
ACTIONS = ("directions", "discussion", "greeting", "posing", "waiting", "walking")

# ---------------------------------------------------------------------------------------------- annotation

# Name and joint of bodies.JOINTS. The order is Human3.6M's own (Hips, RightUpLeg, RightLeg, RightFoot, RightToeBase,
# Site, LeftUpLeg, ...); 11, 16, 20, 23, 24, 28 and 31 repeat other joints there as well.
H36M = (
    ("Hip", "pelvis"), ("RHip", "right_hip"), ("RKnee", "right_knee"), ("RFoot", "right_ankle"),
    ("RToeBase", "right_toe_base"), ("RToeEnd", "right_toe"), ("LHip", "left_hip"), ("LKnee", "left_knee"),
    ("LFoot", "left_ankle"), ("LToeBase", "left_toe_base"), ("LToeEnd", "left_toe"), ("SpineBase", "pelvis"),
    ("Spine", "spine"), ("Thorax", "thorax"), ("Neck/Nose", "neck"), ("Head", "head_top"), ("LCollar", "thorax"),
    ("LShoulder", "left_shoulder"), ("LElbow", "left_elbow"), ("LWrist", "left_wrist"), ("LThumbBase", "left_wrist"),
    ("LThumbEnd", "left_thumb"), ("LHandEnd", "left_hand"), ("LHandSite", "left_hand"), ("RCollar", "thorax"),
    ("RShoulder", "right_shoulder"), ("RElbow", "right_elbow"), ("RWrist", "right_wrist"),
    ("RThumbBase", "right_wrist"), ("RThumbEnd", "right_thumb"), ("RHandEnd", "right_hand"),
    ("RHandSite", "right_hand"),
)  # fmt: skip
MPII_16 = (3, 2, 1, 6, 7, 8, 0, 13, 14, 15, 27, 26, 25, 17, 18, 19)
"""r ankle, r knee, r hip, l hip, l knee, l ankle, pelvis, thorax, upper neck, head top, r wrist, r elbow, r shoulder,
l shoulder, l elbow, l wrist."""

OPENPOSE_18 = (
    ("nose", "nose"), ("neck", "thorax"), ("right shoulder", "right_shoulder"), ("right elbow", "right_elbow"),
    ("right wrist", "right_wrist"), ("left shoulder", "left_shoulder"), ("left elbow", "left_elbow"),
    ("left wrist", "left_wrist"), ("right hip", "right_hip"), ("right knee", "right_knee"),
    ("right ankle", "right_ankle"), ("left hip", "left_hip"), ("left knee", "left_knee"), ("left ankle", "left_ankle"),
    ("right eye", "right_eye"), ("left eye", "left_eye"), ("right ear", "right_ear"), ("left ear", "left_ear"),
)  # fmt: skip
COCO_17 = (
    ("nose", "nose"),
    *(
        (f"{side} {part}", f"{side}_{part}")
        for part in ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
        for side in ("left", "right")
    ),
)
_SKELETONS = {
    "h36m": (
        (0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (0, 6), (6, 7), (7, 8), (8, 9), (9, 10), (0, 12), (12, 13), (13, 14),
        (14, 15), (13, 17), (17, 18), (18, 19), (19, 21), (19, 22), (13, 25), (25, 26), (26, 27), (27, 29), (27, 30),
    ),
    "openpose": (
        (0, 1), (1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),
        (0, 14), (14, 16), (0, 15), (15, 17),
    ),
    "coco": (
        (0, 1), (0, 2), (1, 3), (2, 4), (5, 6), (5, 7), (7, 9), (6, 8), (8, 10), (5, 11), (6, 12), (11, 12), (11, 13),
        (13, 15), (12, 14), (14, 16),
    ),
}  # fmt: skip


def _pairs(scheme: tuple[tuple[str, str], ...]) -> tuple[tuple[int, int], ...]:
    """Index pairs (left, right) of a scheme, by its names."""
    names = [name for name, _ in scheme]
    mirrored = [name.replace("left ", "right ") if " " in name else "R" + name[1:] for name in names]
    return tuple((i, names.index(m)) for i, m in enumerate(mirrored) if names[i][0] in "lL" and m in names)


def _info(scene: str, scheme: tuple[tuple[str, str], ...], skeleton: str, origin: str) -> Info:
    subsets: tuple[tuple[str, tuple[tuple[int, ...], ...]], ...] = ()
    if skeleton == "h36m":
        subsets = (("mpii-16", tuple((i,) for i in MPII_16)),)
    return Info(
        name=f"procedural:{scene}",
        landmark_names=tuple(name for name, _ in scheme),
        flip_pairs=_pairs(scheme),
        skeleton=_SKELETONS[skeleton],
        normaliser="image",
        licence="CC0 (drawn by ulm)",
        citation=f"Drawn by ulm; the scheme of points is that of {origin}.",
        subsets=subsets,
    )


# ---------------------------------------------------------------------------------------------- key poses

Place = tuple[float, float, float]
Fingers = tuple[float, float, float, float, float]
RELAXED: Fingers = (0.2, 0.25, 0.3, 0.32, 0.35)
OPEN: Fingers = (0.0, 0.03, 0.03, 0.05, 0.08)
FIST: Fingers = (0.6, 0.9, 0.95, 0.95, 0.95)
POINT: Fingers = (0.5, 0.0, 0.85, 0.9, 0.9)
HANG = (26.0, -58.0, 7.0)


@dataclass(frozen=True)
class Hand:
    """Where a hand is, for a body of 175 cm.

    Attributes:
        at: Of the wrist from the base of the neck, in the chest's frame, mirrored: positive x is to the hand's side.
        swivel: Of the elbow, outwards and up.
        turn: Of the forearm.
        wrist: Bend towards the palm.
        fingers: Curl of each.
    """

    at: Place = HANG
    swivel: float = 10.0
    turn: float = 25.0
    wrist: float = 0.0
    fingers: Fingers = RELAXED


@dataclass(frozen=True)
class Foot:
    """Where an ankle is above the ground, for a body of 175 cm: mirrored x, height over standing, z to the front."""

    at: Place = (10.0, 0.0, 0.0)
    heading: float = 12.0


@dataclass(frozen=True)
class Key:
    """A pose by the places of hands, feet and hips; two of them blend into a motion.

    ``hips`` is where the pelvis is: to the left, how far it sinks, to the front, in centimetres of a 175 cm body.
    """

    left: Hand = field(default_factory=Hand)
    right: Hand = field(default_factory=Hand)
    left_foot: Foot = field(default_factory=Foot)
    right_foot: Foot = field(default_factory=Foot)
    hips: Place = (0.0, 0.0, 0.0)
    turn: float = 0.0
    lean: float = 0.0
    tilt: float = 0.0
    waist: Place = (0.0, 0.0, 0.0)
    chest: Place = (0.0, 0.0, 0.0)
    head: Place = (0.0, 0.0, 0.0)
    mouth: float = 0.0
    smile: float = 0.2


def _mirrored(key: Key) -> Key:
    """The same with left and right exchanged."""
    flip = lambda p: (p[0], -p[1], -p[2])  # noqa: E731
    x, y, z = key.hips
    return replace(
        key, left=key.right, right=key.left, left_foot=key.right_foot, right_foot=key.left_foot, hips=(-x, y, z),
        turn=-key.turn, tilt=-key.tilt, waist=flip(key.waist), chest=flip(key.chest), head=flip(key.head),
    )  # fmt: skip


def _solve(body: Body, key: Key, turn: float) -> Pose:
    """Joint angles of a key pose for one body that is turned by ``turn`` degrees."""
    lengths = measures(body)
    k = lengths["height"] / TALL
    x, sink, z = (k * v for v in key.hips)
    facing = turn + key.turn
    place = rotate("y", facing) @ np.array([x, 0, z])
    pose = Pose(
        facing, key.lean, key.tilt, tuple(float(v) for v in place), key.waist, key.chest, key.head,
         # type: ignore[arg-type]
        _arm(key.left), _arm(key.right), mouth=key.mouth, smile=key.smile,
    )  # fmt: skip
    for side, foot, sign in (("left", key.left_foot, 1), ("right", key.right_foot, -1)):
        down = lengths["ankle"] + k * foot.at[1] - (lengths["hip"] - sink)
        ankle = np.array([sign * k * foot.at[0] - x, down, k * foot.at[2] - z])
        pose = plant_leg(body, pose, side, ankle, foot.heading)
    for side, hand, sign in (("left", key.left, 1), ("right", key.right, -1)):
        pose = reach_arm(body, pose, side, k * np.array(hand.at) * np.array([sign, 1, 1]), hand.swivel)
    return pose


def _arm(hand: Hand) -> Arm:
    return Arm(turn=hand.turn, wrist=hand.wrist, fingers=hand.fingers)


def _along(keys: list[Key], t: float) -> Key:
    """The motion through ``keys`` at ``t`` in [0, 1], resting a little at each."""
    at = t * (len(keys) - 1)
    i = min(int(at), len(keys) - 2)
    part = at - i
    ease = 0.5 * part + 0.5 * float(smoothstep(0.0, 1.0, part))
    key: Key = blend(keys[i], keys[i + 1], ease)
    swing = float(np.sin(np.pi * ease))
    for name in ("left", "right", "left_foot", "right_foot"):
        way = np.array(getattr(keys[i + 1], name).at) - np.array(getattr(keys[i], name).at)
        far, limb = float(np.linalg.norm(way)), getattr(key, name)
        x, y, z = limb.at
        # A foot is lifted; a hand swings outwards and ahead, round the trunk and not through it.
        moved = (x, y + swing * min(0.3 * far, 7.0), z)
        if not name.endswith("foot"):
            moved = (x + 0.10 * swing * far, y, z + 0.30 * swing * far)
        key = replace(key, **{name: replace(limb, at=moved)})
    return key


Motion = Callable[[float], Pose]
"""The pose at a time in [0, 1]."""


def _jitter(rng: np.random.Generator, place: Place, spread: float = 3.0) -> Place:
    x, y, z = np.array(place) + np.clip(rng.normal(0, spread, 3), -2 * spread, 2 * spread)
    return float(x), float(y), float(z)


def _u(rng: np.random.Generator, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


# ---------------------------------------------------------------------------------------------- six actions


def _stance(rng: np.random.Generator) -> Key:
    """An easy stance, the weight on either foot."""
    wide, side = _u(rng, 7, 17), _u(rng, -1, 1)
    shift = side * _u(rng, 0, 7)
    ahead = _u(rng, -6, 6)
    return Key(
        left_foot=Foot((wide, 0, ahead), _u(rng, 3, 25)), right_foot=Foot((wide, 0, -ahead), _u(rng, 3, 25)),
        hips=(shift, _u(rng, 0.1, 0.8), _u(rng, -1, 1)), tilt=-0.7 * shift,
        waist=(_u(rng, -3, 5), _u(rng, -10, 10), 0.7 * shift),
        chest=(_u(rng, -3, 8), _u(rng, -10, 10), 0), head=(_u(rng, -8, 14), _u(rng, -30, 30), _u(rng, -6, 6)),
        left=_hanging(rng), right=_hanging(rng), smile=_u(rng, -0.2, 0.8),
    )  # fmt: skip


def _hanging(rng: np.random.Generator) -> Hand:
    at = (_u(rng, 22, 30), _u(rng, -60, -54), _u(rng, 0, 14))
    return Hand(at, _u(rng, 0, 25), _u(rng, 5, 50))


def _resting(rng: np.random.Generator) -> Hand:
    """An arm that does nothing in particular: hanging, on the hip, in a pocket."""
    kind = rng.choice(3, p=(0.6, 0.25, 0.15))
    if kind == 0:
        return _hanging(rng)
    if kind == 1:
        return Hand(_jitter(rng, (21, -41, 2), 1.5), _u(rng, 20, 45), _u(rng, 40, 80), 25, FIST)
    return Hand(_jitter(rng, (22, -51, 4), 1.5), _u(rng, 0, 22), 30, 10, FIST)


def _toward(azimuth: float, elevation: float, far: float) -> Place:
    """A wrist ``far`` centimetres from the shoulder; azimuth 0 is ahead, positive is outwards."""
    a, e = np.radians(azimuth), np.radians(elevation)
    return float(18 + far * np.sin(a) * np.cos(e)), float(-5 + far * np.sin(e)), float(far * np.cos(a) * np.cos(e))


def _directions(rng: np.random.Generator, keys: list[Key]) -> list[Key]:
    """Points here and there with one arm."""
    other = _resting(rng)
    result = []
    for key in keys:
        azimuth, elevation = _u(rng, -35, 85), _u(rng, -15, 40)
        hand = Hand(_toward(azimuth, elevation, _u(rng, 42, 54)), _u(rng, 5, 35), _u(rng, 20, 80), 0, POINT)
        if rng.random() < 0.2:
            hand = _hanging(rng)
        look = (-0.5 * elevation, -0.7 * azimuth, 0.0)
        result.append(replace(key, left=other, right=hand, head=look, chest=(2, -0.2 * azimuth, 0)))
    return [_mirrored(key) for key in result] if rng.random() < 0.5 else result


def _discussion(rng: np.random.Generator, keys: list[Key]) -> list[Key]:
    """Gestures with both hands, now and then lets one rest."""
    result = []
    for key in keys:
        hands = []
        for _ in range(2):
            at = (_u(rng, 4, 34), _u(rng, -36, -6), _u(rng, 20, 42))
            fingers: Fingers = (OPEN, RELAXED, POINT)[int(rng.integers(3))]
            hands.append(Hand(at, _u(rng, 0, 40), _u(rng, -60, 70), _u(rng, -25, 25), fingers))
        if rng.random() < 0.3:
            hands[int(rng.integers(2))] = _resting(rng)
        result.append(replace(key, left=hands[0], right=hands[1], mouth=_u(rng, 0, 0.6)))
    return result


def _greeting(rng: np.random.Generator, keys: list[Key]) -> list[Key]:
    """Waves, offers a hand, or bows."""
    kind, other = rng.integers(4), _resting(rng)
    result = []
    high = _u(rng, 4, 26)
    for i, key in enumerate(keys):
        key = replace(key, smile=_u(rng, 0.4, 1), head=(_u(rng, -5, 8), _u(rng, -15, 15), _u(rng, -8, 8)))
        if kind <= 1:
            swing = 12 if i % 2 else -8
            hand = Hand((30 + swing, high + _u(rng, -2, 2), 16), _u(rng, 0, 20), 60, -0.8 * swing, OPEN)
            key = replace(key, right=hand, left=other)
        elif kind == 2:
            at = (4 + _u(rng, -4, 6), -22 + (5 if i % 2 else -4), 44)
            key = replace(key, right=Hand(at, 15, 0, 0, RELAXED), left=other, chest=(8, 0, 0))
        else:
            bow = (2.0, 38.0, 24.0, 6.0)[i % 4]
            hand = Hand((20, -56, 14 + 0.3 * bow), 5, 20)
            key = replace(key, lean=0.6 * bow, waist=(0.5 * bow, 0, 0), head=(0.5 * bow, 0, 0), left=hand, right=hand)
        result.append(key)
    return [_mirrored(key) for key in result] if rng.random() < 0.5 else result


def _set_hand(rng: np.random.Generator) -> Hand:
    """An arm in a set pose."""
    kind = int(rng.integers(6))
    places: tuple[tuple[Place, float, float], ...] = (
        ((21, -41, 2), 32, 60), ((15, 17, -5), 0, 30), ((-9, -25, 19), 5, 50), ((30, 42, 5), 0, 30),
        ((48, -16, 8), 20, 60), ((-2, 2, 20), 15, -30),
    )  # fmt: skip
    at, swivel, turn = places[kind]
    fingers = (FIST, RELAXED, RELAXED, OPEN, OPEN, RELAXED)[kind]
    return Hand(_jitter(rng, at, 2.0), swivel + _u(rng, -10, 10), turn, 0, fingers)


def _posing(rng: np.random.Generator, keys: list[Key]) -> list[Key]:
    """Holds one pose, then another."""
    result = []
    for key in keys:
        left, right = (_set_hand(rng) if rng.random() < 0.7 else _hanging(rng) for _ in range(2))
        if rng.random() < 0.3:
            right = left
        result.append(replace(key, left=left, right=right))
    return [result[0], result[0], result[1]] if rng.random() < 0.5 else result[:3]


def _waiting(rng: np.random.Generator, keys: list[Key]) -> list[Key]:
    """Arms crossed, behind the back or in the pockets; shifts its weight and looks about."""
    crossed = (Hand((-7, -26, 19), 12, 60), Hand((-9, -22, 22), 12, 60))
    watch = (Hand((2, -24, 26), 30, 80), _hanging(rng))
    pockets = (Hand((22, -51, 4), 10, 30, 10, FIST), Hand((22, -51, 4), 10, 30, 10, FIST))
    behind = (Hand((4, -50, -17), 20, 60), Hand((3, -48, -20), 20, 60))
    sets = (crossed, watch, pockets, behind)
    first = sets[int(rng.choice(4, p=(0.35, 0.2, 0.3, 0.15)))]
    result = []
    for i, key in enumerate(keys):
        left, right = first if i < 2 or rng.random() < 0.5 else (_hanging(rng), _hanging(rng))
        result.append(replace(key, left=left, right=right, turn=_u(rng, -20, 20)))
    return [_mirrored(key) for key in result] if rng.random() < 0.5 else result


_GESTURES: dict[str, Callable[[np.random.Generator, list[Key]], list[Key]]] = {
    "directions": _directions,
    "discussion": _discussion,
    "greeting": _greeting,
    "posing": _posing,
    "waiting": _waiting,
}


def _gesture(rng: np.random.Generator, body: Body, action: str, turn: float) -> Motion:
    """The motion of a standing action."""
    base = _stance(rng)
    keys = []
    for _ in range(4):
        here = _stance(rng)
        # Feet mostly stay; sometimes a step is taken.
        feet = here if rng.random() < 0.2 else base
        keys.append(replace(here, left_foot=feet.left_foot, right_foot=feet.right_foot))
    keys = _GESTURES[action](rng, keys)
    return lambda t: _solve(body, _along(keys, t), turn)


def _walk(rng: np.random.Generator, turn: float) -> Motion:
    """Walking along an arc; one cycle is two steps."""
    start, cycles, arc = _u(rng, 0, 2 * np.pi), _u(rng, 0.9, 1.35), _u(rng, -40, 40)
    stride, swing, bend = _u(rng, 16, 25), _u(rng, 14, 30), _u(rng, 8, 30)
    look, stoop, travel = _u(rng, -15, 15), _u(rng, -2, 8), _u(rng, 0, 25)

    def leg(phase: float) -> Leg:
        near = lambda at, wide: float(np.exp(-((np.angle(np.exp(1j * (phase - at))) / wide) ** 2)))  # noqa: E731
        flex = stride * np.sin(phase) + 5
        knee = 6 + 54 * near(5.67, 0.80) + 12 * near(2.2, 0.6)
        pitch = 16 * near(1.45, 0.5) - 34 * near(4.80, 0.7)
        return Leg(float(flex), 1.5, 6, knee, 1.0, pitch)

    def arm(phase: float) -> Arm:
        s = float(np.sin(phase))
        return Arm(5 + swing * s, 78, 0, bend + 0.5 * swing * max(s, -0.3), 20)

    def pose(t: float) -> Pose:
        phase = start + 2 * np.pi * cycles * t
        facing = turn + arc * (t - 0.5)
        way = rotate("y", turn) @ np.array([0, 0, travel * (t - 0.5)])
        twist = 5 * float(np.sin(phase))
        return Pose(
            facing, stoop, 1.5 * float(np.cos(phase)), tuple(float(v) for v in way), (2, twist, 0), (1, twist, 0),
             # type: ignore[arg-type]
            (-stoop, look - 1.5 * twist, 0), arm(phase + np.pi), arm(phase), leg(phase), leg(phase + np.pi),
        )  # fmt: skip

    return pose


# ---------------------------------------------------------------------------------------------- exercise


def _forms(rng: np.random.Generator) -> list[Key]:
    """Key poses of slow exercise, each sampled about a well-known form, some mirrored."""
    forms = (_bow_stance, _horse_stance, _whip, _raise_arms, _rooster, _empty_stance, _open_arms)
    keys = []
    for _ in range(3):
        key = forms[int(rng.integers(len(forms)))](rng)
        keys.append(_mirrored(key) if rng.random() < 0.5 else key)
    # Neighbouring poses turn a little, and not the whole way round.
    return [replace(key, turn=key.turn + _u(rng, -25, 25)) for key in keys]


def _bow_stance(rng: np.random.Generator) -> Key:
    """A lunge over the left foot, the right hand pushing ahead, the left at the hip or before the chest."""
    long = _u(rng, 26, 40)
    left = Hand((_u(rng, 14, 30), _u(rng, -50, -15), _u(rng, 10, 34)), 20, 70, -20, OPEN)
    right = Hand((_u(rng, -4, 14), _u(rng, -14, 4), _u(rng, 40, 52)), 10, 40, -50, OPEN)
    return Key(
        left, right, Foot((_u(rng, 8, 15), 0, long), 5), Foot((_u(rng, 10, 16), 0, -long), 40),
        (2, _u(rng, 12, 22), 0.35 * long), lean=_u(rng, 0, 8), chest=(0, _u(rng, -5, 20), 0),
        head=(0, _u(rng, -10, 10), 0),
    )  # fmt: skip


def _horse_stance(rng: np.random.Generator) -> Key:
    """Wide and low, the arms before the chest as round a ball, or pushing."""
    wide, round_ = _u(rng, 22, 38), _u(rng, 8, 22)
    high = _u(rng, -28, -4)
    hand = Hand((round_, high, _u(rng, 28, 42)), _u(rng, 20, 60), _u(rng, 0, 60), 0, OPEN)
    other = replace(hand, at=(hand.at[0], high + _u(rng, -18, 18), hand.at[2]))
    feet = Foot((wide, 0, 0), _u(rng, 15, 35))
    return Key(hand, other, feet, feet, (_u(rng, -8, 8), _u(rng, 8, 26), -4), lean=4, chest=(0, _u(rng, -25, 25), 0))


def _whip(rng: np.random.Generator) -> Key:
    """Single whip: arms wide open, one hand hooked, a lunge to the side."""
    wide = _u(rng, 26, 38)
    hook = Hand(_toward(_u(rng, 70, 100), _u(rng, 0, 20), 52), 20, 60, 65, RELAXED)
    palm = Hand(_toward(_u(rng, 20, 70), _u(rng, -5, 15), 48), 15, 50, -45, OPEN)
    return Key(
        palm, hook, Foot((wide, 0, 6), 50), Foot((wide, 0, -4), 10), (0.45 * wide, _u(rng, 12, 22), 0),
        chest=(0, _u(rng, 10, 30), 0), head=(0, _u(rng, 20, 45), 0),
    )  # fmt: skip


def _raise_arms(rng: np.random.Generator) -> Key:
    """Standing easily, both arms lifted ahead or overhead."""
    at = _toward(_u(rng, -12, 25), _u(rng, -10, 75), _u(rng, 44, 54))
    hand, wide = Hand(at, 15, 70, _u(rng, 0, 35), OPEN), _u(rng, 10, 20)
    feet = Foot((wide, 0, 0), 8)
    return Key(hand, hand, feet, feet, (0, _u(rng, 1, 9), -1), head=(_u(rng, -10, 8), 0, 0))


def _rooster(rng: np.random.Generator) -> Key:
    """On one leg, the other knee lifted high, the hand of that side raised."""
    up = Hand((_u(rng, 4, 16), _u(rng, 2, 26), _u(rng, 22, 34)), 15, 10, -20, OPEN)
    down = Hand((26, -48, 14), 20, 80, -50, OPEN)
    return Key(
        up, down, Foot((9, _u(rng, 38, 52), _u(rng, 14, 30)), 5), Foot((3, 0, 0), 25), (-6.5, 2, 0), tilt=4,
        head=(0, _u(rng, -15, 15), 0),
    )  # fmt: skip


def _empty_stance(rng: np.random.Generator) -> Key:
    """Weight on the back leg, the front foot touching, one hand high and one low (the white crane)."""
    high = Hand((_u(rng, 16, 28), _u(rng, 12, 32), _u(rng, 14, 28)), 40, -10, 0, OPEN)
    low = Hand((24, -50, _u(rng, 8, 20)), 20, 80, -30, OPEN)
    return Key(
        low, high, Foot((6, 0, _u(rng, 18, 28)), 5), Foot((8, 0, -8), 45), (-4, _u(rng, 8, 18), -7),
        chest=(0, _u(rng, -15, 15), 0),
    )  # fmt: skip


def _open_arms(rng: np.random.Generator) -> Key:
    """Arms parted sideways and up, a half lunge."""
    left = Hand(_toward(_u(rng, 40, 80), _u(rng, 10, 45), _u(rng, 46, 54)), 20, -30, 0, OPEN)
    right = Hand(_toward(_u(rng, 50, 90), _u(rng, -50, -15), _u(rng, 46, 54)), 20, 60, 0, OPEN)
    long = _u(rng, 14, 30)
    return Key(
        left, right, Foot((12, 0, long), 8), Foot((12, 0, -long), 40), (1, _u(rng, 6, 16), 0.3 * long),
        chest=(-3, _u(rng, -10, 25), 0), head=(-4, _u(rng, 0, 35), 0),
    )  # fmt: skip


_SILKS: tuple[Colour, ...] = (
    (0.94, 0.94, 0.93), (0.08, 0.08, 0.09), (0.55, 0.09, 0.10), (0.12, 0.22, 0.45), (0.88, 0.84, 0.72),
    (0.35, 0.52, 0.62),
    (0.85, 0.55, 0.62), (0.20, 0.36, 0.28), (0.80, 0.66, 0.30), (0.45, 0.45, 0.48),
)  # fmt: skip


def _exercise_clothes(rng: np.random.Generator, body: Body) -> Body:
    """Loose suits of silk or cotton, and everyday sports clothes."""
    colour = _SILKS[int(rng.integers(len(_SILKS)))]
    below = colour if rng.random() < 0.5 else _SILKS[int(rng.integers(len(_SILKS)))]
    seed, odds, size = int(rng.integers(1 << 30)), rng.random(4), rng.random(4)
    if odds[0] < 0.35:
        return body
    suit = replace(
        body.dress, top=Cloth(colour, gloss=0.35, seed=seed), bottom=Cloth(below, gloss=0.35, seed=seed + 1),
        sleeve=1.9 if odds[1] < 0.75 else 0.8, loose=2.0 + 3.0 * float(size[0]),
        neckline="high" if odds[2] < 0.5 else "v",
        hem=0.47 + 0.06 * float(size[1]), kind="trousers", leg=1.93, width=2.5 + 3.0 * float(size[2]), flare=0.0,
        belt=None, jacket=None, heel=0.0, boot=0.0,
    )  # fmt: skip
    if odds[3] < 0.35:
        suit = replace(suit, sash=_SILKS[int(size[3] * len(_SILKS))], hem=0.45 + 0.04 * float(size[1]))
    return replace(body, dress=suit)


# ---------------------------------------------------------------------------------------------- fashion


def _fashion_pose(rng: np.random.Generator, body: Body) -> Pose:
    """A standing pose of a catalogue: seen from the front, half from the side, seldom from the back."""
    turn = float(rng.choice([_u(rng, -20, 20), _u(rng, -65, 65), _u(rng, 150, 210)], p=(0.6, 0.3, 0.1)))
    side = _u(rng, -1, 1)
    shift, step = 5.5 * side, _u(rng, -10, 10)
    narrow, wide = _u(rng, 4, 10), _u(rng, 7, 15)
    hands = [_fashion_hand(rng) for _ in range(2)]
    if rng.random() < 0.3:
        hands[1] = hands[0]
    key = Key(
        hands[0], hands[1], Foot((wide if side < 0 else narrow, 0, step), _u(rng, 5, 28)),
        Foot((narrow if side < 0 else wide, 0, -step), _u(rng, 5, 28)), (shift, _u(rng, 0.2, 1.2), 0),
        tilt=-0.8 * shift,
        waist=(0, _u(rng, -6, 6), 0.8 * shift), chest=(_u(rng, -4, 3), _u(rng, -8, 8), 0),
        head=(_u(rng, -6, 10), _u(rng, -30, 30) - 0.25 * turn * (abs(turn) < 70), _u(rng, -8, 8)),
        smile=_u(rng, -0.2, 0.9),
    )  # fmt: skip
    return _solve(body, key, turn)


def _fashion_hand(rng: np.random.Generator) -> Hand:
    kind = int(rng.choice(5, p=(0.55, 0.2, 0.12, 0.06, 0.07)))
    if kind == 0:
        return _hanging(rng)
    if kind == 1:
        return Hand(_jitter(rng, (21, -41, 2), 1.5), _u(rng, 20, 45), 60, 25, FIST)
    if kind == 2:
        return Hand(_jitter(rng, (22, -51, 4), 1.5), _u(rng, 0, 22), 30, 10, FIST)
    if kind == 3:
        return Hand(_jitter(rng, (16, 15, 2), 2.0), _u(rng, -15, 10), 20, 0, RELAXED)
    return Hand(_jitter(rng, (0, -32, 21), 3.0), _u(rng, 10, 40), 40, 0, RELAXED)


# ---------------------------------------------------------------------------------------------- backdrops


def _axes(size: int) -> tuple[Array, Array]:
    axis = ((np.arange(size) + 0.5) / size).astype(np.float32)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return x, y


def _tone(rng: np.random.Generator, low: float, high: float, hue: float = 0.10) -> Array:
    return np.clip(rng.uniform(low, high) + hue * (rng.random(3) - 0.5), 0.02, 0.98).astype(np.float32)


def _lay(picture: Array, cover: Array, colour: Array) -> None:
    """Paint ``colour`` where ``cover`` is 1, in place."""
    picture += (colour - picture) * cover[..., None].astype(np.float32)


def _rectangle(x: Array, y: Array, box: tuple[float, float, float, float], soft: float = 0.004) -> Array:
    x0, y0, x1, y1 = box
    inside = np.minimum(np.minimum(x - x0, x1 - x), np.minimum(y - y0, y1 - y))
    return smoothstep(-soft, soft, inside)


def _ground(rng: np.random.Generator, x: Array, y: Array, line: float, kind: str) -> Array:
    """Colour of the ground below ``line``, ``(S, S, 3)``: boards, tiles, carpet, grass or paving in perspective."""
    grid = rng.normal(0, 1, (32, 32)).astype(np.float32)
    depth = 0.5 / np.maximum(y - line + 0.16, 0.02)
    across, fine = (x - rng.uniform(0.2, 0.8)) * depth, _u(rng, 4, 9)
    noise = r.value_noise(grid, across * 14 + 20, depth * 22)
    if kind == "grass":
        base = np.array([0.30, 0.42, 0.18]) * rng.uniform(0.7, 1.3) + 0.05 * (rng.random(3) - 0.5)
        blades = r.value_noise(grid, across * 60 + 40, depth * 70)
        return np.asarray(base * (1 + 0.14 * noise + 0.12 * blades)[..., None], np.float32)
    base = _tone(rng, 0.25, 0.75, 0.16)
    if kind == "boards":
        base = np.array([0.55, 0.40, 0.26]) * rng.uniform(0.6, 1.3)
        plank = np.floor(across * fine)
        tint = 0.08 * np.sin(plank * 12.9898) + 0.05 * r.value_noise(grid, across * fine * 3, depth * 4)
        gap = bump((across * fine - plank - 0.5) / 0.47)
        return np.asarray(base * (1 + tint - 0.25 * (1 - smoothstep(0.33, 0.36, gap)))[..., None], np.float32)
    if kind == "tiles":
        u, v = (across * fine) % 1, (depth * fine * 0.8) % 1
        seam = np.maximum(smoothstep(0.46, 0.49, np.abs(u - 0.5)), smoothstep(0.46, 0.49, np.abs(v - 0.5)))
        return np.asarray(base * (1 + 0.04 * noise - 0.22 * seam)[..., None], np.float32)
    return np.asarray(base * (1 + 0.06 * noise)[..., None], np.float32)


def _room(rng: np.random.Generator, size: int, line: float) -> Array:
    """A room: a wall with doors, frames, windows, curtains or shelves above a floor that begins at ``line``."""
    x, y = _axes(size)
    wall, grid = _tone(rng, 0.35, 0.92), rng.normal(0, 1, (16, 16)).astype(np.float32)
    slant, shade = rng.uniform(-0.25, 0.25), rng.uniform(0.0, 0.3)
    picture = wall * (1 + slant * (x - 0.5) - shade * (0.5 - y) + 0.02 * r.value_noise(grid, x * 12, y * 12))[..., None]
    kind = int(rng.integers(4))
    if kind == 0:
        folds = 0.5 + 0.5 * np.sin(x * rng.uniform(60, 130) + 3 * r.value_noise(grid, x * 6, y))
        picture = _tone(rng, 0.12, 0.7, 0.3) * (0.65 + 0.35 * folds)[..., None]
    for _ in range(int(rng.integers(0, 6)) if kind else 0):
        _furnish(rng, picture, x, y, line)
    floor = _ground(rng, x, y, line, str(rng.choice(["boards", "tiles", "carpet", "carpet"])))
    below = smoothstep(-0.003, 0.003, y - line)
    skirting = smoothstep(0.026, 0.022, np.abs(y - line + 0.01)) * (rng.random() < 0.6)
    _lay(picture, skirting, _tone(rng, 0.2, 0.95))
    _lay(picture, below, floor)
    for _ in range(int(rng.integers(0, 3))):
        _stand(rng, picture, x, y, line)
    return r.decode(np.clip(picture, 0.02, 0.98)).astype(np.float32)


def _furnish(rng: np.random.Generator, picture: Array, x: Array, y: Array, line: float) -> None:
    """One thing on the wall: a door, a window, a frame or a shelf."""
    left, wide = rng.uniform(-0.1, 0.95), rng.uniform(0.10, 0.3)
    kind = int(rng.integers(4))
    top = line - (rng.uniform(0.5, 0.85) if kind == 0 else rng.uniform(0.3, 0.8))
    bottom = line if kind == 0 else top + rng.uniform(0.1, 0.3)
    frame, fill = _tone(rng, 0.1, 0.95, 0.25), _tone(rng, 0.15, 0.95, 0.4)
    _lay(picture, _rectangle(x, y, (left, top, left + wide, bottom)), frame)
    inner = (left + 0.012, top + 0.012, left + wide - 0.012, bottom - (0.0 if kind == 0 else 0.012))
    _lay(picture, _rectangle(x, y, inner), fill)
    if kind == 3:
        grid = rng.normal(0, 1, (16, 16)).astype(np.float32)
        books = np.clip(0.5 + 0.4 * r.value_noise(grid, np.floor(x * 70) * 3.7, np.floor((y - top) * 14) * 2.3), 0, 1)
        tint = np.stack([books, 0.8 * books, 0.9 - 0.6 * books], -1)
        _lay(picture, _rectangle(x, y, inner), tint.astype(np.float32))
    elif kind == 1:
        bars = np.maximum(bump((x - left - wide / 2) / 0.006), bump((y - 0.5 * (top + bottom)) / 0.006))
        _lay(picture, bars * _rectangle(x, y, inner), frame)


def _stand(rng: np.random.Generator, picture: Array, x: Array, y: Array, line: float) -> None:
    """One thing on the floor: a cupboard, a table, or a chair."""
    left, wide, tall = rng.uniform(-0.1, 0.9), rng.uniform(0.12, 0.3), rng.uniform(0.12, 0.4)
    foot = line + rng.uniform(0.005, 0.06)
    colour = _tone(rng, 0.1, 0.85, 0.35)
    if rng.random() < 0.5:
        _lay(picture, _rectangle(x, y, (left, foot - tall, left + wide, foot)), colour)
        _lay(picture, _rectangle(x, y, (left, foot - tall, left + wide, foot - tall + 0.02)), colour * 1.2)
        return
    _lay(picture, _rectangle(x, y, (left, foot - tall, left + wide, foot - tall + 0.025)), colour)
    for leg in (left + 0.01, left + wide - 0.025):
        _lay(picture, _rectangle(x, y, (leg, foot - tall, leg + 0.015, foot)), colour * 0.8)


def _outdoors(rng: np.random.Generator, size: int, line: float) -> Array:
    """A park, a court or a square: sky, trees or buildings, and the ground."""
    x, y = _axes(size)
    grid = rng.normal(0, 1, (32, 32)).astype(np.float32)
    sky = np.array([0.55, 0.70, 0.90]) * rng.uniform(0.75, 1.1) + rng.uniform(-0.1, 0.1) * np.array([1, 0, -1])
    clouds = smoothstep(0.0, 1.2, r.value_noise(grid, x * 3, y * 6) + 0.4 * r.value_noise(grid, x * 9, y * 14))
    picture = (sky + (1 - y[..., None]) * np.array([-0.12, -0.08, 0.0])).astype(np.float32)
    picture = picture + (0.95 - picture) * (rng.uniform(0, 0.9) * clouds)[..., None].astype(np.float32)
    if rng.random() < 0.5:
        ridge = line - rng.uniform(0.08, 0.25) - 0.06 * r.value_noise(grid, x * 3 + 9, 0 * y)
        _lay(picture, smoothstep(-0.004, 0.004, y - ridge), np.array([0.45, 0.52, 0.58]) * rng.uniform(0.7, 1.1))
    for _ in range(int(rng.integers(0, 4))):
        left, top = rng.uniform(-0.2, 0.9), line - rng.uniform(0.12, 0.75)
        box = (left, top, left + rng.uniform(0.15, 0.45), line)
        front = _tone(rng, 0.35, 0.85, 0.2)
        _lay(picture, _rectangle(x, y, box), front)
        panes = (np.abs((x - left) * 26 % 1 - 0.5) < 0.28) & (np.abs((y - top) * 22 % 1 - 0.5) < 0.3)
        _lay(picture, panes * _rectangle(x, y, box), front * 0.45)
    _trees(rng, picture, x, y, line, grid)
    ground = _ground(rng, x, y, line, str(rng.choice(["grass", "grass", "tiles", "carpet"])))
    _lay(picture, smoothstep(-0.004, 0.004, y - line - 0.006 * r.value_noise(grid, x * 30, 0 * y)), ground)
    return r.decode(np.clip(picture, 0.02, 0.98)).astype(np.float32)


def _trees(rng: np.random.Generator, picture: Array, x: Array, y: Array, line: float, grid: Array) -> None:
    """A hedge and some trees with ragged crowns, in place."""
    rough = 0.5 * r.value_noise(grid, x * 26, y * 26) + 0.35 * r.value_noise(grid, x * 60 + 5, y * 60)
    green = np.array([0.22, 0.34, 0.16])
    if rng.random() < 0.6:
        top = line - rng.uniform(0.04, 0.3)
        leaves = green * rng.uniform(0.6, 1.4) * (1 + 0.45 * rough)[..., None]
        _lay(picture, smoothstep(-0.01, 0.01, y - top + 0.03 * rough), leaves.astype(np.float32))
    for _ in range(int(rng.integers(0, 4))):
        cx, cy, radius = rng.uniform(0, 1), line - rng.uniform(0.3, 0.6), rng.uniform(0.1, 0.24)
        trunk = _rectangle(x, y, (cx - 0.014, cy, cx + 0.014, line + 0.01))
        _lay(picture, trunk, np.array([0.28, 0.20, 0.14]))
        far = np.hypot(x - cx, (y - cy) * rng.uniform(0.8, 1.2)) + 0.10 * radius * 4 * rough
        tint = (green + 0.12 * (rng.random(3) - 0.4)) * rng.uniform(0.7, 1.5)
        _lay(
            picture,
            smoothstep(radius + 0.01, radius - 0.02, far),
            (tint * (1 + 0.5 * rough)[..., None]).astype(np.float32),
        )


def _studio(rng: np.random.Generator, size: int) -> Array:
    """The paper roll of a photographer: white or light, a little darker below."""
    x, y = _axes(size)
    tone = _tone(rng, 0.86, 0.985, 0.03) if rng.random() < 0.88 else _tone(rng, 0.45, 0.8, 0.15)
    fall = rng.uniform(0.0, 0.14) * ((x - 0.5) ** 2 * 2 + (y - 0.4) ** 2 * 1.5) + rng.uniform(0, 0.10) * smoothstep(
        0.7, 1, y
    )
    return r.decode(np.clip(tone * (1 - fall)[..., None], 0.02, 0.985)).astype(np.float32)


def _shadow(picture: Array, camera: Camera, posed: Posed, strength: float) -> Array:
    """The backdrop darkened where the feet meet the ground."""
    x, y = _axes(picture.shape[0])
    dark = np.zeros_like(x)
    for side in ("left", "right"):
        ankle, toe = posed.joints[f"{side}_ankle"], posed.joints[f"{side}_toe"]
        middle = 0.5 * (ankle + toe)
        height = float(toe[1] - posed.joints["left_toe"][1])
        middle = middle - np.array([0, 0.6 * (ankle[1] - toe[1]), 0])
        u, v = camera.project(middle[None], 1.0)[0]
        wide = 17.0 * camera.scale
        dark = np.maximum(dark, bump((x - u) / wide, (y - v) / (0.45 * wide)) * np.exp(-abs(height) / 12))
    return (picture * (1 - strength * dark)[..., None]).astype(np.float32)


# ---------------------------------------------------------------------------------------------- scenes


@dataclass(frozen=True)
class _Shot:
    """Everything of a video that does not change: who, what is done, seen how, before what."""

    body: Body
    motion: Motion
    view: Array
    camera: Camera
    light: shapes.Light
    backdrop: Callable[[int], Array]
    shadow: float


def _framed(rng: np.random.Generator, points: Array, free: bool) -> Camera:
    """A camera for all places ``(N, 3)`` a body will take; ``free``: its scale and place vary widely."""
    if not free:
        return shapes.frame(points, rng, (0.76, 0.92), 0.025, _u(rng, 2.5, 7.0))
    camera = shapes.frame(points, rng, (0.45, 0.92), 0.0, _u(rng, 2.5, 7.0))
    part = float(np.ptp(camera.project(points, 1.0), 0).max())
    # The crop may cut a little off.
    room = max(1.06 - part, 0.10)
    dx, dy = rng.uniform(-0.5, 0.5, 2) * room
    return replace(camera, centre=(camera.centre[0] + float(dx), camera.centre[1] + float(dy)))


def _around(body: Body, motion: Motion, view: Array) -> Array:
    """Places of the joints over a whole video, with room for flesh and hair, ``(N, 3)``."""
    points = [np.array(list(pose_joints(body, motion(t)).values())) for t in (0.0, 0.33, 0.67, 1.0)]
    every = np.concatenate(points)
    every = np.concatenate([every + d for d in np.array([(4, 3, 0), (-4, 3, 0), (0, -3, 0)])])
    return np.asarray(every @ view.T)


class PeopleScene:
    """One of the scenes ``people``, ``people-shifted`` and ``exercise``: videos of ``frames`` frames.

    Samples hold ``image``, ``landmarks``, ``visible``, ``box``, ``mask`` and ``yaw`` (of the body: 0 looks at the
    viewer, positive is turned to the image's right, within 180 degrees), as :class:`ulm.datasets.base.Dataset` says.
    """

    frames = FRAMES

    def __init__(self, scene: str):
        self.name = scene
        self._scheme = OPENPOSE_18 if scene == "exercise" else H36M
        if scene == "exercise":
            self.info = _info(scene, OPENPOSE_18, "openpose", "Cao et al., OpenPose (2017), used for Tai-Chi-HD")
        else:
            self.info = _info(scene, H36M, "h36m", "Ionescu et al., Human3.6M (2014)")

    def draw_frame(self, rng: np.random.Generator, frame: int, size: int) -> Sample:
        """Draw one frame; the same generator gives the same video, which moves smoothly with ``frame``."""
        shot = self._shot(rng)
        return _draw(shot, frame / (self.frames - 1), self._scheme, size)

    def _shot(self, rng: np.random.Generator) -> _Shot:
        turn = _u(rng, -180, 180)
        if self.name == "exercise":
            body = _exercise_clothes(rng, sample_body(rng, "sport"))
            turn = float(np.clip(rng.normal(0, 55), -180, 180))
            keys = _forms(rng)
            motion: Motion = lambda t: _solve(body, _along(keys, t), turn)  # noqa: E731
        else:
            body = sample_body(rng, "casual")
            action = ACTIONS[int(rng.integers(len(ACTIONS)))]
            motion = _walk(rng, turn) if action == "walking" else _gesture(rng, body, action, turn)
        view = rotate("x", _u(rng, 1, 16))
        camera = _framed(rng, _around(body, motion, view), self.name == "people-shifted")
        light = shapes.sample_light(rng)
        line = float(camera.project((np.array([0, 0, -_u(rng, 120, 420)]) @ view.T)[None], 1.0)[0, 1])
        line = float(np.clip(line, 0.3, 0.97))
        return _Shot(body, motion, view, camera, light, self._backdrop(rng, line), _u(rng, 0.35, 0.7))

    def _backdrop(self, rng: np.random.Generator, line: float) -> Callable[[int], Array]:
        kind, seed = rng.random(), int(rng.integers(1 << 32))
        fresh = lambda: np.random.default_rng(seed)  # noqa: E731
        if kind < 0.10:
            return lambda size: r.background(fresh(), size)
        if kind < 0.20:
            return lambda size: _plain(fresh(), size)
        if self.name == "exercise" and kind < 0.78:
            return lambda size: _outdoors(fresh(), size, line)
        return lambda size: _room(fresh(), size, line)


class FashionScene:
    """The scene ``fashion``: one picture of a dressed person before a light, plain backdrop."""

    def __init__(self, scene: str):
        self.name = scene
        self.info = _info(scene, COCO_17, "coco", "COCO, as AlphaPose gives it for DeepFashion")

    def draw(self, rng: np.random.Generator, size: int) -> Sample:
        """Draw one sample; the same generator gives the same scene at every size."""
        body = sample_body(rng, "fashion")
        pose = _fashion_pose(rng, body)
        view = rotate("x", _u(rng, -2, 6))
        motion: Motion = lambda t: pose  # noqa: E731
        points = _around(body, motion, view)
        camera = shapes.frame(points, rng, (0.84, 0.96), 0.02, _u(rng, 3.0, 8.0))
        light = replace(shapes.sample_light(rng), ambient=_u(rng, 0.5, 0.75), key=_u(rng, 0.45, 0.75), exposure=1.0)
        seed = int(rng.integers(1 << 32))
        shot = _Shot(
            body, motion, view, camera, light, lambda s: _studio(np.random.default_rng(seed), s), _u(rng, 0.15, 0.45)
        )
        return _draw(shot, 0.0, COCO_17, size)


def _plain(rng: np.random.Generator, size: int) -> Array:
    """One colour with a soft gradient, often dark: the background removed."""
    _, y = _axes(size)
    tone = _tone(rng, 0.03, 0.9, 0.3)
    return r.decode(tone * (1 - rng.uniform(0, 0.3) * y)[..., None]).astype(np.float32)


def _draw(shot: _Shot, t: float, scheme: tuple[tuple[str, str], ...], size: int) -> Sample:
    pose = shot.motion(t)
    posed = pose_body(shot.body, pose).moved(shot.view)
    joints = [joint for _, joint in scheme]
    backdrop = _shadow(shot.backdrop(size), shot.camera, posed, shot.shadow)
    sample: dict[str, Any] = shapes.picture(
        posed.surfaces, shot.camera, shot.light, backdrop, posed.places(joints), posed.radii(joints)
    )
    del sample["parts"]
    sample["yaw"] = float((pose.turn + 180) % 360 - 180)
    return sample
