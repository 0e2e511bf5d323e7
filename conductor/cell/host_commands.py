"""What the conductor tells its hosts: build, destroy, act. Sent after the commit that causes it; a lost one is sent
again by a sweep."""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import msgspec

import cell_db.builds
import cell_db.cleanups
import cell_db.endings
import cell_db.history
import core.errors
import core.log
import messaging.verbs.compute as compute_verbs
from cell_db.builds import Building, ReportedGuest
from cell_db.cleanups import Cleanup
from cell_db.operations import Operation
from clients.placement import Claim, GenerationConflict, NoCapacity, Placement
from conductor.cell.row_frames import row_frame
from core.context import context_of_rows
from core.crash_points import CrashPoints
from core.log import about
from database.engine import Connection, Database
from lifecycle.actions import DELETE
from messaging.broker import NoSuchQueue, TooLarge
from messaging.caller import Caller
from messaging.pieces import send_in_pieces
from messaging.verbs import Verb

LOG = core.log.get(__name__)
Work = Building | Cleanup | Operation
W = TypeVar("W", Building, Cleanup, Operation)
COMMAND_EXPIRES_S = 600.0


class HostCommands:
    """Sends orders to the hosts of the cell."""

    def __init__(
        self, database: Database, placement: Placement, caller: Caller, *, steps: CrashPoints, build_deadline_s: float
    ) -> None:
        self._database = database
        self._placement = placement
        self._caller = caller
        self._steps = steps
        self._build_deadline_s = build_deadline_s

    # ---- build -------------------------------------------------------------------------------------------------------

    def build(self, builds: Sequence[Building]) -> None:
        """Sends attempts to their hosts; for attempts after the first the claim is moved there before. One that cannot
        be read ends in ERROR."""
        for build in builds:
            if build.spec is None:
                last = dataclasses.replace(build, alternates=[])
                self.supersede(last, reason="the record of its order cannot be read", host_said_so=False)
        ready = [build for build in builds if build.spec is not None and (build.attempt == 1 or self._has_claim(build))]
        for host, mine in _by_host(ready).items():
            with self._steps("cell.send"):
                self._send_rows(host, compute_verbs.BUILD, mine, _build)

    def _has_claim(self, build: Building) -> bool:
        """False, too, if Placement refuses what is in its row."""
        with row_frame("claiming for an attempt", about_work(build)):
            return self._claim(build)
        return False

    def _claim(self, build: Building) -> bool:
        """Step cell.claim: the claim follows the row. False: somebody else goes on with this server."""
        claimed = self._placement.read_claim(build.uuid)
        with self._database.reading() as connection:
            now = cell_db.builds.building(connection, [build.uuid])
        if not now or now[0].attempt != build.attempt:
            return False
        if set(claimed.providers) == {build.node_uuid}:
            return True
        claim = Claim(
            uuid=build.uuid, provider_uuid=build.node_uuid, resources=build.resources, project_id=build.project_id,
            user_id=build.user_id, generation=claimed.generation,
        )  # fmt: skip
        try:
            with self._steps("cell.claim"):
                self._placement.claim([claim])
        except GenerationConflict:
            return False
        except NoCapacity as refusal:
            # The order for this attempt may have gone out before a crash: only its host's word would make that sure.
            self.supersede(build, reason=f"host {build.host} is full: {refusal.message}", host_said_so=False)
            return False
        return True

    def supersede(self, build: Building, *, reason: str, host_said_so: bool) -> None:
        """Step cell.supersede: the next alternate takes over (claim and order follow), or the server ends in ERROR."""
        def give_up(connection: Connection) -> tuple[bool, list[Building]]:
            given_up = cell_db.builds.supersede(
                connection, build, reason=reason, host_said_so=host_said_so, build_deadline_s=self._build_deadline_s
            )
            return given_up, cell_db.builds.building(connection, [build.uuid]) if given_up else []

        with self._steps("cell.supersede"):
            given_up, next_attempts = self._database.run(give_up)
        if not given_up:
            return
        LOG.info("attempt given up %s why=%s", about_work(build), reason)
        if next_attempts:
            self.build(next_attempts)
        elif host_said_so:
            self.release_failed(build.uuid)

    def release_failed(self, uuid: str) -> None:
        """Step cell.release for a server in ERROR that no host has to answer for any more."""
        with self._database.reading() as connection:
            if cell_db.cleanups.list_of(connection, [uuid]):
                return
        self.release([uuid])

    def release(self, uuids: Iterable[str]) -> None:
        """Step cell.release: lets go of claims that nobody may claim for any more."""
        for uuid in uuids:
            with row_frame("releasing a claim", about(server=uuid)), self._steps("cell.release"):
                self._placement.release(uuid)

    # ---- destroy -----------------------------------------------------------------------------------------------------

    def destroy(self, cleanups: Sequence[Cleanup]) -> None:
        """Asks hosts to fence off and destroy attempts; they answer `gone`."""
        for host, mine in _by_host(cleanups).items():
            with self._steps("cell.send"):
                self._send_rows(host, compute_verbs.DESTROY, mine, _destroy)

    def end(self, uuids: Iterable[str]) -> None:
        """CrashPoints cell.release and cell.deleted for servers that are going and that no host has to answer for."""
        for uuid in uuids:
            with row_frame("ending a server", about(server=uuid)):
                with self._steps("cell.release"):
                    self._placement.release(uuid)
                # The row goes after its claim, and stays while that stays.
                with self._steps("cell.deleted"):
                    request_id = self._database.run(_end, uuid)
                if request_id is not None:
                    LOG.info("server deleted %s", about(server=uuid, request_id=request_id))

    # ---- act ---------------------------------------------------------------------------------------------------------

    def act(self, operations: Sequence[Operation]) -> None:
        """Sends operations to the hosts of their servers. One that cannot be read ends at its deadline."""
        for operation in operations:
            if not operation.is_readable:
                LOG.error("operation cannot be read and is not sent %s", about_work(operation))
                continue
            with self._steps("cell.send"):
                self._send_rows(operation.host, compute_verbs.ACT, [operation], _act)

    def _send_rows(
        self, host: str, verb: Verb, work: Sequence[W], make: Callable[[Sequence[W]], msgspec.Struct]
    ) -> None:
        send_in_pieces(work, lambda piece: self._send(host, verb, piece, make(piece)))

    def _send(self, host: str, verb: Verb, work: Sequence[Work], arguments: msgspec.Struct) -> None:
        context = context_of_rows(one.request_id for one in work)
        try:
            self._caller.cast(compute_verbs.queue(host), verb, arguments, context=context, deadline_s=COMMAND_EXPIRES_S)
        except NoSuchQueue:
            _log_not_sent(verb, work, "its agent has never run on this broker")
        except TooLarge as error:
            if len(work) > 1:
                raise  # It goes in pieces.
            _log_not_sent(verb, work, error.message)
        except core.errors.Unavailable as error:
            _log_not_sent(verb, work, error.message)
        else:
            for one in work:
                LOG.info("%s sent %s", verb.name, about_work(one))


