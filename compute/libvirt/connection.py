"""The one file that talks to libvirt: short calls with deadlines, errors of ours, and the news that libvirt sends.

Nothing here decides anything. A connection that broke is opened again by the next call.
"""

import collections
import contextlib
import dataclasses
import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar

try:
    import libvirt
except ImportError:
    # It is an extra of ours; `Libvirt` says so when it is wanted.
    libvirt = None

import core.errors
import core.log
from compute.deadline import Deadline
from compute.libvirt.calls import Calls
from compute.libvirt.domain import NAMESPACE, Identity, domain_name, identity_of, is_ours
from core.log import about
from lifecycle import states

LOG = core.log.get(__name__)

_KEEPALIVE_S, _KEEPALIVE_COUNT = 5, 3
_CLOSE_S = 2.0
_AGENT_S = 5
_ARCHITECTURE = "x86_64"

Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class Seen:
    """A domain of ours as libvirt tells of it. `saved`: its memory lies on disk, to be gone on from."""

    uuid: str
    identity: Identity
    power_state: int
    saved: bool

    @property
    def has_process(self) -> bool:
        """Whether there is a QEMU of it, running or held."""
        return self.power_state in (states.RUNNING, states.POWER_PAUSED, states.POWER_SUSPENDED)


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
            raise core.errors.Invalid("[compute] driver libvirt needs libvirt-python: install cellplane[libvirt]", field="driver")
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

    # ---- looking ---------------------------------------------------------------------------------------------------------------

    def all(self) -> list[Seen]:
        """Every domain of ours."""
        return self._ask("list guests", _list)

    def find(self, uuid: str, deadline: Deadline | None = None) -> Seen | None:
        """One domain of ours, or None."""
        return self._ask("look at a guest", lambda connection: _find(connection, uuid), deadline=deadline)

    def known(self, uuid: str, deadline: Deadline | None = None) -> Seen:
        """One domain of ours.

        Raises:
            NotFound: there is none of this uuid.
        """
        seen = self.find(uuid, deadline)
        if seen is None:
            raise core.errors.NotFound(f"There is no guest of server {uuid} on this host", server=uuid)
        return seen

    def version(self) -> int:
        """Of QEMU: 7002022 is 7.2.22."""
        return int(self._ask("tell its version", lambda connection: connection.getVersion()))

    def capabilities(self) -> str:
        """The document about the machine."""
        return str(self._ask("tell its capabilities", lambda connection: connection.getCapabilities()))

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

    def document(self, uuid: str, *, live: bool = False) -> str:
        """The domain's document: as it starts next time, or as it runs now."""
        flag = 0 if live else libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
        return str(self._ask("describe a guest", lambda connection: _domain(connection, uuid).XMLDesc(flag)))

    def documents(self, *, but: str) -> list[str]:
        """The documents of all domains of ours but this server's, as they start next time."""
        return self._ask("describe all guests", lambda connection: _documents(connection, domain_name(but)))

    def domain_capabilities(self, machine: str, virt_type: str) -> str:
        """The document about what guests of the machine can have."""
        return str(self._ask("tell what guests can have", lambda connection: connection.getDomainCapabilities(None, _ARCHITECTURE, machine, virt_type)))

    def backup_state(self, uuid: str) -> tuple[bool, str | None]:
        """Whether a backup is under way; and if none is, why the last one failed. None: it did not, or nobody knows of one."""
        return self._ask("look at a guest's backup", lambda connection: _backup_state(_domain(connection, uuid)))

    def stats(self, uuid: str) -> dict[str, Any]:
        """libvirt's figures of the domain, by libvirt's own names."""
        return self._ask("measure a guest", lambda connection: _stats(connection, _domain(connection, uuid)))

    # ---- working: each of these is about one server, which its caller holds ----------------------------------------------------

    def define(self, uuid: str, document: str, deadline: Deadline) -> None:
        """Makes the domain known; it does not run."""
        self._work("define a guest", uuid, deadline, lambda connection: connection.defineXMLFlags(document, libvirt.VIR_DOMAIN_DEFINE_VALIDATE))

    def create(self, uuid: str, deadline: Deadline) -> None:
        """Starts the domain; from its saved memory, if there is one."""
        self._work("start a guest", uuid, deadline, lambda connection: _domain(connection, uuid).create())

    def press_power_button(self, uuid: str, deadline: Deadline) -> None:
        """Asks the guest to shut itself down; returns before it does."""
        flag = libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN
        self._work("shut a guest down", uuid, deadline, lambda connection: _domain(connection, uuid).shutdownFlags(flag))

    def ask_to_reboot(self, uuid: str, deadline: Deadline) -> None:
        """Asks the guest to shut itself down, upon which it starts again; returns before it does."""
        flag = libvirt.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN
        self._work("reboot a guest", uuid, deadline, lambda connection: _domain(connection, uuid).reboot(flag))

    def cut_off(self, uuid: str, deadline: Deadline) -> None:
        """Ends the domain's process, if it has one."""
        self._work("cut a guest off", uuid, deadline, lambda connection: _cut_off(_domain(connection, uuid)))

    def undefine(self, uuid: str, deadline: Deadline) -> None:
        """Makes the domain unknown, with all that libvirt keeps of it."""
        self._work("undefine a guest", uuid, deadline, lambda connection: _undefine(_domain(connection, uuid)))
        with self._news:
            self._reboots.pop(uuid, None)

    def pause(self, uuid: str, deadline: Deadline) -> None:
        """Freezes the domain."""
        self._work("pause a guest", uuid, deadline, lambda connection: _domain(connection, uuid).suspend())

    def unpause(self, uuid: str, deadline: Deadline) -> None:
        """Lets the domain go on."""
        self._work("unpause a guest", uuid, deadline, lambda connection: _domain(connection, uuid).resume())

    def save(self, uuid: str, deadline: Deadline) -> None:
        """Writes the domain's memory to disk and ends its process; it will go on running, whether it is paused now or not."""
        flag = libvirt.VIR_DOMAIN_SAVE_RUNNING
        self._work("suspend a guest", uuid, deadline, lambda connection: _domain(connection, uuid).managedSave(flag))

    def drop_saved(self, uuid: str, deadline: Deadline) -> None:
        """Forgets the saved memory, if there is one."""
        self._work("drop a guest's saved state", uuid, deadline, lambda connection: _drop_saved(_domain(connection, uuid)))

    def freeze_file_systems(self, uuid: str, deadline: Deadline) -> bool:
        """Asks the guest's agent; whether it did so."""
        return self._asks_agent("freeze a guest's file systems", uuid, deadline, lambda domain: domain.fsFreeze())

    def thaw_file_systems(self, uuid: str, deadline: Deadline) -> bool:
        """Ends `freeze_file_systems`."""
        return self._asks_agent("thaw a guest's file systems", uuid, deadline, lambda domain: domain.fsThaw())

    def set_password(self, uuid: str, user: str, password: str, deadline: Deadline) -> bool:
        """Has the guest's agent set it; whether it did so."""
        return self._asks_agent("set a password", uuid, deadline, lambda domain: domain.setUserPassword(user, password, 0))

    def inject_nmi(self, uuid: str, deadline: Deadline) -> None:
        """Interrupts the guest."""
        self._work("interrupt a guest", uuid, deadline, lambda connection: _domain(connection, uuid).injectNMI())

    def attach_device(self, uuid: str, document: str, deadline: Deadline, *, live: bool) -> None:
        """Gives the domain the device: as it runs now, or as it starts next time."""
        self._work("attach a device", uuid, deadline, lambda connection: _domain(connection, uuid).attachDeviceFlags(document, _affected(live)))

    def detach_device(self, uuid: str, document: str, deadline: Deadline, *, live: bool) -> None:
        """Takes the device from the domain; of one that runs, asks for it: it may take until later, or never happen."""
        self._work("detach a device", uuid, deadline, lambda connection: _domain(connection, uuid).detachDeviceFlags(document, _affected(live)))

    def begin_backup(self, uuid: str, document: str, deadline: Deadline) -> None:
        """From this moment's disks on the backup is written, while the guest goes on."""
        self._work("begin a backup", uuid, deadline, lambda connection: _begin_backup(_domain(connection, uuid), document))

    def end_backup(self, uuid: str, deadline: Deadline) -> None:
        """Gives up a backup that is under way, if one is."""
        self._work("end a backup", uuid, deadline, lambda connection: _end_backup(_domain(connection, uuid)))

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

    def _asks_agent(self, what: str, uuid: str, deadline: Deadline, function: Callable[[Any], object]) -> bool:
        def ask(connection: Any) -> bool:
            domain = _domain(connection, uuid)
            try:
                domain.agentSetResponseTimeout(_AGENT_S)
                function(domain)
            except libvirt.libvirtError as error:
                LOG.info("the guest's agent failed %s call=%s why=%s", deadline.about(uuid), what, error.get_error_message())
                return False
            return True

        deadline.check()
        return self._calls.run(what, self._call(what, ask, deadline.about(uuid)), deadline_s=deadline.left_s(), deadline=deadline, about=uuid)

    # ---- the connection --------------------------------------------------------------------------------------------------------

    def _ask(self, what: str, function: Callable[[Any], Result], *, deadline: Deadline | None = None) -> Result:
        return self._calls.run(what, self._call(what, function), deadline_s=self._deadline_s, deadline=deadline)

    def _work(self, what: str, uuid: str, deadline: Deadline, function: Callable[[Any], object]) -> None:
        deadline.check()
        self._calls.run(what, self._call(what, function, deadline.about(uuid)), deadline_s=deadline.left_s(), deadline=deadline, about=uuid)

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
            connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, self._on_device_removed, None)
            connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, self._on_job_completed, None)
        except libvirt.libvirtError as error:
            raise core.errors.Unavailable(f"libvirt does not answer: {error.get_error_message()}") from error
        LOG.info("connected uri=%s", self._uri)
        return connection

    def _on_lifecycle(self, _connection: Any, domain: Any, event: int, detail: int, _opaque: object) -> None:
        if is_ours(domain.name()):
            if (event, detail) == (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_IOERROR):
                LOG.warning("a guest cannot write its disk and is paused; is the host's disk full? %s", about(server=domain.UUIDString()))
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


