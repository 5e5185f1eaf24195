"""Finding a dataset's file, and downloading it from a loopback server that misbehaves."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from molsam.commands.data import dataset_settings
from molsam.data import download as module
from molsam.data.download import download
from molsam.data.sources import fetch, find, fitting, locate
from molsam.data.table import read_table
from molsam.errors import ConfigError, DataError, StorageError
from molsam.files import cache_folder
from tests.data.helpers import numbers_of
from tests.paths import MOLECULENET, needs_moleculenet

CSV = b"smiles,y\nCCO,1.5\nC,2\n"
LAYOUTS = [
    {"files": ["short.csv"], "smiles": "smiles", "targets": ["y"]},
    {"files": ["Long.csv.gz", "long.csv"], "smiles": "SMILES", "targets": ["measured"]},
]


class Handler(http.server.BaseHTTPRequestHandler):
    """The path says how to answer."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        kind = self.path.split("/")[1]
        body = {"page": b"<html>Sign in</html>", "gz": gzip.compress(CSV)}.get(kind, CSV)
        if kind == "absent":
            self.send_error(404)
            return
        if kind in ("away", "plain"):
            self.send_response(302)
            port = self.server.server_address[1]
            self.send_header(
                "Location", "http://example.org/d.csv" if kind == "away" else f"http://127.0.0.1:{port}/ok/d.csv"
            )
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        if kind == "chunks":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"a\r\nsmiles,y\nC\r\n")  # and no last chunk
            self.close_connection = True
            return
        length = {"cut": len(body) + 10, "huge": 10**12, "odd": "many"}.get(kind, len(body))
        if kind != "endless":
            self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body * 100 if kind == "endless" else body)
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


