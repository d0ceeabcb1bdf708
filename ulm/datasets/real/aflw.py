"""AFLW with five landmarks, in two official forms.

The *recrop* release (Zhang et al. 2018, on the page of IMM) has face crops of any size, lists of their names and MATLAB
files with ``gt`` ``(N, 5, 2)`` as (row, column) and ``hw`` ``(N, 2)``. The *MTFL* form has 150-pixel crops: those of
Thewlis et al. to train on, with a CSV file, and MTFL's to test on; both count pixels from 1.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np

from ulm.datasets.base import Dataset, check_split
from ulm.datasets.real import base
from ulm.datasets.real.base import Centre, Problem, RealDataset, Record
from ulm.datasets.real.catalogue_faces import AFLW
from ulm.datasets.real.celeba import FLIP_PAIRS, LANDMARK_NAMES, SKELETON
from ulm.datasets.real.formats import folder_and_options, read_matlab
from ulm.errors import InputError

TRAIN_COUNT = 10_122
TEST_COUNT = {"recrop": 2_991, "MTFL": 2_995}
DUPLICATES = 132
"""Faces that the recrop test set holds twice (Thewlis et al. 2019)."""
HELD_OUT = 0.1

_Row = tuple[str, str, np.ndarray, dict[str, int]]


def aflw(root: str, split: str, size: int, limit: int | None) -> Dataset:
    """Five landmarks on cropped faces of all poses, squashed to a square.

    AFLW has no validation part. As in IMM's code, ``val`` is the last 10 % of the 10,122 training faces in the order of
    the file: 9,110 train, 1,012 val. ``test`` is 2,991 faces, of which 132 are there twice and are kept, as in all
    papers (2,995 in the form of MTFL). The pixel grid of the recrop landmarks is taken as it stands: where it starts is
    nowhere said, and the error is at most half a pixel of the crop.

    Args:
        root: The folder of either form; the recrop release is used where both are there. ``FOLDER#full`` puts all
            10,122 faces into ``train``, as D-ULD does, and none into ``val``.
        split: train, val, test or all.
        size: Side of the images in pixels.
        limit: Most items to keep, evenly spread.

    Returns:
        Images with five landmarks; ``head_pose`` 1 (left profile) to 5 (right profile) in the test set of MTFL.

    Raises:
        InputError: Something is missing or damaged.
    """
    check_split(split)
    folder, options = folder_and_options(root, ("full",))
    held_out = 0.0 if "full" in options else HELD_OUT
    rows: list[_Row] = []
    for part in ("train", "test"):
        if split in ("all", part) or (split, part) == ("val", "train"):
            found = _read(folder, part)
            rows += _held(found, split, held_out) if part == "train" else found
    records = [
        Record(image=file, name=name, landmarks=points, crop=Centre(1.0), extra=extra)
        for file, name, points, extra in rows
    ]
    info = AFLW.info(
        root,
        landmark_names=LANDMARK_NAMES,
        flip_pairs=FLIP_PAIRS,
        skeleton=SKELETON,
        normaliser_points=((0,), (1,)),
    )
    return RealDataset(info, records, split, size, limit)


def check(root: str) -> list[Problem]:
    """Compare the numbers of faces with the official ones, and say how many test faces are there twice."""
    folder, _ = folder_and_options(root, ("full",))
    form = "MTFL" if _is_mtfl(folder) else "recrop"
    train, test = _read(folder, "train"), _read(folder, "test")
    found = {"training faces": len(train), "test faces": len(test)}
    expected = {"training faces": TRAIN_COUNT, "test faces": TEST_COUNT[form]}
    problems = base.compare(found, expected, f"AFLW ({form})")
    if twice := len(test) - len({name for _, name, *_ in test}):
        text = f"{twice} test faces are there twice and are kept ({DUPLICATES} are known in the whole recrop release)"
        problems.append(Problem("warning", text))
    if shared := {name for _, name, *_ in train} & {name for _, name, *_ in test}:
        problems.append(Problem("error", f"found {len(shared)} faces in both lists, such as {min(shared)}"))
    return problems


def _held(rows: list[_Row], split: str, share: float) -> list[_Row]:
    """The rows of train, val or all."""
    count = len(rows) - round(share * len(rows))
    return {"train": rows[:count], "val": rows[count:]}.get(split, rows)


def _is_mtfl(root: Path) -> bool:
    """Whether only the form of MTFL is there."""
    recrop = base.find(root, AFLW.layout[0]) or base.find(root, AFLW.layout[2])
    return recrop is None and any(base.find(root, pattern) for pattern in ("MTFL", "aflw_cropped"))


def _read(root: Path, part: str) -> list[_Row]:
    """File, name, landmarks and further values of each face."""
    if _is_mtfl(root):
        return _read_csv(root) if part == "train" else _read_mtfl(root)
    train = part == "train"
    listed, labels, images = AFLW.need(root, [*(AFLW.layout[:2] if train else AFLW.layout[2:4]), AFLW.layout[4]])
    # The names begin inside the folder of images, in some copies with that folder.
    names = [line.removeprefix("output/") for line in base.read_lines(listed)]
    content = read_matlab(labels, "gt", "hw")
    points, sizes = np.asarray(content["gt"], np.float64), np.asarray(content["hw"])
    if points.size != 10 * len(names) or sizes.size != 2 * len(names):
        raise InputError(
            f"{labels}: found gt {points.shape} and hw {sizes.shape}, expected ({len(names)}, 5, 2) and "
            f"({len(names)}, 2) for the names in {listed.name}; copy both files again"
        )
    base.present(images, names, listed.name, AFLW.where)
    xy = points.reshape(-1, 5, 2)[..., ::-1]
    return [(os.path.join(images, name), name, place, {}) for name, place in zip(names, xy, strict=True)]


def _read_csv(root: Path) -> list[_Row]:
    """The training faces of the form of MTFL: rows with ``set`` 1."""
    path, folder = AFLW.need(root, AFLW.other_layout[2:])
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header, *lines = list(csv.reader(file))
        crop, part = header.index("crop_file"), header.index("set")
    except (ValueError, UnicodeDecodeError, csv.Error):
        raise InputError(
            f"{path}: found no columns crop_file and set, expected the official file; copy it again"
        ) from None
    rows = [(number, line) for number, line in enumerate(lines, 2) if line and line[part : part + 1] == ["1"]]
    # Some copies name the folder of the crops, some do not.
    names = [Path(line[crop].replace("\\", "/")).name for _, line in rows]
    base.present(folder, names, path.name, AFLW.where)
    points = [base.numbers(line[4:14], 10, path, number) for number, line in rows]
    xy = np.array(points).reshape(-1, 5, 2) - 0.5
    return [(str(folder / n), f"aflw_cropped/{n}", place, {}) for n, place in zip(names, xy, strict=True)]


def _read_mtfl(root: Path) -> list[_Row]:
    """MTFL's test faces: a name, five x, five y, then gender, smile, glasses and head pose."""
    path = AFLW.need(root, AFLW.other_layout[:2])[0]
    rows = [(number, line.split()) for number, line in enumerate(base.read_lines(path), 1)]
    names = [words[0].replace("\\", "/") for _, words in rows]
    base.present(path.parent, names, path.name, AFLW.where)
    values = np.array([base.numbers(words[1:15], 14, path, number) for number, words in rows])
    xy = values[:, :10].reshape(-1, 2, 5).transpose(0, 2, 1) - 0.5
    return [
        (str(path.parent / name), name, place, {"head_pose": int(pose)})
        for name, place, pose in zip(names, xy, values[:, 13], strict=True)
    ]
