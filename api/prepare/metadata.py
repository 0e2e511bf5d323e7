"""How many items of metadata a project, or one of its users, may give one thing."""

from collections.abc import Mapping

import api_db.limits
import core.errors
from api.http.call import Call
from database.engine import Connection


async def check(call: Call, metadata: Mapping[str, str]) -> None:
    """
    Raises:
        OverQuota: these are more.
    """
    if metadata:
        refuse_too_many(metadata, await most_items(call))


async def most_items(call: Call) -> int:
    """How many the caller may give one thing; negative: no limit."""
    return await call.cloud.api_read(
        limit, str(call.context.project_id), str(call.context.user_id), call.cloud.quota_defaults
    )


def limit(connection: Connection, project_id: str, user_id: str, quota_defaults: Mapping[str, int]) -> int:
    """The most; negative: no limit."""
    return api_db.limits.read(connection, project_id, user_id, quota_defaults).of_one_thing["metadata_items"]


def refuse_too_many(metadata: Mapping[str, str], most: int) -> None:
    """
    Raises:
        OverQuota: there are more than that.
    """
    if 0 <= most < len(metadata):
        raise core.errors.OverQuota(f"Maximum number of metadata items exceeds {most}.", quota="metadata_items")
