"""Clustering against planted clusters, landmarks and poses."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from ulm import clustering
from ulm.clustering import Keypoints, TwoStage
from ulm.errors import InputError

K, D = 6, 16
ANGLE = 0.6
BASE = np.eye(K, D)


@pytest.fixture
def random():
    return np.random.default_rng(0)


def planted(centres, each, random, noise=0.05):
    """``each`` noisy copies of every centre, in random order, and the number of their centre."""
    truth = random.permutation(np.repeat(np.arange(len(centres)), each))
    return centres[truth] + random.normal(0, noise, (len(truth), centres.shape[1])), truth


def keypoints_of(descriptors, images=None, n_images=None):
    n = len(descriptors)
    images = np.zeros(n, int) if images is None else np.asarray(images)
    places = np.stack([np.arange(n), 100 + np.arange(n)], axis=1)
    return Keypoints(
        descriptors, images, places, np.ones(n), images.max(initial=-1) + 1 if n_images is None else n_images
    )


class Posed:
    """Images of K landmarks whose descriptors turn with the pose, 34 degrees towards the next landmark's or the last's.

    At the extreme poses a landmark is not much nearer to its own mean over all poses than to its neighbour's.
    """

    def __init__(self, random, turns, noise=0.15):
        self.turns = np.asarray(turns)
        self.codes = self.turns[:, None] * [3.0, 1.0] + random.normal(0, 0.1, (len(self.turns), 2))
        self.images = np.repeat(np.arange(len(self.turns)), K)
        self.truth = np.tile(np.arange(K), len(self.turns))
        descriptors = self.centres(self.turns[self.images], self.truth)
        self.keypoints = keypoints_of(descriptors + random.normal(0, noise, descriptors.shape), self.images)

    @staticmethod
    def centres(turns, landmarks):
        angles, neighbours = ANGLE * np.abs(turns)[..., None], (landmarks + np.sign(turns).astype(int)) % K
        return np.cos(angles) * BASE[landmarks] + np.sin(angles) * BASE[neighbours]

    def accuracy(self, indices, names):
        """Share of landmarks that are found; ``names`` are the planted landmarks' clusters."""
        found = np.append(self.truth, -1)[indices[:, names]]
        return (found == np.arange(K)).mean()


@pytest.fixture
def posed(random):
    return Posed(random, random.permutation(np.repeat([-1, 0, 1], [60, 80, 60])))


# ----------------------------------------------------------------------------------------------- keypoints


def test_keypoints_are_checked(random):
    good = {"descriptors": random.normal(size=(4, 3)), "images": [0, 0, 1, 2], "places": np.zeros((4, 2))}
    good |= {"scores": np.ones(4), "n_images": 3}
    assert Keypoints(**good).descriptors.dtype == Keypoints(**good).places.dtype == np.float32
    for change, message in (
        ({"descriptors": np.ones(4)}, "descriptors of shape"),
        ({"places": np.ones((4, 3))}, r"places of shape \(4, 3\)"),
        ({"images": [0, 1]}, r"images of shape \(2,\) for 4"),
        ({"scores": np.ones((4, 1))}, "scores of shape"),
        ({"n_images": 2}, "images 0 to 2, expected 0 to 1"),
        ({"images": [-1, 0, 0, 0]}, "images -1 to 0"),
        ({"scores": [1, np.nan, np.inf, 1]}, "in 2 of 4 keypoints; Keypoints.finite"),
    ):
        with pytest.raises(InputError, match=message):
            Keypoints(**(good | change))


def test_what_is_not_finite_is_dropped_counted_and_said_once(random):
    descriptors, places = random.normal(size=(6, 3)), np.arange(12.0).reshape(6, 2)
    descriptors[1, 2], places[4, 0] = np.nan, np.inf
    with pytest.warns(RuntimeWarning, match="dropped 2 of 6") as said:
        keypoints = Keypoints.finite(descriptors, np.arange(6), places, np.ones(6), 6)
    assert len(said) == 1
    assert (len(keypoints), keypoints.dropped, keypoints.n_images) == (4, 2, 6)
    assert keypoints.images.tolist() == [0, 2, 3, 5]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Keypoints.finite(keypoints.descriptors, keypoints.images, keypoints.places, np.ones(4), 6).dropped == 0
    with pytest.raises(InputError, match="places of shape"):
        Keypoints.finite(descriptors, np.arange(6), places[:3], np.ones(6), 6)


