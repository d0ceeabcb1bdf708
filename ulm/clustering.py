"""Clusters of keypoints' descriptors and of pose codes: k-means, exemplars, over-segmentation, two stages.

A landmark without a label is a cluster of descriptors: of each image's keypoints the one nearest to the centroid, the
*exemplar*, is where the image has that landmark, and an image without a keypoint in the cluster misses it (Tourani et
al., section 3.1, "Exemplar assignment"; first by Mallis et al.). Here are ZeroShot's clustering, Mallis's two
k-means (K landmarks, then M finer clusters that train the descriptor) and D-ULD++'s two stages: Q clusters of images
by their pose code, then K clusters of descriptors in each.

Descriptors are compared after L2 normalisation by their Euclidean distance. Everything is determined by its
arguments, to the bit on the same machine.

What the papers leave open, and what is done:

* *K-means.* scikit-learn's ``KMeans`` with ten restarts of at most 100 iterations (Mallis's code: faiss, 10 restarts
  of 100). With more than 20,000 descriptors the restarts look at 20,000 random ones, and k-means on all of them goes
  on from the best. ``MiniBatchKMeans`` is faster, but ended at an error 1 % higher.
* *The names of landmarks.* The numbers of clusters mean nothing by themselves. Across rounds of self-training they
  are kept by starting from the last round's centroids, across poses by starting from those of all poses together
  (:data:`ALIGNMENTS`).
* *Small pose clusters* are merged into the nearest one (:func:`pose_clusters`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.metrics import calinski_harabasz_score, silhouette_score
from threadpoolctl import ThreadpoolController

from ulm.errors import InputError

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

RESTARTS = 10
ITERATIONS = 100
SEEDING = 20_000
"""Descriptors that the restarts of k-means++ look at; on more, k-means goes on from the best of them."""


@dataclass(frozen=True, eq=False)
class Keypoints:
    """The keypoints of a set of images, those of one image in any order and in any number, also none.

    Attributes:
        descriptors: ``(P, D)`` float32, of any length.
        images: ``(P,)`` int64, the image that each belongs to, from 0 to ``n_images - 1``.
        places: ``(P, 2)`` float32, (x, y), pixels of the image.
        scores: ``(P,)`` float32, the detector's confidence.
        n_images: Images, with those that have no keypoint.
        dropped: Keypoints that :meth:`finite` left out.

    Raises:
        InputError: Shapes do not fit each other, an image is out of range, or a number is NaN or infinite.
    """

    descriptors: Floats
    images: Integers
    places: Floats
    scores: Floats
    n_images: int
    dropped: int = 0

    def __post_init__(self) -> None:
        for name in ("descriptors", "images", "places", "scores"):
            kind = np.int64 if name == "images" else np.float32
            object.__setattr__(self, name, np.asarray(getattr(self, name), kind))
        if self.descriptors.ndim != 2:
            raise InputError(f"found descriptors of shape {self.descriptors.shape}, expected (keypoints, dimensions)")
        for name, shape in (("images", ()), ("places", (2,)), ("scores", ())):
            found, expected = getattr(self, name).shape, (len(self), *shape)
            if found != expected:
                raise InputError(f"found {name} of shape {found} for {len(self)} descriptors, expected {expected}")
        if len(self) and not 0 <= self.images.min() <= self.images.max() < self.n_images:
            raise InputError(
                f"found keypoints of images {self.images.min()} to {self.images.max()}, "
                f"expected 0 to {self.n_images - 1}"
            )
        bad = len(self) - int(_finite(self.descriptors, self.places, self.scores).sum())
        if bad:
            raise InputError(f"found NaN or infinity in {bad} of {len(self)} keypoints; Keypoints.finite drops them")

    def __len__(self) -> int:
        return len(self.descriptors)

    @classmethod
    def finite(
        cls, descriptors: ArrayLike, images: ArrayLike, places: ArrayLike, scores: ArrayLike, n_images: int
    ) -> Keypoints:
        """Keypoints without those that have a NaN or an infinity, which are counted in ``dropped``.

        Args:
            descriptors: ``(P, D)``.
            images: ``(P,)``.
            places: ``(P, 2)``.
            scores: ``(P,)``.
            n_images: See :class:`Keypoints`.

        Raises:
            InputError: See :class:`Keypoints`.

        Warns:
            RuntimeWarning: Some were dropped; says how many.
        """
        values = {"descriptors": descriptors, "images": images, "places": places, "scores": scores}
        values = {name: np.asarray(part) for name, part in values.items()}
        if len({len(part) for part in values.values()}) > 1:
            return cls(**values, n_images=n_images)
        good = _finite(values["descriptors"], values["places"], values["scores"])
        dropped = len(good) - int(good.sum())
        if dropped:
            warnings.warn(f"dropped {dropped} of {len(good)} keypoints with NaN or infinity", RuntimeWarning, 2)
        return cls(**{name: part[good] for name, part in values.items()}, n_images=n_images, dropped=dropped)

    def take(self, rows: ArrayLike) -> Keypoints:
        """Some of the keypoints, of the same images; ``rows`` are indices or a mask."""
        rows = np.asarray(rows)
        return Keypoints(self.descriptors[rows], self.images[rows], self.places[rows], self.scores[rows], self.n_images)

    def landmarks(self, indices: Integers) -> Floats:
        """Where the exemplars are: ``(n_images, K)`` indices to ``(n_images, K, 2)`` pixels; NaN where it is -1."""
        return np.append(self.places, np.full((1, 2), np.nan, np.float32), axis=0)[indices]

    def labels(self, indices: Integers) -> Integers:
        """The cluster that each keypoint is the exemplar of, ``(P,)``; -1 for those that are none's."""
        labels = np.full(len(self), -1)
        rows, clusters = np.nonzero(indices >= 0)
        labels[indices[rows, clusters]] = clusters
        return labels


