"""`/os-availability-zone`: the zones, made by aggregates, and in detail the enabled hosts and processes in them."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import api_db.aggregates
import cell_db.hosts
from api.http import policy
from api.http.call import Call
from api.http.policy import Rule
from api.http.routes import Route
from api.http.view import Field, ListView, View, with_microseconds
from api.resources.hosts.all_cells import Answers, ask, down_after_s
from api.resources.hosts.api_processes import ApiProcess, api_processes
from api.resources.hosts.own_hosts import OwnHosts
from api_db.aggregates import INTERNAL_ZONE
from cell_db.hosts import Service
from objects.host import COMPUTE

LIST = "os_compute_api:os-availability-zone:list"
DETAIL = "os_compute_api:os-availability-zone:detail"
POLICIES = [
    Rule(LIST, policy.ANYBODY, "List availability zones"),
    Rule(DETAIL, policy.ADMIN, "List availability zones with their hosts"),
]


@dataclass(slots=True)
class Zone:
    """A zone; `hosts`: host -> binary -> what is known of that process, of enabled ones only."""

    name: str
    available: bool = False
    hosts: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)


_NAME_AND_STATE = (Field("zoneName", "name"), Field("zoneState", lambda zone: {"available": zone.available}))
BRIEF = View(None, *_NAME_AND_STATE, Field("hosts", lambda zone: None))
WHOLE = View(None, *_NAME_AND_STATE, Field("hosts", lambda zone: zone.hosts or None))


async def index(call: Call) -> list[Zone]:
    """The zones that servers may ask for."""
    return [zone for zone in await _zones(call) if zone.name != INTERNAL_ZONE]


async def detail(call: Call) -> list[Zone]:
    """All zones; the processes that build no servers are in the internal one."""
    return await _zones(call)


async def _zones(call: Call) -> list[Zone]:
    """The zones by name, those that servers may ask for (`api_db.aggregates.zones`) and the internal one.

    One is available if it has an enabled host; hosts of silent cells make none available.
    """
    answers, hosts, mapped, of_api = await asyncio.gather(
        ask(call, cell_db.hosts.list_services, down_after_s=down_after_s(call)),
        call.cloud.api_read(api_db.aggregates.zones),
        call.cloud.api_read(api_db.hosts.list_all),
        api_processes(call),
    )
    zones = {name: Zone(name) for name in hosts}
    zone_of = {host: name for name, mine in hosts.items() for host in mine}
    for service in _services(answers, OwnHosts(mapped)):
        name = zone_of.get(service.host) if service.binary == COMPUTE else INTERNAL_ZONE
        if name is not None:
            _put(zones, name, service)
    for process in of_api:
        internal = zones.setdefault(INTERNAL_ZONE, Zone(INTERNAL_ZONE))
        _say(internal, process)
    return [zones[name] for name in sorted(zones)]


def _services(answers: Answers[list[Service]], own: OwnHosts) -> Iterable[Service]:
    told = ((gate, service) for gate, services in answers.values for service in services)
    return (service for gate, service in told if service.binary != COMPUTE or own.is_of(gate, service.host))


def _put(zones: dict[str, Zone], name: str, service: Service) -> None:
    zone = zones.setdefault(name, Zone(name))
    if not service.disabled:
        _say(zone, service)


def _say(zone: Zone, process: Service | ApiProcess) -> None:
    zone.available = True
    zone.hosts.setdefault(process.host, {})[process.binary] = {
        "active": True,
        "available": process.is_up,
        "updated_at": with_microseconds(process.last_seen_at),
    }


ROUTES = [
    Route("GET", "/os-availability-zone", index, policy=LIST, view=ListView("availabilityZoneInfo", BRIEF)),
    Route("GET", "/os-availability-zone/detail", detail, policy=DETAIL, view=ListView("availabilityZoneInfo", WHOLE)),
]
