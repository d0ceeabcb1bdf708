"""The pocket pipeline learns, resumes to the same bits, and plain diffusers can read what it saves."""

from __future__ import annotations

import copy
import json
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from ulm import datasets, diffusion, zoo
from ulm.datasets import procedural
from ulm.diffusion import pipelines, sampling, taps
from ulm.diffusion.captions import VOCABULARY, captions
from ulm.diffusion.phrases import Phrases
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
    given = {"steps": 8, "text_steps": 1, "autoencoder_steps": 3, "batch_size": 4, "perceptual": "",
             "precision": "float32"}  # fmt: skip
    return Pocket(SMALL, **(given | {"device": "cpu"} | changes))


@pytest.fixture(scope="module")
def trained(scenes):
    model = small(steps=140, text_steps=40, autoencoder_steps=55, batch_size=8, learning_rate=3e-3,
                  autoencoder_rate=5e-3, text_rate=1e-2)  # fmt: skip
    return model.fit(scenes, log_every=1, progress=False)


def latents_error(model, latents):
    """Squared error of the predicted clean latents at every twentieth timestep."""
    t = torch.arange(0, 1000, 20)
    eps = torch.randn(len(t), *latents.shape[1:], generator=torch.Generator().manual_seed(0))
    alpha = model.alphas[t][:, None, None, None]
    noisy = alpha.sqrt() * latents[: len(t)] + (1 - alpha).sqrt() * eps
    context = model.networks["text_encoder"](model._tokens([""] * len(t))).last_hidden_state
    with torch.no_grad():
        predicted = model.networks["unet"](noisy, t, context).sample
    return (predicted - latents[: len(t)]).square().mean().item()


def test_every_stage_learns(trained, scenes):
    key = lambda name: [entry[name] for entry in trained.history_ if name in entry]  # noqa: E731
    phrases, pixels = key("phrases"), key("pixels")
    assert (len(phrases), len(pixels), len(key("latents"))) == (40, 55, 45)
    assert np.mean(phrases[-5:]) < 0.85 * np.mean(phrases[:5])
    assert np.mean(pixels[-5:]) < 0.85 * np.mean(pixels[:5])
    images = scenes.images_uint8([*range(48), 0, 1]).float() / 255
    latents = trained.pipeline().latents(images)
    fresh = trained.untrained()
    assert latents_error(trained, latents) < 0.9 * latents_error(fresh, latents)
    # No captions are images.
    assert [e["images_seen"] for e in trained.history_ if e["step"] in (1, 40, 41, 140)] == [0, 0, 8, 800]


def test_latents_have_a_deviation_of_one(trained, scenes):
    images = scenes.images_uint8(range(32)).float() / 255
    latents = trained.pipeline().latents(images)
    assert latents.std().item() == pytest.approx(1, abs=0.25)
    redrawn = trained.pipeline().decode(latents)
    assert (redrawn - images).abs().mean() < (images.mean() - images).abs().mean()


def test_what_fresh_networks_start_with(scenes):
    """A U-Net that predicts nothing, words that differ, attention that is not flat."""
    model = small(text_steps=0)
    model.initialise()
    unet, random = model.networks["unet"], torch.Generator().manual_seed(0)
    z, context = torch.randn(2, 4, 8, 8, generator=random), torch.randn(2, 24, 16, generator=random)
    for network in (unet, model.networks["ema_unet"]):
        assert (network(z, 700, context).sample == 0).all()
    with taps.attention_taps(unet) as caught:
        unet(z, 700, context)
    for layer in taps.LAYERS:
        scores = caught.queries[layer] @ caught.keys[layer].mT / caught.queries[layer].shape[-1] ** 0.5
        assert 0.3 < scores.std(-1).mean() < 3
    embeddings = model.networks["text_encoder"].get_input_embeddings().weight
    assert embeddings.std().item() == pytest.approx(1, abs=0.05)
    # Yet it learns from the first step on.
    trained = small(steps=2, text_steps=0, autoencoder_steps=0).fit(scenes, progress=False)
    assert trained.networks["unet"].conv_out.weight.abs().max() > 0


