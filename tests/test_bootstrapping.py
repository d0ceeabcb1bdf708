"""The bootstrapping loss against direct computation, correspondences, keypoints, contrastive loss, regions."""

import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ulm import geometry
from ulm.methods import bootstrapping as bs
from ulm.methods.stable_keypoints import draw_affines, invert_affines, warp

S = 6
NAMES = ("descriptors_a", "descriptors_b", "logits_a", "logits_b")


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def affine(a, b, tx, c, d, ty):
    return torch.tensor([[[a, b, tx], [c, d, ty]]], dtype=torch.float32)


def turned(degrees, scale=1.0, shift=0.0):
    angle = math.radians(degrees)
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    return affine(cos, -sin, shift, sin, cos, 0.0)


IDENTITY, MIRROR = affine(1, 0, 0, 0, 1, 0), affine(-1, 0, 0, 0, 1, 0)


# --- correspondences ----------------------------------------------------------------------------------------------


def number(row, column, size=S):
    return row * size + column


def test_identity_matches_every_cell_with_itself():
    for warping in (IDENTITY, geometry.draw_warps(1, geometry.WarpScale(), random())):
        ab, ba = bs.correspondences(warping, S)
        assert ab.dtype == ba.dtype == torch.int64
        assert torch.equal(ab, torch.arange(S * S)[None])
        assert torch.equal(ba, ab)


def test_a_shift_by_two_cells_loses_two_columns():
    # The copy shows at column c what the image has at c + 2.
    ab, ba = bs.correspondences(affine(1, 0, 4 / S, 0, 1, 0), S)
    for row in range(S):
        assert ba[0, number(row, 0)] == number(row, 2)
        assert ab[0, number(row, 2)] == number(row, 0)
        assert ba[0, number(row, 4)] == ba[0, number(row, 5)] == ab[0, number(row, 0)] == ab[0, number(row, 1)] == -1
    assert (ab >= 0).sum() == (ba >= 0).sum() == S * (S - 2)


def test_a_quarter_turn_and_a_mirror_by_hand():
    # x_in = -y_out, y_in = x_out: (row, column) of the copy is (column, S - 1 - row) of the image.
    ab, ba = bs.correspondences(turned(90), S)
    mirrored_ab, mirrored_ba = bs.correspondences(MIRROR, S)
    for row in range(S):
        for column in range(S):
            assert ba[0, number(row, column)] == number(column, S - 1 - row)
            assert ab[0, number(column, S - 1 - row)] == number(row, column)
            assert mirrored_ab[0, number(row, column)] == number(row, S - 1 - column)
    assert torch.equal(mirrored_ab, mirrored_ba)


def test_nothing_matches_out_of_bounds():
    ab, ba = bs.correspondences(torch.cat([affine(1, 0, 2, 0, 1, 0), affine(1, 0, 1.0, 0, 1, -1.0)]), S)
    assert (ab[0] == -1).all()
    assert (ba[0] == -1).all()
    assert (ab[1] >= 0).sum() == (ba[1] >= 0).sum() == S * S // 4


def by_hand(matrix, size):
    """Pairs whose centres fall into each other's cells, with the analytic inverse."""
    centres = geometry.pixel_grid(size).reshape(1, -1, 2)

    def cells(maps):
        places = ((centres @ maps[..., :2].mT + maps[..., 2]) + 1) / 2 * size
        return [
            int(y) * size + int(x) if 0 <= x < size and 0 <= y < size else -1 for x, y in places[0].floor().tolist()
        ]

    forth, back = cells(invert_affines(matrix)), cells(matrix)
    ab = [j if j >= 0 and back[j] == i else -1 for i, j in enumerate(forth)]
    ba = [i if i >= 0 and forth[i] == j else -1 for j, i in enumerate(back)]
    return torch.tensor([ab]), torch.tensor([ba])


@pytest.mark.parametrize(
    "matrix", [turned(20, 0.8, 0.13), turned(-37, 1.3, -0.21), draw_affines(1, random(1)), MIRROR @ torch.eye(3) * 0.71]
)
def test_affine_maps_equal_those_with_the_inverse_at_hand(matrix):
    found, expected = bs.correspondences(matrix, 16), by_hand(matrix, 16)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    assert 20 < (found[0] >= 0).sum() < 256


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000))
def test_spline_matches_are_one_to_one_and_show_the_same_place(seed):
    size, warping = 16, geometry.draw_warps(2, geometry.LOCAL, random(seed))
    ab, ba = bs.correspondences(warping, size)
    centres = geometry.pixel_grid(size).reshape(1, -1, 2)
    mapped = warping(centres.expand(2, -1, -1))
    for n in range(2):
        cells = (ba[n] >= 0).nonzero().flatten()
        assert torch.equal(ab[n, ba[n, cells]], cells)
        assert (ab[n] >= 0).sum() == len(cells) > size
        # The centre falls into the matched cell: at most half a cell off along each axis.
        assert (mapped[n, cells] - centres[0, ba[n, cells]]).abs().max() <= 1 / size + 1e-5


