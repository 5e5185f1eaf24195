"""CoMPT's attention over all atom pairs of a molecule, at the cost of its bonds.

A pair without a bond has zero bond features, so all such pairs of an atom share one score. Bonds have few distinct
feature vectors (types). Bond features are symmetric, so the reference's "out" and "in" scores are equal, and for atom m
of a molecule with n atoms

    A_mn = (2 - [m = n]) p_m,type(mn) K_mn,      o_m = sum over n of A_mn v_n   (per head; K is common to all)

where p_m is a softmax over the types, each counted as often as atom m has it (type 0, no bond: n - degree), and K is
the distance kernel. Scores are [N, heads, types]; only A has an entry per pair, and it has no feature dimension. The
products with v run in buckets of molecules of similar size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from molsam.chem.arrays import DISCONNECTED
from molsam.data.batch import MoleculeBatch
from molsam.data.states import ranges
from molsam.models.layers.fused import replay
from molsam.models.layers.segment import take
from molsam.native import kernels

FAR = 1e8
"""the distance between atoms of different fragments, as in the reference"""


class Relations:
    """Everything about a batch that the attention of all layers needs; the batch must have distances.

    also: a module's function of the batch on the CPU, and its other arguments. Tensors that it returns are sent to the
    device in the same copy; the attribute of that name has them there.
    """

    def __init__(self, batch: MoleculeBatch, heads: int, also: tuple[Any, ...] = ()) -> None:
        self.batch, self.heads = batch, heads
        on_cpu, real = batch.sizes.is_cpu, batch.node_table.dtype
        made = _counts(batch, real) if on_cpu else batch.derive(_on_device, heads, real, *also)
        self.log_counts = made[0]
        """float [N, 1, T], logarithm of the number of pairs of each bond type that an atom has; type 0 is no bond, type
        t + 1 is row t of the batch's table"""
        self.weight = made[1]
        """float [N, 1, T], 2 / that number, or 2 where it is 0"""
        self.also: Sequence[Tensor] = made[2 + len(Lists._fields) :]
        if not on_cpu:
            lists = Lists(*made[2 : 2 + len(Lists._fields)])
            self.pairs = _pairs(batch, heads, [(len(batch), batch.max_size)], lists)

    @cached_property
    def pairs(self) -> Pairs:
        """All pairs of atoms, for the form that computes the matrices A."""
        groups = _groups(self.batch.sizes.tolist())
        lists = _lists(self.batch, self.heads, groups, self.batch.node_table.dtype)
        return _pairs(self.batch, self.heads, groups, lists)

    def shares(self, scores: Tensor) -> Tensor:
        """Return twice the softmax weight of one pair of each type, float [N, heads, T].

        The softmax runs over all pairs of an atom.
        """
        return torch.softmax(scores + self.log_counts, dim=-1) * self.weight

    def kernels(self, decay: Tensor, kernel: str) -> list[Tensor]:
        """Return K of each bucket with its diagonal halved, 0 in the columns of padding; float [L, b, n, n].

        decay: float [L], or a scalar (then L is 1).
        """
        return [_kernel(bucket, decay.view(-1, 1, 1, 1), kernel) * bucket.halves for bucket in self.pairs.buckets]


def _counts(batch: MoleculeBatch, real: torch.dtype) -> list[Tensor]:
    """Return `Relations.log_counts` and `Relations.weight` of a batch on the CPU."""
    if batch.distances is None:
        raise ValueError("the batch has no distances; its featurizer must have pairs=True")
    N, T = len(batch.molecule), len(batch.edge_table) + 1
    counts = torch.bincount(batch.dst * T + batch.edge_type + 1, minlength=N * T).view(N, T)
    counts[:, 0] = batch.sizes.index_select(0, batch.molecule) - counts.sum(1)
    counts = counts.to(real).unsqueeze(1)
    return [counts.log(), 2 / counts.clamp(min=1)]


def _on_device(batch: MoleculeBatch, heads: int, real: torch.dtype, *also: Any) -> list[Tensor]:
    """Return all that a device needs: `_counts`, the `Lists` of one bucket, and what `also` computes."""
    groups = [(len(batch), batch.max_size)]  # on a device one more call costs more than padding
    others = also[0](batch, *also[1:]) if also else []
    return [*_counts(batch, real), *_lists(batch, heads, groups, real), *others]


class Bucket(NamedTuple):
    """b molecules of at most n atoms, padded to n."""

    distance: Tensor
    """float [b, n, n], 0 at padding"""
    outside: Tensor
    """float [b, 1, n], -inf at padding, else 0"""
    halves: Tensor
    """float [n, n], 0.5 on the diagonal, else 1"""
    entry: Tensor
    """int64 [b * heads * n * n], for each entry of A its index in the flattened [N, heads, T]; arbitrary at padding"""


