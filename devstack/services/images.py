"""The image service of a stack: Glance's v2 API over one directory, for one machine.

Shapes and codes are those of the Image API v2 (docs.openstack.org, "Image Service API v2"): what `openstack image …`,
openstacksdk and Cellplane itself ask of it. Users are known as the stack's Compute API knows them; who sends no
credentials is one of the stack's own programs and may do everything, as with a Glance that asks nobody: it listens on
the loopback address only.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from aiohttp import web

import api.settings
import core.config
from api.http.auth import strategy_of
from api.http.caller import Strategy
from api.http.errors import HttpError
from core import errors
from core.bounded_pool import BoundedPool
from devstack.services import image_access
from devstack.services.image_access import SERVICE, Caller
from devstack.services.image_store import COMPUTED, SETTABLE, ImageStore

NEWEST = "v2.9"
DEFAULT_LIMIT = 25
MAX_LIMIT = 1000
PATCH_TYPES = ("application/openstack-images-v2.1-json-patch", "application/openstack-images-v2.0-json-patch")
FILTERS = ("name", "id", "status", "visibility", "owner", "container_format", "disk_format", "checksum")
# Whatever else a list is asked by is a property, as with Glance.
NO_PROPERTIES = (
    COMPUTED
    | SETTABLE.keys()
    | {"limit", "marker", "sort", "sort_key", "sort_dir", "tag", "member_status", "size_min", "size_max"}
)
STORE = web.AppKey("store", ImageStore)
CALLER = web.RequestKey("caller", Caller)
DEACTIVATED = "deactivated"
FILES = web.AppKey("files", BoundedPool)
FILES_THREADS = 4
FILES_WAITING = 200
FILES_DEADLINE_S = 60.0
START_DEADLINE_S = 20.0
STOP_DEADLINE_S = 5.0
IDLE_S = 75.0

logger = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")


def application(store: ImageStore, strategy: Strategy | None = None) -> web.Application:
    """The whole service as one aiohttp application. Without a strategy nobody is asked who they are."""
    app = web.Application(middlewares=[_answer_errors, _identifying(strategy)], client_max_size=1024 * 1024)
    app[STORE] = store
    app[FILES] = BoundedPool("files", threads=FILES_THREADS, waiting=FILES_WAITING)
    app.on_cleanup.append(_close_files)
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
            web.post("/v2/images/{id}/actions/{action:deactivate|reactivate}", _set_active),
            web.get("/v2/images/{id}/members", _list_members),
            web.post("/v2/images/{id}/members", _add_member),
            web.get("/v2/images/{id}/members/{member}", _show_member),
            web.put("/v2/images/{id}/members/{member}", _answer_for_member),
            web.delete("/v2/images/{id}/members/{member}", _remove_member),
        ]
    )
    return app


class ImageEndpoint:
    """The service in a thread of this process. `strategy` is closed with it."""

    def __init__(self, directory: Path, port: int, strategy: Strategy | None = None) -> None:
        self._store = ImageStore(directory)
        self._strategy = strategy
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
        self._runner = await _listening(self._store, self._port, self._strategy)

    async def _close(self, timeout_s: float) -> None:
        if self._runner is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._runner.cleanup(), timeout_s)
        if self._strategy is not None:
            self._strategy.close()


def main(argv: list[str] | None = None) -> int:
    """The service as a process of its own."""
    parser = argparse.ArgumentParser(
        prog="python -m devstack.services.images", description="A small image service over one directory."
    )
    parser.add_argument("--directory", required=True, type=Path)
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument(
        "--api-settings", type=Path, help="The Compute API's configuration file: it says how users are known."
    )
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(name)s %(message)s")
    strategy = strategy_from(arguments.api_settings) if arguments.api_settings else None
    asyncio.run(_serve(ImageStore(arguments.directory), arguments.port, strategy))
    return 0


def strategy_from(api_settings: Path) -> Strategy | None:
    """How the Compute API with these settings knows its users; None: it asks nobody."""
    conf = core.config.load("image", ["--config-file", str(api_settings)], api.settings.options())
    return None if conf.api.auth_strategy == "none" else strategy_of(conf)


async def _serve(store: ImageStore, port: int, strategy: Strategy | None) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    runner = await _listening(store, port, strategy)
    logger.info("listening port=%d", port)
    await ended.wait()
    await runner.cleanup()


async def _listening(store: ImageStore, port: int, strategy: Strategy | None) -> web.AppRunner:
    runner = web.AppRunner(application(store, strategy), shutdown_timeout=STOP_DEADLINE_S, keepalive_timeout=IDLE_S)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    return runner


async def _close_files(app: web.Application) -> None:
    app[FILES].close()


async def _in_thread(request: web.Request, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return await request.app[FILES].run(work, FILES_DEADLINE_S, *args, **kwargs)


@web.middleware
async def _answer_errors(request: web.Request, handler: Any) -> web.StreamResponse:
    codes = {
        errors.Invalid: 400,
        errors.NotFound: 404,
        errors.Forbidden: 403,
        errors.Conflict: 409,
        errors.Unavailable: 503,
    }
    try:
        response: web.StreamResponse = await handler(request)
    except HttpError as error:
        return web.json_response(
            {"message": error.message, "code": error.status}, status=error.status, headers=dict(error.headers)
        )
    except errors.CellplaneError as error:
        code = next((code for kind, code in codes.items() if isinstance(error, kind)), 500)
        return web.json_response({"message": error.message, "code": code, "title": error.code}, status=code)
    return response


def _identifying(strategy: Strategy | None) -> Any:
    @web.middleware
    async def identify(request: web.Request, handler: Any) -> web.StreamResponse:
        request[CALLER] = SERVICE
        if strategy is not None and ("Authorization" in request.headers or "X-Auth-Token" in request.headers):
            identity = await strategy.identify(request.headers)
            request[CALLER] = Caller(identity.project_id, is_admin="admin" in identity.roles)
        response: web.StreamResponse = await handler(request)
        return response

    return identify


def _visible(request: web.Request) -> dict[str, Any]:
    """The image in the request's path.

    Raises:
        NotFound: there is none, for this caller.
    """
    store, image_id = request.app[STORE], request.match_info["id"]
    image = store.get(image_id)
    if not image_access.sees(request[CALLER], image, store.members(image_id)):
        raise errors.NotFound(f"No image found with ID {image_id}")
    return image


def _own(request: web.Request) -> dict[str, Any]:
    """The same, to be changed; raises Forbidden too."""
    image = _visible(request)
    image_access.refuse_unless_owned(request[CALLER], image)
    return image


async def _versions(request: web.Request) -> web.Response:
    base = f"{request.scheme}://{request.host}/v2/"
    version = {"id": NEWEST, "status": "CURRENT", "links": [{"rel": "self", "href": base}]}
    supported = [
        {"id": f"v2.{minor}", "status": "SUPPORTED", "links": [{"rel": "self", "href": base}]}
        for minor in range(8, -1, -1)
    ]
    return web.json_response({"versions": [version, *supported]}, status=300 if request.path == "/" else 200)


async def _schema(_request: web.Request) -> web.Response:
    return web.json_response(_image_schema())


async def _schema_of_list(_request: web.Request) -> web.Response:
    properties = {
        "images": {"type": "array", "items": _image_schema()},
        "first": {"type": "string"},
        "next": {"type": "string"},
        "schema": {"type": "string"},
    }
    return web.json_response({"name": "images", "properties": properties})


async def _list(request: web.Request) -> web.Response:
    query = request.query
    images = [
        image for image in await _in_thread(request, request.app[STORE].all) if _is_listed(request, image)
    ]
    _sort(images, query)
    limit = _limit(query.get("limit"))
    # The marker need not fit the filters itself.
    page = [image for image in _after(images, query.get("marker")) if _fits(image, query)]
    answer: dict[str, Any] = {
        "images": [_view(image) for image in page[:limit]],
        "schema": "/v2/schemas/images",
        "first": "/v2/images",
    }
    if len(page) > limit:
        answer["next"] = str(request.rel_url.update_query(marker=page[limit - 1]["id"]))
    return web.json_response(answer)


async def _create(request: web.Request) -> web.Response:
    wanted = await _body(request)
    if not isinstance(wanted, dict):
        raise errors.Invalid("the body is no JSON object")
    caller = request[CALLER]
    image_access.refuse_wishes(caller, wanted)
    image = request.app[STORE].create({"owner": caller.project_id, **wanted})
    return web.json_response(_view(image), status=201, headers={"Location": f"/v2/images/{image['id']}"})


async def _show(request: web.Request) -> web.Response:
    return web.json_response(_view(_visible(request)))


async def _change(request: web.Request) -> web.Response:
    if request.content_type not in PATCH_TYPES:
        return web.json_response({"message": f"the content type is one of {', '.join(PATCH_TYPES)}"}, status=415)
    store, image_id = request.app[STORE], request.match_info["id"]
    wanted, dropped = _patched(_own(request), await _body(request))
    image_access.refuse_wishes(request[CALLER], wanted)
    return web.json_response(_view(store.change(image_id, wanted, dropped)))


async def _delete(request: web.Request) -> web.Response:
    request.app[STORE].delete(_own(request)["id"])
    return web.Response(status=204)


async def _download(request: web.Request) -> web.StreamResponse:
    store, image_id = request.app[STORE], request.match_info["id"]
    image = _visible(request)
    if image["status"] == DEACTIVATED and not request[CALLER].is_admin:
        raise errors.Forbidden("The requested image has been deactivated. Image data download is forbidden.")
    if image["status"] not in ("active", DEACTIVATED):
        return web.Response(status=204)
    return web.FileResponse(
        store.bytes_of(image_id), headers={"Content-Type": "application/octet-stream", "Content-MD5": image["checksum"]}
    )


async def _upload(request: web.Request) -> web.Response:
    store, image_id = request.app[STORE], _own(request)["id"]
    upload = store.upload(image_id)
    try:
        async for chunk in request.content.iter_any():
            await _in_thread(request, upload.write, chunk)
        await _in_thread(request, store.finish, image_id, upload)
    finally:
        upload.forget()
    return web.Response(status=204)


async def _set_active(request: web.Request) -> web.Response:
    image = _own(request)
    after = DEACTIVATED if request.match_info["action"] == "deactivate" else "active"
    request.app[STORE].set_status(image["id"], before=("active", DEACTIVATED), after=after)
    return web.Response(status=204)


async def _list_members(request: web.Request) -> web.Response:
    image = _visible(request)
    image_access.refuse_unless_shared(image)
    known = {
        project_id: row
        for project_id, row in request.app[STORE].members(image["id"]).items()
        if _knows_of(request, image, project_id)
    }
    shown = [_member_view(image["id"], project_id, row) for project_id, row in known.items()]
    return web.json_response({"members": shown, "schema": "/v2/schemas/members"})


async def _add_member(request: web.Request) -> web.Response:
    image, store, wanted = _own(request), request.app[STORE], await _body(request)
    image_access.refuse_unless_shared(image)
    project_id = wanted.get("member") if isinstance(wanted, dict) else None
    if not isinstance(project_id, str) or not project_id:
        raise errors.Invalid("member: a project's id is needed", field="member")
    if project_id in store.members(image["id"]):
        raise errors.Conflict(f"Member {project_id} is a duplicate for image {image['id']}")
    store.set_member(image["id"], project_id, "pending")
    return web.json_response(_member_view(image["id"], project_id, store.members(image["id"])[project_id]))


async def _show_member(request: web.Request) -> web.Response:
    image, project_id = _visible(request), request.match_info["member"]
    image_access.refuse_unless_shared(image)
    return web.json_response(_member_view(image["id"], project_id, _member(request, image, project_id)))


async def _answer_for_member(request: web.Request) -> web.Response:
    """A share is taken, or refused, by whom it is for."""
    image, project_id, wanted = _visible(request), request.match_info["member"], await _body(request)
    image_access.refuse_unless_shared(image)
    _member(request, image, project_id)
    status = wanted.get("status") if isinstance(wanted, dict) else None
    if status not in image_access.MEMBER_STATUSES:
        raise errors.Invalid(f"status is one of {', '.join(image_access.MEMBER_STATUSES)}", field="status")
    if not request[CALLER].is_admin and request[CALLER].project_id != project_id:
        raise errors.Forbidden("You are not permitted to modify 'status' on this image member.")
    request.app[STORE].set_member(image["id"], project_id, status)
    return web.json_response(_member_view(image["id"], project_id, _member(request, image, project_id)))


async def _remove_member(request: web.Request) -> web.Response:
    image, project_id = _own(request), request.match_info["member"]
    image_access.refuse_unless_shared(image)
    _member(request, image, project_id)
    request.app[STORE].set_member(image["id"], project_id, None)
    return web.Response(status=204)


def _member(request: web.Request, image: dict[str, Any], project_id: str) -> dict[str, Any]:
    """
    Raises:
        NotFound: there is no such member, for this caller.
    """
    member = request.app[STORE].members(image["id"]).get(project_id)
    if member is None or not _knows_of(request, image, project_id):
        raise errors.NotFound(f"{project_id} not found in the member list of the image {image['id']}.")
    return member


def _knows_of(request: web.Request, image: dict[str, Any], project_id: str) -> bool:
    """A member is known to the image's owner, and to itself."""
    return image_access.owns(request[CALLER], image) or request[CALLER].project_id == project_id


