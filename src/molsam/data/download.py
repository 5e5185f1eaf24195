"""Fetching a file over https: checked before it is kept, and put in place in one step."""

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
"""Seconds without a byte after which a server counts as gone."""
LARGEST = 200_000_000
CHUNK = 1 << 16
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def download(url: str, target: Path, sha256: str | None, check: Callable[[bytes], object]) -> None:
    """Fetch `url` into `target`; `check` raises DataError if the content is not what is wanted.

    Without a published sha256 the digest of the first download is kept beside the file and holds ever after.
    Raises DataError (unreachable, cut, too large, wrong checksum or content) or StorageError (cannot be written).
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
            f"{url} has the sha256 {digest[:16]}..., expected {expected[:16]}...: it changed, or was damaged on the way; "
            f"nothing was kept. Try again, or put a file you trust at {target} and remove {record_of(target).name}."
        )
    check(content)
    write_atomic(record_of(target), f"{digest}\n".encode())
    write_atomic(target, content)


def record_of(target: Path) -> Path:
    """Where the sha256 of a downloaded file is kept."""
    return target.with_name(f"{target.name}.sha256")


def recorded(target: Path) -> str | None:
    """The sha256 of the first download of this file, None if there was none or its record is damaged."""
    try:
        digest = record_of(target).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return digest if len(digest) == 64 else None


def _allow(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise DataError(f"{url} is not an https address, so it is not fetched; give one, or fetch the file yourself.")


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
        raise DataError(f"{response.url} is {size} bytes, {LARGEST} are allowed; fetch it yourself.")
    log.info("fetching %s (%s bytes)", response.url, size or "unknown")
    columns = (TextColumn("fetching " + name), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    content = bytearray()
    with Progress(*columns, console=terminal.console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("", total=size or None)
        while block := response.read(CHUNK):
            content += block
            progress.advance(task, len(block))
            if len(content) > LARGEST:
                raise DataError(f"{response.url} does not end after {LARGEST} bytes; nothing was kept.")
    if size and len(content) != size:
        raise OSError(f"the connection was cut after {len(content)} of {size} bytes")
    return bytes(content)
