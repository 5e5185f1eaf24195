"""molsam dashboard: compare runs in a browser."""

from __future__ import annotations

import argparse
from pathlib import Path

from molsam import terminal
from molsam.config.command import training
from molsam.errors import ConfigError
from molsam.files import write_atomic
from molsam.report.dashboard.collect import Collector, relative_link
from molsam.report.dashboard.page import build
from molsam.report.dashboard.sweeps import Study


def study(folder: Path) -> Study:
    """Return the study in a sweep's folder."""
    from molsam.sweeping.trials import Progress

    return Progress(folder)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `molsam dashboard`."""
    parser.add_argument("folders", nargs="*", type=Path, default=[Path("outputs")], metavar="FOLDER",
                        help="folders with sweeps or runs, or packed files (default: outputs)")  # fmt: skip
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="the page to write (default: FOLDER/dashboard.html)"
    )
    parser.add_argument(
        "--serve",
        action="store_true",
        help="show runs while they train, at an address on this machine; Ctrl-C stops it",
    )
    parser.add_argument(
        "--port", type=int, default=8642, help="with --serve: the port; 0 takes any free one (default: 8642)"
    )
    parser.add_argument("--wandb", metavar="ENTITY/PROJECT",
                        help="build a Weights & Biases report instead (needs the extra wandb-workspaces)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Write the page, serve it, or build the W&B report."""
    if args.wandb:
        from molsam.report.dashboard.wandb_report import publish

        return publish(args.wandb)
    missing = [path for path in args.folders if not path.exists() or (args.serve and not path.is_dir())]
    if missing:
        raise ConfigError(f"{missing[0]} is not a folder; give the folder of a sweep or of runs, such as outputs.")
    if args.serve:
        from molsam.report.dashboard.serve import serve

        serve(args.folders, args.port, study)
        return 0
    first = args.folders[0]
    output = args.output or (first if first.is_dir() else first.parent) / "dashboard.html"
    collector = Collector(args.folders, relative_link(output.parent), study)
    data = collector.collect()
    for sentence in collector.damaged.values():
        terminal.complain(f"{sentence} It is left out.")
    if not data["runs"]:
        print(
            f"There are no {'other ' if collector.damaged else ''}runs under "
            f"{', '.join(map(str, args.folders))} yet: {training()} makes one."
        )
        return 1
    page = build(data).encode()
    write_atomic(output, page)
    print(f"{len(data['runs'])} runs, {len(page) / 1e6:.1f} MB: open {output} in a browser.")
    return 0
