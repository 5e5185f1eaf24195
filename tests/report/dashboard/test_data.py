"""The data of a dashboard are those of the run folders, shortened, and safe to embed."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from molsam.commands import dashboard as command
from molsam.errors import MolsamError
from molsam.report.dashboard import collect, facts, groups, page
from molsam.runs import result
from tests.report.figures.synthetic import write_run


def collected(root: Path) -> dict[str, Any]:
    return collect.Collector([root], collect.relative_link(root)).collect()


def configs(data: dict[str, Any]) -> list[dict[str, str]]:
    """Each run's settings, put together again as the page does it."""
    return [
        {key: value for key, value in {**data["base"], **run["config"]}.items() if value is not None}
        for run in data["runs"]
    ]


def test_runs_and_groups(tmp_path: Path) -> None:
    for fold in range(2):
        write_run(tmp_path, "compt", "graphsam", fold=fold, test=0.9 + fold / 100)
        write_run(tmp_path, "compt", "graphsam", fold=fold, settings={"optimizer.rho": 0.01})
    write_run(tmp_path, "compt", "graphsam", fold=2)
    write_run(tmp_path, "compt", "adam", "esol")
    data = collected(tmp_path)
    names = [one["name"] for one in data["benchmarks"]]
    groups = {(g["optimizer"], names[g["benchmark"]], g["variant"]): place for place, g in enumerate(data["groups"])}
    assert set(groups) == {("graphsam", "BBBP", "rho 0.05"), ("graphsam", "BBBP", "rho 0.01"), ("adam", "ESOL", "")}
    usual = [run for run in data["runs"] if run["group"] == groups["graphsam", "BBBP", "rho 0.05"]]
    assert sorted((run["fold"], run["test"]) for run in usual)[:2] == [(0, 0.9), (1, 0.91)]
    assert len(usual) == 3
    assert data["groups"][groups["graphsam", "BBBP", "rho 0.01"]]["paper"] == 0.961
    assert data["groups"][groups["adam", "ESOL", ""]]["paper"] == 0.562
    for run in data["runs"]:
        assert (tmp_path / run["folder"] / "result.json").exists()


def test_packed_runs_are_shown_and_a_copy_is_shown_once(tmp_path: Path) -> None:
    from molsam.report.stored import StoredRun
    from molsam.runs import pack

    folder = write_run(tmp_path / "runs", "gcn", "adam", gradients=False)
    run = StoredRun(folder, result.read(folder) or {})
    kept = pack.Packed("a cell", run.result, pack.curve(run.epochs(), "roc_auc"))
    pack.write(tmp_path / "kept.jsonl", [kept])
    (alone,) = collect.Collector([tmp_path / "kept.jsonl"], collect.relative_link(tmp_path)).collect()["runs"]
    (both,) = collected(tmp_path)["runs"]
    assert (alone["folder"], both["folder"]) == (None, f"runs/{folder.name}/")
    for key in ("test", "valid", "epochs", "seed"):
        assert alone[key] == both[key]
    assert alone["curves"]["valid/roc_auc"] == both["curves"]["valid/roc_auc"]


def test_what_the_command_line_gave(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "gcn", "sam")
    (folder / ".hydra").mkdir()
    words = ["model=gcn", "++optimizer.rho=0.02", "paths.outputs=/somewhere", "+sweeps.row=a", "~diagnostics", "seed=3"]
    (folder / ".hydra" / "overrides.yaml").write_text(json.dumps(words))
    (run,) = collected(tmp_path)["runs"]
    assert run["given"] == [["model", "gcn"], ["optimizer.rho", "0.02"], ["diagnostics", ""]]


def test_settings_come_back_whole(tmp_path: Path) -> None:
    folders = [write_run(tmp_path, "gcn", optimizer, folder=optimizer) for optimizer in ("adam", "graphsam", "sam")]
    found = dict(zip(sorted(f.name for f in folders), configs(collected(tmp_path)), strict=True))
    assert found["graphsam"]["optimizer.beta"] == "0.99"
    assert "optimizer.beta" not in found["adam"]
    assert found["adam"]["rho_schedule"] == "null"
    assert "paths.outputs" not in found["sam"]
    for folder in folders:
        config = json.loads((folder / "result.json").read_text())["config"]
        assert found[folder.name] == groups.flatten(config)


def test_a_setting_that_only_some_runs_have_is_not_given_to_the_others() -> None:
    settings = [{"a": "1", "b": "2"}, {"a": "1", "b": "2"}, {"a": "3"}]
    base = collect.common(settings)
    assert base == {"a": "1", "b": "2"}
    assert collect.difference(settings[2], base) == {"a": "3", "b": None}
    assert collect.difference(settings[0], base) == {}


def test_long_curves_are_thinned_to_their_ends(tmp_path: Path) -> None:
    folder = write_run(tmp_path, epochs=333, steps=7)
    (run,) = collected(tmp_path)["runs"]
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = {row["epoch"] + 1: row["valid/loss"] for row in rows if row["kind"] == "epoch"}
    assert (run["x"][0], run["x"][-1], len(run["x"])) == (1, 333, facts.POINTS)
    assert run["curves"]["valid/loss"] == [pytest.approx(losses[x], rel=1e-3) for x in run["x"]]
    assert {len(values) for values in run["curves"].values()} == {facts.POINTS}
    assert {len(values) for values in run["gradients"].values()} == {facts.POINTS}
    assert run["epochs"] == 333


