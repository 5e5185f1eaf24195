"""molsam results: pack the runs of a sweep into one file, or unpack them into run folders."""

from __future__ import annotations

import argparse
from pathlib import Path

from molsam.errors import ConfigError


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `molsam results`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    pack = actions.add_parser("pack", help="write the finished runs of folders or packed files into one file")
    pack.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="a sweep's folder, or a packed file")
    pack.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.jsonl",
                      help="the file; runs that are already in it are kept")  # fmt: skip
    pack.add_argument("--sweep", metavar="NAME", help="store the runs as cells of this sweep")
    unpack = actions.add_parser("unpack", help="write a folder for every run, with result.json and metrics.jsonl")
    unpack.add_argument("file", type=Path, metavar="FILE.jsonl")
    unpack.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")


def run(args: argparse.Namespace) -> int:
    """Pack or unpack; return 1 if a damaged run was left out."""
    return _unpack(args) if args.action == "unpack" else _pack(args)


def _pack(args: argparse.Namespace) -> int:
    from molsam.report import packing

    for folder in args.folders:
        if not folder.exists():
            raise ConfigError(f"{folder} does not exist; give a sweep's folder, such as outputs/table3.")
    count, damaged = packing.pack(args.folders, args.output, args.sweep)
    for sentence in damaged:
        print(f"molsam: {sentence} It is left out.")
    size = args.output.stat().st_size
    print(f"{args.output}: {count} runs, {size / 1024:.0f} kB ({size / max(1, count) / 1024:.1f} kB per run)")
    return 1 if damaged else 0


def _unpack(args: argparse.Namespace) -> int:
    from molsam.report import packing

    if not args.file.is_file():
        raise ConfigError(f"{args.file} is not a file; give one that `molsam results pack` wrote.")
    count, damaged = packing.unpack(args.file, args.output)
    for sentence in damaged:
        print(f"molsam: {sentence} It is left out.")
    print(f"{count} runs in {args.output}")
    return 1 if damaged else 0
