"""Start from the weights of an own run: what of them fits, and what starts anew."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from molsam.config.compose import plain
from molsam.data.api import Dataset
from molsam.data.scaler import TargetScaler
from molsam.data.split import Split
from molsam.errors import NOTE, ConfigError, StorageError, counted
from molsam.models.api import MoleculeModel
from molsam.runs.folder import stored
from molsam.training import checkpoint
from molsam.wiring import inputs
from molsam.wiring.trained import TRAINING

log = logging.getLogger(__name__)
SHOWN = 8


class Start:
    """The weights of a finished run, to begin another one with.

    The head is taken over where both runs have the same tasks and descriptors, and with it the scaling of the targets,
    so that the run begins with the predictions of the other one. Otherwise the head is new.

    Args:
        cfg: the settings of the run that begins.
        dataset: its data.

    Raises:
        ConfigError: the other run's model, or its features, are another one.
        StorageError: there is no finished run, or its files are damaged.
    """

    def __init__(self, cfg: DictConfig, dataset: Dataset) -> None:
        self.path = inputs.start_weights(cfg.init_from)
        self.folder = self.path.parents[1]
        theirs = stored(self.folder if (self.folder / ".hydra").exists() else self.folder.parent)
        self._compare(plain(theirs.model), plain(cfg.model))
        try:
            state = checkpoint.read(self.path)
            self.weights: dict[str, Tensor] = dict(state["weights"])
            spec, ours = state["spec"], dataset.spec
            same = (state["task"], list(state["task_names"]), state.get("classes")) == (
                dataset.task, list(dataset.task_names), getattr(dataset, "classes", None),
            )  # fmt: skip
            self.keeps_head = bool(
                same and all(spec[key] == getattr(ours, key) for key in ("n_tasks", "descriptor_dim"))
            )
            self.scaler = TargetScaler.from_state(state["scaler"])
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise StorageError(f"{self.path} does not fit ({error}); give another folder to init_from.") from error

    def _compare(self, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
        """Refuse another model or other features, tell other settings."""
        for key, what in (("_target_", "model"), ("featurizer", "features")):
            if theirs.get(key) != ours.get(key):
                raise ConfigError(
                    f"init_from={self.folder} has another {what} ({_short(theirs.get(key))}, not "
                    f"{_short(ours.get(key))}); choose the same model, or leave init_from out."
                )
        unlike = [key for key in ours if key in theirs and key != "pretrained" and theirs[key] != ours[key]]
        if unlike:
            told = ", ".join(f"model.{key} {theirs[key]} there, {ours[key]} here" for key in unlike)
            log.log(NOTE, "init_from=%s was trained with other settings: %s.", self.folder, told)

    @torch.no_grad()
    def load_into(self, model: torch.nn.Module) -> None:
        """Put the weights into a model, and tell what was loaded and what not.

        Raises ConfigError if a tensor of the encoder has another size.
        """
        if not isinstance(model, MoleculeModel):
            raise ConfigError("init_from starts models of molecules only; leave it out.")
        new, partly, loaded = [], [], 0
        for name, own in model.state_dict().items():
            if not self.keeps_head and name.split(".")[0] in model.heads:
                new.append(name)
                continue
            given = self.weights.get(name)
            if given is None or given.shape != own.shape:
                if given is None or name not in model.sized or given.shape[1:] != own.shape[1:]:
                    have = "is not in it" if given is None else f"has the size {tuple(given.shape)}"
                    raise ConfigError(
                        f"init_from={self.folder} does not fit this model: {name} {have}, here {tuple(own.shape)}; "
                        "give the model the settings of that run."
                    )
                rows = min(len(given), len(own))
                own[:rows].copy_(given[:rows])
                partly.append(f"{rows} of {len(own)} rows of {name}")
            else:
                own.copy_(given)
            loaded += 1
        ignored = [name for name in self.weights if name not in model.state_dict()]
        log.log(NOTE, "%s", _told(self.folder, loaded, partly, new, ignored))

    def warn_of_leak(self, dataset: Dataset, split: Split) -> None:
        """Tell how many molecules of validation and test the other run was trained on."""
        try:
            known = set((self.folder / TRAINING).read_text(encoding="utf-8").split("\n"))
        except OSError:
            return
        for part, rows in (("validation", split.valid), ("test", split.test)):
            if seen := sum(dataset.canonical[row] in known for row in rows):
                log.warning(
                    "%d of %d molecules of the %s part were training molecules of %s, so the scores are too good.",
                    *(seen, len(rows), part, self.folder),
                )


def _told(folder: Path, loaded: int, partly: Sequence[str], new: Sequence[str], ignored: Sequence[str]) -> str:
    parts = [f"{counted(loaded, 'tensor')} of {folder} loaded"]
    parts += [f"of these in part: {', '.join(partly)}"] if partly else []
    parts += [f"new because tasks or descriptors differ: {_listed(new)}"] if new else []
    parts += [f"not used: {_listed(ignored)}"] if ignored else []
    return "; ".join(parts) + "."


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return _short(value.get("_target_")) + "".join(
            f" {key}={item}" for key, item in value.items() if key != "_target_"
        )
    return str(value).rsplit(".", 1)[-1]
