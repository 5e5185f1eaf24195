"""Use outside molsam: three lines with any torch module; no molecular code is imported."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import pytest
import torch
from torch import nn

from molsam import optim

METHODS = [
    method
    for name in optim.__all__
    if isinstance(method := getattr(optim, name), type) and issubclass(method, optim.Optimizer) and name != "Optimizer"
]


@pytest.mark.parametrize("method", METHODS)
def test_an_mlp_with_batch_norm_learns(method: type[optim.Optimizer]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1))
    x = torch.randn(64, 4)
    y = x[:, :1] * x[:, 1:2]
    optimizer = method(model, partial(torch.optim.Adam, lr=0.02), steps_per_epoch=10, total_steps=80)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        return loss.detach()

    losses = [float(optimizer.step(closure)) for _ in range(80)]
    assert losses[-1] < 0.25 * losses[0]
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.num_batches_tracked == 80


def test_a_learning_rate_schedule_of_torch_drives_it() -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = optim.SAM([weight], partial(torch.optim.SGD, lr=1.0))
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)

    def closure() -> torch.Tensor:
        loss = weight.sum()
        loss.backward()
        return loss.detach()

    for _ in range(3):
        optimizer.step(closure)
        schedule.step()
    assert optimizer.base is not None
    assert optimizer.base.param_groups[0]["lr"] == 0.125
    torch.testing.assert_close(weight.detach(), torch.full((2,), 1 - 1 - 0.5 - 0.25))


def test_nothing_of_molecules_is_imported() -> None:
    code = (
        "import sys, molsam.optim\n"
        "ALLOWED = ('optim', 'errors', 'files', 'native')\n"
        "bad = [m for m in sys.modules if m.split('.')[0] in ('dgl', 'rdkit', 'hydra', 'pandas', 'wandb')]\n"
        "own = [m for m in sys.modules if m.startswith('molsam.') and m.split('.')[1] not in ALLOWED]\n"
        "assert not bad + own, bad + own"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_first_step_does_not_import_the_compiler() -> None:
    """It takes a second or two, and nothing is compiled."""
    code = (
        "import sys, functools, torch, molsam.optim as o\n"
        "model = torch.nn.Linear(1, 1)\n"
        "optimizer = o.SAM(model, functools.partial(o.Adam, fused=True))\n"
        "def closure():\n"
        "    loss = model(torch.ones(1, 1)).sum()\n"
        "    loss.backward()\n"
        "    return loss\n"
        "optimizer.step(closure)\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
