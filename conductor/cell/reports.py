"""What the hosts report: many reports share a commit, and each is acked only after it.

A report counts only for what is on the host that it names: a row, a cleanup or an operation of another host is not changed by it.
"""

from collections.abc import Sequence

import sqlalchemy as sa

import cell_db.builds
import cell_db.cleanups
import cell_db.endings
import cell_db.heartbeats
import cell_db.operations
import core.log
from cell_db.builds import Building, Ran
from cell_db.cleanups import Cleanup
from clients.placement import Placement
from conductor.cell.orders import Orders
from conductor.cell.watch import Watch
from core.database import Database
from core.steps import Steps
from lifecycle import states
from lifecycle.actions import OPERATIONS
from messaging.listener import Delivery
from messaging.verbs.cell import Acted, Refusal
from objects.host import Heartbeat

LOG = core.log.get(__name__)
BUILD_LEASE_S = 30.0


class Reports:
    """Handlers of the queue `reports`."""

    def __init__(self, database: Database, placement: Placement, orders: Orders, watch: Watch, *, steps: Steps) -> None:
        self._database = database
        self._placement = placement
        self._orders = orders
        self._watch = watch
        self._steps = steps

    # ---- cell.active -------------------------------------------------------------------------------------------------------

    def on_active(self, deliveries: list[Delivery]) -> None:
        """Guests that run. Those that their rows do not know any more are told to go."""
        ran = [
            Ran(server.uuid, server.attempt, delivery.arguments.host, server.power_state)
            for delivery in deliveries
            for server in delivery.arguments.servers
        ]
        with self._steps("cell.active"), self._database.transaction() as connection:
            done = cell_db.builds.active(connection, ran)
            cell_db.heartbeats.build_succeeded(connection, sorted({guest.host for guest in done}))
            unwanted = _superseded(connection, [guest for guest in ran if guest not in done])
        self._orders.destroy(unwanted)

    # ---- agent.cannot -> cell.supersede --------------------------------------------------------------------------------------

    def on_refused(self, deliveries: list[Delivery]) -> None:
        """Attempts that their hosts gave up: nothing of them is there, nor will be."""
        refusals = [(delivery.arguments.host, refusal) for delivery in deliveries for refusal in delivery.arguments.servers]
        with self._database.transaction() as connection:
            builds = {build.uuid: build for build in cell_db.builds.building(connection, [r.uuid for _, r in refusals])}
            mine = [(builds[r.uuid], r) for host, r in refusals if r.uuid in builds and _is_of(builds[r.uuid], host, r)]
            for build, _ in mine:
                cell_db.heartbeats.build_failed(connection, build.host)
        for build, refusal in mine:
            self._orders.supersede(build, reason=f"host {build.host}: {refusal.reason}", host_said_so=True)

    # ---- cell.gone -> cell.release, cell.deleted --------------------------------------------------------------------------------

    def on_gone(self, deliveries: list[Delivery]) -> None:
        """Hosts that have nothing left of an attempt. Was it the last: the claim goes first, then the rows in one commit."""
        for delivery in deliveries:
            answered = [(server.uuid, server.attempt) for server in delivery.arguments.servers]
            self._gone(delivery.arguments.host, answered)

    def _gone(self, host: str, answered: list[tuple[str, int]]) -> None:
        with self._database.reading() as connection:
            ended = cell_db.endings.without_cleanups_but(connection, host, answered)
        for uuid, _ in ended:
            with self._steps("cell.release"):
                self._placement.release(uuid)
        with self._steps("cell.gone"), self._database.transaction() as connection:
            cell_db.endings.gone(connection, host, answered)
            for uuid, state in ended:
                if state == states.GOING:
                    cell_db.endings.deleted(connection, uuid)

    # ---- operations ------------------------------------------------------------------------------------------------------------

    def on_acted(self, deliveries: list[Delivery]) -> None:
        """Operations that ended, well or with a fault."""
        with self._steps("cell.acted"), self._database.transaction() as connection:
            for delivery in deliveries:
                self._settle(connection, delivery.arguments)

    @staticmethod
    def _settle(connection: sa.Connection, acted: Acted) -> None:
        wanted = [outcome.uuid for outcome in acted.outcomes]
        under_way = {operation.uuid: operation for operation in cell_db.operations.operations(connection, wanted)}
        for outcome in acted.outcomes:
            operation = under_way.get(outcome.uuid)
            if operation is None or (operation.operation_id, operation.host) != (outcome.operation_id, acted.host):
                continue
            cell_db.operations.settle_operation(
                connection,
                uuid=outcome.uuid,
                operation_id=outcome.operation_id,
                action=OPERATIONS[operation.operation],
                power_state=outcome.power_state,
                fault=outcome.fault,
                host=acted.host,
                unharmed=outcome.unharmed,
            )

    def on_stages(self, deliveries: list[Delivery]) -> None:
        """How far operations are, for users to see."""
        with self._database.transaction() as connection:
            for delivery in deliveries:
                for stage in delivery.arguments.servers:
                    cell_db.operations.note_step(
                        connection, uuid=stage.uuid, operation_id=stage.operation_id, host=delivery.arguments.host, step=stage.step
                    )

    def on_power_states(self, deliveries: list[Delivery]) -> None:
        """Guests whose power state changed behind our back."""
        with self._database.transaction() as connection:
            for delivery in deliveries:
                for server in delivery.arguments.servers:
                    cell_db.operations.set_power_state(
                        connection, uuid=server.uuid, attempt=server.attempt, host=delivery.arguments.host, power_state=server.power_state
                    )

    # ---- heartbeats --------------------------------------------------------------------------------------------------------------

    def on_heartbeat(self, deliveries: list[Delivery]) -> None:
        """Hosts that live; the latest of each counts, a hello is never skipped."""
        beats: list[Heartbeat] = [delivery.arguments for delivery in deliveries]
        latest = {beat.host: beat for beat in beats}
        greetings = [beat for beat in beats if beat.hello]
        with self._database.transaction() as connection:
            known_nodes = [cell_db.heartbeats.beat(connection, beat) for beat in latest.values()]
            for beat in latest.values():
                held = [(intent.uuid, intent.attempt) for intent in beat.intents]
                cell_db.builds.keep(connection, beat.host, held, lease_s=BUILD_LEASE_S)
        self._watch.heard(any_new=any(known_nodes))
        for greeting in greetings:
            self._greet(greeting)

    def _greet(self, hello: Heartbeat) -> None:
        """A host that starts says what it has: unwanted guests are told to go, missing ones end in ERROR or are sent again.

        The hello may be late: of a server that was launched after the agent's start it says nothing.
        """
        has = {guest.uuid: guest.attempt for guest in hello.guests or []}
        building = {intent.uuid for intent in hello.intents}
        with self._steps("cell.greet"), self._database.transaction() as connection:
            unwanted = _superseded(connection, [Ran(uuid, attempt, hello.host, states.RUNNING) for uuid, attempt in has.items()])
            launched_before = cell_db.heartbeats.start_of(hello)
            for uuid, attempt in cell_db.builds.live_on(connection, hello.host, launched_before=launched_before):
                if uuid not in has and uuid not in building:
                    cell_db.operations.lost_guest(connection, uuid=uuid, attempt=attempt, host=hello.host)
            owed = cell_db.cleanups.list_on(connection, hello.host)
            cell_db.cleanups.told(connection, owed)
        self._orders.destroy([*owed, *unwanted])


def _is_of(build: Building, host: str, refusal: Refusal) -> bool:
    return (build.host, build.attempt) == (host, refusal.attempt)


def _superseded(connection: sa.Connection, guests: Sequence[Ran]) -> list[Cleanup]:
    """Guests of attempts that their rows have given up. A guest that no row knows is not ours to destroy: the audit tells of it."""
    rows = cell_db.builds.attempts(connection, [guest.uuid for guest in guests])
    unwanted = []
    for guest in guests:
        known = rows.get(guest.uuid)
        if known is None:
            LOG.warning("host %s has a guest of %s, which this cell does not know", guest.host, guest.uuid)
        elif _is_over(known, guest):
            unwanted.append(Cleanup(guest.uuid, guest.host, guest.attempt))
    return unwanted


def _is_over(known: tuple[str, int, str | None], guest: Ran) -> bool:
    state, attempt, _ = known
    return attempt > guest.attempt or state in (states.GOING, states.GONE, states.FAILED)
