"""The image generator of Inter-Intra (Li et al., ICPR 2020, section IV-A), which is that of Sanchez and Tzimiropoulos
(NeurIPS 2019): encoder Phi_E, six residual blocks, decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

RESIDUAL_BLOCKS = 6


class Residual(nn.Sequential):
    """Two 3x3 convolutions, each normalised, a rectifier between them; added to the input, nothing after the sum."""

    def __init__(self, channels: int):
        super().__init__(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, channels, h, w)`` to the same shape."""
        return x + super().forward(x)


def _normalised(convolution: nn.Module, channels: int) -> list[nn.Module]:
    return [convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]


class Generator(nn.Module):
    """Image generator Psi with its encoder Phi_E: appearance of one image, landmarks of another, to an image.

    Args:
        n_maps: K.
        width: Channels c of the first convolution; the encoder ends with 4 c at a quarter of the resolution. The
            authors' code has 32, the paper's text (256 channels at 32 x 32) means 64.
    """

    def __init__(self, n_maps: int, width: int = 32):
        super().__init__()
        c, inner = width, 4 * width + n_maps
        self.encoder = nn.Sequential(
            *_normalised(nn.Conv2d(3, c, 7, padding=3, bias=False), c),
            *_normalised(nn.Conv2d(c, 2 * c, 4, stride=2, padding=1, bias=False), 2 * c),
            *_normalised(nn.Conv2d(2 * c, 4 * c, 4, stride=2, padding=1, bias=False), 4 * c),
        )
        half, quarter = inner // 2, inner // 4
        self.decoder = nn.Sequential(
            nn.BatchNorm2d(inner),
            *(Residual(inner) for _ in range(RESIDUAL_BLOCKS)),
            *_normalised(nn.ConvTranspose2d(inner, half, 4, stride=2, padding=1, bias=False), half),
            *_normalised(nn.ConvTranspose2d(half, quarter, 4, stride=2, padding=1, bias=False), quarter),
            nn.Conv2d(quarter, 3, 7, padding=3, bias=False),
            nn.Tanh(),
        )

    def forward(self, source: Tensor, maps: Tensor) -> Tensor:
        """``Psi(Phi_E(x), Phi_H(.))`` (Inter-Intra, equations 3 and 4).

        Args:
            source: ``(B, 3, S, S)`` in [0, 1]; S is a multiple of 4.
            maps: ``(B, n_maps, S / 4, S / 4)``.

        Returns:
            ``(B, 3, S, S)`` float32 in [0, 1], the range of real images: a drawing is the source of the next one.
        """
        features = self.encoder(source)
        drawn = self.decoder(torch.cat([features, maps.to(features.dtype)], dim=1))
        # The hyperbolic tangent ends at -1 and 1.
        return (drawn.float() + 1) / 2
