"""What every model of molsam is: a batch of molecules in, logits out."""

from __future__ import annotations

from typing import NamedTuple, Self

from torch import Tensor, nn

from molsam.data.batch import MoleculeBatch
from molsam.data.spec import DataSpec
from molsam.errors import ConfigError

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

    sized: tuple[str, ...] = ()
    """tensors with a row for each place in a molecule: of two models the rows that both have mean the same"""
    frozen = False
    """whether only the head is trained"""

    def forward(self, batch: MoleculeBatch) -> ModelOutput:
        """Logits of a batch."""
        raise NotImplementedError

    @property
    def heads(self) -> set[str]:
        """Names of the submodules that make logits of a molecule's vector; the rest is the encoder."""
        return {name.split(".")[0] for name in self.readers}

    def parts(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """The parameters of the head, and those of the encoder. Raises ConfigError if the model names no readers."""
        if not self.readers:
            raise ConfigError(
                f"{type(self).__name__} does not name its readers, so its head and its encoder cannot be told apart; name "
                "them, or leave training.freeze and training.encoder_lr out."
            )
        heads = self.heads
        head: list[nn.Parameter] = []
        encoder: list[nn.Parameter] = []
        for name, parameter in self.named_parameters():
            (head if name.split(".")[0] in heads else encoder).append(parameter)
        return head, encoder

    def freeze(self) -> None:
        """Train the head alone: the encoder keeps its weights and computes as in evaluation, without dropout."""
        _, encoder = self.parts()
        for parameter in encoder:
            parameter.requires_grad_(False)
        self.frozen = True
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Go to training or evaluation; a frozen encoder stays in evaluation."""
        super().train(mode and not self.frozen)
        if mode and self.frozen:
            for name in self.heads:
                self.get_submodule(name).train()
        return self

    def from_reference(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Reference-named weights (and buffers) as this model's state dict."""
        raise NotImplementedError

    def to_reference(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """This model's tensors (weights or gradients, by parameter name) under the reference's names."""
        raise NotImplementedError
