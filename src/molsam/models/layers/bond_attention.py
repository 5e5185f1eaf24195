"""CoMPT's attention over all atom pairs of a molecule, at the price of its bonds.

A pair that is no bond has zero bond features, so all such pairs of an atom share one score; bonds have few
distinct feature vectors (types). Bond features are symmetric, so the reference's "out" and "in" scores agree, and
for atom m of a molecule with n atoms

    A_mn = (2 - [m = n]) p_m,type(mn) K_mn,      o_m = sum over n of A_mn v_n   (per head; K is common to all)

where p_m is a softmax over the types, each counted as often as atom m has it (type 0, no bond: n - degree),
and K the distance kernel. Scores are [N, heads, types]; only A has an entry per pair, and it has no width. The
products with v run in buckets of molecules of similar size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from molsam.chem.arrays import DISCONNECTED
from molsam.data.batch import MoleculeBatch
from molsam.models.layers.fused import replay
from molsam.native import kernels

FAR = 1e8
"""the reference's distance between atoms of different fragments"""


class Bucket(NamedTuple):
    """b molecules of at most n atoms, padded to n."""

    distance: Tensor
    """float [b, n, n], 0 at padding"""
    outside: Tensor
    """float [b, 1, n], -inf at padding, else 0"""


class Relations:
    """What the attention of all layers asks of a batch whose featurizer gave distances."""

    def __init__(self, batch: MoleculeBatch, heads: int) -> None:
        if batch.distances is None:
            raise ValueError("the batch has no distances; its featurizer must have pairs=True")
        self.batch, self.heads = batch, heads
        N, T = len(batch.nodes), len(batch.edge_table) + 1
        counts = _count(batch.dst * T + batch.edge_type + 1, N * T).view(N, T)
        counts[:, 0] = batch.sizes.index_select(0, batch.molecule) - counts.sum(1)
        counts = counts.to(batch.nodes.dtype).unsqueeze(1)
        self.log_counts = counts.log()
        """float [N, 1, T], logarithm of how often an atom has each bond type; type 0 is no bond, type t + 1 row t of
        the table"""
        self.weight = 2 / counts.clamp(min=1)
        """float [N, 1, T], 2 / that number, 2 where it is 0"""

    @cached_property
    def pairs(self) -> Pairs:
        """All pairs of atoms, for computing with matrices A."""
        return _pairs(self.batch, self.heads)

    def mass(self, scores: Tensor) -> Tensor:
        """The softmax's mass per type [N, heads, T]."""
        return torch.softmax(scores + self.log_counts, dim=-1)


def _count(index: Tensor, length: int) -> Tensor:
    """How often each number from 0 to length - 1 occurs, int64 [length]."""
    if index.is_cpu:
        return torch.bincount(index, minlength=length)
    return index.new_zeros(length).index_add_(0, index, torch.ones_like(index))  # waits for nothing


@dataclass
class Pairs:
    """The atom pairs of a batch. Slots are the buckets' padded atoms [b, n]; places are entries of A,
    [b, heads, n, n] bucket by bucket; the same without heads are pairs."""

    buckets: list[Bucket]
    order: Tensor
    """int64 [B], the molecules in the order of the buckets"""
    sizes: Tensor
    """int64 [B], their numbers of atoms"""
    heads: int
    row: Tensor
    """int64 [slots * heads], row of [N * heads, ...] in each slot of a head; row 0 at padding"""
    real: Tensor
    """float [slots * heads], 0 at padding, else 1"""
    slot: Tensor
    """int64 [N * heads], the inverse of `row`"""
    place: Tensor
    """int64 [(E + N) * heads], place of (dst, src) of each bond, then of (m, m) of each atom"""
    pair: Tensor
    """int64 [(E + N) * heads], its pair"""
    score: Tensor
    """int64 [(E + N) * heads], its entry in [N, heads, T]"""
    bond_row: Tensor
    """int64 [E * heads], the row in [N * heads] of each bond"""

    @property
    def shapes(self) -> list[tuple[int, int, int]]:
        """(b, heads, n) of each bucket."""
        return [(len(bucket.distance), self.heads, bucket.distance.shape[2]) for bucket in self.buckets]


