"""From landmarks, or a detector and two data sets, to a report."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from tqdm.auto import tqdm

from ulm.datasets.base import Dataset, Info
from ulm.errors import InputError
from ulm.evaluation.arrays import Array, Groups, Points, Size, known_mean, to_array
from ulm.evaluation.keeping import Kept
from ulm.evaluation.metrics import average, collapse, errors, nme, normalising_lengths, select_points
from ulm.evaluation.regressors import MeanShape, Regression, Regressor
from ulm.evaluation.supervised import SupervisedBaseline


def label_subsets(n_total: int, n: int | None, repeats: int = 10, seed: int = 0) -> list[NDArray[np.int64]]:
    """Which images are labelled: ``repeats`` random subsets, the same for the same seed.

    Subset r of size n is the beginning of subset r of any larger size. All images (``n`` None or ``n_total``) are one
    subset.

    Raises:
        InputError: ``n`` is not from 1 to ``n_total``, or there are no repeats.
    """
    if n is None or n == n_total:
        return [np.arange(n_total)]
    if not 1 <= n <= n_total or repeats < 1:
        raise InputError(f"found {n} labels and {repeats} repeats for {n_total} images, expected 1 to {n_total} labels")
    return [np.random.default_rng([seed, r]).permutation(n_total)[:n] for r in range(repeats)]


def regress(
    x_fit: Points, y_fit: Points, x_test: Points, subsets: Sequence[ArrayLike], regressor: Regressor, size: Size = 128
) -> Array:
    """Fit on each subset of the fit images, predict all test images: ``(repeats, n_test, L, 2)`` pixels."""
    x_fit, y_fit, x_test = to_array(x_fit), to_array(y_fit), to_array(x_test)
    return np.stack(
        [regressor.fit(x_fit[rows], y_fit[rows], size).predict(x_test) for rows in map(np.asarray, subsets)]
    )


@dataclass
class Report:
    """What an evaluation found; errors in percent of the normaliser, ``std`` over the repeats (None for one).

    Attributes:
        forward_nme: Discovered to annotated; with ``forward_std``.
        backward_nme: Annotated to discovered, averaged over landmarks; with ``backward_std``.
        mean_shape_nme: Forward error of the mean of the labels; ``mean_detected_nme`` is its backward analogue.
        untrained_nme: Forward error of the same network before training.
        supervised_nme: Error of a network trained on the first subset of labels; None if not asked for.
        landmarks: K; ``points`` is L.
        labels: Labelled images of each fit; ``repeats`` fits were made.
        n_test: Test images; ``excluded`` of them had no normaliser.
        missing: Percentage of detections that are missing on the test images.
        warnings: Whether landmarks collapse or freeze, in words.
        per_image: ``(n_test,)`` forward errors, mean over repeats; ``per_image_backward`` likewise.
        per_landmark: ``(L,)`` forward errors; ``per_landmark_backward`` is ``(K,)``.
        predicted: ``(n_test, L, 2)`` pixels, the first repeat's.
    """

    forward_nme: float
    forward_std: float | None
    backward_nme: float
    backward_std: float | None
    mean_shape_nme: float
    mean_detected_nme: float
    landmarks: int
    points: int
    labels: int
    repeats: int
    n_fit: int
    n_test: int
    excluded: int
    missing: float
    regressor: str
    normaliser: str = ""
    subset: str | None = None
    seed: int = 0
    data: str = ""
    fit_data: str = ""
    fingerprint: str = ""
    fit_fingerprint: str = ""
    untrained_nme: float | None = None
    untrained_backward_nme: float | None = None
    supervised_nme: float | None = None
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
    per_image: Array = field(default_factory=lambda: np.empty(0), repr=False)
    per_image_backward: Array = field(default_factory=lambda: np.empty(0), repr=False)
    per_landmark: Array = field(default_factory=lambda: np.empty(0), repr=False)
    per_landmark_backward: Array = field(default_factory=lambda: np.empty(0), repr=False)
    predicted: Array = field(default_factory=lambda: np.empty((0, 0, 2)), repr=False)

    def to_dict(self, arrays: bool = False) -> dict[str, Any]:
        """Plain numbers and words; what is not finite becomes None. With ``arrays`` also the errors in lists."""
        fields = {key: value for key, value in asdict(self).items() if arrays or not isinstance(value, np.ndarray)}
        return {key: _plain(value) for key, value in fields.items()}

    def facts(self) -> dict[str, Any]:
        """What the provenance of its numbers needs: ``runs.provenance(device, **report.facts())``."""
        return {
            "dataset": self.data,
            "fingerprint": self.fingerprint,
            "fit_dataset": self.fit_data,
            "fit_fingerprint": self.fit_fingerprint,
            "n_fit": self.labels,
            "n_test": self.n_test - self.excluded,
            "seeds": [self.seed],
            "repeats": self.repeats,
            "regressor": self.regressor,
            "normaliser": self.normaliser,
            "subset": self.subset,
            "seconds": self.seconds,
        }

    def to_json(self, arrays: bool = False) -> str:
        """One JSON object."""
        return json.dumps(self.to_dict(arrays))


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | list):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def over_repeats(values: Array, over: str = "image") -> tuple[float, float | None]:
    """Mean and (population) standard deviation over repeats of errors ``(repeats, n, L)``; None for one repeat."""
    each = [average(repeat, over) for repeat in values]
    return float(np.mean(each)), (float(np.std(each)) if len(each) > 1 else None)


def evaluate(
    found_fit: Points,
    truth_fit: Points,
    found_test: Points,
    truth_test: Points,
    norm: Points,
    *,
    size: Size = 128,
    labels: int | None = 300,
    repeats: int = 10,
    seed: int = 0,
    regressor: str | Regressor | Regression = "inter-intra",
    over: str = "image",
    subsets: Sequence[ArrayLike] | None = None,
    untrained: tuple[Points, Points] | None = None,
) -> Report:
    """Forward and backward NME from arrays, with the mean shape (and the untrained network) beside them.

    Args:
        found_fit: ``(n, K, 2)`` discovered landmarks of the images that may be labelled, pixels.
        truth_fit: ``(n, L, 2)`` their annotation.
        found_test: ``(m, K, 2)``.
        truth_test: ``(m, L, 2)``.
        norm: ``(m,)`` lengths that the test errors are divided by, in both directions.
        size: (height, width) of the images, or the side.
        labels: Labelled images of one fit; None, or more than there are: all.
        repeats: Random subsets; all images are one.
        seed: Of the subsets.
        regressor: A key of ``REGRESSORS``, or a regressor.
        over: How missing points weigh in the forward error, see :func:`average`.
        subsets: The subsets themselves, instead of ``labels``, ``repeats`` and ``seed``.
        untrained: ``found_fit`` and ``found_test`` of the untrained network.

    Raises:
        InputError: Unknown names, no labels, or no test image with a normaliser.
    """
    found_fit, truth_fit, found_test, truth_test = map(to_array, (found_fit, truth_fit, found_test, truth_test))
    norm, chosen = to_array(norm), Regression.of(regressor)
    if not (norm > 0).any():
        raise InputError("found no test image with a normaliser greater than 0; use another normaliser, such as box")
    if subsets is None:
        subsets = label_subsets(
            len(found_fit), labels if labels is None else min(labels, len(found_fit)), repeats, seed
        )

    def both(x_fit: Array, x_test: Array, pair: Regression) -> tuple[Array, Array, Array]:
        ahead = regress(x_fit, truth_fit, x_test, subsets, pair.forward, size)
        back = regress(truth_fit, x_fit, truth_test, subsets, pair.backward, size)
        ahead_errors, back_errors = (
            np.stack([errors(one, truth, norm) for one in predicted])
            for predicted, truth in ((ahead, truth_test), (back, x_test))
        )
        return ahead, ahead_errors, back_errors

    predicted, forward, backward = both(found_fit, found_test, chosen)
    _, mean_shape, mean_detected = both(found_fit, found_test, Regression.of(MeanShape()))
    report = Report(
        *over_repeats(forward, over),
        *over_repeats(backward, "landmark"),
        mean_shape_nme=over_repeats(mean_shape, over)[0],
        mean_detected_nme=over_repeats(mean_detected, "landmark")[0],
        landmarks=found_test.shape[1],
        points=truth_test.shape[1],
        labels=len(np.asarray(subsets[0])),
        repeats=len(subsets),
        n_fit=len(found_fit),
        n_test=len(found_test),
        excluded=int((~(norm > 0)).sum()),
        missing=float(100 * np.isnan(found_test).any(-1).mean()),
        regressor=regressor if isinstance(regressor, str) else chosen.source,
        seed=seed,
        warnings=collapse(found_test, truth_test, size).messages,
        per_image=known_mean(forward, (0, 2)),
        per_image_backward=known_mean(backward, (0, 2)),
        per_landmark=known_mean(forward, (0, 1)),
        per_landmark_backward=known_mean(backward, (0, 1)),
        predicted=predicted[0],
    )
    if untrained is not None:
        _, ahead, back = both(to_array(untrained[0]), to_array(untrained[1]), chosen)
        report.untrained_nme = over_repeats(ahead, over)[0]
        report.untrained_backward_nme = over_repeats(back, "landmark")[0]
    return report


class Predictor(Protocol):
    """Anything that finds landmarks: a detector, or :class:`SupervisedBaseline`."""

    def predict(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` in [0, 1] to ``(B, K, 2)`` in pixels."""


