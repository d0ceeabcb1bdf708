"""Features of a frozen diffusion model, and where in an image to look: what ZeroShot and D-ULD start from.

Features are taps of the decoder's residual blocks (Tourani et al., CVPR 2024, equation 2: ``r_lt = SD(x)``). The paper
names neither the model, the layers, the timesteps nor how noise gets in, and finds regions by a detector that knows no
faces. So these are options:

====================  ==================================================================================================
option                default, and why
====================  ==================================================================================================
``walk``              ``one-step``: one call of the U-Net for each timestep, on the latents with that much noise;
                      ``inversion``: DDIM inversion, as Diffusion Hyperfeatures has it, at some twenty times the cost
``timesteps``         one step: 10, nearly clean, a level that the U-Net was trained on. The one-step weights that
                      Diffusion Hyperfeatures publishes want -1: clean latents and a timestep it never saw.
                      Inversion: the eleven that it keeps of 50
``layers``            ZeroShot: the nine finest taps of twelve. Where all have the same say, the three on an eighth of
                      the latents' grid blur the others. D-ULD: all twelve, as published; it learns what to make of them
``grid``              cells along a side of the maps; 0: the latents' own. The paper's *image resolution* would take
                      5.5 GB an image in Stable Diffusion 1.5
``region``            ``auto``: the data set's boxes where it has any, else ``features``
====================  ==================================================================================================

Noise is the same for every image, so that a prediction does not depend on the images beside it and features can be
kept. They are kept as fp16, and rounded to it where they are not kept: but for the last bits, a result does not depend
on the budget.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ulm.datasets.base import Dataset
from ulm.datasets.cache import CachedDataset
from ulm.errors import InputError
from ulm.methods import bootstrapping
from ulm.methods.backbone import OnDiffusion, Rows, fingerprint
from ulm.methods.training import check_choices, check_numbers, read_safetensors
from ulm.networks.aggregation import concatenated, tap_channels, tap_shapes
from ulm.runs import generator

if TYPE_CHECKING:
    from ulm.diffusion.pipelines import Pipeline

Taps = list[list[Tensor]]
"""For each timestep one ``(B, C, h, w)`` for each layer."""

CHOICES: dict[str, tuple[str, ...]] = {
    "walk": ("one-step", "inversion"),
    "region": ("auto", "box", "features", "image"),
    "precision": ("auto", "float32", "bfloat16"),
    "cache": ("disk", "memory"),
}
N_LAYERS = 12
# Calls 0, 4, 9, ..., 49 of 50, from the clean image to noise.
INVERSION_TIMESTEPS = (-1, *range(60, 961, 100))
ONE_STEP_TIMESTEPS = (10,)
# Longer features are projected before a region is sought: the time of it grows with the cube of their length.
REGION_DIMENSIONS = 1024
CPU = torch.device("cpu")


class Origin(nn.Module):
    """What the features come from, so that a model can be read before the diffusion model is.

    Attributes:
        backbone: The fingerprint of the diffusion model.
        channels: int64 ``(L,)``, of each tap.
        latent_size: int64, cells along a side of the latents.
        direction: ``(D,)`` of the region's axis, see :class:`ulm.methods.bootstrapping.Axis`.
        threshold: NaN until the axis is found.
    """

    def __init__(self, backbone: Tensor, channels: Sequence[int], latent_size: int, n_timesteps: int):
        super().__init__()
        length = min(sum(channels) * n_timesteps, REGION_DIMENSIONS)
        self.register_buffer("backbone", backbone.clone())
        self.register_buffer("channels", torch.tensor(channels))
        self.register_buffer("latent_size", torch.tensor(latent_size))
        self.register_buffer("direction", torch.zeros(length))
        self.register_buffer("threshold", torch.tensor(torch.nan))

    @property
    def axis(self) -> bootstrapping.Axis:
        """What tells a region from the rest."""
        return bootstrapping.Axis(self.direction, self.threshold)


class OnFeatures(OnDiffusion):
    """Base of the methods on diffusion features; a sub-class builds its networks in :meth:`_networks`.

    Attributes:
        default_layers: What ``layers=None`` means.
    """

    default_layers: tuple[int, ...] = tuple(range(N_LAYERS))

    layers: list[int] | None
    timesteps: list[int] | None
    walk: str
    inversion_steps: int
    grid: int
    region: str
    region_images: int
    budget: float
    micro_batch: int

    # --- hyperparameters ------------------------------------------------------------------------------------------

    def _check_features(self) -> None:
        """Check the options of the module's table and make lists of sequences."""
        self._taps: TapCache | None = None
        self._given: Tensor | None = None
        for name in ("layers", "timesteps"):
            value = getattr(self, name)
            setattr(self, name, None if value is None else [int(v) for v in value])
        check_choices(self, CHOICES)
        if not self.used_layers or not set(self.used_layers) <= set(range(N_LAYERS)):
            raise InputError(f"found layers={self.layers}, expected some of 0 to {N_LAYERS - 1}")
        if not self.used_timesteps or min(self.used_timesteps) < -1:
            raise InputError(f"found timesteps={self.timesteps}, expected numbers from -1 to 999")
        if sorted(set(self.used_timesteps)) != self.used_timesteps:
            raise InputError(f"found timesteps={self.timesteps}, expected each once, from the clean image to noise")
        check_numbers(self, {"grid": 0, "budget": 0})

    @property
    def used_layers(self) -> list[int]:
        """The decoder's residual blocks that are tapped, by order of execution."""
        return list(self.default_layers) if self.layers is None else self.layers

    @property
    def used_timesteps(self) -> list[int]:
        """The timesteps at which they are tapped."""
        if self.timesteps is not None:
            return self.timesteps
        return list(ONE_STEP_TIMESTEPS if self.walk == "one-step" else INVERSION_TIMESTEPS)

    # --- networks and files ---------------------------------------------------------------------------------------

    def _networks(self, channels: list[int], size: int) -> dict[str, nn.Module]:
        """Networks for taps of these channels and maps of ``size`` cells along a side."""
        raise TypeError(f"{type(self).__name__} defines no networks")

    def _build(self) -> nn.ModuleDict:
        pipeline = self.pipeline
        channels = tap_channels(pipeline.unet, self.used_layers)
        return self._with_origin(fingerprint(pipeline), channels, pipeline.latent_size)

    def _with_origin(self, backbone: Tensor, channels: list[int], latent_size: int) -> nn.ModuleDict:
        origin = Origin(backbone, channels, latent_size, len(self.used_timesteps))
        return nn.ModuleDict({"origin": origin, **self._networks(channels, self.grid or latent_size)})

    def _load_weights(self, folder: Path, names: list[str]) -> None:
        # The diffusion model is left until it is needed: the file says what it was.
        tensors, _ = read_safetensors(folder / "model.safetensors")
        try:
            channels, size = tensors["origin.channels"].tolist(), int(tensors["origin.latent_size"])
            networks = self._with_origin(tensors["origin.backbone"], channels, size)
            networks = nn.ModuleDict({name: networks[name] for name in names})
            networks.load_state_dict(tensors)
        except (KeyError, IndexError, RuntimeError) as error:
            raise InputError(f"{folder}: weights and config.json do not fit together; make the model again") from error
        self.networks = networks.to(self.torch_device, memory_format=torch.channels_last).eval()

    def _trained_with(self) -> Tensor:
        return self.networks["origin"].backbone

    def _check_fit(self, pipeline: Pipeline) -> None:
        origin = self.networks["origin"]
        wanted = origin.channels.tolist(), int(origin.latent_size)
        found = tap_channels(pipeline.unet, self.used_layers), pipeline.latent_size
        if found != wanted:
            raise InputError(
                f"found taps of {wanted[0]} channels and latents of {wanted[1]} learned from, but {pipeline.name} has "
                f"{found[0]} and {found[1]}; load the model with the backbone that it was trained with"
            )

    # --- features -------------------------------------------------------------------------------------------------

    @property
    def map_size(self) -> int:
        """Cells along a side of the feature maps."""
        return self.grid or self.pipeline.latent_size

    @torch.no_grad()
    def taps(self, latents: Tensor) -> Taps:
        """Taps of ``(B, 4, h, w)`` clean latents, ``micro_batch`` images at a time.

        Raises:
            InputError: For timesteps that the walk does not pass.
        """
        parts = [self._some_taps(part.to(self.pipeline.device)) for part in latents.split(self.micro_batch)]
        return [
            [torch.cat(same) for same in zip(*of_timestep, strict=True)] for of_timestep in zip(*parts, strict=True)
        ]

    def _some_taps(self, latents: Tensor) -> Taps:
        from ulm.diffusion import taps

        if self.walk == "inversion":
            return self._inverted(latents)
        context, found = self.pipeline.embed(""), []
        for t in self.used_timesteps:
            random = generator(CPU, self.seed, 7, t + 1)
            noise = torch.randn(1, *latents.shape[1:], generator=random).to(latents.device)
            noisy = self.pipeline.noisy(latents, t, noise.expand_as(latents))
            found.append(taps.resnet_features(self.pipeline, noisy, t, context, self.used_layers))
        return found

    def _inverted(self, latents: Tensor) -> Taps:
        from ulm.diffusion import inversion, taps

        passed = [-1, *inversion.timesteps(self.pipeline, self.inversion_steps)[:-1]]
        if unknown := sorted(set(self.used_timesteps) - set(passed)):
            raise InputError(
                f"found timesteps {unknown}, expected among {passed[:3]} ..., those that {self.inversion_steps} steps "
                "of inversion pass"
            )
        context, found = self.pipeline.embed(""), []
        with taps.resnet_taps(self.pipeline.unet, self.used_layers) as caught:
            for t, _ in inversion.inversion_steps(self.pipeline, latents, context, self.inversion_steps):
                if t in self.used_timesteps:
                    found.append([caught.features[layer] for layer in self.used_layers])
                if len(found) == len(self.used_timesteps):
                    break
        return found

    def _tap_shapes(self) -> list[tuple[int, int, int]]:
        return tap_shapes(self.pipeline.unet, self.used_layers, self.pipeline.latent_size)

    def taps_of(self, data: CachedDataset, indices: Tensor) -> Taps:
        """Taps of the images at ``indices``, float32, from the cache as far as ``budget`` goes."""
        known = self._taps
        if known is None or known.data is not data or known.pipeline is not self.pipeline:
            self._taps = known = TapCache(self, data)
        return known(indices)

    # --- regions of interest --------------------------------------------------------------------------------------

    def _box_of(self, data: CachedDataset) -> Tensor | None:
        """Boxes ``(n, 4)`` of all images in pixels of ``image_size``, or None if they are not used."""
        boxes = data.column("box") if self.region in ("auto", "box") else None
        if isinstance(boxes, Tensor):
            return self._scaled(boxes, data.images)
        if self.region == "box":
            raise InputError(f"found no boxes in {data.info.name}; give region=features, or region=image")
        return None

    def _scaled(self, boxes: Tensor, images: Tensor) -> Tensor:
        """Boxes in pixels of ``images`` to those of ``image_size``."""
        height, width = images.shape[-2:]
        return boxes.float() * (self.image_size / torch.tensor([width, height, width, height]))

    def _find_region(self, data: CachedDataset) -> None:
        """Find what tells regions from the rest, on some training images, unless it is known."""
        origin = self.networks["origin"]
        if self.region == "image" or origin.threshold.isfinite():
            return
        indices = torch.randperm(len(data), generator=generator(CPU, self.seed, 8))[: self.region_images]
        features = torch.cat([self._region_features(self.taps_of(data, part)) for part in indices.split(16)])
        boxes = self._box_of(data)
        if boxes is None:
            axis = bootstrapping.region_from_features(features, self.image_size).axis
        else:
            masks = bootstrapping.region_mask(boxes[indices].to(features.device), self.map_size, self.image_size)
            if not (masks.any() and (~masks).any()):
                raise InputError(f"found boxes in {data.info.name} that hold all or nothing; give region=image")
            axis = bootstrapping.region_from_masks(features, masks)
        origin.direction.copy_(axis.direction)
        origin.threshold.copy_(axis.threshold)

    def _region_features(self, taps: Taps) -> Tensor:
        """``(B, D, S, S)`` to tell regions by; a random projection where D would be large, which keeps angles."""
        features = concatenated(taps, self.map_size)
        length = features.shape[1]
        if length <= REGION_DIMENSIONS:
            return features
        random = generator(CPU, 0, length)
        projection = torch.randn(REGION_DIMENSIONS, length, generator=random).to(features) / REGION_DIMENSIONS**0.5
        return torch.einsum("dc,bchw->bdhw", projection, features)

    def _masks(self, taps: Taps, boxes: Tensor | None) -> Tensor:
        """Regions ``(B, S, S)`` bool: inside boxes ``(B, 4)`` in pixels of ``image_size``, else what the axis says.

        An untrained model has no axis yet and looks everywhere.
        """
        size, batch, device = self.map_size, len(taps[0][0]), taps[0][0].device
        axis = self.networks["origin"].axis
        if self.region == "image" or (boxes is None and axis.threshold.isnan()):
            return torch.ones(batch, size, size, dtype=torch.bool, device=device)
        if boxes is not None:
            return bootstrapping.region_mask(boxes.to(device), size, self.image_size)
        return bootstrapping.region_from_features(self._region_features(taps), self.image_size, axis).masks

    def predict(self, images: Tensor, batch_size: int = 64, boxes: Tensor | None = None) -> Tensor:
        """Detect landmarks; see :meth:`ulm.methods.base.Detector.predict`.

        Args:
            images: ``(B, 3, H, W)``.
            batch_size: Images at a time.
            boxes: ``(B, 4)``, (x0, y0, x1, y1) in pixels of the images handed in, regions to look in; None: regions are
                found from the features, by what was learned from the training images (``region``).

        Returns:
            ``(B, K, 2)`` pixels; NaN where a landmark has no place in the region.

        Raises:
            InputError: Also if ``boxes`` are not of that shape.
        """
        if boxes is None:
            return super().predict(images, batch_size)
        if boxes.shape != (len(images), 4):
            raise InputError(f"found boxes of shape {tuple(boxes.shape)}, expected ({len(images)}, 4), one an image")
        scaled = self._scaled(boxes, images)
        found = [torch.empty(0, self.n_landmarks, 2)]
        for part, self._given in zip(images.split(batch_size), scaled.split(batch_size), strict=True):
            try:
                found.append(super().predict(part, batch_size))
            finally:
                self._given = None
        return torch.cat(found)

    def _landmarks(self, images: Tensor) -> Tensor:
        parts, found = torch.arange(len(images)).split(self.micro_batch), []
        for part in parts:
            taps = rounded(self.taps(self.pipeline.latents(images[part])))
            boxes = None if self._given is None else self._given[part]
            found.append(self._locate(taps, self._masks(taps, boxes)))
        return torch.cat(found)

    def predict_all(self, dataset: Dataset, boxes: bool = False) -> Tensor:
        """Landmarks of all images of a data set, as :meth:`predict` finds them.

        Features are kept as far as ``budget`` goes, so that models with the same features look at an image once.

        Args:
            dataset: Any data set of the contract.
            boxes: Whether the boxes of the data set are the regions; else they are found from the features, as in
                :meth:`predict`.

        Returns:
            ``(n, K, 2)`` pixels of ``image_size`` on the CPU; NaN where a landmark is missing.

        Raises:
            InputError: Before ``fit``, if the images are smaller than the latents, or for ``boxes`` that are not there.
        """
        return torch.cat([found.cpu() for *_, found in self._walk_through(dataset, boxes)])

    def represent(self, dataset: Dataset, boxes: bool = False) -> tuple[Tensor, Tensor]:
        """Landmarks of all images, and the descriptors at them: what D-ULD's Table 3 asks the clusters' quality of.

        Args:
            dataset: See :meth:`predict_all`.
            boxes: The same.

        Returns:
            ``(n, K, 2)`` pixels of ``image_size`` and ``(n, K, D)`` descriptors of length 1, both on the CPU; NaN where
            a landmark is missing.

        Raises:
            InputError: See :meth:`predict_all`.
        """
        places, descriptors = [], []
        for taps, masks, found in self._walk_through(dataset, boxes):
            with torch.no_grad():
                there = bootstrapping.sample_descriptors(self._descriptors(taps, masks), found, self.image_size)
            places.append(found.cpu())
            descriptors.append(F.normalize(there, dim=-1).cpu())
        return torch.cat(places), torch.cat(descriptors)

    @torch.no_grad()
    def _walk_through(self, dataset: Dataset, boxes: bool) -> Iterator[tuple[Taps, Tensor, Tensor]]:
        """Taps, regions and landmarks, ``micro_batch`` images at a time."""
        self._ready()
        data = OnDiffusion._check_data(self, dataset)
        known = data.column("box") if boxes else None
        if boxes and not isinstance(known, Tensor):
            raise InputError(f"found no boxes in {data.info.name}, expected some for boxes=True")
        if known is not None:
            known = self._scaled(known, data.images)
        for part in torch.arange(len(data)).split(self.micro_batch):
            taps = self.taps_of(data, part)
            masks = self._masks(taps, None if known is None else known[part])
            yield taps, masks, self._locate(taps, masks).to(taps[0][0])

    def _descriptors(self, taps: Taps, masks: Tensor) -> Tensor:
        """What is clustered, at every cell: ``(B, D, S, S)``; ``masks`` are the regions."""
        raise TypeError(f"{type(self).__name__} describes nothing")

    def _locate(self, taps: Taps, masks: Tensor) -> Tensor:
        """Landmarks ``(B, K, 2)`` in pixels of ``image_size`` inside ``(B, S, S)`` bool regions."""
        raise TypeError(f"{type(self).__name__} detects nothing")


