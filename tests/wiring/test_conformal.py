"""Intervals contain the true value as often as they claim."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from molsam.errors import ConfigError, StorageError
from molsam.wiring import conformal


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.95])
def test_a_new_score_is_within_the_radius_as_often_as_promised(coverage: float) -> None:
    draw = np.random.default_rng(0)
    held = []
    for _ in range(4000):
        scores = draw.exponential(size=60)
        held.append(scores[-1] <= conformal.radius(scores[:-1], coverage))
    exact = math.ceil(60 * coverage) / 60  # of 60 exchangeable scores, the last is as likely at each rank
    assert abs(np.mean(held) - exact) < 4 * math.sqrt(exact * (1 - exact) / 4000)
    assert exact >= coverage


def test_too_few_scores_promise_nothing() -> None:
    assert conformal.radius(np.arange(8.0), 0.9) == math.inf
    assert conformal.radius(np.arange(9.0), 0.9) == 8.0


@pytest.mark.parametrize("coverage", [0.0, 1.0, 90.0, -0.1])
def test_a_coverage_is_a_probability(coverage: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        conformal.radius(np.arange(9.0), coverage)


def test_scores_are_pooled_over_runs_and_kept_apart_by_task(tmp_path: Path) -> None:
    lines = {"a": "0,C,one,1.0,1.5\n1,CC,two,2.0,1.0\n1,CC,one,,3.0\n", "b": "4,CCC,one,0.0,-0.25\n"}
    for name, text in lines.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / conformal.VALID).write_text("row,smiles,task,target,prediction\n" + text)
    folders = [tmp_path / name for name in lines]
    one, two = conformal.scores(folders, "regression", ["one", "two"])
    assert (one.tolist(), two.tolist()) == ([0.5, 0.25], [1.0])
    (tmp_path / "a" / conformal.VALID).write_text(
        "row,smiles,task,target,prediction\n0,C,one,1,0.75\n1,CC,one,0,0.75\n"
    )
    assert conformal.scores(folders[:1], "classification", ["one"])[0].tolist() == [0.25, 0.75]


def test_a_run_without_validation_predictions_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"valid_predictions\.csv cannot be read .* train it again"):
        conformal.scores([tmp_path], "regression", ["y"])
