"""Views of images: rectangles cut out of the turned picture, with or without the help of annotated points.

Sanchez and Tzimiropoulos (NeurIPS 2019) train on pairs of such views, and Inter-Intra (Li et al., ICPR 2020) builds on
their code. Both turn the picture and cut out the box round its *annotated* landmarks with a random margin. So every
training image is centred on the object and scaled to it by labels: a method without labels has been told where each
face is, how large and how wide, and a pattern that never moves would already be a fair guess. It is kept here to
reproduce their numbers (:func:`landmark_windows`, :class:`BoxCrop`); everything else uses :func:`draw_windows`, which
looks at no annotation.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ulm import geometry
from ulm.datasets.base import Dataset, Sample
from ulm.datasets.hashing import digest
from ulm.errors import InputError
from ulm.geometry import Warp, WarpScale

LARGEST_TURN = 40.0
"""Degrees at which the authors' code cuts off the normally distributed angles."""
TIGHT = 0.7
"""Margin of the box round annotated points, in parts of its mean side: 70 in the authors' code."""
SMALL_BOX, SMALL_MARGIN = 20, 8
"""Boxes of a smaller mean side, in pixels, have this margin, in pixels."""


def window(angle: Tensor, centre: Tensor, half: Tensor) -> Warp:
    """The map from a rectangle's coordinates to the picture's, the rectangle lying in the picture turned by ``angle``.

    Args:
        angle: ``(B,)`` radians.
        centre: ``(B, 2)``, middle of the rectangle in the turned picture, normalised.
        half: ``(B, 2)`` or ``(B, 1)``, half its sides; 1 is the whole picture.

    Returns:
        An affine warp ``g(u) = (half u + centre) R``, float32.
    """
    cos, sin = angle.cos(), angle.sin()
    turn = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2)
    half = half.expand(-1, 2)
    return Warp(torch.cat([half.unsqueeze(-1) * turn, centre.unsqueeze(1) @ turn], dim=1))


def draw_angles(batch: int, degrees: float, random: torch.Generator) -> Tensor:
    """Normally distributed angles ``(B,)`` in radians, cut off at 40 degrees."""
    angles = degrees * torch.randn(batch, generator=random, device=random.device)
    return torch.deg2rad(angles.clamp(-LARGEST_TURN, LARGEST_TURN))


def draw_windows(batch: int, scale: WarpScale, random: torch.Generator) -> Warp:
    """Random views of whole pictures: turned, scaled and shifted; no annotation is looked at.

    Args:
        batch: How many.
        scale: Deviations; only ``rotation``, ``scale`` and ``translation`` count.
        random: Random numbers; its device is the views' device.
    """
    angle = draw_angles(batch, scale.rotation, random)
    zoom = 1 + scale.scale * torch.randn(batch, 1, generator=random, device=random.device)
    shift = scale.translation * torch.randn(batch, 2, generator=random, device=random.device)
    # With large deviations a view would else shrink to a point or be mirrored.
    return window(angle, shift, zoom.clamp_min(0.3))


def landmark_windows(points: Tensor, angle: Tensor, margin: Tensor, size: int) -> Warp:
    """Views cut to the box round annotated points, after turning (the crop of Sanchez and of Li et al.).

    Width and height of the box are both widened by ``margin`` times their mean on each side, and cut off where the
    turned picture ends. The box is squashed to a square.

    Args:
        points: ``(B, L, 2)`` normalised; NaN where unknown.
        angle: ``(B,)`` radians.
        margin: ``(B,)``, in parts of the box's mean side.
        size: Side of the pictures in pixels, for the least margin of small boxes.

    Raises:
        InputError: If a picture has no known point.
    """
    unknown = points.isnan().any(-1, keepdim=True)
    if unknown.all(1).any():
        raise InputError(
            "found a picture without annotated points, which crop='landmarks' cuts it out by; use crop='image'"
        )
    zero = torch.zeros_like(angle)
    # Where the points lie in the turned picture.
    turned = to_view(window(angle, zero[:, None].expand(-1, 2), zero[:, None] + 1), points)
    low = turned.masked_fill(unknown, math.inf).amin(1)
    high = turned.masked_fill(unknown, -math.inf).amax(1)
    mean, pixel = (high - low).mean(-1, keepdim=True), 2 / size
    wider = torch.where(mean < SMALL_BOX * pixel, SMALL_MARGIN * pixel, margin[:, None] * mean)
    end = (angle.cos().abs() + angle.sin().abs())[:, None]
    low, high = torch.maximum(low - wider, -end), torch.minimum(high + wider, end)
    return window(angle, (low + high) / 2, (high - low) / 2)


def sample(view: Warp, images: Tensor, size: int) -> Tensor:
    """What the views show, ``(B, 3, size, size)`` of ``(B, 3, H, W)``, bilinear; edge pixels are repeated outside."""
    shown = F.grid_sample(images, view.grid(size), padding_mode="border", align_corners=False)
    return shown.contiguous(memory_format=torch.channels_last)


def to_view(view: Warp, points: Tensor) -> Tensor:
    """Where points of the pictures lie in affine views of them; ``(B, P, 2)`` normalised, the inverse of ``view``."""
    linear, shift = view.coefficients[:, :2], view.coefficients[:, 2:]
    # u = (p - t) A^-1
    return (points - shift) @ torch.linalg.inv(linear)


class BoxCrop(Dataset):
    """A data set's images cut to the box round their annotated points, not turned: what Li et al. evaluate on.

    A detector that was trained with ``crop="landmarks"`` expects it of the images that it is shown. Keys of an item
    that are places in the image other than ``landmarks`` (``box``, ``mask``) are left out.

    Args:
        dataset: Any data set with labels; its images should be larger than ``size``, as a part of them is enlarged.
        size: Side of the result in pixels; default: that of the data set.
        margin: In parts of the box's mean side.
    """

    def __init__(self, dataset: Dataset, size: int | None = None, margin: float = TIGHT):
        self.dataset, self.size, self.margin = dataset, size or dataset.size, margin
        self.info, self.split = dataset.info, dataset.split

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        item = self.dataset[index]
        image = item["image"][None]
        shape = (image.shape[-2], image.shape[-1])
        points = geometry.to_normalised(item["landmarks"][None], shape)
        view = landmark_windows(points, torch.zeros(1), torch.tensor([self.margin]), shape[0])
        kept = {key: value for key, value in item.items() if key not in ("box", "mask")}
        return {
            **kept,
            "image": sample(view, image, self.size)[0].contiguous(),
            "landmarks": geometry.to_pixels(to_view(view, points), self.size)[0],
        }

    @property
    def fingerprint(self) -> str:
        """That of the data set and of the crop."""
        return digest(self.dataset.fingerprint, "box crop", self.size, self.margin)
