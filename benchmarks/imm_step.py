"""An IMM training step as `ulm` runs it, against the same step in plain fp32 and NCHW, in one run."""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from ulm import runs
from ulm.methods import IMM, Trainable
from ulm.networks import perceptual


def build(arguments: argparse.Namespace, plain: bool) -> IMM:
    """A model ready to step, with a published-width VGG-16 of random weights (the arithmetic is the same)."""
    model = IMM(
        n_landmarks=arguments.landmarks,
        image_size=arguments.size,
        loss="l2",
        precision="float32" if plain else "auto",
        device=arguments.device,
    )
    model.initialise()
    model.loss = "content"
    vgg = perceptual.VGG("vgg16", arguments.vgg_width).eval().requires_grad_(False).to(model.torch_device)
    layout = torch.contiguous_format if plain else torch.channels_last
    model.networks.to(memory_format=layout)
    model.networks["content"] = perceptual.ContentLoss(vgg.to(memory_format=layout)).to(model.torch_device)
    model.optimisers = {"model": model._adam([model.networks[name] for name in ("pose", "generator")])}
    model.networks.train()
    return model


def median_seconds(model: Trainable, images: torch.Tensor, steps: int) -> float:
    """Median of ``steps`` timed steps after two that are not."""
    times = []
    for step in range(steps + 2):
        start = time.perf_counter()
        model._train_step(images, None, step)
        if images.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--landmarks", type=int, default=30)
    parser.add_argument("--vgg-width", type=int, default=64)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    device = runs.pick_device(arguments.device)
    images = torch.rand(arguments.batch, 3, arguments.size, arguments.size, device=device)
    result: dict[str, object] = {"what": "imm-step", **vars(arguments)}
    for name, plain in (("plain", True), ("ulm", False)):
        model = build(arguments, plain)
        batch = images if plain else images.contiguous(memory_format=torch.channels_last)
        if plain:
            with FlopCounterMode(display=False) as counter:
                model._train_step(batch, None, 0)
            result["gflop_per_image"] = round(counter.get_total_flops() / arguments.batch / 1e9, 2)
            weights = sum(t.numel() * t.element_size() for t in model.networks.state_dict().values())
            result["state_megabytes"] = round(weights / 1e6, 2)
        seconds = median_seconds(model, batch, arguments.steps)
        result[f"{name}_seconds"] = round(seconds, 4)
        result[f"{name}_images_per_second"] = round(arguments.batch / seconds, 1)
    result["speed_up"] = round(result["plain_seconds"] / result["ulm_seconds"], 2)  # type: ignore[operator]
    print(json.dumps(result | {"provenance": runs.provenance(device)}, indent=1))


if __name__ == "__main__":
    main()
