"""Checkpoints are restored exactly, or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from molsam.errors import StorageError
from molsam.training import checkpoint

TREE = {
    "weights": {"a": torch.arange(6.0).reshape(2, 3), "scalar": torch.tensor(2.5, dtype=torch.float64)},
    "state": {
        0: {"step": torch.tensor(3), "empty": torch.zeros(0, 4)},
        7: {"bf16": torch.ones(2, dtype=torch.bfloat16)},
    },
    "list": [1, 2.5, None, True, "text", (1, (2, 3))],
    "nan": float("inf"),
    "rng": torch.get_rng_state(),
}


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def test_a_tree_comes_back_with_types_shapes_and_integer_keys(tmp_path: Path) -> None:
    path = tmp_path / "last" / "checkpoint.safetensors"
    checkpoint.save(path, TREE)
    assert same(checkpoint.load(path), TREE)


def test_tensors_that_share_memory_are_kept(tmp_path: Path) -> None:
    base = torch.arange(10.0)
    checkpoint.save(tmp_path / "c", {"whole": base, "part": base[2:5], "transposed": base.reshape(2, 5).T})
    back = checkpoint.load(tmp_path / "c")
    assert torch.equal(back["part"], base[2:5])
    assert torch.equal(back["transposed"], base.reshape(2, 5).T)


def test_every_damaged_byte_is_noticed(tmp_path: Path) -> None:
    data = checkpoint.encode({"w": torch.arange(8.0), "n": 3})
    rng = np.random.default_rng(0)
    for place in {0, 31, 32, 40, len(data) - 1, *rng.integers(0, len(data), 40).tolist()}:
        bad = bytearray(data)
        bad[place] ^= 1 << int(rng.integers(8))
        with pytest.raises(StorageError, match="damaged"):
            checkpoint.decode(bytes(bad), "file")
    for cut in (0, 10, 40, len(data) - 1):
        with pytest.raises(StorageError):
            checkpoint.decode(data[:cut], "file")


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "checkpoint.safetensors"
    checkpoint.save(path, {"n": 1})
    checkpoint.save(path, {"n": 2})
    assert checkpoint.load(path) == {"n": 2}
    path.write_bytes(path.read_bytes()[:-3])
    with caplog.at_level("WARNING", logger="molsam"):
        assert checkpoint.load(path) == {"n": 1}
    assert str(path) in caplog.text


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    checkpoint.save(path, {"n": 1})
    path.rename(checkpoint.previous(path))
    path.with_suffix(".new").write_bytes(checkpoint.encode({"n": 2}))
    assert checkpoint.load(path) == {"n": 2}


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint.safetensors"
    checkpoint.save(path, {"n": 1})

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        checkpoint.save(path, {"n": 2})
    assert checkpoint.load(path) == {"n": 1}
    assert not list(tmp_path.glob("*.tmp"))
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil"
    torch.save({"n": 1}, path)
    with pytest.raises(StorageError):
        checkpoint.read(path)


def test_objects_are_refused_when_saving(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="plain values"):
        checkpoint.save(tmp_path / "c", {"object": object()})


def test_equal_trees_are_equal_bytes() -> None:
    assert len({checkpoint.encode(TREE) for _ in range(8)}) == 1
