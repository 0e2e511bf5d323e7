"""The frame round every action on a server: one at a time per server, with a deadline that can be taken back, logged
once, errors caught here."""

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator

import core.errors
import core.log
from clients.glance import Images
from compute.deadline import Deadline
from compute.disk import Disk
from compute.hypervisor.hypervisor import Hypervisor
from compute.records import Records
from compute.reporter import Reporter
from compute.resources.images import ImageFiles
from compute.resources.power import KnownPowerStates
from compute.resources.tracker import Tracker
from core.crash_points import CrashPoints
from core.log import about

LOG = core.log.get(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Deadlines:
    """How long the agent lets each kind of work take, in seconds."""

    build_s: float
    operation_s: float
    destroy_s: float
    report_s: float = 10.0


class ServerLocks:
    """Who works on which server. A server is worked on by one thread at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free = threading.Condition(self._lock)
        self._permits: dict[str, Deadline] = {}
        self._waiting: dict[str, int] = {}
        self._closed = False

    @contextlib.contextmanager
    def lock(self, uuid: str, deadline: Deadline) -> Iterator[Deadline]:
        """The server is ours inside the `with`, for the work that the deadline is for.

        Raises:
            Unavailable: others did not let go of it before the deadline's end; or the agent is stopping.
        """
        self._take(uuid, deadline)
        try:
            yield deadline
        finally:
            with self._lock:
                del self._permits[uuid]
                self._free.notify_all()

    def interrupt(self, uuid: str, up_to_attempt: int, reason: str) -> None:
        """Takes back the deadline of whoever works on one of these attempts of the server."""
        with self._lock:
            deadline = self._permits.get(uuid)
            if deadline is not None and deadline.attempt <= up_to_attempt:
                deadline.revoke(reason)

    def is_busy(self, uuid: str) -> bool:
        """Whether somebody works on the server or waits to."""
        with self._lock:
            return uuid in self._permits or uuid in self._waiting

    @property
    def closed(self) -> bool:
        """Whether the agent is stopping: what is not finished is left to the disk."""
        return self._closed

    def close(self) -> None:
        """Takes all permits back and gives no more."""
        with self._lock:
            self._closed = True
            for deadline in self._permits.values():
                deadline.revoke("The agent is stopping")
            self._free.notify_all()

    def _take(self, uuid: str, deadline: Deadline) -> None:
        with self._lock:
            self._waiting[uuid] = self._waiting.get(uuid, 0) + 1
            try:
                is_ours = self._free.wait_for(lambda: self._closed or uuid not in self._permits, deadline.left_s())
            finally:
                self._waiting[uuid] -= 1
                if not self._waiting[uuid]:
                    del self._waiting[uuid]
            if self._closed:
                raise core.errors.Unavailable("The agent is stopping")
            if not is_ours:
                raise core.errors.Unavailable(f"Server {uuid} is still being worked on")
            self._permits[uuid] = deadline


@dataclasses.dataclass(frozen=True, kw_only=True)
class AgentContext:
    """All that an action needs of its host. `image_service` None: it has none."""

    name: str
    hypervisor: Hypervisor
    records: Records
    reporter: Reporter
    servers: ServerLocks
    tracker: Tracker
    images: ImageFiles
    power: KnownPowerStates
    steps: CrashPoints
    deadlines: Deadlines
    disk: Disk = dataclasses.field(default_factory=Disk)
    image_service: Images | None = None


@contextlib.contextmanager
def operation(host: AgentContext, name: str, uuid: str, deadline: Deadline) -> Iterator[Deadline]:
    """The frame: the server is ours inside, and the log says once how it ended.

    Errors of `core.errors` go on to the caller, who decides what they mean; every other exception is logged with its
    trace and becomes `Broken`.
    """
    began = time.monotonic()
    said = about(server=uuid, attempt=deadline.attempt, host=host.name, request_id=deadline.request_id)
    try:
        with host.servers.lock(uuid, deadline):
            yield deadline
    except core.errors.CellplaneError as error:
        LOG.warning(
            "%s failed %s after_s=%.3f error=%s why=%s", name, said, time.monotonic() - began, error.code, error
        )
        raise
    except Exception as error:
        LOG.exception("%s broke %s", name, said)
        raise core.errors.Broken(f"Unexpected error on the host ({type(error).__name__})") from error
    LOG.info("%s ended %s after_s=%.3f", name, said, time.monotonic() - began)
