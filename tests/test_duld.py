"""D-ULD: labels and losses by hand, then the chain of stages: training, resuming, files, and what is survived."""

import json
import warnings

import numpy as np
import pytest
import torch
from test_zero_shot import Squares

from ulm import runs
from ulm.clustering import Keypoints
from ulm.datasets.cache import cached
from ulm.diffusion import pipelines
from ulm.errors import InputError
from ulm.methods import METHODS, bootstrapping, duld, load
from ulm.methods import pseudo_labels as labelling
from ulm.methods.duld import DULD, Batch, Bootstrap, DULDPlusPlus, MallisD, PoseProxy
from ulm.methods.stable_keypoints import draw_affines, warp
from ulm.methods.zero_shot import ZeroShot

TINY = {
    **runs.profile("smoke")["d-uld"],
    "n_landmarks": 3,
    "layers": [9, 10, 11],
    "region": "box",
    "fine": 5,
    "negatives": 4,
    "threshold": 0.0,
    "most": 10,
    "cache": "memory",
    "missing": "nearest",
}
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(scope="module")
def pipeline():
    return pipelines.build("tiny")


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ULM_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture(scope="module")
def model(pipeline):
    return lambda stage, **changes: stage(**{**TINY, **changes}).attach(pipeline)


@pytest.fixture(scope="module")
def chain(model):
    """One model of each stage, fitted after each other."""
    found, start = {}, None
    for stage in (Bootstrap, DULD, PoseProxy, DULDPlusPlus):
        start = model(stage).fit(Squares(), progress=False, start=start, log_every=1)
        found[stage] = start
    return found


