"""From the command line to the jobs of a sweep: what varies, where each goes, and the hash of its settings."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from molsam.config.cells import Cell, key_of, quote, shrunk, slug, table_cells
from molsam.config.identity import NEUTRAL, config_hash
from molsam.errors import ConfigError

if TYPE_CHECKING:
    from molsam.sweeping.sweeper import ResumableSweeper

AXES = {"dataset": "datasets", "model": "models", "seed": "seeds", "split.fold": "folds"}
"""Overrides of a table that mean one of its axes."""

SMOKE = {"dataset.limit": 64, "training.epochs": 1}
"""What smoke=true adds to every job, unless the command line says otherwise."""

NOT_FOR_JOBS = ("overwrite", "dry_run", "smoke")
NAME_LENGTH = 150


@dataclass(frozen=True)
class Planned:
    """A cell with its job: the run folder, the overrides, and the settings they lead to."""

    cell: Cell
    folder: Path
    overrides: tuple[str, ...]
    hash: str
    config: DictConfig


def parse(arguments: list[str]) -> list[Override]:
    """The overrides of a command line."""
    return OverridesParser.create().parse_overrides(arguments)


def values_of(override: Override) -> list[str]:
    """The values an override gives its key, as text for another override."""
    if override.is_sweep_override():
        if not override.is_discrete_sweep():
            raise ConfigError(
                f"{override.input_line} has no list of values; a grid needs choices such as "
                f"{override.key_or_group}=1,2,3, or choose a sampler with hydra/sweeper/sampler=tpe."
            )
        return [str(value) for value in override.sweep_string_iterator()]
    return [override.get_value_element_as_str()]


def plan(sweeper: ResumableSweeper, arguments: list[str]) -> list[Planned]:
    """Every job of a grid, composed. Raises ConfigError or Hydra's errors before anything runs."""
    overrides = parse(arguments)
    base = [
        o.input_line or ""
        for o in overrides
        if not o.is_sweep_override() and key_of(o.input_line or "") not in NOT_FOR_JOBS
    ]
    sweeps = OmegaConf.to_container(sweeper.config.get("sweeps") or OmegaConf.create(), resolve=False)
    assert isinstance(sweeps, dict)
    if sweeps.get("variants"):
        cells, base = _table(sweeper, {str(k): v for k, v in sweeps.items()}, overrides, base)
    else:
        cells = _products(overrides, base)
        base = [text for text in base if not text.startswith("hydra.")]
    if sweeper.smoke:
        base += shrink(base)
    return [_planned(sweeper, cell, base, *configs) for cell, *configs in _compose(sweeper, cells, base)]


def shrink(base: list[str]) -> list[str]:
    """The overrides of smoke=true that the command line does not make itself."""
    given = {key_of(text) for text in base}
    return [f"{key}={value}" for key, value in SMOKE.items() if key not in given]


def _table(
    sweeper: ResumableSweeper, sweeps: dict[str, Any], overrides: list[Override], base: list[str]
) -> tuple[list[Cell], list[str]]:
    """Cells of a table; dataset=, seed= and split.fold= on the command line choose along its axes."""
    for override in overrides:
        key = key_of(override.input_line or "")
        if key in AXES and (key != "model" or sweeps.get("models")):
            given = values_of(override)
            sweeps[AXES[key]] = given if key in ("dataset", "model") else [int(value) for value in given]
            base = [text for text in base if key_of(text) != key]
        elif override.is_sweep_override():
            raise ConfigError(
                f"{override.input_line} would give every cell of {sweeper.sweep_name} several results; run it once "
                f"for each value, under a name of its own: sweeps.name={sweeper.sweep_name}-{slug(key)}."
            )
    if sweeper.smoke:
        sweeps = shrunk(sweeps)
    cells = table_cells(sweeps)
    rows = {key_of(text) for cell in cells for text in cell.overrides}
    for text in base:
        if key_of(text) in rows:
            raise ConfigError(
                f"{text} cannot be given: the rows of {sweeper.sweep_name} set {key_of(text)} themselves; choose rows "
                "with sweeps.rows=[...]."
            )
    # The rows and claims of the whole table are no setting of one cell.
    heavy = [f"~sweeps.{key}" for key in ("variants", "report", "needs") if key in sweeps]
    return cells, base + heavy


def _products(overrides: list[Override], base: list[str]) -> list[Cell]:
    """Cells of a command line with choices: every combination."""
    swept = [(o.get_key_element(), values_of(o)) for o in overrides if o.is_sweep_override()]
    fixed = [text for text in base if key_of(text).split(".")[0] not in (*NEUTRAL, "hydra")]
    cells = []
    for combination in itertools.product(*(values for _, values in swept)):
        chosen = [f"{key}={value}" for (key, _), value in zip(swept, combination, strict=True)]
        # What differs between the folders comes first: a name may be cut.
        name = ",".join(slug(text) for text in [*chosen, *fixed])[:NAME_LENGTH] or "default"
        attrs = tuple((key, value) for (key, _), value in zip(swept, combination, strict=True))
        cells.append(Cell(name, attrs, tuple(chosen)))
    names = [cell.name for cell in cells]
    if len(set(names)) < len(names):
        # Long or odd values may leave equal folder names: number them, which is as stable as the command.
        cells = [Cell(f"{cell.name}-{place}", cell.attrs, cell.overrides) for place, cell in enumerate(cells)]
    return cells


def _compose(
    sweeper: ResumableSweeper, cells: list[Cell], base: list[str]
) -> Iterator[tuple[Cell, DictConfig, DictConfig]]:
    """(cell, its settings, Hydra's); cells that differ only by fold and seed are composed once."""
    known: dict[tuple[str, ...], tuple[DictConfig, DictConfig]] = {}
    for cell in cells:
        axes: dict[str, int] = {}
        key = cell.overrides
        if "row" in cell.values:
            axes = {"seed": cell.values["seed"], "split.fold": cell.values["fold"]}
            key = tuple(text for text in cell.overrides if key_of(text) not in axes)
        if key not in known:
            config = sweeper.hydra_context.config_loader.load_sweep_config(sweeper.config, [*base, *cell.overrides])
            known[key] = OmegaConf.masked_copy(config, [str(name) for name in config if name != "hydra"]), config
        task = copy.deepcopy(known[key][0])
        for name, value in axes.items():
            OmegaConf.update(task, name, value, force_add=True)
        yield cell, task, known[key][1]


def _planned(sweeper: ResumableSweeper, cell: Cell, base: list[str], task: DictConfig, config: DictConfig) -> Planned:
    folder = Path(sweeper.sweep_dir) / cell.name
    with _as_job(config):
        digest = config_hash(task)
    return Planned(cell, folder, (*base, *cell.overrides, *destination(sweeper, cell.name)), digest, task)


def destination(sweeper: ResumableSweeper, name: str) -> tuple[str, str]:
    """The overrides that send a job to its folder."""
    return f"hydra.sweep.dir={quote(sweeper.sweep_dir)}", f"hydra.sweep.subdir={quote(name)}"


@contextmanager
def _as_job(config: DictConfig) -> Iterator[None]:
    """Let ${hydra:...} mean the job's own Hydra settings."""
    hydra = HydraConfig.instance()
    before = hydra.cfg
    hydra.set_config(config)
    try:
        yield
    finally:
        hydra.cfg = before
