"""Conversion of optimizer state to nested dicts and lists of tensors and JSON-able values, and back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from molsam.errors import ConfigError


def snapshot(tree: Any) -> Any:
    """Return a copy of a state, with cloned tensors, lists for tuples, and keys as strings, as in JSON."""
    if isinstance(tree, Tensor):
        return tree.detach().clone()
    if isinstance(tree, dict):
        return {str(key): snapshot(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [snapshot(value) for value in tree]
    return tree


def load_base(base: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a snapshot of a torch optimizer's state into `base`.

    Raises:
        ConfigError: the state is of other parameters.
    """
    tuples = [{key for key, value in group.items() if isinstance(value, tuple)} for group in base.param_groups]
    try:
        base.load_state_dict(
            {
                "state": {int(key): value for key, value in state["state"].items()},
                "param_groups": state["param_groups"],
            }
        )
    except ValueError as error:
        raise ConfigError(f"The saved state does not fit the model's parameters: {error}.") from None
    for group, names in zip(base.param_groups, tuples, strict=True):
        group.update({name: tuple(group[name]) for name in names})
