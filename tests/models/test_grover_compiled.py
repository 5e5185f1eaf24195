"""GROVER's C files equal torch's steps, in values and in two derivatives, for any sizes and threads."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from molsam.data.batch import MoleculeBatch
from molsam.models.grover import compiled
from molsam.models.grover.encoders import Plan, encode
from molsam.models.grover.graph import Neighbourhood, Neighbours, chunks
from molsam.models.layers.activation import leaky
from molsam.models.layers.head_attention import head_attention
from molsam.native import kernels
from tests.models.test_grover import batch_of, build
from tests.models.test_grover_parts import assert_same, randn

pytestmark = pytest.mark.skipif(kernels.in_use() != "compiled", reason="no C compiler")

EPS = 0.01
"""of norms: larger than any model's, to be seen"""
SMALL = ["CC(=O)OC", "C", "C1CC1N"]
LARGE = ["C" * 120, "CCO", "C", "CC(C)(C)C" * 12, "C1CC1" * 40, "C" * 300, "CN(C)C", "C" * 64, "[Na+].[Cl-]"]
"""beyond the rows that C takes at a time, of which a thread has several chunks"""


def lists_of(n: int, rows: Tensor, offsets: Tensor) -> Neighbours:
    """The sums over lists of numbers below n."""
    owner = torch.arange(len(offsets) - 1).repeat_interleave(offsets.diff())
    back_offsets = F.pad(torch.bincount(rows, minlength=n).cumsum(0), (1, 0))
    return Neighbours(rows, offsets, owner[rows.argsort(stable=True)], back_offsets)


def types_of(batch: MoleculeBatch) -> Tensor:
    """Equal numbers for atoms of equal features, int64 [N]."""
    return batch.nodes.unique(dim=0, return_inverse=True)[1]


def block_inputs(n: int, h: int, heads: int, biased: bool) -> list[Tensor]:
    torch.manual_seed(0)
    biases = [randn(3 * heads, h), randn(h), randn(h)] if biased else []
    qkv = [p for _ in range(3) for p in (randn(h, h), randn(h))]
    maps = randn(h, heads * h), randn(h, h)
    return [randn(h), randn(h), randn(n, h), randn(3 * heads, h, h), *maps, *qkv, *biases]


def check_block(
    smiles: list[str], h: int, heads: int, depths: list[int], biased: bool, bonds: bool, act: nn.Module
) -> None:
    batch = batch_of(smiles)
    graph = Neighbourhood.of(batch, False, (max(depths), max(depths)))
    neighbours, rows = (graph.bonds, graph.bond_rows) if bonds else (graph.atoms, graph.atom_rows)
    assert rows is not None
    node_type = types_of(batch)
    features = torch.stack([node_type[batch.src], batch.edge_type]) if bonds else node_type[None]
    kind = torch.unique(features, dim=1, return_inverse=True)[1][rows]  # states are equal only if features are
    by_result = leaky(act)
    assert by_result is not None
    plan = Plan.of(depths, torch.randperm(3 * heads, generator=torch.Generator().manual_seed(1)).tolist())
    inputs = [x.detach().mul(0.3).requires_grad_() for x in block_inputs(int(kind.max()) + 1, h, heads, biased)]
    assert kernels.available(inputs[0])

    def fused(gain: Tensor, bias: Tensor, x: Tensor, W: Tensor, W_o: Tensor, W_out: Tensor, *rest: Tensor) -> Tensor:
        qkv, (b, b_o, b_out) = rest[:6], rest[6:] or (None, None, None)
        tensors = gain, bias, x[kind], W, b, W_o, b_o, W_out, b_out, *qkv
        return compiled.block(neighbours, plan, by_result, heads, EPS, *tensors)

    def plain(gain: Tensor, bias: Tensor, x: Tensor, W: Tensor, W_o: Tensor, W_out: Tensor, *rest: Tensor) -> Tensor:
        qkv, (b, b_o, b_out) = rest[:6], rest[6:] or (None, None, None)
        states = encode(x[kind], W, b, neighbours, plan, lambda m, _: act(m)).unflatten(0, (3, heads))
        mapped = F.linear(head_attention(states, list(qkv), heads), W_out, b_out)
        return F.layer_norm(F.linear(mapped.flatten(1), W_o, b_o), (h,), gain, bias, EPS)

    assert_same(fused, plain, inputs)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(
    ("heads", "h", "depths"),
    [
        (2, 4, [3, 1, 2, 0, 5, 2]),
        (1, 3, [1, 2, 1]),
        (4, 20, [2] * 12),
        (5, 35, [3, 1, 1, 2, 4, 2, 3, 3, 1, 2, 2, 6, 2, 1, 1]),
    ],
)
def test_a_block(heads: int, h: int, depths: list[int], biased: bool) -> None:
    check_block(SMALL, h, heads, depths, biased, True, nn.ReLU())
    check_block(SMALL, h, heads, depths, biased, False, nn.LeakyReLU(0.1))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("bonds", [True, False])
