"""The results of every model, optimizer, split, feature and metric, compared with stored ones.

`python tests/test_numerics.py` writes tests/numerics.json again. If the mathematics changed, first raise NUMERICS in
src/molsam/config/identity.py, or the class's number in REVISED beside it, so that earlier results are not mistaken for
current ones. Rounding is not a change: the comparison leaves room for it.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
STORED = ROOT / "tests" / "numerics.json"
TOLERANCE = 1e-6
"""Relative; all is computed in double precision, so that rounding stays far below it."""


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))


@functools.cache
def settings(model: str, *more: str) -> Any:
    from molsam.config.compose import compose
    from tests.integration.test_run import SMALL

    small = [text for text in SMALL.get(model, []) if "dropout" not in text]
    return compose([f"model={model}", *small, "dataset=esol", "dataset.limit=40", "split.fold=0", *more])


@functools.cache
def dataset(model: str) -> Any:
    from molsam.wiring.run import load_dataset

    return load_dataset(settings(model))


def of_model(name: str) -> list[float]:
    """Sizes of the initial weights, then the losses of four steps of gradient descent from weights set by a formula."""
    import torch

    from molsam.training.objective import Objective
    from molsam.wiring import build

    torch.manual_seed(0)
    data = dataset(name)
    model = build.build("model", settings(name).model, data.spec).double()
    sizes = [float(parameter.detach().abs().sum()) for parameter in model.parameters()]
    with torch.no_grad():
        for place, parameter in enumerate(model.parameters()):
            angles = torch.arange(parameter.numel(), dtype=torch.float64) * 0.7 + place
            parameter.copy_(0.2 * torch.sin(angles * angles).reshape(parameter.shape))
    objective, optimizer = Objective("regression"), torch.optim.SGD(model.parameters(), lr=0.05)
    model.train()
    losses = []
    for step in range(4):
        torch.manual_seed(step)  # GROVER draws its depth
        batch = data.batch(range(10 * step, 10 * step + 10)).to(dtype=torch.float64)
        optimizer.zero_grad()
        loss = objective(model(batch), batch.targets, batch.mask)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return [float(np.sum(sizes)), float(np.max(sizes)), *losses]


def of_optimizer(name: str) -> list[float]:
    """The size of the weights after each of twelve steps, three epochs of the batteries' problem."""
    from tests.batteries.optimizers import Training

    return [float(state.abs().sum()) for state in Training(name).run(12)]


def of_split(name: str) -> list[float]:
    """Which molecules are where, for two seeds and folds, as sums that tell them apart."""
    from molsam.config.compose import compose
    from molsam.data.split import make_split
    from molsam.data.split_kinds import official_split

    cfg = compose([f"split={name}"]).split
    if name == "official":
        drawn = [official_split(80, 20, cfg.valid, seed, fold) for seed, fold in ((0, 0), (1, 1))]
    elif name in ("predefined", "files", "time"):
        return []  # the file says it
    else:
        made = [make_split(dataset("gcn"), cfg, seed=seed, fold=fold) for seed, fold in ((0, 0), (1, 1))]
        drawn = [[one.train, one.valid, one.test] for one in made]
    return [float(sum((row + 1) ** 2 * (p + 1) for p, part in enumerate(parts) for row in part)) for parts in drawn]


def of_featurizer(name: str) -> list[float]:
    """Sums over the features of some molecules, each weighted by its place."""
    from omegaconf import OmegaConf

    from molsam.chem.molecule import parse
    from molsam.wiring import build

    featurizer = build.build("featurizer", OmegaConf.load(ROOT / "conf" / "featurizer" / f"{name}.yaml"))
    found = []
    for smiles in ("CC(=O)Oc1ccccc1C(=O)O", "C/C=C\\[C@H](F)Cl", "[NH3+]CC([O-])=O.[Na+]", "c1ccc2[nH]ccc2c1"):
        arrays = featurizer(parse(smiles))
        for values in (arrays.nodes, arrays.edges):
            weights = np.sin(np.arange(values.size)).reshape(values.shape)
            found += [float(values.sum()), float((values * weights).sum())]
    return found


def of_metric(name: str) -> list[float]:
    from molsam.training.metrics import score

    rng = np.random.default_rng(0)
    target = rng.integers(0, 2, (50, 2)).astype(float)
    target[::7, 0] = np.nan
    prediction = rng.random((50, 2))
    return [score(name, np.round(prediction) if name == "accuracy" else prediction, target).mean]


def of_schedule(name: str) -> list[float]:
    """Factors of the learning rate over five epochs of four steps."""
    from molsam.config.compose import compose
    from molsam.wiring import build

    made = build.build("lr_schedule", compose([f"lr_schedule={name}"]).lr_schedule)
    return [float(made(step, 4, 5)) for step in range(20)]


def of_radius(name: str) -> list[float]:
    """The radius over six epochs."""
    from molsam.config.compose import compose
    from molsam.wiring import build

    made = build.build("rho_schedule", compose([f"rho_schedule={name}"]).rho_schedule)
    return [float(made(0.05, epoch, 6)) for epoch in range(6)]


PARTS: dict[str, tuple[Callable[[str], list[float]], Callable[[], list[str]]]] = {
    "model": (of_model, lambda: [name for name in names("model") if name != "resnet18"]),
    "optimizer": (of_optimizer, lambda: names("optimizer")),
    "split": (of_split, lambda: names("split")),
    "featurizer": (of_featurizer, lambda: names("featurizer")),
    "metric": (of_metric, lambda: ["accuracy", "mae", "rmse", "roc_auc"]),
    "lr_schedule": (of_schedule, lambda: names("lr_schedule")),
    "rho_schedule": (of_radius, lambda: names("rho_schedule")),
}


def everything() -> Iterator[tuple[str, str]]:
    return ((kind, name) for kind, (_, of) in PARTS.items() for name in of())


@functools.cache
def stored() -> dict[str, Any]:
    return dict(json.loads(STORED.read_text()))


@pytest.mark.parametrize(("kind", "name"), everything())
def test_a_change_of_the_mathematics_is_not_made_in_silence(kind: str, name: str) -> None:
    before = stored()["values"].get(f"{kind}/{name}")
    assert before is not None, f"{kind} {name} is new: python tests/test_numerics.py notes what it computes"
    now = PARTS[kind][0](name)
    assert now == pytest.approx(before, rel=TOLERANCE, abs=1e-12), (
        f"{kind} {name} computes something else than before. If that is meant, raise NUMERICS (or the class's number "
        "in REVISED) in src/molsam/config/identity.py and run python tests/test_numerics.py."
    )


def test_what_is_stored_is_of_this_version() -> None:
    from molsam.config.identity import NUMERICS, REVISED

    assert stored()["version"] == [NUMERICS, REVISED], "run python tests/test_numerics.py after raising a number"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from molsam.config import identity

    values = {f"{kind}/{name}": PARTS[kind][0](name) for kind, name in everything()}
    version = [getattr(identity, "NUMERICS", 1), getattr(identity, "REVISED", {})]
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else STORED
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in values.items())
    target.write_text(f'{{"version": {json.dumps(version)}, "values": {{\n{lines}\n}}}}\n')
