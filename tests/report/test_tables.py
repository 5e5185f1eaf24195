"""Tables recomputed from result.json and the published numbers by other code: json, csv, statistics."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from molsam.commands.main import main
from molsam.config import identity
from molsam.errors import ConfigError
from molsam.report import frame, published, render, specs, table, verdicts
from molsam.runs import result
from tests.paths import ROOT, SHARED
from tests.report.conftest import ERRORS, Fill, score_of

PAPER = ROOT / "src" / "molsam" / "report" / "paper.csv"
TABLES = [name for name in specs.names() if name.startswith("table")]


def paper_rows() -> list[dict[str, str]]:
    with open(PAPER, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def built(outputs: Path, name: str, *changes: str) -> table.Table:
    runs, damaged = frame.load([outputs])
    assert not damaged
    return table.build(specs.load(name, changes), runs)


@pytest.mark.skipif(not (SHARED / "paper").is_dir(), reason="the paper's numbers (../shared/paper) are absent")
def test_the_published_numbers_are_a_copy() -> None:
    assert PAPER.read_bytes() == (SHARED / "paper" / "results.csv").read_bytes()


@pytest.mark.parametrize("name", TABLES)
def test_every_published_number_of_a_table_has_its_place(name: str, tmp_path: Path) -> None:
    """No printed number is lost, and no entry lacks one, whatever the sweep file says."""
    found = built(tmp_path, name)
    own = [row for row in paper_rows() if row["table"] == found.spec.paper["table"]]
    shown = sorted((e.paper.mean, -1.0 if e.paper.std is None else e.paper.std) for e in found.entries if e.paper)
    assert shown == sorted((float(row["mean"]), float(row["std"] or -1)) for row in own)
    for entry in found.entries:
        # The paper prints no ratio for Adam.
        assert entry.paper is not None or (entry.column == "percent_of_sam" and entry.row.endswith("Adam"))


def test_means_and_differences(fill: Fill, tmp_path: Path) -> None:
    fill("table3")
    found = built(tmp_path / "outputs", "table3")
    assert found.complete
    stored: dict[tuple[str, str], list[float]] = {}
    for path in (tmp_path / "outputs").rglob("result.json"):
        run = json.loads(path.read_text())
        stored.setdefault((run["config"]["sweeps"]["row"], run["dataset"]), []).append(run["test"][run["metric"]])
    lines = list(csv.DictReader(io.StringIO(render.comma_separated(found))))
    assert len(lines) == 12
    for line in lines:
        values = stored[line["row"], line["dataset"]]
        (said,) = [
            row
            for row in paper_rows()
            if (row["table"], row["variant"], row["dataset"].lower()) == ("3", line["row"], line["dataset"])
        ]
        assert float(line["mean"]) == pytest.approx(statistics.fmean(values), rel=1e-12)
        assert float(line["std"]) == pytest.approx(statistics.stdev(values), rel=1e-12)
        assert (int(line["n"]), int(line["expected"])) == (5, 5)
        assert float(line["difference"]) == pytest.approx(statistics.fmean(values) - float(said["mean"]), abs=1e-12)
        inside = abs(statistics.fmean(values) - float(said["mean"])) <= float(said["std"])
        assert line["within_one_std"] == str(inside)
        assert (float(line["seconds_mean"]), float(line["gradient_passes_mean"])) == (45.0, 900.0)


def test_claims_are_paired_by_split(fill: Fill, tmp_path: Path) -> None:
    # beta=0.9 lacks fold 3 everywhere: the pairs of its claim are the four other folds.
    cells = fill("table3", keep=lambda cell: cell.values["row"] != "beta=0.9" or cell.values["fold"] != 3)
    found = built(tmp_path / "outputs", "table3")
    scores = {tuple(cell.values.values()): score_of(cell) for cell in cells}
    checks = verdicts.check(found)
    assert len(checks) == 8
    for check in checks:
        sign = -1 if check.dataset in ERRORS else 1
        folds = [fold for fold in range(5) if (check.claim.than, check.dataset, fold, 0) in scores]
        differences = [
            sign
            * (
                scores[check.claim.better, check.dataset, fold, 0]
                - scores[check.claim.than, check.dataset, fold, 0]
            )
            for fold in folds
        ]  # fmt: skip
        estimate = check.estimate
        assert estimate.n == len(folds) == (4 if check.claim.than == "beta=0.9" else 5)
        mean = statistics.fmean(differences)
        # Student's t at 97.5 %, from a printed table; 80/10/10 molecules.
        quantile = {4: 3.182446, 5: 2.776445}[estimate.n]
        half = quantile * statistics.stdev(differences) * (1 / estimate.n + 10 / 80) ** 0.5
        assert estimate.mean == pytest.approx(mean, abs=1e-12)
        assert (estimate.low, estimate.high) == (
            pytest.approx(mean - half, abs=1e-6),
            pytest.approx(mean + half, abs=1e-6),
        )
        printed = {row["variant"]: float(row["mean"]) for row in paper_rows()
                   if row["table"] == "3" and row["dataset"].lower() == check.dataset}  # fmt: skip
        expected = sign * (printed[check.claim.better] - printed[check.claim.than])
        assert check.paper == pytest.approx(expected, abs=1e-12)


def test_throughput_is_compared_with_sam_of_the_same_model_and_fold(fill: Fill, tmp_path: Path) -> None:
    def speed(cell: Any) -> dict[str, Any]:
        base = 200.0 if cell.values["row"].startswith("CoMPT") else 100.0
        factor = 1.5 if cell.values["row"].endswith("+ GraphSAM") else 1.0
        return {"graphs_per_s": base * factor * (1 + cell.values["fold"])}

    fill("table2", change=speed)
    found = built(tmp_path / "outputs", "table2")
    for row in ("CoMPT + GraphSAM", "GROVER + GraphSAM"):
        entry = found.entry(row, "bbbp", "percent_of_sam")
        assert entry.ours == table.Stat(pytest.approx(150.0), pytest.approx(0.0, abs=1e-9), 5)  # type: ignore[arg-type]
    wanted = table.Stat(600.0, pytest.approx(316.2278), 5)  # type: ignore[arg-type]
    assert found.entry("CoMPT + SAM", "bbbp", "graphs_per_s").ours == wanted
    faster = next(c for c in verdicts.check(found) if c.claim.metric == "graphs_per_s" and "CoMPT" in c.claim.better)
    assert faster.estimate.mean == pytest.approx(300.0)
    assert faster.paper == pytest.approx(174 - 112)


def test_dataset_statistics(fill: Fill, tmp_path: Path) -> None:
    fill("table4")
    found = built(tmp_path / "outputs", "table4")
    assert "test metric" not in render.markdown(found, [])
    assert "test metric" in render.markdown(built(tmp_path / "outputs", "table3"), [])
    entry = found.entry("statistics", "bbbp", "n_molecules")
    assert entry.ours == table.Stat(100.0, None, 1)
    assert entry.paper == published.Published(2039.0, None, 0)
    assert built(tmp_path / "outputs", "table4").entry("statistics", "bbbp", "n_tasks").ours == table.Stat(2.0, None, 1)


def test_missing_cells_are_named_with_their_command(
    fill: Fill, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill("table9", keep=lambda cell: cell.values["fold"] != 2)
    arguments = ["report", "--table", "9", "--outputs", str(tmp_path / "outputs"), "--to", str(tmp_path / "to")]
    assert main(arguments) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "48 of 60 cells are done" in out
    assert "gamma=0.5-bbbp-f2-s0" in out
    assert "molsam train --multirun sweeps=table9" in out
    page = (tmp_path / "to" / "table9.md").read_text()
    assert page.count("-f2-s0") == 12
    assert {path.suffix for path in (tmp_path / "to").iterdir()} == {".md", ".csv", ".tex", ".json", ".png", ".svg"}
    draw_nothing(monkeypatch)
    assert main([*arguments[:3], *arguments[5:], *arguments[3:5], "sweeps.folds=[0,1]"]) == 0  # --outputs takes it, too
    assert main([*arguments, "sweeps.folds=[0,2]"]) == 1
    assert "sweeps=table9 'sweeps.folds=[0,2]'" in capsys.readouterr().out
    assert main(["report", "--table", "9", "--outputs", str(tmp_path / "none")]) == 2
    assert "none does not exist" in capsys.readouterr().err


def test_damaged_results_are_named_and_left_out(fill: Fill, tmp_path: Path, capsys: Any) -> None:
    cells = fill("table9")
    bad = tmp_path / "outputs" / "table9" / cells[0].name / "result.json"
    bad.write_text(bad.read_text()[:-40])
    changed = tmp_path / "outputs" / "table9" / cells[1].name / "result.json"
    changed.write_text(changed.read_text().replace('"seconds": 45.0', '"seconds": 1.0'))
    code = main(["report", "--table", "9", "--outputs", str(tmp_path / "outputs"), "--to", str(tmp_path / "to")])
    err = capsys.readouterr().err
    assert code == 1
    assert str(bad) in err
    assert str(changed) in err
    assert "58 of 60" in (tmp_path / "to" / "table9.md").read_text()


def test_smoke_runs_never_fill_a_table(fill: Fill, tmp_path: Path) -> None:
    fill("table9")
    for path in (tmp_path / "outputs").rglob("result.json"):
        run = json.loads(path.read_text())
        run["config"]["smoke"] = True
        result.write(path.parent, {k: v for k, v in run.items() if k not in ("checksum", "schema", "status")})
    assert built(tmp_path / "outputs", "table9").done == 0


def test_cells_that_were_not_run_alike_are_told(fill: Fill, tmp_path: Path) -> None:
    fill("table9")
    assert not built(tmp_path / "outputs", "table9").remarks
    path = next((tmp_path / "outputs").rglob("result.json"))
    run = json.loads(path.read_text())
    run["config"]["training"]["epochs"] = 5
    result.write(path.parent, {k: v for k, v in run.items() if k not in ("checksum", "schema", "status")})
    (remark,) = built(tmp_path / "outputs", "table9").remarks
    assert "training.epochs (30, 5)" in remark


def test_settings_that_were_added_later_make_no_difference(fill: Fill, tmp_path: Path) -> None:
    """A result without the setting ran as its neutral value does now."""
    fill("table9")
    path = next((tmp_path / "outputs").rglob("result.json"))
    run = json.loads(path.read_text())
    added = {key.split(".")[1]: value for key, value in identity.ADDED.items() if key.startswith("training.")}
    run["config"]["training"] |= added | {"threads": 2, "log_every": 7}
    run["config"]["split"]["seed"] = None
    result.write(path.parent, {k: v for k, v in run.items() if k not in ("checksum", "schema", "status")})
    assert not built(tmp_path / "outputs", "table9").remarks
    run["config"]["training"]["average"], run["config"]["base_optimizer"]["lr"] = "ema", 0.01
    result.write(path.parent, {k: v for k, v in run.items() if k not in ("checksum", "schema", "status")})
    (remark,) = built(tmp_path / "outputs", "table9").remarks
    assert "training.average (ema, not set)" in remark
    assert "base_optimizer.lr (0.001, 0.01)" in remark


def test_a_score_that_is_no_number_counts_as_done_but_not_in_the_mean(fill: Fill, tmp_path: Path) -> None:
    fill("table9", change=lambda cell: {"test": {"roc_auc": None, "rmse": None}} if cell.values["fold"] == 0 else {})
    found = built(tmp_path / "outputs", "table9")
    assert found.complete
    entry = found.entries[0]
    assert entry.ours is not None
    assert entry.ours.n == 4


def test_the_overview_counts(fill: Fill, tmp_path: Path, capsys: Any) -> None:
    fill("table3")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "figure4.png").write_bytes(b"")
    arguments = ["report", "--all", "--outputs", str(tmp_path / "outputs"), "--to", str(tmp_path / "to")]
    assert main([*arguments, "--figures", str(tmp_path / "figures")]) == 1
    page = (tmp_path / "to" / "all.md").read_text()
    line = next(text for text in page.splitlines() if text.startswith("| Table 3 "))
    cells = [cell.strip() for cell in line.split("|")]
    found = built(tmp_path / "outputs", "table3")
    inside = sum(bool(entry.within) for entry in found.entries)
    checks = verdicts.check(found)
    assert cells[3] == "60 of 60"
    assert cells[4] == f"{inside} of 12"
    reached = [check.verdict for check in checks]
    assert cells[5:9] == [str(reached.count(verdict)) for verdict in verdicts.VERDICTS]
    assert sum(map(int, cells[5:9])) == 8
    assert next(text for text in page.splitlines() if text.startswith("| Figure 4 ")).split("|")[3].strip() == "1 of 1"
    listed = re.findall(r"^\| ((?:Table|Figure) \d+) ", page, re.MULTILINE)
    assert listed == [f"Table {number}" for number in range(1, 12)] + [f"Figure {number}" for number in range(1, 11)]


def test_wrong_names_and_changes_are_refused() -> None:
    with pytest.raises(ConfigError, match="Did you mean table3"):
        specs.load("tabel3")
    with pytest.raises(ConfigError, match="is not a row of table3"):
        specs.load("3", ("sweeps.rows=[beta=1]",))
    with pytest.raises(ConfigError, match=r"sweeps\.datasets="):
        specs.load("3", ("training.epochs=3",))


def test_every_sweep_file_makes_sense() -> None:
    for name in specs.names():
        spec = specs.load(name)
        assert spec.title
        if spec.trials is None:
            assert spec.cells
            entries = spec.report.get("claims") or []
            assert len(spec.claims) == len(entries), f"{name}: a claim names a row that is not there"


@pytest.mark.parametrize(
    "what", [("--table", "3"), pytest.param(("--all",), marks=pytest.mark.slow)], ids=["table", "all"]
)
def test_files_are_written_though_nobody_reads_on(tmp_path: Path, what: tuple[str, ...]) -> None:
    unread, output = os.pipe()
    os.close(unread)
    command = [sys.executable, "-m", "molsam.commands.main", "report", *what, "--outputs", ".", "--to", str(tmp_path)]
    with os.fdopen(output) as closed:
        subprocess.run(command, stdout=closed, stderr=subprocess.DEVNULL, cwd=tmp_path, check=False)
    assert (tmp_path / f"{'table3' if what[0] == '--table' else 'all'}.md").stat().st_size > 0


def test_the_report_needs_no_torch_and_starts_fast(tmp_path: Path) -> None:
    code = (
        "import sys; from molsam.commands.main import main\n"
        "try: main(['report', '--help'])\nexcept SystemExit: pass\n"
        "slow = {'torch', 'pandas', 'matplotlib', 'scipy', 'optuna', 'hydra', 'dgl'} & set(sys.modules)\n"
        "assert not slow, slow\n"
        "main(['report', '--table', '3', '--outputs', '.', '--to', sys.argv[1]])\n"
        "assert not {'torch', 'dgl', 'hydra', 'optuna'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "/dev/null/x"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "cannot be written" in done.stderr, done.stderr


@pytest.mark.parametrize("name", ["table4", "table7"])
def test_a_terminal_shows_every_column_in_full(name: str, fill: Fill, tmp_path: Path) -> None:
    from rich.console import Console

    fill(name, keep=lambda cell: cell.values["fold"] < 2)
    found = built(tmp_path / "outputs", name)
    out = io.StringIO()
    for part in render.terminal(found, verdicts.check(found))[1:-2]:
        Console(file=out, width=80).print(part)
    assert "…" not in out.getvalue()
    assert max(map(len, out.getvalue().splitlines())) <= 80
    lines = out.getvalue().splitlines()
    for entry in found.entries:
        assert entry.ours is not None
        assert any(f" {entry.ours.mean:.{entry.decimals}f} " in line for line in lines)


def draw_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on pictures are not drawn, which takes most of a report's time."""
    for module in ("picture", "pair_picture"):
        monkeypatch.setattr(f"molsam.report.{module}.save", lambda *_: [])


