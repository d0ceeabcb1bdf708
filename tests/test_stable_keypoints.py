"""StableKeypoints: every function against hand-worked or naive values, then training, resuming, files, bad input."""

import json
import math
import warnings

import pytest
import torch
from test_imm import Squares

from ulm import geometry, runs
from ulm.datasets.cache import cached
from ulm.diffusion import pipelines, taps
from ulm.errors import InputError
from ulm.methods import METHODS, StableKeypoints, backbone, load
from ulm.methods import stable_keypoints as method

TINY = {
    "n_landmarks": 3,
    "image_size": 32,
    "n_tokens": 12,
    "kappa": 6,
    "map_size": 16,
    "sigma": 1.0,
    "views": 2,
    "selection_images": 5,
    "batch_size": 2,
    "micro_batch": 2,
    "steps": 4,
    "precision": "float32",
    "cache": "memory",
}


@pytest.fixture(scope="module")
def pipeline():
    return pipelines.build("tiny")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("ULM_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def model(pipeline):
    return lambda **changes: StableKeypoints(**{**TINY, **changes}).attach(pipeline)


def seeded(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def blob(x, y, size=16, sigma=1.0, height=1.0):
    """A Gaussian at the centre of pixel (x, y), pixel by pixel as equation 8 reads."""
    return torch.tensor(
        [[height * math.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * sigma**2)) for u in range(size)] for v in range(size)]
    )


# --- furthest points ----------------------------------------------------------------------------------------------


def test_furthest_points_by_hand():
    # The far pair is 0 and 3; then 2, which is 4 from both, not 1, which is 1 from 0.
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [4.0, 3.0], [8.0, 0.0]])
    assert geometry.furthest_points(points, 3).tolist() == [0, 3, 2]
    assert geometry.furthest_points(points, 1).tolist() == [0]
    assert sorted(geometry.furthest_points(points, 4).tolist()) == [0, 1, 2, 3]
    assert geometry.furthest_points(torch.zeros(5, 2), 5).tolist() == [0, 1, 2, 3, 4]
    for k in (0, 5):
        with pytest.raises(ValueError, match="expected 1 to 4"):
            geometry.furthest_points(points, k)


def test_furthest_points_like_loops():
    points = seeded(3, 9, 2)
    found = geometry.furthest_points(points, 5)
    for b in range(3):
        distance = torch.cdist(points[b], points[b])
        pairs = [(float(distance[i, j]), -i, -j) for i in range(9) for j in range(9)]
        _, i, j = max(pairs)
        chosen = [-i, -j]
        while len(chosen) < 5:
            rest = [n for n in range(9) if n not in chosen]
            chosen.append(max(rest, key=lambda n: min(float(distance[n, c]) for c in chosen)))
        assert found[b].tolist() == chosen


# --- locality and losses ------------------------------------------------------------------------------------------


def test_peaks_and_targets_by_hand():
    maps = torch.zeros(1, 2, 4, 4)
    maps[0, 0, 1, 3], maps[0, 1, 2, 0] = 0.5, 0.1
    # Centres of four cells on [-1, 1] are -0.75, -0.25, 0.25, 0.75.
    assert method.peaks(maps).tolist() == [[[0.75, -0.25], [-0.75, 0.25]]]
    targets = method.gaussian_targets(maps, 2.0)
    assert torch.allclose(targets[0, 0], blob(3, 1, 4, 2.0))
    assert torch.allclose(targets[0, 1], blob(0, 2, 4, 2.0))