def test_a_block_of_many_rows(bonds: bool) -> None:
    check_block(LARGE, 4, 2, [3, 1, 2, 0, 4, 2], True, bonds, nn.ReLU())


def test_a_block_without_messages() -> None:
    atoms, act = Neighbourhood.of(batch_of(["CCO"]), False, (1, 1)).atoms, leaky(nn.ReLU())
    assert act is not None
    gain, bias, x, W, W_o, W_out, *qkv = block_inputs(3, 4, 2, False)
    plan = Plan.of([1] * 6, list(range(6)))
    states = x.expand(3, 2, 3, 4)
    mapped = F.linear(head_attention(states, qkv, 2), W_out)
    expected = F.layer_norm(F.linear(mapped.flatten(1), W_o), (4,), gain, bias, EPS)
    found = compiled.block(atoms, plan, act, 2, EPS, gain, bias, x, W, None, W_o, None, W_out, None, *qkv)
    torch.testing.assert_close(found, expected)
    weight = torch.randn(3, 4, dtype=torch.float64)
    ours, theirs = ((out * weight).sum() for out in (found, expected))
    torch.testing.assert_close(
        torch.autograd.grad(ours, [gain, bias, x, W_o, W_out, *qkv]),
        torch.autograd.grad(theirs, [gain, bias, x, W_o, W_out, *qkv]),
    )


def test_a_block_without_rows() -> None:
    bonds, act = Neighbourhood.of(batch_of(["C", "[Na+]"]), False, (1, 1)).bonds, leaky(nn.ReLU())
    assert act is not None
    gain, bias, x, W, W_o, W_out, *qkv = block_inputs(0, 4, 2, False)
    plan = Plan.of([2] * 6, list(range(6)))
    out = compiled.block(bonds, plan, act, 2, EPS, gain, bias, x, W, None, W_o, None, W_out, None, *qkv)
    out.sum().backward()
    assert out.shape == (0, 4)
    assert not W.grad.any()  # type: ignore[union-attr]


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(("n", "kinds", "h"), [(7, [3], 4), (1, [1, 2], 3), (0, [2], 4), (300, [40, 7], 35)])
def test_an_input_layer(n: int, kinds: list[int], h: int, biased: bool) -> None:
    torch.manual_seed(0)
    act, chosen = nn.LeakyReLU(0.1), [torch.randint(count, (n,)) for count in kinds]
    widths = [5, 2][: len(kinds)]
    inputs = [randn(h), randn(h), randn(h, sum(widths)), *map(randn, kinds, widths), *([randn(h)] if biased else [])]
    by_result = leaky(act)
    assert by_result is not None

    def fused(gain: Tensor, shift: Tensor, W: Tensor, *rest: Tensor) -> Tensor:
        tables, b = rest[: len(kinds)], rest[-1] if biased else None
        return compiled.input_layer(chosen, by_result, EPS, gain, shift, W, b, *tables)

    def plain(gain: Tensor, shift: Tensor, W: Tensor, *rest: Tensor) -> Tensor:
        features = torch.cat([table[kind] for table, kind in zip(rest, chosen, strict=False)], dim=1)
        return F.layer_norm(act(F.linear(features, W, rest[-1] if biased else None)), (h,), gain, shift, EPS)

    if n:
        assert_same(fused, plain, inputs)
    else:
        fused(*inputs).sum().backward()
        assert not inputs[2].grad.any()  # type: ignore[union-attr]


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("n", "kinds", "h", "hidden"), [(7, 3, 4, 16), (1, 1, 3, 5), (0, 2, 4, 16), (300, 40, 20, 81)])
def test_feed_forward(n: int, kinds: int, h: int, hidden: int) -> None:
    torch.manual_seed(0)
    kind, act, states = torch.randint(kinds, (n,)), nn.LeakyReLU(0.1), n // 2 + 3
    offsets = F.pad(torch.randint(4, (n,)).cumsum(0), (1, 0))  # some lists are empty, and some states in none
    neighbours = lists_of(states, torch.randint(states, (int(offsets[-1]),)), offsets)
    layers = [randn(hidden, h + 2), randn(hidden), randn(h, hidden), randn(h)]
    inputs = [randn(kinds, 2), randn(states, h), *layers, randn(h), randn(h)]
    by_result = leaky(act)
    assert by_result is not None

    def fused(*tensors: Tensor) -> Tensor:
        return compiled.feed_forward(kind, neighbours, by_result, EPS, *tensors)

    def plain(table: Tensor, x: Tensor, W_1: Tensor, b_1: Tensor, W_2: Tensor, b_2: Tensor, *norm: Tensor) -> Tensor:
        total = torch.stack([x[rows].sum(0) for rows in neighbours.rows.split(offsets.diff().tolist())])
        hidden = act(F.linear(torch.cat([table[kind], total], dim=1), W_1, b_1))
        return F.layer_norm(F.linear(hidden, W_2, b_2), (h,), *norm, EPS)

    if n:
        assert_same(fused, plain, inputs)
    else:
        fused(*inputs).sum().backward()
        assert not inputs[2].grad.any()  # type: ignore[union-attr]


