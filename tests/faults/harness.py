"""One cell's parts on a harness, without listeners and threads of their own: a test decides who does what, and when."""

import asyncio
import dataclasses
import pathlib
import random
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import msgspec
import sqlalchemy as sa

import api_db.instances
import api_db.tables
import cell_db.heartbeats
import cell_db.hosts
import cell_db.tables
import messaging.verbs.cell as cell_verbs
import messaging.verbs.compute as compute_verbs
from cells.delete_server import delete_server
from cells.gate.answers import value_of
from clients.placement import Placement
from compute.actions.build import Builds
from compute.actions.destroy import Destroys
from compute.agent_context import AgentContext, Deadlines
from compute.deadline import Deadline
from compute.records import Records
from compute.resources.images import ImageFiles, Room
from compute.resources.power import KnownPowerStates
from compute.resources.tracker import Tracker
from compute.simulated.driver.hypervisor import SimulatedHypervisor
from compute.simulated.fault_injection import turn
from conductor.cell.host_commands import HostCommands
from conductor.cell.liveness import ConductorLiveness
from conductor.cell.reports import Reports
from conductor.cell.sweeps import Sweeps
from conductor.superconductor.build_inserts import BuildInserts
from conductor.superconductor.builds import BuildHandler
from conductor.superconductor.claim_sweep import ClaimSweep
from conductor.superconductor.deletes import DeleteHandler
from conductor.superconductor.host_selector import HostSelector
from conductor.superconductor.journal_worker import JournalWorker
from core.clock import SystemClock
from core.context import Context, service_context
from database.types import now_sql
from messaging.verbs import Verb
from objects.build import Guest
from objects.host import Attempt, Heartbeat, Inventory, Usage, node_uuid
from scheduler.hosts import HostState
from scheduler.view import HostView
from tests.faults.single_steps import SingleSteps, SteppedServers, Worker
from tests.faults.world import USER, World

CELL = "east"
HOSTS = 3
FOREVER_S = 1e6
MAX_ATTEMPTS = 99
MAX_MESSAGES = 12


@dataclasses.dataclass
class Message:
    """One message on the cell's broker; it goes when whoever handles it has acked it."""

    queue: str
    verb: Verb
    arguments: Any
    context: Context = dataclasses.field(default_factory=service_context)
    handler: Worker | None = None
    is_late: bool = False

    @property
    def in_hand(self) -> bool:
        """Whether somebody is at it."""
        return self.handler is not None and not self.handler.has_ended

    def ack(self) -> None:
        """As `messaging.listener.Delivery`; here the message goes when its worker has ended well."""

    def __str__(self) -> str:
        return f"{self.verb.name} to {self.queue}"


class SentMessages:
    """The cell's broker: what is sent lies here until the test has it delivered.

    `echoes`: it doubles each message, and the second one comes late.
    """

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.echoes = False

    def cast(
        self, queue: str, verb: Verb, arguments: msgspec.Struct, *, context: Context, deadline_s: float = 0.0
    ) -> None:
        """As `messaging.caller.Caller`."""
        self.messages.append(Message(queue, verb, arguments, context))
        if self.echoes and len(self.messages) < MAX_MESSAGES:
            self.messages.append(Message(queue, verb, arguments, context, is_late=True))


class DirectReporter:
    """As `compute.reporter.Reporter`, but each report leaves at once, in the thread that makes it."""

    def __init__(self, host: str, post: SentMessages, steps: SingleSteps) -> None:
        self._host, self._post, self._steps = host, post, steps

    def report(self, verb: Verb, key: Hashable, row: Any, confirmed: Callable[[], None] | None = None) -> None:
        """One row, one message."""
        with self._steps("agent.gone" if verb is cell_verbs.GONE else "agent.report"):
            arguments: dict[Verb, Any] = {
                cell_verbs.ACTIVE: cell_verbs.Active,
                cell_verbs.REFUSED: cell_verbs.Refused,
                cell_verbs.GONE: cell_verbs.Gone,
            }
            self._post.cast(cell_verbs.REPORTS, verb, arguments[verb](self._host, [row]), context=service_context())
        if confirmed:
            confirmed()

    def report_now(self, verb: Verb, rows: Iterable[tuple[Hashable, Any]], *, deadline_s: float) -> None:
        """Each row at once."""
        for key, row in rows:
            self.report(verb, key, row)

    @staticmethod
    def is_waiting(_: Verb, __: Hashable) -> bool:
        """Nothing ever waits."""
        return False


