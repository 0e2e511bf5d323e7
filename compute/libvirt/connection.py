"""The connection to libvirt: opened and kept alive, calls with deadlines, errors of ours, the news that libvirt sends.

A connection that broke is opened again by the next call. What is called is in `domains`, `domain_power`,
`domain_devices`, `backup_jobs`, `guest_agent` and `host_facts`: functions over it, which decide nothing.
"""

import collections
import contextlib
import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import core.errors
import core.log
from compute.deadline import Deadline
from compute.libvirt.calls import Calls
from compute.libvirt.domain import domain_name, is_ours
from compute.libvirt.library import libvirt
from core.log import about

LOG = core.log.get(__name__)

_KEEPALIVE_S, _KEEPALIVE_COUNT = 5, 3
_CLOSE_S = 2.0

Result = TypeVar("Result")


class Libvirt:
    """One host's libvirt.

    Args:
        uri: where it is.
        deadline_s: for a call that has only to be answered; what works on a guest has the deadline's.
        changed: called from libvirt's own thread after a guest changed.

    Raises:
        Invalid: libvirt-python is not installed.
    """

    def __init__(self, uri: str, *, calls: Calls, deadline_s: float, changed: Callable[[], None]) -> None:
        if libvirt is None:
            raise core.errors.Invalid(
                "[compute] driver libvirt needs libvirt-python: install cellplane[libvirt]", field="driver"
            )
        self._uri = uri
        self._calls = calls
        self._deadline_s = deadline_s
        self._changed = changed
        self._opening = threading.Lock()
        self._connection: Any = None
        self._closed = False
        self._news = threading.Condition()
        self._news_count = 0
        self._reboots: collections.Counter[str] = collections.Counter()
        libvirt.registerErrorHandler(lambda *_: None, None)  # It would print every error.
        _start_event_loop()

    def news_count(self) -> int:
        """Grows with every change of a guest."""
        with self._news:
            return self._news_count

    def wait_for_news(self, since: int, deadline_s: float) -> None:
        """Returns when a guest changed after `since`, at the latest after this time."""
        with self._news:
            self._news.wait_for(lambda: self._news_count > since, deadline_s)

    def reboots(self, uuid: str) -> int:
        """How often the guest was seen to start anew by itself."""
        with self._news:
            return self._reboots[uuid]

    def forget(self, uuid: str) -> None:
        """Drops what is known of a guest that is no more."""
        with self._news:
            self._reboots.pop(uuid, None)

    def has_settled(self, uuid: str, deadline_s: float) -> bool:
        """Whether all work on the server that was left behind has come to an end."""
        return self._calls.wait_for(uuid, deadline_s)

    def close(self) -> None:
        """Lets go of the connection. May be called twice."""
        self._closed = True
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(core.errors.CellplaneError, libvirt.libvirtError):
                self._calls.run("close", connection.close, deadline_s=_CLOSE_S)

    def ask(self, what: str, function: Callable[[Any], Result], *, deadline: Deadline | None = None) -> Result:
        """What the function gives of libvirt's own connection, for a call that has only to be answered.

        Args:
            what: for messages.
            deadline: asked meanwhile, if the call is part of work on a guest.
        """
        call = self._call(what, function)
        return self._calls.run(what, call, deadline_s=self._deadline_s, deadline=deadline)

    def work(self, what: str, uuid: str, deadline: Deadline, function: Callable[[Any], Result]) -> Result:
        """What the function gives of libvirt's own connection, for a call that works on one server's guest.

        The caller holds the server.
        """
        deadline.check()
        call = self._call(what, function, deadline.about(uuid))
        return self._calls.run(what, call, deadline_s=deadline.left_s(), deadline=deadline, about=uuid)

    def _call(self, what: str, function: Callable[[Any], Result], said: str = "server=-") -> Callable[[], Result]:
        def call() -> Result:
            connection = self._connected()
            try:
                return function(connection)
            except libvirt.libvirtError as error:
                raise _translated(what, error, said, is_alive=bool(connection.isAlive())) from error

        return call

    def _connected(self) -> Any:
        if not self._opening.acquire(timeout=self._deadline_s):
            raise core.errors.Unavailable("libvirt refuses the connection")
        try:
            if self._closed:
                raise core.errors.Unavailable("The connection to libvirt is closed")
            if self._connection is None or not self._connection.isAlive():
                self._connection = None
                self._connection = self._open()
            return self._connection
        finally:
            self._opening.release()

    def _open(self) -> Any:
        try:
            connection = libvirt.open(self._uri)
            # Else a daemon that is frozen would keep every call for ever.
            connection.setKeepAlive(_KEEPALIVE_S, _KEEPALIVE_COUNT)
            connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle, None)
            connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, self._on_reboot, None)
            connection.domainEventRegisterAny(
                None, libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, self._on_device_removed, None
            )
            connection.domainEventRegisterAny(
                None, libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, self._on_job_completed, None
            )
        except libvirt.libvirtError as error:
            raise core.errors.Unavailable(f"libvirt does not answer: {error.get_error_message()}") from error
        LOG.info("connected uri=%s", self._uri)
        return connection

    def _on_lifecycle(self, _connection: Any, domain: Any, event: int, detail: int, _opaque: object) -> None:
        if is_ours(domain.name()):
            if (event, detail) == (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_IOERROR):
                LOG.warning(
                    "a guest cannot write its disk and is paused; is the host's disk full? %s",
                    about(server=domain.UUIDString()),
                )
            self._tell()

    def _on_reboot(self, _connection: Any, domain: Any, _opaque: object) -> None:
        with self._news:
            self._reboots[domain.UUIDString()] += 1
        self._tell()

    def _on_device_removed(self, _connection: Any, _domain: Any, _device: str, _opaque: object) -> None:
        self._note_news()

    def _on_job_completed(self, _connection: Any, _domain: Any, _figures: object, _opaque: object) -> None:
        self._note_news()

    def _tell(self) -> None:
        self._note_news()
        self._changed()

    def _note_news(self) -> None:
        with self._news:
            self._news_count += 1
            self._news.notify_all()


