"""A small problem for the optimizers: the twins' network in torch, and a closure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from molsam.optim import Optimizer

SGD = partial(torch.optim.SGD, lr=0.1)
ADAM = partial(torch.optim.Adam, lr=0.01, fused=True)


class Problem:
    """y = W2 tanh(W1 x + b1) + b2 on random mini-batches, in float64."""

    def __init__(self, seed: int = 0, batches: int = 5, size: int = 7, width: int = 6) -> None:
        rng = np.random.default_rng(seed)
        self.start = {
            "W1": rng.normal(size=(width, 3)),
            "b1": rng.normal(size=width) * 0.3,
            "W2": rng.normal(size=(2, width)),
            "b2": rng.normal(size=2) * 0.3,
        }
        self.batches = [(rng.normal(size=(size, 3)), rng.normal(size=(size, 2))) for _ in range(batches)]
        self.params = {name: nn.Parameter(torch.tensor(value)) for name, value in self.start.items()}
        self.step = 0

    def losses(self, select: Tensor | None = None) -> Tensor:
        """Losses of the samples of this step's batch."""
        x, y = (torch.tensor(a) for a in self.batches[self.step % len(self.batches)])
        if select is not None:
            x, y = x[select], y[select]
        p = self.params
        hidden = torch.tanh(x @ p["W1"].T + p["b1"])
        return (hidden @ p["W2"].T + p["b2"] - y).square().mean(1)

    def __call__(self) -> Tensor:
        loss = self.losses().mean()
        loss.backward()
        return loss.detach()

    def values(self) -> dict[str, np.ndarray]:
        """The weights now."""
        return {name: p.detach().numpy().copy() for name, p in self.params.items()}

    def run(self, optimizer: Optimizer, steps: int) -> list[int]:
        """Make steps; return the passes of each."""
        passes = []
        for _ in range(steps):
            optimizer.step(self)
            self.step += 1
            assert optimizer.last is not None
            passes.append(optimizer.last.passes)
        return passes

    def compare(self, optimizer: Optimizer, twin: Iterable[dict[str, np.ndarray]]) -> list[int]:
        """Step beside a twin, to 1e-12; return the passes of each step."""
        passes = []
        for step, theta in enumerate(twin):
            passes += self.run(optimizer, 1)
            for name, value in self.values().items():
                np.testing.assert_allclose(value, theta[name], rtol=0, atol=1e-12, err_msg=f"{step} {name}")
        return passes


def small(problem: Problem, make: Callable[..., Optimizer], base: Any = SGD, **settings: Any) -> Optimizer:
    """An optimizer over the problem's parameters."""
    return make(problem.params.values(), base, steps_per_epoch=len(problem.batches), **settings)


def scalar(weight: nn.Parameter) -> Tensor:
    """The sum of squares, back-propagated; its value."""
    loss = weight.square().sum()
    loss.backward()
    return loss.detach()
