"""Featurized datasets on disk: one memory-mapped safetensors file each, found by what it was made from."""

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
from safetensors.torch import save
from torch import Tensor

from molsam.chem.arrays import Featurizer
from molsam.config.identity import digest_of, numerics_of
from molsam.errors import StorageError
from molsam.files import remove_temporaries, write_atomic

log = logging.getLogger(__name__)
PACKING = 4
"""Version of PackedMolecules, of the order of directed bonds and of this file."""

AT_ONCE = 64_000_000
"""Bytes of a file up to which its checksum is looked at before it is used; that of a larger one while it is."""
BLOCK = 4_000_000
"""Bytes that are read at a time."""
DAY = 86_400.0
"""Seconds after which a half-written entry is a killed process's."""

Entry = tuple[dict[str, Tensor], dict[str, Any]]
"""What an entry holds: tensors, and a record of plain values."""


def key(content: bytes, featurizer: Featurizer, settings: Mapping[str, Any]) -> str:
    """Hex digest of everything the features depend on."""
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
    """An entry from the cache, or made now and stored.

    A damaged file is named and rebuilt, a large one at the next start (see `verify`); a cache that cannot be read or written is one warning, never an end. Processes
    that start together each make the entry and put the same file in place.
    """
    path = folder / "features" / f"{digest}.safetensors"
    if os.path.exists(path):
        try:
            return _load(path)
        except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
            log.warning("%s is damaged (%s); it is built again.", path, str(error).split("\n")[0])
    tensors, record = make()
    try:
        _store(path, tensors, record)
    except StorageError as error:
        log.warning("The features are not cached. %s", error)
    return tensors, record


def keeper(folder: Path, digest: str) -> Callable[[str, Callable[[], dict[str, Tensor]]], dict[str, Tensor]]:
    """What is computed from the features of an entry, each kept by its name in an entry of its own beside it."""

    def keep(name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        return cached(folder, f"{digest}-{name}", lambda: (make(), {}))[0]

    return keep


def _store(path: Path, tensors: Mapping[str, Tensor], record: dict[str, Any]) -> None:
    remove_temporaries(path.parent, older_than=DAY)
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    text = json.dumps(record)
    write_atomic(path, save(whole, metadata={"state": f"{_checksum(whole, text)} {text}"}))


def _load(path: Path) -> Entry:
    with safe_open(str(path), framework="pt") as file:
        checksum, _, text = (file.metadata() or {})["state"].partition(" ")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    if os.path.getsize(path) > AT_ONCE:
        _checks.append(check := _Check(path, tensors, checksum, text))
        check.start()
    elif checksum != str(_checksum(tensors, text)):
        raise ValueError("its checksum does not fit")
    return tensors, json.loads(text)


class _Check(threading.Thread):
    """Reads a large file once more, beside those who use it. Their memory does not grow by it, as by reading a mapped file."""

    def __init__(self, path: Path, tensors: Mapping[str, Tensor], checksum: str, record: str) -> None:
        super().__init__(daemon=True)
        self.path, self.wanted, self.record = path, checksum, record
        self.forms = {name: _form(name, tensor) for name, tensor in tensors.items()}
        self.file = open(path, "rb")  # noqa: SIM115 - this very file, whatever takes its name meanwhile
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
"""of this process, that nobody has asked for the outcome of"""


def verify() -> None:
    """Wait until the large files that were read have been checked: call this before a result counts.

    Raises StorageError if one is damaged. It is removed, so that the next start builds it anew.
    """
    while _checks:
        check = _checks.pop()
        check.join()
        if check.damaged:
            check.path.unlink(missing_ok=True)
            raise StorageError(
                f"{check.path} is damaged (its checksum does not fit), so what was computed with it does not count; it was "
                "removed: start the run anew with overwrite=true, and it is built again."
            )


def _form(name: str, tensor: Tensor) -> bytes:
    """What the checksum covers of a tensor besides its bytes."""
    array = tensor.numpy()
    return f"{name} {array.dtype} {array.shape}".encode()


def _checksum(tensors: Mapping[str, Tensor], record: str) -> int:
    """CRC-32 of the record and of every tensor's name, type, shape and bytes, so that no flipped bit goes unseen."""
    value = zlib.crc32(record.encode())
    for name in sorted(tensors):
        array = tensors[name].numpy()
        value = zlib.crc32(_form(name, tensors[name]), value)
        value = zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, value)
    return value
