"""What the hosts report: many reports share a commit, and each is acked only after it.

A report is a claim. Who sent it is known (the listener has compared `arguments.host` with the sender); the rest counts
only for what is on that host: every write names the host that the row, the cleanup or the operation must name. Whatever
else it says is dropped and counted.
"""

import functools
from collections.abc import Callable, Container, Iterable, Mapping, Sequence

import cell_db.builds
import cell_db.cleanups
import cell_db.endings
import cell_db.heartbeats
import cell_db.operations
import core.log
from cell_db.builds import Building, ReportedGuest
from cell_db.cleanups import Cleanup
from cell_db.operations import Operation
from clients.placement import Placement
from conductor.cell.dropped import Dropped
from conductor.cell.host_commands import HostCommands, about_work
from conductor.cell.image_tasks import take_report
from conductor.cell.liveness import ConductorLiveness
from core.crash_points import CrashPoints
from database.engine import Connection, Database
from lifecycle import states
from lifecycle.actions import OPERATIONS
from messaging.listener import Delivery
from messaging.verbs import cell as verbs
from messaging.verbs.cell import Acted, Outcome, Refusal
from objects.host import Heartbeat
from objects.host_limits import heartbeat_defect

LOG = core.log.get(__name__)
BUILD_LEASE_S = 30.0
MAX_REASON = 1000
"""Characters of a host's explanation that are kept."""
NOT_ITS_OWN = "this cell knows no such server, or it is not on this host"
NO_SUCH_STATE = "there is no such power state"