def _finite(*values: NDArray[Any]) -> NDArray[np.bool_]:
    return np.logical_and.reduce([np.isfinite(part).all(tuple(range(1, part.ndim))) for part in values])


def _points(values: ArrayLike, what: str) -> Floats:
    points = np.asarray(values, np.float32)
    if points.ndim != 2:
        raise InputError(f"found {what} of shape {points.shape}, expected (number, dimensions)")
    bad = len(points) - int(_finite(points).sum())
    if bad:
        raise InputError(f"found NaN or infinity in {bad} of {len(points)} {what}; leave them out")
    return points


def _start(start: ArrayLike, k: int, dimensions: int) -> Floats:
    points = _points(start, "start centroids")
    if points.shape != (k, dimensions):
        raise InputError(f"found start centroids of shape {points.shape}, expected {(k, dimensions)}")
    return points


# ------------------------------------------------------------------------------------------------- k-means


def kmeans(
    descriptors: ArrayLike,
    k: int,
    seed: int,
    start: ArrayLike | None = None,
    most: int = 800_000,
    keep_empty: bool = False,
) -> Floats:
    """K-means on L2-normalised descriptors (Mallis et al.'s code; Tourani et al., sections 3.1 and 3.2).

    Args:
        descriptors: ``(P, D)``, of any length.
        k: Clusters.
        seed: Of k-means++ and of the choice of descriptors.
        start: ``(k, D)`` centroids to start from instead of k-means++: cluster i of the result grew out of centroid i.
        most: Descriptors to use; of more, that many at random. (Mallis's code takes the first 800,000.)
        keep_empty: What becomes of a start centroid that no descriptor is nearest to. True: it stays where it is.
            False: it moves to a descriptor far from its own centroid, as scikit-learn does, which is said: its
            number has a new meaning.

    Returns:
        ``(k, D)`` float32: means of unit vectors, so not longer than 1.

    Raises:
        InputError: Fewer than ``k`` descriptors, NaN, or a start of another shape.

    Warns:
        RuntimeWarning: Start centroids moved.
    """
    points = _points(descriptors, "descriptors")
    _enough(len(points), k, "descriptors", "use fewer clusters or more images, or let the detector find more keypoints")
    if len(points) > most:
        points = points[_subset(len(points), most, seed)]
    return _cluster(_unit(points), k, seed, start, keep_empty)


