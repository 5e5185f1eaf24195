"""The cache of features: what it depends on, and every kind of damage."""

from __future__ import annotations

import multiprocessing
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from molsam.chem.chemprop import ChempropFeaturizer
from molsam.chem.compt import ComptFeaturizer
from molsam.data import cache, dataset
from molsam.data.cache import cached, key
from molsam.data.dataset import load
from molsam.errors import StorageError
from tests.data.helpers import load_rows, write
from tests.paths import PATIENCE

ROWS = [("CCO", 1), ("C(C", 2), ("CC", 3)]


class Counted:
    """Makes an entry and counts how often."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> cache.Entry:
        self.times += 1
        return {"a": torch.arange(600.0).reshape(20, 30), "b": torch.zeros(0, 3)}, {"names": ["x", "y"]}


def entry(folder: Path) -> Path:
    (path,) = (folder / "features").iterdir()
    return path


def assert_right(found: cache.Entry) -> None:
    tensors, record = found
    assert torch.equal(tensors["a"], torch.arange(600.0).reshape(20, 30))
    assert tensors["b"].shape == (0, 3)
    assert record == {"names": ["x", "y"]}


def test_the_second_time_is_read(tmp_path: Path) -> None:
    make = Counted()
    assert_right(cached(tmp_path, "k", make))
    assert_right(cached(tmp_path, "k", make))
    assert make.times == 1
    assert [path.name for path in (tmp_path / "features").iterdir()] == ["k.safetensors"]


def test_every_flipped_bit_is_seen(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cached(tmp_path, "k", Counted())
    path = entry(tmp_path)
    whole = path.read_bytes()
    draw = random.Random(0)
    places = [*range(0, 400, 7), *(draw.randrange(len(whole)) for _ in range(40)), len(whole) - 1]
    unseen = 0
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        make = Counted()
        assert_right(cached(tmp_path, "k", make))
        unseen += make.times == 0
        assert path.read_bytes() == whole
    # A flip may only go unseen where it says nothing: in the padding of the header.
    assert unseen <= 2
    assert "is damaged (" in caplog.text


def test_a_large_file_is_used_at_once_and_checked_before_the_result_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "AT_ONCE", 100)
    monkeypatch.setattr(cache, "BLOCK", 77)
    make = Counted()
    cached(tmp_path, "k", make)
    assert_right(cached(tmp_path, "k", make))
    cache.verify()
    path = entry(tmp_path)
    whole = path.read_bytes()
    for place in (len(whole) - 1, len(whole) - 1200, whole.index(b"shape") + 9):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        cached(tmp_path, "k", make)
        if make.times == 2:  # the sizes do not fit: seen at once
            make.times = 1
            continue
        with pytest.raises(StorageError, match="is damaged"):
            cache.verify()
        assert not path.exists()
        cache.verify()
        path.write_bytes(whole)
    assert_right(cached(tmp_path, "k", make))
    cache.verify()
    assert make.times == 1


@pytest.mark.parametrize("content", [b"", b"\0" * 8, b"{}", b"x" * 5000, (1 << 40).to_bytes(8, "little") + b"{}"])
def test_another_file_in_its_place(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    cached(tmp_path, "k", Counted())
    entry(tmp_path).write_bytes(content)
    make = Counted()
    assert_right(cached(tmp_path, "k", make))
    assert make.times == 1
    assert "\n" not in caplog.records[0].getMessage()


def test_a_truncated_file(tmp_path: Path) -> None:
    cached(tmp_path, "k", Counted())
    path = entry(tmp_path)
    whole = path.read_bytes()
    for length in (1, 7, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        make = Counted()
        assert_right(cached(tmp_path, "k", make))
        assert make.times == 1


@pytest.mark.parametrize("change", [lambda a: a.reshape(30, 20), lambda a: a.view(torch.int32)], ids=["shape", "type"])
def test_the_same_bytes_of_another_form(tmp_path: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    cached(tmp_path, "k", Counted())
    with safe_open(str(entry(tmp_path)), framework="pt") as file:
        metadata = file.metadata()
    tensors, _ = Counted()()
    save_file({**tensors, "a": change(tensors["a"])}, entry(tmp_path), metadata)
    make = Counted()
    assert_right(cached(tmp_path, "k", make))
    assert make.times == 1


def test_a_safetensors_file_of_someone_else(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    (tmp_path / "features").mkdir()
    save_file({"a": torch.zeros(2)}, tmp_path / "features" / "k.safetensors")
    assert_right(cached(tmp_path, "k", Counted()))


@pytest.mark.parametrize("errno", [28, 30, 13])
def test_a_cache_that_cannot_be_written(
    tmp_path: Path, errno: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No space, read-only, no permission: one warning, and the run goes on."""

    def refuse(*_: Any) -> None:
        raise OSError(errno, os.strerror(errno))

    monkeypatch.setattr(os, "fsync", refuse)
    assert_right(cached(tmp_path, "k", Counted()))
    assert len(caplog.records) == 1
    assert "not cached" in caplog.text
    assert os.strerror(errno) in caplog.text
    assert list((tmp_path / "features").iterdir()) == []


