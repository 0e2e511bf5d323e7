"""`/os-aggregates`: groups of hosts, and the availability zones that they make."""

import asyncio
from collections.abc import Callable, Iterable, Mapping

import msgspec

import api_db.aggregates
import api_db.hosts
import cell_db.hosts
import core.scheduling
from api.http import policy
from api.http.call import Call
from api.http.policy import Rule
from api.http.routes import ActionRoute, Route
from api.http.schema import (
    METADATA_OR_NULL,
    NAME,
    NO_NAME,
    UUID,
    Body,
    Property,
    checked,
    is_name,
    list_of,
    nullable,
    structure,
    text,
)
from api.http.view import Field, ListView, View, with_microseconds
from api.prepare import images
from api.resources.ids import number_in_path
from api_db.aggregates import INTERNAL_ZONE, ZONE_KEY, Aggregate, ZoneChange
from cells.gate.answers import value_of
from core import errors
from messaging.verbs import cell

_RULE = "os_compute_api:os-aggregates:"
_CACHE_IMAGES = "compute:aggregates:images"
_ACTS = {
    "index": "List aggregates",
    "show": "Show an aggregate",
    "create": "Create an aggregate",
    "update": "Rename an aggregate or give it another availability zone",
    "delete": "Delete an aggregate",
    "add_host": "Add a host to an aggregate",
    "remove_host": "Remove a host from an aggregate",
    "set_metadata": "Change the metadata of an aggregate",
}
POLICIES = [
    *(Rule(_RULE + act, policy.ADMIN, description) for act, description in _ACTS.items()),
    Rule(_CACHE_IMAGES, policy.ADMIN, "Let the hosts of an aggregate fetch images before servers need them"),
]

_OWN_FIELDS = (
    Field("id"),
    Field("uuid", since="2.41"),
    Field("name"),
    Field("availability_zone"),
    Field("created_at", lambda each: with_microseconds(each.created_at)),
    Field("updated_at", lambda each: with_microseconds(each.updated_at)),
    Field("deleted", lambda each: False),
    Field("deleted_at", lambda each: None),
)
CREATED = View("aggregate", *_OWN_FIELDS)
WHOLE = View("aggregate", *_OWN_FIELDS, Field("hosts", lambda each: list(each.hosts)), Field("metadata"))


def _refuse_zone(name: str) -> None:
    """Returns if a zone may be called so: servers ask for `zone:host`, and processes that build no servers have a zone
    of their own."""
    if ":" in name:
        raise ValueError("A zone has no colon in its name.")
    if name == INTERNAL_ZONE:
        raise ValueError(f"The zone {INTERNAL_ZONE} is that of processes that build no servers.")


ZONE = checked(NAME, _refuse_zone)
HOST = text(1, 255, r"^[a-zA-Z0-9._-]+\Z")
CREATE_BODY = Body("aggregate", Property("name", NAME, required=True), Property(ZONE_KEY, nullable(ZONE)))
UPDATE_BODY = Body.with_value(
    "aggregate", structure(Property("name", NAME), Property(ZONE_KEY, nullable(ZONE)), minimum=1)
)
HOST_BODIES = {act: Body(act, Property("host", HOST, required=True)) for act in ("add_host", "remove_host")}
MOST_CACHED = 100
IMAGES_BODY = Body.with_value(
    "cache", list_of(structure(Property("id", UUID, required=True)), minimum=1, maximum=MOST_CACHED)
)
METADATA_BODY = Body("set_metadata", Property("metadata", METADATA_OR_NULL, required=True))


async def index(call: Call) -> list[Aggregate]:
    return await call.cloud.api_read(api_db.aggregates.list_all)


async def show(call: Call) -> Aggregate:
    return await call.cloud.api_read(api_db.aggregates.get, number_in_path(call))


async def create(call: Call) -> Aggregate:
    return await call.cloud.api_write(
        api_db.aggregates.insert, name=call.body["name"], availability_zone=call.body.get(ZONE_KEY)
    )


async def update(call: Call) -> Aggregate:
    aggregate_id, zone = number_in_path(call), None
    if ZONE_KEY in call.body:
        zone = api_db.aggregates.required_zone(call.body[ZONE_KEY])
        await _refuse_new_zone_with_servers(call, aggregate_id, zone)
    return await call.cloud.api_write(
        api_db.aggregates.update, aggregate_id, name=call.body.get("name"), availability_zone=zone
    )


async def delete(call: Call) -> None:
    await call.cloud.api_write(api_db.aggregates.delete, number_in_path(call))


async def set_metadata(call: Call) -> Aggregate:
    aggregate_id, changes = number_in_path(call), call.body["metadata"]
    if ZONE_KEY in changes:
        zone = _checked_zone(api_db.aggregates.required_zone(changes[ZONE_KEY]))
        await _refuse_new_zone_with_servers(call, aggregate_id, zone)
        changes = {**changes, ZONE_KEY: zone}
    _refuse_unread(call, changes)
    return await call.cloud.api_write(api_db.aggregates.set_metadata, aggregate_id, changes)


def _refuse_unread(call: Call, changes: Mapping[str, str | None]) -> None:
    """Returns if the scheduler can read what it will: its policy, and the weight of the aggregate's hosts.

    Raises:
        Invalid: it cannot; names the item.
    """
    named, weight = changes.get(core.scheduling.KEY), changes.get(core.scheduling.WEIGHT_KEY)
    if named is not None:
        core.scheduling.refuse_unknown(call.cloud.filters_of_policies, named)
    if weight is not None and not core.scheduling.is_weight(weight):
        raise errors.Invalid(
            f"{core.scheduling.WEIGHT_KEY} is {weight[:64]!r}, no number.", field=core.scheduling.WEIGHT_KEY
        )


