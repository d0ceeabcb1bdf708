"""Data sets behind one contract: procedural scenes, labelled COCO folders, folders of images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ulm.datasets.base import SPLITS, Dataset, Info, Sample, Subset
from ulm.datasets.cache import CachedDataset, cache_folder, cached
from ulm.errors import InputError

__all__ = [
    "SPLITS",
    "CachedDataset",
    "Dataset",
    "Info",
    "Sample",
    "Subset",
    "cache_folder",
    "cached",
    "listing",
    "load",
]


def load(spec: str, split: str = "train", size: int = 128, limit: int | None = None) -> Dataset:
    """Load a data set.

    Args:
        spec: ``procedural:SCENE``, ``coco:FOLDER`` (labelled images) or ``folder:IMAGES`` (images without labels).
        split: ``train``, ``val``, ``test`` or ``all``. Files are split 70, 10 and 20 % by subject.
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
    kind, _, rest = str(spec).partition(":")
    if kind not in _LOADERS or not rest:
        known = ", ".join(f"{name}:{what}" for name, (what, _) in _LOADERS.items())
        raise InputError(f"found data set {spec!r}, expected one of {known}")
    if isinstance(size, bool) or not isinstance(size, int) or not 8 <= size <= 4096:
        raise InputError(f"found image size {size!r}, expected whole pixels from 8 to 4096")
    if limit is not None and limit < 1:
        raise InputError(f"found limit {limit}, expected at least 1")
    return _LOADERS[kind][1](rest, split, size, limit)


def listing(root: str | Path | None = None) -> list[dict[str, Any]]:
    """List what there is to load.

    Each is a dict with ``name``, ``kind``, ``landmarks`` (None: as in the files), ``what`` and ``present`` (None: it
    depends on the folder).

    Args:
        root: A folder whose labelled sub-folders (those with ``keypoints.json``) are listed too.
    """
    from ulm.datasets import procedural

    rows: list[dict[str, Any]] = []
    for scene in procedural.SCENES:
        info = procedural.load(scene, "test", 64, 1).info
        rows.append(_row(info.name, "procedural", len(info.landmark_names), "drawn by ulm, exact labels", True))
    rows.append(_row("coco:FOLDER", "coco", None, "your labelled images: keypoints.json and images/", None))
    rows.append(_row("folder:IMAGES", "folder", 0, "your images, without labels", None))
    for path in sorted(Path(root).glob("*/keypoints.json")) if root else []:
        names = load(f"coco:{path.parent}", split="all").info.landmark_names
        rows.append(_row(f"coco:{path.parent}", "coco", len(names), "labelled images on this disk", True))
    return rows


def _row(name: str, kind: str, landmarks: int | None, what: str, present: bool | None) -> dict[str, Any]:
    return {"name": name, "kind": kind, "landmarks": landmarks, "what": what, "present": present}


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
