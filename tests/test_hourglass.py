"""The hourglass, its projected convolutions, the generator of Inter-Intra: counts, hand-worked values, equalities."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ulm.errors import InputError
from ulm.networks import hourglass
from ulm.networks.hourglass import Block, Hourglass, Level, ProjectedConvolution, plain_convolution
from ulm.networks.inter_intra import Generator


def seeded(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def small(**changes):
    torch.manual_seed(0)
    return Hourglass(**{"n_landmarks": 3, "image_size": 16, "width": 8, **changes})


def stirred(network):
    """Every parameter and statistic moved away from where it starts, so that nothing is equal by chance."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    for _ in range(3):
        network.train()(seeded(4, 3, network.image_size, network.image_size))
    return network.eval()


# --- shapes and counts --------------------------------------------------------------------------------------------


def count(tensors):
    return sum(tensor.numel() for tensor in tensors)


def test_architecture_of_the_papers():
    # FAN with one stack: 6.22 million weights of convolutions; matrices of 0.38 million stand for the 6.1 of its 3x3.
    with torch.device("meta"):
        detector = Hourglass(10, 128, 256, projected=True)
    projected = [m for m in detector.modules() if isinstance(m, ProjectedConvolution)]
    others = [p for m in detector.modules() if isinstance(m, nn.Conv2d) for p in m.parameters()]
    kernels = count(m.kernel for m in projected)
    assert kernels + count(others) == pytest.approx(6.22e6, rel=1e-3)
    assert count(m.projection for m in projected) == pytest.approx(0.381e6, rel=1e-3)
    assert count(others) == pytest.approx(0.119e6, rel=2e-3)
    # Four levels of three blocks and one innermost; three blocks in the stem and one on top.
    assert sum(isinstance(m, Block) for m in detector.levels.modules()) == 13
    assert sum(isinstance(m, Level) for m in detector.levels.modules()) == 4
    assert len(projected) == 3 * (13 + 3 + 1)


@pytest.mark.parametrize(("size", "levels"), [(16, 1), (32, 2), (64, 3), (128, 4), (256, 5)])
def test_levels_go_down_to_2_by_2(size, levels):
    assert hourglass.n_levels(size) == levels
    assert size // hourglass.STRIDE // 2**levels == 2


def test_maps_have_a_quarter_of_the_resolution():
    assert small(image_size=64).eval().heatmaps(seeded(2, 3, 64, 64)).shape == (2, 3, 16, 16)


@pytest.mark.parametrize(("width", "millions"), [(32, 2.424), (64, 9.031)])
def test_generator_of_both_widths(width, millions):
    with torch.device("meta"):
        generator = Generator(10, width)
        assert count(generator.parameters()) == pytest.approx(millions * 1e6, rel=1e-3)
        # The text: features of 256 channels at 32 x 32 for 128 pixels; the code has half of that.
        assert generator.encoder(torch.rand(1, 3, 128, 128)).shape == (1, 4 * width, 32, 32)
        assert generator(torch.rand(1, 3, 128, 128), torch.rand(1, 10, 32, 32)).shape == (1, 3, 128, 128)


def test_generator_draws_images():
    torch.manual_seed(0)
    generator = Generator(2, 4)
    with torch.no_grad():
        generator.decoder[-2].weight.mul_(100)
    drawn = generator(seeded(2, 3, 16, 16), seeded(2, 2, 4, 4))
    assert drawn.dtype == torch.float32
    assert 0 <= drawn.min() < 0.01
    assert 0.99 < drawn.max() <= 1


@pytest.mark.parametrize("size", [0, -16, 8, 48, 2048])
def test_other_sizes_are_refused(size):
    with pytest.raises(InputError, match="power of two"):
        Hourglass(3, size, 8)


@pytest.mark.parametrize("width", [0, -8, 4, 12, 16.0])
def test_other_widths_are_refused(width):
    with pytest.raises(InputError, match="multiple of 8"):
        Hourglass(3, 16, width)


# --- blocks -------------------------------------------------------------------------------------------------------


def test_block_by_hand():
    torch.manual_seed(0)
    block, x = Block(8, 16).eval(), seeded(2, 8, 6, 6) - 0.5
    scale = (1 + 1e-5) ** -0.5  # what a fresh normalisation does in evaluation
    first = F.conv2d(F.relu(x * scale), block.convolutions[0].weight, padding=1)
    second = F.conv2d(F.relu(first * scale), block.convolutions[1].weight, padding=1)
    third = F.conv2d(F.relu(second * scale), block.convolutions[2].weight, padding=1)
    assert [part.shape[1] for part in (first, second, third)] == [8, 4, 4]
    skip = F.conv2d(F.relu(x * scale), block.skip[2].weight)
    assert torch.allclose(block(x), torch.cat([first, second, third], 1) + skip, atol=1e-5)


def test_block_of_equal_width_adds_its_input():
    block = Block(8, 8).eval()
    for convolution in block.convolutions:
        nn.init.zeros_(convolution.weight)
    x = seeded(1, 8, 4, 4)
    assert torch.equal(block(x), x)