def _checked_zone(zone: str) -> str:
    try:
        if not is_name(zone):
            raise ValueError(NO_NAME)
        _refuse_zone(zone)
    except ValueError as error:
        raise errors.Invalid(
            f"Invalid input for field/attribute {ZONE_KEY}. Value: {zone}. {error}", field=ZONE_KEY
        ) from None
    return zone


async def add_host(call: Call) -> Aggregate:
    return await _with_host(call, api_db.aggregates.zone_change_by_adding, api_db.aggregates.add_host)


async def remove_host(call: Call) -> Aggregate:
    return await _with_host(call, api_db.aggregates.zone_change_by_removing, api_db.aggregates.remove_host)


async def _with_host(
    call: Call, change_by: Callable[..., ZoneChange | None], act: Callable[..., Aggregate]
) -> Aggregate:
    """Adds or removes the host unless that would carry its servers into another zone.

    The servers are counted in the host's cell, so a server that arrives between count and write is not seen, as in
    Nova: then it keeps the zone it was placed for on its record.
    """
    aggregate_id, host = number_in_path(call), call.body["host"]
    change = await call.cloud.api_read(change_by, aggregate_id, host)
    if change is not None and await _servers_on(call, [change]):
        raise errors.Conflict(
            f"Host {host} has servers: it cannot go from availability zone {change.before} to {change.after}."
        )
    return await call.cloud.api_write(act, aggregate_id, host)


async def cache_images(call: Call) -> None:
    """Tells the aggregate's hosts which images they should have; each fetches them when it can.

    Raises:
        NotFound: there is no such aggregate.
        Invalid: an image is named twice, or there is none of this id.
    """
    wanted = [image["id"] for image in call.body]
    if len(set(wanted)) < len(wanted):
        raise errors.Invalid("Duplicate images in request", field="cache")
    aggregate = await call.cloud.api_read(api_db.aggregates.get, number_in_path(call))
    described = await asyncio.gather(*(images.find(call, image_id, "cache") for image_id in wanted))
    # A host fetches by id and hash: what else is known of an image comes with the servers.
    refs = [msgspec.structs.replace(images.reference(image), properties={}) for image in described]
    for mapping in await call.cloud.api_read(api_db.hosts.list_all):
        if mapping.host in aggregate.hosts:
            gate = await call.cloud.cells.find_gate(mapping.cell_uuid)
            gate.hint(cell.QUEUE, cell.CACHE_IMAGES, cell.ImagesOnHost(mapping.host, refs), call.context)


async def _refuse_new_zone_with_servers(call: Call, aggregate_id: int, zone: str) -> None:
    """
    Raises:
        NotFound: there is no such aggregate.
        Invalid: hosts of the aggregate have servers, or lie in another zone.
    """
    changes = await call.cloud.api_read(api_db.aggregates.zone_changes_by_renaming, aggregate_id, zone)
    if await _servers_on(call, changes):
        raise errors.Invalid(
            f"availability_zone cannot become {zone}: hosts of the aggregate have servers.", field=ZONE_KEY
        )


async def _servers_on(call: Call, changes: Iterable[ZoneChange]) -> int:
    """How many servers are on these hosts, asked of their cells; a host without a cell has none.

    Raises:
        Unavailable: a cell does not answer; the message names it.
    """
    hosts: dict[str, list[str]] = {}
    for change in changes:
        if change.cell_uuid is not None:
            hosts.setdefault(change.cell_uuid, []).append(change.host)
    gates = call.cloud.cells.gate
    answers = await asyncio.gather(
        *(gates(cell_uuid).read(cell_db.hosts.count_servers, names) for cell_uuid, names in hosts.items())
    )
    return sum(value_of(answer) for answer in answers)


ROUTES: list[Route | ActionRoute] = [
    Route("GET", "/os-aggregates", index, policy=_RULE + "index", view=ListView("aggregates", WHOLE)),
    Route("POST", "/os-aggregates", create, policy=_RULE + "create", body=CREATE_BODY, view=CREATED),
    Route("GET", "/os-aggregates/{id}", show, policy=_RULE + "show", view=WHOLE),
    Route("PUT", "/os-aggregates/{id}", update, policy=_RULE + "update", body=UPDATE_BODY, view=WHOLE),
    Route("DELETE", "/os-aggregates/{id}", delete, policy=_RULE + "delete"),
    *(
        ActionRoute(
            "/os-aggregates/{id}/action",
            act,
            handler,
            policy=_RULE + act,
            body=HOST_BODIES[act],
            view=WHOLE,
            status=200,
        )
        for act, handler in (("add_host", add_host), ("remove_host", remove_host))
    ),
    Route(
        "POST", "/os-aggregates/{id}/images", cache_images, policy=_CACHE_IMAGES, body=IMAGES_BODY, status=202,
        since="2.81",
    ),
    ActionRoute(
        "/os-aggregates/{id}/action",
        "set_metadata",
        set_metadata,
        policy=_RULE + "set_metadata",
        body=METADATA_BODY,
        view=WHOLE,
        status=200,
    ),
]
