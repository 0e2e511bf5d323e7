"""Destroy attempts of servers: fence first, then destroy, and only then say so."""

import contextlib
import functools
import threading
import time
from collections.abc import Iterator

import core.errors
from compute.actions.names import checked_uuid
from compute.actions.remove import remove
from compute.operation import Host, operation
from compute.permit import Permit
from compute.slots import Slots
from core.context import Context
from messaging.verbs import cell
from messaging.verbs.compute import Destroy, Farewell
from objects.host import Attempt


class Destroys:
    """Carries out farewells while their message is held: it is acked after the cell's broker has every `gone`."""

    def __init__(self, host: Host, slots: Slots) -> None:
        self._host = host
        self._slots = slots
        self._lock = threading.Lock()
        self._under_way: set[tuple[str, int]] = set()

    def carry_out(self, context: Context, message: Destroy) -> None:
        """
        Raises:
            Unavailable: not all are gone yet, or it could not be said; the fences hold, and the message comes again.
        """
        attempts = _highest(message.servers)
        with self._host.steps("agent.fence"):
            self._host.records.give_up(attempts)
        for uuid, attempt in attempts.items():
            self._host.servers.interrupt(uuid, attempt, "The server is being deleted")
        with self._taken_up(attempts) as ours:
            gone = self._destroy_all(ours, context.request_id)
        # No longer taken up: a message that comes now is answered by itself, for this answer may have been heard already.
        self._host.reporter.report_now(
            cell.GONE, [((uuid, ours[uuid]), Attempt(uuid, ours[uuid])) for uuid in gone], deadline_s=self._host.deadlines.report_s
        )
        if len(gone) < len(ours):
            raise core.errors.Unavailable(f"{len(ours) - len(gone)} of {len(ours)} servers are not destroyed yet")

    @contextlib.contextmanager
    def _taken_up(self, attempts: dict[str, int]) -> Iterator[dict[str, int]]:
        """Those that no other message is about: its `gone` will answer this one too. Orders repeated while a hypervisor hangs
        would else hold all the listener's threads.
        """
        with self._lock:
            ours = {uuid: attempt for uuid, attempt in attempts.items() if not self._is_under_way(uuid, attempt)}
            self._under_way.update(ours.items())
        try:
            yield ours
        finally:
            with self._lock:
                self._under_way.difference_update(ours.items())

    def _is_under_way(self, uuid: str, attempt: int) -> bool:
        return any(other == uuid and higher >= attempt for other, higher in self._under_way)

    def _destroy_all(self, attempts: dict[str, int], request_id: str) -> list[str]:
        """Those that are gone now. One alone needs no other thread."""
        if len(attempts) == 1:
            return [uuid for uuid, attempt in attempts.items() if self._is_gone(uuid, attempt, request_id)]
        gone: list[str] = []
        left = threading.Semaphore(0)

        def job(uuid: str, attempt: int) -> None:
            try:
                if self._is_gone(uuid, attempt, request_id):
                    gone.append(uuid)
            finally:
                left.release()

        submitted = [self._slots.submit(uuid, functools.partial(job, uuid, attempt)) for uuid, attempt in attempts.items()]
        ends = time.monotonic() + self._host.deadlines.destroy_s
        for _ in range(sum(submitted)):
            if not left.acquire(timeout=max(0.0, ends - time.monotonic())):
                break
        return list(gone)

    def _is_gone(self, uuid: str, attempt: int, request_id: str) -> bool:
        host = self._host
        permit = Permit(attempt=attempt, deadline_s=host.deadlines.destroy_s)
        try:
            if self._is_superseded(uuid, attempt):
                return True
            with operation(host, "destroy", uuid, permit, request_id=request_id), host.steps("agent.destroy"):
                remove(host, uuid, attempt, permit)
        except core.errors.CellplaneError:
            return False  # Logged by the frame; the message comes again.
        return True

    def _is_superseded(self, uuid: str, attempt: int) -> bool:
        """Whether a later attempt's guest is here: its build destroyed the older ones first, and need not be waited for."""
        guest = self._host.hypervisor.guest(uuid)
        return guest is not None and guest.attempt > attempt


def _highest(servers: list[Farewell]) -> dict[str, int]:
    attempts: dict[str, int] = {}
    for server in servers:
        uuid = checked_uuid(server.uuid)
        attempts[uuid] = max(attempts.get(uuid, 0), server.attempt)
    return attempts
