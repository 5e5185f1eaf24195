"""A dataset: the rows of a file as molecules and labels, with a report of the problems found."""

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
from molsam.data import dgl_file
from molsam.data.batch import MoleculeBatch
from molsam.data.cache import cached, keeper, key
from molsam.data.columns import named, place
from molsam.data.descriptors import read_descriptors
from molsam.data.duplicates import find, treat
from molsam.data.featurize import Work, canonical_of, featurize
from molsam.data.given import Given, given
from molsam.data.labels import Labels, labels, read_columns, tell
from molsam.data.packed import PackedMolecules
from molsam.data.report import DataReport
from molsam.data.scaler import TargetScaler
from molsam.data.settings import check_settings, spread
from molsam.data.sources import Source, locate, own_paths
from molsam.data.spec import DataSpec
from molsam.data.states import Keep
from molsam.data.table import Table
from molsam.data.texts import Texts
from molsam.data.weights import sample_weights
from molsam.errors import NOTE, DataError
from molsam.files import cache_folder

log = logging.getLogger(__name__)
METRICS = {"regression": "rmse", "classification": "roc_auc", "multiclass": "accuracy"}
"""Default metric of each task."""


@dataclass
class MoleculeDataset:
    """M molecules, T tasks."""

    noun: ClassVar[str] = "molecule"
    packed: PackedMolecules
    smiles: Sequence[str]
    canonical: Sequence[str]
    targets: np.ndarray
    """float64 [M, T], NaN where missing"""
    task_names: list[str]
    task: str
    """regression, classification or multiclass"""
    metric: str
    duplicates: str
    """how equal molecules are treated: keep, drop, group, merge"""
    report: DataReport
    spec: DataSpec
    table: Table
    kept: np.ndarray
    """int64 [M], each molecule's position in the table"""
    descriptors: np.ndarray | None = None
    """float32 [M, descriptor_dim]"""
    bounds: np.ndarray | None = None
    """int8 [M, T]: 1 where a value is at least its label, -1 where it is at most its label; None if there is none"""
    classes: list[list[str]] | None = None
    """[T], the names of each task's classes; None if they are 0 and 1"""
    id_column: str | None = None
    parts: np.ndarray | None = None
    """int64 [M], the file of each molecule: 0 train, 1 valid, 2 test; None if there is one file"""
    standardize: str = "none"
    sample_weights: np.ndarray | None = None
    """float64 [M], the values of the column dataset.weights"""
    label_weights: np.ndarray | None = None
    """float64 [M, T], weight of each label in the loss (molsam.data.weights); None: all equal"""
    _labels: tuple[TargetScaler | None, Tensor, Tensor] | None = None
    """the last scaler, and what `_scaled` returned for it"""

    def __len__(self) -> int:
        return len(self.smiles)

    @property
    def rows(self) -> np.ndarray:
        """int64 [M], each molecule's row in the file: the first data row is 0, blank lines do not count."""
        return np.array(self.table.numbers, dtype=np.int64)[self.kept]

    @property
    def ids(self) -> list[str] | None:
        """The id of each molecule, if the file has a column of them."""
        return None if self.id_column is None else self.split_column(self.id_column)

    def where(self, molecule: int) -> str:
        """Return where a molecule is in the file, for messages: row, line and id."""
        ids = self.ids
        place = self.table.where(int(self.kept[molecule]))
        return place if ids is None else f"{place}, id {ids[molecule]}"

    def batch(self, index: np.ndarray | Sequence[int], scaler: TargetScaler | None = None) -> MoleculeBatch:
        """Return molecules as one batch, with their targets (scaled, 0 where missing) and the mask of known labels."""
        return self.batches(index, len(index), scaler)[0]

    def batches(
        self, index: np.ndarray | Sequence[int], size: int, scaler: TargetScaler | None = None
    ) -> list[MoleculeBatch]:
        """Return molecules in batches of `size`, each as `batch` returns it."""
        if self._labels is None or self._labels[0] is not scaler:
            self._labels = (scaler, *self._scaled(scaler))
        rows = np.asarray(index, dtype=np.int64)
        made, of_rows = self.packed.batches(rows, size), torch.from_numpy(rows)
        targets, masks = (values.index_select(0, of_rows).split(size) for values in self._labels[1:])
        for batch, known, mask in zip(made, targets, masks, strict=True):
            batch.targets, batch.mask = known, mask
            if self.bounds is not None:
                batch.bounds = torch.from_numpy(self.bounds[batch.index.numpy()])
            if self.descriptors is not None:
                batch.descriptors = torch.from_numpy(self.descriptors[batch.index.numpy()])
        return made

    def _scaled(self, scaler: TargetScaler | None) -> tuple[Tensor, Tensor]:
        """Return all targets, scaled, and the mask of those that are known."""
        known = ~np.isnan(self.targets)
        values = self.targets if scaler is None else scaler.transform(self.targets)
        mask = known if self.label_weights is None else np.where(known, self.label_weights, 0.0).astype(np.float32)
        return torch.from_numpy(np.where(known, values, 0.0)).float(), torch.from_numpy(mask)

    def split_column(self, name: str) -> list[str]:
        """Return each molecule's cell of a column of the file."""
        return list(self.table.cells[place(self.table, "split.column", name)].take(self.kept))


