"""Shared by all tests: few threads, no network services, a separate cache."""

from __future__ import annotations

import copy
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("DGLBACKEND", "pytorch")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("MOLSAM_PICTURES", "false")  # a second each; tests/tracking/test_pictures.py draws them
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that wait leave the processor to other tests

import pytest
import torch

# A hypothesis deadline measures the machine, not the code.
from hypothesis import settings
from omegaconf import OmegaConf

settings.register_profile("molsam", deadline=None, database=None, print_blob=True)
settings.load_profile("molsam")


@pytest.fixture(scope="session", autouse=True)
def parsed_once() -> Iterator[None]:
    """Hydra parses thirty YAML files each time that it composes: a quarter of the time that most tests take."""
    really, known = OmegaConf.load, {}

    def load(file: Any) -> Any:
        if not isinstance(file, io.TextIOWrapper):
            return really(file)
        found = os.fstat(file.fileno())
        key = file.name, found.st_mtime_ns, found.st_size, found.st_ino
        if key not in known:
            known[key] = really(file)
        return copy.deepcopy(known[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OmegaConf, "load", load)
        yield


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tests run beside one another: one thread each is fastest."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder of this session. Compiled kernels are shared by all the user's sessions: compiling is slow."""
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
