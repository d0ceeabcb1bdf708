"""LS3D-W balanced and 300W-LP: 68 landmarks on faces of all poses.

Both annotate the projections of three-dimensional points, hidden ones too, so every landmark is ``visible``: which are
hidden is not known. The landmarks are taken as places from the corner of the image, as in the code of Mallis et al.,
which mirrors them by x to 450 - x; where their grid starts is nowhere said (at most half a pixel of the file).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ulm.datasets.base import Dataset, check_split
from ulm.datasets.coco import IBUG_FLIP_PAIRS, IBUG_SKELETON, MAFL_POINTS
from ulm.datasets.real import base
from ulm.datasets.real.base import Clipped, Problem, RealDataset, Record
from ulm.datasets.real.catalogue_faces import LS3D
from ulm.datasets.real.formats import read_matlab
from ulm.datasets.real.torch7 import read_torch7
from ulm.errors import InputError

LANDMARK_NAMES = tuple(f"ibug-{i:02d}" for i in range(1, 69))
COUNTS = {"images of 300W-LP (train and val)": 61_225, "images of LS3D-W balanced (test)": 7_200}

YAW_RANGES = {1: ("-30..30",) * 2, 2: ("-60..-30", "30..60"), 0: ("-90..-60", "60..90")}
"""Of LS3D-W balanced: the remainder of the image's number by 3 to the ranges of faces turned left and right."""
_MIDDLES = {"-90..-60": -75.0, "-60..-30": -45.0, "-30..30": 0.0, "30..60": 45.0, "60..90": 75.0}
_NOSE_TIP, _JAW_ENDS = 30, (0, 16)


def ls3d(root: str, split: str, size: int, limit: int | None) -> Dataset:
    """68 landmarks: 300W-LP to train on, LS3D-W balanced to test on (Mallis et al., D-ULD).

    Splits: ``train`` and ``val`` are the 61,225 unmirrored images of 300W-LP, 5 % of the photographs behind them in
    ``val`` by a hash of the name (300W-LP has no validation part; all its poses of a photograph stay together).
    ``test`` is LS3D-W balanced, 7,200 images. A split needs its part of the folder only.

    The crop is that of Mallis et al.: the box of the landmarks, its top raised by a third of its height, with a margin
    of 8 % of ((1.2 x1 - x0) + (2 y1 - y0)) / 4, within the image, squashed to a square. They take a detector's box, not
    published for other copies, for training; here all images are cut by their landmarks.

    Items of LS3D-W balanced have ``yaw_range`` and ``yaw``, the middle of it. The release tells the range of the
    absolute yaw, by the image's number: 0 to 30, 30 to 60, 60 to 90 degrees for remainder 1, 2, 0 by three. The side
    is not told; it is that of the nose's tip from the middle of the jaw's ends.

    Args:
        root: The folder with ``300W_LP`` and ``LS3D-W-balanced-20-03-2017``.
        split: train, val, test or all.
        size: Side of the images in pixels.
        limit: Most items to keep, evenly spread.

    Raises:
        InputError: Something is missing or damaged.
    """
    check_split(split)
    info = LS3D.info(
        root,
        landmark_names=LANDMARK_NAMES,
        flip_pairs=IBUG_FLIP_PAIRS,
        skeleton=IBUG_SKELETON,
        subsets=(("mafl-5", MAFL_POINTS),),
    )
    files = _files(root, split)
    # Chosen before the labels are read: each image has a label file of its own.
    files = [files[i] for i in base.spread(len(files), limit)]
    return RealDataset(info, _records(files), split, size)


def check(root: str) -> list[Problem]:
    """Compare the numbers of images, and whether the yaw ranges by number agree with the landmarks."""
    files = _files(root, "all")
    tests = [file for file in files if file[1].suffix == ".t7"]
    counts = dict(zip(COUNTS, (len(files) - len(tests), len(tests)), strict=True))
    problems = base.compare(counts, COUNTS, "300W-LP and LS3D-W balanced")
    turned = {remainder: [] for remainder in YAW_RANGES}
    for (image, _, _), points in zip(tests, _landmarks(tests), strict=True):
        if (remainder := _remainder(image)) is not None:
            turned[remainder].append(abs(_turn(points)) / np.ptp(points[:, 1]))
    means = [float(np.mean(turned[remainder])) for remainder in (1, 2, 0) if turned[remainder]]
    if means != sorted(means):
        text = "the faces do not turn further from one third of the numbers to the next: yaw and yaw_range are wrong"
        problems.append(Problem("warning", text))
    return problems


