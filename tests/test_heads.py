"""Heads, pose autoencoder and pose losses: against direct computations, and a planted pose that codes must show."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from ulm.errors import InputError
from ulm.networks.heads import DescriptorHead, DetectorHead, PoseVAE, elbo, gaussian_targets, triplet_loss

# --- heads ------------------------------------------------------------------------------------------------------------


def test_heads() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 384, 12, 10)
    detector, descriptor = DetectorHead(384), DescriptorHead(384)
    logits, descriptors = detector(features), descriptor(features)
    assert logits.shape == (2, 1, 12, 10)
    assert descriptors.shape == (2, 256, 12, 10)
    # Neither a sigmoid nor a norm inside.
    assert logits.min() < 0 < logits.max()
    assert descriptors.norm(dim=1).std() > 0.01
    (logits.square().mean() + descriptors.square().mean()).backward()
    for head in (detector, descriptor):
        assert head[0].weight.shape == (128, 384, 3, 3)
        assert all(p.grad.abs().max() > 0 for p in head.parameters())


def test_heads_see_the_neighbours_of_a_cell_and_no_more() -> None:
    # The normalisation lets every cell feel all others: it is left out here.
    head = DetectorHead(4, width=8)
    head[1] = torch.nn.Identity()
    features = torch.randn(1, 4, 9, 9, requires_grad=True)
    head(features)[0, 0, 4, 4].backward()
    reached = features.grad.abs().sum(1)[0] > 0
    assert reached[3:6, 3:6].all()
    assert reached.sum() == 9


def test_heads_return_float32_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert DetectorHead(16)(torch.randn(1, 16, 8, 8)).dtype == torch.float32
        mean, log_variance = PoseVAE(16, width=4).encode(torch.rand(1, 1, 16, 16))
    assert mean.dtype == log_variance.dtype == torch.float32


# --- pose autoencoder -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_autoencoder_for_all_sizes(size: int) -> None:
    vae = PoseVAE(size, width=4)
    logits, mean, log_variance = vae(torch.rand(2, 1, size, size))
    assert logits.shape == (2, 1, size, size)
    assert mean.shape == log_variance.shape == (2, 64)
    elbo(logits, mean, log_variance, torch.rand(2, 1, size, size))["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in vae.parameters())


def test_channels_of_the_paper_size() -> None:
    with torch.device("meta"):
        vae = PoseVAE()
    layers = [m for m in vae.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.ConvTranspose2d))]
    assert [(m.in_channels, m.out_channels) for m in layers] == [
        *((1, 32), (32, 64), (64, 128), (128, 256)),
        *((256, 128), (128, 64), (64, 32), (32, 1)),
    ]
    assert {m.stride for m in layers} == {(2, 2)}
    assert vae.to_code.in_features == vae.from_code.out_features == 256 * 4 * 4


def test_codes_are_drawn_in_training_alone() -> None:
    torch.manual_seed(0)
    vae, maps = PoseVAE(16, width=4), torch.rand(2, 1, 16, 16)

    def draw(seed: int) -> Tensor:
        return vae(maps, torch.Generator().manual_seed(seed))[0]

    assert torch.equal(draw(1), draw(1))
    assert not torch.allclose(draw(1), draw(2))
    vae.eval()
    assert torch.equal(draw(1), draw(2))
    torch.testing.assert_close(draw(1), vae.decode(vae.encode(maps)[0]))


def test_drawn_codes_have_the_deviation_that_the_encoder_says() -> None:
    vae, seen = PoseVAE(16, code=3, width=4), []
    with torch.no_grad():
        vae.to_code.weight.zero_()
        vae.to_code.bias.copy_(torch.tensor([1.0, -2.0, 0.0, 0.0, math.log(9.0), math.log(0.01)]))
    vae.decode = lambda codes: seen.append(codes) or codes
    vae(torch.rand(4000, 1, 16, 16), torch.Generator().manual_seed(0))
    torch.testing.assert_close(seen[0].mean(0), torch.tensor([1.0, -2.0, 0.0]), atol=0.15, rtol=0)
    torch.testing.assert_close(seen[0].std(0), torch.tensor([1.0, 3.0, 0.1]), atol=0, rtol=0.05)


def test_gradients_flow_back_to_the_detector() -> None:
    logits = torch.randn(2, 1, 16, 16, requires_grad=True)
    vae = PoseVAE(16, width=4)
    targets = torch.rand(2, 1, 16, 16, requires_grad=True)
    elbo(*vae(logits.sigmoid()), targets)["loss"].backward()
    assert logits.grad.abs().max() > 0
    assert targets.grad is None


@pytest.mark.parametrize("reconstruction", ["bce", "mse"])
def test_elbo_equals_a_direct_computation(reconstruction: str) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(3, 1, 4, 4, generator=generator), torch.rand(3, 1, 4, 4, generator=generator)
    mean, log_variance = torch.randn(3, 5, generator=generator), torch.randn(3, 5, generator=generator)
    found = elbo(logits, mean, log_variance, targets, 0.3, reconstruction)
    p = logits.sigmoid()
    cells = (p - targets) ** 2 if reconstruction == "mse" else -targets * p.log() - (1 - targets) * (1 - p).log()
    torch.testing.assert_close(found["reconstruction"], cells.sum() / 3)
    divergence = kl_divergence(Normal(mean, log_variance.exp().sqrt()), Normal(0.0, 1.0)).sum() / 3
    torch.testing.assert_close(found["kl"], divergence)
    torch.testing.assert_close(found["loss"], cells.sum() / 3 + 0.3 * divergence)


FRONT = torch.tensor([[0.3, 0.35], [0.7, 0.35], [0.5, 0.55], [0.35, 0.75], [0.65, 0.75]])
SIDE = torch.tensor([[0.2, 0.35], [0.45, 0.35], [0.2, 0.55], [0.2, 0.75], [0.4, 0.75]])


def _two_poses(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Labels and maps ``(n, 1, 16, 16)`` of five landmarks in one of two poses, moved a little."""
    generator, pose = torch.Generator().manual_seed(seed), torch.arange(n) % 2
    moved = 16 * torch.stack([FRONT, SIDE])[pose] + 0.7 * torch.randn(n, 1, 2, generator=generator)
    return pose, gaussian_targets(moved + 0.4 * torch.randn(n, 5, 2, generator=generator), 16)


