"""The end of a sweep and of its trials: what is printed, and the exit code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from molsam.config.command import program, shell
from molsam.errors import MolsamError
from molsam.sweeping.console import Ended
from molsam.sweeping.context import Sweep

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


class SweepIncomplete(MolsamError):  # noqa: N818 - not an error of the sweep itself
    """Some cells failed."""

    exit_code = 1


def ended(trial: FrozenTrial, name: str) -> Ended | None:
    """Return the outcome of a trial that has ended; None if another trial replaced it."""
    from optuna.trial import TrialState

    if trial.state == TrialState.COMPLETE:
        how = " ".join(f"{value:.4g}" for value in trial.values or ())
    elif trial.state == TrialState.PRUNED:
        last = trial.last_step
        how = "pruned" if last is None else f"pruned after step {last} at {trial.intermediate_values[last]:.4g}"
    elif "error" in trial.user_attrs:
        how = f"failed: {trial.user_attrs['error']}"
    else:
        return None
    begun, over = trial.datetime_start, trial.datetime_complete
    seconds = (over - begun).total_seconds() if begun and over else None
    return Ended(name, how, seconds, tuple(trial.user_attrs.get("warnings", ())))


def matching(sweep: Sweep, what: str) -> str:
    """Return a line that says what overwrite=true leaves: equal settings' results. So an interrupted sweep goes on."""
    return (
        f"{sweep.name}: overwrite=true replaces results of other settings or data; {what}. "
        f"To start over, remove {shown(sweep.folder)} or use {sweep.elsewhere}"
    )


def next_line(sweep: Sweep, best: str | None = None) -> str:
    """Return a line with the commands to use next; `best` is the run folder of a search's best trial."""
    start, choices = program(), OmegaConf.select(sweep.config, "hydra.runtime.choices") or {}
    words = [] if best is None else [f"{start} predict {shell([best])} molecules.csv"]
    outputs = shown(sweep.outputs)
    if choices.get("sweeps") not in (None, "null"):
        changes = [one for one in sweep.config.hydra.overrides.task if one.startswith("sweeps.")]
        changes += ["--smoke"] if sweep.smoke else []
        changes += [] if outputs == "outputs" else ["--outputs", outputs]
        words.append(f"{start} {shell(['report', '--table', choices['sweeps'], *changes])}")
    elif best is not None:
        more = [] if outputs == "outputs" else ["--outputs", outputs]
        words.append(f"{start} {shell(['report', '--table', sweep.name, *more])}")
    words.append(f"{start} dashboard {shell([shown(sweep.folder)])}")
    return f"next: {'; '.join(words)}"


def shown(folder: Path) -> str:
    """Return a folder relative to the current one, if it is within it."""
    here = Path.cwd()
    return os.path.relpath(folder, here) if folder.is_relative_to(here) else str(folder)
