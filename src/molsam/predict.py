"""molsam predict: molecules of a CSV file through trained runs."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np

from molsam import result
from molsam.errors import ConfigError, InvalidMolecule, StorageError
from molsam.files import write_atomic


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `molsam predict`."""
    parser.add_argument("paths", nargs="+", metavar="RUN_FOLDER... MOLECULES.csv", type=Path,
                        help="one or more run folders (several make an ensemble), then the CSV file")  # fmt: skip
    parser.add_argument("-o", "--output", type=Path, help="the CSV file to write (default: standard output)")
    parser.add_argument("--smiles", default=None, help="the SMILES column (default: smiles, or the only column)")
    parser.add_argument("--batch-size", type=int, default=256, help="molecules a forward pass")


def run(args: argparse.Namespace) -> int:
    """Write one row per input row, in the same order; rows that cannot be predicted carry the reason."""
    *folders, table = args.paths
    if not folders:
        raise ConfigError(
            "predict needs a run folder and a CSV file: molsam predict RUN_FOLDER molecules.csv -o out.csv."
        )
    if args.batch_size < 1:
        raise ConfigError(f"--batch-size={args.batch_size} is too small; it must be at least 1.")
    smiles = _read_smiles(table, args.smiles)
    runs = [_Run(folder) for root in folders for folder in _expand(root)]
    names = runs[0].task_names
    for other in runs[1:]:
        if other.task_names != names:
            raise ConfigError(
                f"{other.folder} predicts {other.task_names}, {runs[0].folder} predicts {names}; give runs of one dataset."
            )
    outcomes = [run.predict(smiles, args.batch_size) for run in runs]
    text = _render(smiles, names, outcomes)
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


class _Run:
    """A trained model read back from its folder."""

    def __init__(self, folder: Path) -> None:
        from molsam import preflight
        from molsam.data.scaler import TargetScaler
        from molsam.folder import stored
        from molsam.models.api import DataSpec
        from molsam.training import checkpoint
        from molsam.training.objective import Objective

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
            self.featurizer = preflight.build("model.featurizer", cfg.model.featurizer)
            self.model = preflight.build("model", cfg.model, self.spec)
            self.model.load_state_dict(state["weights"])
            self.model.eval()
            self.objective = Objective(state["task"], cfg.training.loss)
            self.scaler = TargetScaler.from_state(state["scaler"])
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise StorageError(
                f"{path} does not fit the settings beside it ({str(error).splitlines()[0]}); give a whole run folder."
            ) from error

    def predict(self, smiles: list[str], size: int) -> tuple[np.ndarray, list[str]]:
        """Values [M, T] (NaN where invalid) and the reasons (empty where valid)."""
        import torch

        from molsam.chem.molecule import parse
        from molsam.data.packed import pack

        values = np.full((len(smiles), len(self.task_names)), np.nan)
        reasons = [""] * len(smiles)
        arrays, places = [], []
        for place, text in enumerate(smiles):
            try:
                arrays.append(self.featurizer(parse(text)))
                places.append(place)
            except InvalidMolecule as error:
                reasons[place] = str(error)
        if self.spec.descriptor_dim:
            raise ConfigError(
                f"{self.folder} was trained with molecule descriptors, which predict cannot compute for new molecules."
            )
        for start in range(0, len(arrays), size):
            chunk = slice(start, start + size)
            packed = pack(arrays[chunk], self_loops=self.featurizer.self_loops)
            dtype = next(self.model.parameters()).dtype
            for place, row in self._safely(packed, dtype, places[chunk], reasons, torch):
                values[place] = row
        return values, reasons

    def _safely(
        self, packed: Any, dtype: Any, places: list[int], reasons: list[str], torch: Any
    ) -> list[tuple[int, np.ndarray]]:
        """Predict a batch; if the model refuses a molecule (too large, say), one by one, with its reason."""
        try:
            with torch.no_grad():
                output = self.model(packed.batch(list(range(len(places)))).to(dtype=dtype))
            rows = self.scaler.inverse(self.objective.predict(output).double().numpy())
            return list(zip(places, rows, strict=True))
        except ConfigError as error:
            if len(places) == 1:
                reasons[places[0]] = str(error)
                return []
        found = []
        for i, place in enumerate(places):
            try:
                with torch.no_grad():
                    output = self.model(packed.batch([i]).to(dtype=dtype))
                found.append((place, self.scaler.inverse(self.objective.predict(output).double().numpy())[0]))
            except ConfigError as error:
                reasons[place] = str(error)
        return found


def _expand(folder: Path) -> list[Path]:
    """The runs in a folder: itself, the one it was taken over from, or its folds."""
    outcome = result.read(folder)
    if outcome is not None:
        return [result.origin(folder, outcome)]
    folds = sorted(path.parent.parent for path in folder.glob("fold*/best/model.safetensors"))
    return folds or [folder]


def _read_smiles(path: Path, column: str | None) -> list[str]:
    from molsam.data.table import read_table

    table = read_table(path)
    if column is None and len(table.columns) == 1:
        column = table.columns[0]
    return table.column(column or "smiles")


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
