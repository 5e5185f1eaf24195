"""The base class of all models: a batch of molecules in, logits out."""

from __future__ import annotations

from typing import NamedTuple, Self

from torch import Tensor, nn

from molsam.data.batch import MoleculeBatch
from molsam.data.spec import DataSpec
from molsam.errors import ConfigError

__all__ = ["DataSpec", "ModelOutput", "MoleculeModel"]


class ModelOutput(NamedTuple):
    """What a model returns: H heads (2 for GROVER, 1 for every other model), B molecules, T tasks."""

    logits: Tensor
    """float [H, B, T]: before the sigmoid (classification), or in units of the scaled targets (regression)"""
    auxiliary: Tensor | None = None
    """float [B, T], added to the element-wise loss before masking, or None"""


class MoleculeModel(nn.Module):
    """Base class of the models. A subclass takes `spec: DataSpec` first and its settings as keywords."""

    unused: tuple[str, ...] = ()
    """patterns (fnmatch) of the reference's parameters that it never uses; this model does not have them"""
    readers: tuple[str, ...] = ()
    """submodules that read the molecule's vector: the readout, followed by the descriptors if there are any
    (`molsam embed` writes this vector)"""

    sized: tuple[str, ...] = ()
    """tensors with one row for each position in a molecule; their length depends on the dataset, so a model for larger
    molecules starts with the same rows and has further ones"""
    frozen = False
    """whether only the head is trained"""

    def forward(self, batch: MoleculeBatch) -> ModelOutput:
        """Return the logits of a batch."""
        raise NotImplementedError

    @property
    def independent(self) -> bool:
        """Whether the result for a molecule does not depend on the others of its batch, except through BatchNorm."""
        return True

    def draw(self) -> Tensor | None:
        """Draw the numbers from the CPU's generator that `forward` accepts after the batch, or return None."""
        return None

    @property
    def heads(self) -> set[str]:
        """Names of the submodules that turn a molecule's vector into logits; the rest is the encoder."""
        return {name.split(".")[0] for name in self.readers}

    def parts(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Return the parameters of the head and those of the encoder.

        Raises ConfigError if the model names no readers.
        """
        if not self.readers:
            raise ConfigError(
                f"{type(self).__name__} does not name its readers, so its head cannot be told from its encoder; "
                "set its attribute `readers`, or leave training.freeze and training.encoder_lr out."
            )
        heads = self.heads
        head: list[nn.Parameter] = []
        encoder: list[nn.Parameter] = []
        for name, parameter in self.named_parameters():
            (head if name.split(".")[0] in heads else encoder).append(parameter)
        return head, encoder

    def freeze(self) -> None:
        """Train only the head: the encoder keeps its weights and stays in evaluation mode, without dropout."""
        _, encoder = self.parts()
        for parameter in encoder:
            parameter.requires_grad_(False)
        self.frozen = True
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Switch to training or evaluation mode; a frozen encoder stays in evaluation mode."""
        super().train(mode and not self.frozen)
        if mode and self.frozen:
            for name in self.heads:
                self.get_submodule(name).train()
        return self

    def from_reference(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights (and buffers) of the reference implementation as this model's state dict."""
        raise NotImplementedError

    def to_reference(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors of this model (weights or gradients, by parameter name) under the reference's names."""
        raise NotImplementedError
