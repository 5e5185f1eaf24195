"""Intervals, verdicts and equal time on the page equal those of the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from molsam.report import inference
from molsam.report.dashboard import collect, compare
from molsam.report.inference import Estimate
from molsam.report.stored import StoredRun
from molsam.runs import result
from tests.report.figures.synthetic import write_run

SIZES = {"sizes": [80, 10, 20]}


def group(root: Path, optimizer: str, scores: list[float], *, paper: float | None = None, **more: Any) -> compare.Group:
    """A run for each score, each on a split of its own."""
    for fold, score in enumerate(scores):
        split = {"kind": "random", "hash": f"split{fold}", **SIZES}
        write_run(root / optimizer, "compt", optimizer, more.get("dataset", "esol"), fold=fold, test=score, split=split)
    return read(root / optimizer, paper)


def read(root: Path, paper: float | None = None) -> compare.Group:
    runs = [StoredRun(folder, result.read(folder) or {}) for folder in sorted(root.iterdir())]
    return compare.Group(tuple(compare.Scored.of(run, run.epochs()) for run in runs), paper)


def test_a_lead_is_positive_for_the_better_one_and_its_interval_is_corrected(tmp_path: Path) -> None:
    one, two = [0.50, 0.52, 0.55, 0.51], [0.60, 0.61, 0.63, 0.66]
    groups = {0: group(tmp_path, "adam", two), 1: group(tmp_path, "sam", one)}
    (lead,) = compare.table(groups)[0]
    expected = inference.estimate([b - a for a, b in zip(one, two, strict=True)], 20 / 80)
    assert (lead["group"], lead["n"]) == (1, 4)
    assert [lead[key] for key in ("mean", "low", "high", "p")] == pytest.approx(
        [expected.mean, expected.low, expected.high, expected.p], rel=1e-4
    )
    (back,) = compare.table(groups)[1]
    assert [back["mean"], back["low"], back["high"]] == pytest.approx([-lead["mean"], -lead["high"], -lead["low"]])
    assert (lead["verdict"], back["verdict"]) == ("better", "worse")


def test_where_more_is_better_the_sign_turns(tmp_path: Path) -> None:
    groups = {
        0: group(tmp_path, "adam", [0.8, 0.81, 0.8], dataset="bbbp"),
        1: group(tmp_path, "sam", [0.9, 0.92, 0.9], dataset="bbbp"),
    }
    assert compare.table(groups)[0][0]["mean"] == pytest.approx(0.1033, abs=1e-4)


def test_holm_counts_the_comparisons_with_one_reference(tmp_path: Path) -> None:
    base = [0.60, 0.61, 0.63, 0.66, 0.62]
    groups = {0: group(tmp_path, "adam", base)}
    for place, optimizer in enumerate(("sam", "rst", "sam_k"), start=1):
        groups[place] = group(tmp_path, optimizer, [v - 0.02 * place + 0.02 * (i % 2) for i, v in enumerate(base)])
    found = compare.table(groups)[0]
    alone = [compare.table({0: groups[0], 1: groups[i]})[0][0]["p"] for i in (1, 2, 3)]
    expected = inference.holm(alone)
    assert [one["p"] for one in found] == pytest.approx(expected, rel=1e-3)


def test_repeats_count_once_and_seeds_of_a_split_are_averaged(tmp_path: Path) -> None:
    split = {"kind": "random", "hash": "a", **SIZES}
    for seed, score in ((0, 0.5), (0, 0.7), (1, 0.9)):
        write_run(tmp_path / "runs", "compt", "sam", "esol", seed=seed, test=score, split=split)
    write_run(tmp_path / "runs", "compt", "sam", "esol", fold=1, test=0.4, split={**split, "hash": "b"})
    found = read(tmp_path / "runs")
    assert found.score(found.best) == pytest.approx(
        {
            "n": 2,
            "mean": 0.575,
            "std": 0.24749,
            "low": found.score(found.best)["low"],
            "high": found.score(found.best)["high"],
        },  # type: ignore[index]
        rel=1e-3,
    )


@pytest.mark.parametrize(
    ("mean", "half", "p", "verdict"),
    [(0.1, 0.05, 0.01, "better"), (-0.1, 0.05, 0.01, "worse"), (0.001, 0.005, 0.6, "equal"),
     (0.1, 0.2, 0.3, "undecided"), (0.001, 0.02, 0.9, "undecided"), (0.1, 0.05, 0.2, "undecided")],
)  # fmt: skip
def test_verdicts(mean: float, half: float, p: float, verdict: str) -> None:
    assert compare.judge(Estimate(5, mean, 0.1, 0.1, mean - half, mean + half, p), p, 0.01) == verdict


def test_a_sign_alone_is_no_verdict(tmp_path: Path) -> None:
    groups = {0: group(tmp_path, "adam", [0.6]), 1: group(tmp_path, "sam", [0.2])}
    (lead,) = compare.table(groups)[0]
    assert (lead["verdict"], lead["low"], lead["p"]) == ("undecided", None, None)


@pytest.mark.parametrize(
    ("paper", "mean", "half", "p", "verdict"),
    [(0.1, 0.1, 0.05, 0.01, "confirmed"), (-0.1, -0.1, 0.05, 0.01, "confirmed"),
     (0.1, -0.1, 0.05, 0.01, "contradicted"), (0.1, 0.01, 0.03, 0.5, "contradicted"),
     (-0.1, -0.01, 0.03, 0.5, "contradicted"), (0.1, 0.02, 0.1, 0.5, "undecided")],
)  # fmt: skip
def test_the_papers_difference_is_judged_either_way_round(
    paper: float, mean: float, half: float, p: float, verdict: str
) -> None:
    assert compare.on_paper(Estimate(5, mean, 0.1, 0.1, mean - half, mean + half, p), p, paper) == verdict


def timed(root: Path, pace: float, curve: list[tuple[float, float]], *, tested: bool = True) -> compare.Group:
    """One run whose epochs took `pace` seconds and had these (validation, test) errors."""
    best = min(range(len(curve)), key=lambda place: curve[place][0])
    rows = [{"valid/rmse": valid, "test/rmse": test if tested else None} for valid, test in curve]
    folder = write_run(root, "compt", "sam", "esol", test=curve[best][1], seconds_per_epoch=pace, best_epoch=best,
                       epochs=len(curve), folder=f"{pace}-{len(curve)}-{tested}")  # fmt: skip
    run = StoredRun(folder, result.read(folder) or {})
    return compare.Group((compare.Scored.of(run, rows),))


CURVE = [(0.9, 0.91), (0.5, 0.51), (0.6, 0.61), (0.3, 0.31)]


@pytest.mark.parametrize(("seconds", "expected"), [(8.0, 0.31), (7.9, 0.51), (4.0, 0.51), (3.9, 0.91), (2.0, 0.91)])
def test_within_a_time_the_epoch_best_on_validation_counts(tmp_path: Path, seconds: float, expected: float) -> None:
    (value,) = timed(tmp_path, 2.0, CURVE).within(seconds).values()
    assert value == expected


def test_an_epoch_that_was_not_tested_is_not_made_up(tmp_path: Path) -> None:
    silent = timed(tmp_path, 2.0, CURVE, tested=False)
    assert silent.within(7.9) == {}
    assert list(silent.within(8.0).values()) == [0.31]


def test_a_run_that_was_interrupted_is_given_as_many_epochs(tmp_path: Path) -> None:
    """Its clock ran on meanwhile. The group's median pace counts, and its median time is shown."""
    paces = (2.0, 500.0, 2.5)
    group = compare.Group(tuple(timed(tmp_path / str(pace), pace, CURVE).runs[0] for pace in paces))
    assert [one.within(2) for one in group.runs] == [0.51] * 3
    assert set(group.within(5.0).values()) == {0.51}
    for seed, seconds in enumerate((60.0, 4000.0, 70.0)):
        write_run(tmp_path / "all", "compt", "sam", "esol", seed=seed, seconds=seconds, seconds_per_epoch=seconds / 30)
    (shown,) = collect.Collector([tmp_path / "all"], collect.relative_link(tmp_path)).collect()["groups"]
    assert (shown["seconds"], shown["epoch"]) == (70.0, pytest.approx(70 / 30, rel=1e-3))


