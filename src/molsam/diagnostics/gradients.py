"""Observer of the two gradients, for Figures 3, 8 and 9 of the GraphSAM paper.

Columns of the rows, one row per step (`drain`):

    step, epoch, rho
    eps_norm, omega_norm         norm(eps_t), norm(omega_t)                              Figure 9
    eps_change, omega_change     norm(eps_t - eps_t-1), norm(omega_t - omega_t-1)        Figures 3a, 8
    cos_next                     cos(eps_t, omega_t-1): the paper's cos(eps_t+1, omega_t), in the row of eps
    layers                       the same by layer, except step, epoch and rho (if per_layer)

On probe steps also, with SAM's eps^S and omega^S at the same weights, batch and rho (Figure 3c):

    true_norm                    norm(eps^S)
    cos_true                     cos(eps_t, eps^S): the quality of the approximation
    cos_sam_omega                cos(eps_t, omega^S)
    cos_omega                    cos(omega_t, omega^S)

At the first step of a run the changes and cos_next are null. A pair is consistent if its cosine is >= 0 (Definition 2).
"""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import Tensor

from molsam.diagnostics.probe import probe
from molsam.errors import ConfigError
from molsam.optim.base import StepEvent
from molsam.optim.vector import HALF, Vector, total

Row = dict[str, Any]
Products = dict[str, Tensor]
"""Inner products by name, each a tensor [parts]."""
SMALL = 8192
"""Largest number of elements of a tensor that is merged with others."""


