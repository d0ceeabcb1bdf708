"""Feature aggregation: counts at full size, a direct computation from published names, order, gradients, files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ulm.diffusion import Pipeline, build, resnet_features
from ulm.errors import InputError
from ulm.networks.aggregation import Aggregator, concatenated, group_norm, tap_channels

SD15 = [1280] * 6 + [640] * 3 + [320] * 3
CHANNELS, GRIDS = (12, 8, 5), (2, 4, 11)


def _features(n_timesteps: int = 2, batch: int = 2, seed: int = 0) -> list[list[Tensor]]:
    """Taps on grids below and above the result's 8 x 8."""
    generator = torch.Generator().manual_seed(seed)
    return [
        [torch.randn(batch, c, g, g, generator=generator) for c, g in zip(CHANNELS, GRIDS, strict=True)]
        for _ in range(n_timesteps)
    ]


def _published(channels: tuple[int, ...] = CHANNELS, n_timesteps: int = 2, dim: int = 24) -> dict[str, Tensor]:
    """Random weights under the published names."""
    generator = torch.Generator().manual_seed(7)
    tensors = {"mixing_weights": torch.randn(n_timesteps * len(channels), generator=generator)}
    for layer, c in enumerate(channels):
        shapes = {
            "shortcut": (dim, c, 1, 1),
            "conv1": (dim // 4, c, 1, 1),
            "conv2": (dim // 4, dim // 4, 3, 3),
            "conv3": (dim, dim // 4, 1, 1),
        }
        for part, shape in shapes.items():
            name = f"bottleneck_layers.{layer}.0.{part}"
            tensors[f"{name}.weight"] = torch.randn(shape, generator=generator)
            tensors[f"{name}.norm.weight"] = torch.randn(shape[0], generator=generator)
            tensors[f"{name}.norm.bias"] = torch.randn(shape[0], generator=generator)
    return tensors


def _direct(features: list[list[Tensor]], tensors: dict[str, Tensor], size: int = 8) -> Tensor:
    """All taps resized and joined, then cut apart again layer by layer, as the published network does."""
    joined = torch.cat([F.interpolate(tap, (size, size), mode="bilinear") for taps in features for tap in taps], 1)
    weights, start, total = tensors["mixing_weights"].softmax(0), 0, 0.0
    for i in range(len(weights)):
        layer = i % len(CHANNELS)
        tap = joined[:, start : start + CHANNELS[layer]]
        start += CHANNELS[layer]
        total = total + weights[i] * _block(tap, tensors, f"bottleneck_layers.{layer}.0")
    assert start == joined.shape[1]
    return total


def _block(tap: Tensor, tensors: dict[str, Tensor], name: str) -> Tensor:
    def convolution(x: Tensor, part: str) -> Tensor:
        weight = tensors[f"{name}.{part}.weight"]
        # 24 and 6 channels here: three and more in each of 8 and of 2 groups.
        groups = {24: 8, 6: 2}[len(weight)]
        x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
        return F.group_norm(x, groups, tensors[f"{name}.{part}.norm.weight"], tensors[f"{name}.{part}.norm.bias"])

    x = F.relu(convolution(F.relu(convolution(tap, "conv1")), "conv2"))
    return F.relu(convolution(x, "conv3") + convolution(tap, "shortcut"))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "published.safetensors"
    save_file(_published(), path)
    return path


def _loaded(path: Path, resize: str = "before") -> Aggregator:
    return Aggregator(CHANNELS, 2, 24, 8, resize).load_published(path)


# --- full size --------------------------------------------------------------------------------------------------------


def _multiplications(resize: str, n_timesteps: int) -> float:
    """Billions at Stable Diffusion 1.5's sizes, of one image."""
    taps = [torch.empty(1, c, 8 << i // 3, 8 << i // 3, device="meta") for i, c in enumerate(SD15)]
    with torch.device("meta"), torch.no_grad():
        network = Aggregator(SD15, n_timesteps, resize=resize)
        with FlopCounterMode(display=False) as counter:
            assert network([taps] * n_timesteps).shape == (1, 384, 64, 64)
    return counter.get_total_flops() / 2e9


def test_parameters_and_operations_at_full_size() -> None:
    with torch.device("meta"):
        one, eleven = Aggregator(SD15), Aggregator(SD15, 11)
    count = sum(p.numel() for p in one.parameters())
    assert count == pytest.approx(6.53e6, rel=1e-3)
    # Bottlenecks are shared over timesteps, mixing weights are not.
    assert sum(p.numel() for p in eleven.parameters()) == count + 120
    before = _multiplications("before", 1)
    assert before == pytest.approx(26.7, rel=3e-3)
    assert _multiplications("before", 2) == pytest.approx(2 * before)
    assert _multiplications("after", 1) == pytest.approx(9.31, rel=3e-3)


def test_groups() -> None:
    expected = {96: 32, 384: 32, 128: 32, 32: 8, 64: 16, 16: 4, 24: 8, 6: 2, 7: 1, 3: 1, 2: 1, 1: 1}
    assert {c: group_norm(c).num_groups for c in expected} == expected
    network = Aggregator(SD15[-1:])
    assert {norm.num_groups for norm in network.modules() if isinstance(norm, torch.nn.GroupNorm)} == {32}


# --- what it computes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resize", ["before", "after"])
def test_equals_a_direct_computation_from_published_names(saved: Path, resize: str) -> None:
    features = _features()
    found = _loaded(saved, resize)(features)
    assert found.shape == (2, 24, 8, 8)
    torch.testing.assert_close(found, _direct(features, _published()), atol=1e-5, rtol=1e-4)
    assert found.min() == 0
    assert found.std() > 0.1


def test_gradients_are_the_same_in_both_orders(saved: Path) -> None:
    gradients = []
    for resize in ("before", "after"):
        network = _loaded(saved, resize).double()
        network([[tap.double() for tap in taps] for taps in _features()]).square().mean().backward()
        gradients.append([p.grad for p in network.parameters()])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-8, atol=1e-12)


def test_the_mixture_is_one_softmax_over_all_layers_and_timesteps() -> None:
    network = Aggregator(CHANNELS, 4, 24, 8)
    torch.testing.assert_close(network.mixture, torch.full((4, 3), 1 / 12))
    with torch.no_grad():
        network.mixing_weights[5] = 3.0
    mixture = network.mixture
    torch.testing.assert_close(mixture.sum(), torch.ones(()))
    # Neither a row nor a column sums to a constant.
    assert mixture[1, 2] == mixture.max()
    torch.testing.assert_close(mixture[1, 2] / mixture[0, 0], torch.tensor(2.0).exp())
    assert mixture.sum(0).std() > 0.1
    assert mixture.sum(1).std() > 0.1


@torch.no_grad()
def test_mixing_weights_are_timestep_major() -> None:
    network, features = Aggregator(CHANNELS, 2, 24, 8), _features()
    for t in range(2):
        for layer in range(3):
            network.mixing_weights.fill_(-100.0)
            network.mixing_weights[3 * t + layer] = 100.0
            alone = network.bottlenecks[layer](features[t][layer], 8, late=False)
            torch.testing.assert_close(network(features), alone)


def test_gradients_reach_all_bottlenecks_and_mixing_weights() -> None:
    torch.manual_seed(0)
    network = Aggregator(CHANNELS, 2, 24, 8)
    (network(_features()) * torch.randn(24, 8, 8)).sum().backward()
    assert all(p.grad.abs().max() > 0 for p in network.parameters())
    assert network.mixing_weights.grad.count_nonzero() == 6


def test_what_is_kept_for_gradients_does_not_grow_with_timesteps() -> None:
    kept = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    numbers, gradients = [], []
    for timesteps in (1, 2, 8):
        torch.manual_seed(0)
        network, kept[:] = Aggregator(CHANNELS, timesteps, 24, 8), []
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            total = network(_features()[:1] * timesteps)
        storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in kept}
        numbers.append(sum(storages.values()))
        total.square().sum().backward()
        gradients.append(network.bottlenecks[0].conv1[0].weight.grad)
    assert numbers[2] < numbers[0]
    # The same taps at each timestep: the sum, hence the gradient, is that of one.
    torch.testing.assert_close(gradients[1], gradients[0])
    torch.testing.assert_close(gradients[2], gradients[0])


def test_starts_with_kaiming_weights() -> None:
    torch.manual_seed(0)
    block = Aggregator([640]).bottlenecks[0]
    for unit in (block.shortcut, block.conv1, block.conv2, block.conv3):
        fan_out = unit[0].weight.numel() / unit[0].in_channels
        assert float(unit[0].weight.detach().std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.02)
        assert unit[0].bias is None


def test_any_floating_type_and_autocast() -> None:
    network, features = Aggregator(CHANNELS, 2, 24, 8), _features()
    exact = network(features)
    for kind in (torch.float16, torch.bfloat16):
        rounded = network([[tap.to(kind) for tap in taps] for taps in features])
        assert rounded.dtype == torch.float32
        torch.testing.assert_close(rounded, exact, atol=0.05, rtol=0)
    with torch.autocast("cpu", torch.bfloat16):
        cast = network(features)
    assert cast.dtype == torch.float32
    torch.testing.assert_close(cast, exact, atol=0.1, rtol=0)
    assert not torch.equal(cast, exact)


def test_images_of_a_batch_do_not_mix() -> None:
    network, features = Aggregator(CHANNELS, 2, 24, 8), _features(batch=3)
    alone = network([[tap[1:2] for tap in taps] for taps in features])
    torch.testing.assert_close(network(features)[1:2], alone)


# --- with a U-Net -----------------------------------------------------------------------------------------------------


def test_channels_of_a_unet_and_features_of_a_pipeline() -> None:
    tiny: Pipeline = build("tiny")
    latents, context = torch.randn(2, 4, 16, 16), torch.randn(3, tiny.token_dim)
    features = [resnet_features(tiny, latents, t, context) for t in (-1, 20)]
    channels = tap_channels(tiny.unet)
    assert channels == [tap.shape[1] for tap in features[0]]
    network = Aggregator(channels, 2, 16, 16)
    found = network(features)
    assert found.shape == (2, 16, 16, 16)
    found.sum().backward()
    assert network.mixing_weights.grad.abs().max() > 0
    assert tap_channels(tiny.unet, (11, 0)) == [channels[11], channels[0]]
    assert concatenated(features, 16).shape == (2, 2 * sum(channels), 16, 16)
    with pytest.raises(InputError, match="numbers from 0 to 11"):
        tap_channels(tiny.unet, (12,))


def test_channels_of_stable_diffusion() -> None:
    assert tap_channels(build("sd15", device="meta").unet) == SD15


# --- without weights --------------------------------------------------------------------------------------------------


def test_concatenated_taps_have_unit_length_each() -> None:
    features = _features()
    found = concatenated(features, 4)
    assert found.shape == (2, 2 * sum(CHANNELS), 4, 4)
    # The second tap has 4 x 4 places itself; the first of the next timestep comes behind all of this one.
    torch.testing.assert_close(found[:, 12:20].norm(dim=1), torch.ones(2, 4, 4))
    torch.testing.assert_close(found[:, 12:20], F.normalize(features[0][1], dim=1))
    small = F.interpolate(F.normalize(features[1][0], dim=1), (4, 4), mode="bilinear")
    torch.testing.assert_close(found[:, 25:37], small)
    assert small.norm(dim=1).max() < 1.0001


def test_concatenated_does_not_feel_how_large_a_tap_is() -> None:
    features = _features()
    scaled = [[tap * 10.0 ** (i + 2 * t) for i, tap in enumerate(taps)] for t, taps in enumerate(features)]
    torch.testing.assert_close(concatenated(scaled, 8), concatenated(features, 8))
    # Squares of this one exceed float16.
    large = [[torch.full((1, 4, 2, 2), 6e4, dtype=torch.float16)]]
    torch.testing.assert_close(concatenated(large, 2), torch.full((1, 4, 2, 2), 0.5))


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_published_pickle_is_refused_and_can_be_converted(tmp_path: Path) -> None:
    pickle = tmp_path / "aggregation_network.pt"
    content = {"step": 5000, "config": {"projection_dim": 24}, "aggregation_network": _published()}
    torch.save(content, pickle)
    with pytest.raises(InputError, match="found a pickle") as caught:
        Aggregator(CHANNELS, 2, 24, 8).load_published(pickle)
    command = re.search(r'python -c "(.+)"$', str(caught.value))
    exec(command.group(1), {})
    network = _loaded(tmp_path / "aggregation_network.safetensors")
    assert torch.equal(network.mixing_weights, _published()["mixing_weights"])


def _broken(tmp_path: Path, **changes: Tensor | None) -> Path:
    tensors = {name: tensor for name, tensor in (_published() | changes).items() if tensor is not None}
    path = tmp_path / "broken.safetensors"
    save_file(tensors, path)
    return path


def test_files_that_do_not_fit_change_nothing(tmp_path: Path) -> None:
    network = Aggregator(CHANNELS, 2, 24, 8)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    norm = "bottleneck_layers.2.0.conv3.norm.bias"
    cases = {
        r"found \(33,\) for mixing_weights, expected \(6,\)": {"mixing_weights": torch.ones(33)},
        f"found nothing for {norm}": {norm: None},
        r"found \(24, 9, 1, 1\) for bottleneck_layers.1.0.shortcut": {
            "bottleneck_layers.1.0.shortcut.weight": torch.ones(24, 9, 1, 1)
        },
        "found bottleneck_layers.0.1.conv1.weight and 0 more": {"bottleneck_layers.0.1.conv1.weight": torch.ones(1)},
    }
    for message, changes in cases.items():
        with pytest.raises(InputError, match=message):
            network.load_published(_broken(tmp_path, **changes))
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    network = Aggregator(CHANNELS, 2, 24, 8)
    with pytest.raises(InputError, match="found no file"):
        network.load_published(tmp_path / "none.safetensors")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"\x80\x04not a header")
    with pytest.raises(InputError, match="found no safetensors"):
        network.load_published(damaged)


def test_half_precision_files(tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    save_file({name: tensor.half() for name, tensor in _published().items()}, path)
    network = _loaded(path)
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    torch.testing.assert_close(network.mixing_weights.data, _published()["mixing_weights"], atol=2e-3, rtol=0)


# --- errors -----------------------------------------------------------------------------------------------------------


def test_bad_values() -> None:
    for wrong in (
        {"channels": []},
        {"channels": [8, 0]},
        {"n_timesteps": 0},
        {"projection_dim": 26},
        {"projection_dim": 0},
        {"size": 0},
    ):
        with pytest.raises(InputError, match="expected at least one layer"):
            Aggregator(**({"channels": CHANNELS} | wrong))
    with pytest.raises(InputError, match="expected one of before, after"):
        Aggregator(CHANNELS, resize="never")
    for taps, size in (([], 8), ([[]], 8), (_features(), 0)):
        with pytest.raises(InputError, match="at least one of each"):
            concatenated(taps, size)


def test_features_that_do_not_fit() -> None:
    network, features = Aggregator(CHANNELS, 2, 24, 8), _features()
    for wrong in (features[:1], features * 2, [], [features[0], features[1][:2]], [taps[::-1] for taps in features]):
        with pytest.raises(InputError, match=r"expected 2 with \[12, 8, 5\] each"):
            network(wrong)