# ------------------------------------------------------------------------------------------------- k-means


def test_planted_clusters_are_found_whatever_the_lengths(random):
    descriptors, truth = planted(BASE, 50, random)
    centroids = clustering.kmeans(descriptors, K, seed=1)
    assert centroids.dtype == np.float32
    names = clustering.match(BASE, centroids)
    unit = descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)
    means = np.stack([unit[truth == k].mean(0) for k in range(K)])
    assert np.allclose(centroids[names], means, atol=1e-5)
    scaled = clustering.kmeans(descriptors * random.uniform(0.1, 10, (len(truth), 1)), K, seed=1)
    assert np.allclose(scaled, centroids, atol=1e-5)


def test_the_restarts_look_at_a_sample_and_all_descriptors_count(random, monkeypatch):
    descriptors, truth = planted(BASE, 80, random, noise=0.1)
    descriptors[0] = np.nan
    descriptors, truth = descriptors[1:], truth[1:]
    monkeypatch.setattr(clustering, "SEEDING", 60)
    centroids = clustering.kmeans(descriptors, K, seed=0)
    unit = descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)
    means = np.stack([unit[truth == k].mean(0) for k in range(K)])
    assert np.allclose(centroids[clustering.match(means, centroids)], means, atol=1e-4)
    # With `most` only 60 are looked at: other means, of a seeded choice.
    few = clustering.kmeans(descriptors, K, seed=0, most=60)
    assert 0.01 < np.abs(few[clustering.match(means, few)] - means).max() < 0.3
    assert np.array_equal(few, clustering.kmeans(descriptors, K, seed=0, most=60))
    assert not np.array_equal(few, clustering.kmeans(descriptors, K, seed=1, most=60))


def test_what_is_given_stays_as_it_is(random):
    descriptors = planted(BASE, 20, random)[0].astype(np.float32)
    codes, start = random.normal(size=(60, 4)).astype(np.float32), BASE.astype(np.float32)
    copies = descriptors.copy(), codes.copy(), start.copy()
    clustering.kmeans(descriptors, K, 0, start)
    clustering.pose_clusters(codes, 2, 0, codes[:2], least=1)
    assert all(np.array_equal(*pair) for pair in zip((descriptors, codes, start), copies, strict=True))


def test_a_warm_start_keeps_the_numbers_of_clusters(random):
    order = random.permutation(K)
    start = clustering.kmeans(planted(BASE[order], 40, random)[0], K, 0, start=BASE[order])
    # Another round: all descriptors have turned by 30 degrees towards their neighbour's.
    moved = Posed.centres(np.full(K, np.pi / 6 / ANGLE), np.arange(K))
    descriptors, _ = planted(moved, 40, random)
    warm = clustering.kmeans(descriptors, K, 5, start)
    assert np.linalg.norm(warm - moved[order], axis=1).max() < 0.1
    cold = clustering.kmeans(descriptors, K, 5)
    assert np.linalg.norm(cold - moved[order], axis=1).max() > 0.5
    assert np.allclose(cold[clustering.match(warm, cold)], warm, atol=1e-5)


def test_an_empty_cluster_stays_or_moves_and_says_so(random):
    descriptors, _ = planted(BASE[:4], 40, random)
    start = BASE[:5]  # nothing is left of cluster 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = clustering.kmeans(descriptors, 5, 0, start, keep_empty=True)
    assert np.array_equal(kept[4], start[4])
    assert np.allclose(kept[:4], clustering.kmeans(descriptors, 4, 0, start[:4]), atol=1e-5)
    with pytest.warns(RuntimeWarning, match="clusters 4 have no points left"):
        moved = clustering.kmeans(descriptors, 5, 0, start)
    labels = clustering.exemplars(keypoints_of(descriptors), moved)
    assert (labels >= 0).all()


