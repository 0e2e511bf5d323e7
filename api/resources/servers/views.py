"""A server as responses show it: one table of fields, and the views that are cut from it.

Source: Compute API reference, server representation. The same field begins at different microversions in GET, in PUT's
answer and in rebuild's, so each row holds the three of them; `NEVER` keeps a field out of a view.
"""

import dataclasses
import datetime
import hashlib
from collections.abc import Callable
from typing import Any

from api.http.call import Call
from api.http.versions import Microversion
from api.http.view import Field, Render, View, with_microseconds, zulu
from api_db.aggregates import DEFAULT_ZONE
from lifecycle import states
from objects.build import Flavor
from objects.fault import Fault
from objects.server import Server

NEVER = None

EXTENDED_ATTRIBUTES = "os_compute_api:os-extended-server-attributes"
HOST_STATUS = "os_compute_api:servers:show:host_status"
HOST_STATUS_IF_UNKNOWN = "os_compute_api:servers:show:host_status:unknown-only"
FLAVOR_EXTRA_SPECS = "os_compute_api:servers:show:flavor-extra-specs"

_NOTHING: dict[str, Any] = {}


def _links(server: Server, call: Call) -> list[dict[str, str]]:
    path = "/servers/" + server.uuid
    return [{"rel": "self", "href": call.base_url + path}, {"rel": "bookmark", "href": call.bookmark_url + path}]


def _host_id(server: Server) -> str:
    """A name for the host that tells its project's servers apart by host and says nothing else."""
    if not server.host:
        return ""
    return hashlib.sha224((server.project_id + server.host).encode()).hexdigest()


def _image(server: Server, call: Call) -> Any:
    if not server.image_ref:
        return ""
    return {
        "id": server.image_ref,
        "links": [{"rel": "bookmark", "href": f"{call.bookmark_url}/images/{server.image_ref}"}],
    }


def _image_with_properties(server: Server, call: Call) -> Any:
    image = _image(server, call)
    return image and {**image, "properties": _image_properties(server) or {}}


def _flavor_link(server: Server, call: Call) -> dict[str, Any]:
    flavor_id = server.flavor.flavor_id
    return {"id": flavor_id, "links": [{"rel": "bookmark", "href": f"{call.bookmark_url}/flavors/{flavor_id}"}]}


def _flavor(server: Server) -> dict[str, Any]:
    flavor = server.flavor
    return {
        "vcpus": flavor.vcpus,
        "ram": flavor.memory_mib,
        "disk": flavor.root_gib,
        "ephemeral": flavor.ephemeral_gib,
        "swap": flavor.swap_mib,
        "original_name": flavor.name,
    }


def _has_flavor(server: "UnreachableServer") -> bool:
    return server.flavor is not None


def _flavor_with_extra_specs(server: Server) -> dict[str, Any]:
    return {**_flavor(server), "extra_specs": server.flavor.extra_specs}


def _fault(server: Server, call: Call) -> dict[str, Any]:
    """The latest fault; what broke inside (code 500) is told in detail to admins only."""
    fault = server.fault or Fault()
    shown = {"code": fault.code, "created": _fault_time(fault.created), "message": fault.message}
    if fault.details and (call.context.is_admin or fault.code != 500):
        shown["details"] = fault.details
    return shown


def _fault_time(created: str | None) -> str | None:
    """The fault's time: the row keeps it as JSON does, as text with microseconds."""
    return None if created is None else created.replace(" ", "T")[:19] + "Z"


def zone_of(server: Server) -> str:
    """The availability zone that the server is in; empty while it has no host."""
    return server.availability_zone or (DEFAULT_ZONE if server.host else "")


def _extra(name: str, default: Any = None) -> Callable[[Server], Any]:
    """Reads what is kept beside the row's own columns, or was added to it for this answer (`server_extras`)."""
    return lambda server: (server.extra or _NOTHING).get(name, default)


_host_status = _extra("host_status", "")
_security_groups = _extra("security_groups")
_image_properties = _extra("image_properties")