class Pairs(NamedTuple):
    """The atom pairs of a batch.

    A slot is an entry of a bucket's padded atoms [b, heads, n]; buckets follow each other.
    """

    buckets: list[Bucket]
    shapes: list[tuple[int, int, int]]
    """(b, heads, n) of each bucket"""
    row: Tensor
    """int64 [slots], the row of [N * heads, ...] in each slot; 0 at padding"""
    slot: Tensor
    """int64 [N * heads], the inverse of `row`"""


class Lists(NamedTuple):
    """The index lists of the pairs, made on the CPU. A place is an entry of a bucket's padded pairs [b, n, n]."""

    row: Tensor
    slot: Tensor
    outside: Tensor
    """float [slots without heads], -inf at padding, else 0"""
    distance: Tensor
    """float [places], 0 at padding"""
    bond: Tensor
    """int64 [E], the place of (dst, src) of each bond"""


def _lists(batch: MoleculeBatch, heads: int, groups: list[tuple[int, int]], real: torch.dtype) -> Lists:
    """Return the lists of a batch on the CPU; its molecules, largest first, fill these groups (see `_groups`)."""
    assert batch.distances is not None
    sizes, molecule = batch.sizes.numpy(), batch.molecule.numpy()
    padded = np.repeat([n for _, n in groups], [b for b, _ in groups])
    starts = np.empty((3, len(sizes)), np.int64)
    starts[:, _order(sizes)] = padded, padded.cumsum() - padded, np.square(padded).cumsum() - np.square(padded)
    # Per atom: n of its bucket, the first slot and first pair of its molecule, and its index in the molecule.
    n, first, pair = starts.take(molecule, 1)
    local = np.arange(len(molecule)) - batch.offsets.numpy().take(molecule)
    pair += local * n
    slot = ((first * heads + local)[:, None] + n[:, None] * np.arange(heads)).reshape(-1)
    row, outside = np.zeros(padded.sum() * heads, np.int64), np.full(padded.sum(), -np.inf)
    row[slot], outside[first + local] = np.arange(len(slot)), 0
    distance = batch.distances.to(real)
    distance.masked_fill_(batch.distances == DISCONNECTED, FAR)
    place = torch.from_numpy(ranges(pair, sizes.take(molecule))[0])
    every = distance.new_zeros(np.square(padded).sum()).index_copy_(0, place, distance)
    bond = pair.take(batch.dst.numpy()) + local.take(batch.src.numpy())
    row_, slot_, outside_, bond_ = map(torch.from_numpy, (row, slot, outside, bond))
    return Lists(row_, slot_, outside_.to(real), every, bond_)


def _order(sizes: np.ndarray) -> np.ndarray:
    """Return the molecules' indices in the order of the buckets."""
    return np.argsort(-sizes, kind="stable")


def _pairs(batch: MoleculeBatch, heads: int, groups: list[tuple[int, int]], lists: Lists) -> Pairs:
    pairs, types = [b * n * n for b, n in groups], len(batch.edge_table) + 1
    kind = lists.bond.new_zeros(sum(pairs)).index_copy_(0, lists.bond, batch.edge_type + 1)
    slots = [b * n for b, n in groups]
    parts = (
        lists.distance.split(pairs),
        kind.split(pairs),
        lists.outside.split(slots),
        lists.row.split([s * heads for s in slots]),
    )
    buckets = []
    for (b, n), d, k, outside, row in zip(groups, *parts, strict=True):
        entry = torch.add(k.view(b, 1, n, n), row.view(b, heads, n, 1), alpha=types)
        halves = d.new_ones(n, n).fill_diagonal_(0.5)
        buckets.append(Bucket(d.view(b, n, n), outside.view(b, 1, n), halves, entry.view(-1)))
    return Pairs(buckets, [(b, heads, n) for b, n in groups], lists.row, lists.slot)


def _groups(sizes: list[int]) -> list[tuple[int, int]]:
    """Return (number of molecules, largest size) of each bucket, largest molecules first.

    A new bucket begins where padding would cost more than another call.
    """
    found: list[tuple[int, int]] = []
    for size in sorted(sizes, reverse=True):
        if not found or size < 0.75 * found[-1][1] - 4:
            found.append((0, size))
        found[-1] = (found[-1][0] + 1, found[-1][1])
    return found


def messages(relations: Relations, scores: Tensor, decay: Tensor, kernel: str) -> list[Tensor]:
    """Return A of every molecule, float [heads, n, n].

    scores: float [N, heads, T]; decay: lambda, a scalar; kernel: softmax or exp.
    """
    padded = [a for A in _messages(relations, scores, relations.kernels(decay, kernel)) for a in A]
    sizes = relations.batch.here.sizes.numpy()
    found = dict(zip(_order(sizes), padded, strict=True))
    return [found[molecule][:, :n, :n] for molecule, n in enumerate(sizes.tolist())]