def test_kmeans_is_the_same_to_the_bit_and_uses_no_third_thread(random):
    descriptors = random.normal(size=(300, D))
    first, second, other = (clustering.kmeans(descriptors, K, seed) for seed in (3, 3, 4))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)
    openmp = ThreadpoolController().select(user_api="openmp")
    with openmp.limit(limits=4):
        with clustering._two_threads():
            assert {library["num_threads"] for library in openmp.info()} == {2}
        assert {library["num_threads"] for library in openmp.info()} == {4}
    with openmp.limit(limits=1), clustering._two_threads():
        assert {library["num_threads"] for library in openmp.info()} == {1}


def test_errors_of_kmeans(random):
    descriptors = random.normal(size=(5, 3))
    with pytest.raises(InputError, match="found 5 descriptors for 6 clusters, expected at least 6; use fewer"):
        clustering.kmeans(descriptors, 6, 0)
    with pytest.raises(InputError, match="found 0 clusters"):
        clustering.kmeans(descriptors, 0, 0)
    with pytest.raises(InputError, match=r"start centroids of shape \(3, 3\), expected \(2, 3\)"):
        clustering.kmeans(descriptors, 2, 0, start=np.eye(3))
    with pytest.raises(InputError, match="NaN or infinity in 1 of 5 descriptors"):
        clustering.kmeans(np.where(np.arange(5)[:, None] == 2, np.nan, descriptors), 2, 0)
    with pytest.raises(InputError, match="equal ones"):
        clustering.match(np.eye(3), np.eye(4))


# ----------------------------------------------------------------------------------------------- exemplars


def on_circle(degrees):
    return np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=1)


def test_exemplars_by_hand():
    centroids = on_circle([0, 90, 180])
    # Image 0: two of cluster 0, one of cluster 1. Image 1: none. Image 2: one of each. In mixed order and lengths.
    descriptors = on_circle([20, 178, 10, 85, 95, 40]) * [[1], [2], [9], [2], [0.5], [0.1]]
    keypoints = keypoints_of(descriptors, [0, 2, 0, 2, 0, 2], n_images=3)
    found = clustering.exemplars(keypoints, centroids)
    assert found.tolist() == [[2, 4, -1], [-1, -1, -1], [5, 3, 1]]
    landmarks = keypoints.landmarks(found)
    assert landmarks.shape == (3, 3, 2)
    assert landmarks[0, :2].tolist() == [[2, 102], [4, 104]]
    assert np.isnan(landmarks[0, 2]).all()
    assert np.isnan(landmarks[1]).all()
    # Keypoint 0 belongs to cluster 0, but is not its exemplar.
    assert keypoints.labels(found).tolist() == [-1, 2, 0, 1, 1, 0]


def test_nearest_leaves_nothing_out_but_images_without_keypoints():
    centroids = on_circle([0, 90, 180])
    keypoints = keypoints_of(on_circle([20, 10, 95]), [0, 0, 0], n_images=2)
    assert clustering.nearest(keypoints, centroids).tolist() == [[1, 2, 2], [-1, -1, -1]]


def test_no_keypoint_at_all_is_survived():
    nothing = keypoints_of(np.zeros((0, 2)), n_images=2)
    for choose in (clustering.exemplars, clustering.nearest):
        found = choose(nothing, np.eye(2))
        assert (found == -1).all()
        assert np.isnan(nothing.landmarks(found)).all()
    with pytest.raises(InputError, match="not from the network"):
        clustering.exemplars(nothing, np.eye(3))


def test_exemplars_drop_clutter(random):
    # Each image has every landmark sharply, and clutter that is nearer to it than to other landmarks.
    sharp = BASE[np.tile(np.arange(K), 20)]
    clutter = BASE[random.integers(K, size=200)] + random.normal(0, 0.15, (200, D))
    images = np.concatenate([np.repeat(np.arange(20), K), random.integers(20, size=200)])
    found = clustering.exemplars(keypoints_of(np.concatenate([sharp, clutter]), images), BASE)
    assert np.array_equal(found, np.arange(20 * K).reshape(20, K))


