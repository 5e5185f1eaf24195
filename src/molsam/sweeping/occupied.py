"""Folders that already hold another study or its trials: a sweep never shares its folder with another search."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from molsam.errors import ConfigError
from molsam.sweeping import storage as storages
from molsam.sweeping.about import ATTRIBUTE
from molsam.sweeping.context import Sweep
from molsam.sweeping.ending import shown
from molsam.sweeping.study import SharedStudy

if TYPE_CHECKING:
    from optuna.study._frozen import FrozenStudy

TRIAL = "trial-"
"""First part of the name of a trial's run folder."""


def free_for_search(sweep: Sweep) -> None:
    """Raise ConfigError if only studies of other names are in a search's folder; with overwrite=true delete them."""
    found = _studies(sweep)
    if all(one.study_name != sweep.study_name for one in found):
        _refuse_or_delete(sweep, found)


def free_for_grid(sweep: Sweep) -> None:
    """Raise ConfigError if a search's study is in a grid's folder; with overwrite=true delete it."""
    _refuse_or_delete(sweep, [one for one in _studies(sweep) if ATTRIBUTE in one.user_attrs])


def clear(sweep: Sweep, study: SharedStudy) -> None:
    """Raise ConfigError if the folder holds runs of trials that the study does not have.

    With overwrite=true they are removed.
    """
    # The folders are listed first, because a search that runs beside this one adds a trial before its folder.
    places = [path for path in sweep.folder.glob(f"{TRIAL}*") if re.fullmatch(rf"{TRIAL}\d+", path.name)]
    known = {trial.number for trial in study.trials()}
    foreign = sorted(path for path in places if int(path.name.removeprefix(TRIAL)) not in known)
    if not foreign:
        return
    if not sweep.overwrite or sweep.dry_run:
        raise ConfigError(
            f"{shown(sweep.folder)} holds {len(foreign)} trials of another search ({foreign[0].name}"
            f"{', ...' if len(foreign) > 1 else ''}); keep them with {sweep.elsewhere}, or remove them with "
            "overwrite=true."
        )
    for path in foreign:
        shutil.rmtree(path)


def _studies(sweep: Sweep) -> list[FrozenStudy]:
    """Return the studies of the sweep's storage, if it is a file in the sweep's folder."""
    path = storages.file_of(sweep.storage)
    if path is None or not path.is_file() or not sweep.stores_in_folder:
        return []
    return storages.connect(sweep.storage).get_all_studies()


def _refuse_or_delete(sweep: Sweep, found: list[FrozenStudy]) -> None:
    if not found:
        return
    if not sweep.overwrite or sweep.dry_run:
        raise ConfigError(
            f"{shown(Path(sweep.folder))} holds another study, {found[0].study_name}; keep both with "
            f"{sweep.elsewhere}, or delete that study with overwrite=true."
        )
    for one in found:
        storages.connect(sweep.storage).delete_study(one._study_id)
