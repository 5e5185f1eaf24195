"""Featurization of SMILES, on all cores for large datasets."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
import threading
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from molsam.chem.arrays import Featurizer, MolArrays
from molsam.chem.descriptors import compute
from molsam.chem.molecule import canonical_smiles, parse
from molsam.chem.standardize import standardize
from molsam.data.packed import PackedMolecules, join, pack
from molsam.data.texts import GrowingTexts, Texts
from molsam.errors import DataError, InvalidMolecule
from molsam.native import process

WORTH_A_POOL = 3000
"""Number of molecules from which starting worker processes saves time."""
CHUNK = 256
"""Molecules that are parsed together, then featurized together."""
PART = 2048
"""Molecules that are packed together as soon as they are featurized."""


class Work(NamedTuple):
    """What is computed for every molecule."""

    featurizer: Featurizer
    descriptors: str | None
    """the molecule descriptors to compute (one of chem.descriptors.NAMES), or None"""
    standardize: str = "none"
    """the standard form to which molecules are brought first (one of chem.standardize.HOW)"""
    canonical: bool = True
    """whether to return the canonical SMILES"""


class Featurized(NamedTuple):
    """One row: arrays, canonical SMILES and descriptors, or the reason why there are none."""

    arrays: MolArrays | None
    canonical: str = ""
    descriptors: np.ndarray | None = None
    reason: str = ""


def featurize(smiles: Sequence[str], work: Work, cores: int | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return all molecules packed, as the tensors and the record of a cache entry.

    Tensors besides those of PackedMolecules: valid, the rows that became molecules; their SMILES, see
    `canonical_of`; descriptors. Record: invalid ((row, reason) pairs), self_loops.
    `cores`: number of processes; None for all cores of the machine.
    Raises DataError if no row has a valid molecule.
    """
    valid, invalid, canonical = array("i"), list[tuple[int, str]](), GrowingTexts()
    descriptors, parts, waiting = list[np.ndarray](), list[PackedMolecules](), list[MolArrays]()
    self_loops = work.featurizer.self_loops
    for row, one in enumerate(_progress(featurized(smiles, work, cores), len(smiles))):
        if one.arrays is None:
            invalid.append((row, one.reason))
            continue
        valid.append(row)
        canonical.extend([one.canonical])
        waiting.append(one.arrays)
        if one.descriptors is not None:
            descriptors.append(one.descriptors)
        if len(waiting) == PART:
            # A packed molecule takes a fiftieth of the memory.
            parts.append(pack(waiting, self_loops=self_loops))
            waiting.clear()
    if not valid:
        first = invalid[0][1] if invalid else "there are no rows"
        raise DataError(f"No row has a valid molecule (the first: {first}); check the SMILES column.")
    if waiting:
        parts.append(pack(waiting, self_loops=self_loops))
    tensors = join(parts).tensors() | {
        "valid": torch.from_numpy(np.frombuffer(valid, np.int32)),
        **stored(canonical.done()),
    }
    if descriptors:
        tensors["descriptors"] = torch.from_numpy(np.stack(descriptors))
    return tensors, {"invalid": invalid, "self_loops": self_loops}


def stored(canonical: Texts) -> dict[str, Tensor]:
    """Return texts as the tensors that `canonical_of` reads."""
    return {"canonical": torch.from_numpy(canonical.data), "canonical_end": torch.from_numpy(canonical.ends)}


def canonical_of(tensors: dict[str, Tensor]) -> Texts:
    """Take the canonical SMILES out of the tensors of a cache entry."""
    return Texts(tensors.pop("canonical").numpy(), tensors.pop("canonical_end").numpy())


def featurized(smiles: Sequence[str], work: Work, cores: int | None = None) -> Iterator[Featurized]:
    """Yield each molecule's features in order; at most a few thousand are held in memory.

    cores: number of processes, if there are enough molecules; None for all cores of the machine.
    """
    cores = process.cores() if cores is None else cores
    done = 0
    if len(smiles) >= WORTH_A_POOL and cores > 1:
        chunks = ((work, list(smiles[i : i + CHUNK])) for i in range(0, len(smiles), CHUNK))
        try:
            with ProcessPoolExecutor(cores, initializer=_begin_worker) as pool:
                for results in _windowed(pool, chunks, 4 * cores):
                    yield from results
                    done += len(results)
        except (BrokenProcessPool, OSError, AssertionError):
            # A worker was killed (out of memory, say), or this process may not have children: continue without workers.
            pass
    for start in range(done, len(smiles), CHUNK):
        yield from _many((work, smiles[start : start + CHUNK]))