def _enough(n: int, k: int, what: str, remedy: str) -> None:
    if k < 1:
        raise InputError(f"found {k} clusters, expected at least 1")
    if n < k:
        raise InputError(f"found {n} {what} for {k} clusters, expected at least {k}; {remedy}")


def _cluster(points: Floats, k: int, seed: int, start: ArrayLike | None, keep_empty: bool = False) -> Floats:
    """Overwrites ``points``."""
    if start is not None:
        return _go_on(points, _start(start, k, points.shape[1]), keep_empty)
    sample = points[_subset(len(points), SEEDING, seed)]
    centroids = _lloyd(sample, k, "k-means++", RESTARTS, seed)
    return centroids if len(points) <= SEEDING else _lloyd(points, k, centroids)


def _go_on(points: Floats, start: Floats, keep_empty: bool) -> Floats:
    # scikit-learn moves empty clusters to the points furthest from their centroids.
    used = np.bincount(_squared_distances(points, start).argmin(1), minlength=len(start)) > 0
    if not keep_empty:
        if not used.all():
            lost = ", ".join(map(str, np.flatnonzero(~used)))
            warnings.warn(f"clusters {lost} have no points left and start anew elsewhere", RuntimeWarning, 4)
        return _lloyd(points, len(start), start)
    centroids = start.copy()
    centroids[used] = _lloyd(points, int(used.sum()), start[used])
    return centroids


def _lloyd(points: Floats, k: int, start: Floats | str, restarts: int = 1, seed: int = 0) -> Floats:
    model = KMeans(k, init=start, n_init=restarts, max_iter=ITERATIONS, random_state=seed, copy_x=False)
    with _two_threads():
        return model.fit(points).cluster_centers_


def _two_threads() -> AbstractContextManager[Any]:
    # Each thread adds up its own part, then the parts are added as threads come to their end: of two parts the order
    # does not matter, of three it does to the last bit.
    openmp = ThreadpoolController().select(user_api="openmp")
    return openmp.limit(limits=min([2, *(library["num_threads"] for library in openmp.info())]))


def _unit(descriptors: Floats) -> Floats:
    lengths = np.sqrt(np.einsum("pd,pd->p", descriptors, descriptors))[:, None]
    return descriptors / np.maximum(lengths, np.finfo(np.float32).tiny)


def _squared_distances(points: Floats, centroids: Floats) -> Floats:
    distances = points @ centroids.T
    distances *= -2
    distances += np.einsum("pd,pd->p", points, points)[:, None]
    distances += np.einsum("kd,kd->k", centroids, centroids)
    return distances


def _subset(n: int, most: int, seed: int) -> Integers:
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, most, replace=False))


def match(old: ArrayLike, new: ArrayLike) -> Integers:
    """Which new centroid continues each old one: the one-to-one assignment with the least sum of distances.

    Args:
        old: ``(K, D)`` centroids.
        new: ``(K, D)`` centroids in any order.

    Returns:
        ``(K,)`` indices: ``new[match(old, new)]`` is in the order of ``old``.

    Raises:
        InputError: The shapes differ, or there is a NaN.
    """
    old, new = _points(old, "old centroids"), _points(new, "new centroids")
    if old.shape != new.shape:
        raise InputError(f"found centroids of shapes {old.shape} and {new.shape}, expected equal ones")
    return linear_sum_assignment(np.linalg.norm(old[:, None] - new, axis=-1))[1]


# ----------------------------------------------------------------------------------------------- exemplars


