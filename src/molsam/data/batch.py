"""A batch of molecule graphs: the input of every model."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
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

NO_CAPTURE = (
    "batch.graph is a DGL graph, which cannot be captured as a CUDA graph; leave training.graphs out, or read the "
    "batch's src, dst, nodes and edges instead."
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
    real: Tensor | None = None
    """float [B], 0 for the filler molecules of a padded batch (molsam.data.padded), else 1; None if it is not padded"""
    kept: dict[Any, Sequence[Tensor]] = field(default_factory=dict)
    """what `derive` has returned"""

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

    @property
    def fixed(self) -> bool:
        """Whether a pass over the batch is captured: no size in it may depend on the molecules, and the CPU computes
        nothing but what `derive` is asked for."""
        return self.real is not None and not self.sizes.is_cpu

    @cached_property
    def real_atoms(self) -> Tensor | None:
        """float [N], 0 for the atoms of filler molecules, else 1; None if the batch is not padded."""
        return None if self.real is None else self.real.index_select(0, self.molecule)

    def derive(self, make: Callable[..., Sequence[Tensor]], *given: Any) -> Sequence[Tensor]:
        """Return what `make(batch, *given)` computes from the batch on the CPU, on the batch's device, once per batch.

        The tensors are sent in one copy. A captured pass finds those of each new batch in the same place, so `make`
        must be a function of a module, `given` hashable, and the result must depend on nothing else.
        """
        key = make, *given
        if key not in self.kept:
            made = make(self.here, *given)
            self.kept[key] = made if self.here is self else send(made, self.sizes.device)
        return self.kept[key]

    @property
    def neighbours_and_own(self) -> Sequence[Tensor]:
        """`neighbours` and `neighbour_offsets` for [N, 2] rows: (v, 0) has (u, 0) of each neighbour u; (v, 1) has
        itself."""
        return self.derive(_neighbours_and_own)

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
        if self.fixed:
            raise ConfigError(NO_CAPTURE)
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

    @property
    def padded(self) -> Sequence[Tensor]:
        """Indices and mask that pad every molecule to the n atoms of the largest one.

        int64 [B * n], the atom at each place (any atom in the padding); and float [B, n], 0 for atoms and -inf in the
        padding, in the features' dtype.
        """
        return self.derive(_padded)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> MoleculeBatch:
        """Return the batch on another device, its floating-point tensors in another dtype.

        From the CPU all tensors go in one copy. Tables that all batches of a dataset share are copied only once.
        """
        device = self.sizes.device if device is None else torch.device(device)
        if self.sizes.is_cpu and device.type != "cpu":
            return self.arrived(send(list(self.leaving(dtype).values()), device), dtype)

        def moved(value: Tensor) -> Tensor:
            return value.to(device, dtype if value.is_floating_point() else None)

        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        own: dict[str, Any] = {name: moved(value) for name, value in fields.items() if isinstance(value, Tensor)}
        origin = self.origin if device == self.sizes.device else None
        return replace(self, columns=lambda: tuple(map(moved, self._made)), origin=origin, kept={}, **own)

    def leaving(self, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """Return what goes from the CPU to a device with each batch: fields by name, then `src`, `dst`, `edge_type`.

        A padded batch's distances stay, because their number depends on the molecules.
        """
        found = {name: value for name in self.__dataclass_fields__ if isinstance(value := getattr(self, name), Tensor)}
        for name in ["edge_table"] + ["node_table"] * self._shares_nodes + ["distances"] * (self.real is not None):
            found.pop(name, None)
        if dtype is not None:
            found = {name: value.to(dtype) if value.is_floating_point() else value for name, value in found.items()}
        if self.mask is not None and self.targets is not None:
            found["mask"] = self.mask.to(found["targets"].dtype)  # losses are multiplied by it
        return found | dict(zip(("src", "dst", "edge_type"), self._made, strict=True))

    def arrived(self, parts: Sequence[Tensor], dtype: torch.dtype | None = None) -> MoleculeBatch:
        """Return the batch on a device to which `leaving` was sent as `parts`."""
        own: dict[str, Any] = dict(zip(self.leaving(), parts, strict=True))
        device, columns = parts[0].device, tuple(own.pop(name) for name in ("src", "dst", "edge_type"))
        own["distances"] = own.get("distances")
        for name in ["edge_table"] + ["node_table"] * self._shares_nodes:
            table: Tensor = getattr(self, name)
            own[name] = send_once(table, device, dtype or table.dtype)
        return replace(self, columns=lambda: columns, origin=self, kept={}, **own)

    @property
    def _shares_nodes(self) -> bool:
        return len(self.node_table) < self.n_atoms


def _neighbours_and_own(batch: MoleculeBatch) -> list[Tensor]:
    offsets, every = batch.neighbour_offsets.numpy(), np.arange(batch.n_atoms)
    found, ends = np.empty(len(batch.neighbours) + batch.n_atoms, np.int64), np.zeros(2 * batch.n_atoms + 1, np.int64)
    ends[1::2] = own = offsets[1:] + every
    ends[2::2] = own + 1
    found[own] = 2 * every + 1
    found[np.arange(len(batch.neighbours)) + every.repeat(np.diff(offsets))] = 2 * batch.neighbours.numpy()
    return [torch.from_numpy(found), torch.from_numpy(ends)]


def _padded(batch: MoleculeBatch) -> list[Tensor]:
    place, sizes = np.arange(batch.max_size), batch.sizes.numpy()
    rows = torch.from_numpy(np.minimum(batch.offsets.numpy()[:-1, None] + place, batch.n_atoms - 1).reshape(-1))
    return [rows, torch.from_numpy(np.where(place < sizes[:, None], 0.0, -np.inf)).to(batch.node_table.dtype)]
