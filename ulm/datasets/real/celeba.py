"""CelebA: the aligned images, its subset MAFL, and the original photographs.

The lists count MAFL's test images into all three parts of CelebA. They never reach a training split of any data set
here: ``celeba`` leaves them out altogether (the 201,599 images that remain are what Li et al. 2020 train on), and
``mafl`` and ``celeba-wild`` have them in ``test`` alone.

The official landmarks are whole numbers and it is nowhere said whether they count from 0 or 1. They are taken as places
from the corner of the image, as all the papers' codes do; the error is at most half a pixel of the file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ulm.datasets.base import Dataset, Info, check_split
from ulm.datasets.images import image_size
from ulm.datasets.real import base
from ulm.datasets.real.base import Centre, Clipped, Crop, Problem, RealDataset, Record, Source, Window
from ulm.datasets.real.catalogue_faces import CELEBA, CELEBA_WILD, MAFL
from ulm.datasets.real.formats import folder_and_options
from ulm.errors import InputError

LANDMARK_NAMES = ("left-eye", "right-eye", "nose", "left-mouth", "right-mouth")
"""Left and right as the image shows them, not as the person would say."""
FLIP_PAIRS = ((0, 1), (3, 4))
SKELETON = ((0, 1), (0, 2), (1, 2), (2, 3), (2, 4), (3, 4))

COUNTS = {"train": 161_962, "val": 19_771, "test": 19_866}
"""Of ``celeba``: 162,770, 19,867 and 19,962 of the official partition, less 808, 96 and 96 test images of MAFL."""
MAFL_COUNTS = {"train": 19_000, "test": 1_000}
WILD_COUNTS = {"train": 5_379, "test": 283}

ABSENT_FROM_VGG = ("031524.jpg", "139803.jpg", "179577.jpg")
"""Images of MAFL's training list that the archive celeba.zip of VGG Oxford lacks."""
SMALLEST_FACE = 0.3
"""Least share of the photograph's area that the face's box must cover (He et al. 2022, AutoLink)."""

_DVE = 178 * 20 / 136  # of 178 pixels, resized to 136, 20 are cut off at each side
_PARTS = {"train": 0, "val": 1, "test": 2}
CROPS: dict[str, Crop] = {
    "imm": Centre(0.8),
    "whole": Centre(1.0),
    "dve": Window(_DVE, 30 + _DVE, 178 - _DVE, 208 - _DVE),
}


def celeba(root: str, split: str, size: int, limit: int | None) -> Dataset:
    """CelebA's aligned images by its official partition, without the test images of MAFL.

    Splits: 161,962 train (as IMM), 19,771 val, 19,866 test; ``all`` is the 201,599 images of the three.

    Args:
        root: The folder with ``Img``, ``Anno``, ``Eval`` and ``MAFL`` (or their contents side by side). ``FOLDER#CROP``
            chooses another crop than the default ``imm`` (Jakab et al. 2018: resized to 160 x 160, aspect not kept, the
            central 128 x 128 cut out; other sizes in proportion): ``whole`` (StableKeypoints: all of it, squashed);
            ``dve`` (Thewlis et al. 2019: rows 30 to 208, resized to 136, 20 cut off at each side); ``landmarks`` (Li et
            al. 2020: the box round the annotated points, wider by 0.7 of its mean side, within the image).
        split: train, val, test or all.
        size: Side of the images in pixels.
        limit: Most items to keep, evenly spread.

    Returns:
        Images with five landmarks, and ``subject`` where ``identity_CelebA.txt`` is there.

    Raises:
        InputError: Something is missing or damaged.
    """
    check_split(split)
    folder, crop = _folder_and_crop(root)
    images, landmarks, partition, testing = CELEBA.need(folder)
    parts = _partition(partition)
    tests = set(_names(testing))
    names = [n for n, part in parts.items() if n not in tests and (split == "all" or part == _PARTS[split])]
    return _aligned(CELEBA, root, crop, images, landmarks, names, split, size, limit)


