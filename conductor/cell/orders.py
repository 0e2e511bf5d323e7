"""What the conductor tells its hosts: build, destroy, act. Sent after the commit that causes it; a lost one is sent again by a sweep."""

import collections
import dataclasses
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import msgspec
import sqlalchemy as sa

import cell_db.builds
import cell_db.cleanups
import cell_db.endings
import core.errors
import core.log
import messaging.verbs.compute as compute_verbs
from cell_db.builds import Building
from cell_db.cleanups import Cleanup
from cell_db.operations import Operation
from clients.placement import Claim, GenerationConflict, NoCapacity, Placement
from conductor.cell.apart import apart
from core.context import service_context
from core.database import Database
from core.steps import Steps
from messaging.broker import NoSuchQueue
from messaging.caller import Caller
from messaging.pieces import send_in_pieces
from messaging.verbs import Verb

LOG = core.log.get(__name__)
T = TypeVar("T")
ORDER_EXPIRES_S = 600.0


class Orders:
    """Sends orders to the hosts of the cell."""

    def __init__(self, database: Database, placement: Placement, caller: Caller, *, steps: Steps, build_deadline_s: float) -> None:
        self._database = database
        self._placement = placement
        self._caller = caller
        self._steps = steps
        self._build_deadline_s = build_deadline_s

    # ---- build -------------------------------------------------------------------------------------------------------------

    def build(self, builds: Sequence[Building]) -> None:
        """Sends attempts to their hosts; for attempts after the first the claim is moved there before. One that cannot be read ends in ERROR."""
        for build in builds:
            if build.spec is None:
                last = dataclasses.replace(build, alternates=[])
                self.supersede(last, reason="the record of its order cannot be read", host_said_so=False)
        ready = [build for build in builds if build.spec is not None and (build.attempt == 1 or self._has_claim(build))]
        for host, mine in _by_host(ready, lambda build: build.host).items():
            orders = [compute_verbs.Order(attempt=build.attempt, spec=build.spec) for build in mine if build.spec is not None]
            with self._steps("cell.send"):
                self._send_rows(host, compute_verbs.BUILD, orders, compute_verbs.Build)

    def _has_claim(self, build: Building) -> bool:
        """False, too, if Placement refuses what is in its row."""
        with apart("claiming for an attempt", build.uuid):
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
        def give_up(connection: sa.Connection) -> tuple[bool, list[Building]]:
            given_up = cell_db.builds.supersede(
                connection, build, reason=reason, host_said_so=host_said_so, build_deadline_s=self._build_deadline_s
            )
            return given_up, cell_db.builds.building(connection, [build.uuid]) if given_up else []

        with self._steps("cell.supersede"):
            given_up, next_attempts = self._database.run(give_up)
        if not given_up:
            return
        LOG.info("attempt %d of server %s on host %s is given up: %s", build.attempt, build.uuid, build.host, reason)
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
            with apart("releasing a claim", uuid), self._steps("cell.release"):
                self._placement.release(uuid)

    # ---- destroy -----------------------------------------------------------------------------------------------------------

    def destroy(self, cleanups: Sequence[Cleanup]) -> None:
        """Asks hosts to fence off and destroy attempts; they answer `gone`."""
        for host, mine in _by_host(cleanups, lambda cleanup: cleanup.host).items():
            farewells = [compute_verbs.Farewell(cleanup.uuid, cleanup.attempt) for cleanup in mine]
            with self._steps("cell.send"):
                self._send_rows(host, compute_verbs.DESTROY, farewells, compute_verbs.Destroy)

    def end(self, uuids: Iterable[str]) -> None:
        """Steps cell.release and cell.deleted for servers that are going and that no host has to answer for."""
        for uuid in uuids:
            with apart("ending a server", uuid):
                with self._steps("cell.release"):
                    self._placement.release(uuid)
                # The row goes after its claim, and stays while that stays.
                with self._steps("cell.deleted"):
                    self._database.run(cell_db.endings.deleted, uuid)

    # ---- act ---------------------------------------------------------------------------------------------------------------

    def act(self, operations: Sequence[Operation]) -> None:
        """Sends operations to the hosts of their servers. One that cannot be read ends at its deadline."""
        for operation in operations:
            if not operation.is_readable:
                LOG.error("the operation of server %s cannot be read and is not sent", operation.uuid)
                continue
            order = compute_verbs.Act(
                uuid=operation.uuid, attempt=operation.attempt, operation_id=operation.operation_id, action=operation.operation,
                arguments=operation.arguments, vm_state=operation.vm_state,
                spec=operation.spec,
            )  # fmt: skip
            with self._steps("cell.send"):
                self._send_rows(operation.host, compute_verbs.ACT, [order], operator.itemgetter(0))

    def _send_rows(self, host: str, verb: Verb, rows: Sequence[T], make: Callable[[list[T]], msgspec.Struct]) -> None:
        send_in_pieces(rows, lambda piece: self._send(host, verb, make(list(piece))))

    def _send(self, host: str, verb: Verb, arguments: msgspec.Struct) -> None:
        try:
            self._caller.cast(compute_verbs.queue(host), verb, arguments, context=service_context(), deadline_s=ORDER_EXPIRES_S)
        except NoSuchQueue:
            LOG.warning("host %s has no queue: its agent has never run on this broker", host)
        except core.errors.Unavailable as error:
            LOG.warning("%s could not be sent to host %s: %s", verb.name, host, error.message)


def _by_host(things: Iterable[T], host_of: Callable[[T], str]) -> dict[str, list[T]]:
    by_host: dict[str, list[T]] = collections.defaultdict(list)
    for thing in things:
        by_host[host_of(thing)].append(thing)
    return by_host
