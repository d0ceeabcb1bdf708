"""The core of Inter-Intra's detector: an hourglass trained on labelled people (Li et al., ICPR 2020, section IV-A).

Not a method without labels, but what one starts from: Sanchez and Tzimiropoulos (NeurIPS 2019) train the detector for
human pose, freeze it, and adapt it to other objects without labels. Inter-Intra's text says 19 landmarks on MPII, whose
people have 16 joints; the last layer is thrown away in any case, so nothing hangs on the number.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ulm import geometry
from ulm.datasets.base import Dataset
from ulm.datasets.cache import CachedDataset
from ulm.errors import InputError
from ulm.geometry import WarpScale
from ulm.methods import views
from ulm.methods.base import Detector
from ulm.methods.training import cosine, descend
from ulm.networks import hourglass
from ulm.networks.hourglass import Hourglass
from ulm.runs import autocast, generator

# About as much as Newell et al. (ECCV 2016), who turn by up to 30 degrees and scale by up to a quarter.
AUGMENTATION = WarpScale(rotation=15, scale=0.15, translation=0.05)


class PoseCore(Detector):
    """An hourglass trained to find annotated joints; unlike all detectors without labels, ``fit`` looks at them.

    Args:
        n_landmarks: Joints; 16 as on MPII.
        image_size: Side of the images; that of the detectors which are to be built on it.
        width: Channels of its features; the same holds.
        beta: Factor on the score maps before the softmax; 10 as in Inter-Intra, equation 1.
        subset: A named subset of the data set's points, such as ``mpii-16``; default: all of them.
        sigma: Deviation in cells of the Gaussian that the softmax of a joint's map should be. The sources do not state
            the loss of this training.
        learning_rate: Of Adam, with a short warm-up and a half cosine to zero.
        batch_size: Images in a step.
        steps: Steps of training.
        precision: ``auto`` computes convolutions in bfloat16 where the processor is fast at it.
        seed: Of initialisation, order and augmentation.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N``.

    Raises:
        InputError: For a bad value.
    """

    name = "pose-core"
    counts = ("n_landmarks", "width", "batch_size", "steps")

    def __init__(
        self,
        n_landmarks: int = 16,
        image_size: int = 128,
        width: int = 256,
        beta: float = 10.0,
        subset: str | None = None,
        sigma: float = 1.0,
        learning_rate: float = 1e-3,
        batch_size: int = 32,
        steps: int = 100_000,
        precision: str = "auto",
        seed: int = 0,
        device: str = "auto",
    ):
        for name in self.parameter_names():
            setattr(self, name, locals()[name])
        self._check_common()
        for name in ("beta", "sigma", "learning_rate"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
                raise InputError(f"found {name}={value!r}, expected a positive number")
        if precision not in ("auto", "float32", "bfloat16"):
            raise InputError(f"found precision={precision!r}, expected one of auto, float32, bfloat16")
        hourglass.n_levels(image_size)
        hourglass.check_width(width)

    def _build(self) -> nn.ModuleDict:
        return nn.ModuleDict({"pose": Hourglass(self.n_landmarks, self.image_size, self.width, self.beta)})

    def _landmarks(self, images: Tensor) -> Tensor:
        return geometry.to_pixels(self.networks["pose"](images), self.image_size)

    def _optimisers(self) -> dict[str, torch.optim.Optimizer]:
        return {"model": torch.optim.Adam(self.networks.parameters(), lr=self.learning_rate)}

    def _check_data(self, dataset: Dataset) -> CachedDataset:
        from ulm.evaluation.reports import subset_groups

        data = super()._check_data(dataset)
        self._groups = subset_groups(data.info, self.subset, data.landmarks.shape[1])
        if len(self._groups) != self.n_landmarks:
            raise InputError(
                f"{data.info.name}: found {len(self._groups)} points for n_landmarks={self.n_landmarks}, expected as "
                "many; set n_landmarks, or name a subset of the points by subset"
            )
        if data.landmarks.isnan().all():
            raise InputError(f"{data.info.name}: found no labelled point; a pose core learns from labels, give some")
        return data

    def _batch(self, data: CachedDataset, step: int) -> tuple[Tensor, Tensor | None]:
        from ulm.evaluation.metrics import select_points

        batch = data.batch(self._indices(data, step)[0].tolist())
        chosen = torch.as_tensor(select_points(batch["landmarks"], self._groups), dtype=torch.float32)
        points = geometry.to_normalised(chosen, (batch["image"].shape[-2], batch["image"].shape[-1]))
        return self._prepare(batch["image"]), points.to(self.torch_device)

    def _train_step(self, images: Tensor, points: Tensor | None, step: int) -> dict[str, Tensor]:
        """One step on ``(B, 3, S, S)`` images in [0, 1] and their normalised joints ``(B, K, 2)``."""
        assert points is not None
        view = views.draw_windows(len(images), AUGMENTATION, generator(self.torch_device, self.seed, 3, step))
        shown = views.sample(view, images, self.image_size)
        with autocast(self.torch_device, self.precision):
            maps = self.networks["pose"].heatmaps(shown)
        loss = pose_loss(maps, views.to_view(view, points), self.sigma)
        descend(self.optimisers["model"], loss, self.learning_rate * cosine(step, self.steps))
        return {"pose": loss.detach()}


def pose_loss(maps: Tensor, points: Tensor, sigma: float) -> Tensor:
    """Cross-entropy ``- sum_i q_i log p_i`` of score maps with Gaussians at the joints, mean over known joints.

    Args:
        maps: Logits of p, ``(B, K, n, n)``.
        points: ``(B, K, 2)``, normalised; NaN where unknown. Those outside the image do not count either.
        sigma: Deviation of q in cells.

    Returns:
        A scalar; 0 where no joint is known.
    """
    n = maps.shape[-1]
    known = (points.abs() <= 1).all(-1)  # False for NaN
    wanted = geometry.gaussian_maps(points[known][None], n, 2 * sigma / n)[0].flatten(1)
    wanted = wanted / wanted.sum(-1, keepdim=True)
    entropy = -(wanted * maps[known].flatten(1).log_softmax(-1)).sum(-1)
    return entropy.sum() / known.sum().clamp_min(1)