def test_gradients_are_means_of_cosines_and_medians_of_norms() -> None:
    rng = np.random.default_rng(0)
    rows = [
        {"step": i, "cos_next": float(rng.uniform(-1, 1)), "eps_norm": float(rng.lognormal(0, 2))} for i in range(120)
    ]
    rows[0]["cos_next"] = None
    found = facts.bins(rows)
    assert found["cos_next"][0] == pytest.approx(rows[1]["cos_next"], rel=1e-3)
    assert found["cos_next"][7] == pytest.approx(np.mean([rows[i]["cos_next"] for i in (14, 15)]), rel=1e-3)
    assert found["step"][7] == 15
    assert "cos_true" not in found
    few = facts.bins([{"step": i, "eps_norm": v} for i, v in enumerate([1.0, 2.0, 30.0])])
    assert few == {"step": [0, 1, 2], "eps_norm": [1, 2, 30]}
    tall = facts.bins([{"step": i, "eps_norm": [1.0, 2.0, 30.0][i % 3]} for i in range(180)])
    assert set(tall["eps_norm"]) == {2}, "a median"


def test_runs_under_way_are_shown_and_read_again_only_when_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import yaml

    folder = write_run(tmp_path, "gcn", "sam", fold=3)
    config = json.loads((folder / "result.json").read_text())["config"]
    (folder / "result.json").unlink()
    collector = collect.Collector([tmp_path], collect.relative_link(tmp_path))
    assert collector.collect()["runs"] == [], "no settings, no run"
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))
    (run,) = collector.collect()["runs"]
    assert (run["status"], run["test"], run["fold"], run["task"]) == ("stopped", None, 3, None)
    reads: list[Path] = []
    original = facts.load
    monkeypatch.setattr(collect, "load", lambda path: reads.append(path) or original(path))
    assert collector.collect()["runs"] == [run]
    assert reads == []
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"kind": "epoch", "epoch": 4, "valid/roc_auc": 0.9, "train/loss": 0.1}) + "\n")
    (later,) = collector.collect()["runs"]
    assert (later["epochs"], later["valid"], reads) == (5, 0.9, [folder])


def test_a_run_that_a_sweep_took_over_is_shown_once(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "table1", "gcn", "adam")
    outcome = json.loads((folder / "result.json").read_text())
    taken = tmp_path / "table3" / "cell"
    taken.mkdir(parents=True)
    result.write(taken, {**outcome, result.SAME: os.path.relpath(folder, taken)})
    (alone,) = collected(tmp_path / "table3")["runs"]
    (both,) = collected(tmp_path)["runs"]
    assert alone["curves"] == both["curves"]
    assert alone["curves"]["valid/loss"]
    assert (tmp_path / both["folder"] / "metrics.jsonl").exists()


def test_damaged_runs_are_left_out(tmp_path: Path) -> None:
    write_run(tmp_path, "gcn", "adam")
    (write_run(tmp_path, "gcn", "sam") / "result.json").write_text("{")
    (write_run(tmp_path, "gcn", "graphsam") / "metrics.jsonl").write_text("nonsense\n{}\n")
    assert [run["name"] for run in collected(tmp_path)["runs"]] == ["gcn-adam-bbbp"]


def test_embedded_data_cannot_leave_their_element() -> None:
    hostile = {"name": "</script><script>alert(1)</script>&amp;\u2028<!--", "value": 1.5}
    text = page.embed(hostile)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == hostile


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    return command.run(parser.parse_args(list(arguments)))


def test_the_command_writes_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "outputs", "gcn", "adam")
    assert run(str(tmp_path / "outputs")) == 0
    text = (tmp_path / "outputs" / "dashboard.html").read_text()
    assert "1 runs" in capsys.readouterr().out
    assert "/*SCRIPTS*/" not in text
    assert "{{DATA}}" not in text
    for address in ('src="http', "src='http", "@import", 'link rel="stylesheet"'):
        assert address not in text, "nothing is fetched"


def test_the_command_without_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(tmp_path)) == 1
    assert "There are no runs" in capsys.readouterr().out
    with pytest.raises(MolsamError, match="is not a folder"):
        run(str(tmp_path / "absent"))


def test_a_damaged_result_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = write_run(tmp_path, "gcn", "adam", folder="damaged") / result.NAME
    damaged.write_text(damaged.read_text().replace('"metric"', '"metrics"', 1))
    assert run(str(tmp_path)) == 1
    said = capsys.readouterr()
    assert "There are no other runs" in said.out
    assert str(damaged) in said.err
    write_run(tmp_path, "gcn", "adam", folder="whole")
    assert run(str(tmp_path)) == 0
    said = capsys.readouterr()
    assert "1 runs" in said.out
    assert said.err.count(str(damaged)) == 1


def test_a_run_that_nobody_works_on_is_not_running(tmp_path: Path) -> None:
    import fcntl

    import yaml

    folder = write_run(tmp_path, "gcn", "sam")
    config = json.loads((folder / "result.json").read_text())["config"]
    (folder / "result.json").unlink()
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "run.json").write_text('{"status": "running"}')
    collector = collect.Collector([tmp_path], collect.relative_link(tmp_path))

    def status() -> str:
        (run,) = collector.collect()["runs"]
        return str(run["status"])

    assert status() == "stopped"
    with open(folder / ".lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert status() == "running"
    (folder / "run.json").write_text('{"status": "pruned"}')
    assert status() == "pruned"