# -------------------------------------------------------------------------------------- over-segmentation


def test_oversegmentation_parts_appearances_and_uses_exemplars_alone(random):
    # Each of two landmarks looks one of two ways; a third of the keypoints are further from their centroid.
    ways = np.array([[1, 0.5, 0, 0], [1, -0.5, 0, 0], [0, 0, 1, 0.5], [0, 0, 1, -0.5]])
    n = 60
    truth = np.stack([random.integers(2, size=n), 2 + random.integers(2, size=n)], axis=1)
    good = ways[truth] + random.normal(0, 0.02, (n, 2, 4))
    bad = ways[truth] @ np.diag([1, 3, 1, 3])
    keypoints = keypoints_of(np.concatenate([bad, good], axis=1).reshape(-1, 4), np.repeat(np.arange(n), 4))
    indices = clustering.exemplars(keypoints, clustering.kmeans(good.reshape(-1, 4), 2, 0))
    survivors = np.unique(indices)
    assert sorted(survivors % 4) == [2] * n + [3] * n
    centroids, finer = clustering.oversegment(keypoints, indices, 4, seed=0)
    names = clustering.match(ways / np.linalg.norm(ways, axis=1, keepdims=True), centroids)
    assert set(finer[finer >= 0]) == set(survivors)
    seen = (truth[:, :, None] == np.arange(4)).any(1)
    assert np.array_equal(finer[:, names] >= 0, seen)
    warm, _ = clustering.oversegment(keypoints, indices, 4, seed=9, start=centroids[::-1])
    assert np.allclose(warm, centroids[::-1], atol=1e-4)
    with pytest.raises(InputError, match=f"found {2 * n} exemplars for 500 clusters.*smaller M"):
        clustering.oversegment(keypoints, indices, 500, seed=0)


# ---------------------------------------------------------------------------------------------- two stages


def test_small_pose_clusters_are_merged_and_reported(random):
    # On a line: 0 (30 images), 4 (2), 5 (1), 20 (30). 5 goes to 4, and both go to 0.
    where = np.repeat([0.0, 4.0, 5.0, 20.0], [30, 2, 1, 30])
    codes = where[:, None] * [1.0, 0.0] + random.normal(0, 0.01, (63, 2))
    start = np.array([[0.0, 0], [4, 0], [5, 0], [20, 0]])
    with pytest.warns(RuntimeWarning, match=r"1 \(2 images\) into 0, 2 \(1 images\) into 0"):
        poses = clustering.pose_clusters(codes, 4, 0, start, least=10)
    assert poses.merged.tolist() == [0, 0, 0, 3]
    assert poses.labels.tolist() == [0] * 33 + [3] * 30
    # The centroids of all four are kept, and what is near to a small one goes where it went.
    assert np.allclose(poses.centroids, start, atol=0.05)
    assert poses.assign([[4.6, 0], [11, 0], [13, 0]]).tolist() == [0, 0, 3]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert clustering.pose_clusters(codes, 4, 0, start, least=1).merged.tolist() == [0, 1, 2, 3]


def test_two_small_pose_clusters_make_one_that_is_large_enough():
    codes = np.repeat([0.0, 10.0, 11.0, 30.0], [30, 6, 6, 30])[:, None]
    with pytest.warns(RuntimeWarning, match=r"merged: 1 \(6 images\) into 2$"):
        poses = clustering.pose_clusters(codes, 4, 0, [[0], [10], [11], [30]], least=10)
    assert np.bincount(poses.labels).tolist() == [30, 0, 12, 30]


def test_pose_codes_that_collapsed_are_one_cluster():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        poses = clustering.pose_clusters(np.ones((20, 3)), 3, 0, least=5)
    assert any("pose clusters of fewer than 5 images are merged" in str(one.message) for one in said)
    assert len(np.unique(poses.labels)) == len(np.unique(poses.merged)) == 1