def exemplars(keypoints: Keypoints, centroids: ArrayLike) -> Integers:
    """For each image and cluster the keypoint nearest to the centroid, of those that belong to the cluster.

    A keypoint belongs to the cluster whose centroid it is nearest to; the others are dropped (Tourani et al., section
    3.1, "Exemplar assignment").

    Args:
        keypoints: Of the images, training or test.
        centroids: ``(K, D)``, see :func:`kmeans`.

    Returns:
        ``(n_images, K)`` int64, rows of ``keypoints``; -1 where the image has no keypoint in the cluster. No keypoint
        is used twice. :meth:`Keypoints.landmarks` makes places of it.

    Raises:
        InputError: The centroids do not fit the descriptors.
    """
    distances = _descriptor_distances(keypoints, centroids)
    rows, own = np.arange(len(keypoints)), distances.argmin(1)
    owned = np.full_like(distances, np.inf)
    owned[rows, own] = distances[rows, own]
    return _least(keypoints, owned)


def nearest(keypoints: Keypoints, centroids: ArrayLike) -> Integers:
    """For each image and cluster the keypoint nearest to the centroid, whichever cluster it belongs to.

    The other reading of ZeroShot's test: no landmark is missing, and two may lie on one keypoint.

    Args:
        keypoints: Of the images.
        centroids: ``(K, D)``, see :func:`kmeans`.

    Returns:
        ``(n_images, K)`` int64, rows of ``keypoints``; -1 only for images without any keypoint.

    Raises:
        InputError: The centroids do not fit the descriptors.
    """
    return _least(keypoints, _descriptor_distances(keypoints, centroids))


def _descriptor_distances(keypoints: Keypoints, centroids: ArrayLike) -> Floats:
    centroids = _points(centroids, "centroids")
    if centroids.shape[1] != keypoints.descriptors.shape[1]:
        raise InputError(
            f"found centroids of {centroids.shape[1]} and descriptors of {keypoints.descriptors.shape[1]} dimensions; "
            "these keypoints are not from the network that was clustered"
        )
    return _squared_distances(_unit(keypoints.descriptors), centroids)


def _least(keypoints: Keypoints, distances: Floats) -> Integers:
    """Row of the least distance for each image and column; -1 where all are infinite."""
    found = np.full((keypoints.n_images, distances.shape[1]), -1)
    order = np.argsort(keypoints.images, kind="stable")
    present, starts = np.unique(keypoints.images[order], return_index=True)
    for image, rows in zip(present, np.split(order, starts[1:]), strict=False):
        part = distances[rows]
        found[image] = np.where(np.isfinite(part.min(0)), rows[part.argmin(0)], -1)
    return found


def _within(keypoints: Keypoints, rows: Integers, choose: Callable[[Keypoints], Integers]) -> Integers:
    """What ``choose`` finds in some of the keypoints, as rows of all of them."""
    return np.append(rows, -1)[choose(keypoints.take(rows))]


def oversegment(
    keypoints: Keypoints, indices: Integers, m: int, seed: int, start: ArrayLike | None = None
) -> tuple[Floats, Integers]:
    """Mallis's second k-means: the exemplars' descriptors in M finer clusters, again one exemplar an image and cluster.

    A landmark that looks different from another side falls into several of them, so that training does not force
    these descriptors together. M is 100 for K = 10 (Mallis et al.'s code; "Mallis (D)" of Tourani et al.).

    Args:
        keypoints: Of the training images.
        indices: ``(n_images, K)``, see :func:`exemplars`.
        m: Clusters.
        seed: Of k-means++.
        start: ``(m, D)`` centroids to start from.

    Returns:
        Centroids ``(m, D)`` float32, and ``(n_images, m)`` int64 rows of ``keypoints``, -1 where missing.

    Raises:
        InputError: Fewer exemplars than ``m``.
    """
    survivors = np.unique(indices[indices >= 0])
    _enough(len(survivors), m, "exemplars", "use a smaller M or more images")
    centroids = kmeans(keypoints.descriptors[survivors], m, seed, start)
    return centroids, _within(keypoints, survivors, lambda part: exemplars(part, centroids))


