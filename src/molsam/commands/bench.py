"""molsam bench: throughput of models and optimizers, with the distance to the machine's limit."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from molsam.errors import ConfigError
from molsam.files import write_atomic

Rows = list[dict[str, Any]]
KINDS = {
    "training": "graphs/s of each model, the floor, the parts of a step, peak memory",
    "features": "molecules/s of each featurizer on one core",
    "start": "seconds to --help, and to the first step with and without cache",
    "all": "the three above",
    "optimizers": "each optimizer beside Adam, SAM and what its passes allow",
    "variants": "settings against each other (--variants)",
    "kernels": "with and without the compiled C",
    "workers": "one worker per core beside one worker with all cores",
    "size": "time and memory of molecules of 10 to 490 atoms (--picture)",
    "scale": "seconds and memory of tables of --molecules rows (--picture)",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `molsam bench`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "kinds:\n" + "\n".join(f"  {name:<11}{text}" for name, text in KINDS.items())
    parser.epilog += "\n\nNumbers are medians of interleaved rounds, spread (largest - smallest)/median."
    parser.epilog += "\nThe floor is the time that the matrix products of a step need at least."
    parser.add_argument("kind", nargs="?", default="training", metavar="kind", help="see below (default: training)")
    parser.add_argument("--models", default="compt,grover,cmpnn,dmpnn,gcn,mpnn", help="comma-separated")
    parser.add_argument("--datasets", default=None, help="comma-separated (default: esol,bbbp, or bbbp alone)")
    parser.add_argument("--optimizers", default=None, help="comma-separated (default: all of conf/optimizer)")
    parser.add_argument(
        "--variants",
        default="training.precision=fp32,training.precision=bf16",
        help="comma-separated; put several settings of one variant in quotes, separated by blanks",
    )
    parser.add_argument(
        "--against",
        action="store_true",
        help="compare with chemprop (dmpnn) and dgllife (gcn, mpnn), in an environment that molsam sets up",
    )
    parser.add_argument(
        "--peers",
        type=Path,
        default=Path("outputs/.peers"),
        help="with --against: the folder of that environment (default: outputs/.peers)",
    )
    parser.add_argument(
        "--device",
        default=None,
        help="train on this device, such as cuda: all models with Adam and GraphSAM, batches of 32 and 512; with "
        "--against, beside chemprop on it",
    )
    parser.add_argument("--threads", type=int, default=None, help="torch threads (default: one per core)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default: 5)")
    parser.add_argument(
        "--seconds", type=float, default=None, help="length of one measurement (default: 3, with --device 1)"
    )
    parser.add_argument("--no-memory", action="store_true", help="with training: do not measure peak memory")
    parser.add_argument("--picture", type=Path, default=None, help="with size and scale: the PNG file to draw")
    parser.add_argument(
        "--molecules", default="5000,20000,50000", help="with scale: rows of the tables, comma-separated"
    )
    parser.add_argument("--json", type=Path, default=None, help="also write the rows to this file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of the training")


def run(args: argparse.Namespace) -> int:
    """Measure and print tables."""
    if "=" in args.kind:  # the kind was left out, and this is the first setting
        args.overrides, args.kind = [args.kind, *args.overrides], "training"
    if args.kind not in KINDS:
        raise ConfigError(f"molsam bench {args.kind} does not exist; choose one of {', '.join(KINDS)}.")
    if args.threads is not None:
        import torch

        torch.set_num_threads(args.threads)
    if args.device is not None and args.kind != "training":
        raise ConfigError(f"--device {args.device} goes with training, not with {args.kind}; leave one of them out.")
    kind = "against" if args.against else "device" if args.device is not None else args.kind
    found = {name: measure(name, args) for name in (["training", "features", "start"] if kind == "all" else [kind])}
    if args.json is not None:  # written before printing, because the reader of a pipe may stop early
        rows_of = {"rows": found[kind]} if kind in found else found
        write_atomic(
            args.json,
            (json.dumps({"kind": kind, **rows_of, **_machine(args.device or "cpu")}, indent=1) + "\n").encode(),
        )
        print(f"written: {args.json}", file=sys.stderr)
    for name, rows in found.items():
        show(rows, f"molsam bench {name}")
    return 0


def measure(kind: str, args: argparse.Namespace) -> Rows:
    """Run one kind of benchmark and return its rows."""
    models = args.models.split(",")
    one, both = ((args.datasets or default).split(",") for default in ("bbbp", "esol,bbbp"))
    seconds = args.seconds if args.seconds is not None else 1.0 if args.device is not None else 3.0
    how = args.rounds, seconds, args.overrides
    if kind == "device":
        from molsam.bench.device import bench_device

        return bench_device(models, (args.datasets or "esol").split(",")[0], args.device, *how)
    if kind == "training":
        from molsam.bench.training import bench_training

        return bench_training(models, both, *how, memory=not args.no_memory)
    if kind == "against":
        from molsam.bench.peers import bench_against

        return bench_against(models, both, *how, args.peers, args.device or "cpu")
    if kind == "optimizers":
        from molsam.bench.optimizers import bench_optimizers
        from molsam.config.compose import conf_dir

        every = sorted(path.stem for path in (conf_dir() / "optimizer").glob("*.yaml"))
        names = args.optimizers.split(",") if args.optimizers else every
        return bench_optimizers(names, models, one[0], *how)
    if kind == "variants":
        from molsam.bench.training import bench_variants

        return bench_variants(models, both, args.variants.split(","), *how)
    if kind == "kernels":
        from molsam.bench.training import bench_kernels

        return bench_kernels(models, both, *how)
    if kind == "workers":
        from molsam.bench.workers import bench_workers

        return bench_workers(models, one, *how)
    if kind == "size":
        from molsam.bench.size import bench_size

        return bench_size(models, *how, args.picture)
    if kind == "scale":
        from molsam.bench.scale import bench_scale

        return bench_scale(models[0], _counts(args.molecules), args.overrides, args.picture)
    from molsam.bench.features import bench_features, bench_start

    if kind == "start":
        return bench_start(args.rounds)
    return [row for dataset in one for row in bench_features(models, dataset, args.rounds, args.overrides)]


def _counts(text: str) -> list[int]:
    counts = [int(part) if part.strip().isdecimal() else 0 for part in text.split(",")]
    if min(counts) < 1:
        raise ConfigError(f"--molecules {text} is not a list of numbers of rows; give some such as 5000,20000.")
    return counts


def show(rows: Rows, title: str) -> None:
    """Print rows as a table, whose columns are as narrow as their cells; a word that all rows share is in the title."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from molsam import terminal

    shared = [name for name, value in rows[0].items() if isinstance(value, str) and _shared(rows, name)]
    table = Table(
        title=", ".join([title, *(rows[0][name] for name in shared)]),
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for name in rows[0]:
        if name not in shared:
            words = name.replace("_", " ")
            width = max(map(len, [*words.split(), *(_cell(row[name]) for row in rows)]))
            table.add_column(words, justify="left" if isinstance(rows[0][name], str) else "right", min_width=width)
    for row in rows:
        table.add_row(*(_cell(value) for name, value in row.items() if name not in shared))
    console = terminal.console()
    if not sys.stdout.isatty():
        console.width = 160
    console.print(table)


def _shared(rows: Rows, name: str) -> bool:
    return len(rows) > 1 and all(row.get(name) == rows[0][name] for row in rows)


def _cell(value: Any) -> str:
    """Return a number with three digits and without an exponent: 1,234, 12.3, 0.0123."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _machine(device: str) -> dict[str, Any]:
    import torch

    from molsam.runs import result

    return {"machine": result.machine(torch.get_num_threads(), device), "versions": result.versions()}
