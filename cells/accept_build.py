"""Accepting servers: one commit at the API level, from which on they end ACTIVE, in ERROR with a fault, or deleted.

Step `api.accept` of the build protocol, and the hint that follows it.
"""

import datetime
from collections.abc import Mapping, Sequence

import api_db.instances
import api_db.journal
import core.errors
import messaging.verbs.superconductor as superconductor
from cells.gate.answers import Answer, value_of
from cells.route import CellAccess
from core.context import Context
from core.crash_points import CrashPoints
from objects.build_request import BuildRequest, RequestSpec


async def accept_build_requests(
    access: CellAccess,
    context: Context,
    steps: CrashPoints,
    *,
    request: RequestSpec,
    request_uuid: str,
    build_requests: Sequence[BuildRequest],
    quota_defaults: Mapping[str, int],
    not_after: datetime.timedelta,
) -> None:
    """Accepts the servers of one request, all or none; when it returns their orders are in the journal, whatever dies
    then.

    A commit whose answer was lost is looked for: who asks again after a 503 would get twice the servers.

    Raises:
        OverQuota, Invalid (its server group is gone): none was accepted.
        Unavailable: the API database does not answer; they may have been accepted.
    """
    try:
        with steps("api.accept"):
            written = await access.api_db.write(
                api_db.journal.accept, request=request, request_uuid=request_uuid, requested=build_requests,
                quota_defaults=quota_defaults, not_after=not_after,
            )  # fmt: skip
            value_of(written)
    except core.errors.Unavailable:
        if not await _were_accepted(access, build_requests[0].uuid):
            raise
    hint = superconductor.Place(uuids=[build_request.uuid for build_request in build_requests])
    access.api_db.hint(superconductor.QUEUE, superconductor.PLACE, hint, context)


async def _were_accepted(access: CellAccess, uuid: str) -> bool:
    """Whether the commit took effect, as far as the API database can be asked."""
    answer = await access.api_db.read(api_db.instances.list_of, [uuid])
    return isinstance(answer, Answer) and bool(answer.value)