def mafl(root: str, split: str, size: int, limit: int | None) -> Dataset:
    """MAFL: 19,000 train and 1,000 test images of CelebA's aligned ones, by MAFL's two lists.

    MAFL has no validation part, and its training list is kept whole, as the papers fit their regressors on all of it.
    ``val`` is the part ``val`` of CelebA that is in neither list (17,961 images; it needs
    ``Eval/list_eval_partition.txt``); ``all`` is both lists.

    Args:
        root: The folder with ``Img``, ``Anno`` and ``MAFL``; ``FOLDER#CROP`` as for :func:`celeba`.
        split: train, val, test or all.
        size: Side of the images in pixels.
        limit: Most items to keep, evenly spread.

    Raises:
        InputError: Something is missing or damaged.
    """
    check_split(split)
    folder, crop = _folder_and_crop(root)
    images, landmarks, training, testing = MAFL.need(folder)
    names = _mafl_names(MAFL, folder, split, training, testing)
    return _aligned(MAFL, root, crop, images, landmarks, names, split, size, limit)


def celeba_wild(root: str, split: str, size: int, limit: int | None) -> Dataset:
    """The original photographs of MAFL's lists where the face is large, squashed to a square.

    Kept is what has a face box of at least 30 % of the image's area (AutoLink, StableKeypoints): 5,379 train and 283
    test. ``val`` and ``all`` are as for :func:`mafl`, with the same rule. Width and height are those of the files
    (AutoLink's preprocessing exchanges them, which moves its landmarks; that is not repeated here).

    Args:
        root: The folder with ``Img/img_celeba``, ``Anno`` and ``MAFL``.
        split: train, val, test or all.
        size: Side of the images in pixels.
        limit: Most items to keep, evenly spread.

    Returns:
        Images with five landmarks and ``box``.

    Raises:
        InputError: Something is missing or damaged.
    """
    check_split(split)
    images, landmarks, boxes, training, testing = CELEBA_WILD.need(root)
    names = _mafl_names(CELEBA_WILD, Path(root), split, training, testing)
    folder, files = _files(CELEBA_WILD, images, names)
    names = [name for name in names if name in files]
    points = dict(zip(names, _annotation(landmarks, 10, names).reshape(-1, 5, 2), strict=True))
    rectangles = dict(zip(names, _annotation(boxes, 4, names), strict=True))
    sizes = _sizes([folder / files[name] for name in names])
    # A box of no area is no annotation (101283.jpg has one).
    large = [
        n for n, (h, w) in zip(names, sizes, strict=True) if rectangles[n][2:].prod() >= max(SMALLEST_FACE * h * w, 1)
    ]
    records = [
        Record(
            image=str(folder / files[name]),
            name=name,
            landmarks=points[name],
            crop=Centre(1.0),
            box=rectangles[name][[0, 1, 0, 1]] + [0, 0, *rectangles[name][2:]],
        )
        for name in large
    ]
    return RealDataset(_info(CELEBA_WILD, root), records, split, size, limit)


def check_celeba(root: str) -> list[Problem]:
    """Compare the splits with the official numbers."""
    return base.check_splits(CELEBA, root, COUNTS)


def check_mafl(root: str) -> list[Problem]:
    """Compare the splits with the official numbers; three missing images are those of VGG's archive."""
    problems = base.check_splits(MAFL, root, MAFL_COUNTS)
    if len(MAFL.load(root, "train", 64)) == MAFL_COUNTS["train"] - len(ABSENT_FROM_VGG):
        missing = f"the missing images are likely {', '.join(ABSENT_FROM_VGG)}, which VGG's celeba.zip lacks"
        problems.append(Problem("warning", missing))
    return problems


def check_celeba_wild(root: str) -> list[Problem]:
    """Compare the splits with the numbers that users of StableKeypoints report."""
    return base.check_splits(CELEBA_WILD, root, WILD_COUNTS)


def _info(source: Source, root: str) -> Info:
    return source.info(
        root,
        landmark_names=LANDMARK_NAMES,
        flip_pairs=FLIP_PAIRS,
        skeleton=SKELETON,
        normaliser_points=((0,), (1,)),
    )


def _aligned(
    source: Source,
    root: str,
    crop: str,
    images: Path,
    landmarks: Path,
    names: Sequence[str],
    split: str,
    size: int,
    limit: int | None,
) -> Dataset:
    """The records of aligned images."""
    folder, files = _files(source, images, names)
    names = [name for name in names if name in files]
    points = _annotation(landmarks, 10, names).reshape(-1, 5, 2)
    people = _people(landmarks.parent)
    records = [
        Record(
            image=os.path.join(folder, files[name]),
            name=name,
            landmarks=place,
            crop=CROPS.get(crop) or _landmark_box(place),
            subject=people.get(name),
        )
        for name, place in zip(names, points, strict=True)
    ]
    return RealDataset(_info(source, root), records, split, size, limit)


