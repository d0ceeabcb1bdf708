"""IMM: parts against hand-worked values, then training, resuming, files and bad input on tiny images."""

import json
import math
import os
import signal
import subprocess
import sys
import time

import h5py
import pytest
import torch
from safetensors.torch import save_file

from ulm import datasets, runs
from ulm.datasets.base import Dataset, Info, check_index
from ulm.errors import InputError
from ulm.methods import IMM, Colourisation, Recognition, load, recognition
from ulm.methods import colourisation as colour
from ulm.methods import imm as method
from ulm.methods.training import settle_norms
from ulm.networks import imm as networks
from ulm.networks import perceptual

TINY = {
    "n_landmarks": 4,
    "image_size": 32,
    "width": 4,
    "batch_size": 4,
    "steps": 6,
    "loss": "l2",
    "precision": "float32",
}


class Squares(Dataset):
    """White squares on grey, two frames a video: enough for training code, drawn at once."""

    def __init__(self, length=12, size=32):
        self.info, self.split, self.size, self.length = Info("squares"), "all", size, length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        index = check_index(index, self.length)
        x, y = 6 + (7 * index) % 16, 6 + (5 * index) % 16
        image = torch.full((3, self.size, self.size), 0.3)
        image[:, y : y + 6, x : x + 6] = torch.tensor([1.0, 0.8, 0.1])[:, None, None]
        points = torch.tensor([[x + 3.0, y + 3.0]])
        return {
            "image": image,
            "landmarks": points,
            "visible": torch.ones(1, dtype=torch.bool),
            "video": f"v{index // 2}",
        }

    @property
    def fingerprint(self):
        return f"squares{self.length}"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("ULM_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def fit(**changes):
    return IMM(**{**TINY, **changes}).fit(Squares(), progress=False)


# --- networks -----------------------------------------------------------------------------------------------------


def test_architecture_of_the_paper():
    # Notes, A.2: 1.18 million parameters an encoder, 1.82 the regressor; 16 x 16 x 256 at 128 pixels.
    encoder = networks.Encoder(128, 32)
    assert encoder(torch.rand(1, 3, 128, 128)).shape == (1, 256, 16, 16)
    assert sum(p.numel() for p in encoder.parameters()) == pytest.approx(1.18e6, rel=0.01)
    generator = networks.Generator(30, 128, 32)
    assert generator(torch.rand(2, 3, 128, 128), torch.rand(2, 30, 16, 16)).shape == (2, 3, 128, 128)
    assert sum(p.numel() for p in generator.blocks.parameters()) == pytest.approx(1.82e6, rel=0.01)


@pytest.mark.parametrize(("size", "channels"), [(16, 32), (32, 64), (64, 128), (256, 512)])
def test_output_is_always_16_by_16(size, channels):
    assert networks.Encoder(size, 32)(torch.rand(1, 3, size, size)).shape == (1, channels, 16, 16)


@pytest.mark.parametrize("size", [0, -8, 48, 8, 2048])
def test_other_sizes_are_refused(size):
    with pytest.raises(InputError, match="power of two"):
        IMM(image_size=size)


# --- losses -------------------------------------------------------------------------------------------------------


def test_content_loss_by_hand():
    vgg = perceptual.VGG("vgg16", 2).eval().requires_grad_(False)
    content = perceptual.ContentLoss(vgg)
    target, drawn, mask = (
        torch.rand(1, 3, 32, 32),
        torch.rand(1, 3, 32, 32, requires_grad=True),
        torch.ones(1, 1, 32, 32),
    )
    first = content.train()(drawn, target, mask)
    # Every layer is divided by its own first value.
    assert first.item() == pytest.approx(6, rel=1e-5)
    terms = content.terms(drawn, target, mask).detach()
    assert terms[0].item() == pytest.approx(255**2 * (drawn - target).square().mean().item(), rel=1e-4)
    content((target + drawn).detach() / 2, target, mask)
    half = content.terms((target + drawn).detach() / 2, target, mask)
    assert torch.allclose(content.weights, terms + 0.01 * (half - terms), rtol=1e-4)
    kept = content.weights.clone()
    content.eval()(drawn, target, mask)
    assert torch.equal(content.weights, kept)
    first.backward()
    assert drawn.grad.abs().sum() > 0
    assert content.state_dict().keys() == {"weights"}


def test_masked_pixels_do_not_count():
    vgg = perceptual.VGG("vgg16", 2).eval()
    mask = torch.zeros(1, 1, 32, 32)
    assert perceptual.ContentLoss(vgg).terms(torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32), mask).abs().max() == 0


