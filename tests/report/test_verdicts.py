"""Intervals and verdicts against SciPy and by simulation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from molsam.config.cells import Cell
from molsam.report import frame, inference, pairs, specs, table, verdicts
from molsam.report.inference import Estimate
from molsam.report.verdicts import CONFIRMED, CONTRADICTED, NO_PAIR, UNDECIDED, Check
from tests.report.conftest import Fill

GAPS = [0.031, -0.012, 0.02, 0.044, 0.007, -0.003]


def claimed(**changes: Any) -> Any:
    return specs.Claim(**{"text": "a beats b", "better": "a", "than": "b", **changes})


def check(gaps: list[float], paper: float | None = None, margin: float | None = 0.01, **changes: Any) -> Check:
    ratio = changes.pop("ratio", 0.125)
    one = Check(claimed(**changes), "esol", inference.estimate(gaps, ratio), paper, margin, ratio=ratio)
    return verdicts.corrected([one])[0]


@pytest.mark.parametrize("ratio", [0.0, 0.125, 0.25])
def test_the_interval_is_scipys_with_the_corrected_error(ratio: float) -> None:
    found = inference.estimate(GAPS, ratio)
    naive = stats.ttest_1samp(GAPS, 0.0)
    stretch = math.sqrt(1 + len(GAPS) * ratio)
    low, high = stats.t.interval(0.95, len(GAPS) - 1, loc=np.mean(GAPS), scale=stats.sem(GAPS) * stretch)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert found.p == pytest.approx(2 * stats.t.sf(naive.statistic / stretch, len(GAPS) - 1))
    # The interval leaves zero out exactly where p is below 5 %.
    assert (found.p < 0.05) == (found.low > 0 or found.high < 0)


def test_holm_is_the_step_down_procedure() -> None:
    assert inference.holm([0.01, None, 0.04, 0.03]) == [
        pytest.approx(0.03),
        None,
        pytest.approx(0.06),
        pytest.approx(0.06),
    ]
    assert inference.holm([0.9, 0.8]) == [1.0, 1.0]
    assert inference.holm([]) == []


def test_the_number_of_splits_is_the_smallest_with_the_power() -> None:
    n = inference.splits_for(0.02, 0.018, 0.125)
    assert n is not None
    assert inference.power(0.02, 0.018, n, 0.125) >= 0.8 > inference.power(0.02, 0.018, n - 1, 0.125)
    # Without overlap this is the one-sample t test, whose n is tabulated: 34 for an effect of half a deviation.
    assert inference.splits_for(0.5, 1.0, 0.0) == 34
    # An effect below about one deviation cannot be shown by more splits of the same molecules.
    assert inference.splits_for(0.5, 1.0, 0.125) is None
    strict = inference.splits_for(0.03, 0.018, 0.125, level=0.01)
    assert strict > inference.splits_for(0.03, 0.018, 0.125)  # type: ignore[operator]


def test_verdicts_follow_their_definitions() -> None:
    assert check([]).verdict == NO_PAIR
    assert check([0.1], paper=0.1).verdict == UNDECIDED
    assert check([0.10, 0.11, 0.12], paper=0.1).verdict == CONFIRMED
    assert check([-0.10, -0.11, -0.12]).verdict == CONTRADICTED
    near_zero = [0.001, -0.001, 0.002, -0.002]
    assert check(near_zero, paper=0.05).verdict == CONTRADICTED  # even half of it is ruled out
    assert check(near_zero, paper=0.001).verdict == UNDECIDED
    assert check(near_zero, paper=-0.05).verdict == UNDECIDED  # the paper does not have it ahead either
    assert check(GAPS, paper=0.05).verdict == UNDECIDED
    assert check([0.0, 0.0]).verdict == UNDECIDED
    # A lead that is certain, though less than half of the paper's, is a lead.
    assert check([0.010, 0.0101, 0.0102], paper=0.05).verdict == CONFIRMED


def test_equal_needs_the_whole_interval_within_the_margin() -> None:
    near_zero = [0.001, -0.001, 0.002, -0.002]
    assert check(near_zero).equal
    assert not check(near_zero, margin=0.003).equal
    assert not check(near_zero, margin=None).equal
    assert check(near_zero, equal=True).verdict == CONFIRMED
    assert check(GAPS, equal=True).verdict == UNDECIDED
    assert check([0.1, 0.11, 0.105], equal=True).verdict == CONTRADICTED
    assert check([0.008, 0.0081, 0.0079], equal=True).verdict == CONFIRMED  # a difference, but too small to matter


def test_holm_decides_over_a_table_and_leaves_a_level() -> None:
    def one(p: float, mean: float) -> Check:
        return Check(claimed(), "esol", Estimate(5, mean, 1.0, 1.0, mean - 0.1, mean + 0.1, p), None, None)

    found = verdicts.corrected([one(0.001, 1.0), one(0.03, 1.0), one(0.04, -1.0), one(0.001, -1.0)])
    assert [check.verdict for check in found] == [CONFIRMED, UNDECIDED, UNDECIDED, CONTRADICTED]
    assert found[1].level == 0.05 / 2


def runs_of(scores: dict[tuple[str, str, int], float], **columns: Any) -> pd.DataFrame:
    """Runs of rows on splits with training seeds."""
    base = {"dataset": "esol", "direction": "max", "metric": "roc_auc", "split_kind": "random", "n_train": 80,
            "n_test": 10, "smoke": False, "late": None, "finished": "x", "seconds": 1.0}  # fmt: skip
    lines = [
        {**base, "row": row, "split": split, "seed": seed, "score": score, "identity": f"{row}{split}{seed}"}
        for (row, split, seed), score in scores.items()
    ]
    return pd.DataFrame(lines).assign(**columns)


def test_training_seeds_are_averaged_within_their_split() -> None:
    scores = {("a", split, seed): 0.8 + 0.01 * seed for split in "xyz" for seed in (0, 1)}
    scores |= {("b", split, seed): 0.7 for split in "xyz" for seed in (0, 1)}
    del scores["b", "z", 1]
    found = pairs.paired(runs_of(scores), "a", "b", "score", "esol")
    assert found.differences == (pytest.approx(0.105), pytest.approx(0.105), pytest.approx(0.1))
    assert (found.ratio, found.fixed) == (0.125, False)
    less = pairs.paired(runs_of(scores, direction="min"), "a", "b", "score", "esol")
    assert less.differences == tuple(-gap for gap in found.differences)


@pytest.mark.parametrize("kind", ["random", "official"])
def test_one_test_set_has_students_interval_over_the_seeds(kind: str) -> None:
    scores = {(row, "x", seed): 0.8 + 0.01 * seed * (row == "a") for row in "ab" for seed in (0, 1, 2)}
    found = pairs.paired(runs_of(scores, split_kind=kind), "a", "b", "score", "esol")
    assert found.fixed
    assert found.ratio == 0.0
    assert found.estimate.n == 3


def test_repeats_are_one_measurement_and_their_spread_is_told() -> None:
    cells = runs_of({("a", "x", 0): 0.8, ("b", "x", 0): 0.7})
    again = cells.assign(score=[0.9, 0.7], finished=["later", "x"])  # of b it is a copy, not a repeat
    pooled = pairs.pool(cells, pd.concat([cells, again]))
    assert pooled["score"].tolist() == [pytest.approx(0.85), 0.7]
    assert pooled["repeats"].tolist() == [2, 1]
    (noise,) = pairs.noise(cells, pd.concat([cells, again]))
    assert (noise.settings, noise.runs) == (1, 2)
    assert noise.spread == pytest.approx(np.std([0.8, 0.9], ddof=1))


def test_a_repeat_elsewhere_fills_no_other_cell(fill: Fill, tmp_path: Path) -> None:
    """A table with repeats under another sweep's name has as many cells as before, and their mean."""
    cells = fill("table9")
    fill("table3")
    runs, _ = frame.load([tmp_path / "outputs"])
    first = runs[runs["sweep"] == "table9"].iloc[0]
    moved = runs[runs["sweep"] == "table3"].iloc[:1].assign(
        identity=first["identity"], score=first["score"] + 0.2, finished="2027"
    )  # fmt: skip
    built = table.build(specs.load("table9"), pd.concat([runs, moved]))
    assert built.done == len(cells)
    pooled = built.runs[built.runs["identity"] == first["identity"]].iloc[0]
    assert pooled["score"] == pytest.approx(first["score"] + 0.1)
    assert len(built.noise) == 1


