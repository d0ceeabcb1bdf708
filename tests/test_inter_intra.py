"""Inter-Intra: each part against hand-worked or plain values, then training, resuming, files and bad input."""

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import torch.nn.functional as F
from test_imm import Squares

from ulm import geometry, runs
from ulm.errors import InputError
from ulm.methods import METHODS, InterIntra, PoseCore, load, pose_core, views
from ulm.methods import inter_intra as method
from ulm.methods.imm import Pair
from ulm.methods.training import read_safetensors
from ulm.networks import perceptual
from ulm.networks.hourglass import ProjectedConvolution

TINY = {
    "n_landmarks": 3,
    "image_size": 16,
    "width": 8,
    "generator_width": 2,
    "loss": "reconstruction",
    "batch_size": 4,
    "steps": 4,
    "precision": "float32",
}
CORE = {"n_landmarks": 1, "image_size": 16, "width": 8, "batch_size": 4, "steps": 3, "precision": "float32"}
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("ULM_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    """The folder of a pose core, trained for a few steps so that it is like no fresh one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ULM_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        folder = tmp_path_factory.mktemp("cores") / "core"
        PoseCore(**CORE).fit(Squares(), progress=False).save_pretrained(folder)
    return str(folder)


def seeded(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def fit(**changes):
    return InterIntra(**{**TINY, **changes}).fit(Squares(), progress=False)


def pair_of(batch=4, size=16):
    x, other = (seeded(batch, 3, size, size, seed=i) for i in (1, 2))
    return Pair(x, other, torch.ones_like(x[:, :1]))


# --- equations ----------------------------------------------------------------------------------------------------


def test_maps_by_hand():
    # The centre of cell (1, 2) of four lies at (-0.25, 0.25); one cell away exp(-1 / 0.5), diagonally its square.
    maps = method.landmark_maps(torch.tensor([[[-0.25, 0.25]]]), 4)
    assert maps[0, 0, 2, 1].item() == pytest.approx(1)
    assert maps[0, 0, 2, 2].item() == pytest.approx(0.1353, abs=1e-4)
    assert maps[0, 0, 3, 2].item() == pytest.approx(0.1353**2, abs=1e-4)
    # Another sigma follows equation 2, exp(-d^2 / (2 sigma^2)).
    assert method.landmark_maps(torch.tensor([[[-0.25, 0.25]]]), 4, 1.0)[0, 0, 2, 2].item() == pytest.approx(
        math.exp(-0.5)
    )


@pytest.mark.parametrize("n", [2, 3, 4, 7, 32])
def test_derangements_leave_nothing_in_its_place(n):
    random = torch.Generator().manual_seed(0)
    for _ in range(50):
        order = method.derangement(n, random)
        assert sorted(order.tolist()) == list(range(n))
        assert (order != torch.arange(n)).all()


def test_derangements_are_equally_likely():
    random = torch.Generator().manual_seed(0)
    drawn = [tuple(method.derangement(4, random).tolist()) for _ in range(1800)]
    counts = [drawn.count(order) for order in set(drawn)]
    assert len(counts) == 9  # !4
    # 200 each; five deviations of the binomial distribution are 67.
    assert max(abs(n - 200) for n in counts) < 67


def test_one_image_has_no_other():
    with pytest.raises(InputError, match="expected at least 2"):
        method.derangement(1, torch.Generator())


def test_auxiliary_subjects_change_or_stay():
    by_step, fixed = InterIntra(**TINY), InterIntra(**TINY, auxiliary="fixed")
    assert len({tuple(by_step._order(8, step).tolist()) for step in range(9)}) > 1
    assert len({tuple(fixed._order(8, step).tolist()) for step in range(9)}) == 1
    assert torch.equal(by_step._order(8, 3), InterIntra(**TINY)._order(8, 3))
    assert not torch.equal(fixed._order(32, 0), InterIntra(**TINY, auxiliary="fixed", seed=1)._order(32, 0))


def plain(model, pair, order):
    """What every path draws, as the equations read: the detector sees each image by itself, x_a too."""
    pose, generator = model.networks["pose"], model.networks["generator"]

    def psi(source, landmarks_of):
        maps = method.landmark_maps(pose(landmarks_of), model.image_size // 4, model.sigma)
        return generator(source, maps.to(source.dtype))

    x, other = pair.source, pair.target
    drawn = {
        "baseline": lambda: [psi(x, other)],
        "cycle": lambda: [psi(x, other), psi(other, x)],
        "inter": lambda: [psi(psi(x, x[order]), other)],
        "all": lambda: [psi(psi(x, x[order]), other), psi(psi(other, x[order]), x)],
    }
    return drawn[model.variant]()


@pytest.mark.parametrize("variant", list(method.VARIANTS))
def test_paths_are_those_of_the_equations(variant):
    model = InterIntra(**TINY, variant=variant)
    model.initialise()
    model.networks.train()  # fresh networks hardly tell images apart without the batch's own statistics
    pair, order = pair_of(), torch.tensor([1, 2, 3, 0]) if model.inter else None
    with torch.no_grad():
        found = model._draw(pair, *model._detect(pair), order)
        expected = plain(model, pair, order)
    wanted = [pair.target, pair.source] if model.cycle else [pair.target]
    assert len(found) == len(expected) == len(wanted)
    for (image, goal), reference, truth in zip(found, expected, wanted, strict=True):
        assert goal is truth
        assert torch.allclose(image, reference, atol=1e-4)
    if model.inter:
        with torch.no_grad():
            other = model._draw(pair, *model._detect(pair), torch.tensor([3, 0, 1, 2]))
        assert not torch.allclose(other[0][0], found[0][0], atol=1e-3)


class Counted(torch.nn.Module):
    """A detector that counts its passes."""

    def __init__(self, detector):
        super().__init__()
        self.detector, self.passes = detector, 0

    def forward(self, images):
        self.passes += 1
        return self.detector(images)


@pytest.mark.parametrize("adaptation", ["scratch", "projection"])
def test_two_passes_of_the_detector_equal_three(adaptation, core):
    model = InterIntra(**TINY, adaptation=adaptation, core=core)
    model.initialise()
    # Training mode: batch normalisation uses the batch's own statistics, whose sums do not see its order.
    model.networks.train()
    if adaptation == "projection":
        for layer in model.networks["pose"].modules():
            if isinstance(layer, ProjectedConvolution):
                torch.nn.init.normal_(layer.projection, std=0.1)
    pair, order = pair_of(), torch.tensor([2, 3, 1, 0])
    model.networks["pose"] = Counted(model.networks["pose"])
    results = []
    for passes in (2, 3):
        model.networks["pose"].passes = 0
        if passes == 2:
            loss = model._losses(pair, order)["reconstruction"]
        else:
            pose = model.networks["pose"]
            ours, auxiliary, theirs = pose(pair.source), pose(pair.source[order]), pose(pair.target)
            generate = model._generate
            there = generate(generate(pair.source, auxiliary), theirs)
            back = generate(generate(pair.target, auxiliary), ours)
            loss = (there - pair.target).square().mean() + (back - pair.source).square().mean()
        assert model.networks["pose"].passes == passes
        gradients = torch.autograd.grad(loss, list(model.networks.parameters()))
        results.append((loss, torch.cat([gradient.flatten() for gradient in gradients])))
    (loss, gradient), (expected_loss, expected) = results
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-5)
    # Sums in another order: equal to the rounding of float32, which the normalisations enlarge.
    assert (gradient - expected).norm() < 1e-3 * expected.norm()
    assert expected.norm() > 1e-3


def test_gradients_reach_the_auxiliary_subject_through_both_drawings():
    model = InterIntra(**TINY, variant="inter")
    model.initialise()
    pair = pair_of()
    ours, theirs = (places.detach().requires_grad_() for places in model._detect(pair))
    drawn = model._draw(pair, ours, theirs, torch.tensor([1, 0, 3, 2]))
    F.mse_loss(drawn[0][0], drawn[0][1]).backward()
    # Every image is the auxiliary of another, and every pair's x' is drawn.
    assert (ours.grad.abs().amax((1, 2)) > 0).all()
    assert (theirs.grad.abs().amax((1, 2)) > 0).all()


# --- losses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("depth", "names"),
    [
        ("vgg16", ["conv1_2", "conv2_2", "conv3_3", "conv4_3"]),
        ("vgg19", ["conv1_2", "conv2_2", "conv3_4", "conv4_4"]),
    ],
)
@pytest.mark.parametrize("raw", [True, False])
def test_layers_of_the_perceptual_loss(depth, names, raw):
    trunk, images = perceptual.VGG(depth, 2, "torchvision").eval(), seeded(2, 3, 16, 16)
    x, expected, stage = images if raw else trunk.preprocess(images), [], "1"
    for name, layer in trunk.convolutions():
        if name[4] != stage:
            x, stage = F.max_pool2d(x, 2), name[4]
        x = F.relu(layer(x))
        if name in names:
            expected.append(x)
    found = list(method.stage_ends(trunk, images, raw))
    assert len(found) == len(expected) == 4
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.abs().max() > 0
        assert torch.allclose(ours, theirs)


def test_perceptual_loss_by_hand():
    trunk = perceptual.VGG("vgg16", 2, "torchvision").eval().requires_grad_(False)
    drawn, wanted = seeded(2, 3, 16, 16).requires_grad_(), seeded(2, 3, 16, 16, seed=1).requires_grad_()
    loss = method.perceptual_loss(trunk, drawn, wanted)
    pairs = zip(method.stage_ends(trunk, drawn), method.stage_ends(trunk, wanted), strict=True)
    assert loss.item() == pytest.approx(sum((a - b).square().mean().item() for a, b in pairs), rel=1e-5)
    assert method.perceptual_loss(trunk, wanted, wanted).item() == 0
    loss.backward()
    assert drawn.grad.abs().sum() > 0
    assert wanted.grad is None


def test_losses_are_summed_over_paths_and_chosen(monkeypatch):
    monkeypatch.setattr(method, "perceptual_loss", lambda trunk, drawn, wanted, raw: (drawn - wanted).abs().mean())
    pair, order = pair_of(), torch.tensor([1, 2, 3, 0])
    for loss, names in {
        "both": {"reconstruction", "perceptual"},
        "reconstruction": {"reconstruction"},
        "perceptual": {"perceptual"},
    }.items():
        model = InterIntra(**TINY | {"loss": loss})
        model.initialise()
        model._trunk = perceptual.VGG("vgg16", 2)
        with torch.no_grad():
            losses, drawn = model._losses(pair, order), model._draw(pair, *model._detect(pair), order)
        assert losses.keys() == names
        squares = sum((a - b).square().mean().item() for a, b in drawn)
        assert losses.get("reconstruction", torch.tensor(squares)).item() == pytest.approx(squares, rel=1e-5)


# --- views --------------------------------------------------------------------------------------------------------


def dot(x, y, size=64):
    image = torch.zeros(1, 3, size, size)
    image[:, :, y - 1 : y + 2, x - 1 : x + 2] = 1.0
    return image, geometry.to_normalised(torch.tensor([[[x + 0.5, y + 0.5]]]), size)


def centre_of_mass(images):
    weight = images.mean(1, keepdim=True)
    grid = geometry.pixel_grid(images.shape[-1])
    return (weight.squeeze(1).unsqueeze(-1) * grid).sum((1, 2)) / weight.sum((1, 2, 3))[:, None]


def test_the_whole_window_is_the_image():
    images = seeded(2, 3, 8, 8)
    whole = views.window(torch.zeros(2), torch.zeros(2, 2), torch.ones(2, 1))
    assert torch.allclose(views.sample(whole, images, 8), images, atol=1e-5)


def test_edges_are_repeated_outside():
    image = torch.ones(1, 3, 8, 8)
    far = views.window(torch.tensor([0.5]), torch.zeros(1, 2), torch.full((1, 1), 3.0))
    assert torch.allclose(views.sample(far, image, 8), image)


def test_points_go_where_the_view_shows_them():
    image, place = dot(40, 22)
    view = views.draw_windows(16, method.STRONG, torch.Generator().manual_seed(0))
    shown = views.sample(view, image.expand(16, -1, -1, -1), 64)
    places = views.to_view(view, place.expand(16, -1, -1))
    assert places.flatten(0, 1).std(0).min() > 0.05
    assert torch.allclose(centre_of_mass(shown), places[:, 0], atol=0.03)
    assert torch.allclose(view(places), place.expand(16, -1, -1), atol=1e-5)


def test_angles_are_cut_off():
    angles = torch.rad2deg(views.draw_angles(4000, 30.0, torch.Generator().manual_seed(0)))
    assert angles.abs().max().item() == pytest.approx(40, abs=1e-3)
    # A third of them are cut off at 30 degrees of deviation: 18.2 % on both sides together.
    assert (angles.abs() > 39.99).float().mean().item() == pytest.approx(0.182, abs=0.03)
    assert angles.abs().median().item() == pytest.approx(0.6745 * 30, rel=0.06)


def test_landmark_windows_by_hand():
    # In 100 pixels: x from 30 to 70, y from 40 to 60. Mean side 30, so the margin is 0.7 * 30 = 21 on every side.
    points = geometry.to_normalised(torch.tensor([[[30.0, 40.0], [70.0, 60.0], [float("nan")] * 2]]), 100)
    view = views.landmark_windows(points, torch.zeros(1), torch.tensor([0.7]), 100)
    corners = geometry.to_pixels(view(torch.tensor([[[-1.0, -1.0], [1.0, 1.0]]])), 100)
    assert torch.allclose(corners, torch.tensor([[[9.0, 19.0], [91.0, 81.0]]]), atol=1e-3)
    # A small box has 8 pixels; the picture ends the box.
    single = geometry.to_normalised(torch.tensor([[[50.0, 3.0]]]), 100)
    view = views.landmark_windows(single, torch.zeros(1), torch.tensor([0.7]), 100)
    corners = geometry.to_pixels(view(torch.tensor([[[-1.0, -1.0], [1.0, 1.0]]])), 100)
    assert torch.allclose(corners, torch.tensor([[[42.0, 0.0], [58.0, 11.0]]]), atol=1e-3)


def test_landmark_windows_give_away_where_the_object_is():
    # Whatever is turned or moved, the box of the points fills the view: 1 / (1 + 2 * 0.7) of it for a square one.
    points = torch.tensor([[-0.1, -0.1], [0.1, -0.1], [0.1, 0.1], [-0.1, 0.1]])
    moved = torch.stack([points + shift for shift in torch.tensor([[0.0, 0.0], [0.3, -0.2], [-0.4, 0.1]])])
    view = views.landmark_windows(moved, torch.tensor([0.0, 0.4, -0.6]), torch.full((3,), 0.7), 400)
    seen = views.to_view(view, moved)
    assert torch.allclose(seen.amin(1), torch.full((3, 2), -1 / 2.4), atol=1e-4)
    assert torch.allclose(seen.amax(1), torch.full((3, 2), 1 / 2.4), atol=1e-4)


def test_box_crop_keeps_the_contract():
    data = Squares()
    boxed = views.BoxCrop(data, size=16)
    assert len(boxed) == len(data)
    assert boxed.fingerprint not in (data.fingerprint, views.BoxCrop(data, size=8).fingerprint)
    for index in (0, 5):
        item = boxed[index]
        assert item["image"].shape == (3, 16, 16)
        assert item["video"] == data[index]["video"]
        # One point: the box is 8 pixels to each side of it, and the square's middle is the image's.
        assert torch.allclose(item["landmarks"], torch.tensor([[8.0, 8.0]]), atol=1e-3)
        assert torch.allclose(item["image"][:, 8, 8], torch.tensor([1.0, 0.8, 0.1]), atol=0.01)
    with pytest.raises(InputError, match="without annotated points"):
        views.BoxCrop(Unlabelled())[0]


class Unlabelled(Squares):
    def __getitem__(self, index):
        return super().__getitem__(index) | {"landmarks": torch.full((1, 2), float("nan"))}

    @property
    def fingerprint(self):
        return "unlabelled"


# --- training -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"variant": "baseline", "schedule": "cosine"},
        {"variant": "baseline", "equivariance": 1.0},
        {"variant": "inter", "auxiliary": "fixed"},
        {"variant": "cycle", "batch_size": 1, "separation": 1.0},
        {"crop": "landmarks", "optimiser": "paper"},
        {"precision": "bfloat16"},
    ],
    ids=str,
)
def test_every_variant_trains(changes):
    model = fit(**changes)
    points = model.predict(seeded(3, 3, 40, 60))
    assert points.shape == (3, 3, 2)
    assert (points >= 0).all()
    assert (points <= torch.tensor([60.0, 40.0])).all()
    assert [entry["step"] for entry in model.history_] == [1, 2, 3, 4]
    expected = {"reconstruction"} | {name for name in ("equivariance", "separation") if name in changes}
    assert expected <= model.history_[0].keys()
    before, after = model.untrained().networks, model.networks
    for part in ("pose", "generator"):
        moved = [
            not torch.equal(a, b) for a, b in zip(before[part].parameters(), after[part].parameters(), strict=True)
        ]
        assert all(moved), part
    drawn = model.reconstruct(seeded(2, 3, 20, 20), seeded(2, 3, 16, 16))
    assert drawn.shape == (2, 3, 16, 16)
    assert 0 <= drawn.min() <= drawn.max() <= 1
    assert model.score_maps(seeded(2, 3, 20, 20)).shape == (2, 3, 4, 4)