def _pairs(batch: MoleculeBatch, heads: int) -> Pairs:
    N, T, device, real = len(batch.nodes), len(batch.edge_table) + 1, batch.nodes.device, batch.nodes.dtype
    order = torch.argsort(batch.sizes, descending=True, stable=True)
    sizes = batch.sizes.index_select(0, order)
    # On a device a further call costs more than padding.
    groups = _groups(batch.sizes.tolist()) if batch.sizes.is_cpu else [(len(batch), batch.max_size)]
    padded = torch.cat([sizes.new_full((b,), n) for b, n in groups])
    starts = torch.stack([padded, padded.cumsum(0) - padded, padded.square().cumsum(0) - padded.square()])
    starts = torch.empty_like(starts).index_copy_(1, order, starts)
    # Per atom: n of its bucket, first slot and first pair of its molecule, its number in it, and its own slot.
    n, slot, pair = starts.index_select(1, batch.molecule)
    local = torch.arange(N, device=device) - batch.offsets.index_select(0, batch.molecule)
    head = torch.arange(heads, device=device)
    row = pair.unsqueeze(1) * heads + (head * n.unsqueeze(1) + local.unsqueeze(1)) * n.unsqueeze(1)
    slots = (slot.unsqueeze(1) * heads + head * n.unsqueeze(1) + local.unsqueeze(1)).view(-1)
    other = local.index_select(0, batch.src)
    pair = pair + local * n
    at = torch.cat([pair.index_select(0, batch.dst) + other, pair + local])
    place = torch.cat([row.index_select(0, batch.dst) + other.unsqueeze(1), row + local.unsqueeze(1)])
    kind = torch.cat([batch.edge_type + 1, torch.zeros_like(local)])
    rows = (torch.cat([batch.dst, torch.arange(N, device=device)]).unsqueeze(1) * heads + head).view(-1)
    size = batch.sizes.index_select(0, batch.molecule)
    total = sum(b * n for b, n in groups) * heads
    return Pairs(
        buckets=_buckets(batch, groups, pair, size, slot + local),
        order=order,
        sizes=sizes,
        heads=heads,
        row=slots.new_zeros(total).index_copy_(0, slots, torch.arange(N * heads, device=device)),
        real=torch.zeros(total, dtype=real, device=device).index_fill_(0, slots, 1),
        slot=slots,
        place=place.view(-1),
        pair=at.repeat_interleave(heads),
        score=rows * T + kind.repeat_interleave(heads),
        bond_row=rows[: len(batch.dst) * heads],
    )


def _groups(sizes: list[int]) -> list[tuple[int, int]]:
    """(molecules, largest size) of each bucket, the largest molecules first; a new one where padding would cost more than a
    further call."""
    found: list[tuple[int, int]] = []
    for size in sorted(sizes, reverse=True):
        if not found or size < 0.75 * found[-1][1] - 4:
            found.append((0, size))
        found[-1] = (found[-1][0] + 1, found[-1][1])
    return found


def _buckets(
    batch: MoleculeBatch, groups: list[tuple[int, int]], pair: Tensor, size: Tensor, slot: Tensor
) -> list[Bucket]:
    """The buckets; per atom: its first pair, the atoms of its molecule, and its slot."""
    assert batch.distances is not None
    known = batch.distances.to(batch.nodes.dtype)
    known.masked_fill_(batch.distances == DISCONNECTED, FAR)
    places = (pair - size.cumsum(0) + size).repeat_interleave(size, output_size=len(known)) + torch.arange(
        len(known), device=known.device
    )
    shapes = [(b, n, n) for b, n in groups]
    distance = known.new_zeros(sum(b * n * n for b, n in groups)).index_copy_(0, places, known)
    outside = known.new_full((sum(b * n for b, n in groups),), -torch.inf).index_fill_(0, slot, 0)
    parts = zip(distance.split([b * n * n for b, n in groups]), outside.split([b * n for b, n in groups]), strict=True)
    return [Bucket(d.view(shape), o.view(shape[0], 1, -1)) for (d, o), shape in zip(parts, shapes, strict=True)]


def messages(relations: Relations, scores: Tensor, decay: Tensor, kernel: str) -> list[Tensor]:
    """A of every molecule, float [heads, n, n].

    scores: float [N, heads, T]; decay: lambda, a scalar; kernel: softmax or exp.
    """
    p = relations.pairs
    padded = [a for A in _by_bucket(p, _messages(relations, scores, decay, kernel)) for a in A]
    found = zip(p.order.tolist(), padded, p.sizes.tolist(), strict=True)
    return [a[:, :n, :n] for _, a, n in sorted(found, key=lambda each: each[0])]