def test_separation_by_hand():
    points = torch.tensor([[[0.0, 0.0], [0.1, 0.0]]])
    # Two ordered pairs of exp(-1/2), over K = 2.
    assert method.separation_loss(points, sigma=0.1).item() == pytest.approx(math.exp(-0.5))
    assert method.separation_loss(points * 100).item() == pytest.approx(0)


def test_concentration_by_hand():
    # The identity maps the landmark to the middle of four cells: q is 1/4 on each where sigma is small.
    identity = method.geometry.draw_warps(1, method.geometry.WarpScale(), torch.Generator())
    pair = method.Pair(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16), torch.ones(1, 1, 16, 16), identity)
    flat = method.concentration_loss(pair, torch.zeros(1, 1, 2), torch.zeros(1, 1, 16, 16), sigma=0.02)
    assert flat.item() == pytest.approx(math.log(256), rel=1e-4)
    peaked = torch.zeros(1, 1, 16, 16)
    peaked[0, 0, 7:9, 7:9] = 50.0
    assert method.concentration_loss(pair, torch.zeros(1, 1, 2), peaked, 0.02).item() == pytest.approx(
        math.log(4), rel=1e-4
    )
    outside = torch.full((1, 1, 2), 1.5)
    assert method.concentration_loss(pair, outside, peaked).item() == 0


@pytest.mark.parametrize("convention", ["release", "paper"])
def test_pairs_and_their_maps(convention):
    # A dot: where it is seen in source and target, both maps must lead to the same place.
    model = IMM(**TINY, convention=convention)
    images = torch.zeros(8, 3, 32, 32)
    images[:, :, 14:18, 14:18] = 1
    pair = method.warped_pair(model, images, torch.Generator().manual_seed(0))
    assert pair.mask.shape == (8, 1, 32, 32)
    assert (pair.target_map is None) == (convention == "release")

    def centre(pictures):
        weight = pictures.mean(1).flatten(1)
        grid = method.geometry.pixel_grid(32, align_corners=True).reshape(-1, 2)
        return (weight @ grid / weight.sum(1, keepdim=True)).unsqueeze(1)

    error = method.equivariance_loss(pair, centre(pair.source), centre(pair.target))
    wrong = method.equivariance_loss(pair, centre(pair.target), centre(pair.source))
    assert error < 0.05 < wrong


