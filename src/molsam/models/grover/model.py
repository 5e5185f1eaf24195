"""GROVER (Rong et al., Self-Supervised Graph Transformer on Large-Scale Molecular Data, NeurIPS 2020).

This is the model for fine-tuning. It has two separate encoders, one of atoms and one of bonds. The states of each are
summed to atoms and read out to molecules, and each has its own head.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from molsam.data.batch import MoleculeBatch
from molsam.errors import ConfigError
from molsam.models.api import DataSpec, ModelOutput, MoleculeModel
from molsam.models.grover.blocks import FeedForward, InputLayer, MTBlock, Rows
from molsam.models.grover.graph import FixedSums, Neighbourhood
from molsam.models.layers.activation import activation
from molsam.models.layers.segment import segment_mean

CHOICES = {
    "padding": (None, "exact", "reference"),
    "init": ("sane", "reference"),
    "dynamic_depth": ("truncnorm", "none"),
    "readout": ("mean", "self_attention"),
}
ROLES = ("q", "k", "v")
MOST = 3
"""most standard deviations between a depth and the mean depth"""
TAIL = math.erfc(MOST / math.sqrt(2)) / 2
"""probability of a normal variable beyond them on one side"""


class SelfAttentiveReadout(nn.Module):
    """A X with A = softmax over a molecule's atoms of W_2 tanh(W_1 X^T), flattened row by row."""

    def __init__(self, hidden: int, attention_hidden: int, attention_out: int) -> None:
        super().__init__()
        self.w1 = nn.Parameter(torch.empty(attention_hidden, hidden))
        self.w2 = nn.Parameter(torch.empty(attention_out, attention_hidden))

    def forward(self, atoms: Tensor, batch: MoleculeBatch) -> Tensor:
        """Return the molecules' vectors [B, attention_out * hidden] of atoms [N, hidden]."""
        weights, where = self.weights(atoms, batch)
        padded = atoms.new_zeros(*weights.shape[:2], atoms.shape[1]).index_put(where, atoms)
        return (weights.mT @ padded).flatten(1)

    def weights(self, atoms: Tensor, batch: MoleculeBatch) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the transpose of A, [B, n, attention_out], and the molecule and position of each atom.

        The weights are 0 beyond a molecule's atoms.
        """
        scores = torch.tanh(atoms @ self.w1.T) @ self.w2.T
        position = torch.arange(len(atoms), device=atoms.device) - batch.offsets[batch.molecule]
        shape, where = (len(batch), batch.max_size, -1), (batch.molecule, position)
        empty = scores.new_full((*shape[:2], scores.shape[1]), -math.inf)
        return torch.softmax(empty.index_put(where, scores), dim=1), where


class Head(nn.Module):
    """Linear, then (activation, linear) for each further layer, with dropout before every linear layer."""

    def __init__(self, widths: list[int], activation_name: str, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(widths))
        self.act = activation(activation_name) if len(widths) > 2 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for i, layer in enumerate(self.layers):
            x = layer(F.dropout(self.act(x) if i else x, self.dropout, self.training))
        return x


class Grover(MoleculeModel):
    """Two logits, [2, B, T]: of the head on the atoms' encoder and of the head on the bonds' encoder.

    In training mode `auxiliary` is dist_coff * (difference of the two logits)^2. With dynamic_depth="truncnorm" every
    encoder then draws its own depth: int(N(depth, 1)), truncated at 3 standard deviations.

    padding: "exact": each molecule by itself. "reference": the padding row of the reference adds to every sum, so
    outputs depend on the batch's largest degree. None: "exact", or "reference" once official weights are loaded.
    init: "sane", or "reference", which zeroes all one-dimensional parameters, including LayerNorm gains.
    head_size: hidden width of the heads; None: hidden_size. attention_hidden, attention_out: of
    readout="self_attention". Raises ConfigError for a setting out of range.
    """

    reference_padding: Tensor

    readers = ("atom_head", "bond_head")

    def __init__(
        self,
        spec: DataSpec,
        *,
        hidden_size: int = 100,
        depth: int = 3,
        n_heads: int = 4,
        n_blocks: int = 1,
        activation: str = "relu",
        bias: bool = False,
        dropout: float = 0.0,
        dynamic_depth: str = "truncnorm",
        readout: str = "mean",
        attention_hidden: int = 4,
        attention_out: int = 128,
        head_layers: int = 2,
        head_size: int | None = None,
        dist_coff: float = 0.1,
        init: str = "sane",
        padding: str | None = None,
    ) -> None:
        super().__init__()
        given = {"padding": padding, "init": init, "dynamic_depth": dynamic_depth, "readout": readout}
        sizes = {"hidden_size": hidden_size, "depth": depth, "n_heads": n_heads, "n_blocks": n_blocks}
        _check(given, **sizes, head_layers=head_layers)
        self.hidden_size, self.depth, self.n_heads, self.n_blocks = hidden_size, depth, n_heads, n_blocks
        self.activation, self.bias, self.dist_coff, self.padding = activation, bias, dist_coff, padding
        self.dynamic_depth, self.dropout = dynamic_depth == "truncnorm", dropout
        # A buffer, so that weights trained with the padding row bring the padding with them wherever they are loaded.
        self.register_buffer("reference_padding", torch.tensor(padding == "reference"))
        self._known: tuple[Tensor, int, bool] | None = None

        node_dim, edge_dim = spec.node_dim, spec.node_dim + spec.edge_dim
        options = activation, dropout
        self.node_input = InputLayer(node_dim, hidden_size, *options, bias=bias)
        self.edge_input = InputLayer(edge_dim, hidden_size, *options, bias=bias)
        self.node_blocks, self.edge_blocks = (
            nn.ModuleList(MTBlock(hidden_size, n_heads, *options, bias=bias) for _ in range(n_blocks)) for _ in range(2)
        )
        self.from_atoms = FeedForward(node_dim, hidden_size, *options)
        self.from_bonds = FeedForward(node_dim, hidden_size, *options)
        self.readout = None
        width = hidden_size
        if readout == "self_attention":
            self.readout = SelfAttentiveReadout(hidden_size, attention_hidden, attention_out)
            width = attention_out * hidden_size
        widths = [width + spec.descriptor_dim, *[head_size or hidden_size] * (head_layers - 1), spec.n_tasks]
        self.atom_head, self.bond_head = (Head(widths, activation, dropout) for _ in range(2))
        self.initialise(init)
        self.unused = tuple(self._unused())

    def forward(self, batch: MoleculeBatch, depths: Tensor | None = None) -> ModelOutput:
        """Return the logits of a batch; depths: of the encoders, int [2 * blocks * heads * 3] (see `draw_depths`)."""
        vectors = self.read(self.encode(batch, depths), batch)
        p_atom, p_bond = self.atom_head(vectors[0]), self.bond_head(vectors[1])
        auxiliary = self.dist_coff * F.mse_loss(p_atom, p_bond, reduction="none") if self.atom_head.training else None
        return ModelOutput(torch.stack([p_atom, p_bond]), auxiliary)

    def _pads(self) -> bool:
        """Return the buffer `reference_padding` as a bool; only after a change does this wait for the device."""
        flag = self.reference_padding
        if self._known is None or self._known[0] is not flag or self._known[1] != flag._version:
            self._known = (flag, flag._version, bool(flag))
        return self._known[2]

    def encode(self, batch: MoleculeBatch, depths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the atoms of the atoms' encoder and of the bonds' encoder, both [N, hidden_size]."""
        if depths is None:
            depths = self.draw_depths()
        if batch.fixed:
            return self._encode_fixed(batch, depths)
        padding = self._pads()
        node_depths, edge_depths = depths.view(2, self.n_blocks, 3 * self.n_heads).tolist()
        # Merged states would share one dropout mask.
        steps = None if self.training and self.dropout else (_steps(node_depths), _steps(edge_depths))
        plans = [
            [cast("MTBlock", block).plan(of_block) for block, of_block in zip(blocks, of_blocks, strict=True)]
            for blocks, of_blocks in ((self.node_blocks, node_depths), (self.edge_blocks, edge_depths))
        ]
        also = [plan.chosen for own in plans for plan in own] if batch.here is not batch else ()
        graph = Neighbourhood.of(batch, padding, steps, also)
        sent = iter(graph.also or [None] * 2 * self.n_blocks)
        between_atoms, between_bonds = graph.atoms, graph.bonds
        nodes = Rows(batch.node_table, batch.node_type)
        of_atoms, of_sources, of_edges = graph.kinds
        first, sources = Rows(batch.node_table, of_atoms), Rows(batch.node_table, of_sources)
        edges = Rows(batch.edge_table, of_edges)
        if padding:
            nodes, first, sources, edges = (rows.padded() for rows in (nodes, first, sources, edges))
        atoms = self.node_input(first)
        for block, plan, of_block in zip(self.node_blocks, plans[0], node_depths, strict=True):
            atoms = block(atoms, between_atoms, plan, next(sent))
            between_atoms = between_atoms.after(_steps([of_block]))
        bonds = self.edge_input(sources, edges)
        for block, plan, of_block in zip(self.edge_blocks, plans[1], edge_depths, strict=True):
            bonds = block(bonds, between_bonds, plan, next(sent))
            between_bonds = between_bonds.after(_steps([of_block]))
        of_atoms = self.from_atoms(nodes, atoms, graph.around)
        of_bonds = self.from_bonds(nodes, bonds, graph.entering)
        return (of_atoms[: batch.n_atoms], of_bonds[: batch.n_atoms]) if padding else (of_atoms, of_bonds)

    def _encode_fixed(self, batch: MoleculeBatch, depths: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `encode` does for a captured batch; depths: on its device."""
        sums, nodes = FixedSums.of(batch), Rows(batch.node_table, batch.node_type)
        sources = Rows(batch.node_table, batch.node_type.index_select(0, batch.src))
        atoms = self.node_input(nodes)
        bonds = self.edge_input(sources, Rows(batch.edge_table, batch.edge_type))
        most, each = self.depth + (MOST if self.dynamic_depth else 0), depths.view(2, self.n_blocks, -1)
        for place in range(self.n_blocks):
            of_node, of_edge = (cast("MTBlock", blocks[place]) for blocks in (self.node_blocks, self.edge_blocks))
            atoms = of_node.of_fixed_size(atoms, sums.atoms, each[0, place], most - 1)
            bonds = of_edge.of_fixed_size(bonds, sums.bonds, each[1, place], most - 1)
        return self.from_atoms(nodes, atoms, sums.atoms), self.from_bonds(nodes, bonds, sums.entering)

    @property
    def independent(self) -> bool:
        """Whether the result for a molecule does not depend on the others of its batch."""
        return self.padding != "reference" and (self.reference_padding.is_meta or not self._pads())

    def draw(self) -> Tensor:
        """Draw the depths (see `draw_depths`)."""
        return self.draw_depths()

    def draw_depths(self) -> Tensor:
        """Return the encoders' depths, int64 [2 * blocks * heads * 3].

        They are ordered by node and edge blocks, then by block, by head, and by q, k, v. In evaluation mode all are
        `depth`; in training mode they are int() of normal draws around it from torch's CPU generator.
        """
        count = 2 * self.n_blocks * self.n_heads * 3
        if not (self.training and self.dynamic_depth):
            return torch.full((count,), self.depth, device="cpu")
        uniform = torch.rand(count, dtype=torch.float64, device="cpu").mul_(1 - 2 * TAIL).add_(TAIL)
        return (self.depth + torch.special.ndtri(uniform)).long()

    def read(self, views: tuple[Tensor, Tensor], batch: MoleculeBatch) -> list[Tensor]:
        """Return the molecules' vectors [B, width] of each view's atoms [N, hidden_size], with any descriptors."""
        if self.readout is None:
            # On a device, whose time goes into launches, both views in one call; on a CPU the copies would cost more.
            joint = [*views] if views[0].is_cpu else [torch.cat(views, dim=1)]
            means = [segment_mean(atoms, batch.molecule, batch.sizes) for atoms in joint]
            vectors = means if len(means) > 1 else list(means[0].split(self.hidden_size, dim=1))
        else:
            vectors = [self.readout(atoms, batch) for atoms in views]
        if batch.descriptors is None:
            return vectors
        known = batch.descriptors.nan_to_num(nan=0.0)
        return [torch.cat([vector, known], dim=1) for vector in vectors]

    @torch.no_grad()
    def atom_attention(self, batch: MoleculeBatch) -> Tensor:
        """Return the readout's attention to each atom [N]: the mean over its outputs and both encoders.

        It sums to 1 over each molecule. Raises ConfigError for another readout, because GROVER's blocks attend between
        the heads of one atom, never between atoms.
        """
        if self.readout is None:
            raise ConfigError(
                "GROVER attends between heads, not between atoms, so model.readout=mean has no attention to an atom; "
                "train with model.readout=self_attention, or explain by gradient."
            )
        found = []
        for atoms in self.encode(batch):
            weights, where = self.readout.weights(atoms, batch)
            found.append(weights.mean(2)[where])
        return torch.stack(found).mean(0)

    def initialise(self, init: str) -> None:
        """Initialise the parameters: Xavier-normal matrices and zero biases.

        Gains are 1 and PReLU slopes 0.25, or both 0 with init="reference".
        """
        for module in self.modules():
            for name, parameter in module.named_parameters(recurse=False):
                gain = {nn.LayerNorm: 1.0, nn.PReLU: 0.25}.get(type(module), 0.0) if init == "sane" else 0.0
                if name == "W_h":
                    for matrix in parameter:
                        nn.init.xavier_normal_(matrix)
                elif parameter.dim() > 1 and name != "b_h":
                    nn.init.xavier_normal_(parameter)
                else:
                    nn.init.constant_(parameter, gain if name == "weight" else 0.0)

    def from_reference(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the state dict of GroverFinetuneTask as ours; ours stacks the q, k, v encoders of all heads."""
        state: dict[str, Tensor] = {"reference_padding": self.reference_padding}
        stacks: dict[str, list[Tensor]] = {}
        for ours, slot, theirs in self.reference_names():
            if slot is None:
                state[ours] = tensors[theirs]
            else:
                stacks.setdefault(ours, []).append(tensors[theirs])
        join = {name: torch.cat(v) if name.endswith("act.weight") else torch.stack(v) for name, v in stacks.items()}
        return state | join

    def to_reference(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return our tensors under GroverFinetuneTask's names."""
        named = {}
        for ours, slot, theirs in self.reference_names():
            if ours in tensors:
                value = tensors[ours]
                named[theirs] = value if slot is None else value[slot].reshape(-1, *value.shape[2:])
        return named

    def reference_names(self) -> Iterator[tuple[str, int | None, str]]:
        """Yield (our parameter, index in it or None for all of it, the reference's parameter) for each of ours."""
        for ours in dict(self.named_parameters()):
            part, _, rest = ours.partition(".")
            if part in ("node_blocks", "edge_blocks"):
                block, name = rest.split(".", 1)
                prefix = f"grover.encoders.{part}.{block}."
                if name in _STACKED:
                    for slot in range(3 * self.n_heads):
                        encoder = f"heads.{slot // 3}.mpn_{ROLES[slot % 3]}."
                        yield ours, slot, prefix + encoder + _STACKED[name]
                else:
                    yield ours, None, prefix + _rename(name, _IN_BLOCK)
            else:
                yield ours, None, _rename(ours, _OUTSIDE)

    def _unused(self) -> Iterator[str]:
        """Yield patterns of the parameters that fine-tuning does not use.

        These are the bond view, and the input layers of later blocks, whose input already has the right width.
        """
        for name in ("ffn_bond_from_*", "bond_from_*_sublayer.*", "act_func_node.*", "act_func_edge.*"):
            yield f"grover.encoders.{name}"
        yield "readout.cached_zero_vector"
        for view, layer in (("node", self.node_input), ("edge", self.edge_input)):
            for block in range(0 if layer.identity else 1, self.n_blocks):
                for name in ("W_i", "layernorm", "act_func"):
                    yield f"grover.encoders.{view}_blocks.{block}.{name}.*"
        # A head uses one activation after every layer, so the reference's state dict repeats a PReLU's slope.
        for layer_index in range(1, len(self.atom_head.layers) - 1):
            yield f"mol_atom_from_*_ffn.{3 * layer_index + 2}.weight"


def _steps(depths: list[list[int]]) -> int:
    """Return the number of message steps in all blocks together, counting the deepest encoder of each."""
    return sum(max(max(of_block) - 1, 0) for of_block in depths)


_STACKED = {"W_h": "W_h.weight", "b_h": "W_h.bias", "act.weight": "act_func.weight"}
_IN_BLOCK = {
    "query.": "attn.linear_layers.0.",
    "key.": "attn.linear_layers.1.",
    "value.": "attn.linear_layers.2.",
    "W_out.": "attn.output_linear.",
    "norm.": "sublayer.norm.",
}
_OUTSIDE = {
    "node_input.act.": "grover.encoders.node_blocks.0.act_func.",
    "node_input.norm.": "grover.encoders.node_blocks.0.layernorm.",
    "node_input.": "grover.encoders.node_blocks.0.",
    "edge_input.act.": "grover.encoders.edge_blocks.0.act_func.",
    "edge_input.norm.": "grover.encoders.edge_blocks.0.layernorm.",
    "edge_input.": "grover.encoders.edge_blocks.0.",
    "from_atoms.norm.": "grover.encoders.atom_from_atom_sublayer.norm.",
    "from_bonds.norm.": "grover.encoders.atom_from_bond_sublayer.norm.",
    "from_atoms.act.": "grover.encoders.ffn_atom_from_atom.act_func.",
    "from_bonds.act.": "grover.encoders.ffn_atom_from_bond.act_func.",
    "from_atoms.": "grover.encoders.ffn_atom_from_atom.",
    "from_bonds.": "grover.encoders.ffn_atom_from_bond.",
    "readout.": "readout.attn.",
    "atom_head.act.": "mol_atom_from_atom_ffn.2.",
    "bond_head.act.": "mol_atom_from_bond_ffn.2.",
    "atom_head.layers.": "mol_atom_from_atom_ffn.",
    "bond_head.layers.": "mol_atom_from_bond_ffn.",
}


def _rename(name: str, prefixes: dict[str, str]) -> str:
    """Return the name with its first matching prefix replaced.

    The reference's heads repeat (dropout, linear, activation), so layer i of a head is entry 3i + 1 there.
    """
    theirs = next((new + name[len(old) :] for old, new in prefixes.items() if name.startswith(old)), name)
    if "_head.layers." not in name:
        return theirs
    head, layer, leaf = theirs.split(".")
    return f"{head}.{3 * int(layer) + 1}.{leaf}"


def _check(given: dict[str, str | None], **sizes: int) -> None:
    for name, value in given.items():
        if value not in CHOICES[name]:
            choices = ", ".join("null" if c is None else c for c in CHOICES[name])
            raise ConfigError(f"model.{name} is {value!r}; choose one of {choices}.")
    for name, size in sizes.items():
        if size < 1:
            raise ConfigError(f"model.{name} is {size}; give a whole number of at least 1.")
    if sizes["hidden_size"] % sizes["n_heads"]:
        raise ConfigError(
            f"model.hidden_size is {sizes['hidden_size']}, not a multiple of model.n_heads {sizes['n_heads']}; "
            "change one of them."
        )
