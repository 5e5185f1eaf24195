"""molsam predict: add predictions to a table of molecules."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from molsam.config.command import program
from molsam.errors import NOTE, ConfigError

if TYPE_CHECKING:
    from molsam.data.table import Table
    from molsam.wiring.predicting import Ensemble


log = logging.getLogger(__name__)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `molsam predict`."""
    parser.add_argument("paths", nargs="+", metavar="RUN_FOLDER... MOLECULES", type=Path,
                        help="one or more run folders (several make an ensemble), then "
                             "the table of molecules")  # fmt: skip
    parser.add_argument("-o", "--output", type=Path,
                        help="the .csv, .tsv or .parquet file to write (default: standard output)")  # fmt: skip
    parser.add_argument(
        "--smiles", default=None, help="the SMILES column (default: that of the run, smiles, or the only column)"
    )
    parser.add_argument("--interval", type=float, metavar="COVERAGE",
                        help="add an interval (classes: a set) that holds the true value "
                             "this often, such as 0.9")  # fmt: skip
    parser.add_argument("--nearest", action="store_true",
                        help="add the similarity to the nearest training molecule (Tanimoto, 0 to 1)")  # fmt: skip
    parser.add_argument("--descriptors", type=Path, metavar="FILE",
                        help="descriptors of the molecules, one row each, if the run was "
                             "trained with a file of descriptors")  # fmt: skip
    parser.add_argument("--device", default="cpu", help="cpu, cuda, ... (default: cpu)")
    parser.add_argument("--batch-size", type=int, default=256, help="molecules per forward pass")


def leave_cores_alone() -> None:
    """Let torch's threads sleep while they wait, and not spin: the workers that featurize need the cores.

    It has an effect only before torch is loaded. The numbers stay the same to the bit.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def run(args: argparse.Namespace) -> int:
    """Write every row and column of the input with predictions; rows that cannot be predicted have an error instead."""
    leave_cores_alone()
    from molsam.data.descriptors import read_descriptors
    from molsam.wiring.predicting import Ensemble, Options
    from molsam.wiring.trained import Trained, expand

    *folders, path = args.paths
    folders = [folder for folder in folders if folder.name != "folds.json"]  # from a glob such as outputs/run/fold*
    if not folders:
        raise ConfigError(
            f"predict needs a run folder and a table: {program()} predict RUN_FOLDER molecules.csv -o out.csv."
        )
    if args.batch_size < 1:
        raise ConfigError(f"--batch-size={args.batch_size} is too small; it must be at least 1.")
    runs = [Trained(folder, args.device) for root in folders for folder in expand(root)]
    table, column = read(path, args.smiles, runs[0].smiles_column)
    given = None if args.descriptors is None else read_descriptors(args.descriptors, len(table), "--descriptors")
    ensemble = Ensemble(runs, Options(args.batch_size, args.interval, args.nearest, given))
    failed = write(table, column, ensemble, args.output)
    if args.output is not None:
        count = len(table)
        noun, by = "molecule" if count == 1 else "molecules", "run" if len(runs) == 1 else "runs"
        print(f"{count - failed} of {count} {noun} predicted by {len(runs)} {by}: {args.output}", file=sys.stderr)
    return 0


def read(path: Path, wanted: str | None, of_run: str) -> tuple[Table, str]:
    """Return the table, and the name of its SMILES column. Raises DataError if there is none.

    The column is `wanted`, or that from which the run was trained, or smiles, or the only one.
    """
    from molsam.data.columns import refuse_headless, smiles_column
    from molsam.data.table import read_table

    table = read_table(path, keep_empty=True, smiles=wanted or of_run)
    lower = [name.lower() for name in table.columns]
    if wanted is None and of_run.lower() in lower:
        if of_run.lower() != "smiles" and "smiles" in lower:
            log.log(
                NOTE, "The molecules are those of column %r, as in training; --smiles smiles reads the others.", of_run
            )
        return table, smiles_column(table, of_run, "--smiles ")
    column = smiles_column(table, wanted, "--smiles ")
    if wanted is None and column.lower() != "smiles":
        refuse_headless(table)
    return table, column


def write(table: Table, column: str, ensemble: Ensemble, output: Path | None) -> int:
    """Write the rows chunk by chunk, and return how many have no prediction."""
    from molsam.data.formats import of_own_types, unique
    from molsam.tracking.console import counted
    from molsam.tracking.tables import writer

    names = list(table.columns)
    own = table.cells if output is None or output.suffix.lower() != ".parquet" else of_own_types(table)
    done = failed = 0
    with writer(output) as out:
        for part in counted(
            ensemble.predict(table.cells[table.place(column)]), lambda part: len(part.reasons), len(table)
        ):
            count = len(part.reasons)
            made = {**part.columns, "error": part.reasons}
            if not done:
                for name in made:
                    names.append(unique(name, names))
            out.write(names, [*(cells[done : done + count] for cells in own), *made.values()])
            done += count
            failed += sum(map(bool, part.reasons))
    return failed
