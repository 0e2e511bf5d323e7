"""The bodies of requests: received within limits, then read as JSON.

A client may take its time over a body, and must cost nobody else anything by that: bodies that are being received are
bounded in size, time and number, and one that has been on its way for long gives way to a new one.
"""

import asyncio
import collections
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import orjson
from aiohttp import web

from api.http.errors import HttpError
from core import errors
from core.http_server import Gone

_READ_TYPES = frozenset({"application/json", "application/vnd.openstack.compute+json"})
_MAX_LEVELS = 32
"""Of lists and objects inside each other in a body: none that is served needs ten, and whoever walks a document may do
so recursively."""


class Bodies:
    """Receives bodies; for one event loop.

    Args:
        max_bytes: of a body.
        within_s: seconds in which a body must arrive.
        most: bodies that are received at the same time; for one more the oldest is given up.
        most_of_project: of one project, as `most`.
    """

    def __init__(self, *, max_bytes: int, within_s: float, most: int, most_of_project: int) -> None:
        self._max_bytes = max_bytes
        self._within_s = within_s
        self._most = most
        self._most_of_project = most_of_project
        # The time limits of those on their way, each with its project, in the order in which they began.
        self._arriving: dict[asyncio.Timeout, str | None] = {}
        self._arriving_of: collections.Counter[str | None] = collections.Counter()

    async def receive(self, request: web.BaseRequest, project_id: str | None) -> bytes:
        """The request's body, as it came.

        Raises:
            HttpError: of another media type, too large or too slow.
            Invalid: it can't be read.
            Gone: its client has gone.
        """
        if "Content-Type" in request.headers and request.content_type not in _READ_TYPES:
            raise HttpError(415, f"Unsupported Content-Type {request.content_type}")
        if (request.content_length or 0) > self._max_bytes:
            raise self._too_large()
        try:
            if request.content.is_eof():  # It came with the head.
                return await request.read()
            async with self._place(project_id):
                return await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise self._too_large() from None
        except TimeoutError:
            raise HttpError(408, "The body did not arrive in time.") from None
        except (web.RequestPayloadError, ConnectionError):
            if request.transport is None:
                raise Gone from None
            raise errors.Invalid("Malformed request body: it can't be read.", field="body") from None

    @contextlib.asynccontextmanager
    async def _place(self, project_id: str | None) -> AsyncIterator[None]:
        """
        Raises:
            TimeoutError: the time is over, or the place was given to another one.
        """
        async with asyncio.timeout(self._within_s) as limit:
            self._make_room(project_id)
            self._arriving[limit] = project_id
            self._arriving_of[project_id] += 1
            try:
                yield
            finally:
                self._leave(limit)

    def _make_room(self, project_id: str | None) -> None:
        """The oldest goes, and not the newest, which may be a quick one's: whoever sends slowly on purpose has the old
        ones."""
        if self._arriving_of[project_id] >= self._most_of_project:
            self._give_up(next(limit for limit, of in self._arriving.items() if of == project_id))
        elif len(self._arriving) >= self._most:
            self._give_up(next(iter(self._arriving)))

    def _give_up(self, limit: asyncio.Timeout) -> None:
        self._leave(limit)
        if not limit.expired():
            limit.reschedule(0.0)

    def _leave(self, limit: asyncio.Timeout) -> None:
        """Frees the place, if it was not given to another one already."""
        if limit in self._arriving:
            project_id = self._arriving.pop(limit)
            self._arriving_of[project_id] -= 1
            if not self._arriving_of[project_id]:
                del self._arriving_of[project_id]

    def _too_large(self) -> HttpError:
        return HttpError(413, f"The body is larger than {self._max_bytes} bytes.")


def document_of(body: bytes) -> dict[str, Any]:
    """The JSON object that the body is.

    Raises:
        Invalid: it is none.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise errors.Invalid("Malformed request body: it is no JSON.", field="body") from None
    if not isinstance(document, dict):
        raise errors.Invalid("Malformed request body: it is no object.", field="body")
    _refuse_deep(document)
    return document


def _refuse_deep(document: dict[str, Any]) -> None:
    level: list[Any] = [document]
    for _ in range(_MAX_LEVELS):
        inner = (value for each in level for value in (each.values() if isinstance(each, dict) else each))
        level = [value for value in inner if isinstance(value, dict | list)]
        if not level:
            return
    raise errors.Invalid(f"Malformed request body: more than {_MAX_LEVELS} levels are nested.", field="body")
