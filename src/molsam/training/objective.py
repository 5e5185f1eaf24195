"""The masked multi-task loss, and predictions from logits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from molsam.errors import ConfigError
from molsam.models.api import ModelOutput

LOSSES = {"regression": ("mse", "rmse", "mae"), "classification": ("bce",), "multiclass": ("cross_entropy",)}
RELEASE = {"regression": "rmse"}


class Objective:
    """Mean over the labels that are there of: sum over heads of loss(logits, target) + the model's auxiliary term.

    `loss`: mse, mae, rmse (the square root of the batch's mean, as CoMPT's release has it), bce (binary
    cross-entropy on logits) or cross_entropy (one class of many: T is 1, and the logits have a last axis of
    classes instead). By the task, auto picks mse, bce or cross_entropy, and release what CoMPT's release has: rmse in
    regression.
    """

    def __init__(self, task: str, loss: str = "auto") -> None:
        name = {"auto": LOSSES[task][0], "release": RELEASE.get(task, LOSSES[task][0])}.get(loss, loss)
        if name not in LOSSES[task]:
            allowed = ", ".join(LOSSES[task])
            raise ConfigError(f"training.loss={loss} does not fit a {task} dataset; use auto or one of: {allowed}.")
        self.task, self.name = task, name

    def __call__(self, output: ModelOutput, target: Tensor, mask: Tensor) -> Tensor:
        """Scalar loss of logits [H, B, T] against target [B, T] where mask [B, T]; 0 if no label is there."""
        total = self.elements(output, target)
        there = mask.to(total.dtype).flatten()
        mean = torch.dot(total.flatten(), there) / there.sum().clamp(min=1)
        # The slope of sqrt at 0 is infinite; a batch fitted exactly has gradient 0.
        return mean.clamp(min=torch.finfo(mean.dtype).tiny).sqrt() if self.name == "rmse" else mean

    def per_molecule(self, output: ModelOutput, target: Tensor, mask: Tensor) -> Tensor:
        """[B]: each molecule's mean over its labels. Raises ConfigError for rmse, which is no mean."""
        if self.name == "rmse":
            raise ConfigError("training.loss=rmse has no loss of a single molecule; use training.loss=mse.")
        return (self.elements(output, target) * mask).sum(1) / mask.sum(1).clamp(min=1)

    def elements(self, output: ModelOutput, target: Tensor) -> Tensor:
        """[B, T]: sum over heads of the loss of each label, plus the auxiliary term."""
        logits = output.logits
        if self.name == "cross_entropy":
            classes = target.long().expand(len(logits), -1, 1)
            return -F.log_softmax(logits, dim=2).gather(2, classes).sum(0)
        expanded = target.expand_as(logits)
        if self.name == "bce":
            element = F.binary_cross_entropy_with_logits(logits, expanded, reduction="none")
        elif self.name == "mae":
            element = (logits - expanded).abs()
        else:
            element = (logits - expanded).square()
        total = element.sum(0) if len(logits) > 1 else element.view(target.shape)  # its backward pass copies nothing
        return total if output.auxiliary is None else total + output.auxiliary

    def predict(self, output: ModelOutput) -> Tensor:
        """[B, T]: mean over heads of probabilities or of scaled values (regression); multiclass: the likeliest class."""
        if self.task == "multiclass":
            return output.logits.softmax(2).mean(0).argmax(1, keepdim=True)
        values = output.logits.sigmoid() if self.task == "classification" else output.logits
        return values.mean(0)
