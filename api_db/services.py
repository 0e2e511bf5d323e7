"""The API level's own processes and when they were last seen."""

import dataclasses
import datetime
import uuid as uuids

import sqlalchemy as sa

from api_db.tables import services
from core.clock import utcnow
from database.statements import insert_if_absent
from database.types import now_sql


@dataclasses.dataclass(frozen=True, slots=True)
class ApiService:
    """`silent_s`: seconds since it was last seen, by the database's clock at the time of the query."""

    id: int
    uuid: str
    host: str
    binary: str
    version: str
    started_at: datetime.datetime
    last_seen_at: datetime.datetime
    silent_s: float

    def is_up(self, down_after_s: float) -> bool:
        """Whether it was seen lately; one that ends in good order has no row any more (`forget`)."""
        return self.silent_s < down_after_s


def beat(connection: sa.Connection, *, host: str, binary: str, version: str, started_at: datetime.datetime) -> None:
    """Says that the process lives."""
    mine = sa.and_(services.c.host == host, services.c.binary == binary)
    values = {"version": version, "started_at": started_at, "last_seen_at": now_sql(), "updated_at": now_sql()}
    if connection.execute(sa.update(services).where(mine).values(**values)).rowcount:
        return
    row = {"uuid": str(uuids.uuid4()), "host": host, "binary": binary, "created_at": utcnow(), "last_seen_at": utcnow()}
    insert_if_absent(connection, services, [{**row, "version": version, "started_at": started_at}])


def list_all(connection: sa.Connection) -> list[ApiService]:
    """Every process that has been seen, by binary and host."""
    now = now_sql().label("now")
    columns = (
        services.c.id, services.c.uuid, services.c.host, services.c.binary, services.c.version, services.c.started_at,
        services.c.last_seen_at, now,
    )  # fmt: skip
    rows = connection.execute(sa.select(*columns).order_by(services.c.binary, services.c.host))
    return [ApiService(*row[:-1], silent_s=(row.now - row.last_seen_at).total_seconds()) for row in rows]


def forget(connection: sa.Connection, *, host: str, binary: str) -> None:
    """Removes a process that stopped in good order."""
    connection.execute(sa.delete(services).where(services.c.host == host, services.c.binary == binary))