def test_spline_matches_agree_both_ways():
    # Against a search of the whole copy, 8 x 8 places a cell, for the place that shows a cell's centre.
    size, fine = 12, 96
    warping = geometry.draw_warps(1, geometry.WarpScale(displacement=0.04, n_control=5, rotation=10), random(3))
    ab, _ = bs.correspondences(warping, size)
    centres, places = (geometry.pixel_grid(n).reshape(-1, 2) for n in (size, fine))
    shown = warping(places[None])[0]
    distance, best = torch.cdist(centres, shown).min(1)
    back, inside = bs._cells(places[best], size)
    forth, inside_forth = bs._cells(warping(centres[None])[0], size)
    expected = torch.where(inside & (distance < 2 / fine) & inside_forth[back], back, -1)
    expected = torch.where(forth[back] == torch.arange(size * size), expected, -1)
    assert (expected == ab[0]).float().mean() > 0.95
    assert (ab >= 0).sum() > 70


def test_a_fold_matches_nothing_twice():
    # The copy shows everything on one line: no inverse.
    ab, ba = bs.correspondences(affine(0, 0, 0.1, 0, 1, 0), S)
    assert (ab == -1).all()
    assert (ba == -1).all()


# --- the loss -----------------------------------------------------------------------------------------------------


def pair(batch=2, width=5, size=S, seed=0, dtype=torch.float32):
    def draw(channels):
        return torch.randn(batch, channels, size, size, generator=generator, dtype=dtype).requires_grad_()

    generator = random(seed)
    a, b = draw(width), draw(width)
    return {"descriptors_a": a, "descriptors_b": b, "logits_a": draw(1), "logits_b": draw(1)}


def matches(batch=2, size=S, seed=0):
    ab, ba = bs.correspondences(draw_affines(batch, random(seed), rotation=40), size)
    return {"matches_ab": ab, "matches_ba": ba}


def direct(descriptors_a, descriptors_b, logits_a, logits_b, matches_ab, matches_ba, scale=19.88, learned=None):
    """The definition, cell by cell, from the full matrix; also the labels of a and b."""
    nll, bce, hits, labels = [], [], [], ([], [])
    learned = [True] * len(matches_ab) if learned is None else learned
    for n in range(len(matches_ab)):
        a, b = (F.normalize(maps[n].flatten(1).T, dim=1) for maps in (descriptors_a, descriptors_b))
        similar = scale * a @ b.T
        forth, back = similar.argmax(1), similar.argmax(0)
        for which, (own, logits, rows) in enumerate(
            ((matches_ab[n], logits_a[n].flatten(), similar), (matches_ba[n], logits_b[n].flatten(), similar.T))
        ):
            best, other = (forth, back) if which == 0 else (back, forth)
            for i in (own >= 0).nonzero().flatten():
                j = own[i]
                if learned[n]:
                    nll.append(rows[i].exp().sum().log() - rows[i, j])
                label = float(best[i] == j and other[j] == i)
                labels[which].append(label)
                hits.append(label)
                bce.append(-(label * F.logsigmoid(logits[i]) + (1 - label) * F.logsigmoid(-logits[i])))
    # Both directions have as many pairs: twice the mean is the sum of the two means.
    return 2 * torch.stack(nll).mean(), torch.stack(bce).mean(), sum(hits) / len(hits), labels


def gradients(loss, tensors):
    return torch.autograd.grad(loss, [tensors[name] for name in NAMES], materialize_grads=True)


