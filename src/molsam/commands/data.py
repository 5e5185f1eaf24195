"""molsam data list | fetch | check: list, download and check datasets."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from molsam.chem.arrays import MolArrays
from molsam.config.command import program
from molsam.errors import ConfigError

SHOWN = 20
"""Largest number of invalid rows that are listed."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `molsam data`."""
    parser.add_argument(
        "action",
        choices=("list", "fetch", "check"),
        help="list: all datasets; fetch: download; check: read a file and count its molecules and labels",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="DATASET",
        help="names of datasets; check also takes a file (default of check: all datasets on this machine)",
    )
    parser.add_argument("--root", help="the folder with the files (dataset.root)")
    parser.add_argument("--cache", help="the cache folder (paths.cache)")
    parser.add_argument("--smiles", default="smiles", help="the SMILES column of a file (default: smiles)")
    parser.add_argument("--targets", nargs="+", help="the label columns of a file (default: all others)")


def run(args: argparse.Namespace) -> int:
    """List, download or check datasets; return 0."""
    from molsam.data.sources import fetch, find
    from molsam.files import cache_folder

    every = dataset_settings(args.root)
    cache = cache_folder(args.cache)
    if args.action == "list":
        _list({name: (s, find(s, cache)) for name, s in every.items()}, cache)
    elif args.action == "fetch":
        if not args.names:
            raise ConfigError(
                f"{program()} data fetch needs the name of a dataset, as in: {program()} data fetch bbbp."
            )
        for name in args.names:
            _known(name, every)
            found = find(every[name], cache)
            print(f"{name}: {found or fetch(every[name], cache)}{' is here already' if found else ''}", flush=True)
    else:
        for name in args.names or [name for name, s in every.items() if find(s, cache) is not None]:
            if name not in every and os.path.exists(name):
                settings: dict[str, Any] = {"path": name, "smiles": args.smiles, "targets": args.targets}
            else:
                _known(name, every)
                settings = every[name]
            _show(name, check(settings, args.cache))
    return 0


def check(settings: Mapping[str, Any], cache: str | None) -> dict[str, Any]:
    """Return counts of a dataset by their names, and `failures`: the rows without a valid molecule."""
    from molsam.data.dataset import load
    from molsam.data.sources import EMBEDDED

    dataset = load({**settings, "on_invalid": "drop"}, _Sizes(), cache)
    atoms = dataset.packed.node_offset.diff().numpy()
    bonds = dataset.packed.edge_offset.diff().numpy() // 2
    report = dataset.report
    return {
        "file": report.path,
        "verified copy": "in the package" if EMBEDDED in Path(report.path).parents else report.verified,
        "rows": report.rows,
        "molecules": len(dataset),
        "rows that are no molecule": len(report.invalid),
        "tasks": len(dataset.task_names),
        "task": dataset.task,
        "metric": dataset.metric,
        "missing labels": report.missing_in_file,
        "missing labels of molecules": report.missing,
        "duplicates": report.found.rows,
        "contradicting duplicates": report.found.contradictions,
        "atoms at most": int(atoms.max()),
        "atoms, mean": round(float(atoms.mean()), 2),
        "atoms, median": float(np.median(atoms)),
        "bonds at most": int(bonds.max()),
        "bonds, mean": round(float(bonds.mean()), 2),
        "single atoms": int((atoms == 1).sum()),
        "molecules without bonds": int((bonds == 0).sum()),
        "molecules of 100 atoms or more": int((atoms >= 100).sum()),
        "molecules of several fragments": sum("." in name for name in dataset.canonical),
        "failures": report.invalid,
    }


class _Sizes:
    """Replaces the featurizer where only atoms and bonds are counted."""

    VERSION = 1
    node_dim = edge_dim = 1
    pairs = self_loops = False

    def settings(self) -> dict[str, Any]:
        return {}

    def __call__(self, mol: Any) -> MolArrays:
        n, e = mol.GetNumAtoms(), 2 * mol.GetNumBonds()
        ends = np.zeros(e, dtype=np.int32)
        return MolArrays(np.zeros((n, 1), np.float32), np.zeros((e, 1), np.float32), ends, ends)


def dataset_settings(root: str | None = None) -> dict[str, dict[str, Any]]:
    """Return the dataset section of every YAML of conf/dataset that has a file of its own, by name."""
    from molsam.config.compose import datasets

    return {
        name: {**settings, "root": root or settings["root"]}
        for name, settings in datasets().items()
        if settings.get("layouts")
    }


def _known(name: str, every: Mapping[str, Any]) -> None:
    if name not in every:
        raise ConfigError(f"{name} is not a dataset; choose from: {', '.join(every)}.")


def _list(every: Mapping[str, tuple[Mapping[str, Any], Path | None]], cache: Path) -> None:
    from rich.table import Column, Table

    from molsam import terminal

    table = Table("dataset", "task", "metric", "targets", Column("file", overflow="fold"))
    for name, (settings, found) in every.items():
        here = str(found or "not here")
        if settings.get("embedded") and found and found.parent.name == "embedded":
            here = "ships with molsam"
        elif found and found.is_relative_to(cache):
            here = "in the cache"
        table.add_row(name, settings["task"], settings["metric"], str(len(settings["layouts"][0]["targets"])), here)
    terminal.console().print(table)
    if any(found is None for _, found in every.values()):
        print(f"What is not here is downloaded by the first run, or by: {program()} data fetch DATASET")


def _show(name: str, facts: Mapping[str, Any]) -> None:
    print(name)
    for what, value in facts.items():
        if what != "failures":
            shown = (
                ("no", "yes")[value] if isinstance(value, bool) else f"{value:,}" if isinstance(value, int) else value
            )
            print(f"  {what:32}{shown}")
    for where, smiles, reason in facts["failures"][:SHOWN]:
        print(f"  {where}: {smiles[:80]}: {reason}")
    if len(facts["failures"]) > SHOWN:
        print(f"  ... and {len(facts['failures']) - SHOWN} more")
