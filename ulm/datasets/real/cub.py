"""Caltech-UCSD Birds-200-2011: 15 parts with visibility, official text files or CMR's cleaned annotation.

The folder is ``CUB_200_2011``. Where it also holds ``cachedir/cub/data/{train,val,test}_cub_cleaned.mat`` (from CMR;
``cachedir`` may lie beside the folder too), these decide the splits, as in AutoLink and StableKeypoints; else the
official split does. Both count pixels from 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ulm.datasets.base import check_split
from ulm.datasets.birds import FLIP_PAIRS, LANDMARK_NAMES, SKELETON
from ulm.datasets.real.base import (
    Problem,
    RealDataset,
    Record,
    Window,
    compare,
    is_val,
    numbers,
    present,
    read_lines,
)
from ulm.datasets.real.catalogue_others import CUB
from ulm.datasets.real.formats import as_list, folder_and_options, read_matlab
from ulm.errors import InputError

COUNTS = {"train": 5_994, "test": 5_794}
"""Official split; ``val`` is then carved out of ``train``."""
CLEANED_COUNTS = {"train": 5_964, "test": 2_874}
"""CMR's cleaned annotation, which has its own ``val``."""
CLASS_COUNTS = {"001": {"train": 29, "test": 17}, "002": {"train": 30, "test": 14}, "003": {"train": 30, "test": 15}}
"""The first three classes of the cleaned annotation."""

PADDING = 0.05  # of the box's sides, on each side, in CMR's crop
OUTSIDE = 1  # grey value of what lies outside the image, in CMR's crop
OPTIONS = ("all", "aligned", *CLASS_COUNTS)

_CLEANED = "cachedir/cub/data"


@dataclass(frozen=True)
class PaddedSquare:
    """CMR's crop: the box with 5 % on each side, rounded, made square; outside the image it is nearly black.

    The box is in the annotation's pixels, counted from 1, both ends in it.
    """

    x1: float
    y1: float
    x2: float
    y2: float

    def on(self, width: int, height: int) -> Window:
        """The window; it does not depend on the image."""
        x1, y1, x2, y2 = (value - 1 for value in (self.x1, self.y1, self.x2, self.y2))
        dx, dy = PADDING * (x2 - x1 + 1), PADDING * (y2 - y1 + 1)
        left, top, right, bottom = round(x1 - dx), round(y1 - dy), round(x2 + dx), round(y2 + dy)
        side = max(right - left + 1, bottom - top + 1)
        left -= round((side - (right - left + 1)) / 2)
        top -= round((side - (bottom - top + 1)) / 2)
        return Window(left, top, left + side, top + side, fill=OUTSIDE)


@dataclass(frozen=True)
class AlignedSquare:
    """AutoLink's crop: the image trimmed to a multiple of 16, a square round the box, cut off at the image's edges.

    AutoLink forgets the trimmed border on the right and the lower side (at most 7 pixels); that is kept. Its numbers
    are taken as they are, so the crop is half a pixel beside the box.
    """

    x1: float
    y1: float
    x2: float
    y2: float

    def on(self, width: int, height: int) -> Window:
        """The window in an image of this size."""
        half = max(self.x2 - self.x1, self.y2 - self.y1) / 2
        x0, x1 = _trimmed((self.x1 + self.x2) / 2, half, width)
        y0, y1 = _trimmed((self.y1 + self.y2) / 2, half, height)
        return Window(x0, y0, x1, y1)


def _trimmed(middle: float, half: float, length: int) -> tuple[float, float]:
    """Both ends along one axis, in pixels of the image that is not trimmed."""
    border, kept = length % 16 // 2, length - length % 16
    low = max(0.0, max(0.0, middle - half) - border)
    high = min(float(kept), min(float(length), middle + half))
    return low + border, high + border


@dataclass(frozen=True, eq=False)
class _Bird:
    """One picture: path, box (x1, y1, x2, y2) and parts (15, 3) as annotated, counted from 1."""

    path: str
    box: tuple[float, float, float, float]
    parts: np.ndarray


def cub(root: str, split: str = "train", size: int = 128, limit: int | None = None) -> RealDataset:
    """Load CUB-200-2011.

    Args:
        root: The folder ``CUB_200_2011``. What follows a ``#`` chooses the subset and the crop:

            - ``cub:ROOT`` or ``cub:ROOT#all``: all birds, CMR's crop (the box with 5 % on each side, made square).
            - ``cub:ROOT#aligned``: all birds, AutoLink's crop (the box made square, cut off at the image's edges).
            - ``cub:ROOT#001``, ``#002``, ``#003``: one class, CMR's crop.
        split: train, val, test or all. With CMR's cleaned annotation these are its own; without, ``test`` is the
            official test part and ``val`` about 5 % of the official training part, by a hash of the file name.
        size: Side of the images in pixels.
        limit: Most items to keep, evenly spread.

    Returns:
        Items with ``box`` and ``category`` (the folder of the class). A part that is not visible is missing (the
        annotation has no place for it).

    Raises:
        InputError: Parts are missing or damaged, or an option is unknown.
    """
    folder, options = folder_and_options(root, OPTIONS)
    birds = _read(folder, check_split(split))
    classes = [option for option in options if option in CLASS_COUNTS]
    if classes:
        birds = [bird for bird in birds if bird.path[:3] in classes]
    present(folder / "images", [bird.path for bird in birds], "the annotation", CUB.where)
    crop = AlignedSquare if "aligned" in options else PaddedSquare
    records = [_record(folder, bird, crop) for bird in birds]
    info = CUB.info(root, landmark_names=LANDMARK_NAMES, flip_pairs=FLIP_PAIRS, skeleton=SKELETON)
    return RealDataset(info, records, split, size, limit)