def attend(relations: Relations, scores: Tensor, values: Tensor, decay: Tensor, kernel: str) -> Tensor:
    """o, float [N, width]; values: float [N, width], the heads' columns one after the other."""
    if torch.is_autocast_enabled(values.device.type):
        with torch.autocast(values.device.type, enabled=False):
            return attend(relations, scores.to(decay.dtype), values.to(decay.dtype), decay, kernel)
    compiled = kernels.available(values) and kernels.whole_vectors(values.shape[1]) == values.shape[1]
    if not compiled:
        return _plain(relations, kernel, scores, values, decay)
    out: Tensor = _CompiledAttend.apply(relations, kernel, scores, values, decay)
    return out


class _CompiledAttend(torch.autograd.Function):
    """In C (c/compt/attention.c), without A and its indices."""

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
            return None, None, *replay(lambda *x: _plain(r, kernel, *x), (scores, values, decay), grad)
        by_scores, by_values = torch.zeros_like(scores), torch.empty_like(values)
        by_decay = decay.new_empty(len(r.batch))
        given = {"decay": decay, "values": values, "mass": mass, "share": share, "mixed": mixed}
        found = {"by_scores": by_scores, "by_values": by_values, "by_decay": by_decay}
        kernels.call("attention_backward", values.dtype, **ctx.common, **given, grad=grad.contiguous(), **found)
        return None, None, by_scores, by_values, by_decay.sum()


def _messages(r: Relations, scores: Tensor, decay: Tensor, kernel: str) -> Tensor:
    """All of A, flat."""
    p, mass = r.pairs, r.mass(scores)
    share = (mass * r.weight).view(-1)
    K = [_kernel(bucket, decay, kernel) for bucket in p.buckets]
    # Every pair as if not bonded, then the bonds and, with half the weight, the diagonal.
    rows = share.view(-1, mass.shape[2])[:, 0].index_select(0, p.row) * p.real
    every = zip(_by_bucket(p, rows, pairs=False), K, strict=True)
    A = torch.cat([(x.unsqueeze(-1) * k.unsqueeze(1)).view(-1) for x, k in every])
    special = share.index_select(0, p.score) * torch.cat([k.view(-1) for k in K]).index_select(0, p.pair)
    special[len(p.bond_row) :] *= 0.5
    return A.index_copy_(0, p.place, special)


def _kernel(bucket: Bucket, decay: Tensor, kernel: str) -> Tensor:
    """K of a bucket, 0 for padding's columns."""
    exponent = torch.addcmul(bucket.outside, bucket.distance, decay, value=-1)
    if kernel == "exp":
        if not decay.is_cpu or decay < 0:  # a device would be waited for
            # The reference overflows for fragments where decay < 0; the bound changes nothing else.
            bound = torch.where(decay < 0, 0.0, torch.inf).to(exponent.dtype)
            exponent = torch.where(bucket.distance == FAR, exponent.clamp(max=bound), exponent)
        return exponent.exp()
    return exponent.softmax(-1)


def _combine(p: Pairs, A: Tensor, v: Tensor) -> Tensor:
    """A v in every bucket, [N * heads, width of a head]."""
    every = zip(_by_bucket(p, A), _by_bucket(p, v, pairs=False), strict=True)
    o = [torch.bmm(a.flatten(0, 1), x.flatten(0, 1)).flatten(0, 1) for a, x in every]
    return torch.cat(o).index_select(0, p.slot)


def _plain(r: Relations, kernel: str, scores: Tensor, values: Tensor, decay: Tensor) -> Tensor:
    """`attend` in plain torch."""
    A = _messages(r, scores, decay, kernel)
    return _combine(r.pairs, A, _in_slots(r.pairs, values)).view(values.shape)


def _in_slots(p: Pairs, atoms: Tensor) -> Tensor:
    """Rows of atoms [N, width] in the slots of each head, [slots * heads, width of a head]."""
    return atoms.reshape(len(atoms) * p.heads, -1).index_select(0, p.row)


def _by_bucket(p: Pairs, flat: Tensor, *, pairs: bool = True) -> list[Tensor]:
    """Views [b, heads, n, n] of places, or [b, heads, n, ...] of slots, one per bucket."""
    shapes = [(*shape, shape[-1]) if pairs else shape for shape in p.shapes]
    parts = flat.split([math.prod(shape) for shape in shapes])
    return [part.view(*shape, *flat.shape[1:]) for part, shape in zip(parts, shapes, strict=True)]
