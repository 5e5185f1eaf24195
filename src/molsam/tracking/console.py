"""Terminal output of a run: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from molsam import terminal
from molsam.config import command
from molsam.config.metrics import metric_files
from molsam.errors import counted as counted_noun
from molsam.training.events import Callback

SECONDS_BETWEEN_LINES = 5.0
MOST_TASKS = 12
"""Largest number of tasks that the table at the end of a run lists."""
T = TypeVar("T")


def say(message: str) -> None:
    """Print a sentence to standard error."""
    whole = terminal.fitted(message, sys.stderr)
    terminal.console(stderr=True).print(whole, markup=False, soft_wrap=True)


def counted(parts: Iterable[T], size: Callable[[T], int], total: int) -> Iterator[T]:
    """Yield the parts. On a terminal a bar shows how many of `total` are done, and the time left."""
    if not sys.stderr.isatty():
        yield from parts
        return
    columns = TextColumn("{task.completed:.0f}/{task.total:.0f}"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=terminal.console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total)
        for part in parts:
            progress.advance(task, size(part))
            yield part


class ConsoleProgress(Callback):
    """Shows epoch, loss, validation metric, graphs/s and time left."""

    def __init__(self, metric: str, epochs: int, steps_per_epoch: int) -> None:
        self.metric, self.epochs, self.steps = metric, epochs, steps_per_epoch
        self.progress: Progress | None = None
        self.valid: float | None = None
        self.printed = 0.0
        self.started = time.monotonic()

    def on_fit_start(self, trainer: Any) -> None:
        """Print where a resume continues, and draw the bar."""
        self.first = trainer.step
        if trainer.step:
            say(f"continues at step {trainer.step} of {self.epochs * self.steps} (epoch {trainer.epoch + 1})")
        self.started = time.monotonic()
        if not sys.stderr.isatty():
            return
        self.progress = Progress(
            TextColumn("epoch {task.fields[epoch]}/" + str(self.epochs)),
            BarColumn(bar_width=None, table_column=Column(min_width=4, max_width=12, ratio=1)),
            TextColumn("loss {task.fields[loss]}"),
            TextColumn(self.metric + " {task.fields[valid]}"),
            TextColumn("{task.fields[speed]:.0f} graphs/s"),
            TimeRemainingColumn(compact=True),
            console=terminal.console(stderr=True),
            refresh_per_second=4,
        )
        self.task = self.progress.add_task(
            "",
            total=self.epochs * self.steps,
            completed=trainer.step,
            epoch=trainer.epoch + 1,
            loss="-",
            valid="-",
            speed=0.0,
        )
        self.progress.start()

    def on_train_batch_end(self, trainer: Any) -> None:
        """Update the bar."""
        if self.progress is not None and trainer.step % 5 == 0:
            self.progress.update(
                self.task,
                completed=trainer.step,
                epoch=trainer.epoch + 1,
                loss=f"{float(trainer.loss):.4g}",
                speed=trainer.clock.rate,
                valid=_number(self.valid),
            )

    def on_train_epoch_end(self, trainer: Any, metrics: dict[str, Any]) -> None:
        """Update the bar; without a terminal, print a line, but at most one every few seconds."""
        self.valid = metrics[f"valid/{self.metric}"]
        last = trainer.epoch + 1 == self.epochs
        now = time.monotonic()
        if self.progress is not None:
            self.progress.update(self.task, completed=trainer.step, valid=_number(self.valid))
        elif now - self.printed >= SECONDS_BETWEEN_LINES or last or trainer.epoch == 0:
            self.printed = now
            done = trainer.step - self.first
            left = (now - self.started) / max(done, 1) * (self.epochs * self.steps - trainer.step)
            say(
                f"epoch {trainer.epoch + 1}/{self.epochs}  loss {metrics['train/loss']:.4f}  "
                f"valid {self.metric} {_number(self.valid)}  {metrics['graphs_per_s']:.0f} graphs/s  {left:.0f} s left"
            )

    def on_fit_end(self, trainer: Any) -> None:
        """Remove the bar."""
        self.close()

    def close(self) -> None:
        """Stop drawing; called also after an error."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None


