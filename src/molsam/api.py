"""molsam in a notebook: train, load and compare runs without a command line.

```python
import molsam

run = molsam.train(model="gcn", path="assay.csv", targets=["pIC50"])
run.result, run.curves, run.predict(["CCO"])
molsam.results("outputs")
```
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from molsam.config.compose import compose, own_folder
from molsam.errors import ConfigError, MolsamError, StorageError
from molsam.runs import result as results_on_disk

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch

    from molsam.wiring.trained import Trained

__all__ = ["MolsamError", "Run", "load", "results", "train"]
PREDICT_AT_A_TIME = 256
"""Molecules of one forward pass."""


class Run:
    """A finished run, or a run of several folds.

    Args:
        folder: the run folder.

    Raises:
        StorageError: the folder holds no finished run.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        from molsam.wiring.trained import expand

        self.folder = Path(folder)
        self.folders = expand(self.folder)
        if any(results_on_disk.read(part) is None for part in self.folders):
            raise StorageError(f"{self.folder} holds no finished run; give the folder of one, or train it first.")

    def __repr__(self) -> str:
        """Return one line: what it is and how well it does."""
        one = self.results[0]
        scores = [str(_short(found["test"].get(found["metric"]))) for found in self.results]
        folds = f", {len(scores)} folds" if len(scores) > 1 else ""
        return f"Run({one['name']}{folds}: test {one['metric']} {', '.join(scores)}; {str(self.folder)!r})"

    @cached_property
    def results(self) -> list[dict[str, Any]]:
        """What result.json holds, of each fold."""
        found = [results_on_disk.read(folder) for folder in self.folders]
        return [one for one in found if one is not None]

    @property
    def result(self) -> dict[str, Any]:
        """What result.json holds. Of several folds, that of the first with the mean scores of all, and `fold` None."""
        first, *others = self.results
        if not others:
            return first
        scores = ("valid", "test", "test_per_task", "per_task", "test_late")
        means = {key: _mean([one.get(key) for one in self.results]) for key in scores if key in first}
        return {**first, **means, "fold": None}

    @cached_property
    def curves(self) -> pd.DataFrame:
        """One line per epoch (and fold): losses, metrics, learning rate, rho, graphs/s."""
        import pandas as pd

        from molsam.report.stored import read_lines

        frames = []
        for folder, found in zip(self.folders, self.results, strict=True):
            lines = [line for line in read_lines(folder / "metrics.jsonl") if line.get("kind") == "epoch"]
            frames.append(pd.DataFrame(lines).drop(columns="kind").assign(fold=found["fold"]))
        return pd.concat(frames, ignore_index=True)

    @cached_property
    def trained(self) -> list[Trained]:
        """The best epoch's model of each fold, with what it needs to predict."""
        from molsam.wiring.trained import Trained

        return [Trained(folder) for folder in self.folders]

    @property
    def model(self) -> torch.nn.Module:
        """The best epoch's model, a torch module in evaluation mode; of the first fold, if there are several.

        `trained[k].model` is that of another fold.
        """
        return self.trained[0].model

    def predict(self, smiles: Sequence[str]) -> pd.DataFrame:
        """Predict molecules: a line each, in order, with a column for each task and the reason where there is none.

        Values, or probabilities of the positive class. Of several classes the likeliest, and the probability of each in
        `<task>_<class>`. Several folds are averaged, and `<column>_std` holds their standard deviation.
        """
        import numpy as np
        import pandas as pd

        smiles = _texts(smiles)
        values, reasons = zip(*(self._of(one, one.predict, smiles) for one in self.trained), strict=True)
        stacked = np.stack(values)
        frame = pd.DataFrame({"smiles": smiles})
        one = self.trained[0]
        for task, (name, classes) in enumerate(zip(one.task_names, one.class_names, strict=True)):
            columns = {name: stacked[:, :, task]}
            if one.task == "multiclass":
                shares = stacked[:, :, task].mean(0)[:, : len(classes)]
                known = ~np.isnan(shares).any(1)
                chosen = np.nan_to_num(shares).argmax(1)
                frame[name] = [classes[place] if there else None for place, there in zip(chosen, known, strict=True)]
                columns = {f"{name}_{called}": stacked[:, :, task, place] for place, called in enumerate(classes)}
            for column, values_of in columns.items():
                frame[column] = values_of.mean(0)
                if len(stacked) > 1:
                    frame[f"{column}_std"] = values_of.std(0, ddof=1)
        return frame.assign(error=[next(filter(None, each), "") for each in zip(*reasons, strict=True)])

    def embed(self, smiles: Sequence[str]) -> np.ndarray:
        """Return the vectors [M, width] that the model's head reads, of the first fold; NaN for what is no molecule."""
        return self._of(self.trained[0], self.trained[0].embed, _texts(smiles))[0]

    @staticmethod
    def _of(one: Trained, what: Any, smiles: Sequence[str]) -> tuple[np.ndarray, list[str]]:
        import numpy as np

        from molsam.data.featurize import featurized

        rows = list(featurized(list(smiles), one.work))
        parts = [what(rows[i : i + PREDICT_AT_A_TIME]) for i in range(0, len(rows), PREDICT_AT_A_TIME)]
        if not parts:
            raise ConfigError("There are no molecules to predict; give a list of SMILES.")
        return np.concatenate([values for values, _ in parts]), [reason for _, part in parts for reason in part]


