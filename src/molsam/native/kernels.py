"""Optional C kernels. Each has a plain torch form, which is used when there is no compiler.

Callers ask `available(x)` or `fits(x)` first, then `call` a function of c/ by its name. A call that does not match the
function's prototype raises before C is entered.
"""

from __future__ import annotations

import ctypes
import functools
import struct
from array import array
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from molsam.native import build
from molsam.native.prototypes import Parameter, Prototype, read, sizes

LANES = 16
"""the most numbers that a vector has in c/"""
PLAIN = (Tensor, torch.nn.Parameter)
DTYPES = {torch.float32: False, torch.float64: True}
"""and whether they are double"""
ELEMENTS = {"double": torch.float64, "float": torch.float32, "int64_t": torch.int64, "int16_t": torch.int16}
TYPECODES = {"q": torch.int64, "d": torch.float64}
"""of Python's arrays"""
DTYPE, IS_CPU = attrgetter("dtype"), attrgetter("is_cpu")


def available(x: Tensor) -> bool:
    """Whether c/ can compute with tensors like x, and torch would not compute in 16 bits (autocast)."""
    return fits(x) and not torch.is_autocast_enabled("cpu")


def fits(x: Tensor) -> bool:
    """Whether c/ can compute with tensors like x: plain float32 or float64 ones of the CPU."""
    return type(x) in PLAIN and x.is_cpu and x.dtype in DTYPES and build.library(DTYPES[x.dtype]) is not None


def in_use() -> str:
    """What computes on the CPU: compiled or torch."""
    return "torch" if build.library(False) is None else "compiled"