def test_smoke_cells_are_a_table_of_their_own(fill: Fill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One fold and one seed, and complete with those."""
    draw_nothing(monkeypatch)
    small = specs.load("table3", smoke=True)
    assert (len(small.cells), len(specs.load("table3").cells)) == (12, 60)
    assert small.command.endswith("sweeps=table3 smoke=true")
    fill("table3", keep=lambda cell: cell.values["fold"] == 0)
    (tmp_path / "outputs" / "table3").rename(tmp_path / "outputs" / "table3-smoke")
    assert main(["report", "--table", "3", "--outputs", str(tmp_path / "outputs"), "--to", str(tmp_path)]) == 1
    outputs = ["--outputs", str(tmp_path / "outputs")]
    for way in (["--smoke", *outputs], ["smoke=true", *outputs], [*outputs, "smoke=true"]):
        assert main(["report", "--table", "3", "--to", str(tmp_path), *way]) == 0
    for suffix in ("md", "tex"):
        text = (tmp_path / f"table3-smoke.{suffix}").read_text()
        assert "(a smoke run)" in text
        assert "smoke" not in (tmp_path / f"table3.{suffix}").read_text()
    assert "their numbers mean nothing" in (tmp_path / "table3-smoke.md").read_text()
    assert (tmp_path / "table3-smoke.csv").read_text().splitlines()[1].startswith("table3-smoke,")
    arguments = ["report", "--all", "--smoke", "--outputs", str(tmp_path / "outputs"), "--to", str(tmp_path)]
    tuned = tmp_path / "outputs" / "tune_graphsam-smoke" / "optimization_results.yaml"
    tuned.parent.mkdir()
    tuned.write_text("over: 4\nbest: []\n")
    assert main([*arguments, "--figures", str(tmp_path / "figures")]) == 1
    page = (tmp_path / "all-smoke.md").read_text()
    assert "their numbers mean nothing" in page
    assert "| 12 of 12 |" in next(line for line in page.splitlines() if line.startswith("| Table 3 "))
    assert "| 4 of 4 |" in next(line for line in page.splitlines() if "tune" in line)


def test_a_table_of_one_row_is_drawn_with_its_point_inside(fill: Fill, tmp_path: Path) -> None:
    from molsam.report import picture

    fill("table4")
    axes = picture.draw(built(tmp_path / "outputs", "table4")).axes[0]
    low, high = sorted(axes.get_ylim())
    points = [y for line in axes.lines for y in line.get_ydata()]
    assert points
    assert all(low < y < high for y in points)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["statistics"]
