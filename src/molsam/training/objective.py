"""The masked multi-task loss, and predictions from logits."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from molsam.errors import ConfigError
from molsam.models.api import ModelOutput

LOSSES = {"regression": ("mse", "rmse", "mae", "huber"), "classification": ("bce",), "multiclass": ("cross_entropy",)}
RELEASE = {"regression": "rmse"}


class Objective:
    """Mean over the labels that are there of: sum over heads of loss(logits, target) + the model's auxiliary term.

    `loss`: mse, mae, huber (on scaled targets, quadratic up to 1), rmse (the square root of the batch's mean, as
    CoMPT's release has it), bce (binary cross-entropy on logits) or cross_entropy (one of `classes` classes: the last
    axis of the logits holds those of the first task, of the second, ...; `names` are those that a task has, if some have
    fewer). By the task, auto picks mse, bce or
    cross_entropy, and release what CoMPT's release has: rmse in regression.
    """

    def __init__(self, task: str, loss: str = "auto", classes: int = 1, names: list[list[str]] | None = None) -> None:
        name = {"auto": LOSSES[task][0], "release": RELEASE.get(task, LOSSES[task][0])}.get(loss, loss)
        if name not in LOSSES[task]:
            allowed = ", ".join(LOSSES[task])
            raise ConfigError(f"training.loss={loss} does not fit a {task} dataset; use auto or one of: {allowed}.")
        self.task, self.name, self.classes = task, name, classes
        counts = torch.tensor([len(one) for one in names or []] if task == "multiclass" else [])
        surplus = torch.arange(classes) >= counts.unsqueeze(1)
        self.surplus = surplus if surplus.any() else None
        """bool [T, K]: classes that a task does not have"""

    def __call__(self, output: ModelOutput, target: Tensor, mask: Tensor, labels: int | None = None) -> Tensor:
        """Scalar loss of logits [H, B, T] against target [B, T] where mask [B, T]; 0 if no label is there.

        The mask may hold the labels' weights, 0 where there is none: the mean is over the labels, not their weights.
        labels: how many there are, if the caller knows.
        """
        total = self.elements(output, target)
        there = mask.to(total.dtype).flatten()
        count: Tensor | int = max(labels or 0, 1)
        if labels is None:
            count = (there.sum() if mask.dtype is torch.bool else mask.count_nonzero()).clamp(min=1)
        mean = torch.dot(total.flatten(), there) / count
        # The slope of sqrt at 0 is infinite; a batch fitted exactly has gradient 0.
        return mean.clamp(min=torch.finfo(mean.dtype).tiny).sqrt() if self.name == "rmse" else mean

    def per_molecule(self, output: ModelOutput, target: Tensor, mask: Tensor) -> Tensor:
        """[B]: each molecule's mean over its labels. Raises ConfigError for rmse, which is no mean."""
        if self.name == "rmse":
            raise ConfigError("training.loss=rmse has no loss of a single molecule; use training.loss=mse.")
        return (self.elements(output, target) * mask).sum(1) / mask.count_nonzero(dim=1).clamp(min=1)

    def elements(self, output: ModelOutput, target: Tensor) -> Tensor:
        """[B, T]: sum over heads of the loss of each label, plus the auxiliary term."""
        logits = output.logits
        if self.name == "cross_entropy":
            places = target.long().expand(len(logits), *target.shape).unsqueeze(3)
            element = -F.log_softmax(self._logits(output), dim=3).gather(3, places).squeeze(3).sum(0)
            return element if output.auxiliary is None else element + self._by_class(output.auxiliary).mean(2)
        expanded = target.expand_as(logits)
        if self.name == "bce":
            element = F.binary_cross_entropy_with_logits(logits, expanded, reduction="none")
        elif self.name == "mae":
            element = (logits - expanded).abs()
        elif self.name == "huber":
            element = F.huber_loss(logits, expanded, reduction="none")
        else:
            element = F.mse_loss(logits, expanded, reduction="none")
        total = element.sum(0) if len(logits) > 1 else element.view(target.shape)  # its backward pass copies nothing
        return total if output.auxiliary is None else total + output.auxiliary

    def predict(self, output: ModelOutput) -> Tensor:
        """[B, T]: mean over heads of probabilities, or of scaled values (regression); of several classes [B, T, K]."""
        if self.task == "multiclass":
            return self._logits(output).softmax(3).mean(0)
        values = output.logits.sigmoid() if self.task == "classification" else output.logits
        return values.mean(0)

    def _by_class(self, values: Tensor) -> Tensor:
        """[..., T * K] as [..., T, K]."""
        return values.unflatten(-1, (-1, self.classes))

    def _logits(self, output: ModelOutput) -> Tensor:
        """[H, B, T, K], minus infinity for classes that a task does not have."""
        logits = self._by_class(output.logits)
        return logits if self.surplus is None else logits.masked_fill(self.surplus.to(logits.device), -math.inf)


def within_bounds(output: ModelOutput, batch: Any) -> ModelOutput:
    """An output that has no loss beyond the bounds of a batch, if it has bounds."""
    bounds = getattr(batch, "bounds", None)
    if bounds is None:
        return output
    return output._replace(logits=one_sided(output.logits, batch.targets, bounds))


def one_sided(logits: Tensor, target: Tensor, bounds: Tensor) -> Tensor:
    """Logits [H, B, T] that have no loss beyond a bound: where it is 1 the value is at least the target, where -1 at most.

    Any loss of a difference becomes one-sided by it.
    """
    beyond = ((bounds > 0) & (logits > target)) | ((bounds < 0) & (logits < target))
    return torch.where(beyond, target.expand_as(logits), logits)
