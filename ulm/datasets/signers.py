"""Procedural signers: short videos of a sign-language interpreter over a television programme, with seven joints.

It stands in for BBC-Pose. A signer (a body of :mod:`ulm.datasets.bodies` in plain long sleeves) stands to one side of
the picture before a programme that moves, cut off below the waist. The hands go from sign to sign: a sign is a place
for each wrist (before the chest, at the face, out to the side, crossed, at rest before the waist), a hand shape and an
elbow; hands move quickly between signs and hold or beat within them. Head and trunk sway, the lips speak along.

Joints are those of BBC-Pose, in its order: right and left are the signer's own. The head is the middle of the head.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from ulm.datasets import rendering as r
from ulm.datasets import shapes
from ulm.datasets.base import Info, Sample
from ulm.datasets.bodies import Arm, Body, Cloth, Dress, Pose, Posed, pose_body, reach_arm, sample_body
from ulm.datasets.rendering import Array, Camera, smoothstep
from ulm.datasets.talking_faces import FRAMES, MARGIN, Wander, Waves, pan

F32 = np.float32

LANDMARK_NAMES = (
    "head", "right wrist", "left wrist", "right elbow", "left elbow", "right shoulder", "left shoulder",
)  # fmt: skip
FLIP_PAIRS = ((2, 1), (4, 3), (6, 5))
SKELETON = ((1, 3), (3, 5), (2, 4), (4, 6), (5, 0), (6, 0), (5, 6))
JOINTS = tuple(name.replace(" ", "_") for name in LANDMARK_NAMES)
"""The same as :mod:`ulm.datasets.bodies` names them."""


# ---------------------------------------------------------------------------------------------- signs

# Wrists in centimetres of a body 172 cm tall, from the base of the neck: x to the signer's left, y up, z to the front.
# Of the right hand, where it signs alone or with the left one: mean and spread.
_PLACES = {
    "before the chest": ((-12, -20, 30), (6, 6, 4)),
    "high": ((-18, 0, 27), (5, 6, 4)),
    "chin": ((-7, -4, 20), (3, 2, 2)),
    "cheek": ((-13, 2, 14), (2, 3, 2)),
    "brow": ((-13, 10, 18), (4, 3, 2)),
    "chest": ((-2, -18, 18), (5, 4, 1.5)),
    "other shoulder": ((12, -9, 18), (3, 3, 1.5)),
    "side": ((-34, -12, 20), (6, 9, 6)),
    "low": ((-16, -34, 28), (6, 4, 4)),
}
_PLACE_ODDS = (0.28, 0.13, 0.13, 0.07, 0.07, 0.09, 0.05, 0.11, 0.07)
_SIGNS = ("alone", "alike", "base", "crossed", "apart", "rest")
_SIGN_ODDS = (0.34, 0.27, 0.15, 0.08, 0.08, 0.08)
# Curl of thumb and fingers: flat, fist, index, two fingers, claw, pinch, thumb up, loose.
_HANDS = np.array([
    (0.1, 0.0, 0.0, 0.0, 0.0), (0.8, 1.0, 1.0, 1.0, 1.0), (0.8, 0.0, 1.0, 1.0, 1.0), (0.8, 0.0, 0.0, 1.0, 1.0),
    (0.35, 0.45, 0.45, 0.45, 0.45), (0.6, 0.6, 0.15, 0.1, 0.05), (0.0, 1.0, 1.0, 1.0, 1.0), (0.3, 0.25, 0.3, 0.35, 0.4),
])  # fmt: skip
_RESTING = np.array([(-4.0, -45.0, 16.0), (4.5, -47.5, 14.0)])
# Quantities of a hand in a sign: wrist x, y, z, elbow, turn, wrist, slant, five fingers, spread, beat.
_WIDTH = 14
SIGNS = 9


@dataclass(frozen=True)
class Signs:
    """What the hands do: signs one after another.

    Attributes:
        hands: ``(SIGNS, 2, 14)``, right and left hand: wrist x, y, z in centimetres; elbow's swivel, turn of the
            forearm, bend of the wrist to palm and thumb in degrees; curl of five fingers; spread; beat in centimetres.
        reached: Frame at which each sign is reached, ``(SIGNS,)``.
        left: Frame at which it is left for the next one, ``(SIGNS,)``.
        arcs: Centimetres by which a move bulges to the front and up, ``(SIGNS, 2, 2)``.
        beats: Frames and phase of the beat within signs, ``(2,)``.
        beat_way: Direction of the beats, ``(2, 3)``.
    """

    hands: Array
    reached: Array
    left: Array
    arcs: Array
    beats: Array
    beat_way: Array

    def at(self, frame: float) -> Array:
        """Both hands at a frame, ``(2, 14)``; the last column is used up."""
        k = int(np.clip(np.searchsorted(self.reached, frame, side="right") - 1, 0, SIGNS - 2))
        t = float(np.clip((frame - self.left[k]) / (self.reached[k + 1] - self.left[k]), 0, 1))
        # Ease in and out: fastest half-way.
        eased = t * t * (3 - 2 * t)
        now = self.hands[k] + (self.hands[k + 1] - self.hands[k]) * eased
        bulge = np.sin(np.pi * eased) ** 2 * self.arcs[k]
        now[:, 1:3] += bulge[:, ::-1]
        beat = np.sin(2 * np.pi * frame / self.beats[0] + self.beats[1])
        now[:, :3] += now[:, 13:] * beat * self.beat_way
        return now


def _place(rng: np.random.Generator, name: str) -> Array:
    mean, spread = _PLACES[name]
    return np.array(mean) + np.array(spread) * np.clip(rng.normal(0, 1, 3), -2, 2)


def _shape(rng: np.random.Generator) -> Array:
    """A hand's quantities after its place: elbow, turn, wrist, slant, fingers, spread, beat."""
    fingers = np.clip(_HANDS[rng.integers(len(_HANDS))] + rng.normal(0, 0.05, 5), 0, 1)
    angles = [rng.uniform(-5, 40), rng.uniform(-40, 80), rng.normal(0, 14), rng.normal(0, 10)]
    beat = rng.uniform(0, 2.2) if rng.random() < 0.5 else 0.3
    return np.array([*angles, *fingers, rng.uniform(0, 0.6), beat])