def _has_fault(server: Server) -> bool:
    return server.fault is not None and server.status in states.FAULT_STATUSES


def _has_progress(server: Server) -> bool:
    return server.status in states.PROGRESS_STATUSES


@dataclasses.dataclass(frozen=True, slots=True)
class _Row:
    """A field and from when it is in each of the views; without more said, in all of them alike."""

    field: Field
    put: str | None
    rebuild: str | None


def _row(name: str, get: Any = None, **more: Any) -> _Row:
    """A field that begins at the same microversion in every view."""
    field = Field(name, get, **more)
    return _Row(field, put=field.since, rebuild=field.since)


def _late(name: str, get: Any = None, *, put: str | None = "2.75", rebuild: str | None = "2.75", **more: Any) -> _Row:
    """A field that PUT and rebuild left out until 2.75."""
    return _Row(Field(name, get, **more), put=put, rebuild=rebuild)


def _attribute(
    name: str, get: Any = None, *, since: str = "2.3", until: str | None = None, rebuild: str | None = "2.75"
) -> _Row:
    field = Field(f"OS-EXT-SRV-ATTR:{name}", get or name, since=since, until=until, policy=EXTENDED_ATTRIBUTES)
    return _Row(field, put="2.75", rebuild=rebuild)


_ROWS = (
    _row("id", "uuid"),
    _row("name", "display_name"),
    _row("status"),
    _row("tenant_id", "project_id"),
    _row("user_id"),
    _row("metadata", lambda server: server.metadata or {}),
    _row("hostId", _host_id),
    _row("image", _image, until="2.97", with_call=True),
    _row("image", _image_with_properties, since="2.98", with_call=True),
    _row("flavor", _flavor_link, until="2.46", with_call=True),
    _row("flavor", _flavor, since="2.47"),
    _row("flavor", _flavor_with_extra_specs, since="2.47", policy=FLAVOR_EXTRA_SPECS),
    _row("created", lambda server: zulu(server.created_at)),
    _row("updated", lambda server: zulu(server.updated_at or server.created_at)),
    _row("addresses", _extra("addresses", {})),
    _row("accessIPv4", lambda server: server.access_ip_v4 or ""),
    _row("accessIPv6", lambda server: server.access_ip_v6 or ""),
    _row("links", _links, with_call=True),
    _row("OS-DCF:diskConfig", lambda server: "AUTO" if server.auto_disk_config else "MANUAL"),
    _row("progress", when=_has_progress),
    _row("fault", _fault, when=_has_fault, with_call=True),
    _late("OS-EXT-AZ:availability_zone", zone_of),
    _late("config_drive", lambda server: "True" if server.config_drive else ""),
    _late("key_name", rebuild="2.54"),
    _late("OS-SRV-USG:launched_at", lambda server: with_microseconds(server.launched_at)),
    _late("OS-SRV-USG:terminated_at", lambda server: with_microseconds(server.terminated_at)),
    _late("security_groups", _security_groups, when=_security_groups),
    _attribute("host", since="2.1"),
    # Guests are found on their host by their uuid, which virsh and its like take as a name.
    _attribute("instance_name", "uuid", since="2.1"),
    _attribute("hypervisor_hostname", since="2.1"),
    _attribute("reservation_id"),
    _attribute("launch_index"),
    _attribute("hostname", until="2.89"),
    _late("OS-EXT-SRV-ATTR:hostname", "hostname", since="2.90", put="2.90", rebuild="2.90"),
    _attribute("kernel_id", lambda server: ""),
    _attribute("ramdisk_id", lambda server: ""),
    _attribute("root_device_name"),
    _attribute("user_data", rebuild=NEVER),
    _late("OS-EXT-STS:task_state", "task_state"),
    _late("OS-EXT-STS:vm_state", "vm_state"),
    _late("OS-EXT-STS:power_state", "power_state"),
    _late("os-extended-volumes:volumes_attached", _extra("volumes_attached", [])),
    _row("locked", lambda server: server.locked_by is not None, since="2.9"),
    _late("host_status", _host_status, since="2.16", policy=HOST_STATUS),
    _late(
        "host_status",
        _host_status,
        since="2.16",
        policy=HOST_STATUS_IF_UNKNOWN,
        when=lambda server: _host_status(server) == "UNKNOWN",
    ),
    _row("description", "display_description", since="2.19"),
    _row("tags", lambda server: server.tags or [], since="2.26"),
    _row("trusted_image_certificates", _extra("trusted_image_certificates"), since="2.63"),
    _row("locked_reason", since="2.73"),
    _row("pinned_availability_zone", _extra("pinned_availability_zone"), since="2.96"),
    _row("scheduler_hints", _extra("scheduler_hints", {}), since="2.100"),
)

