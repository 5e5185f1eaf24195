"""molsam campaign: run all tables that test the paper's claims, in the order of their value, on idle processors."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from molsam import terminal
from molsam.config.compose import set_project_root
from molsam.errors import counted

if TYPE_CHECKING:
    from molsam.sweeping.campaign import Campaign, Job


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `molsam campaign`."""
    parser.add_argument("action", choices=("run", "status", "pause", "resume"),
                        help="run: start or continue; status: what is done; pause: free "
                             "the processor; resume: end the pause")  # fmt: skip
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="settings for every run")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), metavar="FOLDER",
                        help="the folder for the runs (default: outputs)")  # fmt: skip
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="FOLDER",
                        help="the folder for packed sweeps (default: results)")  # fmt: skip
    parser.add_argument(
        "--file", type=Path, metavar="FILE", help="a campaign of your own (default: the paper's claims)"
    )
    parser.add_argument("--steps", type=_numbers, metavar="N,N", help="run only these steps")


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def run(args: argparse.Namespace) -> int:
    """Run, pause or resume the campaign, or print its status. Return 1 if a sweep failed or cells are missing."""
    from molsam.sweeping import campaign

    set_project_root()
    chosen = [step for step in campaign.steps(args.file) if args.steps is None or step.number in args.steps]
    one = campaign.Campaign(chosen, args.outputs, args.results, args.settings)
    if args.action == "run":
        return _run(one)
    if args.action == "status":
        return _status(one)
    one.pause(args.action == "pause")
    if args.action == "pause":
        print("The campaign stops within seconds; its runs keep a checkpoint. Continue with `molsam campaign resume`.")
    elif not one.running():
        print("No process runs the campaign; start it with `molsam campaign run`.")
    return 0


def _run(one: Campaign) -> int:
    from molsam.sweeping import campaign

    # With this, a service manager's SIGTERM ends the sweep too, as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    failed = []
    with one.claimed():
        for step in one.steps:
            for job in step.jobs:
                code = campaign.run_job(
                    one,
                    job,
                    lambda line, n=step.number: _live(f"step {n}, {line}"),  # type: ignore[misc]
                )
                _pack(one, job)
                if code:
                    failed.append(job.name)
                    _line(
                        f"step {step.number}, {job.name}: ended with exit code {code}; see {one.folder}/{job.name}.log"
                    )
            _line(f"step {step.number}: {step.title}: " + ", ".join(_count(one, job) for job in step.jobs))
    return 1 if failed else 0


def _pack(one: Campaign, job: Job) -> None:
    """Pack the finished runs of a sweep."""
    from molsam.report import packing

    if one.progress(job)[0]:
        packing.pack([one.outputs / job.name], one.results / f"{job.name}.jsonl")


def _status(one: Campaign) -> int:
    from molsam.sweeping import campaign

    complete = True
    for step in one.steps:
        print(terminal.fitted(f"step {step.number}: {step.title}", sys.stdout))
        for job in step.jobs:
            print(f"  {_count(one, job)}")
            done, total = one.progress(job)
            complete &= done == total
    at_once = counted(campaign.workers(), "run")
    if one.paused:
        print("The campaign is paused.")
    elif one.running():
        print(f"The campaign runs, {at_once} at a time.")
    else:
        print(f"The campaign is not running. It would do {at_once} at a time.")
    return 0 if complete else 1


def _count(one: Campaign, job: Job) -> str:
    done, total = one.progress(job)
    return f"{job.name} {done} of {total} cells"


def _live(text: str) -> None:
    """Print a line that replaces the last one; only on a terminal."""
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns - 1
        print("\r" + text[:width].ljust(width), end="", file=sys.stderr, flush=True)


def _line(text: str) -> None:
    end = "\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r" if sys.stderr.isatty() else ""
    print(end + text, file=sys.stderr, flush=True)
