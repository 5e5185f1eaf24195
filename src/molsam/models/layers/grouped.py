"""Products of groups of rows, each group with its own matrix."""

from __future__ import annotations

import torch
from torch import Tensor


def grouped_product(rows: Tensor, matrices: Tensor, sizes: list[int]) -> Tensor:
    """Return rows [E, d] times the matrix [K, d, f] of their group, [E, f]; the K groups are consecutive and have
    `sizes`."""
    groups = rows.to(matrices.dtype).split(sizes)
    products = [part @ matrix for part, matrix in zip(groups, matrices.unbind(), strict=True)]
    return torch.cat([matrices.new_empty(0, matrices.shape[2]), *products])  # there may be no group