@pytest.mark.parametrize("block", [1, 5, 8, S * S, 1000, None])
def test_values_and_gradients_equal_the_full_matrix(block):
    tensors, known = pair(), matches()
    found = bs.silk_loss(**tensors, **known, block=block)
    descriptor, detector, matched, _ = direct(**tensors, **known)
    torch.testing.assert_close(found["descriptor"], descriptor, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found["detector"], detector, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found["loss"], descriptor + detector, rtol=1e-5, atol=1e-5)
    assert found["matched"] == pytest.approx(matched)
    assert not found["matched"].requires_grad
    for ours, theirs in zip(gradients(found["loss"], tensors), gradients(descriptor + detector, tensors), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        assert ours.abs().max() > 1e-3


def test_in_double_precision_it_equals_numerical_gradients():
    tensors, known = pair(1, 3, 4, dtype=torch.float64), matches(1, 4)

    def loss(a, b):
        return bs.silk_loss(a, b, tensors["logits_a"], tensors["logits_b"], **known, scale=5.0, block=3)["descriptor"]

    assert torch.autograd.gradcheck(loss, (tensors["descriptors_a"], tensors["descriptors_b"]))


def test_the_denominator_runs_over_cells_without_a_partner_too():
    tensors = pair(1)
    lone = torch.full((1, S * S), -1)
    lone[0, 7] = 7
    found = bs.silk_loss(**tensors, matches_ab=lone, matches_ba=lone)["descriptor"]
    a, b = (F.normalize(tensors[name].flatten(2)[0].T, dim=1) for name in NAMES[:2])
    similar = 19.88 * a @ b.T
    expected = similar[7].logsumexp(0) + similar[:, 7].logsumexp(0) - 2 * similar[7, 7]
    torch.testing.assert_close(found, expected)


def test_the_detector_learns_which_cells_are_mutual_nearest_neighbours():
    # A third of the partners are made alike, so that there are labels of both kinds.
    tensors, known = pair(2, 8, 8, seed=3), matches(2, 8)
    with torch.no_grad():
        for n, i in [(n, i) for n in range(2) for i in range(0, 64, 3)]:
            if (j := int(known["matches_ab"][n, i])) >= 0:
                tensors["descriptors_b"].flatten(2)[n, :, j] = tensors["descriptors_a"].flatten(2)[n, :, i]
    *_, matched, labels = direct(**tensors, **known)
    assert 0.2 < matched < 0.8
    loss = bs.silk_loss(**tensors, **known, block=10)["detector"]
    for which, (name, partners) in enumerate((("logits_a", "matches_ab"), ("logits_b", "matches_ba"))):
        valid = known[partners] >= 0
        (slope,) = torch.autograd.grad(loss, tensors[name], retain_graph=True)
        total = sum((known[each] >= 0).sum() for each in known)
        implied = (tensors[name].sigmoid() - slope * total).flatten(1)
        assert torch.allclose(implied[valid], torch.tensor(labels[which]), atol=1e-4)
        assert (slope.flatten(1)[~valid] == 0).all()
    # Labels carry no gradient.
    assert all((g == 0).all() for g in gradients(loss, tensors)[:2])


@pytest.mark.parametrize("block", [1, 7, None])
def test_mutual_nearest_neighbours_against_brute_force(block):
    tensors = pair(2, 6, 7, seed=4)
    found = bs.mutual_nearest(tensors["descriptors_a"], tensors["descriptors_b"], block)
    for n in range(2):
        a, b = (F.normalize(tensors[name][n].flatten(1).T, dim=1) for name in NAMES[:2])
        similar = (a @ b.T).tolist()
        columns = list(zip(*similar, strict=True))
        for i, row in enumerate(similar):
            j = row.index(max(row))
            assert found[n, i] == (j if columns[j].index(max(columns[j])) == i else -1)
    assert 5 < (found >= 0).sum() < 60


@pytest.mark.parametrize("rival", [False, True])
def test_a_cell_without_a_partner_can_be_the_nearer_one(rival):
    tensors, lone = pair(1), torch.full((1, S * S), -1)
    lone[0, 0] = 0
    with torch.no_grad():
        a, b = (tensors[name].flatten(2)[0] for name in NAMES[:2])
        b[:, 0] = a[:, 0] + 0.01
        if rival:
            a[:, 5] = b[:, 0]
    assert bs.silk_loss(**tensors, matches_ab=lone, matches_ba=lone)["matched"] == (0 if rival else 1)


def test_descriptors_that_are_all_alike_match_nowhere():
    tensors = pair()
    same = {name: torch.ones(2, 5, S, S) for name in NAMES[:2]}
    assert bs.silk_loss(**(tensors | same), **matches())["matched"] == 0


def test_mirrored_pairs_train_the_detector_alone():
    tensors, known = pair(), matches()
    mirrored = torch.tensor([False, True])
    found = bs.silk_loss(**tensors, **known, mirrored=mirrored)
    descriptor, detector, *_ = direct(**tensors, **known, learned=[True, False])
    torch.testing.assert_close(found["descriptor"], descriptor, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found["detector"], detector, rtol=1e-5, atol=1e-5)
    of_a = gradients(found["descriptor"], tensors)[0]
    assert (of_a[1] == 0).all()
    assert (of_a[0] != 0).any()
    everything = bs.silk_loss(**tensors, **known, mirrored=mirrored, mirror_pairs="all")
    assert torch.equal(everything["descriptor"], bs.silk_loss(**tensors, **known)["descriptor"])


@pytest.mark.parametrize("images", [1, 2])
def test_images_without_a_match_are_survived(images):
    tensors, known = pair(), matches()
    for each in known.values():
        each[:images] = -1
    found = bs.silk_loss(**tensors, **known)
    slopes = gradients(found["loss"], tensors)
    assert all(torch.isfinite(g).all() and (g[:images] == 0).all() for g in slopes)
    assert (found["loss"] == 0) == (images == 2)


def test_a_nan_is_not_hidden():
    tensors, known = pair(), matches()
    with torch.no_grad():
        tensors["descriptors_b"][0, 0, 2, 2] = math.nan
    assert bs.silk_loss(**tensors, **known)["loss"].isnan()


def test_a_zero_descriptor_and_the_largest_scale_stay_finite():
    tensors, known = pair(), matches()
    with torch.no_grad():
        tensors["descriptors_a"][0, :, 1, 1] = 0
        tensors["descriptors_b"][1] = tensors["descriptors_b"][1, :, :1, :1]
    found = bs.silk_loss(**tensors, **known, scale=70.0)
    expected, *_ = direct(**{name: value.double() for name, value in tensors.items()}, **known, scale=70.0)
    torch.testing.assert_close(found["descriptor"].double(), expected, rtol=1e-5, atol=1e-4)
    assert all(torch.isfinite(g).all() for g in gradients(found["loss"], tensors))


def test_under_autocast_values_stay_and_gradients_are_close():
    tensors, known = pair(2, 32, 8), matches(2, 8)
    plain = bs.silk_loss(**tensors, **known)
    with torch.autocast("cpu", torch.bfloat16):
        half = bs.silk_loss(**tensors, **known)
    assert all(torch.equal(half[name], plain[name]) for name in plain)
    assert half["loss"].dtype == torch.float32
    for ours, theirs in zip(gradients(half["loss"], tensors), gradients(plain["loss"], tensors), strict=True):
        assert (ours - theirs).norm() < 0.02 * theirs.norm()
    halved = {name: value.bfloat16() for name, value in tensors.items()}
    assert bs.silk_loss(**halved, **known)["loss"].dtype == torch.float32


@pytest.mark.gpu
@pytest.mark.parametrize("half", [False, True])
def test_the_loss_on_cuda_equals_that_on_the_cpu(half):
    tensors, known = pair(2, 64, 16), matches(2, 16)
    there = {name: value.detach().cuda().requires_grad_() for name, value in tensors.items()}
    with torch.autocast("cuda", torch.bfloat16, enabled=half):
        loss = bs.silk_loss(**there, **{name: value.cuda() for name, value in known.items()}, block=100)["loss"]
    expected = bs.silk_loss(**tensors, **known)["loss"]
    torch.testing.assert_close(loss.cpu(), expected, rtol=1e-2, atol=1e-2)
    for ours, theirs in zip(gradients(loss, there), gradients(expected, tensors), strict=True):
        assert (ours.cpu() - theirs).norm() < 0.05 * theirs.norm()


def test_similarities_are_never_held_at_once():
    # Tensors that the forward pass keeps for the backward pass.
    tensors, known = pair(1, 4, 24), matches(1, 24)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        bs.silk_loss(**tensors, **known, block=16)
    assert max(kept) < 24**4 / 50


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"descriptors_b": torch.zeros(2, 4, S, S)}, "found descriptors"),
        ({"descriptors_a": torch.zeros(2, 4, S), "descriptors_b": torch.zeros(2, 4, S)}, "found descriptors"),
        ({"logits_a": torch.zeros(2, S, S)}, "found logits"),
        ({"matches_ab": torch.zeros(2, 5, dtype=torch.int64)}, "found matches"),
        ({"matches_ab": torch.zeros(2, S * S, dtype=torch.int64)}, "not each other's inverse"),
        ({"matches_ba": torch.full((2, S * S), -1)}, "not each other's inverse"),
        ({"matches_ba": torch.full((2, S * S), S * S)}, "not each other's inverse"),
        ({"scale": 71.0}, "found scale=71"),
        ({"scale": 0.0}, "found scale=0"),
        ({"block": 0}, "found block=0"),
        ({"mirror_pairs": "none"}, "found mirror_pairs='none'"),
    ],
)
def test_the_loss_says_what_does_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        bs.silk_loss(**(pair() | matches() | change))


