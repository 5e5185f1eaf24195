"""Runs that differ by seed and fold alone, and what tells one such group from another."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from molsam.config.identity import NEUTRAL, NEUTRAL_DATASET, NEUTRAL_TRAINING, benchmark, digest_of, group
from molsam.report.stored import StoredRun

SHOWN = 3
EPOCHS = "training.epochs"
"""What a baseline does not have: it stands beside runs of any number."""
UNTOLD = {"training.": NEUTRAL_TRAINING, "dataset.": NEUTRAL_DATASET}
COPIES = {"base": "base_optimizer", "rho_schedule": "rho_schedule"}
"""Settings of the optimizer that conf/optimizer/*.yaml take from another group."""


def group_key(run: StoredRun) -> str:
    """Equal for runs that belong to one mean: they differ by seed and fold alone."""
    own = [run.setting("rho_schedule"), run.setting("base_optimizer")]
    return digest_of([run.model, run.optimizer, run.dataset, run.result["metric"], own, group(run.identity)])


def datasets(members: dict[str, StoredRun]) -> dict[str, str]:
    """A name of what each group is scored on, equal where scores may stand beside each other.

    `members`: one run of each group, by key. A file of the user's is called as it is. Of several kinds of one name the
    most frequent has it plain; the others say in brackets what differs: rows, metric, epochs, split, bytes.
    """
    kinds = {key: {"metric": run.result["metric"], **benchmark(run.identity)} for key, run in members.items()}
    families: dict[str, list[str]] = {}
    for key, run in members.items():
        families.setdefault(_called(run), []).append(key)
    found = {}
    for name, keys in families.items():
        names = sorted({part for key in keys for part in kinds[key]})
        trained = [key for key in keys if EPOCHS in kinds[key]] or keys
        usual = Counter(json.dumps(kinds[key], sort_keys=True, default=str) for key in trained).most_common(1)[0][0]
        common = json.loads(usual)
        for key in keys:
            unlike = [part for part in names if str(kinds[key].get(part)) != str(common.get(part))]
            unlike = [part for part in unlike if part != EPOCHS or part in kinds[key]]
            parts = [f"{part.split('.')[-1]} {_value(_text(kinds[key].get(part)))}" for part in unlike]
            found[key] = f"{name} ({', '.join(parts)})" if parts else name
    return found


def _called(run: StoredRun) -> str:
    path = run.setting("dataset.path")
    return Path(str(path)).name if path else run.dataset


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def describe(members: dict[str, StoredRun], names: dict[str, str]) -> dict[str, str]:
    """A short label of each group: where its settings are not the usual ones of its model, optimizer and dataset.

    `members`: one run of each group, by key; `names`: what it is scored on. The usual value is the most frequent one;
    a group that is alone, or has the usual value everywhere, has an empty label.
    """
    families: dict[tuple[str, str, str], list[str]] = {}
    for key, run in members.items():
        families.setdefault((run.model, run.optimizer, names[key]), []).append(key)
    labels = {}
    for keys in families.values():
        settings = [_settings(members[key]) for key in keys]
        told = sorted({name for own in settings for name in own})
        usual = {name: Counter(own.get(name) for own in settings).most_common(1)[0][0] for name in told}
        for key, own in zip(keys, settings, strict=True):
            unusual = [name for name in told if own.get(name) != usual[name]]
            parts = [f"{_short(name, told)}={_value(own.get(name))}" for name in unusual]
            labels[key] = ", ".join(parts[:SHOWN]) + (", ..." if len(parts) > SHOWN else "")
    return labels


def _value(value: str | None) -> str:
    return "none" if value is None else value.rsplit(".", 1)[-1] if value.startswith("molsam.") else value


def _settings(run: StoredRun) -> dict[str, str]:
    apart = ("seed", "split", "dataset")
    return flatten({key: value for key, value in run.result["config"].items() if key not in apart}, neutral=True)


def _short(name: str, names: list[str]) -> str:
    """The last part of a dotted key, or two where that is not enough to tell it; the section for a class."""
    parts = name.split(".")
    if parts[-1] == "_target_":
        return ".".join(parts[:-1])
    alone = [other.split(".")[-1] for other in names].count(parts[-1]) == 1
    return parts[-1] if alone else ".".join(parts[-2:])


def flatten(config: dict[str, Any], prefix: str = "", *, neutral: bool = False) -> dict[str, str]:
    """Settings as dotted keys and written values, without those that say where files go and the optimizer's copies.

    `neutral`: also without those of a section that cannot change a number.
    """
    found: dict[str, str] = {}
    for key, value in config.items():
        if (not prefix and key in NEUTRAL) or (neutral and key in UNTOLD.get(prefix, ())):
            continue
        if not prefix and key == "optimizer":
            value = {name: v for name, v in value.items() if name not in COPIES or v != config.get(COPIES[name])}
        if isinstance(value, dict):
            found |= flatten(value, f"{prefix}{key}.", neutral=neutral)
        else:
            found[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value, default=str)
    return found
