"""Stored runs are read unchanged, and a series has only comparable runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from molsam.commands import figure
from molsam.errors import StorageError
from molsam.report.figures import curves, drawing, paper, select
from molsam.report.stored import StoredRun, find_runs, read_lines
from tests.report.figures.synthetic import write_run


def test_runs_are_found_and_damaged_ones_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_run(tmp_path / "a", test=0.75)
    broken = write_run(tmp_path / "b")
    (broken / "result.json").write_text("{")
    runs = find_runs([tmp_path, tmp_path / "a"])
    assert [run.test for run in runs] == [0.75]
    assert "result.json is damaged" in caplog.text
    assert runs[0].setting("base_optimizer.lr") == 0.001
    assert runs[0].setting("model.hidden_size.no") is None
    assert [row["kind"] for row in runs[0].epochs()] == ["epoch"] * 4


def test_a_line_that_is_still_being_written_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_lines(path) == []
    path.write_text('{"a": 1}\n{"a": 2}\n{"a": ')
    assert read_lines(path) == [{"a": 1}, {"a": 2}]
    path.write_text('{"a": 1\n{"a": 2}\n')
    with pytest.raises(StorageError, match=r"metrics\.jsonl is damaged"):
        read_lines(path)


def _runs(root: Path) -> list[StoredRun]:
    return find_runs([root])


def test_a_panel_compares_like_for_like(tmp_path: Path) -> None:
    for fold in range(3):
        write_run(tmp_path, optimizer="adam", fold=fold, settings={"training.epochs": 50})
    for optimizer in ("adam", "sam"):
        write_run(tmp_path, optimizer=optimizer, settings={"training.log_every": 7 if optimizer == "sam" else 10})
    write_run(tmp_path, model="compt")
    write_run(tmp_path, dataset="esol")
    chosen = select.panel(_runs(tmp_path), "grover", "bbbp")
    assert {(run.optimizer, run.setting("training.epochs")) for run in chosen} == {("adam", 4), ("sam", 4)}
    assert select.panel(_runs(tmp_path), "gcn", "bbbp") == []


def test_runs_on_a_few_rows_come_last(tmp_path: Path) -> None:
    for optimizer in ("adam", "sam"):
        write_run(tmp_path, optimizer=optimizer, settings={"dataset.limit": 48})
    assert len(select.panel(_runs(tmp_path), "grover", "bbbp")) == 2
    write_run(tmp_path)
    (chosen,) = select.panel(_runs(tmp_path), "grover", "bbbp")
    assert chosen.setting("dataset.limit") is None


def test_another_split_learning_rate_or_model_size_is_another_cohort(tmp_path: Path) -> None:
    changes = ({}, {"split.kind": "scaffold"}, {"base_optimizer.lr": 0.1}, {"model.hidden_size": 8})
    for change in changes:
        write_run(tmp_path, settings=change)
    same = write_run(tmp_path, optimizer="sam", seed=3, fold=2, settings={"dataset.root": "elsewhere"})
    keys = {run.folder: select.cohort(run) for run in _runs(tmp_path)}
    assert len(set(keys.values())) == len(changes)
    assert keys[same] in [key for folder, key in keys.items() if folder != same]


def test_a_series_is_one_setting_with_one_run_a_seed_and_fold(tmp_path: Path) -> None:
    for fold in range(3):
        write_run(tmp_path, optimizer="graphsam", fold=fold, settings={"optimizer.rho": 0.01})
    write_run(tmp_path, optimizer="graphsam", test=0.1, finished="2030-01-02")
    write_run(tmp_path, optimizer="graphsam", test=0.2, finished="2030-01-03")
    write_run(tmp_path, optimizer="graphsam", test=0.3, finished="2030-01-01", seed=1)
    runs = _runs(tmp_path)
    assert [run.test for run in select.series(runs, "graphsam")] == [0.2, 0.3], "published settings first, newest run"
    assert len(select.series(runs, "graphsam", optimizer__rho=0.01)) == 3
    assert select.series(runs, "graphsam", optimizer__rho=0.02) == []
    assert select.series(runs, "sam") == []


def test_without_the_published_setting_the_one_with_most_runs_is_taken(tmp_path: Path) -> None:
    write_run(tmp_path, optimizer="sam_k", settings={"optimizer.k": 4})
    for fold in range(2):
        write_run(tmp_path, optimizer="sam_k", fold=fold, settings={"optimizer.k": 5})
    assert {run.setting("optimizer.k") for run in select.series(_runs(tmp_path), "sam_k")} == {5}


def test_mean_and_spread_leave_out_what_is_not_there() -> None:
    assert select.mean_std([1.0, None, 3.0, float("nan")]) == {"mean": 2.0, "std": pytest.approx(np.sqrt(2)), "n": 2}
    assert select.mean_std([4.0]) == {"mean": 4.0, "std": None, "n": 1}
    assert select.mean_std([]) == {"mean": None, "std": None, "n": 0}


def test_the_paper_is_read_by_name_however_it_is_written() -> None:
    assert paper.stated(table="text", optimizer="sam_one", metric="consistent_pairs_percent") == 40.05
    assert paper.stated(table="text", model="compt", optimizer="graphsam", metric="attention_entropy") == 2.7239
    assert paper.stated(table="1", model="grover", metric="roc_auc") is None, "more than one value"
    assert paper.stated_score("compt", "sam_one", "bbbp") == 0.922
    assert paper.stated_score("grover", "adam", "esol") == 0.639
    assert paper.stated_score("compt", "aesam", "lipophilicity") is not None
    assert paper.stated_score("gcn", "sam", "bbbp") is None
    assert json.dumps(paper.stated_score("grover", "graphsam", "qm8"))


def test_runs_of_another_file_or_numerics_version_are_no_rivals(tmp_path: Path) -> None:
    for optimizer in ("adam", "sam", "graphsam"):
        write_run(tmp_path, optimizer=optimizer)
    whole = len(select.panel(_runs(tmp_path), "grover", "bbbp"))
    write_run(tmp_path, optimizer="sam_k", data={"hash": "another", "rows": 10, "invalid": 0, "duplicates": 0})
    newer = {"digest": "x", "data": {"dataset": "cd"}, "numerics": 99}
    write_run(tmp_path, optimizer="looksam", identity=newer)
    assert len(select.panel(_runs(tmp_path), "grover", "bbbp")) == whole == 3


def test_a_figure_is_drawn_from_the_runs_that_were_asked_for(tmp_path: Path) -> None:
    """smoke=true: those that it made, and else none of them; other settings likewise."""
    write_run(tmp_path / "fig3", optimizer="sam")
    write_run(tmp_path / "fig3-smoke", optimizer="sam", settings={"dataset.limit": 64})
    write_run(tmp_path / "x", optimizer="sam", settings={"training.epochs": 9})
    runs = _runs(tmp_path)
    assert [run.folder.parent.name for run in figure._asked_for(runs, ["smoke=true"])] == ["fig3-smoke"]
    assert {run.folder.parent.name for run in figure._asked_for(runs, [])} == {"fig3", "x"}
    chosen = figure._asked_for(runs, ["training.epochs=9", "optimizer=sam", "paths.outputs=x"])
    assert [run.folder.parent.name for run in chosen] == ["x"]


def test_losses_are_drawn_from_runs_that_recorded_them(tmp_path: Path) -> None:
    for optimizer in ("adam", "sam", "graphsam"):
        write_run(tmp_path, optimizer=optimizer, test_losses=False, finished="2031-01-01T00:00:00+00:00")
        write_run(tmp_path, optimizer=optimizer, seed=1, test_losses=False)
        write_run(tmp_path, optimizer=optimizer, settings={"training.batch_size": 8})
    drawn = curves.losses(drawing.Request(_runs(tmp_path), ("grover",), ("bbbp",)))
    assert {entry["runs"] for entry in drawn.numbers["grover/bbbp"].values()} == {1}
