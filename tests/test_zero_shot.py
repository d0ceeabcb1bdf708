"""ZeroShot: exemplars against loops, planted landmarks found again, regions, resuming, files and bad input."""

import json
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ulm import clustering, runs
from ulm.datasets.base import Dataset, Info, check_index
from ulm.datasets.cache import cached
from ulm.diffusion import inversion, pipelines, taps
from ulm.errors import InputError
from ulm.methods import METHODS, backbone, features, load
from ulm.methods import zero_shot as method
from ulm.methods.zero_shot import ZeroShot
from ulm.networks.aggregation import Aggregator, tap_shapes

TINY = {
    "n_landmarks": 3,
    "image_size": 32,
    "layers": [9, 10, 11],
    "region_images": 6,
    "images": 8,
    "samples": 20,
    "batch_size": 4,
    "micro_batch": 4,
    "precision": "float32",
    "cache": "memory",
}
CPU = torch.device("cpu")


class Squares(Dataset):
    """A two-coloured square on grey, a box round it if asked for."""

    def __init__(self, length=8, boxes=True, size=32, empty=()):
        self.info, self.split, self.size = Info("squares"), "all", size
        self.length, self.boxes, self.empty = length, boxes, empty

    def __len__(self):
        return self.length

    def corner(self, index):
        return 4 + (7 * index) % 12, 4 + (5 * index) % 12

    def __getitem__(self, index):
        index = check_index(index, self.length)
        x, y = self.corner(index)
        image = torch.full((3, self.size, self.size), 0.3)
        image[:, y : y + 12, x : x + 6] = torch.tensor([1.0, 0.1, 0.1])[:, None, None]
        image[:, y : y + 12, x + 6 : x + 12] = torch.tensor([0.1, 0.2, 1.0])[:, None, None]
        item = {"image": image, "landmarks": torch.zeros(0, 2), "visible": torch.zeros(0, dtype=torch.bool)}
        if self.boxes:
            box = torch.tensor([x, y, x + 12, y + 12], dtype=torch.float32)
            item["box"] = torch.full((4,), torch.nan) if index in self.empty else box
        return item

    @property
    def fingerprint(self):
        return f"squares{self.length}{self.boxes}{self.empty}"


