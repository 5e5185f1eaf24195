"""A simulated CUDA device: its tensors report cuda:0, compute on the CPU, and refuse to mix with CPU tensors.

It shows on any machine that nothing leaves the device by accident, and counts what costs time on a real one: kernel
launches, synchronisations (the CPU waits for a value), and copies to and from the device. Views are not counted. It
cannot show whether a kernel exists, how fast it is, or how it rounds.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_map

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
WAITS = {
    "_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "equal",
    "is_nonzero", "bincount",
}  # fmt: skip
"""operations whose result, or its shape, the CPU waits for"""
VIEWS = {
    "view", "_unsafe_view", "t", "transpose", "permute", "expand", "slice", "select", "split", "split_with_sizes",
    "unsqueeze", "squeeze", "detach", "alias", "as_strided", "unbind", "_reshape_alias", "lift_fresh", "narrow",
    "diagonal", "unfold", "empty_like", "new_empty", "new_empty_strided",
}  # fmt: skip
"""operations that launch nothing"""
READS = ("tolist", "item", "__float__", "__int__", "__bool__", "__index__")
FACTORIES = {
    "arange", "zeros", "ones", "empty", "full", "rand", "randn", "tensor", "as_tensor", "linspace", "eye", "randint",
    "randperm", "empty_strided",
}  # fmt: skip


@dataclass
class Counts:
    """What happened on the device, by operation and place in molsam."""

    launches: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    up: Counter[str] = field(default_factory=Counter)
    """copies to the device"""
    down: Counter[str] = field(default_factory=Counter)
    """copies from it; each is a synchronisation too"""

    def clear(self) -> None:
        """Start anew."""
        for counter in (self.launches, self.waits, self.up, self.down):
            counter.clear()

    def per_step(self, steps: int) -> tuple[float, float, float]:
        """Launches, synchronisations and copies to the device."""
        return (
            self.launches.total() / steps,
            (self.waits.total() + self.down.total()) / steps,
            self.up.total() / steps,
        )


COUNTS = Counts()
CAPTURED: list[Callable[[], object]] | None = None
"""what a graph repeats, while it is captured"""


def capture(function: Callable[[], object]) -> Callable[[], None]:
    """What a function does on the device, as a function that does it again in the same memory, as a CUDA graph does.

    Nothing else is repeated: numbers that Python has computed stay as they were. The CPU must not be needed.
    """
    global CAPTURED
    assert CAPTURED is None, "a capture within a capture"
    CAPTURED = again = []
    try:
        function()
    finally:
        CAPTURED = None

    def repeat() -> None:
        COUNTS.launches["graph"] += 1
        with _disable_current_modes(), torch.no_grad():
            for step in again:
                step()

    return repeat


def _launched(func: Any, args: Any, kwargs: Any, out: Any) -> Any:
    """The result of an operation on CPU tensors, of which a graph that is being captured takes note."""
    if CAPTURED is not None and not getattr(func, "__name__", "").startswith(("empty", "new_empty")):
        CAPTURED.append(lambda: _overwrite(out, func(*args, **kwargs)))
    return out


def _overwrite(old: Any, new: Any) -> None:
    for before, now in zip(tree_flatten(old)[0], tree_flatten(new)[0], strict=True):
        if isinstance(before, Tensor) and before.data_ptr() != now.data_ptr():
            before.copy_(now)


def _forbidden(what: str) -> None:
    if CAPTURED is not None:
        raise RuntimeError(f"{what}: operation not permitted when stream is capturing")


def _here(name: str) -> str:
    """The operation, and the innermost line of molsam that asks for it."""
    frame = sys._getframe(1)
    while frame is not None:  # type: ignore[redundant-expr]
        if "/molsam/" in frame.f_code.co_filename:
            return f"{name} {frame.f_code.co_filename.rsplit('/molsam/')[-1]}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return name


class OnDevice(Tensor):
    """A tensor of the device, around one of the CPU."""

    elem: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: CUDA)  # type: ignore[assignment]
    is_cpu = property(lambda self: False)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]

    @staticmethod
    def __new__(cls: Any, elem: Tensor) -> OnDevice:
        made = Tensor._make_wrapper_subclass(
            cls,
            elem.size(),
            strides=elem.stride(),
            storage_offset=elem.storage_offset(),
            dtype=elem.dtype,
            layout=elem.layout,
        )
        made.elem = elem
        return made

    @property
    def data(self) -> OnDevice:  # type: ignore[override]
        """The same memory, without the graph."""
        return OnDevice(self.elem.detach())

    @data.setter
    def data(self, other: OnDevice) -> None:
        self.elem = other.elem.detach()

    def __deepcopy__(self, memo: Any) -> OnDevice:
        copied = OnDevice(self.elem.detach().clone())
        memo[id(self)] = made = (
            torch.nn.Parameter(copied, self.requires_grad) if isinstance(self, torch.nn.Parameter) else copied
        )
        return made  # type: ignore[return-value]

    def get_device(self) -> int:
        """0"""
        return 0

    def data_ptr(self) -> int:
        """Refused: the C files must never be given an address of the device."""
        raise AssertionError("the address of a device's memory is asked for")

    def __repr__(self, **_: Any) -> str:
        return f"OnDevice({self.elem!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = func.overloadpacket.__name__
        _account(name, args, kwargs)
        if kwargs.get("device") is not None:
            kwargs["device"] = CPU
        given, named = tree_map(_inside, args), tree_map(_inside, kwargs)
        with _disable_current_modes():
            out = _launched(func, given, named, func(*given, **named))
        if name == "_local_scalar_dense":
            return out
        if name.endswith("_") and not name.endswith("__"):
            return None if name.startswith(("_foreach", "_fused")) else args[0]
        return tree_map(lambda x: OnDevice(x) if isinstance(x, Tensor) else x, out)


def _account(name: str, args: Any, kwargs: Any) -> None:
    """Count an operation; refuse one that mixes devices."""
    tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
    strangers = [x for x in tensors if not isinstance(x, OnDevice) and x.dim() > 0]
    if name == "copy_" and strangers:
        _forbidden(_here("copy_"))
        (COUNTS.up if isinstance(args[0], OnDevice) else COUNTS.down)[_here("copy_")] += 1
        return
    if strangers and name in ("index", "index_put", "index_put_", "_index_put_impl_"):
        _forbidden(_here(name))
        COUNTS.up[_here(name)] += 1  # torch sends an index itself
    elif strangers and not (name.startswith("_fused_adam") and all(x.dim() == 0 for x in strangers)):
        raise RuntimeError(f"{_here(name)}: expected all tensors to be on the same device, found cuda:0 and cpu")
    ragged = name == "repeat_interleave" and kwargs.get("output_size") is None
    index = args[1] if name.startswith("index") and isinstance(args[1], (list, tuple)) else ()
    masked = any(isinstance(x, Tensor) and x.dtype in (torch.bool, torch.uint8) for x in index)
    if name in WAITS or ragged or masked:
        _forbidden(_here(name))
        COUNTS.waits[_here(name)] += 1
    if name not in VIEWS:
        COUNTS.launches[name] += 1


def _inside(x: Any) -> Any:
    return x.elem if isinstance(x, OnDevice) else x


class _Up(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return OnDevice(x.detach().clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0].elem


class _Down(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Tensor:
        return x.elem.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return OnDevice(gradients[0])


RECURRENT = {"gru": (1, 1), "lstm": (1, 1), "gru_cell": (3, 7), "lstm_cell": (3, 7)}
"""Launches forward and backward of what the CPU does in many steps. A network is one call of cuDNN each way; a cell is
two products and a fused kernel, then that kernel's own backward, four products and two sums."""


