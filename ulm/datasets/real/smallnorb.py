"""smallNORB: 50 toys of five categories, 9 elevations, 18 azimuths, 6 lights, seen by two cameras."""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from ulm.datasets.base import check_split
from ulm.datasets.real.base import Problem, RealDataset, Record, compare, find, is_val
from ulm.datasets.real.catalogue_others import SMALLNORB
from ulm.datasets.real.formats import folder_and_options, read_lecun
from ulm.errors import InputError

CATEGORIES = ("animals", "humans", "airplanes", "trucks", "cars")
INSTANCES = {"train": (4, 6, 7, 8, 9), "test": (0, 1, 2, 3, 5)}
COUNTS = {"train": 24_300, "test": 24_300}
"""Stereo pairs of the official parts; ``val`` is carved out of ``train``."""

_PARTS = {"train": "training", "test": "testing"}


def smallnorb(root: str, split: str = "train", size: int = 128, limit: int | None = None) -> RealDataset:
    """Load smallNORB.

    ``train`` are the official training toys but for ``val``, about 5 % of the sequences (one toy under one light) by a
    hash of their names; ``test`` are the official test toys. Pictures are grey, repeated to RGB. There are no
    landmarks.

    Args:
        root: The folder with the six unpacked files. After a ``#``: ``right`` for the right camera instead of the
            left, and the categories to keep, as in ``smallnorb:ROOT#cars`` (IMM trains one model a category) or
            ``smallnorb:ROOT#cars,right``.
        split: train, val, test or all.
        size: Side of the images in pixels.
        limit: Most items to keep, evenly spread.

    Returns:
        Items with ``category``, ``instance``, ``elevation`` and ``azimuth`` in degrees, ``lighting`` (0 to 5) and
        ``camera``; ``subject`` is the toy, ``video`` the toy under one light, and ``frame`` its place in the sweep, 18
        azimuths an elevation: neighbouring frames are neighbouring viewpoints.

    Raises:
        InputError: Parts are missing or damaged, or an option is unknown.
    """
    folder, options = folder_and_options(root, ("left", "right", *CATEGORIES))
    SMALLNORB.need(folder)
    camera = "right" if "right" in options else "left"
    kept = [c for c in CATEGORIES if c in options] or list(CATEGORIES)
    parts = [p for p in _PARTS if check_split(split) in (p, "all") or (p, split) == ("train", "val")]
    records = [r for p in parts for r in _records(folder, p, camera) if r.extra["category"] in kept]
    if split in ("train", "val"):
        records = [r for r in records if is_val(r.video or "") == (split == "val")]
    sources = [_path(folder, part, "dat") for part in parts]
    return RealDataset(SMALLNORB.info(root), records, split, size, limit, sources)


def check(root: str) -> list[Problem]:
    """Compare the folder with the official data."""
    folder, _ = folder_and_options(root, ("left", "right", *CATEGORIES))
    SMALLNORB.need(folder)
    found = {part: len(_records(folder, part, "left")) for part in _PARTS}
    return compare(found, COUNTS, SMALLNORB.title, "pairs in the official part ")


def _path(folder: Path, part: str, kind: str) -> Path:
    path = find(folder, f"*{_PARTS[part]}*{kind}.mat")
    if path is None:
        raise InputError(f"{folder}: found no {_PARTS[part]} file of kind {kind}; get it at {SMALLNORB.where}")
    return path


def _records(folder: Path, part: str, camera: str) -> list[Record]:
    path = _path(folder, part, "dat")
    pictures = read_lecun(path, memory_map=True)
    categories = read_lecun(_path(folder, part, "cat"))
    info = read_lecun(_path(folder, part, "info"))
    count = len(pictures)
    if pictures.ndim != 4 or pictures.shape[1] != 2 or pictures.dtype != np.uint8:
        raise InputError(
            f"{path}: found pictures of {pictures.dtype} {pictures.shape}, expected bytes N x 2 "
            "x 96 x 96; take the original file"
        )
    if categories.shape != (count,) or info.shape != (count, 4):
        raise InputError(
            f"{folder}: found {categories.shape} categories and {info.shape} descriptions for {count} pairs of the "
            f"{_PARTS[part]} part; the three files belong to different versions: take all from one place"
        )
    if count and not 0 <= categories.min() <= categories.max() < len(CATEGORIES):
        raise InputError(f"{_path(folder, part, 'cat')}: found category {categories.max()}, expected 0 to 4")
    return [
        _record(path, i, int(c), [int(v) for v in row], camera)
        for i, (c, row) in enumerate(zip(categories, info, strict=True))
    ]


def _record(path: Path, index: int, category: int, row: list[int], camera: str) -> Record:
    instance, elevation, azimuth, lighting = row
    toy = f"{CATEGORIES[category]}-{instance}"
    return Record(
        image=partial(_picture, path, index, int(camera == "right")),
        name=f"{toy}-{elevation}-{azimuth}-{lighting}-{camera}",
        landmarks=np.zeros((0, 2)),
        subject=toy,
        video=f"{toy}-light-{lighting}",
        frame=18 * elevation + azimuth // 2,
        extra={
            "category": CATEGORIES[category],
            "instance": instance,
            "elevation": 30 + 5 * elevation,
            "azimuth": 10 * azimuth,
            "lighting": lighting,
            "camera": camera,
        },
    )


@lru_cache(maxsize=4)
def _pictures(path: Path) -> np.ndarray:
    return read_lecun(path, memory_map=True)


def _picture(path: Path, index: int, camera: int) -> np.ndarray:
    pictures = _pictures(path)  # by path, so that a loader's worker is sent no pictures
    return np.repeat(np.asarray(pictures[index, camera])[..., None], 3, axis=2)
