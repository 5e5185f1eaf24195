"""Unpacking of data files: plain, gzip, or a zip archive of one file, up to a maximum size."""

from __future__ import annotations

import gzip
import io
import os
import zipfile
import zlib
from pathlib import Path
from typing import IO

from molsam.errors import DataError

RATIO = 100
"""Largest unpacked size as a multiple of the packed one. Text packs to about a tenth, a zip bomb to far less."""
ALWAYS = 16_000_000
"""Unpacked size in bytes that is always allowed, whatever the packed size."""
LARGEST = 2_000_000_000
"""Largest unpacked size in bytes."""
GZIP, ZIP, PARQUET = b"\x1f\x8b", (b"PK\x03\x04", b"PK\x05\x06"), b"PAR1"
DGL = bytes.fromhex("3fa1b446f04f2edd")
"""The first bytes of a file of `dgl.save_graphs`."""
REPACK, RESAVE = "unpack it and give the unpacked file", "save the table as Parquet or CSV and give that file"
OTHERS = {
    b"BZh": f"a bzip2 file; {REPACK}",
    b"\xfd7zXZ\0": f"an xz file; {REPACK}",
    b"\x28\xb5\x2f\xfd": f"a Zstandard file; {REPACK}",
    b"7z\xbc\xaf": f"a 7-Zip archive; {REPACK}",
    b"Rar!": f"a RAR archive; {REPACK}",
    b"\xd0\xcf\x11\xe0": f"an old Excel workbook; {RESAVE}",
    b"ARROW1": f"a Feather file; {RESAVE}",
    b"\x89HDF": f"an HDF5 file; {RESAVE}",
    b"\x93NUMPY": f"a NumPy array; {RESAVE}",
    b"%PDF": f"a PDF; {RESAVE}",
    b"\x80\x04\x95": f"a pickle; {RESAVE}",
    b"\x80\x05\x95": f"a pickle; {RESAVE}",
}
"""The first bytes of kinds of file that molsam does not read -> the kind and the remedy."""


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a file, still packed. Raises DataError if it is not a file or cannot be read."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise DataError(f"{path} is not a file; give the path of the data file.")
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read ({reason}); check the path.") from error


def unpacked(path: Path, content: bytes) -> tuple[str, bytes]:
    """Return the name and the bytes of the unpacked file. Raises DataError if it is damaged, or too large unpacked."""
    try:
        if content.startswith(GZIP):
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
                return path.name.removesuffix(".gz"), _bounded(path, file, len(content))
        if content.startswith(ZIP):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                member = _only_member(path, archive)
                with archive.open(member) as inner:
                    return member, _bounded(path, inner, len(content))
    except RuntimeError as error:
        raise DataError(f"{path} cannot be unpacked ({error}); give an archive without a password.") from error
    except (EOFError, zlib.error, OSError, zipfile.BadZipFile) as error:
        kind = "gzip" if content.startswith(GZIP) else "zip"
        raise DataError(f"{path} is a damaged {kind} file ({error}); download or copy it again.") from error
    for magic, kind_and_remedy in OTHERS.items():
        if content.startswith(magic):
            raise DataError(f"{path} is {kind_and_remedy}.")
    return path.name, content


def _bounded(path: Path, file: IO[bytes] | gzip.GzipFile, packed: int) -> bytes:
    most = min(max(RATIO * packed, ALWAYS), LARGEST)
    content = bytes(file.read(most + 1))
    if len(content) > most:
        raise DataError(
            f"{path} unpacks to more than {most:,} bytes, {RATIO} times its own size; unpack it yourself and give "
            "the unpacked file if you trust it."
        )
    return content


def _only_member(path: Path, archive: zipfile.ZipFile) -> str:
    names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    if "[Content_Types].xml" in names:
        raise DataError(f"{path} is an Excel workbook; save its sheet as CSV and give that file.")
    visible = [name for name in names if not name.startswith("__MACOSX/") and not name.split("/")[-1].startswith(".")]
    if len(visible) != 1:
        raise DataError(
            f"{path} holds {len(visible)} files ({', '.join(visible[:5])}); give an archive with one data file."
        )
    return visible[0]