_MIRROR = np.array([-1.0, 1, 1])


def _sign(rng: np.random.Generator, calm: Array) -> Array:
    """Draw one sign, ``(2, 14)``: right and left hand; ``calm`` is the hand shape ``(11,)`` of a hand at rest."""
    kind = str(rng.choice(_SIGNS, p=_SIGN_ODDS))
    place = _place(rng, str(rng.choice(list(_PLACES), p=_PLACE_ODDS)))
    shapes_ = [_shape(rng), _shape(rng)]
    jitter = np.clip(rng.normal(0, 1, (2, 3)), -2, 2)
    same = rng.random() < 0.7
    resting = _RESTING + jitter * [2, 2, 1]
    if kind == "alone":
        wrists, shapes_[1] = [place, resting[1]], calm
    elif kind == "alike":
        # Both hands do the same, mirrored; or turn about each other.
        place = np.array([min(place[0], -5.0), place[1], max(place[2], 19.0)])
        wrists = [place + jitter[0] * 1.5, place * _MIRROR + jitter[1] * [2, 2 if same else 7, 2]]
        shapes_[1] = shapes_[0] if same else shapes_[1]
    elif kind == "base":
        base = np.array([9.0, -24.0, 27.0]) + jitter[0] * 3
        wrists = [base + [-12, 7, 3] + jitter[1] * [4, 3, 3], base]
    elif kind == "crossed":
        x, y = rng.uniform(6, 16), rng.uniform(-26, -8)
        wrists = [np.array([x, y, 27]) + jitter[0], np.array([-x, y - 3, 20]) + jitter[1]]
    elif kind == "apart":
        wrists = [np.array([-35, -14, 18]) + jitter[0] * [5, 8, 6], np.array([35, -14, 18]) + jitter[1] * [5, 8, 6]]
    else:
        wrists, shapes_ = list(resting), [calm, calm]
    return np.stack([np.concatenate(pair) for pair in zip(wrists, shapes_, strict=True)])


