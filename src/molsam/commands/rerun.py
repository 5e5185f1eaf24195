"""molsam rerun: train a finished run again from its record, and compare the metrics."""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from molsam.errors import StorageError, counted

COMPARED = ("best_epoch", "epochs", "steps", "gradient_passes", "valid", "test", "test_per_task", "gradients")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `molsam rerun`."""
    parser.add_argument("folder", type=Path, help="the folder of a finished run; each of its folds is trained")
    parser.add_argument(
        "--config-dir", type=Path, help="a folder of your own metrics, as for molsam train, if the run has some"
    )
    parser.add_argument("-o", "--output", type=Path, help="where the new run goes (default: a temporary folder)")


def run(args: argparse.Namespace) -> int:
    """Return 0 if all numbers agree bit for bit; else print the largest difference and return 1."""
    from molsam.config.compose import own_folder

    own_folder(args.config_dir)
    folders = sorted(path.parent for path in args.folder.glob("fold*/result.json")) or [args.folder]
    with tempfile.TemporaryDirectory(prefix="molsam-rerun-") as temporary:
        root = args.output or Path(temporary) / "run"
        agree = [_again(folder, root / folder.name if len(folders) > 1 else root) for folder in folders]
    return 0 if all(agree) else 1


def _again(folder: Path, place: Path) -> bool:
    """Train the run of a folder again, print the comparison, and return whether all numbers agree."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from molsam.config import identity
    from molsam.runs import result
    from molsam.runs.folder import recorded
    from molsam.wiring import baseline
    from molsam.wiring.run import start

    old = result.read(folder)
    if old is None:
        raise StorageError(f"{folder} has no result.json; give the folder of a finished run.")
    try:
        cfg = recorded(OmegaConf.create(old["config"]))
        # These settings cannot change a number. Nothing of the first run is overwritten or uploaded again.
        cfg.resume, cfg.logger = None, {"kind": "none"}
        versions, split = dict(old["versions"]), old["split"]["hash"]
        before = identity.stored(old)
        machine = dict(old["machine"])
        processor = machine["processor"]
        threads = cfg.training.threads = cfg.training.threads or machine["threads"]
    except (LookupError, TypeError, ValueError, AttributeError, OmegaConfBaseException) as error:
        raise StorageError(f"{folder / result.NAME} is damaged ({error}); give another run folder.") from error
    (baseline.start if baseline.is_baseline(cfg) else start)(cfg, place, [])
    new = result.read(place)
    assert new is not None
    worst, where = difference(old, new)
    if not worst:
        print(f"{folder}: the metrics agree to the bit ({counted(threads, 'thread')}).")
        return True
    reasons = [f"{k} {v} -> {new['versions'].get(k)}" for k, v in versions.items() if new["versions"].get(k) != v]
    reasons += identity.differences(before, identity.stored(new))
    if unknown := sorted(old["test"].keys() - new["test"].keys()):
        reasons.append(f"the metric {', '.join(unknown)} is not known (--config-dir names the folder of your own)")
    if new["split"]["hash"] != split:
        reasons.append("the split")
    if processor != new["machine"]["processor"]:
        reasons.append("another processor")
    if machine.get("kernels") != new["machine"]["kernels"]:
        reasons.append(f"kernels {machine.get('kernels', 'none')} -> {new['machine']['kernels']}")
    size = (
        "is not a number on one side"
        if math.isinf(worst)
        else f"agrees to a relative {worst:.1e}, the others are closer"
    )
    print(f"{folder}: {where} {size}. Changed since: {', '.join(reasons) or 'nothing that is recorded'}.")
    return False


def difference(old: dict[str, Any], new: dict[str, Any]) -> tuple[float, str]:
    """Return the largest relative difference between two results' numbers, and its name.

    It is infinite if one of the results lacks a number.
    """
    worst, where = 0.0, ""
    theirs = dict(_numbers({key: new.get(key) for key in COMPARED}))
    ours = dict(_numbers({key: old.get(key) for key in COMPARED}))
    for name in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get(name), theirs.get(name)
        if a == b:
            continue
        apart = math.inf if a is None or b is None else abs(a - b) / max(abs(a), abs(b))
        if apart > worst:
            worst, where = apart, name
    return worst, where


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Yield the path and value of every number in a tree."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _numbers(item, f"{name} {key}".strip())
    if isinstance(value, (int, float)):
        yield name, float(value)
