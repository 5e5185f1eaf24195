"""A W&B report on a project's runs: its contents, and saving it to an account."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from molsam.errors import ConfigError, StorageError
from molsam.report.figures.paper import stated_score

METRICS = {"roc_auc": "ROC-AUC", "rmse": "RMSE", "mae": "MAE"}
OPTIMIZER = "choices.optimizer"
GROUPS = ("config.choices.dataset", "config.choices.model", "config.choices.optimizer")
TITLE = "molsam: sharpness-aware training of molecular graph models"


class Panel(NamedTuple):
    """One panel: bars of means by optimizer, a scatter plot of runs, or lines."""

    kind: str
    title: str
    x: str
    y: tuple[str, ...]


def panels(metrics: Iterable[str]) -> dict[str, list[Panel]]:
    """Return the panels of each section, for the metrics that a project has."""
    found = list(metrics)
    score = [f"result/test_{metric}" for metric in found]
    return {
        "Test metric and throughput by optimizer": [
            *(Panel("bar", f"test {METRICS[m]} by optimizer", "", (f"result/test_{m}",)) for m in found),
            Panel("bar", "graphs/s by optimizer", "", ("result/graphs_per_s",)),
            *(Panel("scatter", f"test {METRICS[m]} against graphs/s", "result/graphs_per_s", (key,))
              for m, key in zip(found, score, strict=True)),
        ],
        "Losses": [
            Panel("line", "training loss", "epoch", ("train/loss",)),
            Panel("line", "clean and perturbed loss", "epoch", ("train/loss_clean", "train/loss_perturbed")),
            Panel("line", "validation loss", "epoch", ("valid/loss",)),
            *(Panel("line", f"validation {METRICS[m]}", "epoch", (f"valid/{m}",)) for m in found),
        ],
        "Gradients": [
            Panel("line", "cos(eps t+1, omega t)", "Step", ("gradients/cos_next",)),
            Panel("line", "cos(eps, true eps)", "Step", ("gradients/cos_true",)),
            Panel("line", "norms of eps and omega", "Step", ("gradients/eps_norm", "gradients/omega_norm")),
            Panel("line", "rho", "epoch", ("rho",)),
        ],
    }  # fmt: skip


def outline(target: str, metrics: Iterable[str] = tuple(METRICS)) -> str:
    """Return the contents of the report in words."""
    lines = [f"A W&B report for {target}: {TITLE}", "runs: job type train, grouped by dataset, model, optimizer"]
    for section, content in panels(metrics).items():
        lines += [section, *(f"  {p.kind}: {p.title}  [{', '.join(p.y)}]" for p in content)]
    return "\n".join([*lines, "Beside the paper", "  table: mean, std and n of the test metric, and the paper's value"])


def comparison(runs: Iterable[Any]) -> tuple[list[str], str]:
    """Return the metrics of finished runs, and a Markdown table of their scores and the paper's.

    `runs`: objects with `config` and `summary`, as wandb.Api().runs returns them.
    """
    found: dict[tuple[str, str, str, str], list[float]] = defaultdict(list)
    for run in runs:
        choices = run.config.get("choices", {})
        for metric in METRICS:
            value = run.summary.get(f"result/test_{metric}")
            if isinstance(value, (int, float)) and {"dataset", "model", "optimizer"} <= set(choices):
                found[choices["dataset"], choices["model"], choices["optimizer"], metric].append(float(value))
    lines = ["| dataset | model | optimizer | metric | ours | n | paper |", "|---|---|---|---|---:|---:|---:|"]
    for (dataset, model, optimizer, metric), values in sorted(found.items()):
        std = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
        paper = stated_score(model, optimizer, dataset)
        shown = "–" if paper is None else f"{paper:.3f}"
        cells = (dataset, model, optimizer, METRICS[metric], f"{np.mean(values):.3f}{std}", str(len(values)), shown)
        lines.append("| " + " | ".join(re.sub(r"[|\n<>]", " ", cell) for cell in cells) + " |")
    present = {key[3] for key in found}
    return [metric for metric in METRICS if metric in present], "\n".join(lines)


def build(entity: str, project: str, metrics: list[str], table: str) -> Any:
    """Return the report as an object of wandb-workspaces; nothing is sent."""
    import wandb_workspaces.reports.v2 as wr

    def runset() -> Any:
        return wr.Runset(
            entity=entity, project=project, name="train", groupby=list(GROUPS), filters="Metric('JobType') == 'train'"
        )

    blocks: list[Any] = [wr.TableOfContents()]
    for section, content in panels(metrics).items():
        blocks += [wr.H1(section), wr.PanelGrid(runsets=[runset()], panels=[_panel(wr, p) for p in content])]
    blocks += [wr.H1("Beside the paper"), wr.MarkdownBlock(text=table)]
    return wr.Report(entity=entity, project=project, title=TITLE, blocks=blocks, width="fluid")


def _panel(wr: Any, panel: Panel) -> Any:
    by_optimizer = {"groupby": wr.Config(OPTIMIZER), "groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}
    if panel.kind == "bar":
        return wr.BarPlot(
            title=panel.title, metrics=[wr.SummaryMetric(key) for key in panel.y], orientation="v", **by_optimizer
        )
    if panel.kind == "scatter":
        return wr.ScatterPlot(title=panel.title, x=wr.SummaryMetric(panel.x), y=wr.SummaryMetric(panel.y[0]))
    return wr.LinePlot(title=panel.title, x=panel.x, y=list(panel.y), **by_optimizer)


def publish(target: str) -> int:
    """Save the report and print its address; without the extra or an account, print its outline."""
    entity, project = _parts(target)
    try:
        import wandb_workspaces.reports.v2  # noqa: F401 - asks whether the extra is installed
    except ImportError:
        print(outline(target))
        print("To create it, install the extra: pip install 'molsam[wandb-workspaces]'.")
        return 0
    import wandb

    if not wandb.login(prompt=False, verify=False):
        print(outline(target))
        print("To create it, log in first: wandb login, or set WANDB_API_KEY.")
        return 0
    try:
        metrics, table = comparison(wandb.Api().runs(target, filters={"jobType": "train", "state": "finished"}))
        report = build(entity, project, metrics or list(METRICS), table)
        report.save()
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise StorageError(
            f"W&B did not accept the report of {target} ({reason}); check the name, the key and the network."
        ) from error
    print(f"Report: {report.url}")
    return 0


def _parts(target: str) -> tuple[str, str]:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", target):
        raise ConfigError(f"--wandb is {target!r}; give ENTITY/PROJECT, such as my-team/molsam.")
    entity, project = target.split("/")
    return entity, project
