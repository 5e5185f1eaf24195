"""The numbers of results/README.md are those of the runs that are stored beside it."""

from __future__ import annotations

import re

import pytest

from molsam.report import frame, render, specs, table, verdicts
from molsam.report.stored import scan
from tests.paths import ROOT

RESULTS = ROOT / "results"
TABLES = ("table1", "table1-long", "table3", "table8", "table9")


def test_every_stored_run_is_whole() -> None:
    runs, damaged = scan([RESULTS])
    assert not damaged
    assert len(runs) >= 153
    assert not [path for path in RESULTS.rglob("*") if path.is_dir()]


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_what_the_report_renders(name: str) -> None:
    runs, _ = frame.load([RESULTS])
    there = runs[runs["sweep"] == name]
    datasets = ",".join(sorted(there["dataset"].unique()))
    folds = ",".join(str(fold) for fold in sorted(there["fold"].unique()))
    changes = f"sweeps.name={name}", f"sweeps.datasets=[{datasets}]", f"sweeps.folds=[{folds}]"
    file = name.removesuffix("-long")  # the same rows, some of them, trained longer
    if file != name:
        changes += (f"sweeps.rows=[{','.join(there['row'].unique())}]",)
    built = table.build(specs.load(file, changes), runs)
    page = render.markdown(built, verdicts.check(built))
    blocks = re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE)
    assert len(blocks) == 2
    assert all(block in (RESULTS / "README.md").read_text() for block in blocks)
