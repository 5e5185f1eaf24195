"""Optional C kernels. Each has a plain torch form, which is used when there is no compiler.

Callers first ask `available(x)` or `fits(x)`, then `call` a function of c/ by its name. A call that does not match the
function's prototype raises an error before C runs.
"""

from __future__ import annotations

import ctypes
import functools
import re
import struct
from array import array
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, NoReturn

import torch
from torch import Tensor

from molsam.native import build
from molsam.native.prototypes import Parameter, Prototype, bounds, read, sizes

LANES = 16
"""largest number of elements of a vector in c/"""
PLAIN = (Tensor, torch.nn.Parameter)
DTYPES = {torch.float32: False, torch.float64: True}
"""the dtypes with C functions, and whether they are double"""
ELEMENTS = {"double": torch.float64, "float": torch.float32, "int64_t": torch.int64, "int16_t": torch.int16}
TYPECODES = {"q": torch.int64, "d": torch.float64}
"""typecode of a Python array -> dtype"""
TYPE_OF = {"int64_t": "q", "double": "d"}
"""C type -> typecode of a Python array"""
DTYPE, IS_CPU = attrgetter("dtype"), attrgetter("is_cpu")


def available(x: Tensor) -> bool:
    """Return whether c/ can compute with tensors like x and autocast is off, with which torch would use 16 bits."""
    return fits(x) and not torch.is_autocast_enabled("cpu")


def fits(x: Tensor) -> bool:
    """Return whether c/ can compute with tensors like x: plain float32 or float64 tensors on the CPU."""
    return type(x) in PLAIN and x.is_cpu and x.dtype in DTYPES and build.library(DTYPES[x.dtype]) is not None


def in_use() -> str:
    """Return which form of the kernels runs on the CPU: `compiled` or `torch`."""
    return "torch" if build.library(False) is None else "compiled"


