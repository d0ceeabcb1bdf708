"""Linear maps between two sets of landmarks: one class a method of fitting, one name a protocol."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from ulm.errors import InputError
from ulm.evaluation.arrays import Array, Points, Size, known_mean, to_array


@dataclass(frozen=True)
class LinearMap:
    """A fitted regressor; ``predict`` takes and gives pixels."""

    weight: Array
    bias: Array
    fill: Array
    origin: Array
    scale: Array

    def predict(self, x: Points) -> Array:
        """``(n, K, 2)`` to ``(n, L, 2)``, both in pixels."""
        places = to_array(x)
        flat = ((places - self.origin) / self.scale).reshape(len(places), -1)
        flat = np.where(np.isnan(flat), self.fill, flat)
        return (flat @ self.weight + self.bias).reshape(len(places), -1, 2) * self.scale + self.origin


@dataclass(frozen=True)
class Regressor:
    """A linear map between two sets of points, in a frame of its own.

    Attributes:
        origin: Without an intercept the origin matters: ``corner`` is the top-left one, ``centre`` the image's.
        unit: Length of the image's side in the frame: 128 in IMM, 1 elsewhere. It matters to no fit but that with
            ``singular`` set.
    """

    origin: str = "corner"
    unit: float = 1.0

    def fit(self, x: Points, y: Points, size: Size = 128) -> LinearMap:
        """Fit on ``x`` ``(n, K, 2)`` and ``y`` ``(n, L, 2)``, pixels of images of ``size`` (height, width).

        A landmark that no image of the fit shows is predicted at the mean of all points that are shown.

        Raises:
            InputError: ``y`` holds no point at all, or the shapes do not fit.
        """
        x, y = to_array(x), to_array(y)
        if x.ndim != 3 or y.ndim != 3 or len(x) != len(y) or x.shape[2] != 2 or y.shape[2] != 2:
            raise InputError(f"found landmarks of shapes {x.shape} and {y.shape}, expected (n, K, 2) and (n, L, 2)")
        known = ~np.isnan(y).any(-1)
        if not known.any():
            raise InputError("found no labelled point in the images of the fit; give images with labels")
        origin, scale = self._frame(size)
        flat, target = ((x - origin) / scale).reshape(len(x), -1), (y - origin) / scale
        middle = np.tile((np.asarray(scale) * self.unit / 2 - origin) / scale, x.shape[1])
        fill = known_mean(flat, 0)
        fill = np.where(np.isnan(fill), middle, fill)
        flat = np.where(np.isnan(flat), fill, flat)
        weight = np.zeros((flat.shape[1], y.shape[1], 2))
        bias = np.tile(known_mean(target.reshape(-1, 2), 0), (y.shape[1], 1))
        # Landmarks that the same images show are solved together.
        together: dict[bytes, list[int]] = {}
        for landmark, shown in enumerate(known.T):
            together.setdefault(shown.tobytes(), []).append(landmark)
        for landmarks in together.values():
            rows = known[:, landmarks[0]]
            if rows.any():
                solved, offset = self._solve(flat[rows], target[rows][:, landmarks].reshape(rows.sum(), -1))
                weight[:, landmarks], bias[landmarks] = solved.reshape(-1, len(landmarks), 2), offset.reshape(-1, 2)
        return LinearMap(weight.reshape(len(weight), -1), bias.ravel(), fill, origin, scale)

    def _frame(self, size: Size) -> tuple[Array, Array]:
        """(origin in pixels, pixels a unit), each for x and y."""
        height, width = (size, size) if isinstance(size, int) else size
        side = np.array([width, height], np.float64)
        return (side / 2 if self.origin == "centre" else np.zeros(2)), side / self.unit

    def _solve(self, x: Array, y: Array) -> tuple[Array, Array]:
        raise TypeError(f"{type(self).__name__} is abstract: it must say how it solves")


@dataclass(frozen=True)
class LeastSquares(Regressor):
    """Least squares; the solution of least norm where the images are fewer than the unknowns.

    Attributes:
        intercept: Both sides are centred on their means.
        singular: AutoLink's way out of a singular system: this penalty, in the frame's units, instead of least norm.
    """

    intercept: bool = False
    singular: float | None = None

    def _solve(self, x: Array, y: Array) -> tuple[Array, Array]:
        mx, my = (x.mean(0), y.mean(0)) if self.intercept else (np.zeros(x.shape[1]), np.zeros(y.shape[1]))
        x, y = x - mx, y - my
        solved, _, rank, _ = np.linalg.lstsq(x, y, rcond=None)
        weight: Array = np.asarray(solved, np.float64)
        if self.singular is not None and rank < x.shape[1]:
            weight = scipy.linalg.solve(x.T @ x + self.singular * np.eye(x.shape[1]), x.T @ y, assume_a="pos")
        return weight, my - mx @ weight


@dataclass(frozen=True)
class Ridge(Regressor):
    """Ridge on centred data, lambda = ``reg`` (largest entry of X^T X + 1e-12): Sanchez, Inter-Intra, Mallis."""

    reg: float = 1e-4

    def _solve(self, x: Array, y: Array) -> tuple[Array, Array]:
        mx, my = x.mean(0), y.mean(0)
        gram = (x - mx).T @ (x - mx)
        gram[np.diag_indices_from(gram)] += self.reg * (gram.max() + 1e-12)
        weight = scipy.linalg.solve(gram, (x - mx).T @ (y - my), assume_a="pos")
        return weight, my - mx @ weight


@dataclass(frozen=True)
class MeanShape(Regressor):
    """Predicts the mean of the labels whatever the image: the baseline that uses no landmark at all."""

    def _solve(self, x: Array, y: Array) -> tuple[Array, Array]:
        return np.zeros((x.shape[1], y.shape[1])), y.mean(0)


@dataclass(frozen=True)
class Regression:
    """The regressors of a protocol, one for each direction, and whose it is."""

    forward: Regressor
    backward: Regressor
    source: str

    @classmethod
    def of(cls, name: str | Regressor | Regression) -> Regression:
        """Look a name up; a single regressor serves both directions. Raises InputError for an unknown name."""
        if isinstance(name, Regression):
            return name
        if isinstance(name, Regressor):
            return cls(name, name, "given")
        if name not in REGRESSORS:
            raise InputError(f"found regressor {name!r}, expected one of {', '.join(REGRESSORS)}")
        return REGRESSORS[name]


def _both(regressor: Regressor, source: str) -> Regression:
    return Regression(regressor, regressor, source)


REGRESSORS: dict[str, Regression] = {
    "inter-intra": _both(Ridge("centre"), "Sanchez 2019 and Inter-Intra: centred ridge, 1e-4 times the largest entry"),
    "imm": _both(LeastSquares("corner", 128), "IMM: least squares without intercept in [0, 128]"),
    "imm-bias": _both(LeastSquares("corner", 128, intercept=True), "IMM 'w/ bias': least squares with intercept"),
    "stable-keypoints": _both(LeastSquares("centre"), "StableKeypoints: no intercept, from the image's centre"),
    "autolink": _both(LeastSquares("corner", singular=1.0), "AutoLink: no intercept, from the corner, in [0, 1]"),
    "autolink-bias": _both(LeastSquares("corner", intercept=True), "AutoLink on Tai-Chi-HD: with intercept"),
    "d-uld": Regression(Ridge("centre", reg=1e-3), Ridge("centre", reg=0.1), "Mallis on MAFL, which D-ULD follows"),
    "d-uld-ls3d": _both(Ridge("centre", reg=0.1), "Mallis on LS3D, which D-ULD follows"),
    "awan": _both(Ridge("centre", reg=1e-2), "Awan 2023"),
}
