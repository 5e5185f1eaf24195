"""Where the tests find reference material that is not part of the project."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
PATIENCE = 900.0
"""Seconds after which a test that waits for something gives up. It only ends a hang: no test measures time."""
GOLDEN = SHARED / "golden"
MOLECULENET = SHARED / "data" / "moleculenet"

needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden vectors (../shared/golden) are absent")
needs_moleculenet = pytest.mark.skipif(
    not MOLECULENET.is_dir(), reason="the MoleculeNet files (../shared/data/moleculenet) are absent"
)
