"""The local server: loopback only, nothing outside its folders, updates while runs train."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from molsam.errors import StorageError
from molsam.report.dashboard.serve import CONNECTIONS, Handler, Server
from tests.paths import PATIENCE
from tests.report.figures.synthetic import write_run


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "secret.txt").write_text("secret")
    root = tmp_path / "outputs"
    write_run(root, "gcn", "adam", folder="a run")
    (root / "page.html").write_text("<script>alert(1)</script>")
    (root / "way out").symlink_to(tmp_path / "secret.txt")
    (root / "<b>bold").write_text("")
    with Server([root], 0) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def get(server: Server, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=PATIENCE)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    return answer.status, dict(answer.headers), answer.read()


def test_it_listens_on_this_machine_alone(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert server.address == f"http://127.0.0.1:{server.server_port}/"
    with pytest.raises(StorageError, match="choose another one with --port"):
        Server([], server.server_port)


def test_the_page_and_its_news(server: Server) -> None:
    status, headers, page = get(server, "/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b'data-live="true"' in page
    _, _, body = get(server, "/data.json")
    data = json.loads(body)
    assert get(server, f"/data.json?have={data['version']}")[0] == 204
    write_run(server.roots[0], "gcn", "sam")
    status, _, body = get(server, f"/data.json?have={data['version']}")
    assert status == 200
    assert {group["optimizer"] for group in json.loads(body)["groups"]} == {"adam", "sam"}
    assert json.loads(body)["version"] != data["version"]


def test_links_lead_to_the_runs_files(server: Server) -> None:
    (run,) = json.loads(get(server, "/data.json")[2])["runs"]
    assert run["folder"] == "files/0/a%20run/"
    status, headers, listing = get(server, "/" + run["folder"])
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b'href="./result.json"' in listing
    status, headers, content = get(server, "/" + run["folder"] + "result.json")
    assert (status, headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
    assert json.loads(content)["optimizer"] == "adam"


def test_files_are_never_pages(server: Server) -> None:
    _, headers, content = get(server, "/files/0/page.html")
    assert headers["Content-Type"].startswith("text/plain")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert content.startswith(b"<script>")
    assert b"&lt;b&gt;bold" in get(server, "/files/0/")[2]


@pytest.mark.parametrize(
    "path",
    [
        "/files/0/../secret.txt",
        "/files/0/%2e%2e/secret.txt",
        "/files/0/a%20run/..%2f..%2f..%2fsecret.txt",
        "/files/0//etc/passwd",
        "/files/0/way%20out",
        "/files/1/",
        "/files/-1/",
        "/files/0/%00",
        "/secret.txt",
        "/etc/passwd",
    ],
)
def test_nothing_outside_is_given(server: Server, path: str) -> None:
    status, _, content = get(server, path)
    assert status == 404
    assert b"secret" not in content.replace(b"secret.txt", b"")


def test_another_name_for_this_address_is_refused(server: Server) -> None:
    assert get(server, "/data.json", Host="evil.example")[0] == 403
    assert get(server, "/data.json", Host=f"localhost:{server.server_port}")[0] == 200


def test_connections_that_say_nothing_are_closed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handler, "timeout", 0.05)
    before = set(threading.enumerate())
    silent = [socket.create_connection(("127.0.0.1", server.server_port), timeout=PATIENCE) for _ in range(20)]
    for number, connection in enumerate(silent):
        connection.sendall(b"GET / HTT" if number % 2 else b"")
    assert [connection.recv(1) for connection in silent] == [b""] * 20  # each was closed by the server
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert get(server, "/data.json")[0] == 200
    for connection in silent:
        connection.close()


@pytest.mark.slow
def test_so_many_connections_have_a_thread_and_no_more(server: Server) -> None:
    before = threading.active_count()
    held = [
        socket.create_connection(("127.0.0.1", server.server_port), timeout=PATIENCE) for _ in range(CONNECTIONS + 20)
    ]
    for connection in held[CONNECTIONS:]:
        assert connection.recv(1) == b""
        connection.close()
    assert threading.active_count() <= before + CONNECTIONS
    for connection in held:
        connection.close()
