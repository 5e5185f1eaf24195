"""Compile the files of c/ on first use, keep the library in the cache folder, and load it only if it is verified.

The library's name is a hash of the sources and the processor, but not of the compiler, so a cached library is still
used after the compiler was removed. Its checksum lies beside it. The library is loaded only if the checksum agrees, and
if it and its folder belong to the user or root and nobody else may write them. Otherwise it is compiled again.
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

from molsam.errors import ConfigError
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
"""time limit of a compiler call in seconds"""
OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
SLOWER = "torch computes instead; CoMPT, CMPNN, DMPNN and GROVER are slower."


class UnusableError(Exception):
    """The library cannot be used, for this reason; `known` if the user was told before."""

    def __init__(self, reason: str, known: bool = False) -> None:
        super().__init__(reason)
        self.known = known


@functools.cache
def library(double: bool) -> ctypes.CDLL | None:
    """Return the functions of c/ for numbers of 64 bits (double) or 32 bits, compiling them if necessary.

    Returns None where they cannot be compiled, and with `MOLSAM_KERNELS=torch`, which turns them off.
    Raises ConfigError for another value.
    """
    wanted = os.environ.get("MOLSAM_KERNELS")
    if wanted == "torch":
        return None
    if wanted:
        raise ConfigError(
            f"MOLSAM_KERNELS={wanted} is unknown; give torch, which turns the C kernels off, or unset it."
        )
    try:
        return _verified(double)
    except (UnusableError, OSError) as error:
        level = logging.INFO if getattr(error, "known", False) else logging.WARNING
        reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        _say_once(level, f"molsam's C kernels are not used: {reason.strip()}; {SLOWER}")
        return None


@functools.cache
def _say_once(level: int, message: str) -> None:
    log.log(level, message)


def _verified(double: bool) -> ctypes.CDLL:
    """Return the library; compile it if the cached one is missing, damaged, or owned by someone else."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise UnusableError(f"they need Linux on x86_64, and this is {platform.system()} on {platform.machine()}")
    flags = [*FLAGS, *(["-DDOUBLE"] if double else [])]
    path = cache_folder(None) / "native" / f"{_digest(flags)}.so"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_ours(os.stat(path.parent)):
        raise UnusableError(
            f"other users may write {path.parent}, so nothing in it is loaded; run `chmod go-w {path.parent}` if it is "
            "yours, or set MOLSAM_CACHE to a folder of your own"
        )
    if not _is_intact(path):
        with _lock(path.with_suffix(".lock")):
            if not _is_intact(path):  # another process may have compiled it meanwhile
                _compile(flags, path)
    return ctypes.CDLL(str(path))


def _digest(flags: list[str]) -> str:
    """Return a hash of everything that the library depends on except the compiler."""
    sources = (text for path in SOURCES for text in (str(path.relative_to(FOLDER)), path.read_text(encoding="utf-8")))
    return hashlib.sha256("\n".join([*sources, *flags, _processor()]).encode()).hexdigest()[:24]


def _processor() -> str:
    """Return the lines of /proc/cpuinfo on which -march=native depends."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags"))}))


def _is_ours(status: os.stat_result) -> bool:
    """Return whether a file or folder belongs to the user or root and nobody else may write it."""
    return status.st_uid in (os.geteuid(), 0) and not status.st_mode & OTHERS_MAY_WRITE


def _is_intact(path: Path) -> bool:
    """Return whether the library and its checksum exist, are ours, and agree."""
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
    """Hold a lock, so that only one process compiles at a time."""
    import fcntl  # here, because Windows does not have it

    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "wb") as file:
        deadline = time.monotonic() + 2 * _limit()
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
    """Compile a library to `path` and write its checksum.

    A compiler's failure is recorded; the compiler is tried again only after it has changed.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise UnusableError("there is no C compiler (gcc)")
    failure = path.with_suffix(".failed")
    if (known := _reason(failure, compiler)) is not None:
        raise UnusableError(known, known=True)
    log.info("Compiling molsam's C kernels for this processor; this takes a few seconds and happens only once.")
    made = path.with_suffix(".tmp")
    version = None
    try:
        version = _run([compiler, "--version"])
        if "clang" in version.lower():
            raise UnusableError(f"they need GCC, and {compiler} is clang")
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
    """Return the path, size and time of a compiler, which change when it is replaced."""
    status = os.stat(compiler)
    return [os.path.realpath(compiler), status.st_size, status.st_mtime_ns]


def _reason(failure: Path, compiler: str) -> str | None:
    """Return why this same compiler failed before; None if it did not."""
    try:
        known = json.loads(failure.read_bytes())
        same = known["compiler"] == _file(compiler)
        if same and known["version"] is not None:
            same = known["version"] == _run([compiler, "--version"])
        return str(known["reason"]) if same else None
    except (OSError, ValueError, KeyError, TypeError, UnusableError):
        return None


def _limit() -> float:
    """Return the seconds that a compiler gets: LIMIT on a free machine, up to five times that on a busy one."""
    return LIMIT * min(max(os.getloadavg()[0] / (os.cpu_count() or 1), 1.0), 5.0)


def _run(command: list[str]) -> str:
    """Run a compiler within the time limit and return what it printed.

    Raises UnusableError if it fails or takes longer.
    """
    limit = _limit()
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
            out, complaint = process.communicate(timeout=limit)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)  # the whole group: its children would keep the pipes open
            if isinstance(error, subprocess.TimeoutExpired):
                raise UnusableError(f"{command[0]} was stopped after {limit:.3g} s") from None
            raise
    if process.returncode:
        raise UnusableError(f"{command[0]} failed ({complaint.strip() or process.returncode})")
    return out


def _put(path: Path, data: bytes) -> None:
    """Write a file atomically; only the user may read or write it."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
