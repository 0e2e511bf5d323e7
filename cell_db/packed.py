"""Servers that travel as one JSON array each, which is read in C; with each the state of its host, if that is wanted.

The driver reads each column of each row, and of each result's description, in Python: for 1,000 servers that takes 14
ms of the processor, for 3 servers of a cell 0.20 ms; packed 4 and 0.04 ms, and the database takes 4 ms more for 1,000
(measured, MariaDB 10.11, PyMySQL 1.2). Both kinds of database have `json_array`.
"""

import datetime
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import msgspec
import sqlalchemy as sa

import cell_db.hosts
import core.errors
from cell_db.tables import instances, services
from database.types import UNREADABLE, Json, Moment, readable
from lifecycle import states
from objects.build import Flavor
from objects.fault import Fault
from objects.server import Server

T = TypeVar("T")

SERVER_COLUMNS = tuple(instances.c[name] for name in Server.__struct_fields__)
"""The columns of a Server, in its order."""


class Unreadable(msgspec.Struct, frozen=True):
    """A row that holds what no server can have. Users see of it what its mapping tells, as of a server whose cell is
    away."""

    uuid: str
    why: str


class _Extra(msgspec.Struct):
    """Of what no column holds, that which is looked into."""

    server_groups: list[str] | None = None
    addresses: dict[str, Any] | None = None
    pinned_availability_zone: str | None = None
    image_properties: dict[str, str] | None = None
    scheduler_hints: dict[str, list[Any]] | None = None


def _typed(kind: Any) -> Callable[[str | None], Any]:
    """Reads a document as this."""
    decode = msgspec.json.Decoder(kind).decode
    return lambda text: decode("null" if text is None else text)


def _checked(kind: Any) -> Callable[[str | None], Any]:
    """Reads a document, which must fit this, into plain values."""
    decode = msgspec.json.Decoder().decode

    def read(text: str | None) -> Any:
        value = None if text is None else decode(text)
        msgspec.convert(value, kind)
        return value

    return read


# How the columns that are JSON themselves are read; in the array they are text.
_READ = {
    "flavor": _typed(Flavor),
    "metadata": _typed(dict[str, str] | None),
    "tags": _typed(list[str] | None),
    "fault": _typed(Fault | None),
    "extra": _checked(_Extra | None),
}
_DOCUMENTS = tuple(
    (number, _READ[column.name]) for number, column in enumerate(SERVER_COLUMNS) if isinstance(column.type, Json)
)
_FIELDS = Server.__struct_fields__
_EXTRA, _STATE, _LOCKED_BY = (_FIELDS.index(name) for name in ("extra", "state", "locked_by"))
_LOCKERS = (None, "owner", "admin")
# A flag is a number in the database. Nothing is converted: the text "null" is not None, nor "5" a number or a moment.
_KINDS = {
    bool: bool | Literal[0, 1],
    datetime.datetime: Moment,
    datetime.datetime | None: Moment | None,
}
_FLAGS = tuple(number for number, each in enumerate(msgspec.structs.fields(Server)) if each.type is bool)
_TYPES = [
    *(
        (each.name, str | None if isinstance(column.type, Json) else _KINDS.get(each.type, each.type))
        for each, column in zip(msgspec.structs.fields(Server), SERVER_COLUMNS, strict=True)
    ),
    ("host_status", str | None, None),
]
_Packed = msgspec.defstruct("_Packed", _TYPES, array_like=True)
_unpacked = msgspec.json.Decoder(list[_Packed]).decode


def select(*, user_data: bool, hosts_down_after_s: float | None) -> sa.Select[tuple[str]]:
    """All servers of a cell, packed.

    `user_data`, which may be long, comes only if it is wanted, and so does the state of the servers' hosts: a host that
    is silent for so long is not up, None: nobody asks.
    """
    names = (
        "NULL" if column.name == "user_data" and not user_data else f"instances.{column.name}"
        for column in SERVER_COLUMNS
    )
    # As text: SQLAlchemy would look at every column again for each statement.
    return _select([sa.literal_column(", ".join(names))], hosts_down_after_s)