@pytest.mark.parametrize("loss", ["both", "perceptual"])
def test_perceptual_losses_train_with_a_network_from_a_file(loss, tmp_path):
    from ulm.methods import Colourisation

    Colourisation(image_size=32, width=2).untrained().save_pretrained(tmp_path)
    trunk = str(tmp_path / "model.safetensors")
    assert fit(loss=loss, perceptual=trunk).history_[0]["perceptual"] > 0
    with pytest.raises(InputError, match="sees one grey channel"):
        fit(loss=loss, perceptual=trunk, vgg_input="raw")


def test_learning_redraws_better():
    model = fit(steps=40, batch_size=8, generator_width=4, variant="cycle", schedule="cosine", learning_rate=3e-3)
    assert model.history_[-1]["reconstruction"] < 0.5 * model.history_[0]["reconstruction"]


def test_each_networks_gradient_is_cut_off_by_itself():
    for name, largest in {"release": 1.0, "paper": math.inf}.items():
        model = InterIntra(**TINY, optimiser=name)
        model.initialise()
        model.optimisers = model._optimisers()
        model.networks.train()
        model._update(1e4 * model._losses(pair_of(), torch.tensor([1, 0, 3, 2]))["reconstruction"], 0)
        for part in ("pose", "generator"):
            norm = math.sqrt(sum(p.grad.square().sum().item() for p in model.networks[part].parameters()))
            assert norm == pytest.approx(1, rel=1e-2) if largest == 1 else norm > 2
        group = model.optimisers["pose"].param_groups[0]
        assert group["betas"] == ((0.0, 0.9) if name == "release" else (0.9, 0.999))


