"""Read official GROVER checkpoints safely, and load them into `Grover`."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from molsam.errors import ConfigError, StorageError
from molsam.models.grover.model import Grover

# The reference's name of a setting -> ours. These settings decide what the encoders compute, so they must agree.
FIELDS = {
    "hidden_size": "hidden_size",
    "depth": "depth",
    "num_attn_head": "n_heads",
    "num_mt_block": "n_blocks",
    "activation": "activation",
    "bias": "bias",
}
ENCODERS = "grover.encoders."


class LoadReport(NamedTuple):
    """The result of `load_pretrained`, in the reference's parameter names."""

    loaded: list[str]
    initial: list[str]
    """parameters of the model that the checkpoint lacks or has in another size; they keep their initial values"""
    ignored: list[str]
    """tensors of the checkpoint that the model does not use"""

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} pretrained tensors were loaded."]
        for names, what in (
            (self.initial, "not in the checkpoint and keep their initial values"),
            (self.ignored, "ignored"),
        ):
            if names:
                lines.append(f"{len(names)} are {what}: {', '.join(names)}.")
        return "\n".join(lines)


def load_pretrained(model: Grover, path: str | Path) -> LoadReport:
    """Load the weights of an official checkpoint, pre-trained or fine-tuned, and report what was loaded.

    The encoders must be complete. The readout and the heads, which only fine-tuned checkpoints have, are loaded where
    their sizes agree. The weights were trained with the reference's padding, so this turns it on unless model.padding
    is set. Raises StorageError if the file cannot be read or has anything but data, and ConfigError if its encoders
    differ from the model's.
    """
    args, tensors = read_checkpoint(path)
    _check_settings(model, args, path)
    names = list(model.reference_names())
    current = model.to_reference(dict(model.named_parameters()))
    found = {name: t for name, t in tensors.items() if name in current and t.shape == current[name].shape}
    if wrong := [name for name in current if name.startswith(ENCODERS) and name not in found]:
        got = tuple(tensors[wrong[0]].shape) if wrong[0] in tensors else "absent"
        raise ConfigError(
            f"model.pretrained={path}: {wrong[0]} is {got} in the checkpoint, {tuple(current[wrong[0]].shape)} "
            "in the model; use featurizer=grover and the settings the checkpoint was trained with."
        )
    if model.padding is None:
        model.reference_padding.fill_(True)
    model.load_state_dict(model.from_reference(current | found))
    theirs = [name for _, _, name in names]
    return LoadReport(
        loaded=[name for name in theirs if name in found],
        initial=[name for name in theirs if name not in found],
        ignored=[name for name in tensors if name not in found],
    )


def read_checkpoint(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the settings and the tensors of a checkpoint.

    Only the classes that official checkpoints contain are allowed: the argument parser's Namespace, and numpy's arrays
    and numbers (the scalers of fine-tuned models). Anything else is refused before any of it runs. Raises StorageError
    if the file cannot be read, has no settings or tensors, or has more than data.
    """
    try:
        with torch.serialization.safe_globals(_allowed()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0]
        raise StorageError(
            f"model.pretrained={path} is not a safe checkpoint: it has more than tensors, numbers and settings, "
            f"or is damaged ({reason}); use an official GROVER checkpoint."
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise StorageError(
            f"model.pretrained={path} cannot be read ({error}); give the path of an official GROVER checkpoint."
        ) from error
    if not isinstance(content, Mapping) or not {"args", "state_dict"} <= content.keys():
        raise StorageError(
            f"model.pretrained={path} has no args and state_dict; give the path of an official GROVER checkpoint."
        )
    args = content["args"]
    return dict(vars(args) if isinstance(args, argparse.Namespace) else args), dict(content["state_dict"])


def _allowed() -> list[Any]:
    untyped: Any = np
    reconstruct, scalar = untyped._core.multiarray._reconstruct, untyped._core.multiarray.scalar
    # numpy 1 saved these two under another module name.
    old = [(reconstruct, "numpy.core.multiarray._reconstruct"), (scalar, "numpy.core.multiarray.scalar")]
    dtypes = [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.int32, np.bool_)]
    return [argparse.Namespace, reconstruct, scalar, np.ndarray, np.dtype, *dtypes, *old]


def _check_settings(model: Grover, args: Mapping[str, Any], path: str | Path) -> None:
    """Raise ConfigError if the checkpoint's settings make its encoders differ from the model's."""
    for theirs, ours in FIELDS.items():
        have, want = args.get(theirs), getattr(model, ours)
        if have is None or _plain(have) == _plain(want):
            continue
        value = str(have).lower() if isinstance(have, (str, bool)) else have
        raise ConfigError(
            f"model.{ours} is {want} but the checkpoint {path} has {have}; set model.{ours}={value} or choose "
            "another checkpoint."
        )
    for theirs in ("undirected", "dense"):
        if args.get(theirs):
            raise ConfigError(
                f"the checkpoint {path} was trained with {theirs}=True, which molsam's GROVER does not have; "
                "choose another checkpoint for model.pretrained."
            )


def _plain(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value
