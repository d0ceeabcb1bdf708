"""What D-ULD and D-ULD++ put behind the aggregated features: detector, descriptors, pose autoencoder (section 3).

No code of the paper was published and its text names neither layers nor widths of these networks. The heads follow SiLK
(Gleize et al., ICCV 2023), a 3x3 convolution to 128 channels and a 1x1 one, with 256 numbers a descriptor as Mallis et
al. have, and are normalised in groups, not over the batch: batches are small, and phases of training alternate.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ulm import geometry
from ulm.errors import InputError
from ulm.networks.aggregation import group_norm

RECONSTRUCTIONS = ("bce", "mse")


class Head(nn.Sequential):
    """3x3 convolution to ``width`` channels, group normalisation, rectifier, 1x1 convolution to ``outputs``."""

    def __init__(self, channels: int, outputs: int, width: int = 128):
        layer = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        super().__init__(layer, group_norm(width), nn.ReLU(inplace=True), nn.Conv2d(width, outputs, 1))

    def forward(self, features: Tensor) -> Tensor:
        """``(B, channels, S, S)`` to ``(B, outputs, S, S)``, float32 also under autocast."""
        return super().forward(features).float()


class DetectorHead(Head):
    """Psi_d (section 3.2): aggregated features to the logits of one heatmap, ``(B, 1, S, S)``; no sigmoid inside."""

    def __init__(self, channels: int, width: int = 128):
        super().__init__(channels, 1, width)


class DescriptorHead(Head):
    """Psi_f (section 3.2): aggregated features to one descriptor a cell, ``(B, n, S, S)``; not normalised."""

    def __init__(self, channels: int, n: int = 256, width: int = 128):
        super().__init__(channels, n, width)


class PoseVAE(nn.Module):
    """Psi_V (section 3.3.1): a variational autoencoder from heatmaps to pose codes, and to clean heatmaps.

    Four convolutions of stride 2 (4x4) to ``width`` ... ``8 width`` channels and a linear layer; the decoder mirrors
    them. The output starts near exp(-4), about what a few landmarks cover of a map: otherwise the first steps learn
    nothing but that most cells are empty, and codes may die meanwhile.

    Args:
        size: Edge S of the maps in cells, a power of two from 16 to 128.
        code: Numbers of a pose code; 64 in the paper.
        width: Channels of the first convolution.

    Raises:
        InputError: For a bad value.
    """

    def __init__(self, size: int = 64, code: int = 64, width: int = 32):
        super().__init__()
        if size not in (16, 32, 64, 128):
            raise InputError(f"found maps of size={size}, expected a power of two from 16 to 128")
        if code < 1 or width < 1:
            raise InputError(f"found code={code}, width={width}, expected at least 1")
        self.size = size
        widths, grid = [width, 2 * width, 4 * width, 8 * width], size // 16
        self.encoder = nn.Sequential(*_downwards(widths), nn.Flatten())
        self.to_code = nn.Linear(widths[-1] * grid**2, 2 * code)
        self.from_code = nn.Linear(code, widths[-1] * grid**2)
        self.decoder = nn.Sequential(nn.Unflatten(1, (widths[-1], grid, grid)), *_upwards(widths[::-1]))

    def encode(self, heatmaps: Tensor) -> tuple[Tensor, Tensor]:
        """The distribution of the pose code.

        Args:
            heatmaps: ``(B, 1, S, S)`` in [0, 1], the sigmoid of the detector's logits; gradients flow back to them.

        Returns:
            Mean and logarithm of the variance, ``(B, code)`` float32 each. The mean is the code phi that is clustered
            and that equation 3 compares: sampled ones would jump between clusters.

        Raises:
            InputError: For another shape.
        """
        if heatmaps.shape[1:] != (1, self.size, self.size):
            raise InputError(
                f"found heatmaps of shape {tuple(heatmaps.shape)}, expected (B, 1, {self.size}, {self.size})"
            )
        mean, log_variance = self.to_code(self.encoder(heatmaps)).float().chunk(2, dim=1)
        return mean, log_variance

    def decode(self, codes: Tensor) -> Tensor:
        """Codes ``(B, code)`` to logits of heatmaps, ``(B, 1, S, S)`` float32."""
        return self.decoder(self.from_code(codes)).float()

    def forward(self, heatmaps: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Encode, draw a code (in training; else take the mean) and decode.

        Args:
            heatmaps: As in :meth:`encode`.
            generator: Draws the noise, on the network's device; None: torch's own.

        Returns:
            Logits, mean and logarithm of the variance, as :func:`elbo` takes them.

        Raises:
            InputError: For another shape.
        """
        mean, log_variance = self.encode(heatmaps)
        code = mean
        if self.training:
            noise = torch.randn(mean.shape, generator=generator, device=mean.device)
            code = mean + (0.5 * log_variance).exp() * noise
        return self.decode(code), mean, log_variance