def train(
    model: str | None = None,
    optimizer: str | None = None,
    dataset: str | None = None,
    *,
    path: str | os.PathLike[str] | None = None,
    smiles: str | None = None,
    targets: Sequence[str] | None = None,
    overrides: Sequence[str] = (),
    folder: str | os.PathLike[str] | None = None,
    config_dir: str | os.PathLike[str] | None = None,
) -> Run:
    """Train a run, as `molsam train` does. One of the same settings that was interrupted goes on.

    A finished run is never touched: the same call trains anew, in another folder. With `folder`, one that is finished
    there is read and not trained again.

    Args:
        model: a choice of conf/model, such as gcn or grover; compt if not given.
        optimizer: a choice of conf/optimizer; graphsam if not given.
        dataset: a choice of conf/dataset; csv if `path` is given, else esol.
        path: a table of one's own.
        smiles: its column of molecules.
        targets: its columns of labels.
        overrides: further settings, as on the command line: ["training.epochs=50"].
        folder: where the run goes; by default `outputs/<date>/<name>`.
        config_dir: a folder of your own models, datasets and metrics, laid out like molsam's conf/ (docs/extend.md).

    Raises:
        MolsamError: in one sentence what is wrong with a setting, the data or a file.
    """
    from molsam.runs.folder import choose
    from molsam.wiring import identify
    from molsam.wiring.run import start

    chosen = {"model": model, "optimizer": optimizer, "dataset": dataset or ("csv" if path is not None else None)}
    folder, config_dir = _path("folder", folder), _path("config_dir", config_dir)
    path = _path(
        "path",
        path,
        'a table as a file, such as "assay.csv"; a DataFrame is written by df.to_csv("assay.csv", index=False)',
    )
    words = [f"{group}={choice}" for group, choice in chosen.items() if choice is not None]
    words += own_folder(config_dir)
    for word in _listed(overrides):
        if str(word).lstrip("+~").startswith("hydra"):
            raise ConfigError(
                f"{word} is a setting of the command line, which has no effect here; give the run's folder with "
                "folder=, and run sweeps by the command line."
            )
        words.append(word)
    cfg = compose(words)
    given = {"path": None if path is None else str(path), "smiles": smiles, "targets": targets}
    for key, value in given.items():
        if value is not None:
            OmegaConf.update(cfg, f"dataset.{key}", _listed(value) if key == "targets" else value, force_add=True)
    place = folder if folder is not None else choose(_resolved(cfg), identify.of)
    start(cfg, place, words)
    return Run(place)


def load(folder: str | os.PathLike[str]) -> Run:
    """Read a finished run back. Raises StorageError if the folder holds none."""
    place = _path("folder", folder)
    if place is None:
        raise ConfigError("folder=None is not a path; give the folder of a finished run.")
    return Run(place)


def results(*folders: str | os.PathLike[str]) -> pd.DataFrame:
    """Return all finished runs under some folders (outputs, if none is given), one a line; damaged ones are left out.

    Raises ConfigError if a folder is given that does not exist.
    """
    from molsam.report.frame import load as read

    for folder in folders:
        if not (_path("folder", folder) or Path()).exists():
            raise ConfigError(f"{folder} does not exist; give the folder of runs, such as outputs, or a packed file.")
    frame, _ = read([Path(folder) for folder in folders or ("outputs",)])
    return frame


def _listed(given: Any) -> list[Any]:
    """Return the entries of a list, or the one value that was given instead. Raises ConfigError for a table."""
    if getattr(given, "ndim", 1) > 1:
        raise ConfigError(
            f'A {type(given).__name__} of {given.ndim} dimensions is no list; give one column, as in df["smiles"].'
        )
    return list(given) if isinstance(given, Iterable) and not isinstance(given, (str, bytes)) else [given]


def _path(name: str, given: Any, what: str = "a path as text") -> Path | None:
    """Return the path that was given, None if none was. Raises ConfigError for what is no path."""
    if given is None or isinstance(given, (str, os.PathLike)):
        return None if given is None else Path(given)
    shown = f"={given!r}" if isinstance(given, (int, float, bool)) else f" of type {type(given).__name__}"
    raise ConfigError(f"{name}{shown} is not a path; give {what}.")


def _mean(values: Sequence[Any]) -> Any:
    """Return the mean of numbers, key by key of mappings; None if none is there."""
    if any(isinstance(value, dict) for value in values):
        found = [value for value in values if isinstance(value, dict)]
        return {key: _mean([one.get(key) for one in found]) for key in found[0]}
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _texts(smiles: Any) -> list[str]:
    """Molecules as text; what is none (None, NaN) as the empty one, which is told to be no molecule."""
    return [one if isinstance(one, str) else "" if one is None or one != one else str(one) for one in _listed(smiles)]


def _resolved(cfg: DictConfig) -> DictConfig:
    resolved = cfg.copy()
    OmegaConf.resolve(resolved)
    return resolved


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
