"""Golden values are worked by hand or stated in the notes on the papers; the rest are invariances."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression
from sklearn.linear_model import Ridge as SklearnRidge

from ulm import evaluation as ev
from ulm.datasets.base import Dataset, Info, Subset
from ulm.errors import InputError

RNG = np.random.default_rng(99)


def shapes(n: int, k: int, points: int, seed: int = 0, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks ``(n, k, 2)`` and points ``(n, points, 2)`` that move together, in a 128-pixel image."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(44, 84, (n, 1, 2))
    size = rng.uniform(15, 35, (n, 1, 1))
    found = centre + size * rng.uniform(-1, 1, (1, k, 2)) + noise * rng.normal(size=(n, k, 2))
    return found, centre + size * rng.uniform(-1, 1, (1, points, 2))


# --- errors and normalisers, by hand ---------------------------------------------------------------------------------


def test_nme_by_hand():
    # Distances 5 and 0, then 13 and 26; normalisers 10 and 52: (50 + 0) / 2 = 25 and (25 + 50) / 2 = 37.5.
    truth = np.zeros((2, 2, 2))
    predicted = np.array([[[3, 4], [0, 0]], [[5, 12], [10, 24]]])
    norm = [10, 52]
    assert ev.errors(predicted, truth, norm).tolist() == [[50, 0], [25, 50]]
    assert ev.nme(predicted, truth, norm) == 31.25
    assert ev.nme(torch.tensor(predicted), torch.tensor(truth), torch.tensor(norm)) == 31.25


def test_missing_points_weigh_in_three_ways():
    values = np.array([[10.0, np.nan, np.nan], [20.0, 30.0, 40.0]])
    assert ev.average(values, "image") == (10 + 30) / 2
    assert ev.average(values, "point") == 25
    assert ev.average(values, "landmark") == pytest.approx((15 + 30 + 40) / 3)
    with pytest.raises(InputError, match="image, point, landmark"):
        ev.average(values, "pixel")


def test_hidden_points_are_left_out():
    truth, predicted = np.zeros((1, 2, 2)), np.array([[[3, 4], [300, 400]]])
    assert ev.nme(predicted, truth, [10], visible=[[True, False]]) == 50


def test_normalisers_by_hand():
    truth = np.full((1, 68, 2), 50.0)
    truth[0, 36], truth[0, 45] = (30, 40), (70, 70)
    truth[0, 41], truth[0, 46] = (40, 50), (60, 50)
    info = Info("test", normaliser="outer-eye-corners", normaliser_points=((36,), (45,)))
    lengths = {name: ev.normalising_lengths(truth, info, (64, 100), name)[0] for name in ev.NORMALISERS}
    # Pupils: means (270, 290) / 6 and (330, 320) / 6, so (60, 30) / 6 apart.
    pupils = np.hypot(10, 5)
    expected = {"outer-eye-corners": 50, "pupils": pupils, "lower-lids": 20, "points": 50, "image": 80}
    assert lengths == pytest.approx({**expected, "box": np.sqrt(40 * 30)})


def test_five_points_are_normalised_by_their_first_two():
    truth = np.array([[[0, 0], [6, 8], [3, 9], [1, 1], [2, 2]]])
    assert ev.normalising_lengths(truth, Info("mafl"), 128, "pupils") == [10]


@pytest.mark.parametrize("broken", ["same", "missing"])
def test_images_without_a_normaliser_are_excluded_and_counted(broken):
    found, truth = shapes(30, 4, 5)
    truth[3, 1] = truth[3, 0] if broken == "same" else np.nan
    norm = ev.normalising_lengths(truth, Info("mafl"), 128, "pupils")
    assert np.isnan(norm[3])
    report = ev.evaluate(found, truth, found, truth, norm, labels=None)
    assert (report.excluded, report.n_test) == (1, 30)
    assert np.isfinite(report.forward_nme)
    assert np.isnan(report.per_image[3])


def test_box_needs_two_points_apart():
    truth = np.array([[[1, 1], [np.nan, np.nan]], [[1, 2], [1, 5]], [[0, 0], [4, 9]]])
    assert np.isnan(ev.normalising_lengths(truth, Info("x"))[:2]).all()
    assert ev.normalising_lengths(truth, Info("x"))[2] == 6


def test_normaliser_names():
    with pytest.raises(InputError, match="outer-eye-corners"):
        ev.normalising_lengths(np.zeros((1, 5, 2)), Info("x"), 128, "eyes")
    with pytest.raises(InputError, match="use box or image"):
        ev.normalising_lengths(np.zeros((1, 9, 2)), Info("x"), 128, "pupils")


# --- regressors ------------------------------------------------------------------------------------------------------


def test_least_squares_by_hand():
    # One landmark on the x axis at 1, 2, 3; the point at 1, 3, 4: the slope without intercept is sum xy / sum xx.
    x = np.array([[[1, 0]], [[2, 0]], [[3, 0]]])
    y = np.array([[[1, 0]], [[3, 0]], [[4, 0]]])
    slope = Fraction(1 * 1 + 2 * 3 + 3 * 4, 1 + 4 + 9)
    predicted = ev.LeastSquares(intercept=False).fit(x, y).predict([[[7, 0]]])
    assert predicted[0, 0] == pytest.approx([float(7 * slope), 0])
    # With intercept: slope 3/2, through the means (2, 8/3).
    predicted = ev.LeastSquares(intercept=True).fit(x, y).predict([[[4, 0]]])
    assert predicted[0, 0] == pytest.approx([float(Fraction(8, 3) + 3), 0])
    # Centred ridge: sum of centred xx is 2, of xy 3; lambda = reg x 2 in any unit, so the slope is 3 / (2 + 2 reg).
    predicted = ev.Ridge(reg=0.5).fit(x, y).predict([[[4, 0]]])
    assert predicted[0, 0] == pytest.approx([float(Fraction(8, 3) + 2), 0], abs=1e-7)


def test_least_norm_with_fewer_images_than_unknowns():
    x, y = shapes(1, 3, 2)
    weight = np.outer(x.ravel(), y.ravel()) / (x.ravel() @ x.ravel())
    new, _ = shapes(4, 3, 2, seed=5)
    predicted = ev.LeastSquares(intercept=False).fit(x, y).predict(new)
    assert predicted == pytest.approx((new.reshape(4, -1) @ weight).reshape(4, 2, 2))
    assert ev.LeastSquares(intercept=False).fit(x, y).predict(x) == pytest.approx(y)


@pytest.mark.parametrize(
    "name", [n for n, r in ev.REGRESSORS.items() if n not in ("imm", "stable-keypoints", "autolink")]
)
def test_one_label_with_an_intercept_is_the_mean_shape(name):
    x, y = shapes(1, 3, 2)
    new, _ = shapes(4, 3, 2, seed=5)
    assert ev.REGRESSORS[name].forward.fit(x, y).predict(new) == pytest.approx(np.tile(y, (4, 1, 1)))


def test_autolink_takes_a_penalty_where_the_system_is_singular():
    x, y = shapes(1, 3, 2)
    flat, target = x.ravel() / 128, y.ravel() / 128
    expected = 128 * (flat @ flat) / (flat @ flat + 1) * target
    assert ev.REGRESSORS["autolink"].forward.fit(x, y).predict(x).ravel() == pytest.approx(expected)


@pytest.mark.parametrize("n", [6, 200])
def test_agrees_with_sklearn(n):
    x, y = shapes(n, 5, 3)
    new, _ = shapes(20, 5, 3, seed=1)
    flat, target, wanted = x.reshape(n, -1), y.reshape(n, -1), new.reshape(20, -1)
    for intercept in (False, True):
        ours = ev.LeastSquares(intercept=intercept).fit(x, y).predict(new).reshape(20, -1)
        assert ours == pytest.approx(
            LinearRegression(fit_intercept=intercept).fit(flat, target).predict(wanted), rel=1e-7
        )
    centred = (flat - flat.mean(0)) / 128
    alpha = 1e-4 * ((centred.T @ centred).max() + 1e-12)
    theirs = SklearnRidge(alpha=alpha).fit(flat / 128 - 0.5, target / 128 - 0.5).predict(wanted / 128 - 0.5)
    ours = ev.REGRESSORS["inter-intra"].forward.fit(x, y, 128).predict(new).reshape(20, -1)
    assert ours == pytest.approx(128 * (theirs + 0.5), rel=1e-7)


def test_the_size_of_the_image_changes_nothing():
    x, y = shapes(40, 4, 3)
    new, _ = shapes(5, 4, 3, seed=1)
    for name, pair in ev.REGRESSORS.items():
        small = pair.forward.fit(x / 2, y / 2, 64).predict(new / 2)
        assert 2 * small == pytest.approx(pair.forward.fit(x, y, 128).predict(new), rel=1e-6), name


def test_the_origin_matters_without_intercept():
    x, y = shapes(40, 4, 3)
    corner, centre = (ev.LeastSquares(origin).fit(x, y, 128).predict(x) for origin in ("corner", "centre"))
    assert np.abs(corner - centre).max() > 1e-3
    shifted = ev.LeastSquares("corner").fit(x - 64, y - 64, 128).predict(x - 64) + 64
    assert shifted == pytest.approx(centre)
    for origin in ("corner", "centre"):
        intercept = ev.LeastSquares(origin, intercept=True).fit(x, y, 128).predict(x)
        assert intercept == pytest.approx(ev.LeastSquares(intercept=True).fit(x, y, 128).predict(x))


def test_a_missing_detection_is_the_mean_of_the_fit():
    x, y = shapes(30, 3, 2)
    broken, filled = x.copy(), x.copy()
    broken[4, 1] = np.nan
    filled[4, 1] = np.delete(x[:, 1], 4, 0).mean(0)
    for pair in ev.REGRESSORS.values():
        one, two = (pair.forward.fit(data, y) for data in (broken, filled))
        assert one.predict(broken) == pytest.approx(two.predict(filled))
    never = x.copy()
    never[:, 2] = np.nan
    assert np.isfinite(ev.LeastSquares().fit(never, y).predict(never)).all()


def test_missing_truth_is_left_out_landmark_by_landmark():
    x, y = shapes(30, 3, 2)
    y[:7, 1] = np.nan
    fitted = ev.LeastSquares().fit(x, y).predict(x)
    assert fitted[:, 0] == pytest.approx(ev.LeastSquares().fit(x, y[:, :1]).predict(x)[:, 0])
    assert fitted[:, 1] == pytest.approx(ev.LeastSquares().fit(x[7:], y[7:, 1:]).predict(x)[:, 0])


def test_a_landmark_that_is_never_shown_is_put_in_the_middle_of_the_others():
    x, y = shapes(30, 3, 3)
    y[:, 1] = np.nan
    predicted = ev.LeastSquares().fit(x, y).predict(x)
    assert predicted[:, 1] == pytest.approx(np.tile(y[:, [0, 2]].reshape(-1, 2).mean(0), (30, 1)))
    with pytest.raises(InputError, match="no labelled point"):
        ev.LeastSquares().fit(x, np.full_like(y, np.nan))


def test_unknown_regressor_and_bad_shapes():
    with pytest.raises(InputError, match="inter-intra"):
        ev.Regression.of("linear")
    with pytest.raises(InputError, match="expected \\(n, K, 2\\)"):
        ev.LeastSquares().fit(np.zeros((3, 4)), np.zeros((3, 2, 2)))
    with pytest.raises(InputError, match="expected \\(n, K, 2\\)"):
        ev.LeastSquares().fit(np.zeros((3, 4, 2)), np.zeros((4, 2, 2)))


# --- invariances -----------------------------------------------------------------------------------------------------


def scores(found: np.ndarray, truth: np.ndarray, regressor: str = "imm-bias", **more: object) -> ev.Report:
    half = len(found) // 2
    norm = np.full(half, 40.0)
    options = {"labels": None, "regressor": regressor, **more}
    return ev.evaluate(found[:half], truth[:half], found[half : 2 * half], truth[half : 2 * half], norm, **options)


@settings(max_examples=20, deadline=None)
@given(
    st.floats(-180, 180),
    st.floats(0.3, 3),
    st.floats(0.3, 3),
    st.floats(-0.8, 0.8),
    st.floats(-90, 90),
    st.floats(-90, 90),
)
def test_forward_error_does_not_feel_an_affine_map_of_the_landmarks(angle, sx, sy, shear, tx, ty):
    found, truth = shapes(120, 4, 5)
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    moved = found @ (np.diag([sx, sy]) @ [[1, shear], [0, 1]] @ [[c, s], [-s, c]]) + [tx, ty]
    assert scores(moved, truth).forward_nme == pytest.approx(scores(found, truth).forward_nme, rel=1e-6)


def test_without_intercept_it_feels_a_shift():
    found, truth = shapes(120, 4, 5)
    assert abs(scores(found + 60, truth, "imm").forward_nme - scores(found, truth, "imm").forward_nme) > 1e-3


@pytest.mark.parametrize("regressor", list(ev.REGRESSORS))
def test_the_order_of_landmarks_and_points_does_not_matter(regressor):
    found, truth = shapes(80, 4, 5)
    swapped = scores(found[:, [2, 0, 3, 1]], truth[:, [4, 1, 0, 3, 2]], regressor)
    plain = scores(found, truth, regressor)
    assert swapped.forward_nme == pytest.approx(plain.forward_nme)
    assert swapped.backward_nme == pytest.approx(plain.backward_nme)
    assert swapped.mean_shape_nme == pytest.approx(plain.mean_shape_nme)


def test_perfect_landmarks_have_no_error():
    _, truth = shapes(80, 4, 5)
    for regressor in ("imm", "imm-bias", "stable-keypoints"):
        report = scores(truth, truth, regressor)
        assert report.forward_nme < 1e-6
        assert report.backward_nme < 1e-6
    # Ridge and [0, 1] shrink a little.
    assert scores(truth, truth, "inter-intra").forward_nme < 0.5


def test_constant_landmarks_are_the_mean_shape():
    found, truth = shapes(80, 4, 5)
    still = np.tile(found[:1], (80, 1, 1))
    for regressor in ("imm-bias", "inter-intra", "imm"):
        report = scores(still, truth, regressor)
        assert report.forward_nme == pytest.approx(report.mean_shape_nme)
    by_hand = ev.nme(np.tile(truth[:40].mean(0), (40, 1, 1)), truth[40:], np.full(40, 40.0))
    assert report.mean_shape_nme == pytest.approx(by_hand)
    assert scores(still, truth).mean_detected_nme == pytest.approx(0, abs=1e-9)


def test_backward_punishes_a_jumping_landmark_that_forward_forgives():
    found, truth = shapes(400, 6, 5, noise=0.1)
    jumping = np.concatenate([found, RNG.uniform(0, 128, (400, 1, 2))], axis=1)
    plain, report = scores(found, truth), scores(jumping, truth)
    assert report.forward_nme < 1.2 * plain.forward_nme
    assert report.backward_nme > 5 * plain.backward_nme
    assert report.per_landmark_backward.argmax() == 6


def test_backward_by_hand():
    # One point at 0, 2, 4, one landmark at 1, 2, 6: slope 5/4 through (2, 3), residuals 1/2, -1, 1/2.
    truth, found = (np.array([[[v, 0]] for v in values], float) for values in ((0, 2, 4), (1, 2, 6)))
    report = ev.evaluate(found, truth, found, truth, np.full(3, 20.0), labels=None, regressor="imm-bias")
    assert report.backward_nme == pytest.approx(100 * (0.5 + 1 + 0.5) / 3 / 20)
    assert report.mean_detected_nme == pytest.approx(100 * (2 + 1 + 3) / 3 / 20)


def test_backward_leaves_out_missing_detections():
    found, truth = shapes(80, 4, 5)
    broken = found.copy()
    broken[60:70, 2] = np.nan
    report, plain = scores(broken, truth), scores(found, truth)
    assert report.missing == pytest.approx(100 * 10 / 160)
    others = [0, 1, 3]
    assert report.per_landmark_backward[others] == pytest.approx(plain.per_landmark_backward[others])
    kept = np.r_[0:20, 30:40]
    predicted = ev.LeastSquares(intercept=True).fit(truth[:40], found[:40]).predict(truth[40:])
    assert report.per_landmark_backward[2] == pytest.approx(
        ev.errors(predicted, found[40:], np.full(40, 40))[kept, 2].mean()
    )


def test_no_leak_from_the_test_labels():
    found, truth = shapes(80, 4, 5)
    other = truth.copy()
    other[40:] += RNG.normal(size=other[40:].shape) * 9
    assert (scores(found, truth).predicted == scores(found, other).predicted).all()


# --- subsets and reports ---------------------------------------------------------------------------------------------


def test_subsets():
    subsets = ev.label_subsets(500, 300, 10, seed=3)
    assert [len(s) for s in subsets] == [300] * 10
    assert all(len(set(s.tolist())) == 300 for s in subsets)
    assert all((a == b).all() for a, b in zip(subsets, ev.label_subsets(500, 300, 10, seed=3), strict=True))
    assert all((a == b[:20]).all() for a, b in zip(ev.label_subsets(500, 20, 10, seed=3), subsets, strict=True))
    assert not (subsets[0] == subsets[1]).all()
    assert not (subsets[0] == ev.label_subsets(500, 300, 10, seed=4)[0]).all()
    assert len(ev.label_subsets(500, None)) == len(ev.label_subsets(500, 500)) == 1
    for n, repeats in ((0, 10), (501, 10), (-1, 10), (5, 0)):
        with pytest.raises(InputError, match="labels"):
            ev.label_subsets(500, n, repeats)


def test_report_is_json():
    found, truth = shapes(80, 4, 5)
    report = scores(found, truth, labels=20, repeats=3, untrained=(found[:40] * 0 + 64, found[40:] * 0 + 64))
    content = json.loads(report.to_json())
    assert {
        "forward_nme",
        "backward_nme",
        "mean_shape_nme",
        "untrained_nme",
        "landmarks",
        "labels",
        "n_test",
        "seconds",
    } <= set(content)
    assert (content["landmarks"], content["points"], content["labels"], content["repeats"]) == (4, 5, 20, 3)
    assert content["untrained_nme"] == pytest.approx(content["mean_shape_nme"])
    assert "per_image" not in content
    assert len(json.loads(report.to_json(arrays=True))["per_image"]) == 40
    assert report.per_image.mean() == pytest.approx(report.forward_nme)
    assert report.per_landmark.mean() == pytest.approx(report.forward_nme)
    alone = json.loads(scores(found, truth).to_json())
    assert (alone["forward_std"], alone["supervised_nme"], alone["repeats"]) == (None, None, 1)


def test_the_deviation_is_over_repeats():
    found, truth = shapes(80, 4, 5)
    subsets = [np.arange(20), np.arange(20, 40)]
    each = [scores(found, truth, subsets=[s]).forward_nme for s in subsets]
    both = scores(found, truth, subsets=subsets)
    assert both.forward_nme == pytest.approx(np.mean(each))
    assert both.forward_std == pytest.approx(abs(each[0] - each[1]) / 2)


def test_sample_efficiency():
    found, truth = shapes(300, 6, 5)
    frame = ev.sample_efficiency(
        found[:200], truth[:200], found[200:], truth[200:], np.full(100, 40.0), ns=(1, 10, 100, 500, None), repeats=4
    )
    assert frame["n"].tolist() == ["1", "10", "100", "all"]
    assert frame["labels"].tolist() == [1, 10, 100, 200]
    assert frame["repeats"].tolist() == [4, 4, 4, 1]
    assert np.isnan(frame["std"].iloc[-1])
    assert frame["nme"].iloc[0] > frame["nme"].iloc[2] > 0
    assert frame["nme"].iloc[-1] < frame["mean_shape"].iloc[-1]


# --- curves, matching, collapse --------------------------------------------------------------------------------------


def test_cumulative_curve_by_hand():
    assert ev.cumulative_curve([3.0, 1.0, np.nan, 5.0]).tolist() == [1, 2, 3]


def test_accuracy_by_hand():
    truth = np.zeros((4, 1, 2))
    predicted = np.array([[[3, 4]], [[0, 6]], [[0, 7]], [[np.nan, 0]]])
    assert ev.accuracy_curve(predicted, truth, [5, 6, 7]).ravel().tolist() == [25, 50, 75]
    assert ev.pck(predicted, truth, 6) == 50
    assert ev.pck(predicted, truth, 6, strict=True) == 25
    assert ev.pck(predicted, truth, 0.6, norm=[10, 10, 10, 10]) == 50
    assert ev.pck(predicted, truth, 0.6, norm=[10, 10, 10, 0]) == pytest.approx(200 / 3)
    truth[2] = np.nan
    assert ev.pck(predicted, truth, 6) == pytest.approx(200 / 3)


def test_bbc_pose_counts_at_half_scale():
    truth, predicted = np.zeros((2, 1, 2)), np.array([[[12, 0]], [[12.1, 0]]])
    assert ev.accuracy_curve(predicted, truth, [6], scale=0.5).tolist() == [[50]]
    assert ev.accuracy_curve(predicted, truth, [6]).tolist() == [[0]]


def test_hungarian_matching():
    _, truth = shapes(50, 4, 4)
    order = np.array([2, 0, 3, 1])
    found = truth[:, order] + 0.1 * RNG.normal(size=truth.shape)
    assert order[ev.match(found, truth)].tolist() == [0, 1, 2, 3]
    assert ev.raw_accuracy(found, truth, ev.match(found, truth), 3.0).tolist() == [100] * 4


def test_matching_is_by_the_mean_and_one_to_one():
    # Landmark 0 is nearest to both points; assigning it to point 1 (cost 1 + 4) beats point 0 (cost 2 + 9).
    truth = np.array([[[0, 0], [3, 0]]], float)
    found = np.array([[[2, 0], [-4, 0]]], float)
    assert ev.match(found, truth).tolist() == [1, 0]
    assert ev.match(found, truth, one_to_one=False).tolist() == [0, 0]
    assert ev.match(found[:, :1], truth).tolist() == [-1, 0]
    assert np.isnan(ev.raw_accuracy(found[:, :1], truth, [-1, 0], 2.0)[0])


def test_matching_with_missing_points():
    _, truth = shapes(50, 3, 3)
    found = truth.copy()
    found[:, 1], truth[:, 2] = np.nan, np.nan
    assert ev.match(found, truth).tolist() == [0, -1, -1] or ev.match(found, truth)[0] == 0


def test_errors_by_yaw():
    assert ev.by_range([1, 3, 5, 7], [-80, -61, 0, 90])[[0, 2, 4]].tolist() == [2, 5, 7]
    assert np.isnan(ev.by_range([1.0], [-80])[1])


def test_collapse():
    found, truth = shapes(60, 5, 5)
    assert not ev.collapse(found, truth)
    assert not ev.collapsed(found)
    found[:, 3] = found[:, 1] + 0.5
    found[:, 4] = 64
    seen = ev.collapse(found, truth)
    assert seen.duplicates == [(1, 3)]
    assert seen.frozen == [4]
    assert len(seen.messages) == 2
    assert ev.collapsed(found)
    assert scores(found, truth).warnings == ev.collapse(found[30:], truth[30:]).messages
    assert ev.collapse(np.full((1, 2, 2), [[[1.0, 1], [90, 90]]])).frozen == []


def test_spread_by_hand():
    found = np.array([[[0, 0], [64, 0]], [[0, 64], [64, 64]]], float)
    looks = ev.spread(found, 128)
    assert looks["apart"][0, 1] == 0.5
    assert looks["motion"].tolist() == [0.25, 0.25]


# --- data sets -------------------------------------------------------------------------------------------------------


class Dots(Dataset):
    """A bright square whose corners are the landmarks."""

    def __init__(self, n: int, split: str = "train", size: int = 32, labelled: bool = True):
        self.n, self.split, self.size, self.labelled = n, split, size, labelled
        self.info = Info("dots", normaliser="image", subsets=(("middle", ((0, 3),)),))

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> dict[str, object]:
        if not 0 <= index < self.n:
            raise IndexError(index)
        rng = np.random.default_rng([index, len(self.split)])
        (x, y), side = rng.integers(4, 14, 2), int(rng.integers(8, 14))
        scale = self.size / 32
        image = torch.zeros(3, self.size, self.size)
        edge = [round(v * scale) for v in (y, y + side, x, x + side)]
        image[:, edge[0] : edge[1], edge[2] : edge[3]] = 1
        corners = torch.tensor([[x, y], [x + side, y], [x, y + side], [x + side, y + side]], dtype=torch.float32)
        sample: dict[str, object] = {"image": image, "yaw": float(x)}
        if self.labelled:
            sample |= {"landmarks": corners * scale, "visible": torch.tensor([True, True, index % 2 == 0, True])}
        return sample

    @property
    def fingerprint(self) -> str:
        return f"{self.split}{self.n}{self.size}"


class Moments:
    """Finds the middle of what is bright, and how far it reaches."""

    trained = True

    def predict(self, images: torch.Tensor) -> torch.Tensor:
        bright = images.mean(1)
        height, width = bright.shape[1:]
        x = (bright.sum(1) * (torch.arange(width) + 0.5)).sum(1) / bright.sum((1, 2))
        y = (bright.sum(2) * (torch.arange(height) + 0.5)).sum(1) / bright.sum((1, 2))
        half = bright.sum((1, 2)).sqrt() / 2
        found = torch.stack([torch.stack([x, y], -1), torch.stack([x + half, y + half], -1)], 1)
        return found if self.trained else torch.full_like(found, 16)

    def untrained(self) -> Moments:
        other = Moments()
        other.trained = False
        return other


def test_evaluate_detector():
    report = ev.evaluate_detector(Moments(), Dots(40, "test"), Dots(60), labels=30, repeats=3, regressor="imm-bias")
    assert report.forward_nme < 1e-3
    assert report.untrained_nme == pytest.approx(report.mean_shape_nme)
    assert (report.landmarks, report.points, report.labels, report.n_fit, report.n_test) == (2, 4, 30, 60, 40)
    assert (report.data, report.normaliser, report.missing, report.excluded) == ("dots", "image", 0, 0)
    assert report.seconds > 0
    again = ev.evaluate_detector(Moments(), Dots(40, "test"), Dots(60), labels=30, repeats=3, regressor="imm-bias")
    assert again.to_dict() | {"seconds": 0} == report.to_dict() | {"seconds": 0}
    assert report.facts()["n_fit"] == 30


def test_evaluate_detector_equals_the_arrays():
    test, fit = (ev.detect(Moments(), data, batch=7) for data in (Dots(40, "test"), Dots(60)))
    norm = ev.normalising_lengths(test.truth, test.info, test.size)
    arrays = ev.evaluate(fit.found, fit.truth, test.found, test.truth, norm, size=32, labels=9, repeats=4, seed=2)
    report = ev.evaluate_detector(Moments(), Dots(40, "test"), Dots(60), labels=9, repeats=4, seed=2, untrained=False)
    assert report.forward_nme == pytest.approx(arrays.forward_nme)
    assert report.backward_nme == pytest.approx(arrays.backward_nme)
    assert report.untrained_nme is None
    assert test.yaw.shape == (40,)


def test_subsets_of_points_and_sizes():
    options = {"labels": None, "regressor": "imm-bias"}
    report = ev.evaluate_detector(Moments(), Dots(40, "test"), Dots(60, size=64), subset="middle", **options)
    assert report.points == 1
    assert report.forward_nme < 1e-3
    with pytest.raises(InputError, match="middle"):
        ev.evaluate_detector(Moments(), Dots(40, "test"), Dots(60), subset="mafl-5", **options)


def test_visible_only():
    test = Dots(40, "test")
    report = ev.evaluate_detector(Moments(), test, Dots(60), labels=None, visible_only=True, regressor="imm-bias")
    assert report.forward_nme < 1e-3
    hidden = ev.detect(Moments(), test)
    assert not hidden.visible[1, 2]
    assert np.isfinite(hidden.truth).all()


def test_few_labels_are_all_labels():
    assert ev.evaluate_detector(Moments(), Dots(9, "test"), Dots(12), labels=300).labels == 12


def test_bad_data():
    with pytest.raises(InputError, match="same images"):
        ev.evaluate_detector(Moments(), Dots(9), Dots(9))
    with pytest.raises(InputError, match="no labelled image"):
        ev.evaluate_detector(Moments(), Dots(9, "test", labelled=False), Dots(9))
    with pytest.raises(InputError, match="no labelled image"):
        ev.detect(Moments(), Subset(Dots(9), []))


def test_monitor():
    measure = ev.monitor(Dots(40, "test"), Dots(60), labels=30, limit=20, regressor="imm-bias")
    values = measure(Moments(), 1)
    assert set(values) == {"forward_nme", "backward_nme", "mean_shape_nme"}
    assert values["forward_nme"] < 1e-3
    assert measure(Moments().untrained(), 2)["forward_nme"] == pytest.approx(values["mean_shape_nme"])
    # As the profile `paper` asks for: all labels.
    assert ev.monitor(Dots(40, "test"), Dots(60), labels=None, regressor="imm-bias")(Moments(), 1)["forward_nme"] < 1e-3
    with pytest.raises(InputError, match="0 labels"):
        ev.monitor(Dots(40, "test"), Dots(60), labels=0)


def test_supervised_baseline_learns():
    train, test = Dots(60).batch(range(60)), Dots(40, "test").batch(range(40))
    baseline = ev.SupervisedBaseline(image_size=32, width=8, steps=40, batch_size=8)
    with pytest.raises(InputError, match="fit"):
        baseline.predict(test["image"])
    landmarks = train["landmarks"].clone()
    landmarks[5, 2] = torch.nan
    landmarks[6] = torch.nan
    found = baseline.fit(train["image"], landmarks).predict(test["image"])
    mean = train["landmarks"].mean(0).expand_as(found)
    norm = np.full(40, 32.0)
    assert found.shape == (40, 4, 2)
    assert ev.nme(found, test["landmarks"], norm) < 0.6 * ev.nme(mean, test["landmarks"], norm)
    with pytest.raises(InputError, match="no labelled point"):
        baseline.fit(train["image"], torch.full_like(landmarks, torch.nan))


@pytest.mark.parametrize("steps", [1, 2, 10, 11])
def test_supervised_baseline_of_few_steps(steps):
    train = Dots(8).batch(range(8))
    baseline = ev.SupervisedBaseline(image_size=32, width=8, steps=steps, batch_size=4)
    assert baseline.fit(train["image"], train["landmarks"]).predict(train["image"]).isfinite().all()


def test_supervised_augmentation_moves_points_with_the_image():
    baseline = ev.SupervisedBaseline(image_size=64)
    images, points = torch.zeros(8, 1, 64, 64), torch.tensor([[[0.25, -0.125]]]).repeat(8, 1, 1)
    images[:, :, 26:30, 38:42] = 1  # pixels 38 to 42 and 26 to 30: their middle, (40, 28), is (0.25, -0.125)
    shown, moved = baseline._augment(images, points, torch.Generator().manual_seed(0))
    weight = shown[:, 0] / shown[:, 0].sum((1, 2), keepdim=True)
    axis = (torch.arange(64) + 0.5) / 32 - 1
    centre = torch.stack([(weight.sum(1) * axis).sum(1), (weight.sum(2) * axis).sum(1)], -1)
    assert (centre - moved[:, 0]).abs().max() < 0.01
    assert (moved[:, 0] - points[:, 0]).abs().max() > 0.02


def test_evaluate_detector_with_a_supervised_baseline():
    baseline = ev.SupervisedBaseline(image_size=32, width=8, steps=20, batch_size=8)
    report = ev.evaluate_detector(Moments(), Dots(20, "test"), Dots(30), labels=20, repeats=2, supervised=baseline)
    assert 0 < report.supervised_nme < 100
