"""molsam embed: the vectors that a run's model computes for molecules."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from molsam.errors import counted


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `molsam embed`."""
    parser.add_argument(
        "folder", metavar="RUN_FOLDER", type=Path, help="a finished run; of several folds the first is used"
    )
    parser.add_argument("molecules", type=Path, help="a table with a SMILES column")
    parser.add_argument("-o", "--output", type=Path,
                        help="the .parquet, .csv or .tsv file to write (default: standard output)")  # fmt: skip
    parser.add_argument(
        "--smiles", default=None, help="the SMILES column (default: that of the run, smiles, or the only column)"
    )
    parser.add_argument("--id", default=None,
                        help="a column with names of the molecules, to keep in the output "
                             "(default: the dataset.id of the run)")  # fmt: skip
    parser.add_argument("--device", default="cpu", help="cpu, cuda, ... (default: cpu)")


def run(args: argparse.Namespace) -> int:
    """Write a row per molecule: its number in the file, its id, its SMILES, and its vector or the error."""
    from molsam.commands.predict import leave_cores_alone, read

    leave_cores_alone()
    from molsam.data.featurize import featurized
    from molsam.tracking.console import counted as shown
    from molsam.tracking.tables import writer
    from molsam.wiring.predicting import chunks
    from molsam.wiring.trained import Trained, expand

    trained = Trained(expand(args.folder)[0], args.device)
    table, column = read(args.molecules, args.smiles, trained.smiles_column)
    name = args.id or (trained.id_column if trained.id_column in table.columns else None)
    ids = None if name is None else table.cells[table.place(name)]
    smiles, done, failed = table.cells[table.place(column)], 0, 0
    with writer(args.output) as out:
        parts = chunks(featurized(smiles, trained.work), 256)
        for rows in shown(parts, len, len(smiles)):
            vectors, reasons = trained.embed(rows)
            part = slice(done, done + len(rows))
            named = {
                "row": list(table.numbers[part]),
                **({} if ids is None else {"id": ids[part]}),
                "smiles": smiles[part],
            }
            made = {f"v{place}": values for place, values in enumerate(vectors.T)}
            columns = {**named, **made, "error": reasons}
            out.write(list(columns), list(columns.values()))
            done += len(rows)
            failed += sum(map(bool, reasons))
    if args.output is not None:
        print(f"{done - failed} of {counted(done, 'molecule')} have a vector: {args.output}", file=sys.stderr)
    return 0
