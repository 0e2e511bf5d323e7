"""Messages that a listener gave up after several deliveries: kept in a table, and the work they stand for is ended."""

from typing import Any

import msgspec

import cell_db.builds
import cell_db.dead_letters
import core.log
import messaging.verbs.compute as compute_verbs
from conductor.cell.dropped import Dropped
from conductor.cell.host_commands import HostCommands
from core.log import requests
from database.engine import Database
from messaging import access
from messaging.dead_letters import DEAD_LETTER, DeadLetter, for_the_record
from messaging.listener import Delivery

LOG = core.log.get(__name__)


class DeadLetterHandler:
    """Handler of the queue `dead_letters`."""

    def __init__(self, database: Database, commands: HostCommands, dropped: Dropped) -> None:
        self._database = database
        self._commands = commands
        self._dropped = dropped

    def on_dead_letter(self, deliveries: list[Delivery]) -> None:
        """Keeps each message. A poisonous `build` counts as refused, without the host's word; the others' rows have
        deadlines."""
        for delivery in deliveries:
            letter = _as_believed(delivery.arguments, delivery.sender)
            record = for_the_record(letter, delivery.context)
            if not self._database.run(cell_db.dead_letters.insert, **record, host=delivery.sender):
                self._dropped.note(str(delivery.sender), DEAD_LETTER.name, "there are letters of it enough")
            else:
                said = requests([record["request_id"]])
                LOG.error(
                    "message given up %s verb=%s queue=%s why=%s",
                    said,
                    record["verb"] or "malformed",
                    record["queue"],
                    record["why"],
                )
            if letter.verb == compute_verbs.BUILD.name:
                self._give_up(letter, delivery.sender)

    def _give_up(self, letter: DeadLetter, sender: str | None) -> None:
        """What one host could not handle is that host's: a `build` of another queue, or given up by another host, says
        nothing of this server.

        `sender`: the host that gave it up, if it was one.
        """
        attempts = _attempts(letter.arguments())
        with self._database.reading() as connection:
            builds = cell_db.builds.building(connection, list(attempts))
        for build in builds:
            is_its_own = letter.queue == compute_verbs.queue(build.host) and sender in (None, build.host)
            if build.attempt == attempts[build.uuid] and is_its_own:
                self._commands.supersede(
                    build, reason=f"the order could not be handled: {letter.why}", host_said_so=False
                )


def _as_believed(letter: DeadLetter, sender: str | None) -> DeadLetter:
    """A host gives up what was in its own queue, and what it sent dies in that of the reports: it speaks of no
    other."""
    if sender is None or letter.queue == access.REPORTS:
        return letter
    return msgspec.structs.replace(letter, queue=compute_verbs.queue(sender))


class _Spec(msgspec.Struct):
    uuid: str


class _Attempt(msgspec.Struct):
    attempt: int
    spec: _Spec


class _Build(msgspec.Struct):
    orders: list[_Attempt]


def _attempts(arguments: Any) -> dict[str, int]:
    """uuid -> attempt of the builds that a message orders: as little as has to be understood of one that nobody
    understood."""
    try:
        build = msgspec.convert(arguments, _Build)
    except msgspec.ValidationError:
        return {}
    return {one.spec.uuid: one.attempt for one in build.orders}
