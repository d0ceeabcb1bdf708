"""MPII Human Pose: people in everyday activities, 16 joints, scale and middle of the person, head box.

The folder holds ``images/`` and ``mpii_human_pose_v1_u12_*.mat`` (struct ``RELEASE``). The joints of the official test
people are not public. MATLAB counts pixels from 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ulm.datasets.base import check_split
from ulm.datasets.real.base import Problem, RealDataset, Record, Window, is_val, present
from ulm.datasets.real.catalogue_others import MPII
from ulm.datasets.real.formats import as_list, read_matlab
from ulm.errors import InputError

LANDMARK_NAMES = (
    "right ankle", "right knee", "right hip", "left hip", "left knee", "left ankle", "pelvis", "thorax", "upper neck",
    "head top", "right wrist", "right elbow", "right shoulder", "left shoulder", "left elbow", "left wrist",
)  # fmt: skip
FLIP_PAIRS = ((5, 0), (4, 1), (3, 2), (15, 10), (14, 11), (13, 12))
SKELETON = (
    (0, 1), (1, 2), (2, 6), (6, 3), (3, 4), (4, 5), (6, 7), (7, 8), (8, 9), (10, 11), (11, 12), (12, 7), (7, 13),
    (13, 14), (14, 15),
)  # fmt: skip

IMAGES = 24_984
"""Pictures of the whole data set, train and test."""

PERSON_HEIGHT = 200.0  # pixels, of a person of scale 1
ENLARGED = 1.25  # side of the crop over the person's height
LOWERED = 15.0  # pixels, times the scale, by which the crop lies below the annotated middle
HEAD_SHARE = 0.6  # of the head box's diagonal: the head size that PCKh divides by


def mpii(root: str, split: str = "train", size: int = 128, limit: int | None = None) -> RealDataset:
    """Load MPII Human Pose.

    An item is a person with annotated joints, of the official training pictures; ``val`` are about 5 % of the source
    videos, by a hash. ``test`` is refused: its joints are not public. The crop is the usual one of pose estimation: a
    square whose side is 1.25 times the person's height (200 pixels times the scale), round the annotated middle moved
    down by 15 pixels times the scale. Outside the image it is black. A joint that is not annotated is missing; one
    whose flag is 0 is hidden.

    Args:
        root: The folder.
        split: train, val or all.
        size: Side of the images in pixels.
        limit: Most items to keep, evenly spread.

    Returns:
        Items with ``subject`` (the source video, where known), ``box`` (of the head) where every person has one, and
        ``head_size``, the length that PCKh divides by, in pixels of the item; 0 where it is not known.

    Raises:
        InputError: Parts are missing or damaged, or the split is ``test``.
    """
    folder = Path(root)
    images, path = MPII.need(folder)
    if check_split(split) == "test":
        raise InputError(
            f"found split 'test' of {MPII.title}, whose joints are not public, expected train, val or all; use val"
        )
    records = [_record(images, person, size) for person in _people(path)]
    if split != "all":
        records = [r for r in records if is_val(r.subject or "") == (split == "val")]
    present(images, [r.name.partition("#")[0] for r in records], path.name, MPII.where)
    info = MPII.info(root, landmark_names=LANDMARK_NAMES, flip_pairs=FLIP_PAIRS, skeleton=SKELETON)
    return RealDataset(info, records, split, size, limit)


def check(root: str) -> list[Problem]:
    """Compare the folder with the official data."""
    _, path = MPII.need(root)
    found = len(as_list(_release(path)["annolist"]))
    if found >= IMAGES and _people(path):
        return []
    return [
        Problem("warning", f"found {found:,} pictures in {path.name}, expected {IMAGES:,} as in the whole {MPII.title}")
    ]


@lru_cache(maxsize=1)
def _parsed(path: Path, stamp: tuple[int, int]) -> dict[str, Any]:
    release = read_matlab(path, "RELEASE")["RELEASE"]
    if not isinstance(release, dict) or not {"annolist", "img_train"} <= set(release):
        raise InputError(f"{path}: found no RELEASE with annolist and img_train; take the original file")
    return release


def _release(path: Path) -> dict[str, Any]:
    """The content of the file, which takes half a minute to read: the last one stays in memory."""
    return _parsed(path, (path.stat().st_size, path.stat().st_mtime_ns))


def _people(path: Path) -> list[dict[str, Any]]:
    """The people with joints: image, place in it, source video, and their struct."""
    release = _release(path)
    entries, flags = as_list(release["annolist"]), np.atleast_1d(release["img_train"])
    if len(flags) != len(entries):
        raise InputError(f"{path}: found {len(entries)} pictures but {len(flags)} flags; take the original file")
    people = []
    for entry, train in zip(entries, flags, strict=True):
        try:
            image = str(entry["image"]["name"])
        except (KeyError, TypeError, IndexError):
            raise InputError(f"{path}: found a picture without a name; take the original file") from None
        for place, rect in enumerate(as_list(entry.get("annorect", [])) if train else []):
            joints = list(_joints(rect, path, image))
            if joints and _number(rect, "scale") and isinstance(rect.get("objpos"), dict):
                video = _number(entry, "vididx")
                source = image if video is None else f"video {video:g}"
                people.append({"image": image, "place": place, "source": source, "rect": rect, "joints": joints})
    return people


def _joints(rect: Any, path: Path, image: str) -> Iterator[tuple[int, float, float, bool]]:
    """Number, x, y (counted from 1) and flag of each annotated joint."""
    points = rect.get("annopoints") if isinstance(rect, dict) else None
    if not isinstance(points, dict):
        return
    for point in as_list(points.get("point", [])):
        x, y, number = (_number(point, key) for key in ("x", "y", "id"))
        if x is None or y is None or number is None or not 0 <= number <= 15:
            raise InputError(f"{path}: found a damaged joint in {image}; take the original file")
        flag = point.get("is_visible", 1)
        # Text in parts of the file; empty for joints that were added later (neck, top of the head).
        yield int(number), x, y, str(flag).strip() != "0"


def _number(struct: Any, key: str) -> float | None:
    value = struct.get(key) if isinstance(struct, dict) else None
    value = np.asarray(value if value is not None else np.nan)
    if value.dtype.kind not in "iuf" or value.size != 1 or not math.isfinite(value.item()):
        return None
    return float(value.item())


def _record(images: Path, person: dict[str, Any], size: int) -> Record:
    rect, name = person["rect"], person["image"]
    landmarks, visible = np.full((16, 2), np.nan), np.zeros(16, bool)
    for number, x, y, flag in person["joints"]:
        landmarks[number], visible[number] = (x - 0.5, y - 0.5), flag
    scale = _number(rect, "scale") or 1.0
    x, y = _number(rect["objpos"], "x"), _number(rect["objpos"], "y")
    if x is None or y is None:
        x, y = np.nanmean(landmarks, axis=0) + 0.5
    half = PERSON_HEIGHT * scale * ENLARGED / 2
    x, y = x - 0.5, y - 0.5 + LOWERED * scale
    head = [_number(rect, key) for key in ("x1", "y1", "x2", "y2")]
    known = None not in head
    diagonal = math.hypot(head[2] - head[0], head[3] - head[1]) if known else 0.0
    return Record(
        image=images / name,
        name=f"{name}#{person['place']}",
        landmarks=landmarks,
        visible=visible,
        crop=Window(x - half, y - half, x + half, y + half, fill=0),
        box=tuple(value - 0.5 for value in head) if known else None,
        subject=person["source"],
        extra={"head_size": HEAD_SHARE * diagonal * size / (2 * half)},
    )
