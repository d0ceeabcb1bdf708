"""The networks of IMM (section 4.1): encoders, image generator, and the discriminator of its ablation."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ulm import geometry
from ulm.errors import InputError

MAP_SIZE = 16


def initialise(module: nn.Module, form: str = "normal") -> None:
    """Weights of convolutions and linear layers; zero biases.

    Args:
        module: Changed in place.
        form: ``normal``, deviation 0.01 cut at two deviations (the authors' code); or ``kaiming``, deviation
            ``sqrt(2 / fan-in)``. Under batch normalisation the scale of the weights does not change the function, but
            Adam's steps have a fixed size: on weights of 0.01 they are some ten times as large in proportion.
    """
    blocks = [block for block in module.modules() if isinstance(block, nn.Sequential) and len(block) == 3]
    normalised = {block[0] for block in blocks if isinstance(block[1], nn.BatchNorm2d)}
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            if form == "kaiming":
                # What has no normalisation behind it (the output, the heads) starts near zero either way.
                fan_in = layer.weight[0].numel()
                nn.init.normal_(layer.weight, std=(2 / fan_in) ** 0.5 * (1.0 if layer in normalised else 0.1))
            else:
                nn.init.trunc_normal_(layer.weight, std=0.01, a=-0.02, b=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation with TensorFlow's defaults (momentum 0.99, eps 1e-3), rectifier."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2),
        nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01),
        nn.ReLU(inplace=True),
    )


def n_blocks(image_size: int) -> int:
    """Blocks for images of ``2^n`` pixels: n - 3, so that the output is always 16 x 16.

    Raises:
        InputError: If ``image_size`` is not a power of two from 16 to 1024.
    """
    n = math.log2(image_size) if image_size > 0 else 0.0
    if not n.is_integer() or not 4 <= n <= 10:
        raise InputError(f"found image_size {image_size}, expected a power of two from 16 to 1024 (IMM, section 4.1)")
    return int(n) - 3


class Encoder(nn.Sequential):
    """Blocks of two convolutions; channels double and resolution halves from block to block.

    ``(B, 3, S, S)`` in [0, 255] to ``(B, width 2^(blocks - 1), 16, 16)``.
    """

    def __init__(self, image_size: int = 128, width: int = 32):
        layers = [convolution(3, width, kernel=7), convolution(width, width)]
        for _ in range(n_blocks(image_size) - 1):
            layers += [convolution(width, 2 * width, stride=2), convolution(2 * width, 2 * width)]
            width *= 2
        super().__init__(*layers)
        self.channels = width


class PoseEncoder(nn.Module):
    """The detector: encoder, 1x1 convolution to K heatmaps, soft-argmax.

    Args:
        n_landmarks: K.
        image_size: Side of the images.
        width: Channels of the first block (32 in the paper).
        softmax: ``mean``, ``sum`` or ``joint``, see :func:`ulm.geometry.axis_marginals`.
        gain: Factor on the heatmaps before the softmax; 1 in paper and code. With logits that start near zero, a
            larger one makes the softmax peaked after far fewer steps.
    """

    def __init__(
        self, n_landmarks: int, image_size: int = 128, width: int = 32, softmax: str = "mean", gain: float = 1.0
    ):
        super().__init__()
        self.trunk = Encoder(image_size, width)
        self.head = nn.Conv2d(self.trunk.channels, n_landmarks, 1)
        self.softmax, self.gain = softmax, gain

    def heatmaps(self, images: Tensor) -> Tensor:
        """Score maps ``S_u(x; k)``, ``(B, K, 16, 16)``, of images in [0, 1]."""
        features = self.trunk(images * 255)
        # The softmax feels the rounding of bfloat16 logits: the head computes in float32.
        with torch.autocast(features.device.type, enabled=False):
            return self.head(features.float()) * self.gain

    def forward(self, images: Tensor) -> Tensor:
        """Landmarks ``(B, K, 2)`` of images ``(B, 3, S, S)`` in [0, 1].

        (x, y), -1 and 1 at the outer cells' centres.
        """
        return geometry.soft_argmax(self.heatmaps(images), self.softmax, align_corners=True)


class VectorEncoder(nn.Module):
    """The bottleneck of Table 2, left: a code of ``d`` numbers without geometry, returned as ``(B, d / 2, 2)``."""

    def __init__(self, d: int, image_size: int = 128, width: int = 32):
        super().__init__()
        self.trunk = Encoder(image_size, width)
        self.head = nn.Linear(self.trunk.channels * MAP_SIZE**2, d)

    def forward(self, images: Tensor) -> Tensor:
        """The code of images in [0, 1], unbounded numbers."""
        return self.head(self.trunk(images * 255).flatten(1)).float().unflatten(1, (-1, 2))


class VectorDecoder(nn.Module):
    """The code spread out again as ``channels`` maps of 16 x 16, as in a conventional auto-encoder."""

    def __init__(self, d: int, channels: int):
        super().__init__()
        self.linear = nn.Linear(d, channels * MAP_SIZE**2)
        self.channels = channels

    def forward(self, code: Tensor) -> Tensor:
        """``(B, d / 2, 2)`` to ``(B, channels, 16, 16)``."""
        return self.linear(code.flatten(1)).unflatten(1, (self.channels, MAP_SIZE, MAP_SIZE))


class Generator(nn.Module):
    """Image generator Psi: features of the source and maps of the target's landmarks to the target image.

    Two convolutions a block, bilinear upsampling between blocks, channels halved down to ``width``; the second
    convolution of the last block is the linear output (the authors' code).
    """

    def __init__(self, n_maps: int, image_size: int = 128, width: int = 32):
        super().__init__()
        self.encoder = Encoder(image_size, width)
        channels, inputs = self.encoder.channels, self.encoder.channels + n_maps
        blocks: list[nn.Module] = []
        for _ in range(n_blocks(image_size) - 1):
            blocks.append(nn.Sequential(convolution(inputs, channels), convolution(channels, channels)))
            inputs, channels = channels, max(channels // 2, width)
        blocks.append(nn.Sequential(convolution(inputs, channels), nn.Conv2d(channels, 3, 3, padding=1)))
        self.blocks = nn.ModuleList(blocks)

    def forward(self, source: Tensor, maps: Tensor) -> Tensor:
        """Reconstruct the target.

        Args:
            source: ``(B, 3, S, S)`` in [0, 1].
            maps: ``(B, n_maps, 16, 16)``.

        Returns:
            ``(B, 3, S, S)`` float32; not clipped, [0, 1] where it is an image.
        """
        features = self.encoder(source * 255)
        x = torch.cat([features, maps.to(features.dtype)], dim=1)
        for i, block in enumerate(self.blocks):
            if i:
                x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = block(x)
        # A linear layer that starts near zero gives a grey image at first.
        return x.float() + 0.5


class Discriminator(nn.Sequential):
    """Patch discriminator of the adversarial rows of Table 2: source and target to a map of scores (pix2pix)."""

    def __init__(self, width: int = 32):
        super().__init__(
            nn.Conv2d(6, width, 4, 2, 1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(width, 2 * width, 4, 2, 1),
            nn.BatchNorm2d(2 * width),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(2 * width, 4 * width, 4, 2, 1),
            nn.BatchNorm2d(4 * width),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(4 * width, 1, 3, 1, 1),
        )
