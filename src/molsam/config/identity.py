"""Identity of a number: the settings, the data, the split and the mathematics that made it (docs/identity.md).

Code that decides whether a run is finished, can be continued, averaged or compared asks this module.
It reads no files: `molsam.wiring.identify` adds the hashes of what a run would read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from omegaconf import DictConfig

from molsam.config.compose import plain
from molsam.config.secrets import without_secrets

NUMERICS = 1
"""Version of the mathematics of models, optimizers, splits, features and metrics. Raise it when a stored trajectory
moves by more than rounding (tests/test_numerics.py), never for speed: what was computed would count no more."""
REVISED: dict[str, int] = {
    "accuracy": 1, "ESAM": 1, "time": 1, "time merge": 1,
    "files drop": 1, "files merge": 1, "predefined drop": 1, "predefined merge": 1,
}  # fmt: skip
"""Classes, metrics, splits, and splits with a treatment of duplicates whose own mathematics changed -> how often.

Only runs that use them have a higher version. accuracy was in per cent; ESAM with gamma below 1 averaged over molecules
instead of labels; times such as 01.2019 were sorted by month; duplicates moved labels between parts that are given."""

NEUTRAL = (
    "paths", "logger", "resume", "overwrite", "name", "smoke", "dry_run", "sweeps", "hydra", "debug", "experiment",
    "choices", "pictures",
)  # fmt: skip
"""Sections that cannot change a number: places of files, logging, names. A choice counts by the settings it brings."""
COPIED = ("base_optimizer", "rho_schedule")
"""Sections that count only where the optimizer's own section takes them over."""
NEUTRAL_TRAINING = (
    "compile", "deterministic", "threads", "log_every", "checkpoint_minutes", "checkpoint_steps", "eval_batch_size",
    "test_each_epoch",
)  # fmt: skip
NEUTRAL_DATASET = (
    "root", "path", "valid_path", "test_path", "url", "sha256", "embedded", "layouts", "display", "published", "id",
)  # fmt: skip
"""Places and names of the data, and what was published for them. The hashes of the files stand for their content."""
NEUTRAL_CLASS = ("_partial_", "_convert_", "_recursive_", "fused", "foreach")
"""How an object is built, and which of several equal kernels it calls."""
FIRST = 1
"""The numerics version of all results that did not record theirs."""
FOLD = "split.fold"
PLACES = {
    "dataset": "dataset.path",
    "descriptors": "dataset.descriptors",
    "pretrained": "model.pretrained",
    "init_from": "init_from",
}
"""Files in `Identity.data` -> the setting that names each."""
RECORDED = ("training.test_each_epoch", "dataset.id")
"""Neutral settings without which a run records less than another one may want of it."""

ADDED: dict[str, Any] = {
    "split.seed": None, "training.average": None, "training.average_decay": 0.99, "training.average_start": 0.75,
    "training.devices": 1, "training.graphs": False, "training.perturb": "averaged",
}  # fmt: skip
"""Settings that were added later -> the value that means what was done before. At this value a setting is left out,
so that older results keep their identity; null is always left out."""
RENAMED: dict[str, str] = {}
"""Classes that got another name: old -> new. A class that only moved needs no entry."""


@dataclass(frozen=True, eq=False)
class Identity:
    """What a number belongs to.

    Attributes:
        settings: every setting that can change a number, in normal form, by dotted key.
        data: what is read (dataset, columns, descriptors, pretrained) -> its hash, or the columns themselves.
        split: kind, parts, seed and fold.
        numerics: version of the mathematics.
        paths: where each of `data` lies; for messages only.
    """

    settings: Mapping[str, Any]
    data: Mapping[str, str]
    split: Mapping[str, Any]
    numerics: int = NUMERICS
    paths: Mapping[str, str] = field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    @cached_property
    def digest(self) -> str:
        """Hex digest of everything but the paths; equal identities have equal ones."""
        return digest_of([self.settings, self.data, self.split, self.numerics])

    def describe(self) -> str:
        """Return one line for people."""
        data = ", ".join(f"{name} {value}" for name, value in self.data.items()) or "no files"
        split = ", ".join(f"{name} {_shown(value)}" for name, value in self.split.items())
        return (
            f"{self.digest} ({len(self.settings)} settings {digest_of(self.settings)}; data: {data}; split: {split}; "
            f"numerics {self.numerics})"
        )

    @cached_property
    def cell(self) -> str:
        """Hex digest of all but the numerics version too: runs that have equal ones are repeats of each other."""
        return digest_of([self.settings, self.data, self.split])

    def record(self) -> dict[str, Any]:
        """Return what result.json stores of it. The settings are stored there as `config`."""
        return {"digest": self.digest, "data": dict(self.data), "numerics": self.numerics}

    def whole(self) -> dict[str, Any]:
        """Return all of it as plain values, for files that do not store the settings (run.json, checkpoints)."""
        return {**self.record(), "settings": dict(self.settings), "split": dict(self.split)}


