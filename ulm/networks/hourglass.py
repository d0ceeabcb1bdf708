"""The hourglass of pose estimation as a landmark detector, and how one trained on people is adapted to other objects.

One stack of FAN (Bulat and Tzimiropoulos, ICCV 2017) with their hierarchical block in place of the bottleneck of Newell
et al. (ECCV 2016). Sanchez and Tzimiropoulos (NeurIPS 2019) keep its 3x3 kernels after training on people and learn one
matrix for each that mixes them; Inter-Intra (Li et al., ICPR 2020, section IV-A) takes detector and adaptation over.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ulm import geometry
from ulm.errors import InputError

STRIDE = 4
"""Pixels of an image in one cell of the score maps, along each axis."""
DECAYS_TO = ("identity", "zero")

Convolution = Callable[[int, int], nn.Module]


def n_levels(image_size: int) -> int:
    """Levels of the hourglass: maps are a quarter of the image, halved down to 2 x 2; 4 levels at 128 pixels.

    Raises:
        InputError: If ``image_size`` is not a power of two from 16 to 1024.
    """
    n = math.log2(image_size) if image_size > 0 else 0.0
    if not n.is_integer() or not 4 <= n <= 10:
        raise InputError(
            f"found image_size {image_size}, expected a power of two from 16 to 1024: the hourglass halves it down to 2"
        )
    return int(n) - 3


def check_width(width: int) -> None:
    """Raises InputError if ``width`` is not a multiple of 8."""
    if not isinstance(width, int) or width < 8 or width % 8:
        raise InputError(f"found width={width!r}, expected a multiple of 8, as blocks split channels into quarters")


class ProjectedConvolution(nn.Module):
    """A 3x3 convolution without bias whose kernels are frozen and mixed by a learned matrix.

    With the kernels as K ``(out, 9 in)`` and the matrix W ``(out, out)`` the effective kernels are ``W K``; W is the
    identity at first. K is a buffer, so it is saved and loaded with W, yet no optimiser sees it.

    As ``(W K) * x = W (K * x)``, training convolves with K and mixes the result by a 1x1 convolution: then no gradient
    of the 3x3 kernels is computed, which is a third of their cost. Evaluation makes ``W K`` first, which is one
    convolution less.

    Args:
        inputs: Channels in.
        outputs: Channels out.
        decays_to: What weight decay pulls W to. ``identity`` learns W - 1, so that no evidence means no adaptation;
            ``zero`` learns W itself as the authors' code does, whose decay shrinks what the core has learned.
    """

    def __init__(self, inputs: int, outputs: int, decays_to: str = "identity"):
        super().__init__()
        if decays_to not in DECAYS_TO:
            raise InputError(f"found decays_to={decays_to!r}, expected one of {', '.join(DECAYS_TO)}")
        self.decays_to = decays_to
        self.register_buffer("kernel", nn.Conv2d(inputs, outputs, 3, bias=False).weight.detach().clone())
        eye = torch.eye(outputs)
        self.projection = nn.Parameter(eye if decays_to == "zero" else torch.zeros_like(eye))

    @property
    def matrix(self) -> Tensor:
        """W, float32 ``(out, out)``."""
        if self.decays_to == "zero":
            return self.projection
        return self.projection + torch.eye(len(self.projection), device=self.projection.device)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in, h, w)`` to ``(B, out, h, w)``."""
        if self.training:
            # W (K * x)
            return F.conv2d(F.conv2d(x, self.kernel, padding=1), self.matrix[:, :, None, None])
        # (W K) * x; the product of weights is made in float32 whatever the convolution computes in.
        with torch.autocast(x.device.type, enabled=False):
            kernel = (self.matrix @ self.kernel.flatten(1)).view_as(self.kernel)
        return F.conv2d(x, kernel, padding=1)


def plain_convolution(inputs: int, outputs: int) -> nn.Module:
    """A 3x3 convolution without bias, all of it learned."""
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


