"""The users of a measured cloud: one event loop, one HTTP connection for each request under way, next to no CPU of
their own."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any, Protocol

import aiohttp
import orjson

from core import errors
from devstack.configure import Addresses
from devstack.proof import FLAVOR, IMAGE

MICROVERSION = "2.90"
TIMEOUT_S = 120.0


class Reached(Protocol):
    """A cloud as its users know it."""

    addresses: Addresses
    admin: tuple[str, str]


class User:
    """The admin of the cloud, as often at once as wanted."""

    def __init__(self, cloud: Reached, session: aiohttp.ClientSession) -> None:
        self._compute = cloud.addresses.compute
        self._image = cloud.addresses.image
        self._session = session

    async def get(self, path: str) -> Any:
        """The answer's document."""
        return orjson.loads(await self.body(path))

    async def body(self, path: str) -> bytes:
        """The answer's bytes."""
        return await self._ask("GET", path, 200)

    async def create(self, wanted: dict[str, Any]) -> str:
        """The id of the (first) server accepted."""
        return str(orjson.loads(await self._ask("POST", "/servers", 202, json={"server": wanted}))["server"]["id"])

    async def refused(self, wanted: dict[str, Any], *, status: int) -> int:
        """The length of the answer to a create that is refused."""
        return len(await self._ask("POST", "/servers", status, json={"server": wanted}))

    async def delete(self, server_id: str) -> None:
        """Returns when the delete is accepted."""
        await self._ask("DELETE", f"/servers/{server_id}", 204)

    async def flavor_and_image(self) -> tuple[str, str]:
        """The ids of what the stack's own servers were made of."""
        flavors = (await self.get("/flavors"))["flavors"]
        async with self._session.get(f"{self._image}/v2/images", params={"name": IMAGE}) as response:
            images = orjson.loads(await response.read())["images"]
        return next(str(each["id"]) for each in flavors if each["name"] == FLAVOR["name"]), str(images[0]["id"])

    async def _ask(self, method: str, path: str, expected: int, **arguments: Any) -> bytes:
        async with self._session.request(method, self._compute + path, **arguments) as response:
            body = await response.read()
        if response.status != expected:
            raise errors.Broken(f"{method} {path} answered {response.status}: {body[:500].decode(errors='replace')}")
        return body


@contextlib.asynccontextmanager
async def user_of(cloud: Reached, *, at_once: int) -> AsyncIterator[User]:
    """The admin, with so many requests under way at most."""
    name, password = cloud.admin
    async with aiohttp.ClientSession(
        headers={
            "OpenStack-API-Version": f"compute {MICROVERSION}",
            "Authorization": aiohttp.BasicAuth(name, password).encode(),
        },
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
        connector=aiohttp.TCPConnector(limit=at_once),
        trust_env=False,
    ) as session:
        yield User(cloud, session)
