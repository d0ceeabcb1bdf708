"""Painted faces and birds: flat pictures in which every part has a vivid colour of its own, and says so.

A small text-conditioned model learns from them that words name parts: colours are independent of each other, left and
right have their own (those of the image), so that only the place of a part explains its colour. Faces are polygons over
the heads and landmarks of :mod:`ulm.datasets.faces`, birds are those of :mod:`ulm.datasets.birds` in loud plumage.
Whoever describes a picture asks :func:`sample_painted_face` or :func:`sample_painted_bird` with the same generator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy.spatial import ConvexHull

from ulm.datasets import birds, faces, shapes
from ulm.datasets import rendering as r
from ulm.datasets.base import Sample
from ulm.datasets.rendering import Array, Camera

F32 = np.float32
SUPERSAMPLING = 4
JITTER = 0.03
"""How much each channel of a colour may differ from :data:`PAINTS`; the colour keeps its name."""
RGB = tuple[float, float, float]
PAINTS: dict[str, RGB] = {
    "black": (0.06, 0.06, 0.07), "white": (0.96, 0.96, 0.95), "grey": (0.50, 0.50, 0.50), "red": (0.86, 0.10, 0.10),
    "orange": (0.97, 0.52, 0.10), "yellow": (0.97, 0.86, 0.12), "green": (0.20, 0.66, 0.20),
    "blue": (0.15, 0.33, 0.85), "purple": (0.50, 0.18, 0.58), "pink": (0.96, 0.62, 0.74), "brown": (0.42, 0.26, 0.15),
}  # fmt: skip
"""The named colours, display RGB in [0, 1]."""

# Part -> parts painted before it whose colour it must not share, as they touch.
FACE_PARTS: dict[str, tuple[str, ...]] = {
    "background": (), "skin": ("background",), "hair": ("background", "skin"), "left eye": ("skin",),
    "right eye": ("skin",), "left brow": ("skin", "left eye", "hair"), "right brow": ("skin", "right eye", "hair"),
    "nose": ("skin", "left eye", "right eye"), "mouth": ("skin", "nose"), "left ear": ("skin", "hair", "background"),
    "right ear": ("skin", "hair", "background"), "shirt": ("background", "skin", "hair"),
    "chin": ("skin", "mouth", "shirt", "background"),
}  # fmt: skip
BIRD_PARTS: dict[str, tuple[str, ...]] = {
    "background": (), "head": ("background",), "crown": ("background", "head"), "throat": ("background", "head"),
    "breast": ("background", "throat", "head"), "belly": ("background", "breast"),
    "back": ("background", "head", "breast", "belly"), "wings": ("background", "back", "breast", "belly"),
    "tail": ("background", "wings", "back", "belly"), "beak": ("background", "head", "throat", "crown"),
    "legs": ("background", "belly"),
}  # fmt: skip
_ZONES = {"head": ("head", "cheek", "nape", "disc"), "crown": ("cap", "crest"), "throat": ("throat", "bib"),
          "breast": ("breast",), "belly": ("belly",), "back": ("back", "rump"), "wings": ("wing", "flight", "tip"),
          "tail": ("tail",), "beak": ("beak",), "legs": ("leg",)}  # fmt: skip
PLAIN = 0.7
"""Share of pictures with a background of one named colour; the others have clutter behind."""


def _paint(rng: np.random.Generator, parts: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """A colour's name for each part, which differs from those of its neighbours."""
    names: dict[str, str] = {}
    for part, neighbours in parts.items():
        taken = {names[other] for other in neighbours}
        left = [name for name in PAINTS if name not in taken]
        names[part] = left[int(rng.integers(len(left)))]
    return names


def _mixed(rng: np.random.Generator, names: Mapping[str, str]) -> dict[str, Array]:
    """Display RGB ``(3,)`` of each part: the named colour, slightly changed."""
    return {part: np.clip(PAINTS[name] + rng.uniform(-JITTER, JITTER, 3), 0, 1) for part, name in names.items()}


# ---------------------------------------------------------------------------------------------- faces


@dataclass(frozen=True)
class PaintedFace:
    """Everything about a painted face but the clutter behind it.

    Attributes:
        face: Its shape and expression; its look is not used.
        pose: Of the head.
        names: Name of each part's colour, for the parts that are drawn; ``background`` only where it is plain.
        colours: Display RGB ``(3,)`` of the same parts.
        hair: Thickness of the hair, and how far it falls below the eyes (0: not), in millimetres.
        fill: Share of the picture's side that the longer side of the head with its neck takes.
        place: Where in the room that is left they stand, two numbers in [0, 1].
        distance: Of the eye in millimetres.
    """

    face: faces.Face
    pose: faces.Pose
    names: dict[str, str]
    colours: dict[str, Array]
    hair: tuple[float, float]
    fill: float
    place: tuple[float, float]
    distance: float


