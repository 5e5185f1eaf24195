"""A trained run, read back from its folder: predictions and vectors of new molecules."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from molsam.chem.descriptors import NAMES
from molsam.config.identity import group
from molsam.config.identity import stored as identity_of
from molsam.data.featurize import Featurized, Work, featurized
from molsam.data.packed import pack
from molsam.data.scaler import TargetScaler
from molsam.errors import ConfigError, DataError, InvalidMolecule, StorageError
from molsam.models.api import DataSpec
from molsam.runs import result
from molsam.runs.folder import stored
from molsam.training import checkpoint
from molsam.training.loop import DTYPES
from molsam.training.objective import Objective
from molsam.wiring.build import build, check_device
from molsam.wiring.inputs import WEIGHTS

TRAINING = Path("best") / "training.smi"
"""The molecules that a run was trained on, a SMILES per line."""


def expand(folder: Path) -> list[Path]:
    """Return the finished runs that a folder stands for: itself, the one it was taken over from, or its folds.

    Raises ConfigError if the folds are not of one run.
    """
    outcome = result.read(folder)
    if outcome is not None:
        return [result.origin(folder, outcome)]
    folds = sorted(path.parents[1] for path in folder.glob(f"fold*/{WEIGHTS.as_posix()}"))
    if counted := _last_folds(folder):  # an earlier run of more folds may have left some
        folds = [fold for fold in folds if fold.name in counted]
    results = [found for fold in folds if (found := result.read(fold)) is not None]
    if len({group(identity_of(found)) for found in results}) > 1:
        raise ConfigError(
            f"{folder} holds folds of different runs, whose mean means nothing; give the folders of those that belong "
            f"together: {', '.join(map(str, folds))}."
        )
    return folds or [folder]


def _last_folds(folder: Path) -> set[str]:
    """Return the names of the folds that folds.json averages, empty if there is no such file."""
    try:
        found = json.loads((folder / "folds.json").read_text(encoding="utf-8"))
        return {f"fold{row['fold']}" for row in found["folds"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def refuse_mixture(folders: Sequence[Path]) -> None:
    """Raise ConfigError if runs learned from different data; their models may differ."""
    outcomes = [(folder, found) for folder in folders if (found := result.read(folder)) is not None]
    for folder, outcome in outcomes[1:]:
        ours, theirs = (identity_of(found).data.get("dataset") for found in (outcomes[0][1], outcome))
        if ours != theirs:
            raise ConfigError(
                f"{folder} was trained on other data (hash {theirs}) than {outcomes[0][0]} ({ours}), so their mean "
                "means nothing; give runs of one file."
            )


class Trained:
    """The best epoch's model of a run, ready to predict.

    Args:
        folder: a run folder, or a fold's.
        device: where the model computes.

    Raises:
        StorageError: there is no finished run, or its files do not fit each other.
        ConfigError: the run was trained on images or graphs, or the device cannot be used.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        check_device("--device", device)
        path = folder / WEIGHTS
        if not path.exists():
            if (outcome := result.read(folder)) is not None and not outcome["steps"]:
                raise ConfigError(
                    f"{folder} holds a baseline, which keeps no weights; give the folder of a trained run."
                )
            raise StorageError(
                f"{folder} holds no finished run ({path} is missing); give the folder of a finished run."
            )
        state = checkpoint.read(path)
        cfg = stored(folder if (folder / ".hydra").exists() else folder.parent)
        self.folder, self.device = folder, torch.device(device)
        try:
            if "featurizer" not in cfg.model:
                raise ConfigError(f"{folder} was trained on images; molecules cannot be predicted with it.")
            if cfg.dataset.get("reader"):
                raise ConfigError(
                    f"{folder} was trained on graphs of DGL; features of other molecules are not made here. Its "
                    "predictions of the test part are in test_predictions.csv."
                )
            self.spec = DataSpec(**state["spec"])
            self.task: str = state["task"]
            self.task_names: list[str] = list(state["task_names"])
            self.unlearnt: list[str] = list((result.read(folder) or {}).get("tasks_unlearnt", ()))
            """tasks without a label in the training part"""
            self.classes: list[list[str]] | None = state.get("classes")
            self.work = Work(
                build("model.featurizer", cfg.model.featurizer),
                _computed(cfg.dataset.get("descriptors")),
                cfg.dataset.get("standardize") or "none",
                canonical=False,
            )
            self.descriptors = cfg.dataset.get("descriptors")
            self.id_column: str | None = cfg.dataset.get("id")
            self.smiles_column = str(cfg.dataset.get("smiles") or "smiles")
            self.model: torch.nn.Module = build("model", cfg.model, self.spec)
            self.model.load_state_dict(state["weights"])
            self.dtype = DTYPES[cfg.training.precision]
            self.model.to(self.device, self.dtype).eval()
            classes = self.spec.n_tasks // len(self.task_names)
            self.objective = Objective(self.task, cfg.training.loss, classes, self.classes)
            self.scaler = TargetScaler.from_state(state["scaler"])
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise StorageError(
                f"{path} does not fit the settings beside it ({reason}); give a whole run folder."
            ) from error

    @property
    def class_names(self) -> list[list[str]]:
        """What the classes of each task are called."""
        return self.classes or [["0", "1"] for _ in self.task_names]

    @property
    def predicts(self) -> str:
        """What is predicted and how, in words."""
        return f"{', '.join(self.task_names)} ({self.task})"

    def predict(self, rows: Sequence[Featurized]) -> tuple[np.ndarray, list[str]]:
        """Values [M, T] of featurized molecules, and why one has none (empty text where it has).

        Regression: in the target's own unit. Classification: probabilities; of several classes [M, T, K]. NaN where
        there is no value, as for the tasks `unlearnt`.
        """
        tasks = len(self.task_names)
        shape = (tasks, self.spec.n_tasks // tasks) if self.task == "multiclass" else (tasks,)
        values, reasons = self._each(rows, self._values, *shape)
        values[:, [self.task_names.index(name) for name in self.unlearnt]] = np.nan
        return values, reasons

    def embed(self, rows: Sequence[Featurized]) -> tuple[np.ndarray, list[str]]:
        """Vectors [M, width] that the model's head reads, and why a molecule has none.

        Raises ConfigError if the model does not name its `readers`.
        """
        return self._each(rows, self._vectors, self.width)

    @cached_property
    def width(self) -> int:
        """How long the vectors are, as told by methane's."""
        return self._vectors(list(featurized(["C"], self.work))).shape[1]

    def _each(self, rows: Sequence[Featurized], compute: Any, *shape: int) -> tuple[np.ndarray, list[str]]:
        reasons = [row.reason for row in rows]
        good = [place for place, row in enumerate(rows) if row.arrays is not None]
        values = np.full((len(rows), *shape), np.nan)
        for place, value in self._some(rows, good, compute, reasons):
            values[place] = value
        return values, reasons

    def _some(
        self, rows: Sequence[Featurized], places: list[int], compute: Any, reasons: list[str]
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Predict a batch; if the model refuses a molecule of it (say, too large), predict each one alone."""
        if not places:
            return
        try:
            computed = compute([rows[place] for place in places])
        except (DataError, InvalidMolecule) as error:
            if len(places) == 1:
                reasons[places[0]] = str(error)
                return
            for place in places:
                yield from self._some(rows, [place], compute, reasons)
            return
        yield from zip(places, computed, strict=True)

    @torch.no_grad()
    def _values(self, rows: Sequence[Featurized]) -> np.ndarray:
        output = self.model(self.batch(rows))
        values = self.objective.predict(output).double().cpu().numpy()
        return np.asarray(values) if self.task == "multiclass" else self.scaler.inverse(values)

    @torch.no_grad()
    def _vectors(self, rows: Sequence[Featurized]) -> np.ndarray:
        with reading(self.model) as vectors:
            self.model(self.batch(rows))
        return torch.cat([vector.double() for vector in vectors], dim=1).cpu().numpy()

    def batch(self, rows: Sequence[Featurized]) -> Any:
        """Featurized molecules as the model reads them. Raises ConfigError if their descriptors do not fit."""
        arrays = [row.arrays for row in rows if row.arrays is not None]
        batch = pack(arrays, self_loops=self.work.featurizer.self_loops).batch(range(len(arrays)))
        if self.spec.descriptor_dim:
            given = [row.descriptors for row in rows if row.descriptors is not None]
            if len(given) != len(rows) or given[0].shape != (self.spec.descriptor_dim,):
                have = "not given" if not given else f"{given[0].shape[0]} columns wide"
                raise ConfigError(
                    f"{self.folder} was trained with dataset.descriptors={self.descriptors}, "
                    f"{self.spec.descriptor_dim} columns; --descriptors is {have}; "
                    "give a file with the same columns for these molecules."
                )
            batch.descriptors = torch.from_numpy(np.stack(given))
        return batch.to(device=self.device, dtype=self.dtype)


def _computed(descriptors: str | None) -> str | None:
    """Return the descriptors that molsam computes itself; None for those of a file."""
    return descriptors if descriptors in NAMES else None


@contextmanager
def reading(model: torch.nn.Module) -> Iterator[list[Tensor]]:
    """Collect what the model's readers are given, in their order, during a forward pass.

    Raises ConfigError if the model names none.
    """
    names = getattr(model, "readers", ())
    if not names:
        raise ConfigError(
            f"{type(model).__name__} does not name its readers, so there are no vectors to write; see docs/extend.md."
        )
    found: dict[str, Tensor] = {}
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(lambda _, args, name=name: found.update({name: args[0]}))
        for name in names
    ]
    vectors: list[Tensor] = []
    try:
        yield vectors
        vectors += [found[name] for name in names]
    finally:
        for hook in hooks:
            hook.remove()
