"""Rows of servers that travel as one JSON array each, which is read in C.

The driver reads each column of each row, and of each result's description, in Python: for 1,000 servers that takes 14 ms of the processor,
for 3 servers of a cell 0.20 ms; packed 4 and 0.04 ms, and the database takes 4 ms more for 1,000 (measured, MariaDB 10.11, PyMySQL 1.2).
Both kinds of database have `json_array`.
"""

import msgspec
import sqlalchemy as sa

from cell_db.instances import SERVER_COLUMNS
from core.database import Json
from objects.server import Server

# Columns that are JSON themselves are text in the array.
_DOCUMENTS = tuple(number for number, column in enumerate(SERVER_COLUMNS) if isinstance(column.type, Json))
_Packed = msgspec.defstruct(
    "_Packed",
    [
        (each.name, str | None if isinstance(column.type, Json) else each.type)
        for each, column in zip(msgspec.structs.fields(Server), SERVER_COLUMNS, strict=True)
    ],
    array_like=True,
)
# Not strict: a flag is a number in the database.
_unpacked = msgspec.json.Decoder(_Packed, strict=False).decode
_document = msgspec.json.Decoder().decode


def server_column(*, user_data: bool) -> sa.ColumnElement[str]:
    """All columns of a Server; `user_data`, which may be long, only if it is wanted."""
    names = ("NULL" if column.name == "user_data" and not user_data else f"instances.{column.name}" for column in SERVER_COLUMNS)
    # As text: SQLAlchemy would look at every column again for each statement.
    return sa.literal_column(f"json_array({', '.join(names)})", sa.Text)


def server(packed: str) -> Server:
    """The Server of such an array."""
    values = list(msgspec.structs.astuple(_unpacked(packed)))
    for number in _DOCUMENTS:
        if values[number] is not None:
            values[number] = _document(values[number])
    return Server(*values)
