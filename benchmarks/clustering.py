"""K-means as a round of D-ULD has it at the paper's size: seconds and memory, on clusters that lie apart or overlap."""

from __future__ import annotations

import argparse
import json
import resource
import time

import numpy as np
import torch

from ulm import clustering, runs


def descriptors(count: int, length: int, clusters: int, spread: float, seed: int) -> np.ndarray:
    """``(count, length)`` float32 around as many random centres of length 1, made in parts to save memory."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((clusters, length)).astype(np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    found = np.empty((count, length), np.float32)
    for part in np.array_split(np.arange(count), 20):
        noise = random.standard_normal((len(part), length), dtype=np.float32)
        # The noise has the length `spread`, whatever the dimension.
        found[part] = centres[random.integers(clusters, size=len(part))] + spread / length**0.5 * noise
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=800_000)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--clusters", type=int, default=100)
    parser.add_argument("--spread", type=float, default=1.5, help="of a cluster; its centre has length 1")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    what = descriptors(arguments.count, arguments.length, arguments.clusters, arguments.spread, arguments.seed)
    start = time.perf_counter()
    clustering.kmeans(what, arguments.clusters, arguments.seed)
    result = {
        "what": "clustering",
        **vars(arguments),
        "seconds": round(time.perf_counter() - start, 1),
        "peak_gigabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2),
        "provenance": runs.provenance(torch.device("cpu")),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
