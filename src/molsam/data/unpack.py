"""The bytes of a data file, unpacked: plain, gzip or a zip archive of one file, within bounds."""

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
"""Largest unpacked size as a multiple of the packed one; text packs to a tenth, and what goes far beyond is a bomb."""
ALWAYS = 16_000_000
"""Bytes that a file may unpack to whatever its packed size."""
LARGEST = 2_000_000_000
"""Bytes that any file may unpack to."""
GZIP, ZIP, PARQUET = b"\x1f\x8b", (b"PK\x03\x04", b"PK\x05\x06"), b"PAR1"
REPACK, RESAVE = "unpack it and give what is in it", "save the table as Parquet or CSV and give that file"
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
"""What a file is that molsam does not read, by its first bytes, and the remedy."""


def read_bytes(path: Path) -> bytes:
    """The file as it is. Raises DataError if it is no file or cannot be read."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise DataError(f"{path} is not a file; name the data file itself.")
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read ({reason}); check the path.") from error


def unpacked(path: Path, content: bytes) -> tuple[str, bytes]:
    """The name and the bytes of what is in a file. Raises DataError if it is damaged, or unpacks to too much."""
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
        raise DataError(f"{path} is a damaged {kind} file ({error}); fetch it again.") from error
    for magic, told in OTHERS.items():
        if content.startswith(magic):
            raise DataError(f"{path} is {told}.")
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
