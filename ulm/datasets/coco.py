"""Labelled images in the COCO keypoints format: reading, and writing predictions."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ulm.datasets.base import Dataset, Info, Sample, check_index
from ulm.datasets.folder import contents_digest, select, to_tensor
from ulm.datasets.hashing import digest
from ulm.datasets.images import Square, around, cut, read_image, whole
from ulm.errors import InputError

IBUG_FLIP_PAIRS: tuple[tuple[int, int], ...] = (
    *((i, 16 - i) for i in range(8)),  # jaw
    *((17 + i, 26 - i) for i in range(5)),  # brows
    *((31 + i, 35 - i) for i in range(2)),  # nostrils
    *((36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)),  # eyes
    *((48, 54), (49, 53), (50, 52), (59, 55), (58, 56)),  # outer lips
    *((60, 64), (61, 63), (67, 65)),  # inner lips
)
"""Pairs that a horizontal flip exchanges in the iBUG 68-point scheme, image's left first, counted from 0."""

_RIGHT_EYE, _LEFT_EYE = (36, 37, 38, 39, 40, 41), (42, 43, 44, 45, 46, 47)
MAFL_POINTS: tuple[tuple[int, ...], ...] = (_RIGHT_EYE, _LEFT_EYE, (30,), (48,), (54,))
"""The five points of MAFL among the 68 of iBUG: both pupils as means of six points, nose tip, mouth corners."""


def _chain(first: int, last: int, closed: bool = False) -> tuple[tuple[int, int], ...]:
    lines = tuple((i, i + 1) for i in range(first, last))
    return (*lines, (last, first)) if closed else lines


IBUG_SKELETON: tuple[tuple[int, int], ...] = (
    *_chain(0, 16),
    *_chain(17, 21),
    *_chain(22, 26),
    *_chain(27, 30),
    *_chain(31, 35),
    *_chain(36, 41, closed=True),
    *_chain(42, 47, closed=True),
    *_chain(48, 59, closed=True),
    *_chain(60, 67, closed=True),
)
"""The lines between the 68 points of iBUG."""


