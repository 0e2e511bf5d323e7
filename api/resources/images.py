"""`/images`: the image service through the Compute API, as clients reached it until 2.35, its metadata until 2.38.

The service is asked with our own credentials, so the client judges who may see an image and who may change it:
decision 0024.
"""

from collections.abc import Mapping
from typing import Any

from api.http import policy
from api.http.call import Call
from api.http.paging import LIMIT, Page, limit_of, page_of
from api.http.policy import Rule
from api.http.routes import Route
from api.http.schema import (
    METADATA,
    METADATA_KEY,
    NON_NEGATIVE_INT,
    STRING_1_255,
    UUID,
    Body,
    Param,
    Query,
    choice,
    map_of,
    text,
)
from api.http.view import Field, ListView, Value, View
from api.prepare import metadata
from clients.glance import FIELDS, ImageRecord
from core import errors
from objects.ids import last_of_address

CHANGE = "cellplane:images:change"
POLICIES = [Rule(CHANGE, policy.MEMBER, "Change and delete one's own project's images through the Compute API")]

LAST, LAST_OF_METADATA = "2.35", "2.38"
_PROGRESS = {"queued": 25, "saving": 50, "active": 100}
# The image service's words by those of the Compute API.
_STATUSES = {
    "ACTIVE": "active",
    "SAVING": "saving",
    "ERROR": "killed",
    "DELETED": "deleted",
    "UNKNOWN": "deactivated",
}
_BY_SERVICE = {
    **{word: name for name, word in _STATUSES.items()},
    "queued": "SAVING",
    "importing": "SAVING",
    "uploading": "SAVING",
    "pending_delete": "DELETED",
}

# ---- views -----------------------------------------------------------------------------------------------------------


def _links(image: ImageRecord, call: Call) -> list[dict[str, str]]:
    path = f"/images/{image.id}"
    alternate = {
        "rel": "alternate", "type": "application/vnd.openstack.image", "href": f"{call.bookmark_url}{path}",
    }  # fmt: skip
    return [*call.links(path), alternate]


def _server(image: ImageRecord, call: Call) -> dict[str, Any]:
    uuid = image.properties["instance_uuid"]
    return {"id": uuid, "links": call.links(f"/servers/{uuid}")}


def _disk_config(image: ImageRecord) -> str:
    return "AUTO" if image.properties["auto_disk_config"] in ("True", "true", "1") else "MANUAL"


_ID_AND_NAME = (Field("id"), Field("name"))
_LINKS = Field("links", _links, with_call=True)
IN_BRIEF = View("image", *_ID_AND_NAME, _LINKS)
WHOLE = View(
    "image",
    *_ID_AND_NAME,
    Field("minRam", "min_ram_mib"),
    Field("minDisk", "min_disk_gib"),
    Field("metadata", lambda image: dict(image.properties)),
    Field("created", "created_at"),
    Field("updated", "updated_at"),
    Field("status", lambda image: _BY_SERVICE.get(image.status, "UNKNOWN")),
    Field("progress", lambda image: _PROGRESS.get(image.status, 0)),
    Field("OS-EXT-IMG-SIZE:size", "size_bytes"),
    Field("server", _server, when=lambda image: "instance_uuid" in image.properties, with_call=True),
    Field("OS-DCF:diskConfig", _disk_config, when=lambda image: "auto_disk_config" in image.properties),
    _LINKS,
)

# ---- images ----------------------------------------------------------------------------------------------------------


async def index(call: Call) -> Page:
    """The images that the caller may see, the newest first."""
    limit = limit_of(call)
    if limit == 0:
        return Page(())
    records = await call.cloud.ask_images(
        call.cloud.images.records, call.context, limit=limit, marker=call.query.get("marker"), filters=_filters(call)
    )
    return page_of(records, limit=limit, marker=lambda image: image.id)


def _filters(call: Call) -> dict[str, str]:
    """What the image service filters by."""
    query, filters = call.query, {}
    for name, theirs in (("name", "name"), ("minRam", "min_ram"), ("minDisk", "min_disk"), ("type", "image_type")):
        if name in query:
            filters[theirs] = str(query.get(name))
    if "status" in query:
        filters["status"] = _STATUSES[query.get("status").upper()]
    if "server" in query:
        filters["instance_uuid"] = last_of_address(query.get("server"))
    if "changes-since" in query:
        filters["updated_at"] = "gte:" + query.get("changes-since")
    return filters


async def show(call: Call) -> ImageRecord:
    """
    Raises:
        NotFound: no such image, or not for this caller.
    """
    return await _image(call, "id")


async def delete(call: Call) -> None:
    """Removes an image of the caller's project."""
    await call.cloud.ask_images(call.cloud.images.delete_own, call.path["id"], call.context)


