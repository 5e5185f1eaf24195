"""Images that a model can tell apart, written in the forms in which CIFAR is published."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Writes strings and bytes as Python 2 wrote its strings, which is how CIFAR's files have them."""

    dispatch = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_string(self, text: str | bytes) -> None:
        own = text.encode("ascii") if isinstance(text, str) else text
        self.write(b"T" + len(own).to_bytes(4, "little") + own)
        self.memoize(text)

    dispatch[bytes] = dispatch[str] = save_string


def python2(value: Any) -> bytes:
    """A pickle of protocol 2 as Python 2 with the NumPy of its time wrote it."""
    out = io.BytesIO()
    Python2Pickler(out, 2).dump(value)
    return out.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def draw(count: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [count, 3072] and their classes: noise around a picture of each class."""
    pictures = np.random.default_rng(7).integers(0, 256, (classes, 3, 4, 4)).repeat(8, 2).repeat(8, 3)
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % classes)
    noisy = pictures[labels] + rng.normal(0, 40, (count, 3, 32, 32))
    return noisy.clip(0, 255).astype(np.uint8).reshape(count, -1), labels


def write(root: Path, classes: int, form: str, size: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """All files of a form ("bin" or "py") in the folder its archive unpacks to; images and classes, test file last.

    `size`: images of a training file; the test file has half as many.
    """
    names = [f"data_batch_{i}" for i in range(1, 6)] if classes == 10 else ["train"]
    names.append("test_batch" if classes == 10 else "test")
    folders = {(10, "bin"): "cifar-10-batches-bin", (10, "py"): "cifar-10-batches-py",
               (100, "bin"): "cifar-100-binary", (100, "py"): "cifar-100-python"}  # fmt: skip
    folder = root / folders[classes, form]
    folder.mkdir(parents=True, exist_ok=True)
    parts = [draw(size // 2 if name.startswith("test") else size, classes, seed) for seed, name in enumerate(names)]
    for name, (pixels, labels) in zip(names, parts, strict=True):
        if form == "bin":
            coarse = [labels // 5] if classes == 100 else []
            record = np.column_stack([*coarse, labels, pixels]).astype(np.uint8)
            (folder / f"{name}.bin").write_bytes(record.tobytes())
        else:
            content = {"data": pixels, "batch_label": name, "filenames": ["cat_s_1.png"]}
            content |= {"labels" if classes == 10 else "fine_labels": labels.tolist()}
            (folder / name).write_bytes(python2(content))
    return np.concatenate([p for p, _ in parts]), np.concatenate([labels for _, labels in parts])