def _windowed(pool: ProcessPoolExecutor, chunks: Iterable[Any], size: int) -> Iterator[list[Featurized]]:
    """Yield the results in order, with at most `size` chunks in progress, to bound the memory if the caller is slow."""
    waiting: deque[Future[Bundle]] = deque()
    for chunk in chunks:
        waiting.append(pool.submit(_bundled, chunk))
        if len(waiting) >= size:
            yield unbundled(waiting.popleft().result())
    while waiting:
        yield unbundled(waiting.popleft().result())


class Bundle(NamedTuple):
    """Rows as a worker sends them: a few large arrays are sent ten times as fast as many small ones."""

    rows: list[Featurized]
    """the rows without their arrays"""
    good: list[int]
    """positions of the rows that have arrays"""
    fields: list[list[tuple[int, ...]] | None]
    """for each field of MolArrays, its shape in every molecule; None for a field that is None"""
    values: list[np.ndarray | None]
    """for each field, the values of all molecules in one flat array"""


def bundled(rows: Sequence[Featurized]) -> Bundle:
    """Concatenate the arrays of rows."""
    good = [place for place, row in enumerate(rows) if row.arrays is not None]
    fields: list[list[tuple[int, ...]] | None] = []
    values: list[np.ndarray | None] = []
    for column in zip(*(row.arrays for row in rows if row.arrays is not None), strict=True):
        there = column[0] is not None
        fields.append([value.shape for value in column] if there else None)
        values.append(np.concatenate([value.ravel() for value in column]) if there else None)
    return Bundle([row._replace(arrays=None) for row in rows], good, fields, values)


def unbundled(bundle: Bundle) -> list[Featurized]:
    """Return the rows of a bundle; their arrays are views."""
    rows = list(bundle.rows)
    columns = [
        repeat(None, len(bundle.good)) if shapes is None or flat is None else _cut(flat, shapes)
        for shapes, flat in zip(bundle.fields, bundle.values, strict=True)
    ]
    for place, arrays in zip(bundle.good, zip(*columns, strict=True), strict=True):
        rows[place] = rows[place]._replace(arrays=MolArrays(*arrays))
    return rows


def _cut(flat: np.ndarray, shapes: Sequence[tuple[int, ...]]) -> Iterator[np.ndarray]:
    start = 0
    for shape in shapes:
        end = start + math.prod(shape)
        yield flat[start:end].reshape(shape)
        start = end


def _bundled(chunk: tuple[Work, Sequence[str]]) -> Bundle:
    return bundled(_many(chunk))


def _begin_worker() -> None:
    """Ignore Ctrl-C, which the parent handles, and exit when the parent does: an orphan would keep its run folder
    locked."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _many(chunk: tuple[Work, Sequence[str]]) -> list[Featurized]:
    work, smiles = chunk
    rows = []
    for mol, found in arrays_of(work.featurizer, smiles, work.standardize):
        if isinstance(found, InvalidMolecule):
            rows.append(Featurized(None, reason=str(found)))
        else:
            values = compute(work.descriptors, mol) if work.descriptors else None
            rows.append(Featurized(found, canonical_smiles(mol) if work.canonical else "", values))
    return rows


def arrays_of(
    featurizer: Featurizer, smiles: Sequence[str], how: str = "none"
) -> Iterator[tuple[Any, MolArrays | InvalidMolecule]]:
    """Yield the molecule and the arrays of every SMILES, or in place of either the reason why there is none.

    A chunk is parsed before it is featurized, so that the code of each step stays in the processor's cache. This is a
    fifth faster than molecule by molecule.
    """

    def read(text: str) -> Any:
        return standardize(parse(text), how)

    for start in range(0, len(smiles), CHUNK):
        mols = [_attempt(read, text) for text in smiles[start : start + CHUNK]]
        for mol in mols:
            yield mol, mol if isinstance(mol, InvalidMolecule) else _attempt(featurizer, mol)


def _attempt(step: Callable[[Any], Any], value: Any) -> Any:
    """Return the result, or the InvalidMolecule that was raised instead."""
    try:
        return step(value)
    except InvalidMolecule as error:
        return error


def _progress(items: Iterable[Featurized], total: int) -> Iterable[Featurized]:
    if total < WORTH_A_POOL or not sys.stderr.isatty():
        return items
    from rich.progress import track

    from molsam import terminal

    return track(items, "featurizing", total=total, console=terminal.console(stderr=True))
