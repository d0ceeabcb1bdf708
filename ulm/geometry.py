"""Coordinates, soft-argmax, Gaussian maps, affine and thin-plate-spline warps, and points that lie far apart.

Two conventions for normalised coordinates live here and nowhere else. The book's own has -1 and 1 at the image's
*edges* (``align_corners=False``); IMM's authors put them at the *centres* of the first and last cell
(``align_corners=True``), and their method keeps that inside. Points are always (x, y).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

Size = int | tuple[int, int]


def _height_width(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def to_normalised(points: Tensor, size: Size) -> Tensor:
    """Pixels of an image of ``size`` (height, width) to [-1, 1] with the image's edges at -1 and 1.

    Args:
        points: ``(..., 2)``, (x, y), first pixel's centre at (0.5, 0.5).
        size: (height, width), or one number for a square.
    """
    height, width = _height_width(size)
    return points * points.new_tensor([2 / width, 2 / height]) - 1


def to_pixels(points: Tensor, size: Size) -> Tensor:
    """The inverse of :func:`to_normalised`: [-1, 1] (edges) to pixels of an image of ``size`` (height, width)."""
    height, width = _height_width(size)
    return (points + 1) * points.new_tensor([width / 2, height / 2])


def cell_coordinates(n: int, align_corners: bool = False, device: torch.device | None = None) -> Tensor:
    """Normalised coordinates ``(n,)`` of the centres of ``n`` cells along one axis."""
    if align_corners:
        return torch.linspace(-1, 1, n, device=device)
    return (torch.arange(n, device=device, dtype=torch.float32) + 0.5) * (2 / n) - 1


def pixel_grid(size: Size, align_corners: bool = False, device: torch.device | None = None) -> Tensor:
    """Normalised coordinates ``(H, W, 2)``, (x, y), of the centres of all cells."""
    height, width = _height_width(size)
    y, x = torch.meshgrid(
        cell_coordinates(height, align_corners, device), cell_coordinates(width, align_corners, device), indexing="ij"
    )
    return torch.stack([x, y], dim=-1)


def axis_marginals(logits: Tensor, form: str = "mean") -> tuple[Tensor, Tensor]:
    """The two marginal distributions of each heatmap, over columns (x) and over rows (y).

    ``mean`` and ``sum`` are IMM's separable variant (section 3.1): a softmax along each axis of the logits averaged
    (the authors' code) or added up (the paper) over the other axis. ``joint`` is equation 1: one softmax over all
    cells, then added up.

    Args:
        logits: ``(B, K, h, w)``.
        form: ``mean``, ``sum`` or ``joint``.

    Returns:
        ``(B, K, w)`` and ``(B, K, h)``, each summing to 1 along its last axis.
    """
    logits = logits.float()
    if form == "joint":
        probabilities = logits.flatten(2).softmax(-1).view_as(logits)
        return probabilities.sum(2), probabilities.sum(3)
    if form == "mean":
        return logits.mean(2).softmax(-1), logits.mean(3).softmax(-1)
    if form == "sum":
        return logits.sum(2).softmax(-1), logits.sum(3).softmax(-1)
    raise ValueError(f"found softmax form {form!r}, expected mean, sum or joint")


def soft_argmax(logits: Tensor, form: str = "joint", align_corners: bool = False) -> Tensor:
    """Expected place of each heatmap (IMM, equation 1 and its separable variant).

    Args:
        logits: ``(B, K, h, w)``.
        form: See :func:`axis_marginals`.
        align_corners: Whether -1 and 1 are the centres of the outer cells (IMM) or the edges of the map.

    Returns:
        ``(B, K, 2)`` float32, (x, y), normalised.
    """
    along_x, along_y = axis_marginals(logits, form)
    x = along_x @ cell_coordinates(logits.shape[-1], align_corners, logits.device)
    y = along_y @ cell_coordinates(logits.shape[-2], align_corners, logits.device)
    return torch.stack([x, y], dim=-1)


def gaussian_maps(
    points: Tensor, size: Size, sigma: float = 0.1, halved: bool = True, align_corners: bool = False
) -> Tensor:
    """A Gaussian bump of height 1 at each point (IMM, equation 2).

    Args:
        points: ``(B, K, 2)``, (x, y), normalised.
        size: (h, w) of the maps.
        sigma: In normalised units.
        halved: ``exp(-d^2 / (2 sigma^2))`` as in the paper, or ``exp(-d^2 / sigma^2)`` as in the authors' code.
        align_corners: See :func:`soft_argmax`.

    Returns:
        ``(B, K, h, w)`` float32.
    """
    height, width = _height_width(size)
    scale = (2 if halved else 1) * sigma**2
    dx = cell_coordinates(width, align_corners, points.device) - points[..., :1].float()
    dy = cell_coordinates(height, align_corners, points.device) - points[..., 1:].float()
    # exp(-(dx^2 + dy^2) / s) = exp(-dy^2 / s) exp(-dx^2 / s)
    return (-dy.square() / scale).exp().unsqueeze(-1) * (-dx.square() / scale).exp().unsqueeze(-2)


@lru_cache(maxsize=16)
def border_mask(size: int) -> Tensor:
    """Weight of each pixel in IMM's reconstruction loss before warping, ``(1, 1, size, size)`` in [0, 1].

    A separable strip: at 128 pixels 10 zeros, a ramp of 20 pixels ``0.5 + 0.5 tanh(t / 0.4)`` for t in [-1, 1], then
    ones, mirrored (the authors' code); other sizes scale it.
    """
    margin, ramp = round(size * 10 / 128), round(size * 20 / 128)
    rise = 0.5 + 0.5 * torch.tanh(torch.linspace(-1, 1, ramp) / 0.4)
    strip = torch.cat(
        [torch.zeros(margin), rise, torch.ones(size - 2 * (margin + ramp)), rise.flip(0), torch.zeros(margin)]
    )
    return (strip[:, None] * strip[None, :])[None, None]


@dataclass(frozen=True)
class WarpScale:
    """Standard deviations from which random warps are drawn.

    Attributes:
        rotation: Degrees.
        scale: Of the scale about 1. The warp maps output to input places, so a scale above 1 zooms out.
        translation: For each axis, in [-1, 1] units.
        bending: Of the spline coefficients, ``a N + b Bernoulli(0.5) N``.
        bending_half: ``b`` above.
        displacement: Of each control point along each axis, in [-1, 1] units; the spline's coefficients are solved for.
            Unlike the two above, which act mostly as an affine map that grows toward the borders, it bends everywhere.
        n_control: Control points along one side.
    """

    rotation: float = 0.0
    scale: float = 0.0
    translation: float = 0.0
    bending: float = 0.0
    bending_half: float = 0.0
    displacement: float = 0.0
    n_control: int = 10

    def times(self, factor: float) -> WarpScale:
        """The same warp, all deviations multiplied by ``factor``."""
        deviations = [name for name in self.__dataclass_fields__ if name != "n_control"]
        return replace(self, **{name: getattr(self, name) * factor for name in deviations})


# The authors' code (notes of the chapter 'IMM, step by step'): drawn for the target, then again for the source.
RELEASE_TARGET = WarpScale(translation=0.1, bending=0.001, bending_half=0.005)
RELEASE_SOURCE = WarpScale(rotation=5, scale=0.1, translation=0.1, bending=0.001, bending_half=0.01)
# Bends everywhere: a rigid pattern of landmarks that follows the object as a whole no longer suffices.
LOCAL = WarpScale(rotation=10, scale=0.1, translation=0.1, displacement=0.08, n_control=6)
WARPS = {"release": (RELEASE_SOURCE, RELEASE_TARGET), "local": (LOCAL, LOCAL)}


def spline_kernel(points: Tensor, control: Tensor) -> Tensor:
    """Thin-plate kernel ``U(r) = r^2 log r^2`` between ``(..., P, 2)`` and ``(C, 2)``: ``(..., P, C)``."""
    squared = (points.unsqueeze(-2) - control).square().sum(-1).clamp_min(1e-8)
    return squared * squared.log()


@lru_cache(maxsize=32)
def _grid_basis(size: tuple[int, int], n_control: int, align_corners: bool, device: torch.device) -> Tensor:
    """Kernel, coordinates and ones at all pixels, ``(H W, C + 3)``: a grid is one small matrix product."""
    places = pixel_grid(size, align_corners, device).reshape(-1, 2)
    ones = torch.ones(len(places), 1, device=device)
    return torch.cat([spline_kernel(places, control_points(n_control, device)), places, ones], dim=1)


def control_points(n: int, device: torch.device | None = None) -> Tensor:
    """A regular ``n`` x ``n`` grid on [-1, 1]^2 as ``(n n, 2)``."""
    return pixel_grid(n, align_corners=True, device=device).reshape(-1, 2)


class Warp:
    """A batch of thin-plate-spline maps from *output* to *input* coordinates.

    ``g(u) = A u + t + sum_c w_c U(|u - c|)``: the warped image at ``u`` shows what the input has at ``g(u)``. So a
    landmark at ``u`` in the warped image lies at ``g(u)`` in the input; no inverse is needed.

    Args:
        coefficients: ``(B, C + 3, 2)``: the w_c, then the two rows of A transposed, then t.
    """

    def __init__(self, coefficients: Tensor):
        self.coefficients = coefficients
        self.n_control = math.isqrt(coefficients.shape[1] - 3)

    def __call__(self, points: Tensor) -> Tensor:
        """Where ``(B, P, 2)`` normalised output points lie in the input; the same shape."""
        kernel = spline_kernel(points, control_points(self.n_control, points.device))
        basis = torch.cat([kernel, points, torch.ones_like(points[..., :1])], dim=-1)
        return basis @ self.coefficients

    def grid(self, size: Size, align_corners: bool = False) -> Tensor:
        """Sampling grid ``(B, H, W, 2)`` for ``torch.nn.functional.grid_sample``."""
        height, width = _height_width(size)
        basis = _grid_basis((height, width), self.n_control, align_corners, self.coefficients.device)
        # One product for the whole batch: (H W, C + 3) by (C + 3, B 2).
        places = basis @ self.coefficients.permute(1, 0, 2).flatten(1)
        return places.view(height, width, -1, 2).permute(2, 0, 1, 3)

    def sample(self, images: Tensor, align_corners: bool = False) -> Tensor:
        """Warp ``(B, C, H, W)`` bilinearly; zeros outside the input."""
        grid = self.grid((images.shape[-2], images.shape[-1]), align_corners)
        return F.grid_sample(images, grid.to(images.dtype), align_corners=align_corners)


@lru_cache(maxsize=8)
def _spline_solver(n_control: int, device: torch.device) -> Tensor:
    """``(C + 3, C)``: displacements of the control points to the coefficients of the spline through them."""
    control = control_points(n_control).double()
    affine = torch.cat([control, torch.ones(len(control), 1, dtype=torch.float64)], dim=1)
    kernel = spline_kernel(control, control)
    system = torch.cat(
        [torch.cat([kernel, affine], 1), torch.cat([affine.T, torch.zeros(3, 3, dtype=torch.float64)], 1)]
    )
    return torch.linalg.inv(system)[:, : len(control)].float().to(device)


def draw_warps(batch: int, scale: WarpScale, generator: torch.Generator) -> Warp:
    """Draw random warps.

    Args:
        batch: How many.
        scale: Standard deviations.
        generator: Random numbers; its device is the warps' device.
    """
    device = generator.device

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    angle = normal(batch) * math.radians(scale.rotation)
    zoom = 1 + scale.scale * normal(batch)
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    linear = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2)
    translation = normal(batch, 1, 2) * scale.translation
    shape = (batch, scale.n_control**2, 2)
    # The authors' code draws the coefficients themselves.
    half = torch.rand(*shape, generator=generator, device=device) < 0.5
    bending = scale.bending * normal(*shape) + scale.bending_half * half * normal(*shape)
    coefficients = torch.cat([bending, linear, translation], dim=1)
    if scale.displacement:
        solver = _spline_solver(scale.n_control, device)
        coefficients = coefficients + solver @ (scale.displacement * normal(*shape))
    return Warp(coefficients)


def furthest_points(points: Tensor, k: int) -> Tensor:
    """Choose ``k`` points that lie far apart: the most distant pair, then always the point furthest from those chosen.

    StableKeypoints, equation 10. Each set of the batch is chosen from by itself; ties go to the lower index.

    Args:
        points: ``(..., P, 2)``.
        k: How many, at most P.

    Returns:
        int64 ``(..., k)``, indices in the order of choice, all different.

    Raises:
        ValueError: If ``k`` is not from 1 to P.
    """
    n = points.shape[-2]
    if not 1 <= k <= n:
        raise ValueError(f"found k={k} for {n} points, expected 1 to {n}")
    distances = (points.unsqueeze(-2) - points.unsqueeze(-3)).float().norm(dim=-1)
    # The pair (i, j) is number n i + j.
    pair = distances.flatten(-2).argmax(-1)
    chosen = [pair // n]
    # Distance of each point to its nearest chosen one; -1 for the chosen themselves.
    nearest = torch.full(distances.shape[:-1], torch.inf, device=points.device)
    while len(chosen) < k:
        last = chosen[-1].unsqueeze(-1)
        row = distances.gather(-2, last.unsqueeze(-1).expand(*last.shape, n)).squeeze(-2)
        nearest = torch.minimum(nearest, row).scatter(-1, last, -1.0)
        chosen.append(nearest.argmax(-1))
    return torch.stack(chosen, dim=-1)
