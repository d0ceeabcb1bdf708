"""The first descriptors and keypoints of D-ULD, learned from known warps (Tourani et al., CVPR 2024, section 3.2).

A warped copy of an image says for free which place of the one is which place of the other. SiLK (Gleize, Wang, Feiszli,
ICCV 2023) makes a network of that: a descriptor at each cell is to find its partner among *all* cells of the other
view, and a detector is to say which cells succeed. Written from the published description; none of its code is used.
Besides this loss, the module holds what follows it: keypoints from the detector's map, the contrastive loss that trains
descriptors on cluster labels (Mallis et al., TPAMI 2023), and a region of interest that no label was needed for.

Cells of an S x S grid are numbered row by row, P = S S. What the sources leave open is an argument, or decided here:

=======================================  ==============================================================================
open                                     here
=======================================  ==============================================================================
a batch of pairs (SiLK: one pair)        means go over all pairs of cells of the batch, not over images first
equal similarities                       a tie is no match: else descriptors that are all alike would match everywhere
mirrored views                           ``mirror_pairs="detector"``: their pairs train the detector alone; as positives
                                         they would make the descriptors of left and right the same
distances on other grids than 64 x 64    suppression and the gap of negatives are in cells of a 64 x 64 grid and scale
region of interest                       applied *after* suppression, so that its edge makes no maxima of its own
=======================================  ==============================================================================
"""

from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ulm import geometry
from ulm.geometry import Size, Warp

# Lengths of the sources are in cells of this grid.
REFERENCE_GRID = 64
# Similarities in a block of rows: 4 MB, a processor's cache, or 128 MB of an accelerator.
CPU_BLOCK, DEVICE_BLOCK = 2**20, 2**25
# Similarities are exponentiated as they are; a row of exp(70) still adds up in float32.
LARGEST_SCALE = 70.0
NEWTON_STEPS = 3


# --- correspondences ----------------------------------------------------------------------------------------------


