"""The console proxies of a cell: each says in its own row where users reach it."""

import datetime
import random
import uuid as uuids

import msgspec
import sqlalchemy as sa

import core.errors
from cell_db.hosts import is_alive
from cell_db.tables import services
from database.statements import changed, insert_if_absent
from database.types import as_text, document, now_sql
from objects.console import Proxy
from objects.host import CONSOLE_PROXY


def beat(connection: sa.Connection, *, host: str, version: str, started_at: datetime.datetime, proxy: Proxy) -> None:
    """Records that a proxy lives and where it is reached."""
    mine = sa.and_(services.c.host == host, services.c.binary == CONSOLE_PROXY)
    values = {
        "last_seen_at": now_sql(), "version": version, "started_at": started_at, "left": False,
        "console": msgspec.to_builtins(proxy),
    }  # fmt: skip
    if not changed(connection.execute(sa.update(services).where(mine).values(**values))):
        insert_if_absent(connection, services, [_row(host, version, started_at)])
        connection.execute(sa.update(services).where(mine).values(**values))


def living(connection: sa.Connection, *, down_after_s: float) -> Proxy | None:
    """One of the proxies that live; None: the cell has none and never had.

    Raises:
        Unavailable: it has some, but none lives.
    """
    lives = sa.and_(is_alive(down_after_s), services.c.forced_down == sa.false())
    said = as_text(services.c.console)
    query = sa.select(said, sa.type_coerce(lives, sa.Boolean)).where(
        services.c.binary == CONSOLE_PROXY, services.c.console.is_not(None)
    )
    known = [(console, bool(is_alive)) for console, is_alive in connection.execute(query)]
    alive = [proxy for console, is_alive in known if is_alive and (proxy := document(console, Proxy)) is not None]
    if known and not alive:
        raise core.errors.Unavailable("none of the cell's console proxies is up")
    return random.choice(alive) if alive else None


def _row(host: str, version: str, started_at: datetime.datetime) -> dict[str, object]:
    return {
        "uuid": str(uuids.uuid4()), "host": host, "binary": CONSOLE_PROXY, "version": version, "disabled": False,
        "forced_down": False, "left": False, "deaf": False, "started_at": started_at, "created_at": started_at,
        "updated_at": started_at,
    }  # fmt: skip
