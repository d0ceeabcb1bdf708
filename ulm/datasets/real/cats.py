"""CAT, heads of cats with nine landmarks: the photographs, or the crops of Zhang et al. (2018)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ulm.datasets.base import Dataset, check_split
from ulm.datasets.cats import FLIP_PAIRS, LANDMARK_NAMES, SEVEN, SKELETON
from ulm.datasets.images import Square, around
from ulm.datasets.real import base
from ulm.datasets.real.base import Centre, Problem, RealDataset, Record
from ulm.datasets.real.catalogue_faces import CATS
from ulm.datasets.real.formats import read_matlab
from ulm.errors import InputError

COUNT = 9_997
"""Labelled photographs. The papers say 10,000."""
CROP_COUNTS = {"training crops": 7_747, "test crops": 1_257}
TEST_SHARE = 0.25
MARGIN = 1.5
"""The side of the square round the head, in longer sides of the box of its landmarks."""
_MAY_LACK = 0.01

_CROPS = (
    "cat_{0}_images.txt or cat_data/cat_{0}_images.txt",
    "cat_{0}_keypoints.mat or cat_data/cat_{0}_keypoints.mat",
    "cat_images",
)


@dataclass(frozen=True)
class HeadBox:
    """A square round a box; see :func:`ulm.datasets.images.around`."""

    x0: float
    y0: float
    x1: float
    y1: float
    margin: float

    def on(self, width: int, height: int) -> Square:
        """The square in an image of this size."""
        return around(np.array([self.x0, self.y0, self.x1, self.y1]), width, height, self.margin)


def cats(root: str, split: str, size: int, limit: int | None) -> Dataset:
    """Heads of cats: eyes, mouth and three points an ear, left and right as the image shows them.

    The photographs (``CAT_00`` to ``CAT_06``) were divided 5,000, 2,000 and 3,000 by their authors, but no list of it
    is published. Of D-ULD's group, Awan et al. take 75 and 25 %; so ``test`` is 25 % here, by a hash of the file name,
    and 5 % of the rest is ``val``. The square is 1.5 times the longer side of the landmarks' box: it uses the labels,
    as the crops of Zhang et al. do. Photographs without a label file are left out, up to 1 % of them.

    The crops (``cat_images`` with ``cat_train_images.txt`` and so on, 100 x 100 pixels, of which the middle 80 are
    kept) have lists of 7,747 and 1,257; 5 % of the first is ``val`` by a hash of the name. They are used where both
    are there.

    Args:
        root: The folder with ``CAT_00`` to ``CAT_06``, or with ``cat_images``.
        split: train, val, test or all.
        size: Side of the images in pixels.
        limit: Most items to keep, evenly spread.

    Raises:
        InputError: Something is missing or damaged.
    """
    check_split(split)
    records = _crops(root) if _has_crops(root) else _photographs(root)
    chosen = [record for part, record in records if split in ("all", part)]
    info = CATS.info(
        root,
        landmark_names=LANDMARK_NAMES,
        flip_pairs=FLIP_PAIRS,
        skeleton=SKELETON,
        normaliser_points=((0,), (1,)),
        subsets=(("cat-7", SEVEN),),
    )
    return RealDataset(info, chosen, split, size, limit)


def check(root: str) -> list[Problem]:
    """Compare the numbers of images with the official ones."""
    if not _has_crops(root):
        return base.compare({"labelled photographs": len(_photographs(root))}, {"labelled photographs": COUNT}, "CAT")
    parts = [part for part, _ in _crops(root)]
    tests = parts.count("test")
    return base.compare(dict(zip(CROP_COUNTS, (len(parts) - tests, tests), strict=True)), CROP_COUNTS, "set of crops")


def _has_crops(root: str) -> bool:
    return any(base.find(root, pattern.format(part)) for pattern in _CROPS for part in ("train", "test"))


def _part(name: str) -> str:
    """The split of a photograph."""
    if base.is_val(f"test {name}", TEST_SHARE):
        return "test"
    return "val" if base.is_val(name) else "train"


def _photographs(root: str) -> list[tuple[str, Record]]:
    CATS.need(root)
    folders = sorted(path for path in Path(root).glob("CAT_0*") if path.is_dir())
    images = [(f, name) for f in folders for name in sorted(os.listdir(f)) if name.lower().endswith((".jpg", ".jpeg"))]
    labels = {(f, name) for f in folders for name in os.listdir(f) if name.endswith(".cat")}
    labelled = [(f, name) for f, name in images if (f, f"{name}.cat") in labels]
    if max(len(images), len(labels)) - len(labelled) > max(1, _MAY_LACK * len(images)) or not labelled:
        raise InputError(
            f"{root}: found {len(images)} images and {len(labels)} label files, of which {len(labelled)} belong "
            "together, expected a file NAME.jpg.cat for each NAME.jpg; unpack cats.zip again, or get it at "
            f"{CATS.where}"
        )
    return [(_part(name), _photograph(folder, name)) for folder, name in labelled]


def _photograph(folder: Path, name: str) -> Record:
    path = folder / f"{name}.cat"
    words = " ".join(base.read_lines(path)).split()
    if words[:1] != ["9"]:
        raise InputError(
            f"{path}: found {words[0] if words else 'nothing'} as the number of points, expected 9; copy it again"
        )
    points = np.array(base.numbers(words[1:], 18, path, 1)).reshape(9, 2) + 0.5  # pixels counted from 0
    known = points[np.isfinite(points).all(axis=1)]
    if not len(known):
        raise InputError(f"{path}: found no finite landmark; copy it again, or remove it")
    x0, y0, x1, y1 = box = [float(v) for v in (*known.min(0), *known.max(0))]
    crop = HeadBox(x0, y0, x1, y1, MARGIN)
    return Record(image=str(folder / name), name=f"{folder.name}/{name}", landmarks=points, crop=crop, box=box)


def _crops(root: str) -> list[tuple[str, Record]]:
    records = []
    for part in ("train", "test"):
        listed, labels, images = CATS.need(root, [pattern.format(part) for pattern in _CROPS])
        names = base.read_lines(listed)
        points = np.asarray(read_matlab(labels, "gt")["gt"], np.float64)
        if points.size != 18 * len(names):
            raise InputError(
                f"{labels}: found gt {points.shape}, expected ({len(names)}, 9, 2) for the names in {listed.name}; "
                "copy both files again"
            )
        base.present(images, names, listed.name, CATS.where)
        for name, place in zip(names, points.reshape(-1, 9, 2)[..., ::-1], strict=True):  # (row, column)
            split = "val" if part == "train" and base.is_val(name) else part
            records.append((split, Record(os.path.join(images, name), f"cat_images/{name}", place, crop=Centre(0.8))))
    return records
