"""Any interleaving of single-stepped workers, with kills, lost leases, lost and doubled messages: the rules hold after
every step.

The same rules as in tests/protocol/model.py, here held against the code. What is frozen is simply not let go on for a
while.
"""

import os
from collections.abc import Callable

import hypothesis
import pytest
from hypothesis import strategies
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

import api_db.tables
import cell_db.tables
from api_db.cells import CELL0_UUID
from lifecycle import states
from objects.host import node_uuid
from tests.faults import invariants
from tests.faults.harness import CELL, HOSTS, MAX_MESSAGES, Agent, Harness, Message
from tests.faults.single_steps import WAITING, Worker

pytestmark = [
    # Placement's own libraries, called in this process, use what Python is about to drop.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    # Threads of other tests' worlds use `random` while hypothesis draws.
    pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning"),
]

EXAMPLES = int(os.environ.get("CELLPLANE_MACHINE_EXAMPLES", "80"))
MAX_WORKERS = 5
MAX_ROUNDS = 60
TO_THE_END = 1000
WHICH = strategies.integers(0, 11)
STEPS = strategies.one_of(strategies.integers(0, 12), strategies.just(TO_THE_END))

# What happens, and how often beside the others. One rule for all of it: hypothesis leaves whole rules out of an
# example, and then hardly any would come far.
MOVES = {
    "messages_arrive": 5,
    "agents_work": 4,
    "a_super_conductor_looks": 4,
    "a_conductor_looks_for_builds": 3,
    "a_conductor_looks_for_cleanups": 2,
    "a_conductor_looks_for_claims": 1,
    "a_message_arrives": 4,
    "an_agent_takes_up_work": 3,
    "one_goes_on": 6,
    "the_user_deletes": 1,
    "one_is_killed": 1,
    "an_agent_is_killed": 1,
    "leases_run_out": 1,
    "a_host_refuses": 1,
    "a_host_is_thought_dead": 2,
    "a_host_returns": 1,
    "a_message_is_lost": 1,
    "a_message_is_doubled": 1,
}


