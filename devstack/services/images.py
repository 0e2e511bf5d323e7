"""The image service of a stack: Glance's v2 API over one directory, for one machine; it asks nobody who they are.

Shapes and codes are those of the Image API v2 (docs.openstack.org, "Image Service API v2"): what `openstack image …`, openstacksdk and
Cellplane itself ask of it.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from aiohttp import web

from core import errors
from devstack.services.image_store import ImageStore

NEWEST = "v2.9"
DEFAULT_LIMIT = 25
MOST_LIMIT = 1000
PATCH_TYPES = ("application/openstack-images-v2.1-json-patch", "application/openstack-images-v2.0-json-patch")
FILTERS = ("name", "id", "status", "visibility", "owner", "container_format", "disk_format", "checksum")
STORE = web.AppKey("store", ImageStore)
START_DEADLINE_S = 20.0
STOP_DEADLINE_S = 5.0

logger = logging.getLogger(__name__)


def application(store: ImageStore) -> web.Application:
    """The whole service as one aiohttp application."""
    app = web.Application(middlewares=[_answer_errors], client_max_size=1024 * 1024)
    app[STORE] = store
    app.add_routes(
        [
            web.get("/", _versions),
            web.get("/versions", _versions),
            web.get("/v2", _versions),
            web.get("/v2/", _versions),
            web.get("/v2/schemas/image", _schema),
            web.get("/v2/schemas/images", _schema_of_list),
            web.get("/v2/images", _list),
            web.post("/v2/images", _create),
            web.get("/v2/images/{id}", _show),
            web.patch("/v2/images/{id}", _change),
            web.delete("/v2/images/{id}", _delete),
            web.get("/v2/images/{id}/file", _download),
            web.put("/v2/images/{id}/file", _upload),
        ]
    )
    return app


class ImageEndpoint:
    """The service in a thread of this process."""

    def __init__(self, directory: Path, port: int) -> None:
        self._store = ImageStore(directory)
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="image-endpoint", daemon=True)
        self._runner: web.AppRunner | None = None

    def start(self) -> None:
        """Returns once it listens."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(START_DEADLINE_S)

    def stop(self, timeout_s: float = STOP_DEADLINE_S) -> None:
        """Ends it; requests under way get this long."""
        asyncio.run_coroutine_threadsafe(self._close(timeout_s), self._loop).result(timeout_s + STOP_DEADLINE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOP_DEADLINE_S)
        self._loop.close()

    async def _open(self) -> None:
        self._runner = await _listening(self._store, self._port)

    async def _close(self, timeout_s: float) -> None:
        if self._runner is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._runner.cleanup(), timeout_s)


