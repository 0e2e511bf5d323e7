"""Which versions of the Compute API there are: what clients ask first."""

from typing import Any

from api.http.call import Call
from api.http.routes import Access, Route
from api.http.versions import MAX, MIN
from api.http.view import Value
from core import errors

_ID = "v2.1"
_MEDIA_TYPES = [{"base": "application/json", "type": "application/vnd.openstack.compute+json;version=2.1"}]

POLICIES = ()


async def list_versions(call: Call) -> object:
    """Every version, in short."""
    return [_version(call)]


async def show(call: Call) -> object:
    """The one version."""
    return {**_version(call), "media-types": _MEDIA_TYPES}


async def show_by_id(call: Call) -> object:
    """
    Raises:
        NotFound: there is no such version.
    """
    if call.path["id"] != _ID:
        raise errors.NotFound(f"Version {call.path['id']} could not be found.", field="version")
    return await show(call)


def _version(call: Call) -> dict[str, Any]:
    return {
        "id": _ID,
        "status": "CURRENT",
        "version": str(MAX),
        "min_version": str(MIN),
        "updated": "2013-07-23T11:33:21Z",
        "links": [{"rel": "self", "href": f"{call.bookmark_url}/{_ID}/"}],
    }


ROUTES = (
    Route("GET", "/", list_versions, view=Value("versions"), access=Access.ANYBODY, under=""),
    Route("GET", "/versions", list_versions, view=Value("versions"), access=Access.ANYBODY, under=""),
    Route("GET", "", show, view=Value("version"), access=Access.DISCOVERY),
    Route("GET", "/versions/{id}", show_by_id, view=Value("version"), access=Access.DISCOVERY),
)
