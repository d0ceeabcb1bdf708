"""Procedural talking faces: short videos of one person in front of one background, as in interviews.

The heads, their 68 landmarks and their visibility are those of :mod:`ulm.datasets.faces`; this file moves them. A video
is drawn from one generator: who it is, how the room is lit, and a handful of curves over the frames. The jaw opens and
closes in syllables, the lips spread and round, the eyes blink and dart, the brows stress a word, the head turns, nods
and tilts, and the crop follows the head as a face track does. Everything is a smooth function of the frame.

The framing is that of VoxCeleb's face tracks: from the hair to the shoulders, the eyes a little above the middle.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from ulm.datasets import rendering as r
from ulm.datasets.base import Sample
from ulm.datasets.faces import Expression, Face, FaceScene, Pose, draw_face, sample_face
from ulm.datasets.rendering import Array, Camera, smoothstep

F32 = np.float32
FRAMES = 16
# Middle of the five points of MAFL in the head's frame, in millimetres from the pivot of its turns.
_FACE = np.array([0.0, 36.0, 108.0])
MARGIN = 1.25
"""How much wider than the picture a background is drawn, so that the camera can drift over it."""


# ---------------------------------------------------------------------------------------------- motion


@dataclass(frozen=True)
class Wander:
    """A smooth random walk of several quantities: a Catmull-Rom curve through standard normal knots.

    Attributes:
        knots: ``(N, F)``, evenly spread over the video.
    """

    knots: Array

    @classmethod
    def sample(cls, rng: np.random.Generator, knots: int, quantities: int) -> Wander:
        """Draw ``knots`` values of each of ``quantities`` quantities, cut at two standard deviations."""
        return cls(np.clip(rng.normal(0, 1, (knots, quantities)), -2, 2))

    def at(self, frame: float) -> Array:
        """The quantities at a frame, ``(F,)``."""
        return r.spline(self.knots, np.array(frame / (FRAMES - 1) * (len(self.knots) - 1)))


@dataclass(frozen=True)
class Waves:
    """A sum of sinusoids: quicker than :class:`Wander`, for syllables.

    Attributes:
        periods: Frames a period, ``(N,)``.
        phases: Radians, ``(N,)``.
        weights: ``(N,)``.
    """

    periods: Array
    phases: Array
    weights: Array

    @classmethod
    def sample(cls, rng: np.random.Generator, periods: tuple[float, float], count: int = 3) -> Waves:
        """Draw ``count`` sinusoids with periods in a range; the sum stays within [-1, 1]."""
        weights = rng.uniform(0.4, 1.0, count)
        drawn = np.exp(rng.uniform(*np.log(periods), count))
        return cls(drawn, rng.uniform(0, 2 * np.pi, count), weights / weights.sum())

    def at(self, frame: float) -> float:
        """The sum at a frame."""
        return float(self.weights @ np.sin(2 * np.pi * frame / self.periods + self.phases))


@dataclass(frozen=True)
class Talk:
    """One video without its background: who talks, and how face, head and camera move.

    Attributes:
        face: Identity, look and light; its expression is the one at rest.
        rest: The head's mean pose.
        turns: Amplitudes of yaw, pitch and roll in degrees.
        head: Yaw, pitch, roll, and the head's sway to the right and upwards.
        sway: Amplitudes of the sway in millimetres.
        loudness: How far the jaw opens at most, in millimetres; near 0 for somebody who listens.
        jaw: Syllables.
        lips: Spreading (positive) and rounding of the lips.
        mimic: Smile, brows together, brows apart, frown, gaze right, gaze up, how loud.
        brows: Amplitude of the brows.
        blinks: Frames of the blinks, at most three; those outside the video are not seen.
        blink_width: Half the length of a blink, in frames.
        scale: Image sides a millimetre.
        centre: Where the middle of the face is at rest, in image sides.
        distance: Of the camera, in millimetres.
        follow: How far the crop follows the head: 0 stands still, 1 keeps the face in its place.
        drift: The camera's drift to the right, downwards, and its zoom.
        drifts: Amplitudes of the drift in image sides, and of the zoom's logarithm.
    """

    face: Face
    rest: Pose
    turns: Array
    head: Wander
    sway: Array
    loudness: float
    jaw: Waves
    lips: Waves
    mimic: Wander
    brows: float
    blinks: Array
    blink_width: float
    scale: float
    centre: Array
    distance: float
    follow: float
    drift: Wander
    drifts: Array

    def face_at(self, frame: float) -> Face:
        """The face with the expression of a frame."""
        rest, shape = self.face.expression, self.face.shape
        smile, both, one, frown, right, up, loud = self.mimic.at(frame)
        # Between words the jaw closes; a soft hinge keeps that smooth.
        opening = 1.5 * self.jaw.at(frame) + 0.42 + 0.15 * loud
        gap = self.loudness * 0.29 * (opening + np.sqrt(opening**2 + 0.02)) - 0.15
        spread = self.lips.at(frame) * min(self.loudness / 10, 1)
        rounded, wide = max(-spread, 0.0), max(spread, 0.0)
        blink = float(np.exp(-(((frame - self.blinks) / self.blink_width) ** 2)).max())
        lids = 1 + 0.05 * both * self.brows - blink
        turned = self._turn(frame)[0]
        # The eyes stay on whom they talk to while the head turns, and dart a little by themselves.
        gaze = np.clip([rest.gaze[0] - 0.13 * turned + 0.9 * right, rest.gaze[1] + 0.4 * up], [-5, -1.8], [5, 1.8])
        expression = Expression(
            gap=float(np.clip(gap, 0, 20)),
            smile=float(np.clip(rest.smile + 0.16 * smile + 0.25 * wide - 0.15 * rounded, -0.45, 1.0)),
            eye_left=float(np.clip(rest.eye_left * lids, 0, 1.3)),
            eye_right=float(np.clip(rest.eye_right * lids, 0, 1.3)),
            brow_left=rest.brow_left + self.brows * (both + 0.25 * one),
            brow_right=rest.brow_right + self.brows * (both - 0.25 * one),
            frown=max(0.0, rest.frown + 0.25 * frown),
            gaze=(float(gaze[0]), float(gaze[1])),
        )
        shape = replace(
            shape,
            mouth_half=shape.mouth_half * (1 - 0.2 * rounded + 0.04 * wide),
            lip_up=shape.lip_up * (1 + 0.15 * rounded - 0.1 * wide),
            lip_down=shape.lip_down * (1 + 0.15 * rounded - 0.1 * wide),
        )
        return replace(self.face, expression=expression, shape=shape)

    def _turn(self, frame: float) -> Array:
        """Yaw, pitch and roll away from rest, in degrees."""
        return self.turns * self.head.at(frame)[:3]

    def pose_at(self, frame: float) -> Pose:
        """The pose of a frame: the shoulders follow the head a little."""
        yaw, pitch, roll = self._turn(frame)
        turned = float(np.clip(self.rest.yaw + yaw, -60, 60))
        body = self.rest.body + 0.15 * float(yaw)
        return Pose(turned, float(self.rest.pitch + pitch), float(self.rest.roll + roll), body)

    def camera_at(self, frame: float) -> tuple[Camera, Array]:
        """The camera of a frame, and what it does to the far background: its move to the right and down, its zoom."""
        right, down, zoom = self.drifts * self.drift.at(frame)
        pose, sway = self.pose_at(frame), self.sway * self.head.at(frame)[3:]
        rest, here = (r.rotation(p.yaw, p.pitch, p.roll) @ _FACE for p in (self.rest, pose))
        scale = self.scale * float(np.exp(zoom))
        moved = scale * (sway + here[:2] - rest[:2]) * [1, -1]
        camera = self.follow * moved + [right, down]
        pivot = self.centre - scale * rest[:2] * [1, -1] + scale * sway * [1, -1] - camera
        return Camera(scale, (float(pivot[0]), float(pivot[1])), self.distance), np.append(camera, zoom)


def sample_talk(rng: np.random.Generator) -> Talk:
    """Draw a video: who talks to whom, how lively, how the camera follows."""
    face = sample_face(rng)
    rest = replace(face.expression, gap=0.0, smile=0.8 * face.expression.smile)
    # Nobody sleeps through an interview; who squints does so all along.
    rest = replace(rest, eye_left=max(rest.eye_left, 0.6), eye_right=max(rest.eye_right, 0.6))
    yaw = float(np.clip(rng.normal(0, 17), -40, 40))
    body = yaw - float(np.clip(yaw * rng.uniform(0.0, 0.7), -40, 40))
    pose = Pose(yaw, float(np.clip(rng.normal(0, 5), -12, 12)), float(np.clip(rng.normal(0, 4), -10, 10)), body)
    lively = float(np.exp(rng.normal(0, 0.35)))
    turns = lively * np.exp(rng.uniform(np.log([4, 2, 1.5]), np.log([15, 6, 5])))
    listens = rng.random() < 0.12
    drifting = rng.random() < 0.4
    return Talk(
        face=replace(face, expression=rest),
        rest=pose,
        turns=np.minimum(turns, [20, 8, 7]),
        head=Wander.sample(rng, 5, 5),
        sway=lively * rng.uniform([2, 1], [9, 5]),
        loudness=float(rng.uniform(8, 20)) * (0.06 if listens else 1.0),
        jaw=Waves.sample(rng, (5.0, 11.0)),
        lips=Waves.sample(rng, (5.0, 14.0)),
        mimic=Wander.sample(rng, 6, 7),
        brows=float(rng.uniform(0.1, 0.45)),
        blinks=np.cumsum([rng.uniform(-4, 17), *rng.uniform(8, 20, 2)]),
        blink_width=float(rng.uniform(1.2, 1.7)),
        scale=float(0.0036 * np.exp(0.11 * np.clip(rng.normal(), -2, 2))),
        centre=np.array([0.5, 0.54]) + [0.03, 0.025] * np.clip(rng.normal(0, 1, 2), -2, 2),
        distance=float(np.exp(rng.uniform(np.log(900), np.log(2500)))),
        follow=float(rng.uniform(0.2, 0.9)),
        drift=Wander.sample(rng, 3, 3),
        drifts=np.array([0.02, 0.012, 0.035]) * (rng.uniform(0.5, 1.2) if drifting else 0.15),
    )


# ---------------------------------------------------------------------------------------------- the room


def pan(picture: Array, size: int, move: Array) -> Array:
    """The middle of a wider picture, seen by a camera that moves.

    Args:
        picture: ``(W, W, 3)``; it is :data:`MARGIN` times as wide as what is shown.
        size: Side of the result in pixels.
        move: The camera's move to the right and down, in sides of the result, and the logarithm of its zoom. Beyond
            the margin the picture's edges are repeated.

    Returns:
        ``(size, size, 3)``, read bilinearly.
    """
    wide = picture.shape[0]
    for axis, shift in enumerate(move[1::-1]):
        # Where the result's pixels lie on the wider picture, in its own pixels.
        place = ((np.arange(size) + 0.5) / size - 0.5) * np.exp(-move[2]) + shift
        at = np.clip((place / MARGIN + 0.5) * wide - 0.5, 0, wide - 1.001)
        low = at.astype(np.int64)
        part = (at - low).astype(F32).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        picture = np.take(picture, low, axis) * (1 - part) + np.take(picture, low + 1, axis) * part
    return picture


def _room(rng: np.random.Generator, size: int, move: Array) -> Array:
    """The background behind a moving camera, mostly out of focus: linear light ``(size, size, 3)``."""
    blur = rng.uniform(0.004, 0.025) if rng.random() < 0.8 else 0.0
    parallax = rng.uniform(0.5, 1.0)
    wide = round(MARGIN * size)
    picture = r.background(rng, wide)
    if blur:
        picture = gaussian_filter(picture, (blur * wide, blur * wide, 0), mode="nearest", truncate=2.5)
    return pan(picture, size, parallax * move)


@dataclass(frozen=True)
class Microphone:
    """A reporter's microphone before the chin, in image sides; drawn flat, over everything.

    Attributes:
        tip: Middle of its head.
        radius: Of its head.
        slant: Of its handle from upright, in radians.
        colour: Of head, and of the block with the station's sign, display values ``(2, 3)``.
        block: Whether there is such a block.
        foam: Values of its texture, ``(16, 16)``.
        light: Direction of the light in the picture, to the right and upwards.
    """

    tip: Array
    radius: float
    slant: float
    colour: Array
    block: bool
    foam: Array
    light: float

    @classmethod
    def sample(cls, rng: np.random.Generator, talk: Talk) -> Microphone | None:
        """Draw one; None in most videos. The random numbers used are as many either way."""
        held = rng.random() < 0.22
        side = rng.choice([-1.0, 1.0])
        scale = talk.scale
        offset = np.array([side * rng.uniform(5, 60), rng.uniform(88, 125)]) * scale
        grey = rng.uniform(0.05, 0.25)
        colours = np.stack([np.clip(grey + rng.normal(0, 0.02, 3), 0.02, 1), rng.random(3)])
        radius, slant = rng.uniform(17, 26) * scale, side * rng.uniform(0.05, 0.6)
        block, foam = rng.random() < 0.5, rng.uniform(-1, 1, (16, 16)).astype(F32)
        light = float(np.sin(np.radians(talk.face.light.azimuth)))
        return cls(talk.centre + offset, radius, slant, colours, bool(block), foam, light) if held else None

    def moved(self, by: Array) -> Microphone:
        """The microphone elsewhere."""
        return replace(self, tip=self.tip + by)

    def _place(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Across and along the handle, in radii of the head."""
        dx, dy = (x - self.tip[0]) / self.radius, (y - self.tip[1]) / self.radius
        c, s = np.cos(self.slant), np.sin(self.slant)
        return dx * c - dy * s, dx * s + dy * c

    def cover(self, x: Array, y: Array, soft: float) -> Array:
        """How much it covers places given in image sides, with an edge ``soft`` sides wide: 0 to 1."""
        across, along = self._place(x, y)
        head = np.sqrt(across**2 + (along / 1.25) ** 2) - 1
        stem = np.maximum(np.abs(across) - np.clip(0.62 - 0.03 * along, 0.4, 1), -along)
        distance = np.minimum(head, stem)
        if self.block:
            distance = np.minimum(distance, np.maximum(np.abs(across) - 1.15, np.abs(along - 2.5) - 0.95))
        edge = soft / self.radius
        return smoothstep(edge, -edge, distance)

    def paint(self, x: Array, y: Array) -> Array:
        """Display colour ``(..., 3)``: foam above, a dark handle, the station's block between."""
        across, along = self._place(x, y)
        round_ = np.sqrt(np.clip(1 - np.minimum(across**2 + (along / 1.25) ** 2, 1), 0, 1))
        foam = 0.45 + 0.6 * round_ + 0.35 * self.light * across - 0.2 * along
        foam = foam * (1 + 0.18 * r.value_noise(self.foam, 9 * across, 9 * along))
        stem = 0.5 + 0.5 * np.sqrt(np.clip(1 - (across / 0.62) ** 2, 0, 1)) + 0.4 * r.bump((across + 0.25) / 0.12)
        colour = np.where((across**2 + (along / 1.25) ** 2 < 1)[..., None], foam[..., None], 0.6 * stem[..., None])
        colour = colour * self.colour[0]
        if self.block:
            # A plain sign: a light bar or two on the block.
            at = (np.abs(across) < 1.15) & (np.abs(along - 2.5) < 0.95)
            sign = smoothstep(0.2, 0.05, np.abs(np.abs(along - 2.5) - 0.3)) * smoothstep(0.85, 0.75, np.abs(across))
            block = self.colour[1] * (0.85 + 0.15 * self.light * across)[..., None]
            block = block + (0.92 - block) * (0.85 * sign)[..., None]
            colour = np.where(at[..., None], block, colour)
        return np.clip(colour, 0, 1)


