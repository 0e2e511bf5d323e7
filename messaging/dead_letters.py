"""Messages that were given up: where they lie and what they look like.

A dead letter is an ordinary message of the verb `dead_letter`, so that a listener on its queue can read it. RabbitMQ
itself may put messages there too, as they are, if a policy says so: those that were delivered too often, and those that
expired.
"""

from typing import Any

import msgspec

from core.context import Context, service_context
from messaging import access, envelopes
from messaging.verbs import Verb

QUEUE = access.DEAD_LETTERS
KEPT_S = 30 * 86400.0
SECRETS = frozenset({"user_data", "admin_pass", "adminpass", "password", "public_key", "personality"})
MASK = "***"
VERB_LENGTH = 64
REQUEST_ID_LENGTH = 64
QUEUE_LENGTH = 255
WHY_LENGTH = 2000
MAX_KEPT = access.MAX_BYTES // 2
"""Of a message, in bytes: what was larger is kept without what it asked for, so that its letter is no larger than a
message may be."""


class DeadLetter(msgspec.Struct, kw_only=True):
    """A message that nobody could handle.

    `envelope` is `None`, and `body` the text as it came, if it was no envelope at all.
    """

    queue: str
    why: str
    deliveries: int
    envelope: envelopes.Envelope | None = None
    body: str | None = None

    @property
    def verb(self) -> str:
        """What was asked; empty if nobody can tell."""
        return self.envelope.verb if self.envelope else ""

    def arguments(self) -> Any:
        """What was asked for, secrets and all: see `masked`. `None`: it cannot be read (nested too deep, say)."""
        if self.envelope is None:
            return {"body": self.body}
        try:
            return msgspec.json.decode(bytes(self.envelope.arguments))
        except (ValueError, RecursionError):
            return None


DEAD_LETTER = Verb("dead_letter", "1.0", DeadLetter)


def letter(
    *,
    queue: str,
    why: str,
    deliveries: int,
    body: bytes,
    envelope: envelopes.Envelope | None,
    sent_by: str,
    context: Context | None = None,
) -> bytes:
    """The body of the message that goes to `dead_letters`; `context` `None`: who asked cannot be read."""
    given_up = DeadLetter(
        queue=queue, why=why[:WHY_LENGTH], deliveries=deliveries, envelope=_short(envelope), body=_text(body, envelope)
    )
    return envelopes.envelope(
        DEAD_LETTER, given_up, context=context or service_context(), deadline_s=KEPT_S, sent_by=sent_by
    )


def _short(envelope: envelopes.Envelope | None) -> envelopes.Envelope | None:
    if envelope is None or len(bytes(envelope.arguments)) <= MAX_KEPT:
        return envelope
    return msgspec.structs.replace(envelope, arguments=msgspec.Raw(b"null"))


def _text(body: bytes, envelope: envelopes.Envelope | None) -> str | None:
    """What was no message; JSON needs up to six characters for one of them."""
    return body[: MAX_KEPT // 8].decode("utf-8", "replace") if envelope is None else None


def given_up_by_broker(
    headers: dict[str, Any], body: bytes, envelope: envelopes.Envelope | None, deliveries: int, *, sender: str | None
) -> DeadLetter | None:
    """What a message that RabbitMQ itself moved here means; `None` if it merely expired, which is no failure.

    RabbitMQ leaves headers of this kind that the message had before: what a host sent did not die where they say.
    """
    why = str(headers.get("x-first-death-reason", "unknown"))
    if why == "expired":
        return None
    return DeadLetter(
        queue=access.REPORTS if sender is not None else str(headers.get("x-first-death-queue", ""))[:QUEUE_LENGTH],
        why=f"given up by the broker: {why}"[:WHY_LENGTH],
        deliveries=deliveries,
        envelope=_short(envelope),
        body=_text(body, envelope),
    )


def for_the_record(letter: DeadLetter, context: Context) -> dict[str, Any]:
    """What a table keeps of it, each no longer than its column: what could not be read at all may hold anything, so
    none of it is kept."""
    try:
        arguments = masked(letter.arguments()) if letter.envelope else {"characters": len(letter.body or "")}
    except RecursionError:
        arguments = None
    return {
        "verb": _words(letter.verb, VERB_LENGTH),
        "queue": letter.queue.encode("utf-8", "replace").decode()[:QUEUE_LENGTH],
        "arguments": arguments,
        "why": letter.why.encode("utf-8", "replace").decode()[:WHY_LENGTH],
        "request_id": _words(context.request_id, REQUEST_ID_LENGTH),
    }


def _words(text: str, most: int) -> str:
    return text[:most].encode("ascii", "replace").decode()


def masked(value: Any) -> Any:
    """The value with everything secret in it replaced."""
    if isinstance(value, dict):
        return {
            key: MASK if key.lower().replace("-", "_") in SECRETS and item else masked(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [masked(item) for item in value]
    return value
