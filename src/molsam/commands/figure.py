"""molsam figure: the paper's figures from stored runs."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import yaml

from molsam import terminal
from molsam.config.command import TYPED, program, shell, train_arguments, training
from molsam.config.identity import NEUTRAL
from molsam.errors import ConfigError, MolsamError
from molsam.files import write_json
from molsam.report.figures import drawing, select, style
from molsam.report.figures.recipes import RECIPES
from molsam.report.stored import StoredRun, find_runs

OUTPUTS = Path("outputs")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `molsam figure`."""
    numbers = ", ".join(RECIPES)
    parser.add_argument("figures", nargs="+", metavar="N", help=f"the figures: {numbers}, or all")
    parser.add_argument("--runs", nargs="+", type=Path, default=[OUTPUTS], metavar="FOLDER",
                        help="folders with the runs (default: outputs)")  # fmt: skip
    parser.add_argument("-o", "--output", type=Path, default=Path("figures"), metavar="FOLDER",
                        help="the folder for figureN.png, .svg and .json (default: figures)")  # fmt: skip
    parser.add_argument("--datasets", type=_names, metavar="A,B", help="datasets other than the paper's")
    parser.add_argument("--models", type=_names, metavar="A,B", help="models other than the paper's")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE",
                        help="with --make: settings of the runs")  # fmt: skip
    parser.add_argument("--make", action="store_true", help="train the runs that are missing, then draw")


def run(args: argparse.Namespace) -> int:
    """Draw the figures; return 1 if runs are missing for one of them."""
    code = 0
    for name in _wanted(args.figures):
        try:
            _draw(name, args)
        except drawing.MissingRuns as missing:
            if not args.make:
                terminal.complain(f"Figure {name}: {_remedy(name, missing, args)}")
                code = missing.exit_code
                continue
            _make(name, args)
            _draw(name, args)
    return code


def _wanted(figures: list[str]) -> list[str]:
    names = [name for figure in figures for name in (RECIPES if figure == "all" else _parts(figure))]
    return list(dict.fromkeys(names))


def _parts(figure: str) -> list[str]:
    """Return the parts of a figure: 3 is 3a, 3b and 3c."""
    names = [name for name in RECIPES if figure in (name, name.rstrip("abc"))]
    if not names:
        raise ConfigError(f"There is no figure {figure!r}; the figures are {', '.join(RECIPES)}, or all.")
    return names


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _draw(name: str, args: argparse.Namespace) -> None:
    recipe = RECIPES[name]
    roots = [root for root in args.runs if root.is_dir()]
    models, datasets = args.models or recipe.models, args.datasets or recipe.datasets
    with style.styled():
        drawn = recipe.draw(drawing.Request(_asked_for(find_runs(roots), args.set), models, datasets))
        paths = style.save(drawn.figure, args.output / f"figure{name}")
    facts = {"figure": name, "title": recipe.title, "caption": drawn.caption, "numbers": drawn.numbers}
    write_json(args.output / f"figure{name}.json", facts)
    print(f"Figure {name}: {recipe.title}. {drawn.caption}")
    print("  " + ", ".join(str(path) for path in paths))


def _asked_for(runs: list[StoredRun], settings: list[str]) -> list[StoredRun]:
    """Return the runs with the settings of `--set`; without smoke=true among them, no smoke runs."""
    asked = [text.lstrip("+").partition("=") for text in settings]
    smoke = any(key == "smoke" and text == "true" for key, _, text in asked)
    found = [run for run in runs if run.smoke == smoke]
    for key, _, text in asked:
        if key.split(".")[0] in (*NEUTRAL, "split") or "," in text:
            continue
        value = yaml.safe_load(text)
        found = [run for run in found if select.agrees(run, key, value) or run.setting(f"choices.{key}") == value]
    return found


def _overrides(name: str, args: argparse.Namespace) -> list[str]:
    """Return the overrides that train the runs of a figure. Used again, they continue where they stopped."""
    recipe = RECIPES[name]
    if recipe.sweep is not None:
        named = (("model", args.models), ("dataset", args.datasets))
        chosen = [f"{key}={','.join(names)}" for key, names in named if names]
        outputs = [] if args.runs[0] == OUTPUTS else [f"paths.outputs={args.runs[0]}"]
        return ["--multirun", f"sweeps={recipe.sweep}", *chosen, *args.set, *outputs]
    models, datasets = args.models or recipe.models, args.datasets or recipe.datasets
    fold = [] if any(text.startswith("split.") for text in args.set) else ["split.fold=0"]
    return [
        "--multirun", f"model={','.join(models)}", f"dataset={','.join(datasets)}", *recipe.make, *fold, *args.set,
        f"hydra.sweep.dir={args.runs[0]}/figure{name}",
    ]  # fmt: skip


def _remedy(name: str, missing: drawing.MissingRuns, args: argparse.Namespace) -> str:
    line = f"{training()} {shell(_overrides(name, args))}"
    return f"{missing}; train what is missing with `{line}`, or add --make to this command."


def _make(name: str, args: argparse.Namespace) -> None:
    overrides = _overrides(name, args)
    print(f"Figure {name}: {training()} {shell(overrides)}", file=sys.stderr)
    typed = {**os.environ, TYPED: program()}
    code = subprocess.run([*train_arguments(), *overrides], check=False, env=typed).returncode
    if code:
        raise TrainingFailed(
            f"Training the runs of Figure {name} ended with exit code {code} (see above); solve that, then run the "
            "same command again: finished runs are kept."
        )


class TrainingFailed(MolsamError):  # noqa: N818 - reads as the sentence it raises
    """The runs of a figure could not be trained."""

    exit_code = 1