def test_descriptors_of_a_random_texture_become_matchable():
    torch.manual_seed(0)
    size, affines = 16, turned(25, 0.9, 0.05)
    texture = F.interpolate(torch.rand(1, 3, 24, 24, generator=random(2)), 64, mode="bicubic", align_corners=False)
    views = torch.cat([texture, warp(texture, affines)])
    net = nn.Sequential(
        nn.Conv2d(3, 24, 5, 2, 2), nn.ReLU(), nn.Conv2d(24, 48, 3, 2, 1), nn.ReLU(), nn.Conv2d(48, 33, 1)
    )
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    known = bs.correspondences(affines, size)

    def loss():
        first, second = net(views).split(1)
        return bs.silk_loss(first[:, 1:], second[:, 1:], first[:, :1], second[:, :1], *known)

    before = loss()
    for _ in range(60):
        optimiser.zero_grad()
        loss()["loss"].backward()
        optimiser.step()
    after = loss()
    assert before["matched"] < 0.3
    assert after["matched"] > 0.8
    assert after["descriptor"] < 0.5 * before["descriptor"]
    assert after["detector"] < before["detector"]
    with torch.no_grad():
        first, second = net(views).split(1)
    found = bs.mutual_nearest(first[:, 1:], second[:, 1:])
    assert (found == known[0])[known[0] >= 0].float().mean() == pytest.approx(float(after["matched"]))


# --- keypoints ----------------------------------------------------------------------------------------------------


def bumps(places, size=16, sigma=1.0):
    """Probabilities ``(1, 1, size, size)`` with a Gaussian of height 0.9 at each (x, y), in cells."""
    points = geometry.to_normalised(torch.tensor([places], dtype=torch.float32), size)
    return 0.9 * geometry.gaussian_maps(points, size, 2 * sigma / size).amax(1, keepdim=True)


def descriptor_maps(batch=1, width=4, size=16, seed=0):
    return torch.randn(batch, width, size, size, generator=random(seed))


def test_keypoints_lie_a_quarter_cell_towards_the_truth():
    true = [(4.8, 5.5), (11.2, 10.3)]
    (found,) = bs.keypoints(bumps(true), descriptor_maps(), 64, logits=False)
    # Cells (4.5, 5.5) and (11.5, 10.5): a quarter to the right; a quarter to the left and up; four pixels a cell.
    expected = torch.tensor([(4.75, 5.5), (11.25, 10.25)]) * 4
    order = found.places[:, 0].argsort()
    assert torch.allclose(found.places[order], expected)
    assert (found.places[order] / 4 - torch.tensor(true)).abs().max() < 0.06
    assert (found.scores > 0.7).all()
    assert (found.scores.diff() <= 0).all()


