"""How good discovered landmarks are: regressors, forward and backward error, and what to compare them with.

A detector's K landmarks have no names. So a linear map from them to the L annotated points is fitted on a few labelled
images, and its error on other images, divided by the size of the object, is the *forward* NME. The *backward* NME
goes the other way: it asks how well the annotation predicts the discovered landmarks, which punishes landmarks that
jump about although others make up for them (Sanchez and Tzimiropoulos, 2019; Tourani et al., section 4).

Everything is float64 in pixels, (x, y), origin at the image's top-left corner; a missing point is NaN. Two rules hold
everywhere. A *detection* that is missing is replaced by the mean of that landmark over the images of the fit (Mallis
et al., for test images). A *ground truth* that is missing is left out, of the fit and of the error, landmark by
landmark: each landmark is fitted on the images that show it, as AutoLink and StableKeypoints do for birds.
Errors are in percent.
"""

from ulm.evaluation.arrays import to_array
from ulm.evaluation.metrics import (
    NORMALISERS,
    YAW_RANGES,
    Collapse,
    accuracy_curve,
    average,
    by_range,
    collapse,
    collapsed,
    cumulative_curve,
    errors,
    match,
    nme,
    normalising_lengths,
    pck,
    raw_accuracy,
    select_points,
    spread,
)
from ulm.evaluation.regressors import REGRESSORS, LeastSquares, LinearMap, MeanShape, Regression, Regressor, Ridge
from ulm.evaluation.reports import (
    Detections,
    Report,
    detect,
    evaluate,
    evaluate_detector,
    label_subsets,
    monitor,
    regress,
    sample_efficiency,
    subset_groups,
)
from ulm.evaluation.supervised import SupervisedBaseline

__all__ = [
    "NORMALISERS",
    "REGRESSORS",
    "YAW_RANGES",
    "Collapse",
    "Detections",
    "LeastSquares",
    "LinearMap",
    "MeanShape",
    "Regression",
    "Regressor",
    "Report",
    "Ridge",
    "SupervisedBaseline",
    "accuracy_curve",
    "average",
    "by_range",
    "collapse",
    "collapsed",
    "cumulative_curve",
    "detect",
    "errors",
    "evaluate",
    "evaluate_detector",
    "label_subsets",
    "match",
    "monitor",
    "nme",
    "normalising_lengths",
    "pck",
    "raw_accuracy",
    "regress",
    "sample_efficiency",
    "select_points",
    "spread",
    "subset_groups",
    "to_array",
]
