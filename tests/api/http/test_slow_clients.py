"""Clients that take their time, or go: they have no turn of their project meanwhile, and keep no place in its queue."""

import asyncio
import contextlib
import dataclasses
import pathlib
import socket
from collections.abc import Iterator

import pytest

from api.http.call import Call
from api.http.policy import ADMIN as ADMINS
from api.http.policy import MEMBER, Rule
from api.http.routes import ActionRoute, Route
from api.http.schema import NAME, Body, Property
from tests.api.http.harness import ADMIN, ALICE, BOB, LIMITS
from tests.api.http.raw_connections import WITHIN_S, Served, answer, until

AT_ONCE, WAITING, BODIES = 2, 4, 8
MOST_BODIES_OF_PROJECT = AT_ONCE + WAITING
BODY = b'{"thing": {"name": "a"}}'
ACTION = b'{"work": {"name": "a"}}'
THING, WORK = Body("thing", Property("name", NAME, required=True)), Body("work", Property("name", NAME, required=True))


class World:
    """A served app whose handlers work until they may end, and clients of it."""

    def __init__(self, folder: pathlib.Path, stack: contextlib.ExitStack) -> None:
        self.may_end = asyncio.Event()
        self.begun = self.ended = 0
        self._stack = stack
        table = [
            Route("GET", "/brief", self._brief),
            Route("GET", "/work", self._work),
            Route("POST", "/brief", self._brief, body=THING),
            Route("POST", "/work", self._work, body=THING),
            Route("POST", "/member", self._brief, policy="member", body=THING),
            ActionRoute("/things/{id}/action", "work", self._work, body=WORK),
            ActionRoute("/members/{id}/action", "work", self._brief, policy="member", body=WORK),
            ActionRoute("/members/{id}/action", "more", self._brief, policy="admin"),
            ActionRoute("/members/{id}/action", "absent", self._brief, status=400),
            ActionRoute("/absent/{id}/action", "absent", self._brief, status=400),
        ]
        limits = dataclasses.replace(
            LIMITS,
            read_timeout_s=4 * WITHIN_S,
            project_at_once=AT_ONCE,
            project_waiting=WAITING,
            project_wait_s=4 * WITHIN_S,
            bodies_at_once=BODIES,
        )
        self.served = Served(folder, table, limits, rules=[Rule("member", MEMBER), Rule("admin", ADMINS)])
        stack.callback(self.served.close)
        stack.callback(self.end)

    async def _brief(self, call: Call) -> object:
        return {}

    async def _work(self, call: Call) -> object:
        self.begun += 1
        async with asyncio.timeout(4 * WITHIN_S):
            await self.may_end.wait()
        self.ended += 1
        return {}

    def end(self) -> None:
        """Lets the work end."""
        self.served.loop.call_soon_threadsafe(self.may_end.set)

    def begin(self, what: str, user: str = ALICE.user_id, *, length: int = 0, body: bytes = b"") -> socket.socket:
        """Sends a request's head, and what of its body comes with it."""
        client = self._stack.enter_context(contextlib.closing(self.served.connect()))
        head = (
            f"{what} HTTP/1.1\r\nHost: localhost\r\nX-Test-User: {user}\r\n"
            f"Content-Length: {length or len(body)}\r\n\r\n"
        )
        client.sendall(head.encode() + body)
        return client

    def fill(self) -> list[socket.socket]:
        """All that one project may have: those that work, and those that wait."""
        for _ in range(AT_ONCE):
            self.begin("GET /v2.1/work")
        until(lambda: self.begun == AT_ONCE)
        waiting = [self.begin("GET /v2.1/work") for _ in range(WAITING - 2)]
        waiting.append(self.begin("POST /v2.1/work", body=BODY))
        waiting.append(self.begin("POST /v2.1/things/1/action", body=ACTION))
        until(self._is_full)
        return waiting

    def _is_full(self) -> bool:
        """Whoever asks once more is sent away, and so has no place himself."""
        shares = self.served.app._shares._shares
        return sum(share.requests for share in shares.values()) == AT_ONCE + WAITING


@pytest.fixture
def world(tmp_path: pathlib.Path) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        yield World(tmp_path, stack)


