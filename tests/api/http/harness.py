"""The real app behind aiohttp's test server, asked by plain function calls."""

import asyncio
import contextlib
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp.test_utils import RawTestServer, TestClient
from multidict import CIMultiDict, CIMultiDictProxy
from oslo_config import cfg

import api.main
import core.config
from api.cloud import Cloud
from api.http.app import App, Limits
from api.http.caller import Identity, Strategy
from api.http.policy import Policy, Rule, with_implied
from api.http.routes import ActionRoute, Route
from api_db.tables import metadata
from core.clock import SystemClock
from core.http_server import requests_of_at_most
from tests.empty_sqlite import make_tables

ALICE = Identity("alice-id", "0a11ce", with_implied(["member"]))
BOB = Identity("bob-id", "0b0b", with_implied(["reader"]))
ADMIN = Identity("admin-id", "0ad1", with_implied(["admin"]))

LIMITS = Limits(max_limit=1000, max_body_bytes=20_000, read_timeout_s=5.0, link_prefix=None)


class Trusting:
    """Believes whom the header `X-Test-User` names."""

    discovery_needs_credentials = False

    def __init__(self, *identities: Identity) -> None:
        self._identities = {identity.user_id: identity for identity in identities or (ALICE, BOB, ADMIN)}

    async def identify(self, headers: Mapping[str, str]) -> Identity:
        return self._identities[headers["X-Test-User"]]

    def close(self) -> None:
        """Holds nothing."""


@dataclass(frozen=True)
class Reply:
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def fault(self) -> str:
        """The fault's name and message."""
        ((name, inner),) = self.json.items()
        assert inner["code"] == self.status
        return f"{name}: {inner['message']}"


class Asker:
    """Asks one app, as one user after the other. `judge`: says what is wrong with an answer, if anything is; given
    method, path, body, microversion and reply."""

    def __init__(self, runner: asyncio.Runner, client: "TestClient[Any, Any]") -> None:
        self._runner = runner
        self._client = client
        self.judge: Callable[[str, str, Any, str, Reply], str | None] = lambda *answered: None

    def ask(
        self,
        method: str,
        path: str,
        json: Any = None,
        *,
        version: str | None = None,
        user: Identity | None = ADMIN,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Reply:
        sent = CIMultiDict(headers or {})
        if user is not None:
            sent.update(_as(user))
        if version is not None:
            sent["OpenStack-API-Version"] = f"compute {version}"
        if json is not None:
            sent.setdefault("Content-Type", "application/json")
            body = orjson.dumps(json)
        reply = self._runner.run(self._ask(method, path, sent, body))
        wrong = self.judge(method, path, json, version or "2.1", reply)
        assert wrong is None, wrong
        return reply

    async def _ask(self, method: str, path: str, headers: CIMultiDict[str], body: bytes | None) -> Reply:
        async with self._client.request(method, path, headers=headers, data=body) as response:
            return Reply(response.status, response.headers, await response.read())

    def get_at_once(self, *asked: tuple[str, Identity]) -> list[Reply]:
        """Many paths, each as its user, before any has an answer."""

        async def all_of_them() -> list[Reply]:
            return await asyncio.gather(*(self._ask("GET", path, _as(user), None) for path, user in asked))

        return self._runner.run(all_of_them())

    def get(self, path: str, **more: Any) -> Reply:
        return self.ask("GET", path, **more)

    def post(self, path: str, json: Any, **more: Any) -> Reply:
        return self.ask("POST", path, json, **more)

    def put(self, path: str, json: Any, **more: Any) -> Reply:
        return self.ask("PUT", path, json, **more)

    def delete(self, path: str, **more: Any) -> Reply:
        return self.ask("DELETE", path, **more)


def _as(user: Identity) -> CIMultiDict[str]:
    return CIMultiDict({"X-Test-User": user.user_id})


@contextlib.contextmanager
def asking(app: App) -> Iterator[Asker]:
    """The app served on a free loopback port."""
    with asyncio.Runner() as runner:
        client = runner.run(_open(app))
        try:
            yield Asker(runner, client)
        finally:
            runner.run(client.close())


async def _open(app: App) -> "TestClient[Any, Any]":
    server = RawTestServer(app.serve)
    await server.start_server(request_factory=requests_of_at_most(app.max_body_bytes))
    client = TestClient(server)
    await client.start_server()
    return client


def settings(folder: pathlib.Path, text: str = "") -> cfg.ConfigOpts:
    """The program's settings from a file: an API database below the folder, and whatever the text says."""
    file = folder / "api.conf"
    file.write_text(
        "[DEFAULT]\nhost = here\ntransport_url = inproc://api-tests\n"
        f"[api_database]\nconnection = sqlite:///{folder}/api.sqlite\n"
        "[image]\nendpoint = http://127.0.0.1:9\n"
        f"{text}"
    )
    return core.config.load("cellplane-api", ["--config-file", str(file)], api.main.options())


@contextlib.contextmanager
def serving_tables(
    conf: cfg.ConfigOpts,
    tables: Sequence[Sequence[Route | ActionRoute]],
    *,
    rules: Sequence[Rule] = (),
    strategy: Strategy | None = None,
    limits: Limits = LIMITS,
    cloud: Any = None,
) -> Iterator[Asker]:
    """An app of these tables alone."""
    app = App(
        cloud=cloud,
        tables=tables,
        policy=Policy(conf, rules),
        strategy=strategy or Trusting(),
        limits=limits,
        clock=SystemClock(),
    )
    with asking(app) as asker:
        yield asker


@contextlib.contextmanager
def serving_everything(conf: cfg.ConfigOpts, strategy: Strategy | None = None) -> Iterator[Asker]:
    """All resources on a new, empty API database."""
    make_tables(conf.api_database.connection, metadata)
    cloud = Cloud(conf)
    cloud.start()
    try:
        with asking(api.main.app_of(conf, cloud, strategy or Trusting())) as asker:
            yield asker
    finally:
        cloud.stop()