class TapCache:
    """Taps of the images of one data set, made when first asked for; the first images are kept, up to the budget.

    They are made in blocks of ``micro_batch`` images, see :class:`ulm.methods.backbone.Rows`.

    Attributes:
        capacity: Images whose taps are kept.
    """

    def __init__(self, model: OnFeatures, data: CachedDataset):
        self.model, self.data, self.pipeline = model, data, model.pipeline
        self.shapes = [model._tap_shapes() for _ in model.used_timesteps]
        self.bounds = [0, *accumulate(math.prod(shape) for of_timestep in self.shapes for shape in of_timestep)]
        self.capacity = min(len(data), int(model.budget * 2**30 / (2 * self.bounds[-1] + 1)))
        kind = [str(self.pipeline.dtype), self.pipeline.device.type]
        settings = (model.used_layers, model.used_timesteps, model.walk, model.inversion_steps, model.seed)
        key = (1, data.fingerprint, len(data), data.size, model.image_size, self.capacity, *settings, kind)
        weights = fingerprint(self.pipeline).tolist()
        # A file of no rows cannot be mapped.
        where = model.cache if self.capacity else "memory"
        self.rows = Rows(self.capacity, (self.bounds[-1],), "taps", (*key, weights), where, model.micro_batch)

    def __call__(self, indices: Tensor) -> Taps:
        """Taps of the images at ``indices``, float32 on the pipeline's device."""
        flat = torch.empty(len(indices), self.bounds[-1])
        kept = indices < self.capacity
        if kept.any():
            flat[kept] = self.rows.read(indices[kept].tolist(), lambda block: self._flat(torch.tensor(block)))
        if not kept.all():
            flat[~kept] = self._flat(indices[~kept]).half().float().cpu()
        parts = iter(flat.to(self.pipeline.device)[:, a:b] for a, b in pairwise(self.bounds))
        return [[next(parts).view(-1, *shape) for shape in of_timestep] for of_timestep in self.shapes]

    def _flat(self, indices: Tensor) -> Tensor:
        taps = self.model.taps(self.model._latents_of(self.data, indices))
        return torch.cat([tap.flatten(1).float() for of_timestep in taps for tap in of_timestep], dim=1)