class Reports:
    """Handlers of the queue `reports`."""

    def __init__(
        self,
        database: Database,
        placement: Placement,
        commands: HostCommands,
        liveness: ConductorLiveness,
        *,
        steps: CrashPoints,
        dropped: Dropped | None = None,
    ) -> None:
        self._database = database
        self._placement = placement
        self._commands = commands
        self._liveness = liveness
        self._steps = steps
        self.dropped = dropped or Dropped()

    # ---- cell.active -------------------------------------------------------------------------------------------------

    def on_active(self, deliveries: list[Delivery]) -> None:
        """Guests that run. Those that their rows do not know any more are told to go."""
        said = [
            ReportedGuest(server.uuid, server.attempt, delivery.arguments.host, server.power_state)
            for delivery in deliveries
            for server in delivery.arguments.servers
        ]
        ran = [guest for guest in said if self._is_power_state(guest.host, verbs.ACTIVE.name, guest.power_state)]
        with self._steps("cell.active"):
            done, unwanted = self._database.run(self._note_active, ran)
        for guest in done:
            LOG.info("server is active %s", about_work(guest))
        self._commands.destroy(unwanted)

    def _note_active(
        self, connection: Connection, ran: Sequence[ReportedGuest]
    ) -> tuple[set[ReportedGuest], list[Cleanup]]:
        """Marks the servers as running; gives their guests, and those that have to go."""
        done = cell_db.builds.active(connection, ran)
        cell_db.heartbeats.build_succeeded(connection, sorted({guest.host for guest in done}))
        return done, self._superseded(connection, verbs.ACTIVE.name, [guest for guest in ran if guest not in done])

    # ---- agent.cannot -> cell.supersede ------------------------------------------------------------------------------

    def on_refused(self, deliveries: list[Delivery]) -> None:
        """Attempts that their hosts gave up: nothing of them is there, nor will be."""
        refusals = [
            (delivery.arguments.host, refusal) for delivery in deliveries for refusal in delivery.arguments.servers
        ]
        for build, refusal in self._database.run(self._note_refused, refusals):
            reason = f"host {build.host}: {_short(refusal.reason)}"
            self._commands.supersede(build, reason=reason, host_said_so=refusal.is_fenced)

    def _note_refused(
        self, connection: Connection, refusals: Sequence[tuple[str, Refusal]]
    ) -> list[tuple[Building, Refusal]]:
        """Counts the refusals that their hosts may speak; gives these."""
        builds = {build.uuid: build for build in cell_db.builds.building(connection, [r.uuid for _, r in refusals])}
        mine = {
            r.uuid: (builds[r.uuid], r) for host, r in refusals if r.uuid in builds and _is_of(builds[r.uuid], host, r)
        }
        for build, _ in mine.values():
            cell_db.heartbeats.build_failed(connection, build.host)
        self._drop_foreign(
            connection, verbs.REFUSED.name, [(host, r.uuid, r.attempt) for host, r in refusals if r.uuid not in mine]
        )
        return list(mine.values())

    # ---- cell.gone -> cell.release, cell.deleted ---------------------------------------------------------------------

    def on_gone(self, deliveries: list[Delivery]) -> None:
        """Hosts that have nothing left of an attempt. Was it the last: the claim goes first, then the rows in one
        commit."""
        for delivery in deliveries:
            answered = [(server.uuid, server.attempt) for server in delivery.arguments.servers]
            self._gone(delivery.arguments.host, answered)

    def _gone(self, host: str, answered: list[tuple[str, int]]) -> None:
        with self._database.reading() as connection:
            ended = cell_db.endings.ended_after_reports(connection, host, answered)
            owed = [
                cleanup
                for cleanup in cell_db.cleanups.list_of(connection, [uuid for uuid, _ in answered])
                if cleanup.host == host
            ]
            owed_uuids = {cleanup.uuid for cleanup in owed}
            foreign = [(host, uuid, attempt) for uuid, attempt in answered if uuid not in owed_uuids]
            self._drop_foreign(connection, verbs.GONE.name, foreign)
        for uuid, _ in ended:
            with self._steps("cell.release"):
                self._placement.release(uuid)
        going = [uuid for uuid, state in ended if state == states.BUILD_DELETING]
        with self._steps("cell.gone"):
            self._database.run(_note_gone, host, answered, going)
        _log_gone(owed, dict(sorted(answered)), set(going))

    # ---- operations --------------------------------------------------------------------------------------------------

    def on_acted(self, deliveries: list[Delivery]) -> None:
        """Operations that ended, well or with a fault."""
        with self._steps("cell.acted"):
            result_within = self._database.run(self._settle, [delivery.arguments for delivery in deliveries])
        for operation, outcome in result_within:
            log_ended(operation, outcome.fault)

    def _settle(self, connection: Connection, reported: Sequence[Acted]) -> list[tuple[Operation, Outcome]]:
        """Ends operations as their hosts say; gives those that this has ended."""
        return [result_within for acted in reported for result_within in self._settle_one(connection, acted)]

    def _settle_one(self, connection: Connection, acted: Acted) -> list[tuple[Operation, Outcome]]:
        wanted = [outcome.uuid for outcome in acted.outcomes]
        under_way = {operation.uuid: operation for operation in cell_db.operations.operations(connection, wanted)}
        result_within, late = [], []
        for outcome in acted.outcomes:
            operation = under_way.get(outcome.uuid)
            action = OPERATIONS.get(operation.operation) if operation is not None else None
            if operation is None or action is None or not self._is_believable(acted.host, outcome):
                late.append((acted.host, outcome.uuid, None))
                continue
            fault = None if outcome.fault is None else _short(outcome.fault)
            if operation.host == acted.host and take_report(connection, operation, outcome.operation_id, fault):
                continue  # It ends with its image.
            done = cell_db.operations.settle_operation(
                connection,
                uuid=outcome.uuid,
                operation_id=outcome.operation_id,
                action=action,
                power_state=outcome.power_state,
                fault=fault,
                host=acted.host,
                unharmed=outcome.unharmed,
            )
            if done:
                result_within.append((operation, outcome))
            else:
                late.append((acted.host, outcome.uuid, None))
        self._drop_foreign(connection, verbs.ACTED.name, late)
        return result_within

    def _is_believable(self, host: str, outcome: Outcome) -> bool:
        return outcome.power_state is None or self._is_power_state(host, verbs.ACTED.name, outcome.power_state)

    def on_stages(self, deliveries: list[Delivery]) -> None:
        """How far operations are, for users to see."""

        def note(connection: Connection) -> None:
            for delivery in deliveries:
                host = delivery.arguments.host
                late = [
                    (host, stage.uuid, None)
                    for stage in delivery.arguments.servers
                    if not cell_db.operations.note_step(
                        connection, uuid=stage.uuid, operation_id=stage.operation_id, host=host, step=stage.step
                    )
                ]
                self._drop_foreign(connection, verbs.STAGES.name, late)

        self._database.run(note)

    def on_power_states(self, deliveries: list[Delivery]) -> None:
        """Guests whose power state changed behind our back."""

        def note(connection: Connection) -> None:
            for delivery in deliveries:
                host = delivery.arguments.host
                late = [
                    (host, server.uuid, server.attempt)
                    for server in delivery.arguments.servers
                    if not self._is_power_state(host, verbs.POWER_STATES.name, server.power_state)
                    or not cell_db.operations.set_power_state(
                        connection, uuid=server.uuid, attempt=server.attempt, host=host, power_state=server.power_state
                    )
                ]
                self._drop_foreign(connection, verbs.POWER_STATES.name, late)

        self._database.run(note)

    # ---- heartbeats --------------------------------------------------------------------------------------------------

    def on_heartbeat(self, deliveries: list[Delivery]) -> None:
        """Hosts that live; the latest of each counts, a hello is never skipped. One that says what cannot be was not
        heard."""
        beats = [delivery.arguments for delivery in deliveries if self._is_sane(delivery.arguments)]
        latest = {beat.host: beat for beat in beats}
        hellos = [beat for beat in beats if beat.hello]
        self._liveness.heard(any_new=self._database.run(_note_beats, list(latest.values()), self.dropped.note))
        for hello in hellos:
            self._on_agent_start(hello)

    def _is_sane(self, beat: Heartbeat) -> bool:
        defect = heartbeat_defect(beat)
        if defect is not None:
            self.dropped.note(beat.host, verbs.HEARTBEAT.name, defect)
        return defect is None

    def _on_agent_start(self, hello: Heartbeat) -> None:
        """A host that starts says what it has: unwanted guests are told to go, missing ones end in ERROR or are sent
        again.

        The hello may be late: of a server that was launched after the agent's start it says nothing.
        """
        with self._steps("cell.greet"):
            unwanted = self._database.run(self._note_agent_start, hello)
        self._commands.destroy(unwanted)

    def _note_agent_start(self, connection: Connection, hello: Heartbeat) -> list[Cleanup]:
        """Marks servers whose guests are missing; gives what the host is to destroy."""
        has = {guest.uuid: guest.attempt for guest in hello.guests or []}
        building = {intent.uuid for intent in hello.intents}
        guests = [ReportedGuest(uuid, attempt, hello.host, states.RUNNING) for uuid, attempt in has.items()]
        unwanted = self._superseded(connection, verbs.HEARTBEAT.name, guests)
        launched_before = cell_db.heartbeats.start_of(hello)
        for uuid, attempt in cell_db.builds.live_on(connection, hello.host, launched_before=launched_before):
            if uuid not in has and uuid not in building:
                cell_db.operations.lost_guest(connection, uuid=uuid, attempt=attempt, host=hello.host)
        owed = cell_db.cleanups.list_on(connection, hello.host)
        cell_db.cleanups.told(connection, owed)
        return [*owed, *unwanted]

    # ---- what is dropped ---------------------------------------------------------------------------------------------

    def _superseded(self, connection: Connection, verb: str, guests: Sequence[ReportedGuest]) -> list[Cleanup]:
        """Guests of attempts that their rows have given up. A guest that no row knows is not ours to destroy: the audit
        tells of it."""
        rows = cell_db.builds.attempts(connection, [guest.uuid for guest in guests])
        self._drop_foreign(connection, verb, [(guest.host, guest.uuid, guest.attempt) for guest in guests])
        over = [guest for guest in guests if guest.uuid in rows and _is_over(rows[guest.uuid], guest)]
        return cell_db.cleanups.of_guests(connection, [(guest.uuid, guest.host, guest.attempt) for guest in over])

    def _drop_foreign(self, connection: Connection, verb: str, unused: Iterable[tuple[str, str, int | None]]) -> None:
        """Counts those of the (host, uuid, attempt) that changed nothing which were never that host's to speak of; the
        others came late."""
        said = list(unused)
        if not said:
            return
        rows = cell_db.builds.attempts(connection, [uuid for _, uuid, _ in said])
        for host, uuid, attempt in said:
            if _is_foreign(rows.get(uuid), host, attempt):
                self.dropped.note(host, verb, f"{uuid}: {NOT_ITS_OWN}")

    def _is_power_state(self, host: str, verb: str, power_state: int) -> bool:
        known = power_state in states.POWER_NAMES
        if not known:
            self.dropped.note(host, verb, f"{power_state}: {NO_SUCH_STATE}")
        return known


