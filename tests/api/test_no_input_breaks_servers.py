"""No input yields a 500, costs much of the processor, or stays in memory: requests of a member who has servers, over
all routes and microversions.

An administrator without servers reaches no cell, and proves little. Bodies are drawn from the routes' own schemas, and
made hostile.
"""

import base64
import os
import pathlib
import random
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any

import orjson
import psutil
import pytest

import api.main
import api.resources.table
import tests.api.small_cloud
from api.http.routes import ActionRoute, Route
from api.http.versions import MAX, MIN, Microversion
from api_db.schema import SCHEMA
from tests.api import responses
from tests.api.http.harness import ADMIN, ALICE, Reply
from tests.api.http.test_fuzz import PARAMETERS, SEGMENTS, VALUES, drawn_body
from tests.api.small_cloud import IMAGE, SmallCloud, on_mariadb, on_sqlite, small_cloud

pytestmark = pytest.mark.slow

RESOURCES = api.resources.table.RESOURCES
ROWS: list[Route | ActionRoute] = [row for resource in RESOURCES for row in resource.ROUTES]
LARGEST_BYTES = 114688
SERVERS = 6
MAX_CPU_S = 1.0
MAX_RSS_GROWTH = 96 * 1024 * 1024
# Whoever asks the host is told that there is none: this cloud has no agents.
ASKS_THE_HOST = frozenset(
    {"os-getConsoleOutput", "os-getVNCConsole", "os-getSerialConsole", "os-getSPICEConsole", "os-getRDPConsole"}
    | {
        "changePassword",
        "/servers/{server_id}/diagnostics",
        "/servers/{server_id}/remote-consoles",
        "/servers/{id}/diagnostics",
    }
)
HOSTILE_PARAMETERS = [
    *PARAMETERS,
    "9223372036854775808",
    "-9223372036854775809",
    "9" * 300,
    "9999-12-31T23:59:59.999999Z",
    "0001-01-01T00:00:00+14:00",
    "(a+a+)+$",
    "((((a)+)+)+)+",
    "a{9999}",
    "(?R)",
    r"(a)\1",
    "[[:alpha:]",
    "(?i)web",
    "a,b,c",
    ",".join(map(str, range(200))),
    "x" * 2000,
    "%ED%A0%80",
    "%F0%9F%98%80" * 50,
    "2001:db8::1%25" + "x" * 60,
    "1e400",
    "null",
    "ß",
    "\uff41",
    "\U0001f600",
]


@pytest.fixture(params=["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)])
def cloud(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SmallCloud]:
    """A cloud without quotas, with everything that is served."""
    monkeypatch.setattr(tests.api.small_cloud, "RESOURCES", RESOURCES)
    unlimited = "[quota]\n" + "".join(
        f"{name} = -1\n" for name in ("instances", "cores", "ram", "key_pairs", "server_groups")
    )
    urls = on_sqlite(tmp_path) if request.param == "sqlite" else on_mariadb(request.getfixturevalue("mariadb_server"))
    with small_cloud(tmp_path, "[api]\npassword_wait_s = 0\n" + unlimited, urls=urls) as small:
        with small.api.transaction() as connection:
            connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32))")
            connection.exec_driver_sql(f"INSERT INTO alembic_version VALUES ('{SCHEMA.newest}')")
        yield small


