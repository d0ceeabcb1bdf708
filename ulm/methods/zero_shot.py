"""ZeroShot: landmarks from diffusion features by clustering alone (Tourani et al., CVPR 2024, section 3.1).

Of every training image some random pixels inside the region of interest are described by their features, and all
descriptors are clustered by k-means. The centroids are the *exemplars*, the whole of the model. In a new image each
pixel of the region belongs to its nearest centroid, and the pixel nearest to each is that landmark. Nothing is trained.

What the paper leaves open or says in two ways, beside the table of :mod:`ulm.methods.features`:

====================  ==================================================================================================
option                default, and why
====================  ==================================================================================================
``aggregator``        ``""``: taps of unit length one behind another, nothing learnt. The paper has a trained
                      aggregation network and names no loss for it; the weights that Diffusion Hyperfeatures publishes
                      (a path) learnt from annotated keypoints, those of D-ULD's bootstrapping (``start``) did not
``matching``          ``dense``: every cell of the region, which is what random pixels tend to; ``random``: the paper's
                      random pixels, at which two looks at an image may differ by where they fell
``missing``           ``nan``: a landmark whose cluster has no pixel in the image is missing, as the paper's exemplar
                      assignment has it; ``nearest``: it is the nearest pixel, whichever cluster that is in
``centre``            False, as published; True: an image's mean over its region is taken off its descriptors, so that
                      they tell what sets a place apart from the rest of its image. Features of a small diffusion
                      model tell images apart more than places: clusters then hold a few images each, and an image
                      misses landmarks. The profile ``laptop`` has True
``samples``           100 pixels an image; the paper gives no number
====================  ==================================================================================================
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ulm import geometry
from ulm.clustering import kmeans
from ulm.datasets.base import Dataset
from ulm.datasets.cache import CachedDataset
from ulm.errors import InputError
from ulm.methods.bootstrapping import sample_descriptors
from ulm.methods.features import CPU, OnFeatures, Taps, sample_places, without_mean
from ulm.methods.training import Trainable, check_choices
from ulm.networks.aggregation import Aggregator, concatenated
from ulm.runs import generator

CHOICES = {"matching": ("dense", "random"), "missing": ("nan", "nearest")}


class ZeroShot(OnFeatures):
    """ZeroShot as a detector. Only the exemplars are found and saved; the diffusion model is named.

    ``fit`` collects descriptors, a batch of images a step, and clusters them at its end. They take ``images`` x
    ``samples`` x D x 4 bytes, D the sum of the taps' channels (or ``projection_dim``), and clustering thrice that.

    Args:
        n_landmarks: K.
        image_size: Side of the images (512 in Stable Diffusion). The diffusion model resizes them to its own size.
        backbone: A name for :func:`ulm.diffusion.pipelines.load`: ``pocket``, a folder or a hub id.
        layers: Decoder residual blocks that are tapped, by order of execution, 0 to 11; None: 3 to 11.
        timesteps: See the table of :mod:`ulm.methods.features`; None: 10 in one step.
        walk: ``one-step`` or ``inversion``.
        inversion_steps: Of the whole inversion.
        grid: Cells along a side of the feature maps; 0: the latents' own.
        aggregator: ``""``, ``start`` (that of the model handed to ``fit(start=...)``), or a ``.safetensors`` file of
            published weights, see :meth:`ulm.networks.aggregation.Aggregator.load_published`.
        projection_dim: Channels of the aggregated features; 384 as published. Unused without an aggregator.
        region: Where pixels are taken from: ``box`` (of the data set), ``features`` (object against background by the
            features alone, see :func:`ulm.methods.bootstrapping.region_from_features`), ``image``, or ``auto``: boxes
            where there are any, else features. A prediction gets images alone: unless boxes are handed to it, it tells
            regions by the features, with ``box`` by what they had in common inside the training boxes.
        region_images: Training images on which that is found.
        images: Training images whose pixels are clustered; with more than there are, some are looked at again.
        samples: Random pixels of each.
        centre: See the table.
        matching: See the table.
        missing: See the table.
        batch_size: Images in a step of collecting.
        micro_batch: Images that are in the network at once.
        budget: GiB that features of training images may take in the cache; 0: ZeroShot looks at each once.
        precision: ``auto`` runs the diffusion model in bfloat16 where the device is fast at it.
        cache: Where latents and features are kept, ``disk`` (in ``$ULM_CACHE``) or ``memory``.
        seed: Of the choice of images and pixels, of noise, and of k-means.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N``.

    Raises:
        InputError: For a value that is none of those named.
    """

    name = "zero-shot"
    detector_parts = ("origin", "exemplars", "aggregator")
    saved_parts = detector_parts
    default_layers = tuple(range(3, 12))
    prediction = ("matching", "missing", "micro_batch")
    learned = "exemplars"
    counts = (
        "n_landmarks", "image_size", "inversion_steps", "projection_dim", "region_images", "images", "samples",
        "batch_size", "micro_batch",
    )  # fmt: skip

    def __init__(
        self,
        n_landmarks: int = 10,
        image_size: int = 512,
        backbone: str = "pocket",
        layers: Sequence[int] | None = None,
        timesteps: Sequence[int] | None = None,
        walk: str = "one-step",
        inversion_steps: int = 50,
        grid: int = 0,
        aggregator: str = "",
        projection_dim: int = 384,
        region: str = "auto",
        region_images: int = 64,
        images: int = 1000,
        samples: int = 100,
        centre: bool = False,
        matching: str = "dense",
        missing: str = "nan",
        batch_size: int = 16,
        micro_batch: int = 4,
        budget: float = 0.0,
        precision: str = "auto",
        cache: str = "disk",
        seed: int = 0,
        device: str = "auto",
    ):
        for name in self.parameter_names():
            setattr(self, name, locals()[name])
        self._check_common()
        self._check_features()
        check_choices(self, CHOICES)
        self._boxes: Tensor | None = None

    @property
    def steps(self) -> int:  # type: ignore[override]
        """Batches of images that are looked at."""
        return math.ceil(self.images / self.batch_size)

    # --- networks -------------------------------------------------------------------------------------------------

    def _networks(self, channels: list[int], size: int) -> dict[str, nn.Module]:
        times = len(self.used_timesteps)
        length = self.projection_dim if self.aggregator else times * sum(channels)
        networks: dict[str, nn.Module] = {
            "exemplars": Exemplars(self.n_landmarks, length),
            "pool": Pool(self.steps * self.batch_size * self.samples, length),
        }
        if self.aggregator:
            networks["aggregator"] = Aggregator(channels, times, self.projection_dim, size, resize="after")
        return networks

    def _build(self) -> nn.ModuleDict:
        networks = super()._build()
        if self.aggregator not in ("", "start"):
            networks["aggregator"].load_published(self.aggregator)
        return networks

    def _check_data(self, dataset: Dataset) -> CachedDataset:
        data = super()._check_data(dataset)
        self._boxes = self._box_of(data)
        return data

    def fit(self, dataset: Dataset, *, start: Trainable | None = None, **options: Any) -> ZeroShot:
        """Collect descriptors of ``dataset`` and cluster them; its landmarks are never looked at.

        Args:
            dataset: Any data set of the contract.
            start: A model with an aggregation network, for ``aggregator="start"``, such as D-ULD's bootstrapping.
            options: See :meth:`ulm.methods.training.Trainable.fit`.

        Raises:
            InputError: As there; also if ``start`` is missing or not asked for, or no pixel lies in any region.

        Warns:
            RuntimeWarning: Images had an empty region, or features that are not finite; says how many.
        """
        if (self.aggregator == "start") != (start is not None):
            raise InputError(
                f"found aggregator={self.aggregator!r} and start={start!r}; give aggregator=start together with a "
                "model to take it from, made by 'ulm fit --method d-uld-bootstrap --data DATA --out FOLDER'"
            )
        return super().fit(dataset, start=start, **options)

    def _start_from(self, start: Trainable) -> None:
        start._ready()
        if "aggregator" not in start.networks:
            raise InputError(f"found no aggregation network in {start!r}, expected one; start from d-uld-bootstrap")
        try:
            self.networks["aggregator"].load_state_dict(start.networks["aggregator"].state_dict())
        except RuntimeError as error:
            raise InputError(
                f"cannot take the aggregation network of {start!r} for {self!r}; give the same layers, timesteps and "
                "projection_dim"
            ) from error

    def _optimisers(self) -> dict[str, torch.optim.Optimizer]:
        return {}

    # --- collecting and clustering --------------------------------------------------------------------------------

    def _batch(self, data: CachedDataset, step: int) -> tuple[Tensor, Tensor | None]:
        """Feature maps ``(B, D, S, S)`` of one step, and regions ``(B, S, S)``."""
        self._find_region(data)
        indices, _ = self._indices(data, step)
        taps = self.taps_of(data, indices)
        boxes = None if self._boxes is None else self._boxes[indices]
        masks = self._masks(taps, boxes)
        return self._descriptors(taps, masks), masks

    def _descriptors(self, taps: Taps, masks: Tensor) -> Tensor:
        if self.aggregator:
            with torch.no_grad():
                found = self.networks["aggregator"](taps)
        else:
            found = concatenated(taps, self.map_size)
        return without_mean(found, masks) if self.centre else found

    def _train_step(self, images: Tensor, pairs: Tensor | None, step: int) -> dict[str, Tensor]:
        """Add descriptors of random pixels of ``(B, D, S, S)`` features to the pool; ``pairs`` are regions."""
        assert pairs is not None
        numbers = torch.rand(len(images), self.samples, 3, generator=generator(CPU, self.seed, 3, step))
        places = sample_places(pairs, numbers, self.image_size)
        found = F.normalize(sample_descriptors(images, places, self.image_size), dim=-1)
        good = places.isfinite().all(-1) & found.isfinite().all(-1)
        pool = self.networks["pool"]
        pool.add(found[good], int((~good.any(1)).sum()))
        return {"descriptors": pool.count.float(), "empty": pool.empty.float()}

    def _finish(self, data: CachedDataset) -> None:
        pool = self.networks["pool"]
        if pool.empty:
            warnings.warn(
                f"{int(pool.empty)} of {self.steps * self.batch_size} looks at images found an empty region or "
                "features that are not finite; they are left out",
                RuntimeWarning,
                stacklevel=3,
            )
        if pool.count < self.n_landmarks:
            raise InputError(
                f"found {int(pool.count)} pixels in the regions of interest for n_landmarks={self.n_landmarks}, "
                "expected at least as many; give region=image, or raise images"
            )
        centroids = kmeans(pool.found.cpu().numpy(), self.n_landmarks, self.seed)
        # As the file keeps them: a model that was saved and read again gives the same landmarks.
        self.networks["exemplars"].centroids.copy_(torch.from_numpy(centroids).half())

    # --- prediction -----------------------------------------------------------------------------------------------

    def _locate(self, taps: Taps, masks: Tensor) -> Tensor:
        features = self._descriptors(taps, masks)
        if self.matching == "random":
            numbers = torch.rand(1, self.samples, 3, generator=generator(CPU, self.seed, 9))
            places = sample_places(masks, numbers, self.image_size)
            found = sample_descriptors(features, places, self.image_size)
        else:
            centres = geometry.to_pixels(geometry.pixel_grid(self.map_size, device=masks.device), self.image_size)
            places = centres.masked_fill(~masks.unsqueeze(-1), torch.nan).flatten(1, 2)
            found = features.flatten(2).mT
        return best_places(found, places, self.networks["exemplars"].centroids, self.missing)


class Exemplars(nn.Module):
    """The model: ``centroids`` ``(K, D)``, means of descriptors of length 1; random directions before ``fit``."""

    def __init__(self, k: int, length: int):
        super().__init__()
        self.register_buffer("centroids", F.normalize(torch.randn(k, length), dim=1))


class Pool(nn.Module):
    """Descriptors that were collected so far; part of a checkpoint, not of the model.

    Attributes:
        descriptors: ``(most, D)``, the first ``count`` of which are filled.
        count: int64.
        empty: int64, looks at images that gave none.
    """

    def __init__(self, most: int, length: int):
        super().__init__()
        self.register_buffer("descriptors", torch.zeros(most, length))
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("empty", torch.tensor(0))

    def add(self, descriptors: Tensor, empty: int) -> None:
        """Add ``(n, D)`` descriptors and a number of images without any."""
        self.descriptors[self.count : self.count + len(descriptors)] = descriptors
        self.count += len(descriptors)
        self.empty += empty

    @property
    def found(self) -> Tensor:
        """``(count, D)``."""
        return self.descriptors[: self.count]


@torch.no_grad()
def best_places(descriptors: Tensor, places: Tensor, centroids: Tensor, missing: str = "nan") -> Tensor:
    """Exemplar assignment (section 3.1): for each image and centroid the place whose descriptor is nearest to it.

    The same as :func:`ulm.clustering.exemplars`, or with ``missing="nearest"`` as :func:`ulm.clustering.nearest`, for
    equally many places an image, on the device.

    Args:
        descriptors: ``(B, P, D)``, of any length; normalised here.
        places: ``(B, P, 2)``; NaN for a place that is out of question.
        centroids: ``(K, D)``.
        missing: What becomes of a centroid that no place is nearest to: ``nan`` or ``nearest``.

    Returns:
        ``(B, K, 2)`` places; NaN where there is none.
    """
    # |d - c|^2 = 1 - 2 d.c + |c|^2
    distances = centroids.square().sum(1) - 2 * F.normalize(descriptors.float(), dim=-1) @ centroids.T
    known = places.isfinite().all(-1, keepdim=True) & distances.isfinite()
    distances = distances.masked_fill(~known, torch.inf)
    if missing == "nan":
        own = F.one_hot(distances.argmin(-1), len(centroids)).bool()
        distances = distances.masked_fill(~own, torch.inf)
    least, best = distances.min(1)
    found = places.gather(1, best.unsqueeze(-1).expand(-1, -1, 2))
    return found.masked_fill(least.isinf().unsqueeze(-1), torch.nan)