def test_terms_on_videos_compare_two_warps_of_the_target():
    """Between frames no warp is known; the terms get the same pair as warps of the target frame would give."""
    model = fit(pairs="video", equivariance=1.0, concentration=0.1)
    frames, partners = torch.rand(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    pair = method.video_pair(frames, partners, torch.Generator().manual_seed(1))
    known, views = model._known_warp(pair, torch.Generator().manual_seed(2))
    wanted = method.warped_pair(model, pair.target, torch.Generator().manual_seed(2))
    assert torch.equal(views[0], wanted.target)
    assert torch.equal(views[1], wanted.source)
    assert known.source_map is not None
    same, one = model._known_warp(wanted, torch.Generator().manual_seed(2))
    assert same is wanted
    assert torch.equal(one[0], wanted.source)
    assert {"equivariance", "concentration"} <= set(model.history_[-1])


def test_video_pairs_flip_both_frames():
    images, partners = torch.rand(64, 3, 4, 4), torch.rand(64, 3, 4, 4)
    pair = method.video_pair(images, partners, torch.Generator().manual_seed(0))
    kinds = set()
    for i in range(64):
        for flip in (False, True):
            a, b = (x[i].flip(-1) if flip else x[i] for x in (images, partners))
            if torch.equal(pair.source[i], a) and torch.equal(pair.target[i], b):
                kinds.add((flip, False))
            if torch.equal(pair.source[i], b) and torch.equal(pair.target[i], a):
                kinds.add((flip, True))
    assert len(kinds) == 4


def test_diagnosis():
    spread = torch.rand(50, 4, 2, generator=torch.Generator().manual_seed(0))
    assert method.diagnose(spread) == ""
    assert "collapsed" in method.diagnose(spread[:, :1].expand(-1, 4, -1))
    assert "hardly move" in method.diagnose(spread[:1].expand(50, -1, -1))


# --- training -----------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"convention": "paper"},
        {"loss": "l1"},
        {"loss": "adv+l1"},
        {"loss": "adv+l2"},
        {"bottleneck": "fc"},
        {"pairs": "video"},
        {"pairs": "video", "equivariance": 1.0, "concentration": 0.1, "jitter": 0.2},
        {"equivariance": 1.0, "separation": 0.1, "jitter": 0.2, "softmax": "joint", "schedule": "cosine"},
        {"equivariance": 1.0, "concentration": 0.1, "separation": 0.1, "reconstruct_every": 3, "warps": "local"},
        {"equivariance": 1.0, "composed": False, "initialisation": "kaiming"},
        {"precision": "bfloat16"},
    ],
    ids=str,
)
def test_every_variant_trains(changes):
    model = fit(**changes)
    points = model.predict(torch.rand(3, 3, 40, 60))
    assert points.shape == (3, 4, 2)
    assert points.isfinite().all()
    assert [entry["step"] for entry in model.history_] == list(range(1, 7))
    before, after = model.untrained().networks["pose"].state_dict(), model.networks["pose"].state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    if changes.get("bottleneck") != "fc":
        assert (points >= 0).all()
        assert (points <= torch.tensor([60.0, 40.0])).all()
    assert model.reconstruct(torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)).shape == (2, 3, 32, 32)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_content_loss_trains_with_a_network_of_ones_own(tmp_path):
    Colourisation(image_size=32, width=2).untrained().save_pretrained(tmp_path)
    model = fit(loss="content", perceptual=str(tmp_path / "model.safetensors"))
    assert model.history_[0]["reconstruction"] == pytest.approx(6, rel=1e-3)


def test_learning_beats_the_untrained_network():
    model = IMM(
        **{**TINY, "n_landmarks": 2, "width": 8, "steps": 150, "batch_size": 8},
        equivariance=100.0, separation=1.0, softmax="joint", schedule="cosine", initialisation="kaiming",
        learning_rate=5e-3,
    )  # fmt: skip
    data = Squares(96)
    images = torch.stack([data[i]["image"] for i in range(96)])
    truth = torch.stack([data[i]["landmarks"] for i in range(96)]).flatten(1)

    def unexplained(detector):
        x = torch.cat([detector.predict(images).flatten(1), torch.ones(96, 1)], 1).double()
        residual = truth - x @ torch.linalg.lstsq(x, truth.double()).solution
        return float(residual.square().sum() / (truth - truth.mean(0)).square().sum())

    before = unexplained(model.untrained())
    assert unexplained(model.fit(data, progress=False)) < 0.5 * before