@pytest.fixture(scope="module")
def pipeline():
    return pipelines.build("tiny")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("ULM_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def model(pipeline):
    return lambda **changes: ZeroShot(**{**TINY, **changes}).attach(pipeline)


def seeded(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


class Planted(ZeroShot):
    """Its 'taps' are colours, so that a landmark is known: each image has three patches of three colours on black."""

    def _some_taps(self, latents):
        return [[latents]]

    def _tap_shapes(self):
        return [(4, 16, 16)]

    def _networks(self, channels, size):
        return super()._networks([4], size)

    def _build(self):
        return self._with_origin(features.fingerprint(self.pipeline), [4], 16)


def planted(n=6):
    """Latents ``(n, 4, 16, 16)`` with patches of 2 x 2 cells, and their cells' centres ``(n, 3, 2)`` in 32 pixels."""
    rng, latents, places = np.random.default_rng(0), torch.zeros(n, 4, 16, 16), torch.zeros(n, 3, 2)
    latents[:, 3] = 1.0
    for i in range(n):
        for k, cell in enumerate(rng.choice(49, 3, replace=False)):
            x, y = 1 + 2 * int(cell % 7), 1 + 2 * int(cell // 7)
            latents[i, :, y : y + 2, x : x + 2] = torch.eye(4)[k][:, None, None]
            places[i, k] = torch.tensor([2 * x + 2.0, 2 * y + 2.0])
    return latents, places


# --- exemplars ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["nan", "nearest"])
def test_best_places_like_the_clustering_module(missing):
    descriptors, places = seeded(3, 9, 5) - 0.5, 30 * seeded(3, 9, 2, seed=1)
    places[1, 2:] = torch.nan
    places[2] = torch.nan
    centroids = torch.nn.functional.normalize(seeded(4, 5, seed=2) - 0.5, dim=1)
    found = method.best_places(3 * descriptors, places, centroids, missing)
    known = places.isfinite().all(-1)
    keypoints = clustering.Keypoints(
        descriptors[known].numpy(), known.nonzero()[:, 0].numpy(), places[known].numpy(), np.ones(int(known.sum())), 3
    )
    choose = clustering.exemplars if missing == "nan" else clustering.nearest
    wanted = torch.from_numpy(keypoints.landmarks(choose(keypoints, centroids.numpy())))
    assert torch.equal(found.isnan(), wanted.isnan())
    assert torch.equal(found.nan_to_num(), wanted.nan_to_num())
    assert found[2].isnan().all()


def test_best_places_leaves_out_what_is_not_finite():
    descriptors = torch.tensor([[[torch.nan, 1.0], [0.6, 0.8], [0.0, 1.0]]])
    places = torch.tensor([[[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]])
    assert method.best_places(descriptors, places, torch.tensor([[0.0, 1.0]])).tolist() == [[[3.0, 3.0]]]


def test_places_are_inside_and_even():
    masks = torch.zeros(2, 4, 4, dtype=torch.bool)
    masks[0, 1, 2], masks[0, 3, 0] = True, True
    places = features.sample_places(masks, seeded(1, 400, 3), 8)
    assert places[1].isnan().all()
    cells = (places[0] / 2).floor().long().tolist()
    counts = {tuple(cell): cells.count(cell) for cell in cells}
    assert set(counts) == {(2, 1), (0, 3)}
    assert abs(counts[2, 1] - 200) < 50
    # Not only the centres.
    assert (places[0] / 2 - (places[0] / 2).floor() - 0.5).abs().max() > 0.4


def test_planted_landmarks_are_found(pipeline, monkeypatch):
    latents, truth = planted()
    found_in = Planted(**TINY | {"layers": None, "region": "box", "samples": 200, "images": 8}).attach(pipeline)
    monkeypatch.setattr(found_in, "_latents_of", lambda data, indices: latents[indices])
    monkeypatch.setattr(type(pipeline), "latents", lambda self, images: latents[images[:, 0, 0, 0].long()])
    # Every image's region is its patches: the background is not clustered.
    masks = latents[:, :3].sum(1) > 0
    monkeypatch.setattr(found_in, "_find_region", lambda data: None)
    monkeypatch.setattr(found_in, "_masks", lambda taps, boxes: taps[0][0][:, :3].sum(1) > 0)
    found_in.fit(Squares(6), progress=False)
    images = torch.zeros(6, 3, 32, 32) + torch.arange(6.0)[:, None, None, None]
    landmarks = found_in.predict(images)
    assert masks.sum() == 6 * 3 * 4
    # The order of clusters is free: the one permutation that fits the first image fits all, to within a cell.
    order = torch.cdist(landmarks[0], truth[0]).argmin(1)
    assert sorted(order.tolist()) == [0, 1, 2]
    assert (landmarks - truth[:, order]).abs().max() <= 1.0


# --- features and regions -------------------------------------------------------------------------------------------


def test_taps_are_those_of_the_decoder(model, pipeline):
    latents = pipeline.latents(seeded(2, 3, 32, 32))
    found = model(timesteps=[-1, 10], layers=[2, 11]).taps(latents)
    context = pipeline.embed("")
    assert [[tuple(tap.shape) for tap in of_timestep] for of_timestep in found] == [
        [(2, 16, 2, 2), (2, 8, 16, 16)],
        [(2, 16, 2, 2), (2, 8, 16, 16)],
    ]
    clean = taps.resnet_features(pipeline, latents, -1, context, [2, 11])
    assert torch.allclose(found[0][1], clean[1], atol=1e-5)
    noise = torch.randn(1, 4, 16, 16, generator=runs.generator(CPU, 0, 7, 11)).expand_as(latents)
    noisy = taps.resnet_features(pipeline, pipeline.noisy(latents, 10, noise), 10, context, [2, 11])
    assert torch.allclose(found[1][1], noisy[1], atol=1e-5)
    assert not torch.allclose(found[0][1], found[1][1], atol=1e-4)


def test_taps_of_inversion(model, pipeline):
    latents, context = pipeline.latents(seeded(1, 3, 32, 32)), pipeline.embed("")
    found = model(walk="inversion", inversion_steps=4, timesteps=[-1, 250], layers=[11]).taps(latents)
    states = inversion.invert(pipeline, latents, context, [-1, 250], steps=4)
    for of_timestep, (t, state) in zip(found, states.items(), strict=True):
        assert torch.allclose(of_timestep[0], taps.resnet_features(pipeline, state, t, context, [11])[0], atol=1e-4)
    # The last state of the walk is passed without a call of the U-Net.
    with pytest.raises(InputError, match=r"timesteps \[750\]"):
        model(walk="inversion", inversion_steps=4, timesteps=[-1, 750]).taps(latents)


def test_kept_taps_are_the_same(model):
    data, indices = cached(Squares()), torch.tensor([5, 0, 7])
    whole, none = model(budget=1.0), model(budget=0.0)
    some = model(budget=2 * 3 * 2 * (3 * 8 * 256) / 2**30)
    kept = whole.taps_of(data, indices)
    assert (whole._taps.capacity, none._taps, some._taps) == (8, None, None)
    for other in (none, some):
        assert all(
            torch.allclose(a, b, atol=2e-3) for a, b in zip(kept[0], other.taps_of(data, indices)[0], strict=True)
        )
    assert 0 < some._taps.capacity < 8
    assert none._taps.capacity == 0
    calls = []
    whole._some_taps = lambda latents: calls.append(1)
    assert torch.equal(whole.taps_of(data, indices)[0][0], kept[0][0])
    assert calls == []


def test_kept_taps_do_not_depend_on_the_order(model, monkeypatch):
    """Neighbours go through the network together, always the same ones, whatever is asked for first."""
    data, sizes = cached(Squares()), []
    plain = ZeroShot._some_taps

    def counted(self, latents):
        sizes.append(len(latents))
        return plain(self, latents)

    monkeypatch.setattr(ZeroShot, "_some_taps", counted)
    whole = model(budget=1.0, micro_batch=3)
    kept = whole.taps_of(data, torch.arange(8))[0]
    assert sizes == [3, 3, 2]
    again, sizes[:] = model(budget=1.0, micro_batch=3), []
    for place, made in ((6, [2]), (1, [2, 3]), (7, [2, 3]), (4, [2, 3, 3])):
        found = again.taps_of(data, torch.tensor([place]))[0]
        assert all(torch.equal(a[0], b[place]) for a, b in zip(found, kept, strict=True))
        assert sizes == made


def test_a_block_that_was_cut_short_is_made_again(monkeypatch, tmp_path):
    monkeypatch.setenv("ULM_CACHE", str(tmp_path))

    def killed(places):
        raise KeyboardInterrupt

    def make(places):
        calls.append(places)
        return torch.tensor(places).float().view(-1, 1)

    calls = []
    with pytest.raises(KeyboardInterrupt):
        backbone.Rows(5, (1,), "rows", ("key",), block=2).read([3], killed)
    rows = backbone.Rows(5, (1,), "rows", ("key",), block=2)
    assert rows.read([3, 4, 2], make).flatten().tolist() == [3, 4, 2]
    assert calls == [[2, 3], [4]]
    # Blocks of another size are other numbers.
    assert backbone.Rows(5, (1,), "rows", ("key",), block=3).read([4], make).tolist() == [[4]]
    assert calls[-1] == [3, 4]


@pytest.mark.parametrize("layers", [[0], [2, 3, 11], list(range(12))])
def test_shapes_of_taps_are_known_beforehand(pipeline, layers):
    found = taps.resnet_features(pipeline, torch.zeros(1, 4, 16, 16), 10, pipeline.embed(""), layers)
    assert tap_shapes(pipeline.unet, layers, 16) == [tuple(tap.shape[1:]) for tap in found]


def test_regions(model):
    boxed, free = Squares(), Squares(boxes=False)
    fitted = model().fit(boxed, progress=False)
    origin = fitted.networks["origin"]
    assert origin.threshold.isfinite()
    # Pixels of training images come from their boxes alone.
    used = model(region="box")
    used._check_data(boxed)
    used.initialise()
    maps, masks = used._batch(cached(boxed), 0)
    indices, _ = used._indices(cached(boxed), 0)
    for mask, index in zip(masks, indices.tolist(), strict=True):
        x, y = boxed.corner(index)
        inside = torch.zeros(16, 16, dtype=torch.bool)
        inside[(y + 1) // 2 : (y + 13) // 2, (x + 1) // 2 : (x + 13) // 2] = True
        assert abs(int(mask.sum()) - 36) <= 12
        assert (mask & ~inside).sum() <= 12
    assert maps.shape == (4, 24, 16, 16)
    assert model().fit(free, progress=False).networks["origin"].threshold.isfinite()
    assert model(region="image").fit(boxed, progress=False).networks["origin"].threshold.isnan()
    with pytest.raises(InputError, match="found no boxes in squares; give region=features"):
        model(region="box").fit(free, progress=False)


def test_predictions_stay_in_boxes_that_are_handed_in(model):
    fitted = model(missing="nearest").fit(Squares(), progress=False)
    images = seeded(2, 3, 64, 48)
    boxes = torch.tensor([[6.0, 8.0, 24.0, 30.0], [torch.nan] * 4])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fitted.predict(images, boxes=boxes)
    assert ((found[0] >= boxes[0, :2]) & (found[0] <= boxes[0, 2:])).all()
    # An empty region has no landmarks, and the next prediction knows nothing of the boxes.
    assert found[1].isnan().all()
    assert fitted.predict(images[1:]).shape == (1, 3, 2)
    with pytest.raises(InputError, match=r"expected \(2, 4\)"):
        fitted.predict(images, boxes=boxes[0])


@pytest.mark.parametrize("matching", ["dense", "random"])
def test_predictions_do_not_mix_images(model, matching):
    fitted = model(matching=matching, region="image").fit(Squares(), progress=False)
    images = seeded(3, 3, 32, 32)
    together = fitted.predict(images)
    alone = torch.cat([fitted.predict(image[None]) for image in images])
    assert torch.equal(together.isnan(), alone.isnan())
    assert (together - alone).nan_to_num().abs().max() < 1e-3
    assert ((together.nan_to_num(1) > 0) & (together.nan_to_num(1) < 32)).all()


# --- fitting, resuming, files ---------------------------------------------------------------------------------------


def test_a_killed_run_goes_on_to_the_same_bits(model, tmp_path, monkeypatch):
    whole, path = model().fit(Squares(), progress=False), tmp_path / "half.safetensors"
    step = ZeroShot._train_step

    def dies(self, images, pairs, number):
        if number == 1:
            raise KeyboardInterrupt
        return step(self, images, pairs, number)

    monkeypatch.setattr(ZeroShot, "_train_step", dies)
    with pytest.raises(KeyboardInterrupt):
        model().fit(Squares(), progress=False, checkpoint=path, checkpoint_seconds=-1.0)
    monkeypatch.setattr(ZeroShot, "_train_step", step)
    resumed = model(cache="disk").fit(Squares(), progress=False, checkpoint=path)
    assert resumed.checksum() == whole.checksum()
    # A run that is over is not run again, and gives the same once more.
    assert model().fit(Squares(), progress=False, checkpoint=path).checksum() == whole.checksum()
    with pytest.raises(InputError, match="other settings"):
        model(samples=21).fit(Squares(), progress=False, checkpoint=path)
    assert whole.history_[-1]["descriptors"] == 8 * 20
    assert model(seed=1).fit(Squares(), progress=False).checksum() != whole.checksum()


def test_save_and_load(model, pipeline, tmp_path):
    fitted, images = model(n_landmarks=4).fit(Squares(), progress=False), seeded(4, 3, 32, 32)
    fitted.save_pretrained(tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config["networks"] == ["exemplars", "origin"]
    # The diffusion model is not asked for before it is needed.
    again = load(tmp_path / "m")
    assert again.get_params() == {**fitted.get_params(), "device": "auto"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again.attach(pipeline)
    assert torch.equal(again.predict(images).nan_to_num(), fitted.predict(images).nan_to_num())
    kept = again.set_params(missing="nearest").predict(images)
    assert kept.isfinite().all()
    with pytest.warns(RuntimeWarning, match="not those that these exemplars were trained with"):
        load(tmp_path / "m").attach(pipelines.build("tiny", seed=1))
    sizes = pipelines.CONFIGS["tiny"]
    wide = pipelines.build(sizes | {"unet": sizes["unet"] | {"widths": (16, 16, 16, 16)}})
    with pytest.raises(InputError, match="load the model with the backbone"):
        load(tmp_path / "m").attach(wide)


def test_published_and_borrowed_aggregators(model, pipeline, tmp_path):
    torch.manual_seed(0)
    aggregator = Aggregator([8, 8, 8], 1, 8, 16)
    names = {"mixing_weights": "mixing_weights"}
    for layer in range(3):
        for part in ("shortcut", "conv1", "conv2", "conv3"):
            ours, theirs = f"bottlenecks.{layer}.{part}", f"bottleneck_layers.{layer}.0.{part}"
            names |= {f"{ours}.0.weight": f"{theirs}.weight"}
            names |= {f"{ours}.1.{kind}": f"{theirs}.norm.{kind}" for kind in ("weight", "bias")}
    weights = {names[name]: tensor.contiguous() for name, tensor in aggregator.state_dict().items()}
    save_file(weights, tmp_path / "published.safetensors")
    given = {"projection_dim": 8, "images": 4}
    published = model(aggregator=str(tmp_path / "published.safetensors"), **given).fit(Squares(), progress=False)
    assert published.networks["exemplars"].centroids.shape == (3, 8)
    borrowed = model(aggregator="start", **given).fit(Squares(), progress=False, start=published)
    assert torch.equal(borrowed.networks["exemplars"].centroids, published.networks["exemplars"].centroids)
    # Once saved, the file of weights is no longer needed.
    published.save_pretrained(tmp_path / "m")
    (tmp_path / "published.safetensors").unlink()
    assert load(tmp_path / "m").attach(pipeline).predict(seeded(1, 3, 32, 32)).shape == (1, 3, 2)
    with pytest.raises(InputError, match="ulm fit --method d-uld-bootstrap"):
        model(aggregator="start").fit(Squares(), progress=False)
    with pytest.raises(InputError, match="give aggregator=start"):
        model().fit(Squares(), progress=False, start=published)
    with pytest.raises(InputError, match="same layers"):
        model(aggregator="start", projection_dim=16).fit(Squares(), progress=False, start=published)
    with pytest.raises(InputError, match="no aggregation network"):
        model(aggregator="start").fit(Squares(), progress=False, start=borrowed.set_params(aggregator="").untrained())


def test_what_is_survived_and_reported(model):
    with pytest.warns(RuntimeWarning, match="2 of 8 looks at images found an empty region"):
        some = model().fit(Squares(empty=(1, 4)), progress=False)
    assert some.history_[-1]["descriptors"] == 6 * 20
    with pytest.raises(InputError, match="all or nothing"):
        model().fit(Squares(empty=range(8)), progress=False)
    with pytest.raises(InputError, match=r"found 4 pixels .* n_landmarks=5"):
        model(n_landmarks=5, samples=1, images=4).fit(Squares(), progress=False)
    random = model().untrained()
    assert random.predict(seeded(2, 3, 32, 32)).shape == (2, 3, 2)
    with pytest.raises(InputError, match="call fit"):
        model().predict(seeded(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": [12]}, "expected some of 0 to 11"),
        ({"layers": []}, "expected some of 0 to 11"),
        ({"timesteps": [-2]}, "from -1 to 999"),
        ({"timesteps": [20, 10]}, "from the clean image to noise"),
        ({"walk": "back"}, "one of one-step, inversion"),
        ({"region": "face"}, "one of auto, box, features, image"),
        ({"matching": "all"}, "one of dense, random"),
        ({"missing": "zero"}, "one of nan, nearest"),
        ({"samples": 0}, "found samples=0"),
        ({"grid": -1}, "found grid=-1"),
        ({"budget": "1"}, "found budget='1'"),
    ],
    ids=str,
)
def test_bad_hyperparameters(changes, message):
    with pytest.raises(InputError, match=message):
        ZeroShot(**changes)


def test_profiles():
    for name in runs.PROFILES:
        METHODS["zero-shot"](**runs.profile(name)["zero-shot"])
    assert METHODS["zero-shot"](**runs.profile("paper")["zero-shot"]).image_size == 512


def test_what_a_whole_image_shares_is_taken_off(model, pipeline):
    masks = torch.zeros(2, 4, 4, dtype=torch.bool)
    masks[0, 1:3, 1:] = True
    maps = seeded(2, 3, 4, 4)
    left = features.without_mean(maps, masks)
    assert left[0][:, masks[0]].mean(1).abs().max() < 1e-6
    assert torch.equal(left[1], maps[1])  # an empty region has no mean
    shifted = features.without_mean(maps + torch.tensor([5.0, -1.0, 2.0]).view(1, 3, 1, 1), masks)
    assert torch.allclose(shifted[0], left[0], atol=1e-5)

    data, found = Squares(), {}
    for centre in (False, True):
        detector = model(centre=centre)
        detector.fit(data)
        taps = detector.taps(pipeline.latents(detector._prepare(data.batch(range(4))["image"])))
        regions = detector._masks(taps, None)
        found[centre] = detector._descriptors(taps, regions)
    assert torch.allclose(found[True], features.without_mean(found[False], regions), atol=1e-5)