@dataclass(frozen=True)
class Detections:
    """Landmarks found on a data set, and what its annotation says; arrays over images, pixels, NaN for missing."""

    found: Array
    truth: Array
    visible: NDArray[np.bool_]
    size: tuple[int, int]
    info: Info
    yaw: Array | None = None


def detect(
    detector: Predictor, dataset: Dataset, indices: Sequence[int] | None = None, batch: int = 32, progress: bool = False
) -> Detections:
    """Run a detector over a data set (or the items at ``indices``); a pass that was killed goes on where it was.

    Raises:
        InputError: The data set has no labels or no images.
    """
    return _detect([detector], dataset, indices, batch, progress)[0]


def _detect(
    detectors: Sequence[Predictor], dataset: Dataset, indices: ArrayLike | None, batch: int, progress: bool
) -> list[Detections]:
    """Several detectors in one pass: drawing or reading an image costs more than looking at it."""
    places = np.arange(len(dataset)) if indices is None else np.asarray(indices)
    if not len(places) or not len(dataset[int(places[0])].get("landmarks", ())):
        raise InputError(
            f"found no labelled image in {dataset.info.name}; the evaluation needs landmarks, give a labelled data set"
        )
    parts = [places[start : start + batch] for start in range(0, len(places), batch)]
    samples: dict[str, list[Array]] = {"landmarks": [], "visible": [], "yaw": []}
    kept = [Kept(detector, dataset.fingerprint, dataset.size, places.tolist(), batch) for detector in detectors]
    size = (0, 0)
    for number, part in enumerate(tqdm(parts, disable=not progress, desc=f"looking at {dataset.info.name}")):
        items = dataset.batch([int(i) for i in part])
        size = tuple(items["image"].shape[-2:])
        for key, values in samples.items():
            if key in items:
                values.append(to_array(items[key]))
        for one, detector in zip(kept, detectors, strict=True):
            one(number, partial(detector.predict, items["image"]))
    truth = np.concatenate(samples["landmarks"])
    seen = np.concatenate(samples["visible"]) > 0 if samples["visible"] else ~np.isnan(truth).any(-1)
    visible = np.asarray(seen, bool)
    yaw = np.concatenate(samples["yaw"]).ravel() if samples["yaw"] else None
    return [Detections(one.finish(), truth, visible, size, dataset.info, yaw) for one in kept]


