"""Repeated steps of torch's GRU and LSTM with shared weights.

The CPU calls the cells one by one. On a device each step is one call of cuDNN, which has no second derivatives; the
gradients of the weights are added up in one operation after all steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

MATRICES, BIASES = ("weight_ih", "weight_hh"), ("bias_ih", "bias_hh")


def gru_steps(cell: nn.GRUCell, times: int, device: torch.device) -> list[Callable[[Tensor, Tensor], Tensor]]:
    """Return one function per step: (input [N, .], state [N, d]) -> state [N, d]."""
    if device.type == "cpu":
        return [cell] * times

    def step(weights: list[Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        def taken(x: Tensor, state: Tensor) -> Tensor:
            out: Tensor = torch._VF.gru(x.unsqueeze(0), state.unsqueeze(0), weights, True, 1, 0.0, True, False, False)[
                0
            ]
            return out.squeeze(0)

        return taken

    return list(map(step, _shared([cell], times)))


def lstm_steps(cells: Sequence[nn.LSTMCell], times: int, zero: Tensor) -> list[Callable[[Tensor], Tensor]]:
    """Return one function per step: input [B, .] -> output [B, d] of the last layer.

    The states start as `zero` [B, d]; each step continues from the states of the one before.
    """
    if zero.is_cpu:
        states = [(zero, zero)] * len(cells)

        def through(x: Tensor) -> Tensor:
            for layer, cell in enumerate(cells):
                states[layer] = cell(x, states[layer])
                x = states[layer][0]
            return x

        return [through] * times
    known = [(zero.expand(len(cells), -1, -1),) * 2]

    def step(weights: list[Tensor]) -> Callable[[Tensor], Tensor]:
        def taken(x: Tensor) -> Tensor:
            given = x.unsqueeze(0), known[0], weights, True, len(cells), 0.0, True, False, False
            out, *states = torch._VF.lstm(*given)
            known[0] = states[0], states[1]
            return out.squeeze(0)

        return taken

    return list(map(step, _shared(cells, times)))


def _shared(cells: Sequence[nn.RNNCellBase], times: int) -> list[list[Tensor]]:
    """Return the cells' weights once per step, in torch's order."""
    # cuDNN wants all matrices before all biases in one block, and copies weights that are laid out otherwise.
    of_layer = [[getattr(cell, name) for name in names] for names in (MATRICES, BIASES) for cell in cells]
    parts = [part for own in of_layer for part in own]
    whole = torch.cat([part.flatten() for part in parts])
    found = []
    for row in whole.expand(times, -1).unbind():
        split = row.split([part.numel() for part in parts])
        views = [one.view(part.shape) for one, part in zip(split, parts, strict=True)]
        half = len(views) // 2
        found.append([one for i in range(0, half, 2) for one in (*views[i : i + 2], *views[half + i : half + i + 2])])
    return found
