"""What comes over a connection and is no request, or whose answer nobody reads: it gets our words, a line in the log,
and an end."""

import contextlib
import logging
import pathlib
import re
import socket
import struct
from collections.abc import Iterator

import orjson
import pytest

from api.http.app import Limits
from api.http.call import Call, Raw
from api.http.routes import Access, Route
from tests.api.http.raw_connections import Served, answer, until, until_closed

BIG_BYTES = 12_000_000
MAX_UNSENT = 20_000_000


async def small(call: Call) -> object:
    return {"small": True}


async def big(call: Call) -> object:
    return Raw(bytes(BIG_BYTES), "application/octet-stream")


LIMITS = Limits(
    max_limit=10,
    max_body_bytes=20_000,
    read_timeout_s=1.0,
    link_prefix=None,
    send_progress_timeout_s=0.5,
    max_unsent_bytes=MAX_UNSENT,
)
TABLE = [Route("GET", "/small", small, access=Access.ANYBODY), Route("GET", "/big", big, access=Access.ANYBODY)]


@pytest.fixture
def served(tmp_path: pathlib.Path) -> Iterator[Served]:
    with contextlib.closing(Served(tmp_path, TABLE, LIMITS, head_timeout_s=0.5)) as served:
        yield served


HEAD = b"Host: localhost\r\n"
NO_REQUESTS = {
    "no method": b"\x00\x01\x02 / HTTP/1.1\r\n" + HEAD,
    "no version": b"GET / HTTQ/9\r\n" + HEAD,
    "a header without a colon": b"GET /v2.1/small HTTP/1.1\r\nnonsense\r\n" + HEAD,
    "NUL in a header": b"GET /v2.1/small HTTP/1.1\r\nX: a\x00b\r\n" + HEAD,
    "two lengths": b"POST /v2.1/small HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n" + HEAD,
    "a long line": b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n" + HEAD,
    "a long header": b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000 + b"\r\n" + HEAD,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n",
    "an expectation that nobody meets": b"GET /v2.1/small HTTP/1.1\r\nExpect: wonders\r\n" + HEAD,
    "an expectation that is no text": b"GET /v2.1/small HTTP/1.1\r\nExpect: \xff\r\n" + HEAD,
    "no path": b"OPTIONS * HTTP/1.1\r\n" + HEAD,
    "no path and an expectation": b"OPTIONS * HTTP/1.1\r\nExpect: wonders\r\n" + HEAD,
    "a line break in the path": b"GET /v2.1/small%0a HTTP/1.1\r\nX-Test-User: alice-id\r\n" + HEAD,
    "a line break before ours": b"GET /%0d%0a/v2.1/small HTTP/1.1\r\n" + HEAD,
    "no text in the microversion": b"GET /v2.1/small HTTP/1.1\r\nX-OpenStack-Nova-API-Version: \xe9\r\n" + HEAD,
    "no text in the standard one": b"GET /v2.1/small HTTP/1.1\r\nOpenStack-API-Version: compute \xff\xfe\r\n" + HEAD,
}


@pytest.mark.parametrize("sent", NO_REQUESTS.values(), ids=NO_REQUESTS)
def test_whatever_is_refused_is_refused_in_our_words_and_logged(
    served: Served, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    with caplog.at_level(logging.INFO), contextlib.closing(served.connect()) as client:
        client.sendall(sent + b"\r\n")
        status, headers, body = answer(client)
    assert 400 <= status < 500
    ((name, fault),) = orjson.loads(body).items()
    assert fault["code"] == status and fault["message"], name
    assert headers["x-compute-request-id"] == headers["x-openstack-request-id"]
    assert headers["server"] == "cellplane"
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("answered")]
    assert [re.search("request_id=(\\S+)", line)[1] for line in lines] == [headers["x-compute-request-id"]]  # type: ignore[index]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_who_expects_an_answer_and_goes_is_no_error(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    expecting = b"GET /v2.1/small HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 9\r\n" + HEAD + b"\r\n"
    for _ in range(50):
        with contextlib.closing(served.connect()) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # Closed with a reset.
            client.sendall(expecting)

    with contextlib.closing(served.connect()) as client:
        client.sendall(expecting)
        assert client.recv(100).startswith(b"HTTP/1.1 100 ")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_what_fails_outside_the_handlers_is_told_and_logged_with_its_cause(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> None:
        raise KeyError("a mistake of ours")

    monkeypatch.setattr(served.server, "_handler", fail)
    with contextlib.closing(served.connect()) as client:
        client.sendall(b"GET /v2.1/small HTTP/1.1\r\n" + HEAD + b"\r\n")
        status, headers, body = answer(client)
    assert status == 500
    assert headers["x-compute-request-id"] in orjson.loads(body)["computeFault"]["message"]
    assert any(record.exc_info and isinstance(record.exc_info[1], KeyError) for record in caplog.records)


def test_no_answer_names_a_version_of_anything(served: Served) -> None:
    with contextlib.closing(served.connect()) as client:
        client.sendall(b"GET /v2.1/small HTTP/1.1\r\n" + HEAD + b"\r\n")
        status, headers, _ = answer(client)
    assert (status, headers["server"]) == (200, "cellplane")


@pytest.mark.parametrize("sent", [b"", b"GET /v2.1/small HTT", b"GET /v2.1/small HTTP/1.1\r\nHost: l"])
def test_half_a_head_is_not_waited_for_for_ever(served: Served, sent: bytes) -> None:
    with contextlib.closing(served.connect()) as client:
        client.sendall(sent)
        until_closed(client)
    until(lambda: not served.server.connections)


def test_an_answer_that_nobody_reads_ends_with_its_connection(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    with contextlib.closing(served.connect()) as client:
        client.sendall(b"GET /v2.1/big HTTP/1.1\r\n" + HEAD + b"\r\n")
        until(lambda: "was not read in time" in caplog.text)
        until(lambda: not served.server.connections)


def test_answers_under_way_have_a_limit_together(served: Served) -> None:
    with contextlib.ExitStack() as stack:
        deaf = stack.enter_context(contextlib.closing(served.connect()))
        deaf.sendall(b"GET /v2.1/big HTTP/1.1\r\n" + HEAD + b"\r\n")
        assert deaf.recv(1)
        other = stack.enter_context(contextlib.closing(served.connect()))
        other.sendall(b"GET /v2.1/big HTTP/1.1\r\n" + HEAD + b"\r\n")
        status, headers, _ = answer(other)
        assert (status, headers["retry-after"]) == (503, "2")
        other.sendall(b"GET /v2.1/small HTTP/1.1\r\n" + HEAD + b"\r\n")
        assert answer(other)[0] == 200
