"""The identity of a study: fixed settings, search space and direction. A search continues only its own study."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from optuna.distributions import distribution_to_json

from molsam.config.identity import Identity, differences, digest_of
from molsam.errors import ConfigError
from molsam.sweeping.study import SharedStudy

ATTRIBUTE = "molsam"
"""User attribute of a study that stores its identity."""
PATHS = "molsam:paths"
"""User attribute of a study that stores where its files were read last, for messages."""


def about(
    fixed: Identity,
    space: Mapping[str, Any],
    directions: tuple[str, ...],
    folds: Any = 1,
    choices: Mapping[str, Mapping[str, Identity]] | None = None,
) -> dict[str, Any]:
    """Return the identity of a search's study, as plain values.

    Args:
        fixed: identity of the settings that all trials share; the searched settings are left out.
        space: the distribution of each searched setting.
        directions: directions of the objectives.
        folds: number of folds over which the objective is averaged.
        choices: for settings whose choices are names or files, the identity of each choice.
    """
    searched = {name.lstrip("+") for name in space}
    meant = {name: {text: _meaning(one, searched) for text, one in of.items()} for name, of in (choices or {}).items()}
    return {
        "folds": folds,
        "choices": meant,
        "settings": {key: value for key, value in fixed.settings.items() if key not in searched},
        "data": dict(fixed.data),
        "split": {key: value for key, value in fixed.split.items() if key not in searched},
        "numerics": fixed.numerics,
        "space": {name: distribution_to_json(distribution) for name, distribution in space.items()},
        "directions": list(directions),
    }


def settle(
    study: SharedStudy,
    name: str,
    wanted: Mapping[str, Any],
    *,
    paths: Mapping[str, str],
    other: str = "sweeps.name=NAME",
    overwrite: bool = False,
) -> bool:
    """Store the identity in a new study, or check that of an existing one.

    Returns whether the study was restarted, so that the folders of its trials are obsolete.
    Raises ConfigError, saying what differs, if the study is of another search.

    Args:
        study: the study.
        name: name of the sweep.
        wanted: identity of the search.
        paths: paths of its data, for the message.
        other: the setting that gives this sweep a study of its own, for the message.
        overwrite: restart the study if it is of another search.
    """
    attributes = study.study.user_attrs
    found, before = attributes.get(ATTRIBUTE), attributes.get(PATHS, {})
    if found == wanted and not study.direction_differs:
        if before != paths:
            study.study.set_user_attr(PATHS, dict(paths))
        return False
    new = found is None and not study.trials()
    if not new and not overwrite:
        what = _unrecorded(study) if found is None else unlike(found, wanted, before, paths)
        raise ConfigError(
            f"The study {name} has other settings, data or choices ({what}); keep both with {other}, or replace the "
            "old study with overwrite=true."
        )
    if not new or study.direction_differs:
        study.restart()
    study.study.set_user_attr(PATHS, dict(paths))
    study.study.set_user_attr(ATTRIBUTE, dict(wanted))
    return not new


def _unrecorded(study: SharedStudy) -> str:
    if any("cell" in trial.user_attrs for trial in study.trials()):
        return "it is of a grid"
    return "its settings were not recorded"


def unlike(
    found: Mapping[str, Any], wanted: Mapping[str, Any], before: Mapping[str, str], paths: Mapping[str, str]
) -> str:
    """Return up to three differences between two studies' identities, with both values.

    Args:
        found, wanted: the identities of the stored study and of this search.
        before, paths: paths of their data.
    """
    said = []
    if found["directions"] != wanted["directions"]:
        said.append(f"the direction was {', '.join(found['directions'])}, is {', '.join(wanted['directions'])}")
    old, new = found["space"], wanted["space"]
    for name in dict.fromkeys([*old, *new]):
        if old.get(name) != new.get(name):
            said.append(f"the space of {name} was {words(old.get(name))}, is {words(new.get(name))}")
    if found.get("folds") != wanted["folds"]:
        said.append(f"split.folds was {found.get('folds', 'not recorded')}, is {wanted['folds']}")
    choices = found.get("choices", {})
    for name, of in wanted["choices"].items():
        for text in (text for text, meaning in of.items() if choices.get(name, {}).get(text, meaning) != meaning):
            said.append(f"the settings or files of {name}={text} have changed")
    said += differences(_identity(found, before), _identity(wanted, paths))
    if not said:
        said.append("the settings and files of its choices were not recorded")
    return "; ".join(said[:3]) + (f"; and {len(said) - 3} more" if len(said) > 3 else "")


def _meaning(one: Identity, searched: set[str]) -> list[Any]:
    """Return the settings (as a hash) and files of a choice."""
    return [digest_of({key: value for key, value in one.settings.items() if key not in searched}), dict(one.data)]


def words(distribution: str | None) -> str:
    """Return a distribution in words."""
    if distribution is None:
        return "not searched"
    node = json.loads(distribution)
    attributes = node["attributes"]
    if "choices" in attributes:
        return "one of " + ", ".join(map(str, attributes["choices"]))
    scale = " (log)" if attributes.get("log") else ""
    step = f" in steps of {attributes['step']}" if attributes.get("step") not in (None, 1) else ""
    return f"{attributes['low']} to {attributes['high']}{step}{scale}"


def _identity(plain: Mapping[str, Any], paths: Mapping[str, str]) -> Identity:
    return Identity(plain["settings"], plain["data"], plain["split"], plain["numerics"], paths)
