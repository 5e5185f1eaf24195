"""Featurized datasets on disk: one memory-mapped safetensors file each, named by a hash of what it was made from."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rdkit
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from molsam.chem.arrays import Featurizer
from molsam.config.identity import digest_of, numerics_of
from molsam.errors import StorageError
from molsam.files import remove_temporaries, write_atomic

log = logging.getLogger(__name__)
PACKING = 5
"""Version of the stored format: PackedMolecules, the order of directed bonds, and this file."""

AT_ONCE = 64_000_000
"""Largest file in bytes whose checksum is verified before use. Larger files are verified while they are used."""
BLOCK = 4_000_000
"""Bytes read at a time."""
DAY = 86_400.0
"""Seconds after which a temporary file must have been left by a killed process."""

Entry = tuple[dict[str, Tensor], dict[str, Any]]
"""Contents of an entry: tensors, and a record of plain values."""


def key(content: bytes, featurizer: Featurizer, settings: Mapping[str, Any]) -> str:
    """Return a hex digest of everything that the features depend on."""
    parts = {
        "content": hashlib.sha256(content).hexdigest(),
        "featurizer": type(featurizer).__qualname__,
        "version": featurizer.VERSION,
        "numerics": numerics_of({"_target_": type(featurizer).__qualname__}),
        "settings": featurizer.settings(),
        "dataset": dict(settings),
        "packing": PACKING,
        "rdkit": rdkit.__version__,
    }
    return digest_of(parts)


def cached(folder: Path, digest: str, make: Callable[[], Entry]) -> Entry:
    """Return an entry from the cache, or make and store it.

    A damaged file is rebuilt with a warning; a large one at the next start (see `verify`). A cache that cannot be read
    or written causes a warning, never an error. Processes that start together each make the entry and write the same
    file. What is returned lies in the file, which is mapped into memory, so that the system may drop pages of it.
    """
    path = folder / "features" / f"{digest}.safetensors"
    if os.path.exists(path):
        try:
            return _load(path)
        except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
            log.warning("%s is damaged (%s); it is rebuilt.", path, str(error).split("\n")[0])
    tensors, record = make()
    try:
        _store(path, tensors, record)
        return _read(path)[1], record
    except (StorageError, SafetensorError, OSError) as error:
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        log.warning(
            "The features are not cached, so the next run computes them again: %s (%s). Free some space, or choose "
            "another folder with paths.cache=FOLDER.", path.parent,
            getattr(cause, "strerror", None) or str(error).split("\n")[0]
        )  # fmt: skip
    return tensors, record


def keeper(folder: Path, digest: str) -> Callable[[str, Callable[[], dict[str, Tensor]]], dict[str, Tensor]]:
    """Return a function that caches values computed from an entry's features, each under a name of its own."""

    def keep(name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        return cached(folder, f"{digest}-{name}", lambda: (make(), {}))[0]

    return keep


def _store(path: Path, tensors: Mapping[str, Tensor], record: dict[str, Any]) -> None:
    remove_temporaries(path.parent, older_than=DAY)
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    text = json.dumps(record)
    state = f"{_checksum(whole, text)} {text}"

    def write(to: Path) -> None:
        try:
            save_file(whole, to, metadata={"state": state})
        except SafetensorError as error:
            raise OSError(str(error)) from error

    write_atomic(path, write)


def _read(path: Path) -> tuple[str, dict[str, Tensor], str]:
    """Return the checksum that a file states, its tensors, and its record as text."""
    with safe_open(str(path), framework="pt") as file:
        checksum, _, text = (file.metadata() or {})["state"].partition(" ")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    return checksum, tensors, text


def _load(path: Path) -> Entry:
    checksum, tensors, text = _read(path)
    if os.path.getsize(path) > AT_ONCE:
        _checks.append(check := _Check(path, tensors, checksum, text))
        check.start()
    elif checksum != str(_checksum(tensors, text)):
        raise ValueError("its checksum does not match")
    return tensors, json.loads(text)


class _Check(threading.Thread):
    """Thread that verifies a large file while it is used.

    It reads the file in blocks: verifying the memory-mapped tensors would load all of them into memory.
    """

    def __init__(self, path: Path, tensors: Mapping[str, Tensor], checksum: str, record: str) -> None:
        super().__init__(daemon=True)
        self.path, self.wanted, self.record = path, checksum, record
        self.forms = {name: _form(name, tensor) for name, tensor in tensors.items()}
        self.file = open(path, "rb")  # noqa: SIM115 - opened now, because another file may take its name
        self.damaged = False

    def run(self) -> None:
        with self.file:
            try:
                self.damaged = str(self._found()) != self.wanted
            except (OSError, ValueError, LookupError):
                self.damaged = True

    def _found(self) -> int:
        length = int.from_bytes(self.file.read(8), "little")
        header = json.loads(self.file.read(length))
        value = zlib.crc32(self.record.encode())
        for name in sorted(self.forms):
            value = zlib.crc32(self.forms[name], value)
            start, end = header[name]["data_offsets"]
            self.file.seek(8 + length + start)
            for place in range(start, end, BLOCK):
                value = zlib.crc32(self.file.read(min(BLOCK, end - place)), value)
        return value


_checks: list[_Check] = []
"""Checks of this process whose outcome has not been read yet."""


def verify() -> None:
    """Wait until all large files that were read have been verified. Call this before a result is recorded.

    Raises StorageError if one is damaged, and removes it, so that the next start rebuilds it.
    """
    while _checks:
        check = _checks.pop()
        check.join()
        if check.damaged:
            check.path.unlink(missing_ok=True)
            raise StorageError(
                f"{check.path} is damaged (its checksum does not match), so this run's numbers cannot be used; the "
                "file was removed. Run the same command again with overwrite=true to rebuild it."
            )


def _form(name: str, tensor: Tensor) -> bytes:
    """Return a tensor's name, dtype and shape as bytes, for the checksum."""
    array = tensor.numpy()
    return f"{name} {array.dtype} {array.shape}".encode()


def _checksum(tensors: Mapping[str, Tensor], record: str) -> int:
    """Return a CRC-32 of the record and of every tensor's name, dtype, shape and bytes."""
    value = zlib.crc32(record.encode())
    for name in sorted(tensors):
        array = tensors[name].numpy()
        value = zlib.crc32(_form(name, tensors[name]), value)
        value = zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, value)
    return value
