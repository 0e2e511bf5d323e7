"""From a validated request for servers to what the journal keeps: one placement request and an order for each
server."""

import asyncio
import dataclasses
import secrets
import uuid as uuids
from collections.abc import Mapping
from typing import Any

import msgspec

from api.http.call import Call
from api.prepare import disks, hints, images, lookups, names, zones
from api.prepare.metadata import refuse_too_many
from api.prepare.networks import refuse_networks
from api.prepare.refusals import invalid
from core.clock import utcnow
from objects.build import BuildSpec, Flavor, ImageRef
from objects.build_request import BuildRequest, RequestSpec

# However much a quota leaves open, one request is one transaction.
MAX_AT_ONCE = 1000

FORCED_HOST = "os_compute_api:servers:create:forced_host"
REQUESTED_DESTINATION = "compute:servers:create:requested_destination"
ZERO_DISK_FLAVOR = "os_compute_api:servers:create:zero_disk_flavor"


@dataclasses.dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that is written when a request is accepted."""

    request: RequestSpec
    request_uuid: str
    reservation_id: str
    build_requests: list[BuildRequest]


async def prepare(call: Call) -> Prepared:
    """
    Raises:
        Invalid: the request asks for something that does not exist, does not fit, or is not supported; names the field.
        Forbidden: it asks for something that this caller may not have.
        OverQuota: the project has no room for as many servers as are asked for at least.
        Unavailable: the API database or the image service does not answer.
    """
    body = call.body
    lookups.refuse_unsupported(body)
    wish = _wish(call, body)
    others = hints.parse(call.document)
    different_cell, target_cell = hints.cells_named(others, _cells(call)) if others.given else ([], None)
    image_id = disks.image_to_boot(body)
    refuse_networks(body)
    named = lookups.References(
        flavor_id=str(body["flavorRef"]),
        key_name=body.get("key_name"),
        wish=wish,
        hosts=await zones.hosts_of(call, wish),
        hints=others,
        # One plain server is what most requests ask for. Its quota is checked when it is accepted.
        has_limits=bool(body.get("metadata") or body.get("max_count")),
    )
    resolved, image = await asyncio.gather(
        call.cloud.api_read(
            lookups.look_up, call.context, named, call.cloud.quota_defaults, call.cloud.filters_of_policies
        ),
        images.find(call, image_id, "imageRef"),
    )
    images.check_fits(image, resolved.flavor)
    if resolved.flavor.root_gib == 0:
        call.enforce(ZERO_DISK_FLAVOR)
    refuse_too_many(body.get("metadata") or {}, resolved.metadata_items)
    count = _count(body, resolved.headroom)
    request = RequestSpec(
        project_id=str(call.context.project_id),
        user_id=str(call.context.user_id),
        availability_zone=wish.zone,
        host=wish.host,
        node=wish.node,
        forced=wish.forced,
        server_group=others.group,
        same_host=list(others.same_host),
        different_host=list(others.different_host),
        query=others.query,
        near=others.near,
        different_cell=different_cell,
        target_cell=target_cell,
        policy=resolved.policy,
        flavor=resolved.flavor,
        image_ref=image.id,
    )
    return _build_requests(
        call,
        body,
        request=request,
        image=images.reference(image),
        flavor=resolved.flavor,
        public_key=resolved.public_key,
        count=count,
    )


def _cells(call: Call) -> dict[str, str]:
    """The cells that have hosts: name -> uuid."""
    return {gate.cell.name: gate.cell.uuid for gate in call.cloud.cells.gates() if not gate.cell.is_cell0}


def _wish(call: Call, body: Mapping[str, Any]) -> zones.TargetHost:
    """Where the server is wanted, from the three fields that may say so; who may say what is policy."""
    wish = zones.parse(body.get("availability_zone"))
    if wish.forced:
        call.enforce(FORCED_HOST)
    host, node = body.get("host"), body.get("hypervisor_hostname")
    if host is None and node is None:
        return wish
    call.enforce(REQUESTED_DESTINATION)
    if wish.forced:
        raise invalid("availability_zone", "It cannot force a host while host or hypervisor_hostname is requested.")
    return dataclasses.replace(wish, host=host, node=node)


def _count(body: Mapping[str, Any], headroom: int | None) -> int:
    """How many servers: as many as the quota has room for, at least `min_count`, at most `max_count`.

    The quota is checked again, exactly, when the orders are accepted; here it only says how many to prepare.
    """
    least = body.get("min_count", 1)
    most = body.get("max_count", least)
    if least > most:
        raise invalid("min_count", f"min_count {least} must be at most max_count {most}.")
    if least > MAX_AT_ONCE:
        raise invalid("min_count", f"At most {MAX_AT_ONCE} servers can be created in one request.")
    most = min(most, MAX_AT_ONCE)
    return int(most if headroom is None else max(least, min(most, headroom)))


def _build_requests(
    call: Call,
    body: Mapping[str, Any],
    *,
    request: RequestSpec,
    image: ImageRef,
    flavor: Flavor,
    public_key: str | None,
    count: int,
) -> Prepared:
    now = utcnow()
    reservation_id = f"r-{secrets.token_hex(4)}"
    ids = [str(uuids.uuid4()) for _ in range(count)]
    display_names = names.display_names(body["name"], count)
    hostnames = names.hostnames(body.get("hostname"), display_names, ids)
    template = BuildSpec(
        uuid="",
        project_id=str(call.context.project_id),
        user_id=str(call.context.user_id),
        name="",
        hostname="",
        flavor=flavor,
        image=image,
        metadata=body.get("metadata") or {},
        tags=body.get("tags") or [],
        key_name=body.get("key_name"),
        public_key=public_key,
        user_data=body.get("user_data"),
        config_drive=body.get("config_drive") or False,
        availability_zone=request.availability_zone,
        reservation_id=reservation_id,
    )
    return Prepared(
        request=request,
        request_uuid=str(uuids.uuid4()),
        reservation_id=reservation_id,
        build_requests=[
            BuildRequest(
                build=msgspec.structs.replace(template, uuid=uuid, name=name, hostname=hostname, launch_index=index),
                request_id=call.context.request_id,
                created_at=now,
                description=body.get("description"),
                image_ref=image.image_id,
                access_ip_v4=body.get("accessIPv4"),
                access_ip_v6=body.get("accessIPv6"),
                auto_disk_config=body.get("OS-DCF:diskConfig") == "AUTO",
                server_group=request.server_group,
                scheduler_hints=hints.shown(call.document),
            )
            for index, (uuid, name, hostname) in enumerate(zip(ids, display_names, hostnames, strict=True))
        ],
    )
