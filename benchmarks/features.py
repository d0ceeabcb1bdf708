"""Features of a frozen diffusion model by how many images are in it at once, in one run.

From the image to the taps: the autoencoder's encoder and one call of the U-Net. Repeats alternate, so that other work
on the machine slows all alike; times are medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch

from ulm import runs
from ulm.diffusion import pipelines, taps


@torch.no_grad()
def look(pipeline: pipelines.Pipeline, images: torch.Tensor, together: int) -> float:
    """Seconds an image."""
    context, start = pipeline.embed(""), time.perf_counter()
    for part in images.split(together):
        taps.resnet_features(pipeline, pipeline.latents(part), 10, context, [9, 10, 11])
    if pipeline.device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / len(images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="pocket")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--together", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    device = runs.pick_device(arguments.device)
    pipeline = pipelines.load(arguments.backbone, str(device), arguments.precision)
    size = pipeline.image_size
    images = torch.rand(arguments.images, 3, size, size, generator=runs.generator(device, 0), device=device)
    for together in arguments.together:
        look(pipeline, images[:together], together)
    times: dict[int, list[float]] = {together: [] for together in arguments.together}
    for _ in range(arguments.repeats):
        for together in arguments.together:
            times[together].append(look(pipeline, images, together))
    found = {together: statistics.median(seconds) for together, seconds in times.items()}
    result: dict[str, object] = {"what": "features", **vars(arguments), "dtype": str(pipeline.dtype)}
    first = arguments.together[0]
    for together, seconds in found.items():
        result[f"milliseconds_an_image_{together}"] = round(1000 * seconds, 2)
        result[f"speed_up_{together}"] = round(found[first] / seconds, 2)
    print(json.dumps(result | {"provenance": runs.provenance(device)}, indent=1))


if __name__ == "__main__":
    main()
