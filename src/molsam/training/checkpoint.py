"""Checkpoints: one safetensors file of tensors and JSON, with a checksum. Loading one cannot run code."""

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
    """Return a tree of dicts, lists, plain values and tensors as bytes."""
    tensors: dict[str, Tensor] = {}
    # Not sorted, so that the order of dicts (parameter groups, states) is kept.
    text = json.dumps({"format": FORMAT, "tree": _strip(tree, tensors)})
    names = sorted(tensors)
    state = {name: tensors[name].detach().contiguous() for name in names}
    body = save_tensors(state, metadata={"state": text})  # one key, because the order of several is not defined
    return hashlib.sha256(body).digest() + body


def decode(data: bytes, source: str) -> Any:
    """Return the tree of `encode`. Raises StorageError naming `source` if the bytes are damaged."""
    digest, body = data[:32], data[32:]
    if hashlib.sha256(body).digest() != digest:
        raise StorageError(f"{source} is damaged (its checksum does not match); remove it and run the command again.")
    try:
        tensors = load_tensors(body)
        length = int.from_bytes(body[:8], "little")
        state = json.loads(json.loads(body[8 : 8 + length])["__metadata__"]["state"])
        if state["format"] != FORMAT:
            raise KeyError("format")
        return _join(state["tree"], tensors)
    except (SafetensorError, LookupError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise StorageError(
            f"{source} is not a checkpoint of this version of molsam; remove it to start again."
        ) from error


def save(path: Path, tree: Any) -> None:
    """Write a checkpoint. The previous one is replaced only once this one is complete, and is kept beside it."""
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
    """Return the newest undamaged checkpoint: `path`, a new one that was not renamed yet, or the previous one.

    None if there is none.
    """
    for candidate in (path, path.with_suffix(".new"), previous(path)):
        if not candidate.exists():
            continue
        try:
            return read(candidate)
        except StorageError as error:
            log.warning("%s The previous checkpoint is used.", error)
    return None


def read(path: Path) -> Any:
    """Return the tree in one file. Raises StorageError if it cannot be read or is damaged."""
    try:
        return decode(path.read_bytes(), str(path))
    except OSError as error:
        raise StorageError(f"{path} cannot be read ({error.strerror}); check the path and its permissions.") from error


def previous(path: Path) -> Path:
    """Return the path of the checkpoint before the newest."""
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
        # A list of pairs, because JSON would turn integer keys into strings.
        return {"__dict__": [[key, _strip(item, tensors)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {"__tuple__": [_strip(item, tensors) for item in value]}
    if isinstance(value, list):
        return [_strip(item, tensors) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a checkpoint can only store tensors and plain values, not {type(value).__name__}")


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