@pytest.mark.parametrize("form", ["softmax", "sum"])
def test_locality_like_loops(form):
    maps = seeded(2, 3, 8, 8)
    found = method.locality(maps, 1.5, form)
    for b in range(2):
        for n in range(3):
            m = maps[b, n].double()
            place = int(m.argmax())
            g = blob(place % 8, place // 8, 8, 1.5).double()
            p = m.flatten().softmax(0).view(8, 8) if form == "softmax" else m / m.sum()
            g = g + 1e-5 if form == "softmax" else g
            g = g / g.sum()
            assert found[b, n].item() == pytest.approx(float((g * (g / p).log()).sum()), rel=1e-4)


def test_locality_orders_by_response_or_by_shape():
    # A wide strong blob and a narrow weak one: the authors' softmax takes the strong one, the paper's sum the narrow.
    maps = torch.stack([blob(8, 8, sigma=4.0), 0.2 * blob(5, 5, sigma=1.0), torch.full((16, 16), 0.01)])[None]
    assert method.top_kappa(maps, 2, 1.0, "softmax").tolist() == [[0, 1]]
    assert method.top_kappa(maps, 2, 1.0, "sum").tolist() == [[1, 0]]
    assert method.locality(maps, 1.0, "sum")[0, 1].item() == pytest.approx(0, abs=1e-5)


def test_furthest_tokens_and_most_frequent():
    maps = torch.zeros(1, 5, 16, 16)
    for n, (x, y) in enumerate([(0, 0), (15, 15), (1, 0), (7, 0), (15, 14)]):
        maps[0, n, y, x] = 1
    assert method.furthest_tokens(maps, torch.tensor([[2, 0, 4, 3]]), 3).tolist() == [[0, 4, 3]]
    assert method.most_frequent(torch.tensor([1.0, 3.0, 0.0, 3.0, 2.0]), 3).tolist() == [1, 3, 4]
    assert torch.equal(method.pick(maps, torch.tensor([[3, 1]])), maps[:, [3, 1]])


def test_sharpening_by_hand():
    maps = blob(4, 9)[None, None]
    assert method.sharpening_loss(maps, 1.0).item() == pytest.approx(0, abs=1e-12)
    # Half as high: 0.25 G^2, whose sum over the plane is 0.25 pi sigma^2.
    assert method.sharpening_loss(0.5 * maps, 1.0, "sum").item() == pytest.approx(0.25 * math.pi, rel=1e-3)
    assert method.sharpening_loss(0.5 * maps, 1.0).item() == pytest.approx(0.25 * math.pi / 256, rel=1e-3)
    # Mean over tokens and images, and the target has no gradient.
    both = torch.cat([0.5 * maps, maps], 1).requires_grad_()
    loss = method.sharpening_loss(both, 1.0)
    assert loss.item() == pytest.approx(0.125 * math.pi / 256, rel=1e-3)
    loss.backward()
    assert torch.allclose(both.grad[0, 0], -blob(4, 9) / 512, atol=1e-6)


def test_equivariance_by_hand():
    # A shift of 4 of 16 pixels: u shows what the image has at u + 0.5.
    shift = torch.tensor([[[1.0, 0.0, 0.5], [0.0, 1.0, 0.0]]])
    maps = blob(8, 8)[None, None].requires_grad_()
    moved = blob(4, 8)[None, None].requires_grad_()
    assert torch.allclose(method.warp(maps, shift), moved, atol=1e-6)
    assert method.equivariance_loss(maps, moved, shift).item() == pytest.approx(0, abs=1e-6)
    loss = method.equivariance_loss(maps, maps, shift, "sum")
    # Two blobs that do not overlap, squared: 2 pi sigma^2, less what overlaps at a distance of 4.
    assert loss.item() == pytest.approx(2 * math.pi * (1 - math.exp(-4)), rel=1e-2)
    method.equivariance_loss(maps * 1, moved * 0.5, shift).backward()
    assert maps.grad.abs().sum() > 0
    assert moved.grad.abs().sum() > 0


# --- views --------------------------------------------------------------------------------------------------------


def test_affines_are_of_the_family():
    affines = method.draw_affines(2000, torch.Generator().manual_seed(0), 15.0, 0.25, 1.25)
    scale = affines[:, :, :2].det().sqrt()
    angle = torch.atan2(affines[:, 1, 0], affines[:, 0, 0]).rad2deg()
    assert 0.8 <= scale.min() < 0.81
    assert 0.99 < scale.max() <= 1
    assert 14.5 < angle.abs().max() <= 15.001
    assert 0.24 < affines[:, :, 2].abs().max() <= 0.25
    assert affines[:, :, 2].mean().abs() < 0.02
    still = method.draw_affines(1, torch.Generator(), 0.0, 0.0, 1.0)
    assert torch.allclose(still, torch.eye(2, 3)[None])


def test_inverse_undoes_the_warp():
    affines = method.draw_affines(4, torch.Generator().manual_seed(1))
    square = torch.tensor([0.0, 0.0, 1.0]).expand(4, 1, 3)
    there = torch.cat([affines, square], 1) @ torch.cat([method.invert_affines(affines), square], 1)
    assert torch.allclose(there, torch.eye(3).expand(4, 3, 3), atol=1e-6)
    # A blob in the middle comes back.
    maps = blob(16, 15, 32, 4.0).expand(4, 1, 32, 32)
    back = method.warp(method.warp(maps, affines), method.invert_affines(affines))
    assert (back - maps)[..., 10:22, 10:22].abs().max() < 0.03


def test_ensemble_by_hand():
    shift = torch.tensor([[[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]])
    still = torch.eye(2, 3)[None]
    first, second = torch.full((1, 1, 4, 4), 2.0), torch.full((1, 1, 4, 4), 4.0)
    # The shifted view saw the right half alone.
    averaged = method.ensemble([first, second], [still, shift], 4)[0, 0]
    assert averaged[0].tolist() == [2, 2, 3, 3]
    assert method.ensemble([first, second], [still, shift], 4, coverage=False)[0, 0, 0].tolist() == [2, 2, 6, 6]
    assert method.ensemble([second], [shift], 4)[0, 0, 0].tolist() == [0, 0, 4, 4]
    assert method.ensemble(iter([first, second]), iter([still, shift]), 8).shape == (1, 1, 8, 8)


def test_locate_by_hand():
    maps = torch.zeros(1, 1, 8, 8)
    maps[0, 0, 2, 5], maps[0, 0, 2, 6], maps[0, 0, 7, 0] = 3, 1, 2
    assert method.locate(maps).tolist() == [[[5.5, 2.5]]]
    # Centre of mass of 3 at 5.5 and 1 at 6.5; the far one does not count.
    assert torch.allclose(method.locate(maps, 1.5), torch.tensor([[[5.75, 2.5]]]), atol=1e-6)


def test_diagnosis():
    assert method.diagnose(seeded(20, 4, 2)) == ""
    assert method.diagnose(seeded(1, 4, 2).expand(20, 4, 2)).startswith("4 of 4 tokens")


# --- the model ----------------------------------------------------------------------------------------------------


def test_layers_are_those_of_the_paper_at_full_size_and_those_of_the_same_grid_elsewhere():
    assert method.default_layers(64) == method.default_layers(72) == (7, 8, 9, 10)
    assert method.default_layers(32) == (10, 11, 12, 13)
    assert method.default_layers(16) == method.default_layers(8) == (13, 14, 15)
    assert method.default_layers(128) == (7, 8, 9, 10)  # the coarsest on the way up


def test_conventions():
    release, paper = StableKeypoints(), StableKeypoints(convention="paper", zoom=1.1, equivariance=0.0)
    assert release.get_params() | {"layers": [7, 8, 9, 10]} == StableKeypoints(layers=(7, 8, 9, 10)).get_params()
    assert [release.setting(n) for n in ("timestep", "translation", "zoom", "equivariance")] == [0, 0.25, 1.25, 1000]
    assert [paper.setting(n) for n in ("timestep", "translation", "zoom", "equivariance")] == [1, 0.5, 1.1, 0]
    published = METHODS["stable-keypoints"](**runs.profile("paper")["stable-keypoints"])
    assert (published.n_tokens, published.kappa, published.steps, published.batch_size) == (500, 25, 10_000, 1)
    for name in runs.PROFILES:
        StableKeypoints(**runs.profile(name)["stable-keypoints"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_landmarks": 30}, "raise kappa"),
        ({"n_tokens": 8}, "raise n_tokens"),
        ({"n_tokens": 20}, "raise n_tokens"),
        ({"layers": [16]}, "expected some of 0 to 15"),
        ({"convention": "mine"}, "one of release, paper"),
        ({"zoom": 0.5}, "at least 1"),
        ({"views": -1}, "at least 0"),
        ({"views": 1.5}, "whole number"),
        ({"sigma": 0}, "found sigma=0"),
        ({"timestep": "last"}, "found timestep="),
        ({"timestep": 0.5}, "whole number"),
        ({"map_size": 0}, "found map_size=0"),
    ],
    ids=str,
)
def test_bad_hyperparameters(changes, message):
    with pytest.raises(InputError, match=message):
        StableKeypoints(**changes)


def test_other_settings_keep_the_diffusion_model(model, pipeline):
    assert model().set_params(steps=9).pipeline is pipeline
    with pytest.raises(InputError, match="smaller than the latents"):
        model().set_params(image_size=8)


def test_small_images(model):
    with pytest.raises(InputError, match="smaller than the latents"):
        model(image_size=8)
    trained = model().untrained()
    for use in (trained.predict, trained.attention):
        with pytest.raises(InputError, match="smaller than the latents"):
            use(torch.rand(1, 3, 32, 12))
    with pytest.raises(InputError, match="smaller than the latents"):
        model().fit(Squares(size=14), progress=False)
    with pytest.raises(InputError, match="expected chosen"):
        trained.attention(torch.rand(1, 3, 32, 32), tokens="best")
    with pytest.raises(InputError, match="call fit"):
        model().predict(torch.rand(1, 3, 32, 32))


def test_maps_do_not_mix_images(model):
    random = model().untrained()
    images = seeded(3, 3, 32, 32)
    together = random.attention(images, "all")
    assert together.shape == (3, 12, 16, 16)
    assert torch.allclose(together.sum(1), torch.ones(3, 16, 16), atol=1e-5)
    alone = torch.cat([random.attention(image[None], "all") for image in images])
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.allclose(random.attention(images), together[:, :3], atol=1e-6)
    assert random.attention(images, ensembled=True).shape == (3, 3, 32, 32)
    assert (random.predict(images) - torch.cat([random.predict(i[None]) for i in images])).abs().max() < 1e-4


def test_maps_without_upsampling_the_query(model, pipeline):
    random = model(upsampling="map", layers=[7, 8, 9, 10]).untrained()
    latents, noise = torch.randn(2, 4, 16, 16), torch.randn(1, 4, 16, 16)
    with torch.no_grad():
        found = random.maps(latents, noise)
        noisy, tokens = pipeline.noisy(latents, 0, noise.expand_as(latents)), random.networks["tokens"].embedding
        # Layers 7 to 9 work at a quarter of the latents' size, layer 10 at half.
        native = [
            taps.attention_maps(pipeline, noisy, 0, tokens, layers=(layer,), size=4 if layer < 10 else 8)
            for layer in (7, 8, 9, 10)
        ]
    wanted = torch.stack([method.enlarge(maps, 16) for maps in native]).mean(0)
    assert torch.allclose(found, wanted, atol=1e-5)


def test_prediction_by_hand(model):
    # Two views, warped, tapped, chosen, enlarged, warped back and averaged, one by one.
    random, images = model().untrained(), seeded(2, 3, 32, 32)
    random.networks["tokens"].chosen.copy_(torch.tensor([4, 0, 7]))
    total = weight = 0
    with torch.no_grad():
        for view in range(2):
            affine = method.draw_affines(1, runs.generator(torch.device("cpu"), 0, 6, view))
            seen = method.warp(images, affine)
            noise = torch.randn(1, 4, 16, 16, generator=runs.generator(torch.device("cpu"), 0, 7, view))
            maps = random.maps(random.pipeline.latents(seen), noise)[:, [4, 0, 7]]
            back = method.invert_affines(affine)
            total = total + method.warp(method.enlarge(maps, 32), back)
            weight = weight + method.warp(torch.ones(1, 1, 32, 32), back)
    mean = torch.where(weight > 0, total / weight, 0.0)
    assert torch.allclose(random.attention(images, ensembled=True), mean, atol=1e-6)
    place = mean.flatten(2).argmax(-1)
    wanted = torch.stack([place % 32, place // 32], -1) + 0.5
    assert torch.equal(random.predict(images), wanted)
    # Pixels of the images handed in.
    large = torch.nn.functional.interpolate(images, size=(64, 96), mode="nearest")
    assert random.predict(large).amax((0, 1))[0] > 32


# --- training -----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"convention": "paper"},
        {"equivariance": 0.0},
        {"upsampling": "map", "views": 0, "radius": 2.0},
        {"kappa": 3, "layers": [6, 7], "cache": "disk"},
        {"losses_on": "local", "coverage": False, "locality": "sum"},
    ],
    ids=str,
)
def test_every_variant_trains(model, changes):
    fitted = model(**changes).fit(Squares(), progress=False)
    assert [entry["step"] for entry in fitted.history_] == [1, 2, 3, 4]
    assert ("equivariance" in fitted.history_[0]) == (changes.get("equivariance") != 0.0)
    tokens, before = fitted.networks["tokens"], fitted.untrained().networks["tokens"]
    assert not torch.equal(tokens.embedding, before.embedding)
    assert len(set(tokens.chosen.tolist())) == 3
    found = fitted.predict(torch.rand(2, 3, 40, 60))
    assert found.shape == (2, 3, 2)
    assert ((found > 0) & (found < torch.tensor([60.0, 40.0]))).all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_loss_falls(model):
    fitted = model(steps=30, learning_rate=0.05, losses_on="local", kappa=12).fit(
        Squares(), progress=False, log_every=1
    )
    totals = [100 * h["localisation"] + 1000 * h["equivariance"] for h in fitted.history_]
    assert sum(totals[-5:]) < 0.98 * sum(totals[:5])


def test_a_step_is_what_the_notes_say(model, pipeline):
    # One image, all by hand: the mean over parts of a batch must be the same as the whole.
    images = torch.stack([Squares()[i]["image"] for i in range(2)])
    latents = pipeline.latents(images)
    steps = []
    for micro_batch in (1, 2):
        one = model(micro_batch=micro_batch)
        one.initialise()
        one.optimisers = one._optimisers()
        losses = one._train_step(images, latents, 5)
        steps.append((losses, one.networks["tokens"].embedding.grad.clone(), one.networks["tokens"].usage.clone()))
    for name in ("localisation", "equivariance"):
        assert steps[0][0][name].item() == pytest.approx(steps[1][0][name].item(), rel=1e-4)
    assert torch.allclose(steps[0][1], steps[1][1], rtol=1e-2, atol=1e-6)
    assert torch.equal(steps[0][2], steps[1][2])
    assert steps[0][2].sum() == 2 * 3

    random = runs.generator(torch.device("cpu"), 0, 3, 5)
    affines = method.draw_affines(2, random)
    noise = torch.randn(2, 2, 4, 16, 16, generator=random)
    untrained, wanted = model().untrained(), {"localisation": 0.0, "equivariance": 0.0}
    with torch.no_grad():
        for i in range(2):
            view = method.warp(images[i : i + 1], affines[i : i + 1])
            maps = untrained.maps(latents[i : i + 1], noise[0, i : i + 1])
            warped = untrained.maps(pipeline.latents(view), noise[1, i : i + 1])
            local = method.locality(maps, 1.0)[0].argsort()[:6]
            kept = local[geometry.furthest_points(method.peaks(warped)[0, local], 3)]
            back = method.warp(warped, method.invert_affines(affines[i : i + 1]))
            target = method.gaussian_targets(maps, 1.0)
            wanted["localisation"] += (maps - target)[:, kept].square().mean().item() / 2
            wanted["equivariance"] += (back - maps)[:, kept].square().mean().item() / 2
    for name, value in wanted.items():
        assert steps[0][0][name].item() == pytest.approx(value, rel=1e-3)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_killed_run_goes_on_to_the_same_bits(model, tmp_path, monkeypatch):
    whole = model().fit(Squares(), progress=False)
    path = tmp_path / "half.safetensors"
    step = StableKeypoints._train_step

    def dies(self, images, pairs, number):
        if number == 2:
            raise KeyboardInterrupt
        return step(self, images, pairs, number)

    monkeypatch.setattr(StableKeypoints, "_train_step", dies)
    with pytest.raises(KeyboardInterrupt):
        model().fit(Squares(), progress=False, checkpoint=path, checkpoint_seconds=-1.0)
    monkeypatch.setattr(StableKeypoints, "_train_step", step)
    resumed = model(cache="disk").fit(Squares(), progress=False, checkpoint=path)
    assert resumed.checksum() == whole.checksum()
    assert len(resumed.history_) == len(whole.history_)
    other = StableKeypoints(**TINY).attach(pipelines.build("tiny", seed=1))
    with pytest.raises(InputError, match="other settings"):
        other.fit(Squares(), progress=False, checkpoint=path)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_monitored_while_training(model):
    seen = []

    def monitor(detector, step):
        seen.append(detector.networks["tokens"].chosen.tolist())
        return {"spread": float(detector.predict(torch.rand(2, 3, 32, 32)).std())}

    fitted = model(steps=2).fit(Squares(), progress=False, monitor=monitor)
    assert "spread" in fitted.history_[-1]
    # The running choice: the tokens most often taken so far.
    assert all(len(set(chosen)) == 3 for chosen in seen)


def test_choice_of_tokens_by_hand(model):
    random, data = model(selection_images=4).untrained(), cached(Squares())
    assert random.networks["tokens"].chosen.tolist() == [0, 1, 2]
    random.choose(data)
    order = torch.randperm(12, generator=runs.generator(torch.device("cpu"), 0, 4))[:4]
    counts = [0] * 12
    with torch.no_grad():
        for i in order.tolist():
            noise = torch.randn(4, 16, 16, generator=runs.generator(torch.device("cpu"), 0, 5, i))
            latents = random.pipeline.latents(data[i]["image"][None]).half().float()
            maps = random.maps(latents, noise[None])
            for token in method.furthest_tokens(maps, method.top_kappa(maps, 6, 1.0), 3)[0].tolist():
                counts[token] += 1
    assert random.networks["tokens"].chosen.tolist() == sorted(range(12), key=lambda n: (-counts[n], n))[:3]


# --- latents and files --------------------------------------------------------------------------------------------


def test_latents_are_encoded_once(pipeline, tmp_path, monkeypatch):
    monkeypatch.setenv("ULM_CACHE", str(tmp_path))
    data, calls = cached(Squares()), []

    def images(places):
        calls.extend(places)
        return data.batch(places)["image"]

    for where in ("disk", "memory"):
        calls.clear()
        known = backbone.LatentCache(pipeline, data, 32, where)
        first = known(torch.tensor([3, 1]), images)
        assert torch.equal(first, known([3, 1], images))
        assert calls == [3, 1]
        exact = pipeline.latents(data.batch([3, 1])["image"])
        assert (first - exact).abs().max() < 2e-3 * exact.abs().max()
    # Another process finds them.
    calls.clear()
    assert torch.equal(backbone.LatentCache(pipeline, data, 32)([1, 3, 0], images)[:2], first.flip(0))
    assert calls == [0]
    # Other weights do not.
    backbone.LatentCache(pipelines.build("tiny", seed=2), data, 32)([1], images)
    assert calls == [0, 1]
    monkeypatch.setenv("ULM_CACHE", "/dev/null/nowhere")
    with pytest.raises(InputError, match="give cache=memory"):
        backbone.LatentCache(pipeline, data, 32)


def test_fingerprint_knows_other_weights_in_any_precision(pipeline):
    found = backbone.fingerprint(pipeline)
    assert backbone.same_backbone(found, backbone.fingerprint(pipelines.build("tiny")))
    assert backbone.same_backbone(found, found.bfloat16().float())
    assert not backbone.same_backbone(found, backbone.fingerprint(pipelines.build("tiny", seed=1)))
    assert not backbone.same_backbone(found, found[:-1])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_save_and_load(model, pipeline, tmp_path):
    fitted, images = model().fit(Squares(), progress=False), seeded(4, 3, 32, 32)
    fitted.save_pretrained(tmp_path / "m")
    assert (tmp_path / "m" / "model.safetensors").stat().st_size < 20_000
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config["parameters"]["backbone"] == "pocket"
    # The diffusion model is not asked for before it is needed.
    again = load(tmp_path / "m")
    assert isinstance(again, StableKeypoints)
    assert again.get_params() == {**fitted.get_params(), "device": "auto"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again.attach(pipeline)
    assert again.networks["tokens"].chosen.tolist() == fitted.networks["tokens"].chosen.tolist()
    assert (again.attention(images, "all") - fitted.attention(images, "all")).abs().max() < 1e-3  # weights are fp16
    with pytest.warns(RuntimeWarning, match="not those that these tokens were trained with"):
        load(tmp_path / "m").attach(pipelines.build("tiny", seed=1))
    wide = pipelines.CONFIGS["tiny"] | {"text": pipelines.CONFIGS["tiny"]["text"] | {"width": 32}}
    with pytest.raises(InputError, match="found tokens of 16 numbers, but custom takes 32"):
        load(tmp_path / "m").attach(pipelines.build(wide))
    tuned = model(n_landmarks=2, steps=1).fit(Squares(), progress=False, start=again)
    assert tuned.predict(images).shape == (4, 2, 2)
    with pytest.raises(InputError, match="expected 11 tokens"):
        model(n_tokens=11).fit(Squares(), progress=False, start=again)


def test_the_backbone_is_loaded_by_name_and_shared(pipeline, tmp_path):
    pipeline.save(tmp_path / "backbone")
    first = StableKeypoints(**TINY | {"backbone": str(tmp_path / "backbone"), "device": "cpu"}).untrained()
    second = StableKeypoints(**first.get_params()).untrained()
    assert second.pipeline is first.pipeline
    assert backbone.same_backbone(backbone.fingerprint(first.pipeline), backbone.fingerprint(pipeline))
    with pytest.raises(InputError):
        StableKeypoints(backbone=str(tmp_path / "nothing")).untrained()