def _log_not_sent(verb: Verb, work: Sequence[Work], why: str) -> None:
    for one in work:
        LOG.warning("%s not sent %s why=%s", verb.name, about_work(one), why)


def about_work(work: Work | ReportedGuest) -> str:
    """The fields of a line about it in the log."""
    return about(server=work.uuid, attempt=work.attempt, host=work.host, request_id=work.request_id)


def _build(builds: Sequence[Building]) -> compute_verbs.Build:
    return compute_verbs.Build(
        [
            compute_verbs.BuildAttempt(build.attempt, build.spec, request_id=build.request_id)
            for build in builds
            if build.spec is not None
        ]
    )


def _destroy(cleanups: Sequence[Cleanup]) -> compute_verbs.Destroy:
    farewells = [
        compute_verbs.DestroyAttempt(cleanup.uuid, cleanup.attempt, request_id=cleanup.request_id)
        for cleanup in cleanups
    ]
    return compute_verbs.Destroy(farewells)


def _act(operations: Sequence[Operation]) -> compute_verbs.Act:
    """Of one operation: each goes by itself."""
    (operation,) = operations
    return compute_verbs.Act(
        uuid=operation.uuid, attempt=operation.attempt, operation_id=operation.operation_id, action=operation.operation,
        arguments=operation.arguments, vm_state=operation.vm_state, spec=operation.spec,
        request_id=operation.request_id,
    )  # fmt: skip


def _end(connection: Connection, uuid: str) -> str | None:
    """Marks the server as gone; gives the id of the request that deleted it, or None if it was gone already."""
    if not cell_db.endings.deleted(connection, uuid):
        return None
    return cell_db.history.request_ids(connection, [uuid], [DELETE.name]).get(uuid, "")


def _by_host(work: Iterable[W]) -> dict[str, list[W]]:
    by_host: dict[str, list[W]] = collections.defaultdict(list)
    for one in work:
        by_host[one.host].append(one)
    return by_host