def identity(
    config: DictConfig | Mapping[str, Any],
    data: Mapping[str, str],
    fold: int | None = None,
    *,
    numerics: int | None = None,
    paths: Mapping[str, str] | None = None,
) -> Identity:
    """Return the identity of settings on data whose hashes are known.

    Args:
        config: the settings, composed or recorded.
        data: what is read -> its hash.
        fold: instead of split.fold.
        numerics: the version that made a result; null: the one of this code.
        paths: where each of `data` lies.
    """
    values = without_secrets(_values(config))
    settings = normal(values)
    for name in ("dataset.descriptors", "model.pretrained", "init_from"):
        if name.split(".")[-1] in data:
            settings[name] = "file"
    split = split_of(values, fold)
    version = numerics_of(settings, split) if numerics is None else numerics
    return Identity(settings, dict(data), split, version, dict(paths or {}))


def numerics_of(settings: Mapping[str, Any], split: Mapping[str, Any] | None = None) -> int:
    """Return the numerics version of the classes and the metric that settings name, and of a split."""
    used = [value for key, value in settings.items() if key.endswith("_target_") or key == "dataset.metric"]
    kind = (split or {}).get("split.kind")
    used += [kind, f"{kind} {settings.get('dataset.duplicates')}"]
    return NUMERICS + sum(REVISED.get(str(name), 0) for name in used)


def stored(outcome: Mapping[str, Any]) -> Identity:
    """Return the identity of a result, also of one from before identities were recorded.

    Such a result knows its data file by `data.hash` and its columns by its tasks; of other files it read it knows
    nothing, so it is never equal to a run that reads some.
    """
    config, record = outcome["config"], outcome.get("identity")
    paths = paths_of(config)
    if record is not None:
        return identity(config, record["data"], outcome["fold"], numerics=record["numerics"], paths=paths)
    return identity(config, _data_before(outcome), outcome["fold"], numerics=FIRST, paths=paths)


def paths_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Return where settings say that the files lie, by their names in `Identity.data`."""
    return {name: str(place) for name, key in PLACES.items() if (place := _value(config, key))}


def restored(whole: Any) -> Identity | None:
    """Return the identity that `Identity.whole` stored, None if the value is not one."""
    try:
        settings = {
            key: _class(value) if key.endswith("_target_") else value for key, value in whole["settings"].items()
        }
        return Identity(_as_before(settings), dict(whole["data"]), _as_before(whole["split"]), int(whole["numerics"]))
    except (LookupError, TypeError, ValueError, AttributeError):
        return None


def is_record_of(record: Mapping[str, Any], digest: str) -> bool:
    """Return whether `Identity.record` of an identity of this digest is what was stored."""
    return bool(digest == record["digest"])


def is_recorded(outcome: Mapping[str, Any]) -> bool:
    """Return whether a result recorded its identity, and not `stored` pieced it together."""
    return outcome.get("identity") is not None


def normal(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain settings in normal form: a flat dict of those that can change a number, without the split's."""
    return normal_sections(config, *(key for key in config if key not in (*NEUTRAL, *COPIED, "split")))


