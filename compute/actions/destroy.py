"""Destroy attempts of servers: fence first, then destroy, and only then say so."""

import contextlib
import functools
import threading
import time
from collections.abc import Iterable, Iterator, Sequence

import core.errors
from compute.actions.remove import remove
from compute.actions.uuids import checked_uuid
from compute.agent_context import AgentContext, operation
from compute.deadline import Deadline
from compute.work_queues import WorkQueues
from core.context import Context
from messaging.verbs import cell
from messaging.verbs.compute import Destroy, DestroyAttempt
from objects.host import Attempt


class Destroys:
    """Carries out farewells while their message is held: it is acked after the cell's broker has every `gone`."""

    def __init__(self, host: AgentContext, slots: WorkQueues) -> None:
        self._host = host
        self._slots = slots
        self._lock = threading.Lock()
        self._under_way: set[tuple[str, int]] = set()

    def carry_out(self, _: Context, message: Destroy) -> None:
        """
        Raises:
            Unavailable: not all are gone yet, or it could not be said; the fences hold, and the message comes again.
        """
        farewells = _highest(message.servers)
        with self._host.steps("agent.fence"):
            self._host.records.give_up({farewell.uuid: farewell.attempt for farewell in farewells})
        for farewell in farewells:
            self._host.servers.interrupt(farewell.uuid, farewell.attempt, "The server is being deleted")
        with self._taken_up(farewells) as ours:
            gone = self._destroy_all(ours)
        # No longer taken up: a message that comes now is answered by itself, for this answer may have been heard
        # already.
        rows = [((one.uuid, one.attempt), Attempt(one.uuid, one.attempt, one.request_id)) for one in gone]
        self._host.reporter.report_now(cell.GONE, rows, deadline_s=self._host.deadlines.report_s)
        if len(gone) < len(ours):
            raise core.errors.Unavailable(f"{len(ours) - len(gone)} of {len(ours)} servers are not destroyed yet")

    @contextlib.contextmanager
    def _taken_up(self, farewells: Sequence[DestroyAttempt]) -> Iterator[list[DestroyAttempt]]:
        """Those that no other message is about: its `gone` will answer this one too. Orders repeated while a hypervisor
        hangs would else hold all the listener's threads.
        """
        with self._lock:
            ours = [farewell for farewell in farewells if not self._is_under_way(farewell.uuid, farewell.attempt)]
            taken = {(farewell.uuid, farewell.attempt) for farewell in ours}
            self._under_way.update(taken)
        try:
            yield ours
        finally:
            with self._lock:
                self._under_way.difference_update(taken)

    def _is_under_way(self, uuid: str, attempt: int) -> bool:
        return any(other == uuid and higher >= attempt for other, higher in self._under_way)

    def _destroy_all(self, farewells: Sequence[DestroyAttempt]) -> list[DestroyAttempt]:
        """Those that are gone now. One alone needs no other thread."""
        if len(farewells) == 1:
            return [farewell for farewell in farewells if self._is_gone(farewell)]
        gone: list[DestroyAttempt] = []
        left = threading.Semaphore(0)

        def job(farewell: DestroyAttempt) -> None:
            try:
                if self._is_gone(farewell):
                    gone.append(farewell)
            finally:
                left.release()

        submitted = [self._slots.submit(farewell.uuid, functools.partial(job, farewell)) for farewell in farewells]
        ends = time.monotonic() + self._host.deadlines.destroy_s
        for _ in range(sum(submitted)):
            if not left.acquire(timeout=max(0.0, ends - time.monotonic())):
                break
        return list(gone)

    def _is_gone(self, farewell: DestroyAttempt) -> bool:
        host, uuid, attempt = self._host, farewell.uuid, farewell.attempt
        deadline = Deadline(attempt=attempt, deadline_s=host.deadlines.destroy_s, request_id=farewell.request_id)
        try:
            if self._is_superseded(uuid, attempt):
                return True
            with operation(host, "destroy", uuid, deadline), host.steps("agent.destroy"):
                remove(host, uuid, attempt, deadline)
        except core.errors.CellplaneError:
            return False  # Logged by the frame; the message comes again.
        return True

    def _is_superseded(self, uuid: str, attempt: int) -> bool:
        """Whether a later attempt's guest is here: its build destroyed the older ones first, and need not be waited
        for."""
        guest = self._host.hypervisor.guests.get(uuid)
        return guest is not None and guest.attempt > attempt


def _highest(servers: Iterable[DestroyAttempt]) -> list[DestroyAttempt]:
    """Of each server the one with the highest attempt: it is for the older ones, too."""
    return list(
        {checked_uuid(farewell.uuid): farewell for farewell in sorted(servers, key=lambda one: one.attempt)}.values()
    )