class Fuzz:
    """Draws requests and looks at what comes of them."""

    def __init__(self, cloud: SmallCloud, seed: int) -> None:
        self._cloud = cloud
        self._chance = random.Random(seed)
        self._known: list[str] = []
        self._rows = [row for row in ROWS if not _asks_the_host(row)]

    def run(self, requests: int) -> None:
        process = psutil.Process()
        rss = None
        for number in range(requests):
            if number % 500 == 0:
                self._renew()
            if number == requests // 4:
                rss = process.memory_info().rss
            self._try()
        assert rss is not None
        assert process.memory_info().rss - rss < MAX_RSS_GROWTH

    def _renew(self) -> None:
        """Deletes were among the requests."""
        cloud, number = self._cloud, self._chance.randrange(10**6)
        cloud.shelf.fill()
        servers = [
            cloud.running(name=f"web-{number}-{each}", metadata={"a": "b"}, tags=["a", "red"])
            for each in range(SERVERS - 2)
        ]
        servers += [cloud.running("west", "west-1", name="w"), cloud.created(name="journal")]
        self._known = [*servers, IMAGE, "laptop"]
        # aiohttp's client for tests keeps all responses, bodies included.
        cloud.ask._client._responses.clear()

    def _try(self) -> None:
        chance = self._chance
        row = chance.choice(self._rows)
        first = max(Microversion.parse(row.since), MIN).minor
        last = (MAX if row.until is None else min(Microversion.parse(row.until), MAX)).minor
        version = str(Microversion(2, chance.randint(first, last)))
        method = "POST" if isinstance(row, ActionRoute) else row.method
        path, user = self._path(row), ADMIN if chance.random() < 0.1 else ALICE
        body = self._body(row, version) if method in ("POST", "PUT") else None
        headers = {"Content-Type": "application/json"}
        began = time.process_time()
        reply = self._cloud.ask.ask(method, path, body=body, version=version, user=user, headers=headers)
        spent = time.process_time() - began
        what = (method, path[:500], version, user.user_id, (body or b"")[:500], reply.status, reply.body[:500])
        assert _is_fine(reply, row), what
        wrong = responses.what_is_wrong(method, path, _document(body), version, reply)
        assert wrong is None, (wrong, *what)
        assert spent < MAX_CPU_S, (spent, *what)
        assert len(reply.body) < 5_000_000, what

    def _path(self, row: Route | ActionRoute) -> str:
        chance = self._chance
        segments = [self._segment() if part.startswith("{") else part for part in row.path.split("/")]
        path = (row.under if isinstance(row, Route) else "/v2.1") + "/".join(segments)
        if isinstance(row, ActionRoute) or chance.random() < 0.3:
            return path
        names = [param.name for param in row.query.params] or ["a"]
        given = [(chance.choice(names), self._parameter()) for _ in range(chance.choice([1, 1, 2, 3, 20]))]
        return f"{path}?" + "&".join(f"{name}={value}" for name, value in given)[:6000].rstrip("%0123456789ABCDEF")

    def _segment(self) -> str:
        return self._chance.choice(self._known) if self._chance.random() < 0.7 else self._chance.choice(SEGMENTS)

    def _parameter(self) -> str:
        value = self._chance.choice([*HOSTILE_PARAMETERS, *self._known])
        return value if "%" in value else urllib.parse.quote(value)

    def _body(self, row: Route | ActionRoute, version: str) -> bytes:
        chance = self._chance
        try:
            document = drawn_body(row, Microversion.parse(version), chance)
            if chance.random() < 0.25:
                document = self._hostile(document)
            return orjson.dumps(document)[:LARGEST_BYTES]
        except TypeError:  # an integer that JSON, as orjson writes it, can't hold
            return b'{"server": 99999999999999999999999999}'

    def _hostile(self, document: Any) -> Any:
        """The same with one value somewhere in it exchanged for much of something."""
        if isinstance(document, dict) and document and self._chance.random() < 0.8:
            key = self._chance.choice(list(document))
            return {**document, key: self._hostile(document[key])}
        if isinstance(document, list) and document and self._chance.random() < 0.3:
            return [*document[1:], self._hostile(document[0])]
        return self._much()

    def _much(self) -> Any:
        chance, many = self._chance, self._chance.choice([20, 300, 3000])
        value = chance.choice(VALUES)
        deep: Any = value
        for _ in range(chance.choice([5, 31, 40, 200])):
            deep = chance.choice([[deep], {"a": deep}])
        mixed = [each for number in range(many) for each in (number, str(number))]
        strings = "x" * many * 10, "\U0001f600" * many, "a\u0301" * many
        return chance.choice(
            [deep, mixed, [value] * many, {str(number): value for number in range(many)}, *strings, [{}] * many]
        )


