"""Where the user wants the server: a zone, or, for those who may, a certain host."""

import dataclasses
from collections.abc import Mapping

import cell_db.hosts
import core.errors
from api.http.call import Call
from api.prepare.refusals import invalid
from cells.gate.answers import Answer
from cells.gate.scatter import scatter

ZONE, HOST, NODE = "availability_zone", "host", "hypervisor_hostname"


@dataclasses.dataclass(frozen=True, slots=True)
class TargetHost:
    """What was asked for; `forced`: the host is taken whatever the filters say."""

    zone: str | None = None
    host: str | None = None
    node: str | None = None
    forced: bool = False

    def field(self, name: str) -> str:
        """Where the request says it."""
        return ZONE if self.forced else name


def parse(asked: str | None) -> TargetHost:
    """The wish behind `availability_zone`: `zone`, `zone:host`, `zone:host:node` or `zone::node`.

    Raises:
        Invalid: more than two colons, or nothing beside them.
    """
    if asked is None:
        return TargetHost()
    zone, *target = asked.split(":")
    if len(target) > 2 or not asked.strip(":"):
        raise invalid(ZONE, f"Value: {asked}. It must be zone, zone:host or zone:host:node.")
    host, node = [*target, "", ""][:2]
    return TargetHost(zone=zone or None, host=host or None, node=node or None, forced=bool(host or node))


async def hosts_of(call: Call, wish: TargetHost) -> frozenset[str]:
    """The hosts that the wish names, as far as cells know them; none: any host will do.

    Only who names a node asks the cells, all at once: the API database has hosts and no nodes.

    Raises:
        Invalid: no host has this node, or not the one that is named.
        Unavailable: none of those that answer has it, and a cell does not answer.
    """
    if wish.node is None:
        return frozenset() if wish.host is None else frozenset({wish.host})
    gates = [gate for gate in call.cloud.cells.gates() if not gate.cell.is_cell0]
    answers = await scatter(gates, cell_db.hosts.hosts_of_node, wish.node)
    hosts = {host for answer in answers.values() if isinstance(answer, Answer) for host in answer.value}
    named = hosts if wish.host is None else hosts & {wish.host}
    if named:
        return frozenset(named)
    silent = [answer.cell.name for answer in answers.values() if not isinstance(answer, Answer)]
    if silent:
        raise core.errors.Unavailable(
            f"{NODE} {wish.node} was not found: cells {', '.join(silent)} do not answer.", cell=", ".join(silent)
        )
    raise invalid(wish.field(NODE), f"Compute host {wish.node} could not be found.")


def check(zones: Mapping[str, set[str]], wish: TargetHost, hosts: frozenset[str]) -> None:
    """Returns if the zone is one of these (zone -> its hosts), and every host that is named is in one, in the one that
    is asked for.

    Raises:
        Invalid: it is not so; names the field.
    """
    if wish.zone is not None and wish.zone not in zones:
        raise invalid(ZONE, f"The requested availability zone {wish.zone} is not available.")
    known: set[str] = set().union(*zones.values())
    if hosts and not hosts & known:
        raise invalid(
            wish.field(HOST if wish.host else NODE), f"Compute host {', '.join(sorted(hosts))} could not be found."
        )
    if hosts and wish.zone is not None and not hosts & zones[wish.zone]:
        raise invalid(ZONE, f"Host {', '.join(sorted(hosts))} is not in availability zone {wish.zone}.")
