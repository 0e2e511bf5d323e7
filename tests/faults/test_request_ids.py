"""A request id goes with the work to the last process and back: each row has its own, however many requests share a
message."""

import asyncio
import dataclasses
import logging
import uuid
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import sqlalchemy as sa

import api_db.instances
import api_db.tables
import cell_db.operations
import cell_db.tables
import messaging.verbs.cell as cell_verbs
import messaging.verbs.compute as compute_verbs
from cells.delete_server import delete_server
from cells.gate.answers import value_of
from conductor.cell.wakeups import Wakeups
from core.context import new_request_id
from database.types import now_sql
from lifecycle import states
from lifecycle.actions import OPERATIONS
from messaging.verbs import Verb
from objects.host import Attempt
from tests.faults.harness import CELL, Agent, Harness, Message
from tests.faults.world import USER

# Placement's own libraries, called in this process, use what Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

FORGED = "req-somebody's server=another \x1b[2J\n" + "x" * 1000


class Requests:
    """Servers of one request each, all on one host."""

    def __init__(self, harness: Harness, log: pytest.LogCaptureFixture) -> None:
        self.harness, self._log = harness, log
        self.host = harness.hosts[0]
        self.servers: list[str] = []

    @property
    def agent(self) -> Agent:
        return self.harness.agents[self.host]

    def accept(self, number: int) -> dict[str, str]:
        """Orders so many; server -> request id, as the journal has it."""
        for _ in range(number):
            self.servers += self.harness.world.accept(host=self.host, hint=False)
        rows = self.harness.world.rows("api", api_db.tables.build_requests)
        return {row.uuid: row.instance["request_id"] for row in rows if row.uuid in self.servers}

    def start(self) -> None:
        """The super-conductor hands them over, and their cell's conductor takes them up."""
        self.harness.place().run()
        self.harness.let_leases_end()
        self.harness.sweeps.builds()

    def message(self, verb: Verb) -> Message:
        """The only one of this verb."""
        (message,) = [message for message in self.harness.post.messages if message.verb is verb]
        return message

    def deliver(self, verb: Verb) -> None:
        for message in [message for message in self.harness.post.messages if message.verb is verb]:
            self.harness.deliver(message).run()

    def build(self) -> None:
        self.deliver(compute_verbs.BUILD)
        while job := self.agent.lines.next():
            job()
        self.deliver(cell_verbs.ACTIVE)

    def delete(self, server: str) -> str:
        """An API process deletes it; the request's id."""
        context = dataclasses.replace(USER, request_id=new_request_id())
        mapping = value_of(self.harness.world.api_db.read_now(api_db.instances.get, server))
        asyncio.run(delete_server(self.harness.world, context, mapping, self.harness.steps))
        return context.request_id

    def act(self, server: str, key: str) -> str:
        """A user asks for an operation; the request's id."""
        context = dataclasses.replace(USER, request_id=new_request_id())
        gate = self.harness.world.cells.by_name(CELL)
        value_of(
            gate.write_now(
                cell_db.operations.begin_operation, server, OPERATIONS[key], context, arguments={}, deadline_s=600.0
            )
        )
        return context.request_id

    def lines(self, logger: str, request_id: str) -> list[str]:
        """What a part of the cloud has said about a request."""
        return [
            record.getMessage()
            for record in self._log.records
            if record.name.startswith(logger) and request_id in record.getMessage()
        ]


@pytest.fixture
def requests(harness: Harness, caplog: pytest.LogCaptureFixture) -> Iterator[Requests]:
    caplog.set_level(logging.INFO)
    harness.post.echoes = False
    requests = Requests(harness, caplog)
    yield requests
    for agent in harness.agents.values():
        agent.refuse(False)
    for server in requests.servers:
        harness.wipe(server)


def ids(rows: list[Any]) -> set[str]:
    return {row.request_id for row in rows}


def test_two_requests_servers_share_their_messages_and_keep_their_ids(requests: Requests) -> None:
    created = requests.accept(2)
    requests.start()

    order = requests.message(compute_verbs.BUILD)
    assert {row.spec.uuid: row.request_id for row in order.arguments.orders} == created
    assert order.context.request_id not in created.values()
    requests.build()
    deleted = {server: requests.delete(server) for server in created}
    requests.harness.let_leases_end()
    requests.harness.sweeps.cleanups()
    farewell = requests.message(compute_verbs.DESTROY)
    assert {row.uuid: row.request_id for row in farewell.arguments.servers} == deleted
    for row in farewell.arguments.servers:
        # One by one: on the harness nobody else is at work while a message is held.
        requests.harness.deliver(Message(farewell.queue, compute_verbs.DESTROY, compute_verbs.Destroy([row]))).run()
    said = [
        row
        for message in requests.harness.post.messages
        if message.verb is cell_verbs.GONE
        for row in message.arguments.servers
    ]
    requests.deliver(cell_verbs.GONE)

    assert {row.uuid: row.request_id for row in said} == deleted
    for server, request_id in created.items():
        for logger in ("conductor.superconductor", "conductor.cell", "compute"):
            lines = requests.lines(logger, request_id)
            assert lines and all(f"server={server}" in line and f"request_id={request_id}" in line for line in lines), (
                logger,
                lines,
            )
    for server, request_id in deleted.items():
        for logger in ("conductor.cell", "compute"):
            lines = requests.lines(logger, request_id)
            assert lines and all(f"server={server}" in line and f"request_id={request_id}" in line for line in lines), (
                logger,
                lines,
            )


