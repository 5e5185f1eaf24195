"""Search for a dataset's file: in a user's folder, the package, the cache, or on the public MoleculeNet server."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from molsam.data.columns import named, smiles_column, target_columns
from molsam.data.download import download, record_of, recorded
from molsam.data.table import Table, joined, parse_table, read_table
from molsam.data.unpack import DGL, read_bytes
from molsam.errors import ConfigError, DataError, StorageError

log = logging.getLogger(__name__)
EMBEDDED = Path(__file__).parent / "embedded"
Layout = Mapping[str, Any]
"""Keys: files, smiles, targets; optionally first_of_repeated, and sha256 of the copy that is documented."""


class Source(NamedTuple):
    """A dataset's table, and the use of its columns."""

    table: Table
    smiles: str
    targets: list[str]
    verified: bool
    """whether the file equals, byte for byte, the copy that is documented"""
    parts: list[int] | None
    """each row's file: 0 dataset.path, 1 valid_path, 2 test_path; None if there is one file"""


def locate(settings: Mapping[str, Any], cache: Path, others: Sequence[Any] = ()) -> Source:
    """Return the table of a dataset, with the use of its columns.

    The file is dataset.path (a user's own file), or is searched for in the folder dataset.root, in the package and in
    the cache, or is downloaded.

    Args:
        settings: the dataset section of the configuration.
        cache: the cache folder.
        others: columns of a user's own file that are not labels.

    Raises:
        ConfigError: a setting does not fit the dataset.
        DataError: the file is wrong, or is nowhere; the message says where to put it.
    """
    if not settings.get("layouts"):
        return _own_file(settings, others)
    for name in ("valid_path", "test_path"):
        if settings.get(name):
            raise ConfigError(
                f"dataset.{name} needs a file of your own for training; use dataset=csv dataset.path=FILE."
            )
    table = read_table(find(settings, cache) or fetch(settings, cache), smiles=_smiles_of(settings))
    layout = fitting(table, settings["layouts"])
    verified = hashlib.sha256(table.content).hexdigest() == layout.get("sha256")
    return Source(table, layout["smiles"], list(layout["targets"]), verified, None)


def find(settings: Mapping[str, Any], cache: Path) -> Path | None:
    """Return the dataset's file if it is on this machine, else None."""
    if settings.get("path"):
        return Path(settings["path"]).expanduser()
    if settings.get("root"):
        root = Path(settings["root"]).expanduser()
        if not os.path.isdir(root):
            raise DataError(f"dataset.root={settings['root']} is not a folder; name the folder that contains the file.")
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

    def check(content: bytes) -> None:
        fitting(parse_table(target, content, smiles=_smiles_of(settings)), settings["layouts"])

    try:
        download(url, target, settings.get("sha256"), check)
    except (DataError, StorageError) as error:
        raise type(error)(f"{settings['display']} is not on this machine. {error} Or {advice}.") from error
    return target


def fitting(table: Table, layouts: Sequence[Layout]) -> Layout:
    """Return the layout whose columns the file has.

    Files of the same name occur in several layouts, so the header decides. With `first_of_repeated` a layout uses the
    first of several columns of the same name (QM8 has its PBE0 columns twice).
    """
    for layout in layouts:
        needed = [layout["smiles"], *layout["targets"]]
        counts = [table.columns.count(name) for name in needed]
        if min(counts) and (max(counts) == 1 or layout.get("first_of_repeated")):
            return layout
    known = "; or ".join(", ".join([layout["smiles"], *layout["targets"]][:6]) for layout in layouts)
    raise DataError(
        f"{table.path} does not have the columns of this dataset ({known}); put the "
        "right file there. For a table of your own use dataset=csv."
    )


def own_table(settings: Mapping[str, Any]) -> Table:
    """Return the table of a user's own files. Raises ConfigError or DataError if one is missing or wrong."""
    return joined([table for _, table in _own_tables(settings)])


def own_paths(settings: Mapping[str, Any]) -> list[Path]:
    """Return a user's own files, in the order of their rows."""
    names = ("path", "valid_path", "test_path")
    return [Path(settings[name]).expanduser() for name in names if settings.get(name)]