def test_tokens_that_say_nothing_are_not_seen_at_first():
    model = small(text_steps=0)
    model.initialise()
    nothing = model.phrases.nothing
    for _, attention in taps.cross_attentions(model.networks["unet"]):
        for layer in (attention.to_k, attention.to_v):
            assert (layer.weight @ nothing).abs().max() < 1e-5
            assert layer.weight.abs().max() > 1e-3


def test_a_shrunk_picture_is_lightness_and_two_differences():
    grey = torch.tensor([0.0, 0.5, 1.0])[:, None, None, None].expand(3, 3, 6, 6)
    lightness, colours = pocket.thumbnail(grey, 3, 0.25).split((1, 2), dim=1)
    assert lightness.shape == (3, 1, 3, 3)
    torch.testing.assert_close(lightness, torch.tensor([-1.0, 0.0, 1.0])[:, None, None, None].expand(3, 1, 3, 3))
    assert colours.abs().max() < 1e-6
    # Pure red, green and blue: (1, -1, -1) in [-1, 1], and so on.
    pure = torch.eye(3)[:, :, None, None].expand(3, 3, 4, 4)
    for colour in (0.25, 1.0):
        found = pocket.thumbnail(pure, 2, colour)[:, :, 0, 0]
        expected = [[-1 / 3, colour, -colour / 2], [-1 / 3, 0, colour], [-1 / 3, -colour, -colour / 2]]
        torch.testing.assert_close(found, torch.tensor(expected))
    # Each place is the mean of its pixels.
    halves = torch.zeros(1, 3, 4, 4)
    halves[..., 2:] = 1
    assert pocket.thumbnail(halves, 2, 0.25)[0, 0].tolist() == [[-1, 1], [-1, 1]]
    assert pocket.thumbnail(halves, 1, 0.25)[0, :, 0, 0].tolist() == [0, 0, 0]


def test_latents_begin_with_the_picture_itself(trained, scenes):
    images = scenes.images_uint8(range(32)).float() / 255
    shrunk = pocket.thumbnail(images, 8, trained.colour)
    free = small(steps=97, text_steps=0, autoencoder_steps=95, batch_size=8, autoencoder_rate=5e-3, thumbnail_weight=0)
    free.fit(scenes, progress=False)
    assert "thumbnail" not in free.history_[0]
    apart = []
    for model in (trained, free):
        pipeline = model.pipeline()
        latents = pipeline.latents(images)[:, :3] / pipeline.vae.config.scaling_factor
        apart.append((latents - shrunk).abs().mean().item())
    assert apart[0] < 0.6 * apart[1]


def test_queries_and_keys_learn_at_a_rate_of_their_own(scenes):
    def moved(share):
        model = small(steps=4, text_steps=0, autoencoder_steps=0, attention_rate=share)
        before = model.untrained().networks["unet"].state_dict()
        after = model.fit(scenes, progress=False).networks["unet"].state_dict()
        change = {"looks": 0.0, "others": 0.0}
        for name, weight in after.items():
            kind = "looks" if "attn2.to_q" in name or "attn2.to_k" in name else "others"
            change[kind] = max(change[kind], (weight - before[name]).abs().max().item())
        return change

    slow, fast = moved(0.01), moved(1.0)
    assert slow["looks"] < 0.05 * fast["looks"]
    assert slow["others"] > 0.5 * fast["others"]


def same(first, second):
    """Whether two networks have equal weights, bit for bit."""
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def after_steps(scenes, **changes):
    """Networks of one run after each of its steps, those before the first one included."""
    kept = {}

    def keep(model, step):
        kept[step] = copy.deepcopy(model.networks)
        return {}

    model = small(**changes)
    model.fit(scenes, log_every=1, monitor=keep, progress=False)
    return model, [model.untrained().networks, *(kept[step] for step in sorted(kept))]