def test_errors_of_pose_clusters(random):
    codes = random.normal(size=(20, 3))
    with pytest.raises(InputError, match="found 20 images for 21 clusters, expected at least 21; use fewer pose"):
        clustering.pose_clusters(codes, 21, 0)
    with pytest.raises(InputError, match="NaN or infinity in 20 of 20 pose codes"):
        clustering.pose_clusters(codes * np.nan, 2, 0)
    poses = clustering.pose_clusters(codes, 2, 0, least=1)
    with pytest.raises(InputError, match="4 dimensions, expected 3"):
        poses.assign(np.zeros((1, 4)))


@pytest.mark.parametrize("align", list(clustering.ALIGNMENTS))
def test_two_stages_find_landmarks_that_one_clustering_confuses(posed, random, align):
    stage = clustering.two_stage(posed.keypoints, posed.codes, q=3, k=K, seed=0, align=align)
    assert clustering.clustering_accuracy(stage.poses.labels, posed.turns) == 100
    assert stage.per_pose.shape == (3, K, D)
    names = clustering.match(BASE, stage.centroids)
    one = posed.accuracy(clustering.exemplars(posed.keypoints, stage.centroids), names)
    both = posed.accuracy(stage.assign(posed.keypoints, posed.codes), names)
    assert one < 0.95
    assert both > 0.98
    # Landmark k has one meaning in all poses: its centroids are those of planted landmark k at each turn.
    turns = [posed.turns[stage.poses.labels == pose][0] for pose in range(3)]
    for pose, turn in enumerate(turns):
        centres = Posed.centres(np.full(K, turn), np.arange(K))
        assert np.linalg.norm(stage.per_pose[pose][names] - centres, axis=1).max() < 0.25
    # So also for images that were not clustered.
    new = Posed(random, random.choice([-1, 0, 1], 50))
    assert new.accuracy(stage.assign(new.keypoints, new.codes), names) > 0.98
    assert (stage.assign(new.keypoints, new.codes, every=True) >= 0).all()


def test_without_alignment_the_poses_permute_the_landmarks(posed):
    stage = clustering.two_stage(posed.keypoints, posed.codes, q=3, k=K, seed=0)
    pose_of = stage.poses.labels[posed.images]
    free = [clustering.kmeans(posed.keypoints.descriptors[pose_of == pose], K, seed=0) for pose in range(3)]
    unaligned = TwoStage(stage.centroids, np.stack(free), stage.poses)
    names = clustering.match(BASE, stage.centroids)
    assert posed.accuracy(unaligned.assign(posed.keypoints, posed.codes), names) < 0.7


def test_within_a_pose_two_stages_have_more_compact_clusters(posed):
    stage = clustering.two_stage(posed.keypoints, posed.codes, q=3, k=K, seed=0)
    one = posed.keypoints.labels(clustering.exemplars(posed.keypoints, stage.centroids))
    both = posed.keypoints.labels(stage.assign(posed.keypoints, posed.codes))
    for turn in (-1, 1):
        here = posed.turns[posed.images] == turn
        apart = [clustering.silhouette(posed.keypoints.descriptors[here], labels[here]) for labels in (one, both)]
        assert apart[0] < apart[1]


def test_a_landmark_that_a_pose_hides_is_missing_there(random):
    # Descriptors turn little here: a keypoint of another landmark at the empty centroid would begin a cluster.
    posed = Posed(random, random.choice([-0.3, 0, 0.3], 200))
    hidden = (posed.turns[posed.images] > 0) & (posed.truth == 2)
    keypoints = posed.keypoints.take(~hidden)
    stage = clustering.two_stage(keypoints, posed.codes, q=3, k=K, seed=0)
    landmarks = keypoints.landmarks(stage.assign(keypoints, posed.codes))
    missing = np.isnan(landmarks).all(-1)[:, clustering.match(BASE, stage.centroids)]
    assert missing[posed.turns > 0, 2].all()
    missing[posed.turns > 0, 2] = False
    assert missing.mean() < 0.01


