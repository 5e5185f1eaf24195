"""The `molsam` command. Training is a Hydra application; argparse parses the other commands."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from molsam import __version__, terminal
from molsam.config.command import program, training
from molsam.errors import MolsamError, StorageError

COMMANDS = {
    "data": ("molsam.commands.data", "list, download and check datasets"),
    "baseline": ("molsam.commands.baseline", "fit a random forest on fingerprints, on the split of a run"),
    "predict": ("molsam.commands.predict", "predict a table of molecules with a trained model"),
    "embed": ("molsam.commands.embed", "write the vectors that a trained model computes for molecules"),
    "explain": ("molsam.commands.explain", "show which atoms raise or lower a prediction"),
    "rerun": ("molsam.commands.rerun", "train a finished run again and compare the results"),
    "report": ("molsam.commands.report", "print our tables beside the paper's"),
    "results": ("molsam.commands.results", "pack the runs of a sweep into one file"),
    "campaign": ("molsam.commands.campaign", "run everything that tests the paper's claims, at the lowest priority"),
    "figure": ("molsam.commands.figure", "draw the paper's figures from our runs"),
    "dashboard": ("molsam.commands.dashboard", "compare runs in a browser"),
    "bench": (
        "molsam.commands.bench",
        "measure the speed of models and optimizers",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code (molsam.errors lists them)."""
    terminal.prepare()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] in (["-sc"], ["--shell_completion"]):
        return _complete(arguments)
    if arguments[:1] == ["train"]:
        return _train(arguments[1:])
    parser = argparse.ArgumentParser(
        prog=program(),
        description="Train molecular graph models with sharpness-aware optimizers.",
        epilog=f"{training()} --help lists the settings of a training.",
    )
    parser.add_argument("--version", action="version", version=f"molsam {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    commands.add_parser("train", help="train a model; takes settings (key=value) instead of options")
    wanted = arguments[0] if arguments and arguments[0] in COMMANDS else None
    for name, (module, text) in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text)
        # Only the command that runs is imported, so that `molsam --help` is fast.
        if name == wanted:
            loaded = importlib.import_module(module)
            loaded.configure(sub)
            sub.set_defaults(run=loaded.run)
    args, rest = parser.parse_known_args(arguments)
    # argparse does not accept further words of a list after an option; here they belong to the list.
    words = next((name for name in ("overrides", "names", "settings") if hasattr(args, name)), None)
    if rest and (words is None or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest and words is not None:
        setattr(args, words, [*getattr(args, words), *rest])
    try:
        code = int(args.run(args))
        print(end="", flush=True)
        return code
    except MolsamError as error:
        terminal.complain(str(error))
        return error.exit_code
    except BrokenPipeError:
        terminal.forget_output()
        return 0
    except OSError as error:
        terminal.forget_output()
        place = error.filename or "Standard output or another file"
        terminal.complain(
            f"{place} cannot be used ({error.strerror or error}); free some space or choose another place."
        )
        return StorageError.exit_code
    except KeyboardInterrupt:
        terminal.complain("stopped by Ctrl-C.")
        return 130


def _train(arguments: Sequence[str]) -> int:
    """Pass the rest of the command line to Hydra, which reads sys.argv."""
    from molsam.commands.train import main as train

    sys.argv = [sys.argv[0], *arguments]
    return train()


def _complete(arguments: Sequence[str]) -> int:
    """Answer Hydra's completion script, which calls the program for the next words."""
    words = os.environ.get("COMP_LINE", "").split(" ")[1:]
    if "query=bash" in arguments and words[:1] != ["train"]:
        print(" ".join(["train", *COMMANDS]) if len(words) < 2 else "")
        return 0
    # Hydra removes only the program's name.
    os.environ["COMP_LINE"] = " ".join(["molsam", *words[1:]])
    return _train(arguments)


if __name__ == "__main__":
    sys.exit(main())
