"""The page of claims, the picture of pairs, and a search as a table."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from molsam import terminal
from molsam.commands.main import main
from molsam.report import claims, console, frame, pair_picture, specs, table, verdicts
from tests.report.conftest import Fill


def test_every_claim_of_every_sweep_is_on_the_page_with_its_section(tmp_path: Path) -> None:
    found = claims.find(frame.load([tmp_path])[0])
    told = {(one.check.claim.better, one.check.claim.than, one.check.claim.metric, one.check.dataset) for one in found}
    for name in specs.names():
        spec = specs.load(name)
        for claim in spec.claims:
            for dataset in claim.datasets or spec.datasets:
                assert (claim.better, claim.than, claim.metric, dataset) in told, f"{name}: {claim.text}"
    assert all(one.section for one in found)
    assert {one.check.verdict for one in found} == {verdicts.NO_PAIR}


def test_the_page_says_the_same_in_every_form(fill: Fill, tmp_path: Path, capsys: Any) -> None:
    fill("table3")
    outputs = str(tmp_path / "outputs")
    assert main(["report", "--claims", "--outputs", outputs, "--to", str(tmp_path / "to")]) == 1
    terminal = capsys.readouterr().out
    assert max(map(len, terminal.splitlines()[:-1])) <= 80  # but for the path
    files = {path.suffix: path.read_text() for path in (tmp_path / "to").iterdir()}
    assert set(files) == {".md", ".csv", ".tex", ".json", ".html"}
    records = [one for one in json.loads(files[".json"])["claims"] if one["verdict"] != verdicts.NO_PAIR]
    assert len(records) == 8
    lines = [one for one in csv.DictReader(io.StringIO(files[".csv"])) if one["verdict"] != verdicts.NO_PAIR]
    built = table.build(specs.load("3"), frame.load([tmp_path / "outputs"])[0])
    for record, line, check in zip(records, lines, verdicts.check(built), strict=True):
        assert (record["verdict"], record["lead"], record["low"]) == (
            check.verdict,
            check.estimate.mean,
            check.estimate.low,
        )
        assert float(line["lead"]) == record["lead"]
        assert record["place"] == "5.2.3, Table 3"
        assert record["command"].endswith("sweeps=table3")
        lead = f"{abs(record['lead']):.4f}"
        assert all(lead in text for text in (terminal, files[".md"], files[".tex"], files[".html"]))
    counts = re.match(r"Of (\d+) claims .*?, (\d+) (?:is|are) confirmed", terminal.replace("\n", " "))
    assert counts is not None
    told = json.loads(files[".json"])["claims"]
    assert int(counts[1]) == sum(one["section"] != claims.EXTRA for one in told) < len(told)


def test_of_two_sweeps_with_one_claim_the_one_with_more_splits_counts(fill: Fill, tmp_path: Path) -> None:
    fill("table1", keep=lambda cell: cell.values["fold"] < 2)
    runs, _ = frame.load([tmp_path / "outputs"])
    (one,) = [f for f in claims.find(runs) if f.check.claim.text == "SAM is better than Adam (GROVER)" and
              f.check.dataset == "esol" and f.spec.file in ("table1", "main_claim")]  # fmt: skip
    assert one.spec.file == "table1"
    fill("main_claim", keep=lambda cell: cell.values["fold"] < 3)
    runs, _ = frame.load([tmp_path / "outputs"])
    (one,) = [f for f in claims.find(runs) if f.check.claim.text == "SAM is better than Adam (GROVER)" and
              f.check.dataset == "esol" and f.spec.file in ("table1", "main_claim")]  # fmt: skip
    assert (one.spec.file, one.check.estimate.n) == ("main_claim", 3)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_pipe_can_take_the_report(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.text import Text

    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr("sys.stdout", stream)
    terminal.prepare()
    console.show([Text("0.5 ± 0.1 −0.2 – ✓ β ü")])
    stream.flush()
    written = stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    assert written.startswith("0.5 ")
    assert ("-0.2" in written) == (encoding != "utf-8")


def test_the_picture_shows_every_pair_that_has_runs(fill: Fill, tmp_path: Path) -> None:
    fill("table9", keep=lambda cell: cell.values["dataset"] == "esol")
    built = table.build(specs.load("table9"), frame.load([tmp_path / "outputs"])[0])
    found = pair_picture.gaps(built)
    assert len(found) == 3 * 4
    assert sum(gap.estimate.mean is not None for gap in found) == 3
    figure = pair_picture.draw(built, found)
    intervals, matrix, *_ = figure.axes
    assert len(intervals.get_yticklabels()) == 3
    drawn = [float(line.get_xdata()[0]) for line in intervals.lines if line.get_marker() == "o"]
    assert drawn == pytest.approx([gap.estimate.mean for gap in found if gap.estimate.mean is not None])
    values = matrix.images[0].get_array()
    assert float(values[1][0]) == -float(values[0][1])
    assert pair_picture.save(table.build(specs.load("table4"), frame.load([tmp_path])[0]), tmp_path / "none") == []


def test_a_search_is_shown_with_its_importances(tmp_path: Path, capsys: Any) -> None:
    import optuna

    folder = tmp_path / "outputs" / "tune_graphsam"
    folder.mkdir(parents=True)
    study = optuna.create_study(storage=f"sqlite:///{folder / 'study.db'}", study_name="tune")
    space = {"optimizer.beta": optuna.distributions.FloatDistribution(0, 1),
             "optimizer.rho": optuna.distributions.FloatDistribution(0, 1)}  # fmt: skip
    for place in range(12):
        params = {"optimizer.beta": place / 12, "optimizer.rho": (7 * place % 12) / 12}
        study.add_trial(optuna.create_trial(params=params, distributions=space, value=1 - place / 12))
    study.add_trial(optuna.create_trial(params={}, distributions={}, state=optuna.trial.TrialState.PRUNED))
    arguments = ["report", "--table", "tune_graphsam", "--to", str(tmp_path / "to"), "--outputs"]
    assert main([*arguments, str(tmp_path / "outputs")]) == 1
    out = capsys.readouterr().out
    assert "13 of 40 trials" in out
    found = json.loads((tmp_path / "to" / "tune_graphsam.json").read_text())
    assert [trial["trial"] for trial in found["trials"]][:3] == [11, 10, 9]  # best first
    assert found["trials"][-1]["state"] == "pruned"
    assert found["importances"]["optimizer.beta"] > found["importances"]["optimizer.rho"]
    assert len((tmp_path / "to" / "tune_graphsam.csv").read_text().splitlines()) == 14
    head = next(line for line in out.splitlines() if "trial " in line and "state" in line)
    assert head.split() == ["trial", "state", "value", "beta", "rho"]
    study.set_user_attr("molsam:total", 13)
    assert main([*arguments, str(tmp_path / "outputs")]) == 0, "as many as were asked for"
    assert "13 of 13 trials" in capsys.readouterr().out
    (tmp_path / "none").mkdir()
    assert main([*arguments, str(tmp_path / "none")]) == 2
    assert "study.db" in capsys.readouterr().err


def test_a_search_without_a_sweep_file_is_reported_by_its_name(tmp_path: Path, capsys: Any) -> None:
    import optuna

    def made(name: str, settings: dict[str, float]) -> None:
        (tmp_path / name).mkdir()
        study = optuna.create_study(storage=f"sqlite:///{tmp_path / name / 'study.db'}", study_name=name)
        space = {key: optuna.distributions.FloatDistribution(0, 1) for key in settings}
        study.add_trial(optuna.create_trial(params=settings, distributions=space, value=0.25))

    made("mine", {"optimizer.rho": 0.5, "base_optimizer.lr": 0.125})
    made("grid", {})
    arguments = ["--to", str(tmp_path / "to"), "--outputs", str(tmp_path)]
    assert main(["report", "--table", "mine", *arguments]) == 0
    out = capsys.readouterr().out
    assert "mine: 1 of 1 trials, minimized" in out
    assert "0.125" in out
    assert (tmp_path / "to" / "mine.csv").read_text().splitlines()[
        0
    ] == "trial,state,value,optimizer.rho,base_optimizer.lr"
    assert main(["report", "--table", "grid", *arguments]) == 2
    assert f"is a grid without a sweep file, so it has no table; compare its runs with molsam dashboard {tmp_path}" in (
        capsys.readouterr().err
    )
    assert main(["report", "--table", "none", *arguments]) == 2
    assert "There is no sweep none" in capsys.readouterr().err
