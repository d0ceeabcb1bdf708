"""A network trained on the labels, for comparison."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ulm import geometry
from ulm.errors import InputError
from ulm.evaluation.arrays import Points, to_array
from ulm.methods.training import cosine, descend
from ulm.networks.imm import MAP_SIZE, PoseEncoder
from ulm.runs import autocast


class SupervisedBaseline:
    """IMM's pose encoder trained on the labels alone: what the same few labels give without discovery.

    The L points are regressed through the heatmaps' soft-argmax with a smooth l1 loss, on randomly rotated, scaled and
    shifted images. A cross entropy between heatmaps and Gaussians about the points is added: without it 300 labels
    and a few hundred steps did not beat the mean shape by much.

    Args:
        image_size: Side that images are resized to, a power of two.
        width: Channels of the encoder's first block.
        steps: Training steps.
        batch_size: Images a step.
        learning_rate: Adam's, rising over the first tenth of the steps, then falling along a cosine.
        seed: Of initialisation, order and augmentation.
        device: Where it is trained.
    """

    AUGMENTATION = geometry.WarpScale(rotation=10, scale=0.1, translation=0.05, n_control=2)

    def __init__(
        self,
        image_size: int = 64,
        width: int = 16,
        steps: int = 400,
        batch_size: int = 16,
        learning_rate: float = 5e-3,
        seed: int = 0,
        device: str = "cpu",
    ):
        self.image_size, self.width, self.steps, self.batch_size = image_size, width, steps, batch_size
        self.learning_rate, self.seed, self.device = learning_rate, seed, torch.device(device)
        self.network: PoseEncoder | None = None

    def fit(self, images: Tensor, landmarks: Points) -> SupervisedBaseline:
        """Train on ``(n, 3, H, W)`` in [0, 1] and ``(n, L, 2)`` pixels of them; NaN points are left out of the loss.

        Raises:
            InputError: No image has a labelled point.
        """
        target = torch.as_tensor(to_array(landmarks), dtype=torch.float32, device=self.device)
        target = geometry.to_normalised(target, (images.shape[-2], images.shape[-1]))
        labelled = (~target.isnan().any(-1)).any(-1)
        if not labelled.any():
            raise InputError("found no labelled point in the images to train on; give images with labels")
        images, target = self._prepare(images)[labelled], target[labelled]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.network = PoseEncoder(target.shape[1], self.image_size, self.width, softmax="joint")
        self.network.to(self.device, memory_format=torch.channels_last)
        for layer in self.network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = 0.1  # IMM's 0.01 is for runs of a hundred thousand steps
        optimiser = torch.optim.Adam(self.network.parameters(), fused=True)
        generator = torch.Generator(self.device).manual_seed(self.seed)
        self.network.train()
        for step in range(self.steps):
            rows = torch.randint(len(images), (self.batch_size,), generator=generator, device=self.device)
            shown, points = self._augment(images[rows], target[rows], generator)
            loss = self._loss(self._heatmaps(shown), points)
            descend(optimiser, loss, self.learning_rate * cosine(step, self.steps, max(1, self.steps // 10)))
        self.network.eval()
        return self

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` in [0, 1] to ``(B, L, 2)`` pixels of them. Raises InputError before ``fit``."""
        if self.network is None:
            raise InputError("this baseline has no weights yet; call fit")
        heatmaps = self._heatmaps(self._prepare(images))
        return geometry.to_pixels(self._points(heatmaps).cpu(), (images.shape[-2], images.shape[-1]))

    def _heatmaps(self, images: Tensor) -> Tensor:
        assert self.network is not None
        with autocast(self.device):
            return self.network.heatmaps(images.contiguous(memory_format=torch.channels_last))

    def _points(self, heatmaps: Tensor) -> Tensor:
        # The soft-argmax puts -1 and 1 at the centres of the outer of 16 cells, the book at the image's edges.
        return geometry.soft_argmax(heatmaps, align_corners=True) * (1 - 1 / MAP_SIZE)

    def _loss(self, heatmaps: Tensor, points: Tensor) -> Tensor:
        known = ~points.isnan().any(-1)
        goal = geometry.gaussian_maps(points[known][None], MAP_SIZE, sigma=0.1)[0].flatten(1)
        goal = goal / (goal.sum(1, keepdim=True) + 1e-6)
        log_probability = heatmaps[known].flatten(1).log_softmax(1)
        return (
            F.smooth_l1_loss(self._points(heatmaps)[known], points[known], beta=0.05)
            - (goal * log_probability).sum(1).mean()
        )

    def _prepare(self, images: Tensor) -> Tensor:
        images, side = images.to(self.device).float(), (self.image_size, self.image_size)
        if (images.shape[-2], images.shape[-1]) == side:
            return images
        return F.interpolate(images, size=side, mode="bilinear", align_corners=False, antialias=True)

    def _augment(self, images: Tensor, points: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        warp = geometry.draw_warps(len(images), self.AUGMENTATION, generator)
        # The warp maps output to input places, p = u A + t, so a point moves by its inverse.
        linear, shift = warp.coefficients[:, -3:-1], warp.coefficients[:, -1:]
        return warp.sample(images), (points - shift) @ torch.linalg.inv(linear)
