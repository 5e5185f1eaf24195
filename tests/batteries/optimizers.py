"""The small training run with which the batteries test every optimizer of conf/optimizer."""

from __future__ import annotations

import copy
import functools
import json
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from molsam.config.compose import compose
from molsam.optim import Optimizer
from molsam.wiring import build as wiring
from tests.paths import ROOT

torch.set_num_threads(1)
NAMES = sorted(path.stem for path in (ROOT / "conf" / "optimizer").glob("*.yaml"))
PLAIN = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
SHARP = [name for name in NAMES if name not in PLAIN]
N = 4
"""steps of an epoch"""


class Net(nn.Module):
    """Linear, BatchNorm, dropout, Linear; a frozen parameter and one that is never used."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        # No bias before BatchNorm: its gradient would be rounding noise, which Adam blows up.
        self.first, self.norm = nn.Linear(3, 8, bias=False), nn.BatchNorm1d(8)
        self.drop, self.last = nn.Dropout(dropout), nn.Linear(8, 2)
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.unused = nn.Parameter(torch.ones(3))
        self.rare = nn.Parameter(torch.ones(2))
        self.use_rare = False

    def forward(self, x: Tensor) -> Tensor:
        y = self.last(self.drop(torch.tanh(self.norm(self.first(x))))) * self.frozen
        return y * self.rare if self.use_rare else y


class Training:
    """A net, its data and the closure of the current step."""

    def __init__(self, name: str, seed: int = 0, dtype: torch.dtype = torch.float64, **options: Any) -> None:
        torch.manual_seed(seed)
        self.dropout = options.pop("dropout", 0.0)
        self.model = Net(self.dropout).to(dtype)
        generator = torch.Generator().manual_seed(7)
        self.data = [
            (torch.randn(6, 3, generator=generator).to(dtype), torch.randn(6, 2, generator=generator).to(dtype))
            for _ in range(N)
        ]
        self.noise = torch.get_rng_state()
        """the training's own random numbers: several of them can take turns"""
        self.passes = 0
        self.step = 0
        self.zero = True
        self.optimizer = build(name, groups=self.groups(options.pop("groups", False)), module=self.model, **options)

    def groups(self, several: bool) -> list[dict[str, Any]]:
        """All parameters as one group, or as two with their own rho."""
        everything = list(self.model.parameters())
        if not several:
            return [{"params": everything}]
        first, rest = self.first_and_rest()
        return [{"params": first, "lr": 0.05}, {"params": rest, "rho": 0.2}]

    def first_and_rest(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """The parameters of the first layer, and the others."""
        first = list(self.model.first.parameters())
        return first, [p for p in self.model.parameters() if all(p is not q for q in first)]

    def losses(self, select: Tensor | None = None) -> Tensor:
        x, y = self.data[self.step % N]
        return (self.model(x) - y).square().mean(1)[slice(None) if select is None else select]

    def __call__(self) -> Tensor:
        self.passes += 1
        if self.zero:
            self.optimizer.zero_grad()
        loss = self.losses().mean()
        loss.backward()
        return loss.detach()

    def run(self, steps: int) -> list[Tensor]:
        """Make steps; return the weights and buffers after each, one flat tensor a step."""
        trace = []
        torch.set_rng_state(self.noise)
        for _ in range(steps):
            self.model.use_rare = self.step % 3 == 1
            self.optimizer.step(self)
            self.step += 1
            state = [t.detach().flatten().double() for t in self.model.state_dict().values()]
            trace.append(torch.cat(state))
        self.noise = torch.get_rng_state()
        return trace


def config(name: str, base: str = "sgd", schedule: str = "staircase") -> Any:
    """The settings of a run with this optimizer, its base and its rho schedule; adam, adamw, sgd are their own base."""
    cfg = copy.deepcopy(_composed(f"optimizer={name}"))
    if name not in PLAIN:
        cfg.base_optimizer = _composed("optimizer=sam", f"base_optimizer={base}").base_optimizer
    cfg.rho_schedule = _composed("optimizer=sam", f"rho_schedule={schedule}").rho_schedule
    return cfg


@functools.cache
def _composed(*overrides: str) -> Any:
    """Each option once: composing takes a sixth of a second, and there are hundreds of combinations."""
    return compose(overrides)


CACHE: dict[tuple[str, str, str], Any] = {}


def build(
    name: str, *, groups: Any, module: nn.Module | None = None, base: str = "sgd", schedule: str = "staircase",
    rho: float | None = None, lr: float | None = None, **options: Any,
) -> Optimizer:  # fmt: skip
    """The optimizer of a YAML."""
    key = (name, base, schedule)
    if key not in CACHE:
        CACHE[key] = config(*key)
    cfg = copy.deepcopy(CACHE[key])
    if rho is not None:
        cfg.optimizer.rho = rho
    cfg.base_optimizer.lr = lr if lr is not None else 0.02
    factory = wiring.build("optimizer", cfg.optimizer)
    return factory(groups, module=module, steps_per_epoch=N, total_steps=100, **options)


def equal(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def through_files(state: dict[str, Any]) -> dict[str, Any]:
    """The state as safetensors and JSON, and back."""
    tensors: dict[str, Tensor] = {}

    def strip(tree: Any) -> Any:
        if isinstance(tree, Tensor):
            tensors[str(len(tensors))] = tree.contiguous()
            return {"__tensor__": str(len(tensors) - 1)}
        if isinstance(tree, dict):
            return {key: strip(value) for key, value in tree.items()}
        return [strip(value) for value in tree] if isinstance(tree, list) else tree

    def join(tree: Any) -> Any:
        if isinstance(tree, dict):
            return loaded[tree["__tensor__"]] if "__tensor__" in tree else {k: join(v) for k, v in tree.items()}
        return [join(value) for value in tree] if isinstance(tree, list) else tree

    text = json.dumps(strip(state), allow_nan=False)
    loaded = load_tensors(save_tensors(tensors))
    return dict(join(json.loads(text)))