def main(argv: list[str] | None = None) -> int:
    """The service as a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m devstack.services.images", description="A small image service over one directory.")
    parser.add_argument("--directory", required=True, type=Path)
    parser.add_argument("--port", required=True, type=int)
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(name)s %(message)s")
    asyncio.run(_serve(ImageStore(arguments.directory), arguments.port))
    return 0


async def _serve(store: ImageStore, port: int) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    runner = await _listening(store, port)
    logger.info("listening port=%d", port)
    await ended.wait()
    await runner.cleanup()


async def _listening(store: ImageStore, port: int) -> web.AppRunner:
    runner = web.AppRunner(application(store), shutdown_timeout=STOP_DEADLINE_S)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    return runner


@web.middleware
async def _answer_errors(request: web.Request, handler: Any) -> web.StreamResponse:
    codes = {errors.Invalid: 400, errors.NotFound: 404, errors.Forbidden: 403, errors.Conflict: 409}
    try:
        response: web.StreamResponse = await handler(request)
    except errors.CellplaneError as error:
        code = next((code for kind, code in codes.items() if isinstance(error, kind)), 500)
        return web.json_response({"message": error.message, "code": code, "title": error.code}, status=code)
    return response


async def _versions(request: web.Request) -> web.Response:
    base = f"{request.scheme}://{request.host}/v2/"
    version = {"id": NEWEST, "status": "CURRENT", "links": [{"rel": "self", "href": base}]}
    supported = [{"id": f"v2.{minor}", "status": "SUPPORTED", "links": [{"rel": "self", "href": base}]} for minor in range(8, -1, -1)]
    return web.json_response({"versions": [version, *supported]}, status=300 if request.path == "/" else 200)


async def _schema(_request: web.Request) -> web.Response:
    return web.json_response(_image_schema())


async def _schema_of_list(_request: web.Request) -> web.Response:
    properties = {"images": {"type": "array", "items": _image_schema()}, "first": {"type": "string"}, "next": {"type": "string"}, "schema": {"type": "string"}}
    return web.json_response({"name": "images", "properties": properties})


async def _list(request: web.Request) -> web.Response:
    query = request.query
    images = [image for image in await asyncio.to_thread(request.app[STORE].all) if _fits(image, query)]
    _sort(images, query)
    limit = _limit(query.get("limit"))
    page = _after(images, query.get("marker"))
    answer: dict[str, Any] = {"images": [_view(image) for image in page[:limit]], "schema": "/v2/schemas/images", "first": "/v2/images"}
    if len(page) > limit:
        answer["next"] = str(request.rel_url.update_query(marker=page[limit - 1]["id"]))
    return web.json_response(answer)


async def _create(request: web.Request) -> web.Response:
    wanted = await _body(request)
    if not isinstance(wanted, dict):
        raise errors.Invalid("the body is no JSON object")
    image = request.app[STORE].create(wanted)
    return web.json_response(_view(image), status=201, headers={"Location": f"/v2/images/{image['id']}"})


async def _show(request: web.Request) -> web.Response:
    return web.json_response(_view(request.app[STORE].get(request.match_info["id"])))


async def _change(request: web.Request) -> web.Response:
    if request.content_type not in PATCH_TYPES:
        return web.json_response({"message": f"the content type is one of {', '.join(PATCH_TYPES)}"}, status=415)
    store, image_id = request.app[STORE], request.match_info["id"]
    wanted, dropped = _patched(store.get(image_id), await _body(request))
    return web.json_response(_view(store.change(image_id, wanted, dropped)))


async def _delete(request: web.Request) -> web.Response:
    request.app[STORE].delete(request.match_info["id"])
    return web.Response(status=204)


async def _download(request: web.Request) -> web.StreamResponse:
    store, image_id = request.app[STORE], request.match_info["id"]
    image = store.get(image_id)
    if image["status"] != "active":
        return web.Response(status=204)
    return web.FileResponse(store.bytes_of(image_id), headers={"Content-Type": "application/octet-stream", "Content-MD5": image["checksum"]})


async def _upload(request: web.Request) -> web.Response:
    store, image_id = request.app[STORE], request.match_info["id"]
    upload = store.upload(image_id)
    try:
        async for chunk in request.content.iter_any():
            await asyncio.to_thread(upload.write, chunk)
        await asyncio.to_thread(store.finish, image_id, upload)
    finally:
        upload.forget()
    return web.Response(status=204)


async def _body(request: web.Request) -> Any:
    try:
        return json.loads(await request.read())
    except ValueError:
        raise errors.Invalid("the body is no JSON") from None


def _view(image: dict[str, Any]) -> dict[str, Any]:
    address = f"/v2/images/{image['id']}"
    return {**image, "self": address, "file": f"{address}/file", "schema": "/v2/schemas/image"}


def _fits(image: dict[str, Any], query: Any) -> bool:
    if image["os_hidden"] != (query.get("os_hidden", "false").lower() == "true"):
        return False
    if any(tag not in image["tags"] for tag in query.getall("tag", [])):
        return False
    return all(_equals(image.get(name), query[name]) for name in FILTERS if name in query and (name, query[name]) != ("visibility", "all"))


def _equals(value: object, wanted: str) -> bool:
    """A filter is one value, or several as `in:a,b` (quotes keep a comma inside one)."""
    if wanted.startswith("in:"):
        return str(value) in [one.strip('"') for one in wanted.removeprefix("in:").split(",")]
    return str(value) == wanted


def _sort(images: list[dict[str, Any]], query: Any) -> None:
    """Sorts by `sort=key:direction,…` or `sort_key`/`sort_dir`; without either the order stays newest first."""
    asked = [part.partition(":") for part in query.get("sort", "").split(",") if part]
    keys = [(key, direction or "desc") for key, _, direction in asked] or [(key, query.get("sort_dir", "desc")) for key in query.getall("sort_key", [])]
    for key, direction in reversed(keys):
        images.sort(key=lambda image, key=key: (image.get(key) is not None, image.get(key) or ""), reverse=direction != "asc")  # type: ignore[misc]


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_LIMIT
    if not text.isdecimal():
        raise errors.Invalid("limit param must be a positive integer", field="limit")
    return min(int(text), MOST_LIMIT)


def _after(images: list[dict[str, Any]], marker: str | None) -> list[dict[str, Any]]:
    if marker is None:
        return images
    places = [place for place, image in enumerate(images) if image["id"] == marker]
    if not places:
        raise errors.Invalid(f"Image {marker} could not be found as a marker", field="marker")
    return images[places[0] + 1 :]


def _patched(image: dict[str, Any], operations: Any) -> tuple[dict[str, Any], set[str]]:
    """What a JSON patch of top-level properties sets and removes."""
    if not isinstance(operations, list):
        raise errors.Invalid("Request body must be a JSON array of operation objects.")
    wanted: dict[str, Any] = {}
    dropped: set[str] = set()
    for operation in operations:
        name, kind = _operation(operation)
        if kind == "remove":
            dropped.add(name)
            wanted.pop(name, None)
        elif kind == "replace" and name not in image and name not in wanted:
            raise errors.Conflict(f"Property {name} does not exist.")
        else:
            wanted[name] = operation.get("value")
            dropped.discard(name)
    return wanted, dropped


def _operation(operation: Any) -> tuple[str, str]:
    path = operation.get("path", "") if isinstance(operation, dict) else ""
    name = path.removeprefix("/").replace("~1", "/").replace("~0", "~")
    kind = operation.get("op") if isinstance(operation, dict) else None
    if not path.startswith("/") or kind not in ("add", "replace", "remove"):
        raise errors.Invalid(f"no operation on a property: {json.dumps(operation)}")
    return name, kind


def _image_schema() -> dict[str, Any]:
    text, number = {"type": ["null", "string"]}, {"type": ["null", "integer"]}
    properties = dict.fromkeys(("id", "name", "status", "checksum", "os_hash_algo", "os_hash_value", "owner", "self", "file", "schema"), text)
    properties |= dict.fromkeys(("visibility", "container_format", "disk_format", "created_at", "updated_at"), text)
    properties |= dict.fromkeys(("size", "virtual_size", "min_disk", "min_ram"), number)
    properties |= {"protected": {"type": "boolean"}, "os_hidden": {"type": "boolean"}, "tags": {"type": "array", "items": {"type": "string"}}}  # type: ignore[dict-item]
    return {"name": "image", "properties": properties, "additionalProperties": {"type": "string"}}


if __name__ == "__main__":
    sys.exit(main())
