"""Pipelines of Stable Diffusion's layout: loading, taps against direct computations, inversion, counted operations."""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType, SimpleNamespace

import diffusers
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ulm import zoo
from ulm.diffusion import Pipeline, attention_maps, build, invert, load, pipelines, resnet_features, taps
from ulm.diffusion.inversion import inversion_steps, timesteps
from ulm.errors import InputError

WORDS = ("red", "hair", "chair", "blue", "beak", "looking", "left", "a", "ha", "air")


@pytest.fixture(scope="module")
def tiny() -> Pipeline:
    return build("tiny", vocabulary=WORDS)


@pytest.fixture(scope="module")
def full() -> Pipeline:
    """Stable Diffusion 1.5's published configuration, shapes only."""
    return build("sd15", device="meta")


@pytest.fixture(scope="module")
def saved(tiny: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny.save(folder)
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def _inputs(pipeline: Pipeline, batch: int = 1, n: int = 9, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Latents, and tokens so large that attention is far from even."""
    generator = torch.Generator().manual_seed(seed)
    size = pipeline.latent_size
    latents = torch.randn(batch, 4, size, size, generator=generator)
    return latents, 10 * torch.randn(n, pipeline.token_dim, generator=generator)


def _naive(pipeline: Pipeline, latents: Tensor, t: int, tokens: Tensor, size: int, layers: tuple[int, ...]) -> Tensor:
    """The release's way: hidden states upsampled before to_q, all pixels at once, the whole U-Net; one map a layer."""
    hidden: dict[int, Tensor] = {}
    modules = [module for _, module in taps.cross_attentions(pipeline.unet)]

    def keep(layer: int) -> object:
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
            hidden[layer] = args[0] if args else kwargs["hidden_states"]

        return modules[layer].register_forward_pre_hook(hook, with_kwargs=True)

    handles = [keep(layer) for layer in layers]
    context = tokens.expand(len(latents), -1, -1)
    pipeline.unet(latents, t, encoder_hidden_states=context)
    for handle in handles:
        handle.remove()
    return torch.stack([_direct(modules[layer], hidden[layer], context, size) for layer in layers])


def _direct(module: nn.Module, hidden: Tensor, context: Tensor, size: int) -> Tensor:
    edge = int(hidden.shape[1] ** 0.5)
    grid = hidden.transpose(1, 2).unflatten(-1, (edge, edge))
    large = F.interpolate(grid, size=(size, size), mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)
    query = module.to_q(large).unflatten(-1, (module.heads, -1)).transpose(1, 2)
    key = module.to_k(context).unflatten(-1, (module.heads, -1)).transpose(1, 2)
    maps = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1).mean(1)
    return maps.transpose(1, 2).unflatten(-1, (size, size))


# --- full size --------------------------------------------------------------------------------------------------------


def test_the_published_configuration_has_the_published_numbers_of_parameters(full: Pipeline) -> None:
    counts = {name: sum(w.numel() for w in network.parameters()) for name, network in full.networks.items()}
    assert counts == {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480}
    assert (full.image_size, full.latent_size, full.token_dim) == (512, 64, 768)


def test_all_sixteen_cross_attentions_have_the_shapes_of_the_notes(full: Pipeline) -> None:
    names = [name.rsplit(".transformer_blocks", 1)[0] for name, _ in taps.cross_attentions(full.unet)]
    assert names == [
        *(f"down_blocks.{i}.attentions.{j}" for i in range(3) for j in range(2)),
        "mid_block.attentions.0",
        *(f"up_blocks.{i}.attentions.{j}" for i in range(1, 4) for j in range(3)),
    ]
    seen: list[int] = []
    latents = torch.randn(1, 4, 64, 64, device="meta")
    with torch.no_grad(), taps.attention_taps(full.unet, range(16)) as caught:
        handles = [
            module.register_forward_pre_hook(lambda module, args, i=i: seen.append(i))
            for i, (_, module) in enumerate(taps.cross_attentions(full.unet))
        ]
        full.unet(latents, 0, encoder_hidden_states=torch.randn(1, 500, 768, device="meta"))
        for handle in handles:
            handle.remove()
    # The order of the names is the order of execution.
    assert seen == list(range(16))
    expected = {**dict.fromkeys((0, 1, 13, 14, 15), (64, 40)), **dict.fromkeys((2, 3, 10, 11, 12), (32, 80))}
    expected |= {**dict.fromkeys((4, 5, 7, 8, 9), (16, 160)), 6: (8, 160)}
    for layer, (edge, width) in expected.items():
        assert caught.queries[layer].shape == (1, 8, edge * edge, width)
        assert caught.keys[layer].shape == (1, 8, 500, width)


def test_twelve_decoder_resnets_have_the_shapes_of_the_notes(full: Pipeline) -> None:
    latents = torch.randn(1, 4, 64, 64, device="meta")
    features = resnet_features(full, latents, -1, torch.randn(77, 768, device="meta"))
    channels = [1280] * 6 + [640] * 3 + [320] * 3
    assert [f.shape for f in features] == [(1, channels[i], 8 << i // 3, 8 << i // 3) for i in range(12)]


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / "diffusion_step.py"
    spec = importlib.util.spec_from_file_location("diffusion_step", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_counted_operations_of_a_step_at_full_size(benchmark: ModuleType, full: Pipeline) -> None:
    arguments = argparse.Namespace(tokens=500, landmarks=10, maps=128, chunk=2048)
    counted = benchmark.count(full, arguments)
    assert counted["tflop_step"] <= 4.6
    assert counted["tflop_step_with_cached_latent"] <= 3.5
    # 558 and 420 billion multiplications (notes, F1): the counter saw all of it.
    assert counted["tflop_encoding_one_view"] == pytest.approx(2 * 0.558, rel=0.01)
    assert counted["tflop_unet_forward_of_one_view_without_early_exit"] == pytest.approx(2 * 0.420, rel=0.01)
    assert benchmark.maps_memory(full, arguments) < 1


def test_counting_live_bytes(benchmark: ModuleType) -> None:
    with benchmark.LiveBytes() as live:
        kept = torch.zeros(1000)
        for _ in range(3):
            (kept + 1).view(10, 100).sum()
    assert live.peak == 8004
    assert live.now == 4000


# --- maps -------------------------------------------------------------------------------------------------------------


def test_maps_equal_a_direct_computation(tiny: Pipeline) -> None:
    latents, tokens = _inputs(tiny, batch=2)
    for layers in (taps.LAYERS, (0, 6, 15), (3,)):
        expected = _naive(tiny, latents, 0, tokens, 48, layers)
        each = attention_maps(tiny, latents, 0, tokens, layers=layers, size=48, chunk=500, average=False)
        assert each.shape == (2, len(layers), 9, 48, 48)
        torch.testing.assert_close(each.transpose(0, 1), expected, atol=1e-4, rtol=0)
        mean = attention_maps(tiny, latents, 0, tokens, layers=layers, size=48)
        torch.testing.assert_close(mean, expected.mean(0), atol=1e-4, rtol=0)
    assert each.std() > 0.01


def test_maps_are_float32_and_sum_to_one(tiny: Pipeline) -> None:
    maps = attention_maps(tiny, *_with_time(_inputs(tiny)), size=20)
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps.sum(1), torch.ones(1, 20, 20))


def _with_time(inputs: tuple[Tensor, Tensor], t: int = 0) -> tuple[Tensor, int, Tensor]:
    return inputs[0], t, inputs[1]


@torch.no_grad()
def test_maps_and_output_at_full_size() -> None:
    """The published U-Net with random weights, 3.4 GB: half a minute, and what is small elsewhere is not here."""
    small = pipelines.CONFIGS["tiny"]
    text = {"width": 768, "layers": 1, "heads": 1, "length": 12}
    full = build(pipelines.CONFIGS["sd15"] | {"vae": small["vae"], "text": text})
    latents, tokens = _inputs(full, n=20)
    with taps.attention_taps(full.unet, range(16)) as caught:
        output = full.unet(latents, 5, encoder_hidden_states=tokens[None]).sample
    outputs: list[Tensor] = []
    handle = full.unet.register_forward_hook(lambda _, __, result: outputs.append(result.sample))
    expected = _naive(full, latents, 5, tokens, 128, taps.LAYERS)
    handle.remove()
    torch.testing.assert_close(output, outputs[0], atol=1e-5, rtol=0)
    early = attention_maps(full, latents, 5, tokens, size=128, average=False)
    torch.testing.assert_close(early.transpose(0, 1), expected, atol=1e-4, rtol=0)
    whole = taps.maps([(caught.queries[i], caught.keys[i]) for i in taps.LAYERS], latents.shape[-2:], 128)
    torch.testing.assert_close(early.mean(1), whole, atol=1e-6, rtol=0)
    assert early.std() > 1e-3


def test_taps_leave_the_output_as_it_is(tiny: Pipeline) -> None:
    latents, tokens = _inputs(tiny, batch=2)
    context = tokens.expand(2, -1, -1)
    expected = tiny.unet(latents, 5, encoder_hidden_states=context).sample
    with taps.attention_taps(tiny.unet, range(16)), taps.resnet_taps(tiny.unet):
        tapped = tiny.unet(latents, 5, encoder_hidden_states=context).sample
    torch.testing.assert_close(tapped, expected, atol=1e-5, rtol=0)
    attention_maps(tiny, latents, 5, tokens, size=16)
    resnet_features(tiny, latents, 5, tokens)
    assert not any(module._forward_hooks for module in tiny.unet.modules())
    torch.testing.assert_close(tiny.unet(latents, 5, encoder_hidden_states=context).sample, expected, atol=0, rtol=0)


def test_early_exit_gives_the_same_maps_and_stops_there(tiny: Pipeline) -> None:
    latents, tokens = _inputs(tiny)
    ran: list[str] = []
    late = [tiny.unet.conv_out, tiny.unet.up_blocks[2].attentions[0].transformer_blocks[0].ff]
    handles = [module.register_forward_hook(lambda *_: ran.append("late")) for module in late]
    early = attention_maps(tiny, latents, 0, tokens, size=32, early_exit=True)
    assert not ran
    whole = attention_maps(tiny, latents, 0, tokens, size=32, early_exit=False)
    assert len(ran) == 2
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(early, whole, atol=0, rtol=0)


def test_an_early_exit_ends_the_with(tiny: Pipeline) -> None:
    latents, tokens = _inputs(tiny)
    reached = False
    with torch.no_grad(), taps.attention_taps(tiny.unet, (3, 8), early_exit=True) as caught:
        tiny.unet(latents, 0, encoder_hidden_states=tokens[None])
        reached = True
    assert not reached
    assert sorted(caught.queries) == sorted(caught.keys) == [3, 8]
    with pytest.raises(ZeroDivisionError), taps.attention_taps(tiny.unet):
        _ = 1 / 0
    assert not any(module._forward_hooks for module in tiny.unet.modules())


def test_images_of_a_batch_do_not_mix() -> None:
    # In float64, where what the size of a batch changes in the rounding is far below what mixing would.
    tiny = build("tiny").to("cpu", torch.float64)
    latents, tokens = _inputs(tiny, batch=3)
    many = torch.stack([tokens, tokens.flip(0), tokens.roll(1, 0)])
    times = torch.tensor([0, 300, 700])
    together = attention_maps(tiny, latents, times, many, size=24)
    for i in range(3):
        alone = attention_maps(tiny, latents[i : i + 1], int(times[i]), many[i], size=24)
        torch.testing.assert_close(together[i], alone[0], atol=1e-6, rtol=0)


def test_chunks_change_nothing(tiny: Pipeline) -> None:
    latents, tokens = _inputs(tiny)
    results = []
    for chunk in (1, 32 * 5, 10**6):
        leaf = tokens.clone().requires_grad_()
        maps = attention_maps(tiny, latents, 0, leaf, size=32, chunk=chunk)
        maps[:, :3].square().mean().backward()
        results.append((maps.detach(), leaf.grad))
    for maps, gradient in results[1:]:
        torch.testing.assert_close(maps, results[0][0], atol=1e-6, rtol=0)
        torch.testing.assert_close(gradient, results[0][1], rtol=1e-3, atol=1e-6 * float(gradient.abs().max()))


def test_gradients_of_tokens_equal_those_of_the_naive_way(tiny: Pipeline) -> None:
    latents, tokens = _inputs(tiny, batch=2)
    weights = torch.randn(2, 9, 32, 32, generator=torch.Generator().manual_seed(1))
    gradients = []
    for way in ("ours", "naive"):
        leaf = tokens.clone().requires_grad_()
        if way == "ours":
            maps = attention_maps(tiny, latents, 0, leaf, size=32, chunk=200)
        else:
            maps = _naive(tiny, latents, 0, leaf, 32, taps.LAYERS).mean(0)
        (maps * weights).sum().backward()
        gradients.append(leaf.grad)
    assert gradients[1].abs().max() > 0
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-4 * float(gradients[1].abs().max()))


def test_gradients_flow_through_the_trunk_as_well(tiny: Pipeline) -> None:
    latents, tokens = _inputs(tiny)
    leaf = tokens.clone().requires_grad_()
    with taps.attention_taps(tiny.unet, (10,)) as caught:
        tiny.unet(latents, 0, encoder_hidden_states=leaf[None])
    caught.queries[10].square().sum().backward()
    assert leaf.grad.abs().max() > 0
    assert all(weight.grad is None for weight in tiny.unet.parameters())


def test_no_gradient_where_none_is_asked_for(tiny: Pipeline) -> None:
    latents, tokens = _inputs(tiny)
    with torch.no_grad():
        assert not attention_maps(tiny, latents, 0, tokens.requires_grad_(), size=16).requires_grad


def test_bfloat16_with_float32_maps() -> None:
    exact, rounded = build("tiny"), build("tiny").to("cpu", torch.bfloat16)
    latents, tokens = _inputs(exact)
    leaf = (tokens / 4).requires_grad_()
    maps = attention_maps(rounded, latents, 0, leaf, size=32)
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps.sum(1), torch.ones(1, 32, 32))
    torch.testing.assert_close(maps, attention_maps(exact, latents, 0, leaf, size=32), atol=0.02, rtol=0)
    maps.square().mean().backward()
    assert leaf.grad.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        under = attention_maps(exact, latents, 0, leaf, size=32)
    assert under.dtype == torch.float32
    torch.testing.assert_close(under.sum(1), torch.ones(1, 32, 32))


def test_latents_that_are_no_square_and_no_multiple_of_eight(tiny: Pipeline) -> None:
    _, tokens = _inputs(tiny)
    maps = attention_maps(tiny, torch.randn(1, 4, 12, 20), 0, tokens, layers=range(16), size=16, average=False)
    assert maps.shape == (1, 16, 9, 16, 16)


def test_layers_and_tokens_that_do_not_fit(tiny: Pipeline) -> None:
    latents, tokens = _inputs(tiny, batch=2)
    for layers in ((16,), (-1,), ()):
        with pytest.raises(InputError, match="numbers from 0 to 15"):
            attention_maps(tiny, latents, 0, tokens, layers=layers)
    with pytest.raises(InputError, match=r"decoder resnet layers .* 0 to 11"):
        resnet_features(tiny, latents, 0, tokens, layers=(12,))
    for wrong in (tokens[:, :5], tokens.expand(3, -1, -1), tokens[0]):
        with pytest.raises(InputError, match="found tokens of shape"):
            attention_maps(tiny, latents, 0, wrong)


# --- features and inversion -------------------------------------------------------------------------------------------


def test_features_are_those_before_the_residual_addition(tiny: Pipeline) -> None:
    latents, tokens = _inputs(tiny, batch=2)
    seen: dict[int, tuple[Tensor, Tensor]] = {}
    modules = [module for _, module in taps.decoder_resnets(tiny.unet)]
    handles = [
        module.register_forward_hook(lambda module, args, output, i=i: seen.update({i: (args[0], output)}))
        for i, module in enumerate(modules)
    ]
    features = resnet_features(tiny, latents, -1, tokens, early_exit=False)
    for handle in handles:
        handle.remove()
    for module, feature, (inside, output) in zip(modules, features, seen.values(), strict=True):
        # Every decoder resnet of Stable Diffusion gets a skip connection and so has a shortcut convolution.
        torch.testing.assert_close(feature, output - module.conv_shortcut(inside), atol=1e-5, rtol=0)
        assert not feature.requires_grad
    early = resnet_features(tiny, latents, -1, tokens, layers=(7, 2))
    torch.testing.assert_close(early, [features[7], features[2]], atol=0, rtol=0)


def test_inversion_takes_ddim_steps_backwards(tiny: Pipeline) -> None:
    latents, _ = _inputs(tiny)
    context = tiny.embed("")
    kept = invert(tiny, latents, context, keep=(-1, 0, 20, 40))
    assert list(kept) == [-1, 0, 20, 40]
    torch.testing.assert_close(kept[-1], latents)
    # Forward again with the same predictions, by diffusers' own scheduler: 40 -> 20.
    scheduler = tiny.scheduler
    scheduler.set_timesteps(50)
    noise = tiny.unet(kept[20], 20, encoder_hidden_states=context).sample
    back = scheduler.step(noise, 40, kept[40]).prev_sample
    torch.testing.assert_close(back, kept[20], atol=1e-4, rtol=0)


def test_inversion_without_predicted_noise_only_scales(tiny: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    latents, _ = _inputs(tiny)
    monkeypatch.setattr(tiny.unet.conv_out, "forward", lambda hidden: torch.zeros_like(hidden[:, :4]))
    found = invert(tiny, latents, tiny.embed(""), steps=10)
    assert list(found) == [900]
    torch.testing.assert_close(found[900], latents * tiny.alpha(900).sqrt())


def test_inversion_passes_the_timesteps_of_the_notes(tiny: Pipeline) -> None:
    latents, _ = _inputs(tiny)
    assert timesteps(tiny) == list(range(0, 1000, 20))
    with taps.resnet_taps(tiny.unet, (3,)) as caught:
        passed, features = [], []
        for t, _state in inversion_steps(tiny, latents, tiny.embed(""), steps=4):
            passed.append(t)
            features.append(caught.features[3])
    assert passed == [-1, 0, 250, 500, 750]
    torch.testing.assert_close(features[0], resnet_features(tiny, latents, -1, tiny.embed(""), (3,))[0])
    with pytest.raises(InputError, match="timesteps"):
        invert(tiny, latents, tiny.embed(""), keep=(7,))
    with pytest.raises(InputError, match="found 0 steps"):
        invert(tiny, latents, tiny.embed(""), steps=0)


def test_all_kinds_of_predictions_are_split_alike(tiny: Pipeline) -> None:
    from ulm.diffusion.inversion import _split

    clean, noise = torch.randn(2, 3), torch.randn(2, 3)
    alpha = torch.tensor(0.3)
    latents = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
    velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
    for output, kind in ((noise, "epsilon"), (velocity, "v_prediction"), (clean, "sample")):
        torch.testing.assert_close(_split(latents, output, alpha, kind), (clean, noise))


def test_inversion_of_a_model_that_predicts_the_picture(tiny: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """A U-Net that sees through all noise says that clean latents have none: they are only scaled."""
    clean = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    scheduler = diffusers.DDIMScheduler.from_config(tiny.scheduler.config, prediction_type="sample")
    monkeypatch.setattr(tiny, "scheduler", scheduler)
    monkeypatch.setattr(tiny.unet, "forward", lambda *_, **__: SimpleNamespace(sample=clean))
    *_, (t, last) = inversion_steps(tiny, clean, tiny.embed(""), steps=4)
    assert last.isfinite().all()
    # Nearly clean latents hold the difference from entirely clean ones as a little noise.
    rest = (last - tiny.alpha(t).sqrt() * clean).norm() / clean.norm()
    assert rest < 0.02


# --- pipelines --------------------------------------------------------------------------------------------------------


def test_networks_are_frozen_and_a_seed_decides_them(tiny: Pipeline) -> None:
    for network in tiny.networks.values():
        assert not network.training
        assert not any(weight.requires_grad for weight in network.parameters())
    weight = tiny.unet.conv_in.weight
    assert torch.equal(build("tiny").unet.conv_in.weight, weight)
    assert not torch.equal(build("tiny", seed=1).unet.conv_in.weight, weight)
    with pytest.raises(InputError, match="'huge'"):
        build("huge")


def test_pocket_is_small_enough() -> None:
    pocket = build("pocket", device="meta")
    counts = {name: sum(w.numel() for w in network.parameters()) for name, network in pocket.networks.items()}
    assert 8e6 <= counts["unet"] <= 25e6
    assert 2 * sum(counts.values()) <= 60e6
    assert len(taps.cross_attentions(pocket.unet)) == 16
    assert len(taps.decoder_resnets(pocket.unet)) == 12


def test_latents_are_scaled_means(tiny: Pipeline) -> None:
    images = torch.rand(2, 3, 32, 32)
    latents = tiny.latents(images)
    assert latents.shape == (2, 4, 16, 16)
    posterior = tiny.vae.encode(2 * images - 1).latent_dist
    torch.testing.assert_close(latents, posterior.mean * 0.18215)
    samples = [tiny.latents(images, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(samples[0], samples[1])
    assert not torch.equal(samples[0], samples[2])
    assert tiny.latents(torch.rand(1, 3, 50, 70)).shape == (1, 4, 16, 16)
    assert tiny.decode(latents).shape == (2, 3, 32, 32)
    with pytest.raises(InputError, match="20 x 15 pixels, expected at least the 16 x 16"):
        tiny.latents(torch.rand(1, 3, 15, 20))
    with pytest.raises(InputError, match="shape"):
        tiny.latents(torch.rand(3, 32, 32))


def test_noise_is_added_as_the_scheduler_does(tiny: Pipeline) -> None:
    latents, noise = torch.randn(2, 4, 16, 16), torch.randn(2, 4, 16, 16)
    times = torch.tensor([0, 999])
    torch.testing.assert_close(tiny.noisy(latents, times, noise), tiny.scheduler.add_noise(latents, noise, times))
    assert float(tiny.alpha(0)) == pytest.approx(0.99915)
    torch.testing.assert_close(tiny.noisy(latents, -1, noise), latents)
    with pytest.raises(InputError, match="found timestep 1000, expected at most 999"):
        tiny.noisy(latents, 1000, noise)


def test_each_word_of_the_vocabulary_is_one_token() -> None:
    words = pipelines.tokenizer(WORDS, 8)
    for word in WORDS:
        assert words.tokenize(word) == [word + "</w>"]
    assert words.tokenize("Red CHAIR, stair!") == ["red</w>", "chair</w>", ",</w>", "s", "t", "air</w>", "!</w>"]
    assert words("red hair", padding="max_length").input_ids[0] == words.bos_token_id
    assert words.decode(words("red hair à Köln").input_ids, skip_special_tokens=True) == "red hair à köln"
    assert len(words("red " * 20, truncation=True).input_ids) == 8
    with pytest.raises(InputError, match="expected at most 5"):
        build(pipelines.CONFIGS["tiny"] | {"text": pipelines.CONFIGS["tiny"]["text"] | {"vocab_size": 5}})


def test_embedding_texts(tiny: Pipeline) -> None:
    one, two = tiny.embed("red hair"), tiny.embed(["red hair", "blue beak"])
    assert one.shape == (1, 12, 16)
    torch.testing.assert_close(two[:1], one)
    assert not torch.allclose(two[0], two[1])


def test_plain_diffusers_reads_what_was_saved(saved: Path, tiny: Pipeline) -> None:
    with pipelines.quiet():
        pipe = diffusers.StableDiffusionPipeline.from_pretrained(saved)
        pipe.set_progress_bar_config(disable=True)
        image = pipe("red hair", num_inference_steps=2, output_type="np").images
    assert image.shape == (1, 32, 32, 3)
    files = {str(file.relative_to(saved)) for file in saved.rglob("*") if file.is_file()}
    assert {"model_index.json", "tokenizer/vocab.json", "tokenizer/merges.txt"} <= files
    weights = list(saved.rglob("*.safetensors"))
    assert len(weights) == 3
    assert all(t.dtype == torch.float16 for file in weights for t in load_file(file).values())
    assert tiny.dtype == torch.float32


def test_loading_what_was_saved(saved: Path, tiny: Pipeline) -> None:
    again = load(saved, device="cpu", dtype="float32")
    latents, tokens = _inputs(tiny)
    kept = build("tiny", vocabulary=WORDS).to("cpu", torch.float16).to("cpu", torch.float32)
    torch.testing.assert_close(again.embed("red hair"), kept.embed("red hair"))
    torch.testing.assert_close(
        attention_maps(again, latents, 0, tokens, size=16), attention_maps(kept, latents, 0, tokens, size=16)
    )
    images = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(again.latents(images), kept.latents(images))
    assert again.name == str(saved)
    assert load(saved, device="cpu", dtype="bfloat16").dtype == torch.bfloat16
    with pytest.raises(InputError, match="found dtype 'int8'"):
        load(saved, dtype="int8")


def test_saving_replaces_a_pipeline_and_nothing_else(copied: Path, tiny: Pipeline, tmp_path: Path) -> None:
    (copied / "card.md").write_text("kept")
    (copied / "unet" / "old.json").write_text("gone")
    tiny.save(copied)
    assert (copied / "card.md").read_text() == "kept"
    assert not (copied / "unet" / "old.json").exists()
    other = tmp_path / "photographs"
    other.mkdir()
    (other / "one.jpg").write_bytes(b"1")
    with pytest.raises(InputError, match="no pipeline"):
        tiny.save(other)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "photographs"]


def test_published_files_load(copied: Path, tiny: Pipeline) -> None:
    """Stable Diffusion 1.5 on the hub: a PNDM scheduler, a prefix in the text encoder's names, two spare files."""
    scheduler = copied / "scheduler" / "scheduler_config.json"
    content = json.loads(scheduler.read_text()) | {"_class_name": "PNDMScheduler", "skip_prk_steps": True}
    scheduler.write_text(json.dumps(content))
    file = copied / "text_encoder" / "model.safetensors"
    weights = {f"text_model.{name}": tensor for name, tensor in load_file(file).items()}
    save_file(weights | {"text_model.embeddings.position_ids": torch.arange(12)[None]}, file, {"format": "pt"})
    (copied / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"never read")
    (copied / "tokenizer" / "tokenizer.json").unlink()
    again = load(copied, device="cpu", dtype="float32")
    assert type(again.scheduler) is diffusers.DDIMScheduler
    torch.testing.assert_close(again.scheduler.alphas_cumprod, tiny.scheduler.alphas_cumprod)
    torch.testing.assert_close(again.embed("red hair"), tiny.embed("red hair"), atol=0.02, rtol=0)


# --- errors that a user can mend --------------------------------------------------------------------------------------


def test_no_pocket_pipeline_yet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(zoo, "_ROOT", tmp_path)
    with pytest.raises(InputError, match="make one with 'ulm zoo train pocket"):
        load("pocket")


@pytest.mark.parametrize("name", ["nowhere", "a/b/c", "/nowhere/at all", "./nowhere"])
def test_no_such_folder(name: str) -> None:
    with pytest.raises(InputError, match="found no folder"):
        load(name)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_a_hub_id_without_a_network(offline: Path) -> None:
    with pytest.raises(InputError, match="neither in the cache nor on the hub"):
        load("stable-diffusion-v1-5/stable-diffusion-v1-5")


def test_a_hub_id_in_the_cache(offline: Path, saved: Path) -> None:
    repository = offline / "models--someone--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("a" * 40)
    shutil.copytree(saved, repository / "snapshots" / ("a" * 40))
    assert load("someone/tiny", device="cpu").name == "someone/tiny"


def test_another_class(copied: Path) -> None:
    index = copied / "model_index.json"
    index.write_text(json.dumps({"_class_name": "StableDiffusionXLPipeline"}))
    with pytest.raises(InputError, match="found a StableDiffusionXLPipeline, expected a StableDiffusionPipeline"):
        load(copied)
    index.write_text("{")
    with pytest.raises(InputError, match=r"broken model_index\.json"):
        load(copied)
    index.unlink()
    with pytest.raises(InputError, match=r"found no model_index\.json"):
        load(copied)


def test_incomplete_folders(copied: Path) -> None:
    weights = copied / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    save_file({name: t for name, t in tensors.items() if name != "conv_in.weight"}, weights, {"format": "pt"})
    with pytest.raises(InputError, match=r"unet lacks 1 of its weights, such as conv_in\.weight"):
        load(copied, device="cpu")
    weights.write_bytes(b"cut off")
    with pytest.raises(InputError, match="cannot be read"):
        load(copied, device="cpu")
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(InputError, match="weights of unet as pickles alone"):
        load(copied)
    weights.with_suffix(".bin").unlink()
    with pytest.raises(InputError, match="found no weights of unet"):
        load(copied)
    with pytest.raises(InputError, match=r"found no weights of unet \(\*\.fp16\.safetensors\)"):
        load(copied, variant="fp16")
    shutil.rmtree(copied / "vae")
    with pytest.raises(InputError, match="found no vae, expected all of"):
        load(copied)


@pytest.mark.gpu
def test_maps_on_cuda_equal_those_on_the_cpu() -> None:
    here, there = build("tiny"), build("tiny", device="cuda")
    latents, tokens = _inputs(here, batch=2)
    maps = attention_maps(there, latents.cuda(), torch.tensor([0, 1]), tokens.cuda(), size=32)
    torch.testing.assert_close(
        maps.cpu(), attention_maps(here, latents, torch.tensor([0, 1]), tokens, size=32), atol=1e-3, rtol=0
    )


def test_an_untrained_unet_behind_the_same_autoencoder(tiny: Pipeline) -> None:
    first, again, other = tiny.untrained(1), tiny.untrained(1), tiny.untrained(2)
    weight = lambda pipeline: pipeline.unet.conv_in.weight  # noqa: E731
    assert torch.equal(weight(first), weight(again))
    assert not torch.equal(weight(first), weight(other))
    assert first.vae is tiny.vae
    assert first.name == f"untrained {tiny.name}"
    assert not any(p.requires_grad for p in first.unet.parameters())
