"""Read what a search has found so far, from its study on disk; nothing is written."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from molsam.errors import ConfigError, StorageError

FILE = "study.db"


@dataclass(frozen=True)
class Found:
    """Trials of a search, best first, and how much of the spread of their values each setting explains.

    `importances` sum to 1 (fANOVA of Hutter and others 2014) and are empty where too few trials are complete.
    """

    name: str
    direction: str
    trials: tuple[dict[str, Any], ...]
    importances: dict[str, float]


def read(folder: Path) -> Found:
    """Return the trials of the study in a sweep's folder. Raises ConfigError if there is none."""
    import optuna

    path = folder / FILE
    if not path.is_file():
        raise ConfigError(
            f"{folder} holds no {FILE}; run the search first, or name the folder that holds {folder.name} with --outputs."
        )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        # Read-only: a report never waits for, or disturbs, the search that goes on.
        storage = optuna.storages.RDBStorage(f"sqlite:///file:{path.resolve()}?mode=ro&uri=true")
        names = optuna.get_all_study_names(storage)
        studies = [optuna.load_study(study_name=name, storage=storage) for name in names]
        study = max(studies, key=lambda one: len(one.trials))
        listed = study.get_trials(deepcopy=False)
    except Exception as error:
        raise StorageError(f"{path} cannot be read as a study ({' '.join(str(error).split())[:120]}).") from error
    direction = study.directions[0].name.lower()
    sign = 1 if direction == "minimize" else -1
    trials = [
        {"trial": t.number, "state": t.state.name.lower(), "value": t.values[0] if t.values else None, **t.params}
        for t in listed
    ]
    ordered = sorted(trials, key=lambda t: (t["value"] is None, sign * (t["value"] or 0.0), t["trial"]))
    return Found(study.study_name, direction, tuple(ordered), _importances(study))


def _importances(study: Any) -> dict[str, float]:
    import optuna

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
            target = None if len(study.directions) == 1 else (lambda trial: trial.values[0])
            return dict(optuna.importance.get_param_importances(study, evaluator=evaluator, target=target))
    except (ValueError, RuntimeError, ImportError):
        return {}
