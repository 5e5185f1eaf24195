"""Which atoms and bonds have equal states after t steps of message passing, computed once for a whole dataset.

The state of an atom or bond after t steps depends on the features within t bonds of it. Atoms or bonds get the same
colour if these are equal (Weisfeiler and Leman, 1968): the colour after a step stands for the colour before it and for
the colours that the step sums over, in any order. Equal colours mean equal states for any weights, so a model computes
one row per colour. Colours do not depend on the weights or on the batch; a batch looks them up.

Colours are found by a 64-bit hash. Rows of equal hash are then compared, so a collision costs time, but never gives a
wrong state.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from molsam.data.transfer import send

Rule = Literal["messages", "neighbours"]
"""Scheme of message passing; `Colours.after` says what each one sums over."""

BLOCK = 1 << 18
"""Number of rows hashed or compared at a time, to bound the memory."""
LISTED = np.uint64(0xD1B54A32D192ED03)
"""Makes the hash of a number in a list differ from that of the same number in a column."""


Values = Callable[[np.ndarray], np.ndarray]
"""Returns an integer for each of some rows, [n]."""
Lists = tuple[np.ndarray, np.ndarray]
"""Values of lists, one list after the other; and the length of each list."""
ListsOf = Callable[[np.ndarray], Lists]
"""Returns the lists of some rows."""


class Step(NamedTuple):
    """Colours after a step. Atoms and bonds are each numbered from 0 without gaps."""

    atoms: np.ndarray
    """int8, int16 or int32 [A]"""
    bonds: np.ndarray
    """int8, int16 or int32 [E]"""
    counts: tuple[int, int]
    """number of colours of the atoms, and of the bonds"""

    @classmethod
    def of(cls, atoms: np.ndarray, bonds: np.ndarray) -> Step:
        """Count the colours."""
        return cls(atoms, bonds, (int(atoms.max(initial=-1)) + 1, int(bonds.max(initial=-1)) + 1))


Keep = Callable[[str, Callable[[], dict[str, Tensor]]], dict[str, Tensor]]
"""Function that returns the tensors stored under a name, or makes and stores them."""


class Graph(NamedTuple):
    """The A atoms and E directed bonds of all molecules of a dataset; the reverse of bond i is i ^ 1."""

    kind: np.ndarray
    """int [A], equal for atoms with equal features"""
    edge_type: np.ndarray
    """int [E], equal for bonds with equal features"""
    src: Values
    """returns the atoms that bonds leave"""
    entering: Callable[[], ListsOf]
    """returns a function of atoms that returns the bonds that enter them; its memory is needed only while it is used"""


class Colours:
    """Colours of a dataset's atoms and bonds. A step is computed, or read from the cache, when it is first used."""

    def __init__(self, graph: Graph, keep: Keep | None = None) -> None:
        self.graph, self._largest = graph, len(graph.kind)
        self._keep = keep
        self._found: dict[Rule, list[Step]] = {}
        self._room = threading.local()

    def after(self, rule: Rule, steps: int) -> Step:
        """Return the colours after `steps` steps.

        Before the first step an atom's colour stands for its features, and a bond's for its own and its source's
        features. A step combines a colour with those of other rows.

        rule: "messages" (CMPNN, DMPNN) combines an atom's colour with those of the bonds that enter it, then a bond's
        with the new colour of its source and the old colour of its reverse. "neighbours" (GROVER) combines an atom's
        colour with those of its neighbours, and a bond's with those of the bonds that enter its source, except its own
        reverse.
        """
        found = self._found.setdefault(rule, [])
        while len(found) <= steps:
            # If a step adds no colours, later steps do not either.
            settled = len(found) > 1 and found[-1].counts == found[-2].counts
            found.append(found[-1] if settled else self._step(rule, found))
            self._largest = max(self._largest, *found[-1].counts)
        return found[steps]

    def _step(self, rule: Rule, found: list[Step]) -> Step:
        made = False

        def make() -> dict[str, Tensor]:
            nonlocal made
            made = True
            return _tensors(_RULES[rule](self.graph, found[-1]) if found else _first(self.graph))

        step = self._stored(rule, len(found), make)
        if made and found and self._keep is not None:
            # Opened again, because all its pages were read and would stay in memory.
            before = found[-1]
            found[-1] = self._stored(rule, len(found) - 1, lambda: _tensors(before))
        return step

    def _stored(self, rule: Rule, steps: int, make: Callable[[], dict[str, Tensor]]) -> Step:
        """Return a step from the cache, or else as it is made."""
        stored = make() if self._keep is None else self._keep(f"{rule}-{steps}" if steps else "features", make)
        atoms, bonds = stored["counts"].tolist()
        return Step(stored["atoms"].numpy(), stored["bonds"].numpy(), (atoms, bonds))

    def classes(self, colours: np.ndarray, bounds: list[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return one row for each colour, int64 [n], ascending; and for every row the index of its colour, int64 [N].

        bounds: boundaries of parts of the rows. Rows of different parts count as different colours.
        """
        first, own = self.first_of(colours, bounds), np.arange(len(colours))
        chosen = np.flatnonzero(first == own)
        own[chosen] = np.arange(len(chosen))
        return chosen, own.take(first)

    def first_of(self, colours: np.ndarray, bounds: list[int] | None = None) -> np.ndarray:
        """Return for every row the first row of the same colour, int64 [N]; `bounds` as in `classes`."""
        # The scratch array has an element for each colour. It need not be cleared, because only elements that were just
        # written are read. Sorting the rows of a batch would take five times as long.
        room, backwards = self._scratch, np.arange(len(colours) - 1, -1, -1)
        if bounds is None or len(bounds) <= 2:
            room[colours[::-1]] = backwards
            return room.take(colours)
        first = np.empty(len(colours), np.int64)
        for start, end in pairwise(bounds):
            part = colours[start:end]
            room[part[::-1]] = backwards[len(colours) - end : len(colours) - start]
            first[start:end] = room.take(part)
        return first

    @property
    def _scratch(self) -> np.ndarray:
        if len(getattr(self._room, "numbers", ())) < self._largest:
            self._room.numbers = np.empty(self._largest, np.int64)
        numbers: np.ndarray = self._room.numbers
        return numbers


class BatchColours(NamedTuple):
    """Colours and graph of a batch of N atoms and E directed bonds; on the CPU, whatever the batch's device."""

    whole: Colours
    """those of the dataset"""
    atoms: np.ndarray
    """int64 [N], index of each atom in the dataset"""
    bonds: np.ndarray
    """int64 [E], index of each directed bond in the dataset"""
    node_type: np.ndarray
    """int64 [N], as in the batch"""
    columns: Callable[[], tuple[Tensor, ...]]
    """returns src, dst, edge_type and entering, int64 [E]; entering: the bonds that enter atom 0, then atom 1, ..."""
    offsets: np.ndarray
    """int64 [N + 1], where each atom's bonds begin in `entering`"""

    def of_atoms(self, rule: Rule, steps: int) -> np.ndarray:
        """Return the colours of the atoms after `steps` steps (see `Colours.after`), int64 [N]."""
        return self.whole.after(rule, steps).atoms.take(self.atoms).astype(np.int64)

    def of_bonds(self, rule: Rule, steps: int) -> np.ndarray:
        """Return the colours of the bonds after `steps` steps, int64 [E]."""
        return self.whole.after(rule, steps).bonds.take(self.bonds).astype(np.int64)

    def classes(self, colours: np.ndarray, bounds: list[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """See `Colours.classes`."""
        return self.whole.classes(colours, bounds)


def to_device(arrays: list[np.ndarray], device: torch.device) -> list[Tensor]:
    """Return int64 arrays as tensors on a device, transferred in one copy."""
    tensors = [torch.from_numpy(array) for array in arrays]
    return tensors if device.type == "cpu" else send(tensors, device)


def ranges(starts: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return s0, s0 + 1, ..., s0 + c0 - 1, s1, ... for starts s and counts c, and the offsets, int64 [n + 1]."""
    offsets = np.zeros(len(counts) + 1, np.int64)
    counts.cumsum(out=offsets[1:])
    return np.arange(offsets[-1]) + (starts - offsets[:-1]).repeat(counts), offsets


def _tensors(step: Step) -> dict[str, Tensor]:
    arrays = {"atoms": step.atoms, "bonds": step.bonds, "counts": np.array(step.counts)}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _first(graph: Graph) -> Step:
    ends = _ends(graph, graph.kind)
    return Step.of(
        number(len(graph.kind), [graph.kind.take]), number(len(graph.edge_type), [ends, graph.edge_type.take])
    )


def _messages(graph: Graph, before: Step) -> Step:
    atoms = number(len(before.atoms), [before.atoms.take], _entering(graph, before.bonds.take))
    columns: list[Values] = [before.bonds.take, _ends(graph, atoms), lambda bonds: before.bonds.take(bonds ^ 1)]
    return Step.of(atoms, number(len(before.bonds), columns))


def _neighbours(graph: Graph, before: Step) -> Step:
    atoms = number(len(before.atoms), [before.atoms.take], _entering(graph, _ends(graph, before.atoms)))
    return Step.of(atoms, number(len(before.bonds), [before.bonds.take], _following(graph, before.bonds.take)))


_RULES: dict[Rule, Callable[[Graph, Step], Step]] = {"messages": _messages, "neighbours": _neighbours}


def _ends(graph: Graph, atoms: np.ndarray) -> Values:
    """Return the values of the atoms that bonds leave."""
    return lambda bonds: atoms.take(graph.src(bonds))


def _entering(graph: Graph, values: Values) -> ListsOf:
    """Return for atoms the values of the bonds that enter them."""
    entering = graph.entering()

    def lists(atoms: np.ndarray) -> Lists:
        bonds, counts = entering(atoms)
        return values(bonds), counts

    return lists


def _following(graph: Graph, values: Values) -> ListsOf:
    """Return for bonds the values of the bonds that enter their source, except their own reverse."""
    entering = graph.entering()

    def lists(bonds: np.ndarray) -> Lists:
        found, counts = entering(graph.src(bonds))
        return values(found[found != (bonds ^ 1).repeat(counts)]), counts - 1

    return lists


def number(n: int, columns: Sequence[Values], lists: ListsOf | None = None) -> np.ndarray:
    """Return a colour for every row, [n], numbered from 0, in the smallest type that holds them.

    Rows have the same colour if and only if their columns and lists are equal.

    Args:
        n: number of rows.
        columns: return the integers of some rows, int64 [m].
        lists: returns the lists of some rows; the order within a list does not count.
    """
    colours, row = _by_hash(_hashed(n, columns, lists))
    if not all(_equal(columns, lists, rows, row[colours[rows]]) for rows in _blocks(n)):
        colours = _by_comparison(n, columns, lists)
    return colours.astype(smallest(int(colours.max(initial=0))), copy=False)


def smallest(largest: int) -> np.dtype:
    """Return the smallest of int8, int16 and int32 that holds the numbers from 0 to `largest`."""
    return np.result_type(np.int8, np.min_scalar_type(-largest - 1))


def _blocks(n: int) -> Iterator[np.ndarray]:
    return (np.arange(start, min(start + BLOCK, n)) for start in range(0, n, BLOCK))


def _hashed(n: int, columns: Sequence[Values], lists: ListsOf | None) -> np.ndarray:
    """Return a hash of each row's columns and list, uint64 [n]."""
    hashes = np.zeros(n, np.uint64)
    for rows in _blocks(n):
        part = hashes[rows[0] : rows[-1] + 1]
        for column in columns:
            part[:] = mix(part ^ column(rows).astype(np.uint64))
        if lists is not None:
            values, counts = lists(rows)
            # The sum of hashes, modulo 2^64, does not depend on their order.
            sums = np.zeros(len(values) + 1, np.uint64)
            mix(values.astype(np.uint64) ^ LISTED).cumsum(out=sums[1:])
            ends = counts.cumsum()
            part[:] = mix(part ^ (sums[ends] - sums[ends - counts]))
    return hashes


def mix(values: np.ndarray) -> np.ndarray:
    """Return a 64-bit hash of every number, uint64 [n] (the finalizer of SplitMix64)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _by_hash(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a number for each row, equal for equal hashes, int32 [n]; and a row of each number."""
    known, waiting, count = np.empty(0, np.uint64), list[np.ndarray](), 0
    for start in range(0, len(hashes), BLOCK):
        waiting.append(np.unique(hashes[start : start + BLOCK]))
        count += len(waiting[-1])
        if count > max(len(known), BLOCK):
            known, waiting, count = np.unique(np.concatenate([known, *waiting])), [], 0
    known = np.unique(np.concatenate([known, *waiting]))
    colours, row = np.empty(len(hashes), np.int32), np.empty(len(known), np.int32)
    for start in range(0, len(hashes), BLOCK):
        part = known.searchsorted(hashes[start : start + BLOCK])
        colours[start : start + BLOCK] = part
        row[part] = np.arange(start, start + len(part))
    return colours, row


def _equal(columns: Sequence[Values], lists: ListsOf | None, rows: np.ndarray, others: np.ndarray) -> bool:
    """Return whether each row equals its counterpart in `others`."""
    differing = rows != others
    rows, others = rows[differing], others[differing]
    if not all(np.array_equal(column(rows), column(others)) for column in columns):
        return False
    return lists is None or all(map(np.array_equal, _sorted(*lists(rows)), _sorted(*lists(others))))


def _sorted(values: np.ndarray, counts: np.ndarray) -> Lists:
    """Return the lists, each sorted."""
    keys = (np.arange(len(counts)).repeat(counts) << 32) | values
    keys.sort()
    return keys & 0xFFFFFFFF, counts


def _by_comparison(n: int, columns: Sequence[Values], lists: ListsOf | None) -> np.ndarray:
    """Return the same as `number`, without hashes: slower, used when two different rows have the same hash."""
    every = np.arange(n)
    whole = [np.asarray(column(every), np.int64) for column in columns]
    if lists is not None:
        values, counts = _sorted(*lists(every))
        table = np.full((len(counts), counts.max(initial=0)), -1, np.int64)
        table[np.arange(table.shape[1]) < counts[:, None]] = values
        whole += list(table.T)
    return np.unique(np.stack(whole, axis=1), axis=0, return_inverse=True)[1].reshape(-1).astype(np.int32)