def test_schedules():
    model = InterIntra(**TINY, decay_every=10)
    assert [model._rate_factor(step) for step in (0, 9, 10, 29)] == pytest.approx([1, 1, 0.1, 0.01])
    assert InterIntra()._rate_factor(74_999) == 1
    assert InterIntra()._rate_factor(75_000) == pytest.approx(0.1)
    cosine = InterIntra(**TINY | {"steps": 1000}, schedule="cosine")
    assert cosine._rate_factor(999) < 0.01 < cosine._rate_factor(500) < cosine._rate_factor(150)


# --- the core -----------------------------------------------------------------------------------------------------


def weights_of(folder):
    return read_safetensors(os.path.join(folder, "model.safetensors"))[0]


@pytest.mark.parametrize("frozen", ["kernels", "core"])
def test_frozen_kernels_stay_frozen(core, frozen):
    model, learned = fit(adaptation="projection", core=core, frozen=frozen), weights_of(core)
    # The core is loaded from rounded weights, and its kernels must be those to the last bit.
    kernels = {n: t for n, t in model.networks["pose"].state_dict().items() if n.endswith(".kernel")}
    assert len(kernels) == 3 * 8
    for name, tensor in kernels.items():
        assert torch.equal(tensor, learned[f"pose.{name.replace('.kernel', '.weight')}"])
    state = model.networks["pose"].state_dict()
    assert all(t.abs().max() > 0 for n, t in state.items() if n.endswith(".projection"))
    same = torch.equal(state["stem.0.weight"], learned["pose.stem.0.weight"])
    assert same == (frozen == "core")
    assert not torch.equal(state["stem.1.running_mean"], learned["pose.stem.1.running_mean"])


