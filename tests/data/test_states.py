"""Colours are equal if and only if the unrolled trees of features are, despite hash collisions and block boundaries."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molsam.chem.arrays import MolArrays
from molsam.chem.chemprop import ChempropFeaturizer
from molsam.data import dataset, states
from molsam.data.dataset import load
from molsam.data.graph import from_dgl
from molsam.data.packed import PackedMolecules, pack
from molsam.data.states import Colours, Rule
from tests.data.helpers import write
from tests.reference.molecules import random_molecules

RULES: tuple[Rule, ...] = ("messages", "neighbours")
STEPS = 4
Trees = tuple[list[Any], list[Any]]


def trees(packed: PackedMolecules, rule: Rule, steps: int) -> Trees:
    """What the states of all atoms and of all bonds are functions of, as nested tuples; by the definition."""
    batch = packed.batch(range(len(packed)))
    kinds = [tuple(row) for row in batch.nodes.tolist()]
    src, dst, types = batch.src.tolist(), batch.dst.tolist(), batch.edge_type.tolist()
    entering: list[list[int]] = [[] for _ in kinds]
    for e, v in enumerate(dst):
        entering[v].append(e)
    first = [(kinds[u], t) for u, t in zip(src, types, strict=True)]
    atoms: list[Any] = kinds
    bonds: list[Any] = first
    for _ in range(steps):
        if rule == "messages":
            atoms = [(atoms[v], sorted_(bonds[e] for e in own)) for v, own in enumerate(entering)]
            bonds = [(first[e], atoms[u], bonds[e ^ 1]) for e, u in enumerate(src)]
        else:
            atoms = [(kinds[v], sorted_(atoms[src[e]] for e in own)) for v, own in enumerate(entering)]
            bonds = [(first[e], sorted_(bonds[k] for k in entering[u] if k != e ^ 1)) for e, u in enumerate(src)]
    return atoms, bonds


def sorted_(values: Any) -> tuple[Any, ...]:
    return tuple(sorted(values, key=repr))


def assert_same_parts(found: np.ndarray, expected: Sequence[Hashable]) -> None:
    """Two rows have equal numbers if and only if what is expected of them is equal; numbers have no gap."""
    assert len(found) == len(expected)
    pairs = set(zip(found.tolist(), expected, strict=True))
    assert len(pairs) == len(set(found.tolist())) == len(set(expected))
    assert set(found.tolist()) == set(range(len(pairs)))


def molecules(seed: int, sizes: list[int], node_types: int | None = 2) -> PackedMolecules:
    return random_molecules(seed, sizes, node_types=node_types, n_types=2)


def colours_of(packed: PackedMolecules) -> Colours:
    assert packed.colours is not None
    return packed.colours


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    node_types=st.sampled_from([1, 2, None]),
    rule=st.sampled_from(RULES),
    steps=st.integers(0, STEPS),
)
def test_colours_are_equal_if_and_only_if_trees_are(
    seed: int, sizes: list[int], node_types: int | None, rule: Rule, steps: int
) -> None:
    packed = molecules(seed, sizes, node_types)
    found = colours_of(packed).after(rule, steps)
    for part, expected in zip(found[:2], trees(packed, rule, steps), strict=True):
        assert_same_parts(part, expected)


def test_trees_of_rings_and_chains_that_differ_far_away() -> None:
    """In a chain of equal atoms one more step tells one more atom from the middle."""
    n = 12
    src = np.array([end for i in range(n - 1) for end in (i, i + 1)], np.int32)
    dst = src.reshape(-1, 2)[:, ::-1].reshape(-1)
    chain = pack([MolArrays(np.ones((n, 3), np.float32), np.ones((len(src), 2), np.float32), src, dst, None)])
    counts = [colours_of(chain).after("neighbours", t).counts[0] for t in range(9)]
    assert counts == [1, 2, 3, 4, 5, 6, 6, 6, 6]
    found = colours_of(chain)
    assert found.after("neighbours", 13) is found.after("neighbours", 20), "no step is computed that changes nothing"


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "mix", [np.zeros_like, lambda v: v & np.uint64(3), lambda v: v % np.uint64(5)], ids=["all", "two bits", "sums"]
)
def test_hashes_that_collide_are_found(
    rule: Rule, mix: Callable[[np.ndarray], np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = 0
    by_comparison = states._by_comparison

    def counted(*given: Any) -> np.ndarray:
        nonlocal compared
        compared += 1
        return by_comparison(*given)

    monkeypatch.setattr(states, "mix", mix)
    monkeypatch.setattr(states, "_by_comparison", counted)
    for seed in range(5):
        packed = molecules(seed, [7, 1, 9, 4])
        for part, expected in zip(colours_of(packed).after(rule, 2)[:2], trees(packed, rule, 2), strict=True):
            assert_same_parts(part, expected)
    assert compared


def test_without_a_collision_nothing_is_compared_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "_by_comparison", None)
    for rule in RULES:
        colours_of(molecules(1, [9] * 20, 1)).after(rule, 3)


@pytest.mark.parametrize("rule", RULES)
def test_blocks_may_end_anywhere(rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = molecules(3, [9, 1, 7, 12, 2, 5])
    expected = colours_of(packed).after(rule, 3)
    for block in (1, 3, 7):
        monkeypatch.setattr(states, "BLOCK", block)
        again = Colours(colours_of(packed).graph).after(rule, 3)
        for part, whole in zip(again[:2], expected[:2], strict=True):
            assert_same_parts(part, whole.tolist())


@settings(max_examples=60)
@given(st.lists(st.integers(0, 5), max_size=20), st.lists(st.integers(0, 20), max_size=3))
def test_classes_are_the_first_of_their_colour(values: list[int], cuts: list[int]) -> None:
    """Whatever the room holds from before, and part by part."""
    numbers = np.array(values, np.int64)
    whole = colours_of(molecules(0, [12] * 5))
    whole.classes(np.arange(10)[::-1])
    for bounds in (None, sorted({0, *(min(cut, len(values)) for cut in cuts), len(values)})):
        part = np.searchsorted(bounds[1:-1], range(len(values)), "right").tolist() if bounds else [0] * len(values)
        keys = list(zip(part, values, strict=True))
        chosen, place = whole.classes(numbers, bounds)
        assert chosen.tolist() == sorted({keys.index(key) for key in keys})
        assert [keys[row] for row in chosen[place]] == keys
        assert whole.first_of(numbers, bounds).tolist() == [keys.index(key) for key in keys]


def test_a_batch_has_the_colours_of_its_rows() -> None:
    packed = molecules(5, [4, 1, 8, 3])
    batch = packed.batch([2, 0, 2])
    assert batch.colours is not None
    rows = np.r_[5:13, 0:4, 5:13]
    step = colours_of(packed).after("messages", 2)
    assert np.array_equal(batch.colours.of_atoms("messages", 2), step.atoms[rows])
    found = batch.colours.of_bonds("messages", 2)
    alone = [packed.batch([i]).colours.of_bonds("messages", 2) for i in (2, 0, 2)]  # type: ignore[union-attr]
    assert np.array_equal(found, np.concatenate(alone))
    assert batch.colours.columns()[3].tolist() == batch.dst.argsort(stable=True).tolist()


@pytest.mark.parametrize("rule", RULES)
def test_a_dgl_graph_made_elsewhere_has_colours(rule: Rule) -> None:
    import dgl

    packed = molecules(2, [6, 1, 9, 3])
    graph = dgl.batch([packed.batch([row]).graph for row in range(4)])
    batch = from_dgl(graph)
    assert batch.colours is not None
    atoms, bonds = trees(packed, rule, 3)
    assert_same_parts(batch.colours.of_atoms(rule, 3), atoms)
    assert_same_parts(batch.colours.of_bonds(rule, 3), bonds)
    assert len(batch.node_table) == 2
    assert batch.colours.columns()[3].tolist() == batch.dst.argsort(stable=True).tolist()
    graph.ndata["x"].requires_grad_()
    assert len(from_dgl(graph).node_table) == 19, "a row for each atom, whose gradient is its own"


def test_a_graph_with_self_loops_has_none() -> None:
    packed = random_molecules(0, [3, 2], self_loops=True)
    assert packed.colours is None
    assert packed.batch([1, 0]).colours is None


def test_colours_are_cached_with_the_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "d.csv", [("C" * n, n) for n in range(1, 30)])
    settings = {"path": str(path), "smiles": "smiles", "targets": None}

    def found(**more: Any) -> Colours:
        return colours_of(load(settings | more, ChempropFeaturizer(), str(tmp_path / "c")).packed)

    expected = found().after("messages", 2)
    smaller = found(max_atoms=20)
    monkeypatch.setattr(states, "number", None)
    monkeypatch.setattr(dataset, "featurize", None)
    for part, again in zip(expected, found().after("messages", 2), strict=True):
        assert np.array_equal(part, again)
    with pytest.raises(TypeError):
        found().after("messages", 3)
    with pytest.raises(TypeError):
        smaller.after("messages", 1)
