"""What travels in a message: the envelope of a cast or call, the reply to a call, and a message that was given up.

JSON. Unknown fields are ignored and new fields have defaults, so that two neighbouring releases understand each other.
"""

import re
from typing import Annotated, Any, TypeVar

import msgspec

from core import errors
from core.context import Context
from messaging.verbs import Verb

T = TypeVar("T")

MAX_DEADLINE_S = 31 * 86400.0
Name = Annotated[str, msgspec.Meta(max_length=64, pattern=r"^[!-~]*\Z")]
"""What ends in logs and in columns of tables: one printable word."""

_PATH_IN_COMPLAINT = re.compile(r" - at `\$\.?(?P<path>[^`]+)`")
_COMPLAINT_LENGTH = 2000
_NAME_IN_COMPLAINT = re.compile(r"required field `(?P<name>[^`]+)`")


class Envelope(msgspec.Struct, kw_only=True):
    """One message to a listener.

    `deadline_ms` is what was left when it was sent: clocks of different machines are never compared.
    `trace` is the same in all messages that one request of a user causes.
    """

    verb: Name
    version: Name
    arguments: msgspec.Raw
    request_id: Name
    context: dict[str, Any]
    deadline_ms: Annotated[int, msgspec.Meta(le=int(MAX_DEADLINE_S * 1000))]
    sent_by: Annotated[str, msgspec.Meta(max_length=300)] = ""
    trace: Annotated[str, msgspec.Meta(max_length=300)] | None = None


class Fault(msgspec.Struct):
    """An error on its way between programs."""

    code: str
    message: str
    fields: dict[str, Any] = {}


class Reply(msgspec.Struct, omit_defaults=True):
    """The answer to a call: a value (JSON null if the verb has none) or an error."""

    value: msgspec.Raw = msgspec.Raw(b"null")
    error: Fault | None = None


def envelope(verb: Verb, arguments: msgspec.Struct, *, context: Context, deadline_s: float, sent_by: str) -> bytes:
    """The body of a message that asks for this verb."""
    return encode(Envelope(
        verb=verb.name,
        version=verb.version,
        arguments=msgspec.Raw(encode(arguments)),
        request_id=context.request_id,
        context=context.to_fields(),
        deadline_ms=max(0, round(deadline_s * 1000)),
        sent_by=sent_by,
        trace=context.global_request_id or context.request_id,
    ))


def encode(value: object) -> bytes:
    """The value as JSON."""
    return msgspec.json.encode(value)


def decode(body: bytes, kind: type[T]) -> T:
    """The value that these bytes hold.

    Raises:
        Invalid: they do not; `field` is the dotted place of the first thing wrong, empty if it is no JSON at all.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (
        ValueError,
        RecursionError,
    ) as complaint:  # msgspec's own, text that is no UTF-8, and what is nested too deep
        raise errors.Invalid(
            f"{kind.__name__}: {str(complaint)[:_COMPLAINT_LENGTH]}", field=_field(str(complaint))
        ) from complaint


def opened(body: bytes) -> tuple[Envelope, Context]:
    """The message in these bytes, and who asks.

    Raises:
        Invalid: they hold none, as `decode` says it.
    """
    message = decode(body, Envelope)
    try:
        context = Context.from_fields(message.context)
        msgspec.convert(context.request_id, Name)
    except (ValueError, RecursionError) as complaint:
        raise errors.Invalid(f"context: {str(complaint)[:_COMPLAINT_LENGTH]}", field="context") from complaint
    return message, context


def arguments_of(message: Envelope, verb: Verb) -> Any:
    """The typed arguments of a message that asks for this verb.

    Raises:
        Invalid: its major version is not ours, or an argument is missing or wrong.
    """
    if _major(message.version) != _major(verb.version):
        sender = repr(message.sent_by)[1:-1] or "an unnamed sender"
        raise errors.Invalid(
            f"{message.verb} {message.version} from {sender} is refused: "
            f"this program supports {verb.name} {verb.version}",
            field="version",
        )
    return decode(bytes(message.arguments), verb.arguments)


def reply_with(value: msgspec.Struct | None) -> bytes:
    """The body of the reply that carries a value."""
    return encode(Reply(value=msgspec.Raw(encode(value))))


def reply_with_error(error: errors.CellplaneError) -> bytes:
    """The body of the reply that carries an error; a field that JSON cannot hold travels as its text."""
    fields = msgspec.to_builtins(error.fields, enc_hook=str, str_keys=True)
    return encode(Reply(error=Fault(code=error.code, message=error.message, fields=fields)))


def value_of(body: bytes, verb: Verb) -> Any:
    """What a call was answered with.

    Raises:
        CellplaneError: the error that the other side answered with; `Broken` if its answer cannot be read.
    """
    try:
        reply = decode(body, Reply)
        value = decode(bytes(reply.value), verb.reply) if verb.reply and reply.error is None else None
    except errors.Invalid as why:
        raise errors.Broken(f"the answer to {verb.name} cannot be read: {why.message}") from why
    if reply.error is not None:
        raise errors.from_fields(reply.error.code, reply.error.message[:_COMPLAINT_LENGTH], reply.error.fields)
    return value


def _major(version: str) -> str:
    return version.partition(".")[0]


def _field(complaint: str) -> str:
    path = _PATH_IN_COMPLAINT.search(complaint)
    name = _NAME_IN_COMPLAINT.search(complaint)
    return ".".join(part for part in (path and path["path"], name and name["name"]) if part)
