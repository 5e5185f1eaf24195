"""The numbers of results/README.md are those of the runs that are stored beside it."""

from __future__ import annotations

import re

import pytest

from molsam.report import frame, render, specs, table, verdicts
from tests.paths import ROOT

RUNS = ROOT / "results" / "runs"


@pytest.mark.parametrize("name", sorted(path.name for path in RUNS.iterdir()))
def test_a_table_is_what_the_report_renders(name: str) -> None:
    runs, damaged = frame.load([RUNS])
    assert not damaged
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
    assert all(block in (ROOT / "results" / "README.md").read_text() for block in blocks)
    assert {path.name for path in (RUNS / name).glob("*/*")} == {"result.json"}