@pytest.mark.parametrize("what", ["POST /v2.1/brief", "POST /v2.1/things/1/action"])
def test_bodies_that_do_not_come_hold_up_nobody_of_their_project(world: World, what: str) -> None:
    for _ in range(3 * MOST_BODIES_OF_PROJECT):
        world.begin(what, length=50)

    assert answer(world.begin("GET /v2.1/brief"))[0] == 200
    assert answer(world.begin("POST /v2.1/brief", body=BODY))[0] == 200
    late = world.begin("POST /v2.1/brief", length=len(BODY))
    assert answer(world.begin("GET /v2.1/brief"))[0] == 200
    late.sendall(BODY)
    assert answer(late)[0] == 200


def test_the_oldest_body_of_a_project_gives_way_to_its_next_and_no_other_projects_does(world: World) -> None:
    others = world.begin("POST /v2.1/brief", BOB.user_id, length=len(BODY))
    assert answer(world.begin("GET /v2.1/brief"))[0] == 200
    mine = []
    for _ in range(MOST_BODIES_OF_PROJECT + 2):
        mine.append(world.begin("POST /v2.1/brief", length=len(BODY)))
        assert answer(world.begin("GET /v2.1/brief"))[0] == 200

    assert [answer(client)[0] for client in mine[:2]] == [408] * 2
    for client in (others, *mine[2:]):
        client.sendall(BODY)
        assert answer(client)[0] == 200
    assert not world.served.app._bodies._arriving and not world.served.app._bodies._arriving_of


def test_all_projects_together_have_a_limit_too(world: World) -> None:
    clients = []
    for user in (ALICE, BOB, ADMIN):
        for _ in range(BODIES // 2):
            clients.append(world.begin("POST /v2.1/brief", user.user_id, length=len(BODY)))
            assert answer(world.begin("GET /v2.1/brief", user.user_id))[0] == 200

    given_up, kept = clients[: BODIES // 2], clients[BODIES // 2 :]
    assert [answer(client)[0] for client in given_up] == [408] * len(given_up)
    for client in kept:
        client.sendall(BODY)
        assert answer(client)[0] == 200


@pytest.mark.parametrize(
    ("what", "length", "status"),
    [
        ("POST /v2.1/nowhere", 50, 404),
        ("POST /v2.1/member", 50, 403),
        ("POST /v2.1/members/1/action", 50, 403),
        ("POST /v2.1/brief", LIMITS.max_body_bytes + 1, 413),
        ("POST /v2.1/things/1/action", LIMITS.max_body_bytes + 1, 413),
        ("POST /v2.1/brief?" + "&".join(["a=1"] * 1001), 50, 400),
    ],
)
def test_what_the_head_alone_decides_is_refused_before_the_body(
    world: World, what: str, length: int, status: int
) -> None:
    assert answer(world.begin(what, BOB.user_id, length=length))[0] == status


def test_an_action_that_nobody_may_ask_for_is_refused_in_its_own_words(world: World) -> None:
    for what, user in (("POST /v2.1/absent/1/action", BOB), ("POST /v2.1/members/1/action", ALICE)):
        status, _, body = answer(world.begin(what, user.user_id, body=b'{"absent": null}'))
        assert (status, body) == (400, b"{}")


def test_whoever_waits_and_goes_gives_up_his_place_and_nothing_is_done_for_him(world: World) -> None:
    waiting = world.fill()
    assert answer(world.begin("GET /v2.1/brief"))[0] == 503
    for client in waiting:
        client.close()

    share = next(iter(world.served.app._shares._shares.values()))
    until(lambda: share.requests == AT_ONCE)
    stays = world.begin("GET /v2.1/brief")
    world.end()
    assert answer(stays)[0] == 200
    assert world.begun == AT_ONCE


def test_what_is_being_worked_on_goes_on_when_its_client_goes(world: World) -> None:
    client = world.begin("POST /v2.1/work", body=BODY)
    until(lambda: world.begun == 1)
    client.close()
    until(lambda: world.served.server.connections == 0)
    assert world.ended == 0
    world.end()
    until(lambda: world.ended == 1)


def test_a_client_that_goes_is_told_apart_in_the_log_from_one_that_errs(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        for client in world.fill():
            client.close()
        world.begin("POST /v2.1/brief", length=50).close()
        until(lambda: caplog.text.count("status=499") == WAITING + 1)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