def subset_groups(info: Info, name: str | None, n_landmarks: int) -> Groups:
    """The groups of landmarks that make up a named subset of ``info``; without a name, every landmark by itself.

    Raises:
        InputError: The data set has no such subset.
    """
    named = dict(info.subsets)
    if name is None:
        return [(index,) for index in range(n_landmarks)]
    if name not in named:
        raise InputError(f"found subset {name!r}, expected one of {', '.join(named) or '(none here)'} for {info.name}")
    return named[name]


def evaluate_detector(
    detector: Any,
    test: Dataset,
    fit: Dataset,
    *,
    labels: int | None = 300,
    repeats: int = 10,
    regressor: str | Regressor | Regression = "inter-intra",
    normaliser: str | None = None,
    subset: str | None = None,
    visible_only: bool = False,
    over: str = "image",
    seed: int = 0,
    untrained: bool = True,
    supervised: SupervisedBaseline | None = None,
    batch: int = 32,
    progress: bool = False,
) -> Report:
    """Evaluate a detector on ``test``, with regressors fitted on labelled images of ``fit``.

    Args:
        detector: Has ``predict``, and ``untrained()`` for that baseline.
        test: Labelled images that nothing was fitted on.
        fit: Labelled images for the regressors; only those in a label subset are looked at.
        labels: Labelled images of one fit; None, or more than there are: all.
        repeats: Random subsets of labels.
        regressor: A key of ``REGRESSORS``, or a regressor.
        normaliser: A key of ``NORMALISERS``; None: the data set's own.
        subset: A named subset of ``test.info.subsets``, such as ``mafl-5``. The normaliser still sees all points.
        visible_only: Leave hidden points out of fit and error although their place is known.
        over: How missing points weigh in the forward error, see :func:`average`.
        seed: Of the subsets.
        untrained: Also evaluate the untrained network.
        supervised: A baseline to train on the first subset of labels.
        batch: Images at a time.
        progress: Show a bar on standard error.

    Raises:
        InputError: Data without labels, annotations that differ, the same data for both, unknown names.
    """
    start = time.perf_counter()
    if fit.fingerprint == test.fingerprint:
        raise InputError(
            f"found the same images for fit and test ({test.info.name}); use two splits, such as train and test"
        )
    wanted = label_subsets(len(fit), labels if labels is None else min(labels, len(fit)), repeats, seed)
    used, places = np.unique(np.concatenate(wanted), return_inverse=True)
    subsets = np.split(places, np.cumsum([len(rows) for rows in wanted])[:-1])
    detectors = [detector, *([detector.untrained()] if untrained else [])]
    fitted = _detect(detectors, fit, used, batch, progress)
    groups = subset_groups(test.info, subset, fitted[0].truth.shape[1])
    if supervised is not None:
        shown = fit.batch([int(i) for i in wanted[0]])
        supervised.fit(shown["image"], select_points(_known(fitted[0], visible_only)[subsets[0]], groups))
        detectors.append(supervised)
    tested = _detect(detectors, test, None, batch, progress)
    if fitted[0].truth.shape[1] != tested[0].truth.shape[1]:
        raise InputError(
            f"found {fitted[0].truth.shape[1]} landmarks in the fit and {tested[0].truth.shape[1]} in the test data"
        )
    norm = normalising_lengths(tested[0].truth, test.info, tested[0].size, normaliser)
    truth = select_points(_known(tested[0], visible_only), groups)
    # Images of the fit may have another size than those of the test: both to the test's pixels.
    scale = np.array(tested[0].size[::-1]) / np.array(fitted[0].size[::-1])
    report = evaluate(
        fitted[0].found * scale,
        select_points(_known(fitted[0], visible_only), groups) * scale,
        tested[0].found,
        truth,
        norm,
        size=tested[0].size,
        seed=seed,
        regressor=regressor,
        over=over,
        subsets=subsets,
        untrained=(fitted[1].found * scale, tested[1].found) if untrained else None,
    )
    if supervised is not None:
        report.supervised_nme = nme(tested[-1].found, truth, norm, over=over)
    report.n_fit, report.normaliser, report.subset = len(fit), normaliser or test.info.normaliser, subset
    report.data, report.fit_data = test.info.name, fit.info.name
    report.fingerprint, report.fit_fingerprint = test.fingerprint, fit.fingerprint
    report.seconds = round(time.perf_counter() - start, 3)
    return report


