"""Destroy attempts of servers: fence first, then destroy, and only then say so."""

import threading
import time

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
        gone = self._destroy_all(attempts, context.request_id)
        self._host.reporter.report_now(
            cell.GONE,
            [((uuid, attempts[uuid]), Attempt(uuid, attempts[uuid])) for uuid in gone],
            deadline_s=self._host.deadlines.report_s,
        )
        if len(gone) < len(attempts):
            raise core.errors.Unavailable(f"{len(attempts) - len(gone)} of {len(attempts)} servers are not destroyed yet")

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

        submitted = [self._slots.submit(uuid, lambda uuid=uuid, attempt=attempt: job(uuid, attempt)) for uuid, attempt in attempts.items()]
        ends = time.monotonic() + self._host.deadlines.destroy_s
        for _ in range(sum(submitted)):
            if not left.acquire(timeout=max(0.0, ends - time.monotonic())):
                break
        return list(gone)

    def _is_gone(self, uuid: str, attempt: int, request_id: str) -> bool:
        host = self._host
        if self._is_superseded(uuid, attempt):
            return True
        permit = Permit(attempt=attempt, deadline_s=host.deadlines.destroy_s)
        try:
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
