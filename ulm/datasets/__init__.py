"""Data sets behind one contract: procedural scenes, COCO folders, folders of images, and the papers' own data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ulm.datasets.base import SPLITS, Dataset, Info, Sample, Subset, spread
from ulm.datasets.cache import CachedDataset, cache_folder, cached
from ulm.datasets.real.base import Problem
from ulm.errors import InputError

__all__ = [
    "SPLITS",
    "CachedDataset",
    "Dataset",
    "Info",
    "Problem",
    "Sample",
    "Subset",
    "cache_folder",
    "cached",
    "check",
    "labelled",
    "listing",
    "load",
    "spread",
]


def load(spec: str, split: str = "train", size: int = 128, limit: int | None = None) -> Dataset:
    """Load a data set.

    Args:
        spec: ``procedural:SCENE``, ``coco:FOLDER`` (labelled images), ``folder:IMAGES`` (images without labels), or
            one of the papers' data sets in its official layout, such as ``mafl:ROOT``; :func:`listing` names them all.
        split: ``train``, ``val``, ``test`` or ``all``. Folders are split 70, 10 and 20 % by subject, the papers' data
            sets as the papers do.
        size: Side of the images in pixels.
        limit: Most items to keep; of files they are evenly spread over the split.

    Returns:
        A data set; an item is a dict with ``image``, ``landmarks``, ``visible`` and more.

    Raises:
        InputError: The specification, the folder or a file in it is wrong; the message says how to mend it.

    Example:
        >>> from ulm import datasets
        >>> faces = datasets.load("procedural:faces", split="test", size=64, limit=4)
        >>> faces[0]["image"].shape
        torch.Size([3, 64, 64])
    """
    from ulm.datasets.real import SOURCES

    kind, _, rest = str(spec).partition(":")
    if not rest or kind not in (*_LOADERS, *SOURCES):
        known = ", ".join([*(f"{k}:{what}" for k, (what, _) in _LOADERS.items()), *(s.spec for s in SOURCES.values())])
        raise InputError(f"found data set {spec!r}, expected one of {known}")
    if isinstance(size, bool) or not isinstance(size, int) or not 8 <= size <= 4096:
        raise InputError(f"found image size {size!r}, expected whole pixels from 8 to 4096")
    if limit is not None and limit < 1:
        raise InputError(f"found limit {limit}, expected at least 1")
    if kind in SOURCES:
        return SOURCES[kind].load(rest, split, size, limit)
    return _LOADERS[kind][1](rest, split, size, limit)


def labelled(spec: str, size: int, of: int | None, n: int | None, split: str = "train") -> Dataset:
    """``n`` images of a split whose labels are looked at.

    Drawn data sets begin with the first video, and a regressor that is fitted on the first ``n`` frames knows as few
    people as there are videos in them. So of videos frames are evenly spread.

    Args:
        spec: See :func:`load`.
        size: Side of the images in pixels.
        of: Images of the split that are in use otherwise; None: all.
        n: Most images; None: all.
        split: See :func:`load`.

    Returns:
        The first ``n`` images, or frames of as many of the first ``of`` images' videos as there are.
    """
    frames = load(spec, split, size, of)
    if n is None or n >= len(frames) or frames[0].get("video") is None:
        return load(spec, split, size, n)
    return spread(frames, n)


def check(spec: str) -> list[Problem]:
    """What is wrong with one of the papers' data sets, beside what keeps it from being read; nothing for others.

    Each problem has a ``kind`` (``error``: it cannot be read; ``warning``: it differs from the official data) and a
    ``text``.
    """
    from ulm.datasets.real import SOURCES

    kind, _, rest = str(spec).partition(":")
    return SOURCES[kind].check(rest) if kind in SOURCES and rest else []


def listing(root: str | Path | None = None) -> list[dict[str, Any]]:
    """List what there is to load.

    Each is a dict with ``name``, ``kind``, ``landmarks`` (None: as in the files), ``what``, ``licence``, ``access``,
    ``stand_in`` (of the papers' data sets) and ``present`` (None: it depends on the folder).

    Args:
        root: A folder of data sets: the papers' are looked for in its sub-folders of their names, such as ``mafl``;
            labelled sub-folders (those with ``keypoints.json``) are listed too.
    """
    from ulm.datasets import procedural
    from ulm.datasets.real import SOURCES

    rows: list[dict[str, Any]] = []
    for scene in procedural.SCENES:
        info = procedural.load(scene, "test", 64, 1).info
        words = {"licence": info.licence, "access": "drawn by ulm"}
        rows.append(_row(info.name, "procedural", len(info.landmark_names), "exact labels", True, **words))
    for source in SOURCES.values():
        place = None if root is None else Path(root) / source.name
        present = place is not None and source.present(place)
        name = f"{source.name}:{place}" if present else source.spec
        words = {"licence": source.licence, "access": source.access, "stand_in": source.standin}
        rows.append(_row(name, "paper", source.landmarks, source.title, present, **words))
    rows.append(_row("coco:FOLDER", "coco", None, "keypoints.json and images/", None, access="your labelled images"))
    rows.append(_row("folder:IMAGES", "folder", 0, "images without labels", None, access="your images"))
    for path in sorted(Path(root).glob("*/keypoints.json")) if root else []:
        names = load(f"coco:{path.parent}", split="all").info.landmark_names
        rows.append(_row(f"coco:{path.parent}", "coco", len(names), "labelled images", True, access="on this disk"))
    return rows


def _row(
    name: str,
    kind: str,
    landmarks: int | None,
    what: str,
    present: bool | None,
    licence: str | None = None,
    access: str | None = None,
    stand_in: str | None = None,
) -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind,
        "landmarks": landmarks,
        "what": what,
        "licence": licence,
        "access": access,
        "stand_in": stand_in,
        "present": present,
    }


def _procedural(scene: str, split: str, size: int, limit: int | None) -> Dataset:
    from ulm.datasets import procedural

    return procedural.load(scene, split, size, limit)


def _coco(folder: str, split: str, size: int, limit: int | None) -> Dataset:
    from ulm.datasets.coco import CocoDataset

    return CocoDataset(folder, split, size, limit)


def _folder(folder: str, split: str, size: int, limit: int | None) -> Dataset:
    from ulm.datasets.folder import FolderDataset

    return FolderDataset(folder, split, size, limit)


_LOADERS: dict[str, tuple[str, Callable[[str, str, int, int | None], Dataset]]] = {
    "procedural": ("SCENE", _procedural),
    "coco": ("FOLDER", _coco),
    "folder": ("IMAGES", _folder),
}