def test_fine_tuning_starts_at_the_core_and_moves(core):
    model, learned = InterIntra(**TINY, adaptation="finetune", core=core), weights_of(core)
    model.initialise()
    name = "levels.upper.convolutions.0.weight"
    assert torch.equal(model.networks["pose"].state_dict()[name], learned[f"pose.{name}"])
    trained = model.fit(Squares(), progress=False).networks["pose"].state_dict()[name]
    assert not torch.equal(trained, learned[f"pose.{name}"])
    assert not any(isinstance(m, ProjectedConvolution) for m in model.networks["pose"].modules())


def test_a_core_that_is_missing_or_does_not_fit(core, tmp_path):
    with pytest.raises(InputError, match=r"without a core; give core=.*pose-core.*adaptation=scratch"):
        fit(adaptation="projection")
    with pytest.raises(InputError, match="no model folder"):
        fit(adaptation="projection", core=str(tmp_path / "none"))
    with pytest.raises(InputError, match="use the same for both"):
        fit(adaptation="projection", core=core, width=16)
    InterIntra(**TINY).untrained().save_pretrained(tmp_path / "other")
    with pytest.raises(InputError, match="expected pose-core"):
        fit(adaptation="projection", core=str(tmp_path / "other"))


def test_pose_loss_by_hand():
    nan, flat = float("nan"), torch.zeros(1, 3, 4, 4)
    points = torch.tensor([[[0.1, 0.2], [nan, nan], [1.5, 0.0]]])
    # A flat map costs log 16, whatever the Gaussian; what is unknown or outside does not count.
    assert pose_core.pose_loss(flat, points, 1.0).item() == pytest.approx(math.log(16), rel=1e-5)
    none = pose_core.pose_loss(flat[:, 1:].requires_grad_(), points[:, 1:], 1.0)
    assert none.item() == 0
    # A narrow Gaussian in the middle of a cell is that cell alone.
    peaked = flat.clone()
    peaked[0, 0, 2, 1] = 5.0
    cost = pose_core.pose_loss(peaked, torch.tensor([[[-0.25, 0.25], [nan, nan], [nan, nan]]]), 0.1)
    assert cost.item() == pytest.approx(math.log(15 + math.exp(5)) - 5, rel=1e-4)