def load(
    settings: Mapping[str, Any],
    featurizer: Featurizer,
    cache_dir: str | None = None,
    split: Mapping[str, Any] | None = None,
) -> MoleculeDataset:
    """Read, parse, featurize (or take from the cache) and check a dataset.

    Args:
        settings: the dataset section of the configuration.
        featurizer: the model's.
        cache_dir: folder of the cache; None for $MOLSAM_CACHE or the user's cache folder.
        split: the split section of the configuration, whose column is no label.

    Raises:
        ConfigError: a setting is out of range, or does not fit the file.
        DataError: the file is wrong; the message says where, in one sentence.
        StorageError: a download cannot be written.
    """
    check_settings(settings)
    folder = cache_folder(cache_dir)
    source = locate(settings, folder, [(split or {}).get("column")])
    table = source.table
    rows = spread(settings.get("limit"), len(table))
    read = _labels(source, settings)
    smiles = _stripped(table.cells[table.place(source.smiles)])
    tensors, record, keep_colours = _features(settings, source, featurizer, folder, smiles, rows)
    report = _report(source, rows, smiles, record["invalid"])
    report.missing_in_file = int(np.isnan(read.values[rows]).sum())
    report.refuse_or_tell(settings.get("on_invalid") or "drop")
    valid, canonical = rows[tensors.pop("valid").numpy()], canonical_of(tensors)
    computed = tensors.pop("descriptors").numpy() if "descriptors" in tensors else None
    packed = PackedMolecules(**tensors, self_loops=record["self_loops"], keep=keep_colours)
    sides = given(table, source.parts, valid, split or {}, times=settings.get("duplicates") == "merge")
    own = read.take(valid)
    keep = _kept(settings, packed, canonical, own, report, sides)
    if computed is None and settings.get("descriptors"):
        computed = read_descriptors(Path(settings["descriptors"]), len(table))[valid]
    dataset = MoleculeDataset(
        packed=packed if len(keep) == len(packed) else packed.select(torch.from_numpy(keep)),
        smiles=smiles.take(valid[keep]),
        canonical=canonical.take(keep),
        targets=own.values[keep],
        task_names=source.targets,
        task=own.task,
        metric=settings.get("metric") or "",
        duplicates=settings.get("duplicates") or "keep",
        report=report,
        spec=DataSpec(packed.node_table.shape[1], packed.edge_table.shape[1], len(source.targets), 0),
        table=table,
        kept=valid[keep],
        descriptors=None if computed is None else computed[keep],
        bounds=own.bounds[keep] if own.bounds is not None and own.bounds[keep].any() else None,
        classes=own.classes,
        id_column=None if settings.get("id") is None else named(table, "dataset.id", settings["id"]),
        parts=None if source.parts is None else np.array(source.parts, dtype=np.int64)[valid[keep]],
        standardize=settings.get("standardize") or "none",
        sample_weights=None if settings.get("weights") is None else sample_weights(table, settings)[valid[keep]],
    )
    return _finish(dataset)


def _stripped(cells: Texts) -> Texts:
    return Texts.of(map(str.strip, cells)) if any(cell != cell.strip() for cell in cells) else cells


def _labels(source: Source, settings: Mapping[str, Any]) -> Labels:
    own = not settings.get("layouts")
    columns = read_columns(source.table, source.targets, first=not own)
    read = labels(source.table, columns, settings)
    if own:
        tell(source.table, columns, read.task)
    return read


def _report(source: Source, rows: np.ndarray, smiles: Sequence[str], invalid: Sequence[tuple[int, str]]) -> DataReport:
    table = source.table
    return DataReport(
        path=str(table.path),
        files=len(table.parts()),
        hash=hashlib.sha256(table.content).hexdigest()[:16],
        rows=len(rows),
        verified=source.verified,
        invalid=[(table.where(rows[place]), smiles[rows[place]], reason) for place, reason in invalid],
    )