def _list(connection: Any) -> list[Seen]:
    found = (_seen(domain) for domain in connection.listAllDomains() if is_ours(domain.name()))
    return [seen for seen in found if seen is not None]


def _find(connection: Any, uuid: str) -> Seen | None:
    try:
        return _seen(_domain(connection, uuid))
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise


def _domain(connection: Any, uuid: str) -> Any:
    return connection.lookupByName(domain_name(uuid))


def _seen(domain: Any) -> Seen | None:
    """None: it went meanwhile, or is none of ours."""
    try:
        identity = identity_of(domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE))
        state, reason = domain.state()
        saved = bool(domain.hasManagedSaveImage())
    except ValueError:
        return None
    except libvirt.libvirtError as error:
        if error.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_NO_DOMAIN_METADATA):
            return None
        raise
    return Seen(domain.UUIDString(), identity, _power_state(state, reason), saved)


def _documents(connection: Any, but: str) -> list[str]:
    found = []
    for domain in connection.listAllDomains():
        if is_ours(domain.name()) and domain.name() != but:
            try:
                found.append(str(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)))
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                    raise
    return found


def _affected(live: bool) -> int:
    return int(libvirt.VIR_DOMAIN_AFFECT_LIVE if live else libvirt.VIR_DOMAIN_AFFECT_CONFIG)


