"""Loading a dataset: what is left out, reported and refused, and the batches that a model gets."""

from __future__ import annotations

import logging
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from molsam.chem.chemprop import ChempropFeaturizer
from molsam.chem.compt import ComptFeaturizer
from molsam.chem.grover import GroverFeaturizer
from molsam.commands.data import dataset_settings
from molsam.data import featurize
from molsam.data.dataset import load
from molsam.data.scaler import TargetScaler
from molsam.errors import ConfigError, DataError
from tests.data.helpers import load_rows, write
from tests.paths import MOLECULENET, needs_moleculenet

ROWS = [("CCO", 1.5), ("C(C", 2), ("OCC", ""), ("[Na+].[Cl-]", -3), ("C1CC", 4), ("CCO", 1.5)]


def test_rows_that_are_no_molecule_are_dropped_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="molsam"):
        data = load_rows(tmp_path, ROWS)
    assert data.smiles == ["CCO", "OCC", "[Na+].[Cl-]", "CCO"]
    assert data.rows.tolist() == [0, 2, 3, 5]
    assert [data.where(i) for i in range(2)] == ["row 0 (line 2)", "row 2 (line 4)"]
    np.testing.assert_array_equal(data.targets[:, 0], [1.5, np.nan, -3, 1.5])
    assert [(where, smiles) for where, smiles, _ in data.report.invalid] == [
        ("row 1 (line 3)", "C(C"),
        ("row 4 (line 6)", "C1CC"),
    ]
    assert "2 of 6 rows" in caplog.text
    assert "row 4 (line 6): C1CC (unclosed ring)" in caplog.text
    report = data.report.summary()
    assert (report["rows"], report["invalid"], report["duplicates"]) == (6, 2, 2)
    assert (report["contradictions"], report["missing"]) == (0, 1)
    assert data.canonical == ["CCO", "CCO", "[Cl-].[Na+]", "CCO"]


def test_or_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"2 of 6 rows .* row 1 \(line 3\): C\(C .* dataset\.on_invalid=drop"):
        load_rows(tmp_path, ROWS, on_invalid="error")


def test_a_molecule_the_featurizer_refuses_counts_as_invalid(tmp_path: Path) -> None:
    path = write(tmp_path / "d.csv", [("C", 1), ("[Og+9]", 2)])
    settings = {"path": str(path), "smiles": "smiles", "targets": ["y"]}
    data = load(settings, GroverFeaturizer(), str(tmp_path))
    assert len(data) == 1
    assert "charge +9" in data.report.invalid[0][2]


def test_duplicates(tmp_path: Path) -> None:
    dropped = load_rows(tmp_path, ROWS, duplicates="drop")
    assert dropped.rows.tolist() == [0, 3]
    assert (dropped.report.found.dropped, dropped.report.found.rows) == (2, 2)
    assert len(dropped.packed) == 2
    np.testing.assert_array_equal(dropped.batch([1]).nodes, load_rows(tmp_path, ROWS).batch([2]).nodes)
    assert len(load_rows(tmp_path, ROWS, duplicates="group")) == 4


