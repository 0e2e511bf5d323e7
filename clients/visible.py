"""Whether a caller may see what another service was asked for with our own credentials.

That service answers us, who may see everything, and not the caller: whatever id a caller knows would be theirs to use.
So a client hands a thing to the request of a user only after this question. Images ask it; a port, a network or a
volume has the same two facts and asks the same one.
"""

import dataclasses
import enum
from collections.abc import Callable

from core.context import Context


class Audience(enum.Enum):
    """For whom a thing is, beside its owner and administrators."""

    EVERYBODY = "everybody"
    MEMBERS = "members"
    NOBODY = "nobody"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Whose a thing is: the id of its project, None if that is not known, and its audience."""

    owner: str | None
    audience: Audience


def visible_to(context: Context, access: Access | None, is_member: Callable[[str], bool]) -> bool:
    """Whether the caller may see the thing; None: there is none.

    `is_member` says whether a project was given access and took it. It is asked for everything that is not clearly the
    caller's, also for what is not there: the time that a refusal takes must not tell one from the other.
    """
    if access is not None and (context.is_admin or access.audience is Audience.EVERYBODY or _owns(context, access)):
        return True
    has_access = bool(context.project_id) and is_member(str(context.project_id))
    return access is not None and access.audience is Audience.MEMBERS and has_access


def _owns(context: Context, access: Access) -> bool:
    """A thing without an owner is not that of a caller without a project."""
    return bool(context.project_id) and access.owner == context.project_id
