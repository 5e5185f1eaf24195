"""torch alone computes what C computes: the tests of both run again in processes without the kernels."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.paths import ROOT

LAYERS = ("layers", "gru", "message_graph", "compt_fused", "grover_parts")
MODELS = ("compt", "cmpnn", "dmpnn", "gcn", "grover")
GROUPS = {
    "parts": [
        *(f"tests/optim/test_{name}.py" for name in ("adam", "vector", "companion")),
        *(f"tests/models/test_{name}.py" for name in LAYERS),
    ],
    "models": [f"tests/models/test_{name}.py" for name in MODELS],
    "goldens": ["tests/test_golden.py", "-k", "test_equals_golden and not once"],
}


@pytest.mark.parametrize("group", [pytest.param(g, marks=pytest.mark.slow) if g != "parts" else g for g in GROUPS])
def test_holds_for_torch_alone(group: str) -> None:
    if os.environ.get("MOLSAM_KERNELS") == "torch":
        pytest.skip("this process is one without the kernels")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *GROUPS[group]]
    run = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "MOLSAM_KERNELS": "torch"}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout[-3000:]