def test_a_next_round_keeps_poses_and_landmarks(posed, random):
    first = clustering.two_stage(posed.keypoints, posed.codes, q=3, k=K, seed=0)
    later = Posed(random, posed.turns * 0.9)
    later.codes += 0.5
    warm = clustering.two_stage(later.keypoints, later.codes, q=3, k=K, seed=7, start=first)
    assert np.array_equal(warm.poses.labels, first.poses.labels)
    assert clustering.match(first.centroids, warm.centroids).tolist() == list(range(K))
    assert np.linalg.norm(warm.per_pose - first.per_pose, axis=-1).max() < 0.3
    cold = clustering.two_stage(later.keypoints, later.codes, q=3, k=K, seed=7)
    assert clustering.match(first.centroids, cold.centroids).tolist() != list(range(K))
    again = clustering.two_stage(later.keypoints, later.codes, q=3, k=K, seed=7)
    assert np.array_equal(cold.per_pose, again.per_pose)


def test_a_pose_of_two_images_is_survived_and_reported(posed, random):
    turns = np.concatenate([posed.turns, [5, 5]])
    few = Posed(random, turns)
    with pytest.warns(RuntimeWarning, match=r"\(2 images\) into"):
        stage = clustering.two_stage(few.keypoints, few.codes, q=4, k=K, seed=0)
    small = np.flatnonzero(stage.poses.merged != np.arange(4))
    assert len(small) == 1
    assert np.array_equal(stage.per_pose[small], stage.per_pose[stage.poses.merged[small]])
    assert np.isfinite(stage.per_pose).all()
    found = stage.assign(few.keypoints, few.codes)
    assert posed.accuracy(found[:200], clustering.match(BASE, stage.centroids)) > 0.98


def test_a_pose_with_few_keypoints_takes_the_centroids_of_all_poses(posed):
    # Of the images of turn 1 one has keypoints, and one less than there are landmarks; of another none is asked.
    turned = np.flatnonzero(posed.turns == 1)
    keep = (posed.turns[posed.images] != 1) | ((posed.images == turned[0]) & (posed.truth > 0))
    keypoints = posed.keypoints.take(keep)
    with pytest.warns(RuntimeWarning, match=f"has {K - 1} descriptors for {K} landmarks"):
        stage = clustering.two_stage(keypoints, posed.codes, q=3, k=K, seed=0)
    pose = stage.poses.labels[turned[0]]
    assert np.array_equal(stage.per_pose[pose], stage.centroids)
    found = stage.assign(keypoints, posed.codes)
    assert (found[turned[1:]] == -1).all()
    assert (found[turned[0]] >= 0).sum() >= K - 2


def test_errors_of_two_stages(posed):
    with pytest.raises(InputError, match="align='free', expected one of seeded, hungarian"):
        clustering.two_stage(posed.keypoints, posed.codes, 3, K, 0, align="free")
    with pytest.raises(InputError, match="found 199 pose codes for 200 images"):
        clustering.two_stage(posed.keypoints, posed.codes[1:], 3, K, 0)
    stage = clustering.two_stage(posed.keypoints, posed.codes, 3, K, 0)
    with pytest.raises(InputError, match="found 1 pose codes for 200 images"):
        stage.assign(posed.keypoints, posed.codes[:1])


# ------------------------------------------------------------------------------------------------- quality


def test_quality_prefers_the_planted_clusters(random):
    descriptors, truth = planted(BASE, 40, random, noise=0.1)
    shuffled = random.permutation(truth)
    for measure in (clustering.silhouette, clustering.calinski_harabasz):
        assert measure(descriptors, truth) > 2 * abs(measure(descriptors, shuffled)) + 0.2
        # Lengths do not count, and what has no label is left out.
        longer = descriptors * random.uniform(1, 9, (len(truth), 1))
        assert measure(longer, truth) == pytest.approx(measure(descriptors, truth), rel=1e-4)
        more = np.concatenate([descriptors, random.normal(size=(50, D))]), np.append(truth, np.full(50, -1))
        assert measure(*more) == measure(descriptors, truth)
        few = [measure(descriptors, truth, seed, most=60) for seed in (0, 0, 1)]
        assert few[0] == few[1] != few[2]
    # The index grows with the number of descriptors, the coefficient does not.
    twice = np.tile(descriptors, (2, 1)), np.tile(truth, 2)
    assert clustering.calinski_harabasz(*twice) > 1.9 * clustering.calinski_harabasz(descriptors, truth)