def _member_view(image_id: str, project_id: str, member: dict[str, Any]) -> dict[str, Any]:
    return {"image_id": image_id, "member_id": project_id, **member, "schema": "/v2/schemas/member"}


async def _body(request: web.Request) -> Any:
    try:
        return json.loads(await request.read())
    except ValueError:
        raise errors.Invalid("the body is no JSON") from None


def _view(image: dict[str, Any]) -> dict[str, Any]:
    address = f"/v2/images/{image['id']}"
    return {**image, "self": address, "file": f"{address}/file", "schema": "/v2/schemas/image"}


def _is_listed(request: web.Request, image: dict[str, Any]) -> bool:
    members = request.app[STORE].members(image["id"]) if image["visibility"] == "shared" else {}
    is_asked_for = request.query.get("visibility") == image["visibility"]
    return image_access.sees(
        request[CALLER], image, members, in_lists=not (is_asked_for and image["visibility"] == "community")
    )


def _fits(image: dict[str, Any], query: Any) -> bool:
    if image["os_hidden"] != (query.get("os_hidden", "false").lower() == "true"):
        return False
    if any(tag not in image["tags"] for tag in query.getall("tag", [])):
        return False
    if any(image.get(name) != value for name, value in query.items() if name not in NO_PROPERTIES):
        return False
    return all(
        _equals(image.get(name), query[name])
        for name in FILTERS
        if name in query and (name, query[name]) != ("visibility", "all")
    )


