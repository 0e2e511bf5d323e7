"""What a guest occupies of its host beside memory and disk: dedicated CPUs, and the doors of its consoles."""

import contextlib
import dataclasses
import errno
import pathlib
import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator

from oslo_config import cfg

import core.errors
from compute import private
from compute.libvirt.devices import ConsoleListener
from compute.libvirt.domain_xml_edits import serial_port_of, with_serial_port
from compute.libvirt.hardware import Hardware
from compute.libvirt.pinning import HostCpus, Pins, host_cpus, pins_in, pins_of

_PORTS = re.compile(r"([0-9]{1,5}):([0-9]{1,5})")
_MAX_PORT = 65535
# sun_path of unix(7), less its closing zero; and the longest name that we give to a socket.
_LONGEST_SOCKET = 107
_LONGEST_NAME = len(f"/{'u' * 36}.serial")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reservation:
    """What one guest occupies."""

    serial: ConsoleListener
    vnc: ConsoleListener
    pins: Pins = dataclasses.field(default_factory=Pins)


class Reservations:
    """The host's seats. Taken ones are written down in the domains' documents; those of domains not defined yet are
    remembered here.

    Raises:
        Invalid: the settings make no sense.
    """

    def __init__(self, settings: cfg.ConfigOpts) -> None:
        self.cpus: HostCpus = host_cpus(settings.cpu_dedicated_set, settings.cpu_shared_set)
        self._listen: str = settings.serial_listen
        self._vnc_listen: str = settings.vnc_listen
        self._ports = _ports(settings.serial_ports)
        self._sockets = None if settings.console_path is None else pathlib.Path(settings.console_path).absolute()
        if self._sockets is not None and len(str(self._sockets)) + _LONGEST_NAME > _LONGEST_SOCKET:
            raise core.errors.Invalid(
                f"[libvirt] console_path: {self._sockets} is too long for a socket", field="console_path"
            )
        self._lock = threading.Lock()
        self._promised: dict[str, Reservation] = {}

    def prepare(self) -> None:
        """Makes the directory of the sockets.

        Raises:
            Invalid: it cannot be made.
        """
        if self._sockets is None:
            return
        try:
            private.make_directory(self._sockets, mode=private.PASSABLE)
        except OSError as error:
            raise core.errors.Invalid(
                f"[libvirt] console_path: {self._sockets} cannot be made: {error.strerror or error}",
                field="console_path",
            ) from error

    @contextlib.contextmanager
    def taken(
        self,
        uuid: str,
        hardware: Hardware,
        vcpus: int,
        documents: Callable[[], Iterable[str]],
        *,
        before: str | None = None,
    ) -> Iterator[Reservation]:
        """A seat that is the server's inside the `with`, in which its domain is defined.

        Args:
            documents: gives those of all other domains.
            before: the server's own, if it has one: its seat is kept.

        Raises:
            Invalid: this host has no such seats.
            Conflict: none is free.
        """
        with self._lock:
            reservation = self._promised[uuid] = self._choose(uuid, hardware, vcpus, documents, before)
        try:
            yield reservation
        finally:
            with self._lock:
                self._promised.pop(uuid, None)

    def mended(self, uuid: str, document: str, documents: Callable[[], Iterable[str]]) -> str | None:
        """Another document for a guest that is off, if somebody else has taken its serial port meanwhile."""
        port = serial_port_of(document)
        if port is None or _is_free(self._listen, port):
            return None
        with self._lock:
            return with_serial_port(document, self._free_port(uuid, documents()))

    def clear(self, uuid: str) -> None:
        """The guest is gone: so are its sockets."""
        if self._sockets is not None:
            for path in (self._socket(uuid, "serial"), self._socket(uuid, "vnc")):
                path.unlink(missing_ok=True)

    def _choose(
        self, uuid: str, hardware: Hardware, vcpus: int, documents: Callable[[], Iterable[str]], before: str | None
    ) -> Reservation:
        policy = hardware.cpu_policy
        # Asked only where it matters: libvirt takes a while for many guests.
        others = list(documents()) if policy.is_dedicated or self._sockets is None else []
        promised = [reservation.pins for whose, reservation in self._promised.items() if whose != uuid]
        taken = {
            cpu
            for pins in (*map(pins_in, others), *promised)
            for cpu in (*pins.cpus, *(pins.emulator if pins.cpus else ()))
        }
        pins = pins_of(
            policy, vcpus, self.cpus, taken - set(self.cpus.shared), before=None if before is None else pins_in(before)
        )
        if self._sockets is not None:
            return Reservation(
                serial=ConsoleListener(socket=self._socket(uuid, "serial")),
                vnc=ConsoleListener(socket=self._socket(uuid, "vnc")),
                pins=pins,
            )
        port = None if before is None else serial_port_of(before)
        port = port or self._free_port(uuid, others)
        return Reservation(
            serial=ConsoleListener(listen=self._listen, port=port),
            vnc=ConsoleListener(listen=self._vnc_listen),
            pins=pins,
        )

    def _free_port(self, uuid: str, documents: Iterable[str]) -> int:
        taken = {serial_port_of(document) for document in documents}
        taken |= {reservation.serial.port for whose, reservation in self._promised.items() if whose != uuid}
        for port in self._ports:
            if port not in taken and _is_free(self._listen, port):
                return port
        raise core.errors.Conflict(
            "Not enough resources on the host: ports for serial consoles ([libvirt] serial_ports)"
        )

    def _socket(self, uuid: str, kind: str) -> pathlib.Path:
        assert self._sockets is not None
        return self._sockets / f"{uuid}.{kind}"


def _ports(text: str) -> range:
    match = _PORTS.fullmatch(text)
    if match is None or not 0 < int(match[1]) <= int(match[2]) <= _MAX_PORT:
        raise core.errors.Invalid(f"[libvirt] serial_ports cannot be {text!r}; it is FIRST:LAST", field="serial_ports")
    return range(int(match[1]), int(match[2]) + 1)


def _is_free(listen: str, port: int) -> bool:
    """Whether nobody listens there."""
    with socket.socket(socket.AF_INET6 if ":" in listen else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((listen, port))
            # Two may be bound to one port; only one may listen.
            probe.listen(1)
        except OSError as error:
            return error.errno != errno.EADDRINUSE
        return True
