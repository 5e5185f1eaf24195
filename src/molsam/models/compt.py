"""CoMPT (Chen, Zheng, Song, Rao and Yang, IJCAI 2021) as in its released code, which GraphSAM's code trains."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from molsam.data.batch import MoleculeBatch
from molsam.errors import ConfigError, DataError
from molsam.models.api import DataSpec, ModelOutput, MoleculeModel
from molsam.models.layers import bond_attention
from molsam.models.layers.gru import BiGRU, PaddedReading, Reading, padded_reading, reading
from molsam.models.layers.mish import Mish
from molsam.models.layers.norm import ScaleNorm, norm_layer
from molsam.models.layers.padding import pad
from molsam.models.layers.queries import type_queries
from molsam.models.layers.segment import segment_max, segment_sum
from molsam.models.naming import from_reference_names, to_reference_names

CHOICES = {
    "distance_kernel": ("softmax", "exp"),
    "dense_activation": ("mish", "relu", "tanh", "gelu", "swish", "none"),
    "padding": ("exact", "reference"),
    "init": ("sane", "reference"),
}


class CoMPT(MoleculeModel):
    """A transformer over atoms whose keys are bonds and whose attention decays with topological distance.

    x = sqrt(d) (W node + b) + position[index + 1]; e = sqrt(d) (W bond + b), also of the zero vector (no bond).
    Each layer uses one module `norm` three times:
        x <- norm(x);  a = mish(W A v + b);  y = x + norm(a);  x <- x + y + norm(feed_forward(y))
    with A as in `molsam.models.layers.bond_attention`. A last norm, the GRU readout and the head follow.

    padding="exact" reads each molecule by itself. padding="reference" reads it as the released code does: the
    readout's initial state, backward direction and sum run over zero rows up to `padded_length` (None: the size of
    the dataset's largest molecule). The two agree for molecules of that size.

    Dropout acts on atoms: on embeddings, after norms, in the feed-forward layers and in the head. The released code
    also applies it to every pair's bond embedding and attention weight, which would need a random number per pair
    and column.

    init="sane": Xavier-uniform matrices, and torch's defaults for the rest. init="reference": the same, but all
    attention biases are equal, and so are all feed-forward biases, because the released code copies one module.

    Raises ConfigError for an unknown choice, or if d_model is not a multiple of n_heads.
    """

    unused = ("encoder.layers.*.self_attn.linears.4.*",)  # the bond update, which is computed and then discarded

    readers = ("head",)
    sized = ("positions.weight",)

    def __init__(
        self,
        spec: DataSpec,
        *,
        d_model: int = 256,
        n_layers: int = 4,
        n_heads: int = 4,
        n_dense: int = 1,
        generator_layers: int = 2,
        distance_kernel: str = "softmax",
        norm: str = "scale",
        dense_activation: str = "mish",
        leaky_relu_slope: float = 0.1,
        decay: float = 0.1,
        dropout: float = 0.0,
        padding: str = "exact",
        padded_length: int | None = None,
        init: str = "sane",
    ) -> None:
        super().__init__()
        chosen = {
            "distance_kernel": distance_kernel,
            "dense_activation": dense_activation,
            "padding": padding,
            "init": init,
        }
        _check_choices(chosen)
        if d_model % n_heads:
            raise ConfigError(
                f"model.d_model={d_model} is not a multiple of model.n_heads={n_heads}; change one of them."
            )
        self.scale = math.sqrt(d_model)
        self.n_heads = n_heads
        self.max_atoms = spec.max_atoms
        self.padded_length = (padded_length or spec.max_atoms) if padding == "reference" else None
        self.atoms = nn.Linear(spec.node_dim - 1, d_model)
        self.bonds = nn.Linear(spec.edge_dim, d_model)
        self.positions = nn.Embedding(spec.max_atoms + 1, d_model)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList()
        for _ in range(n_layers):
            dense = [_dense_activation("mish", 0.0) for _ in range(n_dense - 1)]
            dense += [_dense_activation(dense_activation, leaky_relu_slope)] if n_dense else []
            self.layers.append(Layer(d_model, n_heads, distance_kernel, norm, dense, decay, dropout))
        self.last_norm = norm_layer(norm, d_model)
        self.readout = Readout(d_model, self.padded_length)
        self.head = _head(d_model, spec.descriptor_dim, spec.n_tasks, generator_layers, norm, dropout)
        self._initialise(init)

    def forward(self, batch: MoleculeBatch) -> ModelOutput:
        """Return logits [1, B, T] of a batch with distances; raises DataError for a molecule that is too large."""
        also = () if batch.sizes.is_cpu else (_readings, self.padded_length, batch.fixed)
        x, bonds, relations = self._embed(batch, also)
        for layer, shared in zip(self._stack, self._shared(bonds, relations), strict=True):
            x = layer(x, shared, relations)
        order = (PaddedReading if batch.fixed else Reading)(*relations.also) if also else None
        vector = self.readout(self.last_norm(x), batch, order)
        if batch.descriptors is not None:
            vector = torch.cat([vector, batch.descriptors], dim=1)
        return ModelOutput(self.head(vector).unsqueeze(0))

    @torch.no_grad()
    def attention(self, batch: MoleculeBatch) -> list[list[Tensor]]:
        """Return A of each layer and molecule, attention times distance kernel, not normalised; float [heads, n, n]."""
        x, bonds, relations = self._embed(batch)
        found = []
        for layer, shared in zip(self._stack, self._shared(bonds, relations), strict=True):
            found.append(layer.attention(x, shared, relations))
            x = layer(x, shared, relations)
        return found

    def atom_attention(self, batch: MoleculeBatch) -> Tensor:
        """Return the attention paid to each atom [N]: the mean over its molecule's atoms, layers and heads.

        It sums to 1 over each molecule.
        """
        layers = self.attention(batch)
        found = []
        for place in range(len(batch)):
            weights = torch.stack([layer[place] for layer in layers])
            shares = weights / weights.sum(-1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
            found.append(shares.mean((0, 1, 2)))
        return torch.cat(found)

    def from_reference(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the released code's state dict as ours."""
        single = {k.replace("generator.proj.", "generator.proj.0."): v for k, v in tensors.items()}
        return from_reference_names(single if len(self.head) == 1 else tensors, _NAMES, self.unused)

    def to_reference(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return our tensors under the released code's names."""
        named = to_reference_names(tensors, _NAMES)
        if len(self.head) > 1:
            return named
        return {k.replace("generator.proj.0.", "generator.proj."): v for k, v in named.items()}

    def _embed(
        self, batch: MoleculeBatch, also: tuple[Any, ...] = ()
    ) -> tuple[Tensor, Tensor, bond_attention.Relations]:
        """Return atoms [N, d], bond types [T, d] (type 0 is no bond) and the batch's `Relations` with `also`."""
        for name, limit in [("largest molecule of the dataset", self.max_atoms), ("", self.padded_length)]:
            if limit is not None and batch.max_size > limit:
                what = f"the position table ends at {limit}, the {name}" if name else f"padded_length={limit}"
                raise DataError(
                    f"CoMPT cannot read a molecule of {batch.max_size} atoms: {what}; "
                    "train with a dataset that has molecules of this size, or leave the molecule out."
                )
        position = self.dropout(self.positions(batch.nodes[:, -1].long()))
        x = torch.add(position, self.dropout(self.atoms(batch.nodes[:, :-1])), alpha=self.scale)
        none = batch.edge_table.new_zeros(1, batch.edge_table.shape[1])
        bonds = self.bonds(torch.cat([none, batch.edge_table])) * self.scale
        return x, bonds, bond_attention.Relations(batch, self.n_heads, also)

    def _shared(self, bonds: Tensor, relations: bond_attention.Relations) -> Iterator[Shared]:
        """Return what each layer needs that does not depend on the atoms, computed for all layers at once."""
        layers = self._stack
        if not layers:
            return iter(())
        products = [(x.key.weight, x.key.bias, x.query.weight, x.query.bias) for x in layers]
        weights, biases = type_queries(self.n_heads, bonds, products)
        if bond_attention.in_c(layers[0].decay, self.atoms.out_features):
            return map(Shared, weights, biases, [None] * len(layers))
        decays = torch.stack([layer.decay for layer in layers])
        K = relations.kernels(decays, layers[0].kernel)
        return map(Shared, weights, biases, map(list, zip(*(k.unbind() for k in K), strict=True)))

    @property
    def _stack(self) -> list[Layer]:
        return cast("list[Layer]", list(self.layers))

    @torch.no_grad()
    def _initialise(self, init: str) -> None:
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        if init == "reference":
            first = self._stack[0]
            for layer in self._stack:
                for linear in (layer.query, layer.key, layer.value, layer.update):
                    linear.bias.copy_(first.query.bias)
                for dense in layer.feed_forward:
                    dense.get_parameter("bias").copy_(first.feed_forward[0].get_parameter("bias"))


class Shared(NamedTuple):
    """A layer's inputs besides the atoms."""

    weight: Tensor
    """float [heads * T, d], of `type_queries`"""
    bias: Tensor
    """float [heads * T]"""
    K: list[Tensor] | None
    """distance kernels of `bond_attention.Relations.kernels`; None if C computes them itself"""


class Layer(nn.Module):
    """One layer of the encoder; `CoMPT` gives the equations."""

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        distance_kernel: str,
        norm: str,
        dense: list[nn.Module],
        decay: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.n_heads, self.kernel = n_heads, distance_kernel
        self.query, self.key, self.value, self.update = (nn.Linear(d_model, d_model) for _ in range(4))
        self.decay = nn.Parameter(torch.tensor(decay))
        """lambda: unbounded, as in the released code, whose bound to [0, 1] has no effect"""
        self.mish = Mish()
        self.feed_forward = nn.ModuleList(nn.Linear(d_model, d_model) for _ in dense)
        self.dense = nn.ModuleList(dense)
        self.norm = norm_layer(norm, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, shared: Shared, relations: bond_attention.Relations) -> Tensor:
        """Return float [N, d] of atoms x, float [N, d]."""
        x = self.dropout(self.norm(x))
        scores, values = self._scores(x, shared), self.value(x)
        o = bond_attention.attend(relations, scores, values, self.decay, self.kernel, shared.K)
        dropped = self.training and self.dropout.p
        scale = self.norm if isinstance(self.norm, ScaleNorm) and not dropped else None
        if scale is not None:
            y = scale.after_mish(self.update(o), x)
        else:
            y = x + self.dropout(self.norm(self.mish(self.update(o))))
        f, dense = y, list(zip(self.feed_forward, self.dense, strict=True))
        last = dense.pop()[0] if scale is not None and dense and isinstance(dense[-1][1], Mish) else None
        for linear, function in dense:
            f = self.dropout(function(linear(f)))
        if scale is not None and last is not None:
            return scale.after_mish(last(f), x + y)
        return x + y + self.dropout(self.norm(f))

    def attention(self, x: Tensor, shared: Shared, relations: bond_attention.Relations) -> list[Tensor]:
        """Return A of each molecule, float [heads, n, n]."""
        return bond_attention.messages(relations, self._scores(self.norm(x), shared), self.decay, self.kernel)

    def _scores(self, x: Tensor, shared: Shared) -> Tensor:
        """Return q . k / sqrt(d / heads) of every atom with every bond type, [N, heads, T].

        (W_q x + b) . k = x . (W_q' k) + b . k. Each type is multiplied with W_q instead of each atom, which is cheaper
        because there are fewer types than columns.
        """
        return torch.addmm(shared.bias, x, shared.weight.t()).view(len(x), self.n_heads, -1)


class Readout(nn.Module):
    """Mean over atoms of mish(W GRU(x) + b).

    The GRU is bidirectional; its initial state is the maximum over atoms of mish(x + bias). With `padded_length` the
    maximum, the GRU and the sum run over that many rows per molecule, zero beyond its atoms; the sum is still divided
    by the number of atoms.
    """

    def __init__(self, d_model: int, padded_length: int | None) -> None:
        super().__init__()
        self.padded_length = padded_length
        self.gru = BiGRU(d_model, d_model)
        self.linear = nn.Linear(2 * d_model, d_model)
        self.bias = nn.Parameter(torch.empty(d_model).uniform_(-1, 1).div_(math.sqrt(d_model)))
        self.mish = Mish()

    def forward(self, x: Tensor, batch: MoleculeBatch, order: Reading | PaddedReading | None = None) -> Tensor:
        """Return the molecules' vectors [B, d] of atoms [N, d]; order: `_readings`, on the batch's device."""
        molecule = batch.molecule
        if self.padded_length is not None:
            x, _ = pad(x, batch.sizes, self.padded_length)
            molecule = torch.arange(len(x), device=x.device) // self.padded_length
        initial = segment_max(self.mish(x + self.bias), molecule, len(batch))
        states = self.gru(x, None if batch.fixed else _lengths(batch.here, self.padded_length), initial, order)
        total = segment_sum(self.mish(self.linear(states)), molecule, len(batch))
        return total / batch.sizes.unsqueeze(1)


def _lengths(batch: MoleculeBatch, padded_length: int | None) -> Tensor:
    """Return the number of rows that the GRU reads of each molecule of a batch on the CPU, int64 [B]."""
    return batch.sizes if padded_length is None else torch.full_like(batch.sizes, padded_length)


def _readings(batch: MoleculeBatch, padded_length: int | None, fixed: bool) -> list[Tensor]:
    """Return the fields of the order in which the GRU reads a batch on the CPU: a `PaddedReading` if `fixed`."""
    lengths = _lengths(batch, padded_length).numpy()
    made = padded_reading(lengths, padded_length or batch.max_size) if fixed else reading(lengths)
    return list(map(torch.from_numpy, made))


def _dense_activation(name: str, slope: float) -> nn.Module:
    if name == "relu":  # the released code's name for it
        return nn.LeakyReLU(slope)
    return {"mish": Mish, "tanh": nn.Tanh, "gelu": nn.GELU, "swish": nn.SiLU, "none": nn.Identity}[name]()


def _head(d_model: int, descriptor_dim: int, n_tasks: int, n_layers: int, norm: str, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    width = d_model + descriptor_dim
    for _ in range(n_layers - 1):
        layers += [nn.Linear(width, d_model), Mish(), norm_layer(norm, d_model), nn.Dropout(dropout)]
        width = d_model
    return nn.Sequential(*layers, nn.Linear(width, n_tasks))


def _check_choices(chosen: dict[str, str]) -> None:
    for name, value in chosen.items():
        if value not in CHOICES[name]:
            raise ConfigError(f"model.{name}={value!r} is unknown; choose one of {', '.join(CHOICES[name])}.")


_NAMES = [
    (".layers.", ".encoder.layers."),
    (".query.", ".self_attn.linears.0."),
    (".key.", ".self_attn.linears.1."),
    (".value.", ".self_attn.linears.2."),
    (".update.", ".self_attn.linears.3."),
    (".decay", ".self_attn.attenuation_lambda"),
    (".feed_forward.", ".feed_forward.linears."),
    (".last_norm.", ".encoder.norm."),
    (".gains", ".a_2"),
    (".shifts", ".b_2"),
    (".gain", ".scale"),
    (".atoms.", ".node_embed.lut."),
    (".bonds.", ".edge_embed.lut."),
    (".positions.", ".pos_embed.pe."),
    (".head.", ".generator.proj."),
    (".readout.", ".generator."),
]