def sample_painted_face(rng: np.random.Generator) -> PaintedFace:
    """Draw a face of the scene ``faces-wild``, where it stands, and a colour for each of its parts.

    The ear that is turned away is not drawn, and some faces have no patch on their chin.
    """
    face, pose = faces.sample_face(rng), _WILD._pose(rng)
    long = float(rng.uniform(60, 150)) if rng.random() < 0.4 else 0.0
    hair, place = (float(rng.uniform(6, 24)), long), (float(rng.random()), float(rng.random()))
    fill, distance = float(rng.uniform(0.6, 0.98)), float(np.exp(rng.uniform(np.log(700), np.log(2500))))
    names = _paint(rng, FACE_PARTS)
    hidden = {
        "left ear": pose.yaw < -12, "right ear": pose.yaw > 12, "chin": rng.random() > 0.75,
        "background": rng.random() > PLAIN,
    }  # fmt: skip
    names = {part: name for part, name in names.items() if not hidden.get(part, False)}
    return PaintedFace(face, pose, names, _mixed(rng, names), hair, fill, place, distance)


_WILD = faces.FaceScene("faces-wild")
_TURN = np.linspace(0, 2 * np.pi, 28, endpoint=False)
_SKULL, _ROOT = (0.0, 36.0, -4.0), (0.0, -140.0, -30.0)
_RING = np.stack([np.cos(_TURN), np.sin(_TURN)], -1)


