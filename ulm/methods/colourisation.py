"""A perceptual network that learned without labels: colourising grey images (Larsson, Maire, Shakhnarovich, ECCV 2016).

To guess the colour of a place from a grey image one must know what is there: lips are red, sky is blue. So the
activations of a network that colourises compare images by content. The chapter 'A loss that learned to colour' tells
the story; IMM's content loss uses the trunk.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ulm.errors import InputError
from ulm.methods.trunks import TrunkTraining
from ulm.networks.perceptual import VGG
from ulm.runs import autocast

BINS = 32
# Larsson et al., equation 8: the hue's share of the loss, which also fades where there is no colour.
HUE_WEIGHT = 5.0


class Colouriser(nn.Module):
    """Trunk, hypercolumns (all taps side by side at a quarter of the resolution), two histograms a place."""

    def __init__(self, depth: str, width: int):
        super().__init__()
        self.trunk = VGG(depth, width, "grey", norm=True)
        channels = sum(self.trunk.channels)
        self.head = nn.Sequential(
            nn.Conv2d(channels, 8 * width, 1), nn.BatchNorm2d(8 * width), nn.ReLU(), nn.Conv2d(8 * width, 2 * BINS, 1)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of hue and of chroma, each ``(B, 32, H / 4, W / 4)``, of images ``(B, 3, H, W)`` in [0, 1]."""
        size = (images.shape[-2] // 4, images.shape[-1] // 4)
        columns = torch.cat([_to_size(tap, size) for tap in self.trunk(images)], dim=1)
        hue, chroma = self.head(columns).float().chunk(2, dim=1)
        return hue, chroma


def _to_size(features: Tensor, size: tuple[int, int]) -> Tensor:
    if features.shape[-2] >= size[0]:
        return F.adaptive_avg_pool2d(features, size)
    return F.interpolate(features, size=size, mode="bilinear", align_corners=False)


def hue_chroma(images: Tensor) -> tuple[Tensor, Tensor]:
    """Hue and chroma, each ``(B, H, W)`` in [0, 1], of RGB ``(B, 3, H, W)`` in [0, 1]."""
    red, green, blue = images.unbind(1)
    # Hue as the angle in the plane of colours, chroma as max - min (the HSV hexagon).
    hue = torch.atan2(3**0.5 * (green - blue), 2 * red - green - blue) / (2 * torch.pi) % 1
    return hue, images.amax(1) - images.amin(1)


def colourisation_loss(hue: Tensor, chroma: Tensor, images: Tensor) -> Tensor:
    """Cross-entropies of chroma, and of hue weighted by chroma (Larsson et al., equation 8).

    Args:
        hue: Logits ``(B, 32, h, w)``.
        chroma: The same.
        images: ``(B, 3, H, W)`` in [0, 1], shrunk to h x w.
    """
    true_hue, true_chroma = hue_chroma(F.adaptive_avg_pool2d(images, hue.shape[-2:]))
    hue_error = F.cross_entropy(hue, (true_hue * BINS).long().clamp(0, BINS - 1), reduction="none")
    chroma_error = F.cross_entropy(chroma, (true_chroma * BINS).long().clamp(0, BINS - 1))
    return chroma_error + HUE_WEIGHT * (true_chroma * hue_error).mean()


def colourise(hue: Tensor, chroma: Tensor, grey: Tensor) -> Tensor:
    """Images ``(B, 3, h, w)`` in [0, 1] from logits and grey levels ``(B, h, w)``.

    Chroma is the expected one, hue the mean angle.
    """
    centres = (torch.arange(BINS, device=hue.device) + 0.5) / BINS
    amount = (chroma.softmax(1) * centres[:, None, None]).sum(1)
    angles = 2 * torch.pi * centres[:, None, None]
    weights = hue.softmax(1)
    angle = torch.atan2((weights * angles.sin()).sum(1), (weights * angles.cos()).sum(1)) / torch.pi * 3
    # Each channel's height on the hexagon, then shifted so that the mean is the grey level.
    offsets = torch.tensor([0.0, 2.0, 4.0], device=hue.device)[:, None, None]
    distance = ((angle.unsqueeze(1) - offsets + 3) % 6 - 3).abs()
    colour = (2 - distance).clamp(0, 1) * amount.unsqueeze(1)
    return (colour - colour.mean(1, keepdim=True) + grey.unsqueeze(1)).clamp(0, 1)


class Colourisation(TrunkTraining):
    """Train a VGG trunk to colourise; ``save_pretrained`` writes it without batch normalisation, ready for IMM.

    Hyperparameters are those of :class:`ulm.methods.trunks.TrunkTraining`.
    """

    name = "colourisation"
    preprocessing = "grey"

    def _build(self) -> nn.ModuleDict:
        return nn.ModuleDict({"colouriser": Colouriser(self.depth, self.width)})

    def _trained(self) -> VGG:
        return self.networks["colouriser"].trunk

    def _train_step(self, images: Tensor, pairs: Tensor | None, step: int) -> dict[str, Tensor]:
        with autocast(self.torch_device):
            hue, chroma = self.networks["colouriser"](images)
        loss = colourisation_loss(hue, chroma, images)
        self._descend(loss, step)
        return {"colour": loss.detach()}

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Colourise: ``(B, 3, H, W)`` in [0, 1], whose grey levels alone are used, to ``(B, 3, S / 4, S / 4)``."""
        self._ready()
        if "colouriser" not in self.networks:
            raise InputError("this model holds its trunk only; train one to colourise with it")
        images = self._prepare(images)
        hue, chroma = self.networks["colouriser"](images)
        return colourise(hue, chroma, F.adaptive_avg_pool2d(images.mean(1), hue.shape[-2:])).cpu()
