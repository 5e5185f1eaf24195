"""The metrics of conf/metric: functions of the labels and predictions of one task, by scikit-learn and SciPy.

Each takes target [n] and prediction [n]: values in the target's own unit, or the probability of the positive class.
Of several classes the target is the number of the class, and prediction [n, K] holds their probabilities. A metric
that is undefined there (one class only, say) returns NaN.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray
BINS = 10
"""Bins of equal width of the expected calibration error."""


def rmse(target: Array, prediction: Array) -> float:
    """Root mean squared error."""
    from sklearn.metrics import root_mean_squared_error

    return float(root_mean_squared_error(target, prediction))


def mae(target: Array, prediction: Array) -> float:
    """Mean absolute error."""
    from sklearn.metrics import mean_absolute_error

    return float(mean_absolute_error(target, prediction))


def r2(target: Array, prediction: Array) -> float:
    """Coefficient of determination; undefined for fewer than two labels."""
    from sklearn.metrics import r2_score

    return float(r2_score(target, prediction)) if len(target) > 1 else np.nan


def pearson(target: Array, prediction: Array) -> float:
    """Pearson's correlation; undefined if either is constant."""
    from scipy.stats import pearsonr

    return float(pearsonr(target, prediction)[0]) if _varies(target, prediction) else np.nan


def spearman(target: Array, prediction: Array) -> float:
    """Spearman's rank correlation; undefined if either is constant."""
    from scipy.stats import spearmanr

    return float(spearmanr(target, prediction)[0]) if _varies(target, prediction) else np.nan


def kendall(target: Array, prediction: Array) -> float:
    """Kendall's tau-b; undefined if either is constant."""
    from scipy.stats import kendalltau

    return float(kendalltau(target, prediction)[0]) if _varies(target, prediction) else np.nan


def roc_auc(target: Array, prediction: Array) -> float:
    """Area under the ROC curve; of several classes the mean of one against the rest. Needs every class."""
    from sklearn.metrics import roc_auc_score

    if prediction.ndim == 1:
        return float(roc_auc_score(target, prediction)) if len(np.unique(target)) == 2 else np.nan
    classes = np.arange(prediction.shape[1])
    if len(np.unique(target)) < len(classes):
        return np.nan
    if len(classes) == 2:
        return float(roc_auc_score(target, prediction[:, 1]))
    return float(roc_auc_score(target, prediction, multi_class="ovr", labels=classes))


def pr_auc(target: Array, prediction: Array) -> float:
    """Average precision, the area under the precision-recall curve; undefined for one class only."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(target, prediction)) if len(np.unique(target)) == 2 else np.nan


def accuracy(target: Array, prediction: Array) -> float:
    """Share of right classes."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(target, chosen(prediction)))


def accuracy_percent(target: Array, prediction: Array) -> float:
    """Right classes in per cent, as image papers have it."""
    return 100 * accuracy(target, prediction)


def balanced_accuracy(target: Array, prediction: Array) -> float:
    """Mean of the shares of each class that are right."""
    from sklearn.metrics import balanced_accuracy_score

    return float(balanced_accuracy_score(target, chosen(prediction)))


def f1(target: Array, prediction: Array) -> float:
    """F1 of the positive class, 0 where nothing is positive; of several classes their mean."""
    from sklearn.metrics import f1_score

    average = "binary" if prediction.ndim == 1 else "macro"
    return float(f1_score(target, chosen(prediction), average=average, zero_division=0))


def mcc(target: Array, prediction: Array) -> float:
    """Matthews' correlation coefficient."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(target, chosen(prediction)))


def brier(target: Array, prediction: Array) -> float:
    """Brier score: mean squared error of the probabilities (of several classes: summed over them)."""
    if prediction.ndim == 1:
        from sklearn.metrics import brier_score_loss

        return float(brier_score_loss(target, prediction, pos_label=1))
    truth = np.eye(prediction.shape[1])[target.astype(int)]
    return float(np.square(prediction - truth).sum(1).mean())


def ece(target: Array, prediction: Array) -> float:
    """Expected calibration error over ten bins of equal width (Guo et al., ICML 2017).

    Of two classes it compares the probability of the positive one with its frequency, of several the probability of
    the likeliest with how often it is right.
    """
    right, sure = target, prediction
    if prediction.ndim == 2:
        right, sure = (prediction.argmax(1) == target).astype(float), prediction.max(1)
    places = np.clip(np.ceil(sure * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = np.abs(np.bincount(places, weights=right - sure, minlength=BINS))
    return float(gaps.sum() / len(target))


def chosen(prediction: Array) -> Array:
    """The class that probabilities speak for: positive from 0.5 up, or the likeliest of several."""
    return (prediction >= 0.5).astype(float) if prediction.ndim == 1 else prediction.argmax(1).astype(float)


def _varies(target: Array, prediction: Array) -> bool:
    return len(target) > 1 and bool(np.ptp(target) > 0) and bool(np.ptp(prediction) > 0)
