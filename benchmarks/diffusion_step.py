"""One StableKeypoints step through a diffusion pipeline: counted operations, memory of the maps, and time.

Without ``--time`` nothing is computed: operations are counted on the meta device, which has shapes and no weights.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from ulm import runs
from ulm.diffusion import Pipeline, attention_maps, build, pipelines, taps


class LiveBytes(TorchDispatchMode):
    """Bytes of all tensors made inside the ``with``: those alive now, and the most that ever were."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.peak = 0, 0
        self._seen: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return

        def free(_: weakref.ref) -> None:
            self.now -= size
            self._seen.pop(key, None)

        self._seen[key] = weakref.ref(storage, free)
        self.now += size
        self.peak = max(self.peak, self.now)


def step(pipeline: Pipeline, tokens: Tensor, latents: Tensor, arguments: argparse.Namespace) -> None:
    """Forward and backward of the losses on the K chosen tokens of an image and its warped view, latents at hand."""
    maps = attention_maps(pipeline, latents, 0, tokens, size=arguments.maps, chunk=arguments.chunk)
    chosen = maps[:, : arguments.landmarks]
    loss = 100 * (chosen[0] - chosen[0].detach()).square().mean() + 1000 * (chosen[0] - chosen[1]).square().mean()
    loss.backward()


def inputs(pipeline: Pipeline, arguments: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Tokens that want a gradient, and the noisy latents of two views."""
    place = {"device": pipeline.device}
    size = pipeline.latent_size
    return (
        torch.randn(arguments.tokens, pipeline.token_dim, requires_grad=True, **place),
        torch.randn(2, 4, size, size, **place),
    )


def count(pipeline: Pipeline, arguments: argparse.Namespace) -> dict[str, float]:
    """Counted operations, in 10^12, where one multiplication and addition are two."""
    tokens, latents = inputs(pipeline, arguments)
    with FlopCounterMode(display=False) as unet:
        step(pipeline, tokens, latents, arguments)
    with FlopCounterMode(display=False) as full, torch.no_grad():
        pipeline.unet(latents[:1], 0, encoder_hidden_states=tokens.detach()[None])
    with FlopCounterMode(display=False) as vae:
        pipeline.latents(torch.rand(1, 3, pipeline.image_size, pipeline.image_size, device="meta"))
    encode, trunk = vae.get_total_flops() / 1e12, unet.get_total_flops() / 1e12
    return {
        "tflop_encoding_one_view": round(encode, 3),
        "tflop_unet_forward_of_one_view_without_early_exit": round(full.get_total_flops() / 1e12, 3),
        "tflop_unet_and_maps_both_views": round(trunk, 3),
        "tflop_step": round(trunk + 2 * encode, 3),
        "tflop_step_with_cached_latent": round(trunk + encode, 3),
    }


def maps_memory(pipeline: Pipeline, arguments: argparse.Namespace) -> float:
    """Most bytes alive, in 10^9, while the maps of one view are made and gone back through, beside the U-Net's own."""
    tokens, latents = inputs(pipeline, arguments)
    with taps.attention_taps(pipeline.unet) as caught, torch.no_grad():
        pipeline.unet(latents[:1], 0, encoder_hidden_states=tokens.detach()[None])
    pairs = [
        (caught.queries[layer].requires_grad_(), caught.keys[layer].requires_grad_()) for layer in sorted(caught.keys)
    ]
    with LiveBytes() as live:
        maps = taps.maps(pairs, latents.shape[-2:], arguments.maps, arguments.chunk)
        maps.square().mean().backward()
    return live.peak / 1e9


def median_seconds(pipeline: Pipeline, arguments: argparse.Namespace) -> float:
    """Median over timed steps after one that is not."""
    tokens, latents = inputs(pipeline, arguments)
    times = []
    for _ in range(arguments.steps + 1):
        start = time.perf_counter()
        step(pipeline, tokens, latents, arguments)
        if latents.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def measure(arguments: argparse.Namespace, device: torch.device) -> dict[str, object]:
    """Seconds and memory of the U-Net's part of a step, with random weights."""
    kind = pipelines.pick_dtype(arguments.dtype, device)
    sizes = pipelines.CONFIGS[arguments.config]
    # The autoencoder and the text encoder take no part: the smallest there are stand in.
    text = {"width": sizes["text"]["width"], "layers": 1, "heads": 1, "length": 12}
    pipeline = build(sizes | {"vae": pipelines.CONFIGS["tiny"]["vae"], "text": text}).to(device, kind)
    seconds = median_seconds(pipeline, arguments)
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 1e9
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {"dtype": str(kind), "seconds": round(seconds, 3), "peak_gigabytes": round(peak, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="sd15", choices=sorted(pipelines.CONFIGS))
    parser.add_argument("--tokens", type=int, default=500)
    parser.add_argument("--landmarks", type=int, default=10)
    parser.add_argument("--maps", type=int, default=128)
    parser.add_argument("--chunk", type=int, default=2048)
    parser.add_argument("--time", action="store_true", help="also run and time the step (gigabytes at sd15)")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    arguments = parser.parse_args()
    shapes = build(arguments.config, device="meta")
    result: dict[str, object] = {"what": "diffusion-step", **vars(arguments), **count(shapes, arguments)}
    result["gigabytes_of_maps_one_view"] = round(maps_memory(shapes, arguments), 3)
    device = runs.pick_device(arguments.device)
    if arguments.time:
        result |= measure(arguments, device)
    print(json.dumps(result | {"provenance": runs.provenance(device)}, indent=1))


if __name__ == "__main__":
    main()
