"""Messages that a listener of the API level gave up: kept in a table, and the orders that they stand for are ended."""

from typing import Any

import msgspec

import api_db.dead_letters
import core.log
import messaging.verbs.superconductor as verbs
from cells.gate.answers import value_of
from cells.gate.gate import Gate
from conductor.superconductor.journal_worker import JournalWorker
from core.log import requests
from messaging.dead_letters import DeadLetter, for_the_record
from messaging.listener import Delivery

LOG = core.log.get(__name__)


class DeadLetterHandler:
    """Handler of the queue `dead_letters`."""

    def __init__(self, api: Gate, journal: JournalWorker) -> None:
        self._api = api
        self._journal = journal

    def on_dead_letter(self, deliveries: list[Delivery]) -> None:
        """Keeps each message; the servers of a poisonous `place` are buried with a fault, unless somebody works on
        them."""
        for delivery in deliveries:
            letter: DeadLetter = delivery.arguments
            record = for_the_record(letter, delivery.context)
            value_of(self._api.write_now(api_db.dead_letters.insert, **record))
            said = requests([record["request_id"]])
            LOG.error(
                "message given up %s verb=%s queue=%s why=%s",
                said,
                record["verb"] or "malformed",
                record["queue"],
                record["why"],
            )
            wanted = _uuids(letter.arguments()) if letter.verb == verbs.PLACE.name else []
            if wanted:
                self._journal.fail(wanted, f"The order of this server could not be handled: {letter.why}")


def _uuids(arguments: Any) -> list[str]:
    """The servers that a message names, as far as it can be read."""
    try:
        return msgspec.convert(arguments, verbs.Place).uuids
    except msgspec.ValidationError:
        return []