# ---------------------------------------------------------------------------------------------- two stages


@dataclass(frozen=True, eq=False)
class PoseClusters:
    """Images clustered by their pose code.

    Attributes:
        centroids: ``(Q, L)`` float32. All Q, also those of merged clusters: a next round can start from them.
        merged: ``(Q,)`` int64, the cluster that each was merged into; its own number if it was not.
        labels: ``(n,)`` int64, the cluster of each image, after merging.
    """

    centroids: Floats
    merged: Integers
    labels: Integers

    def assign(self, codes: ArrayLike) -> Integers:
        """The cluster of other images: ``(n, L)`` codes to ``(n,)`` int64, that of the nearest centroid, merged.

        Raises:
            InputError: Codes of another length, or NaN.
        """
        codes = _points(codes, "pose codes")
        if codes.shape[1] != self.centroids.shape[1]:
            raise InputError(f"found pose codes of {codes.shape[1]} dimensions, expected {self.centroids.shape[1]}")
        return self.merged[_squared_distances(codes, self.centroids).argmin(1)]


def pose_clusters(codes: ArrayLike, q: int, seed: int, start: ArrayLike | None = None, least: int = 50) -> PoseClusters:
    """K-means on pose codes, the first of the two stages (Tourani et al., section 3.3.2).

    Args:
        codes: ``(n, L)``, the mean of each image's code (a sample of it would jitter), taken as they are. Where only
            their direction counts, as in equation 3 with normalised codes, normalise them first.
        q: Clusters.
        seed: Of k-means++.
        start: ``(q, L)`` centroids of an earlier round, so that clusters keep their number.
        least: A cluster of fewer images is merged into the one with the nearest centroid, the smallest first, until
            all are large enough or one is left. With 50 images, one keypoint a landmark and image are 50 descriptors
            for each of the K clusters of the second stage.

    Raises:
        InputError: Fewer images than ``q``, NaN, or a start of another shape.

    Warns:
        RuntimeWarning: Clusters were merged; says which.
    """
    points = _points(codes, "pose codes")
    _enough(len(points), q, "images", "use fewer pose clusters or more images")
    centroids = _cluster(points.copy(), q, seed, start)
    labels = _squared_distances(points, centroids).argmin(1)
    sizes = np.bincount(labels, minlength=q)
    merged = _merge(centroids, sizes, least)
    small = np.flatnonzero(merged != np.arange(q))
    if len(small):
        moves = ", ".join(f"{i} ({sizes[i]} images) into {merged[i]}" for i in small)
        warnings.warn(f"pose clusters of fewer than {least} images are merged: {moves}", RuntimeWarning, 2)
    return PoseClusters(centroids, merged, merged[labels])


def _merge(centroids: Floats, sizes: Integers, least: int) -> Integers:
    sizes, merged = sizes.copy(), np.arange(len(sizes))
    apart = _squared_distances(centroids, centroids)
    np.fill_diagonal(apart, np.inf)
    while True:
        left = np.unique(merged)
        smallest = left[sizes[left].argmin()]
        if len(left) == 1 or sizes[smallest] >= least:
            return merged
        others = left[left != smallest]
        target = others[apart[smallest, others].argmin()]
        sizes[target] += sizes[smallest]
        merged[merged == smallest] = target


def _seeded(descriptors: Floats, centroids: Floats, seed: int, most: int) -> Floats:
    return kmeans(descriptors, len(centroids), seed, centroids, most, keep_empty=True)


def _hungarian(descriptors: Floats, centroids: Floats, seed: int, most: int) -> Floats:
    free = kmeans(descriptors, len(centroids), seed, None, most)
    return free[match(centroids, free)]


