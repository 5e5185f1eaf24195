"""Downloads over https. A file is checked before it is kept, and put in place atomically."""

from __future__ import annotations

import hashlib
import http.client
import logging
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from molsam import terminal
from molsam.errors import DataError
from molsam.files import write_atomic

log = logging.getLogger(__name__)
TIMEOUT = 30
"""Seconds without a byte after which a download is given up."""
LARGEST = 200_000_000
"""Largest download in bytes."""
CHUNK = 1 << 16
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def download(url: str, target: Path, sha256: str | None, check: Callable[[bytes], object]) -> None:
    """Download `url` to `target`.

    Without a published sha256, that of the first download is stored beside the file, and later downloads must match it.

    Args:
        check: raises DataError if the content is not as expected.

    Raises:
        DataError: the file is unreachable, incomplete or too large, or its checksum or content is wrong.
        StorageError: the file cannot be written.
    """
    _allow(url)
    try:
        with urllib.request.build_opener(_Redirects).open(url, timeout=TIMEOUT) as response:
            content = _read(response, target.name)
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        reason = getattr(error, "reason", None) or error or type(error).__name__
        raise DataError(f"{url} cannot be fetched ({reason}); try again, or put the file at {target}.") from error
    digest = hashlib.sha256(content).hexdigest()
    expected = sha256 or recorded(target)
    if expected is not None and digest != expected:
        raise DataError(
            f"{url} has the sha256 {digest[:16]}..., expected {expected[:16]}...: it has changed, or was damaged in "
            f"transit; nothing was kept. Try again, or put a file you trust at {target} and remove "
            f"{record_of(target).name}."
        )
    check(content)
    write_atomic(record_of(target), f"{digest}\n".encode())
    write_atomic(target, content)


def record_of(target: Path) -> Path:
    """Return the path of the file that stores the sha256 of a downloaded file."""
    return target.with_name(f"{target.name}.sha256")


def recorded(target: Path) -> str | None:
    """Return the stored sha256 of the first download of this file; None if there is none or its record is damaged."""
    try:
        digest = record_of(target).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return digest if len(digest) == 64 else None


def _allow(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise DataError(f"{url} is not an https address; give one, or download the file yourself.")


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        try:
            _allow(newurl)
        except DataError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _read(response: Any, name: str) -> bytes:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    size = int(response.headers.get("Content-Length") or 0)
    if size > LARGEST:
        raise DataError(
            f"{response.url} has {size} bytes; molsam downloads at most {LARGEST}. Download the file yourself."
        )
    log.info("fetching %s (%s bytes)", response.url, size or "unknown")
    columns = (TextColumn("fetching " + name), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    content = bytearray()
    with Progress(*columns, console=terminal.console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("", total=size or None)
        while block := response.read(CHUNK):
            content += block
            progress.advance(task, len(block))
            if len(content) > LARGEST:
                raise DataError(
                    f"{response.url} has more than {LARGEST} bytes, the most that molsam downloads; nothing was kept. "
                    "Download the file yourself."
                )
    if size and len(content) != size:
        raise OSError(f"the connection was cut after {len(content)} of {size} bytes")
    return bytes(content)
