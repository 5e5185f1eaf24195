"""The closure that an optimizer calls to get a gradient: forward, loss, backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from molsam.data.api import Batch
from molsam.errors import ConfigError
from molsam.models.api import ModelOutput
from molsam.training.objective import Objective, within_bounds


class Closure:
    """Computes the loss and gradient of one step's batches at the model's current weights.

    Several batches are micro-batches of one step. Their gradients are added, each weighted by its share of the step's
    labels, so that the result equals that of one large batch. The optimizer clears `.grad`.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        precision: str = "fp32",
        fetch: Callable[[np.ndarray], Batch] | None = None,
        compiled: bool = False,
    ) -> None:
        self.model, self.objective, self.fetch = model, objective, fetch
        # Batches differ in size: shapes are symbols, or every step would be compiled anew.
        self.called: Callable[..., ModelOutput] | None = torch.compile(model, dynamic=True) if compiled else None
        """what passes go through in place of the model"""
        self.bf16 = precision == "bf16"
        self.batches: Sequence[Batch] = ()
        self.parameters = list(model.parameters())
        self.one: Tensor | None = None

    def __call__(self) -> Tensor:
        """Return the detached scalar loss; the gradient is in `.grad`."""
        return self._pass(weighted=False)

    def weighted(self) -> Tensor:
        """Return the same, with loss * gradient in `.grad`, as the released GraphSAM uses it."""
        return self._pass(weighted=True)

    def _pass(self, weighted: bool) -> Tensor:
        if len(self.batches) == 1:
            loss = self.loss(self.batches[0])
            value = loss.detach()
            loss.backward(value if weighted else self._one(value))
            return value
        labels = [batch.mask.count_nonzero() for batch in self.batches if batch.mask is not None]
        total = torch.stack(labels).sum().clamp(min=1)
        losses = []
        for batch, count in zip(self.batches, labels, strict=True):
            loss = self.loss(batch)
            part = loss * (count / total.to(loss.dtype))
            part.backward()
            losses.append(part.detach())
        whole = torch.stack(losses).sum()
        for parameter in self.parameters if weighted else ():
            if parameter.grad is not None:
                parameter.grad *= whole
        return whole

    def _one(self, like: Tensor) -> Tensor | None:
        """Return a tensor of 1, created only once; None on a CPU, where torch makes it without a slow import."""
        if like.is_cpu:
            return None
        if self.one is None or self.one.dtype != like.dtype:
            self.one = torch.ones_like(like)
        return self.one

    def losses(self, select: Tensor | None = None) -> Tensor:
        """Return the loss of each molecule of the step, or of those with the indices `select`; [B], with its graph.

        ESAM's data selection needs it. A molecule's loss is the mean over its labels, whose number is in `weights`.
        Raises ConfigError if the step has several micro-batches, or the loss is not a mean over labels.
        """
        if len(self.batches) != 1:
            raise ConfigError("optimizer.gamma below 1 selects molecules of a single batch; use training.accumulate=1.")
        batch = self.batches[0]
        if select is not None:
            if self.fetch is None:
                raise ConfigError(
                    "optimizer.gamma below 1 selects molecules by their losses, which augmentation changes; leave "
                    "dataset.augment out."
                )
            batch = self.fetch(batch.index.cpu()[select.cpu()].numpy())
        output, target, mask = self.forward(batch)
        return self.objective.per_molecule(output, target, mask)

    def weights(self, select: Tensor | None = None) -> Tensor:
        """Return the number of labels of each molecule of the step, or of those with the indices `select`; [B]."""
        mask = self.batches[0].mask
        assert mask is not None
        return mask.sum(1) if select is None else mask[select].sum(1)

    def loss(self, batch: Batch) -> Tensor:
        """Return the scalar loss of one batch, with its graph."""
        return self.objective(*self.forward(batch), labels=getattr(batch, "labels", None))

    def forward(self, batch: Batch, *drawn: Tensor) -> tuple[ModelOutput, Tensor, Tensor]:
        """Return output, targets and mask of one batch; drawn: what `MoleculeModel.draw` has drawn, if not the pass."""
        assert batch.targets is not None
        assert batch.mask is not None
        context: AbstractContextManager[object] = nullcontext()
        if self.bf16:
            context = torch.autocast(batch.targets.device.type, dtype=torch.bfloat16)
        with context:
            output = (self.model if self.called is None else self.called)(batch, *drawn)
        logits = output.logits.to(batch.targets.dtype)
        return within_bounds(output._replace(logits=logits), batch), batch.targets, batch.mask
