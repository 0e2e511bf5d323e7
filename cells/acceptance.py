"""Accepting servers: one commit at the API level, from which on they end ACTIVE, in ERROR with a fault, or deleted.

Step `api.accept` of the build protocol, and the hint that follows it.
"""

import datetime
from collections.abc import Mapping, Sequence

import api_db.instances
import api_db.journal
import core.errors
import messaging.verbs.superconductor as superconductor
from cells.answers import Answer, value_of
from cells.route import Reach
from core.context import Context
from core.steps import Steps
from objects.order import PlacementRequest, ServerOrder


async def accept_servers(
    reach: Reach,
    context: Context,
    steps: Steps,
    *,
    request: PlacementRequest,
    request_uuid: str,
    orders: Sequence[ServerOrder],
    quota_defaults: Mapping[str, int],
    not_after: datetime.timedelta,
) -> None:
    """Accepts the servers of one request, all or none; when it returns their orders are in the journal, whatever dies then.

    A commit whose answer was lost is looked for: who asks again after a 503 would get twice the servers.

    Raises:
        OverQuota, Invalid (its server group is gone): none was accepted.
        Unavailable: the API database does not answer; they may have been accepted.
    """
    try:
        with steps("api.accept"):
            written = await reach.api_db.write(
                api_db.journal.accept, request=request, request_uuid=request_uuid, orders=orders, quota_defaults=quota_defaults,
                not_after=not_after,
            )  # fmt: skip
            value_of(written)
    except core.errors.Unavailable:
        if not await _were_accepted(reach, orders[0].uuid):
            raise
    place = superconductor.Place(uuids=[order.uuid for order in orders])
    reach.api_db.hint(superconductor.QUEUE, superconductor.PLACE, place, context)


async def _were_accepted(reach: Reach, uuid: str) -> bool:
    """Whether the commit took effect, as far as the API database can be asked."""
    found = await reach.api_db.read(api_db.instances.list_of, [uuid])
    return isinstance(found, Answer) and bool(found.value)
