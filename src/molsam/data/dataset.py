"""A dataset: rows of a file, molecules, labels, and what was wrong with them."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from molsam.chem import descriptors as descriptors_of
from molsam.chem.arrays import Featurizer
from molsam.data.batch import MoleculeBatch
from molsam.data.cache import cached, key
from molsam.data.descriptors import read_descriptors
from molsam.data.featurize import Work, featurize
from molsam.data.packed import PackedMolecules
from molsam.data.report import DataReport, contradictions
from molsam.data.scaler import TargetScaler
from molsam.data.settings import check_settings, spread
from molsam.data.sources import locate
from molsam.data.spec import DataSpec
from molsam.data.table import Table, labels
from molsam.errors import DataError
from molsam.files import cache_folder

log = logging.getLogger(__name__)


@dataclass
class MoleculeDataset:
    """M molecules, T tasks."""

    noun: ClassVar[str] = "molecule"
    packed: PackedMolecules
    smiles: list[str]
    canonical: list[str]
    targets: np.ndarray
    """float64 [M, T], NaN where missing"""
    task_names: list[str]
    task: str
    """regression or classification"""
    metric: str
    duplicates: str
    """what happens to equal molecules: keep, drop, group"""
    report: DataReport
    spec: DataSpec
    table: Table
    kept: list[int]
    """row of the table of each molecule"""
    descriptors: np.ndarray | None = None
    """float32 [M, descriptor_dim]"""
    _labels: tuple[TargetScaler | None, Tensor, Tensor] | None = None
    """what `_scaled` gave for the last scaler"""

    def __len__(self) -> int:
        return len(self.smiles)

    @property
    def rows(self) -> list[int]:
        """Line of the file of each molecule."""
        return [self.table.lines[row] for row in self.kept]

    def batch(self, index: np.ndarray | Sequence[int], scaler: TargetScaler | None = None) -> MoleculeBatch:
        """Molecules with their targets (scaled, 0 where missing) and the mask of labels that are there."""
        return self.batches(index, len(index), scaler)[0]

    def batches(
        self, index: np.ndarray | Sequence[int], size: int, scaler: TargetScaler | None = None
    ) -> list[MoleculeBatch]:
        """Molecules in batches of `size`, each as `batch` makes it."""
        if self._labels is None or self._labels[0] is not scaler:
            self._labels = (scaler, *self._scaled(scaler))
        rows = np.asarray(index, dtype=np.int64)
        made, of_rows = self.packed.batches(rows, size), torch.from_numpy(rows)
        targets, masks = (values.index_select(0, of_rows).split(size) for values in self._labels[1:])
        for batch, known, mask in zip(made, targets, masks, strict=True):
            batch.targets, batch.mask = known, mask
            if self.descriptors is not None:
                batch.descriptors = torch.from_numpy(self.descriptors[batch.index.numpy()])
        return made

    def _scaled(self, scaler: TargetScaler | None) -> tuple[Tensor, Tensor]:
        """All targets and the mask of those that are there."""
        known = ~np.isnan(self.targets)
        values = self.targets if scaler is None else scaler.transform(self.targets)
        return torch.from_numpy(np.where(known, values, 0.0)).float(), torch.from_numpy(known)

    def split_column(self, name: str) -> list[str]:
        """The cells of a column of the file, for the molecules kept."""
        cells = self.table.column(name)
        return [cells[row] for row in self.kept]


def load(settings: Mapping[str, Any], featurizer: Featurizer, cache_dir: str | None = None) -> MoleculeDataset:
    """Read, parse, featurize (or take from the cache) and check a dataset.

    Args:
        settings: the dataset section of the configuration.
        featurizer: the model's.
        cache_dir: null for $MOLSAM_CACHE or the user's cache folder.

    Raises:
        ConfigError: a setting cannot be.
        DataError: in one sentence what is wrong with the file.
        StorageError: a download cannot be written.
    """
    check_settings(settings)
    folder = cache_folder(cache_dir)
    table, layout = locate(settings, folder)
    limit, choice = settings.get("limit"), settings.get("descriptors")
    rows = spread(limit, len(table.rows))
    targets = labels(table, layout["targets"], first=True)[rows]
    column = table.column(layout["smiles"])
    smiles = [column[row].strip() for row in rows]
    depends: dict[str, Any] = {"smiles": layout["smiles"], "limit": limit and [limit, "spread"]}
    computed = choice if choice in descriptors_of.NAMES else None
    if computed:
        depends["descriptors"] = descriptors_of.provenance(computed)
    work = Work(featurizer, computed)
    try:
        tensors, record = cached(folder, key(table.content, featurizer, depends), lambda: featurize(smiles, work))
    except DataError as error:
        raise DataError(f"{table.path}: {error}") from error
    report = _report(table, layout, smiles, [(rows[place], place, reason) for place, reason in record["invalid"]])
    report.missing_in_file = int(np.isnan(targets).sum())
    report.refuse_or_tell(settings.get("on_invalid", "drop"))
    valid = np.array(record["valid"], dtype=np.int64)
    descriptors = tensors.pop("descriptors").numpy() if "descriptors" in tensors else None
    if choice and not computed:
        descriptors = read_descriptors(Path(choice), len(table.rows))[rows[valid]]
    packed = PackedMolecules(**tensors, self_loops=record["self_loops"])
    keep = _kept(settings, packed, record["canonical"], report)
    dataset = MoleculeDataset(
        packed=packed if len(keep) == len(packed) else packed.select(torch.from_numpy(keep)),
        smiles=[smiles[row] for row in valid[keep]],
        canonical=[record["canonical"][i] for i in keep],
        targets=targets[valid[keep]],
        task_names=list(layout["targets"]),
        task=settings.get("task") or infer_task(targets),
        metric=settings.get("metric") or "",
        duplicates=settings.get("duplicates", "keep"),
        report=report,
        spec=DataSpec(featurizer.node_dim, featurizer.edge_dim, len(layout["targets"]), 0),
        table=table,
        kept=rows[valid[keep]].tolist(),
        descriptors=None if descriptors is None else descriptors[keep],
    )
    return _finish(dataset)


def infer_task(targets: np.ndarray) -> str:
    """classification if every label is 0 or 1, else regression."""
    known = targets[~np.isnan(targets)]
    return "classification" if np.isin(known, (0.0, 1.0)).all() else "regression"


def _finish(dataset: MoleculeDataset) -> MoleculeDataset:
    """Check the labels, and fill in what depends on the molecules that are left."""
    _check_labels(dataset)
    if not dataset.metric:
        dataset.metric = "roc_auc" if dataset.task == "classification" else "rmse"
    width = 0 if dataset.descriptors is None else dataset.descriptors.shape[1]
    dataset.spec = dataset.spec._replace(max_atoms=dataset.packed.max_atoms, descriptor_dim=width)
    dataset.report.duplicates = len(dataset) - len(Counter(dataset.canonical))
    dataset.report.contradictions = contradictions(dataset.canonical, dataset.targets)
    dataset.report.missing = int(np.isnan(dataset.targets).sum())
    return dataset


def _report(
    table: Table, layout: Mapping[str, Any], smiles: Sequence[str], invalid: Sequence[tuple[int, int, str]]
) -> DataReport:
    digest = hashlib.sha256(table.content).hexdigest()
    return DataReport(
        path=str(table.path),
        hash=digest[:16],
        rows=len(smiles),
        verified=digest == layout.get("sha256"),
        invalid=[(table.lines[row], smiles[place], reason) for row, place, reason in invalid],
    )


def _kept(settings: Mapping[str, Any], packed: PackedMolecules, canonical: list[str], report: DataReport) -> np.ndarray:
    """Places of the molecules that stay: small enough, and the first of their kind if duplicates are dropped."""
    keep = np.ones(len(packed), dtype=bool)
    largest = settings.get("max_atoms")
    if largest is not None:
        keep &= (packed.node_offset.diff() <= largest).numpy()
        report.too_large = int((~keep).sum())
    if not keep.any():
        raise DataError(
            f"{report.path}: no molecule has dataset.max_atoms={largest} atoms or fewer; give a larger number."
        )
    if settings.get("duplicates") == "drop":
        seen: set[str] = set()
        for i in np.flatnonzero(keep):
            keep[i] = canonical[i] not in seen
            seen.add(canonical[i])
        report.dropped_duplicates = len(packed) - int(keep.sum()) - report.too_large
    return np.flatnonzero(keep)


def _check_labels(dataset: MoleculeDataset) -> None:
    path, targets, names = dataset.table.path, dataset.targets, dataset.task_names
    empty = [name for name, column in zip(names, targets.T, strict=True) if np.isnan(column).all()]
    if len(empty) == len(names):
        raise DataError(
            f"{path}: no molecule has a label in {', '.join(names[:5])}; name the label columns in dataset.targets."
        )
    if empty:
        log.warning("%s: no label at all in %s; these tasks are not learned and not scored.", path, ", ".join(empty))
    if dataset.task == "classification":
        odd = np.argwhere(~np.isnan(targets) & ~np.isin(targets, (0.0, 1.0)))
        if len(odd):
            row, task = odd[0]
            raise DataError(
                f"{path}, line {dataset.rows[row]}, column {names[task]!r}: {targets[row, task]:g} is no class; write 0, 1 "
                "or nothing, or set dataset.task=regression."
            )
