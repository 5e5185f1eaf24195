"""The identity of a run before it starts: its settings, and hashes of the files that it would read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from molsam.chem.descriptors import NAMES
from molsam.config.compose import plain
from molsam.config.identity import Identity, columns, differences, identity
from molsam.data import sources
from molsam.data.table import read_table
from molsam.errors import ConfigError, DataError, StorageError
from molsam.files import cache_folder
from molsam.images import cifar
from molsam.wiring import inputs

ABSENT = "not on this machine"
"""Hash of a file that would have to be downloaded: equal to that of no file."""
CHUNK = 1 << 22


class Files:
    """Hashes of files, each read once for as long as this object is kept.

    Keep one for the cells of a plan, never longer: a file may be replaced at any time, and its time of change, which
    tells a second look at it from a needless one, can be set by anybody.
    """

    def __init__(self, *, fetch: bool = False) -> None:
        self.fetch = fetch
        self._digests: dict[tuple[str, int, int, int, int], str] = {}
        self._datasets: dict[str, tuple[dict[str, str], dict[str, str]]] = {}

    def digest(self, path: Path) -> str:
        """SHA-256 of a file's bytes, 16 digits. Raises StorageError if it cannot be read."""
        try:
            with open(path, "rb") as file:
                status = os.fstat(file.fileno())
                key = (str(path), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
                if key not in self._digests:
                    content = hashlib.sha256()
                    while block := file.read(CHUNK):
                        content.update(block)
                    self._digests[key] = content.hexdigest()[:16]
                return self._digests[key]
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise StorageError(f"{path} cannot be read ({reason}); check the path.") from error

    def dataset(self, settings: Mapping[str, Any], cache: Path) -> tuple[dict[str, str], dict[str, str]]:
        """Return what a dataset section would read -> hash, and -> path.

        Raises ConfigError or DataError as reading it does.
        """
        keys = (
            "path",
            "valid_path",
            "test_path",
            "root",
            "embedded",
            "url",
            "sha256",
            "layouts",
            "smiles",
            "targets",
            "reader",
            "classes",
            "display",
        )
        key = json.dumps([{name: settings.get(name) for name in keys}, str(cache)], default=str)
        if key not in self._datasets:
            read: Callable[..., tuple[dict[str, str], dict[str, str]]]
            read = self._images if settings.get("reader") == "cifar" else self._table
            self._datasets[key] = read(settings, cache)
        return self._datasets[key]

    def _table(self, settings: Mapping[str, Any], cache: Path) -> tuple[dict[str, str], dict[str, str]]:
        layouts = settings.get("layouts")
        if not layouts:
            table = sources.own_table(settings)
        else:
            found = sources.find(settings, cache) or (sources.fetch(settings, cache) if self.fetch else None)
            if found is None:
                return {"dataset": ABSENT}, {"dataset": str(settings.get("display"))}
            table = read_table(found)
        data = {"dataset": hashlib.sha256(table.content).hexdigest()[:16]}
        if layouts:
            data["dataset.columns"] = columns(sources.fitting(table, layouts))
        return data, {"dataset": str(table.path)}

    def _images(self, settings: Mapping[str, Any], _: Path) -> tuple[dict[str, str], dict[str, str]]:
        root = settings.get("root")
        if not root:
            return {"dataset": ABSENT}, {"dataset": str(settings.get("display"))}
        found = cifar.files(Path(root).expanduser(), int(settings["classes"]))
        listed = " ".join(f"{path.name} {self.digest(path)}" for path in found)
        return {"dataset": hashlib.sha256(listed.encode()).hexdigest()[:16]}, {"dataset": str(root)}


def of(cfg: DictConfig | Mapping[str, Any], fold: int | None = None, files: Files | None = None) -> Identity:
    """Return the identity of the run of some settings, without featurizing; `fold` replaces split.fold.

    Pass one `Files` for all cells of a plan. A plain mapping, interpolations resolved, takes a tenth of the time.

    Raises:
        ConfigError, DataError, StorageError: a file that the settings name cannot be read, as in training.
    """
    data, paths = hashes(cfg, files or Files())
    return identity(cfg, data, fold, paths=paths)


def refuse_change(cfg: DictConfig, identity: Identity, dataset: str | None) -> None:
    """Raise ConfigError if what was read is not what `identity` says, because a file changed meanwhile.

    `dataset`: hash of the table that was read; None for images, whose files are hashed again.
    """
    files = Files()
    data, paths = (hashes if dataset is None else named)(cfg, files)
    if dataset is not None:
        columns_of = {key: value for key, value in identity.data.items() if key == "dataset.columns"}
        data, paths = {"dataset": dataset, **columns_of, **data}, {**identity.paths, **paths}
    now = replace(identity, data=data, paths=paths)
    if now != identity:
        raise ConfigError(
            f"The data changed while this run went on ({'; '.join(differences(identity, now))}); put back what was "
            "there, or start anew with overwrite=true."
        )


def hashes(cfg: DictConfig | Mapping[str, Any], files: Files) -> tuple[dict[str, str], dict[str, str]]:
    """Return what the run of some settings would read -> hash, and -> path."""
    dataset = _section(cfg, "dataset")
    cache = cache_folder(_section(cfg, "paths").get("cache"))
    data, paths = files.dataset(dataset, cache) if dataset else ({}, {})
    more, there = named(cfg, files)
    return {**data, **more}, {**paths, **there}


def named(cfg: DictConfig | Mapping[str, Any], files: Files) -> tuple[dict[str, str], dict[str, str]]:
    """Return those of the files that other settings than the dataset's place name."""
    data, paths = {}, {}
    settings = {
        "descriptors": _section(cfg, "dataset").get("descriptors"),
        "pretrained": _section(cfg, "model").get("pretrained"),
        "init_from": None if cfg.get("init_from") is None else str(inputs.start_weights(cfg.get("init_from"))),
    }
    for name, value in settings.items():
        if value is not None and value not in NAMES:
            path = Path(str(value)).expanduser()
            if name == "descriptors" and not path.is_file():
                raise DataError(f"dataset.descriptors={value} cannot be read; give {', '.join(NAMES)}, or a file.")
            data[name], paths[name] = files.digest(path), str(path)
    return data, paths


def _section(cfg: DictConfig | Mapping[str, Any], name: str) -> dict[str, Any]:
    node = cfg.get(name)
    if isinstance(node, DictConfig):
        return plain(node)
    return dict(node) if isinstance(node, Mapping) else {}
