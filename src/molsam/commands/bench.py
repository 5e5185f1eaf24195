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
    "training": "graphs/s of each model, the floor its matrix products set, where a step's time goes, peak memory",
    "features": "molecules/s of each model's featurizer, on one core",
    "start": "seconds of --help, and to the first step with a cold and a warm cache",
    "all": "the three above",
    "optimizers": "each optimizer beside Adam and SAM, and beside what its passes allow",
    "variants": "--variants, settings against each other",
    "kernels": "the compiled C beside torch alone",
    "workers": "one worker a core beside one worker with all cores",
    "size": "time and memory of a molecule of 10 to 490 atoms; --picture draws them",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `molsam bench`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "kinds:\n" + "\n".join(f"  {name:<11}{text}" for name, text in KINDS.items())
    parser.epilog += "\n\nMedians of interleaved rounds; spread is (largest - smallest) / median."
    parser.add_argument("kind", nargs="?", default="training", metavar="kind", help="see below (default: training)")
    parser.add_argument("--models", default="compt,grover,cmpnn,dmpnn,gcn,mpnn", help="comma-separated")
    parser.add_argument("--datasets", default=None, help="comma-separated (default: esol,bbbp, or bbbp alone)")
    parser.add_argument("--optimizers", default=None, help="comma-separated (default: all of conf/optimizer)")
    parser.add_argument(
        "--variants",
        default="training.precision=fp32,training.precision=bf16",
        help="comma-separated; several settings of one variant stand in quotes with blanks between them",
    )
    parser.add_argument(
        "--against",
        action="store_true",
        help="instead of `kind`: ours beside chemprop (dmpnn) and dgllife (gcn, mpnn), in an environment of their own",
    )
    parser.add_argument("--peers", type=Path, default=Path("outputs/.peers"), help="where that environment is or goes")
    parser.add_argument("--threads", type=int, default=None, help="torch threads (default: one a core)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds; medians are reported")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one measurement")
    parser.add_argument(
        "--no-memory", action="store_true", help="of `training`: spare the epoch that finds peak memory"
    )
    parser.add_argument("--picture", type=Path, default=None, help="of `size`: draw it into this PNG file")
    parser.add_argument("--json", type=Path, default=None, help="also write the rows to this file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings, as for training")


def run(args: argparse.Namespace) -> int:
    """Measure and print tables."""
    if "=" in args.kind:  # the kind was left out, and this is the first setting
        args.overrides, args.kind = [args.kind, *args.overrides], "training"
    if args.kind not in KINDS:
        raise ConfigError(f"molsam bench {args.kind} does not exist; choose one of {', '.join(KINDS)}.")
    if args.threads is not None:
        import torch

        torch.set_num_threads(args.threads)
    kind = "against" if args.against else args.kind
    found = {name: measure(name, args) for name in (["training", "features", "start"] if kind == "all" else [kind])}
    if args.json is not None:  # before anything is printed: who reads may stop early
        rows_of = {"rows": found[kind]} if kind in found else found
        write_atomic(args.json, (json.dumps({"kind": kind, **rows_of, **_machine()}, indent=1) + "\n").encode())
        print(f"written: {args.json}", file=sys.stderr)
    for name, rows in found.items():
        show(rows, f"molsam bench {name}")
    return 0


def measure(kind: str, args: argparse.Namespace) -> Rows:
    """The rows of one kind."""
    models = args.models.split(",")
    one, both = ((args.datasets or default).split(",") for default in ("bbbp", "esol,bbbp"))
    how = args.rounds, args.seconds, args.overrides
    if kind == "training":
        from molsam.bench.training import bench_training

        return bench_training(models, both, *how, memory=not args.no_memory)
    if kind == "against":
        from molsam.bench.peers import bench_against

        return bench_against(models, both, *how, args.peers)
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
    from molsam.bench.features import bench_features, bench_start

    if kind == "start":
        return bench_start(args.rounds)
    return [row for dataset in one for row in bench_features(models, dataset, args.rounds, args.overrides)]


def show(rows: Rows, title: str) -> None:
    """Print rows as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for name in rows[0]:
        table.add_column(name.replace("_", " "), justify="left" if isinstance(rows[0][name], str) else "right")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _cell(value: Any) -> str:
    """Three digits, and no exponents: 1,234, 12.3, 0.0123."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _machine() -> dict[str, Any]:
    import torch

    from molsam.runs import result

    return {"machine": result.machine(torch.get_num_threads(), "cpu"), "versions": result.versions()}