def test_quality_by_hand():
    # Two pairs on a circle, 0 and 60, 180 and 240 degrees: chords of length 1 within.
    points, labels = on_circle([0, 60, 180, 240]), [0, 0, 1, 1]
    between = [(2 + np.sqrt(3)) / 2, (np.sqrt(3) + 2) / 2]
    expected = np.mean([1 - 1 / apart for apart in between])
    assert clustering.silhouette(points, labels) == pytest.approx(expected, rel=1e-5)
    # Means lie sqrt(3) / 2 from the middle: 4 * 0.75 between, 4 * 0.25 within over 2 degrees of freedom.
    assert clustering.calinski_harabasz(points, labels) == pytest.approx(3 / (1 / 2), rel=1e-5)


def test_errors_of_quality(random):
    points = random.normal(size=(6, 3))
    for labels in (np.zeros(6), np.arange(6), np.full(6, -1)):
        with pytest.raises(InputError, match="at least 2 clusters"):
            clustering.silhouette(points, labels)
    with pytest.raises(InputError, match="for 6 descriptors"):
        clustering.calinski_harabasz(points, np.zeros(5))


def test_clustering_accuracy_by_hand():
    truth = [0, 0, 0, 0, 1, 1, 2, 2]
    labels = [7, 7, 3, 3, 7, 3, 5, 5]
    # 5 is class 2 (2 items). Cluster 7 or 3 is class 0 (2 items), the other class 1 (1 item).
    assert clustering.clustering_accuracy(labels, truth) == 100 * 5 / 8
    # By the majority both 7 and 3 are class 0.
    assert clustering.clustering_accuracy(labels, truth, "majority") == 100 * 6 / 8
    assert clustering.stands_for(labels, truth, "majority").tolist() == [0, 0, 0, 0, 0, 0, 2, 2]
    # More clusters than classes: some stand for none, by the majority all do.
    assert clustering.stands_for([0, 0, 1], [4, 4, 4]).tolist() == [4, 4, -1]
    assert clustering.clustering_accuracy([0, 0, 1], [4, 4, 4], "majority") == 100
    for wrong in (([0], [0, 1]), ([], []), ([[0]], [[0]])):
        with pytest.raises(InputError, match="classes of shape"):
            clustering.clustering_accuracy(*wrong)
    with pytest.raises(InputError, match="rule 'best', expected hungarian or majority"):
        clustering.clustering_accuracy([0, 1], [0, 1], "best")


def test_chance_level_is_what_clusters_without_knowledge_reach(random):
    ranges = np.digitize(random.uniform(-90, 90, 20_000), [-60, -30, 30, 60])
    equal, skewed = random.integers(5, size=20_000), random.choice(5, 20_000, p=[0.6, 0.1, 0.1, 0.1, 0.1])
    for labels, rule, expected in (
        (equal, "hungarian", 20),
        (equal, "majority", 100 / 3),
        (skewed, "hungarian", 100 * (0.6 / 3 + 4 * 0.1 / 6)),
        (skewed, "majority", 100 / 3),
    ):
        assert clustering.chance_level(labels, ranges, rule) == pytest.approx(expected, abs=1)
        reached = clustering.clustering_accuracy(labels, ranges, rule)
        assert reached == pytest.approx(expected, abs=1.5)
    assert clustering.clustering_accuracy((ranges + 2) % 5, ranges) == 100


def test_accuracy_by_class_is_that_of_the_items_of_a_class(random):
    truth, labels = np.array([0, 0, 0, 0, 1, 1, 3, 3]), np.array([5, 5, 5, 2, 2, 2, 7, 5])
    found = clustering.accuracy_by_class(labels, truth, "majority")
    np.testing.assert_allclose(found, [75, 100, np.nan, 50])
    sizes = np.bincount(truth)
    whole = np.nansum(found * sizes) / sizes.sum()
    assert whole == pytest.approx(clustering.clustering_accuracy(labels, truth, "majority"))