def accept(content: bytes) -> None:
    pass


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_download_is_kept_with_its_checksum(tmp_path: Path, server: str) -> None:
    target = tmp_path / "new" / "d.csv"
    download(f"{server}/ok/d.csv", target, None, accept)
    assert target.read_bytes() == CSV
    assert (tmp_path / "new" / "d.csv.sha256").read_text().strip() == hashlib.sha256(CSV).hexdigest()
    download(f"{server}/plain/d.csv", target, hashlib.sha256(CSV).hexdigest(), accept)
    assert kept(tmp_path) == ["d.csv", "d.csv.sha256"]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("cut", r"the connection was cut after 21 of 31 bytes"),
        ("chunks", "cannot be fetched"),
        ("absent", "cannot be fetched .*Not Found"),
        ("huge", "has 1000000000000 bytes; molsam downloads at most"),
        ("odd", "cannot be fetched"),
        ("endless", "has more than"),
        ("away", r"http://example\.org/d\.csv is not an https address"),
    ],
)
def test_a_bad_answer_leaves_nothing(
    tmp_path: Path, server: str, kind: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGEST", 1000)
    with pytest.raises(DataError, match=message) as caught:
        download(f"{server}/{kind}/d.csv", tmp_path / "d.csv", None, accept)
    assert "\n" not in str(caught.value)
    assert kept(tmp_path) == []


def test_a_server_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    message = r"cannot be fetched \(.*timed out.*\); try again, or put the file at"
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(DataError, match=message):
        download(f"http://127.0.0.1:{silent.getsockname()[1]}/d.csv", tmp_path / "d.csv", None, accept)


def test_a_wrong_checksum(tmp_path: Path, server: str) -> None:
    with pytest.raises(DataError, match=r"sha256 [0-9a-f]{16}\.\.\., expected 0{16}\.\.\..*nothing was kept"):
        download(f"{server}/ok/d.csv", tmp_path / "d.csv", "0" * 64, accept)
    (tmp_path / "d.csv.sha256").write_text("1" * 64)
    with pytest.raises(DataError, match=r"expected 1{16}.*remove d\.csv\.sha256"):
        download(f"{server}/ok/d.csv", tmp_path / "d.csv", None, accept)
    assert kept(tmp_path) == ["d.csv.sha256"]


@pytest.mark.parametrize("url", ["http://example.org/d.csv", "file:///etc/passwd", "ftp://127.0.0.1/d.csv", "d.csv"])
def test_only_https(tmp_path: Path, url: str) -> None:
    with pytest.raises(DataError, match="is not an https address"):
        download(url, tmp_path / "d.csv", None, accept)


def test_a_full_disk(tmp_path: Path, server: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        download(f"{server}/ok/d.csv", tmp_path / "file" / "d.csv", None, accept)


def settings(**more: Any) -> dict[str, Any]:
    return {"display": "Data", "layouts": LAYOUTS, **more}


def test_the_order_of_places(tmp_path: Path, server: str) -> None:
    cache, root = tmp_path / "cache", tmp_path / "root"
    root.mkdir()
    wanted = settings(url=f"{server}/ok/short.csv", root=str(root))
    assert find(wanted, cache) is None
    source = locate(wanted, cache)
    assert source.table.path == cache / "downloads" / "short.csv"
    assert [source.smiles, *source.targets] == ["smiles", "y"]
    assert find(wanted, cache) == cache / "downloads" / "short.csv"
    (root / "long.csv").write_text("measured,SMILES\n1,C\n")
    source = locate(wanted, cache)
    assert source.table.path == root / "long.csv"
    assert [source.smiles, *source.targets] == ["SMILES", "measured"]
    ships = find({**wanted, "root": None, "embedded": "esol.csv"}, cache)
    assert ships is not None
    assert ships.parent.name == "embedded"
    assert find({**wanted, "embedded": "esol.csv"}, cache) == root / "long.csv", "a folder that is named goes first"


def test_nowhere(tmp_path: Path, server: str) -> None:
    with pytest.raises(DataError) as caught:
        locate(settings(), tmp_path)
    for part in ("Data", "put short.csv or Long.csv.gz or long.csv into a folder", "dataset.root=FOLDER", "downloads"):
        assert part in str(caught.value)
    with pytest.raises(DataError, match=r"Data is not on this machine\. .* cannot be fetched .*dataset\.root=FOLDER"):
        locate(settings(url=f"{server}/absent/short.csv"), tmp_path)
    with pytest.raises(DataError, match=r"dataset\.root=.*absent is not a folder"):
        locate(settings(root=str(tmp_path / "absent")), tmp_path)


def test_a_page_instead_of_a_file_is_not_kept(tmp_path: Path, server: str) -> None:
    with pytest.raises(DataError, match="is a web page"):
        fetch(settings(url=f"{server}/page/short.csv"), tmp_path)
    assert kept(tmp_path) == []


def test_a_gzip_download(tmp_path: Path, server: str) -> None:
    table = locate(settings(url=f"{server}/gz/short.csv.gz"), tmp_path).table
    assert table.column("y") == ["1.5", "2"]


def test_a_damaged_download_is_fetched_anew(tmp_path: Path, server: str, caplog: pytest.LogCaptureFixture) -> None:
    wanted = settings(url=f"{server}/ok/short.csv")
    path = fetch(wanted, tmp_path)
    path.write_bytes(CSV.replace(b"1.5", b"1.7"))
    with caplog.at_level(logging.WARNING, logger="molsam"):
        table = locate(wanted, tmp_path).table
    assert "short.csv has changed since its download" in caplog.text
    assert table.column("y") == ["1.5", "2"]
    path.write_bytes(CSV.replace(b"1.5", b"1.7"))
    (tmp_path / "downloads" / "short.csv.sha256").unlink()
    assert locate(wanted, tmp_path).table.column("y") == ["1.7", "2"], "a file that a user put there is theirs"


def test_names_stay_in_their_folder(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "d.csv").write_bytes(CSV)
    evil = [{"files": ["../d.csv"], "smiles": "smiles", "targets": ["y"]}]
    with pytest.raises(ConfigError, match=r"the file '\.\./d\.csv'; give a bare file name"):
        find({"display": "x", "layouts": evil, "root": str(tmp_path / "cache")}, tmp_path)


def test_the_header_tells_files_of_one_name_apart(tmp_path: Path) -> None:
    layouts = [
        {"files": ["q.csv"], "smiles": "smiles", "targets": ["a", "p"]},
        {"files": ["q.csv"], "smiles": "smiles", "targets": ["a", "p"], "first_of_repeated": True},
    ]
    path = tmp_path / "q.csv"
    path.write_text("smiles,a,p\nC,1,2\n")
    assert fitting(read_table(path), layouts) == layouts[0]
    path.write_text("smiles,a,p,p\nC,1,2,3\n")
    assert fitting(read_table(path), layouts) == layouts[1]
    path.write_text("smiles,a\nC,1\n")
    with pytest.raises(DataError, match=r"q\.csv does not have the columns of this dataset \(smiles, a, p; or"):
        fitting(read_table(path), layouts)


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MOLSAM_CACHE", str(tmp_path / "a"))
    assert cache_folder(str(tmp_path / "b")) == tmp_path / "b"
    assert cache_folder(None) == tmp_path / "a"
    monkeypatch.delenv("MOLSAM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "c"))
    assert cache_folder(None) == tmp_path / "c" / "molsam"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder(None) == tmp_path / ".cache" / "molsam"


@needs_moleculenet
def test_both_layouts_of_every_dataset(tmp_path: Path) -> None:
    """A file with the header of each documented layout is recognised, with its own label columns."""
    import json

    documented = json.loads((MOLECULENET / "layouts.json").read_text())
    every = dataset_settings()
    for name, entry in documented.items():
        ours = {**every["lipophilicity" if name == "lipo" else name], "embedded": None}
        for layout in entry["layouts"].values():
            header = layout.get("header") or layout.get("header_start") or [layout["smiles"], *layout["labels"]]
            raw = [column.removesuffix(".1") for column in header]  # pandas renames repeated columns so
            for file in layout["files"]:
                folder = tmp_path / name / file / str(len(header))
                folder.mkdir(parents=True, exist_ok=True)
                cells = [" CCO " if column == layout["smiles"] else str(i) for i, column in enumerate(header)]
                text = "\n".join(",".join(f'"{cell}"' for cell in row) for row in (raw, cells)).encode()
                (folder / file).write_bytes(gzip.compress(text) if file.endswith(".gz") else text)
                found = locate({**ours, "root": str(folder)}, tmp_path)
                table = found.table
                assert table.path == folder / file
                assert found.targets == layout["labels"]
                assert table.column(found.smiles)[0].strip() == "CCO"
                expected = [float(header.index(label)) for label in layout["labels"]]
                assert numbers_of(table, found.targets, first=True)[0].tolist() == expected