def test_pose_core_learns_where_the_squares_are():
    data = Squares(48)
    images = torch.stack([data[i]["image"] for i in range(48)])
    truth = torch.stack([data[i]["landmarks"] for i in range(48)])
    model = PoseCore(**CORE | {"steps": 60, "batch_size": 8, "width": 16, "learning_rate": 5e-3})

    def error(detector):
        return (detector.predict(images) - truth).norm(dim=-1).mean().item()

    before = error(model.untrained())
    assert error(model.fit(data, progress=False)) < 0.5 * before


def test_pose_core_asks_for_labels_and_as_many_points():
    with pytest.raises(InputError, match=r"found 1 points for n_landmarks=16.*subset"):
        PoseCore(**CORE | {"n_landmarks": 16}).fit(Squares(), progress=False)
    with pytest.raises(InputError, match="found subset 'mpii-16'"):
        PoseCore(**CORE, subset="mpii-16").fit(Squares(), progress=False)
    with pytest.raises(InputError, match="found no labelled point"):
        PoseCore(**CORE).fit(Unlabelled(), progress=False)


@pytest.mark.parametrize(
    "bad",
    [
        {"n_landmarks": 0},
        {"width": 9},
        {"image_size": 20},
        {"sigma": 0.0},
        {"learning_rate": float("nan")},
        {"precision": "half"},
    ],
    ids=str,
)
def test_bad_hyperparameters_of_a_core(bad):
    with pytest.raises(InputError, match=r"found .*expected"):
        PoseCore(**bad)


