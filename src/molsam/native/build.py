"""Compile the files of c/ on first use, keep the library in the cache folder, and load it once it is verified.

A library's name is a hash of the sources and of the processor, not of the compiler: where the compiler has gone, a library
that it left still serves. Beside it lies the library's own checksum. It is loaded only if that agrees and if nobody but its
owner, who is the user or root, may write it or its folder; else it is compiled again.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import json
import logging
import os
import platform
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from molsam.files import cache_folder

log = logging.getLogger(__name__)
FOLDER = Path(__file__).with_name("c")
SOURCES = sorted(FOLDER.rglob("*.[ch]"))
FLAGS = (
    "-std=gnu11",
    "-O3",
    "-march=native",
    "-mprefer-vector-width=512",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fopenmp",
    "-shared",
    "-fPIC",
)
LIMIT = 60.0
"""seconds that a compiler may take"""
OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
SLOWER = "torch computes instead; CoMPT, CMPNN, DMPNN and GROVER are slower."


class UnusableError(Exception):
    """There is no library, for this reason; `known` if that has been said before."""

    def __init__(self, reason: str, known: bool = False) -> None:
        super().__init__(reason)
        self.known = known


@functools.cache
def library(double: bool) -> ctypes.CDLL | None:
    """Return the functions of c/ for numbers of 64 bits or of 32; compiled if need be, None where that cannot be.

    `MOLSAM_KERNELS=torch` turns them off.
    """
    if os.environ.get("MOLSAM_KERNELS") == "torch":
        return None
    try:
        return _verified(double)
    except (UnusableError, OSError) as error:
        level = logging.INFO if getattr(error, "known", False) else logging.WARNING
        _say_once(level, f"molsam's C kernels are not used: {str(error).strip()}; {SLOWER}")
        return None


@functools.cache
def _say_once(level: int, message: str) -> None:
    log.log(level, message)


def _verified(double: bool) -> ctypes.CDLL:
    """Return the library, which is compiled if the one in the cache is missing, damaged or of somebody else."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise UnusableError(f"they are for Linux on x86_64, this is {platform.system()} on {platform.machine()}")
    flags = [*FLAGS, *(["-DDOUBLE"] if double else [])]
    path = cache_folder(None) / "native" / f"{_digest(flags)}.so"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_ours(os.stat(path.parent)):
        raise UnusableError(
            f"others may write {path.parent}, so nothing in it is loaded; `chmod go-w` it if it is yours, or set MOLSAM_CACHE"
        )
    if not _is_intact(path):
        with _lock(path.with_suffix(".lock")):
            if not _is_intact(path):  # nobody has compiled it meanwhile
                _compile(flags, path)
    return ctypes.CDLL(str(path))


def _digest(flags: list[str]) -> str:
    """Return a hash of all that the library depends on, but for the compiler."""
    sources = (text for path in SOURCES for text in (str(path.relative_to(FOLDER)), path.read_text(encoding="utf-8")))
    return hashlib.sha256("\n".join([*sources, *flags, _processor()]).encode()).hexdigest()[:24]


def _processor() -> str:
    """Return what -march=native depends on."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags"))}))


def _is_ours(status: os.stat_result) -> bool:
    """Return whether only the user or root may write it."""
    return status.st_uid in (os.geteuid(), 0) and not status.st_mode & OTHERS_MAY_WRITE


def _is_intact(path: Path) -> bool:
    """Return whether the library and its checksum are there, are ours and agree."""
    found = []
    for each in (path, path.with_suffix(".sha256")):
        try:
            with open(os.open(each, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
                if not _is_ours(os.fstat(file.fileno())):
                    return False
                found.append(file.read())
        except OSError:
            return False
    return hashlib.sha256(found[0]).hexdigest().encode() == found[1]


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Only one process at a time is inside."""
    import fcntl  # here, because Windows has none

    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "wb") as file:
        deadline = time.monotonic() + 2 * LIMIT
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise UnusableError("another process has been compiling them for too long") from None
                time.sleep(0.05)
        yield


def _compile(flags: list[str], path: Path) -> None:
    """Put a library and its checksum at `path`. A compiler that failed is remembered, and asked again once it has changed."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise UnusableError("there is no C compiler (gcc)")
    failure = path.with_suffix(".failed")
    if (known := _reason(failure, compiler)) is not None:
        raise UnusableError(known, known=True)
    log.info("Compiling molsam's C kernels for this processor; this takes some seconds, once.")
    made = path.with_suffix(".tmp")
    version = None
    try:
        version = _run([compiler, "--version"])
        if "clang" in version.lower():
            raise UnusableError(f"{compiler} is clang, and they need GCC")
        files = [str(source) for source in SOURCES if source.suffix == ".c"]
        _run([compiler, *flags, f"-I{FOLDER / 'shared'}", "-o", str(made), *files, "-lm"])
    except UnusableError as error:
        made.unlink(missing_ok=True)
        record = {"compiler": _file(compiler), "version": version, "reason": str(error)}
        _put(failure, json.dumps(record).encode())
        raise
    data = made.read_bytes()
    made.unlink()
    _put(path.with_suffix(".sha256"), hashlib.sha256(data).hexdigest().encode())
    _put(path, data)
    failure.unlink(missing_ok=True)


def _file(compiler: str) -> list[Any]:
    """Return what changes when a compiler is exchanged."""
    status = os.stat(compiler)
    return [os.path.realpath(compiler), status.st_size, status.st_mtime_ns]


def _reason(failure: Path, compiler: str) -> str | None:
    """Why this very compiler failed before; None if it did not."""
    try:
        known = json.loads(failure.read_bytes())
        same = known["compiler"] == _file(compiler)
        if same and known["version"] is not None:
            same = known["version"] == _run([compiler, "--version"])
        return str(known["reason"]) if same else None
    except (OSError, ValueError, KeyError, TypeError, UnusableError):
        return None


def _run(command: list[str]) -> str:
    """Run a compiler within the time limit and return what it printed. Raises UnusableError if it fails or takes longer."""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            out, complaint = process.communicate(timeout=LIMIT)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)  # and what it started, which would keep the pipes open
            if isinstance(error, subprocess.TimeoutExpired):
                raise UnusableError(f"{command[0]} was stopped after {LIMIT:g} s") from None
            raise
    if process.returncode:
        raise UnusableError(f"{command[0]} failed ({complaint.strip() or process.returncode})")
    return out


def _put(path: Path, data: bytes) -> None:
    """Write a file that only the user may read or write, in one move."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