def _trained(beta: float, steps: int = 60) -> PoseVAE:
    torch.manual_seed(0)
    vae, (_, maps) = PoseVAE(16, width=4), _two_poses(64, 1)
    optimiser = torch.optim.Adam(vae.parameters(), lr=0.01)
    for _ in range(steps):
        chosen = maps[torch.randint(len(maps), (16,))]
        optimiser.zero_grad()
        elbo(*vae(chosen), chosen, beta)["loss"].backward()
        optimiser.step()
    return vae.eval().requires_grad_(False)


def test_codes_tell_two_poses_apart() -> None:
    vae = _trained(1.0)
    pose, maps = _two_poses(64, 2)
    logits, mean, log_variance = vae(maps)
    terms = elbo(logits, mean, log_variance, maps)
    # Not collapsed: codes carry something, and the decoder uses it.
    assert terms["kl"] > 0.5
    average = maps.mean(0, keepdim=True).expand_as(maps).clamp(1e-4, 1 - 1e-4)
    assert terms["reconstruction"] < F.binary_cross_entropy(average, maps, reduction="sum") / len(maps)
    others = elbo(vae.decode(mean.roll(1, 0)), mean, log_variance, maps)
    assert others["reconstruction"] > 1.2 * terms["reconstruction"]
    # Each nearer to its own pose's mean code; those of other images than the tested ones.
    train_pose, train_maps = _two_poses(64, 1)
    codes = vae.encode(train_maps)[0]
    centres = torch.stack([codes[train_pose == p].mean(0) for p in (0, 1)])
    assert (torch.cdist(mean, centres).argmin(1) == pose).float().mean() > 0.95
    assert (centres[0] - centres[1]).norm() > 1


def test_a_mean_over_cells_would_kill_the_codes() -> None:
    """What the sums in :func:`elbo` are there for: the same as a divergence that counts 256 times."""
    vae = _trained(256.0)
    _, maps = _two_poses(64, 2)
    assert elbo(*vae(maps), maps)["kl"] < 0.1


# --- equation 3 -------------------------------------------------------------------------------------------------------


def _loop(codes: Tensor, labels: Tensor, margin: float) -> Tensor:
    """The expected value of equation 3, triplet by triplet."""
    each = []
    for j in range(len(codes)):
        of_j = [
            (codes[j] - codes[a]).norm() + (margin - (codes[j] - codes[b]).norm()).clamp_min(0)
            for a in range(len(codes))
            for b in range(len(codes))
            if a != j and labels[a] == labels[j] and labels[b] != labels[j]
        ]
        if of_j:
            each.append(torch.stack(of_j).mean())
    return torch.stack(each).mean()


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("margin", [0.8, 1.4])
def test_triplets_equal_a_loop(normalise: bool, margin: float) -> None:
    # Near each other, so that the margin acts; the label 7 has one image alone.
    codes = 0.3 * torch.randn(9, 6, generator=torch.Generator().manual_seed(3)) + 0.3
    labels = torch.tensor([0, 0, 1, 1, 1, 7, 0, 2, 2])
    ours, theirs = codes.clone().requires_grad_(), codes.clone().requires_grad_()
    found = triplet_loss(ours, labels, margin, normalise)
    expected = _loop(F.normalize(theirs, dim=1) if normalise else theirs, labels, margin)
    torch.testing.assert_close(found, expected)
    found.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert triplet_loss(codes, labels, 0.0, normalise) < found


