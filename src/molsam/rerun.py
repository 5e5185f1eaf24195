"""molsam rerun: train a finished run again from its record and say whether the metrics agree."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from molsam.errors import StorageError


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `molsam rerun`."""
    parser.add_argument("folder", type=Path, help="a finished run folder")
    parser.add_argument("-o", "--output", type=Path, help="where the new run goes (default: a temporary folder)")


def run(args: argparse.Namespace) -> int:
    """0 if every metric agrees to the bit, 1 if not (with the largest difference)."""
    from omegaconf import OmegaConf

    from molsam import result
    from molsam.run import start

    old = result.read(args.folder)
    if old is None:
        raise StorageError(f"{args.folder} holds no result.json; give the folder of a finished run.")
    cfg = OmegaConf.create(old["config"])
    with tempfile.TemporaryDirectory(prefix="molsam-rerun-") as temporary:
        folder = args.output or Path(temporary) / "run"
        start(cfg, folder, [])
        new = result.read(folder)
    assert new is not None
    worst, where = 0.0, ""
    for part in ("valid", "test"):
        for name, value in old[part].items():
            difference = abs((value or 0.0) - (new[part][name] or 0.0))
            if difference >= worst:
                worst, where = difference, f"{part} {name}"
    if worst == 0:
        print("The metrics agree to the bit.")
        return 0
    changed = [
        f"{k} {v} -> {new['versions'].get(k)}" for k, v in old["versions"].items() if new["versions"].get(k) != v
    ]
    print(f"The largest difference is {worst:.3g} ({where}). Changed versions: {', '.join(changed) or 'none'}.")
    return 1
