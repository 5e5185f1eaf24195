"""Checkpoints: one safetensors file of tensors plus JSON, with a checksum; nothing in them can run code."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from molsam.errors import StorageError
from molsam.files import write_atomic

log = logging.getLogger(__name__)
FORMAT = "molsam-checkpoint-1"
_TENSOR = "__tensor__"


def encode(tree: Any) -> bytes:
    """A tree of dicts, lists, plain values and tensors as bytes."""
    tensors: dict[str, Tensor] = {}
    # Not sorted: the order of dicts (parameter groups, states) comes back as it was.
    text = json.dumps({"format": FORMAT, "tree": _strip(tree, tensors)})
    names = sorted(tensors)
    state = {name: tensors[name].detach().contiguous() for name in names}
    body = save_tensors(state, metadata={"state": text})  # one key: several come in any order
    return hashlib.sha256(body).digest() + body


def decode(data: bytes, source: str) -> Any:
    """The tree back. Raises StorageError naming `source` if the bytes are not whole."""
    digest, body = data[:32], data[32:]
    if hashlib.sha256(body).digest() != digest:
        raise StorageError(f"{source} is damaged (its checksum does not fit); remove it and run the command again.")
    try:
        tensors = load_tensors(body)
        length = int.from_bytes(body[:8], "little")
        state = json.loads(json.loads(body[8 : 8 + length])["__metadata__"]["state"])
        if state["format"] != FORMAT:
            raise KeyError("format")
        return _join(state["tree"], tensors)
    except (SafetensorError, LookupError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise StorageError(
            f"{source} is not a checkpoint of this version of molsam; remove it to start anew."
        ) from error


def save(path: Path, tree: Any) -> None:
    """Write a checkpoint; the previous one stays whole until this one is, and is kept beside it."""
    data = encode(tree)
    fresh = path.with_suffix(".new")
    write_atomic(fresh, data)
    try:
        if path.exists():
            os.replace(path, previous(path))
        os.replace(fresh, path)
    except OSError as error:
        raise StorageError(f"{path} cannot be replaced ({error.strerror}); make its folder writable.") from error


def load(path: Path) -> Any | None:
    """The newest whole checkpoint (path, a new one not yet renamed, or the previous one); None if there is none."""
    for candidate in (path, path.with_suffix(".new"), previous(path)):
        if not candidate.exists():
            continue
        try:
            return read(candidate)
        except StorageError as error:
            log.warning("%s Using the one before it.", error)
    return None


def read(path: Path) -> Any:
    """The tree in one file. Raises StorageError if it cannot be read or is damaged."""
    try:
        return decode(path.read_bytes(), str(path))
    except OSError as error:
        raise StorageError(f"{path} cannot be read ({error.strerror}); check the path and its permissions.") from error


def previous(path: Path) -> Path:
    """Where the checkpoint before the newest is kept."""
    return path.with_suffix(".previous")


def remove(path: Path) -> None:
    """Remove a checkpoint and its predecessors."""
    for candidate in (path, path.with_suffix(".new"), previous(path)):
        candidate.unlink(missing_ok=True)


def _strip(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.clone() if value.numel() else torch.zeros(1, dtype=value.dtype)
        return {_TENSOR: name, "shape": list(value.shape)}
    if isinstance(value, dict):
        # JSON turns integer keys into strings: pairs keep them.
        return {"__dict__": [[key, _strip(item, tensors)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {"__tuple__": [_strip(item, tensors) for item in value]}
    if isinstance(value, list):
        return [_strip(item, tensors) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a checkpoint holds tensors and plain values, not {type(value).__name__}")


def _join(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_join(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return (
            tensors[value[_TENSOR]].reshape(value["shape"])
            if 0 not in value["shape"]
            else tensors[value[_TENSOR]][:0].reshape(value["shape"])
        )
    if "__tuple__" in value:
        return tuple(_join(item, tensors) for item in value["__tuple__"])
    return {key: _join(item, tensors) for key, item in value["__dict__"]}