ALIGNMENTS: dict[str, Callable[[Floats, Floats, int, int], Floats]] = {"seeded": _seeded, "hungarian": _hungarian}
"""How cluster k of each pose becomes landmark k, of which the paper says nothing (its Q x K labels would be Q x K
landmarks, of which an image shows K). ``seeded``: k-means of each pose starts from the centroids of all poses
together; a landmark that no keypoint of a pose is nearest to keeps that centroid. ``hungarian``: k-means of each
pose starts freely, and its clusters are then matched to those of all poses (:func:`match`). Either puts right what
the clustering of all poses together confuses for some images; where it takes most of one landmark in a pose for
another, both keep that."""


@dataclass(frozen=True, eq=False)
class TwoStage:
    """Two-stage clustering, see :func:`two_stage`.

    Attributes:
        centroids: ``(K, D)`` float32, of all poses together.
        per_pose: ``(Q, K, D)`` float32; cluster k of each pose is landmark k. That of a merged pose cluster is that of
            the one that it was merged into.
        poses: Clusters of the training images: ``poses.centroids`` ``(Q, L)``, ``poses.labels`` ``(n,)``.
    """

    centroids: Floats
    per_pose: Floats
    poses: PoseClusters

    def assign(self, keypoints: Keypoints, codes: ArrayLike, every: bool = False) -> Integers:
        """Exemplars of any images: each by the centroids of its pose, the one whose centroid is nearest to its code.

        In the paper's labels from 1 to Q K, landmark k of an image of pose q (``poses.assign``) is q K + k.

        Args:
            keypoints: Of n images.
            codes: ``(n, L)``, their pose codes.
            every: Whether landmarks without a keypoint in their cluster get the nearest one, see :func:`nearest`.

        Returns:
            ``(n, K)`` int64, rows of ``keypoints``, -1 where missing; see :func:`exemplars`.

        Raises:
            InputError: Not one code an image, or what does not fit these clusters.
        """
        choose, poses = (nearest if every else exemplars), self.poses.assign(codes)
        _one_code_an_image(keypoints, poses)
        found = np.full((keypoints.n_images, len(self.centroids)), -1)
        for pose in np.unique(poses):
            part = _within(
                keypoints,
                np.flatnonzero(poses[keypoints.images] == pose),
                lambda those, centroids=self.per_pose[pose]: choose(those, centroids),
            )
            found = np.maximum(found, part)
        return found


def two_stage(
    keypoints: Keypoints,
    codes: ArrayLike,
    q: int,
    k: int,
    seed: int,
    align: str = "seeded",
    start: TwoStage | None = None,
    least: int = 50,
    most: int = 800_000,
) -> TwoStage:
    """Two-stage clustering of D-ULD++ (Tourani et al., section 3.3.2).

    Images are clustered by pose code, all descriptors into K global clusters, and then the descriptors of each pose's
    images into K clusters whose numbers mean the same landmarks.

    Args:
        keypoints: Of n training images.
        codes: ``(n, L)``, their pose codes, see :func:`pose_clusters`.
        q: Pose clusters.
        k: Landmarks.
        seed: Of both stages.
        align: A key of :data:`ALIGNMENTS`.
        start: The last round's: poses and landmarks keep their numbers.
        least: Images of a pose cluster, see :func:`pose_clusters`.
        most: Descriptors of each k-means, see :func:`kmeans`.

    Raises:
        InputError: Fewer images than ``q`` or descriptors than ``k``, not one code an image, NaN, or an unknown
            ``align``.

    Warns:
        RuntimeWarning: Pose clusters were merged, or have fewer than ``k`` descriptors and take the global centroids.
    """
    if align not in ALIGNMENTS:
        raise InputError(f"found align={align!r}, expected one of {', '.join(ALIGNMENTS)}")
    codes = _points(codes, "pose codes")
    _one_code_an_image(keypoints, codes)
    poses = pose_clusters(codes, q, seed, None if start is None else start.poses.centroids, least)
    centroids = kmeans(keypoints.descriptors, k, seed, None if start is None else start.centroids, most)
    per_pose, pose_of = np.repeat(centroids[None], q, axis=0), poses.labels[keypoints.images]
    for pose in np.unique(poses.labels):
        part = keypoints.descriptors[pose_of == pose]
        if len(part) < k:
            warnings.warn(
                f"pose cluster {pose} has {len(part)} descriptors for {k} landmarks; it takes those of all poses",
                RuntimeWarning,
                2,
            )
            continue
        per_pose[pose] = ALIGNMENTS[align](part, centroids, seed, most)
    return TwoStage(centroids, per_pose[poses.merged], poses)


