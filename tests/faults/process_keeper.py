"""Runs the programs of a world and looks after them while a trap is set: replaces what was killed, succeeds and thaws
what was frozen."""

import contextlib
import dataclasses
import itertools
import logging
import threading
import time
from typing import Any

import sqlalchemy as sa

import api_db.instances
import api_db.tables
import cell_db.tables
from database.types import now_sql
from lifecycle import states
from tests.faults import invariants
from tests.faults.steps import FREEZES, KILLS, BreakableSteps, Trap
from tests.faults.world import World, wait_until

LOG = logging.getLogger(__name__)
SHIFT_S = 0.25
LONGEST_FREEZE_S = 1.2
SETTLE_S = 30.0
MAX_KEPT = 30


@dataclasses.dataclass(frozen=True)
class Role:
    """What a program is there for: `kind` super, cell or agent."""

    kind: str
    cell: str = ""
    host: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.kind, self.host or self.cell)))


@dataclasses.dataclass
class Running:
    """A program at work."""

    name: str
    role: Role
    program: Any
    steps: BreakableSteps


class ProcessKeeper:
    """Keeps one program in each role. API calls are a role without a program: their steps are `api_steps`."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.running: list[Running] = []
        self.api_steps = BreakableSteps("api")
        self.workload: list[str] = []
        self._numbers = itertools.count(1)
        self._trap: Trap | None = None
        self._frozen_at = 0.0
        self._done = True
        self._shifted_at = 0.0
        self._calls: list[threading.Thread] = []

    # ---- programs ----------------------------------------------------------------------------------------------------

    def start_all(self) -> None:
        """Every program; returns when every host may be chosen."""
        for cell in self.world.cell_names:
            self._start(Role("cell", cell))
            for host in self.world.hosts[cell]:
                self._start(Role("agent", cell, host))
        self._start(Role("super"))
        self.wait_until_whole()

    def wait_until_whole(self) -> None:
        """Returns when every host may be chosen."""
        every = {host for hosts in self.world.hosts.values() for host in hosts}
        running = self.one("super").program

        def is_whole() -> bool:
            running.watch.pull()
            return {
                host.host
                for host in running.view.snapshot()
                if host.up and not (host.cleanups_open or host.forced_down)
            } == every

        wait_until(is_whole, "every host is up in the view")

    def one(self, kind: str, cell: str = "", host: str = "") -> Running:
        """The program in this role."""
        return next(one for one in self.running if one.role == Role(kind, cell, host))

    def restart(self, running: Running) -> Running:
        """Stops a program in good order and starts another in its role."""
        self._end(running, 5.0)
        return self._start(running.role)

    def _start(self, role: Role) -> Running:
        name = f"{role}-{next(self._numbers)}".replace(" ", "-")
        steps = BreakableSteps(name)
        program = self._program(role, name, steps)
        self.world.start(name, program)
        running = Running(name, role, program, steps)
        self.running.append(running)
        return running

    def _program(self, role: Role, name: str, steps: BreakableSteps) -> Any:
        if role.kind == "super":
            return self.world.super_conductor(name, steps)
        if role.kind == "cell":
            return self.world.cell_conductor(role.cell, steps, name)
        return self.world.agent(role.cell, role.host, steps)

    def _end(self, running: Running, timeout_s: float) -> None:
        self.running.remove(running)
        self.world.end(running.name, timeout_s)

    # ---- traps -------------------------------------------------------------------------------------------------------

    def arm(self, trap: Trap, kind: str) -> None:
        """Sets the trap for the programs of one kind (or for API calls)."""
        self._trap, self._done = trap, False
        self.workload = []
        for steps in self._steps_of(kind):
            steps.trap = trap

    def disarm(self) -> None:
        """No trap is set any more."""
        self._trap, self._done = None, True
        for steps in (self.api_steps, *(one.steps for one in self.running)):
            steps.trap = None

    def _steps_of(self, kind: str) -> list[BreakableSteps]:
        return [self.api_steps] if kind == "api" else [one.steps for one in self.running if one.role.kind == kind]

    def tend(self) -> None:
        """One look at the trap's victim; call it while waiting for anything."""
        if not self._is_busy():
            return
        assert self._trap is not None
        assert self._trap.victim is not None
        victim = next((one for one in self.running if one.steps is self._trap.victim), None)
        if self._trap.kind in KILLS:
            self._bury(victim)
        elif self._trap.kind in FREEZES:
            self._nurse(victim, self._trap.victim)
        else:
            self._done = True

    def _is_busy(self) -> bool:
        return not self._done and self._trap is not None and self._trap.victim is not None

    def _bury(self, victim: Running | None) -> None:
        if victim is None:
            self.api_steps = BreakableSteps("api")
        else:
            self.workload.append(f"{victim.name} was killed")
            # Every thread of it dies at its next step, so this is no good order: nothing is acked, nothing is reported.
            with victim.steps.buried():
                self._end(victim, 1.0)
            self._start(victim.role)
        self._done = True

    def _nurse(self, victim: Running | None, steps: BreakableSteps) -> None:
        if not self._frozen_at:
            self._frozen_at = time.monotonic()
            self.workload.append(f"{steps.name} froze")
            self._succeed(victim)
            self.let_leases_end()
            return
        is_over = self._is_passed_over(victim)
        if not is_over and time.monotonic() < self._frozen_at + LONGEST_FREEZE_S:
            return
        self.workload.append(f"thawed {'after others had done its work' if is_over else 'while work waits for it'}")
        self._frozen_at = 0.0
        steps.thaw()
        self._done = True
        if victim is not None and victim.role.kind == "agent":
            self._force_down(victim.role, False)
        elif victim is not None:
            self._end(victim, 5.0)

    def _succeed(self, victim: Running | None) -> None:
        """Somebody else may do the work of who is frozen: another conductor, or, for an agent, another host."""
        if victim is None:
            return
        if victim.role.kind == "agent":
            conductor = self.one("cell", victim.role.cell).program
            wait_until(conductor.liveness.can_declare_hosts_down, "the conductor believes the silence of hosts")
            self._force_down(victim.role, True)
        else:
            self._start(victim.role)

    def _is_passed_over(self, victim: Running | None) -> bool:
        if victim is not None and victim.role.kind == "agent":
            rows = self.world.rows(victim.role.cell, cell_db.tables.instances)
            return not any(row.host == victim.role.host and row.state == states.BUILD for row in rows)
        return not invariants.complaints(self.world)

    def _force_down(self, role: Role, down: bool) -> None:
        services = cell_db.tables.services
        with self.world.databases[role.cell].transaction() as connection:
            connection.execute(sa.update(services).where(services.c.host == role.host).values(forced_down=down))

    # ---- time --------------------------------------------------------------------------------------------------------

    def let_leases_end(self) -> None:
        """Every lease is over, and every host may be asked again, as if some seconds had passed."""
        past = now_sql(-1.0)
        requests, instances, cleanups = api_db.tables.build_requests, cell_db.tables.instances, cell_db.tables.cleanups
        self._change("api", sa.update(requests).values(lease_until=past))
        for cell in self.world.cell_names:
            self._change(
                cell, sa.update(instances).where(instances.c.lease_until.is_not(None)).values(lease_until=past)
            )
            self._change(cell, sa.update(cell_db.tables.image_tasks).values(lease_until=past))
            self._change(cell, sa.update(cleanups).values(sent_at=None))
        self._shifted_at = time.monotonic()

    def _change(self, where: str, change: sa.Update) -> None:
        """A deadlock with a program at work changes nothing; whoever waits comes here again."""
        with contextlib.suppress(sa.exc.OperationalError), self.world.databases[where].transaction() as connection:
            connection.execute(change)

    def wait_until(self, condition: Any, what: str, deadline_s: float = SETTLE_S) -> None:
        """Waits for a condition while looking after the programs."""

        def look() -> Any:
            self.tend()
            if time.monotonic() > self._shifted_at + SHIFT_S:
                self.let_leases_end()
            return condition()

        wait_until(look, what, deadline_s)

    def settle(self, deadline_s: float = SETTLE_S) -> None:
        """Waits until nothing is under way and all is as it must be."""
        last: list[str] = ["it was never looked at"]

        def rests() -> bool:
            nonlocal last
            if self._is_busy() or any(call.is_alive() for call in self._calls):
                return False
            last = invariants.complaints(self.world)
            return not last

        try:
            self.wait_until(rests, "rest", deadline_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; {self.workload}; " + "; ".join(last)) from None
        self._calls.clear()

    # ---- calls of the API, each in a thread of its own: it may be killed or frozen -----------------------------------

    def call(self, function: Any, *args: Any) -> None:
        """Does what a request to the API does; whether it dies or fails is nobody's concern."""

        def run() -> None:
            try:
                function(*args)
            except Exception as error:
                LOG.info("an API call failed: %r", error)

        thread = threading.Thread(target=run, name="api call", daemon=True)
        self._calls.append(thread)
        thread.start()

    def delete(self, uuid: str) -> None:
        """The user deletes a server for good."""
        self.call(self.world.delete, uuid, self.api_steps)

    def soft_delete(self, uuid: str) -> None:
        """The user deletes a server that he may restore."""
        self.call(self.world.soft_delete, uuid, self.api_steps)

    def restore(self, uuid: str) -> None:
        """He does."""
        self.call(self.world.restore, uuid, self.api_steps)

    # ---- between two tests -------------------------------------------------------------------------------------------

    def tidy_up(self) -> None:
        """Purges what is deleted; when many servers have gathered, deletes them first."""
        left = [uuid for uuid, (_, row) in self.world.instances().items() if row.state != states.BUILD_DELETED]
        if len(left) > MAX_KEPT:
            for uuid in left:
                self.delete(uuid)
            self.settle()
        instances, mappings = cell_db.tables.instances, api_db.tables.instance_mappings
        for cell in ("cell0", *self.world.cell_names):
            with self.world.databases[cell].transaction() as connection:
                connection.execute(sa.delete(instances).where(instances.c.state == states.BUILD_DELETED))
        with self.world.databases["api"].transaction() as connection:
            connection.execute(sa.delete(mappings).where(mappings.c.deleted == api_db.instances.DELETED))
        self.wait_until_whole()

    def close(self) -> None:
        """Ends everything, whatever state it is in."""
        self.api_steps.kill()
        for running in reversed(self.running.copy()):
            with running.steps.buried():
                self._end(running, 1.0)
        self.world.stop()

