"""The masked multi-task loss, and the predictions from logits."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from molsam.data.transfer import send_once
from molsam.errors import ConfigError
from molsam.models.api import ModelOutput

LOSSES = {"regression": ("mse", "rmse", "mae", "huber"), "classification": ("bce",), "multiclass": ("cross_entropy",)}
RELEASE = {"regression": "rmse"}


class Objective:
    """Mean over the known labels of the loss, summed over the model's heads, plus the model's auxiliary term.

    Args:
        task: regression, classification or multiclass.
        loss: mse, mae, huber (on scaled targets, quadratic up to 1), rmse (the square root of the batch's mean, as in
            CoMPT's release), bce (binary cross-entropy on logits) or cross_entropy. auto is mse, bce or cross_entropy,
            depending on the task. release is the same, but rmse for regression, as in CoMPT's release.
        classes: number of classes, K. The last axis of the logits has those of the first task, of the second, and so
        on. names: the classes of each task, if some tasks have fewer than K.

    Raises:
        ConfigError: the loss does not fit the task.
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
        """bool [T, K], which of the K classes a task does not have; None if all have K"""

    def __call__(self, output: ModelOutput, target: Tensor, mask: Tensor, labels: int | None = None) -> Tensor:
        """Return the scalar loss; 0 if there are no labels.

        Args:
            output: with logits [H, B, T].
            target: [B, T].
            mask: [B, T], whether the label is known; or the label's weight, 0 where it is missing. The weighted sum is
                divided by the number of labels, not by the sum of weights.
            labels: number of known labels, if the caller knows it.
        """
        total = self.elements(output, target)
        there = mask.to(total.dtype).flatten()
        count: Tensor | int = max(labels or 0, 1)
        if labels is None:
            count = (there.sum() if mask.dtype is torch.bool else mask.count_nonzero()).clamp(min=1)
        mean = torch.dot(total.flatten(), there) / count
        # Clamped, because the slope of sqrt at 0 is infinite; a batch that is fitted exactly has gradient 0.
        return mean.clamp(min=torch.finfo(mean.dtype).tiny).sqrt() if self.name == "rmse" else mean

    def per_molecule(self, output: ModelOutput, target: Tensor, mask: Tensor) -> Tensor:
        """Return each molecule's mean loss over its labels, [B]. Raises ConfigError for rmse, which is not a mean."""
        if self.name == "rmse":
            raise ConfigError(
                "training.loss=rmse is not defined for single molecules, which optimizer.gamma below 1 needs; use "
                "training.loss=mse."
            )
        return (self.elements(output, target) * mask).sum(1) / mask.count_nonzero(dim=1).clamp(min=1)

    def elements(self, output: ModelOutput, target: Tensor) -> Tensor:
        """Return the loss of each label, summed over heads, plus the auxiliary term; [B, T]."""
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
        """Return the mean over heads of probabilities or scaled values, [B, T]; for K classes [B, T, K]."""
        if self.task == "multiclass":
            return self._logits(output).softmax(3).mean(0)
        values = output.logits.sigmoid() if self.task == "classification" else output.logits
        return values.mean(0)

    def _by_class(self, values: Tensor) -> Tensor:
        """Return [..., T * K] as [..., T, K]."""
        return values.unflatten(-1, (-1, self.classes))

    def _logits(self, output: ModelOutput) -> Tensor:
        """Return logits [H, B, T, K], minus infinity for classes that a task does not have."""
        logits = self._by_class(output.logits)
        if self.surplus is None:
            return logits
        return logits.masked_fill(send_once(self.surplus, logits.device, torch.bool), -math.inf)


def within_bounds(output: ModelOutput, batch: Any) -> ModelOutput:
    """Return the output such that predictions beyond the bounds of a batch have no loss."""
    bounds = getattr(batch, "bounds", None)
    if bounds is None:
        return output
    return output._replace(logits=one_sided(output.logits, batch.targets, bounds))


def one_sided(logits: Tensor, target: Tensor, bounds: Tensor) -> Tensor:
    """Return logits [H, B, T] in which predictions beyond a bound are replaced by the target, so that they have no
    loss.

    bounds: [B, T], 1 where the value is at least the target, -1 where it is at most the target, else 0.
    """
    beyond = ((bounds > 0) & (logits > target)) | ((bounds < 0) & (logits < target))
    return torch.where(beyond, target.expand_as(logits), logits)
