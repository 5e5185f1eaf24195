"""Trajectories of optimizers: weights, gradients, norms, cosines, losses and pass counts, step by step.

Three kinds of file: public packages (full batch), Algorithm 1 and its controls, and the released GraphSAM code.
The network is y = W2 tanh(W1 x + b1) + b2 with the mean squared error; mini-batch t of an epoch is data/X[t].
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from molsam import optim
from molsam.diagnostics.gradients import GradientDiagnostics
from molsam.optim.schedules import Constant, Staircase
from tests.goldens.common import FormatError, Golden, load_config, relative_error

BASES = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
ASAM_RHO = 0.05
"""the packages' file does not state it; its SAM and ASAM runs share one"""

Make = Callable[..., optim.Optimizer]


def matches(config: dict[str, Any]) -> bool:
    """Whether the config is of one of the three kinds."""
    return is_packages(config) or is_algorithm(config) or is_release(config)


def is_packages(config: dict[str, Any]) -> bool:
    return {"sam", "looksam", "steps"} <= config.keys()


def is_algorithm(config: dict[str, Any]) -> bool:
    return {"methods", "defaults", "epochs"} <= config.keys()


def is_release(config: dict[str, Any]) -> bool:
    return {"radius", "alpha", "epoch_steps"} <= config.keys()


def compare(z: Golden, variant: str, dtype: torch.dtype) -> dict[str, float]:
    """Run `method/base` again and compare all that the file holds of it."""
    config = load_config(z, variant)
    method, base = variant.split("/")
    make = maker(config, method)
    if base not in BASES:
        raise FormatError(f"{base} is not a base optimizer; the known ones are {', '.join(BASES)}")
    trace = run(z, make, functools.partial(BASES[base], **config[base]), len(weights(z, variant)), dtype)
    return errors(z, variant, trace)


def maker(config: dict[str, Any], method: str) -> Make:
    """The optimizer of a method, its settings from the file's config."""
    if is_packages(config):
        return package_maker(config, method)
    if is_algorithm(config):
        return algorithm_maker({**config["defaults"], **config["methods"][method]})
    return release_maker(config, method)


def package_maker(config: dict[str, Any], method: str) -> Make:
    sam, looksam = config["sam"], config["looksam"]
    rho = sam["rho"]
    known: dict[str, Make] = {
        "plain": optim.Plain,
        "sam_davda54": functools.partial(optim.SAM, rho=rho),
        "sam_pkg": functools.partial(optim.SAM, rho=rho),
        "looksam_pkg": functools.partial(optim.LookSAM, per_tensor=True, **looksam),
        "asam_davda54": functools.partial(
            optim.ASAM, rho=config.get("asam", {}).get("rho", ASAM_RHO), eta=0.0, weights_only=False
        ),
    }
    if method not in known:
        raise FormatError(f"the method {method} is not known")
    return known[method]


def algorithm_maker(settings: dict[str, Any]) -> Make:
    scheduled = settings.get("sched", True)
    schedule = Staircase(settings["gamma"], settings["lam"]) if scheduled else Constant()
    common = {"rho": settings["rho0"], "rho_schedule": schedule}
    known: dict[str, Make] = {
        "graphsam": functools.partial(optim.GraphSAM, beta=settings["beta"], **common),
        "sam": functools.partial(optim.SAM, **common),
        "sam_one": functools.partial(optim.SAMOne, **common),
        "sam_k": functools.partial(optim.SAMk, k=settings["k"], **common),
    }
    if settings["method"] not in known:
        raise FormatError(f"the method {settings['method']} is not known")
    return known[settings["method"]]


def release_maker(config: dict[str, Any], method: str) -> Make:
    kind, adaptive, *rest = method.split("_")
    if kind not in ("graphsam", "sam") or adaptive not in ("adaptive", "nonadaptive"):
        raise FormatError(f"the method {method} is not known")
    common = {
        "rho": config["rho"],
        "radius": config["radius"],
        "rho_schedule": Staircase(config["gamma"], config["epoch_steps"]),
        "adaptive": adaptive == "adaptive",
        "loss_weighted": rest == ["lossweightedclosure"],
    }
    if kind == "sam":
        return functools.partial(optim.SAMRelease, **common)
    return functools.partial(optim.GraphSAMRelease, beta=config["alpha"], cpu_aliasing=True, **common)


def weights(z: Golden, variant: str) -> np.ndarray:
    return z[next(name for name in z.files if name.startswith(f"{variant}/weights/"))]


