"""Where a dataset's file is: a folder of the user's, the package, the cache, or the public MoleculeNet server."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from molsam.data.download import download, record_of, recorded
from molsam.data.table import Table, parse_table, read_table
from molsam.errors import ConfigError, DataError, StorageError

log = logging.getLogger(__name__)
EMBEDDED = Path(__file__).parent / "embedded"
Layout = Mapping[str, Any]
"""files, smiles, targets; first_of_repeated; sha256 of the copy whose numbers are known"""


def locate(settings: Mapping[str, Any], cache: Path) -> tuple[Table, Layout]:
    """The file of a dataset and which of its layouts it has.

    Looked for as `path` (a user's own file), in the folder `root`, in the package, in the cache; then downloaded.
    Raises DataError that says where to put the file.
    """
    if "layouts" not in settings:
        return _own_file(settings)
    found = find(settings, cache)
    if found is not None:
        table = read_table(found)
        return table, fitting(table, settings["layouts"])
    target = fetch(settings, cache)
    table = read_table(target)
    return table, fitting(table, settings["layouts"])


def find(settings: Mapping[str, Any], cache: Path) -> Path | None:
    """The dataset's file if it is on this machine."""
    if settings.get("path"):
        return Path(settings["path"]).expanduser()
    if settings.get("root"):
        root = Path(settings["root"]).expanduser()
        if not os.path.isdir(root):
            raise DataError(f"dataset.root={settings['root']} is not a folder; name the one that holds the file.")
        for name in _names(settings):
            if os.path.isfile(root / name):
                return root / name
    if settings.get("embedded"):
        return EMBEDDED / Path(settings["embedded"]).name
    for name in _names(settings):
        if os.path.isfile(_downloads(cache) / name) and _intact(_downloads(cache) / name):
            return _downloads(cache) / name
    return None


def fetch(settings: Mapping[str, Any], cache: Path) -> Path:
    """Download the dataset's file into the cache. Raises DataError or StorageError that say where to put it instead."""
    folder = _downloads(cache)
    advice = f"put {' or '.join(_names(settings))} into a folder and name it with dataset.root=FOLDER, or into {folder}"
    url = settings.get("url")
    if not url:
        raise DataError(f"The file of {settings['display']} is not on this machine; {advice}.")
    target = folder / Path(urlsplit(url).path).name
    try:
        download(url, target, settings.get("sha256"), lambda c: fitting(parse_table(target, c), settings["layouts"]))
    except (DataError, StorageError) as error:
        raise type(error)(f"{settings['display']} is not on this machine. {error} Or {advice}.") from error
    return target


def fitting(table: Table, layouts: Sequence[Layout]) -> Layout:
    """The layout whose columns the file has: files of one name occur in several layouts, so the header decides.

    Where a layout says so, the first of several columns of one name is taken (QM8 has its PBE0 columns twice).
    """
    for layout in layouts:
        needed = [layout["smiles"], *layout["targets"]]
        counts = [table.columns.count(name) for name in needed]
        if min(counts) and (max(counts) == 1 or layout.get("first_of_repeated")):
            return layout
    known = "; or ".join(", ".join([layout["smiles"], *layout["targets"]][:6]) for layout in layouts)
    raise DataError(f"{table.path} does not have the columns of this dataset ({known}); put the right file there.")


def _own_file(settings: Mapping[str, Any]) -> tuple[Table, Layout]:
    path, smiles, targets = settings.get("path"), settings.get("smiles"), settings.get("targets")
    if not path or path == "???":
        raise ConfigError("dataset.path is not set; give the CSV file with dataset.path=FILE.")
    table = read_table(Path(path).expanduser())
    if not isinstance(smiles, str):
        raise ConfigError(f"dataset.smiles={smiles} is not a column name; give the SMILES column.")
    table.place(smiles)
    if isinstance(targets, str):
        targets = [targets]
    if targets is not None and not isinstance(targets, (list, tuple)):
        raise ConfigError(f"dataset.targets={targets} must be a list of label columns, as in dataset.targets=[pIC50].")
    names = [str(name) for name in targets] if targets else [name for name in table.columns if name != smiles]
    if not names:
        raise DataError(f"{path} has no column beside {smiles!r}; add a label column.")
    twice = sorted({name for name in names if names.count(name) > 1 or name == smiles})
    if twice:
        raise DataError(f"{path}: column {twice[0]!r} is used twice; rename or leave out all but one of them.")
    for name in names:
        table.place(name)
    return table, {"smiles": smiles, "targets": names}


def _names(settings: Mapping[str, Any]) -> list[str]:
    names = dict.fromkeys(str(name) for layout in settings["layouts"] for name in layout["files"])
    for name in names:
        if Path(name).name != name:
            raise ConfigError(f"dataset.layouts: {name!r} is not a bare file name.")
    return list(names)


def _downloads(cache: Path) -> Path:
    return cache / "downloads"


def _intact(path: Path) -> bool:
    """Whether a downloaded file is what was downloaded; files a user put there have no record and count as such."""
    expected = recorded(path)
    if expected is None:
        return True
    try:
        intact = hashlib.sha256(path.read_bytes()).hexdigest() == expected
    except OSError:
        intact = False
    if not intact:
        log.warning("%s is not what was downloaded (%s); it is fetched anew.", path, record_of(path).name)
    return intact