def test_places_are_in_pixels_of_an_image_that_is_not_square():
    (found,) = bs.keypoints(bumps([(3.5, 8.5)]), descriptor_maps(), (32, 160), logits=False)
    assert torch.allclose(found.places, torch.tensor([[35.0, 17.0]]))


def test_a_corner_does_not_leave_its_cell():
    (found,) = bs.keypoints(bumps([(0.4, 15.8)]), descriptor_maps(), 16, logits=False)
    assert torch.allclose(found.places, torch.tensor([[0.5, 15.5]]))


def test_descriptors_are_read_bilinearly_then_normalised():
    maps = descriptor_maps()
    (found,) = bs.keypoints(bumps([(4.8, 5.5)]), maps, 16, logits=False)
    raw = 0.75 * maps[0, :, 5, 4] + 0.25 * maps[0, :, 5, 5]
    torch.testing.assert_close(found.descriptors[0], raw / raw.norm(), rtol=1e-4, atol=1e-5)
    sampled = bs.sample_descriptors(maps, torch.tensor([[[4.75, 5.5], [math.nan, math.nan]]]), 16)
    torch.testing.assert_close(sampled[0, 0], raw, rtol=1e-4, atol=1e-5)
    assert (sampled[0, 1] == 0).all()


def test_logits_and_probabilities_give_the_same():
    logits = torch.randn(2, 1, 16, 16, generator=random(5))
    for one, other in zip(
        bs.keypoints(logits, descriptor_maps(2), 16),
        bs.keypoints(logits.sigmoid(), descriptor_maps(2), 16, logits=False),
        strict=True,
    ):
        assert all(torch.allclose(x, y) for x, y in zip(one, other, strict=True))
        assert len(one.scores) > 5


@pytest.mark.parametrize(("size", "radius", "cells"), [(64, 2.0, 2), (128, 2.0, 4), (32, 2.0, 1), (16, 1.0, 1)])
def test_suppression_is_square_and_scales_with_the_grid(size, radius, cells):
    logits = torch.full((1, 1, size, size), -9.0)
    logits[0, 0, 8, 8], logits[0, 0, 8 + cells, 8 + cells], logits[0, 0, 8, 9 + cells] = 2.0, 1.0, 0.5
    (found,) = bs.keypoints(logits, descriptor_maps(size=size), size, radius=radius)
    # The second is in the first's square, the third, one cell beyond it, in the second's.
    assert torch.allclose(found.scores[0], torch.tensor(2.0).sigmoid())
    assert len(found.scores) == 1
    (everything,) = bs.keypoints(logits, descriptor_maps(size=size), size, radius=0)
    assert len(everything.scores) == 3


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000))
def test_no_two_keypoints_share_a_square(seed):
    # Few distinct values: many ties.
    logits = torch.randint(0, 3, (1, 1, 64, 64), generator=random(seed)).float()
    (found,) = bs.keypoints(logits, descriptor_maps(size=64), 64, most=4096)
    cells = found.places.floor()
    distances = torch.cdist(cells, cells, p=math.inf).fill_diagonal_(math.inf)
    assert distances.min() > 2
    assert len(cells) > 5


def test_threshold_most_and_least():
    probabilities = bumps([(2.5, 2.5), (8.5, 2.5), (13.5, 2.5), (8.5, 12.5)])
    probabilities[..., 10:, :] /= 9
    get = lambda **options: bs.keypoints(probabilities, descriptor_maps(), 16, logits=False, **options)[0]  # noqa: E731
    assert len(get().scores) == 3
    assert len(get(threshold=0.05).scores) == 4
    assert len(get(most=2).scores) == 2
    found = get(least=4)
    assert found.scores.tolist() == pytest.approx([0.9, 0.9, 0.9, 0.1], abs=1e-4)
    # The threshold itself is not above it.
    assert len(get(threshold=1.0).scores) == 0
    assert get(threshold=1.0).descriptors.shape == (0, 4)
    # No more than there are local maxima: neither of them on the region's edge.
    assert len(get(least=50, roi=torch.tensor([[0.0, 0.0, 16.0, 5.0]])).scores) == 3


@pytest.mark.parametrize("as_mask", [False, True])
def test_region_of_interest(as_mask):
    probabilities = bumps([(4.5, 4.5), (10.5, 10.5)]).expand(2, -1, -1, -1)
    roi = torch.tensor([[0.0, 0.0, 32.0, 32.0], [32.0, 32.0, 64.0, 64.0]])
    if as_mask:
        masks = torch.zeros(2, 16, 16, dtype=torch.bool)
        masks[0, :8, :8] = masks[1, 8:, 8:] = True
        roi = masks
    first, second = bs.keypoints(probabilities, descriptor_maps(2), 64, roi, logits=False)
    assert torch.allclose(first.places, torch.tensor([[18.0, 18.0]]))
    assert torch.allclose(second.places, torch.tensor([[42.0, 42.0]]))