# --- projected convolutions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("decays_to", hourglass.DECAYS_TO)
def test_projection_starts_as_the_convolution_itself(decays_to):
    layer, x = ProjectedConvolution(4, 6, decays_to), seeded(2, 4, 5, 5)
    expected = F.conv2d(x, layer.kernel, padding=1)
    for training in (True, False):
        assert torch.allclose(layer.train(training)(x), expected, atol=1e-6)
    assert torch.equal(layer.matrix, torch.eye(6))


@pytest.mark.parametrize("decays_to", hourglass.DECAYS_TO)
def test_mixing_results_is_mixing_kernels(decays_to):
    # Training computes W (K * x), evaluation (W K) * x: equal in value and in all gradients.
    layer = ProjectedConvolution(4, 6, decays_to).double()
    x = seeded(2, 4, 5, 5).double().requires_grad_()
    with torch.no_grad():
        layer.projection.add_(seeded(6, 6, seed=1).double())
    weights = seeded(2, 6, 5, 5, seed=2).double()
    found = []
    for training in (True, False):
        y = layer.train(training)(x)
        found.append((y, *torch.autograd.grad((weights * y).sum(), [x, layer.projection])))
    for mixed, composed in zip(*found, strict=True):
        assert mixed.abs().max() > 0.1
        assert torch.allclose(mixed, composed, atol=1e-12)


@pytest.mark.parametrize(("decays_to", "end"), [("identity", torch.eye(6)), ("zero", torch.zeros(6, 6))])
def test_weight_decay_pulls_where_it_is_said_to(decays_to, end):
    layer = ProjectedConvolution(4, 6, decays_to)
    with torch.no_grad():
        layer.projection.add_(0.5)
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.5, weight_decay=0.5)
    for _ in range(60):
        layer.projection.grad = torch.zeros_like(layer.projection)
        optimiser.step()
    assert torch.allclose(layer.matrix, end, atol=1e-4)


def test_kernels_are_saved_and_never_learned():
    layer = ProjectedConvolution(4, 6)
    assert layer.state_dict().keys() == {"kernel", "projection"}
    assert [name for name, _ in layer.named_parameters()] == ["projection"]
    other = ProjectedConvolution(4, 6)
    assert not torch.equal(other.kernel, layer.kernel)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.kernel, layer.kernel)
    with pytest.raises(InputError, match="expected one of identity, zero"):
        ProjectedConvolution(4, 6, "one")


# --- adaptation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("projected", [True, False])
def test_adopting_a_core_gives_its_function(projected):
    core, images = stirred(small(n_landmarks=5)), seeded(2, 3, 16, 16)
    torch.manual_seed(9)
    ours = Hourglass(5, 16, 8, projected=projected).eval()
    before = ours.heatmaps(images)
    own_points = ours.points.weight.clone()
    ours.adopt(core)
    assert torch.equal(ours.points.weight, own_points)  # the last layer begins anew, whatever its shape
    assert not torch.allclose(ours.heatmaps(images), before)
    ours.points.load_state_dict(core.points.state_dict())
    assert torch.allclose(ours.heatmaps(images), core.heatmaps(images), atol=1e-4)


def test_a_core_of_another_shape_is_refused():
    for changes in ({"width": 16}, {"image_size": 32}):
        with pytest.raises(InputError, match=r"found a core of image_size=.*use the same"):
            small().adopt(small(**changes))


def test_a_frozen_core_leaves_matrices_and_the_last_layer():
    detector = small(projected=True)
    detector.freeze()
    left = {name for name, parameter in detector.named_parameters() if parameter.requires_grad}
    matrices = {f"{name}.projection" for name, m in detector.named_modules() if isinstance(m, ProjectedConvolution)}
    assert left == matrices | {"points.weight", "points.bias"}


def test_plain_convolutions_have_no_bias():
    assert plain_convolution(3, 4).bias is None


# --- landmarks ----------------------------------------------------------------------------------------------------


def test_soft_argmax_of_a_peak_and_of_nothing(monkeypatch):
    detector = small()
    maps = torch.zeros(1, 3, 4, 4)
    maps[0, 0, 1, 3], maps[0, 1, 2, 0] = 99.0, 99.0
    monkeypatch.setattr(detector, "heatmaps", lambda images: maps)
    # Centres of four cells on [-1, 1] are -0.75, -0.25, 0.25, 0.75; a uniform map gives the middle.
    expected = torch.tensor([[[0.75, -0.25], [-0.75, 0.25], [0.0, 0.0]]])
    assert torch.allclose(detector(seeded(1, 3, 16, 16)), expected, atol=1e-6)


def test_beta_sharpens():
    soft, sharp = small(beta=1.0).eval(), small(beta=10.0).eval()
    images = seeded(2, 3, 16, 16)
    assert torch.allclose(10 * soft.heatmaps(images), sharp.heatmaps(images), rtol=1e-4, atol=1e-5)


def test_places_are_not_rounded_to_bfloat16():
    detector = small().eval()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        places = detector(seeded(4, 3, 16, 16))
    assert places.dtype == torch.float32
    assert not torch.equal(places, places.bfloat16().float())