def print_result(result: dict[str, Any]) -> None:
    """Print the short table at the end of a run."""
    table = Table(title=escape(result["name"]), show_header=False, title_justify="left")
    metric = result["metric"]
    table.add_row(f"test {metric}", _number(result["test"].get(metric)))
    chosen = f" (best epoch {result['best_epoch'] + 1})" if result["steps"] else ""
    table.add_row(f"valid {metric}", f"{_number(result['valid'].get(metric))}{chosen}")
    _add_others(table, metric, result["test"], result["test_per_task"], _number, "result.json")
    if result["steps"]:
        speed = f"{result['graphs_per_s']:.0f} graphs/s, {result['passes_per_step']:.2f} passes per step"
        table.add_row("throughput", speed)
    epochs = f" for {counted_noun(result['epochs'], 'epoch')}" if result["steps"] else ""
    table.add_row("time", f"{result['seconds']:.0f} s{epochs}")
    console = terminal.console()
    console.print(table)
    _explain_dashes(console, table)
    console.print(f"results: {result['run_dir']}", soft_wrap=True, markup=False)


def print_folds(summary: dict[str, Any]) -> None:
    """Print the table of folds, and the means of the other main metrics and of each task."""
    metric = summary["metric"]
    table = Table(title=f"{escape(summary['name'])}: {len(summary['folds'])} folds", title_justify="left")
    for column in ("fold", f"valid {metric}", f"test {metric}", "graphs/s"):
        table.add_column(column, justify="right")
    for row in summary["folds"]:
        table.add_row(str(row["fold"]), _number(row["valid"]), _number(row["test"]), f"{row['graphs_per_s']:.0f}")
    table.add_row("mean ± std", _spread(summary["valid"]), _spread(summary["test"]), "", style="bold")
    console = terminal.console()
    console.print(table)
    _explain_dashes(console, table)
    others = Table(show_header=False)
    _add_others(others, metric, summary["metrics"], summary["tasks"], _spread, "folds.json")
    if others.row_count:
        console.print(others)
        _explain_dashes(console, others)
    console.print(f"results: {summary['run_dir']}", soft_wrap=True, markup=False)


def _add_others(
    table: Table,
    metric: str,
    metrics: Mapping[str, Any],
    tasks: Mapping[str, Any],
    told: Callable[[Any], str],
    file: str,
) -> None:
    """Add a row for each other main metric and, of several tasks, for each task; `file` has those left out."""
    for name, settings in metric_files().items():
        if settings["main"] and name != metric and name in metrics:
            table.add_row(f"test {name}", told(metrics[name]))
    for task, value in list(tasks.items())[:MOST_TASKS] if len(tasks) > 1 else ():
        table.add_row(escape(f"test {metric}, {task}"), told(value))
    if len(tasks) > MOST_TASKS:
        table.add_row(counted_noun(len(tasks) - MOST_TASKS, "more task"), f"in {file}")


def _explain_dashes(console: Any, table: Table) -> None:
    """Print why a table has values that are undefined, if it has."""
    if any(str(cell).split(" ")[0] == "-" for column in table.columns for cell in column.cells):
        console.print("-: undefined: too few labels, only one class, or no label to learn from", markup=False)


def print_next(folder: str, *, molecules: bool) -> None:
    """Print the commands to use next; `molecules`: whether the model can predict molecules."""
    start = command.program()
    predict = f"{start} predict {command.shell([folder])} molecules.csv; " if molecules else ""
    line = f"next: {predict}to compare runs: {start} dashboard"
    print(terminal.fitted(line, sys.stdout, between="; "))


def _spread(found: dict[str, Any]) -> str:
    return f"{_number(found['mean'])} ± {_number(found['std'])}"


def _number(value: float | None) -> str:
    """Return a value with four decimals; with four digits where these would show less than two."""
    if value is None or value != value:
        return "-"
    return f"{value:.4g}" if 0 < abs(value) < 0.00095 else f"{value:.4f}"
