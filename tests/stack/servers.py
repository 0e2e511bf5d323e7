"""Many servers at once, over bare HTTP."""

import concurrent.futures
from collections.abc import Callable, Iterable
from typing import Any

import requests

from devstack.api_client import ApiClient
from devstack.waiting import wait_until
from tests.stack.cloud import Cloud

DEADLINE_S = 120.0
EVERY_S = 0.3


class Servers:
    """The demo project's servers, made and removed by several callers side by side."""

    def __init__(self, cloud: Cloud, *, concurrency: int = 8) -> None:
        self._cloud = cloud
        self._concurrency = concurrency
        api = cloud.api("demo")
        self._flavor = next(flavor["id"] for flavor in api.pages("/flavors", "flavors") if flavor["name"] == "m1.tiny")
        self._image = requests.get(f"{cloud.image}/v2/images", params={"name": "tiny"}, timeout=30).json()["images"][0][
            "id"
        ]

    def body(self, name: str, *, zone: str | None = None) -> dict[str, Any]:
        """What POST /servers takes."""
        chosen = {"availability_zone": zone} if zone else {}
        return {
            "server": {"name": name, "flavorRef": self._flavor, "imageRef": self._image, "networks": "none", **chosen}
        }

    def create(self, *names: str, zone: str | None = None) -> set[str]:
        """Orders servers; their ids."""
        return set(
            self._each(lambda api, name: str(api.post("/servers", self.body(name, zone=zone))["server"]["id"]), names)
        )

    def delete(self, ids: Iterable[str]) -> None:
        """Orders their end."""
        self._each(lambda api, server: api.delete(f"/servers/{server}"), ids)

    def listed(self) -> dict[str, dict[str, Any]]:
        """Those of the project, by id."""
        return {server["id"]: server for server in self._cloud.api("demo").pages("/servers/detail", "servers")}

    def wait_active(self, ids: set[str], *, deadline_s: float = DEADLINE_S) -> dict[str, dict[str, Any]]:
        """The servers once all of them are ACTIVE; fails as soon as one is in ERROR."""
        seen: dict[str, dict[str, Any]] = {}

        def all_are() -> bool:
            seen.update({server: row for server, row in self.listed().items() if server in ids})
            failed = [row for row in seen.values() if row["status"] == "ERROR"]
            assert not failed, failed
            return {server for server, row in seen.items() if row["status"] == "ACTIVE"} == ids

        try:
            wait_until(all_are, what=f"{len(ids)} ACTIVE servers", deadline_s=deadline_s, every_s=EVERY_S)
        except Exception as error:
            left = {server: seen.get(server, {}).get("status", "not listed") for server in ids}
            raise AssertionError(
                f"{error}: { ({server: status for server, status in left.items() if status != 'ACTIVE'}) }"
            ) from error
        return seen

    def wait_gone(self, ids: set[str], *, deadline_s: float = DEADLINE_S) -> None:
        """Returns once nothing of them is left anywhere: no row, no claim, no cleanup."""
        wait_until(
            lambda: not ids & set(self.listed()),
            what=f"end of {len(ids)} servers",
            deadline_s=deadline_s,
            every_s=EVERY_S,
        )
        left: dict[str, set[str]] = {}

        def nothing_left() -> bool:
            left.clear()
            left.update(self._cloud.leftovers(ids))
            return not left

        try:
            wait_until(nothing_left, what="end of all traces", deadline_s=deadline_s, every_s=EVERY_S)
        except Exception as error:
            raise AssertionError(f"{error}: {left}") from error

    def _each(self, work: Callable[[ApiClient, str], Any], items: Iterable[str]) -> list[Any]:
        with concurrent.futures.ThreadPoolExecutor(self._concurrency) as threads:
            return list(threads.map(lambda item: work(self._cloud.api("demo"), item), items))
