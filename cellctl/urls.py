"""Where the databases and brokers of cells are: which are mapped, and whether two URLs lead to one place."""

from pathlib import PurePosixPath

import core.broker_url
import core.errors
from core.addresses import invalid
from core.broker_url import IN_PROCESS, BrokerUrl
from database import database_url
from database.database_url import SQLITE

_MYSQL_PORT = 3306
_AMQP_PORTS = {"amqp": 5672, "amqps": 5671}

Address = tuple[str, ...]


def checked_database(url: str, *, option: str) -> str:
    """The URL as it was given.

    Raises:
        Invalid: not all programs of a cell could connect to it; the message names the option.
    """
    if not database_url.parse(url, option=option).database:
        raise invalid(option, "names no database: each program would have one of its own in memory")
    return url


def checked_broker(url: str, *, option: str) -> str:
    """The URL, or several of one cluster separated by `;`, as it was given.

    Raises:
        Invalid: no program of ours could connect to it; the message names the option.
    """
    core.broker_url.parse(url, option=option)
    return url


def database_address(url: str) -> Address:
    """Which database the URL leads to, whoever logs in there: two URLs with one place are one database. One that no
    parser takes leads nowhere else."""
    try:
        parsed = database_url.parse(url)
    except core.errors.Invalid:
        return ("unusable", url)
    if parsed.drivername == SQLITE:
        return ("sqlite", str(PurePosixPath(parsed.database or "")))
    # A unix socket is as good as an address: its path says which server it is.
    where = parsed.query.get("unix_socket") or f"{_host(parsed.host)}:{parsed.port or _MYSQL_PORT}"
    return ("mysql", str(where), parsed.database or "")


def broker_addresses(url: str) -> set[Address]:
    """Which brokers (virtual hosts of them) the URL leads to; none for cell0's, and for one that no parser takes."""
    try:
        return {_broker_address(one) for one in core.broker_url.parse(url)}
    except core.errors.Invalid:
        return set()


def _broker_address(one: BrokerUrl) -> Address:
    if one.scheme == IN_PROCESS:
        return (IN_PROCESS, one.host)
    return ("amqp", f"{_host(one.host)}:{one.port or _AMQP_PORTS[one.scheme]}", one.vhost)


def _host(name: str | None) -> str:
    return {"localhost": "127.0.0.1", "::1": "127.0.0.1"}.get((name or "").lower(), (name or "").lower())