def _begin_backup(domain: Any, document: str) -> None:
    # The outcome of an earlier job would be taken for this one's.
    domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
    domain.backupBegin(document, None, 0)


def _end_backup(domain: Any) -> None:
    if domain.isActive() and domain.jobStats().get("operation") == libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP:
        domain.abortJob()


def _backup_state(domain: Any) -> tuple[bool, str | None]:
    now = domain.jobStats()
    if now["type"] != libvirt.VIR_DOMAIN_JOB_NONE:
        return True, None
    last = domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED | libvirt.VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED)
    if last["type"] == libvirt.VIR_DOMAIN_JOB_COMPLETED:
        return False, None
    return False, str(last.get("errmsg") or "the hypervisor does not know how it ended")


def _stats(connection: Any, domain: Any) -> dict[str, Any]:
    names = ("CPU_TOTAL", "BALLOON", "VCPU", "BLOCK", "INTERFACE")
    kinds = sum(getattr(libvirt, f"VIR_DOMAIN_STATS_{name}") for name in names)
    ((_, found),) = connection.domainListGetStats([domain], kinds)
    return dict(found)


def _power_state(state: int, reason: int) -> int:
    if state == libvirt.VIR_DOMAIN_SHUTOFF:
        return states.CRASHED if reason == libvirt.VIR_DOMAIN_SHUTOFF_CRASHED else states.SHUTDOWN
    return {
        libvirt.VIR_DOMAIN_RUNNING: states.RUNNING,
        libvirt.VIR_DOMAIN_BLOCKED: states.RUNNING,
        libvirt.VIR_DOMAIN_SHUTDOWN: states.RUNNING,  # On its way down; it still has its process.
        libvirt.VIR_DOMAIN_PAUSED: states.POWER_PAUSED,
        libvirt.VIR_DOMAIN_CRASHED: states.CRASHED,
        libvirt.VIR_DOMAIN_PMSUSPENDED: states.POWER_SUSPENDED,
    }.get(state, states.NO_STATE)


def _cut_off(domain: Any) -> None:
    if domain.isActive():
        domain.destroy()


def _undefine(domain: Any) -> None:
    domain.undefineFlags(
        libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
        | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
        | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
    )


def _drop_saved(domain: Any) -> None:
    if domain.hasManagedSaveImage():
        domain.managedSaveRemove()


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
    if code in (libvirt.VIR_ERR_CONFIG_UNSUPPORTED, libvirt.VIR_ERR_XML_ERROR, libvirt.VIR_ERR_XML_INVALID_SCHEMA, libvirt.VIR_ERR_NO_SUPPORT):
        return core.errors.Invalid(f"The hypervisor cannot do this ({what})")
    return core.errors.Broken(f"The hypervisor failed to {what}")