def _features(
    settings: Mapping[str, Any],
    source: Source,
    featurizer: Featurizer,
    folder: Path,
    smiles: Texts,
    rows: np.ndarray,
) -> tuple[dict[str, Tensor], dict[str, Any], Keep | None]:
    """Return tensors and record of some rows' molecules, cached or computed now, and the cache of their colours."""
    if settings.get("reader") == "dgl":
        return *dgl_file.graphs(own_paths(settings), rows, settings, featurizer), None
    limit, choice, how = settings.get("limit"), settings.get("descriptors"), (settings.get("standardize") or "none")
    depends: dict[str, Any] = {"smiles": source.smiles, "limit": limit and [limit, "spread"]}
    computed = choice if choice in descriptors_of.NAMES else None
    if computed:
        depends["descriptors"] = descriptors_of.provenance(computed)
    if how != "none":
        depends["standardize"] = how
    work = Work(featurizer, computed, how)
    try:
        digest = key(source.table.content, featurizer, depends)
        return *cached(folder, digest, lambda: featurize(smiles.take(rows), work)), keeper(folder, digest)
    except DataError as error:
        raise DataError(f"{source.table.path}: {error}") from error


def _finish(dataset: MoleculeDataset) -> MoleculeDataset:
    """Check the labels, and fill in what depends on the molecules that were kept."""
    _check_labels(dataset)
    if not dataset.metric:
        dataset.metric = METRICS[dataset.task]
    width = 0 if dataset.descriptors is None else dataset.descriptors.shape[1]
    outputs = len(dataset.task_names)
    classes = 1
    if dataset.task == "multiclass":
        classes = max(len(names) for names in dataset.classes or [])
        if classes < 2:
            raise DataError(
                f"{dataset.table.path}: {dataset.task_names[0]!r} has only one class; give at least two classes."
            )
    dataset.spec = dataset.spec._replace(
        n_tasks=outputs * classes, max_atoms=dataset.packed.max_atoms, descriptor_dim=width
    )
    _tell_of_ids(dataset)
    dataset.report.missing = int(np.isnan(dataset.targets).sum())
    dataset.report.bounds = 0 if dataset.bounds is None else int((dataset.bounds != 0).sum())
    return dataset


def _tell_of_ids(dataset: MoleculeDataset) -> None:
    """Log the ids that several molecules have."""
    counts = Counter(one for one in dataset.ids or () if one.strip())
    several = [one for one, count in counts.items() if count > 1]
    if several:
        log.log(
            NOTE,
            "dataset.id=%s: %s more than once; the first, %r, names %d molecules.",
            dataset.id_column,
            "1 id occurs" if len(several) == 1 else f"{len(several)} ids occur",
            several[0],
            counts[several[0]],
        )


def _kept(
    settings: Mapping[str, Any],
    packed: PackedMolecules,
    canonical: Texts,
    read: Labels,
    report: DataReport,
    sides: Given,
) -> np.ndarray:
    """Return the positions of the molecules to keep.

    They are small enough, and distinct if duplicates are dropped or merged.
    """
    keep = np.arange(len(packed))
    largest = settings.get("max_atoms")
    if largest is not None:
        keep = np.flatnonzero((packed.node_offset.diff() <= largest).numpy())
        report.too_large = len(packed) - len(keep)
    if not len(keep):
        raise DataError(
            f"{report.path}: every molecule has more than dataset.max_atoms={largest} atoms; give a larger number."
        )
    some = read.take(keep)
    report.found = find(canonical.take(keep), some)
    stay = treat(report.found, len(keep), some, settings, sides.take(keep))
    read.values[keep] = some.values
    if read.bounds is not None and some.bounds is not None:
        read.bounds[keep] = some.bounds
    if report.found.rows:
        log.log(logging.WARNING if report.found.lost_labels else NOTE, "%s", report.found.sentence())
    return keep[stay]


def _check_labels(dataset: MoleculeDataset) -> None:
    path, targets, names = dataset.table.path, dataset.targets, dataset.task_names
    empty = [name for name, column in zip(names, targets.T, strict=True) if np.isnan(column).all()]
    if len(empty) == len(names):
        raise DataError(
            f"{path}: no molecule has a label in {', '.join(names[:5])}; name the label columns in dataset.targets."
        )
    if empty:
        log.warning("%s has no labels in %s; these tasks are neither trained nor scored.", path, ", ".join(empty))