def test_equal_time_is_said_for_all_pairs_or_not_at_all(tmp_path: Path) -> None:
    fast = timed(tmp_path, 1.0, CURVE)
    for tested in (True, False):
        (lead,) = compare.table({0: fast, 1: timed(tmp_path, 2.0, CURVE, tested=tested)})[0]
        assert lead["mean"] == 0
        assert (lead["time"] or {}).get("mean") == (pytest.approx(-0.2) if tested else None)


def test_only_runs_of_one_benchmark_are_compared(tmp_path: Path) -> None:
    for optimizer in ("adam", "sam"):
        for dataset in ("esol", "freesolv"):
            for fold in range(3):
                write_run(tmp_path, "compt", optimizer, dataset, fold=fold)
    data = collect.Collector([tmp_path], collect.relative_link(tmp_path)).collect()
    for reference, leads in data["leads"].items():
        own = data["groups"][reference]["benchmark"]
        assert {data["groups"][one["group"]]["benchmark"] for one in leads} == {own}
    assert len(data["leads"]) == 4


def test_many_groups_are_compared_by_those_with_the_most_splits(tmp_path: Path) -> None:
    full = group(tmp_path, "adam", [0.6, 0.61, 0.6])
    few = group(tmp_path, "sam", [0.6])
    found = compare.table({place: full if place >= 5 else few for place in range(compare.MOST + 5)})
    assert set(found) == set(range(5, compare.MOST + 5))
