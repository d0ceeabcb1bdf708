"""Procedural scenes: data sets that ``ulm`` draws itself, deterministic by (scene, split, index).

A category is one short file with a class that keeps :class:`Scene`; registering it in :data:`SCENES` is all it takes.
"""

from __future__ import annotations

import hashlib
import inspect
import zlib
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Protocol, runtime_checkable

import numpy as np

from ulm.datasets.base import Dataset, Info, Sample, check_index, check_split
from ulm.datasets.hashing import digest
from ulm.errors import InputError

RENDERER_VERSION = 1
LENGTHS = {"train": 20_000, "val": 2_000, "test": 2_000}
SMALLEST = 16


class Scene(Protocol):
    """What a category offers.

    Attributes:
        name: The scene's name, such as ``faces``.
        info: What the data set says of itself.
    """

    name: str
    info: Info

    def draw(self, rng: np.random.Generator, size: int) -> Sample:
        """Draw one sample from ``rng`` alone; the same ``rng`` must give the same scene at every ``size``."""
        ...


@runtime_checkable
class VideoScene(Protocol):
    """A category that moves: its items are frames, ``frames`` neighbouring items are one video.

    Attributes:
        name: The scene's name, such as ``talking-faces``.
        info: What the data set says of itself.
        frames: Frames of one video.
    """

    name: str
    info: Info
    frames: int

    def draw_frame(self, rng: np.random.Generator, frame: int, size: int) -> Sample:
        """Draw one frame; the same ``rng`` must give the same video, which moves smoothly with ``frame``."""
        ...


@runtime_checkable
class ViewScene(Protocol):
    """A category of few objects in many views, whose splits have different objects.

    Attributes:
        name: The scene's name, such as ``toys``.
        info: What the data set says of itself.
    """

    name: str
    info: Info

    def draw_item(self, split: str, index: int, size: int) -> Sample:
        """Draw one view, which occurs once in its split; the sample says by ``subject`` of which object."""
        ...


# Scene name -> (module, class, modules whose text decides the pictures). The class is called with the scene's name.
_Entry = tuple[str, str, tuple[str, ...]]


def _entry(module: str, scene: str, *more: str) -> _Entry:
    names = (module, *more, "rendering")
    return f"ulm.datasets.{module}", scene, tuple(f"ulm.datasets.{name}" for name in names)


SCENES: dict[str, _Entry] = {
    **dict.fromkeys(("faces", "faces-posed"), _entry("faces", "FaceScene")),
    "faces-wild": _entry("wild_faces", "WildFaceScene", "faces"),
    "talking-faces": _entry("talking_faces", "TalkingFaceScene", "faces"),
    "cats": _entry("cats", "CatScene", "shapes"),
    "signers": _entry("signers", "SignerScene", "talking_faces", "faces", "bodies", "shapes"),
    **dict.fromkeys(("people", "people-shifted", "exercise"), _entry("people", "PeopleScene", "bodies", "shapes")),
    "fashion": _entry("people", "FashionScene", "bodies", "shapes"),
    **dict.fromkeys(
        ("birds", "birds-aligned", "birds-001", "birds-002", "birds-003"), _entry("birds", "BirdScene", "shapes")
    ),
    "toys": _entry("toys", "ToyScene", "shapes"),
    **dict.fromkeys(("house-numbers", "house-digits"), _entry("house_numbers", "HouseNumberScene")),
    **dict.fromkeys(("simple-faces", "simple-birds"), _entry("simple", "SimpleScene", "painted")),
    "painted-faces": _entry("painted", "PaintedFaceScene", "faces"),
    "painted-birds": _entry("painted", "PaintedBirdScene", "birds", "shapes"),
    "tinted-faces": _entry("tinted", "TintedScene", "painted", "wild_faces", "faces"),
    "tinted-birds": _entry("tinted", "TintedScene", "painted", "birds", "shapes"),
    "tinted-cats": _entry("tinted", "TintedScene", "painted", "cats", "shapes"),
    "tinted-people": _entry("tinted", "TintedScene", "painted", "people", "bodies", "shapes"),
}