def test_length_counts_only_without_normalisation() -> None:
    codes, labels = torch.randn(6, 4), torch.tensor([0, 0, 1, 1, 2, 2])
    torch.testing.assert_close(triplet_loss(5 * codes, labels), triplet_loss(codes, labels))
    far = 20 * torch.randn(6, 64)
    # As the docstring says: nothing is left of the margin.
    assert triplet_loss(far, labels, 0.8, normalise=False) == triplet_loss(far, labels, 0.0, normalise=False)


@pytest.mark.parametrize("labels", [(0, 0, 0, 0), (0, 1, 2, 3), (5,), ()])
def test_no_triplet_is_zero_with_a_gradient(labels: tuple[int, ...]) -> None:
    codes = torch.randn(len(labels), 4, requires_grad=True)
    loss = triplet_loss(codes, torch.tensor(labels, dtype=torch.int64))
    loss.backward()
    assert loss == 0
    assert torch.equal(codes.grad, torch.zeros_like(codes))


def test_equal_and_zero_codes_have_finite_gradients() -> None:
    codes = torch.tensor([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0], [0.0, 0.0]], requires_grad=True)
    for normalise in (True, False):
        triplet_loss(codes, torch.tensor([0, 0, 1, 1]), normalise=normalise).backward()
    assert codes.grad.isfinite().all()


def test_training_on_triplets_parts_the_clusters() -> None:
    torch.manual_seed(0)
    codes, labels = torch.nn.Parameter(torch.randn(12, 8)), torch.arange(12) % 3
    optimiser = torch.optim.Adam([codes], lr=0.05)
    for _ in range(60):
        optimiser.zero_grad()
        triplet_loss(codes, labels).backward()
        optimiser.step()
    distances = torch.cdist(F.normalize(codes.detach(), dim=1), F.normalize(codes.detach(), dim=1))
    same = labels[:, None] == labels
    assert distances[same].max() < 0.4 < 0.7 < distances[~same].min()


# --- targets ----------------------------------------------------------------------------------------------------------


def test_targets_equal_a_direct_computation() -> None:
    landmarks = torch.tensor([[[3.5, 1.5], [5.2, 6.1]], [[0.5, 7.5], [1.5, 7.5]]])
    found = gaussian_targets(landmarks, 8, sigma=1.5)
    assert found.shape == (2, 1, 8, 8)
    for b in range(2):
        for y in range(8):
            for x in range(8):
                squared = [(x + 0.5 - px) ** 2 + (y + 0.5 - py) ** 2 for px, py in landmarks[b].tolist()]
                assert float(found[b, 0, y, x]) == pytest.approx(max(math.exp(-s / 4.5) for s in squared), abs=1e-6)
    # Column 3, row 1: (x, y), not (y, x).
    assert found[0, 0, 1, 3] == 1


def test_missing_landmarks_are_left_out() -> None:
    nan = math.nan
    landmarks = torch.tensor([[[3.5, 1.5], [nan, nan]], [[nan, 2.0], [2.0, nan]], [[3.5, 1.5], [6.5, 6.5]]])
    found = gaussian_targets(landmarks, 8)
    assert torch.equal(found[0], gaussian_targets(landmarks[:1, :1], 8)[0])
    assert found[1].abs().max() == 0
    assert found[2, 0, 6, 6] == 1
    assert found[0, 0, 6, 6] < 1e-3


def test_targets_have_no_gradient() -> None:
    landmarks = torch.full((1, 2, 2), 3.0, requires_grad=True)
    assert not gaussian_targets(landmarks, 8).requires_grad


# --- errors -----------------------------------------------------------------------------------------------------------


def test_bad_values() -> None:
    for size in (8, 48, 256):
        with pytest.raises(InputError, match="power of two from 16 to 128"):
            PoseVAE(size)
    with pytest.raises(InputError, match="expected at least 1"):
        PoseVAE(16, code=0)
    vae = PoseVAE(16, width=4)
    for shape in ((2, 1, 32, 32), (2, 3, 16, 16), (1, 16, 16)):
        with pytest.raises(InputError, match=r"expected \(B, 1, 16, 16\)"):
            vae(torch.rand(shape))
    maps, codes = torch.rand(2, 1, 16, 16), torch.randn(2, 64)
    with pytest.raises(InputError, match="expected one of bce, mse"):
        elbo(maps, codes, codes, maps, reconstruction="l1")
    with pytest.raises(InputError, match=r"found targets of shape \(1, 1, 16, 16\)"):
        elbo(maps, codes, codes, maps[:1])
    for sigma in (0.0, -1.0, math.nan):
        with pytest.raises(InputError, match="positive deviation"):
            gaussian_targets(torch.rand(1, 2, 2), 8, sigma)
    for wrong in (torch.zeros(3), torch.zeros(2, 1)):
        with pytest.raises(InputError, match=r"expected \(B, n\) and \(B,\)"):
            triplet_loss(codes, wrong)
