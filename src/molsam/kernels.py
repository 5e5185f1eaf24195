"""Loops in C for what torch can only do as many calls; without a C compiler torch does it all the same.

The files of c/ are compiled on first use (some seconds) and kept in the cache folder, for this processor.
`MOLSAM_KERNELS=torch` turns them off. Who has two ways asks `available(x)` or `fits(x)`, and calls their functions by `call`.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from molsam.files import cache_folder

log = logging.getLogger(__name__)
SOURCES = sorted(Path(__file__).with_name("c").glob("*.[ch]"))
FLAGS = ("-std=gnu11", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC")
LANES = 16
"""the most numbers that a vector has in c/"""
INTEGERS = (torch.int64, torch.int16)
PLAIN = (Tensor, torch.nn.Parameter)
DTYPES = {torch.float32: (), torch.float64: ("-DDOUBLE",)}


class _Switch:
    on = True


def available(x: Tensor) -> bool:
    """Whether c/ can compute with tensors like x, and torch would not compute in 16 bits (autocast)."""
    return fits(x) and not torch.is_autocast_enabled("cpu")


def fits(x: Tensor) -> bool:
    """Whether c/ can compute with tensors like x: plain float32 or float64 ones of the CPU."""
    return type(x) in PLAIN and x.is_cpu and x.dtype in DTYPES and _Switch.on and _library(x.dtype) is not None


@contextlib.contextmanager
def torch_only() -> Iterator[None]:
    """Inside, torch computes everything, so that who counts its operations sees all of them."""
    before, _Switch.on = _Switch.on, False
    try:
        yield
    finally:
        _Switch.on = before


def in_use() -> str:
    """What computes on the CPU: compiled or torch."""
    return "torch" if _library(torch.float32) is None else "compiled"


def whole_vectors(width: int) -> int:
    """The width of a row that holds `width` numbers in whole vectors."""
    return -(-width // LANES) * LANES


def call(name: str, dtype: torch.dtype, *arguments: Tensor | array[Any] | int) -> None:
    """Call a function of c/ with the number of threads, and these: contiguous tensors, arrays and whole numbers.

    Raises MemoryError if it found no memory.
    """
    values = [torch.get_num_threads()]
    for argument in arguments:
        if type(argument) is int:
            values.append(argument)
        elif type(argument) is array:
            values.append(argument.buffer_info()[0])
        else:
            assert isinstance(argument, Tensor), (name, argument)
            assert argument.is_cpu and argument.is_contiguous(), name  # noqa: PT018 - it is asked hundreds of times a step
            assert argument.dtype is dtype or argument.dtype in INTEGERS, name
            values.append(argument.data_ptr())
    if _function(name, dtype, len(values))(*values):
        raise MemoryError(f"no memory for {name}")


@functools.cache
def _function(name: str, dtype: torch.dtype, count: int) -> Callable[..., int]:
    """A function of c/ that takes `count` numbers and addresses, both as wide as a machine word."""
    function: Callable[..., int] = getattr(_library(dtype), name)
    function.argtypes = [ctypes.c_size_t] * count  # type: ignore[attr-defined]
    return function


@functools.cache
def _library(dtype: torch.dtype) -> ctypes.CDLL | None:
    """c/ for this type, compiled if it is not in the cache; None where that cannot be."""
    if os.environ.get("MOLSAM_KERNELS") == "torch" or platform.system() != "Linux":
        return None
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        log.warning(
            "There is no C compiler (gcc), so torch computes what C would: CoMPT, CMPNN, DMPNN and GROVER are slower."
        )
        return None
    flags = [*FLAGS, *DTYPES[dtype]]
    if platform.machine() == "x86_64":
        flags.append("-mprefer-vector-width=512")
    try:
        known = [*(path.read_text(encoding="utf-8") for path in SOURCES), compiler, *flags, _processor()]
        digest = hashlib.sha256("\n".join(known).encode()).hexdigest()[:24]
        path = cache_folder(None) / "kernels" / f"{digest}.so"
        if not path.exists():
            _compile([compiler, *flags], path)
        return ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError) as error:
        reason = str(getattr(error, "stderr", None) or error).strip()
        log.warning("The C files of molsam cannot be compiled, so torch computes instead, more slowly: %s", reason)
        return None


def _compile(command: list[str], path: Path) -> None:
    """Into its place in one move: processes that start together each compile, and the last one's file stays."""
    log.info("Compiling molsam's C files for this processor: some seconds, once.")
    path.parent.mkdir(parents=True, exist_ok=True)
    files = [source for source in SOURCES if source.suffix == ".c"]
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        subprocess.run([*command, "-o", made, *files, "-lm"], check=True, capture_output=True, text=True, timeout=300)
        os.replace(made, path)


def _processor() -> str:
    """What -march=native depends on."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
