"""What the parts of the evaluation share: types, and arrays with missing values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

Array = NDArray[np.float64]
Points = ArrayLike | Tensor
Size = int | tuple[int, int]
Groups = Sequence[Sequence[int]]


def to_array(values: Points) -> Array:
    """A float64 numpy array of a tensor (of any device), an array or nested lists."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values, np.float64)


def known_mean(values: Array, axis: int | tuple[int, ...] | None = None, empty: float = np.nan) -> Any:
    """Mean of what is known along ``axis``; ``empty`` where nothing is, without numpy's warning."""
    known = ~np.isnan(values)
    count = known.sum(axis)
    total = np.where(known, values, 0).sum(axis)
    return np.where(count > 0, total / np.maximum(count, 1), empty)[()]
