"""Landmarks found so far, kept while a long pass over many images runs, so that a kill loses a minute and not hours.

A diffusion model that looks at thousands of images, ten views each, takes hours. What it has found is written to the
cache folder once a minute and removed at the end; a pass that ends within a minute writes nothing.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from ulm.datasets.cache import cache_folder
from ulm.datasets.hashing import digest
from ulm.evaluation.arrays import Array, Points, to_array
from ulm.methods.training import Trainable
from ulm.runs import atomic_write

SECONDS = 60.0
_VERSION = 1


class Kept:
    """What one detector finds, part by part; a later pass of the same detector over the same images goes on from it.

    Args:
        detector: Whose findings. What has no weights with a checksum is not kept.
        looked_at: What names the images and their order, such as fingerprint and indices.
    """

    def __init__(self, detector: Any, *looked_at: Any):
        self.found: list[Array] = []
        self.path, self.saved = None, time.monotonic()
        if isinstance(detector, Trainable):
            identity = digest(_VERSION, detector.name, detector._identity(), detector.checksum(), *looked_at)
            self.path = cache_folder() / "found" / f"{identity}.safetensors"
            self.found = self._read()

    def __call__(self, part: int, look: Callable[[], Points]) -> Array:
        """What was found in a part, 0, 1, ... in this order; ``look`` is only called where it is not known yet."""
        if part == len(self.found):
            self.found.append(to_array(look()))
            if self.path is not None and time.monotonic() - self.saved >= SECONDS:
                self._write(self.path)
        return self.found[part]

    def _write(self, path: Path) -> None:
        try:
            atomic_write(path, save({f"{n:06d}": values for n, values in enumerate(self.found)}))
        except OSError as error:
            # A full disk is no reason to lose what is in memory.
            warnings.warn(
                f"cannot keep what is found so far ({error}); a kill will lose it", RuntimeWarning, stacklevel=4
            )
            self.path = None
        self.saved = time.monotonic()

    def finish(self) -> Array:
        """All of it in one array; nothing has to be kept any longer."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        return np.concatenate(self.found)

    def _read(self) -> list[Array]:
        assert self.path is not None
        try:
            known = load_file(self.path) if self.path.is_file() else {}
        except SafetensorError:
            # It can be found again.
            return []
        return [known[name] for name in sorted(known)]
