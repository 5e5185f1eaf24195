"""Writing files so that a reader sees the old or the new one, never a part; finding them; where the cache is."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from molsam.errors import StorageError

RECORDS = {"metrics": "metrics.jsonl", "gradients": "gradients.jsonl", "sharpness": "sharpness.jsonl"}
"""Files of a run with a JSON object per line."""


def write_atomic(path: Path, data: bytes | Callable[[Path], None]) -> None:
    """Write to a temporary name, fsync, rename. Raises StorageError that names the file.

    data: the contents; or a function that writes them to the path that it is given, and raises OSError if it cannot.
    """
    # Not the process's number: machines that share a folder have equal ones.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        if isinstance(data, bytes) and is_special(path):
            path.write_bytes(data)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(data, bytes):
            temporary.write_bytes(data)
        else:
            data(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StorageError(
            f"{path} cannot be written ({error.strerror or error}); free some space or choose a writable folder, "
            "then run the same command again: it continues."
        ) from error


def is_special(path: Path) -> bool:
    """Return whether a path is a device, a pipe or an open file (/dev/stdout), which a rename would replace."""
    if path.is_symlink() and os.readlink(path).startswith("/proc/"):
        return True
    return path.exists() and not path.is_file() and not path.is_dir()


def below(root: Path, *names: str, suffix: str | None = None) -> Iterator[Path]:
    """Return the files of these names (and those that end in `suffix`) below a folder, in any order.

    Not by rglob: that breaks off where a run that goes on meanwhile removes a folder.
    """
    for folder, _, there in os.walk(root):
        yield from (Path(folder, name) for name in names if name in there)
        if suffix is not None:
            yield from (Path(folder, name) for name in there if name.endswith(suffix) and name not in names)


def remove_temporaries(folder: Path, older_than: float = 0.0) -> None:
    """Remove what killed processes left of `write_atomic` in a folder, if it is older than so many seconds."""
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            if not older_than or time.time() - path.stat().st_mtime > older_than:
                path.unlink(missing_ok=True)


def csv_text(rows: Iterable[Sequence[Any]], end: str = "\r\n") -> str:
    """Rows as CSV, each cell `as_text`."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=end)
    writer.writerows([as_text(cell) for cell in row] for row in rows)
    return text.getvalue()


HARMLESS = re.compile(r"[-+]+|[-+][\d., ]*\d(?:e[-+]?\d+)? ?%?", re.IGNORECASE | re.ASCII)
"""What begins with a sign and is no formula: signs alone, and numbers with a decimal comma, marks of thousands or %."""


def as_text(cell: Any) -> Any:
    """Return a cell that a spreadsheet opens as what it is.

    A text that begins like a formula (=, +, -, @) and is no number gets an apostrophe in front, because a spreadsheet
    would work it out. A number may have a decimal comma, and signs alone work out nothing.
    """
    if not isinstance(cell, str) or not cell.startswith(("=", "+", "-", "@", "\t", "\r")):
        return cell
    try:
        float(cell)
    except ValueError:
        return cell if HARMLESS.fullmatch(cell) else f"'{cell}"
    return cell


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, keys in the order given; NaN and infinities are refused as null."""
    write_atomic(path, (json.dumps(_finite(value), indent=1, default=str) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read JSON. Raises StorageError that names the file if it is missing, unreadable or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StorageError(f"{path} cannot be read ({error.strerror or error}); check the path.") from error
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{path} is damaged ({error}); remove it and run the same command again.") from error


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


def cache_folder(configured: str | None) -> Path:
    """paths.cache, $MOLSAM_CACHE, or the user's cache folder."""
    chosen = configured or os.environ.get("MOLSAM_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path("~/.cache").expanduser()) / "molsam"