def sample_signs(rng: np.random.Generator) -> Signs:
    """Draw what the hands do in one video; the further a move, the longer it takes."""
    calm = np.array([8.0, 30.0, 5.0, 0.0, *_HANDS[-1], 0.1, 0.0])
    hands = np.stack([_sign(rng, calm) for _ in range(SIGNS)])
    speed, patience = rng.uniform(3.5, 5.5), rng.uniform(0.2, 2.2)
    holds = patience * rng.uniform(0.3, 1.7, SIGNS)
    way = np.linalg.norm(np.diff(hands[..., :3], axis=0), axis=-1).max(1)
    moves = np.maximum(way / speed, 2.5)
    start = -rng.uniform(0, holds[0] + moves[0])
    reached = start + np.concatenate([[0.0], np.cumsum(holds[:-1] + moves)])
    arcs = np.abs(rng.normal(0, 1, (SIGNS, 2, 2))) * [4.0, 2.0]
    beats = np.array([rng.uniform(4.5, 8.0), rng.uniform(0, 2 * np.pi)])
    beat_way = r.unit(rng.normal(0, 1, (2, 3)) + 1e-3)
    if rng.random() < 0.15:
        # Left-handed: everything mirrored.
        hands = hands[:, ::-1] * np.concatenate([_MIRROR, np.ones(_WIDTH - 3)])
    return Signs(hands, reached, reached + holds, arcs, beats, beat_way)


# ---------------------------------------------------------------------------------------------- the signer

_SLEEVES = np.array([
    (0.07, 0.07, 0.08), (0.10, 0.10, 0.14), (0.16, 0.16, 0.17), (0.10, 0.13, 0.28), (0.14, 0.24, 0.42),
    (0.30, 0.10, 0.14), (0.45, 0.12, 0.16), (0.12, 0.27, 0.20), (0.30, 0.16, 0.34), (0.24, 0.34, 0.36),
    (0.48, 0.30, 0.18), (0.55, 0.22, 0.38), (0.30, 0.42, 0.62), (0.45, 0.45, 0.47), (0.80, 0.78, 0.72),
])  # fmt: skip


def _dressed(rng: np.random.Generator, body: Body) -> Body:
    """The same person in a plain top with long sleeves, so that hands stand out."""
    colour = np.clip(_SLEEVES[rng.integers(len(_SLEEVES))] + rng.normal(0, 0.025, 3) + rng.normal(0, 0.02), 0.03, 0.9)
    top = Cloth((float(colour[0]), float(colour[1]), float(colour[2])), seed=int(rng.integers(1 << 30)))
    neckline = str(rng.choice(["round", "v", "collar", "high", "boat"], p=(0.34, 0.22, 0.18, 0.18, 0.08)))
    loose = float(rng.uniform(0.6, 2.6))
    dress = Dress(top, 1.97, loose, neckline, float(rng.uniform(0.47, 0.53)), Cloth((0.1, 0.1, 0.12)), width=0.5)
    return replace(body, dress=dress)


def _studio(rng: np.random.Generator) -> shapes.Light:
    """Even light, as studios have it."""
    light = shapes.sample_light(rng)
    return replace(light, ambient=max(light.ambient, 0.42), key=min(light.key, 0.95))


@dataclass(frozen=True)
class Signer:
    """One video without its background.

    Attributes:
        body: Who signs.
        turn: Of the trunk, degrees to the signer's left.
        signs: What the hands do.
        sway: Trunk: bend, twist, tilt; head: bend, twist, tilt; smile.
        swing: Amplitudes of the six angles in degrees.
        gaze: To the side and up.
        lips: How the mouth speaks along.
        mouth: How far it opens.
        blinks: Frames of the blinks.
        light: How it is lit.
        side: -1 to the left of the picture, 1 to the right.
        camera: Where it stands in the picture.
        level: Height of the camera above the ground in centimetres: the body is drawn so much lower.
        bottom: Height in centimetres from there at the picture's lower edge; nothing below it shows.
    """

    body: Body
    turn: float
    signs: Signs
    sway: Wander
    swing: Array
    gaze: tuple[float, float]
    lips: Waves
    mouth: float
    blinks: Array
    light: shapes.Light
    side: float
    camera: Camera
    level: float
    bottom: float

    def pose_at(self, frame: float) -> Pose:
        """The pose of a frame."""
        moved = self.sway.at(frame)
        trunk, head = np.split(self.swing * moved[:6], 2)
        half = tuple(float(a) for a in 0.5 * trunk)
        blink = float(np.exp(-(((frame - self.blinks) / 1.3) ** 2)).max())
        pose = Pose(
            turn=self.turn,
            waist=half,
            chest=half,
            head=tuple(float(a) for a in head),
            mouth=self.mouth * max(self.lips.at(frame), 0.0),
            smile=float(np.clip(0.15 + 0.2 * moved[6], -0.3, 0.7)),
            blink=blink,
            gaze=self.gaze,
        )
        hands = self.signs.at(frame)
        scale = self.body.figure.height / 172.0
        for side, hand in zip(("right", "left"), hands, strict=True):
            fingers = tuple(float(v) for v in np.clip(hand[7:12], 0, 1))
            arm = Arm(
                turn=float(hand[4]), wrist=float(hand[5]), slant=float(hand[6]), fingers=fingers, spread=float(hand[12])
            )
            pose = replace(pose, **{f"{side}_arm": arm})
            pose = reach_arm(self.body, pose, side, scale * hand[:3], float(hand[3]))
        return pose

    def posed_at(self, frame: float) -> Posed:
        """The body of a frame, where the camera sees it."""
        return pose_body(self.body, self.pose_at(frame)).moved(np.eye(3), (0, -self.level, 0))


