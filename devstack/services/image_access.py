"""Who may do what with which image: the default policy of the Image API v2, for the image service of a stack."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from core import errors

ACCEPTED = "accepted"
MEMBER_STATUSES = ("pending", ACCEPTED, "rejected")


@dataclasses.dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. One without credentials is a service of the stack: it may do all."""

    project_id: str | None
    is_admin: bool


SERVICE = Caller(None, is_admin=True)


def owns(caller: Caller, image: Mapping[str, Any]) -> bool:
    """Whether the image is the caller's to change."""
    return caller.is_admin or (bool(caller.project_id) and image["owner"] == caller.project_id)


def sees(caller: Caller, image: Mapping[str, Any], members: Mapping[str, Any], *, in_lists: bool = False) -> bool:
    """Whether the image is there for the caller. A list shows what was shared with him once he has accepted, by its id
    he sees it before."""
    if owns(caller, image) or image["visibility"] == "public" or (image["visibility"] == "community" and not in_lists):
        return True
    member = members.get(caller.project_id or "") if image["visibility"] == "shared" else None
    return member is not None and (not in_lists or member["status"] == ACCEPTED)


def refuse_unless_owned(caller: Caller, image: Mapping[str, Any]) -> None:
    """
    Raises:
        Forbidden: the image is another's.
    """
    if not owns(caller, image):
        raise errors.Forbidden("You are not authorized to complete this action.")


def refuse_wishes(caller: Caller, wanted: Mapping[str, Any]) -> None:
    """
    Raises:
        Forbidden: the caller may not give an image such an owner, or show it to everybody.
    """
    if caller.is_admin:
        return
    if wanted.get("owner", caller.project_id) != caller.project_id:
        raise errors.Forbidden("You are not permitted to create images owned by another project.")
    if wanted.get("visibility") == "public":
        raise errors.Forbidden("You are not permitted to make images public.")


def refuse_unless_shared(image: Mapping[str, Any]) -> None:
    """
    Raises:
        Forbidden: it has no members.
    """
    if image["visibility"] != "shared":
        raise errors.Forbidden("Only shared images have members.")