class CocoDataset(Dataset):
    """A folder with images and COCO keypoints.

    The folder holds ``keypoints.json``, or one other JSON file, or ``annotations/*.json``; a JSON file may be named
    instead of the folder. The images lie in ``images/``, in the folder itself or in one of its sub-folders.
    Coordinates have their origin at the corner of the first pixel, as everywhere in ``ulm``.

    An item is one annotation. A keypoint with v = 0 is missing (NaN), with v = 1 hidden (its place is known,
    ``visible`` is False), with v = 2 visible. Annotations with ``iscrowd``, and those with no labelled keypoint at all,
    are left out.
    A square image with one annotation is used whole. Of other images the item is a square: round ``bbox`` where there
    is one, with a side of 1.25 times the box's longer side, at most the image's longer side; else the whole image in
    the middle of a square. Edge pixels are repeated where the square reaches over the image.

    Splits hold 70, 10 and 20 % of the *subjects* (``subject`` of an image, else ``video``, else its file name), by a
    hash of the name: one subject is never in two splits. ``all`` is everything.

    Args:
        folder: The folder, or the JSON file.
        split: train, val, test or all.
        size: Side of the images in pixels.
        limit: Most items to keep, evenly spread.

    Raises:
        InputError: Anything missing, damaged or contradictory; the message names it.
    """

    def __init__(self, folder: str | Path, split: str = "train", size: int = 128, limit: int | None = None):
        self.folder, self.split, self.size = Path(folder), split, size
        self.json, root = _find_json(self.folder)
        content = _read_json(self.json)
        category = _category(content, self.json)
        annotations, images = _pair(content, category, self.json)
        points, self_visible = _keypoints(annotations, images, category, self.json)
        labelled = np.flatnonzero(np.isfinite(points).any(axis=(1, 2)))
        if not len(labelled):
            raise InputError(f"found no labelled keypoint in {self.json}, expected some with v = 1 or 2")
        self.info = _info(f"coco:{folder}", category, content)
        files = _find_files(root, [image["file_name"] for image in images], self.json)
        keys = [_key(images[i]) for i in labelled]
        chosen = [int(labelled[i]) for i in select(keys, split, limit, self.info.name)]
        self.points, self.visible = points[chosen], self_visible[chosen]
        self.files, self.images = [files[i] for i in chosen], [images[i] for i in chosen]
        self.boxes = [_box(annotations[i], self.json) for i in chosen]
        # A batch needs the same keys in every item.
        self._all_boxed = all(box is not None for box in self.boxes)
        counts: dict[Any, int] = {}
        for image in images:
            counts[image["id"]] = counts.get(image["id"], 0) + 1
        self._alone = [counts[image["id"]] == 1 for image in self.images]
        self._extras = [key for key in ("video", "frame", "subject") if any(key in image for image in self.images)]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        index = check_index(index, len(self))
        image = read_image(self.files[index])
        self._check_size(index, image)
        square = self._square(index, image.shape[1], image.shape[0])
        item: Sample = {
            "image": to_tensor(cut(image, square, self.size)),
            "landmarks": torch.from_numpy(square.to_square(self.points[index], self.size)).float(),
            "visible": torch.from_numpy(self.visible[index]),
            "name": self.images[index]["file_name"],
        }
        box = self.boxes[index]
        if box is not None and self._all_boxed:
            corners = square.to_square(box.reshape(2, 2), self.size)
            item["box"] = torch.from_numpy(corners.reshape(4)).float()
        return item | {key: self.images[index].get(key) for key in self._extras}

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits of the labels and of the contents of the image files."""
        labels = contents_digest([self.json])
        return digest("coco", labels, [i["file_name"] for i in self.images], contents_digest(sorted(set(self.files))))

    def _square(self, index: int, width: int, height: int) -> Square:
        box = self.boxes[index]
        if box is None or (width == height and self._alone[index]):
            return whole(width, height)
        return around(box, width, height)

    def _check_size(self, index: int, image: np.ndarray) -> None:
        described = self.images[index]
        said = (described.get("width"), described.get("height"))
        if None not in said and said != (image.shape[1], image.shape[0]):
            raise InputError(
                f"{self.files[index]}: found {image.shape[1]} x {image.shape[0]} pixels, "
                f"expected {said[0]} x {said[1]} as {self.json.name} says; "
                "the landmarks belong to another version of the image"
            )


def predictions_to_coco(
    names: Sequence[str], landmarks: Sequence[np.ndarray], file_names: Sequence[str], sizes: Sequence[tuple[int, int]]
) -> dict[str, Any]:
    """Predicted landmarks as a COCO keypoints object.

    Args:
        names: K landmark names.
        landmarks: For each image ``(K, 2)``, (x, y) in pixels of the image file; NaN is written as v = 0.
        file_names: One an image.
        sizes: (height, width) of each image in pixels.

    Returns:
        What ``json.dumps`` writes and :class:`CocoDataset` reads.
    """
    images, annotations = [], []
    for number, (points, file_name, (height, width)) in enumerate(zip(landmarks, file_names, sizes, strict=True), 1):
        points = np.asarray(points, np.float64)
        known = np.isfinite(points).all(axis=1)
        triples = [
            [round(float(x), 3), round(float(y), 3), 2] if k else [0, 0, 0]
            for (x, y), k in zip(points, known, strict=True)
        ]
        images.append({"id": number, "file_name": file_name, "width": width, "height": height})
        annotations.append(
            {
                "id": number,
                "image_id": number,
                "category_id": 1,
                "keypoints": [value for triple in triples for value in triple],
                "num_keypoints": int(known.sum()),
                "bbox": [0, 0, width, height],
                "area": width * height,
                "iscrowd": 0,
            }
        )
    category = {"id": 1, "name": "object", "keypoints": list(names), "skeleton": []}
    return {"images": images, "annotations": annotations, "categories": [category]}


def _find_json(path: Path) -> tuple[Path, Path]:
    """The JSON file, and the folder that the images are looked for in."""
    if path.is_file():
        return path, path.parent.parent if path.parent.name == "annotations" else path.parent
    if not path.is_dir():
        raise InputError(f"found no folder {path}; expected a folder with keypoints.json and images/")
    if not any(path.iterdir()):
        raise InputError(f"found an empty folder {path}; expected keypoints.json and images/ in it")
    found = [path / "keypoints.json"]
    if not found[0].is_file():
        found = sorted(path.glob("*.json")) or sorted(path.glob("annotations/*.json"))
    if not found:
        raise InputError(f"found no JSON file in {path}; expected keypoints.json in the COCO keypoints format")
    if len(found) > 1:
        names = ", ".join(p.relative_to(path).as_posix() for p in found[:5])
        raise InputError(f"found {len(found)} JSON files in {path} ({names}); name one: coco:{found[0]}")
    return found[0], path


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: found broken JSON ({error}); copy or export the file again") from None
    missing = [k for k in ("images", "annotations", "categories") if not isinstance(_get(content, k), list)]
    if missing:
        raise InputError(f"{path}: found no list {', '.join(map(repr, missing))}; expected the COCO keypoints format")
    for name, keys in (("images", ("id", "file_name")), ("annotations", ("image_id",)), ("categories", ("id",))):
        for place, entry in enumerate(content[name]):
            if lacking := [k for k in keys if _get(entry, k) is None]:
                raise InputError(f"{path}: {name}[{place}] has no {lacking[0]!r}; expected the COCO keypoints format")
    return content


def _get(entry: Any, key: str) -> Any:
    return entry.get(key) if isinstance(entry, dict) else None


def _category(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """The one category with keypoints that annotations use."""
    candidates = [c for c in content["categories"] if isinstance(c.get("keypoints"), list) and c["keypoints"]]
    if not candidates:
        raise InputError(
            f"{path}: found no category with keypoints; expected their names in categories[0]['keypoints']"
        )
    used = {a.get("category_id", candidates[0]["id"]) for a in content["annotations"]}
    chosen = [c for c in candidates if c["id"] in used]
    if not chosen:
        raise InputError(f"{path}: found no annotation of category {candidates[0].get('name', candidates[0]['id'])!r}")
    if len(chosen) > 1:
        names = ", ".join(repr(c.get("name", c["id"])) for c in chosen)
        raise InputError(
            f"{path}: found annotations of {len(chosen)} categories ({names}), expected one; split the file"
        )
    return chosen[0]


def _pair(content: dict[str, Any], category: dict[str, Any], path: Path) -> tuple[list[dict], list[dict]]:
    """The annotations of the category, and the image entry of each."""
    by_id = {image["id"]: image for image in content["images"]}
    annotations = [
        a
        for a in content["annotations"]
        if a.get("category_id", category["id"]) == category["id"] and not a.get("iscrowd")
    ]
    lost = [str(a["image_id"]) for a in annotations if a["image_id"] not in by_id]
    if lost:
        raise InputError(
            f"{path}: found {len(lost)} annotations without an entry in 'images' (image_id {_first(lost)}); "
            "add the entries, or remove the annotations"
        )
    return annotations, [by_id[a["image_id"]] for a in annotations]


def _keypoints(
    annotations: list[dict], images: list[dict], category: dict[str, Any], path: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks float64 ``(N, L, 2)`` with NaN for missing ones, and visibility bool ``(N, L)``."""
    count = len(category["keypoints"])
    rows = np.zeros((len(annotations), 3 * count))
    for place, (annotation, image) in enumerate(zip(annotations, images, strict=True)):
        values = annotation.get("keypoints", [])
        where = f"{path}: annotation {annotation.get('id', place)} of {image['file_name']}"
        if not isinstance(values, list) or len(values) != 3 * count:
            found = f"{len(values)} numbers" if isinstance(values, list) else repr(values)
            raise InputError(
                f"{where}: found {found} in 'keypoints', expected {3 * count} (x, y, v of the category's {count} "
                "landmarks); label the same landmarks everywhere, with 0, 0, 0 for a missing one"
            )
        bad = next((i for i, v in enumerate(values) if not _is_number(v)), None)
        if bad is not None:
            raise InputError(
                f"{where}: found {values[bad]!r} for landmark {category['keypoints'][bad // 3]!r}, "
                "expected a finite number; write 0, 0, 0 for a missing landmark"
            )
        rows[place] = values
    triples = rows.reshape(len(annotations), count, 3)
    flags = triples[..., 2]
    if wrong := [float(v) for v in np.unique(flags) if v not in (0, 1, 2)]:
        raise InputError(f"{path}: found visibility {wrong[0]:g}, expected 0 (missing), 1 (hidden) or 2 (visible)")
    return np.where(flags[..., None] > 0, triples[..., :2], np.nan), flags == 2


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _find_files(root: Path, names: list[str], path: Path) -> list[Path]:
    """The image file of each name."""
    subfolders = sorted(p for p in root.iterdir() if p.is_dir() and p.name not in ("images", "annotations"))
    folders = [p for p in (root / "images", root, *subfolders) if p.is_dir()]
    found = {name: next((f / name for f in folders if (f / name).is_file()), None) for name in dict.fromkeys(names)}
    lost = [name for name, file in found.items() if file is None]
    if lost:
        raise InputError(
            f"{path}: found annotations without their image: {len(lost)} of {len(found)} files are missing "
            f"({_first(lost)}); put them into {root / 'images'}, or remove the annotations"
        )
    return [found[name] for name in names]  # type: ignore[misc]


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _key(image: dict[str, Any]) -> str:
    return str(next(image[k] for k in ("subject", "video", "file_name") if image.get(k) is not None))


