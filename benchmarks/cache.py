"""Images a second read from a memory-mapped cache in random batches, as training reads them.

The file was just written, so it is in the system's memory: disks are not measured. Other work on the machine moves
these numbers by several times, so each is the median of some repeats, with the lowest beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
from torch import Tensor

from ulm import datasets, runs


class Noise(datasets.Dataset):
    """Random pictures with 68 landmarks, quickly made."""

    def __init__(self, count: int, size: int):
        self.info, self.split, self.size, self.count = datasets.Info("benchmark:noise"), "train", size, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> datasets.Sample:
        random = torch.Generator().manual_seed(index)
        return {
            "image": torch.rand(3, self.size, self.size, generator=random),
            "landmarks": torch.rand(68, 2, generator=random) * self.size,
            "visible": torch.ones(68, dtype=torch.bool),
        }

    @property
    def fingerprint(self) -> str:
        """That of nothing on disk."""
        return f"{self.count}"


def read(get: Callable[[Tensor], object], count: int, batch: int, seconds: float, seed: int) -> float:
    """Images a second of one thread that goes through permutations of the data set."""
    random, done, start = torch.Generator().manual_seed(seed), 0, time.perf_counter()
    while True:
        for indices in torch.randperm(count, generator=random).split(batch):
            get(indices)
            done += len(indices)
            if (spent := time.perf_counter() - start) >= seconds:
                return done / spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--count", type=int, default=4000, help="images in the cache")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.8, help="of each repeat")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    result: dict[str, object] = {"what": "cache", **vars(arguments)}
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(arguments.threads) as pool:
        data = datasets.cached(Noise(arguments.count, arguments.size), folder, progress=False)
        result["megabytes"] = round(data.arrays["image"].nbytes / 1e6, 1)
        for name, get in (("uint8", data.images_uint8), ("whole_batch", data.batch)):
            one = partial(read, get, arguments.count, arguments.batch, arguments.seconds)
            speeds = [sum(pool.map(one, range(arguments.threads))) for _ in range(arguments.repeats)]
            result[f"{name}_images_per_second"] = round(statistics.median(speeds), 1)
            result[f"{name}_lowest"] = round(min(speeds), 1)
    print(json.dumps(result | {"provenance": runs.provenance("cpu")}, indent=1))


if __name__ == "__main__":
    main()