def sample_signer(rng: np.random.Generator) -> Signer:
    """Draw a video: who signs what, where in the picture."""
    body = _dressed(rng, sample_body(rng))
    signs = sample_signs(rng)
    side = float(rng.choice([-1.0, 1.0]))
    # The trunk is turned a little towards the programme.
    turn = -side * float(np.clip(rng.normal(8, 8), -10, 24))
    lively = float(np.exp(rng.normal(0, 0.3)))
    height = body.figure.height
    seen = float(rng.uniform(0.50, 0.68)) * height
    shift = side * float(rng.uniform(0.03, 0.17))
    # Room above the head, in picture sides, as far as the picture then ends above the thighs.
    room = min(float(rng.uniform(0.05, 0.2)), 1 - 0.46 * height / seen)
    level = float(rng.uniform(0.72, 0.86)) * height
    camera = Camera(1 / seen, (0.5 + shift, room + (height - level) / seen), float(rng.uniform(300, 600)))
    return Signer(
        body=body,
        turn=turn,
        signs=signs,
        sway=Wander.sample(rng, 5, 7),
        swing=lively * rng.uniform([1, 2, 1, 2, 4, 3], [4, 6, 4, 7, 12, 9]),
        gaze=(float(rng.uniform(-0.5, 0.5)), float(rng.uniform(-0.2, 0.2))),
        lips=Waves.sample(rng, (4.0, 9.0)),
        mouth=float(rng.uniform(0.1, 0.6)),
        blinks=np.cumsum([rng.uniform(-4, 17), *rng.uniform(8, 20, 2)]),
        light=_studio(rng),
        side=side,
        camera=camera,
        level=level,
        bottom=height - level - 1.1 * (1 - room) * seen,
    )


# ---------------------------------------------------------------------------------------------- the programme


@dataclass(frozen=True)
class Programme:
    """What is broadcast behind the signer.

    Attributes:
        seeds: Of the pictures before and after the cut, two integers.
        blur: Of the pictures, in picture sides.
        pans: How the camera moves over each: a random walk of right, down, zoom.
        speed: Amplitudes of those.
        cut: Frame at which one picture dissolves into the other; beyond the video there is none.
        window: Left, upper, right and lower edge of its window in picture sides; None: it fills the picture.
        panel: Linear light of the panel round a window, at its two ends ``(2, 3)``.
        slope: Direction in which the panel changes, radians.
        border: Linear light of the window's border.
        caption: Upper edge, height and left edge of a caption, in picture sides; None: no caption.
        caption_colour: Linear light of its ground and of its letters ``(2, 3)``.
        words: Places where its words begin and end, ``(N, 2)``, in picture sides from its left edge.
        ink: Noise that stands for letters, ``(16, 16)``.
    """

    seeds: Array
    blur: float
    pans: tuple[Wander, Wander]
    speed: Array
    cut: float
    window: tuple[float, float, float, float] | None
    panel: Array
    slope: float
    border: Array
    caption: tuple[float, float, float] | None
    caption_colour: Array
    words: Array
    ink: Array

    def at(self, frame: float, size: int) -> Array:
        """Linear light ``(size, size, 3)`` of a frame."""
        share = float(smoothstep(self.cut - 1.2, self.cut + 1.2, frame))
        both = (1 - share, share)
        shown = sum(w * self._shot(k, frame, size) for k, w in enumerate(both) if w > 0)
        axis = ((np.arange(size) + 0.5) / size).astype(F32)
        y, x = axis[:, None, None], axis[None, :, None]
        soft = 0.5 / size
        if self.window is not None:
            along = np.clip(0.5 + (x - 0.5) * np.cos(self.slope) + (y - 0.5) * np.sin(self.slope), 0, 1)
            ground = self.panel[0] + (self.panel[1] - self.panel[0]) * along
            ground = ground + (self.border - ground) * _rectangle(x, y, self.window, 0.012, soft)
            shown = ground + (shown - ground) * _rectangle(x, y, self.window, 0.0, soft)
        if self.caption is not None:
            top, high, left = self.caption
            bar = _rectangle(x, y, (left, top, 1.1, top + high), 0.0, soft)
            shown = shown + (self.caption_colour[0] - shown) * (0.9 * bar)
            for start, end in self.words:
                word = (left + start, top + 0.34 * high, left + end, top + 0.66 * high)
                # Letters too small to be read.
                ink = smoothstep(-0.5, 0.3, r.value_noise(self.ink, 110 * x + 50 * start, 80 * y))
                shown = shown + (self.caption_colour[1] - shown) * _rectangle(x, y, word, 0.0, soft) * ink
        return shown.astype(F32)

    def _shot(self, which: int, frame: float, size: int) -> Array:
        wide = round(MARGIN * size)
        picture = r.background(np.random.default_rng(int(self.seeds[which])), wide)
        if self.blur:
            picture = gaussian_filter(picture, (self.blur * wide, self.blur * wide, 0), mode="nearest", truncate=2.5)
        return pan(picture, size, self.speed * self.pans[which].at(frame))


