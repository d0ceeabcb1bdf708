"""D-ULD and D-ULD++: landmarks by self-training on diffusion features (Tourani et al., CVPR 2024, sections 3.2, 3.3).

No code of the paper was published. Its networks are an aggregation of frozen diffusion features (equation 2) with two
heads, a detector of one channel and a descriptor, and are trained in a chain; each stage starts from the one before:

======================  ==================  =========================================================================
class                   starts from         learns
======================  ==================  =========================================================================
:class:`Bootstrap`      nothing             all three from warped copies, by SiLK's losses
:class:`DULD`           Bootstrap           from pseudo-labels: K clusters of all images' keypoints, made anew every so
                                            many steps
:class:`MallisD`        Bootstrap           the same from M finer clusters: Mallis's method on these features
:class:`PoseProxy`      DULD                a pose autoencoder of the detector's heatmaps: the row '+ PP'
:class:`DULDPlusPlus`   PoseProxy           from two-stage pseudo-labels, K in each of Q pose clusters; with
                                            ``phases="first"`` the row '+ (TSC w/ Full VAE)'
======================  ==================  =========================================================================

Options, with their defaults and reasons, are in :mod:`ulm.methods.duld_stage`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ulm import runs
from ulm.datasets.base import Dataset
from ulm.datasets.cache import CachedDataset
from ulm.errors import InputError
from ulm.methods import bootstrapping
from ulm.methods.duld_stage import Stage
from ulm.methods.features import CPU, OnFeatures, Taps
from ulm.methods.pseudo_labels import Clusters, across_poses, draw_pairs, warped_places
from ulm.methods.training import Trainable
from ulm.networks.heads import PoseVAE, elbo, gaussian_targets
from ulm.networks.heads import triplet_loss as pose_contrast
from ulm.runs import generator


class Batch(NamedTuple):
    """A labelled batch: the first images of its pairs, then the second ones.

    Attributes:
        logits: ``(B, 1, S, S)``.
        descriptors: ``(B, D, S, S)``.
        places: ``(B, K, 2)`` pixels, NaN where missing.
        labels: int64 ``(B, K)``.
        poses: int64 ``(B,)``.
        targets: ``(B, 1, S, S)``.
        upright: bool ``(B,)``, which are not warped.
    """

    logits: Tensor
    descriptors: Tensor
    places: Tensor
    labels: Tensor
    poses: Tensor
    targets: Tensor
    upright: Tensor


class Bootstrap(Stage):
    """The first stage (section 3.2, *Bootstrapping*): keypoints and descriptors from warped copies, by SiLK's losses.

    Its landmarks are exemplars of K clusters of the keypoints it finds in the end.
    """

    name = "d-uld-bootstrap"

    def _build(self) -> nn.ModuleDict:
        networks = super()._build()
        if self.aggregator:
            networks["aggregator"].load_published(self.aggregator)
        return networks

    def _batch(self, data: CachedDataset, step: int) -> tuple[Tensor, Tensor | None]:
        """Places ``(B,)`` in the data set."""
        return self._indices(data, step)

    def _train_step(self, images: Tensor, pairs: Tensor | None, step: int) -> dict[str, Tensor]:
        """One step on the images at the places ``(B,)`` and a warped copy of each."""
        assert self._data is not None
        random = generator(CPU, self.seed, 3, step)
        affines, mirrored = self._draw(len(images), self.flips, random)
        logits, descriptors = self._heads(
            _both(self.taps_of(self._data, images), self._copies(images, affines, random))
        )
        matches = bootstrapping.correspondences(affines, self.map_size)
        (first, second), (first_logits, second_logits) = descriptors.chunk(2), logits.chunk(2)
        with runs.autocast(self.torch_device, self.precision):
            losses = bootstrapping.silk_loss(
                first,
                second,
                first_logits,
                second_logits,
                *matches,
                scale=self.scale,
                mirrored=mirrored,
                mirror_pairs=self.mirror_pairs,
            )
        return self._update(losses.pop("loss"), losses)


class DULD(Stage):
    """D-ULD (section 3.2, *Self-Training*): learns from the labels of K clusters of all images' keypoints."""

    name = "d-uld"
    before: tuple[str, ...] = ("d-uld-bootstrap",)

    def _batch(self, data: CachedDataset, step: int) -> tuple[Tensor, Tensor | None]:
        """Rows ``(B,)`` of the round's labels, first images of pairs and then second ones; the same twice: warped."""
        if step % self.recluster_every == 0:
            self._recluster(data, step // self.recluster_every)
        random = generator(CPU, self.seed, 2, step)
        first, second = draw_pairs(self.networks["labels"], self.batch_size // 2, random, self._groups(step))
        alike = torch.rand(len(first), generator=random) < self._share_warped(step)
        return torch.cat([first, torch.where(alike, first, second)]), None

    def _groups(self, step: int) -> int:
        """Pose clusters of a batch; 0: it is drawn without regard to them."""
        return 0

    def _share_warped(self, step: int) -> float:
        return self.warped

    def _train_step(self, images: Tensor, pairs: Tensor | None, step: int) -> dict[str, Tensor]:
        """One step on the rows ``(B,)`` of the round's labels."""
        batch = self._labelled(images, generator(CPU, self.seed, 3, step))
        losses, weights = self._losses(batch, step), self._weights()
        losses["missing"] = (self.networks["labels"].labels < 0).float().mean()
        return self._update(sum(weights[name] * loss for name, loss in losses.items() if name in weights), losses)

    def _weights(self) -> dict[str, float]:
        return {
            "descriptor": self.descriptor_weight,
            "detector": self.detector_weight,
            "elbo": self.elbo_weight,
            "pose": self.pose_weight,
        }

    def _losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        return {"detector": self._detector_loss(batch), "descriptor": self._descriptor_loss(batch, step)}

    def _labelled(self, rows: Tensor, random: torch.Generator) -> Batch:
        """Maps and labels of a batch; the second image of an equal pair is a warped copy."""
        assert self._data is not None
        labels, half = self.networks["labels"], len(rows) // 2
        indices, places = labels.images.cpu()[rows], labels.places[rows].clone()
        upright = torch.cat([torch.ones(half, dtype=torch.bool), rows[:half] != rows[half:]])
        taps = self.taps_of(self._data, indices)
        if not upright.all():
            # Not mirrored: a label would then belong to the other side.
            affines, _ = self._draw(int((~upright).sum()), 0.0, random)
            copies = self._copies(indices[~upright], affines, random)
            for of_timestep, theirs in zip(taps, copies, strict=True):
                for tap, copy in zip(of_timestep, theirs, strict=True):
                    tap[~upright] = copy.to(tap)
            places[~upright] = warped_places(places[~upright], affines, self.image_size)
        logits, descriptors = self._heads(taps)
        cells = places * (self.map_size / self.image_size)
        targets = gaussian_targets(cells, self.map_size, self.sigma)
        return Batch(logits, descriptors, places, labels.labels[rows], labels.poses[rows], targets, upright)

    def _detector_loss(self, batch: Batch) -> Tensor:
        """``sum_cells (1 + w G) (sigmoid(H) - G)^2``, mean over the images that have a landmark."""
        cells = (batch.logits.sigmoid() - batch.targets).square() * (1 + self.positives * batch.targets)
        known = batch.places.isfinite().all(-1).any(1)
        return (cells.flatten(1).sum(1) * known).sum() / known.sum().clamp_min(1)

    def _descriptor_loss(self, batch: Batch, step: int) -> Tensor:
        """Mallis's contrastive loss on the landmarks of each pair, with random places as further negatives."""
        random = generator(CPU, self.seed, 5, step)
        others = self.image_size * torch.rand(len(batch.places), self.negatives, 2, generator=random)
        places = torch.cat([batch.places, others.to(batch.places)], 1)
        labels = F.pad(batch.labels, (0, self.negatives), value=-1)
        found = bootstrapping.sample_descriptors(batch.descriptors, places, self.image_size)
        found = F.normalize(found, dim=-1) if self.unit else found
        parts = (part for whole in (found, places, labels) for part in whole.chunk(2))
        options = {"margin": self.margin, "apart": self.apart, "ignore": self._neither()}
        return bootstrapping.contrastive_loss(*parts, image_size=self.image_size, **options)["loss"]

    def _neither(self) -> Tensor | None:
        """Pairs of labels that neither attract nor repel."""
        return None


class MallisD(DULD):
    """Mallis (D) (section 4): D-ULD whose labels are M clusters of the exemplars of K; landmarks are those of the K."""

    name = "mallis-d"

    def _networks(self, channels: list[int], size: int) -> dict[str, nn.Module]:
        clusters = Clusters(self.n_landmarks, self.descriptor_dim, fine=self.fine)
        return super()._networks(channels, size) | {"clusters": clusters}


class PoseProxy(DULD):
    """D-ULD + PP (section 3.3.1): a pose autoencoder of the detector's heatmaps; the descriptor head is frozen.

    It is to turn the detector's heatmap into that of the pseudo-labels, by way of 64 numbers, the pose code.
    """

    name = "d-uld-pp"
    saved_parts = (*Stage.detector_parts, "vae")
    before = ("d-uld", "mallis-d")
    rate = 5e-5

    def _trained(self) -> tuple[str, ...]:
        return ("vae",) if self.pose_gradient == "vae" else ("aggregator", "detector", "vae")

    def _networks(self, channels: list[int], size: int) -> dict[str, nn.Module]:
        return super()._networks(channels, size) | {"vae": PoseVAE(size, self.code, self.vae_width)}

    def _share_warped(self, step: int) -> float:
        # A pose is that of the image as it is.
        return 0.0

    def _losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        losses = self._elbo(batch, step)
        if self.proxy_detector and self.pose_gradient == "detector":
            losses["detector"] = self._detector_loss(batch)
        return losses

    def _heatmaps(self, logits: Tensor) -> Tensor:
        maps = logits.sigmoid()
        return maps if self.pose_gradient == "detector" else maps.detach()

    def _elbo(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The bound on the images that are not warped, with the pseudo-labels' heatmap as the target."""
        random = generator(self.torch_device, self.seed, 6, step)
        with runs.autocast(self.torch_device, self.precision):
            outputs = self.networks["vae"](self._heatmaps(batch.logits)[batch.upright], random)
        logits, mean, log_variance = outputs
        targets = batch.targets[batch.upright]
        terms = elbo(logits, mean, log_variance, targets, self.beta, self.reconstruction)
        return {"elbo": terms.pop("loss"), **terms}


class DULDPlusPlus(PoseProxy):
    """D-ULD++ (section 3.3.2): labels from two-stage clustering, and pose codes that learn from the pose clusters.

    Two phases in turns. The first trains the detector on the labels, the descriptor by the contrastive loss and the
    whole autoencoder by the bound; the second, the detector, and the encoder by equation 3, the descriptor head frozen.
    """

    name = "d-uld++"
    detector_parts = (*Stage.detector_parts, "vae")
    saved_parts = detector_parts
    before = ("d-uld-pp",)

    def _trained(self) -> tuple[str, ...]:
        return ("aggregator", "detector", "descriptor", "vae")

    def _networks(self, channels: list[int], size: int) -> dict[str, nn.Module]:
        clusters = Clusters(self.n_landmarks, self.descriptor_dim, poses=self.n_poses, code=self.code)
        return super()._networks(channels, size) | {"clusters": clusters}

    def _start_from(self, start: Trainable) -> None:
        start._ready()
        if "vae" not in start.networks:
            raise InputError(f"found no pose autoencoder in {start!r}; save it without --detector-only and start anew")
        super()._start_from(start)

    def phase(self, step: int) -> str:
        """``first`` or ``second``."""
        if self.phases != "both":
            return self.phases
        length = self.alternate_every or max(1, self.recluster_every // 2)
        return ("first", "second")[step // length % 2]

    def _share_warped(self, step: int) -> float:
        return self.warped if self.phase(step) == "first" else 0.0

    def _groups(self, step: int) -> int:
        return self.pose_groups

    def _losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        losses = {"detector": self._detector_loss(batch)}
        # Where all are merged into one, equation 3 has nothing to compare.
        losses["poses"] = torch.tensor(float(self.networks["labels"].poses.unique().numel()))
        if self.phase(step) == "first":
            return losses | {"descriptor": self._descriptor_loss(batch, step)} | self._elbo(batch, step)
        codes, _ = self.networks["vae"].encode(self._heatmaps(batch.logits))
        return losses | {"pose": pose_contrast(codes, batch.poses, self.margin, self.unit_codes)}

    def _neither(self) -> Tensor | None:
        return across_poses(self.n_poses, self.n_landmarks).to(self.torch_device)

    def _codes(self, logits: Tensor) -> Tensor:
        codes, _ = self.networks["vae"].encode(logits.sigmoid())
        return F.normalize(codes, dim=1) if self.unit_codes else codes

    @torch.no_grad()
    def codes(self, dataset: Dataset) -> Tensor:
        """The pose code phi of each image of ``dataset``, float32 ``(n, code)``, as it is clustered.

        Raises:
            InputError: Before ``fit``, or if the images are smaller than the latents.
        """
        self._ready()
        data = OnFeatures._check_data(self, dataset)
        parts = torch.arange(len(data)).split(self.micro_batch)
        return torch.cat([self._codes(self._heads(self.taps_of(data, part))[0]) for part in parts])

    def poses(self, dataset: Dataset) -> Tensor:
        """The pose cluster of each image of ``dataset``, int64 ``(n,)``: what Figure 7 compares with yaw.

        Raises:
            InputError: Before ``fit``, or if the images are smaller than the latents.
        """
        codes = self.codes(dataset)
        return torch.from_numpy(self.networks["clusters"].poses_of(codes))


def _both(first: Taps, second: Taps) -> Taps:
    return [[torch.cat(taps) for taps in zip(*pair, strict=True)] for pair in zip(first, second, strict=True)]