def _folder_and_crop(root: str) -> tuple[Path, str]:
    """The two parts of ``FOLDER#CROP``."""
    folder, options = folder_and_options(root, (*CROPS, "landmarks"))
    if len(options) > 1:
        raise InputError(f"found the crops {', '.join(options)} in {root}, expected one")
    return folder, options[0] if options else "imm"


def _landmark_box(points: np.ndarray, tight: float = 70) -> Clipped:
    """The box of Sanchez and Tzimiropoulos (2019): wider by ``tight`` percent of its mean side, 8 pixels if small."""
    low, high = np.nanmin(points, axis=0), np.nanmax(points, axis=0)
    mean = float((high - low).mean())
    margin = 8 if mean < 20 else tight * mean / 100
    return Clipped(*(low - margin), *(high + margin))


def _files(source: Source, images: Path, names: Sequence[str]) -> tuple[Path, dict[str, str]]:
    """The folder with the images, and the file of each name that is there."""
    inner = images / images.name  # some archives unpack into a folder of their own name
    folder = inner if inner.is_dir() else images
    suffix = ".png" if folder.name.endswith("_png") else ".jpg"
    files = {name: os.path.splitext(name)[0] + suffix for name in names}
    absent = [os.path.splitext(name)[0] + suffix for name in ABSENT_FROM_VGG]
    there = base.present(folder, files.values(), "its list", source.where, absent)
    return folder, {name: file for name, file in files.items() if file in there}


def _mafl_names(source: Source, root: Path, split: str, training: Path, testing: Path) -> list[str]:
    train, test = _names(training), _names(testing)
    if both := sorted(set(train) & set(test)):
        raise InputError(
            f"{testing}: found {both[0]} in {training.name} too, expected two disjoint lists; copy them again"
        )
    if split != "val":
        return {"train": train, "test": test, "all": [*train, *test]}[split]
    official = base.need(root, CELEBA.layout[2:3], source.title, source.where)[0]
    known = {*train, *test}
    return [n for n, part in _partition(official).items() if part == _PARTS["val"] and n not in known]


def _names(path: Path) -> list[str]:
    """A list of image names, one a line."""
    names = [line.split()[0] for line in base.read_lines(path)]
    if len(names) != len(set(names)) or not names or not all(name.lower().endswith(".jpg") for name in names):
        raise InputError(
            f"{path}: found no list of different image names, expected one 000001.jpg a line; copy it again"
        )
    return names


def _partition(path: Path) -> dict[str, int]:
    """Image name to 0 (train), 1 (val) or 2 (test)."""
    parts = {}
    for number, line in enumerate(base.read_lines(path), 1):
        name, _, part = line.partition(" ")
        if part.strip() not in ("0", "1", "2"):
            raise InputError(
                f"{path}, line {number}: found {line!r}, expected a name and 0, 1 or 2; copy the file again"
            )
        parts[name] = int(part)
    return parts


def _annotation(path: Path, count: int, names: Sequence[str]) -> np.ndarray:
    """``count`` numbers for each name, from a file with a line for the number of images and one for the columns.

    Raises:
        InputError: The file is cut short, or lacks a name.
    """
    lines = base.read_lines(path)
    if len(lines) < 2 or not lines[0].isdigit():
        raise InputError(f"{path}: found no number of images in line 1, expected the official file; copy it again")
    if len(lines) - 2 != int(lines[0]):
        raise InputError(
            f"{path}: found {len(lines) - 2} images, expected {lines[0]} as its first line says; "
            "copy the file again, it was likely cut short"
        )
    rows = {line.split(None, 1)[0]: number for number, line in enumerate(lines[2:], 3)}
    if lost := [name for name in names if name not in rows]:
        raise InputError(f"{path}: found no line for {lost[0]} ({len(lost)} missing); copy the file again")
    values = [base.numbers(lines[rows[n] - 1].split()[1:], count, path, rows[n]) for n in names]
    return np.array(values, np.float64).reshape(len(names), count)


def _people(folder: Path) -> dict[str, str]:
    """Image name to identity, where its file lies beside the landmarks."""
    path = folder / "identity_CelebA.txt"
    pairs = [line.split() for line in base.read_lines(path)] if path.is_file() else []
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def _sizes(files: Sequence[Path]) -> np.ndarray:
    """(height, width) of each image."""
    compute = lambda: np.array([image_size(file) for file in files], np.int64).reshape(-1, 2)  # noqa: E731
    return base.remembered(files, "sizes", compute)