def _rectangle(x: Array, y: Array, edges: tuple[float, float, float, float], wider: float, soft: float) -> Array:
    """How much of each place a rectangle covers; ``wider`` by so much on all sides."""
    x0, y0, x1, y1 = edges
    inside = np.minimum(np.minimum(x - x0, x1 - x), np.minimum(y - y0, y1 - y)) + wider
    return smoothstep(-soft, soft, inside)


def sample_programme(rng: np.random.Generator, side: float) -> Programme:
    """Draw a programme; ``side`` is -1 for a signer on the left, 1 on the right."""
    windowed, captioned, cutting = rng.random(3) < (0.3, 0.3, 0.35)
    wide, high = rng.uniform(0.55, 0.85), rng.uniform(0.38, 0.6)
    middle, top = 0.5 - side * rng.uniform(0.1, 0.28), rng.uniform(0.05, 0.22)
    hue = rng.random((3, 3))
    panel = r.decode(np.clip(rng.uniform(0.15, 0.85) + rng.uniform(0.1, 0.5) * (hue - 0.5), 0.04, 0.96))
    words = 0.02 + np.cumsum(rng.uniform(0.01, 0.16, 24)).reshape(12, 2)
    dark = rng.random() < 0.6
    caption = r.decode(np.clip(rng.random((2, 3)) * 0.3 + ([[0.05], [0.7]] if dark else [[0.7], [0.05]]), 0, 1))
    bar = (float(rng.uniform(0.78, 0.9)), float(rng.uniform(0.05, 0.09)), float(rng.uniform(-0.05, 0.3)))
    return Programme(
        seeds=rng.integers(1 << 62, size=2),
        blur=float(rng.uniform(0.002, 0.012)),
        pans=(Wander.sample(rng, 3, 3), Wander.sample(rng, 3, 3)),
        speed=np.array([0.05, 0.03, 0.05]) * rng.uniform(0.1, 1.0),
        cut=float(rng.uniform(2, 14)) if cutting else 99.0,
        window=(float(middle - wide / 2), float(top), float(middle + wide / 2), float(top + high))
        if windowed
        else None,
        panel=panel[:2],
        slope=float(rng.uniform(0, 2 * np.pi)),
        border=panel[2],
        caption=bar if captioned else None,
        caption_colour=caption,
        words=words[words[:, 1] < 0.9],
        ink=rng.uniform(-1, 1, (16, 16)).astype(F32),
    )


# ---------------------------------------------------------------------------------------------- what is seen


def _cropped(surfaces: list[shapes.Surface], bottom: float) -> list[shapes.Surface]:
    """Surfaces without what lies below the picture, so that shadows are computed for what is seen."""
    # Lower points are lifted to the bottom: what they span collapses out of sight.
    return [
        replace(s, points=np.maximum(s.points, [-np.inf, bottom, -np.inf]), rest=s.points if s.rest is None else s.rest)
        for s in surfaces
        if s.points[..., 1].max() > bottom
    ]


