"""Cost of a molecule of n atoms: time, memory kept for backward, and the largest tensor, for n from 10 to 490."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from molsam.bench.peak import median, spread
from molsam.data.batch import MoleculeBatch
from molsam.models.api import MoleculeModel

ATOMS = (10, 50, 130, 250, 370, 490)
MOLECULES = 4


class Traffic(TorchDispatchMode):
    """Context that records the size of the largest tensor created and the bytes kept for backward."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0
        self.kept: dict[int, int] = {}
        """address -> bytes, so that a storage kept by two operations counts once"""
        self._held: list[Tensor] = []
        self._hooks = saved_tensors_hooks(self._keep, lambda tensor: tensor)

    def __enter__(self) -> Traffic:
        super().__enter__()
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._hooks.__exit__(*error)
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.largest = max(self.largest, leaf.numel())
        return result

    def _keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        self.kept[storage.data_ptr()] = storage.nbytes()
        self._held.append(tensor)  # otherwise its address could be reused for another tensor
        return tensor

    @property
    def kept_bytes(self) -> int:
        """Bytes of all storages kept for backward, weights included."""
        return sum(self.kept.values())


def polymer(atoms: int) -> str:
    """Return the SMILES of a peptide-like chain of `atoms` heavy atoms, with rings, branches and double bonds."""
    unit, size = "NC(Cc1ccccc1)C(=O)", 11
    return unit * (atoms // size) + "C" * (atoms % size)


def measure(model: MoleculeModel, batch: MoleculeBatch) -> Traffic:
    """Make a forward and a backward pass, and return what they allocated."""
    model.zero_grad()
    with Traffic() as traffic:
        output = model(batch)
        loss = output.logits.square().sum()
        (loss if output.auxiliary is None else loss + output.auxiliary.sum()).backward()
    return traffic


def bench_size(
    models: Sequence[str], rounds: int, seconds: float, overrides: Sequence[str], picture: Path | None
) -> list[dict[str, Any]]:
    """Return milliseconds and kept megabytes per molecule for each model and size, and draw them into `picture`."""
    rows = [row for model in models for row in _rows(model, rounds, seconds, overrides)]
    if picture is not None:
        _draw(rows, picture)
    return rows


def _rows(name: str, rounds: int, seconds: float, overrides: Sequence[str]) -> list[dict[str, Any]]:
    from molsam.chem.molecule import parse
    from molsam.config.compose import compose
    from molsam.data.packed import pack
    from molsam.models.api import DataSpec
    from molsam.wiring import build

    cfg = compose([f"model={name}", *overrides])
    featurizer = build.build("model.featurizer", cfg.model.featurizer)
    molecules = pack([featurizer(parse(polymer(n))) for n in ATOMS], self_loops=featurizer.self_loops)
    spec = DataSpec(featurizer.node_dim, featurizer.edge_dim, 1, max_atoms=max(ATOMS))
    model = build.build("model", cfg.model, spec).train()
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    batches = [molecules.batch([i] * MOLECULES) for i in range(len(ATOMS))]
    times: list[list[float]] = [[] for _ in ATOMS]
    for _ in range(rounds):
        for found, batch in zip(times, batches, strict=True):
            found.append(_milliseconds(model, batch, seconds / len(ATOMS)))
    rows = []
    for n, found, batch in zip(ATOMS, times, batches, strict=True):
        traffic = measure(model, batch)
        rows.append(
            {
                "model": name,
                "atoms": n,
                "ms_per_molecule": median(found),
                "spread": spread(found),
                "kept_mb_per_molecule": max(traffic.kept_bytes - weights, 0) / MOLECULES / 1e6,
                "largest_tensor": traffic.largest,
            }
        )
    return rows


def _milliseconds(model: MoleculeModel, batch: MoleculeBatch, seconds: float) -> float:
    """Return the milliseconds of forward and backward per molecule; the best of as many as fit into `seconds`."""
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        model(batch).logits.square().sum().backward()
        best = min(best, time.perf_counter() - started)
    return 1000 * best / len(batch)


def _draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    units = {"ms_per_molecule": "milliseconds a molecule", "kept_mb_per_molecule": "MB kept for backward, a molecule"}
    for axis, (key, label) in zip(axes, units.items(), strict=True):
        for model in dict.fromkeys(row["model"] for row in rows):
            own = [row for row in rows if row["model"] == model]
            axis.plot([row["atoms"] for row in own], [row[key] for row in own], marker="o", markersize=3, label=model)
        axis.set(xlabel="atoms of the molecule", ylabel=label, xlim=(0, None), ylim=(0, None))
    axes[0].legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
