"""What a request for servers names in the API database: looked up in one read, refused as the request's fault."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import api_db.aggregates
import api_db.flavors
import api_db.instances
import api_db.keypairs
import api_db.limits
import api_db.quota
import api_db.server_groups
import core.errors
import core.scheduling
from api.prepare import hints, zones
from api.prepare.extra_specs import refuse_invalid, refuse_unplaceable
from api.prepare.hints import GROUP_READERS, Hints
from api.prepare.refusals import invalid
from core.context import Context
from database.engine import Connection
from lifecycle.refusals import not_found
from objects.build import Flavor

DEFAULT_GROUP = "default"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """The names in a request; `hosts` as `zones.hosts_of` gives them.

    `has_limits`: whether it has to be known how many metadata items and servers there may be: it names some, or a range
    of numbers.
    """

    flavor_id: str
    key_name: str | None
    wish: zones.TargetHost
    hosts: frozenset[str] = frozenset()
    hints: Hints = hints.NONE
    has_limits: bool = True


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What they stand for.

    `metadata_items`: how many there may be; negative: any number. `headroom`: how many servers of the flavor the quotas
    of project and user have room for; None: any number, or nobody asked. `policy`: of the scheduler.
    """

    flavor: Flavor
    public_key: str | None
    policy: str = core.scheduling.DEFAULT
    metadata_items: int = api_db.limits.UNLIMITED
    headroom: int | None = None


def look_up(
    connection: Connection,
    context: Context,
    named: References,
    quota_defaults: Mapping[str, int],
    filters_of_policies: Mapping[str, Collection[str]],
) -> Resolved:
    """`filters_of_policies`: scheduler policy -> the filters that its settings name.

    Raises:
        Invalid: something that the request names does not exist, or not for this caller.
    """
    flavor = _flavor(connection, context, named.flavor_id)
    policy = _policy(connection, flavor, named.wish.zone)
    core.scheduling.refuse_unknown(filters_of_policies, policy)
    enabled = filters_of_policies[policy]
    hints.refuse_unread(named.hints, enabled, policy)
    key = public_key(connection, str(context.user_id), named.key_name)
    if named.wish.zone is not None or named.hosts:
        zones.check(api_db.aggregates.zones(connection), named.wish, named.hosts)
    _check_server_group(connection, context, named.hints.group, enabled)
    _check_same_host(connection, context, named.hints.same_host)
    resolved = Resolved(flavor=flavor, public_key=key, policy=policy)
    return _with_limits(connection, context, resolved, quota_defaults) if named.has_limits else resolved


def _with_limits(
    connection: Connection, context: Context, resolved: Resolved, quota_defaults: Mapping[str, int]
) -> Resolved:
    project_id, user_id = str(context.project_id), str(context.user_id)
    limits = api_db.limits.read(connection, project_id, user_id, quota_defaults)
    each = {"instances": 1, "cores": resolved.flavor.vcpus, "ram": resolved.flavor.memory_mib}
    return dataclasses.replace(
        resolved,
        metadata_items=limits.of_one_thing["metadata_items"],
        headroom=api_db.quota.headroom(connection, limits, project_id=project_id, user_id=user_id, each=each),
    )


def refuse_unsupported(body: Mapping[str, Any]) -> None:
    """
    Raises:
        Invalid: the request for a server, new or built anew, asks for what is not there.
    """
    if body.get("personality"):
        raise invalid("personality", "Files cannot be injected into a guest; use user_data.")
    # One without a name names none.
    if any(group.get("name", DEFAULT_GROUP) != DEFAULT_GROUP for group in body.get("security_groups") or ()):
        raise invalid(
            "security_groups", f"No network service is configured: there is no security group but {DEFAULT_GROUP}."
        )
    if body.get("trusted_image_certificates"):
        raise invalid(
            "trusted_image_certificates", "Images' certificates are not checked here, so none can be required."
        )


def _flavor(connection: Connection, context: Context, flavor_id: str) -> Flavor:
    refusal = invalid("flavorRef", f"Flavor {flavor_id} could not be found.")
    try:
        flavor = api_db.flavors.get(connection, flavor_id, project_id=None if context.is_admin else context.project_id)
    except core.errors.NotFound as error:
        raise refusal from error
    if flavor.disabled:
        raise refusal
    try:
        # Before 2.86 flavors could be given any; no host would take the server.
        refuse_invalid(flavor.extra_specs)
        refuse_unplaceable(flavor.extra_specs)
    except ValueError as error:
        raise invalid("flavorRef", f"Flavor {flavor_id} has extra specs that are not supported. {error}") from None
    return Flavor(
        flavor_id=flavor.flavor_id,
        name=flavor.name,
        vcpus=flavor.vcpus,
        memory_mib=flavor.memory_mib,
        root_gib=flavor.root_gib,
        ephemeral_gib=flavor.ephemeral_gib,
        swap_mib=flavor.swap_mib,
        extra_specs=flavor.extra_specs,
    )


def public_key(connection: Connection, user_id: str, key_name: str | None) -> str | None:
    """The public part of a user's key pair; None for no name.

    Raises:
        Invalid: the user has no such key pair.
    """
    if key_name is None:
        return None
    try:
        return api_db.keypairs.get(connection, user_id, key_name).public_key
    except core.errors.NotFound as error:
        raise invalid("key_name", f"Key pair {key_name} could not be found.") from error


def _policy(connection: Connection, flavor: Flavor, zone: str | None) -> str:
    """The scheduler's policy: the flavor's, else that of its zone's aggregate."""
    own = flavor.extra_specs.get(core.scheduling.KEY)
    if own is None and zone is not None:
        own = api_db.aggregates.item_of_zone(connection, zone, core.scheduling.KEY)
    return core.scheduling.DEFAULT if own is None else own


def _check_server_group(connection: Connection, context: Context, uuid: str | None, enabled: Collection[str]) -> None:
    if uuid is None:
        return
    try:
        group = api_db.server_groups.get(connection, uuid, project_id=str(context.project_id))
    except core.errors.NotFound as error:
        raise invalid("group", f"Server group {uuid} could not be found.") from error
    reader = GROUP_READERS.get(group.policy)
    if enabled and reader is not None and reader not in enabled:
        raise invalid("group", f"The server group policy {group.policy} is not kept here: {reader} is not enabled.")


def _check_same_host(connection: Connection, context: Context, uuids: tuple[str, ...]) -> None:
    """A hint may name servers that are gone, as long as one is there to be with; servers of other projects are none,
    for anybody."""
    if uuids and not api_db.instances.whereabouts(connection, uuids, project_id=str(context.project_id)):
        raise invalid("same_host", not_found(", ".join(uuids)).message)