_LIMB = ("shoulder", "elbow", "wrist", "hand")


def _to_limb(points: Array, posed: Posed, side: str) -> Array:
    """Distances of points ``(..., 3)`` from the bones of an arm, in centimetres."""
    joints = posed.places([f"{side}_{name}" for name in _LIMB])
    distances = []
    for a, b in pairwise(joints):
        t = np.clip((points - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
        distances.append(np.linalg.norm(points - a - t[..., None] * (b - a), axis=-1))
    return np.min(distances, 0)


def _sees(surfaces: list[shapes.Surface], posed: Posed, camera: Camera) -> Array:
    """Which joints nothing hides, bool ``(7,)``; a joint's own limb does not count.

    An elbow behind its own forearm, a wrist behind its own hand are seen as well as such a joint ever is; an elbow
    behind the other forearm or the trunk is hidden. Measured on a depth map of fixed size, whatever the picture's.
    """
    side = 128
    points = np.concatenate([s.points.reshape(-1, 3) for s in surfaces])
    counts = np.cumsum([0, *(s.points.shape[0] * s.points.shape[1] for s in surfaces)])
    grids = [r.grid_faces(*s.points.shape[:2]) for s in surfaces]
    faces = np.concatenate([g + n for g, n in zip(grids, counts[:-1], strict=True)])
    both = np.repeat([s.two_sided for s in surfaces], [len(g) for g in grids])
    found = r.rasterise(camera.project(points, side), points[:, 2], faces, (side, side), both)
    front = np.full((side * side, 3), -1e9)
    front[found.pixel] = (points[faces[found.face]] * found.weights[..., None]).sum(1)
    joints = posed.places(JOINTS)
    column, row = np.clip(camera.project(joints, side), 1, side - 2).astype(int).T
    around = front[np.stack([(row + i) * side + column + j for i in (-1, 0, 1) for j in (-1, 0, 1)], 1)]
    # The reach ends at the cloth; more for folds and the coarse map, and for the shoulder of a trunk that is turned.
    slack = np.array([3, 3, 3, 3, 3, 7, 7])
    hides = around[..., 2] > (joints[:, 2] + posed.radii(JOINTS) + slack)[:, None]
    for k, name in enumerate(JOINTS[1:], 1):
        own, other = ("right", "left") if name.startswith("right") else ("left", "right")
        near = _to_limb(around[k], posed, own)
        hides[k] &= (near > 8) | (near > _to_limb(around[k], posed, other))
    # At least half of the places round it: a silhouette that only grazes a joint does not hide it.
    return hides.sum(1) < 5


# ---------------------------------------------------------------------------------------------- the scene


class SignerScene:
    """Videos of signers; see :class:`ulm.datasets.procedural.VideoScene`."""

    frames = FRAMES

    def __init__(self, scene: str):
        self.name = scene
        self.info = Info(
            name=f"procedural:{scene}",
            landmark_names=LANDMARK_NAMES,
            flip_pairs=FLIP_PAIRS,
            skeleton=SKELETON,
            normaliser="image",
            licence="CC0 (drawn by ulm)",
            citation="Drawn by ulm; the seven joints are those of BBC-Pose, Charles et al. (2013).",
        )

    def draw_frame(self, rng: np.random.Generator, frame: int, size: int) -> Sample:
        """Draw one frame.

        Args:
            rng: Source of the whole video.
            frame: 0 to 15; real numbers between give the frames between.
            size: Side of the picture in pixels; changes the resolution and nothing else.

        Returns:
            ``image``, ``landmarks`` ``(7, 2)``, ``visible`` (in the picture, and not behind a hand, an arm or the
            head), ``box`` of the body and ``mask`` of the body, as :class:`ulm.datasets.base.Dataset` says.
        """
        signer = sample_signer(rng)
        posed = signer.posed_at(frame)
        backdrop = sample_programme(rng, signer.side).at(frame, size)
        surfaces = _cropped(posed.surfaces, signer.bottom)
        sample = shapes.picture(surfaces, signer.camera, signer.light, backdrop)
        places = signer.camera.project(posed.places(JOINTS), size)
        inside = np.all((places >= 0) & (places < size), 1)
        sample["landmarks"] = torch.from_numpy(places.astype(F32))
        sample["visible"] = torch.from_numpy(inside & _sees(surfaces, posed, signer.camera))
        del sample["parts"]
        return sample
