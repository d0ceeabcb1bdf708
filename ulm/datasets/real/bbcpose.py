"""BBC-Pose: sign-language interpreters on television, seven joints of the upper body.

The folder holds the videos as ``1`` to ``20`` with ``<frame>.jpg``, ``code/bbcpose.mat`` (a struct a video, whose
fourth field is the annotated frames and whose fifth is the joints, 2 x 7 x N) and ``code/results.mat`` (the 1,000 test
frames: joints 2 x 7 x 1000, frame, video). MATLAB counts pixels from 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ulm.datasets.base import check_split
from ulm.datasets.real.base import Problem, RealDataset, Record, Window, compare, present
from ulm.datasets.real.catalogue_others import BBCPOSE
from ulm.datasets.real.formats import as_list, read_matlab
from ulm.errors import InputError

LANDMARK_NAMES = (
    "head", "right wrist", "left wrist", "right elbow", "left elbow", "right shoulder", "left shoulder",
)  # fmt: skip
FLIP_PAIRS = ((2, 1), (4, 3), (6, 5))
SKELETON = ((1, 3), (3, 5), (2, 4), (4, 6), (5, 0), (6, 0), (5, 6))

COUNTS = {"test": 1000}
"""Size of the one split whose size is published."""

VIDEOS = {"train": range(1, 11), "val": range(11, 16), "test": range(16, 21)}
MARGIN = 60  # pixels round the joints' box, in training
EVALUATION_SIDE = 300  # pixels round the middle of the joints' box, in evaluation

THRESHOLD = 12.0
"""Pixels of the frame within which a joint counts as found: the toolkit's 6 pixels, at half of the resolution."""


@dataclass(frozen=True)
class Clipped:
    """A rectangle in pixels of the file, cut off at the image's edges; what is left is squashed to a square."""

    x0: float
    y0: float
    x1: float
    y1: float

    def on(self, width: int, height: int) -> Window:
        """The part of it that lies in an image of this size."""
        return Window(max(0.0, self.x0), max(0.0, self.y0), min(float(width), self.x1), min(float(height), self.y1))


def bbcpose(root: str, split: str = "train", size: int = 128, limit: int | None = None) -> RealDataset:
    """Load BBC-Pose.

    ``train`` are the annotated frames of videos 1 to 10, ``val`` of 11 to 15, ``test`` the 1,000 frames of 16 to 20.
    In training the crop is the box of the joints and 60 pixels round it, else the 300 x 300 pixels round the middle of
    that box, both cut off at the frame's edge and squashed to a square, as in NVIDIA's loader (Lorenz et al. and
    Jakab et al. say no more than loose crops). To measure in the frame's own pixels (see :data:`THRESHOLD`), undo the
    crop: ``dataset.records[i].crop.on(width, height).to_image(points, size)``.

    Args:
        root: The folder.
        split: train, val, test or all.
        size: Side of the images in pixels.
        limit: Most items to keep, evenly spread.

    Returns:
        Items with ``video`` (its number as text) and ``frame``.

    Raises:
        InputError: Parts are missing or damaged.
    """
    folder = Path(root)
    BBCPOSE.need(folder)
    splits = [s for s in VIDEOS if check_split(split) in (s, "all")]
    records = [record for s in splits for record in _records(folder, s)]
    info = BBCPOSE.info(root, landmark_names=LANDMARK_NAMES, flip_pairs=FLIP_PAIRS, skeleton=SKELETON)
    return RealDataset(info, records, split, size, limit)


def check(root: str) -> list[Problem]:
    """Compare the folder with the official data."""
    found = {"test": len(bbcpose(root, "test", 64))}
    return compare(found, COUNTS, BBCPOSE.title, "frames in split ")


def _records(folder: Path, split: str) -> list[Record]:
    rows = list(_test(folder) if split == "test" else _annotated(folder, VIDEOS[split]))
    names = [f"{video}/{frame}.jpg" for video, frame, _ in rows]
    present(folder, names, "the annotation", BBCPOSE.where)
    return [
        Record(
            image=folder / name,
            name=name,
            landmarks=joints,
            crop=_crop(joints, split),
            video=str(video),
            frame=frame,
        )
        for name, (video, frame, joints) in zip(names, rows, strict=True)
    ]


def _crop(joints: np.ndarray, split: str) -> Clipped:
    low, high = np.nanmin(joints, axis=0), np.nanmax(joints, axis=0)
    if split == "train":
        low, high = low - MARGIN, high + MARGIN
    else:
        middle = (low + high) / 2
        low, high = middle - EVALUATION_SIDE / 2, middle + EVALUATION_SIDE / 2
    return Clipped(*map(float, (*low, *high)))


def _annotated(folder: Path, videos: range) -> Iterator[tuple[int, int, np.ndarray]]:
    """Video, frame and joints (7, 2) of the annotated frames."""
    path = folder / "code" / "bbcpose.mat"
    structs = as_list(read_matlab(path, "bbcpose")["bbcpose"])
    if len(structs) < videos[-1]:
        raise InputError(f"{path}: found {len(structs)} videos, expected 20; take the original file")
    for video in videos:
        fields = list(structs[video - 1].values()) if isinstance(structs[video - 1], dict) else []
        if len(fields) < 5:
            raise InputError(f"{path}: found video {video} without frames and joints; take the original file")
        frames = np.atleast_1d(fields[3])
        joints = _joints(fields[4], len(frames), path)
        yield from zip([video] * len(frames), map(int, frames), joints, strict=True)


def _test(folder: Path) -> Iterator[tuple[int, int, np.ndarray]]:
    """The same of the frames that the toolkit tests."""
    path = folder / "code" / "results.mat"
    results = read_matlab(path, "results")["results"]
    fields = list(results.values()) if isinstance(results, dict) else []
    if len(fields) < 3:
        raise InputError(f"{path}: found no joints, frames and videos; take the original file")
    frames, videos = np.atleast_1d(fields[1]), np.atleast_1d(fields[2])
    joints = _joints(fields[0], len(frames), path)
    if len(videos) != len(frames):
        raise InputError(f"{path}: found {len(frames)} frames but {len(videos)} videos; take the original file")
    return zip(map(int, videos), map(int, frames), joints, strict=True)


def _joints(values: Any, count: int, path: Path) -> np.ndarray:
    """Joints (N, 7, 2), corner of the first pixel at 0, from 2 x 7 x N, first pixel's centre at 1."""
    values = np.asarray(values)
    if values.dtype.kind not in "iuf" or values.size != 14 * count or values.shape[:2] != (2, 7):
        raise InputError(
            f"{path}: found joints of shape {values.shape} for {count} frames, expected 2 x 7 x {count}; take the "
            "original file"
        )
    return values.astype(np.float64).reshape(2, 7, count).transpose(2, 1, 0) - 0.5
