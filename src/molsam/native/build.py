"""The C files of c/, compiled on first use (some seconds) and kept in the cache folder, for this processor."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from molsam.files import cache_folder

log = logging.getLogger(__name__)
FOLDER = Path(__file__).with_name("c")
SOURCES = sorted(FOLDER.rglob("*.[ch]"))
FLAGS = ("-std=gnu11", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC")


@functools.cache
def compiled(double: bool) -> ctypes.CDLL | None:
    """c/ for numbers of 64 bits or of 32, compiled if it is not in the cache; None where that cannot be.

    `MOLSAM_KERNELS=torch` turns it off.
    """
    if os.environ.get("MOLSAM_KERNELS") == "torch" or platform.system() != "Linux":
        return None
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        log.warning(
            "There is no C compiler (gcc), so torch computes what C would: CoMPT, CMPNN, DMPNN and GROVER are slower."
        )
        return None
    flags = [*FLAGS, *(("-DDOUBLE",) if double else ())]
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
        subprocess.run(
            [*command, f"-I{FOLDER / 'shared'}", "-o", made, *files, "-lm"],
            check=True,
            capture_output=True,
            text=True,
            timeout=300,
        )
        os.replace(made, path)


def _processor() -> str:
    """What -march=native depends on."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