@functools.cache
def _start_event_loop() -> threading.Thread:
    """libvirt has one loop for all connections of the process; it must be there before the first of them."""
    libvirt.virEventRegisterDefaultImpl()

    def run() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    thread = threading.Thread(target=run, name="libvirt events", daemon=True)
    thread.start()
    return thread


def domain_of(connection: Any, uuid: str) -> Any:
    """libvirt's own domain of the server, of libvirt's own connection."""
    return connection.lookupByName(domain_name(uuid))


def _translated(what: str, error: Any, said: str, *, is_alive: bool) -> core.errors.CellplaneError:
    code = error.get_error_code()
    if not is_alive or error.get_error_domain() in (libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE):
        return core.errors.Unavailable(f"the connection to libvirt was lost ({what})")
    if code == libvirt.VIR_ERR_NO_DOMAIN:
        return core.errors.NotFound("There is no such guest on this host")
    # The words of libvirt name paths of the host: they are for its log, not for the user's fault.
    LOG.warning("libvirt refused %s call=%s code=%d why=%s", said, what, code, error.get_error_message())
    if code == libvirt.VIR_ERR_OPERATION_INVALID:
        return core.errors.WrongState(f"The guest's state does not allow it ({what})")
    if code == libvirt.VIR_ERR_OPERATION_TIMEOUT:
        return core.errors.Unavailable(f"The guest is busy ({what})")
    if code in (
        libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
        libvirt.VIR_ERR_XML_ERROR,
        libvirt.VIR_ERR_XML_INVALID_SCHEMA,
        libvirt.VIR_ERR_NO_SUPPORT,
    ):
        return core.errors.Invalid(f"The hypervisor cannot do this ({what})")
    return core.errors.Broken(f"The hypervisor failed to {what}")