def test_a_cache_folder_that_is_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "cache").write_text("")
    assert_right(cached(tmp_path / "cache", "k", Counted()))
    assert "not cached" in caplog.text


def test_an_entry_that_is_a_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "features" / "k.safetensors").mkdir(parents=True)
    assert_right(cached(tmp_path, "k", Counted()))
    assert "is damaged" in caplog.text


def test_the_key() -> None:
    newer = ChempropFeaturizer()
    newer.VERSION = 2
    v1 = ChempropFeaturizer()
    keys = [
        key(b"x", v1, {}),
        key(b"y", v1, {}),
        key(b"x", ChempropFeaturizer(bond_order="pairs"), {}),
        key(b"x", ComptFeaturizer(), {}),
        key(b"x", newer, {}),
        key(b"x", v1, {"limit": 3}),
    ]
    assert len(set(keys)) == len(keys)
    assert key(b"x", ChempropFeaturizer(), {}) == keys[0]


def test_the_key_follows_rdkit_and_the_packing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key(b"x", ChempropFeaturizer(), {})
    monkeypatch.setattr(cache, "PACKING", -1)
    packed = key(b"x", ChempropFeaturizer(), {})
    monkeypatch.setattr(cache.rdkit, "__version__", "1900.01.1")
    assert len({before, packed, key(b"x", ChempropFeaturizer(), {})}) == 3


def test_a_dataset_from_the_cache_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_rows(tmp_path, ROWS, descriptors="rdkit_2d")
    monkeypatch.setattr(dataset, "featurize", None)  # must not be needed
    again = load_rows(tmp_path, ROWS, descriptors="rdkit_2d")
    for name, tensor in first.packed.tensors().items():
        assert torch.equal(tensor, again.packed.tensors()[name])
    assert again.report == first.report
    assert again.canonical == first.canonical
    assert (again.descriptors == first.descriptors).all()


def test_what_is_not_shared(tmp_path: Path) -> None:
    """Another limit, SMILES column, content or wish for descriptors is another entry."""
    rows = [("CCO", "C", 1), ("CC", "O", 2)]
    sizes = []
    for settings in ({}, {"limit": 1}, {"smiles": "other", "targets": "y"}, {"descriptors": "rdkit_2d"}):
        load_rows(tmp_path, rows, "smiles,other,y", **{"targets": "y", **settings})
        sizes.append(len(list((tmp_path / "cache" / "features").iterdir())))
    load_rows(tmp_path, rows[:1], "smiles,other,y", targets="y")
    sizes.append(len(list((tmp_path / "cache" / "features").iterdir())))
    assert sizes == [1, 2, 3, 4, 5]


def _start(path: str, cache_dir: str, results: Any) -> None:
    torch.set_num_threads(1)
    data = load({"path": path, "smiles": "smiles", "targets": None}, ChempropFeaturizer(), cache_dir)
    results.put((len(data), float(data.packed.nodes.sum())))


def test_processes_may_start_on_a_cold_cache_together(tmp_path: Path) -> None:
    path = write(tmp_path / "d.csv", [("C" * (1 + i % 30), i) for i in range(300)])
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=_start, args=(str(path), str(tmp_path / "c"), results)) for _ in range(4)]
    for worker in workers:
        worker.start()
    found = {results.get(timeout=PATIENCE) for _ in workers}
    for worker in workers:
        worker.join()
    assert len(found) == 1
    assert len(list((tmp_path / "c" / "features").iterdir())) == 1
