"""CIFAR's own files (Krizhevsky, 2009), binary or Python version, as arrays.

The Python version consists of pickles. A pickle is a program, so these are read by a reader that knows
dictionaries, lists, numbers, strings and NumPy arrays, and refuses to call anything else.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from molsam.errors import DataError

SIDE = 32
PIXELS = 3 * SIDE * SIDE


class Form(NamedTuple):
    """A form in which CIFAR is published."""

    folder: str
    """the folder that its archive unpacks to"""
    train: tuple[str, ...]
    test: str
    label: int | bytes
    """binary form: position of the label among the bytes before an image; Python form: its key"""


FORMS = {
    10: (
        Form("cifar-10-batches-bin", tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin", 0),
        Form("cifar-10-batches-py", tuple(f"data_batch_{i}" for i in range(1, 6)), "test_batch", b"labels"),
    ),
    100: (
        Form("cifar-100-binary", ("train.bin",), "test.bin", 1),
        Form("cifar-100-python", ("train",), "test", b"fine_labels"),
    ),
}
"""Number of classes -> the forms. In binary CIFAR-100 a coarse label precedes the label."""


def read(root: Path, classes: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Return images uint8 [M, 3, 32, 32], labels int64 [M], and the number of test images, which come last.

    The files are in `root` or in a folder within it that an archive unpacks to. Raises DataError naming the file.
    """
    folder, form = _find(root, classes)
    parts = [_read(folder / name, form.label) for name in (*form.train, form.test)]
    for name, (_, labels) in zip((*form.train, form.test), parts, strict=True):
        if labels.min() < 0 or labels.max() >= classes:
            raise DataError(
                f"{folder / name} has a label {labels.max()}, but CIFAR-{classes} has {classes} classes; check that it "
                f"is a file of CIFAR-{classes}."
            )
    images = np.concatenate([pixels for pixels, _ in parts]).reshape(-1, 3, SIDE, SIDE)
    return images, np.concatenate([labels for _, labels in parts]), len(parts[-1][1])


def files(root: Path, classes: int) -> list[Path]:
    """Return the files that `read` reads, in its order. Raises DataError like `read`."""
    folder, form = _find(root, classes)
    return [folder / name for name in (*form.train, form.test)]


def _find(root: Path, classes: int) -> tuple[Path, Form]:
    for form in FORMS[classes]:
        for folder in (root, root / form.folder):
            there = [(folder / name).is_file() for name in (*form.train, form.test)]
            if all(there):
                return folder, form
            if any(there):
                missing = (*form.train, form.test)[there.index(False)]
                raise DataError(f"{folder / missing} is missing; unpack the whole archive of CIFAR-{classes} there.")
    folders = " or ".join(form.folder for form in FORMS[classes])
    raise DataError(
        f"dataset.root={root} does not hold CIFAR-{classes}; unpack its binary or Python version there, so that the "
        f"folder has {folders} in it."
    )


def _read(path: Path, label: int | bytes) -> tuple[np.ndarray, np.ndarray]:
    return _read_binary(path, label) if isinstance(label, int) else _read_python(path, label)


def _read_binary(path: Path, label: int) -> tuple[np.ndarray, np.ndarray]:
    """Read records of label bytes and 3072 pixels: red, green, blue, each row by row."""
    size = label + 1 + PIXELS
    content = np.frombuffer(_bytes(path), dtype=np.uint8)
    if not len(content) or len(content) % size:
        raise DataError(
            f"{path} has {len(content)} bytes, which is not a multiple of the {size} of an image; copy it again."
        )
    records = content.reshape(-1, size)
    return records[:, label + 1 :], records[:, label].astype(np.int64)


def _read_python(path: Path, label: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Read a dictionary with `data`, uint8 [n, 3072], and a list of labels."""
    with open(path, "rb") as file:
        try:
            content = _Reader(file, encoding="bytes").load()
            pixels, labels = content[b"data"], np.array(content[label], dtype=np.int64)
        except Exception as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise DataError(
                f"{path} is not a file of CIFAR's Python version ({reason}); unpack the archive again."
            ) from error
    shape = (len(labels), PIXELS)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != shape or not len(labels):
        raise DataError(f"{path}: its data are not {shape[0]} x {PIXELS} bytes; unpack the archive again.")
    return pixels, labels


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error


class _Reader(pickle.Unpickler):
    """Reads plain values and NumPy arrays, and refuses everything else in a pickle."""

    ALLOWED = {("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")}

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the three names that an array needs. Raises UnpicklingError for others."""
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not called")
        return {"_reconstruct": _empty, "ndarray": np.ndarray, "dtype": np.dtype}[name]


def _empty(*_: object) -> np.ndarray:
    """Return an empty array, which the pickle then fills."""
    return np.empty(0, dtype=np.uint8)
