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

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from molsam.chem.arrays import DISCONNECTED
from molsam.data.batch import MoleculeBatch
from molsam.models.layers.fused import replay

FAR = 1e8
"""the reference's distance between atoms of different fragments"""


class Bucket(NamedTuple):
    """b molecules of at most n atoms, padded to n."""

    molecules: Tensor
    """int64 [b]"""
    n: int
    distance: Tensor
    """float [b, n, n], 0 at padding"""
    real: Tensor
    """float [b, n, n], 1 for pairs of atoms, 0 at padding"""


@dataclass
class Pairs:
    """The atom pairs of a batch. Slots are the buckets' padded atoms; places are entries of A, [b, heads, n, n]
    bucket by bucket."""

    buckets: list[Bucket]
    heads: int
    counts: Tensor
    """float [N, 1, T], how often an atom has each bond type; type 0 is no bond, type t + 1 row t of the table"""
    log_counts: Tensor
    """its logarithm"""
    row: Tensor
    """int64 [slots * heads], row of [N * heads, ...] in each slot of a head; row 0 at padding"""
    slot: Tensor
    """int64 [N * heads], the inverse"""
    bond_place: Tensor
    """int64 [E * heads], place of (dst, src) of each bond"""
    bond_score: Tensor
    """int64 [E * heads], its entry in [N, heads, T]"""
    bond_row: Tensor
    """int64 [E * heads], its row in [N * heads]"""
    diagonal: Tensor
    """int64 [N * heads], place of (m, m) of each atom"""

    @property
    def shapes(self) -> list[tuple[int, int, int]]:
        """(b, heads, n) of each bucket."""
        return [(len(bucket.molecules), self.heads, bucket.n) for bucket in self.buckets]


def pairs(batch: MoleculeBatch, heads: int) -> Pairs:
    """The pairs of a batch whose featurizer gave distances."""
    N, T, device = len(batch.nodes), len(batch.edge_table) + 1, batch.nodes.device
    buckets = _buckets(batch)
    head = torch.arange(heads, device=device)
    local = torch.arange(N, device=device) - batch.offsets[batch.molecule]
    # Per molecule: its first slot times heads, the bucket's n, its first place.
    first = torch.empty(3, len(batch), dtype=torch.int64, device=device)
    rows, slots, places = [], 0, 0
    for bucket in buckets:
        b, n = len(bucket.molecules), bucket.n
        each = torch.arange(b, device=device)
        first[0, bucket.molecules] = slots + each * heads * n
        first[1, bucket.molecules] = n
        first[2, bucket.molecules] = places + each * heads * n * n
        atom = batch.offsets[bucket.molecules, None] + torch.arange(n, device=device)
        atom = atom.where(bucket.real[:, :, 0] > 0, 0)
        rows.append((atom[:, None, :] * heads + head[:, None]).view(-1))
        slots, places = slots + b * heads * n, places + b * heads * n * n
    start, width, place = first[:, batch.molecule]
    atom_place = place[:, None] + (head * width[:, None] + local[:, None]) * width[:, None]
    degree = torch.zeros(N, dtype=torch.int64, device=device)
    counts = batch.nodes.new_zeros(N * T)
    score = batch.dst * T + batch.edge_type + 1
    counts.index_add_(0, score, counts.new_ones(len(score)))
    degree.index_add_(0, batch.dst, torch.ones_like(batch.dst))
    counts.view(N, T)[:, 0] = (batch.sizes[batch.molecule] - degree).to(counts.dtype)
    bond_row = batch.dst[:, None] * heads + head
    return Pairs(
        buckets=buckets,
        heads=heads,
        counts=counts.view(N, 1, T),
        log_counts=counts.view(N, 1, T).log(),
        row=torch.cat(rows),
        slot=(start[:, None] + head * width[:, None] + local[:, None]).view(-1),
        bond_place=(atom_place[batch.dst] + local[batch.src][:, None]).view(-1),
        bond_score=(bond_row * T + batch.edge_type[:, None] + 1).view(-1),
        bond_row=bond_row.view(-1),
        diagonal=(atom_place + local[:, None]).view(-1),
    )


