"""What a study is about: all that is fixed, the space, the direction. A search goes on only in its own study."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from optuna.distributions import distribution_to_json

from molsam.config.identity import Identity, differences, digest_of
from molsam.errors import ConfigError
from molsam.sweeping.study import SharedStudy

ATTRIBUTE = "molsam"
"""User attribute of a study that holds its `about`."""


def about(
    fixed: Identity,
    space: Mapping[str, Any],
    directions: tuple[str, ...],
    folds: Any = 1,
    choices: Mapping[str, Mapping[str, Identity]] | None = None,
) -> dict[str, Any]:
    """What a search is about, as plain values.

    Args:
        fixed: identity of the settings that all trials share; what is searched is left out of it.
        space: the distribution of each setting that is searched.
        directions: of the objectives.
        folds: how many folds the objective is the mean of.
        choices: of the settings that are searched by names or files: what each choice stands for.
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
    named: bool = True,
    overwrite: bool = False,
) -> bool:
    """Make a new study be about `wanted`, or see that an older one is; return whether it was begun anew, so that what its
    trials left is of no use. Raises ConfigError that says what differs.

    Args:
        study: the study.
        name: of the sweep.
        wanted: what the search is about.
        paths: where its data lie, for the sentence.
        named: whether a sweep file names it.
        overwrite: begin the study anew if it is about something else.
    """
    found = study.study.user_attrs.get(ATTRIBUTE)
    if found == wanted and not study.turned:
        return False
    if found is None and not study.trials():
        if study.turned:
            study.anew()
        study.study.set_user_attr(ATTRIBUTE, dict(wanted))
        return False
    what = "nothing is recorded of what its trials were made with" if found is None else unlike(found, wanted, paths)
    if not overwrite:
        raise ConfigError(
            f"The study {name} is about other settings, data or choices ({what}); keep both by giving this one another "
            f"name ({'sweeps.name=NAME' if named else '++sweeps.name=NAME'}), or begin it anew with overwrite=true."
        )
    study.anew()
    study.study.set_user_attr(ATTRIBUTE, dict(wanted))
    return True


def unlike(found: Mapping[str, Any], wanted: Mapping[str, Any], paths: Mapping[str, str]) -> str:
    """Up to three things in which two studies differ, with both values."""
    said = []
    if found["directions"] != wanted["directions"]:
        said.append(f"the direction was {', '.join(found['directions'])}, is {', '.join(wanted['directions'])}")
    old, new = found["space"], wanted["space"]
    for name in dict.fromkeys([*old, *new]):
        if old.get(name) != new.get(name):
            said.append(f"the space of {name} was {words(old.get(name))}, is {words(new.get(name))}")
    if found.get("folds") != wanted["folds"]:
        said.append(f"split.folds was {found.get('folds', 'not recorded')}, is {wanted['folds']}")
    before = found.get("choices", {})
    for name, of in wanted["choices"].items():
        for text in (text for text, meaning in of.items() if before.get(name, {}).get(text, meaning) != meaning):
            said.append(f"what {name}={text} stands for has changed")
    said += differences(_identity(found, {}), _identity(wanted, paths))
    if not said:
        said.append("what its choices stand for was not recorded")
    return "; ".join(said[:3]) + (f"; and {len(said) - 3} more" if len(said) > 3 else "")


def _meaning(one: Identity, searched: set[str]) -> list[Any]:
    """What a choice stands for: settings (as a hash) and files."""
    return [digest_of({key: value for key, value in one.settings.items() if key not in searched}), dict(one.data)]


def words(distribution: str | None) -> str:
    """A distribution in words."""
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