def check(root: str) -> list[Problem]:
    """Compare the folder with the official data."""
    folder, _ = folder_and_options(root, OPTIONS)
    if _cleaned(folder) is None:
        CUB.need(folder)
        found = {part: len(_official(folder, part)) for part in COUNTS}
        return compare(found, COUNTS, CUB.title, "pictures in the official part ")
    birds = {part: _read(folder, part) for part in CLEANED_COUNTS}
    found = {part: len(those) for part, those in birds.items()}
    problems = compare(found, CLEANED_COUNTS, "cleaned annotation", "pictures in split ")
    for name, counts in CLASS_COUNTS.items():
        found = {part: sum(bird.path[:3] == name for bird in those) for part, those in birds.items()}
        problems += compare(found, counts, "cleaned annotation", f"pictures of class {name} in split ")
    return problems


def _record(folder: Path, bird: _Bird, crop: type[PaddedSquare] | type[AlignedSquare]) -> Record:
    x1, y1, x2, y2 = bird.box
    visible = bird.parts[:, 2] > 0
    return Record(
        image=folder / "images" / bird.path,
        name=bird.path,
        landmarks=np.where(visible[:, None], bird.parts[:, :2] - 0.5, np.nan),
        visible=visible,
        crop=crop(*bird.box),
        box=(x1 - 1, y1 - 1, x2, y2),
        extra={"category": bird.path.partition("/")[0]},
    )


def _read(folder: Path, split: str) -> list[_Bird]:
    place = _cleaned(folder)
    if place is not None:
        CUB.need(folder, ("images",))
        names = ("train", "val", "test") if split == "all" else (split,)
        return [bird for name in names for bird in _from_mat(place / f"{name}_cub_cleaned.mat")]
    CUB.need(folder)
    if split == "all":
        return [*_official(folder, "train"), *_official(folder, "test")]
    birds = _official(folder, "test" if split == "test" else "train")
    return birds if split == "test" else [bird for bird in birds if is_val(bird.path) == (split == "val")]


# --- CMR's cleaned annotation ---------------------------------------------------------------------------------------


def _cleaned(folder: Path) -> Path | None:
    """The folder of CMR's files, if it is there."""
    places = [folder / _CLEANED, folder.parent / _CLEANED]
    return next((place for place in places if any(place.glob("*_cub_cleaned.mat"))), None)


def _from_mat(path: Path) -> list[_Bird]:
    birds = []
    for place, image in enumerate(as_list(read_matlab(path, "images")["images"])):
        try:
            box = image["bbox"]
            corners = (float(box["x1"]), float(box["y1"]), float(box["x2"]), float(box["y2"]))
            parts = np.asarray(image["parts"], np.float64)
            name = str(image["rel_path"])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise InputError(f"{path}: found image {place + 1} without {error}; take CMR's original file") from None
        if parts.shape != (3, 15):
            raise InputError(f"{path}: found parts of shape {parts.shape} of {name}, expected 3 x 15; take CMR's file")
        birds.append(_Bird(name, corners, parts.T))
    return birds


# --- official text files --------------------------------------------------------------------------------------------


def _official(folder: Path, part: str) -> list[_Bird]:
    names = dict(_words(folder / "images.txt", 2))
    chosen = {key: row[0] == "1" for key, row in _rows(folder / "train_test_split.txt", 1)}
    boxes = dict(_rows(folder / "bounding_boxes.txt", 4))
    parts = _parts(folder / "parts" / "part_locs.txt")
    birds = []
    for key, name in names.items():
        if key not in chosen or key not in boxes or key not in parts:
            raise InputError(
                f"{folder}: found image {key} ({name}) in images.txt but not in every other file; unpack the text "
                "files again"
            )
        if chosen[key] == (part == "train"):
            x, y, width, height = map(float, boxes[key])
            birds.append(_Bird(name, (x, y, x + width - 1, y + height - 1), parts[key]))
    return birds


def _words(path: Path, count: int) -> Iterator[tuple[str, str]]:
    for line, text in enumerate(read_lines(path), 1):
        words = text.split(maxsplit=count - 1)
        if len(words) != count:
            raise InputError(f"{path}, line {line}: found {text!r}, expected {count} columns; copy the file again")
        yield words[0], words[-1]


def _rows(path: Path, count: int) -> Iterator[tuple[str, list[str]]]:
    """Image number, and ``count`` numbers as they are written."""
    for line, text in enumerate(read_lines(path), 1):
        key, *words = text.split()
        numbers(words, count, path, line)
        yield key, words


def _parts(path: Path) -> dict[str, np.ndarray]:
    """Image number to (x, y, visible) of its 15 parts."""
    found: dict[str, Any] = {}
    for line, text in enumerate(read_lines(path), 1):
        key, *words = text.split()
        part, *values = numbers(words, 4, path, line)
        if not 1 <= part <= 15:
            raise InputError(f"{path}, line {line}: found part {part:g}, expected 1 to 15; copy the file again")
        found.setdefault(key, np.zeros((15, 3)))[int(part) - 1] = values
    return found