def test_each_stage_trains_its_network_and_the_others_rest(scenes):
    model, states = after_steps(scenes, steps=10, text_steps=3, autoencoder_steps=3, decoder_steps=2)
    trains = {"text": {"text_encoder"}, "autoencoder": {"vae"}, "denoiser": {"unet", "ema_unet"}, "decoder": {"vae"}}
    for step, (before, after) in enumerate(pairwise(states)):
        changed = {n for n in ("text_encoder", "vae", "unet", "ema_unet") if not same(before[n], after[n])}
        assert changed == trains[model._stage(step)[0]], step
        assert after["scaling"].factor == (0 if step < 6 else states[-1]["scaling"].factor)


def test_stages_follow_each_other():
    model = small(steps=10, text_steps=2, autoencoder_steps=3, decoder_steps=1)
    assert [model._stage(step) for step in (0, 1, 2, 4, 5, 8, 9)] == [
        ("text", 0, 2),
        ("text", 1, 2),
        ("autoencoder", 0, 3),
        ("autoencoder", 2, 3),
        ("denoiser", 0, 4),
        ("denoiser", 3, 4),
        ("decoder", 0, 1),
    ]
    assert small(steps=2, text_steps=0, autoencoder_steps=0)._stage(0) == ("denoiser", 0, 2)
    with pytest.raises(IndexError):
        model._stage(10)


def test_batches_are_what_a_stage_needs(scenes):
    model = small(steps=8, text_steps=2, autoencoder_steps=2, decoder_steps=2, empty=0.0, drop_part=0.0)
    model.initialise()
    images, tokens = model._batch(scenes, 1)
    assert images.numel() == 0
    # The captions of the batches 4 to 7 of the loop's own order.
    indices = torch.cat([model._indices(scenes, step)[0] for step in range(4, 8)])
    assert torch.equal(tokens, model._tokens([scenes.texts[i] for i in indices]))
    for step, captioned in ((2, False), (4, True), (7, False)):
        images, tokens = model._batch(scenes, step)
        assert images.shape == (4, 3, 16, 16)
        assert (tokens is not None) == captioned
    _, tokens = model._batch(scenes, 4)
    assert torch.equal(tokens, model._tokens([scenes.texts[i] for i in model._indices(scenes, 4)[0]]))


def test_half_the_side_comes_first(scenes):
    """The same U-Net learns, on four times as many images; the count of images knows."""
    model = small(steps=5, text_steps=1, autoencoder_steps=1, half_steps=2)
    model.fit(scenes, progress=False, log_every=1)
    assert [entry["images_seen"] for entry in model.history_] == [0, 4, 20, 36, 40]
    batches = [model._batch(scenes, step) for step in range(1, 5)]
    shapes = [images.shape for images, _ in batches]
    assert shapes == [(4, 3, 16, 16), (16, 3, 8, 8), (16, 3, 8, 8), (4, 3, 16, 16)]
    indices = torch.cat([model._indices(scenes, batch)[0] for batch in range(8, 12)])
    full = model._prepare(scenes.images_uint8(indices))
    assert torch.allclose(batches[1][0], F.avg_pool2d(full, 2))
    assert len(batches[1][1]) == 16


# ------------------------------------------------------------------------------------------------------- phrases


def test_targets_of_phrases():
    """Two phrases: each is said at the sign that ends it, by its own words, and nothing is said elsewhere."""
    words = pipelines.tokenizer(VOCABULARY, 14)
    phrases = Phrases(words, 32, seed=3)
    tokens = words(["a face with red hair, the left eye"], padding="max_length", max_length=14, return_tensors="pt")
    tokens = tokens.input_ids
    named = [token.removesuffix("</w>") for token in words.convert_ids_to_tokens(tokens[0])]
    assert named[1:9] == ["a", "face", "with", "red", "hair", ",", "the", "left"]
    targets, ends = phrases.targets(tokens)
    # 'with', the comma and the first end of the text; not the ends that pad.
    assert ends[0].nonzero()[:, 0].tolist() == [3, 6, 10]
    vector = lambda word: phrases.words[words.get_vocab()[f"{word}</w>"]]  # noqa: E731
    for place, said in ((3, ["face"]), (6, ["red", "hair"]), (10, ["left", "eye"])):
        expected = F.layer_norm(sum(vector(word) for word in said), (32,))
        torch.testing.assert_close(targets[0, place], expected, atol=1e-5, rtol=1e-5)
    assert (targets[0, ~ends[0]] == phrases.nothing).all()
    assert all((vector(word) == 0).all() for word in ("a", "the", "with", ","))
    assert vector("red").norm() > 0
    # Whoever says just that has no loss; a slip at an end counts by the number of ends alone.
    assert phrases.loss(targets, tokens) == 0
    slip = targets.clone()
    slip[0, 6] += 1
    assert phrases.loss(slip, tokens).item() == pytest.approx(1 / 3)
    slip = targets.clone()
    slip[0, 0] += 1
    assert phrases.loss(slip, tokens).item() == pytest.approx(1 / 11)