def test_the_edge_of_a_region_makes_no_keypoint():
    # The only maximum lies just outside; the slope inside is no maximum.
    (found,) = bs.keypoints(
        bumps([(8.5, 8.5)]), descriptor_maps(), 16, torch.tensor([[0.0, 0.0, 8.0, 16.0]]), threshold=0.3, logits=False
    )
    assert len(found.scores) == 0


@pytest.mark.parametrize(
    "empty", [torch.tensor([[8.0, 8.0, 8.0, 8.0]]), torch.full((1, 4), math.nan), torch.zeros(1, 16, 16).bool()]
)
def test_an_empty_region_is_survived_and_reported_once(empty):
    whole = torch.ones_like(empty) if empty.ndim == 3 else torch.tensor([[0.0, 0.0, 16.0, 16.0]])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(2):
            first, second = bs.keypoints(
                bumps([(4.5, 4.5)]).expand(2, -1, -1, -1),
                descriptor_maps(2),
                16,
                torch.cat([empty, whole]),
                least=1,
                logits=False,
            )
    assert [str(warning.message) for warning in caught] == [
        "an image with an empty region of interest has no keypoints"
    ]
    assert len(first.scores) == 0
    assert first.descriptors.shape == (0, 4)
    assert len(second.scores) == 1


def test_cells_that_are_not_finite_are_no_keypoints():
    probabilities = bumps([(4.5, 4.5), (10.5, 10.5), (4.5, 12.5)])
    maps = descriptor_maps()
    probabilities[0, 0, 10, 10] = math.nan
    maps[0, 1, 12, 4] = math.inf
    with pytest.warns(RuntimeWarning, match="not finite"):
        (found,) = bs.keypoints(probabilities, maps, 16, logits=False, threshold=0.8)
    assert torch.allclose(found.places, torch.tensor([[4.5, 4.5]]))
    with pytest.warns(RuntimeWarning, match="not finite"):
        (found,) = bs.keypoints(torch.full_like(probabilities, math.nan), maps, 16, least=3)
    assert len(found.places) == 0
    with pytest.warns(RuntimeWarning, match="not finite"):
        (found,) = bs.keypoints(probabilities, maps, 16, logits=False, least=20)
    assert all(part.isfinite().all() for part in found)


def test_keypoints_are_deterministic_and_do_not_depend_on_the_batch():
    logits, maps = torch.randn(3, 1, 16, 16, generator=random(7)), descriptor_maps(3)
    together, again = bs.keypoints(logits, maps, 16), bs.keypoints(logits, maps, 16)
    alone = [bs.keypoints(logits[n : n + 1], maps[n : n + 1], 16)[0] for n in range(3)]
    for one, other, third in zip(together, again, alone, strict=True):
        assert all(torch.equal(x, y) and torch.equal(x, z) for x, y, z in zip(one, other, third, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": torch.zeros(1, 2, 16, 16)}, "found scores"),
        ({"scores": torch.zeros(1, 1, 16, 8)}, "found scores"),
        ({"descriptors": torch.zeros(1, 4, 8, 8)}, "found descriptors"),
        ({"descriptors": torch.zeros(2, 4, 16, 16)}, "found descriptors"),
        ({"roi": torch.zeros(2, 4)}, "found roi"),
        ({"roi": torch.zeros(1, 8, 8)}, "found roi"),
        ({"least": 101}, "found least=101"),
        ({"most": 0}, "most=0"),
        ({"radius": -1.0}, "found radius=-1"),
        ({"radius": math.nan}, "found radius=nan"),
    ],
)
def test_keypoints_say_what_does_not_fit(change, message):
    arguments = {"scores": torch.zeros(1, 1, 16, 16), "descriptors": descriptor_maps(), "image_size": 16}
    with pytest.raises(ValueError, match=message):
        bs.keypoints(**(arguments | change))


# --- contrastive loss ---------------------------------------------------------------------------------------------


def points(descriptors, places, labels):
    return torch.tensor([descriptors]).float(), torch.tensor([places]).float(), torch.tensor([labels])


def contrast(a, b, size=64, **options):
    return bs.contrastive_loss(a[0], b[0], a[1], b[1], a[2], b[2], size, **options)


A = points([[0.0, 0.0], [0.3, 0.4], [3.0, 0.0]], [[10, 10], [20, 10], [22, 10]], [0, 1, -1])
B = points([[0.0, 0.2], [0.0, 0.0]], [[5, 5], [50, 50]], [0, 2])


def test_contrastive_loss_by_hand():
    found = contrast(A, B)
    # Positive: label 0, d = 0.2. Within A: 0-1 at d = 0.5, 0-2 at d = 3; 1-2 is 2 cells apart: none. Within B: d = 0.2.
    assert found["positive"] == pytest.approx(0.2**2 / 4)
    assert found["negative"] == pytest.approx((0.3**2 + 0 + 0.6**2) / 4)
    assert found["loss"] == pytest.approx(float(found["positive"] + found["negative"]))
    assert contrast(A, B, margin=0.4)["negative"] == pytest.approx(0.2**2 / 4)
    # At twice the size the same pixels are half as many cells apart: 0-1 is 5 cells, 0-2 6 cells.
    assert contrast(A, B, size=128)["negative"] == pytest.approx((0 + 0.6**2) / 3)
    assert contrast(A, B, apart=1.0)["positive"] == pytest.approx(0.2**2 / 5)


