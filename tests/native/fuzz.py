"""Call every C function with every kind of wrong argument listed here, and print the calls that did not raise.

This is a separate program, because a wrong call that reaches C may end the process.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator
from functools import partial
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from molsam import optim
from molsam.native import kernels
from molsam.native.kernels import Arrays, prototypes
from tests.native.models import MODELS, gradients

FLAGS = {"softmax", "mean", "adaptive", "decoupled", "turned", "full"}
"""counts that say how, not how many: any number is right"""
Call = dict[str, Any]
"""the arguments by name"""


def record() -> dict[str, list[Call]]:
    """Calls of each function, from training passes of the models and steps of optimizers."""
    found: dict[str, list[Call]] = {}
    original = kernels.call

    def recorded(name: str, dtype: torch.dtype, *arguments: Any, **fields: Any) -> None:
        calls = found.setdefault(name, [])
        call = fields or dict(zip((p.name for p in prototypes()[name].parameters), arguments, strict=True))
        present = {name for name, value in call.items() if value is None}
        if present not in [{name for name, value in known.items() if value is None} for known in calls]:
            calls.append({name: copied(value) for name, value in call.items()})
        original(name, dtype, *arguments, **fields)

    kernels.call = recorded
    try:
        for name in MODELS:
            gradients(name, torch.float32, ["CC(=O)O", "[Na+].[Cl-]", "C"])
        for make in (partial(optim.GraphSAM, steps_per_epoch=2), optim.ASAM):
            weights = [nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(5))]
            optimizer = make(weights, partial(optim.Adam, fused=True), rho=0.1)
            for _ in range(3):
                optimizer.step(partial(backward, weights, optimizer))
    finally:
        kernels.call = original
    return found


def backward(weights: list[nn.Parameter], optimizer: Any) -> Tensor:
    """A closure's work."""
    optimizer.zero_grad()
    loss = torch.stack([weight.square().sum() for weight in weights]).sum()
    loss.backward()
    return loss.detach()


def copied(value: Any) -> Any:
    """The same argument in memory of its own, which a wrong call may spoil."""
    if isinstance(value, Tensor):
        return value.detach().clone(memory_format=torch.contiguous_format)
    if isinstance(value, Arrays):
        KEPT.append([torch.zeros(int(size), dtype=value.wanted.dtype) for size in value.sizes])
        return Arrays.of(KEPT[-1])
    return value[:] if isinstance(value, array) else value


KEPT: list[list[Tensor]] = []
"""tensors whose addresses are in arguments"""


def wrong(value: Any) -> Iterator[tuple[str, Any]]:
    """What may stand in place of an argument and must not."""
    if isinstance(value, Tensor):
        other = torch.float64 if value.dtype == torch.float32 else torch.int32
        yield "of another dtype", value.to(other)
        yield "on the meta device", value.to("meta")
        yield "sparse", value.float().reshape(-1).to_sparse()
        yield "of numpy", value.numpy()
        if value.numel() > 1:
            yield "not contiguous", torch.stack([value, value], dim=-1)[..., 0]
    elif isinstance(value, Arrays):
        yield "of another dtype", Arrays.of([t.double() for t in KEPT[-1]])
        yield "a list", [torch.zeros(3)]
    elif isinstance(value, array):
        yield "of another type", array("f", [1.0] * len(value))
    elif isinstance(value, float):
        yield "an int", 1
    elif isinstance(value, int):
        yield "a float", float(value)
        yield "a bool", True
    if value is not None:
        yield "an address", value.data_ptr() if isinstance(value, Tensor) else "x"


def resized(value: Any) -> Iterator[tuple[str, Any]]:
    """Other lengths of an array, other counts."""
    if isinstance(value, Tensor):
        flat = value.reshape(-1)
        yield "longer", torch.cat([flat, flat.new_zeros(1)])
        yield "twice as long", torch.cat([flat, flat, flat.new_zeros(1)])
        if len(flat):
            yield "shorter", flat[:-1].clone()
    elif isinstance(value, array):
        yield "longer", array(value.typecode, [*value, value[0]])
        yield "shorter", value[:-1]
    elif isinstance(value, Arrays):
        tensors = [torch.zeros(size, dtype=value.wanted.dtype) for size in value.sizes]
        for name, changed in (("fewer", tensors[:-1]), ("other sizes", [torch.zeros(99), *tensors[1:]])):
            KEPT.append(changed)
            yield name, Arrays.of(changed)
    elif type(value) is int:
        yield "one more", value + 1
        yield "one less", value - 1


def attempts(name: str, call: Call) -> Iterator[tuple[str, tuple[Any, ...], Call]]:
    """Descriptions of wrong calls, and what is given by position and by name."""
    prototype = prototypes()[name]
    by_name = bool(prototype.structs)

    def given(changed: Call) -> tuple[tuple[Any, ...], Call]:
        return ((), changed) if by_name else (tuple(changed.values()), {})

    used = " ".join(p.size or "" for p in prototype.parameters).replace("(", " ").replace(")", " ").split()
    for parameter in prototype.parameters:
        own, value = parameter.name, call[parameter.name]
        yield f"{own} dropped", *given({k: v for k, v in call.items() if k != own})
        if by_name:
            yield f"{own} under another name", *given({(f"{k}_" if k == own else k): v for k, v in call.items()})
            yield f"{own} twice", (value,), call
        else:
            doubled = [v for k, v in call.items() for v in ([v, v] if k == own else [v])]
            yield f"{own} twice", tuple(doubled), {}
        if not parameter.optional:
            yield f"{own} None", *given(call | {own: None})
        for words, changed in wrong(value):
            yield f"{own} {words}", *given(call | {own: changed})
        alone = parameter.size is not None and parameter.size.isidentifier() and used.count(parameter.size) == 1
        free = alone and parameter.size not in call
        if own not in FLAGS and not free:
            for words, changed in resized(value):
                yield f"{own} {words}", *given(call | {own: changed})
    counts = [p.name for p in prototype.parameters if p.kind == "count" and p.name not in FLAGS]
    for one, other in combinations(counts, 2):
        if call[one] != call[other]:
            yield f"{one} and {other} exchanged", *given(call | {one: call[other], other: call[one]})


def others(name: str, call: Call) -> bool:
    """Whether a call in the other precision is refused, too."""
    by_name = bool(prototypes()[name].structs)
    try:
        kernels.call(name, torch.float64, *(() if by_name else call.values()), **(call if by_name else {}))
    except (TypeError, ValueError):
        return True
    return not any(parameter.element == "real" for parameter in prototypes()[name].parameters)


def main() -> None:
    """Print what was not refused, and which functions were not called."""
    if not kernels.fits(torch.ones(1, dtype=torch.float64)):
        print("there is no library for double precision")
        return
    calls = record()
    for name in sorted(prototypes().keys() - calls.keys()):
        print(f"{name} was not called")
    made = 0
    for name, known in calls.items():
        for call in known:
            for words, arguments, fields in attempts(name, call):
                made += 1
                try:
                    kernels.call(name, torch.float32, *arguments, **fields)
                except (TypeError, ValueError):
                    continue
                print(f"{name}: {words}: no exception")
            if not others(name, call):
                print(f"{name}: of the other precision: no exception")
    print("calls made:", made, file=sys.stderr)


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
