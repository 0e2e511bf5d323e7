"""Messages that a listener gave up after several deliveries: kept in a table, and the work they stand for is ended."""

import json
from typing import Any

import cell_db.dead_letters
import cell_db.instances
import core.log
import messaging.verbs.compute as compute_verbs
from conductor.cell.orders import Orders
from core.database import Database
from messaging.dead_letters import DeadLetter
from messaging.listener import Delivery

LOG = core.log.get(__name__)
SECRETS = frozenset({"user_data", "admin_pass", "password", "public_key"})
MASK = "***"


class Poison:
    """Handler of the queue `dead_letters`."""

    def __init__(self, database: Database, orders: Orders) -> None:
        self._database = database
        self._orders = orders

    def on_dead_letter(self, deliveries: list[Delivery]) -> None:
        """Keeps each message. A poisonous `build` counts as refused, without the host's word; the others' rows have deadlines."""
        for delivery in deliveries:
            letter: DeadLetter = delivery.arguments
            verb = letter.envelope.verb if letter.envelope else ""
            arguments = json.loads(bytes(letter.envelope.arguments)) if letter.envelope else {"body": letter.body}
            with self._database.transaction() as connection:
                cell_db.dead_letters.insert(
                    connection, verb=verb, queue=letter.queue, arguments=masked(arguments), why=letter.why,
                    request_id=delivery.context.request_id,
                )  # fmt: skip
            LOG.error("a %s message of queue %s was given up: %s", verb or "malformed", letter.queue, letter.why)
            if verb == compute_verbs.BUILD.name:
                self._give_up(arguments, letter.why)

    def _give_up(self, arguments: dict[str, Any], why: str) -> None:
        attempts = {order["spec"]["uuid"]: order["attempt"] for order in arguments.get("orders", ())}
        with self._database.reading() as connection:
            builds = cell_db.instances.building(connection, list(attempts))
        for build in builds:
            if build.attempt == attempts[build.uuid]:
                self._orders.supersede(build, reason=f"the order could not be handled: {why}", host_said_so=False)


def masked(value: Any) -> Any:
    """The value with everything secret in it replaced."""
    if isinstance(value, dict):
        return {key: MASK if key in SECRETS and item else masked(item) for key, item in value.items()}
    if isinstance(value, list):
        return [masked(item) for item in value]
    return value