def test_the_late_score_is_the_mean_of_the_last_fifth(fill: Fill, tmp_path: Path) -> None:
    import json

    def tested(cell: Cell) -> dict[str, Any]:
        return {} if cell.values["fold"] else {"test_late": {"rmse": 0.25, "roc_auc": 0.75}}

    fill("table9", change=tested)
    for folder in (tmp_path / "outputs" / "table9").glob("*-f1-*"):
        path = folder / "result.json"
        run = json.loads(path.read_text())
        run["config"]["training"]["test_each_epoch"] = True
        from molsam.runs import result

        result.write(folder, {k: v for k, v in run.items() if k not in ("checksum", "schema", "status")})
        lines = [{"kind": "epoch", "epoch": e, f"test/{run['metric']}": float(e)} for e in range(20)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    runs, _ = frame.load([tmp_path / "outputs"])
    late = {fold: set(own["late"]) for fold, own in runs.groupby("fold")}
    assert late[0] == {0.25, 0.75}
    assert late[1] == {17.5}
    assert runs[runs["fold"] == 2]["late"].isna().all()
    shown = table.build(specs.load("table9"), runs, "late")
    assert shown.entry("gamma=0.5", "esol", "score").ours.n == 2  # type: ignore[union-attr]


def simulated(rng: np.random.Generator, splits: int, lead: float) -> list[float]:
    """Differences of two rows on random splits of one set of 1,128 molecules, whose true mean difference is `lead`.

    A molecule's difference is its own in every split; each training adds its noise.
    """
    molecules = rng.normal(lead, 1.0, 1128)
    tests = [rng.choice(1128, 113, replace=False) for _ in range(splits)]
    return [float(molecules[test].mean() + rng.normal(0, 0.02)) for test in tests]


@pytest.mark.slow
@pytest.mark.parametrize("splits", [3, 5, 15, 25])
def test_equally_good_rows_are_told_apart_in_5_percent_of_tables(splits: int) -> None:
    rng = np.random.default_rng(splits)
    tables = 2000
    wrong = sum(check(simulated(rng, splits, 0.0), ratio=113 / 902).verdict != UNDECIDED for _ in range(tables))
    assert 0.02 < wrong / tables < 0.07
    if splits == 25:
        values = [inference.estimate(simulated(rng, splits, 0.0), 0.0).p for _ in range(500)]
        naive = sum(p < 0.05 for p in values)  # type: ignore[operator]
        assert naive / 500 > 0.2  # what the correction is for


@pytest.mark.slow
@pytest.mark.parametrize("lead", [0.12, 0.14])
def test_the_stated_number_of_splits_has_the_stated_power(lead: float) -> None:
    rng = np.random.default_rng(1)
    spread = math.hypot(1 / math.sqrt(113), 0.02)
    n = inference.splits_for(lead, spread, 113 / 902)
    assert n is not None
    found = [check(simulated(rng, n, lead), ratio=113 / 902).verdict for _ in range(1000)]
    assert 0.75 < found.count(CONFIRMED) / 1000 < 0.91


@pytest.mark.slow
def test_a_family_of_equal_rows_has_one_false_verdict_in_20_tables() -> None:
    rng = np.random.default_rng(2)
    wrong = 0
    for _ in range(1000):
        claims = [check(simulated(rng, 5, 0.0), ratio=113 / 902) for _ in range(6)]
        wrong += any(one.verdict != UNDECIDED for one in verdicts.corrected(claims))
    assert wrong / 1000 < 0.07
