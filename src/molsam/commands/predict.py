"""molsam predict: molecules of a CSV file through trained runs."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from molsam.config.command import program
from molsam.data.descriptors import read_descriptors
from molsam.errors import ConfigError, DataError, InvalidMolecule, MolsamError, StorageError
from molsam.files import write_atomic
from molsam.runs import result

if TYPE_CHECKING:
    from rdkit.Chem import Mol

    from molsam.chem.arrays import MolArrays


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `molsam predict`."""
    parser.add_argument("paths", nargs="+", metavar="RUN_FOLDER... MOLECULES.csv", type=Path,
                        help="one or more run folders (several make an ensemble), then the CSV file")  # fmt: skip
    parser.add_argument("-o", "--output", type=Path, help="the CSV file to write (default: standard output)")
    parser.add_argument("--smiles", default=None, help="the SMILES column (default: smiles, or the only column)")
    parser.add_argument("--descriptors", type=Path, metavar="FILE",
                        help="molecule descriptors, one row per row of the CSV, if the runs were trained with a file of them")  # fmt: skip
    parser.add_argument("--batch-size", type=int, default=256, help="molecules a forward pass")


def run(args: argparse.Namespace) -> int:
    """Write one row per input row, in the same order; rows that cannot be predicted carry the reason."""
    *folders, table = args.paths
    if not folders:
        raise ConfigError(
            f"predict needs a run folder and a CSV file: {program()} predict RUN_FOLDER molecules.csv -o out.csv."
        )
    if args.batch_size < 1:
        raise ConfigError(f"--batch-size={args.batch_size} is too small; it must be at least 1.")
    smiles = _read_smiles(table, args.smiles)
    runs = [_Run(folder) for root in folders for folder in _expand(root)]
    for other in runs[1:]:
        if other.predicts != runs[0].predicts:
            raise ConfigError(
                f"{other.folder} predicts {other.predicts}, {runs[0].folder} predicts {runs[0].predicts}; "
                "give runs of one dataset."
            )
    given = None if args.descriptors is None else read_descriptors(args.descriptors, len(smiles), "--descriptors")
    outcomes = [run.predict(smiles, args.batch_size, given) for run in runs]
    text = _render(smiles, runs[0].task_names, outcomes)
    if args.output is None:
        sys.stdout.write(text)
    else:
        write_atomic(args.output, text.encode())
        failed = sum(any(reasons[i] for _, reasons in outcomes) for i in range(len(smiles)))
        print(
            f"{len(smiles) - failed} of {len(smiles)} molecules predicted by {len(runs)} run(s): {args.output}",
            file=sys.stderr,
        )
    return 0


class _Member(NamedTuple):
    """A molecule of a batch."""

    row: int
    arrays: MolArrays
    descriptors: np.ndarray | None


