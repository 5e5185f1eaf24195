"""The commands that the pages on figures and dashboards show are commands."""

from __future__ import annotations

import argparse
import re
import shlex

import pytest

from molsam.config import compose
from molsam.report.dashboard import command as dashboard
from molsam.report.figures import command as figure
from molsam.report.figures.recipes import RECIPES
from tests.paths import ROOT

PAGES = [ROOT / "docs" / name for name in ("figures.md", "dashboard.md")]
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
LINES = sorted(
    set(re.findall(r"(?:^|`)((?:molsam (?:figure|dashboard)|python train\.py) [^`\n#]+)", TEXT, re.MULTILINE))
)


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("molsam") and " N" not in line])
def test_molsam_understands(line: str) -> None:
    _, name, *words = shlex.split(line)
    parser = argparse.ArgumentParser(exit_on_error=False)
    (figure if name == "figure" else dashboard).configure(parser)
    args = parser.parse_args(words)
    if name == "figure":
        assert figure._wanted(args.figures)


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("python")])
def test_hydra_understands(line: str) -> None:
    overrides = [word for word in shlex.split(line)[2:] if word != "--multirun"]
    for place in range(max(len(word.split("=")[1].split(",")) for word in overrides)):
        chosen = [f"{k}={v.split(',')[min(place, v.count(','))]}" for k, v in (w.split("=", 1) for w in overrides)]
        assert compose(chosen).model


def test_the_table_names_each_figures_runs() -> None:
    for name, recipe in RECIPES.items():
        if recipe.sweep is not None:
            assert f"sweeps={recipe.sweep}" in TEXT
        for setting in recipe.make:
            if not setting.startswith("diagnostics.sharpness."):
                assert setting in TEXT, name