def test_targets_of_phrases_that_say_nothing():
    words = pipelines.tokenizer(VOCABULARY, 10)
    phrases, other = (Phrases(words, 16, seed) for seed in (0, 1))
    padded = {"padding": "max_length", "max_length": 10, "return_tensors": "pt"}
    tokens = words(["", "a, the, red", "red red", "red"], **padded).input_ids
    targets, ends = phrases.targets(tokens)
    assert ends.sum(1).tolist() == [0, 1, 1, 1]
    assert (targets[0] == phrases.nothing).all()
    # As of photographs without captions.
    assert phrases.loss(targets[:1], tokens[:1]) == 0
    torch.testing.assert_close(targets[1][ends[1]], targets[3][ends[3]], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(targets.mean(-1), torch.zeros(4, 10), atol=1e-5, rtol=0)
    assert torch.equal(targets, Phrases(words, 16, 0).targets(tokens)[0])
    assert not torch.allclose(targets, other.targets(tokens)[0])
    # Texts are read one by one: neighbours in a batch change nothing.
    torch.testing.assert_close(targets[2:3], phrases.targets(tokens[2:3])[0])


def test_text_encoder_learns_phrases(trained, scenes):
    """On captions that it has read, it comes closer to what it is to say at commas and elsewhere."""
    tokens = trained._tokens(scenes.texts)
    targets, ends = trained.phrases.targets(tokens)
    errors = []
    for model in (trained, trained.untrained()):
        with torch.no_grad():
            said = model.networks["text_encoder"](tokens).last_hidden_state
        wrong = (said - targets).square().mean(-1)
        errors.append((wrong[ends].mean(), wrong[~ends].mean()))
    (at_ends, elsewhere), (fresh_ends, fresh_elsewhere) = errors
    assert at_ends < 0.9 * fresh_ends
    assert elsewhere < 0.5 * fresh_elsewhere


# ----------------------------------------------------------------------------------------------- loss of the U-Net


def test_loss_and_timesteps_of_a_step(scenes):
    """One step by hand: each channel's error in units of its deviation, weighted by its signal-to-noise ratio."""
    # With a high rate, so that the U-Net predicts something after its first step.
    model, states = after_steps(scenes, steps=4, text_steps=1, autoencoder_steps=1, learning_rate=0.02, batch_size=8)
    images, tokens = model._batch(scenes, 3)
    before, random = states[3], generator(torch.device("cpu"), model.seed, 5, 3)
    with torch.no_grad():
        mean, log_variance = before["vae"].quant_conv(before["vae"].encoder(2 * images - 1)).chunk(2, 1)
        drawn = torch.randn(mean.shape, generator=random)
        z = before["scaling"].factor * (mean + (log_variance / 2).exp() * drawn)
        eps = torch.randn(z.shape, generator=random)
        t = 1000 * (torch.randperm(8, generator=random) + torch.rand(8, generator=random)) / 8
        # One of each eighth.
        assert (t // 125).sort().values.tolist() == list(range(8))
        t = t.long()
        noisy = model.scheduler_.add_noise(z, eps, t)
        context = before["text_encoder"](tokens).last_hidden_state
        predicted = before["unet"](noisy, t, context).sample
    assert predicted.abs().mean() > 0.05
    losses, ratios = [], []
    for i, level in enumerate(t.tolist()):
        alpha = model.alphas[level].item()
        for channel, d in enumerate(before["scaling"].deviations.tolist()):
            d = max(d, 0.1)
            ratios.append(d**2 * alpha / (1 - alpha))
            error = (predicted[i, channel] - z[i, channel]).square().mean().item()
            losses.append((1 + min(ratios[-1], 5)) * error / d**2)
    assert min(ratios) < 5 < max(ratios)
    assert model.history_[3]["latents"] == pytest.approx(np.mean(losses), rel=1e-4)
    # A step of the shipped scheduler takes what the U-Net says for the picture.
    assert model.pipeline().scheduler.config.prediction_type == "sample"
    model.scheduler_.set_timesteps(10)
    found = model.scheduler_.step(z[:1], int(t[0]), noisy[:1]).pred_original_sample
    torch.testing.assert_close(found, z[:1], atol=1e-6, rtol=0)


def test_deviations_of_channels_are_measured_once(scenes):
    """On the U-Net's first batch, of what it is shown; a faint channel does not count for more than a tenth."""
    model, states = after_steps(scenes, steps=5, text_steps=1, autoencoder_steps=1, batch_size=8)
    images, _ = model._batch(scenes, 2)
    with torch.no_grad():
        latents = states[2]["vae"].encode(2 * images - 1).latent_dist.mean
    for step, state in enumerate(states):
        found = state["scaling"].deviations
        if step < 3:
            assert (found == 0).all()
        else:
            torch.testing.assert_close(found, (latents / latents.std()).std((0, 2, 3)), atol=1e-4, rtol=1e-4)
    # With a fresh U-Net, which predicts nothing: the loss of the latents alone, in units of 0.1.
    faint = small(text_steps=0, autoencoder_steps=0)
    faint.initialise()
    scaling = faint.networks["scaling"]
    scaling.factor.fill_(1e-3)
    scaling.deviations.fill_(1e-9)
    faint.optimisers = faint._optimisers()
    images, tokens = faint._batch(scenes, 0)
    latents = faint._drawn_latents(images, generator(torch.device("cpu"), faint.seed, 5, 0)) * 1e-3
    loss = faint._denoiser_step(images, tokens, 0, 0.0)["latents"].item()
    assert (latents / 0.1).square().mean().item() < loss < 6 * (latents / 0.1).square().mean().item()


def test_in_the_end_only_the_decoder_learns(scenes):
    """Its latents stay: the U-Net would not know others."""
    models = [
        small(steps=steps, text_steps=0, autoencoder_steps=1, decoder_steps=more, seed=3).fit(
            scenes, progress=False, log_every=1
        )
        for steps, more in ((3, 0), (5, 2))
    ]
    ours, theirs = (model.networks.state_dict() for model in models)
    changed = {name.removeprefix("vae.").split(".")[0] for name in ours if not torch.equal(ours[name], theirs[name])}
    assert changed == {"decoder", "post_quant_conv"}
    assert set(models[1].history_[-1]) >= {"pixels"}
    assert "kl" not in models[1].history_[-1]


class Killed(Exception):
    pass


@pytest.mark.parametrize("at", [1, 3, 5, 7])
def test_resuming_gives_the_same_bits(scenes, tmp_path, at):
    options = {"progress": False, "log_every": 1}
    """Killed in each of the four stages."""
    model = lambda: small(steps=8, text_steps=2, autoencoder_steps=2, decoder_steps=2)  # noqa: E731
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
        small(text_rate=0.1).fit(scenes, checkpoint=file, progress=False)


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
    more = small(steps=2, text_steps=0, autoencoder_steps=0).fit(scenes, start=start, progress=False)
    assert torch.equal(more.networks["scaling"].factor, start.networks["scaling"].factor)
    assert all(same(more.networks[name], start.networks[name]) for name in ("vae", "text_encoder"))
    assert not same(more.networks["unet"], start.networks["unet"])
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


def test_perceptual_term(scenes):
    model = small(perceptual="vgg16-colour", steps=2, text_steps=0, autoencoder_steps=1).fit(
        scenes, log_every=1, progress=False
    )
    assert 0 < model.history_[0]["perceptual"] < 4
    images = torch.rand(2, 3, 32, 32)
    assert pocket.perceptual_distance(model.judge[0], images, images) == 0
    assert not any("judge" in name for name in model.networks.state_dict())


def test_bfloat16_autocast_trains(scenes):
    model = small(precision="bfloat16", steps=4, autoencoder_steps=2).fit(scenes, log_every=1, progress=False)
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
    model = small(steps=4, text_steps=1, autoencoder_steps=1).fit(
        datasets.load(f"folder:{tmp_path}", "all", 16), progress=False
    )
    assert {"my", "zebra", "grass"} < set(model.vocabulary_)
    assert "zebra</w>" in model.tokenizer_.get_vocab()
    assert model.sample(["my zebra"], 1).shape == (1, 3, 16, 16)


def test_every_word_of_the_scenes_is_one_token():
    made = pipelines.build("pocket", vocabulary=VOCABULARY, device="meta")
    assert all(len(made.tokenizer(word).input_ids) == 3 for word in VOCABULARY)
    assert made.text_encoder.config.max_position_embeddings == made.tokenizer.model_max_length == 60
    for scene in ("birds", "painted-faces", "fashion"):
        assert max(len(made.tokenizer(t).input_ids) for t in captions(procedural.load(scene, "test", 16, 40))) < 60


def test_the_shipped_size_is_as_said():
    made = pipelines.build("pocket", vocabulary=VOCABULARY, device="meta")
    counts = {name: sum(p.numel() for p in net.parameters()) for name, net in made.networks.items()}
    assert 8e6 < counts["unet"] < 25e6
    assert 2 * sum(counts.values()) < 60e6
    assert (made.image_size, made.latent_size) == (64, 16)
    latents, context = (torch.zeros(1, *shape, device="meta") for shape in ((4, 16, 16), (60, 128)))
    with FlopCounterMode(display=False) as counter:
        made.unet(latents, torch.zeros(1, device="meta"), context)
    # Two operations a multiply-accumulate.
    assert counter.get_total_flops() / 2 == pytest.approx(0.282e9, rel=0.01)


@pytest.mark.parametrize(
    ("bad", "word"),
    [({"config": "huge"}, "config"), ({"autoencoder_steps": 9}, "autoencoder_steps"), ({"empty": 1.0}, "empty"),
     ({"attention_rate": 0}, "attention_rate"),
     ({"decoder_steps": 3}, "decoder_steps=3"), ({"decoder_steps": -1}, "decoder"),
     ({"text_steps": 4}, "text_steps=4"), ({"half_steps": 3}, "half_steps=3"),
     ({"text_steps": -1}, "text_steps=-1"), ({"drop_part": -0.1}, "drop_part"),
     ({"precision": "half"}, "precision"), ({"batch_size": 0}, "batch_size"),
     ({"attention_rate": 1.5}, "attention_rate")],
)  # fmt: skip
def test_errors(bad, word):
    with pytest.raises(InputError, match=word):
        Pocket(**({"steps": 8, "text_steps": 1, "autoencoder_steps": 4} | bad))


def test_a_loss_of_nothing_learnt_is_told(scenes):
    model = small(steps=204, text_steps=1, autoencoder_steps=1)
    model.initialise()
    # What an error of 1 in units of the deviations costs, over all timesteps.
    nothing = model._weights(model.alphas[:, None, None, None])[1].mean().item()
    for name, share in (("too high", 0.98), ("fine", 0.5)):
        model.history_ = [{"step": 1, "phrases": 2.0}, *[{"step": 200, "latents": share * nothing}] * 5]
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            model._finish(scenes)
        assert [w.category for w in found] == ([RuntimeWarning] if name == "too high" else [])


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
