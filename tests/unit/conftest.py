"""Ways of computing: compiled C or torch alone, and how many threads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch

from molsam import kernels


@pytest.fixture(scope="module", params=["compiled", "torch"])
def each_way(request: pytest.FixtureRequest) -> Iterator[None]:
    """A module's tests run once with the C files and once without."""
    if request.param == "compiled" and kernels.in_use() != "compiled":
        pytest.skip("no C compiler")
    with kernels.torch_only() if request.param == "torch" else contextlib.nullcontext():
        yield


@pytest.fixture(params=[1, 2, 5])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test runs with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)