def test_a_finished_checkpoint_is_read_back(tmp_path):
    path = tmp_path / "c.safetensors"
    first = IMM(**TINY).fit(Squares(), progress=False, checkpoint=path)
    again = IMM(**TINY).fit(Squares(), progress=False, checkpoint=path)
    assert first.history_ == again.history_
    with pytest.raises(InputError, match="other settings"):
        IMM(**{**TINY, "seed": 1}).fit(Squares(), progress=False, checkpoint=path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="no readable safetensors"):
        IMM(**TINY).fit(Squares(), progress=False, checkpoint=path)


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from test_imm import TINY, Squares
from ulm.methods import IMM
model = IMM(**TINY | {{"steps": 60, "loss": "adv+l2"}})
model.fit(Squares(), progress=False, checkpoint={path!r}, checkpoint_seconds=0.0)
model.save_pretrained({out!r})
"""


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_kill_and_resume_gives_the_same_bits(tmp_path):
    environment = {**os.environ, "ULM_CACHE": str(tmp_path / "cache")}

    def start(name):
        paths = {"path": str(tmp_path / f"{name}.safetensors"), "out": str(tmp_path / name)}
        code = SCRIPT.format(tests=os.path.dirname(__file__), **paths)
        return subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], env=environment)

    assert start("whole").wait(400) == 0
    killed = start("killed")
    deadline = time.time() + 300
    while not (tmp_path / "killed.safetensors").exists() and time.time() < deadline:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed").exists()
    assert start("killed").wait(400) == 0
    whole, resumed = (tmp_path / name / "model.safetensors" for name in ("whole", "killed"))
    assert whole.read_bytes() == resumed.read_bytes()
    steps = [
        [h["step"] for h in json.loads((tmp_path / n / "config.json").read_text())["history"]]
        for n in ("whole", "killed")
    ]
    assert steps[0] == steps[1]


# --- files --------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_save_and_load(tmp_path):
    model = fit()
    images = torch.rand(5, 3, 32, 32)
    model.save_pretrained(tmp_path / "m")
    again = IMM.from_pretrained(tmp_path / "m")
    assert again.get_params() == {**model.get_params(), "device": "auto"}
    assert (again.predict(images) - model.predict(images)).abs().max() < 0.1  # weights are fp16
    assert again.reconstruct(images, images).shape == images.shape
    model.save_pretrained(tmp_path / "d", detector_only=True)
    assert (tmp_path / "d" / "model.safetensors").stat().st_size < (
        tmp_path / "m" / "model.safetensors"
    ).stat().st_size / 1.5
    with pytest.raises(InputError, match="detector only"):
        load(tmp_path / "d").reconstruct(images, images)
    tuned = IMM(**TINY).fit(Squares(), progress=False, start=again)
    assert tuned.history_[-1]["step"] == 6
    IMM(**TINY).fit(Squares(), progress=False, start=load(tmp_path / "d"))
    with pytest.raises(InputError, match="has other shapes"):
        IMM(**TINY | {"n_landmarks": 7}).fit(Squares(), progress=False, start=again)
    with pytest.raises(InputError, match="expected colourisation"):
        Colourisation.from_pretrained(tmp_path / "m")


def test_running_statistics_are_averages_of_each_layers_own_updates():
    often, seldom = (torch.nn.BatchNorm2d(1, momentum=0.01) for _ in range(2))
    seen = {often: [], seldom: []}
    for step in range(8):
        settle_norms(torch.nn.ModuleList([often, seldom]))
        for layer in (often, seldom) if step % 4 == 0 else (often,):
            x = torch.randn(4, 1, 8, 8) + step
            layer(x)
            seen[layer].append(x.mean().item())
    for layer, means in seen.items():
        assert layer.running_mean.item() == pytest.approx(sum(means) / len(means), rel=1e-4)
    often.num_batches_tracked += 1000
    settle_norms(often)
    assert often.momentum == 0.01


def test_unfitted_and_misused():
    with pytest.raises(InputError, match="no weights yet"):
        IMM(**TINY).predict(torch.rand(1, 3, 32, 32))
    with pytest.raises(InputError, match="expected \\(B, 3, H, W\\)"):
        IMM(**TINY).untrained().predict(torch.rand(3, 32, 32))
    with pytest.raises(InputError, match="at least 2"):
        IMM(**TINY).fit(Squares(1), progress=False)


@pytest.mark.parametrize(
    "bad",
    [
        {"n_landmarks": -1},
        {"n_landmarks": 0},
        {"n_landmarks": 2.5},
        {"steps": 0},
        {"convention": "mine"},
        {"loss": "l3"},
        {"equivariance": -1.0},
        {"equivariance": float("nan")},
        {"learning_rate": 0.0},
        {"bottleneck": "fc", "concentration": 1.0},
        {"convention": "paper", "concentration": 1.0},
        {"reconstruct_every": 0},
    ],
    ids=str,
)
def test_bad_hyperparameters(bad):
    with pytest.raises(InputError, match=r"found|needs?"):
        IMM(**bad)


def test_unknown_hyperparameter():
    with pytest.raises(InputError, match="unknown hyperparameter landmarks"):
        IMM().set_params(landmarks=3)
    assert IMM().set_params(n_landmarks=3).n_landmarks == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_that_is_not_there():
    with pytest.raises(InputError, match="no CUDA device"):
        IMM(**TINY, device="cuda").fit(Squares(), progress=False)


# --- perceptual networks ------------------------------------------------------------------------------------------


def test_vgg_layout():
    vgg = perceptual.VGG("vgg16", 64, "torchvision")
    names = dict(vgg.convolutions())
    assert list(names)[:4] == ["conv1_1", "conv1_2", "conv2_1", "conv2_2"]
    assert "conv5_3" not in names
    assert names["conv4_2"].weight.shape == (512, 512, 3, 3)
    taps = vgg(torch.rand(1, 3, 64, 64))
    assert [tuple(t.shape[1:]) for t in taps] == [(64, 64, 64), (128, 32, 32), (256, 16, 16), (512, 8, 8), (512, 4, 4)]
    assert all((t >= 0).all() for t in taps)  # after the rectifier


# Indices of the convolutions in torchvision's `features`, from its source.
TORCHVISION = {
    "vgg16": [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28],
    "vgg19": [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34],
}


@pytest.mark.parametrize("depth", ["vgg16", "vgg19"])
def test_torchvision_weights_from_a_file(tmp_path, depth, monkeypatch):
    monkeypatch.setattr(perceptual.VGG.__init__, "__defaults__", ("vgg16", 64, "grey", False))
    channels = {
        "vgg16": [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6,
        "vgg19": [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8,
    }
    tensors, inputs = {}, 3
    for index, outputs in zip(TORCHVISION[depth], channels[depth], strict=True):
        tensors[f"features.{index}.weight"] = torch.full((outputs, inputs, 3, 3), float(index)).half()
        tensors[f"features.{index}.bias"] = torch.full((outputs,), float(index))
        inputs = outputs
    save_file(tensors, tmp_path / "tv.safetensors")
    vgg = perceptual.load(str(tmp_path / "tv.safetensors"))
    assert vgg.depth == depth
    assert vgg.preprocessing == "torchvision"
    loaded = [int(layer.weight[0, 0, 0, 0]) for _, layer in vgg.convolutions()]
    assert loaded == [i for i in TORCHVISION[depth] if i <= (26 if depth == "vgg16" else 30)]
    del tensors["features.5.weight"]
    save_file(tensors, tmp_path / "broken.safetensors")
    with pytest.raises(InputError, match=r"features\.5\.weight"):
        perceptual.load(str(tmp_path / "broken.safetensors"))


def test_caffe_weights_with_normalisation(tmp_path):
    path, vgg = tmp_path / "vgg.h5", perceptual.VGG("vgg16", 2)
    with h5py.File(path, "w") as file:
        for name, layer in vgg.convolutions():
            file[f"data/{name}/0"], file[f"data/{name}/1"] = (
                layer.weight.detach().numpy(),
                layer.bias.detach().numpy() + 3,
            )
            outputs = layer.out_channels
            for i, value in enumerate(([2.0] * outputs, [8.0] * outputs, [2.0])):
                file[f"data/batch_{name}/{i}"] = value
    loaded = perceptual.VGG("vgg16", 2).load_caffe(path)
    for (_, ours), (_, theirs) in zip(loaded.convolutions(), vgg.convolutions(), strict=True):
        # sigma = sqrt(1e-5 + 8 / 2) = 2, mean = 2 / 2 = 1.
        assert torch.allclose(ours.weight, theirs.weight / 2, rtol=1e-4)
        assert torch.allclose(ours.bias, (theirs.bias + 3 - 1) / 2, rtol=1e-4)


def test_bad_perceptual_weights(tmp_path, monkeypatch):
    (tmp_path / "vgg16.pth").write_bytes(b"x")
    with pytest.raises(InputError, match="pickle"):
        perceptual.load(str(tmp_path / "vgg16.pth"))
    with pytest.raises(InputError, match="found no perceptual network"):
        perceptual.load(str(tmp_path / "none.safetensors"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="connect to the network"):
        perceptual.load("timm/vgg16.tv_in1k")


def test_folding_is_the_same_function():
    torch.manual_seed(0)
    vgg = perceptual.VGG("vgg16", 4, norm=True)
    for _ in range(3):
        vgg.train()(torch.rand(8, 3, 32, 32))
    images = torch.rand(2, 3, 32, 32)
    for ours, theirs in zip(vgg.fold()(images), vgg.eval()(images), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)


def test_colours_by_hand_and_back():
    red, grey, cyan = torch.tensor([1.0, 0, 0]), torch.full((3,), 0.5), torch.tensor([0.2, 0.7, 0.7])
    hue, chroma = colour.hue_chroma(torch.stack([red, grey, cyan])[:, :, None, None])
    assert chroma.flatten().tolist() == pytest.approx([1, 0, 0.5])
    assert hue.flatten()[0].item() == pytest.approx(0)
    assert hue.flatten()[2].item() == pytest.approx(0.5)
    # Logits that are certain of an image's own bins give its colours back, to the width of a bin.
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.25
    hue, chroma = (
        torch.nn.functional.one_hot((v * 32).long(), 32).permute(0, 3, 1, 2) * 99.0 for v in colour.hue_chroma(image)
    )
    assert (colour.colourise(hue, chroma, image.mean(1)) - image).abs().max() < 0.12


def test_colourisation_learns_and_its_trunk_is_kept(tmp_path):
    model = Colourisation(image_size=32, width=4, batch_size=4, steps=30).fit(Squares(), progress=False)
    assert model.history_[-1]["colour"] < 0.9 * model.history_[0]["colour"]
    assert model.predict(torch.rand(1, 3, 32, 32)).shape == (1, 3, 8, 8)
    model.save_pretrained(tmp_path / "vgg")
    again = load(tmp_path / "vgg", kind=Colourisation)
    images = torch.rand(2, 3, 32, 32)
    for ours, theirs in zip(again.trunk()(images), model.trunk()(images), strict=True):
        assert torch.allclose(ours, theirs, atol=0.02 * float(theirs.max()) + 1e-3)
    assert perceptual.load(str(tmp_path / "vgg" / "model.safetensors")).preprocessing == "grey"


class Coloured(Squares):
    """Squares of two kinds, each with its colour."""

    def __getitem__(self, index):
        item = super().__getitem__(index)
        blue = index % 3 == 0
        return item | {"image": item["image"].flip(0) if blue else item["image"], "category": "blue" if blue else "red"}

    @property
    def fingerprint(self):
        return f"coloured{self.length}"


def test_recognition_learns_kinds_and_its_trunk_and_head_are_kept(tmp_path):
    data = Coloured()
    named = recognition.kinds(data)
    assert named == ["squares blue" if i % 3 == 0 else "squares red" for i in range(12)]
    model = Recognition(image_size=32, width=4, batch_size=8, steps=60).fit(data, progress=False)
    assert model.kinds_ == ["squares blue", "squares red"]
    images = torch.stack([data[i]["image"] for i in range(12)])
    assert [model.kinds_[i] for i in model.predict(images)] == named
    model.save_pretrained(tmp_path / "vgg")
    again = load(tmp_path / "vgg", kind=Recognition)
    assert again.kinds_ == model.kinds_
    assert torch.equal(again.predict(images), model.predict(images))
    trunk = perceptual.load(str(tmp_path / "vgg" / "model.safetensors"))
    assert trunk.preprocessing == "torchvision"
    for ours, theirs in zip(trunk(images), model.trunk()(images), strict=True):
        assert torch.allclose(ours, theirs, atol=0.02 * float(theirs.max()) + 1e-3)


def test_recognition_wants_several_kinds():
    with pytest.raises(InputError, match="pictures of one kind"):
        Recognition(image_size=32, width=4, steps=2).fit(Squares(), progress=False)
    with pytest.raises(InputError, match="knows no kinds"):
        Recognition(image_size=32, width=4).untrained()


def test_a_gallery_names_its_kinds():
    from ulm.methods.pocket import Gallery

    parts = [datasets.load(f"procedural:{scene}", "train", 32, 4) for scene in ("toys", "house-digits", "faces-posed")]
    named = recognition.kinds(Gallery(parts))
    assert named[8:] == ["faces-posed"] * 4
    assert named[:4] == [f"toys {int(parts[0][i]['category'])}" for i in range(4)]
    assert named[4:8] == [f"house-digits {parts[1][i]['digit']}" for i in range(4)]


def test_rows_sup_differ_in_the_perceptual_network_alone():
    from ulm.zoo import recipes

    settings = runs.profile("laptop")
    rows = [name for name in recipes.RECIPES if name.startswith("imm-") and name.endswith("-sup")]
    assert len(rows) == 9
    for name in rows:
        plain = name.removesuffix("-sup")
        video = f"{plain}-video"
        twin = video if video in recipes.RECIPES else plain
        ours, theirs = (recipes._model(recipes.RECIPES[one], settings, {}).get_params() for one in (name, twin))
        assert ours.pop("perceptual") == "vgg16-labels"
        assert theirs.pop("perceptual") == "vgg16-colour"
        assert ours == theirs
        assert (recipes.RECIPES[name].start is None) == (recipes.RECIPES[twin].start is None)
