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
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from molsam.chem.arrays import Featurizer
from molsam.data.packed import PackedMolecules, pack
from molsam.models.api import MoleculeModel

# Every tolerance of the comparison, and nowhere else.
MODEL_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
ROUNDINGS = 30
"""In float32, no result is nearer than the rounding of the weights alone puts it (`RoundedWeights`), and each of
some 30 operations on the way to a gradient rounds as much again. Where that is more than 1e-5, the problem is
ill-conditioned, and this many times the weights' share is allowed: see tests/goldens/grover.py. A hidden unit within
rounding of a kink (ReLU, PReLU) can be worse, as it is in the published code; such a file fails."""
DRAWS = 10
"""Independent roundings of the weights, of which the largest movement counts: one draw is luck."""
TRAJECTORY_TOLERANCE = 1e-12
PACKAGE_TOLERANCE = 1e-8
"""For trajectories of the published packages (`*_pkg`), which round their norms to float32 on the way."""
FLOOR = 1e-2
"""An array's error is measured against its own largest entry, but at least against this share of the largest
entry of its group: a gradient that is small because large terms cancel cannot be better than those terms."""


M = TypeVar("M", bound=MoleculeModel)


class FormatError(Exception):
    """The file is not of the golden format; the message says why."""


class Config(dict[str, Any]):
    """The settings of a variant; a key that is absent raises FormatError."""

    def __missing__(self, key: str) -> Any:
        raise FormatError(f"its config has no {key!r}")


class Golden(Protocol):
    """A golden file, or what stands for one."""

    files: list[str]

    def __getitem__(self, name: str) -> np.ndarray: ...


class RoundedWeights:
    """A golden file as if its weights, and nothing else, were rounded to float32: moved by up to 2^-24 of themselves.

    Many files hold weights that are float32 values already, which rounding would leave where they are. Each number
    `draw` is another rounding.
    """

    def __init__(self, z: Golden, draw: int = 0) -> None:
        self._z, self.files, self.draw = z, z.files, draw

    def __getitem__(self, name: str) -> np.ndarray:
        value = self._z[name]
        if "/param/" not in name:
            return value
        rng = np.random.default_rng([zlib.crc32(name.encode()), self.draw])
        return value * (1 + rng.uniform(-(2**-24), 2**-24, value.shape))


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


def whole_error(ours: Mapping[str, Any], reference: Mapping[str, Any]) -> float:
    """|ours - reference| / |reference|, Euclidean norms of all arrays as one vector; what one side lacks is zero."""
    b = {name: _array(value) for name, value in reference.items()}
    a = {name: _array(ours[name]) if name in ours else np.zeros_like(value) for name, value in b.items()}
    difference, size = (
        np.sqrt(sum(float(np.square(x).sum()) for x in v)) for v in ([a[n] - b[n] for n in b], b.values())
    )
    return float(difference / size) if size else float(difference)


def max_error(*errors: float) -> float:
    """The largest error, NaN if there is one (Python's max loses it)."""
    return float(np.max(errors))


def arrays(z: Golden, prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose name starts with `prefix`, without it; raises FormatError if there is none."""
    found = {name[len(prefix) :]: z[name] for name in z.files if name.startswith(prefix)}
    if not found:
        raise FormatError(f"it holds no {prefix}*")
    return found


def smiles(z: Golden) -> list[str]:
    return [str(s) for s in z["smiles"]]


def meta(z: Golden) -> Config:
    """How the file was made."""
    return Config(json.loads(str(z["meta"])))


def is_trajectory(z: Golden) -> bool:
    return "variants" not in z.files


def variants(z: Golden) -> list[str]:
    """Names of the variants of a model file, or of the runs (`method/base`) of a trajectory file."""
    if not is_trajectory(z):
        names = json.loads(str(z["variants"]))
        if not names or not isinstance(names, list):
            raise FormatError("its `variants` name none")
        return names
    runs = dict.fromkeys(name.split("/weights/")[0] for name in z.files if "/weights/" in name)
    if "config" not in z.files or not runs:
        raise FormatError("it has neither `variants` nor a `config` with `<method>/<base>/weights/*`")
    return list(runs)


def load_config(z: Golden, variant: str) -> Config:
    """The settings of a variant, or of the whole file for a trajectory."""
    config = json.loads(str(z["config" if is_trajectory(z) else f"{variant}/config"]), object_hook=Config)
    if not isinstance(config, Config):
        raise FormatError("its config holds no settings")
    return config


def require(config: Config, **settings: Any) -> None:
    """Raise FormatError unless the config, where it states these settings, has them so."""
    for name, value in settings.items():
        if name in config and config[name] != value:
            raise FormatError(f"its config has {name}={config[name]!r}; only {value!r} can be compared")


def load_params(z: Golden, variant: str) -> dict[str, Tensor]:
    """Reference-named weights and buffers as tensors (float64)."""
    prefixes = (f"{variant}/param/", f"{variant}/buffer/")
    return {n[len(p) :]: torch.from_numpy(np.asarray(z[n])) for p in prefixes for n in z.files if n.startswith(p)}


def load_model(model: M, z: Golden, variant: str, dtype: torch.dtype) -> M:
    """The model in this precision with the file's weights and buffers, ready to predict.

    Raises FormatError if they are not those of the model that the config describes.
    """
    try:
        model.to(dtype).load_state_dict(model.from_reference(load_params(z, variant)))
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise FormatError(f"its weights are not those of the model in its config: {reason}") from error
    return model.eval()


def molecules(z: Golden, featurizer: Featurizer, rows: Iterable[int] | None = None) -> PackedMolecules:
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


def gradients(model: MoleculeModel, loss: Tensor) -> dict[str, Tensor]:
    """d loss/d parameter under the reference's names; unreached parameters are left out."""
    named = dict(model.named_parameters())
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return model.to_reference({name: g for name, g in zip(named, found, strict=True) if g is not None})


def gradient_error(z: Golden, variant: str, model: MoleculeModel, outputs: Tensor) -> float:
    """The error of d(sum of squared outputs)/d parameter."""
    return relative_errors(gradients(model, outputs.square().sum()), arrays(z, f"{variant}/grad/"))


def _array(value: Any) -> np.ndarray:
    array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    return array.astype(np.float64)