class _Recurrent(torch.autograd.Function):
    """One of `RECURRENT`."""

    @staticmethod
    def forward(ctx: Any, func: Any, args: Any, *tensors: Tensor) -> Any:
        ctx.name = func.__name__
        COUNTS.launches[ctx.name] += RECURRENT[ctx.name][0]
        given = list(map(_inside, tensors))

        def run() -> Any:
            with torch.enable_grad():
                ctx.inputs = [t.detach().requires_grad_(t.is_floating_point()) for t in given]
                held = iter(ctx.inputs)
                out = func(*tree_map(lambda x: next(held) if isinstance(x, Tensor) else x, args))
            ctx.outputs = [out] if isinstance(out, Tensor) else list(out)
            return [out.detach() for out in ctx.outputs]

        each = tuple(map(OnDevice, _launched(run, (), {}, run())))
        return each[0] if len(each) == 1 else each

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        COUNTS.launches[f"{ctx.name}_backward"] += RECURRENT[ctx.name][1]
        given = list(map(_inside, gradients))
        places = [place for place, x in enumerate(ctx.inputs) if x.requires_grad]

        def run() -> Any:
            wanted = [ctx.inputs[place] for place in places]
            return torch.autograd.grad(ctx.outputs, wanted, given, allow_unused=True)

        found = iter(_launched(run, (), {}, run()))
        each = [next(found) if x.requires_grad else None for x in ctx.inputs]
        return None, None, *(None if grad is None else OnDevice(grad) for grad in each)


def _moved(x: Tensor, device: Any) -> Tensor:
    """A tensor on another device."""
    up = device is not None and torch.device(device).type == "cuda"
    tracked = x.requires_grad and torch.is_grad_enabled()
    if device is not None and up != isinstance(x, OnDevice):
        _forbidden(_here("to"))
    if up and not isinstance(x, OnDevice):
        COUNTS.up[_here("to")] += 1
        return _Up.apply(x) if tracked else OnDevice(x.detach().clone())
    if device is not None and not up and isinstance(x, OnDevice):
        COUNTS.down[_here("to")] += 1
        return _Down.apply(x) if tracked else x.elem.detach().clone()
    return x


