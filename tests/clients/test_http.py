"""HTTP to a neighbour: kept connections, tokens, deadlines."""

import contextlib
import http.server
import socket
import threading
from collections.abc import Callable, Iterator, Mapping

import pytest

import clients.http
import core.errors
from clients.http import HttpClient
from clients.rabbitmq import Management

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture
def neighbour() -> Iterator[Callable[[list[list[bytes]]], int]]:
    """Give it, for each connection, its answers in turn; after the last the connection is cut."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def serve(connections: list[list[bytes]]) -> None:
        for answers in connections:
            client, _ = listener.accept()
            with client, contextlib.suppress(ConnectionError):
                client.settimeout(5)
                for answer in answers:
                    read_request(client)
                    client.sendall(answer)
                # The next request on this connection is read and then left without an answer.
                read_request(client)

    def start(connections: list[list[bytes]]) -> int:
        thread = threading.Thread(target=serve, args=(connections,))
        threads.append(thread)
        thread.start()
        return int(listener.getsockname()[1])

    yield start
    for thread in threads:
        thread.join(10)
    listener.close()


def read_request(client: socket.socket) -> None:
    """Headers, and the two bytes that are every body here."""
    request = b""
    while b"\r\n\r\n" not in request or (b"Content-Length: 2" in request and not request.endswith(b"{}")):
        piece = client.recv(65536)
        if not piece:
            return
        request += piece


def client(port: int, **changes: object) -> HttpClient:
    return HttpClient(f"http://127.0.0.1:{port}/", who="neighbour", timeout_s=2.0, **changes)  # type: ignore[arg-type]


def test_a_read_whose_kept_connection_died_is_asked_once_more(neighbour: Callable[[list[list[bytes]]], int]) -> None:
    to = client(neighbour([[ANSWER], [ANSWER]]))

    assert to.ask("GET", "/").status == 200
    assert to.ask("GET", "/").status == 200
    to.close()


def test_a_write_is_never_asked_twice(neighbour: Callable[[list[list[bytes]]], int]) -> None:
    to = client(neighbour([[ANSWER]]))

    assert to.ask("PUT", "/", {}).status == 200
    with pytest.raises(core.errors.Unavailable):
        to.ask("PUT", "/", {})
    to.close()


def test_a_refused_token_is_renewed_once() -> None:
    seen: list[str | None] = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers["X-Auth-Token"])
            self.send_response(200 if self.headers["X-Auth-Token"] == "new" else 401)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            return None

    def headers(*, renew: bool = False) -> Mapping[str, str]:
        return {"X-Auth-Token": "new" if renew else "old"}

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        to = client(server.server_address[1], headers=headers)
        assert to.ask("GET", "/").status == 200
        to.close()
        server.shutdown()
        thread.join(5)

    assert seen == ["old", "new"]


def test_a_redirect_is_not_followed(neighbour: Callable[[list[list[bytes]]], int]) -> None:
    """Our token goes to nobody but the endpoint of the settings."""
    moved = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    to = client(neighbour([[moved]]))

    assert to.ask("GET", "/").status == 302
    to.close()


def test_an_answer_that_is_not_http_is_unavailable(neighbour: Callable[[list[list[bytes]]], int]) -> None:
    to = client(neighbour([[b"220 smtp.example.org\r\n\r\n"], [b"220 smtp.example.org\r\n\r\n"]]))

    with pytest.raises(core.errors.Unavailable):
        to.ask("GET", "/")
    to.close()


def test_an_answer_without_an_end_is_cut_off_at_its_limit(
    neighbour: Callable[[list[list[bytes]]], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was kept in memory for as long as it came: 672 MB within ten seconds."""
    monkeypatch.setattr(clients.http, "MAX_DOCUMENT_BYTES", 1024 * 1024)
    piece = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + piece + piece

    with pytest.raises(core.errors.Unavailable, match="longer than"):
        client(neighbour([[endless]])).ask("GET", "/")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "http://",
        "http:///v2",
        "ftp://h",
        "http://u:hush@h:port",
        "http://u:hush@h:99999",
        "http://h:0",
        "http://[::1",
        "http://a..b/",
    ],
)
@pytest.mark.parametrize(
    "client", [lambda url: HttpClient(url, who="Placement", timeout_s=1.0), lambda url: Management(url, timeout_s=1.0)]
)
def test_a_url_that_no_service_has_is_refused_at_the_start(client: Callable[[str], object], url: str) -> None:
    """It was an error of the library, which no program catches, or one at the first request."""
    with pytest.raises(core.errors.Invalid, match="the URL of") as refused:
        client(url)

    assert "hush" not in refused.value.message
