"""Shared by all tests: few threads, no network services, a separate cache."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("DGLBACKEND", "pytorch")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("MOLSAM_PICTURES", "false")  # a second each; tests/tracking/test_pictures.py draws them
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that wait leave the processor to other tests

import pytest
import torch

# A hypothesis deadline measures the machine, not the code.
from hypothesis import settings

settings.register_profile("molsam", deadline=None, database=None, print_blob=True)
settings.load_profile("molsam")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tests run beside one another: one thread each is fastest."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder of this session. Compiled kernels are shared by all sessions of this user: compiling takes long."""
    folder = tmp_path_factory.mktemp("cache")
    shared = Path(tempfile.gettempdir()) / f"molsam-test-kernels-{os.getuid()}"
    shared.mkdir(mode=0o700, exist_ok=True)
    if shared.stat().st_uid == os.getuid():
        (folder / "native").symlink_to(shared)
    return folder


@pytest.fixture(autouse=True)
def own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read from or written to the user's cache."""
    monkeypatch.setenv("MOLSAM_CACHE", str(cache))


@pytest.fixture(params=[1] if os.environ.get("MOLSAM_KERNELS") == "torch" else [1, 2, 5])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test of C runs with so many threads; torch's own are not ours to test."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)
