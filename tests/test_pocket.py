"""The pocket pipeline learns, resumes to the same bits, and plain diffusers can read what it saves."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from ulm import datasets, diffusion, zoo
from ulm.datasets import procedural
from ulm.diffusion import pipelines, sampling
from ulm.diffusion.captions import VOCABULARY, captions
from ulm.errors import InputError
from ulm.methods import pocket
from ulm.methods.pocket import Gallery, Pocket
from ulm.runs import generator

# Two levels of an autoencoder, 16 pixels, latents of 8.
SMALL = {
    "latent_size": 8,
    "unet": {"widths": [8, 8, 16, 16], "heads": 2, "groups": 4},
    "vae": {"widths": [8, 16], "layers": 1, "groups": 4, "scaling_factor": 1.0},
    "text": {"width": 16, "layers": 1, "heads": 2, "length": 24},
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ULM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield Gallery([procedural.load(s, "train", 16, 24) for s in ("house-digits", "cats")])


def small(**changes):
    given = {"steps": 8, "autoencoder_steps": 4, "batch_size": 4, "perceptual": "", "precision": "float32"}
    return Pocket(SMALL, **(given | {"device": "cpu"} | changes))


@pytest.fixture(scope="module")
def trained(scenes):
    model = small(steps=100, autoencoder_steps=55, batch_size=8, learning_rate=3e-3, autoencoder_rate=5e-3)
    return model.fit(scenes, log_every=1, progress=False)


def noise_error(model, latents):
    """Squared error of the predicted noise at every twentieth timestep."""
    t = torch.arange(0, 1000, 20)
    eps = torch.randn(len(t), *latents.shape[1:], generator=torch.Generator().manual_seed(0))
    alpha = model.alphas[t][:, None, None, None]
    noisy = alpha.sqrt() * latents[: len(t)] + (1 - alpha).sqrt() * eps
    with torch.no_grad():
        predicted = model.networks["unet"](noisy, t, torch.zeros(len(t), 24, 16)).sample
    return (predicted - eps).square().mean().item()


def test_every_stage_learns(trained, scenes):
    pixels = [entry["pixels"] for entry in trained.history_ if "pixels" in entry]
    assert (len(pixels), sum("noise" in entry for entry in trained.history_)) == (55, 45)
    assert np.mean(pixels[-5:]) < 0.85 * np.mean(pixels[:5])
    images = scenes.images_uint8([*range(48), 0, 1]).float() / 255
    latents = trained.pipeline().latents(images)
    assert noise_error(trained, latents) < 0.85 * noise_error(trained.untrained(), latents)


def test_latents_have_a_deviation_of_one(trained, scenes):
    images = scenes.images_uint8(range(32)).float() / 255
    latents = trained.pipeline().latents(images)
    assert latents.std().item() == pytest.approx(1, abs=0.25)
    redrawn = trained.pipeline().decode(latents)
    assert (redrawn - images).abs().mean() < (images.mean() - images).abs().mean()


def test_a_fresh_unet_hands_its_input_through(scenes):
    """Otherwise thousands of steps pass before large timesteps are of any use."""
    model = small()
    model.initialise()
    unet, z = model.networks["unet"], torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    context = torch.randn(2, 24, 16)
    expected = z / z.square().mean((2, 3), keepdim=True).sqrt()
    for network in (unet, model.networks["ema_unet"]):
        with torch.no_grad():
            assert torch.allclose(network(z, 700, context).sample, expected, atol=1e-3)
    # Nothing of it is out of reach of training: every weight but those behind zeros has a gradient.
    (unet(z, 700, context).sample - 1).square().mean().backward()
    assert unet.conv_out.weight.grad.abs().min() > 0
    assert all(r.conv2.weight.grad.abs().sum() > 0 for r in unet.up_blocks[-1].resnets[-1:])


def test_text_encoder_learns_and_the_autoencoder_rests(scenes):
    before, after = (small(steps=steps, autoencoder_steps=1).fit(scenes, progress=False) for steps in (2, 3))
    same = lambda name: all(  # noqa: E731
        torch.equal(a, b)
        for a, b in zip(before.networks[name].parameters(), after.networks[name].parameters(), strict=True)
    )
    assert same("vae")
    assert not same("text_encoder")
    assert not same("unet")


def test_in_the_end_only_the_decoder_learns(scenes):
    """Its latents stay: the U-Net would not know others."""
    models = [
        small(steps=steps, autoencoder_steps=1, decoder_steps=more, seed=3).fit(scenes, progress=False, log_every=1)
        for steps, more in ((3, 0), (5, 2))
    ]
    ours, theirs = (model.networks.state_dict() for model in models)
    changed = {name.removeprefix("vae.").split(".")[0] for name in ours if not torch.equal(ours[name], theirs[name])}
    assert changed == {"decoder", "post_quant_conv"}
    assert set(models[1].history_[-1]) >= {"pixels"}
    assert "kl" not in models[1].history_[-1]


def test_half_the_side_comes_first(scenes):
    """The same U-Net learns, on three times as many images; the count of images knows."""
    model = small(steps=4, autoencoder_steps=1, half_steps=2)
    model.fit(scenes, progress=False, log_every=1)
    assert [entry["images_seen"] for entry in model.history_] == [4, 16, 28, 32]
    shapes = [model._batch(scenes, step)[0].shape for step in range(4)]
    assert shapes == [(4, 3, 16, 16), (12, 3, 8, 8), (12, 3, 8, 8), (4, 3, 16, 16)]
    # The loop's own order: three batches of it at once.
    full = model._batch(scenes, 3)[0]
    small_first = model._batch(scenes, 1)[0][:4]
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(full, 2), small_first)
    assert all(model.history_[i]["noise"] > 0 for i in (1, 2, 3))


class Killed(Exception):
    pass


@pytest.mark.parametrize("at", [1, 3, 5])
def test_resuming_gives_the_same_bits(scenes, tmp_path, at):
    options = {"progress": False, "log_every": 1}
    model = lambda: small(steps=6, autoencoder_steps=2, half_steps=1, decoder_steps=2)  # noqa: E731
    whole = model().fit(scenes, **options)

    def kill(model, step):
        if step == at + 1:
            raise Killed
        return {}

    file = tmp_path / "pocket.safetensors"
    with pytest.raises(Killed):
        model().fit(scenes, checkpoint=file, checkpoint_seconds=-1.0, monitor=kill, **options)
    resumed = model().fit(scenes, checkpoint=file, **options)
    assert resumed.checksum() == whole.checksum()
    assert [e["step"] for e in resumed.history_] == [e["step"] for e in whole.history_]
    with pytest.raises(InputError, match="other settings"):
        small(min_snr=5.0).fit(scenes, checkpoint=file, progress=False)


def test_plain_diffusers_reads_the_folder(trained, tmp_path):
    from diffusers import StableDiffusionPipeline

    folder = tmp_path / "made"
    trained.save_pretrained(folder, card={"data": "digits"})
    with pipelines.quiet():
        plain = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    plain.set_progress_bar_config(disable=True)
    size = trained.image_size
    image = plain("a black cat", num_inference_steps=2, height=size, width=size).images[0]
    assert image.size == (size, size)
    about = json.loads((folder / "config.json").read_text())
    assert about["card"] == {"data": "digits"}
    zoo.write_card(folder)
    assert zoo.verify(folder) == about
    (row,) = zoo.list(tmp_path)
    assert (row["name"], row["method"]) == ("made", "pocket")
    assert 0 < row["megabytes"] < 1
    assert diffusion.load(str(folder), "cpu", "float32").image_size == size


def test_a_saved_model_is_trained_further(trained, scenes, tmp_path):
    folder = tmp_path / "made"
    trained.save_pretrained(folder)
    start = Pocket.from_pretrained(folder, "cpu")
    assert start.get_params() == trained.get_params()
    assert torch.allclose(start.sample(["a cat"], 2), trained.sample(["a cat"], 2), atol=0.05)
    more = small(steps=2, autoencoder_steps=0).fit(scenes, start=start, progress=False)
    kept = start.networks["scaling"].factor
    assert torch.equal(more.networks["scaling"].factor, kept)
    assert torch.equal(more.networks["vae"].encoder.conv_in.weight, start.networks["vae"].encoder.conv_in.weight)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"0")
    with pytest.raises(InputError, match="damaged"):
        Pocket.from_pretrained(folder, "cpu")
    with pytest.raises(InputError, match=r"config\.json"):
        Pocket.from_pretrained(tmp_path)


def test_samples(trained):
    pictures = trained.sample(["a cat", "the digit 4"], steps=3, guidance=2.0, seed=1)
    assert pictures.shape == (2, 3, 16, 16)
    assert pictures.min() >= 0
    assert pictures.max() <= 1
    alone = sampling.sample(trained.pipeline(), ["a cat"], 3, 2.0, 1, "float32")
    assert torch.allclose(pictures[:1], alone, atol=1e-4)
    assert not torch.allclose(pictures[:1], trained.sample(["a cat"], 3, 2.0, 2), atol=1e-3)
    with pytest.raises(InputError, match="0 text"):
        trained.sample([])


def test_ddim_of_plain_diffusers_gives_the_same_picture(trained):
    from diffusers import StableDiffusionPipeline

    made = trained.pipeline()
    parts = {"tokenizer": made.tokenizer, "scheduler": made.scheduler, **made.networks}
    plain = StableDiffusionPipeline(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    plain.set_progress_bar_config(disable=True)
    noise = torch.randn(1, 4, 8, 8, generator=generator(torch.device("cpu"), 0, 0))
    theirs = plain("a cat", 16, 16, 4, guidance_scale=3.0, latents=noise, output_type="pt").images
    assert torch.allclose(theirs, sampling.sample(made, ["a cat"], 4, 3.0, 0, "float32"), atol=1e-4)


def test_captions_have_gaps(scenes):
    model, rng = small(empty=0.25, drop_part=0.3), np.random.default_rng(0)
    made = [model._gap("a cat with green eyes, a pink nose, looking left", rng) for _ in range(400)]
    assert 60 < made.count("") < 140
    assert all(text == "" or text.startswith("a cat with green eyes") for text in made)
    assert 0.6 < np.mean(["nose" in text for text in made if text]) < 0.8
    model = small(empty=0.0, drop_part=0.0)
    assert model._gap("a, b", rng) == "a, b"


def test_weights_of_timesteps():
    model = small(steps=8, half_steps=2, min_snr=5.0, most=20.0)
    model.initialise()
    half, full = model.autoencoder_steps, model.autoencoder_steps + 2
    t = torch.tensor([0, 200, 600, 999])
    snr = (model.alphas[t] / (1 - model.alphas[t])).tolist()
    assert snr[2] < 1 < snr[1] < 5
    assert model._weights(t, half).tolist() == pytest.approx([5 / snr[0], 1, 1 / snr[2], 20])
    assert model._weights(t, full).tolist() == pytest.approx([1, 1, 1 / snr[2], 20])
    model.min_snr, model.most = 0.0, 1.0
    assert (model._weights(t, half) == 1).all()


def test_more_noise_at_half_the_side():
    model = small(steps=8, half_steps=2, noisy=0.5)
    model.initialise()
    draw = lambda step: model._draw_timesteps(4000, step, torch.Generator().manual_seed(0))  # noqa: E731
    half, full = draw(model.autoencoder_steps), draw(model.autoencoder_steps + 2)
    assert (half >= 500).float().mean().item() == pytest.approx(0.75, abs=0.03)
    assert (full >= 500).float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert half.min() < 10
    assert half.max() > 990


def test_perceptual_term(scenes):
    model = small(perceptual="vgg16-colour", steps=2, autoencoder_steps=1).fit(scenes, log_every=1, progress=False)
    assert 0 < model.history_[0]["perceptual"] < 4
    images = torch.rand(2, 3, 32, 32)
    assert pocket.perceptual_distance(model.judge[0], images, images) == 0
    assert not any("judge" in name for name in model.networks.state_dict())


def test_bfloat16_autocast_trains(scenes):
    model = small(precision="bfloat16", steps=3, autoencoder_steps=2).fit(scenes, log_every=1, progress=False)
    assert np.isfinite([v for e in model.history_ for v in e.values()]).all()


def test_a_gallery_joins_data_sets(scenes):
    assert len(scenes) == 48
    assert scenes.texts == [t for part in scenes.parts for t in captions(part)]
    images = scenes.images_uint8([0, 47, 23])
    for picture, (part, place) in zip(images, ((0, 0), (1, 23), (0, 23)), strict=True):
        assert torch.equal(picture, scenes.parts[part].images_uint8([place])[0])
    assert scenes[-1]["caption"] == scenes.texts[47]
    assert scenes.fingerprint != Gallery(scenes.parts, ["a"] * 48).fingerprint
    with pytest.raises(InputError, match="captions for 48 images"):
        Gallery(scenes.parts, ["a"])
    with pytest.raises(InputError, match="sizes"):
        Gallery([])


def test_a_folder_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.setenv("ULM_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for i in range(6):
        Image.fromarray(rng.integers(0, 255, (20, 20, 3), np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "0.txt").write_text("my zebra, on grass")
    model = small(steps=3, autoencoder_steps=1).fit(datasets.load(f"folder:{tmp_path}", "all", 16), progress=False)
    assert {"my", "zebra", "grass"} < set(model.vocabulary_)
    assert "zebra</w>" in model.tokenizer_.get_vocab()
    assert model.sample(["my zebra"], 1).shape == (1, 3, 16, 16)


def test_every_word_of_the_scenes_is_one_token():
    made = pipelines.build("pocket", vocabulary=VOCABULARY, device="meta")
    assert all(len(made.tokenizer(word).input_ids) == 3 for word in VOCABULARY)
    assert max(len(made.tokenizer(t).input_ids) for t in captions(procedural.load("birds", "test", 16, 40))) <= 40


def test_the_shipped_size_is_as_said():
    made = pipelines.build("pocket", vocabulary=VOCABULARY, device="meta")
    counts = {name: sum(p.numel() for p in net.parameters()) for name, net in made.networks.items()}
    assert 8e6 < counts["unet"] < 25e6
    assert 2 * sum(counts.values()) < 60e6
    assert (made.image_size, made.latent_size) == (64, 32)
    latents, context = (torch.zeros(1, *shape, device="meta") for shape in ((4, 32, 32), (40, 128)))
    with FlopCounterMode(display=False) as counter:
        made.unet(latents, torch.zeros(1, device="meta"), context)
    # Two operations a multiply-accumulate.
    assert counter.get_total_flops() / 2 == pytest.approx(1.34e9, rel=0.01)


@pytest.mark.parametrize(
    ("bad", "word"),
    [({"config": "huge"}, "config"), ({"autoencoder_steps": 9}, "autoencoder_steps"), ({"empty": 1.0}, "empty"),
     ({"decoder_steps": 4}, "decoder_steps=4"), ({"half_steps": 4}, "half_steps=4"), ({"decoder_steps": -1}, "decoder"),
     ({"noisy": 1.0}, "noisy"), ({"most": 0.5}, "most"), ({"min_snr": -1.0}, "min_snr"),
     ({"precision": "half"}, "precision"), ({"batch_size": 0}, "batch_size")],
)  # fmt: skip
def test_errors(bad, word):
    with pytest.raises(InputError, match=word):
        Pocket(**({"steps": 8, "autoencoder_steps": 4} | bad))


def test_drawing_before_training():
    with pytest.raises(InputError, match="no weights yet"):
        small().sample(["a cat"])


def test_the_zoo_trains_and_ships_one(monkeypatch, tmp_path):
    from ulm.zoo import recipes

    monkeypatch.setenv("ULM_CACHE", str(tmp_path / "cache"))
    recipe = recipes.Recipe("pocket", {"procedural:house-digits": 12, "procedural:cats": 8})
    monkeypatch.setattr(recipes, "RECIPES", {"pocket": recipe})
    made = recipes.train("pocket", "smoke", out=tmp_path / "made", device="cpu", progress=False)
    again = recipes.train("pocket", "smoke", out=tmp_path / "made", device="cpu", progress=False)
    folder = recipes.ship("pocket", tmp_path / "made", tmp_path / "shipped")
    card = zoo.verify(folder)["card"]
    assert card["data"] == "procedural:house-digits + procedural:cats"
    assert card["n_images"] == 20
    assert card["fingerprint"] == recipe.load({"data": 96}, 32).fingerprint
    assert "procedural:cats" in (folder / "card.md").read_text()
    shipped = Pocket.from_pretrained(folder, "cpu")
    for name in ("vae", "unet", "text_encoder"):
        ours, theirs = (dict(m.pipeline().networks)[name].state_dict() for m in (again, shipped))
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name
    assert shipped.history_ == made.history_


def test_the_command_line_trains_one_on_a_folder(monkeypatch, tmp_path):
    from typer.testing import CliRunner

    from ulm.cli import app

    monkeypatch.setenv("ULM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for i in range(5):
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(tmp_path / "photos" / f"{i}.png")
    out = tmp_path / "made"
    command = ["fit", "--method", "pocket", "--profile", "smoke", "--data", f"folder:{tmp_path / 'photos'}"]
    result = CliRunner().invoke(app, [*command, "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert zoo.verify(out)["card"]["n_images"] == 5
    assert diffusion.load(str(out), "cpu").image_size == 32
    result = CliRunner().invoke(app, ["predict", str(out), str(tmp_path / "photos")])
    assert result.exit_code != 0
    assert "pocket" in result.output
