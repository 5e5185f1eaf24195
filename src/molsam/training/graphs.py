"""Passes by CUDA graphs: a pass over batches of one size is captured once and then repeated for every batch.

A repetition is one launch. It reads its inputs and the weights from where they lay at the capture, and computes with
the same sizes. Batches are therefore padded to few sizes (molsam.data.padded), copied into static memory, and weights
are displaced in place (`molsam.optim.passes.Passes.in_place`). Only `Cuda` calls CUDA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from molsam.data.batch import MoleculeBatch
from molsam.data.padded import Padding
from molsam.data.transfer import joined, parts
from molsam.errors import ConfigError
from molsam.models.api import ModelOutput
from molsam.models.layers.batchnorm import BatchNorm
from molsam.training.closure import Closure
from molsam.training.objective import Objective

WARM_UP = 2
"""passes on a side stream before a capture, in which libraries choose their algorithms"""


class Cuda:
    """The calls to CUDA that capture and repeat a function on one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.pool: Any = None
        """memory that all graphs share, since only one runs at a time and its results are copied at once"""

    def warm_up(self, function: Callable[[], object]) -> None:
        """Call a function on a side stream, as a capture requires."""
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                function()
        torch.cuda.current_stream(self.device).wait_stream(stream)

    def capture(self, function: Callable[[], object]) -> Callable[[], None]:
        """Capture what a function launches, and return a function that repeats it."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self.device), torch.cuda.graph(graph, pool=self.pool):
            function()
        self.pool = graph.pool()
        repeat: Callable[[], None] = graph.replay
        return repeat


class GraphClosure(Closure):
    """Computes the loss and gradient of one step's batches by captured passes, one for each size of a batch.

    The step's batches are padded and on the CPU. The gradients are copied out of the static memory.
    """

    def __init__(
        self, model: nn.Module, objective: Objective, precision: str, device: torch.device, dtype: torch.dtype
    ) -> None:
        super().__init__(model, objective, precision)
        self.device, self.dtype, self.cuda = device, dtype, Cuda(device)
        self.captured: dict[tuple[int, ...], Captured] = {}
        """by molecules, atoms, directed bonds and largest molecule"""
        self.trained = [parameter for parameter in self.parameters if parameter.requires_grad]
        """those with a gradient in every captured pass, even if the optimizer exempts some from it, as ESAM does"""

    def _pass(self, weighted: bool) -> Tensor:
        batches = cast("Sequence[MoleculeBatch]", self.batches)
        labels = [batch.labels for batch in batches]
        whole, gradients = self._repeated(batches[0])
        if len(batches) > 1:
            shares = [count / max(sum(labels), 1) for count in labels]
            whole, *gradients = torch._foreach_mul([whole, *gradients], shares[0])
            for batch, share in zip(batches[1:], shares[1:], strict=True):
                loss, more = self._repeated(batch)
                torch._foreach_add_([whole, *gradients], [loss, *more], alpha=share)
        if weighted:
            gradients = list(torch._foreach_mul(gradients, whole))
        for parameter, gradient in zip(self._reached, gradients, strict=True):
            parameter.grad = gradient
        return whole

    def _repeated(self, batch: MoleculeBatch) -> tuple[Tensor, list[Tensor]]:
        """Return the loss of one batch, and the gradient of each of `_reached`, as new tensors."""
        size = len(batch), batch.n_atoms, len(batch.src), batch.max_size
        drawn = [] if (numbers := cast(Any, self.model).draw()) is None else [numbers]
        if size not in self.captured:
            self.captured[size] = Captured(self, batch, drawn)
        loss, gradients = self.captured[size](batch, drawn)
        self._reached = [p for p, gradient in zip(self.trained, gradients, strict=True) if gradient is not None]
        loss, *copies = torch._foreach_mul([loss, *(one for one in gradients if one is not None)], 1.0)
        return loss, copies

    def forward(self, batch: Any, *drawn: Tensor) -> tuple[ModelOutput, Tensor, Tensor]:
        """Return output, targets and mask of one batch, on the device or not yet there."""
        return super().forward(batch.to(self.device, self.dtype) if batch.sizes.is_cpu else batch, *drawn)

    def losses(self, select: Tensor | None = None) -> Tensor:
        """Refuse: the passes of some molecules have no size that was captured."""
        raise ConfigError(SELECTS)


SELECTS = (
    "optimizer.gamma below 1 selects molecules by their losses, which training.graphs=true does not compute; use "
    "optimizer.gamma=1, or leave training.graphs out."
)


class Captured:
    """A captured pass: loss and gradients of any batch that has the size of the first one.

    Args:
        closure: makes the pass.
        batch: a padded batch on the CPU.
        drawn: the numbers that the model draws for a pass on the CPU.
    """

    def __init__(self, closure: GraphClosure, batch: MoleculeBatch, drawn: list[Tensor]) -> None:
        self.closure, self.keys = closure, list[Any]()
        device, dtype = closure.device, closure.dtype
        with self._without_trace():
            moved = batch.to(device, dtype)
            self._compute(moved, [one.to(device) for one in drawn])
            self.keys = list(moved.kept)  # what the model derives from a batch on the CPU
            self.inputs = self._inputs(batch, drawn)
            self.memory = joined(self.inputs, pinned=device.type == "cuda").to(device)
            static = parts(self.memory, self.inputs)
            self.static, self.drawn = self._in_memory(batch, static), static[len(static) - len(drawn) :]
            closure.cuda.warm_up(self._pass)
            try:
                self.repeat = closure.cuda.capture(self._pass)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                raise ConfigError(
                    f"{type(closure.model).__name__} cannot be captured as a CUDA graph "
                    f"({str(error).splitlines()[0].rstrip('.')}); leave training.graphs out."
                ) from error

    def __call__(self, batch: MoleculeBatch, drawn: list[Tensor]) -> tuple[Tensor, list[Tensor | None]]:
        """Return loss and gradients; the next call overwrites them."""
        inputs = self._inputs(batch, drawn)
        if any(one.shape != first.shape for one, first in zip(inputs, self.inputs, strict=True)):
            raise ConfigError(
                f"{type(self.closure.model).__name__} derives tensors of varying size from batches of one size, which "
                "cannot be captured as a CUDA graph; leave training.graphs out."
            )
        self.memory.copy_(joined(inputs, pinned=self.memory.device.type == "cuda"), non_blocking=True)
        self.repeat()
        return self.loss, self.gradients

    def _inputs(self, batch: MoleculeBatch, drawn: list[Tensor]) -> list[Tensor]:
        """Return all that differs from batch to batch, on the CPU."""
        derived = [tensor for make, *given in self.keys for tensor in make(batch, *given)]
        return [*batch.leaving(self.closure.dtype).values(), *derived, *drawn]

    def _in_memory(self, batch: MoleculeBatch, static: list[Tensor]) -> MoleculeBatch:
        """Return the batch whose tensors lie in the static memory."""
        count = len(batch.leaving())
        there = replace(batch.arrived(static[:count], self.closure.dtype), origin=None)
        for make, *given in self.keys:
            derived = len(make(batch, *given))
            there.kept[make, *given] = static[count : count + derived]
            count += derived
        return there

    def _pass(self) -> None:
        # A new batch each time: what the last one has computed on the device is not to be found in this one.
        self._compute(replace(self.static), self.drawn)

    def _compute(self, batch: MoleculeBatch, drawn: list[Tensor]) -> None:
        closure = self.closure
        for parameter in closure.trained:
            parameter.grad = None
        # The number of labels is computed on the device, because it differs from batch to batch.
        loss = closure.objective(*closure.forward(batch, *drawn))
        loss.backward(closure._one(loss.detach()))
        self.loss, self.gradients = loss.detach(), [parameter.grad for parameter in closure.trained]

    @contextmanager
    def _without_trace(self) -> Iterator[None]:
        """Afterwards running statistics and random states are what they were, and there are no gradients."""
        buffers = list(self.closure.model.buffers())
        kept = [buffer.clone() for buffer in buffers]
        device = self.closure.device
        random = torch.get_rng_state(), torch.get_device_module(device).get_rng_state(device)
        exempt = [parameter for parameter in self.closure.trained if not parameter.requires_grad]
        try:
            for parameter in exempt:
                parameter.requires_grad_(True)
            yield
        finally:
            for parameter in exempt:
                parameter.requires_grad_(False)
            for buffer, before in zip(buffers, kept, strict=True):
                buffer.copy_(before)
            torch.set_rng_state(random[0])
            torch.get_device_module(device).set_rng_state(random[1], device)
            for parameter in self.closure.trained:
                parameter.grad = None


def padding(model: nn.Module, dataset: Any, rows: np.ndarray, batch_size: int) -> Padding:
    """Return the padding of a training on some rows of a dataset of molecules. Raises ConfigError as `check_model`."""
    check_model(model)
    return Padding(dataset.packed, rows, batch_size)


def check_model(model: nn.Module) -> None:
    """Raise ConfigError for a model whose results filler molecules would change."""
    if not cast(Any, model).independent:
        raise ConfigError(
            "model.padding=reference reads the batch's other molecules, so training.graphs=true would change the "
            "results; use model.padding=exact, or leave training.graphs out."
        )
    own = type(model).__module__.startswith("molsam.")
    for module in model.modules():
        if isinstance(module, _BatchNorm) and not (own and isinstance(module, BatchNorm)):
            raise ConfigError(
                f"{type(model).__name__} has a {type(module).__name__}, which would count the filler molecules of "
                "training.graphs=true; leave training.graphs out."
            )
