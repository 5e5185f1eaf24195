"""Metrics equal scikit-learn's and SciPy's on the same predictions, or plain arithmetic; undefined ones are None."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from molsam.config.compose import OWN
from molsam.config.metrics import direction, display, read
from molsam.errors import ConfigError
from molsam.training.metrics import better, check_metric, definable, fitting, known, score, score_all

RNG = np.random.default_rng(0)
Y, P = RNG.normal(size=60), RNG.normal(size=60)
CLASS, SURE = (RNG.random(60) < 0.4).astype(float), RNG.random(60)
KIND, RAW = RNG.integers(0, 3, 60).astype(float), RNG.random((60, 3))
SHARES = RAW / RAW.sum(1, keepdims=True)
HARD, LIKELY = (SURE >= 0.5).astype(float), SHARES.argmax(1)


def calibration(target: np.ndarray, sure: np.ndarray) -> float:
    total = 0.0
    for low in range(10):
        inside = [(t, s) for t, s in zip(target, sure, strict=True) if low / 10 < s <= (low + 1) / 10]
        if inside:
            total += len(inside) / len(target) * abs(np.mean([t for t, _ in inside]) - np.mean([s for _, s in inside]))
    return total


REGRESSION = {
    "rmse": math.sqrt(sk.mean_squared_error(Y, P)),
    "mae": sk.mean_absolute_error(Y, P),
    "r2": sk.r2_score(Y, P),
    "pearson": stats.pearsonr(Y, P).statistic,
    "spearman": stats.spearmanr(Y, P).statistic,
    "kendall": stats.kendalltau(Y, P).statistic,
}
CLASSIFICATION = {
    "roc_auc": sk.roc_auc_score(CLASS, SURE),
    "pr_auc": sk.average_precision_score(CLASS, SURE),
    "accuracy": sk.accuracy_score(CLASS, HARD),
    "balanced_accuracy": sk.balanced_accuracy_score(CLASS, HARD),
    "f1": sk.f1_score(CLASS, HARD),
    "mcc": sk.matthews_corrcoef(CLASS, HARD),
    "brier": sk.brier_score_loss(CLASS, SURE),
    "ece": calibration(CLASS, SURE),
}
MULTICLASS = {
    "roc_auc": sk.roc_auc_score(KIND, SHARES, multi_class="ovr"),
    "accuracy": sk.accuracy_score(KIND, LIKELY),
    "accuracy_percent": 100 * sk.accuracy_score(KIND, LIKELY),
    "balanced_accuracy": sk.balanced_accuracy_score(KIND, LIKELY),
    "f1": sk.f1_score(KIND, LIKELY, average="macro"),
    "mcc": sk.matthews_corrcoef(KIND, LIKELY),
    "brier": np.mean([sum((SHARES[i, k] - (KIND[i] == k)) ** 2 for k in range(3)) for i in range(60)]),
    "ece": calibration((LIKELY == KIND).astype(float), SHARES.max(1)),
}


@pytest.mark.parametrize(
    ("task", "target", "prediction", "expected"),
    [("regression", Y, P, REGRESSION), ("classification", CLASS, SURE, CLASSIFICATION),
     ("multiclass", KIND, SHARES, MULTICLASS)],
    ids=["regression", "classification", "multiclass"],
)  # fmt: skip
def test_every_metric_of_a_task(
    task: str, target: np.ndarray, prediction: np.ndarray, expected: dict[str, float]
) -> None:
    """Two tasks, of which the second has half its labels and predicts the truth."""
    half = np.where(np.arange(60) % 2, target, np.nan)
    perfect = target if task != "multiclass" else np.eye(3)[target.astype(int)]
    found = score_all(task, np.stack([prediction, perfect], axis=1), np.stack([target, half], axis=1))
    assert set(found) == set(expected) == {one.name for one in fitting(task)}
    for name, value in expected.items():
        first, second = found[name].per_task
        assert first == pytest.approx(value, rel=1e-12), name
        best = {"max": 100 if name == "accuracy_percent" else 1, "min": 0}[known()[name].direction]
        assert second == pytest.approx(best), name
        assert found[name].mean == pytest.approx((first + best) / 2)


UNDEFINED = [
    ("roc_auc", [1, 1, 1], [0.2, 0.4, 0.9]),
    ("pr_auc", [0, 0], [0.2, 0.4]),
    ("r2", [1.0], [2.0]),
    ("pearson", [1, 2, 3], [5, 5, 5]),
    ("spearman", [4, 4], [1, 2]),
    ("kendall", [1.0], [1.0]),
    ("rmse", [np.nan], [1.0]),
]


@pytest.mark.parametrize(("name", "target", "prediction"), UNDEFINED, ids=[one[0] for one in UNDEFINED])
def test_what_is_undefined_is_none(name: str, target: list[float], prediction: list[float]) -> None:
    scores = score(name, np.array(prediction)[:, None], np.array(target, dtype=float)[:, None])
    assert scores.per_task == [None]
    assert math.isnan(scores.mean)
    assert scores.skipped == 1


def test_an_absent_class_leaves_the_area_undefined() -> None:
    target = np.where(KIND == 2, 1, KIND)
    assert score("roc_auc", SHARES[:, None], target[:, None]).per_task == [None]
    assert score("accuracy", SHARES[:, None], target[:, None]).per_task != [None]
    two = SHARES[:, :2] / SHARES[:, :2].sum(1, keepdims=True)
    assert score("roc_auc", two[:, None], target[:, None]).mean == pytest.approx(sk.roc_auc_score(target, two[:, 1]))


def test_whether_labels_can_be_scored_at_all() -> None:
    one, both = np.array([[1.0], [1.0], [np.nan]]), np.array([[1.0], [0.0], [np.nan]])
    assert definable("roc_auc", both)
    assert not definable("roc_auc", one)
    assert definable("accuracy", one)
    assert not definable("rmse", np.full((3, 1), np.nan))
    assert definable("roc_auc", np.array([[0.0], [1.0], [2.0]]), classes=3)
    assert not definable("roc_auc", np.array([[0.0], [1.0]]), classes=3)


def test_better_in_every_direction() -> None:
    assert better("brier", 0.1, 0.2)
    assert not better("r2", 0.1, 0.2)
    assert better("loss", 0.1, 0.2)


def test_a_wrong_metric_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"dataset\.metric=roc_acu does not fit a classification dataset; did you mean roc_auc\?"
    ):
        check_metric("roc_acu", "classification")


def test_a_metric_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One function and one file in an own folder; what is no metric is named, and what is not trusted refused."""
    folder = tmp_path / "metric"
    folder.mkdir()
    (tmp_path / "mylab_scores.py").write_text(
        "def worst(target, prediction):\n    return abs(target - prediction).max()\n\nLIMIT = 3\n"
    )
    text = "_target_: mylab_scores.worst\ntask: regression\ndirection: min\n"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv(OWN, str(tmp_path))

    def write(content: str, name: str = "mine") -> None:
        (folder / f"{name}.yaml").write_text(content)
        read.cache_clear()

    write(text)
    try:
        with pytest.raises(
            ConfigError,
            match=r"mine\.yaml: _target_=mylab_scores\.worst is not allowed; .*MOLSAM_TRUSTED=mylab_scores\.",
        ):
            known()
        monkeypatch.setenv("MOLSAM_TRUSTED", "other, mylab_scores")
        assert score("mine", P[:, None], Y[:, None]).mean == pytest.approx(np.abs(P - Y).max())
        assert "mine" in score_all("regression", P[:, None], Y[:, None])
        assert (direction("mine"), display("mine")) == ("min", "mine")
        for wrong in ("direction: up", "_target_: os.system", "task: ranking", "_target_: molsam.nowhere.f",
                      "_target_: mae", "_target_: mylab_scores.LIMIT", "_target_: mylab_scores.none"):  # fmt: skip
            write(text + wrong + "\n")
            with pytest.raises(ConfigError, match=r"mine\.yaml"):
                known()
        write("task: regression\n")
        with pytest.raises(ConfigError, match=r"mine\.yaml is not a metric \(it has no 'direction'\)"):
            known()
        write(text)
        write(text, "rmse")
        with pytest.raises(
            ConfigError, match=r"rmse\.yaml: molsam has a metric of this name; give the file another one"
        ):
            known()
        monkeypatch.delenv(OWN)
        assert "mine" not in known(), "known in its own folder only"
    finally:
        read.cache_clear()
