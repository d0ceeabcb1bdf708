"""One bootstrapping step of D-ULD on a diffusion pipeline: counted operations, and bytes that are alive at once.

Pipeline, aggregation and heads are counted on the meta device, which has shapes and no weights. The loss decides by
values which cells match, so it runs on random descriptors, on the processor. A step looks at a batch of images and at a
warped copy of each; whatever learns is counted in float32, the most that it can take.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

import torch
from diffusion_step import LiveBytes
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ulm import runs
from ulm.diffusion import Pipeline, build, pipelines, taps
from ulm.methods import bootstrapping
from ulm.methods.features import INVERSION_TIMESTEPS, ONE_STEP_TIMESTEPS
from ulm.networks.aggregation import Aggregator, tap_channels
from ulm.networks.heads import DescriptorHead, DetectorHead

# Calls of the U-Net in DDIM inversion with 50 steps, up to the last timestep that is kept.
WALKS = {"one-step": (len(ONE_STEP_TIMESTEPS), 1), "inversion": (len(INVERSION_TIMESTEPS), 50)}


def counted(part: Callable[[], object], name: str) -> dict[str, float]:
    """Operations in 10^12, a multiplication and an addition being two, and the most bytes alive in 10^9.

    One after the other: counting operations keeps what checkpointing would have freed.
    """
    with FlopCounterMode(display=False) as operations:
        part()
    with LiveBytes() as live:
        part()
    return {
        f"tflop_{name}": round(operations.get_total_flops() / 1e12, 3),
        f"gigabytes_{name}": round(live.peak / 1e9, 3),
    }


def weights(pipeline: Pipeline) -> float:
    """Bytes of the U-Net and the autoencoder, in 10^9."""
    parts = (pipeline.unet, pipeline.vae)
    return sum(p.numel() * p.element_size() for part in parts for p in part.parameters()) / 1e9


def count(pipeline: Pipeline, arguments: argparse.Namespace) -> dict[str, float]:
    """Operations and bytes of the parts of a step."""
    few, seen, side = arguments.micro_batch, 2 * arguments.batch, pipeline.latent_size
    timesteps, calls = WALKS[arguments.walk]
    channels, context = tap_channels(pipeline.unet), pipeline.embed("")
    with torch.device("meta"):
        aggregator = Aggregator(channels, timesteps, arguments.projection_dim, side, resize="after")
        heads = DetectorHead(arguments.projection_dim), DescriptorHead(arguments.projection_dim)

    @torch.no_grad()
    def encoding() -> Tensor:
        return pipeline.latents(torch.rand(few, 3, pipeline.image_size, pipeline.image_size, device="meta"))

    @torch.no_grad()
    def tapping() -> list[Tensor]:
        latents = torch.randn(few, 4, side, side, dtype=pipeline.dtype, device="meta")
        return taps.resnet_features(pipeline, latents, 0, context)

    shapes = [tap.shape[1:] for tap in tapping()]

    def learning() -> None:
        features = [[torch.empty(seen, *shape, device="meta") for shape in shapes] for _ in range(timesteps)]
        both = aggregator(features)
        sum(head(both).sum() for head in heads).backward()

    result = {
        "gigabytes_weights": round(weights(pipeline), 3),
        **counted(encoding, "encoding_micro_batch"),
        **counted(tapping, "taps_micro_batch_one_call"),
        **counted(learning, "aggregation_and_heads"),
        **counted(lambda: loss(arguments, side), "loss"),
    }
    passes = seen / few * (calls * result["tflop_taps_micro_batch_one_call"] + result["tflop_encoding_micro_batch"])
    learned = result["tflop_aggregation_and_heads"] + result["tflop_loss"]
    # What is frozen has left when the gradients are made; the taps are counted with the aggregation.
    largest = max(result["gigabytes_taps_micro_batch_one_call"], result["gigabytes_encoding_micro_batch"])
    most = max(largest, result["gigabytes_aggregation_and_heads"] + result["gigabytes_loss"])
    return result | {
        "tflop_step": round(passes + learned, 2),
        "tflop_step_with_cached_features": round(passes / 2 + learned, 2),
        "gigabytes_step": round(most + result["gigabytes_weights"], 2),
        "megabytes_of_features_kept_an_image": round(timesteps * sum(s.numel() for s in shapes) * 2 / 1e6, 1),
    }


def loss(arguments: argparse.Namespace, side: int) -> None:
    """SiLK's loss and its gradients on random maps of a batch and its copies, turned by 20 degrees."""
    random = runs.generator(torch.device("cpu"), 0)
    turn = torch.tensor([[[0.94, -0.342, 0.1], [0.342, 0.94, 0.0]]]).expand(arguments.batch, -1, -1)
    matches = bootstrapping.correspondences(turn, side)
    maps: list[Tensor] = [
        torch.randn(arguments.batch, channels, side, side, generator=random).requires_grad_()
        for channels in (256, 256, 1, 1)
    ]
    bootstrapping.silk_loss(*maps, *matches)["loss"].backward()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="sd15", choices=sorted(pipelines.CONFIGS))
    parser.add_argument("--walk", default="one-step", choices=sorted(WALKS))
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--micro-batch", type=int, default=4)
    parser.add_argument("--projection-dim", type=int, default=384)
    parser.add_argument("--dtype", default="float16", help="of the pipeline")
    arguments = parser.parse_args()
    pipeline = build(arguments.config, device="meta")
    kind = pipelines.pick_dtype(arguments.dtype, torch.device("cpu"))
    pipeline = pipeline.to("meta", kind)
    found = {"what": "duld-step", **vars(arguments), **count(pipeline, arguments)}
    print(json.dumps(found | {"provenance": runs.provenance(torch.device("cpu"))}, indent=1))


if __name__ == "__main__":
    main()
