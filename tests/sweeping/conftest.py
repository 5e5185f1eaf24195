"""A small Hydra application in a temporary folder, run in separate processes."""

from __future__ import annotations

import io
import os
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.forked import Forked
from tests.paths import PATIENCE, ROOT
from tests.sweeping import app as app_module

CONFIG = {
    "defaults": [
        "_self_",
        {"dataset": "a"},
        {"sweeps": None},
        {"override hydra/sweeper": "molsam"},
        {"override hydra/job_logging": "none"},
        {"override hydra/hydra_logging": "none"},
    ],
    "choices": {"model": "m", "optimizer": "o", "dataset": "${dataset.name}"},
    "x": 0.0,
    "seed": 0,
    "smoke": False,
    "dry_run": False,
    "overwrite": False,
    "split": {"fold": None, "folds": 1},
    "training": {"epochs": 1, "threads": 1},
}

TABLE = {
    "sweeps": {
        "name": "table",
        "datasets": ["a", "b"],
        "folds": 2,
        "seeds": [0, 1],
        "rows": None,
        "variants": {"x = 0.1": {"overrides": ["x=0.1"]}, "x = 0.2": {"overrides": ["x=0.2"]}},
        "report": {"title": "a table"},
    }
}


class App:
    """The application and where its files are."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.conf, self.outputs, self.log = folder, folder / "conf", folder / "outputs", folder / "log"
        config: dict[str, Any] = {
            **CONFIG,
            "paths": {"outputs": str(self.outputs), "log": str(self.log), "work": 0.0, "mode": "run"},
        }
        config["hydra"] = {
            "searchpath": [f"file://{ROOT / 'conf'}"],
            "output_subdir": None,
            "sweep": {"dir": "${paths.outputs}/${oc.select:sweeps.name,multirun}"},
            "sweeper": {"heartbeat": 0.2},
        }
        self.write("config", config)
        self.write("sweeps/table", TABLE, "# @package _global_\n")
        for name in "ab":
            file = folder / f"{name}.csv"
            file.write_text(f"smiles,y\nC,{ord(name)}\n")
            self.write(
                f"dataset/{name}",
                {"name": name, "path": str(file), "smiles": "smiles", "targets": ["y"], "limit": None},
            )
        self.log.write_text("")

    def write(self, name: str, content: Any, header: str = "") -> None:
        """A file of the configuration."""
        path = self.conf / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(header + yaml.safe_dump(content, sort_keys=False))

    def start(self, *overrides: str) -> Forked:
        """The application in a process (and session) of its own."""
        # A file, not a pipe: workers that outlive their sweeper would keep a pipe open.
        out = self.folder / f"out-{len(list(self.folder.glob('out-*')))}"
        out.touch()
        arguments = [str(self.conf), "--multirun", *overrides]
        return Forked(app_module.run, arguments, self.folder, out, PYTHONPATH=str(ROOT))

    def join(self, *processes: Forked) -> None:
        """Wait for processes that must succeed."""
        codes = [process.wait(timeout=PATIENCE) for process in processes]
        said = [path.read_text() for path in sorted(self.folder.glob("out-*"))]
        assert codes == [0] * len(codes), "\n".join(said)

    def run(self, *overrides: str, code: int = 0) -> str:
        """Run to the end in this process, which is faster; what it printed."""
        out = io.StringIO()
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            with redirect_stdout(out), redirect_stderr(out):
                found = app_module.run([str(self.conf), "--multirun", *overrides])
        finally:
            os.chdir(before)
        assert found == code, out.getvalue()
        return out.getvalue()

    def events(self, kind: str) -> Counter[str]:
        """How often each cell started, or ended."""
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return Counter(Path(folder).name for event, folder, *_ in lines if event == kind)

    def numbers(self) -> list[int]:
        """The job numbers in the order of their starts."""
        return [int(line.split()[2]) for line in self.log.read_text().splitlines() if line.startswith("start")]

    def results(self, sweep: str = "table") -> set[str]:
        """The cells with a result.json."""
        return {path.parent.name for path in (self.outputs / sweep).glob("*/result.json")}


@pytest.fixture
def app(tmp_path: Path) -> App:
    """A fresh application."""
    return App(tmp_path)