class GradientDiagnostics:
    """Collects a row per step; append it to `optimizer.observers`.

    Each parameter is read once, and all numbers of a step are transferred to the CPU together.

    Args:
        probe_every: number of steps from one probe to the next, each of which takes two passes; 0 for none.
        per_layer: whether to measure each layer (module that owns parameters) too.
    """

    def __init__(self, probe_every: int = 0, per_layer: bool = False) -> None:
        if probe_every < 0:
            raise ConfigError(f"diagnostics.gradients.probe_every is {probe_every}; it must be 0 (no probes) or more.")
        self.probe_every = probe_every
        self.per_layer = per_layer
        self._rows: list[Row] = []
        self._last: dict[str, list[Tensor]] = {}
        """copies of the previous step's eps and omega"""
        self._last_numbers: dict[str, Any] = {"omega_norm": 0.0, "squares": []}
        """the previous step's norm of omega and, by parameter, its square"""
        names = ("pairs", "consistent", "cos_next", "probes", "true_pairs", "cos_true", "probe_seconds")
        self._totals = dict.fromkeys(names, 0.0)

    def __call__(self, event: StepEvent) -> None:
        """Measure one step."""
        eps, omega = self._parts(event.eps, event), self._parts(event.omega, event)
        first = not self._last
        if first:
            self._last = {"eps": [torch.zeros_like(e) for e in eps], "omega": [torch.zeros_like(w) for w in omega]}
        found: dict[str, list[Tensor]] = {name: [] for name in ("next", "eps_change", "omega_change")}
        # All of a parameter's measures are computed together, while it is in the processor's cache.
        for e, w, last_e, last_w in zip(eps, omega, self._last["eps"], self._last["omega"], strict=True):
            found["next"].append(torch.dot(e, last_w))
            found["eps_change"].append(torch.dot(last_e.sub_(e), last_e))
            found["omega_change"].append(torch.dot(last_w.sub_(w), last_w))
            last_e.copy_(e)
            last_w.copy_(w)
        if self.per_layer:
            found |= {"eps": [torch.dot(e, e) for e in eps], "omega": [torch.dot(w, w) for w in omega]}
        products = {name: total(dots) for name, dots in found.items()}
        if self.probe_every and event.step % self.probe_every == 0:
            products |= self._probe(event, eps, omega)
        self._rows.append(self._row(event, products, first))

    def _parts(self, vector: Vector, event: StepEvent) -> list[Tensor]:
        return parts(vector, event.optimizer.parameters(), merge=not self.per_layer)

    def _probe(self, event: StepEvent, eps: list[Tensor], omega: list[Tensor]) -> Products:
        start = time.perf_counter()
        truth = probe(event)
        self._totals["probes"] += 1
        self._totals["probe_seconds"] += time.perf_counter() - start
        if truth is None:
            return {}
        true_eps, true_omega = self._parts(truth.eps, event), self._parts(truth.omega, event)
        pairs = {
            "true": (true_eps, true_eps),
            "sam": (true_omega, true_omega),
            "eps_true": (eps, true_eps),
            "eps_sam": (eps, true_omega),
            "omega_sam": (omega, true_omega),
        }
        return {name: total([torch.dot(*pair) for pair in zip(a, b, strict=True)]) for name, (a, b) in pairs.items()}

    def _row(self, event: StepEvent, products: Products, first: bool) -> Row:
        """Return the row of a step; all products are transferred to the CPU together."""
        table = torch.stack(list(products.values()))
        columns = (table if self.per_layer else table.sum(1, keepdim=True)).tolist()
        last = self._last_numbers
        by_name = {
            name: column
            for name, column in zip(products, columns, strict=True)
            if not first or name not in ("next", "eps_change", "omega_change")
        }
        by_name["last"] = last["squares"]
        row: Row = {"step": event.step, "epoch": event.epoch, "rho": event.rho}
        whole = {"eps": event.norm**2, "omega": event.omega_norm**2, "last": last["omega_norm"] ** 2}
        row |= measures({name: sum(column) for name, column in by_name.items()} | whole)
        if self.per_layer:
            row["layers"] = layers([layer_of(name) for name in event.optimizer.names], by_name)
        self._last_numbers = {"omega_norm": event.omega_norm, "squares": by_name.get("omega", [])}
        for name, count in (("cos_next", "pairs"), ("cos_true", "true_pairs")):
            if row.get(name) is not None:
                self._totals[name] += row[name]
                self._totals[count] += 1
        self._totals["consistent"] += row["cos_next"] is not None and row["cos_next"] >= 0
        return row

    def drain(self) -> list[Row]:
        """Return the rows since the last call."""
        rows, self._rows = self._rows, []
        return rows

    def summary(self) -> dict[str, float | int | None]:
        """Return means over the run so far, for result.json."""
        t = self._totals
        return {
            "cos_next_mean": t["cos_next"] / t["pairs"] if t["pairs"] else None,
            "consistent_share": t["consistent"] / t["pairs"] if t["pairs"] else None,
            "cos_true_mean": t["cos_true"] / t["true_pairs"] if t["true_pairs"] else None,
            "probes": int(t["probes"]),
            "probe_seconds": t["probe_seconds"],
        }

    def state_dict(self) -> dict[str, Any]:
        """Return what a resume needs to continue with the same rows: tensors and JSON-able values."""
        last = {name: [tensor.clone() for tensor in tensors] for name, tensors in self._last.items()}
        return {"last": last, "numbers": dict(self._last_numbers), "totals": dict(self._totals)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state."""
        self._last = {name: [tensor.clone() for tensor in tensors] for name, tensors in state["last"].items()}
        self._last_numbers = dict(state["numbers"])
        self._totals = dict(state["totals"])
        self._rows = []


def parts(vector: Vector, parameters: list[Tensor], merge: bool) -> list[Tensor]:
    """Return a vector's 1-d tensors, one for each parameter; 16-bit ones as float32, and zeros for absent ones.

    With `merge` all small tensors of a dtype and device are concatenated, because an operation on each of them would
    cost more than its arithmetic.
    """
    found = [(vector[p] if p in vector else torch.zeros_like(p)).flatten() for p in parameters]
    found = [tensor.float() if tensor.dtype in HALF else tensor for tensor in found]
    if not merge:
        return found
    small: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for tensor in found:
        if tensor.numel() <= SMALL:
            small.setdefault((tensor.device, tensor.dtype), []).append(tensor)
    return [*(tensor for tensor in found if tensor.numel() > SMALL), *map(torch.cat, small.values())]


def layers(owners: list[str], by_name: dict[str, list[float]]) -> dict[str, Row]:
    """Return the measures of each layer, from the inner products and the layers of the parameters."""
    found = {}
    for layer in dict.fromkeys(owners):
        places = [i for i, owner in enumerate(owners) if owner == layer]
        found[layer] = measures({name: sum(column[i] for i in places) for name, column in by_name.items() if column})
    return found


def layer_of(name: str) -> str:
    """Return the name of the module that owns a parameter."""
    return name.rpartition(".")[0] or name


def measures(squares: dict[str, float]) -> Row:
    """Return norms and cosines from inner products; None where they are undefined."""

    def length(name: str) -> float | None:
        value = squares.get(name)
        return math.sqrt(max(value, 0.0)) if value is not None and math.isfinite(value) else None

    def cosine(name: str, left: str, right: str) -> float | None:
        a, b = length(left), length(right)
        if not a or not b or not math.isfinite(squares[name]):
            return None
        return max(-1.0, min(1.0, squares[name] / a / b))

    row = {
        "eps_norm": length("eps"),
        "omega_norm": length("omega"),
        "eps_change": length("eps_change"),
        "omega_change": length("omega_change"),
        "cos_next": cosine("next", "eps", "last"),
    }
    if "true" in squares:
        row |= {
            "true_norm": length("true"),
            "cos_true": cosine("eps_true", "eps", "true"),
            "cos_sam_omega": cosine("eps_sam", "eps", "sam"),
            "cos_omega": cosine("omega_sam", "omega", "sam"),
        }
    return row