class _Run:
    """A trained model read back from its folder."""

    def __init__(self, folder: Path) -> None:
        from molsam.data.scaler import TargetScaler
        from molsam.models.api import DataSpec
        from molsam.runs.folder import stored
        from molsam.training import checkpoint
        from molsam.training.objective import Objective
        from molsam.wiring import build

        self.folder = folder
        path = folder / "best" / "model.safetensors"
        if not path.exists():
            raise StorageError(
                f"{folder} holds no finished run ({path} is missing); give the folder of a finished run."
            )
        state = checkpoint.read(path)
        cfg = stored(folder if (folder / ".hydra").exists() else folder.parent)
        try:
            if "featurizer" not in cfg.model:
                raise ConfigError(f"{folder} was trained on images; predict takes molecules.")
            self.spec = DataSpec(**state["spec"])
            self.task_names: list[str] = list(state["task_names"])
            self.descriptors = cfg.dataset.get("descriptors")
            self.standardize = cfg.dataset.get("standardize")
            self.featurizer = build.build("model.featurizer", cfg.model.featurizer)
            self.model = build.build("model", cfg.model, self.spec)
            self.model.load_state_dict(state["weights"])
            self.model.eval()
            self.objective = Objective(state["task"], cfg.training.loss)
            self.scaler = TargetScaler.from_state(state["scaler"])
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise StorageError(
                f"{path} does not fit the settings beside it ({str(error).splitlines()[0]}); give a whole run folder."
            ) from error

    @property
    def predicts(self) -> str:
        """What and how, in words."""
        return f"{', '.join(self.task_names)} ({self.objective.task})"

    def predict(self, smiles: list[str], size: int, given: np.ndarray | None) -> tuple[np.ndarray, list[str]]:
        """Values [M, T] (NaN where invalid) and the reasons (empty where valid); given: descriptors [M, width]."""
        from molsam.chem.molecule import parse
        from molsam.chem.standardize import standardize

        values = np.full((len(smiles), len(self.task_names)), np.nan)
        reasons = [""] * len(smiles)
        extra = self._extra(given)
        for start in range(0, len(smiles), size):
            members = []
            for row in range(start, min(start + size, len(smiles))):
                try:
                    mol = standardize(parse(smiles[row]), self.standardize)
                    members.append(_Member(row, self.featurizer(mol), extra(row, mol)))
                except InvalidMolecule as error:
                    reasons[row] = str(error)
            self._fill(members, values, reasons)
        return values, reasons

    def _extra(self, given: np.ndarray | None) -> Callable[[int, Mol], np.ndarray | None]:
        """The descriptors of a row's molecule."""
        width = self.spec.descriptor_dim
        if not width:
            return lambda row, mol: None
        from molsam.chem.descriptors import NAMES, compute

        if self.descriptors in NAMES:
            return lambda row, mol: compute(self.descriptors, mol)
        if given is None or given.shape[1] != width:
            have = "not given" if given is None else f"{given.shape[1]} columns wide"
            raise ConfigError(
                f"{self.folder} was trained with dataset.descriptors={self.descriptors}, {width} columns; --descriptors "
                f"is {have}; give a file with the same columns for these molecules."
            )
        return lambda row, mol: given[row]

    def _fill(self, members: list[_Member], values: np.ndarray, reasons: list[str]) -> None:
        """Predict a batch; if the model refuses one of it (too large, say), each alone, so that the reason is its own."""
        if not members:
            return
        try:
            predicted = self._values(members)
        except MolsamError as error:
            if len(members) == 1:
                reasons[members[0].row] = str(error)
            else:
                for member in members:
                    self._fill([member], values, reasons)
            return
        for member, value in zip(members, predicted, strict=True):
            values[member.row] = value

    def _values(self, members: list[_Member]) -> np.ndarray:
        """float64 [B, T], in the targets' own unit, or probabilities."""
        import torch

        from molsam.data.packed import pack

        dtype = next(self.model.parameters()).dtype
        packed = pack([member.arrays for member in members], self_loops=self.featurizer.self_loops)
        batch = packed.batch(range(len(members)))
        if self.spec.descriptor_dim:
            batch.descriptors = torch.from_numpy(
                np.stack([m.descriptors for m in members if m.descriptors is not None])
            )
        with torch.no_grad():
            output = self.model(batch.to(dtype=dtype))
        return self.scaler.inverse(self.objective.predict(output).double().numpy())


def _expand(folder: Path) -> list[Path]:
    """The runs in a folder: itself, the one it was taken over from, or its folds."""
    outcome = result.read(folder)
    if outcome is not None:
        return [result.origin(folder, outcome)]
    folds = sorted(path.parent.parent for path in folder.glob("fold*/best/model.safetensors"))
    return folds or [folder]


def _read_smiles(path: Path, column: str | None) -> list[str]:
    from molsam.data.columns import smiles_column
    from molsam.data.table import read_table

    table = read_table(path, keep_empty=True, smiles=column or "smiles")
    column = smiles_column(table, column)
    if column.lower() != "smiles" and _is_molecule(column):
        raise DataError(f"{path} has no header: its first line is the molecule {column!r}; add a header line.")
    return table.column(column)


def _is_molecule(text: str) -> bool:
    from molsam.chem.molecule import parse

    try:
        return parse(text) is not None
    except InvalidMolecule:
        return False


def _render(smiles: list[str], names: list[str], outcomes: list[tuple[np.ndarray, list[str]]]) -> str:
    stacked = np.stack([values for values, _ in outcomes])
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    ensemble = len(outcomes) > 1
    header = ["smiles"]
    for name in names:
        header += [name, f"{name}_std"] if ensemble else [name]
    writer.writerow([*header, "error"])
    for i, one in enumerate(smiles):
        reason = next((reasons[i] for _, reasons in outcomes if reasons[i]), "")
        row: list[str] = [one]
        for t in range(len(names)):
            values = stacked[:, i, t]
            row.append("" if reason else repr(float(values.mean())))
            if ensemble:
                row.append("" if reason else repr(float(values.std(ddof=1))))
        writer.writerow([*row, reason])
    return text.getvalue()
