"""Feature aggregation: many maps of a U-Net's decoder to one (D-ULD, section 3.1, equation 2).

The paper takes the network of Diffusion Hyperfeatures (Luo et al., NeurIPS 2023): a bottleneck for each layer, shared
over timesteps, and a softmax over all layers and timesteps that mixes what the bottlenecks return. What its text
leaves open is as in that work's public code. Both work on any U-Net of Stable Diffusion's layout; features come from
:func:`ulm.diffusion.taps.resnet_features`, one list of taps for each timestep.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ulm.errors import InputError

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

ORDERS = ("before", "after")
_CONVERT = (
    "import torch; from safetensors.torch import save_file; "
    "weights = torch.load({source!r}, map_location='cpu', weights_only=True)['aggregation_network']; "
    "save_file(weights, {target!r})"
)


def tap_channels(unet: UNet2DConditionModel, layers: Sequence[int] | None = None) -> list[int]:
    """Channels of the taps that :func:`ulm.diffusion.taps.resnet_features` returns.

    Args:
        unet: Any U-Net of Stable Diffusion's layout.
        layers: Indices of decoder resnets in the order in which they run; None: all, twelve in Stable Diffusion 1.5.

    Returns:
        One number a layer; 1280 six times, 640 and 320 three times each in Stable Diffusion 1.5.

    Raises:
        InputError: For an index that does not exist.
    """
    channels = [resnet.conv2.out_channels for block in unet.up_blocks for resnet in block.resnets]
    if layers is None:
        return channels
    if any(layer not in range(len(channels)) for layer in layers):
        raise InputError(f"found layers {list(layers)}, expected numbers from 0 to {len(channels) - 1}")
    return [channels[layer] for layer in layers]


def tap_shapes(unet: UNet2DConditionModel, layers: Sequence[int], latent_size: int) -> list[tuple[int, int, int]]:
    """Channels, height and width of one image's taps, see :func:`tap_channels`.

    Args:
        unet: Any U-Net of Stable Diffusion's layout: each block of its decoder but the last doubles the grid.
        layers: Indices of decoder resnets.
        latent_size: Cells along a side of the latents.

    Raises:
        InputError: For an index that does not exist.
    """
    last = len(unet.up_blocks) - 1
    strides = [2 ** (last - number) for number, block in enumerate(unet.up_blocks) for _ in block.resnets]
    sides = [-(-latent_size // strides[layer]) for layer in layers]
    return [(channels, side, side) for channels, side in zip(tap_channels(unet, layers), sides, strict=True)]


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with as many groups as divide ``channels``: at most 32, none of fewer than three channels.

    At the published widths, 96 and 384, that is 32 groups. Where a network is narrow, groups of one channel would
    normalise each map by itself, and how strong a feature is in an image would be lost.
    """
    most = max(1, min(32, channels // 3))
    return nn.GroupNorm(max(n for n in range(1, most + 1) if channels % n == 0), channels)


def concatenated(features: Sequence[Sequence[Tensor]], size: int) -> Tensor:
    """Aggregation without anything learnt: taps of unit length, resized and put one behind another.

    Each tap is divided by its L2 norm over channels at each place, so that every layer and timestep has the same say;
    then bilinear interpolation (``align_corners=False``). For ZeroShot where no labels at all may be used: the
    weights that Diffusion Hyperfeatures publishes learnt from annotated keypoints.

    Args:
        features: For each timestep the taps, ``(B, C, h, w)`` each, in any floating type.
        size: Edge S of the result in cells.

    Returns:
        ``(B, sum of all C, S, S)`` float32, timestep-major. For all taps of Stable Diffusion 1.5 at 64 x 64 that is
        173 MB an image and timestep.

    Raises:
        InputError: If there is no tap, or no cell.
    """
    taps = [tap for of_timestep in features for tap in of_timestep]
    if not taps or size < 1:
        raise InputError(f"found {len(taps)} taps and size={size}, expected at least one of each")
    return torch.cat([_resized(F.normalize(tap.float(), dim=1), size) for tap in taps], dim=1)


class Bottleneck(nn.Module):
    """A residual bottleneck (He et al., CVPR 2016), normalised in groups, no biases: B_l of equation 2.

    1x1 to ``dim / 4``, 3x3, 1x1 to ``dim``, each with its normalisation and a rectifier between; beside them a 1x1
    to ``dim`` with its own normalisation; the sum, rectified.

    Args:
        channels: C of the tap.
        dim: D of the result.
    """

    def __init__(self, channels: int, dim: int):
        super().__init__()
        inner = dim // 4
        self.shortcut = _convolution(channels, dim, 1)
        self.conv1 = _convolution(channels, inner, 1)
        self.conv2 = _convolution(inner, inner, 3)
        self.conv3 = _convolution(inner, dim, 1)

    def forward(self, tap: Tensor, size: int, late: bool) -> Tensor:
        """``(B, C, h, w)`` to ``(B, D, size, size)``, resized before or after the 1x1 convolutions (``late``)."""
        tap = tap if late else _resized(tap, size)
        shortcut, x = (norm(_resized(conv(tap), size)) for conv, norm in (self.shortcut, self.conv1))
        x = self.conv3(F.relu(self.conv2(F.relu(x))))
        return F.relu(x + shortcut)


class Aggregator(nn.Module):
    """The aggregation network, ``sum_t sum_l w_lt B_l(r_lt)`` (D-ULD, equation 2; Diffusion Hyperfeatures).

    At Stable Diffusion 1.5's channels and the published sizes 6.53 million parameters and, for each timestep of an
    image, 26.7 billion multiplications; 9.3 with ``resize="after"``.

    Args:
        channels: C of each layer's tap, see :func:`tap_channels`.
        n_timesteps: T.
        projection_dim: D, a multiple of four; 384 as published.
        size: Edge S of the result in cells; 64 as published. D-ULD's text has the image's own resolution, which for
            Stable Diffusion's taps would be 5.5 GB a timestep.
        resize: When taps are brought to S x S, bilinearly (``align_corners=False``): ``before`` the 1x1 convolutions,
            the published order, or ``after`` them where the tap is smaller. A 1x1 convolution without bias acts on
            channels, interpolation on places, so both orders give the same result up to rounding; ``after`` needs
            fewer operations, and keeps fewer numbers for the backward pass. Normalisation and rectifier come later
            either way.

    Attributes:
        mixing_weights: ``(T * L,)``, timestep-major, ones at first; what the mixture's softmax takes.

    Raises:
        InputError: For a bad value.
    """

    def __init__(
        self,
        channels: Sequence[int],
        n_timesteps: int = 1,
        projection_dim: int = 384,
        size: int = 64,
        resize: str = "before",
    ):
        super().__init__()
        numbers = {"n_timesteps": n_timesteps, "projection_dim": projection_dim, "size": size}
        if not channels or min(channels) < 1 or min(numbers.values()) < 1 or projection_dim % 4:
            found = ", ".join(f"{name}={value}" for name, value in numbers.items())
            raise InputError(
                f"found channels={list(channels)}, {found}, expected at least one layer, numbers of at least 1 and "
                "projection_dim a multiple of 4"
            )
        if resize not in ORDERS:
            raise InputError(f"found resize={resize!r}, expected one of {', '.join(ORDERS)}")
        self.channels, self.n_timesteps, self.size, self.resize = list(channels), n_timesteps, size, resize
        self.bottlenecks = nn.ModuleList([Bottleneck(c, projection_dim) for c in channels])
        self.mixing_weights = nn.Parameter(torch.ones(n_timesteps * len(channels)))

    @property
    def mixture(self) -> Tensor:
        """The w_lt of equation 2, ``(T, L)``, positive; all of them together sum to 1."""
        return self.mixing_weights.softmax(0).view(self.n_timesteps, -1)

    def forward(self, features: Sequence[Sequence[Tensor]]) -> Tensor:
        """Aggregate the taps of a batch.

        Args:
            features: For each of T timesteps the L taps, ``(B, C_l, h_l, w_l)`` each, in any floating type: they are
                converted to that of the weights. For published weights timesteps go from the clean image to noise, the
                order in which inversion passes them. Features made under ``torch.inference_mode`` cannot be trained
                on; ``no_grad`` does no harm.

        Returns:
            ``(B, D, S, S)``, of the weights' type, float32 (under autocast too), not negative and not normalised.

        Raises:
            InputError: For another number of timesteps, of layers or of channels.
        """
        self._check(features)
        total = self.mixing_weights.new_zeros(())
        for weights, taps in zip(self.mixture, features, strict=True):
            if self.n_timesteps > 1 and torch.is_grad_enabled():
                # Made again in the backward pass: eleven timesteps of twelve images would be some 80 GB.
                total = checkpoint(self._add, total, weights, *taps, use_reentrant=False, preserve_rng_state=False)
            else:
                total = self._add(total, weights, *taps)
        return total

    def _add(self, total: Tensor, weights: Tensor, *taps: Tensor) -> Tensor:
        """``total + sum_l w_l B_l(r_l)`` of one timestep."""
        kind, late = self.mixing_weights.dtype, self.resize == "after"
        for weight, bottleneck, tap in zip(weights, self.bottlenecks, taps, strict=True):
            # Under autocast a bottleneck may return half precision: the sum does not.
            total = total + weight * bottleneck(tap.to(kind), self.size, late).to(kind)
        return total

    def _check(self, features: Sequence[Sequence[Tensor]]) -> None:
        found = [[tap.shape[1] for tap in taps] for taps in features]
        if found != [self.channels] * self.n_timesteps:
            raise InputError(
                f"found taps of {len(found)} timesteps with channels {found[:1]} ..., expected {self.n_timesteps} with "
                f"{self.channels} each"
            )

    def load_published(self, path: Path | str) -> Self:
        """Read weights in the layout in which Diffusion Hyperfeatures publishes them.

        These are what their file holds under ``aggregation_network``, here by layer l, counted from 0:
        ``mixing_weights`` and ``bottleneck_layers.{l}.0.{part}.weight``, ``....{part}.norm.weight`` and
        ``....{part}.norm.bias`` with ``shortcut``, ``conv1``, ``conv2`` and ``conv3`` for the part, the names of
        detectron2. They learnt from annotated keypoints (SPair-71k): a method that uses them is not without labels.

        Args:
            path: A ``.safetensors`` file. The published ``.pt`` is a pickle, which can run code, and is refused; the
                message says how to convert it.

        Returns:
            Itself.

        Raises:
            InputError: If the file is missing, a pickle or broken, or its names or shapes do not fit; nothing is
                changed then.
        """
        path = Path(path)
        tensors = _tensors(path)
        ours = self.state_dict()
        names = {"mixing_weights": "mixing_weights", **dict(_published_names(len(self.channels)))}
        if unknown := sorted(set(tensors) - set(names)):
            raise InputError(f"{path}: found {unknown[0]} and {len(unknown) - 1} more that this network does not have")
        for theirs, name in names.items():
            found = tuple(tensors[theirs].shape) if theirs in tensors else "nothing"
            if found != tuple(ours[name].shape):
                raise InputError(
                    f"{path}: found {found} for {theirs}, expected {tuple(ours[name].shape)}; is this an aggregation "
                    f"network for channels {self.channels} and {self.n_timesteps} timestep(s)?"
                )
        self.load_state_dict({name: tensors[theirs] for theirs, name in names.items()})
        return self


def _convolution(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(layer, group_norm(outputs))


def _resized(x: Tensor, size: int) -> Tensor:
    if x.shape[-2:] == (size, size):
        return x
    return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)


def _published_names(n_layers: int) -> Iterator[tuple[str, str]]:
    """Pairs of a published name and ours."""
    for layer in range(n_layers):
        for part in ("shortcut", "conv1", "conv2", "conv3"):
            theirs, ours = f"bottleneck_layers.{layer}.0.{part}", f"bottlenecks.{layer}.{part}"
            yield f"{theirs}.weight", f"{ours}.0.weight"
            yield f"{theirs}.norm.weight", f"{ours}.1.weight"
            yield f"{theirs}.norm.bias", f"{ours}.1.bias"


def _tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix in {".pt", ".pth", ".bin", ".ckpt", ".pkl"}:
        convert = _CONVERT.format(source=str(path), target=str(path.with_suffix(".safetensors")))
        raise InputError(
            f"{path}: found a pickle, which can run code, expected .safetensors. Convert it once, without running any "
            f'code in it:\npython -c "{convert}"'
        )
    if not path.is_file():
        raise InputError(f"found no file {path}, expected the weights of an aggregation network as .safetensors")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path}: found no safetensors ({error}); fetch or convert the file again") from error
