"""The C kernels give the same numbers as torch, with any number of threads."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from molsam.native import kernels
from tests.native.models import BATCHES, MODELS, gradients
from tests.paths import ROOT

compiled = pytest.mark.skipif(kernels.in_use() != "compiled", reason="no C compiler")


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def torch_alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[list[Tensor]]]:
    """What a process without the kernels computes."""
    path = tmp_path_factory.mktemp("plain") / "gradients.pt"
    environment = {**os.environ, "MOLSAM_KERNELS": "torch"}
    subprocess.run([sys.executable, "-m", "tests.native.models", str(path)], cwd=ROOT, env=environment, check=True)
    found: dict[str, list[list[Tensor]]] = torch.load(path, weights_only=True)
    return found


@compiled
@pytest.mark.parametrize("n_threads", [1, 2, 14])
@pytest.mark.parametrize("name", MODELS)
def test_equals_torch_alone(name: str, n_threads: int, torch_alone: dict[str, list[list[Tensor]]]) -> None:
    torch.set_num_threads(n_threads)
    for smiles, expected in zip(BATCHES, torch_alone[name], strict=True):
        found = gradients(name, torch.float64, smiles)
        torch.testing.assert_close(
            found, expected, rtol=1e-10, atol=1e-10 * max(float(g.abs().max()) for g in expected)
        )
        torch.testing.assert_close(gradients(name, torch.float64, smiles), found, rtol=0, atol=0)
        largest = max(float(g.abs().max()) for g in expected[1:])
        for a, b in zip(gradients(name, torch.float32, smiles), expected, strict=True):
            assert float((a - b).abs().max()) < 1e-4 * max(float(b.abs().max()), 0.01 * largest)


def test_only_for_plain_numbers_of_the_cpu() -> None:
    assert kernels.available(torch.empty(1)) == (kernels.in_use() == "compiled")
    assert not kernels.available(torch.empty(1, dtype=torch.bfloat16))
    assert not kernels.available(torch.empty(1, device="meta"))
    with torch.autocast("cpu"):
        assert not kernels.available(torch.empty(1))
