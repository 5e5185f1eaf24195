"""LookSAM with an observer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from molsam import optim
from tests.optim.problem import ADAM


def test_looksam_is_the_same_with_and_without_an_observer() -> None:
    """Without one, omega is written over g; a parameter that has g_v but no gradient moves along g_v in both."""
    found = []
    for observed in (False, True):
        first, second = (nn.Parameter(torch.tensor(v, dtype=torch.float64)) for v in ([1.0, 2.0], [3.0, 4.0]))
        optimizer = optim.LookSAM([first, second], ADAM, rho=0.1, k=4, alpha=0.7)
        if observed:
            optimizer.observers.append(lambda event: None)
        for both in (True, True, False, True, True, True):

            def closure(first: Tensor = first, second: Tensor = second, both: bool = both) -> Tensor:
                loss = first.pow(4).sum() + (first.sum() * second.square().sum() if both else 0)
                loss.backward()
                return loss.detach()

            before = second.detach().clone()
            optimizer.step(closure)
            assert not torch.equal(second, before)
        found.append(torch.cat([first.detach(), second.detach()]))
    assert torch.equal(found[0], found[1])
