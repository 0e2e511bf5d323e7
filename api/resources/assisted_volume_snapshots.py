"""`/os-assisted-volume-snapshots`: snapshots of volumes that their guests' host makes, for the volume service. None is
configured: no server has a volume."""

from typing import Any, NoReturn

import orjson

from api.http import policy
from api.http.call import Call
from api.http.policy import Rule
from api.http.routes import Route
from api.http.schema import STRING_1_255, Body, Param, Property, Query, checked, choice, structure, text
from api.resources.absent import VOLUMES
from core import errors

CREATE = "os_compute_api:os-assisted-volume-snapshots:create"
DELETE = "os_compute_api:os-assisted-volume-snapshots:delete"
POLICIES = [
    Rule(CREATE, policy.SERVICE, "Make a snapshot of a volume with the help of its guest's host"),
    Rule(DELETE, policy.SERVICE, "Delete such a snapshot"),
]


def _refuse_other_than_volume_id(document: str) -> None:
    """The parameter is a JSON object in itself."""
    try:
        parsed: Any = orjson.loads(document)
    except orjson.JSONDecodeError:
        raise ValueError("It must be JSON.") from None
    if not isinstance(parsed, dict) or not isinstance(parsed.get("volume_id"), str):
        raise ValueError("It must be an object that names a volume_id.")


_CREATE = Body(
    "snapshot",
    Property("volume_id", STRING_1_255, required=True),
    Property(
        "create_info",
        structure(
            Property("snapshot_id", STRING_1_255, required=True),
            Property("type", choice("qcow2"), required=True),
            Property("new_file", STRING_1_255, required=True),
            Property("id", STRING_1_255),
        ),
        required=True,
    ),
)
_DELETE = Query(Param("delete_info", checked(text(1), _refuse_other_than_volume_id), once=True), strict_since="2.75")


async def create(call: Call) -> NoReturn:
    raise _no_volume(call.body["volume_id"])


async def delete(call: Call) -> NoReturn:
    """
    Raises:
        Invalid: always: what should be deleted was never made.
    """
    if "delete_info" not in call.query:
        raise errors.Invalid("The query parameter delete_info is required.", field="delete_info")
    raise _no_volume(orjson.loads(call.query.get("delete_info"))["volume_id"])


def _no_volume(volume_id: str) -> errors.Invalid:
    return errors.Invalid(f"No server has a volume {volume_id[:255]}: {VOLUMES}.", field="volume_id")


ROUTES = [
    Route("POST", "/os-assisted-volume-snapshots", create, policy=CREATE, body=_CREATE),
    Route("DELETE", "/os-assisted-volume-snapshots/{id}", delete, policy=DELETE, query=_DELETE, status=204),
]
