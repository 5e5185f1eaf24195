"""Results of a search so far, read from its study on disk without writing to it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from molsam.errors import ConfigError, StorageError
from molsam.sweeping.heartbeat import Watch

FILE, JOURNAL = "study.db", "study.journal"
HEAD = ("trial", "state", "value")
"""What a trial has beside its settings."""
TOTAL = "molsam:total"
"""User attribute of a study: the number of cells or trials that its sweep will have."""


@dataclass(frozen=True)
class Found:
    """Trials of a search, best first, and the importance of each setting.

    `importances` are the shares of the variance of the values that the settings explain (fANOVA, Hutter et al., ICML
    2014). They sum to 1, and are empty if too few trials are complete.
    """

    name: str
    direction: str
    trials: tuple[dict[str, Any], ...]
    importances: dict[str, float]
    total: int | None = None
    """number of trials that the search will have, if it was recorded"""


def read(folder: Path) -> Found:
    """Return the trials of the study in a sweep's folder. Raises ConfigError if there is none."""
    if not any((folder / name).is_file() for name in (FILE, JOURNAL)):
        raise ConfigError(
            f"{folder} has no {FILE}; run the search first, or give the folder that contains {folder.name} with "
            "--outputs."
        )
    study = _opened(folder)
    direction = study.directions[0].name.lower()
    sign = 1 if direction == "minimize" else -1
    trials = [
        {
            **dict(zip(HEAD, (t.number, t.state.name.lower(), t.values[0] if t.values else None), strict=True)),
            **t.params,
        }
        for t in study.get_trials(deepcopy=False)
    ]
    ordered = sorted(trials, key=lambda t: (t["value"] is None, sign * (t["value"] or 0.0), t["trial"]))
    return Found(study.study_name, direction, tuple(ordered), _importances(study), study.user_attrs.get(TOTAL))


class Progress:
    """A study that may still be running, as plain values.

    Attributes:
        name, direction: name of the study, and direction of its first objective.
        total: number of cells or trials that the sweep will have; None if it was not recorded.
        space: each searched setting -> {"log": bool} or {"choices": [...]}.
        trials: number, state (done, pruned, failed, running, waiting, interrupted, superseded), value, params, cell,
            error, seconds and steps of each trial.
    """

    def __init__(self, folder: Path) -> None:
        self._study = study = _opened(folder)
        listed = study.get_trials(deepcopy=False)
        watch = Watch(float("inf"))
        replaced = {t.user_attrs["continues"] for t in listed if "continues" in t.user_attrs}
        self.name, self.direction = study.study_name, study.directions[0].name.lower()
        self.total: int | None = study.user_attrs.get(TOTAL)
        distributions = {name: one for t in listed for name, one in t.distributions.items()}
        self.space = {name: _kind(one) for name, one in distributions.items()}
        self.trials = [_plain(t, _state(t, watch, t.number in replaced)) for t in listed]

    def importances(self) -> dict[str, float]:
        """Return the importance of each setting; recomputed only when another trial is complete."""
        done = sum(trial["state"] == "done" for trial in self.trials)
        key = (self.name, str(self._study.user_attrs), done)
        if key not in _KEPT:
            _KEPT[key] = _importances(self._study)
        return _KEPT[key]


_KEPT: dict[tuple[str, str, int], dict[str, float]] = {}


def _opened(folder: Path) -> Any:
    """Return the largest study in a sweep's folder, opened read-only. Raises StorageError if it cannot be read."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    path = folder / FILE if (folder / FILE).is_file() else folder / JOURNAL
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # journals are experimental
            # Read-only, so that a report neither waits for a running search nor disturbs it.
            storage = (
                optuna.storages.RDBStorage(f"sqlite:///file:{path.resolve()}?mode=ro&uri=true")
                if path.name == FILE
                else optuna.storages.JournalStorage(JournalFileBackend(str(path)))
            )
        names = optuna.get_all_study_names(storage)
        studies = [optuna.load_study(study_name=name, storage=storage) for name in names]
        return max(studies, key=lambda one: len(one.trials))
    except Exception as error:
        raise StorageError(
            f"{path} cannot be read as a study ({' '.join(str(error).split())[:120]}); remove it if it is damaged."
        ) from error


def _state(trial: Any, watch: Watch, replaced: bool) -> str:
    name = trial.state.name.lower()
    if name == "fail":
        return "failed" if "error" in trial.user_attrs else "superseded"
    if name == "running" and watch.dead(trial):
        return "superseded" if replaced else "interrupted"
    return {"complete": "done"}.get(name, name)


def _plain(trial: Any, state: str) -> dict[str, Any]:
    begun, over = trial.datetime_start, trial.datetime_complete
    return {
        "number": trial.number, "state": state, "value": trial.values[0] if trial.values else None,
        "params": dict(trial.params), "cell": trial.user_attrs.get("cell"), "error": trial.user_attrs.get("error"),
        "seconds": (over - begun).total_seconds() if begun and over else None, "steps": trial.last_step,
    }  # fmt: skip


def _kind(distribution: Any) -> dict[str, Any]:
    choices = getattr(distribution, "choices", None)
    return {"log": bool(getattr(distribution, "log", False))} if choices is None else {"choices": [*map(str, choices)]}


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