def seeded(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def three_kinds(n=6, seed=0):
    """Keypoints of n images: one near each of three directions, in an order of their own in each image."""
    rng = np.random.default_rng(seed)
    order = np.stack([rng.permutation(3) for _ in range(n)])
    descriptors = np.eye(3)[order].reshape(-1, 3) + 0.05 * rng.standard_normal((3 * n, 3))
    places = np.stack([10 * order + 1.0, np.repeat(np.arange(n), 3).reshape(n, 3)], -1).reshape(-1, 2)
    return Keypoints(descriptors, np.repeat(np.arange(n), 3), places, np.ones(3 * n), n), order


UPDATE = {"seed": 0, "keep": True, "align": "seeded", "least": 2}


def test_copies_shift_and_grow_as_far_as_they_are_told_to(model):
    """What identifies a place must not be where it lies in the frame."""
    still = model(Bootstrap, rotation=0.0, translation=0.0, zoom=1.0)
    affines, mirrored = still._draw(50, 0.0, torch.Generator().manual_seed(0))
    assert torch.equal(affines, torch.eye(2, 3).expand(50, -1, -1))
    assert not mirrored.any()
    moving = model(Bootstrap, rotation=0.0, translation=0.4, zoom=1.3)
    affines, mirrored = moving._draw(200, 0.5, torch.Generator().manual_seed(0))
    shifts, scales = affines[..., 2], affines[:, 1, 1]
    assert 0.35 < shifts.abs().max() <= 0.4
    assert 1 / 1.3 <= scales.min() < 0.8 < 0.97 < scales.max() <= 1
    assert torch.allclose(affines[:, 0, 0], scales * (1 - 2 * mirrored.float()))


# --- labels ---------------------------------------------------------------------------------------------------------


def test_labels_of_one_stage_and_their_names():
    keypoints, order = three_kinds()
    clusters = labelling.Clusters(3, 3)
    found = clusters.update(keypoints, None, **UPDATE)
    # Each landmark is the keypoint of one direction in every image.
    kinds = order.reshape(-1)[found.rows]
    assert (kinds == kinds[0]).all()
    assert sorted(kinds[0]) == [0, 1, 2]
    assert found.labels.tolist() == [[0, 1, 2]] * 6
    # The centroids themselves handed on, in another order: numbers stay.
    clusters.centroids.copy_(clusters.centroids[[2, 0, 1]].clone())
    again = clusters.update(three_kinds(seed=1)[0], None, **UPDATE)
    turned = three_kinds(seed=1)[1].reshape(-1)[again.rows]
    assert turned[0].tolist() == kinds[0][[2, 0, 1]].tolist()


def test_mallis_labels_are_fine_and_their_losers_dropped():
    keypoints, _ = three_kinds()
    clusters = labelling.Clusters(3, 3, fine=2)
    found = clusters.update(keypoints, None, **UPDATE)
    # Three exemplars an image in two fine clusters: two are left of each image, with different labels.
    for rows, labels in zip(found.rows, found.labels, strict=True):
        assert sorted(labels) == [-1, 0, 1]
        assert (rows < 0).tolist() == (labels < 0).tolist()
    assert clusters.fine.any(1).all()


def test_labels_of_two_stages():
    keypoints, order = three_kinds()
    codes = torch.tensor([[0.0, 1.0], [0.1, 1.0], [0.0, 0.9], [1.0, 0.0], [0.9, 0.0], [1.0, 0.1]])
    clusters = labelling.Clusters(3, 3, poses=2, code=2)
    found = clusters.update(keypoints, codes, **UPDATE)
    assert found.poses[0] != found.poses[3]
    assert found.poses.tolist() == [found.poses[0]] * 3 + [found.poses[3]] * 3
    assert (found.labels == found.poses[:, None] * 3 + np.arange(3)).all()
    # Landmark k is one kind, whatever the pose.
    kinds = order.reshape(-1)[found.rows]
    assert (kinds == kinds[0]).all()
    assert (clusters.assign(keypoints, codes, every=False) == found.rows).all()
    assert clusters.poses_of(codes[[3, 0]]).tolist() == found.poses[[3, 0]].tolist()
    # A pose cluster with two images is merged where three are asked for, and that is said.
    few = codes[[0, 1, 2, 2, 3, 4]]
    with pytest.warns(RuntimeWarning, match="fewer than 3 images are merged"):
        merged = labelling.Clusters(3, 3, poses=2, code=2).update(keypoints, few, **UPDATE | {"least": 3})
    assert len(set(merged.poses.tolist())) == 1


def test_too_few_keypoints_change_nothing():
    keypoints, _ = three_kinds()
    clusters = labelling.Clusters(3, 3, fine=19)
    before = {name: part.clone() for name, part in clusters.state_dict().items()}
    with pytest.raises(InputError, match="found 18 exemplars for 19 clusters"):
        clusters.update(keypoints, None, **UPDATE)
    assert all(torch.equal(before[name], part) for name, part in clusters.state_dict().items())


def test_keypoints_of_images_are_merged():
    one = bootstrapping.Keypoints(seeded(2, 2), seeded(2), seeded(2, 5))
    none = bootstrapping.Keypoints(torch.zeros(0, 2), torch.zeros(0), torch.zeros(0, 5))
    merged = labelling.merged([none, one, none], 5)
    assert merged.images.tolist() == [1, 1]
    assert merged.n_images == 3
    assert np.array_equal(merged.places, one.places.numpy())
    assert labelling.merged([none], 5).descriptors.shape == (0, 5)


def test_warped_places_move_as_the_image_does():
    affines = draw_affines(4, torch.Generator().manual_seed(0), 40.0, 0.2, 1.0)
    images = torch.zeros(4, 1, 32, 32)
    images[:, :, 12:14, 17:19] = 1.0
    moved = warp(images, affines)[:, 0]
    grid = torch.arange(32) + 0.5
    mass = moved.sum((1, 2))
    centre = torch.stack([(moved.sum(1) * grid).sum(1), (moved.sum(2) * grid).sum(1)], -1) / mass[:, None]
    found = labelling.warped_places(torch.tensor([[[18.0, 13.0], [torch.nan] * 2]]).expand(4, 2, 2), affines, 32)
    assert (found[:, 0] - centre).abs().max() < 0.1
    assert found[:, 1].isnan().all()
    # A shift by half the width pushes the left half out.
    shift = torch.tensor([[[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]])
    found = labelling.warped_places(torch.tensor([[[4.0, 8.0], [20.0, 8.0]]]), shift, 32)
    assert found[0, 0].isnan().all()
    assert found[0, 1].tolist() == [4.0, 8.0]


def test_pairs():
    labels = labelling.PseudoLabels(7, 2)
    labels.labels[1:] = 0
    labels.poses.copy_(torch.tensor([0, 0, 0, 1, 1, 1, 2]))
    first, second = labelling.draw_pairs(labels, 200, torch.Generator().manual_seed(0))
    assert (first != second).all()
    # Row 0 has no landmark.
    assert set(first.tolist()) == set(second.tolist()) == {1, 2, 3, 4, 5, 6}
    first, second = labelling.draw_pairs(labels, 8, torch.Generator().manual_seed(0), groups=2)
    assert (first != second).all()
    # Pose 2 has one image alone; the other two take turns.
    assert torch.equal(labels.poses[first], labels.poses[second])
    assert labels.poses[first].bincount().tolist() == [4, 4]
    # One pose that has pairs would leave nothing to keep apart: then any two.
    labels.poses.copy_(torch.tensor([0, 1, 1, 1, 1, 2, 3]))
    first, second = labelling.draw_pairs(labels, 100, torch.Generator().manual_seed(0), groups=2)
    assert (first != second).all()
    assert set(labels.poses[first].tolist()) == {1, 2, 3}


def test_one_landmark_in_two_poses_is_neither():
    neither = labelling.across_poses(2, 3)
    wanted = torch.zeros(6, 6, dtype=torch.bool)
    for k in range(3):
        wanted[k, 3 + k] = wanted[3 + k, k] = True
    assert torch.equal(neither, wanted)


# --- losses ---------------------------------------------------------------------------------------------------------


def batch(**changes):
    targets = torch.zeros(2, 1, 4, 4)
    targets[:, :, 1, 2] = 1.0
    values = {
        "logits": torch.zeros(2, 1, 4, 4),
        "descriptors": seeded(2, 8, 4, 4),
        "places": torch.tensor([[[20.0, 12.0]], [[torch.nan, torch.nan]]]),
        "labels": torch.tensor([[0], [-1]]),
        "poses": torch.tensor([0, 1]),
        "targets": targets,
        "upright": torch.tensor([True, True]),
    }
    return Batch(**values | changes)


def test_detector_loss_by_hand():
    # 15 empty cells and one full one at 0.5: 0.25 each, the full one eleven times; an image without labels is no image.
    found = DULD(**TINY | {"positives": 10.0})._detector_loss(batch())
    assert found.item() == pytest.approx(0.25 * (15 + 11))
    assert DULD(**TINY | {"positives": 0.0})._detector_loss(batch()).item() == pytest.approx(0.25 * 16)
    nothing = batch(places=torch.full((2, 1, 2), torch.nan))
    assert DULD(**TINY)._detector_loss(nothing).item() == 0


def test_descriptor_loss_is_the_contrastive_one():
    one = DULD(**TINY | {"negatives": 1})
    pair = batch(places=torch.tensor([[[20.0, 12.0]], [[4.0, 28.0]]]), labels=torch.tensor([[0], [0]]))
    random = torch.rand(2, 1, 2, generator=runs.generator(torch.device("cpu"), 0, 5, 3))
    places = torch.cat([pair.places, 32 * random], 1)
    points = bootstrapping.sample_descriptors(pair.descriptors, places, 32)
    points = torch.nn.functional.normalize(points, dim=-1)
    positive = (points[0, 0] - points[1, 0]).square().sum()
    hinges = [(0.8 - (points[i, 0] - points[i, 1]).norm()).clamp_min(0) ** 2 for i in range(2)]
    # 5.7 cells of a 64 x 64 grid are 2.85 pixels of 32.
    apart = [(places[i, 0] - places[i, 1]).norm() >= 2.85 for i in range(2)]
    kept = [hinge for hinge, far in zip(hinges, apart, strict=True) if far]
    wanted = (positive + sum(kept)) / (1 + len(kept))
    assert one._descriptor_loss(pair, 3).item() == pytest.approx(wanted.item(), rel=1e-4)


# --- the chain ------------------------------------------------------------------------------------------------------


def test_every_stage_trains_what_it_is_to_train(chain):
    names = {
        Bootstrap: {"descriptor", "detector", "matched"},
        DULD: {"descriptor", "detector", "missing"},
        PoseProxy: {"detector", "elbo", "reconstruction", "kl", "missing"},
    }
    for stage, wanted in names.items():
        fitted = chain[stage]
        assert [entry["step"] for entry in fitted.history_] == [1, 2, 3, 4]
        assert set(fitted.history_[0]) - {"step", "images_seen", "seconds"} == wanted
    # Rounds of two steps, phases of one.
    plus = chain[DULDPlusPlus].history_
    assert ["pose" in entry for entry in plus] == [False, True, False, True]
    assert ["elbo" in entry and "descriptor" in entry for entry in plus] == [True, False, True, False]
    changed = {
        stage: {name for name in ("aggregator", "detector", "descriptor") if differ(chain[stage], chain[before], name)}
        for before, stage in ((Bootstrap, DULD), (DULD, PoseProxy), (PoseProxy, DULDPlusPlus))
    }
    assert changed[DULD] == changed[DULDPlusPlus] == {"aggregator", "detector", "descriptor"}
    # The descriptor head is frozen in the proxy task.
    assert changed[PoseProxy] == {"aggregator", "detector"}
    assert differ(chain[DULDPlusPlus], chain[PoseProxy], "vae")
    for fitted in chain.values():
        found = fitted.predict(seeded(2, 3, 40, 60))
        assert found.shape == (2, 3, 2)
        assert ((found > -1) & (found < torch.tensor([61.0, 41.0]))).all()


def differ(a, b, name):
    ours, theirs = a.networks[name].state_dict(), b.networks[name].state_dict()
    return any(not torch.equal(ours[key], theirs[key]) for key in ours)


def test_frozen_parts_stay_as_they_are(model, chain, monkeypatch):
    alone = model(PoseProxy, pose_gradient="vae").fit(Squares(), progress=False, start=chain[DULD])
    assert not any(differ(alone, chain[DULD], name) for name in ("aggregator", "detector", "descriptor"))
    recluster = DULDPlusPlus._recluster

    def two_poses(self, data, number):
        recluster(self, data, number)
        self.networks["labels"].poses.copy_(torch.arange(8) % 2)

    monkeypatch.setattr(DULDPlusPlus, "_recluster", two_poses)
    second = model(DULDPlusPlus, phases="second").fit(Squares(), progress=False, start=chain[PoseProxy])
    assert not differ(second, chain[PoseProxy], "descriptor")
    ours, theirs = (m.networks["vae"].state_dict() for m in (second, chain[PoseProxy]))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours if key.startswith(("decoder", "from_code")))
    assert not torch.equal(ours["to_code.weight"], theirs["to_code.weight"])
    assert [model(DULDPlusPlus, phases="first").phase(step) for step in range(3)] == ["first"] * 3
    turns = model(DULDPlusPlus, recluster_every=8, alternate_every=3)
    assert [turns.phase(step) for step in range(7)] == ["first"] * 3 + ["second"] * 3 + ["first"]


def test_a_stage_without_the_one_before_says_which_command_makes_it(model, chain):
    for stage, before in ((DULD, "d-uld-bootstrap"), (MallisD, "d-uld-bootstrap"), (PoseProxy, "d-uld")):
        with pytest.raises(InputError, match=f"nothing to start from.*ulm fit --method {before} --data DATA"):
            model(stage).fit(Squares(), progress=False)
    with pytest.raises(InputError, match=r"expected another model.*--method d-uld-pp "):
        model(DULDPlusPlus).fit(Squares(), progress=False, start=chain[DULD])
    with pytest.raises(InputError, match="settings differ; give layers=\\[9, 10, 11\\], width=8"):
        model(DULD, width=4, layers=[10, 11]).fit(Squares(), progress=False, start=chain[Bootstrap])


def test_mallis_and_zero_shot_on_the_bootstrapped(model, chain, pipeline):
    mallis = model(MallisD).fit(Squares(), progress=False, start=chain[Bootstrap])
    labels = mallis.networks["labels"].labels
    assert labels.max() > 2
    assert labels.max() < 5
    assert mallis.predict(seeded(1, 3, 32, 32)).shape == (1, 3, 2)
    # It is D-ULD's method of a proxy task, too.
    model(PoseProxy, steps=1).fit(Squares(), progress=False, start=mallis)
    same = {n: TINY[n] for n in ("layers", "projection_dim", "image_size", "precision", "cache")}
    shot = ZeroShot(aggregator="start", images=4, batch_size=4, n_landmarks=3, **same).attach(pipeline)
    shot.fit(Squares(), progress=False, start=chain[Bootstrap])
    assert shot.networks["exemplars"].centroids.shape == (3, 8)


@pytest.mark.parametrize(
    ("stage", "before"), [(Bootstrap, None), (DULD, Bootstrap), (DULDPlusPlus, PoseProxy)], ids=lambda s: str(s)
)
def test_a_killed_run_goes_on_to_the_same_bits(model, chain, tmp_path, monkeypatch, stage, before):
    start, path = chain.get(before), tmp_path / "half.safetensors"
    step = stage._train_step

    def dies(self, images, pairs, number):
        # In the middle of a round: its labels must come from the checkpoint.
        if number == 3:
            raise KeyboardInterrupt
        return step(self, images, pairs, number)

    monkeypatch.setattr(stage, "_train_step", dies)
    with pytest.raises(KeyboardInterrupt):
        model(stage).fit(Squares(), progress=False, start=start, checkpoint=path, checkpoint_seconds=-1.0)
    monkeypatch.setattr(stage, "_train_step", step)
    resumed = model(stage).fit(Squares(), progress=False, start=start, checkpoint=path)
    assert resumed.checksum() == chain[stage].checksum()
    # A run that is over gives the same once more.
    over = model(stage).fit(Squares(), progress=False, start=start, checkpoint=path)
    assert over.checksum() == chain[stage].checksum()


def test_save_and_load(chain, pipeline, tmp_path):
    images = seeded(3, 3, 32, 32)
    for stage, fitted in chain.items():
        fitted.save_pretrained(tmp_path / fitted.name)
        config = json.loads((tmp_path / fitted.name / "config.json").read_text())
        assert "labels" not in config["networks"]
        again = load(tmp_path / fitted.name)
        assert type(again) is stage
        assert again.get_params() == {**fitted.get_params(), "device": "auto"}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            again.attach(pipeline)
        # Weights are fp16 in the file: a keypoint that is nearly as good may be taken instead.
        apart = (again.predict(images) - fitted.predict(images)).norm(dim=-1)
        assert (apart < 1.0).float().mean() > 0.7
    with pytest.warns(RuntimeWarning, match="not those that these networks were trained with"):
        load(tmp_path / "d-uld").attach(pipelines.build("tiny", seed=1))
    chain[PoseProxy].save_pretrained(tmp_path / "half", detector_only=True)
    with pytest.raises(InputError, match=r"no pose autoencoder .* without --detector-only"):
        DULDPlusPlus(**TINY).attach(pipeline).fit(Squares(), progress=False, start=load(tmp_path / "half"))
    # The next stage starts from a file as well.
    stage = PoseProxy(**TINY | {"steps": 1}).attach(pipeline)
    stage.fit(Squares(), progress=False, start=load(tmp_path / "d-uld"))


def test_a_round_looks_at_some_images(model, chain):
    fitted = model(DULD, cluster_images=5, steps=1).fit(Squares(), progress=False, start=chain[Bootstrap])
    images = fitted.networks["labels"].images.tolist()
    assert len(images) == len(set(images)) == 5
    assert images == sorted(images)


def test_poses_are_those_of_the_last_round(chain):
    plus = chain[DULDPlusPlus]
    labels = plus.networks["labels"]
    assert torch.equal(plus.poses(Squares())[labels.images], labels.poses)
    codes = plus.codes(Squares())
    assert codes.shape == (len(Squares()), plus.code)
    assert codes.std(0).max() > 0


def test_representations_are_the_descriptors_at_the_landmarks(chain):
    plus, squares = chain[DULDPlusPlus], Squares()
    images = torch.stack([squares[i]["image"] for i in range(len(squares))])
    places, descriptors = plus.represent(squares)
    found = plus.predict(images) * (plus.image_size / images.shape[-1])
    # Latents are kept as fp16: a keypoint that is nearly as good may be taken instead.
    assert torch.isclose(places, found, atol=1e-3, equal_nan=True).float().mean() > 0.7
    known = places.isfinite().all(-1)
    assert known.any()
    assert torch.equal(known, descriptors.isfinite().all(-1))
    assert torch.allclose(descriptors[known].norm(dim=-1), torch.ones(int(known.sum())), atol=1e-5)
    assert torch.equal(places.nan_to_num(-1), plus.predict_all(squares).nan_to_num(-1))
    with pytest.raises(InputError, match="no boxes"):
        plus.predict_all(Squares(boxes=False), boxes=True)
    given = torch.stack([squares[i]["box"] for i in range(len(squares))])
    inside, told = plus.predict(images, boxes=given), plus.predict_all(squares, boxes=True)
    told *= images.shape[-1] / plus.image_size
    assert torch.isclose(told, inside, atol=1e-3, equal_nan=True).float().mean() > 0.7
    assert told.isfinite().any()


def test_the_monitor_of_the_zoo_tells_of_poses(chain):
    from ulm.zoo import recipes

    recipe = recipes.RECIPES["d-uld-plus-plus-faces-posed-k10"]
    sizes = {"size": 32, "data": 12, "fit": 12, "test": 12, "labels": 8}
    found = recipes._monitor(recipe, sizes)(chain[DULDPlusPlus], 1)
    assert {"forward_nme", "backward_nme", "mean_shape_nme"} < set(found)
    assert any(name.startswith("pose_accuracy_") and 0 <= value <= 100 for name, value in found.items())
    assert recipes._monitor(recipes.RECIPES["zero-shot-cats-k10"], sizes) is None
    assert all(recipe.start is None or recipe.start in recipes.RECIPES for recipe in recipes.RECIPES.values())


def test_losses_fall(model, chain):
    fitted = model(DULD, steps=24, recluster_every=24, learning_rate=5e-3, warped=0.0).fit(
        Squares(), progress=False, start=chain[Bootstrap], log_every=1
    )
    losses = [entry["detector"] for entry in fitted.history_]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


# --- what is survived -----------------------------------------------------------------------------------------------


def test_a_step_that_is_not_finite_is_left_out(model, chain, monkeypatch):
    heads = DULD._heads

    def broken(self, taps):
        logits, descriptors = heads(self, taps)
        return logits * (
            torch.nan if self.networks.training and not self.networks["labels"].skipped else 1
        ), descriptors

    monkeypatch.setattr(DULD, "_heads", broken)
    with pytest.warns(RuntimeWarning, match="1 of 4 steps had a loss that is not finite"):
        fitted = model(DULD).fit(Squares(), progress=False, start=chain[Bootstrap], log_every=1)
    assert "detector" not in fitted.history_[0]
    assert fitted.history_[1]["skipped"] == 1
    assert all(weight.isfinite().all() for weight in fitted.networks["detector"].parameters())
    monkeypatch.setattr(DULD, "_heads", lambda self, taps: [x * torch.nan for x in heads(self, taps)])
    monkeypatch.setattr("ulm.methods.duld_stage.PATIENCE", 2)
    monkeypatch.setattr(DULD, "_recluster", lambda self, data, number: self.networks["labels"].labels.fill_(0))
    with pytest.raises(InputError, match=r"2 steps in a row .* lower learning_rate"):
        model(DULD).fit(Squares(), progress=False, start=chain[Bootstrap])


def test_a_round_without_keypoints_keeps_the_labels(model, chain, monkeypatch):
    keypoints, calls = DULD.keypoints, []

    def some(self, data, images):
        found, codes = keypoints(self, data, images)
        calls.append(1)
        return (found if len(calls) == 1 else found.take(np.arange(2))), codes

    monkeypatch.setattr(DULD, "keypoints", some)
    with pytest.warns(RuntimeWarning, match="round 1 keeps the labels of the one before: found 2 descriptors for 3"):
        fitted = model(DULD).fit(Squares(), progress=False, start=chain[Bootstrap])
    assert (fitted.networks["labels"].labels >= 0).any()
    assert len(calls) == 3
    with pytest.raises(InputError, match="d-uld found too little to cluster: found 2 descriptors for 3 clusters"):
        model(DULD).fit(Squares(), progress=False, start=chain[Bootstrap])


def test_an_empty_region_has_no_labels(model, chain):
    data = Squares(empty=(1, 4))
    with pytest.warns(RuntimeWarning, match="empty region of interest"):
        fitted = model(DULD).fit(data, progress=False, start=chain[Bootstrap])
    labels = fitted.networks["labels"]
    missing = (labels.labels < 0).all(1)
    assert sorted(labels.images[missing].tolist()) == [1, 4]
    assert labels.places[missing].isnan().all()


def test_keypoints_are_inside_the_boxes(chain):
    data = Squares()
    found, _ = chain[DULD].keypoints(cached(data), torch.arange(8))
    for image, (x, y) in zip(found.images, found.places, strict=True):
        left, top = data.corner(image)
        # A place may be a quarter of a cell beyond the centre of the last cell.
        assert left - 0.5 <= x <= left + 12.5
        assert top - 0.5 <= y <= top + 12.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 3}, "even number"),
        ({"projection_dim": 6}, "multiple of 4"),
        ({"most": 5, "least": 6}, "raise most"),
        ({"flips": 1.5}, "at most 1"),
        ({"learning_rate": 0.0}, "found learning_rate=0.0"),
        ({"phases": "third"}, "one of both, first, second"),
        ({"align": "none"}, "one of seeded, hungarian"),
        ({"sigma": 0}, "found sigma=0"),
        ({"n_poses": 0}, "found n_poses=0"),
    ],
    ids=str,
)
def test_bad_hyperparameters(changes, message):
    with pytest.raises(InputError, match=message):
        DULD(**changes)


def test_profiles_and_published_settings():
    for name in runs.PROFILES:
        for method in ("d-uld-bootstrap", "d-uld", "mallis-d", "d-uld-pp", "d-uld++"):
            METHODS[method](**runs.profile(name)[method])
    paper = runs.profile("paper")
    assert [paper[m]["steps"] for m in ("d-uld-bootstrap", "d-uld", "d-uld-pp", "d-uld++")] == [
        50_000, 100_000, 50_000, 100_000,
    ]  # fmt: skip
    assert [stage.rate for stage in (Bootstrap, DULD, PoseProxy, DULDPlusPlus)] == [1e-4, 1e-4, 5e-5, 5e-5]
    assert duld.DULD().margin == 0.8
