"""chemprop's D-MPNN on the splits of molsam's runs, with the same epochs and batch size; needs chemprop 2.3.1 alone.

python results/chemprop_dmpnn.py TABLE RUN_FOLDER... prints the test score of both for each run (one task; of several
folds the folders fold0, fold1, ...). TABLE is the file that the runs were trained on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
from sklearn.metrics import mean_squared_error, roc_auc_score

PARTS = {"train": "train", "valid": "val", "test": "test"}
"""molsam's names of the parts and chemprop's."""


def table(source: pd.DataFrame, smiles: str, target: str, run: Path) -> pd.DataFrame:
    """SMILES, label and part of each row that a run used; rows are counted as pandas counts them."""
    split = json.loads((run / "split.json").read_text(encoding="utf-8"))
    chosen = [source.loc[split[part], [smiles, target]].assign(split=name) for part, name in PARTS.items()]
    return pd.concat(chosen).set_axis(["smiles", "y", "split"], axis=1)


def score(rows: pd.DataFrame, result: dict, seed: int) -> float:
    """Train chemprop with its defaults and the run's epochs and batch size; its RMSE or ROC-AUC on the test part."""
    training, classes = result["config"]["training"], result["task"] == "classification"
    with tempfile.TemporaryDirectory() as folder:
        rows.to_csv(Path(folder, "rows.csv"), index=False)
        words = ["--data-path", f"{folder}/rows.csv", "--smiles-columns", "smiles", "--target-columns", "y"]
        words += ["--splits-column", "split", "--task-type", result["task"], "--metrics", "roc" if classes else "rmse"]
        words += ["--epochs", str(training["epochs"]), "--batch-size", str(training["batch_size"])]
        words += ["--pytorch-seed", str(seed), "--accelerator", "cpu", "--output-dir", f"{folder}/out"]
        subprocess.run(
            [str(Path(sys.executable).with_name("chemprop")), "train", *words], check=True, capture_output=True
        )
        (made,) = Path(folder, "out").rglob("test_predictions.csv")
        predicted = pd.read_csv(made)["y"]
    truth = rows.loc[rows["split"] == "test", "y"]
    return roc_auc_score(truth, predicted) if classes else mean_squared_error(truth, predicted) ** 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--smiles", default="smiles", help="the SMILES column of the table (default: smiles)")
    arguments = parser.parse_args()
    source = pd.read_csv(arguments.table)
    for run in arguments.runs:
        result = json.loads((run / "result.json").read_text(encoding="utf-8"))
        (task,) = result["test_per_task"]
        rows = table(source, arguments.smiles, task, run)
        theirs = score(rows, result, result["seed"])
        print(
            f"{run}: {result['metric']} molsam {result['test'][result['metric']]:.4f}, chemprop {theirs:.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