def test_negatives_of_two_images():
    found = contrast(A, B, negatives="both")
    # 0-2, 1-0, 1-2 of A and B: d = 0, sqrt(0.13), 0.5. The point without a label takes no part.
    across = [0.8**2, (0.8 - 0.13**0.5) ** 2, 0.3**2]
    assert found["negative"] == pytest.approx((0.3**2 + 0.6**2 + sum(across)) / 7)


def test_ignored_labels_are_neither():
    # Labels 0 and 2 are one landmark in two pose clusters.
    ignore = torch.zeros(3, 3, dtype=torch.bool)
    ignore[0, 2] = ignore[2, 0] = True
    found = contrast(A, B, negatives="both", ignore=ignore)
    across = [(0.8 - 0.13**0.5) ** 2, 0.3**2]
    assert found["negative"] == pytest.approx((0.3**2 + sum(across)) / 5)
    assert found["positive"] == pytest.approx(0.2**2 / 5)
    assert contrast(A, B, ignore=torch.ones(3, 3, dtype=torch.bool))["positive"] == 0


def test_padding_takes_no_part_even_if_it_is_nan():
    padded = [torch.cat([part, part[:, :1]], 1) for part in A]
    padded[0][0, 3], padded[1][0, 3] = math.nan, math.nan
    padded[0].requires_grad_()
    found = contrast(padded, B)
    assert found["loss"] == contrast(A, B)["loss"]
    found["loss"].backward()
    assert padded[0].grad.isfinite().all()
    assert (padded[0].grad[0, 3] == 0).all()


def test_equal_labels_of_one_image_are_no_negatives():
    twice = points([[0.0, 0.0], [0.1, 0.0]], [[5, 5], [50, 50]], [1, 1])
    assert contrast(twice, B)["negative"] == pytest.approx(0.6**2)


