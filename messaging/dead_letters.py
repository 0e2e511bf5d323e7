"""Messages that were given up: where they lie and what they look like.

A dead letter is an ordinary message of the verb `dead_letter`, so that a listener on its queue can read it. RabbitMQ itself may
put messages there too, as they are, if a policy says so: those that were delivered too often, and those that expired.
"""

from typing import Any

import msgspec

from core.context import Context, service_context
from messaging import wire
from messaging.verbs import Verb

QUEUE = "dead_letters"
KEPT_S = 30 * 86400.0


class DeadLetter(msgspec.Struct, kw_only=True):
    """A message that nobody could handle.

    `envelope` is `None`, and `body` the text as it came, if it was no envelope at all.
    """

    queue: str
    why: str
    deliveries: int
    envelope: wire.Envelope | None = None
    body: str | None = None


DEAD_LETTER = Verb("dead_letter", "1.0", DeadLetter)


def letter(*, queue: str, why: str, deliveries: int, body: bytes, envelope: wire.Envelope | None, sent_by: str) -> bytes:
    """The body of the message that goes to `dead_letters`."""
    context = service_context() if envelope is None else Context.from_wire(envelope.context)
    text = body.decode("utf-8", "replace") if envelope is None else None
    given_up = DeadLetter(queue=queue, why=why, deliveries=deliveries, envelope=envelope, body=text)
    return wire.envelope(DEAD_LETTER, given_up, context=context, deadline_s=KEPT_S, sent_by=sent_by)


def given_up_by_broker(headers: dict[str, Any], body: bytes, envelope: wire.Envelope | None, deliveries: int) -> DeadLetter | None:
    """What a message that RabbitMQ itself moved here means; `None` if it merely expired, which is no failure."""
    why = str(headers.get("x-first-death-reason", "unknown"))
    if why == "expired":
        return None
    return DeadLetter(
        queue=str(headers.get("x-first-death-queue", "")),
        why=f"given up by the broker: {why}",
        deliveries=deliveries,
        envelope=envelope,
        body=body.decode("utf-8", "replace") if envelope is None else None,
    )
