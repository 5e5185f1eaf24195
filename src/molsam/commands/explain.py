"""molsam explain: which atoms raise or lower a run's prediction of a molecule."""

from __future__ import annotations

import argparse
from pathlib import Path

from molsam.errors import ConfigError


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `molsam explain`."""
    parser.add_argument("folder", metavar="RUN_FOLDER", type=Path, help="a finished run")
    parser.add_argument("smiles", metavar="SMILES", help="the molecule, in quotes")
    parser.add_argument("--task", help="the task to explain (default: the first)")
    parser.add_argument("--by", choices=("gradient", "attention"), default="gradient",
                        help="gradient x input (default), or where a transformer looks")  # fmt: skip
    parser.add_argument("--device", default="cpu", help="cpu, cuda, ... (default: cpu)")
    parser.add_argument("-o", "--output", type=Path, default=Path("explained.svg"),
                        help="the picture to write (default: explained.svg)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Print each atom's contribution and write the picture."""
    from molsam.chem.molecule import canonical_smiles
    from molsam.files import write_atomic
    from molsam.wiring.explain import attention, explain, picture
    from molsam.wiring.trained import Trained, expand

    if args.output.suffix != ".svg":
        raise ConfigError(f"--output={args.output} is not an SVG file; give a name that ends in .svg.")
    trained = Trained(expand(args.folder)[0], args.device)
    task = args.task or trained.task_names[0]
    if task not in trained.task_names:
        raise ConfigError(
            f"--task={task} is not predicted by {args.folder}; use one of: {', '.join(trained.task_names)}."
        )
    explained = (attention if args.by == "attention" else explain)(trained, args.smiles)
    called = explained.classes.get(task)
    if trained.task == "classification":
        called = trained.class_names[trained.task_names.index(task)][1]
    kind = "" if called is None else f"{called}, probability "
    print(f"{task}: {kind}{explained.values[task]:.4g}")
    if trained.work.standardize != "none":
        print(f"as the model reads it: {canonical_smiles(explained.mol)}")
    shares = explained.atoms[task]
    for atom in explained.mol.GetAtoms():
        print(f"{atom.GetIdx():4d} {atom.GetSymbol():2s} {shares[atom.GetIdx()]:+.4f}")
    write_atomic(args.output, picture(explained, task).encode())
    print(f"picture: {args.output}")
    return 0