_SERVER_GROUPS = Field("server_groups", _extra("server_groups", []), since="2.71")


def _starting(rows: list[tuple[Field, str | None]]) -> list[Field]:
    """The fields with the first microversion of one view."""
    return [dataclasses.replace(field, since=_later(field.since, since)) for field, since in rows if since is not NEVER]


def _later(first: str, second: str) -> str:
    return max(first, second, key=Microversion.parse)


SERVER_BRIEF = View(
    "server", Field("id", "uuid"), Field("name", "display_name"), Field("links", _links, with_call=True)
)
SERVER_DETAIL = View("server", *(row.field for row in _ROWS))
SERVER_SHOW = View("server", *SERVER_DETAIL.fields, _SERVER_GROUPS)
SERVER_UPDATED = View("server", *_starting([(row.field, row.put) for row in _ROWS]), _SERVER_GROUPS)
SERVER_REBUILT = View(
    "server",
    *_starting([(row.field, row.rebuild) for row in _ROWS]),
    Field("user_data", since="2.57"),
    _SERVER_GROUPS,
)


@dataclasses.dataclass(frozen=True, slots=True)
class UnreachableServer:
    """What is known of a server while its cell does not answer: from its mapping and its request spec (2.69 on)."""

    uuid: str
    project_id: str
    user_id: str
    created_at: datetime.datetime
    availability_zone: str | None = None
    flavor: Flavor | None = None
    image_ref: str = ""
    server_groups: list[str] = dataclasses.field(default_factory=list)


_UNKNOWN = (
    Field("id", "uuid"),
    Field("status", lambda server: states.UNKNOWN_STATUS),
    Field("links", _links, with_call=True),
)
_UNKNOWN_DETAIL = (
    *_UNKNOWN,
    Field("tenant_id", "project_id"),
    Field("created", lambda server: zulu(server.created_at)),
)
UNREACHABLE_BRIEF = View("server", *_UNKNOWN)
UNREACHABLE_DETAIL = View("server", *_UNKNOWN_DETAIL)
UNREACHABLE_SHOW = View(
    "server",
    *_UNKNOWN_DETAIL,
    Field("user_id"),
    Field("image", _image, with_call=True),
    Field("flavor", _flavor, since="2.47", when=_has_flavor),
    Field("flavor", _flavor_with_extra_specs, since="2.47", policy=FLAVOR_EXTRA_SPECS, when=_has_flavor),
    Field("OS-EXT-AZ:availability_zone", lambda server: server.availability_zone or states.UNKNOWN_STATUS),
    Field("OS-EXT-STS:power_state", lambda server: states.NO_STATE),
    Field("server_groups", since="2.71"),
)


class ShowView:
    """One server, whole, or as little as is known of it."""

    name = "server"
    parts = (SERVER_SHOW, UNREACHABLE_SHOW)

    def document(self, version: Microversion) -> Render:
        """The function that renders a whole response."""
        whole, little = SERVER_SHOW.document(version), UNREACHABLE_SHOW.document(version)
        return lambda server, call: (little if isinstance(server, UnreachableServer) else whole)(server, call)