def test_a_limit_takes_rows_from_all_over_the_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Labels, lines, complaints and the features of a file stay with their molecules."""
    rows = [("C" * (1 + i), int(i > 20), i) for i in range(30)]
    rows[12] = ("C(", 0, 12)
    np.save(tmp_path / "f.npy", np.arange(30.0)[:, None])
    chosen = [0, 6, 18, 24]
    with caplog.at_level(logging.WARNING, logger="molsam"):
        data = load_rows(tmp_path, rows, "smiles,y,part", targets="y", limit=5, descriptors=str(tmp_path / "f.npy"))
    assert data.smiles == ["C" * (1 + i) for i in chosen]
    assert data.rows.tolist() == chosen
    assert data.targets[:, 0].tolist() == [0, 0, 0, 1]
    assert data.split_column("part") == [str(i) for i in chosen]
    assert data.descriptors is not None
    assert data.descriptors[:, 0].tolist() == chosen
    assert "1 of 5 rows" in caplog.text
    assert "row 12 (line 14): C(" in caplog.text
    assert len(load_rows(tmp_path, rows, "smiles,y,part", targets="y", limit=99)) == 29


@needs_moleculenet
def test_few_rows_of_a_file_that_is_sorted_by_class_have_both(tmp_path: Path) -> None:
    settings = {**dataset_settings(str(MOLECULENET))["bbbp"], "limit": 48}
    assert set(load(settings, ComptFeaturizer(), str(tmp_path)).targets[:, 0]) == {0, 1}


def test_largest_size(tmp_path: Path) -> None:
    small = load_rows(tmp_path, ROWS, max_atoms=2)
    assert small.rows.tolist() == [3]
    assert (small.report.too_large, small.spec.max_atoms) == (3, 2)
    with pytest.raises(
        DataError, match=r"every molecule has more than dataset\.max_atoms=1 atoms; give a larger number"
    ):
        load_rows(tmp_path, ROWS, max_atoms=1)


def test_the_batch(tmp_path: Path) -> None:
    data = load_rows(tmp_path, [("C", 1, ""), ("CC", 3, 0), ("CCC", "", 1)], "smiles,a,b", task="regression")
    batch = data.batch([2, 0])
    assert batch.sizes.tolist() == [3, 1]
    assert batch.targets is not None
    assert batch.mask is not None
    assert batch.targets.tolist() == [[0, 1], [1, 0]]
    assert batch.mask.tolist() == [[False, True], [True, False]]
    assert batch.targets.dtype == torch.float32
    scaler = TargetScaler.fit(data.targets, "regression")
    scaled = data.batch([0, 1], scaler)
    assert scaled.targets is not None
    assert scaled.targets[:, 0].tolist() == [-1, 1]
    assert scaled.targets[0, 1] == 0, "a missing label stays 0"
    assert data.spec == (133, 14, 2, 3, 0)


def test_the_batch_is_what_the_featurizer_gave(tmp_path: Path) -> None:
    from molsam.chem.molecule import parse

    path = write(tmp_path / "d.csv", [("[Na+]", 1), ("CC(=O)O", 2), ("C.CC", 3)])
    featurizer = ComptFeaturizer()
    data = load({"path": str(path), "smiles": "smiles", "targets": ["y"]}, featurizer, str(tmp_path))
    batch = data.batch([2, 0, 1])
    assert batch.distances is not None
    atom = bond = pair = 0
    for smiles in ("C.CC", "[Na+]", "CC(=O)O"):
        one = featurizer(parse(smiles))
        n, e = len(one.nodes), len(one.edges)
        np.testing.assert_array_equal(batch.nodes[atom : atom + n], one.nodes)
        np.testing.assert_array_equal(batch.edges[bond : bond + e], one.edges)
        np.testing.assert_array_equal(batch.src[bond : bond + e] - atom, one.src)
        np.testing.assert_array_equal(batch.dst[bond : bond + e] - atom, one.dst)
        assert one.distances is not None
        np.testing.assert_array_equal(batch.distances[pair : pair + n * n].reshape(n, n), one.distances)
        atom, bond, pair = atom + n, bond + e, pair + n * n
    assert len(batch.nodes) == atom
    assert len(batch.src) == bond


def test_a_dataset_without_any_bond(tmp_path: Path) -> None:
    data = load_rows(tmp_path, [("C", 1), ("[Na+]", 2), ("*", 3)])
    batch = data.batch([0, 1, 2])
    assert batch.edges.shape == (0, 14)


def test_the_task_is_inferred(tmp_path: Path) -> None:
    classes = load_rows(tmp_path, [("C", 1), ("CC", 0), ("CCC", "")])
    assert (classes.task, classes.metric) == ("classification", "roc_auc")
    values = load_rows(tmp_path, [("C", 1), ("CC", 2)])
    assert (values.task, values.metric) == ("regression", "rmse")
    given = load_rows(tmp_path, [("C", 1), ("CC", 0)], task="regression", metric="mae")
    assert (given.task, given.metric) == ("regression", "mae")


def test_labels_that_do_not_fit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(
        DataError,
        match=r"row 1 \(line 3\), column .y.: '2' is not a class; write 0, 1 or nothing, or set dataset\.task",
    ):
        load_rows(tmp_path, [("C", 1), ("CC", 2), ("CCC", 0)], task="classification")
    with pytest.raises(
        DataError, match=r"column 'y' has the classes '1' and '2'; say which one is positive, as in .?dataset\.pos"
    ):
        load_rows(tmp_path, [("C", 1), ("CC", 2)], task="classification")
    with pytest.raises(DataError, match="no molecule has a label in y; name the label columns"):
        load_rows(tmp_path, [("C", ""), ("CC", "nan")], targets=["y"])
    with caplog.at_level(logging.WARNING, logger="molsam"):
        load_rows(tmp_path, [("C", 1, ""), ("CC", 2, "")], "smiles,a,b", targets=["a", "b"])
    assert "has no labels in b" in caplog.text
    with pytest.raises(DataError, match=r"data\.csv: No row has a valid molecule .*the first: unclosed ring"):
        load_rows(tmp_path, [("C1", 1), ("", 2)])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"duplicates": "grop"}, "dataset.duplicates=grop is not known; did you mean group"),
        ({"on_invalid": None}, "dataset.on_invalid=None is not known"),
        ({"task": "regresion"}, "did you mean regression"),
        ({"limit": 0}, "dataset.limit=0 must be a whole number from 1 up"),
        ({"max_atoms": 2.5}, "dataset.max_atoms=2.5 must be"),
        ({"limit": True}, "dataset.limit=True must be"),
        ({"root": 3}, "dataset.root=3 must be a path"),
        ({"path": None}, "dataset.path is not set"),
        ({"path": "???"}, "dataset.path is not set"),
        ({"smiles": ["a"]}, "dataset.smiles=.* is not a column name"),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_rows(tmp_path, ROWS, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"smiles": "smile"}, "did you mean 'smiles'"),
        ({"targets": ["Y"]}, r"^dataset\.targets=Y: .*has no column 'Y'"),
        ({"weights": "w"}, r"^dataset\.weights=w: .*has no column 'w'"),
        ({"id": "name"}, r"^dataset\.id=name: .*has no column 'name'"),
        ({"targets": ["y", "y"]}, r"column 'y' is used twice in dataset\.targets"),
        ({"targets": ["smiles"]}, r"column 'smiles' is used twice, in dataset\.targets and as"),
        ({"targets": ["y"], "id": "y"}, r"column 'y' is used twice, in dataset\.targets and as"),
    ],
)
def test_columns_that_are_not_there(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_rows(tmp_path, ROWS, **settings)


def test_one_target_may_be_a_word(tmp_path: Path) -> None:
    assert load_rows(tmp_path, [("C", 1, 2), ("CC", 3, 4)], "smiles,a,long", targets="long").task_names == ["long"]


def test_a_pool_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(("C" * (1 + i % 7)) if i % 5 else "C(", i) for i in range(40)]
    alone = load_rows(tmp_path, rows)
    monkeypatch.setattr(featurize, "WORTH_A_POOL", 1)
    monkeypatch.setattr(featurize, "CHUNK", 7)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    (tmp_path / "other").mkdir()
    pooled = load_rows(tmp_path / "other", rows)
    for name, tensor in alone.packed.tensors().items():
        assert torch.equal(tensor, pooled.packed.tensors()[name]), name
    assert pooled.canonical == alone.canonical
    assert pooled.report.invalid == alone.report.invalid


def test_a_pool_that_breaks_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __init__(self, *_: object, **__: object) -> None:
            raise OSError("no more processes")

    monkeypatch.setattr(featurize, "WORTH_A_POOL", 1)
    monkeypatch.setattr(featurize, "ProcessPoolExecutor", Broken)
    assert len(load_rows(tmp_path, ROWS)) == 4


def test_a_worker_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the pool has given is kept, the rest is done here."""

    class Killed:
        def __init__(self, _: int, **__: object) -> None:
            self.alive = True

        def __enter__(self) -> Killed:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def submit(self, function: Any, chunk: Any) -> Future[Any]:
            future: Future[Any] = Future()
            if self.alive:
                future.set_result(function(chunk))
            else:
                future.set_exception(BrokenProcessPool("a worker died"))
            self.alive = False
            return future

    monkeypatch.setattr(featurize, "WORTH_A_POOL", 1)
    monkeypatch.setattr(featurize, "CHUNK", 4)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(featurize, "ProcessPoolExecutor", Killed)
    assert load_rows(tmp_path, ROWS).rows.tolist() == [0, 2, 3, 5]