def monitor(
    test: Dataset,
    fit: Dataset,
    *,
    labels: int | None = 300,
    limit: int = 300,
    regressor: str | Regressor | Regression = "inter-intra",
    normaliser: str | None = None,
    subset: str | None = None,
    seed: int = 0,
) -> Callable[[Predictor, int], dict[str, float]]:
    """What ``Detector.fit(monitor=...)`` takes: the errors while it learns, on images that are read once and kept.

    Args:
        test: Images that the error is measured on.
        fit: Labelled images for the regressor.
        labels: Most images of ``fit`` to use, at random; None: all.
        limit: Most images of ``test`` to use, evenly spread.
        regressor: A key of ``REGRESSORS``, or a regressor.
        normaliser: A key of ``NORMALISERS``; None: the data set's own.
        subset: A named subset of ``test.info.subsets``.
        seed: Of the choice of labels.

    Returns:
        A function of (detector, step) that gives ``forward_nme``, ``backward_nme`` and ``mean_shape_nme``.
    """
    places = label_subsets(len(fit), None if labels is None else min(labels, len(fit)), 1, seed)[0]
    shown = fit.batch([int(i) for i in places])
    tested = test.batch([int(i) for i in np.unique(np.linspace(0, len(test) - 1, min(limit, len(test))).astype(int))])
    groups = subset_groups(test.info, subset, tested["landmarks"].shape[1])
    size = tuple(tested["image"].shape[-2:])
    scale = np.array(size[::-1]) / np.array(tuple(shown["image"].shape[-2:])[::-1])
    norm = normalising_lengths(tested["landmarks"], test.info, size, normaliser)
    truths = [select_points(items["landmarks"], groups) for items in (shown, tested)]

    def measure(detector: Predictor, step: int) -> dict[str, float]:
        found = [to_array(detector.predict(items["image"])) for items in (shown, tested)]
        report = evaluate(
            found[0] * scale, truths[0] * scale, found[1], truths[1], norm, size=size, labels=None, regressor=regressor
        )
        return {name: getattr(report, name) for name in ("forward_nme", "backward_nme", "mean_shape_nme")}

    return measure


