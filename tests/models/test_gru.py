"""The ragged bidirectional GRU against a literal one and against torch's."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

from molsam.models.layers.gru import BiGRU, packing
from tests.reference.derivatives import check_derivatives
from tests.reference.gru import gru as literal


def _case(seed: int, sizes: list[int]) -> tuple[BiGRU, Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    module = BiGRU(3, 4).double()
    x = torch.randn(sum(sizes), 3, dtype=torch.float64, requires_grad=True)
    h0 = torch.randn(len(sizes), 4, dtype=torch.float64, requires_grad=True)
    return module, torch.tensor(sizes), x, h0


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.lists(st.integers(1, 7), min_size=1, max_size=6))
def test_equals_the_literal_recurrence(seed: int, sizes: list[int]) -> None:
    module, lengths, x, h0 = _case(seed, sizes)
    inputs = [x, h0, *module.parameters()]
    weight = torch.randn(sum(sizes), 8, dtype=torch.float64)
    ours = module(x, lengths, h0)
    theirs = literal(x, sizes, h0, list(module.parameters()))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    for a, b in zip(
        torch.autograd.grad((ours * weight).sum(), inputs),
        torch.autograd.grad((theirs * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_equals_torch_in_float32() -> None:
    module, lengths, x, h0 = _case(0, [9, 2, 30, 1])
    module, x, h0 = module.float(), x.float(), h0.float()
    ours = module(x, lengths, h0)
    parts = [
        nn.GRU.forward(module, part[None], h0[i].expand(2, 1, -1).contiguous())[0][0]
        for i, part in enumerate(x.split(lengths.tolist()))
    ]
    torch.testing.assert_close(ours, torch.cat(parts), rtol=1e-5, atol=1e-6)


def test_can_be_differentiated_twice() -> None:
    module, lengths, x, h0 = _case(1, [2, 4, 1])
    names = [name for name, _ in module.named_parameters()]

    def run(x: Tensor, h0: Tensor, *weights: Tensor) -> Tensor:
        return functional_call(module, dict(zip(names, weights, strict=True)), (x, lengths, h0))

    inputs = (x, h0, *module.parameters())
    check_derivatives(run, inputs, atol=1e-4, fast_mode=True)


def test_input_computed_from_the_initial_state_counts_once() -> None:
    """Second derivatives where one input depends on another (CoMPT's initial state depends on the atoms)."""
    module, lengths, x, _ = _case(2, [3, 2])

    def run(x: Tensor) -> Tensor:
        return module(x, lengths, torch.stack([part.sum().expand(4) for part in x.split([3, 2])]))

    assert torch.autograd.gradgradcheck(run, (x,), atol=1e-4)


def test_molecules_do_not_touch_each_other() -> None:
    module, _, x, h0 = _case(3, [3, 5, 2])
    together = module(x, torch.tensor([3, 5, 2]), h0)
    alone = [module(part, torch.tensor([len(part)]), h0[i : i + 1]) for i, part in enumerate(x.split([3, 5, 2]))]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-13, atol=1e-14)


def test_steps_shrink_as_molecules_end() -> None:
    """No padding: as many packed rows as atoms, and each step has only the molecules that reach it."""
    p = packing(torch.tensor([2, 4, 1]))
    assert p.active == [3, 2, 1, 1]
    atoms = [[row.tolist() for row in block] for block in p.blocks(p.line.unsqueeze(1) // 2)]
    forward = [[2], [0], [6]], [[3], [1]], [[4]], [[5]]
    backward = [[5], [1], [6]], [[4], [0]], [[3]], [[2]]
    assert atoms == [[f, b] for f, b in zip(forward, backward, strict=True)]


def test_parameters_are_torchs() -> None:
    ours, theirs = BiGRU(3, 4), nn.GRU(3, 4, bidirectional=True)
    assert {k: v.shape for k, v in ours.named_parameters()} == {k: v.shape for k, v in theirs.named_parameters()}