@torch.no_grad()
def correspondences(warp: Warp | Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Which cell of an image is which cell of its warped copy (Gleize et al., ICCV 2023).

    Every cell's centre is mapped to the other image and falls into a cell there, or outside. Only pairs that agree both
    ways are kept. The way back is solved for near each cell, so a warp needs no inverse; where it folds and several
    cells claim one, none gets it.

    Args:
        warp: Maps places in the copy b to places in the original a: a :class:`ulm.geometry.Warp`, or affine maps
            ``(B, 2, 3)`` in normalised coordinates; a mirror has a negative determinant.
        size: S, cells along a side.

    Returns:
        Two int64 ``(B, P)``: for each cell of a its cell of b, and for each cell of b its cell of a; -1 where none.
    """
    device = warp.device if isinstance(warp, Tensor) else warp.coefficients.device
    centres = geometry.pixel_grid(size, device=device).reshape(1, -1, 2)
    mapped = _apply(warp, centres)
    cells, inside = _cells(mapped, size)
    back, inside_back = _cells(_preimages(warp, centres, mapped, centres[0, cells], 1 / size), size)
    numbers = torch.arange(size * size, device=device).expand_as(cells)
    agree = inside & inside_back & (back == numbers)
    agree &= torch.zeros_like(cells).scatter_add_(1, cells, agree.long()).gather(1, cells) == 1
    # What is not kept is written to one cell more, which is cut off.
    found = cells.new_full((len(cells), size * size + 1), -1)
    found.scatter_(1, torch.where(agree, cells, size * size), torch.where(agree, numbers, -1))
    return found[:, :-1].contiguous(), torch.where(agree, cells, -1)


def _apply(warp: Warp | Tensor, points: Tensor) -> Tensor:
    if isinstance(warp, Tensor):
        return points.to(warp) @ warp[..., :2].mT + warp[..., 2].unsqueeze(-2)
    return warp(points)


def _cells(points: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Numbers of the cells that normalised ``(B, P, 2)`` fall into (0 if outside), and whether they are inside."""
    places = geometry.to_pixels(points, size).floor()
    inside = ((places >= 0) & (places < size)).all(-1)
    places = torch.where(inside.unsqueeze(-1), places, 0).long()
    return places[..., 1] * size + places[..., 0], inside


def _preimages(warp: Warp | Tensor, start: Tensor, mapped: Tensor, goal: Tensor, step: float) -> Tensor:
    """Solve ``warp(u) = goal`` near ``start`` by Newton's method, with the slope across ``step`` to either side."""
    offsets = step * torch.eye(2, device=start.device)
    (xx, yx), (xy, yy) = (
        ((_apply(warp, start + offset) - _apply(warp, start - offset)) / (2 * step)).unbind(-1) for offset in offsets
    )
    # A slope of no extent gives infinities and NaN, which lie in no cell.
    inverse = torch.stack([torch.stack([yy, -xy], -1), torch.stack([-yx, xx], -1)], -2)
    inverse = inverse / (xx * yy - xy * yx)[..., None, None]
    places = start
    for _ in range(NEWTON_STEPS):
        places = places + (inverse @ (goal - mapped).unsqueeze(-1)).squeeze(-1)
        mapped = _apply(warp, places)
    return places


# --- the bootstrapping loss ---------------------------------------------------------------------------------------


class _Similarities(torch.autograd.Function):
    """What the loss needs of all similarities ``a_i . b_j`` of ``(P, D)`` and ``(P, D)``, never held at once.

    Goes over blocks of rows, in the backward pass once more. Returns the logarithm of the sum of exponentials of each
    row and of each column, the similarity of each row's partner (0 where none), and whether row and partner are each
    other's only largest; each ``(P,)``.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, matches: Tensor, block: int, half: bool) -> tuple[Tensor, ...]:
        # A processor's bfloat16 product would also round its result, and most nearest neighbours would be ties.
        x, y = (a.bfloat16(), b.bfloat16()) if half and a.is_cuda else (a, b)
        rows, own, row_rival = (torch.empty_like(a[:, 0]) for _ in range(3))
        columns, column_rival = (torch.zeros_like(a[:, 0]) for _ in range(2))
        partners, valid = matches.clamp_min(0), matches >= 0
        for part in _parts(len(a), block):
            similar = _product(x[part], y)
            partner, known = partners[part, None], valid[part, None]
            own[part] = similar.gather(1, partner).squeeze(1)
            similar.exp_()
            rows[part] = similar.sum(1)
            columns += similar.sum(0)
            similar.scatter_(1, partner, similar.gather(1, partner).masked_fill_(known, 0))
            row_rival[part] = similar.amax(1)
            column_rival = torch.maximum(column_rival, similar.amax(0))
        nearest = valid & (own.exp() > torch.maximum(row_rival, column_rival[partners]))
        rows, columns = rows.log_(), columns.log_()
        ctx.save_for_backward(a, b, matches, rows, columns)
        ctx.block, ctx.half = block, half
        ctx.mark_non_differentiable(nearest)
        return rows, columns, own.masked_fill_(~valid, 0), nearest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        a, b, matches, rows, columns = ctx.saved_tensors
        x, y = (a.bfloat16(), b.bfloat16()) if ctx.half else (a, b)
        of_row, of_column = gradients[0] * (-rows).exp(), gradients[1] * (-columns).exp()
        partners, of_own = matches.clamp_min(0), gradients[2].masked_fill(matches < 0, 0)
        to_a, to_b = torch.empty_like(a), torch.zeros_like(b)
        for part in _parts(len(a), ctx.block):
            slope = _product(x[part], y).exp_()
            slope.mul_(of_row[part, None] + of_column)
            slope.scatter_add_(1, partners[part, None], of_own[part, None])
            slope = slope.to(x.dtype)
            to_a[part] = _product(slope, y.T)
            to_b += _product(slope.T, x[part].T)
        return to_a, to_b, None, None, None


def _product(x: Tensor, y: Tensor) -> Tensor:
    """``x y^T`` of ``(N, D)`` and ``(M, D)``, in float32 where both are bfloat16."""
    if x.dtype != torch.bfloat16:
        return torch.mm(x, y.T)
    return torch.mm(x, y.T, out_dtype=torch.float32) if x.is_cuda else torch.mm(x, y.T).float()


def _parts(count: int, block: int) -> list[slice]:
    return [slice(first, first + block) for first in range(0, count, block)]


def _block(block: int | None, cells: int, device: torch.device) -> int:
    if block is None:
        return max(1, (CPU_BLOCK if device.type == "cpu" else DEVICE_BLOCK) // cells)
    if block < 1:
        raise ValueError(f"found block={block}, expected at least 1 row")
    return block


def _unit(descriptors: Tensor) -> Tensor:
    """``(B, D, S, S)`` to ``(B, P, D)`` of length 1, in float32 or better."""
    wide = descriptors.to(torch.promote_types(descriptors.dtype, torch.float32))
    return F.normalize(wide.flatten(2).mT, dim=-1).contiguous()


def silk_loss(
    descriptors_a: Tensor,
    descriptors_b: Tensor,
    logits_a: Tensor,
    logits_b: Tensor,
    matches_ab: Tensor,
    matches_ba: Tensor,
    scale: float = 19.88,
    mirrored: Tensor | None = None,
    mirror_pairs: str = "detector",
    block: int | None = None,
) -> dict[str, Tensor]:
    """SiLK's loss (Gleize et al., ICCV 2023), by which D-ULD is bootstrapped (its section 3.2).

    Descriptors: ``-log softmax`` of the similarity of true partners, ``scale`` times the cosine, over all cells of the
    other view, with a partner or not; from a to b plus from b to a. Detector: binary cross-entropy at the cells that
    have a true partner; the label is 1 where true partners are each other's only nearest neighbours. Labels carry no
    gradient. The loss is the sum of both. A NaN anywhere in a pair's descriptors makes the loss NaN.

    The similarities are made in blocks of rows, and once more in the backward pass, instead of being kept. Under
    bfloat16 autocast, products take bfloat16 operands and reductions stay in float32; on the CPU the forward products
    stay in float32 as well, where rounded results would make neighbours indistinguishable.

    Args:
        descriptors_a: ``(B, D, S, S)``, any length; normalised here.
        descriptors_b: The same of the other view.
        logits_a: ``(B, 1, S, S)``, before the sigmoid.
        logits_b: The same of the other view.
        matches_ab: int64 ``(B, P)``, see :func:`correspondences`.
        matches_ba: Its inverse.
        scale: Inverse temperature, at most 70: SiLK's factors 1.41 and 1 / sqrt(0.1), once for each side.
        mirrored: bool ``(B,)``, which pairs are mirrored; None is none.
        mirror_pairs: ``detector``: mirrored pairs do not train the descriptors; ``all``: they do.
        block: Rows of similarities at a time, None as many as suit the device. It changes rounding only.

    Returns:
        ``loss``, its terms ``descriptor`` and ``detector``, and ``matched``, the share of true partners that are each
        other's nearest neighbours (no gradient); all float32 scalars, 0 where no cell has a partner.

    Raises:
        ValueError: For shapes that do not fit, matches that are not each other's inverse, or a bad option.
    """
    _check_pair(descriptors_a, descriptors_b, logits_a, logits_b)
    _check_matches(matches_ab, matches_ba, (len(descriptors_a), descriptors_a[0, 0].numel()))
    if not 0 < scale <= LARGEST_SCALE:
        raise ValueError(f"found scale={scale}, expected more than 0 and at most {LARGEST_SCALE:g}")
    if mirror_pairs not in ("detector", "all"):
        raise ValueError(f"found mirror_pairs={mirror_pairs!r}, expected detector or all")
    kind = descriptors_a.device.type
    half = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.bfloat16
    valid = matches_ab >= 0
    with torch.autocast(kind, enabled=False):
        a, b = scale * _unit(descriptors_a), _unit(descriptors_b)
        rows = _block(block, a.shape[1], a.device)
        images = [_Similarities.apply(*pair, rows, half) for pair in zip(a, b, matches_ab, strict=True)]
        of_rows, of_columns, own, nearest = (torch.stack(values) for values in zip(*images, strict=True))
        # The matches are one to one: each pair stands once in either direction.
        surprise = of_rows + of_columns.gather(1, matches_ab.clamp_min(0)) - 2 * own
        learned = valid & ~mirrored[:, None] if mirrored is not None and mirror_pairs == "detector" else valid
        descriptor = surprise[learned].sum() / learned.sum().clamp_min(1)
        labels = torch.cat([nearest, nearest.gather(1, matches_ba.clamp_min(0))], 1)
        known = torch.cat([valid, matches_ba >= 0], 1)
        detector = _detector_loss(torch.cat([logits_a.flatten(1), logits_b.flatten(1)], 1), labels, known)
    matched = nearest.sum() / valid.sum().clamp_min(1)
    return {"loss": descriptor + detector, "descriptor": descriptor, "detector": detector, "matched": matched}


def _detector_loss(logits: Tensor, labels: Tensor, known: Tensor) -> Tensor:
    """Mean binary cross-entropy over the ``known`` of ``(B, 2 P)``."""
    wide = logits[known].to(torch.promote_types(logits.dtype, torch.float32))
    total = F.binary_cross_entropy_with_logits(wide, labels[known].to(wide.dtype), reduction="sum")
    return total / known.sum().clamp_min(1)


@torch.no_grad()
def mutual_nearest(descriptors_a: Tensor, descriptors_b: Tensor, block: int | None = None) -> Tensor:
    """Cells that are each other's nearest by cosine, a tie going to the lower number; made in blocks of rows.

    Args:
        descriptors_a: ``(B, D, S, S)``, any length.
        descriptors_b: The same of other images.
        block: Rows at a time, None as many as suit the device.

    Returns:
        int64 ``(B, P)``: for each cell of a its cell of b, -1 where none.

    Raises:
        ValueError: If the shapes do not fit or ``block`` is below 1.
    """
    _check_pair(descriptors_a, descriptors_b, descriptors_a[:, :1], descriptors_b[:, :1])
    with torch.autocast(descriptors_a.device.type, enabled=False):
        a, b = _unit(descriptors_a), _unit(descriptors_b)
        rows = _block(block, a.shape[1], a.device)
        return torch.stack([_mutual(*pair, rows) for pair in zip(a, b, strict=True)])


def _mutual(a: Tensor, b: Tensor, block: int) -> Tensor:
    numbers = torch.arange(len(a), device=a.device)
    forth, back, best = torch.empty_like(numbers), torch.zeros_like(numbers), torch.full_like(a[:, 0], -torch.inf)
    for part in _parts(len(a), block):
        similar = _product(a[part], b)
        forth[part] = similar.argmax(1)
        values, places = similar.max(0)
        back = torch.where(values > best, places + part.start, back)
        best = torch.maximum(best, values)
    return torch.where(back[forth] == numbers, forth, -1)


def _check_pair(descriptors_a: Tensor, descriptors_b: Tensor, logits_a: Tensor, logits_b: Tensor) -> None:
    shape = descriptors_a.shape
    if len(shape) != 4 or 0 in shape or descriptors_b.shape != shape:
        raise ValueError(f"found descriptors {tuple(shape)} and {tuple(descriptors_b.shape)}, expected (B, D, S, S)")
    expected = (shape[0], 1, *shape[2:])
    if logits_a.shape != expected or logits_b.shape != expected:
        raise ValueError(f"found logits {tuple(logits_a.shape)} and {tuple(logits_b.shape)}, expected {expected}")


def _check_matches(matches_ab: Tensor, matches_ba: Tensor, shape: tuple[int, int]) -> None:
    if matches_ab.shape != shape or matches_ba.shape != shape:
        raise ValueError(f"found matches {tuple(matches_ab.shape)} and {tuple(matches_ba.shape)}, expected {shape}")
    inside = (torch.maximum(matches_ab, matches_ba) < shape[1]).all()
    returned = matches_ab.clamp(0, shape[1] - 1).gather(1, matches_ba.clamp(0, shape[1] - 1))
    inverse = ((matches_ba < 0) | (returned == torch.arange(shape[1], device=returned.device))).all()
    if not (inside & inverse & ((matches_ab >= 0).sum(1) == (matches_ba >= 0).sum(1)).all()):
        raise ValueError("found matches that are not each other's inverse; make both by correspondences()")


# --- keypoints ----------------------------------------------------------------------------------------------------


class Keypoints(NamedTuple):
    """Keypoints of one image, best first.

    Attributes:
        places: ``(N, 2)`` float32, (x, y), pixels of the image.
        scores: ``(N,)`` float32, the detector's probabilities.
        descriptors: ``(N, D)`` float32 of length 1.
    """

    places: Tensor
    scores: Tensor
    descriptors: Tensor


@torch.no_grad()
def keypoints(
    scores: Tensor,
    descriptors: Tensor,
    image_size: Size,
    roi: Tensor | None = None,
    threshold: float = 0.15,
    most: int = 100,
    least: int = 0,
    radius: float = 2.0,
    logits: bool = True,
) -> list[Keypoints]:
    """Keypoints and their descriptors from the maps of both heads (Mallis et al., stage 1).

    Local maxima of the detector's map inside the region of interest whose probability is above ``threshold``; where
    they are fewer than ``least``, the best ``least`` local maxima. Each place moves a quarter of a cell towards its
    higher neighbour along each axis. Descriptors are read there bilinearly, then normalised. Cells that are not finite
    in either map are no keypoints.

    Args:
        scores: ``(B, 1, S, S)``, the detector's map.
        descriptors: ``(B, D, S, S)``.
        image_size: (height, width) of the images, for the places.
        roi: Boxes ``(B, 4)`` (x0, y0, x1, y1) in pixels, NaN where unknown, or bool masks ``(B, S, S)``; None is all.
        threshold: Probability.
        most: At most so many an image, the best.
        least: See above; 0 is off.
        radius: Half the side of the square of suppression, in cells of a 64 x 64 grid; scaled, at least one cell; 0 is
            no suppression.
        logits: Whether ``scores`` are before the sigmoid, or probabilities.

    Returns:
        One :class:`Keypoints` an image, perhaps empty: an empty region has none and is warned of.

    Raises:
        ValueError: For shapes that do not fit or a bad number.
    """
    _check_keypoints(scores, descriptors, roi, most, least, radius)
    size = scores.shape[-1]
    values = scores[:, 0].float()
    finite = values.isfinite() & _finite(descriptors)
    values = values.masked_fill(~finite, -torch.inf)
    region = torch.ones_like(finite) if roi is None else region_mask(roi, size, image_size)
    _warn_of_lost(region, finite)
    candidates = _local_maxima(values, max(1, round(radius * size / REFERENCE_GRID)) if radius else 0)
    ranked = values.masked_fill(~(candidates & region & finite), -torch.inf).flatten(1)
    best, cells = ranked.sort(dim=1, descending=True, stable=True)
    best, cells = best[:, :most], cells[:, :most]
    places = _refined(values, cells)
    found = _lookup(descriptors.float().nan_to_num(0, 0, 0), places)
    places, found = geometry.to_pixels(places, image_size), F.normalize(found, dim=-1)
    probabilities = best.sigmoid() if logits else best
    counts = (probabilities > threshold).sum(1).clamp_min(least).minimum((best > -torch.inf).sum(1))
    return [
        Keypoints(place[:count], score[:count], descriptor[:count])
        for place, score, descriptor, count in zip(places, probabilities, found, counts.tolist(), strict=True)
    ]


def sample_descriptors(descriptors: Tensor, places: Tensor, image_size: Size) -> Tensor:
    """Descriptors at places, bilinearly and not normalised, as :func:`contrastive_loss` takes them; with gradient.

    Args:
        descriptors: ``(B, D, S, S)``.
        places: ``(B, N, 2)``, (x, y), pixels of the images, NaN where missing.
        image_size: (height, width) of the images.

    Returns:
        ``(B, N, D)``; 0 where the place is missing.
    """
    known = places.isfinite().all(-1, keepdim=True)
    normalised = geometry.to_normalised(torch.where(known, places, 0), image_size)
    return torch.where(known, _lookup(descriptors, normalised), 0)


def _lookup(maps: Tensor, points: Tensor) -> Tensor:
    """``(B, D, S, S)`` at normalised ``(B, N, 2)``: ``(B, N, D)``."""
    grid = points.unsqueeze(1).to(maps.dtype)
    return F.grid_sample(maps, grid, align_corners=False, padding_mode="border").squeeze(2).mT


def _local_maxima(values: Tensor, radius: int) -> Tensor:
    """Cells of ``(B, S, S)`` largest in the square round them; of equal neighbours the first. bool ``(B, S, S)``."""
    size = values.shape[-1]
    _, largest = F.max_pool2d(values.unsqueeze(1), 2 * radius + 1, 1, radius, return_indices=True)
    return largest.squeeze(1) == torch.arange(size * size, device=values.device).view(size, size)


def _refined(values: Tensor, cells: Tensor) -> Tensor:
    """Normalised places ``(B, N, 2)`` of cells, a quarter cell towards the higher neighbour; not beyond the border."""
    size = values.shape[-1]
    column, row = cells % size, cells // size
    # A cell without a neighbour on one side is compared with the other one twice: no shift.
    padded = F.pad(values.unsqueeze(1), (1, 1, 1, 1), mode="reflect").flatten(1)
    centre, wide = (row + 1) * (size + 2) + column + 1, size + 2
    shifts = [(padded.gather(1, centre + n) - padded.gather(1, centre - n)).sign() for n in (1, wide)]
    # Between two cells that are not finite there is no slope.
    offsets = torch.stack(shifts, -1).nan_to_num(0) / 4
    return geometry.to_normalised(torch.stack([column, row], -1) + 0.5 + offsets, size)


def region_mask(roi: Tensor, size: int, image_size: Size) -> Tensor:
    """Cells whose centres lie inside boxes.

    Args:
        roi: ``(B, 4)``, (x0, y0, x1, y1) in pixels, or masks ``(B, S, S)``, which pass. A box with a NaN is empty.
        size: S, cells along a side.
        image_size: (height, width) of the images.

    Returns:
        bool ``(B, S, S)``.
    """
    if roi.ndim == 3:
        return roi.bool()
    centres = geometry.to_pixels(geometry.pixel_grid(size, device=roi.device), image_size)
    return ((centres >= roi[:, None, None, :2]) & (centres < roi[:, None, None, 2:])).all(-1)


def _warn_of_lost(region: Tensor, finite: Tensor) -> None:
    # The same words each time: Python's default filter then shows them once.
    if not region.flatten(1).any(1).all():
        warnings.warn("an image with an empty region of interest has no keypoints", RuntimeWarning, stacklevel=4)
    if not finite.all():
        warnings.warn("cells whose score or descriptor is not finite are no keypoints", RuntimeWarning, stacklevel=4)


def _check_keypoints(
    scores: Tensor, descriptors: Tensor, roi: Tensor | None, most: int, least: int, radius: float
) -> None:
    batch, size = scores.shape[0], scores.shape[-1]
    if scores.shape != (batch, 1, size, size) or size < 2:
        raise ValueError(f"found scores of shape {tuple(scores.shape)}, expected (B, 1, S, S), S at least 2")
    if descriptors.ndim != 4 or descriptors.shape[::2] + descriptors.shape[3:] != (batch, size, size):
        raise ValueError(
            f"found descriptors of shape {tuple(descriptors.shape)}, expected ({batch}, D, {size}, {size})"
        )
    if roi is not None and roi.shape not in ((batch, 4), (batch, size, size)):
        raise ValueError(f"found roi of shape {tuple(roi.shape)}, expected ({batch}, 4) or ({batch}, {size}, {size})")
    if not 0 <= least <= most or most < 1:
        raise ValueError(f"found least={least} and most={most}, expected 0 <= least <= most and most at least 1")
    if not (math.isfinite(radius) and radius >= 0):
        raise ValueError(f"found radius={radius}, expected a number of at least 0")


# --- descriptors from labels --------------------------------------------------------------------------------------


def contrastive_loss(
    descriptors_a: Tensor,
    descriptors_b: Tensor,
    places_a: Tensor,
    places_b: Tensor,
    labels_a: Tensor,
    labels_b: Tensor,
    image_size: Size,
    margin: float = 0.8,
    apart: float = 5.7,
    ignore: Tensor | None = None,
    negatives: str = "within",
) -> dict[str, Tensor]:
    """Mallis's descriptor loss, by which D-ULD learns from cluster labels (its section 3.2).

    Positives are points of two images with equal labels: ``d^2``. Negatives are points of *one* image at least
    ``apart``: ``max(0, margin - d)^2``; not those with equal labels. Both sums are divided by the number of all pairs.
    d is Euclidean, between descriptors as they are. Points without a label, such as random places, are negatives only.

    Args:
        descriptors_a: ``(B, N, D)`` of the first image of each pair, see :func:`sample_descriptors`.
        descriptors_b: ``(B, M, D)`` of the second.
        places_a: ``(B, N, 2)``, (x, y), pixels, NaN where a row is padding.
        places_b: ``(B, M, 2)``.
        labels_a: int64 ``(B, N)``, -1 where a point has none.
        labels_b: ``(B, M)``.
        image_size: (height, width) of the images.
        margin: In descriptor space.
        apart: Least distance of negatives, in cells of a 64 x 64 grid.
        ignore: bool ``(R, R)`` over labels, symmetric: pairs that are neither, such as one landmark k in two pose
            clusters. None is no pair.
        negatives: ``within`` one image, as published; ``both``: also points of two images with different labels.

    Returns:
        ``loss`` and its terms ``positive`` and ``negative``, float32 scalars, 0 where there are no pairs.

    Raises:
        ValueError: For shapes that do not fit, or ``negatives`` that are neither.
    """
    if negatives not in ("within", "both"):
        raise ValueError(f"found negatives={negatives!r}, expected within or both")
    a = _Points(descriptors_a, places_a, labels_a, image_size)
    b = _Points(descriptors_b, places_b, labels_b, image_size)
    equal, different = _compare(a, b, ignore)
    across = _distances(a.descriptors, b.descriptors)
    near = [across[equal].square()]
    far = [_within(a, apart, ignore), _within(b, apart, ignore)]
    if negatives == "both":
        far.append(across[different & (a.labels >= 0).unsqueeze(2) & (b.labels >= 0).unsqueeze(1)])
    pairs = max(1, sum(len(distances) for distances in near + far))
    positive = near[0].sum() / pairs
    negative = torch.cat(far).neg().add(margin).clamp_min(0).square().sum() / pairs
    return {"loss": positive + negative, "positive": positive, "negative": negative}


class _Points:
    """Points of images in cells of the reference grid; what is padding has descriptor 0 and ``known`` False."""

    def __init__(self, descriptors: Tensor, places: Tensor, labels: Tensor, image_size: Size):
        if descriptors.ndim != 3 or places.shape != (*descriptors.shape[:2], 2) or labels.shape != places.shape[:2]:
            raise ValueError(
                f"found descriptors {tuple(descriptors.shape)}, places {tuple(places.shape)} and labels "
                f"{tuple(labels.shape)}, expected (B, N, D), (B, N, 2) and (B, N)"
            )
        self.known = places.isfinite().all(-1)
        self.descriptors = torch.where(self.known.unsqueeze(-1), descriptors.float(), 0)
        self.cells = geometry.to_pixels(geometry.to_normalised(places.float(), image_size), REFERENCE_GRID)
        self.labels = labels


def _distances(x: Tensor, y: Tensor) -> Tensor:
    # Not by products: they lose what is left between points that are close, and the slope there.
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def _within(points: _Points, apart: float, ignore: Tensor | None) -> Tensor:
    """Descriptor distances ``(pairs,)`` of the negatives inside each image."""
    _, different = _compare(points, points, ignore)
    pairs = different & (torch.cdist(points.cells, points.cells) >= apart)
    pairs = pairs.triu(1)
    return _distances(points.descriptors, points.descriptors)[pairs]


def _compare(a: _Points, b: _Points, ignore: Tensor | None) -> tuple[Tensor, Tensor]:
    """Bool ``(B, N, M)`` twice: labels are known and equal; not so, where both points are known; never if ignored."""
    x, y = a.labels.unsqueeze(2), b.labels.unsqueeze(1)
    labelled = (x >= 0) & (y >= 0)
    same = labelled & (x == y)
    known = a.known.unsqueeze(2) & b.known.unsqueeze(1)
    if ignore is not None:
        known = known & ~(labelled & ignore[x.clamp_min(0), y.clamp_min(0)])
    return same & known, ~same & known


# --- a region of interest without labels --------------------------------------------------------------------------


class Axis(NamedTuple):
    """Foreground is where a feature of length 1 has ``feature . direction > threshold``.

    Attributes:
        direction: ``(D,)`` float32.
        threshold: float32 scalar.
    """

    direction: Tensor
    threshold: Tensor


class Region(NamedTuple):
    """Regions of interest of a batch.

    Attributes:
        masks: bool ``(B, S, S)``.
        boxes: ``(B, 4)`` float32 (x0, y0, x1, y1) in pixels; NaN where the mask is empty.
        axis: What separated them; hand it in again for further images.
    """

    masks: Tensor
    boxes: Tensor
    axis: Axis


@torch.no_grad()
def region_from_features(features: Tensor, image_size: Size, axis: Axis | None = None, trim: float = 0.02) -> Region:
    """Object against background by the features alone (design of this book; the paper uses a trained detector).

    The first principal component of the features, each of length 1, over all images splits cells in two at the
    threshold between the means of both sides; the foreground is the side that touches the border less. That holds where
    one kind of object fills a middling part of most images and backgrounds differ from it more than its parts do among
    themselves. It fails on crops that the object fills to the border, on backgrounds that are alike in every image, and
    on several objects: there is one box an image. Look at a few masks before you trust it.

    Args:
        features: ``(B, D, S, S)``; to find the axis, many images (some hundreds). Cells that are not finite are
            background and take no part.
        image_size: (height, width) of the images, for the boxes.
        axis: From an earlier call; None finds it here.
        trim: Share of the foreground that a box may leave out at each side: stray cells do not widen it.

    Raises:
        ValueError: If ``features`` are not of that shape, none is finite, or ``trim`` is not in [0, 0.5).
    """
    if features.ndim != 4 or features.shape[-1] != features.shape[-2]:
        raise ValueError(f"found features of shape {tuple(features.shape)}, expected (B, D, S, S)")
    if not 0 <= trim < 0.5:
        raise ValueError(f"found trim={trim}, expected at least 0 and below 0.5")
    finite = _finite(features)
    if axis is None:
        if not finite.any():
            raise ValueError("found no finite feature, expected some to find the axis")
        axis = _foreground_axis(features, finite)
    masks = (_projections(features, axis.direction) > axis.threshold) & finite
    return Region(masks, _boxes(masks, image_size, trim), axis)


@torch.no_grad()
def region_from_masks(features: Tensor, masks: Tensor, shrinkage: float = 0.1) -> Axis:
    """An axis from examples of regions, such as boxes of training images, for images without.

    Fisher's linear discriminant between cells inside and outside, on features of length 1, with the threshold half-way
    between both means. It stands in for the detector of objects by which the paper finds its regions.

    Args:
        features: ``(B, D, S, S)``; cells that are not finite take no part.
        masks: bool ``(B, S, S)``.
        shrinkage: Share of the mean variance that joins the variance along every direction: there may be more
            directions than the examples tell apart.

    Returns:
        What :func:`region_from_features` takes. Its direction has length 1.

    Raises:
        ValueError: If shapes do not fit, or no finite cell lies inside, or none outside.
    """
    if features.ndim != 4 or masks.shape != (len(features), *features.shape[2:]):
        raise ValueError(f"found features {tuple(features.shape)} and masks {tuple(masks.shape)}, expected one a cell")
    finite = _finite(features)
    inside, outside = (_moments(features, side & finite) for side in (masks, ~masks))
    if not inside[0] or not outside[0]:
        raise ValueError(f"found {int(inside[0])} cells inside and {int(outside[0])} outside, expected some of both")
    means, total = [moments[1] / moments[0] for moments in (inside, outside)], inside[0] + outside[0]
    scatter = sum(
        moments[2] - moments[0] * torch.outer(mean, mean)
        for moments, mean in zip((inside, outside), means, strict=True)
    )
    within = scatter / total
    within.diagonal().add_(shrinkage * within.trace() / len(within) + 1e-12)
    # w = S_w^-1 (m_1 - m_0)
    direction = F.normalize(torch.linalg.solve(within, means[0] - means[1]), dim=0)
    return Axis(direction.float(), ((means[0] + means[1]) @ direction / 2).float())


def _moments(features: Tensor, kept: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Number, sum and sum of outer products of the ``kept`` cells, float64; one image at a time."""
    width = features.shape[1]
    total = torch.zeros(width, dtype=torch.float64, device=features.device)
    moment = torch.zeros(width, width, dtype=torch.float64, device=features.device)
    for image, here in zip(features, kept, strict=True):
        cells = _unit_cells(image)[here.flatten()].double()
        total += cells.sum(0)
        moment += cells.T @ cells
    return kept.sum(), total, moment


def _unit_cells(image: Tensor) -> Tensor:
    """``(D, S, S)`` to ``(P, D)`` of length 1; 0 where not finite."""
    return F.normalize(image.float().nan_to_num(0, 0, 0).flatten(1).T, dim=1)


def _projections(features: Tensor, direction: Tensor) -> Tensor:
    """``(B, D, S, S)`` to how far each cell's feature, of length 1, reaches along ``(D,)``: ``(B, S, S)``."""
    features = features.float()
    # (f / |f|) w, without a copy of f
    return torch.einsum("bdhw,d->bhw", features, direction) / features.norm(dim=1).clamp_min(1e-12)


def _finite(features: Tensor) -> Tensor:
    """Cells ``(B, S, S)`` whose ``(B, D, S, S)`` features are all finite: then so is their sum."""
    return features.sum(1, dtype=torch.float64).isfinite()


def _foreground_axis(features: Tensor, finite: Tensor) -> Axis:
    count, total, moment = _moments(features, finite)
    mean = total / count
    direction = torch.linalg.eigh(moment / count - torch.outer(mean, mean)).eigenvectors[:, -1].float()
    values = _projections(features, direction)
    threshold = _two_means(values[finite])
    border = torch.ones_like(finite)
    border[:, 1:-1, 1:-1] = False
    touching = [(border & side).sum() / side.sum().clamp_min(1) for side in _sides(values, threshold, finite)]
    sign = 1.0 if touching[0] <= touching[1] else -1.0
    return Axis(sign * direction, sign * threshold)


def _sides(values: Tensor, threshold: Tensor, finite: Tensor) -> tuple[Tensor, Tensor]:
    return (values > threshold) & finite, (values <= threshold) & finite


def _two_means(values: Tensor, steps: int = 20) -> Tensor:
    """Threshold half-way between the means of what lies on either side of it (k-means with k = 2 on a line)."""
    threshold = values.mean()
    for _ in range(steps):
        above = values > threshold
        if above.all() or not above.any():
            break
        threshold = (values[above].mean() + values[~above].mean()) / 2
    return threshold


def _boxes(masks: Tensor, image_size: Size, trim: float) -> Tensor:
    """The smallest boxes ``(B, 4)`` that leave out at most ``trim`` of a mask at each side."""
    size = masks.shape[-1]
    total = masks.sum((1, 2))
    counts = torch.stack([masks.sum(1), masks.sum(2)], 1)
    skipped = (trim * total)[:, None, None]
    low = (counts.cumsum(2) <= skipped).sum(2)
    high = size - (counts.flip(2).cumsum(2) <= skipped).sum(2)
    corners = geometry.to_pixels(geometry.to_normalised(torch.stack([low, high], 1).float(), size), image_size)
    return corners.flatten(1).masked_fill((total == 0).unsqueeze(1), torch.nan)