def attend(
    relations: Relations, scores: Tensor, values: Tensor, decay: Tensor, kernel: str, K: list[Tensor] | None
) -> Tensor:
    """Return o, float [N, width].

    values: float [N, width], the heads' columns one after the other. K: the result of `relations.kernels` for the
    layer's decay; None where `in_c`, because C computes it.
    """
    if torch.is_autocast_enabled(values.device.type):
        with torch.autocast(values.device.type, enabled=False):
            return attend(relations, scores.to(decay.dtype), values.to(decay.dtype), decay, kernel, K)
    if K is not None:
        return _plain(relations, scores, values, K)
    out: Tensor = _CompiledAttend.apply(relations, kernel, scores, values, decay)
    return out


def in_c(decay: Tensor, width: int) -> bool:
    """Return whether `attend` has a compiled form for values of this width."""
    return kernels.available(decay) and kernels.whole_vectors(width) == width


class _CompiledAttend(torch.autograd.Function):
    """Attention in C (c/compt/attention.c), which stores neither A nor its indices."""

    @staticmethod
    def forward(ctx, r: Relations, kernel: str, scores: Tensor, values: Tensor, decay: Tensor) -> Tensor:
        scores, values, b = scores.contiguous(), values.contiguous(), r.batch
        _, heads, types = scores.shape
        mass, share = scores.new_empty(2, *scores.shape)
        mixed, out = values.new_empty(2, *values.shape)
        assert b.distances is not None
        ctx.relations, ctx.kernel = r, kernel
        ctx.common = {
            "molecules": len(b),
            "heads": heads,
            "d": values.shape[1] // heads,
            "types": types,
            "softmax": int(kernel == "softmax"),
            "offsets": b.offsets,
            "bonds": b.bonds,
            "src": b.src,
            "dst": b.dst,
            "type": b.edge_type,
            "distance": b.distances,
            "weight": r.weight,
        }
        made = {"mass": mass, "share": share, "mixed": mixed, "out": out}
        given = {"decay": decay, "values": values, "scores": scores, "log_counts": r.log_counts}
        kernels.call("attention", values.dtype, **ctx.common, **given, **made)
        ctx.save_for_backward(scores, values, decay, mass, share, mixed)
        return out

    @staticmethod
    def backward(ctx, grad):
        r, kernel = ctx.relations, ctx.kernel
        scores, values, decay, mass, share, mixed = ctx.saved_tensors
        if torch.is_grad_enabled():
            return (
                None,
                None,
                *replay(lambda s, v, x: _plain(r, s, v, r.kernels(x, kernel)), (scores, values, decay), grad),
            )
        by_scores, by_values = torch.zeros_like(scores), torch.empty_like(values)
        by_decay = decay.new_empty(len(r.batch))
        given = {"decay": decay, "values": values, "mass": mass, "share": share, "mixed": mixed}
        found = {"by_scores": by_scores, "by_values": by_values, "by_decay": by_decay}
        kernels.call("attention_backward", values.dtype, **ctx.common, **given, grad=grad.contiguous(), **found)
        return None, None, by_scores, by_values, by_decay.sum()


def _kernel(bucket: Bucket, decay: Tensor, kernel: str) -> Tensor:
    """Return K of a bucket, 0 in the columns of padding."""
    exponent = torch.addcmul(bucket.outside, bucket.distance, decay, value=-1)
    if kernel == "exp":
        if not decay.is_cpu or bool((decay < 0).any()):  # on a device, reading the sign would wait for it
            # For decay < 0 the reference overflows between fragments; the bound changes only these pairs.
            bound = torch.where(decay < 0, 0.0, torch.inf).to(exponent.dtype)
            exponent = torch.where(bucket.distance == FAR, exponent.clamp(max=bound), exponent)
        return exponent.exp()
    return exponent.softmax(-1)


def _messages(r: Relations, scores: Tensor, K: list[Tensor]) -> list[Tensor]:
    """Return A of each bucket, float [b, heads, n, n]."""
    share, p = r.shares(scores).view(-1), r.pairs
    return [
        take(share, bucket.entry).view(*shape, shape[-1]) * k.view(shape[0], 1, shape[-1], shape[-1])
        for bucket, shape, k in zip(p.buckets, p.shapes, K, strict=True)
    ]


def _plain(r: Relations, scores: Tensor, values: Tensor, K: list[Tensor]) -> Tensor:
    """Compute `attend` in plain torch."""
    p, width = r.pairs, values.shape[1] // r.heads
    atoms, A = take(values.reshape(-1, width), p.row), _messages(r, scores, K)
    parts = [atoms] if len(A) == 1 else atoms.split([math.prod(shape) for shape in p.shapes])
    o = [torch.bmm(a.flatten(0, 1), v.view(-1, a.shape[-1], width)) for a, v in zip(A, parts, strict=True)]
    every = o[0].flatten(0, 1) if len(o) == 1 else torch.cat([x.flatten(0, 1) for x in o])
    return take(every, p.slot).view(values.shape)
