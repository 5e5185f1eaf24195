"""The sizes of a dataset that a model is built for."""

from __future__ import annotations

from typing import NamedTuple


class DataSpec(NamedTuple):
    """Widths of the features, and numbers of outputs and atoms."""

    node_dim: int
    edge_dim: int
    n_tasks: int
    """number of outputs: tasks, times classes if task is multiclass"""
    max_atoms: int
    """number of atoms of the largest molecule (the size of CoMPT's position table)"""
    descriptor_dim: int = 0
    """number of molecule descriptors, 0 for none"""
