"""The metrics of conf/metric: functions of the labels and predictions of one task, computed by scikit-learn and SciPy.

Each takes target [n] and prediction [n]: values in the target's own unit, or probabilities of the positive class. With
K classes the target is the number of the class, and prediction [n, K] has the probabilities. A metric that is undefined
(because there is only one class, say) returns NaN.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray
BINS = 10
"""Number of bins of the expected calibration error."""


def rmse(target: Array, prediction: Array) -> float:
    """Return the root mean squared error."""
    from sklearn.metrics import root_mean_squared_error

    return float(root_mean_squared_error(target, prediction))


def mae(target: Array, prediction: Array) -> float:
    """Return the mean absolute error."""
    from sklearn.metrics import mean_absolute_error

    return float(mean_absolute_error(target, prediction))


def r2(target: Array, prediction: Array) -> float:
    """Return the coefficient of determination; undefined for fewer than two labels."""
    from sklearn.metrics import r2_score

    return float(r2_score(target, prediction)) if len(target) > 1 else np.nan


def pearson(target: Array, prediction: Array) -> float:
    """Return Pearson's correlation; undefined if either is constant."""
    from scipy.stats import pearsonr

    return float(pearsonr(target, prediction)[0]) if _varies(target, prediction) else np.nan


def spearman(target: Array, prediction: Array) -> float:
    """Return Spearman's rank correlation; undefined if either is constant."""
    from scipy.stats import spearmanr

    return float(spearmanr(target, prediction)[0]) if _varies(target, prediction) else np.nan


def kendall(target: Array, prediction: Array) -> float:
    """Return Kendall's tau-b; undefined if either is constant."""
    from scipy.stats import kendalltau

    return float(kendalltau(target, prediction)[0]) if _varies(target, prediction) else np.nan


def roc_auc(target: Array, prediction: Array) -> float:
    """Return the area under the ROC curve; with several classes the mean of each against the rest.

    Needs all classes.
    """
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
    """Return the average precision (area under the precision-recall curve); undefined if there is only one class."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(target, prediction)) if len(np.unique(target)) == 2 else np.nan


def accuracy(target: Array, prediction: Array) -> float:
    """Return the share of correct classes."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(target, chosen(prediction)))


def accuracy_percent(target: Array, prediction: Array) -> float:
    """Return the percentage of correct classes, as papers on images report it."""
    return 100 * accuracy(target, prediction)


def balanced_accuracy(target: Array, prediction: Array) -> float:
    """Return the mean over classes of the share of their items that are classified correctly."""
    from sklearn.metrics import balanced_accuracy_score

    return float(balanced_accuracy_score(target, chosen(prediction)))


def f1(target: Array, prediction: Array) -> float:
    """Return F1 of the positive class, 0 if nothing is positive; with several classes the mean over them."""
    from sklearn.metrics import f1_score

    average = "binary" if prediction.ndim == 1 else "macro"
    return float(f1_score(target, chosen(prediction), average=average, zero_division=0))


def mcc(target: Array, prediction: Array) -> float:
    """Return Matthews' correlation coefficient."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(target, chosen(prediction)))


def brier(target: Array, prediction: Array) -> float:
    """Return the Brier score: the mean squared error of the probabilities, with several classes summed over them."""
    if prediction.ndim == 1:
        from sklearn.metrics import brier_score_loss

        return float(brier_score_loss(target, prediction, pos_label=1))
    truth = np.eye(prediction.shape[1])[target.astype(int)]
    return float(np.square(prediction - truth).sum(1).mean())


def ece(target: Array, prediction: Array) -> float:
    """Return the expected calibration error over BINS bins of equal width (Guo et al., ICML 2017).

    With two classes it compares the probability of the positive class with its frequency; with several classes the
    probability of the most probable class with how often it is correct.
    """
    right, sure = target, prediction
    if prediction.ndim == 2:
        right, sure = (prediction.argmax(1) == target).astype(float), prediction.max(1)
    places = np.clip(np.ceil(sure * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = np.abs(np.bincount(places, weights=right - sure, minlength=BINS))
    return float(gaps.sum() / len(target))


def chosen(prediction: Array) -> Array:
    """Return the predicted classes: positive from a probability of 0.5, or the most probable of several."""
    return (prediction >= 0.5).astype(float) if prediction.ndim == 1 else prediction.argmax(1).astype(float)


def _varies(target: Array, prediction: Array) -> bool:
    return len(target) > 1 and bool(np.ptp(target) > 0) and bool(np.ptp(prediction) > 0)