def _own_tables(settings: Mapping[str, Any]) -> list[tuple[int, Table]]:
    """Return those of the tables dataset.path (0), valid_path (1) and test_path (2) that are given."""
    path, wanted = settings.get("path"), settings.get("smiles") or "smiles"
    if not path or path == "???":
        raise ConfigError("dataset.path is not set; give the file with dataset.path=FILE.")
    if isinstance(wanted, (Mapping, list, tuple)):
        raise ConfigError(f"dataset.smiles={wanted} is not a column name; give the SMILES column.")
    given = [path, settings.get("valid_path"), settings.get("test_path")]
    tables = []
    for part, place in ((part, Path(one).expanduser()) for part, one in enumerate(given) if one):
        content = read_bytes(place)
        if content.startswith(DGL) != (settings.get("reader") == "dgl"):
            is_one, use = ("is no", "csv") if settings.get("reader") == "dgl" else ("is a", "dgl")
            raise DataError(f"{place} {is_one} file of dgl.save_graphs; use dataset={use}.")
        tables.append((part, parse_table(place, content, smiles=str(wanted))))
    return [(part, _renamed(table, wanted, tables[0][1])) for part, table in tables]


def _own_file(settings: Mapping[str, Any], others: Sequence[Any]) -> Source:
    tables = _own_tables(settings)
    table = joined([one for _, one in tables])
    smiles = _smiles_in(table, settings.get("smiles") or "smiles")
    known = [smiles]
    for name, value in [("id", settings.get("id")), ("weights", settings.get("weights"))]:
        if value is not None:
            known.append(named(table, f"dataset.{name}", value))
    known += [str(other) for other in others if other is not None]
    parts = [part for part, one in tables for _ in one.numbers] if len(tables) > 1 else None
    try:
        targets = target_columns(table, settings.get("targets"), known)
    except DataError:
        _refuse_unlike([one for _, one in tables], known)
        raise
    return Source(table, smiles, targets, False, parts)


def _refuse_unlike(tables: Sequence[Table], known: Sequence[str]) -> None:
    """Raise DataError if one of several files lacks columns of the first; `known` are no label columns."""
    for other in tables[1:]:
        lacking = [name for name in tables[0].columns if name and name not in (*known, *other.columns)]
        if lacking:
            raise DataError(
                f"{other.path} lacks {', '.join(map(repr, lacking[:12]))} of {tables[0].path}, and the files must have "
                "the same label columns; name them alike."
            )


def _smiles_in(table: Table, wanted: Any) -> str:
    return smiles_column(table, wanted) if isinstance(wanted, str) else named(table, "dataset.smiles", wanted)


def _renamed(table: Table, wanted: Any, first: Table) -> Table:
    """Return the table with its SMILES column renamed as in the first one; their letter case may differ."""
    if table is first:
        return table
    own, name = _smiles_in(table, wanted), _smiles_in(first, wanted)
    return replace(table, columns=[name if column == own else column for column in table.columns])


def _smiles_of(settings: Mapping[str, Any]) -> str:
    return str(settings["layouts"][0]["smiles"])


def _names(settings: Mapping[str, Any]) -> list[str]:
    names = dict.fromkeys(str(name) for layout in settings["layouts"] for name in layout["files"])
    for name in names:
        if Path(name).name != name:
            raise ConfigError(f"dataset.layouts has the file {name!r}; give a bare file name.")
    return list(names)


def _downloads(cache: Path) -> Path:
    return cache / "downloads"


def _intact(path: Path) -> bool:
    """Return whether a file in the cache has not changed since its download.

    A file that a user put there has no record, and is taken as it is.
    """
    expected = recorded(path)
    if expected is None:
        return True
    try:
        intact = hashlib.sha256(path.read_bytes()).hexdigest() == expected
    except OSError:
        intact = False
    if not intact:
        log.warning("%s has changed since its download (%s); it is downloaded again.", path, record_of(path).name)
    return intact
