"""The jobs of a grid from its command line: their settings, run folders and identities."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.types import HydraContext

from molsam.config.cells import Cell, key_of, shrunk, slug, table_cells
from molsam.config.identity import NEUTRAL, digest_of
from molsam.errors import ConfigError
from molsam.runs.folder import held
from molsam.sweeping.compose import Composer, Settings
from molsam.sweeping.context import Sweep
from molsam.sweeping.overrides import fixed, parse, shrink, values_of
from molsam.wiring import identify, inputs

AXES = {"dataset": "datasets", "model": "models", "seed": "seeds", "split.fold": "folds"}
"""Overrides that select along an axis of a table -> the axis."""

HEAVY = ("variants", "report", "needs")
"""Keys with the rows and claims of the whole table, which are not settings of a cell."""

NAME_LENGTH = 150
"""Largest length of a folder name made from overrides."""
SAMPLED = 50
"""Number of values of an axis that are checked before the first cell runs; a thousand seeds need not be."""


@dataclass(frozen=True)
class Planned:
    """A cell with its run folder, its settings, and the digest of its identity."""

    cell: Cell
    folder: Path
    settings: Settings
    identity: str

    @property
    def values(self) -> Mapping[str, Any]:
        """The settings as plain values."""
        return self.settings.values


class Plan:
    """The jobs of a grid. Each is composed when it is first needed.

    Attributes:
        cells: all cells, in order.
    """

    def __init__(self, cells: Sequence[Cell], folder: Path, composer: Composer, files: identify.Files) -> None:
        self.cells, self.folder, self.composer, self.files = tuple(cells), folder, composer, files
        self._planned: dict[str, Planned] = {}
        self._inputs: set[str] = set()

    def __iter__(self) -> Iterator[Planned]:
        return map(self.job, self.cells)

    def __len__(self) -> int:
        return len(self.cells)

    def job(self, cell: Cell) -> Planned:
        """Return the job of a cell. Raises ConfigError, DataError or Hydra's errors."""
        if cell.name not in self._planned:
            settings = self.composer.settings(cell.overrides)
            self._check_inputs(settings)
            digest = identify.of(settings.values, files=self.files).digest
            self._planned[cell.name] = Planned(cell, self.folder / cell.name, settings, digest)
        return self._planned[cell.name]

    def known(self) -> list[Planned]:
        """Return the jobs composed so far."""
        return list(self._planned.values())

    def replace(self, planned: Planned) -> None:
        """Replace a cell's job."""
        self._planned[planned.cell.name] = planned

    def sample(self) -> list[Planned]:
        """Return jobs that together contain every value of each axis, to find errors early.

        Of an axis with more than SAMPLED values only the first ones are included.
        """
        first: dict[tuple[str, Any], Cell] = {}
        values: Counter[str] = Counter()
        for cell in self.cells:
            for attr in cell.attrs:
                if attr not in first and values[attr[0]] < SAMPLED:
                    first[attr] = cell
                    values[attr[0]] += 1
        return [self.job(cell) for cell in dict.fromkeys(first.values())]

    def _check_inputs(self, settings: Settings) -> None:
        named = repr([settings.values.get(section) for section in ("dataset", "model")])
        if named not in self._inputs:
            inputs.check(settings.values)
            self._inputs.add(named)


def plan(sweep: Sweep, context: HydraContext, arguments: Sequence[str]) -> Plan:
    """Return the plan of a grid. Raises ConfigError or Hydra's errors if the command line does not define one."""
    overrides = parse([*sweep.params, *arguments])
    base = fixed(overrides)
    if sweep.section.get("variants"):
        cells, base = _table(sweep, overrides, base)
    else:
        cells = _products(overrides, base)
        base = [text for text in base if not text.startswith("hydra.")]
    base += shrink(base) if sweep.smoke else []
    composer = Composer(context.config_loader, sweep.config, base)
    files = identify.Files(fetch=not sweep.dry_run)

    def made(cell: Cell) -> bool:
        folder = sweep.folder / cell.name
        if not folder.is_dir():
            return False
        wanted = identify.of(composer.settings(cell.overrides).values, files=files)
        return held(folder, wanted) == wanted

    return Plan(_told_apart(cells, made), sweep.folder, composer, files)


def _table(sweep: Sweep, overrides: Sequence[Override], base: list[str]) -> tuple[list[Cell], list[str]]:
    """Return the cells of a table, and the overrides of all cells. AXES on the command line select along its axes."""
    section = dict(sweep.section)
    for override in overrides:
        key = key_of(override.input_line or "")
        if key in AXES and (key != "model" or section.get("models")):
            given = values_of(override)
            section[AXES[key]] = given if key in ("dataset", "model") else [int(value) for value in given]
            base = [text for text in base if key_of(text) != key]
        elif override.is_sweep_override():
            raise ConfigError(
                f"{override.input_line} would give every cell of {sweep.name} several results; run the sweep once for "
                f"each value, each time with another name, such as sweeps.name={sweep.name}-{slug(key)}."
            )
    cells = table_cells(shrunk(section) if sweep.smoke else section)
    rows = {key_of(text) for cell in cells for text in cell.overrides}
    for text in base:
        if key_of(text) in rows:
            raise ConfigError(
                f"{text} cannot be given, because the rows of {sweep.name} set {key_of(text)} themselves; choose rows "
                "with sweeps.rows=[...]."
            )
    return cells, base + [f"~sweeps.{key}" for key in HEAVY if key in section]


def _products(overrides: Sequence[Override], base: Sequence[str]) -> list[Cell]:
    """Return a cell for every combination of the choices on a command line."""
    swept = [(o.get_key_element(), values_of(o)) for o in overrides if o.is_sweep_override()]
    same = [text for text in base if key_of(text).split(".")[0] not in (*NEUTRAL, "hydra")]
    cells = []
    for combination in itertools.product(*(values for _, values in swept)):
        chosen = [f"{key}={value}" for (key, _), value in zip(swept, combination, strict=True)]
        # The swept values come first, because a long name is cut.
        name = ",".join(slug(text) for text in [*chosen, *same])[:NAME_LENGTH] or "default"
        attrs = tuple((key, value) for (key, _), value in zip(swept, combination, strict=True))
        cells.append(Cell(name, attrs, tuple(chosen)))
    return list(dict.fromkeys(cells))


def _told_apart(cells: Sequence[Cell], made: Callable[[Cell], bool]) -> list[Cell]:
    """Return the cells with different names. Long or unusual values may give equal ones.

    A digest of a cell's own overrides is appended, so that a cell keeps its name in another order, a longer or a
    shorter list.

    Args:
        cells: the cells.
        made: whether the folder of a cell's name holds the run of this cell, which then keeps that name.
    """
    names, kept, found = Counter(cell.name for cell in cells), set(), []
    for cell in cells:
        longer = replace(cell, name=f"{cell.name}-{digest_of(cell.overrides)[:8]}")
        alone = names[cell.name] == 1
        used = longer if (made(longer) if alone else cell.name in kept or not made(cell)) else cell
        kept.add(used.name)
        found.append(used)
    return found