def test_descriptors_of_rdkit(tmp_path: Path) -> None:
    data = load_rows(tmp_path, ROWS, descriptors="rdkit_2d")
    assert data.descriptors is not None
    assert data.descriptors.shape == (4, data.spec.descriptor_dim)
    assert data.spec.descriptor_dim > 200
    again = load_rows(tmp_path, ROWS, descriptors="rdkit_2d", duplicates="drop")
    np.testing.assert_array_equal(again.descriptors, data.descriptors[[0, 2]])
    batch = again.batch([1])
    np.testing.assert_array_equal(batch.descriptors, data.descriptors[[2]])
    assert load_rows(tmp_path, ROWS).descriptors is None


def test_descriptors_of_a_file(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float64).reshape(6, 2)
    values[3, 0] = np.nan
    np.save(tmp_path / "f.npy", values)
    np.savez(tmp_path / "f.npz", other=np.zeros(3), features=values)
    for name in ("f.npy", "f.npz"):
        data = load_rows(tmp_path, ROWS, descriptors=str(tmp_path / name))
        assert data.descriptors is not None
        assert data.descriptors.tolist() == [[0, 1], [4, 5], [0, 7], [10, 11]]
        assert data.spec.descriptor_dim == 2
    np.save(tmp_path / "short.npy", values[:5])
    np.save(tmp_path / "words.npy", np.array([["a"]] * 6))
    np.save(tmp_path / "objects.npy", np.array([[None]] * 6), allow_pickle=True)
    (tmp_path / "text.npy").write_text("smiles")
    for name, message in {
        "short.npy": r"has the shape \(5, 2\); it needs 6 rows",
        "words.npy": "cannot be read .* give rdkit_2d, rdkit_2d_normalized, or an .npy",
        "objects.npy": "cannot be read",
        "text.npy": "cannot be read",
        "absent.npy": "cannot be read .*No such file",
    }.items():
        with pytest.raises(DataError, match=message):
            load_rows(tmp_path, ROWS, descriptors=str(tmp_path / name))


@needs_moleculenet
def test_what_compt_drops(tmp_path: Path) -> None:
    """CoMPT's release drops molecules of 100 atoms or more: 1,379 of Sider's 1,427 are left."""
    settings = {**dataset_settings(str(MOLECULENET))["sider"], "max_atoms": 99}
    assert len(load(settings, ChempropFeaturizer(), str(tmp_path))) == 1379
