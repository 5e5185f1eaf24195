"""Compare molsam with golden files: `python tests/golden.py FILE...`

Prints, per file and variant, the largest relative error of features, outputs, gradients or weights.
Exit code 0 if all are within tolerance (tests/goldens/common.py states them), 1 if not, 2 if a file is not of
the format.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from numpy.lib.npyio import NpzFile

from molsam.errors import MolsamError
from tests import goldens
from tests.goldens import common

REFUSALS = (common.FormatError, MolsamError, ValueError, zipfile.BadZipFile, zlib.error, EOFError)
"""what reading a file that is damaged or of another format raises"""


class Comparison(NamedTuple):
    """The largest relative error of one kind in one variant and precision."""

    variant: str
    kind: str
    dtype: torch.dtype
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance  # False for NaN


def adapters() -> list[ModuleType]:
    """Every module of tests/goldens that can compare something."""
    found = [importlib.import_module(f"{goldens.__name__}.{m.name}") for m in pkgutil.iter_modules(goldens.__path__)]
    return [module for module in found if hasattr(module, "matches")]


def open_golden(path: str | Path) -> NpzFile:
    """The archive; raises FormatError if it cannot be read as one without pickles."""
    try:
        z = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise common.FormatError(f"it cannot be read as an npz archive ({error})") from error
    if not isinstance(z, NpzFile):
        raise common.FormatError("it is a single array, not an npz archive")
    return z


def comparisons(z: common.Golden, variant: str) -> Iterator[Comparison]:
    """Compare one variant in the precisions that apply; raises FormatError if it has not what it should."""
    try:
        trajectory = common.is_trajectory(z)
        compare = _compare(common.load_config(z, variant))
        for dtype in [torch.float64] if trajectory else [torch.float64, torch.float32]:
            results = compare(z, variant, dtype)
            limits = {kind: common.tolerance(kind, variant, dtype, trajectory) for kind in results}
            if dtype == torch.float32 and any(results[kind] > limit > 0 for kind, limit in limits.items()):
                roundings = [common.RoundedWeights(z, draw) for draw in range(common.DRAWS)]
                moved = [compare(rounded, variant, torch.float64) for rounded in roundings]
                for kind, limit in limits.items():
                    limits[kind] = max(limit, common.ROUNDINGS * common.max_error(*(one[kind] for one in moved)))
            for kind, error in results.items():
                yield Comparison(variant, kind, dtype, float(error), limits[kind])
    except KeyError as error:
        if "archive" not in str(error):
            raise
        raise common.FormatError(str(error.args[0])) from error


def main(paths: list[str]) -> int:
    """Compare every file, print the tables, return the exit code."""
    if not paths or any(path.startswith("-") for path in paths):
        print((__doc__ or "").strip(), file=sys.stderr)
        return 2
    return max(_report(path) for path in paths)


def _compare(config: dict) -> Callable[[common.Golden, str, torch.dtype], dict[str, float]]:
    for module in adapters():
        if module.matches(config):
            return module.compare
    raise common.FormatError(f"no module of tests/goldens knows a config with the keys {sorted(config)}")


def _report(path: str) -> int:
    try:
        z = open_golden(path)
        return max(_report_variant(path, z, variant) for variant in common.variants(z))
    except REFUSALS as error:
        print(f"{path} is not a golden file: {error}", file=sys.stderr)
        return 2


def _report_variant(path: str, z: common.Golden, variant: str) -> int:
    try:
        results = list(comparisons(z, variant))
    except REFUSALS as error:
        print(f"{path} cannot be compared, variant {variant}: {error}", file=sys.stderr)
        return 2
    print(f"{path}  {variant}")
    for r in results:
        limit = f"<= {r.tolerance:.0e}" + ("" if r.passed else "  FAILED")
        print(f"  {r.kind:<30}{str(r.dtype).removeprefix('torch.'):<9}{r.error:<9.1e}{limit}")
    return int(not all(r.passed for r in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
