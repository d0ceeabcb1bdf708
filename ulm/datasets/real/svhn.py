"""Street View House Numbers, format 1: photographs with the box and the label of every digit.

``train/``, ``test/`` and, if wanted, ``extra/`` hold ``<number>.png`` and ``digitStruct.mat`` (HDF5).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ulm.datasets.base import check_split
from ulm.datasets.images import Square, around
from ulm.datasets.real.base import Problem, RealDataset, Record, compare, is_val, present
from ulm.datasets.real.catalogue_others import SVHN
from ulm.datasets.real.formats import Hdf5Matlab, folder_and_options
from ulm.errors import InputError

COUNTS = {"train": 33_402, "test": 13_068, "extra": 202_353}
"""Pictures of the official parts; ``val`` is carved out of ``train``."""

MARGIN = 1.25  # side of the crop over the longer side of the digits' box
_FIELDS = ("left", "top", "width", "height", "label")


@dataclass(frozen=True)
class RoundBox:
    """A square round a box, 1.25 times its longer side."""

    x0: float
    y0: float
    x1: float
    y1: float

    def on(self, width: int, height: int) -> Square:
        """The square in an image of this size."""
        return around(np.array([self.x0, self.y0, self.x1, self.y1]), width, height, MARGIN)


def svhn(root: str, split: str = "train", size: int = 128, limit: int | None = None) -> RealDataset:
    """Load SVHN.

    ``test`` are the official test pictures, ``train`` the official training pictures but for ``val``, about 5 % by a
    hash of the file name. There are no landmarks. Reading the labels takes minutes the first time,
    and longest for ``extra``; they are then kept in the cache folder.

    Args:
        root: The folder. After a ``#``: ``digits`` for one item a digit instead of one a house number, and ``extra``
            to add the pictures of ``extra/`` to ``train``, as in ``svhn:ROOT#digits,extra``.
        split: train, val, test or all.
        size: Side of the images in pixels.
        limit: Most items to keep, evenly spread.

    Returns:
        Items with ``number`` (the digits as text: of the whole house number), ``box`` and ``video``: the picture.
        With ``#digits`` there is also ``digit``, and all digits of one house number have the same ``video``, of which
        they are the frames: IMM learns from pairs of them.

    Raises:
        InputError: Parts are missing or damaged, or an option is unknown.
    """
    folder, options = folder_and_options(root, ("digits", "extra"))
    SVHN.need(folder)
    if "extra" in options:
        SVHN.need(folder, (*SVHN.layout, "extra/digitStruct.mat"))
    parts = [p for p in ("train", "test") if check_split(split) in (p, "all") or (p, split) == ("train", "val")]
    parts += ["extra"] if "extra" in options and split in ("train", "all") else []
    records = [record for part in parts for record in _records(folder, part, "digits" in options)]
    if split in ("train", "val"):
        records = [r for r in records if (r.name.startswith("train/") and is_val(r.video or "")) == (split == "val")]
    return RealDataset(SVHN.info(root), records, split, size, limit)


def check(root: str) -> list[Problem]:
    """Compare the folder with the official data; ``extra`` only where it is there."""
    folder, _ = folder_and_options(root, ("digits", "extra"))
    SVHN.need(folder)
    counts = {part: count for part, count in COUNTS.items() if (folder / part / "digitStruct.mat").is_file()}
    found = {part: len(_numbers(folder / part / "digitStruct.mat")) for part in counts}
    return compare(found, counts, SVHN.title, "pictures in the official part ")


def _records(folder: Path, part: str, digits: bool) -> list[Record]:
    rows = _numbers(folder / part / "digitStruct.mat")
    present(folder / part, [name for name, _, _ in rows], f"{part}/digitStruct.mat", SVHN.where)
    records = []
    for name, number, corners in rows:
        boxes = np.array(corners, np.float64)
        common = {"image": folder / part / name, "landmarks": np.zeros((0, 2)), "video": f"{part}/{name}"}
        if not digits:
            box = (*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0))
            records.append(_record(f"{part}/{name}", box, common, {"number": number}))
            continue
        for i, (digit, box) in enumerate(zip(number, boxes, strict=True)):
            extra = {"number": number, "digit": int(digit)}
            records.append(_record(f"{part}/{name}#{i}", tuple(box), common | {"frame": i}, extra))
    return records


def _record(name: str, box: tuple[float, ...], common: dict[str, Any], extra: dict[str, Any]) -> Record:
    corners = tuple(map(float, box))
    return Record(name=name, crop=RoundBox(*corners), box=corners, extra=extra, **common)


def _numbers(path: Path) -> list[tuple[str, str, list[list[float]]]]:
    """File name, number and digits' boxes (x0, y0, x1, y1) of each picture; remembered, for reading takes minutes."""
    from ulm.datasets.cache import cache_folder

    stat = path.stat()
    key = hashlib.sha256(repr((str(path.resolve()), stat.st_size, stat.st_mtime_ns)).encode()).hexdigest()[:24]
    memory = cache_folder() / "svhn" / f"{key}.json"
    if memory.is_file():
        try:
            return json.loads(memory.read_text())
        except (OSError, ValueError):
            memory.unlink(missing_ok=True)  # A damaged cache is made again.
    with Hdf5Matlab(path) as file:
        rows = [_row(struct, path) for struct in file.structs("digitStruct", "name", "bbox")]
    _remember(memory, json.dumps(rows))
    return rows


def _row(struct: dict[str, Any], path: Path) -> tuple[str, str, list[list[float]]]:
    name, digits = struct["name"], struct["bbox"]
    if not isinstance(digits, dict) or any(key not in digits for key in _FIELDS) or not len(digits["label"]):
        raise InputError(f"{path}: found no digits of {name}, expected {', '.join(_FIELDS)}; take the original file")
    if len({len(digits[key]) for key in _FIELDS}) > 1:
        raise InputError(f"{path}: found digits of {name} with missing values; take the original file")
    # 0 has the label 10.
    number = "".join(str(int(label) % 10) for label in digits["label"])
    left, top, width, height = (digits[key] for key in _FIELDS[:4])
    return name, number, np.stack([left, top, left + width, top + height], axis=1).tolist()


def _remember(path: Path, text: str) -> None:
    from ulm.runs import atomic_write

    try:
        atomic_write(path, text)
    except OSError:
        return  # A cache that cannot be written costs time, nothing else.
