"""The contract that every data set of the book keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ulm.errors import InputError

Sample = dict[str, Any]
SPLITS = ("train", "val", "test", "all")


@dataclass(frozen=True)
class Info:
    """What a data set says of itself.

    Attributes:
        name: The specification it was loaded by, such as ``procedural:faces``.
        landmark_names: One name a landmark; empty where there are no labels.
        flip_pairs: Index pairs (left, right) that a horizontal flip exchanges.
        skeleton: Index pairs that a drawing joins by a line.
        normaliser: How errors are normalised, a key of ``ulm.evaluation.NORMALISERS``.
        normaliser_points: The landmark indices that the normaliser uses, if any: a tuple of groups, each
            group averaged to one point (outer eye corners: ``((36,), (45,))``; pupils: ``((36..41), (42..47))``).
        licence: Short licence statement.
        citation: Whom to cite.
        subsets: Named subsets of landmarks, such as the five points of MAFL, each point a group to average.
    """

    name: str
    landmark_names: tuple[str, ...] = ()
    flip_pairs: tuple[tuple[int, int], ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()
    normaliser: str = "box"
    normaliser_points: tuple[tuple[int, ...], ...] = ()
    licence: str = ""
    citation: str = ""
    subsets: tuple[tuple[str, tuple[tuple[int, ...], ...]], ...] = ()


class Dataset:
    """Sized and indexable; an item is a dict.

    Keys of an item: ``image`` float32 ``(3, H, W)`` RGB in [0, 1]; ``landmarks`` float32 ``(L, 2)``, (x, y) in
    pixels, first pixel's centre at (0.5, 0.5), NaN where unknown; ``visible`` bool ``(L,)``; and, where known,
    ``box`` float32 ``(4,)`` as x0, y0, x1, y1, ``mask`` bool ``(H, W)``, ``yaw`` in degrees (positive: the face
    turns to the image's right), ``video``, ``frame``, ``subject``.

    Sub-classes set ``info``, ``split`` and ``size`` and define ``__len__``, ``__getitem__`` and ``fingerprint``.
    """

    info: Info
    split: str
    size: int

    def __len__(self) -> int:
        raise TypeError(f"{type(self).__name__} is abstract: it must say its length")

    def __getitem__(self, index: int) -> Sample:
        raise TypeError(f"{type(self).__name__} is abstract: it must give its items")

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that change when the contents change (SHA-256 based)."""
        raise TypeError(f"{type(self).__name__} is abstract: it must give its fingerprint")

    @property
    def lineage(self) -> str | None:
        """The same for data sets of which the shorter is the beginning of the longer; None where nothing is known."""
        return None

    def batch(self, indices: Sequence[int]) -> Sample:
        """Stack items: tensors gain a leading axis, everything else becomes a list."""
        items = [self[int(i)] for i in indices]
        return {
            key: torch.stack([item[key] for item in items])
            if isinstance(items[0][key], Tensor)
            else [item[key] for item in items]
            for key in items[0]
        }


class Subset(Dataset):
    """The items of ``dataset`` at ``indices``, in that order."""

    def __init__(self, dataset: Dataset, indices: Sequence[int]):
        self.dataset, self.indices = dataset, [int(i) for i in indices]
        self.info, self.split, self.size = dataset.info, dataset.split, dataset.size

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[self.indices[index]]

    @property
    def fingerprint(self) -> str:
        """That of the whole data set and of the choice."""
        from ulm.datasets.hashing import digest

        return digest(self.dataset.fingerprint, self.indices)


def spread(dataset: Dataset, n: int) -> Subset:
    """``n`` items of ``dataset``, evenly spread from the first to the last; all, if there are no more."""
    return Subset(dataset, np.linspace(0, len(dataset) - 1, min(n, len(dataset))).round().astype(int))


def check_index(index: int, length: int) -> int:
    """Turn a negative index into a positive one; raises IndexError, which ends a ``for`` loop."""
    if not -length <= index < length:
        raise IndexError(f"index {index} is outside a data set of {length} items")
    return index % length


def check_split(split: str) -> str:
    """Raises InputError if ``split`` is not one of train, val, test, all."""
    if split not in SPLITS:
        raise InputError(f"found split {split!r}, expected one of {', '.join(SPLITS)}")
    return split
