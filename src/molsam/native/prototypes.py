"""Read the prototypes of the C functions from their sources: the kind of each parameter and the length of its array.

The sources are the only place that states them. The words after a parameter's name are macros that expand to nothing
for the compiler: `OF(n * d)` is the length of the array; `EACH(sizes)`, for a list of arrays, names the array with
their lengths; `OR_NULL` says that the array may be missing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
FUNCTION = re.compile(r"^int (\w+)\(", re.MULTILINE)
STRUCT = re.compile(r"typedef struct \{([^{}]*)\} (\w+);")
STRUCTS = re.compile(r"const (\w+) \*\w+")
DECLARATION = re.compile(r"(?:const )?(\w+) (\*const \*|\*)?(\w+)(?: OF\((.+?)\))?(?: EACH\((\w+)\))?( OR_NULL)?")
ELEMENTS = ("real", "double", "float", "int64_t", "int16_t")
NUMBERS = {("ptrdiff_t", ""): "count", ("double", ""): "number"}


class Parameter(NamedTuple):
    """A parameter of a C function, or a field of a struct that it takes."""

    name: str
    kind: str
    """count, number (a double), array, or arrays (addresses of several)"""
    element: str
    """the C type of an array's elements"""
    size: str | None
    """length of the array, as an expression in the names of counts; None for a number"""
    each: str | None
    """for a list of arrays: the name of the array with their lengths, or 1"""
    optional: bool


class Prototype(NamedTuple):
    """A C function `int name(ptrdiff_t threads, ...)`."""

    name: str
    structs: list[int]
    """number of fields of each of its structs; empty if it takes its parameters one by one"""
    parameters: list[Parameter]
    """the parameters after `threads`, with the fields in place of the structs"""


def read(sources: Iterable[str]) -> dict[str, Prototype]:
    """Return the functions that the sources define and export, by name.

    Raises ValueError for a declaration of an unknown form, or an array without a length.
    """
    texts = [COMMENT.sub(" ", source) for source in sources]
    structs = {name: fields for text in texts for fields, name in STRUCT.findall(text)}
    found = (_prototype(text, match, structs) for text in texts for match in FUNCTION.finditer(text))
    return {prototype.name: prototype for prototype in found}


def sizes(prototype: Prototype) -> Callable[..., list[Any]]:
    """Return a function of `threads` and each parameter's value (a number) or length (an array), which returns what
    they must be.

    A name in a size that is not a parameter takes its value from the first array that uses it.
    """
    found, wanted = bounds(prototype), []
    for parameter in prototype.parameters:
        text = found.get(parameter.name, parameter.name)
        wanted.append(f"None if {parameter.name} is None else {text}" if parameter.optional else text)
    names = ", ".join(p.name for p in prototype.parameters)
    code = compile(f"lambda threads, {names}: [{', '.join(wanted)}]", prototype.name, "eval")
    made: Callable[..., list[Any]] = eval(code, {"__builtins__": {}})  # noqa: S307 - of our own sources
    return made


def bounds(prototype: Prototype) -> dict[str, str]:
    """Return the required length of each array, as a Python expression in `threads`, the counts, and names of sizes.

    A name of a size that is not a parameter gets its value where it is first used.
    """
    known = {"threads", *(p.name for p in prototype.parameters)}
    return {p.name: _bound(p, known) for p in prototype.parameters if p.size is not None}


def _prototype(text: str, match: re.Match[str], structs: dict[str, str]) -> Prototype:
    first, *rest = _split(_within_brackets(text, match.end()), ",")
    if first != "ptrdiff_t threads":
        raise ValueError(f"{match[1]} must take `ptrdiff_t threads` first, not {first!r}")
    fields = [_fields(structs[found[1]]) for one in rest if (found := STRUCTS.fullmatch(one)) and found[1] in structs]
    if fields and len(fields) < len(rest):
        raise ValueError(f"{match[1]} must take structs alone or no struct")
    parameters = [field for one in fields for field in one] or list(map(_parameter, rest))
    return Prototype(match[1], list(map(len, fields)), parameters)


def _fields(text: str) -> list[Parameter]:
    """Return the fields of a struct: `const real *x OF(n), *y OF(n);` are two."""
    found = []
    for declaration in _split(text, ";"):
        first, *others = _split(declaration, ",")
        base = re.match(r"(?:const )?\w+", first)
        assert base is not None, declaration
        found += [_parameter(one) for one in (first, *(f"{base[0]} {other}" for other in others))]
    return found


def _parameter(text: str) -> Parameter:
    match = DECLARATION.fullmatch(text)
    if match is None:
        raise ValueError(f"the declaration {text!r} has an unknown form")
    element, stars, name, size, each, optional = match.groups()
    kind = NUMBERS.get((element, stars or ""), "arrays" if stars == "*const *" else "array" if stars else "")
    if not kind or (stars and element not in ELEMENTS):
        raise ValueError(f"the declaration {text!r} has an unknown type")
    if stars and size is None:
        raise ValueError(f"the declaration {text!r} has no length; add OF(...)")
    return Parameter(name, kind, element, size, each, optional is not None)


def _bound(parameter: Parameter, known: set[str]) -> str:
    """Return the length of an array as a Python expression; it assigns a new name where the name is first used."""
    assert parameter.size is not None
    tree = ast.parse(parameter.size, mode="eval")
    allowed = (ast.Expression, ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Name, ast.Load, ast.Constant)
    if not all(isinstance(node, allowed) for node in ast.walk(tree)):
        raise ValueError(f"the size of {parameter.name}, {parameter.size}, is not a sum of products")
    new = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - known
    if not new:
        return parameter.size
    factors = parameter.size.split(" * ")
    if len(new) > 1 or not new <= set(factors):
        raise ValueError(f"the size of {parameter.name}, {parameter.size}, has an undefined name")
    known |= new
    (name,) = new
    factors.remove(name)
    others = " * ".join(factors) or "1"
    return f"({name} := {parameter.name} // ({others} or 1)) * {others}"


def _within_brackets(text: str, start: int) -> str:
    depth, end = 1, start
    while depth:
        depth += {"(": 1, ")": -1}.get(text[end], 0)
        end += 1
    return text[start : end - 1]


def _split(text: str, mark: str) -> list[str]:
    """Split a text at the marks outside brackets; each part gets single spaces."""
    return [" ".join(part.split()) for part in _parts(text, mark) if part.strip()]


def _parts(text: str, mark: str) -> Iterator[str]:
    depth, start = 0, 0
    for at, letter in enumerate(text):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == mark and not depth:
            yield text[start:at]
            start = at + 1
    yield text[start:]
