"""What every model of molsam is: a batch of molecules in, logits out."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from molsam.data.batch import MoleculeBatch
from molsam.data.spec import DataSpec

__all__ = ["DataSpec", "ModelOutput", "MoleculeModel"]


class ModelOutput(NamedTuple):
    """H heads (1 for all models but GROVER, which has 2), B molecules, T tasks."""

    logits: Tensor
    """float [H, B, T]: before the sigmoid (classification), on the scaled targets (regression)"""
    auxiliary: Tensor | None = None
    """float [B, T], added to the element-wise loss before masking, or None"""


class MoleculeModel(nn.Module):
    """Base of the models. A subclass takes `spec: DataSpec` first and keyword settings after it."""

    unused: tuple[str, ...] = ()
    """patterns (fnmatch) of reference parameters that the reference never uses; ours leaves them out"""
    readers: tuple[str, ...] = ()
    """submodules whose input is a molecule's vector, the readout with descriptors if there are any (`molsam embed`)"""

    def forward(self, batch: MoleculeBatch) -> ModelOutput:
        """Logits of a batch."""
        raise NotImplementedError

    def from_reference(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Reference-named weights (and buffers) as this model's state dict."""
        raise NotImplementedError

    def to_reference(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """This model's tensors (weights or gradients, by parameter name) under the reference's names."""
        raise NotImplementedError