def _one_code_an_image(keypoints: Keypoints, codes: NDArray[Any]) -> None:
    if len(codes) != keypoints.n_images:
        raise InputError(f"found {len(codes)} pose codes for {keypoints.n_images} images, expected one an image")


# ------------------------------------------------------------------------------------------------- quality


def silhouette(descriptors: ArrayLike, labels: ArrayLike, seed: int = 0, most: int = 5_000) -> float:
    """Silhouette coefficient of clustered descriptors, from -1 to 1, higher is better (Tourani et al., Table 3).

    The paper does not say what the clusters of two stages are in it. With q K + k, a landmark's descriptors in
    neighbouring poses are different clusters, and the more alike they are, the lower is the coefficient; the mean
    over poses of the coefficient within each asks how compact the second stage's clusters are.

    Args:
        descriptors: ``(P, D)``; they are L2-normalised as for the clustering.
        labels: ``(P,)`` clusters, such as those of :meth:`Keypoints.labels`; what has a negative one is left out.
        seed: Of the choice of descriptors.
        most: Descriptors to use; of more, that many at random. Time grows with the square.

    Raises:
        InputError: Fewer than two clusters, or one descriptor a cluster.
    """
    return float(silhouette_score(*_labelled(descriptors, labels, seed, most)))


def calinski_harabasz(descriptors: ArrayLike, labels: ArrayLike, seed: int = 0, most: int = 5_000) -> float:
    """Calinski-Harabasz index of clustered descriptors, higher is better (Tourani et al., Table 3).

    The dispersion of the clusters' means over that within clusters. It grows in proportion to the number of
    descriptors, which the paper does not give: compare only values of equal numbers.

    Args:
        descriptors: See :func:`silhouette`.
        labels: See :func:`silhouette`.
        seed: See :func:`silhouette`.
        most: See :func:`silhouette`.

    Raises:
        InputError: Fewer than two clusters, or one descriptor a cluster.
    """
    return float(calinski_harabasz_score(*_labelled(descriptors, labels, seed, most)))


def _labelled(descriptors: ArrayLike, labels: ArrayLike, seed: int, most: int) -> tuple[Floats, Integers]:
    points, labels = _points(descriptors, "descriptors"), np.asarray(labels)
    if labels.shape != (len(points),):
        raise InputError(f"found labels of shape {labels.shape} for {len(points)} descriptors")
    rows = np.flatnonzero(labels >= 0)
    rows = rows[_subset(len(rows), most, seed)]
    n_clusters = len(np.unique(labels[rows]))
    if not 2 <= n_clusters < len(rows):
        raise InputError(
            f"found {len(rows)} descriptors in {n_clusters} clusters, expected at least 2 clusters and more "
            "descriptors than clusters"
        )
    return _unit(points[rows]), labels[rows]


def stands_for(labels: ArrayLike, truth: ArrayLike, rule: str = "hungarian") -> Integers:
    """The class that each item's cluster stands for, such as the range of yaw of a pose cluster.

    Args:
        labels: ``(n,)`` int, clusters.
        truth: ``(n,)`` int, classes, from 0.
        rule: ``hungarian``: each class goes to one cluster, so that most items agree; ``majority``: each cluster
            stands for its most frequent class (Tourani et al., section 5).

    Returns:
        ``(n,)`` int64; -1 for clusters that are left without a class.

    Raises:
        InputError: Empty or unequal arrays, or an unknown rule.
    """
    table, of_label, classes = _table(labels, truth)
    return np.append(classes, -1)[_classes(table, rule)][of_label]