def whole_vectors(width: int) -> int:
    """The width of a row that holds `width` numbers in whole vectors."""
    return -(-width // LANES) * LANES


class _ListOf:
    """What a parameter wants that takes the addresses of several arrays."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __repr__(self) -> str:
        return f"Arrays of {self.dtype}"


_list_of = functools.cache(_ListOf)


class Arrays:
    """Several tensors for functions that take lists of them: where they are in memory and how long they are."""

    __slots__ = ("addresses", "sizes", "wanted")

    def __init__(self, dtype: torch.dtype, addresses: array[int], sizes: array[int]) -> None:
        self.wanted, self.addresses, self.sizes = _list_of(dtype), addresses, sizes

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> Arrays | None:
        """The tensors' addresses; None if they are not all contiguous ones of the CPU, alike in a precision of c/."""
        if not tensors or not fits(tensors[0]) or len(set(map(DTYPE, tensors))) > 1:
            return None
        if not all(map(IS_CPU, tensors)) or not all(map(Tensor.is_contiguous, tensors)):
            return None
        where, counts = map(Tensor.data_ptr, tensors), map(Tensor.numel, tensors)
        return cls(tensors[0].dtype, array("q", list(where)), array("q", list(counts)))

    def is_like(self, other: Arrays) -> bool:
        """Whether the other has arrays of the same sizes and precision."""
        return self.wanted is other.wanted and self.sizes == other.sizes


def call(name: str, dtype: torch.dtype, *arguments: Any, **fields: Any) -> None:
    """Call a function of c/: with its parameters in their order, or the fields of its structs by name.

    Tensors must be contiguous ones of the CPU, of this dtype where C says `real`; so must arrays of Python. The number of
    threads, which comes first in C, is added here.

    Raises:
        TypeError: an argument is missing, superfluous, or of another kind, dtype, device or layout.
        ValueError: an array has another length than the prototype says.
        MemoryError: the function found no memory.
    """
    function = _function(name, dtype)
    if fields or function.packers:
        arguments = function.ordered(arguments, fields)
    if function(arguments):
        raise MemoryError(f"no memory for {name}")


class _Function:
    """A function of c/ for one precision."""

    def __init__(self, prototype: Prototype, found: Callable[..., int], dtype: torch.dtype) -> None:
        self.prototype, self.found = prototype, found
        self.names = [parameter.name for parameter in prototype.parameters]
        self.known = set(self.names)
        self.wanted = [_wanted(parameter, dtype) for parameter in prototype.parameters]
        self.optional = [parameter.optional for parameter in prototype.parameters]
        self.sizes = sizes(prototype)
        place = self.names.index
        each_of = [(p.name, p.each) for p in prototype.parameters if p.each]
        self.each = [(place(name), None if each == "1" else place(each)) for name, each in each_of]
        formats = ["d" if p.kind == "number" else "n" if p.kind == "count" else "P" for p in prototype.parameters]
        self.packers, at = list[tuple[int, int, struct.Struct]](), 0
        for count in prototype.structs:
            self.packers.append((at, at + count, struct.Struct("".join(formats[at : at + count]))))
            at += count
        each = {"d": ctypes.c_double, "n": ctypes.c_ssize_t, "P": ctypes.c_size_t}
        types: list[Any] = [ctypes.c_char_p] * len(self.packers) or [each[one] for one in formats]
        found.argtypes = [ctypes.c_ssize_t, *types]  # type: ignore[attr-defined]

    def ordered(self, arguments: tuple[Any, ...], fields: dict[str, Any]) -> tuple[Any, ...]:
        """Named arguments in the order of the parameters."""
        if arguments or not self.packers:
            raise TypeError(
                f"{self.prototype.name} takes its arguments by {'name' if self.packers else 'position'} alone"
            )
        if fields.keys() != self.known:
            missing, more = sorted(self.known - fields.keys()), sorted(fields.keys() - self.known)
            raise TypeError(f"{self.prototype.name} was not given {missing} and does not know {more}")
        return tuple(map(fields.__getitem__, self.names))

    def __call__(self, arguments: Sequence[Any]) -> int:
        if len(arguments) != len(self.wanted):
            raise TypeError(
                f"{self.prototype.name} takes {', '.join(self.names)}; it was given {len(arguments)} arguments"
            )
        threads = torch.get_num_threads()
        values: list[Any] = []
        lengths: list[Any] = []
        for wanted, argument in zip(self.wanted, arguments, strict=True):
            kind = type(argument)
            if kind is Tensor or kind is torch.nn.Parameter:
                if argument.dtype is not wanted or not argument.is_cpu or not argument.is_contiguous():
                    self._refuse(arguments)
                values.append(argument.data_ptr())
                lengths.append(argument.numel())
            elif kind is wanted:
                values.append(argument)
                lengths.append(argument)
            elif kind is array and TYPECODES.get(argument.typecode) is wanted:
                values.append(argument.buffer_info()[0])
                lengths.append(len(argument))
            elif kind is Arrays and argument.wanted is wanted:
                values.append(argument.addresses.buffer_info()[0])
                lengths.append(len(argument.addresses))
            elif argument is None and self.optional[len(values)]:
                values.append(0)
                lengths.append(None)
            else:
                self._refuse(arguments)
        if self.sizes(threads, *lengths) != lengths:
            self._refuse_sizes(threads, lengths)
        for at, counts in self.each:
            if (arrays := arguments[at]) is not None:
                right = (
                    [1] * len(arrays.sizes) == arrays.sizes.tolist()
                    if counts is None
                    else arrays.sizes == arguments[counts]
                )
                if not right:
                    raise ValueError(f"{self.prototype.name}: the arrays of {self.names[at]} have other sizes")
        if self.packers:
            return self.found(threads, *[packer.pack(*values[a:b]) for a, b, packer in self.packers])
        return self.found(threads, *values)

    def _refuse(self, arguments: Sequence[Any]) -> None:
        """Raise TypeError for the first argument that is not what the prototype says."""
        for name, wanted, argument in zip(self.names, self.wanted, arguments, strict=True):
            if isinstance(argument, Tensor):
                layout = (
                    "contiguous" if argument.layout is torch.strided and argument.is_contiguous() else "not contiguous"
                )
                given = f"a {type(argument).__name__} of {argument.dtype} on {argument.device}, {layout}"
                right = (
                    type(argument) in PLAIN and argument.dtype is wanted and argument.is_cpu and layout == "contiguous"
                )
            else:
                given = f"{type(argument).__name__} {argument!r}"[:80]
                right = type(argument) is wanted or (argument is None and self.optional[self.names.index(name)])
                right = right or (isinstance(argument, array) and TYPECODES.get(argument.typecode) is wanted)
                right = right or (isinstance(argument, Arrays) and argument.wanted is wanted)
            if not right:
                raise TypeError(f"{self.prototype.name}: {name} must be {_in_words(wanted)}, not {given}")
        raise AssertionError(f"{self.prototype.name}: every argument is as it should be")

    def _refuse_sizes(self, threads: int, lengths: list[Any]) -> None:
        """Raise ValueError for the first array that is too short or too long."""
        for parameter, is_now, should_be in zip(
            self.prototype.parameters, lengths, self.sizes(threads, *lengths), strict=True
        ):
            if is_now != should_be:
                raise ValueError(
                    f"{self.prototype.name}: {parameter.name} has {is_now} numbers; {parameter.size} makes {should_be}"
                )


def _wanted(parameter: Parameter, dtype: torch.dtype) -> Any:
    """The type of a number, the dtype of an array, or what stands for arrays of a dtype."""
    if parameter.kind in ("count", "number"):
        return int if parameter.kind == "count" else float
    element = dtype if parameter.element == "real" else ELEMENTS[parameter.element]
    return _list_of(element) if parameter.kind == "arrays" else element


def _in_words(wanted: Any) -> str:
    if isinstance(wanted, type):
        return f"a plain {wanted.__name__}"
    return f"a contiguous tensor of {wanted} on the CPU" if isinstance(wanted, torch.dtype) else repr(wanted)


@functools.cache
def prototypes() -> dict[str, Prototype]:
    """The functions of c/ by name."""
    return read(path.read_text(encoding="utf-8") for path in build.SOURCES)


@functools.cache
def _function(name: str, dtype: torch.dtype) -> _Function:
    if name not in prototypes():
        raise TypeError(f"c/ has no function {name}")
    compiled = build.library(DTYPES[dtype])
    if compiled is None:
        raise TypeError(f"{name} was called, but there is no compiled library")
    return _Function(prototypes()[name], getattr(compiled, name), dtype)