@dataclass(frozen=True)
class _Head:
    """A head in the camera's frame, millimetres: landmarks ``(68, 3)``, their normals, and the head's rotation."""

    marks: Array
    outward: Array
    turn: Array

    @staticmethod
    def of(painted: PaintedFace) -> _Head:
        turn = r.rotation(painted.pose.yaw, painted.pose.pitch, painted.pose.roll)
        marks, outward = faces.Curves(painted.face.shape, painted.face.expression).landmarks()
        return _Head((marks - faces._PIVOT) @ turn.T, outward @ turn.T, turn)

    def at(self, *points: tuple[float, float, float]) -> Array:
        """Points ``(N, 3)`` of the head's own frame, in which the eyes have y = 0 and z is ahead."""
        return (np.array(points, float) - faces._PIVOT) @ self.turn.T

    def oval(self, centre: Array, across: float, up: float) -> Array:
        """An ellipse that turns with the face, ``(28, 3)``."""
        return centre + _RING @ (np.array([across, up])[:, None] * self.turn[:, :2].T)

    def ball(self, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Array:
        """The outline of an ellipsoid as the viewer sees it, ``(28, 3)``."""
        axes = self.turn * np.array(radii)
        seen = _RING @ np.linalg.cholesky(axes[:2] @ axes[:2].T).T
        return self.at(centre) + np.pad(seen, ((0, 0), (0, 1)))

    def enlarged(self, marks: range, across: float, up: float) -> Array:
        """Landmarks, moved away from their middle along the head's axes."""
        points = self.marks[marks]
        middle = points.mean(0)
        return middle + ((points - middle) @ self.turn * np.array([across, up, 1.0])) @ self.turn.T


def _outline(points: Array) -> Array:
    """The convex hull ``(M, 3)`` of points ``(N, 3)``, as seen by the viewer."""
    return np.asarray(points[ConvexHull(points[:, :2]).vertices])


@dataclass(frozen=True)
class _Patch:
    """One polygon ``(N, 3)`` in the camera's frame, the part whose colour it has, and whether it is of the body."""

    part: str
    points: Array
    body: bool = False


def _torso(head: _Head) -> list[_Patch]:
    """Neck and shirt, which stay upright."""
    root = head.at(_ROOT)
    half = np.array([(45, 4, 0), (135, -32, 0), (180, -85, 0), (200, -900, 0)], float)
    shirt = root + np.concatenate([half, half[::-1] * np.array([-1, 1, 1])])
    neck = np.concatenate([head.at((-44, -60, 0), (44, -60, 0)), root + np.array([(46, -12, 0), (-46, -12, 0)])])
    return [_Patch("skin", neck, True), _Patch("shirt", shirt, True)]


def _features(head: _Head) -> list[_Patch]:
    """Chin, nose, mouth, eyes and brows, larger than life."""
    marks, up = head.marks, head.turn[:, 1]
    found = [
        _Patch("chin", head.oval(marks[8] + 7 * up, 27, 17)),
        _Patch("nose", head.enlarged(range(27, 36), 1.5, 1.05)),
        _Patch("mouth", head.enlarged(range(48, 60), 1.2, 1.5)),
    ]
    for side, eye, brow in (("left", range(36, 42), range(17, 22)), ("right", range(42, 48), range(22, 27))):
        found.append(_Patch(f"{side} eye", head.oval(marks[eye].mean(0), 20, 12.5)))
        line = marks[brow] + 7 * up
        found.append(_Patch(f"{side} brow", np.concatenate([line + 7 * up, line[::-1] - 7 * up])))
    return found


def _drawing(painted: PaintedFace, head: _Head) -> list[_Patch]:
    """What to paint, from back to front."""
    thick, long = painted.hair
    features = _features(head)
    turn = np.linspace(0, np.pi, 9)
    arc = np.stack([-72 * np.cos(turn), 12 + 50 * np.sin(turn), 10 + 62 * np.sin(turn)], -1)
    inside = [patch.points for patch in features if patch.part not in ("chin", "nose")]
    face = _outline(np.concatenate([head.marks[:17], (arc - faces._PIVOT) @ head.turn.T, *inside]))
    fall = [_Patch("hair", head.ball((0, -0.5 * long, -30), (82 + thick, 40 + 0.7 * long, 70)))] if long else []
    cap = _Patch("hair", head.ball(_SKULL, (78 + thick, 76 + thick, 92 + thick)))
    ears = [_Patch(side, head.oval(head.at((x, -4, -4)), 15, 27)) for side, x in (("left ear", -86), ("right ear", 86))]
    drawn = [*fall, *_torso(head), cap, _Patch("skin", face), *ears, *features]
    return [patch for patch in drawn if patch.part in painted.names]


def _face_camera(painted: PaintedFace, head: _Head) -> Camera:
    """A camera that sees the whole head with its ears, and the shirt's upper edge."""
    outline = np.concatenate([head.marks, head.ball(_SKULL, (112, 80, 96)), head.at(_ROOT) - np.array([0, 24, 0])])
    flat = Camera(1.0, (0.0, 0.0), painted.distance).project(outline, 1.0)
    low, high = flat.min(0), flat.max(0)
    scale = painted.fill / float((high - low).max())
    centre = 0.01 + (0.98 - scale * (high - low)) * np.array(painted.place) - scale * low
    return Camera(scale, (float(centre[0]), float(centre[1])), painted.distance)


def _bytes(colour: Array) -> tuple[int, int, int]:
    red, green, blue = (int(v) for v in np.round(255 * colour))
    return red, green, blue


def _painting(painted: PaintedFace, drawing: list[_Patch], camera: Camera, size: int) -> tuple[Array, Array]:
    """The picture ``(size, size, 4)`` in display values with its opacity, and the head's mask ``(size, size)``."""
    wide = (size * SUPERSAMPLING,) * 2
    plain = "background" in painted.names
    canvas = Image.new("RGBA", wide, (*_bytes(painted.colours["background"]), 255) if plain else (0, 0, 0, 0))
    head = Image.new("L", wide)
    paint, trace = ImageDraw.Draw(canvas), ImageDraw.Draw(head)
    for patch in drawing:
        corners = [(float(x), float(y)) for x, y in camera.project(patch.points, wide[0])]
        paint.polygon(corners, fill=(*_bytes(painted.colours[patch.part]), 255))
        trace.polygon(corners, fill=0 if patch.body else 255)
    small, mask = (np.asarray(p.resize((size, size), Image.Resampling.BOX)) for p in (canvas, head))
    return small.astype(F32) / 255, mask > 127


class PaintedFaceScene:
    """The scene ``painted-faces``: flat faces with the 68 landmarks of :mod:`ulm.datasets.faces`.

    Args:
        scene: Its name.
    """

    def __init__(self, scene: str = "painted-faces"):
        self.name = scene
        self.info = faces._info(scene)

    def draw(self, rng: np.random.Generator, size: int) -> Sample:
        """Draw one sample; the same generator gives the same scene at every size.

        Returns:
            ``image``, ``landmarks``, ``visible`` (on the side of the head that is turned to the viewer), ``box`` of the
            landmarks, ``mask`` of the head with hair and ears, and ``yaw``, as :class:`ulm.datasets.base.Dataset` says.
        """
        painted = sample_painted_face(rng)
        head = _Head.of(painted)
        camera = _face_camera(painted, head)
        drawn, mask = _painting(painted, _drawing(painted, head), camera, size)
        picture, cover = drawn[..., :3], drawn[..., 3:]
        if "background" not in painted.names:
            picture = picture * cover + r.encode(r.background(rng, size)) * (1 - cover)
        landmarks = camera.project(head.marks, size)
        box = np.concatenate([landmarks.min(0), landmarks.max(0)])
        return {
            "image": torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1), F32)),
            "landmarks": torch.from_numpy(landmarks.astype(F32)),
            "visible": torch.from_numpy(head.outward[:, 2] > -0.15),
            "box": torch.from_numpy(box.astype(F32)),
            "mask": torch.from_numpy(mask),
            "yaw": float(painted.pose.yaw),
        }


