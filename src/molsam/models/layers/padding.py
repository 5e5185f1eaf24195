"""Padding: zero rows after each molecule's atoms, for reference implementations that read them."""

from __future__ import annotations

import torch
from torch import Tensor


def pad(x: Tensor, sizes: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Return x padded to `length` rows per molecule, [B * length, ...], and the row of each atom in it, int64 [N].

    x: [N, ...]; sizes: int64 [B], the number of atoms of each molecule, none above `length`.
    """
    starts = sizes.cumsum(0) - sizes
    shift = torch.arange(len(sizes), device=sizes.device) * length - starts
    rows = torch.arange(len(x), device=sizes.device) + shift.repeat_interleave(sizes, output_size=len(x))
    return x.new_zeros(len(sizes) * length, *x.shape[1:]).index_copy(0, rows, x), rows
