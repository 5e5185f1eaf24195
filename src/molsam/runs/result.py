"""result.json: one per run, written last and atomically; everything in a table comes from here."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import re
from pathlib import Path
from typing import Any

from molsam.errors import StorageError
from molsam.files import read_json, write_json

SCHEMA = 1
NAME = "result.json"
SAME = "same_run_as"
"""Key of a result taken over from another folder: that folder, relative to its own."""
DICTS = ("config", "valid", "test", "split", "data", "versions", "machine")
REQUIRED = (
    "config", "config_hash", "model", "optimizer", "dataset", "seed", "fold", "task", "metric", "direction",
    "best_epoch", "epochs", "valid", "test", "graphs_per_s", "seconds_per_epoch", "gradient_passes", "passes_per_step",
    "parameters", "split", "data", "versions", "machine", "steps", "test_per_task",
)  # fmt: skip


def write(folder: Path, result: dict[str, Any]) -> None:
    """Write `result` with its checksum; the file exists only when the run is complete."""
    body = {"schema": SCHEMA, "status": "complete", **{k: v for k, v in result.items() if k != "checksum"}}
    plain = json.loads(json.dumps(body, default=str))
    write_json(folder / NAME, {**plain, "checksum": checksum(plain)})


def read(folder: Path) -> dict[str, Any] | None:
    """Return the result in a folder, None if there is none. Raises StorageError if it is damaged."""
    path = folder / NAME
    if not path.exists():
        return None
    result = read_json(path)
    what = flaw(result)
    if what:
        raise StorageError(f"{path} is damaged (it {what}); remove it and run the same command again.")
    assert isinstance(result, dict)
    return result


def flaw(result: Any) -> str | None:
    """Return what is wrong with a result, None if it is whole."""
    missing = [key for key in REQUIRED if key not in result] if isinstance(result, dict) else list(REQUIRED)
    if missing:
        return f"lacks {missing[0]}"
    return None if _fits(result) else "does not fit its schema and checksum"


def origin(folder: Path, result: dict[str, Any]) -> Path:
    """Return the folder with the curves, predictions and weights of a result: its own, unless it was taken over."""
    return Path(os.path.normpath(folder / result[SAME])) if SAME in result else folder


def _fits(result: dict[str, Any]) -> bool:
    whole = result.get("schema") == SCHEMA and result.get("checksum") == checksum(result)
    return whole and all(isinstance(result[key], dict | None) for key in DICTS)


def checksum(result: dict[str, Any]) -> str:
    """Hex digest of a result without its checksum."""
    body = {key: value for key, value in result.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(_plain(body), sort_keys=True).encode()).hexdigest()[:16]


@functools.cache
def versions() -> dict[str, str]:
    """Versions of everything that computes, as far as it is installed."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("molsam", "torch", "dgl", "rdkit", "numpy", "scikit-learn", "hydra-core", "optuna"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # DGL has no wheel for newer Pythons; sources on a path have no version
            continue
    return found


def machine(threads: int, device: str) -> dict[str, Any]:
    """Return what the run ran on, without naming it."""
    from molsam.native import kernels  # and with it torch, which a report does without

    return {
        "system": platform.system(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "device": device,
        "kernels": kernels.in_use() if device == "cpu" else "torch",
        **_accelerator(device),
    }


def _accelerator(device: str) -> dict[str, str]:
    """Return the model of a CUDA device, the CUDA of torch, and the driver's version; nothing for other devices."""
    if not device.startswith("cuda"):
        return {}
    import torch

    found = {"device_name": torch.cuda.get_device_name(device), "cuda": str(torch.version.cuda)}
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
    except OSError:
        return found
    numbers = re.search(r"\b\d+\.\d+(\.\d+)?\b", text)
    return found | ({"driver": numbers[0]} if numbers else {})


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _plain(value: Any) -> Any:
    """NaN and infinities as null, as they are written."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value
