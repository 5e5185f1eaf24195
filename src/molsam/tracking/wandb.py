"""Tracking with Weights & Biases, which never stops or slows a run."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import urllib.request
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from molsam.config.metrics import direction, metric_files
from molsam.config.secrets import without_secrets
from molsam.files import RECORDS, write_atomic
from molsam.tracking.plots import pixels, result_plots

log = logging.getLogger(__name__)

MODES = {"disabled": 0, "offline": 1, "dryrun": 1, "online": 2, "run": 2}
"""Values of logger.mode and WANDB_MODE -> how much they send; dryrun and run are W&B's older names."""
LONGEST_TAG = 64
OPEN = "unfinished"
"""File in a run's folder `wandb` with the id of a W&B run that has no summary yet."""


class WandbTracker:
    """Logs a run to W&B, by default offline: `wandb sync` uploads it later, `wandb leet` shows it in a terminal.

    Any error of W&B (no key, no network, a full disk) causes one warning, and the run continues without it.
    """

    def __init__(self, folder: Path, settings: Any) -> None:
        self.folder, self.settings = folder, settings
        self.run: Any = None
        self.failed = mode(settings) == "disabled"
        self.id: str | None = None

    def start(self, config: dict[str, Any], state: dict[str, Any]) -> None:
        """Start a W&B run, or continue the one of the interrupted run."""
        known = state.get("id") or _interrupted(self.folder)
        self._safely(lambda: self._init(config, known))
        if known is not None:
            self._safely(self._log_again)

    def log(self, record: dict[str, Any]) -> None:
        """Log all epoch records, and step records every `log_every` steps."""
        if record["kind"] == "step" and record["step"] % self.settings.log_every:
            return
        prefix = "" if record["kind"] == "epoch" else "step/"
        values = {f"{prefix}{key}": value for key, value in record.items() if key not in ("kind", "step", "epoch")}
        values["epoch"] = record["epoch"]
        self._safely(lambda: self.run.log(values, step=record["step"]))

    def gradients(self, record: dict[str, Any]) -> None:
        """Log norms and cosines every `log_every` steps, and at every probe."""
        if record["step"] % self.settings.log_every and "cos_true" not in record:
            return
        values = {f"gradients/{k}": v for k, v in record.items() if k not in ("step", "epoch") and _is_number(v)}
        # A record of gradients counts the steps before its own; the lines of metrics.jsonl count their own too.
        self._safely(lambda: self.run.log(values, step=record["step"] + 1))

    def sharpness(self, record: dict[str, Any]) -> None:
        """Log eigenvalues, trace and rises. The landscape is only in sharpness.jsonl."""
        values = {f"sharpness/{k}": v for k, v in record.items() if k not in ("step", "epoch") and _is_number(v)}
        values |= {f"sharpness/eigenvalue_{i}": v for i, v in enumerate(record.get("eigenvalues", []), start=1)}
        self._safely(lambda: self.run.log(values, step=record["step"]))

    def state(self) -> dict[str, Any]:
        """Return the run id, so that a resume continues it."""
        return {"id": self.id}

    def finish(self, result: dict[str, Any] | None) -> None:
        """Log summary, plots and result.json, then end the W&B run, so that the next job starts its own."""
        if result is not None:
            self._safely(lambda: self._summarise(result))
        self._safely(lambda: self.run.finish(exit_code=0 if result is not None else 1))
        if result is not None:
            self._safely(lambda: _open(self.folder).unlink(missing_ok=True))
        self.run = None

    def _init(self, config: dict[str, Any], known: str | None) -> None:
        # WANDB_RUN_ID is not used, because all cells of a sweep, and all folds of a run, would share that id.
        self.id = known or uuid.uuid4().hex[:8]
        write_atomic(_open(self.folder), self.id.encode())  # first: a kill may come before the first checkpoint
        choices = config["choices"]
        seed, fold = config["seed"], config["split"]["fold"]
        self.run = begin(
            self.folder,
            self.settings,
            group=f"{choices['dataset']}/{choices['model']}/{choices['optimizer']}",
            job_type="train",
            name=f"{choices['optimizer']}-s{seed}-f{fold}",
            tags=[choices["model"], choices["dataset"], choices["optimizer"], *(self.settings.tags or ())],
            config=config,
            id=self.id,
            goes_on=known is not None,
        )
        for pattern in ("train/*", "valid/*", "test/*"):
            self.run.define_metric(pattern, step_metric="epoch")
        for metric in metric_files():
            self.run.define_metric(f"valid/{metric}", step_metric="epoch", summary=direction(metric))

    def _log_again(self) -> None:
        """Log the part before the checkpoint again after a resume, unless a server has it already.

        The offline records of a killed run are lost, or go beyond the checkpoint. The JSONL files were truncated to the
        checkpoint. Logging them again makes one offline folder with the whole run, each step once.
        """
        if self.run.resumed:
            return
        # A record of gradients counts the steps before its own.
        records = [(row["step"], self.log, row) for row in _records(self.folder, "metrics")]
        records += [(row["step"] + 0.5, self.gradients, row) for row in _records(self.folder, "gradients")]
        records += [(row["step"], self.sharpness, row) for row in _records(self.folder, "sharpness")]
        for _, log_record, row in sorted(records, key=lambda one: one[0]):
            log_record(row)
        mine = Path(self.run.dir).parent
        for old in self.folder.glob(f"wandb/offline-run-*-{self.id}"):
            if old.resolve() != mine.resolve():
                shutil.rmtree(old)

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
        # With a prefix, because values logged by epoch would replace equal keys.
        summary = {f"result/{key}": result[key] for key in (*keys, "peak_memory_mb", "config_hash")}
        summary |= {f"result/{part}_{metric}": result[part][metric] for part in ("valid", "test")}
        summary |= {f"result/{part}_hash": result[part]["hash"] for part in ("split", "data")}
        summary |= {f"result/{k}": v for k, v in (result["gradients"] or {}).items() if isinstance(v, (int, float))}
        self.run.summary.update(summary)
        curve = [row for row in _records(self.folder, "metrics") if row["kind"] == "epoch"]
        for name, figure in result_plots(self.folder, result, curve).items():
            self.run.log({f"plots/{name}": wandb.Image(pixels(figure))}, step=result["steps"])
        artifact = wandb.Artifact(f"result-{self.run.id}", type="result")
        # Immutable files are uploaded from where they are, not copied to the home directory first.
        artifact.add_file(str(self.folder / "result.json"), policy="immutable")
        self.run.log_artifact(artifact)

    def _safely(self, action: Callable[[], object]) -> None:
        if self.failed:
            return
        try:
            action()
        except Exception as error:
            self.failed = True
            log.warning("W&B is switched off for this run (%s); training continues.", _reason(error))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _records(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl, gradients.jsonl or sharpness.jsonl; none if there is no such file."""
    try:
        return [json.loads(line) for line in (folder / RECORDS[kind]).read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        return []


def log_table(
    folder: Path, settings: Any, *, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]
) -> str | None:
    """Log a sweep as a W&B run that contains the table of its cells, and return the run's id.

    If W&B cannot be used, warn and return None.
    """
    try:
        if mode(settings) == "disabled":
            return None
        import wandb

        run = begin(
            folder, settings, group=name, job_type="sweep", name=name, tags=[name, *(settings.tags or ())], config={}
        )
        run.log({"table": wandb.Table(columns=list(columns), data=[list(row) for row in rows])})
        run.finish()
        return str(run.id)
    except Exception as error:
        log.warning("The table of %s was not logged to W&B (%s).", name, _reason(error))
        return None


def complete(folder: Path, settings: Any, result: dict[str, Any]) -> None:
    """Log the summary of a finished run whose process was killed after its result was written."""
    if (name := _interrupted(folder)) is None:
        return
    tracker = WandbTracker(folder, settings)
    tracker.start(result["config"], {"id": name})
    tracker.finish(result)


def mode(settings: Any) -> str:
    """Return disabled, offline or online: the one of logger.mode and WANDB_MODE that sends less."""
    given = settings.mode, os.environ.get("WANDB_MODE", "").strip().lower()
    least = min(MODES[one] for one in given if one in MODES)
    return ("disabled", "offline", "online")[least]


def _open(folder: Path) -> Path:
    return folder / "wandb" / OPEN


def _interrupted(folder: Path) -> str | None:
    """Return the id of a run that was begun in a folder and has no summary."""
    try:
        return _open(folder).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _tags(tags: Sequence[Any]) -> list[str]:
    """Return the tags as W&B accepts them: distinct, and cut to LONGEST_TAG characters, with a warning."""
    words = [str(tag) for tag in tags if str(tag)]
    for word in dict.fromkeys(words):
        if len(word) > LONGEST_TAG:
            log.warning("W&B accepts tags of at most %d characters; this one is cut: %s", LONGEST_TAG, word)
    return list(dict.fromkeys(word[:LONGEST_TAG] for word in words))


def begin(folder: Path, settings: Any, *, goes_on: bool = False, **facts: Any) -> Any:
    """Start a W&B run in `folder`, or go on with one; if online is not possible, warn and start an offline one."""
    import wandb

    # On a full disk W&B's own log file would fill the terminal with tracebacks.
    logging.raiseExceptions = False
    facts.setdefault("id", uuid.uuid4().hex[:8])
    facts |= {"dir": str(folder), "project": settings.project, "entity": settings.entity}
    facts["tags"] = _tags(facts["tags"])
    wanted = mode(settings)
    quiet = wandb.Settings(
        silent=True,
        console="off",
        x_disable_stats=True,
        x_disable_meta=True,
        reinit="create_new",
        init_timeout=15,
        finish_timeout=60,
    )
    if wanted == "online":
        try:
            if not wandb.login(prompt=False, verify=False):
                raise ConnectionError("there is no key: use wandb login, or set WANDB_API_KEY")
            _reach(wandb.setup().settings.base_url)
            return wandb.init(mode="online", resume="allow" if goes_on else None, settings=quiet, **facts)
        except Exception as error:
            log.warning(
                "logger.mode=online does not work (%s); writing an offline run, which wandb sync can upload later.",
                _reason(error),
            )
    return wandb.init(mode="offline", settings=quiet, **facts)


def _reach(address: str) -> None:
    """Raise ConnectionError at once if the host cannot be reached, which W&B would retry for long.

    Proxies are trusted.
    """
    url = urlsplit(address)
    if url.hostname is None or url.scheme in urllib.request.getproxies():
        return
    try:
        socket.create_connection((url.hostname, url.port or (80 if url.scheme == "http" else 443)), timeout=5).close()
    except OSError as error:
        raise ConnectionError(f"{url.hostname} cannot be reached: {error.strerror or error}") from error


def _reason(error: Exception) -> str:
    return str(without_secrets(" ".join(str(error).split())[:200])) or type(error).__name__
