"""CoMPT, literally: every molecule padded to L atoms, every pair of atoms with its own key, torch's GRU.

Symbols as in the paper and its release; weights under the release's names.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from molsam.chem.arrays import DISCONNECTED
from molsam.data.batch import MoleculeBatch
from molsam.data.packed import PackedMolecules

Weights = dict[str, Tensor]
SLOPE = 0.3
"""of the leaky ReLU"""
DENSE: dict[str, Callable[[Tensor], Tensor]] = {
    "mish": lambda x: x * torch.tanh(torch.log1p(x.exp())),
    "relu": lambda x: torch.where(x > 0, x, SLOPE * x),
    "tanh": torch.tanh,
    "gelu": lambda x: x * torch.special.ndtr(x),
    "swish": lambda x: x * torch.sigmoid(x),
    "none": lambda x: x,
}


def with_pairs(packed: PackedMolecules) -> PackedMolecules:
    """The molecules with an index column after the node features and with topological distances."""
    distances, index = [], []
    for start, end, first, last in zip(
        packed.node_offset[:-1], packed.node_offset[1:], packed.edge_offset[:-1], packed.edge_offset[1:], strict=True
    ):
        n = int(end - start)
        D = np.where(np.eye(n) > 0, 0, 10**6)
        D[packed.src[first:last], packed.dst[first:last]] = 1
        for via in range(n):
            D = np.minimum(D, D[:, via : via + 1] + D[via : via + 1])
        distances.append(torch.from_numpy(np.where(D >= 10**6, DISCONNECTED, D).astype(np.int16)).view(-1))
        index.append(torch.arange(1.0, n + 1))
    nodes = torch.cat([packed.nodes, torch.cat(index)[:, None]], dim=1)
    every = torch.arange(len(nodes), dtype=torch.int32)
    return replace(packed, node_table=nodes, node_type=every, distances=torch.cat(distances))


def compt(
    w: Weights, batch: MoleculeBatch, L: int, *, h: int, kernel: str, norm: str, dense: str = "mish"
) -> tuple[Tensor, Tensor]:
    """(outputs [B, T], messages [layers, B, h, L, L]) of molecules padded to L atoms."""
    nodes, bonds, D, mask = _padded(batch, L)
    d = w["pos_embed.pe.weight"].shape[1]
    x = math.sqrt(d) * _lin(w, "node_embed.lut", nodes[..., :-1])
    x = x + w["pos_embed.pe.weight"][nodes[..., -1].long()]
    e = math.sqrt(d) * _lin(w, "edge_embed.lut", bonds)
    messages = []
    for layer in range(_count(w, "encoder.layers")):
        x, message = _layer(w, f"encoder.layers.{layer}", x, e, D, mask, h=h, kernel=kernel, norm=norm, dense=dense)
        messages.append(message)
    return _generator(w, _norm(w, "encoder.norm", norm, x), mask, norm), torch.stack(messages)


def _layer(
    w: Weights, name: str, x: Tensor, e: Tensor, D: Tensor, mask: Tensor, *, h: int, kernel: str, norm: str, dense: str
) -> tuple[Tensor, Tensor]:
    x = _norm(w, f"{name}.norm", norm, x)
    q, v = (_lin(w, f"{name}.self_attn.linears.{i}", x).unflatten(-1, (h, -1)) for i in (0, 2))
    k = _lin(w, f"{name}.self_attn.linears.1", e).unflatten(-1, (h, -1))
    S = torch.einsum("bmhc,bmnhc->bhmn", q, k) / math.sqrt(q.shape[-1])
    T = torch.einsum("bmhc,bnmhc->bhmn", q, k) / math.sqrt(q.shape[-1])
    hidden = ~mask[:, None, None, :]
    S, T = (s.masked_fill(hidden, -torch.inf).softmax(-1) for s in (S, T))
    A = S + T - torch.diag_embed(S.diagonal(dim1=-2, dim2=-1))
    exponent = -w[f"{name}.self_attn.attenuation_lambda"] * D
    exponent = exponent.masked_fill(~mask[:, None, :], -torch.inf)
    K = exponent.softmax(-1) if kernel == "softmax" else exponent.exp()
    message = A * K[:, None]
    o = torch.einsum("bhmn,bnhc->bmhc", message, v).flatten(2)
    y = x + _norm(w, f"{name}.norm", norm, F.mish(_lin(w, f"{name}.self_attn.linears.3", o)))
    f = y
    n_dense = _count(w, f"{name}.feed_forward.linears")
    for i in range(n_dense):
        f = DENSE[dense if i == n_dense - 1 else "mish"](_lin(w, f"{name}.feed_forward.linears.{i}", f))
    return x + y + _norm(w, f"{name}.norm", norm, f), message


def _generator(w: Weights, x: Tensor, mask: Tensor, norm: str) -> Tensor:
    X = torch.where(mask[..., None], x, 0)
    h0 = F.mish(X + w["generator.bias"]).max(dim=1).values
    gru = nn.GRU(X.shape[-1], X.shape[-1], batch_first=True, bidirectional=True).to(X.dtype)
    own = {name: w[f"generator.gru.{name}"] for name, _ in gru.named_parameters()}
    G, _ = torch.func.functional_call(gru, own, (X, h0.expand(2, -1, -1).contiguous()))
    M = F.mish(_lin(w, "generator.linear", G))
    y = M.sum(dim=1) / mask.sum(dim=1, keepdim=True)
    if "generator.proj.weight" in w:
        return _lin(w, "generator.proj", y)
    last = max(int(name.split(".")[2]) for name in w if name.startswith("generator.proj."))
    for i in range(0, last, 4):
        y = _norm(w, f"generator.proj.{i + 2}", norm, F.mish(_lin(w, f"generator.proj.{i}", y)))
    return _lin(w, f"generator.proj.{last}", y)


def _padded(batch: MoleculeBatch, L: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    B = len(batch)
    assert batch.distances is not None
    nodes = batch.nodes.new_zeros(B, L, batch.nodes.shape[1])
    bonds = batch.nodes.new_zeros(B, L, L, batch.edge_table.shape[1])
    D, mask = batch.nodes.new_zeros(B, L, L), torch.zeros(B, L, dtype=torch.bool)
    pair = 0
    for b, n in enumerate(batch.sizes.tolist()):
        first = int(batch.offsets[b])
        nodes[b, :n], mask[b, :n] = batch.nodes[first : first + n], True
        distance = batch.distances[pair : pair + n * n].view(n, n).to(D.dtype)
        D[b, :n, :n] = torch.where(distance < 0, 1e8, distance)
        pair += n * n
    molecule = batch.molecule[batch.src]
    bonds[molecule, batch.src - batch.offsets[molecule], batch.dst - batch.offsets[molecule]] = batch.edges
    return nodes, bonds, D, mask


def _lin(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def _norm(w: Weights, name: str, norm: str, x: Tensor) -> Tensor:
    if norm == "scale":
        return x * w[f"{name}.scale"] / x.norm(dim=-1, keepdim=True).clamp(min=1e-5)
    return w[f"{name}.a_2"] * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6) + w[f"{name}.b_2"]


def _count(w: Weights, prefix: str) -> int:
    numbers = [int(name[len(prefix) + 1 :].split(".")[0]) for name in w if name.startswith(f"{prefix}.")]
    return 1 + max(numbers, default=-1)
