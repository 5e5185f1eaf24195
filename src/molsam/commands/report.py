"""molsam report: our tables beside the paper's."""

from __future__ import annotations

import argparse
from pathlib import Path

from molsam import terminal as screen
from molsam.config.command import program, shell
from molsam.errors import ConfigError
from molsam.files import write_atomic

SCORES = {"best": "score", "late": "late"}
"""Value of --score -> column of the table."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `molsam report`."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--table", metavar="N", help="a table's number, the name of a sweep file, or of a search: 3, fig7, table3"
    )
    what.add_argument("--all", action="store_true", help="the state of every table and figure")
    what.add_argument("--claims", action="store_true", help="every claim of the paper, with our verdict")
    parser.add_argument("changes", nargs="*", metavar="sweeps.KEY=VALUE",
                        help="the choices that the sweep was run with, such as "
                             "sweeps.datasets=[esol] sweeps.folds=3")  # fmt: skip
    parser.add_argument("--outputs", nargs="+", default=["outputs"], metavar="FOLDER",
                        help="folders or packed files with the runs (default: outputs)")  # fmt: skip
    parser.add_argument("--to", type=Path, default=Path("outputs/reports"), metavar="FOLDER",
                        help="the folder for Markdown, CSV, LaTeX and pictures (default: outputs/reports)")  # fmt: skip
    parser.add_argument("--figures", type=Path, default=Path("figures"), metavar="FOLDER",
                        help="with --all: the folder that `molsam figure` wrote to (default: figures)")  # fmt: skip
    parser.add_argument("--score", choices=list(SCORES), default="best",
                        help="best: at the epoch best on validation (default); late: mean "
                             "of the last fifth of the epochs")  # fmt: skip
    parser.add_argument("--smoke", action="store_true",
                        help="show only the runs of smoke=true")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Print and write the report; return 0 if every cell is done, else 1."""
    from molsam.report import frame

    _sort(args)
    if args.table is None and args.changes:
        raise ConfigError(
            f"{args.changes[0]} needs --table, because --all and --claims show every sweep as in its sweep file; leave "
            "it out, or use --table."
        )
    runs, damaged = frame.load(args.outputs)
    for sentence in damaged:
        screen.complain(f"{sentence} It is left out.")
    return _overview(args, runs) if args.all else _claims(args, runs) if args.claims else _table(args, runs)


def _sort(args: argparse.Namespace) -> None:
    """Move settings that were given after --outputs to the settings, and check that the folders exist."""
    settings = [name for name in args.outputs if name.startswith(("sweeps.", "smoke=")) and "=" in name]
    args.outputs = [Path(name) for name in args.outputs if name not in settings]
    given = [*args.changes, *settings]
    args.smoke |= "smoke=true" in given
    args.changes = [change for change in given if change != "smoke=true"]
    for folder in args.outputs:
        if not folder.exists() and folder != Path("outputs"):
            raise ConfigError(
                f"--outputs {folder} does not exist; give the folder that contains the sweep's folder, or a packed "
                "file."
            )


def _table(args: argparse.Namespace, runs: object) -> int:
    from molsam.report import console, pair_picture, picture, render, specs, table, verdicts

    if args.table not in specs.names() and (own := _own_search(args.outputs, args.table)):
        return _search(args, args.table, args.table, own)
    spec = specs.load(args.table, tuple(args.changes), smoke=args.smoke)
    if spec.trials is not None:
        return _search(args, spec.folder, spec.title, spec.trials)
    built = table.build(spec, runs, SCORES[args.score])  # type: ignore[arg-type]
    checks = verdicts.check(built)
    stem = args.to / (spec.folder + ("" if args.score == "best" else f"-{args.score}"))
    for suffix, text in (
        ("md", render.markdown(built, checks)),
        ("csv", render.comma_separated(built)),
        ("tex", render.latex(built)),
        ("json", render.as_json(built, checks)),
    ):
        write_atomic(stem.with_name(f"{stem.name}.{suffix}"), text.encode())
    picture.save(built, stem)
    pair_picture.save(built, stem.with_name(f"{stem.name}-pairs"))
    # Printed last, after the files are written, because the reader of a pipe may stop early (`| head`).
    written = f"written: {stem}.md, .csv, .tex, .json, .png, .svg, -pairs.png"
    console.show([*render.terminal(built, checks), screen.text(written)], [spec.command, written])
    return 0 if built.complete else 1


def _own_search(outputs: list[Path], name: str) -> int | None:
    """Return how many trials a search without a sweep file will have; None if there is none of this name.

    Raises ConfigError for a grid.
    """
    from molsam.sweeping import trials

    for place in (root / name for root in outputs if Path(name).name == name):
        if any((place / file).is_file() for file in (trials.FILE, trials.JOURNAL)):
            found = trials.read(place)
            if any(len(trial) > len(trials.HEAD) for trial in found.trials):
                return found.total or len(found.trials)
            raise ConfigError(
                f"{place} is a grid without a sweep file, so it has no table; compare its runs with "
                f"{program()} dashboard {shell([str(place)])}."
            )
    return None


def _search(args: argparse.Namespace, folder: str, title: str, total: int) -> int:
    from molsam.report import console, search
    from molsam.sweeping import trials

    places = [root / folder for root in args.outputs]
    found = trials.read(next((place for place in places if (place / trials.FILE).is_file()), places[0]))
    over, total = sum(trial["state"] in ("complete", "pruned") for trial in found.trials), found.total or total
    head = f"{title}: {over} of {total} trials, {found.direction}d"
    stem = args.to / folder
    for suffix, text in (
        ("md", search.markdown(head, found.trials, found.importances)),
        ("csv", search.comma_separated(found.trials)),
        ("json", search.as_json(head, found.trials, found.importances)),
    ):
        write_atomic(stem.with_name(f"{folder}.{suffix}"), text.encode())
    written = f"written: {stem}.md, .csv, .json"
    console.show([*search.terminal(head, found.trials, found.importances), screen.text(written)], [written])
    return 0 if over >= total else 1


def _claims(args: argparse.Namespace, runs: object) -> int:
    from molsam.report import claims, console

    found = claims.find(runs)  # type: ignore[arg-type]
    for suffix, form in claims.FORMS.items():
        write_atomic(args.to / f"claims.{suffix}", form(found).encode())
    written = f"written: {args.to}/claims.md, .csv, .tex, .json, .html"
    console.show([*claims.terminal(found), screen.text(written)], [written])
    return 0 if all(one.check.estimate.mean is not None for one in found) else 1


def _overview(args: argparse.Namespace, runs: object) -> int:
    from molsam.report import console, overview

    found = overview.states(runs, args.outputs, args.figures, smoke=args.smoke)  # type: ignore[arg-type]
    path = args.to / ("all-smoke.md" if args.smoke else "all.md")
    write_atomic(path, overview.markdown(found, smoke=args.smoke).encode())
    written = f"written: {path}"
    console.show([*overview.terminal(found, smoke=args.smoke), screen.text(written)], [written])
    return 0 if all(state.complete for state in found) else 1