def _buckets(batch: MoleculeBatch) -> list[Bucket]:
    """Molecules by decreasing size; a new bucket where padding would cost more than a further call."""
    if batch.distances is None:
        raise ValueError("the batch has no distances; its featurizer must have pairs=True")
    order = torch.argsort(batch.sizes, descending=True, stable=True)
    groups: list[list[int]] = []
    largest = 0
    for rank, size in enumerate(batch.sizes[order].tolist()):
        if not groups or size < 0.75 * largest - 4:
            groups.append([])
            largest = size
        groups[-1].append(rank)
    squares = batch.sizes.square()
    offset = squares.cumsum(0) - squares
    found = []
    for group in groups:
        molecules = order[group[0] : group[-1] + 1]
        size = batch.sizes[molecules].view(-1, 1, 1)
        n = int(size[0])
        i = torch.arange(n, device=size.device)
        real = (i[:, None] < size) & (i < size)
        place = (offset[molecules].view(-1, 1, 1) + i[:, None] * size + i).where(real, 0)
        distance = batch.distances[place].to(batch.nodes.dtype)
        distance = torch.where(distance == DISCONNECTED, FAR, distance).where(real, 0)
        found.append(Bucket(molecules, n, distance, real.to(distance.dtype)))
    return found


def messages(p: Pairs, scores: Tensor, decay: Tensor, kernel: str) -> list[Tensor]:
    """A of every molecule, float [heads, n, n].

    scores: float [N, heads, T]; decay: lambda, a scalar; kernel: softmax or exp.
    """
    found = {}
    for bucket, A in zip(p.buckets, _by_bucket(p, _messages(p, scores, decay, kernel)[0]), strict=True):
        sizes = bucket.real[:, 0].sum(1).long().tolist()
        for molecule, a, n in zip(bucket.molecules.tolist(), A, sizes, strict=True):
            found[molecule] = a[:, :n, :n]
    return [found[molecule] for molecule in range(len(found))]


def attend(p: Pairs, scores: Tensor, values: Tensor, decay: Tensor, kernel: str) -> Tensor:
    """o, float [N, width]; values: float [N, width], the heads' columns one after the other."""
    out: Tensor = _Attend.apply(p, kernel, scores, values, decay)
    return out


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx, p: Pairs, kernel: str, scores: Tensor, values: Tensor, decay: Tensor) -> Tensor:
        A, mass, K = _messages(p, scores, decay, kernel)
        v = values.reshape(len(values) * p.heads, -1).index_select(0, p.row)
        ctx.pairs, ctx.kernel = p, kernel
        ctx.save_for_backward(scores, values, decay, A, mass, v, *K)
        return _combine(p, A, v).view(values.shape)

    @staticmethod
    def backward(ctx, grad):
        p, kernel = ctx.pairs, ctx.kernel
        scores, values, decay, A, mass, v, *K = ctx.saved_tensors
        if torch.is_grad_enabled():
            return None, None, *replay(lambda *x: _plain(p, kernel, *x), (scores, values, decay), grad)
        g = grad.reshape(len(grad) * p.heads, -1).index_select(0, p.row)
        by_v, by_A = torch.empty_like(v), torch.empty_like(A)
        slots = [_by_bucket(p, t, pairs=False) for t in (v, g, by_v)]
        for a, b, x, y, z in zip(_by_bucket(p, A), _by_bucket(p, by_A), *slots, strict=True):
            torch.bmm(a.flatten(0, 1).mT, y.flatten(0, 1), out=z.flatten(0, 1))
            torch.bmm(y.flatten(0, 1), x.flatten(0, 1).mT, out=b.flatten(0, 1))
        by_decay = _decay_gradient(p, A, by_A, decay, K, kernel) if ctx.needs_input_grad[4] else None
        by_scores = _score_gradient(p, by_A, mass, K)
        by_values = by_v.index_select(0, p.slot).view(values.shape)
        return None, None, by_scores, by_values, by_decay