def _note_gone(connection: Connection, host: str, answered: Sequence[tuple[str, int]], going: Sequence[str]) -> None:
    """Ends the cleanups that the host answered, and with them the servers that were going."""
    cell_db.endings.gone(connection, host, answered)
    for uuid in going:
        cell_db.endings.deleted(connection, uuid)


def _log_gone(owed: Iterable[Cleanup], answered: Mapping[str, int], going: Container[str]) -> None:
    """Says what has gone, under the requests that the cleanups belong to: of a server that was going, its delete."""
    for cleanup in owed:
        if cleanup.attempt <= answered[cleanup.uuid]:
            LOG.info("%s %s", "server deleted" if cleanup.uuid in going else "attempt is gone", about_work(cleanup))


def log_ended(operation: Operation, fault: str | None) -> None:
    """Says that an operation has ended, with a fault or well."""
    if fault is None:
        LOG.info("operation ended %s action=%s", about_work(operation), operation.operation)
    else:
        LOG.warning("operation failed %s action=%s why=%s", about_work(operation), operation.operation, _short(fault))


def _note_beats(connection: Connection, beats: Sequence[Heartbeat], drop: Callable[[str, str, str], None]) -> bool:
    """Notes that the hosts live and what they build; gives whether one of them has begun anew."""
    news = [
        cell_db.heartbeats.beat(connection, beat, drop=functools.partial(drop, beat.host, verbs.HEARTBEAT.name))
        for beat in beats
    ]
    for beat in beats:
        building = [(intent.uuid, intent.attempt) for intent in beat.intents]
        cell_db.builds.renew_leases(connection, beat.host, building, lease_s=BUILD_LEASE_S)
    return any(news)


def _is_of(build: Building, host: str, refusal: Refusal) -> bool:
    return (build.host, build.attempt) == (host, refusal.attempt)


def _is_foreign(known: tuple[str, int, str | None] | None, host: str, attempt: int | None) -> bool:
    """Whether the host could never have said so: the server is on another one, unless the attempt was an older one or
    it has ended."""
    if known is None:
        return True
    state, current, owner = known
    is_late = state in (states.BUILD_DELETED, states.BUILD_ERROR) or (attempt is not None and attempt < current)
    return owner != host and not is_late


def _short(text: str) -> str:
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]}…"


def _is_over(known: tuple[str, int, str | None], guest: ReportedGuest) -> bool:
    state, attempt, _ = known
    return attempt > guest.attempt or state in (states.BUILD_DELETING, states.BUILD_DELETED, states.BUILD_ERROR)