# --- checkpoints and files ----------------------------------------------------------------------------------------


class Killed(Exception):
    pass


@pytest.mark.parametrize("kind", ["projection", "core"])
def test_going_on_gives_the_same_bits(kind, core, tmp_path):
    def make():
        if kind == "core":
            return PoseCore(**CORE | {"steps": 6})
        return InterIntra(**TINY | {"steps": 6}, adaptation="projection", core=core)

    def kill(model, step):
        if step == 4:
            raise Killed
        return {}

    path, settings = tmp_path / "c.safetensors", {"progress": False, "log_every": 1}
    whole = make().fit(Squares(), **settings)
    with pytest.raises(Killed):
        make().fit(Squares(), **settings, checkpoint=path, checkpoint_seconds=0.0, monitor=kill)
    seen = []
    resumed = make().fit(Squares(), **settings, checkpoint=path, monitor=lambda model, step: seen.append(step) or {})
    assert seen == [4, 5, 6]
    assert resumed.checksum() == whole.checksum()


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from test_imm import Squares
from test_inter_intra import TINY
from ulm.methods import InterIntra
model = InterIntra(**TINY | {{"steps": 40}}, equivariance=1.0, separation=1.0)
model.fit(Squares(), progress=False, checkpoint={path!r}, checkpoint_seconds=0.0)
model.save_pretrained({out!r})
"""


def test_kill_and_resume_gives_the_same_bits(tmp_path):
    environment = {**os.environ, "ULM_CACHE": str(tmp_path / "cache")}

    def start(name):
        paths = {"path": str(tmp_path / f"{name}.safetensors"), "out": str(tmp_path / name)}
        code = SCRIPT.format(tests=os.path.dirname(__file__), **paths)
        return subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], env=environment)

    assert start("whole").wait() == 0
    killed = start("killed")
    while not (tmp_path / "killed.safetensors").exists() and killed.poll() is None:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed").exists()
    assert start("killed").wait() == 0
    whole, resumed = (tmp_path / name / "model.safetensors" for name in ("whole", "killed"))
    assert whole.read_bytes() == resumed.read_bytes()
    steps = [
        [h["step"] for h in json.loads((tmp_path / n / "config.json").read_text())["history"]]
        for n in ("whole", "killed")
    ]
    assert steps[0] == steps[1]


def test_a_checkpoint_knows_its_core_by_its_weights(core, tmp_path):
    path = tmp_path / "c.safetensors"
    fit_with = {"progress": False, "checkpoint": path}
    InterIntra(**TINY, adaptation="projection", core=core).fit(Squares(), **fit_with)
    PoseCore(**CORE | {"seed": 1}).untrained().save_pretrained(tmp_path / "other")
    load(core, kind=PoseCore).save_pretrained(tmp_path / "copy")
    InterIntra(**TINY, adaptation="projection", core=str(tmp_path / "copy")).fit(Squares(), **fit_with)
    with pytest.raises(InputError, match="other settings"):
        InterIntra(**TINY, adaptation="projection", core=str(tmp_path / "other")).fit(Squares(), **fit_with)


def test_save_and_load_without_the_core(tmp_path):
    PoseCore(**CORE).untrained().save_pretrained(tmp_path / "core")
    model = fit(adaptation="projection", core=str(tmp_path / "core"))
    images = seeded(5, 3, 16, 16)
    model.save_pretrained(tmp_path / "m")
    model.save_pretrained(tmp_path / "d", detector_only=True)
    (tmp_path / "core").rename(tmp_path / "away")
    again = InterIntra.from_pretrained(tmp_path / "m")
    assert again.get_params() == {**model.get_params(), "device": "auto"}
    assert again.history_ == model.history_
    assert (again.predict(images) - model.predict(images)).abs().max() < 0.1  # weights are fp16
    assert (again.reconstruct(images, images) - model.reconstruct(images, images)).abs().max() < 0.05
    with pytest.raises(InputError, match="detector only"):
        load(tmp_path / "d").reconstruct(images, images)
    with pytest.raises(InputError, match="no model folder"):
        again.untrained()  # which is built on the core


def test_fine_tuning_a_trained_model():
    first = fit()
    again = InterIntra(**TINY | {"steps": 1, "learning_rate": 1e-9}).fit(Squares(), progress=False, start=first)
    ours, theirs = (m.networks["pose"].points.weight for m in (again, first))
    assert torch.allclose(ours, theirs, atol=1e-6)
    with pytest.raises(InputError, match="has other shapes"):
        InterIntra(**TINY | {"n_landmarks": 5}).fit(Squares(), progress=False, start=first)


# --- bad input ----------------------------------------------------------------------------------------------------


def test_unfitted_and_misused():
    with pytest.raises(InputError, match="no weights yet"):
        InterIntra(**TINY).predict(seeded(1, 3, 16, 16))
    with pytest.raises(InputError, match="no weights yet"):
        InterIntra(**TINY).score_maps(seeded(1, 3, 16, 16))
    with pytest.raises(InputError, match=r"found 3 training images for batch_size=4.*lower batch_size"):
        InterIntra(**TINY).fit(Squares(3), progress=False)
    assert InterIntra(**TINY, variant="cycle").fit(Squares(3), progress=False).history_[-1]["step"] == 4
    with pytest.raises(InputError, match=r"without annotated points.*use crop=image"):
        InterIntra(**TINY, crop="landmarks").fit(Unlabelled(), progress=False)


@pytest.mark.parametrize(
    "bad",
    [
        {"n_landmarks": 0},
        {"n_landmarks": 2.5},
        {"width": 100},
        {"image_size": 100},
        {"generator_width": 0},
        {"variant": "both"},
        {"loss": "l2"},
        {"adaptation": "frozen"},
        {"frozen": "all"},
        {"decays_to": "half"},
        {"crop": "box"},
        {"auxiliary": "none"},
        {"optimiser": "sgd"},
        {"schedule": "plateau"},
        {"vgg_input": "grey"},
        {"beta": 0.0},
        {"sigma": -0.5},
        {"warp": float("nan")},
        {"learning_rate": 0.0},
        {"decay_every": 0},
        {"equivariance": -1.0},
        {"batch_size": 1},
        {"batch_size": 1, "variant": "inter"},
    ],
    ids=str,
)
def test_bad_hyperparameters(bad):
    with pytest.raises(InputError, match=r"found .*expected"):
        InterIntra(**bad)


def test_registry_and_profiles():
    for name in runs.PROFILES:
        for key, cls in {"inter-intra": InterIntra, "pose-core": PoseCore}.items():
            assert METHODS[key] is cls
            assert cls(**runs.profile(name)[key]).name == key
        sizes = [runs.profile(name)[key] for key in ("inter-intra", "pose-core")]
        assert sizes[0]["width"] == sizes[1]["width"]  # so that one can be the other's core
        assert sizes[0]["image_size"] == sizes[1]["image_size"]
    published = InterIntra(**runs.profile("paper")["inter-intra"])
    assert (published.beta, published.sigma, published.learning_rate, published.batch_size) == (10, 0.5, 1e-3, 32)
    assert published.adaptation == "projection"


# --- recipes of the zoo -------------------------------------------------------------------------------------------


def test_zoo_makes_the_core_beside_and_follows_the_error(tmp_path, monkeypatch):
    from ulm.zoo import recipes

    adapted = {**TINY, "adaptation": "projection", "core": "core"}
    known = {
        "core": recipes.Recipe("pose-core", "squares", {**CORE, "subset": None}),
        "one": recipes.Recipe("inter-intra", "squares", adapted),
    }
    monkeypatch.setattr(recipes, "RECIPES", known)
    squares = Squares()
    squares.info = dataclasses.replace(squares.info, normaliser="image")
    monkeypatch.setattr(recipes.datasets, "load", lambda *_: squares)
    options = {"profile": "smoke", "out": tmp_path / "one-seed0", "device": "cpu", "progress": False}
    made = recipes.train("one", **options)
    assert all(entry["forward_nme"] > 0 for entry in made.history_)
    core = PoseCore.from_pretrained(tmp_path / "core-seed0", "cpu").networks["pose"].state_dict()
    kernels = {n: t for n, t in made.networks["pose"].state_dict().items() if n.endswith(".kernel")}
    assert kernels
    assert all(torch.equal(t, core[n.replace(".kernel", ".weight")]) for n, t in kernels.items())
    # The name of the core, not the folder where it lay.
    config = (tmp_path / "one-seed0" / "config.json").read_text()
    assert json.loads(config)["parameters"]["core"] == json.loads(config)["card"]["core"] == "core"
    assert str(tmp_path) not in config
    # The second time it is read, with other steps it is another model.
    written = (tmp_path / "one-seed0" / "model.safetensors").read_bytes()
    assert recipes.train("one", **options).history_ == made.history_
    assert (tmp_path / "one-seed0" / "model.safetensors").read_bytes() == written
    with pytest.raises(InputError, match="other settings"):
        recipes.train("one", **options, changes={"steps": 5})


def test_core_is_never_made_in_the_models_own_folder(tmp_path):
    from ulm.zoo.recipes import _beside

    assert _beside(tmp_path / "one-seed0", "one", "core") == tmp_path / "core-seed0"
    assert _beside(tmp_path / "MODEL", "one", "core") == tmp_path / "MODEL-core"


@pytest.mark.parametrize("profile", ["smoke", "laptop", "paper"])
def test_recipes_are_of_one_length_and_fit_their_core(profile):
    from ulm.zoo import recipes

    settings = runs.profile(profile)
    rows = {name: recipe for name, recipe in recipes.RECIPES.items() if recipe.method == "inter-intra"}
    made = {name: recipes._model(recipe, settings, {}) for name, recipe in rows.items()}
    variants = {(model.variant, model.adaptation) for model in made.values() if model.n_landmarks == 10}
    assert {(v, a) for v in method.VARIANTS for a in ("projection", "scratch")} <= variants
    # Rows of one table are compared: nothing but the variant, the loss, K and the core may differ.
    assert len({(model.steps, model.batch_size, model.image_size, model.width) for model in made.values()}) == 1
    for model in made.values():
        if model.adaptation == "projection":
            core = recipes._model(recipes.RECIPES[model.core], settings, {})
            assert (core.image_size, core.width) == (model.image_size, model.width)
