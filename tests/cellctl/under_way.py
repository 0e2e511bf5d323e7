"""What is under way in a cloud: orders, builds, cleanups and dead letters, written as the conductors would have written
them."""

import datetime
import uuid as uuids
from typing import Any

import msgspec
import sqlalchemy as sa

import api_db.dead_letters
import api_db.journal
import api_db.tables
import cell_db.builds
import cell_db.dead_letters
import cell_db.endings
import cell_db.tables
from api_db.journal import Assignment
from core.clock import utcnow
from core.context import new_request_id
from database.types import now_sql
from messaging import envelopes
from messaging.broker import WORK, Broker
from objects.build import BuildSpec, Flavor
from objects.build_request import BuildRequest, RequestSpec
from objects.candidate import Candidate
from tests.cellctl.terminal import Terminal

FLAVOR = Flavor(flavor_id="tiny", name="m1.tiny", vcpus=1, memory_mib=64, root_gib=1)
NODES = {host: str(uuids.uuid5(uuids.NAMESPACE_DNS, host)) for host in ("east-1", "east-2", "west-1")}
LIMITS = {"instances": 10, "cores": 20, "ram": 51200}


class UnderWay:
    """Writes into the databases of a terminal's cloud."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    # ---- builds ------------------------------------------------------------------------------------------------------

    def accepted(self) -> str:
        """A server that the API has accepted."""
        build = BuildSpec(
            uuid=str(uuids.uuid4()),
            project_id="demo",
            user_id="alice",
            name="one",
            hostname="one",
            flavor=FLAVOR,
            user_data="c2VjcmV0",
        )
        order = BuildRequest(build=build, request_id=new_request_id(), created_at=utcnow())
        request = RequestSpec(project_id="demo", user_id="alice")
        with self._terminal.opened("api").transaction() as connection:
            api_db.journal.accept(
                connection, request=request, request_uuid=str(uuids.uuid4()), requested=[order], quota_defaults=LIMITS,
                not_after=datetime.timedelta(hours=1),
            )  # fmt: skip
        return order.uuid

    def leased(self, uuid: str) -> str:
        """A super-conductor holds its order; the token."""
        with self._terminal.opened("api").transaction() as connection:
            return str(api_db.journal.lease(connection, seconds=60, most=1, uuids_wanted=[uuid])[0].token)

    def assigned(self, cell: str = "east") -> str:
        """A server that is assigned to the cell, which has no row yet."""
        uuid = self.accepted()
        token = self.leased(uuid)
        candidates = [_candidate("east-1"), _candidate("east-2")]
        assignment = Assignment(
            uuid=uuid,
            token=token,
            project_id="demo",
            cell_uuid=self._terminal.uuid_of(cell),
            host="east-1",
            alternates=candidates,
        )
        with self._terminal.opened("api").transaction() as connection:
            assert api_db.journal.assign(connection, [assignment]) == {uuid}
        return uuid

    def building(self, cell: str = "east") -> str:
        """A server that the cell builds, on its first host."""
        uuid = self.assigned(cell)
        with self._terminal.opened("api").transaction() as connection:
            entry = api_db.journal.find(connection, uuid)
        assert entry is not None
        assert entry.build_request is not None
        row = cell_db.builds.NewInstance(
            build_request=entry.build_request, host="east-1", node_uuid=NODES["east-1"], hypervisor_hostname="east-1",
            availability_zone=None, alternates=[_candidate("east-2")], resources={"VCPU": 1}, not_after=entry.not_after,
        )  # fmt: skip
        with self._terminal.opened(cell).transaction() as connection:
            cell_db.builds.insert(connection, [row], build_deadline_s=600)
        with self._terminal.opened("api").transaction() as connection:
            api_db.journal.drop(connection, [(uuid, str(entry.token))])
        return uuid

    def deleted(self, uuid: str) -> None:
        """Its owner has deleted it; its cell does not know yet."""
        with self._terminal.opened("api").transaction() as connection:
            api_db.journal.request_delete(connection, uuid=uuid, lease_s=5)

    def going(self, uuid: str, cell: str = "east") -> None:
        """Its cell knows that it is deleted; its host has not answered."""
        with self._terminal.opened(cell).transaction() as connection:
            cell_db.endings.tombstone(connection, uuid=uuid, project_id="demo", user_id="alice", is_cell0=False)

    def holds_lease(self, uuid: str, cell: str = "east") -> None:
        """A conductor of the cell looks after the server."""
        table = cell_db.tables.instances
        with self._terminal.opened(cell).transaction() as connection:
            connection.execute(
                sa.update(table).where(table.c.uuid == uuid).values(token=str(uuids.uuid4()), lease_until=now_sql(60))
            )

    def row(self, where: str, table: sa.Table, uuid: str) -> Any:
        """A row of a database by the server's uuid; None if there is none."""
        with self._terminal.opened(where).reading() as connection:
            return connection.execute(sa.select(table).where(table.c.uuid == uuid)).first()

    def instance(self, uuid: str, cell: str = "east") -> Any:
        return self.row(cell, cell_db.tables.instances, uuid)

    def order(self, uuid: str) -> Any:
        return self.row("api", api_db.tables.build_requests, uuid)

    def cleanup(self, uuid: str, cell: str = "east") -> Any:
        return self.row(cell, cell_db.tables.cleanups, uuid)

    # ---- messages ----------------------------------------------------------------------------------------------------

    def letter(self, where: str, verb: str, arguments: Any, *, queue: str = "conductor") -> str:
        """A message that was given up; what commands call it."""
        kept = api_db.dead_letters if where == "api" else cell_db.dead_letters
        with self._terminal.opened(where).transaction() as connection:
            kept.insert(
                connection, verb=verb, queue=queue, arguments=arguments, why="it was poison", request_id="req-1"
            )
            return f"{where}:{kept.list_all(connection)[0].id}"


class Listening:
    """The queues of a cloud's brokers as their conductors would have declared them."""

    def __init__(self, *names: str) -> None:
        self._brokers = {name: Broker(f"inproc://{name}") for name in names}
        for broker in self._brokers.values():
            for queue in ("conductor", "reports"):
                broker.declare(queue, WORK)
                broker.purge(queue)

    def waiting(self, name: str, queue: str = "conductor") -> int:
        """How many messages wait there."""
        return self._brokers[name].waiting(queue) or 0

    def taken(self, name: str, queue: str = "conductor") -> list[tuple[str, Any]]:
        """Takes the messages that wait there: verb and arguments of each."""
        bodies: list[bytes] = []
        number = self.waiting(name, queue)
        link = self._brokers[name].open(heartbeats=False)
        try:
            link.consume(queue, prefetch=100, no_ack=True, callback=lambda raw: bodies.append(raw.body))
            while len(bodies) < number:
                link.drain(1.0)
        finally:
            link.close()
        return [_said(body) for body in bodies]

    def close(self) -> None:
        for broker in self._brokers.values():
            broker.close()


def _said(body: bytes) -> tuple[str, Any]:
    envelope = envelopes.decode(body, envelopes.Envelope)
    return envelope.verb, msgspec.json.decode(bytes(envelope.arguments))


def _candidate(host: str) -> Candidate:
    return Candidate(host=host, node_uuid=NODES[host], hypervisor_hostname=host, resources={"VCPU": 1})