class Build(RuleBasedStateMachine):
    """The life of one server under every kind of fault. Each move has an effect only where it is possible."""

    harness: Harness

    def __init__(self) -> None:
        super().__init__()
        self.uuid = ""
        self.workers: list[Worker] = []
        self.deleted = False

    @initialize(refusing=strategies.sets(strategies.integers(0, HOSTS - 1)), echoes=strategies.booleans())
    def accept(self, refusing: set[int], echoes: bool) -> None:
        for host in refusing:
            self.harness.agents[self.harness.hosts[host]].refuse(True)
        self.harness.post.echoes = echoes
        self.uuid = self.harness.world.accept(hint=False)[0]

    @rule(
        move=strategies.sampled_from([name for name, often in MOVES.items() for _ in range(often)]),
        which=WHICH,
        steps=STEPS,
    )
    def something_happens(self, move: str, which: int, steps: int) -> None:
        getattr(self, move)(which, steps)

    # ---- work: somebody begins, or goes on, and comes so many steps far ----------------------------------------------

    def messages_arrive(self, _: int, __: int) -> None:
        """Those that nothing holds up."""
        for message in self._waiting():
            if not message.is_late:
                self._go(self.harness.deliver(message), TO_THE_END)

    def agents_work(self, _: int, __: int) -> None:
        for which in range(2 * len(self.harness.hosts)):
            self.an_agent_takes_up_work(which, TO_THE_END)

    def the_user_deletes(self, _: int, steps: int) -> None:
        if not self.deleted:
            self.deleted = True
            self._go(self.harness.delete(self.uuid), steps)

    def a_super_conductor_looks(self, which: int, steps: int) -> None:
        """And falls asleep there, every second time."""
        if len(self.workers) < MAX_WORKERS:
            self._go(self.harness.place(), steps)
        if which % 2:
            self.harness.let_leases_end()

    def a_conductor_looks_for_builds(self, _: int, steps: int) -> None:
        self._conductor_looks("builds", self.harness.sweeps.builds, steps)

    def a_conductor_looks_for_cleanups(self, _: int, steps: int) -> None:
        self._conductor_looks("cleanups", self.harness.sweeps.cleanups, steps)

    def a_conductor_looks_for_claims(self, _: int, steps: int) -> None:
        self._conductor_looks("claims", self.harness.sweeps.claims, steps)

    def _conductor_looks(self, name: str, work: Callable[[], object], steps: int) -> None:
        """When the leases are over; the hint that comes sooner shows a conductor the same rows."""
        if len(self.workers) < MAX_WORKERS:
            self.harness.let_leases_end()
            self._go(self.harness.worker(name, work), steps)

    def a_message_arrives(self, which: int, steps: int) -> None:
        waiting = self._waiting()
        if waiting:
            self._go(self.harness.deliver(waiting[which % len(waiting)]), steps)

    def an_agent_takes_up_work(self, which: int, steps: int) -> None:
        agent = self._agent(which)
        job = agent.lines.next()
        if job is not None:
            self._go(self.harness.worker(f"{agent.host} builds", job, agent), steps)

    def one_goes_on(self, which: int, steps: int) -> None:
        if self.workers:
            self._go(self.workers[which % len(self.workers)], steps)

    # ---- faults ------------------------------------------------------------------------------------------------------

    def one_is_killed(self, which: int, _: int) -> None:
        mortal = [worker for worker in self.workers if worker.owner is None]
        if mortal:
            mortal[which % len(mortal)].kill()
            self._sort_out()

    def an_agent_is_killed(self, which: int, _: int) -> None:
        agent = self._agent(which)
        for worker in self.workers:
            if worker.owner is agent:
                worker.kill()
        self._sort_out()
        agent.restart()

    def leases_run_out(self, _: int, __: int) -> None:
        self.harness.let_leases_end()

    def a_host_refuses(self, which: int, steps: int) -> None:
        self._agent(which).refuse(steps % 2 == 0)

    def a_host_is_thought_dead(self, which: int, steps: int) -> None:
        """The one that has the server, while a conductor looks; every second time it comes back at once."""
        row = next(iter(self.harness.world.rows(CELL, cell_db.tables.instances)), None)
        host = row.host if row is not None and row.host else self._agent(which).host
        self.harness.force_down(host, True)
        self.a_conductor_looks_for_builds(which, steps)
        if which % 2:
            self.harness.force_down(host, False)

    def a_host_returns(self, which: int, _: int) -> None:
        self.harness.force_down(self._agent(which).host, False)

    def a_message_is_lost(self, which: int, _: int) -> None:
        waiting = self._waiting()
        if waiting:
            lost = waiting[which % len(waiting)]
            self.harness.post.messages = [message for message in self.harness.post.messages if message is not lost]

    def a_message_is_doubled(self, which: int, _: int) -> None:
        """The second one comes late."""
        waiting = self._waiting()
        if waiting and len(self.harness.post.messages) < MAX_MESSAGES:
            message = waiting[which % len(waiting)]
            self.harness.post.messages.append(Message(message.queue, message.verb, message.arguments, is_late=True))

    # ---- what must hold ----------------------------------------------------------------------------------------------

    @invariant()
    def the_rules_hold(self) -> None:
        if self.uuid:
            wrong = broken_rule(self.harness, self.uuid)
            assert wrong is None, wrong

    def teardown(self) -> None:
        try:
            self._come_to_rest()
        finally:
            for worker in self.workers:
                worker.kill()
            self.harness.wipe(self.uuid)

    def _come_to_rest(self) -> None:
        """Without further faults, and with every sweep: all ends well."""
        self.harness.post.echoes = False
        for host, agent in self.harness.agents.items():
            agent.refuse(False)
            self.harness.force_down(host, False)
        complaints = ["nobody looked"]
        for _ in range(MAX_ROUNDS):
            self._everybody_works()
            self.the_rules_hold()
            complaints = invariants.complaints(self.harness.world)
            if not complaints and not self.harness.post.messages:
                return
        raise AssertionError("no rest: " + "; ".join([*complaints, *map(str, self.harness.post.messages)]))

    def _everybody_works(self) -> None:
        for worker in list(self.workers):
            self._go(worker, TO_THE_END)
        harness = self.harness
        harness.let_leases_end()
        claims = harness.claim_sweep()
        for work in (harness.sweeps.builds, harness.sweeps.cleanups, harness.sweeps.claims, claims.sweep, claims.sweep):
            work()
        harness.place().run()
        for message in self._waiting():
            harness.deliver(message).run()
        for agent in harness.agents.values():
            agent.builds.go_on()
            while job := agent.lines.next():
                job()

    # ---- workers -----------------------------------------------------------------------------------------------------

    def _go(self, worker: Worker, steps: int) -> None:
        """So many steps; to its end, or to where it waits for another one, if that comes before."""
        if worker not in self.workers:
            self.workers.append(worker)
        began_at = worker.at
        for _ in range(steps):
            worker.step()
            if worker.has_ended or worker.at == WAITING:
                break
        hypothesis.note(f"{worker.name} went from {began_at} to {worker.at or 'its end'}")
        self._sort_out()

    def _agent(self, which: int) -> Agent:
        return self.harness.agents[self.harness.hosts[which % len(self.harness.hosts)]]

    def _sort_out(self) -> None:
        self.workers = [worker for worker in self.workers if not worker.has_ended]

    def _waiting(self) -> list[Message]:
        return [message for message in self.harness.post.messages if not message.in_hand]


