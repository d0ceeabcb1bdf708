"""Images on disk: the base of all data sets that read files, and folders without labels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ulm.datasets.base import Dataset, Info, Sample, check_index, check_split
from ulm.datasets.hashing import digest
from ulm.datasets.images import cut, find_images, read_image, whole
from ulm.errors import InputError

# Upper ends of the shares of train, val and test: 70, 10 and 20 %.
_SHARES = (("train", 0.7), ("val", 0.8), ("test", 1.0))


def split_of(key: str) -> str:
    """The split that a subject, a video or a file belongs to: 70 % train, 10 % val, 20 % test.

    It depends on the SHA-256 of the key alone, so adding images never moves the others.
    """
    place = int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) / 2**32
    return next(name for name, end in _SHARES if place < end)


def select(keys: Sequence[str], split: str, limit: int | None, name: str) -> list[int]:
    """Indices of the items of a split; ``limit`` keeps that many, evenly spread over the split.

    Args:
        keys: One key an item, see :func:`split_of`.
        split: train, val, test or all.
        limit: Most items to keep, or None.
        name: The data set's name, for the error.

    Raises:
        InputError: The split is unknown or empty, or the limit is below 1.
    """
    check_split(split)
    chosen = [i for i, key in enumerate(keys) if split in ("all", split_of(key))]
    if not chosen:
        raise InputError(
            f"found no items in split {split!r} of {name} ({len(keys)} items of {len(set(keys))} subjects in all); "
            "use split 'all', or add images"
        )
    if limit is None:
        return chosen
    if limit < 1:
        raise InputError(f"found limit {limit}, expected at least 1")
    return [chosen[i * len(chosen) // limit] for i in range(limit)] if limit < len(chosen) else chosen


def contents_digest(paths: Sequence[Path]) -> str:
    """SHA-256 over the contents of files, in order; remembered by path, size and time of the last change."""
    from ulm.datasets.cache import cache_folder

    stats = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in paths]
    memory = cache_folder() / "fingerprints" / hashlib.sha256(repr(stats).encode()).hexdigest()[:24]
    if memory.is_file() and len(known := memory.read_text()) == 64:
        return known
    total = hashlib.sha256()
    for path in paths:
        total.update(hashlib.sha256(path.read_bytes()).digest())
    _remember(memory, total.hexdigest())
    return total.hexdigest()


def _remember(path: Path, text: str) -> None:
    from ulm.runs import atomic_write

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, text)
    except OSError:
        return  # A cache that cannot be written (read-only home, full disk) costs time, nothing else.


class FolderDataset(Dataset):
    """Images of one folder, without labels: ``landmarks`` has the shape ``(0, 2)``.

    Each image is padded to a square by repeating its edge pixels, then resized, so that the whole picture is kept
    with its proportions. An item's ``name`` is its path inside the folder.

    Args:
        folder: The folder; sub-folders are read too.
        split: all, or train, val, test: 70, 10 and 20 % by a hash of the name.
        size: Side of the images in pixels.
        limit: Most items to keep, evenly spread.

    Raises:
        InputError: The folder is missing or holds no images.
    """

    def __init__(self, folder: str | Path, split: str = "all", size: int = 128, limit: int | None = None):
        self.folder, self.split, self.size = Path(folder), split, size
        self.info = Info(name=f"folder:{folder}", normaliser="image")
        files = find_images(self.folder)
        root = self.folder if self.folder.is_dir() else self.folder.parent
        names = [p.relative_to(root).as_posix() for p in files]
        chosen = select(names, split, limit, self.info.name)
        self.files, self.names = [files[i] for i in chosen], [names[i] for i in chosen]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        index = check_index(index, len(self))
        image = read_image(self.files[index])
        image = cut(image, whole(image.shape[1], image.shape[0]), self.size)
        return {
            "image": to_tensor(image),
            "landmarks": torch.zeros(0, 2),
            "visible": torch.zeros(0, dtype=torch.bool),
            "name": self.names[index],
        }

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits of the names and contents of the files."""
        return digest("folder", self.names, contents_digest(self.files))


def to_tensor(image: np.ndarray) -> torch.Tensor:
    """uint8 ``(H, W, 3)`` to float32 ``(3, H, W)`` in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255
