"""What URLs of databases and of brokers have in common: a host, a port, and the words for a bad one."""

import ipaddress
import re

import core.errors

PORTS = range(1, 65536)
_WORD = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z){_WORD}(\.{_WORD})*\.?")
ESCAPES = "a @ / : ? # or % in a name or a password is written %40 %2F %3A %3F %23 %25"


def invalid(option: str, why: str) -> core.errors.Invalid:
    """The error. It leaves out the URL, which may hold a password."""
    return core.errors.Invalid(f"{option} {why}", field=option)


def check_text(url: str, *, option: str) -> None:
    """
    Raises:
        Invalid: it has what cannot be printed, or spaces around it.
    """
    if not url.isprintable() or url != url.strip():
        raise invalid(option, "has characters that cannot be printed, or spaces around it")


def check_host(host: str | None, *, option: str) -> None:
    """
    Raises:
        Invalid: it is no name of a host and no IP address.
    """
    if not host:
        raise invalid(option, "names no host")
    if _NAME.fullmatch(host) is None and not _is_address(host):
        raise invalid(option, f"has no name or address of a host ({ESCAPES})")


def check_port(port: int | None, *, option: str) -> None:
    """
    Raises:
        Invalid: no machine has it.
    """
    if port is not None and port not in PORTS:
        raise invalid(option, f"has the port {port}: expected 1 to {PORTS[-1]}")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
