"""Images a second: drawing procedural faces (one process for each core) and warping batches."""

from __future__ import annotations

import argparse
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor

import torch

from ulm import datasets, geometry, runs
from ulm.datasets import procedural


def draw(scene: str, size: int, first: int, count: int) -> int:
    """Draw ``count`` images in this process."""
    torch.set_num_threads(1)
    data = datasets.load(f"procedural:{scene}", "train", size)
    for index in range(first, first + count):
        data[index]
    return count


def drawn_per_second(scene: str, size: int, count: int, workers: int) -> float:
    """All processes together, their start not counted."""
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(draw, [scene] * workers, [size] * workers, [0] * workers, [2] * workers))
        start = time.perf_counter()
        firsts = [100 + i * count for i in range(workers)]
        total = sum(pool.map(draw, [scene] * workers, [size] * workers, firsts, [count] * workers))
        return total / (time.perf_counter() - start)


def warped_per_second(size: int, batch: int, device: torch.device) -> float:
    """Thin-plate-spline warps drawn and applied, ten batches."""
    images, random = torch.rand(batch, 3, size, size, device=device), runs.generator(device, 0)
    for repeat in range(12):
        if repeat == 2:
            start = time.perf_counter()
        geometry.draw_warps(batch, geometry.RELEASE_SOURCE, random).sample(images, align_corners=True)
        if device.type == "cuda":
            torch.cuda.synchronize()
    return 10 * batch / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--count", type=int, default=30, help="images a process and scene")
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    device, workers = runs.pick_device(arguments.device), os.cpu_count() or 1
    result: dict[str, object] = {"what": "scenes", "processes": workers, **vars(arguments)}
    for scene in procedural.SCENES:
        speed = drawn_per_second(scene, arguments.size, arguments.count, workers)
        result[f"{scene}_images_per_second"] = round(speed, 1)
    result["warped_images_per_second"] = round(warped_per_second(arguments.size, arguments.batch, device), 1)
    print(json.dumps(result | {"provenance": runs.provenance(device)}, indent=1))


if __name__ == "__main__":
    main()