def whole_vectors(width: int) -> int:
    """Return `width` rounded up to whole vectors."""
    return -(-width // LANES) * LANES


class _ListOf:
    """The type of a parameter that takes the addresses of several arrays."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __repr__(self) -> str:
        return f"Arrays of {self.dtype}"


_list_of = functools.cache(_ListOf)


class Arrays:
    """Several tensors for functions that take lists of them: their addresses and their lengths."""

    __slots__ = ("addresses", "sizes", "wanted")

    def __init__(self, dtype: torch.dtype, addresses: array[int], sizes: array[int]) -> None:
        self.wanted, self.addresses, self.sizes = _list_of(dtype), addresses, sizes

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> Arrays | None:
        """Return the tensors as `Arrays`; None unless all are contiguous, on the CPU, and of the same dtype of c/."""
        if not tensors or not fits(tensors[0]) or len(set(map(DTYPE, tensors))) > 1:
            return None
        if not all(map(IS_CPU, tensors)) or not all(map(Tensor.is_contiguous, tensors)):
            return None
        where, counts = map(Tensor.data_ptr, tensors), map(Tensor.numel, tensors)
        return cls(tensors[0].dtype, array("q", list(where)), array("q", list(counts)))

    def is_like(self, other: Arrays) -> bool:
        """Return whether the other has arrays of the same sizes and dtype."""
        return self.wanted is other.wanted and self.sizes == other.sizes


def call(name: str, dtype: torch.dtype, *arguments: Any, **fields: Any) -> None:
    """Call a function of c/ with its parameters in their order, or with the fields of its structs by name.

    Tensors must be contiguous and on the CPU, with this dtype where C says `real`; Python arrays must have the matching
    typecode. The number of threads, which is the first parameter in C, is added here.

    Raises:
        TypeError: an argument is missing, unknown, or of the wrong kind, dtype, device or layout.
        ValueError: an array's length differs from the prototype.
        MemoryError: the function could not allocate memory.
    """
    function = _function(name, dtype)
    try:
        failed = function.fast(torch.get_num_threads(), *arguments, **fields)
    except TypeError:  # an argument is missing or unknown
        failed = None
    if failed is None:
        function.refuse(arguments, fields)
    if failed:
        raise MemoryError(f"{name} could not allocate memory")


class _Function:
    """A function of c/ for one precision."""

    def __init__(self, prototype: Prototype, found: Callable[..., int], dtype: torch.dtype) -> None:
        self.prototype, self.found = prototype, found
        self.names = [parameter.name for parameter in prototype.parameters]
        self.known = set(self.names)
        self.bounds = bounds(prototype)
        self.wanted = [_wanted(parameter, dtype) for parameter in prototype.parameters]
        self.sizes = sizes(prototype)
        formats = {"count": "n", "number": "d"}
        letters = "".join(formats.get(p.kind, "P") for p in prototype.parameters)
        self.structs, at = list[tuple[int, int, struct.Struct]](), 0
        for count in prototype.structs:
            self.structs.append((at, at + count, struct.Struct(letters[at : at + count])))
            at += count
        each = {"d": ctypes.c_double, "n": ctypes.c_ssize_t, "P": ctypes.c_size_t}
        types: list[Any] = [ctypes.c_char_p] * len(self.structs) or [each[one] for one in letters]
        found.argtypes = [ctypes.c_ssize_t, *types]  # type: ignore[attr-defined]
        self.fast = self._compiled()
        """calls the function if every argument matches the prototype, else returns None; a function that takes structs
        gets its arguments by name"""

    def _compiled(self) -> Callable[..., int | None]:
        """Return a Python function generated for this prototype; a loop over the parameters would be three times
        slower."""
        # Names other than parameters begin with an underscore, because a parameter may be called `type`.
        spaces: dict[str, Any] = {"_found": self.found, "_Tensor": Tensor, "_Parameter": torch.nn.Parameter}
        spaces |= {"_array": array, "_Arrays": Arrays, "_type": type, "_len": len}
        conditions, pointers = [], []
        for parameter, wanted in zip(self.prototype.parameters, self.wanted, strict=True):
            name, code = parameter.name, TYPE_OF.get(parameter.element) if parameter.kind == "array" else None
            spaces[f"_w_{name}"] = wanted
            plain = f"(_type({name}) is _Tensor or _type({name}) is _Parameter) and {name}.dtype is _w_{name}"
            plain = f"{plain} and {name}.is_cpu and {name}.is_contiguous()"
            right, place, length = f"({plain})", f"{name}.data_ptr()", f"{name}.numel()"
            if parameter.kind in ("count", "number"):
                right, place, length = f"_type({name}) is _w_{name}", name, name
            elif parameter.kind == "arrays":
                right = f"(_type({name}) is _Arrays and {name}.wanted is _w_{name})"
                place, length = f"{name}.addresses.buffer_info()[0]", f"_len({name}.addresses)"
            elif code:
                right = f"({name}.typecode == {code!r} if _type({name}) is _array else {right})"
                place = f"({name}.buffer_info()[0] if _type({name}) is _array else {place})"
                length = f"(_len({name}) if _type({name}) is _array else {length})"
            if parameter.optional:
                right, place = f"({name} is None or {right})", f"(0 if {name} is None else {place})"
                length = f"(None if {name} is None else {length})"
            conditions += [right, f"((n_{name} := {length}) or True)"]
            pointers.append(place)
        for parameter in self.prototype.parameters:
            name, there = parameter.name, f"{parameter.name} is None or " if parameter.optional else ""
            if name in self.bounds:
                number = re.sub(r"\b(?!or\b)([a-zA-Z_]\w*)", r"n_\1", self.bounds[name])
                conditions.append(f"({there}n_{name} == {number})")
            if parameter.each:
                sizes = f"[1] * _len({name}.sizes) == {name}.sizes.tolist()"
                sizes = sizes if parameter.each == "1" else f"{name}.sizes == {parameter.each}"
                conditions.append(f"({there}{sizes})")
        for at, (first, end, packer) in enumerate(self.structs):
            spaces[f"_pack_{at}"] = packer.pack
            pointers[first:end] = [f"_pack_{at}({', '.join(pointers[first:end])})", *[""] * (end - first - 1)]
        given = ", ".join(["n_threads", *(["*"] if self.structs else []), *self.names])
        called = ", ".join(["n_threads", *filter(None, pointers)])
        text = f"lambda {given}: _found({called}) if {' and '.join(conditions)} else None"
        made: Callable[..., int | None] = eval(text, spaces)  # noqa: S307 - made from the prototypes of our own sources
        return made

    def refuse(self, given: tuple[Any, ...], fields: dict[str, Any]) -> NoReturn:
        """Raise TypeError or ValueError that names the argument that does not match the prototype."""
        arguments = self.ordered(given, fields) if fields or self.structs else given
        if len(arguments) != len(self.wanted):
            raise TypeError(f"{self.prototype.name} takes {', '.join(self.names)}, but got {len(arguments)} arguments")
        lengths = []
        for i, argument in enumerate(arguments):
            self._refuse(i, argument)
            lengths.append(_length(argument))
        for parameter, is_now, should_be in zip(
            self.prototype.parameters, lengths, self.sizes(torch.get_num_threads(), *lengths), strict=True
        ):
            if is_now != should_be:
                raise ValueError(
                    f"{self.prototype.name}: {parameter.name} has {is_now} elements; {parameter.size} is {should_be}"
                )
        for parameter in self.prototype.parameters:
            if parameter.each:
                raise ValueError(f"{self.prototype.name}: the arrays of {parameter.name} have the wrong sizes")
        raise AssertionError(f"{self.prototype.name}: every argument matches the prototype, yet the call was refused")

    def ordered(self, arguments: tuple[Any, ...], fields: dict[str, Any]) -> tuple[Any, ...]:
        """Return named arguments in the order of the parameters."""
        if arguments or not self.structs:
            raise TypeError(
                f"{self.prototype.name} takes its arguments only by {'name' if self.structs else 'position'}"
            )
        if fields.keys() != self.known:
            missing, more = sorted(self.known - fields.keys()), sorted(fields.keys() - self.known)
            raise TypeError(f"{self.prototype.name}: missing arguments {missing}, unknown arguments {more}")
        return tuple(map(fields.__getitem__, self.names))

    def _refuse(self, place: int, argument: Any) -> None:
        """Raise TypeError if an argument's kind does not match the prototype."""
        name, wanted = self.names[place], self.wanted[place]
        if isinstance(argument, Tensor):
            layout = "contiguous" if argument.layout is torch.strided and argument.is_contiguous() else "not contiguous"
            given = f"a {type(argument).__name__} of {argument.dtype} on {argument.device}, {layout}"
            right = type(argument) in PLAIN and argument.dtype is wanted and argument.is_cpu and layout == "contiguous"
        else:
            given = f"{type(argument).__name__} {argument!r}"[:80]
            right = type(argument) is wanted or (argument is None and self.prototype.parameters[place].optional)
            right = right or (isinstance(argument, array) and TYPECODES.get(argument.typecode) is wanted)
            right = right or (isinstance(argument, Arrays) and argument.wanted is wanted)
        if not right:
            raise TypeError(f"{self.prototype.name}: {name} must be {_in_words(wanted)}, not {given}")


def _length(argument: Any) -> Any:
    """Return a number itself, or the length of an array; None for a missing array."""
    if isinstance(argument, Tensor):
        return argument.numel()
    if isinstance(argument, Arrays):
        return len(argument.addresses)
    return len(argument) if isinstance(argument, array) else argument


def _wanted(parameter: Parameter, dtype: torch.dtype) -> Any:
    """Return the type of a number, the dtype of an array, or the `_ListOf` of a list of arrays."""
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
    """Return the functions of c/ by name."""
    return read(path.read_text(encoding="utf-8") for path in build.SOURCES)


@functools.cache
def _function(name: str, dtype: torch.dtype) -> _Function:
    if name not in prototypes():
        raise TypeError(f"c/ has no function {name}")
    compiled = build.library(DTYPES[dtype])
    if compiled is None:
        raise TypeError(f"{name} was called, but the library is not compiled")
    return _Function(prototypes()[name], getattr(compiled, name), dtype)
