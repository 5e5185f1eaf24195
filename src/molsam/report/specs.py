"""Sweep files as the report reads them: the cells of a table, the paper's numbers, and its claims."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from molsam.config.cells import SMOKE_TRIALS, Cell, rows, shrunk, table_cells
from molsam.config.command import shell, training
from molsam.config.compose import conf_dir, sweep_section
from molsam.errors import ConfigError

SMOKE_NOTE = (
    "These are runs of smoke=true, one epoch on a few molecules: they show that the sweep works, and their numbers "
    "mean nothing."
)


@dataclass(frozen=True)
class Claim:
    """A claim of the paper: row `better` is better than row `than` in `metric` ("score" is the test metric).

    With `equal` it claims that the two hardly differ. `section` is the section of the paper.
    """

    text: str
    better: str
    than: str
    metric: str = "score"
    datasets: tuple[str, ...] | None = None
    section: str = ""
    equal: bool = False


@dataclass(frozen=True)
class Spec:
    """A sweep file.

    Attributes:
        file: name of the file, as on the command line.
        section: its `sweeps:` section, with the changes from the command line.
        changes: those changes, as given.
        trials: number of trials of a search; None for a table.
        cells: the cells of a table.
        smoke: whether its cells are those of smoke=true.
    """

    file: str
    section: dict[str, Any]
    changes: tuple[str, ...] = ()
    trials: int | None = None
    cells: tuple[Cell, ...] = field(default=())
    smoke: bool = False

    @property
    def name(self) -> str:
        """The sweep's name, which its runs record."""
        return str(self.section.get("name", self.file))

    @property
    def report(self) -> dict[str, Any]:
        """The `report:` block."""
        return self.section.get("report") or {}

    @property
    def label(self) -> str:
        """Table 3, Figure 7, or the sweep's name."""
        if "table" in self.paper:
            return f"Table {self.paper['table']}"
        return f"Figure {self.report['figure']}" if "figure" in self.report else self.name

    @property
    def title(self) -> str:
        """The title, in one line."""
        return str(self.report.get("title", "")) + (" (a smoke run)" if self.smoke else "")

    @property
    def folder(self) -> str:
        """Name of the folder of its runs, and of the report's files."""
        return f"{self.name}-smoke" if self.smoke else self.name

    @property
    def extra(self) -> bool:
        """Whether its claims are not from the paper."""
        return bool(self.report.get("extra"))

    @property
    def paper(self) -> dict[str, str]:
        """Keys that all rows share in the table of published numbers."""
        return {key: str(value) for key, value in (self.report.get("paper") or {}).items()}

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns shown for each dataset."""
        return tuple(self.report.get("columns") or ("score",))

    @cached_property
    def rows(self) -> dict[str, dict[str, str]]:
        """Row name -> keys of its published numbers."""
        return {
            name: self.paper | {key: str(value) for key, value in row["paper"].items()}
            for name, row in rows(self.section).items()
        }

    @cached_property
    def datasets(self) -> tuple[str, ...]:
        """The datasets, in order."""
        return tuple(dict.fromkeys(cell.values["dataset"] for cell in self.cells))

    @property
    def claims(self) -> list[Claim]:
        """The claims whose rows are both in the table."""
        found = []
        for entry in self.report.get("claims") or []:
            datasets = tuple(entry["datasets"]) if entry.get("datasets") else None
            claim = Claim(**{**entry, "section": str(entry.get("section", "")), "datasets": datasets})
            if claim.better in self.rows and claim.than in self.rows:
                found.append(claim)
        return found

    @property
    def needs(self) -> list[str]:
        """Sentences on what a user must provide before this sweep can run."""
        return [str(sentence) for sentence in (self.section.get("needs") or {}).values()]

    @property
    def command(self) -> str:
        """The command that runs the missing cells."""
        smoke = ["smoke=true"] if self.smoke else []
        return f"{training()} {shell(['--multirun', f'sweeps={self.file}', *self.changes, *smoke])}"


def sweeps_dir() -> Path:
    """Return the folder of the sweep files."""
    return Path(os.environ.get("PROJECT_ROOT") or conf_dir().parent) / "sweeps"


def names() -> list[str]:
    """Return the names of all sweep files: tables by number, then figures, then the rest."""
    found = [path.stem for path in sweeps_dir().glob("*.yaml")]
    return sorted(found, key=lambda name: (not name.startswith("table"), not name.startswith("fig"), len(name), name))


def load(name: str, changes: tuple[str, ...] = (), *, smoke: bool = False) -> Spec:
    """Return a sweep file by its name or a table's number. Raises ConfigError if it does not exist or is wrong."""
    file = f"table{name}" if name.isdigit() else name
    path = sweeps_dir() / f"{file}.yaml"
    if not path.is_file():
        near = get_close_matches(file, names(), n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}?" if near else f" There are: {', '.join(names())}."
        raise ConfigError(f"There is no sweep {file} ({path}).{hint}")
    section, n_trials = sweep_section(file)
    if not section:
        raise ConfigError(f"{path} has no `sweeps:` section; see sweeps/table3.yaml for one.")
    section = {**section, **_changed(changes)}
    trials = None if section.get("variants") else n_trials
    if smoke and trials is not None:
        trials = min(trials, SMOKE_TRIALS)
    try:
        section = shrunk(section) if smoke else section
        cells = tuple(table_cells(section)) if trials is None else ()
        spec = Spec(file, section, changes, trials, cells, smoke)
        assert spec.claims is not None
    except (TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{path}: its sweeps section is wrong ({error}); see sweeps/table3.yaml for one.") from error
    return spec


def _changed(changes: tuple[str, ...]) -> dict[str, Any]:
    """Return changes such as sweeps.folds=3 as {"folds": 3}."""
    found = {}
    for text in changes:
        key, _, value = text.partition("=")
        if not key.startswith("sweeps.") or not value:
            raise ConfigError(
                f"{text} is not a setting of a report; choose what it shows as in sweeps.datasets=[esol,bbbp]."
            )
        try:
            found[key.removeprefix("sweeps.")] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"{text} cannot be read; write lists as [a,b].") from error
    return found
