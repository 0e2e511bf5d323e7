"""Shows that a stack works: boots a server in every availability zone, through the HTTP API, as a user would."""

import base64
from collections.abc import Callable
from typing import Any

from core import errors
from devstack import guest_image
from devstack.api_client import ApiClient
from devstack.layout import Shape
from devstack.waiting import wait_until

FLAVOR = {"name": "m1.tiny", "vcpus": 1, "ram": 512, "disk": 1}
IMAGE = "tiny"
IMAGE_BYTES = base64.b64decode("Q2VsbHBsYW5lCg==") * 4096
HOSTS_DEADLINE_S = 60.0
BUILD_DEADLINE_S = 120.0
GONE_DEADLINE_S = 30.0


def wait_for_hosts(admin: ApiClient, shape: Shape) -> None:
    """Returns once every host's agent is up and its hypervisor is known."""
    wanted = set(shape.all_hosts)

    def all_known() -> bool:
        services = admin.get("/os-services", binary="nova-compute")["services"]
        return wanted <= {service["host"] for service in services if service["state"] == "up"}

    wait_until(all_known, what=f"sign of all {len(wanted)} hosts", deadline_s=HOSTS_DEADLINE_S, every_s=0.2)
    wait_until(
        lambda: (
            wanted
            <= {
                hypervisor["hypervisor_hostname"] for hypervisor in admin.pages("/os-hypervisors/detail", "hypervisors")
            }
        ),
        what=f"hypervisor of all {len(wanted)} hosts",
        deadline_s=HOSTS_DEADLINE_S,
        every_s=0.2,
    )


def furnish(admin: ApiClient, shape: Shape) -> tuple[str, str]:
    """A flavor, an image, and an availability zone for each cell with the cell's hosts; ids of flavor and image."""
    flavor_id = _flavor(admin)
    image_id = _image(admin, shape)
    present = {aggregate["name"]: aggregate for aggregate in admin.get("/os-aggregates")["aggregates"]}
    for cell in shape.cell_names:
        aggregate = present.get(cell) or _aggregate(admin, cell)
        for host in shape.hosts_of(cell):
            if host not in aggregate["hosts"]:
                _add_host(admin, aggregate["id"], host)
    return flavor_id, image_id


def boot(user: ApiClient, shape: Shape, *, flavor_id: str, image_id: str, say: Callable[[str], None]) -> None:
    """A server in each zone, ACTIVE; those of an earlier run are kept.

    Raises:
        Broken: one ends in ERROR; the message holds its fault.
    """
    present = {server["name"]: server for server in user.pages("/servers/detail", "servers")}
    building = {}
    for cell in shape.cell_names:
        name = f"hello-{cell}"
        server = present.get(name)
        if server is not None and server["status"] == "ERROR":
            _remove(user, server["id"])
            server = None
        if server is None:
            building[name] = _create(user, name, zone=cell, flavor_id=flavor_id, image_id=image_id)
        elif server["status"] == "BUILD":
            building[name] = server["id"]
    for name, server_id in building.items():
        _expect_active(user.wait_for_server(server_id, deadline_s=BUILD_DEADLINE_S), name)
        say(f"  server {name} is ACTIVE")


def _flavor(admin: ApiClient) -> str:
    for flavor in admin.pages("/flavors/detail", "flavors", is_public="None"):
        if flavor["name"] == FLAVOR["name"]:
            return str(flavor["id"])
    return str(admin.post("/flavors", {"flavor": FLAVOR})["flavor"]["id"])


def _image(admin: ApiClient, shape: Shape) -> str:
    if shape.driver == "libvirt":
        return admin.image_named(IMAGE, guest_image.ensure().read_bytes(), "qcow2", hw_qemu_guest_agent="yes")
    return admin.image_named(IMAGE, IMAGE_BYTES)


def _aggregate(admin: ApiClient, cell: str) -> dict[str, Any]:
    aggregate: dict[str, Any] = admin.post("/os-aggregates", {"aggregate": {"name": cell, "availability_zone": cell}})[
        "aggregate"
    ]
    return {"hosts": [], **aggregate}


def _add_host(admin: ApiClient, aggregate_id: int, host: str) -> None:
    """Adds a host to an aggregate once the API level has found it in its cell."""

    def is_added() -> bool:
        try:
            admin.post(f"/os-aggregates/{aggregate_id}/action", {"add_host": {"host": host}})
        except errors.NotFound:
            return False
        return True

    wait_until(is_added, what=f"discovery of host {host}", deadline_s=HOSTS_DEADLINE_S, every_s=0.2)


def _create(user: ApiClient, name: str, *, zone: str, flavor_id: str, image_id: str) -> str:
    wanted = {"name": name, "flavorRef": flavor_id, "imageRef": image_id, "availability_zone": zone, "networks": "none"}
    return str(user.post("/servers", {"server": wanted})["server"]["id"])


def _remove(user: ApiClient, server_id: str) -> None:
    user.delete(f"/servers/{server_id}")
    wait_until(
        lambda: server_id not in {server["id"] for server in user.pages("/servers/detail", "servers")},
        what=f"end of server {server_id}",
        deadline_s=GONE_DEADLINE_S,
        every_s=0.2,
    )


def _expect_active(server: dict[str, Any], name: str) -> None:
    if server["status"] != "ACTIVE":
        fault = server.get("fault", {}).get("message", "no fault is recorded")
        raise errors.Broken(f"server {name} ({server['id']}) ended in {server['status']}: {fault}", server=server["id"])
