"""Pseudo-labels of D-ULD: what clustering says of the keypoints of training images (Tourani et al., CVPR 2024).

Keypoints of the detector are clustered by their descriptors; exemplars get the cluster as their label, and train
detector and descriptor until the next clustering. Which clusters is what tells the variants apart: K of all images
(D-ULD, section 3.2), M finer ones of K (Mallis, with diffusion features), or K in each of Q clusters of images by pose
code (two-stage clustering, section 3.3.2), label ``q K + k``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ulm import clustering, geometry
from ulm.clustering import Integers, Keypoints, PoseClusters, TwoStage
from ulm.methods import bootstrapping
from ulm.methods.stable_keypoints import invert_affines


class Labels(NamedTuple):
    """Pseudo-labels of n images.

    Attributes:
        rows: ``(n, K)`` int64, the keypoint that is each landmark; -1 where it is missing.
        labels: ``(n, K)`` int64, its label; -1 where it is missing.
        poses: ``(n,)`` int64, the pose cluster of each image; 0 where there are none.
    """

    rows: Integers
    labels: Integers
    poses: Integers


class Clusters(nn.Module):
    """The clusters by which a model names its landmarks; the last round's, so that a next one keeps their numbers.

    Args:
        k: Landmarks.
        length: D of a descriptor.
        fine: M; 0 is no second k-means.
        poses: Q; 0 is no first stage.
        code: Length of a pose code.

    Attributes:
        centroids: ``(K, D)``; all zeros until there are any, as the others.
        fine: ``(M, D)``.
        per_pose: ``(Q, K, D)``.
        pose_centroids: ``(Q, code)``.
        merged: int64 ``(Q,)``, see :class:`ulm.clustering.PoseClusters`.
    """

    def __init__(self, k: int, length: int, fine: int = 0, poses: int = 0, code: int = 0):
        super().__init__()
        self.register_buffer("centroids", torch.zeros(k, length))
        self.register_buffer("fine", torch.zeros(fine, length))
        self.register_buffer("per_pose", torch.zeros(poses, k, length))
        self.register_buffer("pose_centroids", torch.zeros(poses, code))
        self.register_buffer("merged", torch.arange(poses))

    def update(
        self, keypoints: Keypoints, codes: Tensor | None, seed: int, keep: bool, align: str, least: int
    ) -> Labels:
        """Cluster the keypoints of n training images and label their exemplars. Nothing changes if that fails.

        Args:
            keypoints: Of all n.
            codes: ``(n, code)`` pose codes; None without pose clusters.
            seed: Of k-means.
            keep: Start from the last clusters, whose numbers are kept.
            align: See :data:`ulm.clustering.ALIGNMENTS`.
            least: Images of a pose cluster, see :func:`ulm.clustering.pose_clusters`.

        Raises:
            InputError: Fewer keypoints or exemplars than clusters, or fewer images than pose clusters.
        """
        k = len(self.centroids)
        if len(self.merged):
            assert codes is not None
            known = self._two_stage() if keep and self.pose_centroids.any() else None
            numbers = codes.cpu().numpy()
            found = clustering.two_stage(keypoints, numbers, len(self.merged), k, seed, align, known, least)
            self._keep(found)
            rows = found.assign(keypoints, numbers)
            poses = found.poses.labels
            return Labels(rows, np.where(rows >= 0, poses[:, None] * k + np.arange(k), -1), poses)
        centroids = clustering.kmeans(keypoints.descriptors, k, seed, _known(self.centroids, keep))
        rows = clustering.exemplars(keypoints, centroids)
        labels = np.where(rows >= 0, np.arange(k), -1)
        if len(self.fine):
            fine, finer = clustering.oversegment(keypoints, rows, len(self.fine), seed, _known(self.fine, keep))
            # Of two exemplars of an image in one fine cluster the further one is dropped.
            labels = np.where(rows >= 0, keypoints.labels(finer)[rows], -1)
            rows = np.where(labels >= 0, rows, -1)
            self.fine.copy_(torch.from_numpy(fine))
        self.centroids.copy_(torch.from_numpy(centroids))
        return Labels(rows, labels, np.zeros(keypoints.n_images, np.int64))

    def assign(self, keypoints: Keypoints, codes: Tensor | None, every: bool) -> Integers:
        """The keypoint ``(n, K)`` that is each landmark of any images, -1 where missing.

        Args:
            keypoints: Of n images.
            codes: ``(n, code)``; None without pose clusters.
            every: Whether a landmark without a keypoint in its cluster gets the nearest one.
        """
        if len(self.merged):
            assert codes is not None
            return self._two_stage().assign(keypoints, codes.cpu().numpy(), every)
        choose = clustering.nearest if every else clustering.exemplars
        return choose(keypoints, self.centroids.cpu().numpy())

    def poses_of(self, codes: Tensor) -> Integers:
        """Pose clusters ``(n,)`` of any images by their codes ``(n, code)``."""
        return self._two_stage().poses.assign(codes.cpu().numpy())

    def _two_stage(self) -> TwoStage:
        centroids, per_pose, poses, merged = (
            part.cpu().numpy() for part in (self.centroids, self.per_pose, self.pose_centroids, self.merged)
        )
        return TwoStage(centroids, per_pose, PoseClusters(poses, merged, np.zeros(0, np.int64)))

    def _keep(self, found: TwoStage) -> None:
        values = (found.centroids, found.per_pose, found.poses.centroids, found.poses.merged)
        for part, value in zip((self.centroids, self.per_pose, self.pose_centroids, self.merged), values, strict=True):
            part.copy_(torch.from_numpy(value))


def _known(centroids: Tensor, keep: bool) -> clustering.Floats | None:
    return centroids.cpu().numpy() if keep and centroids.any() else None


class PseudoLabels(nn.Module):
    """What the current round trains on; part of a checkpoint, not of a model.

    Args:
        n: Images of a round.
        k: Landmarks.

    Attributes:
        images: int64 ``(n,)``, places in the data set.
        places: ``(n, K, 2)`` pixels; NaN where missing.
        labels: int64 ``(n, K)``; -1 where missing.
        poses: int64 ``(n,)``.
        known: bool, whether there are any yet.
        finished: bool, whether training is over and the clusters are those of the final networks.
        skipped: int64, steps whose loss or slope was not finite, in all.
        in_a_row: int64, such steps since the last good one.
    """

    def __init__(self, n: int, k: int):
        super().__init__()
        self.register_buffer("images", torch.zeros(n, dtype=torch.int64))
        self.register_buffer("places", torch.full((n, k, 2), torch.nan))
        self.register_buffer("labels", torch.full((n, k), -1))
        self.register_buffer("poses", torch.zeros(n, dtype=torch.int64))
        self.register_buffer("known", torch.tensor(False))
        self.register_buffer("finished", torch.tensor(False))
        self.register_buffer("skipped", torch.tensor(0))
        self.register_buffer("in_a_row", torch.tensor(0))

    def set(self, images: Tensor, keypoints: Keypoints, found: Labels) -> None:
        """Take over the labels of a clustering of ``images`` ``(n,)``."""
        self.images.copy_(images)
        self.places.copy_(torch.from_numpy(keypoints.landmarks(found.rows)))
        self.labels.copy_(torch.from_numpy(found.labels))
        self.poses.copy_(torch.from_numpy(found.poses))
        self.known.fill_(True)

    @property
    def usable(self) -> Tensor:
        """Rows of images with at least one landmark, int64 on the CPU."""
        return (self.labels >= 0).any(1).nonzero()[:, 0].cpu()


def merged(found: Sequence[bootstrapping.Keypoints], length: int) -> Keypoints:
    """Keypoints of n images, one each, as the clustering takes them; ``length`` is D, for images without any."""
    images = np.repeat(np.arange(len(found)), [len(one.places) for one in found])
    empty = bootstrapping.Keypoints(torch.zeros(0, 2), torch.zeros(0), torch.zeros(0, length))
    places, scores, descriptors = (
        torch.cat([part.float().cpu() for part in parts]).numpy() for parts in zip(*found, empty, strict=True)
    )
    return Keypoints.finite(descriptors, images, places, scores, len(found))


def warped_places(places: Tensor, affines: Tensor, size: int) -> Tensor:
    """Where places lie in warped copies.

    Args:
        places: ``(B, K, 2)`` pixels.
        affines: ``(B, 2, 3)``, the maps from places in the copy to places in the image, normalised.
        size: Side of the images.

    Returns:
        ``(B, K, 2)``; NaN for what the copy does not show.
    """
    inverse = invert_affines(affines)
    moved = geometry.to_normalised(places, size) @ inverse[..., :2].mT + inverse[..., 2].unsqueeze(-2)
    outside = (moved.abs() > 1).any(-1, keepdim=True)
    return geometry.to_pixels(moved, size).masked_fill(outside, torch.nan)


def draw_pairs(labels: PseudoLabels, pairs: int, random: torch.Generator, groups: int = 0) -> tuple[Tensor, Tensor]:
    """Rows of two different images each.

    Args:
        labels: The current round's.
        pairs: How many.
        random: A generator on the CPU.
        groups: 0: any two images. Else the pairs come from so many pose clusters, each as likely as any other, both
            images of a pair from the same: equation 3 wants several images of each of several poses. Where fewer than
            two pose clusters have two images, any two.

    Returns:
        Two int64 ``(pairs,)`` on the CPU.
    """
    usable = labels.usable
    poses = labels.poses.cpu()[usable]
    members = [usable[poses == pose] for pose in poses.unique()] if groups else []
    members = [rows for rows in members if len(rows) > 1]
    members = members if len(members) > 1 else [usable]
    order = torch.randperm(len(members), generator=random)[: max(1, groups)]
    drawn = [_two(members[int(order[pair % len(order)])], random) for pair in range(pairs)]
    first, second = torch.stack(drawn).unbind(1)
    return first, second


def _two(rows: Tensor, random: torch.Generator) -> Tensor:
    first, step = (int(n) for n in torch.rand(2, generator=random, dtype=torch.float64) * len(rows))
    # From 1 to n - 1 further on, so that they differ.
    step = 1 + step % max(1, len(rows) - 1)
    return rows[[first, (first + step) % len(rows)]]


def across_poses(n_poses: int, k: int) -> Tensor:
    """Pairs of labels that are one landmark in two pose clusters, bool ``(Q K, Q K)``.

    They neither attract nor repel: the same landmark looks different from another side, but is no other landmark.
    """
    numbers = torch.arange(n_poses * k)
    same_landmark = numbers[:, None] % k == numbers % k
    return same_landmark & (numbers[:, None] // k != numbers // k)