class Trace:
    """What one run did, a row per step."""

    def __init__(self) -> None:
        self.vectors: dict[str, dict[str, list[np.ndarray]]] = {}
        self.scalars: dict[str, list[float]] = {}

    def vector(self, name: str, values: dict[str, Tensor]) -> None:
        """Append a row of a vector over the parameters."""
        for parameter, value in values.items():
            rows = self.vectors.setdefault(name, {}).setdefault(parameter, [])
            rows.append(value.detach().numpy().copy())

    def scalar(self, name: str, value: float) -> None:
        """Append a row of a number."""
        self.scalars.setdefault(name, []).append(float(value))


def run(z: Golden, make: Make, base: Any, steps: int, dtype: torch.dtype) -> Trace:
    """Train the network of the file and note everything."""
    X, Y = torch.tensor(z["data/X"], dtype=dtype), torch.tensor(z["data/Y"], dtype=dtype)
    batches = list(zip(X, Y, strict=True)) if X.ndim == 3 else [(X, Y)]
    names = [name.removeprefix("init/") for name in z.files if name.startswith("init/")]
    params = {name: torch.nn.Parameter(torch.tensor(z[f"init/{name}"], dtype=dtype)) for name in names}
    optimizer = make(params.values(), base, steps_per_epoch=len(batches))
    diagnostics = GradientDiagnostics(probe_every=1)
    trace = Trace()
    before: dict[str, Tensor] = {}

    def note(event: optim.StepEvent) -> None:
        trace.vector("eps", {name: event.eps[p] for name, p in params.items()})
        trace.vector("omega", {name: event.omega[p] for name, p in params.items()})
        trace.scalar("rho_per_step", event.rho)

    optimizer.observers += [note, diagnostics]
    for step in range(steps):
        x, y = batches[step % len(batches)]
        points: list[dict[str, Tensor]] = []

        def loss(x: Tensor = x, y: Tensor = y) -> Tensor:
            hidden = torch.tanh(x @ params["W1"].T + params["b1"])
            return (hidden @ params["W2"].T + params["b2"] - y).square().mean()

        def closure(points: list[dict[str, Tensor]] = points, loss: Callable[[], Tensor] = loss) -> Tensor:
            points.append({name: p.detach().clone() for name, p in params.items()})
            value = loss()
            value.backward()
            return value.detach()

        before = {name: p.detach().clone() for name, p in params.items()}
        with torch.no_grad():
            trace.scalar("loss_theta", float(loss()))
        optimizer.step(closure)
        assert optimizer.last is not None
        last = points[optimizer.last.passes - 1]
        trace.vector("weights", params)
        trace.vector("displacement", {name: last[name] - before[name] for name in params})
        trace.scalar("gradient_evaluations", optimizer.last.passes)
        if optimizer.last.loss_perturbed is not None:
            trace.scalar("loss_perturbed", float(optimizer.last.loss_perturbed))
        row = diagnostics.drain()[0]
        for name, key in SCALARS.items():
            if row[key] is not None:
                trace.scalar(name, row[key])
    return trace


SCALARS = {
    "eps_norm": "eps_norm",
    "omega_norm": "omega_norm",
    "truegrad_norm": "true_norm",
    "cos_eps_truegrad": "cos_true",
}


def whole(vectors: Mapping[str, Any], names: Iterable[str]) -> np.ndarray:
    """A vector over all parameters, [steps, parameters]."""
    return np.concatenate([np.array(vectors[name]).reshape(len(vectors[name]), -1) for name in names], axis=1)


def errors(z: Golden, variant: str, trace: Trace) -> dict[str, float]:
    """Largest relative error of each kind of array that the file holds; pass counts must be equal."""
    vectors = {"weights": "weights", "eps": "eps", "omega": "omega"}
    vectors |= {"eps_hat": "displacement", "perturbation": "displacement"}
    found: dict[str, float] = {}
    for kind, ours in vectors.items():
        prefix = f"{variant}/{kind}/"
        theirs = {name.removeprefix(prefix): z[name] for name in z.files if name.startswith(prefix)}
        if theirs:
            found[kind] = relative_error(whole(trace.vectors[ours], theirs), whole(theirs, theirs))
    for name in ("rho_per_step", "loss_theta", "loss_perturbed", "gradient_evaluations", *SCALARS):
        if f"{variant}/{name}" in z.files:
            found[name] = relative_error(trace.scalars[name], z[f"{variant}/{name}"])
    if f"{variant}/loss_before_step" in z.files:
        found["loss_theta"] = relative_error(trace.scalars["loss_theta"], z[f"{variant}/loss_before_step"])
    return found
