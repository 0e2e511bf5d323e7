"""The one table from errors to HTTP: which status, which fault."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from api.http.versions import NotServed
from core import errors
from core.http_server import Gone

RETRY_AFTER_S = 2

_STATUS: dict[type[Exception], int] = {
    errors.Invalid: 400,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Forbidden: 403,
    errors.Unavailable: 503,
    NotServed: 406,
    Gone: 499,  # As web servers' logs have it; nobody reads the answer.
}

_FAULTS = {
    300: "multipleChoices",
    400: "badRequest",
    401: "unauthorized",
    403: "forbidden",
    404: "itemNotFound",
    405: "badMethod",
    409: "conflictingRequest",
    413: "overLimit",
    415: "badMediaType",
    429: "overLimit",
    501: "notImplemented",
    503: "serviceUnavailable",
}
_ANY_OTHER_FAULT = "computeFault"

NOT_FOUND = "The resource could not be found."
MALFORMED = "Malformed request: it can't be read."


class HttpError(Exception):
    """A refusal that only HTTP knows, such as a media type or a method that is not implemented."""

    def __init__(self, status: int, message: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = tuple(headers)


@dataclass(frozen=True, slots=True)
class Fault:
    """A response that says what went wrong; ``expected`` is false for what nobody foresaw."""

    status: int
    message: str
    headers: tuple[tuple[str, str], ...] = ()
    expected: bool = True
    body: bytes = field(init=False)

    def __post_init__(self) -> None:
        # What a message quotes came over the wire, where headers may hold bytes that are no text.
        message = self.message.encode("utf-8", "replace").decode()
        inner: dict[str, Any] = {"code": self.status, "message": message}
        name = _FAULTS.get(self.status, _ANY_OTHER_FAULT)
        if name == "overLimit":
            inner["retryAfter"] = str(RETRY_AFTER_S)
        object.__setattr__(self, "body", orjson.dumps({name: inner}))


def fault_of(error: Exception, request_id: str) -> Fault:
    """What the caller is told of the error; of an unexpected one only the request id."""
    if isinstance(error, HttpError):
        return Fault(error.status, error.message, error.headers)
    for kind in type(error).__mro__:
        status = _STATUS.get(kind)
        if status == 503:
            return Fault(status, _away(error), (("Retry-After", str(RETRY_AFTER_S)),))
        if status is not None:
            return Fault(status, str(error))
    return Fault(500, unexpected(request_id), expected=False)


def unexpected(request_id: str) -> str:
    """What the caller is told of an error that nobody foresaw."""
    return f"Unexpected API error. Please tell the cloud's operators, with the request id {request_id}."


def _away(error: Exception) -> str:
    """What is away, without why: addresses and drivers' texts stay in the log."""
    if isinstance(error, errors.OverShare):
        return "Too many requests of your project are under way. Please try again."
    if isinstance(error, errors.NoTurn):
        return "The cloud has too many requests at the moment. Please try again."
    cell = error.fields.get("cell") if isinstance(error, errors.CellplaneError) else None
    what = "A part of the cloud" if cell is None else f"Cell {cell}"
    return f"{what} does not answer at the moment. Please try again."
