"""Weights & Biases as one more place where a run is recorded; it never stops or slows training."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from molsam.config import without_secrets
from molsam.tracking.plots import pixels, result_plots

log = logging.getLogger(__name__)


class WandbTracker:
    """Offline by default: `wandb sync` uploads the folder later, `wandb leet` opens it in a terminal.

    Whatever goes wrong inside W&B (no key, no network, a full disk) is one warning; the run goes on without it.
    """

    def __init__(self, folder: Path, settings: Any) -> None:
        self.folder, self.settings = folder, settings
        self.run: Any = None
        self.failed = False
        self.id: str | None = None
        self.curve: list[dict[str, Any]] = []

    def start(self, config: dict[str, Any], state: dict[str, Any]) -> None:
        """Begin a run, or go on with the id of the interrupted one."""
        self.id = state.get("id")
        self.curve = list(state.get("curve", []))
        self._safely(lambda: self._init(config))

    def log(self, record: dict[str, Any]) -> None:
        """Epoch records all, step records every `log_every` steps."""
        if record["kind"] == "epoch":
            self.curve.append(
                {k: record[k] for k in record if k == "epoch" or k.endswith("/loss") or k.startswith("valid/")}
            )
        elif record["step"] % self.settings.log_every:
            return
        prefix = "" if record["kind"] == "epoch" else "step/"
        values = {f"{prefix}{key}": value for key, value in record.items() if key not in ("kind", "step", "epoch")}
        values["epoch"] = record["epoch"]
        self._safely(lambda: self.run.log(values, step=record["step"]))

    def gradients(self, record: dict[str, Any]) -> None:
        """Norms and cosines, every `log_every` steps, probes always."""
        if record["step"] % self.settings.log_every and "cos_true" not in record:
            return
        values = {
            f"gradients/{k}": v for k, v in record.items() if k not in ("step", "epoch") and isinstance(v, (int, float))
        }
        # A record counts the steps before its own, the lines of metrics.jsonl those that are done.
        self._safely(lambda: self.run.log(values, step=record["step"] + 1))

    def state(self) -> dict[str, Any]:
        """The run id, so that a resume continues it."""
        return {"id": self.id, "curve": self.curve}

    def finish(self, result: dict[str, Any] | None) -> None:
        """Summary, plots and result.json, then close the run so that the next job starts its own."""
        if result is not None:
            self._safely(lambda: self._summarise(result))
        self._safely(lambda: self.run.finish(exit_code=0 if result is not None else 1))
        self.run = None

    def _init(self, config: dict[str, Any]) -> None:
        choices = config["choices"]
        seed, fold = config["seed"], config["split"]["fold"]
        self.run = begin(
            self.folder,
            self.settings,
            group=f"{choices['dataset']}/{choices['model']}/{choices['optimizer']}",
            job_type="train",
            name=f"{choices['optimizer']}-s{seed}-f{fold}",
            tags=[choices["model"], choices["dataset"], choices["optimizer"], *self.settings.tags],
            config=config,
            id=self.id,
        )
        self.id = self.run.id
        for pattern in ("train/*", "valid/*", "test/*"):
            self.run.define_metric(pattern, step_metric="epoch")
        for metric, best in (("roc_auc", "max"), ("rmse", "min"), ("mae", "min")):
            self.run.define_metric(f"valid/{metric}", step_metric="epoch", summary=best)

    def _summarise(self, result: dict[str, Any]) -> None:
        import wandb

        metric = result["metric"]
        keys = (
            "best_epoch",
            "epochs",
            "graphs_per_s",
            "seconds",
            "gradient_passes",
            "passes_per_step",
            "parameters",
        )
        # A name of its own: what is logged by epoch would take the place of an equal key.
        summary = {f"result/{key}": result[key] for key in (*keys, "peak_memory_mb", "config_hash")}
        summary |= {f"result/{part}_{metric}": result[part][metric] for part in ("valid", "test")}
        summary |= {f"result/{part}_hash": result[part]["hash"] for part in ("split", "data")}
        summary |= {f"result/{k}": v for k, v in (result["gradients"] or {}).items() if isinstance(v, (int, float))}
        self.run.summary.update(summary)
        for name, figure in result_plots(self.folder, result, self.curve).items():
            self.run.log({f"plots/{name}": wandb.Image(pixels(figure))}, step=result["steps"])
        artifact = wandb.Artifact(f"result-{self.run.id}", type="result")
        with artifact.new_file("result.json", mode="w") as file:
            json.dump(result, file, indent=1, default=str)
        self.run.log_artifact(artifact)

    def _safely(self, action: Callable[[], object]) -> None:
        if self.failed:
            return
        try:
            action()
        except Exception as error:
            self.failed = True
            log.warning("W&B is switched off for this run (%s); training goes on.", _reason(error))


def log_table(
    folder: Path, settings: Any, *, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]
) -> str | None:
    """A sweep's parent run, whose only content is the table of its cells; returns its id.

    Like everything here it ends in one warning and None if W&B cannot be used.
    """
    try:
        import wandb

        run = begin(folder, settings, group=name, job_type="sweep", name=name, tags=[name, *settings.tags], config={})
        run.log({"table": wandb.Table(columns=list(columns), data=[list(row) for row in rows])})
        run.finish()
        return str(run.id)
    except Exception as error:
        log.warning("The table of %s was not given to W&B (%s).", name, _reason(error))
        return None


def begin(folder: Path, settings: Any, *, id: str | None = None, **facts: Any) -> Any:  # noqa: A002 - W&B's word
    """A W&B run in `folder`; an offline one, after a warning, where an online one cannot be had."""
    import wandb

    facts |= {"dir": str(folder), "project": settings.project, "entity": settings.entity, "id": id}
    quiet = wandb.Settings(
        silent=True,
        console="off",
        x_disable_stats=True,
        x_disable_meta=True,
        reinit="create_new",
        init_timeout=15,
        finish_timeout=60,
    )
    if settings.mode == "online":
        try:
            if not wandb.login(prompt=False, verify=False):
                raise ConnectionError("there is no key: use wandb login, or set WANDB_API_KEY")
            return wandb.init(mode="online", resume="allow" if id else None, settings=quiet, **facts)
        except Exception as error:
            log.warning(
                "logger.mode=online does not work (%s); writing an offline run, which wandb sync can upload later.",
                _reason(error),
            )
    return wandb.init(mode="offline" if settings.mode == "online" else settings.mode, settings=quiet, **facts)


def _reason(error: Exception) -> str:
    return str(without_secrets(" ".join(str(error).split())[:200])) or type(error).__name__