def normal_sections(config: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return these sections of plain settings as `normal` returns them.

    Classes have their bare names, whole numbers are written as such, what is null or as it was before a setting was
    added is left out.
    """
    kept = {name: config.get(name) for name in names}
    kept["training"] = _without(kept.get("training"), NEUTRAL_TRAINING)
    kept["dataset"] = _without(kept.get("dataset"), NEUTRAL_DATASET)
    return _as_before(dict(sorted(_flat(kept))))


def split_of(config: Mapping[str, Any], fold: int | None = None) -> dict[str, Any]:
    """Return what the split depends on besides the data: its settings in normal form, seed and fold."""
    section = dict(config.get("split") or {})
    chosen = section.pop("fold", None) if fold is None else fold
    section.pop("fold", None)
    if chosen is None and section.get("folds") == 1:
        chosen = 0  # the only one
    if section.get("kind") != "kfold":
        section.pop("folds", None)
    section["seed"] = section.get("seed") if section.get("seed") is not None else config.get("seed", 0)
    flat = dict(sorted(_flat({"split": section})))
    return {**_as_before(flat), FOLD: "all" if chosen is None else chosen}


def differences(old: Identity, new: Identity) -> list[str]:
    """Return what differs, one phrase each: setting, old and new value; or file and its two hashes."""
    found: list[str] = []
    for before, after in ((old.settings, new.settings), (old.split, new.split)):
        for key in sorted({*before, *after}):
            if key == "split.seed" and any(phrase.startswith("seed was") for phrase in found):
                continue  # it follows the seed
            if digest_of(before.get(key)) != digest_of(after.get(key)):
                was, now = (_shown(one.get(key, ADDED.get(key))) for one in (before, after))
                found.append(f"{key} was {was}, is {now}")
    for key in sorted({*old.data, *new.data}):
        a, b = old.data.get(key), new.data.get(key)
        if a != b:
            found.append(_file_difference(key, old, new))
    if old.numerics != new.numerics:
        found.append(f"molsam's numerics version was {old.numerics}, is {new.numerics}")
    return found


def _file_difference(key: str, old: Identity, new: Identity) -> str:
    """Return a phrase with the two hashes of a file, and with both names if another file is given now."""
    a, b = old.data.get(key, "not recorded"), new.data.get(key, "not read")
    if key.endswith(".columns"):
        return f"the columns of {key.removesuffix('.columns')} were {a}, are {b}"
    before, now = old.paths.get(key), new.paths.get(key)
    if before and now and os.path.abspath(before) != os.path.abspath(now):
        return f"{before} ({a}) was read, {now} ({b}) is given"
    if now and not before and a != "not recorded":
        return f"the file of {key} was {a}, is {b} ({now})"
    return f"{now or before or f'the file of {key}'} was {a}, is {b}"


def mismatch(place: object, old: Identity, new: Identity, *, other: str = "name=NAME") -> str:
    """Return one sentence for a ConfigError: what `place` holds is not what is asked for, and what to do about it.

    `other`: the setting that gives this run a place of its own.
    """
    found = differences(old, new)
    shown = "; ".join(found[:3]) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")
    return (
        f"{place} holds a run of other settings or data ({shown}); keep both with {other}, or start anew there "
        "with overwrite=true."
    )


def group(one: Identity) -> str:
    """Hex digest of all but seed and fold: runs that have equal ones belong to the same mean."""
    settings = {key: value for key, value in one.settings.items() if key != "seed"}
    return digest_of([settings, one.data, _beside_draw(one), one.numerics])


def cohort(one: Identity) -> str:
    """Hex digest of what must be equal for a comparison of optimizers: all but seed, fold, and the optimizer itself.

    What it perturbs with may differ; the base optimizer that takes the step may not.
    """
    apart = ("optimizer.", "diagnostics.", "callbacks.")
    kept = {
        key: value
        for key, value in one.settings.items()
        if key != "seed" and (not key.startswith(apart) or key.startswith("optimizer.base."))
    }
    return digest_of([kept, one.data, _beside_draw(one), one.numerics])


def benchmark(one: Identity) -> dict[str, Any]:
    """Return what scores of any model depend on: the data and its settings, the kind of split, and the epochs.

    Scores are comparable only if this and the metric are equal.
    """
    kept = {key: value for key, value in one.settings.items() if key.startswith("dataset.") or key == "training.epochs"}
    return {**kept, **{f"{name} hash": value for name, value in one.data.items()}, **_beside_draw(one)}


def lacks(config: Mapping[str, Any], wanted: DictConfig | Mapping[str, Any]) -> list[str]:
    """Return the settings of RECORDED that `wanted` turns on and `config` did not, whose record its run lacks."""
    asked = _values(wanted)
    return [name for name in RECORDED if (value := _value(asked, name)) and _value(config, name) != value]


def digest_of(value: Any) -> str:
    """Return a hex digest of plain values, 16 digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_as_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _values(config: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """Return the sections that can change a number, as plain values with interpolations resolved."""
    kept = [str(key) for key in config if key not in NEUTRAL]
    if not isinstance(config, DictConfig):
        return {key: config[key] for key in kept}
    # Section by section: what is left out may be large, or need Hydra to be resolved.
    return {key: plain(config[key]) if isinstance(config[key], DictConfig) else config[key] for key in kept}


def _data_before(outcome: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    if (outcome["config"].get("dataset") or {}).get("reader"):
        return found  # its hash was of pixels, not of files
    if digest := (outcome.get("data") or {}).get("hash"):
        found["dataset"] = str(digest)
    tasks = list(outcome.get("test_per_task") or {})
    for layout in (outcome["config"].get("dataset") or {}).get("layouts") or []:
        if list(layout["targets"]) == tasks:
            found["dataset.columns"] = columns(layout)
    return found


def _beside_draw(one: Identity) -> dict[str, Any]:
    return {key: value for key, value in one.split.items() if key not in (FOLD, "split.seed")}


def columns(layout: Mapping[str, Any]) -> str:
    """Return how a layout reads a file, as `Identity.data` has it."""
    return f"{layout['smiles']} -> {', '.join(map(str, layout['targets']))}"


def _as_before(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings without those that were added later and change nothing."""
    return {key: value for key, value in flat.items() if not (key in ADDED and value == _plain(ADDED[key]))}


def _without(section: Any, names: tuple[str, ...]) -> Any:
    kept = isinstance(section, Mapping)
    return {key: value for key, value in section.items() if key not in names} if kept else section


def _flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, normal value) of everything that is not null."""
    if isinstance(node, Mapping):
        built = "_target_" in node
        for key, value in node.items():
            if not (built and key in NEUTRAL_CLASS):
                yield from _flat(value, f"{prefix}{key}.")
    elif node is not None:
        key = prefix.rstrip(".")
        kind = str(node).split(":")[0] if key == "training.device" else node
        yield key, _class(node) if key.endswith("_target_") else _plain(kind)


def _class(target: Any) -> str:
    name = str(target).rsplit(".", 1)[-1]
    return RENAMED.get(name, name)


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return dict(_flat(value))
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, str | int | float) or value is None else str(value)


def _as_plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else str(value)


def _value(config: Mapping[str, Any], name: str) -> Any:
    node: Any = config
    for part in name.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def _shown(value: Any) -> str:
    return "not set" if value is None else str(value)[:80]
