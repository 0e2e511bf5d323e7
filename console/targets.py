"""From what an agent says of a console to what the proxy connects to: found once, judged, and then nothing else."""

import dataclasses
import ipaddress
import os
import pathlib
import socket
import stat
from collections.abc import Callable, Sequence

import msgspec

import core.errors
import core.log
from objects.console import Address
from objects.console_rules import Allowed, IpAddress, plain

LOG = core.log.get(__name__)
_NOT_THERE = "This console is at an address that is not allowed."
_DISCARD = 9


@dataclasses.dataclass(frozen=True, slots=True)
class Port:
    """A TCP port at an address that was judged; there is no name in it that could be looked up again."""

    address: str
    port: int


@dataclasses.dataclass(frozen=True, slots=True)
class Socket:
    """A UNIX socket that was judged: the file itself, whatever is put under its name meanwhile."""

    path: str
    device: int
    inode: int

    def open(self) -> int:
        """A descriptor of the file (`/proc/self/fd/…` leads to it), to be closed by the caller.

        Raises:
            OSError: it is gone, or another is there now.
        """
        descriptor = os.open(self.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        status = os.fstat(descriptor)
        if (status.st_dev, status.st_ino) != (self.device, self.inode):
            os.close(descriptor)
            raise FileNotFoundError(f"another file is at {self.path} now")
        return descriptor


Target = Port | Socket


class Targets:
    """Finds them. Blocks: a name is looked up, files are looked at. `owner`: the user id to whom sockets of consoles
    belong."""

    def __init__(self, allowed: Allowed, *, owner: int) -> None:
        # Places are compared without their links, the directory's own among them.
        self._allowed = msgspec.structs.replace(
            allowed, directory=allowed.directory and os.path.realpath(allowed.directory)
        )
        self._owner = owner

    def find(self, address: Address, *, host: str, owners_of: Callable[[str], Sequence[str]]) -> Target:
        """Where the console of a guest of this host is reached. `owners_of`: the hosts that say that an address is
        theirs.

        Raises:
            Forbidden: no console may be there.
        """
        if address.path is not None:
            return self._socket(address.path, host)
        candidates = _resolved(str(address.host), int(address.port or 0))
        why = f"{address.host} has no address"
        for candidate in candidates:
            refusal = self._why_not(candidate, int(address.port or 0), host, owners_of)
            if refusal is None:
                return Port(str(candidate), int(address.port or 0))
            why = refusal
        raise _refused(host, why)

    def _why_not(
        self, address: IpAddress, port: int, host: str, owners_of: Callable[[str], Sequence[str]]
    ) -> str | None:
        return self._allowed.why_not_at(
            address,
            port,
            host=host,
            owners=owners_of(str(plain(address))),
            is_proxys=_is_of_this_machine(plain(address)),
        )

    def _socket(self, path: str, host: str) -> Socket:
        real = os.path.realpath(path)
        refusal = self._allowed.why_not_in(real)
        if refusal is not None:
            raise _refused(host, refusal)
        try:
            status = pathlib.Path(real).lstat()
        except OSError as error:
            raise core.errors.WrongState("This console is not there any more; ask for a new address.") from error
        if not stat.S_ISSOCK(status.st_mode):
            raise _refused(host, f"{real} is no socket")
        if status.st_uid != self._owner:
            raise _refused(host, f"{real} belongs to user {status.st_uid} and not to {self._owner}")
        return Socket(real, status.st_dev, status.st_ino)


def _refused(host: str, why: str) -> core.errors.Forbidden:
    LOG.error("host %s reports a console at an address that is not allowed: %s", host, why)
    return core.errors.Forbidden(_NOT_THERE)


def _resolved(name: str, port: int) -> list[IpAddress]:
    try:
        entries = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
        return [plain(ipaddress.ip_address(address[0])) for *_, address in entries]
    except (OSError, ValueError, UnicodeError):
        return []


def _is_of_this_machine(address: IpAddress) -> bool:
    """The kernel would send from an address of this machine to itself. Nothing is sent: only the way is looked up."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(address), _DISCARD))
        except OSError:
            return False  # There is no way there: connecting will fail as well.
        return ipaddress.ip_address(probe.getsockname()[0]) == address