def _document(body: bytes | None) -> Any:
    try:
        return orjson.loads(body or b"")
    except orjson.JSONDecodeError:
        return None


def _asks_the_host(row: Route | ActionRoute) -> bool:
    return (row.action if isinstance(row, ActionRoute) else row.path) in ASKS_THE_HOST


def _is_fine(reply: Reply, row: Route | ActionRoute) -> bool:
    # All databases answer, and nobody else asks: a 503 would be an error by another name.
    return reply.status < 500 or reply.status == row.status


def _seed() -> int:
    """Another one each time; CELLPLANE_FUZZ_SEED repeats one."""
    seed = int(os.environ.get("CELLPLANE_FUZZ_SEED") or random.SystemRandom().randrange(2**32))
    print(f"CELLPLANE_FUZZ_SEED={seed}")
    return seed


def test_no_request_of_a_few_thousand_breaks_anything(cloud: SmallCloud) -> None:
    Fuzz(cloud, _seed()).run(5_000)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_no_request_of_a_hundred_thousand_breaks_anything(cloud: SmallCloud) -> None:
    Fuzz(cloud, _seed()).run(100_000)


KEY = "ecdsa-sha2-nistp256 "
NUMBERS_AND_TIMES = [
    "power_state=9223372036854775808",
    "progress=9223372036854775808",
    "progress=-99999999999999999999",
    "launch_index=99999999999",
    "limit=99999999999999999999",
    "created_at=9999-12-31T23:59:59.999999Z",
    "launched_at=9999-12-31T23:59:59.999999Z",
    "terminated_at=0001-01-01T00:00:00Z",
    "changes-since=0001-01-01T00:00:00%2B14:00",
    "changes-before=9999-12-31T23:59:59.999999-14:00",
    "tags=" + ",".join(map(str, range(1000))),
    "not-tags=" + ",".join(map(str, range(51))),
    "name=((((a)%2B)%2B)%2B)%2B",
    "&".join(["status=ACTIVE"] * 400),
    "&".join(["sort_key=uuid"] * 400),
]


@pytest.mark.parametrize("query", NUMBERS_AND_TIMES)
def test_numbers_and_times_beyond_what_databases_hold(cloud: SmallCloud, query: str) -> None:
    cloud.running()
    cloud.created()

    for path in ("/v2.1/servers", "/v2.1/servers/detail"):
        assert cloud.ask.get(f"{path}?{query}", version="2.96", user=ALICE).status in (200, 400)


@pytest.mark.parametrize("offset", ["2147483648", "9223372036854775807", "9223372036854775808", "99999999999999999999"])
def test_offsets_beyond_what_databases_hold(cloud: SmallCloud, offset: str) -> None:
    assert cloud.ask.get(f"/v2.1/os-server-groups?offset={offset}&limit=1000", user=ALICE).status in (200, 400)


@pytest.mark.parametrize(
    "point", [b"\x00", b"\x02" + b"\x01" * 32, b"\x06" + b"\x01" * 64, b"\x04" + b"\x01" * 64, b""]
)
def test_points_that_the_library_does_not_read(cloud: SmallCloud, point: bytes) -> None:
    parts = [b"ecdsa-sha2-nistp256", b"nistp256", point]
    blob = b"".join(len(part).to_bytes(4) + part for part in parts)
    key = {"name": "odd", "public_key": KEY + base64.b64encode(blob).decode()}

    reply = cloud.ask.post("/v2.1/os-keypairs", {"keypair": key}, user=ALICE)

    assert reply.status == 400 and "public_key" in reply.fault


@pytest.mark.parametrize("address", ["fe80::1%eth0", "fe80::1%" + "x" * 100, "0" + "ffff:" * 6 + "255.255.255.255"])
def test_addresses_longer_than_their_column(cloud: SmallCloud, address: str) -> None:
    uuid = cloud.created()

    assert cloud.ask.put(f"/v2.1/servers/{uuid}", {"server": {"accessIPv6": address}}, user=ALICE).status == 400
