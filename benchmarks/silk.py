"""The bootstrapping loss, forward and backward, against a direct version that holds all similarities, in one run.

Both do the same: two-way NLL, mutual nearest neighbours, detector BCE. Repeats alternate, so that other work on the
machine slows both; times are medians. Memory is what was alive of all tensors made on the way, at most.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusion_step import LiveBytes
from torch import Tensor

from ulm import runs
from ulm.methods import bootstrapping

Loss = Callable[..., dict[str, Tensor]]


def direct(
    descriptors_a: Tensor, descriptors_b: Tensor, logits_a: Tensor, logits_b: Tensor, ab: Tensor, ba: Tensor
) -> dict[str, Tensor]:
    """The loss as it is written down: one matrix of all similarities for each pair."""
    a, b = (F.normalize(maps.flatten(2), dim=1) for maps in (descriptors_a, descriptors_b))
    similar = 19.88 * a.mT @ b
    valid_a, valid_b, image = ab >= 0, ba >= 0, torch.arange(len(ab), device=ab.device)[:, None]
    own = similar.gather(2, ab.clamp_min(0).unsqueeze(2)).squeeze(2)
    rows = (similar.logsumexp(2) - own)[valid_a].mean()
    columns = (similar.logsumexp(1) - similar.gather(1, ba.clamp_min(0).unsqueeze(1)).squeeze(1))[valid_b].mean()
    with torch.no_grad():
        forth, back = similar.argmax(2), similar.argmax(1)
        nearest = (forth == ab) & (back[image, forth] == torch.arange(ab.shape[1], device=ab.device))
        labels = torch.cat([nearest[valid_a], nearest.gather(1, ba.clamp_min(0))[valid_b]])
    logits = torch.cat([logits_a.flatten(1)[valid_a], logits_b.flatten(1)[valid_b]])
    return {"loss": rows + columns + F.binary_cross_entropy_with_logits(logits, labels.float())}


def inputs(arguments: argparse.Namespace, device: torch.device) -> list[Tensor]:
    """Random descriptors and logits of two views, one turned by 20 degrees, and their correspondences."""
    random = runs.generator(device, 0)
    angle = torch.deg2rad(torch.tensor(20.0))
    affine = torch.tensor([[[angle.cos(), -angle.sin(), 0.1], [angle.sin(), angle.cos(), 0.0]]], device=device)
    matches = bootstrapping.correspondences(affine.expand(arguments.batch, -1, -1), arguments.grid)
    shapes = [(arguments.batch, channels, arguments.grid, arguments.grid) for channels in (arguments.channels, 1)]
    maps = [torch.randn(shape, generator=random, device=device) for shape in shapes for _ in range(2)]
    return [*(each.requires_grad_() for each in maps), *matches]


def step(loss: Loss, tensors: list[Tensor], half: bool) -> float:
    """Seconds of one forward and backward pass."""
    device = tensors[0].device
    start = time.perf_counter()
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        value = loss(*tensors)["loss"]
    value.backward()
    if device.type == "cuda":
        torch.cuda.synchronize()
    spent = time.perf_counter() - start
    for each in tensors[:4]:
        each.grad = None
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grid", type=int, default=64, help="cells along a side")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    device = runs.pick_device(arguments.device)
    tensors = inputs(arguments, device)
    versions: dict[str, tuple[Loss, bool]] = {
        "direct": (direct, False),
        "ulm": (bootstrapping.silk_loss, False),
        "ulm_bfloat16": (bootstrapping.silk_loss, True),
    }
    peaks = {}
    for name, (loss, half) in versions.items():
        with LiveBytes() as live:
            step(loss, tensors, half)
        peaks[name] = live.peak
    times: dict[str, list[float]] = {name: [] for name in versions}
    for _ in range(arguments.repeats):
        for name, (loss, half) in versions.items():
            times[name].append(step(loss, tensors, half))
    result: dict[str, object] = {"what": "silk", **vars(arguments)}
    for name in versions:
        result[f"{name}_seconds"] = round(statistics.median(times[name]), 4)
        result[f"{name}_peak_megabytes"] = round(peaks[name] / 1e6, 2)
    for name in ("ulm", "ulm_bfloat16"):
        result[f"{name}_speed_up"] = round(statistics.median(times["direct"]) / statistics.median(times[name]), 2)
        result[f"{name}_memory_ratio"] = round(peaks[name] / peaks["direct"], 4)
    print(json.dumps(result | {"provenance": runs.provenance(device)}, indent=1))


if __name__ == "__main__":
    main()