def generator(scene: str, split: str, index: int) -> np.random.Generator:
    """The source of one sample: the same on every machine, in every process and in any order."""
    return np.random.default_rng(
        np.random.SeedSequence([zlib.crc32(scene.encode()), zlib.crc32(split.encode()), index])
    )


@cache
def _source_hash(modules: tuple[str, ...]) -> str:
    text = "".join(inspect.getsource(import_module(name)) for name in modules)
    return hashlib.sha256(text.encode()).hexdigest()


class ProceduralDataset(Dataset):
    """Samples of a scene, drawn when asked for; see :func:`load`."""

    def __init__(self, scene: str, split: str, size: int, lengths: dict[str, int]):
        module, factory, self._modules = SCENES[scene]
        make: Callable[[str], Scene | VideoScene | ViewScene] = getattr(import_module(module), factory)
        self.scene = make(scene)
        self.info, self.split, self.size, self.lengths = self.scene.info, split, size, lengths

    def __len__(self) -> int:
        return sum(self.lengths.values())

    def __getitem__(self, index: int) -> Sample:
        split, index = self._locate(check_index(index, len(self)))
        if isinstance(self.scene, ViewScene):
            return self.scene.draw_item(split, index, self.size)
        first = tuple(LENGTHS).index(split) * 10_000_000
        if isinstance(self.scene, VideoScene):
            video, frame = divmod(index, self.scene.frames)
            sample = self.scene.draw_frame(generator(self.scene.name, split, video), frame, self.size)
            return {**sample, "video": f"{split}-{video}", "frame": frame, "subject": str(first + video)}
        sample = self.scene.draw(generator(self.scene.name, split, index), self.size)
        return {**sample, "subject": str(first + index)}

    def _locate(self, index: int) -> tuple[str, int]:
        """The split that holds an item of the whole, and its index there."""
        for split, length in self.lengths.items():
            if index < length:
                return split, index
            index -= length
        raise IndexError(f"index is {index} beyond the end")

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits of scene, split, size, length, renderer version and the renderer's source."""
        source = _source_hash(self._modules)
        return digest(self.scene.name, self.split, self.size, len(self), RENDERER_VERSION, source)

    @property
    def lineage(self) -> str | None:
        """As the fingerprint, less the length; None for all splits in a row, where places depend on it."""
        if self.split == "all":
            return None
        return digest(self.scene.name, self.split, self.size, RENDERER_VERSION, _source_hash(self._modules))


def load(scene: str, split: str = "train", size: int = 128, length: int | None = None) -> ProceduralDataset:
    """Load a procedural data set.

    Args:
        scene: A name in :data:`SCENES`.
        split: ``train``, ``val``, ``test``, or ``all``: the three one after another.
        size: Side of the square images in pixels, at least 16; changes the resolution and nothing else.
        length: Number of items; None: 20,000 for train, 2,000 for val and test. Item ``i`` is the same whatever the
            length. With ``all``, the first ``length`` items of the three splits in a row.

    Returns:
        The data set; item ``i`` depends on (scene, split, i, size) alone. Every item has an identity of its own.

    Raises:
        InputError: Unknown scene or split, a size below 16, or a length below 1.
    """
    if scene not in SCENES:
        raise InputError(f"found procedural scene {scene!r}, expected one of {', '.join(SCENES)}")
    check_split(split)
    if size < SMALLEST:
        raise InputError(f"found image size {size}, expected at least {SMALLEST}; ask for a larger size")
    if length is not None and length < 1:
        raise InputError(f"found length {length}, expected at least 1")
    if split != "all":
        return ProceduralDataset(scene, split, size, {split: length or LENGTHS[split]})
    left = length or sum(LENGTHS.values())
    lengths = {}
    for name, most in LENGTHS.items():
        lengths[name] = min(left, most)
        left -= lengths[name]
    return ProceduralDataset(scene, split, size, lengths)
