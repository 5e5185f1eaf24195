"""Packed runs equal the runs that were packed, to the last digit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from molsam.commands.main import main
from molsam.report import frame, packing, specs, table
from molsam.report.stored import find_runs, scan
from molsam.runs import pack, result
from tests.report.conftest import Fill, fill  # noqa: F401 - a fixture

ODD = [0.1 + 0.2, 1e-300, -0.0, 123456789.123456789, None, "ä ± …", {"a.b": [1, {"c": None}]}, [], {}]


def outcome(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {key: {} if key in result.DICTS else 1 for key in result.REQUIRED}
    body = {"schema": result.SCHEMA, "status": "complete", **found, "finished": "2026", **changes}
    return {**body, "checksum": result.checksum(body)}


def packed(place: int, config: Any, **changes: Any) -> pack.Packed:
    return pack.Packed(f"cell{place}", outcome(config=config, place=place, **changes), {"test/rmse": [0.5, None]})


@pytest.mark.parametrize(
    "configs",
    [
        [{"a": odd, "seed": place} for place, odd in enumerate(ODD)],
        [{"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, {"a": {"b": 1, "d": {}}}, {"a": None}, {}, None,
         {"a": 1.0}, {"a": 1}],
        [{"a": True}, {"a": 1}, {"a": False}, {"a": 0}],
    ],
)  # fmt: skip
def test_what_comes_out_is_what_went_in(configs: list[Any], tmp_path: Path) -> None:
    runs = [packed(place, config, versions={"torch": f"2.{place % 2}"}) for place, config in enumerate(configs)]
    pack.write(tmp_path / "a.jsonl", runs)
    found, damaged = pack.read(tmp_path / "a.jsonl")
    assert not damaged
    assert [json.dumps(run.result, sort_keys=True) for run in found] == [
        json.dumps(r.result, sort_keys=True) for r in runs
    ]
    assert [run.curve for run in found] == [run.curve for run in runs]


def test_a_damaged_line_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    pack.write(path, [packed(place, {"seed": place}) for place in range(4)])
    lines = path.read_text().splitlines()
    lines[1] = lines[1].replace('"place":1', '"place":7')
    lines[3] = lines[3][:-30]
    path.write_text("\n".join(lines) + "\n")
    found, damaged = pack.read(path)
    assert [run.cell for run in found] == ["cell0", "cell2"]
    assert [f"line {number}" in sentence for number, sentence in zip((2, 4), damaged, strict=True)] == [True, True]
    # Without the first line the settings of all are lost, and each says so.
    path.write_text("\n".join(lines[1:]) + "\n")
    assert len(pack.read(path)[1]) == 3


def test_report_and_pandas_read_what_the_command_packs(fill: Fill, tmp_path: Path, capsys: Any) -> None:  # noqa: F811
    cells = fill("table9")
    outputs, file = tmp_path / "outputs", tmp_path / "results" / "table9.jsonl"
    for path in sorted(outputs.rglob("result.json"))[:5]:
        metric = json.loads(path.read_text())["metric"]
        rows = [{"kind": "epoch", "epoch": e, f"valid/{metric}": 0.5, f"test/{metric}": e / 7} for e in range(10)]
        (path.parent / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["results", "pack", str(outputs / "table9"), "-o", str(file)]) == 0
    assert f"{len(cells)} runs" in capsys.readouterr().out
    direct, unpacked = (frame.load([root])[0] for root in (outputs, file.parent))
    assert direct.drop(columns="path").equals(unpacked.drop(columns="path"))
    entries = [table.build(specs.load("table9"), runs).entries for runs in (direct, unpacked)]
    assert entries[0] == entries[1]
    assert len(pd.read_json(file, lines=True)) == len(cells)
    assert [run.epochs()[9]["epoch"] for run in find_runs([file.parent]) if run.epochs()] == [9] * 5
    # Again and from the file itself: nothing twice, nothing lost, nothing changed.
    before = file.read_bytes()
    assert main(["results", "pack", str(outputs / "table9"), str(file), "-o", str(file)]) == 0
    assert file.read_bytes() == before
    (outputs / "table9" / cells[0].name / "result.json").unlink()
    assert main(["results", "pack", str(outputs / "table9"), "-o", str(file)]) == 0
    assert file.read_bytes() == before
    assert main(["results", "unpack", str(file), "-o", str(tmp_path / "again")]) == 0
    again = {run.folder.name: run.result for run in scan([tmp_path / "again"])[0]}
    assert again == {run.folder.name: run.result for run in scan([file])[0]}


def test_runs_can_be_filed_under_another_sweep(fill: Fill, tmp_path: Path) -> None:  # noqa: F811
    fill("table9")
    file = tmp_path / "main.jsonl"
    assert main(["results", "pack", str(tmp_path / "outputs"), "--sweep", "main_claim", "-o", str(file)]) == 0
    runs, damaged = frame.load([file])
    assert not damaged
    assert set(runs["sweep"]) == {"main_claim"}
    assert set(runs["identity"]) == set(frame.load([tmp_path / "outputs"])[0]["identity"])


def test_repeats_of_a_cell_and_runs_that_are_there_are_not_overwritten(tmp_path: Path) -> None:
    pack.write(tmp_path / "a.jsonl", [packed(0, {"seed": 0}, valid={"rmse": value}) for value in (1.0, 2.0)])
    target = tmp_path / "out"
    result.write(target / "cell0", {**outcome(), "valid": {"rmse": 7.0}})
    (target / "cell0-2").mkdir()
    for _ in range(2):
        assert packing.unpack(tmp_path / "a.jsonl", target) == (2, [])
        found = {path.parent.name: json.loads(path.read_text())["valid"] for path in target.glob("*/result.json")}
        assert found == {"cell0": {"rmse": 7.0}, "cell0-3": {"rmse": 1.0}, "cell0-4": {"rmse": 2.0}}


def test_wrong_sources_and_targets_are_refused(fill: Fill, tmp_path: Path, capsys: Any) -> None:  # noqa: F811
    fill("table9", keep=lambda cell: cell.values["fold"] == 0)
    outputs = str(tmp_path / "outputs")
    (tmp_path / "mine.jsonl").write_text('{"a": 1}\n')
    (tmp_path / "empty").mkdir()
    for arguments, word in (
        ([str(tmp_path / "none"), "-o", str(tmp_path / "a.jsonl")], "does not exist"),
        ([str(tmp_path / "empty"), "-o", str(tmp_path / "a.jsonl")], "no finished run"),
        ([outputs, "-o", str(tmp_path / "mine.jsonl")], "choose another name"),
    ):
        assert main(["results", "pack", *arguments]) == 2
        assert word in capsys.readouterr().err
    assert (tmp_path / "mine.jsonl").read_text() == '{"a": 1}\n'


def test_three_thousand_runs_are_below_ten_megabytes(tmp_path: Path) -> None:
    """With the settings, versions and curves of the runs in results/, and 60 epochs."""
    root = Path(__file__).resolve().parents[2] / "results"
    (run, *_), _ = pack.read(root / "main_claim.jsonl")
    numbers = [0.123456 + place / 1e5 for place in range(60)]
    runs = []
    for place in range(300):
        config = json.loads(json.dumps(run.result["config"]))
        config["split"]["fold"] = place % 5
        config["sweeps"]["row"] = f"row {place // 5}"
        body = {**run.result, "config": config, "fold": place % 5, "finished": str(place)}
        one = {**body, "checksum": result.checksum(body)}
        runs.append(pack.Packed(f"cell{place}", one, {"valid/rmse": numbers, "test/rmse": numbers}))
    pack.write(tmp_path / "a.jsonl", runs)
    assert (tmp_path / "a.jsonl").stat().st_size / 300 * 3000 < 10e6
