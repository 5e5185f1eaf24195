"""Check that a checkpoint is continued only with the settings, data and split that it was made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from molsam.config.compose import other_folder
from molsam.config.identity import mismatch, restored
from molsam.errors import ConfigError

if TYPE_CHECKING:
    from molsam.training.loop import Trainer


def of(trainer: Trainer) -> dict[str, Any]:
    """Return the hashes of the data and the split as they were read, and the run's identity."""
    whole = None if trainer.identity is None else trainer.identity.whole()
    return {"data file": trainer.dataset.report.hash, "split": trainer.split.hash, "identity": whole}


def check(trainer: Trainer, made_from: dict[str, Any]) -> None:
    """Raise ConfigError if a checkpoint was made from something else. Older checkpoints have no identity."""
    before, wanted = restored(made_from.get("identity")), trainer.identity
    if before is not None and wanted is not None and before != wanted:
        raise ConfigError(mismatch(trainer.checkpoint_path, before, wanted, other=other_folder()))
    now = of(trainer)
    for name in ("data file", "split"):
        if made_from.get(name) != now[name]:
            raise ConfigError(
                f"{trainer.checkpoint_path} was made with another {name} (hash {made_from.get(name)}, now "
                f"{now[name]}); restore the former {name}, or start again with overwrite=true."
            )