def _equals(value: object, wanted: str) -> bool:
    """A filter is one value, or several as `in:a,b` (quotes keep a comma inside one)."""
    if wanted.startswith("in:"):
        return str(value) in [one.strip('"') for one in wanted.removeprefix("in:").split(",")]
    return str(value) == wanted


def _sort(images: list[dict[str, Any]], query: Any) -> None:
    """Sorts by `sort=key:direction,…` or `sort_key`/`sort_dir`; without either the order stays newest first."""
    asked = [part.partition(":") for part in query.get("sort", "").split(",") if part]
    keys = [(key, direction or "desc") for key, _, direction in asked] or [
        (key, query.get("sort_dir", "desc")) for key in query.getall("sort_key", [])
    ]
    for key, direction in reversed(keys):
        images.sort(
            key=lambda image, key=key: (image.get(key) is not None, image.get(key) or ""), reverse=direction != "asc"
        )  # type: ignore[misc]


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_LIMIT
    if not text.isdecimal():
        raise errors.Invalid("limit param must be a positive integer", field="limit")
    return min(int(text), MAX_LIMIT)


def _after(images: list[dict[str, Any]], marker: str | None) -> list[dict[str, Any]]:
    if marker is None:
        return images
    positions = [position for position, image in enumerate(images) if image["id"] == marker]
    if not positions:
        raise errors.Invalid(f"Image {marker} could not be found as a marker", field="marker")
    return images[positions[0] + 1 :]


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
    properties = dict.fromkeys(
        ("id", "name", "status", "checksum", "os_hash_algo", "os_hash_value", "owner", "self", "file", "schema"), text
    )
    properties |= dict.fromkeys(("visibility", "container_format", "disk_format", "created_at", "updated_at"), text)
    properties |= dict.fromkeys(("size", "virtual_size", "min_disk", "min_ram"), number)
    properties |= {
        "protected": {"type": "boolean"},
        "os_hidden": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
    }  # type: ignore[dict-item]
    return {"name": "image", "properties": properties, "additionalProperties": {"type": "string"}}


if __name__ == "__main__":
    sys.exit(main())
