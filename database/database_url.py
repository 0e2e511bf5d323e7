"""URLs of databases: the one parser. What it takes, `database.engine` connects to; all else is refused where it is
typed."""

import re
from pathlib import PurePosixPath

import sqlalchemy as sa
from oslo_config import cfg

import core.config
from core.addresses import ESCAPES, check_host, check_port, check_text, invalid

MYSQL = "mysql+pymysql"
SQLITE = "sqlite"
_DRIVERS = {
    "mysql": MYSQL, MYSQL: MYSQL, "mariadb": MYSQL, "mariadb+pymysql": MYSQL, SQLITE: SQLITE, "sqlite+pysqlite": SQLITE,
}  # fmt: skip
_EXPECTED = "mysql+pymysql://user:password@host:port/name or sqlite:////absolute/path"
_CHARSET = "utf8mb4"
# MySQL's bound, and what it cannot have as the name of a directory.
_NAME = re.compile(r"[^/\\.]{1,64}")


def parse(url: str, *, option: str = "the URL of the database") -> sa.URL:
    """The URL, of MariaDB as `mysql+pymysql` however it is spelled. `sqlite://` is a database in memory.

    The driver would take an option of the URL for an argument of its own: one named `host` would lead elsewhere than
    the URL says, and one that it does not know would fail at each connection. Those that we do not read are refused.

    Args:
        option: what errors call it.

    Raises:
        Invalid: none of our programs could connect to it.
    """
    check_text(url, option=option)
    try:
        parsed = sa.engine.make_url(url)
    except (sa.exc.ArgumentError, ValueError) as error:
        raise invalid(option, f"is no URL of a database: expected {_EXPECTED} ({ESCAPES})") from error
    driver = _DRIVERS.get(parsed.drivername)
    if driver is None:
        raise invalid(option, f"has the scheme {parsed.drivername}: expected {_EXPECTED}")
    if driver == SQLITE:
        _check_sqlite(parsed, option)
    else:
        _check_mysql(parsed, option)
    return parsed.set(drivername=driver)


def configured(conf: cfg.ConfigOpts, group: str) -> str:
    """The setting `connection` of this section.

    Raises:
        Invalid: it is not set, or no URL of a database.
    """
    url = core.config.required(conf, group, "connection")
    parse(url, option=f"[{group}] connection")
    return url


def _check_sqlite(parsed: sa.URL, option: str) -> None:
    if parsed.host or parsed.username or parsed.port:
        raise invalid(option, "names a host, and SQLite has none: begin it with sqlite:////")
    if parsed.query:
        raise invalid(option, f"has the option {next(iter(parsed.query))}: a URL of SQLite has none")
    if parsed.database and not PurePosixPath(parsed.database).is_absolute():
        why = "has a relative path, which each program would take from its own directory"
        raise invalid(option, f"{why}: begin it with sqlite:////")


def _check_mysql(parsed: sa.URL, option: str) -> None:
    if not parsed.database:
        raise invalid(option, "names no database")
    if _NAME.fullmatch(parsed.database) is None:
        raise invalid(option, "has a name of a database that none can have: at most 64 characters, no / \\ or .")
    check_host(parsed.host, option=option)
    check_port(parsed.port, option=option)
    for name, value in parsed.query.items():
        if name not in ("charset", "unix_socket"):
            raise invalid(option, f"has the option {name}: only charset={_CHARSET} and unix_socket are read")
        if name == "charset" and value != _CHARSET:
            raise invalid(option, f"has another charset than {_CHARSET}")
        if name == "unix_socket" and not (isinstance(value, str) and PurePosixPath(value).is_absolute()):
            raise invalid(option, "has a unix_socket that is no absolute path")