def broken_rule(harness: Harness, uuid: str) -> str | None:
    """The rule that does not hold right now; (a) to (d) of docs/build-protocol.md, section 9."""
    world = harness.world
    mapping = next(row for row in world.rows("api", api_db.tables.instance_mappings) if row.uuid == uuid)
    in_journal = any(row.uuid == uuid for row in world.rows("api", api_db.tables.build_requests))
    row = next((row for row in world.rows(CELL, cell_db.tables.instances) if row.uuid == uuid), None)
    buried = next((row for row in world.rows("cell0", cell_db.tables.instances) if row.uuid == uuid), None)
    guests = {host: guest.attempt for host, agent in harness.agents.items() if (guest := agent.guest(uuid))}
    owner = {world.cells.by_name(CELL).cell.uuid: CELL, CELL0_UUID: "cell0", None: None}[mapping.cell_uuid]
    is_alive = row is not None and row.state in (states.BUILD, states.BUILD_ACTIVE)
    if row is not None and is_alive and sum(attempt == row.attempt for attempt in guests.values()) > 1:
        return "(a) two guests of the current attempt"
    if row is not None and row.state == states.BUILD_ACTIVE:
        claim = set(world.placement.read_claim(uuid).providers)
        if guests.get(row.host) != row.attempt or claim != {node_uuid(row.host)}:
            return f"(a, b) ACTIVE, attempt {row.attempt} on {row.host}, with guests {guests} and its claim on {claim}"
    if row is not None and row.state != states.BUILD_DELETED and owner != CELL:
        return f"(c) the cell holds a row and the mapping names {owner}"
    if row is not None and row.state != states.BUILD_DELETED and buried is not None:
        return "(c) the server is in the cell and in cell0"
    if in_journal:
        return None
    if (
        not mapping.deleted
        and not (owner == CELL and row is not None)
        and not (owner == "cell0" and buried is not None)
    ):
        return "(c) an accepted server is in no journal, cell or cell0"
    if not mapping.deleted and row is not None and row.state in (states.BUILD_DELETING, states.BUILD_DELETED):
        return "(d) deleted though nobody asked"
    if mapping.deleted and (
        is_alive or any(one is not None and one.state == states.BUILD_ERROR for one in (row, buried))
    ):
        return "(d) a deleted server is alive again"
    return None


def test_the_rules_hold_however_workers_interleave_and_die(harness: Harness) -> None:
    Build.harness = harness

    run_state_machine_as_test(
        Build,
        settings=hypothesis.settings(
            max_examples=EXAMPLES,
            stateful_step_count=60,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(hypothesis.HealthCheck),
        ),
    )
