"""The training loss as a function of the weights, for sharpness and landscapes.

The model is copied, in float64 and evaluation mode, so that the original (weights, buffers, gradients, random numbers)
never changes. Products with the Hessian are central differences of gradients, because some layers have hand-written
backward passes that cannot be differentiated again. In float64 the differences are accurate to about eight digits.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

B = TypeVar("B")
Flat = np.ndarray
"""float64 [number of weights]: a point or direction in weight space."""


class Surface:
    """L(theta): mean loss over fixed batches.

    Args:
        model: any module; it is copied.
        batches: the data of the loss, in float64.
        loss: (model, batch) -> mean loss of the batch, and the number of terms in that mean.
    """

    def __init__(
        self, model: nn.Module, batches: Sequence[B], loss: Callable[[nn.Module, B], tuple[Tensor, float]]
    ) -> None:
        self.model: nn.Module = copy.deepcopy(model).double().eval()
        self.batches: Sequence[Any] = batches
        self.loss = loss
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        for parameter in self.parameters:
            parameter.grad = None
        self.theta: Flat = np.concatenate([p.detach().cpu().numpy().ravel() for p in self.parameters])
        """the model's own weights"""
        self.size = len(self.theta)

    def value(self, theta: Flat) -> float:
        """Return L(theta)."""
        self._set(theta)
        with torch.no_grad():
            parts = [self.loss(self.model, batch) for batch in self.batches]
        return sum(float(loss) * count for loss, count in parts) / sum(count for _, count in parts)

    def gradient(self, theta: Flat) -> Flat:
        """Return grad L(theta)."""
        self._set(theta)
        with torch.enable_grad():
            total = 0.0
            sums = np.zeros(self.size)
            for batch in self.batches:
                loss, count = self.loss(self.model, batch)
                grads = torch.autograd.grad(loss, self.parameters, allow_unused=True)
                flat = [torch.zeros_like(p) if g is None else g for p, g in zip(self.parameters, grads, strict=True)]
                sums += count * np.concatenate([g.detach().cpu().numpy().ravel() for g in flat])
                total += count
        return sums / total

    def hessian_product(self, theta: Flat, direction: Flat) -> Flat:
        """Return H(theta) v by central differences, with a step that is small compared with the weights."""
        length = float(np.linalg.norm(direction))
        if length == 0:
            return np.zeros(self.size)
        step = 1e-5 * max(1.0, float(np.linalg.norm(theta)) / np.sqrt(self.size)) / length
        ahead, behind = self.gradient(theta + step * direction), self.gradient(theta - step * direction)
        return (ahead - behind) / (2 * step)

    def _set(self, theta: Flat) -> None:
        start = 0
        with torch.no_grad():
            for parameter in self.parameters:
                part = theta[start : start + parameter.numel()]
                parameter.copy_(torch.from_numpy(part.reshape(parameter.shape)))
                start += parameter.numel()