def colours(neighbours: Neighbours, kinds: list[object], steps: int, molecules: list[int]) -> list[int]:
    """Of each row after so many steps, by the definition, molecule by molecule."""
    lists = [part.tolist() for part in neighbours.rows.split(neighbours.offsets.diff().tolist())]
    seen: dict[object, int] = {}
    found = [seen.setdefault((molecule, kind), len(seen)) for molecule, kind in zip(molecules, kinds, strict=True)]
    for _ in range(steps):
        seen = {}
        keys = [(found[i], tuple(sorted(found[k] for k in around))) for i, around in enumerate(lists)]
        found = [seen.setdefault(key, len(seen)) for key in keys]
    return found


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("smiles", [SMALL, LARGE, ["C", "[Na+]"], ["CC(C)C", "C1CC1"]])
def test_classes_are_the_colours_of_weisfeiler_and_leman(smiles: list[str], steps: int) -> None:
    batch = batch_of(smiles)
    whole, found = Neighbourhood.of(batch, False), Neighbourhood.of(batch, False, (steps, steps))
    node_type = types_of(batch)
    atoms = node_type.tolist()
    bonds = list(zip(node_type[batch.src].tolist(), batch.edge_type.tolist(), strict=True))
    for sums, all_rows, rows, to_atoms, to_all, kinds, sizes in (
        (found.atoms, whole.atoms, found.atom_rows, found.around, whole.around, atoms, batch.sizes),
        (found.bonds, whole.bonds, found.bond_rows, found.entering, whole.entering, bonds, batch.bonds),
    ):
        assert rows is not None
        assert sums.bounds is not None
        # A chunk of whole molecules tells its rows apart by itself.
        begins = torch.cat([rows, torch.tensor([len(kinds)])])[sums.bounds[:-1]]
        chunk = torch.bucketize(sizes.cumsum(0) - sizes, begins, right=True)
        chunks = chunk.repeat_interleave(sizes).tolist()
        expected = torch.tensor(colours(all_rows, list(kinds), steps, chunks))
        assert torch.equal(expected[rows], expected[rows].unique()), "one row of each colour"
        assert len(rows) == len(expected.unique())
        assert sums.bounds[-1] == len(rows)
        assert sums.same is not None
        for made, same in enumerate(sums.same.tolist(), start=1):
            then = torch.tensor(colours(all_rows, list(kinds), made, chunks))[rows].tolist()
            assert same == [then.index(colour) for colour in then], "the first of the rows that are equal by then"
        x = torch.randn(len(kinds), 3, dtype=torch.float64)
        x = x[rows][torch.searchsorted(expected[rows], expected)]  # the same for the rows of a class
        torch.testing.assert_close(sums.sum(x[rows]), all_rows.sum(x)[rows])
        torch.testing.assert_close(to_atoms.sum(x[rows]), to_all.sum(x))
        dense = torch.eye(len(rows), dtype=torch.float64)
        for lists in (sums, to_atoms):
            targets = torch.eye(len(lists.offsets) - 1, dtype=torch.float64)
            torch.testing.assert_close(lists.gather(targets, transposed=True), lists.gather(dense).T)


@pytest.mark.parametrize("biased", [True, False])
def test_a_model_gives_the_same_with_and_without_classes(biased: bool) -> None:
    found = []
    for classes in (True, False):
        model = build(activation="relu", bias=biased, n_blocks=2).train()
        with pytest.MonkeyPatch.context() as patch:
            if not classes:
                patch.setattr(kernels, "in_use", lambda: "torch")
            batch = batch_of([*SMALL, *LARGE, "CC(C)(C)CC(C)(C)C", "c1ccccc1"])
            assert len(batch.node_table) < batch.n_atoms / 8, "atoms are alike"
            output = model(batch, torch.tensor([3, 1, 2, 5, 2, 4] * (2 * 2 * 3 * model.n_heads // 6)))
            (output.logits.square().sum() + output.auxiliary.sum()).backward()
            found.append([output.logits, *(p.grad for p in model.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(
    "sizes", [[5], [0, 0, 3], [0], [13] * 32, [700, 1, 1, 1], [1, 1, 700], [9, 400, 30, 2, 500, 80, 7] * 4]
)
def test_chunks_are_whole_molecules_of_much_the_same_size(sizes: list[int], threads: int) -> None:
    begins = torch.tensor(chunks(sizes, threads))
    rows, count = begins.diff(), len(begins) - 1
    assert begins[0] == 0
    assert begins[-1] == sum(sizes)
    assert set(begins.tolist()) <= {0, *torch.tensor(sizes).cumsum(0).tolist()}
    assert rows.max() <= 640 + max(sizes)
    if len(sizes) > 20:
        assert count % threads == 0
        assert rows.max() - rows.min() <= 2 * max(sizes)