class Block(nn.Module):
    """Hierarchical residual block: three 3x3 convolutions in a row, their outputs side by side, plus the input.

    Each convolution follows its normalisation and rectifier (pre-activation). The three give a half, a quarter and a
    quarter of the channels. Where the number of channels changes, the input passes a 1x1 convolution.
    """

    def __init__(self, inputs: int, outputs: int, convolution: Convolution = plain_convolution):
        super().__init__()
        widths = [inputs, outputs // 2, outputs // 4, outputs // 4]
        self.norms = nn.ModuleList([nn.BatchNorm2d(width) for width in widths[:3]])
        self.convolutions = nn.ModuleList([convolution(a, b) for a, b in pairwise(widths)])
        self.skip: nn.Module = nn.Identity()
        if inputs != outputs:
            self.skip = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, inputs, h, w)`` to ``(B, outputs, h, w)``."""
        parts, y = [], x
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            y = convolution(F.relu(norm(y)))
            parts.append(y)
        return torch.cat(parts, dim=1) + self.skip(x)


class Level(nn.Module):
    """One level of the hourglass: a branch at full resolution, and one at half with the level below inside it."""

    def __init__(self, levels: int, width: int, convolution: Convolution):
        super().__init__()
        self.upper, self.lower, self.post = (Block(width, width, convolution) for _ in range(3))
        below = levels > 1
        self.inner = Level(levels - 1, width, convolution) if below else Block(width, width, convolution)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, width, h, w)`` to the same shape."""
        low = self.post(self.inner(self.lower(F.avg_pool2d(x, 2))))
        return self.upper(x) + F.interpolate(low, scale_factor=2, mode="nearest")


class Hourglass(nn.Module):
    """The detector: stem to a quarter of the resolution, hourglass, K score maps, soft-argmax.

    Args:
        n_landmarks: K.
        image_size: Side of the images, a power of two.
        width: Channels of the features (256 in the papers), a multiple of 8.
        beta: Factor on the score maps before the softmax (Inter-Intra, equation 1: 10).
        projected: Whether 3x3 kernels are frozen and mixed by learned matrices.
        decays_to: See :class:`ProjectedConvolution`.

    Raises:
        InputError: For another ``image_size`` or ``width``.
    """

    def __init__(
        self,
        n_landmarks: int,
        image_size: int = 128,
        width: int = 256,
        beta: float = 10.0,
        projected: bool = False,
        decays_to: str = "identity",
    ):
        super().__init__()
        check_width(width)
        self.image_size, self.width, self.beta, self.projected = image_size, width, beta, projected
        convolution = partial(ProjectedConvolution, decays_to=decays_to) if projected else plain_convolution
        self.stem = nn.Sequential(
            nn.Conv2d(3, width // 4, 7, stride=2, padding=3),
            nn.BatchNorm2d(width // 4),
            nn.ReLU(inplace=True),
            Block(width // 4, width // 2, convolution),
            nn.AvgPool2d(2),
            Block(width // 2, width // 2, convolution),
            Block(width // 2, width, convolution),
        )
        self.levels = Level(n_levels(image_size), width, convolution)
        self.top = Block(width, width, convolution)
        self.head = nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.points = nn.Conv2d(width, n_landmarks, 1)

    def heatmaps(self, images: Tensor) -> Tensor:
        """``beta S(x)``, the logits of equation 1, float32 ``(B, K, S / 4, S / 4)``, of images in [0, 1]."""
        features = self.head(self.top(self.levels(self.stem(images))))
        # The softmax feels the rounding of bfloat16 logits: the last layer computes in float32.
        with torch.autocast(features.device.type, enabled=False):
            return self.points(features.float()) * self.beta

    def forward(self, images: Tensor) -> Tensor:
        """Landmarks u (equation 1) of images ``(B, 3, S, S)`` in [0, 1].

        Returns:
            float32 ``(B, K, 2)``, (x, y), normalised, -1 and 1 at the image's edges.
        """
        heatmaps = self.heatmaps(images)
        # Autocast would take the expectation in bfloat16, whose steps are up to a sixteenth of a cell at 128 pixels.
        with torch.autocast(heatmaps.device.type, enabled=False):
            return geometry.soft_argmax(heatmaps)

    @torch.no_grad()
    def adopt(self, core: Hourglass) -> None:
        """Take over all weights and statistics of ``core`` but its last layer: its points are others.

        Args:
            core: Not projected. Its 3x3 convolutions become the frozen kernels where this one is projected.

        Raises:
            InputError: If it has another size or width.
        """
        ours, theirs = (f"image_size={net.image_size}, width={net.width}" for net in (self, core))
        if ours != theirs:
            raise InputError(f"found a core of {theirs} for a detector of {ours}; use the same for both")
        own = self.state_dict()
        for name, tensor in core.state_dict().items():
            if not name.startswith("points."):
                own[name if name in own else name.replace(".weight", ".kernel")].copy_(tensor)

    def freeze(self) -> None:
        """Leave nothing to learn but the projection matrices and the last layer."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name.startswith("points.") or name.endswith(".projection"))