def _box(annotation: dict[str, Any], path: Path) -> np.ndarray | None:
    """``bbox`` (x, y, width, height) as (x0, y0, x1, y1)."""
    box = annotation.get("bbox")
    if box is None:
        return None
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)) or min(box[2:]) <= 0:
        raise InputError(
            f"{path}: annotation {annotation.get('id')}: found bbox {box!r}, expected x, y, width, height; "
            "mend it, or leave it out"
        )
    return np.array([box[0], box[1], box[0] + box[2], box[1] + box[3]], np.float64)


def _info(name: str, category: dict[str, Any], content: dict[str, Any]) -> Info:
    names = tuple(str(n) for n in category["keypoints"])
    skeleton = tuple((int(a) - 1, int(b) - 1) for a, b in category.get("skeleton") or ())
    about, licences = content.get("info"), content.get("licenses") or ()
    info = Info(
        name=name,
        landmark_names=names,
        skeleton=skeleton,
        licence=", ".join(str(_get(entry, "name")) for entry in licences if _get(entry, "name")),
        citation=str(_get(about, "description") or ""),
    )
    if is_ibug(names):
        return replace(
            info,
            flip_pairs=IBUG_FLIP_PAIRS,
            skeleton=skeleton or IBUG_SKELETON,
            normaliser="outer-eye-corners",
            normaliser_points=((36,), (45,)),
            subsets=(("mafl-5", MAFL_POINTS),),
        )
    eyes = _eyes(names)
    return replace(info, flip_pairs=_flip_pairs(names), normaliser="pupils" if eyes else "box", normaliser_points=eyes)


def is_ibug(names: Sequence[str]) -> bool:
    """Whether these are the 68 points of iBUG: named by their numbers 1 to 68, with or without a prefix."""
    numbers = [re.fullmatch(r"\D*?0*(\d+)", name) for name in names]
    return [int(m[1]) if m else 0 for m in numbers] == list(range(1, 69))


def _flip_pairs(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """(left, right) by the words in the names."""
    lower = [name.lower() for name in names]
    return tuple(
        (i, lower.index(other))
        for i, n in enumerate(lower)
        if "left" in n and (other := n.replace("left", "right")) in lower
    )


def _eyes(names: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Both eyes of a face, each the mean of its landmarks; empty for bodies, where eyes are too small a measure."""
    lower = [name.lower() for name in names]
    if any(word in n for n in lower for word in ("shoulder", "hip", "knee", "paw")):
        return ()
    sides = [
        tuple(i for i, n in enumerate(lower) if side in n and re.search(r"eye(?!.?brow)|pupil", n))
        for side in ("right", "left")
    ]
    return tuple(sides) if all(sides) else ()
