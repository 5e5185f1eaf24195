"""Groups of runs that differ only in seed and fold; their benchmarks and names."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from molsam.config.identity import NEUTRAL, NEUTRAL_DATASET, NEUTRAL_TRAINING, benchmark, digest_of, group
from molsam.report.names import label
from molsam.report.stored import StoredRun

SHOWN = 3
"""Number of settings in the short name of a group."""
FIRST = ("optimizer", "lr_schedule", "training", "model")
"""Order of the sections of settings in a name."""
EPOCHS = "training.epochs"
"""A setting that baselines do not have; they are compared with runs of any number of epochs."""
UNTOLD = {"training.": NEUTRAL_TRAINING, "dataset.": NEUTRAL_DATASET}
"""Settings that names leave out, because they cannot change a number."""
COLUMNS = "dataset.columns hash"
"""Hash of the columns that are read; names leave it out, because the file determines it."""
COPIES = {"base": "base_optimizer", "rho_schedule": "rho_schedule"}
"""Settings of the optimizer that conf/optimizer/*.yaml take from another group."""


@dataclass(frozen=True)
class Benchmark:
    """What groups are scored on. Scores of groups with equal benchmarks are comparable.

    Attributes:
        key: equal for equal data, metric, kind of split, limit and epochs.
        name: `ESOL`, or `ESOL (limit 64)` if another benchmark has that name.
        facts: epochs, split and limit in words.
    """

    key: str
    name: str
    metric: str
    direction: str
    facts: str

    def plain(self) -> dict[str, str]:
        """Return its data for the page."""
        return {**vars(self), "metric_name": label(self.metric)}


@dataclass(frozen=True)
class Name:
    """Name of a group: the settings in which it differs from similar groups, shortened and in full."""

    short: str
    full: str


def group_key(run: StoredRun) -> str:
    """Return a key that is equal for runs of the same group, which differ only in seed and fold."""
    return digest_of([run.model, run.optimizer, run.dataset, run.result["metric"], group(run.identity)])


def benchmarks(members: Mapping[str, StoredRun]) -> dict[str, Benchmark]:
    """Return the benchmark of each group. `members`: one run of each group, by key.

    A user's own file is called by its file name. If several benchmarks have the same name and metric, the most frequent
    one keeps the plain name. The others add in brackets what differs: rows, epochs, split or bytes.
    """
    kinds = {key: {"metric": run.result["metric"], **benchmark(run.identity)} for key, run in members.items()}
    families: dict[str, list[str]] = {}
    for key, run in members.items():
        families.setdefault(f"{_called(run)} {run.result['metric']}", []).append(key)
    found = {}
    for keys in families.values():
        names = sorted({part for key in keys for part in kinds[key]})
        trained = [key for key in keys if EPOCHS in kinds[key]] or keys
        usual = Counter(json.dumps(kinds[key], sort_keys=True, default=str) for key in trained).most_common(1)[0][0]
        common = json.loads(usual)
        for key in keys:
            run, kind = members[key], kinds[key]
            if EPOCHS not in kind and EPOCHS in common:
                kind = {**kind, EPOCHS: common[EPOCHS]}  # a baseline is comparable with runs of any number of epochs
            unlike = [part for part in names if str(kind.get(part)) != str(common.get(part)) and part != COLUMNS]
            parts = ", ".join(dict.fromkeys(_say(part, _text(kind.get(part))) for part in unlike))
            name = _called(run) + (f" ({parts})" if parts else "")
            facts = _facts(run, kind.get(EPOCHS))
            if any(part.endswith(" hash") or "data" in part for part in unlike):
                same = [other for other in keys if kinds[other] == kinds[key]]
                made = [str(members[other].result.get("finished") or "")[:10] for other in same]
                facts += f", data first used {min(filter(None, made))}" if any(made) else ""
            digest = digest_of([name, kind])
            found[key] = Benchmark(digest, name, run.result["metric"], run.result["direction"], facts)
    return found


def _called(run: StoredRun) -> str:
    path = run.setting("dataset.path")
    return Path(str(path)).name if path else label(run.dataset)


def _facts(run: StoredRun, epochs: int | None) -> str:
    limit = run.setting("dataset.limit")
    sizes = (run.result.get("split") or {}).get("sizes")
    parts = [f"{epochs} epoch{'' if epochs == 1 else 's'}" if epochs else None, f"{run.setting('split.kind')} split"]
    parts.append(f"{sum(sizes):,} molecules" if sizes else None)
    parts.append(f"the first {limit} rows alone" if limit else None)
    return ", ".join(part for part in parts if part)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def describe(members: Mapping[str, StoredRun], scored_on: Mapping[str, Benchmark]) -> dict[str, Name]:
    """Return the name of each group; empty if no other group has its model, optimizer and benchmark.

    Such groups are named by their settings. A setting is named if it differs from that of the majority of them, and for
    all of them if there is no majority. Trials of a search are all named by every searched setting, other groups by
    the first SHOWN.
    """
    families: dict[tuple[str, str, str], list[str]] = {}
    for key, run in members.items():
        families.setdefault((run.model, run.optimizer, scored_on[key].key), []).append(key)
    found: dict[str, Name] = {}
    for keys in families.values():
        settings = [_settings(members[key]) for key in keys]
        told = sorted({name for own in settings for name in own}, key=_order)
        majority = {name: _majority([own.get(name) for own in settings]) for name in told}
        whole = any(members[key].setting("sweeps.report.search") for key in keys)
        unlike = _told_apart([_unlike(own, told, majority) for own in settings], settings)
        if whole:
            unlike = [[name for name in told if any(name in names for names in unlike)]] * len(keys)
        parts = [
            [_say(_short(name, told), own.get(name)) for name in names]
            for names, own in zip(unlike, settings, strict=True)
        ]
        found |= dict(zip(keys, _named(parts, max(map(len, parts)) if whole else SHOWN), strict=True))
    return found


def _majority(values: list[str | None]) -> tuple[str | None, ...]:
    """Return the value of more than half, in a tuple; an empty tuple if there is none."""
    value, count = Counter(values).most_common(1)[0]
    return (value,) if 2 * count > len(values) else ()


def _unlike(own: Mapping[str, str], told: list[str], majority: Mapping[str, tuple[str | None, ...]]) -> list[str]:
    """Return the settings to name. For an object that others lack, or have of another class, its class is enough."""
    unlike = [name for name in told if own.get(name) not in majority[name]]
    classes = [name.removesuffix("_target_") for name in unlike if name.endswith("_target_")]
    return [
        name
        for name in unlike
        if not any(
            name.startswith(prefix) and name != f"{prefix}_target_" and (majority[name] or own.get(name) is None)
            for prefix in classes
        )
    ]


def _told_apart(unlike: list[list[str]], settings: list[dict[str, str]]) -> list[list[str]]:
    """Return the settings to name, with the class of an object where a group is like another one but for that.

    Of `rho 0.05` beside `rho 0.05, rho schedule staircase` the first becomes `rho 0.05, rho schedule constant`.
    """
    told = []
    for names, own in zip(unlike, settings, strict=True):
        same = [
            other
            for other, theirs in zip(unlike, settings, strict=True)
            if names and set(names) < set(other) and all(own.get(name) == theirs.get(name) for name in names)
        ]
        more = {name for other in same for name in other if name.endswith("_target_") and name not in names}
        told.append([*names, *sorted(more & own.keys(), key=_order)])
    return told


def _named(parts: list[list[str]], most: int) -> list[Name]:
    """Return names, shortened if they remain distinct, and numbered if even the full names are equal."""
    full = [", ".join(own) for own in parts]
    short = [", ".join(own[:most]) + (f", +{len(own) - most}" if len(own) > most else "") for own in parts]
    twice = Counter(short)
    short = [whole if twice[name] > 1 else name for name, whole in zip(short, full, strict=True)]
    seen: Counter[str] = Counter()
    for place, name in enumerate(short):
        seen[name] += 1
        if seen[name] > 1:
            short[place] = f"{name} #{seen[name]}".strip()
    return [Name(*both) for both in zip(short, full, strict=True)]


def _order(name: str) -> tuple[int, str]:
    section = name.split(".")[0]
    return (FIRST.index(section) if section in FIRST else len(FIRST)), name


def _say(name: str, value: str | None) -> str:
    """Return a setting in words: `beta 0.986`, `no patience`, `fused`."""
    if name.endswith(" hash"):
        what = "data" if name.startswith("dataset") else name.removesuffix(" hash")
        return f"{what} not recorded" if value is None else f"{what} {value[:6]}"
    words = name.split(".")[-1].replace("_", " ")
    if value in (None, "None", "False"):
        return f"no {words}"
    if value == "True":
        return words
    return f"{words} {_rounded(value)}"


def _rounded(value: str) -> str:
    """Return a number with three digits, or the bare name of a class."""
    try:
        number = float(value)
    except ValueError:
        return value.rsplit(".", 1)[-1] if value.startswith(("molsam.", "torch.")) else value
    return f"{number:.3g}" if not number.is_integer() or abs(number) >= 1e6 else f"{number:.0f}"


def _settings(run: StoredRun) -> dict[str, str]:
    """Return the settings of model, optimizer and training in a run's identity, as text."""
    apart = ("seed", "split", "dataset", "diagnostics", "callbacks")
    kept = {key: value for key, value in run.identity.settings.items() if key.split(".")[0] not in apart}
    told = {
        key: _choice(run, key, str(value)) if key.endswith("_target_") else str(value) for key, value in kept.items()
    }
    return {**told, "numerics": str(run.identity.numerics)}


def _choice(run: StoredRun, key: str, name: str) -> str:
    """Return a class of molsam as one types it: the choice of its group, `staircase` for Staircase."""
    if not name.isidentifier():
        return name
    chosen = str(run.setting(f"choices.{key.split('.')[-2]}"))
    return chosen if chosen.replace("_", "") == name.lower() else re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _short(name: str, names: list[str]) -> str:
    """Return the last part of a dotted key, or two if one is ambiguous; for a class its section."""
    parts = name.split(".")
    if parts[-1] == "_target_":
        return " ".join(parts[1:-1] or parts[:1])
    alone = [other.split(".")[-1] for other in names].count(parts[-1]) == 1
    return parts[-1] if alone else " ".join(parts[-2:])


def flatten(config: Mapping[str, Any], prefix: str = "", *, neutral: bool = False) -> dict[str, str]:
    """Return settings as dotted keys and values as text, without those on where files go and the optimizer's copies.

    `neutral`: leave out also the settings of UNTOLD.
    """
    found: dict[str, str] = {}
    for key, value in config.items():
        if (not prefix and key in NEUTRAL) or (neutral and key in UNTOLD.get(prefix, ())):
            continue
        if not prefix and key == "optimizer" and isinstance(value, dict):
            value = {name: v for name, v in value.items() if name not in COPIES or v != config.get(COPIES[name])}
        if isinstance(value, dict):
            found |= flatten(value, f"{prefix}{key}.", neutral=neutral)
        else:
            found[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value, default=str)
    return found
