"""The names of groups, and which groups may be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from molsam.report.dashboard import groups
from molsam.report.stored import StoredRun
from molsam.runs import result
from tests.report.figures.synthetic import write_run


def members(root: Path) -> dict[str, StoredRun]:
    runs = [StoredRun(folder, result.read(folder) or {}) for folder in sorted(root.iterdir())]
    return {groups.group_key(run): run for run in runs}


def variants(root: Path) -> list[str]:
    found = members(root)
    return sorted(name.short for name in groups.describe(found, groups.benchmarks(found)).values())


def test_the_rare_setting_is_told_and_the_common_one_is_not(tmp_path: Path) -> None:
    for gamma, rho in [(0.5, 0.05), (0.5, 0.01), (0.2, 0.05)]:
        own = {"rho_schedule.gamma": gamma, "optimizer.rho": rho}
        write_run(tmp_path, "compt", "graphsam", settings=own)
    assert variants(tmp_path) == ["", "gamma 0.2", "rho 0.01"]


def test_without_a_majority_all_are_told_in_three_digits(tmp_path: Path) -> None:
    for beta in (0.98612345, 0.9, 0.97):
        write_run(tmp_path, "compt", "graphsam", settings={"optimizer.beta": beta})
    assert variants(tmp_path) == ["beta 0.9", "beta 0.97", "beta 0.986"]


@pytest.mark.parametrize("value", [None, False])
def test_what_is_absent_is_said_in_words(tmp_path: Path, value: Any) -> None:
    for place, given in enumerate((20, 20, value)):
        own = {"training.patience": given, "training.clip": given, "optimizer.q": place}
        write_run(tmp_path, "compt", "adam", settings=own)
    assert variants(tmp_path) == ["q 0", "q 1", "q 2, no clip, no patience"]


def test_names_that_three_digits_do_not_tell_apart_are_numbered(tmp_path: Path) -> None:
    for beta in (0.98612345, 0.98612346):
        write_run(tmp_path, "compt", "graphsam", settings={"optimizer.beta": beta})
    assert variants(tmp_path) == ["beta 0.986", "beta 0.986 #2"]


def test_of_many_differences_three_are_told_if_they_suffice(tmp_path: Path) -> None:
    many = {f"optimizer.a{i}": i for i in range(6)}
    write_run(tmp_path, "compt", "adam", settings=many)
    write_run(tmp_path, "compt", "adam", settings={**many, "optimizer.a5": 9})
    write_run(tmp_path, "compt", "adam")
    assert variants(tmp_path) == ["a5 5", "a5 9", "no a0, no a1, no a2, +3"]


def test_another_class_is_told_without_the_settings_that_only_it_has(tmp_path: Path) -> None:
    usual = {"rho_schedule": {"_target_": "molsam.optim.schedules.Staircase", "gamma": 0.5, "lam": 1}}
    for gamma in (0.5, 0.5, 0.1):
        write_run(tmp_path, "compt", "sam", settings={"rho_schedule": {**usual["rho_schedule"], "gamma": gamma}})
    write_run(tmp_path, "compt", "sam", settings={"rho_schedule": {"_target_": "molsam.optim.schedules.Constant"}})
    assert variants(tmp_path)[-1] == "rho schedule constant"


def test_a_group_that_lacks_the_class_of_another_says_which_it_has(tmp_path: Path) -> None:
    constant, staircase = (
        {"_target_": f"molsam.optim.schedules.{name}", "gamma": 0.5} for name in ("Constant", "Staircase")
    )
    for rho, schedule in ((0.05, constant), (0.05, staircase), (0.01, constant), (0.02, constant)):
        write_run(tmp_path, "compt", "sam", settings={"rho_schedule": schedule, "optimizer.rho": rho})
    assert [name for name in variants(tmp_path) if name.startswith("rho 0.05")] == [
        "rho 0.05, rho schedule constant",
        "rho 0.05, rho schedule staircase",
    ]


def test_a_trial_of_a_search_is_named_by_all_that_is_searched(tmp_path: Path) -> None:
    for place in range(3):
        searched = {f"optimizer.a{i}": 3 * i + (place if i else place // 2) for i in range(5)}
        write_run(tmp_path, "compt", "adam", settings={**searched, "sweeps": {"report": {"search": True}}})
    assert variants(tmp_path) == [
        "a0 0, a1 3, a2 6, a3 9, a4 12",
        "a0 0, a1 4, a2 7, a3 10, a4 13",
        "a0 1, a1 5, a2 8, a3 11, a4 14",
    ]


def data_of(path: str, digest: str) -> dict[str, Any]:
    return {
        "dataset": "csv",
        "settings": {"dataset.path": path},
        "data": {"hash": digest, "rows": 10, "invalid": 0, "duplicates": 0},
    }


def test_what_is_scored_on_other_data_stands_apart(tmp_path: Path) -> None:
    """Two files, a rewritten one, some of the rows, another metric, other epochs."""
    write_run(tmp_path, "compt", "graphsam", **data_of("a/assay.csv", "11"))
    write_run(tmp_path, "compt", "sam", **data_of("b/assay.csv", "11"))
    write_run(tmp_path, "compt", "graphsam", **data_of("b/other.csv", "22"))
    write_run(tmp_path, "compt", "graphsam", **data_of("a/assay.csv", "33"))
    write_run(tmp_path, "compt", "graphsam", "esol", metric="roc_auc", direction="max")
    write_run(tmp_path, "compt", "graphsam", "esol")
    write_run(tmp_path, "compt", "adam", "esol")
    write_run(tmp_path, "compt", "graphsam", "esol", settings={"dataset.limit": 64}, epochs=2)
    found = groups.benchmarks(members(tmp_path))
    names = sorted((one.name, one.metric, one.direction) for one in {b.key: b for b in found.values()}.values())
    assert names == [
        ("ESOL", "rmse", "min"),
        ("ESOL", "roc_auc", "max"),
        ("ESOL (limit 64, epochs 2)", "rmse", "min"),
        ("assay.csv", "roc_auc", "max"),
        ("assay.csv (data 33)", "roc_auc", "max"),
        ("other.csv", "roc_auc", "max"),
    ]
    by_key = {b.key: [k for k, own in found.items() if own.key == b.key] for b in found.values()}
    assert sorted(map(len, by_key.values())) == [1, 1, 1, 1, 2, 2], "a moved file is the same"
    assert any("the first 64 rows alone" in one.facts for one in found.values())