# ---------------------------------------------------------------------------------------------- birds


@dataclass(frozen=True)
class PaintedBird:
    """Everything about a painted bird but what is behind it and where it stands.

    Attributes:
        bird: In its colours, without patterns.
        heading: Yaw, elevation of the camera and roll, in degrees.
        names: Name of each part's colour; ``background`` only where it is plain.
        colours: Display RGB ``(3,)`` of the same parts.
    """

    bird: birds.Bird
    heading: Array
    names: dict[str, str]
    colours: dict[str, Array]


def sample_painted_bird(rng: np.random.Generator) -> PaintedBird:
    """Draw a bird of the scene ``birds``, never on the water, and a colour for each of its parts."""
    kind = _BIRDS._kind(rng)
    odds = np.array(kind.places) * np.array([1, 1, 0, 1, 1])
    length, high, wide, droop = kind.beak
    kind = replace(kind, marks=(), places=tuple(odds.tolist()), beak=(length, 1.35 * high, 1.35 * wide, droop),
                   leg=(kind.leg[0], 1.7 * kind.leg[1]))  # fmt: skip
    bird = birds.sample_bird(rng, kind)
    heading, names = birds._heading(rng, bird, False), _paint(rng, BIRD_PARTS)
    if rng.random() > PLAIN:
        del names["background"]
    colours = _mixed(rng, names)
    zones: dict[str, Array | None] = {zone: colours[part] for part, group in _ZONES.items() for zone in group}
    zones["iris"] = np.array(PAINTS["white"])
    return PaintedBird(replace(bird, zones=zones), heading, names, colours)


_BIRDS = birds.BirdScene("birds")
_LIGHT = shapes.Light(r.unit(np.array([0.2, 0.5, 0.8])), key=0.5, ambient=0.62, shadows=False)


class PaintedBirdScene:
    """The scene ``painted-birds``: birds with the 15 parts of :mod:`ulm.datasets.birds`, in loud colours.

    Args:
        scene: Its name.
    """

    def __init__(self, scene: str = "painted-birds"):
        self.name = scene
        self.info = birds._info(scene)

    def draw(self, rng: np.random.Generator, size: int) -> Sample:
        """Draw one sample; the same generator gives the same scene at every size.

        Returns:
            A sample as that of :meth:`ulm.datasets.birds.BirdScene.draw`.
        """
        painted = sample_painted_bird(rng)
        bird, matrix = painted.bird, birds._posing(*painted.heading)
        parts = [part.moved(matrix) for part in birds.surfaces(bird)]
        camera = shapes.frame(np.concatenate([part.points.reshape(-1, 3) for part in parts]), rng, (0.7, 0.97), 0.03)
        behind = self._behind(rng, painted, camera, matrix, size)
        sample = shapes.picture(
            parts, camera, _LIGHT, r.decode(behind), birds.landmarks(bird) @ matrix.T, birds._reach(bird)
        )
        del sample["parts"]
        return {**sample, "yaw": float(painted.heading[0]), "species": bird.kind.name}

    @staticmethod
    def _behind(rng: np.random.Generator, painted: PaintedBird, camera: Camera, matrix: Array, size: int) -> Array:
        """What lies behind the bird, display values ``(size, size, 3)``: one colour, or the bird's own place."""
        if "background" in painted.names:
            return np.broadcast_to(painted.colours["background"].astype(F32), (size, size, 3))
        feet = np.stack([birds._leg(painted.bird, side).foot for side in (1, -1)]).mean(0) @ matrix.T
        place, yaw = camera.project(feet, 1.0), float(painted.heading[0])
        return np.clip(birds._surroundings(rng, painted.bird, size, place, 1.0, yaw).image, 0.01, 0.99)
