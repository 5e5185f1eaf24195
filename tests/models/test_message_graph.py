"""The message steps: which states are merged, against colours refined literally, and the sums over them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from molsam.data.batch import MoleculeBatch
from molsam.errors import DataError
from molsam.models.message_graph import Atoms, Bonds, MessageGraph, sum_entering, sum_times_max, take, turn
from tests.reference.derivatives import check_derivatives
from tests.reference.molecules import random_molecules


def _colours(keys: Iterable[Hashable], known: dict[Hashable, int]) -> list[int]:
    return [known.setdefault(key, len(known)) for key in keys]


def _refined(batch: MoleculeBatch, messages: int, apart: bool) -> list[tuple[list[int], list[int]]]:
    """Of each step the colours of all atoms and of all bonds (after the last message: of none), by the definition."""
    known: dict[Hashable, int] = {}
    src, types = batch.src.tolist(), batch.edge_type.tolist()
    kinds = batch.nodes.unique(dim=0, return_inverse=True)[1].tolist()
    entering = [(batch.dst == v).nonzero().flatten().tolist() for v in range(len(kinds))]
    a = _colours(kinds, known)
    b = b0 = _colours(((kinds[u], t) for u, t in zip(src, types, strict=True)), known)
    steps = []
    for step in range(messages + 1):
        # Dropout makes equal states different from the first message on.
        a = _colours(
            (
                (a[v], tuple(sorted(b[e] for e in own)), (v, step) if apart and step else 0)
                for v, own in enumerate(entering)
            ),
            known,
        )
        if step < messages:
            b = _colours(((b0[e], a[u], b[e ^ 1], (e, step) if apart else 0) for e, u in enumerate(src)), known)
        steps.append((a, b if step < messages else []))
    return steps


@settings(max_examples=100)
@given(
    seed=st.integers(0, 10**6),
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=8),
    node_types=st.integers(1, 3),
    messages=st.integers(0, 4),
    apart=st.booleans(),
)
def test_each_state_is_computed_once(seed: int, sizes: list[int], node_types: int, messages: int, apart: bool) -> None:
    batch = random_molecules(seed, sizes, node_types=node_types, n_types=2).batch(range(len(sizes)))
    graph = MessageGraph.of(batch, messages, apart=apart)
    expected = _refined(batch, messages, apart)
    assert [len(step.before) for step in graph.atoms] == [len(set(a)) for a, _ in expected]
    assert [len(step.src) for step in graph.bonds] == [len(set(b)) for _, b in expected[:-1]]
    assert torch.equal(batch.nodes, batch.node_table[graph.kind[graph.place]])


@pytest.mark.parametrize("merged", [True, False])
@pytest.mark.parametrize("apart", [True, False])
@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), node_types=st.integers(1, 3), messages=st.integers(0, 4))
def test_the_steps_lead_to_the_states_of_every_atom(
    merged: bool, apart: bool, seed: int, node_types: int, messages: int
) -> None:
    """Messages of whole numbers, exact in float64, by the steps and atom by atom."""
    batch = random_molecules(seed, [9, 1, 6, 12], node_types=node_types, n_types=2).batch(range(4))
    graph = MessageGraph.of(batch, messages, apart=apart, merged=merged)
    of_table = batch.node_table.unique(dim=0, return_inverse=True)[1]
    node_type, entering = of_table[batch.node_type], torch.nn.functional.one_hot(batch.dst, batch.n_atoms).T

    def mixed(x: torch.Tensor) -> torch.Tensor:
        return (7 * x + 3 * x * x) % 10007

    a, b = node_type + 1, mixed(node_type[batch.src]) + 5 * batch.edge_type
    ours_a, ours_b = of_table + 1, mixed(of_table[graph.source]) + 5 * graph.type
    b0, ours_b0 = b, ours_b
    for step, atoms in enumerate(graph.atoms):
        a = mixed(a + entering @ b)
        lists = atoms.rows[: int(atoms.offsets[-1])].tensor_split(atoms.offsets[1:-1])
        ours_a = mixed(ours_a[atoms.before] + torch.stack([ours_b[rows].sum() for rows in lists]))
        if step < messages:
            bonds = graph.bonds[step]
            b = mixed(b0 + 2 * a[batch.src] + b[batch.rev])
            ours_b = mixed(ours_b0[bonds.start] + 2 * ours_a[bonds.src] + ours_b[bonds.rev])
    assert torch.equal(ours_a[graph.place], a)


def test_a_graph_without_bonds_or_with_self_loops() -> None:
    alone = random_molecules(0, [1, 1], node_types=1).batch([0, 1])
    graph = MessageGraph.of(alone, 2)
    assert [len(step.src) for step in graph.bonds] == [0, 0]
    with pytest.raises(DataError, match="self loop has no reverse bond"):
        MessageGraph.of(random_molecules(0, [2], self_loops=True).batch([0]), 2)


def _atoms(n: int, bonds: int, earlier: int) -> Atoms:
    """Lists of any rows, some of them none, some of a row more than once."""
    count = torch.randint(0, 4, (n,))
    count[0] = 0
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), count.cumsum(0)])
    rows = torch.randint(bonds, (int(offsets[-1]),))
    return Atoms(torch.randint(earlier, (n,)), rows, offsets, torch.arange(n).repeat_interleave(count))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("width", [1, 3, 40])
@pytest.mark.parametrize("full", [0, 3])
def test_sums_and_maxima(width: int, full: int) -> None:
    torch.manual_seed(width + full)
    atoms = _atoms(9, 4, 5)
    hidden, x = torch.randn(4, width), torch.randn(5, width)
    expected = torch.zeros(9, width)
    for p, (begin, end) in enumerate(zip(atoms.offsets[:-1].tolist(), atoms.offsets[1:].tolist(), strict=True)):
        own = hidden[atoms.rows[begin:end]]
        if len(own):
            bound = 0 if len(own) < full else -torch.inf
            expected[p] = own.sum(0) * own.max(0).values.clamp(min=bound)
        torch.testing.assert_close(sum_entering(hidden, atoms)[p], own.sum(0))
    torch.testing.assert_close(sum_times_max(hidden, atoms, full), expected)
    torch.testing.assert_close(sum_times_max(hidden, atoms, full, x), expected + x[atoms.before])


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("width", [2, 19])
def test_sums_and_differences_have_two_derivatives(width: int) -> None:
    torch.manual_seed(0)
    atoms, step = _atoms(5, 3, 4), Bonds(*torch.randint(3, (3, 7)))
    hidden, x = (torch.randn(n, width, dtype=torch.float64, requires_grad=True) for n in (3, 4))
    check_derivatives(lambda h: sum_entering(h, atoms), (hidden,))
    check_derivatives(lambda h: sum_times_max(h, atoms, 2), (hidden,))
    check_derivatives(lambda h, y: sum_times_max(h, atoms, 0, y), (hidden, x))
    check_derivatives(lambda a, b: turn(a, b, step), (x, hidden))
    check_derivatives(lambda y: take(y, step.src), (x,))