def _known(detections: Detections, visible_only: bool) -> Array:
    if not visible_only:
        return detections.truth
    return np.where(detections.visible[..., None], detections.truth, np.nan)


def sample_efficiency(
    found_fit: Points,
    truth_fit: Points,
    found_test: Points,
    truth_test: Points,
    norm: Points,
    *,
    ns: Sequence[int | None] = (1, 5, 10, 100, 500, 1000, 5000, None),
    repeats: int = 10,
    seed: int = 0,
    regressor: str | Regressor | Regression = "imm",
    size: Size = 128,
    over: str = "image",
) -> pd.DataFrame:
    """Forward error against the number of labelled images (IMM, Figure 3 right; Inter-Intra, Table II).

    Args:
        found_fit: ``(n, K, 2)`` discovered landmarks of the images that may be labelled, pixels.
        truth_fit: ``(n, L, 2)`` their annotation.
        found_test: ``(m, K, 2)``.
        truth_test: ``(m, L, 2)``.
        norm: ``(m,)`` lengths that the errors are divided by.
        ns: Numbers of labels; None is all. Numbers that the fit images do not reach are left out.
        repeats: Random subsets of each number.
        seed: Of the subsets.
        regressor: A key of ``REGRESSORS``, or a regressor.
        size: (height, width) of the images, or the side.
        over: How missing points weigh, see :func:`average`.

    Returns:
        Columns ``n`` (``all`` for all), ``labels``, ``nme``, ``std`` (NaN for one repeat), ``mean_shape``, ``repeats``.
    """
    total, model = len(to_array(found_fit)), Regression.of(regressor).forward
    rows = []
    for n in ns:
        if n is not None and n > total:
            continue
        subsets = label_subsets(total, n, repeats, seed)
        scores = [
            over_repeats(np.stack([errors(p, truth_test, norm) for p in predicted]), over)
            for predicted in (regress(found_fit, truth_fit, found_test, subsets, m, size) for m in (model, MeanShape()))
        ]
        std = np.nan if scores[0][1] is None else scores[0][1]
        rows.append(("all" if n is None else str(n), len(subsets[0]), scores[0][0], std, scores[1][0], len(subsets)))
    return pd.DataFrame(rows, columns=["n", "labels", "nme", "std", "mean_shape", "repeats"])
