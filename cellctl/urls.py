"""Addresses of databases and brokers: checked and compared."""

import urllib.parse
from pathlib import PurePosixPath

import sqlalchemy as sa

import core.errors

DATABASES = ("mysql", "mariadb", "sqlite")
BROKERS = ("amqp", "amqps", "inproc")
_DRIVERS = {"mysql", "mysql+pymysql", "mariadb", "mariadb+pymysql", "sqlite", "sqlite+pysqlite"}
_PORTS = range(1, 65536)
_MYSQL_PORT = 3306
_AMQP_PORTS = {"amqp": 5672, "amqps": 5671}

Place = tuple[str, ...]


def checked_database(url: str, *, option: str) -> str:
    """The URL as it was given.

    Raises:
        Invalid: no program of ours could connect to it; the message names the option.
    """
    try:
        parsed = sa.engine.make_url(url)
    except (sa.exc.ArgumentError, ValueError) as error:
        raise _invalid(option, "is no URL of a database: expected mysql+pymysql://user:password@host:port/name or sqlite:////path") from error
    if parsed.drivername not in _DRIVERS:
        raise _invalid(option, f"has the scheme {parsed.drivername}: expected one of mysql+pymysql, mysql, mariadb, sqlite")
    if not parsed.database:
        raise _invalid(option, "names no database")
    if parsed.get_backend_name() == "sqlite":
        if not PurePosixPath(parsed.database).is_absolute():
            raise _invalid(option, "has a relative path, which each program would take from its own directory: begin it with sqlite:////")
    elif not parsed.host:
        raise _invalid(option, "names no host")
    elif parsed.port is not None and parsed.port not in _PORTS:
        raise _invalid(option, f"has the port {parsed.port}")
    return url


def checked_broker(url: str, *, option: str) -> str:
    """The URL, or several of one cluster separated by `;`, as it was given.

    Raises:
        Invalid: no program of ours could connect to it; the message names the option.
    """
    for one in url.split(";"):
        try:
            parsed = urllib.parse.urlsplit(one)
            port = parsed.port
        except ValueError as error:
            raise _invalid(option, f"is no URL of a broker: {error}") from error
        if parsed.scheme not in BROKERS:
            raise _invalid(option, "is no URL of a broker: expected amqp://user:password@host:port/vhost, amqps://… or inproc://NAME")
        if not parsed.hostname:
            raise _invalid(option, "names no host")
        if port is not None and port not in _PORTS:
            raise _invalid(option, f"has the port {port}")
    return url


def database_place(url: str) -> Place:
    """Which database the URL leads to, whoever logs in there: two URLs with one place are one database."""
    parsed = sa.engine.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return ("sqlite", str(PurePosixPath(parsed.database or "")))
    # A unix socket is as good as an address: its path says which server it is.
    where = _one_value(parsed.query.get("unix_socket")) or f"{_host(parsed.host)}:{parsed.port or _MYSQL_PORT}"
    return ("mysql", where, parsed.database or "")


def broker_places(url: str) -> set[Place]:
    """Which brokers (virtual hosts of them) the URL leads to; none for cell0's."""
    return set() if url.startswith("none:") else {_broker_place(one) for one in url.split(";")}


def _broker_place(url: str) -> Place:
    parsed = urllib.parse.urlsplit(url)
    if parsed.scheme == "inproc":
        return ("inproc", parsed.netloc.rpartition("@")[2])
    vhost = urllib.parse.unquote(parsed.path[1:]) or "/"
    return ("amqp", f"{_host(parsed.hostname)}:{parsed.port or _AMQP_PORTS.get(parsed.scheme, 0)}", vhost)


def _host(name: str | None) -> str:
    return {"localhost": "127.0.0.1", "::1": "127.0.0.1"}.get((name or "").lower(), (name or "").lower())


def _one_value(value: str | tuple[str, ...] | None) -> str | None:
    return value[0] if isinstance(value, tuple) else value


def _invalid(option: str, why: str) -> core.errors.Invalid:
    # The value is left out: it may hold a password.
    return core.errors.Invalid(f"{option} {why}", field=option)
