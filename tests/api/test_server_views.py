"""A server's representation: every field in every view at every microversion."""

import datetime
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from api.http import versions
from api.http.versions import Microversion
from api.http.view import View, compiled
from api.resources.servers import views
from lifecycle import states
from objects.build import BuildSpec, Flavor, ImageRef
from objects.build_request import BuildRequest
from objects.fault import Fault
from objects.server import Server, server_of_build_request

ALWAYS = 1
NEVER = 999

# field -> the minor microversion from which GET, PUT and rebuild show it; source: Compute API reference, 4.1
_EVERYWHERE = (
    "id", "name", "status", "tenant_id", "user_id", "metadata", "hostId", "image", "flavor", "created", "updated",
    "addresses", "accessIPv4", "accessIPv6", "links", "OS-DCF:diskConfig", "progress",
)  # fmt: skip
_FROM_75 = (
    "OS-EXT-AZ:availability_zone", "config_drive", "OS-SRV-USG:launched_at", "OS-SRV-USG:terminated_at",
    "OS-EXT-STS:task_state", "OS-EXT-STS:vm_state", "OS-EXT-STS:power_state", "os-extended-volumes:volumes_attached",
)  # fmt: skip
_ADMINS = {
    **{f"OS-EXT-SRV-ATTR:{name}": (1, 75, 75) for name in ("host", "instance_name", "hypervisor_hostname")},
    **{
        f"OS-EXT-SRV-ATTR:{name}": (3, 75, 75)
        for name in ("hostname", "kernel_id", "launch_index", "ramdisk_id", "reservation_id", "root_device_name")
    },
    "OS-EXT-SRV-ATTR:user_data": (3, 75, NEVER),
    "host_status": (16, 75, 75),
}
_SINCE = {
    **dict.fromkeys(_EVERYWHERE, (ALWAYS, ALWAYS, ALWAYS)),
    **dict.fromkeys(_FROM_75, (ALWAYS, 75, 75)),
    **_ADMINS,
    "key_name": (ALWAYS, 75, 54),
    "locked": (9, 9, 9),
    "description": (19, 19, 19),
    "tags": (26, 26, 26),
    "trusted_image_certificates": (63, 63, 63),
    "locked_reason": (73, 73, 73),
    "pinned_availability_zone": (96, 96, 96),
    "scheduler_hints": (100, 100, 100),
    "server_groups": (71, 71, 71),
    "user_data": (NEVER, NEVER, 57),
}
_VIEWS = {"GET": views.SERVER_SHOW, "PUT": views.SERVER_UPDATED, "rebuild": views.SERVER_REBUILT}


def _server(**changes: Any) -> Server:
    build = BuildSpec(
        uuid="u",
        project_id="p",
        user_id="who",
        name="n",
        hostname="n",
        flavor=Flavor("7", "m1.small", 1, 512, 1),
        image=ImageRef("i"),
    )
    order = BuildRequest(
        build=build, request_id="req-1", created_at=datetime.datetime(2024, 1, 2, 3, 4, 5, 678), image_ref="i"
    )
    return msgspec.structs.replace(server_of_build_request(order), **changes)


def _call(*, is_admin: bool) -> Any:
    return SimpleNamespace(
        base_url="http://cloud/v2.1",
        bookmark_url="http://cloud",
        can=lambda rule: is_admin or rule == views.FLAVOR_EXTRA_SPECS,
        context=SimpleNamespace(is_admin=is_admin),
    )


def _shown(server: Server, minor: int, *, view: View = views.SERVER_SHOW, is_admin: bool = False) -> dict[str, Any]:
    document: dict[str, Any] = view.document(Microversion(2, minor))(server, _call(is_admin=is_admin))["server"]
    return document


@pytest.mark.parametrize("is_admin", [True, False])
@pytest.mark.parametrize("number", range(3))
def test_every_field_begins_where_the_reference_says(number: int, is_admin: bool) -> None:
    view = _VIEWS[("GET", "PUT", "rebuild")[number]]
    for minor in range(versions.MIN.minor, versions.MAX.minor + 1):
        wanted = {
            name
            for name, since in _SINCE.items()
            if since[number] <= minor
            and (is_admin or name not in _ADMINS or (name == "OS-EXT-SRV-ATTR:hostname" and minor >= 90))
        }
        assert set(_shown(_server(), minor, view=view, is_admin=is_admin)) == wanted, minor


def test_a_detailed_list_leaves_groups_to_show() -> None:
    assert "server_groups" not in _shown(_server(), 96, view=views.SERVER_DETAIL)


def test_the_flavor_is_a_link_until_2_46_and_whole_after() -> None:
    assert _shown(_server(), 46)["flavor"] == {"id": "7",
        "links": [{"rel": "bookmark", "href": "http://cloud/flavors/7"}]}
    assert _shown(_server(), 47)["flavor"] == {
        "vcpus": 1, "ram": 512, "disk": 1, "ephemeral": 0, "swap": 0, "original_name": "m1.small", "extra_specs": {},
    }  # fmt: skip


def test_times_and_empty_values_look_as_clients_expect() -> None:
    shown = _shown(_server(launched_at=datetime.datetime(2024, 1, 2, 3, 4, 5)), 96)

    assert shown["created"] == shown["updated"] == "2024-01-02T03:04:05Z"
    assert shown["OS-SRV-USG:launched_at"] == "2024-01-02T03:04:05.000000"
    assert (shown["OS-SRV-USG:terminated_at"], shown["hostId"], shown["config_drive"], shown["accessIPv4"]) == (
        None,
        "",
        "",
        "",
    )
    assert _shown(_server(config_drive=True), 1)["config_drive"] == "True"
    assert _shown(_server(image_ref=""), 1)["image"] == ""


def test_only_some_states_have_progress_and_faults() -> None:
    fault = Fault(code=500, message="m", created="2024-01-02T03:04:05Z", details="d")
    for vm_state in states.VM_STATES:
        server = _server(vm_state=vm_state, task_state=None, fault=fault)
        shown = _shown(server, 1)
        assert ("fault" in shown) == (server.status in ("ERROR", "DELETED"))
        assert ("progress" in shown) == (server.status in ("ACTIVE", "BUILD", "VERIFY_RESIZE"))


def test_what_broke_inside_is_told_to_admins_alone() -> None:
    fault = Fault(message="m", created="2024-01-02T03:04:05.678901Z", details="d", host="east-1")
    inside = _server(vm_state="error", fault=fault)
    outside = _server(vm_state="error", fault=msgspec.structs.replace(fault, code=400))

    assert _shown(inside, 1)["fault"] == {"code": 500, "message": "m", "created": "2024-01-02T03:04:05Z"}
    assert _shown(inside, 1, is_admin=True)["fault"]["details"] == "d"
    assert _shown(outside, 1)["fault"]["details"] == "d"


def test_the_policy_is_asked_once_for_a_whole_list() -> None:
    asked: list[str] = []
    call = _call(is_admin=True)
    call.can = lambda rule: asked.append(rule) or True

    compiled(views.SERVER_DETAIL, versions.MAX, many=True)([_server()] * 50, call)

    assert len(asked) == len(set(asked))
