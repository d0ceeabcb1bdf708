"""Tinted pictures: those of other scenes with each part of the subject glazed in a vivid colour that the caption names.

The painted scenes (:mod:`ulm.datasets.painted`) teach a small text-conditioned model that words name parts, on flat
shapes; here it learns the same where light, texture and clutter are those of the pictures that landmarks are sought in.
A pixel of the subject belongs to the part whose landmark is nearest; colours are glazed over, so that shading stays.
Pictures are windows round the subject, as parts of a few pixels would teach little.
Left and right are those of the image. Whoever describes a picture asks :func:`sample_tint` with the same generator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from ulm.datasets import birds, cats, people
from ulm.datasets.base import Sample
from ulm.datasets.painted import JITTER, PAINTS
from ulm.datasets.rendering import Array
from ulm.datasets.wild_faces import WildFaceScene

F32 = np.float32
BACKGROUND = "background"
GLAZED = 0.1
"""Share of pictures with a glaze over the background too; where half had one, a trial learnt that word alone."""
WINDOW = (1.1, 2.0)
"""Least and largest side of a window, in sides of the box of the landmarks."""
FINER = 2
"""The scene below is drawn so many times larger than a picture that may be a window of it."""


@dataclass(frozen=True)
class Tinting:
    """What a scene's parts are.

    Attributes:
        base: The scene that is tinted.
        noun: What its subject is called.
        parts: Names of parts, each with the indices of its landmarks.
        far: Name of the part that is far from all landmarks, and how far: a share of the longer side of their box.
    """

    base: str
    noun: str
    parts: Mapping[str, tuple[int, ...]]
    far: tuple[str, float] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All parts, the background last."""
        return (*self.parts, *([self.far[0]] if self.far else []), BACKGROUND)


