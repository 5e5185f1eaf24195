"""Datasets of images with one class each, for the paper's Table 11 (the protocols are in molsam.data.api)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from molsam.data.report import DataReport
from molsam.data.settings import spread
from molsam.data.spec import DataSpec
from molsam.errors import ConfigError
from molsam.images import cifar

MARGIN = 4
"""Largest shift of a training image in pixels, in each direction."""

OFFICIAL = (50_000, 10_000)
"""Number of images in the training files and in the test file of both CIFARs; equal for all classes."""


@dataclass
class ImageBatch:
    """B images."""

    images: Tensor
    """float [B, 3, 32, 32], each channel with mean 0 and variance 1 over the training files"""
    index: Tensor
    """int64 [B], row in the dataset"""
    targets: Tensor | None
    """float [B, 1], the number of the class"""
    mask: Tensor
    """bool [B, 1], all true"""
    spare: bool = False
    """whether it is filler: a process that has no images left needs a batch to take part in a joint pass"""

    def __len__(self) -> int:
        return len(self.index)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> ImageBatch:
        """Return the batch on another device, its floating-point tensors in another dtype."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        moved: dict[str, Any] = {name: value.to(device=device) for name, value in tensors.items()}
        for name in ("images", "targets"):
            moved[name] = moved[name].to(dtype=dtype)
        return replace(self, **moved)


@dataclass
class ImageDataset:
    """M images of several classes; those of the test file come last."""

    images: Tensor
    """uint8 [M, 3, 32, 32]"""
    targets: np.ndarray
    """float64 [M, 1], the number of the class"""
    tests: int
    """number of images of the test file"""
    classes: int
    report: DataReport
    noun: ClassVar[str] = "image"
    task: ClassVar[str] = "multiclass"
    metric: ClassVar[str] = "accuracy_percent"
    duplicates: ClassVar[str] = "keep"
    task_names: ClassVar[list[str]] = ["class"]
    ids: ClassVar[list[str] | None] = None

    def __post_init__(self) -> None:
        # Only of the training files, and by counting, because a float copy of all images would take a gigabyte.
        counts = torch.stack(
            [torch.bincount(self.images[: -self.tests, c].flatten(), minlength=256) for c in range(3)]
        ).double()
        shares, values = counts / counts.sum(1, keepdim=True), torch.arange(256.0, dtype=torch.float64)
        mean = (shares * values).sum(1, keepdim=True)
        std = (shares * (values - mean).square()).sum(1, keepdim=True).sqrt().clamp(min=1.0)
        self.mean, self.std = mean.float().view(1, 3, 1, 1), std.float().view(1, 3, 1, 1)
        self.smiles = self.canonical = [f"image {row}" for row in range(len(self.targets))]
        self.spec = DataSpec(node_dim=3, edge_dim=0, n_tasks=self.classes, max_atoms=0)

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def rows(self) -> np.ndarray:
        """int64 [M], the number of each image among those of all files."""
        return np.arange(len(self))

    def batch(self, index: np.ndarray | Sequence[int], scaler: object = None) -> ImageBatch:
        """Return images with their classes as one batch; classes are never scaled."""
        rows = torch.from_numpy(np.asarray(index, dtype=np.int64))
        targets = torch.from_numpy(self.targets[rows.numpy()]).float()
        images = (self.images[rows].float() - self.mean) / self.std
        return ImageBatch(images, rows, targets, torch.ones_like(targets, dtype=torch.bool))

    def batches(self, index: np.ndarray | Sequence[int], size: int, scaler: object = None) -> list[ImageBatch]:
        """Return images in batches of `size`; the last may be smaller."""
        return [self.batch(index[start : start + size]) for start in range(0, len(index), size)]


def load(settings: Mapping[str, Any]) -> ImageDataset:
    """Read the dataset of a section with `reader: cifar`.

    Raises:
        ConfigError: no folder is given.
        DataError: a file is wrong; the message says how, in one sentence.
    """
    classes, root, limit = settings["classes"], settings.get("root"), settings.get("limit")
    if not root:
        raise ConfigError(
            f"{settings['display']} is not on this machine; unpack its archive and give dataset.root=FOLDER."
        )
    images, labels, tests = cifar.read(Path(root).expanduser(), classes)
    sizes = len(labels) - tests, tests
    counts = [np.bincount(part, minlength=classes) for part in (labels[:-tests], labels[-tests:])]
    balanced = all(len(set(part.tolist())) == 1 for part in counts)
    report = DataReport(
        path=str(root),
        hash=hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()[:16],
        rows=len(labels),
        verified=sizes == OFFICIAL and balanced,
    )
    if limit is not None:
        # `limit` images of the training files, and as many of the test file.
        rows = np.r_[spread(limit, sizes[0]), sizes[0] + spread(limit, sizes[1])]
        images, labels, tests = images[rows], labels[rows], min(limit, tests)
    targets = labels.astype(np.float64)[:, None]
    return ImageDataset(torch.from_numpy(images.copy()), targets, tests, classes, report)


def augment(batch: ImageBatch) -> ImageBatch:
    """Shift each image by up to four pixels in each direction and mirror half of them, as is usual for CIFAR.

    Pixels beyond the edges have the mean colour. Random numbers are from torch's CPU generator.
    """
    count, _, height, width = batch.images.shape
    padded = F.pad(batch.images, [MARGIN] * 4)
    down, right = torch.randint(2 * MARGIN + 1, (2, count))
    mirrored = torch.rand(count) < 0.5
    rows = down[:, None] + torch.arange(height)
    columns = torch.arange(width).expand(count, width)
    columns = right[:, None] + torch.where(mirrored[:, None], columns.flip(1), columns)
    place = torch.arange(count)[:, None, None, None], torch.arange(3)[None, :, None, None]
    return replace(batch, images=padded[(*place, rows[:, None, :, None], columns[:, None, None, :])])