class Lines:
    """As `compute.work_queues.WorkQueues`, but what is put in line waits until the test has it done."""

    def __init__(self) -> None:
        self.jobs: list[tuple[str, Callable[[], None]]] = []
        self.busy: set[str] = set()

    def submit(self, line: str, job: Callable[[], None]) -> bool:
        """Puts the job in line."""
        self.jobs.append((line, job))
        return True

    def has(self, line: str) -> bool:
        """Whether a job of the line waits or is under way."""
        return line in self.busy or any(name == line for name, _ in self.jobs)

    def next(self) -> Callable[[], None] | None:
        """The next job whose line is free."""
        for number, (line, job) in enumerate(self.jobs):
            if line not in self.busy:
                del self.jobs[number]
                return lambda: self._do(line, job)
        return None

    def _do(self, line: str, job: Callable[[], None]) -> None:
        self.busy.add(line)
        try:
            job()
        finally:
            self.busy.discard(line)


class Agent:
    """A host's agent, rebuilt from what is on its disk as often as it is killed."""

    def __init__(self, host: str, folder: pathlib.Path, post: SentMessages, steps: SingleSteps) -> None:
        self.host = host
        self._folder, self._post, self._steps = folder, post, steps
        self.hypervisor = SimulatedHypervisor(folder / "guests" / host)
        self.hypervisor.open(lambda: None)
        self._boots = 0
        self._begin()

    def _begin(self) -> None:
        self._boots += 1
        self.records = Records(self._folder / host_folder(self.host))
        self.records.open()
        self.lines = Lines()
        host = AgentContext(
            name=self.host,
            hypervisor=self.hypervisor,
            records=self.records,
            reporter=DirectReporter(self.host, self._post, self._steps),  # type: ignore[arg-type]
            servers=SteppedServers(self._steps),  # type: ignore[arg-type]
            tracker=Tracker(lambda: inventory_of(self.host), self.hypervisor.guests.all),
            images=ImageFiles(
                self._folder / "images",
                None,
                room=Room(most_bytes=2**30, keep_free_bytes=0),
                in_use=tuple,
                download_s=1.0,
            ),
            power=KnownPowerStates(),
            steps=self._steps,
            deadlines=Deadlines(build_s=FOREVER_S, operation_s=FOREVER_S, destroy_s=FOREVER_S),
        )
        self.builds = Builds(host, self.lines)  # type: ignore[arg-type]
        self.destroys = Destroys(host, self.lines)  # type: ignore[arg-type]

    def restart(self) -> None:
        """Another agent process on the same disk; it says hello and goes on."""
        self.records.close()
        self._begin()
        self.builds.go_on()
        self.say_hello()

    def say_hello(self) -> None:
        """Tells what is here."""
        intents = [Attempt(intent.uuid, intent.attempt) for intent in self.records.intents()]
        guests = [Attempt(guest.uuid, guest.attempt) for guest in self.hypervisor.guests.all()]
        beat = heartbeat_of(self.host, boot_id=str(self._boots), intents=intents, guests=guests)
        self._post.cast(cell_verbs.REPORTS, cell_verbs.HEARTBEAT, beat, context=service_context())

    def refuse(self, does: bool) -> None:
        """Whether every spawn is refused from now on."""
        turn(self._folder / "guests" / self.host, **({"refuse": "not here"} if does else {}))

    def guest(self, uuid: str) -> Guest | None:
        """The server's guest here."""
        return self.hypervisor.guests.get(uuid)

    def wipe(self, uuid: str) -> None:
        """Nothing of the server is here, and no order for it will be taken."""
        self.lines.jobs.clear()
        self.records.give_up({uuid: MAX_ATTEMPTS})
        self.hypervisor.guests.destroy(
            uuid, MAX_ATTEMPTS, deadline=Deadline(attempt=MAX_ATTEMPTS, deadline_s=FOREVER_S)
        )