def _hold(sample: Sample, microphone: Microphone, size: int) -> Sample:
    """Draw a microphone over a sample, hide what lies behind it, and take it out of the mask."""
    axis = (np.arange(size) + 0.5) / size
    y, x = np.meshgrid(axis, axis, indexing="ij")
    cover = microphone.cover(x, y, 0.5 / size).astype(F32)
    paint = microphone.paint(x, y).astype(F32)
    image = sample["image"].numpy()
    image = image + (paint.transpose(2, 0, 1) - image) * cover
    places = sample["landmarks"].numpy().astype(np.float64) / size
    hidden = microphone.cover(places[:, 0], places[:, 1], 1e-3) > 0.5
    return {
        **sample,
        "image": torch.from_numpy(np.ascontiguousarray(image, F32)),
        "visible": sample["visible"] & torch.from_numpy(~hidden),
        "mask": sample["mask"] & torch.from_numpy(cover < 0.5),
    }


# ---------------------------------------------------------------------------------------------- the scene


class TalkingFaceScene:
    """Videos of talking heads; see :class:`ulm.datasets.procedural.VideoScene`.

    Items are those of ``procedural:faces``: 68 landmarks of iBUG, ``visible`` (hidden by the head itself or by a
    microphone), ``box`` of the landmarks, ``mask`` of the head, and ``yaw``.
    """

    frames = FRAMES

    def __init__(self, scene: str):
        self.name = scene
        self.info = replace(FaceScene("faces").info, name=f"procedural:{scene}")

    def draw_frame(self, rng: np.random.Generator, frame: int, size: int) -> Sample:
        """Draw one frame.

        Args:
            rng: Source of the whole video.
            frame: 0 to 15; real numbers between give the frames between.
            size: Side of the picture in pixels; changes the resolution and nothing else.

        Returns:
            What :func:`ulm.datasets.faces.draw_face` returns.
        """
        talk = sample_talk(rng)
        microphone = Microphone.sample(rng, talk)
        hand = Wander.sample(rng, 4, 2)
        camera, move = talk.camera_at(frame)
        backdrop = _room(rng, size, move)
        sample = draw_face(talk.face_at(frame), talk.pose_at(frame), size, camera, backdrop)
        if microphone is None:
            return sample
        return _hold(sample, microphone.moved(0.006 * hand.at(frame) - move[:2]), size)
