"""What the comparisons with golden files share: reading the format, and what "relative error" means.

A golden file is an npz archive without pickles. A model file names its `variants` and holds, per variant v,
`v/config`, `v/param/*`, `v/buffer/*`, `v/grad/*` and outputs. A trajectory file has one `config` and, per
run, `<method>/<base>/weights/*`.

An adapter is a module of this package with two functions; the driver finds it by its presence here:

matches(config) -> bool
    whether it understands this config, by its keys and values, whatever the file is called
compare(z, variant, dtype) -> dict[str, float]
    the largest relative error by kind: "features", "outputs", "outputs/single", "gradients", "weights", ...
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.lib.npyio import NpzFile
from torch import Tensor, nn

from molsam.chem.arrays import Featurizer
from molsam.data.packed import PackedMolecules, pack
from molsam.models.api import MoleculeModel

# Every tolerance of the comparison, and nowhere else.
MODEL_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
TRAJECTORY_TOLERANCE = 1e-12
PACKAGE_TOLERANCE = 1e-8
"""For trajectories of the published packages (`*_pkg`), which round their norms to float32 on the way."""
FLOOR = 1e-2
"""An array's error is measured against its own largest entry, but at least against this share of the largest
entry of its group: a gradient that is small because large terms cancel cannot be better than those terms."""


M = TypeVar("M", bound=MoleculeModel)


class FormatError(Exception):
    """The file is not of the golden format; the message says why."""


def tolerance(kind: str, variant: str, dtype: torch.dtype, trajectory: bool) -> float:
    """The largest error of this kind that passes; features must be equal exactly."""
    if kind.split("/")[0] == "features":
        return 0.0
    if trajectory:
        return PACKAGE_TOLERANCE if variant.split("/")[0].endswith("_pkg") else TRAJECTORY_TOLERANCE
    return MODEL_TOLERANCE[dtype]


def relative_error(ours: Any, reference: Any, floor: float = 0.0) -> float:
    """max|ours - reference| / max(max|reference|, floor); infinite for another shape, NaN for a NaN."""
    a, b = _array(ours), _array(reference)
    if a.shape != b.shape:
        return float("inf")
    if not b.size:
        return 0.0
    difference = float(np.abs(a - b).max())
    scale = max(float(np.abs(b).max()), floor)
    return difference / scale if scale else difference


def relative_errors(ours: Mapping[str, Any], reference: Mapping[str, Any]) -> float:
    """The largest relative error of a group of arrays; FLOOR says how small ones count.

    A name that one side lacks counts as zeros there: autograd gives None where the other gives zeros.
    """
    group = {**{k: _array(v) for k, v in reference.items()}}
    floor = FLOOR * max((float(np.abs(v).max(initial=0.0)) for v in group.values()), default=0.0)
    worst = 0.0
    for name in group.keys() | ours.keys():
        b = group[name] if name in group else np.zeros_like(_array(ours[name]))
        a = _array(ours[name]) if name in ours else np.zeros_like(b)
        worst = max_error(worst, relative_error(a, b, floor))
    return worst


def max_error(*errors: float) -> float:
    """The largest error, NaN if there is one (Python's max loses it)."""
    return float(np.max(errors))


def arrays(z: NpzFile, prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose name starts with `prefix`, without it."""
    return {name[len(prefix) :]: z[name] for name in z.files if name.startswith(prefix)}


def smiles(z: NpzFile) -> list[str]:
    return [str(s) for s in z["smiles"]]


def is_trajectory(z: NpzFile) -> bool:
    return "variants" not in z.files


def variants(z: NpzFile) -> list[str]:
    """Names of the variants of a model file, or of the runs (`method/base`) of a trajectory file."""
    if not is_trajectory(z):
        return list(json.loads(str(z["variants"])))
    runs = dict.fromkeys(name.split("/weights/")[0] for name in z.files if "/weights/" in name)
    if "config" not in z.files or not runs:
        raise FormatError("it has neither `variants` nor a `config` with `<method>/<base>/weights/*`")
    return list(runs)


def load_config(z: NpzFile, variant: str) -> dict[str, Any]:
    """The settings of a variant, or of the whole file for a trajectory."""
    return dict(json.loads(str(z["config" if is_trajectory(z) else f"{variant}/config"])))


def load_params(z: NpzFile, variant: str) -> dict[str, Tensor]:
    """Reference-named weights and buffers as tensors (float64)."""
    found = arrays(z, f"{variant}/param/") | arrays(z, f"{variant}/buffer/")
    return {name: torch.from_numpy(np.asarray(value)) for name, value in found.items()}


def load_model(model: M, z: NpzFile, variant: str, dtype: torch.dtype) -> M:
    """The model in this precision with the file's weights, ready to predict."""
    model.to(dtype).load_state_dict(model.from_reference(load_params(z, variant)))
    return model.eval()


def molecules(z: NpzFile, featurizer: Featurizer, rows: Iterable[int] | None = None) -> PackedMolecules:
    """The file's molecules (or those of `rows`), read from their SMILES and packed by molsam's own code."""
    from molsam.chem.molecule import parse

    chosen = smiles(z) if rows is None else [smiles(z)[i] for i in rows]
    return pack([featurizer(parse(s)) for s in chosen], self_loops=featurizer.self_loops)


def feature_error(packed: PackedMolecules, row: int, expected: Mapping[str, np.ndarray]) -> float:
    """Largest difference of one molecule from `expected` with keys nodes, edges, src, dst (or fewer)."""
    batch = packed.batch([row])
    ours = {"nodes": batch.nodes, "edges": batch.edges, "src": batch.src, "dst": batch.dst}
    worst = 0.0
    for name, value in expected.items():
        a, b = _array(ours[name]), np.asarray(value).astype(np.float32)  # the references round to float32
        worst = max_error(worst, float("inf") if a.shape != b.shape else np.abs(a - b).max(initial=0.0))
    return worst


def squared_gradients(model: nn.Module, outputs: Tensor) -> dict[str, Tensor]:
    """d(sum of squared outputs)/d parameter, by our parameter names; unreached parameters are left out."""
    named = dict(model.named_parameters())
    found = torch.autograd.grad(outputs.square().sum(), list(named.values()), allow_unused=True)
    return {name: g for name, g in zip(named, found, strict=True) if g is not None}


def _array(value: Any) -> np.ndarray:
    array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    return array.astype(np.float64)