def sample_places(masks: Tensor, numbers: Tensor, size: int) -> Tensor:
    """Random places inside regions, each cell of a region as likely as any other.

    Args:
        masks: bool ``(B, S, S)``.
        numbers: ``(B, n, 3)`` or ``(1, n, 3)``, uniform in [0, 1): which cell, and where in it.
        size: Side of the images.

    Returns:
        ``(B, n, 2)`` pixels; NaN for an empty region.
    """
    side, order = masks.shape[-1], masks.flatten(1).long().cumsum(1)
    numbers = numbers.to(masks.device).expand(len(masks), -1, -1)
    rank = (numbers[..., 0] * order[:, -1:]).long() + 1
    cells = torch.searchsorted(order, rank)
    corners = torch.stack([cells % side, cells // side], -1)
    places = (corners + numbers[..., 1:]) * (size / side)
    return places.masked_fill((order[:, -1] == 0)[:, None, None], torch.nan)


def without_mean(features: Tensor, masks: Tensor) -> Tensor:
    """Features ``(B, D, S, S)`` less their mean over each image's region ``(B, S, S)``; empty regions stay."""
    weights = masks.unsqueeze(1).to(features.dtype)
    mean = (features * weights).sum((2, 3), keepdim=True) / weights.sum((2, 3), keepdim=True).clamp_min(1)
    return features - mean


def rounded(taps: Taps) -> Taps:
    """As the cache would keep them."""
    return [[tap.half().float() for tap in of_timestep] for of_timestep in taps]
