"""Products of groups of rows, each group with a matrix of its own."""

from __future__ import annotations

import torch
from torch import Tensor


def grouped_product(rows: Tensor, matrices: Tensor, sizes: list[int]) -> Tensor:
    """Rows [E, d] in K consecutive groups of `sizes`, times their group's matrix [K, d, f] -> [E, f]."""
    groups = rows.to(matrices.dtype).split(sizes)
    products = [part @ matrix for part, matrix in zip(groups, matrices.unbind(), strict=True)]
    return torch.cat([matrices.new_empty(0, matrices.shape[2]), *products])  # there may be no group