def host_folder(host: str) -> pathlib.Path:
    """Below the world's folder: where the agent keeps its records."""
    return pathlib.Path(host) / "compute" / host


def inventory_of(host: str) -> Inventory:
    """What each host has to give."""
    return Inventory(
        node_uuid=node_uuid(host),
        hypervisor_hostname=host,
        hypervisor_type="simulated",
        hypervisor_version=1,
        vcpus=64,
        memory_mib=65536,
        disk_gib=500,
    )


def heartbeat_of(host: str, *, boot_id: str, intents: list[Attempt], guests: list[Attempt] | None) -> Heartbeat:
    """What a host says of itself."""
    return Heartbeat(
        host=host, boot_id=boot_id, version="test", started_at=0.0, inventory=inventory_of(host), usage=Usage(),
        intents=intents, guests=guests, hello=guests is not None,
    )  # fmt: skip


class AlwaysCanDeclare(ConductorLiveness):
    """A watch that believes the silence of hosts at once."""

    def can_declare_hosts_down(self) -> bool:
        return True


class Harness:
    """A world of one cell and three hosts in which nothing happens by itself."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.world = World(folder, (CELL,), hosts=HOSTS)
        self.steps = SingleSteps()
        self.post = SentMessages()
        self.hosts = self.world.hosts[CELL]
        self.database = self.world.databases[CELL]
        self.agents = {host: Agent(host, folder, self.post, self.steps) for host in self.hosts}
        watch = AlwaysCanDeclare(SystemClock(), down_after_s=FOREVER_S)
        placement = self.world.placement
        self.commands = HostCommands(self.database, placement, self.post, steps=self.steps, build_deadline_s=FOREVER_S)  # type: ignore[arg-type]
        self.reports = Reports(self.database, placement, self.commands, watch, steps=self.steps)
        self.sweeps = Sweeps(self.database, placement, self.commands, watch, steps=self.steps, down_after_s=FOREVER_S)
        self._introduce(placement)

    def _introduce(self, placement: Placement) -> None:
        for host in self.hosts:
            inventory = inventory_of(host)
            with self.database.transaction() as connection:
                cell_db.heartbeats.beat(connection, heartbeat_of(host, boot_id="0", intents=[], guests=None))
                cell_db.heartbeats.placed(connection, inventory)
                cell_db.hosts.set_accepted(connection, [host], True)
        self.sweeps.inventories()
        totals = {"VCPU": 64, "MEMORY_MB": 65536, "DISK_GB": 500}
        for host in self.hosts:
            stock = {name: {"total": total, "max_unit": total} for name, total in totals.items()}
            placement.ensure_provider(node_uuid(host), host, inventories=stock, traits=[])

    def super_conductor(self) -> JournalWorker:
        """A super-conductor of its own, as another process."""
        view = HostView()
        cell_uuid = self.world.cells.by_name(CELL).cell.uuid
        view.update(cell_uuid, [self._state(host, cell_uuid) for host in self.hosts])
        chooser = HostSelector(
            self.world.placement, view, lambda: None, attempts=HOSTS, steps=self.steps, rng=random.Random(0)
        )
        clock = SystemClock()
        api, cells = self.world.api_db, self.world.cells
        inserts = BuildInserts(cells, steps=self.steps, clock=clock, build_deadline_s=FOREVER_S)
        builds = BuildHandler(api, cells, chooser, inserts, steps=self.steps, clock=clock)
        deletes = DeleteHandler(api, cells, chooser.release, steps=self.steps)
        return JournalWorker(api, [builds, deletes], steps=self.steps)

    def claim_sweep(self, cell_uuid: str = "") -> ClaimSweep:
        """The super-conductor's look for claims that nobody owns; the hosts may pass for those of another cell."""
        view = HostView()
        cell_uuid = cell_uuid or self.world.cells.by_name(CELL).cell.uuid
        view.update(cell_uuid, [self._state(host, cell_uuid) for host in self.hosts])
        return ClaimSweep(self.world.api_db, self.world.placement, view, self.steps)

    @staticmethod
    def _state(host: str, cell_uuid: str) -> HostState:
        return HostState(
            host=host,
            node_uuid=node_uuid(host),
            hypervisor_hostname=host,
            cell_uuid=cell_uuid,
            vcpus=64,
            memory_mib=65536,
            disk_gib=500,
        )

    # ---- pieces of work ----------------------------------------------------------------------------------------------

    def worker(self, name: str, work: Callable[[], object], owner: object = None) -> Worker:
        """Somebody who begins this work."""
        return Worker(self.steps, name, work, owner=owner)

    def place(self) -> Worker:
        """A super-conductor that looks for orders."""
        placer = self.super_conductor()

        def work() -> None:
            placer.sweep()
            placer.flush()

        return self.worker("super", work)

    def delete(self, uuid: str) -> Worker:
        """An API process that deletes the server."""
        mapping = value_of(self.world.api_db.read_now(api_db.instances.get, uuid))
        return self.worker("api", lambda: asyncio.run(delete_server(self.world, USER, mapping, self.steps)))

    def deliver(self, message: Message) -> Worker:
        """Whoever the message is for handles it; it goes when that has ended well."""

        def work() -> None:
            self._handler(message)()
            self.post.messages = [other for other in self.post.messages if other is not message]

        owner = self.agents.get(message.queue.removeprefix("compute."))
        message.handler = self.worker(str(message), work, owner)
        return message.handler

    def _handler(self, message: Message) -> Callable[[], None]:
        agent = self.agents.get(message.queue.removeprefix("compute."))
        if agent is not None:
            by_verb = {compute_verbs.BUILD: agent.builds.accept, compute_verbs.DESTROY: agent.destroys.carry_out}
            return lambda: by_verb[message.verb](message.context, message.arguments)
        handlers: dict[Verb, Callable[[Any], None]] = {
            cell_verbs.ACTIVE: self.reports.on_active,
            cell_verbs.REFUSED: self.reports.on_refused,
            cell_verbs.GONE: self.reports.on_gone,
            cell_verbs.ACTED: self.reports.on_acted,
            cell_verbs.STAGES: self.reports.on_stages,
            cell_verbs.POWER_STATES: self.reports.on_power_states,
            cell_verbs.HEARTBEAT: self.reports.on_heartbeat,
        }
        return lambda: handlers[message.verb]([message])

    # ---- time and operators ------------------------------------------------------------------------------------------

    def let_leases_end(self) -> None:
        """Every lease is over, and hosts may be asked again."""
        instances, past = cell_db.tables.instances, now_sql(-1.0)
        with self.world.databases["api"].transaction() as connection:
            connection.execute(sa.update(api_db.tables.build_requests).values(lease_until=past))
        with self.database.transaction() as connection:
            connection.execute(sa.update(instances).values(lease_until=past))
            connection.execute(sa.update(cell_db.tables.cleanups).values(sent_at=None))

    def force_down(self, host: str, down: bool) -> None:
        """The host is taken for dead, or not any more."""
        services = cell_db.tables.services
        with self.database.transaction() as connection:
            connection.execute(sa.update(services).where(services.c.host == host).values(forced_down=down))

    def disable(self, host: str, disabled: bool) -> None:
        """An operator says that the host takes nothing new, or that it does again."""
        services = cell_db.tables.services
        with self.database.transaction() as connection:
            connection.execute(sa.update(services).where(services.c.host == host).values(disabled=disabled))

    def wipe(self, uuid: str) -> None:
        """Nothing is left of the server anywhere, but its fences."""
        self.post.messages.clear()
        for agent in self.agents.values():
            agent.wipe(uuid)
        self.world.placement.release(uuid)
        for name in ("cell0", CELL):
            with self.world.databases[name].transaction() as connection:
                connection.execute(sa.delete(cell_db.tables.instances))
                connection.execute(sa.delete(cell_db.tables.cleanups))
                connection.execute(sa.delete(cell_db.tables.image_tasks))
                connection.execute(sa.update(cell_db.tables.compute_nodes).values(failed_builds=0))
        with self.world.databases["api"].transaction() as connection:
            connection.execute(sa.delete(api_db.tables.instance_mappings))
            connection.execute(sa.delete(api_db.tables.build_requests))
