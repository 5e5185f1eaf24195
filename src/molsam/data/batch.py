"""A batch of molecule graphs: the input of every model."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from molsam.data.states import BatchColours
from molsam.data.transfer import send, send_once
from molsam.errors import ConfigError, DataError

if TYPE_CHECKING:
    import dgl

NO_DGL = (
    "batch.graph needs DGL, which cannot be imported here; use Python 3.11 with `pip install dgl==1.1.3 packaging`, or "
    "read the batch's src, dst, nodes and edges instead."
)

LOOPS = (
    "This model passes messages from bond to bond, and a self loop has no reverse bond; leave self loops out "
    "(dgl.remove_self_loop), or use model=gcn."
)


def dgl_library(without: str) -> Any:
    """Return the DGL library. Raises ConfigError, which says `without`, if it cannot be imported."""
    # Imported on first use because it takes a second. Without the variable DGL writes into the user's home.
    os.environ.setdefault("DGLBACKEND", "pytorch")
    try:
        import dgl
    except (ImportError, OSError) as error:
        raise ConfigError(without) from error
    return dgl


@dataclass
class MoleculeBatch:
    """B molecules, N atoms, E directed bonds; J distinct atom feature vectors, K distinct bond feature vectors.

    Linear layers may run over the few distinct vectors instead of over all atoms or bonds. If almost all atoms of a
    dataset differ (CoMPT's features number them), `node_table` has one row for each atom of the batch.

    The atoms of a molecule are contiguous and in the order of its SMILES. So are its bonds.
    The reverse of directed bond i is i ^ 1 (see molsam.chem.arrays.MolArrays).
    """

    node_table: Tensor
    """float [J, node_dim], the distinct atom feature vectors"""
    node_type: Tensor
    """int64 [N], each atom's row of `node_table`"""
    edge_table: Tensor
    """float [K, edge_dim], the distinct bond feature vectors"""
    columns: Callable[[], tuple[Tensor, ...]]
    """computes `src`, `dst` and `edge_type`; called when one of them is first read (GCN reads none)"""
    sizes: Tensor
    """int64 [B], atoms per molecule"""
    bonds: Tensor
    """int64 [B], directed bonds per molecule, self loops included"""
    offsets: Tensor
    """int64 [B + 1], first atom of each molecule"""
    distances: Tensor | None
    """int16 [sum of n^2], each molecule's row-major topological distance matrix; -1 between fragments"""
    self_loops: bool
    index: Tensor
    """int64 [B], row in the dataset"""
    neighbours: Tensor
    """int64 [E], neighbours of atom 0, then of atom 1, ...: `src` sorted by `dst`"""
    neighbour_offsets: Tensor
    """int64 [N + 1], where each atom's neighbours begin in `neighbours`"""
    molecule: Tensor
    """int64 [N], the molecule of each atom"""
    max_size: int
    """atoms of the largest molecule"""
    colours: BatchColours | None = None
    """colours of atoms and bonds (molsam.data.states); None in a graph with self loops"""
    descriptors: Tensor | None = None
    """float [B, descriptor_dim], molecule-level features, or None"""
    targets: Tensor | None = None
    """float [B, T], 0 where missing"""
    mask: Tensor | None = None
    """bool [B, T], whether the label is known; or float [B, T], the label's weight, 0 where it is missing"""
    bounds: Tensor | None = None
    """int8 [B, T]: 1 where the value is at least the label, -1 where it is at most the label; None if there is none"""
    origin: MoleculeBatch | None = None
    """the batch on the CPU that this one was copied from"""
    spare: bool = False
    """whether it is filler: a process that has no molecules left needs a batch to take part in a joint pass"""

    def __len__(self) -> int:
        return len(self.sizes)

    @cached_property
    def _made(self) -> tuple[Tensor, ...]:
        return self.columns()

    @property
    def src(self) -> Tensor:
        """int64 [E], the atom that each directed bond leaves."""
        return self._made[0]

    @property
    def dst(self) -> Tensor:
        """int64 [E], the atom that each directed bond enters."""
        return self._made[1]

    @property
    def edge_type(self) -> Tensor:
        """int64 [E], each directed bond's row of `edge_table`."""
        return self._made[2]

    @property
    def here(self) -> MoleculeBatch:
        """The same batch on the CPU. Reading it waits for the device only if the batch was made there."""
        if self.sizes.device.type == "cpu":
            return self
        return self.to("cpu") if self.origin is None else self.origin

    @cached_property
    def labels(self) -> int:
        """Number of known labels."""
        mask = self.here.mask
        return 0 if mask is None else int(mask.count_nonzero())

    @cached_property
    def neighbours_and_own(self) -> tuple[Tensor, Tensor]:
        """`neighbours` and `neighbour_offsets` for [N, 2] rows: (v, 0) has (u, 0) of each neighbour u; (v, 1) has
        itself."""
        if self.here is not self:
            rows, bounds = send(self.here.neighbours_and_own, self.sizes.device)
            return rows, bounds
        offsets, every = self.neighbour_offsets.numpy(), np.arange(self.n_atoms)
        found, ends = np.empty(len(self.neighbours) + self.n_atoms, np.int64), np.zeros(2 * self.n_atoms + 1, np.int64)
        ends[1::2] = own = offsets[1:] + every
        ends[2::2] = own + 1
        found[own] = 2 * every + 1
        found[np.arange(len(self.neighbours)) + every.repeat(np.diff(offsets))] = 2 * self.neighbours.numpy()
        return torch.from_numpy(found), torch.from_numpy(ends)

    @property
    def n_atoms(self) -> int:
        """Number of atoms, N."""
        return len(self.node_type)

    @cached_property
    def nodes(self) -> Tensor:
        """float [N, node_dim], the feature vector of every atom."""
        return self.node_table.index_select(0, self.node_type)

    @cached_property
    def graph(self) -> dgl.DGLGraph:
        """The batched DGL graph, atoms' features in ndata["x"], bonds' in edata["e"] (molsam.data.graph.from_dgl)."""
        dgl = dgl_library(NO_DGL)
        graph = dgl.graph((self.src, self.dst), num_nodes=self.n_atoms)
        graph.set_batch_num_nodes(self.sizes)
        graph.set_batch_num_edges(self.bonds)
        graph.ndata["x"], graph.edata["e"] = self.nodes, self.edges
        return graph

    @cached_property
    def edges(self) -> Tensor:
        """float [E, edge_dim], the feature vector of every directed bond."""
        return self.edge_table.index_select(0, self.edge_type)

    @cached_property
    def rev(self) -> Tensor:
        """int64 [E], the reverse of each directed bond. Raises DataError if there are self loops."""
        if self.self_loops:
            raise DataError(LOOPS)
        return torch.arange(len(self.src), device=self.src.device) ^ 1

    @cached_property
    def padded(self) -> tuple[Tensor, Tensor]:
        """Indices and mask that pad every molecule to the n atoms of the largest one.

        int64 [B * n], the atom at each place (any atom in the padding); and float [B, n], 0 for atoms and -inf in the
        padding, in the features' dtype.
        """
        if self.here is not self:
            rows, outside = send(self.here.padded, self.sizes.device)
            return rows, outside
        place, sizes = np.arange(self.max_size), self.sizes.numpy()
        rows = torch.from_numpy(np.minimum(self.offsets.numpy()[:-1, None] + place, self.n_atoms - 1).reshape(-1))
        return rows, torch.from_numpy(np.where(place < sizes[:, None], 0.0, -np.inf)).to(self.node_table.dtype)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> MoleculeBatch:
        """Return the batch on another device, its floating-point tensors in another dtype.

        From the CPU all tensors go in one copy. Tables that all batches of a dataset share are copied only once.
        """
        device = self.sizes.device if device is None else torch.device(device)

        def cast(value: Tensor) -> Tensor:
            return value.to(dtype) if dtype is not None and value.is_floating_point() else value

        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        own: dict[str, Any] = {name: cast(value) for name, value in fields.items() if isinstance(value, Tensor)}
        if device == self.sizes.device:
            return replace(self, columns=lambda: tuple(map(cast, self._made)), **own)
        if self.sizes.device.type != "cpu":
            own = {name: value.to(device) for name, value in own.items()}
            columns = lambda: tuple(part.to(device) for part in self._made)  # noqa: E731
            return replace(self, columns=columns, origin=None, **own)
        if self.mask is not None and self.targets is not None:
            own["mask"] = self.mask.to(own["targets"].dtype)  # losses are multiplied by it
        shared = ["edge_table"] + ["node_table"] * (len(self.node_table) < self.n_atoms)
        sent = {name: send_once(fields[name], device, own.pop(name).dtype) for name in shared}
        parts = send([*own.values(), *self._made], device)
        src, dst, edge_type = parts[len(own) :]
        moved: dict[str, Any] = dict(zip(own, parts[: len(own)], strict=True)) | sent
        return replace(self, columns=lambda: (src, dst, edge_type), origin=self, **moved)
