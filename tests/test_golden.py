"""molsam equals every golden file, and the driver's exit code says so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from molsam.data import packed
from tests import golden
from tests.goldens import common
from tests.paths import GOLDEN, ROOT, needs_golden

ILL_CONDITIONED = {("mean_relu_bias_feats", "train/gradients")}
"""the one result of all files that may miss 1e-5 in float32: see tests/goldens/grover.py"""

MERGING = ("grover.npz", "cmpnn.npz", "dmpnn.npz")


def _variants() -> list[tuple[str, str]]:
    return [(path.name, v) for path in sorted(GOLDEN.glob("*.npz")) for v in common.variants(golden.open_golden(path))]


@needs_golden
@pytest.mark.parametrize(("name", "variant"), _variants())
def test_equals_golden(name: str, variant: str) -> None:
    results = list(golden.comparisons(golden.open_golden(GOLDEN / name), variant))
    assert results
    assert not [r for r in results if not r.passed]
    beyond = {(variant, r.kind) for r in results if r.error > common.MODEL_TOLERANCE[torch.float32]}
    assert beyond <= ILL_CONDITIONED


@needs_golden
@pytest.mark.parametrize(("name", "variant"), [v for v in _variants() if v[0] in MERGING])
def test_equals_golden_where_equal_states_are_computed_once(
    name: str, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So few molecules would keep a row for each atom."""
    monkeypatch.setattr(packed, "FEW", 0.5)
    assert not [r for r in golden.comparisons(golden.open_golden(GOLDEN / name), variant) if not r.passed]


@needs_golden
def test_driver_from_another_directory(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tests" / "golden.py")]
    run = subprocess.run([*command, str(GOLDEN / "gcn.npz")], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "canonical_selfloop" in run.stdout


@needs_golden
def test_driver_finds_a_wrong_number_under_any_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for key, kind in [
        ("canonical_selfloop/out/single", "outputs/single"),
        ("canonical_selfloop/feat/3/h", "features"),
        ("canonical_selfloop/grad/predict.predict.1.bias", "gradients"),
    ]:
        content = dict(golden.open_golden(GOLDEN / "gcn.npz"))
        wrong = content[key].copy()
        wrong.flat[0] += 1e-6 * (1 + abs(wrong).max())
        np.savez(tmp_path / "renamed.npz", **content | {key: wrong})
        assert golden.main([str(tmp_path / "renamed.npz")]) == 1
        failed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.endswith("FAILED")]
        assert kind in failed


def test_driver_refuses_what_is_not_golden(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.npz").write_text("no archive")
    np.save(tmp_path / "array.npy", np.zeros(3))
    np.savez(tmp_path / "pickled.npz", variants=np.array([{}], dtype=object))
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    config = json.dumps({"unheard": 1})
    np.savez(tmp_path / "unknown.npz", variants=np.array('["a"]'), **{"a/config": np.array(config)})
    np.savez(tmp_path / "incomplete.npz", variants=np.array('["a"]'))
    names = [
        "absent.npz",
        "text.npz",
        "array.npy",
        "pickled.npz",
        "other.npz",
        "unknown.npz",
        "incomplete.npz",
    ]
    for name in names:
        assert golden.main([str(tmp_path / name)]) == 2, name
        assert name in capsys.readouterr().err
    assert golden.main([]) == 2


@needs_golden
@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("canonical_selfloop/out/single", "canonical_selfloop/out/single is not a file in the archive"),
        ("canonical_selfloop/param/gnn.gnn_layers.0.graph_conv.bias", "its weights are not those of the model"),
        ("canonical_selfloop/grad/", "it holds no canonical_selfloop/grad/*"),
        ("canonical_selfloop/config:gnn_norm", "no module of tests/goldens knows a config"),
        ("canonical_selfloop/config:residual", "its config has no 'residual'"),
    ],
)
def test_driver_names_what_is_missing(tmp_path: Path, capfd: pytest.CaptureFixture[str], key: str, reason: str) -> None:
    """In one sentence, with exit code 2; the other variant is compared all the same."""
    content = dict(golden.open_golden(GOLDEN / "gcn.npz"))
    name, _, setting = key.partition(":")
    if setting:
        config = json.loads(str(content[name]))
        del config[setting]
        content[name] = np.array(json.dumps(config))
    else:
        content = {k: v for k, v in content.items() if not k.startswith(name)}
    np.savez(tmp_path / "partial.npz", **content)
    assert golden.main([str(tmp_path / "partial.npz")]) == 2
    out, err = capfd.readouterr()
    assert reason in err
    assert len(err.splitlines()) == 1
    assert "attentivefp_both_noloop" in out
    assert "canonical_selfloop" not in out


def test_relative_error_counts_what_is_missing_or_not_a_number() -> None:
    one = np.ones(3)
    assert common.relative_error(one, one[:2]) == float("inf")
    assert np.isnan(common.relative_error(one * np.nan, one))
    assert common.relative_errors({}, {"a": one}) == 1.0
    assert common.relative_errors({"a": one, "b": one}, {"a": one}) == pytest.approx(1 / common.FLOOR)
    assert np.isnan(common.relative_errors({"a": one, "b": one * np.nan}, {"a": one, "b": one}))
    tiny = {"a": one, "b": np.full(3, 1e-9)}
    assert common.relative_errors({"a": one, "b": np.full(3, 2e-9)}, tiny) == pytest.approx(1e-9 / common.FLOOR)


def test_ten_roundings_of_the_weights_say_what_float32_can_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest movement counts, whichever draw has it: with one draw a file would pass or fail by luck."""

    class File:
        files: ClassVar = ["variants", "v/config", "v/param/w"]

        def __getitem__(self, name: str) -> np.ndarray:
            return {"variants": np.array('["v"]'), "v/config": np.array("{}")}.get(name, np.ones(4))

    drawn: list[tuple[float, ...]] = []

    def compare(z: common.Golden, variant: str, dtype: torch.dtype) -> dict[str, float]:
        if not isinstance(z, common.RoundedWeights):
            return {"outputs": 0.0 if dtype == torch.float64 else 2e-4}
        drawn.append(tuple(z["v/param/w"].tolist()))
        assert all(0 < abs(w - 1) <= 2**-24 for w in drawn[-1])
        return {"outputs": 1e-5 if len(drawn) == 7 else 1e-9}

    monkeypatch.setattr(golden, "_compare", lambda config: compare)
    found = [r for r in golden.comparisons(File(), "v") if r.dtype == torch.float32]
    assert len(set(drawn)) == len(drawn) == 10
    assert [(r.passed, r.tolerance) for r in found] == [(True, 30 * 1e-5)]