def _messages(p: Pairs, scores: Tensor, decay: Tensor, kernel: str) -> tuple[Tensor, Tensor, list[Tensor]]:
    """All of A (flat), the softmax's mass per type [N, heads, T], and K [b, n, n] of each bucket."""
    mass = torch.softmax(scores + p.log_counts, dim=-1)
    share = mass / p.counts.clamp(min=1)
    none = share[..., 0].reshape(-1)
    # Every pair as if not bonded, then what bonds have more and the diagonal less.
    rows = (2 * none).index_select(0, p.row)
    every = zip(_by_bucket(p, rows, pairs=False), p.shapes, strict=True)
    full = torch.cat([x.unsqueeze(-1).expand(*shape, shape[-1]).reshape(-1) for x, shape in every])
    bonds = share.view(-1).index_select(0, p.bond_score) - none.index_select(0, p.bond_row)
    full = full.index_add(0, p.bond_place, 2 * bonds).index_add(0, p.diagonal, -none)
    K = [_kernel(bucket, decay, kernel) for bucket in p.buckets]
    A = [(x * k.unsqueeze(1)).view(-1) for x, k in zip(_by_bucket(p, full), K, strict=True)]
    return torch.cat(A), mass, K


def _kernel(bucket: Bucket, decay: Tensor, kernel: str) -> Tensor:
    """K of a bucket, 0 at padding."""
    exponent = -decay * bucket.distance
    if kernel == "exp":
        # The reference overflows for fragments once lambda < 0; the bound changes nothing before that.
        exponent = torch.where(bucket.distance == FAR, exponent.clamp(max=0), exponent)
        return exponent.exp() * bucket.real
    return exponent.masked_fill(bucket.real[:, :1] == 0, -torch.inf).softmax(-1) * bucket.real


def _combine(p: Pairs, A: Tensor, v: Tensor) -> Tensor:
    """A v in every bucket, [N * heads, width of a head]."""
    every = zip(_by_bucket(p, A), _by_bucket(p, v, pairs=False), strict=True)
    o = [torch.bmm(a.flatten(0, 1), x.flatten(0, 1)).flatten(0, 1) for a, x in every]
    return torch.cat(o).index_select(0, p.slot)


def _decay_gradient(p: Pairs, A: Tensor, by_A: Tensor, decay: Tensor, K: list[Tensor], kernel: str) -> Tensor:
    total = torch.zeros_like(decay)
    for a, grad, k, bucket in zip(_by_bucket(p, A), _by_bucket(p, by_A), K, p.buckets, strict=True):
        slope = bucket.distance
        if kernel == "softmax":
            slope = slope - (k * slope).sum(-1, keepdim=True)
        elif decay < 0:
            slope = slope.where(slope != FAR, 0)
        total -= (a * grad).sum(1).mul_(slope).sum()
    return total


def _score_gradient(p: Pairs, by_A: Tensor, mass: Tensor, K: list[Tensor]) -> Tensor:
    """Overwrites by_A."""
    rows = []
    for grad, k in zip(_by_bucket(p, by_A), K, strict=True):
        rows.append(grad.mul_(k.unsqueeze(1)).sum(-1).view(-1))
    by_bonds = 2 * by_A.index_select(0, p.bond_place)
    by_none = 2 * torch.cat(rows).index_select(0, p.slot) - by_A.index_select(0, p.diagonal)
    by_none.index_add_(0, p.bond_row, by_bonds, alpha=-1)
    by_mass = torch.zeros_like(mass)
    by_mass.view(-1).index_add_(0, p.bond_score, by_bonds)
    by_mass[..., 0] = by_none.view(mass.shape[:2])
    by_mass /= p.counts.clamp(min=1)
    return mass * (by_mass - (by_mass * mass).sum(-1, keepdim=True))


def _plain(p: Pairs, kernel: str, scores: Tensor, values: Tensor, decay: Tensor) -> Tensor:
    """`attend` in differentiable steps."""
    A, _, _ = _messages(p, scores, decay, kernel)
    v = values.reshape(len(values) * p.heads, -1).index_select(0, p.row)
    return _combine(p, A, v).view(values.shape)


def _by_bucket(p: Pairs, flat: Tensor, *, pairs: bool = True) -> list[Tensor]:
    """Views [b, heads, n, n] of places, or [b, heads, n, ...] of slots, one per bucket."""
    shapes = [(*shape, shape[-1]) if pairs else shape for shape in p.shapes]
    parts = flat.split([torch.Size(shape).numel() for shape in shapes])
    return [part.view(*shape, *flat.shape[1:]) for part, shape in zip(parts, shapes, strict=True)]