def test_a_batch_is_one_pool_of_pairs_and_gradients_are_right():
    torch.manual_seed(0)
    a, b = (torch.randn(2, n, 3, dtype=torch.float64) for n in (4, 5))
    places = [torch.rand(2, n, 2) * 64 for n in (4, 5)]
    labels = [torch.stack([torch.randperm(n) for _ in range(2)]) for n in (4, 5)]
    a.requires_grad_()
    total = bs.contrastive_loss(a, b, *places, *labels, 64, margin=3.0)["loss"]
    (slope,) = torch.autograd.grad(total, a)
    sums, pairs = 0.0, 0
    for n in range(2):
        for i in range(4):
            for j in range(5):
                if labels[0][n, i] == labels[1][n, j]:
                    sums, pairs = sums + (a[n, i] - b[n, j]).square().sum(), pairs + 1
        for x, where in ((a, places[0]), (b, places[1])):
            for i in range(x.shape[1]):
                for j in range(i):
                    if (where[n, i] - where[n, j]).norm() >= 5.7:
                        sums = sums + (3 - (x[n, i] - x[n, j]).norm()).clamp_min(0) ** 2
                        pairs += 1
    torch.testing.assert_close(total.double(), sums / pairs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(slope, torch.autograd.grad(sums / pairs, a)[0], rtol=1e-5, atol=1e-5)


def test_points_that_coincide_have_a_finite_gradient():
    a = [part.clone() for part in A]
    a[0][:] = 0
    a[0].requires_grad_()
    contrast(a, B)["loss"].backward()
    assert a[0].grad.isfinite().all()


def test_no_pairs_give_zero():
    empty = (torch.zeros(2, 0, 3, requires_grad=True), torch.zeros(2, 0, 2), torch.zeros(2, 0, dtype=torch.int64))
    found = contrast(empty, empty, negatives="both")
    assert found["loss"] == 0
    found["loss"].backward()


def test_contrastive_loss_says_what_does_not_fit():
    with pytest.raises(ValueError, match="found negatives='all'"):
        contrast(A, B, negatives="all")
    with pytest.raises(ValueError, match="expected \\(B, N, D\\)"):
        contrast((A[0], A[1][:, :2], A[2]), B)


# --- region of interest -------------------------------------------------------------------------------------------


def objects(batch=12, size=16, share=6, seed=0):
    """Features of a square object somewhere inside on a background, noisy, and the true masks."""
    generator = random(seed)
    masks = torch.zeros(batch, size, size, dtype=torch.bool)
    for mask in masks:
        y, x = torch.randint(1, size - share, (2,), generator=generator)
        mask[y : y + share, x : x + share] = True
    kinds = torch.randn(2, 8, generator=generator)
    features = kinds[masks.long()].permute(0, 3, 1, 2)
    return features + 0.2 * torch.randn(features.shape, generator=generator), masks


@pytest.mark.parametrize("share", [4, 6, 11])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_object_is_found_whatever_the_sign(share, seed):
    features, masks = objects(share=share, seed=seed)
    found = bs.region_from_features(features, 64)
    assert (found.masks == masks).float().mean() > 0.98
    other, true = objects(share=share, seed=seed)[0][:1], masks[:1]
    assert (bs.region_from_features(other, 64, found.axis).masks == true).float().mean() > 0.98


def test_boxes_leave_out_stray_cells():
    masks = torch.zeros(2, 16, 16, dtype=torch.bool)
    masks[0, 4:12, 2:9] = True
    masks[0, 15, 15] = True
    boxes = bs._boxes(masks, (32, 64), 0.02)
    assert torch.equal(boxes[0], torch.tensor([8.0, 8.0, 36.0, 24.0]))
    assert boxes[1].isnan().all()
    assert torch.equal(bs._boxes(masks, 16, 0.0)[0], torch.tensor([2.0, 4.0, 16.0, 16.0]))


def test_features_that_are_not_finite_are_background():
    features, masks = objects()
    features[0, 3, 5, 5], features[1] = math.inf, math.nan
    found = bs.region_from_features(features, 64)
    assert not found.masks[0, 5, 5]
    assert not found.masks[1].any()
    assert found.boxes[1].isnan().all()
    assert (found.masks == masks)[2:].float().mean() > 0.98


def test_alike_features_have_no_foreground_and_no_error():
    found = bs.region_from_features(torch.ones(2, 4, 8, 8), 8)
    assert found.masks.shape == (2, 8, 8)
    assert found.boxes.shape == (2, 4)


def test_the_region_is_one_for_keypoints():
    features, masks = objects()
    found = bs.region_from_features(features, 64)
    everywhere = torch.rand(12, 1, 16, 16, generator=random(9))
    for each, mask in zip(bs.keypoints(everywhere, features, 64, found.masks, logits=False), masks, strict=True):
        x, y = (each.places / 4).long().unbind(1)
        assert mask[y, x].float().mean() > 0.9
        assert len(x)


def test_regions_say_what_does_not_fit():
    with pytest.raises(ValueError, match="found features"):
        bs.region_from_features(torch.zeros(2, 4, 8, 6), 8)
    with pytest.raises(ValueError, match="no finite feature"):
        bs.region_from_features(torch.full((1, 4, 8, 8), math.nan), 8)
    with pytest.raises(ValueError, match="found trim"):
        bs.region_from_features(torch.zeros(1, 4, 8, 8), 8, trim=0.5)


def nuisance(seed=0):
    """Objects whose features differ from the background less than either differs within itself."""
    features, masks = objects(seed=seed)
    generator = random(seed + 100)
    kinds, strong = torch.eye(8)[:2], 3 * torch.eye(8)[2]
    side = torch.randn(len(masks), 16, 16, 1, generator=generator).sign()
    features = (kinds[masks.long()] + side * strong).permute(0, 3, 1, 2)
    return features + 0.2 * torch.randn(features.shape, generator=generator), masks


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_examples_of_regions_find_what_no_principal_component_does(seed):
    features, masks = nuisance(seed)
    axis = bs.region_from_masks(features, masks)
    assert axis.direction.norm().item() == pytest.approx(1, abs=1e-5)
    other, true = nuisance(seed + 50)
    assert (bs.region_from_features(other, 64, axis).masks == true).float().mean() > 0.95
    # It is no accident: the features by themselves show the other difference.
    alone = bs.region_from_features(features, 64).axis
    assert (bs.region_from_features(other, 64, alone).masks == true).float().mean() < 0.7


def test_the_discriminant_by_hand():
    # Unit features (c, s) inside and (c, -s) outside: they differ along the second axis alone.
    features = torch.tensor([[[0.8, 0.8]], [[0.6, -0.6]]]).unsqueeze(0).expand(1, 2, 1, 2).repeat(1, 1, 2, 1)
    axis = bs.region_from_masks(features, torch.tensor([[[True, False], [True, False]]]))
    assert torch.allclose(axis.direction, torch.tensor([0.0, 1.0]), atol=1e-6)
    assert axis.threshold.item() == pytest.approx(0, abs=1e-6)
    broken = features.clone()
    broken[0, 0, 0, 0] = math.nan
    assert torch.allclose(
        bs.region_from_masks(broken, torch.tensor([[[True, False], [True, False]]])).direction,
        torch.tensor([0.0, 1.0]),
        atol=1e-6,
    )
    with pytest.raises(ValueError, match="found 0 cells inside and 4 outside"):
        bs.region_from_masks(features, torch.zeros(1, 2, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="expected one a cell"):
        bs.region_from_masks(features, torch.zeros(2, 2, 2, dtype=torch.bool))


def test_boxes_as_masks():
    boxes = torch.tensor([[2.0, 0.0, 6.0, 4.0], [math.nan] * 4])
    masks = bs.region_mask(boxes, 4, 8)
    # Cells of two pixels, whose centres are at 1, 3, 5 and 7.
    wanted = torch.zeros(4, 4, dtype=torch.bool)
    wanted[:2, 1:3] = True
    assert torch.equal(masks[0], wanted)
    assert not masks[1].any()
    assert torch.equal(bs.region_mask(masks, 4, 8), masks)