_File = tuple[Path, Path, str]


def _files(root: str, split: str) -> list[_File]:
    """Image, label file and name of each item of a split."""
    files: list[_File] = []
    if split != "test":
        files += [f for f in _files_300w(root) if split == "all" or base.is_val(_photograph(f[0])) == (split == "val")]
    if split in ("test", "all"):
        files += _files_balanced(root)
    return files


def _files_300w(root: str) -> list[_File]:
    labels = LS3D.need(root, LS3D.layout[:1])[0]
    files = []
    for labelled in sorted(folder for folder in labels.iterdir() if folder.is_dir()):
        images = sorted((labels.parent / labelled.name).glob("*.jpg"))
        files += [(i, labelled / f"{i.stem}_pts.mat", f"300W_LP/{labelled.name}/{i.name}") for i in images]
    return _complete(labels.parent, files, "_pts.mat of its landmarks")


def _files_balanced(root: str) -> list[_File]:
    folder = LS3D.need(root, LS3D.layout[1:])[0]
    images = sorted(folder.rglob("*.jpg"), key=lambda p: (len(p.stem), p.as_posix()))  # 2.jpg before 10.jpg
    files = [(i, i.with_suffix(".t7"), f"LS3D-W/{i.relative_to(folder).as_posix()}") for i in images]
    return _complete(folder, files, ".t7 of its landmarks")


def _complete(folder: Path, files: list[_File], what: str) -> list[_File]:
    lost = [image.name for image, label, _ in files if not label.is_file()]
    if lost or not files:
        raise InputError(
            f"{folder}: found {len(files)} images, {len(lost)} of them ({', '.join(lost[:3])}) without the file "
            f"{what}, expected one for each; unpack the archives again, or get them at {LS3D.where}"
        )
    return files


def _photograph(image: Path) -> str:
    """The photograph behind an image of 300W-LP: its name without the number of the pose."""
    return re.sub(r"_\d+$", "", image.stem)


def _records(files: Sequence[_File]) -> list[Record]:
    records = []
    for (image, label, name), points in zip(files, _landmarks(files), strict=True):
        side = _yaw_range(image, points) if label.suffix == ".t7" else None
        records.append(
            Record(
                image=str(image),
                name=name,
                landmarks=points,
                crop=face_box(points),
                yaw=None if side is None else _MIDDLES[side],
                extra={} if side is None else {"yaw_range": side},
            )
        )
    return records


def _landmarks(files: Sequence[_File]) -> np.ndarray:
    """float64 ``(N, 68, 2)``."""
    labels = [label for _, label, _ in files]
    return base.remembered(labels, "ls3d", lambda: np.array([_read(p) for p in labels]).reshape(-1, 68, 2))


def _read(path: Path) -> np.ndarray:
    points = read_torch7(path) if path.suffix == ".t7" else read_matlab(path, "pts_3d")["pts_3d"]
    # Some files hold the depth too.
    if not isinstance(points, np.ndarray) or points.shape not in ((68, 2), (68, 3)):
        found = points.shape if isinstance(points, np.ndarray) else type(points).__name__
        raise InputError(f"{path}: found {found}, expected a tensor (68, 2); copy the file again")
    points = points[:, :2].astype(np.float64)
    if not np.isfinite(points).any(axis=0).all():
        raise InputError(f"{path}: found no finite landmark; copy the file again, or leave its image out")
    return points


def face_box(points: np.ndarray) -> Clipped:
    """The crop of Mallis et al. round the landmarks ``(68, 2)``; see :func:`ls3d`."""
    (x0, y0), (x1, y1) = np.nanmin(points, axis=0).astype(int), np.nanmax(points, axis=0).astype(int)
    y0 = y0 - (y1 - y0) / 3
    mean = 0.25 * ((1.2 * x1 - x0) + (2 * y1 - y0))
    margin = 8 if mean < 20 else int(8 * mean / 100)
    return Clipped(*(float(v) for v in (x0 - margin, y0 - margin, x1 + margin, y1 + margin)))


def _remainder(image: Path) -> int | None:
    return int(image.stem) % 3 if image.stem.isdecimal() else None


def _turn(points: np.ndarray) -> float:
    """How far the tip of the nose lies to the right of the middle of the jaw's ends, in pixels."""
    return float(points[_NOSE_TIP, 0] - points[list(_JAW_ENDS), 0].mean())


def _yaw_range(image: Path, points: np.ndarray) -> str | None:
    remainder = _remainder(image)
    return None if remainder is None else YAW_RANGES[remainder][_turn(points) > 0]
