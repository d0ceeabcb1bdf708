"""Simple faces and birds: a handful of large flat parts, each in a colour of its own, on a plain ground.

They are what a small text-conditioned model learns first. Its words find large areas within minutes, but parts of a few
pixels only where they are few: with the thirteen parts of :mod:`ulm.datasets.painted` it never came to eyes and beaks
in the time that a laptop has, with these it does. All colours of a picture differ, left and right have their own (those
of the image), and the subject has any place and any size, so that only its place in the subject tells a part.
Whoever describes a picture asks :func:`sample_simple` with the same generator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw

from ulm.datasets.base import Info, Sample
from ulm.datasets.painted import JITTER, PAINTS, SUPERSAMPLING
from ulm.datasets.rendering import Array

F32 = np.float32
GROUND = "background"


@dataclass(frozen=True)
class Shape:
    """One part's polygon ``(N, 2)``, in the subject's own frame: x right, y down, its height is 1."""

    part: str
    points: Array


@dataclass(frozen=True)
class Drawing:
    """A subject before it is placed: polygons from back to front, and landmarks ``(K, 2)`` in the same frame."""

    shapes: list[Shape]
    marks: Array
    looking: str


@dataclass(frozen=True)
class Simple:
    """A picture: what is drawn, where it stands, and the names of its colours, ``background`` among them."""

    drawing: Drawing
    scale: float
    shift: Array
    names: dict[str, str]
    colours: dict[str, Array]


_TURN = np.linspace(0, 2 * np.pi, 32, endpoint=False)


def _oval(x: float, y: float, across: float, down: float) -> Array:
    """An ellipse's outline ``(32, 2)``."""
    return np.array([x, y]) + np.stack([np.cos(_TURN), np.sin(_TURN)], -1) * np.array([across, down])


FACE_MARKS = ("left eye", "right eye", "nose", "mouth", "chin", "crown", "left side", "right side")
BIRD_MARKS = ("beak", "eye", "crown", "breast", "belly", "back", "wing", "tail")


def _face(rng: np.random.Generator) -> Drawing:
    """A head with hair, eyes, a nose and a mouth."""
    half, turned, tilt = rng.uniform(0.34, 0.42), rng.uniform(-0.13, 0.13), np.radians(rng.uniform(-15, 15))
    across, eye, wide, open_ = rng.uniform([0.2, 0.95, 0.8, 0.8], [0.24, 1.15, 1.2, 1.5])
    shapes = [
        Shape("hair", _oval(0, -0.04, 1.14 * half, 0.5)),
        Shape("skin", _oval(0.3 * turned, 0.07, 0.94 * half, 0.42)),
        Shape("left eye", _oval(turned - across * 2 * half, -0.02, eye * 0.24 * half, 0.085)),
        Shape("right eye", _oval(turned + across * 2 * half, -0.02, eye * 0.24 * half, 0.085)),
        Shape("nose", np.array([(1.2 * turned, 0.02), (1.4 * turned - 0.065, 0.175), (1.4 * turned + 0.065, 0.175)])),
        Shape("mouth", _oval(turned, 0.29, wide * 0.4 * half, open_ * 0.055)),
    ]
    ends = [(0.3 * turned, 0.49), (0, -0.54), (0.3 * turned - 0.94 * half, 0.05), (0.3 * turned + 0.94 * half, 0.05)]
    middles = [shape.points.mean(0) for shape in shapes[2:]]
    looking = "left" if turned < -0.06 else "right" if turned > 0.06 else "ahead"
    return _turned(Drawing(shapes, np.array([*middles, *ends]), looking), tilt)


def _bird(rng: np.random.Generator) -> Drawing:
    """A bird from the side: body, head, beak, eye, wing and tail."""
    side, tilt = (1 if rng.random() < 0.5 else -1), np.radians(rng.uniform(-20, 20))
    high, reach, tall = rng.uniform([0.19, 0.1, 0.28], [0.25, 0.2, 0.4])
    x, y = 0.38, -high - 0.1  # the head's middle
    shapes = [
        Shape("tail", np.array([(-0.3, -0.09), (-0.42 - tall, -0.16), (-0.42 - tall, 0.06), (-0.3, 0.09)])),
        Shape("body", _oval(0, 0, 0.42, high)),
        Shape("beak", np.array([(x + 0.12, y - 0.08), (x + 0.15 + reach, y + 0.02), (x + 0.12, y + 0.09)])),
        Shape("head", _oval(x, y, 0.17, 0.17)),
        Shape("eye", _oval(x + 0.05, y - 0.03, 0.065, 0.065)),
        Shape("wing", _oval(-0.1, -0.05, 0.23, 0.55 * high)),
    ]
    marks = [(x + 0.15 + reach, y + 0.02), (x + 0.05, y - 0.03), (x, y - 0.17), (0.33, 0.6 * high), (0, high)]
    marks += [(-0.05, -high), (-0.1, -0.05), (-0.42 - tall, -0.05)]
    flipped = np.array([side, 1])
    shapes = [Shape(shape.part, shape.points * flipped) for shape in shapes]
    return _turned(Drawing(shapes, np.array(marks) * flipped, "right" if side == 1 else "left"), tilt)


