"""The commands and sweeps that the page on sweeps shows exist."""

from __future__ import annotations

import argparse
import importlib.util
import re
import shlex

import pytest

from molsam.commands import report as command
from molsam.config.compose import compose
from molsam.report import specs
from molsam.sweeping.overrides import parse
from tests.paths import ROOT

TEXT = (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")
BLOCKS = "\n".join(re.findall(r"```bash\n(.*?)```", TEXT, re.S)).splitlines()
SWEEPS = [line for line in BLOCKS if line.startswith("molsam train")]
REPORTS = [line for line in BLOCKS if line.startswith("molsam report")]
EXTRAS = {"hydra/launcher=slurm": "hydra_plugins.hydra_submitit_launcher", "hydra/launcher=ray_local": "ray"}


@pytest.mark.parametrize("line", SWEEPS)
def test_hydra_understands(line: str) -> None:
    _, train, multirun, *words = shlex.split(line, comments=True)
    assert (train, multirun) == ("train", "--multirun")
    for word, module in EXTRAS.items():
        if word in words and importlib.util.find_spec(module.split(".")[0]) is None:
            pytest.skip(f"{module} is not installed")
    varied = [override for override in parse(words) if override.is_sweep_override()]
    cfg = compose([word for word in words if not any(word == override.input_line for override in varied)])
    assert cfg.model
    assert all(override.get_key_element() for override in varied)


@pytest.mark.parametrize("line", REPORTS)
def test_report_understands(line: str) -> None:
    _, report, *words = shlex.split(line, comments=True)
    assert report == "report"
    parser = argparse.ArgumentParser(exit_on_error=False)
    command.configure(parser)
    args = parser.parse_args(words)
    assert args.all or specs.load(args.table, tuple(args.changes), smoke=args.smoke).cells


def test_every_sweep_is_named() -> None:
    tables = {f"table{n}" for n in range(1, 12)}
    assert set(specs.names()) == tables | {
        "fig1",
        "fig3",
        "fig6",
        "fig7",
        "main_claim",
        "main_claim_more",
        "noise",
        "released",
        "equal_time",
        "perturbation",
        "averaging",
        "scaffold",
        "tune_graphsam",
    }
    assert all(f"`{name}`" in TEXT for name in specs.names() if not name.startswith("table"))