def select_damaged(*, user_data: bool, hosts_down_after_s: float | None) -> sa.Select[tuple[str]]:
    """As `select`, for rows of which some are damaged: what JSON cannot hold does not fail the statement. It costs
    more."""
    columns = [
        sa.null() if column.name == "user_data" and not user_data else readable(column) for column in SERVER_COLUMNS
    ]
    return _select(columns, hosts_down_after_s)


def _select(columns: Sequence[sa.ColumnElement[Any]], hosts_down_after_s: float | None) -> sa.Select[tuple[str]]:
    if hosts_down_after_s is None:
        return sa.select(sa.func.json_array(*columns, type_=sa.Text)).select_from(instances)
    host = instances.c.host
    status = cell_db.hosts.host_status(host, down_after_s=hosts_down_after_s)
    joined = instances.outerjoin(services, cell_db.hosts.agent_of_host(host))
    return sa.select(sa.func.json_array(*columns, status, type_=sa.Text)).select_from(joined)


def servers(packed: Sequence[str]) -> list[Server]:
    """The servers of such arrays, in their order; the state of a server's host is `extra["host_status"]`.

    Raises:
        Unreadable: one of them cannot be read. Whoever wants the others reads them with `select_damaged`
            and `server`.
    """
    documents: dict[tuple[int, str | None], Any] = {}
    try:
        return [_server(each, documents) for each in _unpacked(f"[{','.join(packed)}]")]
    except UNREADABLE as error:
        raise core.errors.Unreadable("The record of an instance cannot be read.", why=_why(error)) from error


def server(uuid: str, packed: str) -> Server | Unreadable:
    """The server of one such array."""
    try:
        (row,) = _unpacked(f"[{packed}]")
        return _server(row, {})
    except UNREADABLE as error:
        return Unreadable(uuid, _why(error))


def or_one_by_one(at_once: Callable[[], T], one_by_one: Callable[[], T]) -> T:
    """What `at_once` gives; if one row of those that it reads is damaged, what `one_by_one` gives."""
    try:
        return at_once()
    except core.errors.Unreadable:
        pass
    except sa.exc.OperationalError as error:
        if _NO_JSON not in str(error.orig):
            raise
    return one_by_one()


def one(uuid: str, read: Callable[[], str | None]) -> Server | None:
    """The server of the array that `read` asks the database for; None: it has none.

    Raises:
        Unreadable: it cannot be read.
    """
    try:
        packed = read()
    except sa.exc.OperationalError as error:
        if _NO_JSON not in str(error.orig):
            raise
        raise refused(uuid, str(error.orig)) from error
    row = None if packed is None else server(uuid, packed)
    if isinstance(row, Unreadable):
        raise refused(uuid, row.why)
    return row


def refused(uuid: str, why: str) -> core.errors.Unreadable:
    """What to raise for a row that cannot be read."""
    return core.errors.Unreadable(f"The record of instance {uuid} cannot be read.", server=uuid, why=why)


_NO_JSON = "JSON cannot hold BLOB values"
"""What SQLite says of a whole statement; there is no column of MariaDB that JSON cannot hold."""
_LONGEST_WHY = 200


def _why(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:_LONGEST_WHY]


def _server(packed: msgspec.Struct, documents: dict[tuple[int, str | None], Any]) -> Server:
    """The Server; equal documents of many servers, such as a flavor, are read once and shared."""
    *values, host_status = msgspec.structs.astuple(packed)
    for number, read in _DOCUMENTS:
        key = number, values[number]
        if key not in documents:
            documents[key] = read(values[number])
        values[number] = documents[key]
    for number in _FLAGS:
        values[number] = bool(values[number])
    if values[_STATE] not in states.PROTOCOL_STATES or values[_LOCKED_BY] not in _LOCKERS:
        raise ValueError(f"state {values[_STATE]!r}, locked by {values[_LOCKED_BY]!r}")
    if host_status is not None:
        values[_EXTRA] = {**(values[_EXTRA] or {}), "host_status": host_status}
    return Server(*values)