def _turned(drawing: Drawing, angle: float) -> Drawing:
    turn = np.array([(np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))])
    return Drawing(
        [Shape(shape.part, shape.points @ turn) for shape in drawing.shapes], drawing.marks @ turn, drawing.looking
    )


SUBJECTS: dict[str, tuple[Callable[[np.random.Generator], Drawing], tuple[str, ...]]] = {
    "simple-faces": (_face, FACE_MARKS),
    "simple-birds": (_bird, BIRD_MARKS),
}


def sample_simple(rng: np.random.Generator, scene: str) -> Simple:
    """Draw a subject, its place, and a colour for each part."""
    drawing = SUBJECTS[scene][0](rng)
    parts = [GROUND, *(shape.part for shape in drawing.shapes)]
    chosen = rng.permutation(list(PAINTS))[: len(parts)]
    names = {part: str(name) for part, name in zip(parts, chosen, strict=True)}
    colours = {part: np.clip(PAINTS[name] + rng.uniform(-JITTER, JITTER, 3), 0, 1) for part, name in names.items()}
    outline = np.concatenate([shape.points for shape in drawing.shapes])
    low, high = outline.min(0), outline.max(0)
    scale = rng.uniform(0.5, 0.95) / float((high - low).max())
    shift = 0.02 + (0.96 - scale * (high - low)) * rng.random(2) - scale * low
    return Simple(drawing, scale, shift, names, colours)


class SimpleScene:
    """One of the scenes of :data:`SUBJECTS`.

    Args:
        scene: Its name.
    """

    def __init__(self, scene: str):
        self.name = scene
        names = SUBJECTS[scene][1]
        pairs = tuple((names.index(n), names.index(n.replace("left", "right"))) for n in names if n.startswith("left"))
        self.info = Info(
            name=f"procedural:{scene}", landmark_names=names, flip_pairs=pairs, normaliser="box",
            licence="CC0 (drawn by ulm)", citation="Drawn by ulm.",
        )  # fmt: skip

    def draw(self, rng: np.random.Generator, size: int) -> Sample:
        """Draw one sample; the same generator gives the same scene at every size.

        Returns:
            ``image``, ``landmarks``, ``visible`` (all), ``box`` of the landmarks and ``mask``, as
            :class:`ulm.datasets.base.Dataset` says.
        """
        simple = sample_simple(rng, self.name)
        wide = size * SUPERSAMPLING
        ink = {part: _bytes(colour) for part, colour in simple.colours.items()}
        canvas, cover = Image.new("RGB", (wide, wide), ink[GROUND]), Image.new("L", (wide, wide))
        paint, trace = ImageDraw.Draw(canvas), ImageDraw.Draw(cover)
        for shape in simple.drawing.shapes:
            corners = [(float(x), float(y)) for x, y in (simple.scale * shape.points + simple.shift) * wide]
            paint.polygon(corners, fill=ink[shape.part])
            trace.polygon(corners, fill=255)
        image, mask = (np.asarray(p.resize((size, size), Image.Resampling.BOX)) for p in (canvas, cover))
        marks = (simple.scale * simple.drawing.marks + simple.shift) * size
        return {
            "image": torch.from_numpy(image.transpose(2, 0, 1).astype(F32) / 255),
            "landmarks": torch.from_numpy(marks.astype(F32)),
            "visible": torch.ones(len(marks), dtype=torch.bool),
            "box": torch.from_numpy(np.concatenate([marks.min(0), marks.max(0)]).astype(F32)),
            "mask": torch.from_numpy(mask > 127),
        }


def _bytes(colour: Array) -> tuple[int, int, int]:
    red, green, blue = (int(v) for v in np.round(255 * colour))
    return red, green, blue
