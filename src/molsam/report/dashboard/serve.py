"""Local server of the dashboard: only for this machine, nothing outside the run folders, live while a sweep runs."""

from __future__ import annotations

import html
import sys
import threading
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from molsam.errors import StorageError
from molsam.report.dashboard.collect import Collector
from molsam.report.dashboard.page import build, dump
from molsam.report.dashboard.sweeps import Reader

HOST = "127.0.0.1"
LARGEST = 64 * 1024 * 1024
"""Largest file in bytes that is shown."""
CONNECTIONS = 64
"""Largest number of open connections. A browser opens six. Further ones are closed at once."""


class Server(ThreadingHTTPServer):
    """Answers / (the page), data.json (the data, if it has changed) and files/N/... (files in the N-th folder)."""

    daemon_threads = True

    def __init__(self, roots: Sequence[Path], port: int, study: Reader | None = None) -> None:
        self.roots = [root.resolve() for root in roots]
        self.collector = Collector(self.roots, self._link, study)
        self.lock = threading.Lock()
        self.slots = threading.BoundedSemaphore(CONNECTIONS)
        try:
            super().__init__((HOST, port), Handler)
        except OSError as error:
            raise StorageError(
                f"Port {port} of {HOST} cannot be used ({error.strerror}); choose another one with --port."
            ) from error

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, or close the connection if too many are open."""
        if self.slots.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Free the slot when the connection ends, even after an error."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report errors, except those of a browser that closes the connection early."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    @property
    def address(self) -> str:
        """Address of the page."""
        return f"http://{HOST}:{self.server_port}/"

    def data(self) -> dict[str, Any]:
        """Return the current data, with a version that changes when it does."""
        with self.lock:
            return self.collector.collect()

    def file(self, path: str) -> Path | None:
        """Return the file or folder of a path below files/; None if it is outside the run folders or does not exist."""
        place, _, rest = unquote(path).partition("/")
        if not place.isdigit() or int(place) >= len(self.roots) or "\0" in rest:
            return None
        root = self.roots[int(place)]
        found = (root / rest.lstrip("/")).resolve()
        return found if found.is_relative_to(root) and found.exists() else None

    def _link(self, folder: Path) -> str:
        resolved = folder.resolve()
        place = next(i for i, root in enumerate(self.roots) if resolved.is_relative_to(root))
        rest = quote(resolved.relative_to(self.roots[place]).as_posix())
        return f"files/{place}/" if rest == "." else f"files/{place}/{rest}/"


class Handler(BaseHTTPRequestHandler):
    """Answers GET requests only. Files are sent as plain text or as downloads, never as pages."""

    server: Server
    server_version = "molsam"
    timeout = 10
    """Seconds that a connection may be silent; without a limit a half-open one would keep its thread forever."""
    sys_version = ""

    def do_GET(self) -> None:
        """Answer, if the Host header names this machine."""
        if self.headers.get("Host", "").rsplit(":", 1)[0] not in (HOST, "localhost"):
            # Another host name means that another website tries to read through the browser (DNS rebinding).
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        url = urlsplit(self.path)
        if url.path == "/":
            self._send(build(self.server.data(), live=True).encode(), "text/html; charset=utf-8")
        elif url.path == "/data.json":
            self._news(parse_qs(url.query).get("have", [""])[0])
        elif url.path.startswith("/files/"):
            self._file(url.path.removeprefix("/files/"))
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _news(self, have: str) -> None:
        data = self.server.data()
        if data["version"] == have:
            self.send_response(HTTPStatus.NO_CONTENT)
            self.end_headers()
        else:
            self._send(dump(data).encode(), "application/json")

    def _file(self, path: str) -> None:
        found = self.server.file(path)
        if found is None:
            self.send_error(HTTPStatus.NOT_FOUND)
        elif found.is_dir():
            self._send(listing(found).encode(), "text/html; charset=utf-8")
        elif found.stat().st_size > LARGEST:
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        else:
            content = found.read_bytes()
            kind = "application/octet-stream" if b"\0" in content[:4096] else "text/plain; charset=utf-8"
            self._send(content, "image/png" if found.suffix == ".png" else kind)

    def _send(self, content: bytes, kind: str) -> None:
        self.send_response(HTTPStatus.OK)
        headers = {"Content-Type": kind, "Content-Length": str(len(content)), "Cache-Control": "no-store"}
        for name, value in {**headers, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Print nothing."""


def listing(folder: Path) -> str:
    """Return a page of links to the contents of a folder, except locks."""
    entries = sorted(folder.iterdir(), key=lambda path: (path.is_file(), path.name))
    names = [path.name + ("/" if path.is_dir() else "") for path in entries if path.name != ".lock"]
    items = "".join(f'<li><a href="./{quote(name)}">{html.escape(name)}</a></li>' for name in names)
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        f'<!doctype html><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{html.escape(folder.name)}</title>"
        '<body style="font:15px/1.6 system-ui,sans-serif;margin:2rem">'
        f"<h1>{html.escape(folder.name)}</h1><ul>{items}</ul>"
    )


def serve(roots: Sequence[Path], port: int, study: Reader | None, say: Callable[[str], object] = print) -> None:
    """Serve until Ctrl-C. `study` reads the study in a sweep's folder."""
    with Server(roots, port, study) as server:
        say(f"Dashboard at {server.address} (this machine only; Ctrl-C stops it). It follows runs in progress.")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            say("Stopped.")
