"""What the stages of D-ULD share: their options, networks, and how one starts from another.

What the paper leaves open, or says in two ways, is an option. Beside those of :mod:`ulm.methods.features`:

* ``aggregator=""``: learnt by the bootstrapping loss alone, without keypoints that anybody marked. A path starts it
  from weights that Diffusion Hyperfeatures publishes, which learnt from such keypoints.
* ``rotation=40`` degrees, ``flips=0.5``: Mallis's; the text says *flips and random rotations*. Flips are the
  bootstrapping's alone, where ``mirror_pairs="detector"`` keeps them from the descriptors: as positives they make
  left and right the same.
* ``translation=0.4`` of half the side, ``zoom=1.3``: not in the text. Faces are cropped alike, and a small diffusion
  model tells places in the *picture* apart: a cell of a copy that was only turned about its middle is found by where
  it lies, whatever it shows, and landmarks become a grid.
* ``jitter=0.2``: random gains of the colours. The text names none, but both sources of the scheme have them.
* ``threshold=0.15``, ``most=100``: Mallis's. ``least=0``: 2 K local maxima an image, even below the threshold, to
  which SiLK's detector is not calibrated.
* ``sigma=1`` cell, of the targets' Gaussians: Mallis's second stage has 0.75 of a 64 x 64 grid.
* ``positives=10``: cells of a target weigh up to eleven times as much in the squared error, as nearly all cells are
  empty and an empty map is nearly right; 0: plain, as published.
* ``unit=True``: the contrastive loss compares descriptors of length 1, as the clustering does. Those of the
  bootstrapping have any length, so that the margin would mean nothing; False: as they are, Mallis's.
* ``descriptor_weight=10`` to 1 of the squared error, ``warped=0.5`` of the pairs an image and its warped copy, else
  two images: Mallis's.
* ``negatives=100`` random places an image beside its landmarks; Mallis has up to 5,000, on a GPU.
* ``keep_names=True``: k-means starts from the last round's centroids, so that clusters keep their numbers.
* ``pose_gradient="detector"``: the pose autoencoder's losses reach the detector and the aggregation. The text freezes
  the descriptor alone, and PP could not better the landmarks otherwise; ``vae``: they do not.
* ``proxy_detector=True``: the detector goes on learning from pseudo-labels in the proxy task. Otherwise its map may
  become whatever the autoencoder likes to read.
* ``beta=1``, ``reconstruction="bce"``, both terms summed: see :func:`ulm.networks.heads.elbo`.
* ``unit_codes=True``: pose codes are clustered and compared at length 1. As they are they lie some 11 apart, and the
  margin of equation 3, 0.8, would never act.
* ``phases="both"``: section 3.3.2's two steps in turns. ``second`` alone is what the training details say (the
  decoder is discarded); ``first`` alone keeps the full autoencoder. ``alternate_every=0``: half of
  ``recluster_every``, so that both see each round's labels; the text has no number.
* ``align="seeded"``: how cluster k of each pose is landmark k; the paper's Q K labels name no K landmarks. One
  landmark in two poses is neither a positive nor a negative. ``pose_least=50`` images; smaller pose clusters are
  merged.
* ``learning_rate=None``: 1e-4, and 5e-5 in the proxy task, as published. D-ULD++ has 5e-5: the text's 5e-4 is ten
  times all that went before, beside *the same parameters as before*.

Pose clusters of a new image are those of the nearest pose centroid; a landmark whose cluster has no keypoint there is
missing (``missing="nan"``), as the paper has no later stage that would fill it in.

A step whose loss or slope is not finite is left out and counted (``skipped``); fifty in a row end the run. A round
whose clustering fails, for want of keypoints, keeps the labels before it, with a warning.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from ulm import clustering, runs
from ulm.datasets.base import Dataset
from ulm.datasets.cache import CachedDataset
from ulm.errors import InputError
from ulm.methods import bootstrapping
from ulm.methods.backbone import same_backbone
from ulm.methods.features import CPU, OnFeatures, Taps, rounded
from ulm.methods.pseudo_labels import Clusters, PseudoLabels, merged
from ulm.methods.stable_keypoints import draw_affines, warp
from ulm.methods.training import Trainable, check_choices, check_numbers
from ulm.networks.aggregation import Aggregator
from ulm.networks.heads import RECONSTRUCTIONS, DescriptorHead, DetectorHead
from ulm.runs import generator

CHOICES: dict[str, tuple[str, ...]] = {
    "mirror_pairs": ("detector", "all"),
    "missing": ("nan", "nearest"),
    "pose_gradient": ("detector", "vae"),
    "reconstruction": RECONSTRUCTIONS,
    "phases": ("both", "first", "second"),
    "align": tuple(clustering.ALIGNMENTS),
}
# Settings that decide the shapes of networks: a stage and the one before it must agree on them.
SHAPES = ("layers", "timesteps", "walk", "grid", "projection_dim", "descriptor_dim", "width", "code", "vae_width")
PATIENCE = 50


class Stage(OnFeatures):
    """Base of the stages. All have the same hyperparameters; each looks at its own.

    Args:
        n_landmarks: K.
        image_size: Side of the images (512 in Stable Diffusion). The diffusion model resizes them to its own size.
        backbone: A name for :func:`ulm.diffusion.pipelines.load`: ``pocket``, a folder or a hub id.
        layers: Decoder residual blocks that are tapped, by order of execution, 0 to 11; None: all.
        timesteps: See the table of :mod:`ulm.methods.features`; None: 10 in one step.
        walk: ``one-step`` or ``inversion``.
        inversion_steps: Of the whole inversion.
        grid: Cells along a side of the maps; 0: the latents' own. Pose autoencoders take 16, 32, 64 or 128.
        aggregator: Published weights that the bootstrapping starts from, or ``""``; see the module's list.
        projection_dim: Channels of the aggregated features; 384 as published.
        descriptor_dim: Numbers of a descriptor.
        width: Channels inside the heads.
        region: See :class:`ulm.methods.zero_shot.ZeroShot`: keypoints outside are dropped.
        region_images: Training images on which the region is learnt.
        rotation: Largest angle of warped copies, in degrees.
        translation: Largest shift of warped copies along each axis, in halves of the side.
        zoom: Largest enlargement of warped copies; 1: none.
        flips: Share of the bootstrapping's copies that are mirrored.
        jitter: Largest change of a colour's gain in a warped copy.
        scale: Inverse temperature of SiLK's similarities.
        mirror_pairs: What mirrored pairs train: ``detector`` or ``all``.
        threshold: Probability of a keypoint.
        most: Keypoints an image at most.
        least: Keypoints an image at least, where there are so many local maxima; 0: 2 K.
        radius: Of the suppression of non-maxima, in cells of a 64 x 64 grid.
        missing: Landmarks without a keypoint in their cluster: ``nan``, or ``nearest`` keypoint.
        recluster_every: Steps between clusterings; 5,000 as published.
        cluster_images: Training images of a round, drawn anew each time; 0: all.
        keep_names: See the module's list.
        fine: M of :class:`MallisD`.
        sigma: Of the targets' Gaussians, in cells.
        positives: See the module's list.
        unit: See the module's list.
        margin: Of both contrastive losses; 0.8 as published.
        apart: Least distance of negatives in an image, in cells of a 64 x 64 grid; Mallis's.
        negatives: Random places an image that are negatives.
        warped: Share of pairs that are an image and its warped copy.
        descriptor_weight: Of the descriptors' contrastive loss.
        detector_weight: Of the detector's squared error, a sum over cells.
        code: Numbers of a pose code; 64 as published.
        vae_width: Channels of the pose autoencoder's first layer.
        beta: Weight of the divergence in the bound.
        reconstruction: ``bce`` or ``mse``.
        elbo_weight: Of the bound, a sum over cells and numbers, beside the squared error. The autoencoder itself learns
            at the same pace whatever it is.
        pose_gradient: See the module's list.
        proxy_detector: See the module's list.
        n_poses: Q; 10 in the paper's tables, 5 in its study of yaw.
        pose_least: See the module's list.
        pose_groups: Pose clusters in a batch of D-ULD++.
        pose_weight: Of equation 3.
        unit_codes: See the module's list.
        align: See the module's list.
        phases: See the module's list.
        alternate_every: Steps of each phase in turn; 0: half of ``recluster_every``.
        learning_rate: Of Adam; None: the stage's own, see the module's list.
        batch_size: Images in a step; even, as from the second stage on they come in pairs. 12 as published.
        micro_batch: Images that are in the diffusion model at once.
        steps: Steps of training.
        budget: GiB that features of training images may take in the cache. They are kept for the images that come first
            in the data set; those of the others, and of warped copies, are made each time.
        precision: ``auto`` runs the networks in bfloat16 where the device is fast at it; losses are float32.
        cache: Where latents and features are kept, ``disk`` (in ``$ULM_CACHE``) or ``memory``.
        seed: Of initialisation, order, warps, noise and k-means.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N``.

    Attributes:
        before: Names of the methods that it can start from, the usual one first; empty: it starts by itself.
        rate: What ``learning_rate=None`` means.

    Raises:
        InputError: For a value that is none of those named.
    """

    detector_parts: tuple[str, ...] = ("origin", "aggregator", "detector", "descriptor", "clusters")
    saved_parts = detector_parts
    prediction = ("missing", "threshold", "most", "least", "radius", "micro_batch")
    learned = "networks"
    counts = (
        "n_landmarks", "image_size", "inversion_steps", "projection_dim", "descriptor_dim", "width", "region_images",
        "most", "recluster_every", "code", "vae_width", "n_poses", "pose_least", "pose_groups", "batch_size",
        "micro_batch", "steps",
    )  # fmt: skip
    before: tuple[str, ...] = ()
    rate = 1e-4

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
        descriptor_dim: int = 256,
        width: int = 128,
        region: str = "auto",
        region_images: int = 64,
        rotation: float = 40.0,
        translation: float = 0.4,
        zoom: float = 1.3,
        flips: float = 0.5,
        jitter: float = 0.2,
        scale: float = 19.88,
        mirror_pairs: str = "detector",
        threshold: float = 0.15,
        most: int = 100,
        least: int = 0,
        radius: float = 2.0,
        missing: str = "nan",
        recluster_every: int = 5000,
        cluster_images: int = 0,
        keep_names: bool = True,
        fine: int = 100,
        sigma: float = 1.0,
        positives: float = 10.0,
        unit: bool = True,
        margin: float = 0.8,
        apart: float = 5.7,
        negatives: int = 100,
        warped: float = 0.5,
        descriptor_weight: float = 10.0,
        detector_weight: float = 1.0,
        code: int = 64,
        vae_width: int = 32,
        beta: float = 1.0,
        reconstruction: str = "bce",
        elbo_weight: float = 0.1,
        pose_gradient: str = "detector",
        proxy_detector: bool = True,
        n_poses: int = 10,
        pose_least: int = 50,
        pose_groups: int = 4,
        pose_weight: float = 1.0,
        unit_codes: bool = True,
        align: str = "seeded",
        phases: str = "both",
        alternate_every: int = 0,
        learning_rate: float | None = None,
        batch_size: int = 12,
        micro_batch: int = 4,
        steps: int = 100_000,
        budget: float = 1.0,
        precision: str = "auto",
        cache: str = "disk",
        seed: int = 0,
        device: str = "auto",
    ):
        for name in self.parameter_names():
            setattr(self, name, locals()[name])
        self._check_common()
        self._check_features()
        self._check_stage()
        self._data: CachedDataset | None = None
        self._boxes: Tensor | None = None

    def _check_stage(self) -> None:
        check_choices(self, CHOICES)
        zero = (
            "rotation", "translation", "flips", "jitter", "threshold", "least", "radius", "cluster_images", "positives",
            "margin", "apart", "negatives", "warped", "descriptor_weight", "detector_weight", "beta", "elbo_weight",
            "pose_weight", "alternate_every",
        )  # fmt: skip
        check_numbers(self, dict.fromkeys(zero, 0) | {"sigma": 1e-3, "scale": 1e-3, "fine": 1, "zoom": 1})
        for name in ("flips", "warped", "threshold", "jitter"):
            if getattr(self, name) > 1:
                raise InputError(f"found {name}={getattr(self, name)!r}, expected at most 1")
        if self.learning_rate is not None:
            check_numbers(self, {"learning_rate": 1e-12})
        if self.batch_size % 2:
            raise InputError(f"found batch_size={self.batch_size}, expected an even number: images come in pairs")
        if self.fewest > self.most:
            raise InputError(f"found least={self.fewest}, most={self.most}; raise most")
        if self.projection_dim % 4:
            raise InputError(f"found projection_dim={self.projection_dim}, expected a multiple of 4")

    @property
    def fewest(self) -> int:
        """Keypoints an image at least."""
        return self.least or min(2 * self.n_landmarks, self.most)

    # --- networks -------------------------------------------------------------------------------------------------

    def _networks(self, channels: list[int], size: int) -> dict[str, nn.Module]:
        dim, times = self.projection_dim, len(self.used_timesteps)
        return {
            "aggregator": Aggregator(channels, times, dim, size, resize="after"),
            "detector": DetectorHead(dim, self.width),
            "descriptor": DescriptorHead(dim, self.descriptor_dim, self.width),
            "clusters": Clusters(self.n_landmarks, self.descriptor_dim),
            "labels": PseudoLabels(self._images_of_a_round(), self.n_landmarks),
        }

    def _images_of_a_round(self) -> int:
        n = 0 if self._data is None else len(self._data)
        return min(n, self.cluster_images or n)

    def _trained(self) -> tuple[str, ...]:
        """Networks that learn."""
        return ("aggregator", "detector", "descriptor")

    def _optimisers(self) -> dict[str, torch.optim.Optimizer]:
        weights = [weight for name in self._trained() for weight in self.networks[name].parameters()]
        return {"adam": torch.optim.Adam(weights, lr=self.learning_rate or self.rate)}

    def _heads(self, taps: Taps) -> tuple[Tensor, Tensor]:
        """The detector's logits ``(B, 1, S, S)`` and descriptors ``(B, D, S, S)``, float32."""
        with runs.autocast(self.torch_device, self.precision):
            features = self.networks["aggregator"](taps)
            return self.networks["detector"](features), self.networks["descriptor"](features)

    def _descriptors(self, taps: Taps, masks: Tensor) -> Tensor:
        return self._heads(taps)[1]

    # --- starting from the stage before ---------------------------------------------------------------------------

    def fit(self, dataset: Dataset, *, start: Trainable | None = None, **options: Any) -> Self:
        """Train on the images of ``dataset``; its landmarks are never looked at.

        Args:
            dataset: Any data set of the contract.
            start: The model of the stage before, or one of the same stage to go on from.
            options: See :meth:`ulm.methods.training.Trainable.fit`.

        Raises:
            InputError: As there; also if ``start`` is missing or another method's, says which command makes it.
        """
        if start is None and self.before:
            raise InputError(f"{self.name} found nothing to start from; {self._remedy()}")
        if start is not None and start.name not in (*self.before, self.name):
            raise InputError(f"{self.name} found {start!r} to start from, expected another model; {self._remedy()}")
        return super().fit(dataset, start=start, **options)

    def _remedy(self) -> str:
        first = self.before[0] if self.before else self.name
        return (
            f"make a model of {' or '.join(self.before) or first} with 'ulm fit --method {first} --data DATA --out "
            f"FOLDER' and hand it over with --start FOLDER (in Python, fit(start=...))"
        )

    def _start_from(self, start: Trainable) -> None:
        start._ready()
        differing = [n for n in SHAPES if hasattr(start, n) and getattr(start, n) != getattr(self, n)]
        # Nothing of the pose autoencoder is taken from a stage that has none.
        if "vae" not in start.networks:
            differing = [n for n in differing if n not in ("code", "vae_width")]
        if differing:
            wanted = ", ".join(f"{n}={getattr(start, n)!r}" for n in differing)
            raise InputError(f"cannot start {self.name} from {start!r}: its settings differ; give {wanted}")
        ours, theirs = self.networks["origin"], start.networks["origin"]
        if not same_backbone(theirs.backbone, ours.backbone):
            warnings.warn(f"{start!r} was trained with another diffusion model than this one's", RuntimeWarning, 3)
        if theirs.direction.shape == ours.direction.shape:
            ours.direction.copy_(theirs.direction)
            ours.threshold.copy_(theirs.threshold)
        for name in ("aggregator", "detector", "descriptor", "vae"):
            if name in self.networks and name in start.networks:
                self._take(start, name)
        ours, theirs = self.networks["clusters"].state_dict(), start.networks["clusters"].state_dict()
        fitting = {name: part for name, part in theirs.items() if part.shape == ours[name].shape}
        self.networks["clusters"].load_state_dict(ours | fitting)

    def _take(self, start: Trainable, name: str) -> None:
        try:
            self.networks[name].load_state_dict(start.networks[name].state_dict())
        except RuntimeError as error:
            raise InputError(
                f"cannot start {self.name} from {start!r}: its network '{name}' has other shapes; give the same "
                "backbone and image_size"
            ) from error

    # --- training -------------------------------------------------------------------------------------------------

    def _check_data(self, dataset: Dataset) -> CachedDataset:
        self._data = data = super()._check_data(dataset)
        self._boxes = self._box_of(data)
        return data

    def _update(self, loss: Tensor, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """One step of Adam down ``loss``, unless it is not finite; what to log."""
        labels, optimiser = self.networks["labels"], self.optimisers["adam"]
        optimiser.zero_grad(set_to_none=True)
        if loss.requires_grad:
            loss.backward()
        weights = [weight for group in optimiser.param_groups for weight in group["params"]]
        slopes = [weight.grad for weight in weights if weight.grad is not None]
        if bool(torch.stack([loss.detach(), *(slope.sum() for slope in slopes)]).isfinite().all()):
            optimiser.step()
            labels.in_a_row.zero_()
            logged = {name: value.detach() for name, value in losses.items()}
        else:
            labels.skipped += 1
            labels.in_a_row += 1
            logged = {}
        if labels.in_a_row >= PATIENCE:
            raise InputError(
                f"{PATIENCE} steps in a row had a loss that is not finite; lower learning_rate, give "
                "precision=float32, or look for broken images in the data"
            )
        return logged | ({"skipped": labels.skipped.float()} if labels.skipped else {})

    def _draw(self, batch: int, flips: float, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Warps ``(B, 2, 3)`` from copies to images, and which are mirrored, ``(B,)``."""
        affines = draw_affines(batch, random, self.rotation, self.translation, self.zoom)
        mirrored = torch.rand(batch, generator=random) < flips
        affines[mirrored, :, 0] *= -1
        return affines.to(self.torch_device), mirrored.to(self.torch_device)

    def _copies(self, indices: Tensor, affines: Tensor, random: torch.Generator) -> Taps:
        """Taps of warped copies of training images."""
        assert self._data is not None
        images = warp(self._prepare(self._data.images_uint8(indices)), affines)
        gains = 1 + self.jitter * (2 * torch.rand(len(images), 3, 1, 1, generator=random) - 1)
        return rounded(self.taps(self.pipeline.latents((images * gains.to(images)).clamp(0, 1))))

    # --- clustering -----------------------------------------------------------------------------------------------

    def _recluster(self, data: CachedDataset, number: int) -> None:
        """Make the pseudo-labels of a round, or keep those of the last one if that fails."""
        labels, clusters = self.networks["labels"], self.networks["clusters"]
        images = torch.randperm(len(data), generator=generator(CPU, self.seed, 4, number))[: len(labels.images)]
        # In the order of the data set: caches are read faster.
        images = images.sort().values
        keypoints, codes = self.keypoints(data, images)
        try:
            found = clusters.update(keypoints, codes, self.seed, self.keep_names, self.align, self.pose_least)
        except InputError as error:
            if not labels.known:
                raise InputError(
                    f"{self.name} found too little to cluster: {error} (threshold, least; or train the stage before "
                    "it longer)"
                ) from error
            warnings.warn(f"round {number} keeps the labels of the one before: {error}", RuntimeWarning, stacklevel=2)
            return
        labels.set(images, keypoints, found)
        if len(labels.usable) < 2:
            raise InputError(f"found landmarks in {len(labels.usable)} of {len(images)} images, expected at least 2")

    @torch.no_grad()
    def keypoints(self, data: CachedDataset, images: Tensor) -> tuple[clustering.Keypoints, Tensor | None]:
        """Keypoints and pose codes of images of a data set, such as the training images.

        Args:
            data: A data set, see :func:`ulm.datasets.cache.cached`.
            images: int64 ``(n,)``, places in it.

        Returns:
            Keypoints in pixels of ``image_size``, and pose codes ``(n, code)`` where the method has them.
        """
        self._ready()
        training = self.networks.training
        self.networks.eval()
        self._find_region(data)
        boxes = self._box_of(data)
        found, codes = [], []
        for part in images.split(self.micro_batch):
            taps = self.taps_of(data, part)
            those, their_codes = self._look(taps, self._masks(taps, None if boxes is None else boxes[part]))
            found += those
            codes.append(their_codes)
        self.networks.train(training)
        return merged(found, self.descriptor_dim), None if codes[0] is None else torch.cat(codes)

    def _look(self, taps: Taps, masks: Tensor) -> tuple[list[bootstrapping.Keypoints], Tensor | None]:
        logits, descriptors = self._heads(taps)
        found = bootstrapping.keypoints(
            logits, descriptors, self.image_size, masks, self.threshold, self.most, self.fewest, self.radius
        )
        return found, self._codes(logits)

    def _codes(self, logits: Tensor) -> Tensor | None:
        """Pose codes ``(B, code)`` as they are clustered, where there are any."""
        return None

    @torch.no_grad()
    def _locate(self, taps: Taps, masks: Tensor) -> Tensor:
        found, codes = self._look(taps, masks)
        keypoints = merged(found, self.descriptor_dim)
        rows = self.networks["clusters"].assign(keypoints, codes, self.missing == "nearest")
        return torch.from_numpy(keypoints.landmarks(rows))

    def _finish(self, data: CachedDataset) -> None:
        labels = self.networks["labels"]
        if not labels.finished:
            # The clusters of the networks as they are now.
            self._recluster(data, self._rounds())
            labels.finished.fill_(True)
        if labels.skipped:
            words = f"{int(labels.skipped)} of {self.steps} steps had a loss that is not finite and were left out"
            warnings.warn(words, RuntimeWarning, stacklevel=3)

    def _rounds(self) -> int:
        return math.ceil(self.steps / self.recluster_every)
