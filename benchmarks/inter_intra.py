"""An Inter-Intra training step as `ulm` runs it, against a plain one: three detector passes, fp32, NCHW, in one run.

The plain step also makes the kernels ``W K`` of the projected convolutions before it convolves with them. Operations
are counted on tensors without contents, so ``--count`` is quick at any size.
"""

from __future__ import annotations

import argparse
import json

import torch
from imm_step import median_seconds
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from ulm import runs
from ulm.methods import InterIntra
from ulm.methods.imm import Pair
from ulm.methods.inter_intra import perceptual_loss, reconstruction_loss
from ulm.networks.hourglass import ProjectedConvolution
from ulm.networks.perceptual import VGG


class Plain(InterIntra):
    """The same step as it reads: the auxiliary subjects pass through the detector too."""

    def _losses(self, pair: Pair, order: Tensor | None) -> dict[str, Tensor]:
        pose, x, other = self.networks["pose"], pair.source, pair.target
        ours, auxiliary, theirs = pose(x), pose(x[order]), pose(other)
        paths = [
            (self._generate(self._generate(x, auxiliary), theirs), other),
            (self._generate(self._generate(other, auxiliary), ours), x),
        ]
        return {
            "reconstruction": sum(reconstruction_loss(*path) for path in paths),
            "perceptual": sum(perceptual_loss(self._trunk, *path) for path in paths),
        }


def configure(arguments: argparse.Namespace, plain: bool) -> InterIntra:
    """The model, without networks."""
    return (Plain if plain else InterIntra)(
        n_landmarks=arguments.landmarks,
        image_size=arguments.size,
        width=arguments.width,
        generator_width=arguments.generator_width,
        adaptation=arguments.adaptation,
        perceptual="",
        batch_size=arguments.batch,
        precision="float32" if plain else "auto",
        device=arguments.device,
    )


def furnish(model: InterIntra, arguments: argparse.Namespace, plain: bool) -> InterIntra:
    """Networks ready to step: no core and a VGG-16 of random weights, as the arithmetic is the same."""
    model.networks = model._build().train()
    model._trunk = VGG("vgg16", arguments.vgg_width, "torchvision").eval().requires_grad_(False)
    if plain:
        for layer in model.networks.modules():
            if isinstance(layer, ProjectedConvolution):
                layer.eval()  # makes W K, see its docstring
    return model


def gflop(arguments: argparse.Namespace, plain: bool) -> float:
    """Counted operations of forward and backward, in 10^9 an image; a multiplication and an addition are two."""
    counted = argparse.Namespace(**vars(arguments) | {"device": "cpu"})
    with FakeTensorMode():
        model = furnish(configure(counted, plain), counted, plain)
        x, other = torch.rand(2, arguments.batch, 3, arguments.size, arguments.size)
        order = torch.arange(arguments.batch).roll(1)
        with FlopCounterMode(display=False) as counter:
            losses = model._losses(Pair(x, other, torch.ones_like(x[:, :1])), order)
            sum(losses.values()).backward()
    return counter.get_total_flops() / arguments.batch / 1e9


def build(arguments: argparse.Namespace, plain: bool) -> InterIntra:
    """A model on its device and in its layout, with optimisers."""
    model = furnish(configure(arguments, plain), arguments, plain)
    layout = torch.contiguous_format if plain else torch.channels_last
    model._trunk.to(model.torch_device, memory_format=layout)  # type: ignore[union-attr]
    model.networks.to(model.torch_device, memory_format=layout)
    model.optimisers = {name: model._adam(model.networks[name]) for name in model.saved_parts}
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--landmarks", type=int, default=10)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--generator-width", type=int, default=32)
    parser.add_argument("--vgg-width", type=int, default=64)
    parser.add_argument("--adaptation", default="projection", choices=("projection", "scratch"))
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--count", action="store_true", help="count operations only")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    device = runs.pick_device(arguments.device)
    result: dict[str, object] = {"what": "inter-intra-step", **vars(arguments)}
    counted = {name: gflop(arguments, plain) for name, plain in (("plain", True), ("ulm", False))}
    result |= {f"{name}_gflop_per_image": round(value, 2) for name, value in counted.items()}
    result["operations_ratio"] = round(counted["ulm"] / counted["plain"], 4)
    if not arguments.count:
        images = torch.rand(arguments.batch, 3, arguments.size, arguments.size, device=device)
        seconds = {}
        for name, plain in (("plain", True), ("ulm", False)):
            batch = images if plain else images.contiguous(memory_format=torch.channels_last)
            seconds[name] = median_seconds(build(arguments, plain), batch, arguments.steps)
            result[f"{name}_seconds"] = round(seconds[name], 4)
            result[f"{name}_images_per_second"] = round(arguments.batch / seconds[name], 1)
        result["speed_up"] = round(seconds["plain"] / seconds["ulm"], 2)
    print(json.dumps(result | {"provenance": runs.provenance(device)}, indent=1))


if __name__ == "__main__":
    main()