def test_servers_of_one_request_have_a_message_under_its_id(requests: Requests) -> None:
    [request_id] = requests.accept(1).values()

    requests.start()

    assert requests.message(compute_verbs.BUILD).context.request_id == request_id


def test_work_that_is_sent_again_goes_on_under_its_request(requests: Requests) -> None:
    [(server, request_id)] = requests.accept(1).items()
    requests.start()
    requests.harness.post.messages.clear()  # lost

    requests.harness.let_leases_end()
    requests.harness.sweeps.builds()

    assert ids(requests.message(compute_verbs.BUILD).arguments.orders) == {request_id}
    requests.build()
    stop = requests.act(server, "stop")
    requests.harness.let_leases_end()
    requests.harness.sweeps.operations()
    assert requests.message(compute_verbs.ACT).arguments.request_id == stop
    assert len(requests.lines("conductor.cell", stop)) == 1


def test_a_hint_s_work_has_the_id_of_its_row(requests: Requests) -> None:
    """Wakeups of several requests are handled together, and may come from a sweep."""
    created = requests.accept(2)
    requests.harness.place().run()

    hints = Wakeups(requests.harness.database, requests.harness.commands, steps=requests.harness.steps)  # type: ignore[arg-type]
    hints.on_start([Message("conductor", cell_verbs.START, cell_verbs.Uuids(list(created)))])  # type: ignore[list-item]

    assert ids(requests.message(compute_verbs.BUILD).arguments.orders) == set(created.values())


def test_the_next_attempt_and_the_end_of_the_last_one_are_the_same_request_s(requests: Requests) -> None:
    [server] = requests.harness.world.accept(hint=False)
    requests.servers.append(server)
    [request_id] = requests.accept(0).values()
    requests.start()
    first = requests.message(compute_verbs.BUILD)
    requests.host = first.queue.removeprefix("compute.")
    requests.agent.refuse(True)
    requests.build()

    refusal = requests.message(cell_verbs.REFUSED)
    assert ids(refusal.arguments.servers) == {request_id}
    requests.deliver(cell_verbs.REFUSED)

    order = requests.message(compute_verbs.BUILD)
    assert (order.queue != first.queue, ids(order.arguments.orders)) == (True, {request_id})
    requests.harness.agents[requests.host].refuse(False)
    requests.host = order.queue.removeprefix("compute.")
    requests.build()
    # The first host turns out to have a guest all the same.
    late = cell_verbs.Active(first.queue.removeprefix("compute."), [cell_verbs.Built(server, 1, states.RUNNING)])
    requests.harness.deliver(Message(cell_verbs.REPORTS, cell_verbs.ACTIVE, late)).run()
    assert ids(requests.message(compute_verbs.DESTROY).arguments.servers) == {request_id}


def test_an_agent_that_starts_again_goes_on_under_the_request(requests: Requests) -> None:
    [request_id] = requests.accept(1).values()
    requests.start()
    requests.deliver(compute_verbs.BUILD)

    requests.agent.restart()
    while job := requests.agent.lines.next():
        job()

    assert ids(requests.message(cell_verbs.ACTIVE).arguments.servers) == {request_id}
    assert any(line.startswith("build ended") for line in requests.lines("compute", request_id))


def test_what_a_host_says_of_a_request_is_not_believed(requests: Requests) -> None:
    """The conductor's log has the id of its own row, and nothing of the host's."""
    [(server, request_id)] = requests.accept(1).items()
    requests.start()
    requests.harness.post.messages.clear()
    operation = str(uuid.uuid4())

    for verb, arguments in (
        (cell_verbs.ACTIVE, cell_verbs.Active(requests.host, [cell_verbs.Built(server, 1, states.RUNNING, FORGED)])),
        (
            cell_verbs.STAGES,
            cell_verbs.Stages(requests.host, [cell_verbs.Stage(server, operation, states.IMAGE_UPLOADING, FORGED)]),
        ),
        (cell_verbs.ACTED, cell_verbs.Acted(requests.host, [cell_verbs.Outcome(server, operation, request_id=FORGED)])),
        (
            cell_verbs.REFUSED,
            cell_verbs.Refused(requests.host, [cell_verbs.Refusal(server, 1, "no", request_id=FORGED)]),
        ),
        (cell_verbs.GONE, cell_verbs.Gone(requests.host, [Attempt(server, 1, FORGED)])),
    ):
        requests.harness.deliver(Message(cell_verbs.REPORTS, verb, arguments)).run()
    deleted = requests.delete(server)
    requests.harness.deliver(
        Message(cell_verbs.REPORTS, cell_verbs.GONE, cell_verbs.Gone(requests.host, [Attempt(server, 1, FORGED)]))
    ).run()

    assert [line for line in requests.lines("conductor.cell", request_id) if line.startswith("server is active")]
    assert [line for line in requests.lines("conductor.cell", deleted) if line.startswith("server deleted")]
    assert requests.lines("conductor", "somebody") == requests.lines("conductor", "xxxx") == []


def test_a_row_that_cannot_be_worked_on_is_named_with_its_request(requests: Requests) -> None:
    [(server, request_id)] = requests.accept(1).items()
    requests.start()
    instances = cell_db.tables.instances
    with requests.harness.database.transaction() as connection:
        connection.execute(sa.update(instances).where(instances.c.uuid == server).values(deadline=now_sql(-1.0)))

    with mock.patch.object(requests.harness.commands, "supersede", side_effect=ValueError("no such thing")):
        requests.harness.sweeps.builds()

    assert [
        line for line in requests.lines("conductor.cell.row_frames", request_id) if f"server={server} attempt=1" in line
    ]