class FakeCuda(TorchFunctionMode):
    """Sends what names the device there, whoever asks."""

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if func is Tensor.to:
            return self._to(*args, **kwargs)
        if name == "cpu" and isinstance(args[0], OnDevice):
            return _moved(args[0], CPU)
        if name == "cuda" and isinstance(args[0], Tensor):
            return _moved(args[0], CUDA)
        if name in READS and args and isinstance(args[0], OnDevice):
            _forbidden(_here(name))
            COUNTS.waits[_here(name)] += 1
            return getattr(args[0].elem, name)()
        if name in ("numpy", "__array__") and args and isinstance(args[0], OnDevice):
            raise TypeError("can't convert cuda:0 device type tensor to numpy; use Tensor.cpu() first")
        if name == "pin_memory":
            return args[0]
        if name in ("new_tensor", "new_zeros", "new_ones", "new_empty", "new_full") and isinstance(args[0], OnDevice):
            if name == "new_tensor":
                COUNTS.up[_here(name)] += 1
            elif name != "new_empty":
                COUNTS.launches[name] += 1
            kwargs.pop("device", None)
            make, given = getattr(args[0].elem, name), tree_map(_inside, args[1:])
            return OnDevice(_launched(make, given, kwargs, make(*given, **kwargs)))
        if name in RECURRENT and any(isinstance(x, OnDevice) for x in tree_flatten(args)[0]):
            return _Recurrent.apply(func, args, *(x for x in tree_flatten(args)[0] if isinstance(x, Tensor)))
        kwargs.pop("pin_memory", None)
        if name in FACTORIES and kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cuda":
            if name in ("tensor", "as_tensor"):
                COUNTS.up[_here(name)] += 1
            elif not name.startswith("empty"):
                COUNTS.launches[name] += 1
            kwargs["device"] = CPU
            return OnDevice(_launched(func, args, kwargs, func(*args, **kwargs)))
        return func(*args, **kwargs)

    @staticmethod
    def _to(x: Tensor, *rest: Any, **kwargs: Any) -> Tensor:
        device, others = kwargs.pop("device", None), list(rest)
        if others and isinstance(others[0], (str, torch.device)):
            device = others.pop(0)
        elif others and others[0] is None:
            others.pop(0)
        elif others and isinstance(others[0], Tensor):
            model = others.pop(0)
            device, kwargs["dtype"] = model.device, model.dtype
        dtypes = [o for o in [*others, kwargs.get("dtype")] if isinstance(o, torch.dtype)]
        moved = _moved(x, device)
        return Tensor.to(moved, dtypes[0]) if dtypes and dtypes[0] != moved.dtype else moved


@contextmanager
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counts]:
    """Code inside finds a CUDA device; what it does there is counted."""
    import safetensors.torch as st
    import torch._dynamo  # before what it checks is replaced
    import torch.optim.optimizer as optimizers

    pointer, size = st.storage_ptr, st.storage_size
    state = torch.zeros(16, dtype=torch.uint8)

    def take(state: Tensor, device: object = None) -> None:
        assert not isinstance(state, OnDevice), "RNG state must be a torch.ByteTensor"

    monkeypatch.setattr(st, "storage_ptr", lambda t: id(t.elem) if isinstance(t, OnDevice) else pointer(t))
    monkeypatch.setattr(st, "storage_size", lambda t: t.nbytes if isinstance(t, OnDevice) else size(t))
    monkeypatch.setattr(optimizers, "_foreach_supported_types", [*optimizers._foreach_supported_types, OnDevice])
    mode, engine = FakeCuda(), torch.autograd._engine_run_backward

    def backward(*args: Any, **kwargs: Any) -> Any:
        with mode:  # which is off while it handles Tensor.backward
            return engine(*args, **kwargs)

    monkeypatch.setattr(torch.autograd, "_engine_run_backward", backward)
    monkeypatch.setattr(torch, "_has_compatible_shallow_copy_type", lambda a, b: type(a) is type(b) is Tensor)
    for name, value in {
        "is_available": lambda: True,
        "get_rng_state_all": lambda: [state.clone()],
        "set_rng_state_all": lambda states: [take(one) for one in states],
        "get_rng_state": lambda device=None: state.clone(),
        "set_rng_state": take,
        "synchronize": lambda device=None: None,
        "is_bf16_supported": lambda *_: True,
        "current_device": lambda: 0,
        "max_memory_allocated": lambda device=None: 1 << 20,
        "reset_peak_memory_stats": lambda device=None: None,
        "get_device_name": lambda device=None: "no device at all",
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    COUNTS.clear()
    with mode:
        yield COUNTS