def _named(names: tuple[str, ...], groups: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    """Indices of landmarks by the names of a group, which are separated by a bar."""
    return {part: tuple(names.index(name) for name in group.split("|")) for part, group in groups.items()}


_FACE = {
    "left cheek": (*range(6),), "chin": (6, 7, 8, 9, 10), "right cheek": (*range(11, 17),),
    "left eye": (*range(17, 22), *range(36, 42)), "right eye": (*range(22, 27), *range(42, 48)),
    "nose": (*range(27, 36),), "mouth": (*range(48, 68),),
}  # fmt: skip
_BIRD = {
    "crown": "crown|forehead|nape", "head": "left eye|right eye", "beak": "beak", "throat": "throat",
    "breast": "breast", "belly": "belly", "back": "back", "wings": "left wing|right wing", "tail": "tail",
    "legs": "left leg|right leg",
}  # fmt: skip
_CAT = {
    "left eye": "left-eye", "right eye": "right-eye", "mouth": "mouth",
    "left ear": "left-ear-1|left-ear-2|left-ear-3", "right ear": "right-ear-1|right-ear-2|right-ear-3",
}  # fmt: skip
_PERSON = {
    "head": "nose|left eye|right eye|left ear|right ear", "chest": "left shoulder|right shoulder",
    "arms": "left elbow|right elbow", "hands": "left wrist|right wrist", "waist": "left hip|right hip",
    "legs": "left knee|right knee", "feet": "left ankle|right ankle",
}  # fmt: skip
TINTINGS: dict[str, Tinting] = {
    "tinted-faces": Tinting("faces-wild", "face", _FACE, ("hair", 0.17)),
    "tinted-birds": Tinting("birds", "bird", _named(birds.LANDMARK_NAMES, _BIRD)),
    "tinted-cats": Tinting("cats", "cat", _named(cats.LANDMARK_NAMES, _CAT), ("fur", 0.3)),
    "tinted-people": Tinting("fashion", "person", _named(tuple(name for name, _ in people.COCO_17), _PERSON)),
}
_BASES = {"faces-wild": WildFaceScene, "birds": birds.BirdScene, "cats": cats.CatScene,
          "fashion": people.FashionScene}  # fmt: skip


def sample_tint(rng: np.random.Generator, scene: str) -> dict[str, str]:
    """Draw the name of each part's colour, all different.

    The background seldom has one. In half of the pictures only some parts have, so that the others look as they do in
    the scene below.
    """
    names = TINTINGS[scene].names
    chosen = rng.permutation(list(PAINTS))[: len(names)]
    odds = np.full(len(names), 1.0 if rng.random() < 0.5 else rng.uniform(0.2, 0.7))
    odds[-1] = GLAZED
    drawn = rng.random(len(names)) < odds
    drawn[rng.integers(len(names) - 1)] = True
    return {part: str(colour) for part, colour, tinted in zip(names, chosen, drawn, strict=True) if tinted}


def regions(sample: Sample, tinting: Tinting) -> Array:
    """Which part each pixel belongs to.

    Args:
        sample: With ``landmarks`` ``(K, 2)``, ``visible`` ``(K,)`` and ``mask`` ``(S, S)``.
        tinting: Of the sample's scene.

    Returns:
        int ``(S, S)``: an index into ``tinting.names``, the last one outside of the mask. Parts without a visible
        landmark have no pixels.
    """
    marks, mask = sample["landmarks"].numpy(), sample["mask"].numpy()
    seen = sample["visible"].numpy() | (not sample["visible"].any())
    wanted = [(mark, part) for part, group in enumerate(tinting.parts.values()) for mark in group if seen[mark]]
    owners = np.array([part for _, part in wanted])
    centres = np.stack(np.meshgrid(*[np.arange(mask.shape[0]) + 0.5] * 2, indexing="xy"), -1)
    apart = np.linalg.norm(centres[:, :, None] - marks[[mark for mark, _ in wanted]], axis=-1)
    found = owners[apart.argmin(-1)]
    if tinting.far is not None:
        found[apart.min(-1) > tinting.far[1] * np.ptp(marks, axis=0).max()] = len(tinting.parts)
    return np.where(mask, found, len(tinting.names) - 1)


def glaze(image: Array, where: Array, colour: Array, strength: float) -> None:
    """Lay a colour over some pixels of ``(S, S, 3)`` display values; their shading stays. ``image`` is changed."""
    pixels = image[where]
    light = pixels.mean(-1, keepdims=True)
    shade = np.clip(0.75 + 0.8 * (light - light.mean()), 0.35, 1.15) if len(pixels) else light
    image[where] = (1 - strength) * pixels + strength * np.clip(colour * shade, 0, 1)


def window(sample: Sample, place: Array, size: int) -> Sample:
    """Cut a square that holds the landmarks' box out of a sample, as far as the sample does, and shrink it.

    Args:
        sample: Of any square size.
        place: Three numbers in [0, 1]: how large the window is (:data:`WINDOW`), and where the box lies in it.
        size: Side of the picture that is made.
    """
    side = sample["image"].shape[-1]
    marks = sample["landmarks"].numpy() / side
    low, high = marks.min(0).clip(0, 1), marks.max(0).clip(0, 1)
    edge = min(1.0, (WINDOW[0] + (WINDOW[1] - WINDOW[0]) * place[0]) * max(float((high - low).max()), 0.2))
    corner = np.clip(high - edge + place[1:] * (edge - (high - low)), 0, 1 - edge)
    box = tuple(float(v) * side for v in (*corner, *(corner + edge)))
    shrunk = Image.fromarray(np.round(255 * sample["image"].numpy().transpose(1, 2, 0)).astype(np.uint8)).resize(
        (size, size), Image.Resampling.BILINEAR, box
    )
    mask = Image.fromarray(sample["mask"].numpy().astype(np.uint8) * 255).resize(
        (size, size), Image.Resampling.BILINEAR, box
    )
    zoom, shift = size / (edge * side), torch.from_numpy(corner * side).float()
    return {
        **sample,
        "image": torch.from_numpy(np.asarray(shrunk).transpose(2, 0, 1).astype(F32) / 255),
        "mask": torch.from_numpy(np.asarray(mask) > 127),
        "landmarks": (sample["landmarks"] - shift) * zoom,
        "box": ((sample["box"].view(2, 2) - shift) * zoom).view(4),
    }


class TintedScene:
    """One of the scenes of :data:`TINTINGS`, with the landmarks of the scene that it tints.

    Args:
        scene: Its name.
    """

    def __init__(self, scene: str):
        self.name, self.tinting = scene, TINTINGS[scene]
        self.base = _BASES[self.tinting.base](self.tinting.base)
        self.info = replace(self.base.info, name=f"procedural:{scene}", subsets=())

    def draw(self, rng: np.random.Generator, size: int) -> Sample:
        """Draw one sample; the same generator gives the same scene at every size.

        Returns:
            A window of a sample of the scene below, with other colours.
        """
        names = sample_tint(rng, self.name)
        strength = float(rng.uniform(0.7, 1.0))
        jitter, place = rng.uniform(-JITTER, JITTER, (len(names), 3)), rng.random(3)
        sample = window(self.base.draw(rng, FINER * size), place, size)
        image = np.array(sample["image"].numpy().transpose(1, 2, 0))
        found = regions(sample, self.tinting)
        for (part, name), change in zip(names.items(), jitter, strict=True):
            colour = np.clip(PAINTS[name] + change, 0, 1)
            glaze(image, found == self.tinting.names.index(part), colour, strength)
        return {**sample, "image": torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1), F32))}
