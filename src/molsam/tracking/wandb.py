"""Weights & Biases as one more place where a run is recorded; it never stops or slows training."""

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
"""Values of logger.mode and WANDB_MODE, by how much leaves the machine; two of them are older words of W&B's."""
LONGEST_TAG = 64
OPEN = "unfinished"
"""In the folder `wandb` of a run: the id of a W&B run that has no summary yet."""


class WandbTracker:
    """Offline by default: `wandb sync` uploads the folder later, `wandb leet` opens it in a terminal.

    Whatever goes wrong inside W&B (no key, no network, a full disk) is one warning; the run goes on without it.
    """

    def __init__(self, folder: Path, settings: Any) -> None:
        self.folder, self.settings = folder, settings
        self.run: Any = None
        self.failed = mode(settings) == "disabled"
        self.id: str | None = None

    def start(self, config: dict[str, Any], state: dict[str, Any]) -> None:
        """Begin a run, or go on with the id of the interrupted one."""
        self.id = state.get("id")
        self._safely(lambda: self._init(config))
        if "id" in state:
            self._safely(self._tell_again)

    def log(self, record: dict[str, Any]) -> None:
        """Epoch records all, step records every `log_every` steps."""
        if record["kind"] == "step" and record["step"] % self.settings.log_every:
            return
        prefix = "" if record["kind"] == "epoch" else "step/"
        values = {f"{prefix}{key}": value for key, value in record.items() if key not in ("kind", "step", "epoch")}
        values["epoch"] = record["epoch"]
        self._safely(lambda: self.run.log(values, step=record["step"]))

    def gradients(self, record: dict[str, Any]) -> None:
        """Norms and cosines, every `log_every` steps, probes always."""
        if record["step"] % self.settings.log_every and "cos_true" not in record:
            return
        values = {f"gradients/{k}": v for k, v in record.items() if k not in ("step", "epoch") and _is_number(v)}
        # A record counts the steps before its own, the lines of metrics.jsonl those that are done.
        self._safely(lambda: self.run.log(values, step=record["step"] + 1))

    def sharpness(self, record: dict[str, Any]) -> None:
        """Eigenvalues, trace and rises; the landscape stays in sharpness.jsonl."""
        values = {f"sharpness/{k}": v for k, v in record.items() if k not in ("step", "epoch") and _is_number(v)}
        values |= {f"sharpness/eigenvalue_{i}": v for i, v in enumerate(record.get("eigenvalues", []), start=1)}
        self._safely(lambda: self.run.log(values, step=record["step"]))

    def state(self) -> dict[str, Any]:
        """Return the run id, so that a resume continues it."""
        return {"id": self.id}

    def finish(self, result: dict[str, Any] | None) -> None:
        """Summary, plots and result.json, then close the run so that the next job starts its own."""
        if result is not None:
            self._safely(lambda: self._summarise(result))
        self._safely(lambda: self.run.finish(exit_code=0 if result is not None else 1))
        if result is not None:
            self._safely(lambda: _open(self.folder).unlink(missing_ok=True))
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
            tags=[choices["model"], choices["dataset"], choices["optimizer"], *(self.settings.tags or ())],
            config=config,
            id=self.id,
        )
        self.id = self.run.id
        write_atomic(_open(self.folder), self.run.id.encode())
        for pattern in ("train/*", "valid/*", "test/*"):
            self.run.define_metric(pattern, step_metric="epoch")
        for metric in metric_files():
            self.run.define_metric(f"valid/{metric}", step_metric="epoch", summary=direction(metric))

    def _tell_again(self) -> None:
        """Give a resumed run its beginning, unless a server has it already.

        What W&B had of a killed run is lost or goes beyond the checkpoint; the lines of the JSONL files have been cut
        back to it. So one offline folder holds the whole run, each step once.
        """
        if self.run.resumed:
            return
        # A record of gradients counts the steps before its own.
        told = [(row["step"], self.log, row) for row in _records(self.folder, "metrics")]
        told += [(row["step"] + 0.5, self.gradients, row) for row in _records(self.folder, "gradients")]
        told += [(row["step"], self.sharpness, row) for row in _records(self.folder, "sharpness")]
        for _, tell, row in sorted(told, key=lambda one: one[0]):
            tell(row)
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
        # A name of its own: what is logged by epoch would take the place of an equal key.
        summary = {f"result/{key}": result[key] for key in (*keys, "peak_memory_mb", "config_hash")}
        summary |= {f"result/{part}_{metric}": result[part][metric] for part in ("valid", "test")}
        summary |= {f"result/{part}_hash": result[part]["hash"] for part in ("split", "data")}
        summary |= {f"result/{k}": v for k, v in (result["gradients"] or {}).items() if isinstance(v, (int, float))}
        self.run.summary.update(summary)
        curve = [row for row in _records(self.folder, "metrics") if row["kind"] == "epoch"]
        for name, figure in result_plots(self.folder, result, curve).items():
            self.run.log({f"plots/{name}": wandb.Image(pixels(figure))}, step=result["steps"])
        artifact = wandb.Artifact(f"result-{self.run.id}", type="result")
        # Immutable: read where it lies when it is uploaded, not copied to the home directory.
        artifact.add_file(str(self.folder / "result.json"), policy="immutable")
        self.run.log_artifact(artifact)

    def _safely(self, action: Callable[[], object]) -> None:
        if self.failed:
            return
        try:
            action()
        except Exception as error:
            self.failed = True
            log.warning("W&B is switched off for this run (%s); training goes on.", _reason(error))


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
    """Return a sweep's parent run, whose only content is the table of its cells; returns its id.

    Like everything here it ends in one warning and None if W&B cannot be used.
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
        log.warning("The table of %s was not given to W&B (%s).", name, _reason(error))
        return None


def complete(folder: Path, settings: Any, result: dict[str, Any]) -> None:
    """Give W&B the end of a finished run whose process was killed between its result and its summary."""
    try:
        name = _open(folder).read_text(encoding="utf-8").strip()
    except OSError:
        return
    tracker = WandbTracker(folder, settings)
    tracker.start(result["config"], {"id": name})
    tracker.finish(result)


def mode(settings: Any) -> str:
    """Return disabled, offline or online: of logger.mode and WANDB_MODE the one that sends less."""
    given = settings.mode, os.environ.get("WANDB_MODE", "").strip().lower()
    least = min(MODES[one] for one in given if one in MODES)
    return ("disabled", "offline", "online")[least]


def _open(folder: Path) -> Path:
    return folder / "wandb" / OPEN


def _tags(tags: Sequence[Any]) -> list[str]:
    """Return the tags as W&B takes them, each once; a longer one is cut, with a warning."""
    words = [str(tag) for tag in tags if str(tag)]
    for word in dict.fromkeys(words):
        if len(word) > LONGEST_TAG:
            log.warning("W&B takes tags of at most %d characters; this one is cut: %s", LONGEST_TAG, word)
    return list(dict.fromkeys(word[:LONGEST_TAG] for word in words))


def begin(folder: Path, settings: Any, *, id: str | None = None, **facts: Any) -> Any:  # noqa: A002 - W&B's word
    """Return a W&B run in `folder`; an offline one, after a warning, where an online one cannot be had."""
    import wandb

    # On a full disk W&B's own log file would fill the terminal with tracebacks.
    logging.raiseExceptions = False
    # An id of its own whatever WANDB_RUN_ID says: all cells of a sweep, and all folds of a run, would share that one.
    own = id or uuid.uuid4().hex[:8]
    facts |= {"dir": str(folder), "project": settings.project, "entity": settings.entity, "id": own}
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
            return wandb.init(mode="online", resume="allow" if id else None, settings=quiet, **facts)
        except Exception as error:
            log.warning(
                "logger.mode=online does not work (%s); writing an offline run, which wandb sync can upload later.",
                _reason(error),
            )
    return wandb.init(mode="offline", settings=quiet, **facts)


def _reach(address: str) -> None:
    """Raises ConnectionError at once where W&B would try for long; a proxy is trusted to know the way."""
    url = urlsplit(address)
    if url.hostname is None or url.scheme in urllib.request.getproxies():
        return
    try:
        socket.create_connection((url.hostname, url.port or (80 if url.scheme == "http" else 443)), timeout=5).close()
    except OSError as error:
        raise ConnectionError(f"{url.hostname} cannot be reached: {error.strerror or error}") from error


def _reason(error: Exception) -> str:
    return str(without_secrets(" ".join(str(error).split())[:200])) or type(error).__name__