def clustering_accuracy(labels: ArrayLike, truth: ArrayLike, rule: str = "hungarian") -> float:
    """Percentage of items whose cluster stands for their class (Tourani et al., Figure 7: pose clusters and yaw).

    Clusters that know nothing of the classes reach :func:`chance_level`: 20 % for Q = 5 pose clusters and the five
    ranges of yaw where clusters or ranges are of equal size. Otherwise it is more; under ``majority`` it is the share
    of the largest class, 33 % for the paper's ranges and a yaw that is uniform from -90 to 90 degrees.

    Args:
        labels: ``(n,)`` int, clusters.
        truth: ``(n,)`` int, classes, from 0.
        rule: See :func:`stands_for`. Under ``hungarian`` more clusters than classes cost accuracy, under
            ``majority`` they add to it.

    Raises:
        InputError: See :func:`stands_for`.
    """
    return 100 * float((stands_for(labels, truth, rule) == np.asarray(truth)).mean())


def accuracy_by_class(labels: ArrayLike, truth: ArrayLike, rule: str = "hungarian") -> Floats:
    """:func:`clustering_accuracy` of each class by itself: the bars of Tourani et al., Figure 7.

    Args:
        labels: ``(n,)`` int, clusters.
        truth: ``(n,)`` int, classes, from 0.
        rule: See :func:`stands_for`.

    Returns:
        ``(C,)`` percent, C one more than the largest class; NaN for a class without items.

    Raises:
        InputError: See :func:`stands_for`.
    """
    right, classes = stands_for(labels, truth, rule) == np.asarray(truth), np.asarray(truth)
    counts = np.bincount(classes)
    with np.errstate(invalid="ignore"):
        return (100 * np.bincount(classes, weights=right, minlength=len(counts)) / counts).astype(np.float32)


def chance_level(labels: ArrayLike, truth: ArrayLike, rule: str = "hungarian") -> float:
    """Accuracy in percent of clusters of the same sizes that have nothing to do with the classes.

    It is that of many items: among few, the matching makes something of accidents.

    Args:
        labels: ``(n,)`` int, clusters.
        truth: ``(n,)`` int, classes, from 0.
        rule: See :func:`stands_for`.

    Raises:
        InputError: See :func:`stands_for`.
    """
    table = _table(labels, truth)[0]
    independent = np.outer(table.sum(1), table.sum(0)) / table.sum() ** 2
    matched = _classes(independent, rule)
    return 100 * float(independent[matched >= 0, matched[matched >= 0]].sum())


def _table(labels: ArrayLike, truth: ArrayLike) -> tuple[Integers, Integers, Integers]:
    """How many items of each cluster are of each class, each item's row in it, and the classes."""
    labels, truth = np.asarray(labels), np.asarray(truth)
    if labels.ndim != 1 or labels.shape != truth.shape or not len(labels):
        raise InputError(f"found labels of shape {labels.shape} and classes of shape {truth.shape}, expected (n,) both")
    clusters, of_label = np.unique(labels, return_inverse=True)
    classes, of_truth = np.unique(truth, return_inverse=True)
    table = np.zeros((len(clusters), len(classes)), np.int64)
    np.add.at(table, (of_label, of_truth), 1)
    return table, of_label, classes


def _classes(table: NDArray[Any], rule: str) -> Integers:
    """The column of each row; -1 for none."""
    if rule == "majority":
        return table.argmax(1)
    if rule != "hungarian":
        raise InputError(f"found rule {rule!r}, expected hungarian or majority")
    matched = np.full(len(table), -1)
    rows, columns = linear_sum_assignment(table, maximize=True)
    matched[rows] = columns
    return matched
