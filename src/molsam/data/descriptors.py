"""Molecule descriptors from a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from molsam.errors import DataError


def read_descriptors(path: Path, rows: int, setting: str = "dataset.descriptors") -> np.ndarray:
    """Return the descriptors in an .npy or .npz file, float32 [rows, width]; values that are not finite become 0.

    Of an .npz file the array `features` is read, else the first one. Raises DataError, naming the setting, if the file
    cannot be read or does not have one row per row of the dataset's file.
    """
    try:
        with open(path, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.lib.npyio.NpzFile):
                loaded = loaded["features" if "features" in loaded.files else loaded.files[0]]
        values = np.asarray(loaded, dtype=np.float32)
    except (OSError, ValueError, KeyError, IndexError, EOFError, TypeError) as error:
        raise DataError(
            f"{setting}={path} cannot be read ({error}); give rdkit_2d, rdkit_2d_normalized, or an .npy or .npz file "
            "of numbers."
        ) from error
    if values.ndim != 2 or len(values) != rows or not values.shape[1]:
        raise DataError(
            f"{setting}={path} has the shape {values.shape}; it needs {rows} rows, one per row of the dataset's file."
        )
    return np.where(np.isfinite(values), values, np.float32(0))
