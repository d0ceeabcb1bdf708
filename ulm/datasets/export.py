"""Any data set as a COCO keypoints folder: for other tools, for sharing, and to be read back with ``coco:FOLDER``."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ulm.datasets.base import Dataset, Sample
from ulm.errors import InputError

FORMATS = ("png", "jpg")
_JPEG_QUALITY = 95
_KEYS = ("subject", "video", "frame")


def export(dataset: Dataset, out: str | Path, image_format: str = "png", progress: bool = True) -> Path:
    """Write a data set as a COCO keypoints folder: ``images/`` and ``keypoints.json``.

    ``coco:OUT`` reads back the same images (PNG: to 8 bits) and landmarks (to 0.001 pixels), with v = 0 for a missing
    landmark, 1 for a hidden one and 2 for a visible one, and ``subject``, ``video`` and ``frame`` where known. What the
    format has no place for (masks, yaw, the split) is left out; read the folder with the split ``all``. An item without
    any known landmark is written, but not read back.

    The folder is written beside its place and renamed when whole.

    Args:
        dataset: Any data set with landmarks.
        out: A new or empty folder.
        image_format: png, or jpg of quality 95 without chroma subsampling.
        progress: Show a bar on standard error.

    Returns:
        The folder.

    Raises:
        InputError: The format is unknown, the data set has no landmarks, or the folder is not empty.
    """
    if image_format not in FORMATS:
        raise InputError(f"found format {image_format!r}, expected one of {', '.join(FORMATS)}")
    if not dataset.info.landmark_names:
        raise InputError(f"found no landmarks in {dataset.info.name}, expected a labelled data set")
    folder = Path(os.path.realpath(out))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: found other files, expected a new or empty folder; choose another")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        _write(dataset, temporary / "new", image_format, progress)
        if folder.exists():
            folder.rmdir()
        os.replace(temporary / "new", folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _write(dataset: Dataset, folder: Path, image_format: str, progress: bool) -> None:
    from tqdm.auto import tqdm

    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    places = tqdm(range(len(dataset)), desc="exporting", unit="image", disable=not progress, file=sys.stderr)
    for place in places:
        item = dataset[place]
        name = f"{place:06d}.{image_format}"
        (folder / "images" / name).write_bytes(_encoded(item["image"], image_format))
        height, width = item["image"].shape[1:]
        entry = {"id": place + 1, "file_name": name, "width": width, "height": height}
        images.append(entry | {key: _plain(item[key]) for key in _KEYS if item.get(key) is not None})
        annotations.append(_annotation(place + 1, item))
    if not any(annotation["num_keypoints"] for annotation in annotations):
        raise InputError(f"found no labelled landmark in {dataset.info.name}, expected some")
    content = {
        "info": _about(dataset),
        "images": images,
        "annotations": annotations,
        "categories": [_category(dataset)],
    }
    if dataset.info.licence:
        content["licenses"] = [{"id": 1, "name": dataset.info.licence}]
    (folder / "keypoints.json").write_text(json.dumps(content), encoding="utf-8")


def _about(dataset: Dataset) -> dict[str, Any]:
    # Of a folder its last name alone: an exported folder may be passed on.
    kind, _, rest = dataset.info.name.partition(":")
    source = f"{kind}:{Path(rest).name}" if rest else kind
    return {
        "description": dataset.info.citation or source,
        "source": source,
        "split": dataset.split,
        "fingerprint": dataset.fingerprint,
    }


def _category(dataset: Dataset) -> dict[str, Any]:
    return {
        "id": 1,
        "name": "object",
        "keypoints": list(dataset.info.landmark_names),
        "skeleton": [[a + 1, b + 1] for a, b in dataset.info.skeleton],
    }


def _annotation(number: int, item: Sample) -> dict[str, Any]:
    points, visible = item["landmarks"].double().numpy(), item["visible"].numpy()
    known = np.isfinite(points).all(axis=1)
    triples = [
        [round(float(x), 3), round(float(y), 3), 2 if v else 1] if k else [0, 0, 0]
        for (x, y), k, v in zip(points, known, visible, strict=True)
    ]
    x0, y0, x1, y1 = _box(item)
    return {
        "id": number,
        "image_id": number,
        "category_id": 1,
        "keypoints": [value for triple in triples for value in triple],
        "num_keypoints": int(known.sum()),
        "bbox": [x0, y0, round(x1 - x0, 3), round(y1 - y0, 3)],
        "area": round((x1 - x0) * (y1 - y0), 3),
        "iscrowd": 0,
    }


def _box(item: Sample) -> list[float]:
    """x0, y0, x1, y1 of the object; the whole image where it is not known."""
    height, width = item["image"].shape[1:]
    box = item.get("box")
    if box is None or not bool(box.isfinite().all()) or not bool((box[2:] > box[:2]).all()):
        return [0, 0, width, height]
    return [round(float(v), 3) for v in box]


def _encoded(image: Tensor, image_format: str) -> bytes:
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    file = io.BytesIO()
    if image_format == "png":
        Image.fromarray(pixels).save(file, "PNG")
    else:
        Image.fromarray(pixels).save(file, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return file.getvalue()


def _plain(value: Any) -> Any:
    """A number or string that JSON knows."""
    return value.item() if isinstance(value, np.generic | Tensor) else value
