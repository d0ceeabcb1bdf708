"""Tai-Chi-HD: people exercising, 18 joints found by OpenPose on 5,000 + 300 frames of 256 x 256 pixels.

The landmarks are pickled pandas tables (``file_name``, ``value``: 18 x 2, -1 where missing); they are interpreted, not
executed, see :mod:`ulm.datasets.real.formats`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ulm.datasets.base import check_split
from ulm.datasets.images import find_images
from ulm.datasets.real.base import Centre, Problem, RealDataset, Record, compare, is_val, present
from ulm.datasets.real.catalogue_others import TAICHI
from ulm.datasets.real.formats import folder_and_options, read_pandas
from ulm.errors import InputError

LANDMARK_NAMES = (
    "nose", "neck", "right shoulder", "right elbow", "right wrist", "left shoulder", "left elbow", "left wrist",
    "right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle", "right eye", "left eye",
    "right ear", "left ear",
)  # fmt: skip
FLIP_PAIRS = ((5, 2), (6, 3), (7, 4), (11, 8), (12, 9), (13, 10), (15, 14), (17, 16))
SKELETON = (
    (1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13), (1, 0),
    (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip

COUNTS = {"train": 5_000, "test": 300}
"""Labelled frames of the official parts; ``val`` is carved out of ``train``."""

_MASKS = "taichi-test-masks"


def taichi(root: str, split: str = "train", size: int = 128, limit: int | None = None) -> RealDataset:
    """Load Tai-Chi-HD.

    ``test`` are the 300 labelled test frames, ``train`` the 5,000 labelled training frames but for ``val``, about 5 %
    by a hash of the source video. A joint with a negative coordinate is missing; one with a coordinate of 0 is hidden,
    as in StableKeypoints (visible where both are above 0).

    Args:
        root: The folder. With ``#frames`` after it, ``train`` and ``val`` are the unlabelled video frames of ``train/``
            that the papers learn landmarks from; their landmarks are all missing.
        split: train, val, test or all.
        size: Side of the images in pixels.
        limit: Most items to keep, evenly spread.

    Returns:
        Items with ``video``; the test items of a folder with ``taichi-test-masks`` have a ``mask``.

    Raises:
        InputError: Parts are missing or damaged, or an option is unknown.
    """
    folder, options = folder_and_options(root, ("frames",))
    TAICHI.need(folder)
    parts = [p for p in COUNTS if check_split(split) in (p, "all") or (p, split) == ("train", "val")]
    unlabelled = "frames" in options
    records: list[Record] = []
    for part in parts:
        records += _frames(folder) if unlabelled and part == "train" else _labelled(folder, part)
    if split in ("train", "val"):
        records = [r for r in records if is_val(_source(r.video or r.name)) == (split == "val")]
    info = TAICHI.info(root, landmark_names=LANDMARK_NAMES, flip_pairs=FLIP_PAIRS, skeleton=SKELETON)
    return RealDataset(info, records, split, size, limit)


def check(root: str) -> list[Problem]:
    """Compare the folder with the official data."""
    folder, _ = folder_and_options(root, ("frames",))
    TAICHI.need(folder)
    found = {part: len(_labelled(folder, part)) for part in COUNTS}
    return compare(found, COUNTS, TAICHI.title, "labelled frames in the official part ")


def _labelled(folder: Path, part: str) -> list[Record]:
    path = folder / "landmark" / f"taichi_{part}_gt.pkl"
    table = read_pandas(path, "file_name", "value")
    names = [str(name) for name in table["file_name"]]
    images = folder / "eval_images" / "taichi-256" / part
    present(images, names, path.name, TAICHI.where)
    masks = folder / _MASKS
    masked = part == "test" and all((masks / name).is_file() for name in names)
    records = []
    for name, value in zip(names, table["value"], strict=True):
        points = _points(value, path, name)
        records.append(
            Record(
                image=images / name,
                name=f"{part}/{name}",
                landmarks=np.where((points < 0).any(axis=1, keepdims=True), np.nan, points + 0.5),
                visible=(points > 0).all(axis=1),
                crop=Centre(1.0),
                mask=masks / name if masked else None,
                video=_video(name),
            )
        )
    return records


def _points(value: object, path: Path, name: str) -> np.ndarray:
    """(x, y) in pixels of the frame, first pixel's centre at 0."""
    if not isinstance(value, np.ndarray) or value.shape != (18, 2) or value.dtype.kind not in "iuf":
        shape = getattr(value, "shape", type(value).__name__)
        raise InputError(f"{path}: found landmarks {shape} of {name}, expected 18 x 2 numbers; take the original file")
    return value.astype(np.float64)


def _frames(folder: Path) -> list[Record]:
    if not (folder / "train").is_dir():
        raise InputError(
            f"{folder}: found no folder train with the frames of the videos, expected train/<video>/<frame>.png; get "
            f"them at {TAICHI.where}, or leave out #frames to use the labelled frames alone"
        )
    blank = np.full((18, 2), np.nan)
    counts: dict[str, int] = {}
    records = []
    for path in find_images(folder / "train"):
        name = path.relative_to(folder).as_posix()
        video = path.parent.relative_to(folder / "train").as_posix()
        counts[video] = counts.get(video, -1) + 1
        records.append(
            Record(image=path, name=name, landmarks=blank, crop=Centre(1.0), video=video, frame=counts[video])
        )
    return records


def _video(name: str) -> str:
    """The video of a labelled frame: the folder in its name, else the name without its suffix."""
    parent, _, last = name.rpartition("/")
    return parent or last.rsplit(".", 1)[0]


def _source(video: str) -> str:
    """The YouTube video that a clip was cut from: the clips are named IDENTIFIER#START#END."""
    return video.split("#", 1)[0]