async def _image(call: Call, segment: str) -> ImageRecord:
    return await call.cloud.ask_images(call.cloud.images.record, call.path[segment], call.context)


# ---- metadata --------------------------------------------------------------------------------------------------------


async def list_metadata(call: Call) -> Mapping[str, str]:
    """All properties of the image."""
    return (await _image(call, "image_id")).properties


async def show_item(call: Call) -> dict[str, str]:
    """
    Raises:
        NotFound: the image has no such property.
    """
    properties, key = (await _image(call, "image_id")).properties, call.path["key"]
    if key not in properties:
        raise _no_item(key)
    return {key: properties[key]}


async def merge(call: Call) -> dict[str, str]:
    """Adds properties to those that there are."""
    image = await _image(call, "image_id")
    return await _set(call, image, {**image.properties, **call.body})


async def replace(call: Call) -> dict[str, str]:
    """Sets all properties."""
    return await _set(call, await _image(call, "image_id"), call.body)


async def set_item(call: Call) -> dict[str, str]:
    """Sets the property that the path and the body both name."""
    key = call.path["key"]
    if key not in call.body:
        raise errors.Invalid("Request body and URI mismatch", field=key[:255])
    image = await _image(call, "image_id")
    await _set(call, image, {**image.properties, **call.body})
    return dict(call.body)


async def delete_item(call: Call) -> None:
    """
    Raises:
        NotFound: the image has no such property.
    """
    image, key = await _image(call, "image_id"), call.path["key"]
    if key not in image.properties:
        raise _no_item(key)
    await call.cloud.ask_images(call.cloud.images.set_properties, image.id, call.context, {}, [key])


async def _set(call: Call, image: ImageRecord, wanted: Mapping[str, str]) -> dict[str, str]:
    """
    Raises:
        Invalid: one is the name of a field that the image service keeps for itself.
        OverQuota: these are more than the project may have.
    """
    # In no spelling: not every database tells them apart.
    reserved = [name for name in wanted if name.strip().lower() in FIELDS]
    if reserved:
        raise errors.Invalid(f"The image service keeps {reserved[0]} for itself.", field=reserved[0])
    await metadata.check(call, wanted)
    changed = {name: value for name, value in wanted.items() if image.properties.get(name) != value}
    dropped = [name for name in image.properties if name not in wanted]
    await call.cloud.ask_images(call.cloud.images.set_properties, image.id, call.context, changed, dropped)
    return dict(wanted)


def _no_item(key: str) -> errors.NotFound:
    return errors.NotFound("Metadata item was not found", field=key[:255])


_ONE_ITEM = map_of(text(0, 255), keys=METADATA_KEY, minimum=1, maximum=1)
_QUERY = Query(
    LIMIT,
    Param("marker", UUID),
    Param("name", STRING_1_255),
    Param("status", choice(*_STATUSES, *map(str.lower, _STATUSES))),
    Param("minRam", NON_NEGATIVE_INT),
    Param("minDisk", NON_NEGATIVE_INT),
    Param("type", STRING_1_255),
    Param("server", text(1, 2048)),
    Param("changes-since", text(1, 40)),
)
_METADATA = "/images/{image_id}/metadata"
_ITEM = _METADATA + "/{key}"
_ALL_ITEMS = Body.with_value("metadata", METADATA)
_BY_KEY = Body.with_value("meta", _ONE_ITEM)

ROUTES = [
    Route("GET", "/images", index, query=_QUERY, view=ListView("images", IN_BRIEF), until=LAST),
    Route("GET", "/images/detail", index, query=_QUERY, view=ListView("images", WHOLE), until=LAST),
    Route("GET", "/images/{id}", show, view=WHOLE, until=LAST),
    Route("DELETE", "/images/{id}", delete, policy=CHANGE, status=204, until=LAST),
    Route("GET", _METADATA, list_metadata, view=Value("metadata"), until=LAST_OF_METADATA),
    Route("POST", _METADATA, merge, policy=CHANGE, body=_ALL_ITEMS, view=Value("metadata"), until=LAST_OF_METADATA),
    Route("PUT", _METADATA, replace, policy=CHANGE, body=_ALL_ITEMS, view=Value("metadata"), until=LAST_OF_METADATA),
    Route("GET", _ITEM, show_item, view=Value("meta"), until=LAST_OF_METADATA),
    Route("PUT", _ITEM, set_item, policy=CHANGE, body=_BY_KEY, view=Value("meta"), until=LAST_OF_METADATA),
    Route("DELETE", _ITEM, delete_item, policy=CHANGE, status=204, until=LAST_OF_METADATA),
]
