"""molsam baseline: a random forest on Morgan fingerprints, on the same rows, split and metrics as a graph model."""

from __future__ import annotations

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `molsam baseline`."""
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE",
                        help="settings as for molsam train: dataset=csv "
                             "dataset.path=assay.csv split=scaffold seed=1")  # fmt: skip
    parser.add_argument(
        "--config-dir", type=Path, help="a folder of your own datasets and metrics, as for molsam train"
    )
    parser.add_argument("--trees", type=int, default=100, help="number of trees of a forest (default: 100)")


def run(args: argparse.Namespace) -> int:
    """Fit the forests and write a run folder."""
    from molsam.runs.folder import choose
    from molsam.wiring import baseline, identify
    from molsam.wiring.run import draw

    cfg = baseline.settings(args.overrides, args.trees, args.config_dir)
    named = [word.split("=", 1)[1] for word in args.overrides if word.startswith("hydra.run.dir=")]
    folder = Path(named[-1]) if named else choose(cfg, identify.of)
    baseline.start(cfg, folder, args.overrides)
    if cfg.get("pictures") is not False:
        draw(folder)
    return 0
