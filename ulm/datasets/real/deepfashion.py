"""DeepFashion (in-shop, full body): dressed people, joints found by AlphaPose, pictures of 256 x 256 pixels."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from ulm.datasets.base import check_split
from ulm.datasets.images import image_size
from ulm.datasets.real.base import Problem, RealDataset, Record, compare, find, is_val, present
from ulm.datasets.real.catalogue_others import DEEPFASHION
from ulm.errors import InputError

COCO_NAMES = (
    "nose", "left eye", "right eye", "left ear", "right ear", "left shoulder", "right shoulder", "left elbow",
    "right elbow", "left wrist", "right wrist", "left hip", "right hip", "left knee", "right knee", "left ankle",
    "right ankle",
)  # fmt: skip
COCO_SKELETON = (
    (5, 6), (5, 7), (7, 9), (6, 8), (8, 10), (5, 11), (6, 12), (11, 12), (11, 13), (13, 15), (12, 14), (14, 16),
    (0, 1), (0, 2), (1, 3), (2, 4),
)  # fmt: skip

COUNTS = {"train": 10_604, "test": 1_179}
"""Pictures of the official parts; ``val`` is carved out of ``train``."""

SIDE = 256  # pixels; the landmarks belong to pictures of this size


def deepfashion(root: str, split: str = "train", size: int = 128, limit: int | None = None) -> RealDataset:
    """Load DeepFashion.

    ``test`` are the pictures of ``data_test.csv``, ``train`` those of ``data_train.csv`` but for ``val``, about 5 % by
    a hash of the item of clothing. All joints count as visible, as in the published protocol. The 17 joints of COCO
    are named; other numbers of joints are numbered.

    Args:
        root: The folder with ``data_{train,test}.csv`` (second column: the picture), ``data_{train,test}.json``
            (``keypoints`` of each, (x, y) at 256 pixels, in the order of the csv) and ``img/``.
        split: train, val, test or all.
        size: Side of the images in pixels.
        limit: Most items to keep, evenly spread.

    Returns:
        Items whose ``subject`` is the item of clothing.

    Raises:
        InputError: Parts are missing, damaged, or do not belong together.
    """
    folder = Path(root)
    DEEPFASHION.need(folder)
    parts = [p for p in COUNTS if check_split(split) in (p, "all") or (p, split) == ("train", "val")]
    records = [record for part in parts for record in _records(folder, part)]
    if split in ("train", "val"):
        records = [r for r in records if is_val(r.subject or "") == (split == "val")]
    count = len(records[0].landmarks) if records else len(COCO_NAMES)
    if any(len(r.landmarks) != count for r in records):
        raise InputError(f"{folder}: found different numbers of joints in the two json files; take both from one place")
    return RealDataset(_info(root, count), records, split, size, limit)


def check(root: str) -> list[Problem]:
    """Compare the folder with the official data."""
    DEEPFASHION.need(root)
    found = {part: len(_records(Path(root), part)) for part in COUNTS}
    return compare(found, COUNTS, DEEPFASHION.title, "pictures in the official part ")


def _info(root: str, count: int) -> Any:
    if count != len(COCO_NAMES):
        return DEEPFASHION.info(root, landmark_names=tuple(f"joint {i + 1}" for i in range(count)))
    pairs = tuple((i, i + 1) for i in range(1, len(COCO_NAMES), 2))
    return DEEPFASHION.info(root, landmark_names=COCO_NAMES, flip_pairs=pairs, skeleton=COCO_SKELETON)


def _records(folder: Path, part: str) -> list[Record]:
    names = _names(folder / f"data_{part}.csv")
    path = folder / f"data_{part}.json"
    points = _keypoints(path)
    if len(points) != len(names):
        raise InputError(
            f"{path}: found {len(points)} entries for the {len(names)} pictures of data_{part}.csv; take both files "
            "from one place"
        )
    images = find(folder, "img or images") or folder
    present(images, names, f"data_{part}.csv", DEEPFASHION.where)
    _check_side(images / names[0])
    return [
        Record(image=images / name, name=name, landmarks=joints + 0.5, subject=_item(name))
        for name, joints in zip(names, points, strict=True)
    ]


def _names(path: Path) -> list[str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: found no readable table ({error}); copy the file again") from None
    if len(rows) < 2 or any(len(row) < 2 for row in rows):
        raise InputError(f"{path}: found {len(rows)} rows, expected a header and rows of at least two columns")
    return [row[1].strip() for row in rows[1:]]


def _keypoints(path: Path) -> np.ndarray:
    """Joints (N, L, 2), (x, y) at 256 pixels, first pixel's centre at 0."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
        joints = [np.asarray(entry["keypoints"], np.float64) for entry in entries]
        points = np.stack(joints)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: found no list of keypoints ({error}); copy the file again") from None
    # AlphaPose's own files are flat: x, y, confidence.
    points = points.reshape(len(points), -1, 3) if points.ndim == 2 and points.shape[1] % 3 == 0 else points
    if points.ndim != 3 or points.shape[2] not in (2, 3) or not np.isfinite(points).all():
        raise InputError(f"{path}: found keypoints of shape {points.shape}, expected N x L x 2; take the original file")
    return points[..., :2]


def _check_side(image: Path) -> None:
    height, width = image_size(image)
    if (height, width) != (SIDE, SIDE):
        raise InputError(
            f"{image}: found {width} x {height} pixels, expected {SIDE} x {SIDE}, which the landmarks belong to; take "
            "img.zip, not img_highres.zip"
        )


def _item(name: str) -> str:
    """The item of clothing: WOMEN/Dresses/id_00000001/02_1_front.jpg is of WOMEN/Dresses/id_00000001."""
    return name.rpartition("/")[0] or name