def elbo(
    logits: Tensor,
    mean: Tensor,
    log_variance: Tensor,
    targets: Tensor,
    beta: float = 1.0,
    reconstruction: str = "bce",
) -> dict[str, Tensor]:
    """The negative evidence lower bound, to be minimised (Kingma and Welling, ICLR 2014; D-ULD, section 3.3.1).

    Both terms are sums, over cells and over numbers of the code, averaged over the batch. A mean over cells in the
    first would weigh the second some thousand times as much, and all codes would be the same.

    Args:
        logits: ``(B, 1, S, S)``.
        mean: ``(B, code)``.
        log_variance: ``(B, code)``.
        targets: ``(B, 1, S, S)`` in [0, 1], see :func:`gaussian_targets`; no gradient flows into them.
        beta: Weight of the divergence.
        reconstruction: ``bce``, cross entropy with the target as a probability, which is least, though not 0, where
            both are equal; or ``mse``, squared differences of the sigmoid, smaller numbers that ask for a smaller
            ``beta``.

    Returns:
        Scalars: ``reconstruction``, ``kl`` (the divergence from a standard normal distribution, in nats), and
        ``loss``, the first plus ``beta`` times the second.

    Raises:
        InputError: For an unknown reconstruction, or targets of another shape.
    """
    if reconstruction not in RECONSTRUCTIONS:
        raise InputError(f"found reconstruction={reconstruction!r}, expected one of {', '.join(RECONSTRUCTIONS)}")
    if logits.shape != targets.shape:
        raise InputError(f"found targets of shape {tuple(targets.shape)}, expected {tuple(logits.shape)}")
    targets = targets.detach()
    if reconstruction == "bce":
        cells = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    else:
        cells = (logits.sigmoid() - targets).square()
    numbers = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
    first, second = cells.flatten(1).sum(1).mean(), numbers.sum(1).mean()
    return {"reconstruction": first, "kl": second, "loss": first + beta * second}


def triplet_loss(codes: Tensor, labels: Tensor, margin: float = 0.8, normalise: bool = True) -> Tensor:
    """Equation 3 of D-ULD++: codes of one pose cluster together, codes of two at least a margin apart.

    ``||phi_j - phi_j'|| + max(0, m - ||phi_j - phi_j''||)`` with ``u_j = u_j'`` and ``u_j != u_j''``. The paper takes
    any j' and j''; this is the expected value for j uniform among those that have both in the batch, and j' and j''
    uniform among j's own. Batches want at least two images of each of several clusters.

    Args:
        codes: ``(B, n)``, the means that :meth:`PoseVAE.encode` returns.
        labels: ``(B,)`` integers, the pose clusters u.
        margin: m; 0.8 in the paper.
        normalise: Compare codes of unit length, at most 2 apart. The text does not say so; but codes that a
            variational autoencoder keeps near a standard normal distribution lie about 11 apart in 64 dimensions,
            where a margin of 0.8 never acts and only attraction is left. False: codes as they are.

    Returns:
        A scalar, float32. It is 0, with gradients that are 0, if no image has both others.

    Raises:
        InputError: If the shapes do not fit together.
    """
    if codes.ndim != 2 or labels.shape != codes.shape[:1]:
        raise InputError(f"found codes {tuple(codes.shape)}, labels {tuple(labels.shape)}, expected (B, n) and (B,)")
    codes = F.normalize(codes.float(), dim=1) if normalise else codes.float()
    # Without the product form, which rounds small distances; the gradient at distance 0 is 0.
    distances = torch.cdist(codes, codes, compute_mode="donot_use_mm_for_euclid_dist")
    same = labels[:, None] == labels
    others = same & ~torch.eye(len(codes), dtype=torch.bool, device=codes.device)
    each = _row_means(distances, others) + _row_means((margin - distances).clamp_min(0), ~same)
    valid = others.any(1) & ~same.all(1)
    return (each * valid).sum() / valid.sum().clamp_min(1)


@torch.no_grad()
def gaussian_targets(landmarks: Tensor, size: int, sigma: float = 1.0) -> Tensor:
    """The pseudo ground truth G (section 3.3.1): all landmarks of an image as Gaussians on one channel.

    Where they overlap the largest counts, so that each keeps its height: 1 at its own place, which cells near it
    reach up to half a cell.

    Args:
        landmarks: ``(B, K, 2)``, (x, y) in cells of the map, centre of the first at (0.5, 0.5). One with a NaN is left
            out; an image without any gets zeros.
        size: Edge S of the map in cells.
        sigma: Deviation in cells.

    Returns:
        ``(B, 1, S, S)`` float32 in [0, 1], without a gradient.

    Raises:
        InputError: If there is no cell, or ``sigma`` is not positive.
    """
    if size < 1 or not (math.isfinite(sigma) and sigma > 0):
        raise InputError(f"found size={size}, sigma={sigma}, expected at least one cell and a positive deviation")
    maps = geometry.gaussian_maps(geometry.to_normalised(landmarks.float(), size), size, 2 * sigma / size)
    return maps.nan_to_num(0.0).amax(dim=1, keepdim=True)


def _downwards(widths: list[int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for inputs, outputs in zip([1, *widths[:-1]], widths, strict=True):
        layers += [nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False), group_norm(outputs), nn.ReLU(inplace=True)]
    return layers


def _upwards(widths: list[int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [group_norm(inputs), nn.ReLU(inplace=True), nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False)]
    last = nn.ConvTranspose2d(widths[-1], 1, 4, 2, 1)
    nn.init.constant_(last.bias, -4.0)
    return [*layers, group_norm(widths[-1]), nn.ReLU(inplace=True), last]


def _row_means(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of each row's values where the mask is set; 0 for a row without any."""
    return (values * mask).sum(1) / mask.sum(1).clamp_min(1)
