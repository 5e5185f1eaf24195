"""Both ways of computing: compiled C, and torch alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from molsam import kernels


@pytest.fixture(scope="module", params=["compiled", "torch"])
def each_way(request: pytest.FixtureRequest) -> Iterator[None]:
    """A module's tests run once with the C files and once without."""
    if request.param == "compiled" and kernels.in_use() != "compiled":
        pytest.skip("no C compiler")
    with kernels.torch_only() if request.param == "torch" else contextlib.nullcontext():
        yield
