"""Which versions of the Compute API there are: what clients ask first."""

from dataclasses import dataclass
from typing import Any

from api.http.call import Call
from api.http.routes import COMPUTE, ELSEWHERE, LEGACY, Access, Route
from api.http.versions import MAX, MIN
from api.http.view import Value
from core import errors

_DESCRIBED = {"rel": "describedby", "type": "text/html", "href": "https://docs.openstack.org/"}

POLICIES = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A version of the API. `under`: the prefix of its paths; `newest` and `oldest`: its microversions, empty: none."""

    id: str
    status: str
    under: str
    updated: str
    media_type: str
    newest: str = ""
    oldest: str = ""


# Source: OpenStack Nova, the versions that its root lists.
VERSIONS = (
    Version(
        id="v2.0",
        status="DEPRECATED",
        under=LEGACY,
        updated="2025-07-04T12:00:00Z",
        media_type="application/vnd.openstack.compute+json;version=2",
    ),
    Version(
        id="v2.1",
        status="CURRENT",
        under=COMPUTE,
        updated="2013-07-23T11:33:21Z",
        media_type="application/vnd.openstack.compute+json;version=2.1",
        newest=str(MAX),
        oldest=str(MIN),
    ),
)
_BY_ID = {version.id: version for version in VERSIONS}


async def list_versions(call: Call) -> object:
    """Every version, in short."""
    return [_short(call, version) for version in VERSIONS]


async def list_choices(call: Call) -> object:
    """Where the path that was asked for would lie: it lies below no version."""
    path = call.url.removeprefix(call.bookmark_url)
    return [
        {
            "id": version.id,
            "status": version.status,
            "links": [{"rel": "self", "href": call.bookmark_url + version.under + path}],
            "media-types": _media_types(version),
        }
        for version in VERSIONS
    ]


async def show(call: Call) -> object:
    """The version that was asked for."""
    return _whole(call, next(version for version in VERSIONS if (version.under == LEGACY) == call.is_legacy))


async def show_by_id(call: Call) -> object:
    """
    Raises:
        NotFound: there is no such version.
    """
    version = _BY_ID.get(call.path["id"])
    if version is None:
        raise errors.NotFound(f"Version {call.path['id']} could not be found.", field="version")
    return _whole(call, version)


def _short(call: Call, version: Version) -> dict[str, Any]:
    return {
        "id": version.id,
        "status": version.status,
        "version": version.newest,
        "min_version": version.oldest,
        "updated": version.updated,
        "links": [{"rel": "self", "href": f"{call.bookmark_url}{version.under}/"}],
    }


def _whole(call: Call, version: Version) -> dict[str, Any]:
    short = _short(call, version)
    return {**short, "links": [*short["links"], _DESCRIBED], "media-types": _media_types(version)}


def _media_types(version: Version) -> list[dict[str, str]]:
    return [{"base": "application/json", "type": version.media_type}]


ROUTES = (
    Route("GET", "/", list_versions, view=Value("versions"), access=Access.ANYBODY, under=""),
    Route("GET", "/versions", list_versions, view=Value("versions"), access=Access.ANYBODY, under=""),
    Route("GET", ELSEWHERE, list_choices, view=Value("choices"), status=300, access=Access.ANYBODY, under=""),
    Route("GET", "", show, view=Value("version"), access=Access.DISCOVERY),
    Route("GET", "/versions/{id}", show_by_id, view=Value("version"), access=Access.DISCOVERY),
)
